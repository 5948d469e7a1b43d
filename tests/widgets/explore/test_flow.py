"""The Explore screen from opening to export, on a real canvas with real clicks."""

from __future__ import annotations

import time

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from zarr.storage import LocalStore

from napari_histodistill.controllers.explore.jobs import ExploreJob
from napari_histodistill.controllers.shared.exporting import ExportKey
from napari_histodistill.controllers.shared.job import JobState
from napari_histodistill.layers.slide_layer import slide_layer
from napari_histodistill.running import CancelToken
from napari_histodistill.slides import open_slide
from napari_histodistill.widgets.shared.slide_layers import pixels_to_world
from tests.fakes import PURPLE, ColourBackend, array_slide, colour_student, tissue_image
from tests.slides.formats.test_omezarr import write
from tests.slides.formats.test_zarr_levels import write_levels
from tests.slides.pyramid.test_damage import damaged_slide

pytestmark = pytest.mark.gui

GLAND = (210, 240)
"""Level-0 px (y, x) inside the first gland of ``tissue_image()``."""

STROMA = (500, 200)


class SlowBackend(ColourBackend):
    """Takes its time, so that a run can be watched and stopped."""

    def embed(self, tiles):
        time.sleep(0.01 * len(tiles))
        return super().embed(tiles)


def slow_student():
    student = colour_student()
    student.backend = SlowBackend()
    return student


def add_slide(viewer, slide):
    data, kwargs, _ = slide_layer(slide)
    return viewer.add_image(data, **kwargs)


def canvas_point(viewer, layer, y, x):
    """Return where a level-0 position lies on the canvas widget."""
    world = np.array(pixels_to_world(layer, y, x))
    height, width = viewer.canvas.size
    away = (
        world - np.array(viewer.scene.camera.center[-2:])
    ) * viewer.scene.camera.zoom
    return QPoint(round(width / 2 + away[1]), round(height / 2 + away[0]))


def click(viewer, layer, place, modifier=Qt.KeyboardModifier.NoModifier):
    native = viewer.window._qt_viewer.canvas.native
    where = canvas_point(viewer, layer, *place)
    QTest.mouseMove(native, where)
    QTest.mouseClick(native, Qt.MouseButton.LeftButton, modifier, where)


def ready(widget):
    return lambda: not widget.session.why_not_run and not widget.bench.pump.busy


def idle(widget):
    return lambda: not widget.bench.pump.busy


@pytest.fixture
def ran(explore, qtbot):
    """Return a function that gives viewer, panel and slide layer after a whole run.

    A function, since pytest would hold on to the viewer itself until after napari's
    own leak check.
    """

    def run_once():
        viewer, widget = explore()
        layer = add_slide(viewer, array_slide())
        qtbot.waitUntil(ready(widget), timeout=20000)
        QTest.mouseClick(widget.run_panel.button, Qt.MouseButton.LeftButton)
        qtbot.waitUntil(idle(widget), timeout=20000)
        return viewer, widget, layer

    return run_once


def test_the_empty_panel_teaches_and_says_why_nothing_can_be_done(explore):
    _viewer, widget = explore()
    assert "Open a slide" in widget.run_panel.message.text()
    assert not widget.run_panel.button.isEnabled()
    assert "Open a slide" in widget.run_panel.button.toolTip()
    assert not widget.slide_panel.slide.isEnabled()
    assert "Open a slide" in widget.slide_panel.slide.toolTip()
    assert widget.slide_panel.student.currentText().startswith("colour")
    assert widget.trust_panel.research.text() == "Research use only"


def test_every_control_explains_itself(explore):
    from qtpy.QtWidgets import QAbstractButton, QAbstractSlider, QComboBox, QScrollBar

    _viewer, widget = explore()
    kinds = (QAbstractButton, QAbstractSlider, QComboBox)
    controls = [
        child
        for kind in kinds
        for child in widget.findChildren(kind)
        if not isinstance(child, QScrollBar) and child.objectName()[:3] != "qt_"
    ]
    silent = [
        f"{type(c).__name__} {getattr(c, 'text', lambda: '')()}"
        for c in controls
        if not c.toolTip() and c.parent() is not None and c.isVisible()
    ]
    assert len(controls) > 15
    assert not silent


