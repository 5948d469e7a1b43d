"""Training a student

VICReg on two views of the sparse tile (arm `unprivileged`), 64 px views, batch 64,
projector 1024, against a plain lightly loop with the same backbone, size, batch and
projector on the same JPEG tiles: its own transform, a `DataLoader`, float32, as its
tutorial writes it. The second baseline gives that loop our arithmetic (bfloat16 where
the CPU multiplies it natively, channels-last): what is left between the two is how
pictures become batches. Ours decodes every tile once, keeps the pixels, and augments
whole batches as tensors; the loop decodes and augments every picture anew with PIL.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from napari_histodistill.distill.recipes.config import DistillConfig
from napari_histodistill.distill.runs.folder import start_run
from napari_histodistill.distill.runs.run import train, training_device
from napari_histodistill.samples import synthetic_slide
from napari_histodistill.slides import open_slide
from tests.bench.figures import Figure, taking_turns

if TYPE_CHECKING:
    from collections.abc import Iterator

TILES, TILE_PX, VIEW_PX, BATCH, STEPS, WARM = 512, 224, 64, 64, 6, 2
PROJECTOR = 1024
ROUNDS = 3
BACKBONES: dict[str, dict[str, Any]] = {
    "test_resnet": {"channels": (32, 64, 128, 256), "layers": (1, 1, 1, 1)},
    "tf_efficientnet_lite0": {},
}


def measure() -> list[Figure]:
    """Return the figures of this section."""
    import torch

    figures, threads = [], torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        tiles = _write_tiles(Path(folder) / "tiles")
        for backbone, options in BACKBONES.items():
            name = f"{backbone}, {VIEW_PX} px, CPU threads: {threads}"

            def ours(
                precision: str = "auto", b: str = backbone, o: Any = options
            ) -> float:
                return _ours(b, o, tiles, Path(folder), precision)

            def plain(
                *, fast: bool = False, b: str = backbone, o: Any = options
            ) -> float:
                return _plain(b, o, tiles, fast=fast)

            trials = [
                ("", ours, "lightly, plain", plain),
                ("", ours, "lightly with our arithmetic", lambda: plain(fast=True)),
                (", float32", lambda: ours("float32"), "lightly, plain", plain),
            ]
            for more, one, what, other in trials:
                mine, theirs = taking_turns(one, other, ROUNDS)
                figure = Figure(name + more, mine, "pairs/s", what, theirs)
                # Minutes each: seen as they come.
                print(figure.row(), flush=True)
                figures.append(figure)
    return figures


def _write_tiles(folder: Path) -> Path:
    """Cut JPEG tiles from the painted slide, as a tile folder."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = ["image,case_id"]
    with open_slide(synthetic_slide()) as slide:
        height, width = slide.shape
        for k in range(TILES):
            y = int(rng.integers(height - TILE_PX))
            x = int(rng.integers(width - TILE_PX))
            pixels = slide.read_pixels(0, y, x, TILE_PX, TILE_PX)
            Image.fromarray(pixels).save(folder / f"{k}.jpg", quality=90)
            rows.append(f"{k}.jpg,case{k % 16}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


def _ours(
    backbone: str, options: dict[str, Any], tiles: Path, home: Path, precision: str
) -> float:
    config = DistillConfig.model_validate(
        {
            "arm": "unprivileged",
            "name": "bench",
            "title": "Bench",
            "licence": "BSD-3-Clause",
            "mpp": 1.0,
            "source_px": TILE_PX,
            "data": {
                "folder": "tiles",
                "description": "painted",
                "licence": "BSD-3-Clause",
                "attribution": "none",
            },
            "sparse": {
                "tile_px": TILE_PX,
                "input_px": VIEW_PX,
                "encoder": {"backbone": backbone, "options": options},
            },
            "objective": {"projector": [PROJECTOR] * 3},
            "schedule": {
                "steps": STEPS,
                "batch": BATCH,
                "report_every": 1,
                "checkpoint_every": STEPS,
                "precision": precision,
            },
        }
    )
    with tempfile.TemporaryDirectory(dir=home) as folder:
        run = start_run(config, Path(folder) / "run", tiles)
        steps = [r for r in train(run, device="cpu") if r.kind == "step"]
    return statistics.median(
        r.pairs_per_second for r in steps[WARM:] if r.pairs_per_second
    )


def _plain(backbone: str, options: dict[str, Any], tiles: Path, *, fast: bool) -> float:
    import timm
    import torch
    from lightly.loss import VICRegLoss
    from lightly.models.modules.heads import VICRegProjectionHead
    from lightly.transforms.vicreg_transform import VICRegTransform

    choice = training_device(_any_config(), "cpu", None)
    torch.manual_seed(0)
    encoder = timm.create_model(backbone, pretrained=False, num_classes=0, **options)
    head = VICRegProjectionHead(encoder.num_features, PROJECTOR, PROJECTOR, 3)
    both = torch.nn.Sequential(encoder, head).train()
    cast: Any = nullcontext()
    if fast:
        both = both.to(memory_format=torch.channels_last)
        if choice.precision == "bfloat16":
            cast = torch.autocast("cpu", torch.bfloat16)
    loss = VICRegLoss()
    optimiser = torch.optim.AdamW(both.parameters(), lr=1e-3)
    loader = torch.utils.data.DataLoader(
        _Pictures(sorted(tiles.glob("*.jpg")), VICRegTransform(input_size=VIEW_PX)),
        batch_size=BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=0,
    )
    pace, last = [], time.perf_counter()
    for first, second in _steps(loader):
        with cast:
            a, b = both(first), both(second)
        total = loss(a.float(), b.float())
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        now = time.perf_counter()
        pace.append(BATCH / (now - last))
        last = now
        if len(pace) == STEPS:
            break
    return statistics.median(pace[WARM:])


def _any_config() -> DistillConfig:
    from napari_histodistill.distill.reading import read_recipe

    recipe = Path(__file__).parents[2] / "training" / "smoke.toml"
    config = read_recipe(recipe)
    assert isinstance(config, DistillConfig)
    schedule = config.schedule.model_copy(update={"precision": "auto"})
    return config.model_copy(update={"schedule": schedule, "classes": ()})


def _steps(loader: Any) -> Iterator[tuple[Any, Any]]:
    while True:
        yield from loader


class _Pictures:
    """JPEG files as lightly's datasets give them: opened anew every time."""

    def __init__(self, files: list[Path], transform: Any) -> None:
        self._files, self._transform = files, transform

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Any:
        with Image.open(self._files[index]) as image:
            return self._transform(image.convert("RGB"))
