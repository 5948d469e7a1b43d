"""Real windows under Xvfb, with a leak check around each of them."""

from __future__ import annotations

import gc
import threading
import time
from importlib import import_module

import numpy as np
import pytest

pytest.importorskip("napari", reason="the windows need napari and Qt")

from napari_histodistill.controllers.shared.student_list import StudentChoice
from napari_histodistill.widgets.compare.dock import CompareWidget
from napari_histodistill.widgets.distil.dock import DistilWidget
from napari_histodistill.widgets.explore.dock import ExploreWidget
from tests.fakes import colour_student

LOADED = ("torch", "timm", "sklearn.linear_model", "scipy.ndimage", "pandas", "zarr")

# zarr's loop and dask's pool belong to the process, not to us.
OURS = ("histodistill",)


@pytest.fixture(scope="session")
def _loaded():
    """Import what the window imports when it is first used."""
    for name in LOADED:
        import_module(name)
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _quick_collection(_loaded):
    """Leave what was there before a test out of its searches for garbage.

    napari asks for one whenever a layer goes, and going through the million objects of
    these modules and of its own took a third of the time of all tests here.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _letters_drawn_once():
    """Draw each letter on a canvas once for all windows, not once for each."""
    from vispy.visuals.text.text import SDFRendererCPU

    draw = SDFRendererCPU.render_to_texture
    drawn = {}

    def once(self, data, texture, offset, size):
        letter = (data.tobytes(), data.shape, size)
        (x, y), (width, height) = offset, size
        if letter not in drawn:
            drawn[letter] = np.zeros((height, width, 3), np.uint8)
            draw(self, data, drawn[letter], (0, 0), size)
        texture[y : y + height, x : x + width, :] = drawn[letter]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SDFRendererCPU, "render_to_texture", once)
        yield


def our_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith(OURS)]


def wait_until(qtbot, is_true, timeout_s=20.0):
    """Let the event loop turn until something is true."""
    qtbot.waitUntil(is_true, timeout=int(timeout_s * 1000))


def close_viewer(qtbot, viewer, widget):
    """Close napari's window, and wait until a panel in it has let go.

    A person's click asks the panel first, and removes layers after; ``Viewer.close``
    removes the layers first.
    """
    assert widget.may_close()
    viewer.close()
    wait_until(qtbot, lambda: widget.is_closed)


def _panels(window, kind):
    return window.findChildren(kind) if window else []


@pytest.fixture
def open_viewer(make_napari_viewer, qtbot):
    """Return a function that opens a napari window; checks for leaks afterwards."""
    from qtpy.QtCore import QTimer

    opened = []

    def open_one(*, show=True):
        viewer = make_napari_viewer(show=show, strict_qt="raise")
        viewer.window._qt_window.resize(1000, 760)
        listeners = {
            "status": viewer.events.status,
            "inserted": viewer.layers.events.inserted,
            "altered": viewer.layers.events,
            "center": viewer.scene.camera.events.center,
        }
        before = {name: len(e.callbacks) for name, e in listeners.items()}
        opened.append((viewer, listeners, before))
        return viewer

    yield open_one
    for viewer, listeners, before in opened:
        window = getattr(viewer.window, "_qt_window", None)
        kinds = (ExploreWidget, DistilWidget, CompareWidget)
        panels = [panel for kind in kinds for panel in _panels(window, kind)]
        for widget in panels:
            widget.shut_down()
            active = [t for t in widget.findChildren(QTimer) if t.isActive()]
            assert not active, "a timer runs on after the panel has shut down"
        left = {n: len(e.callbacks) - before[n] for n, e in listeners.items()}
        # napari connects its own listeners for each layer; ours hang on objects of
        # this package.
        mine = [
            (n, cb)
            for n, e in listeners.items()
            for cb in e.callbacks
            if isinstance(cb, tuple)
            and cb[0]() is not None
            and type(cb[0]()).__module__.startswith("napari_histodistill")
        ]
        assert not mine, f"still listening to the viewer: {mine} ({left})"
        assert not [
            cb
            for cb in (*viewer.mouse_drag_callbacks, *viewer.mouse_move_callbacks)
            if "histodistill" in getattr(cb, "__module__", "")
        ]
    until = time.monotonic() + 5
    while our_threads() and time.monotonic() < until:
        time.sleep(0.02)
    assert not our_threads(), "a thread outlived its panel"
    opened.clear()


@pytest.fixture
def explore(open_viewer, qtbot):
    """Return a function that opens a viewer with the panel docked."""

    def open_one(student=None, load=None):
        student = student or colour_student()
        viewer = open_viewer()
        widget = ExploreWidget(
            viewer,
            load=load or (lambda name, device="auto": student),
            students=[StudentChoice("colour", student.spec)],
        )
        viewer.window.add_dock_widget(widget, area="right", name="Explore slide")
        qtbot.wait(20)
        return viewer, widget

    return open_one
