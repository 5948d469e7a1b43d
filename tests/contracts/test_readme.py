"""What the README shows works as shown."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "napari_histodistill"
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def executed(block: str) -> dict[str, Any]:
    """Run a block and return its names."""
    names: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), names)
    return names


@pytest.mark.slow
def test_the_python_block_about_a_slide_runs(tmp_path, monkeypatch, capsys):
    from napari_histodistill.slides.tissue.writing import write_pyramid
    from tests.fakes import tissue_image

    write_pyramid(tmp_path / "sample.ome.tif", tissue_image(1600, 2400), mpp=0.5)
    (tmp_path / "sample.ome.tif").rename(tmp_path / "slide.svs")
    monkeypatch.chdir(tmp_path)
    names = executed(blocks("python")[0])
    assert names["tile"].shape == (1024, 1024, 3)
    assert "squares" in capsys.readouterr().out
    assert names["classes"].labels.any()
    outlines = json.loads((tmp_path / "classes.geojson").read_text("utf-8"))
    assert outlines["features"]
    assert np.nanmax(names["heat"].values) == pytest.approx(1, abs=1e-3)
    assert names["places"][0].is_query


def test_the_python_block_about_training_runs(tmp_path, monkeypatch, capsys):
    for name in ("training", "sample_data"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    names = executed(blocks("python")[1])
    assert (tmp_path / "smoke" / "student" / "spec.json").is_file()
    assert names["scores"].protocol == "head"  # on tiles that it has not seen
    assert "balanced accuracy" in capsys.readouterr().out


def test_no_python_block_is_left_out():
    assert len(blocks("python")) == 2


def test_every_command_of_the_readme_exists():
    from typer.main import get_command

    from napari_histodistill.cli import app

    known = set(get_command(app).commands)
    shown = set(re.findall(r"^histodistill (\w+)", "\n".join(blocks("sh")), re.M))
    assert shown
    assert shown <= known


# What shows that a row of the table of formats is true, on a real or a made file.
FORMATS = {
    "Aperio SVS": "tests/slides/test_real_files.py",
    "OME-TIFF": "tests/slides/tiff/test_dialects.py",
    "PerkinElmer QPTIFF": "tests/slides/formats/test_scenes.py",
    "OME-Zarr": "tests/slides/formats/test_omezarr.py",
    "PNG": "tests/slides/test_opening.py",
    "the same over HTTP": "tests/slides/formats/test_remote.py",
    "DICOM": "tests/slides/formats/test_dicom.py",
    "Zeiss CZI": "tests/slides/formats/test_czi.py",
    "Hamamatsu NDPI": "tests/slides/formats/test_made_slides.py",
}


def test_every_row_of_the_formats_has_a_test_and_its_extras_are_in_all():
    table = README.partition("| format | read by |")[2].partition("\n\n")[0]
    rows = [line for line in table.splitlines()[2:] if line.startswith("|")]
    for row in rows:
        tests = [path for name, path in FORMATS.items() if row.startswith(f"| {name}")]
        assert len(tests) == 1, row
        assert (ROOT / tests[0]).is_file()
    assert len(rows) == len(FORMATS)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    brought = {"all"}
    for _ in extras:  # extras that bring extras
        brought |= {
            extra
            for name in brought
            for needed in extras[name]
            for asked in re.findall(r"^napari-histodistill\[(.+)\]", needed)
            for extra in asked.split(",")
        }
    named = set(re.findall(r"`\[(\w+)\]`", table))
    assert {"openslide", "dicom", "czi", "http"} <= named <= brought
    assert brought <= set(extras)


def test_linked_files_exist():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_architecture_names_files_that_exist():
    text = (PACKAGE / "ARCHITECTURE.md").read_text("utf-8")
    named = set(re.findall(r"`([a-z_]+(?:/[a-z_0-9]+)*\.py)`", text))
    assert len(named) > 30
    homes = (PACKAGE, ROOT)
    assert not [n for n in named if not any((home / n).exists() for home in homes)]
