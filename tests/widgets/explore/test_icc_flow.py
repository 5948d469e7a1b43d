"""The file's ICC profile in *Explore slide*: offered where there is one, and undone."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.controllers.explore.jobs import ExploreJob

pytest.importorskip("napari", reason="the windows need napari and Qt")

from napari_histodistill.layers.slide_layer import slide_of
from tests.fakes import tissue_image
from tests.slides.factory import write_tiff
from tests.slides.tissue.test_icc import SWAPPED
from tests.widgets.explore.test_staining_flow import click, ready, tick

pytestmark = pytest.mark.gui


@pytest.fixture
def opened(explore, qtbot, tmp_path):
    def open_one(profile):
        path = write_tiff(
            tmp_path / "slide.tif", image=tissue_image(), iccprofile=profile
        ).path
        viewer, widget = explore()
        widget.choosing.open_path(path)
        qtbot.waitUntil(lambda: len(viewer.layers) == 1, timeout=10000)
        qtbot.waitUntil(lambda: widget.session.slide is not None, timeout=10000)
        widget.choosing.give_mpp(0.5)
        qtbot.waitUntil(ready(widget), timeout=20000)
        return viewer, widget

    return open_one


def test_nothing_is_offered_without_a_profile(opened):
    _, widget = opened(None)
    assert not widget.slide_panel.srgb.isVisible()
    assert not widget.slide_panel.colours.isVisible()


def test_what_is_seen_is_what_the_student_sees_and_comes_back(opened, qtbot):
    viewer, widget = opened(SWAPPED)
    layer, box = viewer.layers[0], widget.slide_panel.srgb
    assert box.isVisible()
    assert not box.isChecked(), "colours as stored, unless asked for"
    assert "what models were trained on" in box.toolTip()
    stored = np.asarray(layer.data[0])
    plain = widget.session.plan().store_path
    tick(box)
    qtbot.waitUntil(ready(widget), timeout=20000)
    assert box.isChecked()
    shown = np.asarray(layer.data[0])
    assert np.abs(shown[..., ::-1].astype(int) - stored).max() <= 3, "red is blue"
    slide = widget.session.slide
    assert slide_of(layer.metadata) is slide
    np.testing.assert_array_equal(slide.read_pixels(0, 0, 0, 64, 64), shown[:64, :64])
    assert widget.session.plan().store_path != plain, "maps are kept apart"
    # A run in these colours; what it looks at may not change meanwhile.
    click(widget.run_panel.button)
    qtbot.waitUntil(lambda: widget.bench.pump.is_active(ExploreJob.RUN), timeout=5000)
    assert not box.isEnabled()
    qtbot.waitUntil(ready(widget), timeout=20000)
    assert widget.session.live.cells_done
    # Another µm per pixel outlives the way back.
    widget.choosing.give_mpp(1.0)
    qtbot.waitUntil(ready(widget), timeout=20000)
    tick(box)
    qtbot.waitUntil(ready(widget), timeout=20000)
    np.testing.assert_array_equal(np.asarray(layer.data[0]), stored)
    assert widget.session.slide.mpp.mean == 1.0
    assert not box.isChecked()


def test_a_damaged_profile_is_said_and_nothing_changes(opened, qtbot):
    viewer, widget = opened(b"no profile at all" * 20)
    before = widget.session.slide
    tick(widget.slide_panel.srgb)
    assert "ICC profile cannot be used" in widget.run_panel.message.text()
    assert not widget.slide_panel.srgb.isChecked()
    assert widget.session.slide is before
    assert slide_of(viewer.layers[0].metadata) is before
