"""Tables of SpatialData whose rows are circles or polygons beside them.

The same positions came out of folders that spatialdata 0.7.3 wrote, with every kind of
transformation, of circles and polygons, in formats 0.1 (arrays) and 0.3 (GeoParquet).
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely

from napari_histodistill.distill.spots.spot_files import read_spots
from napari_histodistill.distill.spots.spot_tables import check_spots
from napari_histodistill.distill.spots.spot_wish import (
    SeveralLibrariesError,
    SpotWish,
)
from napari_histodistill.distill.spots.zarr_tables import read_zarr
from napari_histodistill.errors import InputError
from tests.distill.spots.test_coordinate_systems import step

anndata = pytest.importorskip("anndata", reason="AnnData is written by its package")
pd = pytest.importorskip("pandas")

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:Consolidated metadata", "ignore:Writing zarr v2 data"
    ),
    pytest.mark.usefixtures("forked_reading"),
]

ROWS = 24
RNG = np.random.default_rng(7)
CENTRES = RNG.uniform(0, 500, (ROWS, 2))
"""(x, y) of the shape of every row."""

COUNTS = RNG.poisson(4, (ROWS, 5)).astype(np.float32)
IDS = [f"cell-{k}" for k in range(ROWS)]
TO_GLOBAL = step(
    "sequence",
    "global",
    transformations=[
        step("scale", scale=[2.0, 2.0]),
        step("translation", translation=[10.0, 20.0]),
    ],
)
LAID = CENTRES[:, ::-1] * 2 + [20, 10]
"""(y, x) in ``global``."""


@pytest.fixture(params=[2, 3], autouse=True)
def stored_as(request):
    """Write tables and shapes with zarr 2 and 3."""
    with anndata.settings.override(
        zarr_write_format=request.param, auto_shard_zarr_v3=False
    ):
        yield request.param


@pytest.fixture
def folder(tmp_path, stored_as):
    """Return an empty folder of SpatialData, open."""
    import zarr

    root = zarr.open_group(tmp_path / "s.zarr", mode="w", zarr_format=stored_as)
    root.attrs["spatialdata_attrs"] = {"version": "0.1"}
    root.create_group("shapes")
    return root


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s.zarr"


def table(folder, within="tables", regions=None, ids=IDS, keys=("region", "cell_id")):
    """Write a table without positions, whose rows are of shapes."""
    regions = np.array(["cells"] * ROWS if regions is None else regions)
    obs = {keys[0]: pd.Categorical(regions), keys[1]: ids}
    made = anndata.AnnData(
        COUNTS.copy(),
        obs=pd.DataFrame(obs, index=[str(k) for k in range(ROWS)]),
        var=pd.DataFrame(index=[f"gene{k}" for k in range(5)]),
    )
    made.uns["spatialdata_attrs"] = {
        "region": sorted(set(regions)),
        "region_key": keys[0],
        "instance_key": keys[1],
    }
    group = folder.require_group(within)
    anndata.io.write_elem(group, "table", made)
    return group["table"]


def shapes(folder, made, ids=IDS, name="cells", ways=(TO_GLOBAL,), radii=None):
    """Write shapes as arrays, as format 0.1 has them; returns their group."""
    kind, coords, offsets = shapely.to_ragged_array(made)
    group = folder["shapes"].create_group(name)
    group["coords"] = coords
    for k, part in enumerate(offsets):
        group[f"offset{k}"] = part
    if radii is not None:
        group["radius"] = np.asarray(radii, float)
    anndata.io.write_elem(group, "Index", np.array(ids))
    group.attrs["spatialdata_attrs"] = {
        "geos": {"name": kind.name, "type": kind.value},
        "version": "0.1",
    }
    group.attrs["coordinateTransformations"] = list(ways)
    return group


def shuffled(made, ids=IDS):
    """Return shapes in another order than that of the rows, and some of no row."""
    order = RNG.permutation(ROWS)
    more = shapely.points([[1e6, 1e6]]) if made[0].geom_type == "Point" else made[:1]
    return [*(made[k] for k in order), *more], [*(ids[k] for k in order), "of no row"]


def squares(centres, half=1.5):
    """Return squares, whose centroid is known."""
    return [shapely.box(x - half, y - half, x + half, y + half) for x, y in centres]


@pytest.mark.parametrize("within", ["tables", "table"])
def test_circles_lie_in_global_and_say_how_large_spots_are(folder, path, within):
    made, ids = shuffled(shapely.points(CENTRES))
    shapes(folder, made, ids, radii=[27.5] * len(ids))
    table(folder, within)
    found = read_zarr(path)
    np.testing.assert_allclose(found.positions, LAID)
    np.testing.assert_array_equal(found.values, COUNTS)
    assert found.spot_size == pytest.approx(110), "the diameter, twice as large"
    assert found.unit is None
    said = "Positions are those of shapes/cells, in its system 'global'."
    assert found.notes == (said,)


def test_whole_numbers_are_ids_too(folder, path, stored_as):
    ids = [7 * k - 3 for k in range(ROWS)]
    shapes(
        folder,
        shapely.points(CENTRES)[::-1],
        ids[::-1],
        ways=[step("identity", "mine", unit="micrometer")],
        radii=np.ones(ROWS),
    )
    table(folder, ids=ids)
    found = check_spots(read_zarr(path))
    np.testing.assert_allclose(found.positions, CENTRES[:, ::-1])
    assert found.unit == "µm"
    assert found.um_per_px is None
    assert found.spot_size == 2


@pytest.mark.parametrize("several", [False, True], ids=["polygons", "multipolygons"])
def test_polygons_lie_at_their_centroid(folder, path, several):
    made, ids = shuffled(squares(CENTRES))
    if several:  # with a hole in their middle, and a second part beside them
        made = [
            shapely.MultiPolygon(
                [
                    square.difference(square.centroid.buffer(0.5)),
                    shapely.affinity.translate(square, 10, 0),
                ]
            )
            for square in made
        ]
    shapes(folder, made, ids)
    table(folder)
    found = read_zarr(path)
    expected = LAID
    if several:
        hole = shapely.Point(0, 0).buffer(0.5).area
        expected = LAID + np.array([0, 2 * 10 * 9 / (9 + 9 - hole)])
    np.testing.assert_allclose(found.positions, expected)
    assert found.spot_size is None


def test_elements_of_one_table_are_sections_that_are_never_mixed(folder, path):
    regions = ["left"] * 9 + ["right"] * (ROWS - 9)
    shapes(folder, shapely.points(CENTRES[:9]), IDS[:9], "left")
    shapes(
        folder,
        shapely.points(CENTRES[9:]),
        IDS[9:],
        "right",
        [step("identity", "global")],
    )
    table(folder, regions=regions, keys=("of which", "name"))
    with pytest.raises(SeveralLibrariesError, match="2 sections") as told:
        read_zarr(path)
    assert told.value.names == ("left", "right")
    left, right = (read_zarr(path, SpotWish(name)) for name in ("left", "right"))
    np.testing.assert_allclose(left.positions, LAID[:9])
    np.testing.assert_allclose(right.positions, CENTRES[9:, ::-1])
    np.testing.assert_array_equal(right.values, COUNTS[9:])


def test_positions_of_the_table_come_first(folder, path):
    shapes(folder, shapely.points(CENTRES))
    table(folder)
    group = folder["tables/table/obsm"]
    anndata.io.write_elem(group, "spatial", CENTRES + 1)
    np.testing.assert_allclose(read_zarr(path).positions, CENTRES[:, ::-1] + 1)


def test_what_does_not_fit_is_said(folder, path):
    def refused(match):
        with pytest.raises(InputError, match=match):
            read_zarr(path)

    made = table(folder)
    refused("is of 'cells', which is missing in shapes .empty.")
    folder.create_group("labels/cells")
    refused("is of labels/cells, not of shapes")
    shapes(folder, shapely.points(CENTRES[:-2]), IDS[:-2])
    refused("cells lacks the shapes of 2 of 24 rows .such as 'cell-22' in cell_id")
    del folder["shapes/cells"]
    shapes(folder, shapely.points(CENTRES), [*IDS[:-1], IDS[0]])
    refused("lacks the shapes of 1 of 24 rows")
    del folder["shapes/cells"]
    shapes(folder, shapely.points([*CENTRES, (0, 0)]), [*IDS, IDS[0]])
    refused("has 1 shapes with the id of another")
    del folder["shapes/cells"]
    unknown = step("byDimension", "global")
    group = shapes(folder, shapely.points(CENTRES), ways=[unknown])
    refused("shapes/cells has a transformation of the kind 'byDimension'")
    group.attrs["coordinateTransformations"] = [
        step("identity", "left"),
        step("identity", "right"),
    ]
    refused("in 2 coordinate systems .left, right., none of which is called 'global'")
    del made["obs/cell_id"]
    group.attrs["coordinateTransformations"] = [TO_GLOBAL]
    refused("obs has no column 'cell_id', which says which shape a row is of")
    del made["obs/region"]
    refused("no column of obs that says of which shapes its rows are .'region'.")


def test_damaged_arrays_are_refused(folder, path):
    def refused(match, **changes):
        group = shapes(folder, squares(CENTRES))
        for name, content in changes.items():
            if name in group:
                del group[name]
            if content is not None:
                group[name] = content
        with pytest.raises(InputError, match=match):
            read_zarr(path)
        del folder["shapes/cells"]

    table(folder)
    ends = np.arange(ROWS + 1)
    refused("offset0 does not fit", offset0=5 * ends + 1)
    refused("offset0 does not fit", offset0=5 * ends[::-1])
    refused("offset1 does not fit", offset1=np.r_[0, 2**40, ends[2:]])
    refused("offset1 does not hold plain numbers", offset1=None)
    refused("coords are not", coords=np.zeros(10))
    refused("more or fewer ids", Index=np.arange(3))
    group = shapes(folder, [shapely.LineString([c, c + 1]) for c in CENTRES])
    with pytest.raises(InputError, match="holds 'LINESTRING'"):
        read_zarr(path)
    for name in list(group):
        del group[name]
    with pytest.raises(InputError, match=r"neither shapes\.parquet nor coords"):
        read_zarr(path)


def geoparquet(path, made, index=None, encoding="WKB", **columns):
    """Write shapes as geopandas does: well-known binary, and pandas's index."""
    import pyarrow as pa
    from pyarrow import parquet

    frame = {"geometry": list(shapely.to_wkb(made)), **columns}
    said = {"kind": "range", "name": None, "start": 5, "stop": 5 + ROWS, "step": 1}
    if index is not None:
        frame["__index_level_0__"], said = index, "__index_level_0__"
    about = {
        "pandas": {"index_columns": [said]},
        "geo": {
            "primary_column": "geometry",
            "columns": {"geometry": {"encoding": encoding}},
        },
    }
    metadata = {key: json.dumps(value) for key, value in about.items()}
    parquet.write_table(pa.table(frame).replace_schema_metadata(metadata), path)


