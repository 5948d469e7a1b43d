"""Options and reports of a run of the engine."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Literal, get_args

from napari_histodistill.errors import InputError

Reading = Literal["auto", "threads", "processes"]

_REPORT_S = 0.15
_RATE_WINDOW_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedOptions:
    """Options that are rarely changed.

    Attributes
    ----------
    batch_size : int or None
        Tiles per call of the student; None chooses by device. Runs with different
        batch sizes may differ in the last bit.
    block : int or None
        Edge of a new store's blocks in cells; None chooses by device and mode.
    readers : int or None
        Threads that read ahead, or processes; None chooses by device.
    reading : {"auto", "threads", "processes"}
        Who reads. Processes need memory and a second to start, and only slides that
        were opened from files; ``"auto"`` tries them where a fast device and many cores
        make that worth while (see ``maps/reading/choice.py``). Pixels are the same.
    halo_px : int or None
        Mode ``tokens``: pixels (student's mpp) read around the tiles of a block, so
        that a token near its border sees what lies beyond; None takes half a tile.
    restart : bool
        Delete an existing store first.
    retry_unreadable : bool
        Try cells again that could not be read before.
    """

    batch_size: int | None = None
    block: int | None = None
    readers: int | None = None
    reading: Reading = "auto"
    halo_px: int | None = None
    restart: bool = False
    retry_unreadable: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "block", "readers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                msg = f"{name}: {value} is too small; give 1 or more."
                raise InputError(msg)
        if self.reading not in get_args(Reading):
            have = ", ".join(get_args(Reading))
            msg = f"reading: {self.reading!r} is not one of {have}."
            raise InputError(msg)
        if self.halo_px is not None and self.halo_px < 0:
            msg = f"halo_px: {self.halo_px} is negative; give 0 or more."
            raise InputError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedReport:
    """Progress of a run.

    Attributes
    ----------
    done : int
        Cells that are final, in this or an earlier run (the unreadable included).
    total : int
        Cells that are wanted.
    unreadable : int
        Final cells whose pixels could not be read.
    cells_per_s : float
        Recent speed; 0 before the first batch.
    seconds_left : float or None
        None before the first batch.
    block : tuple of slice or None
        Rows and columns that just became final and lie in the store.
    message : str
        A note for the user; usually empty.
    reading : {"threads", "processes"}
        Who reads now; at the end, who was kept.
    """

    done: int
    total: int
    unreadable: int = 0
    cells_per_s: float = 0.0
    seconds_left: float | None = None
    block: tuple[slice, slice] | None = None
    message: str = ""
    reading: Reading = "threads"


class Progress:
    """Recent speed, and when the next report is due; any thread may add cells."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._marks: deque[tuple[float, int]] = deque()
        self._cells = 0
        self._last_report = 0.0

    def start(self) -> None:
        """Begin to count time."""
        self._marks.append((time.perf_counter(), 0))

    def add(self, cells: int) -> None:
        """Count cells that were just computed."""
        with self._lock:
            now = time.perf_counter()
            self._cells += cells
            self._marks.append((now, self._cells))
            while len(self._marks) > 2 and now - self._marks[0][0] > _RATE_WINDOW_S:
                self._marks.popleft()

    def rate(self) -> float:
        """Cells per second over the last seconds; 0 before the first batch."""
        with self._lock:
            if len(self._marks) < 2:
                return 0.0
            (then, before), (_, now_cells) = self._marks[0], self._marks[-1]
        return (now_cells - before) / max(time.perf_counter() - then, 1e-9)

    def is_due(self) -> bool:
        """Whether the last report is long enough ago."""
        return time.perf_counter() - self._last_report > _REPORT_S

    def reported(self) -> None:
        """Remember that a report goes out now."""
        self._last_report = time.perf_counter()
