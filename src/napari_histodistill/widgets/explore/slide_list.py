"""The slides as a list: name and badge of each, the chosen one marked."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QPoint, QSignalBlocker, Qt, Signal
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QMenu,
    QTreeWidget,
    QTreeWidgetItem,
)

from napari_histodistill.addresses import shown
from napari_histodistill.controllers.explore.worklist import Row, RowState
from napari_histodistill.widgets.shared.controls import explain, plain_tip
from napari_histodistill.widgets.shared.slide_section import NO_SLIDE

LINES = 4
"""Rows seen at once: the list keeps its height, whatever is in it."""

EMPTY = "no slide yet: Open…, Folder…, or drop files here"
TIP = "The slides. Choose one to see it, with all that belongs to it."


class SlideList(QTreeWidget):
    """One row per slide; long names are elided in the middle.

    Attributes
    ----------
    picked : Signal(int)
        A row was chosen, by mouse or keyboard.
    removed : Signal(int)
        A row is to go.
    """

    picked = Signal(int)
    removed = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self._shown: list[tuple[str, str, str, bool]] = []
        self._is_empty = True
        self.setColumnCount(2)
        self.setHeaderHidden(True)
        self.setRootIsDecorated(False)
        self.setUniformRowHeights(True)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        header = self.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.ResizeToContents)
        line = self.fontMetrics().height() + 4
        self.setFixedHeight(LINES * line + 2 * self.frameWidth())
        self.itemSelectionChanged.connect(self._selected)
        self.customContextMenuRequested.connect(self._offer_menu)
        self.show_rows((), -1)

    def show_rows(self, rows: Sequence[Row], current: int) -> None:
        """List the slides; ``current`` is −1 for none."""
        wish = [
            (row.name, row.badge.text, _tip(row), row.state is not RowState.BROKEN)
            for row in rows
        ] or [(EMPTY, "", TIP, False)]
        with QSignalBlocker(self):
            while self.topLevelItemCount() > len(wish):
                self.takeTopLevelItem(self.topLevelItemCount() - 1)
            for k, line in enumerate(wish):
                if k >= len(self._shown) or self._shown[k] != line:
                    self._show_line(k, line)
            self._shown, self._is_empty = wish, not rows
            self._mark(current if rows else -1)

    def lock(self, why: str) -> None:
        """Disable it, saying why; "" unlocks where there are slides."""
        explain(self, TIP, why or (NO_SLIDE if self._is_empty else ""))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Remove the chosen row on Delete; else as in any list."""
        row = self.currentIndex().row()
        if event.key() == Qt.Key.Key_Delete and row >= 0 and not self._is_empty:
            self.removed.emit(row)
            return
        super().keyPressEvent(event)

    def _show_line(self, k: int, line: tuple[str, str, str, bool]) -> None:
        name, badge, tip, usable = line
        item = self.topLevelItem(k)
        if item is None:
            item = QTreeWidgetItem()
            self.addTopLevelItem(item)
        for column, text in enumerate((name, badge)):
            item.setText(column, text)
            item.setData(column, Qt.ItemDataRole.ToolTipRole, plain_tip(tip))
        item.setDisabled(not usable)

    def _mark(self, current: int) -> None:
        if self.currentIndex().row() != current or not self.selectedItems():
            self.clearSelection()
            item = self.topLevelItem(current) if current >= 0 else None
            self.setCurrentItem(item)
            if item is not None:
                self.scrollToItem(item)
        for k in range(self.topLevelItemCount()):
            item = self.topLevelItem(k)
            font = item.font(0)
            if font.bold() != (k == current):
                font.setBold(k == current)
                item.setFont(0, font)

    def _selected(self) -> None:
        if self.selectedItems():
            self.picked.emit(self.currentIndex().row())

    def _offer_menu(self, at: QPoint) -> None:
        item = self.itemAt(at)
        if item is None or self._is_empty:
            return
        menu = QMenu(self)
        row = self.indexOfTopLevelItem(item)
        menu.addAction("Remove from the list").triggered.connect(
            lambda: self.removed.emit(row)
        )
        menu.exec(self.viewport().mapToGlobal(at))


def _tip(row: Row) -> str:
    where = row.name if row.path is None else shown(row.path)
    return f"{where}\n{row.badge.tip}" if row.badge.tip else where
