"""Ready-made recipes for pairs sampled from layers: what *Distil a student* offers.

A preset only fills in a :class:`DistillConfig`: the recipe in a run's folder holds
everything, and can be edited and run again without this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from napari_histodistill.distill.recipes.config import DistillConfig
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_histodistill.students.spec import ClassSpec

SMALL: dict[str, Any] = {
    "backbone": "test_resnet",
    "options": {"channels": (32, 64, 128, 256), "layers": (1, 1, 1, 1)},
}
LITE0: dict[str, Any] = {
    "backbone": "tf_efficientnet_lite0",
    "start": "imagenet-lite0",
    "frozen_layers": ("conv_stem", "bn1", "blocks.0", "blocks.1"),
}
VALIDATION_SHARE = 1 / 5

LEAST_PAIRS = 16
"""A smaller set makes no batch to train on."""

PresetKey = Literal["quick", "careful", "paper"]


@dataclass(frozen=True, slots=True)
class PartnerInput:
    """A partner as the sampled pairs have it.

    Attributes
    ----------
    name : str
        Name of the layer; empty for the sparse image itself.
    kind : str
        ``"image"``, ``"channels"``, ``"mask"`` or ``"expression"``.
    tile_px : int
        Edge of its tiles, px.
    """

    name: str
    kind: str
    tile_px: int


@dataclass(frozen=True, slots=True)
class Preset:
    """One entry of the list of presets.

    Attributes
    ----------
    key, title : str
        Name in files, and on the screen.
    words : str
        Purpose of the preset, in a sentence or two.
    fewest : int
        Number of pairs below which it is not worth the wait: a rule of thumb.
    """

    key: PresetKey
    title: str
    words: str
    fewest: int


PRESETS = (
    Preset(
        "quick",
        "Quick look",
        "A small network from scratch, which a CPU can train: it shows whether the "
        "pairs teach anything.",
        100,
    ),
    Preset(
        "careful",
        "Careful",
        "EfficientNet-Lite0 from ImageNet weights: a student to work with. Far slower; "
        "the time left is shown once it runs.",
        400,
    ),
    Preset(
        "paper",
        "Paper",
        "ResNet-50 from scratch with VICReg, 100 epochs, as published: needs a GPU and "
        "many thousands of pairs.",
        5000,
    ),
)


def preset_named(key: PresetKey) -> Preset:
    """Return a preset by its key.

    Raises
    ------
    InputError
        If there is none.
    """
    for preset in PRESETS:
        if preset.key == key:
            return preset
    msg = f"There is no preset {key!r}: {', '.join(p.key for p in PRESETS)}."
    raise InputError(msg)


@dataclass(frozen=True, slots=True)
class TileLabels:
    """Classes that label tiles.

    Attributes
    ----------
    partner : str
        Partner of the pairs, a mask read as classes: the class at a tile's centre.
    classes : tuple of ClassSpec
        All that it shows.
    """

    partner: str
    classes: tuple[ClassSpec, ...]


def enough_for(pairs: int) -> str:
    """Say in words which presets this many training pairs are enough for."""
    enough = [p.title for p in PRESETS if pairs >= p.fewest]
    if not enough:
        return (
            f"Too few to learn from: at least {PRESETS[0].fewest} pairs are needed. "
            "Smaller tiles or more tissue give more."
        )
    missing = [p for p in PRESETS if pairs < p.fewest]
    words = f"Enough for: {', '.join(enough)}."
    if missing:
        words += f" {missing[0].title} needs {missing[0].fewest:,}."
    return words


def recipe_for(  # noqa: PLR0913 - a recipe is what all of these make
    key: PresetKey,
    *,
    name: str,
    source: str,
    mpp: float,
    tile_px: int,
    student_px: int,
    pairs: int,
    partners: Sequence[PartnerInput],
    title: str = "",
    validate_on: str = "",
    seed: int = 0,
    labels: TileLabels | None = None,
) -> DistillConfig:
    """Return the recipe of a preset.

    Parameters
    ----------
    key : str
        Key of the preset.
    name : str
        Name of the student: lower-case letters, digits and hyphens.
    source : str
        What learns from what, in words, for the student's card.
    mpp, tile_px : float, int
        Pixel size in µm and edge in px of the sparse tiles as they are stored.
    student_px : int
        Edge to which they are reduced for the student, px.
    pairs : int
        Number of pairs to train on.
    partners : sequence of PartnerInput
        The partners. Without any it is the control that never sees a partner: two views
        of the sparse tile, all else alike.
    title : str
        Title of the student; by default ``source``, with the preset's title.
    validate_on : str
        Section that is held out as a whole; without it, a share of all regions.
    seed : int
        Seed of the run.
    labels : TileLabels, optional
        Learn these classes, and have a head for them; partners are seen besides.

    Raises
    ------
    InputError
        If there is no such preset, or there are too few pairs for any batch.
    """
    preset = preset_named(key)
    if pairs < LEAST_PAIRS:
        msg = (
            f"{pairs} pairs are too few to train on: at least {LEAST_PAIRS} are needed."
        )
        raise InputError(msg)
    arm = "unprivileged"
    if partners:
        # Two views and the partner: on small sets better than the partner alone.
        arm = "privileged" if key == "paper" else "triplet"
    if labels is not None:
        arm = "supervised"
    return DistillConfig.model_validate(
        {
            "arm": arm,
            "name": name,
            "title": title or f"{source}: {preset.title.lower()}",
            "licence": "as its training images",
            "mpp": mpp,
            "source_px": tile_px,
            "seed": seed,
            "augmentation": "paper" if key == "paper" else "histology",
            "half_precision": key == "careful",
            "data": {
                "folder": "pairs.zarr",
                "description": f"Pairs of registered layers: {source}.",
                "licence": "as its training images",
                "attribution": "the user's own layers",
                "validation_share": 0.0 if validate_on else VALIDATION_SHARE,
                "validate_on": [validate_on] if validate_on else [],
                "labels_from": "" if labels is None else labels.partner,
            },
            "classes": () if labels is None else labels.classes,
            "sparse": _sparse(key, student_px),
            "dense": [_dense(key, partner) for partner in partners],
            **_training(key, pairs),
        }
    )


def _sparse(key: PresetKey, tile_px: int) -> dict[str, Any]:
    encoder = {"quick": SMALL, "careful": LITE0, "paper": {"backbone": "resnet50"}}[key]
    input_px = max(32, min(tile_px, 224))
    views = {"quick": 64, "careful": 128, "paper": 224}[key]
    return {
        "encoder": encoder,
        "tile_px": tile_px,
        "input_px": input_px,
        "view_px": min(input_px, views),
    }


def _dense(key: PresetKey, partner: PartnerInput) -> dict[str, Any]:
    if partner.kind == "expression":
        encoder: dict[str, Any] = {"backbone": "mlp"}
    elif key == "paper":
        encoder = {"backbone": "resnet50"}
    elif key == "careful" and partner.kind == "image":
        encoder = LITE0
    else:
        encoder = SMALL
    views = {"quick": 64, "careful": 96, "paper": 224}[key]
    return {
        "column": partner.name,
        "kind": partner.kind,
        "tile_px": partner.tile_px,
        "input_px": max(32, min(partner.tile_px, views)),
        "encoder": encoder,
    }


def _training(key: PresetKey, pairs: int) -> dict[str, Any]:
    # Regions are of different sizes: a few pairs fewer may be left to train on.
    room = max(8, int(0.85 * pairs))
    if key == "paper":
        batch = min(128, room)
        return {
            "objective": {
                "kind": "vicreg",
                "published_code": True,
                "projector": (8192, 8192, 8192),
            },
            "schedule": {
                "steps": max(1, round(100 * pairs / batch)),
                "batch": batch,
                "optimiser": "adam",
                "lr": 1e-4,
                "weight_decay": 0.0,
                "clip_norm": 1.0,
                "clip_each": True,
                "report_every": 20,
                "checkpoint_every": 200,
            },
        }
    quick = key == "quick"
    steps = 150 if quick else 500
    return {
        "objective": {
            "kind": "infonce",
            "temperature": 0.1,
            "projector": (256, 256, 256),
        },
        "schedule": {
            "steps": steps,
            "batch": min(128 if quick else 64, room),
            "lr": 3e-3 if quick else 4e-4,
            "head_lr_scale": 1.0 if quick else 5.0,
            "dense_lr_scale": 1.0,
            "report_every": 5,
            "checkpoint_every": 25 if quick else 50,
        },
    }