@pytest.mark.either_qt
def test_a_run_fills_the_map_and_the_legend(ran):
    viewer, widget, layer = ran()
    session = widget.session
    assert [x.name for x in viewer.layers] == ["array", "Class map", "Probability"]
    assert viewer.layers.selection.active is layer
    assert viewer.canvas.overlays.scale_bar.visible
    assert session.live.shown is viewer.layers["Class map"].data
    assert {e.text() for e in widget.classes_panel.eyes} == {"stroma", "gland"}
    assert all("mm²" in a.text() for a in widget.classes_panel.areas)
    assert widget.run_panel.button.text() == "Run"
    assert widget.run_panel.message.text().startswith("Done:")
    grid = session.live.grid
    assert session.live.classes[session.live.labels[grid.cell_at(*GLAND)] - 1].name == (
        "gland"
    )


def test_the_map_lies_where_the_tissue_is(ran):
    viewer, widget, layer = ran()
    labels = viewer.layers["Class map"]
    for place, name in ((GLAND, "gland"), (STROMA, "stroma")):
        world = pixels_to_world(layer, *place)
        value = labels.get_value(world, world=True)
        assert widget.session.live.classes[value - 1].name == name


@pytest.mark.either_qt
def test_click_shift_click_threshold_and_jump(ran, qtbot):
    viewer, widget, layer = ran()
    session, panel = widget.session, widget.similar_panel
    click(viewer, layer, GLAND)
    qtbot.waitUntil(lambda: session.similar is not None, timeout=10000)
    qtbot.waitUntil(idle(widget), timeout=10000)
    assert session.prompts.at[0] == pytest.approx(GLAND, abs=2)
    heat = viewer.layers["Similarity"]
    before = np.array(heat.data)
    assert len(viewer.layers["Like this / not like this"].data) == 1
    assert [b.text() for b in panel.markers] == ["+1 ✕"]
    assert panel.places.count() == len(session.similar.ranked) > 1
    assert "place" in panel.count.text()

    click(viewer, layer, STROMA, Qt.KeyboardModifier.ShiftModifier)
    qtbot.waitUntil(lambda: len(session.similar.prompts.items) == 2, timeout=10000)
    qtbot.waitUntil(idle(widget), timeout=10000)
    assert len(session.prompts.not_at) == 1
    assert not np.array_equal(np.nan_to_num(heat.data), np.nan_to_num(before))
    assert viewer.layers["Similarity"] is heat, "the layer is reused, not made anew"

    many = len(session.similar.ranked)
    panel.threshold.setValue(panel.threshold.minimum())
    assert heat.contrast_limits[0] == pytest.approx(panel._range[0], abs=1e-6)
    qtbot.waitUntil(
        lambda: session.similar.threshold < 0 and not widget.bench.pump.busy,
        timeout=10000,
    )
    assert len(session.similar.ranked) != many

    for index in (1, 0):
        panel.places.setCurrentRow(index)
        place = session.similar.ranked[index]
        there = pixels_to_world(layer, place.y, place.x)
        away = np.abs(np.array(viewer.scene.camera.center[-2:]) - there)
        half = np.array(viewer.canvas.size) / 2 / viewer.scene.camera.zoom
        assert (away < half).all(), "the place is on the canvas"

    panel.markers[0].click()
    assert not session.prompts.items, "without a 'like this' the search ends"
    marks = viewer.layers["Like this / not like this"]
    assert not heat.visible
    assert not len(marks.data)
    assert not panel.places.isVisible()
    # The next search draws into the layers of the last: for every layer that goes,
    # napari searches all of memory for garbage.
    click(viewer, layer, STROMA)
    qtbot.waitUntil(lambda: session.similar is not None, timeout=10000)
    qtbot.waitUntil(idle(widget), timeout=10000)
    assert viewer.layers["Similarity"] is heat
    assert viewer.layers["Like this / not like this"] is marks
    assert heat.visible
    assert len(marks.data) == 1
    np.testing.assert_array_equal(heat.data, session.similar.similarity.values)


def test_walking_with_the_arrow_keys(ran, qtbot):
    viewer, widget, layer = ran()
    click(viewer, layer, GLAND)
    qtbot.waitUntil(
        lambda: widget.session.similar is not None and not widget.bench.pump.busy
    )
    places = widget.similar_panel.places
    places.setCurrentRow(0)
    first = viewer.scene.camera.center
    QTest.keyClick(places, Qt.Key.Key_Right)
    assert places.currentRow() == 1
    assert viewer.scene.camera.center != first


