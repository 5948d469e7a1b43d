"""A small real student on disk, a small slide, and the command line in-process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_histodistill.cli import main
from napari_histodistill.slides.tissue.writing import write_pyramid
from tests.fakes import tissue_image
from tests.forked import Started, start_forked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """All of stdout as one JSON object: anything else there is an error."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


@pytest.fixture
def run(capfd) -> Callable[..., Outcome]:
    """Run the command line in this process."""

    def call(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = main([str(a) for a in arguments])
        out, err = capfd.readouterr()
        return Outcome(code, out, err)

    return call


@pytest.fixture
def process() -> Callable[..., Started]:
    """Start the command as a process of its own."""

    def start(*arguments: object) -> Started:
        return start_forked(arguments)

    return start


@pytest.fixture(scope="session")
def bundle(tmp_path_factory) -> Path:
    """A student with timm's smallest ResNet, random weights and two classes."""
    import timm
    import torch

    from napari_histodistill.students import save_student
    from napari_histodistill.students.head import Head
    from napari_histodistill.students.spec import ClassSpec, StudentSpec, WeightsSpec

    torch.manual_seed(0)
    module = timm.create_model("test_resnet", num_classes=0)
    dim = module.num_features
    spec = StudentSpec(
        name="tiny",
        title="A test's student",
        backbone="test_resnet",
        tile_px=64,
        mpp=1.0,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        embedding_dim=dim,
        classes=(
            ClassSpec(name="stroma", color="#e69f00"),
            ClassSpec(name="gland", color="#56b4e9"),
        ),
        weights=WeightsSpec(source="bundle"),
        licence="BSD-3-Clause",
    )
    weight = np.random.default_rng(0).normal(size=(2, dim)).astype(np.float32)
    return save_student(
        tmp_path_factory.mktemp("bundles") / "tiny",
        spec,
        head=Head(weight, np.zeros(2, np.float32)),
        encoder_state=module.state_dict(),
    )


@pytest.fixture(scope="session")
def slide_file(tmp_path_factory) -> Path:
    """A pyramid of 600 × 800 px at 0.5 µm per pixel with tissue on glass."""
    path = tmp_path_factory.mktemp("slides") / "small.ome.tif"
    return write_pyramid(path, tissue_image(), mpp=0.5, compression="zlib")


@pytest.fixture(scope="session")
def silent_slide(tmp_path_factory) -> Path:
    """A picture that does not say how large its pixels are."""
    from PIL import Image

    path = tmp_path_factory.mktemp("slides") / "silent.png"
    Image.fromarray(tissue_image()).save(path)
    return path


@pytest.fixture(scope="session")
def large_slide(tmp_path_factory) -> Path:
    """Tissue without glass, large enough to be stopped in the middle."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(60, 200, (45, 60, 3), np.uint8)
    image = coarse.repeat(40, axis=0).repeat(40, axis=1)
    path = tmp_path_factory.mktemp("slides") / "large.ome.tif"
    return write_pyramid(path, image, mpp=0.5, compression="zlib")
