"""Steps 4 and 5 in the window: settings, preview, memory, report, classes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from html import unescape

import numpy as np
import pytest
from joblib.externals import loky
from qtpy.QtGui import QDesktopServices

import napari_histodistill.controllers.distil.preview as looking_on
import napari_histodistill.widgets.distil.train.preview as previewing
from napari_histodistill.controllers.distil.classes import WITH_CLASSES
from napari_histodistill.distill.runs.checkpoints import LAST
from napari_histodistill.distill.runs.events import TrainingReport, append_event
from napari_histodistill.distill.runs.folder import read_run
from napari_histodistill.distill.runs.preview import asked_every
from napari_histodistill.distill.runs.process import RunProcess
from napari_histodistill.widgets.distil.train.preview import NAME
from napari_histodistill.widgets.shared.slide_layers import OVERLAY_MARK
from tests.fakes import PURPLE, colour_student, grained, tissue_image
from tests.widgets.conftest import wait_until
from tests.widgets.distil import test_flow as flow

pytestmark = pytest.mark.gui

open_distil, painted = flow.open_distil, flow.painted
SMALL = {
    ("schedule", "batch"): "16",
    ("schedule", "steps"): "4000",
    ("schedule", "report_every"): "1",
    ("objective", "projector"): "16, 16",
}


class _Here(ThreadPoolExecutor):
    """In place of loky's processes, which take seconds to import torch."""

    def __init__(self, max_workers, initializer, env):
        super().__init__(max_workers)

    def shutdown(self, wait=True, *, kill_workers=False):
        super().shutdown(wait, cancel_futures=kill_workers)


@pytest.fixture
def embedded_here(monkeypatch):
    """Embed previews in a thread; that a process does it has tests of its own."""
    monkeypatch.setattr(loky, "ProcessPoolExecutor", _Here)


def ready(open_distil, qtbot, painted, typed=SMALL):
    """A window with pairs that wait to be trained on."""
    viewer, widget = open_distil()
    flow.add_pair(viewer, painted)
    flow.tick(widget, "marker")
    flow.preview(qtbot, widget)
    widget.session.typed = dict(typed)
    widget.refresh()
    return viewer, widget


def test_settings_changed_by_hand_are_those_of_the_run(open_distil, qtbot, painted):
    viewer, widget = open_distil()
    step = widget.train_step
    assert not step.advanced.isEnabled()
    tip = unescape(step.advanced.toolTip())
    assert "Preview the pairs" in tip or "H&E" in tip
    flow.add_pair(viewer, painted)
    flow.tick(widget, "marker")
    flow.preview(qtbot, widget)
    step.advanced.click()
    form = widget.advancing.form
    assert form.isVisibleTo(widget)
    editor = form.row_of("schedule", "batch").editor
    editor.value = "3000"
    assert step.advanced.text() == "Advanced (1)…"
    assert not step.start.isEnabled()
    assert "a batch of 3,000 does not fit" in step.start.toolTip()
    editor.value = "24"
    assert step.start.isEnabled()
    assert widget.session.recipe("x").schedule.batch == 24
    assert widget.session.recipe("x").title.startswith("My model, 20")
    step.title.setText("Marker from H&E")
    step.title.textEdited.emit("Marker from H&E")
    assert widget.session.recipe("x").title == "Marker from H&E"
    # Another preset starts anew.
    step.preset.setCurrentIndex(1)
    step.preset.activated.emit(1)
    assert step.advanced.text() == "Advanced…"
    assert widget.session.recipe("x").schedule.batch == 64
    step.advanced.click()
    assert not form.isVisibleTo(widget)


