"""Find similar: the markers, the threshold, the ranked thumbnails."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QListView,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from napari_histodistill.controllers.similar import LISTED, Prompts
from napari_histodistill.maps.ranking import RankedRegion
from napari_histodistill.widgets.parts import explain, heading, hint, row

THUMBNAIL_PX = 64
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
        self.places = _thumbnail_list()
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
        self.places.currentRowChanged.connect(self._place_changed)
        self.places.itemClicked.connect(
            lambda item: self.place_chosen.emit(self.places.row(item))
        )
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
        self.places.blockSignals(True)
        self.places.clear()
        blank = QPixmap(THUMBNAIL_PX, THUMBNAIL_PX)
        blank.fill(Qt.GlobalColor.transparent)
        for place in ranked[:LISTED]:
            item = QListWidgetItem(QIcon(blank), f"{place.score:.2f}")
            you = " (where you clicked)" if place.is_query else ""
            item.setToolTip(
                f"Place {place.rank}{you}: similarity {place.score:.2f}, "
                f"{place.area_mm2:.3f} mm². Click to go there; arrow keys walk."
            )
            self.places.addItem(item)
        self.places.setCurrentRow(-1)
        self.places.blockSignals(False)
        self.places.setVisible(bool(ranked))

    def show_thumbnail(self, rank: int, image: npt.NDArray[np.uint8]) -> None:
        """Fill in a picture, ``(px, px, 3)`` uint8."""
        item = self.places.item(rank - 1)
        if item is not None:
            item.setIcon(_icon(image))

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

    def _place_changed(self, index: int) -> None:
        if index >= 0:
            self.place_chosen.emit(index)


def _thumbnail_list() -> QListWidget:
    places = QListWidget()
    places.setViewMode(QListView.ViewMode.IconMode)
    places.setFlow(QListView.Flow.LeftToRight)
    places.setWrapping(False)
    places.setMovement(QListView.Movement.Static)
    places.setIconSize(QSize(THUMBNAIL_PX, THUMBNAIL_PX))
    places.setUniformItemSizes(True)
    places.setSpacing(2)
    places.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    places.setFixedHeight(THUMBNAIL_PX + 40)
    return places


def _icon(image: npt.NDArray[np.uint8]) -> QIcon:
    """Return an icon that looks the same when selected: a tint would be a stain."""
    pixmap = _pixmap(image)
    icon = QIcon(pixmap)
    icon.addPixmap(pixmap, QIcon.Mode.Selected)
    return icon


def _pixmap(image: npt.NDArray[np.uint8]) -> QPixmap:
    image = np.ascontiguousarray(image)
    height, width, _ = image.shape
    pixels = QImage(image.data, width, height, 3 * width, QImage.Format.Format_RGB888)
    # The copy outlives the array that QImage only borrows.
    return QPixmap.fromImage(pixels.copy())
