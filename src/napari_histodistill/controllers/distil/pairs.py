"""Partners on the screen, and the pairs they give: what a job reads for the window."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.distill.layers.partners import (
    DenseLayer,
    Spots,
    dense_layer,
    to_look_at,
)
from napari_histodistill.distill.pairs.plan import PairPlan, Sampling, plan_pairs
from napari_histodistill.distill.pairs.pool import pool_pairs
from napari_histodistill.distill.recipes.presets import PartnerInput
from napari_histodistill.layers.slide_layer import CHANNEL_COLORS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.distill.layers.refinement import Refinement
    from napari_histodistill.distill.layers.registration import Registration
    from napari_histodistill.running import CancelToken
    from napari_histodistill.slides import Slide

    Floats = npt.NDArray[np.float64]
    Pixels = npt.NDArray[np.uint8]


class PartnerKind(Enum):
    """What sort of thing teaches."""

    PICTURE = "picture"
    MASK = "mask"
    SPOTS = "spots"
    SAME = "same"
    """The sparse layer itself, at its full resolution."""


SAME = PartnerKind.SAME

TWINS = 6
"""Pairs that are shown before any is written."""

DENSE_PX = (32, 224)
"""Edge of a partner's tiles: its own resolution, within these."""

MEANINGS: dict[PartnerKind, str] = {
    PartnerKind.PICTURE: (
        "The student learns what these channels show, and later sees only H&E."
    ),
    PartnerKind.MASK: (
        "The student learns where the outlined things are. Numbered objects count as "
        "inside or outside."
    ),
    PartnerKind.SPOTS: (
        "Tiles are centred on the spots; the student learns their genes."
    ),
    PartnerKind.SAME: (
        "The student learns at low magnification what the same place shows at full "
        "resolution: no second stain is needed."
    ),
}


@dataclass(frozen=True, slots=True, eq=False)
class Partner:
    """A layer that may teach.

    Attributes
    ----------
    name : str
        Of the layer.
    kind : PartnerKind
        What sort of thing it is.
    slide : Slide or None
        Pixels of a picture or mask.
    spots : Spots or None
        Of ``spots``.
    lies : ndarray
        ``(3, 3)``: µm of the sparse world to µm of the partner's, as the layers lie.
    registration : Registration or None
        From landmarks; goes before ``lies``.
    refinement : Refinement or None
        Where ``registration`` comes from, if what both layers show refined it.
    """

    name: str
    kind: PartnerKind
    slide: Slide | None = None
    spots: Spots | None = None
    lies: Floats = field(default_factory=lambda: np.eye(3))
    registration: Registration | None = None
    refinement: Refinement | None = None

    @property
    def matrix(self) -> Floats:
        """The sparse world to this one's, µm."""
        return self.lies if self.registration is None else self.registration.matrix

    def confidence(self, tile_um: float) -> float:
        """How surely a tile's partner shows the same tissue; 1 if nothing is known."""
        known = self.registration
        if known is None or not math.isfinite(known.median_um):
            return 1.0
        return known.confidence(tile_um)


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """Pairs were laid out; some are here to look at.

    Attributes
    ----------
    plan : PairPlan
        All of them.
    twins : tuple
        ``(sparse, dense, confidence)`` each; pictures ``(h, w, 3)`` uint8.
    partners : tuple of Partner
        That were chosen for them.
    """

    plan: PairPlan
    twins: tuple[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None, float], ...]
    partners: tuple[Partner, ...]


def plan_work(
    sparse: Slide,
    partners: Sequence[Partner],
    sampling: Sampling,
    kept: Sequence[Planned] = (),
) -> Work:
    """Return the work that lays out pairs and reads a few to look at.

    Pairs that do not go with those of the sections kept are refused.
    """

    def work(cancel: CancelToken) -> Iterator[Planned]:
        found = [_dense(p, sampling) for p in partners if p.kind is not SAME]
        cancel.check()
        plan = plan_pairs(sparse, found, sampling)
        cancel.check()
        pool_pairs([*(section.plan for section in kept), plan])
        yield Planned(plan, tuple(_twins(plan, cancel)), tuple(partners))

    return work


def inputs_of(planned: Planned) -> list[PartnerInput]:
    """Return the partners of laid-out pairs as a recipe names them."""
    # The plan has every partner but the H&E itself, in their order.
    others = iter(planned.plan.partners)
    tile_px = planned.plan.sampling.tile_px
    return [
        PartnerInput("", "image", tile_px) if p.kind is SAME else _input(next(others))
        for p in planned.partners
    ]


def look_over(
    partner: Partner, *, tile_px: int = 2, confidence: float = 1.0
) -> DenseLayer:
    """Look a partner with pixels over once, lying as it is aligned.

    Parameters
    ----------
    partner : Partner
        A picture or a mask.
    tile_px : int
        Edge of its tiles; of no account where none is cut.
    confidence : float
        Of its registration.
    """
    assert partner.slide is not None
    return dense_layer(
        partner.slide,
        name=partner.name,
        tile_px=tile_px,
        kind="mask" if partner.kind is PartnerKind.MASK else "picture",
        matrix=partner.matrix,
        confidence=confidence,
    )


def _input(found: DenseLayer | Spots) -> PartnerInput:
    if isinstance(found, Spots):
        return PartnerInput(found.name, "expression", DENSE_PX[0])
    return PartnerInput(found.name, found.kind, found.tile_px)


def _dense(partner: Partner, sampling: Sampling) -> DenseLayer | Spots:
    tile_um = sampling.tile_um
    if partner.kind is PartnerKind.SPOTS:
        assert partner.spots is not None
        confidence = partner.confidence(tile_um)
        return replace(partner.spots, matrix=partner.matrix, confidence=confidence)
    assert partner.slide is not None
    finest = partner.slide.require_mpp().mean
    return look_over(
        partner,
        tile_px=int(np.clip(round(tile_um / finest), *DENSE_PX)),
        confidence=partner.confidence(tile_um),
    )


def _twins(
    plan: PairPlan, cancel: CancelToken
) -> Iterator[tuple[Pixels, Pixels | None, float]]:
    for pair in np.unique(np.linspace(0, len(plan) - 1, TWINS).astype(int)).tolist():
        cancel.check()
        twin = None
        if plan.partners and not isinstance(plan.partners[0], Spots):
            kind = plan.partners[0].kind
            twin = to_look_at(plan.partner_tile(pair, 0), kind, CHANNEL_COLORS)
        yield plan.sparse_tile(pair), twin, float(plan.confidence[pair])
