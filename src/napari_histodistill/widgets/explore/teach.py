"""Teach: name classes, paint strokes, fit, save."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_histodistill.students.spec import ClassSpec
from napari_histodistill.widgets.shared.parts import Swatch, explain, heading, hint, row

TIPS = {
    "paint": "Paint strokes of the chosen class on the slide. Press again to stop.",
    "fit": "Learn the painted classes and colour the whole map by them.",
    "save": "Keep what was taught as a student of its own, for other slides.",
}


class TeachPanel(QWidget):
    """Shows the classes to paint and three buttons; decides nothing."""

    class_chosen = Signal(int)
    class_renamed = Signal(int, str)
    class_added = Signal()
    paint = Signal(bool)
    fit = Signal()
    save = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.names = QComboBox()
        self.names.setEditable(True)
        self.names.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.names.setToolTip("The class you paint. Type to rename it.")
        self.names.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.add = QToolButton()
        self.add.setText("+")
        self.add.setToolTip("Add another class.")
        self.paint_button = QPushButton("Paint strokes")
        self.paint_button.setCheckable(True)
        self.fit_button = QPushButton("Fit")
        self.save_button = QPushButton("Save as student…")
        self.words = hint()
        self.words.hide()
        self._swatch = Swatch("#000000")
        self._first = row(self._swatch, self.names, self.add, stretch=1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(heading("Teach"))
        layout.addLayout(self._first)
        layout.addLayout(
            row(self.paint_button, self.fit_button, self.save_button, stretch=0)
        )
        layout.addWidget(self.words)
        self.names.activated.connect(self.class_chosen)
        self.names.lineEdit().editingFinished.connect(self._renamed)
        self.add.clicked.connect(self.class_added)
        self.paint_button.toggled.connect(self.paint)
        self.fit_button.clicked.connect(self.fit)
        self.save_button.clicked.connect(self.save)

    def show_classes(self, classes: Sequence[ClassSpec], current: int) -> None:
        """List the classes that can be painted."""
        self.names.blockSignals(True)
        self.names.clear()
        self.names.addItems([c.name for c in classes])
        self.names.setCurrentIndex(current)
        self.names.blockSignals(False)
        swatch = Swatch(classes[current].color)
        swatch.setToolTip("The colour of its strokes.")
        self._first.replaceWidget(self._swatch, swatch)
        self._swatch.hide()
        self._swatch.deleteLater()
        self._swatch = swatch

    def explain(self, *, paint: str, fit: str, save: str) -> None:
        """Enable the buttons, or say in their tooltips why not."""
        explain(self.paint_button, TIPS["paint"], paint)
        explain(self.fit_button, TIPS["fit"], fit)
        explain(self.save_button, TIPS["save"], save)

    def say(self, sentence: str) -> None:
        """Show a sentence."""
        self.words.setText(sentence)
        self.words.setVisible(bool(sentence))

    def show_painting(self, painting: bool) -> None:
        """Press or release the paint button without telling anybody."""
        self.paint_button.blockSignals(True)
        self.paint_button.setChecked(painting)
        self.paint_button.blockSignals(False)

    def _renamed(self) -> None:
        self.class_renamed.emit(self.names.currentIndex(), self.names.currentText())
