"""One training step, and all state that a later step depends on."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from napari_histodistill.distill.pairs.batches import (
    AUGMENT,
    MIX,
    SURROUND,
    TORCH,
    VALIDATE,
    balanced_rows,
    batch_rows,
    stream,
    torch_seed,
    torch_stream,
)
from napari_histodistill.distill.training.labels import log_prior, soft_labels
from napari_histodistill.distill.training.objectives import joint_embedding_loss
from napari_histodistill.distill.training.optimiser import (
    clip_each,
    learning_rate,
    make_optimiser,
    move_towards,
)
from napari_histodistill.distill.training.sharing import Alone
from napari_histodistill.distill.training.surroundings import (
    surround,
    surroundings_loss,
)
from napari_histodistill.distill.training.targets import (
    TargetQueue,
    matched,
    target_loss,
)
from napari_histodistill.errors import ComputeError, DeviceMemoryError
from napari_histodistill.students.backends.heap import keep_freed_memory
from napari_histodistill.students.backends.shortage import is_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_histodistill.distill.recipes.config import DistillConfig
    from napari_histodistill.distill.training.networks import DistillNet, Outputs
    from napari_histodistill.distill.training.objectives import Gather, Loss
    from napari_histodistill.distill.training.sharing import Processes
    from napari_histodistill.distill.training.views import StepInputs, Views

    Tensor = torch.Tensor

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

_SCALER = {"scale": "scale", "grown": "_growth_tracker"}
"""What is kept of torch's scaler, and its name there: the scale, and how many steps
have gone well since it was last doubled."""


@dataclass(frozen=True, slots=True, eq=False)
class StepResult:
    """The result of one batch, on its device: nobody has waited for it.

    Attributes
    ----------
    values : Tensor
        ``(1 + terms,)``: the loss that was minimised, and its parts.
    names : tuple of str
        Names of the parts.
    embeddings : Tensor
        ``(n, dim)``, detached, of the first sparse view.
    """

    values: Tensor
    names: tuple[str, ...]
    embeddings: Tensor

    def named(self, values: list[float]) -> tuple[float, dict[str, float]]:
        """Return the loss and its parts by name."""
        total, *terms = values
        return total, dict(zip(self.names, terms, strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class ValidationResult:
    """The result of the batches of a validation.

    Attributes
    ----------
    total : float
        The loss; the mean over batches.
    terms : dict of str to float
        Parts of the loss.
    embeddings : Tensor
        ``(n, dim)``, of the first sparse view.
    retrieval : float or None
        In a joint embedding: how often a sparse view's own partner is the nearest of
        all partners in the batch; the mean over several partners.
    retrievals : tuple of float
        The same for every partner, where there are several.
    batch : int
        Pairs that were compared at a time; by chance, retrieval is 1 / ``batch``.
    """

    total: float
    terms: dict[str, float]
    embeddings: Tensor
    retrieval: float | None
    retrievals: tuple[float, ...]
    batch: int


class Trainer:
    """Net, optimiser and moving average.

    Parameters
    ----------
    config : DistillConfig
        Recipe of the training.
    net : DistillNet
        New net; it is moved to the device here.
    views : Views
        Views of the training pairs.
    device : str
        Name of a torch device.
    precision : {"float32", "bfloat16", "float16"}
        Precision of the arithmetic; weights and losses stay float32.
    processes : Processes or None
        Processes that share a batch; one by default.

    Attributes
    ----------
    net : DistillNet
        Net with the current weights.
    average : DistillNet
        Net that a student is made from: the moving average, or ``net`` itself.
    """

    def __init__(
        self,
        config: DistillConfig,
        net: DistillNet,
        views: Views,
        *,
        device: str,
        precision: str,
        processes: Processes | None = None,
    ) -> None:
        self.config = config
        self.views = views
        self._device = device
        self._dtype = DTYPES[precision]
        self._processes = processes or Alone()
        if device == "cpu":
            keep_freed_memory()
        with converted(device):
            net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.net = net
            self.average = net
            if config.schedule.average:
                self.average = copy.deepcopy(net).requires_grad_(requires_grad=False)
            self._fused = device.startswith("cuda")
            self.optimiser = make_optimiser(config.schedule, net, fused=self._fused)
            self._soft, self._prior = self._corrections()
            self._queue = TargetQueue(config.objective.queue)
            # Only float16 needs scaling; in other precisions the scaler does nothing.
            self._scaler = torch.amp.GradScaler(
                device.partition(":")[0], enabled=precision == "float16"
            )
            wrapped = self._processes.wrap(net, self.optimiser)
            self._run: Callable[..., Outputs] = (
                torch.compile(wrapped) if config.schedule.compile else wrapped
            )

    def step(self, number: int) -> StepResult:
        """Take one optimiser step.

        Parameters
        ----------
        number : int
            Counted from 0; determines pairs, views, dropout and learning rate.

        Raises
        ------
        DeviceMemoryError
            If the batch does not fit.
        ComputeError
            If torch fails.
        """
        schedule, seed = self.config.schedule, self.config.seed
        rank = self._processes.rank
        rows = self._processes.share(self._rows(number))
        rate = learning_rate(schedule, number)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["scale"]
        self.net.train()
        with converted(self._device), self._randomness(TORCH, number, rank):
            inputs = self.views.draw(rows, seed, AUGMENT, number, rank)
            own = self._own_share(number, rank)
            mixed = _mixed(inputs, own)
            outputs = self._outputs(self._run, mixed, self._windows(mixed, number))
            gather = self._processes.gather
            total, terms = self._loss(inputs, outputs, gather, own, self._queue)
            self.optimiser.zero_grad(set_to_none=True)
            self._processes.backward(self._scaler.scale(total))
            self._scaler.unscale_(self.optimiser)
            self._clip()
            self._scaler.step(self.optimiser)
            self._scaler.update()
            self._move_average(number)
            return _result(outputs, total, terms)

    def validate(self, views: Views) -> ValidationResult:
        """Return the loss on other pairs, with the same augmented views every time."""
        batch = min(self.config.schedule.batch, len(views.pairs))
        self.average.eval()
        results: list[StepResult] = []
        found: list[Tensor] = []
        with (
            converted(self._device),
            torch.inference_mode(),
            self._randomness(VALIDATE, 0),
        ):
            # Whole batches only: what a joint embedding loses depends on how many pairs
            # it compares, and a short last batch would weigh as much as a whole one.
            for start in range(0, len(views.pairs) - batch + 1, batch):
                rows = np.arange(start, start + batch)
                inputs = views.draw(rows, self.config.seed, VALIDATE, start)
                outputs = self._outputs(self.average, inputs)
                # Every process validates on all pairs: there is nothing to join.
                total, terms = self._loss(inputs, outputs, Alone().gather)
                results.append(_result(outputs, total, terms))
                if outputs.projections and self.config.objective.kind != "clusters":
                    partners = outputs.projections[self.config.sparse_views :]
                    # Without a partner, the second sparse view is looked for.
                    others = partners or outputs.projections[-1:]
                    one = outputs.projections[0]
                    found.append(torch.stack([_retrieved(one, x) for x in others]))
            # All batches together: one copy from the device, which is one wait.
            values = torch.stack([r.values for r in results]).tolist()
            each = torch.stack(found).tolist() if found else []
        means = [float(np.mean(column)) for column in zip(*values, strict=True)]
        mean, parts = results[0].named(means)
        each = np.mean(each, axis=0).tolist() if each else []
        return ValidationResult(
            mean,
            parts,
            torch.cat([r.embeddings for r in results]),
            retrieval=float(np.mean(each)) if each else None,
            retrievals=tuple(each) if len(each) > 1 else (),
            batch=batch,
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return all state but the step's number, by name."""
        found = {f"net.{k}": v for k, v in self.net.state_dict().items()}
        if self.average is not self.net:
            kept = self.average.state_dict()
            found |= {f"average.{k}": v for k, v in kept.items()}
        for place, parameter in enumerate(self._parameters()):
            for key, value in self.optimiser.state.get(parameter, {}).items():
                found[f"optimiser.{place}.{key}"] = torch.as_tensor(value)
        for key, value in self._queue.tensors().items():
            found[f"queue.{key}"] = value
        if self._scaler.is_enabled():
            for key, name in _SCALER.items():
                found[f"scaler.{key}"] = torch.tensor(self._scaler.state_dict()[name])
        return found

    def student_tensors(self) -> dict[str, Tensor]:
        """Return the tensors that a student is made from."""
        return dict(self.average.state_dict())

    def load_student(self, tensors: dict[str, Tensor]) -> None:
        """Load what :meth:`student_tensors` returned."""
        self.average.load_state_dict(tensors)

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Load what :meth:`tensors` returned, to the last bit."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {
                k.removeprefix(prefix): v
                for k, v in tensors.items()
                if k.startswith(prefix)
            }

        with converted(self._device):
            self.net.load_state_dict(part("net."))
            if self.average is not self.net:
                self.average.load_state_dict(part("average."))
            for place, parameter in enumerate(self._parameters()):
                state = part(f"optimiser.{place}.")
                self.optimiser.state[parameter] = {
                    k: self._counter(v, parameter)
                    if k == "step"
                    else torch.empty_like(parameter).copy_(v)
                    for k, v in state.items()
                }
            self._queue.load(part("queue."), self._device)
            if self._scaler.is_enabled():
                held = part("scaler.")  # of before 2026-11-28: the scale alone
                self._scaler.load_state_dict(
                    self._scaler.state_dict()
                    | {_SCALER[key]: held[key].item() for key in _SCALER if key in held}
                )

    def _counter(self, steps: Tensor, parameter: nn.Parameter) -> Tensor:
        """Return Adam's step counter where it has to be.

        That is on the CPU wherever the parameter lies, but beside it if the optimiser
        is fused; the moments have the parameter's device and memory layout.
        """
        return steps.to(parameter.device, copy=True) if self._fused else steps.clone()

    def _rows(self, number: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
        config, pairs = self.config, self.views.pairs
        batch, seed = config.schedule.batch, config.seed
        if config.arm == "supervised" and config.schedule.balance:
            assert pairs.labels is not None
            return balanced_rows(
                pairs.labels, batch, number, seed, balance=config.schedule.balance
            )
        return batch_rows(len(pairs), batch, number, seed)

    @contextmanager
    def _randomness(self, *parts: int) -> Iterator[None]:
        """Seed torch's global generator (dropout) for a while, then restore it."""
        cuda = [self._device] if self._device.startswith("cuda") else []
        with torch.random.fork_rng(devices=cuda):
            seed = torch_seed(self.config.seed, *parts)
            # Not torch.manual_seed, which seeds every card: another may be in use.
            torch.default_generator.manual_seed(seed)
            for card in cuda:
                with torch.cuda.device(card):
                    torch.cuda.manual_seed(seed)
            yield

    def _own_share(self, number: int, rank: int) -> float:
        """Return the share of a tile that is left after mixup; at least half."""
        alpha = self.config.schedule.mixup
        if not alpha:
            return 1.0
        drawn = float(stream(self.config.seed, MIX, number, rank).beta(alpha, alpha))
        return max(drawn, 1 - drawn)

    def _windows(self, inputs: StepInputs, number: int) -> Tensor | None:
        """Return some views among other tissue, if the recipe asks for them."""
        config = self.config.surroundings
        if config is None:
            return None
        drawn = torch_stream(self.config.seed, SURROUND, number, self._processes.rank)
        return surround(inputs.sparse[0], config, drawn)

    def _outputs(
        self,
        net: Callable[..., Outputs],
        inputs: StepInputs,
        windows: Tensor | None = None,
    ) -> Outputs:
        kind = self._device.partition(":")[0]
        lower = self._dtype != torch.float32
        with torch.autocast(kind, self._dtype, enabled=lower):
            return net(
                [_channels_last(view) for view in inputs.sparse],
                [_channels_last(view) for view in inputs.partners],
                None if windows is None else _channels_last(windows),
            )

    def _loss(
        self,
        inputs: StepInputs,
        outputs: Outputs,
        gather: Gather,
        own: float = 1.0,
        queue: TargetQueue | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        total = torch.zeros((), device=self._device)
        terms: dict[str, Tensor] = {}
        if outputs.projections:
            between = self._between(inputs, outputs, gather, queue)
            weighs = self.config.objective.weight if outputs.logits is not None else 1.0
            total, terms = total + weighs * between.total, dict(between.terms)
        if outputs.logits is not None:
            assert inputs.labels is not None
            entropy = own * self._entropy(outputs.logits, inputs.labels)
            if own < 1:
                others = self._entropy(outputs.logits, inputs.labels.flip(0))
                entropy = entropy + (1 - own) * others
            total, terms = total + entropy, terms | {"cross-entropy": entropy}
        if outputs.among is not None and self.config.surroundings is not None:
            changed = surroundings_loss(outputs.embeddings, outputs.among)
            total = total + self.config.surroundings.weight * changed
            terms["surroundings"] = changed
        return total, terms

    def _between(
        self,
        inputs: StepInputs,
        outputs: Outputs,
        gather: Gather,
        queue: TargetQueue | None,
    ) -> Loss:
        """Return the loss between a tile and its partners; a queue takes targets in."""
        objective = self.config.objective
        if objective.fixed:
            predicted, targets = outputs.projections
            batch = matched(
                predicted,
                targets,
                inputs.rows,
                confidence=inputs.confidence,
                gather=gather,
            )
            loss = target_loss(objective, batch, queue)
            if queue is not None:
                queue.push(batch)
            return loss
        scale = self.net.log_scale
        return joint_embedding_loss(
            objective,
            outputs.projections,
            confidence=inputs.confidence,
            temperature=None if scale is None else (-scale).exp(),
            gather=gather,
        )

    def _corrections(self) -> tuple[Tensor | None, Tensor | None]:
        """Return what labels say, and what is added to logits, if the recipe asks."""
        corrected, labels = self.config.labels, self.views.pairs.labels
        if corrected is None:
            return None, None
        assert labels is not None
        names = [spec.name for spec in self.config.classes]
        balance = self.config.schedule.balance
        prior = corrected.prior * log_prior(labels, len(names), balance=balance)
        soft = soft_labels(corrected, names) if corrected.grades else None
        return None if soft is None else soft.to(self._device), prior.to(self._device)

    def _entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        logits = logits.float()
        return nn.functional.cross_entropy(
            logits if self._prior is None else logits + self._prior,
            labels if self._soft is None else self._soft[labels],
            label_smoothing=self.config.schedule.label_smoothing,
        )

    def _clip(self) -> None:
        schedule = self.config.schedule
        if not schedule.clip_norm:
            return
        trained = [p for p in self._parameters() if p.grad is not None]
        if schedule.clip_each:
            grads = [p.grad for p in trained if p.grad is not None]
            clip_each(grads, schedule.clip_norm)
        else:
            nn.utils.clip_grad_norm_(trained, schedule.clip_norm)

    def _move_average(self, number: int) -> None:
        if self.average is self.net:
            return
        # Early on, the average follows quickly: it must forget the initial weights.
        decay = min(self.config.schedule.average, (number + 1) / (number + 10))
        move_towards(self.average, self.net, 1 - decay)

    def _parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimiser.param_groups for p in group["params"]]


@contextmanager
def converted(device: str) -> Iterator[None]:
    """Turn errors of torch into errors of this package.

    Raises
    ------
    DeviceMemoryError
        If memory ran out.
    ComputeError
        For any other ``RuntimeError``.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        said = (str(error).strip() or "no message").splitlines()[0][:300]
        if is_memory(error):
            msg = (
                f"{device} ran out of memory in training ({said}): halve "
                "schedule.batch, or make input_px or the projector smaller."
            )
            raise DeviceMemoryError(msg) from error
        msg = f"training failed on {device}: {said}"
        raise ComputeError(msg) from error


def _mixed(inputs: StepInputs, own: float) -> StepInputs:
    """Blend every tile with its mirror in the batch, which is a random other tile."""
    if own == 1:
        return inputs
    blended = tuple(own * x + (1 - own) * x.flip(0) for x in inputs.sparse)
    return replace(inputs, sparse=blended)


def _channels_last(view: Tensor) -> Tensor:
    """Lay images out as convolutions need them; leave tables unchanged."""
    return (
        view.contiguous(memory_format=torch.channels_last) if view.ndim == 4 else view
    )


def _retrieved(sparse: Tensor, partner: Tensor) -> Tensor:
    """Return how often a row's own partner is the nearest."""
    first, last = (nn.functional.normalize(p.float(), dim=1) for p in (sparse, partner))
    nearest = (first @ last.T).argmax(dim=1)
    own = torch.arange(len(nearest), device=nearest.device)
    return (nearest == own).float().mean()


def _result(outputs: Outputs, total: Tensor, terms: dict[str, Tensor]) -> StepResult:
    values = torch.stack([total.detach(), *(term.detach() for term in terms.values())])
    return StepResult(values, tuple(terms), outputs.embeddings.detach().float())
