"""Compare students: two students, one slide, and where they differ. No window.

The session belongs to the GUI thread. As in *Explore slide*, a button asks it for work,
a job runs that in a thread, and the reports come back to the ``take…`` methods.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.controllers.compare.choice import CompareChoice
from napari_histodistill.controllers.compare.noise import NoiseRun, OwnNoise
from napari_histodistill.controllers.compare.work import (
    LETTERS,
    Compared,
    HalfIndex,
    HalfUpdate,
    PlaceFound,
    Position,
    compare_work,
    measure_work,
    place_work,
)
from napari_histodistill.controllers.shared.live_map import LiveMap
from napari_histodistill.controllers.shared.wording import class_in_words
from napari_histodistill.errors import InputError
from napari_histodistill.maps.store import CellStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.controllers.shared.planning import RunPlan
    from napari_histodistill.maps.alike.similarity import SimilarityIndex
    from napari_histodistill.maps.difference import Measure


class CompareSession(CompareChoice):
    """State of one *Compare students* panel; no Qt, no napari.

    Attributes
    ----------
    lives : list of LiveMap or None
        Their maps, as far as they are computed.
    compared : Compared or None
        The difference, its threshold and ranked places.
    place, found : tuple of float or None, PlaceFound or None
        The place that was asked about (level-0 pixels), and the answer.
    running : bool
        Whether a run is going on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lives: list[LiveMap | None] = [None, None]
        self.compared: Compared | None = None
        self.place: Position | None = None
        self.found: PlaceFound | None = None
        self.running = False
        self._indices: list[SimilarityIndex | None] = [None, None, None]
        self._plans: tuple[RunPlan, ...] = ()
        self._third: NoiseRun | OwnNoise | None = None

    def choose_measure(self, measure: Measure) -> None:
        """Compare by something else; the maps of A and B stay."""
        super().choose_measure(measure)
        self.compared = None

    # --- running ------------------------------------------------------------------

    def run_work(self) -> Work:
        """Return work that computes what is missing of both maps and compares them.

        Raises
        ------
        InputError
            If it cannot run.
        """
        why, slide = self.why_not_run, self.slide
        if why or slide is None:
            raise InputError(why)
        self._plans = tuple(choice.plan() for choice in self.choices)
        are_seeds = self.seeds is not None and self.seeds.are_seeds
        self._third = OwnNoise() if are_seeds else self.noise_run()
        self.drop_answers()
        self.lives = [
            LiveMap(plan.grid, student.spec.classes, plan.mode)
            for plan, student in zip(self._plans, self.students, strict=True)
        ]
        self.running = True
        first = self.choices[0]
        return compare_work(
            slide,
            self.students,
            self._plans,
            self.measure,
            lambda: first.view,
            self._third,
        )

    def measure_work(self) -> Work | None:
        """Return work that compares the maps that are there; None without any."""
        if not self._plans or self.running or not self.has_maps:
            return None
        return measure_work(self.students, self._plans, self.measure, self._third)

    def take(self, report: object) -> None:
        """Take what a run reports."""
        if isinstance(report, HalfUpdate) and report.which < len(self.lives):
            live, patch = self.lives[report.which], report.update.patch
            if live is not None and patch is not None:
                live.apply(patch)
        elif isinstance(report, Compared):
            self.compared = report

    def run_ended(self) -> None:
        """Note that no run is going any more."""
        self.running = False

    @property
    def has_maps(self) -> bool:
        """Whether both students have seen something."""
        return all(live is not None and live.cells_done for live in self.lives)

    @property
    def has_class_maps(self) -> bool:
        """Whether A and B are drawn as classes (else as similarity to a place)."""
        return self.has_maps and all(live and live.classes for live in self.lives)

    # --- a place ------------------------------------------------------------------

    @property
    def why_not_ask(self) -> str:
        """Why a click finds nothing; "" if it does."""
        if self.running:
            return "A run is going on: wait until it has ended, or cancel it."
        if not self.has_maps:
            return "Run both models first: there is nothing to ask yet."
        return ""

    @property
    def why_not_flicker(self) -> str:
        """Why A and B cannot be shown in turn; "" if they can."""
        if self.running or not self.has_maps:
            return "Run both models first: there is nothing to show in turn yet."
        if not self.has_class_maps and self.found is None:
            return "Click a place first: what A and B find like it is shown in turn."
        return ""

    def ask(self, y: float, x: float) -> Work:
        """Return work that finds what both students find most like a place.

        Parameters
        ----------
        y, x : float
            Level-0 pixels (edge convention).

        Raises
        ------
        InputError
            If one of them has seen nothing there.
        """
        if self.why_not_ask:
            raise InputError(self.why_not_ask)
        if not self.is_seen(y, x):
            msg = "Nothing is computed there: click on tissue that both have seen."
            raise InputError(msg)
        self.place = (y, x)
        plans, third, beside = list(self._plans), self._third, 0
        if isinstance(third, NoiseRun):
            plans.append(third.plan)
            beside = third.second.beside
        stores = [plan.store_path for plan in plans]
        return place_work(self.place, stores, self._indices[: len(stores)], beside)

    def is_seen(self, y: float, x: float) -> bool:
        """Whether both students have seen a level-0 position."""
        try:
            return all(
                live is not None
                and live.status[live.grid.cell_at(y, x)] == CellStatus.DONE
                for live in self.lives
            )
        except InputError:
            return False

    def take_answer(self, answer: HalfIndex | PlaceFound) -> bool:
        """Take an answer; return whether there is something new to draw."""
        if isinstance(answer, HalfIndex):
            self._indices[answer.which] = answer.index
            return False
        if answer.place != self.place:
            return False  # an older question's: the person has moved on
        self.found = answer
        return True

    def forget_place(self) -> None:
        """End the question."""
        self.place = self.found = None

    # --- in words -----------------------------------------------------------------

    @property
    def why_locked(self) -> str:
        """Why the choice must not change now; "" if it may."""
        return "Cancel the run first, then change this." if self.running else ""

    @property
    def why_not_export(self) -> str:
        """Why there is nothing to export; "" if there is."""
        return "" if self.compared else "Nothing to export yet: run first."

    def say_compared(self) -> str:
        """Return what is compared and what came out, in a sentence."""
        return "" if self.compared is None else self.compared.difference.summary()

    def say_found(self) -> str:
        """Return what the two rows of neighbours say."""
        if self.found is None:
            return ""
        count = len(self.found.nearest[0])
        words = f"A and B share {self.found.shared} of the {count} nearest places"
        seeds = self.found.shared_by_seeds
        return f"{words}." if seeds is None else f"{words}, two seeds {seeds}."

    def describe(self, y: float, x: float) -> str:
        """Return what is under a level-0 position: difference, A's and B's class."""
        if self.compared is None or self.slide is None:
            return ""
        try:
            parts = list(self._describe(y, x))
        except InputError:
            return ""
        mpp = self.slide.usable_mpp
        if parts and mpp is not None:
            um = y * mpp.y, x * mpp.x
            parts.append(f"y {um[0]:,.0f} µm, x {um[1]:,.0f} µm")
        return " · ".join(parts)

    def _describe(self, y: float, x: float) -> Iterator[str]:
        if self.compared is None:
            return
        difference = self.compared.difference
        where = difference.grid.cell_at(y, x)
        value = float(difference.values[where])
        if not np.isfinite(value):
            return
        if difference.ends is None:
            yield f"difference {value:.2f}"
        else:
            yield f"{'−' if difference.ends[where] < 0 else '+'}{value:.1f} SD"
        for letter, live in zip(LETTERS, self.lives, strict=True):
            label = 0 if live is None else int(live.labels[live.grid.cell_at(y, x)])
            if live is not None and label:
                sure = float(live.confidence[live.grid.cell_at(y, x)])
                name = class_in_words(live.classes[label - 1].name)
                yield f"{letter}: {name} {sure:.0%}"

    # --- letting go ---------------------------------------------------------------

    def drop_maps(self) -> None:
        """Let the maps on screen go; they stay stored."""
        self.lives, self._plans = [None, None], ()
        self._indices = [None, None, None]
        self.drop_answers()

    def drop_answers(self) -> None:
        """Let go of what was computed from the maps."""
        self._indices = [None, None, None]
        self.compared = None
        self.forget_place()
