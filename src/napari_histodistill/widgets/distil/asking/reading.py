"""How a partner is read, in step 1: labels as classes or objects, a stain as a marker.

Labels are counted, and stains measured, by a job; the question shows what was found.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QWidget

from napari_histodistill.controllers.distil.choices.readings import (
    UNLABELLED_TITLES,
    PartnerChoice,
    PartnerLook,
    look_work,
    reading_titles,
    say_stains,
    typed_vector,
    why_only_background,
)
from napari_histodistill.controllers.distil.jobs import DistilJob
from napari_histodistill.controllers.distil.partners import Partner, PartnerKind
from napari_histodistill.controllers.shared.job import Job, JobState
from napari_histodistill.distill.layers.kinds import PartnerReading, Unlabelled
from napari_histodistill.distill.layers.labels import LabelScan
from napari_histodistill.distill.layers.marker import MarkerStains, say_vector
from napari_histodistill.widgets.distil.bench import DistilBench
from napari_histodistill.widgets.shared.controls import (
    Hint,
    PlainLabel,
    plain_tip,
    stack,
)
from napari_histodistill.widgets.shared.forms import Form, asked

_UNLABELLED = [(title, one) for one, title in UNLABELLED_TITLES.items()]
_IMAGES = [(title, one) for one, title in reading_titles(None).items()]


@dataclass(frozen=True, slots=True)
class LabelQuestion:
    """How labels are read."""

    reading: PartnerReading = asked(
        "Classes: every number, or name, is something of its own. Objects: numbers "
        "only count things, and the model learns inside from outside.",
        PartnerReading.CLASSES, label="Read as",
        choices=[("classes", PartnerReading.CLASSES)],
    )  # fmt: skip
    unlabelled: Unlabelled = asked(
        "Unknown: nobody said what is there, so it does not count, and tiles without "
        "any label are left out. Background: everything was labelled.",
        Unlabelled.UNKNOWN, label="Unlabelled", choices=_UNLABELLED,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ImageQuestion:
    """How a brightfield image is read."""

    reading: PartnerReading = asked(
        "As it looks: its colours. Its marker: how much brown (or red) there is, "
        "without haematoxylin. Both: two partners of one layer.",
        PartnerReading.LOOKS, label="Read as", choices=_IMAGES,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class VectorsTyped:
    """The stain vectors of a marker: optical density in red, green and blue."""

    haematoxylin: str = asked(
        "Stain vector of haematoxylin: red, green, blue.", "", label="Haematoxylin"
    )
    marker: str = asked(
        "Stain vector of the marker: red, green, blue.", "", label="Marker"
    )


def _below(model: Any) -> Form[Any]:
    """Return a form with a row and a label for every field."""
    return Form(model, layout="vertical", labels=True)


class ReadingRow(QWidget):
    """The question about one partner.

    Attributes
    ----------
    answered : Signal(object)
        A :class:`PartnerReading` and, for labels, an :class:`Unlabelled`, as a tuple.
    typed : Signal(object)
        :class:`VectorsTyped`.
    """

    answered = Signal(object)
    typed = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.whose = PlainLabel()
        self.labels: Form[LabelQuestion] = _below(LabelQuestion())
        self.image: Form[ImageQuestion] = _below(ImageQuestion())
        self.vectors: Form[VectorsTyped] = _below(VectorsTyped())
        self.words, self._tip = Hint(), self.labels.unlabelled.tooltip
        forms = self.labels.native, self.image.native, self.vectors.native
        stack(self, self.whose, *forms, self.words)
        self.labels.changed.connect(self._labels_changed)
        self.image.changed.connect(
            lambda _: self.answered.emit((self.image.model.reading, None))
        )
        for one in self.vectors:
            one.native.editingFinished.connect(
                lambda: self.typed.emit(self.vectors.model)
            )
        self.hide()

    def show_whose(self, *, shown: bool) -> None:
        """Show whose question it is, where there could be another's."""
        self.whose.setVisible(shown)

    def ask_labels(
        self, name: str, scan: LabelScan, reading: PartnerReading, value: Unlabelled
    ) -> None:
        """Ask how labels are read, with the counts found."""
        self._show(name, labels=True)
        titles = [(title, one) for one, title in reading_titles(scan).items()]
        box = self.labels.reading
        with box.changed.blocked():
            box.choices = titles
        self.labels.show_model(LabelQuestion(reading, value))
        why = why_only_background(scan, reading)
        box = self.labels.unlabelled
        box.enabled, box.tooltip = not why, plain_tip(why or self._tip)

    def ask_image(
        self, name: str, choice: PartnerChoice, stains: MarkerStains | None
    ) -> None:
        """Ask how a brightfield image is read; show the stains where they matter."""
        self._show(name, labels=False)
        self.image.show_model(ImageQuestion(choice.reading or PartnerReading.LOOKS))
        self.vectors.native.setVisible(choice.needs_stains and stains is not None)
        self.words.say(say_stains(stains) if choice.needs_stains else "")
        if stains is not None:
            vectors = say_vector(stains.haematoxylin), say_vector(stains.marker)
            self.vectors.show_model(VectorsTyped(*vectors))

    def say(self, name: str, words: str) -> None:
        """Show what is being done, or went wrong, in place of the question."""
        self._show(name, labels=False)
        self.image.native.hide()
        self.words.say(words)

    def _show(self, name: str, *, labels: bool) -> None:
        self.whose.setText(name)
        self.labels.native.setVisible(labels)
        self.image.native.setVisible(not labels)
        self.vectors.native.hide()
        self.words.say("")
        self.show()

    def _labels_changed(self, *_: object) -> None:
        model = self.labels.model
        self.answered.emit((model.reading, model.unlabelled))


