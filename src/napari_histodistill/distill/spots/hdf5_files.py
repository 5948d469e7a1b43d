"""HDF5 files that a stranger may have sent: looked through before any of it is read.

HDF5 can name other files of this machine (external links, external and virtual
storage), load code (filters as plugins), and unpack a few kilobytes to gigabytes. So
every object is visited first, without reading its content, and each value that is read
has a limit of its own.
"""

from __future__ import annotations

import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from napari_histodistill.distill.spots.spot_columns import first_line
from napari_histodistill.errors import InputError
from napari_histodistill.files import is_plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

MOST_OBJECTS = 50_000
"""Groups, arrays and links in one file; real ones have some hundreds."""

MOST_DEPTH = 32
MOST_TEXTS = 2**20
MOST_TEXT = 2**26
"""Characters of all texts that are read at once."""

MOST_CHUNK = 2**29
"""Bytes that one chunk may unpack to."""

MOST_CLAIM = 2**24
"""Bytes that an array may claim whatever is stored of it: 16 MB."""

_DEFLATE, _SHUFFLE, _FLETCHER, _LZF = 1, 2, 3, 32000
_FILTERS = {_DEFLATE, _SHUFFLE, _FLETCHER, _LZF}
"""What h5py holds itself; all others are plugins, or have no use here."""

_RATIO = {_DEFLATE: 1032, _LZF: 90}
"""The most that each can unpack one byte to, by its format."""

_UNMEASURED = 2**28
"""Bytes that a chunk may unpack to at the worst without being measured first."""

_BATCH = 2**28
"""Bytes that texts read in one go may take at the worst."""


@contextmanager
def open_hdf5(path: Path, kind: str) -> Iterator[Hdf5File]:
    """Open a file that was looked through; errors inside become one sentence.

    Parameters
    ----------
    path : Path
        A plain file.
    kind : str
        Such as ``".h5ad"``, for messages.

    Raises
    ------
    InputError
        If it is not HDF5, refers to something outside it, claims more than it can
        hold, or is damaged.
    """
    try:
        import h5py
    except ImportError as error:
        msg = (
            f"{path.name}: reading {kind} needs h5py: install it with "
            'pip install "napari-histodistill[spatial]".'
        )
        raise InputError(msg) from error
    if not is_plain(path):
        msg = f"{path.name} is a link or not a plain file: choose the file itself."
        raise InputError(msg)
    try:
        # No lock: it fails on many network disks, and nothing is written.
        with h5py.File(path, "r", locking=False, rdcc_nbytes=2**26) as root:
            found = Hdf5File(path.name, path.stat().st_size, root)
            found.look_through()
            yield found
    except InputError:
        raise
    except Exception as error:
        # h5py raises a dozen kinds of errors for damaged files.
        msg = (
            f"{path.name} cannot be read as {kind}; it may be damaged or another kind "
            f"of file ({first_line(error)})."
        )
        raise InputError(msg) from error


