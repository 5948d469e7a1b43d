"""The reference that a bundle keeps: a Gaussian, and how far its own cases lie from it.

What is said of a slide by it: ``students/trust.py``.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.students.references.case_limits import (
    HIGH,
    LOW,
    TINY,
    CaseLimits,
    PrincipalGaussian,
)
from napari_histodistill.students.spec import STAGE_SOURCE, LookSpec, TrustSpec

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.slides.tissue.looks import Look
    from napari_histodistill.students.spec import StageSource

    Doubles = npt.NDArray[np.float64]
    AnyFloats = npt.NDArray[np.floating]

FEWEST_CASES, FEWEST_TILES = 3, 10
"""Below these nothing can be fitted."""
SQUARE_PERCENT = 99.0
"""A single square is unlike beyond this percentage of own tiles of unseen cases."""

_MOST, _ROWS_EACH = 64, 20
_FOLDS, _SEED = 5, 0
_LEAST_SCALE = 0.05


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
