"""A Zarr group whose arrays are looked at before any of them is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from napari_histodistill.distill.spots.hdf5_files import MOST_TEXT, MOST_TEXTS
from napari_histodistill.errors import InputError
from napari_histodistill.slides.formats.zarr_limits import CODECS

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

_READ = CODECS | {"bytes", "transpose", "vlen-utf8", "sharding_indexed"}
_MOST_CHUNK = 2**29


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

    def attributes(self, path: str) -> dict[str, Any]:
        """Return all attributes of a group, as JSON has them."""
        return dict(self.root[path].attrs)

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

    def word(self, path: str) -> str:
        """Return a single text; empty if it is no such."""
        if not self.is_array(path) or self.is_numeric(path):
            return ""
        if math.prod(self.shape(path)) != 1:
            return ""
        self._check_texts(path)
        return str(np.ravel(np.asarray(self.root[path][...]))[0])

    def single(self, path: str) -> float | None:
        """Return a single number, also one written as text; None if it is no such."""
        if not self.is_array(path) or math.prod(self.shape(path)) != 1:
            return None
        try:
            value = float(
                np.ravel(self.numbers(path, 1))[0]
                if self.is_numeric(path)
                else self.word(path)
            )
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
