"""Killed, interrupted, resumed: the numbers are those of a run left alone."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from napari_histodistill.errors import StoreError
from napari_histodistill.maps import EmbeddingStore
from tests.forked import start_fresh

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform == "win32", reason="no process can send another one Ctrl-C there"
    ),
]

STRIDE = ("--stride-um", "16")


def cells(path: Path) -> tuple[int, int]:
    """Return (done, wanted) of a store that another process may be writing."""
    with EmbeddingStore.open(path) as store:
        return int((store.status == 1).sum()), int(store.wanted.sum())


def wait_for_work(path: Path, running) -> None:
    """Wait until some blocks are done, long before all are."""
    until = time.monotonic() + 180
    while time.monotonic() < until and running.poll() is None:
        try:
            done, wanted = cells(path)
        except StoreError:
            done, wanted = 0, 0
        if done > wanted / 20 > 0:
            return
        time.sleep(0.02)
    out, err = running.communicate(timeout=5)
    pytest.fail(f"the run never got into the middle: {out} {err}")


def readers_of(pid: int) -> list[Path]:
    """Return what Linux keeps of the processes that read for another one."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"reading.worker" in (folder / "cmdline").read_bytes():
                found.append(folder)
    return found


def wait_until_gone(processes: list[Path]) -> None:
    until = time.monotonic() + 20
    while any((p / "cmdline").exists() for p in processes):
        assert time.monotonic() < until, "a process stayed behind"
        time.sleep(0.05)


def contents(path: Path) -> dict[str, bytes]:
    """Return the bytes of every chunk of numbers and of status."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for name in ("embeddings", "status")
        for file in (path / name).rglob("*")
        if file.is_file()
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, large_slide, bundle) -> Path:
    from napari_histodistill.cli import main

    out = tmp_path_factory.mktemp("undisturbed")
    options = ["embed", str(large_slide), "-o", str(out), "--student", str(bundle)]
    assert main([*options, *STRIDE]) == 0
    return out / "large.ome.zarr"


def test_kill_then_resume_is_byte_identical(
    process, large_slide, bundle, tmp_path, undisturbed
):
    options = ("embed", large_slide, "-o", tmp_path, "--student", bundle, *STRIDE)
    store = tmp_path / "large.ome.zarr"
    running = process(*options)
    wait_for_work(store, running)
    running.kill()
    running.communicate()
    assert running.returncode == -signal.SIGKILL
    done, wanted = cells(store)
    assert 0 < done < wanted, "the kill did not land in the middle"
    resumed = process(*options, "--resume")
    out, err = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, err
    assert f"{done} of {wanted} squares were there" in err
    assert out
    assert contents(store) == contents(undisturbed)
    with EmbeddingStore.open(store) as ours, EmbeddingStore.open(undisturbed) as theirs:
        np.testing.assert_array_equal(ours.read(), theirs.read())


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for there")
def test_processes_end_with_a_run_that_is_killed(
    process, large_slide, bundle, tmp_path, undisturbed
):
    options = ("embed", large_slide, "-o", tmp_path, "--student", bundle, *STRIDE)
    store, memory = tmp_path / "large.ome.zarr", Path("/dev/shm")
    before = set(memory.glob("psm_*"))
    running = start_fresh([*options, "--reading", "processes"])
    wait_for_work(store, running)
    readers = readers_of(running.pid)
    assert len(readers) == 1
    shared = set(memory.glob("psm_*")) - before
    assert shared
    running.kill()
    running.communicate()
    wait_until_gone(readers)
    until = time.monotonic() + 20
    while any(piece.exists() for piece in shared):
        assert time.monotonic() < until, "shared memory stayed behind"
        time.sleep(0.05)
    done, wanted = cells(store)
    assert 0 < done < wanted, "the kill did not land in the middle"
    resumed = process(*options, "--reading", "processes")
    _out, err = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, err
    assert contents(store) == contents(undisturbed)


@pytest.mark.parametrize("reading", ["threads", "processes"])
def test_ctrl_c_keeps_the_work(
    process, large_slide, bundle, tmp_path, undisturbed, reading
):
    options = ("embed", large_slide, "-o", tmp_path, "--student", bundle, *STRIDE)
    store = tmp_path / "large.ome.zarr"
    # As a person starts it, interpreter and all: that is where signals are met.
    running = start_fresh([*options, "--json", "--reading", reading])
    wait_for_work(store, running)
    readers = readers_of(running.pid)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=120)
    assert running.returncode == 130
    assert out == ""
    assert "finished work is kept" in err
    assert "Traceback" not in err
    if sys.platform == "linux":
        assert len(readers) == (reading == "processes")
        wait_until_gone(readers)
    done, wanted = cells(store)
    assert 0 < done < wanted, "the interruption did not land in the middle"
    resumed = process(*options)
    _out, err = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, err
    assert contents(store) == contents(undisturbed)
