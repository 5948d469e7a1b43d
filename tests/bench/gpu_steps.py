"""Steps of ``gpu.py`` about the card: arithmetic, lanes, graphs, memory, speed."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import timm
import torch

from napari_histodistill.running import cores
from napari_histodistill.slides.pyramid.resample import LevelWindow
from napari_histodistill.students.backends.cuda import GRAPHS
from napari_histodistill.students.backends.torch import TorchBackend
from napari_histodistill.students.device import choose_device
from napari_histodistill.students.student import DeviceChoice
from tests.card import imitated_card

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
CARD = "cuda:0"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GOAL_COSINE = 0.999
SMALL_RESNET: dict[str, Any] = {
    "channels": (32, 64, 128, 256),
    "layers": (1, 1, 1, 1),
}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "small ResNet": ("test_resnet", SMALL_RESNET),
    "Lite0": ("tf_efficientnet_lite0", {}),
    "ResNet-50": ("resnet50", {}),
}


@dataclass(frozen=True)
class Step:
    """One step: what it is called, what it does, and how long it may take.

    ``function(dry, folder)`` returns what was found; a step fails by raising. ``vital``
    steps are those without which later figures mean nothing.
    """

    name: str
    limit_s: float
    function: Callable[[bool, Path], dict[str, Any]]
    vital: bool = False


@contextmanager
def a_card(dry: bool, **options: Any) -> Iterator[Any]:
    """Give the card: the real one (None), or an imitated one that finds fault."""
    if not dry:
        yield None
        return
    with imitated_card(pytest.MonkeyPatch(), **options) as card:
        yield card
    assert not card.faults, card.faults[:3]


def backend(
    device: str,
    precision: str = "float16",
    network: str = "Lite0",
    *,
    dry: bool,
) -> TorchBackend:
    """Return a backend with fixed weights; dry, of a tiny network."""
    torch.default_generator.manual_seed(0)
    name, options = ("test_efficientnet", {}) if dry else NETWORKS[network]
    module = timm.create_model(name, pretrained=False, num_classes=0, **options)
    choice = DeviceChoice(device, device, "a measurement", precision)
    return TorchBackend(module, choice, mean=MEAN, std=STD)


def tiles(count: int, edge: int, seed: int = 0) -> np.ndarray:
    """Return ``(count, edge, edge, 3)``: blobs, as tissue has them, and noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(60, 240, (count, 8, 8, 3))
    fine = np.repeat(np.repeat(coarse, edge // 8, axis=1), edge // 8, axis=2)
    noisy = fine + rng.normal(scale=12, size=fine.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return (one * other).sum(axis=1) / lengths


def per_second(call: Callable[[], object], count: int, budget_s: float) -> float:
    """Return how many of ``count`` things a call are done in a second (the median)."""
    call()
    paces, began = [], time.perf_counter()
    while len(paces) < 3 or time.perf_counter() - began < budget_s:
        start = time.perf_counter()
        call()
        paces.append(count / (time.perf_counter() - start))
        if budget_s == 0:
            break
    return round(statistics.median(paces), 1)


def versions(dry: bool, folder: Path) -> dict[str, Any]:
    from napari_histodistill.students.accelerators import cards_here

    with a_card(dry):
        choice = choose_device("cuda")
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "timm": timm.__version__,
        "cores": cores(),
        "chosen": choice.label,
        "why": choice.reason,
    }
    if not dry:
        found["cards"] = cards_here()
    return found


def arithmetic(dry: bool, folder: Path) -> dict[str, Any]:
    """Every precision against float32 on the CPU, with the weights of `colon-he`."""
    many = tiles(4 if dry else 64, 64 if dry else 224)

    def embedded(device: str, precision: str) -> tuple[np.ndarray, str]:
        if dry:
            made: Any = backend(device, precision, dry=True)
        else:
            from napari_histodistill.students import load_student

            where = "cpu:torch" if device == "cpu" else device
            made = load_student("colon-he", device=where, precision=precision).backend
        return made.embed(many), made.arithmetic

    exact, _ = embedded("cpu", "float32")
    found: dict[str, Any] = {}
    with a_card(dry):
        auto = choose_device("cuda").precision
        for precision in ("float32", "float16", "bfloat16"):
            computed, words = embedded(CARD, precision)
            cosine = cosines(computed, exact)
            found[precision] = {
                "arithmetic": words,
                "least_cosine": round(float(cosine.min()), 6),
                "median_cosine": round(float(np.median(cosine)), 6),
            }
    least = found[auto]["least_cosine"]
    assert least >= GOAL_COSINE, f"{auto}: cosine {least} to float32 on the CPU"
    return {"auto": auto, **found}


def _two_lanes(dry: bool) -> dict[str, Any]:
    edge = 32 if dry else 224
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 10 if dry else 257, 6 if dry else 200).tolist()
    stock = tiles(max(sizes), edge)
    with a_card(dry) as card:
        subject = backend(CARD, dry=dry)
        alone = subject.embed(stock)
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda n: subject.embed(stock[:n]), sizes))
        note = subject.take_note()
        recorded = None if card is None else len(card.recorded)
    least = min(float(cosines(f, alone[: len(f)]).min()) for f in found)
    assert least > 0.9999, f"cosine {least} between two lanes and one"
    assert not note, note
    return {"batches": len(sizes), "least_cosine": round(least, 7), "graphs": recorded}


