"""Several classified slides: what a summary says of each, and the table of them."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING
from unicodedata import category

from napari_histodistill.export.safe_writing import write_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from napari_histodistill.maps.classes import ClassArea
    from napari_histodistill.students.trust import SlideTrust

_COMPUTED = ("=", "+", "-", "@")
"""A spreadsheet takes a text that begins so for a formula."""

_HEADER = (
    "slide",
    "verdict",
    "unlike_share",
    "class",
    "squares",
    "mm2",
    "percent",
    "all_mm2",
    "like_mm2",
    "squares_judged",
    "slide_squares",
    "um_per_px",
    "um_per_px_source",
    "seconds",
    "error",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideSummary:
    """A slide in the summary of several; either classified or failed.

    Attributes
    ----------
    name : str
        Name of the file without its folder, or what may be shown of an address.
    error : str
        Why there is no map, in a sentence; empty if there is one.
    trust : SlideTrust or None
        The verdict; None if the slide failed.
    areas : tuple of ClassArea
        Squares and area of every class.
    um_per_px : float or None
        µm per level-0 pixel.
    um_per_px_source : str
        Where that was read, in words.
    cells : int
        Squares with an embedding.
    seconds : float
        What the slide took.
    figure : bytes
        PNG; empty if there is none.
    """

    name: str
    error: str = ""
    trust: SlideTrust | None = None
    areas: tuple[ClassArea, ...] = ()
    um_per_px: float | None = None
    um_per_px_source: str = ""
    cells: int = 0
    seconds: float = 0.0
    figure: bytes = b""


def percents(areas: Sequence[ClassArea]) -> list[float]:
    """Return the share of every class in the classified area, in per cent."""
    total = sum(area.mm2 for area in areas)
    return [100 * area.mm2 / total if total else 0.0 for area in areas]


def plain(text: str) -> str:
    r"""Replace what has no place in a text: controls, marks of direction, surrogates.

    Examples
    --------
    >>> plain("annex\u202egpj.exe")
    'annex�gpj.exe'
    """
    return "".join(c if category(c)[0] != "C" else "�" for c in text)


def in_a_cell(text: str) -> str:
    """Return a stranger's text for a table: plain, and no formula.

    A slide may be called "=…", which a spreadsheet would compute; an apostrophe before
    it, which spreadsheets hide, keeps it a text.

    Examples
    --------
    >>> in_a_cell("=1+1"), in_a_cell("case 7")
    ("'=1+1", 'case 7')
    """
    shown = plain(text)
    return f"'{shown}" if shown.startswith(_COMPUTED) else shown


def is_ours(head: str) -> bool:
    """Return whether a file that begins so is such a table."""
    return head.splitlines()[:1] == [",".join(_HEADER)]


def write_cohort(slides: Sequence[SlideSummary], path: Path) -> Path:
    """Write a table (CSV, UTF-8) with a line for every slide and class.

    ``percent`` is the share of the slide's classified area; ``all_mm2`` is the area
    with unlike squares that were left out, ``like_mm2`` that without them, empty unless
    every square was judged. A slide that failed has one line, with ``error``.

    Parameters
    ----------
    slides : sequence of SlideSummary
        In the order of the table.
    path : Path
        For example ``summary.csv``.

    Raises
    ------
    InputError
        If a file that is not an earlier table is there, or it cannot be written.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_HEADER)
    for slide in slides:
        writer.writerows(_rows(slide))
    return write_file(path, buffer.getvalue(), is_ours)


def _rows(slide: SlideSummary) -> Iterator[tuple[object, ...]]:
    trust, name = slide.trust, in_a_cell(slide.name)
    if trust is None:
        yield (name, *("",) * (len(_HEADER) - 2), in_a_cell(slide.error))
        return
    share = "" if trust.unlike_share is None else f"{trust.unlike_share:.4f}"
    for area, percent in zip(slide.areas, percents(slide.areas), strict=True):
        yield (
            *(name, trust.verdict.value, share, plain(area.name), area.cells),
            *(f"{area.mm2:.6f}", f"{percent:.2f}", f"{area.all_mm2:.6f}"),
            "" if area.like_mm2 is None else f"{area.like_mm2:.6f}",
            *(trust.squares, slide.cells),
            "" if slide.um_per_px is None else f"{slide.um_per_px:.6g}",
            *(in_a_cell(slide.um_per_px_source), f"{slide.seconds:.2f}", ""),
        )
