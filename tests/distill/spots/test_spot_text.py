"""Tables as the programs and countries of this world write them: the same spots."""

from __future__ import annotations

import csv
import gzip

import numpy as np
import pytest

pd = pytest.importorskip("pandas", reason="spots need the extra [spatial]")

from napari_histodistill.distill.spots.spot_columns import is_gene  # noqa: E402
from napari_histodistill.distill.spots.spot_files import read_spots  # noqa: E402
from napari_histodistill.errors import InputError  # noqa: E402

GENES = tuple(f"GENE{k}" for k in range(12))


@pytest.fixture
def table(counts, positions):
    """A data frame of 60 spots, as a person would write it."""
    frame = pd.DataFrame(counts.astype(int), columns=list(GENES))
    frame.insert(0, "y", positions[:, 0])
    frame.insert(0, "x", positions[:, 1])
    frame.insert(0, "barcode", [f"AAC{k}-1" for k in range(60)])
    return frame


def plain(table, **kwargs):
    return table.to_csv(index=False, **kwargs)


def with_row_names(table):
    """As R writes: one name fewer than fields, text quoted, spaces between."""
    head = " ".join(f'"{name}"' for name in table.columns[1:])
    rows = [
        " ".join([f'"{row[0]}"', *map(str, row[1:])])
        for row in table.itertuples(index=False)
    ]
    return "\n".join([head, *rows]) + "\n"


def trailing(table):
    lines = plain(table).splitlines()
    return "\n".join([lines[0], *(f"{line}," for line in lines[1:])])


def blank_rows(table):
    return plain(table) + "," * (len(table.columns) - 1) + "\n\n"


def grouped(table, form, **kwargs):
    """Write x with a mark between thousands: x is 1,000 times the others' here."""
    return plain(table.assign(x=[form(v * 1000) for v in table.x]), **kwargs)


def german(number):
    return f"{number:,.1f}".translate(str.maketrans(",.", ".,"))


SEMICOLONS = {"sep": ";", "decimal": ","}
WAYS = {
    "semicolons.csv": lambda t: plain(t, **SEMICOLONS),
    "tabs.csv": lambda t: plain(t, sep="\t"),
    "bars.txt": lambda t: plain(t, sep="|"),
    "commas.txt": plain,
    "decimal_commas.tsv": lambda t: plain(t, sep="\t", decimal=","),
    "quoted.csv": lambda t: plain(t, quoting=csv.QUOTE_ALL),
    "quoted_semicolons.csv": lambda t: plain(t, quoting=csv.QUOTE_ALL, **SEMICOLONS),
    "index.csv": lambda t: t.to_csv(),
    "r.txt": with_row_names,
    "sep_line.csv": lambda t: "sep=;\n" + plain(t, sep=";"),
    "comment.csv": lambda t: "# x, y of mine\n#\n" + plain(t),
    "comment_between.csv": lambda t: plain(t).replace("AAC7", "# 7\nAAC7"),
    "header_as_comment.tsv": lambda t: "# 1\n#" + plain(t, sep="\t"),
    "trailing.csv": trailing,
    "blank_rows.csv": blank_rows,
    "exponents.csv": lambda t: plain(t, float_format="%.6e"),
    "windows.csv": lambda t: plain(t).replace("\n", "\r\n"),
    "old_mac.csv": lambda t: plain(t).replace("\n", "\r"),
    "utf8_mark.csv": lambda t: plain(t).encode("utf-8-sig"),
    "utf16.csv": lambda t: plain(t).encode("utf-16"),
    "utf16_be.csv": lambda t: b"\xfe\xff" + plain(t).encode("utf-16-be"),
    "utf16_bare.csv": lambda t: plain(t).encode("utf-16-le"),
    "utf16_excel.txt": lambda t: plain(t, sep="\t", decimal=",").encode("utf-16"),
    "packed.csv.gz": lambda t: gzip.compress(plain(t).encode()),
    "packed.csv": lambda t: gzip.compress(plain(t).encode()),
}
THOUSANDS = {
    "thousands.csv": lambda t: grouped(t, "{:,.1f}".format),
    "thousands.tsv": lambda t: grouped(t, "{:,.1f}".format, sep="\t"),
    "german.csv": lambda t: grouped(t, german, **SEMICOLONS),
    "swiss.csv": lambda t: grouped(t, lambda v: f"{v:,.1f}".replace(",", "'")),
}


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", [*WAYS, *THOUSANDS])
def test_a_table_comes_back(name, tmp_path, table, counts, positions):
    content = (WAYS | THOUSANDS)[name](table)
    found = read_spots(write(tmp_path / name, content))
    factor = (1, 1000) if name in THOUSANDS else (1, 1)
    np.testing.assert_allclose(found.positions, positions * factor, rtol=1e-6)
    wanted = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    columns = [GENES.index(gene) for gene in found.genes]
    assert len(columns) == 12
    np.testing.assert_allclose(found.values, wanted[:, columns], rtol=1e-5)
    assert found.name == name.split(".")[0]


