"""The recipe that a preset makes of sections on the screen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_histodistill.controllers.distil.pairs import inputs_of
from napari_histodistill.controllers.distil.partners import PartnerKind
from napari_histodistill.controllers.distil.sections import say_sources
from napari_histodistill.controllers.shared.wording import neutral_title
from napari_histodistill.distill.recipes.presets import preset_named, recipe_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_histodistill.controllers.distil.pairs import Planned
    from napari_histodistill.distill.recipes.config import DistillConfig
    from napari_histodistill.distill.recipes.presets import PresetKey, TileLabels

REDUCED = 4
"""Factor by which the student sees coarser than a partner that is the same layer."""


@dataclass(frozen=True, slots=True)
class TrainingWish:
    """What a person wants of a training, besides its preset.

    Attributes
    ----------
    title : str
        Of the student; a neutral one takes the place of "".
    pairs : int
        How many are trained on.
    validate_on : str
        Section that is held out whole; "" for regions of all.
    with_partner : bool
        False for the control.
    labels : TileLabels or None
        Classes to learn; the mask that shows them is then no partner.
    """

    title: str
    pairs: int
    validate_on: str
    with_partner: bool
    labels: TileLabels | None


def preset_recipe(
    key: PresetKey, sections: Sequence[Planned], name: str, wish: TrainingWish
) -> DistillConfig:
    """Return the recipe of a preset for pairs that are laid out.

    Parameters
    ----------
    key : {"quick", "careful", "paper"}
        Of the preset.
    sections : sequence of Planned
        At least one.
    name : str
        Of the student.
    wish : TrainingWish
        Everything else.
    """
    first, labels = sections[0], wish.labels
    same = any(p.kind is PartnerKind.SAME for p in first.partners)
    sampling = first.plan.sampling
    partners = inputs_of(first) if wish.with_partner else []
    if labels is not None:
        partners = [one for one in partners if one.name != labels.partner]
    return recipe_for(
        key,
        name=name,
        title=wish.title or _title(key, with_partner=wish.with_partner),
        source=say_sources(sections),
        mpp=sampling.mpp,
        tile_px=sampling.tile_px,
        student_px=sampling.tile_px // REDUCED if same else sampling.tile_px,
        pairs=wish.pairs,
        validate_on=wish.validate_on,
        partners=partners,
        labels=labels,
    )


def _title(key: PresetKey, *, with_partner: bool) -> str:
    control = "" if with_partner else ", without the partner"
    return f"{neutral_title()}: {preset_named(key).title.lower()}{control}"
