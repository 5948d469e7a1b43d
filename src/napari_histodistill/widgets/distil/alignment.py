"""Step 2 of *Distil a student*: how the partner lies on the H&E, and its refinement."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject
from qtpy.QtWidgets import QFileDialog

from napari_histodistill.controllers.distil.alignment import (
    refine_work,
    refined,
    say_refinement,
    unrefined,
)
from napari_histodistill.controllers.distil.jobs import DistilJob
from napari_histodistill.controllers.distil.pairs import Partner
from napari_histodistill.controllers.shared.job import Job, JobState
from napari_histodistill.distill.layers.refinement import Refinement
from napari_histodistill.distill.layers.registration import (
    FEWEST,
    apply,
    inverse,
    read_registration,
    write_registration,
)
from napari_histodistill.widgets.distil.bench import DistilBench
from napari_histodistill.widgets.distil.checkerboard import CheckerView
from napari_histodistill.widgets.distil.landmarks import Landmarks
from napari_histodistill.widgets.distil.layers import channels_of, lay_on, own_to_world
from napari_histodistill.widgets.distil.steps import AlignStep
from napari_histodistill.widgets.shared.controls import explain

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

FLICKER_MS = 600
FILES = "Alignments (*.json)"


class Aligning(QObject):
    """Landmarks, the transform they decide, and how the partner then lies.

    They are for the first partner that has pixels.
    """

    def __init__(self, bench: DistilBench, step: AlignStep) -> None:
        super().__init__(bench)
        self.bench, self.step = bench, step
        self.landmarks = Landmarks(bench.viewer, self)
        self.checker = CheckerView(bench, lambda: self.place)
        self.refining = Refining(bench, self)
        self._timer = bench.timer(FLICKER_MS, self._flick)
        self._shown: list[tuple[Any, bool]] = []
        self._drawn: Partner | None = None
        step.pick.toggled.connect(self.pick)
        step.kind.activated.connect(lambda _index: self._refit())
        step.remove.clicked.connect(self.remove_worst)
        step.save.clicked.connect(lambda: self.save())
        step.load.clicked.connect(lambda: self.load())
        step.flicker.toggled.connect(self.flicker)
        step.checker.toggled.connect(self.check)
        step.square.valueChanged.connect(self.checker.set_square)
        step.refine.clicked.connect(self.refining.press)
        step.undo.clicked.connect(self.refining.undo)
        step.residuals.picked.connect(self.landmarks.go_to)
        self.checker.closed.connect(lambda: step.checker.setChecked(False))
        step.checker.toggled.connect(step.square.setEnabled)
        self.checker.told.connect(step.tell_seen)
        self.landmarks.changed.connect(self._refit)

    @property
    def place(self) -> int | None:
        """Which partner is aligned."""
        pixels = [p.slide is not None for p in self.bench.session.partners]
        return pixels.index(True) if True in pixels else None

    @property
    def partner(self) -> Partner | None:
        """The partner that is aligned."""
        place = self.place
        return None if place is None else self.bench.session.partners[place]

    @property
    def layer(self) -> Any:
        """Its layer."""
        return None if self.place is None else self.bench.partner_layers[self.place]

    def close(self) -> None:
        """Let go of the viewer."""
        self._timer.stop()
        self.checker.stop()
        self.landmarks.close()

    def pick(self, on: bool) -> None:
        """Begin or end picking landmarks."""
        if on and self.layer is not None:
            self.step.flicker.setChecked(False)
            self.step.checker.setChecked(False)
            self.landmarks.start(self.bench.sparse_layer, self.layer)
        else:
            self.landmarks.stop()
            self._lay_if_registered()
        self.bench.changed.emit()

    def own_landmarks(self) -> tuple[Floats, Floats] | None:
        """Return both sides' landmarks, ``(n, 2)`` µm in either layer's own world."""
        partner, sparse = self.partner, self.bench.session.sparse
        if partner is None or partner.slide is None or sparse is None:
            return None
        if not self.landmarks.are_of(self.bench.sparse_layer, self.layer):
            return None
        here, there = self.landmarks.pairs()
        own = own_to_world(self.bench.sparse_layer, sparse.usable_mpp)
        partners = own_to_world(self.layer, partner.slide.usable_mpp)
        return apply(inverse(own), here), apply(inverse(partners), there)

    def fit(self) -> None:
        """Fit the landmarks that are there."""
        bench, place, kind = self.bench, self.place, self.step.kind.currentData()
        own = self.own_landmarks()
        if place is None or own is None or len(own[0]) < FEWEST[kind]:
            return
        self.refining.forget()
        if bench.attempt(lambda: bench.session.register(place, own[0], own[1], kind)):
            bench.said.emit("")
            # Not while somebody clicks: a layer that moves under the mouse confuses.
            if not self.landmarks.active:
                self.lay()

    def remove_worst(self) -> None:
        """Remove the landmark that fits worst."""
        known = self._known()
        if known is not None and known.worst is not None:
            self.landmarks.remove(known.worst)

    def save(self, path: Path | None = None) -> None:
        """Write the transform; asks for the file where none is given."""
        known = self._known()
        if known is None:
            return
        if path is None:
            chosen, _ = QFileDialog.getSaveFileName(
                self.step, "Save alignment", "alignment.json", FILES
            )
            path = Path(chosen) if chosen else None
        if path is not None:
            target = path
            self.bench.attempt(lambda: write_registration(target, known))

    def load(self, path: Path | None = None) -> None:
        """Read a transform; asks for the file where none is given."""
        if path is None:
            chosen, _ = QFileDialog.getOpenFileName(
                self.step, "Load alignment", "", FILES
            )
            path = Path(chosen) if chosen else None
        place, session, source = self.place, self.bench.session, path
        if source is None or place is None:
            return

        def put() -> None:
            session.put_registration(place, read_registration(source))

        if self.bench.attempt(put):
            self.refining.forget()
            self.lay()
        self.bench.changed.emit()

    def flicker(self, on: bool) -> None:
        """Show the partner now and then, or always."""
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
            self.step.square.blockSignals(True)
            self.step.square.setValue(self.checker.square_um)
            self.step.square.blockSignals(False)

    def lay(self) -> None:
        """Move the partner's layer, and its landmarks, to where the session says."""
        bench, partner, sparse = self.bench, self.partner, self.bench.session.sparse
        if partner is None or partner.slide is None or sparse is None:
            return
        before = own_to_world(self.layer, partner.slide.usable_mpp)
        lay_on(bench.viewer, self.layer, partner, bench.sparse_layer, sparse)
        after = own_to_world(self.layer, partner.slide.usable_mpp)
        self.landmarks.follow(after @ inverse(before))

    def show(self) -> None:
        """Draw the step."""
        self._follow_choice()
        session, step, place = self.bench.session, self.step, self.place
        step.say(session.say_alignment(0 if place is None else place))
        step.ask(self._task())
        why = "" if place is not None else "No partner with pixels is chosen."
        explain(step.pick, step.pick_tip, why)
        explain(step.flicker, step.flicker_tip, why)
        explain(step.checker, step.checker_tip, why)
        step.load.setEnabled(not why)
        self._show_registration()
        self.refining.show()
        if self.partner is not self._drawn:
            self._drawn = self.partner
            self.checker.refresh()

    def _follow_choice(self) -> None:
        """Turn to the landmarks of the chosen layers; end what was begun with others.

        A button that is held down for a partner that is gone could not be released.
        """
        sparse, layer = self.bench.sparse_layer, self.layer
        if layer is not None and not self.landmarks.turn_to(sparse, layer):
            return
        self.step.pick.setChecked(False)
        self.step.flicker.setChecked(False)

    def _show_registration(self) -> None:
        known, step = self._known(), self.step
        count = len(self.landmarks.pairs()[0])
        here = known is not None and len(known.residuals_um) == count
        step.save.setEnabled(known is not None)
        step.remove.setEnabled(here and bool(count))
        if here:
            step.residuals.show_residuals(
                known.residuals_um, known.inliers, known.worst
            )
        else:
            step.residuals.show_residuals((), (), None)

    def _known(self) -> Any:
        return None if self.partner is None else self.partner.registration

    def _lay_if_registered(self) -> None:
        # A layer that nobody registered stays where somebody may have dragged it.
        if self._known() is not None:
            self.lay()

    def _refit(self) -> None:
        self.fit()
        self.bench.changed.emit()

    def _flick(self) -> None:
        for layer, _ in self._shown:
            layer.visible = not layer.visible

    def _task(self) -> str:
        if not self.landmarks.active:
            return ""
        number = len(self.landmarks.pairs()[0]) + 1
        if self.landmarks.turn == 0:
            return f"Click place {number} on the H&E."
        return f"Now click the same place, {number}, on the partner."


