"""The OpenVINO backend: torch's numbers, the same bytes in any company, refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import timm
import torch

from napari_histodistill.cache import cache_dir
from napari_histodistill.errors import ComputeError, DeviceError
from napari_histodistill.students import load_student
from napari_histodistill.students.backends import openvino as subject
from napari_histodistill.students.backends.openvino import OpenVinoBackend
from napari_histodistill.students.backends.torch import TorchBackend
from napari_histodistill.students.spec import StudentSpec, WeightsSpec
from napari_histodistill.students.student import DeviceChoice

if not subject.is_installed():
    pytest.skip("needs the extra [openvino]", allow_module_level=True)

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
PX = 64


def spec_of(backbone: str, *, tile_px: int = PX, input_px: int | None = None):
    return StudentSpec(
        name="small",
        title="A test's student",
        backbone=backbone,
        tile_px=tile_px,
        input_px=input_px,
        mpp=1.0,
        mean=MEAN,
        std=STD,
        embedding_dim=6,
        classes=(),
        weights=WeightsSpec(source="bundle"),
        licence="BSD-3-Clause",
        digest="ab" * 32,
    )


def module_of(backbone: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(backbone, pretrained=False, num_classes=0)


def choice(precision: str = "float32", backend: str = "openvino") -> DeviceChoice:
    return DeviceChoice("cpu", "CPU · test", "a test", precision, backend)


def both(backbone: str, precision="float32", **spec):
    """The same module in torch's float32 and in OpenVINO."""
    facts = spec_of(backbone, **spec)
    exact = TorchBackend(
        module_of(backbone),
        choice(backend="torch"),
        mean=MEAN,
        std=STD,
        input_px=facts.input_px,
    )
    return exact, OpenVinoBackend(module_of(backbone), choice(precision), facts)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return (a * b).sum(axis=-1) / lengths


@pytest.fixture
def tiles(rng) -> np.ndarray:
    return rng.integers(0, 256, (7, PX, PX, 3), dtype=np.uint8)


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_resnet"])
def test_tiles_and_tokens_are_torchs(backbone, tiles, rng):
    exact, ours = both(backbone)
    np.testing.assert_allclose(
        ours.embed(tiles), exact.embed(tiles), rtol=1e-3, atol=1e-4
    )
    # Not square, and of a size that the conversion never saw.
    windows = rng.integers(0, 256, (3, 160, 96, 3), dtype=np.uint8)
    tokens = exact.tokens(windows)
    np.testing.assert_allclose(ours.tokens(windows), tokens, rtol=1e-3, atol=1e-4)


def test_a_transformer_and_enlarged_tiles(rng):
    exact, ours = both("test_vit", tile_px=80, input_px=160)
    tiles = rng.integers(0, 256, (3, 80, 80, 3), dtype=np.uint8)
    np.testing.assert_allclose(
        ours.embed(tiles), exact.embed(tiles), rtol=1e-3, atol=1e-4
    )
    with pytest.raises(ComputeError, match="not a feature map"):
        ours.tokens(rng.integers(0, 256, (1, 160, 160, 3), dtype=np.uint8))


def test_a_tile_gives_the_same_bytes_in_any_company(tiles):
    _, ours = both("test_efficientnet")
    whole = ours.embed(tiles)
    for some in ([0], [6, 0], [3, 4, 5], [1, 1, 2, 0, 6]):
        assert ours.embed(tiles[some]).tobytes() == whole[some].tobytes()


def test_calls_from_several_threads(tiles):
    _, ours = both("test_efficientnet")
    whole = ours.embed(tiles)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: ours.embed(tiles), range(12)):
            assert found.tobytes() == whole.tobytes()


def test_no_tiles_give_no_embeddings():
    _, ours = both("test_efficientnet")
    assert len(ours.embed(np.zeros((0, PX, PX, 3), np.uint8))) == 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_real_weights_on_painted_tissue(precision, tmp_path, monkeypatch):
    """The bundled student sees the same in either backend: embedding and class."""
    from napari_histodistill.samples.synthetic import paint_slide
    from napari_histodistill.students.device import cpu_has_bfloat16

    if precision == "bfloat16" and not cpu_has_bfloat16():
        pytest.skip("this processor has no bfloat16 of its own")
    picture, _ = paint_slide(896, 896)
    tiles = picture[::2, ::2].reshape(2, 224, 2, 224, 3).swapaxes(1, 2)
    tiles = np.concatenate([tiles.reshape(4, 224, 224, 3), picture[None, :224, :224]])
    exact = load_student("colon-he", device="cpu:torch", precision="float32")
    ours = load_student("colon-he", device="cpu:openvino", precision=precision)
    assert ours.device.backend == "openvino"
    assert ours.device.precision == precision
    a, b = exact.embed(tiles), ours.embed(tiles)
    assert cosines(a, b).min() >= 0.999
    classes = [s.classify(s.embed(tiles)).argmax(axis=1) for s in (exact, ours)]
    np.testing.assert_array_equal(*classes)


def test_the_converted_model_is_kept_and_used(monkeypatch, tiles):
    _, first = both("test_efficientnet")
    kept = sorted(cache_dir("openvino").rglob("model.xml"))
    assert len(kept) == 1

    def refuse(*args, **kwargs):
        raise AssertionError("converted again")

    monkeypatch.setattr(subject, "_convert", refuse)
    _, again = both("test_efficientnet")
    assert again.embed(tiles).tobytes() == first.embed(tiles).tobytes()


@pytest.mark.parametrize("damage", ["xml", "weights"])
def test_a_damaged_model_in_the_cache_is_made_anew(damage, tiles):
    _, first = both("test_efficientnet")
    [kept] = cache_dir("openvino").rglob("model.xml")
    if damage == "xml":
        kept.write_text("<net")
    else:
        weights = kept.with_suffix(".bin")
        weights.write_bytes(weights.read_bytes()[::-1])
    _, again = both("test_efficientnet")
    assert again.embed(tiles).tobytes() == first.embed(tiles).tobytes()


def test_another_computation_is_refused(monkeypatch):
    """A converted encoder is trusted only if torch agrees with it."""
    true = subject._Model.run
    monkeypatch.setattr(subject._Model, "run", lambda self, pixels: -true(self, pixels))
    with pytest.raises(ComputeError, match="compute different embeddings"):
        both("test_efficientnet")


def test_refusals(monkeypatch):
    with pytest.raises(DeviceError, match="float32 or bfloat16, not float16"):
        both("test_efficientnet", precision="float16")
    monkeypatch.setattr(subject, "is_installed", lambda: False)
    with pytest.raises(DeviceError, match=r"pip install .*\[openvino\]"):
        both("test_efficientnet")


def test_nothing_is_reported_to_anybody():
    """OpenVINO's tools would report to a statistics server that they were imported."""
    code = (
        "import json, sys\n"
        "from napari_histodistill.students import load_student\n"
        "load_student('colon-he', device='cpu:openvino')\n"
        "assert 'openvino' in sys.modules\n"
        "loaded = [name for name, module in sys.modules.items() if module]\n"
        "said = [name for name in loaded if 'openvino_telemetry' in name]\n"
        "print(json.dumps(said))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert json.loads(found.stdout.splitlines()[-1]) == []
