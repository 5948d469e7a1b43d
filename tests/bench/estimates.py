"""Estimates of a run, against the run

What *Explore slide* says before Run, and what then happened: squares and seconds, for
tiles and tokens, two details each, the whole slide and two drawn regions. Every kind of
run is made once before, as a person's last run on the machine. The "baseline" is the
truth: squares that were computed, and seconds from the press of Run to its end.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np

DATA = Path(os.environ.get("HISTODISTILL_DATA", "../shared/data")) / "slides"
SLIDES = (
    *("cmu-1-small-region.svs", "small_dicom.dcm", "kidney-48-5.tif"),
    "tcga-cr-7395-01a-01-ts1.svs",
)
"""The first is the run before, and not counted where it times a detail first."""
MPP = 0.5
"""Of slides that do not say."""

STUDENT = "colon-he"
SHAPES = ((0.2, 0.2, 0.7, 0.8), (0.4, 0.1, 0.95, 0.6))
"""Top, left, bottom and right of drawn regions, in shares of the slide."""


def runs() -> list[tuple[str, float, float, float]]:
    """Return the mode, squares over truth, seconds over truth, and true seconds."""
    from napari_histodistill.controllers.explore.session import ExploreSession
    from napari_histodistill.controllers.shared.map_choice import RegionChoice
    from napari_histodistill.controllers.shared.map_work import tissue_work
    from napari_histodistill.running import CancelToken
    from napari_histodistill.slides import open_slide
    from napari_histodistill.students import load_student

    student = load_student(STUDENT)
    found = []
    for mode, extra in product(("tiles", "tokens"), (0, 1)):
        for first, name in enumerate(SLIDES):
            with open_slide(DATA / name) as slide:
                session = ExploreSession()
                session.choose_slide(slide)
                session.choose_student(student)
                if session.needs_mpp:
                    session.type_mpp(MPP)
                (tissue,) = tissue_work(session.slide)(CancelToken())
                session.take_tissue(tissue.tissue)
                session.choose_mode(mode)
                session.choose_step(session.step + extra)
                height, width = slide.shape
                for shape in (None, *SHAPES):
                    session.put_map_away()
                    if shape is not None:
                        session.choose_region(RegionChoice.SHAPE)
                        session.take_shapes((_corners(shape, height, width),))
                    guess = session.estimate
                    if guess is None or not guess.squares:
                        continue
                    began = time.perf_counter()
                    for update in session.run_work(restart=True)(CancelToken()):
                        session.take_update(update)
                    spent = time.perf_counter() - began
                    session.run_ended()
                    if guess.is_timed and first:
                        done = session.live.cells_done
                        squares, seconds = guess.squares / done, guess.seconds / spent
                        found.append((mode, squares, seconds, spent))
                        print(name, mode, shape, found[-1], file=sys.stderr)
    return found


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
