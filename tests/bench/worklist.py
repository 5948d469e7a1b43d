"""Twenty slides in the list: stalls while choosing, and how soon a map is there

A folder of nineteen painted sections of 4,096 px and one slide of 100,000 px is opened
as a worklist. Every slide is chosen once (and opened by that), the first ten are run,
then all are chosen three times more. A 10 ms timer notes the gaps between its own
ticks. The baseline of the stalls is the same window with nothing to do; that of the
memory is the same window once all twenty have been looked at.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tifffile

from tests.bench.figures import Figure
from tests.bench.large_slide import painted_squares, write_large_slide
from tests.bench.stalls import Gaps, turning

SMALL, RUN_ON = 19, 10
STEPS = (4, 16)
"""Coarser levels of the painted sections."""
ROUNDS = 3


def write_folder(folder: Path) -> None:
    """Write the twenty slides."""
    said = {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
    how = {"photometric": "rgb", "tile": (256, 256), "compression": "jpeg"}
    for k in range(SMALL):
        a, b, c, d, *_ = painted_squares(np.random.default_rng(k))
        section = np.concatenate([np.hstack([a, b]), np.hstack([c, d])])
        with tifffile.TiffWriter(folder / f"section {k + 1}.tif") as file:
            file.write(section, subifds=len(STEPS), **how, **said)
            for step in STEPS:
                file.write(section[::step, ::step], subfiletype=1, **how)
    write_large_slide(folder / "section 20.tif")


class Window:
    """napari with *Explore slide*, looking through a folder."""

    def __init__(self) -> None:
        import napari

        from napari_histodistill.widgets.explore.dock import ExploreWidget

        self.viewer = napari.Viewer(show=True)
        self.viewer.window.resize(1300, 850)
        self.panel = ExploreWidget(self.viewer)
        self.viewer.window.add_dock_widget(self.panel, area="right")
        self.until = turning(self.panel.run_panel.message.text)
        self._pump: Any = self.panel.bench.pump

    def rest(self, seconds: float) -> None:
        """Let the window be for a while."""
        stop = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > stop)

    def quiet(self) -> bool:
        """Whether a slide is chosen and nothing is going on."""
        return self.panel.session.slide is not None and not self._pump.busy

    def choose(self, index: int) -> None:
        """Choose a row and wait until all of it is there."""
        self.panel.slide_panel.slide.picked.emit(index)
        self.rest(0.05)
        self.until(self.quiet)

    def run(self) -> None:
        """Press Run and wait."""
        self.until(lambda: not self.panel.session.why_not_start)
        self.panel.mapping.run()
        self.until(self.quiet)

    def close(self) -> None:
        """Close the window."""
        self.panel.shut_down()
        self.viewer.close()
        self.rest(0.2)


def seconds_to_map(window: Window, index: int) -> float:
    """Return how long after a choice a map is on screen: drawn, in a turned loop."""
    session, begun = window.panel.session, time.perf_counter()
    window.panel.slide_panel.slide.picked.emit(index)
    window.until(lambda: session.live is not None and session.live.cells_done > 0)
    window.rest(0.0)
    return time.perf_counter() - begun


def measure() -> list[Figure]:
    """Return the figures of this section."""
    with tempfile.TemporaryDirectory() as name:
        folder, cache = Path(name) / "slides", Path(name) / "cache"
        folder.mkdir()
        os.environ["HISTODISTILL_CACHE"] = str(cache)
        write_folder(folder)
        first, again, stalls, idle, memory = _looked_through(folder)
        stored = _stored_maps(folder)
    what = "seconds from choosing a slide to its map on screen"
    return [
        Figure(f"{what}, looked at before", tuple(again), "s"),
        Figure(f"{what}, stored by an earlier window", tuple(stored), "s"),
        Figure("seconds to open a slide of the list", tuple(first), "s"),
        Figure(
            "longest stall while choosing slides that are open, by round",
            tuple(stalls), "s", "the same window idle", tuple(idle),
        ),
        Figure(
            "memory after each further round through the list",
            tuple(memory[1:]), "GB", "after the first", tuple(memory[:1]),
        ),
    ]  # fmt: skip


def _looked_through(
    folder: Path,
) -> tuple[list[float], list[float], list[float], list[float], list[float]]:
    window = Window()
    gaps = Gaps()
    gaps.phase = "start"
    window.panel.choosing.open_worklist(folder)
    window.rest(0.5)
    window.until(window.quiet)
    first = []
    for index in range(SMALL + 1):
        gaps.phase = "open"
        begun = time.perf_counter()
        window.choose(index)
        first.append(time.perf_counter() - begun)
        if index < RUN_ON:
            gaps.phase = "run"
            window.run()
    memory, again, stalls = [_gigabytes()], [], []
    for turn in range(ROUNDS):
        gaps.phase = f"round {turn}"
        for index in range(SMALL + 1):
            if index < RUN_ON:
                again.append(seconds_to_map(window, index))
            window.choose(index)
        stalls.append(gaps.longest(gaps.phase) / 1000)
        memory.append(_gigabytes())
    gaps.phase = "idle"  # not before: libraries are still being loaded then
    window.rest(2.0)
    idle = [gaps.longest("idle") / 1000]
    gaps.stop()
    window.close()
    return first, again, stalls, idle, memory


def _stored_maps(folder: Path) -> list[float]:
    """Return seconds to the stored map, in a window that saw none of the slides."""
    window, found = Window(), []
    window.panel.choosing.open_worklist(folder)
    window.rest(0.5)
    window.until(window.quiet)
    session = window.panel.session
    for index in range(SMALL, -1, -1):
        window.choose(index)
    for index in range(RUN_ON):
        session._kept.clear()
        window.choose(SMALL - 1)
        session._kept.clear()
        found.append(seconds_to_map(window, index))
    window.close()
    return found


def _gigabytes() -> float:
    return float(psutil.Process().memory_info().rss / 1e9)