@pytest.fixture
def parquet(folder, path):
    """Return where shapes lie as format 0.2 has them."""
    group = folder["shapes"].create_group("cells")
    group.attrs["coordinateTransformations"] = [TO_GLOBAL]
    return path / "shapes" / "cells" / "shapes.parquet"


def test_shapes_as_geoparquet(folder, path, parquet):
    table(folder)
    made, ids = shuffled(shapely.points(CENTRES))
    geoparquet(parquet, made, ids, radius=[3.0] * len(ids))
    found = read_spots(path)  # by another process
    np.testing.assert_allclose(found.positions, LAID)
    assert found.spot_size == pytest.approx(12)
    geoparquet(parquet, *shuffled(squares(CENTRES)))
    found = read_zarr(path)
    np.testing.assert_allclose(found.positions, LAID)
    assert found.spot_size is None
    # An index that is counted up is not in the table itself.
    table(folder, ids=np.arange(5, 5 + ROWS)[::-1])
    geoparquet(parquet, squares(CENTRES))
    np.testing.assert_allclose(read_zarr(path).positions, LAID[::-1])


def test_what_is_no_geoparquet_is_said(folder, path, parquet):
    table(folder)

    def refused(match):
        with pytest.raises(InputError, match=match):
            read_zarr(path)

    geoparquet(parquet, squares(CENTRES), IDS, encoding="point")
    refused("does not hold shapes as well-known binary .point.")
    parquet.write_bytes(parquet.read_bytes()[:-40])
    refused(r"shapes\.parquet cannot be read as \.parquet")
    geoparquet(parquet, [None, *squares(CENTRES)[1:]], IDS)
    with pytest.raises(InputError, match="1 of 24 spots have no position"):
        check_spots(read_zarr(path))


def test_without_pyarrow_it_is_said_what_to_install(folder, path, parquet, monkeypatch):
    import sys

    table(folder)
    parquet.write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    match = r"shapes\.parquet: reading \.parquet needs pyarrow: pip .*\[spatial\]"
    with pytest.raises(InputError, match=match):
        read_zarr(path)
