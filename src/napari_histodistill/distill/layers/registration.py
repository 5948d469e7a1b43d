"""Registration: the matrix from the sparse image to the dense one, from landmarks.

Positions are ``(y, x)`` in µm, each in the world of its own image. A registration
maps the sparse world to the dense one, so that for every sparse tile the partner can be
read.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_histodistill.errors import InputError
from napari_histodistill.files import is_plain, write_whole

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    Points = npt.NDArray[np.float64]

RegistrationKind = Literal["rigid", "similarity", "affine"]
KINDS: tuple[RegistrationKind, ...] = ("rigid", "similarity", "affine")
FEWEST = {"rigid": 2, "similarity": 2, "affine": 3}
"""Landmarks that determine each kind; one more is needed to judge the fit."""

AFFINE_FROM = 6
"""Landmarks from which an affine transform is fitted, if nothing else is said."""

CELL_UM = 3.5
"""Half a lymphocyte's nucleus, µm: with a smaller error, a cell meets itself."""

FEWEST_SIDED, SIDED = 4, 3.0
"""Landmarks that tell a mirrored partner from one that is not, and how many times
smaller their median residual must be from the other side."""

_FORMAT = "napari-histodistill registration"
_MAX_BYTES = 2**24
_MOST = 10_000
_DRAWS = 500
_SIGMAS = 2.5


@dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """A transform with its evidence.

    Attributes
    ----------
    kind : {"rigid", "similarity", "affine"}
        Kind of the transform.
    matrix : ndarray
        ``(3, 3)`` float64: (y, x, 1) in the sparse world to (y, x, 1) in the dense.
    residuals_um : ndarray
        ``(n,)``, µm in the dense world, for every landmark: the distance from where it
        was clicked to where a transform that is fitted *without* it puts it. NaN where
        too few others are left to fit one.
    inliers : ndarray
        ``(n,)`` bool: landmarks that the fit uses.
    stated_um : float or None
        Median error in µm of the dense world, as estimated from the pictures alone;
        None where nobody estimated it.
    """

    kind: RegistrationKind
    matrix: Points
    residuals_um: Points
    inliers: npt.NDArray[np.bool_]
    stated_um: float | None = None

    @property
    def median_um(self) -> float:
        """Median residual of the landmarks in use, µm; NaN if none can be judged."""
        used = self.residuals_um[self.inliers]
        used = used[np.isfinite(used)]
        return float(np.median(used)) if len(used) else float("nan")

    @property
    def error_um(self) -> float:
        """Median error, µm: at landmarks where they can judge, else as stated.

        NaN if neither is known.
        """
        if np.isfinite(self.median_um) or self.stated_um is None:
            return self.median_um
        return self.stated_um

    @property
    def worst(self) -> int | None:
        """Index of the landmark that fits worst; None if none can be judged."""
        if not np.isfinite(self.residuals_um).any():
            return None
        return int(np.nanargmax(self.residuals_um))

    @property
    def scale(self) -> float:
        """How much larger tissue is on the dense image: 1 if both µm/px are right."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix[:2, :2]))))

    @property
    def mirrored(self) -> bool:
        """Whether the dense image shows the tissue from the other side."""
        return is_mirrored(self.matrix)

    @property
    def degrees(self) -> float:
        """Rotation from sparse to dense, counter-clockwise as seen on screen.

        Of a mirrored one: before it is mirrored left to right.
        """
        across = -self.matrix[1, 1] if self.mirrored else self.matrix[1, 1]
        return float(np.degrees(np.arctan2(-self.matrix[0, 1], across))) + 0.0

    def to_dense(self, points: Points) -> Points:
        """Return ``(n, 2)`` µm of the dense world for ``(n, 2)`` of the sparse."""
        return apply(self.matrix, points)

    def to_sparse(self, points: Points) -> Points:
        """Return ``(n, 2)`` µm of the sparse world for ``(n, 2)`` of the dense."""
        return apply(inverse(self.matrix), points)

    def confidence(self, tile_um: float) -> float:
        """Return the share of a tile that its partner surely shows, 0 to 1.

        A partner that is off by the median error r in an unknown direction still
        covers at least (1 - r / tile)² of a square tile.

        Raises
        ------
        InputError
            If there are too few landmarks to judge the error, and none is stated.
        """
        if not np.isfinite(self.error_um):
            msg = (
                f"the registration cannot be judged: place {FEWEST[self.kind] + 1} "
                "or more landmarks."
            )
            raise InputError(msg)
        share = max(0.0, 1 - self.error_um / tile_um)
        return share * share

    @property
    def cells_meet(self) -> bool:
        """Whether the error is small enough for cells to meet themselves."""
        return self.error_um < CELL_UM

    def smallest_tile_um(self, confidence: float = 0.8) -> float:
        """Return the tile edge (µm) from which a pair has this confidence."""
        return self.error_um / (1 - math.sqrt(confidence))


def is_mirrored(matrix: Points) -> bool:
    """Return whether a ``(3, 3)`` matrix turns right-handed into left-handed."""
    return bool(np.linalg.det(matrix[:2, :2]) < 0)


@dataclass(frozen=True, slots=True, eq=False)
class LandmarkPairs:
    """Places that were clicked on both images, row for row.

    Attributes
    ----------
    sparse_um, dense_um : ndarray
        ``(n, 2)`` float64, µm in either image's own world.
    sparse_px, dense_px : ndarray
        ``(n, 2)`` float64, level-0 pixels; the centre of the first is (0, 0).
    """

    sparse_um: Points
    dense_um: Points
    sparse_px: Points
    dense_px: Points

    def __len__(self) -> int:
        """Return how many places there are."""
        return len(self.sparse_um)

    @classmethod
    def measured(
        cls,
        sparse_um: Points,
        dense_um: Points,
        sparse_mpp: tuple[float, float],
        dense_mpp: tuple[float, float],
    ) -> LandmarkPairs:
        """Return landmarks in µm with their pixels.

        Parameters
        ----------
        sparse_um, dense_um : ndarray
            ``(n, 2)``.
        sparse_mpp, dense_mpp : tuple of float
            µm per level-0 pixel ``(y, x)``.
        """
        return cls(
            sparse_um,
            dense_um,
            sparse_um / np.array(sparse_mpp),
            dense_um / np.array(dense_mpp),
        )

    def content(self) -> dict[str, Any]:
        """Return them for JSON."""
        return {
            "names": [str(k + 1) for k in range(len(self))],
            "sparse": {"name": "H&E", "um": _listed(self.sparse_um)}
            | {"px": _listed(self.sparse_px)},
            "dense": {"name": "partner", "um": _listed(self.dense_um)}
            | {"px": _listed(self.dense_px)},
        }

    @classmethod
    def read(cls, content: dict[str, Any]) -> LandmarkPairs:
        """Return what :meth:`content` gave.

        Raises
        ------
        ValueError
            If these are no landmarks.
        """
        sides = [
            np.array(content[side][unit], np.float64).reshape(-1, 2)
            for unit in ("um", "px")
            for side in ("sparse", "dense")
        ]
        fit = len({len(x) for x in sides}) == 1 and len(sides[0]) <= _MOST
        if not fit or not all(np.isfinite(x).all() for x in sides):
            msg = "its landmarks are not pairs of places"
            raise ValueError(msg)
        return cls(*sides)


def inverse(matrix: Points) -> Points:
    """Return the inverse of a ``(3, 3)`` matrix."""
    back: Points = np.linalg.inv(matrix).astype(np.float64)
    return back


def apply(matrix: Points, points: Points) -> Points:
    """Return points ``(n, 2)`` transformed by a ``(3, 3)`` matrix."""
    mapped: Points = points @ matrix[:2, :2].T + matrix[:2, 2]
    return mapped


def kind_that_fits(landmarks: int) -> RegistrationKind:
    """Return the kind that so many landmarks are fitted by, if nobody says which."""
    return "affine" if landmarks >= AFFINE_FROM else "similarity"


def fit_landmarks(
    sparse_um: Points,
    dense_um: Points,
    kind: RegistrationKind = "similarity",
    *,
    mirrored: bool = False,
    seed: int = 0,
) -> Registration:
    """Fit a transform to landmarks, and leave out those that contradict the others.

    With at least two more landmarks than the transform needs, outliers are found by
    least median of squares (Rousseeuw 1984): like RANSAC it fits random minimal sets,
    but it needs no threshold in µm, which is not known beforehand. The transform is
    then the least-squares fit to the rest.

    Parameters
    ----------
    sparse_um, dense_um : ndarray
        ``(n, 2)`` float, row for row the same place in both worlds.
    kind : {"rigid", "similarity", "affine"}
        Rotation and shift; these and one scale; any affine map.
    mirrored : bool
        Whether a rigid or similarity transform also mirrors, which it otherwise cannot.
    seed : int
        Seed of the random minimal sets.

    Raises
    ------
    InputError
        If landmarks are too few, unequal in number, or lie on a line or a point.
    """
    _check(sparse_um, dense_um, kind)
    if mirrored and kind != "affine":
        found = fit_landmarks(sparse_um, dense_um * (1, -1), kind, seed=seed)
        return replace(found, matrix=np.diag([1.0, -1.0, 1.0]) @ found.matrix)
    inliers = np.ones(len(sparse_um), np.bool_)
    if len(sparse_um) >= FEWEST[kind] + 2:
        inliers = _agreeing(sparse_um, dense_um, kind, seed)
    matrix = _fit(sparse_um[inliers], dense_um[inliers], kind)
    if matrix is None:
        raise InputError(_degenerate(kind))
    residuals = np.array(
        [
            _left_out(sparse_um, dense_um, kind, inliers, place)
            for place in range(len(sparse_um))
        ]
    )
    return Registration(kind, matrix, residuals, inliers)


def fit_from_other_side(
    sparse_um: Points, dense_um: Points, known: Registration
) -> Registration | None:
    """Return the fit of a partner seen from the other side, if landmarks say it is.

    Rigid and similarity transforms cannot mirror, however many landmarks are set.

    Parameters
    ----------
    sparse_um, dense_um : ndarray
        ``(n, 2)`` float, row for row the same place in both worlds.
    known : Registration
        Their fit.

    Returns
    -------
    Registration or None
        A fit that mirrors where ``known`` does not, or the other way round. None if it
        is not several times better, or there are too few landmarks to tell.
    """
    if known.kind == "affine" or len(sparse_um) < FEWEST_SIDED:
        return None
    try:
        other = fit_landmarks(
            sparse_um, dense_um, known.kind, mirrored=not known.mirrored
        )
    except InputError:
        return None
    # Of all landmarks: the wrong side may fit a few that lie on a line.
    now, then = (np.nanmedian(r.residuals_um) for r in (known, other))
    return other if then * SIDED < now else None


def write_registration(
    path: Path, registration: Registration, landmarks: LandmarkPairs | None = None
) -> None:
    """Write a registration as JSON.

    Parameters
    ----------
    path : Path
        What is there before is replaced.
    registration : Registration
        The transform with its evidence.
    landmarks : LandmarkPairs or None
        The places on both images, if they are known.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    content = registration_content(registration)
    if landmarks is not None:
        content["landmarks"] = landmarks.content()
    try:
        write_whole(path, json.dumps(content, indent=1) + "\n")
    except OSError as error:
        msg = f"{path} cannot be written ({error.strerror}): choose another place."
        raise InputError(msg) from error


