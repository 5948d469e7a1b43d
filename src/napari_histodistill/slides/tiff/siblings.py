"""Other files that hold planes of the same image, read only from the same folder.

A file names them itself, so each name is a stranger's: it must be a plain name, of a
regular file beside the slide, and the file is checked like any other that is opened.
"""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING, Any

import tifffile

from napari_histodistill.errors import SlideError
from napari_histodistill.slides.codecs.decoding import reason
from napari_histodistill.slides.codecs.filebytes import FileBytes, digest_file
from napari_histodistill.slides.tiff.limits import bounded_pages
from napari_histodistill.slides.tiff.ome import Plane, ome_block
from napari_histodistill.slides.tiff.page import DECODE_ERRORS
from napari_histodistill.slides.tiff.tables import check_tables

if TYPE_CHECKING:
    from pathlib import Path

MAX_FILES = 128
"""Files that one slide may be spread over; each stays open while the slide is."""

MAX_XML_BYTES = 64 * 2**20
"""A ``.companion.ome`` file; those of large plates have some megabytes."""


def parse_tiff(path: Path) -> tifffile.TiffFile:
    """Parse a TIFF's page table.

    Raises
    ------
    SlideError
        If it is not a TIFF or its table is damaged.
    """
    try:
        check_tables(path)
        return tifffile.TiffFile(path)
    except (*DECODE_ERRORS, OSError) as error:
        msg = f"{path.name}: this TIFF is damaged or cut short ({reason(error)})."
        raise SlideError(msg) from error


class FileSet:
    """A TIFF and the files beside it that hold other planes, opened when needed.

    Parameters
    ----------
    tif : tifffile.TiffFile
        The file that was opened; the caller closes it.
    file : FileBytes
        The same file, for reading segments.
    """

    def __init__(self, tif: tifffile.TiffFile, file: FileBytes) -> None:
        self.tif = tif
        self._name, self._folder = file.path.name, file.path.parent
        self._pages: dict[str, list[Any]] = {}
        self._opened: list[tifffile.TiffFile] = []
        self._files: dict[int, FileBytes] = {id(tif): file}
        self.pages = bounded_pages(tif.pages, self._name)
        self.uuid = ""

    @property
    def files(self) -> tuple[FileBytes, ...]:
        """All open files, the one that was opened first."""
        return tuple(self._files.values())

    def bytes_of(self, page: Any) -> FileBytes:
        """Return the file that a page is in."""
        return self._files[id(page.parent)]

    def holds(self, plane: Plane) -> bool:
        """Return whether a plane lies in the file that was opened.

        A file that was renamed is known by its identifier, unless a file of the name
        that is stated lies beside it.
        """
        if not plane.file:
            return not plane.uuid or not self.uuid or plane.uuid == self.uuid
        if _bare(plane.file) == self._name:
            return True
        return plane.uuid == self.uuid != "" and self._problem(plane.file) != ""

    def page_of(self, plane: Plane, channel: str) -> Any:
        """Return the page of a plane.

        Raises
        ------
        SlideError
            If the file is missing, is another one, or does not have the page.
        """
        pages = self.pages if self.holds(plane) else self._beside(plane, channel)
        if not 0 <= plane.page < len(pages):
            msg = (
                f"{self._name}: the plane of channel {channel} is said to be page "
                f"{plane.page} of {plane.file or self._name}, which has {len(pages)}; "
                "the file is damaged or was cut."
            )
            raise SlideError(msg)
        return pages[plane.page]

    def read_xml(self, name: str) -> str:
        """Return the OME-XML of a file beside this one, which describes both.

        Raises
        ------
        SlideError
            If it is missing or cannot be read.
        """
        path = self._path(name, f"its description is in the file {name}")
        if name.casefold().endswith((".tif", ".tiff", ".btf", ".tf2", ".tf8")):
            return str(self._open(path)[0].description)
        with path.open("rb") as file:
            text = file.read(MAX_XML_BYTES + 1)
        if len(text) > MAX_XML_BYTES:
            msg = f"{self._name}: {name} is too large for a description in OME-XML."
            raise SlideError(msg)
        return text.decode("utf-8", errors="replace")

    def close_tables(self) -> None:
        """Close what was only needed to find the pages; their bytes stay open."""
        for tif in self._opened:
            tif.close()
        self._opened.clear()

    def close(self) -> None:
        """Close everything."""
        self.close_tables()
        for file in self.files:
            file.close()

    def _beside(self, plane: Plane, channel: str) -> list[Any]:
        if not plane.file:
            msg = (
                f"{self._name}: the plane of channel {channel} is in another file, "
                "which is not named; open that file, or convert all into one."
            )
            raise SlideError(msg)
        why = f"the plane of channel {channel} is in the file {plane.file}"
        path = self._path(plane.file, why)
        pages = self._open(path)
        theirs = ome_block(pages[0].description).uuid if pages else ""
        if self._is_copy(pages):
            msg = (
                f"{self._name}: {why}, but {path.name} beside it is a copy of this "
                "one; put the right one there."
            )
            raise SlideError(msg)
        if theirs and plane.uuid and theirs != plane.uuid:
            msg = (
                f"{self._name}: {why}, but the file of this name beside it is another "
                "one (its UUID differs); put the right one there."
            )
            raise SlideError(msg)
        return pages

    def _is_copy(self, pages: list[Any]) -> bool:
        """Whether these pages are of a file with the bytes of the one opened."""
        own = self._files[id(self.tif)]
        return any(
            digest_file(self.bytes_of(page)) == digest_file(own) for page in pages[:1]
        )

    def _path(self, name: str, why: str) -> Path:
        problem = self._problem(name)
        if problem:
            msg = f"{self._name}: {why}, {problem}."
            raise SlideError(msg)
        return self._folder / self._beside_name(name)

    def _beside_name(self, name: str) -> str:
        """Return the name that a file has in this folder.

        Some writers state the path that it had where it was written. The folders in it
        are a stranger's and are never followed, but the file may lie beside this one.
        """
        bare = _bare(name)
        return bare if bare != name and not self._problem_of(bare) else name

    def _problem(self, name: str) -> str:
        """Return why a file that is named cannot be read; empty if it can."""
        return self._problem_of(self._beside_name(name))

    def _problem_of(self, name: str) -> str:
        if name in {"", ".", ".."} or set(name) & set("/\\:\0") or len(name) > 255:
            return "which is not a name inside its folder; put all files into one"
        try:
            kind = (self._folder / name).lstat().st_mode
        except (OSError, ValueError):
            return "which is missing; put it beside this one"
        if not stat.S_ISREG(kind):
            return "which is a link or not a file; put the file itself beside this one"
        return ""

    def _open(self, path: Path) -> list[Any]:
        known = self._pages.get(path.name)
        if known is not None:
            return known
        if len(self._files) >= MAX_FILES:
            msg = (
                f"{self._name}: its planes are spread over more than {MAX_FILES} files."
            )
            raise SlideError(msg)
        tif = parse_tiff(path)
        self._opened.append(tif)
        self._files[id(tif)] = FileBytes(path)
        self._pages[path.name] = bounded_pages(tif.pages, path.name)
        return self._pages[path.name]


def _bare(name: str) -> str:
    """Return a name without the folders before it, of Windows or of others."""
    return re.split(r"[/\\]", name)[-1]
