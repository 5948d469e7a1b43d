"""The legend that works: filter, and colour, eye, area, confidence of every class."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtGui import QFocusEvent, QMouseEvent
from qtpy.QtWidgets import (
    QCheckBox,
    QGridLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QSizePolicy,
    QSlider,
    QStackedWidget,
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
    SwatchButton,
    explain,
    leave_wheel,
    push,
    room_for,
    row,
    set_tip,
    stack,
)

SURE_TIP = (
    "Hide squares where the model is less sure than this, on the slide, in the areas "
    "and in exports."
)
ALL_TIP = "Show every square: no filter, all classes, unlike squares too."
NONE_HIDDEN = "No square is hidden."
EMPTY = "The classes appear here once a model with classes has run."


class ClassName(QLineEdit):
    """A name that a double click makes editable; Return or a click elsewhere ends."""

    renamed = Signal(str)

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.setFrame(False)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.editingFinished.connect(self._finish)
        self._rest()

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Begin to edit."""
        if self.isReadOnly():
            self.setReadOnly(False)
            self.setCursor(Qt.CursorShape.IBeamCursor)
            self.selectAll()
        else:
            super().mouseDoubleClickEvent(event)

    def focusOutEvent(self, event: QFocusEvent) -> None:
        """Leave nothing selected."""
        super().focusOutEvent(event)
        self.deselect()

    def _finish(self) -> None:
        if not self.isReadOnly():
            self._rest()
            self.renamed.emit(self.text())

    def _rest(self) -> None:
        self.setReadOnly(True)
        self.setCursor(Qt.CursorShape.ArrowCursor)


