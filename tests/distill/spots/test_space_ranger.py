"""Space Ranger's folders: counts, positions and scale factors come together."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest

h5py = pytest.importorskip("h5py", reason="spots need the extra [spatial]")
pytest.importorskip("pandas", reason="spots need the extra [spatial]")

from scipy import sparse  # noqa: E402

from napari_histodistill.distill.spots.space_ranger import (  # noqa: E402
    read_folder,
    read_matrix,
)
from napari_histodistill.distill.spots.spot_columns import (  # noqa: E402
    POSITION_HEADER,
)
from napari_histodistill.distill.spots.spot_files import read_spots  # noqa: E402
from napari_histodistill.distill.spots.spot_tables import check_spots  # noqa: E402
from napari_histodistill.distill.spots.xenium import read_xenium  # noqa: E402
from napari_histodistill.errors import InputError  # noqa: E402

pytestmark = pytest.mark.usefixtures("forked_reading")

MATRIX = "filtered_feature_bc_matrix.h5"


@pytest.fixture
def folder(tmp_path, counts, positions):
    """Return a function that writes a run; 60 spots, one gene is an antibody's."""

    def write(name=MATRIX, *, header=True, older=False, factors=None, more=0):
        home = tmp_path / "run"
        (home / "spatial").mkdir(parents=True, exist_ok=True)
        order = np.random.default_rng(1).permutation(60)
        rows = [f"BC{k}-1,1,0,0,{positions[k, 0]},{positions[k, 1]}" for k in order] + [
            f"OFF{k}-1,0,0,0,{-k - 1},5" for k in range(more)
        ]
        lines = [",".join(POSITION_HEADER), *rows] if header else rows
        places = "tissue_positions.csv" if header else "tissue_positions_list.csv"
        (home / "spatial" / places).write_text("\n".join(lines) + "\n")
        if factors is not None:
            text = json.dumps(factors)
            (home / "spatial" / "scalefactors_json.json").write_text(text)
        packed = sparse.csr_matrix(np.r_[counts, np.ones((more, 12))])
        with h5py.File(home / name, "w") as file:
            at = file.create_group("GRCh38" if older else "matrix")
            barcodes = [f"BC{k}-1" for k in range(60)]
            barcodes += [f"OFF{k}-1" for k in range(more)]
            at["barcodes"] = np.array(barcodes, "S")
            genes = np.array([f"GENE{k}" for k in range(12)], "S")
            at["gene_names" if older else "features/name"] = genes
            if not older:
                kinds = ["Gene Expression"] * 11 + ["Antibody Capture"]
                at["features/feature_type"] = np.array(kinds, "S")
            at["shape"] = np.array([12, 60 + more], "i4")
            for part in ("data", "indices", "indptr"):
                at[part] = getattr(packed, part)
        return home

    return write


def check(table, counts, positions, genes=11):
    np.testing.assert_array_equal(table.positions, positions)
    kept = counts[:, :genes]
    wanted = np.log1p(kept / kept.sum(axis=1, keepdims=True) * 1e4)
    columns = [int(g.removeprefix("GENE")) for g in table.genes]
    np.testing.assert_allclose(table.values, wanted[:, columns], rtol=1e-5)
    assert len(columns) == genes


FACTORS = {"spot_diameter_fullres": 90.5, "microns_per_pixel": 0.5}


@pytest.mark.parametrize("choice", [".", "spatial", MATRIX])
def test_a_run_opens_however_it_is_chosen(choice, folder, counts, positions):
    table = read_spots(folder(factors=FACTORS) / choice)
    check(table, counts, positions)
    assert (table.name, table.unit) == ("run", "px")
    assert (table.um_per_px, table.spot_size) == (0.5, 90.5)
    assert "1 features that are not genes were left out." in table.notes


def test_older_versions(folder, counts, positions):
    table = check_spots(read_folder(folder(header=False, older=True)))
    check(table, counts, positions, 12)
    assert (table.unit, table.um_per_px) == ("px", None)


def test_the_raw_matrix_keeps_what_is_on_tissue(folder, counts, positions):
    home = folder("V1_Breast_raw_feature_bc_matrix.h5", more=7)
    table = check_spots(read_folder(home))
    check(table, counts, positions)
    assert table.name == "V1_Breast"
    assert any("7 spots outside the tissue" in note for note in table.notes)


def test_outs_inside_of_the_folder(folder, tmp_path, counts, positions):
    (tmp_path / "sample").mkdir()
    folder().rename(tmp_path / "sample" / "outs")
    table = check_spots(read_folder(tmp_path / "sample"))
    check(table, counts, positions)
    assert table.name == "sample"


def test_what_is_missing_is_named(folder, tmp_path):
    home = folder()
    table = home / "spatial" / "tissue_positions.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join(lines[:-3]) + "\n")
    with pytest.raises(InputError, match="3 of 60 barcodes have no position"):
        read_matrix(home / MATRIX)
    table.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no column pxl_row_in_fullres among a, b"):
        read_matrix(home / MATRIX)
    table.unlink()
    with pytest.raises(InputError, match=r"tissue_positions.csv .* is missing"):
        read_matrix(home / MATRIX)
    (home / "spatial").rmdir()
    with pytest.raises(InputError, match="the folder spatial is missing beside it"):
        read_matrix(home / MATRIX)
    with h5py.File(home / "molecule_info.h5", "w") as file:
        file["barcodes"] = [1]
    with pytest.raises(InputError, match="is not a matrix of Space Ranger"):
        read_matrix(home / "molecule_info.h5")
    with pytest.raises(InputError, match="there is no filtered_feature_bc_matrix"):
        read_folder(tmp_path)
    (home / f"a_{MATRIX}").write_bytes(b"")
    with pytest.raises(InputError, match="holds several matrices"):
        read_folder(home)


