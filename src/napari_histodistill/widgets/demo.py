"""``histodistill demo``: napari with a slide and its map, all ready.

Without a slide of their own, a person sees a lesson: a painted slide is run, four
strokes teach four tissues, and the map that follows is compared with what was painted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import napari
import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

from napari_histodistill.controllers.explore.session import RunAction
from napari_histodistill.controllers.shared.planning import finest_step
from napari_histodistill.controllers.shared.query_place import query_place
from napari_histodistill.controllers.shared.student_list import StudentChoice
from napari_histodistill.errors import ComputeError
from napari_histodistill.layers.slide_layer import slide_layer
from napari_histodistill.samples.lesson import (
    Stroke,
    agreement,
    four_strokes,
    zones_of,
)
from napari_histodistill.samples.synthetic import SyntheticTruth
from napari_histodistill.slides import open_slide
from napari_histodistill.students.bundle import load_spec
from napari_histodistill.widgets.explore.dock import ExploreWidget
from napari_histodistill.widgets.shared.overlays import OverlayKind

WINDOW = (1500, 940)
PATIENCE_S = 1800.0
DEMO_CELLS = 1100
STROKE_MS = 400
"""Between two strokes of the lesson: a person sees them come."""

BRUSH_UM = 60.0
"""Radius of the lesson's brush."""

STROKE_COLORS = ("#f0e442", "#56b4e9", "#009e73", "#d55e00")
"""Told apart on the purple of what lies below them too."""

LESSON_STUDENT = "imagenet-lite0"
"""It brings no classes of its own, so that all that is seen is taught."""

BROWN_NAME = "Real colon, brown stain: not H&E"

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False, slots=True)
class Lesson:
    """A slide whose truth is known.

    Attributes
    ----------
    slide : Path
        The slide.
    truth : SyntheticTruth
        What was painted where.
    """

    slide: Path
    truth: SyntheticTruth


def open_demo(
    slide: Path | None,
    *,
    screenshot: Path | None,
    student: str | None = None,
    say: Say = lambda _line: None,
) -> None:
    """Open napari on a slide and run the student over it without being asked.

    Parameters
    ----------
    slide : Path or None
        A person's own slide; None gives the lesson on the painted slide, with a real
        piece of colon beside it in the list.
    screenshot : Path or None
        Write a picture of the finished window there and close; None leaves the window
        to the person.
    student : str or None
        Name or folder of the student; None takes the first with classes, or for the
        lesson the one that brings none.
    say : callable
        Takes a line for who waits, whenever the next thing begins.

    Raises
    ------
    HistodistillError
        If the slide cannot be opened, or (with ``screenshot``) the student fails.
    """
    if slide is None:
        show_lesson(
            _lesson(say),
            screenshot=screenshot,
            student=student or LESSON_STUDENT,
            say=say,
        )
        return
    with _Stage(student, say) as stage:
        stage.add(slide)
        _perform(stage, _Search(stage), screenshot)


def show_lesson(
    lesson: Lesson, *, screenshot: Path | None, student: str, say: Say
) -> None:
    """Teach four tissues of a painted slide by four strokes.

    Parameters
    ----------
    lesson : Lesson
        The painted slide.
    screenshot, student, say
        As for :func:`open_demo`.
    """
    from napari_histodistill.samples import ihc_sample

    with _drafts_thrown_away(), _Stage(student, say) as stage:
        stage.add(lesson.slide)
        stage.add(ihc_sample(), name=BROWN_NAME)
        _perform(stage, _Teach(stage, lesson.truth), screenshot)


@contextmanager
def _drafts_thrown_away() -> Iterator[None]:
    """Keep no draft: nobody wants to go on with the lesson's strokes the next time."""
    name = "HISTODISTILL_DRAFTS"
    before = os.environ.get(name)
    with TemporaryDirectory() as folder:
        os.environ[name] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ[name]
            else:
                os.environ[name] = before


