"""Answering a click

One query against every embedding of a large map held in memory; the baseline reads the
array once. And one that is asked of all slides of a list: embeddings are read from
their stores each time, the first time twice; the baseline reads the stores once.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from napari_histodistill.geometry import Mpp
from napari_histodistill.maps import (
    EmbeddingStore,
    PlaceOf,
    Provenance,
    SlidesQuery,
    search_slides,
)
from napari_histodistill.maps.alike.across_slides import SlideMeans
from napari_histodistill.maps.alike.similarity import SimilarityIndex
from napari_histodistill.slides import TileGrid
from tests.bench.figures import Figure, seconds, taking_turns

SLIDES, SIDE, DIM = 20, 128, 1280
"""Slides of 16,384 squares each, as wide as EfficientNet-Lite0's embeddings."""

MADE_BY = Provenance(
    slide_digest="",
    slide_name="bench",
    slide_path="",
    student_digest="0" * 32,
    student_name="bench",
    mode="tiles",
    precision="float32",
)
MAPS = ((400, 500, 1280), (1000, 1000, 384))


def measure() -> list[Figure]:
    """Return the figures of this section."""
    return [*(row for shape in MAPS for row in _of(*shape)), *_of_all_slides()]


def _of_all_slides() -> list[Figure]:
    with TemporaryDirectory() as folder:
        stores = [_store(Path(folder) / f"{k}.zarr", k) for k in range(SLIDES)]
        query = SlidesQuery(at=(PlaceOf(stores[3], 900.0, 1200.0),))
        means = SlideMeans()

        def search(known: SlideMeans | None = None) -> float:
            return seconds(lambda: list(search_slides(stores, query, means=known)))

        search(means)
        first, again = taking_turns(search, lambda: search(means), 3)
        _, read = taking_turns(lambda: 0.0, lambda: seconds(lambda: _read(stores)), 3)
    what = f"similar places of {SLIDES} slides of {SIDE**2:,} × {DIM} embeddings"
    baseline = "reading the stores once"
    return [
        Figure(f"{what}, first question", first, "s", baseline, read),
        Figure(f"{what}, another question", again, "s", baseline, read),
    ]


def _store(path: Path, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    grid = TileGrid.over(
        (SIDE * 64, SIDE * 64),
        Mpp(0.5, 0.5, "bench"),
        mpp=0.5,
        tile_px=64,
        stride_px=64,
    )
    with EmbeddingStore.create(
        path, grid=grid, provenance=replace(MADE_BY, slide_digest=f"{seed:064x}"),
        dim=DIM, block=16,
    ) as store:  # fmt: skip
        done = np.ones((16, 16), np.uint8)
        for row in range(0, SIDE, 16):
            for column in range(0, SIDE, 16):
                values = rng.standard_normal((16, 16, DIM), np.float32)
                store.write_block(row, column, values, done)
    return path


def _read(stores: list[Path]) -> None:
    for path in stores:
        store = EmbeddingStore.open(path)
        for block in store.slabs():
            store.read(block)


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
