"""Small 3DHISTECH MRXS slides, written from the public description of the format.

A file stands beside a folder with an index and the images of all levels. The camera's
photos are cut into images; photos overlap, the images of one do not. A coarser level
joins images as they are, so that one of its images may hold parts of several photos.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tests.slides.formats.made_slides import (
    TILE,
    MadeSlide,
    Picture,
    as_jpeg,
    composed,
    joined,
    of_jpeg,
    scene,
    shrunk,
)

if TYPE_CHECKING:
    from pathlib import Path

Piece = tuple[Picture, tuple[int, int]]
"""Pixels and the place ``(y, x)`` of their corner in the level."""

MRXS_ID = "00112233445566778899AABBCCDDEEFF"


@dataclass(frozen=True)
class Mrxs:
    """The geometry of a slide: counts and edges in images and pixels of level 0."""

    across: int
    down: int
    divisions: int  # images per side of a photo
    overlap: int
    levels: int
    missing: frozenset[tuple[int, int]] = frozenset()  # photos (row, column)
    jitter: int = 0  # px by which the recorded positions differ from the regular ones

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """Return where the image in a row and a column lies in level 0."""
        found = []
        for k, other in ((row, column), (column, row)):
            photo, inside = divmod(k, self.divisions)
            pitch = TILE * self.divisions - self.overlap
            moved = self.jitter * ((photo + other // self.divisions) % 2)
            found.append(photo * pitch + moved + inside * TILE)
        return found[0], found[1]

    def scanned(self, row: int, column: int) -> bool:
        photo = row // self.divisions, column // self.divisions
        inside = row < self.down and column < self.across
        return inside and photo not in self.missing

    def images(self, step: int = 1) -> list[tuple[int, int]]:
        """Return the rows and columns of all images, or of every so many."""
        rows, columns = range(0, self.down, step), range(0, self.across, step)
        return [(row, column) for row in rows for column in columns]

    def size(self, count: int) -> int:
        return count * TILE - (count // self.divisions - 1) * self.overlap


def make_edge_to_edge(folder: Path) -> MadeSlide:
    """Two levels of 4 × 5 images that meet edge to edge."""
    return make(folder, Mrxs(across=5, down=4, divisions=1, overlap=0, levels=2))


def make_overlapping(folder: Path) -> MadeSlide:
    """Three levels of 4 × 4 photos that overlap by 12 px; some were not scanned."""
    edges = {(0, k) for k in range(4)} | {(k, 0) for k in range(4)}
    missing = frozenset(edges | {(2, 3)})
    return make(
        folder,
        Mrxs(across=8, down=8, divisions=2, overlap=12, levels=3, missing=missing),
    )


def make_positions(folder: Path) -> MadeSlide:
    """The same with the place of every photo in the file, off by four pixels."""
    missing = frozenset({(0, k) for k in range(3)} | {(3, 2)})
    return make(
        folder,
        Mrxs(
            across=6, down=8, divisions=2, overlap=12, levels=3,
            missing=missing, jitter=4,
        ),
    )  # fmt: skip


def make(folder: Path, form: Mrxs) -> MadeSlide:
    """Write a slide of any geometry."""
    data = bytearray(b"\0" * 16)
    index = []
    levels = []
    for exponent in range(form.levels):
        entries, level = _level(form, 2**exponent, data)
        index.append(entries)
        levels.append(level)
    seen, records = {}, []
    for k, name in enumerate(("macro", "label", "thumbnail")):
        jpeg = as_jpeg(scene(30 + k, 50, seed=5 + k))
        seen[name] = of_jpeg(jpeg)
        records.append((len(data), len(jpeg)))
        data += jpeg
    if form.jitter:
        positions = _positions(form)
        records.append((len(data), len(positions)))
        data += positions
    path = folder / "made.mrxs"
    path.write_bytes(as_jpeg(seen["thumbnail"]))
    inside = folder / "made"
    inside.mkdir()
    (inside / "Slidedat.ini").write_text(_ini(form), encoding="utf-8")
    (inside / "Index.dat").write_bytes(_index(index, records))
    (inside / "Data0000.dat").write_bytes(data)
    corners = np.array([form.corner(*at) for at in form.images() if form.scanned(*at)])
    y, x = (int(k) for k in corners.min(axis=0))
    origin = None if (y, x) == (0, 0) else (y, x)
    return MadeSlide(path, "mirax", tuple(levels), (0.5, 0.4), seen, origin)


def _level(
    form: Mrxs, concat: int, data: bytearray
) -> tuple[list[tuple[int, int, int, int]], Picture]:
    """Write the images of a level; return their places in the file, and the picture.

    ``concat`` images of level 0 per side are one image of the level.
    """
    height, width = form.size(form.down), form.size(form.across)
    whole = scene(height + form.jitter, width + form.jitter)

    def image(row: int, column: int) -> Picture:
        y, x = form.corner(row, column)
        cut = whole[y : y + TILE, x : x + TILE]
        return cut if form.scanned(row, column) else np.full((TILE, TILE, 3), 255, "u1")

    entries = []
    placed: dict[tuple[int, int], Piece] = {}
    steps = range(concat)
    for row, column in form.images(concat):
        within = [[(row + r, column + c) for c in steps] for r in steps]
        if not any(form.scanned(*at) for line in within for at in line):
            continue
        parts = [[image(*at) for at in line] for line in within]
        jpeg = as_jpeg(shrunk(joined(parts), concat))
        entries.append((row * form.across + column, len(data), len(jpeg), 0))
        data += jpeg
        placed |= _pieces(form, of_jpeg(jpeg), (row, column), concat)
    in_order = [placed[at] for at in sorted(placed)]
    return entries, composed((height // concat, width // concat), in_order)


def _pieces(
    form: Mrxs, image: Picture, start: tuple[int, int], concat: int
) -> dict[tuple[int, int], Piece]:
    """Return the parts of a level's image that come from one photo each.

    Keys are the row and column of their first image, values the pixels and the place.
    """
    pieces = max(1, concat // form.divisions)
    edge = TILE // pieces
    found = {}
    for r in range(pieces):
        for c in range(pieces):
            at = start[0] + r * form.divisions, start[1] + c * form.divisions
            if pieces > 1 and not form.scanned(*at):
                continue
            y, x = form.corner(*at)
            piece = image[r * edge : (r + 1) * edge, c * edge : (c + 1) * edge]
            found[at] = piece, (y // concat, x // concat)
    return found


def _positions(form: Mrxs) -> bytes:
    out = b""
    for row in range(0, form.down, form.divisions):
        for column in range(0, form.across, form.divisions):
            y, x = form.corner(row, column)
            known = form.scanned(row, column)
            out += struct.pack("<Bii", known, x if known else 0, y if known else 0)
    return out


def _index(
    entries: list[list[tuple[int, int, int, int]]], records: list[tuple[int, int]]
) -> bytes:
    """Return the index: chains of pages for the levels, and for everything else."""
    out = bytearray(b"01.02" + MRXS_ID.encode())
    roots = len(out)
    out += bytes(8)

    def table(count: int, root: int) -> int:
        struct.pack_into("<i", out, root, len(out))
        out.extend(bytes(4 * count))
        return len(out) - 4 * count

    def page(pointer: int, numbers: list[int]) -> None:
        struct.pack_into("<i", out, pointer, len(out))
        out.extend(struct.pack("<ii", 0, len(out) + 8))
        out.extend(struct.pack(f"<{len(numbers)}i", *numbers))

    first = table(len(entries), roots)
    for k, level in enumerate(entries):
        flat = [number for entry in level for number in entry]
        page(first + 4 * k, [len(level), 0, *flat])
    first = table(len(records), roots + 4)
    for k, (place, size) in enumerate(records):
        page(first + 4 * k, [1, 0, 0, 0, place, size, 0])
    return bytes(out)


def _ini(form: Mrxs) -> str:
    layers = ("SlideThumbnail", "SlideBarcode", "SlidePreview")
    kinds = ("THUMBNAIL", "BARCODE", "PREVIEW")
    listed: dict[str, dict[str, object]] = {
        "GENERAL": {
            "SLIDE_VERSION": "02.01", "SLIDE_ID": MRXS_ID, "SLIDE_NAME": "made",
            "IMAGENUMBER_X": form.across, "IMAGENUMBER_Y": form.down,
            "OBJECTIVE_MAGNIFICATION": 20,
            "CameraImageDivisionsPerSide": form.divisions,
        },
        "HIERARCHICAL": {
            "INDEXFILE": "Index.dat", "HIER_COUNT": 1,
            "HIER_0_NAME": "Slide zoom level", "HIER_0_COUNT": form.levels,
            "NONHIER_COUNT": 2 if form.jitter else 1,
            "NONHIER_0_NAME": "Scan data layer", "NONHIER_0_COUNT": len(layers),
        },
        "DATAFILE": {"FILE_COUNT": 1, "FILE_0": "Data0000.dat"},
    }  # fmt: skip
    parts = listed["HIERARCHICAL"]
    for k, (layer, kind) in enumerate(zip(layers, kinds, strict=True)):
        parts[f"NONHIER_0_VAL_{k}"] = f"ScanDataLayer_{layer}"
        parts[f"NONHIER_0_VAL_{k}_SECTION"] = f"LAYER_{k}"
        listed[f"LAYER_{k}"] = {f"{kind}_IMAGE_TYPE": "JPEG"}
    if form.jitter:
        parts |= {
            "NONHIER_1_NAME": "VIMSLIDE_POSITION_BUFFER", "NONHIER_1_COUNT": 1,
            "NONHIER_1_VAL_0": "default", "NONHIER_1_VAL_0_SECTION": "POSITIONS",
            "NONHIER_1_SECTION": "POSITIONS",
        }  # fmt: skip
        listed["POSITIONS"] = {"VIMSLIDE_POSITION_DATA_FORMAT_VERSION": 257}
    for k in range(form.levels):
        parts[f"HIER_0_VAL_{k}_SECTION"] = f"LEVEL_{k}"
        listed[f"LEVEL_{k}"] = {
            "IMAGE_CONCAT_FACTOR": int(k > 0),
            "OVERLAP_X": form.overlap / 2**k, "OVERLAP_Y": form.overlap / 2**k,
            "MICROMETER_PER_PIXEL_X": 0.4 * 2**k, "MICROMETER_PER_PIXEL_Y": 0.5 * 2**k,
            "IMAGE_FILL_COLOR_BGR": 0xFFFFFF, "IMAGE_FORMAT": "JPEG",
            "DIGITIZER_WIDTH": TILE, "DIGITIZER_HEIGHT": TILE,
        }  # fmt: skip
    return "\n".join(
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
        for group, keys in listed.items()
    )
