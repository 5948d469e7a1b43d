"""Compare students on a real canvas: run, look, flicker, ask, leave."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from napari_histodistill.controllers.compare.jobs import CompareJob
from napari_histodistill.controllers.shared.exporting import ExportKey
from napari_histodistill.controllers.shared.map_choice import RegionChoice
from napari_histodistill.controllers.shared.student_list import StudentChoice
from napari_histodistill.distill.runs import kin
from napari_histodistill.distill.runs.folder import read_run, start_run
from napari_histodistill.distill.runs.kin import RunKin
from napari_histodistill.distill.runs.process import start_process
from napari_histodistill.errors import BundleError
from napari_histodistill.layers.slide_layer import slide_layer
from napari_histodistill.maps.similarity import SimilarityIndex
from napari_histodistill.students import list_students
from napari_histodistill.widgets.compare.dock import CompareWidget
from napari_histodistill.widgets.distil.dock import DistilWidget
from napari_histodistill.widgets.keys import ExploreKeys
from napari_histodistill.widgets.shared.slide_layers import pixels_to_world
from tests.controllers.compare.test_session import (
    SECRET,
    another_seed,
    blind_pair,
    secret_slide,
)
from tests.distill.small_runs import small_config, write_textures
from tests.fakes import coarse_student, colour_student, tissue_image
from tests.widgets.conftest import wait_until
from tests.widgets.explore.test_flow import SlowBackend
from tests.widgets.explore.test_steady import RunWatch, moved
from tests.widgets.explore.test_steady import places as controls_at

pytestmark = pytest.mark.gui

GLASS = (20.0, 20.0)
KEY = getattr(Qt.Key, f"Key_{ExploreKeys().flicker}")


@pytest.fixture
def compare(open_viewer, qtbot):
    """Return a function that opens a viewer with the panel docked."""

    def open_one(pair=None, *, load=None):
        known = pair or (coarse_student(), colour_student())
        by_name = {student.name: student for student in known}
        viewer = open_viewer()
        widget = CompareWidget(
            viewer,
            load=load or (lambda name, device="auto": by_name[name]),
            students=[StudentChoice(s.name, s.spec) for s in known],
        )
        viewer.window.add_dock_widget(widget, area="right", name="Compare students")
        qtbot.wait(20)
        return viewer, widget

    return open_one


@pytest.fixture
def ran(compare, qtbot):
    """Return a function that gives viewer, panel and slide layer after a whole run."""

    def run_once(pair=None):
        viewer, widget = compare(pair)
        layer = add_slide(viewer)
        wait_until(qtbot, ready(widget))
        QTest.mouseClick(widget.choose_panel.runner.button, Qt.MouseButton.LeftButton)
        wait_until(qtbot, idle(widget))
        assert widget.session.compared is not None, (
            widget.choose_panel.runner.message.text()
        )
        return viewer, widget, layer

    return run_once


def test_no_control_moves_or_vanishes_through_a_run(compare, qtbot):
    pair = coarse_student(), colour_student()
    pair[1].backend = SlowBackend()
    viewer, widget = compare(pair)
    viewer.window._qt_window.resize(1366, 768)
    add_slide(viewer)
    wait_until(qtbot, ready(widget))
    inside = widget.choose_panel.parentWidget()
    runner = widget.choose_panel.runner
    watch = RunWatch(lambda: controls_at(widget, inside), runner, idle(widget))
    assert len(watch.before) > 10
    runner.button.click()
    wait_until(qtbot, watch, timeout_s=60)
    assert not watch.faults
    assert watch.looks > 10
    assert widget.session.compared is not None
    qtbot.wait(50)  # the answer is laid out
    assert not moved(watch.before, controls_at(widget, inside))


def add_slide(viewer):
    data, kwargs, _ = slide_layer(secret_slide())
    return viewer.add_image(data, **kwargs)


def ready(widget):
    return lambda: not widget.session.why_not_run and not widget.bench.pump.busy


def idle(widget):
    return lambda: not widget.bench.pump.busy


def canvas_of(viewer):
    return viewer.window._qt_viewer.canvas.native


def point_at(viewer, layer, place):
    world = np.array(pixels_to_world(layer, *place))
    height, width = viewer.canvas.size
    away = (world - viewer.scene.camera.center[-2:]) * viewer.scene.camera.zoom
    return QPoint(round(width / 2 + away[1]), round(height / 2 + away[0]))


def click(viewer, layer, place):
    where = point_at(viewer, layer, place)
    QTest.mouseMove(canvas_of(viewer), where)
    QTest.mouseClick(canvas_of(viewer), Qt.MouseButton.LeftButton, pos=where)


def shown(viewer):
    return [layer.name for layer in viewer.layers if layer.visible]


def test_the_empty_panel_teaches_and_refusals_are_said(compare, qtbot, tmp_path):
    def load(name, device="auto"):
        if name == "colour":
            msg = "colour: its weights were changed."
            raise BundleError(msg)
        return coarse_student()

    viewer, widget = compare(load=load)
    choose = widget.choose_panel
    assert "Two models look at one slide" in choose.sentence.text()
    assert "Open a slide" in choose.runner.message.text()
    for control in (choose.runner.button, choose.slide):
        assert not control.isEnabled()
        assert "Open a slide" in control.toolTip()
    assert choose.students[0].currentText().startswith("coarse")
    assert choose.students[1].currentText().startswith("colour")
    for control in (widget.export_button, widget.place_panel.follow):
        assert not control.isEnabled()
        assert "first" in control.toolTip()
    assert "Run both models first" in widget.place_panel.words.text()
    assert "Run both models first" in widget.difference_panel.flicker.text()
    widget.choosing.open_bundle(0, tmp_path)
    assert str(tmp_path) in choose.runner.message.text()
    add_slide(viewer)
    said = "B: colour: its weights were changed."
    wait_until(qtbot, lambda: choose.runner.message.text() == said)
    choose.students[1].setCurrentIndex(0)
    choose.students[1].activated.emit(0)
    wait_until(qtbot, idle(widget))
    assert "the same model" in choose.runner.message.text()
    assert not choose.runner.button.isEnabled()


def test_a_run_shows_where_they_differ_and_how_to_get_there(ran, qtbot, tmp_path):
    viewer, widget, layer = ran()
    names = [layer.name, "A: coarse", "B: colour", "Difference of A and B"]
    assert [x.name for x in viewer.layers] == names
    assert shown(viewer) == [names[0], names[3]]
    assert viewer.layers.selection.active is layer
    sentence = widget.choose_panel.sentence.text()
    assert sentence.startswith("Class probabilities of A (coarse) and B (colour) at ")
    heat, compared = viewer.layers["Difference of A and B"], widget.session.compared
    difference = compared.difference
    clear = difference.values >= compared.threshold
    np.testing.assert_array_equal(np.isfinite(heat.data), clear)
    assert 0 < clear.sum() < difference.cells
    # It lies on the slide: its first cell begins where the slide does.
    corner = np.array(heat.data_to_world((-0.5, -0.5)))
    np.testing.assert_allclose(corner, layer.data_to_world((-0.5, -0.5)), atol=1e-6)
    assert widget.difference_panel.places.count() == min(20, len(compared.ranked)) > 0
    assert "place" in widget.difference_panel.count.text()
    for which in range(2):
        assert "map from" in widget.choose_panel.words[which].text()
    assert "no second seed of A or B is known" in widget.choose_panel.noise_words.text()
    assert not widget.choose_panel.train_seed.isEnabled()
    assert "Neither A nor B was trained" in widget.choose_panel.train_seed.toolTip()
    assert not widget.choose_panel.noise.isEnabled()
    check_controls(widget)
    # The threshold hides at once, and ranks when it rests.
    slider = widget.difference_panel.threshold
    slider.setValue(0)
    assert np.isfinite(heat.data).sum() == difference.cells
    wait_until(qtbot, lambda: widget.session.compared.threshold == 0)
    slider.setValue(slider.maximum())
    assert 0 < np.isfinite(heat.data).sum() < difference.cells
    wait_until(qtbot, lambda: widget.session.compared.threshold > 0)
    wait_until(qtbot, idle(widget))
    # A ranked place is jumped to and asked about.
    places = widget.difference_panel.places
    QTest.mouseClick(
        places.viewport(),
        Qt.MouseButton.LeftButton,
        pos=places.visualItemRect(places.item(0)).center(),
    )
    best = widget.session.compared.ranked[0]
    assert on_canvas(viewer, layer, best)
    wait_until(qtbot, lambda: widget.session.found is not None)
    assert widget.session.place == (best.y, best.x)
    # The status bar says what is under the cursor.
    viewer.cursor.position = pixels_to_world(layer, *SECRET)
    viewer.status = "x"
    assert viewer.status.startswith("difference ")
    assert "A: gland" in viewer.status
    assert "B: gland" in viewer.status
    check_exports(qtbot, widget, tmp_path)


def on_canvas(viewer, layer, place):
    there = pixels_to_world(layer, place.y, place.x)
    half = np.array(viewer.canvas.size) / 2 / viewer.scene.camera.zoom
    return (np.abs(np.array(viewer.scene.camera.center[-2:]) - there) < half).all()


def check_controls(widget):
    from qtpy.QtWidgets import QAbstractButton, QAbstractSlider, QComboBox, QScrollBar

    kinds = (QAbstractButton, QAbstractSlider, QComboBox)
    controls = [
        child
        for kind in kinds
        for child in widget.findChildren(kind)
        if not isinstance(child, QScrollBar) and child.objectName()[:3] != "qt_"
    ]
    assert len(controls) > 15
    silent = [type(c).__name__ for c in controls if not c.toolTip() and c.isVisible()]
    assert not silent
    model = widget.choose_panel.measure.model()
    assert all(model.item(k).toolTip() for k in range(model.rowCount()))


def check_exports(qtbot, widget, tmp_path):
    import zarr

    for key, name in (
        (ExportKey.DIFFERENT_PLACES, "d.geojson"),
        (ExportKey.DIFFERENCE_TABLE, "d.csv"),
        (ExportKey.DIFFERENCE_MAP, "d.ome.zarr"),
    ):
        widget.export(key, tmp_path / name)
        wait_until(qtbot, idle(widget))
        assert widget.saved_row.where.path == tmp_path / name
        assert widget.saved_row.open.isVisible()
    compared = widget.session.compared
    features = json.loads((tmp_path / "d.geojson").read_text())["features"]
    assert len(features) == len(compared.ranked)
    assert features[0]["properties"]["classification"]["name"] == "Different"
    assert features[0]["properties"]["measurements"]["Difference"] == pytest.approx(
        compared.ranked[0].score
    )
    about = json.loads((tmp_path / "d.geojson").read_text())["provenance"]
    assert about["model_a_digest"] != about["model_b_digest"]
    assert about["difference"] == pytest.approx(compared.difference.figure, abs=1e-4)
    assert about["within_noise"] is about["difference_of_two_seeds"] is None
    table = (tmp_path / "d.csv").read_text().splitlines()
    assert about["model_b_digest"] in table[1]
    assert table[0].startswith("rank,difference,")
    assert len(table) == 1 + len(compared.ranked)
    stored = zarr.open_array(tmp_path / "d.ome.zarr" / "0", mode="r")[:]
    np.testing.assert_array_equal(stored, compared.difference.values)


def test_a_held_key_flickers_and_a_resting_cursor_is_followed(ran, qtbot):
    viewer, widget, layer = ran()
    before = shown(viewer)
    canvas = canvas_of(viewer)
    text = viewer.canvas.overlays.text
    QTest.keyPress(canvas, KEY)
    assert shown(viewer) == [layer.name, "A: coarse"]
    assert text.visible
    assert text.text == "A: coarse"
    wait_until(qtbot, lambda: "B: colour" in shown(viewer))
    assert shown(viewer) == [layer.name, "B: colour"]
    assert text.text == "B: colour"
    QTest.keyRelease(canvas, KEY)
    assert shown(viewer) == before == [layer.name, "Difference of A and B"]
    assert not text.visible
    qtbot.wait(600)
    assert shown(viewer) == before, "nothing flickers on"
    # The cursor is followed once it rests.
    QTest.mouseClick(widget.place_panel.follow, Qt.MouseButton.LeftButton)
    QTest.mouseMove(canvas, point_at(viewer, layer, (320, 560)))
    qtbot.wait(50)
    QTest.mouseMove(canvas, point_at(viewer, layer, SECRET))
    wait_until(qtbot, lambda: widget.session.found is not None)
    assert widget.session.place == pytest.approx(SECRET, abs=4)
    QTest.mouseMove(canvas, point_at(viewer, layer, GLASS))
    qtbot.wait(450)
    assert widget.session.place == pytest.approx(SECRET, abs=4), "glass is not asked"
    QTest.mouseClick(widget.place_panel.follow, Qt.MouseButton.LeftButton)
    assert not viewer.mouse_move_callbacks


@pytest.mark.either_qt
def test_a_click_shows_what_both_find_alike(ran, qtbot):
    viewer, widget, layer = ran(blind_pair())
    assert widget.session.measure == "neighbours"
    assert "Click a place first" in widget.difference_panel.flicker.text()
    QTest.keyPress(canvas_of(viewer), KEY)
    assert shown(viewer) == [layer.name, "Difference of A and B"], "nothing to show yet"
    QTest.keyRelease(canvas_of(viewer), KEY)
    click(viewer, layer, GLASS)
    assert "Nothing is computed there" in widget.choose_panel.runner.message.text()
    click(viewer, layer, SECRET)
    wait_until(qtbot, lambda: widget.session.found is not None)
    wait_until(qtbot, idle(widget))
    found = widget.session.found
    assert found.place == pytest.approx(SECRET, abs=2)
    for pictures, places in zip(widget.place_panel.rows, found.nearest, strict=True):
        assert pictures.isVisible()
        assert pictures.count() == len(places) > 1
        assert not pictures.item(0).icon().isNull()
    assert "A and B share" in widget.place_panel.words.text()
    assert "Hold" in widget.difference_panel.flicker.text()
    marks = viewer.layers["Place and its neighbours"]
    assert len(marks.data) == 1 + sum(map(len, found.nearest))
    assert marks.data_to_world(marks.data[0]) == pytest.approx(
        pixels_to_world(layer, *found.place)
    )
    # The maps of A and B are now similarity to that place.
    QTest.keyPress(canvas_of(viewer), KEY)
    assert shown(viewer)[:2] == [layer.name, "A: coarse"]
    QTest.keyRelease(canvas_of(viewer), KEY)
    # A neighbour is walked to with the keyboard.
    widget.place_panel.rows[1].setCurrentRow(0)
    QTest.keyClick(widget.place_panel.rows[1], Qt.Key.Key_Right)
    assert on_canvas(viewer, layer, found.nearest[1][1])
    QTest.mouseClick(widget.place_panel.forget, Qt.MouseButton.LeftButton)
    assert widget.session.place is None
    assert [x.name for x in viewer.layers] == [layer.name, "Difference of A and B"]


def test_another_measure_and_swapping(ran, qtbot):
    viewer, widget, _layer = ran()
    looked = [sum(s.backend.batches) for s in widget.session.students]
    box = widget.choose_panel.measure
    box.setCurrentIndex(2)
    box.activated.emit(2)
    wait_until(qtbot, idle(widget))
    assert "is not in what A" in widget.choose_panel.sentence.text()
    heat = viewer.layers["Difference of A and B"]
    widget.difference_panel.threshold.setValue(0)
    assert np.nanmin(heat.data) < 0 < np.nanmax(heat.data), "two ends"
    assert [sum(s.backend.batches) for s in widget.session.students] == looked
    QTest.mouseClick(widget.choose_panel.swap, Qt.MouseButton.LeftButton)
    assert [s.name for s in widget.session.students] == ["colour", "coarse"]
    assert widget.choose_panel.students[0].currentText().startswith("colour")
    assert "Difference of A and B" not in viewer.layers
    QTest.mouseClick(widget.choose_panel.runner.button, Qt.MouseButton.LeftButton)
    wait_until(qtbot, lambda: widget.session.compared is not None)
    assert [sum(s.backend.batches) for s in widget.session.students] == looked[::-1]


def test_cancel_keeps_what_is_done(compare, qtbot):
    student = colour_student()
    embed = student.backend.embed

    def slowly(tiles):
        time.sleep(0.01 * len(tiles))
        return embed(tiles)

    student.backend.embed = slowly
    viewer, widget = compare((coarse_student(), student))
    add_slide(viewer)
    wait_until(qtbot, ready(widget))
    QTest.mouseClick(widget.choose_panel.runner.button, Qt.MouseButton.LeftButton)
    wait_until(
        qtbot,
        lambda: bool(widget.session.lives[1] and widget.session.lives[1].cells_done),
    )
    assert not widget.choose_panel.swap.isEnabled()
    assert "Cancel the run" in widget.choose_panel.swap.toolTip()
    QTest.mouseClick(widget.choose_panel.runner.stop, Qt.MouseButton.LeftButton)
    wait_until(qtbot, idle(widget))
    assert "What is done is kept" in widget.choose_panel.runner.message.text()
    assert widget.session.compared is None
    assert widget.choose_panel.runner.button.isVisible()


def test_a_place_asked_before_a_run_does_not_answer_after_it(
    compare, qtbot, monkeypatch
):
    read = SimilarityIndex.from_store

    def slowly(store):
        index = read(store)
        time.sleep(0.5)
        return index

    viewer, widget = compare()
    layer = add_slide(viewer)
    wait_until(qtbot, ready(widget))
    widget.choosing.choose_region(RegionChoice.VIEW)
    viewer.scene.camera.center = pixels_to_world(layer, *SECRET)
    viewer.scene.camera.zoom *= 4
    widget.comparing.run()
    wait_until(qtbot, idle(widget))
    first = widget.session.lives[0].cells_done
    monkeypatch.setattr(SimilarityIndex, "from_store", slowly)
    widget.asking.click(*SECRET)
    wait_until(qtbot, lambda: widget.bench.pump.is_active(CompareJob.PLACE))
    widget.choosing.choose_region(RegionChoice.WHOLE)
    widget.comparing.run()
    assert not widget.bench.pump.is_active(CompareJob.PLACE)
    wait_until(qtbot, idle(widget))
    assert widget.session.found is None
    widget.asking.click(*SECRET)
    wait_until(qtbot, lambda: widget.session.found is not None)
    for answer, live in zip(
        widget.session.found.answers, widget.session.lives, strict=True
    ):
        assert np.isfinite(answer.values).sum() == live.cells_done > first
    wait_until(qtbot, idle(widget))


def test_layers_may_be_deleted_and_the_slide_removed(ran, qtbot):
    viewer, widget, layer = ran()
    viewer.layers.remove("Difference of A and B")
    widget.difference_panel.threshold.setValue(10)
    click(viewer, layer, SECRET)
    wait_until(qtbot, lambda: widget.session.found is not None)
    viewer.layers.remove("Place and its neighbours")
    QTest.keyPress(canvas_of(viewer), KEY)
    viewer.layers.remove(layer)
    QTest.keyRelease(canvas_of(viewer), KEY)
    wait_until(qtbot, lambda: widget.session.slide is None)
    assert "Open a slide" in widget.choose_panel.runner.message.text()
    assert len(viewer.layers) == 0


@pytest.mark.either_qt
def test_closing_during_a_run_leaves_nothing_behind(compare, qtbot):
    viewer, widget = compare()
    add_slide(viewer)
    wait_until(qtbot, ready(widget))
    QTest.mouseClick(widget.choose_panel.runner.button, Qt.MouseButton.LeftButton)
    QTest.mouseClick(widget.place_panel.follow, Qt.MouseButton.LeftButton)
    viewer.close()  # the leak check of the fixture has the last word


def test_two_bundles_are_compared_on_a_layer(open_viewer, qtbot, monkeypatch):
    """As *Distil a student* opens it: folders, notes, the layer, and a second seed."""
    *folders, seed = [entry.folder for entry in list_students()[:3]]
    students = dict(zip(folders, (coarse_student(), colour_student()), strict=True))
    students[seed] = another_seed(coarse_student, lift=0.5)
    runs = {
        folders[0]: RunKin(folders[0], "unprivileged", 0, "", "r", 0, alone=True),
        folders[1]: RunKin(folders[1], "triplet", 0, "ihc", "r", 0, alone=False),
        seed: RunKin(seed, "unprivileged", 1, "", "r", 0, alone=True),
    }
    monkeypatch.setattr(kin, "kin_of", runs.get)
    monkeypatch.setattr(kin, "kin_beside", lambda b: [runs[f] for f in runs if f != b])
    viewer = open_viewer()
    layer, _other = add_slide(viewer), add_slide(viewer)
    widget = CompareWidget(
        viewer, load=lambda name, device="auto": students[name], students=[]
    )
    viewer.window.add_dock_widget(widget, area="right", name="Compare students")
    widget.compare_bundles(folders, ("without partner", "with partner"), layer)
    wait_until(qtbot, ready(widget))
    titles = [combo.currentText() for combo in widget.choose_panel.students]
    assert [t.split(" · ")[1] for t in titles] == ["without partner", "with partner"]
    assert [s.name for s in widget.session.students] == ["coarse", "colour"]
    assert widget.bench.slide_layer is layer
    choose = widget.choose_panel
    assert choose.noise.isEnabled()
    assert "another seed of A (seed 1): about " in choose.noise_words.text()
    QTest.mouseClick(choose.runner.button, Qt.MouseButton.LeftButton)
    wait_until(qtbot, idle(widget))
    verdicts = "Within noise. Class", "More than noise. Class"
    assert choose.sentence.text().startswith(verdicts)
    assert "map from" in choose.noise_words.text()
    # Swapped, it is the other seed of B; unticked, noise is not measured.
    QTest.mouseClick(choose.swap, Qt.MouseButton.LeftButton)
    assert "another seed of B (seed 1)" in choose.noise_words.text()
    choose.noise.click()
    QTest.mouseClick(choose.runner.button, Qt.MouseButton.LeftButton)
    wait_until(qtbot, idle(widget))
    assert "Noise is not measured" in choose.sentence.text()


@pytest.mark.slow
def test_distil_opens_the_comparison_once_both_are_trained(
    open_viewer, qtbot, tmp_path
):
    runs, tiles = tmp_path / "runs", write_textures(tmp_path / "tiles", cases=4)
    trainings = {}
    for arm in ("privileged", "unprivileged"):
        config = small_config(arm, name=arm, schedule={"steps": 2})
        trainings[arm] = start_process(start_run(config, runs / arm, tiles))
    for training in trainings.values():
        assert training.wait(120), training.view().message
    viewer = open_viewer()
    distil = DistilWidget(viewer, runs=runs)
    viewer.window.add_dock_widget(distil, area="right", name="Distil a student")
    button = distil.comparing.button
    assert not button.isEnabled()
    assert "no model yet" in button.toolTip()
    layer = add_slide(viewer)
    distil.session.run = trainings["privileged"]
    (runs / "unprivileged").rename(tmp_path / "aside")
    distil.bench.changed.emit()
    assert "Train both first" in button.toolTip()
    (tmp_path / "aside").rename(runs / "unprivileged")
    distil.bench.changed.emit()
    assert button.isEnabled()
    # Its figure, without noise; and what labelled tiles say of the partner.
    helping, begun = distil.helping, []
    assert helping.measured.text().endswith("noise not measured)")
    helping._begin = begun.append
    QTest.mouseClick(helping.second, Qt.MouseButton.LeftButton)
    assert read_run(begun[0])[0].seed == 1
    helping.judge(tiles)
    assert not helping.ask.isEnabled()
    wait_until(qtbot, lambda: "cases" in helping.answer.text(), 60)
    assert "Too few cases to say" in helping.answer.text()
    wait_until(qtbot, lambda: helping.ask.isEnabled())
    panel = distil.comparing.compare()
    wait_until(qtbot, ready(panel), 60)
    assert panel.bench.slide_layer is layer
    assert [s.name for s in panel.session.students] == ["unprivileged", "privileged"]
    titles = [combo.currentText() for combo in panel.choose_panel.students]
    assert [t.split(" · ")[1] for t in titles] == ["without partner", "with partner"]
    QTest.mouseClick(panel.choose_panel.runner.button, Qt.MouseButton.LeftButton)
    wait_until(qtbot, lambda: panel.session.compared is not None, 60)
    # What it lacks, a second seed, is trained from here; then noise is measured.
    wait_until(qtbot, idle(panel), 60)
    seed = panel.choose_panel.train_seed
    assert "Noise is not measured" in panel.choose_panel.sentence.text()
    QTest.mouseClick(seed, Qt.MouseButton.LeftButton)
    assert seed.text() == "Cancel the training"
    wait_until(qtbot, lambda: panel.session.seeds is None, 120)
    wait_until(
        qtbot,
        lambda: panel.session.seeds is not None and not panel.bench.pump.busy,
        120,
    )
    assert not seed.isVisibleTo(panel)
    assert panel.session.seeds.second.seed == 1
    assert "oise. " in panel.choose_panel.sentence.text()
    panel.shut_down()


def test_the_images_of_a_file_can_be_chosen_between(compare, qtbot, tmp_path):
    path = tmp_path / "scenes.tif"
    with tifffile.TiffWriter(path) as tif:
        for image in (tissue_image(), tissue_image()[::-1].copy()):
            tif.write(image, photometric="rgb", tile=(64, 64), metadata=None)
    viewer, widget = compare()
    widget.choosing.open_path(path)
    row = widget.choose_panel.images
    wait_until(qtbot, row.isVisible)
    row.chosen.emit(1)
    wait_until(qtbot, lambda: widget.session.slide.info.image == 1)
    assert row.combo.currentText().startswith("page 1")
    assert len(viewer.layers) == 2
    wait_until(qtbot, idle(widget))
