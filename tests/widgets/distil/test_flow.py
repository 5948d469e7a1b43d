"""Distil a student, from two layers to a map: real widgets, a real training process."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import psutil
import pytest
import tifffile
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_histodistill.controllers.distil.jobs import DistilJob
from napari_histodistill.controllers.explore.jobs import ExploreJob
from napari_histodistill.distill.exchange.frames import PointUnit
from napari_histodistill.distill.pairs.store import read_pairs
from napari_histodistill.distill.runs.folder import read_run
from napari_histodistill.distill.runs.process import look_at
from napari_histodistill.geometry import Mpp
from napari_histodistill.layers.slide_layer import slide_layer
from napari_histodistill.samples.paired import CHANNELS, paint_pair
from napari_histodistill.slides import open_slide, slide_from_arrays
from napari_histodistill.widgets.distil.align.checkerboard import (
    TITLE as CHECKERBOARD,
)
from napari_histodistill.widgets.distil.align.files import FileFacts
from napari_histodistill.widgets.distil.bench import SAME
from napari_histodistill.widgets.distil.dock import DistilWidget, OnClose
from napari_histodistill.widgets.explore.dock import ExploreWidget
from tests.widgets.conftest import wait_until

pytestmark = pytest.mark.gui

MPP = Mpp(0.5, 0.5, "test")
SHIFT_PX = (14, -9)
"""How far the partner is off before it is aligned."""


@pytest.fixture(scope="module")
def painted():
    return paint_pair(640)


@pytest.fixture
def open_distil(open_viewer, qtbot, tmp_path):
    """Return a function that opens a viewer with the panel docked."""
    started = []

    def open_one():
        viewer = open_viewer()
        widget = DistilWidget(viewer, runs=tmp_path / "runs")
        started.append(tmp_path / "runs")
        viewer.window.add_dock_widget(widget, area="right", name="Distil a student")
        qtbot.wait(20)
        return viewer, widget

    yield open_one
    for process in psutil.Process().children(recursive=True):
        words = " ".join(process.cmdline())
        # Not what forks for later tests, too.
        if "histodistill" in words and "multiprocessing" not in words:
            process.kill()


def add(viewer, pixels, name, channels=None):
    slide = slide_from_arrays(pixels, name=name, mpp=MPP, channels=channels)
    data, kwargs, _ = slide_layer(slide)
    return viewer.add_image(data, **kwargs)


def add_pair(viewer, painted, *, shifted=False):
    he = add(viewer, painted.sparse, "H&E")
    dense = np.roll(painted.dense, SHIFT_PX, (0, 1)) if shifted else painted.dense
    return he, add(viewer, dense, "marker", CHANNELS)


def tick(widget, name):
    """Tick a partner as a person does, in the list."""
    shown = widget.layers_step.partners
    for k in range(shown.count()):
        if shown.item(k).text().startswith(name):
            shown.item(k).setCheckState(Qt.CheckState.Checked)
            return
    raise AssertionError(name)


def turn(is_done):
    """Let the event loop turn until something is true."""
    until = time.monotonic() + 20
    while not is_done() and time.monotonic() < until:
        QApplication.processEvents()
        time.sleep(0.005)
    assert is_done()


def begin_picking(widget):
    """Press the button; the layers for landmarks are made in turns."""
    widget.align_step.pick.click()
    turn(lambda: widget.aligning.landmarks.active)
    return widget.aligning.landmarks._points


def fitted(widget):
    """Let the landmarks be fitted."""
    turn(lambda: not widget.bench.pump.is_active(DistilJob.FITTING))


def explored(widget):
    """Use the student in Explore; return that panel."""
    widget.train_step.use.click()
    turn(lambda: not widget.distilling._turns.active)
    window = widget.bench.viewer.window._qt_window
    return window.findChild(ExploreWidget)


def preview(qtbot, widget, px=48):
    widget.pairs_step.px.setValue(px)
    widget.pairs_step.preview.click()
    wait_until(qtbot, lambda: not widget.bench.pump.busy, 60)
    assert widget.session.planned is not None, widget.message.text()


def start(qtbot, widget, steps=1):
    """Start a training and wait until it has taken some steps."""
    widget.train_step.start.click()

    def far_enough():
        run = widget.session.run
        view = None if run is None else run.view()
        assert view is None or view.state != "failed", view.message
        return view is not None and view.step >= steps

    wait_until(qtbot, far_enough, 120)


def zombies():
    return [
        p.pid
        for p in psutil.Process().children(recursive=True)
        if p.status() == psutil.STATUS_ZOMBIE
    ]


def test_the_whole_story(open_distil, qtbot, painted):
    viewer, widget = open_distil()
    he, dense = add_pair(viewer, painted, shifted=True)
    # 1: choose
    tick(widget, "marker")
    assert widget.layers_step.line.text() == "H&E learns from marker"
    assert "channels" in widget.layers_step.meaning.text()
    # 2: align, by turns
    widget.align_step.pick.click()
    assert "A moment" in widget.align_step.words.text()
    turn(lambda: "on the H&E" in widget.align_step.words.text())
    here, there = widget.aligning.landmarks._points
    for y, x in [(50, 60), (60, 250), (240, 70), (250, 250), (150, 140)]:
        turn(lambda: he.visible and not dense[0].visible)
        here.add([y, x])
        assert "the same place" in widget.align_step.words.text()
        turn(lambda: dense[1].visible and not he.visible)
        there.add([y + SHIFT_PX[0] * 0.5, x + SHIFT_PX[1] * 0.5])
    widget.align_step.pick.click()
    fitted(widget)
    assert he.visible
    assert dense[0].visible
    said = widget.align_step.line.text()
    assert said.startswith("5 landmarks · similarity · median 0.0 µm")
    assert "good enough for single cells" in said
    for channel in dense:  # the layers now lie on each other
        moved = np.asarray(channel.data_to_world((100, 100)))
        wanted = np.array([100 - SHIFT_PX[0], 100 - SHIFT_PX[1]]) * 0.5
        np.testing.assert_allclose(moved, wanted, atol=1e-3)
    # 3: pairs
    preview(qtbot, widget)
    plan = widget.session.planned.plan
    sparse, (twin,), sure = widget.session.planned.twins[0]
    assert sparse.shape == twin.shape == (48, 48, 3)
    assert 0.9 < sure <= 1
    assert f"{len(plan)} pairs of 24 µm" in widget.pairs_step.line.text()
    assert "Enough for: Quick look" in widget.pairs_step.line.text()
    # Twins are in register again: marked nuclei are where H&E has nuclei.
    dark = np.stack([plan.sparse_tile(k)[..., 0] for k in range(20)]).astype(float)
    glow = np.stack([plan.partner_tile(k, 0)[..., 0] for k in range(20)]).astype(float)
    assert np.corrcoef(dark.ravel(), glow.ravel())[0, 1] < -0.6
    # 4: train, watch, stop
    start(qtbot, widget, steps=5)
    assert widget.train_step.bar.isVisible()
    assert widget.train_step.curves._lines[0][2], "the curve has points"
    assert "Training: step" in widget.train_step.line.text()
    assert not widget.train_step.start.isEnabled()
    widget.train_step.stop.click()
    wait_until(qtbot, lambda: not widget.session.works, 60)
    wait_until(qtbot, lambda: widget.train_step.use.isEnabled())
    assert "the best model so far is kept" in widget.train_step.line.text()
    widget.train_step.command.click()
    assert "config.toml" in QApplication.clipboard().text()
    # 5: use it
    mine = viewer.add_image(np.zeros((9, 9)), translate=(5000, 5000), name="mine")
    over = viewer.add_labels(np.ones((99, 99), int), name="over it")
    widget.align_step.checker.setChecked(True)
    explore = explored(widget)
    assert he.visible
    assert mine.visible, "it lies elsewhere"
    hidden = [*dense, over, *widget.aligning.landmarks._points]
    assert not any(layer.visible for layer in hidden)
    assert all(layer in viewer.layers for layer in hidden)
    assert CHECKERBOARD not in viewer.layers
    wait_until(qtbot, lambda: not explore.session.why_not_run, 60)
    assert explore.session.student.spec.training.arm == "triplet"
    explore.run_panel.button.click()
    wait_until(qtbot, lambda: explore.bench.pump.is_active(ExploreJob.RUN), 10)
    wait_until(qtbot, lambda: not explore.bench.pump.busy, 120)
    assert explore.session.live.cells_done > 20
    explore.searching.click(320, 320, like=True)
    wait_until(qtbot, lambda: "Similarity" in viewer.layers, 30)
    explore.shut_down()
    assert not zombies()


def test_a_killed_training_says_so_and_goes_on(open_distil, qtbot, painted):
    viewer, widget = open_distil()
    add_pair(viewer, painted)
    tick(widget, "marker")
    preview(qtbot, widget)
    start(qtbot, widget, steps=1)
    run = widget.session.run
    os.kill(run._process.pid, signal.SIGKILL)
    wait_until(qtbot, lambda: not widget.session.works)
    wait_until(qtbot, lambda: "it was killed" in widget.train_step.line.text())
    assert widget.train_step.start.text() == "Go on"
    before = len(widget.session.run.view().events)
    widget.train_step.start.click()
    assert widget.session.run.folder == run.folder
    wait_until(qtbot, lambda: len(widget.session.run.view().events) > before + 1, 120)
    # Pausing frees the machine, and going on goes on.
    widget.train_step.pause.click()
    wait_until(qtbot, lambda: widget.session.run.view().state == "paused", 60)
    wait_until(qtbot, lambda: widget.train_step.pause.text() == "Go on")
    widget.train_step.pause.click()
    wait_until(qtbot, lambda: widget.session.run.view().state == "running", 60)
    widget.train_step.stop.click()
    wait_until(qtbot, lambda: not widget.session.works, 60)
    assert not zombies()


def test_a_training_outlives_its_window_and_is_found_again(open_distil, qtbot, painted):
    viewer, widget = open_distil()
    add_pair(viewer, painted)
    tick(widget, "marker")
    preview(qtbot, widget)
    start(qtbot, widget, steps=1)
    folder = widget.session.run.folder
    answers = [OnClose.STAY, OnClose.RUN_ON]
    widget.ask_close = lambda: answers.pop(0)
    window = viewer.window._qt_window
    window.close()
    assert window.isVisible(), "staying keeps the window"
    assert widget.session.run.view().works
    widget.shut_down()
    assert look_at(folder).works, "the training runs on"
    _, other = open_distil()
    assert other.train_step.line.text().startswith("From H&E with marker. ")
    assert other.session.run.folder == folder
    assert other.session.works
    other.train_step.stop.click()
    wait_until(qtbot, lambda: not other.session.works, 60)
    until = time.monotonic() + 10
    while zombies() and time.monotonic() < until:
        time.sleep(0.05)
    assert not zombies()


def test_unfit_choices_are_refused_with_a_reason(open_distil, qtbot, painted):
    viewer, widget = open_distil()
    assert "Open Sample" in widget.layers_step.line.text()
    plain = viewer.add_image(painted.sparse, name="plain", rgb=True)
    assert "does not say how many µm a pixel" in widget.layers_step.line.text()
    assert not widget.pairs_step.preview.isEnabled()
    viewer.layers.remove(plain)
    add(viewer, painted.sparse, "H&E")
    far = add(viewer, painted.dense[..., 0], "far")
    far.translate = (90000, 0)
    tick(widget, "far")
    widget.pairs_step.preview.click()
    wait_until(qtbot, lambda: not widget.bench.pump.busy)
    assert "far does not show the tissue of H&E" in widget.message.text()
    viewer.layers.remove(far)
    flat = painted.dense.copy()
    flat[..., 1] = 7
    add(viewer, flat, "flat", CHANNELS)
    tick(widget, "flat")
    widget.pairs_step.preview.click()
    wait_until(qtbot, lambda: not widget.bench.pump.busy)
    assert "the channel 'marker' is the same everywhere" in widget.message.text()


@pytest.mark.either_qt
def test_labels_spots_and_magnification_make_pairs(open_distil, qtbot, painted):
    viewer, widget = open_distil()
    add(viewer, painted.sparse, "H&E")
    objects = (painted.positive.astype(np.int32)) * 3
    viewer.add_labels(objects, name="zones", scale=(0.5, 0.5), units=("um", "um"))
    rng = np.random.default_rng(0)
    viewer.add_points(
        rng.uniform(40, 280, (120, 2)),
        name="spots",
        features={"GENE1": rng.poisson(5, 120), "GENE2": rng.poisson(9, 120)},
        units=("um", "um"),
    )
    for name, words in (
        ("zones", "outlined things"),
        ("spots", "Tiles are centred"),
        (SAME.value, "low magnification"),
    ):
        widget.pairing.tick()
        tick(widget, name)
        assert words in widget.layers_step.meaning.text()
        preview(qtbot, widget, px=64)
        recipe = widget.session.recipe("test")
        assert recipe.arm == "triplet"
        kinds = {"zones": "mask", "spots": "expression", SAME.value: "image"}
        assert recipe.dense[0].kind == kinds[name]
        assert recipe.sparse.tile_px == (16 if name == SAME.value else 64)
    # Several at once.
    tick(widget, "zones")
    assert len(widget.session.partners) == 2


def test_one_student_learns_from_two_sections(open_distil, qtbot, painted):
    viewer, widget = open_distil()
    step = widget.pairs_step
    he, channels = add_pair(viewer, painted)
    tick(widget, "marker")
    assert not step.keep.isEnabled()
    preview(qtbot, widget)
    one = len(widget.session.planned.plan)
    assert not step.forget.isVisible()
    assert not step.held_out_row.isVisible()
    step.keep.click()
    assert "Pairs of H&E are kept" in widget.layers_step.line.text()
    assert step.line.text().startswith(f"Kept: H&E ({one}).")
    assert not step.preview.isEnabled()
    assert not step.px.isEnabled(), "all sections have tiles of one size"
    assert step.forget.isVisible()
    assert widget.train_step.start.isEnabled(), "one section may do"
    # The next section comes in place of the first, which nobody needs any more.
    for layer in (he, *channels):
        viewer.layers.remove(layer)
    assert widget.session.sparse is None
    assert widget.train_step.start.isEnabled()
    other = paint_pair(640, seed=5)
    add(viewer, other.sparse, "second H&E")
    add(viewer, other.dense, "second marker", CHANNELS)
    tick(widget, "second marker")
    preview(qtbot, widget)
    two = len(widget.session.planned.plan)
    assert f"{one + two} pairs in all" in step.line.text()
    offered = [step.held_out.itemText(k) for k in range(step.held_out.count())]
    assert offered == ["regions of every section", "all of H&E", "all of second H&E"]
    step.held_out.setCurrentIndex(1)
    step.held_out.activated.emit(1)
    assert f"{two} to train on and {one}, all of H&E, held out" in step.line.text()
    assert step.held_out.currentIndex() == 1
    start(qtbot, widget, steps=2)
    assert not widget.train_step.start.isEnabled()
    stored = read_pairs(widget.session.run.folder / "pairs.zarr")
    assert len(stored) == one + two
    assert stored.source == "H&E + image; second H&E + image"
    config, _ = read_run(widget.session.run.folder)
    assert config.data.validate_on == ("H&E",)
    widget.train_step.stop.click()
    wait_until(qtbot, lambda: not widget.session.works, 60)
    step.forget.click()
    assert not step.forget.isVisible()
    assert not step.held_out_row.isVisible()
    assert step.px.isEnabled()
    assert step.line.text().startswith(f"{two} pairs of 24 µm, about")


def test_plain_layers_of_one_name_are_two_sections(open_distil, qtbot, painted):
    viewer, widget = open_distil()
    um = {"scale": (0.5, 0.5), "units": ("um", "um")}
    for pair in (painted, paint_pair(640, seed=5)):
        # As two files he.png of two folders, one after the other.
        he = viewer.add_image(pair.sparse, name="he", rgb=True, **um)
        glow = viewer.add_image(pair.dense[..., 1], name="glow", **um)
        assert "are kept" not in widget.layers_step.line.text()
        tick(widget, "glow")
        preview(qtbot, widget)
        widget.pairs_step.keep.click()
        assert "Pairs of he are kept" in widget.layers_step.line.text()
        viewer.layers.remove(he)
        viewer.layers.remove(glow)
    assert len(widget.session.kept) == 2


def test_two_partners_of_one_name_stay_two(open_distil, qtbot, painted):
    viewer, widget = open_distil()
    add_pair(viewer, painted)
    add(viewer, 255 - painted.dense, "marker", CHANNELS)  # another file of that name
    shown = widget.layers_step.partners
    assert shown.item(1).text() == shown.item(0).text() + " (2)"
    for k in range(2):
        shown.item(k).setCheckState(Qt.CheckState.Checked)
    preview(qtbot, widget)
    plan, recipe = widget.session.planned.plan, widget.session.recipe("test")
    assert [d.column for d in recipe.dense] == ["image", "image (2)"]
    here, there = (p.slide.read_pixels(0, 0, 0, 64, 64) for p in plan.partners)
    np.testing.assert_array_equal(here, 255 - there)


@pytest.mark.either_qt
def test_an_alignment_is_saved_and_loaded(open_distil, qtbot, painted, tmp_path):
    viewer, widget = open_distil()
    add_pair(viewer, painted)
    tick(widget, "marker")
    here, there = begin_picking(widget)
    places = np.array([(50, 60), (60, 250), (240, 70), (250, 250), (150, 140)], float)
    for k, place in enumerate(places):
        here.add(place)
        there.add(place + (40 if k == 4 else 2))
    widget.align_step.pick.click()
    fitted(widget)
    assert "worst #5" in widget.align_step.line.text()
    widget.align_step.remove.click()
    fitted(widget)
    assert "4 landmarks" in widget.align_step.line.text()
    widget.aligning.files.save(tmp_path / "a.json")
    before = widget.session.partners[0].matrix.copy()
    widget.session.put_alignment(0, None)
    widget.aligning.files.load(tmp_path / "a.json")
    np.testing.assert_allclose(widget.session.partners[0].matrix, before)
    (tmp_path / "b.json").write_text("{}")
    widget.aligning.files.load(tmp_path / "b.json")
    assert "b.json" in widget.message.text()
    # Landmarks of another program: one file for both sides, which leaves things open.
    rows = [f'"{k}","true",{x + 9},{y + 5},{x},{y}' for k, (y, x) in enumerate(places)]
    (tmp_path / "bigwarp.csv").write_text("\n".join(rows))
    asked = []
    widget.aligning.files.ask_facts = asked.append  # closed without an answer
    widget.aligning.files.load(tmp_path / "bigwarp.csv")
    assert len(asked) == 1
    assert len(widget.aligning.landmarks.pixels()[0]) == 4, "nothing was taken"
    widget.aligning.files.ask_facts = lambda _chosen: FileFacts(PointUnit.PIXELS)
    widget.aligning.files.load(tmp_path / "bigwarp.csv")
    fitted(widget)
    assert "5 landmarks · similarity · median 0.0 µm" in widget.align_step.line.text()
    off = widget.session.partners[0].matrix[:2, 2]
    np.testing.assert_allclose(off, (2.5, 4.5), atol=1e-6)


def test_another_image_of_the_file_can_be_the_he(open_distil, qtbot, tmp_path):
    path = tmp_path / "scenes.ome.tif"
    image = paint_pair(256).sparse
    with tifffile.TiffWriter(path, ome=True) as tif:
        for pixels, name in ((image, "A"), (image[::-1].copy(), "B")):
            about = {"Name": name, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
            options = {"photometric": "rgb", "tile": (64, 64)}
            tif.write(pixels, metadata={"axes": "YXS"} | about, **options)
    viewer, widget = open_distil()
    data, kwargs, _ = slide_layer(open_slide(path))
    viewer.add_image(data, **kwargs)
    row = widget.layers_step.images
    qtbot.waitUntil(lambda: row.combo.count() == 2, timeout=10000)
    assert not row.isHidden()
    row.chosen.emit(1)
    qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=10000)
    qtbot.waitUntil(lambda: row.combo.currentIndex() == 1, timeout=10000)
    assert widget.bench.sparse_layer is viewer.layers[1]
    assert [x.visible for x in viewer.layers] == [False, True]
    assert widget.layers_step.sparse.currentText() == "scenes.ome.tif · B"
    qtbot.waitUntil(lambda: not widget.bench.pump.busy, timeout=10000)
