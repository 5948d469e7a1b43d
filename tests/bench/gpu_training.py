"""Steps of ``gpu.py`` about training: waits, a plain loop beside ours, going on."""

from __future__ import annotations

import io
import statistics
import time
import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import timm
import torch
from PIL import Image
from torch import nn

import napari_histodistill.distill.training.trainer as trainers
from napari_histodistill.distill.runs.folder import start_run
from napari_histodistill.distill.runs.run import train
from napari_histodistill.running import cores
from tests.bench.gpu_steps import CARD, MEAN, NETWORKS, STD
from tests.bench.gpu_steps import tiles as stock_of
from tests.distill.small_runs import small_config, write_textures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from napari_histodistill.distill.runs.events import TrainingReport

MOST_WAITS = 3
"""Waits in a step: one for the loss and its terms, one for float16's look at infinite
gradients, one for what was clipped; ``tests/distill/training/test_on_a_card.py`` counts
them on an imitated card."""

WAIT_WORDS = "called a synchronizing CUDA operation"
"""torch's warning, and no other: deprecations and the like wait for nothing."""

GOAL_TIMES_PLAIN = 5.0
VIEW_PX, BATCH, WIDTH = 64, 64, 1024


def training(dry: bool, folder: Path) -> dict[str, Any]:
    """Three networks: pairs a second, waits of each step, and where the time goes."""
    textures = write_textures(folder / "tiles", cases=4 if dry else 16)
    found = {}
    for name in ("small ResNet",) if dry else NETWORKS:
        backbone, options = ("test_resnet", {}) if dry else NETWORKS[name]
        encoder = {"backbone": backbone, "options": options}
        config = small_config(
            "unprivileged",
            sparse={"tile_px": 64, "input_px": 32 if dry else 64, "encoder": encoder},
            objective={"projector": [16, 8] if dry else [WIDTH] * 3},
            schedule={
                "steps": 4 if dry else 60,
                "batch": 8 if dry else BATCH,
                "precision": "float32" if dry else "auto",
                "report_every": 1 if dry else 10,
                "checkpoint_every": 100,
            },
        )
        run = start_run(config, folder / name, textures)
        with _watched(range(1, 3) if dry else range(10, 16)) as seen:
            pace = _pace_of(run, dry=dry)
        found[name] = {"pairs_per_s": pace, **seen}
    check_waits(found)
    return {"most_waits_allowed": MOST_WAITS, "networks": found}


def check_waits(found: dict[str, Any]) -> None:
    """Fail if a step of any network waited for the card too often."""
    for name, seen in found.items():
        counts = seen["waits_of_each_step"]
        words = f"{name}: waits of steps {counts}, more than {MOST_WAITS}"
        assert max(counts) <= MOST_WAITS, f"{words}, at {seen['where']}"


def _pace_of(run: Path, *, dry: bool) -> float:
    paces = [r.pairs_per_second for r in _until(run, "step", dry=dry)]
    known = [pace for pace in paces[1:] if pace]  # the first waits for memory, cuDNN
    assert known, "no step was reported"
    return round(statistics.median(known), 1)


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
def _watched(numbers: range) -> Iterator[dict[str, Any]]:
    """Count what waits for the card in some steps, and profile the one after them."""
    seen: dict[str, Any] = {"waits_of_each_step": [], "where": {}}
    step = trainers.Trainer.step

    def watched(self: Any, k: int) -> Any:
        if k in numbers:
            return _with_waits(seen, lambda: step(self, k))
        if k == numbers.stop:
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
            waits = waits_among(caught)
            seen["waits_of_each_step"].append(len(waits))
            for place in waits:
                seen["where"][place] = seen["where"].get(place, 0) + 1


def waits_among(caught: Iterable[warnings.WarningMessage]) -> list[str]:
    """Return the lines at which warnings say that a wait for the card began."""
    return [
        f"{Path(w.filename).name}:{w.lineno}"
        for w in caught
        if WAIT_WORDS in str(w.message)
    ]


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