@pytest.mark.slow(40)
@pytest.mark.usefixtures("forked_trainings", "embedded_here")
def test_a_training_is_looked_at_reported_and_given_classes(
    open_distil, qtbot, painted, monkeypatch
):
    viewer, widget = ready(open_distil, qtbot, painted)
    step = widget.train_step
    assert not viewer.layers[NAME].visible, "made now: nobody waits for it later"
    others = [layer.extent.world for layer in viewer.layers if layer.name != NAME]
    world = np.array([np.min(others, axis=(0, 1)), np.max(others, axis=(0, 1))])
    np.testing.assert_allclose(viewer.layers.extent.world, world)
    step.every.setValue(2)
    step.preview.setChecked(True)
    flow.start(qtbot, widget, steps=1)
    run = widget.session.run
    wait_until(qtbot, lambda: widget.previewing.shown is not None, 120)
    layer = viewer.layers[NAME]
    assert asked_every(run.folder) == 2
    assert layer.metadata[OVERLAY_MARK] == "preview"
    assert layer.data.shape[2] == 4
    assert layer.data.size < 100_000, "an overlay is small"
    assert "look alike to the model" in step.seen_words.text()
    # It lies on what was in view, and covers it.
    seen = widget.previewing.shown.sight.region
    cell = layer.scale / 2  # napari's extent is that of pixel centres
    low, high = layer.extent.world + np.array([-cell, cell])
    view = np.array([[seen.y, seen.x], [seen.bottom, seen.right]]) * 0.5 - 0.25
    assert (low <= view[0] + 1e-6).all()
    assert (high >= view[1] - 1e-6).all()
    assert (np.abs([low, high] - view) < 2 * cell + 1e-6).all(), "and little more"
    # The next student repaints it; the layer stays.
    first = widget.previewing.shown
    wait_until(qtbot, lambda: widget.previewing.shown is not first, 120)
    assert viewer.layers[NAME] is layer
    # A layer that somebody removed comes back with the next, and nothing breaks.
    viewer.layers.remove(layer)
    step.colouring.setCurrentIndex(1)
    wait_until(qtbot, lambda: NAME in viewer.layers, 120)
    assert "yellow is most similar" in step.seen_words.text()
    step.preview.setChecked(False)
    assert not viewer.layers[NAME].visible
    assert asked_every(run.folder) == 0
    assert not step.report.isEnabled()
    step.stop.click()
    wait_until(qtbot, lambda: not widget.session.works, 120)
    # The report opens.
    opened = []
    monkeypatch.setattr(QDesktopServices, "openUrl", opened.append)
    wait_until(qtbot, step.report.isEnabled)
    step.report.click()
    assert opened[0].toLocalFile() == str(run.folder / "report.html")
    # Labels that lie elsewhere are not offered; those on the slide are.
    assert step.classes.isHidden()
    zones = np.where(np.arange(640) < 320, 1, 2)[:, None].repeat(640, 1)
    far = viewer.add_labels(zones, name="far", scale=(0.5, 0.5), units=("um", "um"))
    far.translate = (9000, 0)
    viewer.add_labels(
        zones,
        name="zones",
        scale=(0.5, 0.5),
        units=("um", "um"),
        features={"index": [1, 2], "class": ["upper", "lower"]},
    )
    objects = np.arange(640 * 640, dtype=np.int32).reshape(640, 640) // 997
    viewer.add_labels(objects, name="nuclei", scale=(0.5, 0.5), units=("um", "um"))
    widget.refresh()
    assert not step.classes.isHidden()
    assert [step.labels.itemText(k) for k in range(step.labels.count())] == [
        "zones",
        "nuclei",
    ]
    step.labels.setCurrentIndex(1)
    step.fit.click()
    wait_until(qtbot, lambda: not widget.bench.pump.busy, 60)
    assert "look like numbered objects" in step.fitted.text()
    step.labels.setCurrentIndex(0)
    step.fit.click()
    assert not step.fit.isEnabled()
    wait_until(qtbot, lambda: not widget.bench.pump.busy, 120)
    assert "On held-out regions" in step.fitted.text()
    explore = flow.explored(widget)
    wait_until(qtbot, lambda: explore.session.student is not None, 60)
    assert explore.session.student.folder == run.folder / WITH_CLASSES
    assert explore.session.student.spec.class_names == ("upper", "lower")
    explore.shut_down()
    assert not flow.zombies()


