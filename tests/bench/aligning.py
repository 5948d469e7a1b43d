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
OPENED_S = 3.0
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


class BusyGaps(Gaps):
    """Notes how long the GUI thread worked between ticks, whatever else ran meanwhile.

    On a machine that others use, a thread that waits for its turn is away, too.
    """

    def __init__(self) -> None:
        self.busy: dict[str, list[float]] = {}
        self._worked = time.thread_time()
        super().__init__()

    def _tick(self) -> None:
        super()._tick()
        now = time.thread_time()
        self.busy.setdefault(self.phase, []).append(1000 * (now - self._worked))
        self._worked = now


class Hand:
    """Does in the window what a person does, and notes the gaps by phase."""

    def __init__(self, slides: tuple[Path, Path], *, profile: bool) -> None:
        import napari
        from qtpy.QtCore import Qt

        from napari_histodistill.slides import open_slide
        from napari_histodistill.widgets.shared.slide_layers import add_slide

        self.viewer = napari.Viewer(show=True)
        self.viewer.window.resize(1300, 850)
        for path in slides:
            add_slide(self.viewer, open_slide(path))
        added = self.viewer.window.add_plugin_dock_widget(
            "napari-histodistill", "Distil a student"
        )
        self.widget: Any = added[1]
        self.until = turning(self.widget.train_step.line.text)
        self.profiler = cProfile.Profile(time.thread_time) if profile else None
        rng = np.random.default_rng(3)
        self.here = rng.uniform(500, SIDE_PX * 0.25 - 500, (PAIRS, 2))
        self.there = self.here + rng.normal(0, 15, self.here.shape)
        partner = self.widget.layers_step.partners.item(0)
        partner.setCheckState(Qt.CheckState.Checked)
        self.settle()
        self.viewer.reset_view()
        self.rest(IDLE_S)
        self.gaps = BusyGaps()
        self.rest(IDLE_S)

    def rest(self, seconds: float) -> None:
        stop = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > stop)

    def settle(self) -> None:
        self.rest(0.3)
        self.until(lambda: not self.widget.bench.pump.busy)
        self.rest(0.3)

    def phase(self, name: str, act: Callable[[], object]) -> None:
        """Do something, and note the gaps until the window has come to rest."""
        self.gaps.phase = name
        if self.profiler is not None:
            self.profiler.clear()
            self.profiler.enable()
        act()
        self.settle()
        if self.profiler is not None:
            self.profiler.disable()
            sys.stdout.write(f"--- {name}\n")
            pstats.Stats(self.profiler).sort_stats("cumulative").print_stats(45)

    @property
    def sides(self) -> Any:
        return self.widget.aligning.landmarks._points

    def add(self) -> None:
        for one, other in zip(self.here, self.there, strict=True):
            self.sides[0].add(one)
            self.rest(CLICK_S)
            self.sides[1].add(other)
            self.rest(CLICK_S)

    def move(self) -> None:
        side = self.sides[1]
        for k in range(MOVED):
            for by in range(4):  # a mouse that drags says so again and again
                side._move([k], side.data[k] + by)
                self.rest(0.05)
            side._drag_start = None
            self.rest(CLICK_S)

    def remove(self) -> None:
        for _ in range(REMOVED):
            self.widget.align_step.remove.click()
            self.rest(CLICK_S)

    def use(self) -> None:
        """Use a model in Explore as the button does; a bundled one stands for it."""
        from napari_histodistill.students.bundled import find_bundled

        session = type(self.widget.session)
        with patch.object(session, "best_student", find_bundled("colon-he")):
            self.widget.distilling.use()
            self.rest(OPENED_S)

    def close(self) -> None:
        self.gaps.stop()
        self.widget.shut_down()
        self.viewer.close()
        self.rest(0.2)


def one_run(
    slides: tuple[Path, Path], home: Path, *, profile: bool = False
) -> BusyGaps:
    """Align from the window; return the gaps by phase."""
    os.environ["HISTODISTILL_CACHE"] = str(home / "cache")
    hand = Hand(slides, profile=profile)
    pick = hand.widget.align_step.pick
    hand.phase("pick", pick.click)
    hand.phase("add", hand.add)
    hand.phase("done", pick.click)
    hand.phase("move", hand.move)
    hand.phase("remove", hand.remove)
    hand.phase("use", hand.use)
    hand.close()
    return hand.gaps


def measure(runs: int = RUNS) -> list[Figure]:
    """Return the figures of this section."""
    with tempfile.TemporaryDirectory() as folder:
        slides = write_slides(Path(folder))
        found = [one_run(slides, Path(folder) / str(k)) for k in range(runs)]
    return figures(found)


def figures(found: list[BusyGaps]) -> list[Figure]:
    """Return the longest gap of every phase, and the longest time at work."""
    base = "the same window idle"
    ways = (
        ("longest stall", [g.gaps for g in found]),
        ("longest time at work on the GUI thread", [g.busy for g in found]),
    )
    return [
        Figure(
            f"{what} {WORDS[phase]}",
            tuple(max(one[phase]) / 1000 for one in known),
            "s",
            base,
            tuple(max(one["idle"]) / 1000 for one in known),
        )
        for phase in PHASES
        for what, known in ways
    ]


def tell(found: list[BusyGaps]) -> None:
    """Print the phases of every run."""
    for k, run in enumerate(found):
        for phase, gaps in run.gaps.items():
            worked = run.busy[phase]
            over, often = (sum(v > 100 for v in found) for found in (gaps, worked))
            sys.stdout.write(
                f"run {k + 1} {phase:8s} longest gap {max(gaps):7.1f} ms, "
                f"{over} of {len(gaps)} over 100 ms; "
                f"longest at work {max(worked):.1f} ms, {often} over 100 ms\n"
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
