"""Layers that go: what they were drawn with is freed where it was made."""

from __future__ import annotations

import pytest
from qtpy.QtGui import QOpenGLContext
from qtpy.QtOpenGLWidgets import QOpenGLWidget

from tests.fakes import array_slide
from tests.widgets.conftest import wait_until
from tests.widgets.explore.test_flow import add_slide, ready

pytestmark = pytest.mark.gui


@pytest.mark.either_qt
def test_a_layer_goes_while_its_canvas_is_current(explore, qtbot):
    """With Mesa, the canvas crashed at its next but one drawing."""
    viewer, widget = explore()
    layer = add_slide(viewer, array_slide())
    wait_until(qtbot, ready(widget))
    canvas = viewer.window._qt_window.findChild(QOpenGLWidget)
    canvas.doneCurrent()
    assert QOpenGLContext.currentContext() is None
    viewer.layers.remove(layer)
    assert QOpenGLContext.currentContext() == canvas.context()
