"""Teaching, wired: every stroke is learned while the brush stays in hand."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from napari.layers import Labels
from qtpy.QtCore import QObject, QTimer, Signal

from napari_histodistill.controllers.explore.jobs import ExploreJob
from napari_histodistill.controllers.explore.teach.held import HeldEmbeddings
from napari_histodistill.controllers.explore.teach.painting import PaintedClasses
from napari_histodistill.controllers.explore.teach.teaching import (
    LEFT_OUT,
    Missing,
    Strokes,
    StudentSaved,
    Taught,
    save_work,
)
from napari_histodistill.controllers.shared.job import Job, JobState
from napari_histodistill.errors import HistodistillError
from napari_histodistill.geometry import Region
from napari_histodistill.layers.overlays import class_colors
from napari_histodistill.layers.slide_layer import OVERLAY_MARK
from napari_histodistill.slides import Slide
from napari_histodistill.students.spec import ClassSpec
from napari_histodistill.widgets.explore.bench import ExploreBench
from napari_histodistill.widgets.explore.showing import choose_color
from napari_histodistill.widgets.explore.teach.panel import TeachPanel
from napari_histodistill.widgets.shared.forms import ask_new_file
from napari_histodistill.widgets.shared.overlays import OverlayKind
from napari_histodistill.widgets.shared.slide_layers import go_to

if TYPE_CHECKING:
    from napari.utils.events import Event

RESTING = ("pan_zoom", "transform")
"""Modes of a layer that do not paint."""

SETTLE_MS = 25
"""A stroke ends with several events of napari's; they are learned from once."""

NO_STROKES = "Nothing is painted yet: there are no strokes to write."
HOW = "Paint a stroke of each class: the map follows."
NO_MAP_YET = "Strokes are learned once the model has run here."

ODD_CELLS, ODD_SHARE = 8, 0.5
"""Squares shown around a stroke, and how much of the canvas they fill."""


