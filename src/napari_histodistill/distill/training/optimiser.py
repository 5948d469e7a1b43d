"""The optimiser: its parameter groups, and its learning rate over time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from napari_histodistill.distill.recipes.config import ScheduleConfig
    from napari_histodistill.distill.training.networks import DistillNet


def learning_rate(schedule: ScheduleConfig, step: int) -> float:
    """Return the rate of a step: linear warm-up, then a cosine to 0."""
    warm = round(schedule.warmup_share * schedule.steps)
    if step < warm:  # + 1: a first step at rate 0 would be wasted
        return schedule.lr * (step + 1) / warm
    done = (step - warm) / max(1, schedule.steps - warm)
    return schedule.lr * 0.5 * (1 + math.cos(math.pi * done))


def make_optimiser(
    schedule: ScheduleConfig, net: DistillNet, *, fused: bool = False
) -> torch.optim.Optimizer:
    """Return the optimiser; norms and biases do not decay.

    Parameters
    ----------
    schedule : ScheduleConfig
        Rates, decay and kind.
    net : DistillNet
        Net on its device.
    fused : bool
        Whether a step is a launch or two instead of dozens. It counts its steps on
        the device, and leaves out a step whose scaled gradients are infinite without
        anyone waiting to hear of it; the last bits are others.
    """
    parts = (
        (net.student, 1.0),
        (net.projector, schedule.head_lr_scale),
        (net.head, schedule.head_lr_scale),
        (net.partners, schedule.dense_lr_scale),
        (net.partner_projectors, schedule.head_lr_scale),
    )
    groups = []
    for module, scale in parts:
        trained = [p for p in module.parameters() if p.requires_grad] if module else []
        # Matrices and kernels have several dimensions, norms and biases have one.
        for decays in (True, False):
            chosen = [p for p in trained if (p.ndim > 1) == decays]
            decay = schedule.weight_decay if decays else 0.0
            if chosen:
                groups.append({"params": chosen, "scale": scale, "weight_decay": decay})
    if net.log_scale is not None:
        groups.append({"params": [net.log_scale], "scale": 1.0, "weight_decay": 0.0})
    kind = torch.optim.AdamW if schedule.optimiser == "adamw" else torch.optim.Adam
    # None, as by default: on a CPU the bytes of a student hang on it.
    return kind(groups, lr=schedule.lr, fused=fused or None)


def clip_each(gradients: list[torch.Tensor], most: float) -> None:
    """Shrink every gradient whose norm exceeds ``most``, each by itself, in place.

    To the bit what ``clip_grad_norm_`` makes of one after the other, in a tenth of the
    launches: small networks spend their time on those.
    """
    if not gradients:
        return
    norms = torch.stack(torch._foreach_norm(gradients))
    # A norm of a norm, as there: the square and its root may round.
    norms = torch.linalg.vector_norm(norms[:, None], dim=1)
    shares = (most / (norms + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, list(shares.unbind()))


@torch.no_grad()
def move_towards(average: torch.nn.Module, net: torch.nn.Module, share: float) -> None:
    """Move a moving average by a share of the way to a net with the same state."""
    pairs = list(
        zip(average.state_dict().values(), net.state_dict().values(), strict=True)
    )
    real = [pair for pair in pairs if pair[0].dtype.is_floating_point]
    torch._foreach_lerp_([mine for mine, _ in real], [its for _, its in real], share)
    for mine, theirs in pairs:
        if not mine.dtype.is_floating_point:  # counters, such as of batches
            mine.copy_(theirs)
