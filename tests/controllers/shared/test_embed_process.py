"""Another process embeds; the window's own never meets torch."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from napari_histodistill.controllers.shared import embed_process as module
from napari_histodistill.controllers.shared.embed_process import EmbedProcess
from napari_histodistill.errors import BundleError, Cancelled, ComputeError
from napari_histodistill.running import CancelToken
from napari_histodistill.students import load_student

STUDENT = "imagenet-lite0"


@pytest.fixture(scope="module")
def student():
    return load_student(STUDENT, device="cpu:torch")


@pytest.fixture(scope="module")
def bundle(student):
    return student.folder


@pytest.fixture
def no_torch(monkeypatch):
    """Let a process be there at once, without what it would need to embed."""
    monkeypatch.setattr(module, "_begin", lambda: None)


@pytest.fixture
def not_begun():
    made = EmbedProcess()
    yield made
    made.close()


@pytest.fixture
def away(not_begun):
    not_begun.begin()
    return not_begun


@pytest.fixture(scope="module")
def lasting():
    """Return a process for tests that leave it as they found it."""
    made = EmbedProcess()
    made.begin()
    yield made
    made.close()


def test_it_says_what_the_student_says_here(lasting, student, bundle, rng):
    tiles = rng.integers(0, 255, (3, 224, 224, 3), np.uint8)
    here = student.embed(tiles)
    there = lasting.embed(bundle, tiles, CancelToken())
    assert there.dtype == np.float32
    np.testing.assert_allclose(there, here, rtol=1e-3, atol=1e-3)


@pytest.mark.slow(20)
def test_what_goes_wrong_there_is_said_here(lasting, tmp_path):
    with pytest.raises(BundleError, match="there is no student"):
        lasting.embed(tmp_path / "x", np.zeros((1, 8, 8, 3), np.uint8), CancelToken())


def test_waiting_ends_when_asked(no_torch, away, monkeypatch):
    monkeypatch.setattr(module, "_embed", lambda *_: time.sleep(30))
    token = CancelToken()
    threading.Timer(0.3, token.cancel).start()
    start = time.monotonic()
    with pytest.raises(Cancelled):
        away.embed(Path("x"), np.zeros((1, 8, 8, 3), np.uint8), token)
    assert time.monotonic() - start < 20


@pytest.mark.slow(25)
def test_a_process_that_dies_is_named_and_followed_by_another(
    not_begun, bundle, monkeypatch
):
    tiles, away = np.zeros((1, 224, 224, 3), np.uint8), not_begun
    with monkeypatch.context() as patch:
        patch.setattr(module, "_begin", lambda: None)
        patch.setattr(module, "_embed", lambda *_: os._exit(9))
        away.begin()
        with pytest.raises(ComputeError, match="ended unexpectedly"):
            away.embed(bundle, tiles, CancelToken())
    away.begin()
    assert away.embed(bundle, tiles, CancelToken()).shape[0] == 1


def test_once_closed_no_thread_starts_another(away, bundle):
    away.close()
    with pytest.raises(ComputeError, match="was ended"):
        away.embed(bundle, np.zeros((1, 224, 224, 3), np.uint8), CancelToken())


@pytest.mark.parametrize("tenths", [0, 1, 2, 4, 8, 16])
def test_closing_it_while_it_starts_leaves_no_process(tenths):
    """Before there is one, while it is made, while it imports."""
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    away = EmbedProcess()
    away.begin()
    time.sleep(tenths / 10)
    away.close()

    def runs(process):
        try:
            # One process of loky's tidies up for all of them, and ends with this one.
            return (
                process.status() != psutil.STATUS_ZOMBIE
                and "resource_tracker" not in " ".join(process.cmdline())
            )
        except psutil.NoSuchProcess:
            return False

    def left():
        found = psutil.Process().children(recursive=True)
        return [p for p in found if p.pid not in before and runs(p)]

    until = time.monotonic() + 8
    while left() and time.monotonic() < until:
        time.sleep(0.05)
    assert not left()


def test_the_one_who_asks_needs_no_torch(bundle):
    code = f"""
import sys
import numpy as np
from pathlib import Path
from napari_histodistill.controllers.shared.embed_process import EmbedProcess
from napari_histodistill.running import CancelToken
away = EmbedProcess()
away.begin()
tiles = np.zeros((1, 224, 224, 3), np.uint8)
assert away.embed(Path({str(bundle)!r}), tiles, CancelToken()).shape[0] == 1
away.close()
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
