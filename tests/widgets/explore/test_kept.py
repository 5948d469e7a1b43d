"""What a person has drawn, typed or started in *Explore slide* is not lost."""

from __future__ import annotations

import time

import numpy as np
import pytest
import tifffile

from napari_histodistill.controllers.explore.jobs import ExploreJob
from napari_histodistill.controllers.explore.teach import teaching

pytest.importorskip("napari", reason="the windows need napari and Qt")

from tests.fakes import array_slide, colour_student, tissue_image
from tests.widgets.conftest import wait_until
from tests.widgets.explore.test_flow import (
    SlowBackend,
    add_slide,
    idle,
    ran,
    ready,
    slow_student,
)

__all__ = ["ran"]

pytestmark = pytest.mark.gui


def other_slide():
    return array_slide(tissue_image(400, 500))


def pick(widget, layer):
    """Choose a slide in the panel's list, as a click there does."""
    there = [row.layer is layer for row in widget.choosing.worklist.rows]
    slides = widget.slide_panel.slide
    slides.setCurrentItem(slides.topLevelItem(there.index(True)))


def paint(widget):
    """Press *Paint strokes* and paint something."""
    widget.teach_panel.paint_button.setChecked(True)
    strokes = widget.bench.overlays.get("strokes")
    strokes.data[10:40, 10:40] = 1
    strokes.refresh()
    return strokes


def edit_tissue(widget):
    widget.mapping.edit_tissue()
    tissue = widget.bench.overlays.get("tissue")
    tissue.data[:5] = 1
    return tissue


# --- what was drawn -------------------------------------------------------------------


def test_picking_the_same_slide_again_changes_nothing(ran, qtbot):
    viewer, widget, layer = ran()
    strokes, live = paint(widget), widget.session.live
    pick(widget, layer)
    qtbot.wait(50)
    assert strokes in viewer.layers
    assert widget.session.live is live
    assert widget.teach_panel.paint_button.isChecked()


def test_what_was_drawn_waits_hidden_until_the_slide_is_chosen_again(ran, qtbot):
    viewer, widget, layer = ran()
    strokes, tissue = paint(widget), edit_tissue(widget)
    button = widget.teach_panel.paint_button
    assert not button.isChecked(), "the tissue is being edited, no stroke painted"
    widget.teaching.paint(True)
    assert button.isChecked()
    other = add_slide(viewer, other_slide())
    pick(widget, other)
    wait_until(qtbot, ready(widget))
    assert strokes in viewer.layers
    assert not strokes.visible
    assert strokes.mode == "pan_zoom"
    assert not tissue.visible
    assert not button.isChecked(), "there is nothing to paint on"
    # Strokes on this slide are strokes of their own.
    assert paint(widget) is not strokes
    pick(widget, layer)
    wait_until(qtbot, idle(widget))
    overlays = widget.bench.overlays
    assert overlays.get("strokes") is strokes
    assert overlays.get("tissue") is tissue
    assert strokes.visible
    assert strokes.data[10:40, 10:40].all()
    assert layer.visible
    assert not other.visible, "no other slide hides it"


def test_what_nobody_drew_on_goes_with_its_slide(ran, qtbot):
    viewer, widget, _ = ran()
    widget.teaching.paint(True)
    widget.teaching.paint(False)
    widget.mapping.edit_tissue()
    add_slide(viewer, other_slide())
    wait_until(qtbot, ready(widget))
    assert "Teach: strokes" not in viewer.layers
    assert "Tissue" not in viewer.layers


def test_strokes_outlive_their_slide_layer_and_other_micrometres(explore, qtbot):
    viewer, widget = explore()
    layer = add_slide(viewer, array_slide(mpp=None))
    wait_until(qtbot, lambda: widget.session.student is not None)
    widget.choosing.give_mpp(2.5)
    wait_until(qtbot, ready(widget))
    strokes = paint(widget)
    widget.choosing.give_mpp(0.5)
    assert widget.bench.overlays.get("strokes") is strokes
    extent = strokes.extent.world[1] - strokes.extent.world[0]
    np.testing.assert_allclose(extent, np.array((600, 800)) * 0.5, rtol=0.01)
    viewer.layers.remove(layer)
    wait_until(qtbot, lambda: widget.session.slide is None)
    assert strokes in viewer.layers
    add_slide(viewer, array_slide())
    wait_until(qtbot, ready(widget))
    assert widget.bench.overlays.get("strokes") is strokes


def test_an_added_image_is_only_listed_while_strokes_are_there(ran, qtbot):
    viewer, widget, layer = ran()
    paint(widget)
    viewer.add_image(tissue_image(300, 300), rgb=True, name="screenshot")
    qtbot.wait(50)
    assert widget.bench.slide_layer is layer
    assert "screenshot" in [row.name for row in widget.choosing.worklist.rows]
    assert "screenshot is in the list" in widget.run_panel.message.text()


