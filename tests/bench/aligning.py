"""How long the window freezes while two sections are aligned by hand

Two painted slides of 20,480 × 20,480 px lie in the window of *Distil a student*. As a
person does, landmarks are asked for, 35 pairs of them are set, some are moved, some are
removed, and the model of a finished training is used in *Explore slide*. A 10 ms timer
notes the gaps between its own ticks, as in `stalls`; every phase goes on until the
window has nothing left to do. The baseline is the same window with nothing to do.

Run by itself (``python -m tests.bench.aligning [RUNS]``, under Xvfb where there is no
screen) it also tells the phases apart; with ``--profile`` it says what took the time.
"""

from __future__ import annotations

import cProfile
import os
import pstats
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from tests.bench.figures import Figure
from tests.bench.stalls import Gaps, turning

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = 3
SIDE_PX = 20_480
PAIRS, MOVED, REMOVED = 35, 5, 5
CLICK_S = 0.3
IDLE_S = 2.0
PHASES = ("pick", "add", "done", "move", "remove", "use")
WORDS = {
    "pick": "at the first *Pick landmarks*",
    "add": f"while {PAIRS} pairs of landmarks are set",
    "done": "when picking ends, and the partner is laid",
    "move": "while landmarks are moved",
    "remove": "while landmarks are removed",
    "use": "at *Use in Explore*",
}


def write_slides(folder: Path) -> tuple[Path, Path]:
    """Write the H&E and its partner."""
    from tests.bench.large_slide import write_large_slide

    first, second = folder / "he.svs", folder / "partner.svs"
    write_large_slide(first, side_px=SIDE_PX)
    write_large_slide(second, side_px=SIDE_PX)
    return first, second


def one_run(slides: tuple[Path, Path], home: Path, *, profile: bool = False) -> Gaps:
    """Align from the window; return the gaps by phase."""
    import napari
    from qtpy.QtCore import Qt

    from napari_histodistill.slides import open_slide
    from napari_histodistill.widgets.distil.dock import DistilWidget
    from napari_histodistill.widgets.shared.slide_layers import add_slide

    os.environ["HISTODISTILL_CACHE"] = str(home / "cache")
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1300, 850)
    for path in slides:
        add_slide(viewer, open_slide(path))
    added = viewer.window.add_plugin_dock_widget(
        "napari-histodistill", "Distil a student"
    )
    widget: DistilWidget = added[1]
    until = turning(widget.train_step.line.text)

    def rest(seconds: float) -> None:
        stop = time.monotonic() + seconds
        until(lambda: time.monotonic() > stop)

    def settle() -> None:
        rest(0.3)
        until(lambda: not widget.bench.pump.busy)
        rest(0.3)

    partners = widget.layers_step.partners
    rows = [partners.item(k) for k in range(partners.count())]
    rows[0].setCheckState(Qt.CheckState.Checked)
    settle()
    viewer.reset_view()
    rest(2.0)
    profiler = cProfile.Profile()
    gaps = Gaps()
    rest(IDLE_S)

    def phase(name: str, act: Callable[[], object]) -> None:
        gaps.phase = name
        if profile:
            profiler.clear()
            profiler.enable()
        act()
        settle()
        if profile:
            profiler.disable()
            sys.stdout.write(f"--- {name}\n")
            pstats.Stats(profiler).sort_stats("cumulative").print_stats(45)

    step, marks = widget.align_step, widget.aligning.landmarks
    rng = np.random.default_rng(3)
    here = rng.uniform(500, SIDE_PX * 0.25 - 500, (PAIRS, 2))
    there = here + rng.normal(0, 15, here.shape)

    def add() -> None:
        sides: Any = marks._points
        for one, other in zip(here, there, strict=True):
            sides[0].add(one)
            rest(CLICK_S)
            sides[1].add(other)
            rest(CLICK_S)

    def move() -> None:
        side: Any = marks._points
        for k in range(MOVED):
            for by in range(4):  # a mouse that drags says so again and again
                side[1]._move([k], side[1].data[k] + by)
                rest(0.05)
            side[1]._drag_start = None
            rest(CLICK_S)

    def remove() -> None:
        for _ in range(REMOVED):
            step.remove.click()
            rest(CLICK_S)

    phase("pick", step.pick.click)
    phase("add", add)
    phase("done", step.pick.click)
    phase("move", move)
    phase("remove", remove)
    phase("use", lambda: _use(widget))
    gaps.stop()
    widget.shut_down()
    viewer.close()
    rest(0.2)
    return gaps


def _use(widget: Any) -> None:
    """Use a model in Explore as the button does; a bundled one stands for it."""
    from napari_histodistill.students.bundled import find_bundled

    with patch.object(type(widget.session), "best_student", find_bundled("colon-he")):
        widget.distilling.use()


def measure(runs: int = RUNS) -> list[Figure]:
    """Return the figures of this section."""
    with tempfile.TemporaryDirectory() as folder:
        slides = write_slides(Path(folder))
        found = [one_run(slides, Path(folder) / str(k)) for k in range(runs)]
    return figures(found)


def figures(found: list[Gaps]) -> list[Figure]:
    """Return the longest gap of every phase."""
    idle = tuple(g.longest("idle") / 1000 for g in found)
    return [
        Figure(
            f"longest stall {WORDS[phase]}",
            tuple(g.longest(phase) / 1000 for g in found),
            "s",
            "the same window idle",
            idle,
        )
        for phase in PHASES
    ]


def tell(found: list[Gaps]) -> None:
    """Print the phases of every run."""
    for k, run in enumerate(found):
        for phase, gaps in run.gaps.items():
            values = sorted(gaps)
            over = sum(v > 100 for v in values)
            sys.stdout.write(
                f"run {k + 1} {phase:8s} median {statistics.median(values):6.1f} ms  "
                f"max {values[-1]:7.1f} ms  over 100 ms: {over} of {len(values)}\n"
            )


if __name__ == "__main__":
    counts = [int(word) for word in sys.argv[1:] if word.isdigit()]
    with tempfile.TemporaryDirectory() as home:
        pair = write_slides(Path(home))
        tell(
            [
                one_run(pair, Path(home) / str(k), profile="--profile" in sys.argv)
                for k in range(counts[0] if counts else RUNS)
            ]
        )
