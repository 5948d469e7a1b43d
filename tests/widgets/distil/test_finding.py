"""Find: a partner is laid where it is found, and turned or mirrored only if agreed."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication

pytest.importorskip("napari", reason="the windows need napari and Qt")
pytest.importorskip("SimpleITK", reason="finding needs the extra [registration]")

from napari_histodistill.controllers.distil.jobs import DistilJob
from napari_histodistill.distill.layers.registration import fit_landmarks
from napari_histodistill.widgets.distil.align import finding
from napari_histodistill.widgets.distil.layers import own_to_world
from napari_histodistill.widgets.distil.steps import IDLE
from tests.controllers.distil.test_finding import found
from tests.distill.layers.test_finding import other_stain, posed, section
from tests.widgets.conftest import wait_until
from tests.widgets.distil.test_flow import MPP, add, begin_picking, open_distil, tick
from tests.widgets.explore.test_steady import moved, places

__all__ = ["open_distil"]

pytestmark = pytest.mark.gui


def opened(open_distil, partner):
    viewer, widget = open_distil()
    add(viewer, section(), "H&E")
    layer = add(viewer, partner, "marker")
    tick(widget, "marker")
    return widget, layer


def find(qtbot, widget):
    widget.align_step.find.click()
    assert widget.align_step.find.text() == "Cancel"
    assert "every way round" in widget.align_step.words.text()
    wait_until(qtbot, lambda: not widget.bench.pump.is_active(DistilJob.FINDING), 120)


def jumps(before, after):
    """Return what moved; one pixel is Qt's rounding of a button whose text changes."""
    found = moved(before, after)
    return {name: by for name, by in found.items() if abs(by[0] - by[1]) > 1}


def lies(layer):
    return own_to_world(layer, MPP)


def test_a_turned_partner_is_offered_laid_and_undone(open_distil, qtbot, monkeypatch):
    turned, here, there = posed(other_stain(section()), 1, mirrored=True)
    true = fit_landmarks(here * MPP.y, there * MPP.y, "affine", mirrored=True)
    # What the search itself finds is tested without a window: it takes its time.
    monkeypatch.setattr(
        finding, "find_work", lambda *_: lambda _cancel: iter([0.5, found(true.matrix)])
    )
    widget, layer = opened(open_distil, turned)
    step, before = widget.align_step, lies(layer)
    assert not step.refine.isEnabled()
    assert "Find needs none" in step.refine.toolTip()
    find(qtbot, widget)
    said = step.words.text()
    assert said.startswith("The partner fits mirrored and turned by 90°"), said
    assert "by a margin of" in said
    assert widget.session.partners[0].registration is None, "never unasked"
    np.testing.assert_allclose(lies(layer), before)
    step.turn.click()
    known = widget.session.partners[0].registration
    off = np.linalg.norm(known.to_dense(here * MPP.y) - there * MPP.y, axis=1)
    assert np.median(off) < MPP.y
    assert np.linalg.det(lies(layer)[:2, :2]) < 0
    assert step.words.text().startswith("Found: off by about")
    assert not step.turn.isVisibleTo(step)
    assert "Found · affine · off by about" in step.line.text()
    step.undo.click()
    np.testing.assert_allclose(lies(layer), before, atol=1e-6)
    assert widget.session.partners[0].registration is None
    assert not step.undo.isVisibleTo(step)
    assert step.words.text() == said, "it is still offered"


def test_a_search_ends_is_laid_or_refused_in_words(open_distil, qtbot, monkeypatch):
    widget, layer = opened(open_distil, other_stain(section(7)))
    step, before = widget.align_step, lies(layer)
    inside = widget.layers_step.parentWidget()
    wait_until(qtbot, lambda: not widget.bench.pump.busy)
    qtbot.wait(50)
    rows = places(widget, inside)
    assert len(rows) > 20
    step.find.click()
    QApplication.processEvents()
    assert not jumps(rows, places(widget, inside))
    step.find.click()
    wait_until(qtbot, lambda: not widget.bench.pump.is_active(DistilJob.FINDING), 60)
    assert (step.find.text(), step.words.text()) == ("Find", IDLE)
    shifted = np.eye(3)
    shifted[:2, 2] = 12.0
    results = [
        found(shifted),
        found(reasons=["another place fits nearly as well: place landmarks."]),
    ]
    monkeypatch.setattr(
        finding,
        "find_work",
        lambda _he, _partner, kind, _marks: (
            kinds.append(kind) or (lambda _cancel: iter([0.5, results.pop(0)]))
        ),
    )
    kinds = []
    find(qtbot, widget)
    assert step.words.text().startswith("Found: off by about 21 µm")
    assert not jumps(rows, places(widget, inside))
    np.testing.assert_allclose(lies(layer)[:2, 2], before[:2, 2] - 12.0)
    step.undo.click()
    np.testing.assert_allclose(lies(layer), before)
    assert step.words.text() == IDLE
    step.kind.setCurrentIndex(step.kind.findData("rigid"))
    find(qtbot, widget)
    assert kinds == [None, "rigid"], "Find fits what was chosen"
    assert step.words.text().startswith("Not found: another place")
    assert not jumps(rows, places(widget, inside))
    assert not step.turn.isVisibleTo(step)
    assert not step.undo.isVisibleTo(step)
    np.testing.assert_allclose(lies(layer), before)
    begin_picking(widget)
    assert not step.find.isEnabled()
    step.pick.click()
    widget.pairing.tick()
    assert step.words.text() == IDLE, "it was of a partner that is no longer chosen"
