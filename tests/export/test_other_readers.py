"""Other programs read every map that we write, where they are installed.

None of them is needed by this package: ``pip install ome-zarr ngff-zarr wsinfer
ome-zarr-models napari-ome-zarr napari-geojson tiatoolbox`` runs all of these tests.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr

from napari_histodistill.export import (
    write_class_labels,
    write_difference,
    write_geojson,
    write_similarity,
)
from napari_histodistill.layers.saved_map import saved_map
from napari_histodistill.maps import DifferenceMap, SimilarityMap
from napari_histodistill.maps.classes import ClassMap
from tests.fakes import colour_student
from tests.maps.helpers import small_grid

GRID = small_grid(height=600, width=1000)
PLACE = {"scale": [32, 32], "translation": [1015.75, 2015.75]}


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    """Every kind of Zarr that is exported, with the values in it."""
    folder, rng = tmp_path_factory.mktemp("maps"), np.random.default_rng(0)
    values = rng.uniform(0, 1, GRID.shape).astype(np.float32)
    values[0] = np.nan
    common = {"grid": GRID, "origin_um": (1000.0, 2000.0)}
    labels = rng.integers(0, 3, GRID.shape).astype(np.uint8)
    classes = ClassMap(
        labels=labels,
        confidence=np.ones(GRID.shape, np.float32),
        probabilities=np.ones((*GRID.shape, 2), np.float32),
        classes=colour_student().spec.classes,
        **common,
    )
    heat = SimilarityMap(values=values, at=(), **common)
    differs = DifferenceMap(
        values=values,
        measure="neighbours",
        names=("a", "b"),
        cells=9,
        anchors=100,
        nearest=5,
        **common,
    )
    return {
        "classes": (write_class_labels(classes, folder / "class_map.zarr"), labels),
        "similarity": (write_similarity(heat, folder / "similarity.zarr"), values),
        "difference": (write_difference(differs, folder / "difference.zarr"), values),
    }


KINDS = pytest.mark.parametrize("kind", ["classes", "similarity", "difference"])


@KINDS
def test_zarr_python(maps, kind):
    path, values = maps[kind]
    np.testing.assert_array_equal(zarr.open_array(path / "0", mode="r")[:], values)


@KINDS
def test_our_own_reader(maps, kind):
    path, values = maps[kind]
    data, kwargs, _ = saved_map(path)
    np.testing.assert_array_equal(data, values)
    assert list(kwargs["scale"]) == PLACE["scale"]
    assert list(kwargs["translate"]) == PLACE["translation"]


@KINDS
def test_ngff_zarr(maps, kind):
    ngff_zarr = pytest.importorskip("ngff_zarr", reason="ngff-zarr is not installed")
    path, values = maps[kind]
    (image,) = ngff_zarr.from_ngff_zarr(str(path)).images
    np.testing.assert_array_equal(np.asarray(image.data), values)
    assert [image.scale[a] for a in "yx"] == PLACE["scale"]
    assert [image.translation[a] for a in "yx"] == PLACE["translation"]


@KINDS
def test_ome_zarr_py(maps, kind):
    pytest.importorskip("ome_zarr", reason="ome-zarr is not installed")
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    path, values = maps[kind]
    node = next(iter(Reader(parse_url(str(path)))()))
    np.testing.assert_array_equal(np.asarray(node.data[0]), values)


@KINDS
def test_napari_ome_zarr(maps, kind):
    plugin = pytest.importorskip(
        "napari_ome_zarr", reason="napari-ome-zarr is not installed"
    )
    path, values = maps[kind]
    layers = plugin.napari_get_reader(str(path))(str(path))
    data, kwargs = layers[0][:2]
    first = data[0] if isinstance(data, list) else data
    np.testing.assert_array_equal(np.asarray(first), values)
    assert list(kwargs["scale"]) == PLACE["scale"]


@KINDS
def test_ome_zarr_models(maps, kind):
    models = pytest.importorskip(
        "ome_zarr_models.v04", reason="ome-zarr-models is not installed"
    )
    path, _ = maps[kind]
    group = zarr.open_group(path, mode="r")
    model = models.ImageLabel if kind == "classes" else models.Image
    found = model.from_zarr(group)
    assert found.attributes.multiscales[0].datasets[0].path == "0"


@pytest.fixture(scope="module")
def outlines(tmp_path_factory):
    labels = np.zeros((6, 7), np.uint8)
    labels[1:4, 1:4], labels[2, 2], labels[5, 5], labels[0, 6] = 2, 0, 2, 1
    found = ClassMap(
        labels=labels,
        confidence=np.ones(labels.shape, np.float32),
        probabilities=np.ones((*labels.shape, 2), np.float32),
        classes=colour_student().spec.classes,
        grid=small_grid(height=384, width=448),
    )
    path = tmp_path_factory.mktemp("outlines") / "map.geojson"
    return write_geojson(found, path, split=True)


def test_napari_geojson(outlines):
    plugin = pytest.importorskip(
        "napari_geojson", reason="napari-geojson is not installed"
    )
    layers = plugin.napari_get_reader(str(outlines))(str(outlines))
    shapes = [shape for data, *_ in layers for shape in data]
    assert len(shapes) == len(json.loads(outlines.read_text())["features"]) == 3


def test_tiatoolbox(outlines):
    storage = pytest.importorskip(
        "tiatoolbox.annotation.storage", reason="TIAToolbox is not installed"
    )
    store = storage.DictionaryStore.from_geojson(outlines)
    found = sorted(annotation.geometry.area for annotation in store.values())
    assert found == [64 * 64, 64 * 64, 8 * 64 * 64]


# Both load TorchScript; torch 2.14 warns that it is on its way out.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["colon-he", "colon-probe", "28 px enlarged to 32"])
def test_wsinfer(tmp_path, name):
    """Its own loading and transforms, both sides in float32: at most a thousandth."""
    models = pytest.importorskip(
        "wsinfer.modellib.models", reason="wsinfer is not installed"
    )
    import torch
    from PIL import Image
    from skimage.data import immunohistochemistry
    from wsinfer.modellib.transforms import make_compose_from_transform_config
    from wsinfer_zoo.client import ModelConfiguration

    from napari_histodistill.export import export_wsinfer
    from napari_histodistill.students import load_student
    from tests.export.test_wsinfer import made_student

    student = (
        made_student(28, 32)
        if name.startswith("28")
        else load_student(name, device="cpu:torch", precision="float32")
    )
    said = []
    folder = export_wsinfer(student, tmp_path / "model", tell=said.append)
    assert "in float32" in said[0]
    config = ModelConfiguration.from_dict(
        json.loads((folder / "config.json").read_text())
    )
    local = models.LocalModelTorchScript(
        config=config, model_path=str(folder / "torchscript_model.pt")
    )
    module = models.get_pretrained_torch_module(local).eval()
    transform = make_compose_from_transform_config(config.transform)
    px = config.patch_size_pixels
    picture = immunohistochemistry()
    tiles = np.stack(
        [picture[y : y + px, x : x + px] for y in (0, 90, 250) for x in (0, 144, 280)]
    )
    with torch.inference_mode():
        logits = module(torch.stack([transform(Image.fromarray(t)) for t in tiles]))
        theirs = torch.nn.functional.softmax(logits, dim=1).numpy()
    ours = student.classify(student.embed(tiles))
    off = float(np.abs(theirs - ours).max())
    print(f"wsinfer, {name}: {off:.1e} in {student.device.precision}")
    assert np.ptp(ours) > 0.05
    assert off <= 1e-3
