"""The automatic start: where a partner lies, found without a landmark, or refused.

Sections are mounted turned, upside down and cut, and files state wrong µm/px. So every
turn, side, scale and shift is looked at very small, the likeliest places are refined
alike, and then small blocks are asked, each on its own, whether they find themselves
where the place puts them. The best place is accepted only where far more blocks agree
than do for partners that do not belong together, and than in any other place. Its error
is stated by how far the blocks that agree lie off.

Only rigid, similarity and affine maps are fitted. A displacement field was measured on
two pairs of sections, and held-out landmarks gained no more than their noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.distill.layers.blocks import Agreement, agreement_of
from napari_histodistill.distill.layers.optimising import FAR, Optimiser, simpleitk
from napari_histodistill.distill.layers.places import look_for_places
from napari_histodistill.distill.layers.refinement import grown
from napari_histodistill.distill.layers.registration import (
    FEWEST,
    Registration,
    RegistrationKind,
    apply,
    fit_landmarks,
)
from napari_histodistill.distill.layers.thumbnails import (
    Thumbnail,
    lay,
    take_thumbnails,
)
from napari_histodistill.errors import ComputeError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from napari_histodistill.distill.layers.partners import DenseLayer
    from napari_histodistill.running import CancelToken
    from napari_histodistill.slides.pyramid.slide import Slide

    Doubles = npt.NDArray[np.float64]

SCALES = tuple(2 ** (k / 3) for k in range(-7, 8))
"""How much larger tissue may be on the partner than µm/px say: up to five times."""

LEAST_SCORE = 8.0
"""Score from which a place is accepted."""

LEAST_MARGIN = 4.0
"""Margin from which a place is accepted."""

_CANDIDATES, _BATCH, _FINALISTS = 32, 8, 3
_COARSE_PX, _MIDDLE_PX, _FINE_PX = 128, 256, 1024
_APART = 0.06
"""Places that differ by less than this share of the section are one."""

_BUDGET_S = 20.0
_LEAST_PX = 200
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
    searches = [
        _Search(one, other, kind, either_sign=dense.kind != "image", cancel=cancel)
        for one, other in zip(ours, theirs, strict=True)
    ]
    if ours[0] is ours[1] and theirs[0] is theirs[1]:
        searches = searches[:1]
    best: list[_Place] = []
    # Nuclei first: they are in every stain. If they do not tell, all that lies there.
    for number, search in enumerate(reversed(searches)):
        for share in search.run():
            yield 0.9 * (number + share) / len(searches)
        best = _apart([*search.places, *best], ours[0])
        if _clear(best):
            break
    if not best:
        msg = (
            f"{dense.name} and {sparse.name} could not be compared anywhere: place "
            "landmarks."
        )
        raise ComputeError(msg)
    final = best[0].search.finished(best[0])
    yield 1.0
    margin = final.score - (best[1].score if len(best) > 1 else 0.0)
    yield _found(final, margin, kind, dense, landmarks_um)


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    matrix: Doubles
    agreement: Agreement
    search: _Search

    @property
    def score(self) -> float:
        return self.agreement.score


class _Search:
    """The search with one look at both layers."""

    def __init__(
        self,
        sparse: Thumbnail,
        dense: Thumbnail,
        kind: RegistrationKind,
        *,
        either_sign: bool,
        cancel: CancelToken,
    ) -> None:
        self._sparse, self._dense, self._kind = sparse, dense, kind
        self._either_sign, self._cancel = either_sign, cancel
        self.places: list[_Place] = []

    def run(self) -> Iterator[float]:
        """Fill ``places``, best first and all apart; yield the share done."""
        scales = (1.0,) if self._kind == "rigid" else SCALES
        seen = []
        looked = look_for_places(
            self._sparse,
            self._dense,
            scales,
            either_sign=self._either_sign,
            cancel=self._cancel,
        )
        for number, places in enumerate(looked):
            seen += places
            yield 0.5 * (number + 1) / len(scales)
        seen.sort(key=lambda place: -place.score)
        starts = self._distinct([p.matrix for p in seen[:200]])[:_CANDIDATES]
        for first in range(0, len(starts), _BATCH):
            for start in starts[first : first + _BATCH]:
                self._add(start, _COARSE_PX)
            yield 0.5 + 0.4 * (first + _BATCH) / len(starts)
            if _clear(_apart(self.places, self._sparse)):
                break
        finalists = _apart(self.places, self._sparse)[:_FINALISTS]
        self.places = []
        for place in finalists:
            self._add(place.matrix, _MIDDLE_PX)
        self.places = _apart(self.places, self._sparse)
        yield 1.0

    def finished(self, place: _Place) -> _Place:
        """Return a place with the transform asked for, as fine as can be seen."""
        matrix = self._fitted(place.matrix, _FINE_PX, self._kind, FAR)
        if matrix is None:
            return place
        finer = _Place(matrix, self._agreement(matrix), self)
        # The finer look must not lose what the coarser one saw.
        return finer if finer.score > 0.8 * place.score else place

    def _add(self, start: Doubles, px: int) -> None:
        kind: RegistrationKind = "rigid" if self._kind == "rigid" else "similarity"
        matrix = self._fitted(start, px, kind, (2, 1))
        if matrix is not None and _flat(matrix):
            self.places.append(_Place(matrix, self._agreement(matrix), self))

    def _agreement(self, matrix: Doubles) -> Agreement:
        return agreement_of(
            self._sparse, self._dense, matrix, either_sign=self._either_sign
        )

    def _fitted(
        self,
        start: Doubles,
        px: int,
        kind: RegistrationKind,
        shrink: tuple[int, ...],
    ) -> Doubles | None:
        """Return a place refined; None where there is too little to compare."""
        laid = lay(self._sparse, self._dense, start, px)
        if laid is None or laid.inside.sum() < _LEAST_PX or min(laid.sparse.shape) < 16:
            return None
        optimiser = Optimiser(
            laid.sparse,
            laid.dense,
            laid.inside,
            um_per_px=laid.um,
            origin_um=laid.origin_um,
            kind=kind,
            cancel=self._cancel,
            budget_s=_BUDGET_S,
            reached=laid.inside,
        )
        try:
            return start @ optimiser.run(np.eye(3), shrink)
        except ComputeError:
            return None  # a wrong start has drifted off the section

    def _distinct(self, matrices: list[Doubles]) -> list[Doubles]:
        kept: list[Doubles] = []
        for matrix in matrices:
            if all(_gap(matrix, k, self._sparse) > _APART for k in kept):
                kept.append(matrix)
        return kept


def _flat(matrix: Doubles) -> bool:
    stretch = np.linalg.svd(matrix[:2, :2], compute_uv=False)
    return bool(stretch[0] < _MOST_STRETCH * stretch[1])


def _gap(one: Doubles, other: Doubles, sparse: Thumbnail) -> float:
    """Return how far two places are apart, as a share of the section."""
    corners = sparse.corners_um
    away = np.linalg.norm(apply(one, corners) - apply(other, corners), axis=1)
    scale = np.sqrt(abs(np.linalg.det(one[:2, :2])))
    return float(away.max() / scale / sparse.size_um.max())


def _apart(places: list[_Place], sparse: Thumbnail) -> list[_Place]:
    """Return places best first, without those that are nearly a better one."""
    kept: list[_Place] = []
    for place in sorted(places, key=lambda p: -p.score):
        if all(_gap(place.matrix, k.matrix, sparse) > 2 * _APART for k in kept):
            kept.append(place)
    return kept


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
    if score < LEAST_SCORE:
        reasons.append(
            "the layers look no more alike there than layers that do not belong "
            "together: place landmarks, or choose another partner."
        )
    elif margin < LEAST_MARGIN:
        reasons.append(
            "another place fits nearly as well, so it may be the wrong one: place "
            "landmarks."
        )
    if landmarks_um is not None and len(landmarks_um[0]):
        off, inliers, worse = _at_landmarks(matrix, kind, dense, landmarks_um)
        reasons += [worse] if worse else []
    registration = Registration(kind, matrix, off, inliers, place.agreement.error_um)
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
    if not grown(before[inliers], off[inliers]):
        return off, inliers, ""
    return (
        *(off, inliers),
        f"landmarks would be off by {np.median(off[inliers]):.1f} µm instead of "
        f"{np.median(before[inliers]):.1f} µm (median).",
    )