def _lesson(say: Say) -> Lesson:
    from napari_histodistill.samples import synthetic_slide, synthetic_truth

    say("making the painted slide ready; the first time takes some 15 s…")
    return Lesson(synthetic_slide(), synthetic_truth())


class _Stage:
    """The window with its panel."""

    def __init__(self, student: str | None, say: Say) -> None:
        self.say = say
        say("opening napari…")
        self.viewer = napari.Viewer(title="HistoDistill demo", show=True)
        self.viewer.window.resize(*WINDOW)
        self.widget = ExploreWidget(self.viewer, students=_students(student))
        self.viewer.window.add_dock_widget(
            self.widget, area="right", name="Explore slide"
        )
        settle(0.3)  # the canvas has its size only once the window was drawn

    def __enter__(self) -> _Stage:
        return self

    def __exit__(self, *_error: object) -> None:
        self.widget.shut_down()
        if self.viewer.window is not None:
            self.viewer.close()
        settle(0.1)

    def add(self, path: Path, *, name: str = "") -> None:
        """Add a slide to the list."""
        data, kwargs, kind = slide_layer(open_slide(path))
        kwargs |= {"name": name} if name else {}
        getattr(self.viewer, f"add_{kind}")(data, **kwargs)

    def choose_first(self) -> None:
        """Look at the slide that was added first."""
        first = self.viewer.layers[0]
        self.widget.choosing.choose_layer(first)
        self.viewer.layers.selection.active = first


def _perform(stage: _Stage, play: _Play, screenshot: Path | None) -> None:
    """Let a play begin; leave the window to the person, or write the picture."""
    stage.choose_first()
    play.begin()
    if screenshot is None:
        napari.run()
        return
    _wait(lambda: play.finished or bool(play.problem))
    if play.problem:
        raise ComputeError(play.problem)
    _wait(lambda: not stage.widget.bench.pump.busy)
    settle(0.5)
    _save(stage.viewer, screenshot)
    stage.say(f"wrote {screenshot.name}")


class _Play:
    """Presses the buttons that a person would press, as soon as they can be."""

    def __init__(self, stage: _Stage) -> None:
        self.stage, self.widget, self.say = stage, stage.widget, stage.say
        self.finished = False
        self.problem = ""
        self._ran = False
        self._tenths = 0

    def begin(self) -> None:
        """Follow what happens on the workbench."""
        bench = self.widget.bench
        self.say("loading the student…")
        bench.changed.connect(self.step)
        bench.said.connect(self._heard)
        bench.ran.connect(self._ran_on)
        self.step()

    def step(self) -> None:
        """Do the next thing, if its time has come."""
        session, pump = self.widget.session, self.widget.bench.pump
        if self.finished or self.problem or pump.busy:
            return
        if session.needs_mpp or (session.slide and not session.slide.info.is_rgb):
            self.problem = session.why_not_run
        elif not self._ran and not session.why_not_run:
            self._ran = True
            self._choose_detail()
            self.say("running the student over the slide, what is in view first…")
            if session.run_action is not RunAction.DONE:
                self.widget.mapping.run()
            else:
                self.step()
        elif self._ran and session.live is not None:
            self.go_on()

    def go_on(self) -> None:
        """Do what follows once the map is there."""
        raise NotImplementedError

    def end(self) -> None:
        """Say that all is done."""
        self.finished = True
        self.say("ready: the window is yours.")

    def _ran_on(self, share: float) -> None:
        if int(10 * share) > self._tenths:
            self._tenths = int(10 * share)
            self.say(f"{share:.0%} of the squares are done")

    def _choose_detail(self) -> None:
        """Take the finest step that a laptop fills while the user watches."""
        session = self.widget.session
        step = finest_step(session.steps, DEMO_CELLS)
        if step is not None and step > session.step:
            self.widget.mapping.choose_step(step)

    def _heard(self, sentence: str) -> None:
        if sentence and self._ran and self.widget.session.live is None:
            self.problem = sentence


