"""What an export says of its map: where it comes from, and what of it is shown."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill import __version__
from napari_histodistill.errors import InputError
from napari_histodistill.export.cohort_table import in_a_cell

if TYPE_CHECKING:
    from napari_histodistill.maps.classes import ClassMap
    from napari_histodistill.maps.provenance import MapRecord
    from napari_histodistill.slides.pyramid.grid import TileGrid

PROGRAM = "napari-histodistill"
_DIGEST_SHOWN = 8


def facts_of(found: ClassMap) -> dict[str, Any]:
    """Return the provenance of a class map as JSON; empty if it is not known.

    A member ``verdict`` says whether the slide is like what the student learned from
    (see :func:`~napari_histodistill.students.trust.trust_facts`); empty if it was not
    judged. For the others see :func:`record_facts`.
    """
    if found.record is None:
        return {}
    verdict = "" if found.trust is None else found.trust.verdict.value
    return {
        **record_facts(found.record, found.grid),
        "classes_from": "strokes" if found.record.is_taught else "model",
        "min_confidence": found.record.min_confidence,
        "hidden_classes": list(found.record.hidden),
        "unlike_left_out": found.left_out is not None,
        "verdict": verdict,
    }


def record_facts(record: MapRecord, grid: TileGrid) -> dict[str, Any]:
    """Return how the embeddings of a map came about, as JSON.

    No folder is among it: files are passed on. ``step_um`` is the distance of squares,
    ``um_per_px`` that of level-0 pixels (the mean of both axes), ``written`` a day.
    """
    made_by = record.made_by
    return {
        "program": PROGRAM,
        "version": __version__,
        "written": time.strftime("%Y-%m-%d"),
        "slide": made_by.slide_name,
        "slide_digest": made_by.slide_digest,
        "model": made_by.student_name,
        "model_title": record.title,
        "model_digest": made_by.student_digest,
        "stain_normalised": bool(made_by.stains),
        "mode": made_by.mode,
        "step_um": round(grid.stride_um, 4),
        "um_per_px": round(grid.slide_mpp.mean, 6),
        "um_per_px_source": grid.slide_mpp.source,
    }


def columns_of(facts: dict[str, Any]) -> dict[str, object]:
    """Return facts as columns of a table: lists in one field, yes and no as 1 and 0."""
    return {name: _field(value) for name, value in facts.items()}


def _field(value: object) -> object:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, list):
        value = "; ".join(map(str, value))
    return in_a_cell(value) if isinstance(value, str) else value


def line_of(found: ClassMap) -> str:
    """Return the provenance in one line, without the slide's name; "" if not known.

    Figures are passed on, and slides are called by accession numbers: of the slide
    only the beginning of its digest is on it.
    """
    facts = facts_of(found)
    if not facts:
        return ""
    parts = [
        f"{facts['model']} ({facts['model_digest'][:_DIGEST_SHOWN]})",
        f"{facts['mode']} every {facts['step_um']:g} µm",
        f"{facts['um_per_px']:.4g} µm/px ({facts['um_per_px_source']})",
    ]
    if facts["classes_from"] == "strokes":
        parts.append("classes taught by strokes")
    if facts["stain_normalised"]:
        parts.append("stain normalised")
    if facts["min_confidence"]:
        parts.append(f"at least {100 * facts['min_confidence']:.3g} % sure")
    if facts["hidden_classes"]:
        parts.append(f"hidden: {', '.join(facts['hidden_classes'])}")
    if facts["unlike_left_out"]:
        parts.append("unlike squares left out")
    parts.append(f"slide {facts['slide_digest'][:_DIGEST_SHOWN]}")
    return " · ".join([*parts, f"{PROGRAM} {facts['version']}", facts["written"]])


def refuse_empty(found: ClassMap, *, headless: bool = False) -> None:
    """Refuse a map in which no square has a class.

    Raises
    ------
    InputError
        If so; the message is that of :func:`why_empty`.
    """
    if why := why_empty(found, headless=headless):
        raise InputError(why)


def why_empty(found: ClassMap, *, headless: bool = False) -> str:
    """Return what hides every square of a map, and what to do; "" if one is shown.

    Parameters
    ----------
    found : ClassMap
        Map to be written.
    headless : bool
        Whether options of the command line are named in place of controls.
    """
    if (found.labels > 0).any():
        return ""
    done = np.isfinite(found.probabilities).all(axis=-1)
    if not done.any() or not found.classes:
        return "Nothing would be written: no square of this map is computed yet."
    best = found.probabilities[done]
    label, sure = best.argmax(axis=-1), best.max(axis=-1)
    record = found.record
    floor = 0.0 if record is None else record.min_confidence
    hidden = () if record is None else record.hidden
    names = np.array([spec.name for spec in found.classes])[label]
    unlike = np.zeros(done.shape, bool)
    if found.left_out is not None and found.trust is not None:
        rows, columns = found.trust.cells[found.trust.unlike].T
        unlike[rows, columns] = True
    surest = math.floor(1000 * float(sure.max())) / 10
    lower = "give a lower --min-confidence" if headless else "lower that limit"
    again = "leave out --like-only" if headless else "show them again"
    hides = {
        f"no square is at least {100 * floor:.3g} % sure (the surest is "
        f"{surest:.3g} %); {lower}": sure < floor,
        "all of its squares are unlike what the model learned from, and left out; "
        f"{again}": unlike[done],
        f"the classes that were found ({', '.join(sorted(set(names)))}) are hidden; "
        "show one of them": np.isin(names, hidden),
    }
    alone = [words for words, mask in hides.items() if mask.all()]
    if alone:
        return f"Nothing would be written: {alone[0]}."
    return (
        "Nothing would be written: the limit of certainty, hidden classes and unlike "
        "squares that are left out hide every square together; show all."
    )
