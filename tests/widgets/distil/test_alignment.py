"""Step 2 of Distil a student: landmarks, refining and undoing, the checkerboard."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.controllers.distil.jobs import DistilJob
from napari_histodistill.layers.slide_layer import slide_layer
from napari_histodistill.samples.paired import CHANNELS, paint_pair
from napari_histodistill.slides import slide_from_arrays
from napari_histodistill.widgets.distil.align.checkerboard import TITLE
from napari_histodistill.widgets.distil.dock import DistilWidget
from napari_histodistill.widgets.distil.steps import IDLE
from tests.widgets.conftest import wait_until
from tests.widgets.distil.test_flow import MPP, add, begin_picking, fitted, tick

pytestmark = pytest.mark.gui

PLACES = np.array(
    [(40, 50), (50, 270), (270, 60), (260, 250), (150, 140), (90, 180)], float
)
SIX_DOWN, FOUR_DOWN = np.array([6.0, 0.0]), np.array([4.0, 0.0])
OFF, FARTHER = np.array([10.0, 5.0]), np.array([30.0, -20.0])


@pytest.fixture(scope="module")
def painted():
    return paint_pair(640)


@pytest.fixture
def open_panel(open_viewer, qtbot, tmp_path, painted):
    """Return a function that opens an H&E and a marker in register, ticked."""

    def open_one():
        viewer = open_viewer()
        layers = []
        for pixels, name, channels in (
            (painted.sparse, "H&E", None),
            (painted.dense, "marker", CHANNELS),
        ):
            slide = slide_from_arrays(pixels, name=name, mpp=MPP, channels=channels)
            data, kwargs, _ = slide_layer(slide)
            layers.append(viewer.add_image(data, **kwargs))
        widget = DistilWidget(viewer, runs=tmp_path / "runs")
        viewer.window.add_dock_widget(widget, area="right", name="Distil a student")
        tick(widget, "marker")
        qtbot.wait(20)
        return viewer, widget, *layers

    return open_one


def pick(widget, there, here=PLACES):
    """Click landmarks by turns."""
    sides = begin_picking(widget)
    for one, other in zip(here, there, strict=True):
        sides[0].add(one)
        sides[1].add(other)
    widget.align_step.pick.click()
    fitted(widget)


def lies_at(layer):
    return np.asarray(layer.data_to_world((100, 100)))


def settled(qtbot, widget):
    wait_until(qtbot, lambda: not widget.bench.pump.busy, 90)
    wait_until(qtbot, lambda: not widget.aligning.checker._timer.isActive())
    wait_until(qtbot, lambda: not widget.bench.pump.busy, 90)


@pytest.mark.either_qt
def test_residuals_are_listed_and_landmarks_stay_on_their_tissue(open_panel):
    viewer, widget, _, dense = open_panel()
    there = PLACES + 7
    there[3] += 45
    pick(widget, there)
    step = widget.align_step
    words = [step.residuals.item(k).text() for k in range(step.residuals.count())]
    assert len(words) == len(PLACES)
    assert words[0] == "#1  0.0 µm"
    assert words[3] == "(#4  63.6 µm)"
    assert step.residuals.item(3).font().bold()
    step.residuals.picked.emit(2)
    assert tuple(viewer.scene.camera.center[-2:]) == (270, 60)
    # The partner was moved by 7 µm, and its landmarks with it.
    np.testing.assert_allclose(lies_at(dense[0]), (43, 43), atol=1e-3)
    step.remove.click()
    fitted(widget)
    assert "5 landmarks · similarity · median 0.0 µm" in step.line.text()
    np.testing.assert_allclose(lies_at(dense[0]), (43, 43), atol=1e-3)
    found = widget.session.partners[0].registration.matrix
    np.testing.assert_allclose(found, [[1, 0, 7], [0, 1, 7], [0, 0, 1]], atol=1e-6)


def choose(widget, he, partner):
    """Choose an H&E in the list, and tick a partner."""
    names = [layer.name for layer in widget.pairing._sparse]
    widget.pairing.choose_sparse(names.index(he.name))
    widget.pairing.tick(partner)


def listed(widget):
    return widget.align_step.residuals.count()


def matrix(widget):
    return widget.session.partners[0].registration.matrix


def shifted(off):
    wanted = np.eye(3)
    wanted[:2, 2] = off
    return pytest.approx(wanted, abs=1e-6)


def test_landmarks_of_one_section_say_nothing_of_the_next(open_panel, painted, qtbot):
    viewer, widget, he, dense = open_panel()
    pump = widget.bench.pump
    pick(widget, PLACES + OFF)
    assert matrix(widget) == shifted(OFF)
    second = add(viewer, np.roll(painted.sparse, 40, 0), "second H&E")
    marker = add(viewer, np.roll(painted.dense, 40, 0), "second marker", CHANNELS)
    widget.align_step.checker.click()
    moved = widget.aligning.landmarks._points[1]
    moved.data = moved.data + FOUR_DOWN
    assert pump.is_active(DistilJob.FITTING)
    assert pump.is_active(DistilJob.COMPOSING)
    choose(widget, second, marker[0])
    assert not widget.align_step.checker.isChecked()
    settled(qtbot, widget)
    assert TITLE not in viewer.layers, "it was composed of the first section"
    assert widget.session.partners[0].registration is None, "it was fitted to the first"
    assert widget.align_step.line.text() == "As the layers lie on the canvas."
    assert len(widget.aligning.own_landmarks()[0]) == 0
    # Fewer than the first section's, which must not outvote them.
    pick(widget, PLACES[:3] + FARTHER, PLACES[:3])
    assert widget.align_step.line.text().startswith("3 landmarks")
    assert matrix(widget) == shifted(FARTHER)
    np.testing.assert_allclose(lies_at(marker[0]), (20, 70), atol=1e-3)
    # The first section's are back with it, on their tissue, though it was moved.
    dense[0].translate = dense[1].translate = (2, 0)
    choose(widget, he, dense[0])
    here, there = widget.aligning.own_landmarks()
    np.testing.assert_allclose(here, PLACES, atol=1e-6)
    np.testing.assert_allclose(there, PLACES + OFF + FOUR_DOWN, atol=1e-6)
    fitted(widget)
    assert matrix(widget) == shifted(OFF + FOUR_DOWN), "as it was when it was left"
    titles = [layer.name for layer in viewer.layers if "Landmarks" in layer.name]
    assert len(titles) == 2, "there are never more than two layers of them"


def test_landmarks_of_one_partner_say_nothing_of_another(open_panel, painted):
    viewer, widget, _, dense = open_panel()
    pick(widget, PLACES + OFF)
    other = add(viewer, painted.dense, "other", CHANNELS)
    widget.align_step.pick.click()
    widget.pairing.tick(other[0])
    assert not widget.align_step.pick.isChecked(), "picking was for the other partner"
    assert widget.align_step.words.text() == IDLE
    step = widget.align_step
    step.kind.setCurrentIndex(step.kind.findData("rigid"))
    step.kind.activated.emit(step.kind.currentIndex())
    assert step.line.text() == "As the layers lie on the canvas."
    # Taking both, the one that is aligned first keeps what it is aligned by.
    widget.pairing.tick(dense[0], other[0])
    assert len(widget.aligning.own_landmarks()[0]) == len(PLACES)
    widget.pairing.tick(dense[0])
    # Another channel stands for the slide: the same landmarks.
    viewer.layers.remove(dense[0])
    assert widget.bench.partner_layers == [dense[1]]
    assert len(widget.aligning.own_landmarks()[0]) == len(PLACES)


def test_both_landmarks_of_a_place_are_deleted_together(open_panel):
    _, widget, _, _ = open_panel()
    pick(widget, PLACES + OFF)
    here, there = widget.aligning.landmarks._points
    for side, gone in ((here, {1}), (there, {0, 3})):
        side.selected_data = gone
        side.remove_selected()  # as napari does for the Delete key
        fitted(widget)
        assert len(here.data) == len(there.data)
        assert matrix(widget) == shifted(OFF)
        assert "median 0.0 µm" in widget.align_step.line.text()
    left = widget.aligning.own_landmarks()[0]
    np.testing.assert_allclose(left, PLACES[[2, 3, 5]], atol=1e-6)
    # A place that is not yet clicked on the partner goes alone.
    widget.align_step.pick.click()
    here.add((33, 44))
    here.selected_data = {3}
    here.remove_selected()
    assert len(here.data) == len(there.data) == 3
    assert "Click place 4 on the H&E" in widget.align_step.words.text()
    widget.align_step.pick.click()


def test_what_was_begun_ends_when_its_partner_goes(open_panel, qtbot):
    viewer, widget, he, dense = open_panel()
    step = widget.align_step
    step.flicker.click()
    wait_until(qtbot, lambda: not dense[0].visible)
    widget.pairing.tick()
    assert not step.flicker.isEnabled()
    assert not step.flicker.isChecked()
    assert all(channel.visible for channel in dense)
    assert not widget.aligning._timer.isActive()
    widget.pairing.tick(dense[0])
    begin_picking(widget)[0].add((50, 50))
    wait_until(qtbot, lambda: not he.visible)
    for channel in dense:
        viewer.layers.remove(channel)
    assert not step.pick.isEnabled()
    assert not step.pick.isChecked()
    assert he.visible
    assert step.words.text() == IDLE


def test_napari_arranges_its_canvas_only_once_for_a_grid(open_panel, qtbot):
    viewer, widget, he, dense = open_panel()
    here, there = begin_picking(widget)
    wait_until(qtbot, lambda: he.visible and not dense[0].visible)
    canvas, arranged = viewer.window._qt_viewer.canvas, []
    canvas._update_scenegraph = lambda event=None: arranged.append(event)
    here.add((50, 50))
    wait_until(qtbot, lambda: dense[0].visible and not he.visible)
    assert not arranged
    viewer.canvas.grid.enabled = True
    arranged.clear()
    there.add((50, 50))
    wait_until(qtbot, lambda: he.visible and not dense[0].visible)
    assert len(arranged) == 1
    assert not any(arranged), "not because a layer was shown or hidden"
    viewer.canvas.grid.enabled = False
    del canvas._update_scenegraph


def test_refining_mends_clumsy_landmarks_and_is_undone(open_panel, qtbot):
    pytest.importorskip("SimpleITK", reason="refining needs the extra [registration]")
    _, widget, _, dense = open_panel()
    rng = np.random.default_rng(4)
    step = widget.align_step
    step.kind.setCurrentIndex(step.kind.findData("rigid"))
    pick(widget, PLACES + rng.normal(0, 4, PLACES.shape))
    before = lies_at(dense[0])
    step.refine.click()
    assert step.refine.text() == "Cancel"
    assert "Comparing both layers" in step.words.text()
    settled(qtbot, widget)
    said = step.words.text()
    assert said.startswith("Refined: the partner moved by "), said
    assert "held-out landmarks are off by" in said
    assert "6 landmarks · rigid · refined" in step.line.text()
    # In register again, by construction of the pair, to a fraction of a pixel.
    np.testing.assert_allclose(lies_at(dense[0]), (50, 50), atol=0.5)
    np.testing.assert_allclose(lies_at(dense[1]), (50, 50), atol=0.5)
    assert step.undo.isVisible()
    step.undo.click()
    assert not step.undo.isVisible()
    assert step.words.text() == IDLE
    np.testing.assert_allclose(lies_at(dense[0]), before, atol=1e-6)
    assert "refined" not in step.line.text()


def test_refining_is_cancelled_and_refused_in_words(open_panel, qtbot):
    pytest.importorskip("SimpleITK", reason="refining needs the extra [registration]")
    _, widget, _, dense = open_panel()
    step = widget.align_step
    assert "Find needs none" in step.refine.toolTip()
    step.kind.setCurrentIndex(step.kind.findData("similarity"))
    pick(widget, PLACES + SIX_DOWN)  # all of them say so
    before, known = lies_at(dense[0]), widget.session.partners[0].registration
    step.refine.click()
    step.refine.click()
    settled(qtbot, widget)
    assert step.refine.text() == "Refine"
    assert widget.session.partners[0].registration is known
    step.refine.click()
    settled(qtbot, widget)
    assert step.words.text().startswith("Not refined: held-out landmarks would be")
    np.testing.assert_allclose(lies_at(dense[0]), before)
    assert not step.undo.isVisible()
    # New landmarks, or another choice, take the words back.
    step.remove.click()
    assert step.words.text() == IDLE
    fitted(widget)
    widget.pairing.tick()
    widget.pairing.tick(dense[0])
    assert step.words.text() == IDLE


def board(viewer):
    return viewer.layers[TITLE]


def inner(layer, square, edge):
    """Return the pixels of a layer that the middle half of a square covers."""
    low, high = (
        np.rint(layer.world_to_data((np.array(square) + part) * edge)).astype(int)
        for part in (0.25, 0.75)
    )
    return tuple(slice(a, max(b, a + 1)) for a, b in zip(low, high, strict=True))


@pytest.mark.either_qt
def test_the_checkerboard_follows_the_view_and_goes_without_a_trace(open_panel, qtbot):
    viewer, widget, he, _ = open_panel()
    step = widget.align_step
    before = list(viewer.layers)
    viewer.reset_view()
    step.checker.click()
    settled(qtbot, widget)
    assert board(viewer).data.size
    step.square.setValue(20)
    settled(qtbot, widget)
    first = board(viewer)
    assert viewer.layers.selection.active is not first
    assert max(first.data.shape) <= max(viewer.canvas.size)
    assert "Squares of 20 µm show the H&E and marker in turn" in step.seen.text()
    # Every other square is the H&E itself, at its own place.
    for square, same in (((0, 0), True), ((0, 1), False), ((1, 1), True)):
        # Of its middle half: single pixels depend on the canvas, whatever its size.
        seen, tissue = (
            np.asarray(pixels[inner(layer, square, 20)]).mean((0, 1))
            for layer, pixels in ((first, first.data), (he, he.data[0]))
        )
        assert (np.abs(seen - tissue).max() < 20) == same, (square, seen, tissue)
    # It is composed again for another view, once that rests.
    scale = first.scale[0]
    viewer.scene.camera.zoom *= 3
    settled(qtbot, widget)
    wait_until(qtbot, lambda: board(viewer).scale[0] < 0.5 * scale)
    step.square.setValue(3)
    settled(qtbot, widget)
    assert "Squares of 3 µm" in step.seen.text()
    viewer.scene.camera.zoom /= 20
    settled(qtbot, widget)
    assert "too small to see here: zoom in" in step.seen.text()
    # A registration moves the partner in it, too.
    whole = board(viewer).data.copy()
    widget.aligning.lay()
    step.checker.click()
    assert list(viewer.layers) == before
    assert not step.seen.text()
    # Removed in the layer list, the button comes up.
    step.checker.click()
    settled(qtbot, widget)
    viewer.layers.remove(TITLE)
    assert not step.checker.isChecked()
    # And the panel closes while it is shown.
    step.checker.click()
    widget.shut_down()
    assert TITLE not in viewer.layers
    assert whole.size
