"""Trust: whether a slide shows what a student learned from, or too little was seen.

A student answers for any pixels. What it learned from is remembered as a Gaussian over
features of the frozen ImageNet start (means and log deviations of one stage's channels;
:mod:`~napari_histodistill.students.backends.stages`), and as how far its own cases lie
from the Gaussian of the others. A slide gets one of three verdicts by the thirds of its
squares' log distances against one value per case: *unlike* if even the nearest third
lies out, *like* if two thirds lie in, *too little* otherwise. Looks that the distance
does not see have rules of their own (``slides/tissue/looks.py``), relative to what the
training cases show, so that a student of brown sections does not call brown odd.

How the method was chosen, and what it misses: ``tests/bench/trust.py`` and
``training/RESULTS.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.students.references.case_limits import lies_in, lies_out

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from napari_histodistill.slides.tissue.looks import Look
    from napari_histodistill.students.references.fitting import TrustReference
    from napari_histodistill.students.spec import LookSpec

    AnyFloats = npt.NDArray[np.floating]

ENOUGH = 50
"""Squares below which a slide with more of them is never called like."""
FEWEST = 10
"""Squares below which tissue is called neither like nor unlike."""
ENOUGH_CASES = 20
"""Cases trained on below which no slide is called like: the limits are too wide."""
BROWN, DARK, INK, BLUR = 0.10, 0.2, 0.015, -0.6
"""Limits of looks where the training cases themselves stay far within them."""
PEN = 0.02
"""Share of what is stained from which pen that was left out is named."""
COARSE = 1.25
"""Slides so many times coarser than the student's µm per pixel are named odd."""


class Verdict(StrEnum):
    """Whether a slide shows what a student learned from."""

    LIKE = "like"
    UNLIKE = "unlike"
    TOO_LITTLE = "too little"


class Oddity(StrEnum):
    """What is odd about a slide, or why there is no better verdict."""

    TISSUE = "tissue"
    BROWN = "brown"
    FLUORESCENCE = "fluorescence"
    INK = "ink"
    BLUR = "blur"
    SCALE = "scale"
    BETWEEN = "between"
    FEW_SQUARES = "few squares"
    FEW_CASES = "few cases"
    NO_REFERENCE = "no reference"


@dataclass(frozen=True, slots=True, eq=False)
class SlideTrust:
    """The verdict on one slide, and where it comes from.

    Attributes
    ----------
    verdict : Verdict
        Like, unlike, or too little.
    squares : int
        Squares that were judged.
    unlike_share : float or None
        Share of them that lies farther out than 99 % of own tiles do; None if none was
        judged.
    oddities : tuple of Oddity
        What is odd, or missing for a better verdict; steers the program.
    reasons : tuple of str
        The same in plain sentences, for people.
    cells : ndarray
        ``(k, 2)`` int32: row and column of each judged square.
    unlike : ndarray
        ``(k,)`` bool: which of them lie far out.
    every : bool
        Whether every computed square was judged, not a sample.
    """

    verdict: Verdict
    squares: int
    unlike_share: float | None
    oddities: tuple[Oddity, ...]
    reasons: tuple[str, ...]
    cells: npt.NDArray[np.int32]
    unlike: npt.NDArray[np.bool_]
    every: bool = False


def trust_facts(trust: SlideTrust) -> dict[str, Any]:
    """Return what JSON says of a verdict: plain values."""
    share = trust.unlike_share
    return {
        "verdict": trust.verdict.value,
        "unlike_share": None if share is None else round(share, 4),
        "squares": trust.squares,
        "reasons": list(trust.reasons),
        "oddities": [oddity.value for oddity in trust.oddities],
        "every_square": trust.every,
    }


def lies_between(trust: SlideTrust) -> bool:
    """Whether enough was seen, and lies between like and unlike."""
    odd = trust.oddities
    return Oddity.BETWEEN in odd and Oddity.FEW_SQUARES not in odd


def headline(trust: SlideTrust, student: str) -> str:
    """Return a verdict as a sentence for people; ``student`` is its name."""
    too_little = f" whether this slide is like what {student} learned from."
    if lies_between(trust):
        too_little = f": between LIKE and UNLIKE what {student} learned from."
    words = {
        Verdict.LIKE: f"LIKE what {student} learned from.",
        Verdict.UNLIKE: (
            f"UNLIKE what {student} learned from: its classes were never tested on "
            "such a slide."
        ),
        Verdict.TOO_LITTLE: f"TOO LITTLE to say{too_little}",
    }
    judged = ""
    if trust.unlike_share is not None:
        judged = (
            f" {_squares(trust.squares)} judged, {trust.unlike_share:.0%} of them "
            "unlike."
        )
    return words[trust.verdict] + judged


NO_REFERENCE = "This student keeps no reference of what it learned from."
TAUGHT = "The classes were taught by strokes on a slide, not by cases to compare with."


def unjudged(reason: str = NO_REFERENCE) -> SlideTrust:
    """Return the verdict of a student that has nothing to compare slides with."""
    return SlideTrust(
        verdict=Verdict.TOO_LITTLE,
        squares=0,
        unlike_share=None,
        oddities=(Oddity.NO_REFERENCE,),
        reasons=(reason,),
        cells=np.empty((0, 2), np.int32),
        unlike=np.empty(0, np.bool_),
    )


@dataclass(frozen=True, slots=True)
class PenLeftOut:
    """Pen that was left out when squares were chosen, since it is no tissue.

    Attributes
    ----------
    mm2 : float
        Its area.
    share : float
        The same as a share of all that is stained, pen and tissue.
    """

    mm2: float
    share: float


