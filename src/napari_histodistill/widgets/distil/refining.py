"""The button *Refine* of step 2, its progress, and the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject

from napari_histodistill.controllers.distil.alignment import (
    refine_work,
    refined,
    say_refinement,
    unrefined,
)
from napari_histodistill.controllers.distil.pairs import Partner
from napari_histodistill.controllers.shared.job import Job, JobState
from napari_histodistill.distill.layers.refinement import Refinement
from napari_histodistill.widgets.distil.bench import DistilBench
from napari_histodistill.widgets.shared.parts import explain

if TYPE_CHECKING:
    from napari_histodistill.widgets.distil.alignment import Aligning

REFINING = "Refining the alignment"


class Refining(QObject):
    """Refines how the partner lies, off the GUI thread; part of :class:`Aligning`."""

    def __init__(self, bench: DistilBench, aligning: Aligning) -> None:
        super().__init__(bench)
        self._bench, self._aligning = bench, aligning
        self._share = 0.0
        self._found: Refinement | None = None
        self._started: Partner | None = None
        self._told_of = ""

    @property
    def active(self) -> bool:
        """Whether it is going on."""
        return bool(self._bench.pump.is_active(REFINING))

    def press(self) -> None:
        """Start, or cancel what is going on."""
        if self.active:
            self._bench.pump.cancel(REFINING)
            return
        bench, partner = self._bench, self._aligning.partner
        if partner is None or bench.session.sparse is None:
            return
        self.forget()
        self._share, self._started, self._told_of = 0.0, partner, partner.name
        kind = self._aligning.step.kind.currentData()
        if partner.registration is not None:
            kind = partner.registration.kind
        bench.said.emit("")
        bench.pump.start(
            refine_work(
                bench.session.sparse, partner, kind, self._aligning.own_landmarks()
            ),
            name=REFINING,
            on_reports=self._reported,
            on_end=self._ended,
        )
        bench.changed.emit()

    def undo(self) -> None:
        """Lay the partner as it was before."""
        place, partner = self._aligning.place, self._aligning.partner
        if place is None or partner is None or partner.refinement is None:
            return
        self._bench.session.put_partner(place, unrefined(partner))
        self._aligning.lay()
        self._found = None
        self._bench.changed.emit()

    def forget(self) -> None:
        """Take back what was said, and what is going on: something else was chosen."""
        self._found = None
        self._bench.pump.abandon(REFINING)

    def show(self) -> None:
        """Draw the buttons and the words."""
        step, partner = self._aligning.step, self._aligning.partner
        step.refine.setText("Cancel" if self.active else "Refine")
        why = ""
        if partner is None:
            why = "No partner with pixels is chosen."
        elif self._aligning.landmarks.active:
            why = "Finish picking landmarks first."
        explain(step.refine, step.refine_tip, why)
        step.undo.setVisible(partner is not None and partner.refinement is not None)
        if self.active:
            step.tell_found(f"Comparing both layers… {self._share:.0%}")
        else:
            step.tell_found(self._words())

    def _words(self) -> str:
        found, partner = self._found, self._aligning.partner
        if found is None or partner is None or partner.name != self._told_of:
            return ""
        if found.accepted:
            stands = partner.refinement is found
        else:
            stands = partner.registration is found.before
        return say_refinement(found) if stands else ""

    def _reported(self, reports: list[Refinement | float]) -> None:
        last = reports[-1]
        if isinstance(last, Refinement):
            self._found = last
        else:
            self._share = last
        self.show()

    def _ended(self, job: Job[Any]) -> None:
        bench, place = self._bench, self._aligning.place
        found, partner = self._found, self._started
        if job.state is JobState.FAILED:
            bench.said.emit(job.error)
        elif place is None or partner is None or partner is not self._aligning.partner:
            self._found = None  # of a partner, or a place, that is no longer there
        elif found is not None and found.accepted:
            bench.session.put_partner(place, refined(partner, found))
            self._aligning.lay()
        self._started = None
        bench.changed.emit()
