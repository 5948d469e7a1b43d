"""Landmarks of other programs, in and out; recognised by their content.

=====================  ============================================  ================
format                 positions                                     unit
=====================  ============================================  ================
ANHIR CSV              ``X,Y``, from the first pixel's edge, as in   level-0 pixels
                       ImageJ (anhir.grand-challenge.org, *Data*)
BigWarp CSV            ``"Pt-0","true",mx,my,tx,ty``, the centre of  the images' own,
                       the first pixel is 0 (bigdataviewer/bigwarp,  which no file
                       ``LandmarkTableModel.java``)                  names
QuPath TSV, GeoJSON    ``x y …`` (``PointIO.java``), ``MultiPoint``  level-0 pixels;
                       and ``Point``; from the edge                  else it is named
napari CSV             ``index,axis-0,axis-1``: (y, x), the centre   the layer's own
                       of the first pixel is 0
our own JSON           both sides, (y, x), centre                    µm
=====================  ============================================  ================
"""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.distill.exchange.frames import (
    FixedImage,
    PointFrame,
    PointUnit,
    SectionFrames,
)
from napari_histodistill.distill.exchange.texts import number, read_text_file
from napari_histodistill.distill.layers.registration import LandmarkPairs, inverse
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    Doubles = npt.NDArray[np.float64]

MOST = 10_000
"""Landmarks of one file."""

_COLUMN = re.compile(
    r"(?:centroid )?([xy])(?:[ _]?[\[(]?(px|pixels?|um|microns?|mm)[\])]?)?"
)
_UNITS = {
    "": None,
    "px": PointUnit.PIXELS,
    "pixel": PointUnit.PIXELS,
    "pixels": PointUnit.PIXELS,
    "um": PointUnit.MICROMETRES,
    "micron": PointUnit.MICROMETRES,
    "microns": PointUnit.MICROMETRES,
    "mm": PointUnit.MILLIMETRES,
}


class LandmarkFormat(Enum):
    """Formats of landmarks; the value is its name on the command line."""

    ANHIR = "anhir"
    BIGWARP = "bigwarp"
    QUPATH_TSV = "qupath-tsv"
    QUPATH_GEOJSON = "geojson"
    NAPARI = "napari"
    OWN = "json"


_FROM_EDGE = {
    LandmarkFormat.ANHIR,
    LandmarkFormat.QUPATH_TSV,
    LandmarkFormat.QUPATH_GEOJSON,
}
"""Formats that count from the first pixel's edge; these are in pixels unless said."""


