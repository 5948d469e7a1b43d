"""The tile folder: images with labels, cases and folds, described by a manifest.

``manifest.csv`` has a header and a row per tile: ``image`` (a path, relative to the
folder), and where there are any ``label``, ``case_id``, ``fold`` and partner columns
(``mask``, ``dense``…), which are kept as they are.
"""

from __future__ import annotations

import csv
import ntpath
import os
import warnings
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePath, PureWindowsPath
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from napari_histodistill.errors import TileFolderError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

MANIFEST = "manifest.csv"
MAX_COLUMNS, MAX_ROWS = 1000, 10_000_000
MAX_TILE_PX = 64 * 10**6
"""Most pixels: an image of 8000 × 8000 px is not a tile."""

# Errors that NumPy raises for files that are not what they claim to be.
_NUMBER_ERRORS = (OSError, ValueError, TypeError, EOFError, MemoryError, OverflowError)
_COLUMNS = ("image", "label", "case_id", "fold")
_COLOUR_MODES = ("1", "RGB", "RGBA", "L", "P", "LA", "CMYK", "YCbCr")


@dataclass(frozen=True, slots=True)
class Tile:
    """One row of a manifest.

    Attributes
    ----------
    row : int
        Line in ``manifest.csv``, as an editor counts (the header is line 1).
    image : Path
        Path of the image.
    label, case_id, fold : str
        Empty where the manifest does not say.
    partners : mapping of str to str
        The other columns, unchanged.
    """

    row: int
    image: Path
    label: str
    case_id: str
    fold: str
    partners: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TileFolder:
    """A manifest that was read and checked; make one with :func:`read_tile_folder`.

    Attributes
    ----------
    folder : Path
        The folder itself.
    tiles : tuple of Tile
        At least one, in the manifest's order.
    """

    folder: Path
    tiles: tuple[Tile, ...]

    def __len__(self) -> int:
        return len(self.tiles)

    def labels(self) -> npt.NDArray[np.str_]:
        """Return every tile's label, ``(n,)``.

        Raises
        ------
        TileFolderError
            If a tile has none.
        """
        return self._complete("label", [t.label for t in self.tiles])

    def case_ids(self) -> npt.NDArray[np.str_] | None:
        """Return every tile's case, ``(n,)``, or None if no tile has one.

        Raises
        ------
        TileFolderError
            If some have one and some have not.
        """
        ids = [t.case_id for t in self.tiles]
        return self._complete("case_id", ids) if any(ids) else None

    def folds(self) -> npt.NDArray[np.str_] | None:
        """Return every tile's fold, ``(n,)``, or None if no tile has one.

        Raises
        ------
        TileFolderError
            If some have one and some have not, or one case lies in two folds: a score
            would then be flattered.
        """
        named = [t.fold for t in self.tiles]
        if not any(named):
            return None
        home: dict[str, Tile] = {}
        for tile in self.tiles:
            first = home.setdefault(tile.case_id or str(tile.image), tile)
            if first.fold != tile.fold:
                msg = (
                    f"{self._place(tile)}: case {tile.case_id!r} is in fold "
                    f"{tile.fold!r} here but in fold {first.fold!r} in row "
                    f"{first.row}: keep every case in one fold."
                )
                raise TileFolderError(msg)
        return self._complete("fold", named)

    def classes(self, names: Sequence[str]) -> npt.NDArray[np.intp]:
        """Return every tile's label as its index in ``names``, ``(n,)``.

        Raises
        ------
        TileFolderError
            If a tile has none of these labels.
        """
        for tile in self.tiles:
            if tile.label not in names:
                said = f"has the label {tile.label!r}" if tile.label else "has no label"
                msg = (
                    f"{self._place(tile)} {said}; the recipe's classes are "
                    f"{', '.join(names)}."
                )
                raise TileFolderError(msg)
        places = {name: place for place, name in enumerate(names)}
        return np.array([places[tile.label] for tile in self.tiles], np.intp)

    def without(self, leave_out: Sequence[str]) -> TileFolder:
        """Return the tiles outside the folds that ``data.leave_out`` names.

        Raises
        ------
        TileFolderError
            If there is no such fold, or no tile is left.
        """
        folds = self.folds()
        named = set() if folds is None else set(folds.tolist())
        missing = sorted(set(leave_out) - named)
        if missing:
            msg = (
                f"data.leave_out: {self.folder} has no fold {missing[0]!r}, only "
                f"{', '.join(sorted(named)) or 'tiles without folds'}."
            )
            raise TileFolderError(msg)
        tiles = tuple(tile for tile in self.tiles if tile.fold not in leave_out)
        if not tiles:
            msg = f"data.leave_out: no tile of {self.folder} is left to train on."
            raise TileFolderError(msg)
        return TileFolder(self.folder, tiles)

    def read(
        self, tile: Tile, tile_px: int
    ) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
        """Read one image at the size that the student needs.

        A square image of another size is resized: it is assumed to show the tissue of
        one whole tile. Transparent pixels become white.

        Parameters
        ----------
        tile : Tile
            One of :attr:`tiles`.
        tile_px : int
            Edge of the student's tile, px.

        Returns
        -------
        pixels : ndarray
            ``(tile_px, tile_px, 3)`` uint8, RGB.
        size : tuple of int
            Height and width in the file.

        Raises
        ------
        TileFolderError
            If it is not an 8-bit image, or not square.
        """
        image = self._open(tile, tile.image)
        width, height = image.size
        rgb = _on_white(image)
        if width != tile_px:
            rgb = rgb.resize((tile_px, tile_px), Image.Resampling.BICUBIC)
        return np.asarray(rgb), (height, width)

    def size(self, tile: Tile) -> tuple[int, int]:
        """Return height and width of an image, of which no more than that is read.

        Raises
        ------
        TileFolderError
            If it cannot be opened.
        """
        try:
            with _opened(tile.image) as opened:
                return opened.height, opened.width
        except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
            msg = f"{self._place(tile)}: {tile.image} cannot be read ({error})."
            raise TileFolderError(msg) from error

    def read_partner(
        self, tile: Tile, column: str, kind: str, tile_px: int
    ) -> npt.NDArray[np.generic]:
        """Read the file that a partner column names.

        Parameters
        ----------
        tile : Tile
            One of :attr:`tiles`.
        column : str
            Column of the manifest, which holds a path relative to the folder.
        kind : {"image", "channels", "mask", "expression"}
            An image of three channels (colours or not), an image of categories, or a
            NumPy file ``(genes,)``.
        tile_px : int
            Edge that images are resized to; categories are not blended.

        Returns
        -------
        ndarray
            ``(tile_px, tile_px, 3)`` uint8, ``(tile_px, tile_px, 1)`` uint8, or
            ``(genes,)`` float32.

        Raises
        ------
        TileFolderError
            If there is no such column or file, or it is not of that kind.
        """
        path = self._partner_file(tile, column)
        if kind == "expression":
            return self._read_expression(tile, path)
        image = self._open(tile, path)
        if kind in {"image", "channels"}:
            rgb = _on_white(image)
            if rgb.size != (tile_px, tile_px):
                rgb = rgb.resize((tile_px, tile_px), Image.Resampling.BICUBIC)
            return np.asarray(rgb)
        # A palette's entries are the categories; their colours are not.
        grey = image if image.mode == "P" else image.convert("L")
        if grey.size != (tile_px, tile_px):
            grey = grey.resize((tile_px, tile_px), Image.Resampling.NEAREST)
        return np.asarray(grey)[:, :, np.newaxis]

    def _partner_file(self, tile: Tile, column: str) -> Path:
        if column not in tile.partners:
            named = ", ".join(sorted(tile.partners)) or "no partners"
            msg = (
                f"{self.folder / MANIFEST}: dense.column names {column!r}, the "
                f"manifest has {named}."
            )
            raise TileFolderError(msg)
        if not tile.partners[column]:
            msg = f"{self._place(tile)}: the column {column!r} is empty: fill it."
            raise TileFolderError(msg)
        path = _inside(self.folder, tile.partners[column], self._place(tile))
        if not _is_file(path):
            msg = f"{self._place(tile)}: there is no file {path}."
            raise TileFolderError(msg)
        return path

    def _read_expression(self, tile: Tile, path: Path) -> npt.NDArray[np.float32]:
        try:
            # Mapped: a header may claim more numbers than the file, or memory, has.
            stored = np.load(path, mmap_mode="r", allow_pickle=False)
            if not isinstance(stored, np.ndarray):
                msg = "an archive of several arrays"
                raise ValueError(msg)
            values = np.array(stored, np.float32)
        except _NUMBER_ERRORS as error:
            msg = f"{self._place(tile)}: {path} cannot be read as numbers ({error})."
            raise TileFolderError(msg) from error
        if values.ndim != 1 or not np.isfinite(values).all():
            msg = (
                f"{self._place(tile)}: {path} must hold one finite number per gene, "
                f"not an array of shape {values.shape}."
            )
            raise TileFolderError(msg)
        return values

    def _open(self, tile: Tile, path: Path) -> Image.Image:
        """Return a square image with 8 bits per channel, all of it in memory."""
        try:
            with _opened(path) as opened:
                if opened.width * opened.height > MAX_TILE_PX:
                    raise Image.DecompressionBombError
                opened.load()
                image: Image.Image = opened.copy()
        except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
            msg = f"{self._place(tile)}: {path} cannot be read ({error})."
            raise TileFolderError(msg) from error
        except Image.DecompressionBombError as error:
            msg = f"{self._place(tile)}: {path} is far too large for a tile."
            raise TileFolderError(msg) from error
        width, height = image.size
        if image.mode not in _COLOUR_MODES or width != height:
            msg = (
                f"{self._place(tile)}: {path} is {height} × {width} px of mode "
                f"{image.mode}; a tile must be a square image with 8 bits per channel."
            )
            raise TileFolderError(msg)
        return image

    def _place(self, tile: Tile) -> str:
        return f"{self.folder / MANIFEST} row {tile.row}"

    def _complete(self, column: str, values: list[str]) -> npt.NDArray[np.str_]:
        for tile, value in zip(self.tiles, values, strict=True):
            if not value:
                msg = f"{self._place(tile)}: the column {column!r} is empty: fill it."
                raise TileFolderError(msg)
        return np.array(values)


