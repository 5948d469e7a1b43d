"""Does it help? Intervals over sections and seeds, and a verdict that keeps to them."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.distill.scoring.helping import (
    FEWEST_SECTIONS,
    HelpVerdict,
    does_it_help,
    say_help,
)
from napari_histodistill.errors import InputError

TILES = 40


def labelled(rng, sections=12):
    where = np.repeat(np.arange(sections), TILES)
    return rng.integers(0, 3, len(where)), where


def predictions(rng, truth, where, skill, *, seeds=1, apart=0.0):
    """Return ``(seeds, n)``: right by a skill that varies by seed and by section."""
    hard = rng.normal(0, 0.05, where.max() + 1)
    found = []
    for _ in range(seeds):
        share = skill + rng.normal(0, apart) + hard[where]
        right = rng.random(len(truth)) < share
        found.append(np.where(right, truth, (truth + 1) % 3))
    return np.array(found)


def verdicts(effect, *, trials=60, seeds=3, apart=0.03):
    found = []
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        truth, where = labelled(rng)
        with_, without = (
            predictions(rng, truth, where, skill, seeds=seeds, apart=apart)
            for skill in (0.7 + effect, 0.7)
        )
        found.append(does_it_help(truth, with_, without, where).verdict)
    return found


def test_a_real_help_is_seen_and_a_real_harm():
    assert verdicts(0.15).count(HelpVerdict.HELPS) >= 57
    assert verdicts(-0.15).count(HelpVerdict.HARMS) >= 57


def test_nothing_is_found_where_nothing_is():
    """Of 60 trainings of no effect, whose seeds differ, hardly one is told to help."""
    for seeds in (2, 3):
        found = verdicts(0.0, seeds=seeds)
        assert found.count(HelpVerdict.WITHIN_NOISE) >= 52
    # One seed an arm: seeds are not covered, and it shows. That is why it is said.
    assert verdicts(0.0, seeds=1, apart=0.05).count(HelpVerdict.WITHIN_NOISE) < 45


def test_the_figures_are_those_of_the_tiles():
    rng = np.random.default_rng(1)
    truth, where = labelled(rng)
    with_ = np.stack([truth, np.where(truth == 2, 0, truth)])
    without = np.zeros((1, len(truth)), int)
    report = does_it_help(truth, with_, without, where)
    assert report.scores == pytest.approx((1.0, 2 / 3))
    assert report.against == pytest.approx((1 / 3,))
    assert report.difference == pytest.approx(5 / 6 - 1 / 3)
    assert report.interval.low < report.difference < report.interval.high
    assert (report.sections, report.tiles) == (12, 12 * TILES)
    assert not report.covers_seeds
    assert "One seed alone" in say_help(report)
    again = does_it_help(truth, with_, with_[:, ::1], where)
    assert again.covers_seeds
    assert again.verdict is HelpVerdict.WITHIN_NOISE
    assert say_help(again).startswith("Within noise")
    assert "One seed" not in say_help(again)


def test_few_sections_allow_no_verdict():
    rng = np.random.default_rng(2)
    truth, where = labelled(rng, sections=FEWEST_SECTIONS - 1)
    right, wrong = truth[None], (truth[None] + 1) % 3
    report = does_it_help(truth, right, wrong, where)
    assert report.verdict is HelpVerdict.TOO_FEW
    assert say_help(report).startswith("Too few cases")
    with pytest.raises(InputError, match="single section"):
        does_it_help(truth, right, wrong, np.zeros(len(truth)))
    with pytest.raises(InputError, match="same tiles"):
        does_it_help(truth, right, wrong[:, 1:], where)