class Teaching(QObject):
    """Keeps the teach panel, the stroke layer and the session in step.

    What was painted, erased or undone, by whatever means, is learned as soon as the
    brush is lifted; the newest strokes win.
    """

    saving = Signal(object)
    """What was taught on this slide is being saved."""
    saved = Signal(object, object)
    """It was: path of the student's folder, and the slide."""

    taught = Signal()
    untaught = Signal()
    """Too little is painted to teach anything: the model's own classes are wanted."""
    recoloured = Signal(str, str)
    """A class's name, and its new colour."""

    def __init__(self, bench: ExploreBench, panel: TeachPanel) -> None:
        super().__init__(bench)
        self.bench, self.panel = bench, panel
        self.classes = PaintedClasses()
        self._left_out = ""
        self._followed: Labels | None = None
        self._learned_mark: tuple[object, ...] | None = None
        self._waits = False  # strokes that could not be learned from yet
        self._was_taught = self._is_learning = False
        # Of every slide's strokes, looked for again only where somebody painted.
        self._labels: WeakKeyDictionary[Labels, set[int]] = WeakKeyDictionary()
        self._settle = QTimer(self)
        self._settle.setSingleShot(True)
        self._settle.setInterval(SETTLE_MS)
        self._settle.timeout.connect(self.learn)
        panel.class_chosen.connect(self.choose_class)
        panel.class_renamed.connect(self.rename)
        panel.color_wanted.connect(self.ask_color)
        panel.class_added.connect(self.add_class)
        panel.class_removed.connect(self.remove_class)
        panel.paint.connect(self.paint)
        panel.erase.connect(self.erase)
        panel.save.connect(self.ask_folder)
        panel.odd_chosen.connect(self.go_to_odd)
        self._show_classes()

    def close(self) -> None:
        """Stop following the layer that is painted on."""
        self._settle.stop()
        self._follow(None)

    # --- classes ------------------------------------------------------------------

    def choose_class(self, index: int) -> None:
        """Paint this class from now on."""
        self.classes.choose(index)
        self._show_classes()
        layer = self.layer
        if layer is not None:
            layer.selected_label = self.classes.label

    def rename(self, index: int, name: str) -> None:
        """Give a class another name."""
        try:
            self.classes.rename(index, name)
        except HistodistillError as error:
            self.panel.say(str(error))
        self._show_classes()
        if self.bench.session.taught is not None:
            self.learn()

    def ask_color(self, index: int) -> None:
        """Let the person choose another colour for a class."""
        spec = self.classes.all[index]
        color = choose_color(spec.color, f"Colour of {spec.name}", self.panel)
        if color is not None:
            self.recolour(index, color)

    def recolour(self, index: int, color: str) -> None:
        """Give a class another colour, on strokes and map."""
        self.classes.recolour(index, color)
        self._show_colors()
        self.recoloured.emit(self.classes.all[index].name, color)

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
        self._show_colors()
        self.choose_class(self.classes.current)
        self.show()

    def remove_class(self) -> None:
        """Take the present class away, if it is not painted on any slide."""
        if self.classes.why_not_remove(self._painted()):
            return
        labels = self.classes.remove()
        for layer in self._all_layers():
            if layer.data.any():
                layer.data = labels[layer.data]
                self._labels.pop(layer, None)
        self._show_colors()
        self.choose_class(self.classes.current)
        self.show()

    def merge_classes(self, classes: Sequence[ClassSpec]) -> npt.NDArray[np.uint8]:
        """Offer others' classes, too; return the label here of each of their labels.

        Raises
        ------
        InputError
            If there would be too many.
        """
        labels = self.classes.merge(classes, replace=not self._painted())
        self._show_colors()
        self.choose_class(self.classes.current)
        return labels

    # --- painting -----------------------------------------------------------------

    @property
    def layer(self) -> Labels | None:
        """The layer with the strokes on this slide; None if nothing was painted."""
        overlays = self.bench.overlays
        return None if overlays is None else overlays.get(OverlayKind.STROKES)

    def strokes(self) -> Strokes:
        """Return what is painted on this slide, as it is now."""
        layer = self.layer
        labels = np.zeros((1, 1), np.uint8) if layer is None else np.array(layer.data)
        return Strokes(labels, self.classes.all)

    def paint(self, painting: bool) -> None:
        """Start or stop painting."""
        self._take_tool("paint" if painting else "pan_zoom")

    def erase(self, erasing: bool) -> None:
        """Start or stop erasing."""
        self._take_tool("erase" if erasing else "pan_zoom")

    def _take_tool(self, mode: str) -> None:
        overlays, session = self.bench.overlays, self.bench.session
        if overlays is None:
            self.show_painting()
            return
        layer = overlays.show_strokes(self.classes.all)
        self._follow(layer)
        if mode in RESTING:
            layer.mode = mode
            self.bench.viewer.layers.selection.active = self.bench.slide_layer
        else:
            self.bench.viewer.layers.selection.active = layer
            layer.selected_label = self.classes.label
            layer.mode = mode
            self._get_ready()
            if session.taught is None:
                self.panel.hint(NO_MAP_YET if session.why_not_teach else HOW)
                self._learned_mark = None  # the student's own classes were looked at
                if layer.data.any():
                    self.learn()
        self.show_painting()

    def show_painting(self, _event: Event | None = None) -> None:
        """Press brush or eraser while they are in hand, by whatever means."""
        layer, layers = self.layer, self.bench.viewer.layers
        held = layer is not None and layers.selection.active is layer
        mode = str(layer.mode) if layer is not None and held else RESTING[0]
        erases = mode == "erase"
        self.panel.show_tool(paints=mode not in RESTING and not erases, erases=erases)

    # --- learning -----------------------------------------------------------------

    def learn(self) -> None:
        """Learn from the strokes, if they are others than those learned last."""
        layer, session, pump = self.layer, self.bench.session, self.bench.pump
        if layer is None:
            return
        mark = self._mark(layer)
        if mark == self._learned_mark:
            return
        why_not = session.why_not_teach or session.why_not_similar
        if why_not or pump.is_active(ExploreJob.STORED_MAP):
            self._waits = True
            self.panel.hint(why_not and NO_MAP_YET)
            return
        self._waits, self._learned_mark = False, mark
        strokes = self.strokes()
        try:
            work = session.teach_work(strokes)
        except HistodistillError as error:
            self.panel.say(str(error))
            return
        self._left_out = LEFT_OUT if strokes.leaves_out else ""
        self._is_learning = True
        pump.abandon(ExploreJob.HOLDING)
        pump.start(
            work,
            key=ExploreJob.LEARNING,
            on_reports=self._learned,
            on_end=self._learning_ended,
        )

    def _learned(self, reports: list[HeldEmbeddings | Missing | Taught]) -> None:
        session = self.bench.session
        for report in reports:
            session.take_taught(report)
        last = reports[-1]
        if isinstance(last, Missing):
            if session.taught is not None:
                self.untaught.emit()
            self.panel.hint(last.words)
        elif isinstance(last, Taught):
            self.panel.hint("")
            self.taught.emit()

    def _learning_ended(self, job: Job[object]) -> None:
        self._is_learning = False
        self._ended(job)

    def _get_ready(self) -> None:
        """Read what the first stroke is learned from, and make room for its map."""
        session, pump = self.bench.session, self.bench.pump
        work, overlays = session.hold_work(), self.bench.overlays
        no_map = overlays is not None and overlays.get(OverlayKind.CLASSES) is None
        if overlays is not None and no_map and session.live is not None:
            overlays.make_room(session.live.grid, self.classes.all)
        if work is not None and not pump.is_active(ExploreJob.STORED_MAP):
            pump.start(
                work,
                key=ExploreJob.HOLDING,
                on_reports=lambda held: self.bench.session.take_taught(held[-1]),
            )

    def _mark(self, layer: Labels) -> tuple[object, ...]:
        """Return what tells strokes, and what they would teach, from others."""
        pixels = np.ascontiguousarray(layer.data)
        names = tuple(spec.name for spec in self.classes.all)
        path = self.bench.session.store_path
        return id(layer), zlib.crc32(pixels.data), names, path

    # --- strokes that contradict --------------------------------------------------

    def go_to_odd(self, index: int) -> None:
        """Look at a stroke that the others contradict."""
        session, layer = self.bench.session, self.bench.slide_layer
        score = None if session.taught is None else session.taught.score
        if score is None or session.live is None or layer is None:
            return
        if not 0 <= index < len(score.contradictions):
            return
        odd = score.contradictions[index]
        height, width = (ODD_CELLS * side for side in session.live.grid.cell_size)
        around = Region(
            y=odd.y - height / 2, x=odd.x - width / 2, height=height, width=width
        )
        go_to(self.bench.viewer, layer, around, ODD_SHARE)

    # --- saving -------------------------------------------------------------------

    def ask_folder(self) -> None:
        """Let the person name the new student's folder."""
        title = "Save as model: name a folder"
        path = ask_new_file(title, self.panel, "my-model")
        if path is not None:
            self.save(path)

    def save(self, folder: Path) -> None:
        """Save what was taught as a bundle."""
        session = self.bench.session
        if session.student is None or session.taught is None or session.why_not_save:
            self.panel.say(session.why_not_save)
            return
        self.saving.emit(session.slide)
        self.bench.pump.start(
            save_work(
                session.student,
                session.taught,
                folder,
                title=self.panel.saving.model.title,
                mode=session.mode,
            ),
            key=ExploreJob.SAVING,
            on_reports=partial(self._saved, session.slide),
            on_end=partial(self._saving_ended, session.slide),
        )

    def _saved(self, slide: Slide | None, reports: list[StudentSaved]) -> None:
        folder = reports[-1].folder
        self._say_of(slide, f"Saved: {folder.name}.")
        self.saved.emit(folder, slide)

    def _saving_ended(self, slide: Slide | None, job: Job[object]) -> None:
        if job.state is JobState.FAILED:
            self._say_of(slide, job.error)
        self.bench.changed.emit()

    def _say_of(self, slide: Slide | None, sentence: str) -> None:
        """Say something of a slide that may have been left since."""
        if slide is None or slide is self.bench.session.slide:
            self.panel.say(sentence)
        else:
            self.bench.said.emit(f"{slide.name}: {sentence}")

    def _ended(self, job: Job[object]) -> None:
        if job.state is JobState.FAILED:
            self.panel.say(job.error)
        self.bench.changed.emit()

    # --- drawing ------------------------------------------------------------------

    def show(self) -> None:
        """Draw the panel, and learn what had to wait."""
        session = self.bench.session
        self._follow(self.layer)
        self._take_colors()
        self._wait_for_run()
        if self._waits and not session.why_not_teach:
            self.learn()
        self._was_taught = session.taught is not None
        self.show_painting()
        taught = session.taught
        score = None if taught is None else taught.score
        self.panel.show_score(
            "" if taught is None else f"{taught.summary()}{self._left_out}",
            "" if score is None else score.details(),
        )
        odd = () if score is None else score.contradictions
        self.panel.show_odd(
            [stroke.in_words() for stroke in odd],
            tried=score is not None and score.share is not None,
        )
        painted = self._painted()
        self.panel.explain(
            paint=session.why_not_paint,
            ask=session.why_not_ask,
            remove=self.classes.why_not_remove(painted),
            annotations=session.why_not_paint,
            export="" if painted else NO_STROKES,
            save=session.why_not_save,
        )

    def _wait_for_run(self) -> None:
        """Have strokes learned again once there is a map in place of the taught one."""
        session = self.bench.session
        was_taught = (self._was_taught and session.taught is None) or self._is_learning
        if was_taught and (session.runs_here or session.live is None):
            self._is_learning = False
            self._waits, self._learned_mark = True, None
            self.panel.hint(NO_MAP_YET)

    def _show_classes(self) -> None:
        self.panel.show_classes(self.classes.all, self.classes.current)

    def _show_colors(self) -> None:
        """Draw all strokes in the classes' colours."""
        self._show_classes()
        for layer in self._all_layers():
            layer.colormap = class_colors(self.classes.all)

    def _take_colors(self) -> None:
        """Take colours over that were chosen in the legend."""
        taught = self.bench.session.taught
        if taught is None:
            return
        mine, changed = self.classes.all, False
        for k, spec in zip(taught.kinds, taught.classes, strict=True):
            if k < len(mine) and mine[k].name == spec.name and mine[k] != spec:
                self.classes.recolour(k, spec.color)
                changed = True
        if changed:
            self._show_colors()

    # --- the layer ----------------------------------------------------------------

    def _follow(self, layer: Labels | None) -> None:
        """Listen to the layer that is painted on now."""
        before = self._followed
        if layer is before:
            return
        if layer is not None:
            self._labels.pop(layer, None)
        self._followed = layer
        if before is not None:
            self.panel.say("")
            before.events.paint.disconnect(self._painted_on)
            before.events.data.disconnect(self._painted_on)
            before.events.set_data.disconnect(self._painted_on)
            before.events.mode.disconnect(self.show_painting)
            before.events.selected_label.disconnect(self._label_chosen)
        self._was_taught = self._waits = self._is_learning = False
        if layer is None:
            return
        layer.events.paint.connect(self._painted_on)
        layer.events.data.connect(self._painted_on)
        layer.events.set_data.connect(self._painted_on)  # undo, and code of others
        layer.events.mode.connect(self.show_painting)
        layer.events.selected_label.connect(self._label_chosen)
        if self.bench.session.taught is None and layer.data.any():
            self._waits, self._learned_mark = True, None
        else:
            self._learned_mark = self._mark(layer)

    def _painted_on(self, _event: Event | None = None) -> None:
        if self._followed is not None:
            self._labels.pop(self._followed, None)
        self._settle.start()

    def _label_chosen(self, _event: Event | None = None) -> None:
        """Follow a label that was chosen in napari's own controls."""
        layer = self._followed
        index = -1 if layer is None else int(layer.selected_label) - 1
        if 0 <= index < len(self.classes.all) and index != self.classes.current:
            self.classes.choose(index)
            self._show_classes()

    def _all_layers(self) -> list[Labels]:
        """Return the strokes on this slide and on those looked at before."""
        return [
            layer
            for layer in self.bench.viewer.layers
            if layer.metadata.get(OVERLAY_MARK) == OverlayKind.STROKES
        ]

    def _painted(self) -> set[int]:
        """Return the labels that are painted on any slide."""
        found: set[int] = set()
        for layer in self._all_layers():
            if layer not in self._labels:
                self._labels[layer] = set(np.unique(layer.data[layer.data > 0]))
            found |= self._labels[layer]
        return found
