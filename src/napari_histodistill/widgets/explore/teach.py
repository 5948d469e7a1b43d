"""Teach: the panel (name classes, paint strokes, learn, save) and its wiring."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QObject, QSignalBlocker, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QPushButton,
    QToolButton,
    QWidget,
)

from napari_histodistill.controllers.explore.jobs import ExploreJob
from napari_histodistill.controllers.explore.painting import PaintedClasses
from napari_histodistill.controllers.explore.teaching import (
    LEFT_OUT,
    Strokes,
    StudentSaved,
    Taught,
    save_work,
)
from napari_histodistill.controllers.shared.job import Job, JobState
from napari_histodistill.controllers.shared.wording import neutral_title
from napari_histodistill.errors import HistodistillError
from napari_histodistill.students.spec import ClassSpec
from napari_histodistill.widgets.explore.bench import ExploreBench
from napari_histodistill.widgets.shared.controls import (
    Hint,
    Swatch,
    explain,
    fill_combo,
    heading,
    push,
    row,
    set_tip,
    stack,
    wide_combo,
)
from napari_histodistill.widgets.shared.forms import Form, ask_new_file
from napari_histodistill.widgets.shared.overlays import OverlayKind
from napari_histodistill.widgets.shared.saving import ModelTitle

if TYPE_CHECKING:
    from napari.utils.events import Event

RESTING = ("pan_zoom", "transform")
"""Modes of a layer that do not paint."""

LEARNING = "Learning from the strokes…"
STOPPED = "Learning was stopped. Press Learn from strokes again."

PAINT_TIP = "Paint strokes of the chosen class on the slide. Press again to stop."
LEARN_TIP = "Learn the painted classes and colour the whole map by them."
SAVE_TIP = "Keep what was taught as a model of its own, for other slides."


class TeachPanel(QWidget):
    """The classes to paint and three buttons; it decides nothing."""

    class_chosen = Signal(int)
    class_renamed = Signal(int, str)
    class_added = Signal()
    paint = Signal(bool)
    learn = Signal()
    save = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.names = wide_combo("The class you paint. Type to rename it.")
        self.names.setEditable(True)
        self.names.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.add = QToolButton()
        self.add.setText("+")
        set_tip(self.add, "Add another class.")
        self.paint_button = push("Paint strokes", stays=True)
        self.learn_button = QPushButton("Learn from strokes")
        self.save_button = QPushButton("Save as model…")
        self.saving = Form(ModelTitle(), labels=True)
        (self.title,) = self.saving.natives
        self.title.setPlaceholderText(neutral_title())
        self.words = Hint()
        self.words.hide()
        self._swatch = Swatch("#000000")
        self._first = row(
            self._swatch, self.names, self.add, self.paint_button, stretch=1
        )
        stack(
            self,
            heading("Teach"),
            self._first,
            row(self.learn_button, self.save_button),
            self.saving.native,
            self.words,
        )
        self.names.activated.connect(self.class_chosen)
        self.names.lineEdit().editingFinished.connect(self._renamed)
        self.add.clicked.connect(self.class_added)
        self.paint_button.toggled.connect(self.paint)
        self.learn_button.clicked.connect(self.learn)
        self.save_button.clicked.connect(self.save)

    def show_classes(self, classes: Sequence[ClassSpec], current: int) -> None:
        """List the classes that can be painted."""
        fill_combo(self.names, [c.name for c in classes], current, empty="")
        swatch = Swatch(classes[current].color)
        set_tip(swatch, "The colour of its strokes.")
        self._first.replaceWidget(self._swatch, swatch)
        self._swatch.hide()
        self._swatch.deleteLater()
        self._swatch = swatch

    def explain(self, *, paint: str, learn: str, save: str) -> None:
        """Enable the buttons, or say in their tooltips why not."""
        explain(self.paint_button, PAINT_TIP, paint)
        explain(self.learn_button, LEARN_TIP, learn)
        explain(self.save_button, SAVE_TIP, save)
        self.saving.visible = not save

    def say(self, sentence: str) -> None:
        """Show a sentence."""
        self.words.say(sentence)

    def show_painting(self, painting: bool) -> None:
        """Press or release the paint button without sending a signal."""
        with QSignalBlocker(self.paint_button):
            self.paint_button.setChecked(painting)

    def _renamed(self) -> None:
        self.class_renamed.emit(self.names.currentIndex(), self.names.currentText())


class Teaching(QObject):
    """Keeps the teach panel, the stroke layer and the session in step."""

    saved = Signal(object)
    """Path of the folder of a student that was just saved."""

    taught = Signal()

    def __init__(self, bench: ExploreBench, panel: TeachPanel) -> None:
        super().__init__(bench)
        self.bench, self.panel = bench, panel
        self.classes = PaintedClasses()
        self._left_out = ""
        self._is_learning = False
        panel.class_chosen.connect(self.choose_class)
        panel.class_renamed.connect(self.rename)
        panel.class_added.connect(self.add_class)
        panel.paint.connect(self.paint)
        panel.learn.connect(self.learn)
        panel.save.connect(self.ask_folder)
        self._show_classes()

    def choose_class(self, index: int) -> None:
        """Paint this class from now on."""
        self.classes.choose(index)
        self._show_classes()
        layer = self._layer()
        if layer is not None:
            layer.selected_label = self.classes.label

    def rename(self, index: int, name: str) -> None:
        """Give a class another name."""
        try:
            self.classes.rename(index, name)
        except HistodistillError as error:
            self.panel.say(str(error))
        self._show_classes()

    def put_classes(self, classes: Sequence[ClassSpec]) -> None:
        """Offer these classes, which were painted before."""
        self.classes.put(classes)
        self._show_classes()

    def add_class(self) -> None:
        """Offer one more class to paint."""
        try:
            self.classes.add()
        except HistodistillError as error:
            self.panel.say(str(error))
            return
        if self.bench.overlays is not None and self._layer() is not None:
            self.bench.overlays.show_strokes(self.classes.all)
        self.choose_class(self.classes.current)

    def paint(self, painting: bool) -> None:
        """Start or stop painting."""
        overlays = self.bench.overlays
        if overlays is None:
            self.show_painting()
            return
        layer = overlays.show_strokes(self.classes.all)
        if painting:
            self.bench.viewer.layers.selection.active = layer
            layer.selected_label = self.classes.label
            layer.mode = "paint"
            self.panel.say(
                "Paint a stroke or two of each class, then press Learn from strokes."
            )
        else:
            layer.mode = "pan_zoom"
            self.bench.viewer.layers.selection.active = self.bench.slide_layer
        self.show_painting()

    def show_painting(self, _event: Event | None = None) -> None:
        """Press the paint button while strokes are painted, by whatever means."""
        layer, layers = self._layer(), self.bench.viewer.layers
        is_active = layer is not None and layers.selection.active is layer
        paints = layer is not None and str(layer.mode) not in RESTING
        self.panel.show_painting(is_active and paints)

    def learn(self) -> None:
        """Learn from the strokes."""
        layer = self._layer()
        strokes = Strokes(
            np.zeros((1, 1), np.uint8) if layer is None else np.array(layer.data),
            self.classes.all,
        )
        try:
            work = self.bench.session.teach_work(strokes)
        except HistodistillError as error:
            self.panel.say(str(error))
            return
        self._left_out = LEFT_OUT if strokes.leaves_out else ""
        self._is_learning = True
        self.panel.say(LEARNING)
        self.bench.pump.start(
            work,
            key=ExploreJob.LEARNING,
            on_reports=self._learned,
            on_end=self._learning_ended,
        )

    def ask_folder(self) -> None:
        """Let the person name the new student's folder."""
        title = "Save as model: name a folder"
        path = ask_new_file(title, self.panel, "my-model")
        if path is not None:
            self.save(path)

    def save(self, folder: Path) -> None:
        """Save what was taught as a bundle."""
        session = self.bench.session
        if session.student is None or session.taught is None or session.slide is None:
            self.panel.say(session.why_not_save)
            return
        self.bench.pump.start(
            save_work(
                session.student,
                session.taught,
                folder,
                title=self.panel.saving.model.title,
                mode=session.mode,
            ),
            key=ExploreJob.SAVING,
            on_reports=self._saved,
            on_end=self._ended,
        )

    def show(self) -> None:
        """Draw the panel."""
        session = self.bench.session
        self.show_painting()
        if self._is_learning and not self.bench.pump.is_active(ExploreJob.LEARNING):
            self._is_learning = False
            self.panel.say(STOPPED)  # a run or another slide came in between
        self.panel.explain(
            paint=session.why_not_paint,
            learn=session.why_not_teach,
            save=session.why_not_save,
        )

    def _show_classes(self) -> None:
        self.panel.show_classes(self.classes.all, self.classes.current)

    def _layer(self) -> Labels | None:
        return (
            self.bench.overlays.get(OverlayKind.STROKES)
            if self.bench.overlays
            else None
        )

    def _learned(self, reports: list[Taught]) -> None:
        self._is_learning = False
        taught = reports[-1]
        self.bench.session.take_taught(taught)
        self.paint(False)
        self.panel.say(taught.summary() + self._left_out)
        self.taught.emit()

    def _saved(self, reports: list[StudentSaved]) -> None:
        folder = reports[-1].folder
        self.panel.say(f"Saved: {folder.name}.")
        self.saved.emit(folder)

    def _learning_ended(self, job: Job[object]) -> None:
        if job.state is JobState.FAILED:
            self._is_learning = False  # the panel says why
        self._ended(job)

    def _ended(self, job: Job[object]) -> None:
        if job.state is JobState.FAILED:
            self.panel.say(job.error)
        self.bench.changed.emit()