def lanes(dry: bool, folder: Path) -> dict[str, Any]:
    os.environ[GRAPHS] = "0"
    return _two_lanes(dry)


def graphs(dry: bool, folder: Path) -> dict[str, Any]:
    """The same with graphs: both lanes record at once at first."""
    os.environ[GRAPHS] = "1"
    return _two_lanes(dry)


def resampling(dry: bool, folder: Path) -> dict[str, Any]:
    """Windows of a block resampled by the CPU and on the card: pixels, and speed."""
    cells, edge = (2, 32) if dry else (16, 224)
    side, budget = cells * edge, 0.0 if dry else 0.5
    found: dict[str, Any] = {}
    with a_card(dry):
        subject = backend(CARD, dry=dry)
        corners = np.argwhere(np.ones((cells, cells))) * edge
        for shrink in (1.25, 2.0, 2.5):
            stored = round(side * shrink) + 12
            pixels = np.resize(tiles(4, edge), (stored, stored, 3))
            box = (5.3, 5.6, 5.3 + side * shrink, 5.6 + side * shrink)
            window = LevelWindow(pixels, box, side, side)
            laid = subject.lay(window).pixels.cpu().numpy()
            apart = np.abs(laid.astype(int) - window.resampled())
            assert apart.max() <= 1, f"{apart.max()} grey values apart"
            found[f"{shrink} ×"] = {
                "other_bytes": int((apart > 0).sum()),
                "tiles_per_s_by_one_core": per_second(
                    window.resampled, cells**2, budget
                ),
                "tiles_per_s_on_the_card": per_second(
                    lambda w=window: subject.lay(w), cells**2, budget
                ),
                "tiles_per_s_embedded_too": per_second(
                    lambda w=window: subject.embed(
                        subject.lay(w).tiles(corners, edge, edge)
                    ),
                    cells**2,
                    budget,
                ),
            }
    return found


def shortage(dry: bool, folder: Path) -> dict[str, Any]:
    """Little memory: batches get smaller, and the numbers stay."""
    stock = tiles(32 if dry else 256, 32 if dry else 224)
    with a_card(dry) as card:
        subject = backend(CARD, dry=dry)
        if card is None:
            torch.cuda.empty_cache()
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(600e6 / total)
        else:
            card.memory = sum(card.live().values()) + 150_000
        found = subject.embed(stock)
        note = subject.take_note()
        if card is None:
            torch.cuda.set_per_process_memory_fraction(1.0)
        else:
            card.memory = float("inf")
        expected = backend(CARD, dry=dry).embed(stock)
    least = float(cosines(found, expected).min())
    assert "ran out of memory" in note, f"no shortage: {note!r}"
    assert least > 0.9999, f"cosine {least} after a shortage"
    return {"note": note, "least_cosine": round(least, 7)}


