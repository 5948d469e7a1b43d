"""Tables (CSV, UTF-8, one header line) for a spreadsheet or pandas."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from napari_histodistill.export.safe_writing import write_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from napari_histodistill.geometry import Mpp
    from napari_histodistill.maps.classes import ClassMap
    from napari_histodistill.maps.ranking import RankedRegion

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


def write_areas(class_map: ClassMap, path: Path | str) -> Path:
    """Write cells, area and share of every class.

    ``percent`` is the share of the classified area, so it adds up to 100. ``judged``
    and ``unlike`` count squares that were compared with what the student learned from;
    ``all_mm2`` is the area with unlike squares that were left out, ``like_mm2`` that
    without them, empty unless every square was judged. ``verdict`` is that on the whole
    slide, the same in every line; empty if it was not judged.

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
    rows = (
        (
            *(a.name, a.cells, f"{a.mm2:.6f}"),
            f"{100 * a.mm2 / total if total else 0:.2f}",
            *(a.judged, a.unlike, f"{a.all_mm2:.6f}"),
            "" if a.like_mm2 is None else f"{a.like_mm2:.6f}",
            verdict,
        )
        for a in areas
    )
    return _write(_AREAS + _TRUST, rows, path, earlier=_AREAS)


def write_regions(
    regions: Sequence[RankedRegion],
    path: Path | str,
    *,
    score: str = "similarity",
    slide_mpp: Mpp | None = None,
    origin_um: tuple[float, float] = (0.0, 0.0),
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

    Raises
    ------
    InputError
        If a file that is not an earlier export is there, or it cannot be written.
    """
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
        )
        for r in regions
    )
    header = tuple(score if name == "similarity" else name for name in _REGIONS)
    return _write(header + (_WORLD if slide_mpp else ()), rows, path, earlier=header)


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
    earlier: Sequence[str] = (),
) -> Path:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    own = {",".join(header), ",".join(earlier), ",".join((*header, *_WORLD))} - {""}
    return write_file(
        path, buffer.getvalue(), lambda head: bool(own & set(head.splitlines()[:1]))
    )
