"""Pairs of several sections as one set: one student learns from all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.distill.layers.partners import DenseLayer, Spots
from napari_histodistill.distill.pairs.lost import all_lost
from napari_histodistill.distill.pairs.split import PairPlaces
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from napari_histodistill.distill.pairs.lost import Lost
    from napari_histodistill.distill.pairs.plan import PairPlan, Sampling
    from napari_histodistill.distill.pairs.provenance import SectionOrigin

FEWEST_GENES = 2
"""Fewest genes in common that make a table."""


@dataclass(frozen=True, slots=True, eq=False)
class PairPool:
    """Pairs of one or more sections; make one with :func:`pool_pairs`.

    It has the interface of :class:`.PairPlan`, which holds one section. Positions are
    in the world of each pair's own section.

    Attributes
    ----------
    plans : tuple of PairPlan
        One plan per section, alike in everything that a student sees.
    centres_um : ndarray
        ``(n, 2)`` float64, (y, x) in the world of the pair's section.
    regions : ndarray
        ``(n,)`` str; two sections never share a region.
    confidence : ndarray
        ``(n,)`` float32.
    """

    plans: tuple[PairPlan, ...]
    centres_um: npt.NDArray[np.float64]
    regions: npt.NDArray[np.str_]
    confidence: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.regions)

    @property
    def sampling(self) -> Sampling:
        """Layout of the pairs, the same in all sections."""
        return self.plans[0].sampling

    @property
    def partners(self) -> tuple[DenseLayer | Spots, ...]:
        """Partners of the first section, whose names the pool uses."""
        return self.plans[0].partners

    @property
    def source(self) -> str:
        """The layers, in words."""
        return "; ".join(plan.source for plan in self.plans)

    @property
    def origins(self) -> tuple[SectionOrigin | None, ...]:
        """Where every section comes from, where it is known."""
        return tuple(plan.origin for plan in self.plans)

    @property
    def section_names(self) -> tuple[str, ...]:
        """Names of the :attr:`sections`."""
        return section_names(self.plans)

    @property
    def sections(self) -> npt.NDArray[np.intp]:
        """Index of each pair's section, ``(n,)``."""
        return np.repeat(np.arange(len(self.plans)), [len(x) for x in self.plans])

    @property
    def lost(self) -> Mapping[Lost, int]:
        """Number of places that give no pair, by reason, of all sections."""
        return all_lost(plan.lost for plan in self.plans)

    @property
    def places(self) -> PairPlaces:
        """Where the tiles lie."""
        edge = self.sampling.tile_um
        return PairPlaces(self.sections, self.centres_um, edge)

    def sparse_tile(self, pair: int) -> npt.NDArray[np.uint8]:
        """Return ``(tile_px, tile_px, 3)`` uint8 RGB of a pair."""
        plan, row = self._find(pair)
        return plan.sparse_tile(row)

    def partner_tile(self, pair: int, partner: int) -> npt.NDArray[Any]:
        """Return a partner's tile: ``(h, w, c)`` uint8, or ``(genes,)`` float32."""
        plan, row = self._find(pair)
        return plan.partner_tile(row, partner)

    def _find(self, pair: int) -> tuple[PairPlan, int]:
        for plan in self.plans:
            if pair < len(plan):
                return plan, pair
            pair -= len(plan)
        raise IndexError(pair)


def pool_pairs(plans: Sequence[PairPlan]) -> PairPool:
    """Put the pairs of several sections together.

    Partners are matched by their order. A partner's images get the size that they have
    in the first section; of the spots' genes, those measured in all sections are kept.

    Parameters
    ----------
    plans : sequence of PairPlan
        At least one.

    Raises
    ------
    InputError
        If a section's tiles or partners are not what the first section's are.
    """
    first, *others = plans
    for other in others:
        _check_alike(first, other)
    alike = _with_common_genes([first, *(_with_sizes_of(first, x) for x in others)])
    alike = _with_common_classes(alike)
    regions = [
        # Two files may have the same name.
        np.array([f"section {k} {name}" for name in plan.regions]) if others
        else plan.regions
        for k, plan in enumerate(alike, start=1)
    ]  # fmt: skip
    return PairPool(
        plans=tuple(alike),
        centres_um=np.concatenate([plan.centres_um for plan in alike]),
        regions=np.concatenate(regions),
        confidence=np.concatenate([plan.confidence for plan in alike]),
    )


def section_names(plans: Sequence[PairPlan]) -> tuple[str, ...]:
    """Return a name for every section: its slide's, numbered where two are alike.

    A case has one name, however many sections it has: they are held out together.
    """
    names: list[str] = []
    for plan in plans:
        (own,) = plan.section_names
        of_case = plan.origin is not None and plan.origin.case
        names.append(own if of_case else free_name(own, names))
    return tuple(names)


