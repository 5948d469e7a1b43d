"""Find similar: the panel (markers, threshold, ranked pictures) and its wiring."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QObject, QSignalBlocker, Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QPushButton,
    QSlider,
    QWidget,
)

from napari_histodistill.controllers.explore.jobs import OF_THE_SEARCH, ExploreJob
from napari_histodistill.controllers.shared.similar import (
    LISTED,
    IndexBuilt,
    Prompts,
    SimilarResult,
    Thumbnail,
    places_in_words,
    rank_work,
    threshold_range,
    thumbnail_work,
)
from napari_histodistill.errors import HistodistillError
from napari_histodistill.maps.alike.ranking import RankedRegion, frame_around
from napari_histodistill.widgets.explore.bench import ExploreBench
from napari_histodistill.widgets.shared.controls import (
    Hint,
    PlainLabel,
    explain,
    heading,
    keep_lines,
    row,
    set_tip,
    stack,
)
from napari_histodistill.widgets.shared.slide_layers import go_to
from napari_histodistill.widgets.shared.thumbnails import THUMBNAIL_PX, Thumbnails

STEPS = 200
"""Of the threshold slider."""

SHARE_OF_CANVAS = 0.3
"""How much of the canvas a ranked place fills after the jump."""

SETTLE_MS = 150
"""The list is ranked again once the threshold slider has rested this long."""

HOW = "Click tissue: like this. Shift-click: not like this."


class SimilarPanel(QWidget):
    """Shows a query and its answer; decides nothing."""

    prompt_removed = Signal(int)
    cleared = Signal()
    threshold_chosen = Signal(float)
    place_chosen = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.words = Hint(HOW)
        keep_lines(self.words, 2)
        self.markers: list[QPushButton] = []
        self._marker_row = row()
        self._marker_row.setSpacing(2)
        self._marker_box = QWidget()
        self._marker_box.setLayout(self._marker_row)
        self.threshold = QSlider(Qt.Orientation.Horizontal)
        self.threshold.setRange(0, STEPS)
        self.threshold_words = PlainLabel("–")
        self.count = PlainLabel("")
        self._range = (0.0, 1.0)
        self.places = Thumbnails()
        line = row(
            PlainLabel("Threshold"), self.threshold, self.threshold_words, self.count,
            stretch=1,
        )  # fmt: skip
        title = heading("Find similar")
        stack(self, title, self.words, self._marker_box, line, self.places)
        self.threshold.valueChanged.connect(self._threshold_moved)
        self.places.chosen.connect(self.place_chosen)
        self.show_prompts(Prompts())
        self.clear()

    def explain(self, why_not: str) -> None:
        """Say how to search, or why a click finds nothing yet."""
        self.words.setText(why_not or HOW)

    def show_prompts(self, prompts: Prompts) -> None:
        """List the markers, each with a way to take it back."""
        while (item := self._marker_row.takeAt(0)) is not None:
            if (widget := item.widget()) is not None:
                widget.hide()
                widget.deleteLater()
        self.markers = []
        for k, prompt in enumerate(prompts.items):
            button = QPushButton(f"{'+' if prompt.like else '−'}{k + 1} ✕")
            set_tip(
                button,
                f"{'Like' if prompt.like else 'Not like'} the place at y "
                f"{prompt.y:,.0f}, x {prompt.x:,.0f} px. Press to take it back.",
            )
            button.setFixedWidth(46)
            button.clicked.connect(lambda _=False, k=k: self.prompt_removed.emit(k))
            self.markers.append(button)
            if k < 5:
                self._marker_row.addWidget(button)
        self._marker_row.addStretch(1)
        clear = QPushButton("Clear")
        set_tip(clear, "End the search and take all markers away.")
        clear.clicked.connect(self.cleared)
        self._marker_row.addWidget(clear)
        self._marker_box.setVisible(bool(prompts.items))

    def show_answer(
        self, limits: tuple[float, float], threshold: float, words: str
    ) -> None:
        """Set the threshold slider to the range of the map."""
        self._range = limits
        explain(self.threshold, "Show only what is at least this similar (1 = equal).")
        low, high = limits
        at = round(STEPS * (threshold - low) / max(high - low, 1e-6))
        with QSignalBlocker(self.threshold):
            self.threshold.setValue(at)
        self.threshold_words.setText(f"{threshold:.2f}")
        self.count.setText(words)

    def show_places(self, ranked: Sequence[RankedRegion]) -> None:
        """List the ranked places; thumbnails come later."""
        self.places.show_places(_words(place) for place in ranked[:LISTED])
        self.places.setVisible(bool(ranked))

    def show_thumbnail(self, rank: int, image: npt.NDArray[np.uint8]) -> None:
        """Fill in a picture, ``(px, px, 3)`` uint8."""
        self.places.show_picture(rank, image)

    def clear(self) -> None:
        """Show that there is no search."""
        self.show_places(())
        self.threshold_words.setText("–")
        self.count.setText("")
        explain(self.threshold, "", "Click on tissue first: there is nothing to show.")

    def _threshold_moved(self, value: int) -> None:
        low, high = self._range
        threshold = low + (high - low) * value / STEPS
        self.threshold_words.setText(f"{threshold:.2f}")
        self.threshold_chosen.emit(threshold)


def _words(place: RankedRegion) -> tuple[str, str]:
    you = " (where you clicked)" if place.is_query else ""
    return f"{place.score:.2f}", (
        f"Place {place.rank}{you}: similarity {place.score:.2f}, "
        f"{place.area_mm2:.3f} mm². Click to go there; arrow keys walk."
    )


class Searching(QObject):
    """Keeps the similar panel, the heatmap and the session in step."""

    def __init__(self, bench: ExploreBench, panel: SimilarPanel) -> None:
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
            self.bench.pump.abandon(*OF_THE_SEARCH)
            if self.bench.overlays is not None:
                self.bench.overlays.remove_search()
        else:
            self.bench.pump.start(
                work,
                key=ExploreJob.SEARCH,
                on_reports=self._answered,
                on_end=self.bench.report_end,
            )
        self.bench.changed.emit()

    def set_threshold(self, threshold: float) -> None:
        """Show the heatmap from here on at once; rank when the slider rests."""
        self._threshold = threshold
        result = self.bench.session.similar
        if result is not None and self.bench.overlays is not None:
            self.bench.overlays.set_threshold(result.at(threshold))
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

    def show_resumed(self) -> None:
        """Show the answer that is remembered of the slide that was just chosen."""
        result = self.bench.session.similar
        if result is not None:
            self._show_answer(result)

    def _answered(self, reports: list[IndexBuilt | SimilarResult]) -> None:
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
                key=ExploreJob.RANKING,
                on_reports=self._answered,
                on_end=self.bench.report_end,
            )

    def _show_answer(self, result: SimilarResult) -> None:
        self.panel.show_answer(
            threshold_range(result.similarity),
            result.threshold,
            places_in_words(result.ranked),
        )
        self.panel.show_places(result.ranked)
        slide = self.bench.session.slide
        if slide is not None:
            self.bench.pump.start(
                thumbnail_work(
                    slide, result.similarity.grid, result.ranked, px=THUMBNAIL_PX
                ),
                key=ExploreJob.THUMBNAILS,
                on_reports=self._thumbnails,
                on_end=self.bench.report_end,
            )

    def _thumbnails(self, reports: list[Thumbnail]) -> None:
        for report in reports:
            self.panel.show_thumbnail(report.rank, report.image)
