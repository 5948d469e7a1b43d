"""Answering a click

One query against every embedding of a large map held in memory; the baseline reads the
array once.
"""

from __future__ import annotations

import numpy as np

from napari_histodistill.geometry import Mpp
from napari_histodistill.maps.alike.similarity import SimilarityIndex
from napari_histodistill.slides import TileGrid
from tests.bench.figures import Figure, seconds, taking_turns

MAPS = ((400, 500, 1280), (1000, 1000, 384))


def measure() -> list[Figure]:
    """Return the figures of this section."""
    return [row for shape in MAPS for row in _of(*shape)]


def _of(rows: int, columns: int, dim: int) -> list[Figure]:
    rng = np.random.default_rng(0)
    embeddings = np.empty((rows, columns, dim), np.float16)
    for row in embeddings:  # in pieces: float64 noise of a large map fills the memory
        row[:] = rng.standard_normal((columns, dim), np.float32)
    grid = TileGrid.over(
        (rows * 64, columns * 64),
        Mpp(0.5, 0.5, "bench"),
        mpp=0.5,
        tile_px=64,
        stride_px=64,
    )
    status = np.ones((rows, columns), np.uint8)
    index = SimilarityIndex.of(embeddings, status, grid)
    held = index._unit
    index.query([(5000, 5000)], [])
    ours, copy = taking_turns(
        lambda: seconds(lambda: index.query([(9000.0, 12000.0)], [])),
        lambda: seconds(held.copy),
        7,
    )
    what = f"similarity of one click over {rows * columns:,} × {dim} embeddings"
    figures = [Figure(what, ours, "s", f"copy of the {held.dtype} array", copy)]
    if held.dtype == np.float32:
        return figures
    whole = held.astype(np.float32)
    query = whole[0].copy()
    ours, copy = taking_turns(
        lambda: seconds(lambda: whole @ query), lambda: seconds(whole.copy), 7
    )
    what = f"bare product of {rows * columns:,} × {dim} float32 numbers"
    return [*figures, Figure(what, ours, "s", "copy of the float32 array", copy)]
