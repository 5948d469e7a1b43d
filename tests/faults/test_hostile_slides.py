"""Slides that lie: bounded memory and time, one sentence, exit 2."""

from __future__ import annotations

import json
import os

import pytest

from napari_histodistill.errors import SlideError
from napari_histodistill.slides import open_slide
from tests.faults.capped import run_capped
from tests.faults.hostile_tiffs import hostile_tiffs, odd_tiffs
from tests.faults.targets import TARGETS, try_input

MAX_CPU_S = 5.0


def test_hostile_tiffs_are_refused_in_a_sentence_and_little_memory(tmp_path):
    files = {}
    for k, (name, content) in enumerate(hostile_tiffs().items()):
        files[name] = tmp_path / f"{k}.tif"
        files[name].write_bytes(content)
    results = run_capped([("info", path, "--json") for path in files.values()])
    wrong = {}
    for (name, path), result in zip(files.items(), results, strict=True):
        if result.code != 2 or result.out or path.name not in result.sentence:
            wrong[name] = (result.code, result.err[-300:], result.out[:200])
        elif result.cpu_s > MAX_CPU_S:
            wrong[name] = f"{result.cpu_s} s of CPU"
    assert not wrong


def test_odd_tiffs_open(tmp_path):
    target = TARGETS["tiff"]
    wrong = {}
    for name, content in odd_tiffs().items():
        outcome = try_input(target, content, tmp_path, ".tif")
        if outcome.kind != "good":
            wrong[name] = outcome
    assert not wrong


ODD_NAMES = {
    "newline": "a\nb.tif",
    "emoji": "😐 slide.tif",
    "quotes": """it's "mine".tif""",
    "percent": "%s%n%(x)s {y} [red].tif",
    "escape": "\x1b[31mred\x1b[0m.tif",
    "very long": "x" * 251 + ".tif",
    "spaces": "  .tif",
    "no UTF-8": os.fsdecode(b"\xe9t\xe9.tif"),
}


def test_names_with_odd_characters(tmp_path):
    good = odd_tiffs()["big-endian BigTIFF"]
    bad = next(iter(hostile_tiffs().values()))
    paths = []
    for content, folder in ((good, "good"), (bad, "bad")):
        (tmp_path / folder).mkdir()
        for name in ODD_NAMES.values():
            paths.append(tmp_path / folder / name)
            paths[-1].write_bytes(content)
    commands = [
        command
        for path in paths
        for command in (("info", path), ("info", path, "--json"))
    ]
    for command, result in zip(commands, run_capped(commands), strict=True):
        if command[1].parent.name == "bad":
            assert result.code == 2, command
            assert result.sentence.isprintable()
            continue
        assert result.code == 0, (command, result.err)
        assert result.err == ""
        assert "\x1b" not in result.out
        if "--json" in command:
            name = json.loads(result.out)["slide"]
            assert os.fsencode(name) == os.fsencode(command[1])


@pytest.mark.parametrize("name", ["x" * 300 + ".tif", "x\0y.tif", "x.tif/y.tif"])
def test_names_that_cannot_exist(tmp_path, name):
    (tmp_path / "x.tif").write_bytes(b"")
    with pytest.raises(SlideError, match=r"no such file|cannot be opened"):
        open_slide(tmp_path / name)


def test_pipes_and_devices_are_not_waited_for(tmp_path):
    pipe = tmp_path / "pipe.tif"
    os.mkfifo(pipe)
    for path in (pipe, "/dev/zero", "/dev/null"):
        with pytest.raises(SlideError, match="not a file"):
            open_slide(path)
