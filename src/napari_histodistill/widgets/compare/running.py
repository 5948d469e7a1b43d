"""The comparison, wired: run → maps and difference → ranked places → jump, flicker."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QObject, QTimer, Signal

from napari_histodistill.controllers.compare.jobs import OF_THE_MAPS, CompareJob
from napari_histodistill.controllers.compare.work import (
    Compared,
    CompareProgress,
    HalfUpdate,
    how_far,
    rank_work,
)
from napari_histodistill.controllers.shared.job import Job, JobState
from napari_histodistill.controllers.shared.similar import (
    LISTED,
    Thumbnail,
    places_in_words,
    thumbnail_work,
)
from napari_histodistill.errors import HistodistillError
from napari_histodistill.maps.alike.ranking import RankedRegion, frame_around
from napari_histodistill.maps.difference import Measure
from napari_histodistill.slides import TileGrid
from napari_histodistill.widgets.compare.answer_panels import DifferencePanel
from napari_histodistill.widgets.compare.bench import CompareBench
from napari_histodistill.widgets.compare.choose_panel import ChoosePanel
from napari_histodistill.widgets.explore.similar import SETTLE_MS, SHARE_OF_CANVAS
from napari_histodistill.widgets.shared.slide_layers import go_to
from napari_histodistill.widgets.shared.thumbnails import THUMBNAIL_PX

RunReport = HalfUpdate | CompareProgress | Compared

FLICKER_MS = 500
"""How long A, then B is shown: long enough to see, short enough to compare."""

HOW = (
    "Two models look at one slide: where do they differ, and what has one learned "
    "that the other has not?"
)


class Comparing(QObject):
    """Keeps run, difference layer, ranked places and flicker in step."""

    place_reached = Signal(float, float)
    """Level-0 pixels of a ranked place that the canvas was moved to."""

    def __init__(
        self, bench: CompareBench, choose: ChoosePanel, panel: DifferencePanel
    ) -> None:
        super().__init__(bench)
        self.bench, self.choose, self.panel = bench, choose, panel
        self._threshold = 0.0
        self._turn = 0
        self._settle = self._timer(SETTLE_MS, self._rank, once=True)
        self._flicker = self._timer(FLICKER_MS, self._next_turn)
        choose.runner.run.connect(self.run)
        choose.runner.cancel.connect(self.cancel)
        choose.measure_chosen.connect(self.choose_measure)
        panel.threshold_chosen.connect(self.set_threshold)
        panel.place_chosen.connect(self.go_to_place)

    def close(self) -> None:
        """Stop flickering and waiting."""
        self._settle.stop()
        self.flicker(False)

    # --- running ------------------------------------------------------------------

    def run(self) -> None:
        """Compute what is missing of both maps, and compare them."""
        session = self.bench.session
        self.bench.look()
        try:
            work = session.run_work()
        except HistodistillError as error:
            self.bench.said.emit(str(error))
            return
        # Answers from the maps as they were would be taken for those of this run.
        self.bench.pump.abandon(*OF_THE_MAPS)
        if self.bench.overlays is not None:
            self.bench.overlays.remove_map()
        self._draw_halves()
        self.panel.clear()
        self.choose.runner.show_running()
        self.bench.pump.start(
            work,
            key=CompareJob.RUN,
            on_reports=self._progressed,
            on_end=self._ended,
            slow=True,
        )
        self.bench.changed.emit()

    def cancel(self) -> None:
        """Ask the run to stop; what is done stays."""
        self.bench.pump.cancel(CompareJob.RUN)
        self.choose.runner.show_stopping()

    def choose_measure(self, measure: Measure) -> None:
        """Compare by something else; the maps stay."""
        session = self.bench.session
        session.choose_measure(measure)
        work = session.measure_work()
        if work is not None:
            self.bench.pump.start(
                work,
                key=CompareJob.MEASURE,
                on_reports=self._progressed,
                on_end=self.bench.report_end,
            )
        self.bench.changed.emit()

    def show(self) -> None:
        """Draw the button, the sentence and what may be chosen."""
        session, choose = self.bench.session, self.choose
        choose.show_measures(session.measure, session.why_not_measure)
        choose.lock(session.why_locked)
        choose.sentence.setText(session.say_compared() or HOW)
        if not session.running:
            choose.runner.show_ready("Run", session.why_not_run)
        if session.compared is None:
            self.panel.clear()
        self.panel.show_flicker(session.why_not_flicker)

    def _progressed(self, reports: list[RunReport]) -> None:
        self.bench.look()
        patched = False
        for report in reports:
            self.bench.session.take(report)
            patched |= isinstance(report, HalfUpdate) and bool(report.update.patch)
        last = reports[-1]
        if isinstance(last, Compared):
            self._show_compared(last)
        elif self.bench.pump.is_active(CompareJob.RUN):
            self.choose.runner.show_progress(*how_far(last))
        if patched and self.bench.overlays is not None:
            self.bench.overlays.refresh_halves()

    def _ended(self, job: Job[object]) -> None:
        self.bench.session.run_ended()
        stopped = job.state is JobState.CANCELLED
        self.choose.runner.say("Stopped. What is done is kept; Run goes on." * stopped)
        self.bench.report_end(job)

    # --- the answer ---------------------------------------------------------------

    def set_threshold(self, threshold: float) -> None:
        """Show the map from here on at once; rank when the slider rests."""
        self._threshold = threshold
        compared, overlays = self.bench.session.compared, self.bench.overlays
        if compared is not None and overlays is not None:
            overlays.set_difference_threshold(compared, threshold)
            self._settle.start()

    def go_to_place(self, index: int) -> None:
        """Move the canvas to a ranked place, and ask both students about it."""
        compared = self.bench.session.compared
        if compared is not None and 0 <= index < len(compared.ranked):
            place = compared.ranked[index]
            show_place(self.bench, compared.difference.grid, place)
            self.place_reached.emit(place.y, place.x)

    def flicker(self, looking: bool) -> None:
        """Show A and B in turn while the key is held."""
        overlays = self.bench.overlays
        text = self.bench.viewer.canvas.overlays.text
        if looking and overlays is not None and not self.bench.session.why_not_flicker:
            self._turn = 0
            overlays.show_alone(0)
            text.font_size, text.visible = 18, True
            text.text = self.bench.names[0]
            self._flicker.start()
        elif not looking and self._flicker.isActive():
            self._flicker.stop()
            text.visible = False
            if overlays is not None:
                overlays.show_alone(None)

    def _next_turn(self) -> None:
        self._turn = 1 - self._turn
        if self.bench.overlays is not None:
            self.bench.overlays.show_alone(self._turn)
        self.bench.viewer.canvas.overlays.text.text = self.bench.names[self._turn]

    def _draw_halves(self) -> None:
        overlays, names = self.bench.overlays, self.bench.names
        for which, live in enumerate(self.bench.session.lives):
            if live is not None and overlays is not None:
                overlays.show_half(which, live, names[which])

    def _show_compared(self, compared: Compared) -> None:
        if self.bench.overlays is not None:
            self.bench.overlays.show_difference(compared)
        self._list_places(compared)

    def _list_places(self, compared: Compared) -> None:
        highest = float(compared.difference.highest)
        words = places_in_words(compared.ranked)
        self.panel.show_difference(highest, compared.threshold, words)
        self.panel.show_places(compared.ranked[:LISTED])
        slide = self.bench.session.slide
        if slide is not None:
            grid = compared.difference.grid
            self.bench.pump.start(
                thumbnail_work(slide, grid, compared.ranked, px=THUMBNAIL_PX),
                key=CompareJob.THUMBNAILS,
                on_reports=self._pictures,
                on_end=self.bench.report_end,
            )

    def _pictures(self, reports: list[Thumbnail]) -> None:
        for report in reports:
            self.panel.places.show_picture(report.rank, report.image)

    def _rank(self) -> None:
        compared = self.bench.session.compared
        if compared is not None:
            self.bench.pump.start(
                rank_work(compared.difference, self._threshold),
                key=CompareJob.RANKING,
                on_reports=self._ranked,
                on_end=self.bench.report_end,
            )

    def _ranked(self, reports: list[Compared]) -> None:
        self.bench.session.take(reports[-1])
        self._list_places(reports[-1])

    def _timer(
        self, period_ms: int, act: Callable[[], None], *, once: bool = False
    ) -> QTimer:
        timer = QTimer(self)
        timer.setInterval(period_ms)
        timer.setSingleShot(once)
        timer.timeout.connect(act)
        return timer


def show_place(bench: CompareBench, grid: TileGrid, place: RankedRegion) -> None:
    """Move the canvas to a place."""
    if bench.slide_layer is not None:
        go_to(
            bench.viewer, bench.slide_layer, frame_around(grid, place), SHARE_OF_CANVAS
        )
