"""Find similar: clicks, answers, thresholds, ranked places, pictures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_histodistill.controllers.shared.map_choice import RegionChoice
from napari_histodistill.controllers.shared.similar import (
    COUNTED,
    LISTED,
    IndexBuilt,
    Prompt,
    Prompts,
    SimilarResult,
    places_in_words,
    rank_work,
    threshold_range,
    thumbnail_work,
)
from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Region
from napari_histodistill.maps.alike.ranking import RankedRegion, frame_around
from tests.controllers.driving import (
    GLAND,
    GLASS,
    OTHER_GLAND,
    STROMA,
    ask,
    drive,
    open_session,
    ran_session,
    run,
)
from tests.fakes import PINK, array_slide
from tests.maps.helpers import small_grid

GLANDS = ((210, 240), (210, 520), (390, 360))


@pytest.fixture
def session():
    return ran_session()


@pytest.fixture
def found(session):
    """Return a session that was asked for glands."""
    session.add_prompt(*GLAND, like=True)
    ask(session)
    return session


def value_at(session, place):
    similarity = session.similar.similarity
    return float(similarity.values[similarity.grid.cell_at(*place)])


def place_at(y, x, rank=1):
    return RankedRegion(
        rank=rank, score=1.0, y=y, x=x, cells=1, area_mm2=0.1, is_query=False,
        region=Region(y=max(0, y - 1), x=max(0, x - 1), height=2, width=2),
    )  # fmt: skip


# --- clicks ---------------------------------------------------------------------------


def test_before_a_run_a_click_says_what_to_do():
    session = open_session()
    assert "Run the model first" in session.why_not_similar
    with pytest.raises(InputError, match="Run the model first"):
        session.add_prompt(*GLAND, like=True)
    assert session.query_work() is None


@pytest.mark.parametrize(
    ("place", "words"), [(GLASS, "Nothing is computed there"), ((-1, 5), "outside")]
)
def test_a_click_beside_the_tissue_is_refused_and_forgotten(session, place, words):
    with pytest.raises(InputError, match=words):
        session.add_prompt(*place, like=True)
    assert session.prompts.items == ()
    assert session.query_work() is None


def test_the_first_click_must_be_a_like_this(session):
    with pytest.raises(InputError, match="what you look for first"):
        session.add_prompt(*STROMA, like=False)
    assert session.prompts.items == ()


def test_clicks_are_kept_in_order():
    prompts = Prompts()
    for prompt in (Prompt(1, 2, True), Prompt(3, 4, False), Prompt(5, 6, True)):
        prompts = prompts.added(prompt)
    assert prompts.at == [(1, 2), (5, 6)]
    assert prompts.not_at == [(3, 4)]
    assert prompts.removed(0).items == (Prompt(3, 4, False), Prompt(5, 6, True))
    assert prompts.items[0] == Prompt(1, 2, True), "a question in flight keeps its own"


def test_the_search_ends_with_the_last_like_this(found):
    found.add_prompt(*STROMA, like=False)
    found.remove_prompt(0)
    assert found.prompts.items == (), "a lone 'not like this' asks for nothing"
    assert found.similar is None
    assert found.query_work() is None


def test_clear_ends_the_search(found):
    found.clear_prompts()
    assert found.prompts.items == ()
    assert found.similar is None
    assert "similarity" not in found.describe(*GLAND)


# --- answers --------------------------------------------------------------------------


def test_glands_are_found_and_stroma_is_not(found):
    result = found.similar
    assert value_at(found, GLAND) == pytest.approx(1, abs=1e-3)
    assert value_at(found, OTHER_GLAND) > 0.95
    assert value_at(found, STROMA) < 0
    assert np.isnan(value_at(found, GLASS))
    assert value_at(found, STROMA) < result.threshold <= value_at(found, OTHER_GLAND)
    done = found.live.status == 1
    assert np.array_equal(np.isfinite(result.similarity.values), done)
    assert "similarity 1.00" in found.describe(*GLAND)


def test_the_best_places_come_first_and_are_the_glands(found):
    ranked = found.similar.ranked
    assert [place.rank for place in ranked] == list(range(1, len(ranked) + 1))
    scores = [place.score for place in ranked]
    assert scores == sorted(scores, reverse=True)
    assert len(ranked) == len(GLANDS)
    hit = [
        min(np.hypot(place.y - y, place.x - x) for y, x in GLANDS) for place in ranked
    ]
    assert max(hit) < 70, "within a gland"
    assert sum(place.is_query for place in ranked) == 1


def test_not_like_this_pushes_away(found):
    before = value_at(found, STROMA)
    found.add_prompt(*OTHER_GLAND, like=True)
    found.add_prompt(*STROMA, like=False)
    ask(found)
    assert found.similar.prompts == found.prompts
    assert value_at(found, STROMA) <= before
    assert value_at(found, STROMA) < -0.5
    assert value_at(found, GLAND) > 0.9


def test_a_question_without_an_answer_is_explained_and_can_be_cleared():
    session = open_session(array_slide(np.full((600, 800, 3), PINK, np.uint8)))
    run(session)
    session.add_prompt(*GLAND, like=True)
    with pytest.raises(InputError, match="nothing to compare"):
        ask(session)
    assert session.similar is None
    session.clear_prompts()
    assert session.why_not_run == ""


def test_an_answer_to_an_older_question_is_dropped(session):
    session.add_prompt(*STROMA, like=True)
    slow = session.query_work()
    session.clear_prompts()
    session.add_prompt(*GLAND, like=True)
    ask(session)
    shown = session.similar
    late = drive(slow)[-1]
    assert session.take_answer(late) is False
    assert session.similar is shown


def test_an_answer_after_the_search_was_cleared_is_dropped(session):
    session.add_prompt(*GLAND, like=True)
    slow = session.query_work()
    session.clear_prompts()
    for answer in drive(slow):
        assert session.take_answer(answer) is False
    assert session.similar is None


def test_the_index_is_built_once_for_many_clicks(session):
    session.add_prompt(*GLAND, like=True)
    assert [type(a) for a in ask(session)] == [IndexBuilt, SimilarResult]
    session.add_prompt(*OTHER_GLAND, like=True)
    assert [type(a) for a in ask(session)] == [SimilarResult]


def test_cells_that_came_later_are_searched_too():
    session = open_session()
    session.choose_region(RegionChoice.VIEW)
    session.look_at(Region(y=0, x=0, height=600, width=300))
    run(session)
    session.add_prompt(*GLAND, like=True)
    ask(session)
    assert np.isnan(value_at(session, STROMA))
    session.choose_region(RegionChoice.WHOLE)
    run(session)
    answers = ask(session)
    assert isinstance(answers[0], IndexBuilt), "the old index has seen half the slide"
    assert np.isfinite(value_at(session, STROMA))
    assert len(session.similar.ranked) == len(GLANDS)


# --- threshold, list, pictures --------------------------------------------------------


def test_a_higher_threshold_leaves_fewer_cells(found):
    result = found.similar
    low, high = threshold_range(result.similarity)
    assert -1 <= low < result.threshold < high <= 1

    def cells_above(threshold):
        (ranked,) = drive(rank_work(result, threshold))
        assert ranked.threshold == threshold
        assert ranked.prompts == result.prompts
        assert found.take_answer(ranked) is True
        return sum(place.cells for place in ranked.ranked)

    everything, suggested, best = map(cells_above, (low, result.threshold, high))
    assert everything == found.live.cells_done
    assert everything > suggested > best > 0
    assert cells_above(1.01) == 0


def test_pictures_show_the_places_best_first(found):
    ranked = found.similar.ranked
    pictures = drive(thumbnail_work(found.slide, found.live.grid, ranked, px=32))
    assert [picture.rank for picture in pictures] == [p.rank for p in ranked]
    for picture in pictures:
        assert picture.image.shape == (32, 32, 3)
        assert picture.image.dtype == np.uint8
        middle = picture.image[12:20, 12:20].reshape(-1, 3).mean(axis=0)
        assert middle[2] > middle[0], "purple, not pink"


def test_no_more_pictures_than_the_panel_shows(session):
    many = [place_at(300, 100 + 10 * k, rank=k + 1) for k in range(LISTED + 5)]
    pictures = drive(thumbnail_work(session.slide, session.live.grid, many, px=8))
    assert [picture.rank for picture in pictures] == list(range(1, LISTED + 1))


@given(
    y=st.floats(0, 600),
    x=st.floats(0, 800),
    size=st.tuples(st.integers(1, 700), st.integers(1, 900)),
)
def test_a_picture_never_leaves_the_slide(y, x, size):
    grid = small_grid(*size)
    y, x = min(y, size[0]), min(x, size[1])
    frame = frame_around(grid, place_at(y, x))
    assert frame.y >= 0
    assert frame.x >= 0
    assert frame.bottom <= size[0] + 1e-6
    assert frame.right <= size[1] + 1e-6
    assert frame.height == min(64, size[0]), "what the student saw: 32 px at 1 µm"
    assert frame.y - 1e-6 <= y <= frame.bottom + 1e-6
    assert frame.x - 1e-6 <= x <= frame.right + 1e-6


def test_places_are_counted_in_words():
    place = place_at(5, 5)
    assert places_in_words([]) == "no place"
    assert places_in_words([place]) == "1 place"
    assert places_in_words([place] * 38) == "38 places"
    assert places_in_words([place] * COUNTED) == "200+ places"
