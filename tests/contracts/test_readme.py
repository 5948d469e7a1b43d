"""What the README shows works as shown."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


@pytest.mark.slow
def test_the_python_block_runs(tmp_path, monkeypatch, capsys):
    from napari_histodistill.slides.tissue.writing import write_pyramid
    from tests.fakes import tissue_image

    write_pyramid(tmp_path / "sample.ome.tif", tissue_image(1600, 2400), mpp=0.5)
    (tmp_path / "sample.ome.tif").rename(tmp_path / "slide.svs")
    monkeypatch.chdir(tmp_path)
    (block,) = blocks("python")
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["tile"].shape == (1024, 1024, 3)
    assert "cells" in capsys.readouterr().out
    assert np.nanmax(names["heat"].values) == pytest.approx(1, abs=1e-3)


def test_every_command_of_the_readme_exists():
    from typer.main import get_command

    from napari_histodistill.cli import app

    known = set(get_command(app).commands)
    shown = set(re.findall(r"^histodistill (\w+)", "\n".join(blocks("sh")), re.M))
    assert shown
    assert shown <= known


def test_linked_files_exist():
    root = Path(__file__).parents[2]
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert not [link for link in links if not (root / link).exists()]
