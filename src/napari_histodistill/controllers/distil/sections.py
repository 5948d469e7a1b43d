"""Several sections that teach one student, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.controllers.distil.partners import PartnerKind
from napari_histodistill.distill.pairs.lost import Lost, say_lost, say_reason
from napari_histodistill.distill.pairs.pool import pool_pairs
from napari_histodistill.distill.pairs.split import (
    folds_for,
    held_out_rows,
    reaching_across,
)
from napari_histodistill.distill.recipes.presets import VALIDATION_SHARE, enough_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_histodistill.controllers.distil.pairs import Planned
    from napari_histodistill.controllers.distil.partners import Partner


_TEACHERS = {
    PartnerKind.PICTURE: "a second image",
    PartnerKind.MASK: "a mask",
    PartnerKind.SPOTS: "spots with genes",
    PartnerKind.SAME: "its own full resolution",
}


def count_pairs(sections: Sequence[Planned]) -> int:
    """Return how many pairs sections have together."""
    return sum(len(section.plan) for section in sections)


def training_share(pairs: int) -> int:
    """Return about how many pairs are trained on: the split goes by region."""
    return round(pairs * (1 - VALIDATION_SHARE))


def count_straddling(sections: Sequence[Planned]) -> int:
    """Return how many pairs a split by region leaves out: they reach across it.

    Only tiles around spots do: those of a grid lie whole in their region.
    """
    if all(section.plan.spot is None for section in sections):
        return 0
    pool = pool_pairs([section.plan for section in sections])
    if len(np.unique(pool.regions)) < folds_for(VALIDATION_SHARE):
        return 0  # there will be no such split
    held_out = held_out_rows(pool.regions, share=VALIDATION_SHARE, seed=0)
    return len(reaching_across(pool.places, held_out))


def say_kept(kept: Sequence[Planned]) -> str:
    """Return which sections were kept; empty if none was."""
    if not kept:
        return ""
    names = ", ".join(f"{x.plan.sparse.name} ({len(x.plan):,})" for x in kept)
    return f"Kept: {names}."


def say_pairs(
    planned: Planned | None, kept: Sequence[Planned], trained: int, held_out: str
) -> str:
    """Return what the pairs of all sections are, and what they are enough for.

    Parameters
    ----------
    planned : Planned or None
        Pairs at hand.
    kept : sequence of Planned
        Pairs of sections before.
    trained : int
        Pairs that are trained on.
    held_out : str
        The section that is held out whole; "" for regions of all of them.
    """
    sections = (*kept, planned) if planned is not None else tuple(kept)
    if not sections:
        return ""
    pairs = count_pairs(sections)
    left = pairs - trained
    straddling = 0 if held_out else count_straddling(sections)
    trained -= straddling
    split = f"about {trained:,} to train on and {left:,} in held-out regions. "
    if held_out:
        split = f"{trained:,} to train on and {left:,}, all of {held_out}, held out. "
    words = ""
    if planned is not None:
        plan = planned.plan
        words = f"{len(plan):,} pairs of {plan.sampling.tile_um:.0f} µm"
        words += " here. " if kept else f", {split}"
        # Glass around tissue is no loss.
        words += say_lost({**plan.lost, Lost.BACKGROUND: 0})
    if kept:
        words += f"{say_kept(kept)} {pairs:,} pairs in all, {split}"
    if straddling:
        words += f"Not trained on: about {say_reason(Lost.STRADDLES, straddling)}. "
    return words + _say_unknown_errors(sections) + enough_for(trained)


def _say_unknown_errors(sections: Sequence[Planned]) -> str:
    """Return of which partners nobody knows how well they lie; "" of none."""
    names = dict.fromkeys(
        partner.name
        for section in sections
        for partner in section.partners
        if partner.kind is not PartnerKind.SAME and partner.error_um is None
    )
    if not names:
        return ""
    return (
        f"How far {', '.join(names)} is off is not known: pairs count in full "
        "(landmarks, or Find, would say). "
    )


def say_sources(sections: Sequence[Planned]) -> str:
    """Return what learns from what, for the student's card.

    Without names of layers: they are often those of cases, and a card is passed on.
    """
    count = len(sections)
    learners = "one H&E section learns" if count == 1 else f"{count} H&E sections learn"
    teachers = ", ".join(
        dict.fromkeys(_TEACHERS[partner.kind] for partner in sections[0].partners)
    )
    return f"{learners} from {teachers}"


def say_learning(names: Sequence[str], partners: Sequence[Partner]) -> str:
    """Return which slides learn from which partners."""
    teachers = ", ".join(
        "its own full resolution" if p.kind is PartnerKind.SAME else p.name
        for p in partners
    )
    verb = "learns" if len(names) == 1 else "learn"
    return f"{', '.join(names)} {verb} from {teachers}"
