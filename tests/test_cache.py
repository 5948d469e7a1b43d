"""The cache where it cannot be written to: a temporary folder, and one note."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest

from napari_histodistill import cache
from napari_histodistill.cache import (
    cache_dir,
    cache_note,
    cached,
    runs_dir,
    runs_note,
)
from napari_histodistill.errors import InputError


@pytest.fixture
def blocked(tmp_path, monkeypatch) -> Path:
    """A place that cannot be made, for root neither."""
    file = tmp_path / "file"
    file.write_text("")
    for name in ("HISTODISTILL_CACHE", "HISTODISTILL_RUNS"):
        monkeypatch.setenv(name, str(file / name.lower()))
    return file


def test_a_writable_cache_is_used_and_nothing_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("HISTODISTILL_CACHE", str(tmp_path / "kept"))
    assert cache_dir("a", "b") == tmp_path / "kept" / "a" / "b"
    assert cache_dir("a", "b").is_dir()
    assert cache_note() == ""


def test_without_a_cache_a_temporary_folder_takes_its_place(blocked):
    assert cache_note() == ""  # nothing asked for it yet
    folder = cache_dir("stores", "ab")
    assert folder.is_dir()
    assert folder.parts[-2:] == ("stores", "ab")
    assert cache_dir("stores", "ab") == folder  # the same one all along
    note = cache_note()
    assert "HISTODISTILL_CACHE" in note
    assert str(blocked) in note


def test_a_folder_of_the_cache_that_is_someone_elses_counts(tmp_path, monkeypatch):
    """As after a container that ran as root."""
    root = tmp_path / "kept"
    root.mkdir()
    (root / "stores").write_text("in the way")
    monkeypatch.setenv("HISTODISTILL_CACHE", str(root))
    assert cache_dir("fetched") == root / "fetched"
    assert cache_dir("stores").is_dir()
    assert "HISTODISTILL_CACHE" in cache_note()


def test_a_cache_that_can_only_be_read_is_read(tmp_path, monkeypatch):
    root = tmp_path / "kept"
    (root / "fetched").mkdir(parents=True)
    (root / "fetched" / "a.svs").write_text("there")
    monkeypatch.setenv("HISTODISTILL_CACHE", str(root))
    monkeypatch.setattr(cache, "_why_not", lambda *_: "Read-only file system")
    assert cached("fetched", "a.svs") == root / "fetched" / "a.svs"
    other = cached("fetched", "b.svs")
    assert root not in other.parents
    other.write_text("can be written")


def test_a_user_without_a_home_gets_no_folder_called_tilde(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("HISTODISTILL_CACHE", "HISTODISTILL_RUNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(
        platformdirs, "user_cache_path", lambda _: Path("~/.cache/histodistill")
    )
    monkeypatch.setattr(
        platformdirs, "user_data_path", lambda _: Path("~/.local/histodistill")
    )
    assert cache_dir("a").is_dir()
    assert runs_dir().is_dir()
    assert "there is no home folder" in cache_note()
    assert list(tmp_path.iterdir()) == []


def test_trainings_go_to_a_folder_that_outlives_the_process(blocked, monkeypatch):
    registered = []
    monkeypatch.setattr(cache.atexit, "register", lambda *a, **_: registered.append(a))
    folder = runs_dir()
    (folder / "run").mkdir()
    assert not registered
    assert str(folder) in runs_note()
    assert "HISTODISTILL_RUNS" in runs_note()
    (folder / "run").rmdir()
    folder.rmdir()


def test_no_temporary_folder_either_is_one_sentence(blocked, monkeypatch):
    def none(**_):
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(cache.tempfile, "mkdtemp", none)
    with pytest.raises(InputError, match="HISTODISTILL_CACHE"):
        cache_dir("stores")
