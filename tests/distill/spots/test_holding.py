"""Which files and folders hold spots, so that nobody has to say so."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.distill.spots.spot_files import holds_spots, read_spots
from napari_histodistill.errors import InputError

pytestmark = pytest.mark.filterwarnings(
    "ignore:Consolidated metadata", "ignore:Writing zarr v2 data"
)


def touch(folder, *names):
    """Make empty files; a name that ends in / is a folder."""
    for name in names:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.mkdir() if name.endswith("/") else place.touch()


SPACE_RANGER = {
    "the matrix beside spatial": ("filtered_feature_bc_matrix.h5", "spatial/"),
    "the raw matrix": ("raw_feature_bc_matrix.h5", "spatial/"),
    "a sample's name in front": ("V1_filtered_feature_bc_matrix.h5", "spatial/"),
    "outs inside": ("outs/filtered_feature_bc_matrix.h5", "outs/spatial/"),
    "squares of Visium HD": ("binned_outputs/square_008um/", "spatial/"),
}


@pytest.mark.parametrize("names", SPACE_RANGER.values(), ids=SPACE_RANGER)
def test_space_rangers_folders_hold_spots(tmp_path, names):
    assert not holds_spots(tmp_path)
    touch(tmp_path, *names)
    assert holds_spots(tmp_path)


def test_the_folder_spatial_stands_for_the_one_above(tmp_path):
    touch(tmp_path, "filtered_feature_bc_matrix.h5", "spatial/")
    assert holds_spots(tmp_path / "spatial")


@pytest.mark.parametrize("cells", ["cells.csv.gz", "cells.csv", "cells.parquet"])
def test_xeniums_folder_holds_spots(tmp_path, cells):
    touch(tmp_path, "morphology.ome.tif", cells)
    assert not holds_spots(tmp_path)
    touch(tmp_path, "cell_feature_matrix.h5")
    assert holds_spots(tmp_path)


def test_a_machine_that_is_not_read_is_named_and_not_taken_for_an_image(tmp_path):
    touch(tmp_path, "cell_by_gene.csv")
    assert holds_spots(tmp_path)
    with pytest.raises(InputError, match="is of MERSCOPE"):
        read_spots(tmp_path)


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("a.h5ad", True),
        ("a.CSV.gz", True),
        ("a.ome.tif", False),
        ("a.svs", False),
        ("a.png", False),
    ],
)
def test_files_are_known_by_their_names(tmp_path, name, held):
    touch(tmp_path, name)
    assert holds_spots(tmp_path / name) is held


@pytest.fixture(params=[2, 3])
def root(request, tmp_path):
    """Return an empty Zarr group on disk."""
    import zarr

    return zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=request.param)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.zarr"


def image(group, **attributes):
    """Make a group an OME-Zarr image, as far as its attributes go."""
    group["0"] = np.zeros((3, 8, 8), np.uint8)
    found = {"multiscales": [{"datasets": [{"path": "0"}]}], **attributes}
    new = group.metadata.zarr_format == 3
    group.attrs.update({"ome": found} if new else found)


def test_anndata_as_zarr_holds_spots(root, path):
    root.attrs["encoding-type"] = "anndata"
    root.create_group("obs")
    assert holds_spots(path)
    inside = next(p for p in path.iterdir() if p.is_file())
    assert holds_spots(inside), "where only files can be chosen"


@pytest.mark.parametrize("within", ["tables/cells", "table/table"])
def test_spatialdata_holds_spots_also_beside_images(root, path, within):
    root.attrs["spatialdata_attrs"] = {"version": "0.2"}
    image(root.create_group("images/he"))
    assert not holds_spots(path), "there is no table yet"
    root.create_group(f"{within}/obs")
    assert holds_spots(path)


def test_an_image_with_labels_holds_no_spots(root, path):
    image(root)
    image(root.create_group("labels/cells"), **{"image-label": {}})
    assert not holds_spots(path)


@pytest.mark.parametrize("kind", ["multiscales", "plate", "bioformats2raw.layout"])
def test_tables_of_regions_inside_an_image_make_no_spots_of_it(root, path, kind):
    if kind == "multiscales":
        image(root)
    else:
        new = root.metadata.zarr_format == 3
        root.attrs.update({"ome": {kind: {}}} if new else {kind: {}})
    root.create_group("tables/FOV_ROI_table/obs")
    assert not holds_spots(path)


def test_a_damaged_zarr_is_left_to_those_who_open_it(root, path):
    root.create_group("obs")
    for file in (".zgroup", "zarr.json"):
        if (path / file).exists():
            (path / file).write_text("{torn")
    assert not holds_spots(path)