def registration_content(registration: Registration) -> dict[str, Any]:
    """Return a registration for JSON."""
    stated = registration.stated_um
    return {
        "format": _FORMAT,
        "version": 1,
        "unit": "µm, (y, x), sparse world to dense world",
        "kind": registration.kind,
        "matrix": registration.matrix.tolist(),
        "residuals_um": [
            None if np.isnan(r) else float(r) for r in registration.residuals_um
        ],
        "inliers": registration.inliers.tolist(),
    } | ({} if stated is None else {"stated_um": stated})


def registration_of(content: dict[str, Any]) -> Registration:
    """Return the registration of what :func:`registration_content` gave.

    Raises
    ------
    ValueError, KeyError, TypeError
        If it is not one, or its numbers cannot be one.
    """
    if content["format"] != _FORMAT or content["kind"] not in KINDS:
        raise ValueError(content["format"])
    matrix = np.array(content["matrix"], np.float64)
    residuals = np.array(
        [np.nan if r is None else r for r in content["residuals_um"]], np.float64
    )
    inliers = np.array(content["inliers"], np.bool_)
    stated = content.get("stated_um")  # files from before say nothing
    stated = None if stated is None else float(stated)
    if stated is not None and not 0 <= stated < math.inf:
        msg = f"its stated error is {stated} µm"
        raise ValueError(msg)
    good = matrix.shape == (3, 3) and np.isfinite(matrix).all()
    if not good or abs(np.linalg.det(matrix)) < 1e-12 or len(residuals) != len(inliers):
        msg = "the matrix is not a registration: align the layers again"
        raise ValueError(msg)
    return Registration(content["kind"], matrix, residuals, inliers, stated)


