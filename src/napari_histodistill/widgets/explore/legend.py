"""The legend that works: colour, eye, area and confidence of every class."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QGridLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QSlider,
    QWidget,
)

from napari_histodistill.controllers.shared.live_map import ClassRow
from napari_histodistill.controllers.shared.wording import (
    area_in_words,
    class_in_words,
    class_label,
    count_in_words,
)
from napari_histodistill.widgets.shared.controls import (
    HatchSwatch,
    Hint,
    Histogram,
    PlainLabel,
    Swatch,
    heading,
    row,
    set_tip,
    stack,
)

SURE_TIP = "Leave out squares where the model is less sure than this."
EMPTY = "The classes appear here once a model with classes has run."


class ClassesPanel(QWidget):
    """Rows of classes and the slider "show only where sure"."""

    toggled = Signal()
    confidence_chosen = Signal(float)
    own_classes = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.eyes: list[QCheckBox] = []
        self.areas: list[QLabel] = []
        self.histograms: list[Histogram] = []
        self._names: tuple[tuple[str, str], ...] = ()
        self._rows = QWidget()
        self._grid = self._new_grid(self._rows)
        self.empty = Hint(EMPTY)
        self.sure = QSlider(Qt.Orientation.Horizontal)
        self.sure.setRange(0, 100)
        set_tip(self.sure, SURE_TIP)
        self.sure_words = PlainLabel("0 % sure")
        set_tip(self.sure_words, SURE_TIP)
        self.back = QPushButton("Back to the model's classes")
        set_tip(self.back, "Show what the model was trained on, not your strokes.")
        self.back.hide()
        self.hatched = Hint()
        self._hatched_row = QWidget()
        self._hatched_row.setLayout(row(HatchSwatch(), self.hatched, stretch=1))
        self._sure_row = QWidget()
        sure_row = row(
            PlainLabel("Show only where ≥"), self.sure, self.sure_words, stretch=1
        )
        self._sure_row.setLayout(sure_row)
        stack(
            self,
            heading("Classes"),
            self.empty,
            self._rows,
            self._hatched_row,
            self._sure_row,
            self.back,
        )
        self.sure.valueChanged.connect(self._sure_changed)
        self.back.clicked.connect(self.own_classes)
        self.show_rows(())
        self.show_hatched("")

    @property
    def hidden(self) -> frozenset[int]:
        """Indices of the classes whose eye is closed."""
        return frozenset(k for k, eye in enumerate(self.eyes) if not eye.isChecked())

    def toggle(self, index: int) -> None:
        """Open or close the eye of a class, if there is such a class."""
        if 0 <= index < len(self.eyes):
            self.eyes[index].toggle()

    def show_rows(self, rows: Sequence[ClassRow]) -> None:
        """Show areas and histograms; rows are rebuilt only if the classes changed."""
        names = tuple((r.name, r.color) for r in rows)
        if names != self._names:
            self._rebuild(names)
        for k, spec in enumerate(rows):
            self.areas[k].setText(_area_of(spec))
            set_tip(self.areas[k], _area_tip(spec))
            self.histograms[k].show_bars(spec.histogram)
        self.empty.setVisible(not rows)
        self._sure_row.setVisible(bool(rows))

    def show_hatched(self, words: str) -> None:
        """Say what the hatching means; "" where nothing is hatched."""
        self.hatched.setText(words)
        self._hatched_row.setVisible(bool(words))

    def _sure_changed(self, percent: int) -> None:
        self.sure_words.setText(f"{percent} % sure")
        self.confidence_chosen.emit(percent / 100)

    def _rebuild(self, names: tuple[tuple[str, str], ...]) -> None:
        self._names = names
        while (item := self._grid.takeAt(0)) is not None:
            widget = item.widget()
            widget.hide()
            widget.deleteLater()
        self.eyes, self.areas, self.histograms = [], [], []
        for k, (name, color) in enumerate(names):
            self._add_row(k, name, color)

    def _add_row(self, k: int, name: str, color: str) -> None:
        eye = QCheckBox(class_label(name))
        eye.setChecked(True)
        key = f" Key {k + 1}." if k < 9 else ""
        set_tip(eye, f"Show or hide {class_in_words(name)}.{key}")
        eye.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        eye.toggled.connect(self.toggled)
        area = PlainLabel("–")
        area.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        histogram = Histogram(color)
        set_tip(
            histogram,
            "How sure the model is where it names this class: left a guess, right "
            "certain.",
        )
        for column, widget in enumerate((Swatch(color), eye, area, histogram)):
            self._grid.addWidget(widget, k, column)
        self.eyes.append(eye)
        self.areas.append(area)
        self.histograms.append(histogram)

    @staticmethod
    def _new_grid(parent: QWidget) -> QGridLayout:
        grid = QGridLayout(parent)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(6)
        grid.setVerticalSpacing(1)
        grid.setColumnStretch(1, 1)
        return grid


def _area_of(spec: ClassRow) -> str:
    """Return a class's area; where unlike squares are left out, with them as well."""
    if spec.all_mm2 > spec.mm2:
        like = area_in_words(spec.mm2).removesuffix(" mm²")
        return f"{like} / {area_in_words(spec.all_mm2)}"
    return area_in_words(spec.mm2) if spec.cells else "–"


def _area_tip(spec: ClassRow) -> str:
    text = f"{count_in_words(spec.cells)} of the map."
    if spec.all_mm2 > spec.mm2:
        return f"{text} The second figure is the area with unlike squares."
    if spec.judged:
        return f"{text} {spec.unlike:,} of {spec.judged:,} compared are unlike."
    return text
