"""Find similar, wired: click → query → heatmap, ranked places, thumbnails → jump."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QObject, QTimer

from napari_histodistill.controllers.shared.similar import (
    SimilarResult,
    Thumbnail,
    count_in_words,
    frame_around,
    rank_work,
    threshold_range,
    thumbnail_work,
)
from napari_histodistill.errors import HistodistillError
from napari_histodistill.widgets.explore.similar import SimilarPanel
from napari_histodistill.widgets.shared.bench import Workbench
from napari_histodistill.widgets.shared.slide_layers import go_to
from napari_histodistill.widgets.shared.thumbnails import THUMBNAIL_PX

SHARE_OF_CANVAS = 0.3
"""How much of the canvas a ranked place fills after the jump."""

SETTLE_MS = 150
"""The list is ranked anew once the threshold slider has rested this long."""


class Searching(QObject):
    """Keeps the similar panel, the heatmap and the session in step."""

    def __init__(self, bench: Workbench, panel: SimilarPanel) -> None:
        super().__init__(bench)
        self.bench, self.panel = bench, panel
        self._threshold = 0.0
        self._settle = QTimer(self)
        self._settle.setSingleShot(True)
        self._settle.setInterval(SETTLE_MS)
        self._settle.timeout.connect(self._rank)
        panel.prompt_removed.connect(self.remove_prompt)
        panel.cleared.connect(self.clear)
        panel.threshold_chosen.connect(self.set_threshold)
        panel.place_chosen.connect(self.go_to_place)

    def click(self, y: float, x: float, *, like: bool) -> None:
        """Take a click on the slide, level-0 pixels (edge convention)."""
        try:
            self.bench.session.add_prompt(y, x, like=like)
        except HistodistillError as error:
            self.bench.said.emit(str(error))
            return
        self.bench.said.emit("")
        self.ask()

    def remove_prompt(self, index: int) -> None:
        """Take a marker back."""
        self.bench.session.remove_prompt(index)
        self.ask()

    def clear(self) -> None:
        """End the search."""
        self.bench.session.clear_prompts()
        self.ask()

    def ask(self) -> None:
        """Answer the present prompts."""
        session = self.bench.session
        if self.bench.overlays is not None:
            self.bench.overlays.show_markers(session.prompts)
        work = session.query_work()
        if work is None:
            self.bench.pump.abandon("Search", "Ranking", "Thumbnails")
            if self.bench.overlays is not None:
                self.bench.overlays.remove_search()
        else:
            self.bench.pump.start(
                work,
                name="Search",
                on_reports=self._answered,
                on_end=self.bench.report_end,
            )
        self.show()

    def set_threshold(self, threshold: float) -> None:
        """Show the heatmap from here on at once; rank when the slider rests."""
        self._threshold = threshold
        result = self.bench.session.similar
        if result is not None and self.bench.overlays is not None:
            self.bench.overlays.set_threshold(_at(result, threshold))
            self._settle.start()

    def go_to_place(self, index: int) -> None:
        """Move the canvas to a ranked place."""
        result, layer = self.bench.session.similar, self.bench.slide_layer
        if result is None or layer is None or not 0 <= index < len(result.ranked):
            return
        frame = frame_around(result.similarity.grid, result.ranked[index])
        go_to(self.bench.viewer, layer, frame, SHARE_OF_CANVAS)

    def show(self) -> None:
        """Draw the panel."""
        session, panel = self.bench.session, self.panel
        panel.show_prompts(session.prompts)
        panel.explain(session.why_not_similar)
        if session.similar is None:
            panel.clear()

    def _answered(self, reports: list[Any]) -> None:
        news = [r for r in reports if self.bench.session.take_answer(r)]
        result = self.bench.session.similar
        if not news or result is None:
            return
        if self.bench.overlays is not None:
            self.bench.overlays.show_similar(result)
        self._show_answer(result)

    def _rank(self) -> None:
        result = self.bench.session.similar
        if result is not None:
            self.bench.pump.start(
                rank_work(result, self._threshold),
                name="Ranking",
                on_reports=self._answered,
                on_end=self.bench.report_end,
            )

    def _show_answer(self, result: SimilarResult) -> None:
        self.panel.show_answer(
            threshold_range(result.similarity),
            result.threshold,
            count_in_words(result.ranked),
        )
        self.panel.show_places(result.ranked)
        slide = self.bench.session.slide
        if slide is not None:
            self.bench.pump.start(
                thumbnail_work(
                    slide, result.similarity.grid, result.ranked, px=THUMBNAIL_PX
                ),
                name="Thumbnails",
                on_reports=self._thumbnails,
                on_end=self.bench.report_end,
            )

    def _thumbnails(self, reports: list[Thumbnail]) -> None:
        for report in reports:
            self.panel.show_thumbnail(report.rank, report.image)


def _at(result: SimilarResult, threshold: float) -> SimilarResult:
    return SimilarResult(result.prompts, result.similarity, threshold, result.ranked)
