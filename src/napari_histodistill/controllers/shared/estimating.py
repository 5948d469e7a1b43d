"""What a run would take: its squares, and seconds from this machine's own last run."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.cache import cache_dir
from napari_histodistill.controllers.shared.planning import run_block
from napari_histodistill.controllers.shared.wording import (
    about_in_words,
    count_in_words,
    duration_in_words,
)
from napari_histodistill.errors import HistodistillError
from napari_histodistill.files import read_plain, write_whole
from napari_histodistill.maps.store import CellStatus

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.controllers.shared.planning import RunPlan
    from napari_histodistill.students.student import Student

    CellMask = npt.NDArray[np.bool_]
    Status = npt.NDArray[np.uint8]

ENOUGH_SQUARES = 64
"""A run that computed fewer says little about the next one's speed."""

_ENOUGH_S = 1.0
_ENOUGH_BLOCKS = 4
_MOST_BYTES = 4096
_HALO_TILES = 1.0
"""Tokens: what is read around the tiles of a block, in tiles, both sides together."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The speed of a run.

    Attributes
    ----------
    tiles_per_s : float
        Tiles' worth of pixels computed in a second, see :func:`tiles_worth`.
    start_s : float
        Seconds before the first of them is being computed.
    """

    tiles_per_s: float
    start_s: float = 0.0

    def seconds(self, tiles: float) -> float:
        """Return how long so many tiles' worth takes."""
        return self.start_s + tiles / self.tiles_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEstimate:
    """What a run would compute.

    Attributes
    ----------
    squares : int
        Of the chosen region.
    missing : int
        Of them, those that are not computed yet.
    seconds : float or None
        For the missing ones; None if no speed is known.
    is_counted : bool
        Whether the squares are known exactly: the tissue was found.
    is_timed : bool
        Whether the seconds are from such a run on this machine.
    """

    squares: int
    missing: int
    seconds: float | None
    is_counted: bool
    is_timed: bool

    def in_words(self) -> str:
        """Return squares and time: "701 squares · 40 s"."""
        if not self.is_counted:
            return f"at most {about_in_words(self.squares).removeprefix('about ')}"
        words = count_in_words(self.squares)
        if not self.missing:
            return f"{words}, all computed" if self.squares else words
        if self.missing < self.squares:
            words = f"{self.missing:,} of {words} to do"
        return f"{words} · {self.time_in_words()}" if self.seconds else words

    def time_in_words(self) -> str:
        """Return the time: "40 s", or "about 40 s" if no such run was timed; or ""."""
        if self.seconds is None:
            return ""
        return ("" if self.is_timed else "about ") + duration_in_words(self.seconds)


def tiles_worth(cells: CellMask, block: int, plan: RunPlan) -> float:
    """Return what it costs to compute cells, in tiles' worth of pixels.

    Parameters
    ----------
    cells : ndarray
        ``(rows, columns)``: what is computed.
    block : int
        Edge of the store's blocks in cells.
    plan : RunPlan
        Tiles cost one each; of tokens, each block that is touched is one window.
    """
    if plan.mode == "tiles":
        return float(np.count_nonzero(cells))
    rows, columns = plan.grid.shape
    stride = plan.grid.stride_px / plan.grid.tile_px
    around = 1 - stride + _HALO_TILES

    def edges(count: int) -> npt.NDArray[np.float64]:
        starts = np.arange(0, count, block)
        return np.minimum(block, count - starts) * stride + around

    windows = np.outer(edges(rows), edges(columns))
    return float(windows[touched(cells, block)].sum())


def touched(cells: CellMask, block: int) -> CellMask:
    """Return which blocks of a grid hold one of the cells."""
    by_row = np.logical_or.reduceat(cells, range(0, cells.shape[0], block), axis=0)
    found: CellMask = np.logical_or.reduceat(
        by_row, range(0, cells.shape[1], block), axis=1
    )
    return found


def computed_with(missing: CellMask, needed: CellMask, block: int) -> CellMask:
    """Return the cells that a run computes: blocks are computed whole.

    Parameters
    ----------
    missing, needed : ndarray
        ``(rows, columns)``: cells to compute, and all that lie in the map afterwards.
    block : int
        Edge of the store's blocks in cells.
    """
    rows, columns = missing.shape
    whole = touched(missing, block).repeat(block, 0).repeat(block, 1)
    found: CellMask = whole[:rows, :columns] & needed
    return found


def start_over_in_words(done: int, again: RunEstimate) -> str:
    """Return what starting over throws away, and what computing again costs.

    Parameters
    ----------
    done : int
        Squares of the map that is there.
    again : RunEstimate
        Of the run that would follow.
    """
    lost = count_in_words(done)
    cost = count_in_words(again.squares)
    if time_words := again.time_in_words():
        cost += f", {'' if time_words.startswith('about') else 'about '}{time_words}"
    where = "" if again.squares >= done else " The rest of the map is not computed."
    return f"Throw away the map of {lost}? To compute again: {cost}.{where}"


