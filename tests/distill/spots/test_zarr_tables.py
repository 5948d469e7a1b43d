"""AnnData and SpatialData as Zarr folders."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from napari_histodistill.distill.spots.spot_files import read_spots
from napari_histodistill.distill.spots.spot_wish import (
    SeveralLibrariesError,
    SpotWish,
)
from napari_histodistill.distill.spots.zarr_tables import read_zarr, tables_bytes
from napari_histodistill.errors import InputError

anndata = pytest.importorskip("anndata", reason="AnnData is written by its package")
pd = pytest.importorskip("pandas")

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:Consolidated metadata", "ignore:Writing zarr v2 data"
    ),
    pytest.mark.usefixtures("forked_reading"),
]

SPOTS, GENES = 30, 6


@pytest.fixture(params=[2, 3], autouse=True)
def stored_as(request):
    """Write with zarr 2 and, in shards, with zarr 3."""
    with anndata.settings.override(
        zarr_write_format=request.param, auto_shard_zarr_v3=request.param == 3
    ):
        yield request.param


def table(seed=0, *, sparse=True, **obs):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(3, (SPOTS, GENES)).astype(np.float32)
    made = anndata.AnnData(
        csr_matrix(counts) if sparse else counts,
        obs=pd.DataFrame(obs, index=[f"spot {k}" for k in range(SPOTS)]),
        var=pd.DataFrame(index=[f"gene{k}" for k in range(GENES)]),
    )
    made.obsm["spatial"] = rng.uniform(0, 1000, (SPOTS, 2))
    return made, counts


def normal(counts):
    """Return counts as students see them: per 10,000 of a spot, logarithmic."""
    return np.log1p(1e4 * counts / counts.sum(1, keepdims=True))


@pytest.mark.parametrize("sparse", [True, False])
def test_a_folder_of_anndata_is_read(tmp_path, sparse):
    tissue = pd.Categorical(["0"] * 4 + ["1"] * (SPOTS - 4))
    made, counts = table(sparse=sparse, in_tissue=tissue)
    made.uns["spatial"] = {
        "lib": {"scalefactors": {"spot_diameter_fullres": 55.0}, "images": {}}
    }
    made.write_zarr(tmp_path / "bulb.zarr")
    # A dialog for files offers what lies in the folder.
    inside = next(f for f in (tmp_path / "bulb.zarr").iterdir() if f.is_file())
    found = read_spots(inside if sparse else tmp_path / "bulb.zarr")
    assert found.name == "bulb"
    assert set(found.genes) == {f"gene{k}" for k in range(GENES)}
    order = [int(gene[4:]) for gene in found.genes]
    np.testing.assert_allclose(found.values, normal(counts)[4:, order], rtol=1e-5)
    np.testing.assert_allclose(found.positions, made.obsm["spatial"][4:, ::-1])
    assert found.unit == "px"
    assert found.spot_size == 55


def spatialdata(folder, **tables):
    """Write what SpatialData's folders are as far as they are read."""
    import zarr

    root = zarr.open_group(folder, mode="w")
    root.attrs["spatialdata_attrs"] = {"version": "0.2"}
    root.create_group("images")
    group = root.create_group("tables")
    for name, made in tables.items():
        anndata.io.write_elem(group, name, made)


def test_a_table_of_spatialdata_is_chosen_by_its_name(tmp_path):
    (one, _), (two, counts) = table(0), table(1)
    spatialdata(tmp_path / "s.zarr", left=one)
    assert read_zarr(tmp_path / "s.zarr").name == "s"
    spatialdata(tmp_path / "s.zarr", left=one, right=two)
    with pytest.raises(SeveralLibrariesError, match="2 tables") as told:
        read_zarr(tmp_path / "s.zarr")
    assert told.value.names == ("left", "right")
    found = read_zarr(tmp_path / "s.zarr", SpotWish("right"))
    assert found.name == "s right"
    np.testing.assert_array_equal(found.values.toarray(), counts)
    assert 0 < tables_bytes(tmp_path / "s.zarr") < 10**6


def test_regions_of_a_table_are_sections_that_are_never_mixed(tmp_path):
    regions = pd.Categorical(["a"] * 10 + ["b"] * (SPOTS - 10))
    made, _ = table(region=regions)
    made.uns["spatialdata_attrs"] = {"region": ["a", "b"], "region_key": "region"}
    spatialdata(tmp_path / "s.zarr", table=made)
    with pytest.raises(SeveralLibrariesError, match="2 sections"):
        read_zarr(tmp_path / "s.zarr")
    assert len(read_zarr(tmp_path / "s.zarr", SpotWish("a")).positions) == 10


def test_what_cannot_be_read_is_said(tmp_path):
    import zarr

    def refused(match):
        with pytest.raises(InputError, match=match):
            read_zarr(tmp_path / "x.zarr")

    zarr.open_group(tmp_path / "x.zarr", mode="w")
    refused("neither AnnData nor SpatialData")
    spatialdata(tmp_path / "x.zarr")
    refused("without a table")
    made, _ = table()
    del made.obsm["spatial"]
    spatialdata(tmp_path / "x.zarr", table=made)
    refused(r'no obsm\["spatial"\]')
    made, _ = table()
    made.write_zarr(tmp_path / "x.zarr")
    (tmp_path / "x.zarr" / "obs" / "link").symlink_to(tmp_path)
    refused("is a link")


def test_damage_and_claims_are_refused(tmp_path, stored_as):
    made, _ = table(sparse=False)
    made.write_zarr(tmp_path / "x.zarr")
    about = tmp_path / "x.zarr" / "X" / (".zarray" if stored_as == 2 else "zarr.json")
    good = json.loads(about.read_text())

    def refused(match, **changes):
        about.write_text(json.dumps(good | changes))
        with pytest.raises(InputError, match=match):
            read_zarr(tmp_path / "x.zarr")

    refused(r"x\.zarr", shape=[2**40, GENES])
    refused(r"x\.zarr", shape=[SPOTS, GENES + 1])
    if stored_as == 2:
        refused("pickle", filters=[{"id": "pickle"}])
        refused("chunks of", chunks=[2**20, 2**12])
    about.write_text("{")
    with pytest.raises(InputError, match=r"x\.zarr"):
        read_zarr(tmp_path / "x.zarr")
