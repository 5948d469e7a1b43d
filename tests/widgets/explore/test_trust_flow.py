"""What a person sees of trust: headline, hatching, and the box that leaves out."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from napari_histodistill.controllers.explore.jobs import ExploreJob
from napari_histodistill.controllers.explore.showing import Shown
from napari_histodistill.geometry import Mpp
from napari_histodistill.maps import trust as core
from napari_histodistill.slides import slide_from_arrays
from napari_histodistill.widgets.shared.overlays import OverlayKind
from tests.controllers.explore.test_judging import HALVES, OTHER, student
from tests.widgets.explore.test_flow import add_slide, idle, ready

pytestmark = pytest.mark.gui


def slide_of(image, name="woven"):
    return slide_from_arrays([image], name=name, mpp=Mpp(1.0, 1.0, "a test"))


def press(box):
    where = QPoint(8, box.height() // 2)
    QTest.mouseClick(box, Qt.MouseButton.LeftButton, pos=where)


@pytest.fixture
def judged(explore, qtbot):
    """Return a function that runs on a picture and waits for the verdict."""

    def run(image):
        viewer, widget = explore(student())
        layer = add_slide(viewer, slide_of(image))
        qtbot.waitUntil(ready(widget), timeout=20000)
        widget.slide_panel.detail.setValue(0)
        QTest.mouseClick(widget.run_panel.button, Qt.MouseButton.LeftButton)
        qtbot.waitUntil(idle(widget), timeout=30000)
        return viewer, widget, layer

    return run


def test_other_tissue_is_headlined_and_hatched(judged):
    viewer, widget, _ = judged(OTHER)
    panel = widget.trust_panel
    assert panel.headline.text().startswith("▲ Not like")
    assert "do not read the classes" in panel.headline.text()
    assert "squares compared are unlike" in panel.where.text()
    layer = widget.bench.overlays.get(OverlayKind.HATCHING)
    assert layer.visible
    assert layer.multiscale
    finest = np.asarray(layer.data[0])
    marked = finest.reshape(8, finest.shape[0] // 8, 10, -1).any(axis=(1, 3))
    assert (marked == widget.session.map_trust.judged.unlike).all()
    assert not widget.classes_panel.hatched.isHidden()
    assert "Unlike the training" in widget.classes_panel.hatched.text()
    classes = widget.bench.overlays.get(OverlayKind.CLASSES)
    assert viewer.layers.index(layer) > viewer.layers.index(classes)
    # A user who scrolled the panel away from it reads it beside the colours.
    legend = widget.on_canvas.legend
    assert legend.legend.warning == panel.headline.text()
    assert legend.size() == legend.sizeHint()
    widget.showing_panel.kinds[Shown.ONE_CLASS].click()
    assert legend.legend.warning == panel.headline.text()
    widget.showing_panel.kinds[Shown.NOTHING].click()
    assert legend.legend.is_empty


def test_hatching_lies_on_the_slide_and_goes_with_it(judged, qtbot):
    viewer, widget, slide_layer = judged(OTHER)
    hatching = widget.bench.overlays.get(OverlayKind.HATCHING)
    low, high = hatching.extent.world
    wide = slide_layer.extent.world
    np.testing.assert_allclose(low[-2:], wide[0][-2:], atol=2)
    np.testing.assert_allclose(high[-2:], wide[1][-2:], atol=2)
    slide_layer.translate = np.array(slide_layer.translate) + 100
    np.testing.assert_allclose(hatching.extent.world[0][-2:], low[-2:] + 100, atol=1e-3)
    add_slide(viewer, slide_of(HALVES, "another"))
    qtbot.waitUntil(idle(widget), timeout=20000)
    assert not hatching.visible
    assert widget.trust_panel.headline.text() == "● Nothing to judge yet."
    assert widget.classes_panel.hatched.text() == ""


def test_space_shows_the_bare_tissue_without_hatching(judged):
    _, widget, _ = judged(OTHER)
    hatching = widget.bench.overlays.get(OverlayKind.HATCHING)
    widget.bench.overlays.peek(True)
    assert not hatching.visible
    widget.bench.overlays.peek(False)
    assert hatching.visible
    for kind, hatched in (
        (Shown.ONE_CLASS, True),
        (Shown.NOTHING, False),
        (Shown.CLASSES, True),
    ):
        widget.showing_panel.kinds[kind].click()
        assert hatching.visible is hatched
    viewer = widget.bench.viewer
    heat = widget.bench.overlays.get(OverlayKind.PROBABILITY)
    assert viewer.layers.index(hatching) > viewer.layers.index(heat)


def test_unlike_squares_are_left_out_and_come_back(judged, qtbot):
    _, widget, _ = judged(HALVES)
    box, live = widget.trust_panel.like_only, widget.session.live
    assert box.isEnabled()
    assert "one processor core" in box.toolTip()
    before = live.shown.copy()
    press(box)
    qtbot.waitUntil(idle(widget), timeout=30000)
    assert box.isChecked()
    assert (live.shown[:, 5:] == 0).mean() > 0.9
    assert (live.shown[:, :5] > 0).mean() > 0.9
    drawn = widget.bench.overlays.get(OverlayKind.CLASSES).data
    assert drawn is live.shown
    assert any(" / " in area.text() for area in widget.classes_panel.areas)
    assert "left out" in widget.classes_panel.hatched.text()
    press(box)
    np.testing.assert_array_equal(live.shown, before)
    assert not any(" / " in area.text() for area in widget.classes_panel.areas)


def test_a_stored_map_is_judged_when_it_is_shown(judged, qtbot, monkeypatch):
    _, widget, _ = judged(OTHER)
    monkeypatch.setattr(core, "judge_slide", None)  # the store keeps the verdict
    widget.slide_panel.detail.setValue(1)
    qtbot.waitUntil(idle(widget), timeout=20000)
    assert "Nothing to judge" in widget.trust_panel.headline.text()
    widget.slide_panel.detail.setValue(0)
    qtbot.waitUntil(idle(widget), timeout=20000)
    assert widget.trust_panel.headline.text().startswith("▲ Not like")
    assert widget.bench.overlays.get(OverlayKind.HATCHING) is not None


def test_a_comparison_ends_with_its_slide_and_shows_how_far_it_is(
    explore, qtbot, monkeypatch
):
    def endless(*_args, cancel, progress, **_kwargs):
        import time

        while True:
            progress(40, 300)
            time.sleep(0.01)
            cancel.check()

    monkeypatch.setattr(core, "judge_slide", endless)
    viewer, widget = explore(student())
    layer = add_slide(viewer, slide_of(OTHER))
    qtbot.waitUntil(ready(widget), timeout=20000)
    QTest.mouseClick(widget.run_panel.button, Qt.MouseButton.LeftButton)
    where = widget.trust_panel.where
    qtbot.waitUntil(lambda: "40 of at most 300" in where.text(), timeout=30000)
    assert widget.trust_panel.headline.text().startswith("▲ Not yet compared")
    assert widget.bench.pump.is_active(ExploreJob.JUDGING)
    viewer.layers.remove(layer)
    qtbot.waitUntil(
        lambda: not widget.bench.pump.is_active(ExploreJob.JUDGING), timeout=10000
    )
    assert where.text() == ""


def test_details_fold(judged):
    _, widget, _ = judged(OTHER)
    panel = widget.trust_panel
    assert not panel.notes.isVisibleTo(panel)
    QTest.mouseClick(panel.details, Qt.MouseButton.LeftButton)
    assert panel.notes.isVisibleTo(panel)
    assert panel.headline.isVisibleTo(panel)


def test_hatching_that_comes_again_is_drawn_into_the_layer_that_is_there(judged, qtbot):
    """For every layer that goes, napari searches all of memory for garbage."""
    viewer, widget, _ = judged(OTHER)
    overlays = widget.bench.overlays
    layer, levels = overlays.get(OverlayKind.HATCHING), widget.session.hatching
    drawn = [np.asarray(level).copy() for level in layer.data]
    overlays.hide_hatching()
    assert not layer.visible
    overlays.show_only(None)
    overlays.show_only(OverlayKind.CLASSES)
    assert not layer.visible  # nothing is hatched now
    others = [np.zeros_like(level) for level in levels]
    overlays.show_hatching(others, widget.session.live.grid)
    assert overlays.get(OverlayKind.HATCHING) is layer
    assert layer.visible
    assert not any(np.asarray(level).any() for level in layer.data)
    overlays.show_hatching(levels, widget.session.live.grid)
    for level, expected in zip(layer.data, drawn, strict=True):
        np.testing.assert_array_equal(level, expected)
    # Of another size, it is another layer.
    halves = [level[::2, ::2] for level in levels]
    overlays.show_hatching(halves, widget.session.live.grid)
    assert layer not in viewer.layers
    assert overlays.get(OverlayKind.HATCHING).visible


def test_hatching_lies_over_a_map_that_came_after_it(judged):
    viewer, widget, _ = judged(OTHER)
    overlays, layers = widget.bench.overlays, viewer.layers
    hatching = overlays.get(OverlayKind.HATCHING)
    classes = overlays.get(OverlayKind.CLASSES)
    levels = widget.session.hatching
    overlays.hide_hatching()
    layers.move(layers.index(classes), len(layers))
    assert layers.index(classes) > layers.index(hatching)
    overlays.show_hatching(levels, widget.session.live.grid)
    assert overlays.get(OverlayKind.HATCHING) is hatching
    assert layers.index(hatching) == layers.index(classes) + 1
