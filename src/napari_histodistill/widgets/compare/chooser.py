"""Choosing, wired: the slide, A and B, the distance of places."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from weakref import WeakSet

from napari.layers import Image
from qtpy.QtCore import Signal

from napari_histodistill.controllers.compare.jobs import (
    LOADING,
    OF_THE_MAPS,
    CompareJob,
)
from napari_histodistill.controllers.compare.noise import SeedsFound, seeds_work
from napari_histodistill.controllers.compare.session import CompareSession
from napari_histodistill.controllers.shared.job import Job, SlideJob
from napari_histodistill.controllers.shared.map_choice import RegionChoice
from napari_histodistill.controllers.shared.map_work import (
    StudentLoaded,
    StudentLoader,
    student_work,
)
from napari_histodistill.controllers.shared.student_list import (
    StudentChoice,
    places_of,
    slide_words,
    student_words,
    titles_apart,
)
from napari_histodistill.errors import HistodistillError
from napari_histodistill.layers.slide_layer import students_of
from napari_histodistill.widgets.compare.bench import CompareBench
from napari_histodistill.widgets.compare.choose_panel import ChoosePanel
from napari_histodistill.widgets.compare.overlays import CompareOverlays
from napari_histodistill.widgets.shared.controls import OPEN_TITLE, set_tip
from napari_histodistill.widgets.shared.forms import ask_folder
from napari_histodistill.widgets.shared.slide_chooser import SlideChoosing


class CompareChoosing(SlideChoosing[CompareSession, CompareOverlays]):
    """Keeps the choice panel, the viewer's layers and the session in step."""

    seeds_known = Signal()
    """What measures noise was looked for."""

    bench: CompareBench
    panel: ChoosePanel
    jobs = (SlideJob.FINDING_TISSUE, SlideJob.READING, *OF_THE_MAPS)

    def __init__(
        self,
        bench: CompareBench,
        panel: ChoosePanel,
        *,
        load_student: StudentLoader,
        students: Sequence[StudentChoice],
    ) -> None:
        super().__init__(bench, panel)
        self._load_student = load_student
        self._students = list(students)
        last = len(self._students) - 1
        self._current = [min(which, last) for which in range(2)]
        self._asked = [False, False]
        self._followed: WeakSet[Image] = WeakSet()
        panel.student_chosen.connect(self.choose_student)
        panel.open_bundle.connect(self.ask_bundle)
        panel.swapped.connect(self.swap)
        panel.noise_chosen.connect(self.choose_noise)
        panel.region_chosen.connect(self.choose_region)
        panel.step_chosen.connect(self.choose_step)

    def slide_put(self) -> None:
        """Load both students now: nothing can be done without a slide.

        A slide that is there to show a student and its control has the control as A,
        the first time only: what a person chooses afterwards stays.
        """
        layer = self.bench.slide_layer
        if layer is not None and layer not in self._followed:
            self._followed.add(layer)
            wished = places_of(students_of(layer.metadata), self._students)
            if len(wished) == len(self._current):
                self._current, self._asked = wished[::-1], [False, False]
        for which, index in enumerate(self._current):
            if not self._asked[which] and index >= 0:
                self.choose_student(which, index)

    def choose_student(self, which: int, index: int) -> None:
        """Load a student of the list as A (0) or B (1)."""
        self._current[which], self._asked[which] = index, True
        self._drop()
        self.bench.pump.abandon(CompareJob.SEEDS)
        self.bench.session.await_student(which)
        self.bench.pump.start(
            student_work(self._load_student, self._students[index].name, "auto"),
            key=LOADING[which],
            on_reports=partial(self._loaded, which),
            on_end=partial(self._load_ended, which),
        )
        self.bench.changed.emit()

    def swap(self) -> None:
        """Make A the second and B the first; nothing is loaded again."""
        try:
            self.bench.session.swap()
        except HistodistillError as error:
            self.bench.said.emit(str(error))
            return
        self._drop()
        self._current.reverse()
        self._asked.reverse()
        self.bench.pump.abandon(CompareJob.SEEDS)
        self._look_for_seeds()
        self.bench.changed.emit()

    def choose_noise(self, measured: bool) -> None:
        """Let the next run measure noise, or not."""
        self.bench.session.choose_noise(measured=measured)
        self.bench.changed.emit()

    def choose_region(self, region: RegionChoice) -> None:
        """Cover the whole slide, or the view."""
        self.bench.session.choose_region(region)
        self.bench.look()
        self.bench.changed.emit()

    def choose_step(self, step: int) -> None:
        """Take a step of the Detail slider."""
        if step != self.bench.session.step:
            self._drop()
            self.bench.session.choose_step(step)
            self.bench.changed.emit()

    def ask_bundle(self, which: int) -> None:
        """Let the person pick a bundle folder."""
        folder = ask_folder(OPEN_TITLE, self.panel)
        if folder is not None:
            self.open_bundle(which, folder)
        self.show()

    def open_bundle(self, which: int, folder: Path, note: str = "") -> None:
        """Make the student of a bundle folder A (0) or B (1)."""
        from napari_histodistill.students.bundle import load_spec

        try:
            self._students.append(StudentChoice(folder, load_spec(folder), note))
        except HistodistillError as error:
            self.bench.said.emit(str(error))
            return
        index = len(self._students) - 1
        if self.bench.session.slide is None:
            self._current[which] = index
            self.show()
        else:
            self.choose_student(which, index)

    def look_for_seeds_again(self) -> None:
        """Look again for what measures noise: there may be more by now."""
        self.bench.session.look_for_seeds_again()
        self._look_for_seeds()

    def show(self) -> None:
        """Draw the panel."""
        bench, panel, session = self.bench, self.panel, self.bench.session
        layers = [id(x) for x in self._layers]
        current = layers.index(id(bench.slide_layer)) if bench.slide_layer else -1
        panel.slide.show_slides([x.name for x in self._layers], current)
        set_tip(panel.slide_info, slide_words(session.slide))
        panel.show_students(titles_apart(self._students), self._current)
        for info, index in zip(panel.infos, self._current, strict=True):
            if index >= 0:
                set_tip(info, student_words(self._students[index].spec))
        panel.show_questions(session)
        panel.show_words([session.say_half(which) for which in range(2)])
        panel.show_noise(session.say_noise(), session.why_no_noise_choice)
        panel.show_steps(len(session.steps), session.step, session.detail_in_words)

    def _loaded(self, which: int, reports: list[StudentLoaded]) -> None:
        loaded = reports[-1]
        self.bench.session.choose_student(which, loaded.student, loaded.tiles_per_s)

    def _load_ended(self, which: int, job: Job[object]) -> None:
        if job.error:
            self.bench.session.lose_student(which, job.error)
        self._look_for_seeds()
        self.bench.changed.emit()

    def _look_for_seeds(self) -> None:
        """Look for what measures noise, once both students are there."""
        session = self.bench.session
        if len(session.students) < len(LOADING) or session.seeds is not None:
            return
        sources = [self._students[index].name for index in self._current]
        self.bench.pump.start(
            seeds_work(self._load_student, sources),
            key=CompareJob.SEEDS,
            on_reports=self._seeds_found,
            on_end=self._seeds_looked_for,
        )

    def _seeds_found(self, reports: list[SeedsFound]) -> None:
        self.bench.session.take_seeds(reports[-1])

    def _seeds_looked_for(self, job: Job[object]) -> None:
        if job.error:  # a damaged bundle beside these two is no reason to stop
            self.bench.session.take_seeds(SeedsFound())
            self.bench.said.emit(job.error)
        self.bench.changed.emit()
        self.seeds_known.emit()

    def _drop(self) -> None:
        """Take the present maps off the screen; they stay stored."""
        self.bench.pump.abandon(*OF_THE_MAPS)
        self.bench.session.run_ended()
        if self.bench.overlays is not None:
            self.bench.overlays.remove_map()
