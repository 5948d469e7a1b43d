"""``histodistill demo``: napari with a slide, its class map and a search, all ready."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import napari
import numpy as np
from qtpy.QtWidgets import QApplication

from napari_histodistill.controllers.explore.session import RunAction
from napari_histodistill.controllers.shared.planning import finest_step
from napari_histodistill.controllers.shared.query_place import query_place
from napari_histodistill.controllers.shared.student_list import StudentChoice
from napari_histodistill.errors import ComputeError
from napari_histodistill.layers.slide_layer import slide_layer
from napari_histodistill.slides import Slide, open_slide
from napari_histodistill.students.bundle import load_spec
from napari_histodistill.widgets.explore.dock import ExploreWidget

WINDOW = (1500, 940)
PATIENCE_S = 1800.0
GAP_UM = 60.0
DEMO_CELLS = 1100


def open_demo(
    slide: Path | None, *, screenshot: Path | None, student: str | None
) -> None:
    """Open napari on a slide and run the student over it without being asked.

    Parameters
    ----------
    slide : Path or None
        A person's own slide; None opens the bundled piece of colon and, beside it, the
        synthetic slide.
    screenshot : Path or None
        Write a picture of the finished window there and close; None leaves the window
        to the person.
    student : str or None
        Name or folder of the student; None takes the first with classes.

    Raises
    ------
    HistodistillError
        If the slide cannot be opened, or (with ``screenshot``) the student fails.
    """
    opened = [open_slide(slide)] if slide is not None else _samples()
    viewer = napari.Viewer(title="HistoDistill demo", show=True)
    viewer.window.resize(*WINDOW)
    widget = ExploreWidget(viewer, students=_students(student))
    viewer.window.add_dock_widget(widget, area="right", name="Explore slide")
    _add_side_by_side(viewer, opened)
    widget.choosing.choose_layer(viewer.layers[0])
    viewer.layers.selection.active = viewer.layers[0]
    _settle(0.3)  # the canvas has its size only once the window was drawn
    _fit_view(viewer, opened[0])
    conductor = _Conductor(widget)
    conductor.begin()
    if screenshot is None:
        napari.run()
        return
    try:
        _wait(lambda: conductor.finished or bool(conductor.problem))
        if conductor.problem:
            raise ComputeError(conductor.problem)
        _wait(lambda: not widget.bench.pump.busy)
        _settle(0.5)
        _save(viewer, screenshot)
    finally:
        widget.shut_down()
        viewer.close()
        _settle(0.1)


class _Conductor:
    """Presses the buttons that a person would press, as soon as they can be."""

    def __init__(self, widget: ExploreWidget) -> None:
        self.widget = widget
        self.finished = False
        self.problem = ""
        self._ran = self._asked = False

    def begin(self) -> None:
        """Follow what happens on the workbench."""
        bench = self.widget.bench
        bench.changed.connect(self.step)
        bench.said.connect(self._heard)
        self.step()

    def step(self) -> None:
        """Do the next thing, if its time has come."""
        session, pump = self.widget.session, self.widget.bench.pump
        if self.finished or self.problem or pump.busy:
            return
        if session.similar is not None:
            self.finished = True
        elif session.needs_mpp or (session.slide and not session.slide.info.is_rgb):
            self.problem = session.why_not_run
        elif not self._ran and not session.why_not_run:
            self._ran = True
            self._choose_detail()
            if session.run_action is not RunAction.DONE:
                self.widget.mapping.run()
            else:
                self.step()
        elif self._ran and not self._asked and session.live is not None:
            self._asked = True
            where = query_place(session.live)
            self.widget.searching.click(*where, like=True)

    def _choose_detail(self) -> None:
        """Take the finest step that a laptop fills while the user watches."""
        session = self.widget.session
        step = finest_step(session.steps, DEMO_CELLS)
        if step is not None and step > session.step:
            self.widget.mapping.choose_step(step)

    def _heard(self, sentence: str) -> None:
        failed = self._ran and self.widget.session.live is None
        if sentence and (failed or self._asked):
            self.problem = sentence


def _samples() -> list[Slide]:
    from napari_histodistill.samples import ihc_sample, synthetic_slide

    return [open_slide(ihc_sample()), open_slide(synthetic_slide())]


def _students(name: str | None) -> list[StudentChoice] | None:
    if name is None:
        return None
    from napari_histodistill.students import list_students

    others = [e for e in list_students() if e.name != name]
    return [
        StudentChoice(name, load_spec(name)),
        *(StudentChoice(e.name, e.spec) for e in others),
    ]


def _add_side_by_side(viewer: napari.Viewer, slides: list[Slide]) -> None:
    right = 0.0
    for slide in slides:
        data, kwargs, kind = slide_layer(slide, translate=(0.0, right))
        getattr(viewer, f"add_{kind}")(data, **kwargs)
        right += slide.shape[1] * slide.world().scale[1] + GAP_UM


def _fit_view(viewer: napari.Viewer, slide: Slide) -> None:
    scale = slide.world().scale
    size = slide.shape[0] * scale[0], slide.shape[1] * scale[1]
    viewer.scene.camera.center = (size[0] / 2, size[1] / 2)
    viewer.scene.camera.zoom = 0.92 * float(np.min(np.array(viewer.canvas.size) / size))


def _wait(is_done: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not is_done():
        if time.monotonic() > until:
            msg = f"The demo did not finish within {PATIENCE_S / 60:.0f} minutes."
            raise ComputeError(msg)
        _settle(0.02)


def _settle(seconds: float) -> None:
    until = time.monotonic() + seconds
    app = QApplication.instance()
    while app is not None and time.monotonic() < until:
        app.processEvents()
        time.sleep(0.005)


def _save(viewer: napari.Viewer, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    viewer.screenshot(str(path), canvas_only=False, flash=False)
