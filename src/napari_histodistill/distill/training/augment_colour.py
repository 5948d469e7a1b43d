"""Changes of colour, one draw per image."""

from __future__ import annotations

from dataclasses import dataclass, fields

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


@dataclass(frozen=True, slots=True, eq=False)
class DrawnColours:
    """What was drawn for a batch of views, as it is applied.

    Attributes
    ----------
    restain, offset : Tensor or None
        ``(n, 3, 3)`` and ``(n, 3)``, in optical density; None if stains stay.
    mix : Tensor or None
        ``(n, 3, 3)``: white balance, saturation and hue; None without three colours.
    contrast, brightness : Tensor
        ``(n,)``.
    inverted : Tensor or None
        ``(n,)`` bool; None if no view can be.
    """

    restain: Tensor | None
    offset: Tensor | None
    mix: Tensor | None
    contrast: Tensor
    brightness: Tensor
    inverted: Tensor | None

    def tensors(self) -> dict[str, Tensor]:
        """Return what is not None, by the field's name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def read(cls, tensors: dict[str, Tensor]) -> DrawnColours:
        """Return what :meth:`tensors` returned, other tensors left aside."""
        return cls(**{field.name: tensors.get(field.name) for field in fields(cls)})  # type: ignore[arg-type]


def draw_colours(
    colour: Colour, count: int, generator: torch.Generator, *, has_stains: bool
) -> DrawnColours:
    """Draw changes of colour, on the CPU.

    Parameters
    ----------
    colour : Colour
        Ranges of the changes.
    count : int
        Number of views.
    generator : torch.Generator
        On the CPU.
    has_stains : bool
        Whether the channels are red, green and blue of a stain; otherwise only
        brightness and contrast change.
    """

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    # Everything is drawn, used or not: later draws must not depend on that.
    scale, shift = draw(*colour.stain_scale, 3), draw(-1, 1, 3) * colour.stain_shift
    balance, contrast = draw(*colour.balance, 3), draw(*colour.contrast)
    brightness = draw(-1, 1) * colour.brightness
    saturation, turn = draw(*colour.saturation), draw(-1, 1) * colour.hue
    inverted = draw(0, 1) < colour.invert
    restain = offset = mix = None
    if has_stains:
        mix = _matrix(balance, saturation, turn)
        if colour.stain_shift or colour.stain_scale != (1.0, 1.0):
            # Unmixing, scaling and mixing again is one matrix per image, and an offset.
            restain = _OD_TO_HED @ (scale[:, :, None] * _HED_TO_OD)
            offset = shift @ _HED_TO_OD
    return DrawnColours(
        restain, offset, mix, contrast, brightness, inverted if colour.invert else None
    )


def change_colours(views: Tensor, drawn: DrawnColours) -> Tensor:
    """Return views in other colours.

    Parameters
    ----------
    views : Tensor
        ``(n, c, h, w)`` float32 in 0..1.
    drawn : DrawnColours
        Tensors on the views' device: see ``moving.sent``.
    """
    if drawn.restain is not None and drawn.offset is not None:
        density = -torch.log(views.clamp_min(1 / 255))
        density = torch.einsum("nchw,ncd->ndhw", density, drawn.restain)
        views = torch.exp(-density - drawn.offset[:, :, None, None])
    if drawn.mix is not None:
        views = torch.einsum("ndc,nchw->ndhw", drawn.mix, views)
    mean = views.mean((1, 2, 3), keepdim=True)
    views = (views - mean) * _each(drawn.contrast) + mean + _each(drawn.brightness)
    views = views.clamp(0, 1)
    if drawn.inverted is None:
        return views
    return torch.where(_each(drawn.inverted), 1 - views, views)


def _matrix(balance: Tensor, saturation: Tensor, turn: Tensor) -> Tensor:
    """Return ``(n, 3, 3)``: white balance, then saturation, then hue."""
    angle = turn * (2 * torch.pi)
    rotation = torch.zeros(len(turn), 3, 3)
    rotation[:, 0, 0] = 1
    rotation[:, 1, 1] = rotation[:, 2, 2] = angle.cos()
    rotation[:, 1, 2], rotation[:, 2, 1] = -angle.sin(), angle.sin()
    hue = _YIQ_TO_RGB @ rotation @ _RGB_TO_YIQ
    grey = _LUMA.expand(3, 3)
    eye = torch.eye(3)
    saturate = grey + saturation[:, None, None] * (eye - grey)
    found: Tensor = hue @ saturate @ torch.diag_embed(balance)
    return found


def _each(values: Tensor) -> Tensor:
    return values[:, None, None, None]
