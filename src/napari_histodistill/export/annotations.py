"""Annotations of QuPath, read from GeoJSON: polygons with classes.

The way back of :mod:`~napari_histodistill.export.geojson`: coordinates are level-0
pixels, counted from the corner of the scanned part where the slide's file has one, as
QuPath shows only that part. Read are a FeatureCollection, a list of features or one
feature; classes as QuPath writes them since 0.4 (``color``) and wrote them before
(``colorRGB``).
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from napari_histodistill.errors import InputError
from napari_histodistill.files import read_plain
from napari_histodistill.students.spec import ClassSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.slides.pyramid.slide import Slide

MAX_BYTES = 2**26
MAX_POLYGONS = 100_000
MAX_POINTS = 2_000_000

LABELS_PX = 4096
"""Longer edge of labels that are painted from annotations: 25 µm on the largest
slides, and a tile has seldom more pixels of its mask."""

_NO_COLOR = "#999999"
_NAME_LENGTH = 56
"""Leaves room for a number after it, within what a class's name may have."""


@dataclass(frozen=True, slots=True, eq=False)
class Annotations:
    """Annotated polygons on a slide.

    Attributes
    ----------
    classes : tuple of ClassSpec
        In the order in which they occur, with names that a class may have.
    polygons : tuple of (int, shapely Polygon)
        Index of the class and the shape, ``(x, y)`` in level-0 pixels of the slide.
    notes : tuple of str
        What was left out, in sentences.
    """

    classes: tuple[ClassSpec, ...]
    polygons: tuple[tuple[int, Any], ...]
    notes: tuple[str, ...] = ()

    def painted(
        self,
        shape: tuple[int, int],
        slide_shape: tuple[int, int],
        *,
        between: Callable[[], object] = lambda: None,
    ) -> npt.NDArray[np.uint8]:
        """Return the polygons painted on an array that is stretched over the slide.

        A pixel is painted if its centre lies inside. Small shapes lie over large ones,
        and one that holds no pixel's centre is painted as one pixel.

        Parameters
        ----------
        shape : tuple of int
            Of the array.
        slide_shape : tuple of int
            Height and width of level 0 in pixels.
        between : callable
            Called before every polygon; it may raise to end the work.

        Returns
        -------
        ndarray
            ``shape``, uint8: ``k + 1`` for class ``k``, 0 for nothing.
        """
        labels = np.zeros(shape, np.uint8)
        scale = np.array([shape[1] / slide_shape[1], shape[0] / slide_shape[0]])
        for kind, polygon in sorted(self.polygons, key=lambda one: -one[1].area):
            between()
            _paint(labels, polygon, kind + 1, scale)
        return labels


def read_annotations(
    path: Path,
    slide_shape: tuple[int, int],
    *,
    bounds_origin: tuple[int, int] | None = None,
) -> Annotations:
    """Read the classified polygons of a GeoJSON file.

    Parameters
    ----------
    path : Path
        The file, of at most :data:`MAX_BYTES`.
    slide_shape : tuple of int
        Height and width of level 0 in pixels.
    bounds_origin : tuple of int, optional
        ``(y, x)`` from which its positions count, as QuPath counts them.

    Raises
    ------
    InputError
        If it is no GeoJSON of this kind, is too large, or holds no classified polygon
        on the slide.
    """
    features = _features(path)
    found = _Found(path, slide_shape, bounds_origin or (0, 0))
    for number, feature in enumerate(features, 1):
        found.take(feature, number)
    return found.annotations()


@dataclass(frozen=True, slots=True, eq=False)
class AnnotationLabels:
    """Annotations painted as labels of a slide, which a model can learn from.

    Attributes
    ----------
    numbers : ndarray
        ``(h, w)`` uint8, stretched over the slide: ``k + 1`` for class ``k``; 0 where
        nobody annotated anything.
    classes : tuple of ClassSpec
        The classes.
    notes : tuple of str
        What was left out, and what counts where shapes overlap, in sentences.
    """

    numbers: npt.NDArray[np.uint8]
    classes: tuple[ClassSpec, ...]
    notes: tuple[str, ...]

    @property
    def named(self) -> dict[int, str]:
        """Names of the numbers."""
        return {k: one.name for k, one in enumerate(self.classes, start=1)}


