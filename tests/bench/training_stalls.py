"""How long the window freezes while a training runs

The window of *Distil a student* with a painted pair: pairs are previewed, a training is
started from the window (in its own process, with the threads that the window gives it),
watched, and watched with the preview on the canvas. A 10 ms timer notes the gaps
between its own ticks, as in `stalls`. The baseline is the same window with nothing to
do, before the training.

Run by itself (``python -m tests.bench.training_stalls [RUNS]``, under Xvfb where there
is no screen) it also tells the phases apart.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.figures import Figure
from tests.bench.stalls import Gaps, turning

RUNS = 3
SIDE_PX = 1024
IDLE_S, WATCHED_S = 4.0, 15.0
PREVIEW_EVERY = 5
PHASES = ("start", "train", "preview on", "preview", "stop")


def one_run(runs: Path) -> Gaps:
    """Train from the window; return the gaps by phase."""
    import napari
    from qtpy.QtCore import Qt

    from napari_histodistill.geometry import Mpp
    from napari_histodistill.layers.slide_layer import slide_layer
    from napari_histodistill.samples.paired import CHANNELS, paint_pair
    from napari_histodistill.slides import slide_from_arrays
    from napari_histodistill.widgets.distil.dock import DistilWidget

    viewer = napari.Viewer(show=True)
    viewer.window.resize(1300, 850)
    widget = DistilWidget(viewer, runs=runs)
    viewer.window.add_dock_widget(widget, area="right")
    until = turning(widget.train_step.line.text)

    def rest(seconds: float) -> None:
        stop = time.monotonic() + seconds
        until(lambda: time.monotonic() > stop)

    painted, mpp = paint_pair(SIDE_PX), Mpp(0.5, 0.5, "painted")
    for pixels, name, channels in (
        (painted.sparse, "H&E", None),
        (painted.dense, "marker", CHANNELS),
    ):
        slide = slide_from_arrays(pixels, name=name, mpp=mpp, channels=channels)
        data, kwargs, _ = slide_layer(slide)
        viewer.add_image(data, **kwargs)
    partners = widget.layers_step.partners
    rows = [partners.item(k) for k in range(partners.count())]
    marker = next(item for item in rows if item.text().startswith("marker"))
    marker.setCheckState(Qt.CheckState.Checked)
    widget.pairs_step.px.setValue(48)
    widget.pairs_step.preview.click()
    until(lambda: not widget.bench.pump.busy)
    # A long run: what is measured is the watching of it.
    widget.session.typed = {("schedule", "steps"): "100000"}
    rest(2.0)
    gaps = Gaps()
    rest(IDLE_S)
    step = widget.train_step

    def trained() -> int:
        run: Any = widget.session.run
        return 0 if run is None else int(run.view().step)

    gaps.phase = "start"
    step.start.click()
    until(lambda: trained() >= 2)
    gaps.phase = "train"
    rest(WATCHED_S)
    gaps.phase = "preview on"
    step.every.setValue(PREVIEW_EVERY)
    step.preview.setChecked(True)
    until(lambda: widget.previewing.shown is not None)
    gaps.phase = "preview"
    rest(WATCHED_S)
    gaps.phase = "stop"
    step.stop.click()
    until(lambda: not widget.session.works)
    rest(1.0)
    gaps.stop()
    widget.shut_down()
    viewer.close()
    rest(0.2)
    return gaps


def percentile(gaps: Gaps, phase: str) -> float:
    """Return the 95th percentile of a phase's gaps, ms."""
    return statistics.quantiles(gaps.gaps[phase], n=20)[-1]


def measure(runs: int = RUNS) -> list[Figure]:
    """Return the figures of this section."""
    found = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            found.append(one_run(Path(folder)))
    return figures(found)


def figures(found: list[Gaps]) -> list[Figure]:
    """Return the longest gap and the 95th percentile of every phase."""
    idle = tuple(g.longest("idle") / 1000 for g in found)
    calm = tuple(percentile(g, "idle") / 1000 for g in found)
    rows = []
    for phase, words in (
        ("start", "while pairs are written and the training starts"),
        ("train", "while it trains"),
        ("preview on", "while the first preview is painted"),
        ("preview", f"while it trains, painted anew every {PREVIEW_EVERY} steps"),
    ):
        worst = tuple(g.longest(phase) / 1000 for g in found)
        often = tuple(percentile(g, phase) / 1000 for g in found)
        base = "the same window idle"
        rows += [
            Figure(f"longest stall {words}", worst, "s", base, idle),
            Figure(f"95th percentile of stalls {words}", often, "s", base, calm),
        ]
    return rows


def tell(found: list[Gaps]) -> None:
    """Print the phases of every run."""
    for k, run in enumerate(found):
        for phase, gaps in run.gaps.items():
            values = sorted(gaps)
            over = sum(v > 100 for v in values)
            sys.stdout.write(
                f"run {k + 1} {phase:12s} median {statistics.median(values):6.1f} ms  "
                f"95 % {percentile(run, phase):6.1f} ms  max {values[-1]:7.1f} ms  "
                f"over 100 ms: {over} of {len(values)}\n"
            )


if __name__ == "__main__":
    runs = []
    for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS):
        with tempfile.TemporaryDirectory() as home:
            runs.append(one_run(Path(home)))
    tell(runs)
