"""A question that a file left open: positions are pixels, of which image, or µm."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QDoubleSpinBox, QPushButton, QVBoxLayout, QWidget

from napari_histodistill.controllers.distil.spots import Positions
from napari_histodistill.widgets.shared.controls import hint, row, set_tip


class UnitQuestion(QWidget):
    """Asks inside the panel; nothing is chosen beforehand.

    Attributes
    ----------
    answered : Signal(object, float)
        A :class:`Positions`, and µm per pixel of the other image.
    dropped : Signal
        The file is not to be used.
    """

    answered = Signal(object, float)
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
        set_tip(self.mpp, "How many µm a pixel of that image spans.")
        self.add = QPushButton("Add")
        set_tip(self.add, "Lay the spots on the H&E.")
        self.leave = QPushButton("Never mind")
        set_tip(self.leave, "Do not use this file.")
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

    def ask(
        self, words: str, answers: Sequence[Positions], he_um_per_px: float | None
    ) -> None:
        """Show the question.

        Parameters
        ----------
        words : str
            The question.
        answers : sequence of Positions
            What fits the file.
        he_um_per_px : float or None
            Of the H&E, shown beside its pixels.
        """
        self.words.setText(words)
        self.choice.clear()
        self.choice.addItem("Choose…", None)
        for answer in answers:
            known = answer is Positions.HE_PIXELS and he_um_per_px is not None
            size = f" ({he_um_per_px:.3g} µm)" if known else ""
            self.choice.addItem(f"{answer.value}{size}", answer)
        self._chosen()
        self.show()

    def _chosen(self) -> None:
        chosen = self.choice.currentData()
        self.mpp.setVisible(chosen is Positions.OTHER_PIXELS)
        self.add.setEnabled(chosen is not None)

    def _answer(self) -> None:
        chosen = self.choice.currentData()
        if chosen is not None:
            self.answered.emit(chosen, self.mpp.value())
