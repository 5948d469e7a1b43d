"""The pictures of the README, made by the panels themselves.

``python -m tests.bench.pictures FOLDER [NAME…]``, under Xvfb with a screen of
1600 × 1100, writes ``NAME.png`` for every name of :data:`PICTURES`, or those given:
some ten minutes on two cores. Everything shown is painted, or the bundled piece of
colon. A picture is looked at before it is committed: nothing here judges it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari
import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_histodistill.geometry import Mpp
from napari_histodistill.layers.slide_layer import slide_layer
from napari_histodistill.samples import ihc_sample
from napari_histodistill.samples.paired import CHANNELS, paint_pair
from napari_histodistill.slides import Slide, slide_from_arrays
from napari_histodistill.widgets.demo import open_demo
from napari_histodistill.widgets.distil.dock import DistilWidget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WINDOW = (1500, 940)
PATIENCE_S = 900.0
MPP = Mpp(0.5, 0.5, "painted")
SHIFT_UM = (9.0, -6.0)
"""How far the partner lies off before it is aligned."""

LANDMARKS = ((110, 130), (120, 530), (420, 140), (510, 520), (310, 330), (470, 350))
"""``(y, x)`` in µm."""


# --- windows ------------------------------------------------------------------------


def settle(seconds: float) -> None:
    """Let the event loop turn."""
    until = time.monotonic() + seconds
    app = QApplication.instance()
    while app is not None and time.monotonic() < until:
        app.processEvents()
        time.sleep(0.005)


def wait(is_true: Callable[[], Any]) -> None:
    """Let the event loop turn until something is true."""
    until = time.monotonic() + PATIENCE_S
    while not is_true():
        if time.monotonic() > until:
            msg = f"waited {PATIENCE_S:g} s in vain"
            raise TimeoutError(msg)
        settle(0.02)


@contextmanager
def window(size: tuple[int, int] = WINDOW) -> Iterator[napari.Viewer]:
    """A napari window of this size, closed in the end."""
    viewer = napari.Viewer(title="napari", show=True)
    viewer.window.resize(*size)
    settle(0.3)
    try:
        yield viewer
    finally:
        viewer.close()
        settle(0.1)


def dock(viewer: napari.Viewer, widget: Any, name: str) -> Any:
    """Dock a panel on the right."""
    viewer.window.add_dock_widget(widget, area="right", name=name)
    settle(0.3)
    return widget


def save(viewer: napari.Viewer, path: Path) -> None:
    """Write what the window shows."""
    settle(0.5)
    viewer.screenshot(str(path), canvas_only=False, flash=False)


def add(viewer: napari.Viewer, slide: Slide) -> Any:
    """Add a slide as one layer, or a layer a channel."""
    data, kwargs, kind = slide_layer(slide)
    return getattr(viewer, f"add_{kind}")(data, **kwargs)


def idle(widget: Any) -> Callable[[], bool]:
    """Return whether a panel computes nothing."""
    return lambda: not widget.bench.pump.busy


def centre(viewer: napari.Viewer, place_um: tuple[float, float], zoom: float) -> None:
    """Look at a place, with ``zoom`` screen pixels per µm."""
    viewer.scene.camera.center = place_um
    viewer.scene.camera.zoom = zoom
    settle(0.5)


# --- Explore slide ------------------------------------------------------------------


def demo(path: Path) -> None:
    """What ``histodistill demo`` shows."""
    open_demo(None, screenshot=path)


def brown_stain(path: Path) -> None:
    """What is said of a slide that the student did not learn from."""
    open_demo(ihc_sample(), screenshot=path, student="colon-he")


# --- Distil a student ---------------------------------------------------------------


def painted(name: str, *, seed: int | None = None, shift_um: Any = (0, 0)) -> Any:
    """Return the H&E and the marker of a painted section of 640 µm."""
    pair = paint_pair(1280) if seed is None else paint_pair(1280, seed=seed)
    moved = tuple(round(s / MPP.y) for s in shift_um)
    dense = np.roll(pair.dense, moved, (0, 1))
    return slide_from_arrays(pair.sparse, name=name, mpp=MPP), slide_from_arrays(
        dense, name=f"marker of {name}", mpp=MPP, channels=CHANNELS
    )


def tick(widget: DistilWidget, name: str) -> None:
    """Tick a partner in the list."""
    shown = widget.layers_step.partners
    for k in range(shown.count()):
        if shown.item(k).text().startswith(name):
            shown.item(k).setCheckState(Qt.CheckState.Checked)
            return
    raise LookupError(name)


def fold(*steps: Any) -> None:
    """Fold steps of the panel up, so that later ones have room."""
    for step in steps:
        step.button.click()


def pairs(widget: DistilWidget) -> None:
    """Lay out pairs of 48 px."""
    widget.pairs_step.px.setValue(48)
    widget.pairs_step.preview.click()
    wait(lambda: widget.session.planned is not None and idle(widget)())


def distil(viewer: napari.Viewer, runs: Path) -> DistilWidget:
    """Dock the panel."""
    widget: DistilWidget = dock(
        viewer, DistilWidget(viewer, runs=runs), "Distil a student"
    )
    return widget


def train(widget: DistilWidget, steps: int) -> None:
    """Start a training, and wait until it has taken some steps."""
    before = widget.session.run
    widget.train_step.start.click()

    def far_enough() -> bool:
        run = widget.session.run
        return run is not None and run is not before and run.view().step >= steps

    wait(far_enough)


def stop(widget: DistilWidget) -> None:
    """Stop the training and close the panel."""
    if widget.session.works:
        widget.train_step.stop.click()
        wait(lambda: not widget.session.works)
    widget.shut_down()


def distil_train(path: Path) -> None:
    """Two sections, and a training on both."""
    with tempfile.TemporaryDirectory() as runs, window((1180, 1000)) as viewer:
        widget = distil(viewer, Path(runs))
        first = [add(viewer, slide) for slide in painted("section 1")]
        tick(widget, "marker of section 1")
        pairs(widget)
        widget.pairs_step.keep.click()
        for layer in (first[0], *first[1]):
            layer.visible = False
        _, marker = [add(viewer, s) for s in painted("section 2", seed=7)]
        names = [layer.name for layer in widget.pairing._sparse]
        widget.pairing.choose_sparse(names.index("section 2"))
        tick(widget, "marker of section 2")
        pairs(widget)
        marker[0].visible = False
        viewer.reset_view()
        fold(widget.layers_step, widget.align_step)
        train(widget, 70)
        save(viewer, path)
        stop(widget)


def distil_align(path: Path) -> None:
    """Landmarks, their residuals, and the checkerboard."""
    with tempfile.TemporaryDirectory() as runs, window() as viewer:
        widget = distil(viewer, Path(runs))
        for slide in painted("H&E", shift_um=SHIFT_UM):
            add(viewer, slide)
        tick(widget, "marker")
        viewer.reset_view()
        widget.align_step.pick.click()
        settle(0.5)
        here, there = widget.aligning.landmarks._points
        rng = np.random.default_rng(4)
        for place in LANDMARKS:
            here.add(list(place))
            there.add(list(np.add(place, SHIFT_UM) + rng.normal(0, 0.8, 2)))
            settle(0.1)
        widget.align_step.pick.click()
        wait(idle(widget))
        widget.align_step.checker.setChecked(True)
        settle(1)
        save(viewer, path)
        stop(widget)


def distil_preview(path: Path) -> None:
    """A training with its preview on the canvas."""
    with tempfile.TemporaryDirectory() as runs, window((1372, 931)) as viewer:
        widget = distil(viewer, Path(runs))
        _, marker = [add(viewer, slide) for slide in painted("H&E")]
        tick(widget, "marker")
        pairs(widget)
        for layer in marker:
            layer.visible = False
        viewer.reset_view()
        widget.train_step.every.setValue(10)
        widget.train_step.preview.setChecked(True)
        fold(widget.layers_step, widget.align_step, widget.pairs_step)
        train(widget, 110)
        wait(lambda: widget.previewing.shown is not None)
        save(viewer, path)
        stop(widget)


def compare(path: Path) -> None:
    """Two students of the same pairs, one trained without the partner."""
    with tempfile.TemporaryDirectory() as runs, window() as viewer:
        widget = distil(viewer, Path(runs))
        slides = painted("painted H&E")
        _, marker = [add(viewer, slide) for slide in slides]
        tick(widget, "marker")
        pairs(widget)
        for alone in (True, False):
            widget.train_step.alone.setChecked(alone)
            train(widget, 1)
            wait(lambda: not widget.session.works)
        wait(widget.comparing.button.isEnabled)
        for layer in marker:
            layer.visible = False
        asked = widget.comparing.compare()
        wait(lambda: not asked.session.why_not_run and idle(asked)())
        asked.choose_panel.runner.button.click()
        wait(lambda: asked.session.compared is not None and idle(asked)())
        viewer.window.remove_dock_widget(widget)
        save(viewer, path)
        asked.shut_down()


PICTURES: dict[str, Callable[[Path], None]] = {
    "demo": demo,
    "brown-stain": brown_stain,
    "distil-train": distil_train,
    "distil-align": distil_align,
    "distil-preview": distil_preview,
    "compare": compare,
}


def main(arguments: list[str]) -> int:
    """Make the pictures; see the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.pictures")
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", choices=[*PICTURES, []])
    asked = parser.parse_args(arguments)
    asked.folder.mkdir(parents=True, exist_ok=True)
    for name in asked.names or PICTURES:
        # What was drawn for one picture is not offered again in the next.
        with tempfile.TemporaryDirectory() as drafts:
            os.environ["HISTODISTILL_DRAFTS"] = drafts
            PICTURES[name](asked.folder / f"{name}.png")
        sys.stdout.write(f"{name}.png\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
