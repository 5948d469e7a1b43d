"""A slide on a server: what opens it is shown, logged and written by no panel."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import pytest

pytest.importorskip("napari", reason="the windows need napari and Qt")
pytest.importorskip("aiohttp", reason="extra [http]")

from napari.errors import ReaderPluginError
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt
from qtpy.QtGui import QAction
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QAbstractItemView, QApplication, QComboBox, QWidget

from napari_histodistill import addresses
from napari_histodistill.controllers.shared.exporting import ExportKey
from napari_histodistill.errors import HistodistillError
from napari_histodistill.layers.slide_layer import slide_layer, slide_of
from napari_histodistill.samples.paired import CHANNELS
from napari_histodistill.slides import open_slide
from tests.fakes import tissue_image
from tests.faults.hostile_servers import Server, serving, slide_files
from tests.widgets.compare import test_flow as comparing
from tests.widgets.conftest import wait_until
from tests.widgets.distil import test_flow as distilling
from tests.widgets.explore import test_flow as exploring
from tests.widgets.explore.test_teach_flow import NoWeights

pytestmark = pytest.mark.gui

compare = comparing.compare
open_distil, painted = distilling.open_distil, distilling.painted

USER, PASSWORD, TOKEN = "us3rOfMine", "pa55wordOfMine", "t0kenOfMine"
SECRETS = (USER, PASSWORD, TOKEN)
QUERY = f"token={TOKEN}%2Fa%3D&v=1"
FORMS = {
    "signed": lambda url: f"{url}?{QUERY}",
    "password": lambda url: url.replace("://", f"://{USER}:{PASSWORD}@"),
    "user": lambda url: url.replace("://", f"://{USER}@"),
    "all": lambda url: f"{url.replace('://', f'://{USER}:{PASSWORD}@')}?{QUERY}",
    "signed, like a slide": lambda url: f"{url}?{QUERY}&file=a.zarr",
    "a part of a page": lambda url: f"{url}#{TOKEN}.zarr",
}


@pytest.fixture(autouse=True)
def _loopback(socket_enabled, monkeypatch, caplog):
    monkeypatch.setattr(addresses, "_SIGNED", {})
    caplog.set_level(logging.INFO)
    for name in ("napari_histodistill", "aiohttp", "asyncio", "zarr"):
        caplog.set_level(logging.DEBUG, logger=name)
    notification_manager.records.clear()


@pytest.fixture
def server():
    with serving(Server(slide_files(image=tissue_image()))) as found:
        yield found


@pytest.fixture
def clean(caplog, capfd, tmp_path):
    """Return a function that looks for the secrets wherever a person might."""
    slides = {}

    def look(viewer):
        found = (slide_of(layer.metadata) for layer in viewer.layers)
        slides.update((id(slide), slide) for slide in found if slide is not None)
        said = capfd.readouterr()
        texts = [*shown_in(viewer), caplog.text, said.out, said.err]
        texts += [str(n) for n in notification_manager.records]
        texts += [t.name for t in threading.enumerate()]
        assert not [t for t in texts if any(s in t for s in SECRETS)]
        homes = (os.environ[f"HISTODISTILL_{name}"] for name in ("CACHE", "DRAFTS"))
        for folder in (tmp_path, *map(Path, homes)):
            assert not written(folder)

    yield look
    for slide in slides.values():  # while its server is there
        slide.close()


def written(folder):
    """Return files in whose name or bytes there is a secret."""
    found = []
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        if any(s in str(path) or s.encode() in content for s in SECRETS):
            found.append(path)
    return found


def shown_in(viewer):
    """Return every text of a window, of its layers, and of the clipboard."""
    window = viewer.window._qt_window
    found = [QApplication.clipboard().text(), viewer.title, str(viewer.status)]
    for thing in all_below(window):
        found += properties_of(thing)
        if isinstance(thing, QAbstractItemView | QComboBox) and thing.model():
            found += items_of(thing.model())
    for layer in viewer.layers:
        slide = slide_of(layer.metadata)
        found += [layer.name, repr(layer.metadata), repr(layer.source)]
        found += [layer.get_source_str(), repr(getattr(layer, "features", ""))]
        if slide is not None:
            found += [repr(slide), repr(slide.info), slide.name, str(slide.path)]
            found += [str(layer.get_status((1.0, 1.0), world=True))]
    return found


def all_below(root):
    return [root, *root.findChildren(QWidget), *root.findChildren(QAction)]


def properties_of(thing):
    about = thing.metaObject()
    names = [about.property(k).name() for k in range(about.propertyCount())]
    values = [thing.property(name) for name in names]
    return [v for v in values if isinstance(v, str)]


def items_of(model):
    roles = (*range(14), *range(Qt.ItemDataRole.UserRole, Qt.ItemDataRole.UserRole + 4))
    places = [model.index(row, k) for row in range(model.rowCount()) for k in range(4)]
    return [str(model.data(x, role)) for x in places if x.isValid() for role in roles]


def says(widget, what):
    texts = [text for thing in all_below(widget) for text in properties_of(thing)]
    return any(what in text for text in texts)


def drafted():
    return any(Path(os.environ["HISTODISTILL_DRAFTS"]).glob("*.json"))


def press(button):
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)


def add_signed(viewer, server):
    data, kwargs, _ = slide_layer(open_slide(FORMS["signed"](server.url)))
    return viewer.add_image(data, **kwargs)


def test_what_is_looked_for_is_found(open_viewer, clean, tmp_path):
    """A secret in any of these places would be met."""
    viewer = open_viewer()
    clean(viewer)
    window = viewer.window._qt_window
    places = {
        "tooltip": window.setToolTip,
        "title": window.setWindowTitle,
        "label": window.statusBar()._status.setText,
        "clipboard": QApplication.clipboard().setText,
        "file": (tmp_path / "a.json").write_text,
        "log": logging.getLogger("anything").warning,
    }
    for place, put in places.items():
        put(f"a {TOKEN}")
        with pytest.raises(AssertionError):
            clean(viewer)
        put("")
        if place != "log":
            clean(viewer)


def test_explore_shows_nothing(explore, server, clean, qtbot, tmp_path):
    viewer, widget = explore()
    widget.choosing.open_path(Path(FORMS["signed"](server.url)))
    assert says(widget, "Opening slide.zarr…")
    clean(viewer)
    wait_until(qtbot, exploring.ready(widget))
    clean(viewer)
    press(widget.run_panel.button)
    wait_until(qtbot, exploring.idle(widget))
    assert widget.session.live is not None
    layer = widget.bench.slide_layer
    exploring.click(viewer, layer, exploring.GLAND)
    wait_until(qtbot, exploring.idle(widget))
    widget.teach_panel.paint_button.setChecked(True)
    strokes = widget.bench.overlays.get("strokes")
    strokes.data[30:60, 30:60] = 1
    strokes.data[60:90, 120:160] = 2
    widget.teaching.rename(0, "mine")
    wait_until(qtbot, drafted)
    strokes.refresh()
    wait_until(qtbot, lambda: widget.session.taught is not None)
    wait_until(qtbot, exploring.idle(widget))
    widget.session.student.backend.module = NoWeights()
    widget.teaching.save(tmp_path / "mine")
    wait_until(qtbot, exploring.idle(widget))
    assert (tmp_path / "mine" / "spec.json").exists(), widget.teach_panel.words.text()
    for key, name in (
        (ExportKey.CLASS_OUTLINES, "a.geojson"),
        (ExportKey.CLASS_AREAS, "a.csv"),
        (ExportKey.SIMILAR_PLACES, "s.geojson"),
    ):
        widget.export(key, tmp_path / name)
        wait_until(qtbot, exploring.idle(widget))
        assert (tmp_path / name).exists(), widget.run_panel.message.text()
    # It reached the server, so it was used, and it is nowhere else.
    assert all(QUERY in path for path in server.asked)
    clean(viewer)


def test_explore_shows_nothing_of_a_server_that_fails(explore, server, clean, qtbot):
    viewer, widget = explore()
    widget.choosing.open_path(Path(FORMS["signed"](server.url)))
    wait_until(qtbot, exploring.ready(widget))
    for key in list(server.files):
        if "/c/" in key:
            server.special[key] = lambda _server, send: send(b"nothing of HTTP")
    press(widget.run_panel.button)
    wait_until(qtbot, exploring.idle(widget))
    assert says(widget, f"127.0.0.1:{server.port}"), widget.run_panel.message.text()
    clean(viewer)


@pytest.mark.parametrize("form", FORMS)
def test_an_address_that_fails_shows_nothing(form, explore, clean, qtbot):
    viewer, widget = explore()
    with serving(Server({})) as empty:
        widget.choosing.open_path(Path(FORMS[form](empty.url)))
        clean(viewer)
        wait_until(qtbot, exploring.idle(widget))
    assert says(widget, "slide.zarr: ") or says(widget, "127.0.0.1")
    assert not len(viewer.layers)
    clean(viewer)


@pytest.mark.parametrize(
    ("form", "plugin"),
    [
        *((form, "napari-histodistill") for form in FORMS),
        # No other reader claims these; of several, napari asks which.
        ("signed", None),
        ("all", None),
    ],
)
def test_napari_opens_nothing_that_it_would_show(
    form, plugin, explore, server, clean, qtbot
):
    viewer, _widget = explore()
    with pytest.raises((HistodistillError, ReaderPluginError)) as refused:
        viewer.open(FORMS[form](server.url), plugin=plugin)
    assert not [s for s in SECRETS if s in str(refused.value)]
    assert not server.asked
    assert not len(viewer.layers)
    clean(viewer)


def test_compare_shows_nothing(compare, server, clean, qtbot, tmp_path):
    viewer, widget = compare()
    widget.choosing.open_path(Path(FORMS["signed"](server.url)))
    wait_until(qtbot, comparing.ready(widget))
    press(widget.choose_panel.runner.button)
    wait_until(qtbot, comparing.idle(widget))
    assert widget.session.compared is not None
    for key, name in (
        (ExportKey.DIFFERENT_PLACES, "d.geojson"),
        (ExportKey.DIFFERENCE_TABLE, "d.csv"),
        (ExportKey.DIFFERENCE_MAP, "d.ome.zarr"),
    ):
        widget.export(key, tmp_path / name)
        wait_until(qtbot, comparing.idle(widget))
        assert (tmp_path / name).exists()
    clean(viewer)
    widget.choosing.open_path(Path(FORMS["all"](server.url)))
    wait_until(qtbot, comparing.idle(widget))
    assert says(widget, "an address with a user or a password is not opened")
    assert all(QUERY in path for path in server.asked)
    clean(viewer)


@pytest.mark.slow
@pytest.mark.usefixtures("forked_trainings")
def test_distil_shows_nothing(open_distil, clean, qtbot, painted):
    viewer, widget = open_distil()
    with serving(Server(slide_files(image=painted.sparse))) as server:
        add_signed(viewer, server)
        distilling.add(viewer, painted.dense, "marker", CHANNELS)
        distilling.tick(widget, "marker")
        clean(viewer)
        distilling.preview(qtbot, widget)
        widget.align_step.pick.click()
        wait_until(qtbot, lambda: widget.aligning.landmarks._points is not None)
        here, there = widget.aligning.landmarks._points
        here.add([50.0, 60.0])
        there.add([50.0, 60.0])
        wait_until(qtbot, drafted)
        widget.align_step.pick.click()
        clean(viewer)
        widget.session.typed = {
            ("schedule", "batch"): "16",
            ("schedule", "steps"): "2",
            ("objective", "projector"): "16, 16",
        }
        widget.refresh()
        distilling.start(qtbot, widget, steps=1)
        run = widget.session.run
        wait_until(qtbot, lambda: run.view().state == "finished", 120)
        wait_until(qtbot, lambda: not widget.bench.pump.busy, 60)
        assert (run.folder / "report.html").exists()
        widget.train_step.command.click()
        assert "distill" in QApplication.clipboard().text()
        assert all(QUERY in path for path in server.asked)
        clean(viewer)
