"""Embeddings of one slide by one student on one grid, on disk and resumable.

A store is a zarr (v3) group of three arrays over the grid's cells: ``embeddings``
float16 ``(rows, columns, dim)``, ``status`` uint8 and ``wanted`` bool ``(rows,
columns)``. One chunk of ``embeddings`` is one *block* of cells: one unit of work,
written whole. Beside them, ``trust.json`` keeps what was said of the slide.

A killed process leaves no wrong number behind: zarr's local store writes a file beside
the chunk and renames it, a chunk carries a checksum, and a cell's status turns to
*done* only after its chunk is in place. A cell that is not done reads as NaN, so a done
cell that is not finite can only be damage, and is reported as damage.
"""

from __future__ import annotations

import shutil
import uuid
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from napari_histodistill.errors import (
    ComputeError,
    DiskError,
    HistodistillError,
    InputError,
    StoreError,
    StoreTakenError,
    refused_by_disk,
)
from napari_histodistill.files import check_tree, write_whole
from napari_histodistill.geometry import Mpp
from napari_histodistill.lock import WriterLock
from napari_histodistill.maps.provenance import FORMAT_VERSION, Provenance, store_key
from napari_histodistill.slides.pyramid.grid import TileGrid

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt
    import zarr

__all__ = [
    "CellStatus",
    "EmbeddingStore",
    "Provenance",
    "is_store",
    "remove_store",
    "store_key",
]


class CellStatus(IntEnum):
    """What is known of a cell; stored as uint8."""

    PENDING = 0
    DONE = 1
    UNREADABLE = 2


Block = tuple[slice, slice]

_LOCK = "writer.lock"
_VERDICT = "trust.json"
_ARRAYS = ("embeddings", "status", "wanted")
_TYPES = (np.dtype("float16"), np.dtype("uint8"), np.dtype("bool"))
WAIT_S = 1.0
"""Seconds that a run waits for another writer, which may only be keeping a verdict."""

MAX_CELLS = 20_000_000
"""More cells than this come from a mistyped stride."""

_MAX_DIM = 65_536
_MAX_BLOCK_BYTES = 2**30
_MAX_METADATA_BYTES = 2**24
# Large chunks, so that polling the status does not open thousands of files.
_STATUS_CHUNK = 1024
_SLAB_BYTES = 2**25
_LARGEST = float(np.finfo(np.float16).max)


