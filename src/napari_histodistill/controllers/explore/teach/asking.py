"""*Ask me*: the squares whose class would teach most, a few at a time.

A square is worth asking about where two encoders that were taught by the same strokes
disagree (query by committee, with the Jensen-Shannon divergence of McCallum and Nigam,
1998, *ICML*), or, with one encoder, where its two best classes are nearly as likely
(the margin of Scheffer et al., 2001, *IDA*). The doubtful squares of a slide lie in
heaps and teach the same, so those asked about are spread.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.cache import cached
from napari_histodistill.controllers.explore.teach.held import StoredEmbeddings
from napari_histodistill.controllers.explore.teach.teaching import painted_cells
from napari_histodistill.errors import StoreError
from napari_histodistill.files import read_plain
from napari_histodistill.maps.store import CellStatus, EmbeddingStore
from napari_histodistill.students import list_students
from napari_histodistill.students.probe import fit_head

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.controllers.explore.teach.teaching import Strokes, Taught
    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.geometry import Region
    from napari_histodistill.running import CancelToken
    from napari_histodistill.slides import TileGrid

    Cell = tuple[int, int]
    Doubts = npt.NDArray[np.float32]

ASKED = 5
"""Squares asked about at a time."""

_SHARE = 4
"""At first, squares asked about lie at least this part of the map's side apart."""

_DOUBTFUL, _FEWEST = 10, 50
"""Chosen are the most doubtful tenth of the squares, or fifty if that is more."""

_NEIGHBOURS = 2.0
"""Squares that lie nearer than this are neighbours."""

_MAX_METADATA_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Question:
    """A square to ask about.

    Attributes
    ----------
    cell : tuple of int
        Row and column.
    region : Region
        The square in level-0 pixels.
    likely : tuple of str
        The two classes that it may be, the likelier first.
    """

    cell: Cell
    region: Region
    likely: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Questions:
    """What to ask, the most doubtful first, and who doubts.

    Attributes
    ----------
    items : tuple of Question
        At most :data:`ASKED`.
    second : str
        Name of the second encoder; "" where there is none.
    """

    items: tuple[Question, ...]
    second: str = ""


def ask_work(
    strokes: Strokes,
    taught: Taught,
    *,
    store_path: Path,
    passed_by: Sequence[Cell] = (),
) -> Work:
    """Look for squares to ask about.

    Parameters
    ----------
    strokes : Strokes
        What was painted.
    taught : Taught
        What was learned from it.
    store_path : Path
        Where the map is stored; other encoders' maps of the slide are looked for.
    passed_by : sequence of (int, int)
        Cells that were asked about before.
    """

    def work(cancel: CancelToken) -> Iterator[Questions]:
        store = EmbeddingStore.open(store_path)
        grid, status = store.grid, taught.patch.status
        probabilities = taught.patch.probabilities
        if probabilities is None:
            return
        cells, labels = painted_cells(strokes, grid)
        doubts, second = margins(probabilities), ""
        other = _other_store(store)
        if other is not None:
            cancel.check()
            apart = _committee(other, probabilities, taught, cells, labels, cancel)
            if apart is not None:
                doubts, second = apart, other.provenance.student_name
        known = np.zeros(grid.shape, np.bool_)
        known.ravel()[cells] = True
        for cell in passed_by:
            known[cell] = True
        done = (status == CellStatus.DONE) & np.isfinite(doubts)
        within = inner(done) & ~known
        may = within if within.sum() >= ASKED else done & ~known
        chosen = spread(np.where(may, doubts, -np.inf), known, ASKED)
        names = [spec.name for spec in taught.classes]
        found = []
        for cell in chosen:
            best = np.argsort(-probabilities[cell])[:2]
            likely = names[int(best[0])], names[int(best[1])]
            found.append(Question(cell, grid.cell_region(*cell), likely))
        yield Questions(tuple(found), second)

    return work


