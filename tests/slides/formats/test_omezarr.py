"""OME-Zarr as folder and zip, both formats, several orders of axes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore, ZipStore

from napari_histodistill.errors import SlideError
from napari_histodistill.slides import open_slide
from tests.slides.factory import at_size, picture

AXES_CYX = (
    {"name": "c", "type": "channel"},
    {"name": "y", "type": "space", "unit": "micrometer"},
    {"name": "x", "type": "space", "unit": "micrometer"},
)


NAMED = {"channels": [{"label": name} for name in "RGB"]}


def write(store, arrays, *, zarr_format=3, axes=AXES_CYX, omero=NAMED, mpp=0.5):
    """Write arrays (axes as declared) as one multiscale image of named colours."""
    datasets = []
    group = zarr.open_group(store, mode="w", zarr_format=zarr_format)
    for k, array in enumerate(arrays):
        chunks = tuple(min(n, 64) for n in array.shape)
        group.create_array(str(k), shape=array.shape, dtype=array.dtype, chunks=chunks)
        group[str(k)][...] = array
        scale = [
            mpp * arrays[0].shape[i] / array.shape[i] if a["name"] in "yx" else 1.0
            for i, a in enumerate(axes)
        ]
        transform = {"type": "scale", "scale": scale}
        datasets.append({"path": str(k), "coordinateTransformations": [transform]})
    multiscale = {"axes": list(axes), "datasets": datasets}
    metadata = {"multiscales": [multiscale]} | ({"omero": omero} if omero else {})
    if zarr_format == 3:
        group.attrs["ome"] = {"version": "0.5", **metadata}
    else:
        group.attrs.update(metadata)


def pyramid(ratios=(1, 2.5)):
    image = picture(200, 300)
    levels = [at_size(image, int(200 / r), int(300 / r)) for r in ratios]
    return levels, [np.moveaxis(level, 2, 0) for level in levels]


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_both_formats_as_folder_and_zip(tmp_path, zarr_format, kind):
    levels, planes = pyramid()
    if kind == "folder":
        path = tmp_path / "slide.ome.zarr"
        write(LocalStore(path), planes, zarr_format=zarr_format)
    else:
        path = tmp_path / "slide.ome.zarr.zip"
        store = ZipStore(path, mode="w")
        with pytest.warns(UserWarning, match="Duplicate name"):  # zarr rewrites attrs
            write(store, planes, zarr_format=zarr_format)
        store.close()
    with open_slide(path) as slide:
        assert slide.info.vendor == "OME-Zarr"
        assert slide.info.is_rgb
        assert (slide.mpp.y, slide.mpp.x) == pytest.approx((0.5, 0.5))
        assert slide.mpp.source == "OME-Zarr scale (micrometer)"
        assert slide.downsamples == pytest.approx((1, 2.5))
        for k, level in enumerate(levels):
            found = slide.read_pixels(k, 0, 0, *level.shape[:2])
            np.testing.assert_array_equal(found, level)
        window = slide.read_pixels(0, 33, 44, 55, 66)
        np.testing.assert_array_equal(window, levels[0][33:88, 44:110])
    with pytest.raises(SlideError, match="was closed"):
        slide.read_pixels(0, 0, 0, 10, 10)


@pytest.mark.parametrize("order", ["yxc", "xyc", "tczyx", "yx"])
def test_any_order_of_axes(tmp_path, order):
    image = picture(90, 70)
    array = image if "c" in order else image[..., 0]
    have = "yxc" if "c" in order else "yx"
    array = array.transpose([have.index(a) for a in order if a in have])
    for k, axis in enumerate(order):
        if axis not in have:
            array = np.expand_dims(array, k)
    axes = [
        {"name": a, "type": "channel"}
        if a == "c"
        else {"name": a, "type": "space", "unit": "nanometer"}
        for a in order
    ]
    write(LocalStore(tmp_path / "s.zarr"), [array], axes=axes, mpp=250.0)
    with open_slide(tmp_path / "s.zarr") as slide:
        expected = image if "c" in order else image[..., :1]
        np.testing.assert_array_equal(slide.read_pixels(0, 0, 0, 90, 70), expected)
        assert slide.mpp.mean == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("channels", "rgb"),
    [
        (None, False),
        ([("Red", "FF0000"), ("Green", "00FF00"), ("Blue", "0000FF")], True),
        ([("Channel 0", "FF0000"), ("", "00FF00"), ("", "0000FF")], True),
        ([("DAPI", "0000FF"), ("CD3", "00FF00"), ("CD8", "FF0000")], False),
        ([("", "0000FF"), ("", "00FF00"), ("", "FF0000")], False),
    ],
)
def test_three_channels_are_colour_unless_they_say_otherwise(tmp_path, channels, rgb):
    omero = channels and {
        "channels": [{"label": label, "color": colour} for label, colour in channels]
    }
    _, planes = pyramid((1,))
    write(LocalStore(tmp_path / "s.zarr"), planes, omero=omero)
    with open_slide(tmp_path / "s.zarr") as slide:
        assert slide.info.is_rgb == rgb
        assert slide.info.needs_rgb == (channels is None)
        if channels and channels[0][0] == "DAPI":
            assert slide.info.channels == ("DAPI", "CD3", "CD8")


def test_a_scale_without_unit_is_not_taken_for_micrometres(tmp_path):
    axes = [{k: v for k, v in a.items() if k != "unit"} for a in AXES_CYX]
    _, planes = pyramid((1,))
    write(LocalStore(tmp_path / "s.zarr"), planes, axes=axes)
    with open_slide(tmp_path / "s.zarr") as slide:
        assert slide.mpp is None
        assert "the scale 0.5 has no unit and is not used" in slide.info.notes


def test_focal_planes_show_the_first(tmp_path):
    _, planes = pyramid((1,))
    stack = np.stack([planes[0], 255 - planes[0]])
    axes = [{"name": "z", "type": "space", "unit": "micrometer"}, *AXES_CYX]
    write(LocalStore(tmp_path / "s.zarr"), [stack], axes=axes)
    with open_slide(tmp_path / "s.zarr") as slide:
        assert "2 focal planes: the first is shown" in slide.info.notes
        found = slide.read_pixels(0, 0, 0, 200, 300)
        np.testing.assert_array_equal(np.moveaxis(found, 2, 0), planes[0])


def test_the_first_image_of_a_collection_is_opened(tmp_path):
    zarr.open_group(tmp_path / "c.zarr", mode="w", attributes={"bioformats2raw": 3})
    _, planes = pyramid((1,))
    write(LocalStore(tmp_path / "c.zarr/0"), planes)
    with open_slide(tmp_path / "c.zarr") as slide:
        assert slide.shape == (200, 300)


def test_refusals(tmp_path):
    zarr.open_group(tmp_path / "plain.zarr", mode="w")
    with pytest.raises(SlideError, match=r"plain\.zarr: this zarr holds no OME-Zarr"):
        open_slide(tmp_path / "plain.zarr")
    _, planes = pyramid((1,))
    write(LocalStore(tmp_path / "s.zarr"), planes)
    meta = tmp_path / "s.zarr/zarr.json"
    content = json.loads(meta.read_text())
    content["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"] = "7"
    meta.write_text(json.dumps(content))
    with pytest.raises(SlideError, match=r"s\.zarr: the level '7' is missing"):
        open_slide(tmp_path / "s.zarr")
    meta.write_text("{")
    with pytest.raises(SlideError, match=r"s\.zarr: there is no readable zarr group"):
        open_slide(tmp_path / "s.zarr")
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 and nothing")
    with pytest.raises(SlideError, match=r"x\.zip: there is no readable zarr group"):
        open_slide(tmp_path / "x.zip")


def test_a_damaged_chunk_is_an_error_not_black(tmp_path):
    _, planes = pyramid((1,))
    write(LocalStore(tmp_path / "s.zarr"), planes)
    chunk = tmp_path / "s.zarr/0/c/0/1/1"
    chunk.write_bytes(b"not a chunk")
    with open_slide(tmp_path / "s.zarr") as slide:
        slide.read_pixels(0, 0, 0, 60, 60)
        with pytest.raises(
            SlideError, match="level 0 cannot be read around y 64, x 64"
        ):
            slide.read_pixels(0, 64, 64, 60, 60)
