"""Search over several slides: the definition, what belongs together, what is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_histodistill.errors import Cancelled, InputError
from napari_histodistill.maps import EmbeddingStore, PlaceOf, SlidesQuery, search_slides
from napari_histodistill.maps.alike.across_slides import (
    SearchProgress,
    SlideMeans,
    SlidesSearched,
)
from napari_histodistill.maps.alike.similarity import NEGATIVE_WEIGHT
from napari_histodistill.running import CancelToken
from tests.maps.helpers import PROVENANCE, in_small_steps, small_grid

DIM = 8


def store_of(path, values, *, status=None, **provenance):
    """Keep ``(rows, columns, dim)`` as the embeddings of one more slide."""
    rows, columns, dim = values.shape
    grid = small_grid(rows * 64, columns * 64)
    made_by = replace(
        PROVENANCE, **{"slide_digest": path.name.encode().hex(), **provenance}
    )
    with EmbeddingStore.create(
        path, grid=grid, provenance=made_by, dim=dim, block=4
    ) as store:
        status = np.ones((rows, columns), np.uint8) if status is None else status
        for r in range(0, rows, 4):
            for c in range(0, columns, 4):
                part = slice(r, r + 4), slice(c, c + 4)
                store.write_block(r, c, values[part], status[part])
    return path


def place(store, row, column):
    return PlaceOf(store, (row + 0.5) * 64, (column + 0.5) * 64)


@pytest.fixture
def values(rng):
    """Three slides of different size, each with a cast of its own."""
    shapes = (8, 9), (5, 12), (4, 4)
    return [rng.normal(3 + k, 1, (*shape, DIM)) for k, shape in enumerate(shapes)]


@pytest.fixture
def stores(tmp_path, values):
    return [store_of(tmp_path / f"{k}.zarr", v) for k, v in enumerate(values)]


def answer(stores, query, **options) -> SlidesSearched:
    *progress, found = search_slides(stores, query, **options)
    assert progress == [
        SearchProgress(k, 2 * len(stores)) for k in range(1, 2 * len(stores) + 1)
    ]
    return found


def test_the_definition(stores, values, monkeypatch):
    heights = in_small_steps(monkeypatch)
    query = SlidesQuery(
        at=(place(stores[0], 2, 3), place(stores[1], 4, 5)),
        not_at=(place(stores[2], 1, 1),),
    )
    found = answer(stores, query)
    assert max(heights) <= 4  # rows of chunks, never a whole store
    half = [v.astype(np.float16).astype(np.float64) for v in values]
    centre = np.mean([v.mean(axis=(0, 1)) for v in half], axis=0)
    unit = [
        (v - centre) / np.linalg.norm(v - centre, axis=2, keepdims=True) for v in half
    ]
    wish = (unit[0][2, 3] + unit[1][4, 5]) / 2 - NEGATIVE_WEIGHT * unit[2][1, 1]
    wish /= np.linalg.norm(wish)
    for one, u, store in zip(found.slides, unit, stores, strict=True):
        np.testing.assert_allclose(one.similarity.values, u @ wish, atol=1e-4)
        assert (one.store, one.best) == (store, pytest.approx((u @ wish).max(), 1e-3))
        above = one.similarity.values >= found.threshold
        assert one.area_mm2 == pytest.approx(above.sum() * 0.032**2, rel=1e-6)
    assert [len(one.similarity.at) for one in found.slides] == [1, 1, 0]
    assert [len(one.similarity.not_at) for one in found.slides] == [0, 0, 1]


def test_places_of_all_slides_are_ranked_together(stores):
    found = answer(stores, SlidesQuery(at=(place(stores[1], 0, 7),)))
    places = found.places(limit=1000)
    scores = [one.place.score for one in places]
    assert scores == sorted(scores, reverse=True)
    assert [one.rank for one in places] == list(range(1, len(places) + 1))
    assert min(scores) >= found.threshold
    assert len(places) == sum(len(one.ranked) for one in found.slides)
    first = places[0]
    assert (first.answer.store, first.place.is_query) == (stores[1], True)
    assert sum(one.place.is_query for one in places) == 1
    assert found.places(limit=2) == places[:2]


def test_what_a_slide_has_much_of_is_still_found_elsewhere(tmp_path, rng):
    """Each slide's own mean would hide it: a slide that is all tumour has no other."""
    normal, tumour = rng.normal(size=(2, DIM))
    noise = [rng.normal(0, 0.1, (8, 8, DIM)) for _ in range(3)]
    all_tumour, mixed = noise[0] + tumour, noise[1] + normal
    mixed[:2] += tumour - normal
    stores = [
        store_of(tmp_path / name, v)
        for name, v in (("t", all_tumour), ("m", mixed), ("n", noise[2] + normal))
    ]
    query = SlidesQuery(at=(place(stores[1], 0, 0),))
    found = answer(stores, query, threshold=0.5)
    tumour_slide, mixed_slide, normal_slide = (
        one.similarity.values for one in found.slides
    )
    assert tumour_slide.min() > 0.5 > normal_slide.max()
    np.testing.assert_array_equal(
        mixed_slide >= 0.5, np.arange(8)[:, None] < np.full(8, 2)
    )
    assert found.slides[2].ranked == ()


