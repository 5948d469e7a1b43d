"""Which two trainings differ in nothing but the partner."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from napari_histodistill.controllers.distil.control import (
    arms_of,
    help_work,
    say_judged,
    say_measured,
    student_and_control,
    why_no_help,
    why_no_second_seed,
)
from napari_histodistill.distill.recipes.files import recipe_text
from napari_histodistill.distill.runs.folder import (
    CONFIG,
    RUN,
    STUDENT,
    read_run,
    start_run,
)
from napari_histodistill.distill.runs.kin import (
    kin_beside,
    other_seeds,
    prepare_second_seed,
)
from napari_histodistill.distill.runs.run import train
from napari_histodistill.students import load_student
from tests.controllers.driving import drive
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
    shutil.copytree(trained / "tiles", tmp_path / "tiles")
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


def test_a_second_seed_is_prepared_on_the_same_pairs(runs):
    mine = runs / "privileged" / STUDENT
    assert why_no_second_seed(mine, works=False) == ""
    assert "going on" in why_no_second_seed(mine, works=True)
    assert "no model yet" in why_no_second_seed(None, works=False)
    assert say_measured(mine).endswith("noise not measured)")
    folder = prepare_second_seed(mine, runs / "second")
    (_, place), (second, again) = read_run(runs / "privileged"), read_run(folder)
    assert (second.seed, second.title) == (1, "A small student, seed 1")
    assert place == again
    list(train(folder, device="cpu", threads=1))
    assert [one.seed for one in other_seeds(mine)] == [1]
    assert ", second seed 0." in say_measured(mine)
    third, _ = read_run(prepare_second_seed(folder / STUDENT, runs / "third"))
    assert (third.seed, third.title) == (2, "A small student, seed 2")
    # Both seeds with the partner stand against the one without.
    arms = arms_of(runs / "unprivileged" / STUDENT)
    assert set(arms.students) == {mine, folder / STUDENT}
    assert arms.controls == (runs / "unprivileged" / STUDENT,)
    found = drive(help_work(arms, runs / "tiles", load_student))[-1]
    words = say_judged(found)
    assert words.startswith("Too few cases")
    assert "One seed alone" in words
    assert "flattering" in words
    shutil.rmtree(runs / "unprivileged")
    assert arms_of(mine) is None
    assert "Train both first" in why_no_help(mine)


def test_a_run_without_a_student_is_no_control(runs):
    shutil.rmtree(runs / "unprivileged" / STUDENT)
    assert student_and_control(runs / "privileged" / STUDENT) is None
    assert student_and_control(runs / "nothing" / STUDENT) is None
    (runs / "privileged" / STUDENT / "spec.json").write_text("{}")
    assert student_and_control(runs / "privileged" / STUDENT) is None
