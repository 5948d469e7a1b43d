"""What ``align`` and ``pairs`` say and write: facts, pages, transforms."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from napari_histodistill.cli.console import tell
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from napari_histodistill.distill.sections.alignment import SectionAlignment
    from napari_histodistill.distill.sections.files import SectionFiles
    from napari_histodistill.distill.sections.page import ShownSection

PROGRESS_S = 5.0

_Last = TypeVar("_Last")


def check_output(
    path: Path, inputs: Iterable[Path], is_ours: Callable[[str], bool], option: str
) -> None:
    """Refuse, before anything is computed, a place that cannot be written to.

    Raises
    ------
    InputError
        If it is an input, another program's file, or its folder is none.
    """
    from napari_histodistill.export.safe_writing import refuse_strangers

    if any(path.exists() and one.exists() and path.samefile(one) for one in inputs):
        msg = f"{option} {path}: this is one of the inputs: choose another name."
        raise InputError(msg)
    refuse_strangers(path, is_ours)
    there = next(p for p in path.absolute().parents if p.exists())
    if not there.is_dir():
        msg = f"{option} {path}: {there} is no folder."
        raise InputError(msg)


def is_page(head: str) -> bool:
    """Whether a file is a page of this program, by its beginning."""
    return head.startswith("<!DOCTYPE html>") and "<title>Sections" in head


def write_page(path: Path, shown: Sequence[ShownSection]) -> None:
    """Write the page on sections."""
    from napari_histodistill.distill.sections.page import sections_page
    from napari_histodistill.export.safe_writing import write_file

    write_file(
        path, sections_page("Sections and how they were aligned", shown), is_page
    )


def last_of(reports: Iterable[float | _Last], title: str) -> _Last:
    """Follow a search on stderr, and return its last report."""
    found, said = None, time.monotonic()
    for report in reports:
        if not isinstance(report, float):
            found = report
        elif time.monotonic() - said >= PROGRESS_S:
            said = time.monotonic()
            tell(f"{title}: {report:.0%} of the search")
    assert found is not None  # the last report of every alignment
    return found


def alignment_facts(files: SectionFiles, found: SectionAlignment) -> dict[str, Any]:
    """Return an alignment for ``--json``."""
    from napari_histodistill.addresses import shown
    from napari_histodistill.distill.layers.registration import inverse

    known = found.registration
    return {
        "he": shown(files.he),
        "partner": shown(files.partner),
        "kind": known.kind,
        "matrix_um": inverse(known.matrix).tolist(),
        "residual_um": _rounded(found.residual_um),
        "error_um": _rounded(found.error_um),
        "landmarks": 0 if found.landmarks is None else len(found.landmarks),
        "score": _rounded(found.score, 4),
        "margin": _rounded(found.margin, 4),
        "accepted": found.accepted,
        "reasons": list(found.reasons),
        "aligned_by": found.by.value,
        "degrees": round(known.degrees, 3),
        "scale": round(known.scale, 5),
        "mirrored": known.mirrored,
    }


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)


def alignment_text(facts: dict[str, Any]) -> str:
    """Return an alignment for people."""
    off = facts["error_um"]
    error = "its error is not known" if off is None else f"off by {off:.1f} µm (median)"
    turn = f"turned by {facts['degrees']:.1f}°, {facts['scale']:.3f} times as large"
    mirrored = ", mirrored" if facts["mirrored"] else ""
    names = f"{Path(facts['he']).name} and {Path(facts['partner']).name}"
    lines = [
        f"{names}: {facts['kind']}, {error}",
        f"  the partner is {turn}{mirrored}",
    ]
    if facts["margin"] is not None:
        lines.append(f"  margin over the best other pose {facts['margin']:.2f}")
    lines += [f"  {reason}" for reason in facts["reasons"]]
    return "\n".join(lines)
