"""Does the partner help? Asked of the pairs that two trainings held out."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from napari_histodistill.controllers.distil.control import (
    NO_CONTROL,
    NO_STUDENT,
    arms_of,
    help_table,
    help_work,
    say_judged,
    why_no_help_here,
)
from napari_histodistill.distill.pairs.held_out_tiles import BY_REGION, held_out_tiles
from napari_histodistill.distill.pairs.store import write_pairs
from napari_histodistill.distill.runs.folder import STUDENT, read_run, start_run
from napari_histodistill.distill.runs.run import train
from napari_histodistill.distill.scoring.arms import ArmsJudged, ArmsProgress
from napari_histodistill.distill.scoring.evaluate import embed_tiles
from napari_histodistill.students import load_student, save_student
from napari_histodistill.students.head import Head
from tests.controllers.distil.test_control import change
from tests.controllers.driving import drive
from tests.distill.pairs.test_held_out_tiles import NAMES, learning
from tests.distill.pairs.test_store import plan
from tests.distill.small_runs import small_config, write_textures

__all__ = ["plan"]

FIRST, SECOND = NAMES[:2]


@pytest.fixture
def runs(plan, tmp_path):
    """Two runs on pairs whose mask has classes: one with a partner, one without."""
    list(write_pairs(tmp_path / "pairs.zarr", plan))
    for name, dense in (("with", [{"column": "ihc"}]), ("without", [])):
        start_run(learning(*dense), tmp_path / name, tmp_path / "pairs.zarr")
        list(train(tmp_path / name, device="cpu", threads=1))
    return tmp_path


def judged_by(run):
    config, place = read_run(run)
    return held_out_tiles(config, Path(place["data"]))


def give_head(run, weight, bias):
    """Give a run's student another head, by which it is known what it says."""
    bundle = run / STUDENT
    student = load_student(bundle, device="cpu")
    state = load_file(bundle / "student.safetensors")
    encoder = {
        name.removeprefix("encoder."): tensor
        for name, tensor in state.items()
        if name.startswith("encoder.")
    }
    head = Head(weight.astype(np.float32), bias.astype(np.float32))
    save_student(bundle, student.spec, head=head, encoder_state=encoder)


def say_always(run, name):
    """Let a run's student say the same of every tile."""
    dim = load_student(run / STUDENT, device="cpu").spec.embedding_dim
    give_head(run, np.zeros((4, dim)), 9.0 * (np.array(NAMES) == name))


def say_the_truth(run):
    """Let a run's student know the held-out tiles by heart."""
    tiles = judged_by(run)
    student = load_student(run / STUDENT, device="cpu")
    seen = np.concatenate([one.embeddings for one in embed_tiles(student, tiles)])
    wanted = 20.0 * (tiles.labels()[:, None] == np.array(NAMES)) - 10
    found = np.linalg.lstsq(np.c_[seen, np.ones(len(seen))], wanted, rcond=None)[0]
    give_head(run, found[:-1].T, found[-1])


def judge(runs, asked="with"):
    bundle = runs / asked / STUDENT
    arms = arms_of(bundle)
    work = help_work(arms, bundle.parent, load_student, held_out=True)
    *progress, last = drive(work)
    assert all(isinstance(one, ArmsProgress) for one in progress)
    assert progress[-1].done == progress[-1].total
    assert isinstance(last, ArmsJudged)
    return last


def test_held_out_pairs_say_which_student_knows_them(runs):
    say_the_truth(runs / "with")
    say_always(runs / "without", FIRST)
    for asked in ("with", "without"):
        assert why_no_help_here(runs / asked / STUDENT) == ""
    found, again = judge(runs), judge(runs, "without")
    assert help_table(again) == help_table(found), "whichever of both is looked at"
    tiles = judged_by(runs / "with")
    cases, classes = (len(set(x.tolist())) for x in (tiles.case_ids(), tiles.labels()))
    assert (found.protocol, found.report.tiles) == ("head", len(tiles))
    first, second, difference = help_table(found)
    assert first == ("with partner", "1.000", "one seed")
    assert second == ("without", f"{1 / classes:.3f}", "one seed")
    assert difference[:2] == ("difference", f"{1 - 1 / classes:+.3f}")
    low, high = found.report.interval.low, found.report.interval.high
    assert difference[2] == f"95 %: {low:+.3f} to {high:+.3f}, {cases} cases"
    assert 0 < low <= 1 - 1 / classes <= high
    words = say_judged(found)
    assert words.startswith("It helps.")
    assert "One seed alone" in words
    assert words.endswith(BY_REGION)


def test_every_seed_is_in_the_table(runs):
    say_always(runs / "without", FIRST)
    shutil.copytree(runs / "with", runs / "with, seed 1")
    change(runs / "with, seed 1", seed=1)
    say_the_truth(runs / "with")
    say_always(runs / "with, seed 1", SECOND)
    found = judge(runs)
    chance = found.report.against[0]
    first, second, difference = help_table(found)
    assert first[:2] == ("with partner", f"{(1 + chance) / 2:.3f}")
    assert first[2] == f"2 seeds: 1.000, {chance:.3f}"
    assert second[2] == "one seed"
    assert difference[1] == f"{(1 - chance) / 2:+.3f}"


def test_why_held_out_pairs_cannot_say_it(runs):
    mine = runs / "with" / STUDENT
    assert why_no_help_here(None) == NO_STUDENT
    meta = runs / "pairs.zarr" / "zarr.json"
    kept = meta.read_text("utf-8")
    meta.write_text(kept.replace('"classes"', '"objects"'))
    assert "a mask read as classes" in why_no_help_here(mine)
    meta.write_text(kept[:-40])
    assert "pairs.zarr" in why_no_help_here(mine)
    meta.write_text(kept)
    assert why_no_help_here(mine) == ""
    shutil.rmtree(runs / "without" / STUDENT)
    assert why_no_help_here(mine) == NO_CONTROL


def test_tiles_of_a_folder_are_asked_for_themselves(tmp_path):
    tiles = write_textures(tmp_path / "tiles", cases=4)
    for arm in ("privileged", "unprivileged"):
        start_run(small_config(arm, name=arm), tmp_path / arm, tiles)
        list(train(tmp_path / arm, device="cpu", threads=1))
    said = why_no_help_here(tmp_path / "privileged" / STUDENT)
    assert said.endswith("choose a folder of labelled tiles.")
