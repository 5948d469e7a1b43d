"""Stain normalisation: the row (a check box, a look before and after), its wiring."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QCheckBox, QWidget

from napari_histodistill.controllers.explore.jobs import ExploreJob
from napari_histodistill.controllers.explore.staining import StainChoice, StainFitted
from napari_histodistill.controllers.shared.job import Job, JobState
from napari_histodistill.widgets.explore.bench import ExploreBench
from napari_histodistill.widgets.shared.controls import (
    explain,
    push,
    row,
)
from napari_histodistill.widgets.shared.overlays import OverlayKind

TIP = (
    "Make this slide's colours look like the tiles that the model was trained on: its "
    "two stains are measured once on the tissue and exchanged for theirs. Maps with "
    "and without it are stored separately. In a test on colon tiles it lowered "
    "accuracy slightly (.81 to .79): look at the preview first."
)
PREVIEW_TIP = (
    "Lay the slide as the model sees it over the slide; press again to see it as it "
    "was."
)


class StainRow(QWidget):
    """The two controls, for the slide panel."""

    wanted = Signal(bool)
    previewed = Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        self.check = QCheckBox("Normalise")
        self.preview = push("Preview", stays=True)
        self.setLayout(row(self.check, QWidget(), self.preview, stretch=1))
        self.check.clicked.connect(self.wanted)
        self.preview.clicked.connect(self.previewed)

    def show_state(self, *, wanted: bool, why_not: str, why_no_preview: str) -> None:
        """Draw the controls, and say what stands in the way of each."""
        self.check.setChecked(wanted)
        explain(self.check, TIP, why_not)
        explain(self.preview, PREVIEW_TIP, why_no_preview)


class Staining(QObject):
    """Keeps check box, student and preview in step."""

    def __init__(
        self, bench: ExploreBench, panel: StainRow, *, drop_map: Callable[[], None]
    ) -> None:
        super().__init__(bench)
        self.bench, self.panel = bench, panel
        self.choice = StainChoice()
        self._drop_map = drop_map
        panel.wanted.connect(self.want)
        panel.previewed.connect(self.preview)

    def want(self, wanted: bool) -> None:
        """Normalise the stain, or not any more."""
        self.choice.wanted = wanted
        self._drop_map()
        self.bench.changed.emit()

    def follow(self) -> None:
        """Follow slide, student and wish; called before the panels are drawn."""
        session, bench = self.bench.session, self.bench
        was_on = self.choice.is_on(session)
        work = self.choice.follow(
            session, fitting=bench.pump.is_active(ExploreJob.FITTING_STAIN)
        )
        if was_on and not self.choice.is_on(session):
            self._drop_map()
        if work is not None:
            bench.pump.start(
                work,
                key=ExploreJob.FITTING_STAIN,
                on_reports=self._fitted,
                on_end=self._ended,
            )

    def show(self, locked: str) -> None:
        """Draw the row; ``locked`` says why nothing may change now."""
        session, panel = self.bench.session, self.panel
        on = self.choice.is_on(session)
        first = "Tick Normalise first, and wait until the stain is measured."
        panel.show_state(
            wanted=self.choice.wanted,
            why_not=locked or self.choice.why_not(session),
            why_no_preview="" if on else first,
        )
        overlays = self.bench.overlays
        if not on and overlays is not None:
            overlays.hide_stain()
        layer = overlays.get(OverlayKind.STAIN) if overlays is not None else None
        panel.preview.setChecked(layer is not None and layer.visible)

    def preview(self, wanted: bool) -> None:
        """Lay the normalised slide over the slide, or take it away."""
        student, overlays = self.bench.session.student, self.bench.overlays
        if overlays is None:
            return
        if wanted and student is not None and student.stains is not None:
            overlays.show_stain(student.stains)
        else:
            overlays.hide_stain()

    def _fitted(self, reports: list[StainFitted]) -> None:
        self._drop_map()
        self.choice.take(self.bench.session, reports[-1])

    def _ended(self, job: Job[object]) -> None:
        if job.state is not JobState.DONE:
            self.choice.give_up(self.bench.session)
        self.bench.changed.emit()
        # Last: drawing the panels takes back what stood in the way until now.
        if job.state is JobState.FAILED:
            self.bench.said.emit(job.error)
