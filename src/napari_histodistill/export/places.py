"""What a search over several slides found: tables, outlines, and a page to look at."""

from __future__ import annotations

import csv
import html
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_histodistill.distill.pages import html_page, page_part, page_picture
from napari_histodistill.export import geojson
from napari_histodistill.export.cohort_table import in_a_cell, plain
from napari_histodistill.export.geojson import write_regions_geojson
from napari_histodistill.export.record import columns_of
from napari_histodistill.export.safe_writing import holds_ours, new_folder, write_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from napari_histodistill.maps.alike.across_slides import (
        FoundPlace,
        SlideAnswer,
        SlidesSearched,
    )

_PLACES = (
    "rank",
    "similarity",
    "slide",
    "store",
    "y",
    "x",
    "box_y",
    "box_x",
    "box_height",
    "box_width",
    "squares",
    "mm2",
    "is_query",
)
_SLIDES = ("slide", "store", "best_similarity", "places", "mm2", "squares")
_MARK = "<!-- napari-histodistill search -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacePicture:
    """A picture of a place, or why there is none.

    Attributes
    ----------
    png : bytes
        The tile that was compared; empty if the slide cannot be read.
    trouble : str
        Why there is none, in a sentence; else empty.
    """

    png: bytes = b""
    trouble: str = ""


def is_places(head: str) -> bool:
    """Return whether a file that begins so is a table of places."""
    return head.startswith(",".join(_PLACES))


def is_slides(head: str) -> bool:
    """Return whether a file that begins so is a table of slides."""
    return head.startswith(",".join(_SLIDES))


def is_page(head: str) -> bool:
    """Return whether a file that begins so is such a page."""
    return _MARK in head


def is_outlines(folder: Path) -> bool:
    """Return whether a folder holds outlines of places and nothing else."""
    return all(holds_ours(path, geojson.is_ours) for path in folder.iterdir())


def write_places(
    places: Sequence[FoundPlace], path: Path, *, provenance: dict[str, Any]
) -> Path:
    """Write a line for every place (CSV, UTF-8), the most similar of all slides first.

    Positions are level-0 pixels of the place's slide: ``y`` and ``x`` the middle of its
    most similar square, ``box_…`` the rectangle around all of its squares.

    Parameters
    ----------
    places : sequence of FoundPlace
        From :meth:`SlidesSearched.places`.
    path : Path
        For example ``places.csv``.
    provenance : dict
        How the search was done: a column for each entry, the same in every line.

    Raises
    ------
    InputError
        If a file that is not an earlier table is there, or it cannot be written.
    """
    about = columns_of(provenance)
    rows = (
        (
            found.rank,
            f"{found.place.score:.4f}",
            in_a_cell(found.answer.made_by.slide_name),
            in_a_cell(found.answer.store.name),
            *(f"{v:.1f}" for v in (found.place.y, found.place.x)),
            *(f"{v:.1f}" for v in _box(found)),
            found.place.cells,
            f"{found.place.area_mm2:.6f}",
            int(found.place.is_query),
            *about.values(),
        )
        for found in places
    )
    return write_file(path, _table((*_PLACES, *about), rows), is_places)


def _box(found: FoundPlace) -> tuple[float, float, float, float]:
    box = found.place.region
    return box.y, box.x, box.height, box.width


def write_slides(
    found: SlidesSearched, path: Path, *, provenance: dict[str, Any]
) -> Path:
    """Write a line for every slide (CSV, UTF-8), that with the best place first.

    ``places`` and ``mm2`` count what is at or above the threshold, the same on all
    slides; ``squares`` are all that were compared.

    Parameters
    ----------
    found : SlidesSearched
        The answer.
    path : Path
        For example ``slides.csv``.
    provenance : dict
        How the search was done: a column for each entry, the same in every line.

    Raises
    ------
    InputError
        If a file that is not an earlier table is there, or it cannot be written.
    """
    about = columns_of(provenance)
    rows = (
        (
            in_a_cell(one.made_by.slide_name),
            in_a_cell(one.store.name),
            "" if one.best is None else f"{one.best:.4f}",
            len(one.ranked),
            f"{one.area_mm2:.6f}",
            one.squares,
            *about.values(),
        )
        for one in best_first(found)
    )
    return write_file(path, _table((*_SLIDES, *about), rows), is_slides)


