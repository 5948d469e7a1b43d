"""``classify`` says first whether the slide is like what the student learned from."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from napari_histodistill.slides.tissue.writing import write_pyramid
from napari_histodistill.students import load_student, save_student
from napari_histodistill.students.spec import CalibrationSpec
from tests.weaves import TILE, reference, woven

CALIBRATION = CalibrationSpec(
    error=0.03, sure_share=0.6, sure_right=0.95, protocol="a test"
)


@pytest.fixture(scope="module")
def judging(bundle, tmp_path_factory):
    """The tiny student, with a reference of painted spots."""
    student = load_student(bundle, device="cpu:torch")
    state = student.backend.module.state_dict()
    changed = {"calibration": CALIBRATION, "token_stride_px": 32}
    spec = student.spec.model_copy(update=changed)
    return save_student(
        tmp_path_factory.mktemp("judging") / "tiny",
        spec,
        head=student.head,
        encoder_state=state,
        trust=reference(),
    )


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """A slide: the left half is like the student's tiles, the right half is not."""
    path = tmp_path_factory.mktemp("halves") / "halves.ome.tif"
    parts = [woven(kind, 6 * TILE, 4 * TILE, case=600) for kind in ("spots", "stripes")]
    pixels = np.concatenate(parts, axis=1)
    return write_pyramid(path, pixels, mpp=1.0, compression="zlib")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    path = tmp_path_factory.mktemp("foreign") / "foreign.ome.tif"
    pixels = woven("stripes", 4 * TILE, 4 * TILE, case=601)
    return write_pyramid(path, pixels, mpp=1.0, compression="zlib")


@pytest.mark.parametrize("mode", ["tiles", "tokens"])
def test_a_foreign_slide_is_unlike_in_every_output(
    run, foreign, judging, tmp_path, mode
):
    options = ("classify", foreign, "--student", judging, "--all-cells")
    found = run(*options, "--mode", mode, "-o", tmp_path / "o", "--json").json
    assert found["trust"]["verdict"] == "unlike"
    assert found["trust"]["squares"] == 16
    assert found["trust"]["unlike_share"] > 0.9
    assert "Even the nearest third" in found["trust"]["reasons"][0]
    assert found["calibration"]["sure_right"] == 0.95
    table = (tmp_path / "o" / "areas.csv").read_text("utf-8").splitlines()
    assert {row["verdict"] for row in csv.DictReader(table)} == {"unlike"}
    shapes = json.loads((tmp_path / "o" / "class_map.geojson").read_text("utf-8"))
    assert shapes["trust"]["verdict"] == "unlike"
    assert {f["properties"]["trust"] for f in shapes["features"]} == {"unlike"}
    label = json.loads((tmp_path / "o" / "class_map.zarr" / ".zattrs").read_text())
    assert label["trust"]["verdict"] == "unlike"
    summary = json.loads((tmp_path / "o" / "summary.json").read_text("utf-8"))
    assert summary["trust"] == found["trust"]


def test_the_verdict_is_the_first_line(run, foreign, judging, tmp_path):
    options = ("classify", foreign, "--student", judging, "--all-cells")
    lines = run(*options, "-o", tmp_path).out.splitlines()
    assert lines[0].startswith("UNLIKE what tiny learned from")
    assert "16 squares judged" in lines[0]
    assert lines[1].startswith("  - Even the nearest third")
    assert "95% were right" in lines[2]


def test_a_student_without_a_reference_says_so(run, foreign, bundle, tmp_path):
    options = ("classify", foreign, "--student", bundle, "--all-cells")
    found = run(*options, "-o", tmp_path / "o")
    lines = found.out.splitlines()
    assert lines[0].startswith("TOO LITTLE to say")
    assert lines[1] == "  - This student keeps no reference of what it learned from."
    found = run(*options, "-o", tmp_path / "o", "--json").json
    assert found["trust"]["verdict"] == "too little"
    assert found["trust"]["unlike_share"] is None
    assert found["calibration"] is None


def test_unlike_squares_are_left_out_of_areas_and_exports(
    run, halves, judging, tmp_path
):
    options = ("classify", halves, "--student", judging, "--all-cells")
    everything = run(*options, "-o", tmp_path / "all", "--json").json
    outcome = run(*options, "-o", tmp_path / "like", "--like-only", "--json")
    like = outcome.json
    assert "comparing all 48 squares" in outcome.err
    assert everything["trust"]["every_square"] is False
    assert like["trust"]["every_square"] is True
    unlike = round(48 * like["trust"]["unlike_share"])
    assert 20 <= unlike <= 28
    left = sum(entry["cells"] for entry in like["classes"].values())
    assert left == 48 - unlike
    for name, entry in like["classes"].items():
        assert entry["all_mm2"] == everything["classes"][name]["mm2"]
        assert entry["like_mm2"] == entry["mm2"]
    shapes = json.loads((tmp_path / "like" / "class_map.geojson").read_text("utf-8"))
    measured = [f["properties"]["measurements"] for f in shapes["features"]]
    assert sum(m["Cells"] for m in measured) == left
    text = run(*options, "-o", tmp_path / "like", "--like-only").out
    assert "with unlike squares" in text


def test_the_student_is_not_asked_twice(run, foreign, judging, tmp_path, monkeypatch):
    options = ("classify", foreign, "--student", judging, "--all-cells")
    first = run(*options, "-o", tmp_path / "o", "--json").json
    monkeypatch.setattr("napari_histodistill.maps.trust.judge_slide", None)
    assert run(*options, "-o", tmp_path / "o", "--json").json["trust"] == first["trust"]
