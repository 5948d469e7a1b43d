"""Refinement of a registration by the likeness of the two layers.

Landmarks are as exact as a hand can click. From there, SimpleITK moves the partner
until its grey values predict those of the H&E best (mutual information, Mattes et al.
2003), on overviews of a few µm per pixel. A larger number alone proves nothing, so a
refinement is kept only if landmarks that it never saw agree at least as well, or, where
there are too few of them, if the layers are distinctly more alike here than in
positions that are certainly wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.distill.layers.blocks import (
    LEAST_SCORE,
    BlockVerdict,
    ask_at_sizes,
)
from napari_histodistill.distill.layers.likeness import (
    Overviews,
    agreement_under,
    distinctness,
)
from napari_histodistill.distill.layers.optimising import FAR, Optimiser
from napari_histodistill.distill.layers.registration import (
    CELL_UM,
    FEWEST,
    Registration,
    RegistrationKind,
    apply,
    fit_landmarks,
    inverse,
    is_mirrored,
)
from napari_histodistill.distill.layers.thumbnails import GreyThumbnail, Laid
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from napari_histodistill.running import CancelToken

    Doubles = npt.NDArray[np.float64]
    Bools = npt.NDArray[np.bool_]

BUDGET_S = 60.0
"""Seconds after which the search ends with the best result so far."""

DISTINCT = 1.25
"""Required ratio of the agreement to the best agreement in wrong positions. Serial
sections and two stains of one section gave 1.5 and more, unrelated slides 0.9 and less.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Refinement:
    """The result of a refinement.

    Attributes
    ----------
    before, after : Registration or None, Registration
        The registrations; ``after`` is to be used only if ``accepted``.
    accepted : bool
        Whether the refinement is no worse than the start.
    moved_um : float
        Distance by which the common tissue is moved, root mean square, µm.
    errors_um : tuple of float or None
        Median error at the landmarks before and after, µm; None where they cannot be
        determined.
    held_out : bool
        Whether these are landmarks that neither the fit nor the refinement had seen:
        each half judges the result of the other. The residuals of ``after`` are then
        these errors; otherwise they are those at the landmarks of the start.
    agreement : tuple of float
        Mutual information of the overviews in bits, before and after.
    why_not : str
        Reason why it must not be used, half a sentence; empty if accepted.
    """

    before: Registration | None
    after: Registration
    accepted: bool
    moved_um: float
    errors_um: tuple[float, float] | None
    held_out: bool
    agreement: tuple[float, float]
    why_not: str


def refine(
    overviews: Overviews,
    kind: RegistrationKind,
    *,
    before: Registration | None = None,
    landmarks_um: tuple[Doubles, Doubles] | None = None,
    cancel: CancelToken,
    budget_s: float = BUDGET_S,
) -> Iterator[Refinement | float]:
    """Refine an alignment, and judge the result by data that it never saw.

    Parameters
    ----------
    overviews : Overviews
        Overviews of both layers.
    kind : {"rigid", "similarity", "affine"}
        Kind of the transform that is added to the start.
    before : Registration, optional
        Registration that the start comes from; without it, the search begins coarser.
    landmarks_um : tuple of ndarray, optional
        Landmarks of ``before``: both ``(n, 2)``, sparse and dense world. With enough of
        them, each half is fitted and refined, and judged at the other half.
    cancel : CancelToken
        Checked in every iteration.
    budget_s : float
        Seconds after which the search ends with the best result so far.

    Yields
    ------
    float or Refinement
        Share of the work done, 0 to 1; at the end the refinement.

    Raises
    ------
    InputError
        If SimpleITK is not installed.
    ComputeError
        If SimpleITK fails.
    Cancelled
        When asked to stop.
    """
    halves = _halves(before, landmarks_um, kind)
    rounds = 1 + len(halves)
    laid = Laid(
        overviews.sparse,
        overviews.dense,
        overviews.common,
        overviews.um_per_px,
        overviews.origin_um,
        overviews.start,
    )
    search = Optimiser(laid, kind, cancel, budget_s=budget_s / (rounds + 1))
    step = search.run(np.eye(3))
    if before is None:
        # A coarse start reaches farther, but may get lost in fine texture.
        other = search.run(np.eye(3), FAR)
        step = max(step, other, key=lambda s: agreement_under(overviews, s))
    yield 1 / rounds
    matrix = overviews.start @ step
    off = _off(before, landmarks_um, matrix)
    started = off.copy()
    for number, (fitted, judged) in enumerate(halves):
        assert landmarks_um is not None
        sparse, dense = landmarks_um
        start = fit_landmarks(
            sparse[fitted], dense[fitted], kind, mirrored=is_mirrored(overviews.start)
        ).matrix
        onward = overviews.start @ search.run(inverse(overviews.start) @ start)
        for errors, found in ((started, start), (off, onward)):
            errors[judged] = _errors(found, sparse[judged], dense[judged])
        yield (2 + number) / rounds
    inliers = np.ones(0, np.bool_) if before is None else before.inliers
    if before is not None and not halves:
        started = before.residuals_um
    yield _judged(
        overviews,
        step,
        before,
        Registration(kind, matrix, off, inliers),
        started[inliers],
        held_out=bool(halves),
    )


