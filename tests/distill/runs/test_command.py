"""The command that is copied does what it says: precisely that, in a shell."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from napari_histodistill.distill.runs.command import (
    Shell,
    command_again,
    command_in_folder,
    quoted,
    shell_here,
)
from napari_histodistill.distill.runs.folder import read_run, start_run
from napari_histodistill.distill.runs.run import train
from napari_histodistill.errors import InputError
from napari_histodistill.students.bundle import load_spec
from tests.distill.small_runs import small_config, write_textures

SCRIPTS = Path(sys.executable).parent


def test_awkward_names_stay_one_word_each(tmp_path):
    folder = tmp_path / "it's a run; rm -rf $HOME"
    start_run(small_config(), folder, tmp_path / "two words")
    words = shlex.split(command_again(folder, threads=3, shell=Shell.POSIX))
    assert words[:2] == ["histodistill", "distill"]
    assert Path(words[2]) == folder / "config.toml"
    assert words[words.index("--data") + 1] == str(tmp_path / "two words")
    assert words[words.index("-o") + 1] == f"{folder}-again"
    assert words[-2:] == ["--threads", "3"]
    assert "--threads" not in command_again(folder)


AWKWARD = ("two words", "it's", "$HOME", "`id`", "a&b", "a;b|c", "(x)", "“curly”", "")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no POSIX shell")
def test_a_posix_shell_takes_the_very_words():
    line = quoted(["printf", "%s\\n", *AWKWARD], Shell.POSIX)
    done = subprocess.run(["sh", "-c", line], capture_output=True, check=True)
    assert done.stdout.decode("utf-8").split("\n")[:-1] == list(AWKWARD)


def test_powershell_gets_quotes_of_its_own():
    words = ("run", r"C:\My runs\it's $new", "a`b", "a&b", "“curly”")
    assert quoted(words, Shell.POWERSHELL) == (
        'run "C:\\My runs\\it\'s `$new" "a``b" "a&b" "`“curly`”"'
    )
    plain = r"C:\runs\one-1.2\config.toml"
    assert quoted(["histodistill", plain], Shell.POWERSHELL) == f"histodistill {plain}"


@pytest.mark.skipif(shutil.which("pwsh") is None, reason="PowerShell is not installed")
def test_powershell_takes_the_very_words():
    code = "import sys; sys.stdout.buffer.write('\\n'.join(sys.argv[1:]).encode())"
    awkward = [w for w in AWKWARD if w]  # older ones drop an empty word
    line = quoted([sys.executable, "-c", code, *awkward], Shell.POWERSHELL)
    done = subprocess.run(
        ["pwsh", "-NoProfile", "-Command", f"& {line}"], capture_output=True, check=True
    )
    assert done.stdout.decode("utf-8").split("\n") == awkward


def test_the_shell_is_that_of_the_machine(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert shell_here() is Shell.POWERSHELL
    monkeypatch.setattr(sys, "platform", "linux")
    assert shell_here() is Shell.POSIX


def test_for_a_reader_elsewhere_the_command_names_no_place(tmp_path):
    folder = tmp_path / "H-21-12345"
    start_run(small_config(), folder, tmp_path / "J. Doe")
    command = command_in_folder(folder, threads=2)
    assert command == (
        "histodistill distill config.toml --data PAIRS -o ../again --threads 2"
    )
    inside = tmp_path / "another"
    start_run(small_config(), inside, inside / "pairs.zarr")
    assert "--data pairs.zarr" in command_in_folder(inside)


def test_a_folder_that_is_no_run_has_no_command(tmp_path):
    with pytest.raises(InputError, match="not a training run"):
        command_again(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("histodistill", path=str(SCRIPTS)) is None,
    reason="the command is not installed beside this Python",
)
@pytest.mark.slow(17)
def test_the_very_command_trains_the_same_student_again(tmp_path):
    tiles = write_textures(tmp_path / "tiles")
    # float32 on one thread: the same machine then gives the same bytes.
    config = small_config("triplet", schedule={"steps": 4})
    folder = start_run(config, tmp_path / "a run", tiles)
    list(train(folder, device="cpu", threads=1))
    command = command_again(folder, threads=1)
    path = f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(  # precisely what was copied
        command, shell=True, env=os.environ | {"PATH": path}, check=False,
        capture_output=True, timeout=300, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    again = tmp_path / "a run-again"
    assert read_run(again)[0] == config
    first, second = load_spec(folder / "student"), load_spec(again / "student")
    assert first.training.arm == second.training.arm == "triplet"
    assert first.digest == second.digest
    assert (again / "report.html").is_file()