def flat(dry: bool, folder: Path) -> dict[str, Any]:
    """Memory over twenty runs, each with threads of its own."""
    stock = tiles(8 if dry else 256, 32 if dry else 224)
    held = []
    with a_card(dry) as card:
        subject = backend(CARD, dry=dry)
        for _ in range(3 if dry else 20):
            with ThreadPoolExecutor(1 if dry else 2) as pool:
                list(pool.map(subject.embed, [stock] * (2 if dry else 8)))
            held.append(torch.cuda.memory_reserved() if card is None else card.reserved)
    assert held[-1] <= held[min(2, len(held) - 2)], f"reserved bytes: {held}"
    return {"reserved_bytes": held[-1], "runs": len(held)}


class _Outcomes:
    """Counts outcomes of tests."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.counts[report.outcome] += 1


def tests(dry: bool, folder: Path) -> dict[str, Any]:
    """The tests that need a card; dry, they are found and skipped."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # few are there
    words = ["-q", "-rs", "--noconftest", "-p", "no:cacheprovider", "-W", "default"]
    words += ["-m", "gpu", str(ROOT / "tests" / "gpu")]
    seen = _Outcomes()
    code = int(pytest.main(words, plugins=[seen]))
    counts = dict(seen.counts)
    assert code == 0, f"pytest ended with {code}: {counts}"
    assert dry or counts.get("passed"), f"no test passed: {counts}"
    return {"outcomes": counts}


def model(dry: bool, folder: Path) -> dict[str, Any]:
    """The model alone, tiles in memory: by network, precision, graphs and batch."""
    edge, budget = (32, 0.0) if dry else (224, 0.5)
    batches = (4,) if dry else (64, 256)
    found: dict[str, float] = {}
    for network in ("Lite0",) if dry else NETWORKS:
        for precision in ("float16", "float32"):
            for recorded in ("0", "1"):
                os.environ[GRAPHS] = recorded
                with a_card(dry):
                    subject = backend(CARD, precision, network, dry=dry)
                    for batch in batches:
                        stock = tiles(batch, edge)
                        way = "graphs" if recorded == "1" else "eager"
                        name = f"{network}, {precision}, {way}, {batch}"
                        found[name] = per_second(
                            lambda s=subject, t=stock: s.embed(t), batch, budget
                        )
    return {"tiles_per_s": found}


def compiled(dry: bool, folder: Path) -> dict[str, Any]:
    """torch.compile against eager, the whole pass on the device."""
    device = "cpu" if dry else CARD
    torch.manual_seed(0)
    name = "test_efficientnet" if dry else NETWORKS["Lite0"][0]
    module = timm.create_model(name, pretrained=False, num_classes=0).eval().to(device)
    pixels = torch.rand(2 if dry else 256, 3, *([32] * 2 if dry else [224] * 2))
    pixels = pixels.to(device)
    if not dry:
        module, pixels = module.half(), pixels.half()
    fast = torch.compile(module, backend="eager" if dry else "inductor")

    def waited(call: Callable[..., Any]) -> Any:
        with torch.inference_mode():
            out = call(pixels)
            if not dry:
                torch.cuda.synchronize()
        return out

    near = torch.allclose(waited(fast), waited(module), atol=1e-2, rtol=1e-2)
    assert near, "the compiled module computes something else"
    budget = 0.0 if dry else 2.0
    return {
        "eager_per_s": per_second(lambda: waited(module), len(pixels), budget),
        "compiled_per_s": per_second(lambda: waited(fast), len(pixels), budget),
    }
