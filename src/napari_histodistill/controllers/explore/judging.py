"""Judging a map's squares: the work, what it reports, and what is known of a slide."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.controllers.explore.hatching import hatched
from napari_histodistill.layers.kept_maps import note_verdict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.controllers.explore.hatching import Levels
    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.running import CancelToken
    from napari_histodistill.slides import Slide, TileGrid
    from napari_histodistill.students.student import Student
    from napari_histodistill.students.trust import SlideTrust

SECONDS_EACH = 0.035
"""CPU seconds for one square, on one core."""


@dataclass(frozen=True, slots=True)
class JudgeProgress:
    """So many squares were compared, of so many at most."""

    done: int
    total: int


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """The verdict on a map.

    Attributes
    ----------
    trust : SlideTrust
        The verdict.
    squares : int
        Squares of the map it was taken from: with more, there is another.
    unlike : ndarray of bool
        ``(rows, columns)``: squares that are unlike.
    hatching : tuple of ndarray
        Levels that mark them; empty if there are none.
    """

    trust: SlideTrust
    squares: int
    unlike: npt.NDArray[np.bool_]
    hatching: Levels


def judge_work(path: Path, slide: Slide, student: Student, *, every: bool) -> Work:
    """Return work that judges a stored map: some :class:`JudgeProgress`, then `Judged`.

    Parameters
    ----------
    path : Path
        The map's store, which keeps the verdict for the next time.
    slide, student : Slide, Student
        Of the map; both stay open until the work has ended.
    every : bool
        Whether to compare every square, not a few hundred.
    """

    def work(cancel: CancelToken) -> Iterator[JudgeProgress | Judged]:
        seen: queue.SimpleQueue[JudgeProgress | Judged | BaseException] = (
            queue.SimpleQueue()
        )

        def judge() -> None:
            try:
                seen.put(_judged(path, slide, student, every, cancel, seen))
            except BaseException as error:  # noqa: BLE001 - raised again below
                seen.put(error)

        # The core calls back how far it is; a job's work hands reports out one by one.
        thread = threading.Thread(target=judge, name="histodistill judging")
        thread.start()
        try:
            while not isinstance(report := seen.get(), (Judged, BaseException)):
                yield report
            if isinstance(report, BaseException):
                raise report
            yield report
        finally:
            if thread.is_alive():  # nobody listens any more
                cancel.cancel()
            thread.join()

    return work


def _judged(
    path: Path,
    slide: Slide,
    student: Student,
    every: bool,  # noqa: FBT001
    cancel: CancelToken,
    seen: queue.SimpleQueue[JudgeProgress | Judged | BaseException],
) -> Judged:
    from napari_histodistill.maps.store import CellStatus, EmbeddingStore
    from napari_histodistill.maps.trust import slide_trust

    with EmbeddingStore.open(path) as store:
        done, grid = store.status == CellStatus.DONE, store.grid
    trust = slide_trust(
        path,
        slide,
        student,
        cells=done,
        every=every,
        cancel=cancel,
        progress=lambda n, most: seen.put(JudgeProgress(n, most)),
    )
    note_verdict(slide, path, trust.verdict.value)
    unlike = np.zeros(done.shape, np.bool_)
    unlike[tuple(trust.cells[trust.unlike].T)] = True
    # A square of a sample speaks for all that was read with it.
    marked = unlike if trust.every else _read_with(unlike, grid) & done
    levels = hatched(marked) if marked.any() else ()
    return Judged(trust, int(done.sum()), unlike, levels)


def _read_with(squares: npt.NDArray[np.bool_], grid: TileGrid) -> npt.NDArray[np.bool_]:
    """Return the squares whose larger part lies in the tile of one of these."""
    from scipy.ndimage import maximum_filter

    side = max(1, round(grid.tile_px / grid.stride_px))
    found: npt.NDArray[np.bool_] = maximum_filter(squares, size=side, mode="constant")
    return found


class MapTrust:
    """What is known of the map on screen: verdict, progress, and what is wanted.

    Attributes
    ----------
    judged : Judged or None
        The verdict, once there is one.
    progress : JudgeProgress or None
        How far a comparison is that is going on.
    trouble : str
        Why there is no verdict, if that failed; "" otherwise.
    leave_out : bool
        Whether a person wants unlike squares left out.
    """

    def __init__(self) -> None:
        self.judged: Judged | None = None
        self.progress: JudgeProgress | None = None
        self.trouble = ""
        self.leave_out = False

    @property
    def trust(self) -> SlideTrust | None:
        """The verdict, once there is one."""
        return None if self.judged is None else self.judged.trust

    def forget(self) -> None:
        """Let the verdict go: the map is another. What is wanted stays."""
        self.judged, self.progress, self.trouble = None, None, ""

    def wants(self, squares: int) -> bool:
        """Whether a map of so many squares is still to be judged, as is wanted."""
        if not squares or self.trouble:
            return False
        if self.judged is None or self.judged.squares != squares:
            return True
        return self.leave_out and not self.judged.trust.every and self.can_judge

    @property
    def can_judge(self) -> bool:
        """Whether the student can be asked: not if it keeps nothing to compare with."""
        return self.trust is None or self.trust.unlike_share is not None

    @property
    def left_out(self) -> npt.NDArray[np.bool_] | None:
        """The squares ``(rows, columns)`` that are left out now; None for none."""
        judged = self.judged
        if judged is None or not self.leave_out or not judged.trust.every:
            return None
        return judged.unlike
