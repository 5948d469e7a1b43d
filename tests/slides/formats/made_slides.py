"""Small slides in vendors' formats, written from the public descriptions of these.

Each maker returns the file and the right picture of each stored level, put together
from the tiles by the format's rules and decoded with libraries other than the readers
under test. Where nothing was scanned the picture is white.
"""

from __future__ import annotations

import base64
import io
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from tests.slides.factory import picture

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TILE = 64
Picture = np.ndarray
"""``(height, width, 3)`` uint8."""


@dataclass(frozen=True)
class MadeSlide:
    """A written slide and everything that a reader must find in it.

    ``mpp``, ``bounds_origin`` are ``(y, x)``; ``levels`` are those that are stored.
    """

    path: Path
    vendor: str
    levels: tuple[Picture, ...]
    mpp: tuple[float, float]
    associated: dict[str, Picture] = field(default_factory=dict)
    bounds_origin: tuple[int, int] | None = None


def scene(height: int, width: int, seed: int = 1) -> Picture:
    """Return a picture that survives halving: no two of its places are alike."""
    return picture(height, width, seed=seed)


def shrunk(image: Picture, factor: int) -> Picture:
    """Return the means of squares."""
    height, width = image.shape[0] // factor, image.shape[1] // factor
    cut = image[: height * factor, : width * factor].astype(float)
    squares = cut.reshape(height, factor, width, factor, 3)
    return np.rint(squares.mean(axis=(1, 3))).astype(np.uint8)


def padded(image: Picture, edge: int = TILE) -> Picture:
    """Return the image with white at the right and below, up to whole tiles."""
    more = [(0, -size % edge) for size in image.shape[:2]]
    return np.pad(image, [*more, (0, 0)], constant_values=255)


def as_jpeg(image: Picture, **options: Any) -> bytes:
    """Return a JPEG without chroma subsampling, so that decoders agree to the bit."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=92, subsampling=0, **options)
    return file.getvalue()


def of_jpeg(data: bytes) -> Picture:
    return imagecodecs.jpeg8_decode(data)


def stored(path: Path, page: int) -> Picture:
    """Return a page of a TIFF as tifffile decodes it."""
    return tifffile.imread(path, key=page)


# Hamamatsu NDPI: a TIFF whose tables have eight-byte offsets. Each page is one JPEG;
# restart markers cut it into tiles, whose starts are listed.

SHORT, LONG, RATIONAL, SLONG, FLOAT = 3, 4, 5, 9, 11
CODES = {1: "B", 2: "s", SHORT: "H", LONG: "I", RATIONAL: "I", SLONG: "i", FLOAT: "f"}
Tag = tuple[int, int, Any]


def make_ndpi(folder: Path) -> MadeSlide:
    """Three levels at 0.4 × 0.5 µm, another focal plane, a macro image and a map."""
    finest = scene(192, 320)
    levels = [finest, shrunk(finest, 2), shrunk(finest, 4)]
    macro = scene(48, 96, seed=5)
    pages, pictures = [], []
    for k, (level, blocks) in enumerate(zip(levels, (8, 4, 0), strict=True)):
        data = as_jpeg(level, restart_marker_blocks=blocks)
        pages.append((data, _ndpi_tags(level, data, 20 / 2**k, microns=2**k)))
        pictures.append(of_jpeg(data))
    above = as_jpeg(255 - finest, restart_marker_blocks=8)
    pages.insert(1, (above, _ndpi_tags(finest, above, 20, plane=3)))
    data = as_jpeg(macro)
    pages.append((data, _ndpi_tags(macro, data, -1, microns=80)))
    path = folder / "made.ndpi"
    path.write_bytes(_ndpi_file(pages))
    return MadeSlide(
        path, "hamamatsu", tuple(pictures), (0.5, 0.4), {"macro": of_jpeg(data)}
    )


def _ndpi_tags(
    image: Picture, data: bytes, lens: float, *, microns: float = 1, plane: int = 0
) -> list[Tag]:
    height, width = image.shape[:2]
    starts = _restarts(data)
    tags = [
        (256, LONG, [width]), (257, LONG, [height]), (258, SHORT, [8, 8, 8]),
        (259, SHORT, [7]), (262, SHORT, [6]), (271, 2, b"Hamamatsu\0"),
        (272, 2, b"C12000\0"), (277, SHORT, [3]), (278, LONG, [height]),
        (279, LONG, [len(data)]),
        (282, RATIONAL, [25000, round(microns)]),
        (283, RATIONAL, [20000, round(microns)]),
        (284, SHORT, [1]), (296, SHORT, [3]),
        (65420, LONG, [1]), (65421, FLOAT, [lens]), (65422, SLONG, [-1200000]),
        (65423, SLONG, [340000]), (65424, SLONG, [plane]),
        (65427, 2, b"written by a test\0"), (65449, 2, b"Product=made\r\n\0"),
    ]  # fmt: skip
    if len(starts) > 1:
        tags.append((65426, LONG, starts))
    return tags


def _restarts(data: bytes) -> list[int]:
    """Return where the pieces between a JPEG's restart markers start."""
    scan = data.index(b"\xff\xda")
    first = scan + 2 + int.from_bytes(data[scan + 2 : scan + 4], "big")
    marks = [
        k + 2
        for k in range(first, len(data) - 1)
        if data[k] == 0xFF and 0xD0 <= data[k + 1] <= 0xD7
    ]
    return [first, *marks]


