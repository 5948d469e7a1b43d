"""Find in the window: started, cancelled, laid or offered; and the other offers."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from napari.layers import Layer
from qtpy.QtCore import QObject

from napari_histodistill.controllers.distil.align.alignment import (
    TurnOffer,
    why_no_finding,
)
from napari_histodistill.controllers.distil.align.finding import (
    WhatToDo,
    find_work,
    say_found,
    verdict_on,
)
from napari_histodistill.controllers.distil.jobs import DistilJob
from napari_histodistill.controllers.distil.partners import Partner
from napari_histodistill.controllers.shared.job import Job, JobState
from napari_histodistill.distill.layers.finding import Found
from napari_histodistill.distill.sections.judging import of_search
from napari_histodistill.widgets.distil.layers import show_same
from napari_histodistill.widgets.distil.steps import About
from napari_histodistill.widgets.shared.controls import explain

if TYPE_CHECKING:
    from napari_histodistill.distill.sections.alignment import SectionAlignment
    from napari_histodistill.slides import Slide
    from napari_histodistill.widgets.distil.align.fitting import LandmarkFitting
    from napari_histodistill.widgets.distil.align.pair import AlignedPair
    from napari_histodistill.widgets.distil.align.refining import Refining


class Finding(QObject):
    """Finds the partner off the GUI thread; part of step 2.

    What is found is laid, since a person asked for it. Where that turns or mirrors the
    partner it is only offered, as is the other side that landmarks speak for.
    """

    def __init__(
        self, pair: AlignedPair, fitting: LandmarkFitting, refining: Refining
    ) -> None:
        super().__init__(pair)
        self._bench, self._pair = pair.bench, pair
        self._fitting, self._refining = fitting, refining
        self._share = 0.0
        self._found: Found | None = None
        self._started: Partner | None = None
        # Not the slide itself: it is closed with its layer.
        self._slide: weakref.ref[Slide] | None = None
        self._of: weakref.ref[Layer] | None = None

    @property
    def active(self) -> bool:
        """Whether it is going on."""
        return bool(self._bench.pump.is_active(DistilJob.FINDING))

    @property
    def offer(self) -> TurnOffer | None:
        """What is offered now: as it was found, or as landmarks say."""
        found, started = self._found, self._started
        if found is None or started is None or not self._is_waiting():
            return self._fitting.offer
        if verdict_on(started, found) is WhatToDo.OFFER:
            return TurnOffer(say_found(started, found), of_search(found))
        return self._fitting.offer

    def press(self) -> None:
        """Start, or cancel what is going on."""
        bench, pair = self._bench, self._pair
        if self.active:
            bench.pump.cancel(DistilJob.FINDING)
            return
        partner, sparse, layer = pair.partner, bench.session.sparse, pair.layer
        if partner is None or sparse is None or layer is None:
            return
        self.forget()
        self._refining.forget()
        self._share, self._started = 0.0, partner
        self._slide, self._of = weakref.ref(sparse), weakref.ref(layer)
        bench.said.emit("")
        bench.pump.start(
            find_work(sparse, partner, pair.step.chosen_kind, pair.own_landmarks()),
            key=DistilJob.FINDING,
            on_reports=self._reported,
            on_end=self._ended,
        )
        bench.changed.emit()

    def turn(self) -> None:
        """Lay the partner as offered."""
        offer, partner = self.offer, self._pair.partner
        if offer is not None and partner is not None:
            self._lay(partner, offer.alignment)

    def undo(self) -> None:
        """Lay the partner as it was before it was refined, found or turned."""
        self._fitting.forget()
        self._refining.forget()
        if self._bench.session.undo():
            self._pair.lay()
            self._bench.changed.emit()

    def forget(self) -> None:
        """Take back what was said, and what is going on: something else was chosen."""
        self._found = self._started = None
        self._bench.pump.abandon(DistilJob.FINDING)

    def show(self) -> None:
        """Draw the buttons and the words."""
        step, pair = self._pair.step, self._pair
        self._leave_other_pair()
        partner, offer = pair.partner, self.offer
        step.find.setText("Cancel" if self.active else "Find")
        sparse, picking = self._bench.session.sparse, pair.landmarks.active
        why = why_no_finding(sparse, partner, picking=picking)
        explain(step.find, step.find_tip, why)
        step.undo.setVisible(partner is not None and partner.earlier is not None)
        step.show_offer("" if offer is None else offer.words)
        step.words.tell(About.FINDING, self._words())

    def _words(self) -> str:
        if self.active:
            return f"Looking for the partner, every way round… {self._share:.0%}"
        found, started = self._found, self._started
        if found is None or started is None:
            return ""
        partner = self._pair.partner
        if partner is not None and partner.registration is found.registration:
            return say_found(partner, found)
        refused = verdict_on(started, found) is WhatToDo.REFUSE
        return say_found(started, found) if refused and self._is_waiting() else ""

    def _is_waiting(self) -> bool:
        """Whether the partner lies as when it was looked for."""
        partner, started = self._pair.partner, self._started
        return (
            not self.active
            and partner is not None
            and started is not None
            and partner.registration is started.registration
        )

    def _leave_other_pair(self) -> None:
        """Forget what is of layers that are no longer chosen."""
        if self._of is None or self._slide is None:
            return
        layer, of = self._pair.layer, self._of()
        same = layer is not None and of is not None and show_same(layer, of)
        if not same or self._slide() is not self._bench.session.sparse:
            self._of = self._slide = None
            self.forget()

    def _lay(self, partner: Partner, found: SectionAlignment) -> None:
        self._fitting.forget()
        self._refining.forget()
        if self._bench.session.take_found(partner, found):
            self._pair.lay()
        self._bench.changed.emit()

    def _reported(self, reports: list[Found | float]) -> None:
        last = reports[-1]
        if isinstance(last, float):
            self._share = last
        else:
            self._found = last
        self.show()

    def _ended(self, job: Job[Found | float]) -> None:
        bench, found, started = self._bench, self._found, self._started
        if job.state is JobState.FAILED:
            bench.said.emit(job.error)
        if found is None or started is None:
            self.forget()
        elif started is not self._pair.partner:
            self.forget()
            bench.said.emit("The layers were changed meanwhile: press Find again.")
        elif verdict_on(started, found) is WhatToDo.LAY:
            self._lay(started, of_search(found))
        bench.changed.emit()
