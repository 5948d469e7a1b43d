"""Find similar on all slides of the list, with real clicks."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_histodistill.maps.alike.across_slides import SearchProgress
from napari_histodistill.slides.tissue.writing import write_pyramid
from napari_histodistill.widgets.shared.slide_layers import pixels_to_world
from tests.controllers.driving import GLAND, STROMA
from tests.fakes import colour_student, tissue_image
from tests.widgets.conftest import wait_until
from tests.widgets.explore.test_flow import click, idle
from tests.widgets.explore.test_worklist import looks_at, run_on

pytestmark = pytest.mark.gui

NAMES = ("case 1 of the study.tif", "case 2.tif", "case 3.tif")


@pytest.fixture
def ran(explore, qtbot, tmp_path):
    """Return a function that gives viewer and panel; two of three slides have a map."""
    image = tissue_image()
    for name, picture in zip(NAMES, (image, image[::-1, ::-1], image), strict=True):
        write_pyramid(tmp_path / name, picture, mpp=0.5, compression="zlib")

    def run_two():
        viewer, widget = explore(colour_student())
        widget.choosing.open_worklist(tmp_path)
        for step in (0, 1):
            if step:
                widget.choosing.step(1)
            wait_until(qtbot, looks_at(widget, NAMES[step]))
            run_on(widget, qtbot)
        widget.choosing.step(-1)
        wait_until(qtbot, looks_at(widget, NAMES[0]))
        return viewer, widget

    return run_two


def ask_all(viewer, widget, qtbot, place=GLAND):
    """Click a place; return the answer of all slides, with its pictures."""
    before = widget.session.across.answer
    click(viewer, widget.bench.slide_layer, place)
    wait_until(
        qtbot,
        lambda: widget.session.across.answer not in (None, before) and idle(widget)(),
    )
    return widget.session.across.answer


def is_in_view(viewer, layer, place):
    there = pixels_to_world(layer, place.y, place.x)
    away = np.abs(np.array(viewer.scene.camera.center[-2:]) - there)
    half = np.array(viewer.canvas.size) / 2 / viewer.scene.camera.zoom
    return bool((away < half).all())


def test_a_place_on_another_slide_is_found_and_opened(ran, qtbot):
    viewer, widget = ran()
    panel, session = widget.similar_panel, widget.session
    panel.across.click()
    answer = ask_all(viewer, widget, qtbot)
    assert {p.answer.made_by.slide_name for p in answer.listed} == set(NAMES[:2])
    assert panel.places.count() == len(answer.listed)
    assert panel.count.text() == f"{len(answer.listed)} places"
    assert panel.words.text() == (
        f"On 2 of 2 slides; asked on {NAMES[0]}. 1 more: no usable map."
    )
    # In the two lines that are kept for it: nothing below moves.
    assert panel.words.heightForWidth(panel.words.width()) <= (
        panel.words.minimumHeight()
    )
    assert "case…y.tif" in panel.places.item(0).text()
    assert all(
        not panel.places.item(k).icon().isNull() for k in range(panel.places.count())
    )
    assert set(widget.searching._pictures) == {p.rank for p in answer.listed}

    other = next(
        k
        for k, p in enumerate(answer.listed)
        if p.answer.made_by.slide_name == NAMES[1]
    )
    panel.places.setCurrentRow(other)
    wait_until(qtbot, looks_at(widget, NAMES[1]))
    assert is_in_view(viewer, widget.bench.slide_layer, answer.listed[other].place)
    assert panel.places.currentRow() == other, "the list stays, to walk on in it"
    heat = session.similar.similarity
    assert heat is answer.found.slides[1].similarity
    shown = [x for x in viewer.layers if x.name.startswith("Similarity") and x.visible]
    assert len(shown) == 1
    np.testing.assert_array_equal(shown[0].data, heat.values)

    here = next(
        k
        for k, p in enumerate(answer.listed)
        if p.answer.made_by.slide_name == NAMES[0]
    )
    panel.places.setFocus()
    panel.places.setCurrentRow(here)
    wait_until(qtbot, looks_at(widget, NAMES[0]))
    assert is_in_view(viewer, widget.bench.slide_layer, answer.listed[here].place)
    assert session.prompts.items, "the click is where it was made"


def test_the_threshold_counts_on_all_slides(ran, qtbot):
    viewer, widget = ran()
    panel = widget.similar_panel
    panel.across.click()
    answer = ask_all(viewer, widget, qtbot)
    many = sum(len(one.ranked) for one in answer.found.slides)
    panel.threshold.setValue(panel.threshold.minimum())
    wait_until(
        qtbot,
        lambda: widget.session.across.answer is not answer and idle(widget)(),
    )
    again = widget.session.across.answer
    assert sum(len(one.ranked) for one in again.found.slides) != many
    assert panel.places.count() == len(again.listed)
    assert viewer.layers["Similarity"].contrast_limits[0] == pytest.approx(
        again.found.threshold, abs=0.02
    )


def test_back_to_this_slide_and_to_nothing(ran, qtbot):
    viewer, widget = ran()
    panel, session = widget.similar_panel, widget.session
    click(viewer, widget.bench.slide_layer, GLAND)
    wait_until(qtbot, lambda: session.similar is not None and idle(widget)())
    alone = panel.places.count()
    panel.across.click()
    wait_until(qtbot, lambda: session.across.answer is not None and idle(widget)())
    assert panel.places.count() > alone
    panel.here.click()
    wait_until(qtbot, lambda: session.similar is not None and idle(widget)())
    assert session.across.answer is None
    assert panel.places.count() == alone
    assert "Click tissue" in panel.words.text()
    panel.across.click()
    ask_all(viewer, widget, qtbot, STROMA)
    widget.choosing.step(1)
    wait_until(qtbot, looks_at(widget, NAMES[1]))
    clear = panel._marker_row.itemAt(panel._marker_row.count() - 1).widget()
    assert clear.isVisible(), "the search can be ended on any slide"
    QTest.mouseClick(clear, Qt.MouseButton.LeftButton)
    assert session.across.answer is None
    assert not panel.places.isVisible()


def test_a_search_ends_with_the_slide_that_it_was_asked_on(ran, qtbot):
    viewer, widget = ran()
    panel, session = widget.similar_panel, widget.session
    panel.across.click()
    click(viewer, widget.bench.slide_layer, GLAND)
    widget.searching._answered([SearchProgress(1, 4)])
    widget.bench.changed.emit()
    assert panel.words.text() == "Searching all slides: 25%"
    widget.choosing.step(1)
    wait_until(qtbot, looks_at(widget, NAMES[1]))
    assert "Searching" not in panel.words.text()
    assert session.across.answer is None


def test_a_place_on_a_slide_that_left_the_list_opens_it_again(ran, qtbot, tmp_path):
    viewer, widget = ran()
    panel = widget.similar_panel
    panel.across.click()
    answer = ask_all(viewer, widget, qtbot)
    other = next(
        k
        for k, p in enumerate(answer.listed)
        if p.answer.made_by.slide_name == NAMES[1]
    )
    widget.choosing.remove_row(1)
    wait_until(qtbot, lambda: len(widget.choosing.worklist.rows) == 2)
    panel.places.setCurrentRow(other)
    wait_until(qtbot, looks_at(widget, NAMES[1]))
    assert is_in_view(viewer, widget.bench.slide_layer, answer.listed[other].place)

    # One that cannot be opened any more is said, and not jumped to later.
    (tmp_path / NAMES[2]).unlink()
    widget.choosing.look_at(tmp_path / NAMES[2])
    wait_until(qtbot, lambda: idle(widget)())
    assert NAMES[2] in widget.run_panel.message.text()
    widget.bench.said.emit("")
    widget.choosing.look_at(tmp_path / NAMES[2])
    assert NAMES[2] in widget.run_panel.message.text()