def test_a_picture_is_looked_for(stores, values):
    picture = values[2][1, 2].astype(np.float32)[np.newaxis]
    found = answer(stores, SlidesQuery(pictures=picture))
    best = found.places(limit=1)[0]
    assert best.answer.store == stores[2]
    assert found.slides[2].similarity.values[1, 2] == pytest.approx(1, abs=1e-3)
    assert not any(one.place.is_query for one in found.places(limit=1000))


def test_a_threshold_that_is_given_is_kept(stores):
    query = SlidesQuery(at=(place(stores[0], 0, 0),))
    found = answer(stores, query, threshold=0.99)
    assert found.threshold == 0.99
    assert [len(one.ranked) for one in found.slides] == [1, 0, 0]


def test_a_slide_without_a_square_is_left_out(tmp_path, stores, values):
    query = SlidesQuery(at=(place(stores[0], 0, 0),))
    without = answer(stores, query)
    empty = store_of(
        tmp_path / "glass", values[2], status=np.zeros(values[2].shape[:2], np.uint8)
    )
    found = answer([*stores, empty], query)
    assert (found.slides[-1].best, found.slides[-1].ranked) == (None, ())
    assert found.slides[-1].area_mm2 == 0
    assert found.threshold == without.threshold
    with pytest.raises(InputError, match="Nothing has been computed yet"):
        list(search_slides([empty], query))


def test_a_second_question_reads_each_store_once(stores, monkeypatch):
    means = SlideMeans()
    first = answer(stores, SlidesQuery(at=(place(stores[0], 0, 0),)), means=means)
    heights = in_small_steps(monkeypatch)
    again = answer(stores, SlidesQuery(at=(place(stores[0], 0, 0),)), means=means)
    # Every row of the three, and the row of the place that is asked for.
    assert sum(heights) == 8 + 5 + 4 + 1
    for one, other in zip(first.slides, again.slides, strict=True):
        np.testing.assert_array_equal(one.similarity.values, other.similarity.values)


def test_stores_that_do_not_belong_together_are_refused(tmp_path, stores, values):
    query = SlidesQuery(at=(place(stores[0], 0, 0),))
    other = {"student_digest": "77" * 16, "student_name": "another"}
    stranger = store_of(tmp_path / "stranger", values[2], **other)
    with pytest.raises(InputError, match=r"stranger was made by another in tiles"):
        list(search_slides([*stores, stranger], query))
    tokens = store_of(tmp_path / "tokens", values[2], mode="tokens")
    with pytest.raises(InputError, match=r"tokens was made by colour in tokens"):
        list(search_slides([*stores, tokens], query))
    first = EmbeddingStore.open(stores[0]).provenance.slide_digest
    twin = store_of(tmp_path / "twin", values[2], slide_digest=first)
    with pytest.raises(InputError, match=r"twin and .*0\.zarr are of the same slide"):
        list(search_slides([*stores, twin], query))
    narrow = store_of(tmp_path / "narrow", values[2][..., :6])
    with pytest.raises(InputError, match=r"narrow holds 6 numbers per square, .* 8"):
        list(search_slides([*stores, narrow], query))
    with pytest.raises(InputError, match="There is nothing to search"):
        list(search_slides([], query))


def test_bad_places_are_refused(tmp_path, stores, values):
    half = np.ones(values[2].shape[:2], np.uint8)
    half[3] = 0
    partial = store_of(tmp_path / "half", values[2], status=half)
    for query, words in (
        (SlidesQuery(), "at least one place"),
        (SlidesQuery(not_at=(place(stores[0], 0, 0),)), "at least one place"),
        (SlidesQuery(at=(place(partial, 3, 0),)), r"half: Nothing was computed at"),
        (SlidesQuery(at=(place(tmp_path / "x", 0, 0),)), "is not among the stores"),
        (SlidesQuery(at=(place(stores[0], 99, 0),)), "outside the slide"),
    ):
        with pytest.raises(InputError, match=words):
            list(search_slides([*stores, partial], query))


def test_embeddings_that_are_all_the_same_are_refused(tmp_path):
    same = np.full((4, 4, DIM), 2.5)
    stores = [store_of(tmp_path / name, same) for name in "ab"]
    with pytest.raises(InputError, match=r"look the same|leave nothing to search"):
        list(search_slides(stores, SlidesQuery(at=(place(stores[0], 0, 0),))))


def test_it_stops_when_asked(stores):
    cancel = CancelToken()
    work = search_slides(
        stores, SlidesQuery(at=(place(stores[0], 0, 0),)), cancel=cancel
    )
    next(work)
    cancel.cancel()
    with pytest.raises(Cancelled):
        next(work)
