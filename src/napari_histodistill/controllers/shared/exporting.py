"""The exports of both panels about a slide, and the work that writes them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_histodistill.errors import InputError
from napari_histodistill.maps.provenance import MapRecord, provenance_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    import numpy.typing as npt

    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.controllers.shared.similar import SimilarResult
    from napari_histodistill.maps.alike.ranking import RankedRegion
    from napari_histodistill.maps.classes import ClassMap
    from napari_histodistill.maps.difference import DifferenceMap
    from napari_histodistill.running import CancelToken

    Pixels = npt.NDArray[np.uint8]
    from napari_histodistill.slides import Slide
    from napari_histodistill.slides.pyramid.slide import SlideInfo
    from napari_histodistill.students.student import Student


_SIDES = ("a", "b")

STARTED = frozenset((".app", ".bundle", ".workflow", ".pkg", ".prefpane", ".action"))
"""Endings of folders that macOS starts, or installs, when they are opened."""


class ExportKey(Enum):
    """The things that can be written to a file."""

    CLASS_OUTLINES = "class outlines"
    CLASS_PARTS = "class parts"
    CLASS_LABELS = "class labels"
    CLASS_AREAS = "class areas"
    SQUARES = "squares"
    FIGURE = "figure"
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
        ExportKey.SQUARES,
        "Table of squares (CSV)…",
        "A line for every square: its place in pixels and µm, class, probabilities, "
        "similarity, and whether it is like what the model learned from.",
        ".squares.csv",
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

FIGURE = ExportKind(
    ExportKey.FIGURE,
    "Figure (PNG)…",
    "A picture to pass on: the slide with what is shown of its map, scale bar, legend, "
    "verdict and where it comes from. The slide's name is not on it.",
    ".figure.png",
    Ingredient.CLASSES,
)
"""Has a button of its own."""

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
    every = (*EXPORTS, FIGURE, *DIFFERENCE_EXPORTS)
    return next(kind for kind in every if kind.key == key)


def check_export(
    key: ExportKey, classes: ClassMap | None, similar: SimilarResult | None
) -> None:
    """Refuse an export that would write nothing, before a file is asked for.

    Raises
    ------
    InputError
        If there is nothing of that kind, or a filter hides all of it.
    """
    from napari_histodistill.export.record import refuse_empty

    kind = kind_of(key)
    if kind.needs is Ingredient.CLASSES and (classes is None or not classes.classes):
        msg = "There is no class map to export: run a model with classes first."
        raise InputError(msg)
    if kind.needs is Ingredient.SEARCH and similar is None:
        msg = "There is no search to export: click on tissue first."
        raise InputError(msg)
    if kind.needs is Ingredient.SEARCH and similar is not None and not similar.ranked:
        msg = (
            "Nothing would be written: no place is above the threshold of the search; "
            "lower it."
        )
        raise InputError(msg)
    # A table of squares lists those that are hidden, too.
    if kind.needs is Ingredient.CLASSES and key is not ExportKey.SQUARES:
        assert classes is not None
        refuse_empty(classes)


def export_work(
    key: ExportKey,
    path: Path,
    *,
    classes: ClassMap | None,
    similar: SimilarResult | None,
    slide: SlideInfo | None = None,
    picture: Callable[[], Pixels] | None = None,
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
    picture : callable, optional
        Returns all of the slide as a small picture, for a figure: called in the thread.

    Raises
    ------
    InputError
        As :func:`check_export`.
    """
    kind = kind_of(key)
    check_export(key, classes, similar)

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
            _write_classes(kind.key, found, path, similar, picture)
        elif similar is not None:
            about = None if classes is None else _search_facts(classes, similar)
            _write_places(similar.ranked, path, slide, about=about)
        yield Exported(path)

    return work


def check_difference(
    key: ExportKey, difference: DifferenceMap | None, ranked: Sequence[RankedRegion]
) -> None:
    """Refuse an export of a comparison that would write nothing.

    Raises
    ------
    InputError
        If there is no comparison, or no place is above its threshold.
    """
    if difference is None:
        msg = "There is no comparison to export: run both models first."
        raise InputError(msg)
    if key is not ExportKey.DIFFERENCE_MAP and not ranked:
        msg = "Nothing would be written: no place differs by so much; lower *From*."
        raise InputError(msg)


def difference_facts(
    difference: DifferenceMap, slide: Slide | None, students: Sequence[Student]
) -> dict[str, Any]:
    """Return where a comparison comes from, as JSON; empty if that is not known."""
    from napari_histodistill.export.record import record_facts

    if slide is None or len(students) != len(_SIDES):
        return {}
    made_by = provenance_of(slide, students[0], "tiles")
    facts = record_facts(MapRecord(made_by=made_by), difference.grid)
    kept = (
        *("program", "version", "written", "slide", "slide_digest", "mode"),
        *("step_um", "um_per_px", "um_per_px_source"),
    )
    found = {key: facts[key] for key in kept} | {"measure": difference.measure}
    found["difference"] = round(difference.figure, 4)
    noise, within = difference.noise, difference.is_within_noise
    found["difference_of_two_seeds"] = None if noise is None else round(noise.figure, 4)
    found["within_noise"] = within
    for side, student in zip(_SIDES, students, strict=True):
        found[f"model_{side}"] = student.name
        found[f"model_{side}_title"] = student.spec.title
        found[f"model_{side}_digest"] = student.digest
    return found


