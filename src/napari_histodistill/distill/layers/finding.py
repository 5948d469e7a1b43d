"""The automatic start: where a partner lies, found without a landmark, or refused.

Sections are mounted turned, upside down and cut, and files state wrong µm/px. So every
turn, side, scale and shift is looked at very small; from the likeliest of these, blocks
vote where they belong; the places with most votes are refined alike, and then small
blocks are asked, each on its own, whether they find themselves where the place puts
them. The best place is accepted only where far more blocks agree than do for partners
that do not belong together, and than in any other place. Its error is stated by how far
the blocks that agree lie off.

Only rigid, similarity and affine maps are fitted. A displacement field was measured on
two pairs of sections, and held-out landmarks gained no more than their noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.distill.layers.blocks import (
    FRAMES_PX,
    LEAST_SCORE,
    BlockVerdict,
    ask_at_sizes,
    guided_by_blocks,
)
from napari_histodistill.distill.layers.optimising import FAR, Optimiser, simpleitk
from napari_histodistill.distill.layers.places import Place, look_for_places
from napari_histodistill.distill.layers.refinement import grown
from napari_histodistill.distill.layers.registration import (
    CELL_UM,
    FEWEST,
    Registration,
    RegistrationKind,
    apply,
    fit_landmarks,
)
from napari_histodistill.distill.layers.thumbnails import (
    GreyThumbnail,
    lay,
    take_thumbnails,
)
from napari_histodistill.distill.layers.voting import Vote, vote
from napari_histodistill.errors import ComputeError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from napari_histodistill.distill.layers.partners import DenseLayer
    from napari_histodistill.running import CancelToken
    from napari_histodistill.slides.pyramid.slide import Slide

    Doubles = npt.NDArray[np.float64]

NEAR_SCALES = tuple(2 ** (k / 4) for k in (-1, 0, 1))
FAR_SCALES = tuple(2 ** (k / 4) for k in range(-9, 10) if abs(k) > 1)
"""How much larger tissue may be on the partner than µm/px say: up to five times. Those
near 1 are looked at first, the others where no place stands out beyond doubt."""

LEAST_FOUND = 10.0
"""Score from which a place that was searched for may be accepted."""

LEAST_MARGIN = 4.0
"""Margin from which a place of any score may be accepted."""

LEAST_TOGETHER = 21.0
"""Score and margin together from which a place is accepted.

The best of thousands of places is higher by chance than one that is asked about, and so
may be its lead: of 198 trials, strangers reached 10.9 and 6.8, 17.4 together; a wrong
place of a pair that belongs had once reached 13.9 and 6.4. Small parts of a section
have few blocks, so lower scores, but where they are right they lead by as much.
"""

_FEW, _MANY = (40, 4), (240, 8)
"""From how many places of each look blocks vote, and how many of those are refined."""

_BATCH, _FINALISTS = 3, 2
_FIRST_PX = 128, 256
_COARSE_PX, _MIDDLE_PX, _FINE_PX = 128, 256, 1024
_APART = 0.06
"""Places that differ by less than this share of the section are one."""

_LOOKED_AT = 4
"""So many times as many are looked through for places that are apart."""

_BUDGET_S = 20.0
_LEAST_PX = 200
_LOST, _BETTER = 0.9, 1.15
"""Share of the score that another fit must keep, and that blocks must gain to guide.
"""

_MOST_STRETCH = 1.35
"""More than this along one axis is no section that was mounted flat."""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The best place, and whether it may be used.

    Attributes
    ----------
    registration : Registration
        The place; its ``stated_um`` is the median error that the blocks tell. With
        landmarks, its residuals are their errors, which the search never saw.
    score : float
        By how many standard deviations more blocks agree than by chance.
    margin : float
        By how much that is above the score of the best other place: another turn, side,
        scale or shift, refined alike.
    accepted : bool
        Whether it may be used.
    reasons : tuple of str
        Sentences: why not. Empty if accepted.
    turns : int
        Quarter turns of the partner, counter-clockwise as seen on screen, 0 to 3; the
        nearest.
    mirrored : bool
        Whether it is mirrored left to right first.
    scale : float
        How much larger tissue is on the partner than both µm/px say.
    """

    registration: Registration
    score: float
    margin: float
    accepted: bool
    reasons: tuple[str, ...]
    turns: int
    mirrored: bool
    scale: float


