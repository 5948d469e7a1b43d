"""Steps of ``gpu.py`` about whole flows: reading, a slide, training, commands."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import napari_histodistill.distill.training.trainer as trainers
from napari_histodistill.distill.runs.folder import start_run
from napari_histodistill.distill.runs.run import train
from napari_histodistill.maps.block_reading import PixelWindow, Raster, read_window
from napari_histodistill.maps.engine import EmbedOptions, embed_slide, plan_grid
from napari_histodistill.maps.reading.processes import ReadingPool
from napari_histodistill.running import cores
from napari_histodistill.samples.synthetic import paint_slide
from napari_histodistill.slides import open_slide
from napari_histodistill.slides.pyramid.resample import read_resampled
from napari_histodistill.slides.tissue.writing import write_pyramid
from napari_histodistill.students import self_test
from napari_histodistill.students.accelerators import decoders_here
from napari_histodistill.students.backends.cuda import GRAPHS
from napari_histodistill.students.spec import StudentSpec, WeightsSpec
from napari_histodistill.students.student import Student
from tests.bench.gpu_steps import CARD, NETWORKS, Step, backend, compiled, per_second
from tests.bench.gpu_steps import tiles as stock_of
from tests.distill.small_runs import small_config, write_textures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari_histodistill.distill.runs.events import TrainingReport
    from napari_histodistill.slides.pyramid.grid import TileGrid
    from napari_histodistill.slides.pyramid.slide import Slide

SLIDE_MPP = 0.5
SCALES = {"1:1": 0.5, "2 ×": 1.0}


def painted(folder: Path, *, dry: bool) -> Path:
    """Write a slide of painted tissue, mirrored from patch to patch."""
    patch, _ = paint_slide(*([256] * 2 if dry else [2048] * 2))
    four = np.concatenate([patch, patch[:, ::-1]], axis=1)
    four = np.concatenate([four, four[::-1]], axis=0)
    times = 1 if dry else 6
    whole = np.ascontiguousarray(np.tile(four, (times, times, 1)))
    return write_pyramid(folder / "painted.ome.tif", whole, mpp=SLIDE_MPP)


def student_at(mpp: float, precision: str, *, dry: bool) -> Student:
    """Return a student that sees that resolution; dry, a tiny one on the CPU."""
    device = "cpu" if dry else CARD
    made = backend(device, "float32" if dry else precision, dry=dry)
    edge = 32 if dry else 224
    dim = int(made.embed(stock_of(1, edge)).shape[1])
    spec = StudentSpec(
        name="measured",
        title="A student with fixed weights",
        backbone="test_efficientnet" if dry else NETWORKS["Lite0"][0],
        tile_px=edge,
        mpp=mpp,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        embedding_dim=dim,
        weights=WeightsSpec(source="bundle"),
        licence="BSD-3-Clause",
    )
    return Student(spec, made, digest="ab" * 16)


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
    found: dict[str, Any] = {"decoders_on_the_card": decoders_here()}
    counts = [n for n in (1, 4, 16) if n <= max(1, cores())][: 1 if dry else 3]
    for name, mpp in SCALES.items():
        student = student_at(mpp, "float16", dry=dry)
        with open_slide(path) as slide:
            grid = plan_grid(slide, student)
            windows = windows_of(grid, block)[: 1 if dry else 64]
            cells = block**2 * len(windows)
            for count in counts:
                for leave in (False, True) if mpp > SLIDE_MPP else (False,):
                    read = partial(_read, slide, grid, leave)
                    what = ", resampling left to a card" if leave else ""
                    with ThreadPoolExecutor(count) as pool:
                        found[f"{name}, {count} threads{what}"] = _pace(
                            lambda p=pool, r=read, w=windows: list(p.map(r, w)), cells
                        )
                        reading = ReadingPool(slide, grid, count=count, leave=leave)
                        with closing(reading):
                            reading.begin()
                            list(pool.map(reading.read, windows[:1] * count))
                            found[f"{name}, {count} processes{what}"] = _pace(
                                lambda p=pool, r=reading.read, w=windows: list(
                                    p.map(r, w)
                                ),
                                cells,
                            )
    return {"tiles_per_s": found}


def _pace(call: Callable[[], object], count: int) -> float:
    began = time.perf_counter()
    call()
    return round(count / (time.perf_counter() - began), 1)


def end(dry: bool, folder: Path) -> dict[str, Any]:
    """From file to store, against the model alone and the usual pipeline."""
    path = painted(folder, dry=dry)
    found: dict[str, Any] = {}
    for name, mpp in SCALES.items():
        for recorded in ("0",) if dry else ("0", "1"):
            os.environ[GRAPHS] = recorded
            student = student_at(mpp, "float16", dry=dry)
            count = 8 if dry else 256
            stock = stock_of(count, student.spec.tile_px)
            alone = per_second(
                lambda s=student, t=stock: s.embed(t), count, 0 if dry else 2
            )
            with open_slide(path) as slide:
                line: dict[str, Any] = {"model_alone_one_lane": alone}
                for reading in ("threads", "processes", "auto"):
                    store = folder / f"{mpp}-{recorded}-{reading}.zarr"
                    ours, kept = _embedded(slide, student, store, reading)
                    line |= {
                        f"end_to_end, {reading}": ours,
                        f"ratio, {reading}": round(ours / alone, 3),
                    }
                line["auto_kept"] = kept
                if recorded == "0":
                    usual = _usual(slide, student, dry=dry)
                    line |= {"usual": usual, "times_usual": round(ours / usual, 2)}
            way = "graphs" if recorded == "1" else "eager"
            found[f"{name}, {way}"] = line
    return {"tiles_per_s": found}


def _embedded(
    slide: Slide, student: Student, store: Path, reading: Any
) -> tuple[float, str]:
    """Return tiles per second from file to store, and who read them in the end."""
    options = EmbedOptions(reading=reading)
    reports = embed_slide(slide, student, store, tissue=None, options=options)
    next(reports), next(reports)
    began = time.perf_counter()
    *_, last = reports
    return round(last.done / (time.perf_counter() - began), 1), last.reading


class _Tiles(torch.utils.data.Dataset):
    """Tile by tile, as most tools do it."""

    def __init__(self, slide: Slide, student: Student, count: int) -> None:
        self.slide, self.spec = slide, student.spec
        self.grid = plan_grid(slide, student)
        self.cells = np.argwhere(np.ones(self.grid.shape, bool))[:count]

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
    """A DataLoader over tiles and the module in eager float32, on the same device."""
    module = student.backend.module
    device = next(module.parameters()).device
    dataset = _Tiles(slide, student, 8 if dry else 1024)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=32, num_workers=0 if dry else min(16, cores())
    )
    began = time.perf_counter()
    with torch.inference_mode():
        for batch in loader:
            features = module.forward_features(batch.to(device))
            module.forward_head(features, pre_logits=True).cpu()
    return round(len(dataset) / (time.perf_counter() - began), 1)


def training(dry: bool, folder: Path) -> dict[str, Any]:
    """Three networks: pairs a second, waits in one step, and where the time goes."""
    textures = write_textures(folder / "tiles", cases=4 if dry else 16)
    found = {}
    for name in ("small ResNet",) if dry else NETWORKS:
        backbone, options = ("test_resnet", {}) if dry else NETWORKS[name]
        encoder = {"backbone": backbone, "options": options}
        config = small_config(
            "unprivileged",
            sparse={"tile_px": 64, "input_px": 32 if dry else 64, "encoder": encoder},
            objective={"projector": [16, 8] if dry else [1024] * 3},
            schedule={
                "steps": 4 if dry else 40,
                "batch": 8 if dry else 64,
                "precision": "float32" if dry else "auto",
                "checkpoint_every": 100,
            },
        )
        run = start_run(config, folder / name, textures)
        with _watched(2 if dry else 10) as seen:
            steps = list(_until(run, "step", dry=dry))
            paces = [r.pairs_per_second for r in steps if r.pairs_per_second]
        assert paces, "no step was reported"
        found[name] = {"pairs_per_s": round(float(np.median(paces)), 1), **seen}
    return {"networks": found}


def _until(run: Path, kind: str, *, dry: bool) -> Iterator[TrainingReport]:
    """Yield a run's reports of a kind up to its last step; no student is made."""
    reports = train(run, device="cpu" if dry else "cuda")
    try:
        for report in reports:
            if report.kind == kind:
                yield report
                if report.step == report.steps:
                    return
    finally:
        reports.close()