def test_a_drag_is_not_a_click(ran):
    viewer, widget, layer = ran()
    native = viewer.window._qt_viewer.canvas.native
    start = canvas_point(viewer, layer, *GLAND)
    QTest.mousePress(native, Qt.MouseButton.LeftButton, pos=start)
    for step in range(1, 8):
        QTest.mouseMove(native, start + QPoint(6 * step, 0))
        QTest.qWait(5)
    QTest.mouseRelease(native, Qt.MouseButton.LeftButton, pos=start + QPoint(42, 0))
    assert not widget.session.prompts.items


def test_a_click_on_glass_says_so(ran):
    viewer, widget, layer = ran()
    click(viewer, layer, (12, 12))
    assert "Nothing is computed there" in widget.run_panel.message.text()
    assert not widget.session.prompts.items


def test_painting_is_not_asking(ran):
    viewer, widget, layer = ran()
    widget.teach_panel.paint_button.setChecked(True)
    assert viewer.layers.selection.active.mode == "paint"
    click(viewer, layer, GLAND)
    assert not widget.session.prompts.items
    assert viewer.layers["Teach: strokes"].data.any()


def drag(viewer, layer, start, end):
    native = viewer.window._qt_viewer.canvas.native
    a, b = (canvas_point(viewer, layer, *p) for p in (start, end))
    QTest.mouseMove(native, a)
    QTest.mousePress(native, Qt.MouseButton.LeftButton, pos=a)
    for k in range(1, 11):
        QTest.mouseMove(native, a + (b - a) * k / 10)
        QTest.qWait(5)
    QTest.mouseRelease(native, Qt.MouseButton.LeftButton, pos=b)


@pytest.mark.either_qt
def test_keys_toggle_classes_and_space_peeks(ran, qtbot):
    viewer, widget, _layer = ran()
    native = viewer.window._qt_viewer.canvas.native
    labels = viewer.layers["Class map"]
    QTest.keyClick(native, Qt.Key.Key_2)
    assert not widget.classes_panel.eyes[1].isChecked()
    assert labels.colormap.color_dict[2][3] == 0
    QTest.keyClick(native, Qt.Key.Key_2)
    assert labels.colormap.color_dict[2][3] > 0
    QTest.keyPress(native, Qt.Key.Key_Space)
    assert not labels.visible
    QTest.keyRelease(native, Qt.Key.Key_Space)
    qtbot.waitUntil(lambda: labels.visible, timeout=2000)


def test_only_the_sure_cells(ran):
    viewer, widget, _layer = ran()
    shown = viewer.layers["Class map"].data
    before = int((shown > 0).sum())
    widget.classes_panel.sure.setValue(100)
    assert 0 <= int((shown > 0).sum()) < before
    assert "100 % sure" in widget.classes_panel.sure_words.text()


def test_the_status_bar_says_what_is_under_the_cursor(ran):
    viewer, _widget, layer = ran()
    viewer.cursor.position = pixels_to_world(layer, *GLAND)
    viewer.status = "napari's own words"
    assert viewer.status.startswith("gland ")
    assert "µm" in viewer.status
    viewer.scene.camera.zoom = 4  # screen pixels per µm
    viewer.status = "napari's own words"
    assert viewer.status.endswith("≈ 40×")


