"""Small stores and grids for the tests of maps and exports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.geometry import Mpp
from napari_histodistill.maps.store import EmbeddingStore, Provenance
from napari_histodistill.slides.pyramid.grid import TileGrid

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

PROVENANCE = Provenance(
    slide_digest="5a" * 32,
    slide_name="a slide",
    slide_path="",
    student_digest="c0" * 16,
    student_name="colour",
    mode="tiles",
    precision="float32",
)


def small_grid(
    height: int = 600, width: int = 800, *, mpp: float = 0.5, stride_px: int = 32
) -> TileGrid:
    return TileGrid.over(
        (height, width),
        Mpp(mpp, mpp, "a test"),
        mpp=1.0,
        tile_px=32,
        stride_px=stride_px,
    )


def new_store(path: Path, *, dim: int = 6, block: int = 4, **grid) -> EmbeddingStore:
    return EmbeddingStore.create(
        path, grid=small_grid(**grid), provenance=PROVENANCE, dim=dim, block=block
    )


def filled_store(path: Path, rng: np.random.Generator, **grid) -> np.ndarray:
    """Fill a store with noise, block by block, and return what was written."""
    with new_store(path, **grid) as store:
        rows, columns = store.grid.shape
        values = rng.normal(size=(rows, columns, store.dim)).astype(np.float16)
        for r in range(0, rows, store.block):
            for c in range(0, columns, store.block):
                part = values[r : r + store.block, c : c + store.block]
                store.write_block(r, c, part, np.ones(part.shape[:2], np.uint8))
    return values


def in_small_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make stores give one row of chunks at a time; return the rows of every read."""
    monkeypatch.setattr("napari_histodistill.maps.store._SLAB_BYTES", 1)
    heights: list[int] = []
    read = EmbeddingStore.read

    def counted(store: EmbeddingStore, block: Any = None) -> np.ndarray:
        values = read(store, block)
        heights.append(len(values))
        return values

    monkeypatch.setattr(EmbeddingStore, "read", counted)
    return heights
