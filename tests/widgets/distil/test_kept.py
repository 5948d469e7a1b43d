"""Landmarks and alignment survive closed panels, removed layers, and closed windows."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import Qt

from napari_histodistill.distill.exchange.frames import FixedImage, PointUnit
from napari_histodistill.layers.slide_layer import slide_layer
from napari_histodistill.slides import open_slide, slide_from_arrays
from napari_histodistill.widgets.distil.align.files import FileFacts
from napari_histodistill.widgets.distil.dock import DistilWidget
from tests.widgets.conftest import close_viewer, wait_until
from tests.widgets.distil import test_alignment as alignment
from tests.widgets.distil.test_alignment import PLACES, lies_at, pick
from tests.widgets.distil.test_flow import CHANNELS, MPP, fitted, preview, tick

pytestmark = pytest.mark.gui

open_panel, painted = alignment.open_panel, alignment.painted
OFF = np.array([10.0, -6.0])


def files():
    return sorted(Path(os.environ["HISTODISTILL_DRAFTS"]).glob("*.json"))


def points(viewer):
    return [x for x in viewer.layers if x.name.startswith("Landmarks on")]


def add_marker(viewer, painted):
    slide = slide_from_arrays(painted.dense, name="marker", mpp=MPP, channels=CHANNELS)
    data, kwargs, _ = slide_layer(slide)
    return viewer.add_image(data, **kwargs)


def opened(viewer, tmp_path, qtbot):
    widget = DistilWidget(viewer, runs=tmp_path / "runs")
    viewer.window.add_dock_widget(widget, area="right", name="Distil a student")
    qtbot.wait(20)
    return widget


def test_a_panel_opened_again_has_landmarks_and_alignment(open_panel, qtbot, tmp_path):
    viewer, widget, _, dense = open_panel()
    pick(widget, PLACES + OFF)
    said, there = widget.align_step.line.text(), lies_at(dense[0])
    before = [x.data.copy() for x in points(viewer)]
    viewer.window.remove_dock_widget(widget)
    assert widget.is_closed
    again = opened(viewer, tmp_path, qtbot)
    tick(again, "marker")
    assert again.align_step.line.text() == said
    assert len(points(viewer)) == 2, "no second pair of layers"
    for layer, data in zip(points(viewer), before, strict=True):
        np.testing.assert_allclose(layer.data, data)
    np.testing.assert_allclose(lies_at(dense[0]), there, atol=1e-6)
    # They are live: one more is fitted with the others.
    here, partner = again.aligning.landmarks._points
    again.align_step.pick.click()
    here.add([100.0, 100.0])
    partner.add(partner.world_to_data([100.0, 100.0]))
    fitted(again)
    assert again.align_step.line.text().startswith("7 landmarks")


def test_a_partner_that_is_removed_and_added_again_lies_as_before(
    open_panel, qtbot, painted
):
    viewer, widget, _, dense = open_panel()
    pick(widget, PLACES + OFF)
    said, there = widget.align_step.line.text(), lies_at(dense[0])
    before = widget.aligning.own_landmarks()
    for layer in dense:
        viewer.layers.remove(layer)
    assert widget.aligning.partner is None
    new = add_marker(viewer, painted)
    assert not np.allclose(lies_at(new[0]), there)
    tick(widget, "marker")
    assert widget.align_step.line.text() == said
    np.testing.assert_allclose(lies_at(new[0]), there, atol=1e-6)
    for one, other in zip(widget.aligning.own_landmarks(), before, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert len(points(viewer)) == 2


def test_the_very_layer_that_comes_back_is_aligned_again(open_panel, qtbot):
    viewer, widget, _, dense = open_panel()
    pick(widget, PLACES + OFF)
    said = widget.align_step.line.text()
    for layer in dense:
        viewer.layers.remove(layer)
    for layer in dense:
        viewer.layers.append(layer)
    tick(widget, "marker")
    assert widget.align_step.line.text() == said


def test_a_saved_alignment_holds_both_landmark_sets(
    open_panel, qtbot, tmp_path, painted
):
    viewer, widget, _, dense = open_panel()
    pick(widget, PLACES + OFF)
    said, there = widget.align_step.line.text(), lies_at(dense[0])
    widget.aligning.files.save(tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text())["landmarks"]
    np.testing.assert_allclose(content["sparse"]["um"], PLACES, atol=1e-3)
    np.testing.assert_allclose(content["sparse"]["px"], PLACES / 0.5, atol=1e-3)
    np.testing.assert_allclose(content["dense"]["um"], PLACES + OFF, atol=1e-3)
    # Into another window, where nothing was picked.
    close_viewer(qtbot, viewer, widget)
    viewer, widget, _, dense = open_panel()
    widget.aligning.files.load(tmp_path / "a.json")
    assert widget.align_step.line.text() == f"{said} · from a.json"
    np.testing.assert_allclose(lies_at(dense[0]), there, atol=1e-3)
    own = widget.aligning.own_landmarks()
    np.testing.assert_allclose(own[0], PLACES, atol=1e-3)
    np.testing.assert_allclose(own[1], PLACES + OFF, atol=1e-3)
    assert widget.align_step.remove.isEnabled(), "they can be worked on"


def test_an_alignment_from_before_leaves_the_landmarks_that_are_there(
    open_panel, tmp_path
):
    _, widget, _, _ = open_panel()
    pick(widget, PLACES + OFF)
    path = tmp_path / "a.json"
    widget.aligning.files.save(path)
    content = json.loads(path.read_text())
    del content["landmarks"]
    path.write_text(json.dumps(content))
    before = widget.aligning.own_landmarks()
    widget.aligning.files.load(path)
    for one, other in zip(widget.aligning.own_landmarks(), before, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_landmarks_of_a_closed_window_are_offered_again(open_panel, qtbot, tmp_path):
    viewer, widget, _, dense = open_panel()
    pick(widget, PLACES + OFF)
    said, there = widget.align_step.line.text(), lies_at(dense[0])
    close_viewer(qtbot, viewer, widget)
    assert len(files()) == 1
    viewer, widget, _, dense = open_panel()
    wait_until(qtbot, widget.draft_row.isVisible)
    assert widget.draft_row.words.text().startswith("6 landmarks of ")
    qtbot.mouseClick(widget.draft_row.restore_button, Qt.MouseButton.LeftButton)
    assert widget.align_step.line.text() == said
    np.testing.assert_allclose(lies_at(dense[0]), there, atol=1e-6)
    assert not widget.draft_row.isVisible()
    # Saved for good, it is no draft any more.
    wait_until(qtbot, lambda: not widget.keeping.keeper.due(widget.keeping.made()))
    widget.aligning.files.save(tmp_path / "a.json")
    wait_until(qtbot, lambda: not files())


def test_alignments_are_checked_when_loaded_and_go_to_other_programs(
    open_panel, tmp_path
):
    _, widget, _, _ = open_panel()
    pick(widget, PLACES + OFF)
    path, files, asked = tmp_path / "a.json", widget.aligning.files, []
    files.save(path)
    made = widget.session.partners[0].alignment
    content = json.loads(path.read_text())
    content["alignment"] |= {
        "accepted": False, "reasons": ["It lies upside down."], "approved_by": "Dr. A.",
    }  # fmt: skip
    path.write_text(json.dumps(content))
    files.ask_anyway = asked.append  # which answers no
    files.load(path)
    assert asked == [
        "a.json: this alignment was not accepted. It lies upside down. Use it anyway?"
    ]
    assert widget.session.partners[0].alignment is made
    files.ask_anyway = lambda _question: True
    files.load(path)
    assert widget.align_step.line.text().endswith(
        " · from a.json, approved by Dr. A., not accepted there"
    )
    content["alignment"]["he"]["digest"] = "of another slide"
    path.write_text(json.dumps(content))
    files.load(path)
    assert "has other content: align these two" in widget.message.text()
    # To other programs, and back.
    facts = FileFacts(PointUnit.MICROMETRES, FixedImage.PARTNER)
    files.ask_target = files.ask_facts = lambda _what: facts
    partner = tmp_path / "partner.csv"
    there = widget.session.partners[0].matrix
    for name, other in (("a.tfm", None), ("b.bigwarp.csv", None), ("he.csv", partner)):
        files.save(tmp_path / name, other)
        assert widget.message.text() == ""
        widget.session.put_alignment(0, None)
        files.load(tmp_path / name, other)
        fitted(widget)
        np.testing.assert_allclose(widget.session.partners[0].matrix, there, atol=1e-3)
    files.save(tmp_path / "a.png")
    assert "a.png: its ending does not say" in widget.message.text()


def test_kept_sections_are_offered_again(open_viewer, qtbot, tmp_path, painted):
    options = {"photometric": "rgb", "tile": (256, 256), "resolutionunit": 3}
    options["resolution"] = (20000, 20000)  # .5 µm
    for name, pixels in (("he.tif", painted.sparse), ("ihc.tif", painted.sparse[::-1])):
        tifffile.imwrite(tmp_path / name, pixels.copy(), **options)

    def window():
        viewer = open_viewer()
        for name in ("he.tif", "ihc.tif"):
            data, kwargs, _ = slide_layer(open_slide(tmp_path / name))
            viewer.add_image(data, **kwargs)
        return viewer, opened(viewer, tmp_path, qtbot)

    viewer, widget = window()
    tick(widget, "ihc")
    preview(qtbot, widget)
    widget.pairs_step.keep.click()
    pairs = len(widget.session.kept[0].plan)
    said = widget.session.say_pairs()
    close_viewer(qtbot, viewer, widget)
    viewer, widget = window()
    wait_until(qtbot, widget.draft_row.isVisible)
    assert widget.draft_row.words.text().startswith("The kept sections (1) of ")
    qtbot.mouseClick(widget.draft_row.restore_button, Qt.MouseButton.LeftButton)
    wait_until(qtbot, lambda: bool(widget.session.kept), 30)
    assert len(widget.session.kept[0].plan) == pairs
    assert widget.session.say_pairs() == said
    qtbot.waitUntil(lambda: not widget.bench.pump.busy, timeout=10000)
