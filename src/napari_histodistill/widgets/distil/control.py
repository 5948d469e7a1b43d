"""From *Distil a student* to *Compare students*: with against without the partner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import QObject
from qtpy.QtWidgets import QPushButton

from napari_histodistill.controllers.distil.control import NOTES, partner_twins
from napari_histodistill.widgets.distil.bench import DistilBench, Panel
from napari_histodistill.widgets.distil.steps import TrainStep
from napari_histodistill.widgets.shared.parts import explain

TIP = (
    "Open Compare students with both, on this slide: what did the partner teach? A is "
    "the student without, B the one with it."
)
NO_STUDENT = "There is no student yet: train one first."
NO_TWIN = (
    "Train both first: the same pairs and preset once with “without the partner” "
    "ticked and once without the tick."
)


class Twins(QObject):
    """A button below the training that opens the comparison once both are there."""

    def __init__(self, bench: DistilBench, step: TrainStep) -> None:
        super().__init__(bench)
        self.bench = bench
        self.button = QPushButton("Compare with/without partner")
        step.column.addWidget(self.button)
        self.button.clicked.connect(self.compare)

    def show(self) -> None:
        """Enable the button, or say why not."""
        student = self.bench.session.student
        why_not = NO_STUDENT if student is None else ""
        if student is not None and self._twins(student) is None:
            why_not = NO_TWIN
        explain(self.button, TIP, why_not)

    def compare(self) -> Any:
        """Open *Compare students* with both; returns that panel."""
        student = self.bench.session.student
        twins = None if student is None else self._twins(student)
        if twins is None:
            return None
        panel = self.bench.open_panel(Panel.COMPARE)
        panel.compare_bundles(twins, NOTES, self.bench.sparse_layer)
        return panel

    def _twins(self, student: Path) -> tuple[Path, Path] | None:
        return partner_twins(self.bench.runs, student)
