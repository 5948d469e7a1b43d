"""Notes to read before believing the map, and its exports."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_histodistill.controllers.explore.trust import Note
from napari_histodistill.controllers.shared.exporting import EXPORTS
from napari_histodistill.widgets.shared.controls import explain, heading, hint, row
from napari_histodistill.widgets.shared.export_button import (
    ExportButton,
    research_label,
)


class TrustPanel(QWidget):
    """Notes, the export menu, and what this program is not for."""

    export = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.notes = hint()
        self.button = ExportButton(EXPORTS)
        self.button.export.connect(self.export)
        self.research = research_label()
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
