"""Laying the partner on the H&E: step 2 of *Distil a student*."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import QObject
from qtpy.QtWidgets import QFileDialog

from napari_histodistill.distill.registration import (
    FEWEST,
    apply,
    inverse,
    read_registration,
    write_registration,
)
from napari_histodistill.widgets.distil_bench import DistilBench
from napari_histodistill.widgets.distil_layers import channels_of, lay_on, own_to_world
from napari_histodistill.widgets.distil_panel import AlignStep
from napari_histodistill.widgets.landmarks import Landmarks
from napari_histodistill.widgets.parts import explain

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
        self._timer = bench.timer(FLICKER_MS, self._flick)
        self._shown: list[tuple[Any, bool]] = []
        step.pick.toggled.connect(self.pick)
        step.kind.activated.connect(lambda _index: self._refit())
        step.remove.clicked.connect(self.remove_worst)
        step.save.clicked.connect(lambda: self.save())
        step.load.clicked.connect(lambda: self.load())
        step.flicker.toggled.connect(self.flicker)
        self.landmarks.changed.connect(self._landmarks_changed)

    @property
    def place(self) -> int | None:
        """Which partner is aligned."""
        pixels = [p.slide is not None for p in self.bench.session.partners]
        return pixels.index(True) if True in pixels else None

    @property
    def layer(self) -> Any:
        """Its layer."""
        return None if self.place is None else self.bench.partner_layers[self.place]

    def close(self) -> None:
        """Let go of the viewer."""
        self._timer.stop()
        self.landmarks.close()

    def pick(self, on: bool) -> None:
        """Begin or end picking landmarks."""
        if on and self.layer is not None:
            self.landmarks.start(self.bench.sparse_layer, self.layer)
        else:
            self.landmarks.stop()
            self._lay()
        self.bench.changed.emit()

    def fit(self) -> None:
        """Fit the landmarks that are there."""
        bench, place = self.bench, self.place
        here, there = self.landmarks.pairs()
        kind = self.step.kind.currentData()
        if place is None or bench.session.sparse is None or len(here) < FEWEST[kind]:
            return
        slide = bench.session.partners[place].slide
        assert slide is not None
        sparse = own_to_world(bench.sparse_layer, bench.session.sparse.usable_mpp)
        dense = own_to_world(self.layer, slide.usable_mpp)

        def register() -> None:
            bench.session.register(
                place,
                apply(inverse(sparse), here),
                apply(inverse(dense), there),
                kind,
            )

        if bench.attempt(register):
            bench.said.emit("")
            # Not while somebody clicks: a layer that moves under the mouse confuses.
            if not self.landmarks.active:
                self._lay()

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
            self._lay()
        self.bench.changed.emit()

    def flicker(self, on: bool) -> None:
        """Show the partner now and then, or always."""
        if on and self.layer is not None:
            self._shown = [
                (x, x.visible) for x in channels_of(self.bench.viewer, self.layer)
            ]
            self._timer.start()
        else:
            self._timer.stop()
            for layer, visible in self._shown:
                layer.visible = visible
            self._shown = []

    def show(self) -> None:
        """Draw the step."""
        session, step, place = self.bench.session, self.step, self.place
        step.say(session.say_alignment(0 if place is None else place))
        step.ask(self._task())
        why = "" if place is not None else "No partner with pixels is chosen."
        explain(step.pick, step.pick_tip, why)
        step.flicker.setEnabled(not why)
        step.load.setEnabled(not why)
        known = self._known() is not None
        step.save.setEnabled(known)
        step.remove.setEnabled(known and bool(len(self.landmarks.pairs()[0])))

    def _known(self) -> Any:
        place = self.place
        return (
            None if place is None else self.bench.session.partners[place].registration
        )

    def _lay(self) -> None:
        bench, place = self.bench, self.place
        if place is not None and bench.session.sparse is not None:
            partner = bench.session.partners[place]
            sparse = bench.sparse_layer, bench.session.sparse
            lay_on(bench.viewer, self.layer, partner, *sparse)

    def _refit(self) -> None:
        self.fit()
        self.bench.changed.emit()

    def _landmarks_changed(self) -> None:
        self._refit()

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