@dataclass(frozen=True, slots=True, eq=False)
class LandmarkFile:
    """Landmarks of one file.

    Attributes
    ----------
    path : Path
        The file.
    format : LandmarkFormat
        What its content is.
    points : ndarray
        ``(n, 2)`` float64, (x, y) as in the file: of its only image, or the fixed one
        (of our own files, the H&E).
    moving : ndarray or None
        ``(n, 2)``, row for row, of the other image, in formats that hold both.
    unit : PointUnit or None
        Of the positions, where the file says it.
    notes : tuple of str
        What was left out, in sentences.
    """

    path: Path
    format: LandmarkFormat
    points: Doubles
    moving: Doubles | None
    unit: PointUnit | None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return how many landmarks there are."""
        return len(self.points)

    @property
    def counts_pixels(self) -> bool:
        """Whether positions are level-0 pixels where the file says nothing."""
        return self.format in _FROM_EDGE

    def um(self, frame: PointFrame, unit: PointUnit | None = None) -> Doubles:
        """Return ``(n, 2)``: (y, x) in µm, in the world of the image.

        Parameters
        ----------
        frame : PointFrame
            The image.
        unit : PointUnit, optional
            Unit that a person states; needed for BigWarp's and napari's files.

        Raises
        ------
        InputError
            If neither says which unit it is, or a point lies off the image.
        """
        return self._placed(self.points, frame, unit)

    def pair_um(
        self, frames: SectionFrames, unit: PointUnit | None = None
    ) -> tuple[Doubles, Doubles]:
        """Return both sides of a file that holds both: H&E and partner, as :meth:`um`.

        Raises
        ------
        InputError
            As :meth:`um`, or if it holds one image's points only.
        """
        if self.moving is None:
            msg = (
                f"{self.path}: holds the landmarks of one image: give a file for the "
                "H&E and one for its partner."
            )
            raise InputError(msg)
        ours = self.format is LandmarkFormat.OWN
        he_first = ours or frames.fixed is FixedImage.HE
        sides = (self.points, self.moving) if he_first else (self.moving, self.points)
        sparse = self._placed(sides[0], frames.sparse, unit)
        return sparse, self._placed(sides[1], frames.dense, unit)

    def _placed(
        self, points: Doubles, frame: PointFrame, unit: PointUnit | None
    ) -> Doubles:
        from_edge = self.counts_pixels
        usual = PointUnit.PIXELS if from_edge else None
        known = self.unit or unit or usual
        if known is None:
            msg = (
                f"{self.path}: does not say which unit its positions have: give the "
                "landmark unit, px (level-0 pixels), um or mm."
            )
            raise InputError(msg)
        carried = frame.world(known, from_edge=from_edge)
        placed: Doubles = points @ carried[:2, :2].T + carried[:2, 2]
        size = np.array(frame.shape) * frame.mpp
        off = ((placed < -0.02 * size) | (placed > 1.02 * size)).any(axis=1)
        if off.any():
            msg = (
                f"{self.path}: landmark {int(off.argmax()) + 1} lies off its image "
                f"({size[1]:,.0f} × {size[0]:,.0f} µm): is it the right file, in "
                "pixels of level 0, and are µm per pixel right?"
            )
            raise InputError(msg)
        return placed


def read_landmarks(path: Path) -> LandmarkFile:
    """Read landmarks of one image, or of both.

    Parameters
    ----------
    path : Path
        See the table above; what it is its content says.

    Raises
    ------
    InputError
        If it is none of these, or a row cannot be read; the message names it.
    """
    text = read_text_file(path)
    if text.lstrip()[:1] in {"{", "["}:
        found = _of_json(path, text)
    else:
        found = _of_table(path, text)
    if not len(found):
        msg = f"{path}: holds no landmarks."
        raise InputError(msg)
    if len(found) > MOST:
        msg = f"{path}: holds more than {MOST:,} landmarks."
        raise InputError(msg)
    if not np.isfinite(found.points).all():
        msg = f"{path}: a position is not a number."
        raise InputError(msg)
    return found


def format_of_points(path: Path) -> LandmarkFormat:
    """Return the format of one image's landmarks that a file's ending stands for."""
    return {
        ".geojson": LandmarkFormat.QUPATH_GEOJSON,
        ".tsv": LandmarkFormat.QUPATH_TSV,
    }.get(path.suffix.lower(), LandmarkFormat.ANHIR)


def is_landmarks(head: str) -> bool:
    """Whether a file holds landmarks that this module wrote, by its beginning."""
    begins = (",X,Y\n", "x\ty\n", "index,axis-0,axis-1\n", '"Pt-0","true",')
    points = '"type": "FeatureCollection"' in head and '"MultiPoint"' in head
    return head.startswith(begins) or points


def landmarks_text(
    format: LandmarkFormat,  # noqa: A002 - its plain name
    points_um: Doubles,
    frame: PointFrame,
) -> str:
    """Return landmarks of one image as another program reads them.

    Parameters
    ----------
    format : LandmarkFormat
        One that holds one image: ANHIR, QuPath's or napari's.
    points_um : ndarray
        ``(n, 2)``: (y, x) in µm, in the image's world.
    frame : PointFrame
        The image.
    """
    edges = format in _FROM_EDGE
    points = _in_file(points_um, frame, PointUnit.PIXELS, from_edge=edges)
    if format is LandmarkFormat.QUPATH_GEOJSON:
        feature = {
            "type": "Feature",
            "geometry": {"type": "MultiPoint", "coordinates": points.tolist()},
            "properties": {"objectType": "annotation"},
        }
        whole = {"type": "FeatureCollection", "features": [feature]}
        return json.dumps(whole, indent=1) + "\n"
    if format is LandmarkFormat.QUPATH_TSV:
        rows = [["x", "y"], *([repr(float(v)) for v in point] for point in points)]
        return _table(rows, "\t")
    listed = [(str(k), repr(float(x)), repr(float(y))) for k, (x, y) in _listed(points)]
    if format is LandmarkFormat.NAPARI:
        turned = [(k, y, x) for k, x, y in listed]
        return _table([("index", "axis-0", "axis-1"), *turned], ",")
    if format is LandmarkFormat.ANHIR:
        return _table([("", "X", "Y"), *listed], ",")
    msg = f"{format.value} holds both images: bigwarp_text, write_registration."
    raise InputError(msg)


def bigwarp_text(
    landmarks: LandmarkPairs, frames: SectionFrames, unit: PointUnit
) -> str:
    """Return landmarks of both images as BigWarp reads them.

    Parameters
    ----------
    landmarks : LandmarkPairs
        Row for row.
    frames : SectionFrames
        Both images; the fixed one becomes the target.
    unit : PointUnit
        Unit of the images when they are opened there: pixels, if they are not
        calibrated.
    """
    sides = [
        _in_file(points, frame, unit, from_edge=False)
        for points, frame in (
            (landmarks.sparse_um, frames.sparse),
            (landmarks.dense_um, frames.dense),
        )
    ]
    target, moving = sides if frames.fixed is FixedImage.HE else sides[::-1]
    rows = [
        f'"Pt-{k}","true",' + ",".join(f'"{float(v)!r}"' for v in (*m, *t))
        for k, (m, t) in enumerate(zip(moving, target, strict=True))
    ]
    return "\n".join(rows) + "\n"


def _in_file(
    points_um: Doubles, frame: PointFrame, unit: PointUnit, *, from_edge: bool
) -> Doubles:
    """Return ``(n, 2)``: (x, y) as a file holds them."""
    back = inverse(frame.world(unit, from_edge=from_edge))
    found: Doubles = points_um @ back[:2, :2].T + back[:2, 2]
    return found


def _listed(points: Doubles) -> list[tuple[int, Doubles]]:
    return list(enumerate(points))


def _table(rows: Sequence[Sequence[str]], between: str) -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=between, lineterminator="\n").writerows(rows)
    return out.getvalue()


# --- JSON ---------------------------------------------------------------------------


def _of_json(path: Path, text: str) -> LandmarkFile:
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        msg = f"{path}: is damaged JSON ({str(error)[:80]})."
        raise InputError(msg) from error
    if isinstance(content, dict) and "landmarks" in content:
        return _own(path, content["landmarks"])
    if isinstance(content, dict) and "sparse" in content:
        return _own(path, content)
    return _geojson(path, content)


def _own(path: Path, content: Any) -> LandmarkFile:
    try:
        pairs = LandmarkPairs.read(content)
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{path}: its landmarks are not those that this program writes."
        raise InputError(msg) from error
    return LandmarkFile(
        path,
        LandmarkFormat.OWN,
        pairs.sparse_um[:, ::-1],
        pairs.dense_um[:, ::-1],
        PointUnit.MICROMETRES,
    )


def _geojson(path: Path, content: Any) -> LandmarkFile:
    if isinstance(content, dict):
        held = content.get("features")
        content = held if isinstance(held, list) else [content]
    if not isinstance(content, list):
        content = []
    points: list[Any] = []
    others = 0
    for feature in content:
        geometry = feature.get("geometry", feature) if isinstance(feature, dict) else {}
        kind = geometry.get("type") if isinstance(geometry, dict) else None
        if kind == "Point":
            points.append(geometry.get("coordinates"))
        elif kind == "MultiPoint" and isinstance(geometry.get("coordinates"), list):
            points += geometry["coordinates"]
        else:
            others += 1
    if not points:
        msg = (
            f"{path}: holds no points: in QuPath, set them with the Points tool and "
            "export them as GeoJSON."
        )
        raise InputError(msg)
    try:
        pairs = [(float(x), float(y)) for x, y, *_ in points]
    except (TypeError, ValueError, OverflowError) as error:
        msg = f"{path}: a point is not two numbers."
        raise InputError(msg) from error
    notes = (f"Left out: {others:,} shapes that are no points.",) if others else ()
    return LandmarkFile(
        path,
        LandmarkFormat.QUPATH_GEOJSON,
        np.array(pairs, np.float64).reshape(-1, 2),
        None,
        None,
        notes,
    )


# --- tables -------------------------------------------------------------------------


def _of_table(path: Path, text: str) -> LandmarkFile:
    first = text.lstrip("\n").partition("\n")[0]
    between = next((mark for mark in "\t;," if mark in first), ",")
    try:
        rows = list(csv.reader(io.StringIO(text), delimiter=between))
    except csv.Error as error:
        msg = f"{path}: is not a table ({error})."
        raise InputError(msg) from error
    numbered = [
        (k, row) for k, row in enumerate(rows, 1) if any(w.strip() for w in row)
    ]
    if not numbered:
        msg = f"{path}: is empty."
        raise InputError(msg)
    if _is_bigwarp(numbered[0][1]):
        return _bigwarp(path, numbered)
    return _columns(path, numbered, between)


def _is_bigwarp(row: list[str]) -> bool:
    flag = row[1].strip().lower() if len(row) > 1 else ""
    return len(row) in (6, 8) and flag in {"true", "false"}


def _bigwarp(path: Path, rows: list[tuple[int, list[str]]]) -> LandmarkFile:
    used: list[list[float]] = []
    off = 0
    for place, row in rows:
        if not _is_bigwarp(row):
            msg = f"{path}: row {place} is not one of BigWarp's: name, true, 4 numbers."
            raise InputError(msg)
        if row[1].strip().lower() == "false":
            off += 1
            continue
        half = (len(row) - 2) // 2
        values = [number(row[k]) for k in (2, 3, 2 + half, 3 + half)]
        if any(value is None for value in values):
            msg = (
                f"{path}: row {place} has a position on one image only: set it on "
                "both, or switch the landmark off."
            )
            raise InputError(msg)
        used.append([value for value in values if value is not None])
    both = np.array(used, np.float64).reshape(-1, 4)
    notes = (f"Left out as switched off: {off:,}.",) if off else ()
    return LandmarkFile(
        path, LandmarkFormat.BIGWARP, both[:, 2:], both[:, :2], None, notes
    )


def _columns(
    path: Path, rows: list[tuple[int, list[str]]], between: str
) -> LandmarkFile:
    header = [_bare(word) for word in rows[0][1]]
    napari = _napari(path, header, rows)
    if napari is not None:
        return napari
    found: dict[str, tuple[int, PointUnit | None]] = {}
    centroid = False
    for k, name in enumerate(header):
        match = _COLUMN.fullmatch(name)
        if match is not None and match[1] not in found:
            found[match[1]] = k, _UNITS[match[2] or ""]
            centroid |= name.startswith("centroid")
    if set(found) != {"x", "y"}:
        msg = (
            f"{path}: its first row names no columns X and Y: landmarks come as CSV of "
            "ANHIR or BigWarp, or as points of QuPath."
        )
        raise InputError(msg)
    if found["x"][1] is not found["y"][1]:
        msg = f"{path}: its columns X and Y have different units."
        raise InputError(msg)
    points = _values(path, rows[1:], (found["x"][0], found["y"][0]))
    of_qupath = centroid or between == "\t"
    which = LandmarkFormat.QUPATH_TSV if of_qupath else LandmarkFormat.ANHIR
    return LandmarkFile(path, which, points, None, found["x"][1])


def _napari(
    path: Path, header: list[str], rows: list[tuple[int, list[str]]]
) -> LandmarkFile | None:
    axes = [name for name in header if re.fullmatch(r"axis-\d+", name)]
    if not axes:
        return None
    if len(axes) != 2:
        msg = f"{path}: these points have {len(axes)} axes: landmarks have two."
        raise InputError(msg)
    columns = header.index("axis-1"), header.index("axis-0")
    points = _values(path, rows[1:], columns)
    return LandmarkFile(path, LandmarkFormat.NAPARI, points, None, None)


def _values(
    path: Path, rows: list[tuple[int, list[str]]], columns: tuple[int, int]
) -> Doubles:
    values: list[list[float]] = []
    for place, row in rows:
        here = [number(row[k]) if k < len(row) else None for k in columns]
        if any(value is None for value in here):
            msg = f"{path}: row {place} is not two numbers; remove or complete it."
            raise InputError(msg)
        values.append([value for value in here if value is not None])
    return np.array(values, np.float64).reshape(-1, 2)


def _bare(word: str) -> str:
    """Return a column's name in small letters, whatever stands for µ."""
    plain = word.strip().lower().replace("μ", "u").replace("µ", "u")
    return re.sub(r"\s+", " ", plain)


def paired(
    sparse: LandmarkFile,
    dense: LandmarkFile,
    frames: SectionFrames,
    unit: PointUnit | None = None,
) -> tuple[Doubles, Doubles]:
    """Return landmarks of two files, row for row, in µm of either world.

    Raises
    ------
    InputError
        If their numbers differ, or as :meth:`LandmarkFile.um`.
    """
    for one in (sparse, dense):
        if one.moving is not None:
            msg = (
                f"{one.path}: holds landmarks of both images: give it alone, as "
                "landmark pairs."
            )
            raise InputError(msg)
    if len(sparse) != len(dense):
        msg = (
            f"{sparse.path} holds {len(sparse)} landmarks, {dense.path} "
            f"{len(dense)}: they belong together row by row."
        )
        raise InputError(msg)
    return sparse.um(frames.sparse, unit), dense.um(frames.dense, unit)
