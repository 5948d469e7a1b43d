"""Explore slide: what a person has chosen, what is computed, what may happen next.

The session belongs to the GUI thread and is the only thing that changes there. The
cycle is always the same: a button asks the session for *work* (a generator over frozen
values), a job runs it in a thread, its reports come back on the GUI thread and are
given to the session's ``take_…`` methods, and the widget draws what the session says.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.controllers.explore.judging import (
    Judged,
    JudgeProgress,
    judge_work,
)
from napari_histodistill.controllers.explore.questions import AskingChoice
from napari_histodistill.controllers.explore.teach.held import HeldEmbeddings
from napari_histodistill.controllers.explore.teach.teaching import (
    Missing,
    Strokes,
    Taught,
    TeachMemory,
    hold_work,
    teach_work,
)
from napari_histodistill.controllers.shared.estimating import start_over_in_words
from napari_histodistill.controllers.shared.job import Job, JobState
from napari_histodistill.controllers.shared.live_map import ClassRow, LiveMap, Patch
from napari_histodistill.controllers.shared.map_work import run_work, stored_work
from napari_histodistill.controllers.shared.wording import (
    class_in_words,
    count_in_words,
)
from napari_histodistill.errors import InputError
from napari_histodistill.maps.store import CellStatus
from napari_histodistill.students.trust import TAUGHT, Oddity, unjudged

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.controllers.explore.hatching import Levels
    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.controllers.shared.map_work import RunUpdate
    from napari_histodistill.controllers.shared.planning import Detail
    from napari_histodistill.maps.progress import Reading
    from napari_histodistill.slides import Slide
    from napari_histodistill.students.student import Student
    from napari_histodistill.students.trust import SlideTrust


class RunAction(Enum):
    """The meaning of the Run button."""

    RUN = "run"
    """Compute a map."""
    CONTINUE = "continue"
    """Compute what is missing of the map on screen."""
    DONE = "done"
    """Nothing: all that was asked for is computed. To compute it again is a choice of
    its own, :meth:`ExploreSession.start_over_question`."""


_NEXT = {
    RunAction.RUN: "Run goes on.",
    RunAction.CONTINUE: "Continue goes on.",
    RunAction.DONE: "All of it is computed.",
}
"""What the button would do with a stored map."""


class ExploreSession(AskingChoice):
    """State of one *Explore slide* panel; no Qt, no napari.

    Attributes
    ----------
    running : bool
        Whether a run is going on, of this slide or of one that was left since.
    reading : {"auto", "threads", "processes"}
        Who reads the slides of runs; maps are the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.running = False
        self.reading: Reading = "auto"
        self._run_live: LiveMap | None = None
        self._looked_for: tuple[Slide | None, Path] | None = None
        self.teach_memory = TeachMemory()

    @property
    def has_map(self) -> bool:
        """Whether a map of this choice is on screen."""
        return self.live is not None

    @property
    def map_status(self) -> npt.NDArray[np.uint8] | None:
        """Status of the cells of the map on screen; None without one."""
        return None if self.live is None else self.live.status

    def drop_map(self) -> None:
        """Let the map on screen go, if any; the choice stays, and the store."""
        self.live = self.taught = None
        self.forget_questions()
        self.map_trust.forget()
        self.teach_memory.forget()

    def put_map_away(self) -> None:
        """Let the map on screen go; the stored one may be looked for again."""
        self._looked_for = None
        self.drop_map()

    def choose_reading(self, reading: Reading) -> None:
        """Let threads or processes read, or what is faster, from the next run on."""
        self.reading = reading

    # --- the map ------------------------------------------------------------------

    def wants_stored(self) -> bool:
        """Whether to look for the stored map of the present choice; once for each.

        While a map is on screen, none is wanted; once it was dropped, its stored one
        may be shown again.
        """
        if self.live is not None:
            self._looked_for = None
            return False
        if self.tissue is None or self.detail is None or self.why_not_run:
            return False
        choice = self.slide, self._store_path(self.detail)
        if choice == self._looked_for:
            return False
        self._looked_for = choice
        return True

    def stored_work(self) -> Work | None:
        """Return work that reads the stored map of the present choice, if any."""
        if not self.stored_since or self.detail is None or self.student is None:
            return None
        self._new_map(self.detail, self.student)
        return stored_work(self._store_path(self.detail), self.student)

    def run_work(self, *, restart: bool = False) -> Work:
        """Return work that computes the map.

        Raises
        ------
        InputError
            If it cannot run.
        """
        plan = self.plan()
        slide, student, detail = self.slide, self.student, self.detail
        if slide is None or student is None or detail is None or self.running:
            raise InputError(self.why_not_start)
        if restart or self.live is None or self.taught is not None:
            self._new_map(detail, student)
        assert self.live is not None
        self.running, self._run_live = True, self.live
        self.showing.map_begins()
        return run_work(
            slide,
            student,
            plan,
            restart=restart,
            reading=self.reading,
            # Another panel or process may have stored more than is on screen.
            known=self.live.status.copy(),
            focus=lambda: self.view if self.slide is slide else None,
        )

    @property
    def runs_here(self) -> bool:
        """Whether the run that is going on fills the map on screen."""
        return self.running and self._run_live is self.live

    def take_update(self, update: RunUpdate) -> None:
        """Take what a run reports, on screen or not."""
        if update.patch is not None and self._run_live is not None:
            self._run_live.apply(update.patch)

    def take_patches(self, patches: Sequence[Patch]) -> None:
        """Take cells of a stored map."""
        if self.live is not None:
            for patch in patches:
                self.live.apply(patch)

    def show_at_least(self, confidence: float) -> None:
        """Show only the squares of the map that are at least this sure (0 to 1)."""
        self.showing.show_at_least(confidence)
        if self.live is not None:
            self.live.show_at_least(confidence)

    def run_ended(self) -> None:
        """Note that no run is going any more."""
        self.running = False
        self.estimator.forget_paces()

    def class_rows(self) -> tuple[ClassRow, ...]:
        """Return the legend: of the map, or of what the student could find."""
        if self.live is not None:
            return self.live.rows()
        if self.student is None or not self.steps:
            return ()
        return tuple(
            ClassRow(name=c.name, color=c.color, cells=0, mm2=0.0, histogram=())
            for c in self.showing.coloured(self.student.spec.classes)
        )

    def recolour(self, index: int, color: str) -> None:
        """Draw a class of the legend in another colour, here and in exports."""
        rows = self.class_rows()
        if not 0 <= index < len(rows):
            return
        self.showing.recolour(rows[index].name, color)
        if self.live is not None:
            self.live.recolour(self.showing.coloured(self.live.classes))
        if self.taught is not None:
            coloured = self.showing.coloured(self.taught.classes)
            self.taught = replace(self.taught, classes=coloured)

    @property
    def why_not_start(self) -> str:
        """Why a run cannot be started now; "" if it can."""
        if self.running and not self.runs_here:
            return "A run on another slide is going on: wait for it, or cancel it."
        return self.why_not_run

    @property
    def run_action(self) -> RunAction:
        """The meaning of the Run button now."""
        if self.live is None or not self.live.cells_done or self.why_not_run:
            return RunAction.RUN
        return RunAction.CONTINUE if self.cells_missing else RunAction.DONE

    @property
    def start_over_question(self) -> str:
        """What starting over would throw away and cost; "" if there is nothing."""
        if self.live is None or not self.live.cells_done or self.student is None:
            return ""
        if self.why_not_run:
            return ""
        again = self.estimator.estimate(
            self.plan(), self.student, tiles_per_s=self.tiles_per_s
        )
        return start_over_in_words(self.live.cells_done, again)

    @property
    def cells_missing(self) -> int:
        """Wanted cells that the present map does not have yet."""
        if self.live is None or self.why_not_run:
            return 0
        wanted = self.estimator.wanted(self.plan())
        return int((wanted & (self.live.status == CellStatus.PENDING)).sum())

    # --- trust --------------------------------------------------------------------

    @property
    def trust(self) -> SlideTrust | None:
        """The verdict that may be shown on the map; None before there is one."""
        found = self.map_trust.trust
        if found is None or self.live is None:
            return None
        # Learned from strokes on this slide, not from cases to compare it with.
        return unjudged(TAUGHT) if self.taught is not None else found

    @property
    def why_not_leave_out(self) -> str:
        """Why unlike squares cannot be left out; "" if they can."""
        if self.running:
            return "Wait until the run is done, or cancel it."
        if self.live is None or not self.live.cells_done:
            return "Run the model first: there are no squares to compare yet."
        if self.taught is not None:
            return TAUGHT
        known = self.trust
        if known is not None and Oddity.NO_REFERENCE in known.oddities:
            return known.reasons[0]
        return ""

    @property
    def hatching(self) -> Levels:
        """Levels that mark the map's unlike squares; empty if there are none to mark.

        Classes taught by strokes are of this slide: nothing is unlike them.
        """
        judged = self.map_trust.judged
        return () if judged is None or self.taught is not None else judged.hatching

    @property
    def hatching_in_words(self) -> str:
        """What the hatching means, and of how many squares; "" without any."""
        judged = self.map_trust.judged
        if judged is None or not self.hatching:
            return ""
        trust = judged.trust
        n, seen = int(trust.unlike.sum()), count_in_words(trust.squares)
        left_out = ", left out" if self.map_trust.left_out is not None else ""
        return f"Unlike the training{left_out}: {n:,} of {seen}"

    def judge_work(self) -> Work | None:
        """Return work that judges the map on screen; None if that is done, or cannot.

        A run must have ended: it writes to the store that is read.
        """
        slide, student, path = self.slide, self.student, self.store_path
        if self.running or self.live is None or slide is None or student is None:
            return None
        if path is None or not self.map_trust.wants(self.live.cells_done):
            return None
        return judge_work(path, slide, student, every=self.map_trust.leave_out)

    def take_judged(self, report: JudgeProgress | Judged) -> None:
        """Take how far the comparison is, or the verdict."""
        if isinstance(report, JudgeProgress):
            self.map_trust.progress = report
            return
        self.map_trust.judged, self.map_trust.progress = report, None
        self._heed()

    def judging_ended(self, trouble: str) -> None:
        """Note that no comparison is going any more, and why if it failed."""
        self.map_trust.progress, self.map_trust.trouble = None, trouble

    def leave_out_unlike(self, *, wanted: bool) -> None:
        """Leave unlike squares out of map, areas and exports, or show them again."""
        self.map_trust.leave_out, self.map_trust.trouble = wanted, ""
        self.map_trust.progress = None
        self._heed()

    def _heed(self) -> None:
        """Give the map the verdict that may be shown."""
        if self.live is not None:
            out = self.map_trust.left_out is not None and self.taught is None
            self.live.judge(self.trust, leave_out=out)

    # --- teach --------------------------------------------------------------------

    @property
    def why_not_paint(self) -> str:
        """Why no strokes can be painted; "" if they can."""
        if self.slide is None or self.slide.usable_mpp is None:
            return "Open a slide with known µm/px first."
        return ""

    @property
    def why_not_teach(self) -> str:
        """Why nothing can be learned from strokes now; "" if it can."""
        if self.runs_here:
            return "Wait until the run is done, or cancel it."
        if self.live is None:
            return "Run the model first: what it has seen is learned from."
        return ""

    @property
    def why_not_save(self) -> str:
        """Why there is no taught student to save; "" if there is."""
        if self.taught is not None and self.taught.score is None:
            return "A moment: what was taught is being tried on strokes held out."
        return "" if self.taught else "Paint strokes of two classes first, then save."

    @property
    def why_not_ask(self) -> str:
        """Why there are no squares to ask about; "" if there are."""
        return "" if self.taught else "Paint strokes of two classes first, then ask."

    def teach_work(self, strokes: Strokes) -> Work:
        """Return work that fits a probe to strokes.

        Raises
        ------
        InputError
            If there is no map to learn from.
        """
        path = self.store_path
        if path is None or self.live is None or self.why_not_similar:
            msg = "Run the model first: strokes are learned from what it has seen."
            raise InputError(msg)
        held = self.teach_memory.of(path, self.live.status)
        return teach_work(
            strokes, store_path=path, held=held, start=self.teach_memory.last
        )

    def hold_work(self) -> Work | None:
        """Return work that reads what strokes are learned from; None if not needed."""
        path = self.store_path
        if path is None or self.live is None or self.why_not_teach:
            return None
        held = self.teach_memory.of(path, self.live.status)
        return hold_work(path) if held is None else None

    def take_taught(self, report: HeldEmbeddings | Missing | Taught) -> None:
        """Show the taught classes in place of the student's."""
        if isinstance(report, HeldEmbeddings):
            self.teach_memory.held = report
        if self.live is None or not isinstance(report, Taught):
            return
        coloured = self.showing.coloured(report.classes)
        self.taught = self.teach_memory.last = replace(report, classes=coloured)
        self.live = LiveMap(self.live.grid, coloured, self.live.mode)
        self.live.apply(report.patch)
        self.live.show_at_least(self.showing.at_least)
        self.showing.map_begins()
        self._heed()

    def forget_taught(self) -> Work | None:
        """Return to the student's own classes; returns work that reads its map."""
        self.taught = None
        return self.stored_work()

    # --- in words -----------------------------------------------------------------

    @property
    def why_locked(self) -> str:
        """Why the choice must not change now; "" if it may."""
        return "Cancel the run first, then change this." if self.running else ""

    @property
    def why_not_export(self) -> str:
        """Why there is nothing to export; "" if there is."""
        return "" if self.live else "Nothing to export yet: run a model first."

    def say_run_ended(self, job: Job[object]) -> str:
        """Return how the last run ended, in a sentence."""
        if job.state is JobState.FAILED:
            return job.error
        done = count_in_words(self._run_live.cells_done if self._run_live else 0)
        if job.state is JobState.DONE:
            return f"Done: {done}, stored for next time."
        return f"Stopped. {done} are kept; Continue goes on."

    def say_stored(self, since: str) -> str:
        """Return what the stored map on screen is, and what Run would do with it."""
        if self.live is None:
            return ""
        done = count_in_words(self.live.cells_done)
        return f"Stored map from {since}: {done}. {_NEXT[self.run_action]}"

    def describe(self, y: float, x: float) -> str:
        """Return what is under a level-0 position: class, similarity, µm."""
        if self.slide is None:
            return ""
        parts = []
        try:
            parts = self._describe_cell(y, x)
        except InputError:
            return ""
        mpp = self.slide.usable_mpp
        if mpp is not None:
            um = y * mpp.y, x * mpp.x
            parts.append(f"y {um[0]:,.0f} µm, x {um[1]:,.0f} µm")
        return " · ".join(parts)

    def _describe_cell(self, y: float, x: float) -> list[str]:
        if self.live is None:
            return []
        parts = []
        row, column = self.live.grid.cell_at(y, x)
        label = int(self.live.labels[row, column])
        if label:
            sure = float(self.live.confidence[row, column])
            name = class_in_words(self.live.classes[label - 1].name)
            parts.append(f"{name} {sure:.0%}")
            if self.live.is_unlike(row, column):
                parts.append("unlike what the model learned from")
        elif self.live.status[row, column] == CellStatus.UNREADABLE:
            parts.append("unreadable")
        likely, spec = float(self.live.heat[row, column]), self.live.heat_class
        if spec is not None and np.isfinite(likely):
            parts.append(f"probability of {class_in_words(spec.name)} {likely:.0%}")
        if self.similar is not None:
            value = float(self.similar.similarity.values[row, column])
            if np.isfinite(value):
                parts.append(f"similarity {value:.2f}")
        return parts

    # --- inside -------------------------------------------------------------------

    def _new_map(self, detail: Detail, student: Student) -> None:
        classes = self.showing.coloured(student.spec.classes)
        self.live = LiveMap(detail.grid, classes, self.mode)
        self.live.show_at_least(self.showing.at_least)
        self.taught = None
        self.forget_index()
        self.map_trust.forget()
