"""AnnData (``.h5ad``, Zarr): positions, counts and scale, in any layout of AnnData.

Only these are read, each with a limit: other content of the file, such as ``uns``, may
be of any size and kind. Layouts since AnnData 0.6 are known (tables as compound arrays,
categories in ``__categories``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csc_array, csr_array

from napari_histodistill.distill.spots.hdf5_files import open_hdf5
from napari_histodistill.distill.spots.spot_columns import (
    keep_on_tissue,
    position_columns,
    shortened,
    unlike,
)
from napari_histodistill.distill.spots.spot_tables import (
    MOST_VALUES,
    LengthUnit,
    RawSpots,
    are_counts,
    check_size,
)
from napari_histodistill.distill.spots.spot_wish import (
    SeveralLibrariesError,
    SpotWish,
)
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.distill.spots.stored_tables import StoredTables

    Doubles = npt.NDArray[np.float64]
    Rows = npt.NDArray[np.intp]
    Elsewhere = Callable[[Rows | None], "SpotPlaces"]

POSITION_KEYS = (
    "spatial",
    "x_spatial",
    "spatial_fullres",
    "spatial_coords",
    "spatial_coordinates",
    "coordinates",
    "coords",
    "x_coords",
    "xy",
    "x_xy",
    "spatial3d",
    "spatial_3d",
)
"""Keys of ``obsm`` that hold positions, in upper or lower case, the first found."""

SPATIALDATA = "uns/spatialdata_attrs"
"""What a table of SpatialData says of the elements that its rows belong to."""

_COUNT_LAYERS = ("counts", "raw_counts", "count", "raw", "umi_counts")
_MOST_COORDINATES = 2**24


@dataclass(frozen=True, slots=True, eq=False)
class SpotPlaces:
    """Positions of all rows of a table, and what is known of their scale.

    Attributes
    ----------
    found : ndarray
        ``(n, 2)`` float64, (y, x) in ``unit``; NaN where a row has none.
    unit : {"px", "µm"} or None
        Unit that the file states; None where it states none.
    notes : tuple of str
        Sentences on where they were found.
    um_per_px : float or None
        Size of a pixel, if the file states it.
    spot_size : float or None
        Diameter of a spot in ``unit``, if the file states it.
    """

    found: Doubles
    unit: LengthUnit | None
    notes: tuple[str, ...] = ()
    um_per_px: float | None = None
    spot_size: float | None = None


def read_h5ad(path: Path, wish: SpotWish | None = None) -> RawSpots:
    """Read positions, counts and scale of an AnnData file.

    Parameters
    ----------
    path : Path
        The file.
    wish : SpotWish, optional
        The library that is wanted of several, and the score of genes.

    Raises
    ------
    SeveralLibrariesError
        If it has several libraries, and none is named.
    InputError
        If it has no positions or values, has no library of this name, or is not safe to
        read.
    """
    with open_hdf5(path, ".h5ad") as file:
        return read_anndata(file, path.stem, wish or SpotWish())


def read_anndata(
    file: StoredTables, stem: str, wish: SpotWish, elsewhere: Elsewhere | None = None
) -> RawSpots:
    """Read positions, counts and scale of AnnData, whatever it is stored as.

    Parameters
    ----------
    file : StoredTables
        The open file.
    stem : str
        Name of the spots, without the library's.
    wish : SpotWish
        The library that is wanted of several, and the score of genes.
    elsewhere : callable, optional
        Returns :class:`SpotPlaces` for a table that holds none itself. It is given the
        rows that are wanted, as whole numbers, or None for all; others may be NaN.

    Raises
    ------
    SeveralLibrariesError, InputError
        As :func:`read_h5ad`.
    """
    if file.has("mod") and not file.has("obs"):
        msg = f"{file.name} holds several modalities: write one as .h5ad."
        raise InputError(msg)
    places, own = _places(file, wish, elsewhere)
    values, genes, said, frame = _values(file, len(places.found))
    genes, doubled = unlike(genes)
    scores = _scores(file, frame, wish.score) if wish.score else None
    raw = RawSpots(
        name=f"{stem} {wish.library}".strip(),
        positions=places.found,
        unit=places.unit,
        um_per_px=places.um_per_px,
        values=values,
        genes=genes,
        spot_size=places.spot_size,
        notes=tuple(filter(None, (*places.notes, said, doubled))),
        scores=scores,
    )
    in_tissue = _find(file.names("obs"), "in_tissue")
    if in_tissue:
        words = read_column(file, "obs", in_tissue)
        return keep_on_tissue(_of_library(raw, own), file.name, _rows(words, own))
    return _of_library(raw, own)


def _places(
    file: StoredTables, wish: SpotWish, elsewhere: Elsewhere | None
) -> tuple[SpotPlaces, Rows | None]:
    """Return the positions of all rows, and the rows that are wanted (None: all)."""
    places = _positions(file)
    if places is not None:
        library, own = _library(file, len(places.found), wish.library)
        return _scaled(file, places, library), own
    if elsewhere is None:
        columns, keys = file.names("obs"), [repr(k) for k in file.names("obsm")]
        msg = (
            f'{file.name}: there is no obsm["spatial"] with positions; obsm has '
            f"{shortened(keys) or 'nothing'}, and no columns of obs are positions "
            f"({shortened(columns) or 'none'})."
        )
        raise InputError(msg)
    _, own = _library(file, len(_names(file, "obs", "rows")), wish.library)
    return elsewhere(own), own


def _scaled(file: StoredTables, places: SpotPlaces, library: str) -> SpotPlaces:
    """Return places with what a library's scale factors say of them."""
    if not library or places.unit == "µm":
        return places
    factors = f"{library}/scalefactors"
    return replace(
        places,
        # Positions with scale factors are pixels of the image at full resolution.
        unit=places.unit or ("px" if file.names(factors) else None),
        um_per_px=_positive(file.single(f"{factors}/microns_per_pixel")),
        spot_size=_positive(file.single(f"{factors}/spot_diameter_fullres")),
    )


