"""AnnData and SpatialData as Zarr folders: looked through before any of it is read.

A SpatialData folder holds AnnData under ``tables``, beside images and shapes, which are
not read: positions have to be in the table, as spatialdata-io writes them
(``obsm["spatial"]``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from napari_histodistill.distill.spots.h5ad_files import read_anndata
from napari_histodistill.distill.spots.hdf5_files import MOST_TEXT, MOST_TEXTS
from napari_histodistill.distill.spots.spot_columns import first_line, shortened
from napari_histodistill.distill.spots.spot_wish import (
    SeveralLibrariesError,
    SpotWish,
)
from napari_histodistill.errors import InputError
from napari_histodistill.slides.formats.zarr_limits import CODECS, check_files

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.distill.spots.spot_tables import RawSpots

_MARKS = ("zarr.json", ".zgroup")
_READ = CODECS | {"bytes", "transpose", "vlen-utf8", "sharding_indexed"}
_MOST_CHUNK = 2**29
_TABLES = "tables"


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr group."""
    return any((path / mark).is_file() for mark in _MARKS)


def tables_bytes(path: Path) -> int:
    """Return the bytes of a Zarr's tables; images and shapes are not read."""
    parts = ("X", "layers", "raw", "obs", "var", "obsm", _TABLES)
    files = (f for part in parts for f in (path / part).rglob("*"))
    return sum(f.lstat().st_size for f in files)


def read_zarr(path: Path, wish: SpotWish | None = None) -> RawSpots:
    """Read positions, counts and scale of an AnnData or SpatialData folder.

    Parameters
    ----------
    path : Path
        The folder.
    wish : SpotWish, optional
        As for ``.h5ad``. Of several tables of SpatialData, ``library`` names one.

    Raises
    ------
    SeveralLibrariesError
        If it has several tables or libraries, and none is named.
    InputError
        If it is neither, has no positions or values, or is not safe to read.
    """
    import zarr

    wish = wish or SpotWish()
    try:
        check_files(path)
        root = zarr.open_group(path, mode="r", use_consolidated=False)
        file, stem = ZarrTables(path.name, root), path.stem
        if file.is_group(_TABLES):
            table, wish, file = _table(file, wish)
            stem = f"{stem} {table}".strip()
        elif not file.has("obs"):
            msg = (
                f"{path.name} is neither AnnData nor SpatialData: it has no obs and no "
                "tables."
            )
            raise InputError(msg)
        return read_anndata(file, stem, wish)
    except InputError:
        raise
    except Exception as error:
        # zarr and its codecs raise a dozen kinds of errors for damaged files.
        msg = (
            f"{path.name} cannot be read as AnnData or SpatialData; it may be damaged "
            f"or another kind of Zarr ({first_line(error)})."
        )
        raise InputError(msg) from error


def _table(file: ZarrTables, wish: SpotWish) -> tuple[str, SpotWish, ZarrTables]:
    """Return the name of the table that is wanted, what is wanted of it, and itself."""
    names = [n for n in file.names(_TABLES) if file.has(f"{_TABLES}/{n}/obs")]
    if not names:
        msg = f"{file.name} is SpatialData without a table of counts."
        raise InputError(msg)
    if wish.library in names:
        chosen, wish = wish.library, replace(wish, library="")
    elif len(names) > 1:
        msg = (
            f"{file.name} holds {len(names)} tables ({shortened(names)}): choose one "
            "by its name; they are never mixed."
        )
        raise SeveralLibrariesError(msg, names)
    else:
        chosen = names[0]
    table = file.root[f"{_TABLES}/{chosen}"]
    return (chosen if len(names) > 1 else ""), wish, ZarrTables(file.name, table)


