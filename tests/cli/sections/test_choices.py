"""What is chosen of a partner: a library, genes, stain vectors; as options and columns.

The same choices as in the window, kept with the pairs.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from napari_histodistill.distill.pairs.store import read_pairs
from tests.distill.sections.conftest import SIDE, section_files

__all__ = ["section_files"]

GENES = [f"GENE{k}" for k in range(12)]
SCORES = np.array([5, 11, 1, 0, 7, 2, 3, 10, 4, 8, 6, 9.0])
TYPICAL = ("0.65", "0.70", "0.29", "0.27", "0.57", "0.78")
"""Haematoxylin and DAB."""


@pytest.fixture(scope="module")
def spots(tmp_path_factory):
    """Two libraries of one file, both on the H&E; one has ten times the counts."""
    anndata = pytest.importorskip("anndata", reason="AnnData is written by its package")
    step = SIDE / 8
    places = np.stack(np.mgrid[:8, :8], -1).reshape(-1, 2)[:, ::-1] * step + step / 2
    expected = np.tile(np.linspace(10, 200, 12), (128, 1))
    expected[::2, 3] *= 8
    expected[64:] *= 10
    made = anndata.AnnData(np.random.default_rng(0).poisson(expected).astype("f4"))
    made.var_names = GENES
    made.var["moranI"] = SCORES
    made.obs["library_id"] = ["left"] * 64 + ["right"] * 64
    made.obsm["spatial"] = np.r_[places, places]
    path = tmp_path_factory.mktemp("spots") / "two.h5ad"
    made.write_h5ad(path)
    return path


@pytest.fixture
def pairs(run, section_files, tmp_path):
    """Return a function that runs ``pairs`` on the H&E, and where its pairs lie."""

    def call(partner, *options):
        out = tmp_path / "pairs.zarr"
        found = run(
            *("pairs", section_files.he, partner, "-o", out, "--json"),
            *("--tile-px", 32, "--min-tissue", 0, *options),
        )
        return found, out

    return call


def refused(found, out, said):
    assert found.code == 2, found.err
    last = found.err.strip().splitlines()[-1]
    assert said in last
    assert not found.out
    assert not out.exists()


def partner_of(out):
    """Return what the pairs keep of their partner."""
    meta = json.loads((out / "zarr.json").read_text("utf-8"))["attributes"]
    (partner,) = meta["histodistill"]["partners"]
    return partner


def test_a_library_is_chosen_by_its_name(pairs, spots):
    said = ("--partner-mpp", 0.5)
    refused(*pairs(spots, *said), "(left, right): choose one by its name")
    refused(*pairs(spots, *said), "say --library NAME")
    refused(*pairs(spots, *said, "--library", "up"), "has no library 'up', only left")
    found, out = pairs(spots, *said, "--library", "right")
    assert found.code == 0, found.err
    kept = {"genes_by": "variance", "library": "right"}
    assert partner_of(out)["origin"] == kept
    assert found.json["partners"][0]["origin"] == kept
    assert len(read_pairs(out)) == found.json["pairs"] > 10


def test_align_reads_the_library_that_is_named(run, section_files, spots, tmp_path):
    out = tmp_path / "t.json"
    command = (
        *("align", section_files.he, spots, "-o", out, "--partner-mpp", 0.5),
        "--in-register",
    )
    refused(run(*command), out, "say --library NAME")
    found = run(*command, "--library", "left")
    assert found.code == 0, found.err
    assert out.exists()


@pytest.mark.parametrize(
    ("options", "genes", "rule"),
    [
        (("--genes", "GENE7, gene1"), ["GENE7", "GENE1"], {"genes_by": "list"}),
        (("--genes", "FILE"), ["GENE2", "GENE9"], {"genes_by": "list"}),
        (
            ("--gene-score", "moranI", "--most-genes", 3),
            ["GENE1", "GENE7", "GENE11"],
            {"genes_by": "score", "score": "moranI"},
        ),
        (("--most-genes", 1), ["GENE3"], {"genes_by": "variance"}),
    ],
)
def test_genes_are_chosen(pairs, spots, tmp_path, options, genes, rule):
    (tmp_path / "genes.txt").write_text("GENE2\nGENE9\n")
    options = [tmp_path / "genes.txt" if x == "FILE" else x for x in options]
    found, out = pairs(spots, "--partner-mpp", 0.5, "--library", "left", *options)
    assert found.code == 0, found.err
    kept = partner_of(out)
    assert kept["names"] == found.json["partners"][0]["names"] == genes
    assert kept["origin"] == rule | {"library": "left"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--genes", "NOPE"), "none of the 1 listed genes is in it"),
        (("--genes", " , "), "names no gene"),
        (("--genes", "none.txt"), "none.txt cannot be read as a list of genes"),
        (("--gene-score", "moran"), "moran"),
        (("--genes", "GENE1", "--gene-score", "moranI"), "--genes and --gene-score"),
        (("--genes", "GENE1", "--most-genes", 3), "--genes and --most-genes"),
        (("--most-genes", 0), "--most-genes"),
        (("--stain-vectors", *TYPICAL), "is read as spots, where no stains"),
    ],
)
def test_a_choice_that_spots_do_not_bear_is_refused(pairs, spots, options, said):
    refused(*pairs(spots, "--partner-mpp", 0.5, "--library", "left", *options), said)


def test_stain_vectors_are_measured_or_given_and_printed(pairs, section_files):
    ihc = section_files.home / "ihc.ome.tif"
    marker = ("--in-register", "--as", "marker")
    found, out = pairs(ihc, *marker)
    assert found.code == 0, found.err
    (measured,) = found.json["sections"][0]["stains"]
    assert measured["origin"] == "measured"
    before = read_pairs(out).partner("marker", "channels")[:].astype(int)
    out.rename(out.with_name("measured.zarr"))
    found, out = pairs(ihc, *marker, "--stain-vectors", *TYPICAL)
    assert found.code == 0, found.err
    (given,) = found.json["sections"][0]["stains"]
    assert given["partner"] == "marker"
    assert given["haematoxylin"] == [0.65, 0.70, 0.29]
    assert given["marker"] == [0.27, 0.57, 0.78]
    assert given["glass"] == measured["glass"]
    kept = partner_of(out)["origin"]["stains"]
    assert kept == {key: given[key] for key in kept}
    assert kept["origin"] == "given"
    after = read_pairs(out).partner("marker", "channels")[:].astype(int)
    assert np.abs(after - before).max() > 5, "other vectors, other amounts"


def test_the_vectors_that_were_used_are_said_to_people(run, section_files, tmp_path):
    ihc, out = section_files.home / "ihc.ome.tif", tmp_path / "pairs.zarr"
    found = run(
        *("pairs", section_files.he, ihc, "-o", out, "--in-register", "--as", "both"),
        *("--tile-px", 32, "--stain-vectors", *TYPICAL),
    )
    assert found.code == 0, found.err
    said = "marker: haematoxylin 0.65 0.70 0.29, marker 0.27 0.57 0.78 (given)"
    assert said in found.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--as", "image", "--stain-vectors", *TYPICAL), "say --as marker"),
        (("--as", "marker", "--stain-vectors", *TYPICAL[:5]), "--stain-vectors"),
        (("--as", "marker", "--stain-vectors", *"abcdef"), "--stain-vectors"),
        (("--as", "marker", "--stain-vectors", *"111111"), "stain vectors are alike"),
        (("--as", "marker", "--stain-vectors", *"000123"), "stain vectors are alike"),
        (("--as", "marker", "--stain-vectors", "nan", *"00123"), "or empty"),
        (("--as", "image", "--library", "left"), "leave out --library"),
        (("--as", "image", "--most-genes", 5), "leave out --library, --genes"),
    ],
)
def test_a_choice_that_an_image_does_not_bear_is_refused(
    pairs, section_files, options, said
):
    ihc = section_files.home / "ihc.ome.tif"
    refused(*pairs(ihc, "--in-register", *options), said)


@pytest.fixture
def table(run, section_files, spots, tmp_path):
    """Return a function that runs ``pairs`` on a table; words stand for the files."""
    (tmp_path / "genes.txt").write_text("GENE5\nGENE4\n")
    words = {
        "HE": str(section_files.he),
        "SPOTS": str(spots),
        "IHC": str(section_files.home / "ihc.ome.tif"),
    }

    def call(*rows, options=()):
        path, out = tmp_path / "sections.csv", tmp_path / "pairs.zarr"
        rows = [[words.get(word, word) for word in row.split(",")] for row in rows]
        path.write_text("\n".join(map(",".join, rows)) + "\n", "utf-8")
        found = run(
            *("pairs", path, "-o", out, "--json", "--tile-px", 32, "--min-tissue", 0),
            *options,
        )
        return found, out

    return call


def test_a_table_chooses_for_each_section(table):
    header = "he,partner,partner_mpp,library,genes,gene_score,most_genes"
    found, out = table(header, "HE,SPOTS,0.5,left,genes.txt,,", "HE,SPOTS,0.5,right,,,")
    assert found.code == 0, found.err
    kept = partner_of(out)
    assert kept["names"] == ["GENE5", "GENE4"], "what both sections have"
    assert kept["origin"] == {"genes_by": "list", "library": "left"}


def test_a_row_says_otherwise_than_the_options(table):
    header = "he,partner,partner_mpp,library,gene_score,most_genes"
    said = ("--genes", "GENE0,GENE8", "--library", "left")
    found, out = table(header, "HE,SPOTS,0.5,,,", options=said)
    assert found.code == 0, found.err
    assert partner_of(out)["names"] == ["GENE0", "GENE8"]
    (out / "zarr.json").rename(out / "moved")
    out.rename(out.with_name("first.zarr"))
    found, out = table(header, "HE,SPOTS,0.5,right,moranI,2", options=said)
    assert found.code == 0, found.err
    kept = partner_of(out)
    assert kept["names"] == ["GENE1", "GENE7"]
    assert kept["origin"]["library"] == "right"


def test_a_table_gives_stain_vectors(table):
    header = "he,partner,as,in_register,stain_vectors"
    found, out = table(header, f"HE,IHC,marker,yes,{' '.join(TYPICAL)}")
    assert found.code == 0, found.err
    assert partner_of(out)["origin"]["stains"]["marker"] == [0.27, 0.57, 0.78]


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("library", "", "row 2: two.h5ad holds 2 sections (left, right)"),
        ("most_genes", "some", "row 2: most_genes is 'some', not a number above 0"),
        ("most_genes", "1.5", "row 2: most_genes is 1.5, not a whole number"),
        ("genes", "none.txt", "row 2: none.txt cannot be read as a list of genes"),
        ("genes", ";", "row 2: ';' names no gene"),
        ("stain_vectors", "0.1 0.2", "row 2: stain_vectors is '0.1 0.2', not six"),
        ("stain_vectors", "1 0 0 0 1 x", "row 2: stain_vectors is '1 0 0 0 1 x', not"),
    ],
)
def test_a_bad_choice_in_a_table_is_named_with_its_row(table, column, value, said):
    found, out = table(f"he,partner,partner_mpp,{column}", f"HE,SPOTS,0.5,{value}")
    refused(found, out, said)


@pytest.mark.filterwarnings("ignore:Consolidated metadata", "ignore:Writing zarr v2")
def test_a_folder_of_spots_needs_no_word_of_what_it_is(pairs, spots):
    import anndata

    folder = spots.with_suffix(".zarr")
    anndata.read_h5ad(spots).write_zarr(folder)
    found, out = pairs(folder, "--partner-mpp", 0.5, "--library", "left")
    assert found.code == 0, found.err
    assert partner_of(out)["kind"] == "expression"


def test_an_image_as_zarr_is_no_table(pairs, tmp_path):
    import zarr

    image = zarr.open_group(tmp_path / "image.zarr", mode="w", zarr_format=2)
    channels = np.random.default_rng(0).integers(0, 4000, (2, SIDE, SIDE), np.uint16)
    image["0"] = channels
    axes = [{"name": "c"}] + [
        {"name": name, "type": "space", "unit": "micrometer"} for name in "yx"
    ]
    scale = {"type": "scale", "scale": [1, 0.5, 0.5]}
    levels = [{"path": "0", "coordinateTransformations": [scale]}]
    image.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": levels}]
    found, out = pairs(tmp_path / "image.zarr", "--in-register")
    assert found.code == 0, found.err
    assert partner_of(out)["kind"] == "channels"


def test_a_folder_of_xenium_lies_on_the_he(pairs, spots, tmp_path):
    import anndata
    import h5py
    import pandas as pd
    from scipy.sparse import csr_matrix

    known = anndata.read_h5ad(spots)[:64]
    home, ids = tmp_path / "xenium", [f"cell-{k}" for k in range(64)]
    home.mkdir()
    packed = csr_matrix(known.X)
    with h5py.File(home / "cell_feature_matrix.h5", "w") as file:
        matrix = file.create_group("matrix")
        matrix["barcodes"] = np.array(ids, "S")
        matrix["features/name"] = np.array(GENES, "S")
        matrix["shape"] = np.array([12, 64], "i4")
        for part in ("data", "indices", "indptr"):
            matrix[part] = getattr(packed, part)
    x_um, y_um = known.obsm["spatial"].T / 2
    cells = pd.DataFrame({"cell_id": ids, "x_centroid": x_um, "y_centroid": y_um})
    cells.to_csv(home / "cells.csv.gz", index=False)
    cells.to_parquet(home / "cells.parquet")
    found, out = pairs(home, "--genes", "GENE3,GENE4")
    assert found.code == 0, found.err
    kept = partner_of(out)
    assert (kept["kind"], kept["names"]) == ("expression", ["GENE3", "GENE4"])
    assert "µm on Xenium's own image" in found.err
