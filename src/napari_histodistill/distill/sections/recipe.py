"""A recipe for the pairs of sections, to begin with."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.distill.layers.partners import Spots
from napari_histodistill.distill.recipes.presets import (
    VALIDATION_SHARE,
    PartnerInput,
    preset_named,
    recipe_for,
)
from napari_histodistill.distill.sections.partners import DENSE_PX
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from napari_histodistill.distill.layers.partners import DenseLayer
    from napari_histodistill.distill.pairs.pool import PairPool
    from napari_histodistill.distill.recipes.config import DistillConfig
    from napari_histodistill.distill.recipes.presets import PresetKey


def input_of(found: DenseLayer | Spots) -> PartnerInput:
    """Return a partner as a recipe names it."""
    if isinstance(found, Spots):
        return PartnerInput(found.name, "expression", DENSE_PX[0])
    return PartnerInput(found.name, found.kind, found.tile_px)


def recipe_of_sections(
    pool: PairPool, path: Path, pairs: Path, *, preset: PresetKey, hold_out: str = ""
) -> DistillConfig:
    """Return a preset's recipe for pairs of sections.

    Parameters
    ----------
    pool : PairPool
        The pairs.
    path : Path
        Where the recipe will lie; the student is called as it.
    pairs : Path
        Where the pairs will lie.
    preset : {"quick", "careful", "paper"}
        The preset.
    hold_out : str
        Section or case that is held out whole; "" for a share of all regions.

    Raises
    ------
    InputError
        If there is no such section, or there are too few pairs.
    """
    names = pool.section_names
    if hold_out and hold_out not in names:
        msg = f"--hold-out: {hold_out!r} is none of {', '.join(dict.fromkeys(names))}."
        raise InputError(msg)
    held = np.array([name == hold_out for name in names], np.bool_)[pool.sections]
    left = int((~held).sum())
    count = len(pool.plans)
    learners = "one H&E section learns" if count == 1 else f"{count} H&E sections learn"
    teachers = ", ".join(partner.name for partner in pool.partners)
    sampling = pool.sampling
    found = recipe_for(
        preset,
        name=_student_name(path.stem),
        title=f"{path.stem}: {preset_named(preset).title.lower()}",
        source=f"{learners} from {teachers}",
        mpp=sampling.mpp,
        tile_px=sampling.tile_px,
        student_px=sampling.tile_px,
        pairs=left if hold_out else round(left * (1 - VALIDATION_SHARE)),
        partners=[input_of(partner) for partner in pool.partners],
        validate_on=hold_out,
    )
    data = found.data.model_copy(update={"folder": _from(path, pairs)})
    return found.model_copy(update={"data": data})


def _student_name(stem: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:60] or "student"


def _from(recipe: Path, pairs: Path) -> str:
    """Return the pairs' place as the recipe writes it: so that both can move."""
    try:
        place = os.path.relpath(pairs.absolute(), recipe.absolute().parent)
    except ValueError:  # on another drive
        return str(pairs.absolute())
    return place.replace(os.sep, "/")
