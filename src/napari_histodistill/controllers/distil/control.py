"""Two trainings that differ in the partner and in nothing else."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from napari_histodistill.distill.runs.folder import CONFIG, STUDENT, read_run
from napari_histodistill.errors import HistodistillError

if TYPE_CHECKING:
    from pathlib import Path

    from napari_histodistill.distill.recipes.config import TrainedArm

ALONE: TrainedArm = "unprivileged"
NOTES = ("without partner", "with partner")

_MAY_DIFFER = ("arm", "dense", "name", "title", "description")

NO_STUDENT = "There is no model yet: train one first."
NO_CONTROL = (
    "Train both first: the same pairs and preset once with “without the partner” "
    "ticked and once without the tick."
)


def why_no_comparison(runs: Path, bundle: Path | None) -> str:
    """Return why a student cannot be compared with its control; empty if it can.

    Parameters
    ----------
    runs : Path
        Where runs are kept.
    bundle : Path or None
        The student.
    """
    if bundle is None:
        return NO_STUDENT
    return NO_CONTROL if student_and_control(runs, bundle) is None else ""


def student_and_control(runs: Path, bundle: Path) -> tuple[Path, Path] | None:
    """Return a student and its control: trained alike, but for the partner.

    Recipe (pairs, preset, steps, seed) and training places must be the same.

    Parameters
    ----------
    runs : Path
        Where runs are kept.
    bundle : Path
        The student of one of them.

    Returns
    -------
    tuple of Path or None
        The bundles without and with a partner; the newest where there are several.
    """
    mine = _trained(bundle)
    if mine is None:
        return None
    specs = runs.glob(f"*/{STUDENT}/spec.json")
    for spec in sorted(specs, key=lambda p: p.stat().st_mtime, reverse=True):
        other = _trained(spec.parent)
        if other is None or other[1] != mine[1] or ALONE not in {mine[0], other[0]}:
            continue
        if mine[0] != other[0]:
            return (bundle, spec.parent) if mine[0] == ALONE else (spec.parent, bundle)
    return None


def _trained(bundle: Path) -> tuple[TrainedArm, dict[str, Any]] | None:
    """Return the arm of a student, and all that must be the same in its control."""
    try:
        stamps = tuple(
            path.stat().st_mtime_ns
            for path in (bundle / "spec.json", bundle.parent / CONFIG)
        )
    except OSError:
        return None  # being trained, or no run
    return _read(bundle, stamps)


@lru_cache(maxsize=256)
def _read(
    bundle: Path,
    _stamps: tuple[int, ...],  # a bundle that was written again is read again
) -> tuple[TrainedArm, dict[str, Any]] | None:
    from napari_histodistill.students.bundle import load_spec

    try:
        config, _ = read_run(bundle.parent)
        spec = load_spec(bundle)
    except HistodistillError:
        return None  # damaged: no control of anything
    recipe = config.model_dump(mode="json", exclude=set(_MAY_DIFFER))
    places = spec.training.case_digests if spec.training else ()
    return config.arm, {"recipe": recipe, "places": sorted(places)}