def export_difference_work(
    key: ExportKey,
    path: Path,
    difference: DifferenceMap | None,
    ranked: Sequence[RankedRegion],
    slide: Slide | None = None,
    students: Sequence[Student] = (),
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
    slide : Slide or None
        Says from where its pixels are counted and where it lies in µm.
    students : sequence of Student
        A and B, which the file names.

    Raises
    ------
    InputError
        As :func:`check_difference`.
    """
    check_difference(key, difference, ranked)
    assert difference is not None
    about = difference_facts(difference, slide, students)
    info = None if slide is None else slide.info

    def work(cancel: CancelToken) -> Iterator[Exported]:
        from napari_histodistill.export.omezarr import write_difference
        from napari_histodistill.export.table import write_regions

        cancel.check()
        origin = difference.origin_um if info is None else info.origin_um
        if key is ExportKey.DIFFERENCE_MAP:
            placed = replace(difference, origin_um=origin)
            write_difference(placed, path, provenance=about)
        elif key is ExportKey.DIFFERENT_PLACES:
            _write_places(ranked, path, info, score="Difference", about=about)
        else:
            write_regions(
                ranked,
                path,
                score="difference",
                slide_mpp=difference.grid.slide_mpp,
                origin_um=origin,
                provenance=about,
            )
        yield Exported(path)

    return work


def _write_classes(
    key: ExportKey,
    classes: ClassMap,
    path: Path,
    similar: SimilarResult | None,
    picture: Callable[[], Pixels] | None,
) -> None:
    from napari_histodistill.export.geojson import write_geojson
    from napari_histodistill.export.omezarr import write_class_labels
    from napari_histodistill.export.table import write_areas, write_squares

    def figure(found: ClassMap, path: Path) -> Path:
        from napari_histodistill.export.figure import write_figure

        if picture is None:
            msg = "There is no slide to draw a figure of."
            raise InputError(msg)
        made_by = found.record.made_by.student_name if found.record else ""
        return write_figure(found, picture(), made_by, path)

    values = similar.similarity.values if similar is not None else None
    writers: dict[ExportKey, Callable[[ClassMap, Path], Path]] = {
        ExportKey.FIGURE: figure,
        ExportKey.SQUARES: partial(write_squares, similarity=values),
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
    about: dict[str, Any] | None = None,
) -> None:
    from napari_histodistill.export.geojson import write_regions_geojson

    write_regions_geojson(
        ranked,
        path,
        score=score,
        bounds_origin=slide.bounds_origin if slide else None,
        origin_um=slide.origin_um if slide else (0.0, 0.0),
        provenance=about,
    )


def _search_facts(classes: ClassMap, similar: SimilarResult) -> dict[str, Any]:
    """Return where ranked places come from: the map, the clicks, the threshold."""
    from napari_histodistill.export.record import record_facts

    if classes.record is None:
        return {}
    across = similar.across
    prompts = similar.prompts if across is None else across.prompts
    clicks = {"like_at": prompts.at, "not_like_at": prompts.not_at}
    facts = record_facts(classes.record, classes.grid) | {
        **{name: [[y, x] for y, x in places] for name, places in clicks.items()},
        "threshold": similar.threshold,
    }
    if across is not None:
        facts |= {"asked_on": across.asked_on, "slides_searched": across.slides}
    return facts


# --- where to -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Proposal:
    """Where a file is proposed to go.

    Attributes
    ----------
    path : Path
        Folder and name.
    note : str
        Why it is not the slide's folder; "" if it is.
    """

    path: Path
    note: str = ""


def proposed_path(
    home: Path | None, name: str, ending: str, last: Path | None = None
) -> Proposal:
    """Propose the slide's own folder and name, or another place and why.

    Parameters
    ----------
    home : Path or None
        The slide's file or folder; None if it has none, such as an address or an array.
    name : str
        The slide's name.
    ending : str
        Of the new file, with its full stop.
    last : Path, optional
        Folder that was chosen last, taken where the slide's cannot be.
    """
    kept = "".join("_" if c in '<>:"/\\|?*' or c < " " else c for c in name)
    file = f"{Path(kept).stem or 'slide'}{ending}"
    folder = None if home is None else _around(home)
    if folder is not None and is_writable(folder):
        return Proposal(folder / file)
    why = (
        f"{folder} cannot be written to"
        if folder is not None
        else "The slide lies in no folder of this computer"
    )
    if last is not None and is_writable(last):
        return Proposal(last / file, f"{why}: the last folder is proposed.")
    return Proposal(_home() / file, f"{why}: your home folder is proposed.")


def is_writable(folder: Path) -> bool:
    """Whether a file can be made in a folder; tries it, and leaves nothing."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def folder_to_open(path: Path) -> Path | None:
    """Return the folder in which a file was written, for a file manager; None if gone.

    A folder that an operating system would start in place of showing it (a program on
    macOS) is never returned: the one around it is.
    """
    folder = path.absolute().parent
    started = [p for p in (folder, *folder.parents) if p.suffix.lower() in STARTED]
    if started:
        folder = started[-1].parent
    return folder if folder.is_dir() else None


def _around(home: Path) -> Path:
    """Return the folder around a slide, outside of the Zarr that it may lie in."""
    folder = home.absolute().parent
    inside = [p for p in (folder, *folder.parents) if p.suffix.lower() == ".zarr"]
    return inside[-1].parent if inside else folder


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # a user of whom the system knows nothing
        return Path.cwd()