class ClassesPanel(QWidget):
    """Rows of classes, and the filter "at least so sure" with what it hides."""

    toggled = Signal()
    confidence_chosen = Signal(float)
    all_wanted = Signal()
    own_classes = Signal()
    color_wanted = Signal(int)
    """Index of the class whose swatch was pressed."""
    renamed = Signal(str, str)
    """A taught class's name, and the one it is to have."""

    def __init__(self) -> None:
        super().__init__()
        self.eyes: list[QCheckBox] = []
        self.swatches: list[SwatchButton] = []
        self.names: list[ClassName] = []
        self.areas: list[QLabel] = []
        self.histograms: list[Histogram] = []
        self._classes: tuple[tuple[str, str], ...] = ()
        self._taught = False
        self._rows = QWidget()
        self._grid = self._new_grid(self._rows)
        self.empty = Hint(EMPTY)
        self.sure = QSlider(Qt.Orientation.Horizontal)
        self.sure.setRange(0, 100)
        leave_wheel(self.sure)
        self.sure_words = PlainLabel("0 % sure")
        room_for(self.sure_words, "100 % sure")
        set_tip(self.sure_words, SURE_TIP)
        self.hidden_words = PlainLabel("")
        self.all = push("Show all")
        self.back = QPushButton("Back to the model's classes")
        set_tip(self.back, "Show what the model was trained on, not your strokes.")
        self.hatched = PlainLabel("")
        self.hatched.setSizePolicy(
            QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred
        )
        self._hatch_swatch = HatchSwatch()
        hatched_row = QWidget()
        hatched_row.setLayout(row(self._hatch_swatch, self.hatched, stretch=1))
        # Taught classes are of this slide: nothing of it is unlike them, nor hatched.
        self._foot = QStackedWidget()
        self._foot.addWidget(hatched_row)
        self._foot.addWidget(self.back)
        self._foot.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        stack(
            self,
            row(PlainLabel("At least"), self.sure, self.sure_words, stretch=1),
            row(self.hidden_words, self.all),
            self.empty,
            self._rows,
            self._foot,
        )
        self.sure.valueChanged.connect(self._sure_changed)
        self.all.clicked.connect(self.all_wanted)
        self.back.clicked.connect(self.own_classes)
        self.explain_filter("")
        self.show_hidden("", count=0)
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

    def open_eyes(self) -> None:
        """Show all classes, and send one signal at most."""
        closed = self.hidden
        for k in closed:
            with QSignalBlocker(self.eyes[k]):
                self.eyes[k].setChecked(True)
        if closed:
            self.toggled.emit()

    def show_rows(self, rows: Sequence[ClassRow], *, taught: bool = False) -> None:
        """Show areas and histograms; rows are rebuilt only if the classes changed."""
        classes = tuple((r.name, r.color) for r in rows)
        if (classes, taught) != (self._classes, self._taught):
            self._rebuild(classes, taught)
        for k, spec in enumerate(rows):
            self.areas[k].setText(_area_of(spec))
            set_tip(self.areas[k], _area_tip(spec))
            self.histograms[k].show_bars(spec.histogram)
        self.empty.setVisible(not rows)
        self._foot.setCurrentIndex(int(taught))

    def show_at_least(self, confidence: float) -> None:
        """Set the filter without sending a signal."""
        with QSignalBlocker(self.sure):
            self.sure.setValue(round(100 * confidence))
        self.sure_words.setText(f"{self.sure.value()} % sure")

    def explain_filter(self, why_not: str) -> None:
        """Enable the filter, or say why it changes nothing now."""
        explain(self.sure, SURE_TIP, why_not)

    def show_hidden(self, words: str, *, count: int) -> None:
        """Say how many squares are hidden, and offer to show them."""
        self.hidden_words.setText(words)
        explain(self.all, ALL_TIP, "" if count else NONE_HIDDEN)

    def show_hatched(self, words: str, *, tooltip: str = "") -> None:
        """Say what the hatching means; "" where nothing is hatched."""
        self.hatched.setText(words)
        set_tip(self.hatched, f"{words}. {tooltip}" if words else "")
        self._hatch_swatch.setVisible(bool(words))

    def _sure_changed(self, percent: int) -> None:
        self.sure_words.setText(f"{percent} % sure")
        self.confidence_chosen.emit(percent / 100)

    def _rebuild(self, classes: tuple[tuple[str, str], ...], taught: bool) -> None:
        same = [name for name, _ in classes] == [name for name, _ in self._classes]
        closed = self.hidden if same else frozenset()
        self._classes, self._taught = classes, taught
        while (item := self._grid.takeAt(0)) is not None:
            widget = item.widget()
            widget.hide()
            widget.deleteLater()
        self.eyes, self.swatches, self.names = [], [], []
        self.areas, self.histograms = [], []
        for k, (name, color) in enumerate(classes):
            self._add_row(k, name, color)
            self.eyes[k].setChecked(k not in closed)
            self.eyes[k].toggled.connect(self.toggled)

    def _add_row(self, k: int, name: str, color: str) -> None:
        swatch = SwatchButton(color)
        set_tip(swatch, f"Choose another colour for {class_in_words(name)}.")
        swatch.clicked.connect(lambda _=False, k=k: self.color_wanted.emit(k))
        area = PlainLabel("–")
        area.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        histogram = Histogram(color)
        set_tip(
            histogram,
            "How sure the model is where it names this class: left a guess, right "
            "certain.",
        )
        for column, widget in enumerate((swatch, self._eye(k, name), area, histogram)):
            self._grid.addWidget(widget, k, column)
        self.swatches.append(swatch)
        self.areas.append(area)
        self.histograms.append(histogram)

    def _eye(self, k: int, name: str) -> QWidget:
        """Return the eye with its name, which of a taught class can be edited."""
        eye = QCheckBox("" if self._taught else class_label(name))
        self.eyes.append(eye)
        key = f" Key {k + 1}." if k < 9 else ""
        set_tip(eye, f"Show or hide {class_in_words(name)}.{key}")
        if not self._taught:
            eye.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            return eye
        editor = ClassName(name)
        set_tip(editor, f"{name}. Double click to rename it.")
        editor.renamed.connect(lambda wish, name=name: self.renamed.emit(name, wish))
        self.names.append(editor)
        both = QWidget()
        both.setLayout(row(eye, editor, stretch=1))
        return both

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
