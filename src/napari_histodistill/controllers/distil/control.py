"""Two trainings that differ in the partner and in nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_histodistill.distill.runs.kin import kin_beside, kin_of

if TYPE_CHECKING:
    from pathlib import Path

NOTES = ("without partner", "with partner")

NO_STUDENT = "There is no model yet: train one first."
NO_CONTROL = (
    "Train both first: the same pairs and preset once with “without the partner” "
    "ticked and once without the tick."
)


def why_no_comparison(bundle: Path | None) -> str:
    """Return why a student cannot be compared with its control; empty if it can."""
    if bundle is None:
        return NO_STUDENT
    return NO_CONTROL if student_and_control(bundle) is None else ""


def student_and_control(bundle: Path) -> tuple[Path, Path] | None:
    """Return a student and its control: trained alike, but for the partner.

    Recipe (preset, steps, seed) and pairs must be the same.

    Parameters
    ----------
    bundle : Path
        The student of a run; its control is looked for in the runs beside it.

    Returns
    -------
    tuple of Path or None
        The bundles without and with a partner; the newest where there are several.
    """
    mine = kin_of(bundle)
    if mine is None:
        return None
    for other in kin_beside(bundle):
        if other.is_control_of(mine):
            return other.bundle, bundle
        if mine.is_control_of(other):
            return bundle, other.bundle
    return None
