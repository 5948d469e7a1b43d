"""The pairs that partners give: laid out, and a few read to look at, by a job."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import cycle
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_histodistill.controllers.distil.partners import (
    Partner,
    PartnerKind,
    look_over,
)
from napari_histodistill.controllers.explore.teach.painting import PALETTE
from napari_histodistill.distill.exchange.transforms import without_evidence
from napari_histodistill.distill.layers.kinds import PartnerReading
from napari_histodistill.distill.layers.partners import DenseLayer, Spots, to_look_at
from napari_histodistill.distill.pairs.plan import PairPlan, Sampling, plan_pairs
from napari_histodistill.distill.pairs.pool import pool_pairs
from napari_histodistill.distill.pairs.provenance import (
    AlignedBy,
    ImageOrigin,
    PartnerOrigin,
    SectionOrigin,
)
from napari_histodistill.distill.pairs.store import PAIRS, write_pairs
from napari_histodistill.distill.recipes.presets import PartnerInput, TileLabels
from napari_histodistill.distill.runs.folder import start_run
from napari_histodistill.distill.sections.partners import (
    called_by_kind,
    tile_px_of,
)
from napari_histodistill.distill.sections.recipe import input_of
from napari_histodistill.errors import InputError
from napari_histodistill.layers.slide_layer import CHANNEL_COLORS
from napari_histodistill.students.spec import ClassSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.distill.recipes.config import DistillConfig
    from napari_histodistill.running import CancelToken
    from napari_histodistill.slides import Slide

    Pixels = npt.NDArray[np.uint8]

TWINS = 6
"""Pairs that are shown before any is written."""


class Twin(NamedTuple):
    """A pair to look at.

    Attributes
    ----------
    sparse : ndarray
        ``(h, w, 3)`` uint8.
    dense : tuple of ndarray
        Likewise, of every partner that has pixels.
    confidence : float
        How surely both show the same tissue, 0 to 1.
    """

    sparse: Pixels
    dense: tuple[Pixels, ...]
    confidence: float


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """Pairs were laid out; some are here to look at.

    Attributes
    ----------
    plan : PairPlan
        All of them.
    twins : tuple of Twin
        A few of them.
    partners : tuple of Partner
        That were chosen for them.
    """

    plan: PairPlan
    twins: tuple[Twin, ...]
    partners: tuple[Partner, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """Progress of writing pairs; with a folder, the run is ready to start."""

    done: int
    total: int
    folder: Path | None = None


def section_of(planned: Planned) -> str:
    """Return which section pairs are of, whatever its colours."""
    return planned.plan.sparse.info.section


def why_no_pairs(
    sparse: Slide | None, partners: Sequence[Partner], kept: Sequence[Planned]
) -> str:
    """Return why pairs cannot be laid out; empty if they can.

    Parameters
    ----------
    sparse : Slide or None
        The H&E.
    partners : sequence of Partner
        What teaches.
    kept : sequence of Planned
        Pairs of other sections.
    """
    if sparse is None:
        return (
            "No H&E yet: drop a slide on the window, or File › Open Sample › "
            "HistoDistill."
        )
    no_scale = "{} does not say how many µm a pixel spans: type it in step 1."
    if sparse.usable_mpp is None:
        return no_scale.format(sparse.name)
    if not sparse.info.is_rgb:
        return f"{sparse.name} is not an RGB image: the model sees H&E in colour."
    if sparse.info.section in [section_of(x) for x in kept]:
        return (
            f"Pairs of {sparse.name} are kept: choose another section's H&E and its "
            "partner, or start."
        )
    if not partners:
        return "Choose a partner: what should teach the model?"
    for partner in partners:
        if partner.slide is not None and partner.slide.usable_mpp is None:
            return no_scale.format(partner.name)
    return ""


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
        others = [p for p in partners if p.kind is not PartnerKind.SAME]
        layers = [(p, layer) for p in others for layer in _dense(p, sampling)]
        found = [layer for _, layer in layers]
        cancel.check()
        # Under their own names until here: a refusal names the layer.
        plan = plan_pairs(sparse, found, sampling)
        plan = replace(
            plan,
            partners=tuple(called_by_kind(plan.partners)),
            origin=SectionOrigin(
                ImageOrigin.of(sparse),
                tuple(_origin(p) for p, _ in layers),
                approved_by=_approver_in_files(others),
            ),
        )
        cancel.check()
        pool_pairs([*(section.plan for section in kept), plan])
        yield Planned(plan, tuple(_twins(plan, cancel)), tuple(partners))

    return work


def write_work(plans: Sequence[PairPlan], config: DistillConfig, folder: Path) -> Work:
    """Return the work that writes pairs of sections and prepares the run's folder."""

    def work(cancel: CancelToken) -> Iterator[Written]:
        plan = pool_pairs(plans)
        if folder.exists():
            msg = f"{folder} is there already: choose another name."
            raise InputError(msg)
        try:
            for done in write_pairs(folder / PAIRS, plan, cancel=cancel):
                yield Written(done, len(plan))
        except BaseException:
            with suppress(OSError):  # it was made for the pairs
                folder.rmdir()
            raise
        start_run(config, folder, folder / PAIRS)
        yield Written(len(plan), len(plan), folder)

    return work


