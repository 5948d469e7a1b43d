"""Students to look at while a run trains: when they come, that they are whole."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

import napari_histodistill.distill.runs.student as finish
from napari_histodistill.distill.runs.folder import PREVIEW, start_run
from napari_histodistill.distill.runs.preview import (
    KEPT,
    ask_for_previews,
    asked_every,
    newest_preview,
    remove_previews,
)
from napari_histodistill.distill.runs.run import train
from napari_histodistill.errors import InputError
from napari_histodistill.students import load_student
from tests.distill.small_runs import small_config, write_textures


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return write_textures(tmp_path_factory.mktemp("data") / "tiles")


def begun(tmp_path, tiles, **schedule):
    folder = tmp_path / "run"
    start_run(small_config(schedule={"steps": 8} | schedule), folder, tiles)
    return folder


def test_nobody_asks_nothing_is_written(tmp_path, tiles):
    folder = begun(tmp_path, tiles, steps=3)
    kinds = [r.kind for r in train(folder, device="cpu")]
    assert "preview" not in kinds
    assert not (folder / PREVIEW).exists()
    assert newest_preview(folder) is None


def test_they_come_every_so_many_steps_and_go_at_the_end(tmp_path, tiles):
    folder = begun(tmp_path, tiles)
    ask_for_previews(folder, 3)
    steps, students = [], []
    for report in train(folder, device="cpu"):
        if report.kind == "preview":
            assert report.message == ""
            step, bundle = newest_preview(folder)
            assert step == report.step
            steps.append(step)
            students.append(load_student(bundle, device="cpu"))
            assert len(list((folder / PREVIEW).iterdir())) <= KEPT
    # The first at once, then every three; none with the last step: the student comes.
    assert steps == [1, 4, 7]
    pixels = np.random.default_rng(0).integers(0, 255, (4, 16, 16, 3), np.uint8)
    said = [student.embed(pixels) for student in students]
    assert not np.allclose(said[0], said[2])
    assert not students[0].spec.classes
    assert not (folder / PREVIEW).exists()


def test_looking_on_changes_nothing_of_the_student(tmp_path, tiles):
    found = []
    for name, every in (("a", 0), ("b", 1)):
        folder = begun(tmp_path / name, tiles, steps=4)
        ask_for_previews(folder, every)
        list(train(folder, device="cpu"))
        tensors = (folder / "student" / "student.safetensors").read_bytes()
        found.append(hashlib.sha256(tensors).hexdigest())
    assert found[0] == found[1]


def test_asking_can_be_taken_back(tmp_path, tiles):
    folder = begun(tmp_path, tiles)
    ask_for_previews(folder, 1)
    seen = []
    for report in train(folder, device="cpu"):
        if report.kind == "preview":
            seen.append(report.step)
            ask_for_previews(folder, 0)
    assert seen == [1]
    assert asked_every(folder) == 0


def test_a_preview_that_cannot_be_written_ends_no_training(
    tmp_path, tiles, monkeypatch
):
    folder = begun(tmp_path, tiles, steps=4)
    ask_for_previews(folder, 2)

    def full(target, *_args, **_kwargs):
        msg = f"{target} cannot be written: no space."
        raise InputError(msg)

    monkeypatch.setattr(finish, "write_bare_student", full)
    reports = train(folder, device="cpu")
    told = next(r for r in reports if r.kind == "preview")
    monkeypatch.undo()
    assert "There is no preview" in told.message
    assert "no space" in told.message
    assert list(reports)[-1].kind == "finished"


def test_what_is_half_written_has_no_name_yet(tmp_path):
    home = tmp_path / PREVIEW
    home.mkdir()
    for name in (".step-00000009-x-new", "step-00000003", "step-old", "other"):
        (home / name).mkdir()
    assert newest_preview(tmp_path) == (3, home / "step-00000003")
    remove_previews(tmp_path)
    assert newest_preview(tmp_path) is None


@pytest.mark.parametrize("text", ["", "many", "-3"])
def test_nonsense_asks_for_nothing(tmp_path, text):
    (tmp_path / "preview-every").write_text(text)
    assert asked_every(tmp_path) == 0


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    with pytest.raises(InputError, match="there will be no preview"):
        ask_for_previews(tmp_path / "gone", 5)
