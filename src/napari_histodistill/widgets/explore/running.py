"""Mapping, wired: plan → run or stored map → layer and legend, as they fill."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_histodistill.controllers.explore.jobs import OF_THE_SEARCH, ExploreJob
from napari_histodistill.controllers.explore.session import RunAction
from napari_histodistill.controllers.shared.job import Job, JobState, Work
from napari_histodistill.controllers.shared.live_map import Patch
from napari_histodistill.controllers.shared.map_choice import RegionChoice
from napari_histodistill.controllers.shared.map_work import RunUpdate
from napari_histodistill.errors import HistodistillError
from napari_histodistill.students.spec import EmbeddingMode
from napari_histodistill.widgets.explore.bench import ExploreBench
from napari_histodistill.widgets.explore.drawing import Drawing
from napari_histodistill.widgets.explore.legend import ClassesPanel
from napari_histodistill.widgets.explore.slide_panel import SlidePanel
from napari_histodistill.widgets.shared.controls import confirmed
from napari_histodistill.widgets.shared.overlays import OverlayKind
from napari_histodistill.widgets.shared.run_panel import RunPanel
from napari_histodistill.widgets.shared.slide_layers import drawn_polygons

RUN_TITLES = {
    RunAction.RUN: "Run",
    RunAction.CONTINUE: "Continue",
    RunAction.DONE: "Run",
}
"""What the button says."""

NOTHING_TO_RUN = (
    "All squares there are computed. Choose or draw another region, choose a finer "
    "detail, or start over (the menu beside)."
)
NO_MAP = "There is no map yet that could be thrown away."


class Mapping(QObject):
    """Keeps plan, run, class layer and legend in step."""

    drawn = Signal()
    """The map on screen has other squares."""

    def __init__(
        self,
        bench: ExploreBench,
        slide_panel: SlidePanel,
        run_panel: RunPanel,
        classes_panel: ClassesPanel,
    ) -> None:
        super().__init__(bench)
        self.bench = bench
        self.slide_panel, self.run_panel = slide_panel, run_panel
        self.classes_panel = classes_panel
        self._has_cells = False
        self._run_slide = ""
        slide_panel.region_chosen.connect(self.choose_region)
        slide_panel.mode_chosen.connect(self.choose_mode)
        slide_panel.step_chosen.connect(self.choose_step)
        slide_panel.edit_tissue.connect(self.edit_tissue)
        slide_panel.every_square_wanted.connect(self.choose_every_square)
        run_panel.run.connect(self.run)
        run_panel.cancel.connect(self.cancel)
        run_panel.start_over.connect(self.start_over)
        run_panel.reading_chosen.connect(bench.session.choose_reading)
        self.drawing = Drawing(bench)
        self.drawing.altered.connect(self._regions_altered)
        classes_panel.own_classes.connect(self.forget_taught)

    # --- choosing -----------------------------------------------------------------

    def close(self) -> None:
        """Let go of the layer that is drawn on."""
        self.drawing.close()

    def choose_region(self, region: RegionChoice) -> None:
        """Cover the whole slide, the view, or what is drawn: then drawing begins."""
        self.bench.session.choose_region(region)
        if region is RegionChoice.SHAPE:
            self.drawing.start()
        else:
            self.drawing.put_down()
        self._look()
        self.bench.changed.emit()

    def choose_mode(self, mode: EmbeddingMode) -> None:
        """Lay embeddings by tiles or by tokens."""
        self._drop()
        self.bench.session.choose_mode(mode)
        self.bench.changed.emit()

    def choose_step(self, step: int) -> None:
        """Take a step of the Detail slider."""
        if step != self.bench.session.step:
            self._drop()
            self.bench.session.choose_step(step)
            self.bench.changed.emit()

    def choose_every_square(self, every: bool) -> None:
        """Cover every square, or only tissue; what is computed stays on screen."""
        self.bench.session.choose_every_square(every=every)
        self.bench.changed.emit()

    def edit_tissue(self) -> None:
        """Show the tissue mask as a layer to paint on."""
        tissue, overlays = self.bench.session.tissue, self.bench.overlays
        if tissue is None or overlays is None:
            self.bench.said.emit("The tissue is still being looked for.")
            return
        layer = overlays.show_tissue(tissue)
        self.bench.viewer.layers.selection.active = layer
        layer.selected_label, layer.brush_size, layer.mode = 1, 20, "paint"
        self.bench.said.emit("Paint tissue in, or erase it; Run then uses your mask.")

    # --- running ------------------------------------------------------------------

    def run(self) -> None:
        """Compute what is missing of the map; nothing that is there is lost."""
        self._run(restart=False)

    def start_over(self) -> None:
        """Throw the map away and compute it again, if the user says so."""
        question = self.bench.session.start_over_question
        if question and confirmed(self.run_panel, "Start over", question):
            self._run(restart=True)

    def _run(self, *, restart: bool) -> None:
        session = self.bench.session
        self.drawing.put_down()
        self._look()
        self._take_edited_tissue()
        if self.bench.overlays is not None:
            self.bench.overlays.step_aside()
        try:
            if restart:
                self._drop()
            work = session.run_work(restart=restart)
        except HistodistillError as error:
            self.bench.said.emit(str(error))
            return
        # What they would still bring is of the map as it was before.
        self.bench.pump.abandon(
            ExploreJob.STORED_MAP, ExploreJob.LEARNING, ExploreJob.JUDGING
        )
        self._has_cells, layer = False, self.bench.slide_layer
        self.bench.run_layer, self._run_slide = layer, layer.name if layer else ""
        # Started first: it reads and computes while the panel is drawn.
        self.bench.pump.start(
            work,
            key=ExploreJob.RUN,
            on_reports=self._progressed,
            on_end=self._ended,
            slow=True,
        )
        self._draw()
        self.run_panel.show_running()
        self.bench.changed.emit()

    def cancel(self) -> None:
        """Ask the run to stop; what is done stays."""
        self.bench.pump.cancel(ExploreJob.RUN)
        self.run_panel.show_stopping()

    def forget_taught(self) -> None:
        """Return to the student's own classes."""
        self._show_stored(self.bench.session.forget_taught())

    def show_taught(self) -> None:
        """Draw the classes that were just taught."""
        self._draw()
        self.bench.changed.emit()

    def show_resumed(self) -> None:
        """Draw the map that is remembered of the slide that was just chosen."""
        if self.bench.session.live is not None:
            self._draw()

    # --- drawing ------------------------------------------------------------------

    def show(self) -> None:
        """Draw plan, button and legend; show a stored map if there is one."""
        session, panel = self.bench.session, self.slide_panel
        self.drawing.follow()
        if session.region is RegionChoice.SHAPE:
            self._look()
        self._look_for_stored()
        panel.show_steps(len(session.steps), session.step, session.detail_in_words)
        panel.show_mode(session.mode)
        panel.show_every_square(every=session.every_square)
        panel.lock(session.why_locked)
        if not session.running:
            action = session.run_action
            self.run_panel.show_ready(RUN_TITLES[action], session.why_not_start)
            if action is RunAction.DONE and not session.why_not_start:
                self.run_panel.show_nothing_to_do(NOTHING_TO_RUN)
            asks = session.start_over_question
            self.run_panel.show_start_over("" if asks else NO_MAP)
        if session.student is not None:
            device = session.student.device
            self.run_panel.show_device(device.label, device.reason)
        self._show_legend()

    def _look_for_stored(self) -> None:
        session = self.bench.session
        if session.wants_stored():
            self._make_room()
            self._show_stored(session.stored_work())

    def _make_room(self) -> None:
        """Let napari make the layer now: it takes too long for the middle of a run."""
        session, overlays = self.bench.session, self.bench.overlays
        detail, student = session.detail, session.student
        if overlays is None or detail is None or student is None:
            return
        classes = session.showing.coloured(student.spec.classes)
        overlays.make_room(detail.grid, classes)
        if classes:
            # A layer a turn of the event loop: together they would be felt.
            QTimer.singleShot(0, self._make_room_for_heat)

    def _make_room_for_heat(self) -> None:
        session, overlays = self.bench.session, self.bench.overlays
        if overlays is not None and session.detail is not None:
            overlays.make_room_for_heat(session.detail.grid)

    def _show_stored(self, work: Work | None) -> None:
        if work is None:
            return
        since = self.bench.session.stored_since
        self._draw()
        self.bench.pump.start(
            work,
            key=ExploreJob.STORED_MAP,
            on_reports=self._patched,
            on_end=lambda job: self._stored_shown(job, since),
        )

    def _patched(self, patches: list[Patch]) -> None:
        self.bench.session.take_patches(patches)
        self._redraw()

    def _progressed(self, updates: list[RunUpdate]) -> None:
        session = self.bench.session
        self._look()
        elsewhere = "" if session.runs_here else self._run_slide
        for update in updates:
            session.take_update(update)
            if update.report.message:  # said once: it must not drown in the others
                self.run_panel.show_report(update.report, elsewhere)
        report = updates[-1].report
        self.run_panel.show_report(report, elsewhere)
        self.bench.ran.emit(report.done / max(1, report.total))
        if not elsewhere and any(update.patch is not None for update in updates):
            self._redraw()
            self._show_legend()
            if not self._has_cells:
                self._has_cells = True
                self.bench.changed.emit()  # from now on there is something to search

    def _ended(self, job: Job[object]) -> None:
        session = self.bench.session
        words = session.say_run_ended(job)
        elsewhere = "" if session.runs_here else f"{self._run_slide}: "
        session.run_ended()
        self.bench.changed.emit()
        self.run_panel.say(elsewhere + words)

    def _stored_shown(self, job: Job[object], since: str) -> None:
        self.bench.report_end(job)
        session = self.bench.session
        if job.state is JobState.DONE and session.live is not None:
            self.run_panel.say(session.say_stored(since))

    def _regions_altered(self) -> None:
        if self.bench.session.region is RegionChoice.SHAPE:
            self._look()
            self.bench.changed.emit()

    # --- inside -------------------------------------------------------------------

    def _draw(self) -> None:
        session, overlays = self.bench.session, self.bench.overlays
        if overlays is not None and session.live is not None:
            self._show_legend()
            overlays.show_classes(session.live, self.classes_panel.hidden)

    def _redraw(self) -> None:
        if self.bench.overlays is not None:
            self.bench.overlays.refresh_classes()

    def _show_legend(self) -> None:
        session = self.bench.session
        self.classes_panel.show_rows(
            session.class_rows(), taught=session.taught is not None
        )
        self.drawn.emit()

    def _drop(self) -> None:
        """Take the present map off the screen; it stays stored."""
        self.bench.pump.abandon(
            ExploreJob.STORED_MAP,
            *OF_THE_SEARCH,
            ExploreJob.LEARNING,
            ExploreJob.JUDGING,
        )
        if self.bench.overlays is not None:
            self.bench.overlays.remove_map()
        self.bench.session.put_map_away()

    def _look(self) -> None:
        session, layer = self.bench.session, self.bench.slide_layer
        self.bench.look()
        if session.region is RegionChoice.SHAPE and layer is not None:
            ours = self.drawing.layer
            session.take_shapes(drawn_polygons(self.bench.viewer, layer, ours))

    def _take_edited_tissue(self) -> None:
        overlays, session = self.bench.overlays, self.bench.session
        layer = overlays.get(OverlayKind.TISSUE) if overlays is not None else None
        if layer is not None and session.slide is not None:
            from napari_histodistill.slides.tissue.tissue import TissueMask

            mask = np.array(layer.data) > 0
            session.take_tissue(TissueMask.from_array(mask, session.slide.shape))