def read_tile_folder(folder: str | Path) -> TileFolder:
    """Read and check a tile folder's manifest; images are not opened yet.

    Parameters
    ----------
    folder : str or Path
        Folder with a ``manifest.csv``.

    Raises
    ------
    TileFolderError
        Naming the row and column that cannot be used, and why.
    """
    home = Path(folder)
    path = home / MANIFEST
    if not path.is_file():
        what = "is not a tile folder" if home.is_dir() else "does not exist"
        msg = f"{home} {what}: a folder with a {MANIFEST} is needed."
        raise TileFolderError(msg)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.reader(file, strict=True)
            header = _header(path, next(table, []))
            rows = list(islice(table, MAX_ROWS + 1))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        msg = f"{path} cannot be read as a CSV table in UTF-8 ({error})."
        raise TileFolderError(msg) from error
    if len(rows) > MAX_ROWS:
        msg = f"{path} lists more than {MAX_ROWS} tiles: split the folder."
        raise TileFolderError(msg)
    tiles: list[Tile] = []
    seen: dict[Path, int] = {}
    for number, row in enumerate(rows, start=2):
        if not any(row):
            continue
        tile = _tile(path, header, number, row)
        earlier = seen.setdefault(tile.image, number)
        if earlier != number:
            msg = f"{path} row {number}: {tile.image.name} is in row {earlier} already."
            raise TileFolderError(msg)
        tiles.append(tile)
    if not tiles:
        msg = f"{path} lists no tiles: add a row for each."
        raise TileFolderError(msg)
    return TileFolder(home, tuple(tiles))


