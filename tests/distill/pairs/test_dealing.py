"""Partners dealt anew: each used once, none at home, none further than was said."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_histodistill.distill.pairs.dealing import (
    dealt_nearby,
    dealt_to_other_cases,
    dealt_within_cases,
)
from napari_histodistill.errors import TileFolderError


def random(seed=0):
    return np.random.default_rng(seed)


def lattice(side, step=1.0):
    return step * np.stack(np.mgrid[:side, :side], axis=-1).reshape(-1, 2)


@given(st.lists(st.integers(0, 4), min_size=2, max_size=40), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_partners_dealt_within_a_case_stay_in_it_and_none_at_home(cases, seed):
    cases = np.array(cases)
    rows, sizes = np.arange(len(cases)), np.bincount(cases)[cases]
    if sizes.max() == 1:
        with pytest.raises(TileFolderError, match="every case has a single pair"):
            dealt_within_cases(cases, random(seed))
        return
    drawn = dealt_within_cases(cases, random(seed))
    assert sorted(drawn) == rows.tolist()
    assert (cases[drawn] == cases).all()
    np.testing.assert_array_equal(drawn == rows, sizes == 1)


@pytest.mark.parametrize("step", [1.0, 200.0])
def test_partners_dealt_near_by_stay_within_the_steps_and_none_at_home(step):
    # Two sections that lie in the same place, in units that do not matter.
    positions = np.concatenate([lattice(6, step), lattice(6, step)])
    cases = np.repeat(["a", "b"], 36)
    seen = set()
    for seed in range(4):
        drawn = dealt_nearby(cases, positions, 1.5, random(seed))
        assert sorted(drawn) == list(range(72))
        assert (cases[drawn] == cases).all()
        far = np.linalg.norm(positions - positions[drawn], axis=1) / step
        assert far.min() >= 1
        assert far.max() <= 1.5
        seen.add(tuple(drawn))
        again = dealt_nearby(cases, positions, 1.5, random(seed))
        np.testing.assert_array_equal(drawn, again)
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("positions", "said"),
    [
        (None, r"nothing says where the tiles lie: name a pattern in data\.positions"),
        # One tile far away from the others.
        (np.vstack([lattice(3)[:8], [[99, 99]]]), "nearby: 1 of 9 tiles find no other"),
        # Three in a row: whoever trades with the middle one, one is left.
        (np.arange(3.0)[:, None] * [0, 1], "nearby: 1 of 3 tiles find no other one"),
        (np.zeros((1, 2)), "1 of 1 tiles .* within 1 steps .* make it larger"),
    ],
)
def test_a_neighbourhood_of_one_is_refused(positions, said):
    count = 4 if positions is None else len(positions)
    with pytest.raises(TileFolderError, match=said):
        dealt_nearby(np.zeros(count), positions, 1.0, random())


def test_partners_dealt_to_other_cases_all_leave_theirs():
    cases = np.repeat([0, 1, 2], [4, 3, 2])
    drawn = dealt_to_other_cases(cases, random())
    assert sorted(drawn) == list(range(9))
    assert (cases[drawn] != cases).all()
