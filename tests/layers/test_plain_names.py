"""Names that napari shows, made harmless; errors of the reader likewise."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import zarr

from napari_histodistill.errors import SlideError
from napari_histodistill.layers.plain_names import plain_name
from napari_histodistill.layers.reader import read_slides
from napari_histodistill.layers.saved_map import saved_map
from napari_histodistill.layers.slide_layer import slide_of
from napari_histodistill.slides.tissue.writing import write_pyramid
from tests.fakes import tissue_image

IMAGE = "<img src=x>"
on_windows = pytest.mark.skipif(
    sys.platform == "win32", reason="no file can be called so"
)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("H-21-1234 a.svs", "H-21-1234 a.svs"),
        ("p > 0.5 & p ≤ 1", "p > 0.5 & p ≤ 1"),
        (f"{IMAGE}.svs", "‹img src=x›.svs"),
        ("&lt;img src=x>", "‹img src=x›"),
        ("one\ntwo\x1b[2J", "one�two�[2J"),
        ("annex\u202egpj.exe", "annex�gpj.exe"),
        ("\udce9", "�"),
        ("a\u200cb", "a\u200cb"),  # a joiner that Persian is written with
    ],
)
def test_what_a_name_becomes(name, plain):
    assert plain_name(name) == plain


def test_a_saved_map_of_a_stranger_shows_no_markup(tmp_path):
    group = zarr.open_group(tmp_path / f"{IMAGE}.zarr", mode="w", zarr_format=2)
    group.create_array("0", data=np.ones((8, 8), np.uint8))
    axes = [{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"]
    scale = [{"type": "scale", "scale": [1.0, 1.0]}]
    sets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": sets}]
    entry = {"label-value": 1, IMAGE: IMAGE, "list": [IMAGE], "mm2": 1.5, "none": None}
    group.attrs["image-label"] = {"version": "0.4", "properties": [entry]}
    _, kwargs, kind = saved_map(tmp_path / f"{IMAGE}.zarr")
    assert kind == "labels"
    assert kwargs["name"] == "‹img src=x›.zarr"
    features = kwargs["features"]
    assert features["‹img src=x›"] == ["‹img src=x›"]
    assert features["mm2"] == [1.5]
    assert features["none"] == [None]
    assert "<" not in str(kwargs["features"]["list"])


@on_windows
@pytest.mark.parametrize(
    "name", ["<img src=x>.tif", "<1<B>.tif", "<?xml.tif", "&lt;b>.tif", "a< b>.tif"]
)
def test_a_name_that_napari_would_obey_is_not_its_to_show(tmp_path, name):
    # Its status bar and its tooltips show the name of the file as it is.
    path = write_pyramid(tmp_path / name, tissue_image(64, 64), mpp=1.0)
    with pytest.raises(SlideError, match="rename it") as refused:
        read_slides(path)
    assert "<" not in str(refused.value)


@on_windows
@pytest.mark.parametrize(
    "name", ["p<0.05.tif", "a<b.tif", "a <- b.tif", "a & b > c.tif"]
)
def test_a_name_that_is_no_markup_is_read(tmp_path, name):
    path = write_pyramid(tmp_path / name, tissue_image(64, 64), mpp=1.0)
    ((_, kwargs, _),) = read_slides(path)
    slide_of(kwargs["metadata"]).close()


def test_an_error_of_the_reader_shows_no_markup(tmp_path):
    path = tmp_path / "a<img src=x>.svs"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(SlideError) as caught:
        read_slides(path)
    assert "a‹img src=x›.svs" in str(caught.value)
    assert "<" not in str(caught.value)
