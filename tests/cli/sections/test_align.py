"""``align``: what it prints and writes, and what it leaves unwritten."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.distill.sections.conftest import PLACES, SIDE, section_files, write_places

__all__ = ["section_files"]

BACK = np.array([[0, 1, 0], [-1, 0, SIDE / 2 - 0.5], [0, 0, 1]])
"""µm of the turned partner to µm of the H&E."""


@pytest.fixture
def places(section_files):
    return "--landmarks", section_files.he_places, section_files.partner_places


def test_the_answer_has_the_keys_that_are_promised(
    run, section_files, places, tmp_path
):
    out, page = tmp_path / "new" / "t.json", tmp_path / "page.html"
    found = run(
        *("align", section_files.he, section_files.partner, "-o", out, *places),
        *("--approved-by", "A. Reader", "--report", page, "--json"),
    )
    assert found.code == 0, found.err
    said = found.json
    assert {
        "matrix_um",
        "kind",
        "residual_um",
        "score",
        "margin",
        "accepted",
        "reasons",
    } <= set(said)
    np.testing.assert_allclose(said["matrix_um"], BACK, atol=1e-9)
    assert said["accepted"]
    assert said["kind"] == "affine"
    assert said["residual_um"] == 0
    assert said["score"] is said["margin"] is None
    kept = json.loads(out.read_text("utf-8"))
    np.testing.assert_allclose(kept["matrix_um"], BACK, atol=1e-9)
    assert kept["alignment"]["approved_by"] == "A. Reader"
    assert page.read_text("utf-8").startswith("<!DOCTYPE html>")
    again = run("align", section_files.he, section_files.partner, "-o", out, *places)
    assert again.code == 0, again.err
    assert "turned by 90.0°" in again.out


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("t.tfm", ("--transform-unit", "mm")),
        ("t.txt", ()),
        ("t.txt", ("--to", "itk", "--transform-unit", "um")),
        ("q.json", ("--to", "qupath")),
        ("q.txt", ("--to", "qupath", "--fixed", "partner")),
    ],
)
def test_other_programs_formats_are_written_and_read_back(
    run, section_files, places, tmp_path, name, options
):
    out, again = tmp_path / name, tmp_path / "again.json"
    files = section_files.he, section_files.partner
    found = run("align", *files, "-o", out, *places, *options)
    assert found.code == 0, found.err
    same = [word for word in options if word not in {"--to", "itk", "qupath"}]
    found = run("align", *files, "-o", again, "--transform", out, *same, "--json")
    assert found.code == 0, found.err
    np.testing.assert_allclose(found.json["matrix_um"], BACK, atol=1e-6)
    assert found.json["aligned_by"] == "another program"
    assert found.json["residual_um"] is None
    assert found.json["error_um"] is None


def test_what_is_not_accepted_is_not_written_unless_asked(run, section_files, tmp_path):
    y, x = PLACES.T
    there = np.stack([SIDE - x, y], axis=1)
    shuffled = write_places(tmp_path / "s.csv", there[[3, 0, 5, 1, 6, 2, 4]])
    out, page = tmp_path / "t.json", tmp_path / "page.html"
    command = (
        *("align", section_files.he, section_files.partner, "-o", out),
        *("--landmarks", section_files.he_places, shuffled, "--kind", "similarity"),
        *("--report", page, "--json"),
    )
    found = run(*command)
    assert found.code == 2
    assert not out.exists()
    assert page.exists()
    assert "Not accepted." in page.read_text("utf-8")
    assert found.json["accepted"] is False
    assert found.json["output"] is None
    assert "contradict each other" in found.err
    assert "--accept-anyway" in found.err
    found = run(*command, "--accept-anyway")
    assert found.code == 0, found.err
    assert found.json["accepted"] is False
    pairs = ("pairs", section_files.he, section_files.partner, "--transform", out)
    refused = run(*pairs, "-o", tmp_path / "p.zarr", "--tile-px", 32)
    assert refused.code == 2
    assert "is not accepted" in refused.err
    assert not (tmp_path / "p.zarr").exists()


def test_bad_input_is_one_sentence_and_writes_nothing(
    run, section_files, places, tmp_path
):
    files = section_files.he, section_files.partner
    kept = section_files.he.read_bytes()
    notes, out = tmp_path / "notes.txt", tmp_path / "t.json"
    notes.write_text("mine")
    for arguments, said in (
        ((*files, "-o", files[0], *places), "this is one of the inputs"),
        ((*files, "-o", notes, *places), "did not write"),
        ((*files, "-o", notes / "t.json", *places), "is no folder"),
        (
            (*files, "-o", out, "--transform", notes),
            "is not a transform",
        ),
        (
            (*files, "-o", out, *places, "--report", notes),
            "did not write",
        ),
        ((files[0], tmp_path / "none", "-o", out), "none"),
        ((*files, "-o", out, "--kind", "bent"), "--kind"),
    ):
        found = run("align", *arguments)
        assert found.code == 2, arguments
        assert said in found.err
        assert not found.out
        assert len(found.err.strip().splitlines()) == 1
    assert section_files.he.read_bytes() == kept
    assert notes.read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.txt"]


@pytest.mark.parametrize("ending", ["csv", "tsv", "geojson"])
def test_landmarks_go_out_as_other_programs_read_them(
    run, section_files, places, tmp_path, ending
):
    files = section_files.he, section_files.partner
    mine = tmp_path / f"he.{ending}", tmp_path / f"partner.{ending}"
    both = tmp_path / "both.csv"
    out = "-o", tmp_path / "t.json"
    found = run(
        *("align", *files, *out, *places),
        *("--landmarks-out", *mine, "--bigwarp-out", both),
    )
    assert found.code == 0, found.err
    for again in (
        ("--landmarks", *mine),
        ("--landmark-pairs", both, "--landmark-unit", "px"),
        ("--landmark-pairs", tmp_path / "t.json"),
    ):
        found = run("align", *files, "-o", tmp_path / "u.json", *again, "--json")
        assert found.code == 0, found.err
        np.testing.assert_allclose(found.json["matrix_um"], BACK, atol=1e-3)
        assert found.json["landmarks"] == len(PLACES)
    found = run("align", *files, *out, "--in-register", "--bigwarp-out", both)
    assert found.code == 2
    assert "there are no landmarks" in found.err
