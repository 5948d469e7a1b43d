"""Landmarks are fitted in a thread; the newest ones count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject

from napari_histodistill.controllers.distil.align.alignment import TurnOffer
from napari_histodistill.controllers.distil.align.fitting import (
    Fitted,
    FitWish,
    fit_wish,
    fit_work,
    mirror_offer,
    side_wish,
)
from napari_histodistill.controllers.distil.jobs import DistilJob
from napari_histodistill.controllers.shared.job import Job, JobState

if TYPE_CHECKING:
    from napari_histodistill.distill.layers.registration import Registration
    from napari_histodistill.widgets.distil.align.pair import AlignedPair
    from napari_histodistill.widgets.distil.align.refining import Refining


class LandmarkFitting(QObject):
    """Fits the landmarks that are there; part of step 2.

    A fit is used only if it is of the landmarks, layers and slides of the moment when
    it is ready; a newer one takes the place of the one before.
    """

    def __init__(self, pair: AlignedPair, refining: Refining) -> None:
        super().__init__(pair)
        self._bench, self._pair, self._refining = pair.bench, pair, refining
        self._asked: FitWish | None = None
        self._fitted: Fitted | None = None
        self._looked: Registration | None = None

    @property
    def active(self) -> bool:
        """Whether landmarks wait for their fit."""
        return self._asked is not None and self._asked.known is None

    @property
    def offer(self) -> TurnOffer | None:
        """The other side of the partner, where landmarks say that it is seen."""
        if self.active:
            return None
        return mirror_offer(self._pair.partner, self._fitted)

    def fit(self) -> None:
        """Fit the landmarks that are there."""
        wish = self._wish()
        if wish is None:
            self.forget()
        else:
            self._refining.forget()
            self._start(wish)

    def show(self) -> None:
        """Ask about the other side of a fit that was not made here."""
        known, fitted = self._pair.known, self._fitted
        made_here = fitted is not None and fitted.registration is known
        if self.active or known is None or made_here or known is self._looked:
            return
        wish = side_wish(self._pair.partner, self._pair.own_landmarks())
        if wish is not None:
            self._looked = known
            self._start(wish)

    def forget(self) -> None:
        """Fit nothing: the partner was laid by something else."""
        self._asked = None
        self._bench.pump.abandon(DistilJob.FITTING)

    def _wish(self) -> FitWish | None:
        pair, kind = self._pair, self._pair.step.chosen_kind
        return fit_wish(pair.partner, pair.own_landmarks(), kind)

    def _start(self, wish: FitWish) -> None:
        self._asked = wish
        self._bench.pump.start(
            fit_work(wish),
            key=DistilJob.FITTING,
            on_reports=self._reported,
            on_end=self._ended,
        )

    def _reported(self, reports: list[Fitted]) -> None:
        found, bench, pair = reports[-1], self._bench, self._pair
        self._fitted = found
        if found.wish.known is not None:
            return
        if bench.session.take_fit(found, self._wish()):
            self._refining.forget()
            bench.said.emit("")
            # Not during picking: a layer that moves under the mouse confuses.
            if not pair.landmarks.active:
                pair.lay()

    def _ended(self, job: Job[Fitted]) -> None:
        self._asked = None
        if job.state is JobState.FAILED:
            self._bench.said.emit(job.error)
        self._bench.changed.emit()
