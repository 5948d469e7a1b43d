"""``pairs``, and the whole story from files to a map, as a shell script."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_histodistill.distill.pairs.loading import load_pairs
from napari_histodistill.distill.pairs.store import read_pairs
from napari_histodistill.distill.reading import read_recipe
from tests.distill.sections.conftest import section_files
from tests.forked import run_script

__all__ = ["section_files"]

STORY = Path(__file__).with_name("story") / "story.sh"


def test_one_section_becomes_pairs(run, section_files, tmp_path):
    out, page = tmp_path / "pairs.zarr", tmp_path / "page.html"
    found = run(
        *("pairs", section_files.he, section_files.partner, "-o", out),
        *("--landmarks", section_files.he_places, section_files.partner_places),
        *("--tile-px", 32, "--relation", "same", "--approved-by", "A. Reader"),
        *("--limit", 20, "--seed", 3, "--report", page, "--json"),
        *("--recipe", tmp_path / "recipes" / "My First.toml"),
    )
    assert found.code == 0, found.err
    said = found.json
    assert said["pairs"] == len(read_pairs(out)) == 20
    (partner,) = said["partners"]
    assert (partner["name"], partner["kind"]) == ("image", "channels")
    assert partner["tile_px"] == 32
    (section,) = said["sections"]
    assert section["relation"] == "same"
    assert section["confidence"] == 1
    assert section["alignments"][0]["aligned_by"] == "landmarks"
    assert set(section["lost"]) >= {"background", "outside_partner", "ink", "fold"}
    recipe = read_recipe(tmp_path / "recipes" / "My First.toml")
    assert recipe.data.folder == "../pairs.zarr"
    assert recipe.name == "my-first"
    (dense,) = recipe.dense
    assert (dense.column, dense.kind, dense.tile_px) == ("image", "channels", 32)
    assert load_pairs(recipe, out).validation is not None
    (origin,) = read_pairs(out).origins
    assert origin.approved_by == "A. Reader"
    assert "approved by" in page.read_text("utf-8")
    for options, said in (
        (("--limit", 10), "too few to train on"),
        (("--limit", 10, "--tile-mpp", 0.1), "times: nothing new is seen"),
        (("--hold-out", "case 7"), "--hold-out: 'case 7' is none of he.ome.tif"),
    ):
        refused = run(
            *("pairs", section_files.he, section_files.partner, "--in-register"),
            *("-o", tmp_path / "p.zarr", "--tile-px", 32, *options),
            *("--recipe", tmp_path / "r.toml"),
        )
        assert refused.code == 2
        assert said in refused.err
        assert not (tmp_path / "p.zarr").exists()
        assert not (tmp_path / "r.toml").exists()
    again = run("pairs", section_files.he, section_files.partner, "-o", out)
    assert again.code == 2
    assert "this export did not write" in again.err


def test_labels_are_classes_or_objects_as_said(run, section_files, tmp_path):
    for sort in ("classes", "objects"):
        out = tmp_path / f"{sort}.zarr"
        found = run(
            *("pairs", section_files.he, section_files.mask, "-o", out),
            *("--in-register", "--as", sort, "--tile-px", 32, "--json"),
        )
        assert found.code == 0, found.err
        assert found.json["partners"][0]["kind"] == "mask"
        values = set(read_pairs(out).partner("mask", "mask").ravel().tolist())
        assert values == ({0, 1, 2} if sort == "classes" else {0, 1})


def test_a_bad_row_is_named_and_nothing_is_written(run, section_files, tmp_path):
    home = section_files.home
    sections = tmp_path / "sections.csv"
    sections.write_text(
        "he,partner,in_register\n"
        f"{home}/he.ome.tif,{home}/marker.ome.tif,yes\n"
        f"{home}/marker.ome.tif,{home}/marker.ome.tif,yes\n"
    )
    out = tmp_path / "pairs.zarr"
    for arguments, said in (
        ((sections,), "sections.csv row 3: marker.ome.tif: the first file is the H&E"),
        ((sections, section_files.partner), "leave out"),
        ((section_files.he,), "name its partner too"),
        ((sections, "--transform", sections), "stand in its row"),
        ((sections, "--tile-mpp", "0"), "--tile-mpp"),
        ((sections, "--recipe", sections), "one of the inputs"),
    ):
        found = run("pairs", *arguments, "-o", out, "--tile-px", 32)
        assert found.code == 2, arguments
        assert said in found.err
        assert not found.out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sections.csv"]


@pytest.mark.slow(45)
@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell runs it")
def test_the_whole_story_runs_from_files_to_a_map(tmp_path):
    # The interpreter's own python, whatever else is installed.
    home = str(Path(sys.executable).parent)
    assert shutil.which("histodistill", path=home)
    env = dict(os.environ, PATH=os.pathsep.join([home, os.environ["PATH"]]))
    folder = tmp_path / "story"
    # So long only a script takes that waits for ever: no measure of how fast it is.
    code, said = run_script(["sh", STORY, folder], env=env, timeout=1800)
    assert code == 0, said

    def answer(name):
        return json.loads((folder / f"{name}.out").read_text("utf-8"))

    found = answer("align")
    assert found["accepted"]
    assert found["aligned_by"] == "search"
    # The partner was turned by a quarter: 576 px of 0.5 µm.
    truth = np.array([[0, 1, 0], [-1, 0, 287.5], [0, 0, 1]])
    corners = np.array([[0, 0, 1], [0, 288, 1], [288, 0, 1], [288, 288, 1]]).T
    off = np.hypot(*((found["matrix_um"] - truth) @ corners)[:2])
    assert off.max() < 3
    cases = [section["case"] for section in answer("pairs")["sections"]]
    assert cases == ["case A", "case B"]
    assert answer("distill")["folder"] == "run/student"
    report = (folder / "run" / "report.html").read_text("utf-8")
    assert "the same section; H&amp;E 0.5 µm/px" in report
    assert "A. Reader" not in report  # names only where a recipe asks for them
    classes = answer("classify")["classes"]
    assert set(classes) == {"inside", "outside"}
    assert sum(c["cells"] for c in classes.values()) > 60