@pytest.mark.parametrize("decimals", ["%.3f", "%.1f"])
def test_three_decimals_are_no_thousands(tmp_path, table, positions, decimals):
    text = plain(table, sep=";", float_format=decimals)
    found = read_spots(write(tmp_path / "a.csv", text))
    np.testing.assert_allclose(found.positions, positions, atol=0.1)


def test_micrometres_in_latin_1(tmp_path, table):
    text = plain(table.rename(columns={"x": "x_µm", "y": "y_µm"}))
    found = read_spots(write(tmp_path / "a.csv", text.encode("latin-1")))
    assert found.unit == "µm"


QUALITY = [
    "total_counts",
    "n_genes_by_counts",
    "pct_counts_mt",
    "log1p_total_counts",
    "nCount_Spatial",
    "nFeature_RNA",
    "percent.mt",
    "cluster",
    "leiden",
    "leiden_0.5",
    "seurat_clusters",
    "cell_area",
    "nucleus_area",
    "transcript_counts",
    "control_probe_counts",
    "array_row",
    "array_col",
    "doublet_score",
    "size_factors",
    "UMAP_1",
    "PC_2",
    "cell_id",
    "fov",
    "z_level",
    "EntityID",
    "transcript_id",
    "min_x",
    "center_x",
    "CenterX_local_px",
    "x_local_px",
    "AspectRatio",
    "Mean.PanCK",
    "DAPI_raw",
    "PolyT_high_pass",
    "solidity",
    "eccentricity",
    "major_axis_length",
    "Nucleus: Area µm^2",
    "X (µm)",
    "qv",
]


@pytest.mark.parametrize("column", QUALITY)
def test_what_is_no_gene(column):
    assert not is_gene(column)
    assert not is_gene(column.upper())


@pytest.mark.parametrize(
    "gene",
    ["ID1", "COL1A1", "PCNA", "CELF1", "SPOT14", "NDRG1", "GRID1", "MAX", "MIN1"],
)
def test_genes_of_similar_names(gene):
    assert is_gene(gene)


def test_columns_of_quality_are_listed_and_left_out(tmp_path, table, counts):
    more = table.assign(
        cluster=np.arange(60) % 4,
        total_counts=counts.sum(1),
        pct_counts_mt=np.arange(60) * 0.7,
        remark="fresh",
    )
    found = read_spots(write(tmp_path / "a.csv", plain(more)))
    assert set(found.genes) == set(GENES)
    said = " ".join(found.notes)
    assert "identity were left out: cluster, total_counts, pct_counts_mt." in said
    assert "Columns of text were left out: remark." in said
    # Fractions among them do not switch the normalisation of the genes off.
    assert "Counts were scaled to 10,000 per spot" in said


def test_a_measurement_of_any_name_is_no_gene_beside_counts(tmp_path, table):
    more = table.assign(mood=np.arange(60) / 7)
    found = read_spots(write(tmp_path / "a.csv", plain(more)))
    assert set(found.genes) == set(GENES)
    said = " ".join(found.notes)
    assert "no counts, beside counts, were left out: mood." in said
    assert "Counts were scaled to 10,000 per spot" in said


def test_values_that_are_no_counts_are_all_kept(tmp_path, table):
    logs = table.assign(**{gene: np.log1p(table[gene]) for gene in GENES}, EMPTY=0)
    logs = logs.assign(WHOLE=np.arange(60) % 2)
    found = read_spots(write(tmp_path / "a.csv", plain(logs)))
    assert set(found.genes) == {*GENES, "WHOLE"}
    assert "Values are not counts and were left unchanged." in found.notes


