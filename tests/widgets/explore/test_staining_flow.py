"""Normalise the stain from the window: the wish, the fit, the look before and after."""

from __future__ import annotations

import time

import numpy as np
import pytest

from napari_histodistill.controllers.explore.jobs import ExploreJob

pytest.importorskip("napari", reason="the windows need napari and Qt")

from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from napari_histodistill.geometry import Mpp
from napari_histodistill.layers.slide_layer import slide_layer
from napari_histodistill.slides import slide_from_arrays
from tests.fakes import array_slide, colour_student, tissue_image
from tests.slides.tissue.test_stain import painted
from tests.students.test_staining import with_stain

pytestmark = pytest.mark.gui


def add(viewer, slide):
    data, kwargs, _ = slide_layer(slide)
    return viewer.add_image(data, **kwargs)


def he_slide(name="he"):
    pixels = np.tile(painted(), (5, 5, 1))
    known = Mpp(0.5, 0.5, "a test")
    return slide_from_arrays([pixels, pixels[::4, ::4]], name=name, mpp=known)


def ready(widget):
    return lambda: not widget.session.why_not_run and not widget.bench.pump.busy


def click(button):
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)


def tick(box):
    # In the middle a click on a wide check box would miss box and text.
    place = QPoint(8, box.height() // 2)
    QTest.mouseClick(box, Qt.MouseButton.LeftButton, pos=place)


@pytest.fixture
def normalised(explore, qtbot):
    def open_one():
        viewer, widget = explore(with_stain(colour_student()))
        layer = add(viewer, he_slide())
        qtbot.waitUntil(ready(widget), timeout=20000)
        tick(widget.slide_panel.stain.check)
        qtbot.waitUntil(
            lambda: ready(widget)() and widget.session.student.stains is not None,
            timeout=20000,
        )
        return viewer, widget, layer

    return open_one


def test_ticked_the_student_sees_the_slide_normalised(normalised, qtbot):
    _viewer, widget, _ = normalised()
    row = widget.slide_panel.stain
    with_stains = widget.session.plan().store_path
    tick(row.check)
    qtbot.waitUntil(ready(widget), timeout=20000)
    assert widget.session.student.stains is None
    assert widget.session.plan().store_path != with_stains, "maps are kept apart"
    assert not row.preview.isEnabled()
    assert "Tick Normalise first" in row.preview.toolTip()


def test_a_run_with_normalised_stain_fills_a_map(normalised, qtbot):
    _viewer, widget, _ = normalised()
    click(widget.run_panel.button)
    qtbot.waitUntil(lambda: widget.bench.pump.is_active(ExploreJob.RUN), timeout=5000)
    assert not widget.slide_panel.stain.check.isEnabled()
    qtbot.waitUntil(lambda: not widget.bench.pump.busy, timeout=20000)
    assert widget.session.live.cells_done > 0
    assert "Done" in widget.run_panel.message.text()


def test_the_preview_lies_right_over_the_slide_and_goes_again(normalised, qtbot):
    viewer, widget, layer = normalised()
    row = widget.slide_panel.stain
    click(row.preview)
    (shown,) = [x for x in viewer.layers if x.name == "Stain normalised"]
    assert viewer.layers.index(shown) == viewer.layers.index(layer) + 1
    assert np.allclose(shown.scale, layer.scale)
    assert np.allclose(shown.data_to_world((7, 9)), layer.data_to_world((7, 9)))
    stains = widget.session.student.stains
    part = np.s_[300:340, 200:260]
    stored = layer.data[0][part].compute()
    assert np.array_equal(shown.data[0][part].compute(), stains.apply(stored))
    assert widget.bench.slide_layer is layer, "it is not taken for a slide"
    click(row.preview)
    assert shown not in viewer.layers
    click(row.preview)
    tick(row.check)
    qtbot.waitUntil(ready(widget), timeout=20000)
    assert not [x for x in viewer.layers if x.name == "Stain normalised"]


def test_another_slide_is_fitted_anew(normalised, qtbot):
    viewer, widget, _ = normalised()
    first = widget.session.student
    other = add(viewer, he_slide("another"))
    qtbot.waitUntil(
        lambda: widget.bench.slide_layer is other and ready(widget)(), timeout=20000
    )
    student = widget.session.student
    assert student is not first
    assert student.stains is not None


def test_the_stain_is_fitted_whatever_ends_the_fit(explore, qtbot, monkeypatch):
    from napari_histodistill.students import staining

    real = staining.stain_map_for

    def slowly(*args):
        time.sleep(0.5)
        return real(*args)

    monkeypatch.setattr(staining, "stain_map_for", slowly)
    viewer, widget = explore(with_stain(colour_student()))
    add(viewer, he_slide())
    qtbot.waitUntil(ready(widget), timeout=20000)
    tick(widget.slide_panel.stain.check)
    assert widget.bench.pump.is_active(ExploreJob.FITTING_STAIN)
    widget.slide_panel.slide.picked.emit(0)
    widget.bench.pump.abandon(ExploreJob.FITTING_STAIN)
    widget.bench.changed.emit()
    qtbot.waitUntil(ready(widget), timeout=20000)
    assert widget.session.student.stains is not None


def test_a_slide_that_is_not_h_and_e_unticks_and_says_why(explore, qtbot):
    viewer, widget = explore(with_stain(colour_student()))
    add(viewer, array_slide(tissue_image()[..., [1, 0, 2]]))  # green and turquoise
    qtbot.waitUntil(ready(widget), timeout=20000)
    bare = widget.session.student
    tick(widget.slide_panel.stain.check)
    qtbot.waitUntil(
        lambda: "cannot be normalised" in widget.run_panel.message.text(), timeout=20000
    )
    qtbot.waitUntil(ready(widget), timeout=20000)
    assert not widget.slide_panel.stain.check.isChecked()
    assert widget.session.student is bare


def test_a_student_without_a_reference_explains_the_grey_box(explore, qtbot):
    viewer, widget = explore()
    assert "Open a slide first" in widget.slide_panel.stain.check.toolTip()
    add(viewer, he_slide())
    qtbot.waitUntil(ready(widget), timeout=20000)
    check = widget.slide_panel.stain.check
    assert not check.isEnabled()
    assert "does not say how its training tiles were stained" in check.toolTip()