class Estimator:
    """Estimates runs; remembers the cells of the last plan, and paces once read."""

    def __init__(self) -> None:
        self._plan: RunPlan | None = None
        self._cells: CellMask | None = None
        self._paces: dict[Path, Pace | None] = {}

    def forget_paces(self) -> None:
        """Read the paces again: a run has ended."""
        self._paces.clear()

    def wanted(self, plan: RunPlan) -> CellMask:
        """Return a plan's cells, ``(rows, columns)``; do not write to them.

        Raises
        ------
        InputError
            As :meth:`RunPlan.wanted_cells`.
        """
        if self._cells is None or not _is_same(plan, self._plan):
            self._cells, self._plan = plan.wanted_cells(), plan
        return self._cells

    def estimate(
        self,
        plan: RunPlan,
        student: Student,
        status: Status | None = None,
        tiles_per_s: float = 0.0,
    ) -> RunEstimate:
        """Estimate a run.

        Parameters
        ----------
        plan : RunPlan
            What it would compute.
        student : Student
            Which would compute it.
        status : ndarray, optional
            ``(rows, columns)`` of the map that is there.
        tiles_per_s : float
            Measured when the student was loaded, for want of a timed run; 0 if unknown.

        Raises
        ------
        InputError
            If the plan covers no square.
        """
        wanted = self.wanted(plan)
        block = run_block(plan.grid, plan.mode, student)
        if status is None:
            missing = cost = wanted
        else:
            missing = wanted & (status == CellStatus.PENDING)
            needed = wanted | (status == CellStatus.DONE)
            cost = computed_with(missing, needed, block)
        pace, is_timed = self._pace(pace_path(plan, student)), True
        if pace is None:
            guess = Pace(tiles_per_s) if tiles_per_s else None
            near = self._pace(pace_path(plan, student, any_detail=True))
            pace, is_timed = near or guess, False
        tiles = tiles_worth(cost, block, plan)
        return RunEstimate(
            squares=int(np.count_nonzero(wanted)),
            missing=int(np.count_nonzero(missing)),
            seconds=None if pace is None else pace.seconds(tiles),
            is_counted=plan.every_square or plan.tissue is not None,
            is_timed=is_timed,
        )

    def _pace(self, path: Path | None) -> Pace | None:
        if path is not None and path not in self._paces:
            self._paces[path] = read_pace(path)
        return None if path is None else self._paces[path]


class Stopwatch:
    """Times a run in the thread that drives it."""

    def __init__(self, plan: RunPlan, student: Student) -> None:
        self._plan, self._student = plan, student
        self._block = run_block(plan.grid, plan.mode, student)
        self._began = time.perf_counter()
        self._first_at = self._last_at = 0.0
        self._first_tiles = self._tiles = 0.0
        self._squares = self._blocks = 0

    def saw(self, block: tuple[slice, slice], status: Status) -> None:
        """Count a block that was just computed, by the status of its cells."""
        cells = np.zeros(self._plan.grid.shape, bool)
        cells[block] = status != CellStatus.PENDING
        tiles = tiles_worth(cells, self._block, self._plan)
        now = time.perf_counter()
        if not self._first_at:
            self._first_at, self._first_tiles = now, tiles
        self._last_at = now
        self._tiles += tiles
        self._blocks += 1
        self._squares += int(np.count_nonzero(cells))

    @property
    def pace(self) -> Pace | None:
        """The run's speed; None if it was too short to say."""
        spent = self._last_at - self._first_at
        tiles = self._tiles - self._first_tiles
        few = self._squares < ENOUGH_SQUARES or self._blocks < _ENOUGH_BLOCKS
        if few or tiles <= 0 or spent < _ENOUGH_S:
            return None
        per_s = tiles / spent
        start = self._first_at - self._began - self._first_tiles / per_s
        return Pace(per_s, max(0.0, start))

    def keep(self) -> None:
        """Keep the speed for the next estimate, if it says enough."""
        pace = self.pace
        # A mask that had to be found first is no part of the next run.
        if pace is None or self._plan.tissue is None:
            return
        kept = {"tiles_per_s": pace.tiles_per_s, "start_s": pace.start_s}
        for any_detail in (False, True):
            path = pace_path(self._plan, self._student, any_detail=any_detail)
            if path is None:
                continue
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, json.dumps(kept))
            except OSError:
                return  # a full disk costs the run nothing but a good guess


def pace_path(
    plan: RunPlan, student: Student, *, any_detail: bool = False
) -> Path | None:
    """Return where the pace of such runs is kept; None where no cache can be had.

    Parameters
    ----------
    plan : RunPlan
        What is computed.
    student : Student
        Which computes it.
    any_detail : bool
        The last run's at whatever Detail. Of tiles only, None for tokens: a tile costs
        its pass through the network, however many of them there are, while windows of
        tokens are cut in other ways at another Detail.
    """
    if any_detail and plan.mode != "tiles":
        return None
    device = student.device
    identity = [
        platform.node(),
        student.digest,
        *(device.name, device.backend, device.precision),
        plan.mode,
        None if any_detail else plan.grid.stride_px,
    ]
    name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
    try:
        return cache_dir("pace") / f"{name}.json"
    except HistodistillError:
        return None


def read_pace(path: Path) -> Pace | None:
    """Return a kept pace; None if there is none, or the file is damaged."""
    try:
        kept = json.loads(read_plain(path, _MOST_BYTES))
        pace = Pace(float(kept["tiles_per_s"]), float(kept["start_s"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    is_sane = all(map(math.isfinite, (pace.tiles_per_s, pace.start_s)))
    return pace if is_sane and pace.tiles_per_s > 0 <= pace.start_s else None


def _is_same(plan: RunPlan, other: RunPlan | None) -> bool:
    """Whether two plans cover the same cells; arrays are compared by identity."""
    if other is None or len(plan.polygons) != len(other.polygons):
        return False
    same = zip(plan.polygons, other.polygons, strict=True)
    return (
        (plan.grid, plan.mode, plan.region, plan.every_square)
        == (other.grid, other.mode, other.region, other.every_square)
        and plan.tissue is other.tissue
        and all(one is two for one, two in same)
    )