@dataclass(frozen=True, slots=True)
class ZarrTables:
    """An open group; everything is read through its methods.

    See :class:`.stored_tables.StoredTables` for what they do.

    Attributes
    ----------
    name : str
        Of the folder, for messages.
    root : zarr.Group
        The open group.
    """

    name: str
    root: Any

    def refuse(self, why: str) -> NoReturn:
        """Raise the error that says why the folder is not read."""
        msg = f"{self.name} is not read: {why}. Write it again with one program."
        raise InputError(msg)

    def has(self, path: str) -> bool:
        """Whether there is something under a path."""
        return path in self.root

    def is_group(self, path: str) -> bool:
        """Whether there is a group under a path."""
        import zarr

        return self.has(path) and isinstance(self.root[path], zarr.Group)

    def is_array(self, path: str) -> bool:
        """Whether there is an array, or a single value, under a path."""
        return self.has(path) and not self.is_group(path)

    def names(self, path: str) -> list[str]:
        """Return what a group holds; else nothing."""
        return sorted(self.root[path].keys()) if self.is_group(path) else []

    def attribute(self, path: str, name: str) -> str:
        """Return a short text attribute; empty if there is none."""
        value = self.root[path].attrs.get(name)
        return value[:1000] if isinstance(value, str) else ""

    def whole_numbers(self, path: str, name: str) -> tuple[int, ...]:
        """Return an attribute of a few whole numbers; empty if there is none."""
        value = self.root[path].attrs.get(name)
        fits = isinstance(value, list) and len(value) <= 8
        whole = fits and all(type(k) is int for k in value)
        return tuple(value) if whole else ()

    def shape(self, path: str, field: str | None = None) -> tuple[int, ...]:
        """Return the shape of an array; a Zarr has no tables with fields."""
        if field is not None:
            self.refuse(f"{path} is a compound array")
        return tuple(int(n) for n in self.root[path].shape)

    def is_numeric(self, path: str, field: str | None = None) -> bool:
        """Whether an array holds plain numbers or truth values."""
        return field is None and self.is_array(path) and self._kind(path) in "biuf"

    def numbers(
        self, path: str, most: int, field: str | None = None, kind: str = "f8"
    ) -> npt.NDArray[Any]:
        """Return an array of at most so many numbers."""
        if not self.is_numeric(path, field):
            self.refuse(f"{path} does not hold plain numbers")
        shape = self.shape(path)
        if math.prod(map(float, shape)) > most:
            self.refuse(f"{path} claims {' × '.join(f'{n:,}' for n in shape)} values")
        self._check(path)
        return np.asarray(self.root[path][...], kind)

    def texts(self, path: str, field: str | None = None) -> list[str]:
        """Return a list of texts; numbers are written out."""
        shape = self.shape(path, field)
        if len(shape) != 1 or shape[0] > MOST_TEXTS:
            self.refuse(f"{path} claims {shape} names")
        if self.is_numeric(path):
            kind = "f8" if self._kind(path) == "f" else "i8"
            return [str(k) for k in self.numbers(path, MOST_TEXTS, kind=kind)]
        self._check_texts(path)
        found = [str(t) for t in np.asarray(self.root[path][...]).tolist()]
        if sum(map(len, found)) > MOST_TEXT:
            self.refuse(f"{path} claims more text than names have")
        return found

    def single(self, path: str) -> float | None:
        """Return a single number, also one written as text; None if it is no such."""
        if not self.is_array(path) or math.prod(self.shape(path)) != 1:
            return None
        if self.is_numeric(path):
            value = float(np.ravel(self.numbers(path, 1))[0])
            return value if np.isfinite(value) else None
        self._check_texts(path)
        try:
            value = float(str(np.ravel(np.asarray(self.root[path][...]))[0]))
        except ValueError:
            return None
        return value if np.isfinite(value) else None

    def _kind(self, path: str) -> str:
        return str(np.dtype(self.root[path].dtype).kind)

    def _check_texts(self, path: str) -> None:
        """Refuse what is neither texts of any length nor of a fixed one."""
        if self._kind(path) not in {"O", "T", "U"}:
            self.refuse(f"{path} holds neither texts nor numbers")
        if self._kind(path) == "O" and "vlen-utf8" not in self._codecs(path):
            self.refuse(f"{path} holds objects of any kind")
        self._check(path)

    def _check(self, path: str) -> None:
        array = self.root[path]
        size = math.prod(array.chunks) * max(np.dtype(array.dtype).itemsize, 1)
        if size > _MOST_CHUNK:
            self.refuse(f"{path} has chunks of {size / 2**20:,.0f} MB")
        for codec in self._codecs(path):
            if codec not in _READ:
                self.refuse(f"{path} is encoded with {codec!r}, which is not read")

    def _codecs(self, path: str) -> list[str]:
        metadata = self.root[path].metadata
        if metadata.zarr_format == 2:
            used = [*(metadata.filters or ()), metadata.compressor]
            return [codec.codec_id for codec in used if codec is not None]
        return _named(codec.to_dict() for codec in metadata.codecs)


def _named(codecs: Iterable[Any]) -> list[str]:
    """Return the names of zarr 3's codecs; a shard has codecs of its own inside."""
    names: list[str] = []
    for codec in codecs:
        inside = codec.get("configuration", {})
        names += [str(codec["name"]), *_named(inside.get("codecs", ()))]
        names += _named(inside.get("index_codecs", ()))
    return names
