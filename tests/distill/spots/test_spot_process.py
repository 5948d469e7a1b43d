"""Reading spots apart ends when asked, and leaves no process behind."""

from __future__ import annotations

import sys
import threading
import time

import psutil
import pytest

from napari_histodistill.distill.spots import spot_process
from napari_histodistill.distill.spots.spot_files import read_spots
from napari_histodistill.errors import Cancelled, InputError
from napari_histodistill.running import CancelToken

SLEEPS = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def hangs(monkeypatch):
    monkeypatch.setattr(spot_process, "python_command", lambda *_: SLEEPS)


def sleepers():
    return [p for p in psutil.Process().children() if p.cmdline()[-1:] == SLEEPS[-1:]]


@pytest.mark.parametrize("tenths", [0, 1, 3])
def test_reading_ends_when_asked(hangs, tmp_path, tenths):
    path = tmp_path / "spots.h5ad"
    path.write_bytes(b"x")
    token = CancelToken()
    threading.Timer(tenths / 10, token.cancel).start()
    begun = time.monotonic()
    with pytest.raises(Cancelled):
        read_spots(path, cancel=token)
    assert time.monotonic() - begun < 5
    assert not sleepers()


def test_a_hang_ends_by_itself_and_is_named(hangs, tmp_path, monkeypatch):
    monkeypatch.setattr(spot_process, "LEAST_S", 0.2)
    path = tmp_path / "spots.h5ad"
    path.write_bytes(b"x")
    with pytest.raises(InputError, match=r"spots\.h5ad cannot be read: it did not end"):
        read_spots(path)
    assert not sleepers()