def free_name(name: str, taken: Sequence[str]) -> str:
    """Return a name that is not taken yet: two files may have the same one."""
    number, free = 2, name
    while free in taken:
        number, free = number + 1, f"{name} ({number})"
    return free


def _check_alike(first: PairPlan, other: PairPlan) -> None:
    """Refuse a section that would show the student, or teach it, something else."""
    here, there = first.sampling, other.sampling
    name = other.sparse.name
    if (here.tile_px, here.mpp) != (there.tile_px, there.mpp):
        msg = (
            f"{name}: tiles of {there.tile_px} px at {there.mpp:g} µm/px, those of "
            f"{first.sparse.name} are of {here.tile_px} px at {here.mpp:g} µm/px: "
            "sample all sections in the same way."
        )
        raise InputError(msg)
    if len(first.partners) != len(other.partners):
        msg = (
            f"{name} has {len(other.partners)} partners, {first.sparse.name} has "
            f"{len(first.partners)}: every section needs the same."
        )
        raise InputError(msg)
    for one, two in zip(first.partners, other.partners, strict=True):
        known, found = _shows(one), _shows(two)
        if known != found:
            msg = (
                f"{name}: {two.name} shows {found}, {one.name} of "
                f"{first.sparse.name} shows {known}: every section needs partners that "
                "show the same."
            )
            raise InputError(msg)


def _shows(partner: DenseLayer | Spots) -> str:
    """Return in words what a partner shows, and must show in every section."""
    if isinstance(partner, Spots):
        return "genes at spots"
    if partner.kind == "mask":
        if partner.instances:
            return "numbered objects"
        unknown = partner.labelled is not None
        return f"classes, unlabelled {'unknown' if unknown else 'background'}"
    if partner.kind == "image":
        return "a stain in colours"
    return f"the channels {', '.join(partner.slide.info.channels)}"


def _with_sizes_of(first: PairPlan, other: PairPlan) -> PairPlan:
    """Bring partners' tiles to the first section's size: microscopes differ."""
    sized = [
        replace(two, tile_px=one.tile_px)
        if isinstance(one, DenseLayer) and isinstance(two, DenseLayer)
        else two
        for one, two in zip(first.partners, other.partners, strict=True)
    ]
    return replace(other, partners=tuple(sized))


def _with_common_classes(plans: list[PairPlan]) -> list[PairPlan]:
    """Number the classes of masks alike in all sections: by their names."""
    for place in range(len(plans[0].partners)):
        masks = [plan.partners[place] for plan in plans]
        found = [
            mask.classes.names
            for mask in masks
            if isinstance(mask, DenseLayer) and mask.classes is not None
        ]
        if len(set(found)) > 1:
            names = tuple(dict.fromkeys(name for names in found for name in names))
            plans = [_with_classes(plan, place, names) for plan in plans]
    return plans


def _with_classes(plan: PairPlan, place: int, names: tuple[str, ...]) -> PairPlan:
    mask = plan.partners[place]
    assert isinstance(mask, DenseLayer)
    assert mask.classes is not None
    partners = list(plan.partners)
    partners[place] = replace(mask, classes=mask.classes.among(names))
    return replace(plan, partners=tuple(partners))


def _with_common_genes(plans: list[PairPlan]) -> list[PairPlan]:
    """Keep the genes that all sections' spots have, in the first one's order."""
    tables = [
        next((p for p in x.partners if isinstance(p, Spots)), None) for x in plans
    ]
    known = [table for table in tables if table is not None]
    if len(known) < 2 or len({table.genes for table in known}) == 1:
        return plans
    shared = set(known[0].genes).intersection(*(table.genes for table in known[1:]))
    genes = tuple(gene for gene in known[0].genes if gene in shared)
    if len(genes) < FEWEST_GENES:
        msg = (
            f"{plans[-1].sparse.name}: its spots and those of {plans[0].sparse.name} "
            f"have too few genes in common ({len(genes)}): do both tables name genes "
            "alike?"
        )
        raise InputError(msg)
    return [_with_genes(plan, genes) for plan in plans]


def _with_genes(plan: PairPlan, genes: tuple[str, ...]) -> PairPlan:
    def cut(table: Spots) -> Spots:
        place = {gene: k for k, gene in enumerate(table.genes)}
        values = table.values[:, [place[gene] for gene in genes]]
        return replace(table, genes=genes, values=values)

    partners = [cut(p) if isinstance(p, Spots) else p for p in plan.partners]
    return replace(plan, partners=tuple(partners))
