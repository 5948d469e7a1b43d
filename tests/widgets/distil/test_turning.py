"""A turned or mirrored partner is said so, and laid so only if a person agrees."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("napari", reason="the windows need napari and Qt")

from napari_histodistill.controllers.distil.jobs import DistilJob
from napari_histodistill.widgets.distil.layers import own_to_world
from tests.distill.layers.test_poses import posed, section
from tests.widgets.conftest import wait_until
from tests.widgets.distil.test_flow import MPP, add, open_distil, tick

__all__ = ["open_distil"]

pytestmark = pytest.mark.gui


def opened(open_distil, qtbot, turns, mirrored):
    viewer, widget = open_distil()
    he, marker = section()
    add(viewer, he, "H&E")
    layer = add(viewer, posed(marker, turns, mirrored)[..., None], "marker", ("m",))
    tick(widget, "marker")
    pump = widget.bench.pump
    wait_until(qtbot, lambda: not pump.is_active(DistilJob.TURNING))
    return widget, layer[0] if isinstance(layer, list) else layer


def matrix_of(layer):
    return own_to_world(layer, MPP)


def test_it_is_offered_taken_and_taken_back(open_distil, qtbot):
    widget, layer = opened(open_distil, qtbot, 1, mirrored=True)
    step, before = widget.align_step, matrix_of(layer)
    assert "looks mirrored and turned by" in step.posed.text()
    assert step.turn.isVisibleTo(step)
    assert widget.session.partners[0].registration is None, "never unasked"
    np.testing.assert_allclose(matrix_of(layer), before)
    step.turn.click()
    laid = widget.session.partners[0]
    assert laid.registration is not None
    assert laid.registration.mirrored
    assert np.linalg.det(matrix_of(layer)[:2, :2]) < 0
    assert not step.turn.isVisibleTo(step)
    assert "place 3 or more" in step.line.text()
    step.turn_back.click()
    assert widget.session.partners[0].registration is None
    np.testing.assert_allclose(matrix_of(layer), before, atol=1e-9)
    assert step.turn.isVisibleTo(step), "offered again, without looking again"


def test_a_partner_that_lies_right_gets_no_hint(open_distil, qtbot):
    widget, _ = opened(open_distil, qtbot, 0, mirrored=False)
    step = widget.align_step
    assert not step.posed.isVisibleTo(step)
    assert not step.turn.isVisibleTo(step)
    assert not step.turn_back.isVisibleTo(step)