def find(
    sparse: Slide,
    dense: DenseLayer,
    kind: RegistrationKind = "affine",
    *,
    landmarks_um: tuple[Doubles, Doubles] | None = None,
    cancel: CancelToken,
) -> Iterator[float | Found]:
    """Find where a partner lies, wherever it lies now.

    Parameters
    ----------
    sparse : Slide
        The H&E, with µm per pixel.
    dense : DenseLayer
        The partner: colours, channels or outlines.
    kind : {"rigid", "similarity", "affine"}
        Kind of the transform. A rigid one cannot mend a wrong µm/px, so none is tried.
    landmarks_um : tuple of ndarray, optional
        Both ``(n, 2)``, (y, x) in µm, sparse and dense world. They are not used for the
        search: they judge it.
    cancel : CancelToken
        Asked often.

    Yields
    ------
    float or Found
        Share of the work done, 0 to 1; at the end what was found.

    Raises
    ------
    InputError
        If a layer is the same everywhere, or SimpleITK is not installed.
    ComputeError
        If there is no place at all where both could be compared.
    Cancelled
        When asked to stop.
    """
    simpleitk()
    ours, theirs = take_thumbnails(sparse), take_thumbnails(dense.slide, dense)
    looks = tuple(zip(ours, theirs, strict=True))
    pair = _Pair(looks, kind, dense.kind != "image", cancel)
    search = _Search(pair)
    for share in search.run():
        yield 0.9 * share
    best = search.places
    if not best:
        msg = (
            f"{dense.name} and {sparse.name} could not be compared anywhere: place "
            "landmarks."
        )
        raise ComputeError(msg)
    # The best other place is refined alike, so that the margin is fair.
    final = pair.apart([pair.finished(place) for place in best[:_FINALISTS]])
    yield 1.0
    margin = final[0].score - (final[1].score if len(final) > 1 else 0.0)
    yield _found(final[0], margin, kind, dense, landmarks_um)


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    matrix: Doubles
    verdict: BlockVerdict
    look: int

    @property
    def score(self) -> float:
        return self.verdict.score


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """Both layers, in each of the ways to look at them."""

    looks: tuple[tuple[GreyThumbnail, GreyThumbnail], ...]
    kind: RegistrationKind
    either_sign: bool
    cancel: CancelToken

    def verdict(
        self, look: int, matrix: Doubles, frames_px: tuple[int, ...] = FRAMES_PX
    ) -> BlockVerdict:
        signs = self.either_sign
        return ask_at_sizes(
            *self.looks[look], matrix, either_sign=signs, frames_px=frames_px
        )

    def vote(self, look: int, matrix: Doubles) -> Vote | None:
        laid = lay(*self.looks[look], matrix, _COARSE_PX)
        if laid is None:
            return None
        rigid = self.kind == "rigid"
        said = vote(laid, either_sign=self.either_sign, rigid=rigid)
        return said if said is not None and _flat(said.matrix) else None

    def fitted(
        self, look: int, start: Doubles, px: int, kind: RegistrationKind
    ) -> Doubles | None:
        """Return a place refined; None where there is too little to compare."""
        laid = lay(*self.looks[look], start, px)
        if laid is None or laid.inside.sum() < _LEAST_PX or min(laid.sparse.shape) < 16:
            return None
        optimiser = Optimiser(
            laid,
            kind,
            self.cancel,
            budget_s=_BUDGET_S,
            bounded=True,
            rounds=40 if px == _COARSE_PX else 80,
        )
        # All the same: pixels that are as large as those of the coarser frames.
        shrink = FAR if px > _MIDDLE_PX else (2, 1)
        try:
            matrix = start @ optimiser.run(np.eye(3), shrink)
        except ComputeError:
            return None  # a wrong start has drifted off the section
        return matrix if _flat(matrix) else None

    def finished(self, place: _Place) -> _Place:
        """Return a place with the transform asked for, as fine as blocks agree."""
        best = self._looked_at_both(place, _MIDDLE_PX)
        for look in range(len(self.looks)):
            guided = self._guided(look, best)
            best = guided if guided.score > _BETTER * best.score else best
        return self._looked_at_both(best, _FINE_PX) if best.verdict.fine else best

    def _looked_at_both(self, place: _Place, px: int) -> _Place:
        """Return the mean of the fits with either look, if blocks agree as well."""
        looks = range(len(self.looks))
        fits = [self.fitted(look, place.matrix, px, self.kind) for look in looks]
        known = [matrix for matrix in fits if matrix is not None]
        if not known:
            return place
        mean = self._seen(np.mean(known, axis=0))
        return mean if mean.score > _LOST * place.score else place

    def _guided(self, look: int, place: _Place) -> _Place:
        """Return a place as the blocks would have it."""
        laid = lay(*self.looks[look], place.matrix, _MIDDLE_PX)
        if laid is None:
            return place
        matrix = guided_by_blocks(laid, self.kind, either_sign=self.either_sign)
        if matrix is None or not _flat(matrix):
            return place
        return self._seen(matrix)

    def _seen(self, matrix: Doubles) -> _Place:
        """Return a place with the better verdict of either look."""
        verdicts = [self.verdict(look, matrix) for look in range(len(self.looks))]
        look = int(np.argmax([verdict.score for verdict in verdicts]))
        return _Place(matrix, verdicts[look], look)

    def apart(self, places: list[_Place]) -> list[_Place]:
        """Return places best first, without those that are nearly a better one."""
        ordered = sorted(places, key=lambda place: -place.score)
        kept = self.distinct([place.matrix for place in ordered], 2 * _APART)
        return [ordered[k] for k in kept]

    def distinct(
        self, matrices: list[Doubles], apart: float, most: int | None = None
    ) -> list[int]:
        """Return which places are farther than a share of the section from others."""
        sparse = self.looks[0][0]
        corners = sparse.corners_um
        kept: list[int] = []
        laid = np.empty((0, 4, 2))
        for number, matrix in enumerate(matrices):
            scale = float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
            there = apply(matrix, corners)
            away = np.linalg.norm(laid - there, axis=-1).max(-1, initial=0.0) / scale
            if (away > apart * sparse.size_um.max()).all():
                kept.append(number)
                laid = np.concatenate([laid, there[None]])
            if len(kept) == most:
                break
        return kept


