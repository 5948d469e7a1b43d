"""The tensor file of a bundle: safetensors only, each tensor checked before use."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from napari_histodistill.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt

NamedArrays = dict[str, "npt.NDArray[Any]"]
"""The tensors of a bundle by name, as numpy arrays."""

MAX_BYTES = 4 * 2**30
"""Larger files are refused: no student for a laptop takes 4 GiB."""

MAX_HEADER_BYTES = 2**24
"""Enough for the names and shapes of a hundred thousand tensors."""

_DTYPES = ("float32", "float16", "int64", "int32")


def write_tensors(path: Path, tensors: Mapping[str, npt.NDArray[Any]]) -> str:
    """Write a safetensors file and return its SHA-256, hex."""
    content = save({name: np.ascontiguousarray(t) for name, t in tensors.items()})
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def read_tensors(path: Path, sha256: str) -> NamedArrays:
    """Read a safetensors file whose bytes are exactly those that were saved.

    The bytes that are hashed are those that are parsed, so that a file that changes in
    between is noticed.

    Raises
    ------
    BundleError
        If it is missing, too large, changed, or not safetensors (a pickle is refused
        without being opened).
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            msg = f"{path} is larger than {MAX_BYTES >> 30} GiB: refused."
            raise BundleError(msg)
        with path.open("rb") as file:
            _check_start(path, file.read(8))
            file.seek(0)
            # Hashed piece by piece, so that a wrong file never fills the memory.
            found = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            content = file.read() if found == sha256 else b""
    except OSError as error:
        msg = f"{path} cannot be read ({error}): get the bundle again."
        raise BundleError(msg) from error
    if found == sha256:
        found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        msg = (
            f"{path} was changed or damaged (SHA-256 {found[:12]}…, the spec says "
            f"{sha256[:12]}…): get the bundle again."
        )
        raise BundleError(msg)
    try:
        tensors: NamedArrays = load(content)
    except (SafetensorError, ValueError, LookupError, TypeError, MemoryError) as error:
        msg = f"{path} is not a safetensors file ({error}): get the bundle again."
        raise BundleError(msg) from error
    return tensors


def _check_start(path: Path, start: bytes) -> None:
    if start.startswith((b"PK", *(bytes([0x80, k]) for k in range(2, 6)))):
        msg = (
            f"{path} is a pickle or a zip archive, not safetensors: refused, because "
            "opening a pickle can run any program."
        )
        raise BundleError(msg)
    header = int.from_bytes(start, "little")
    if not 2 <= header <= min(MAX_HEADER_BYTES, path.stat().st_size - 8):
        msg = (
            f"{path} is not a safetensors file (its header says that it is {header} "
            "bytes long): get the bundle again."
        )
        raise BundleError(msg)


def check_tensors(
    path: Path,
    tensors: NamedArrays,
    expected: Mapping[str, tuple[int, ...]],
    *,
    free_prefix: str | None = None,
) -> None:
    """Refuse tensors with a wrong name, shape, type or value.

    Parameters
    ----------
    path : Path
        The file, for messages.
    tensors : dict
        The tensors as read.
    expected : mapping of str to tuple of int
        Shape of every tensor that must be there.
    free_prefix : str or None
        Tensors whose names start with this are only checked for type and value here;
        the code that builds the encoder checks their names and shapes.

    Raises
    ------
    BundleError
        If there is one; the message names it.
    """
    missing = sorted(set(expected) - set(tensors))
    if missing:
        msg = f"{path}: the tensor {missing[0]} is missing: get the bundle again."
        raise BundleError(msg)
    for name, values in tensors.items():
        free = free_prefix is not None and name.startswith(free_prefix)
        if name not in expected and not free:
            msg = f"{path}: the tensor {name} is not one a student of this kind has."
            raise BundleError(msg)
        if name in expected and values.shape != expected[name]:
            msg = (
                f"{path}: the tensor {name} is {values.shape}, the spec says "
                f"{expected[name]}."
            )
            raise BundleError(msg)
        if values.dtype.name not in _DTYPES:
            msg = f"{path}: the tensor {name} is {values.dtype}, not {_DTYPES[0]}."
            raise BundleError(msg)
        if not np.isfinite(values).all():
            msg = f"{path}: the tensor {name} holds numbers that are not finite."
            raise BundleError(msg)
