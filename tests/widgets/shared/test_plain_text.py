"""Whatever a stranger's file says: no label, tooltip or message obeys it as HTML."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
from napari.layers._source import layer_source
from qtpy.QtCore import Qt
from qtpy.QtGui import QTextDocument
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QLabel,
    QMessageBox,
    QWidget,
)

from napari_histodistill.controllers.shared.student_list import StudentChoice
from napari_histodistill.distill.layers.partners import Spots
from napari_histodistill.errors import SlideError
from napari_histodistill.layers.slide_layer import slide_layer, slide_of
from napari_histodistill.layers.spot_layer import spot_layer
from napari_histodistill.slides import slide_from_arrays
from napari_histodistill.slides.tissue.writing import write_pyramid
from napari_histodistill.students.spec import Metric
from napari_histodistill.widgets.compare.dock import CompareWidget
from napari_histodistill.widgets.distil.dock import DistilWidget
from napari_histodistill.widgets.explore.dock import ExploreWidget
from napari_histodistill.widgets.fetching import FetchDialog
from napari_histodistill.widgets.shared.controls import (
    PlainLabel,
    message_box,
    plain_tip,
    set_tip,
)
from tests.fakes import coarse_student, colour_student, tissue_image
from tests.samples_server import serving
from tests.widgets.conftest import wait_until

pytestmark = pytest.mark.gui

# A file that is not there, in place of one that never ends.
IMAGE = '<img src="/nothing/here.png"><b>bold</b>'
ESCAPED = "&lt;img src=x&gt; & co"
MPP_OF_A_TEST = 0.5


def shown_as_html(text, *, links=True):
    """Return whether a text, given to Qt as it is, loads or marks up something."""
    if not Qt.mightBeRichText(text):
        return False
    document = QTextDocument()
    document.setHtml(text)
    seen = document.toHtml()
    marked_up = "<img" in seen or "font-weight:700" in seen
    return marked_up or (links and "href" in seen)


def loads_or_is_bold(text):
    """Return the same without links, which some of napari's tips of the day are."""
    return shown_as_html(text, links=False)


def item_tips(model):
    for k in range(model.rowCount()):
        yield model.data(model.index(k, 0), Qt.ItemDataRole.ToolTipRole) or ""


def obeyed(root, *, may_be_marked_up=Qt.mightBeRichText):
    """Return every text below a widget that Qt would show as HTML."""
    found = []
    for widget in (root, *root.findChildren(QWidget)):
        texts = [widget.toolTip(), widget.whatsThis()]
        texts += [a.toolTip() for a in widget.actions()]
        if isinstance(widget, QAbstractItemView | QComboBox) and widget.model():
            texts += item_tips(widget.model())
        found += [f"tip: {text}" for text in texts if shown_as_html(text)]
        if (
            isinstance(widget, QLabel)
            and widget.textFormat() != Qt.TextFormat.PlainText
            and may_be_marked_up(widget.text())
        ):
            found.append(f"label: {widget.text()}")
    return found


def texts_of(root):
    labels = [w.text() for w in root.findChildren(QLabel)]
    return labels + [w.toolTip() for w in root.findChildren(QWidget)]


def says(root, what):
    return any(what in text for text in texts_of(root))


def hostile(student):
    """Give a student the title and figures of a stranger."""
    metric = Metric(name=IMAGE, value=0.5, protocol=IMAGE)
    update = {
        "title": IMAGE,
        "description": f"{IMAGE}\n{ESCAPED}",
        "licence": IMAGE,
        "metrics": (metric,),
    }
    student.spec = student.spec.model_copy(update=update)
    return student


def hostile_slide(channels=None):
    pixels = tissue_image()
    if channels is not None:
        pixels = np.concatenate([pixels, pixels[..., :1]], axis=2)
    slide = slide_from_arrays(pixels, name=f"{IMAGE}.svs", mpp=None, channels=channels)
    return slide.with_info(replace(slide.info, notes=(IMAGE,), vendor=IMAGE))


def add(viewer, slide):
    data, kwargs, _ = slide_layer(slide)
    added = viewer.add_image(data, **kwargs)
    return added if isinstance(added, list) else [added]


