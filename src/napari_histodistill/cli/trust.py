"""What ``classify`` says of a slide's tissue: judging it, and the words."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_histodistill.cli.console import tell

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    from napari_histodistill.maps import ClassArea
    from napari_histodistill.maps.cohort import SlideRun
    from napari_histodistill.running import CancelToken
    from napari_histodistill.students.spec import StudentSpec
    from napari_histodistill.students.trust import SlideTrust

LikeOnlyOption = Annotated[
    bool,
    typer.Option(
        "--like-only",
        help="Compare every square with what the student learned from, not a few "
        "hundred, and leave unlike ones out of areas and exports.",
    ),
]

_SECONDS_EACH = 0.035
"""CPU seconds for a square of 224 px, on one core."""


def judged(
    plan: SlideRun,
    cells: npt.NDArray[np.bool_],
    cancel: CancelToken,
    *,
    every: bool,
) -> SlideTrust:
    """Return the verdict on a slide whose squares are in its store."""
    from napari_histodistill.maps.trust import slide_trust

    if every and plan.student.trust is not None:
        n = int(cells.sum())
        tell(
            f"{plan.slide.name}: comparing all {n:,} squares with what the student "
            f"learned from, about {max(1, round(n * _SECONDS_EACH)):,} s of one CPU "
            "core"
        )
    return slide_trust(
        plan.task.store,
        plan.slide,
        plan.student,
        cells=cells,
        every=every,
        cancel=cancel,
        progress=_progress(plan.slide.name),
    )


def trust_text(trust: SlideTrust, spec: StudentSpec) -> list[str]:
    """Return the verdict in lines, reasons below it, and what probabilities meant."""
    from napari_histodistill.students.model_card import in_words
    from napari_histodistill.students.trust import headline

    lines = [headline(trust, spec.name), *(f"  - {r}" for r in trust.reasons)]
    if spec.calibration is not None:
        lines.append(in_words(spec.calibration))
    return lines


def class_facts(area: ClassArea) -> dict[str, Any]:
    """Return what JSON says of a class: areas, and what of them was judged."""
    return {
        "cells": area.cells,
        "mm2": area.mm2,
        "judged": area.judged,
        "unlike": area.unlike,
        "all_mm2": area.all_mm2,
        "like_mm2": area.like_mm2,
    }


def _progress(title: str, *, every_s: float = 10) -> Callable[[int, int], None]:
    said = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said >= every_s:
            said = time.monotonic()
            tell(f"{title}: judged {done:,} of {total:,} squares")

    return progress
