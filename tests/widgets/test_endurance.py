"""Runs and open–close cycles in one viewer leave nothing behind (the short version)."""

from __future__ import annotations

import gc
import sys
import weakref

import pytest

pytest.importorskip("napari", reason="the windows need napari and Qt")

from tests.bench.endurance import Endurance, Held, write_small_slide

needs_proc = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="counts handles in /proc"
)

pytestmark = pytest.mark.gui


CYCLES = 3


@pytest.fixture
def window(explore, qtbot, tmp_path, monkeypatch):
    monkeypatch.setenv("HISTODISTILL_CACHE", str(tmp_path / "cache"))

    def open_one():
        viewer, widget = explore()
        return Endurance(viewer, widget, lambda d: qtbot.waitUntil(d, timeout=20000))

    return open_one


@needs_proc
def test_open_run_and_close_leave_no_handles_threads_or_slides(window, tmp_path):
    path = write_small_slide(tmp_path)
    endurance = window()
    slides = []

    def cycle():
        endurance.open(path)
        slides.append(weakref.ref(endurance.widget.session.slide))
        endurance.run()
        endurance.close()

    for _ in range(2):
        cycle()
    before = Held.now()
    for _ in range(CYCLES):
        cycle()
    after = Held.now()
    # Something opened late is no leak; one more in every cycle is.
    assert after.handles - before.handles < CYCLES
    assert after.threads - before.threads < CYCLES
    gc.collect()
    # napari's history of the status bar and the like may hold the last one.
    kept = sum(slide() is not None for slide in slides)
    assert kept <= 1, f"{kept} of {len(slides)} closed slides are still open"
