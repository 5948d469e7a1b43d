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
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import InputError
from napari_histodistill.slides.pyramid.colours import RGB, Colours, over_white
from napari_histodistill.slides.pyramid.damage import read_part

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from napari_histodistill.slides.formats.zarr_levels import Axes
    from napari_histodistill.slides.pyramid.damage import Damage
    from napari_histodistill.slides.pyramid.levels import LevelInfo, PixelSource, Rect
    from napari_histodistill.slides.pyramid.slide import Slide

Ranges = tuple[tuple[float, float], ...]
"""For every channel the stored values that are shown as 0 and as 255."""

_NAMES = (("red", "r"), ("green", "g"), ("blue", "b"), ("alpha", "opacity", "a"))
_COLOURS = ("ff0000", "00ff00", "0000ff")
_BY_COLOUR = "three channels shown in red, green and blue are taken for a colour image"


def zarr_colours(
    array: Any, axes: Axes, omero: Mapping[str, Any]
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
    """
    if axes.c is None:
        return Colours(("grey",)), ()
    count, dtype = int(array.shape[axes.c]), np.dtype(array.dtype)
    channels = _channels(omero, count)
    labels = [_label(channel) for channel in channels]
    order = _order(labels)
    if order:
        return _named(order, channels, dtype), ()
    ranges, _ = _ranges(channels, dtype)
    if count == 3 and not any(labels):
        if _coloured(channels):
            told = _named([0, 1, 2], channels, dtype)
            return replace(told, notes=(_BY_COLOUR, *told.notes)), ()
        if not any(channel.get("color") for channel in channels):
            return Colours(_numbered(labels)), ranges
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
    note = _scaled_note(ranges, dtype)
    told = replace(told, notes=(*info.notes, note))
    return slide.with_info(told, _Scaled(slide.source, to_8_bit(ranges)))


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


def _label(channel: Mapping[str, Any]) -> str:
    """Return a channel's name; a number or "Channel 0" is none."""
    label = str(channel.get("label") or "").strip()
    bare = label.lower().removeprefix("channel").removeprefix("ch").strip(" _:-#")
    return "" if not bare or bare.isdigit() else label


def _order(labels: Sequence[str]) -> list[int]:
    """Return where red, green, blue (and opacity) are; empty if those are not all."""
    if len(labels) not in {3, 4}:
        return []
    order = []
    for names in _NAMES[: len(labels)]:
        at = [k for k, label in enumerate(labels) if label.lower() in names]
        if len(at) != 1:
            return []
        order += at
    return order


def _coloured(channels: Sequence[Mapping[str, Any]]) -> bool:
    return all(
        str(channel.get("color") or "").lstrip("#").lower() == colour
        for channel, colour in zip(channels, _COLOURS, strict=True)
    )


def _named(
    order: Sequence[int], channels: Sequence[Mapping[str, Any]], dtype: np.dtype[Any]
) -> Colours:
    """Return the colours of channels that the file calls red, green, blue."""
    ranges, stated = _ranges([channels[k] for k in order], dtype)
    notes: tuple[str, ...] = ()
    scale = None
    if dtype != np.uint8:
        scale = to_8_bit(ranges)
        why = "" if stated else "; the file states no window"
        notes = (_scaled_note(ranges, dtype) + why,)
    if len(order) == 4:
        notes = (*notes, "transparent parts are shown white")
    picked = list(order)

    def convert(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        sorted_channels = pixels[..., picked]
        eight = sorted_channels if scale is None else scale(sorted_channels)
        if len(picked) == 4:
            return over_white(eight)
        return np.ascontiguousarray(eight)

    as_stored = picked == [0, 1, 2] and scale is None
    return Colours(RGB, None if as_stored else convert, 255, notes)


def _ranges(
    channels: Sequence[Mapping[str, Any]], dtype: np.dtype[Any]
) -> tuple[Ranges, bool]:
    """Return what is shown as 0 and 255, and whether the file states it for all.

    8-bit values are colours already, whatever window they are viewed through.
    """
    if dtype == np.uint8:
        return ((0.0, 255.0),) * len(channels), True
    stated = [_window(channel) for channel in channels]
    whole = (0.0, float(np.iinfo(dtype).max) if dtype.kind in "iu" else 1.0)
    return tuple(s or whole for s in stated), all(s is not None for s in stated)


def _window(channel: Mapping[str, Any]) -> tuple[float, float] | None:
    window = channel.get("window")
    if not isinstance(window, dict):
        return None
    try:
        low, high = float(window["start"]), float(window["end"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return (low, high) if math.isfinite(high - low) and low < high else None


def _scaled_note(ranges: Ranges, dtype: np.dtype[Any]) -> str:
    same = len(set(ranges[:3])) == 1
    shown = ", ".join(f"{a:g} to {b:g}" for a, b in (ranges[:1] if same else ranges))
    return f"colour of type {dtype} is scaled to 8 bit: {shown} becomes 0 to 255"


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
