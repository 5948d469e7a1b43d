"""The meaning of a pixel's numbers: colour, alpha, palette, grey, or channels.

A student sees 8-bit RGB and nothing else. Everything else is either converted to it
without loss of meaning (alpha over white, palettes) or kept as it is for display and
labelled as not being colour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

RGB = ("R", "G", "B")


@dataclass(frozen=True, slots=True)
class Colours:
    """How stored samples become the channels of a slide.

    Attributes
    ----------
    channels : tuple of str
        Names; exactly ``("R", "G", "B")`` if it is a colour image for a student.
    convert : callable or None
        Converts stored ``(h, w, samples)`` into ``(h, w, channels)``; None keeps them
        as stored.
    background : float
        Stored value of pixels that the file leaves out.
    notes : tuple of str
        Changes that the user should know about.
    opaque : Colours or None
        For pixels with an opacity: the same without it.
    """

    channels: tuple[str, ...]
    convert: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] | None = None
    background: float = 0
    notes: tuple[str, ...] = ()
    opaque: Colours | None = None

    def apply(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return stored pixels ``(h, w, samples)`` as ``(h, w, channels)``."""
        return pixels if self.convert is None else self.convert(pixels)


def colours_of_samples(
    samples: int, dtype: np.dtype[Any], *, alpha: bool | None = True
) -> Colours:
    """Return the colours of samples that are declared as (or taken for) RGB.

    Parameters
    ----------
    samples : int
        Stored samples, at least three.
    dtype : numpy dtype
        Only uint8 is colour for a student.
    alpha : bool or None
        Whether a fourth sample is opacity; None if that is unknown.
    """
    if dtype != np.uint8:
        extra = tuple(f"extra {k + 1}" for k in range(samples - 3))
        note = f"colour of type {dtype}: students read 8-bit colour only"
        return Colours(("red", "green", "blue", *extra), notes=(note,))
    if samples == 3:
        return Colours(RGB, background=255)
    if samples == 4 and alpha:
        note = "transparent parts are shown white"
        return Colours(RGB, over_white, 255, (note,), Colours(RGB, first_three, 255))
    note = f"{samples - 3} extra channel(s) beside red, green, blue left out"
    return Colours(RGB, first_three, 255, (note,))


def over_white(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Composite ``(h, w, 4)`` with straight alpha over white."""
    rgb, alpha = pixels[..., :3], pixels[..., 3:]
    if alpha.min(initial=255) == 255:
        return np.ascontiguousarray(rgb)
    mixed = rgb.astype(np.uint16) * alpha + np.uint16(255) * (255 - alpha.astype("u2"))
    composite: npt.NDArray[np.uint8] = ((mixed + 127) // 255).astype(np.uint8)
    return composite


def associated_over_white(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Composite ``(h, w, 4)`` with associated alpha over white.

    Its colours are stored multiplied by their opacity (TIFF 6.0, ExtraSamples 1), so
    they are not multiplied again: only the white behind them is added.
    """
    rgb, alpha = pixels[..., :3], pixels[..., 3:]
    if alpha.min(initial=255) == 255:
        return np.ascontiguousarray(rgb)
    behind = np.uint8(255) - alpha
    # Colours beyond their opacity are a writer's mistake: they stop at white.
    composite: npt.NDArray[np.uint8] = rgb + np.minimum(behind, np.uint8(255) - rgb)
    return composite


def colours_of_planes(
    order: Sequence[int],
    convert: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] | None = None,
) -> Colours:
    """Return the colours of 8-bit channels that are named red, green, blue.

    Parameters
    ----------
    order : sequence of int
        Which channel is red, green, blue, and opacity if there are four.
    convert : callable, optional
        What must first be done to the stored channels.
    """
    wanted = list(order)

    def sorted_channels(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        stored = pixels if convert is None else convert(pixels)
        coloured: npt.NDArray[Any] = np.ascontiguousarray(stored[..., wanted])
        return over_white(coloured) if len(wanted) == 4 else coloured

    return Colours(RGB, sorted_channels, 255)


def first_three(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Drop all but the first three samples."""
    return np.ascontiguousarray(pixels[..., :3])
