"""Names and locales that lack letters: nothing that was computed is lost to them."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from napari_histodistill.cli.console import answering
from tests.fakes import tissue_image


def printed(encoding: str, name: str, *, as_json: bool) -> bytes:
    """Return what an answer becomes on a stdout of an encoding."""
    raw = io.BytesIO()
    before, sys.stdout = sys.stdout, io.TextIOWrapper(raw, encoding)
    try:
        with answering(as_json=as_json) as answer:
            answer.give({"name": name}, f"{name}: 2 mm²")
        sys.stdout.flush()
        return raw.getvalue()
    finally:
        sys.stdout = before


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
@pytest.mark.parametrize("name", ["名前", "scan\udce9", "plain"])
def test_an_answer_fits_every_stdout(encoding, name):
    assert json.loads(printed(encoding, name, as_json=True).decode()) == {"name": name}
    text = printed(encoding, name, as_json=False).decode(encoding)
    assert ": 2 mm" in text


def test_json_is_utf8_whatever_the_locale(tmp_path):
    path = tmp_path / "名前.png"
    Image.fromarray(tissue_image(60, 80)).save(path)
    done = subprocess.run(
        [sys.executable, "-m", "napari_histodistill.cli", "info", str(path), "--json"],
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.decode("utf-8"))["name"] == path.name


def test_a_name_that_is_no_text_gets_its_summary(run, bundle, tmp_path):
    path = tmp_path / os.fsdecode(b"scan\xe9.png")
    try:
        Image.fromarray(tissue_image(300, 400)).save(path)
    except OSError:
        pytest.skip("this disk takes no such names")
    options = ("-o", tmp_path / "out", "--student", bundle, "--mpp", "0.5", "--json")
    for _again in range(2):
        outcome = run("classify", path, *options)
        assert outcome.code == 0, outcome.err
        assert outcome.json["slide"] == str(path)
        summary = (tmp_path / "out" / "summary.json").read_text("utf-8")
        assert json.loads(summary) == outcome.json
