"""The H&E and the partner that is aligned with it, with their landmarks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image, Layer
from qtpy.QtCore import QObject

from napari_histodistill.controllers.distil.partners import Partner
from napari_histodistill.distill.layers.registration import (
    Registration,
    apply,
    inverse,
)
from napari_histodistill.widgets.distil.align.landmarks import Landmarks
from napari_histodistill.widgets.distil.bench import SAME, DistilBench
from napari_histodistill.widgets.distil.layers import lay_on, own_to_world
from napari_histodistill.widgets.distil.steps import AlignStep

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.distill.sections.alignment import SectionAlignment

    Doubles = npt.NDArray[np.float64]


class AlignedPair(QObject):
    """What all parts of step 2 share: both layers, landmarks, and how the partner lies.

    Parameters
    ----------
    bench : DistilBench
        Viewer, session, jobs and chosen layers.
    step : AlignStep
        The controls.
    """

    def __init__(self, bench: DistilBench, step: AlignStep) -> None:
        super().__init__(bench)
        self.bench, self.step = bench, step
        self.landmarks = Landmarks(bench.viewer, self)

    @property
    def partner(self) -> Partner | None:
        """The partner that is aligned."""
        return self.bench.session.aligned_partner

    @property
    def layer(self) -> Layer | None:
        """Its layer."""
        place = self.bench.session.aligned
        layer = None if place is None else self.bench.partner_layers[place]
        return None if layer is SAME else layer

    @property
    def alignment(self) -> SectionAlignment | None:
        """How the partner is aligned, and what that comes from."""
        return None if self.partner is None else self.partner.alignment

    @property
    def known(self) -> Registration | None:
        """The registration of the partner that is aligned."""
        return None if self.partner is None else self.partner.registration

    def both(self) -> tuple[Image, Layer] | None:
        """Return the layers of the H&E and of the partner that is aligned."""
        sparse, layer = self.bench.sparse_layer, self.layer
        return None if sparse is None or layer is None else (sparse, layer)

    def own_landmarks(self) -> tuple[Doubles, Doubles] | None:
        """Return both sides' landmarks, ``(n, 2)`` µm in either layer's own world."""
        both = self.both()
        if both is None or not self.landmarks.are_of(*both):
            return None
        sparse, partner = self.bench.session.sparse, self.partner
        assert sparse is not None
        assert partner is not None
        assert partner.slide is not None
        here, there = self.landmarks.pairs()
        own = own_to_world(both[0], sparse.usable_mpp)
        partners = own_to_world(both[1], partner.slide.usable_mpp)
        return apply(inverse(own), here), apply(inverse(partners), there)

    def lay(self) -> None:
        """Move the partner's layer, and its landmarks, to where the session says."""
        both, sparse, partner = self.both(), self.bench.session.sparse, self.partner
        if both is None or sparse is None or partner is None or partner.slide is None:
            return
        he, layer = both
        before = own_to_world(layer, partner.slide.usable_mpp)
        lay_on(self.bench.viewer, layer, partner, he, sparse)
        after = own_to_world(layer, partner.slide.usable_mpp)
        self.landmarks.follow(after @ inverse(before))
