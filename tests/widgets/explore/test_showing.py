"""The strip *What is shown*, and what lies in the corners of the canvas."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from napari_histodistill.controllers.explore.showing import Shown
from napari_histodistill.widgets.explore import showing
from napari_histodistill.widgets.explore.canvas_boxes import CanvasBox
from napari_histodistill.widgets.explore.on_canvas import canvas_beside
from napari_histodistill.widgets.shared.overlays import OverlayKind
from napari_histodistill.widgets.shared.slide_layers import pixels_to_world
from tests.fakes import array_slide
from tests.widgets.explore.test_flow import GLAND, STROMA, add_slide, click, idle, ready

pytestmark = pytest.mark.gui

MAPS = (OverlayKind.CLASSES, OverlayKind.PROBABILITY, OverlayKind.SIMILAR)


@pytest.fixture
def ran(explore, qtbot):
    """Return a function that gives viewer, panel and slide layer after a whole run."""

    def run_once():
        viewer, widget = explore()
        viewer.window._qt_window.resize(1366, 768)
        layer = add_slide(viewer, array_slide())
        qtbot.waitUntil(ready(widget), timeout=20000)
        widget.mapping.run()
        qtbot.waitUntil(idle(widget), timeout=20000)
        return viewer, widget, layer

    return run_once


def seen(widget):
    """Return which of the maps are visible."""
    layers = {kind: widget.bench.overlays.get(kind) for kind in MAPS}
    return {k for k, layer in layers.items() if layer is not None and layer.visible}


def choose(widget, kind):
    widget.showing_panel.kinds[kind].click()


def native(viewer):
    return viewer.window._qt_viewer.canvas.native


def boxes(viewer):
    return native(viewer).findChildren(CanvasBox)


def test_one_thing_is_shown_at_a_time(ran, qtbot):
    viewer, widget, layer = ran()
    strip, rows, overlays = (
        widget.showing_panel, widget.classes_panel, widget.bench.overlays,
    )  # fmt: skip
    assert seen(widget) == {OverlayKind.CLASSES}
    assert not strip.kinds[Shown.ALIKE].isEnabled()
    assert "Click tissue" in strip.kinds[Shown.ALIKE].toolTip()

    strip.one.setCurrentIndex(1)
    strip.one.activated.emit(1)
    assert strip.kinds[Shown.ONE_CLASS].isChecked()
    assert seen(widget) == {OverlayKind.PROBABILITY}
    heat = overlays.get(OverlayKind.PROBABILITY)
    assert heat.data is widget.session.live.heat
    assert heat.name == "Probability of gland"
    at = pixels_to_world(layer, *GLAND)
    assert heat.get_value(at, world=True) > 0.5
    rows.sure.setValue(50)
    assert np.isnan(heat.get_value(pixels_to_world(layer, *STROMA), world=True))
    assert "squares hidden" in rows.hidden_words.text()
    rows.all.click()
    assert rows.sure.value() == 0
    assert rows.hidden_words.text().startswith("0 of ")
    assert not rows.all.isEnabled()

    QTest.keyClick(native(viewer), Qt.Key.Key_1)
    assert heat.name == "Probability of stroma", "a digit chooses the class"
    strip.opacity.setValue(30)
    QTest.keyClick(native(viewer), Qt.Key.Key_BracketRight)
    assert heat.opacity == pytest.approx(0.35)
    assert strip.opacity_words.text() == "35 %"
    choose(widget, Shown.CLASSES)
    assert strip.opacity.value() == 40
    assert overlays.get(OverlayKind.CLASSES).opacity == pytest.approx(0.4)

    click(viewer, layer, GLAND)
    qtbot.waitUntil(idle(widget), timeout=10000)
    assert strip.kinds[Shown.ALIKE].isChecked()
    assert seen(widget) == {OverlayKind.SIMILAR}
    choose(widget, Shown.NOTHING)
    assert seen(widget) == set()
    assert not overlays.get(OverlayKind.MARKERS).visible
    assert not strip.opacity.isEnabled()
    choose(widget, Shown.ALIKE)
    widget.searching.clear()
    assert strip.kinds[Shown.NOTHING].isChecked(), "as before the search"


def test_what_a_person_draws_steps_aside_for_a_run_and_space_bares_the_tissue(
    ran, qtbot
):
    viewer, widget, _layer = ran()
    overlays = widget.bench.overlays
    widget.mapping.edit_tissue()
    widget.teaching.paint(True)
    tissue, strokes = (
        overlays.get(kind) for kind in (OverlayKind.TISSUE, OverlayKind.STROKES)
    )
    overlays.peek(True)
    assert not any(x.visible for x in viewer.layers if overlays.owns(x))
    choose(widget, Shown.ONE_CLASS)
    assert seen(widget) == set(), "it is shown once the key is released"
    overlays.peek(False)
    assert seen(widget) == {OverlayKind.PROBABILITY}
    assert tissue.visible
    assert strokes.visible

    widget.mapping.choose_step(max(0, widget.session.step - 1))
    widget.mapping.run()
    assert not tissue.visible
    assert not strokes.visible
    assert str(strokes.mode) == "pan_zoom"
    assert not widget.teach_panel.paint_button.isChecked()
    qtbot.waitUntil(idle(widget), timeout=20000)
    assert widget.session.live.cells_done
    assert seen(widget) == {OverlayKind.PROBABILITY}, "drawn while it filled"
    widget.teaching.paint(True)
    assert strokes.visible
    widget.mapping.edit_tissue()
    assert tissue.visible


def test_colours_of_ones_own_are_on_map_and_canvas(ran, monkeypatch):
    _viewer, widget, _layer = ran()
    asked = []

    def answer(color, title, _parent):
        asked.append((color, title))
        return "#102030"

    monkeypatch.setattr(showing, "choose_color", answer)
    widget.classes_panel.eyes[0].click()
    widget.classes_panel.swatches[1].click()
    assert asked == [("#56b4e9", "Colour of gland")]
    drawn = widget.bench.overlays.get(OverlayKind.CLASSES).colormap.color_dict
    np.testing.assert_allclose(255 * drawn[2][:3], (16, 32, 48), atol=1)
    assert widget.classes_panel.swatches[1].color == "#102030"
    assert widget.on_canvas.legend.legend.classes == (("gland", "#102030"),)
    assert not widget.classes_panel.eyes[0].isChecked(), "eyes stay as they were"
    monkeypatch.setattr(showing, "choose_color", lambda *_: None)
    widget.classes_panel.swatches[1].click()
    assert widget.classes_panel.swatches[1].color == "#102030"


def test_legend_and_overview_lie_on_the_canvas_until_the_panel_closes(
    ran, open_viewer, qtbot
):
    viewer, widget, layer = ran()
    other = open_viewer()
    legend, overview = widget.on_canvas.legend, widget.on_canvas.overview
    assert canvas_beside(widget) is native(viewer)
    assert set(boxes(viewer)) == {legend, overview}
    assert not boxes(other)
    assert [name for name, _ in legend.legend.classes] == ["stroma", "gland"]
    assert legend.isVisible()
    assert overview.isVisible()
    inside = native(viewer).rect()
    assert all(inside.contains(box.geometry()) for box in (legend, overview))

    viewer.scene.camera.zoom *= 4
    before = overview.view
    assert before.width() < 0.5 * overview.width()
    corner = QPoint(overview.width() // 4, overview.height() // 4)
    QTest.mouseClick(overview, Qt.MouseButton.LeftButton, pos=corner)
    height, width = widget.session.slide.shape
    there = pixels_to_world(layer, height / 4, width / 4)
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], there, atol=8)
    assert overview.view.center().x() < before.center().x()
    assert not widget.session.prompts.items, "the tissue below was not clicked"

    widget.showing_panel.overview.click()
    assert not overview.isVisible()
    widget.showing_panel.legend.click()
    assert not legend.isVisible()
    widget.showing_panel.legend.click()
    choose(widget, Shown.NOTHING)
    assert not legend.isVisible(), "there is nothing to explain"

    viewer.window.remove_dock_widget(widget)
    qtbot.waitUntil(lambda: not boxes(viewer), timeout=2000)
