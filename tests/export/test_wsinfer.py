"""The WSInfer layout: a model that other programs run to the same probabilities."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_histodistill.errors import ComputeError, InputError
from napari_histodistill.export import export_wsinfer
from napari_histodistill.students.head import Head
from napari_histodistill.students.spec import ClassSpec, StudentSpec, WeightsSpec
from napari_histodistill.students.student import DeviceChoice, Student
from tests.fakes import colour_student, tissue_image

if TYPE_CHECKING:
    from pathlib import Path


def made_student(tile_px: int, input_px: int | None = None) -> Student:
    import timm
    import torch

    from napari_histodistill.students.backends.torch import TorchBackend

    torch.manual_seed(0)
    module = timm.create_model("test_efficientnet", num_classes=0)
    mean, std = (0.7, 0.6, 0.65), (0.2, 0.25, 0.3)
    dim = module.num_features
    spec = StudentSpec(
        name="tiny",
        title="Tiny",
        backbone="test_efficientnet",
        tile_px=tile_px,
        input_px=input_px,
        mpp=0.75,
        mean=mean,
        std=std,
        token_stride_px=32,
        embedding_dim=dim,
        classes=tuple(
            ClassSpec(name=n, color="#112233") for n in ("tumour", "stroma", "fat")
        ),
        temperature=1.7,
        weights=WeightsSpec(source="bundle"),
        licence="BSD-3-Clause",
    )
    rng = np.random.default_rng(0)
    head = Head(
        rng.normal(0, 3, (3, dim)).astype(np.float32),
        rng.normal(size=3).astype(np.float32),
        temperature=1.7,
    )
    device = DeviceChoice("cpu", "CPU", "a test")
    backend = TorchBackend(module, device, mean=mean, std=std, input_px=input_px)
    return Student(spec, backend, head=head, digest="d1" * 16)


@pytest.fixture(scope="module")
def torch_student() -> Student:
    return made_student(64)


@pytest.fixture(scope="module")
def exported(torch_student, tmp_path_factory) -> Path:
    return export_wsinfer(
        torch_student, tmp_path_factory.mktemp("wsinfer") / "models" / "tiny"
    )


# QuPath and WSInfer load TorchScript; torch 2.14 warns that it is on its way out.
@pytest.mark.filterwarnings("ignore:.torch.jit.load.:FutureWarning")
def test_another_program_gets_the_same_probabilities(exported, torch_student, rng):
    import torch
    from torchvision.transforms.functional import normalize, to_tensor

    config = json.loads((exported / "config.json").read_text())
    model = torch.jit.load(exported / "torchscript_model.pt")
    tiles = rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    arguments = config["transform"][2]["arguments"]
    batch = torch.stack(
        [normalize(to_tensor(t), arguments["mean"], arguments["std"]) for t in tiles]
    )
    with torch.inference_mode():
        theirs = torch.softmax(model(batch), dim=1).numpy()
    ours = torch_student.classify(torch_student.embed(tiles))
    assert np.ptp(ours) > 0.1
    np.testing.assert_allclose(theirs, ours, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.torch.jit.load.:FutureWarning")
def test_tiles_are_enlarged_by_the_exported_model_itself(tmp_path, rng):
    import torch
    from torchvision.transforms.functional import normalize, to_tensor

    student = made_student(28, 32)
    folder = export_wsinfer(student, tmp_path / "small")
    config = json.loads((folder / "config.json").read_text())
    assert config["patch_size_pixels"] == 28
    assert config["transform"][0]["arguments"] == {"size": 28}
    model = torch.jit.load(folder / "torchscript_model.pt")
    picture = tissue_image(280, 280)
    tiles = np.stack(
        [picture[y : y + 28, x : x + 28] for y in (0, 84, 196) for x in (28, 140)]
    )
    tiles = np.concatenate(
        [tiles, rng.integers(0, 256, (2, 28, 28, 3), dtype=np.uint8)]
    )
    spec = student.spec
    batch = torch.stack([normalize(to_tensor(t), spec.mean, spec.std) for t in tiles])
    with torch.inference_mode():
        theirs = torch.softmax(model(batch), dim=1).numpy()
    ours = student.classify(student.embed(tiles))
    assert np.ptp(ours) > 0.1
    np.testing.assert_allclose(theirs, ours, atol=1e-3)


def test_the_check_sees_a_model_that_does_not_enlarge(tmp_path, monkeypatch):
    from napari_histodistill.students.backends import forward

    student = made_student(28, 32)
    enlarged = forward.pooled
    traced = []

    def as_it_was(module, pixels, input_px):
        # Tracing comes first; what it traces forgets the size that is wanted.
        traced.append(input_px)
        return enlarged(module, pixels, None if len(traced) == 1 else input_px)

    monkeypatch.setattr(forward, "pooled", as_it_was)
    with pytest.raises(ComputeError, match="exported model differs"):
        export_wsinfer(student, tmp_path / "small")
    assert not list(tmp_path.iterdir())


def test_the_configuration(exported):
    assert json.loads((exported / "config.json").read_text()) == {
        "spec_version": "1.0",
        "type": "model",
        "name": "tiny",
        "architecture": "test_efficientnet",
        "num_classes": 3,
        "patch_size_pixels": 64,
        "spacing_um_px": 0.75,
        "class_names": ["tumour", "stroma", "fat"],
        "transform": [
            {"name": "Resize", "arguments": {"size": 64}},
            {"name": "ToTensor"},
            {
                "name": "Normalize",
                "arguments": {"mean": [0.7, 0.6, 0.65], "std": [0.2, 0.25, 0.3]},
            },
        ],
    }


def test_the_student_is_left_as_it_was(exported, torch_student, rng):
    tiles = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    before = torch_student.embed(tiles)
    export_wsinfer(torch_student, exported)  # an own export is replaced
    np.testing.assert_array_equal(torch_student.embed(tiles), before)


def test_a_model_that_differs_is_not_written(tmp_path, torch_student, monkeypatch):
    from napari_histodistill.export import wsinfer

    monkeypatch.setattr(wsinfer, "_TOLERANCE", -1.0)
    with pytest.raises(ComputeError, match="exported model differs"):
        export_wsinfer(torch_student, tmp_path / "tiny")
    assert not list(tmp_path.iterdir())


def test_students_without_classes_or_torch_are_refused(tmp_path):
    with pytest.raises(InputError, match="has no classes"):
        export_wsinfer(colour_student(with_head=False), tmp_path / "a")
    with pytest.raises(InputError, match="does not run on torch"):
        export_wsinfer(colour_student(), tmp_path / "a")


def test_a_strangers_folder_is_kept(tmp_path, torch_student):
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="a folder is there"):
        export_wsinfer(torch_student, tmp_path)
    assert (tmp_path / "thesis.txt").exists()
