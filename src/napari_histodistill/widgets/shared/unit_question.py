"""A question that a file left open: positions are pixels, of which image, or µm."""

from __future__ import annotations

from enum import Enum

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QDoubleSpinBox, QPushButton, QVBoxLayout, QWidget

from napari_histodistill.widgets.shared.controls import hint, row


class Positions(Enum):
    """The meanings that positions in a file can have."""

    OF_THE_HE = "pixels of the H&E"
    OF_ANOTHER = "pixels of another image"
    MICROMETRES = "micrometres from the H&E's corner"


class UnitQuestion(QWidget):
    """Asks inside the panel; nothing is chosen beforehand.

    Attributes
    ----------
    answered : Signal(str, object)
        The unit ("px" or "µm"), and µm per pixel; None for the H&E's own.
    dropped : Signal
        Never mind.
    """

    answered = Signal(str, object)
    dropped = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.words = hint()
        self.choice = QComboBox()
        self.mpp = QDoubleSpinBox()
        self.mpp.setRange(0.01, 100)
        self.mpp.setDecimals(4)
        self.mpp.setValue(0.5)
        self.mpp.setSuffix(" µm/px")
        self.mpp.setToolTip("How many µm a pixel of that image spans.")
        self.add = QPushButton("Add")
        self.add.setToolTip("Lay the spots on the H&E.")
        self.leave = QPushButton("Never mind")
        self.leave.setToolTip("Do not use this file.")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(self.words)
        column.addLayout(row(self.choice, self.mpp))
        column.addLayout(row(self.add, self.leave))
        self.choice.currentIndexChanged.connect(lambda _index: self._chosen())
        self.add.clicked.connect(self._answer)
        self.leave.clicked.connect(self.dropped.emit)
        self.hide()

    def ask(self, words: str, *, he_um_per_px: float | None, pixels: bool) -> None:
        """Show the question; ``pixels`` if only of which image is unknown."""
        self.words.setText(words)
        self.choice.clear()
        self.choice.addItem("Choose…", None)
        if he_um_per_px is not None:
            self.choice.addItem(
                f"pixels of the H&E ({he_um_per_px:.3g} µm)", Positions.OF_THE_HE
            )
        self.choice.addItem("pixels of another image", Positions.OF_ANOTHER)
        if not pixels:
            self.choice.addItem("µm from the H&E's corner", Positions.MICROMETRES)
        self._chosen()
        self.show()

    def _chosen(self) -> None:
        chosen = self.choice.currentData()
        self.mpp.setVisible(chosen is Positions.OF_ANOTHER)
        self.add.setEnabled(chosen is not None)

    def _answer(self) -> None:
        chosen = self.choice.currentData()
        if chosen is Positions.MICROMETRES:
            self.answered.emit("µm", None)
        elif chosen is not None:
            foreign = chosen is Positions.OF_ANOTHER
            self.answered.emit("px", self.mpp.value() if foreign else None)
