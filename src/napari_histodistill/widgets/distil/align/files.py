"""Alignments and landmarks from files, and into them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_histodistill.controllers.distil.align.exchange import (
    Chosen,
    FromFile,
    Held,
    look_into,
    take,
)
from napari_histodistill.controllers.distil.align.saving import (
    TITLES,
    SaveAs,
    ToSave,
    save_as,
    texts_of,
)
from napari_histodistill.distill.exchange.frames import FixedImage, PointUnit
from napari_histodistill.distill.exchange.transforms import write_transform
from napari_histodistill.distill.layers.registration import LandmarkPairs
from napari_histodistill.errors import HistodistillError
from napari_histodistill.widgets.shared.controls import confirmed
from napari_histodistill.widgets.shared.forms import (
    ask,
    ask_file,
    ask_new_file,
    asked,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.distill.sections.alignment import SectionAlignment
    from napari_histodistill.slides import Slide
    from napari_histodistill.widgets.distil.align.pair import AlignedPair

    Doubles = npt.NDArray[np.float64]
    BothSides = tuple[Doubles, Doubles]
    Put = Callable[[BothSides, SectionAlignment | None], None]

SAVED = ";;".join(f"{title} (*{one.value})" for one, title in TITLES.items())
READ = "Alignments, landmarks, transforms (*.json *.geojson *.csv *.tsv *.txt *.tfm)"
UNITS = (
    ("level-0 pixels", PointUnit.PIXELS),
    ("µm", PointUnit.MICROMETRES),
    ("mm", PointUnit.MILLIMETRES),
)
SIDES = (("the H&E", FixedImage.HE), ("the partner", FixedImage.PARTNER))


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a file of another program leaves open, read or written."""

    unit: PointUnit = asked(
        "Unit of the file's numbers.", PointUnit.PIXELS, label="Its numbers are",
        choices=UNITS,
    )  # fmt: skip
    fixed: FixedImage = asked(
        "The image that the other program held fixed: ITK and elastix call it fixed, "
        "BigWarp target, QuPath base.", FixedImage.HE, label="The fixed image was",
        choices=SIDES,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class TargetFacts(FileFacts):
    """What another program will take a file that is written for."""

    unit: PointUnit = asked(
        "Unit of the numbers that are written.", PointUnit.PIXELS, label="In",
        choices=UNITS,
    )  # fmt: skip
    fixed: FixedImage = asked(
        "The image that the other program will hold fixed: ITK and elastix call it "
        "fixed, BigWarp target, QuPath base.", FixedImage.HE,
        label="The fixed image is", choices=SIDES,
    )  # fmt: skip


class FileLoading(QObject):
    """Saves the alignment, and loads alignments, landmarks and transforms.

    Parameters
    ----------
    pair : AlignedPair
        What is aligned.
    put : callable
        Shows landmarks (``(n, 2)`` px on either side) and lays the partner.
    fit : callable
        Fits the landmarks that are there.
    """

    saved = Signal()

    def __init__(self, pair: AlignedPair, put: Put, fit: Callable[[], None]) -> None:
        super().__init__(pair)
        self._pair, self._put, self._fit = pair, put, fit
        self.ask_facts: Callable[[Chosen], FileFacts | None] = self._ask_facts
        self.ask_target: Callable[[SaveAs], FileFacts | None] = self._ask_target
        self.ask_anyway = partial(confirmed, pair.step, "Use anyway")

    def save(self, path: Path | None = None, partner: Path | None = None) -> None:
        """Write the alignment or its landmarks; asks where no file is given.

        Parameters
        ----------
        path : Path, optional
            The file; its ending says what it holds (see :class:`.SaveAs`).
        partner : Path, optional
            For the partner's landmarks, where they go into a file of their own.
        """
        pair, saved = self._pair, self._to_save()
        if saved is not None and path is None:
            path = ask_new_file("Save alignment", pair.step, "alignment.json", SAVED)
        if saved is not None and path is not None:
            pair.bench.attempt(partial(self._save, saved, path, partner))

    def _save(self, saved: ToSave, path: Path, partner: Path | None) -> None:
        wanted, step = save_as(path), self._pair.step
        if wanted is SaveAs.ANHIR and partner is None:
            title = "That is for the H&E's landmarks: choose a file for the partner's"
            partner = ask_new_file(title, step, f"{path.stem}-partner.csv", SAVED)
            if partner is None:
                return
        facts = self.ask_target(wanted) if wanted.asks else FileFacts()
        if facts is None:
            return
        for place, text in texts_of(
            saved, path, partner=partner, unit=facts.unit, fixed=facts.fixed
        ).items():
            write_transform(place, text)
        self._pair.bench.said.emit("")
        if wanted is SaveAs.OWN:  # no other holds all that was made
            self.saved.emit()

    def load(self, path: Path | None = None, partner: Path | None = None) -> None:
        """Read an alignment, landmarks or a transform; asks where no file is given.

        Parameters
        ----------
        path : Path, optional
            The file; of landmarks, the H&E's or both sides'.
        partner : Path, optional
            The partner's landmarks, where they are in a file of their own.
        """
        pair = self._pair
        if path is None:
            path = ask_file("Load an alignment, or landmarks", pair.step, READ)
        if path is None:
            return
        try:
            chosen = look_into(path)
            if chosen.held is Held.POINTS and partner is None:
                title = "These are the H&E's landmarks: choose the partner's"
                partner = ask_file(title, pair.step, READ)
                if partner is None:
                    return
            facts = FileFacts()
            if chosen.asks_unit or chosen.asks_fixed:
                answer = self.ask_facts(chosen)
                if answer is None:
                    return
                facts = answer
            self._use(chosen, facts, partner)
        except HistodistillError as error:
            pair.bench.said.emit(str(error))
        pair.bench.changed.emit()

    def _use(self, chosen: Chosen, facts: FileFacts, partner: Path | None) -> None:
        pair = self._pair
        sparse, other = pair.bench.session.sparse, pair.partner
        if sparse is None or other is None or other.slide is None:
            return
        found = take(
            chosen,
            sparse,
            other.slide,
            unit=facts.unit if chosen.asks_unit else None,
            fixed=facts.fixed,
            partner=partner,
        )
        if found.why_not and not self.ask_anyway(f"{found.why_not} Use it anyway?"):
            return
        # Without landmarks, those that are shown stay.
        self._put(self._pixels(found), found.alignment)
        pair.bench.said.emit("")
        if found.alignment is None:
            self._fit()

    def _pixels(self, found: FromFile) -> BothSides:
        """Return landmarks in the layers' pixels; those that are shown, without any."""
        sparse, partner = self._pair.bench.session.sparse, self._pair.partner
        if found.landmarks_um is None:
            return self._pair.landmarks.pixels()
        assert sparse is not None
        assert partner is not None
        assert partner.slide is not None
        here, there = found.landmarks_um
        return here / _mpp_of(sparse), there / _mpp_of(partner.slide)

    def _to_save(self) -> ToSave | None:
        """Return what can be saved; None where nothing is aligned."""
        pair, session = self._pair, self._pair.bench.session
        partner, known = pair.partner, pair.alignment
        if session.sparse is None or partner is None or partner.slide is None:
            return None
        if known is None:
            return None
        laid = replace(known, landmarks=self._measured())
        approver = session.approved_by or known.approved_by
        return ToSave(session.sparse, partner.slide, laid, approver)

    def _measured(self) -> LandmarkPairs | None:
        """Return the landmarks in µm and pixels; None without any."""
        own, partner = self._pair.own_landmarks(), self._pair.partner
        sparse = self._pair.bench.session.sparse
        if own is None or partner is None or partner.slide is None or sparse is None:
            return None
        if not len(own[0]):
            return None
        return LandmarkPairs.measured(*own, _mpp_of(sparse), _mpp_of(partner.slide))

    def _ask_target(self, wanted: SaveAs) -> FileFacts | None:
        note = f"{TITLES[wanted]}, as the other program expects it."
        return ask(TargetFacts(), "Save", self._pair.step, note=note)

    def _ask_facts(self, chosen: Chosen) -> FileFacts | None:
        note = f"{chosen.path.name} holds {chosen.held.value} and does not say this."
        return ask(FileFacts(), "Load", self._pair.step, note=note)


def _mpp_of(slide: Slide) -> tuple[float, float]:
    """Return µm per pixel ``(y, x)``; 1 where nobody knows, as layers are laid by."""
    mpp = slide.usable_mpp
    return (1.0, 1.0) if mpp is None else (mpp.y, mpp.x)
