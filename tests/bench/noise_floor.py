"""How much do two seeds differ, and is a partner more than that? On a real pair

Three seeds without the partner and two with it, trained shortly on pairs of H&E and
proSPC (landmarks, affine), each compared with each on the H&E. Five trainings of a
minute: ``python -m tests.bench.noise_floor FOLDER`` keeps them in FOLDER.
"""

from __future__ import annotations

import csv
import itertools
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from napari_histodistill.distill.layers.partners import dense_layer
from napari_histodistill.distill.layers.registration import fit_landmarks
from napari_histodistill.distill.pairs.plan import Sampling, plan_pairs
from napari_histodistill.distill.pairs.store import write_pairs
from napari_histodistill.distill.recipes.presets import PartnerInput, recipe_for
from napari_histodistill.distill.runs.folder import STUDENT, start_run
from napari_histodistill.distill.runs.run import train
from napari_histodistill.geometry import Mpp
from napari_histodistill.maps import EmbeddingStore, embed_slide
from napari_histodistill.maps.difference import Side, difference_map, side_of
from napari_histodistill.maps.engine import plan_grid
from napari_histodistill.slides import Slide, slide_from_arrays
from napari_histodistill.students import load_student

MPP, TILE_PX, STEPS, STRIDE_UM = 3.48, 16, 250, 28
RUNS = (("without", 0), ("without", 1), ("without", 2), ("with", 0), ("with", 1))


def layer(name: str) -> tuple[Slide, np.ndarray]:
    """Return one section of the lung pair, and its landmarks in µm."""
    home = Path(os.environ["HISTODISTILL_DATA"]) / "stains"
    path = home / f"Izd2-29-041-w35_{name}.jpg"
    pixels = np.asarray(Image.open(path).convert("RGB"))
    with path.with_suffix(".csv").open() as file:
        rows = [(float(r["Y"]), float(r["X"])) for r in csv.DictReader(file)]
    slide = slide_from_arrays(pixels, name=name, mpp=Mpp(MPP, MPP, "known"))
    return slide, np.array(rows) * MPP


def trained(folder: Path, slide: Slide, pairs: Path, count: int, seed: int) -> Side:
    """Train one run, embed the H&E, and return its side of a comparison."""
    partners = (
        [PartnerInput("image", "image", 32)] if folder.name.startswith("with-") else []
    )
    config = recipe_for(
        "quick", name=folder.name, source="lung", mpp=MPP, tile_px=TILE_PX,
        student_px=TILE_PX, pairs=count, partners=partners, seed=seed,
    )  # fmt: skip
    schedule = config.schedule.model_copy(update={"steps": STEPS, "keep": "last"})
    start_run(config.model_copy(update={"schedule": schedule}), folder, pairs)
    list(train(folder, device="cpu", threads=1))
    student = load_student(folder / STUDENT, device="cpu", precision="float32")
    store = folder.with_suffix(".zarr")
    grid = plan_grid(slide, student, stride_um=STRIDE_UM)
    list(embed_slide(slide, student, store, grid=grid))
    return side_of(EmbeddingStore.open(store), student)


def main(home: Path) -> None:
    """Print the figures of all pairs of runs."""
    (sparse, here), (dense, there) = layer("HE"), layer("proSPC")
    matrix = fit_landmarks(here, there, "affine").matrix
    partner = dense_layer(dense, name="image", tile_px=32, matrix=matrix)
    plan = plan_pairs(sparse, [partner], Sampling(mpp=MPP, tile_px=TILE_PX))
    list(write_pairs(home / "pairs.zarr", plan))
    count = len(plan) * 4 // 5
    sides = {
        f"{arm}-{seed}": trained(
            home / f"{arm}-{seed}", sparse, home / "pairs.zarr", count, seed
        )
        for arm, seed in RUNS
    }
    for one, other in itertools.permutations(sides, 2):
        if one.startswith("without"):
            pair = sides[one], sides[other]
            news = difference_map(*pair, measure="news").figure
            alike = difference_map(*pair, measure="neighbours").figure
            print(f"{one} {other}: news {news:.3f}, neighbours {alike:.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
