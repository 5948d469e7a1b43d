"""Tables (CSV, UTF-8, one header line) for a spreadsheet or pandas."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from napari_histodistill.export.safe_writing import write_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from napari_histodistill.maps.classes import ClassMap
    from napari_histodistill.maps.ranking import RankedRegion

_AREAS = ("class", "cells", "mm2", "percent")
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


def write_areas(class_map: ClassMap, path: Path | str) -> Path:
    """Write cells, area and share of every class.

    ``percent`` is the share of the classified area, so it adds up to 100.

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
    rows = (
        (a.name, a.cells, f"{a.mm2:.6f}", f"{100 * a.mm2 / total if total else 0:.2f}")
        for a in areas
    )
    return _write(_AREAS, rows, path)


def write_regions(
    regions: Sequence[RankedRegion], path: Path | str, *, score: str = "similarity"
) -> Path:
    """Write ranked regions, best first; positions in level-0 pixels.

    Parameters
    ----------
    regions : sequence of RankedRegion
        From :func:`rank_regions`.
    path : path
        For example ``similar.csv``.
    score : str
        Header of the column that they were ranked by.

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
        )
        for r in regions
    )
    header = tuple(score if name == "similarity" else name for name in _REGIONS)
    return _write(header, rows, path)


def _write(
    header: Sequence[str], rows: Iterable[Sequence[object]], path: Path | str
) -> Path:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    first = ",".join(header)
    return write_file(
        path, buffer.getvalue(), lambda head: head.splitlines()[:1] == [first]
    )