HEADS = {
    ("Centroid X µm", "Centroid Y µm"): "µm",
    ("x (µm)", "y (µm)"): "µm",
    ("X [um]", "Y [um]"): "µm",
    ("x [px]", "y [px]"): "px",
    ("CenterX_global_px", "CenterY_global_px"): "px",
    ("center_x", "center_y"): None,
    ("xcoord", "ycoord"): None,
    ("X-Koordinate", "Y-Koordinate"): None,
}


@pytest.mark.parametrize(("names", "unit"), HEADS.items())
def test_positions_as_other_programs_call_them(tmp_path, table, positions, names, unit):
    named = table.rename(columns=dict(zip("xy", names, strict=True)))
    found = read_spots(write(tmp_path / "a.csv", plain(named)))
    np.testing.assert_allclose(found.positions, positions)
    assert found.unit == unit
    assert set(found.genes) == set(GENES)


TRANSCRIPTS = {
    "stereo.txt": "geneID\tx\ty\tMIDCount\nA\t1\t2\t3\nB\t1\t2\t1\n",
    "xenium.csv": "transcript_id,feature_name,x_location,y_location,qv\n1,A,1,2,40\n",
    "merscope.csv": ",global_x,global_y,x,y,gene\n0,1,2,3,4,A\n1,2,3,4,5,B\n",
    "cosmx.csv": "fov,x_global_px,y_global_px,target,CellComp\n1,1,2,A,Nuclear\n",
}


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_lists_of_transcripts_are_no_spots(tmp_path, name):
    with pytest.raises(InputError, match=r"lists transcripts, .* Sum them up"):
        read_spots(write(tmp_path / name, TRANSCRIPTS[name]))


def test_a_table_of_cells_without_genes(tmp_path, table):
    cells = table[["x", "y"]].rename(columns=lambda n: f"{n}_centroid")
    cells = cells.assign(transcript_counts=90, cell_area=55.2)
    words = r"no numeric column of a gene \(only transcript_counts, cell_area\)"
    with pytest.raises(InputError, match=words):
        read_spots(write(tmp_path / "cells.csv", plain(cells)))


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("name", ["tissue_positions_list.csv", "mine.csv"])
def test_positions_of_space_ranger_alone(name, header, tmp_path, table):
    names = ("in_tissue", "array_row", "array_col")
    made = table[["barcode"]].assign(**dict.fromkeys(names, 1))
    made = made.assign(pxl_row_in_fullres=table.y, pxl_col_in_fullres=table.x)
    path = write(tmp_path / name, plain(made, header=header))
    words = "positions without counts: choose filtered_feature_bc_matrix.h5 .* or the f"
    with pytest.raises(InputError, match=words):
        read_spots(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"\n \n", "it is empty"),
        (b"#\n# nothing\n", "no columns of positions|it is empty"),
        (b"1,2,3\n4,5,6\n", "there is no header"),
        (b"hello\nworld\n", "no columns of positions among hello"),
        (b"barcode,x,y,G\n", "no numeric column of a gene"),
        (bytes(range(256)), "it is not a file of text"),
        (b"PK\x03\x04\0\0", "it is not a file of text"),
        (b"x;y;G\n1,234;2,345;3\n4,567;5,678;9\n", "'1,234' may mean 1.234 or 1234"),
        (b"x;y;G\n800;2;3\n1.500;5;9\n", "'1.500' may mean 1500 or 1.5: write"),
        (b"x\ty\tG\n8\t900\t3\n5\t1.200\t9\n", "'1.200' may mean 1200 or 1.2"),
        (b"x;y;G\n1,5;2.5;3\n4,5;5.5;9\n", "'x' does not hold numbers only"),
        (b"x,y,G\n1,2\n", "row 1 has 2 fields, the header 3"),
        (b"x,y,G\n1,2,3\n1,2,3,4\n", "row 2 has 4 fields, the header 3"),
        (b'x,y,G\n1,2,"3\n1,2,3\n', "cannot be read|fields|no numeric column"),
        (b"x,y,x\n1,2,3\n", "two columns are called 'x'"),
        (b"x,y,G\n1,2,3\n1,2,4\n", "1 spots lie exactly on another"),
    ],
)
def test_tables_that_are_refused(content, words, tmp_path):
    with pytest.raises(InputError, match=words) as refused:
        read_spots(write(tmp_path / "a.csv", content))
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("a")