@contextmanager
def _watched(number: int) -> Iterator[dict[str, Any]]:
    """Count what waits for the card in one step, and profile the one after it."""
    seen: dict[str, Any] = {}
    step = trainers.Trainer.step

    def watched(self: Any, k: int) -> Any:
        if k == number:
            return _with_waits(seen, lambda: step(self, k))
        if k == number + 1:
            return _with_profile(seen, lambda: step(self, k))
        return step(self, k)

    trainers.Trainer.step = watched  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        trainers.Trainer.step = step  # type: ignore[method-assign]


def _with_waits(seen: dict[str, Any], call: Callable[[], Any]) -> Any:
    on_card = torch.cuda.is_available()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if on_card:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            return call()
        finally:
            if on_card:
                torch.cuda.set_sync_debug_mode("default")
            places = Counter(f"{w.filename.split('/')[-1]}:{w.lineno}" for w in caught)
            seen["waits_in_a_step"] = sum(places.values())
            seen["where"] = dict(places.most_common(8))


def _with_profile(seen: dict[str, Any], call: Callable[[], Any]) -> Any:
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as profile:
        result = call()
    table = profile.key_averages()
    seen["operations"] = sum(row.count for row in table if row.key.startswith("aten::"))
    slowest = sorted(table, key=lambda row: -row.self_cpu_time_total)[:5]
    seen["host_ms"] = {r.key: round(r.self_cpu_time_total / 1e3, 2) for r in slowest}
    if torch.cuda.is_available():
        busiest = sorted(table, key=lambda row: -row.self_device_time_total)[:5]
        seen["card_ms"] = {
            r.key: round(r.self_device_time_total / 1e3, 2) for r in busiest
        }
    return result


