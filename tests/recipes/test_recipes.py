"""Every recipe in training/ is valid and runs, from the command line, on made-up tiles.

The tiles are small textures, one kind a class, dealt into four folds by case: enough to
see a recipe through to a student that loads and scores, not to learn pathology.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_histodistill.distill.config import read_config

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "training").glob("*.toml"))
CASES = 8


def histodistill(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "napari_histodistill.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=500)


def write_tiles(folder: Path, classes: tuple[str, ...]) -> None:
    rng = np.random.default_rng(5)
    folder.mkdir()
    with (folder / "manifest.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "label", "case_id", "fold"])
        for k, name in enumerate(classes):
            stripes = np.sin(np.arange(224) * (0.05 + 0.15 * k))[:, np.newaxis, None]
            colour = np.array([200 - 20 * k, 90 + 15 * k, 150])
            for case in range(CASES):
                noise = rng.normal(scale=12, size=(224, 224, 3))
                pixels = np.clip(colour + 40 * stripes + noise, 0, 255)
                image = f"{name}-{case}.png"
                Image.fromarray(pixels.astype(np.uint8)).save(folder / image)
                table.writerow([image, name, f"case{case}", case % 4 + 1])


def test_there_are_recipes():
    assert RECIPES


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_makes_a_student_that_scores(recipe, tmp_path):
    classes = tuple(c.name for c in read_config(recipe).classes)
    tiles = tmp_path / "tiles"
    write_tiles(tiles, classes)
    made = histodistill(
        "distill", str(recipe), "--data", str(tiles), "-o", str(tmp_path / "student")
    )
    assert made.returncode == 0, made.stderr
    scored = histodistill(
        *("evaluate", "--student", str(tmp_path / "student")),
        *("--tiles", str(tiles), "--json"),
    )
    assert scored.returncode == 0, scored.stderr
    score = json.loads(scored.stdout)
    assert score["n"] == CASES * len(classes)
    # The same cases were fitted on: the score must be of refits out of fold.
    assert score["protocol"] == "probe"
    assert score["accuracy"] > 0.9
