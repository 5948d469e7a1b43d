"""Answering a click

One query against every embedding of a large map held in memory; the baseline reads the
array once.
"""

from __future__ import annotations

import numpy as np

from napari_histodistill.geometry import Mpp
from napari_histodistill.maps.similarity import SimilarityIndex
from napari_histodistill.slides import TileGrid
from tests.bench.figures import Figure, seconds, taking_turns

ROWS, COLUMNS, DIM = 400, 500, 1280


def measure() -> list[Figure]:
    """Return the figures of this section."""
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(ROWS, COLUMNS, DIM)).astype(np.float16)
    grid = TileGrid.over(
        (ROWS * 64, COLUMNS * 64),
        Mpp(0.5, 0.5, "bench"),
        mpp=0.5,
        tile_px=64,
        stride_px=64,
    )
    status = np.ones((ROWS, COLUMNS), np.uint8)
    index = SimilarityIndex(embeddings, status, grid)
    index.query([(5000, 5000)], [])
    ours, copy = taking_turns(
        lambda: seconds(lambda: index.query([(9000.0, 12000.0)], [])),
        lambda: seconds(embeddings.copy),
        7,
    )
    what = f"similarity of one click over {ROWS * COLUMNS:,} × {DIM} embeddings"
    return [Figure(what, ours, "s", "copy of the float16 array", copy)]