@dataclass(frozen=True)
class Plain:
    """What a plain loop takes from a library: views of a picture, and the loss."""

    name: str
    objective: str
    views: Callable[[Image.Image], Any]
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def plain_parts(edge: int) -> Plain | str:
    """Return lightly's parts, torchvision's without it, or why there are none."""
    try:
        from lightly.loss import VICRegLoss
        from lightly.transforms.vicreg_transform import VICRegTransform
    except ImportError as error:
        why = str(error)
    else:
        name = "a plain lightly VICReg loop"
        return Plain(name, "vicreg", VICRegTransform(input_size=edge), VICRegLoss())
    try:
        from torchvision import transforms as t
    except ImportError as error:
        return f"lightly cannot be imported ({why}), nor torchvision ({error})"
    one = t.Compose(
        [
            t.RandomResizedCrop(edge, scale=(0.2, 1.0)),
            t.RandomHorizontalFlip(),
            t.RandomVerticalFlip(),
            t.RandomApply([t.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
            t.RandomGrayscale(p=0.2),
            t.RandomApply([t.GaussianBlur(7)], p=0.5),
            t.ToTensor(),
            t.Normalize(MEAN, STD),
        ]
    )
    name = f"a plain PyTorch InfoNCE loop; lightly cannot be imported: {why}"
    return Plain(name, "infonce", lambda image: (one(image), one(image)), infonce)


def infonce(a: torch.Tensor, b: torch.Tensor, temperature: float = 0.5) -> torch.Tensor:
    """Return the mean of both directions' cross-entropies, as people write it."""
    alike = nn.functional.normalize(a) @ nn.functional.normalize(b).T / temperature
    own = torch.arange(len(a), device=a.device)
    each = (nn.functional.cross_entropy(x, own) for x in (alike, alike.T))
    return sum(each, torch.zeros((), device=a.device)) / 2


def plain(dry: bool, folder: Path) -> dict[str, Any]:
    """The small network: our run, and a loop as people write it, on the same card."""
    parts = plain_parts(32 if dry else VIEW_PX)
    if isinstance(parts, str):
        return {"skipped": f"nothing to compare with: {parts}"}
    pictures = write_pictures(folder / "tiles", dry=dry)
    ours = _ours(parts.objective, pictures, folder / "run", dry=dry)
    theirs = _loop(parts, pictures, dry=dry, lower=False)
    times = round(ours / theirs, 2)
    return {
        "against": parts.name,
        "pairs_per_s": ours,
        "plain_pairs_per_s": theirs,
        "times_plain": times,
        "goal": GOAL_TIMES_PLAIN,
        "reached": times >= GOAL_TIMES_PLAIN,
        "plain_in_bfloat16_channels_last": _loop(parts, pictures, dry=dry, lower=True),
        "workers": 0 if dry else min(16, cores()),
    }


def write_pictures(folder: Path, *, dry: bool) -> Path:
    """Write JPEG tiles as a tile folder; every picture stands there several times."""
    folder.mkdir()
    rows = ["image,case_id"]
    for k, pixels in enumerate(stock_of(8 if dry else 256, 224)):
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, "JPEG", quality=90)
        for copy in range(2 if dry else 8):
            name = f"{copy}-{k}.jpg"
            (folder / name).write_bytes(encoded.getvalue())
            rows.append(f"{name},case{k % 8}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


def _network(dry: bool) -> tuple[str, dict[str, Any], int]:
    """Return the small network, and the width of its projector."""
    return ("test_resnet", {}, 16) if dry else (*NETWORKS["small ResNet"], WIDTH)


def _ours(objective: str, pictures: Path, home: Path, *, dry: bool) -> float:
    backbone, options, width = _network(dry)
    config = small_config(
        "unprivileged",
        classes=(),
        mpp=1.0,
        source_px=224,
        sparse={
            "tile_px": 224,
            "input_px": 32 if dry else VIEW_PX,
            "encoder": {"backbone": backbone, "options": options},
        },
        objective={"kind": objective, "projector": [width] * 3},
        schedule={
            "steps": 3 if dry else 600,
            "batch": 4 if dry else BATCH,
            "precision": "float32" if dry else "auto",
            "report_every": 1 if dry else 50,
            "checkpoint_every": 1000,
        },
    )
    return _pace_of(start_run(config, home, pictures), dry=dry)


class _Pictures:
    """JPEG files as such loops read them: opened again every time."""

    def __init__(self, folder: Path, views: Callable[[Image.Image], Any]) -> None:
        self._files, self._views = sorted(folder.glob("*.jpg")), views

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, k: int) -> Any:
        with Image.open(self._files[k]) as image:
            return self._views(image.convert("RGB"))


def _loop(parts: Plain, pictures: Path, *, dry: bool, lower: bool) -> float:
    """Return pairs per second of a DataLoader, a network and AdamW.

    In float32, as its tutorials write it; or in bfloat16 and channels-last. The clock
    starts after the first epoch, when workers have begun and cuDNN has chosen.
    """
    device = "cpu" if dry else CARD
    backbone, options, width = _network(dry)
    torch.default_generator.manual_seed(0)
    encoder: Any = timm.create_model(
        backbone, pretrained=False, num_classes=0, **options
    )
    both = nn.Sequential(encoder, _projector(encoder.num_features, width))
    both.train().to(device)
    kind = device.partition(":")[0]
    cast: Any = nullcontext()
    if lower:
        both.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        cast = torch.autocast(kind, torch.bfloat16)
    optimiser = torch.optim.AdamW(both.parameters(), lr=1e-3)
    workers = 0 if dry else min(16, cores())
    loader: Any = torch.utils.data.DataLoader(
        _Pictures(pictures, parts.views),  # type: ignore[arg-type]
        batch_size=4 if dry else BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=not dry,
    )

    def epoch(until: float) -> int:
        done = 0
        for first, second in loader:
            with cast:
                a, b = (both(x.to(device, non_blocking=True)) for x in (first, second))
            loss = parts.loss(a.float(), b.float())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            done += len(first)
            if time.perf_counter() > until:
                break
        if not dry:
            torch.cuda.synchronize()
        return done

    epoch(0.0 if dry else float("inf"))
    began = time.perf_counter()
    done, until = 0, began + (0.0 if dry else 6.0)
    while not done or time.perf_counter() < until:
        done += epoch(until)
    return round(done / (time.perf_counter() - began), 1)


def _projector(features: int, width: int) -> nn.Module:
    parts: list[nn.Module] = []
    for size in (features, width):
        parts += [nn.Linear(size, width), nn.BatchNorm1d(width), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(width, width))


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
