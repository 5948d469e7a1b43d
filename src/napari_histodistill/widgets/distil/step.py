"""One step of a strip: a title that folds it, what it decided, and its controls."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QToolButton, QVBoxLayout, QWidget

from napari_histodistill.widgets.shared.controls import hint


class Step(QWidget):
    """A numbered step.

    Parameters
    ----------
    title : str
        With its number.
    """

    def __init__(self, title: str) -> None:
        super().__init__()
        self.button = QToolButton()
        self.button.setText(title)
        self.button.setCheckable(True)
        self.button.setChecked(True)
        self.button.setAutoRaise(True)
        self.button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.button.setToolTip("Fold or open this step.")
        font = self.button.font()
        font.setBold(True)
        self.button.setFont(font)
        self.line = hint()
        self.line.hide()
        self.body = QWidget()
        self.column = QVBoxLayout(self.body)
        self.column.setContentsMargins(4, 0, 0, 0)
        self.column.setSpacing(4)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        layout.addWidget(self.button)
        layout.addWidget(self.body)
        layout.addWidget(self.line)
        self.button.toggled.connect(self._fold)
        self._fold(open_=True)

    @property
    def is_open(self) -> bool:
        """Whether its controls are shown."""
        return bool(self.button.isChecked())

    def say(self, text: str) -> None:
        """Show what the step decided, or why it cannot."""
        self.line.setText(text)
        self.line.setVisible(bool(text))

    def _fold(self, open_: bool) -> None:
        arrow = Qt.ArrowType.DownArrow if open_ else Qt.ArrowType.RightArrow
        self.button.setArrowType(arrow)
        self.body.setVisible(open_)