def _header(path: Path, row: list[str]) -> list[str]:
    if len(row) > MAX_COLUMNS:
        msg = f"{path} has {len(row)} columns; a manifest has at most {MAX_COLUMNS}."
        raise TileFolderError(msg)
    header = [name.strip() for name in row]
    if "image" not in header:
        msg = f"{path}: the header has no column 'image', only {header}."
        raise TileFolderError(msg)
    if len(set(header)) != len(header):
        msg = f"{path}: the header names a column twice: {header}."
        raise TileFolderError(msg)
    return header


def _inside(folder: Path, name: str, where: str) -> Path:
    """Return a path of the manifest, which may not lead out of its folder."""
    # By the rules of both systems: a manifest travels. C:x.png has a drive and no root,
    # \\x.png a root and no drive, and either leads out.
    windows = PureWindowsPath(name)
    leads_out = bool(windows.drive or windows.root) or any(
        path.is_absolute() or path.parts[:1] == ("..",)
        for path in (
            PurePath(os.path.normpath(name)),
            PureWindowsPath(ntpath.normpath(name)),
        )
    )
    if leads_out or _is_linked_out(folder, name):
        msg = f"{where}: {name} lies outside the folder: copy the file into it."
        raise TileFolderError(msg)
    return folder / name


def _is_linked_out(folder: Path, name: str) -> bool:
    """Whether a link on the way leads out: pairs made of a folder are shared."""
    try:
        return not (folder / name).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a circle of links, a name too long
        return False  # there is no such file, which is said with its row


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name longer than the disk allows
        return False


def _opened(path: Path) -> Image.Image:
    with warnings.catch_warnings():
        # Our own lower limit replaces Pillow's warning.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(path)


def _tile(path: Path, header: list[str], number: int, row: list[str]) -> Tile:
    if len(row) != len(header):
        msg = (
            f"{path} row {number}: {len(row)} values for {len(header)} columns "
            f"({', '.join(header)})."
        )
        raise TileFolderError(msg)
    values = {k: v.strip() for k, v in zip(header, row, strict=True)}
    if not values["image"]:
        msg = f"{path} row {number}: the column 'image' is empty."
        raise TileFolderError(msg)
    image = _inside(path.parent, values["image"], f"{path} row {number}")
    if not _is_file(image):
        msg = f"{path} row {number}: there is no file {image}."
        raise TileFolderError(msg)
    partners = {k: v for k, v in values.items() if k not in _COLUMNS}
    label, case_id, fold = (values.get(k, "") for k in _COLUMNS[1:])
    return Tile(number, image, label, case_id, fold, partners)


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
