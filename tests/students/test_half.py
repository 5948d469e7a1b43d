"""float16 with batch normalisation folded in."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch

from napari_histodistill.students.backends.forward import pooled
from napari_histodistill.students.backends.half import halved


def seeded(name: str, **options) -> torch.nn.Module:
    torch.manual_seed(0)
    module = timm.create_model(name, pretrained=False, num_classes=0, **options).eval()
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.running_mean.normal_(std=0.2)
                part.running_var.uniform_(0.5, 2)
                part.weight.uniform_(0.5, 1.5)
                part.bias.normal_(std=0.2)
    return module.requires_grad_(requires_grad=False)


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(torch.cosine_similarity(one.float(), other.float()).min())


@pytest.mark.parametrize(
    ("name", "folds"),
    [("test_efficientnet", True), ("test_resnet", True), ("test_convnext", False)],
)
def test_it_is_smaller_and_computes_the_same(name, folds):
    module = seeded(name)
    names = set(module.state_dict())
    half, is_folded = halved(module)
    assert is_folded == folds
    left = [p for p in half.modules() if isinstance(p, torch.nn.BatchNorm2d)]
    assert not left
    assert {p.dtype for p in half.parameters()} == {torch.float16}
    assert set(module.state_dict()) == names, "the module itself is as it was"
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    pixels = torch.from_numpy(
        np.random.default_rng(0).normal(size=(2, 3, 96, 96)).astype(np.float32)
    )
    with torch.inference_mode():
        exact = pooled(module, pixels, None)
        assert cosine(pooled(half, pixels.half(), None), exact) > 0.9999


class UsedTwice(torch.nn.Module):
    """What a convolution gives goes past the norm as well."""

    def __init__(self, *, past: bool) -> None:
        super().__init__()
        self.conv, self.norm = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)
        self.past = past
        torch.nn.init.normal_(self.norm.running_mean)

    def forward_features(self, x):
        found = self.conv(x)
        return self.norm(found) + found * self.past

    def forward_head(self, x, *, pre_logits):
        return x.mean(dim=(2, 3))


@pytest.mark.parametrize("past", [False, True])
def test_a_convolution_whose_output_is_used_twice_is_not_folded(past):
    torch.manual_seed(0)
    module = UsedTwice(past=past).eval().requires_grad_(requires_grad=False)
    half, is_folded = halved(module)
    assert is_folded is not past
    pixels = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        exact = pooled(module, pixels, None)
        torch.testing.assert_close(
            pooled(half, pixels.half(), None).float(), exact, atol=5e-3, rtol=5e-3
        )
