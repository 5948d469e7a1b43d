"""Presets only fill in a recipe: valid for every partner, honest about numbers."""

from __future__ import annotations

import tomllib

import pytest

from napari_histodistill.distill.recipes.config import DistillConfig
from napari_histodistill.distill.recipes.files import recipe_text
from napari_histodistill.distill.recipes.presets import (
    PRESETS,
    PartnerInput,
    enough_for,
    preset_named,
    recipe_for,
)
from napari_histodistill.errors import InputError

PARTNERS = {
    "nothing": (),
    "image": (PartnerInput("ihc", "image", 96),),
    "channels": (PartnerInput("mif", "channels", 96),),
    "mask": (PartnerInput("glands", "mask", 96),),
    "spots": (PartnerInput("visium", "expression", 32),),
    "same": (PartnerInput("", "image", 128),),
    "two": (PartnerInput("a", "mask", 32), PartnerInput("b", "image", 224)),
}


def made(key, partners, **changes):
    given = {
        "name": "student",
        "source": "H&E learns from something",
        "mpp": 0.5,
        "tile_px": 128,
        "student_px": 128,
        "pairs": 500,
    }
    return recipe_for(key, partners=partners, **(given | changes))


@pytest.mark.parametrize("partners", PARTNERS)
@pytest.mark.parametrize("key", [p.key for p in PRESETS])
def test_every_preset_is_a_recipe_that_survives_its_file(key, partners):
    config = made(key, PARTNERS[partners])
    again = DistillConfig.model_validate(tomllib.loads(recipe_text(config)))
    assert again == config
    assert len(config.dense) == len(PARTNERS[partners])
    if not config.dense:
        assert config.arm == "unprivileged"
    else:
        assert config.arm == ("privileged" if key == "paper" else "triplet")


def test_the_control_differs_in_nothing_but_the_partner():
    with_partner, without = made("quick", PARTNERS["mask"]), made("quick", ())
    same = ("sparse", "schedule", "objective", "augmentation", "seed", "data")
    for field in same:
        assert getattr(with_partner, field) == getattr(without, field)


def test_the_paper_preset_is_the_papers():
    config = made("paper", PARTNERS["channels"], pairs=12800, student_px=224)
    assert config.objective.kind == "vicreg"
    assert config.objective.projector == (8192, 8192, 8192)
    assert config.schedule.steps == 100 * 12800 // 128
    assert config.schedule.batch == 128
    assert config.augmentation == "paper"


def test_a_lower_magnification_knows_its_scale():
    config = made("quick", PARTNERS["same"], student_px=32)
    assert config.sparse.tile_px == 32
    assert config.student_mpp == pytest.approx(2.0)
    assert config.dense[0].tile_px == 128


@pytest.mark.parametrize("pairs", [16, 40, 100, 101, 130, 5000])
def test_a_batch_leaves_room_for_an_uneven_split(pairs):
    batch = made("quick", (), pairs=pairs).schedule.batch
    assert 8 <= batch <= max(8, 0.85 * pairs)
    assert batch <= 128


def test_too_few_pairs_are_refused():
    with pytest.raises(InputError, match="15 pairs are too few"):
        made("quick", (), pairs=15)


def test_an_unknown_preset_is_named():
    with pytest.raises(InputError, match="no preset 'slow': quick, careful, paper"):
        preset_named("slow")


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (12, "Too few to learn from: at least 100"),
        (150, "Enough for: Quick look. Careful needs 400."),
        (900, "Enough for: Quick look, Careful. Paper needs 5,000."),
        (9000, "Enough for: Quick look, Careful, Paper."),
    ],
)
def test_how_many_are_enough_is_said_in_words(pairs, words):
    assert enough_for(pairs).startswith(words)
