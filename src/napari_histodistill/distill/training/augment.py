"""Augmentation: batches of views on the device, drawn from one explicit generator.

A view is cut, turned, flipped and resampled in one step, straight from the source. The
chain of single transforms that image libraries offer resamples several times, and draws
from generators whose state a resumed run could not restore.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from napari_histodistill.distill.training.augment_colour import (
    Colour,
    DrawnColours,
    change_colours,
    draw_colours,
)
from napari_histodistill.distill.training.moving import sent

if TYPE_CHECKING:
    from napari_histodistill.distill.recipes.config import AugmentationPreset, ImageKind
    from napari_histodistill.distill.training.moving import Parts

    Tensor = torch.Tensor


@dataclass(frozen=True, slots=True)
class Geometry:
    """Ranges from which a view's cut is drawn.

    Attributes
    ----------
    flip : float
        Chance of each of the two flips.
    turned : float
        Chance of a rotation.
    angle : float
        Rotations are drawn from 0 to this, radians.
    right_angles : float
        Share of the rotations that are by a multiple of 90°, without resampling.
    height, width : tuple of float
        Range of the cut's share of the image, drawn separately; one draw for both where
        ``square``.
    square : bool
        Whether one draw serves both, times a mild aspect ratio.
    aspect : float
        Largest ratio of the cut's sides, where ``square``.
    """

    flip: float = 0.5
    turned: float = 1.0
    angle: float = 2 * math.pi
    right_angles: float = 0.5
    share: tuple[float, float] = (0.6, 1.0)
    square: bool = True
    aspect: float = 1.18


PRESETS: dict[str, tuple[Geometry, Colour]] = {
    # The published code of More From Less: flips, height and width crops drawn apart,
    # a rotation in four of ten, inversion in three of ten, contrast, saturation, hue.
    "paper": (
        Geometry(
            turned=0.4,
            angle=math.pi,
            right_angles=0.0,
            share=(0.75, 1.0),
            square=False,
        ),
        Colour(invert=0.3, contrast=(0.6, 1.4), saturation=(0.6, 1.4), hue=0.1),
    ),
    # The ways in which sections differ: any orientation, a little scale, stain, white
    # balance.
    "histology": (
        Geometry(),
        Colour(
            stain_scale=(0.75, 1.25),
            stain_shift=0.04,
            balance=(0.88, 1.12),
            contrast=(0.75, 1.25),
            brightness=0.1,
        ),
    ),
    # As "histology", with twice the change of stain and white balance.
    "strong-stain": (
        Geometry(),
        Colour(
            stain_scale=(0.5, 1.5),
            stain_shift=0.08,
            balance=(0.76, 1.24),
            contrast=(0.75, 1.25),
            brightness=0.1,
        ),
    ),
}


class Augment:
    """Makes views of one branch's images.

    Parameters
    ----------
    preset : {"paper", "histology", "strong-stain", "none"}
        See :data:`PRESETS`; ``none`` only resamples.
    kind : {"image", "channels", "mask"}
        ``channels`` are not colours, and get changes of brightness and contrast only;
        masks get neither.
    out_px : int
        Edge of a view.
    """

    def __init__(
        self,
        preset: AugmentationPreset,
        *,
        kind: ImageKind,
        out_px: int,
    ) -> None:
        self._preset = PRESETS.get(preset)
        self._kind = kind
        self._out_px = out_px

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return one view of every image.

        Parameters
        ----------
        images : Tensor
            ``(n, c, h, w)`` uint8, on any device.
        generator : torch.Generator
            On the CPU; equal states give equal views.

        Returns
        -------
        Tensor
            ``(n, c, out_px, out_px)`` float32 in 0..1, on the same device.
        """
        drawn = self.draw(len(images), images.shape[1], generator)
        return self.apply(images, sent([drawn], images.device)[0])

    def draw(self, count: int, channels: int, generator: torch.Generator) -> Parts:
        """Draw views, on the CPU.

        Parameters
        ----------
        count : int
            Number of views.
        channels : int
            Channels of the images.
        generator : torch.Generator
            On the CPU.

        Returns
        -------
        dict of str to Tensor
            For :meth:`apply`, on the CPU.
        """
        if self._preset is None:
            return {}
        geometry, colour = self._preset
        parts = {"theta": draw_cuts(geometry, count, generator)}
        if self._kind != "mask":
            has_stains = self._kind == "image" and channels == 3
            drawn = draw_colours(colour, count, generator, has_stains=has_stains)
            parts |= drawn.tensors()
        return parts

    def apply(self, images: Tensor, drawn: Parts) -> Tensor:
        """Return the views that were drawn, as :meth:`__call__` does.

        Parameters
        ----------
        images : Tensor
            ``(n, c, h, w)`` uint8.
        drawn : dict of str to Tensor
            From :meth:`draw`, on the images' device.
        """
        if self._preset is None:
            return plain_view(images, self._out_px)
        views = _cut(_reduced(images, self._out_px), drawn["theta"], self._out_px)
        if self._kind == "mask":
            return views
        return change_colours(views, DrawnColours.read(drawn))


