"""Files that are written whole or not at all, and through no link."""

from __future__ import annotations

import os
import stat
import sys

import pytest

from napari_histodistill import files
from napari_histodistill.files import (
    OLD,
    check_tree,
    open_own,
    put_folder,
    read_plain,
    recover,
    write_whole,
    written_beside,
)

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")


@pytest.fixture
def precious(tmp_path):
    """A file of the user that lies elsewhere."""
    path = tmp_path / "elsewhere" / "precious.txt"
    path.parent.mkdir()
    path.write_text("mine")
    return path


@POSIX
def test_a_link_is_replaced_not_followed(tmp_path, precious):
    here = tmp_path / "report.html"
    here.symlink_to(precious)
    write_whole(here, "new")
    assert here.read_text() == "new"
    assert not here.is_symlink()
    assert precious.read_text() == "mine"


def test_a_failed_write_leaves_the_file_before_it(tmp_path):
    here = tmp_path / "table.md"
    here.write_text("before")

    def fail():
        with written_beside(here) as beside:
            beside.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert here.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["table.md"]


@POSIX
def test_what_is_written_is_as_readable_as_any_other_file(tmp_path):
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "a.json", "{}")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o640


def link(path, target):
    path.symlink_to(target)


def second_name(path, target):
    os.link(target, path)


def pipe(path, target):
    os.mkfifo(path)


@POSIX
@pytest.mark.parametrize("make", [link, second_name, pipe])
def test_nothing_else_than_a_plain_file_is_opened_to_write(tmp_path, precious, make):
    here = tmp_path / "events.jsonl"
    make(here, precious)
    for append in (False, True):
        with pytest.raises(FileExistsError):
            open_own(here, create=True, append=append)
    assert precious.read_text() == "mine"


@POSIX
def test_a_dangling_link_makes_no_file(tmp_path):
    (tmp_path / "lock").symlink_to(tmp_path / "made")
    with pytest.raises(FileExistsError):
        open_own(tmp_path / "lock", create=True)
    assert not (tmp_path / "made").exists()


def test_appending_keeps_what_is_there(tmp_path):
    path = tmp_path / "events.jsonl"
    for line in (b"one\n", b"two\n"):
        with open_own(path, create=True, append=True) as file:
            file.write(line)
    assert path.read_bytes() == b"one\ntwo\n"


@POSIX
@pytest.mark.parametrize("make", [link, pipe])
def test_a_tree_with_a_link_or_a_pipe_is_refused(tmp_path, precious, make):
    tree = tmp_path / "run"
    (tree / "deep" / "deeper").mkdir(parents=True)
    (tree / "deep" / "plain").write_text("x")
    check_tree(tree)
    make(tree / "deep" / "deeper" / "odd", precious)
    with pytest.raises(ValueError, match="odd"):
        check_tree(tree)


def folder(path, text):
    path.mkdir()
    (path / "spec.json").write_text(text)
    return path


def test_a_folder_that_cannot_be_put_leaves_the_old_one(tmp_path, monkeypatch):
    target = folder(tmp_path / "student", "old")
    made = folder(tmp_path / "made", "new")
    real = files.rename

    def refuse(source, goal):
        if source == made:
            raise PermissionError(13, "in use")
        real(source, goal)

    monkeypatch.setattr(files, "rename", refuse)
    with pytest.raises(PermissionError):
        put_folder(made, target)
    assert (target / "spec.json").read_text() == "old"
    monkeypatch.undo()
    put_folder(made, target)
    assert (target / "spec.json").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["student"]


def test_a_folder_put_aside_by_a_killed_process_comes_back(tmp_path, monkeypatch):
    target = folder(tmp_path / "student", "old")
    made = folder(tmp_path / "made", "new")
    real = files.rename

    def die(source, goal):
        if source == made:
            raise KeyboardInterrupt
        real(source, goal)

    monkeypatch.setattr(files, "rename", die)
    with pytest.raises(KeyboardInterrupt):
        put_folder(made, target)
    monkeypatch.undo()
    assert not target.exists()
    assert any(p.name.endswith(OLD) for p in tmp_path.iterdir())
    assert recover(target)
    assert (target / "spec.json").read_text() == "old"
    assert not recover(target)


def test_windows_is_asked_again(tmp_path, monkeypatch):
    source = tmp_path / "a"
    source.write_text("x")
    asked = []
    real = type(source).replace

    def busy(self, target):
        asked.append(1)
        if len(asked) < 3:
            raise PermissionError(13, "in use")
        return real(self, target)

    monkeypatch.setattr(files.sys, "platform", "win32")
    monkeypatch.setattr(files, "_RETRY_S", 0)
    monkeypatch.setattr(type(source), "replace", busy)
    files.rename(source, tmp_path / "b")
    assert len(asked) == 3
    assert (tmp_path / "b").read_text() == "x"


def test_of_a_long_file_only_a_part_is_read(tmp_path, monkeypatch):
    path = tmp_path / "output.txt"
    with path.open("wb") as file:
        file.write(b"first")
        file.seek(2**32)  # takes no room on the disk
        file.write(b"last words")
    assert read_plain(path, 5) == b"first"
    assert read_plain(path, 10, last=True) == b"last words"
    (tmp_path / "short").write_bytes(b"ab")
    assert read_plain(tmp_path / "short", 10, last=True) == b"ab"
    with pytest.raises(FileNotFoundError):
        read_plain(tmp_path / "none", 1)


@POSIX
def test_a_part_of_a_link_is_not_read(tmp_path, precious):
    (tmp_path / "link").symlink_to(precious)
    with pytest.raises(FileExistsError, match="it is a link"):
        read_plain(tmp_path / "link", 10)
