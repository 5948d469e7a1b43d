"""The torch backend: batches, memory, tokens, errors."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch

from napari_histodistill.errors import ComputeError, DeviceMemoryError
from napari_histodistill.students.backends import shortage
from napari_histodistill.students.backends.torch import TorchBackend
from napari_histodistill.students.student import DeviceChoice

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def on_cpu(precision: str = "float32") -> DeviceChoice:
    return DeviceChoice("cpu", "CPU · test", "a test", precision)


def backend(name: str, precision: str = "float32", **options) -> TorchBackend:
    torch.manual_seed(0)
    module = timm.create_model(name, pretrained=False, num_classes=0, **options)
    return TorchBackend(module, on_cpu(precision), mean=MEAN, std=STD)


class Greedy(torch.nn.Module):
    """Embeds as the mean colour; refuses batches of more than ``room`` images."""

    def __init__(self, room: int, error: Exception) -> None:
        super().__init__()
        self.room, self.error, self.seen = room, error, []

    def forward_features(self, x):
        self.seen.append(len(x))
        if len(x) > self.room:
            raise self.error
        return x

    def forward_head(self, x, *, pre_logits):
        assert pre_logits
        return x.mean(dim=(2, 3))


@pytest.fixture
def tiles(rng) -> np.ndarray:
    return rng.integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)


def test_pixels_are_normalised_with_mean_and_std(tiles):
    subject = TorchBackend(Greedy(99, ValueError()), on_cpu(), mean=MEAN, std=STD)
    expected = ((tiles / 255 - MEAN) / STD).mean(axis=(1, 2))
    np.testing.assert_allclose(subject.embed(tiles), expected, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_efficientnet", "test_convnext", "test_vit"]
)
def test_any_backbone_gives_what_timm_gives(name, rng):
    subject = backend(name)
    px = 160
    tiles = rng.integers(0, 256, (3, px, px, 3), dtype=np.uint8)
    x = torch.from_numpy((tiles / 255 - MEAN) / STD).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        expected = subject.module(x).numpy()
    np.testing.assert_allclose(subject.embed(tiles), expected, rtol=1e-3, atol=1e-4)


def test_same_tiles_same_bytes_in_any_batch(rng):
    subject = backend("test_efficientnet")
    tiles = rng.integers(0, 256, (6, 96, 96, 3), dtype=np.uint8)
    first = subject.embed(tiles)
    assert first.tobytes() == subject.embed(tiles).tobytes()
    subject.batch_pixels = 2 * 96 * 96
    np.testing.assert_allclose(subject.embed(tiles), first, rtol=1e-5, atol=1e-6)


def test_mean_of_tokens_is_the_embedding_of_a_pooling_backbone(rng):
    subject = backend("test_efficientnet")
    tiles = rng.integers(0, 256, (2, 128, 128, 3), dtype=np.uint8)
    tokens = subject.tokens(tiles)
    assert tokens.shape[:3] == (2, 4, 4)
    np.testing.assert_allclose(
        tokens.mean(axis=(1, 2)), subject.embed(tiles), rtol=1e-4, atol=1e-5
    )


def test_bfloat16_stays_near_float32(rng):
    tiles = rng.integers(0, 256, (4, 96, 96, 3), dtype=np.uint8)
    exact = backend("test_efficientnet").embed(tiles)
    fast = backend("test_efficientnet", "bfloat16").embed(tiles)
    assert fast.dtype == np.float32
    norm = np.linalg.norm(exact, axis=1) * np.linalg.norm(fast, axis=1)
    assert ((exact * fast).sum(axis=1) / norm).min() > 0.99
    assert (exact != fast).any()


class Rounded(torch.nn.Module):
    """Convolutions to a sixteenth and to a 32nd; notes what they compute in."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = torch.nn.Conv2d(3, 4, 3, stride=16, padding=1)
        self.coarse = torch.nn.Conv2d(4, 5, 3, stride=2, padding=1)
        self.seen = []

    def forward_features(self, x):
        fine = self.fine(x)
        coarse = self.coarse(fine)
        self.seen = [fine.dtype, coarse.dtype]
        return coarse

    def forward_head(self, x, *, pre_logits):
        return x.mean(dim=(2, 3))