def inner(done: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the cells whose neighbours are all there: half a glass slide is no class.

    Parameters
    ----------
    done : ndarray of bool
        ``(rows, columns)``.
    """
    from scipy.ndimage import binary_erosion

    found: npt.NDArray[np.bool_] = binary_erosion(done, np.ones((3, 3), np.bool_))
    return found


def margins(probabilities: npt.NDArray[np.float32]) -> Doubts:
    """Return 1 less the distance of the two best classes, ``(rows, columns)``.

    Parameters
    ----------
    probabilities : ndarray
        ``(rows, columns, classes)`` float32, NaN where there are none.
    """
    best = np.partition(probabilities, -2, axis=-1)
    found: Doubts = 1 - (best[..., -1] - best[..., -2])
    return found


def divergence(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> Doubts:
    """Return the Jensen-Shannon divergence of probabilities along the last axis.

    In bits: 0 where both say the same, 1 where they exclude each other.
    """
    from scipy.special import rel_entr

    middle = (a + b) / 2
    apart = rel_entr(a, middle).sum(-1) + rel_entr(b, middle).sum(-1)
    found: Doubts = apart / (2 * np.log(2))
    return found


def spread(
    doubts: Doubts, known: npt.NDArray[np.bool_], count: int
) -> tuple[Cell, ...]:
    """Return the most doubtful cells that lie apart from each other and what is known.

    Parameters
    ----------
    doubts : ndarray
        ``(rows, columns)``; -inf where a cell may not be chosen.
    known : ndarray of bool
        ``(rows, columns)``: cells to stay away from, too, as far as there is room.
    count : int
        How many at most.
    """
    from scipy.ndimage import distance_transform_edt

    order = np.argsort(-doubts, axis=None)[: int(np.isfinite(doubts).sum())]
    order = order[: max(_FEWEST, len(order) // _DOUBTFUL)]
    rows, columns = np.divmod(order, doubts.shape[1])
    away = np.full(len(rows), np.inf)
    if known.any():
        away = distance_transform_edt(~known)[rows, columns]
    chosen: list[Cell] = []
    gap = max(doubts.shape) / _SHARE
    while len(chosen) < count and gap >= _NEIGHBOURS:
        fit = np.flatnonzero(away >= gap)
        if not len(fit):
            gap /= 2
            continue
        row, column = int(rows[fit[0]]), int(columns[fit[0]])
        chosen.append((row, column))
        away = np.minimum(away, np.hypot(rows - row, columns - column))
    return tuple(chosen)


def _committee(
    other: EmbeddingStore,
    probabilities: npt.NDArray[np.float32],
    taught: Taught,
    cells: npt.NDArray[np.intp],
    labels: npt.NDArray[np.intp],
    cancel: CancelToken,
) -> Doubts | None:
    """Return how far a second encoder, taught by the same strokes, disagrees.

    None where its map covers too few of the strokes to be taught every class.
    """
    source = StoredEmbeddings(other)
    there = source.status.ravel()[cells] == CellStatus.DONE
    there &= np.isin(labels, taught.kinds)
    cells, y = cells[there], np.searchsorted(taught.kinds, labels[there])
    if len(np.unique(y)) < len(taught.kinds):
        return None
    head = fit_head(source.of(cells, cancel), y)
    return divergence(probabilities, source.probabilities(head, cancel))


def _other_store(store: EmbeddingStore) -> EmbeddingStore | None:
    """Return the stored map of another bundled encoder with the same squares."""
    mine, bundled = store.provenance, {entry.name for entry in list_students()}
    for path in sorted(cached("stores").glob("*/*.zarr")):
        try:
            text = read_plain(path / "zarr.json", _MAX_METADATA_BYTES)
            kept = json.loads(text)["attributes"]["histodistill"]["provenance"]
            if (
                kept["slide_digest"] != mine.slide_digest
                or kept["student_name"] == mine.student_name
                or kept["student_name"] not in bundled
                or kept["mode"] != mine.mode
            ):
                continue
            found = EmbeddingStore.open(path)
        except (OSError, ValueError, KeyError, TypeError, StoreError):
            continue  # damaged, or just being made: another one may do
        if _same_squares(found.grid, store.grid):
            return found
    return None


def _same_squares(a: TileGrid, b: TileGrid) -> bool:
    return a.shape == b.shape and np.allclose(a.cell_size, b.cell_size, rtol=1e-6)
