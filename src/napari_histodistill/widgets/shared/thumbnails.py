"""A row of pictures of places: click one to go there, walk with the arrow keys."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import QListView, QListWidget, QListWidgetItem

from napari_histodistill.widgets.shared.controls import set_tip

THUMBNAIL_PX = 64


class Thumbnails(QListWidget):
    """Pictures side by side, each with a few letters below.

    Parameters
    ----------
    lines : int
        Lines of letters that there is room for.
    """

    chosen = Signal(int)

    def __init__(self, *, lines: int = 1) -> None:
        super().__init__()
        self.setWordWrap(lines > 1)  # without, Qt leaves out what follows the first
        self.setViewMode(QListView.ViewMode.IconMode)
        self.setFlow(QListView.Flow.LeftToRight)
        self.setWrapping(False)
        self.setMovement(QListView.Movement.Static)
        self.setIconSize(QSize(THUMBNAIL_PX, THUMBNAIL_PX))
        self.setUniformItemSizes(True)
        self.setSpacing(2)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        more = (lines - 1) * self.fontMetrics().height()
        self.setFixedHeight(THUMBNAIL_PX + 40 + more)
        self.currentRowChanged.connect(self._row_changed)
        self.itemClicked.connect(lambda item: self.chosen.emit(self.row(item)))

    def show_places(self, places: Iterable[tuple[str, str]]) -> None:
        """List places by letters and tooltip; the pictures come later."""
        self.blockSignals(True)
        self.clear()
        blank = QPixmap(THUMBNAIL_PX, THUMBNAIL_PX)
        blank.fill(Qt.GlobalColor.transparent)
        for letters, tooltip in places:
            item = QListWidgetItem(QIcon(blank), letters)
            set_tip(item, tooltip)
            self.addItem(item)
        self.setCurrentRow(-1)
        self.blockSignals(False)

    def show_picture(self, rank: int, image: npt.NDArray[np.uint8]) -> None:
        """Fill in the picture of a place, ``(px, px, 3)`` uint8; the first is 1."""
        item = self.item(rank - 1)
        if item is not None:
            item.setIcon(_icon(image))

    def step(self, by: int) -> None:
        """Go to the next place (1) or to the one before (−1)."""
        self.setCurrentRow(max(0, min(self.currentRow() + by, self.count() - 1)))

    def _row_changed(self, index: int) -> None:
        if index >= 0:
            self.chosen.emit(index)


def _icon(image: npt.NDArray[np.uint8]) -> QIcon:
    """Return an icon that looks the same when selected: a tint would be a stain."""
    pixmap = pixmap_of(image)
    icon = QIcon(pixmap)
    icon.addPixmap(pixmap, QIcon.Mode.Selected)
    return icon


def pixmap_of(image: npt.NDArray[np.uint8]) -> QPixmap:
    """Return a picture, ``(h, w, 3)`` uint8, as Qt paints it."""
    image = np.ascontiguousarray(image)
    height, width, _ = image.shape
    pixels = QImage(image.data, width, height, 3 * width, QImage.Format.Format_RGB888)
    # The copy outlives the array that QImage only borrows.
    return QPixmap.fromImage(pixels.copy())
