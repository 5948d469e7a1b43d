"""Folders of Space Ranger: counts (``.h5``), positions and scale factors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.distill.spots.h5ad_files import read_sparse
from napari_histodistill.distill.spots.hdf5_files import Hdf5File, open_hdf5
from napari_histodistill.distill.spots.parquet_files import read_parquet
from napari_histodistill.distill.spots.spot_columns import (
    POSITION_HEADER,
    first_line,
    keep_on_tissue,
    shortened,
    unlike,
)
from napari_histodistill.distill.spots.spot_tables import RawSpots, check_size
from napari_histodistill.distill.spots.spot_text import TextTable, read_text
from napari_histodistill.errors import InputError
from napari_histodistill.files import is_plain

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_histodistill.distill.spots.spot_wish import SpotWish

MATRICES = ("filtered_feature_bc_matrix.h5", "raw_feature_bc_matrix.h5")
"""Ends of names, since files that 10x or GEO offer have the sample's name in front."""

_POSITIONS = (
    "tissue_positions.csv",
    "tissue_positions_list.csv",
    "tissue_positions.parquet",
)
_MOST_JSON = 2**20


def read_folder(path: Path, wish: SpotWish | None = None) -> RawSpots:
    """Read the folder that holds ``spatial`` and a matrix.

    Parameters
    ----------
    path : Path
        That folder, ``spatial`` itself, or the one above with ``outs``.
    wish : SpotWish, optional
        Such a folder is one library: none can be chosen.

    Raises
    ------
    InputError
        If it has no matrix, or several.
    """
    path = _home(path)
    for ending in MATRICES:
        found = sorted(p for p in path.iterdir() if p.name.endswith(ending))
        if len(found) > 1:
            names = shortened([p.name for p in found])
            msg = f"{path.name} holds several matrices ({names}): choose one of them."
            raise InputError(msg)
        if found:
            return read_matrix(found[0], wish)
    bins = _bins(path)
    if len(bins) == 1:
        return read_folder(bins[0], wish)
    if bins:
        names = shortened([p.name for p in bins])
        msg = f"{path.name} holds several sizes of squares ({names}): choose one."
        raise InputError(msg)
    refuse_other_machine(path)
    msg = (
        f"{path.name}: there is no filtered_feature_bc_matrix.h5: choose Space "
        "Ranger's folder that holds it beside spatial."
    )
    raise InputError(msg)


def holds_run(path: Path) -> bool:
    """Whether a folder is Space Ranger's, or another machine's that is refused."""
    home = _home(path)
    matrices = any(p.name.endswith(MATRICES) for p in home.iterdir())
    return matrices or bool(_bins(home)) or bool(_other_machine(path))


def _home(path: Path) -> Path:
    """Return the folder that holds ``spatial``, of one inside or above it."""
    if path.name == "spatial":
        return path.parent
    if not (path / "spatial").is_dir() and (path / "outs" / "spatial").is_dir():
        return path / "outs"
    return path


def _bins(path: Path) -> list[Path]:
    """Return the folders of Visium HD, one for each size of squares."""
    for inside in (path, path / "binned_outputs", path / "outs" / "binned_outputs"):
        if inside.name == "binned_outputs" and inside.is_dir():
            found = sorted(p for p in inside.iterdir() if p.is_dir())
            return [p for p in found if not p.is_symlink()]
    return []


_OTHER_MACHINES = {
    "experiment.xenium": "Xenium",
    "cell_feature_matrix.h5": "Xenium",
    "cell_by_gene.csv": "MERSCOPE",
    "*exprMat_file.csv*": "CosMx",
    "*.gem.gz": "Stereo-seq",
    "*.gef": "Stereo-seq",
}
"""Files that only one kind of machine writes."""


def refuse_other_machine(path: Path) -> None:
    """Refuse a folder, or a file in one, of a machine that is not read here.

    Raises
    ------
    InputError
        If it is of Xenium, MERSCOPE, CosMx or Stereo-seq.
    """
    machine = _other_machine(path if path.is_dir() else path.parent)
    if machine:
        msg = (
            f"{path.name} is of {machine}, which is not read as it is: write its "
            "cells or bins, with counts and positions, as .h5ad (spatialdata-io "
            "and squidpy read it)."
        )
        raise InputError(msg)


def _other_machine(folder: Path) -> str:
    """Return the machine that wrote a folder; empty if it is none of these."""
    found = (name for like, name in _OTHER_MACHINES.items() if any(folder.glob(like)))
    return next(found, "")