def _judged(
    overviews: Overviews,
    step: Doubles,
    before: Registration | None,
    after: Registration,
    started: Doubles,
    *,
    held_out: bool,
) -> Refinement:
    bits = agreement_under(overviews, np.eye(3)), agreement_under(overviews, step)
    verdict = _asked(overviews, step)
    stated = verdict.error_um * after.scale
    if np.isfinite(stated):
        after = replace(after, stated_um=stated)
    ended = after.residuals_um[after.inliers]
    errors = None
    if np.isfinite(started).any():
        errors = float(np.nanmedian(started)), float(np.nanmedian(ended))
    why_not = ""
    if distinctness(overviews, step) < DISTINCT:
        why_not = (
            "the layers look no more alike here than in positions that are certainly "
            "wrong: place landmarks, or choose another partner."
        )
    elif errors is not None and grown(started, ended):
        unseen = "held-out " if held_out else ""
        why_not = (
            f"{unseen}landmarks would be off by {errors[1]:.1f} µm instead of "
            f"{errors[0]:.1f} µm (median)."
        )
    elif errors is None and verdict.score < LEAST_SCORE:
        why_not = (
            "the layers look no more alike here than layers that do not belong "
            "together: place landmarks, or turn or mirror the partner first."
        )
    elif bits[1] <= bits[0]:
        why_not = "nothing was found that fits better than the present alignment."
    return Refinement(
        before=before,
        after=after,
        accepted=not why_not,
        moved_um=_moved_um(overviews, step),
        errors_um=errors,
        held_out=held_out and errors is not None,
        agreement=bits,
        why_not=why_not,
    )


def _asked(overviews: Overviews, step: Doubles) -> BlockVerdict:
    """Return what blocks say of the partner, moved by a step; its error in sparse µm.

    Turned, mirrored or of a wrong size, layers were found to agree *more than before*
    hundreds of µm from where they belong.
    """
    um = overviews.um_per_px
    corner = overviews.origin_um[0] - um / 2, overviews.origin_um[1] - um / 2
    sparse, dense = (
        GreyThumbnail.of(grey, um, corner)
        for grey in (overviews.sparse, overviews.dense)
    )
    return ask_at_sizes(sparse, dense, step, either_sign=overviews.either_sign)


def grown(started: Doubles, ended: Doubles) -> bool:
    """Return whether errors grew, by more than a hand's own, or than they scatter.

    Landmarks are clicked to some µm: a few of them may well seem a little farther off
    under the true transform.

    Parameters
    ----------
    started, ended : ndarray
        ``(n,)`` µm, before and after.
    """
    more = (ended - started)[np.isfinite(started)]
    by = np.median(ended) - np.nanmedian(started)
    if by <= 0 or by > CELL_UM:
        return bool(by > 0)
    scatter = more.std(ddof=1) / math.sqrt(len(more)) if len(more) > 1 else 0.0
    return bool(more.mean() > scatter)


def _errors(matrix: Doubles, sparse: Doubles, dense: Doubles) -> Doubles:
    off: Doubles = np.linalg.norm(apply(matrix, sparse) - dense, axis=1)
    return off


def _off(
    before: Registration | None,
    landmarks_um: tuple[Doubles, Doubles] | None,
    matrix: Doubles,
) -> Doubles:
    """Return the error at every landmark; residuals, where landmarks are not given."""
    if before is None:
        return np.empty(0)
    if landmarks_um is None or len(landmarks_um[0]) != len(before.residuals_um):
        return before.residuals_um.copy()
    return _errors(matrix, *landmarks_um)


def _halves(
    before: Registration | None,
    landmarks_um: tuple[Doubles, Doubles] | None,
    kind: RegistrationKind,
) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Return (fitted, judged) rows, twice; nothing if they would be too few."""
    if before is None or landmarks_um is None:
        return []
    used = np.flatnonzero(before.inliers)
    if len(landmarks_um[0]) != len(before.inliers) or (
        len(used) < 2 * (FEWEST[kind] + 1)
    ):
        return []
    first, second = used[::2], used[1::2]
    try:
        for rows in (first, second):
            fit_landmarks(
                landmarks_um[0][rows],
                landmarks_um[1][rows],
                kind,
                mirrored=before.mirrored,
            )
    except InputError:
        return []  # half of them lie on a line
    return [(first, second), (second, first)]


def _moved_um(overviews: Overviews, step: Doubles) -> float:
    places = np.argwhere(overviews.common)[:: max(1, overviews.common.sum() // 2000)]
    points = places * overviews.um_per_px + np.array(overviews.origin_um)
    off = np.linalg.norm(apply(step, points) - points, axis=1)
    return float(np.sqrt((off**2).mean()))