def plain_view(images: Tensor, out_px: int) -> Tensor:
    """Return images at another size, and otherwise unchanged.

    Parameters
    ----------
    images : Tensor
        ``(n, c, h, w)`` uint8.
    out_px : int
        Edge of the result: bilinear, antialiased where it is smaller.

    Returns
    -------
    Tensor
        ``(n, c, out_px, out_px)`` float32 in 0..1.
    """
    pixels = images.float() / 255
    if images.shape[-2:] == (out_px, out_px):
        return pixels
    return functional.interpolate(
        pixels,
        size=(out_px, out_px),
        mode="bilinear",
        align_corners=False,
        antialias=min(images.shape[-2:]) > out_px,
    )


def draw_cuts(geometry: Geometry, count: int, generator: torch.Generator) -> Tensor:
    """Return the part of its image that every view shows, and its orientation.

    Returns
    -------
    Tensor
        ``(count, 2, 3)`` float32: affine maps from the view's coordinates to the
        image's, both from −1 to 1, as ``affine_grid`` takes them.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    share = uniform(*geometry.share, 2)
    stretch = geometry.aspect ** uniform(-0.5, 0.5)
    if geometry.square:
        height = (share[:, 0] * stretch).clamp(max=1)
        width = (share[:, 0] / stretch).clamp(max=1)
    else:
        height, width = share.unbind(1)
    place = uniform(-1, 1, 2)
    flips = torch.where(uniform(0, 1, 2) < geometry.flip, -1.0, 1.0)
    angle = uniform(0, geometry.angle)
    right = torch.randint(4, (count,), generator=generator) * (math.pi / 2)
    angle = torch.where(uniform(0, 1) < geometry.right_angles, right, angle)
    angle = torch.where(uniform(0, 1) < geometry.turned, angle, 0.0)
    cos, sin = angle.cos(), angle.sin()
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = cos * width * flips[:, 0]
    theta[:, 0, 1] = -sin * height * flips[:, 1]
    theta[:, 1, 0] = sin * width * flips[:, 0]
    theta[:, 1, 1] = cos * height * flips[:, 1]
    theta[:, 0, 2] = place[:, 0] * (1 - width)
    theta[:, 1, 2] = place[:, 1] * (1 - height)
    return theta


def _reduced(images: Tensor, out_px: int) -> Tensor:
    """Return float pixels, averaged over whole blocks where a view is far smaller.

    Bilinear sampling looks at four pixels; a view of a third of the size would skip the
    others and alias.
    """
    pixels = images.float() / 255
    factor = min(images.shape[-2:]) // out_px
    return functional.avg_pool2d(pixels, factor) if factor > 1 else pixels


def _cut(pixels: Tensor, theta: Tensor, out_px: int) -> Tensor:
    n, channels = pixels.shape[:2]
    grid = functional.affine_grid(
        theta, [n, channels, out_px, out_px], align_corners=False
    )
    # Corners of a rotated cut may lie outside: tissue is mirrored there.
    return functional.grid_sample(
        pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
