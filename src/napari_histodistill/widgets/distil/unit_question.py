"""A question that a file left open: positions are pixels, of which image, or µm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QWidget

from napari_histodistill.controllers.distil.spots import Positions
from napari_histodistill.widgets.shared.controls import (
    Hint,
    push,
    row,
    stack,
)
from napari_histodistill.widgets.shared.forms import Form, asked


@dataclass(frozen=True, slots=True)
class SpotUnits:
    """What a file's positions are; None as long as nobody said."""

    positions: Positions | None = asked("What the file's positions are.", None)
    um_per_px: float = asked(
        "How many µm a pixel of that image spans.", 0.5,
        decimals=4, minimum=0.01, maximum=100, suffix=" µm/px",
    )  # fmt: skip


class UnitQuestion(QWidget):
    """Asks inside the panel; nothing is chosen beforehand.

    Attributes
    ----------
    answered : Signal(object)
        The :class:`SpotUnits`.
    dropped : Signal
        The file is not to be used.
    """

    answered = Signal(object)
    dropped = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.words = Hint()
        self.form = Form(SpotUnits(), layout="vertical")
        self.choice, self.mpp = self.form.natives
        self.form.positions.null_string = "Choose…"
        self.add = push("Add", "Lay the spots on the H&E.")
        self.leave = push("Never mind", "Do not use this file.")
        stack(self, self.words, self.form.native, row(self.add, self.leave))
        self.form.changed.connect(self._chosen)
        self.add.clicked.connect(lambda: self.answered.emit(self.form.model))
        self.leave.clicked.connect(self.dropped.emit)
        self.hide()

    def ask(
        self, words: str, answers: Sequence[Positions], he_um_per_px: float | None
    ) -> None:
        """Show the question, with the answers that fit the file."""
        size = "" if he_um_per_px is None else f" ({he_um_per_px:.3g} µm)"
        sizes = {Positions.HE_PIXELS: size}
        offered = [(f"{x.value}{sizes.get(x, '')}", x) for x in answers]
        self.words.setText(words)
        self.form.positions.choices = lambda _box: offered
        self.form.show_model(SpotUnits())
        self._chosen()
        self.show()

    def _chosen(self, *_: object) -> None:
        chosen = self.form.model.positions
        self.mpp.setVisible(chosen is Positions.OTHER_PIXELS)
        self.add.setEnabled(chosen is not None)
