"""Step 2 of *Distil a student*, wired: landmarks and looks, and the refinement."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image, Layer
from qtpy.QtCore import QObject, QSignalBlocker, Signal

from napari_histodistill.controllers.distil.alignment import (
    NO_PIXELS,
    TurnOffer,
    are_enough,
    judged,
    kind_to_refine,
    mirror_offer,
    pose_work,
    refine_work,
    say_refinement,
    still_stands,
    turn_offer,
    wants_pose,
    why_no_alignment,
    why_no_refining,
)
from napari_histodistill.controllers.distil.jobs import DistilJob
from napari_histodistill.controllers.distil.partners import Partner
from napari_histodistill.controllers.shared.job import Job, JobState
from napari_histodistill.distill.layers.poses import PoseSearch
from napari_histodistill.distill.layers.refinement import Refinement
from napari_histodistill.distill.layers.registration import (
    LandmarkPairs,
    Registration,
    apply,
    inverse,
    read_alignment,
    write_registration,
)
from napari_histodistill.errors import InputError
from napari_histodistill.widgets.distil.bench import SAME, DistilBench
from napari_histodistill.widgets.distil.align.checkerboard import CheckerView
from napari_histodistill.widgets.distil.align.landmarks import Landmarks, sections
from napari_histodistill.widgets.distil.layers import (
    channels_of,
    lay_on,
    own_to_world,
    show_same,
)
from napari_histodistill.widgets.distil.steps import AlignStep
from napari_histodistill.widgets.shared.controls import explain
from napari_histodistill.widgets.shared.forms import ask_file, ask_new_file

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.slides import Slide

    Doubles = npt.NDArray[np.float64]
    WeakSlide = weakref.ref[Slide]
    BothSides = tuple[Doubles, Doubles]

FLICKER_MS = 600
FILES = "Alignments (*.json)"


class Aligning(QObject):
    """Landmarks, the transform they decide, and how the partner then lies.

    They are for the first partner that has pixels.
    """

    saved = Signal()

    def __init__(self, bench: DistilBench, step: AlignStep) -> None:
        super().__init__(bench)
        self.bench, self.step = bench, step
        self.landmarks = Landmarks(bench.viewer, self)
        self.checker = CheckerView(bench)
        self.refining = Refining(bench, self)
        self.turning = Turning(bench, self)
        self._timer = bench.timer(FLICKER_MS, self._flick)
        self._shown: list[tuple[Layer, bool]] = []
        self._drawn: Partner | None = None
        self._away = True  # no pair is chosen
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
        step.turn.clicked.connect(self.turning.turn)
        step.turn_back.clicked.connect(self.turning.turn_back)
        step.residuals.picked.connect(self.landmarks.go_to)
        self.checker.closed.connect(lambda: step.checker.setChecked(False))
        step.checker.toggled.connect(step.square.setEnabled)
        self.checker.described.connect(step.seen.say)
        self.landmarks.changed.connect(self._refit)

    @property
    def partner(self) -> Partner | None:
        """The partner that is aligned."""
        return self.bench.session.aligned_partner

    @property
    def layer(self) -> Layer | None:
        """Its layer."""
        place = self.bench.session.aligned
        layer = None if place is None else self.bench.partner_layers[place]
        return None if layer is SAME else layer

    def close(self) -> None:
        """Let go of the viewer."""
        self._timer.stop()
        self.checker.stop()
        self.landmarks.close()

    def pick(self, on: bool) -> None:
        """Begin or end picking landmarks."""
        sparse, layer = self.bench.sparse_layer, self.layer
        if on and sparse is not None and layer is not None:
            self.step.flicker.setChecked(False)
            self.step.checker.setChecked(False)
            self.landmarks.start(sparse, layer)
        else:
            self.landmarks.stop()
            self._lay_if_registered()
        self.bench.changed.emit()

    def own_landmarks(self) -> tuple[Doubles, Doubles] | None:
        """Return both sides' landmarks, ``(n, 2)`` µm in either layer's own world."""
        both = self._both()
        if both is None or not self.landmarks.are_of(*both):
            return None
        sparse, partner = self.bench.session.sparse, self.partner
        assert sparse is not None
        assert partner is not None
        assert partner.slide is not None
        here, there = self.landmarks.pairs()
        own = own_to_world(both[0], sparse.usable_mpp)
        partners = own_to_world(both[1], partner.slide.usable_mpp)
        return apply(inverse(own), here), apply(inverse(partners), there)

    @property
    def sections(self) -> tuple[str, str] | None:
        """Digests of the chosen pair; None without one, or where one is no slide's."""
        both = self._both()
        return None if both is None else sections(both)

    def everything(
        self,
    ) -> list[tuple[tuple[str, str] | None, BothSides, Registration | None]]:
        """Return sections, landmarks (px) and registration of all known pairs."""
        marks = self.landmarks
        found: list[tuple[tuple[str, str] | None, BothSides, Registration | None]] = [
            (record.sections, record.pixels, marks.laid.get(record.sections))
            for record in marks.records
            if record.sections is not None
        ]
        both = self._both()
        if both is not None and marks.are_of(*both):
            found.append((sections(both), marks.pixels(), self.known))
        return found

    def put_pixels(self, pixels: BothSides, registration: Registration | None) -> None:
        """Show landmarks of the chosen pair again, and lay the partner as it was.

        Raises
        ------
        InputError
            If no partner with pixels is chosen any more.
        """
        both, place = self._both(), self.bench.session.aligned
        if both is None or place is None:
            raise InputError(NO_PIXELS)
        self.step.pick.setChecked(False)
        self.landmarks.put(*both, pixels)
        self.refining.forget()
        if registration is not None:
            self.bench.session.put_registration(place, registration)
            self.lay()

    def _measured(self) -> LandmarkPairs | None:
        """Return the landmarks in µm and pixels; None without any."""
        own, partner = self.own_landmarks(), self.partner
        sparse = self.bench.session.sparse
        if own is None or partner is None or partner.slide is None or sparse is None:
            return None
        if not len(own[0]):
            return None
        return LandmarkPairs.measured(*own, _mpp_of(sparse), _mpp_of(partner.slide))

    def fit(self) -> None:
        """Fit the landmarks that are there."""
        bench, kind = self.bench, self.step.kind.currentData()
        place, own = bench.session.aligned, self.own_landmarks()
        if place is None or own is None or not are_enough(len(own[0]), kind):
            return
        self.refining.forget()
        if bench.attempt(lambda: bench.session.register(place, own[0], own[1], kind)):
            bench.said.emit("")
            # Not during picking: a layer that moves under the mouse confuses.
            if not self.landmarks.active:
                self.lay()

    def remove_worst(self) -> None:
        """Remove the landmark that fits worst."""
        known = self.known
        if known is not None and known.worst is not None:
            self.landmarks.remove(known.worst)

    def save(self, path: Path | None = None) -> None:
        """Write the transform; asks for the file where none is given."""
        known = self.known
        if known is None:
            return
        if path is None:
            path = ask_new_file("Save alignment", self.step, "alignment.json", FILES)
        if path is not None:
            target, places = path, self._measured()
            if self.bench.attempt(lambda: write_registration(target, known, places)):
                self.saved.emit()

    def load(self, path: Path | None = None) -> None:
        """Read a transform; asks for the file where none is given."""
        if path is None:
            path = ask_file("Load alignment", self.step, FILES)
        session, source = self.bench.session, path
        place = session.aligned
        if source is None or place is None:
            return

        def put() -> None:
            registration, places = read_alignment(source)
            # Without landmarks (an older file), those that are shown stay.
            pixels = self.landmarks.pixels() if places is None else self._pixels(places)
            self.put_pixels(pixels, registration)

        self.bench.attempt(put)
        self.bench.changed.emit()

    def _pixels(self, places: LandmarkPairs) -> BothSides:
        """Return landmarks in the layers' pixels: µm are what a registration is of."""
        sparse, partner = self.bench.session.sparse, self.partner
        assert sparse is not None
        assert partner is not None
        assert partner.slide is not None
        return (
            places.sparse_um / _mpp_of(sparse),
            places.dense_um / _mpp_of(partner.slide),
        )

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

    def lay(self) -> None:
        """Move the partner's layer, and its landmarks, to where the session says."""
        both, sparse, partner = self._both(), self.bench.session.sparse, self.partner
        if both is None or sparse is None or partner is None or partner.slide is None:
            return
        he, layer = both
        before = own_to_world(layer, partner.slide.usable_mpp)
        lay_on(self.bench.viewer, layer, partner, he, sparse)
        after = own_to_world(layer, partner.slide.usable_mpp)
        self.landmarks.follow(after @ inverse(before))

    def show(self) -> None:
        """Draw the step."""
        self._follow_choice()
        session, step = self.bench.session, self.step
        step.say(session.say_alignment(session.aligned or 0))
        step.task.say(self._task())
        why = why_no_alignment(self.partner)
        explain(step.pick, step.pick_tip, why)
        explain(step.flicker, step.flicker_tip, why)
        explain(step.checker, step.checker_tip, why)
        step.load.setEnabled(not why)
        self._show_registration()
        self.refining.show()
        self.turning.show()
        if self.partner is not self._drawn:
            self._drawn = self.partner
            self.checker.refresh()

    def _follow_choice(self) -> None:
        """Turn to the landmarks of the chosen layers; end what was begun with others.

        A button that is held down for a partner that is gone could not be released.
        """
        both = self._both()
        others = both is not None and self.landmarks.turn_to(*both)
        if both is not None and not others and not self._away:
            self._remember(both)
            return
        self._away = both is None
        self.step.pick.setChecked(False)
        self.step.flicker.setChecked(False)
        if both is not None:
            self._lay_as_before(both)

    def _remember(self, both: tuple[Image, Layer]) -> None:
        """Note how the partner lies, for when its layer or this panel comes back."""
        known, key = self.known, sections(both)
        if key is not None and known is not None:
            self.landmarks.laid[key] = known
        elif key is not None:
            self.landmarks.laid.pop(key, None)

    def _lay_as_before(self, both: tuple[Image, Layer]) -> None:
        """Lay a partner that came back as it was laid."""
        key, place = sections(both), self.bench.session.aligned
        known = None if key is None else self.landmarks.laid.get(key)
        if known is not None and place is not None and self.known is None:
            self.bench.session.put_registration(place, known)
            self.lay()

    def _show_registration(self) -> None:
        known, step = self.known, self.step
        count = len(self.landmarks.pairs()[0])
        fits = judged(self.partner, count)
        step.save.setEnabled(known is not None)
        step.remove.setEnabled(fits is not None and bool(count))
        if fits is not None:
            step.residuals.show_residuals(fits.residuals_um, fits.inliers, fits.worst)
        else:
            step.residuals.show_none()

    def _both(self) -> tuple[Image, Layer] | None:
        """Return the layers of the H&E and of the partner that is aligned."""
        sparse, layer = self.bench.sparse_layer, self.layer
        return None if sparse is None or layer is None else (sparse, layer)

    @property
    def known(self) -> Registration | None:
        """The registration of the partner that is aligned."""
        return None if self.partner is None else self.partner.registration

    def _lay_if_registered(self) -> None:
        # A layer without a registration stays where a person may have dragged it.
        if self.known is not None:
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


