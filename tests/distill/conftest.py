"""A tile folder of plain colours, with a known answer."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

COLOURS = {"stroma": (230, 150, 190), "gland": (110, 70, 150)}


@pytest.fixture
def colour_tiles(tmp_path, rng):
    """Return a function: rows of (label, colour name, case, fold) → folder."""

    def write(rows, columns=("label", "case_id", "fold")) -> Path:
        home = tmp_path / "tiles"
        home.mkdir()
        with (home / "manifest.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["image", *columns])
            for k, (label, colour, case, fold) in enumerate(rows):
                noise = rng.normal(scale=6, size=(32, 32, 3))
                pixels = np.clip(noise + COLOURS[colour], 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(home / f"{k}.png")
                values = {"label": label, "case_id": case, "fold": fold}
                table.writerow([f"{k}.png", *(values[c] for c in columns)])
        return home

    return write
