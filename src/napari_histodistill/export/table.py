"""Tables (CSV, UTF-8, one header line, no comments) for a spreadsheet or pandas.

Where a map comes from stands in columns of its own in a table of few lines, the same in
every line, so that tables of many slides can be put below each other. Beside a table
with a line per square lies a JSON file that says it once.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.export.record import columns_of, facts_of
from napari_histodistill.export.safe_writing import refuse_strangers, write_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy.typing as npt

    from napari_histodistill.geometry import Mpp
    from napari_histodistill.maps.alike.ranking import RankedRegion
    from napari_histodistill.maps.classes import ClassMap

_AREAS = ("class", "cells", "mm2", "percent")
_TRUST = ("judged", "unlike", "all_mm2", "like_mm2", "verdict")
_REGIONS = (
    "rank",
    "similarity",
    "y",
    "x",
    "box_y",
    "box_x",
    "box_height",
    "box_width",
    "cells",
    "mm2",
    "is_query",
)
_WORLD = ("world_y_um", "world_x_um")
_SQUARES = ("x", "y", "x_um", "y_um", "class", "probability")


def is_ours(head: str) -> bool:
    """Return whether a file that begins so is one of these tables."""
    first = head.splitlines()[:1]
    starts = _start(_AREAS), _start(_REGIONS), ",".join(_SQUARES)
    return any(line.startswith(starts) for line in first)


def _start(header: Sequence[str]) -> str:
    return ",".join(header[:2]) + ","


def write_areas(class_map: ClassMap, path: Path | str) -> Path:
    """Write cells, area and share of every class.

    ``percent`` is the share of the classified area, so it adds up to 100. ``judged``
    and ``unlike`` count squares that were compared with what the student learned from;
    ``all_mm2`` is the area with unlike squares that were left out, ``like_mm2`` that
    without them, empty unless every square was judged. ``verdict`` is that on the whole
    slide, the same in every line; empty if it was not judged. The columns after it say
    where the map comes from, see :func:`~napari_histodistill.export.record.facts_of`.

    Parameters
    ----------
    class_map : ClassMap
        Map to measure.
    path : path
        For example ``areas.csv``.

    Raises
    ------
    InputError
        If a file that is not an earlier export is there, or it cannot be written.
    """
    areas = class_map.areas()
    total = sum(area.mm2 for area in areas)
    verdict = "" if class_map.trust is None else class_map.trust.verdict.value
    facts = facts_of(class_map)
    about = columns_of({k: v for k, v in facts.items() if k != "verdict"})
    rows = (
        (
            *(a.name, a.cells, f"{a.mm2:.6f}"),
            f"{100 * a.mm2 / total if total else 0:.2f}",
            *(a.judged, a.unlike, f"{a.all_mm2:.6f}"),
            "" if a.like_mm2 is None else f"{a.like_mm2:.6f}",
            verdict,
            *about.values(),
        )
        for a in areas
    )
    header = _AREAS + _TRUST
    return _write((*header, *about), rows, path, earlier=(_AREAS,), start=_line(header))


def write_squares(
    class_map: ClassMap,
    path: Path | str,
    *,
    similarity: npt.NDArray[np.float32] | None = None,
) -> Path:
    """Write a line for every square that was computed, shown or not.

    ``x`` and ``y`` are the square's centre in level-0 pixels from the slide's upper
    left corner; ``x_um`` and ``y_um`` the same place in the world of a viewer that
    draws the slide in µm where its file places it (pixels there are counted by their
    centres). ``class`` is empty for a square that the filter hides; ``probability`` is
    that of the likeliest class. Then follow ``p_`` and its name for every class,
    ``similarity`` if there is a search, and ``like``: 1 or 0 for squares that were
    compared with what the student learned from, else empty. Where the map comes from is
    in a JSON file beside it, of the same name and ``.json``.

    Parameters
    ----------
    class_map : ClassMap
        Map to list.
    path : path
        For example ``squares.csv``.
    similarity : ndarray, optional
        ``(rows, columns)`` float32, NaN where there is none.

    Raises
    ------
    InputError
        If a file that is not an earlier export is there, or it cannot be written.
    """
    path = Path(path)
    names = [spec.name for spec in class_map.classes]
    searched = () if similarity is None else ("similarity",)
    header = (*_SQUARES, *(f"p_{name}" for name in names), *searched, "like")
    about = path.with_name(path.name + ".json")
    facts = json.dumps(facts_of(class_map), ensure_ascii=False, indent=2) + "\n"
    refuse_strangers(about, _is_about)
    squares = _square_rows(class_map, similarity)
    written = _write(header, squares, path, start=_line(_SQUARES))
    write_file(about, facts, _is_about)
    return written


def _is_about(head: str) -> bool:
    return head.startswith('{\n  "program": "napari-histodistill"') or head == "{}\n"


def _square_rows(
    found: ClassMap, similarity: npt.NDArray[np.float32] | None
) -> Iterator[Sequence[object]]:
    names, grid = [spec.name for spec in found.classes], found.grid
    y, x = grid.centers()
    (y0, x0), mpp = found.origin_um, grid.slide_mpp
    like = np.full(grid.shape, "", "U1")
    if found.trust is not None:
        rows, columns = found.trust.cells.T
        like[rows, columns] = np.where(found.trust.unlike, "0", "1")
    for row, column in np.argwhere(np.isfinite(found.probabilities).all(axis=-1)):
        chances, label = found.probabilities[row, column], found.labels[row, column]
        yield (
            *(f"{x[column]:.1f}", f"{y[row]:.1f}"),
            f"{x0 + (x[column] - 0.5) * mpp.x:.2f}",
            f"{y0 + (y[row] - 0.5) * mpp.y:.2f}",
            names[label - 1] if label else "",
            f"{chances.max():.4f}",
            *(f"{p:.4f}" for p in chances),
            *(() if similarity is None else (_number(similarity[row, column]),)),
            like[row, column],
        )


def _number(value: np.float32) -> str:
    return f"{value:.4f}" if np.isfinite(value) else ""


def write_regions(
    regions: Sequence[RankedRegion],
    path: Path | str,
    *,
    score: str = "similarity",
    slide_mpp: Mpp | None = None,
    origin_um: tuple[float, float] = (0.0, 0.0),
    provenance: dict[str, Any] | None = None,
) -> Path:
    """Write ranked regions, best first; positions in level-0 pixels.

    With ``slide_mpp`` two more columns, ``world_y_um`` and ``world_x_um``, say where
    the best square lies in the world of a viewer that draws the slide in µm where its
    file places it.

    Parameters
    ----------
    regions : sequence of RankedRegion
        From :func:`rank_regions`.
    path : path
        For example ``similar.csv``.
    score : str
        Header of the column that they were ranked by.
    slide_mpp : Mpp, optional
        µm per level-0 pixel.
    origin_um : tuple of float
        World position ``(y, x)`` of the centre of the slide's first pixel, µm.
    provenance : dict, optional
        Where the map comes from: a column for each entry, the same in every line.

    Raises
    ------
    InputError
        If a file that is not an earlier export is there, or it cannot be written.
    """
    about = columns_of(provenance or {})
    rows = (
        (
            r.rank,
            f"{r.score:.4f}",
            *(f"{v:.1f}" for v in (r.y, r.x, r.region.y, r.region.x)),
            *(f"{v:.1f}" for v in (r.region.height, r.region.width)),
            r.cells,
            f"{r.area_mm2:.6f}",
            int(r.is_query),
            *_world(r, slide_mpp, origin_um),
            *about.values(),
        )
        for r in regions
    )
    header = tuple(score if name == "similarity" else name for name in _REGIONS)
    known = header + (_WORLD if slide_mpp else ())
    return _write((*known, *about), rows, path, start=_line(header))


def _world(
    found: RankedRegion, mpp: Mpp | None, origin_um: tuple[float, float]
) -> tuple[str, ...]:
    """Return the centre of the best square in µm: half a pixel less, by centres."""
    if mpp is None:
        return ()
    y = origin_um[0] + (found.y - 0.5) * mpp.y
    x = origin_um[1] + (found.x - 0.5) * mpp.x
    return f"{y:.3f}", f"{x:.3f}"


def _write(
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    path: Path | str,
    *,
    earlier: Sequence[Sequence[str]] = (),
    start: str = "",
) -> Path:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    own = {_line(header), _line((*header, *_WORLD)), *map(_line, earlier)}

    def is_earlier(head: str) -> bool:
        first = "".join(head.splitlines()[:1])
        return first in own or bool(start and first.startswith(start))

    return write_file(path, buffer.getvalue(), is_earlier)


def _line(header: Sequence[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow(header)
    return buffer.getvalue()
