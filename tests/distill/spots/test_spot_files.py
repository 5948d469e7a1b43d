"""Spots from files: back as written, normalised as stated, hostile ones refused."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.distill.spots.h5ad_files import read_h5ad
from napari_histodistill.distill.spots.spot_files import read_spots
from napari_histodistill.distill.spots.spot_tables import (
    are_counts,
    check_overlap,
    log_normalised,
    place_spots,
    residual_variance,
)
from napari_histodistill.errors import InputError

pytestmark = pytest.mark.usefixtures("forked_reading")

GENES = tuple(f"GENE{k}" for k in range(12))


@pytest.fixture
def write_table(tmp_path, counts, positions):
    def write(
        y="pxl_row_in_fullres",
        x="pxl_col_in_fullres",
        name="spots.csv",
        edit=lambda rows: rows,
    ):
        comma = "," if name.endswith("csv") else "\t"
        rows = [["barcode", y, x, "in_tissue", *GENES]]
        for k, (place, row) in enumerate(zip(positions, counts, strict=True)):
            rows.append([f"AAC{k}-1", *map(str, place), "1", *map(str, row)])
        lines = [comma.join(row) for row in edit(rows)]
        (tmp_path / name).write_text("\n".join(lines) + "\n", "utf-8")
        return tmp_path / name

    return write


def normalised(counts):
    return np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)


def test_counts_are_scaled_to_ten_thousand_per_spot():
    found = log_normalised(np.array([[1, 3, 0], [0, 0, 0]]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(
        found, [[np.log(2501), np.log(7501), 0], [0, 0, 0]], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("values", "counts"),
    [([0, 3], True), ([0.0, 3.0], True), ([0.5, 3], False), ([-1, 3], False)],
)
def test_only_whole_numbers_from_0_are_counts(values, counts):
    assert are_counts(np.array([values])) is counts


def check_values(table, counts):
    columns = [GENES.index(gene) for gene in table.genes]
    np.testing.assert_allclose(table.values, normalised(counts)[:, columns], rtol=1e-5)
    assert set(table.genes[:2]) == {"GENE3", "GENE7"}


def test_an_h5ad_comes_back(write_h5ad, counts, positions):
    def visium(made):
        factors = {"spot_diameter_fullres": 110.0, "tissue_hires_scalef": 0.1}
        made.uns["spatial"] = {"section": {"scalefactors": factors}}

    table = read_spots(write_h5ad(visium))
    assert table.name == "visium"
    np.testing.assert_array_equal(table.positions, positions)
    check_values(table, counts)
    assert (table.unit, table.um_per_px, table.spot_size) == ("px", None, 110)
    with pytest.raises(InputError, match="say of which image"):
        place_spots(table)
    placed = place_spots(table, um_per_px=0.5)
    np.testing.assert_allclose(placed.positions_um, positions / 2)
    assert placed.genes == table.genes


def test_an_h5ad_that_says_its_scale_or_nothing(write_h5ad, positions):
    def scaled(made):
        made.uns["spatial"] = {"a": {"scalefactors": {"microns_per_pixel": 0.25}}}

    placed = place_spots(read_spots(write_h5ad(scaled)))
    np.testing.assert_allclose(placed.positions_um, positions / 4)
    silent = read_spots(write_h5ad())
    assert silent.unit is None
    with pytest.raises(InputError, match="pixels or µm: choose one"):
        place_spots(silent)
    np.testing.assert_allclose(place_spots(silent, "µm").positions_um, positions)


def test_raw_counts_go_before_what_was_made_of_them(write_h5ad, counts):
    from scipy.sparse import csr_matrix

    def scaled(made):
        made.layers["counts"] = csr_matrix(made.X)
        made.X = made.X - made.X.mean(axis=0)

    check_values(read_spots(write_h5ad(scaled)), counts)

    def off_tissue(made):
        made.obs["in_tissue"] = [0] * 10 + [1] * 50

    table = read_spots(write_h5ad(off_tissue))
    assert len(table.positions) == 50
    assert any("10 spots outside the tissue" in note for note in table.notes)


@pytest.mark.parametrize(
    ("y", "x", "unit"),
    [
        ("pxl_row_in_fullres", "pxl_col_in_fullres", "px"),
        ("y_um", "x_um", "µm"),
        ("Y", "X", None),
    ],
)
@pytest.mark.parametrize("name", ["spots.csv", "spots.tsv"])
def test_a_table_comes_back(write_table, counts, positions, y, x, unit, name):
    table = read_spots(write_table(y, x, name))
    assert table.unit == unit
    np.testing.assert_array_equal(table.positions, positions)
    check_values(table, counts)
    assert "in_tissue" not in table.genes
    assert not any("barcode" in gene for gene in table.genes)


def add_columns(**more):
    """Return an edit that adds columns, told by the number of the row."""

    def edit(table):
        for name, told in more.items():
            for k, row in enumerate(table):
                row.append(name if k == 0 else str(told(k - 1)))
        return table

    return edit


def test_positions_are_never_genes(write_table, positions):
    more = {
        "imagerow": lambda k: round(positions[k, 0] * 4),
        "imagecol": lambda k: round(positions[k, 1] * 4),
        "Y": lambda k: 97 * k % 60,
        "x": lambda k: k * k,
    }
    table = read_spots(write_table(edit=add_columns(**more)))
    assert set(table.genes) == set(GENES)
    assert table.unit == "px"
    np.testing.assert_array_equal(table.positions, positions)
    said = "Further columns of positions were left out: imagerow, imagecol, Y, x."
    assert said in table.notes


@pytest.mark.parametrize(
    ("on", "off"), [("TRUE", "FALSE"), ("True", "False"), ("1", "0"), ("1.0", "0.0")]
)
def test_spots_off_tissue_are_left_out_however_that_is_written(
    write_table, positions, on, off
):
    def edit(table):
        return column(3, off, *range(1, 21))(column(3, on)(table))

    table = read_spots(write_table(edit=edit))
    np.testing.assert_array_equal(table.positions, positions[20:])
    assert any("20 spots outside the tissue" in note for note in table.notes)
    assert "in_tissue" not in table.genes


@pytest.mark.parametrize("sort", ["bool", "str", "category"])
def test_an_h5ad_may_say_in_words_what_is_off_tissue(write_h5ad, sort):
    def off_tissue(made):
        said = np.arange(60) >= 10
        words = said if sort == "bool" else np.where(said, "TRUE", "FALSE")
        made.obs["in_tissue"] = words
        made.obs["in_tissue"] = made.obs["in_tissue"].astype(sort)

    table = read_spots(write_h5ad(off_tissue))
    assert len(table.positions) == 50
    assert any("10 spots outside the tissue" in note for note in table.notes)


def test_an_h5ad_that_does_not_say_what_is_on_tissue(write_h5ad):
    def unclear(made):
        made.obs["in_tissue"] = ["TRUE"] * 59 + ["perhaps"]

    words = r"visium.h5ad: the column 'in_tissue' says 'perhaps' in row 60: write 1"
    with pytest.raises(InputError, match=words):
        read_spots(write_h5ad(unclear))


def test_what_varies_most_is_kept_and_said(write_table, counts):
    table = read_spots(write_table(), most_genes=2)
    assert set(table.genes) == {"GENE3", "GENE7"}
    assert table.values.shape == (60, 2)
    assert "The 2 most variable of 12 genes are kept." in table.notes
    assert any("scaled to 10,000 per spot" in note for note in table.notes)
    spread = residual_variance(counts)
    quiet = [k for k in range(12) if k not in (3, 7)]
    # Beyond counting nothing varies but the totals that two genes upset.
    assert spread[[3, 7]].min() > 5 * spread[quiet].max()
    poisson = np.random.default_rng(0).poisson(9, (3000, 5)).astype(np.float32)
    np.testing.assert_allclose(residual_variance(poisson), 0.8, atol=0.15)


def column(k, value, *rows):
    def edit(table):
        for row in rows or range(1, len(table)):
            table[row][k] = value
        return table

    return edit


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (
            lambda t: [[c for k, c in enumerate(r) if k != 1] for r in t],
            "no columns of",
        ),
        (column(1, "", 5), "1 of 60 spots have no position .the first is row 5"),
        (column(1, "nan", 5, 6), "2 of 60 spots have no position"),
        (column(1, "left", 5), "'pxl_row_in_fullres' does not hold numbers"),
        (column(3, "yes", 5), "'in_tissue' says 'yes' in row 5: write 1 or 0, TRUE"),
        (column(3, "", 2), "'in_tissue' says '' in row 2"),
        (column(6, "-1", 9), "negative values"),
        (column(6, "", 9), "a value is missing"),
        (lambda t: [*t, t[7]], "1 spots lie exactly on another .as row 7"),
        (lambda t: [r[:4] for r in t], "no numeric column of a gene: every gene"),
        (lambda t: [*t[:4], t[4][:-2]], "row 4 has 14 fields, the header 16"),
        (lambda t: t[:1], "no numeric column"),
        (lambda t: [], "cannot be read as a table"),
        (lambda t: [[*t[0][:-1], "GENE0"], *t[1:]], "two columns are called 'GENE0'"),
        (lambda t: [t[0]] + [r[:4] + ["3"] * 12 for r in t[1:]], "no gene varies"),
        (lambda t: [t[0]] + [r[:4] + ["0"] * 12 for r in t[1:]], "every count is 0"),
    ],
)
def test_tables_that_cannot_be_used(write_table, edit, words):
    with pytest.raises(InputError, match=words) as refused:
        read_spots(write_table(edit=edit))
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("spots")


def test_h5ads_that_cannot_be_used(write_h5ad, tmp_path):
    def without(made):
        del made.obsm["spatial"]
        made.obsm["X_pca"] = np.zeros((60, 3))

    def flat(made):
        made.obsm["spatial"] = np.zeros((60, 1))

    def many(made):
        made.uns["spatial"] = {"a": {"scalefactors": {}}, "b": {"scalefactors": {}}}

    for change, words in (
        (without, r"obsm has 'X_pca'"),
        (flat, r"is \(60, 1\); positions are"),
        (many, "holds 2 sections"),
    ):
        with pytest.raises(InputError, match=words):
            read_spots(write_h5ad(change))
    (tmp_path / "no.h5ad").write_bytes(b"not a file of any kind")
    with pytest.raises(InputError, match=r"no.h5ad cannot be read as .h5ad"):
        read_spots(tmp_path / "no.h5ad")
    with pytest.raises(InputError, match="there is no such file"):
        read_spots(tmp_path / "none.h5ad")
    with pytest.raises(InputError, match=r"spots come from \.h5ad, \.h5, \.csv"):
        read_spots(tmp_path / "spots.xlsx")


@pytest.mark.parametrize(("module", "name"), [("h5py", "a.h5ad"), ("pandas", "a.csv")])
def test_without_the_extra_it_is_named(module, name, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    (tmp_path / name).write_bytes(b"x,y")
    read = read_h5ad if module == "h5py" else read_spots
    with pytest.raises(InputError, match=r"napari-histodistill\[spatial\]"):
        read(tmp_path / name)


def test_spots_off_the_slide_are_refused(write_table):
    spots = place_spots(read_spots(write_table()), um_per_px=1.0)
    check_overlap(spots, (400, 400), "H&E")
    far = place_spots(read_spots(write_table()), um_per_px=400.0)
    with pytest.raises(InputError, match="none of the 60 spots of spots lies on H&E"):
        check_overlap(far, (400, 400), "H&E")