class Readings(QObject):
    """Asks how the partner that is chosen in the list is read.

    That is the highlighted one, or else the first of the ticked ones that leaves a
    choice.
    """

    def __init__(self, bench: DistilBench, asking: ReadingRow) -> None:
        super().__init__(bench)
        self.bench, self.row = bench, asking
        self._looks: dict[Hashable, PartnerLook] = {}
        self._failed: dict[Hashable, str] = {}
        self._chosen: Hashable = None
        asking.answered.connect(self._answered)
        asking.typed.connect(self._typed)

    def point_at(self, layer: Hashable) -> None:
        """Ask about this layer, if it is a partner and leaves a choice."""
        self._chosen = layer
        self.show()

    def look_again(self) -> None:
        """Forget what was found: labels may have been painted since."""
        self._looks.clear()
        self._failed.clear()
        self.show()

    def show(self) -> None:
        """Draw the question."""
        place = self._place()
        if place is None:
            self.row.hide()
            return
        partners = self.bench.session.partners
        self.row.show_whose(shown=sum(map(_has_choice, partners)) > 1)
        partner = partners[place]
        key, look = _key(partner), self._look_of(partner)
        if partner.kind is PartnerKind.MASK:
            if look is None or look.labels is None:
                self._start(partner)
                words = self._failed.get(key, "Looking at the labels…")
                self.row.say(partner.name, words)
                return
            scan = replace(look.labels, named=partner.named)
            reading = partner.choice.reading or scan.reading
            assumed = partner.choice.unlabelled or scan.unlabelled(reading)
            self.row.ask_labels(partner.name, scan, reading, assumed)
            return
        stains = partner.choice.stains or (None if look is None else look.stains)
        if partner.choice.needs_stains and stains is None:
            self._start(partner)
        self.row.ask_image(partner.name, partner.choice, stains)
        if key in self._failed and partner.choice.needs_stains:
            self.row.words.say(self._failed[key])

    def _place(self) -> int | None:
        """Return which partner is asked about."""
        partners = self.bench.session.partners
        open_ = [k for k, p in enumerate(partners) if _has_choice(p)]
        chosen = [k for k in open_ if _key(partners[k]) == self._chosen]
        return next(iter([*chosen, *open_]), None)

    def _look_of(self, partner: Partner) -> PartnerLook | None:
        look = self._looks.get(_key(partner))
        # Another slide behind the same layer: its scale or pixels were replaced.
        return None if look is None or look.slide is not partner.slide else look

    def _start(self, partner: Partner) -> None:
        key = _key(partner)
        if key in self._failed or self.bench.pump.is_active(DistilJob.LOOKING):
            return
        assert partner.slide is not None
        labels = partner.kind is PartnerKind.MASK
        if not labels and partner.slide.usable_mpp is None:
            return
        self.bench.pump.start(
            look_work(
                key, partner.slide, partner.name, partner.named if labels else None
            ),
            key=DistilJob.LOOKING,
            on_reports=self._found,
            on_end=lambda job: self._ended(key, job),
        )

    def _found(self, reports: list[PartnerLook]) -> None:
        for look in reports:
            self._looks[look.layer] = look

    def _ended(self, key: Hashable, job: Job[PartnerLook]) -> None:
        if job.state is JobState.FAILED:
            self._failed[key] = job.error
        self.show()

    def _answered(self, said: tuple[PartnerReading, Unlabelled | None]) -> None:
        place = self._place()
        if place is None:
            return
        reading, unlabelled = said
        partner = self.bench.session.partners[place]
        look = self._look_of(partner)
        if look is not None and look.labels is not None:
            before = partner.choice.reading or look.labels.reading
            scan = replace(look.labels, named=partner.named)
            if reading is not before or why_only_background(scan, reading):
                unlabelled = scan.unlabelled(reading)
        self._take(
            place, replace(partner.choice, reading=reading, unlabelled=unlabelled)
        )

    def _typed(self, said: VectorsTyped) -> None:
        place = self._place()
        if place is None:
            return
        partner = self.bench.session.partners[place]
        look = self._look_of(partner)
        known = partner.choice.stains or (None if look is None else look.stains)
        if known is None:
            return
        shown = say_vector(known.haematoxylin), say_vector(known.marker)
        if (said.haematoxylin, said.marker) == shown:
            return  # only clicked into

        def put() -> None:
            stains = known.with_vectors(
                typed_vector(said.haematoxylin, "haematoxylin"),
                typed_vector(said.marker, "marker"),
            )
            self._take(place, replace(partner.choice, stains=stains))

        self.bench.attempt(put)

    def _take(self, place: int, choice: PartnerChoice) -> None:
        self.bench.session.read_as(place, choice)
        self.bench.said.emit("")
        self.bench.changed.emit()


def _key(partner: Partner) -> Hashable:
    return None if partner.key is None else partner.key.layer


def _has_choice(partner: Partner) -> bool:
    if partner.kind is PartnerKind.MASK:
        return True
    colours = partner.slide is not None and partner.slide.info.is_rgb
    return partner.kind is PartnerKind.PICTURE and colours
