"""GeoJSON that QuPath opens (File › Import objects): drag the file onto the slide.

Coordinates are level-0 pixels with the origin at the upper left corner, as QuPath
expects. Where a file says which part of the slide was scanned (OpenSlide's bounds: MRXS
and others) QuPath shows that part only, and the origin is its corner: positions in
tables and OME-Zarr are then larger by ``openslide.bounds-x`` and ``-y``. One annotation
per class (a multipolygon): thousands of single squares make QuPath slow. *Objects ›
Annotations › Split* takes it apart there; for programs that read simple polygons only
(TIAToolbox, napari-geojson) ``split=True`` does so here.

The member ``trust`` says whether the slide is like what the student learned from, and
every feature names the verdict. The member ``provenance`` says where the map comes
from and what of it is shown: slide, model and digest, mode, step, µm per pixel, filter,
version. The member ``frame`` says what the numbers are: pixels
of level 0, where they start, and where the slide's first pixel lies in µm if its file
places it.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import InputError
from napari_histodistill.export.outlines import outline, outline_between, pieces_of
from napari_histodistill.export.record import facts_of
from napari_histodistill.export.safe_writing import write_file
from napari_histodistill.students.trust import trust_facts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.maps.alike.ranking import RankedRegion
    from napari_histodistill.maps.classes import ClassMap
    from napari_histodistill.students.spec import ClassSpec

_MARK = "napari-histodistill"
_REGION_COLOR = "#d55e00"
_Measurements = dict[str, float] | list[dict[str, str | float]]
_KINDS = {"Similarity": "Similar", "Difference": "Different"}


def is_ours(head: str) -> bool:
    """Return whether a file that begins so was written here."""
    return f'"creator":"{_MARK}"' in head


def write_geojson(
    class_map: ClassMap, path: Path | str, *, split: bool = False
) -> Path:
    """Write the merged outlines of every class that occurs.

    Parameters
    ----------
    class_map : ClassMap
        Map to outline; positions count from its ``bounds_origin``, if it has one.
    path : path
        For example ``slide.geojson``.
    split : bool
        Whether to write a polygon for every part in place of one shape per class. Its
        measurements are then a list of names and values, which QuPath wrote before 0.4
        and still reads, and which is the form that napari-geojson reads.

    Raises
    ------
    InputError
        If a file that is not an earlier export is there, or it cannot be written.
    """
    features = []
    trust = class_map.trust
    for k, area in enumerate(class_map.areas()):
        if area.cells:
            cells = class_map.labels == k + 1
            features += [
                _feature(geometry, area.name, area.color, measurements=measured)
                for geometry, measured in _shapes(class_map, cells, split=split)
            ]
    if trust is not None:
        for feature in features:
            feature["properties"]["trust"] = trust.verdict.value
    mpp = class_map.grid.slide_mpp
    frame = _frame(class_map.bounds_origin, class_map.origin_um)
    said = {} if trust is None else {"trust": trust_facts(trust)}
    if facts := facts_of(class_map):
        said["provenance"] = facts
    frame |= {"um_per_pixel_yx": [mpp.y, mpp.x]}
    return _write(features, path, frame, said)


def _shapes(
    class_map: ClassMap, cells: npt.NDArray[np.bool_], *, split: bool
) -> list[tuple[dict[str, Any], _Measurements]]:
    """Return geometry and measurements of a class, or of each of its parts."""
    shape, origin = outline(cells, class_map.grid), class_map.bounds_origin
    pieces = pieces_of(cells) if split else cells.astype(np.int64)
    shapes = [[polygon] for polygon in shape.geoms] if split else [shape.geoms]
    at, size = pieces.ravel(), len(shapes) + 1
    counts = np.bincount(at, minlength=size)[1:]
    mm2 = np.bincount(at, class_map.grid.areas_mm2().ravel(), size)[1:]
    sure = np.bincount(at, class_map.confidence.ravel(), size)[1:]
    measured = [
        {
            "Area mm^2": float(mm2[k]),
            "Cells": int(counts[k]),
            "Mean confidence": float(sure[k] / counts[k]),
        }
        for k in range(len(shapes))
    ]
    geometries = [_geometry(polygons, origin) for polygons in shapes]
    if not split:
        return list(zip(geometries, measured, strict=True))
    return [(g, _as_list(m)) for g, m in zip(geometries, measured, strict=True)]


def _as_list(measured: dict[str, float]) -> _Measurements:
    return [{"name": name, "value": value} for name, value in measured.items()]


def write_regions_geojson(
    regions: Sequence[RankedRegion],
    path: Path | str,
    *,
    score: str = "Similarity",
    bounds_origin: tuple[int, int] | None = None,
    origin_um: tuple[float, float] = (0.0, 0.0),
    provenance: dict[str, Any] | None = None,
) -> Path:
    """Write the bounding boxes of ranked regions, best first.

    Parameters
    ----------
    regions : sequence of RankedRegion
        From :func:`rank_regions`.
    path : path
        For example ``similar.geojson``.
    score : {"Similarity", "Difference"}
        Value that they were ranked by.
    bounds_origin : tuple of int, optional
        Corner that positions count from, ``(y, x)`` in level-0 pixels: that of the
        slide's :class:`SlideInfo` or the store's :class:`Provenance`.
    origin_um : tuple of float
        World position ``(y, x)`` of the slide's first pixel, µm, of the same.
    provenance : dict, optional
        What the file says of itself, JSON: see
        :func:`~napari_histodistill.export.record.record_facts`.

    Raises
    ------
    InputError
        If a file that is not an earlier export is there, or it cannot be written.
    """
    features = []
    for found in regions:
        box = found.region
        corners = (
            (box.x, box.y),
            (box.right, box.y),
            (box.right, box.bottom),
            (box.x, box.bottom),
            (box.x, box.y),
        )
        geometry = {"type": "Polygon", "coordinates": [_ring(corners, bounds_origin)]}
        measurements = {
            score: found.score,
            "Rank": found.rank,
            "Area mm^2": found.area_mm2,
        }
        features.append(
            _feature(
                geometry,
                _KINDS[score],
                _REGION_COLOR,
                name=f"#{found.rank} ({found.score:.2f})",
                measurements=measurements,
            )
        )
    said = {"provenance": provenance} if provenance else {}
    return _write(features, path, _frame(bounds_origin, origin_um), said)


def write_strokes_geojson(
    labels: npt.NDArray[np.uint8],
    classes: Sequence[ClassSpec],
    slide_shape: tuple[int, int],
    path: Path | str,
    *,
    bounds_origin: tuple[int, int] | None = None,
    origin_um: tuple[float, float] = (0.0, 0.0),
) -> Path:
    """Write painted strokes as polygons, one for each stroke of a class.

    :func:`~napari_histodistill.export.annotations.read_annotations` reads them back,
    and painting them on an array of the same size gives the same strokes.

    Parameters
    ----------
    labels : ndarray
        ``(h, w)`` uint8, stretched exactly over the slide: ``k + 1`` for class ``k``.
    classes : sequence of ClassSpec
        Names and colours; labels beyond them are left out.
    slide_shape : tuple of int
        Height and width of level 0 in pixels.
    path : path
        For example ``strokes.geojson``.
    bounds_origin : tuple of int, optional
        ``(y, x)`` from which positions count, as for :func:`write_geojson`.
    origin_um : tuple of float
        Where the slide's first pixel lies, if its file places it.

    Raises
    ------
    InputError
        If nothing is painted, a file that is not an earlier export is there, or it
        cannot be written.
    """
    y = np.linspace(0, slide_shape[0], labels.shape[0] + 1)
    x = np.linspace(0, slide_shape[1], labels.shape[1] + 1)
    features = [
        _feature(
            _geometry([polygon], bounds_origin), spec.name, spec.color, measurements={}
        )
        for k, spec in enumerate(classes)
        for polygon in outline_between(labels == k + 1, y, x).geoms
    ]
    if not features:
        msg = "Nothing is painted yet: there are no strokes to write."
        raise InputError(msg)
    return _write(features, path, _frame(bounds_origin, origin_um))


def _frame(
    bounds: tuple[int, int] | None, origin_um: tuple[float, float]
) -> dict[str, Any]:
    """Say what the coordinates of a document are."""
    corner = "the slide" if bounds is None else "the scanned part of the slide"
    return {
        "unit": "pixel of level 0",
        "origin": f"upper left corner of {corner}",
        "first_pixel_at_um_yx": [float(v) for v in origin_um],
    }


def _feature(
    geometry: dict[str, Any],
    class_name: str,
    color: str,
    *,
    name: str = "",
    measurements: _Measurements,
) -> dict[str, Any]:
    rgb = [int(color[k : k + 2], 16) for k in (1, 3, 5)]
    properties: dict[str, Any] = {
        "objectType": "annotation",
        "classification": {"name": class_name, "color": rgb},
        "measurements": measurements,
    }
    if name:
        properties["name"] = name
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def _geometry(
    polygons: Iterable[Any], origin: tuple[int, int] | None
) -> dict[str, Any]:
    parts = [
        [_ring(ring.coords, origin) for ring in (polygon.exterior, *polygon.interiors)]
        for polygon in polygons
    ]
    if len(parts) == 1:
        return {"type": "Polygon", "coordinates": parts[0]}
    return {"type": "MultiPolygon", "coordinates": parts}


def _ring(points: Any, origin: tuple[int, int] | None) -> list[list[float]]:
    """Return a ring with whole pixels written as integers: half the file."""
    y, x = origin or (0, 0)
    rounded = np.round(np.asarray(points, float) - (x, y), 3)
    return [
        [int(v) if math.floor(v) == v else float(v) for v in point] for point in rounded
    ]


def _write(
    features: list[dict[str, Any]],
    path: Path | str,
    frame: dict[str, Any],
    more: dict[str, Any] | None = None,
) -> Path:
    # Foreign members, as RFC 7946 (6.1) allows; our files are recognised by it.
    document = {
        "type": "FeatureCollection",
        "creator": _MARK,
        "frame": frame,
        **(more or {}),
        "features": features,
    }
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    return write_file(path, text, is_ours)
