"""A reference and salted digests for students that are trained, and that exist."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_histodistill.distill.pairs.loading import load_pairs
from napari_histodistill.distill.pairs.tilefolder import read_tile_folder
from napari_histodistill.distill.runs.folder import STUDENT, read_run, start_run
from napari_histodistill.distill.runs.run import train
from napari_histodistill.distill.scoring.evaluate import case_digest, evaluate_student
from napari_histodistill.distill.scoring.references import add_trust, tiles_to_compare
from napari_histodistill.errors import InputError
from napari_histodistill.students import load_student, save_student
from tests.distill.small_runs import small_config, write_textures

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Path]:
    """The tiles and the run of a supervised student."""
    home = tmp_path_factory.mktemp("trained")
    tiles = write_textures(home / "tiles")
    run = start_run(small_config("supervised"), home / "run", tiles)
    for _ in train(run, device="cpu"):
        pass
    return tiles, run


def test_a_training_leaves_a_reference_of_all_its_cases(trained):
    tiles, run = trained
    student = load_student(run / STUDENT, device="cpu:torch")
    cases = set(read_tile_folder(tiles).case_ids().tolist())
    split = load_pairs(read_run(run)[0], tiles)
    assert split.validation is not None
    # Validation cases too: they were learned from by no step, but chose the student.
    assert student.trust.case_count == len(cases)
    assert student.spec.calibration is not None
    assert "validation tiles" in student.spec.calibration.protocol


def test_digests_of_a_training_are_salted(trained):
    tiles, run = trained
    training = load_student(run / STUDENT, device="cpu:torch").spec.training
    seen = set(load_pairs(read_run(run)[0], tiles).train.cases.tolist())
    salted = {case_digest(case, training.case_salt) for case in seen}
    assert salted == set(training.case_digests)
    assert not {case_digest(case) for case in seen} & salted


def test_tiles_without_a_case_are_not_compared_with(trained, tmp_path):
    tiles = tmp_path / "tiles"
    shutil.copytree(trained[0], tiles)
    lines = (tiles / "manifest.csv").read_text("utf-8").splitlines()
    place = lines[0].split(",").index("case_id")
    rows = [line.split(",") for line in lines]
    for row in rows[1:3]:
        row[place] = ""
    text = "\n".join(",".join(row) for row in rows) + "\n"
    (tiles / "manifest.csv").write_text(text, "utf-8")
    folder = read_tile_folder(tiles)
    pixels, cases = tiles_to_compare(folder, 32)
    assert pixels.shape == (len(folder) - 2, 32, 32, 3)
    assert "" not in cases


def test_an_older_student_is_given_a_reference_and_a_salt(trained, tmp_path):
    tiles, run = trained
    student = load_student(run / STUDENT, device="cpu:torch")
    training = student.spec.training
    everyone = sorted(set(read_tile_folder(tiles).case_ids().tolist()))
    old = training.model_copy(
        update={
            "case_salt": None,
            "case_digests": tuple(sorted(map(case_digest, everyone))),
        }
    )
    bundle = save_student(
        tmp_path / "old",
        student.spec.model_copy(update={"training": old}),
        head=student.head,
        encoder_state=student.backend.module.state_dict(),
    )
    before = load_student(bundle, device="cpu:torch")
    assert before.trust is None
    assert "of these cases: flattering" in evaluate_student(before, tiles).reason
    add_trust(bundle, tiles)
    after = load_student(bundle, device="cpu:torch")
    assert after.trust.case_count == len(everyone)
    assert len(after.spec.training.case_salt) == 32
    assert not set(after.spec.training.case_digests) & set(old.case_digests)
    # Still noticed, and otherwise the same student.
    assert evaluate_student(after, tiles).reason == (
        evaluate_student(before, tiles).reason
    )
    pixels = np.random.default_rng(0).integers(
        0, 256, (2, after.spec.tile_px, after.spec.tile_px, 3), np.uint8
    )
    np.testing.assert_array_equal(after.embed(pixels), before.embed(pixels))
    # With a salt it can be done again; with other cases it is refused.
    add_trust(bundle, tiles)
    other = write_textures(tmp_path / "other", cases=3)
    with pytest.raises(InputError, match="trained on other cases"):
        add_trust(bundle, other)
