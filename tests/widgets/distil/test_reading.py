"""Step 1 of Distil a student: how labels and brightfield stains are read."""

from __future__ import annotations

import json

import numpy as np
import pytest
from napari.utils.colormaps import DirectLabelColormap

from napari_histodistill.distill.layers.kinds import PartnerReading, Unlabelled
from napari_histodistill.distill.layers.marker import MARKERS, StainOrigin
from napari_histodistill.distill.pairs.lost import Lost
from napari_histodistill.slides.tissue.stain import TYPICAL
from tests.widgets.conftest import wait_until
from tests.widgets.distil.test_flow import (
    MPP,
    add,
    open_distil,
    painted,
    preview,
    tick,
)

pytestmark = pytest.mark.gui

__all__ = ["open_distil", "painted"]


def settle(qtbot, widget):
    wait_until(qtbot, lambda: not widget.bench.pump.busy, 60)


def choose(box, wanted):
    """Choose an entry of a combo by what it means, as a person does by its words."""
    box.native.setCurrentIndex(list(box.choices).index(wanted))


def titles(box):
    return [box.native.itemText(k) for k in range(box.native.count())]


def numbered(side=640):
    """Four quarters of two classes, a fifth of the slide without a label."""
    numbers = np.zeros((side, side), np.uint8)
    numbers[: side // 2, : side // 2] = 1
    numbers[side // 2 :, : side // 2] = 2
    numbers[: side // 2, side // 2 : side - 128] = 2
    return numbers


def brown(painted):
    """A section stained for the marker: haematoxylin, and brown where signal is."""
    nuclei, signal = np.moveaxis(painted.dense.astype(float), -1, 0)
    amounts = [
        strength * (one / np.percentile(one, 99.5)).clip(0, 1)
        for strength, one in ((0.9, nuclei - nuclei.min()), (1.5, signal))
    ]
    stains = np.array([TYPICAL["haematoxylin"], MARKERS["DAB"]])
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    light = np.exp(-np.stack(amounts, -1) @ stains)
    return np.rint(244 * light).astype(np.uint8)


def test_labels_are_read_as_a_person_says(open_distil, qtbot, painted):
    viewer, widget = open_distil()
    add(viewer, painted.sparse, "H&E")
    layer = viewer.add_labels(
        numbered(), name="tissue", scale=(MPP.y, MPP.x), units="um"
    )
    asking = widget.layers_step.reading
    assert not asking.isVisible()
    tick(widget, "tissue")
    assert "Looking" in asking.words.text()
    settle(qtbot, widget)
    assert titles(asking.labels.reading) == ["classes (2 found)", "objects (2 found)"]
    assert asking.labels.unlabelled.value is Unlabelled.UNKNOWN
    preview(qtbot, widget)
    plan = widget.session.planned.plan
    assert plan.partners[0].channels == ("class 1", "class 2")
    assert plan.lost[Lost.UNLABELLED] > 20
    assert "where nothing is labelled" in widget.pairs_step.line.text()
    few = len(plan)

    choose(asking.labels.unlabelled, Unlabelled.BACKGROUND)
    assert widget.session.planned is None
    preview(qtbot, widget)
    assert len(widget.session.planned.plan) > few
    choose(asking.labels.reading, PartnerReading.OBJECTS)
    assert asking.labels.unlabelled.value is Unlabelled.BACKGROUND
    assert not asking.labels.unlabelled.enabled
    assert "only be told from what is not" in asking.labels.unlabelled.tooltip
    preview(qtbot, widget)
    assert widget.session.planned.plan.partners[0].instances

    # What is painted since, and named, counts at the next preview.
    layer.data[-200:, -200:] = 3
    layer.features = {"index": [0, 1, 2, 3], "class": ["", "gut", "fat", "gut"]}
    layer.colormap = DirectLabelColormap(color_dict={None: "k", 1: "r", 2: "g", 3: "r"})
    widget.pairing.layers_altered()
    widget.pairing.tick(layer)
    choose(asking.labels.reading, PartnerReading.CLASSES)
    preview(qtbot, widget)
    assert titles(asking.labels.reading)[0] == "classes (2 found)"
    assert widget.session.planned.plan.partners[0].channels == ("gut", "fat")


def qupath(path, *shapes):
    """Write rectangles ``(class, x0, y0, x1, y1)`` as QuPath does."""
    features = [
        {
            "type": "Feature",
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[a, b], [c, b], [c, d], [a, d], [a, b]]],
            },
            "properties": {"classification": {"name": name, "color": [200, 0, 0]}},
        }
        for name, a, b, c, d in shapes
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def test_annotations_of_qupath_teach(open_distil, qtbot, painted, tmp_path):
    viewer, widget = open_distil()
    assert not widget.layers_step.annotations.isEnabled()
    add(viewer, painted.sparse, "H&E")
    path = qupath(
        tmp_path / "case.geojson",
        ("Tumour", 0, 0, 320, 640),
        ("Stroma", 320, 0, 480, 640),
        ("Gland", 40, 40, 140, 140),
    )
    widget.annotations.choose(path)
    settle(qtbot, widget)
    layer = viewer.layers["case"]
    assert "the smaller one counts" in widget.message.text()
    asking = widget.layers_step.reading
    assert titles(asking.labels.reading)[0] == "classes (3 found)"
    assert asking.labels.unlabelled.value is Unlabelled.UNKNOWN
    assert layer.data_to_world((40, 40)) == pytest.approx((20, 20))
    preview(qtbot, widget, px=32)
    plan = widget.session.planned.plan
    mask = plan.partners[0]
    assert mask.channels == ("Tumour", "Stroma", "Gland")
    pixel = plan.centres_um / 0.5
    assert pixel[:, 1].max() < 480
    assert plan.lost[Lost.UNLABELLED] == 100
    # Each place has the class of the smallest shape around it.
    y, x = pixel.T
    wanted = np.where(x < 320, 1, 2)
    wanted[(x > 40) & (x < 140) & (y > 40) & (y < 140)] = 3
    found = [plan.partner_tile(k, 0)[16, 16, 0] for k in range(len(plan))]
    assert found == wanted.tolist()
    path.write_text("{}")
    widget.annotations.choose(path)
    settle(qtbot, widget)
    assert "not GeoJSON with features" in widget.message.text()


def test_a_brown_stain_is_its_marker_or_both(open_distil, qtbot, painted):
    viewer, widget = open_distil()
    add(viewer, painted.sparse, "H&E")
    add(viewer, brown(painted), "CD3")
    asking = widget.layers_step.reading
    tick(widget, "CD3")
    assert titles(asking.image.reading) == ["as it looks", "its marker", "both"]
    assert not asking.vectors.native.isVisible()
    choose(asking.image.reading, PartnerReading.BOTH)
    settle(qtbot, widget)
    assert asking.vectors.native.isVisible()
    assert "measured" in asking.words.text()
    field = asking.vectors.marker.native
    field.setText("brown")
    field.editingFinished.emit()
    assert "three numbers" in widget.message.text()
    field.setText("0,27 0,57 0,78")
    field.editingFinished.emit()
    assert "as typed" in asking.words.text()
    preview(qtbot, widget, px=64)
    looks, marker = widget.session.planned.plan.partners
    assert [looks.name, marker.name] == ["image", "marker"]
    assert marker.stains.origin is StainOrigin.GIVEN
    assert marker.stains.marker == (0.27, 0.57, 0.78)
    assert [len(twin.dense) for twin in widget.session.planned.twins] == [2] * 6
    kinds = [one.kind for one in widget.session.recipe("test").dense]
    assert kinds == ["image", "channels"]
    # The marker is where the signal is that the section was painted from.
    plan = widget.session.planned.plan
    seen = [plan.partner_tile(k, 1).mean() for k in range(len(plan))]
    there, glow = np.rint(plan.centres_um / 0.5).astype(int), painted.dense[..., 1]
    signal = [glow[y - 32 : y + 32, x - 32 : x + 32].mean() for y, x in there]
    assert np.corrcoef(seen, signal)[0, 1] > 0.98
