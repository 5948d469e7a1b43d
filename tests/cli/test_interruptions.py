"""Killed, interrupted, resumed: the numbers are those of a run left alone."""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_histodistill.errors import StoreError
from napari_histodistill.maps import EmbeddingStore
from tests.forked import start_fresh

if TYPE_CHECKING:
    from pathlib import Path

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


def test_ctrl_c_keeps_the_work(process, large_slide, bundle, tmp_path, undisturbed):
    options = ("embed", large_slide, "-o", tmp_path, "--student", bundle, *STRIDE)
    store = tmp_path / "large.ome.zarr"
    # As a person starts it, interpreter and all: that is where signals are met.
    running = start_fresh([*options, "--json"])
    wait_for_work(store, running)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=120)
    assert running.returncode == 130
    assert out == ""
    assert "finished work is kept" in err
    assert "Traceback" not in err
    done, wanted = cells(store)
    assert 0 < done < wanted, "the interruption did not land in the middle"
    resumed = process(*options)
    _out, err = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, err
    assert contents(store) == contents(undisturbed)