def _positive(value: float | None) -> float | None:
    return value if value is not None and value > 0 else None


def _find(names: list[str], wanted: str) -> str:
    """Return a name as it is written in the file; empty if it is not there."""
    return next((n for n in names if n.lower() == wanted), "")


def _positions(file: StoredTables) -> SpotPlaces | None:
    """Return the positions in a table; None if there are none."""
    keys = file.names("obsm")
    for wanted in POSITION_KEYS:
        key = _find(keys, wanted)
        if key:
            return _of_obsm(file, key)
    columns = file.names("obs")
    found = position_columns(columns)
    if found is None:
        return None
    y, x, unit = found
    places = [_numeric(file, "obs", columns[k]) for k in (y, x)]
    said = f"Positions were read from obs: {columns[x]}, {columns[y]}."
    return SpotPlaces(np.stack(places, axis=1), unit, (said,))


def _of_obsm(file: StoredTables, key: str) -> SpotPlaces:
    said = f'obsm["{key}"]'
    if file.is_group("obsm") and file.is_group(f"obsm/{key}"):
        return _of_frame(file, f"obsm/{key}", said)
    path, field = (f"obsm/{key}", None) if file.is_group("obsm") else ("obsm", key)
    shape = file.shape(path, field)
    if len(shape) != 2 or shape[1] < 2 or not file.is_numeric(path, field):
        msg = f"{file.name}: {said} is {shape}; positions are (x, y) of every spot."
        raise InputError(msg)
    found = file.numbers(path, _MOST_COORDINATES, field)
    notes = [f"Positions were read from {said}."] if key != "spatial" else []
    if shape[1] > 2:
        notes.append(f"Only the first two columns of {said} were used, x and y.")
    return SpotPlaces(found[:, 1::-1].copy(), None, tuple(notes))


def _of_frame(file: StoredTables, path: str, said: str) -> SpotPlaces:
    index = file.attribute(path, "_index")
    columns = [c for c in file.names(path) if c not in (index, "__categories")]
    found = position_columns(columns)
    if found is None:
        msg = (
            f"{file.name}: {said} has no columns of positions among "
            f"{shortened(columns) or 'none'}: call them x and y."
        )
        raise InputError(msg)
    y, x, unit = found
    places = [_numeric(file, path, columns[k]) for k in (y, x)]
    return SpotPlaces(np.stack(places, axis=1), unit)


def _numeric(file: StoredTables, frame: str, name: str) -> Doubles:
    """Return a column of positions; what is missing becomes NaN."""
    words = read_column(file, frame, name)
    try:
        return np.array([float(w or "nan") for w in words])
    except ValueError:
        msg = f"{file.name}: the column {name!r} does not hold numbers only."
        raise InputError(msg) from None


def read_column(file: StoredTables, frame: str, name: str) -> list[str]:
    """Return a column of a table as texts; what is missing is empty.

    Parameters
    ----------
    file : StoredTables
        An open file.
    frame : str
        Path of the table, such as ``obs``.
    name : str
        Of the column.

    Raises
    ------
    InputError
        If it is of a kind that is not known.
    """
    if not file.is_group(frame):
        return file.texts(frame, name)
    path, older = f"{frame}/{name}", f"{frame}/__categories/{name}"
    if file.is_group(path):
        if file.has(f"{path}/codes"):
            return _categories(file, f"{path}/codes", f"{path}/categories")
        if file.has(f"{path}/values"):  # whole numbers or truth values, some missing
            return _masked(file, path)
        file.refuse(f"{path} is a column of an unknown kind")
    if file.has(older):
        return _categories(file, path, older)
    words = file.texts(path)
    return ["" if w == "nan" else w for w in words]


