"""The list of models (students) that a panel offers, and the way to open another."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox

from napari_histodistill.widgets.shared.controls import (
    fill_combo,
    keep_within_dock,
    set_tip,
)

OPEN_TITLE = "Open a model: choose its folder"
"""Title of the dialogue that follows the last line."""


class StudentCombo(QComboBox):
    """Students by name; the last line opens a bundle folder.

    Attributes
    ----------
    student_chosen : Signal(int)
        Index among the students that were shown.
    open_bundle : Signal
        The last line was chosen.
    """

    student_chosen = Signal(int)
    open_bundle = Signal()

    def __init__(self, tooltip: str) -> None:
        super().__init__()
        set_tip(self, tooltip)
        keep_within_dock(self)
        self.activated.connect(self._activated)

    def show_students(self, names: Sequence[str], current: int) -> None:
        """List students; the first stands there where ``current`` is −1."""
        fill_combo(self, [*names, "+ open a model…"], max(current, 0), empty="")

    def _activated(self, index: int) -> None:
        if index == self.count() - 1:
            self.open_bundle.emit()
        else:
            self.student_chosen.emit(index)
