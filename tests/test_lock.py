"""The lock: who has it, who may only look, and what it must never touch."""

from __future__ import annotations

import errno
import io
import os
import sys

import pytest

from napari_histodistill import lock as module
from napari_histodistill.errors import InputError, StoreError
from napari_histodistill.lock import WriterLock, is_held

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="flock")


def test_one_writer_at_a_time(tmp_path):
    path = tmp_path / "lock"
    assert not is_held(path)
    mine = WriterLock(path)
    assert is_held(path)
    with pytest.raises(StoreError, match=rf"process {os.getpid()}"):
        WriterLock(path, error=StoreError)
    mine.release()
    assert not is_held(path)
    WriterLock(path).release()


def test_a_link_to_a_file_of_the_user_is_refused_before_it_is_emptied(tmp_path):
    precious = tmp_path / "thesis.tex"
    precious.write_text("years of work")
    for make in (os.symlink, os.link):
        path = tmp_path / f"{make.__name__}.lock"
        make(precious, path)
        with pytest.raises(InputError, match="link"):
            WriterLock(path)
    assert precious.read_text() == "years of work"


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(InputError, match="not a plain file"):
        WriterLock(tmp_path / "lock")


def test_a_run_that_may_only_be_read_is_not_held(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    path.write_text("process 1 on another")
    real = os.open

    def read_only(name, flags, *rest, **more):
        if str(name) == str(path) and flags & (os.O_WRONLY | os.O_RDWR):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(name, flags, *rest, **more)

    real_open = io.open

    def read_only_file(name, mode="r", *rest, **more):
        if str(name) == str(path) and set(mode) & set("wa+x"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real_open(name, mode, *rest, **more)

    # Both ways to open: the administrator, as whom tests may run, may write everywhere.
    monkeypatch.setattr(os, "open", read_only)
    monkeypatch.setattr(io, "open", read_only_file)
    assert not is_held(path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, number):
    def refuse(_file):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, "_try_lock", refuse)
    for act in (WriterLock, is_held):
        path = tmp_path / "lock"
        path.touch()
        with pytest.raises(InputError, match="cannot be locked on this file system"):
            act(path)


def test_a_folder_in_the_place_of_a_lock_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "lock").mkdir()
    with pytest.raises(InputError, match="no plain file"):
        is_held(tmp_path / "lock")
