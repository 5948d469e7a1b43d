"""Ask me, wired: the view goes to a square, a key says what it is, it is learned."""

from __future__ import annotations

from collections import deque

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QKeyEvent

from napari_histodistill.controllers.explore.jobs import ExploreJob
from napari_histodistill.controllers.explore.teach.asking import (
    Question,
    Questions,
    ask_work,
)
from napari_histodistill.controllers.explore.teach.painting import pixels_under
from napari_histodistill.controllers.shared.job import Job, JobState
from napari_histodistill.slides import Slide
from napari_histodistill.widgets.explore.bench import ExploreBench
from napari_histodistill.widgets.explore.teach.panel import TeachPanel
from napari_histodistill.widgets.explore.teach.teaching import Teaching
from napari_histodistill.widgets.shared.slide_layers import go_to

SHARE_OF_CANVAS = 0.2
"""How much of the canvas a square fills that is asked about."""

LOOKING = "Looking for the squares that would teach most…"
NONE_LEFT = "There is no square left to ask about: paint, or run the model on more."
DONE = "That was all for now. Ask me again for more."


class Questioning(QObject):
    """Keeps questions, canvas and strokes in step."""

    def __init__(
        self, bench: ExploreBench, panel: TeachPanel, teaching: Teaching
    ) -> None:
        super().__init__(bench)
        self.bench, self.panel, self.teaching = bench, panel, teaching
        self._open: deque[Question] = deque()
        self._asked, self._second = 0, ""
        self._passed_by: list[tuple[int, int]] = []
        self._slide: Slide | None = None
        panel.ask.connect(self._pressed)
        panel.class_chosen.connect(self.answer)
        # Pressed with the mouse, the button has the keys until the canvas is clicked.
        panel.ask_button.installEventFilter(self)
        bench.changed.connect(self._follow)

    @property
    def question(self) -> Question | None:
        """The square that is asked about now; None while none is."""
        return self._open[0] if self._open else None

    def start(self) -> None:
        """Look for squares to ask about, and ask."""
        session = self.bench.session
        path, taught = session.store_path, session.taught
        if path is None or taught is None:
            self.panel.say(session.why_not_ask)
            self.panel.show_asking(asking=False)
            return
        if session.slide is not self._slide:
            self._passed_by, self._slide = [], session.slide
        self.panel.say(LOOKING)
        self.bench.pump.start(
            ask_work(
                self.teaching.strokes(),
                taught,
                store_path=path,
                passed_by=tuple(self._passed_by),
            ),
            key=ExploreJob.ASKING,
            on_reports=self._found,
            on_end=self._ended,
        )

    def answer(self, index: int) -> bool:
        """Paint a class on the square that is asked about; return whether one is."""
        question, overlays = self.question, self.bench.overlays
        if question is None or overlays is None or self.bench.session.slide is None:
            return False
        classes = self.teaching.classes.all
        if index < len(classes):
            layer = overlays.show_strokes(classes)
            there = pixels_under(
                question.region, layer.data.shape, self.bench.session.slide.shape
            )
            layer.data_setitem(there, index + 1)
            self.teaching.show()
            self._next()
        return True

    def skip(self) -> None:
        """Go on to the next square without an answer."""
        if self.question is not None:
            self._next()

    def stop(self, words: str = "") -> None:
        """End asking; answers stay."""
        if self.question is None and not self.panel.ask_button.isChecked():
            return
        self.bench.pump.abandon(ExploreJob.ASKING)
        self._open.clear()
        self.panel.show_asking(asking=False)
        self.panel.say(words)
        if self.bench.overlays is not None:
            self.bench.overlays.remove_question()

    def eventFilter(self, _watched: QObject, event: QEvent) -> bool:
        """Take the keys of an answer while the button has them."""
        if self.question is None or event.type() != QEvent.Type.KeyPress:
            return False
        assert isinstance(event, QKeyEvent)
        digit = event.key() - int(Qt.Key.Key_1)
        if 0 <= digit < 9:
            self.answer(digit)
        elif event.key() == Qt.Key.Key_S:
            self.skip()
        elif event.key() == Qt.Key.Key_Escape:
            self.stop()
        else:
            return False
        return True

    def _pressed(self, asks: bool) -> None:
        if asks:
            self.start()
        else:
            self.panel.show_asking(asking=True)  # stop looks at it
            self.stop()

    def _found(self, reports: list[Questions]) -> None:
        found = reports[-1]
        self._open = deque(found.items)
        self._asked, self._second = len(found.items), found.second
        if not found.items:
            self.stop(NONE_LEFT)
            return
        slide_layer = self.bench.slide_layer
        if self.teaching.layer is not None:
            self.teaching.paint(False)  # digits answer on the slide's layer
        self.bench.viewer.layers.selection.active = slide_layer
        self._show()

    def _next(self) -> None:
        self._passed_by.append(self._open.popleft().cell)
        if self._open:
            self._show()
        else:
            self.stop(DONE)

    def _show(self) -> None:
        question, overlays = self.question, self.bench.overlays
        layer = self.bench.slide_layer
        if question is None or overlays is None or layer is None:
            return
        overlays.show_question(question.region)
        go_to(self.bench.viewer, layer, question.region, SHARE_OF_CANVAS)
        number = self._asked - len(self._open) + 1
        first, second = question.likely
        by = f" ({self._second} disagrees)" if self._second else ""
        self.panel.say(
            f"{number} of {self._asked}: {first} or {second}?{by} Press the class's "
            "number; S skips, Esc ends."
        )

    def _follow(self) -> None:
        """End asking once the squares are not of what is looked at."""
        session = self.bench.session
        if self.question is not None and (
            session.slide is not self._slide or session.live is None
        ):
            self.stop()

    def _ended(self, job: Job[object]) -> None:
        if job.state is JobState.FAILED:
            self.stop(job.error)
