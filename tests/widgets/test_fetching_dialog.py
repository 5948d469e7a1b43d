"""A sample from elsewhere: told about first, fetched on a yes, no trace otherwise."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from napari.layers import Layer

from napari_histodistill.cache import cache_dir
from napari_histodistill.samples import fetching as registry
from napari_histodistill.slides.tissue.writing import write_pyramid
from napari_histodistill.widgets.fetching import FetchDialog, open_or_ask
from tests import samples_server
from tests.samples_server import serving
from tests.widgets.conftest import wait_until

pytestmark = pytest.mark.gui


@pytest.fixture(autouse=True)
def loopback(socket_enabled):
    from pytest_socket import socket_allow_hosts

    socket_allow_hosts(["127.0.0.1", "localhost"], allow_unix_socket=True)


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Return a function that puts a real slide on a server of this machine."""
    write_pyramid(tmp_path / "a.tif", np.full((300, 400, 3), 200, np.uint8), mpp=0.5)
    body = (tmp_path / "a.tif").read_bytes()
    monkeypatch.setattr(samples_server, "BODY", body)

    def offer(server):
        slide = server.slide(
            key="mine",
            file_name="a.tif",
            size_bytes=len(body),
            sha256=hashlib.sha256(body).hexdigest(),
        )
        monkeypatch.setattr(registry, "REMOTE", (slide,))
        return slide

    return offer


def asked_for(viewer):
    """Do what napari's File › Open Sample does with what a sample returns."""
    for made in open_or_ask("mine"):
        viewer.add_layer(Layer.create(*made))


def dialog(viewer):
    (found,) = viewer.window._qt_window.findChildren(FetchDialog)
    return found


def gone(viewer):
    return not viewer.window._qt_window.findChildren(FetchDialog)


def nothing_left():
    return list(cache_dir("fetched").iterdir()) == []


@pytest.mark.either_qt
def test_nothing_is_fetched_before_a_yes(open_viewer, qtbot, served):
    viewer = open_viewer()
    with serving() as server:
        slide = served(server)
        asked_for(viewer)
        assert [layer.name for layer in viewer.layers] == ["A test: not fetched yet"]
        asked = dialog(viewer)
        assert asked.isVisible()
        assert not asked.isModal()
        for words in (slide.host, "licence CC0 1.0", "fetched only once"):
            assert words in asked.words.text()
        assert slide.url in asked.fetch.toolTip()
        asked.leave.click()
        wait_until(qtbot, lambda: gone(viewer))
        assert server.requests == 0
        assert not viewer.layers
        # A yes fetches it, opens it, and the next time it is simply there.
        asked_for(viewer)
        dialog(viewer).fetch.click()
        wait_until(qtbot, lambda: gone(viewer))
        assert [layer.data[0].shape for layer in viewer.layers] == [(300, 400, 3)]
        assert slide.path().parent == cache_dir("fetched")
        ((data, _, kind),) = open_or_ask("mine")
        assert kind == "image"
        assert data[0].shape == (300, 400, 3)
        assert server.requests == 1


def test_a_failure_is_said_and_can_be_tried_again(open_viewer, qtbot, served):
    viewer = open_viewer()
    with serving("broken off") as server:
        served(server)
        asked_for(viewer)
        asked = dialog(viewer)
        asked.fetch.click()
        wait_until(qtbot, lambda: asked.fetch.text() == "Try again")
        assert "could not be fetched from 127.0.0.1" in asked.message.text()
        assert list(cache_dir("fetched").iterdir()) == []
        server.how = "good"
        asked.fetch.click()
        wait_until(qtbot, lambda: len(viewer.layers) == 1)
        wait_until(qtbot, lambda: gone(viewer))


def test_closing_it_or_the_window_stops_it(open_viewer, qtbot, served):
    """Also where the server has stalled; the leak check sees that no thread is left."""
    with serving("slow") as server:
        served(server)
        viewer = open_viewer()
        asked_for(viewer)
        dialog(viewer).fetch.click()
        wait_until(qtbot, lambda: server.requests == 1)
        dialog(viewer).leave.click()
        wait_until(qtbot, lambda: gone(viewer))
        wait_until(qtbot, nothing_left, 5)
        asked_for(viewer)
        dialog(viewer).fetch.click()
        wait_until(qtbot, lambda: server.requests == 2)
        viewer.close()
        wait_until(qtbot, nothing_left, 5)
        server.go_on.set()
