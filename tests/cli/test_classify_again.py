"""``classify`` into a folder that holds something: this slide's cells, or another's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import zarr
from PIL import Image

from tests.fakes import tissue_image

if TYPE_CHECKING:
    from pathlib import Path

MPP = ("--mpp", "0.5")


@pytest.fixture
def namesakes(tmp_path) -> tuple[Path, Path]:
    """Two slides of one name, in folders of their own."""
    paths = tmp_path / "a" / "tile.png", tmp_path / "b" / "tile.png"
    for path, height in zip(paths, (400, 500), strict=True):
        path.parent.mkdir()
        Image.fromarray(tissue_image(height, 600)).save(path)
    return paths


def contents(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_cells_of_another_run_are_not_counted(run, slide_file, bundle, tmp_path):
    used, fresh = tmp_path / "used", tmp_path / "fresh"
    options = ("classify", slide_file, "--student", bundle, "--json", "-o")
    everything = run(*options, used, "--all-cells").json
    again, alone = run(*options, used).json, run(*options, fresh).json
    assert everything["cells"] > again["cells"] == alone["cells"]
    for key in ("trust", "classes", "unclassified", "unreadable"):
        assert again[key] == alone[key]
    assert again["unclassified"] == 0
    for name in ("areas.csv", "class_map.geojson"):
        assert (used / name).read_bytes() == (fresh / name).read_bytes()
    labels = [
        zarr.open_array(folder / "class_map.zarr" / "0", mode="r")[:]
        for folder in (used, fresh)
    ]
    np.testing.assert_array_equal(*labels)


def test_an_export_of_the_store_shows_all_its_cells(run, slide_file, bundle, tmp_path):
    options = ("classify", slide_file, "--student", bundle, "--json", "-o", tmp_path)
    everything = run(*options, "--all-cells").json
    assert run(*options).code == 0
    store, path = everything["outputs"]["store"], tmp_path / "all.csv"
    found = run(
        "export", store, "--to", "csv", "-o", path, "--student", bundle, "--json"
    )
    assert found.json["classes"] == everything["classes"]


@pytest.mark.parametrize("more", [(), ("--restart",)])
def test_a_slide_of_the_same_name_is_another_slide(
    run, namesakes, bundle, tmp_path, more
):
    one, other = namesakes
    out = tmp_path / "out"
    options = ("-o", out, "--student", bundle, *MPP)
    assert run("classify", one, *options).code == 0
    before = contents(out)
    refused = run("classify", other, *options, *more)
    assert refused.code == 2
    assert f"holds the results of {one}; choose another one for {other}" in refused.err
    assert contents(out) == before
    assert run("classify", one, *options, *more).code == 0


def test_an_old_summary_goes_by_name(run, namesakes, bundle, tmp_path):
    """The store then tells the two apart, and by their paths."""
    one, other = namesakes
    out = tmp_path / "out"
    options = ("-o", out, "--student", bundle, *MPP)
    assert run("classify", one, *options).code == 0
    summary = json.loads((out / "summary.json").read_text("utf-8"))
    del summary["slide_digest"]
    (out / "summary.json").write_text(json.dumps(summary), "utf-8")
    refused = run("classify", other, *options)
    assert refused.code == 2
    assert f"slide {str(one)!r} instead of {str(other)!r}" in refused.err
    assert run("classify", one, *options).code == 0


def test_a_file_that_changed_is_not_called_another_name(
    run, namesakes, bundle, tmp_path
):
    path = namesakes[0]
    options = ("-o", tmp_path / "out", "--student", bundle, *MPP)
    assert run("classify", path, *options).code == 0
    path.write_bytes(namesakes[1].read_bytes())
    said = {
        "classify": "or of this one before it changed",
        "embed": "before its file or its colours changed",
    }
    for command, words in said.items():
        refused = run(command, path, *options)
        assert refused.code == 2
        assert words in refused.err
    assert run("embed", path, *options, "--restart").code == 0


def test_the_name_of_a_result_is_refused_before_anything_is_computed(
    run, bundle, tmp_path
):
    slide = tmp_path / "class_map.png"
    Image.fromarray(tissue_image()).save(slide)
    options = ("-o", tmp_path / "out", "--student", bundle, *MPP)
    refused = run("classify", slide, *options)
    assert refused.code == 2
    assert refused.out == ""
    assert "class_map.zarr" in refused.err
    assert "rename the slide" in refused.err
    assert not (tmp_path / "out").exists()
    assert run("embed", slide, *options).code == 0
