"""A map's embeddings while it is taught: held in memory, or read where too large."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from napari_histodistill.maps.classes import head_probabilities
from napari_histodistill.maps.store import CellStatus, EmbeddingStore

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.running import CancelToken
    from napari_histodistill.slides import TileGrid
    from napari_histodistill.students.head import Head

    FlatCells = npt.NDArray[np.intp]
    Floats = npt.NDArray[np.float32]

MOST_BYTES = 2**29
"""A map that takes more, as float16, is read from disk for every stroke."""

QUICK_BYTES = 2**28
"""Up to here numbers are held as float32, which spares a conversion at each stroke."""

_SLAB_ROWS = 8192


class MapEmbeddings(Protocol):
    """Embeddings of one map, wherever they are."""

    @property
    def grid(self) -> TileGrid:
        """Grid of the cells."""

    @property
    def status(self) -> npt.NDArray[np.uint8]:
        """``(rows, columns)``: what is known of each cell."""

    def of(self, cells: FlatCells, cancel: CancelToken) -> Floats:
        """Return ``(n, dim)`` of done cells, by flat index in ascending order."""

    def probabilities(self, head: Head, cancel: CancelToken) -> Floats:
        """Return ``(rows, columns, classes)``; NaN where a cell is not done."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredEmbeddings:
    """Embeddings on disk, read slab by slab each time."""

    store: EmbeddingStore

    @property
    def grid(self) -> TileGrid:
        """Grid of the cells."""
        return self.store.grid

    @property
    def status(self) -> npt.NDArray[np.uint8]:
        """``(rows, columns)``: what is known of each cell."""
        return self.store.status

    def of(self, cells: FlatCells, cancel: CancelToken) -> Floats:
        """Return ``(n, dim)`` of done cells, by flat index in ascending order."""
        columns = self.grid.shape[1]
        found = np.empty((len(cells), self.store.dim), np.float32)
        for block in self.store.slabs():
            first, last = block[0].start * columns, block[0].stop * columns
            here = (cells >= first) & (cells < last)
            if here.any():
                cancel.check()
                rows = self.store.read(block).reshape(-1, self.store.dim)
                found[here] = rows[cells[here] - first]
        return found

    def probabilities(self, head: Head, cancel: CancelToken) -> Floats:
        """Return ``(rows, columns, classes)``; NaN where a cell is not done."""
        status = self.status
        found = np.empty((*self.grid.shape, len(head.bias)), np.float32)
        for block in self.store.slabs():
            cancel.check()
            found[block] = head_probabilities(
                self.store.read(block), status[block], head
            )
        return found


@dataclass(frozen=True, slots=True, eq=False)
class HeldEmbeddings:
    """Embeddings of a map's done cells, in memory.

    Attributes
    ----------
    grid : TileGrid
        Grid of the cells.
    status : ndarray
        ``(rows, columns)`` uint8, as it was when they were read.
    rows : ndarray
        ``(done, dim)`` float32 or float16: the done cells, row by row.
    store_path : Path
        Where they are stored.
    """

    grid: TileGrid
    status: npt.NDArray[np.uint8]
    rows: npt.NDArray[np.floating]
    store_path: Path

    @classmethod
    def read(cls, store: EmbeddingStore, cancel: CancelToken) -> HeldEmbeddings | None:
        """Read a store whole; None if that would take more than :data:`MOST_BYTES`."""
        status = store.status
        done = status == CellStatus.DONE
        count = int(done.sum())
        if count * store.dim * 2 > MOST_BYTES:
            return None
        quick = count * store.dim * 4 <= QUICK_BYTES
        rows = np.empty((count, store.dim), np.float32 if quick else np.float16)
        at = 0
        for block in store.slabs():
            cancel.check()
            here = store.read(block)[done[block]]
            rows[at : at + len(here)] = here
            at += len(here)
        return cls(store.grid, status, rows, store.path)

    def holds(self, store_path: Path, status: npt.NDArray[np.uint8]) -> bool:
        """Whether these are a store's, with every cell that is known to be done."""
        if self.store_path != store_path or self.status.shape != status.shape:
            return False
        done = status == CellStatus.DONE
        return bool((self.status[done] == CellStatus.DONE).all())

    def of(self, cells: FlatCells, cancel: CancelToken) -> Floats:
        """Return ``(n, dim)`` of done cells, by flat index in ascending order."""
        cancel.check()
        done = np.flatnonzero(self.status.ravel() == CellStatus.DONE)
        found = self.rows[np.searchsorted(done, cells)]
        return found.astype(np.float32, copy=False)

    def probabilities(self, head: Head, cancel: CancelToken) -> Floats:
        """Return ``(rows, columns, classes)``; NaN where a cell is not done."""
        flat = np.empty((len(self.rows), len(head.bias)), np.float32)
        for k in range(0, len(flat), _SLAB_ROWS):
            cancel.check()
            slab = slice(k, k + _SLAB_ROWS)
            flat[slab] = head.probabilities(self.rows[slab])
        found = np.full((*self.grid.shape, len(head.bias)), np.nan, np.float32)
        found[self.status == CellStatus.DONE] = flat
        return found


def embeddings_of(
    store_path: Path, held: HeldEmbeddings | None, cancel: CancelToken
) -> HeldEmbeddings | StoredEmbeddings:
    """Return a map's embeddings: those held, or else read now, or left on disk."""
    if held is not None:
        return held
    store = EmbeddingStore.open(store_path)
    return HeldEmbeddings.read(store, cancel) or StoredEmbeddings(store)
