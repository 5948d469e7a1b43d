"""Steps of ``gpu.py`` about whole flows: reading, from file to store, commands."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_histodistill.maps.block_reading import PixelWindow, Raster, read_window
from napari_histodistill.maps.engine import EmbedOptions, embed_slide, plan_grid
from napari_histodistill.maps.reading.processes import ReadingPool
from napari_histodistill.maps.store import CellStatus, EmbeddingStore
from napari_histodistill.running import cores
from napari_histodistill.slides import open_slide
from napari_histodistill.slides.pyramid.resample import read_resampled
from napari_histodistill.students import self_test
from napari_histodistill.students.accelerators import decoders_here
from napari_histodistill.students.backends.cuda import GRAPHS
from tests.bench.gpu_slide import SLIDE_MPP, painted, student_at
from tests.bench.gpu_steps import per_second
from tests.bench.gpu_steps import tiles as stock_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_histodistill.slides.pyramid.grid import TileGrid
    from napari_histodistill.slides.pyramid.slide import Slide
    from napari_histodistill.students.student import Student

SCALES = {"1:1": 0.5, "2 ×": 1.0}
MEASURED_S = 10.0
"""Seconds that runs of one kind take together, at least; a run is cut after as many."""

GOAL_OF_MODEL, GOAL_TIMES_USUAL = 0.9, 10.0
WINDOWS_EACH = 4
"""Windows for every reader: with fewer, some would have nothing to do at the end."""


def windows_of(grid: TileGrid, block: int) -> list[PixelWindow]:
    """Return the windows of whole blocks of cells."""
    edge = block * grid.stride_px
    rows, columns = (max(1, n // block) for n in grid.shape)
    return [
        PixelWindow(r * edge, c * edge, edge, edge)
        for r in range(rows)
        for c in range(columns)
    ]


def _read(slide: Slide, grid: TileGrid, leave: bool, window: PixelWindow) -> Raster:
    return read_window(slide, grid, window, threading.Event(), leave=leave)


def feed(dry: bool, folder: Path) -> dict[str, Any]:
    """Reading blocks at 1:1 and 2 ×, by threads of one process and by processes."""
    path, block = painted(folder, dry=dry), 2 if dry else 16
    found: dict[str, Any] = {}
    many = 1 if dry else min(16, cores())
    for name, mpp in SCALES.items():
        student = student_at(mpp, "float16", dry=dry)
        with open_slide(path) as slide:
            grid = plan_grid(slide, student)
            windows = windows_of(grid, block)
            assert len(windows) >= WINDOWS_EACH * many, f"{len(windows)} windows"
            for leave in (False, True) if mpp > SLIDE_MPP else (False,):
                read = partial(_read, slide, grid, leave)
                what = ", resampling left to a card" if leave else ""
                for count in sorted({1, many}):
                    with ThreadPoolExecutor(count) as pool:
                        found[f"{name}, {count} threads{what}"] = _read_pace(
                            pool, read, windows[: WINDOWS_EACH * count], block
                        )
                # One process reads as fast as one thread.
                reading = ReadingPool(slide, grid, count=many, leave=leave)
                with ThreadPoolExecutor(many) as pool, closing(reading):
                    reading.begin()
                    list(pool.map(reading.read, windows[:1] * many))
                    found[f"{name}, {many} processes{what}"] = _read_pace(
                        pool, reading.read, windows[: WINDOWS_EACH * many], block
                    )
    return {"decoders_on_the_card": decoders_here(), "tiles_per_s": found}


def _read_pace(
    pool: ThreadPoolExecutor,
    read: Callable[[PixelWindow], Raster],
    windows: list[PixelWindow],
    block: int,
) -> float:
    began = time.perf_counter()
    for _ in pool.map(read, windows):
        pass  # not kept: they would fill gigabytes
    return round(block**2 * len(windows) / (time.perf_counter() - began), 1)


@dataclass(frozen=True)
class Run:
    """One run from file to store, which may have been cut short.

    ``pace`` is in tiles per second from the first read (``began``, on Python's clock)
    to the last stored block, ``settled`` over the second half of that time, when
    processes have long begun.
    """

    pace: float
    settled: float
    began: float
    seconds: float
    blocks: int
    reading: str


def embedded(
    slide: Slide, student: Student, store: Path, reading: Any, *, at_most_s: float
) -> Run:
    """Embed a slide into a store, which is then deleted."""
    options = EmbedOptions(reading=reading)
    reports = embed_slide(slide, student, store, tissue=None, options=options)
    next(reports), next(reports)
    began = time.perf_counter()
    marks, who = [(0.0, 0)], reading
    with closing(reports):
        for report in reports:
            who = report.reading
            if report.block is None:
                continue
            marks.append((time.perf_counter() - began, report.done))
            if marks[-1][0] >= at_most_s:
                break
    shutil.rmtree(store)
    return run_of(marks, began, who)


def run_of(marks: list[tuple[float, int]], began: float, reading: str) -> Run:
    """Return the paces of a run from (seconds, tiles stored) of each of its blocks."""
    seconds, done = marks[-1]
    # The last block alone is no second half.
    half = next(k for k, (then, _) in enumerate(marks) if then >= seconds / 2)
    then, before = marks[min(half, len(marks) - 2)]
    return Run(
        done / seconds,
        (done - before) / (seconds - then),
        began,
        seconds,
        len(marks) - 1,
        reading,
    )


def model_alone(student: Student, *, dry: bool) -> dict[str, Any]:
    """Tiles in memory: one lane, and all lanes at once as a run has them."""
    count, calls, budget = (8, 2, 0.0) if dry else (256, 8, 2.0)
    stock = stock_of(count, student.spec.tile_px)
    one = per_second(lambda: student.embed(stock), count, budget)
    with ThreadPoolExecutor(student.streams) as pool:
        every = per_second(
            lambda: list(pool.map(student.embed, [stock] * calls)),
            calls * count,
            budget,
        )
    return {"lanes": student.streams, "one_lane": one, "all_lanes": every}


def end(dry: bool, folder: Path) -> dict[str, Any]:
    """From file to store at 1:1, against the model alone and the usual pipeline."""
    found = _end(SCALES["1:1"], dry, folder)
    ratio = found["eager"]["auto"]["of_all_lanes"]
    return {"goal_of_model": GOAL_OF_MODEL, "reached": ratio >= GOAL_OF_MODEL, **found}


def end_2(dry: bool, folder: Path) -> dict[str, Any]:
    """The same at 2 ×, where all has to be resampled."""
    return _end(SCALES["2 ×"], dry, folder)


def _end(mpp: float, dry: bool, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"unit": "tiles/s"}
    with open_slide(painted(folder, dry=dry)) as slide:
        for way in ("eager",) if dry else ("eager", "graphs"):
            os.environ[GRAPHS] = "1" if way == "graphs" else "0"
            student = student_at(mpp, "float16", dry=dry)
            alone = model_alone(student, dry=dry)
            found[way] = {"model_alone": alone}
            kinds = ("auto", "threads", "processes") if way == "eager" else ("auto",)
            for reading in kinds:
                runs = _runs(slide, student, folder / "run.zarr", reading, dry=dry)
                found[way][reading] = told(runs, alone)
            if way == "eager":
                usual = _usual(slide, student, dry=dry)
                times = round(found[way]["auto"]["pace"] / usual, 2)
                found |= {
                    "usual": usual,
                    "times_usual": times,
                    "goal_times_usual": GOAL_TIMES_USUAL,
                    "reached_times_usual": times >= GOAL_TIMES_USUAL,
                }
    return found


def _runs(
    slide: Slide, student: Student, store: Path, reading: str, *, dry: bool
) -> list[Run]:
    """Warm up, then repeat a run until they took long enough together."""
    run = partial(embedded, slide, student, store, reading)
    if not dry:
        run(at_most_s=2)
    runs = [run(at_most_s=MEASURED_S)]
    while not dry and (left := MEASURED_S - sum(one.seconds for one in runs)) > 0:
        # Not cut so early that all it did was to begin.
        runs.append(run(at_most_s=max(left, MEASURED_S / 2)))
    return runs


def told(runs: list[Run], alone: dict[str, Any]) -> dict[str, Any]:
    """Return medians of runs, beside the model alone of the same call."""
    pace = statistics.median(run.pace for run in runs)
    settled = statistics.median(run.settled for run in runs)
    return {
        "pace": round(pace, 1),
        "runs": [round(run.pace, 1) for run in runs],
        "seconds": round(sum(run.seconds for run in runs), 2),
        "blocks": [run.blocks for run in runs],
        "settled": round(settled, 1),
        "of_all_lanes": round(pace / alone["all_lanes"], 3),
        "of_one_lane": round(pace / alone["one_lane"], 3),
        "settled_of_all_lanes": round(settled / alone["all_lanes"], 3),
        "read_by": runs[-1].reading,
    }


class _Tiles(torch.utils.data.Dataset[torch.Tensor]):
    """Tile by tile, as most tools do it."""

    def __init__(self, slide: Slide, student: Student) -> None:
        self.slide, self.spec = slide, student.spec
        self.grid = plan_grid(slide, student)
        self.cells = np.argwhere(np.ones(self.grid.shape, bool))

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, k: int) -> torch.Tensor:
        region = self.grid.tile_region(*(int(n) for n in self.cells[k]))
        px = self.spec.tile_px
        pixels = read_resampled(self.slide, region, height=px, width=px)
        scaled = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
        mean, std = (
            torch.tensor(v).view(3, 1, 1) for v in (self.spec.mean, self.spec.std)
        )
        return (scaled - mean) / std


def _usual(slide: Slide, student: Student, *, dry: bool) -> float:
    """A DataLoader over tiles and the module in eager float32, on the same device.

    The clock starts with the first batch done: workers have begun, and have read ahead.
    """
    module = student.backend.module  # type: ignore[attr-defined]
    device = next(module.parameters()).device
    loader = torch.utils.data.DataLoader(
        _Tiles(slide, student),
        batch_size=2 if dry else 32,
        num_workers=0 if dry else min(16, cores()),
    )
    budget = 0.0 if dry else 8.0
    done, seconds, began = 0, 0.0, None
    with torch.inference_mode():
        for batch in loader:
            features = module.forward_features(batch.to(device))
            module.forward_head(features, pre_logits=True).cpu()
            if began is None:
                began = time.perf_counter()
                continue
            done += len(batch)
            seconds = time.perf_counter() - began
            if seconds >= budget:
                break
    return round(done / seconds, 1)


def commands(dry: bool, folder: Path) -> dict[str, Any]:
    """``doctor`` and ``embed`` on this machine, as a person calls them."""
    if dry:
        import napari_histodistill.cli  # noqa: F401 - its parts are looked up below

        doctor = sys.modules["napari_histodistill.cli.doctor"]
        doctor.MEASURE_S = 0.01  # type: ignore[attr-defined]
        doctor._decoding = lambda: {"what": "left out", "tiles_per_s": 0}  # type: ignore[attr-defined]
        self_test.MEASURE_S, self_test.BATCH = 0.01, 1
        self_test._installed = lambda: ("torch",)
    device = ["--json", "--device", "cpu:torch" if dry else "cuda"]
    told = _called(["doctor", *device])
    slide = painted(folder, dry=dry, times=1)
    out = ["--out", str(folder / "stores"), "--all-cells"]
    made = _called(["embed", str(slide), *out, *device])
    with EmbeddingStore.open(made["slides"][0]["store"]) as store:
        done = store.status == CellStatus.DONE
        values = store.read()[done]
    assert done.all(), f"{np.count_nonzero(~done)} squares were not computed"
    assert np.isfinite(values).all(), "numbers that are not finite"
    return {
        "accelerators": told["accelerators"],
        "model": told["model"],
        "embedded_on": made["device"],
        "squares": int(done.sum()),
    }


def _called(words: list[str]) -> Any:
    from typer.testing import CliRunner

    from napari_histodistill.cli import app

    outcome = CliRunner().invoke(app, words)
    assert outcome.exit_code == 0, f"{words[0]}: {outcome.output[-400:]}"
    return json.loads(outcome.stdout)
