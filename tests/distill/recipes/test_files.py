"""Recipes: what is written reads back equal, and what is wrong is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_histodistill.distill.reading import read_recipe
from napari_histodistill.distill.recipes.config import DistillConfig
from napari_histodistill.distill.recipes.files import recipe_text, validated
from napari_histodistill.errors import InputError
from tests.distill.small_runs import TINY, small_config

WORDS = st.text(min_size=1, max_size=40).filter(
    # TOML is UTF-8: half a surrogate pair cannot be written at all.
    lambda text: not any("\ud800" <= c <= "\udfff" for c in text)
)
NUMBERS = st.floats(1e-8, 1e8, allow_nan=False)
ENCODERS = st.fixed_dictionaries(
    {"backbone": st.just("test_resnet")},
    optional={
        "options": st.dictionaries(
            st.sampled_from(["drop_path_rate", "layers", "act_layer", "in_place"]),
            st.one_of(NUMBERS, st.booleans(), WORDS, st.lists(st.integers(1, 9))),
        ),
        "frozen_layers": st.lists(WORDS, max_size=3),
    },
)
DENSE = st.fixed_dictionaries(
    {"encoder": ENCODERS},
    optional={
        "column": WORDS,
        "kind": st.sampled_from(["image", "mask"]),
        "tile_px": st.integers(4, 4096),
        "partner": st.sampled_from(["own", "shuffled", "blank"]),
    },
)


@st.composite
def configs(draw):
    arm = draw(st.sampled_from(["unprivileged", "privileged", "triplet", "supervised"]))
    few = 1 if arm in {"privileged", "triplet"} else 0
    most = 0 if arm == "unprivileged" else 3
    data = {key: draw(WORDS) for key in ("description", "licence", "attribution")}
    return small_config(
        arm,
        title=draw(WORDS),
        description=draw(st.just("") | WORDS),
        seed=draw(st.integers(0, 2**40)),
        mpp=draw(st.floats(0.02, 90)),
        dense=draw(st.lists(DENSE, min_size=few, max_size=most)),
        data={"folder": draw(WORDS), "leave_out": draw(st.lists(WORDS))} | data,
        objective={"projector": draw(st.lists(st.integers(2, 99), min_size=1))},
        schedule={"lr": draw(NUMBERS), "batch": draw(st.integers(2, 999))},
    )


@given(config=configs())
def test_a_recipe_reads_back_equal(config, tmp_path_factory):
    path = tmp_path_factory.mktemp("recipes") / "recipe.toml"
    path.write_text(recipe_text(config), encoding="utf-8")
    again = read_recipe(path)
    assert again == config
    assert isinstance(again, DistillConfig)
    assert recipe_text(again) == recipe_text(config)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arm": "privileged", "dense": []}, "needs a dense partner"),
        ({"arm": "unprivileged", "dense": [{"encoder": TINY}]}, "has no dense partner"),
        ({"arm": "supervised", "dense": [], "classes": []}, "at least two classes"),
        ({"schedule": {"steps": 0}}, r"schedule\.steps"),
        ({"schedule": {"steps": 1, "lr": float("nan")}}, r"schedule\.lr"),
        ({"schedule": {"steps": 1, "mixup": 0.2}}, "mixup blends labels"),
        ({"augmentation": "heavy"}, "augmentation"),
        (
            {"dense": [{"encoder": TINY | {"frozen": True}}]},
            "a frozen encoder needs a start",
        ),
        ({"dense": [{"encoder": TINY, "frozen_views": 4}]}, "encoder.frozen = true"),
        (
            {"sparse": {"encoder": {"backbone": "../evil"}}},
            r"sparse\.encoder\.backbone",
        ),
        ({"data": {"folder": ""}}, r"data\.folder"),
        ({"surprise": 1}, "surprise: there is no such field"),
        # Before the field that is now missing: a slip of the pen makes both errors.
        (
            {"schedule": {"stepz": 5}},
            r"schedule\.stepz: there is no such field; did you mean 'steps'\?",
        ),
        (
            {"dense": [{"encodr": TINY}]},
            r"dense\.0\.encodr: there is no such field; did you mean 'encoder'\?",
        ),
        (
            {"data": {"foldr": "x"}, "colour": 1},  # the one that resembles a field
            r"data\.foldr: there is no such field; did you mean 'folder'\?",
        ),
        (
            {"sparse": {"encoder": {"weights": "x"}}},
            r"encoder\.weights: .*known here: backbone, options, start, frozen, ",
        ),
    ],
)
def test_what_does_not_fit_is_named(changes, words):
    content = small_config().model_dump(mode="json") | changes
    with pytest.raises(InputError, match=words) as caught:
        validated(DistillConfig, content, "recipe.toml")
    assert str(caught.value).startswith("recipe.toml: ")


def test_a_recipe_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not a text file"):
        read_recipe(path)
    with pytest.raises(InputError, match="cannot be opened"):
        read_recipe(tmp_path / "none.toml")


def test_a_recipe_with_the_mark_of_windows_is_read(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(recipe_text(small_config()), "utf-8-sig")
    assert read_recipe(path) == small_config()
