"""What is asked before something is saved, and where it went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qtpy.QtCore import Qt, QUrl, Signal
from qtpy.QtGui import QDesktopServices, QResizeEvent
from qtpy.QtWidgets import QLabel, QMenu, QSizePolicy, QToolButton, QWidget

from napari_histodistill.controllers.shared.exporting import (
    ExportKind,
    folder_to_open,
)
from napari_histodistill.widgets.shared.controls import (
    PlainLabel,
    keep_lines,
    keep_room,
    push,
    row,
    set_tip,
)
from napari_histodistill.widgets.shared.forms import asked


@dataclass(frozen=True, slots=True)
class ModelTitle:
    """What a model that is saved is called; empty for a neutral title."""

    title: str = asked(
        "What the model is called. No layer's or slide's name is saved in it.", "",
        label="Title",
    )  # fmt: skip


class ExportButton(QToolButton):
    """A button with a menu; sends the :class:`ExportKey` of what was chosen."""

    export = Signal(object)

    def __init__(self, kinds: Sequence[ExportKind], text: str = "Save map…") -> None:
        super().__init__()
        # Room for the menu's arrow, which napari's theme draws over the text.
        self.setText(text + 4 * "\N{NO-BREAK SPACE}")
        self.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(self)
        menu.setToolTipsVisible(True)
        for kind in kinds:
            action = menu.addAction(kind.title)
            set_tip(action, kind.tooltip)
            action.triggered.connect(
                lambda _=False, key=kind.key: self.export.emit(key)
            )
        self.setMenu(menu)


_AIR_PX = 6
"""Between an elided text and what stands beside it."""


class PathLabel(PlainLabel):
    """A path, its middle left out where there is no room; all of it in the tooltip."""

    def __init__(self) -> None:
        super().__init__()
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        keep_lines(self, 1)
        self.path: Path | None = None

    def show_path(self, path: Path | None, words: str = "") -> None:
        """Show a path with words before it; None for nothing."""
        self.path, self._words = path, words
        set_tip(self, "" if path is None else str(path))
        self._elide()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Leave out as much as the new width asks for."""
        super().resizeEvent(event)
        self._elide()

    def _elide(self) -> None:
        if self.path is None:
            self.setText("")
            return
        metrics = self.fontMetrics()
        room = self.width() - metrics.horizontalAdvance(self._words) - _AIR_PX
        middle = Qt.TextElideMode.ElideMiddle
        self.setText(self._words + metrics.elidedText(str(self.path), middle, room))


class SavedRow(QWidget):
    """The file that was written last, and a way to its folder; room is always kept."""

    def __init__(self) -> None:
        super().__init__()
        self.where = PathLabel()
        self.open = push("Open folder", "Show the folder of this file.")
        keep_room(self.open)
        self.setLayout(row(self.where, self.open))
        self.open.clicked.connect(self.open_folder)
        self.forget()

    def show_written(self, path: Path) -> None:
        """Show where a file was written."""
        self.where.show_path(path.absolute(), "Wrote ")
        self.open.show()

    def forget(self) -> None:
        """Show nothing: another slide is looked at."""
        self.where.show_path(None)
        self.open.hide()

    def open_folder(self) -> None:
        """Show the folder in the system's file manager; never opens the file."""
        folder = None if self.where.path is None else folder_to_open(self.where.path)
        if folder is None:
            set_tip(self.open, "The folder is not there any more.")
            return
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(folder)))


def research_label() -> QLabel:
    """Return what this program is not for."""
    label = PlainLabel("Research use only")
    set_tip(label, "Not for diagnosis: no map here has been validated.")
    return label
