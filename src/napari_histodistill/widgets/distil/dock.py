"""*Distil a student*: from two layers on the screen to a student, in four steps.

This file only composes. What a step decides lies in ``controllers/distil/session.py``;
each part (:class:`Pairing`, :class:`Aligning`, :class:`Distilling`) keeps its step, the
session and the viewer in line; everything shared is on the bench. The training is a
process of its own: this window only reads its folder, so it can close, and another can
find the run again.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QMessageBox

from napari_histodistill.cache import runs_dir, runs_note
from napari_histodistill.controllers.distil.session import DistilSession
from napari_histodistill.controllers.shared.background_import import import_work
from napari_histodistill.controllers.shared.job import SlideJob
from napari_histodistill.widgets.distil.align.alignment import Aligning
from napari_histodistill.widgets.distil.align.approving import Approving
from napari_histodistill.widgets.distil.annotations import AnnotationFiles
from napari_histodistill.widgets.distil.asking.reading import Readings
from napari_histodistill.widgets.distil.bench import DistilBench
from napari_histodistill.widgets.distil.keeping import DistilKeeping
from napari_histodistill.widgets.distil.pairing import Pairing
from napari_histodistill.widgets.distil.scaling import Scaling
from napari_histodistill.widgets.distil.spots import SpotFiles
from napari_histodistill.widgets.distil.steps import (
    AlignStep,
    LayersStep,
    PairsStep,
    TrainStep,
)
from napari_histodistill.widgets.distil.train.advanced import Advancing
from napari_histodistill.widgets.distil.train.classes import Fitting
from napari_histodistill.widgets.distil.train.helping import Helping
from napari_histodistill.widgets.distil.train.preview import Previewing
from napari_histodistill.widgets.distil.train.training import (
    ControlComparing,
    Distilling,
)
from napari_histodistill.widgets.shared.controls import Hint, message_box
from napari_histodistill.widgets.shared.dock import Dock
from napari_histodistill.widgets.shared.drafting import DraftRow

if TYPE_CHECKING:
    from napari import Viewer

WIDTH, HEIGHT = 360, 780
NEEDED_LATER = (
    "pandas",
    "zarr",
    "zarr.codecs",
    "joblib",
    "joblib.externals.loky",
    "napari_histodistill.widgets.explore.dock",
)


class OnClose(Enum):
    """The fate of a training when napari's window closes."""

    RUN_ON = "run on"
    STOP = "stop"
    STAY = "stay"
    """The window stays open."""


class DistilWidget(Dock):
    """Pair layers, look at the pairs, train, and take the student to Explore slide.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The parameter's name tells napari to hand the viewer over.
    runs : Path, optional
        Where runs are kept; a folder of the user's data by default.
    """

    def __init__(self, napari_viewer: Viewer, *, runs: Path | None = None) -> None:
        super().__init__(WIDTH, HEIGHT)
        viewer = getattr(napari_viewer, "__wrapped__", napari_viewer)
        kept = runs_dir() if runs is None else runs
        self.bench = DistilBench(viewer, kept, self)
        self.layers_step, self.align_step = LayersStep(), AlignStep()
        self.pairs_step, self.train_step = PairsStep(), TrainStep()
        self.message, self.draft_row = Hint(), DraftRow()
        self.pairing = Pairing(self.bench, self.layers_step, self.pairs_step)
        self.spot_files = SpotFiles(self.bench, self.layers_step, self.pairing)
        self.annotations = AnnotationFiles(self.bench, self.layers_step, self.pairing)
        self.readings = Readings(self.bench, self.layers_step.reading)
        self.pairing.pointed.connect(self.readings.point_at)
        self.pairing.laying_out.connect(self.readings.look_again)
        self.aligning = Aligning(self.bench, self.align_step)
        self.approving = Approving(self.bench, self.align_step)
        self.scaling = Scaling(
            self.bench, self.layers_step, self.pairing, self.aligning
        )
        self.keeping = DistilKeeping(self.bench, self.aligning, self.draft_row)
        self.distilling = Distilling(self.bench, self.train_step)
        self.distilling.wrote.connect(self.keeping.sections_trained)
        self.distilling.using.connect(self.aligning.put_away)
        self.advancing = Advancing(self.bench, self.train_step)
        self.previewing = Previewing(self.bench, self.train_step)
        self.distilling.using.connect(lambda: self.train_step.preview.setChecked(False))
        self.fitting = Fitting(self.bench, self.train_step)
        self.comparing = ControlComparing(self.bench, self.train_step)
        self.helping = Helping(self.bench, self.train_step, self.distilling.begin)
        self.ask_close: Callable[[], OnClose] = self._ask_close
        self.message.hide()
        steps = (self.layers_step, self.align_step, self.pairs_step, self.train_step)
        self.lay_out((self.message, self.draft_row, *steps), spacing=8)
        self.bench.changed.connect(self.refresh)
        self.bench.said.connect(self.say)
        # What pairs, training, preview and Explore need, before a person waits for it.
        self.bench.pump.start(
            import_work(*NEEDED_LATER),
            key=SlideJob.IMPORTING,
            on_reports=lambda _: None,
        )
        self.pairing.layers_changed()
        self.distilling.find()
        self.refresh()
        if runs is None and (note := runs_note()):
            self.say(note)

    @property
    def session(self) -> DistilSession:
        """The state behind the panel."""
        return self.bench.session

    def say(self, sentence: str) -> None:
        """Show a refusal or failure at the top; "" takes it back."""
        self.message.say(sentence)

    def refresh(self) -> None:
        """Draw every step from the session."""
        self.pairing.show()
        self.spot_files.show()
        self.annotations.show()
        self.readings.show()
        self.scaling.show()
        self.aligning.show()
        self.approving.show()
        self.distilling.show()
        self.advancing.show()
        self.previewing.show()
        self.fitting.show()
        self.comparing.show()
        self.helping.show()

    def let_go(self) -> None:
        """Stop all jobs and let go of the viewer; a training runs on."""
        self.keeping.close()
        self.distilling.end_start()
        self.bench.pump.close()
        self.pairing.close()
        self.aligning.close()
        self.previewing.close()
        self.distilling.close()

    def may_close(self) -> bool:
        """Ask about a training, or the pairs that it waits for."""
        if not self.keeping.may_close():
            return False
        training = self.distilling
        works = self.session.works or training.is_starting
        if self.is_closed or not (works or training.is_writing):
            return True
        answer = self.ask_close()
        if answer is OnClose.STOP:
            training.stop()
        elif answer is OnClose.RUN_ON:
            training.run_on()
        return answer is not OnClose.STAY

    def _ask_close(self) -> OnClose:
        """Ask what becomes of the training, or of the pairs that it waits for."""
        writing = self.distilling.is_writing
        box = message_box(
            self,
            "Pairs are being written" if writing else "A training is running",
            "The training has not begun: without napari it does not begin."
            if writing
            else "It can go on without napari: open Distil a student again to find it.",
        )
        role = QMessageBox.ButtonRole
        run_on = None
        if writing:
            stop = box.addButton("Close, train nothing", role.DestructiveRole)
        else:
            run_on = box.addButton("Let it go on", role.AcceptRole)
            stop = box.addButton("Stop, keep best", role.DestructiveRole)
        box.addButton("Keep napari open", role.RejectRole)
        box.exec()
        if run_on is not None and box.clickedButton() is run_on:
            return OnClose.RUN_ON
        return OnClose.STOP if box.clickedButton() is stop else OnClose.STAY