def best_first(found: SlidesSearched) -> list[SlideAnswer]:
    """Return the slides, that with the best place first, those without squares last."""
    return sorted(found.slides, key=lambda one: 2 if one.best is None else -one.best)


def write_outlines(
    found: SlidesSearched, folder: Path, *, provenance: dict[str, Any]
) -> Path:
    """Write the places of every slide that has any, for QuPath: a file for each.

    Parameters
    ----------
    found : SlidesSearched
        The answer.
    folder : Path
        Gets a GeoJSON for each slide, called as its store. An earlier one is replaced.
    provenance : dict
        How the search was done.

    Raises
    ------
    InputError
        If something else is there, or it cannot be written.
    """
    with new_folder(folder, is_outlines) as inside:
        for one in found.slides:
            if one.ranked:
                write_regions_geojson(
                    one.ranked,
                    _free(inside / f"{one.store.stem}.geojson"),
                    bounds_origin=one.made_by.bounds_origin,
                    origin_um=one.similarity.origin_um,
                    provenance=provenance | {"slide": one.made_by.slide_name},
                )
    return folder


def write_page(
    found: SlidesSearched,
    places: Sequence[FoundPlace],
    pictures: Sequence[PlacePicture],
    path: Path,
    *,
    notes: Sequence[str] = (),
) -> Path:
    """Write a page with a picture of every place, which needs nothing beside it.

    Parameters
    ----------
    found : SlidesSearched
        The answer.
    places : sequence of FoundPlace
        To be shown, best first.
    pictures : sequence of PlacePicture
        One for each place.
    path : Path
        For example ``places.html``.
    notes : sequence of str
        Sentences on what was looked for and by which student.

    Raises
    ------
    InputError
        If a file that is not an earlier page is there, or it cannot be written.
    """
    title = f"The most similar places of {_count(len(found.slides), 'slide')}"
    troubles = dict.fromkeys(one.trouble for one in pictures if one.trouble)
    parts = (
        _MARK,
        f"<h1>{title}</h1>",
        *(f"<p>{_shown(note)}</p>" for note in notes),
        page_part(
            "Places",
            "".join(map(_figure, places, pictures))
            + "".join(f'<p class="quiet">{_shown(words)}</p>' for words in troubles),
        ),
        page_part("Slides", _slides(found)),
        '<p class="quiet">Similarity is that of a model\'s embeddings: 1 the same, 0 '
        "unrelated. It says where to look, not what is there. Research use only: not a "
        "medical device, not for diagnosis.</p>",
    )
    return write_file(path, html_page(title, parts), is_page)


def _figure(found: FoundPlace, picture: PlacePicture) -> str:
    place = found.place
    words = (
        f"{found.rank} · {place.score:.2f}{' · asked for' if place.is_query else ''}"
        f"\n{found.answer.made_by.slide_name}\ny {place.y:.0f}, x {place.x:.0f} px"
    )
    shown = page_picture(picture.png, f"Place {found.rank}", "tile") or "<i>–</i>"
    lines = "<br>".join(_shown(line) for line in words.split("\n"))
    return f"<figure>{shown}<figcaption>{lines}</figcaption></figure>"


def _slides(found: SlidesSearched) -> str:
    head = "".join(
        f"<th>{name}</th>" for name in ("slide", "best", "places", "mm²", "squares")
    )
    rows = "".join(
        f"<tr><td>{_shown(one.made_by.slide_name)}</td>"
        + "".join(f'<td class="number">{cell}</td>' for cell in _numbers(one))
        + "</tr>\n"
        for one in best_first(found)
    )
    return f"<table><tr>{head}</tr>\n{rows}</table>"


def _numbers(one: SlideAnswer) -> tuple[str, ...]:
    best = "–" if one.best is None else f"{one.best:.2f}"
    return best, f"{len(one.ranked):,}", f"{one.area_mm2:.3f}", f"{one.squares:,}"


def _shown(text: str) -> str:
    return html.escape(plain(text))


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"


def _free(path: Path) -> Path:
    """Return a path that is free: two stores in different folders may share a name."""
    k, free = 2, path
    while free.exists():
        free = path.with_name(f"{path.stem}-{k}{path.suffix}")
        k += 1
    return free


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()
