"""Two painted sections with their partners, as files: what a person would bring.

``python paint.py FOLDER`` writes the H&Es, their partners (two fluorescence channels,
one turned by 90°, one shifted and at another magnification), a transform of QuPath for
the second, a table of sections, recipes, and labelled tiles of other sections.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from napari_histodistill.samples.paired import CHANNELS, MPP, paint_pair
from napari_histodistill.slides.tissue.writing import write_pyramid

SIDE = 576
TILE = 64
RECIPE = """
arm = "triplet"
name = "painted"
title = "A painted pair"
licence = "CC0-1.0"
mpp = {mpp}
source_px = {tile}
[data]
folder = "pairs.zarr"
description = "Painted pairs."
licence = "CC0-1.0"
attribution = "A test"
validate_on = ["case B"]
[sparse]
tile_px = {tile}
input_px = {tile}
encoder = {{ backbone = "test_resnet" }}
[[dense]]
column = "image"
kind = "channels"
tile_px = {tile}
input_px = {tile}
encoder = {{ backbone = "test_resnet" }}
[objective]
projector = [32, 32]
[schedule]
steps = 8
batch = 16
precision = "float32"
checkpoint_every = 4
"""

CLASSES = """
name = "painted-classes"
title = "Zones of a painted marker"
licence = "CC0-1.0"
mpp = {mpp}
student = "run/student"
classes = [
  {{ name = "inside", color = "#d55e00" }},
  {{ name = "outside", color = "#0072b2" }},
]
[data]
folder = "tiles"
description = "Painted tiles."
licence = "CC0-1.0"
attribution = "A test"
"""


def main(home: Path) -> None:
    """Write all of it."""
    home.mkdir(parents=True, exist_ok=True)
    # Section A: the partner lies turned by a quarter, counter-clockwise.
    pair = paint_pair(SIDE, seed=1)
    write_pyramid(home / "he-a.ome.tif", pair.sparse, mpp=MPP, compression="zlib")
    write_channels(home / "marker-a.ome.tif", np.rot90(pair.dense), MPP)
    # Section B: half as fine, and shifted by 24 and 40 pixels of the H&E.
    pair = paint_pair(SIDE, seed=2)
    write_pyramid(home / "he-b.ome.tif", pair.sparse, mpp=MPP, compression="zlib")
    coarse = pair.dense[24:, 40:].astype(float)
    coarse = coarse.reshape(SIDE // 2 - 12, 2, SIDE // 2 - 20, 2, 2).mean((1, 3))
    write_channels(home / "marker-b.ome.tif", coarse.round().astype(np.uint16), 2 * MPP)
    shift = f"0.5, 0.0, {-40 / 2},\n0.0, 0.5, {-24 / 2}\n"
    (home / "marker-b.txt").write_text(shift, "utf-8")
    rows = [
        ["he", "partner", "case", "relation", "transform"],
        ["he-a.ome.tif", "marker-a.ome.tif", "case A", "same", "a.json"],
        ["he-b.ome.tif", "marker-b.ome.tif", "case B", "consecutive", "marker-b.txt"],
    ]
    write_table(home / "sections.csv", rows)
    (home / "pairs.toml").write_text(RECIPE.format(mpp=MPP, tile=TILE), "utf-8")
    (home / "classes.toml").write_text(CLASSES.format(mpp=MPP), "utf-8")
    write_tiles(home / "tiles")


def write_channels(path: Path, pixels: np.ndarray, mpp: float) -> None:
    """Write ``(h, w, c)`` uint16 as OME-TIFF."""
    metadata = {
        "axes": "CYX",
        "Channel": {"Name": list(CHANNELS)},
        "PhysicalSizeX": mpp,
        "PhysicalSizeY": mpp,
    }
    planes = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    tifffile.imwrite(path, planes, ome=True, metadata=metadata, tile=(256, 256))


def write_table(path: Path, rows: list[list[object]]) -> None:
    """Write a CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def write_tiles(home: Path) -> None:
    """Write tiles that lie wholly inside or outside of the marker's zones."""
    home.mkdir()
    rows: list[list[object]] = [["image", "label", "case_id"]]
    for case in range(3):
        pair = paint_pair(320, seed=10 + case)
        for y in range(0, 320 - TILE + 1, TILE):
            for x in range(0, 320 - TILE + 1, TILE):
                share = pair.positive[y : y + TILE, x : x + TILE].mean()
                if 0.2 < share < 0.8:
                    continue
                name = f"{case}-{y}-{x}.png"
                Image.fromarray(pair.sparse[y : y + TILE, x : x + TILE]).save(
                    home / name
                )
                label = "inside" if share > 0.5 else "outside"
                rows.append([name, label, f"tiles {case}"])
    write_table(home / "manifest.csv", rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