class _Search(_Play):
    """Looks for what is like one place of the map."""

    _asked = False

    def go_on(self) -> None:
        """Click a place, then wait for what is like it."""
        session = self.widget.session
        if session.similar is not None:
            self.end()
        elif session.live is not None and not self._asked:
            self._asked = True
            self.say("looking for what is like one place…")
            self.widget.searching.click(*query_place(session.live), like=True)

    def _heard(self, sentence: str) -> None:
        super()._heard(sentence)
        if sentence and self._asked:
            self.problem = sentence


class _Teach(_Play):
    """Paints a stroke for each tissue and learns from them."""

    def __init__(self, stage: _Stage, truth: SyntheticTruth) -> None:
        super().__init__(stage)
        self._zones = zones_of(truth)
        self._strokes = four_strokes(self._zones)
        self._painting: Iterator[Stroke] | None = None
        self._painted = 0
        self._all_painted = False

    def go_on(self) -> None:
        """Paint, then wait until all strokes were learned from."""
        taught = self.widget.session.taught
        if self._painting is None:
            self._painting = iter(self._strokes)
            self._prepare()
            self._paint_next()
        elif (
            self._all_painted
            and taught is not None
            and len(taught.classes) == len(self._strokes)
        ):
            self._compare()
            self.end()

    def _prepare(self) -> None:
        teaching = self.widget.teaching
        while len(teaching.classes.all) < len(self._strokes):
            teaching.add_class()
        for k, stroke in enumerate(self._strokes):
            teaching.rename(k, stroke.tissue)
            teaching.recolour(k, STROKE_COLORS[k])
        teaching.paint(True)

    def _paint_next(self) -> None:
        assert self._painting is not None
        overlays = self.widget.bench.overlays
        stroke = next(self._painting, None)
        if overlays is None:
            self.problem = "The slide was removed while it was painted on."
            return
        if stroke is None:
            self.say("learning from the strokes…")
            self.widget.teaching.paint(False)
            self.widget.teaching.learn()
            self._all_painted = True
            self.step()
            return
        self.say(f"a stroke over {stroke.tissue}…")
        layer: Any = overlays.get(OverlayKind.STROKES)
        self._painted += 1
        layer.data_setitem(_under(layer, stroke), np.uint8(self._painted))
        QTimer.singleShot(STROKE_MS, self._paint_next)

    def _compare(self) -> None:
        live = self.widget.session.live
        assert live is not None
        names = np.array(["", *(c.name for c in live.classes)])
        found = agreement(names[live.labels], live.grid, self._zones)
        self.say(found.in_words())


def _under(layer: Any, stroke: Stroke) -> tuple[Any, ...]:
    """Return the pixels of the stroke layer under a stroke."""
    scale, at = np.asarray(layer.scale[-2:]), np.asarray(layer.translate[-2:])
    corner = at - scale / 2
    start, end = np.asarray(stroke.start), np.asarray(stroke.end)
    rows, columns = np.indices(layer.data.shape)
    place = np.stack([rows, columns], -1) * scale + at - corner
    along = end - start
    share = (place - start) @ along / max(float(along @ along), 1e-9)
    nearest = start + np.clip(share, 0, 1)[..., None] * along
    return tuple(np.nonzero(np.linalg.norm(place - nearest, axis=-1) < BRUSH_UM))


def _students(name: str | None) -> list[StudentChoice] | None:
    if name is None:
        return None
    from napari_histodistill.students import list_students

    others = [e for e in list_students() if e.name != name]
    return [
        StudentChoice(name, load_spec(name)),
        *(StudentChoice(e.name, e.spec) for e in others),
    ]


def _wait(is_done: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not is_done():
        if time.monotonic() > until:
            msg = f"The demo did not finish within {PATIENCE_S / 60:.0f} minutes."
            raise ComputeError(msg)
        settle(0.02)


def settle(seconds: float) -> None:
    """Let the event loop turn."""
    until = time.monotonic() + seconds
    app = QApplication.instance()
    while app is not None and time.monotonic() < until:
        app.processEvents()
        time.sleep(0.005)


def _save(viewer: napari.Viewer, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    viewer.screenshot(str(path), canvas_only=False, flash=False)
