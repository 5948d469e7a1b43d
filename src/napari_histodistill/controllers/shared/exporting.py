"""The exports of both panels about a slide, and the work that writes them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.controllers.shared.similar import SimilarResult
    from napari_histodistill.maps.classes import ClassMap
    from napari_histodistill.maps.difference import DifferenceMap
    from napari_histodistill.maps.ranking import RankedRegion
    from napari_histodistill.running import CancelToken
    from napari_histodistill.slides.pyramid.slide import SlideInfo


class ExportKey(Enum):
    """The things that can be written to a file."""

    CLASS_OUTLINES = "class outlines"
    CLASS_PARTS = "class parts"
    CLASS_LABELS = "class labels"
    CLASS_AREAS = "class areas"
    SIMILAR_PLACES = "similar places"
    DIFFERENCE_MAP = "difference map"
    DIFFERENT_PLACES = "different places"
    DIFFERENCE_TABLE = "difference table"


class Ingredient(Enum):
    """The thing that an export is made from."""

    CLASSES = "classes"
    SEARCH = "search"
    DIFFERENCE = "difference"


@dataclass(frozen=True, slots=True)
class ExportKind:
    """One line of the export menu.

    Attributes
    ----------
    key : ExportKey
        Which it is.
    title, tooltip : str
        On screen.
    ending : str
        Of the file.
    needs : Ingredient
        What must be there.
    """

    key: ExportKey
    title: str
    tooltip: str
    ending: str
    needs: Ingredient


EXPORTS = (
    ExportKind(
        ExportKey.CLASS_OUTLINES,
        "Class outlines for QuPath (GeoJSON)…",
        "Merged outlines of each class in pixels of the slide, with names and colours.",
        ".geojson",
        Ingredient.CLASSES,
    ),
    ExportKind(
        ExportKey.CLASS_PARTS,
        "Class outlines, a polygon per part (GeoJSON)…",
        "For programs that read simple polygons only: TIAToolbox, napari-geojson.",
        ".geojson",
        Ingredient.CLASSES,
    ),
    ExportKind(
        ExportKey.CLASS_LABELS,
        "Class map (OME-Zarr)…",
        "The map as labels with its place in µm.",
        ".ome.zarr",
        Ingredient.CLASSES,
    ),
    ExportKind(
        ExportKey.CLASS_AREAS,
        "Areas in mm² (CSV)…",
        "A table: squares and mm² of each class.",
        ".csv",
        Ingredient.CLASSES,
    ),
    ExportKind(
        ExportKey.SIMILAR_PLACES,
        "Similar places for QuPath (GeoJSON)…",
        "The ranked places with their similarity.",
        ".geojson",
        Ingredient.SEARCH,
    ),
)


DIFFERENCE_EXPORTS = (
    ExportKind(
        ExportKey.DIFFERENCE_MAP,
        "Difference map (OME-Zarr)…",
        "The map as an image with its place in µm.",
        ".ome.zarr",
        Ingredient.DIFFERENCE,
    ),
    ExportKind(
        ExportKey.DIFFERENT_PLACES,
        "Places that differ for QuPath (GeoJSON)…",
        "The ranked places with their difference.",
        ".geojson",
        Ingredient.DIFFERENCE,
    ),
    ExportKind(
        ExportKey.DIFFERENCE_TABLE,
        "Places that differ (CSV)…",
        "A table of the ranked places: position, difference, mm².",
        ".csv",
        Ingredient.DIFFERENCE,
    ),
)


@dataclass(frozen=True, slots=True)
class Exported:
    """A file was written."""

    path: Path


def kind_of(key: ExportKey) -> ExportKind:
    """Return what the menu says of an export."""
    return next(k for k in (*EXPORTS, *DIFFERENCE_EXPORTS) if k.key == key)


def export_work(
    key: ExportKey,
    path: Path,
    *,
    classes: ClassMap | None,
    similar: SimilarResult | None,
    slide: SlideInfo | None = None,
) -> Work:
    """Return work that writes one export.

    Parameters
    ----------
    key : ExportKey
        Of one of :data:`EXPORTS`.
    path : Path
        Where to.
    classes, similar : ClassMap, SimilarResult or None
        What is on screen.
    slide : SlideInfo or None
        Says from where its pixels are counted and where it lies in µm.

    Raises
    ------
    InputError
        If there is nothing of that kind to export.
    """
    kind = kind_of(key)
    if kind.needs is Ingredient.CLASSES and (classes is None or not classes.classes):
        msg = "There is no class map to export: run a model with classes first."
        raise InputError(msg)
    if kind.needs is Ingredient.SEARCH and similar is None:
        msg = "There is no search to export: click on tissue first."
        raise InputError(msg)

    def work(cancel: CancelToken) -> Iterator[Exported]:
        cancel.check()
        if classes is not None and kind.needs is Ingredient.CLASSES:
            found = classes
            if slide is not None:
                found = replace(
                    classes,
                    bounds_origin=slide.bounds_origin,
                    origin_um=slide.origin_um,
                )
            _write_classes(kind.key, found, path)
        elif similar is not None:
            _write_places(similar.ranked, path, slide)
        yield Exported(path)

    return work


def export_difference_work(
    key: ExportKey,
    path: Path,
    difference: DifferenceMap | None,
    ranked: Sequence[RankedRegion],
    slide: SlideInfo | None = None,
) -> Work:
    """Return work that writes one export of a comparison.

    Parameters
    ----------
    key : ExportKey
        Of one of :data:`DIFFERENCE_EXPORTS`.
    path : Path
        Where to.
    difference : DifferenceMap or None
        Values over the grid, if two students were compared.
    ranked : sequence of RankedRegion
        Most different first.
    slide : SlideInfo or None
        Says from where its pixels are counted and where it lies in µm.

    Raises
    ------
    InputError
        If there is none.
    """
    if difference is None:
        msg = "There is no comparison to export: run both models first."
        raise InputError(msg)

    def work(cancel: CancelToken) -> Iterator[Exported]:
        from napari_histodistill.export.omezarr import write_difference
        from napari_histodistill.export.table import write_regions

        cancel.check()
        origin = difference.origin_um if slide is None else slide.origin_um
        if key is ExportKey.DIFFERENCE_MAP:
            write_difference(replace(difference, origin_um=origin), path)
        elif key is ExportKey.DIFFERENT_PLACES:
            _write_places(ranked, path, slide, score="Difference")
        else:
            mpp = difference.grid.slide_mpp
            write_regions(
                ranked, path, score="difference", slide_mpp=mpp, origin_um=origin
            )
        yield Exported(path)

    return work


def _write_classes(key: ExportKey, classes: ClassMap, path: Path) -> None:
    from napari_histodistill.export.geojson import write_geojson
    from napari_histodistill.export.omezarr import write_class_labels
    from napari_histodistill.export.table import write_areas

    writers: dict[ExportKey, Callable[[ClassMap, Path], Path]] = {
        ExportKey.CLASS_OUTLINES: write_geojson,
        ExportKey.CLASS_PARTS: partial(write_geojson, split=True),
        ExportKey.CLASS_LABELS: write_class_labels,
        ExportKey.CLASS_AREAS: write_areas,
    }
    writers[key](classes, path)


def _write_places(
    ranked: Sequence[RankedRegion],
    path: Path,
    slide: SlideInfo | None,
    score: str = "Similarity",
) -> None:
    from napari_histodistill.export.geojson import write_regions_geojson

    write_regions_geojson(
        ranked,
        path,
        score=score,
        bounds_origin=slide.bounds_origin if slide else None,
        origin_um=slide.origin_um if slide else (0.0, 0.0),
    )
