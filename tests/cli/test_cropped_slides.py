"""GeoJSON lies on a slide as QuPath shows it: cropped to OpenSlide's bounds."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_histodistill.maps import EmbeddingStore
from tests.slides.formats.fake_openslide import bounds, fake_openslide

if TYPE_CHECKING:
    from pathlib import Path

Y, X = 40, 100


@pytest.fixture
def scanned(tmp_path, monkeypatch):
    """Make a slide of a fake OpenSlide, with or without bounds."""

    def make(name: str, properties: dict[str, str]) -> Path:
        monkeypatch.setitem(sys.modules, "openslide", fake_openslide(properties))
        path = tmp_path / f"{name}.mrxs"
        path.write_bytes(b"the same content")
        return path

    return make


def points(path: Path) -> np.ndarray:
    """Return all corners of a GeoJSON file, ``(n, 2)``: x and y."""
    found = []
    for feature in json.loads(path.read_text("utf-8"))["features"]:
        parts = feature["geometry"]["coordinates"]
        if feature["geometry"]["type"] == "Polygon":
            parts = [parts]
        found += [point for part in parts for ring in part for point in ring]
    return np.array(found, float)


def test_geojson_counts_from_the_bounds_and_nothing_else_does(
    run, scanned, bundle, tmp_path
):
    made = {}
    for name, properties in (("whole", {}), ("part", bounds(X, Y, 500, 400))):
        out, slide = tmp_path / name, scanned("slide", properties)
        assert run("classify", slide, "-o", out, "--student", bundle).code == 0
        store = out / "slide.zarr"
        with EmbeddingStore.open(store) as opened:
            made[name] = opened.key, opened.provenance.bounds_origin
        exported = ("--to", "geojson", "-o", out / "again.geojson", "--student", bundle)
        assert run("export", store, *exported).code == 0
        assert run("similar", store, "--at", "300,400", "-o", out).code == 0
    assert made["whole"] == (made["part"][0], None)
    assert made["part"][1] == (Y, X)
    whole, part = tmp_path / "whole", tmp_path / "part"
    for name in ("class_map.geojson", "again.geojson", "regions.geojson"):
        np.testing.assert_array_equal(
            points(part / name), points(whole / name) - (X, Y)
        )
    for name in ("areas.csv", "regions.csv", "class_map.zarr/.zattrs"):
        assert (part / name).read_bytes() == (whole / name).read_bytes()


def test_a_store_from_before_is_placed_by_the_slide(run, scanned, bundle, tmp_path):
    options = ("-o", tmp_path / "out", "--student", bundle)
    slide = scanned("slide", {})
    assert run("classify", slide, *options).code == 0
    before = points(tmp_path / "out" / "class_map.geojson")
    scanned("slide", bounds(X, Y, 500, 400))
    assert run("classify", slide, *options).code == 0
    after = points(tmp_path / "out" / "class_map.geojson")
    np.testing.assert_array_equal(after, before - (X, Y))
