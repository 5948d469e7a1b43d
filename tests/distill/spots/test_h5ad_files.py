"""AnnData in the layouts that people have: the same spots come out of each."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("anndata", reason="writing .h5ad needs anndata")

import h5py
import pandas as pd
from scipy import sparse

from napari_histodistill.distill.spots.h5ad_files import read_h5ad
from napari_histodistill.distill.spots.spot_files import read_spots
from napari_histodistill.distill.spots.spot_tables import check_spots, log_normalised
from napari_histodistill.distill.spots.spot_wish import SeveralLibrariesError, SpotWish
from napari_histodistill.errors import InputError

GENES = tuple(f"GENE{k}" for k in range(12))


def check(table, counts, positions):
    """Compare with what was written: log1p of counts per 10,000."""
    np.testing.assert_array_equal(table.positions, positions)
    wanted = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    columns = [GENES.index(gene) for gene in table.genes]
    np.testing.assert_allclose(table.values, wanted[:, columns], rtol=1e-5)
    assert len(table.genes) == 12


def read(path):
    return check_spots(read_h5ad(path))


def said(table):
    return " ".join(table.notes)


def as_sparse(kind):
    def change(made):
        made.X = kind(made.X)

    return change


def third_column(made):
    made.obsm["spatial"] = np.c_[made.obsm["spatial"], np.zeros(60)]


def other_key(key):
    def change(made):
        made.obsm[key] = made.obsm.pop("spatial")

    return change


def in_a_frame(made):
    found = pd.DataFrame(made.obsm["spatial"], columns=["x", "y"], index=made.obs_names)
    made.obsm["spatial"] = found


def in_obs(made):
    made.obs["x"], made.obs["y"] = made.obsm.pop("spatial").T


def raw_of_more_genes(made):
    made.raw = made.copy()
    made.X = np.log1p(made.X / made.X.sum(1, keepdims=True) * 1e4)
    made._inplace_subset_var(np.arange(5))


def raw_beside_scaled(made):
    made.raw = made.copy()
    made.X = made.X - made.X.mean(axis=0)


def only_a_layer(made):
    made.layers["counts"] = sparse.csc_matrix(made.X)
    made.X = None


def a_layer_called(name):
    def change(made):
        made.layers[name] = made.X.copy()
        made.X = np.log1p(made.X)

    return change


def in_obs_as(x, y):
    def change(made):
        made.obs[x], made.obs[y] = made.obsm.pop("spatial").T

    return change


LAYOUTS = {
    "counts of another name": (a_layer_called("X_Counts"), 'layers["X_Counts"]'),
    "three dimensions": (other_key("spatial3d"), 'obsm["spatial3d"]'),
    "MERSCOPE": (in_obs_as("center_x", "center_y"), "from obs: center_x, center_y"),
    "CosMx": (in_obs_as("CenterX_global_px", "CenterY_global_px"), "CenterX_global"),
    "CSR": (as_sparse(sparse.csr_matrix), ""),
    "CSC": (as_sparse(sparse.csc_matrix), ""),
    "CSR array": (as_sparse(sparse.csr_array), ""),
    "whole numbers": (as_sparse(lambda x: x.astype(int)), ""),
    "three columns": (third_column, "Only the first two columns"),
    "X_spatial": (other_key("X_spatial"), 'obsm["X_spatial"]'),
    "coords": (other_key("coords"), 'obsm["coords"]'),
    "a frame in obsm": (in_a_frame, ""),
    "columns of obs": (in_obs, "Positions were read from obs: x, y."),
    "raw of more genes": (raw_of_more_genes, "Counts were read from raw."),
    "raw beside scaled": (raw_beside_scaled, "Counts were read from raw."),
    "no X": (only_a_layer, 'Counts were read from layers["counts"].'),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_that_hold_the_same(layout, write_h5ad, counts, positions):
    change, words = LAYOUTS[layout]
    table = read(write_h5ad(change))
    check(table, counts, positions)
    assert words in said(table)


@pytest.mark.parametrize("compression", ["gzip", "lzf"])
def test_compressed(compression, write_h5ad, counts, positions, tmp_path):
    import anndata

    made = anndata.read_h5ad(write_h5ad(as_sparse(sparse.csr_matrix)))
    made.write_h5ad(tmp_path / "packed.h5ad", compression=compression)
    check(read(tmp_path / "packed.h5ad"), counts, positions)


def test_layouts_before_anndata_0_7(tmp_path, counts, positions):
    """Tables as compound arrays; a sparse matrix under attributes of its own."""
    with h5py.File(tmp_path / "old.h5ad", "w") as file:
        table = [(f"s{k}".encode(), k >= 10) for k in range(60)]
        file["obs"] = np.array(table, [("index", "S5"), ("in_tissue", "i8")])
        file["var"] = np.array([(g.encode(),) for g in GENES], [("index", "S9")])
        rows = [(row,) for row in positions[:, ::-1]]
        file["obsm"] = np.array(rows, [("spatial", "f8", (2,))])
        packed = sparse.csr_matrix(counts)
        for name in ("data", "indices", "indptr"):
            file[f"X/{name}"] = getattr(packed, name)
        file["X"].attrs["h5sparse_format"] = "csr"
        file["X"].attrs["h5sparse_shape"] = counts.shape
    check(read(tmp_path / "old.h5ad"), counts[10:], positions[10:])


def test_categories_of_anndata_0_7(write_h5ad, positions):
    path = write_h5ad()
    with h5py.File(path, "r+") as file:
        file["obs/in_tissue"] = (np.arange(60) >= 10).astype("i1")
        file["obs/__categories/in_tissue"] = ["FALSE", "TRUE"]
    np.testing.assert_array_equal(read(path).positions, positions[10:])


V1 = {"scalefactors": {"spot_diameter_fullres": 80.0}}
UNS = {
    "a flag beside": ({"is_single": True, "V1": V1}, ("px", None, 80)),
    "a name as text": ({"library_id": "V1"}, (None, None, None)),
    "an array": (np.zeros(3), (None, None, None)),
    "text": ("V1", (None, None, None)),
    "no library": (V1, ("px", None, 80)),
    "texts": (
        {"V1": {"scalefactors": {"microns_per_pixel": "0.5"}}},
        ("px", 0.5, None),
    ),
    "nonsense": (
        {"V1": {"scalefactors": {"microns_per_pixel": -1.0, "a": np.nan}}},
        ("px", None, None),
    ),
    "factors as an array": ({"V1": {"scalefactors": np.ones(2)}}, (None, None, None)),
    "an empty library": ({"a": {}, "V1": V1}, ("px", None, 80)),
}


@pytest.mark.parametrize("layout", UNS)
def test_scale_factors_in_any_layout(layout, write_h5ad, counts, positions):
    found, wanted = UNS[layout]
    table = read(write_h5ad(lambda made: made.uns.update(spatial=found)))
    assert (table.unit, table.um_per_px, table.spot_size) == wanted
    check(table, counts, positions)


def test_several_sections(write_h5ad, positions):
    both = {"A": V1, "B": {"scalefactors": {"spot_diameter_fullres": 60.0}}}

    def two(made):
        made.uns["spatial"] = both
        made.obs["library_id"] = pd.Categorical(["A"] * 30 + ["B"] * 30)

    def one_of_two(made):
        made.uns["spatial"] = both
        made.obs["library_id"] = "B"

    def only_in_obs(made):
        made.obs["library_id"] = ["S1"] * 30 + ["S2"] * 30

    with pytest.raises(InputError, match=r"visium.h5ad holds 2 sections \(A, B\)"):
        read(write_h5ad(two))
    assert read(write_h5ad(one_of_two)).spot_size == 60
    with pytest.raises(InputError, match=r"holds 2 sections \(S1, S2\)"):
        read(write_h5ad(only_in_obs))


@pytest.mark.parametrize(
    "column",
    [
        pd.array([False] * 10 + [True] * 50, dtype="boolean"),
        pd.array([0] * 10 + [1] * 50, dtype="Int64"),
        pd.Categorical([0] * 10 + [1] * 50),
        pd.Categorical(["FALSE"] * 10 + ["TRUE"] * 50),
        np.array([0.0] * 10 + [1.0] * 50),
    ],
)
def test_kinds_of_in_tissue(column, write_h5ad, positions):
    table = read(write_h5ad(lambda made: made.obs.insert(0, "In_Tissue", column)))
    np.testing.assert_array_equal(table.positions, positions[10:])


@pytest.mark.parametrize(
    "column",
    [
        pd.array([True] * 59 + [None], dtype="boolean"),
        pd.array([1] * 59 + [None], dtype="Int64"),
        pd.Categorical(["1"] * 59 + [None]),
        np.array([1.0] * 59 + [np.nan]),
    ],
)
def test_missing_in_tissue(column, write_h5ad):
    path = write_h5ad(lambda made: made.obs.insert(0, "in_tissue", column))
    with pytest.raises(InputError, match="'in_tissue' says '' in row 60"):
        read(path)


def test_genes_of_one_name_are_numbered(write_h5ad):
    def doubled(made):
        made.var_names = [*GENES[:-2], "GENE0", "GENE0"]

    table = read(write_h5ad(doubled))
    assert {"GENE0", "GENE0-1", "GENE0-2"} <= set(table.genes)
    assert "2 genes had the name of another and were numbered." in table.notes


def test_sections_without_values(write_h5ad):
    with pytest.raises(InputError, match="no values in X or raw; layers: none"):
        read(write_h5ad(lambda made: setattr(made, "X", None)))

    def one_column(made):
        made.obsm["spatial"] = made.obsm["spatial"][:, :1]

    with pytest.raises(InputError, match=r"is \(60, 1\); positions are"):
        read(write_h5ad(one_column))


def two_libraries(made):
    """Two sections, each with scale factors of its own, on one lattice."""
    made.obs["library_id"] = ["left"] * 40 + ["right"] * 20
    made.uns["spatial"] = {
        name: {"scalefactors": {"spot_diameter_fullres": size}}
        for name, size in (("left", 60.0), ("right", 90.0))
    }
    made.obsm["spatial"][40:] = made.obsm["spatial"][:20]
    made.var["moranI"] = np.where(np.arange(12) == 5, 0.9, np.arange(12) / 100)
    made.var["highly_variable"] = np.arange(12) < 4


def test_a_library_is_chosen_by_name_and_never_mixed(write_h5ad, counts, positions):
    path = write_h5ad(two_libraries)
    with pytest.raises(SeveralLibrariesError, match="choose one by its name") as caught:
        read_spots(path)  # through the other process
    assert caught.value.names == ("left", "right")
    table = read_spots(path, library="right")
    assert table.name == "visium right"
    assert table.spot_size == 90
    np.testing.assert_allclose(table.positions, positions[:20])
    place = [int(gene.removeprefix("GENE")) for gene in table.genes]
    np.testing.assert_allclose(
        table.values, log_normalised(counts)[40:][:, place], rtol=1e-5
    )
    assert table.origin == {"genes_by": "variance", "library": "right"}
    with pytest.raises(InputError, match="no library 'middle', only left, right"):
        read_spots(path, library="middle")


def test_libraries_without_a_word_on_their_spots_are_refused(write_h5ad):
    def change(made):
        two_libraries(made)
        del made.obs["library_id"]
        made.obsm["spatial"][40:] += 9999

    for library in ("", "left"):
        with pytest.raises(InputError, match="does not say which spot is of which"):
            read_h5ad(write_h5ad(change), SpotWish(library=library))


def test_genes_are_chosen_by_list_or_score(write_h5ad):
    path = write_h5ad(two_libraries)

    def chosen(**wish):
        said = SpotWish(library="left", **wish)
        return check_spots(read_h5ad(path, said), said)

    listed = chosen(genes=("gene7", "GENE2", "ABSENT"))
    assert listed.genes == ("GENE7", "GENE2")
    assert "Not in it: ABSENT." in " ".join(listed.notes)
    assert listed.origin == {"genes_by": "list", "library": "left"}
    best = chosen(score="moranI", most_genes=2)
    assert best.genes == ("GENE5", "GENE11")
    assert best.origin["score"] == "moranI"
    assert "highest moranI" in " ".join(best.notes)
    assert set(chosen(score="highly_variable", most_genes=4).genes) == {
        f"GENE{k}" for k in range(4)
    }
    for wish, match in (
        ({"genes": ("ACTB",)}, "none of the 1 listed genes is in it"),
        ({"score": "hvg"}, "no column 'hvg', only"),
    ):
        with pytest.raises(InputError, match=match):
            chosen(**wish)