def annotation_labels(
    path: Path, slide: Slide, *, between: Callable[[], object] = lambda: None
) -> AnnotationLabels:
    """Read annotations as labels of a slide, at most :data:`LABELS_PX` px wide.

    Parameters
    ----------
    path : Path
        GeoJSON, as QuPath writes it.
    slide : Slide
        That it was drawn on.
    between : callable
        Called before every polygon; it may raise to end the work.

    Raises
    ------
    InputError
        If it cannot be used; see :func:`read_annotations`.
    """
    found = read_annotations(path, slide.shape, bounds_origin=slide.info.bounds_origin)
    if len(found.classes) > np.iinfo(np.uint8).max:
        msg = (
            f"{path.name}: holds {len(found.classes)} classes; a mask has at most 255."
        )
        raise InputError(msg)
    step = max(1.0, max(slide.shape) / LABELS_PX)
    height, width = (math.ceil(edge / step) for edge in slide.shape)
    numbers = found.painted((height, width), slide.shape, between=between)
    return AnnotationLabels(numbers, found.classes, (*found.notes, *_overlaps(found)))


def _overlaps(found: Annotations) -> Iterator[str]:
    """Yield a sentence where shapes of two classes overlap."""
    tree = shapely.STRtree([polygon for _, polygon in found.polygons])
    kinds = np.array([kind for kind, _ in found.polygons])
    first, second = tree.query([p for _, p in found.polygons], predicate="overlaps")
    inside, around = tree.query([p for _, p in found.polygons], predicate="within")
    differ = (kinds[first] != kinds[second]).sum() // 2
    differ += (kinds[inside] != kinds[around]).sum()
    if differ:
        yield "Where shapes of two classes overlap, the smaller one counts."


class _Found:
    """What was found in a file so far, and what was left out."""

    def __init__(
        self, path: Path, slide_shape: tuple[int, int], origin: tuple[int, int]
    ) -> None:
        self._path, self._origin = path, origin
        self._slide = shapely.box(0, 0, slide_shape[1], slide_shape[0])
        self._classes: dict[str, ClassSpec] = {}
        self._polygons: list[tuple[int, Any]] = []
        self._points = self._unclassified = self._others = self._outside = 0

    def take(self, feature: Any, number: int) -> None:
        """Take one feature."""
        if not isinstance(feature, dict):
            raise self._wrong(number, "is not a GeoJSON feature")
        geometry = feature.get("geometry")
        kind = geometry.get("type") if isinstance(geometry, dict) else None
        if kind not in ("Polygon", "MultiPolygon"):
            self._others += 1
            return
        named = _class_of(feature.get("properties"))
        if named is None:
            self._unclassified += 1
            return
        parts = feature["geometry"].get("coordinates")
        for rings in [parts] if kind == "Polygon" else self._listed(parts, number):
            polygon = self._polygon(rings, number)
            if polygon is None:
                continue
            if not polygon.envelope.intersects(self._slide):
                self._outside += 1
                continue
            if len(self._polygons) == MAX_POLYGONS:
                raise self._too_many(f"{MAX_POLYGONS:,} polygons")
            self._polygons.append((self._index_of(*named), polygon))

    def annotations(self) -> Annotations:
        """Return what was found."""
        if not self._polygons:
            notes = " ".join(self._notes()) or "It holds no features."
            msg = (
                f"{self._path.name}: holds no polygon with a class on this slide. "
                f"{notes}"
            )
            raise InputError(msg)
        return Annotations(
            tuple(self._classes.values()), tuple(self._polygons), tuple(self._notes())
        )

    def _notes(self) -> Iterator[str]:
        for count, what in (
            (self._unclassified, "without a class"),
            (self._others, "of another kind (points, lines, nothing)"),
            (self._outside, "outside the slide"),
        ):
            if count:
                shapes = "shape" if count == 1 else "shapes"
                yield f"Left out: {count:,} {shapes} {what}."

    def _polygon(self, rings: Any, number: int) -> Any:
        """Return a polygon of the slide; None where a ring encloses nothing."""
        shell, *holes = self._listed(rings, number) or [[]]
        made = self._ring(shell, number)
        if len(made) < 4:
            return None
        inner = [self._ring(hole, number) for hole in holes]
        return shapely.Polygon(made, [hole for hole in inner if len(hole) >= 4])

    def _ring(self, points: Any, number: int) -> npt.NDArray[np.float64]:
        """Return ``(n, 2)``: a closed ring, ``(x, y)`` on the slide."""
        self._points += len(self._listed(points, number))
        if self._points > MAX_POINTS:
            raise self._too_many(f"{MAX_POINTS:,} corners")
        try:
            pairs = [(float(x), float(y)) for x, y, *_ in points]
        except (TypeError, ValueError, OverflowError) as error:
            raise self._wrong(number, "has a corner that is not two numbers") from error
        ring = np.array(pairs, np.float64).reshape(-1, 2)
        if not np.isfinite(ring).all():
            raise self._wrong(number, "has a corner that is not two numbers")
        if len(ring) and (ring[0] != ring[-1]).any():
            ring = np.concatenate([ring, ring[:1]])
        return ring + self._origin[::-1]

    def _listed(self, value: Any, number: int) -> list[Any]:
        if not isinstance(value, list):
            raise self._wrong(number, "has coordinates that are not a list")
        return value

    def _index_of(self, name: str, color: str) -> int:
        if name not in self._classes:
            others = [spec.name for spec in self._classes.values()]
            spec = ClassSpec(name=_allowed(name, others), color=color)
            self._classes[name] = spec
        return list(self._classes).index(name)

    def _wrong(self, number: int, what: str) -> InputError:
        return InputError(
            f"{self._path.name}: feature {number:,} {what}; export it from QuPath "
            "again (File › Export objects as GeoJSON)."
        )

    def _too_many(self, what: str) -> InputError:
        return InputError(
            f"{self._path.name}: holds more than {what}; export only the annotations "
            "that should teach."
        )


