"""Embedding a slide

`colon-he` over a JPEG pyramid of painted tissue (8,192 px at 0.5 µm/px, every cell),
from file to store. *Fastest backend* is what the self-test chose on this machine. The
usual pipeline is OpenSlide's `read_region` per tile, a DataLoader with two workers and
torch in eager float32 with the same weights, on a part of the same tiles. The start of
a run (store, first block) is timed by itself. `python tests/bench/measure.py embedding`
"""

from __future__ import annotations

import copy
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_histodistill.maps import EmbeddingStore, embed_slide
from napari_histodistill.maps.engine import plan_grid
from napari_histodistill.samples.synthetic import paint_slide
from napari_histodistill.slides import open_slide
from napari_histodistill.slides.write import write_pyramid
from napari_histodistill.students import load_student
from tests.bench.figures import Figure, seconds, taking_turns

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_histodistill.slides import Slide, TileGrid
    from napari_histodistill.students.student import Student

SIDE = int(os.environ.get("BENCH_SIDE", "8192"))
STUDENTS = ("colon-he", "imagenet-lite0")
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
USUAL_CELLS, QUERIES = 192, 12


def measure() -> list[Figure]:
    """Return the figures of this section."""
    with tempfile.TemporaryDirectory() as folder:
        path = painted_pyramid(Path(folder))
        rows = _throughput(path, Path(folder))
        for name in STUDENTS:
            rows += _tokens_against_tiles(path, Path(folder), name)
        return rows


def painted_pyramid(folder: Path, side: int = SIDE) -> Path:
    """Paint a patch of tissue and lay it out, mirrored, over a whole slide."""
    patch, _ = paint_slide(2048, 2048)
    row = np.concatenate([patch, patch[:, ::-1]], axis=1)
    four = np.concatenate([row, row[::-1]], axis=0)
    times = -(-side // len(four))
    path = folder / "painted.tif"
    image = np.tile(four, (times, times, 1))[:side, :side]
    write_pyramid(path, np.ascontiguousarray(image), mpp=0.5, tile_px=256)
    return path


class Run:
    """One run of the engine: cells per second without its start, and the start."""

    def __init__(
        self, slide: Slide, student: Student, store: Path, grid: TileGrid, mode: str
    ) -> None:
        began = time.perf_counter()
        first, self.start_s, before = 0.0, 0.0, 0
        for report in embed_slide(
            slide, student, store, grid=grid, mode=mode, tissue=None
        ):
            if report.block is not None and not first:
                first, before = time.perf_counter(), report.done
                self.start_s = first - began
        self.cells_per_s = (report.done - before) / (time.perf_counter() - first)


def _throughput(path: Path, folder: Path) -> list[Figure]:
    student = load_student("colon-he")
    module = _eager(student)
    starts: list[float] = []
    found: dict[str, np.ndarray] = {}
    with open_slide(path) as slide:
        grid = plan_grid(slide, student)
        cells = np.argwhere(np.ones(grid.shape, bool))
        chosen = cells[:: max(1, len(cells) // USUAL_CELLS)][:USUAL_CELLS]
        names = iter(range(100))

        def ours() -> float:
            store = folder / f"{next(names)}.zarr"
            run = Run(slide, student, store, grid, "tiles")
            starts.append(run.start_s)
            with EmbeddingStore.open(store) as opened:
                found["ours"] = opened.read()[tuple(chosen.T)].astype(np.float32)
            return run.cells_per_s

        def usual() -> float:
            from tests.bench.usual import embed_as_usual

            start = time.perf_counter()
            found["usual"] = embed_as_usual(path, grid, chosen, student, module)
            return len(chosen) / (time.perf_counter() - start)

        a, b = taking_turns(ours, usual, ROUNDS)
        c, d = taking_turns(ours, _model_only(student), ROUNDS)
    cosine = _cosines(found["ours"], found["usual"])
    label = student.device.label
    return [
        Figure(
            f"tiles, end to end ({label}, {student.device.precision})",
            a,
            "tiles/s",
            "the usual pipeline",
            b,
            f"cosine to its float32 embeddings: least {cosine.min():.4f}, median "
            f"{np.median(cosine):.5f}",
        ),
        Figure("the same", c, "tiles/s", "the model alone, tiles in memory", d),
        Figure("start of a run until its first block is stored", tuple(starts), "s"),
    ]


def _tokens_against_tiles(path: Path, folder: Path, name: str) -> list[Figure]:
    """Return cost per cell at token spacing, and how alike the two kinds of map are."""
    student = load_student(name)
    module = _eager(student)
    with open_slide(path) as slide:
        grid = plan_grid(slide, student, stride_um=32, mode="tokens")
        rows, columns = grid.shape
        inner = np.zeros(grid.shape, bool)
        inner[rows // 2 - 8 : rows // 2 + 8, columns // 2 - 8 : columns // 2 + 8] = True
        cells = np.argwhere(inner)
        names = iter(range(100))
        store = folder

        def tokens() -> float:
            nonlocal store
            store = folder / f"{name}-{next(names)}.zarr"
            return Run(slide, student, store, grid, "tokens").cells_per_s

        tiles = np.zeros((0, 0))

        def usual() -> float:
            nonlocal tiles
            from tests.bench.usual import embed_as_usual

            start = time.perf_counter()
            tiles = embed_as_usual(path, grid, cells, student, module)
            return len(cells) / (time.perf_counter() - start)

        a, b = taking_turns(tokens, usual, ROUNDS)
    with EmbeddingStore.open(store) as opened:
        by_token = opened.read()[inner].astype(np.float32)
    note = f"rank correlation of similarity maps: {_rank_correlations(by_token, tiles)}"
    if student.head is not None:
        classes = [student.classify(e).argmax(axis=1) for e in (by_token, tiles)]
        note += f"; class agreement {np.mean(classes[0] == classes[1]):.3f}"
    return [
        Figure(
            f"{name}: tokens, one cell per 32 µm",
            a,
            "cells/s",
            "overlapping tiles at that spacing, the usual pipeline",
            b,
            note,
        )
    ]


def _rank_correlations(a: np.ndarray, b: np.ndarray) -> str:
    from scipy.stats import spearmanr

    maps = []
    for values in (a, b):
        unit = values - values.mean(axis=0)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        maps.append(unit @ unit[:: len(unit) // QUERIES].T)
    each = [
        spearmanr(x, y).statistic for x, y in zip(maps[0].T, maps[1].T, strict=True)
    ]
    return f"median {np.median(each):.3f}, worst {min(each):.3f}"


def _eager(student: Student) -> torch.nn.Module:
    module = copy.deepcopy(student.backend.module).float().eval()
    return module.to(memory_format=torch.contiguous_format)


def _model_only(student: Student) -> Callable[[], float]:
    px = student.spec.tile_px
    rng = np.random.default_rng(0)
    tiles = rng.integers(0, 255, (64, px, px, 3), dtype=np.uint8)
    student.embed(tiles)
    return lambda: 256 / seconds(lambda: [student.embed(tiles) for _ in range(4)])


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(axis=1) / lengths