class Refining(QObject):
    """Refines how the partner lies, off the GUI thread; part of :class:`Aligning`."""

    def __init__(self, bench: DistilBench, aligning: Aligning) -> None:
        super().__init__(bench)
        self._bench, self._aligning = bench, aligning
        self._share = 0.0
        self._found: Refinement | None = None
        self._started: Partner | None = None
        self._told_of = ""

    @property
    def active(self) -> bool:
        """Whether it is going on."""
        return bool(self._bench.pump.is_active(DistilJob.REFINING))

    def press(self) -> None:
        """Start, or cancel what is going on."""
        if self.active:
            self._bench.pump.cancel(DistilJob.REFINING)
            return
        bench, partner = self._bench, self._aligning.partner
        if partner is None or bench.session.sparse is None:
            return
        self.forget()
        self._share, self._started, self._told_of = 0.0, partner, partner.name
        kind = self._aligning.step.kind.currentData()
        if partner.registration is not None:
            kind = partner.registration.kind
        bench.said.emit("")
        bench.pump.start(
            refine_work(
                bench.session.sparse, partner, kind, self._aligning.own_landmarks()
            ),
            key=DistilJob.REFINING,
            on_reports=self._reported,
            on_end=self._ended,
        )
        bench.changed.emit()

    def undo(self) -> None:
        """Lay the partner as it was before."""
        place, partner = self._aligning.place, self._aligning.partner
        if place is None or partner is None or partner.refinement is None:
            return
        self._bench.session.put_partner(place, unrefined(partner))
        self._aligning.lay()
        self._found = None
        self._bench.changed.emit()

    def forget(self) -> None:
        """Take back what was said, and what is going on: something else was chosen."""
        self._found = None
        self._bench.pump.abandon(DistilJob.REFINING)

    def show(self) -> None:
        """Draw the buttons and the words."""
        step, partner = self._aligning.step, self._aligning.partner
        step.refine.setText("Cancel" if self.active else "Refine")
        why = ""
        if partner is None:
            why = "No partner with pixels is chosen."
        elif self._aligning.landmarks.active:
            why = "Finish picking landmarks first."
        explain(step.refine, step.refine_tip, why)
        step.undo.setVisible(partner is not None and partner.refinement is not None)
        if self.active:
            step.tell_found(f"Comparing both layers… {self._share:.0%}")
        else:
            step.tell_found(self._words())

    def _words(self) -> str:
        found, partner = self._found, self._aligning.partner
        if found is None or partner is None or partner.name != self._told_of:
            return ""
        if found.accepted:
            stands = partner.refinement is found
        else:
            stands = partner.registration is found.before
        return say_refinement(found) if stands else ""

    def _reported(self, reports: list[Refinement | float]) -> None:
        last = reports[-1]
        if isinstance(last, Refinement):
            self._found = last
        else:
            self._share = last
        self.show()

    def _ended(self, job: Job[Any]) -> None:
        bench, place = self._bench, self._aligning.place
        found, partner = self._found, self._started
        if job.state is JobState.FAILED:
            bench.said.emit(job.error)
        elif place is None or partner is None or partner is not self._aligning.partner:
            self._found = None  # of a partner, or a place, that is no longer there
        elif found is not None and found.accepted:
            bench.session.put_partner(place, refined(partner, found))
            self._aligning.lay()
        self._started = None
        bench.changed.emit()