class EmbeddingStore:
    """An open store; get one from :meth:`create` or :meth:`open`.

    Readers may look while one writer writes. Use it as a context manager, or call
    :meth:`close`: a writer holds the store's lock until then.

    Attributes
    ----------
    path : Path
        The folder.
    grid : TileGrid
        Grid of the cells.
    provenance : Provenance
        Slide and student of the embeddings, and how they were computed.
    dim : int
        Width of an embedding.
    block : int
        Edge of a block in cells.
    key : str
        Digest of slide, student, grid, mpp, mode, precision and format.
    """

    def __init__(self, path: Path, group: zarr.Group, lock: WriterLock | None) -> None:
        self.path = path
        self._lock = lock
        with damage(path):
            meta: Any = group.attrs.asdict()["histodistill"]
            _check_version(path, meta)
            self.grid = _grid_from(meta["grid"])
            self.provenance = Provenance.from_json(meta["provenance"])
            self.dim, self.block = int(meta["dim"]), int(meta["block"])
            _check_sizes(self.grid, self.dim, self.block)
            self.key = store_key(self.grid, self.provenance)
            arrays: list[Any] = [group[name] for name in _ARRAYS]
            self._embeddings, self._status, self._wanted = arrays
            shape = self.grid.shape
            shapes = (self._embeddings.shape, self._status.shape, self._wanted.shape)
            types = tuple(array.dtype for array in arrays)
            if (
                meta["key"] != self.key
                or shapes != ((*shape, self.dim), shape, shape)
                or self._embeddings.chunks != (self.block, self.block, self.dim)
                or {self._status.chunks, self._wanted.chunks} != {_side(self.block)}
                or types != _TYPES
            ):
                msg = "its parts do not belong together"
                raise ValueError(msg)
            self._known: npt.NDArray[np.uint8] | None = None
            if lock:
                self._known = self._status[:]
        self._check_chunks()

    @classmethod
    def create(
        cls, path: Path, *, grid: TileGrid, provenance: Provenance, dim: int, block: int
    ) -> EmbeddingStore:
        """Make an empty store and open it for writing.

        Raises
        ------
        StoreError
            If something is in the way (:class:`StoreTakenError`), or the place cannot
            be written to.
        DiskError
            If the disk is full or fails.
        """
        path = Path(path)
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            msg = f"{path}: something is there already; choose another path."
            raise StoreTakenError(msg)
        # Built aside and renamed: a half-made store never carries the name.
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _make_arrays(aside, grid, provenance, dim=dim, block=block)
            if path.exists():
                path.rmdir()
            aside.rename(path)
        except OSError as error:
            shutil.rmtree(aside, ignore_errors=True)
            if is_store(path):
                msg = f"{path}: another run made a store there at the same moment."
                raise StoreTakenError(msg) from error
            msg = f"{path}: cannot make a store there ({error.strerror or error})."
            raise refused_by_disk(msg, error, otherwise=StoreError) from error
        return cls.open(path, writable=True)

    @classmethod
    def open(
        cls, path: Path | str, *, writable: bool = False, wait_s: float = 0.0
    ) -> EmbeddingStore:
        """Open a store.

        Parameters
        ----------
        path : Path or str
            Its folder.
        writable : bool
            Whether it is to be written to.
        wait_s : float
            Seconds to wait for another writer: one that keeps a verdict
            (:meth:`keep_verdict`) is done in an instant.

        Raises
        ------
        StoreError
            If there is none, it is damaged or of a newer version, or (to write)
            another process is writing to it.
        """
        import zarr

        path = Path(path)
        if not path.exists():
            msg = f"{path}: there is no store; make one with `histodistill embed`."
            raise StoreError(msg)
        if not is_store(path):
            msg = (
                f"{path}: this {'folder' if path.is_dir() else 'file'} is not an "
                "embedding store (`histodistill embed` makes one)."
            )
            raise StoreError(msg)
        with damage(path):
            check_tree(path)
        lock = None
        if writable:
            lock = WriterLock(path / _LOCK, error=StoreError, wait_s=wait_s)
        try:
            with damage(path):
                _check_metadata(path)
                group = zarr.open_group(
                    path, mode="r+" if writable else "r", zarr_format=3
                )
            return cls(path, group, lock)
        except BaseException:
            if lock:
                lock.release()
            raise

    @property
    def status(self) -> npt.NDArray[np.uint8]:
        """Status of every cell now: 0 pending, 1 done, 2 unreadable."""
        if self._known is not None:
            return self._known.copy()
        with damage(self.path):
            return np.asarray(self._status[:], np.uint8)

    @property
    def wanted(self) -> npt.NDArray[np.bool_]:
        """Cells that have been asked for, ``(rows, columns)``."""
        with damage(self.path):
            return np.asarray(self._wanted[:], bool)

    def want(self, cells: npt.NDArray[np.bool_]) -> None:
        """Ask for more cells, ``(rows, columns)``; earlier ones stay wanted."""
        with trouble_writing(self.path):
            self._wanted[:] = self.wanted | cells

    def read(self, block: Block | None = None) -> npt.NDArray[np.float16]:
        """Return embeddings ``(rows, columns, dim)``; NaN in cells that are not done.

        Parameters
        ----------
        block : tuple of slice, optional
            Rows and columns to read; everything without it.

        Raises
        ------
        StoreError
            If a done cell cannot be read.
        """
        where = block or (slice(None), slice(None))
        # Status before numbers: what it calls done is on disk, even during a run.
        done = self.status[where] == CellStatus.DONE
        with damage(self.path):
            values = np.asarray(self._embeddings[(*where, slice(None))], np.float16)
            if not np.isfinite(values[done]).all():
                msg = "numbers of finished squares are missing"
                raise ValueError(msg)
        values[~done] = np.nan
        return values

    def slabs(self) -> Iterator[Block]:
        """Yield blocks of whole rows that cover the grid: 32 MiB, or one row of chunks.

        A large slide's embeddings are gigabytes: go through them slab by slab.
        """
        rows, columns = self.grid.shape
        fit = _SLAB_BYTES // (columns * self.dim * 2)
        # Whole chunks, so that none is read twice.
        high = max(self.block, fit // self.block * self.block)
        for row in range(0, rows, high):
            yield slice(row, min(rows, row + high)), slice(0, columns)

    def write_block(
        self,
        row0: int,
        column0: int,
        values: npt.NDArray[np.floating],
        status: npt.NDArray[np.uint8],
    ) -> None:
        """Write one whole block: numbers first, then their status.

        Parameters
        ----------
        row0, column0 : int
            First cell of the block: multiples of ``block``.
        values : ndarray
            ``(h, w, dim)``; what is not done is ignored.
        status : ndarray
            ``(h, w)`` uint8.

        Raises
        ------
        ComputeError
            If a number is not finite or does not fit float16.
        StoreError
            If the store is not open for writing.
        DiskError
            If the disk refuses; what was written before is intact.
        """
        if self._known is None:
            msg = f"{self.path}: the store was opened for reading only."
            raise StoreError(msg)
        where = self._block_at(row0, column0)
        if values.shape != (*self._known[where].shape, self.dim):
            msg = f"{self.path}: the block has the wrong shape, {values.shape}."
            raise StoreError(msg)
        out = np.full(values.shape, np.nan, np.float16)
        done = status == CellStatus.DONE
        out[done] = _to_half(values[done], self.provenance.student_name)
        with trouble_writing(self.path):
            if not (self.path / "zarr.json").is_file():
                # zarr would make new folders, on whatever disk is there now.
                msg = "it is not there any more: its disk may be away"
                raise FileNotFoundError(msg)
            self._embeddings[(*where, slice(None))] = out
            self._known[where] = status
            # Whole chunks from memory: no read-modify-write that could race.
            chunk = self._status.chunks[0]
            r, c = row0 // chunk * chunk, column0 // chunk * chunk
            around = slice(r, r + chunk), slice(c, c + chunk)
            self._status[around] = self._known[around]

    def keep_verdict(self, text: str) -> None:
        """Keep what was said of the slide (see ``maps/trust.py``), whole or not at all.

        Raises
        ------
        StoreError
            If the store is not open for writing.
        DiskError
            If the disk refuses.
        """
        if self._known is None:
            msg = f"{self.path}: the store was opened for reading only."
            raise StoreError(msg)
        with trouble_writing(self.path):
            write_whole(self.path / _VERDICT, text)

    def verdict(self) -> str:
        """Return what was kept of the slide's verdict; empty if nothing can be read."""
        path = self.path / _VERDICT
        rows, columns = self.grid.shape
        try:
            if path.stat().st_size > _MAX_METADATA_BYTES + rows * columns:
                return ""
            return path.read_text(encoding="utf-8")
        except (OSError, ValueError):
            return ""  # a map without its verdict is judged again

    def close(self) -> None:
        """Let another process write."""
        if self._lock:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        rows, columns = self.grid.shape
        return f"<EmbeddingStore {self.path.name!r} {rows} × {columns} × {self.dim}>"

    def _block_at(self, row0: int, column0: int) -> Block:
        rows, columns = self.grid.shape
        inside = 0 <= row0 < rows and 0 <= column0 < columns
        if not inside or row0 % self.block or column0 % self.block:
            msg = f"{self.path}: no block starts at cell ({row0}, {column0})."
            raise StoreError(msg)
        return (
            slice(row0, min(rows, row0 + self.block)),
            slice(column0, min(columns, column0 + self.block)),
        )

    def _check_chunks(self) -> None:
        """Refuse a store whose finished blocks have lost their file.

        Only names and sizes are looked at; the checksums speak when a block is read.
        """
        done = self.status == CellStatus.DONE
        rows, columns = np.nonzero(done)
        blocks = np.unique(
            np.stack([rows // self.block, columns // self.block], axis=1), axis=0
        )
        folder = self.path / "embeddings" / "c"
        with damage(self.path):
            for i, j in blocks.tolist():
                if not (folder / str(i) / str(j) / "0").stat().st_size:
                    msg = f"block ({i}, {j}) is empty"
                    raise ValueError(msg)


def _check_metadata(path: Path) -> None:
    for file in (path / "zarr.json", *(path / name / "zarr.json" for name in _ARRAYS)):
        if file.stat().st_size > _MAX_METADATA_BYTES:
            msg = f"{file.name} is larger than {_MAX_METADATA_BYTES >> 20} MiB"
            raise ValueError(msg)


def is_store(path: Path) -> bool:
    """Whether a folder holds a store of this package, sound or damaged."""
    return path.is_dir() and all((path / name).is_dir() for name in _ARRAYS)


def remove_store(path: Path) -> None:
    """Delete a store and nothing else.

    Raises
    ------
    StoreError
        If it is not a store, holds other files, too, or is being written to.
    """
    if not path.exists():
        return  # another run that starts again was faster
    if is_store(path):
        # Taken only to see that nobody writes, and released at once, because Windows
        # does not rename a folder that holds an open file.
        WriterLock(path / _LOCK, error=StoreError, wait_s=WAIT_S).release()
    known = {*_ARRAYS, _LOCK, _VERDICT, "zarr.json"}
    if not is_store(path) or any(entry.name not in known for entry in path.iterdir()):
        msg = f"{path}: not (only) an embedding store; delete it by hand."
        raise StoreError(msg)
    try:
        # Renamed first, so that a kill half way leaves no store with holes.
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.deleted")
        path.rename(aside)
        shutil.rmtree(aside)
    except FileNotFoundError:
        return  # another run that starts again was faster
    except OSError as error:
        msg = f"{path}: cannot be deleted ({error.strerror or error})."
        raise StoreError(msg) from error


def _make_arrays(
    path: Path, grid: TileGrid, provenance: Provenance, *, dim: int, block: int
) -> None:
    import zarr
    from zarr.codecs import ZstdCodec

    meta = {
        "format_version": FORMAT_VERSION,
        "key": store_key(grid, provenance),
        "provenance": provenance.to_json(),
        "grid": _grid_meta(grid),
        "dim": dim,
        "block": block,
    }
    group = zarr.create_group(path, attributes={"histodistill": meta}, zarr_format=3)
    shape = grid.shape
    codec = ZstdCodec(level=1, checksum=True)
    common: dict[str, Any] = {
        "compressors": codec,
        "config": {"write_empty_chunks": True},
    }
    group.create_array(
        "embeddings",
        shape=(*shape, dim),
        chunks=(block, block, dim),
        dtype="float16",
        fill_value=float("nan"),
        dimension_names=("y", "x", "c"),
        **common,
    )
    for name, dtype in (("status", "uint8"), ("wanted", "bool")):
        group.create_array(
            name, shape=shape, chunks=_side(block), dtype=dtype, fill_value=0, **common
        )


def _side(block: int) -> tuple[int, int]:
    """Return the small arrays' chunks: whole blocks, about a thousand cells a side."""
    side = max(block, _STATUS_CHUNK // block * block)
    return side, side


def _check_sizes(grid: TileGrid, dim: int, block: int) -> None:
    rows, columns = grid.shape
    if not (0 < rows * columns <= MAX_CELLS and 0 < dim <= _MAX_DIM):
        msg = f"{rows} × {columns} cells of {dim} numbers are too many"
        raise ValueError(msg)
    if not 0 < block**2 * dim * 2 <= _MAX_BLOCK_BYTES:
        msg = f"blocks of {block} × {block} cells are too large"
        raise ValueError(msg)


def _grid_meta(grid: TileGrid) -> dict[str, Any]:
    meta = asdict(grid)
    # A store says in words where µm per pixel came from; nothing is decided by it.
    del meta["slide_mpp"]["origin"]
    return meta


def _grid_from(meta: dict[str, Any]) -> TileGrid:
    return TileGrid(**{**meta, "slide_mpp": Mpp(**meta["slide_mpp"])})


def _check_version(path: Path, meta: dict[str, Any]) -> None:
    if meta["format_version"] > FORMAT_VERSION:
        msg = (
            f"{path}: written by a newer version of this program (format "
            f"{meta['format_version']}, this one knows {FORMAT_VERSION}); update the "
            "program, or start again with --restart."
        )
        raise StoreError(msg)


def _to_half(values: npt.NDArray[np.floating], student: str) -> npt.NDArray[np.float16]:
    largest = float(np.abs(values).max(initial=0))
    if not largest <= _LARGEST:
        msg = (
            f"student {student} gave the number {largest:.3g}, more than the store's "
            f"float16 can hold ({_LARGEST:.0f}): its embeddings need rescaling."
        )
        raise ComputeError(msg)
    return values.astype(np.float16)


def _zarr_errors() -> tuple[type[Exception], ...]:
    from zarr.errors import BaseZarrError

    known = (OSError, ValueError, LookupError, TypeError, RuntimeError)
    # InputError comes from the impossible grid of a damaged file.
    more = (AttributeError, ArithmeticError, MemoryError, InputError)
    return (*known, *more, BaseZarrError)


def damage(path: Path) -> AbstractContextManager[None]:
    """Turn what goes wrong while reading into an error that says what to do."""
    words = "the store is damaged ({reason}); compute it again with --restart."
    return _named(StoreError, path, words)


def trouble_writing(path: Path) -> AbstractContextManager[None]:
    """Turn what goes wrong while writing, such as a full disk, into such an error."""
    words = (
        "cannot be written ({reason}); what was finished before is kept, run again to "
        "go on."
    )
    return _named(DiskError, path, words)


@contextmanager
def _named(kind: type[HistodistillError], path: Path, words: str) -> Iterator[None]:
    try:
        yield
    except StoreError:
        raise
    except _zarr_errors() as error:
        lines = str(error).strip().splitlines()
        reason = lines[0] if lines else type(error).__name__
        raise kind(f"{path}: " + words.format(reason=reason)) from error