class _Search:
    """The search, with every look at both layers.

    Nuclei are in every stain, but pale in some; all that lies there is marker in some.
    """

    def __init__(self, pair: _Pair) -> None:
        self._pair = pair
        self._seen: tuple[list[Place], ...] = tuple([] for _ in pair.looks)
        self.places: list[_Place] = []

    def run(self) -> Iterator[float]:
        """Fill ``places``, best first and all apart; yield the share done."""
        pair = self._pair
        groups = ((1.0,),) if pair.kind == "rigid" else (NEAR_SCALES, FAR_SCALES)
        done = 0.0
        for scales in groups:
            for _ in self._looked(scales):
                done += 0.3 / len(scales) / len(pair.looks) / len(groups)
                yield done
            # What the first scales did not show among few, all must show among many.
            last = scales is groups[-1]
            for _ in self._tried(*(_MANY if last else _FEW)):
                done = min(0.9, done + 0.1)
                yield done
            if _clear(pair.apart(self.places)):
                break
        finalists = pair.apart(self.places)[:_FINALISTS]
        self.places = []
        for place in finalists:
            self._add(place.look, place.matrix, _MIDDLE_PX)
        self.places = pair.apart(self.places)
        yield 1.0

    def _looked(self, scales: tuple[float, ...]) -> Iterator[None]:
        pair = self._pair
        for look, pictures in enumerate(pair.looks):
            looked = look_for_places(
                *pictures, scales, either_sign=pair.either_sign, cancel=pair.cancel
            )
            for places in looked:
                self._seen[look].extend(places)
                yield

    def _tried(self, votes: int, most: int) -> Iterator[int]:
        """Add the likeliest places refined, batch by batch; yield how many."""
        for number, (look, start) in enumerate(self._likeliest(votes, most)):
            self._add(look, start, _COARSE_PX, _FIRST_PX)
            if number % _BATCH == _BATCH - 1:
                yield number
                if _clear(self._pair.apart(self.places)):
                    break

    def _likeliest(self, votes: int, most: int) -> list[tuple[int, Doubles]]:
        """Return where most blocks vote for, and a few that look alike as a whole."""
        pair = self._pair
        voted: list[tuple[float, int, Doubles]] = []
        alike: list[tuple[int, int, Doubles]] = []
        for look, seen in enumerate(self._seen):
            seen.sort(key=lambda place: -place.score)
            matrices = [place.matrix for place in seen[: _LOOKED_AT * votes]]
            starts = pair.distinct(matrices, _APART, votes)
            alike += [(n, look, matrices[k]) for n, k in enumerate(starts[:most])]
            for start in starts:
                pair.cancel.check()
                said = pair.vote(look, matrices[start])
                if said is not None:
                    voted.append((said.score, look, said.matrix))
        voted.sort(key=lambda one: -one[0])
        kept = pair.distinct([matrix for *_, matrix in voted], _APART, most)
        likeliest = [voted[k][1:] for k in kept]
        # After every two that were voted for, one that looks alike as a whole.
        alike.sort(key=lambda one: one[0])
        for number, one in enumerate(alike[:most]):
            likeliest.insert(3 * number + 2, one[1:])
        return likeliest

    def _add(
        self,
        look: int,
        start: Doubles,
        px: int,
        frames_px: tuple[int, ...] = FRAMES_PX,
    ) -> None:
        pair = self._pair
        kind: RegistrationKind = "rigid" if pair.kind == "rigid" else "similarity"
        matrix = pair.fitted(look, start, px, kind)
        if matrix is not None:
            seen = pair.verdict(look, matrix, frames_px)
            self.places.append(_Place(matrix, seen, look))