def all_of_napari(viewer):
    """The window: our panels in it, napari's list of layers, its status bar."""
    window = viewer.window._qt_window
    layers = viewer.window._qt_viewer.layers
    window.statusBar().setStatusText(text=viewer.status, layer_base="")
    tips = [t for t in item_tips(layers.model()) if shown_as_html(t)]
    panels = (ExploreWidget, CompareWidget, DistilWidget)
    ours = [p for kind in panels for p in window.findChildren(kind)]
    assert ours
    # napari's own hints are marked up, by napari: only pictures and bold count.
    found = obeyed(window, may_be_marked_up=loads_or_is_bold) + tips
    return found + [text for panel in ours for text in obeyed(panel)]


def test_explore_obeys_nothing(explore, qtbot):
    viewer, widget = explore(hostile(colour_student()))
    add(viewer, hostile_slide())
    wait_until(qtbot, lambda: not widget.bench.pump.busy)
    widget.choosing.give_mpp(MPP_OF_A_TEST, IMAGE)
    wait_until(qtbot, lambda: not widget.bench.pump.busy)
    assert says(widget, "bold")
    assert not all_of_napari(viewer)
    for speaker in (widget.bench.said.emit, widget.run_panel.say, widget.say):
        speaker(f"{IMAGE} cannot be opened.")
        assert not all_of_napari(viewer)
    widget.teach_panel.say(IMAGE)
    widget.run_panel.show_ready("Run", IMAGE)
    widget.run_panel.show_device("CPU", IMAGE)
    widget.slide_panel.lock(IMAGE)
    assert IMAGE.count("<") == 3
    assert not all_of_napari(viewer)


def test_the_status_bar_obeys_nothing(explore, qtbot):
    viewer, widget = explore()
    widget.canvas._describe = lambda world: IMAGE
    viewer.cursor.position = (1.0, 1.0)
    viewer.status = "something"
    assert "bold" in viewer.status
    assert not shown_as_html(viewer.status)


class Bait:
    """A pipe that somebody reads from, or not."""

    def __init__(self, path):
        os.mkfifo(path)
        self.path, self.taken, self.over = path, False, threading.Event()
        self.thread = threading.Thread(target=self._wait)
        self.thread.start()

    def _wait(self):
        while not self.over.wait(0.01):
            with contextlib.suppress(OSError):  # nobody reads
                os.close(os.open(self.path, os.O_WRONLY | os.O_NONBLOCK))
                self.taken = True

    def close(self):
        self.over.set()
        self.thread.join()


@pytest.fixture
def bait(tmp_path, monkeypatch):
    """A pipe in the working folder that markup of a name asks for."""
    if sys.platform == "win32":
        pytest.skip("no file can be called so")
    monkeypatch.chdir(tmp_path)
    made = Bait(tmp_path / "bait")
    yield made
    made.close()


MARKED_UP = "<img src=bait>.tif"


def hover(viewer, layer, qtbot):
    """Let napari say what is under the cursor, and show its list of layers."""
    window = viewer.window._qt_window
    viewer.status = layer.get_status((1.0, 1.0), world=True)
    qtbot.wait(50)
    window.repaint()
    qtbot.wait(50)


def test_what_is_looked_for_is_asked_for(bait, open_viewer, qtbot):
    """In napari's status bar, were it told such a name."""
    viewer = open_viewer()
    with layer_source(path=MARKED_UP, reader_plugin="napari-histodistill"):
        layer = viewer.add_image(np.zeros((64, 64), np.uint8), name="plain")
    hover(viewer, layer, qtbot)
    assert bait.taken
    viewer.layers.clear()
    viewer.status = ""


def test_a_marked_up_name_asks_for_nothing(bait, explore, qtbot, tmp_path):
    path = write_pyramid(tmp_path / MARKED_UP, tissue_image(), mpp=0.5)
    viewer, widget = explore()
    with pytest.raises(SlideError) as refused:
        viewer.open(str(path), plugin="napari-histodistill")
    assert "‹img src=bait›.tif: " in str(refused.value)
    assert "<" not in str(refused.value)
    # Opened by us, it is no more than a name.
    widget.choosing.open_path(path)
    wait_until(qtbot, lambda: not widget.bench.pump.busy)
    (layer,) = [x for x in viewer.layers if slide_of(x.metadata) is not None]
    assert layer.name == "‹img src=bait›.tif"
    hover(viewer, layer, qtbot)
    assert not shown_as_html(layer.get_source_str())
    assert not all_of_napari(viewer)
    assert not bait.taken


