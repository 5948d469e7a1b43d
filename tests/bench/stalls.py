"""The longest freeze of the window while a student runs

A 10 ms timer notes the gaps between its own ticks, from opening the slide until a
search is answered: whatever the event loop could not do in time is a gap. The baseline
is the same window with nothing to do.

Run by itself (``python -m tests.bench.stalls``, under Xvfb where there is no screen) it
also tells the phases apart.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_histodistill.controllers.explore.jobs import ExploreJob
from tests.bench.figures import Figure

if TYPE_CHECKING:
    from collections.abc import Callable

TICK_MS = 10
LIMIT_S = 600
RUNS = 3


class Gaps:
    """Notes how long the event loop was away, in milliseconds over the tick."""

    def __init__(self) -> None:
        from qtpy.QtCore import Qt, QTimer

        self.gaps: dict[str, list[float]] = {}
        self.phase = "idle"
        self._last = time.perf_counter()
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._tick)
        self._timer.start(TICK_MS)

    def _tick(self) -> None:
        now = time.perf_counter()
        gap = 1000 * (now - self._last) - TICK_MS
        self.gaps.setdefault(self.phase, []).append(gap)
        self._last = now

    def stop(self) -> None:
        self._timer.stop()

    def longest(self, *phases: str) -> float:
        return max(g for p in phases for g in self.gaps.get(p, [0.0]))


def turning(complaint: Callable[[], str]) -> Callable[[Callable[[], bool]], None]:
    """Return a function that lets the event loop turn until something is true."""
    from qtpy.QtWidgets import QApplication

    app = QApplication.instance()

    def until(done: Callable[[], bool]) -> None:
        stop = time.monotonic() + LIMIT_S
        while not done():
            app.processEvents()
            time.sleep(0.001)
            if time.monotonic() > stop:
                raise TimeoutError(complaint())

    return until


def one_run(slide_path: Path, cache: Path) -> Gaps:
    """Open, run, search; return the gaps by phase."""
    import napari

    from napari_histodistill.controllers.shared.query_place import query_place
    from napari_histodistill.widgets.explore.dock import ExploreWidget

    os.environ["HISTODISTILL_CACHE"] = str(cache)
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1300, 850)
    widget = ExploreWidget(viewer)
    viewer.window.add_dock_widget(widget, area="right")
    until = turning(widget.run_panel.message.text)

    def rest(seconds: float) -> None:
        stop = time.monotonic() + seconds
        until(lambda: time.monotonic() > stop)

    rest(1.0)
    gaps = Gaps()
    rest(1.0)
    busy: Any = widget.bench.pump
    gaps.phase = "open and load"
    widget.choosing.open_path(slide_path)
    until(lambda: not widget.session.why_not_run and not busy.busy)
    rest(0.3)
    gaps.phase = "run"
    widget.mapping.run()
    until(lambda: not busy.is_active(ExploreJob.RUN))
    gaps.phase = "search"
    widget.searching.click(*query_place(widget.session.live), like=True)
    until(lambda: not busy.busy)
    rest(0.3)
    gaps.stop()
    widget.shut_down()
    viewer.close()
    rest(0.2)
    return gaps


def runs(slide_path: Path) -> list[Gaps]:
    """Return the gaps of several runs, each with an empty cache."""
    found = []
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as cache:
            found.append(one_run(slide_path, Path(cache)))
    return found


def measure() -> list[Figure]:
    """Return the figures of this section."""
    from napari_histodistill.samples import ihc_sample

    found = runs(ihc_sample())
    worst = [g.longest("run") / 1000 for g in found]
    idle = [g.longest("idle") / 1000 for g in found]
    what = "longest stall of the event loop during a run"
    return [Figure(what, tuple(worst), "s", "the same window idle", tuple(idle))]


if __name__ == "__main__":
    from napari_histodistill.samples import ihc_sample

    path = Path(sys.argv[1]) if len(sys.argv) > 1 else ihc_sample()
    for k, run in enumerate(runs(path)):
        for phase, gaps in run.gaps.items():
            values = sorted(gaps)
            over = sum(v > 100 for v in values)
            sys.stdout.write(
                f"run {k + 1} {phase:14s} median {statistics.median(values):6.1f} ms  "
                f"max {values[-1]:7.1f} ms  over 100 ms: {over} of {len(values)}\n"
            )
