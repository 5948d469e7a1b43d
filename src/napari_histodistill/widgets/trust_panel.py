"""What a person should know before believing the map, and the way out (export)."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QLabel, QMenu, QToolButton, QVBoxLayout, QWidget

from napari_histodistill.controllers.exporting import EXPORTS
from napari_histodistill.controllers.trust import Note
from napari_histodistill.widgets.parts import explain, heading, hint, row


class TrustPanel(QWidget):
    """Notes, the export menu, and what this program is not for."""

    export = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.notes = hint()
        self.button = QToolButton()
        # Room for the menu's arrow, which napari's theme draws over the text.
        self.button.setText("Export" + 4 * "\N{NO-BREAK SPACE}")
        self.button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(self.button)
        menu.setToolTipsVisible(True)
        for kind in EXPORTS:
            action = menu.addAction(kind.title)
            action.setToolTip(kind.tooltip)
            action.triggered.connect(
                lambda _=False, key=kind.key: self.export.emit(key)
            )
        self.button.setMenu(menu)
        self.research = QLabel("Research use only")
        self.research.setToolTip("Not for diagnosis: no map here has been validated.")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(heading("Trust"))
        layout.addWidget(self.notes)
        layout.addLayout(row(self.button, QWidget(), self.research, stretch=1))

    def show_notes(self, notes: Sequence[Note]) -> None:
        """List what speaks for and against the map."""
        self.notes.setText("\n".join(f"{n.sign} {n.text}" for n in notes))

    def explain(self, why_not: str) -> None:
        """Enable the export menu, or say why not."""
        explain(
            self.button, "Take the map elsewhere: QuPath, OME-Zarr, tables.", why_not
        )
