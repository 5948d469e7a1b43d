"""Find similar: the markers, the threshold, the ranked thumbnails."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from napari_histodistill.controllers.shared.similar import LISTED, Prompts
from napari_histodistill.maps.ranking import RankedRegion
from napari_histodistill.widgets.shared.parts import explain, heading, hint, row
from napari_histodistill.widgets.shared.thumbnails import Thumbnails

STEPS = 200

HOW = "Click tissue: like this. Shift-click: not like this."


class SimilarPanel(QWidget):
    """Shows a query and its answer; decides nothing."""

    prompt_removed = Signal(int)
    cleared = Signal()
    threshold_chosen = Signal(float)
    place_chosen = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.words = hint(HOW)
        self.markers: list[QPushButton] = []
        self._marker_row = QHBoxLayout()
        self._marker_row.setContentsMargins(0, 0, 0, 0)
        self._marker_row.setSpacing(2)
        self._marker_box = QWidget()
        self._marker_box.setLayout(self._marker_row)
        self.threshold = QSlider(Qt.Orientation.Horizontal)
        self.threshold.setRange(0, STEPS)
        self.threshold_words = QLabel("–")
        self.count = QLabel("")
        self._range = (0.0, 1.0)
        self.places = Thumbnails()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(heading("Find similar"))
        layout.addWidget(self.words)
        layout.addWidget(self._marker_box)
        line = row(
            QLabel("Threshold"), self.threshold, self.threshold_words, self.count,
            stretch=1,
        )  # fmt: skip
        layout.addLayout(line)
        layout.addWidget(self.places)
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
            button.setToolTip(
                f"{'Like' if prompt.like else 'Not like'} the place at y "
                f"{prompt.y:,.0f}, x {prompt.x:,.0f} px. Press to take it back."
            )
            button.setFixedWidth(46)
            button.clicked.connect(lambda _=False, k=k: self.prompt_removed.emit(k))
            self.markers.append(button)
            if k < 5:
                self._marker_row.addWidget(button)
        self._marker_row.addStretch(1)
        clear = QPushButton("Clear")
        clear.setToolTip("End the search and take all markers away.")
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
        self.threshold.blockSignals(True)
        self.threshold.setValue(
            round(STEPS * (threshold - low) / max(high - low, 1e-6))
        )
        self.threshold.blockSignals(False)
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
