"""OME-Zarr on the command line: unnamed channels, places, images inside, polygons."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore

from napari_histodistill.layers.reader import read_slides
from napari_histodistill.layers.slide_layer import slide_of
from tests.fakes import tissue_image
from tests.slides.formats.test_omezarr import write
from tests.slides.formats.test_zarr_levels import write_levels

ORIGIN = (1000.0, 2000.0)


@pytest.fixture
def unnamed(tmp_path):
    path = tmp_path / "slide.zarr"
    image = np.moveaxis(tissue_image(), 2, 0)
    write(LocalStore(path), [image], omero=None, zarr_format=2)
    return path


@pytest.fixture
def placed(tmp_path):
    path = tmp_path / "placed.zarr"
    return write_levels(path, [(tissue_image(), (0.5, 0.5), ORIGIN)])


@pytest.mark.parametrize("command", ["classify", "embed"])
def test_three_unnamed_channels_are_asked_about_before_anything_is_written(
    run, unnamed, bundle, tmp_path, command
):
    out = tmp_path / "out"
    arguments = (command, unnamed, "-o", out, "--student", bundle)
    refused = run(*arguments)
    assert refused.code == 2
    assert "whether its three channels are red, green and blue" in refused.err
    assert "--rgb" in refused.err
    assert not out.exists()
    assert run(*arguments, "--rgb").code == 0


def test_info_asks_too(run, unnamed):
    assert "--rgb" in run("info", unnamed).out
    assert run("info", unnamed, "--json").json["asks_rgb"]
    told = run("info", unnamed, "--rgb", "--json").json
    assert told["channels"] == ["R", "G", "B"]
    assert not told["asks_rgb"]


def test_four_unnamed_channels_are_refused_in_a_sentence(run, bundle, tmp_path):
    image = np.moveaxis(tissue_image(), 2, 0)
    planes = np.concatenate([image, 255 - image[1:2]])
    write(LocalStore(tmp_path / "s.zarr"), [planes], omero=None)
    for more in ((), ("--rgb",)):
        found = run(
            "classify", tmp_path / "s.zarr", "-o", tmp_path / "o",
            "--student", bundle, *more,
        )  # fmt: skip
        assert found.code == 2
        assert "channel 4" in found.err


def test_every_export_lies_where_the_file_places_the_slide(
    run, placed, bundle, tmp_path
):
    out = tmp_path / "out"
    assert run("classify", placed, "-o", out, "--student", bundle).code == 0
    store = out / "placed.zarr"
    again = ("--to", "ome-zarr", "-o", out / "again.zarr", "--student", bundle)
    assert run("export", store, *again).code == 0
    assert run("similar", store, "--at", "300,400", "-o", out).code == 0
    ((_, slide_there, _),) = read_slides(placed)
    assert slide_there["translate"] == ORIGIN
    slide_of(slide_there["metadata"]).close()
    for name in ("class_map.zarr", "again.zarr", "similarity.zarr"):
        ((_, there, _),) = read_slides(out / name)
        for axis in (0, 1):
            edge = there["translate"][axis] - there["scale"][axis] / 2
            assert edge == pytest.approx(ORIGIN[axis] - 0.25), name
    for name in ("class_map.geojson", "regions.geojson"):
        frame = json.loads((out / name).read_text("utf-8"))["frame"]
        assert frame["first_pixel_at_um_yx"] == list(ORIGIN)
        assert frame["unit"] == "pixel of level 0"
    with (out / "regions.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    world = float(first["world_y_um"]), float(first["world_x_um"])
    pixels = float(first["y"]), float(first["x"])
    for axis in (0, 1):
        expected = ORIGIN[axis] + (pixels[axis] - 0.5) * 0.5
        assert world[axis] == pytest.approx(expected, abs=0.05)


def test_info_lists_what_is_inside(run, tmp_path):
    path = tmp_path / "s.zarr"
    zarr.open_group(path, mode="w", attributes={"bioformats2raw.layout": 3})
    for name, size in (("0", 100), ("1", 300)):
        image = np.moveaxis(tissue_image(size, 200), 2, 0)
        write(LocalStore(path / name), [image])
    facts = run("info", path, "--json").json
    assert [(i["name"], i["height"]) for i in facts["images"]] == [
        ("0", 100),
        ("1", 300),
    ]
    assert facts["image"] == 1
    text = run("info", path).out
    lines = [line for line in text.splitlines() if line.startswith("  image ")]
    assert "100 × 200 px" in lines[0]
    assert "shown here" not in lines[0]
    assert "300 × 200 px, 0.5 × 0.5 µm" in lines[1]
    assert "shown here" in lines[1]


def test_split_is_for_geojson(run, placed, bundle, tmp_path):
    out = tmp_path / "out"
    made = run("classify", placed, "-o", out, "--student", bundle, "--split")
    assert made.code == 0
    store, student = out / "placed.zarr", ("--student", bundle)
    target = out / "parts.geojson"
    exported = ("--to", "geojson", "-o", target, "--split")
    assert run("export", store, *exported, *student).code == 0
    for path in (out / "class_map.geojson", target):
        features = json.loads(path.read_text("utf-8"))["features"]
        assert {f["geometry"]["type"] for f in features} == {"Polygon"}
    refused = run("export", store, "--to", "csv", "-o", out / "a.csv", "--split")
    assert refused.code == 2
    assert "only GeoJSON has polygons" in refused.err
