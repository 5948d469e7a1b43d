"""Choosing, wired: slide, student, µm per pixel and colours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from napari_histodistill.controllers.explore.jobs import (
    OF_THE_MAP,
    OF_THE_SLIDE,
    ExploreJob,
)
from napari_histodistill.controllers.explore.session import ExploreSession
from napari_histodistill.controllers.shared.job import Job
from napari_histodistill.controllers.shared.map_work import (
    StudentLoaded,
    StudentLoader,
    student_work,
)
from napari_histodistill.controllers.shared.student_list import (
    StudentChoice,
    slide_words,
    student_words,
)
from napari_histodistill.errors import HistodistillError
from napari_histodistill.layers.slide_layer import METADATA_KEY, ref_of
from napari_histodistill.widgets.explore.bench import ExploreBench
from napari_histodistill.widgets.explore.slide_panel import SlidePanel
from napari_histodistill.widgets.shared.controls import OPEN_TITLE, set_tip
from napari_histodistill.widgets.shared.forms import ask_folder
from napari_histodistill.widgets.shared.overlays import Overlays
from napari_histodistill.widgets.shared.slide_chooser import SlideChoosing


class Choosing(SlideChoosing[ExploreSession, Overlays]):
    """Keeps the slide panel, the viewer's layers and the session in step."""

    bench: ExploreBench
    panel: SlidePanel

    jobs = OF_THE_SLIDE

    def __init__(
        self,
        bench: ExploreBench,
        panel: SlidePanel,
        *,
        load_student: StudentLoader,
        students: Sequence[StudentChoice],
    ) -> None:
        super().__init__(bench, panel)
        self._load_student = load_student
        self._students = list(students)
        self._current_student = 0 if students else -1
        self._student_asked = False
        self._device = "auto"
        panel.student_chosen.connect(self.choose_student)
        panel.open_bundle.connect(self.ask_bundle)
        panel.srgb_wanted.connect(self.choose_colours)

    def slide_put(self) -> None:
        """Load the first student now: nothing can be done without a slide."""
        if not self._student_asked and self._students:
            self.choose_student(self._current_student)

    def choose_colours(self, srgb: bool) -> None:
        """Show the slide in sRGB by the file's ICC profile, or as it is stored."""
        layer = self.bench.slide_layer
        ref = None if layer is None else ref_of(layer.metadata)
        if layer is None or ref is None:
            return
        try:
            other = ref.in_colours(srgb=srgb)
        except HistodistillError as error:
            self.show()
            self.bench.said.emit(str(error))
            return
        layer.metadata[METADATA_KEY] = other
        layer.data = list(other.slide.levels)
        self.choose_layer(layer)

    # --- students -----------------------------------------------------------------

    def choose_student(self, index: int) -> None:
        """Load a student of the list."""
        self._current_student, self._student_asked = index, True
        self.bench.session.await_student()
        self.drop_map()
        choice = self._students[index]
        self.bench.pump.start(
            student_work(self._load_student, choice.name, self._device),
            key=ExploreJob.LOADING,
            on_reports=self._student_loaded,
            on_end=self._student_ended,
        )
        self.bench.changed.emit()

    def choose_device(self, device: str) -> None:
        """Load the present student onto another device."""
        self._device = device
        if self._student_asked:
            self.choose_student(self._current_student)

    def add_student(self, choice: StudentChoice, *, choose: bool = True) -> None:
        """Offer another student."""
        self._students.append(choice)
        if choose:
            self.choose_student(len(self._students) - 1)
        self.show()

    def ask_bundle(self) -> None:
        """Let the person pick a bundle folder."""
        folder = ask_folder(OPEN_TITLE, self.panel)
        if folder is not None:
            self.open_bundle(folder)
        self.show()

    def open_bundle(self, folder: Path) -> None:
        """Offer the student of a bundle folder."""
        from napari_histodistill.students.bundle import load_spec

        try:
            self.add_student(StudentChoice(folder, load_spec(folder)))
        except HistodistillError as error:
            self.bench.said.emit(str(error))

    # --- drawing ------------------------------------------------------------------

    def show(self) -> None:
        """Draw the panel."""
        bench, panel = self.bench, self.panel
        layers = [id(x) for x in self._layers]
        current = layers.index(id(bench.slide_layer)) if bench.slide_layer else -1
        panel.show_slides([x.name for x in self._layers], current)
        set_tip(panel.slide_info, slide_words(bench.session.slide))
        panel.show_students([s.title for s in self._students], self._current_student)
        if self._current_student >= 0:
            spec = self._students[self._current_student].spec
            set_tip(panel.student_info, student_words(spec))
        panel.show_questions(bench.session)
        ref = ref_of(bench.slide_layer.metadata) if bench.slide_layer else None
        panel.show_colours(
            offered=ref is not None and ref.has_profile,
            srgb=ref is not None and ref.stored is not None,
        )

    def _student_loaded(self, reports: list[StudentLoaded]) -> None:
        loaded = reports[-1]
        self.drop_map()
        self.bench.session.choose_student(loaded.student, loaded.tiles_per_s)

    def _student_ended(self, job: Job[object]) -> None:
        if job.error:
            self.bench.session.lose_student(job.error)
        self.bench.changed.emit()

    def drop_map(self) -> None:
        """Take the map off the screen: it was of another student."""
        self.bench.pump.abandon(*OF_THE_MAP)
        self.bench.session.run_ended()
        if self.bench.overlays is not None:
            self.bench.overlays.remove_map()
