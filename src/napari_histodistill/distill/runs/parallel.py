"""One net trained by several processes, as one process would on the joined batch.

Lightning Fabric starts the processes and averages the gradients. What it cannot know is
joined here: the statistics of the joint-embedding loss (``Spread.gather``) and those of
batch normalisation.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed.nn.functional as joined
from torch import nn
from torch.multiprocessing.spawn import (
    ProcessExitedException,
    ProcessRaisedException,
)

from napari_histodistill.distill.runs.events import read_events
from napari_histodistill.distill.runs.folder import read_run
from napari_histodistill.distill.runs.run import train
from napari_histodistill.errors import Cancelled, ComputeError, InputError

if TYPE_CHECKING:
    import numpy.typing as npt
    from numpy import intp

    from napari_histodistill.distill.training.networks import DistillNet

    Rows = npt.NDArray[intp]


class Spread:
    """One of several processes; see :class:`.sharing.Processes`.

    Parameters
    ----------
    fabric : lightning_fabric.Fabric
        Fabric that was launched.
    """

    def __init__(self, fabric: Any) -> None:
        self._fabric = fabric
        self._wrapped: nn.Module | None = None
        self.rank: int = fabric.global_rank
        self.world: int = fabric.world_size

    def wrap(
        self,
        net: DistillNet,
        optimiser: torch.optim.Optimizer,  # noqa: ARG002 - Fabric needs the module only
    ) -> nn.Module:
        """Return the net in Fabric's wrapping, its batch statistics joined."""
        join_batch_norm(net)
        wrapped: nn.Module = self._fabric.setup_module(net, move_to_device=False)
        self._wrapped = wrapped
        return wrapped

    def share(self, rows: Rows) -> Rows:
        """Return every world-th row, beginning with this rank's."""
        return rows[self.rank :: self.world]

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """Return the joined batch ``(world · n, …)``; gradients flow back to all."""
        parts: tuple[torch.Tensor, ...] = joined.all_gather(  # type: ignore[no-untyped-call]
            values.contiguous()
        )
        return torch.cat(parts)

    def backward(self, loss: torch.Tensor) -> None:
        """Compute gradients; Fabric averages them over the processes."""
        self._fabric.backward(loss, model=self._wrapped)

    def agree(self, value: int) -> int:
        """Return the first process's value."""
        agreed = torch.tensor([value], device=self._fabric.device)
        torch.distributed.broadcast(agreed, 0)
        return int(agreed)


def join_batch_norm(net: nn.Module) -> None:
    """Let every batch normalisation use the statistics of the joined batch.

    PyTorch's own ``SyncBatchNorm`` does so on CUDA only, and replaces modules, which
    renames what a checkpoint holds.

    Parameters
    ----------
    net : nn.Module
        Changed in place; its state's names stay.
    """
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.forward = MethodType(_joined_forward, module)  # type: ignore[method-assign]


def _joined_forward(self: Any, values: torch.Tensor) -> torch.Tensor:
    if self.training:
        normal = _normalise(self, values)
    else:
        normal = nn.functional.batch_norm(
            values,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=False,
            eps=self.eps,
        )
    # timm's batch norm carries the activation that follows it.
    for name in ("drop", "act"):
        normal = getattr(self, name, nn.Identity())(normal)
    return normal


def _normalise(norm: Any, values: torch.Tensor) -> torch.Tensor:
    """Normalise by the mean and variance of all processes' values together."""
    across = [0, *range(2, values.ndim)]
    shape = (1, -1, *(1,) * (values.ndim - 2))
    exact = values.float()
    own, width = exact.var(across, correction=0), exact.shape[1]
    count = own.new_full(
        (1,), exact.numel() / width
    )  # filled there: no copy to wait for
    mine = torch.cat([exact.mean(across), own, count])
    parts = torch.stack(joined.all_gather(mine))  # type: ignore[no-untyped-call]
    means, variances = parts[:, :width], parts[:, width:-1]
    total = parts[:, -1].sum()
    shares = parts[:, -1:] / total
    mean = (shares * means).sum(0)
    # Chan et al. 1983: a sum of squares, where E[x²] − mean² may come out negative.
    variance = (shares * (variances + (means - mean).square())).sum(0)
    with torch.no_grad():
        norm.num_batches_tracked += 1
        unbiased = variance * total / (total - 1)
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(unbiased, norm.momentum)
    scaled = (exact - mean.view(shape)) * torch.rsqrt(variance + norm.eps).view(shape)
    scaled = scaled * norm.weight.view(shape) + norm.bias.view(shape)
    normal: torch.Tensor = scaled.to(values.dtype)
    return normal


def train_in_processes(
    folder: Path, *, count: int, device: str = "auto", threads: int | None = None
) -> None:
    """Start or continue a run in several processes (one per GPU, or on the CPU).

    The first process writes the run's folder, and reports on stderr. A run that is
    killed continues from its last checkpoint, in as many processes as before.

    Parameters
    ----------
    folder : Path
        From :func:`start_run`.
    count : int
        Number of processes; must divide the batch.
    device : str
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    threads : int or None
        CPU threads of each process.

    Raises
    ------
    InputError
        If Lightning Fabric is not installed, the batch cannot be divided, or the device
        is a single card.
    ComputeError
        If a process fails; the run's events say why.
    Cancelled
        After a stop (the file ``stop``), when everything is saved.
    """
    batch = read_run(folder)[0].schedule.batch
    if batch % count:
        msg = (
            f"schedule.batch: {batch} pairs cannot be divided among {count} processes."
        )
        raise InputError(msg)
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        msg = (
            "several processes need Lightning Fabric: pip install "
            "napari-histodistill[parallel]"
        )
        raise InputError(msg) from error
    if ":" in device:
        msg = (
            f"device {device!r} with {count} processes: each takes a device of its "
            "own, so say cuda or cpu; CUDA_VISIBLE_DEVICES chooses among the cards."
        )
        raise InputError(msg)
    on_cuda = device.startswith("cuda") or (
        device == "auto" and torch.cuda.device_count() >= count
    )
    fabric = Fabric(
        accelerator="cuda" if on_cuda else "cpu", devices=count, strategy="ddp_spawn"
    )
    try:
        fabric.launch(_one_process, str(folder), on_cuda, threads)
    except (ProcessRaisedException, ProcessExitedException) as error:
        raise ComputeError(_what_failed(folder, error)) from error
    last = read_events(folder)[-1]
    if last["kind"] == "stopped":
        raise Cancelled(last["message"])


def _what_failed(folder: Path, error: Exception) -> str:
    """Return the run's own message, or how its process ended."""
    events = read_events(folder)
    if events and events[-1]["kind"] == "failed":
        return str(events[-1]["message"])
    last = str(error).strip().splitlines()[-1]
    return f"one of the processes of {folder} ended without a report: {last}"


def _one_process(
    fabric: Any,
    folder: str,
    on_cuda: bool,  # noqa: FBT001 - Fabric passes by position
    threads: int | None,
) -> None:
    device = f"cuda:{fabric.local_rank}" if on_cuda else "cpu"
    member = Spread(fabric)
    reports = train(Path(folder), device=device, threads=threads, processes=member)
    with suppress(Cancelled):  # the parent reads it in the run's events
        for report in reports:
            if member.rank == 0:
                loss = "" if report.total is None else f" loss {report.total:.4g}"
                at = f"{report.kind} {report.step} of {report.steps}"
                sys.stderr.write(f"{at}{loss} {report.message}\n")
    fabric.barrier()
