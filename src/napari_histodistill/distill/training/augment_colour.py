"""Changes of colour, one draw per image."""

from __future__ import annotations

from dataclasses import dataclass

import torch

Tensor = torch.Tensor

# Haematoxylin, eosin and DAB in optical density (Ruifrok and Johnston 2001).
_HED_TO_OD = torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_OD_TO_HED = torch.linalg.inv(_HED_TO_OD)
_LUMA = torch.tensor([0.299, 0.587, 0.114])
# A change of hue is a rotation of these two axes of YIQ.
_RGB_TO_YIQ = torch.tensor(
    [[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]]
)
_YIQ_TO_RGB = torch.linalg.inv(_RGB_TO_YIQ)


@dataclass(frozen=True, slots=True)
class Colour:
    """Ranges of the changes of colour; the defaults change nothing.

    Attributes
    ----------
    invert : float
        Chance of the negative.
    stain_scale : tuple of float
        Range of the factor of each stain in optical density (Tellez et al. 2018).
    stain_shift : float
        Largest amount added to each stain.
    balance : tuple of float
        Range of the factor of each channel: white balance.
    contrast : tuple of float
        Range of the factor about the image's mean.
    brightness : float
        Largest amount added, on a scale of 0..1.
    saturation : tuple of float
        Range of the factor of the distance to grey.
    hue : float
        Largest turn of the hue, in full turns.
    """

    invert: float = 0.0
    stain_scale: tuple[float, float] = (1.0, 1.0)
    stain_shift: float = 0.0
    balance: tuple[float, float] = (1.0, 1.0)
    contrast: tuple[float, float] = (1.0, 1.0)
    brightness: float = 0.0
    saturation: tuple[float, float] = (1.0, 1.0)
    hue: float = 0.0


def change_colours(
    views: Tensor, colour: Colour, generator: torch.Generator, *, stains: bool = True
) -> Tensor:
    """Return views in other colours.

    Parameters
    ----------
    views : Tensor
        ``(n, c, h, w)`` float32 in 0..1.
    colour : Colour
        Ranges of the changes.
    generator : torch.Generator
        On the CPU.
    stains : bool
        Whether the channels are red, green and blue of a stain; otherwise, or if there
        are not three, only brightness and contrast change.
    """
    n, channels = views.shape[:2]

    def draw(low: float, high: float, *shape: int) -> Tensor:
        drawn = low + (high - low) * torch.rand(n, *shape, generator=generator)
        return drawn.to(views.device)

    # Everything is drawn, used or not: later draws must not depend on that.
    scale, shift = draw(*colour.stain_scale, 3), draw(-1, 1, 3) * colour.stain_shift
    balance, contrast = draw(*colour.balance, 3), draw(*colour.contrast)
    brightness = draw(-1, 1) * colour.brightness
    saturation, turn = draw(*colour.saturation), draw(-1, 1) * colour.hue
    inverted = draw(0, 1) < colour.invert
    if stains and channels == 3:
        if colour.stain_shift or colour.stain_scale != (1.0, 1.0):
            views = _restained(views, scale, shift)
        views = _mixed(views, _matrix(balance, saturation, turn))
    mean = views.mean((1, 2, 3), keepdim=True)
    views = (views - mean) * _each(contrast) + mean + _each(brightness)
    views = views.clamp(0, 1)
    return torch.where(_each(inverted), 1 - views, views) if colour.invert else views


def _restained(views: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    density = -torch.log(views.clamp_min(1 / 255))
    # Unmixing, scaling and mixing again is one matrix per image, and one offset.
    to_hed, to_od = _OD_TO_HED.to(views.device), _HED_TO_OD.to(views.device)
    matrix = to_hed @ (scale[:, :, None] * to_od)
    density = torch.einsum("nchw,ncd->ndhw", density, matrix)
    restained: Tensor = torch.exp(-density - (shift @ to_od)[:, :, None, None])
    return restained


def _matrix(balance: Tensor, saturation: Tensor, turn: Tensor) -> Tensor:
    """Return ``(n, 3, 3)``: white balance, then saturation, then hue."""
    angle = turn * (2 * torch.pi)
    rotation = torch.zeros(len(turn), 3, 3, device=turn.device)
    rotation[:, 0, 0] = 1
    rotation[:, 1, 1] = rotation[:, 2, 2] = angle.cos()
    rotation[:, 1, 2], rotation[:, 2, 1] = -angle.sin(), angle.sin()
    to_yiq, to_rgb = _RGB_TO_YIQ.to(turn.device), _YIQ_TO_RGB.to(turn.device)
    hue = to_rgb @ rotation @ to_yiq
    grey = _LUMA.to(turn.device).expand(3, 3)
    eye = torch.eye(3, device=turn.device)
    saturate = grey + saturation[:, None, None] * (eye - grey)
    found: Tensor = hue @ saturate @ torch.diag_embed(balance)
    return found


def _mixed(views: Tensor, matrix: Tensor) -> Tensor:
    mixed: Tensor = torch.einsum("ndc,nchw->ndhw", matrix, views)
    return mixed


def _each(values: Tensor) -> Tensor:
    return values[:, None, None, None]
