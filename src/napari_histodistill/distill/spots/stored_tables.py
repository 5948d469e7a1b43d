"""The way in which a file of AnnData is looked at, whatever it is stored as."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, Protocol

if TYPE_CHECKING:
    import numpy.typing as npt


class StoredTables(Protocol):
    """Groups and arrays under paths such as ``obs/in_tissue``, each with its limits.

    HDF5: :class:`.hdf5_files.Hdf5File`; Zarr: :class:`.stored_zarr.ZarrTables`.
    """

    @property
    def name(self) -> str:
        """Name of the file or folder, for messages."""

    def refuse(self, why: str) -> NoReturn:
        """Raise the error that says why it is not read."""

    def has(self, path: str) -> bool:
        """Whether there is something under a path."""

    def is_group(self, path: str) -> bool:
        """Whether there is a group under a path."""

    def is_array(self, path: str) -> bool:
        """Whether there is an array, or a single value, under a path."""

    def names(self, path: str) -> list[str]:
        """Return what a group holds, or the fields of a table; else nothing."""

    def attribute(self, path: str, name: str) -> str:
        """Return a short text attribute; empty if there is none."""

    def whole_numbers(self, path: str, name: str) -> tuple[int, ...]:
        """Return an attribute of a few whole numbers; empty if there is none."""

    def shape(self, path: str, field: str | None = None) -> tuple[int, ...]:
        """Return the shape of an array, or of a table's field."""

    def is_numeric(self, path: str, field: str | None = None) -> bool:
        """Whether an array, or a table's field, holds plain numbers or truth values."""

    def numbers(
        self, path: str, most: int, field: str | None = None, kind: str = "f8"
    ) -> npt.NDArray[Any]:
        """Return an array of at most so many numbers."""

    def texts(self, path: str, field: str | None = None) -> list[str]:
        """Return a list of texts; numbers are written out."""

    def word(self, path: str) -> str:
        """Return a single text; empty if it is no such."""

    def single(self, path: str) -> float | None:
        """Return a single number, also one written as text; None if it is no such."""