class Turning(QObject):
    """Offers to lay the partner turned or mirrored; part of :class:`Aligning`.

    By what both layers show, as long as nobody has aligned them, or by landmarks.
    """

    def __init__(self, bench: DistilBench, aligning: Aligning) -> None:
        super().__init__(bench)
        self._bench, self._aligning = bench, aligning
        # Not the slides themselves: they are closed with their layers.
        self._looked: tuple[WeakSlide, WeakSlide, Doubles] | None = None
        self._seen: TurnOffer | None = None
        self._taken: tuple[Registration, Registration | None] | None = None

    @property
    def offer(self) -> TurnOffer | None:
        """What is offered now."""
        partner = self._aligning.partner
        if wants_pose(self._bench.session.sparse, partner):
            return self._seen if self._is_of_these() else None
        return mirror_offer(partner, self._aligning.own_landmarks())

    def turn(self) -> None:
        """Lay the partner as offered."""
        offer, place = self.offer, self._bench.session.aligned
        if offer is None or place is None:
            return
        self._taken = offer.registration, self._aligning.known
        self._put(place, offer.registration)

    def turn_back(self) -> None:
        """Lay the partner as before."""
        place = self._bench.session.aligned
        if self._taken is not None and place is not None:
            before, self._taken = self._taken[1], None
            self._put(place, before)

    def show(self) -> None:
        """Draw the offer; look at the layers if nobody has yet."""
        self._look()
        offer, taken = self.offer, self._taken
        turned = taken is not None and taken[0] is self._aligning.known
        self._aligning.step.show_offer(
            "" if offer is None else offer.words, can_turn_back=turned
        )

    def _put(self, place: int, registration: Registration | None) -> None:
        self._aligning.refining.forget()
        self._bench.session.put_registration(place, registration)
        self._aligning.lay()
        self._bench.changed.emit()

    def _look(self) -> None:
        sparse, partner = self._bench.session.sparse, self._aligning.partner
        if not wants_pose(sparse, partner) or self._is_of_these():
            return
        assert sparse is not None
        assert partner is not None
        assert partner.slide is not None
        slides = weakref.ref(sparse), weakref.ref(partner.slide)
        self._looked = *slides, partner.lies[:2, :2]
        self._seen = None
        self._bench.pump.start(
            pose_work(sparse, partner),
            key=DistilJob.TURNING,
            on_reports=self._reported,
            on_end=lambda _job: self._bench.changed.emit(),
        )

    def _is_of_these(self) -> bool:
        partner, looked = self._aligning.partner, self._looked
        return (
            looked is not None
            and partner is not None
            and looked[0]() is self._bench.session.sparse
            and looked[1]() is partner.slide
            and np.allclose(looked[2], partner.lies[:2, :2])
        )

    def _reported(self, reports: list[PoseSearch]) -> None:
        self._seen = turn_offer(reports[-1])


