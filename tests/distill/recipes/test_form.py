"""The form is the schema: every setting in it, and there and back without loss."""

from __future__ import annotations

import math
import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from napari_histodistill.distill.recipes.config import DistillConfig
from napari_histodistill.distill.recipes.files import recipe_text
from napari_histodistill.distill.recipes.form import (
    LEFT_OUT,
    Field,
    describe,
    read,
    text_of,
    title_of,
    value_at,
)
from napari_histodistill.distill.recipes.presets import (
    PRESETS,
    PartnerInput,
    recipe_for,
)
from napari_histodistill.errors import InputError
from napari_histodistill.students.spec import MAX_OPTION

PARTNERS = (PartnerInput("marker", "channels", 48), PartnerInput("", "image", 128))


def recipe(key="quick", partners=PARTNERS):
    return recipe_for(
        key,
        name="student",
        source="H&E learns from marker",
        mpp=0.5,
        tile_px=128,
        student_px=64,
        pairs=500,
        partners=partners,
    )


def fields(config) -> dict[tuple, Field]:
    return {f.path: f for f in describe(config).all_fields()}


def leaves(model: BaseModel, path=()):
    """Every value of a recipe that is no table of its own."""
    for name in type(model).model_fields:
        value, here = getattr(model, name), (*path, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, here)
        elif name == "dense":
            for k, one in enumerate(value):
                yield from leaves(one, (*here, k))
        else:
            yield here


def dotted(path):
    return ".".join(step for step in path if isinstance(step, str))


@pytest.mark.parametrize("key", [p.key for p in PRESETS])
def test_every_setting_is_asked_for_or_left_out_for_a_reason(key):
    config = recipe(key)
    every = set(leaves(config))
    asked = set(fields(config))
    assert asked <= every
    assert {dotted(p) for p in every - asked} == set(LEFT_OUT)
    assert not {dotted(p) for p in asked} & set(LEFT_OUT)


def test_every_setting_has_a_name_and_a_line_of_help():
    for field in fields(recipe()).values():
        assert field.title[0].isupper(), field.path
        assert len(field.help) > 2, f"{field.path} has no docstring"
        assert "``" not in field.help


def test_what_a_field_takes_comes_from_the_schema():
    found = fields(recipe())
    lr, batch = found["schedule", "lr"], found["schedule", "batch"]
    assert (lr.kind, lr.bounds, lr.title) == ("number", "more than 0", "Learning rate")
    assert (batch.kind, batch.bounds) == ("whole", "at least 2, at most 1,000,000")
    view = found["sparse", "view_px"]
    assert view.optional
    assert view.title == "View (px)"
    assert view.bounds == "at least 8, at most 1,024"
    kinds = ("vicreg", "barlow_twins", "infonce", "clusters", "regression")
    assert found["objective", "kind"].choices == kinds
    assert found["schedule", "compile"].kind == "switch"
    assert found["objective", "projector"].kind == "wholes"
    assert found["sparse", "encoder", "frozen_layers"].kind == "texts"
    assert found["sparse", "encoder", "options"].kind == "table"
    assert found["data", "validation_share"].bounds == "at least 0, less than 1"
    assert found["dense", 1, "encoder", "backbone"].kind == "text"


def test_partners_have_a_group_each_with_their_name():
    titles = [s.title for s in describe(recipe()).groups]
    assert "Partner 1: marker" in titles
    assert "Partner 2: the same layer" in titles
    assert not any("Partner" in s.title for s in describe(recipe(partners=())).groups)


def test_names_become_words():
    assert title_of("head_lr_scale") == "Head learning rate scale"
    assert title_of("tile_px") == "Tile (px)"


@pytest.mark.parametrize("key", [p.key for p in PRESETS])
def test_what_is_shown_reads_back_as_it_was(key):
    config = recipe(key)
    for path, field in fields(config).items():
        value = value_at(config, path)
        assert read(field, text_of(field, value)) == value, path


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        (("schedule", "batch"), "many", "'many' is not a whole number."),
        (("schedule", "batch"), "", "A whole number is missing."),
        (("schedule", "lr"), "1e", "'1e' is not a number."),
        (("objective", "projector"), "64, x", "'x' is not a whole number."),
        (("sparse", "encoder", "options"), "channels", "Write pairs like:"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_sentence(path, text, said):
    with pytest.raises(InputError, match=said):
        read(fields(recipe())[path], text)


def anything(field: Field) -> st.SearchStrategy[Any]:
    """Values that the schema allows in a field."""
    words = st.text(min_size=1, max_size=20)
    plain = st.one_of(
        st.booleans(),
        st.integers(-MAX_OPTION, MAX_OPTION),
        words,
        st.floats(allow_nan=False),
        st.lists(st.integers(-9, 999), max_size=4).map(tuple),
    )
    by_name = {
        "frozen": st.just(False),
        "frozen_views": st.just(0),
        "nearby": st.floats(0.5, 20),
        "components": st.none(),
        "whiten": st.just(False),
        "kind": st.sampled_from(["vicreg", "barlow_twins", "infonce"]),
        "queue": st.just(0),
        "clusters": st.integers(2, 1000),
        "trained_stages": st.none(),
        "frozen_statistics": st.just(False),
        "backbone": st.from_regex(r"[A-Za-z0-9_]{1,9}(\.[a-z]{1,4})?", fullmatch=True),
        "arm": st.sampled_from(["privileged", "triplet"]),
        "options": st.dictionaries(words, plain, max_size=3),
        "input_px": st.integers(8, 1024),
        "view_px": st.none() | st.integers(8, 1024),
        "tile_px": st.integers(4, 4096),
        "batch": st.integers(2, 10**6),
        "projector": st.lists(st.integers(2, 65536), min_size=1, max_size=4).map(tuple),
    }
    name = str(field.path[-1])
    if name in by_name:
        return by_name[name]
    share = st.floats(0, 1, exclude_max=True)
    positive = st.floats(0, 1e6, exclude_min=True, allow_subnormal=False)
    kinds = {
        "switch": st.booleans(),
        "choice": st.sampled_from(field.choices or ("",)),
        "whole": st.integers(1, 10**8),
        "number": share if "less than 1" in field.bounds else positive,
        "text": words,
        "texts": st.lists(words, max_size=3).map(tuple),
    }
    return kinds[field.kind]


@given(st.data())
@settings(max_examples=40)
def test_form_to_recipe_to_toml_to_recipe(data):
    base = recipe()
    content = base.model_dump()
    for path, field in fields(base).items():
        value = data.draw(anything(field), label=dotted(path))
        text = text_of(field, value)
        target = content
        for step in path[:-1]:
            target = target[step]
        found = read(field, text)
        assert found == value
        assert not (isinstance(found, float) and math.isnan(found))
        target[path[-1]] = found
    config = DistillConfig.model_validate(content)
    again = DistillConfig.model_validate(tomllib.loads(recipe_text(config)))
    assert again == config
    assert [text_of(f, value_at(again, p)) for p, f in fields(again).items()] == [
        text_of(f, value_at(config, p)) for p, f in fields(config).items()
    ]
