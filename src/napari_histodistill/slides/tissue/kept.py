"""Tissue that was found before, kept on this computer.

Finding it takes a second or two of a slide's first look. A mask belongs to the slide's
stored pixels and to what decided where to look: its µm per pixel and the version of the
search.
"""

from __future__ import annotations

import hashlib
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.cache import cache_dir, cached
from napari_histodistill.errors import InputError
from napari_histodistill.files import read_plain, write_whole
from napari_histodistill.slides.tissue.tissue import TissueMask, find_tissue

if TYPE_CHECKING:
    from pathlib import Path

    from napari_histodistill.slides.pyramid.slide import Slide

VERSION = 1
"""Raise it with every change of what :func:`find_tissue` finds."""

_FOLDER = "tissue"
_HEAD = struct.Struct("<IId")
_MAX_BYTES = 2**22


def tissue_of(slide: Slide) -> TissueMask:
    """Return the tissue of a slide: as it was found before, or else found now.

    Of a slide with unreadable parts, or without a digest, nothing is kept.

    Raises
    ------
    SlideError
        As :func:`find_tissue`.
    """
    if not slide.info.digest:
        return find_tissue(slide)
    name = _name(slide)
    known = _read(cached(_FOLDER, name), slide.shape)
    if known is not None:
        return known
    found = find_tissue(slide)
    if not slide.unreadable:
        # A full or read-only disk costs the next look a second, and nothing else.
        with suppress(OSError, InputError):
            _write(cache_dir(_FOLDER) / name, found)
    return found


def _name(slide: Slide) -> str:
    mpp = slide.usable_mpp
    um = "" if mpp is None else f"{mpp.y:.9g} {mpp.x:.9g}"
    about = f"{VERSION} {slide.info.digest} {slide.shape} {slide.info.channels} {um}"
    return hashlib.sha256(about.encode()).hexdigest()[:32]


def _write(path: Path, found: TissueMask) -> None:
    head = _HEAD.pack(*found.mask.shape, found.pen_fraction)
    write_whole(path, head + np.packbits(found.mask).tobytes())


def _read(path: Path, slide_shape: tuple[int, int]) -> TissueMask | None:
    """Return a kept mask; None if there is none, or it is damaged."""
    try:
        content = read_plain(path, _MAX_BYTES)
        height, width, pen = _HEAD.unpack_from(content)
    except (OSError, struct.error):
        return None
    bits = np.frombuffer(content, np.uint8, offset=_HEAD.size)
    if bits.size != -(-height * width // 8) or not 0 <= pen <= 1 or not bits.size:
        return None
    mask = np.unpackbits(bits, count=height * width).astype(bool)
    return TissueMask(mask.reshape(height, width), slide_shape, pen)
