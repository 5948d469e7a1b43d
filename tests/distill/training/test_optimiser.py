"""Clipping and averages in few launches, to the bit as one by one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from napari_histodistill.distill.training.optimiser import clip_each, move_towards


class Launches(TorchDispatchMode):
    """Counts operations that a card would be given."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is not torch.ops.aten.detach.default
        return func(*args, **(kwargs or {}))


@pytest.fixture
def nets() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    parts = [nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)) for _ in range(6)]
    net = nn.Sequential(*parts)
    other = copy.deepcopy(net)
    net(torch.randn(2, 3, 32, 32)).square().sum().backward()
    return net, other


def test_each_gradient_is_clipped_as_by_itself(nets):
    net, _ = nets
    parameters = list(net.parameters())
    for k, parameter in enumerate(parameters):  # some are small enough
        parameter.grad *= 10.0 ** (k % 5 - 3)
    found = [p.grad.clone() for p in parameters]
    with Launches() as few:
        clip_each(found, 0.5)
    with Launches() as many:
        for parameter in parameters:
            nn.utils.clip_grad_norm_([parameter], 0.5)
    for one, parameter in zip(found, parameters, strict=True):
        assert torch.equal(one, parameter.grad)
    assert few.count < many.count / 5
    clip_each([], 0.5)


def test_an_average_moves_as_tensor_by_tensor(nets):
    net, average = nets
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter))
    expected = copy.deepcopy(average.state_dict())
    for mine, theirs in zip(expected.values(), net.state_dict().values(), strict=True):
        if mine.dtype.is_floating_point:
            mine.lerp_(theirs, 1 - 0.9)
        else:
            mine.copy_(theirs)
    with Launches() as launches:
        move_towards(average, net, 1 - 0.9)
    for name, tensor in average.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert launches.count < len(expected)
