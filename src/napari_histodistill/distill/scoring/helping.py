"""Does it help? One arm against another on labelled sections that neither has seen.

A pure function of truth and predictions. Two things make a difference uncertain: other
sections, and other seeds. Sections are drawn with replacement with all their tiles, the
same for both arms (a section that is hard for one is hard for the other); seeds are
drawn within each arm. With one seed an arm, the interval covers sections alone, and
says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.distill.scoring.scores import RESAMPLES, Interval, accuracies
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

    Labels = npt.NDArray[np.intp]

FEWEST_SECTIONS = 5
"""Sections that a verdict needs. With four, all of them better is one case in sixteen
by luck alone, and a bootstrap of so few has hardly any other outcome."""


class HelpVerdict(Enum):
    """Answer to *does it help?*; the value is its word in JSON."""

    HELPS = "helps"
    HARMS = "harms"
    WITHIN_NOISE = "within noise"
    TOO_FEW = "too few sections"


@dataclass(frozen=True, slots=True)
class HelpReport:
    """The difference in balanced accuracy of two arms.

    Attributes
    ----------
    difference : float
        Of the first arm's mean over seeds minus the second's.
    interval : Interval
        95 %, over sections, and over seeds where an arm has several.
    scores, against : tuple of float
        Balanced accuracy of every seed of the first arm, and of the second.
    sections, tiles : int
        Numbers that were judged.
    """

    difference: float
    interval: Interval
    scores: tuple[float, ...]
    against: tuple[float, ...]
    sections: int
    tiles: int

    @property
    def covers_seeds(self) -> bool:
        """Whether the interval covers what another seed would change."""
        return min(len(self.scores), len(self.against)) > 1

    @property
    def verdict(self) -> HelpVerdict:
        """What the interval says."""
        if self.sections < FEWEST_SECTIONS:
            return HelpVerdict.TOO_FEW
        if self.interval.low > 0:
            return HelpVerdict.HELPS
        if self.interval.high < 0:
            return HelpVerdict.HARMS
        return HelpVerdict.WITHIN_NOISE


def does_it_help(
    truth: Labels,
    predicted: Labels,
    against: Labels,
    sections: npt.NDArray[np.generic],
    *,
    seed: int = 0,
) -> HelpReport:
    """Compare two arms on the same tiles.

    Parameters
    ----------
    truth : ndarray
        ``(n,)`` int, class of each tile.
    predicted, against : ndarray
        ``(seeds, n)`` int, what every seed of the first and of the second arm says.
    sections : ndarray
        ``(n,)``, section, case or region of each tile.
    seed : int
        Seed of the resampling.

    Raises
    ------
    InputError
        If the numbers of tiles differ, or there is one section only.
    """
    if {predicted.shape[1], against.shape[1], len(sections)} != {len(truth)}:
        msg = "both arms must be judged on the same tiles."
        raise InputError(msg)
    names, member = np.unique(sections, return_inverse=True)
    if len(names) < 2:
        msg = "tiles of a single section say nothing of others: add labelled sections."
        raise InputError(msg)
    rng = np.random.default_rng(seed)
    count = len(names)
    draws = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES)
    arms = [
        _drawn_scores(truth, arm, member.reshape(-1), draws, rng)
        for arm in (predicted, against)
    ]
    low, high = np.percentile(arms[0] - arms[1], [2.5, 97.5])
    scores, others = (
        tuple(accuracies(truth, one)[1] for one in arm) for arm in (predicted, against)
    )
    return HelpReport(
        difference=float(np.mean(scores) - np.mean(others)),
        interval=Interval(float(low), float(high)),
        scores=scores,
        against=others,
        sections=count,
        tiles=len(truth),
    )


def _drawn_scores(
    truth: Labels,
    predicted: Labels,
    member: Labels,
    draws: npt.NDArray[np.intp],
    rng: np.random.Generator,
) -> npt.NDArray[np.float64]:
    """Return an arm's mean balanced accuracy in every resample, ``(draws,)``."""
    by_seed = np.stack([_balanced(truth, p, member, draws) for p in predicted], axis=1)
    seeds = by_seed.shape[1]
    if seeds == 1:
        return by_seed[:, 0]
    chosen = rng.integers(seeds, size=by_seed.shape)
    mean = by_seed.mean(axis=1)
    drawn = np.take_along_axis(by_seed, chosen, axis=1).mean(axis=1)
    # A resample of few spreads less than they do, by (n - 1) / n in variance.
    widened: npt.NDArray[np.float64] = mean + (drawn - mean) * np.sqrt(
        seeds / (seeds - 1)
    )
    return widened


def _balanced(
    truth: Labels, predicted: Labels, member: Labels, draws: npt.NDArray[np.intp]
) -> npt.NDArray[np.float64]:
    """Return balanced accuracy in every resample of sections, ``(draws,)``."""
    shape = draws.shape[1], int(truth.max()) + 1
    total, right = np.zeros(shape), np.zeros(shape)
    np.add.at(total, (member, truth), 1)
    np.add.at(right, (member, truth), truth == predicted)
    totals, rights = draws @ total, draws @ right
    there = totals > 0  # a rare class may be missing from a resample
    recalls = np.divide(rights, totals, out=np.zeros_like(rights), where=there)
    found: npt.NDArray[np.float64] = recalls.sum(axis=1) / there.sum(axis=1)
    return found


def say_help(report: HelpReport) -> str:
    """Return the answer in one or two sentences.

    The second arm is called the control: in a comparison of arms it has no partner.
    """
    low, high = report.interval.low, report.interval.high
    figures = (
        f"{np.mean(report.scores):.3f} against {np.mean(report.against):.3f} "
        f"({report.difference:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}; "
        f"{report.sections} cases, {len(report.scores)} and {len(report.against)} "
        "seeds)"
    )
    words = f"{_ANSWERS[report.verdict]} Balanced accuracy {figures}."
    return words + _caution(report)


def say_verdict(report: HelpReport) -> str:
    """Return the answer without its figures."""
    return _ANSWERS[report.verdict] + _caution(report)


def _caution(report: HelpReport) -> str:
    if report.covers_seeds:
        return ""
    return (
        " One seed alone may be turned round by another: the interval does not cover "
        "that."
    )


_ANSWERS = {
    HelpVerdict.HELPS: "It helps.",
    HelpVerdict.HARMS: "It harms.",
    HelpVerdict.WITHIN_NOISE: "Within noise: no difference can be told.",
    HelpVerdict.TOO_FEW: (
        f"Too few cases to say (at least {FEWEST_SECTIONS} are needed)."
    ),
}
