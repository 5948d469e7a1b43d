"""Offers to lay a partner turned or mirrored, in the window."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QObject

from napari_histodistill.controllers.distil.alignment import (
    TurnOffer,
    pose_work,
    turn_offer,
    wants_pose,
)
from napari_histodistill.controllers.distil.jobs import DistilJob
from napari_histodistill.distill.layers.poses import PoseSearch
from napari_histodistill.distill.layers.registration import Registration

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.slides import Slide
    from napari_histodistill.widgets.distil.align.fitting import LandmarkFitting
    from napari_histodistill.widgets.distil.align.pair import AlignedPair
    from napari_histodistill.widgets.distil.align.refining import Refining

    Doubles = npt.NDArray[np.float64]
    WeakSlide = weakref.ref[Slide]


class Turning(QObject):
    """Offers to lay the partner turned or mirrored; part of step 2.

    By what both layers show, as long as nobody has aligned them, or by landmarks.
    """

    def __init__(
        self, pair: AlignedPair, fitting: LandmarkFitting, refining: Refining
    ) -> None:
        super().__init__(pair)
        self._bench, self._pair = pair.bench, pair
        self._fitting, self._refining = fitting, refining
        # Not the slides themselves: they are closed with their layers.
        self._looked: tuple[WeakSlide, WeakSlide, Doubles] | None = None
        self._seen: TurnOffer | None = None
        self._taken: tuple[Registration, Registration | None] | None = None

    @property
    def offer(self) -> TurnOffer | None:
        """What is offered now."""
        partner = self._pair.partner
        if wants_pose(self._bench.session.sparse, partner):
            return self._seen if self._is_of_these() else None
        return self._fitting.offer

    def turn(self) -> None:
        """Lay the partner as offered."""
        offer, place = self.offer, self._bench.session.aligned
        if offer is None or place is None:
            return
        self._taken = offer.registration, self._pair.known
        self._put(place, offer.registration)

    def turn_back(self) -> None:
        """Lay the partner as before."""
        place = self._bench.session.aligned
        if self._taken is not None and place is not None:
            before, self._taken = self._taken[1], None
            self._put(place, before)

    def show(self) -> None:
        """Draw the offer; look at the layers if nobody has yet."""
        self._look()
        offer, taken = self.offer, self._taken
        turned = taken is not None and taken[0] is self._pair.known
        self._pair.step.show_offer(
            "" if offer is None else offer.words, can_turn_back=turned
        )

    def _put(self, place: int, registration: Registration | None) -> None:
        self._refining.forget()
        self._fitting.forget()
        self._bench.session.put_registration(place, registration)
        self._pair.lay()
        self._bench.changed.emit()

    def _look(self) -> None:
        sparse, partner = self._bench.session.sparse, self._pair.partner
        if not wants_pose(sparse, partner) or self._is_of_these():
            return
        assert sparse is not None
        assert partner is not None
        assert partner.slide is not None
        slides = weakref.ref(sparse), weakref.ref(partner.slide)
        self._looked = *slides, partner.lies[:2, :2]
        self._seen = None
        self._bench.pump.start(
            pose_work(sparse, partner),
            key=DistilJob.TURNING,
            on_reports=self._reported,
            on_end=lambda _job: self._bench.changed.emit(),
        )

    def _is_of_these(self) -> bool:
        partner, looked = self._pair.partner, self._looked
        return (
            looked is not None
            and partner is not None
            and looked[0]() is self._bench.session.sparse
            and looked[1]() is partner.slide
            and np.allclose(looked[2], partner.lies[:2, :2])
        )

    def _reported(self, reports: list[PoseSearch]) -> None:
        self._seen = turn_offer(reports[-1])
