"""Names of files on a terminal: shown, never obeyed, and never part of a format."""

from __future__ import annotations

import io
import json
import os
import sys

import pytest

from napari_histodistill.cli.console import encodable, follow, printable
from napari_histodistill.cli.doctor import _for_an_issue
from napari_histodistill.files import without_home
from napari_histodistill.maps.progress import EmbedReport

ESC, CSI = "\x1b", "\x9b"
NAMES = (
    "[link=http://host]slide[/link].svs",
    "{task.fields}{0}{.svs",
    f"a{ESC}]8;;http://host{ESC}\\b{CSI}2J.svs",
    "[red]x[/]",
    "annex\u202egpj.exe",
)


class Terminal(io.StringIO):
    """A stderr that is a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize("name", NAMES)
def test_a_bar_shows_a_name_as_it_is(name, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    report = EmbedReport(done=1, total=2, message=f"{name}: odd")
    assert follow(iter([report]), name) is report
    shown = terminal.getvalue()
    assert f"{ESC}]8" not in shown, "no link"
    assert CSI not in shown
    assert "\u202e" not in shown
    assert printable(name) in shown


@pytest.mark.parametrize("name", NAMES)
def test_json_holds_no_control_and_reads_back(name):
    text = encodable(json.dumps({"slide": name}, ensure_ascii=False, indent=2))
    assert ESC not in text
    assert CSI not in text
    assert json.loads(text) == {"slide": name}


def test_the_users_own_folder_is_a_tilde(monkeypatch, tmp_path):
    home = tmp_path / "jane.doe"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    assert without_home(f"{home}: not there") == "~: not there"
    inside = home / "cache"
    tilde = f"~{os.sep}cache"
    assert without_home(f"cache: {inside} is full") == f"cache: {tilde} is full"
    assert without_home(f"{home}2/x") == f"{home}2/x"
    found = _for_an_issue({"a": [str(inside)], "b": 1, "c": None})
    assert str(home) not in str(found)
    assert found["b"] == 1


def test_a_service_whose_home_is_the_root_keeps_its_paths(monkeypatch):
    monkeypatch.setenv("HOME", "/")
    monkeypatch.setenv("USERPROFILE", "/")
    assert without_home("/data/slide.svs") == "/data/slide.svs"
