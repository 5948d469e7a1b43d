"""Embedding a slide

`colon-he` over a JPEG pyramid of painted tissue (8,192 px at 0.5 µm/px, levels 1, 4 and
16 as scanners write them, every cell), from file to store, on the backend that the
self-test chose; the student wants 1 µm/px. The usual pipeline is OpenSlide's
`read_region` per tile, a DataLoader with two workers and torch in eager float32 with
the same weights, on a part of the same tiles. The start of a run (store, first block)
is timed by itself. `python tests/bench/measure.py embedding`
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
from napari_histodistill.students import load_student
from tests.bench.figures import Figure, seconds, taking_turns
from tests.slides.factory import write_tiff

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_histodistill.slides import Slide, TileGrid
    from napari_histodistill.students.student import Student

SIDE = int(os.environ.get("BENCH_SIDE", "8192"))
MPP = 0.5
SCANNER, FINE = (1, 4, 16), (1, 2, 4, 8)
"""Levels as scanners write them, and with one at the student's µm per pixel."""

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


def painted_pyramid(
    folder: Path, ratios: tuple[int, ...] = SCANNER, side: int = 0
) -> Path:
    """Paint a patch of tissue and lay it out, mirrored, over a whole slide."""
    side = side or SIDE
    patch, _ = paint_slide(2048, 2048)
    row = np.concatenate([patch, patch[:, ::-1]], axis=1)
    four = np.concatenate([row, row[::-1]], axis=0)
    times = -(-side // len(four))
    image = np.ascontiguousarray(np.tile(four, (times, times, 1))[:side, :side])
    made = write_tiff(
        folder / f"painted-{len(ratios)}.tif",
        image=image,
        ratios=ratios,
        tile=(256, 256),
        compression="jpeg",
        compressionargs={"level": 80},
    )
    return made.path


class Run:
    """One run of the engine: its start, and its speed from there to the last block.

    The start is what does not grow with the slide: the store is made, and from the
    second report on blocks are read.
    """

    def __init__(
        self, slide: Slide, student: Student, store: Path, grid: TileGrid, mode: str
    ) -> None:
        began = time.perf_counter()
        reports = embed_slide(slide, student, store, grid=grid, mode=mode, tissue=None)
        next(reports), next(reports)
        ready, first = time.perf_counter(), 0.0
        for report in reports:
            if report.block is not None and not first:
                first = time.perf_counter()
        self.start_s, self.first_block_s = ready - began, first - began
        self.cells_per_s = report.done / (time.perf_counter() - ready)


def _throughput(path: Path, folder: Path) -> list[Figure]:
    student = load_student("colon-he")
    module = _eager(student)
    starts: list[float] = []
    firsts: list[float] = []
    found: dict[str, np.ndarray] = {}
    fine_path = painted_pyramid(folder, FINE)
    with open_slide(path, mpp=MPP) as slide, open_slide(fine_path, mpp=MPP) as fine:
        grid = plan_grid(slide, student)
        # Tiles past the border are black there in one, mirrored in the other.
        rows, columns = (n - 1 for n in grid.shape)
        cells = np.argwhere(np.ones((rows, columns), bool))
        chosen = cells[:: max(1, len(cells) // USUAL_CELLS)][:USUAL_CELLS]
        names = iter(range(100))

        def ours() -> float:
            store = folder / f"{next(names)}.zarr"
            run = Run(slide, student, store, grid, "tiles")
            starts.append(run.start_s)
            firsts.append(run.first_block_s)
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
        fine_grid = plan_grid(fine, student)
        e, f = taking_turns(
            lambda: (
                Run(
                    fine, student, folder / f"{next(names)}.zarr", fine_grid, "tiles"
                ).cells_per_s
            ),
            _model_only(student),
            ROUNDS,
        )
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
        Figure(
            "tiles of a slide with a level at 1 µm/px, end to end",
            e,
            "tiles/s",
            "the model alone, tiles in memory",
            f,
        ),
        Figure("start of a run, not counted above", tuple(starts), "s"),
        Figure("from the start until the first block is stored", tuple(firsts), "s"),
    ]


def _tokens_against_tiles(path: Path, folder: Path, name: str) -> list[Figure]:
    """Return cost per cell at token spacing, and how alike the two kinds of map are."""
    student = load_student(name)
    module = _eager(student)
    with open_slide(path, mpp=MPP) as slide:
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
