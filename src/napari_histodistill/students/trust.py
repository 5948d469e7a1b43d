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

import functools
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.students.case_limits import (
    HIGH,
    LOW,
    TINY,
    CaseLimits,
    PrincipalGaussian,
    lies_in,
    lies_out,
)
from napari_histodistill.students.spec import STAGE_SOURCE, LookSpec, TrustSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from napari_histodistill.slides.tissue.looks import Look
    from napari_histodistill.students.spec import StageSource

    Doubles = npt.NDArray[np.float64]
    AnyFloats = npt.NDArray[np.floating]

ENOUGH = 50
"""Squares below which a slide with more of them is never called like."""
FEWEST = 10
"""Squares below which tissue is called neither like nor unlike."""
ENOUGH_CASES = 20
"""Cases trained on below which no slide is called like: the limits are too wide."""
FEWEST_CASES, FEWEST_TILES = 3, 10
"""Below these nothing can be fitted."""
SQUARE_PERCENT = 99.0
"""A single square is unlike beyond this percentage of own tiles of unseen cases."""
BROWN, DARK, INK, BLUR = 0.10, 0.2, 0.015, -0.6
"""Limits of looks where the training cases themselves stay far within them."""
COARSE = 1.25
"""Slides so many times coarser than the student's µm per pixel are named odd."""

_MOST, _ROWS_EACH = 64, 20
_FOLDS, _SEED = 5, 0
_LEAST_SCALE = 0.05


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


def headline(trust: SlideTrust, student: str) -> str:
    """Return a verdict as a sentence for people; ``student`` is its name."""
    words = {
        Verdict.LIKE: f"LIKE what {student} learned from.",
        Verdict.UNLIKE: (
            f"UNLIKE what {student} learned from: its classes were never tested on "
            "such a slide."
        ),
        Verdict.TOO_LITTLE: (
            f"TOO LITTLE to say whether this slide is like what {student} learned from."
        ),
    }
    judged = ""
    if trust.unlike_share is not None:
        judged = (
            f" {_squares(trust.squares)} judged, {trust.unlike_share:.0%} of them "
            "unlike."
        )
    return words[trust.verdict] + judged


@dataclass(frozen=True, slots=True, eq=False)
class TrustReference:
    """What a slide is compared with.

    Attributes
    ----------
    mean, scale : ndarray
        ``(width,)`` float32: features are centred and divided by them.
    directions : ndarray
        ``(k, width)`` float16: principal directions of the scaled features.
    variances : ndarray
        ``(k,)`` float32: variances along them.
    noise : float
        Variance in every other direction.
    own : ndarray
        ``(n,)`` float32: log distance of each own tile from the Gaussian of cases
        without its own.
    cases : ndarray
        ``(n,)`` int32: number of the case of each.
    looks : LookSpec
        How the oddest of the cases look.
    edge_px : int
        Edge at which tiles are shown to the encoder.
    source : StageSource
        The encoder.
    """

    mean: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]
    directions: npt.NDArray[np.float16]
    variances: npt.NDArray[np.float32]
    noise: float
    own: npt.NDArray[np.float32]
    cases: npt.NDArray[np.int32]
    looks: LookSpec
    edge_px: int
    source: StageSource = field(default=STAGE_SOURCE)

    def log_distances(self, features: AnyFloats) -> Doubles:
        """Return ``(n,)``: log distance of features ``(n, width)``, 0 for own tiles.

        The Mahalanobis distance of Lee et al. 2018, with one Gaussian, divided by the
        square root of the width.
        """
        gaussian = PrincipalGaussian(self.directions, self.variances, self.noise)
        return _logs(gaussian, (features - self.mean) / self.scale)

    @property
    def case_count(self) -> int:
        """Number of own cases."""
        return len(np.unique(self.cases))

    @property
    def square_limit(self) -> float:
        """Log distance beyond which a single square is called unlike."""
        return float(np.percentile(self.own, SQUARE_PERCENT))

    def limits(self) -> tuple[CaseLimits, CaseLimits]:
        """Return the limits for the lower and for the upper third."""
        return _limits_of(self)

    def spec(self) -> TrustSpec:
        """Return what a bundle's spec says of it."""
        return TrustSpec(
            source=self.source,
            edge_px=self.edge_px,
            components=len(self.variances),
            width=640,
            tiles=len(self.own),
            noise=self.noise,
            looks=self.looks,
            protocol=(
                f"{len(self.own)} tiles of {self.case_count} cases, each measured "
                f"without its own fifth of the cases"
            ),
        )

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return its arrays by the names that a bundle gives them."""
        return {f"trust.{name}": getattr(self, name) for name in TENSORS}

    @classmethod
    def of(
        cls, spec: TrustSpec, tensors: dict[str, npt.NDArray[Any]]
    ) -> TrustReference:
        """Put together what :meth:`spec` and :meth:`tensors` took apart.

        Raises
        ------
        ValueError
            If nothing can be measured by it.
        """
        scales = (tensors["trust.scale"], tensors["trust.variances"])
        if not all((values > 0).all() for values in scales):
            msg = "trust.scale and trust.variances must be positive"
            raise ValueError(msg)
        if len(np.unique(tensors["trust.cases"])) < FEWEST_CASES:
            msg = f"trust.cases must name {FEWEST_CASES} cases at least"
            raise ValueError(msg)
        return cls(
            **{
                name: tensors[f"trust.{name}"].astype(kind)
                for name, kind in TENSORS.items()
            },
            noise=spec.noise,
            looks=spec.looks,
            edge_px=spec.edge_px,
            source=spec.source,
        )


TENSORS = {
    "mean": "float32",
    "scale": "float32",
    "directions": "float16",
    "variances": "float32",
    "own": "float32",
    "cases": "int32",
}
"""Arrays of a reference and their types."""


def tensor_shapes(spec: TrustSpec) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor that a bundle with this spec must have."""
    k, width, n = spec.components, spec.width, spec.tiles
    shapes = ((width,), (width,), (k, width), (k,), (n,), (n,))
    return {f"trust.{name}": shape for name, shape in zip(TENSORS, shapes, strict=True)}


