"""Embedding a slide

The painted sample slide (6,000 × 8,000 px) from file to store with `imagenet-lite0`,
against the same student on in-memory batches of the same size.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from napari_histodistill.maps import embed_slide
from napari_histodistill.maps.engine import EmbedOptions, plan_grid
from napari_histodistill.samples import synthetic_slide
from napari_histodistill.slides import open_slide
from napari_histodistill.students import load_student
from tests.bench.figures import Figure, seconds, taking_turns

BATCH = 8


def measure() -> list[Figure]:
    """Return the figures of this section."""
    student = load_student("imagenet-lite0")
    px = student.spec.tile_px
    rng = np.random.default_rng(0)
    tiles = rng.integers(0, 255, (BATCH, px, px, 3), dtype=np.uint8)
    student.embed(tiles)

    def model_only() -> float:
        return 8 * BATCH / seconds(lambda: [student.embed(tiles) for _ in range(8)])

    def slide_to_store(stride_um: float, mode: str) -> float:
        with (
            tempfile.TemporaryDirectory() as folder,
            open_slide(synthetic_slide()) as slide,
        ):
            grid = plan_grid(slide, student, stride_um=stride_um, mode=mode)
            total = 0

            def run() -> None:
                nonlocal total
                for report in embed_slide(
                    slide,
                    student,
                    Path(folder) / "store.zarr",
                    grid=grid,
                    mode=mode,
                    options=EmbedOptions(batch_size=BATCH),
                ):
                    total = report.total

            taken = seconds(run)
            return total / taken

    tile_um = student.spec.tile_um
    ours, model = taking_turns(lambda: slide_to_store(tile_um, "tiles"), model_only, 3)
    tokens, tiles_32 = taking_turns(lambda: slide_to_store(32, "tokens"), model_only, 3)
    return [
        Figure("tiles, one per 224 µm", ours, "cells/s", "model alone", model),
        Figure(
            "tokens, one cell per 32 µm",
            tokens,
            "cells/s",
            "tiles, model alone",
            tiles_32,
        ),
    ]
