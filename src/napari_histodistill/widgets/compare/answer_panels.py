"""The answers of *Compare students*: where they differ, what they find alike."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QPushButton,
    QSlider,
    QWidget,
)

from napari_histodistill.controllers.compare.work import LETTERS
from napari_histodistill.maps.alike.ranking import RankedRegion
from napari_histodistill.widgets.shared.controls import (
    Hint,
    PlainLabel,
    explain,
    heading,
    keep_room,
    put,
    row,
    stack,
)
from napari_histodistill.widgets.shared.thumbnails import Thumbnails

STEPS = 200

SIGNS = "●", "■"
"""Signs of the neighbours of A and of B on the canvas."""

HOW_PLACE = (
    "Click tissue: the places that A and B find most like it are shown here and, as ● "
    "and ■, on the canvas."
)


class DifferencePanel(QWidget):
    """The threshold of the map, and the places that differ most."""

    threshold_chosen = Signal(float)
    place_chosen = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.threshold = QSlider(Qt.Orientation.Horizontal)
        self.threshold.setRange(0, STEPS)
        self.threshold_words = PlainLabel("–")
        self.count = PlainLabel("")
        self.places = Thumbnails()
        keep_room(self.places)  # an answer moves nothing
        self.flicker = Hint()
        self._highest = 1.0
        self._key, self._why_no_flicker = "", ""
        line = row(
            PlainLabel("From"), self.threshold, self.threshold_words, self.count,
            stretch=1,
        )  # fmt: skip
        title = heading("Where they differ most")
        stack(self, title, line, self.places, self.flicker)
        self.threshold.valueChanged.connect(self._threshold_moved)
        self.places.chosen.connect(self.place_chosen)
        self.clear()

    def show_difference(self, highest: float, threshold: float, words: str) -> None:
        """Set the slider to the range of the map."""
        self._highest = max(highest, 1e-6)
        explain(self.threshold, "Show only places that differ at least so much.")
        at = min(STEPS, round(STEPS * threshold / self._highest))
        with QSignalBlocker(self.threshold):
            self.threshold.setValue(at)
        self.threshold_words.setText(f"{threshold:.2f}")
        self.count.setText(words)

    def show_places(self, ranked: Sequence[RankedRegion]) -> None:
        """List the ranked places; pictures come later."""
        self.places.show_places(
            (
                f"{place.score:.2f}",
                f"Place {place.rank}: difference {place.score:.2f}, "
                f"{place.area_mm2:.3f} mm². Click to go there; arrow keys walk.",
            )
            for place in ranked
        )
        self.places.setVisible(bool(ranked))

    def clear(self) -> None:
        """Show that nothing was compared yet."""
        self.show_places(())
        self.threshold_words.setText("–")
        self.count.setText("")
        explain(self.threshold, "", "Run first: nothing has been compared yet.")

    def show_flicker(self, why_not: str) -> None:
        """Say how A and B are shown in turn, or why not yet."""
        self._why_no_flicker = why_not
        self.flicker.setText(why_not or f"Hold {self._key} to see A and B in turn.")

    def show_flicker_key(self, key: str) -> None:
        """Name the key that shows A and B in turn."""
        self._key = key
        self.show_flicker(self._why_no_flicker)

    def _threshold_moved(self, value: int) -> None:
        threshold = self._highest * value / STEPS
        self.threshold_words.setText(f"{threshold:.2f}")
        self.threshold_chosen.emit(threshold)


class PlacePanel(QWidget):
    """Two rows of pictures: what A and what B find most like a place."""

    neighbour_chosen = Signal(int, int)
    follow_toggled = Signal(bool)
    cleared = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.words = Hint(HOW_PLACE)
        self.follow = QCheckBox("Follow the cursor")
        self.forget = QPushButton("Clear")
        self.rows = tuple(Thumbnails() for _ in LETTERS)
        self._labels = tuple(
            PlainLabel(f"{letter}\n{sign}")
            for letter, sign in zip(LETTERS, SIGNS, strict=True)
        )
        line = row(self.follow, QWidget(), self.forget, stretch=1)
        layout = stack(self, heading("What they find alike"), self.words, line)
        for which, pictures in enumerate(self.rows):
            put(layout, row(self._labels[which], pictures, stretch=1))
            pictures.chosen.connect(
                lambda index, which=which: self.neighbour_chosen.emit(which, index)
            )
        self.follow.toggled.connect(self.follow_toggled)
        self.forget.clicked.connect(self.cleared)
        self.clear("")

    def show_neighbours(
        self, nearest: Sequence[Sequence[RankedRegion]], words: str
    ) -> None:
        """List the nearest places of both; pictures come later."""
        for letter, label, pictures, places in zip(
            LETTERS, self._labels, self.rows, nearest, strict=True
        ):
            pictures.show_places(
                (
                    f"{place.score:.2f}",
                    f"{letter}'s neighbour {place.rank}: similarity {place.score:.2f}. "
                    "Click to go there; arrow keys walk.",
                )
                for place in places
            )
            pictures.show()
            label.show()
        self.words.setText(words)
        explain(self.forget, "Take the place and its neighbours off the canvas.")

    def clear(self, why_not: str) -> None:
        """Say how to ask about a place, or why a click finds nothing yet."""
        self.words.setText(why_not or HOW_PLACE)
        for label, pictures in zip(self._labels, self.rows, strict=True):
            pictures.hide()
            label.hide()
        explain(self.forget, "", "Click a place first: there is nothing to clear.")

    def explain(self, why_not: str) -> None:
        """Enable following, or say why not."""
        tip = "Ask again whenever the cursor rests on other tissue."
        explain(self.follow, tip, why_not)
