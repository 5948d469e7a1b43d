"""The meaning of a pixel's numbers: colour, alpha, palette, grey, or channels.

A student sees 8-bit RGB and nothing else. Everything else is either converted to it
without loss of meaning (alpha over white, palettes) or kept as it is for display and
labelled as not being colour.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

RGB = ("R", "G", "B")

Ranges = tuple[tuple[float, float], ...]
"""For every channel the stored values that are shown as 0 and as 255."""

_DEPTHS = (8, 10, 12, 14, 16)
"""Bits that cameras and scanners fill, whatever type holds them."""


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
    order : tuple of int
        Which stored samples are red, green and blue.
    alpha : int
        Which stored sample is the opacity, if there is one.
    by_brightest : callable or None
        For colour deeper than 8 bit whose range the file does not state: returns the
        same, given the largest stored value that was found.
    """

    channels: tuple[str, ...]
    convert: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] | None = None
    background: float = 0
    notes: tuple[str, ...] = ()
    opaque: Colours | None = None
    order: tuple[int, ...] = (0, 1, 2)
    alpha: int = -1
    by_brightest: Callable[[float], Colours] | None = None

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
    notes: tuple[str, ...] = (),
    *,
    multiplied: bool = False,
) -> Colours:
    """Return the colours of channels that are red, green, blue, and perhaps opacity.

    Parameters
    ----------
    order : sequence of int
        Which channel is red, green, blue, and opacity if there are four.
    convert : callable, optional
        What must first be done to the stored channels so that they are 8-bit.
    notes : tuple of str
        What is to be said of that.
    multiplied : bool
        Whether the colours are stored multiplied by their opacity.
    """
    wanted = list(order)
    over = associated_over_white if multiplied else over_white

    def sorted_channels(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        stored = pixels[..., wanted]
        stored = stored if convert is None else convert(stored)
        coloured: npt.NDArray[Any] = np.ascontiguousarray(stored)
        return over(coloured) if len(wanted) == 4 else coloured

    first = tuple(wanted[:3])
    if len(wanted) == 3:
        return Colours(RGB, sorted_channels, 255, notes, order=first)
    shown = (*notes, "transparent parts are shown white")
    opaque = colours_of_planes(first, convert, notes)
    return Colours(
        RGB, sorted_channels, 255, shown, opaque, order=first, alpha=wanted[3]
    )


def deep_colours(
    order: Sequence[int],
    dtype: np.dtype[Any],
    *,
    top: float | None = None,
    seen: float | None = None,
    multiplied: bool = False,
) -> Colours:
    """Return colour of another type than uint8, scaled to it.

    Parameters
    ----------
    order : sequence of int
        Which stored sample is red, green, blue, and opacity if there are four.
    dtype : numpy dtype
        Of what is stored.
    top : float, optional
        The value that the file says is 255. Without it, the largest value that was
        found shows how many bits are filled, and until then the type decides.
    seen : float, optional
        The largest value that was found.
    multiplied : bool
        Whether the colours are stored multiplied by their opacity.
    """
    end = top_of(dtype, seen or 0) if top is None else top
    ranges = ((0.0, end),) * len(order)
    why = "" if top is not None else brightest_words(seen)
    notes = (scaled_note(ranges, dtype, why),)
    scale = to_8_bit(ranges)
    found = colours_of_planes(order, scale, notes, multiplied=multiplied)
    if found.opaque is not None:
        opaque = colours_of_planes(order[:3], to_8_bit(ranges[:3]), notes)
        found = replace(found, opaque=replace(opaque, background=end))
    found = replace(found, background=end)
    if top is not None or seen is not None:
        return found

    def by_brightest(seen: float) -> Colours:
        return deep_colours(order, dtype, seen=seen, multiplied=multiplied)

    return replace(found, by_brightest=by_brightest)


def top_of(dtype: np.dtype[Any], seen: float) -> float:
    """Return the value that is shown as 255, by the largest one that was found.

    Twelve bits in a type of 16 would be all but black if the type decided. Floats reach
    from 0 to 1, or as whole numbers do.
    """
    most = float(np.iinfo(dtype).max) if dtype.kind in "iu" else np.inf
    if seen <= 0:
        return most if np.isfinite(most) else 1.0
    if dtype.kind == "f" and seen <= 1.5:  # interpolation overshoots
        return 1.0
    tops = [float(2**bits - 1) for bits in _DEPTHS]
    return min(next((top for top in tops if seen <= top), max(seen, tops[-1])), most)


def to_8_bit(ranges: Ranges) -> Callable[[npt.NDArray[Any]], npt.NDArray[np.uint8]]:
    """Return the function that scales ``(h, w, channels)`` linearly to uint8.

    Values at and below the first of a channel's range are 0, at and above the second
    255; what is not a number is 0.
    """
    low = np.array([a for a, _ in ranges], np.float64)
    high = np.array([b for _, b in ranges], np.float64)

    def scaled(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        share = (pixels.astype(np.float64) - low) / (high - low)
        share = np.nan_to_num(share, nan=0.0, posinf=1.0, neginf=0.0)
        whole: npt.NDArray[np.uint8] = np.rint(255 * share.clip(0, 1)).astype(np.uint8)
        return whole

    return scaled


def scaled_note(ranges: Ranges, dtype: np.dtype[Any], why: str = "") -> str:
    """Return the sentence that says how values became 8-bit, and by what."""
    same = len(set(ranges[:3])) == 1
    shown = ", ".join(f"{a:g} to {b:g}" for a, b in (ranges[:1] if same else ranges))
    return f"colour of type {dtype} is scaled to 8 bit: {shown} becomes 0 to 255{why}"


def brightest_words(seen: float | None) -> str:
    """Return by what a range was chosen that the file does not state."""
    by = f", by its brightest value, {seen:g}" if seen else ""
    return f"{by}; the file states no window"


def name_or_none(label: str) -> str:
    """Return a channel's name; a number or "Channel 0" is none."""
    bare = re.sub(r"^(channel|ch|c)?[\s_:#-]*[\d:\s]*$", "", label.strip().lower())
    return label.strip() if bare else ""


def first_three(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Drop all but the first three samples."""
    return np.ascontiguousarray(pixels[..., :3])
