"""Folders that napari is given, and the commands of its palette."""

from __future__ import annotations

from pathlib import Path

import pytest
from napari.settings import get_settings
from npe2 import PluginManager, PluginManifest

import napari_histodistill
from napari_histodistill import samples
from napari_histodistill.controllers.explore.worklist import RowState
from napari_histodistill.controllers.shared.student_list import chosen_in_words
from napari_histodistill.slides.tissue.writing import write_pyramid
from napari_histodistill.widgets import opening
from napari_histodistill.widgets.explore.dock import ExploreWidget
from napari_histodistill.widgets.shared.slide_layers import slide_layers
from tests.fakes import tissue_image
from tests.widgets.conftest import wait_until

pytestmark = pytest.mark.gui

MANIFEST = Path(napari_histodistill.__file__).with_name("napari.yaml")


@pytest.fixture
def known():
    """Have napari know the plugin, as it does where that is installed."""
    plugins = PluginManager.instance()
    if opening.PLUGIN not in plugins:
        plugins.register(PluginManifest.from_file(MANIFEST))


@pytest.mark.either_qt
def test_a_folder_of_slides_is_a_worklist(known, open_viewer, qtbot, tmp_path):
    for name in ("s2.ome.tif", "s10.ome.tif"):
        write_pyramid(tmp_path / name, tissue_image(300, 400), mpp=0.5)
    (tmp_path / "s3.svs").write_bytes(b"no slide")
    viewer = open_viewer()
    assert viewer.open(str(tmp_path), plugin=opening.PLUGIN) in ([], [None])
    (panel,) = viewer.window._qt_window.findChildren(ExploreWidget)
    wait_until(qtbot, lambda: panel.session.slide is not None)
    rows = panel.choosing.worklist.rows
    assert [row.name for row in rows] == ["s2.ome.tif", "s3.svs", "s10.ome.tif"]
    assert rows[0].state is RowState.OPEN
    panel.choosing.give_mpp(0.25)
    assert "0.25 × 0.25" in panel.bench.slide_layer.metadata["slide"]["µm per pixel"]
    # napari goes through all that is on the canvas once for another slide, not at each
    # layer that is shown or hidden, and only where it matters what is shown.
    panel.slide_panel.slide.picked.emit(2)
    wait_until(
        qtbot,
        lambda: len(slide_layers(viewer)) == 2 and not panel.bench.pump.busy,
    )
    canvas, arranged = viewer.window._qt_viewer.canvas, []
    canvas._update_scenegraph = lambda event=None: arranged.append(event)
    first, second = slide_layers(viewer)
    overlay = first.colorbar
    for row, shows in ((0, False), (1, True), (0, False), (1, False)):
        overlay.visible = shows
        arranged.clear()
        panel.slide_panel.slide.picked.emit(2 * row)
        assert [first.visible, second.visible] == [row == 0, row == 1]
        assert not any(arranged), "none of them because a layer was shown or hidden"
        assert bool(arranged) is shows
    panel.slide_panel.slide.picked.emit(0)
    del canvas._update_scenegraph
    # Another folder by the same way comes into the same panel.
    viewer.open(str(tmp_path), plugin=opening.PLUGIN)
    assert viewer.window._qt_window.findChildren(ExploreWidget) == [panel]
    asked = []
    panel.choosing.ask_worklist = lambda: asked.append("folder")
    panel.choosing.ask_slide = lambda: asked.append("slide")
    opening.ask_folder()
    opening.ask_slide()
    assert asked == ["folder", "slide"]


def test_the_reader_question_is_answered_once_and_other_answers_stay(open_viewer):
    settings = get_settings().plugins
    before = settings.extension2reader
    try:
        settings.extension2reader = {"*.svs": "another"}
        opening.prefer_our_reader()
        chosen = settings.extension2reader
        assert chosen["*.svs"] == "another"
        assert chosen["*.ndpi"] == opening.PLUGIN
        assert "*.tif" not in chosen, "not only slides are named so"
    finally:
        settings.extension2reader = before


def test_without_a_window_a_folder_is_refused_in_a_sentence(tmp_path):
    from napari_histodistill.errors import InputError

    for name in ("a.svs", "b.svs"):
        (tmp_path / name).touch()
    assert opening.get_reader(str(tmp_path / "a.png")) is None
    with pytest.raises(InputError, match=r"holds 2 slides: open it by Folder…"):
        opening.get_reader(str(tmp_path))(str(tmp_path))


def open_bulb_sample(viewer, monkeypatch):
    """Open the painted bulb as *File › Open Sample* does, smaller than it is."""
    from napari_histodistill.samples import bulb as painting

    paint = painting.paint_bulb
    monkeypatch.setattr(painting, "paint_bulb", lambda: paint(420, 580))
    viewer.open_sample(opening.PLUGIN, "bulb")


def test_the_painted_bulb_opens_in_explore_with_its_student(
    known, open_viewer, qtbot, monkeypatch
):
    viewer = open_viewer()
    open_bulb_sample(viewer, monkeypatch)
    (panel,) = viewer.window._qt_window.findChildren(ExploreWidget)
    wait_until(qtbot, lambda: panel.session.student is not None)
    assert panel.session.student.name == "bulb-genes"
    assert panel.slide_panel.student.currentText().startswith("bulb-genes")
    assert panel.bench.slide_layer.name == samples.BULB_NAME
    wait_until(qtbot, lambda: not panel.bench.pump.busy)
    said = panel.run_panel.message
    assert said.text() == chosen_in_words(samples.BULB_STUDENTS)
    assert [layer.visible for layer in viewer.layers] == [False, True]
    # What a person chooses then stays, on this slide and on the next one.
    names = [choice.name for choice in panel.choosing._students]
    panel.choosing.choose_student(names.index("bulb-control"))
    layer = panel.bench.slide_layer
    panel.choosing.choose_layer(None)
    panel.choosing.choose_layer(layer)
    wait_until(qtbot, lambda: not panel.bench.pump.busy)
    assert panel.session.student.name == "bulb-control"
    assert said.text() == ""


def test_compare_sets_the_control_beside_the_student_of_the_painted_bulb(
    known, open_viewer, qtbot, monkeypatch
):
    viewer = open_viewer()
    open_bulb_sample(viewer, monkeypatch)
    (explore,) = viewer.window._qt_window.findChildren(ExploreWidget)
    _, panel = viewer.window.add_plugin_dock_widget(opening.PLUGIN, "Compare students")
    wait_until(qtbot, lambda: not (panel.bench.pump.busy or explore.bench.pump.busy))
    names = [student.name for student in panel.session.students]
    assert names == ["bulb-control", "bulb-genes"]
    assert not panel.session.why_not_run