def test_early_layers_stay_in_float32(rng):
    """Rounding near the picture is what moves an embedding."""
    module = Rounded()
    subject = TorchBackend(module, on_cpu("bfloat16"), mean=MEAN, std=STD)
    subject.embed(rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8))
    assert module.seen == [torch.float32, torch.bfloat16]
    subject.embed(rng.integers(0, 256, (2, 96, 96, 3), dtype=np.uint8))
    assert module.seen == [torch.float32, torch.bfloat16]


def test_no_tiles_give_no_embeddings():
    empty = np.zeros((0, 96, 96, 3), np.uint8)
    assert len(backend("test_efficientnet").embed(empty)) == 0


def test_read_only_pixels_are_taken(tiles):
    tiles.flags.writeable = False
    subject = TorchBackend(Greedy(99, ValueError()), on_cpu(), mean=MEAN, std=STD)
    assert subject.embed(tiles).shape == (5, 3)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"),
        RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublas…`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_a_batch_that_does_not_fit_is_halved_and_remembered(tiles, error):
    module = Greedy(1, error)
    subject = TorchBackend(module, on_cpu(), mean=MEAN, std=STD)
    expected = TorchBackend(Greedy(99, error), on_cpu(), mean=MEAN, std=STD)
    np.testing.assert_array_equal(subject.embed(tiles), expected.embed(tiles))
    assert module.seen == [5, 2, 1, 1, 1, 1, 1]
    module.seen.clear()
    subject.embed(tiles)
    assert module.seen == [1] * 5


def test_after_a_short_spell_the_batch_grows_again(tiles, monkeypatch):
    monkeypatch.setattr(shortage, "PATIENCE", 3)
    module = Greedy(2, torch.OutOfMemoryError("CUDA out of memory"))
    subject = TorchBackend(module, on_cpu(), mean=MEAN, std=STD)
    subject.batch_pixels = 4 * 64 * 64
    whole = np.concatenate([tiles] * 4)
    subject.embed(whole[:6])
    assert module.seen == [4, 2, 2, 2]
    module.room = 99  # the other program has ended
    module.seen.clear()
    subject.embed(whole)
    assert module.seen == [4] * 5
    # A shortage that comes again is waited out for longer.
    module.room = 2
    module.seen.clear()
    subject.embed(whole)
    assert module.seen == [4, *[2] * 6, 4, *[2] * 4]


def test_a_batch_is_counted_in_the_pixels_that_the_encoder_sees(tiles):
    module = Greedy(99, ValueError())
    subject = TorchBackend(module, on_cpu(), mean=MEAN, std=STD, input_px=128)
    subject.batch_pixels = 2 * 128 * 128
    subject.embed(tiles)
    assert module.seen == [2, 2, 1]


def test_not_even_one_tile_fits(tiles):
    module = Greedy(0, torch.OutOfMemoryError("CUDA out of memory"))
    subject = TorchBackend(module, on_cpu(), mean=MEAN, std=STD)
    with pytest.raises(DeviceMemoryError, match="smallest batch: close other"):
        subject.embed(tiles)


def test_other_failures_carry_torchs_words(tiles):
    module = Greedy(0, RuntimeError("cuDNN error: BAD_PARAM\nmore lines"))
    subject = TorchBackend(module, on_cpu(), mean=MEAN, std=STD)
    with pytest.raises(ComputeError, match=r"CPU · test: cuDNN error: BAD_PARAM$") as e:
        subject.embed(tiles)
    assert not isinstance(e.value, RuntimeError | DeviceMemoryError)


def test_a_transformer_has_no_tokens_on_a_grid(rng):
    windows = rng.integers(0, 256, (1, 160, 160, 3), dtype=np.uint8)
    with pytest.raises(ComputeError, match="not a feature map"):
        backend("test_vit").tokens(windows)