@functools.lru_cache(maxsize=8)
def _limits_of(reference: TrustReference) -> tuple[CaseLimits, CaseLimits]:
    own = reference.own.astype(np.float64)
    low, high = (CaseLimits.of(own, reference.cases, q) for q in (LOW, HIGH))
    return low, high


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
    """

    cells: npt.NDArray[np.int32]
    logs: AnyFloats
    speak: npt.NDArray[np.bool_]
    whole: bool
    every: bool = False


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
    oddities = tuple(oddity for oddity, _ in found)
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


def _squares(n: int) -> str:
    return "1 square" if n == 1 else f"{n:,} squares"


def fit_reference(
    features: AnyFloats,
    cases: npt.NDArray[np.generic],
    *,
    look: Look,
    edge_px: int,
) -> TrustReference | None:
    """Fit what slides are compared with to a student's own tiles.

    Parameters
    ----------
    features : ndarray
        ``(n, width)``, from a stage encoder.
    cases : ndarray
        ``(n,)``: patient, or slide, of each tile.
    look : Look
        From :func:`~napari_histodistill.slides.tissue.looks.oddest_look`.
    edge_px : int
        Edge at which the encoder was shown the tiles.

    Returns
    -------
    TrustReference or None
        None if there are fewer than three cases, or ten tiles: how cases differ cannot
        be told then.
    """
    names, member = np.unique(cases, return_inverse=True)
    member = member.reshape(-1)
    if len(names) < FEWEST_CASES or len(features) < FEWEST_TILES:
        return None
    values = np.asarray(features, np.float64)
    own = np.empty(len(values))
    fold = folds_of(cases)
    for k in np.unique(fold):
        there = fold != k
        mean, scale, gaussian = _fitted(values[there])
        own[~there] = _logs(gaussian, (values[~there] - mean) / scale)
    mean, scale, gaussian = _fitted(values)
    return TrustReference(
        mean=mean.astype(np.float32),
        scale=scale.astype(np.float32),
        directions=gaussian.directions.astype(np.float16),
        variances=gaussian.variances.astype(np.float32),
        noise=gaussian.noise,
        own=own.astype(np.float32),
        cases=member.astype(np.int32),
        looks=LookSpec(
            brown=look.brown,
            dark=look.dark,
            ink=look.ink[1],
            sharpness=look.sharpness,
        ),
        edge_px=edge_px,
    )


def folds_of(cases: npt.NDArray[np.generic]) -> npt.NDArray[np.intp]:
    """Return ``(n,)``: which of five folds each tile's case is dealt to."""
    names, member = np.unique(cases, return_inverse=True)
    folds = min(_FOLDS, len(names))
    dealt = np.random.default_rng(_SEED).permutation(len(names)) % folds
    found: npt.NDArray[np.intp] = dealt[member.reshape(-1)]
    return found


def directions_for(rows: int) -> int:
    """Return how many own directions so many tiles can support."""
    return int(np.clip(rows // _ROWS_EACH, 2, _MOST))


def _fitted(values: Doubles) -> tuple[Doubles, Doubles, PrincipalGaussian]:
    mean, spread = values.mean(axis=0), values.std(axis=0)
    # A channel that few tiles never stirred would make any stir of it endless.
    scale = np.maximum(spread, max(_LEAST_SCALE * float(np.median(spread)), TINY))
    gaussian = PrincipalGaussian.of(
        (values - mean) / scale, directions_for(len(values))
    )
    return mean, scale, gaussian


def _logs(gaussian: PrincipalGaussian, placed: AnyFloats) -> Doubles:
    distance = np.sqrt(gaussian.squared(placed) / placed.shape[1])
    found: Doubles = np.log(np.maximum(distance, TINY))
    return found
