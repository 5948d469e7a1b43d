"""From *Distil a student* to *Compare students*: with against without the partner."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from qtpy.QtCore import QObject
from qtpy.QtWidgets import QPushButton

from napari_histodistill.controllers.distil.control import (
    NOTES,
    student_and_control,
    why_no_comparison,
)
from napari_histodistill.widgets.distil.bench import DistilBench, Panel
from napari_histodistill.widgets.distil.steps import TrainStep
from napari_histodistill.widgets.shared.controls import explain

if TYPE_CHECKING:
    from napari_histodistill.widgets.compare.dock import CompareWidget

TIP = (
    "Open Compare students on this slide: what did the partner teach? A is the model "
    "trained without it, B the one trained with it."
)


class ControlComparing(QObject):
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
        explain(self.button, TIP, why_no_comparison(self.bench.runs, student))

    def compare(self) -> CompareWidget | None:
        """Open *Compare students* with both; returns that panel."""
        student = self.bench.session.student
        if student is None:
            return None
        both = student_and_control(self.bench.runs, student)
        if both is None:
            return None
        panel = cast("CompareWidget", self.bench.open_panel(Panel.COMPARE))
        panel.compare_bundles(both, NOTES, self.bench.sparse_layer)
        return panel
