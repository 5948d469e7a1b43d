"""Trust in a map: one headline, where it comes from, details; and the exports."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QWidget

from napari_histodistill.controllers.explore.trust import Note
from napari_histodistill.controllers.shared.exporting import EXPORTS, FIGURE
from napari_histodistill.widgets.shared.controls import (
    Hint,
    explain,
    heading,
    keep_lines,
    make_bold,
    push,
    row,
    stack,
    tool,
)
from napari_histodistill.widgets.shared.saving import (
    ExportButton,
    SavedRow,
    research_label,
)

VERDICT_LINES = 6
"""Room of the headline and the line below it, which both may wrap."""


class TrustPanel(QWidget):
    """The verdict and its details; in ``footer``, saving and a last word."""

    export = Signal(object)
    like_only_wanted = Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        self.headline, self.where, self.notes = Hint(), Hint(), Hint()
        make_bold(self.headline)
        tip = "Show or hide the reasons, and what else to know."
        self.details = tool("Details", tip)
        self.details.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.details.setCheckable(True)
        self.like_only = QCheckBox("Leave out unlike squares")
        self.button = ExportButton(EXPORTS)
        self.button.export.connect(self.export)
        self.figure = push("Figure…", FIGURE.tooltip)
        self.figure.clicked.connect(lambda: self.export.emit(FIGURE.key))
        self.saved = SavedRow()
        self.research = research_label()
        verdict = QWidget()
        # A verdict that comes must not push away what is below it.
        lines = stack(verdict, self.headline, self.where)
        lines.addStretch(1)
        keep_lines(verdict, VERDICT_LINES, besides=lines.spacing())
        stack(
            self,
            heading("Trust"),
            verdict,
            row(self.like_only, self.details),
            self.notes,
        )
        self.footer = QWidget()
        buttons = row(self.button, self.figure, QWidget(), self.research, stretch=2)
        stack(self.footer, buttons, self.saved)
        self.details.toggled.connect(self._fold)
        self.like_only.clicked.connect(self.like_only_wanted)
        self._fold(shown=False)

    def show_verdict(self, headline: Note, where: str) -> None:
        """Show the one sentence to read first, and the line below it."""
        self.headline.setText(f"{headline.sign} {headline.text}")
        self.where.setText(where)

    def show_notes(self, notes: Sequence[Note]) -> None:
        """List what speaks for and against the map."""
        self.notes.setText("\n".join(f"{n.sign} {n.text}" for n in notes))

    def show_like_only(self, *, wanted: bool, tooltip: str, why_not: str) -> None:
        """Tick whether unlike squares are left out, or say why that cannot be."""
        self.like_only.setChecked(wanted)
        explain(self.like_only, tooltip, why_not)

    def explain(self, why_not: str) -> None:
        """Enable saving, or say why not."""
        explain(
            self.button,
            "Save the map as it is shown, for QuPath, OME-Zarr, or as a table.",
            why_not,
        )
        explain(self.figure, FIGURE.tooltip, why_not)

    def _fold(self, shown: bool) -> None:
        arrow = Qt.ArrowType.DownArrow if shown else Qt.ArrowType.RightArrow
        self.details.setArrowType(arrow)
        self.notes.setVisible(shown)
