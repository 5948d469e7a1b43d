"""Our own maps, and labels of others, open as what they are."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr

from napari_histodistill.errors import SlideError
from napari_histodistill.export import (
    write_class_labels,
    write_difference,
    write_similarity,
)
from napari_histodistill.layers import comparison, overlays
from napari_histodistill.layers.reader import get_reader
from napari_histodistill.layers.saved_map import saved_map
from napari_histodistill.layers.slide_layer import slide_layer, slide_of
from napari_histodistill.maps import DifferenceMap, SimilarityMap
from napari_histodistill.maps.classes import ClassMap
from napari_histodistill.slides import open_slide
from tests.fakes import colour_student
from tests.maps.helpers import small_grid

GRID = small_grid(height=600, width=1000)
ORIGIN = (1000.0, 2000.0)


def open_layer(path):
    (layer,) = get_reader(str(path))(str(path))
    return layer


def classes(rng):
    return ClassMap(
        labels=rng.integers(0, 3, GRID.shape).astype(np.uint8),
        confidence=np.ones(GRID.shape, np.float32),
        probabilities=np.ones((*GRID.shape, 2), np.float32),
        classes=colour_student().spec.classes,
        grid=GRID,
        origin_um=ORIGIN,
    )


def test_a_class_map_becomes_labels_with_names_colours_and_place(tmp_path, rng):
    found = classes(rng)
    path = write_class_labels(found, tmp_path / "class_map.zarr")
    data, kwargs, kind = open_layer(path)
    assert kind == "labels"
    np.testing.assert_array_equal(data, found.labels)
    assert kwargs["scale"] == (32, 32)
    assert kwargs["translate"] == (1015.75, 2015.75)
    assert kwargs["units"] == ("um", "um")
    live = overlays.class_colors(found.classes)
    for k, spec in enumerate(found.classes, start=1):
        wanted = [int(spec.color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        assert kwargs["colormap"][k] == pytest.approx([*wanted, 1.0])
    assert kwargs["colormap"][None] == live[None] == "transparent"
    assert kwargs["colormap"][0][3] == 0
    assert kwargs["features"]["index"] == [0, 1, 2]
    assert kwargs["features"]["name"] == ["no class", "stroma", "gland"]


def test_a_similarity_map_becomes_its_heatmap(tmp_path, rng):
    values = rng.uniform(-1, 1, GRID.shape).astype(np.float32)
    values[0] = np.nan
    heat = SimilarityMap(values=values, grid=GRID, at=(), origin_um=ORIGIN)
    path = write_similarity(heat, tmp_path / "similarity.zarr")
    data, kwargs, kind = open_layer(path)
    assert kind == "image"
    np.testing.assert_array_equal(data, values)
    assert kwargs["colormap"] == overlays.similarity_colormap()
    assert kwargs["contrast_limits"] == pytest.approx((0.0, np.nanmax(values)))
    assert (kwargs["scale"], kwargs["translate"]) == ((32, 32), (1015.75, 2015.75))
    assert kwargs["units"] == ("um", "um")
    assert kwargs["rgb"] is False


@pytest.mark.parametrize("two_ends", [False, True])
def test_a_difference_map_too(tmp_path, rng, two_ends):
    values = rng.uniform(0, 2, GRID.shape).astype(np.float32)
    ends = np.where(values > 1, 1, -1).astype(np.int8) if two_ends else None
    found = DifferenceMap(
        values=values,
        ends=ends,
        grid=GRID,
        measure="news" if two_ends else "neighbours",
        names=("a", "b"),
        cells=values.size,
        anchors=100,
        nearest=5,
        origin_um=ORIGIN,
    )
    path = write_difference(found, tmp_path / "difference.zarr")
    _, kwargs, kind = open_layer(path)
    assert kind == "image"
    assert kwargs["colormap"] == comparison.difference_colormap(two_ends=two_ends)
    top = float(values.max())
    low = -top if two_ends else 0.0
    assert kwargs["contrast_limits"] == pytest.approx((low, top))
    assert kwargs["translate"] == (1015.75, 2015.75)


def test_a_map_is_no_slide(tmp_path, rng):
    path = write_class_labels(classes(rng), tmp_path / "class_map.zarr")
    with pytest.raises(SlideError, match=r"class_map\.zarr is a map that this program"):
        open_slide(path)


def test_a_map_and_its_slide_lie_on_each_other(tmp_path, rng):
    from tests.slides.formats.test_zarr_levels import pyramid, write_levels

    slide_path = write_levels(tmp_path / "slide.zarr", pyramid(shift=ORIGIN))
    _, kwargs, kind = open_layer(slide_path)
    assert kind == "image"
    assert kwargs["rgb"] is True
    assert kwargs["translate"] == ORIGIN
    assert kwargs["scale"] == (0.5, 0.5)
    slide = slide_of(kwargs["metadata"])
    slide.close()
    path = write_class_labels(classes(rng), tmp_path / "class_map.zarr")
    _, on_top, _ = open_layer(path)
    # The outer edges of the first square and of the first pixel are one corner.
    for axis in (0, 1):
        edge = on_top["translate"][axis] - on_top["scale"][axis] / 2
        assert edge == pytest.approx(kwargs["translate"][axis] - 0.25)


def test_a_slide_is_not_walked_through_to_see_that_it_is_no_map(tmp_path, monkeypatch):
    from napari_histodistill.layers import saved_map as module
    from tests.slides.formats.test_zarr_levels import pyramid, write_levels

    monkeypatch.delattr(module, "open_group")
    for form in (2, 3):
        path = write_levels(tmp_path / f"{form}.zarr", pyramid(), zarr_format=form)
        assert saved_map(path) is None


def test_a_slide_can_still_be_laid_elsewhere(tmp_path):
    from tests.slides.formats.test_zarr_levels import pyramid, write_levels

    with open_slide(write_levels(tmp_path / "s.zarr", pyramid(shift=ORIGIN))) as slide:
        assert slide_layer(slide, translate=(0.0, 5.0))[1]["translate"] == (0.0, 5.0)


def strangers(path, labels, about, *, unit="micrometer"):
    axes = [
        {"name": n, "type": "space"} | ({"unit": unit} if unit else {}) for n in "yx"
    ]
    datasets = [
        {
            "path": "0",
            "coordinateTransformations": [{"type": "scale", "scale": [2.0, 3.0]}],
        }
    ]
    multiscale = {"version": "0.4", "axes": axes, "datasets": datasets}
    attributes = {"multiscales": [multiscale], "image-label": about}
    group = zarr.create_group(path, zarr_format=2, attributes=attributes)
    group.create_array("0", shape=labels.shape, dtype=labels.dtype)[...] = labels
    return path


def test_labels_of_others_open_with_what_they_say(tmp_path, rng):
    labels = rng.integers(0, 70000, (40, 50)).astype(np.int32)
    about = {"colors": [{"label-value": 7, "rgba": [255, 0, 0, 255]}]}
    path = strangers(tmp_path / "nuclei.zarr", labels, about)
    data, kwargs, kind = saved_map(path)
    assert kind == "labels"
    np.testing.assert_array_equal(data, labels)
    assert kwargs["scale"] == (2, 3)
    assert kwargs["colormap"][7] == [1, 0, 0, 1]
    assert kwargs["colormap"][None] != "transparent", "others are still seen"
    assert "features" not in kwargs


def test_labels_without_colours_get_napari_s_own(tmp_path):
    labels = np.ones((4, 5), np.uint8)
    path = strangers(tmp_path / "n.zarr", labels, {}, unit=None)
    _, kwargs, _ = saved_map(path)
    assert "colormap" not in kwargs
    assert kwargs["units"] == ("pixel", "pixel")


def test_large_labels_stay_on_disk(tmp_path, monkeypatch):
    import dask.array as da

    from napari_histodistill.layers import saved_map as module

    monkeypatch.setattr(module, "IN_MEMORY_PX", 10)
    labels = np.arange(20, dtype=np.uint8).reshape(4, 5)
    data, _, _ = saved_map(strangers(tmp_path / "n.zarr", labels, {}))
    assert isinstance(data, da.Array)
    np.testing.assert_array_equal(data.compute(), labels)


def test_a_damaged_map_is_said_with_its_name(tmp_path, rng):
    path = write_class_labels(classes(rng), tmp_path / "class_map.zarr")
    attributes = json.loads((path / ".zattrs").read_text())
    attributes["image-label"]["colors"] = [{"rgba": [1, 2, 3, 4]}]
    (path / ".zattrs").write_text(json.dumps(attributes))
    with pytest.raises(SlideError, match=r"class_map\.zarr: the map cannot be read"):
        open_layer(path)


@pytest.mark.gui
def test_napari_takes_all_of_them(tmp_path, rng):
    from napari.layers import Image, Labels

    values = rng.uniform(-1, 1, GRID.shape).astype(np.float32)
    heat = SimilarityMap(values=values, grid=GRID, at=())
    for path, kind in (
        (write_class_labels(classes(rng), tmp_path / "class_map.zarr"), Labels),
        (write_similarity(heat, tmp_path / "similarity.zarr"), Image),
    ):
        data, kwargs, _ = open_layer(path)
        layer = kind(data, **kwargs)
        assert tuple(layer.scale) == (32, 32)
        if kind is Labels:
            assert layer.get_color(0) is None, "no class is transparent"
            assert layer.get_color(2)[:3] == pytest.approx(
                [86 / 255, 180 / 255, 233 / 255]
            )
            name = layer.get_status(layer.data_to_world((0, 0)), world=True)["value"]
            assert any(n in name for n in ("no class", "stroma", "gland"))
