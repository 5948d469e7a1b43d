"""The map that grows block by block is, in the end, the map of the whole store."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.controllers.shared.live_map import (
    HISTOGRAM_BINS,
    LiveMap,
    Patch,
)
from napari_histodistill.maps.classes import class_map
from napari_histodistill.running import CancelToken
from tests.controllers.driving import (
    GLAND,
    STROMA,
    open_session,
    ran_session,
    run,
    show_stored,
)
from tests.fakes import colour_student
from tests.maps.helpers import small_grid

CLASSES = colour_student().spec.classes


@pytest.fixture
def session():
    return ran_session()


@pytest.fixture
def unsure(rng):
    """Return a map with random confidences, some cells pending, one unreadable."""
    live = LiveMap(small_grid(), CLASSES, "tiles")
    first = rng.uniform(0, 1, live.grid.shape).astype(np.float32)
    status = (rng.uniform(size=live.grid.shape) < 0.7).astype(np.uint8)
    status[3, 3] = 2
    probabilities = np.stack([first, 1 - first], axis=-1)
    probabilities[status != 1] = np.nan
    rows, columns = live.grid.shape
    live.apply(Patch(slice(0, rows), slice(0, columns), status, probabilities))
    return live


def test_the_map_that_grew_is_the_map_of_the_store(session):
    whole = class_map(session.store_path, session.student)
    live = session.live
    assert np.array_equal(live.labels, whole.labels)
    assert np.array_equal(live.shown, whole.labels)
    assert np.array_equal(live.confidence, whole.confidence)
    rows, columns = np.indices(live.grid.shape)
    grown = live.probabilities_at(rows, columns)
    assert np.array_equal(grown, whole.probabilities, equal_nan=True)
    assert live.snapshot().areas() == whole.areas()


def test_parts_may_come_in_any_order_and_twice(session, rng):
    patches = [
        update.patch
        for update in session.run_work(restart=True)(CancelToken())
        if update.patch is not None
    ]
    assert len(patches) > 3
    shuffled = LiveMap(session.live.grid, CLASSES, "tiles")
    for k in [*rng.permutation(len(patches)), *rng.permutation(len(patches))[:3]]:
        shuffled.apply(patches[k])
    whole = class_map(session.store_path, session.student)
    assert np.array_equal(shuffled.labels, whole.labels)
    assert np.array_equal(shuffled.confidence, whole.confidence)


def test_a_layer_can_hold_the_array_for_ever():
    session = open_session()
    work = session.run_work()
    held, seen = session.live.shown, []
    for update in work(CancelToken()):
        session.take_update(update)
        seen.append(int((held > 0).sum()))
    session.show_at_least(0.5)
    assert session.live.shown is held
    assert held.any()
    assert len(set(seen)) > 2, "the map fills while the run goes on"


def test_nothing_below_the_wished_confidence_is_shown(unsure):
    labels = unsure.labels.copy()
    unsure.show_at_least(0.8)
    assert unsure.min_confidence == 0.8
    sure = unsure.confidence >= 0.8
    assert 0 < (unsure.shown > 0).sum() < (labels > 0).sum()
    assert np.array_equal(unsure.shown, np.where(sure, labels, 0))
    assert np.array_equal(unsure.labels, labels), "the map itself stays"
    unsure.show_at_least(0)
    assert np.array_equal(unsure.shown, labels)


def test_the_wish_holds_for_parts_that_come_later(unsure):
    live = LiveMap(unsure.grid, CLASSES, "tiles")
    live.show_at_least(0.9)
    shy = np.array([[[0.4, 0.6], [0.05, 0.95]]], np.float32)
    live.apply(Patch(slice(2, 3), slice(4, 6), np.ones((1, 2), np.uint8), shy))
    assert live.labels[2, 4:6].tolist() == [2, 2]
    assert live.shown[2, 4:6].tolist() == [0, 2]


def test_the_wish_outlives_a_new_run():
    session = ran_session()
    session.show_at_least(0.7)
    run(session, restart=True)
    assert session.live.min_confidence == 0.7


def test_pending_and_unreadable_cells_have_no_class(unsure):
    assert unsure.cells_unreadable == 1
    assert unsure.cells_done == (unsure.status == 1).sum()
    not_done = unsure.status != 1
    assert not unsure.labels[not_done].any()
    assert not unsure.confidence[not_done].any()
    assert np.isnan(unsure.probabilities_at(3, 3)).all()


def test_the_legend_counts_what_is_shown(unsure):
    unsure.show_at_least(0.75)
    areas = unsure.grid.areas_mm2()
    for k, row in enumerate(unsure.rows()):
        shown = unsure.shown == k + 1
        assert (row.name, row.color) == (CLASSES[k].name, CLASSES[k].color)
        assert row.cells == shown.sum() > 0
        assert row.mm2 == pytest.approx(areas[shown].sum())


def test_the_histogram_is_of_all_cells_of_the_class_also_those_hidden(unsure):
    before = [row.histogram for row in unsure.rows()]
    unsure.show_at_least(0.95)
    assert [row.histogram for row in unsure.rows()] == before
    for bars in before:
        assert len(bars) == HISTOGRAM_BINS
        assert sum(bars) == pytest.approx(1)
        assert min(bars) > 0, "random confidences lie everywhere from 1/2 to 1"


def test_an_empty_map_has_an_empty_legend():
    rows = LiveMap(small_grid(), CLASSES, "tiles").rows()
    assert [(row.name, row.cells, row.mm2) for row in rows] == [
        ("stroma", 0, 0.0),
        ("gland", 0, 0.0),
    ]
    assert all(sum(row.histogram) == 0 for row in rows)


def test_a_snapshot_is_what_is_seen(unsure):
    unsure.show_at_least(0.6)
    taken = unsure.snapshot(hidden={0})
    assert set(np.unique(taken.labels)) == {0, 2}
    assert np.array_equal(taken.labels == 2, unsure.shown == 2)
    assert not taken.confidence[taken.labels == 0].any()
    whole = unsure.snapshot()
    assert [area.cells for area in whole.areas()] == [r.cells for r in unsure.rows()]


def test_a_snapshot_does_not_grow(unsure):
    taken = unsure.snapshot()
    labels, confidence = taken.labels.copy(), taken.confidence.copy()
    rows, columns = unsure.grid.shape
    sure = np.zeros((rows, columns, 2), np.float32)
    sure[..., 1] = 1
    unsure.apply(
        Patch(
            slice(0, rows), slice(0, columns), np.ones((rows, columns), np.uint8), sure
        )
    )
    assert (unsure.labels == 2).all()
    assert np.array_equal(taken.labels, labels)
    assert np.array_equal(taken.confidence, confidence)


def test_a_student_without_classes_fills_the_status_only():
    session = ran_session(student=colour_student(with_head=False))
    assert session.live.classes == ()
    assert session.live.rows() == ()
    assert session.live.cells_done == session.plan().wanted_cells().sum()
    assert not session.live.shown.any()
    again = open_session(student=colour_student(with_head=False))
    show_stored(again)
    assert again.live.cells_done == session.live.cells_done
    assert again.describe(*GLAND) == "y 105 µm, x 120 µm"


def test_probabilities_of_a_cell(session):
    cell = session.live.grid.cell_at(*STROMA)
    p = session.live.probabilities_at(*cell)
    assert p.sum() == pytest.approx(1)
    assert p[0] == session.live.confidence[cell] > 0.9


def test_it_draws_into_the_array_of_a_layer_that_is_there(unsure):
    live = unsure
    before = live.shown.copy()
    layer = np.full(live.grid.shape, 9, np.uint8)
    live.draw_into(layer)
    assert live.shown is layer
    assert np.array_equal(layer, before), "what the layer showed before is gone"
