"""Runs that take seconds: textures as tiles, a tiny network, a handful of steps."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from napari_histodistill.distill.recipes.config import DistillConfig

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = (
    {"name": "fine", "color": "#009e73"},
    {"name": "coarse", "color": "#d55e00"},
)
TINY = {"backbone": "test_resnet"}


def write_textures(
    folder: Path, *, cases: int = 8, tiles: int = 3, px: int = 64
) -> Path:
    """Stripes of two widths, a few tiles per case and class, four folds, a mask."""
    rng = np.random.default_rng(5)
    folder.mkdir(parents=True)
    with (folder / "manifest.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "mask", "label", "case_id", "fold"])
        for case in range(cases):
            for k, one in enumerate(CLASSES):
                for tile in range(tiles):
                    phase = rng.uniform(0, 6)
                    wave = np.sin(np.arange(px) * (0.25 + 0.5 * k) + phase)
                    pixels = np.array([190, 120, 170]) + 40 * wave[:, None, None]
                    pixels = pixels + rng.normal(scale=10, size=(px, px, 3))
                    name = f"{case}-{k}-{tile}"
                    image = np.clip(pixels, 0, 255).astype(np.uint8)
                    Image.fromarray(image).save(folder / f"{name}.png")
                    mask = np.broadcast_to(wave[:, None] > 0, (px, px))
                    Image.fromarray(mask.astype(np.uint8) * 255).save(
                        folder / f"{name}-mask.png"
                    )
                    table.writerow(
                        [
                            f"{name}.png",
                            f"{name}-mask.png",
                            one["name"],
                            f"case{case}",
                            case % 4 + 1,
                        ]
                    )
    return folder


def small_config(arm: str = "privileged", **changes: Any) -> DistillConfig:
    """Return a recipe for :func:`write_textures`; ``schedule`` is merged."""
    dense = {"tile_px": 64, "input_px": 32, "encoder": TINY}
    content: dict[str, Any] = {
        "arm": arm,
        "name": "small",
        "title": "A small student",
        "licence": "BSD-3-Clause",
        "mpp": 0.5,
        "source_px": 64,
        "classes": CLASSES,
        "data": {
            "folder": "tiles",
            "description": "Stripes.",
            "licence": "CC0",
            "attribution": "A test",
            "validation_share": 0.25,
        },
        "sparse": {"tile_px": 16, "input_px": 32, "encoder": TINY},
        "dense": [] if arm in {"unprivileged", "supervised"} else [dense],
        "objective": {"projector": [32, 16]},
        "schedule": {},
    }
    schedule = {"steps": 6, "batch": 8, "checkpoint_every": 2, "report_every": 1}
    content["schedule"] = (
        schedule | {"precision": "float32"} | changes.pop("schedule", {})
    )
    return DistillConfig.model_validate(content | changes)
