"""Which two trainings differ in nothing but the partner."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from napari_histodistill.controllers.distil.control import student_and_control
from napari_histodistill.distill.recipes.files import recipe_text
from napari_histodistill.distill.runs.folder import (
    CONFIG,
    RUN,
    STUDENT,
    read_run,
    start_run,
)
from napari_histodistill.distill.runs.kin import kin_beside, other_seeds
from napari_histodistill.distill.runs.run import train
from tests.distill.small_runs import small_config, write_textures


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two runs with and without a partner, each in its own folder of runs."""
    home = tmp_path_factory.mktemp("runs")
    tiles = write_textures(home / "tiles", cases=4)
    for arm in ("privileged", "unprivileged"):
        schedule = {"steps": 2, "checkpoint_every": 2}
        config = small_config(arm, name=arm, schedule=schedule)
        start_run(config, home / arm, tiles)
        list(train(home / arm, device="cpu", threads=1))
    return home


@pytest.fixture
def runs(trained, tmp_path):
    for name in ("privileged", "unprivileged"):
        shutil.copytree(trained / name, tmp_path / name)
    return tmp_path


def change(run, **fields):
    config, _ = read_run(run)
    text = recipe_text(config.model_copy(update=fields))
    (run / CONFIG).write_text(text, encoding="utf-8")


def test_either_finds_the_other_and_without_comes_first(runs):
    pair = runs / "unprivileged" / STUDENT, runs / "privileged" / STUDENT
    assert [student_and_control(bundle) for bundle in pair] == [pair, pair]


def test_the_newest_of_several_is_taken(runs):
    again = runs / "again"
    shutil.copytree(runs / "unprivileged", again)
    spec = again / STUDENT / "spec.json"
    os.utime(spec, (spec.stat().st_mtime + 60,) * 2)
    found = student_and_control(runs / "privileged" / STUDENT)
    assert found == (again / STUDENT, runs / "privileged" / STUDENT)


def test_another_budget_or_other_pairs_are_no_control(runs, tmp_path):
    mine, other = runs / "privileged" / STUDENT, runs / "unprivileged"
    change(other, seed=7)
    assert student_and_control(mine) is None
    change(other, seed=0)
    assert student_and_control(mine) is not None
    place = json.loads((other / RUN).read_text())
    elsewhere = write_textures(tmp_path / "elsewhere", cases=3)
    (other / RUN).write_text(json.dumps(place | {"data": str(elsewhere)}))
    assert student_and_control(mine) is None


def test_other_seeds_are_found_whatever_they_are_called(runs):
    for seed in (1, 2):
        again = runs / f"seed {seed}"
        shutil.copytree(runs / "unprivileged", again)
        change(again, seed=seed, name=f"again-{seed}", title="Again")
    alone, taught = (runs / name / STUDENT for name in ("unprivileged", "privileged"))
    assert {one.seed for one in other_seeds(alone)} == {1, 2}
    assert other_seeds(taught) == ()
    assert len(kin_beside(taught)) == 3
    shutil.copytree(runs / "seed 1", runs / "seed 1 once more")
    assert len(other_seeds(alone)) == 2, "one of each seed"


def test_a_run_without_a_student_is_no_control(runs):
    shutil.rmtree(runs / "unprivileged" / STUDENT)
    assert student_and_control(runs / "privileged" / STUDENT) is None
    assert student_and_control(runs / "nothing" / STUDENT) is None
    (runs / "privileged" / STUDENT / "spec.json").write_text("{}")
    assert student_and_control(runs / "privileged" / STUDENT) is None
