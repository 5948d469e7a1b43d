"""A small student, a slide and a training on disk: every command takes seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Workplace:
    """What the commands work on.

    Attributes
    ----------
    slide : Path
        1200 × 1600 px at 0.5 µm per pixel, tissue all over.
    bundle : Path
        A student with two classes and random weights.
    recipe, tiles : Path
        A training of a minute's part.
    """

    slide: Path
    bundle: Path
    recipe: Path
    tiles: Path


def make_workplace(folder: Path) -> Workplace:
    """Write all of it; the same bytes every time."""
    from napari_histodistill.distill.recipes.files import recipe_text
    from tests.distill.small_runs import small_config, write_textures

    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / "recipe.toml"
    schedule = {"steps": 24, "checkpoint_every": 3, "average": 0.9}
    recipe.write_text(recipe_text(small_config("triplet", schedule=schedule)))
    return Workplace(
        slide=write_slide(folder / "slide.ome.tif"),
        bundle=write_bundle(folder / "bundle"),
        recipe=recipe,
        tiles=write_textures(folder / "tiles"),
    )


def write_slide(path: Path, *, cells: tuple[int, int] = (30, 40)) -> Path:
    """Write coloured squares of 40 px: tissue without glass, at 0.5 µm per pixel."""
    from napari_histodistill.slides.tissue.writing import write_pyramid
    from tests.fakes import grained

    rng = np.random.default_rng(1)
    coarse = rng.integers(60, 200, (*cells, 3), np.uint8)
    image = grained(coarse.repeat(40, axis=0).repeat(40, axis=1))
    return write_pyramid(path, image, mpp=0.5, compression="zlib")


def write_bundle(folder: Path, *, name: str = "tiny", seed: int = 0) -> Path:
    """Write a student with timm's smallest ResNet, random weights, two classes."""
    import timm
    import torch

    from napari_histodistill.students import save_student
    from napari_histodistill.students.head import Head

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = timm.create_model("test_resnet", num_classes=0)
    spec = tiny_spec(name=name, embedding_dim=module.num_features)
    weight = np.random.default_rng(seed).normal(size=(2, module.num_features))
    return save_student(
        folder,
        spec,
        head=Head(weight.astype(np.float32), np.zeros(2, np.float32)),
        encoder_state=module.state_dict(),
    )


def tiny_spec(**changes: Any) -> Any:
    """Return the spec of that student."""
    from napari_histodistill.students.spec import ClassSpec, StudentSpec, WeightsSpec

    content: dict[str, Any] = {
        "name": "tiny",
        "title": "A test's student",
        "backbone": "test_resnet",
        "tile_px": 64,
        "mpp": 1.0,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
        "embedding_dim": 64,
        "classes": (
            ClassSpec(name="stroma", color="#e69f00"),
            ClassSpec(name="gland", color="#56b4e9"),
        ),
        "weights": WeightsSpec(source="bundle"),
        "licence": "BSD-3-Clause",
    }
    return StudentSpec(**(content | changes))


def start(arguments: Sequence[object], **options: Any) -> subprocess.Popen[str]:
    """Start ``histodistill`` as a process of its own, one thread."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        **options.pop("env", {}),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "napari_histodistill.cli", *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The one line in which a command says why it ended."""
        said = [x for x in self.err.splitlines() if x.startswith("histodistill:")]
        assert len(said) == 1, self.err
        assert "Traceback" not in self.err
        return said[0]


def run(arguments: Sequence[object], **options: Any) -> Outcome:
    """Run ``histodistill`` to its end."""
    process = start(arguments, **options)
    out, err = process.communicate(timeout=300)
    return Outcome(process.returncode, out, err)
