"""Recipes: the file, the bundle that comes out, and the figures on real tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_histodistill.distill.pairs.tilefolder import TileFolder, read_tile_folder
from napari_histodistill.distill.reading import read_recipe
from napari_histodistill.distill.scoring.evaluate import (
    case_digest,
    choose_protocol,
    evaluate_student,
)
from napari_histodistill.distill.scoring.frozen_arm import train_frozen
from napari_histodistill.errors import InputError, TileFolderError
from napari_histodistill.students.bundle import load_spec, load_student

RECIPE = """
name = "two"
title = "Two colours"
licence = "BSD-3-Clause"
mpp = 1.0
classes = [
  { name = "stroma", color = "#e69f00" },
  { name = "gland", color = "#56b4e9" },
]
[data]
folder = "tiles"
description = "Plain colours."
licence = "CC0"
attribution = "A test"
"""

ROWS = [
    (label, label, f"case{c}", str(c % 2))
    for c in range(6)
    for label in ("stroma", "gland")
]


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "two.toml"
    path.write_text(RECIPE)
    return path


def run_recipe(path, out, **options):
    return train_frozen(read_recipe(path), out, home=path.parent, **options)


def test_a_recipe_makes_a_student(recipe, colour_tiles, tmp_path):
    home = colour_tiles(ROWS)  # "tiles" beside the recipe
    folder = run_recipe(recipe, tmp_path / "made" / "two", device="cpu")
    student = load_student(folder, device="cpu")
    assert student.spec.class_names == ("stroma", "gland")
    assert student.spec.training.cases == 6
    training = student.spec.training
    assert case_digest("case3", training.case_salt) in training.case_digests
    assert case_digest("case3") not in training.case_digests
    assert student.trust.case_count == 6
    assert "12 tiles" in student.spec.calibration.protocol
    figures = {m.name: m.value for m in student.spec.metrics}
    assert figures["accuracy"] == 1
    assert "A test" in (folder / "README.md").read_text()
    found = evaluate_student(student, home, protocol="head")
    assert found.accuracy == 1
    assert choose_protocol(student, read_tile_folder(home), "auto")[0] == "probe"


def test_data_may_lie_elsewhere(recipe, colour_tiles, tmp_path):
    home = colour_tiles(ROWS)
    moved = home.rename(tmp_path / "elsewhere")
    with pytest.raises(TileFolderError, match="tiles does not exist"):
        run_recipe(recipe, tmp_path / "out")
    assert run_recipe(recipe, tmp_path / "out", data=moved, device="cpu").is_dir()


def test_labels_must_be_the_classes(recipe, colour_tiles, tmp_path):
    colour_tiles([*ROWS, ("mucus", "gland", "case9", "1")])
    with pytest.raises(TileFolderError, match="labels are gland, mucus, stroma"):
        run_recipe(recipe, tmp_path / "out")


def test_a_taken_folder_is_told_first(recipe, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="exists and is not a student"):
        run_recipe(recipe, tmp_path / "out")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("mpp = 1.0", "mpp = 0", "mpp"),
        ("mpp = 1.0", "mpp = 1.0\narm = 'spiral'", "arm"),
        ("mpp = 1.0", "mpp = 1.0\nspeed = 3", "speed: there is no such field"),
        ('name = "gland"', 'name = "stroma"', "two classes have the same name"),
        ("mpp = 1.0", "mpp = ", "cannot be read as TOML"),
        ('folder = "tiles"', "", r"data\.folder"),
    ],
)
def test_bad_recipes_name_the_field(recipe, old, new, words):
    recipe.write_text(RECIPE.replace(old, new))
    with pytest.raises(InputError, match=words):
        read_recipe(recipe)


def test_the_shipped_recipe_is_the_shipped_student():
    config = read_recipe(Path(__file__).parents[3] / "training" / "colon-probe.toml")
    spec = load_spec("colon-probe")
    for field in ("name", "title", "description", "licence", "mpp", "classes"):
        assert getattr(spec, field) == getattr(config, field)


def subsample(folder: TileFolder, step: int) -> TileFolder:
    """Return every step-th case's tiles."""
    cases = sorted(set(folder.case_ids().tolist()))[::step]
    kept = tuple(t for t in folder.tiles if t.case_id in cases)
    return TileFolder(folder.folder, kept)


@pytest.mark.slow(13)
@pytest.mark.data
def test_some_real_cases_score_plausibly_and_out_of_fold(data):
    folder = subsample(read_tile_folder(data / "ebhi"), 6)
    student = load_student("colon-probe", device="cpu")
    found = evaluate_student(student, folder)
    assert found.protocol == "probe"
    assert len(found.folds) == 4
    assert 0.65 < found.accuracy < 0.9
    head = student.classify(
        student.embed(
            np.stack([folder.read(t, 224)[0] for t in folder.tiles[:64]]),
        )
    )
    names = student.spec.class_names
    truth = [names.index(label) for label in folder.labels()[:64]]
    assert (head.argmax(axis=1) == truth).mean() > 0.9  # it has seen these tiles


@pytest.mark.long
@pytest.mark.data
def test_all_real_tiles_give_the_figures_on_the_card(data, monkeypatch):
    pytest.importorskip("openvino", reason="torch takes a minute and a half for them")
    monkeypatch.setenv("HISTODISTILL_CPU_BACKEND", "openvino")
    student = load_student("colon-probe", device="cpu")
    found = evaluate_student(student, data / "ebhi")
    card = {m.name: m.value for m in student.spec.metrics}
    assert found.protocol == "probe"
    assert found.n == 1782
    assert found.cases == 271
    assert found.accuracy == pytest.approx(card["accuracy"], abs=0.02)
    assert found.balanced_accuracy == pytest.approx(card["balanced accuracy"], abs=0.03)
    # What frozen features of this encoder were known to give before.
    assert found.accuracy == pytest.approx(0.8, abs=0.03)