def read_registration(path: Path) -> Registration:
    """Read a registration that :func:`write_registration` wrote.

    Raises
    ------
    InputError
        If it is not a registration, or its numbers cannot be one.
    """
    return read_alignment(path)[0]


def read_alignment(path: Path) -> tuple[Registration, LandmarkPairs | None]:
    """Read what :func:`write_registration` wrote; files from before have no landmarks.

    Raises
    ------
    InputError
        If it is not a registration, or its numbers cannot be one.
    """
    try:
        if not is_plain(path) or path.stat().st_size > _MAX_BYTES:
            msg = "a plain file of at most 16 MB is needed"
            raise ValueError(msg)
        content = json.loads(path.read_text(encoding="utf-8"))
        found = registration_of(content)
        places = content.get("landmarks")
        landmarks = None if places is None else LandmarkPairs.read(places)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        msg = f"{path} is not a registration that this program wrote ({error})."
        raise InputError(msg) from error
    return found, landmarks


def _listed(points: Points) -> list[list[float]]:
    listed: list[list[float]] = np.round(points, 4).tolist()
    return listed


def _check(sparse: Points, dense: Points, kind: RegistrationKind) -> None:
    if kind not in KINDS:
        msg = f"a registration is {', '.join(KINDS)}, not {kind!r}."
        raise InputError(msg)
    if sparse.shape != dense.shape or sparse.ndim != 2 or sparse.shape[1] != 2:
        msg = (
            f"there are {len(sparse)} landmarks on the H&E and {len(dense)} on the "
            "partner: every place must be clicked on both."
        )
        raise InputError(msg)
    if len(sparse) < FEWEST[kind]:
        msg = (
            f"{len(sparse)} landmarks are too few: {kind} needs {FEWEST[kind]}, and "
            "one more to see how well it fits."
        )
        raise InputError(msg)
    if not (np.isfinite(sparse).all() and np.isfinite(dense).all()):
        msg = "landmarks must be finite numbers: remove the one that is not."
        raise InputError(msg)


def _degenerate(kind: RegistrationKind) -> str:
    return (
        f"these landmarks do not determine a {kind} transform (they lie on one line or "
        "one point): spread them over the tissue."
    )


def _fit(sparse: Points, dense: Points, kind: RegistrationKind) -> Points | None:
    """Return the least-squares matrix ``(3, 3)``; None where it is undecided."""
    from skimage import transform

    shape = {
        "rigid": transform.EuclideanTransform,
        "similarity": transform.SimilarityTransform,
        "affine": transform.AffineTransform,
    }[kind]
    # Centred first, in units of the landmarks' own spread: positions in µm run into
    # tens of thousands, and their squares would cost digits.
    spread = max(float(np.abs(sparse - sparse.mean(0)).max()), 1e-9)
    shift_s, shift_d = sparse.mean(0), dense.mean(0)
    source, target = (sparse - shift_s) / spread, (dense - shift_d) / spread
    if kind == "affine" and np.linalg.matrix_rank(source, tol=1e-6) < 2:
        return None
    if np.abs(source).max() < 1e-6 or np.abs(target).max() < 1e-6:
        return None
    if hasattr(shape, "from_estimate"):  # scikit-image ≥ 0.26
        found = shape.from_estimate(source, target)
        if not found:
            return None
    else:
        found = shape()
        if not found.estimate(source, target):
            return None
    inner = np.asarray(found.params, np.float64)
    matrix = np.eye(3)
    matrix[:2, :2] = inner[:2, :2]
    matrix[:2, 2] = inner[:2, 2] * spread + shift_d - inner[:2, :2] @ shift_s
    whole = np.isfinite(matrix).all() and abs(np.linalg.det(matrix)) > 1e-9
    return matrix if whole else None