def test_a_slide_opened_in_the_panel_is_looked_at_all_the_same(ran, qtbot, tmp_path):
    path = tmp_path / "other.tif"
    tifffile.imwrite(path, tissue_image(400, 500), photometric="rgb", tile=(256, 256))
    viewer, widget, layer = ran()
    strokes = paint(widget)
    widget.choosing.open_path(path)
    wait_until(qtbot, lambda: widget.bench.slide_layer is not layer)
    wait_until(qtbot, idle(widget))
    assert widget.bench.slide_layer.name == "other.tif"
    assert strokes in viewer.layers
    assert "stays chosen" not in widget.run_panel.message.text()


def test_an_added_image_does_not_end_a_run(explore, qtbot):
    viewer, widget = explore(slow_student())
    layer = add_slide(viewer, array_slide())
    wait_until(qtbot, ready(widget))
    widget.run_panel.button.click()
    wait_until(qtbot, lambda: widget.session.live.cells_done > 0)
    viewer.add_image(tissue_image(300, 300), rgb=True, name="screenshot")
    qtbot.wait(50)
    assert widget.bench.pump.is_active(ExploreJob.RUN)
    assert widget.bench.slide_layer is layer
    widget.mapping.cancel()
    wait_until(qtbot, idle(widget))
    assert widget.run_panel.message.text().startswith("Stopped.")


@pytest.mark.parametrize("clear", [False, True])
def test_all_layers_are_deleted_at_once(ran, qtbot, clear):
    viewer, widget, _ = ran()
    paint(widget)
    if clear:
        viewer.layers.clear()
    else:
        viewer.layers.select_all()
        viewer.layers.remove_selected()
    wait_until(qtbot, lambda: widget.session.slide is None)
    assert len(viewer.layers) == 0
    assert not widget.teach_panel.paint_button.isChecked()


def test_slide_and_some_overlays_are_deleted_at_once(ran, qtbot):
    viewer, widget, layer = ran()
    mine = viewer.add_labels(np.zeros((50, 50), int), name="my annotation")
    viewer.layers.selection = {layer, widget.bench.overlays.get("classes"), mine}
    viewer.layers.remove_selected()
    wait_until(qtbot, lambda: widget.session.slide is None)
    assert len(viewer.layers) == 0


# --- what was typed -------------------------------------------------------------------


@pytest.mark.parametrize("plain", [False, True])
def test_mistyped_micrometres_can_be_corrected(explore, qtbot, plain):
    student = slow_student()
    viewer, widget = explore(student)
    row = widget.slide_panel.mpp
    if plain:
        layer = viewer.add_image(tissue_image(), rgb=True, name="plain")
    else:
        layer = add_slide(viewer, array_slide(mpp=None))
    wait_until(qtbot, lambda: widget.session.student is not None and row.isVisible())
    assert "does not say" in row.words.text()
    widget.choosing.give_mpp(1.5)
    wait_until(qtbot, ready(widget))
    assert row.isVisible()
    assert row.field.text() == "1.5000 µm/px"
    assert "as you gave it" in row.words.text()
    row.field.selectAll()
    qtbot.keyClicks(row.field, "0.5")
    widget.bench.changed.emit()
    assert row.field.text() == "0.5 µm/px", "what somebody is typing stays"
    row.use.click()
    wait_until(qtbot, ready(widget))
    assert widget.session.slide.mpp.mean == 0.5
    assert tuple(layer.scale) == (0.5, 0.5)
    widget.run_panel.button.click()
    assert not row.isEnabled()
    widget.mapping.cancel()
    wait_until(qtbot, idle(widget))
    assert row.isEnabled()
    add_slide(viewer, other_slide())
    wait_until(qtbot, ready(widget))
    assert not row.isVisible(), "this file says it"
    pick(widget, layer)
    wait_until(qtbot, ready(widget))
    assert row.isVisible()
    assert row.field.text() == "0.5000 µm/px"


def test_a_shape_between_the_cells_is_said_and_a_larger_one_runs(ran, qtbot):
    viewer, widget, layer = ran()
    shapes = viewer.add_shapes(
        [[(75.0, 100.0), (75, 101), (76, 101), (76, 100)]],
        shape_type="polygon",
        units=("um", "um"),
    )
    widget.slide_panel.regions.button(2).click()
    assert "draw a larger region" in widget.run_panel.message.text()
    assert not widget.run_panel.button.isEnabled()
    assert widget.session.live.cells_done, "the map is still there"
    shapes.data = [[(75.0, 75.0), (75, 175), (150, 175), (150, 75)]]
    wait_until(qtbot, lambda: not widget.session.why_not_run)
    assert "larger region" not in widget.run_panel.message.text()
    assert widget.session.plan().wanted_cells().any()
    assert layer in viewer.layers


def test_the_detail_that_was_chosen_is_run_on_edited_tissue(explore, qtbot):
    viewer, widget = explore()
    add_slide(viewer, array_slide())
    wait_until(qtbot, ready(widget))
    edit_tissue(widget)
    widget.mapping.choose_step(0)
    widget.run_panel.button.click()
    wait_until(qtbot, idle(widget))
    assert widget.session.step == 0
    assert widget.session.live.grid.stride_um == 32


