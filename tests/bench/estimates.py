"""Estimates of a run, against the run

What *Explore slide* says before Run, and what then happened: squares and seconds, for
tiles and tokens, two details each, the whole slide and two drawn regions of four
slides. Each kind of run was made before, as a person's last one on the machine; the
first slide only does so. True are squares that were computed, and seconds from the
press of Run to its end. `python tests/bench/estimates.py`
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari_histodistill.controllers.explore.session import ExploreSession
    from napari_histodistill.students.spec import EmbeddingMode
    from napari_histodistill.students.student import Student

Run = tuple[str, float, float]
"""Mode, squares that were estimated over true ones, seconds over true ones."""

DATA = Path(os.environ.get("HISTODISTILL_DATA", "../shared/data")) / "slides"
SLIDES = (
    *("cmu-1-small-region.svs", "small_dicom.dcm", "kidney-48-5.tif"),
    "tcga-cr-7395-01a-01-ts1.svs",
)
"""The first is what was run before."""
MPP = 0.5
"""Of slides that do not say."""

STUDENT = "colon-he"
SHAPES = ((0.2, 0.2, 0.7, 0.8), (0.4, 0.1, 0.95, 0.6))
"""Top, left, bottom and right of drawn regions, in shares of the slide."""


def runs() -> list[Run]:
    """Estimate and run, slide after slide; return the runs that had one before."""
    from napari_histodistill.students import load_student

    student = load_student(STUDENT)
    found = []
    for mode, extra, name in product(("tiles", "tokens"), (0, 1), SLIDES):
        timed = _on_slide(student, DATA / name, mode, extra)
        found += [] if name == SLIDES[0] else timed
    return found


def _on_slide(
    student: Student, path: Path, mode: EmbeddingMode, extra: int
) -> list[Run]:
    from napari_histodistill.controllers.explore.session import ExploreSession
    from napari_histodistill.controllers.shared.map_choice import RegionChoice
    from napari_histodistill.controllers.shared.map_work import tissue_work
    from napari_histodistill.running import CancelToken
    from napari_histodistill.slides import open_slide

    found = []
    with open_slide(path) as slide:
        session = ExploreSession()
        session.choose_slide(slide)
        session.choose_student(student)
        if session.needs_mpp:
            session.type_mpp(MPP)
        (tissue,) = tissue_work(session.slide)(CancelToken())
        session.take_tissue(tissue.tissue)
        session.choose_mode(mode)
        session.choose_step(session.step + extra)
        for shape in (None, *SHAPES):
            if shape is not None:
                session.choose_region(RegionChoice.SHAPE)
                session.take_shapes((_corners(shape, *slide.shape),))
            run = _run(session, mode)
            found += [] if run is None else [run]
    return found


def _run(session: ExploreSession, mode: EmbeddingMode) -> Run | None:
    """Estimate a run from scratch, then make it; None if none was timed before."""
    from napari_histodistill.running import CancelToken

    session.put_map_away()
    guess = session.estimate
    if guess is None or not guess.squares:
        return None
    began = time.perf_counter()
    for update in session.run_work(restart=True)(CancelToken()):
        session.take_update(update)
    spent = time.perf_counter() - began
    session.run_ended()
    if not guess.is_timed:
        return None
    squares, seconds = guess.squares / session.live.cells_done, guess.seconds / spent
    print(session.slide.name, mode, f"{squares:.2f} {seconds:.2f}", file=sys.stderr)
    return mode, squares, seconds


def _corners(shape: tuple[float, ...], height: int, width: int) -> np.ndarray:
    top, left, bottom, right = shape
    y, x = np.array([top, top, bottom, bottom]), np.array([left, right, right, left])
    return np.stack([y * height, x * width], axis=1)


def main() -> None:
    """Print a table for RESULTS.md."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["HISTODISTILL_CACHE"] = cache
        found = runs()
    print("| what | runs | median of estimate / truth | 10th to 90th percentile |")
    print("|---|---|---|---|")
    for mode in ("tiles", "tokens"):
        for k, what in ((1, "squares"), (2, "seconds")):
            ratios = [row[k] for row in found if row[0] == mode]
            low, middle, high = np.percentile(ratios, (10, 50, 90))
            spread = f"{low:.2f} to {high:.2f}"
            print(f"| {what}, {mode} | {len(ratios)} | {middle:.2f} | {spread} |")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main()
