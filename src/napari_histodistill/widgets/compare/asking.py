"""A place, wired: click or cursor → what A and B find most like it → pictures."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QTimer

from napari_histodistill.controllers.compare.jobs import PICTURES, CompareJob
from napari_histodistill.controllers.compare.work import LETTERS, HalfIndex, PlaceFound
from napari_histodistill.controllers.shared.similar import Thumbnail, thumbnail_work
from napari_histodistill.errors import HistodistillError
from napari_histodistill.widgets.compare.answer_panels import PlacePanel
from napari_histodistill.widgets.compare.bench import CompareBench
from napari_histodistill.widgets.compare.running import show_place
from napari_histodistill.widgets.shared.slide_layers import world_to_pixels
from napari_histodistill.widgets.shared.thumbnails import THUMBNAIL_PX

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.utils.events import Event

REST_MS = 300
"""The cursor must rest for this long before both students are asked."""


class Asking(QObject):
    """Keeps the two rows of neighbours, the markers and the session in step."""

    def __init__(self, bench: CompareBench, panel: PlacePanel) -> None:
        super().__init__(bench)
        self.bench, self.panel = bench, panel
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(REST_MS)
        self._rest.timeout.connect(self._rested)
        self._following = False
        panel.neighbour_chosen.connect(self.go_to_neighbour)
        panel.follow_toggled.connect(self.follow)
        panel.cleared.connect(self.forget)

    def close(self) -> None:
        """Let the cursor go."""
        self.follow(False)

    def click(self, y: float, x: float) -> None:
        """Ask both students about a place, level-0 pixels (edge convention)."""
        try:
            work = self.bench.session.ask(y, x)
        except HistodistillError as error:
            self.bench.said.emit(str(error))
            return
        self.bench.said.emit("")
        self.bench.pump.start(
            work,
            key=CompareJob.PLACE,
            on_reports=self._answered,
            on_end=self.bench.report_end,
        )

    def follow(self, on: bool) -> None:
        """Ask again whenever the cursor rests on other tissue, or no longer."""
        if on == self._following:
            return
        self._following = on
        callbacks = self.bench.viewer.mouse_move_callbacks
        if on:
            callbacks.append(self._moved)
        else:
            callbacks.remove(self._moved)
            self._rest.stop()

    def forget(self) -> None:
        """Take the place and its neighbours away."""
        session = self.bench.session
        session.forget_place()
        self.bench.pump.abandon(CompareJob.PLACE, *PICTURES)
        if self.bench.overlays is not None:
            self.bench.overlays.remove_found(with_similarity=not session.has_class_maps)
        self.bench.changed.emit()

    def go_to_neighbour(self, which: int, index: int) -> None:
        """Move the canvas to what A (0) or B (1) finds similar."""
        found = self.bench.session.found
        if found is not None and 0 <= index < len(found.nearest[which]):
            place = found.nearest[which][index]
            show_place(self.bench, found.answers[which].grid, place)

    def show(self) -> None:
        """Draw the panel."""
        why_not = self.bench.session.why_not_ask
        self.panel.explain(why_not)
        if self.bench.session.found is None:
            self.panel.clear(why_not)

    def _answered(self, reports: list[HalfIndex | PlaceFound]) -> None:
        session = self.bench.session
        news = [report for report in reports if session.take_answer(report)]
        found = session.found
        if not news or found is None:
            return
        if self.bench.overlays is not None:
            names = None if session.has_class_maps else self.bench.names
            self.bench.overlays.show_found(found, names)
        self.panel.show_neighbours(found.nearest, session.say_found())
        slide = session.slide
        for which in range(len(LETTERS)):
            if slide is not None:
                self.bench.pump.start(
                    thumbnail_work(
                        slide,
                        found.answers[which].grid,
                        found.nearest[which],
                        px=THUMBNAIL_PX,
                    ),
                    key=PICTURES[which],
                    on_reports=partial(self._pictures, which),
                    on_end=self.bench.report_end,
                )

    def _pictures(self, which: int, reports: list[Thumbnail]) -> None:
        for report in reports:
            self.panel.rows[which].show_picture(report.rank, report.image)

    def _moved(self, _viewer: ViewerModel, event: Event) -> None:
        if event.type == "mouse_move" and not event.is_dragging:
            self._rest.start()

    def _rested(self) -> None:
        layer, session = self.bench.slide_layer, self.bench.session
        if layer is None:
            return
        here = world_to_pixels(layer, self.bench.viewer.cursor.position)
        # Glass and what is not computed: the last answer stays.
        if not session.why_not_ask and session.is_seen(*here):
            self.click(*here)