# --- what was started -----------------------------------------------------------------


def test_the_device_waits_for_the_run(explore, qtbot):
    viewer, widget = explore(slow_student())
    add_slide(viewer, array_slide())
    wait_until(qtbot, ready(widget))
    device = widget.run_panel.device
    assert device.isEnabled()
    widget.run_panel.button.click()
    wait_until(qtbot, lambda: widget.session.live.cells_done > 0)
    assert not device.isEnabled()
    assert "Cancel the run first" in device.toolTip()
    widget.mapping.cancel()
    wait_until(qtbot, idle(widget))
    assert device.isEnabled()
    assert "Cancel" not in device.toolTip()
    # Loaded anew, the student shows what it had seen.
    done = widget.session.live.cells_done
    device.setCurrentIndex(1)
    device.activated.emit(1)
    wait_until(qtbot, ready(widget))
    assert widget.session.live.cells_done == done


def test_a_run_is_cancelled_whenever_it_is_asked(explore, qtbot):
    viewer, widget = explore(slow_student())
    add_slide(viewer, array_slide())
    wait_until(qtbot, ready(widget))
    for tenths in range(5):
        widget.run_panel.button.click()
        qtbot.wait(tenths * 100)
        assert widget.run_panel.stop.isEnabled()
        widget.run_panel.stop.click()
        wait_until(qtbot, idle(widget))
        assert not widget.session.running
        assert widget.run_panel.message.text().startswith("Stopped.")
    # Closed in its first moment, it does not run on: the window's fixture looks.
    widget.run_panel.button.click()
    viewer.close()


def test_another_student_ends_the_run_of_the_first(explore, qtbot):
    viewer, widget = explore(slow_student())
    add_slide(viewer, array_slide())
    wait_until(qtbot, ready(widget))
    widget.run_panel.button.click()
    wait_until(qtbot, lambda: widget.session.live.cells_done > 0)
    widget.choosing.choose_student(0)  # as "Use" of *Distil a student* does
    assert not widget.bench.pump.is_active(ExploreJob.RUN)
    assert not widget.session.running
    wait_until(qtbot, ready(widget))
    assert widget.run_panel.button.text() == "Continue"


def test_a_run_ends_a_fit_that_is_going_on(explore, qtbot, monkeypatch):
    fit = teaching.fit_head

    def slowly(*args, **kwargs):
        time.sleep(0.5)
        return fit(*args, **kwargs)

    monkeypatch.setattr(teaching, "fit_head", slowly)
    student = colour_student()
    names = ("stroma", "gland", "nothing")
    first = student.spec.classes[0]
    classes = tuple(first.model_copy(update={"name": name}) for name in names)
    student.spec = student.spec.model_copy(update={"classes": classes})
    head = student.head
    student.head = type(head)(
        np.vstack([head.weight, np.zeros((1, 6), np.float32)]),
        np.append(head.bias, np.float32(-50)),
    )
    student.backend = SlowBackend()
    viewer, widget = explore(student)
    add_slide(viewer, array_slide())
    wait_until(qtbot, ready(widget))
    widget.run_panel.button.click()
    wait_until(qtbot, lambda: len(np.unique(widget.session.live.labels)) == 3)
    widget.mapping.cancel()
    wait_until(qtbot, idle(widget))
    strokes = paint(widget)
    grid, labels = widget.session.live.grid, widget.session.live.labels
    scale = np.array(strokes.data.shape) / widget.session.slide.shape
    strokes.data[:] = 0
    for label in (1, 2):
        cells = np.argwhere(labels == label)[:6]
        for y, x in ((cells + 0.5) * grid.cell_size * scale).astype(int):
            strokes.data[y, x] = label
    widget.teaching.learn()
    assert widget.bench.pump.is_active(ExploreJob.LEARNING)
    widget.run_panel.button.click()
    assert not widget.bench.pump.is_active(ExploreJob.LEARNING)
    assert "once the model has run" in widget.teach_panel.words.text()
    assert [c.name for c in widget.session.live.classes] == list(names)
    student.backend = SlowBackend()
    wait_until(qtbot, idle(widget), timeout_s=60)
    assert widget.session.cells_missing == 0
    wait_until(qtbot, lambda: widget.session.taught is not None)
    wait_until(qtbot, idle(widget))
    assert (widget.session.live.labels > 0).sum() == widget.session.live.cells_done


def test_labels_beyond_the_classes_are_left_out_and_said(ran, qtbot):
    _viewer, widget, _ = ran()
    strokes = paint(widget)
    height, width = strokes.data.shape
    strokes.data[:] = 0
    for y, x, label in ((0.35, 0.3, 1), (0.5, 0.8, 2), (0.7, 0.7, 7)):
        strokes.data[int(y * height), int(x * width)] = label
    widget.teaching.learn()
    wait_until(qtbot, lambda: widget.session.taught is not None)
    wait_until(qtbot, idle(widget))
    words = widget.teach_panel.score.text()
    assert words.startswith("Too few strokes to say")
    assert widget.session.taught.cells == 2
    assert "not a class were left out" in words
