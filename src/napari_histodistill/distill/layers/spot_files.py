"""Files of spots (spatial transcriptomics): AnnData ``.h5ad``, or a table of counts."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.distill.layers.spot_tables import (
    MOST_GENES,
    LengthUnit,
    RawSpots,
    SpotTable,
    check_spots,
)
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    Doubles = npt.NDArray[np.float64]

ENDINGS = (".h5ad", ".csv", ".tsv", ".txt")

COLUMNS: tuple[tuple[str, str, LengthUnit | None], ...] = (
    ("y_um", "x_um", "µm"),
    ("y_microns", "x_microns", "µm"),
    ("y_micrometer", "x_micrometer", "µm"),
    ("pxl_row_in_fullres", "pxl_col_in_fullres", "px"),
    ("pxl_row", "pxl_col", "px"),
    ("imagerow", "imagecol", "px"),
    ("y_px", "x_px", "px"),
    ("pixel_y", "pixel_x", "px"),
    ("y_centroid", "x_centroid", None),
    ("y", "x", None),
)
"""Names of position columns, in upper or lower case, and the unit that a name implies.
"""

_POSITIONS = {name for y, x, _ in COLUMNS for name in (y, x)}

_NO_GENES = _POSITIONS | {
    "in_tissue",
    "array_row",
    "array_col",
    "cell_id",
    "n_counts",
    "total_counts",
}

_ON_TISSUE = {"1": True, "1.0": True, "true": True,
              "0": False, "0.0": False, "false": False}  # fmt: skip
"""As Space Ranger, Python and R write it, in upper or lower case."""


def is_gene(column: str) -> bool:
    """Whether a column of numbers may be a gene: its name does not say otherwise."""
    return bool(column) and column.lower() not in _NO_GENES


def read_spots(path: Path | str, *, most_genes: int = MOST_GENES) -> SpotTable:
    """Read spots from an ``.h5ad`` file or a table with one row per spot.

    An ``.h5ad`` has its positions as (x, y) in ``obsm["spatial"]``, and counts in
    ``layers["counts"]`` or ``X``. A table has two columns of positions, see
    :data:`COLUMNS`, and a numeric one for every gene, separated by commas or tabs.
    Where a column ``in_tissue`` says 0 or FALSE, the spot is left out.

    A column with the name of a position is never a gene, not even ``y`` or ``x`` beside
    positions in pixels: it would teach the student where a spot lies, and look like the
    gene that varies most. A gene with such a name (*y*, yellow, of the fly) has to be
    renamed.

    Parameters
    ----------
    path : Path or str
        The file.
    most_genes : int
        Number of the most variable genes that are kept.

    Raises
    ------
    InputError
        If the file is none of these, or its spots cannot be used.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        msg = f"{path.name}: spots come from {', '.join(ENDINGS)} files."
        raise InputError(msg)
    if not path.is_file():
        msg = f"{path}: there is no such file."
        raise InputError(msg)
    raw = _read_h5ad(path) if ending == ".h5ad" else _read_table(path)
    return check_spots(raw, most_genes)


def _read_h5ad(path: Path) -> RawSpots:
    try:
        import anndata
    except ImportError as error:
        msg = (
            f"{path.name}: reading .h5ad needs anndata: install it with "
            'pip install "napari-histodistill[spatial]".'
        )
        raise InputError(msg) from error
    try:
        found = anndata.read_h5ad(path)
    except Exception as error:
        # Any error of h5py or anndata: another kind of file, or a damaged one.
        msg = f"{path.name} cannot be read as .h5ad ({str(error).splitlines()[0]})."
        raise InputError(msg) from error
    if "spatial" not in found.obsm:
        has = ", ".join(map(repr, found.obsm)) or "nothing"
        msg = (
            f'{path.name}: there is no obsm["spatial"] with positions; obsm has {has}.'
        )
        raise InputError(msg)
    positions = np.asarray(found.obsm["spatial"], np.float64)
    if positions.ndim != 2 or positions.shape[1] != 2:
        msg = (
            f'{path.name}: obsm["spatial"] is {positions.shape}; positions are (x, y) '
            "of every spot."
        )
        raise InputError(msg)
    unit, um_per_px, size = _scale_factors(path.name, found.uns.get("spatial"))
    raw = RawSpots(
        name=path.stem,
        positions=positions[:, ::-1],
        unit=unit,
        um_per_px=um_per_px,
        values=found.layers.get("counts", found.X),
        genes=tuple(map(str, found.var_names)),
        spot_size=size,
        notes=(),
    )
    said = found.obs.get("in_tissue")
    return raw if said is None else _on_tissue(raw, path.name, said)


