"""Trust in a map, in words: one headline, where it comes from, and details."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_histodistill.controllers.explore.judging import SECONDS_EACH
from napari_histodistill.controllers.shared.wording import (
    count_in_words,
    duration_in_words,
)
from napari_histodistill.students.model_card import in_words
from napari_histodistill.students.trust import Oddity, Verdict, lies_between

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_histodistill.controllers.explore.session import ExploreSession
    from napari_histodistill.slides import Slide
    from napari_histodistill.students.spec import EmbeddingMode, StudentSpec

GOOD, CARE = "●", "▲"
"""Signs differ in shape, not only in colour."""


@dataclass(frozen=True, slots=True)
class Note:
    """One line: a sign and a sentence."""

    sign: str
    text: str


_ODD = {
    Oddity.BROWN: "brown stain",
    Oddity.FLUORESCENCE: "dark, as in fluorescence",
    Oddity.INK: "ink",
    Oddity.BLUR: "out of focus",
    Oddity.SCALE: "coarser than the model",
}
"""What is odd at a glance; the reasons say more."""


def headline_on(session: ExploreSession) -> Note:
    """Return the one sentence to read before the classes of the map on screen."""
    trust, student = session.trust, session.student
    if student is None or session.slide is None or session.live is None:
        return Note(GOOD, "Nothing to judge yet.")
    if session.map_trust.trouble:
        return Note(CARE, f"Not compared: {session.map_trust.trouble}")
    if trust is None:
        return Note(CARE, "Not yet compared with what the model learned from.")
    if trust.verdict is Verdict.UNLIKE:
        # Without classes, what looks alike is all that could be misread.
        what = "read the classes" if session.live.classes else "trust what looks alike"
        return Note(CARE, f"Not like {_subject(student.spec)}: do not {what}")
    if trust.verdict is Verdict.LIKE:
        seen = count_in_words(trust.squares)
        return Note(GOOD, f"Like what the model learned from, as far as {seen} tell")
    why = trust.reasons[0] if trust.reasons else ""
    words = (
        "Between like and unlike" if lies_between(trust) else "Too little seen to say"
    )
    return Note(CARE, f"{words}: {why[:1].lower()}{why[1:]}")


def where_on(session: ExploreSession) -> str:
    """Return how much of a map is unlike and what is odd, in a line; "" if unknown."""
    progress, trust = session.map_trust.progress, session.trust
    if progress is not None:
        return (
            f"Comparing: {progress.done:,} of at most {progress.total:,} squares of "
            "the map…"
        )
    if trust is None or trust.unlike_share is None:
        return ""
    seen = count_in_words(trust.squares)
    parts = [f"{trust.unlike_share:.0%} of {seen} compared are unlike"]
    parts += [_ODD[odd] for odd in trust.oddities if odd in _ODD]
    return " · ".join(parts)


def like_only_tip(session: ExploreSession) -> str:
    """Return what leaving out unlike squares does, and how long it takes."""
    text = (
        "Compare every square of the map with what the model learned from, and leave "
        "unlike ones out of map, areas and exports."
    )
    live, trust = session.live, session.trust
    if live is None or (trust is not None and trust.every):
        return text
    wait = duration_in_words(live.cells_done * SECONDS_EACH)
    return f"{text} Takes about {wait} of one processor core."


def hatching_tip(session: ExploreSession) -> str:
    """Return what is hatched, and what that does to areas."""
    text = "Squares that are unlike what the model learned from, of those compared."
    judged, trust = session.map_trust.judged, session.trust
    if judged is not None and trust is not None and trust.squares < judged.squares:
        text += " What lies around them is hatched, too."
    if session.map_trust.left_out is not None:
        text += " Areas in the list: without / with them."
    return text


def _subject(spec: StudentSpec) -> str:
    """Return what a model is for, as words in a sentence: "colon H&E"."""
    words = spec.title.partition(":")[0].strip() or spec.name
    return words if words[1:2].isupper() else f"{words[:1].lower()}{words[1:]}"


def _on_trust(session: ExploreSession) -> Iterator[Note]:
    """Yield the reasons of the verdict, and what probabilities meant elsewhere."""
    trust, student = session.trust, session.student
    if trust is not None:
        sign = GOOD if trust.verdict is Verdict.LIKE else CARE
        # Too little is said with its first reason.
        told = 1 if trust.verdict is Verdict.TOO_LITTLE else 0
        yield from (Note(sign, reason) for reason in trust.reasons[told:])
    if student is None or session.taught is not None or not student.spec.classes:
        return
    calibration = student.spec.calibration
    if calibration is None:
        yield Note(CARE, "What its probabilities are worth was not measured.")
    else:
        yield Note(GOOD, in_words(calibration))


def notes_on(session: ExploreSession) -> tuple[Note, ...]:
    """Return what a person should know of the present choice and map."""
    slide, student = session.slide, session.student
    if slide is None or student is None:
        return ()
    notes = [
        *_on_trust(session),
        *_on_scale(slide, student.spec),
        *_on_mode(session.mode, student.spec),
        *_on_classes(session),
        *_on_squares(session),
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


def _on_squares(session: ExploreSession) -> Iterator[Note]:
    if session.every_square:
        yield Note(
            CARE, "Every square is mapped: glass, pen and blur get a class, too."
        )


def _on_classes(session: ExploreSession) -> Iterator[Note]:
    if session.taught is not None:
        score = session.taught.score_in_words
        tested = f": {score}" if score else ""
        learned = count_in_words(session.taught.cells)
        yield Note(CARE, f"Classes were learned from {learned} under strokes{tested}.")
        return
    spec = session.student.spec if session.student else None
    if spec is not None and spec.classes:
        n = len(spec.classes)
        yield Note(CARE, f"Knows only its {n} classes: other tissue gets one too.")