@dataclass(frozen=True, slots=True, eq=False)
class SeenSquares:
    """Squares of a slide that were looked at.

    Attributes
    ----------
    cells : ndarray
        ``(k, 2)`` int32: row and column of each.
    logs : ndarray
        ``(k,)``: log distance of each from the student's own tiles.
    speak : ndarray
        ``(k,)`` bool: those that count for the verdict: tissue, and hardly
        overlapping.
    whole : bool
        Whether the slide has no other squares that could speak.
    every : bool
        Whether every computed square is among them.
    pen : PenLeftOut or None
        Pen beside the squares, if it is worth a word.
    """

    cells: npt.NDArray[np.int32]
    logs: AnyFloats
    speak: npt.NDArray[np.bool_]
    whole: bool
    every: bool = False
    pen: PenLeftOut | None = None


def judge(
    reference: TrustReference,
    seen: SeenSquares,
    look: Look | None,
    *,
    coarse: float = 1.0,
) -> SlideTrust:
    """Judge a slide.

    Parameters
    ----------
    reference : TrustReference
        The student's.
    seen : SeenSquares
        The slide's.
    look : Look or None
        How the slide's squares look; None if there are none.
    coarse : float
        The slide's µm per pixel over the student's.
    """
    logs = seen.logs
    found = [
        *_odd_looks(reference.looks, look),
        *_odd_scale(coarse),
        *_odd_tissue(reference, logs[seen.speak], whole=seen.whole),
    ]
    found += _why_so_few(found, seen.pen)
    oddities = tuple(dict.fromkeys(oddity for oddity, _ in found))
    unlike = logs > reference.square_limit
    return SlideTrust(
        verdict=_verdict_of(oddities),
        squares=len(logs),
        unlike_share=float(unlike.mean()) if len(logs) else None,
        oddities=oddities,
        reasons=tuple(reason for _, reason in found) or (_WHY_LIKE,),
        cells=seen.cells,
        unlike=unlike,
        every=seen.every,
    )


_UNLIKE = frozenset({Oddity.TISSUE, Oddity.BROWN, Oddity.FLUORESCENCE})
_WHY_LIKE = (
    "At least two thirds of the squares lie within what the training cases show. That "
    "does not say that a class is right."
)


def _verdict_of(oddities: tuple[Oddity, ...]) -> Verdict:
    if _UNLIKE & set(oddities):
        return Verdict.UNLIKE
    return Verdict.TOO_LITTLE if oddities else Verdict.LIKE


def _odd_looks(own: LookSpec, look: Look | None) -> Iterator[tuple[Oddity, str]]:
    if look is None:
        return
    dark = look.dark > max(DARK, own.dark)
    if dark:
        yield (
            Oddity.FLUORESCENCE,
            f"{look.dark:.0%} of it is dark, as in fluorescence; the student learned "
            "from tiles on bright glass.",
        )
    if look.brown > max(BROWN, own.brown):
        yield (
            Oddity.BROWN,
            f"{look.brown:.0%} of the stained area is brown, as in "
            "immunohistochemistry; in the training cases it is "
            f"{own.brown:.0%} at most.",
        )
    pen, share = look.ink if look.inks else ("", 0.0)
    # A dark ground is smooth and black, as a black pen is.
    if share > max(INK, own.ink) and not dark:
        yield (
            Oddity.INK,
            f"There seems to be {pen} ink on {share:.1%} of the squares' area.",
        )
    if look.sharpness < min(BLUR, own.sharpness):
        yield (
            Oddity.BLUR,
            "It is softer than the training tiles: out of focus, or enlarged from a "
            "coarser scan.",
        )


def _odd_scale(coarse: float) -> Iterator[tuple[Oddity, str]]:
    if coarse > COARSE:
        yield (
            Oddity.SCALE,
            f"The slide is {coarse:.2g} times coarser than the student's µm/px, so "
            "fine structure is missing.",
        )


def _odd_tissue(
    reference: TrustReference, logs: AnyFloats, *, whole: bool
) -> Iterator[tuple[Oddity, str]]:
    n, cases = len(logs), reference.case_count
    if n < FEWEST:
        yield (
            Oddity.FEW_SQUARES,
            f"{_squares(n)} of tissue {'is' if n == 1 else 'are'} too few to judge the "
            f"tissue by: {FEWEST} at least are needed to call it unlike, {ENOUGH} to "
            "call it like.",
        )
        return
    low, high = reference.limits()
    if lies_out(logs, low):
        yield (
            Oddity.TISSUE,
            f"Even the nearest third of {_squares(n)} lies farther from the {cases} "
            "training cases than any of them should.",
        )
        return
    if not lies_in(logs, high):
        yield (
            Oddity.BETWEEN,
            f"The {_squares(n)} lie farther out than those of most training cases, but "
            "not so far that it must be other tissue.",
        )
    if n < ENOUGH and not whole:
        yield (
            Oddity.FEW_SQUARES,
            f"{_squares(n)} of tissue are too few to call it like: {ENOUGH} are "
            "needed.",
        )
    if cases < ENOUGH_CASES:
        yield (
            Oddity.FEW_CASES,
            f"The student learned from {cases} cases; from fewer than {ENOUGH_CASES} "
            "it cannot be told what is like them.",
        )


def _why_so_few(
    found: list[tuple[Oddity, str]], pen: PenLeftOut | None
) -> Iterator[tuple[Oddity, str]]:
    few = any(oddity is Oddity.FEW_SQUARES for oddity, _ in found)
    if few and pen is not None and pen.share > PEN:
        yield (
            Oddity.INK,
            f"Pen was found on {pen.mm2:.2g} mm² ({pen.share:.0%} of what is stained) "
            "and left out: it is no tissue.",
        )


def _squares(n: int) -> str:
    return "1 square" if n == 1 else f"{n:,} squares"
