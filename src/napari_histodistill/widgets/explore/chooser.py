"""Choosing, wired: slide, student, µm per pixel and colours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from weakref import WeakSet

from napari.layers import Image
from qtpy.QtCore import Signal

from napari_histodistill.controllers.explore.jobs import (
    OF_THE_MAP,
    OF_THE_SLIDE,
    ExploreJob,
)
from napari_histodistill.controllers.explore.session import ExploreSession
from napari_histodistill.controllers.explore.worklist import (
    OpenSlide,
    RowState,
    SlidesListed,
    Worklist,
    badge_on,
    partly,
    worklist_work,
)
from napari_histodistill.controllers.shared.job import Job, JobState, SlideJob
from napari_histodistill.controllers.shared.map_work import (
    StudentLoaded,
    StudentLoader,
    student_work,
)
from napari_histodistill.controllers.shared.student_list import (
    StudentChoice,
    chosen_in_words,
    places_of,
    slide_words,
    student_words,
    titles_apart,
)
from napari_histodistill.errors import HistodistillError
from napari_histodistill.layers.slide_layer import metadata_of, ref_of, students_of
from napari_histodistill.widgets.explore.bench import ExploreBench
from napari_histodistill.widgets.explore.slide_panel import SlidePanel
from napari_histodistill.widgets.shared.controls import OPEN_TITLE, set_tip
from napari_histodistill.widgets.shared.forms import ask_folder
from napari_histodistill.widgets.shared.overlays import Overlays
from napari_histodistill.widgets.shared.slide_chooser import SlideChoosing
from napari_histodistill.widgets.shared.slide_layers import layers_of_slide


class Choosing(SlideChoosing[ExploreSession, Overlays]):
    """Keeps the slide panel, the viewer's layers and the session in step."""

    student_followed = Signal(str)
    """A slide chose its student: that in a sentence; "" once a person chose."""

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
        self.worklist = Worklist()
        self._removed_at = 0
        self._load_student = load_student
        self._students = list(students)
        self._current_student = 0 if students else -1
        self._student_asked = False
        self._followed: WeakSet[Image] = WeakSet()
        self._device = "auto"
        panel.student_chosen.connect(self.choose_student)
        panel.open_bundle.connect(self.ask_bundle)
        panel.srgb_wanted.connect(self.choose_colours)
        panel.open_folder.connect(self.ask_worklist)
        panel.slide.removed.connect(self.remove_row)
        bench.ran.connect(self._run_went_on)

    def slide_put(self) -> None:
        """Load a student now: the slide's own, or the first; none without a slide."""
        wished, words = self._wished(), ""
        if wished:
            self.choose_student(wished[0])
            words = chosen_in_words([self._students[index].name for index in wished])
        elif not self._student_asked and self._students:
            self.choose_student(self._current_student)
        self.bench.put.emit()
        self.student_followed.emit(words)

    def knows_tissue(self) -> bool:
        """Whether the tissue of the slide that was just put there is known."""
        return self.bench.session.tissue is not None

    # --- the list -----------------------------------------------------------------

    def ask_worklist(self) -> None:
        """Let the person pick a folder of slides."""
        folder = ask_folder("Open a folder of slides", self.panel)
        if folder is not None:
            self.open_worklist(folder)

    def open_worklist(self, folder: Path) -> None:
        """List the slides of a folder; the first is opened if none is looked at."""
        student = self.bench.session.student
        self.bench.pump.start(
            worklist_work(folder, "" if student is None else student.digest),
            key=SlideJob.LISTING,
            on_reports=self._listed,
            on_end=self.bench.report_end,
        )

    def remove_row(self, index: int) -> None:
        """Take a slide out of the list, with its layers."""
        if self.worklist.rows[index].state is RowState.OPENING:
            # Its slide would come back when it is open.
            self.bench.pump.abandon(SlideJob.OPENING)
            self.bench.said.emit("")
        gone, self._removed_at = self.worklist.remove(index), index
        layer = next((x for x in self._layers if x is gone), None)
        if layer is None:
            self.show()
            return
        for x in layers_of_slide(self.bench.viewer, layer):
            self.bench.viewer.layers.remove(x)

    def step(self, by: int) -> None:
        """Choose the next slide of the list (1) or the one before (−1)."""
        index = self.worklist.neighbour(self.bench.slide_layer, by)
        if index < 0:
            end = "last" if by > 0 else "first"
            self.bench.said.emit(f"This is the {end} of the list.")
        else:
            self._slide_picked(index)

    def listed_files(self) -> list[Path]:
        """Return the files of the slides in the list, but for broken ones."""
        rows = self.worklist.rows
        return [x.path for x in rows if x.path and x.state is not RowState.BROKEN]

    def look_at(self, path: Path) -> None:
        """Choose the slide of a file, or open it where it is not in the list."""
        for index, found in enumerate(self.worklist.rows):
            if found.path != path:
                continue
            if found.state is RowState.BROKEN:
                self.bench.said.emit(found.badge.tip)
            self._slide_picked(index)
            return
        self.open_path(path)

    def _listed(self, reports: list[SlidesListed]) -> None:
        files = reports[-1].files
        new = self.worklist.add_files(files, reports[-1].stored)
        self.bench.said.emit(f"{new} of {len(files)} slides are new in the list.")
        self.show()
        if self.bench.slide_layer is None and new:
            self.step(1)

    def _slide_picked(self, index: int) -> None:
        rows = self.worklist.rows
        row = rows[index] if 0 <= index < len(rows) else None
        if row is None or row.state is RowState.BROKEN:
            return
        if row.layer is not None:
            self.choose_layer(row.layer)
        elif row.path is not None:
            self.worklist.give_up()
            self.worklist.begin(row.path)
            self.open_path(row.path)
            self.show()

    def _opened(self, path: Path, job: Job[object]) -> None:
        if job.state is JobState.FAILED:
            self.worklist.fail(path, job.error)
        self.worklist.give_up()
        super()._opened(path, job)

    def _leave(self) -> None:
        bench = self.bench
        if bench.session.running and bench.run_layer not in bench.viewer.layers:
            bench.pump.abandon(ExploreJob.RUN)
            bench.session.run_ended()
        super()._leave()
        bench.forget_closed()
        bench.changed.emit()

    def _why_stay(self, added: Image) -> str:
        """Return why a layer that was just added is not looked at now; "" if it is.

        A slide is opened to be looked at, and what is drawn on the other waits for it;
        any other picture may be anything.
        """
        return "" if ref_of(added.metadata) is not None else super()._why_stay(added)

    def _next_layer(self) -> Image | None:
        """Return the slide nearest in the list to the one that is gone."""
        rows = self.worklist.rows
        here = self.worklist.row_of(self.bench.slide_layer)
        at = self._removed_at if here is None else rows.index(here)
        near = sorted(
            (abs(k - at), k, layer)
            for k, row in enumerate(rows)
            for layer in self._layers
            if layer is row.layer
        )
        return near[0][2] if near else super()._next_layer()

    def _leave_jobs(self, other: Image | None) -> None:
        """End what has no meaning once another slide is chosen; a run goes on."""
        bench = self.bench
        layer = bench.run_layer
        altered = other is layer and bench.slide_layer is layer
        if bench.session.running and layer in bench.viewer.layers and not altered:
            bench.pump.abandon(*(job for job in self.jobs if job is not ExploreJob.RUN))
        else:
            super()._leave_jobs(other)

    def _run_went_on(self, share: float) -> None:
        row = self.worklist.row_of(self.bench.run_layer)
        if row is not None:
            row.badge = partly(share)
            self._show_list()

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
        layer.metadata.update(metadata_of(other))
        layer.data = list(other.slide.levels)
        self.choose_layer(layer)

    # --- students -----------------------------------------------------------------

    def choose_student(self, index: int) -> None:
        """Load a student of the list."""
        self._current_student, self._student_asked = index, True
        self.student_followed.emit("")
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

    def _wished(self) -> list[int]:
        """Return the students that the slide is there to show, the first time only.

        A student that a person chose afterwards stays, and so does one that runs.
        """
        layer = self.bench.slide_layer
        if layer is None or layer in self._followed or self.bench.session.running:
            return []
        self._followed.add(layer)
        return places_of(students_of(layer.metadata), self._students)

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
        self._show_list()
        set_tip(panel.slide_info, slide_words(bench.session.slide))
        panel.show_students(titles_apart(self._students), self._current_student)
        if self._current_student >= 0:
            spec = self._students[self._current_student].spec
            set_tip(panel.student_info, student_words(spec))
        panel.show_questions(bench.session)
        ref = ref_of(bench.slide_layer.metadata) if bench.slide_layer else None
        panel.show_colours(
            offered=ref is not None and ref.has_profile,
            srgb=ref is not None and ref.stored is not None,
        )

    def _show_list(self) -> None:
        bench, worklist = self.bench, self.worklist
        worklist.follow([_open_slide(layer) for layer in self._layers])
        here = worklist.row_of(bench.slide_layer)
        if here is not None:
            here.badge = badge_on(bench.session)
        rows = worklist.rows
        self.panel.slide.show_rows(rows, -1 if here is None else rows.index(here))

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


def _open_slide(layer: Image) -> OpenSlide:
    ref = ref_of(layer.metadata)
    path = None if ref is None or ref.slide.info.image else ref.path
    return OpenSlide(layer, layer.name, path)