def _scale_factors(
    name: str, spatial: Any
) -> tuple[LengthUnit | None, float | None, float | None]:
    """Return unit, µm per pixel and spot size, as ``uns["spatial"]`` has them."""
    if not spatial:
        return None, None, None
    if len(spatial) > 1:
        msg = (
            f"{name} holds {len(spatial)} sections ({', '.join(map(str, spatial))}): "
            "give each section a file of its own."
        )
        raise InputError(msg)
    factors = next(iter(spatial.values())).get("scalefactors", {})
    # Positions with scale factors are pixels of the image at full resolution.
    unit: LengthUnit | None = "px" if factors else None
    um_per_px, size = factors.get("microns_per_pixel"), None
    if "spot_diameter_fullres" in factors:
        size = float(factors["spot_diameter_fullres"])
    return unit, None if um_per_px is None else float(um_per_px), size


def _on_tissue(raw: RawSpots, name: str, in_tissue: Iterable[Any]) -> RawSpots:
    words = [str(value).strip() for value in in_tissue]
    unclear = next(
        (k for k, x in enumerate(words) if x.lower() not in _ON_TISSUE), None
    )
    if unclear is not None:
        msg = (
            f"{name}: the column 'in_tissue' says {words[unclear]!r} in row "
            f"{unclear + 1}: write 1 or 0, TRUE or FALSE, or drop the column."
        )
        raise InputError(msg)
    kept = np.array([_ON_TISSUE[x.lower()] for x in words], bool)
    if kept.all() or not kept.any():
        return raw
    note = (
        f"{int((~kept).sum())} spots outside the tissue (by in_tissue) were left out."
    )
    return replace(
        raw,
        positions=raw.positions[kept],
        values=raw.values[kept],
        notes=(*raw.notes, note),
    )


def _rows_of(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return a table's header and its rows, all of one length."""
    delimiter = "," if path.suffix.lower() == ".csv" else "\t"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = [r for r in csv.reader(file, delimiter=delimiter) if r]
    except (OSError, UnicodeDecodeError, ValueError, csv.Error) as error:
        msg = f"{path.name} cannot be read as a table with a header ({error})."
        raise InputError(msg) from error
    names = [n.strip() for n in header]
    uneven = next((k for k, r in enumerate(rows) if len(r) != len(names)), None)
    if uneven is not None:
        msg = (
            f"{path.name}: row {uneven + 1} has {len(rows[uneven])} fields, the header "
            f"{len(names)}."
        )
        raise InputError(msg)
    twice = [n for n, count in Counter(filter(None, names)).items() if count > 1]
    if twice:
        msg = f"{path.name}: two columns are called {twice[0]!r}: rename one."
        raise InputError(msg)
    return names, rows


def _read_table(path: Path) -> RawSpots:
    names, rows = _rows_of(path)
    y, x, unit = _position_columns(path.name, names)
    numbers = {k: _numbers(rows, k) for k in range(len(names))}
    positions = np.stack([_required(path.name, names, numbers, k) for k in (y, x)], 1)
    genes = {
        names[k]: values
        for k, values in numbers.items()
        if values is not None and is_gene(names[k])
    }
    if not genes or not rows:
        msg = (
            f"{path.name}: besides the positions there is no numeric column: every "
            "gene is a column, every spot a row."
        )
        raise InputError(msg)
    lower = [n.lower() for n in names]
    others = [n for n in names if n.lower() in _POSITIONS - {lower[y], lower[x]}]
    left_out = f"Further columns of positions were left out: {', '.join(others)}."
    raw = RawSpots(
        name=path.stem,
        positions=positions,
        unit=unit,
        um_per_px=None,
        values=np.stack(list(genes.values()), axis=1),
        genes=tuple(genes),
        spot_size=None,
        notes=(left_out,) if others else (),
    )
    if "in_tissue" not in lower:
        return raw
    place = lower.index("in_tissue")
    return _on_tissue(raw, path.name, [r[place] for r in rows])


def _position_columns(
    name: str, names: Sequence[str]
) -> tuple[int, int, LengthUnit | None]:
    lower = [n.lower() for n in names]
    for y, x, unit in COLUMNS:
        if y in lower and x in lower:
            return lower.index(y), lower.index(x), unit
    known = "; ".join(f"{y}, {x}" for y, x, _ in COLUMNS[-1::-3])
    shown = ", ".join(names[:6])
    msg = (
        f"{name}: no columns of positions among {shown}…: call them {known} or x_um, "
        "y_um."
    )
    raise InputError(msg)


def _numbers(rows: Sequence[Sequence[str]], column: int) -> Doubles | None:
    """Return a column as numbers, empty fields as NaN; None if it holds words."""
    try:
        return np.array([float(r[column] or "nan") for r in rows])
    except ValueError:
        return None


def _required(
    name: str, names: Sequence[str], numbers: dict[int, Doubles | None], column: int
) -> Doubles:
    found = numbers[column]
    if found is None:
        msg = f"{name}: the column {names[column]!r} does not hold numbers only."
        raise InputError(msg)
    return found