def read_matrix(path: Path, wish: SpotWish | None = None) -> RawSpots:
    """Read a matrix of Space Ranger, with positions from ``spatial`` beside it.

    Parameters
    ----------
    path : Path
        Such as ``filtered_feature_bc_matrix.h5``.
    wish : SpotWish, optional
        It is of one library: none can be chosen.

    Raises
    ------
    InputError
        If it is another kind of file, or its positions are missing.
    """
    if wish is not None and wish.library:
        msg = f"{path.name} is of one library: leave out {wish.library!r}."
        raise InputError(msg)
    with open_hdf5(path, "Space Ranger's .h5") as file:
        values, barcodes, genes, notes = counts_of(file)
    spatial = path.parent / "spatial"
    if spatial.is_symlink() or not spatial.is_dir():
        refuse_other_machine(path)
        msg = (
            f"{path.name}: the folder spatial is missing beside it, which holds the "
            "positions of the spots."
        )
        raise InputError(msg)
    table = _position_table(spatial)
    y, x, in_tissue = (
        _place(table, name)
        for name in ("pxl_row_in_fullres", "pxl_col_in_fullres", "in_tissue")
    )
    rows = rows_of(path.name, table, barcodes)
    factors = _scale_factors(spatial)
    raw = RawSpots(
        name=_title(path),
        positions=np.stack([table.columns[k][rows] for k in (y, x)], axis=1),
        unit="px",
        um_per_px=factors.get("microns_per_pixel"),
        values=values,
        genes=genes,
        spot_size=factors.get("spot_diameter_fullres"),
        notes=notes,
    )
    words = table.words(in_tissue)
    return keep_on_tissue(raw, path.name, [words[k] for k in rows])


def _title(path: Path) -> str:
    """Return a name that tells sections apart: all matrices are called alike."""
    own = path.name
    for ending in MATRICES:
        own = own.removesuffix(ending)
    if own.strip("_-."):
        return own.strip("_-.")
    folder = path.resolve().parent
    return folder.parent.name if folder.name == "outs" else folder.name


def counts_of(
    file: Hdf5File,
) -> tuple[Any, list[str], tuple[str, ...], tuple[str, ...]]:
    """Return counts ``(spots, genes)``, barcodes, genes, and sentences.

    Raises
    ------
    InputError
        If it is another kind of file.
    """
    at = next((n for n in file.names("/") if file.has(f"{n}/indptr")), "")
    if not at or not file.has(f"{at}/barcodes"):
        msg = (
            f"{file.name} is not a matrix of Space Ranger: choose "
            "filtered_feature_bc_matrix.h5."
        )
        raise InputError(msg)
    barcodes = file.texts(f"{at}/barcodes")
    named = "features/name" if file.has(f"{at}/features/name") else "gene_names"
    names = file.texts(f"{at}/{named}")
    check_size(file.name, len(barcodes), len(names))
    said = [int(k) for k in np.ravel(file.numbers(f"{at}/shape", 8))]
    if said != [len(names), len(barcodes)]:
        file.refuse(f"{at}/shape does not fit its names")
    shape = (len(names), len(barcodes))
    values = read_sparse(file, at, shape, by_row=False).T.tocsr()
    notes: tuple[str, ...] = ()
    if file.has(f"{at}/features/feature_type"):
        kinds = np.array(file.texts(f"{at}/features/feature_type"))
        kept = np.flatnonzero(kinds == "Gene Expression")
        if len(kinds) == len(names) and 0 < len(kept) < len(names):
            notes = (
                f"{len(names) - len(kept)} features that are not genes were left out.",
            )
            values, names = values[:, kept], [names[k] for k in kept]
    genes, note = unlike(names)
    return values, barcodes, genes, (*notes, note) if note else notes


def _position_table(spatial: Path) -> TextTable:
    found = next((spatial / n for n in _POSITIONS if (spatial / n).exists()), None)
    if found is None:
        msg = (
            "spatial holds no positions of spots: tissue_positions.csv (or "
            "tissue_positions_list.csv) is missing there."
        )
        raise InputError(msg)
    if found.suffix == ".parquet":
        return read_parquet(found, POSITION_HEADER)
    return read_text(found, POSITION_HEADER)


def _place(table: TextTable, name: str) -> int:
    lower = [n.lower() for n in table.names]
    if name not in lower:
        shown = shortened(table.names) or "none"
        msg = f"spatial: the positions have no column {name} among {shown}."
        raise InputError(msg)
    return lower.index(name)


def rows_of(
    name: str, table: TextTable, barcodes: Sequence[str], named: str = "barcode"
) -> list[int]:
    """Return for every barcode of the matrix its row among the positions.

    Raises
    ------
    InputError
        If one has no position.
    """
    place = _place(table, named)
    rows = {word: k for k, word in enumerate(table.words(place))}
    missing = [b for b in barcodes if b not in rows]
    if missing:
        msg = (
            f"{name}: {len(missing):,} of {len(barcodes):,} barcodes have no position "
            f"(such as {missing[0][:40]}): are both of one section?"
        )
        raise InputError(msg)
    return [rows[b] for b in barcodes]


def _scale_factors(spatial: Path) -> dict[str, float]:
    """Return what ``scalefactors_json.json`` says; nothing where there is none."""
    path = spatial / "scalefactors_json.json"
    if not path.exists() and not path.is_symlink():
        return {}
    try:
        if not is_plain(path) or path.stat().st_size > _MOST_JSON:
            raise ValueError("not a plain file of a few kB")
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{path.name} cannot be read ({first_line(error)}): fetch it again."
        raise InputError(msg) from error
    found = found if isinstance(found, dict) else {}
    return {
        str(key): float(value)
        for key, value in found.items()
        if type(value) in (int, float) and 0 < value < 1e9
    }
