"""Step 2 of *Distil a student*, wired: landmarks and looks, and the refinement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image, Layer
from qtpy.QtCore import QSignalBlocker, Signal

from napari_histodistill.controllers.distil.align.alignment import (
    NO_PIXELS,
    judged,
    why_no_alignment,
)
from napari_histodistill.controllers.distil.partners import Partner
from napari_histodistill.errors import InputError
from napari_histodistill.widgets.distil.align.checkerboard import CheckerView
from napari_histodistill.widgets.distil.align.files import FileLoading
from napari_histodistill.widgets.distil.align.finding import Finding
from napari_histodistill.widgets.distil.align.fitting import LandmarkFitting
from napari_histodistill.widgets.distil.align.landmarks import sections
from napari_histodistill.widgets.distil.align.pair import AlignedPair
from napari_histodistill.widgets.distil.align.refining import Refining
from napari_histodistill.widgets.distil.bench import DistilBench, Turns
from napari_histodistill.widgets.distil.layers import (
    channels_of,
)
from napari_histodistill.widgets.distil.steps import About, AlignStep
from napari_histodistill.widgets.shared.controls import explain

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.distill.sections.alignment import SectionAlignment

    Doubles = npt.NDArray[np.float64]
    BothSides = tuple[Doubles, Doubles]

FLICKER_MS = 600


class Aligning(AlignedPair):
    """Landmarks, the transform they decide, and how the partner then lies.

    They are for the first partner that has pixels.
    """

    saved = Signal()

    def __init__(self, bench: DistilBench, step: AlignStep) -> None:
        super().__init__(bench, step)
        self.checker = CheckerView(bench)
        self.files = FileLoading(self, self.put_pixels, self._refit)
        self.refining = Refining(self)
        self.fitting = LandmarkFitting(self, self.refining)
        self.finding = Finding(self, self.fitting, self.refining)
        self._timer = bench.timer(FLICKER_MS, self._flick)
        self._turns = Turns(self)
        self._shown: list[tuple[Layer, bool]] = []
        self._drawn: Partner | None = None
        self._away = True  # no pair is chosen
        step.pick.toggled.connect(self.pick)
        step.kind.activated.connect(lambda _index: self._refit())
        step.remove.clicked.connect(self.remove_worst)
        step.save.clicked.connect(lambda: self.files.save())
        step.load.clicked.connect(lambda: self.files.load())
        step.flicker.toggled.connect(self.flicker)
        step.checker.toggled.connect(self.check)
        step.square.valueChanged.connect(self.checker.set_square)
        step.refine.clicked.connect(self.refining.press)
        step.find.clicked.connect(self.finding.press)
        step.undo.clicked.connect(self.finding.undo)
        step.turn.clicked.connect(self.finding.turn)
        step.residuals.picked.connect(self.landmarks.go_to)
        self.files.saved.connect(self.saved)
        self.checker.closed.connect(lambda: step.checker.setChecked(False))
        step.checker.toggled.connect(step.square.setEnabled)
        self.checker.described.connect(step.seen.say)
        self.landmarks.changed.connect(self._refit)

    def close(self) -> None:
        """Let go of the viewer."""
        self._timer.stop()
        self._turns.stop()
        self.checker.stop()
        self.landmarks.close()

    def put_away(self) -> None:
        """End what shows both layers in turn: the H&E is looked at alone."""
        for button in (self.step.pick, self.step.flicker, self.step.checker):
            button.setChecked(False)

    def pick(self, on: bool) -> None:
        """Begin or end picking landmarks."""
        sparse, layer = self.bench.sparse_layer, self.layer
        if on and sparse is not None and layer is not None:
            self.step.flicker.setChecked(False)
            self.step.checker.setChecked(False)
            parts = self.landmarks.prepare(sparse, layer)
            if parts:
                self._turns.start(*parts, self._ask)
            else:
                self.landmarks.ask()
        else:
            self.landmarks.stop()
            self._lay_if_registered()
        self.bench.changed.emit()

    def _ask(self) -> None:
        """Ask for landmarks, if they are still wanted."""
        if self.step.pick.isChecked():
            self.landmarks.ask()
            self.bench.changed.emit()

    @property
    def sections(self) -> tuple[str, str] | None:
        """Digests of the chosen pair; None without one, or where one is no slide's."""
        both = self.both()
        return None if both is None else sections(both)

    def everything(
        self,
    ) -> list[tuple[tuple[str, str] | None, BothSides, SectionAlignment | None]]:
        """Return sections, landmarks (px) and alignment of all known pairs."""
        marks = self.landmarks
        found: list[
            tuple[tuple[str, str] | None, BothSides, SectionAlignment | None]
        ] = [
            (record.sections, record.pixels, marks.laid.get(record.sections))
            for record in marks.records
            if record.sections is not None
        ]
        both = self.both()
        if both is not None and marks.are_of(*both):
            found.append((sections(both), marks.pixels(), self.alignment))
        return found

    def put_pixels(self, pixels: BothSides, alignment: SectionAlignment | None) -> None:
        """Show landmarks of the chosen pair again, and lay the partner as it was.

        Raises
        ------
        InputError
            If no partner with pixels is chosen any more.
        """
        both, place = self.both(), self.bench.session.aligned
        if both is None or place is None:
            raise InputError(NO_PIXELS)
        self.step.pick.setChecked(False)
        self.landmarks.put(*both, pixels)
        self.fitting.forget()
        self.refining.forget()
        self.finding.forget()
        if alignment is not None:
            self.bench.session.put_alignment(place, alignment)
            self.lay()

    def keep_landmarks(self, pixels: BothSides) -> None:
        """Put landmarks back where they were in the layers' pixels, and fit them."""
        both = self.both()
        if both is not None and len(pixels[0]):
            self.landmarks.put(*both, pixels)
            self._refit()

    def remove_worst(self) -> None:
        """Remove the landmark that fits worst."""
        known = judged(self.partner, len(self.landmarks.pairs()[0]))
        if known is not None and known.worst is not None:
            self.landmarks.remove(known.worst)

    def flicker(self, on: bool) -> None:
        """Blink the partner, or show it steadily."""
        if on and self.layer is not None:
            self.step.checker.setChecked(False)
            self._shown = [
                (x, x.visible) for x in channels_of(self.bench.viewer, self.layer)
            ]
            self._timer.start()
        else:
            self._timer.stop()
            for layer, visible in self._shown:
                layer.visible = visible
            self._shown = []

    def check(self, on: bool) -> None:
        """Show or remove the checkerboard."""
        if not on:
            self.checker.stop()
            return
        self.step.flicker.setChecked(False)
        self.checker.start()
        if self.checker.square_um is not None:
            with QSignalBlocker(self.step.square):
                self.step.square.setValue(self.checker.square_um)

    def show(self) -> None:
        """Draw the step."""
        self._follow_choice()
        self.checker.leave_other_slide()
        session, step = self.bench.session, self.step
        step.say(session.say_alignment(session.aligned or 0))
        step.words.tell(About.TASK, self._task())
        why = why_no_alignment(self.partner)
        explain(step.pick, step.pick_tip, why)
        explain(step.flicker, step.flicker_tip, why)
        explain(step.checker, step.checker_tip, why)
        step.load.setEnabled(not why)
        self._show_registration()
        self.fitting.show()
        self.refining.show()
        self.finding.show()
        if self.partner is not self._drawn:
            self._drawn = self.partner
            self.checker.refresh()

    def _follow_choice(self) -> None:
        """Turn to the landmarks of the chosen layers; end what was begun with others.

        A button that is held down for a partner that is gone could not be released.
        """
        both = self.both()
        others = both is not None and self.landmarks.turn_to(*both)
        if both is not None and not others and not self._away:
            self._remember(both)
            return
        self._away = both is None
        self.step.pick.setChecked(False)
        self.step.flicker.setChecked(False)
        if both is not None:
            self._lay_as_before(both)
            if self.known is None:
                self.fitting.fit()  # what was being fitted when the pair was left

    def _remember(self, both: tuple[Image, Layer]) -> None:
        """Note how the partner lies, for when its layer or this panel comes back."""
        # One that is being fitted is fitted again when the pair comes back.
        known = None if self.fitting.active else self.alignment
        key = sections(both)
        if key is not None and known is not None:
            self.landmarks.laid[key] = known
        elif key is not None:
            self.landmarks.laid.pop(key, None)

    def _lay_as_before(self, both: tuple[Image, Layer]) -> None:
        """Lay a partner that came back as it was laid."""
        key, place = sections(both), self.bench.session.aligned
        known = None if key is None else self.landmarks.laid.get(key)
        if known is not None and place is not None and self.known is None:
            self.bench.session.put_alignment(place, known)
            self.lay()

    def _show_registration(self) -> None:
        known, step = self.known, self.step
        count = len(self.landmarks.pairs()[0])
        fits = judged(self.partner, count)
        step.save.setEnabled(known is not None and not self.fitting.active)
        step.remove.setEnabled(fits is not None and bool(count))
        if fits is not None:
            step.residuals.show_residuals(fits.residuals_um, fits.inliers, fits.worst)
        else:
            step.residuals.show_none()

    def _lay_if_registered(self) -> None:
        # A layer without a registration stays where a person may have dragged it.
        if self.known is not None:
            self.lay()

    def _refit(self) -> None:
        self.fitting.fit()
        self.bench.changed.emit()

    def _flick(self) -> None:
        for layer, _ in self._shown:
            layer.visible = not layer.visible

    def _task(self) -> str:
        if self._turns.active:
            return "A moment: the layers for landmarks are made."
        if not self.landmarks.active:
            return ""
        number = len(self.landmarks.pairs()[0]) + 1
        if self.landmarks.turn == 0:
            return f"Click place {number} on the H&E."
        return f"Now click the same place, {number}, on the partner."
