"""Pairs of one aligned section, with where they come from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_histodistill.distill.pairs.plan import PairPlan, Sampling, plan_pairs
from napari_histodistill.distill.pairs.pool import free_name
from napari_histodistill.distill.pairs.provenance import PartnerOrigin, SectionOrigin
from napari_histodistill.distill.sections.partners import (
    called_by_kind,
    layers_of,
    tile_px_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

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


@dataclass(frozen=True, slots=True, eq=False)
class AlignedPart:
    """A partner of a section, and how it lies.

    Attributes
    ----------
    section : OpenSection
        The H&E and this partner.
    alignment : SectionAlignment
        How it lies.
    """

    section: OpenSection
    alignment: SectionAlignment

    def layers(self, sampling: Sampling) -> list[DenseLayer | Spots]:
        """Return the partner as often as it is read."""
        section, known = self.section, self.alignment.registration
        sure = confidence_of(known, sampling.tile_um, self.alignment.error_um)
        if section.spots is not None:
            return [replace(section.spots, matrix=known.matrix, confidence=sure)]
        assert section.dense is not None
        return [
            *layers_of(
                section.dense,
                section.sort,
                unlabelled=section.files.unlabelled,
                stains=section.stains,
                matrix=known.matrix,
                tile_px=tile_px_of(section.dense, sampling.tile_um),
                confidence=sure,
            )
        ]

    def origin(self) -> PartnerOrigin:
        """Return where the partner comes from."""
        found = self.alignment
        return PartnerOrigin.of(
            self.section.origins()[1],
            found.by,
            found.registration,
            file=found.file,
            file_digest=found.file_digest,
            accepted=found.accepted,
        )


def plan_section(parts: Sequence[AlignedPart], sampling: Sampling) -> PairPlan:
    """Lay out the pairs of a section.

    Parameters
    ----------
    parts : sequence of AlignedPart
        Its partners, of one H&E.
    sampling : Sampling
        Layout of the pairs.

    Raises
    ------
    InputError
        In one sentence, as :func:`.plan_pairs`.
    """
    found = [(part, layer) for part in parts for layer in part.layers(sampling)]
    names: list[str] = []
    for _, layer in found:
        names.append(free_name(layer.name, names))
    # Under the files' names until here: a refusal names them.
    layers = [
        replace(layer, name=name) for (_, layer), name in zip(found, names, strict=True)
    ]
    plan = plan_pairs(parts[0].section.sparse, layers, sampling)
    return replace(
        plan,
        partners=tuple(called_by_kind(plan.partners)),
        origin=origin_of(parts[0], [part for part, _ in found]),
    )


def origin_of(first: AlignedPart, partners: Sequence[AlignedPart]) -> SectionOrigin:
    """Return where the pairs of a section come from.

    Parameters
    ----------
    first : AlignedPart
        Says what holds for the section.
    partners : sequence of AlignedPart
        As the pairs have them.
    """
    files = first.section.files
    return SectionOrigin(
        first.section.origins()[0],
        tuple(part.origin() for part in partners),
        files.relation,
        files.approved_by or first.alignment.approved_by,
        files.case,
    )
