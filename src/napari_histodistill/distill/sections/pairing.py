"""Pairs of one aligned section, with where they come from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_histodistill.distill.pairs.plan import PairPlan, Sampling, plan_pairs
from napari_histodistill.distill.pairs.provenance import PartnerOrigin, SectionOrigin
from napari_histodistill.distill.sections.partners import (
    called_by_kind,
    layer_of,
    tile_px_of,
)

if TYPE_CHECKING:
    from napari_histodistill.distill.layers.partners import DenseLayer, Spots
    from napari_histodistill.distill.layers.registration import Registration
    from napari_histodistill.distill.sections.alignment import SectionAlignment
    from napari_histodistill.distill.sections.opening import OpenSection


def confidence_of(known: Registration, tile_um: float, error_um: float | None) -> float:
    """Return how surely a tile's partner shows the same tissue; 1 if nothing is known.

    Parameters
    ----------
    known : Registration
        How the partner lies.
    tile_um : float
        Edge of a tile, µm.
    error_um : float or None
        Its stated error; None where there is none.
    """
    return 1.0 if error_um is None else known.confidence(tile_um)


def plan_section(
    section: OpenSection, alignment: SectionAlignment, sampling: Sampling
) -> PairPlan:
    """Lay out the pairs of an aligned section.

    Raises
    ------
    InputError
        In one sentence, as :func:`.plan_pairs`.
    """
    known = alignment.registration
    sure = confidence_of(known, sampling.tile_um, alignment.error_um)
    found: DenseLayer | Spots
    if section.spots is not None:
        found = replace(section.spots, matrix=known.matrix, confidence=sure)
    else:
        assert section.dense is not None
        found = layer_of(
            section.dense,
            section.sort,
            matrix=known.matrix,
            tile_px=tile_px_of(section.dense, sampling.tile_um),
            confidence=sure,
        )
    # Under its own name until here: a refusal names the file.
    plan = plan_pairs(section.sparse, [found], sampling)
    return replace(
        plan,
        partners=tuple(called_by_kind(plan.partners)),
        origin=origin_of(section, alignment),
    )


def origin_of(section: OpenSection, alignment: SectionAlignment) -> SectionOrigin:
    """Return where the pairs of a section come from."""
    he, partner = section.origins()
    files = section.files
    return SectionOrigin(
        he,
        (
            PartnerOrigin.of(
                partner,
                alignment.by,
                alignment.registration,
                file=alignment.file,
                file_digest=alignment.file_digest,
            ),
        ),
        files.relation,
        files.approved_by or alignment.approved_by,
        files.case,
    )