def _approver_in_files(partners: Sequence[Partner]) -> str:
    """Return who approved how all lie, as their files say; "" without one name."""
    names = {p.alignment.approved_by if p.alignment else "" for p in partners}
    return names.pop() if len(names) == 1 else ""


def _origin(partner: Partner) -> PartnerOrigin:
    """Return where a partner comes from, and how it was aligned."""
    slide, known = partner.slide, partner.alignment
    image = ImageOrigin(partner.name) if slide is None else ImageOrigin.of(slide)
    if known is None:
        return PartnerOrigin.of(
            image, AlignedBy.PLACED, without_evidence(partner.matrix)
        )
    return PartnerOrigin.of(
        image,
        known.by,
        known.registration,
        file=known.file,
        file_digest=known.file_digest,
        accepted=known.accepted,
    )


def classes_on_offer(sections: Sequence[Planned]) -> TileLabels | None:
    """Return the classes that can label tiles, of all sections; None without several.

    They are those of the first partner that is a mask read as classes.
    """
    if not sections:
        return None
    for place, layer in enumerate(sections[0].plan.partners):
        if isinstance(layer, Spots) or layer.reading is not PartnerReading.CLASSES:
            continue
        of_all = (x.plan.partners[place] for x in sections)
        names = [
            n for one in of_all if isinstance(one, DenseLayer) for n in one.channels
        ]
        different = tuple(dict.fromkeys(names))
        if len(different) > 1:
            colors = zip(different, cycle(PALETTE), strict=False)
            named = tuple(ClassSpec(name=name, color=color) for name, color in colors)
            return TileLabels(layer.name, named)
    return None


def inputs_of(planned: Planned) -> list[PartnerInput]:
    """Return the partners of laid-out pairs as a recipe names them."""
    # The plan has every partner but the H&E itself, in their order.
    others = iter(planned.plan.partners)
    tile_px = planned.plan.sampling.tile_px
    own = PartnerInput("", "image", tile_px)
    return [
        own if p.kind is PartnerKind.SAME else input_of(next(others))
        for p in planned.partners
        for _ in p.choice.parts
    ]


def _dense(partner: Partner, sampling: Sampling) -> Iterator[DenseLayer | Spots]:
    """Yield what a partner is as often as it is read."""
    tile_um = sampling.tile_um
    confidence = partner.confidence(tile_um)
    if partner.kind is PartnerKind.SPOTS:
        assert partner.spots is not None
        yield replace(partner.spots, matrix=partner.matrix, confidence=confidence)
        return
    assert partner.slide is not None
    for reading in partner.choice.parts:
        layer = look_over(
            partner,
            tile_px=tile_px_of(partner.slide, tile_um),
            confidence=confidence,
            reading=reading,
        )
        # Two partners of one layer need two names.
        marker = len(partner.choice.parts) > 1 and layer.stains is not None
        yield replace(layer, name=f"{layer.name} marker") if marker else layer


def _twins(plan: PairPlan, cancel: CancelToken) -> Iterator[Twin]:
    for pair in np.unique(np.linspace(0, len(plan) - 1, TWINS).astype(int)).tolist():
        cancel.check()
        shown = tuple(
            to_look_at(plan.partner_tile(pair, k), layer.kind, CHANNEL_COLORS)
            for k, layer in enumerate(plan.partners)
            if not isinstance(layer, Spots)
        )
        yield Twin(plan.sparse_tile(pair), shown, float(plan.confidence[pair]))
