"""Which two trainings differ in nothing but the partner."""

from __future__ import annotations

import os
import shutil

import pytest

from napari_histodistill.controllers.distil import control
from napari_histodistill.controllers.distil.control import student_and_control
from napari_histodistill.distill.recipes.files import recipe_text
from napari_histodistill.distill.runs.folder import CONFIG, STUDENT, read_run, start_run
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
    assert [student_and_control(runs, bundle) for bundle in pair] == [pair, pair]


def test_the_newest_of_several_is_taken(runs):
    again = runs / "again"
    shutil.copytree(runs / "unprivileged", again)
    spec = again / STUDENT / "spec.json"
    os.utime(spec, (spec.stat().st_mtime + 60,) * 2)
    found = student_and_control(runs, runs / "privileged" / STUDENT)
    assert found == (again / STUDENT, runs / "privileged" / STUDENT)


def test_another_budget_or_other_places_are_no_control(runs, monkeypatch):
    mine, other = runs / "privileged" / STUDENT, runs / "unprivileged"
    change(other, seed=7)
    assert student_and_control(runs, mine) is None
    change(other, seed=0)
    assert student_and_control(runs, mine) is not None
    from napari_histodistill.students import bundle

    load = bundle.load_spec

    def elsewhere(folder):
        spec = load(folder)
        if folder.parent == other:
            places = spec.training.model_copy(update={"case_digests": ("0" * 16,)})
            spec = spec.model_copy(update={"training": places})
        return spec

    monkeypatch.setattr(bundle, "load_spec", elsewhere)
    control._read.cache_clear()
    assert student_and_control(runs, mine) is None


def test_a_run_without_a_student_is_no_control(runs):
    shutil.rmtree(runs / "unprivileged" / STUDENT)
    assert student_and_control(runs, runs / "privileged" / STUDENT) is None
    assert student_and_control(runs, runs / "nothing" / STUDENT) is None
    (runs / "privileged" / STUDENT / "spec.json").write_text("{}")
    assert student_and_control(runs, runs / "privileged" / STUDENT) is None
