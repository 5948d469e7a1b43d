"""A student's module in float16 for CUDA cards, with batch normalisation folded in.

float16 keeps eleven bits, as TF32 does, at half the memory traffic; unlike bfloat16 it
needs no layer spared. What it lacks is range: numbers beyond 65,504 become infinite.
The backend computes such tiles again in float32.
"""

from __future__ import annotations

import copy
from collections import Counter
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from napari_histodistill.students.backends.forward import pooled

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROBE_PX = 64
_NEAR = 1e-3
"""How far the folded module may be from the original in float32, relative to the
largest number of an embedding (rounding gives 1e-5)."""


def halved(module: nn.Module, edge: int | None = None) -> tuple[nn.Module, bool]:
    """Return a copy in float16, and whether batch normalisation is folded in it.

    Parameters
    ----------
    module : nn.Module
        A timm backbone in evaluation mode, float32; unchanged.
    edge : int or None
        Edge of the images that it takes, if it takes no other.
    """
    folded = _folded(module, edge or _PROBE_PX)
    half = copy.deepcopy(module) if folded is None else folded
    return half.half(), folded is not None


def _folded(module: nn.Module, edge: int) -> nn.Module | None:
    """Return a copy without batch normalisation; None where none can be folded.

    Which normalisation follows which convolution is seen in a pass, and the result is
    compared with the original: a convolution whose output is used twice, or whose
    weights are standardised, cannot be folded, and then nothing is.
    """
    if not any(isinstance(part, nn.BatchNorm2d) for part in module.modules()):
        return None
    where = next(module.parameters())
    pixels = torch.linspace(-2, 2, 2 * 3 * edge * edge, device=where.device)
    pixels = pixels.reshape(2, edge, edge, 3).permute(0, 3, 1, 2).to(where.dtype)
    other = copy.deepcopy(module)
    with torch.inference_mode(mode=False), torch.no_grad():
        try:
            with _followed(other) as seen:
                expected = pooled(other, pixels, None)
            for conv, norm in seen.pairs:
                _fold(other, conv, norm)
            found = pooled(other, pixels, None)
        except (RuntimeError, AttributeError, TypeError, ValueError, AssertionError):
            return None  # a size that it does not take, or a part that it misses
        scale = expected.abs().max()
        near = bool(((found - expected).abs().max() <= _NEAR * scale).item())
    return other if seen.pairs and near else None


class _Follower:
    """Sees, in a pass, which norm takes what a convolution gives."""

    def __init__(self) -> None:
        # Holds outputs, so that no other tensor gets their identity.
        self._made: dict[int, tuple[str, torch.Tensor]] = {}
        self._calls: Counter[str] = Counter()
        self._pairs: list[tuple[str, str]] = []

    def after(self, name: str, _part: nn.Module, _taken: Any, output: Any) -> None:
        self._calls[name] += 1
        self._made[id(output)] = name, output

    def before(self, name: str, _part: nn.Module, taken: Any) -> None:
        self._calls[name] += 1
        if id(taken[0]) in self._made:
            self._pairs.append((self._made[id(taken[0])][0], name))

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Names of convolution and norm, each called once."""
        calls = self._calls
        return [pair for pair in self._pairs if calls[pair[0]] == calls[pair[1]] == 1]


@contextmanager
def _followed(module: nn.Module) -> Iterator[_Follower]:
    """Watch the passes inside."""
    follower, handles = _Follower(), []
    for name, part in module.named_modules():
        if isinstance(part, nn.Conv2d):
            hook = partial(follower.after, name)
            handles.append(part.register_forward_hook(hook))
        elif isinstance(part, nn.BatchNorm2d):
            before = partial(follower.before, name)
            handles.append(part.register_forward_pre_hook(before))
    try:
        yield follower
    finally:
        for handle in handles:
            handle.remove()


def _fold(module: nn.Module, conv_name: str, norm_name: str) -> None:
    conv: Any = module.get_submodule(conv_name)
    norm: Any = module.get_submodule(norm_name)
    spread = (norm.running_var.double() + norm.eps).sqrt()
    scale = (1.0 if norm.weight is None else norm.weight.double()) / spread
    offset = 0.0 if norm.bias is None else norm.bias.double()
    bias = 0.0 if conv.bias is None else conv.bias.double()
    weight = conv.weight.double() * scale[:, None, None, None]
    shift = (bias - norm.running_mean.double()) * scale + offset
    conv.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=False)
    conv.bias = nn.Parameter(shift.to(conv.weight.dtype), requires_grad=False)
    # timm's batch norm carries the activation that follows it.
    rest = [getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)]
    parent, _, leaf = norm_name.rpartition(".")
    then = nn.Sequential(*rest) if rest else nn.Identity()
    setattr(module.get_submodule(parent), leaf, then)