@pytest.mark.parametrize("above", ["", "outs", "outs/binned_outputs"])
def test_squares_of_visium_hd(folder, tmp_path, above, counts):
    bins = tmp_path / "outs" / "binned_outputs"
    bins.mkdir(parents=True)
    folder().rename(bins / "square_016um")
    found = read_folder(tmp_path / above)
    assert found.values.shape == (60, 11), "the one size that there is"
    (bins / "square_008um").mkdir()
    sizes = r"several sizes of squares \(square_008um, square_016um\): choose one"
    with pytest.raises(InputError, match=sizes):
        read_folder(tmp_path / above)


@pytest.mark.parametrize(
    ("name", "machine"),
    [
        ("experiment.xenium", "Xenium"),
        ("cell_by_gene.csv", "MERSCOPE"),
        ("S0_exprMat_file.csv", "CosMx"),
        ("SS200.gem.gz", "Stereo-seq"),
    ],
)
def test_folders_of_other_machines_are_named(tmp_path, name, machine):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=f"is of {machine}, .* as .h5ad"):
        read_spots(tmp_path)


def test_the_matrix_of_xenium_is_not_said_to_lack_a_folder(folder):
    home = folder("cell_feature_matrix.h5")
    for path in (home / "spatial").iterdir():
        path.unlink()
    (home / "spatial").rmdir()
    with pytest.raises(InputError, match=r"matrix\.h5 is of Xenium, .* as .h5ad"):
        read_spots(home / "cell_feature_matrix.h5")


@pytest.fixture
def xenium(folder, positions):
    """Return a run of Xenium without its table of cells, and that table."""
    import pandas as pd

    home = folder("cell_feature_matrix.h5")
    shutil.rmtree(home / "spatial")
    (home / "experiment.xenium").write_text("{}")
    order = np.random.default_rng(2).permutation(60)
    cells = pd.DataFrame(
        {
            "cell_id": [f"BC{k}-1" for k in order],
            "x_centroid": positions[order, 1],
            "y_centroid": positions[order, 0],
            "transcript_counts": 9,
            "cell_area": 40.5,
        }
    )
    return home, cells


@pytest.mark.parametrize("choice", [".", "cell_feature_matrix.h5"])
def test_cells_of_xenium_are_spots_in_um(choice, xenium, counts, positions):
    home, cells = xenium
    cells.to_csv(home / "cells.csv.gz", index=False)
    table = read_spots(home / choice)
    check(table, counts, positions)
    assert (table.unit, table.name) == ("µm", "run")
    assert "the H&E must lie on it" in " ".join(table.notes)
    cells[3:].to_csv(home / "cells.csv.gz", index=False)
    with pytest.raises(InputError, match="3 of 60 barcodes have no position"):
        read_spots(home)


def without_pyarrow(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)


@pytest.mark.parametrize("name", ["cells.csv.gz", "cells.csv"])
def test_cells_of_xenium_beside_their_parquet_need_no_pyarrow(
    name, xenium, counts, positions, monkeypatch
):
    home, cells = xenium
    cells.to_csv(home / name, index=False)
    cells.to_parquet(home / "cells.parquet")
    without_pyarrow(monkeypatch)
    check(check_spots(read_xenium(home)), counts, positions)
    (home / "cells.parquet").write_bytes(b"PAR1 torn")
    check(check_spots(read_xenium(home)), counts, positions)
    (home / name).unlink()
    extra = r"cells\.parquet: .* pip install \"napari-histodistill\[spatial\]\", or"
    with pytest.raises(InputError, match=extra):
        read_xenium(home)


@pytest.mark.parametrize("kind", ["texts", "bytes"])
def test_cells_of_xenium_as_parquet_alone(kind, xenium, counts, positions):
    home, cells = xenium
    if kind == "bytes":
        cells["cell_id"] = cells["cell_id"].str.encode("ascii")
    cells.to_parquet(home / "cells.parquet")
    check(read_spots(home), counts, positions)  # by another process
    cells.drop(columns="x_centroid").to_parquet(home / "cells.parquet")
    missing = r"cells\.parquet: there is no column x_centroid among cell_id, y_centroid"
    with pytest.raises(InputError, match=missing):
        read_xenium(home)
    (home / "cells.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(InputError, match=r"cells\.parquet cannot be read as \.parquet"):
        read_xenium(home)


def test_cells_that_are_counted_keep_all_digits(xenium, counts, positions):
    home, cells = xenium
    with h5py.File(home / "cell_feature_matrix.h5", "r+") as file:
        del file["matrix/barcodes"]
        file["matrix/barcodes"] = np.array([f"{1234500 + k}" for k in range(60)], "S")
    number = cells["cell_id"].str.removeprefix("BC").str.removesuffix("-1")
    cells["cell_id"] = number.astype(int) + 1234500
    cells.to_csv(home / "cells.csv.gz", index=False)
    check(check_spots(read_xenium(home)), counts, positions)


def test_positions_as_parquet(folder, counts, positions, monkeypatch):
    import pandas as pd

    home = folder()
    table = home / "spatial" / "tissue_positions.csv"
    pd.read_csv(table).to_parquet(table.with_suffix(".parquet"))
    with monkeypatch.context() as context:
        without_pyarrow(context)
        check(check_spots(read_folder(home)), counts, positions)
        table.unlink()
        with pytest.raises(InputError, match=r"needs pyarrow: pip .*\[spatial\]"):
            read_folder(home)
    check(check_spots(read_folder(home)), counts, positions)