def _categories(file: StoredTables, codes: str, categories: str) -> list[str]:
    words = file.texts(categories)
    chosen = file.numbers(codes, _MOST_COORDINATES, kind="i8")
    return [words[k] if 0 <= k < len(words) else "" for k in np.ravel(chosen)]


def _masked(file: StoredTables, path: str) -> list[str]:
    words = file.texts(f"{path}/values")
    if not file.has(f"{path}/mask"):
        return words
    mask = file.numbers(f"{path}/mask", _MOST_COORDINATES, kind="?")
    return ["" if m else w for w, m in zip(words, mask, strict=True)]


def _library(file: StoredTables, spots: int, wanted: str) -> tuple[str, Rows | None]:
    """Return the path of a library's scale factors, and the rows of its spots.

    The path is empty where there are none; None stands for all rows.
    """
    at = "uns/spatial"
    names = file.names(at) if file.is_group("uns") and file.is_group(at) else []
    # Such as cellxgene's is_single, or a name as text: no section.
    libraries = [n for n in names if _is_library(file, f"{at}/{n}")]
    words = _library_of_spots(file, spots)
    used = sorted({w for w in words if w})
    known = used if len(used) > 1 else libraries
    if wanted:
        if wanted not in {*used, *libraries}:
            msg = (
                f"{file.name} has no library {wanted!r}, only "
                f"{shortened(used or libraries) or 'one without a name'}."
            )
            raise InputError(msg)
        rows = np.flatnonzero([w == wanted for w in words]) if used else None
        if rows is None and len(libraries) > 1:
            _refuse_unassigned(file, libraries)
        if rows is not None and not len(rows):
            msg = f"{file.name}: no spot is of the library {wanted!r}."
            raise InputError(msg)
        return (f"{at}/{wanted}" if wanted in libraries else ""), rows
    own = [n for n in libraries if n in used]
    if len(known) > 1 and not (len(used) == 1 and len(own) == 1):
        if not used:
            _refuse_unassigned(file, libraries)
        msg = (
            f"{file.name} holds {len(known)} sections ({shortened(known)}): choose one "
            "by its name; they are never mixed."
        )
        raise SeveralLibrariesError(msg, known)
    if libraries:
        return f"{at}/{(own or libraries)[0]}", None
    return (at if "scalefactors" in names else ""), None


def _refuse_unassigned(file: StoredTables, libraries: list[str]) -> None:
    msg = (
        f"{file.name} holds {len(libraries)} sections ({shortened(libraries)}), and "
        "does not say which spot is of which: add a column library_id to obs, or give "
        "each section a file of its own."
    )
    raise InputError(msg)


def _of_library(raw: RawSpots, own: Rows | None) -> RawSpots:
    if own is None:
        return raw
    return replace(raw, positions=raw.positions[own], values=raw.values[own])


def _rows(words: list[str], own: Rows | None) -> list[str]:
    return words if own is None else [words[k] for k in own]


def _scores(file: StoredTables, frame: str, name: str) -> Doubles:
    """Return a column of numbers, or of yes and no, of the genes' table."""
    columns = file.names(frame)
    found = next((n for n in columns if n == name), "") or _find(columns, name.lower())
    if not found:
        msg = (
            f"{file.name}: its table of genes has no column {name!r}, only "
            f"{shortened(columns) or 'none'}."
        )
        raise InputError(msg)
    truths = {"true": "1", "false": "0"}
    words = [truths.get(w.lower(), w) for w in read_column(file, frame, found)]
    try:
        return np.array([float(w or "nan") for w in words])
    except ValueError:
        msg = f"{file.name}: the column {found!r} of its genes is not of numbers."
        raise InputError(msg) from None


def _is_library(file: StoredTables, path: str) -> bool:
    names = file.names(path) if file.is_group(path) else []
    return "scalefactors" in names or "images" in names


def _library_of_spots(file: StoredTables, spots: int) -> list[str]:
    """Return the library of every spot, as a column of obs says; empty without one."""
    if not file.is_group("obs"):
        return []
    columns = file.names("obs")
    name = _find(columns, "library_id") or region_column(file)
    words = read_column(file, "obs", name) if name else []
    return words if len(words) == spots else []


def region_column(file: StoredTables) -> str:
    """Return SpatialData's column of obs that names the element of every row.

    Empty if the table is not SpatialData's, or has no such column.
    """
    if not file.has(SPATIALDATA):
        return ""
    named = file.word(f"{SPATIALDATA}/region_key") or "region"
    columns = file.names("obs")
    return named if named in columns else ""


