"""Agreement of a student's tokens with its tiles: the figures for its model card."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Region
from napari_histodistill.slides.pyramid.resample import read_resampled
from napari_histodistill.students.spec import TokenAgreement
from napari_histodistill.students.token_pooling import pool_tokens

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.slides.pyramid.slide import Slide
    from napari_histodistill.students.student import Student

    Floats = npt.NDArray[np.float32]

QUERIES = 50
_BATCH = 32


def measure_agreement(
    student: Student,
    slide: Slide,
    *,
    region: Region | None = None,
    measured_on: str = "",
) -> TokenAgreement:
    """Embed a region both ways and compare.

    Cells are two tokens apart and their tiles lie entirely inside the region, so that
    the comparison is about the context that tokens see, not about padding at borders.

    Parameters
    ----------
    student : Student
        A student with tokens.
    slide : Slide
        A slide with a known µm per pixel.
    region : Region or None
        Level-0 px; the whole slide by default. Keep it below some 4000 px at the
        student's mpp: it goes through the encoder at once.
    measured_on : str
        Name of the tissue on the card; the slide's name by default.

    Returns
    -------
    TokenAgreement
        Cosine of the two embeddings of a cell (median, 5th percentile), and Spearman
        correlation of the two similarity maps of a query cell (median, worst).

    Raises
    ------
    InputError
        If the student has no tokens, or the region is too small to say anything.
    ComputeError
        If the student fails.
    """
    stride, tile = student.spec.token_stride_px, student.spec.tile_px
    if stride is None:
        msg = f"student {student.name} has no tokens to compare."
        raise InputError(msg)
    pixels = _pixels(student, slide, region, stride)
    rows, columns = (
        np.arange(0, size - tile + 1, 2 * stride) for size in pixels.shape[:2]
    )
    if len(rows) * len(columns) < 20:
        msg = (
            f"{slide.name}: too small to compare tokens with tiles (20 cells at least)."
        )
        raise InputError(msg)
    by_tile = _embed_tiles(student, pixels, rows, columns)
    by_token = pool_tokens(
        student.tokens(pixels[np.newaxis])[0],
        stride_px=stride,
        tile_px=tile,
        centers_y_px=rows + tile / 2,
        centers_x_px=columns + tile / 2,
    ).reshape(by_tile.shape)
    return _compare(by_tile, by_token, measured_on or slide.name)


def _pixels(
    student: Student, slide: Slide, region: Region | None, stride: int
) -> npt.NDArray[np.uint8]:
    """Return a region at the student's mpp, cut to whole tokens."""
    if region is None:
        height, width = slide.shape
        region = Region(y=0, x=0, height=height, width=width)
    mpp = slide.require_mpp()
    height = int(region.height * mpp.y / student.spec.mpp) // stride * stride
    width = int(region.width * mpp.x / student.spec.mpp) // stride * stride
    if min(height, width) < student.spec.tile_px:
        msg = f"{slide.name}: the region is smaller than one tile."
        raise InputError(msg)
    exact = Region(
        y=region.y,
        x=region.x,
        height=height * student.spec.mpp / mpp.y,
        width=width * student.spec.mpp / mpp.x,
    )
    return read_resampled(slide, exact, height=height, width=width)


def _embed_tiles(
    student: Student,
    pixels: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.intp],
    columns: npt.NDArray[np.intp],
) -> Floats:
    tile = student.spec.tile_px
    corners = [(y, x) for y in rows for x in columns]
    parts = [
        student.embed(
            np.stack(
                [pixels[y : y + tile, x : x + tile] for y, x in corners[k : k + _BATCH]]
            )
        )
        for k in range(0, len(corners), _BATCH)
    ]
    return np.concatenate(parts)


def _compare(by_tile: Floats, by_token: Floats, measured_on: str) -> TokenAgreement:
    tiles, tokens = (
        e / np.maximum(np.linalg.norm(e, axis=1, keepdims=True), 1e-12)
        for e in (by_tile, by_token)
    )
    cosine = (tiles * tokens).sum(axis=1)
    rng = np.random.default_rng(0)
    queries = rng.permutation(len(tiles))[:QUERIES]
    ranks = [_spearman(tiles @ tiles[q], tokens @ tokens[q]) for q in queries]
    return TokenAgreement(
        cosine_median=round(float(np.median(cosine)), 3),
        cosine_p05=round(float(np.percentile(cosine, 5)), 3),
        rank_correlation_median=round(float(np.median(ranks)), 3),
        rank_correlation_worst=round(float(min(ranks)), 3),
        measured_on=measured_on,
        cells=len(tiles),
    )


def _spearman(a: Floats, b: Floats) -> float:
    from scipy.stats import rankdata

    correlation: float = np.corrcoef(rankdata(a), rankdata(b))[0, 1]
    return correlation
