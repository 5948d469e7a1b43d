"""Layers that change after they were chosen: what panels hold is what layers say."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("napari", reason="the windows need napari and Qt")

from napari_histodistill.layers.slide_layer import slide_layer, slide_of
from napari_histodistill.samples.paired import CHANNELS
from napari_histodistill.slides import slide_from_arrays
from napari_histodistill.widgets.compare.dock import CompareWidget
from napari_histodistill.widgets.distil.dock import DistilWidget
from napari_histodistill.widgets.distil.layers import channels_of
from tests.fakes import tissue_image
from tests.slides.tissue.test_icc import SWAPPED
from tests.widgets.conftest import wait_until
from tests.widgets.distil.test_flow import (
    add,
    add_pair,
    begin_picking,
    fitted,
    painted,
    preview,
    tick,
)
from tests.widgets.explore.test_icc_flow import opened
from tests.widgets.explore.test_staining_flow import tick as tick_box

__all__ = ["opened", "painted"]

pytestmark = pytest.mark.gui

AGAIN = "preview the pairs again"


@pytest.fixture
def beside(qtbot, tmp_path):
    """Return a function that opens *Distil a student* in a viewer."""

    def open_one(viewer):
        widget = DistilWidget(viewer, runs=tmp_path / "runs")
        viewer.window.add_dock_widget(widget, area="right", name="Distil a student")
        qtbot.wait(20)
        return widget

    return open_one


@pytest.fixture
def paired(beside, open_viewer, painted):
    """Return a function that opens the panel on an H&E and its ticked partner."""

    def open_one():
        viewer = open_viewer()
        widget = beside(viewer)
        he, channels = add_pair(viewer, painted)
        tick(widget, "marker")
        return widget, he, channels

    return open_one


def align(widget, places, off_um=(0.0, 0.0)):
    here, there = begin_picking(widget)
    for place in np.asarray(places, float):
        here.add(place)
        there.add(place + off_um)
    widget.align_step.pick.click()
    fitted(widget)
    assert "landmarks" in widget.align_step.line.text()


PLACES = [(50, 60), (60, 250), (240, 70), (250, 250), (150, 140)]


def test_a_partner_that_is_moved_is_paired_where_it_now_lies(paired, qtbot):
    widget, _, channels = paired()
    preview(qtbot, widget)
    before = widget.session.planned.plan
    # As by hand, in many small moves; every channel of the slide goes along.
    for step in range(1, 41):
        for channel in channels:
            channel.translate = (step, 0)
    wait_until(qtbot, lambda: widget.session.planned is None)
    assert AGAIN in widget.message.text()
    assert widget.pairs_step.line.text() == ""
    np.testing.assert_allclose(widget.session.partners[0].matrix[:2, 2], (-40, 0))
    preview(qtbot, widget)
    assert widget.message.text() == ""
    assert len(widget.session.planned.plan) < len(before), "the partner covers less"


def test_what_changes_nothing_forgets_nothing(paired, qtbot):
    widget, he, channels = paired()
    align(widget, PLACES, off_um=(4, 0))
    preview(qtbot, widget)
    plan = widget.session.planned
    # A partner that is aligned lies as its landmarks say, wherever its layer is put.
    channels[0].translate = (30, 0)
    he.scale = tuple(he.scale)
    he.opacity = 0.5
    qtbot.wait(500)
    assert widget.session.planned is plan
    assert widget.session.partners[0].registration is not None


def test_an_alignment_does_not_outlive_its_micrometres(
    open_viewer, beside, painted, qtbot
):
    viewer = open_viewer()
    widget = beside(viewer)
    um = {"scale": (0.5, 0.5), "units": ("um", "um")}
    viewer.add_image(painted.sparse, name="H&E", rgb=True, **um)
    grey = viewer.add_image(painted.dense[..., 0], name="grey", **um)
    tick(widget, "grey")
    align(widget, PLACES)
    qtbot.wait(400)
    assert widget.session.partners[0].registration is not None
    grey.scale = (1.0, 1.0)
    wait_until(qtbot, lambda: widget.session.partners[0].registration is None)
    assert widget.session.partners[0].slide.mpp.mean == 1.0


def test_an_alignment_stays_with_its_layer(paired, painted, qtbot):
    widget, _, channels = paired()
    align(widget, PLACES)
    viewer = widget.bench.viewer
    # The layer that stands for the slide moves up, or goes: another channel stands in.
    viewer.layers.move(1, 3)
    assert widget.bench.partner_layers == [channels[1]]
    assert widget.session.partners[0].registration is not None
    viewer.layers.remove(channels[1])
    assert widget.bench.partner_layers == [channels[0]]
    assert widget.session.partners[0].registration is not None
    # Another slide of the same name was never aligned.
    other = add(viewer, np.roll(painted.dense, 40, 0), "marker", CHANNELS)
    widget.pairing.tick(other[0])
    assert widget.session.partners[0].name == "marker"
    assert widget.session.partners[0].registration is None


def test_another_he_is_not_laid_by_the_old_ones_landmarks(
    paired, painted, beside, qtbot
):
    widget, he, _ = paired()
    align(widget, PLACES)
    viewer = widget.bench.viewer
    other = viewer.add_image(
        painted.sparse, name="other H&E", rgb=True, scale=(0.5, 0.5), units=("um", "um")
    )
    names = [x.name for x in widget.pairing._sparse]
    widget.pairing.choose_sparse(names.index("other H&E"))
    assert widget.session.partners[0].registration is None
    assert he in viewer.layers
    assert other is widget.bench.sparse_layer


def test_micrometres_given_elsewhere_arrive(explore, beside, painted, qtbot):
    viewer, panel = explore()
    widget = beside(viewer)
    viewer.add_image(painted.sparse, name="plain", rgb=True)
    wait_until(qtbot, lambda: panel.session.slide is not None)
    assert "type it in step 1" in widget.layers_step.line.text()
    assert (
        widget.layers_step.size_words.text() == "µm/px of the H&E: not known, type it."
    )
    panel.choosing.give_mpp(0.5)
    wait_until(qtbot, lambda: widget.session.sparse.usable_mpp is not None)
    assert widget.session.sparse.usable_mpp.mean == 0.5
    assert "does not say" not in widget.layers_step.line.text()
    # And back from napari's own side: a scale that somebody sets on the layer.
    viewer.layers["plain"].scale = (0.25, 0.25)
    wait_until(qtbot, lambda: widget.session.sparse.usable_mpp.mean == 0.25)

    def explored():
        slide = panel.session.slide
        return slide is not None and slide.usable_mpp.mean == 0.25

    wait_until(qtbot, explored)


def type_um(box, value):
    """Type a number into a field, as a person does."""
    box.setValue(value)
    box.editingFinished.emit()


def test_micrometres_typed_in_step_1_leave_landmarks_on_their_tissue(paired, qtbot):
    widget, he, channels = paired()
    step = widget.layers_step
    assert step.size_words.text() == "µm/px of the H&E: test; partner: test."
    assert (step.he_mpp.value(), step.partner_mpp.value()) == (0.5, 0.5)
    align(widget, PLACES, (3.0, -2.0))
    before = widget.aligning.landmarks.pixels()
    type_um(step.partner_mpp, 0.25)
    fitted(widget)
    assert all(tuple(x.scale) == (0.25, 0.25) for x in channels)
    for now, was in zip(widget.aligning.landmarks.pixels(), before, strict=True):
        np.testing.assert_allclose(now, was, atol=1e-6)
    found = widget.session.partners[0].registration
    assert found.scale == pytest.approx(0.5), "half the µm, the same tissue"
    assert found.median_um < 1e-3
    assert "partner: typed by the user" in step.size_words.text()
    type_um(step.he_mpp, 0.25)
    fitted(widget)
    assert tuple(he.scale) == (0.25, 0.25)
    assert widget.session.partners[0].registration.scale == pytest.approx(1)
    type_um(step.he_mpp, 500)
    assert "cannot be a light microscope's" in widget.message.text()
    assert tuple(he.scale) == (0.25, 0.25)


def test_other_pixels_in_a_layer_are_another_slide(explore, qtbot):
    viewer, panel = explore()
    um = {"scale": (0.5, 0.5), "units": ("um", "um")}
    layer = viewer.add_image(tissue_image(), rgb=True, name="plain", **um)
    wait_until(qtbot, lambda: not panel.session.why_not_run)
    wait_until(qtbot, lambda: not panel.bench.pump.busy)
    first, path = panel.session.slide, panel.session.plan().store_path
    panel.run_panel.button.click()
    wait_until(qtbot, lambda: not panel.bench.pump.busy)
    layer.data = layer.data[::-1].copy()
    wait_until(qtbot, lambda: panel.session.slide not in (None, first))
    wait_until(qtbot, lambda: not panel.bench.pump.busy)
    assert panel.session.live is None, "the map was of the old pixels"
    assert panel.session.plan().store_path != path
    # Nothing is read again as long as nothing changes.
    other = viewer.add_image(tissue_image(300, 300), rgb=True, name="other", **um)
    wait_until(qtbot, lambda: panel.bench.slide_layer is other)
    second = panel.session.slide
    panel.choosing.choose_layer(layer)
    assert panel.session.slide not in (None, first, second)


def test_channels_stay_one_slide_when_given_micrometres(explore, painted, qtbot):
    viewer, panel = explore()
    slide = slide_from_arrays(painted.dense, name="marker", channels=CHANNELS)
    data, kwargs, _ = slide_layer(slide)
    channels = viewer.add_image(data, **kwargs)
    wait_until(qtbot, lambda: panel.session.slide is not None)
    panel.choosing.give_mpp(0.5)
    assert channels_of(viewer, channels[0]) == list(channels)
    assert all(tuple(x.scale) == (0.5, 0.5) for x in channels)


def test_colours_chosen_in_one_panel_are_those_of_all(opened, beside, qtbot):
    viewer, panel = opened(SWAPPED)
    widget, compare = beside(viewer), CompareWidget(viewer)
    viewer.window.add_dock_widget(compare, area="right", name="Compare students")
    wait_until(qtbot, lambda: compare.session.slide is panel.session.slide)
    stored = widget.session.sparse
    tick_box(panel.slide_panel.srgb)
    now = slide_of(viewer.layers[0].metadata)
    assert now is not stored
    wait_until(qtbot, lambda: widget.session.sparse is now)
    wait_until(qtbot, lambda: compare.session.slide is now)