def test_cancel_keeps_what_was_done_and_continue_goes_on(explore, qtbot):
    viewer, widget = explore(slow_student())
    add_slide(viewer, array_slide())
    qtbot.waitUntil(ready(widget), timeout=20000)
    widget.run_panel.button.click()
    live = widget.session.live
    qtbot.waitUntil(lambda: live.cells_done > 0, timeout=20000)
    assert viewer.layers["Class map"].data.any(), "the map fills while it computes"
    assert not widget.slide_panel.detail.isEnabled()
    assert "Cancel the run first" in widget.slide_panel.detail.toolTip()
    QTest.mouseClick(widget.run_panel.stop, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(
        lambda: not widget.bench.pump.is_active(ExploreJob.RUN), timeout=5000
    )
    kept = live.cells_done
    assert 0 < kept < 500
    assert widget.run_panel.message.text().startswith("Stopped.")
    assert widget.run_panel.button.text() == "Continue"
    widget.session.student.backend = ColourBackend()
    widget.run_panel.button.click()
    qtbot.waitUntil(idle(widget), timeout=20000)
    assert widget.session.cells_missing == 0
    assert live.cells_done > kept


def test_the_second_time_the_stored_map_is_shown_at_once(ran, qtbot):
    viewer, widget, layer = ran()
    done = widget.session.live.cells_done
    viewer.layers.remove(layer)
    qtbot.waitUntil(lambda: widget.session.slide is None, timeout=5000)
    assert "Class map" not in viewer.layers
    add_slide(viewer, array_slide())
    qtbot.waitUntil(
        lambda: widget.session.live is not None and not widget.bench.pump.busy,
        timeout=20000,
    )
    assert widget.session.live.cells_done == done
    assert widget.run_panel.message.text().startswith("Stored map from ")
    assert widget.run_panel.button.text() == "Run"


def test_a_file_opens_without_blocking_and_missing_mpp_is_asked_for(
    explore, qtbot, tmp_path
):
    import tifffile

    path = tmp_path / "silent.tif"
    tifffile.imwrite(path, tissue_image(), photometric="rgb", tile=(256, 256))
    viewer, widget = explore()
    widget.choosing.open_path(path)
    qtbot.waitUntil(lambda: len(viewer.layers) == 1, timeout=10000)
    qtbot.waitUntil(lambda: widget.session.student is not None, timeout=10000)
    assert open_slide(path).mpp is None, "this file is silent"
    assert widget.slide_panel.mpp.isVisible()
    assert "µm per pixel" in widget.run_panel.button.toolTip()
    mpp = widget.slide_panel.mpp
    mpp.use.click()
    assert "type a number such as 0.25" in widget.run_panel.message.text()
    for typed in ("500", "0.5"):
        qtbot.mouseClick(mpp.field.lineEdit(), Qt.MouseButton.LeftButton)
        mpp.field.lineEdit().selectAll()
        qtbot.keyClicks(mpp.field, typed)
        mpp.use.click()
        said = "cannot be" in widget.run_panel.message.text()
        assert said is (typed == "500")
    # What scanners usually write need not be typed.
    usual = {action.text(): action for action in mpp.common.menu().actions()}
    usual["0.25 µm/px (40× scan)"].trigger()
    assert mpp.form.model.um_per_px == 0.25
    usual["0.5 µm/px (20× scan)"].trigger()
    mpp.use.click()
    qtbot.waitUntil(ready(widget), timeout=10000)
    assert tuple(viewer.layers[0].scale) == (0.5, 0.5)
    assert str(viewer.layers[0].units[0]) == "micrometer"


def test_three_channels_without_names_are_asked_about(explore, qtbot, tmp_path):
    path = tmp_path / "unnamed.zarr"
    write(LocalStore(path), [np.moveaxis(tissue_image(), 2, 0)], omero=None)
    viewer, widget = explore()
    widget.choosing.open_path(path)
    qtbot.waitUntil(lambda: len(viewer.layers) == 1, timeout=10000)
    qtbot.waitUntil(lambda: widget.session.student is not None, timeout=10000)
    assert viewer.layers[0].rgb, "shown as what it may be"
    assert widget.slide_panel.rgb.isVisible()
    assert "red, green and blue" in widget.session.why_not_run
    widget.slide_panel.rgb.yes.click()
    qtbot.waitUntil(ready(widget), timeout=10000)
    assert not widget.slide_panel.rgb.isVisible()
    assert widget.session.slide.info.is_rgb
    widget.run_panel.button.click()
    qtbot.waitUntil(idle(widget), timeout=20000)
    assert "Class map" in viewer.layers


def test_a_slide_lies_where_its_file_places_it_and_so_does_its_map(
    explore, qtbot, tmp_path
):
    levels = [(tissue_image(), (0.5, 0.5), (1000.0, 2000.0))]
    path = write_levels(tmp_path / "placed.zarr", levels)
    viewer, widget = explore()
    widget.choosing.open_path(path)
    qtbot.waitUntil(ready(widget), timeout=20000)
    widget.run_panel.button.click()
    qtbot.waitUntil(idle(widget), timeout=20000)
    slide, drawn = viewer.layers[0], viewer.layers["Class map"]
    assert tuple(slide.translate) == (1000, 2000)
    corners = [layer.data_to_world((-0.5, -0.5)) for layer in (slide, drawn)]
    assert corners[0] == pytest.approx(corners[1])
    target = tmp_path / "map.ome.zarr"
    work = widget.work_to_export(ExportKey.CLASS_LABELS, target)
    list(work(CancelToken()))
    (written,) = viewer.open(str(target), plugin="napari-histodistill")
    assert written.data_to_world((-0.5, -0.5)) == pytest.approx(corners[0])
    assert type(written).__name__ == "Labels"


def test_damage_that_is_looked_at_is_counted(explore, qtbot, tmp_path):
    path, _ = damaged_slide(tmp_path, 8)
    viewer, widget = explore()
    widget.choosing.open_path(path)
    words = "1 tile of the file could not be read so far: striped yellow and blue."
    qtbot.waitUntil(lambda: words in widget.trust_panel.notes.text(), timeout=20000)
    assert len(viewer.layers) == 1


def test_a_plain_image_layer_can_be_explored(explore, qtbot):
    viewer, widget = explore()
    viewer.add_image(
        tissue_image(), rgb=True, scale=(0.5, 0.5), units=("um", "um"), name="mine"
    )
    qtbot.waitUntil(ready(widget), timeout=20000)
    assert widget.session.slide.mpp.source == "the layer's scale in µm"
    widget.run_panel.button.click()
    qtbot.waitUntil(idle(widget), timeout=20000)
    assert "Class map" in viewer.layers


def test_overlays_follow_a_slide_that_is_moved(ran):
    viewer, widget, layer = ran()
    labels = viewer.layers["Class map"]
    layer.translate = (40, -25)
    layer.affine = [[0.9, -0.2, 5], [0.2, 0.9, 7], [0, 0, 1]]
    world = pixels_to_world(layer, *GLAND)
    value = labels.get_value(world, world=True)
    assert widget.session.live.classes[value - 1].name == "gland"


def test_view_and_shape_limit_the_run(explore, qtbot):
    viewer, widget = explore()
    layer = add_slide(viewer, array_slide())
    qtbot.waitUntil(ready(widget), timeout=20000)
    whole = widget.session.plan().wanted_cells().sum()
    viewer.add_shapes(
        [[pixels_to_world(layer, y, x) for y, x in box(150, 150, 300, 350)]],
        units=("um", "um"),
    )
    widget.slide_panel.regions.button(2).click()
    widget.run_panel.button.click()
    qtbot.waitUntil(idle(widget), timeout=20000)
    assert 0 < widget.session.live.cells_done < whole
    assert widget.session.live.status[widget.session.live.grid.cell_at(*GLAND)] == 1
    assert widget.session.live.status[widget.session.live.grid.cell_at(500, 600)] == 0


def box(y0, x0, y1, x1):
    return [(y0, x0), (y0, x1), (y1, x1), (y1, x0)]


def test_every_square_is_run_when_the_box_is_ticked(ran, qtbot):
    _, widget, _ = ran()
    tissue = widget.session.live.cells_done
    assert tissue < widget.session.live.status.size
    said = widget.slide_panel.detail_words.text()
    box = widget.slide_panel.every_square
    QTest.mouseClick(box, Qt.MouseButton.LeftButton, pos=QPoint(8, box.height() // 2))
    assert box.isChecked()
    assert widget.slide_panel.detail_words.text() != said
    assert widget.run_panel.button.text() == "Continue"
    QTest.mouseClick(widget.run_panel.button, Qt.MouseButton.LeftButton)
    assert not box.isEnabled()
    assert "Cancel the run" in box.toolTip()
    qtbot.waitUntil(idle(widget), timeout=20000)
    live = widget.session.live
    assert live.cells_done == live.status.size
    assert (live.labels > 0).all()


@pytest.mark.either_qt
def test_exports(ran, qtbot, tmp_path):
    _viewer, widget, _layer = ran()
    for key, name in (
        (ExportKey.CLASS_OUTLINES, "a.geojson"),
        (ExportKey.CLASS_AREAS, "a.csv"),
    ):
        widget.export(key, tmp_path / name)
        qtbot.waitUntil(idle(widget), timeout=10000)
        assert (tmp_path / name).exists(), widget.run_panel.message.text()
    widget.export(ExportKey.SIMILAR_PLACES, tmp_path / "s.geojson")
    assert "click on tissue first" in widget.run_panel.message.text()


# --- failure paths ------------------------------------------------------------------


def test_a_student_that_raises_runtime_error_leaves_the_panel_usable(explore, qtbot):
    student = colour_student()
    viewer, widget = explore(student)
    layer = add_slide(viewer, array_slide())
    qtbot.waitUntil(ready(widget), timeout=20000)

    def broken(tiles):
        raise RuntimeError("CUDA error: an illegal memory access")

    working, student.backend.embed = student.backend.embed, broken
    widget.run_panel.button.click()
    qtbot.waitUntil(idle(widget), timeout=20000)
    assert "illegal memory access" in widget.run_panel.message.text()
    assert widget.run_panel.button.isEnabled()
    student.backend.embed = working
    widget.run_panel.button.click()
    qtbot.waitUntil(idle(widget), timeout=20000)
    assert widget.session.live.cells_done > 0
    assert layer in viewer.layers


def test_what_a_run_remarks_stays_in_sight(explore, qtbot):
    """A full device halves the batch in the middle of a run; that is said once."""
    student = colour_student()
    student.backend = SlowBackend()
    notes = ["CUDA:0 · Card ran out of memory; the run goes on with 2 tiles at a time"]
    student.backend.take_note = lambda: (
        notes.pop() if notes and len(student.backend.batches) > 3 else ""
    )
    viewer, widget = explore(student)
    add_slide(viewer, array_slide())
    qtbot.waitUntil(ready(widget), timeout=20000)
    widget.run_panel.button.click()
    words = widget.run_panel.message.text
    qtbot.waitUntil(lambda: "ran out of memory" in words(), timeout=20000)
    seen = words()
    qtbot.waitUntil(lambda: words() != seen, timeout=20000)
    assert "ran out of memory" in words() or words().startswith("Done")
    qtbot.waitUntil(idle(widget), timeout=20000)
    assert words().startswith("Done")


def test_a_student_that_cannot_load_is_said(explore, qtbot):
    def broken(name, device="auto"):
        raise RuntimeError("no such operator")

    viewer, widget = explore(load=broken)
    add_slide(viewer, array_slide())
    qtbot.waitUntil(idle(widget), timeout=20000)
    assert "no such operator" in widget.run_panel.message.text()
    assert not widget.run_panel.button.isEnabled()


def test_the_slide_layer_is_removed_during_a_run(explore, qtbot):
    viewer, widget = explore(slow_student())
    layer = add_slide(viewer, array_slide())
    qtbot.waitUntil(ready(widget), timeout=20000)
    widget.run_panel.button.click()
    job = widget.bench.pump._watched[ExploreJob.RUN].job
    qtbot.waitUntil(lambda: widget.session.live.cells_done > 0, timeout=20000)
    viewer.layers.remove(layer)
    qtbot.waitUntil(idle(widget), timeout=5000)
    assert job.join(2)
    assert not widget.session.running
    assert widget.session.slide is None
    assert not len(viewer.layers)
    add_slide(viewer, array_slide(np.full((400, 400, 3), PURPLE, np.uint8)))
    qtbot.waitUntil(ready(widget), timeout=20000)


def test_the_panel_is_closed_during_a_run(explore, qtbot):
    viewer, widget = explore(slow_student())
    add_slide(viewer, array_slide())
    qtbot.waitUntil(ready(widget), timeout=20000)
    widget.run_panel.button.click()
    job = widget.bench.pump._watched[ExploreJob.RUN].job
    qtbot.waitUntil(lambda: widget.session.live.cells_done > 0, timeout=20000)
    viewer.window.remove_dock_widget(widget)
    assert job.join(2)
    job.poll()
    assert job.state is JobState.CANCELLED
    assert "Class map" in viewer.layers, "what was computed stays to be looked at"
    viewer.status = "napari's own words"
    assert viewer.status == "napari's own words"


@pytest.mark.either_qt
def test_the_window_is_closed_during_a_run(explore, qtbot):
    viewer, widget = explore(slow_student())
    add_slide(viewer, array_slide())
    qtbot.waitUntil(ready(widget), timeout=20000)
    widget.run_panel.button.click()
    job = widget.bench.pump._watched[ExploreJob.RUN].job
    viewer.close()
    qtbot.waitUntil(lambda: job.join(0), timeout=5000)
