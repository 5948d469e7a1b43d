"""A list of landmarks by how far each is off; a click goes there."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QListWidget, QListWidgetItem, QSizePolicy

from napari_histodistill.widgets.shared.controls import set_tip

Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

WORST, WORST_ON_LIGHT = "#e69f00", "#8f3d00"
ITEM_PX = QSize(100, 20)


class Residuals(QListWidget):
    """One short entry for each landmark, side by side.

    Attributes
    ----------
    picked : Signal(int)
        A landmark was clicked.
    """

    picked = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.setFlow(QListWidget.Flow.LeftToRight)
        self.setWrapping(True)
        self.setResizeMode(QListWidget.ResizeMode.Adjust)
        self.setUniformItemSizes(True)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        set_tip(
            self,
            "How far every landmark is from where the others put it. Click one to go "
            "there. Landmarks in brackets contradict the others and are left out.",
        )
        self.itemClicked.connect(lambda item: self.picked.emit(self.row(item)))

    def show_residuals(
        self, residuals_um: Doubles, used: Bools, worst: int | None
    ) -> None:
        """Replace what is shown.

        Parameters
        ----------
        residuals_um, used : ndarray
            ``(n,)``: how far each landmark is off, and whether it counts.
        worst : int or None
            Which stands out.
        """
        self.clear()
        dark_text = self.palette().color(self.foregroundRole()).lightness() < 128
        stands_out = QColor(WORST_ON_LIGHT if dark_text else WORST)
        for k, (residual, on) in enumerate(zip(residuals_um, used, strict=True)):
            text = f"#{k + 1}  {_in_words(residual)}"
            item = QListWidgetItem(text if on else f"({text})")
            item.setSizeHint(ITEM_PX)
            if k == worst:
                font = item.font()
                font.setBold(True)
                item.setFont(font)
                item.setForeground(stands_out)
            self.addItem(item)
        rows = min(3, -(-len(residuals_um) // 3))
        self.setFixedHeight(rows * ITEM_PX.height() + 8)
        self.setVisible(bool(len(residuals_um)))

    def show_none(self) -> None:
        """Hide the list: no landmarks are judged."""
        self.clear()
        self.hide()


def _in_words(residual_um: float) -> str:
    if not np.isfinite(residual_um):
        return "?"
    return f"{residual_um:.1f} µm" if residual_um < 1000 else f"{residual_um:.0f} µm"