def _distances(matrix: Points, sparse: Points, dense: Points) -> Points:
    away: Points = np.linalg.norm(apply(matrix, sparse) - dense, axis=1)
    return away


def _agreeing(
    sparse: Points, dense: Points, kind: RegistrationKind, seed: int
) -> npt.NDArray[np.bool_]:
    count, fewest = len(sparse), FEWEST[kind]
    rng = np.random.default_rng(seed)
    ranks = rng.random((_DRAWS, count))
    rows = np.argpartition(ranks, fewest - 1, axis=1)[:, :fewest]
    # All at once: one by one, a refit takes as long as a person waits for a click.
    matrices = _through(sparse[rows], dense[rows], kind)
    if not len(matrices):
        raise InputError(_degenerate(kind))
    laid = sparse @ matrices[:, :2, :2].transpose(0, 2, 1) + matrices[:, None, :2, 2]
    medians = np.median(np.linalg.norm(laid - dense, axis=2), axis=1)
    best, smallest = matrices[medians.argmin()], float(medians.min())
    # Rousseeuw and Leroy's scale for few points; never below a hand's own error.
    sigma = max(1.4826 * (1 + 5 / (count - fewest)) * smallest, CELL_UM)
    agree: npt.NDArray[np.bool_] = _distances(best, sparse, dense) <= _SIGMAS * sigma
    return agree if agree.sum() >= fewest else np.ones(count, np.bool_)


def _through(sparse: Points, dense: Points, kind: RegistrationKind) -> Points:
    """Return the matrices ``(m, 3, 3)`` of minimal sets ``(n, fewest, 2)``.

    Sets that decide nothing (places on one line or point) have none.
    """
    source, target = sparse[:, 1:] - sparse[:, :1], dense[:, 1:] - dense[:, :1]
    if kind == "affine":
        flat = np.abs(np.linalg.det(source)) <= 1e-6 * (source**2).sum(axis=(1, 2))
        source = np.where(flat[:, None, None], np.eye(2), source)
        inner = np.linalg.solve(source, target).transpose(0, 2, 1)
    else:
        # As complex numbers y + ix: one divided by the other turns and scales.
        one, other = (x[:, 0] @ np.array([1, 1j]) for x in (source, target))
        flat = (one == 0) | (other == 0)
        turn = other / np.where(flat, 1, one)
        if kind == "rigid":
            turn /= np.where(flat, 1, np.abs(turn))
        inner = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
        inner = inner.transpose(2, 0, 1)
    matrices = np.tile(np.eye(3), (len(sparse), 1, 1))
    matrices[:, :2, :2] = inner
    laid = (inner @ sparse.mean(axis=1)[..., None])[..., 0]
    matrices[:, :2, 2] = dense.mean(axis=1) - laid
    decided: Points = matrices[~flat & (np.abs(np.linalg.det(inner)) > 1e-9)]
    return decided


def _left_out(
    sparse: Points,
    dense: Points,
    kind: RegistrationKind,
    inliers: npt.NDArray[np.bool_],
    place: int,
) -> float:
    others = inliers.copy()
    others[place] = False
    if others.sum() < FEWEST[kind]:
        return float("nan")
    matrix = _fit(sparse[others], dense[others], kind)
    if matrix is None:
        return float("nan")
    return float(_distances(matrix, sparse[[place]], dense[[place]])[0])
