"""A second seed trained from here: started, cancelled, and then noise is measured."""

from __future__ import annotations

from qtpy.QtCore import QObject

from napari_histodistill.controllers.compare.jobs import CompareJob
from napari_histodistill.controllers.compare.seeding import (
    SeedProgress,
    train_seed_work,
)
from napari_histodistill.controllers.shared.job import Job, JobState
from napari_histodistill.widgets.compare.bench import CompareBench
from napari_histodistill.widgets.compare.choose_panel import ChoosePanel
from napari_histodistill.widgets.compare.chooser import CompareChoosing
from napari_histodistill.widgets.compare.running import Comparing


class SeedTraining(QObject):
    """Keeps the button beside the noise, the training and the sentence in step.

    Closing the panel leaves the training to itself: *Distil a student* shows it.
    """

    def __init__(
        self,
        bench: CompareBench,
        panel: ChoosePanel,
        choosing: CompareChoosing,
        comparing: Comparing,
    ) -> None:
        super().__init__(bench)
        self.bench, self.panel = bench, panel
        self.choosing, self.comparing = choosing, comparing
        self._unwanted = self._measure_next = False
        panel.train_seed.clicked.connect(self.press)
        choosing.seeds_known.connect(self._measure)

    @property
    def active(self) -> bool:
        """Whether it is going on."""
        return bool(self.bench.pump.is_active(CompareJob.TRAINING))

    def press(self) -> None:
        """Start, or cancel what is going on."""
        bench, seeds = self.bench, self.bench.session.seeds
        if self.active:
            self._unwanted = True
            bench.pump.cancel(CompareJob.TRAINING)
            bench.session.show_seed_progress("Stopping…")
            bench.changed.emit()
            return
        if seeds is None or seeds.recipe_of is None:
            return
        self._unwanted = False
        bench.said.emit("")
        bench.session.show_seed_progress("Starting…")
        bench.pump.start(
            train_seed_work(seeds.recipe_of, lambda: self._unwanted),
            key=CompareJob.TRAINING,
            on_reports=self._reported,
            on_end=self._ended,
            slow=True,
        )
        bench.changed.emit()

    def show(self) -> None:
        """Draw the button."""
        session = self.bench.session
        self.panel.show_seed_training(
            shown=session.lacks_seed,
            active=self.active,
            why_not=session.why_no_seed_training,
        )

    def _reported(self, reports: list[SeedProgress]) -> None:
        if not self._unwanted:
            self.bench.session.show_seed_progress(reports[-1].words)
            self.choosing.show()

    def _ended(self, job: Job[SeedProgress]) -> None:
        bench = self.bench
        bench.session.show_seed_progress("")
        if job.state is JobState.DONE:
            self._measure_next = bench.session.compared is not None
            self.choosing.look_for_seeds_again()
        elif job.error:
            bench.said.emit(job.error)
        bench.changed.emit()

    def _measure(self) -> None:
        """Measure the noise of what was compared before; its maps are there."""
        session = self.bench.session
        again, self._measure_next = self._measure_next, False
        if again and not session.lacks_seed and not session.running:
            self.comparing.run()
