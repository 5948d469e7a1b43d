"""A section to look at: both pictures before and after, a checkerboard, residuals."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from napari_histodistill.distill.layers.partners import to_look_at
from napari_histodistill.distill.sections.partners import layers_of
from napari_histodistill.geometry import Region
from napari_histodistill.slides.pyramid.resample import read_resampled

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.distill.layers.partners import DenseLayer
    from napari_histodistill.distill.sections.alignment import SectionAlignment
    from napari_histodistill.distill.sections.opening import OpenSection
    from napari_histodistill.slides.pyramid.slide import Slide

    Doubles = npt.NDArray[np.float64]
    Pixels = npt.NDArray[np.uint8]

LONGEST_PX = 460
"""Longer side of a picture."""

SQUARES = 8
"""Squares of the checkerboard along the longer side."""

_ARROW_PX = 18.0
_OUTSIDE = 236
_ARROW, _PLACE, _SPOT = (213, 94, 0), (0, 114, 178), (0, 114, 178)


@dataclass(frozen=True, slots=True)
class SectionPictures:
    """Pictures of one section, PNG, all in the frame of the H&E.

    Attributes
    ----------
    he : bytes
        The H&E.
    before, after : bytes
        The partner as both files lie by themselves, and as it is aligned.
    checker : bytes
        H&E and aligned partner in turns.
    residuals : bytes
        Where landmarks are off; empty without any.
    longer : float
        How many times longer those arrows are than the residuals.
    """

    he: bytes
    before: bytes
    after: bytes
    checker: bytes
    residuals: bytes
    longer: float


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    """The H&E, small; ``points`` are the world's (y, x) of its pixels, µm."""

    pixels: Pixels
    points: Doubles
    um_per_px: float


def take_pictures(section: OpenSection, found: SectionAlignment) -> SectionPictures:
    """Draw a section before and after its alignment.

    Parameters
    ----------
    section : OpenSection
        The section.
    found : SectionAlignment
        How its partner lies.

    Raises
    ------
    InputError
        If the partner cannot be read as it is said to be.
    """
    frame = _frame(section.sparse)
    # Looked over once: on a whole slide that takes a while.
    layer = (
        None
        if section.dense is None
        else layers_of(section.dense, section.sort, stains=section.stains)[0]
    )
    before, after = (
        _spots(section, matrix, frame)
        if layer is None
        else _partner(replace(layer, matrix=matrix), frame)
        for matrix in (np.eye(3), found.registration.matrix)
    )
    residuals, longer = _residuals(found, frame)
    return SectionPictures(
        he=_png(frame.pixels),
        before=_png(before),
        after=_png(after),
        checker=_png(_checker(frame.pixels, after)),
        residuals=residuals,
        longer=longer,
    )


def _frame(sparse: Slide) -> _Frame:
    mpp = sparse.require_mpp()
    size = np.array(sparse.shape) * (mpp.y, mpp.x)
    um_per_px = float(size.max()) / LONGEST_PX
    height, width = (max(2, round(float(n) / um_per_px)) for n in size)
    whole = Region(y=0, x=0, height=sparse.shape[0], width=sparse.shape[1])
    pixels = read_resampled(sparse, whole, height=height, width=width)
    # Edges of both agree; the world counts from the first level-0 pixel's centre.
    y = (np.arange(height) + 0.5) / height * size[0] - mpp.y / 2
    x = (np.arange(width) + 0.5) / width * size[1] - mpp.x / 2
    points = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1)
    return _Frame(pixels, points, um_per_px)


def _partner(layer: DenseLayer, frame: _Frame) -> Pixels:
    """Return the partner as it lies, ``(h, w, 3)``; grey where it ends."""
    shown = to_look_at(layer.read_at(frame.points), layer.kind).copy()
    at = layer.pixels(frame.points)
    outside = (at < 0).any(-1) | (at > layer.slide.shape).any(-1)
    shown[outside] = _OUTSIDE
    return shown


def _spots(section: OpenSection, matrix: Doubles, frame: _Frame) -> Pixels:
    assert section.spots is not None
    picture = Image.fromarray(frame.pixels)
    draw = ImageDraw.Draw(picture)
    centres = replace(section.spots, matrix=matrix).centres_um()
    for y, x in _in_frame(centres, frame):
        draw.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=_SPOT)
    return np.asarray(picture)


def _in_frame(points: Doubles, frame: _Frame) -> Doubles:
    """Return (y, x) in pixels of the picture."""
    placed: Doubles = (points - frame.points[0, 0]) / frame.um_per_px
    return placed


def _checker(he: Pixels, partner: Pixels) -> Pixels:
    side = math.ceil(max(he.shape[:2]) / SQUARES)
    rows, columns = (np.arange(n) // side for n in he.shape[:2])
    odd = (rows[:, None] + columns[None, :]) % 2 == 1
    return np.where(odd[..., None], partner, he)


def _residuals(found: SectionAlignment, frame: _Frame) -> tuple[bytes, float]:
    """Draw an arrow from every landmark to where the partner's one comes to lie."""
    marks = found.landmarks
    if marks is None or not len(marks):
        return b"", 1.0
    here = marks.sparse_um
    off = found.registration.to_sparse(marks.dense_um) - here
    median = float(np.median(np.hypot(*off.T))) / frame.um_per_px
    longer = max(1.0, round(_ARROW_PX / median)) if median > 1e-9 else 1.0
    # Paler, so that the arrows are what is seen.
    pale = (frame.pixels.astype(np.uint16) + 2 * 255) // 3
    picture = Image.fromarray(pale.astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    ends = _in_frame(here + longer * off, frame)
    for (y, x), (to_y, to_x) in zip(_in_frame(here, frame), ends, strict=True):
        draw.line((x, y, to_x, to_y), fill=_ARROW, width=2)
        draw.ellipse((x - 2.5, y - 2.5, x + 2.5, y + 2.5), fill=_PLACE)
    return _png(np.asarray(picture)), longer


def _png(pixels: Pixels) -> bytes:
    written = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(written, format="png")
    return written.getvalue()
