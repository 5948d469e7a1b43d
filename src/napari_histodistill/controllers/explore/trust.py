"""Notes on a map: the reasons to trust it, and the reasons to take care."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_histodistill.controllers.shared.wording import count_in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_histodistill.controllers.explore.session import ExploreSession
    from napari_histodistill.slides import Slide
    from napari_histodistill.students.spec import EmbeddingMode, StudentSpec

MANY = 0.05
"""Share of unfamiliar squares from which a person is warned."""

FEWEST = 50
"""Squares before which nothing is said of the tissue as a whole."""

GOOD, CARE = "●", "▲"
"""Signs differ in shape, not only in colour."""


@dataclass(frozen=True, slots=True)
class Note:
    """One line: a sign and a sentence."""

    sign: str
    text: str


def notes_on(session: ExploreSession) -> tuple[Note, ...]:
    """Return what a person should know of the present choice and map."""
    slide, student = session.slide, session.student
    if slide is None or student is None:
        return (Note(GOOD, "Nothing to judge yet."),)
    notes = [
        *_on_scale(slide, student.spec),
        *_on_mode(session.mode, student.spec),
        *_on_classes(session),
        *(Note(CARE, note) for note in slide.info.notes),
        *_on_damage(slide),
    ]
    if session.live is not None and session.live.cells_unreadable:
        n = session.live.cells_unreadable
        unread = count_in_words(n)
        notes.append(
            Note(CARE, f"{unread} of the map could not be read from the file.")
        )
    return tuple(notes)


def _on_damage(slide: Slide) -> Iterator[Note]:
    met = len(slide.unreadable)
    if met:
        tiles = "tile of the file" if met == 1 else "tiles of the file"
        yield Note(
            CARE,
            f"{met:,} {tiles} could not be read so far: striped yellow and blue.",
        )


def _on_scale(slide: Slide, spec: StudentSpec) -> Iterator[Note]:
    if slide.usable_mpp is None:
        return
    have, want = slide.usable_mpp.mean, spec.mpp
    if have > 1.1 * want:
        yield Note(
            CARE,
            f"The slide ({have:.2g} µm/px) is coarser than what the model was "
            f"trained on ({want:.2g}): fine structure is missing.",
        )
    else:
        yield Note(GOOD, f"Seen at the model's own {want:.2g} µm/px.")
    if spec.mpp_source == "estimated":
        yield Note(CARE, "The model's µm/px was estimated, not stated by its data.")


def _on_mode(mode: EmbeddingMode, spec: StudentSpec) -> Iterator[Note]:
    if mode != "tokens":
        return
    agreement = spec.token_agreement
    if agreement is None:
        yield Note(CARE, "Fast (windows): agreement with Exact was not measured.")
        return
    yield Note(
        CARE,
        "Fast (windows): its similarity maps agreed with Exact with rank correlation "
        f"{agreement.rank_correlation_median:.2f} (worst "
        f"{agreement.rank_correlation_worst:.2f}) on {agreement.measured_on}.",
    )


def _on_classes(session: ExploreSession) -> Iterator[Note]:
    if session.taught is not None:
        score = session.taught.score_in_words
        tested = f" ({score})" if score else ""
        learned = count_in_words(session.taught.cells)
        yield Note(CARE, f"Classes were learned from {learned} under strokes{tested}.")
        return
    spec = session.student.spec if session.student else None
    if spec is not None and spec.classes:
        n = len(spec.classes)
        yield Note(CARE, f"Knows only its {n} classes: other tissue gets one too.")
