"""Refining in the window: started, cancelled, laid and undone."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from napari.layers import Layer
from qtpy.QtCore import QObject

from napari_histodistill.controllers.distil.align.alignment import (
    kind_to_refine,
    refine_work,
    say_refinement,
    still_stands,
    why_no_refining,
)
from napari_histodistill.controllers.distil.jobs import DistilJob
from napari_histodistill.controllers.distil.partners import Partner
from napari_histodistill.controllers.shared.job import Job, JobState
from napari_histodistill.distill.layers.refinement import Refinement
from napari_histodistill.widgets.distil.layers import show_same
from napari_histodistill.widgets.distil.steps import About
from napari_histodistill.widgets.shared.controls import explain

if TYPE_CHECKING:
    from napari_histodistill.widgets.distil.align.pair import AlignedPair


class Refining(QObject):
    """Refines how the partner lies, off the GUI thread; part of step 2."""

    def __init__(self, pair: AlignedPair) -> None:
        super().__init__(pair)
        self._bench, self._pair = pair.bench, pair
        self._share = 0.0
        self._found: Refinement | None = None
        self._started: Partner | None = None
        self._of: weakref.ref[Layer] | None = None

    @property
    def active(self) -> bool:
        """Whether it is going on."""
        return bool(self._bench.pump.is_active(DistilJob.REFINING))

    def press(self) -> None:
        """Start, or cancel what is going on."""
        if self.active:
            self._bench.pump.cancel(DistilJob.REFINING)
            return
        bench, partner = self._bench, self._pair.partner
        if partner is None or bench.session.sparse is None:
            return
        self.forget()
        self._share, self._started = 0.0, partner
        layer = self._pair.layer
        self._of = None if layer is None else weakref.ref(layer)
        kind = kind_to_refine(partner, self._pair.step.chosen_kind)
        bench.said.emit("")
        bench.pump.start(
            refine_work(
                bench.session.sparse, partner, kind, self._pair.own_landmarks()
            ),
            key=DistilJob.REFINING,
            on_reports=self._reported,
            on_end=self._ended,
        )
        bench.changed.emit()

    def forget(self) -> None:
        """Take back what was said, and what is going on: something else was chosen."""
        self._found = None
        self._bench.pump.abandon(DistilJob.REFINING)

    def show(self) -> None:
        """Draw the buttons and the words."""
        step, partner = self._pair.step, self._pair.partner
        step.refine.setText("Cancel" if self.active else "Refine")
        landmarks = self._pair.landmarks
        count = len(landmarks.pairs()[0])
        why = why_no_refining(partner, count, picking=landmarks.active)
        explain(step.refine, step.refine_tip, "" if self.active else why)
        if self.active:
            words = f"Comparing both layers… {self._share:.0%}"
        else:
            words = self._words()
        step.words.tell(About.REFINING, words)

    def _words(self) -> str:
        found, pair = self._found, self._pair
        partner, layer = pair.partner, pair.layer
        of = None if self._of is None else self._of()
        if found is None or partner is None or layer is None or of is None:
            return ""
        stands = show_same(layer, of) and still_stands(partner, found)
        return say_refinement(found) if stands else ""

    def _reported(self, reports: list[Refinement | float]) -> None:
        last = reports[-1]
        if isinstance(last, Refinement):
            self._found = last
        else:
            self._share = last
        self.show()

    def _ended(self, job: Job[Refinement | float]) -> None:
        bench, found, started = self._bench, self._found, self._started
        if job.state is JobState.FAILED:
            bench.said.emit(job.error)
        elif started is None or started is not self._pair.partner:
            self._found = None  # of a partner that is gone, or lies elsewhere
        elif found is not None and bench.session.take_refinement(started, found):
            self._pair.lay()
        self._started = None
        bench.changed.emit()
