"""How far own cases lie from each other, and a slide from them.

The statistics of a verdict; what is judged by them: ``students/trust.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Doubles = npt.NDArray[np.float64]
    AnyFloats = npt.NDArray[np.floating]

LOW, HIGH = 1 / 3, 2 / 3
"""Unlike: even the nearest third of the squares lies out; like: two thirds lie in."""
UNLIKE_SD, UNLIKE_P, LIKE_P = 5.0, 0.001, 0.05
TINY = 1e-9

_EXPLAINED = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class PrincipalGaussian:
    """A covariance of few own directions and noise (Tipping & Bishop 1999)."""

    directions: AnyFloats
    variances: AnyFloats
    noise: float

    @classmethod
    def of(cls, centred: Doubles, most: int) -> PrincipalGaussian:
        """Fit to centred rows ``(n, width)``: 95 % of the variance, ``most`` at most.

        More directions follow few cases so closely that unseen ones lie as far out as
        foreign tissue.
        """
        spread = centred.T @ centred / max(len(centred) - 1, 1)
        found, axes = np.linalg.eigh(spread)  # ascending; much faster than an SVD
        variances, directions = np.maximum(found[::-1], 0), axes.T[::-1]
        shares = np.cumsum(variances) / max(variances.sum(), TINY)
        width = centred.shape[1]
        keep = min(int(np.searchsorted(shares, _EXPLAINED)) + 1, most, width - 1)
        noise = max(float(variances[keep:].sum() / (width - keep)), TINY)
        return cls(directions[:keep], np.maximum(variances[:keep], noise), noise)

    def squared(self, centred: AnyFloats) -> Doubles:
        """Return squared Mahalanobis distances ``(n,)`` of centred rows."""
        rows = np.asarray(centred, np.float64)
        along = rows @ np.asarray(self.directions, np.float64).T
        rest = np.maximum((rows**2).sum(axis=1) - (along**2).sum(axis=1), 0)
        found: Doubles = (along**2 / self.variances).sum(axis=1) + rest / self.noise
        return found


@dataclass(frozen=True, slots=True)
class CaseLimits:
    """How a quantile of log distances varies between own cases, and within one.

    T_c is the quantile q of a case of m_c tiles; μ their median; σ² the pooled variance
    within cases; κ = q (1 - q) / φ(z_q)², so that κ σ² / n is a quantile's variance; τ²
    the variance of T_c less the mean of κ σ² / m_c, a quarter of it at least.
    """

    quantile: float
    mu: float
    tau: float
    sampling: float
    cases: int

    @classmethod
    def of(
        cls, values: AnyFloats, cases: npt.NDArray[np.generic], quantile: float
    ) -> CaseLimits:
        """Measure log distances ``(n,)`` of tiles of cases ``(n,)``, two at least."""
        from scipy.stats import norm

        names, member, counts = np.unique(
            cases, return_inverse=True, return_counts=True
        )
        member = member.reshape(-1)
        own = np.array(
            [np.quantile(values[member == k], quantile) for k in range(len(names))]
        )
        means = np.bincount(member, values) / counts
        apart = max(len(values) - len(names), 1)
        within = float(((values - means[member]) ** 2).sum() / apart)
        kappa = float(quantile * (1 - quantile) / norm.pdf(norm.ppf(quantile)) ** 2)
        between = float(own.var(ddof=1))
        tau2 = max(between - float((kappa * within / counts).mean()), between / 4)
        return cls(
            quantile, float(np.median(own)), tau2**0.5, kappa * within, len(names)
        )

    def above(self, squares: float, p: float, least: float = 0.0) -> float:
        """Return what a case of so many squares exceeds with probability p.

        Student's t for few cases; at least ``least`` τ. What chance adds to few squares
        is added in quadrature, at one in twenty.
        """
        from scipy.stats import norm
        from scipy.stats import t as student_t

        far = student_t.ppf(1 - p, self.cases - 1) * np.sqrt(1 + 1 / self.cases)
        chance = norm.ppf(0.95) ** 2 * self.sampling / squares
        return self.mu + float(np.sqrt((max(far, least) * self.tau) ** 2 + chance))


def lies_out(values: AnyFloats, low: CaseLimits) -> bool:
    """Whether even the nearest third of log distances ``(n,)``, n ≥ 1, lies out."""
    limit = low.above(len(values), UNLIKE_P, UNLIKE_SD)
    return bool(np.quantile(values, LOW) > limit)


def lies_in(values: AnyFloats, high: CaseLimits) -> bool:
    """Whether two thirds of log distances ``(n,)``, n ≥ 1, lie within own cases'."""
    return bool(np.quantile(values, HIGH) <= high.above(len(values), LIKE_P))
