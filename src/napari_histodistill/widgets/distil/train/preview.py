"""A preview on the canvas: the view as the student in training sees it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from napari.layers import Image
from qtpy.QtCore import QObject

from napari_histodistill.controllers.distil.jobs import DistilJob
from napari_histodistill.controllers.distil.preview import (
    Preview,
    Sight,
    may_be_wanted,
    newest_student,
    preview_work,
    say_preview,
)
from napari_histodistill.controllers.shared.embed_process import EmbedProcess
from napari_histodistill.controllers.shared.job import Job, JobState
from napari_histodistill.distill.runs.preview import ask_for_previews
from napari_histodistill.geometry import Region
from napari_histodistill.layers.slide_layer import OVERLAY_MARK
from napari_histodistill.slides import Slide
from napari_histodistill.widgets.distil.bench import DistilBench
from napari_histodistill.widgets.distil.steps import TrainStep
from napari_histodistill.widgets.shared.slide_layers import (
    overlay_affine,
    view_region,
)

LOOK_MS = 400
NAME = "Preview of the model in training"


class Previewing(QObject):
    """Paints the view again when there is a newer student, or the view has moved."""

    def __init__(self, bench: DistilBench, step: TrainStep) -> None:
        super().__init__(bench)
        self.bench, self.step = bench, step
        self.shown: Preview | None = None
        self.layer: Image | None = None
        self._first = False
        self._elsewhere = EmbedProcess()
        self._region: Region | None = None
        self._asked: Sight | None = None
        self._slide: Slide | None = None
        self._requested: tuple[Path, int] | None = None
        self._timer = bench.timer(LOOK_MS, self.look)
        step.previews.wanted.changed.connect(self._toggled)
        step.previews.steps.changed.connect(lambda _: self._ask())
        step.colouring.activated.connect(lambda _: self.look())

    def close(self) -> None:
        """Look no longer; the run leaves no more previews."""
        self._timer.stop()
        self._elsewhere.close()
        if self.step.previews.model.wanted:
            self._request(0)

    def show(self) -> None:
        """Keep a hidden layer at hand, from pairs that wait to the end of a training.

        To add one takes napari a tenth of a second, more when a training takes the
        machine's time: a person who ticks *Preview* then would feel it.
        """
        self._leave_other_slide()
        if self._may_be_wanted():
            if self.layer is None and self.bench.sparse_layer is not None:
                self._make_room(self.bench.sparse_layer)
        elif self.layer is not None and not self.step.previews.model.wanted:
            if self.layer in self.bench.viewer.layers:
                self.bench.viewer.layers.remove(self.layer)
            self.layer = None

    def _leave_other_slide(self) -> None:
        """Hide what was painted of a slide that is no longer the H&E.

        Its view, tissue and colours say nothing about another section, even where
        both are of one size.
        """
        slide = self.bench.session.sparse
        if slide is self._slide:
            return
        self._slide = slide
        self.bench.pump.abandon(DistilJob.PREVIEW)
        self.shown = self._asked = None
        self.step.seen_words.say("")
        if self.layer is not None and self.layer in self.bench.viewer.layers:
            self._first = self._first or self.layer.visible
            self.layer.visible = False

    def _may_be_wanted(self) -> bool:
        pump = self.bench.pump
        jobs = DistilJob.WRITING, DistilJob.STARTING
        starting = any(pump.is_active(job) for job in jobs)
        return may_be_wanted(self.bench.session, starting=starting)

    def look(self) -> None:
        """Start painting if there is something new and the canvas is at rest."""
        bench, step = self.bench, self.step
        if not step.previews.model.wanted:
            return
        self._ask()
        self._elsewhere.begin()
        found = newest_student(bench.session)
        layer, slide = bench.sparse_layer, bench.session.sparse
        if found is None or layer is None or layer not in bench.viewer.layers:
            return
        if slide is None or slide.usable_mpp is None:
            return
        region = view_region(bench.viewer, layer, slide)
        moving, self._region = region != self._region, region
        if region is None or moving:
            return
        step_no, bundle = found
        sight = Sight(bundle, region, step.colouring.currentData(), step_no)
        if sight.is_like(self._asked) or self._is_painting(sight):
            return
        self._asked = sight
        same = self.shown is not None and self.layer in bench.viewer.layers
        # A job of this name that is not done yet is dropped: its view is stale.
        bench.pump.start(
            preview_work(
                slide, sight, self.shown if same else None, self._elsewhere.embed
            ),
            key=DistilJob.PREVIEW,
            on_reports=self._painted,
            on_end=self._ended,
        )

    def _is_painting(self, sight: Sight) -> bool:
        """Whether this very view is being painted, be it by an earlier student.

        Students may come faster than they can be painted: one that is under way is
        finished, or there would never be anything to see.
        """
        asked = self._asked
        return (
            self.bench.pump.is_active(DistilJob.PREVIEW)
            and asked is not None
            and sight.is_same_view(asked)
        )

    def _painted(self, reports: list[Preview]) -> None:
        layer, slide = self.bench.sparse_layer, self.bench.session.sparse
        if not self.step.previews.model.wanted or layer is None or slide is None:
            return
        self.shown = shown = reports[-1]
        painted = self._make_room(layer)
        painted.data = shown.pixels
        for name, wanted in (
            ("scale", shown.world.scale),
            ("translate", shown.world.translate),
            ("affine", overlay_affine(layer, slide.require_mpp())),
        ):
            # Each that is set makes napari look at all layers again.
            if not np.array_equal(np.asarray(getattr(painted, name)), wanted):
                setattr(painted, name, wanted)
        if self._first:
            # Only now: to make a layer and to draw it first takes napari a tenth of a
            # second each. Later it is hidden and shown by its owner.
            self._first, painted.visible = False, True
        self.step.seen_words.say(say_preview(shown.sight))

    def _make_room(self, sparse: Image) -> Image:
        """Add an empty layer, unless it is there; it is drawn when it has a picture."""
        viewer = self.bench.viewer
        if self.layer is not None and self.layer in viewer.layers:
            return self.layer
        chosen = viewer.layers.selection
        active = chosen.active
        # Nobody need hear that the new layer is chosen and then no longer: napari
        # would draw its buttons twice.
        with chosen.events.blocker_all():
            self.layer = viewer.add_image(
                np.zeros((2, 2, 4), np.uint8),
                name=NAME,
                rgb=True,
                opacity=0.5,
                visible=False,
                cache=False,
                # In the slide's middle: the world grows no larger by it.
                translate=sparse.extent.world.mean(axis=0)[-2:],
                units=("um", "um"),
                metadata={OVERLAY_MARK: "preview"},
            )
            chosen.active = active
        self._first = True
        return self.layer

    def _ended(self, job: Job[Preview]) -> None:
        if job.state is JobState.FAILED:
            # The run may have replaced this student meanwhile; the next one is tried.
            self.step.seen_words.say(f"This preview could not be painted: {job.error}")

    def _toggled(self, on: bool) -> None:
        if on:
            self._asked = self._requested = None
            if self.bench.sparse_layer is not None:
                self._make_room(self.bench.sparse_layer)
                self._first = True
            self._ask()
            self._timer.start()
            self.step.seen_words.say("The first preview comes with the next step.")
            return
        self._timer.stop()
        self.bench.pump.abandon(DistilJob.PREVIEW)
        self._elsewhere.close()
        self._request(0)
        self._requested = self.shown = None
        self.step.seen_words.say("")
        if self.layer is not None and self.layer in self.bench.viewer.layers:
            self.layer.visible = False
        self.show()

    def _ask(self) -> None:
        """Tell the run how often; only when that is news to it."""
        run, every = self.bench.session.run, self.step.previews.model.steps
        if run is None or not self.step.previews.model.wanted:
            return
        if self._requested != (run.folder, every):
            self._requested = (run.folder, every)
            self._request(every)

    def _request(self, every: int) -> None:
        run = self.bench.session.run
        if run is not None and run.folder.is_dir():
            self.bench.attempt(lambda: ask_for_previews(run.folder, every))
