"""*Ask me*: doubtful squares, spread over the slide, by one encoder or by two."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from napari_histodistill.controllers.explore.teach import asking
from napari_histodistill.controllers.explore.teach.asking import (
    ASKED,
    ask_work,
    divergence,
    margins,
    spread,
)
from napari_histodistill.controllers.shared.map_choice import RegionChoice
from napari_histodistill.geometry import Region
from napari_histodistill.maps.store import EmbeddingStore
from napari_histodistill.students import list_students
from napari_histodistill.students.probe import fit_head
from tests.controllers.driving import drive, open_session, ran_session, run
from tests.controllers.explore.teach.test_teaching import TWO_KINDS, strokes, teach
from tests.fakes import array_slide, coarse_student


def test_doubt_is_where_two_classes_are_nearly_as_likely():
    p = np.array([[[0.5, 0.5, 0.0], [0.9, 0.05, 0.05], [0.4, 0.3, 0.3]]], np.float32)
    np.testing.assert_allclose(margins(p), [[1.0, 0.15, 0.9]], atol=1e-6)


def test_divergence_is_none_where_both_agree_and_one_where_they_exclude():
    a = np.array([[[1, 0], [0.3, 0.7], [1, 0]]], np.float32)
    b = np.array([[[0, 1], [0.3, 0.7], [0.5, 0.5]]], np.float32)
    found = divergence(a, b)
    assert found[0, 0] == pytest.approx(1)
    assert found[0, 1] == pytest.approx(0)
    assert 0 < found[0, 2] < 1


def test_a_heap_of_doubt_is_asked_about_once():
    doubts = np.zeros((40, 40), np.float32)
    doubts[5:9, 5:9] = 1
    doubts[30, 30] = doubts[5, 33] = 0.9
    chosen = spread(doubts, np.zeros(doubts.shape, bool), 3)
    assert set(chosen) >= {(30, 30), (5, 33)}
    assert sum(5 <= r < 9 and 5 <= c < 9 for r, c in chosen) == 1


def test_no_two_are_neighbours_and_none_is_known():
    doubts = np.random.default_rng(0).random((12, 12)).astype(np.float32)
    known = np.zeros(doubts.shape, bool)
    known[4:8, 4:8] = True
    chosen = spread(np.where(known, -np.inf, doubts), known, 5)
    assert len(chosen) == 5
    for k, (r, c) in enumerate(chosen):
        assert not known[r, c]
        for r2, c2 in chosen[:k]:
            assert np.hypot(r - r2, c - c2) >= 2


def test_what_may_not_be_chosen_is_not():
    doubts = np.full((9, 9), -np.inf, np.float32)
    assert spread(doubts, np.zeros((9, 9), bool), 5) == ()
    doubts[2, 2] = 0.1
    assert spread(doubts, np.zeros((9, 9), bool), 5) == ((2, 2),)


def asked(session, painted=TWO_KINDS, passed_by=()):
    taught = teach(session, *painted)
    (found,) = drive(
        ask_work(
            strokes(session, *painted),
            taught,
            store_path=session.store_path,
            passed_by=passed_by,
        )
    )
    return taught, found


def test_the_squares_asked_about_lie_on_the_map_and_name_two_classes():
    session = ran_session()
    taught, found = asked(session)
    assert 0 < len(found.items) <= ASKED
    assert found.second == ""
    painted = strokes(session, *TWO_KINDS)
    under = asking.painted_cells(painted, session.live.grid)[0]
    doubts = margins(taught.patch.probabilities)
    for question in found.items:
        row, column = question.cell
        assert session.live.status[row, column] == 1
        assert row * session.live.grid.shape[1] + column not in under
        assert set(question.likely) == {"mine", "stroma too"}
        y, x = question.region.center
        assert session.live.grid.cell_at(y, x) == question.cell
    mean = np.nanmean(doubts)
    assert np.mean([doubts[q.cell] for q in found.items]) > mean


def test_what_was_asked_before_is_passed_by():
    session = ran_session()
    _, first = asked(session)
    before = [q.cell for q in first.items]
    _, second = asked(session, passed_by=before)
    assert not {q.cell for q in second.items} & set(before)


def other_map(slide, name):
    """Store the map of another encoder, which sees less, under a name."""
    other = coarse_student()
    other.spec = other.spec.model_copy(update={"name": name})
    other.digest = "e2" * 16 if name.startswith("a ") else "d1" * 16
    session = open_session(slide, other)
    run(session)
    return session


def taught_like(session, other):
    """Return what another encoder's session says once it has seen the same strokes."""
    found = EmbeddingStore.open(other.store_path).read().astype(np.float32)
    painted = strokes(session, *TWO_KINDS)
    cells, labels = asking.painted_cells(painted, session.live.grid)
    seen = found.reshape(-1, found.shape[-1])[cells]
    return fit_head(seen, np.unique(labels, return_inverse=True)[1]).probabilities(
        found
    )


def test_two_bundled_encoders_are_asked_where_they_disagree():
    slide, bundled = array_slide(), list_students()[0].name
    session = ran_session(slide)
    other_map(slide, "a stranger's")
    assert asked(session)[1].second == "", "no encoder that is known to be sound"
    other = other_map(slide, bundled)
    taught, found = asked(session)
    assert found.second == bundled
    mine = taught.patch.probabilities
    apart = jensenshannon(mine, taught_like(session, other), 2, axis=-1) ** 2
    alone = asking.inner(taught.patch.status == 1)
    under = asking.painted_cells(strokes(session, *TWO_KINDS), session.live.grid)[0]
    alone.ravel()[under] = False
    may = np.sort(apart[alone])[::-1]
    # Spread over the slide, but among those of which they think most differently.
    least = may[max(50, len(may) // 10) - 1]
    assert least > np.median(may)
    places = [question.cell for question in found.items]
    assert len(places) == ASKED
    assert all(apart[place] >= least - 1e-6 for place in places)
    # Where one of them is in doubt by itself is not where they are at odds.
    doubtful = np.argsort(-np.where(alone, margins(mine), -1), axis=None)[: len(may)]
    assert apart.ravel()[doubtful[:5]].mean() < np.mean([apart[p] for p in places])


def test_a_second_map_that_saw_no_strokes_is_no_committee():
    slide, bundled = array_slide(), list_students()[0].name
    session = ran_session(slide)
    other = coarse_student()
    other.spec = other.spec.model_copy(update={"name": bundled})
    partly = open_session(slide, other)
    partly.choose_region(RegionChoice.VIEW)
    partly.look_at(Region(y=450, x=600, height=100, width=150))
    run(partly)
    assert asked(session)[1].second == ""
