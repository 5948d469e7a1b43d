"""A mask's classes label tiles: a training learns them, held-out ones judge it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_histodistill.distill.pairs.held_out_tiles import (
    BY_REGION,
    held_out_tiles,
)
from napari_histodistill.distill.pairs.loading import load_pairs
from napari_histodistill.distill.pairs.store import read_pairs, write_pairs
from napari_histodistill.distill.runs.folder import STUDENT, read_run, start_run
from napari_histodistill.distill.runs.kin import kin_of
from napari_histodistill.distill.runs.run import train
from napari_histodistill.distill.scoring.arms import judge_arms
from napari_histodistill.errors import InputError, StoreError
from napari_histodistill.students import load_student
from tests.distill.pairs.test_store import plan, recipe

__all__ = ["plan"]

NAMES = ("class 1", "class 2", "class 3", "class 4")
CLASSES = [{"name": name, "color": "#009e73"} for name in NAMES]


def learning(*dense, **changes):
    """Return a recipe that learns the classes of the mask "glands"."""
    data = recipe().data.model_dump() | {"labels_from": "glands"}
    own = {"arm": "supervised", "classes": CLASSES, "data": data}
    return recipe(*dense, **(own | changes))


def centres(plan):
    """Return the class at the centre of every tile, as the mask was painted."""
    numbers = np.arange(384 * 384).reshape(384, 384) // 4000 % 5
    at = np.floor(plan.centres_um / 0.5 + 0.5).astype(int)
    return np.array(["", *NAMES])[numbers[at[:, 0], at[:, 1]]]


def test_tiles_are_labelled_by_the_class_at_their_centre(plan, tmp_path):
    path = tmp_path / "pairs.zarr"
    list(write_pairs(path, plan))
    wanted = centres(plan)
    np.testing.assert_array_equal(read_pairs(path).labels("glands"), wanted)
    split = load_pairs(learning(), path)
    both = [split.train, split.validation]
    assert sum(map(len, both)) == (wanted != "").sum() < len(plan), "unlabelled: none"
    for pairs in both:
        named = np.array(NAMES)[pairs.labels]
        np.testing.assert_array_equal(named, wanted[pairs.rows])
    for changes, said in (
        ({"classes": CLASSES[:3]}, "also shows 'class 4'"),
        ({"data": recipe().data.model_dump()}, "name both, or neither"),
        ({"data": learning().data.model_dump() | {"labels_from": "ihc"}}, "'image'"),
    ):
        with pytest.raises(StoreError, match=said):
            load_pairs(learning(**changes), path)


def recipe_of(run):
    config, place = read_run(run)
    return config, Path(place["data"])


def test_held_out_tiles_judge_both_arms_without_a_manifest(plan, tmp_path):
    path = tmp_path / "pairs.zarr"
    list(write_pairs(path, plan))
    runs = {}
    for name, dense in (("with", [{"column": "ihc"}]), ("without", [])):
        runs[name] = start_run(learning(*dense), tmp_path / name, path)
        list(train(runs[name], device="cpu", threads=1))
    kin = [kin_of(run / STUDENT) for run in runs.values()]
    assert [one.alone for one in kin] == [False, True]
    assert kin[1].is_control_of(kin[0])
    students = [load_student(run / STUDENT, device="cpu") for run in runs.values()]
    assert students[0].spec.class_names == NAMES
    tiles = held_out_tiles(*recipe_of(runs["with"]))
    held_out = load_pairs(learning(), path).validation
    assert sorted(tiles.labels()) == sorted(np.array(NAMES)[held_out.labels])
    assert set(tiles.case_ids()) == set(held_out.cases)
    found = list(judge_arms(students[:1], students[1:], tiles))[-1]
    assert found.protocol == "head"
    assert (found.report.tiles, found.notes) == (len(tiles), (BY_REGION,))
    only = start_run(recipe(), tmp_path / "no share", path)
    assert len(held_out_tiles(*recipe_of(only))), (
        "a run that learned no class has them, too"
    )
    data = recipe().data.model_dump() | {"validation_share": 0.0}
    with pytest.raises(InputError, match="no pairs were held out"):
        held_out_tiles(recipe(data=data), path)
