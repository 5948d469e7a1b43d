"""Files of spots (spatial transcriptomics): AnnData, Space Ranger, tables of counts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.distill.spots.spot_columns import (
    POSITION_HEADER,
    POSITIONS,
    bare_name,
    is_gene,
    keep_on_tissue,
    lists_transcripts,
    position_columns,
    shortened,
)
from napari_histodistill.distill.spots.spot_process import SpotSource, read_apart
from napari_histodistill.distill.spots.spot_tables import (
    LengthUnit,
    RawSpots,
    SpotTable,
    are_counts,
    check_spots,
)
from napari_histodistill.distill.spots.spot_text import (
    POSITIONS_ALONE,
    TextTable,
    read_text,
)
from napari_histodistill.distill.spots.spot_wish import MOST_GENES, SpotWish
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from napari_histodistill.running import CancelToken

_TEXT = (".csv", ".tsv", ".txt")
ZARR_FILES = ("zarr.json", ".zgroup", ".zattrs", ".zmetadata")
"""Files of a Zarr folder that stand for all of it, where only files can be chosen."""

ENDINGS = (".h5ad", ".h5", *_TEXT, *(f"{ending}.gz" for ending in _TEXT))


def read_spots(
    path: Path | str,
    *,
    most_genes: int = MOST_GENES,
    library: str = "",
    genes: Sequence[str] = (),
    score: str = "",
    cancel: CancelToken | None = None,
) -> SpotTable:
    """Read spots from AnnData, SpatialData, Space Ranger, Xenium, or a table of them.

    An ``.h5ad`` has its positions as (x, y) in ``obsm["spatial"]`` (or another of
    :data:`.h5ad_files.POSITION_KEYS`), and counts in ``layers["counts"]``, ``X`` or
    ``raw``: the first that holds whole numbers. Space Ranger's folder holds
    ``filtered_feature_bc_matrix.h5`` and ``spatial``; the matrix itself can be given,
    too. AnnData may be a Zarr folder, or lie in SpatialData's (of several tables,
    ``library`` names one), where shapes say where its rows lie if it does not: see
    :mod:`.spatial_shapes`. A table has one row per spot, two columns of positions, see
    :data:`.spot_columns.COLUMNS`, and a numeric one for every gene; separator, decimal
    mark and encoding are recognised.
    Where a column ``in_tissue`` says 0 or FALSE, the spot is left out.

    A column with the name of a position is never a gene, not even ``y`` or ``x`` beside
    positions in pixels: it would teach the student where a spot lies, and look like the
    gene that varies most. A gene with such a name (*y*, yellow, of the fly) has to be
    renamed. The same holds for measures of quality and names of cells or clusters.

    Parameters
    ----------
    path : Path or str
        The file, or Space Ranger's folder.
    most_genes : int
        Number of genes that are kept: the most variable, or those of highest score.
    library : str
        Name of the library that is read, where a file holds several (``obs`` says in
        ``library_id``, or SpatialData's ``region_key``, which spot is of which).
    genes : sequence of str
        Genes that are kept, in place of the most variable.
    score : str
        Column of an AnnData file's ``var`` by which genes are ranked, such as a measure
        of how much they vary in space.
    cancel : CancelToken or None
        Ends reading; text is read to its end all the same.

    Raises
    ------
    SeveralLibrariesError
        If a library must be chosen.
    InputError
        If the file is none of these, or its spots cannot be used.
    Cancelled
        If asked to stop.
    """
    path = Path(path)
    if path.name in ZARR_FILES:
        path = path.parent
    wish = SpotWish(library, most_genes, tuple(genes), score)
    if path.is_dir():
        return read_apart(path, "folder", wish, cancel)
    name = path.name.lower()
    if not name.endswith(ENDINGS):
        msg = (
            f"{path.name}: spots come from {', '.join(ENDINGS)} files, or from a "
            "folder of Space Ranger, Xenium, or AnnData or SpatialData as Zarr."
        )
        raise InputError(msg)
    if not path.exists() and not path.is_symlink():
        msg = f"{path}: there is no such file."
        raise InputError(msg)
    if name.endswith((".h5ad", ".h5")):
        source: SpotSource = "h5ad" if name.endswith(".h5ad") else "matrix"
        return read_apart(path, source, wish, cancel)
    if library:
        msg = f"{path.name} has no libraries: leave out {library!r}."
        raise InputError(msg)
    return check_spots(_read_table(path), wish)


def holds_spots(path: Path) -> bool:
    """Whether a file or folder holds spots, by its name or by what lies in it.

    An image that keeps tables beside its pixels is an image. A folder of a machine that
    is not read counts, too: reading it says what to do.
    """
    from napari_histodistill.distill.spots.space_ranger import holds_run
    from napari_histodistill.distill.spots.xenium import is_xenium
    from napari_histodistill.distill.spots.zarr_tables import holds_table, is_zarr

    if path.name in ZARR_FILES:
        path = path.parent
    if not path.is_dir():
        return path.name.lower().endswith(ENDINGS)
    if is_zarr(path):
        return holds_table(path)
    return is_xenium(path) or holds_run(path)


def _read_table(path: Path) -> RawSpots:
    table = read_text(path)
    lower = [n.lower() for n in table.names]
    if set(lower) - {"", "unnamed: 0"} == set(POSITION_HEADER):
        raise InputError(POSITIONS_ALONE.format(path.name))
    texts = [n for k, n in enumerate(table.names) if not table.is_numeric(k)]
    listed = lists_transcripts(texts)
    if listed:
        msg = (
            f"{path.name} lists transcripts, with the gene of each in {listed!r}: "
            "spots need a row each and a column for every gene. Sum them up by cell or "
            "bin, as .h5ad."
        )
        raise InputError(msg)
    y, x, unit = _position_columns(path.name, table)
    genes, notes = _genes(path.name, table, {y, x})
    raw = RawSpots(
        name=path.name[: path.name.index(".", 1)]
        if "." in path.name[1:]
        else path.name,
        positions=np.stack([table.columns[k] for k in (y, x)], axis=1),
        unit=unit,
        um_per_px=None,
        values=np.stack([table.columns[k].astype(np.float32) for k in genes], axis=1),
        genes=tuple(table.names[k] for k in genes),
        spot_size=None,
        notes=notes,
    )
    if "in_tissue" not in lower:
        return raw
    return keep_on_tissue(raw, path.name, table.words(lower.index("in_tissue")))


def _stem(path: Path) -> str:
    """Return the name without its ending, also where that is ``.csv.gz``."""
    ending = next(e for e in ENDINGS[::-1] if path.name.lower().endswith(e))
    return path.name[: -len(ending)] or path.name


def _genes(
    name: str, table: TextTable, taken: set[int]
) -> tuple[list[int], tuple[str, ...]]:
    """Return the columns of genes, and sentences on those that are left out."""
    genes, places, quality, words = [], [], [], []
    for k, column in enumerate(table.names):
        if k in taken or not column or column.lower() == "in_tissue":
            continue
        if bare_name(column) in POSITIONS:
            places.append(column)
        elif not is_gene(column):
            quality += [column] if table.is_numeric(k) else []
        elif table.is_numeric(k):
            genes.append(k)
        else:
            words.append(column)
    genes, measured = _counted(table, genes)
    if not genes or not len(table.columns[0]):
        only = f" (only {shortened(quality)})" if quality else ""
        msg = (
            f"{name}: besides the positions there is no numeric column of a gene{only}:"
            " every gene is a column, every spot a row."
        )
        raise InputError(msg)
    left_out = (
        ("Further columns of positions", places),
        ("Columns of quality and identity", quality),
        ("Columns of text", words),
        ("Columns that are no counts, beside counts,", measured),
    )
    notes = (
        f"{k} were left out: {shortened(names)}." for k, names in left_out if names
    )
    return genes, tuple(notes)


def _counted(table: TextTable, genes: list[int]) -> tuple[list[int], list[str]]:
    """Leave out measurements beside counts, whatever they are called.

    One column of fractions would let all others go without normalisation. Where most
    columns hold counts, those that do not are none of a gene.
    """
    used = [k for k in genes if table.columns[k].any()]
    counts = {k for k in used if are_counts(table.columns[k])}
    if 2 * len(counts) <= len(used):
        return genes, []
    # What is missing or negative is refused later: it may be a count gone wrong.
    odd = [k for k in used if k not in counts and _has_fractions(table.columns[k])]
    return [k for k in genes if k not in odd], [table.names[k] for k in odd]


def _has_fractions(column: npt.NDArray[Any]) -> bool:
    return bool(np.isfinite(column).all() and (column != np.rint(column)).any())


def _position_columns(
    name: str, table: TextTable
) -> tuple[int, int, LengthUnit | None]:
    found = position_columns(table.names)
    if found is None:
        msg = (
            f"{name}: no columns of positions among {shortened(table.names, 6)}: call "
            "them x, y; x_px, y_px for pixels; or x_um, y_um."
        )
        raise InputError(msg)
    for k in found[:2]:
        if not table.is_numeric(k) and any(table.words(k)):
            msg = f"{name}: the column {table.names[k]!r} does not hold numbers only."
            raise InputError(msg)
    return found