@dataclass(frozen=True, slots=True)
class Hdf5File:
    """An open file; everything is read through its methods.

    Attributes
    ----------
    name : str
        Of the file, for messages.
    size : int
        Of the file in bytes.
    root : h5py.File
        The open file.
    """

    name: str
    size: int
    root: Any

    def look_through(self) -> None:
        """Visit every object once, by its address: circles of hard links end.

        Raises
        ------
        InputError
            Naming the first link, storage or filter that is not allowed.
        """
        import h5py

        seen: set[int] = set()
        stack = [(h5py.h5g.open(self.root.id, b"/"), "", 0)]
        links = 0
        while stack:
            group, at, depth = stack.pop()
            links += group.get_num_objs()
            if links > MOST_OBJECTS or depth > MOST_DEPTH:
                self.refuse("it holds more objects than any file of spots")
            names: list[bytes] = []
            group.links.iterate(names.append)
            for name in names:
                path = f"{at}/{name.decode('utf-8', 'replace')[:80]}"
                if group.links.get_info(name).type != h5py.h5l.TYPE_HARD:
                    self.refuse(f"{path} is a link")
                found = h5py.h5o.open(group, name)
                address = h5py.h5o.get_info(found).addr
                if address in seen:
                    continue
                seen.add(address)
                if isinstance(found, h5py.h5g.GroupID):
                    stack.append((found, path, depth + 1))
                elif isinstance(found, h5py.h5d.DatasetID):
                    self._check_storage(found, path)

    def refuse(self, why: str) -> NoReturn:
        """Raise the error that says why the file is not read."""
        msg = f"{self.name} is not read: {why}. Write it again with one program."
        raise InputError(msg)

    def has(self, path: str) -> bool:
        """Whether there is something under a path."""
        return path in self.root

    def is_group(self, path: str) -> bool:
        """Whether there is a group under a path."""
        import h5py

        return path in self.root and isinstance(self.root[path], h5py.Group)

    def is_array(self, path: str) -> bool:
        """Whether there is an array, or a single value, under a path."""
        import h5py

        return path in self.root and isinstance(self.root[path], h5py.Dataset)

    def names(self, path: str) -> list[str]:
        """Return what a group holds, or the fields of a table; else nothing."""
        if self.is_group(path):
            return [str(name) for name in self.root[path]]
        return list(self.root[path].dtype.names or ()) if self.is_array(path) else []

    def attribute(self, path: str, name: str) -> str:
        """Return a short text attribute; empty if there is none."""
        import h5py

        node = self.root[path]
        if name not in node.attrs:
            return ""
        found = h5py.h5a.open(node.id, name.encode())
        is_text = found.get_type().get_class() == h5py.h5t.STRING
        if not is_text or found.shape != () or found.get_storage_size() > 2**16:
            return ""
        value = node.attrs[name]
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        return str(text)[:1000]

    def whole_numbers(self, path: str, name: str) -> tuple[int, ...]:
        """Return an attribute of a few whole numbers; empty if there is none."""
        import h5py

        node = self.root[path]
        if name not in node.attrs:
            return ()
        found = h5py.h5a.open(node.id, name.encode())
        if found.get_type().get_class() != h5py.h5t.INTEGER or len(found.shape) != 1:
            return ()
        few = found.shape[0] <= 8
        return tuple(int(k) for k in node.attrs[name]) if few else ()

    def shape(self, path: str, field: str | None = None) -> tuple[int, ...]:
        """Return the shape of an array, or of a table's field."""
        node = self.root[path]
        own = tuple(int(n) for n in node.shape or ())
        return own if field is None else own + node.dtype[field].shape

    def is_numeric(self, path: str, field: str | None = None) -> bool:
        """Whether an array, or a table's field, holds plain numbers or truth values."""
        if not self.is_array(path):
            return False
        dtype = self.root[path].dtype
        kind = dtype if field is None else dtype[field]
        return kind.base.kind in "biuf"

    def numbers(
        self, path: str, most: int, field: str | None = None, kind: str = "f8"
    ) -> npt.NDArray[Any]:
        """Return an array of numbers.

        Parameters
        ----------
        path : str
            Of the array.
        most : int
            Values that it may have.
        field : str, optional
            Of a table.
        kind : str
            NumPy's type that they are returned as.

        Raises
        ------
        InputError
            If it is not an array of numbers, or claims too much.
        """
        if not self.is_numeric(path, field):
            self.refuse(f"{path} does not hold plain numbers")
        node = self.root[path]
        shape = self.shape(path, field)
        if np.prod([float(n) for n in shape]) > most:
            self.refuse(f"{path} claims {' × '.join(f'{n:,}' for n in shape)} values")
        self._check_claim(node, path)
        if 0 in shape:
            return np.empty(shape, kind)
        if field is not None:
            return np.asarray(node.fields(field)[...], kind)
        if node.dtype.kind == "b" or not shape:
            return np.asarray(node[()], kind)
        found = np.empty(shape, kind)
        node.read_direct(found)  # converts while reading: nothing is held twice
        return found

    def texts(self, path: str, field: str | None = None) -> list[str]:
        """Return a list of texts; numbers are written out.

        Raises
        ------
        InputError
            If it is neither, or claims too much.
        """
        import h5py

        shape = self.shape(path, field)
        if len(shape) != 1 or shape[0] > MOST_TEXTS:
            self.refuse(f"{path} claims {shape} names")
        if self.is_numeric(path, field):
            kind = "i8" if self._is_whole(path, field) else "f8"
            return [str(k) for k in self.numbers(path, MOST_TEXTS, field, kind)]
        node = self.root[path]
        dtype = node.dtype if field is None else node.dtype[field]
        told = h5py.check_string_dtype(dtype)
        if told is None:
            self.refuse(f"{path} holds neither texts nor numbers")
        self._check_claim(node, path)
        # Texts of any length lie apart, and many places may name the same one.
        most = self.size if told.length is None else told.length
        if told.length is not None and told.length * shape[0] > MOST_TEXT:
            self.refuse(f"{path} claims {shape[0]:,} texts of {told.length:,} bytes")
        batch = int(np.clip(_BATCH // max(most, 1), 1, 4096))
        source = node if field is None else node.fields(field)
        found: list[str] = []
        length = 0
        for start in range(0, shape[0], batch):
            part = source[start : start + batch]
            found += [
                t.decode("utf-8", "replace") if isinstance(t, bytes) else str(t)
                for t in part
            ]
            length += sum(map(len, found[start:]))
            if length > MOST_TEXT:
                self.refuse(f"{path} claims more text than names have")
        return found

    def word(self, path: str) -> str:
        """Return a single text; empty if it is no such."""
        import h5py

        if not self.is_array(path) or np.prod(self.shape(path)) != 1:
            return ""
        node = self.root[path]
        if h5py.check_string_dtype(node.dtype) is None:
            return ""
        self._check_claim(node, path)
        return str(np.ravel(node.asstr(errors="replace")[()])[0])

    def single(self, path: str) -> float | None:
        """Return a single number, also one written as text; None if it is no such."""
        if not self.is_array(path) or np.prod(self.shape(path)) != 1:
            return None
        node = self.root[path]
        self._check_claim(node, path)
        try:
            if self.is_numeric(path) and node.dtype.kind != "b":
                value = float(np.ravel(node[()])[0])
            else:
                value = float(self.word(path))
        except ValueError:
            return None
        return value if np.isfinite(value) else None

    def _is_whole(self, path: str, field: str | None) -> bool:
        dtype = self.root[path].dtype
        return (dtype if field is None else dtype[field]).kind in "biu"

    def _check_storage(self, dataset: Any, path: str) -> None:
        import h5py

        plan = dataset.get_create_plist()
        if plan.get_external_count():
            self.refuse(f"{path} is stored in another file")
        if plan.get_layout() == h5py.h5d.VIRTUAL:
            self.refuse(f"{path} is put together from other files or arrays")
        filters = [plan.get_filter(k)[0] for k in range(plan.get_nfilters())]
        foreign = [k for k in filters if k not in _FILTERS]
        if foreign:
            msg = (
                f"{self.name}: {path} is compressed by a filter that is not read here "
                f"(number {foreign[0]}): write the file again with gzip, as "
                'write_h5ad(…, compression="gzip") does.'
            )
            raise InputError(msg)
        if sum(k in _RATIO for k in filters) > 1:
            self.refuse(f"{path} is compressed twice")

    def _check_claim(self, node: Any, path: str) -> None:
        """Refuse an array that unpacks to more than its stored bytes can hold."""
        stored = int(node.id.get_storage_size())
        claimed = float(np.prod([float(n) for n in node.shape or ()]))
        claimed *= node.dtype.itemsize
        plan = node.id.get_create_plist()
        filters = [plan.get_filter(k)[0] for k in range(plan.get_nfilters())]
        ratio = max((_RATIO.get(k, 1) for k in filters), default=1)
        if stored > self.size or claimed > max(MOST_CLAIM, stored * ratio):
            self.refuse(f"{path} claims far more than the file holds")
        if node.chunks is None:
            return
        chunk = float(np.prod([float(n) for n in node.chunks])) * node.dtype.itemsize
        if chunk > MOST_CHUNK:
            self.refuse(f"{path} has chunks of {chunk / 2**20:,.0f} MB")
        for offset, length, mask in self._chunks_of(node):
            # What does not fit unpacks into memory all the same: measured first.
            if length > 2 * chunk + 1024:
                self.refuse(f"{path} has a chunk that is longer than its content")
            packed = _DEFLATE in filters and not mask >> filters.index(_DEFLATE) & 1
            if packed and length * ratio > _UNMEASURED:
                self._check_deflated(node, path, offset, int(chunk))

    def _chunks_of(self, node: Any) -> Sequence[tuple[tuple[int, ...], int, int]]:
        found: list[tuple[tuple[int, ...], int, int]] = []

        def note(info: Any) -> None:
            found.append((info.chunk_offset, int(info.size), int(info.filter_mask)))

        node.id.chunk_iter(note)
        return found

    def _check_deflated(
        self, node: Any, path: str, offset: tuple[int, ...], chunk: int
    ) -> None:
        _, packed = node.id.read_direct_chunk(offset)
        unpacking = zlib.decompressobj()
        length, rest = 0, bytes(packed)
        while rest and not unpacking.eof and length <= chunk:
            length += len(unpacking.decompress(rest, 2**20))
            rest = unpacking.unconsumed_tail
        if length > chunk:
            self.refuse(f"{path} has a chunk that unpacks to more than it should")
