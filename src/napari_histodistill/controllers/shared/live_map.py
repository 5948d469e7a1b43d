"""The class map while it fills: arrays that grow on the GUI thread, block by block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.maps.store import CellStatus

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy.typing as npt

    from napari_histodistill.maps.classes import ClassMap
    from napari_histodistill.slides import TileGrid
    from napari_histodistill.students.spec import ClassSpec, EmbeddingMode
    from napari_histodistill.students.trust import SlideTrust

HISTOGRAM_BINS = 8
"""Confidence histograms on screen: enough to see "sure" against "guessing"."""


@dataclass(frozen=True, slots=True)
class Patch:
    """Cells that became final, as they cross from the worker to the GUI.

    Attributes
    ----------
    rows, columns : slice
        Where.
    status : ndarray
        ``(h, w)`` uint8: 0 pending, 1 done, 2 unreadable.
    probabilities : ndarray or None
        ``(h, w, classes)`` float32, NaN where not done; None without a head.
    """

    rows: slice
    columns: slice
    status: npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One line of the legend.

    Attributes
    ----------
    name, color : str
        Of the class.
    cells : int
        Cells that are this class and sure enough.
    mm2 : float
        Their area.
    judged, unlike : int
        Cells of them that were compared with what the student learned from, and those
        that are unlike it.
    all_mm2 : float
        Area with the unlike cells that are left out.
    histogram : tuple of float
        Share of the class's cells per confidence bin, from 1/classes to 1; sums to 1.
    """

    name: str
    color: str
    cells: int
    mm2: float
    histogram: tuple[float, ...]
    judged: int = 0
    unlike: int = 0
    all_mm2: float = 0.0