def _ndpi_file(pages: list[tuple[bytes, list[Tag]]]) -> bytes:
    """Return the file: the header, then for each page its JPEG, values and table."""
    out = bytearray(b"II*\0" + bytes(8))
    link = 4  # where the offset of the next table goes
    for data, tags in pages:
        strip = len(out)
        out += data
        entries = b""
        listed = sorted([*tags, (273, LONG, [strip])])
        for tag, kind, values in listed:
            raw = _raw(kind, values)
            per_value = struct.calcsize(CODES[kind]) * (1 + (kind == RATIONAL))
            head = struct.pack("<HHI", tag, kind, len(raw) // per_value)
            if len(raw) > 4:
                out += bytes(len(out) % 2)
                place, raw = len(out), (out.extend(raw), b"")[1]
                raw = struct.pack("<I", place)
            entries += head + raw.ljust(4, b"\0")
        out += bytes(len(out) % 2)
        struct.pack_into("<Q", out, link, len(out))
        out += struct.pack("<H", len(listed)) + entries
        link = len(out)
        # The next table's offset, then the upper halves of all entries' values.
        out += bytes(8 + 4 * len(listed))
    return bytes(out)


def _raw(kind: int, values: Any) -> bytes:
    if isinstance(values, bytes):
        return values
    return struct.pack(f"<{len(values)}{CODES[kind]}", *values)


# The others in a TIFF: tiles of JPEG, and XML that says how they belong together.


def _write(tif: tifffile.TiffWriter, image: Any, **options: Any) -> None:
    settings: dict[str, Any] = {
        "photometric": "ycbcr",
        "subsampling": (1, 1),
        "tile": (TILE, TILE),
        "compression": "jpeg",
        "compressionargs": {"level": 92},
        "metadata": None,
    }
    tif.write(image, **(settings | options))


SCN_SPACE = "http://www.leica-microsystems.com/scn/2010/10/01"
SCN_NM = 500


def make_scn(folder: Path, size: tuple[int, int] = (300, 400)) -> MadeSlide:
    """Two levels at 0.5 µm of a slide with two scanned areas, and the macro image.

    ``size`` is that of the slide in pixels; an odd one makes the ratio of the levels'
    sizes an odd number, too.
    """
    places = [(40, 60), (180, 220)]
    areas = [scene(100, 150), scene(90, 130, seed=3)]
    macro = scene(75, 100, seed=5)
    path = folder / "made.scn"
    xml = _scn_xml(size, places, areas, macro)
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        _write(tif, macro, description=xml)
        for area in areas:
            for factor in (1, 2):
                _write(
                    tif, shrunk(area, factor),
                    resolution=(20000 / factor, 20000 / factor), resolutionunit=3,
                )  # fmt: skip
    levels = []
    for k, factor in enumerate((1, 2)):
        level = np.full((*(-(-s // factor) for s in size), 3), 255, np.uint8)
        for a, (y, x) in enumerate(places):
            part = stored(path, 1 + 2 * a + k)
            y1, x1 = y // factor, x // factor
            level[y1 : y1 + part.shape[0], x1 : x1 + part.shape[1]] = part
        levels.append(level)
    return MadeSlide(
        path, "leica", tuple(levels), (0.5, 0.5), {"macro": stored(path, 0)}, (40, 60)
    )


def _scn_xml(
    size: tuple[int, int],
    places: list[tuple[int, int]],
    areas: list[Picture],
    macro: Picture,
) -> str:
    whole = size[0] * SCN_NM, size[1] * SCN_NM
    images = [_scn_image((0, 0), whole, [macro.shape[:2]], 0, "1.6")]
    for k, ((y, x), area) in enumerate(zip(places, areas, strict=True)):
        height, width = area.shape[:2]
        corner, extent = (y * SCN_NM, x * SCN_NM), (height * SCN_NM, width * SCN_NM)
        shapes = [(height, width), (height // 2, width // 2)]
        images.append(_scn_image(corner, extent, shapes, 1 + 2 * k, "20"))
    return (
        f'<?xml version="1.0"?><scn xmlns="{SCN_SPACE}"><collection name="made" '
        f'sizeX="{whole[1]}" sizeY="{whole[0]}"><barcode>bWFkZQ==</barcode>'
        f"{''.join(images)}</collection></scn>"
    )


def _scn_image(
    corner: tuple[int, int],
    size: tuple[int, int],
    shapes: list[tuple[int, int]],
    first_page: int,
    objective: str,
) -> str:
    sizes = "".join(
        f'<dimension sizeX="{w}" sizeY="{h}" r="{k}" ifd="{first_page + k}" />'
        for k, (h, w) in enumerate(shapes)
    )
    height, width = shapes[0]
    return (
        '<image name="made"><creationDate>2024-01-01T00:00:00Z</creationDate>'
        '<device model="Leica SCN400" version="1" />'
        f'<pixels sizeX="{width}" sizeY="{height}">{sizes}</pixels>'
        f'<view sizeX="{size[1]}" sizeY="{size[0]}" offsetX="{corner[1]}" '
        f'offsetY="{corner[0]}" spacingZ="0" /><scanSettings><objectiveSettings>'
        f"<objective>{objective}</objective></objectiveSettings><illuminationSettings>"
        "<numericalAperture>0.4</numericalAperture><illuminationSource>brightfield"
        "</illuminationSource></illuminationSettings></scanSettings></image>"
    )


def make_philips(folder: Path) -> MadeSlide:
    """Three levels at 0.4 × 0.5 µm, stored in whole tiles; one tile is left out."""
    finest = scene(187, 313)
    label, macro = scene(40, 60, seed=5), as_jpeg(scene(50, 90, seed=6))
    levels = [shrunk(finest, factor) for factor in (1, 2, 4)]
    path = folder / "made.tiff"
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        for k, level in enumerate(levels):
            whole = padded(level)
            more: dict[str, Any] = {"subfiletype": 1}
            if k == 0:
                more = {
                    "description": _philips_xml(len(levels), macro),
                    "software": "Philips DP v1.0",
                }
            _write(
                tif, _tiles(whole, left_out={(1, 2)} if k == 0 else set()),
                shape=level.shape if k == 0 else whole.shape, dtype=np.uint8, **more,
            )  # fmt: skip
        _write(tif, label, tile=None, description="Label", subfiletype=1)
    right = [
        np.array(stored(path, k)[: level.shape[0], : level.shape[1]])
        for k, level in enumerate(levels)
    ]
    right[0][TILE : 2 * TILE, 2 * TILE : 3 * TILE] = 255
    seen = {"label": stored(path, len(levels)), "macro": of_jpeg(macro)}
    return MadeSlide(path, "philips", tuple(right), (0.5, 0.4), seen)


def _tiles(image: Picture, left_out: set[tuple[int, int]]) -> Iterator[Any]:
    for row in range(image.shape[0] // TILE):
        for column in range(image.shape[1] // TILE):
            y, x = row * TILE, column * TILE
            tile = image[y : y + TILE, x : x + TILE]
            yield None if (row, column) in left_out else np.ascontiguousarray(tile)


def _philips_xml(levels: int, macro: bytes) -> str:
    def attribute(name: str, value: str, kind: str = "IString") -> str:
        start = f'<Attribute Name="{name}" Group="0x301D" PMSVR="{kind}">'
        return f"{start}{value}</Attribute>"

    def listed(name: str, kind: str, objects: list[str]) -> str:
        inner = "".join(
            f'<DataObject ObjectType="{kind}">{content}</DataObject>'
            for content in objects
        )
        return attribute(name, f"<Array>{inner}</Array>", "IDataObjectArray")

    def spacing(factor: int) -> str:  # mm, of rows and then of columns
        sizes = f"&quot;{0.0005 * factor:.6f}&quot; &quot;{0.0004 * factor:.6f}&quot;"
        return attribute("DICOM_PIXEL_SPACING", sizes, "IDoubleArray")

    pyramid = listed(
        "PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE", "PixelDataRepresentation",
        [
            spacing(2**k) + attribute("PIIM_PIXEL_DATA_REPRESENTATION_NUMBER", str(k))
            for k in range(levels)
        ],
    )  # fmt: skip
    image = attribute("PIM_DP_IMAGE_TYPE", "WSI") + spacing(1) + pyramid
    picture64 = base64.b64encode(macro).decode()
    other = attribute("PIM_DP_IMAGE_TYPE", "MACROIMAGE") + attribute(
        "PIM_DP_IMAGE_DATA", picture64
    )
    images = listed("PIM_DP_SCANNED_IMAGES", "DPScannedImage", [image, other])
    return (
        '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">'
        f"{attribute('DICOM_MANUFACTURER', 'PHILIPS')}{images}</DataObject>"
    )


BIF_OVERLAP = 6  # not the eight of a JPEG block, or a wrong order would not show
BIF_ROWS, BIF_COLUMNS = 2, 3


def make_bif(folder: Path) -> MadeSlide:
    """Two levels at 0.5 µm of 2 × 3 tiles that overlap by 6 px, label and thumbnail."""
    step = TILE - BIF_OVERLAP
    rows, columns = range(BIF_ROWS), range(BIF_COLUMNS)
    whole = scene(step * BIF_ROWS + BIF_OVERLAP, step * BIF_COLUMNS + BIF_OVERLAP)
    tiles = joined(
        [
            [whole[r * step : r * step + TILE, c * step : c * step + TILE]
             for c in columns]
            for r in rows
        ]
    )  # fmt: skip
    path = folder / "made.bif"
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        _write(
            tif, scene(60, 40, seed=5), tile=None, description="Label Image",
            software="ScanOutputManager 1.1.0.1",
            extratags=[_packet(BIF_SCAN)],
        )  # fmt: skip
        _write(tif, scene(20, 30, seed=6), tile=None, description="Thumbnail")
        _write(
            tif, tiles, description="level=0 mag=20 quality=95",
            extratags=[_packet(_bif_xml())],
        )  # fmt: skip
        _write(tif, shrunk(tiles, 2), description="level=1 mag=10 quality=95")
    levels = []
    for k, factor in enumerate((1, 2)):
        raw, edge = stored(path, 2 + k), TILE // factor
        placed = [
            (raw[r * edge : (r + 1) * edge, c * edge : (c + 1) * edge],
             (r * step // factor, c * step // factor))
            for r in rows for c in columns
        ]  # fmt: skip
        size = whole.shape[0] // factor, whole.shape[1] // factor
        levels.append(composed(size, placed))
    seen = {"macro": stored(path, 0), "thumbnail": stored(path, 1)}
    return MadeSlide(path, "ventana", tuple(levels), (0.5, 0.5), seen)


BIF_SCAN = (
    '<iScan Magnification="20" ScanRes="0.5" Z-layers="1" Z-spacing="1" '
    'ScannerModel="VENTANA DP 200" UnitNumber="2000515"></iScan>'
)


def _packet(xml: str) -> tuple[int, str, int, bytes, bool]:
    return 700, "B", len(xml), xml.encode(), True


def _bif_xml() -> str:
    """Return which tiles adjoin: rows count from below, every second one backwards."""

    def number(row: int, column: int) -> int:
        below = BIF_ROWS - 1 - row
        along = BIF_COLUMNS - 1 - column if below % 2 else column
        return below * BIF_COLUMNS + along + 1

    joints = []
    for row in range(BIF_ROWS):
        for column in range(BIF_COLUMNS):
            here = number(row, column)
            if column + 1 < BIF_COLUMNS:
                right = number(row, column + 1)
                joints.append(("RIGHT", here, right, BIF_OVERLAP, 0))
            if row:
                joints.append(("UP", here, number(row - 1, column), 0, BIF_OVERLAP))
    lines = "".join(
        f'<TileJointInfo FlagJoined="1" Confidence="100" Direction="{way}" '
        f'Tile1="{one}" Tile2="{two}" OverlapX="{x}" OverlapY="{y}" />'
        for way, one, two, x, y in joints
    )
    return (
        '<EncodeInfo Ver="2"><SlideStitchInfo><ImageInfo AOIScanned="1" AOIIndex="0" '
        f'NumRows="{BIF_ROWS}" NumCols="{BIF_COLUMNS}" Width="{TILE}" '
        f'Height="{TILE}" Pos-X="0" Pos-Y="0">{lines}</ImageInfo></SlideStitchInfo>'
        '<AoiOrigin><AOI0 OriginX="0" OriginY="0" /></AoiOrigin></EncodeInfo>'
    )


# PerkinElmer/Akoya QPTIFF: every page says in its XML what it shows.


def make_qptiff(folder: Path) -> MadeSlide:
    """Brightfield: three levels at 0.4 × 0.5 µm, thumbnail, macro image and label."""
    finest = scene(187, 313)
    path = folder / "made.qptiff"
    size = {"resolution": (25000, 20000), "resolutionunit": 3}
    pages: list[tuple[str, Picture, dict[str, Any]]] = [
        ("FullResolution", finest, size),
        ("Thumbnail", scene(40, 66, seed=5), {"tile": None}),
        ("ReducedResolution", shrunk(finest, 2), {"subfiletype": 1}),
        ("ReducedResolution", shrunk(finest, 4), {"subfiletype": 1}),
        ("Overview", scene(30, 80, seed=6), {"tile": None}),
        ("Label", scene(30, 25, seed=7), {"tile": None}),
    ]
    with tifffile.TiffWriter(path) as tif:
        for kind, image, more in pages:
            _write(
                tif, image, software="PerkinElmer-QPI", description=_qpi(kind), **more
            )
    names = {"Thumbnail": "thumbnail", "Overview": "macro", "Label": "label"}
    return MadeSlide(
        path, "generic-tiff", tuple(stored(path, k) for k in (0, 2, 3)), (0.5, 0.4),
        {names[kind]: stored(path, k)
         for k, (kind, _, _) in enumerate(pages) if kind in names},
    )  # fmt: skip


def _qpi(kind: str) -> str:
    return (
        '<?xml version="1.0" encoding="utf-8"?><PerkinElmer-QPI-ImageDescription>'
        "<DescriptionVersion>2</DescriptionVersion><AcquisitionSoftware>VectraScan"
        f"</AcquisitionSoftware><ImageType>{kind}</ImageType><Objective>20x</Objective>"
        "</PerkinElmer-QPI-ImageDescription>"
    )


def joined(parts: list[list[Picture]]) -> Picture:
    """Return rows of pictures, edge to edge."""
    return np.concatenate([np.concatenate(row, axis=1) for row in parts])


def composed(
    size: tuple[int, int], placed: list[tuple[Picture, tuple[int, int]]]
) -> Picture:
    """Return tiles on white; where they overlap, the later one is on top."""
    whole = np.full((*size, 3), 255, np.uint8)
    for tile, (y, x) in placed:
        into = whole[y : y + tile.shape[0], x : x + tile.shape[1]]
        into[...] = tile[: into.shape[0], : into.shape[1]]
    return whole