def _flat(matrix: Doubles) -> bool:
    stretch = np.linalg.svd(matrix[:2, :2], compute_uv=False)
    return bool(stretch[0] < _MOST_STRETCH * stretch[1])


def least_margin(score: float) -> float:
    """Return the margin from which a place of a score is accepted."""
    return max(LEAST_MARGIN, LEAST_TOGETHER - score)


def _clear(places: list[_Place]) -> bool:
    """Whether the first of several places stands out beyond doubt."""
    if len(places) < 2:
        return False
    best, other = places[0].score, places[1].score
    return best > 2 * LEAST_SCORE and best - other > 2 * LEAST_MARGIN


def _found(
    place: _Place,
    margin: float,
    kind: RegistrationKind,
    dense: DenseLayer,
    landmarks_um: tuple[Doubles, Doubles] | None,
) -> Found:
    matrix, score = place.matrix, place.score
    off, inliers = np.empty(0), np.ones(0, np.bool_)
    reasons = []
    if score < LEAST_FOUND:
        reasons.append(
            "the layers look no more alike there than layers that do not belong "
            "together: place landmarks, or choose another partner."
        )
    elif margin < least_margin(score):
        reasons.append(
            "another place fits nearly as well, so it may be the wrong one: place "
            "landmarks."
        )
    if landmarks_um is not None and len(landmarks_um[0]):
        off, inliers, worse = _at_landmarks(matrix, kind, dense, landmarks_um)
        reasons += [worse] if worse else []
    registration = Registration(kind, matrix, off, inliers, place.verdict.error_um)
    mirrored = registration.mirrored
    turn = matrix[:2, :2] @ np.diag([1.0, -1.0 if mirrored else 1.0])
    degrees = np.degrees(np.arctan2(turn[1, 0], turn[0, 0]))
    return Found(
        registration=registration,
        score=score,
        margin=margin,
        accepted=not reasons,
        reasons=tuple(reasons),
        turns=round(degrees / 90) % 4,
        mirrored=mirrored,
        scale=registration.scale,
    )


def _at_landmarks(
    matrix: Doubles,
    kind: RegistrationKind,
    dense: DenseLayer,
    landmarks_um: tuple[Doubles, Doubles],
) -> tuple[Doubles, npt.NDArray[np.bool_], str]:
    """Return the errors at landmarks, which are in use, and why they object."""
    here, there = landmarks_um
    off = np.linalg.norm(apply(matrix, here) - there, axis=1)
    inliers = np.ones(len(off), np.bool_)
    before = np.linalg.norm(apply(dense.matrix, here) - there, axis=1)
    if len(here) > FEWEST[kind]:
        try:
            known = fit_landmarks(
                here, there, kind, mirrored=bool(np.linalg.det(matrix[:2, :2]) < 0)
            )
        except InputError:
            pass  # on a line: they say only how the layers lie now
        else:
            inliers = known.inliers
            if np.isfinite(known.residuals_um[inliers]).all():
                before = known.residuals_um
    # Below a hand's own error, landmarks cannot object.
    exact = np.median(off[inliers]) < CELL_UM
    if exact or not grown(before[inliers], off[inliers]):
        return off, inliers, ""
    return (
        *(off, inliers),
        f"landmarks would be off by {np.median(off[inliers]):.1f} µm instead of "
        f"{np.median(before[inliers]):.1f} µm (median).",
    )