def _features(path: Path) -> Sequence[Any]:
    try:
        raw = read_plain(path, MAX_BYTES + 1)
    except OSError as error:
        msg = f"{path.name}: cannot be read ({error.strerror or error})."
        raise InputError(msg) from error
    if len(raw) > MAX_BYTES:
        msg = (
            f"{path.name}: larger than {MAX_BYTES >> 20} MiB; export only the "
            "annotations that should teach."
        )
        raise InputError(msg)
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        msg = (
            f"{path.name}: is not JSON; in QuPath, File › Export objects as GeoJSON "
            "writes such a file, uncompressed."
        )
        raise InputError(msg) from error
    if isinstance(content, dict):
        kind = content.get("type")
        content = content.get("features") if kind == "FeatureCollection" else [content]
        if kind not in ("FeatureCollection", "Feature"):
            content = None
    if not isinstance(content, list):
        msg = (
            f"{path.name}: is JSON, but not GeoJSON with features; in QuPath, File › "
            "Export objects as GeoJSON writes such a file."
        )
        raise InputError(msg)
    return content


def _class_of(properties: Any) -> tuple[str, str] | None:
    """Return name and colour of a feature's class, as QuPath writes it."""
    known = properties.get("classification") if isinstance(properties, dict) else None
    if isinstance(known, str):
        known = {"name": known}
    if not isinstance(known, dict):
        return None
    names = known.get("names")  # of classes that are derived from others
    name = known.get("name")
    if name is None and isinstance(names, list):
        name = ": ".join(str(part) for part in names)
    if not isinstance(name, str) or not name.strip():
        return None
    return name.strip(), _color(known.get("color"), known.get("colorRGB"))


def _color(triple: Any, packed: Any) -> str:
    """Return a colour from ``[r, g, b]``, or Java's integer ``0xAARRGGBB``."""
    if isinstance(packed, int) and not isinstance(packed, bool) and triple is None:
        return f"#{packed & 0xFFFFFF:06x}"
    if (
        isinstance(triple, list)
        and len(triple) >= 3
        and all(isinstance(v, int) and 0 <= v <= 255 for v in triple[:3])
    ):
        return "#" + "".join(f"{v:02x}" for v in triple[:3])
    return _NO_COLOR


def _allowed(name: str, others: Sequence[str]) -> str:
    """Return a name that a class may have, and none of the others has."""
    kept = re.sub(r"[^A-Za-z0-9._ -]+", "-", name).strip("-._ ")
    kept = re.sub(r"\s+", " ", kept)[:_NAME_LENGTH] or "class"
    wish, number = kept, 2
    while wish in others:
        wish, number = f"{kept} {number}", number + 1
    return wish


def _paint(
    labels: npt.NDArray[np.uint8],
    polygon: Any,
    value: int,
    scale: npt.NDArray[np.float64],
) -> None:
    from skimage.draw import polygon as pixels_of

    height, width = labels.shape
    # Corners in pixels; -0.5 makes a pixel's centre a whole number.
    shell, *holes = (
        np.asarray(ring.coords)[:, ::-1] * scale[::-1] - 0.5
        for ring in (polygon.exterior, *polygon.interiors)
    )
    low = np.clip(np.floor(shell.min(axis=0)), 0, (height, width)).astype(int)
    high = np.clip(np.ceil(shell.max(axis=0)) + 1, 0, (height, width)).astype(int)
    size = high - low
    if (size <= 0).any():
        return
    inside = np.zeros(size, np.bool_)
    inside[pixels_of(*(shell - low).T, size)] = True
    for hole in holes:
        inside[pixels_of(*(hole - low).T, size)] = False
    if not inside.any():
        point = shapely.make_valid(polygon).representative_point()
        y, x = math.floor(point.y * scale[1]), math.floor(point.x * scale[0])
        if 0 <= y < height and 0 <= x < width:
            labels[y, x] = value
        return
    labels[low[0] : high[0], low[1] : high[1]][inside] = value