def _mpp_of(slide: Slide) -> tuple[float, float]:
    """Return µm per pixel ``(y, x)``; 1 where nobody knows, as layers are laid by."""
    mpp = slide.usable_mpp
    return (1.0, 1.0) if mpp is None else (mpp.y, mpp.x)


class Refining(QObject):
    """Refines how the partner lies, off the GUI thread; part of :class:`Aligning`."""

    def __init__(self, bench: DistilBench, aligning: Aligning) -> None:
        super().__init__(bench)
        self._bench, self._aligning = bench, aligning
        self._share = 0.0
        self._found: Refinement | None = None
        self._started: Partner | None = None
        self._of: weakref.ref[Layer] | None = None

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
        self._share, self._started = 0.0, partner
        layer = self._aligning.layer
        self._of = None if layer is None else weakref.ref(layer)
        kind = kind_to_refine(partner, self._aligning.step.kind.currentData())
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
        if not self._bench.session.undo_refinement():
            return
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
        why = why_no_refining(partner, picking=self._aligning.landmarks.active)
        explain(step.refine, step.refine_tip, why)
        step.undo.setVisible(partner is not None and partner.refinement is not None)
        if self.active:
            step.found.say(f"Comparing both layers… {self._share:.0%}")
        else:
            step.found.say(self._words())

    def _words(self) -> str:
        found, aligning = self._found, self._aligning
        partner, layer = aligning.partner, aligning.layer
        of = None if self._of is None else self._of()
        if found is None or partner is None or layer is None or of is None:
            return ""
        stands = show_same(layer, of) and still_stands(partner, found)
        return say_refinement(found) if stands else ""

    def _reported(self, reports: list[Refinement | float]) -> None:
        last = reports[-1]
        if isinstance(last, Refinement):
            self._found = last
        else:
            self._share = last
        self.show()

    def _ended(self, job: Job[Refinement | float]) -> None:
        bench, found, started = self._bench, self._found, self._started
        if job.state is JobState.FAILED:
            bench.said.emit(job.error)
        elif started is None or started is not self._aligning.partner:
            self._found = None  # of a partner that is gone, or lies elsewhere
        elif found is not None and bench.session.take_refinement(started, found):
            self._aligning.lay()
        self._started = None
        bench.changed.emit()