def test_compare_obeys_nothing(open_viewer, qtbot):
    pair = hostile(coarse_student()), hostile(colour_student())
    by_name = {student.name: student for student in pair}
    viewer = open_viewer()
    widget = CompareWidget(
        viewer,
        load=lambda name, device="auto": by_name[name],
        students=[StudentChoice(s.name, s.spec, IMAGE) for s in pair],
    )
    viewer.window.add_dock_widget(widget, area="right", name="Compare students")
    add(viewer, hostile_slide())
    wait_until(qtbot, lambda: not widget.bench.pump.busy)
    widget.choosing.give_mpp(MPP_OF_A_TEST, IMAGE)
    wait_until(qtbot, lambda: not widget.bench.pump.busy)
    assert says(widget, "bold")
    widget.choose_panel.show_words([IMAGE, IMAGE])
    widget.choose_panel.show_measures("classes", lambda measure: IMAGE)
    widget.choose_panel.lock(IMAGE)
    widget.bench.said.emit(IMAGE)
    assert not all_of_napari(viewer)


def test_distil_obeys_nothing(open_viewer, qtbot, tmp_path):
    viewer = open_viewer()
    for layer in add(viewer, hostile_slide()):
        layer.scale = (0.5, 0.5)
    add(viewer, hostile_slide(channels=("a", IMAGE, "c", "d")))
    positions = np.array([[10.0, 10.0], [40.0, 90.0]])
    spots = Spots(IMAGE, positions, np.ones((2, 1), np.float32), (IMAGE,))
    data, kwargs, _ = spot_layer(spots)
    viewer.add_points(data, **kwargs)
    widget = DistilWidget(viewer, runs=tmp_path / "runs")
    viewer.window.add_dock_widget(widget, area="right", name="Distil a student")
    qtbot.wait(20)
    steps = (
        widget.layers_step, widget.align_step, widget.pairs_step, widget.train_step,
    )  # fmt: skip
    for step in steps:
        step.say(IMAGE)
    widget.layers_step.meaning.say(IMAGE)
    widget.layers_step.unit.ask(IMAGE, (), None)
    widget.align_step.words.say(IMAGE)
    widget.align_step.seen.say(IMAGE)
    widget.pairs_step.show_kept(any_kept=True, why_not_keep=IMAGE)
    widget.pairs_step.offer_held_out([IMAGE, ESCAPED], 1)
    widget.train_step.warn(IMAGE)
    widget.bench.said.emit(f"{IMAGE} cannot be opened.")
    assert says(widget, "bold")
    assert not all_of_napari(viewer)


def test_the_dialog_that_fetches_obeys_nothing(open_viewer, qtbot, socket_enabled):
    viewer = open_viewer()
    with serving() as server:
        slide = server.slide(key="mine", title=IMAGE, source=IMAGE, licence=IMAGE)
    dialog = FetchDialog(viewer, slide)
    dialog.message.setText(IMAGE)
    assert says(dialog, "bold")
    assert not obeyed(dialog)
    dialog.close()


def test_a_message_obeys_nothing(qtbot):
    parent = QWidget()
    qtbot.addWidget(parent)
    box = message_box(parent, IMAGE, IMAGE)
    box.addButton("Stay", QMessageBox.ButtonRole.RejectRole)
    assert says(box, "bold")
    assert not obeyed(box)


def test_a_tooltip_shows_the_very_text_with_its_line_breaks(qtbot):
    for text in (IMAGE, ESCAPED, "a < b\nand c > d & e", "plain\nlines"):
        document = QTextDocument()
        document.setHtml(plain_tip(text))
        assert document.toPlainText() == text
    assert plain_tip("") == ""
    widget = QWidget()
    qtbot.addWidget(widget)
    set_tip(widget, IMAGE)
    assert not shown_as_html(widget.toolTip())


def test_what_is_looked_for_is_found(qtbot):
    """Without the helpers, each of these would be obeyed."""
    label = QLabel(IMAGE)
    qtbot.addWidget(label)
    assert obeyed(label) == [f"label: {IMAGE}"]
    plain = PlainLabel(IMAGE)
    qtbot.addWidget(plain)
    assert not obeyed(plain)
    plain.setToolTip(IMAGE)
    assert obeyed(plain)
    combo = QComboBox()
    qtbot.addWidget(combo)
    combo.addItem("x")
    combo.setItemData(0, IMAGE, Qt.ItemDataRole.ToolTipRole)
    assert obeyed(combo)