def _values(file: StoredTables, spots: int) -> tuple[Any, tuple[str, ...], str, str]:
    """Return counts rather than what was made of them, their genes, and a sentence.

    The last is the table of these genes.
    """
    options = [
        (f"layers/{name}", "var", f'layers["{name}"]')
        for wanted in _COUNT_LAYERS
        if (name := _find(file.names("layers"), wanted))
    ]
    known = {path for path, _, _ in options}
    options += [
        (f"layers/{name}", "var", f'layers["{name}"]')
        for name in file.names("layers")
        if "count" in name.lower() and f"layers/{name}" not in known
    ]
    options.append(("X", "var", "X"))
    options += [("raw/X", "raw/var", "raw"), ("raw.X", "raw.var", "raw")]
    options = [o for o in options if file.has(o[0]) and file.has(o[1])]
    options = [o for o in options if file.attribute(o[0], "encoding-type") != "null"]
    other: tuple[Any, tuple[str, ...], str, str] | None = None
    for path, frame, said in options:
        genes = tuple(_names(file, frame, "genes"))
        values = _matrix(file, path, spots, len(genes))
        if are_counts(values):
            note = "" if said == "X" else f"Counts were read from {said}."
            return values, genes, note, frame
        if other is None or (_has_negative(other[0]) and not _has_negative(values)):
            note = "" if said == "X" else f"Values were read from {said}."
            other = (values, genes, note, frame)
    if other is None:
        layers = shortened(file.names("layers")) or "none"
        msg = f"{file.name}: there are no values in X or raw; layers: {layers}."
        raise InputError(msg)
    return other


def _has_negative(values: Any) -> bool:
    stored = values if isinstance(values, np.ndarray) else values.data
    return bool((stored < 0).any())


def _names(file: StoredTables, frame: str, what: str) -> list[str]:
    """Return the names of a table's rows: genes, or spots."""
    names = file.names(frame)
    index = file.attribute(frame, "_index")
    options = (index, "_index", "index")
    name = next((n for n in options if n and n in names), "")
    if not name:
        msg = f"{file.name}: {frame} does not say how its {what} are called."
        raise InputError(msg)
    return read_column(file, frame, name)


def _matrix(file: StoredTables, path: str, spots: int, genes: int) -> Any:
    check_size(file.name, spots, genes)
    if file.is_array(path):
        shape = file.shape(path)
        _check_shape(file, path, shape, (spots, genes))
        return file.numbers(path, MOST_VALUES, kind="f4")
    layout = file.attribute(path, "encoding-type") or file.attribute(
        path, "h5sparse_format"
    )
    if layout not in ("csr_matrix", "csc_matrix", "csr", "csc"):
        file.refuse(f"{path} is stored as {layout[:40] or 'a group'!r}")
    shape = file.whole_numbers(path, "shape") or file.whole_numbers(
        path, "h5sparse_shape"
    )
    _check_shape(file, path, shape, (spots, genes))
    return read_sparse(file, path, (spots, genes), by_row=layout.startswith("csr"))


def _check_shape(
    file: StoredTables, path: str, shape: tuple[int, ...], wanted: tuple[int, int]
) -> None:
    if shape != wanted:
        msg = (
            f"{file.name}: {path} is {' × '.join(map(str, shape)) or 'empty'}, but "
            f"there are {wanted[0]} positions and {wanted[1]} names of genes."
        )
        raise InputError(msg)


def read_sparse(
    file: StoredTables, path: str, shape: tuple[int, int], *, by_row: bool
) -> Any:
    """Return a sparse matrix whose places were checked before SciPy uses them.

    Parameters
    ----------
    file : StoredTables
        An open file.
    path : str
        Of a group with ``data``, ``indices`` and ``indptr``.
    shape : tuple of int
        (rows, columns).
    by_row : bool
        Compressed by rows (CSR), or by columns (CSC).

    Returns
    -------
    csr_array or csc_array
        float32.

    Raises
    ------
    InputError
        If a place is outside the matrix.
    """
    outer, inner = shape if by_row else shape[::-1]
    data = file.numbers(f"{path}/data", MOST_VALUES, kind="f4")
    indices = file.numbers(f"{path}/indices", MOST_VALUES, kind="i8")
    ends = file.numbers(f"{path}/indptr", MOST_VALUES, kind="i8")
    fits = (
        ends.shape == (outer + 1,)
        and data.shape == indices.shape == (int(ends[-1]),)
        and ends[0] == 0
        and bool((np.diff(ends) >= 0).all())
        and bool(((indices >= 0) & (indices < inner)).all())
    )
    if not fits:
        file.refuse(f"{path} has values outside its {shape[0]:,} × {shape[1]:,} places")
    make = csr_array if by_row else csc_array
    return make((data, indices, ends), shape=shape)
