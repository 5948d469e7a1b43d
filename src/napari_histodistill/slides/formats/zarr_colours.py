"""The channels of an OME-Zarr image: colour, or stains, or a question to the user.

A student reads 8-bit H&E. Three channels of a zarr may be that, or three fluorescent
stains of the same type; nothing in the pixels says which. So they are colour only where
the file says so: channels named red, green and blue (in any order, with opacity beside
them or not), or unnamed ones that are shown in red, green and blue in this order, as
converters of H&E write them. Three channels without any such word are left to a person
(:func:`taken_for_colour`); four are never taken for colour and opacity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import InputError
from napari_histodistill.slides.pyramid.colours import (
    RGB,
    Colours,
    brightest_words,
    colours_of_planes,
    name_or_none,
    scaled_note,
    to_8_bit,
    top_of,
)
from napari_histodistill.slides.pyramid.damage import read_part
from napari_histodistill.slides.tiff.ome import colour_order

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from napari_histodistill.slides.formats.zarr_levels import Axes
    from napari_histodistill.slides.pyramid.colours import Ranges
    from napari_histodistill.slides.pyramid.damage import Damage
    from napari_histodistill.slides.pyramid.levels import LevelInfo, PixelSource, Rect
    from napari_histodistill.slides.pyramid.slide import Slide

Brightest = Callable[[Sequence[int]], float]
"""Returns the largest value that is stored in channels."""

_COLOURS = ("ff0000", "00ff00", "0000ff")
_BY_COLOUR = "three channels shown in red, green and blue are taken for a colour image"


def zarr_colours(
    array: Any, axes: Axes, omero: Mapping[str, Any], brightest: Brightest
) -> tuple[Colours, Ranges]:
    """Return how channels become the slide's, and ranges if a person must be asked.

    Parameters
    ----------
    array : zarr array
        The finest level.
    axes : Axes
        Its axes.
    omero : mapping
        The image's ``omero`` block, which names and colours the channels.
    brightest : callable
        Called if the block states no range of colours deeper than 8 bit.
    """
    if axes.c is None:
        return Colours(("grey",)), ()
    count, dtype = int(array.shape[axes.c]), np.dtype(array.dtype)
    channels = _channels(omero, count)
    labels = [name_or_none(str(channel.get("label") or "")) for channel in channels]
    order = colour_order(labels)
    if order:
        return _named(order, channels, dtype, brightest), ()
    if count == 3 and not any(labels):
        if _coloured(channels):
            told = _named((0, 1, 2), channels, dtype, brightest)
            return replace(told, notes=(_BY_COLOUR, *told.notes)), ()
        if not any(channel.get("color") for channel in channels):
            asked = _scaling((0, 1, 2), channels, dtype, brightest)
            return Colours(_numbered(labels)), asked.ranges
    return Colours(_numbered(labels), notes=_doubt(count, dtype, labels)), ()


def taken_for_colour(slide: Slide) -> Slide:
    """Return a slide whose three channels a person has called red, green and blue.

    Parameters
    ----------
    slide : Slide
        One of which :attr:`SlideInfo.needs_rgb` is true; a colour slide is returned as
        it is. Values of other types than 8-bit are scaled by their stated range.

    Raises
    ------
    InputError
        If it has other channels than three unnamed ones.
    """
    info = slide.info
    if info.is_rgb:
        return slide
    if not info.needs_rgb:
        names = ", ".join(info.channels[:6])
        msg = (
            f"{slide.name}: only three channels without names can be called red, green "
            f"and blue; it has {len(info.channels)} ({names})."
        )
        raise InputError(msg)
    ranges, dtype = info.colour_ranges, slide.dtype
    told = replace(info, channels=RGB, colour_ranges=())
    if dtype == np.uint8:
        return slide.with_info(told)
    note = scaled_note(ranges, dtype)
    told = replace(told, notes=(*info.notes, note))
    return slide.with_info(told, _Scaled(slide.source, to_8_bit(ranges)))


class _Scaled:
    """A source whose pixels are scaled to 8 bit as they are read."""

    def __init__(
        self,
        source: PixelSource,
        scale: Callable[[npt.NDArray[Any]], npt.NDArray[np.uint8]],
    ) -> None:
        self._source, self._scale = source, scale
        self.levels: Sequence[LevelInfo] = source.levels

    def read_level(self, level: int, rect: Rect) -> npt.NDArray[np.uint8]:
        """Return ``(height, width, channels)``; see :class:`PixelSource`."""
        return self._scale(self._source.read_level(level, rect))

    def read_damaged(
        self, level: int, rect: Rect, damage: Damage
    ) -> npt.NDArray[np.uint8]:
        """Read what can be read and note the rest; see :func:`read_part`."""
        return self._scale(read_part(self._source, level, rect, damage))

    def close(self) -> None:
        """Close the source."""
        self._source.close()


def _channels(omero: Mapping[str, Any], count: int) -> list[Mapping[str, Any]]:
    """Return one entry per channel, empty where the file has none."""
    found = omero.get("channels")
    entries = found if isinstance(found, list) else []
    known: list[Mapping[str, Any]] = [
        c if isinstance(c, dict) else {} for c in entries[:count]
    ]
    return known + [{}] * (count - len(known))


def _coloured(channels: Sequence[Mapping[str, Any]]) -> bool:
    return all(
        str(channel.get("color") or "").lstrip("#").lower() == colour
        for channel, colour in zip(channels, _COLOURS, strict=True)
    )


def _named(
    order: Sequence[int],
    channels: Sequence[Mapping[str, Any]],
    dtype: np.dtype[Any],
    brightest: Brightest,
) -> Colours:
    """Return the colours of channels that the file calls red, green, blue."""
    if dtype == np.uint8 and tuple(order) == (0, 1, 2):
        return Colours(RGB, None, 255)
    if dtype == np.uint8:
        return colours_of_planes(order)
    scaling = _scaling(order, channels, dtype, brightest)
    notes = (scaled_note(scaling.ranges, dtype, scaling.why),)
    found = colours_of_planes(order, to_8_bit(scaling.ranges), notes)
    if found.opaque is None:
        return found
    opaque = colours_of_planes(order[:3], to_8_bit(scaling.ranges[:3]), notes)
    return replace(found, opaque=opaque)


@dataclass(frozen=True, slots=True)
class _Scaling:
    """What is shown as 0 and 255, and by what it was chosen if nothing is stated."""

    ranges: Ranges
    why: str = ""


def _scaling(
    order: Sequence[int],
    channels: Sequence[Mapping[str, Any]],
    dtype: np.dtype[Any],
    brightest: Brightest,
) -> _Scaling:
    """Return how channels are scaled, in this order.

    8-bit values are colours already, whatever window they are viewed through.
    """
    if dtype == np.uint8:
        return _Scaling(((0.0, 255.0),) * len(order))
    stated = [_window(channels[k]) for k in order]
    windows = tuple((min(w), max(w)) for w in stated if w is not None)
    if len(windows) == len(order):
        turned = any(w is not None and w[0] > w[1] for w in stated)
        return _Scaling(windows, _TURNED if turned else "")
    seen = brightest(list(order[:3]))
    return _Scaling(((0.0, top_of(dtype, seen)),) * len(order), brightest_words(seen))


_TURNED = "; the file states its window the wrong way round"


def _window(channel: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the stored values that are shown darkest and brightest, if stated."""
    window = channel.get("window")
    if not isinstance(window, dict):
        return None
    try:
        low, high = float(window["start"]), float(window["end"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return (low, high) if math.isfinite(high - low) and low != high else None


def _numbered(labels: Sequence[str]) -> tuple[str, ...]:
    return tuple(label or f"channel {k + 1}" for k, label in enumerate(labels))


def _doubt(count: int, dtype: np.dtype[Any], labels: Sequence[str]) -> tuple[str, ...]:
    """Say of four unnamed 8-bit channels, which other programs take for colour, why."""
    if count != 4 or dtype != np.uint8 or any(labels):
        return ()
    note = (
        "four channels without names are not taken for colour and opacity: the file "
        "would have to call them R, G, B and A"
    )
    return (note,)