def resume(dry: bool, folder: Path) -> dict[str, Any]:
    """A run that is stopped and goes on, against one that is not."""
    from safetensors.torch import load_file

    textures = write_textures(folder / "tiles", cases=4)
    config = small_config(schedule={"steps": 4, "checkpoint_every": 2})
    for name in ("whole", "stopped"):
        run = start_run(config, folder / name, textures)
        for report in _until(run, "checkpoint", dry=dry):
            if name == "stopped" and report.step == 2:
                break
        if name == "stopped":
            assert [r.step for r in _until(run, "checkpoint", dry=dry)] == [4]
    kept = [
        load_file(folder / name / "checkpoints" / "last.safetensors")
        for name in ("whole", "stopped")
    ]
    far = max(
        float((one.float() - kept[1][key].float()).abs().max())
        for key, one in kept[0].items()
    )
    assert not dry or far == 0, f"on the CPU a run goes on bit by bit, not {far} apart"
    assert np.isfinite(far)
    return {"largest_difference": far}


def commands(dry: bool, folder: Path) -> dict[str, Any]:
    """``doctor`` on this machine, as a person calls it."""
    from typer.testing import CliRunner

    from napari_histodistill.cli import app

    if dry:
        doctor = sys.modules["napari_histodistill.cli.doctor"]
        doctor.MEASURE_S = 0.01
        doctor._decoding = lambda: {"what": "left out", "tiles_per_s": 0}
        self_test.MEASURE_S = 0.01
        self_test._installed = lambda: ("torch",)
    words = ["doctor", "--json", "--device", "cpu:torch" if dry else "cuda"]
    outcome = CliRunner().invoke(app, words)
    assert outcome.exit_code == 0, outcome.output[-500:]
    told = json.loads(outcome.stdout)
    return {"accelerators": told["accelerators"], "model": told["model"]}


STEPS = (
    Step("feed", 90, feed),
    Step("end", 90, end),
    Step("training", 120, training),
    Step("resume", 40, resume),
    Step("commands", 40, commands),
    Step("compiled", 60, compiled),
)
