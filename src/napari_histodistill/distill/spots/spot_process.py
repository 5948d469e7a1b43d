"""HDF5 files of spots, read in a process of their own.

On damaged bytes the HDF5 library may crash, or go round in circles for ever, whatever
is checked before; inside napari that would end or freeze the window. A process can be
given up, and what it hands back is plain arrays.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_histodistill.distill.spots.spot_tables import (
    RawSpots,
    SpotTable,
    check_spots,
)
from napari_histodistill.distill.spots.spot_wish import (
    SeveralLibrariesError,
    SpotWish,
)
from napari_histodistill.errors import InputError
from napari_histodistill.running import SAFE_PATH, CancelToken, python_command

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SpotSource = Literal["h5ad", "matrix", "folder"]

LEAST_S = 120.0
"""Seconds that any file may take; a hang of the library ends then."""

MOST_MEMORY = 2**30
"""Bytes that any file may take; a larger one may take :data:`MEMORY_RATIO` times its
size on top. A byte changed in a few kilobytes makes the library take gigabytes."""

MEMORY_RATIO = 128

_BYTES_PER_S = 1e6
_LOOK_S = 0.1
_ARRAYS, _WORDS = "table.npz", "table.json"


def read_apart(
    path: Path, source: SpotSource, wish: SpotWish, cancel: CancelToken | None = None
) -> SpotTable:
    """Read and check spots in another process.

    Parameters
    ----------
    path : Path
        A file, or Space Ranger's folder.
    source : {"h5ad", "matrix", "folder"}
        What it is.
    wish : SpotWish
        Library and genes that are wanted.
    cancel : CancelToken or None
        Ends the process.

    Raises
    ------
    InputError
        If it cannot be used, or reading it crashes or does not end.
    Cancelled
        If asked to stop.
    """
    seconds = LEAST_S + _size(path) / _BYTES_PER_S
    with tempfile.TemporaryDirectory() as folder:
        wanted = json.dumps(wish.content())
        command = python_command(__name__, source, str(path), wanted, folder)
        try:
            said = _run(command, seconds, cancel or CancelToken())
        except subprocess.TimeoutExpired as error:
            msg = (
                f"{path.name} cannot be read: it did not end within {seconds:.0f} s. It"
                " may be damaged, or on a disk that does not answer."
            )
            raise InputError(msg) from error
        return _handed_back(path.name, Path(folder), said)


def _run(command: list[str], seconds: float, cancel: CancelToken) -> str:
    """Run a process to its end, and return its last words; never leave it behind."""
    until = time.monotonic() + seconds
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | SAFE_PATH,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    ) as process:
        try:
            words = _awaited(process, until, cancel)
        except BaseException:
            process.kill()
            raise
    last = words.decode("utf-8", "replace").strip().splitlines()
    return last[-1][:200] if last else f"status {process.returncode}"


def _awaited(
    process: subprocess.Popen[bytes], until: float, cancel: CancelToken
) -> bytes:
    """Return what a process says on stderr, once it has ended."""
    while True:
        cancel.check()
        try:
            return process.communicate(timeout=_LOOK_S)[1]
        except subprocess.TimeoutExpired:
            if time.monotonic() > until:
                raise


def _size(path: Path) -> int:
    """Return the bytes of a file, or of the matrices in a folder."""
    if path.is_file():
        return path.stat().st_size
    from napari_histodistill.distill.spots.zarr_tables import is_zarr, tables_bytes

    if is_zarr(path):
        return tables_bytes(path)
    return max((p.stat().st_size for p in path.glob("*.h5")), default=0)


def _handed_back(name: str, folder: Path, why: str) -> SpotTable:
    words = folder / _WORDS
    if not words.exists():
        msg = (
            f"{name} cannot be read: reading it ended early ({why}). It may be "
            "damaged, or memory is short."
        )
        raise InputError(msg)
    said: dict[str, Any] = json.loads(words.read_bytes())
    if "libraries" in said:
        raise SeveralLibrariesError(said["refused"], said["libraries"])
    if "refused" in said:
        raise InputError(said["refused"])
    with np.load(folder / _ARRAYS, allow_pickle=False) as arrays:
        return SpotTable(
            **said
            | {key: tuple(said[key]) for key in ("genes", "notes")}
            | {key: arrays[key] for key in ("positions", "values")}
        )


def bound_memory(size: int) -> None:
    """Cap what this process may still take, on Linux; elsewhere only memory ends it.

    Parameters
    ----------
    size : int
        Of the file that is to be read, in bytes.
    """
    if sys.platform == "linux":
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MOST_MEMORY + MEMORY_RATIO * size
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _folder_reader(path: Path) -> Callable[[Path, SpotWish], RawSpots]:
    from napari_histodistill.distill.spots.space_ranger import read_folder
    from napari_histodistill.distill.spots.xenium import is_xenium, read_xenium
    from napari_histodistill.distill.spots.zarr_tables import is_zarr, read_zarr

    if is_zarr(path):
        return read_zarr
    return read_xenium if is_xenium(path) else read_folder


def main(arguments: Sequence[str]) -> None:
    """Read what the arguments name, and leave it in the folder named last."""
    from napari_histodistill.distill.spots.h5ad_files import read_h5ad
    from napari_histodistill.distill.spots.space_ranger import read_matrix
    from napari_histodistill.distill.spots.xenium import MATRIX, is_xenium, read_xenium

    source, path, wanted, folder = arguments
    wish = SpotWish.read(json.loads(wanted))
    bound_memory(_size(Path(path)))
    readers: dict[str, Callable[[Path], RawSpots]] = {
        "h5ad": lambda file: read_h5ad(file, wish),
        "matrix": lambda file: (
            read_xenium(file.parent, wish)
            if file.name == MATRIX and is_xenium(file.parent)
            else read_matrix(file, wish)
        ),
        "folder": lambda file: _folder_reader(file)(file, wish),
    }
    words: dict[str, Any]
    try:
        table = check_spots(readers[source](Path(path)), wish)
    except SeveralLibrariesError as error:
        words = {"refused": str(error), "libraries": error.names}
    except InputError as error:
        words = {"refused": str(error)}
    except MemoryError:
        name = Path(path).name
        words = {
            "refused": f"{name} needs more memory than there is: keep fewer genes."
        }
    else:
        words = asdict(table)
        arrays = {key: words.pop(key) for key in ("positions", "values")}
        np.savez(Path(folder) / _ARRAYS, **arrays)
    # Last: where it stands, all is there.
    (Path(folder) / _WORDS).write_text(json.dumps(words), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