class Leaving:
    """A training that is no process: it only seems to leave students."""

    def __init__(self, folder):
        self.folder = folder

    def view(self):
        return RunProcess(self.folder).view()

    def leave(self):
        """Nothing runs."""


def test_a_preview_is_of_the_slide_that_is_chosen(
    open_distil, qtbot, tmp_path, monkeypatch
):
    student, asked = colour_student(with_head=False), []

    def paint(slide, sight, before, _embed):
        asked.append((slide.name, before is None))
        return looking_on.preview_work(
            slide, sight, before, lambda _bundle, tiles, _cancel: student.embed(tiles)
        )

    monkeypatch.setattr(looking_on, "load_spec", lambda _bundle: student.spec)
    monkeypatch.setattr(previewing, "preview_work", paint)
    monkeypatch.setattr(looking_on, "newest_preview", lambda _folder: (1, tmp_path))
    monkeypatch.setattr(previewing.EmbedProcess, "begin", lambda _self: None)
    viewer, widget = open_distil()
    speck = np.full((600, 800, 3), 245, np.uint8)
    speck[270:330, 370:430] = PURPLE
    speck = grained(speck)
    he = flow.add(viewer, tissue_image(), "A")
    flow.add(viewer, speck, "B")
    widget.session.follow(Leaving(tmp_path / "run"))
    viewer.reset_view()
    widget.train_step.preview.setChecked(True)
    wait_until(qtbot, lambda: widget.previewing.shown is not None)
    layer = viewer.layers[NAME]
    assert layer.visible
    much = (layer.data[..., 3] > 0).mean()
    names = [x.name for x in widget.pairing._sparse]
    widget.pairing.choose_sparse(names.index("B"))
    assert widget.previewing.shown is None
    assert not layer.visible, "the colours of A say nothing about B"
    wait_until(qtbot, lambda: widget.previewing.shown is not None)
    assert layer.visible
    assert (layer.data[..., 3] > 0).mean() < much / 3, "B's own tissue"
    assert asked == [("A", True), ("B", True)]
    viewer.layers.remove(he)
    widget.train_step.preview.setChecked(False)


@pytest.mark.usefixtures("forked_trainings")
def test_out_of_memory_offers_half_the_batch(open_distil, qtbot, painted):
    viewer, widget = ready(open_distil, qtbot, painted)
    step = widget.train_step
    flow.start(qtbot, widget, steps=1)
    assert NAME in viewer.layers
    step.stop.click()
    wait_until(qtbot, lambda: not widget.session.works, 120)
    wait_until(qtbot, lambda: NAME not in viewer.layers, 20)  # nobody asked for it
    folder = widget.session.run.folder
    assert step.smaller.isHidden()
    # What a run says that lacked memory; its checkpoint stands.
    assert (folder / "checkpoints" / LAST).is_file()
    words = "cuda:0 ran out of memory in training"
    append_event(folder, TrainingReport("failed", 0, 9, message=words, reason="memory"))
    widget.distilling.look()
    assert not step.smaller.isHidden()
    assert words in step.line.text()
    assert "8 pairs a step in place of 16" in step.smaller.toolTip()
    assert "another model" in step.smaller.toolTip()
    before = widget.session.run.view().step
    step.smaller.click()
    assert read_run(folder)[0].schedule.batch == 8

    def went_on():
        view = RunProcess(folder).view()
        assert view.state != "failed" or view.reason == "memory", view.message
        return view.step > before

    wait_until(qtbot, went_on, 120)
    assert any(e["kind"] == "changed" for e in RunProcess(folder).view().events)
    wait_until(qtbot, lambda: step.smaller.isHidden(), 20)
    step.stop.click()
    wait_until(qtbot, lambda: not widget.session.works, 120)
    assert not flow.zombies()