class LiveMap:
    """Labels and confidence over a grid; lives on one thread.

    Parameters
    ----------
    grid : TileGrid
        Where the cells lie.
    classes : sequence of ClassSpec
        Empty for a student without a head: then only :attr:`status` fills.
    mode : {"tiles", "tokens"}
        How the embeddings were laid.

    Attributes
    ----------
    labels : ndarray
        ``(rows, columns)`` uint8, 0 = nothing yet, ``k + 1`` = class ``k``.
    confidence : ndarray
        ``(rows, columns)`` float32: probability of that class, 0 where none.
    status : ndarray
        ``(rows, columns)`` uint8.
    trust : SlideTrust or None
        Whether the map is like what the student learned from, once that is judged.
    shown : ndarray
        What the layer draws: labels that are sure enough. Always the same array, so
        a layer can hold it; which one may be said with :meth:`draw_into`.
    heat : ndarray
        ``(rows, columns)`` float32: the probability of the class that
        :meth:`show_probability` chose, NaN where it is not shown. Always the same
        array.
    """

    def __init__(
        self, grid: TileGrid, classes: Sequence[ClassSpec], mode: EmbeddingMode
    ) -> None:
        self.grid = grid
        self.classes = tuple(classes)
        self.mode = mode
        self.labels = np.zeros(grid.shape, np.uint8)
        self.confidence = np.zeros(grid.shape, np.float32)
        self.status = np.zeros(grid.shape, np.uint8)
        self.trust: SlideTrust | None = None
        self._judged = np.zeros(grid.shape, np.bool_)
        self._unlike = np.zeros(grid.shape, np.bool_)
        self._leaves_out = False
        self.shown = np.zeros(grid.shape, np.uint8)
        self._probabilities = np.full(
            (*grid.shape, len(self.classes)), np.nan, np.float32
        )
        self.heat = np.full(grid.shape, np.nan, np.float32)
        self._heat_of: int | None = None
        self._min_confidence = 0.0
        self._areas = grid.areas_mm2()

    @property
    def cells_done(self) -> int:
        """Cells that have an embedding."""
        return int((self.status == CellStatus.DONE).sum())

    @property
    def cells_unreadable(self) -> int:
        """Cells whose pixels the file would not give."""
        return int((self.status == CellStatus.UNREADABLE).sum())

    @property
    def min_confidence(self) -> float:
        """Below this probability a cell is not shown."""
        return self._min_confidence

    def draw_into(self, shown: npt.NDArray[np.uint8]) -> None:
        """Draw into an array of the grid's shape that a layer has already."""
        shown[:] = self.shown
        self.shown = shown

    @property
    def heat_class(self) -> ClassSpec | None:
        """The class whose probability :attr:`heat` holds; None if it is empty."""
        return None if self._heat_of is None else self.classes[self._heat_of]

    def recolour(self, classes: Sequence[ClassSpec]) -> None:
        """Take the same classes with other names or colours."""
        self.classes = tuple(classes)

    def show_probability(self, index: int | None) -> None:
        """Keep :attr:`heat` the probability of a class; None keeps it empty."""
        if index != self._heat_of:
            self._heat_of = index
            self._show(slice(None), slice(None))

    def hidden_cells(self, hidden: Collection[int] = ()) -> tuple[int, int]:
        """Return how many cells of a class are not drawn, and how many there are.

        Parameters
        ----------
        hidden : collection of int
            Indices of classes that are not shown.
        """
        drawn = self.shown > 0
        for k in hidden:
            drawn &= self.shown != k + 1
        known = int((self.labels > 0).sum())
        return known - int(drawn.sum()), known

    def hidden_heat(self) -> tuple[int, int]:
        """Return how many cells :attr:`heat` leaves out, and how many there are."""
        known = int((self.labels > 0).sum())
        return known - int(np.isfinite(self.heat).sum()), known

    def show_at_least(self, confidence: float) -> None:
        """Show only cells that are at least this sure (0 to 1)."""
        self._min_confidence = confidence
        self._show(slice(None), slice(None))

    def judge(self, trust: SlideTrust | None, *, leave_out: bool = False) -> None:
        """Take the verdict on the map, or none.

        Parameters
        ----------
        trust : SlideTrust or None
            Says which cells were judged, and which of them are unlike.
        leave_out : bool
            Whether unlike cells are not shown; only if every cell was judged.
        """
        self.trust = trust
        self._judged[:] = self._unlike[:] = False
        if trust is not None:
            rows, columns = trust.cells.T
            self._judged[rows, columns] = True
            self._unlike[rows, columns] = trust.unlike
        self._leaves_out = leave_out and trust is not None and trust.every
        self._show(slice(None), slice(None))

    def is_unlike(self, row: int, column: int) -> bool:
        """Whether a cell was judged and is unlike what the student learned from."""
        return bool(self._unlike[row, column])

    def apply(self, patch: Patch) -> None:
        """Take cells that became final."""
        where = patch.rows, patch.columns
        self.status[where] = patch.status
        if patch.probabilities is None or not self.classes:
            return
        self._probabilities[where] = patch.probabilities
        done = patch.status == CellStatus.DONE
        best = np.where(done, np.nan_to_num(patch.probabilities).argmax(axis=-1) + 1, 0)
        self.labels[where] = best
        self.confidence[where] = np.where(
            done, np.nan_to_num(patch.probabilities).max(axis=-1), 0
        )
        self._show(*where)

    def probabilities_at(self, row: int, column: int) -> npt.NDArray[np.float32]:
        """Return the class probabilities of a cell, ``(classes,)``; NaN if not done."""
        found: npt.NDArray[np.float32] = self._probabilities[row, column]
        return found

    def rows(self) -> tuple[ClassRow, ...]:
        """Return the legend: area and confidence of every class, as shown now."""
        floor = 1 / max(2, len(self.classes))
        return tuple(self._row(k, spec, floor) for k, spec in enumerate(self.classes))

    def snapshot(self, *, hidden: Collection[int] = ()) -> ClassMap:
        """Return a frozen class map of what is sure enough and visible, for export."""
        from napari_histodistill.maps.classes import ClassMap

        labels = self.shown.copy()
        labels[np.isin(labels, [k + 1 for k in hidden])] = 0
        out = None
        if self._leaves_out:
            sure = (self.confidence >= self._min_confidence) & ~np.isin(
                self.labels, [k + 1 for k in hidden]
            )
            out = np.where(self._unlike & sure, self.labels, 0).astype(np.uint8)
        return ClassMap(
            trust=self.trust,
            left_out=out,
            labels=labels,
            confidence=np.where(labels > 0, self.confidence, 0).astype(np.float32),
            probabilities=self._probabilities.copy(),
            classes=self.classes,
            grid=self.grid,
            mode=self.mode,
        )

    def _row(self, k: int, spec: ClassSpec, floor: float) -> ClassRow:
        shown = self.shown == k + 1
        everything = (self.labels == k + 1) & (self.confidence >= self._min_confidence)
        values = self.confidence[self.labels == k + 1]
        counts, _ = np.histogram(
            np.clip(values, floor, 1), HISTOGRAM_BINS, (floor, 1.0)
        )
        shares = counts / max(1, counts.sum())
        return ClassRow(
            name=spec.name,
            color=spec.color,
            cells=int(shown.sum()),
            mm2=float(self._areas[shown].sum()),
            histogram=tuple(shares.tolist()),
            judged=int((shown & self._judged).sum()),
            unlike=int((shown & self._unlike).sum()),
            all_mm2=float(self._areas[everything].sum()),
        )

    def _show(self, rows: slice, columns: slice) -> None:
        labels = self.labels[rows, columns]
        wanted = self.confidence[rows, columns] >= self._min_confidence
        like = ~self._unlike[rows, columns] if self._leaves_out else True
        self.shown[rows, columns] = np.where(wanted & like, labels, 0)
        if self._heat_of is None:
            self.heat[rows, columns] = np.nan
            return
        sure = self._probabilities[rows, columns, self._heat_of]
        wanted = (sure >= self._min_confidence) & like & (labels > 0)
        self.heat[rows, columns] = np.where(wanted, sure, np.nan)
