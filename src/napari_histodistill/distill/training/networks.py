"""The branches of a joint embedding: encoders, projectors, and the net they make.

Nothing is shared between modalities. After training, only ``net.student`` (and the
head, if there is one) is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from napari_histodistill.distill.pairs.batches import CLUSTERS, torch_seed
from napari_histodistill.distill.training.clusters import Clusters, fit_clusters
from napari_histodistill.distill.training.vectors import Components, fit_components
from napari_histodistill.errors import InputError
from napari_histodistill.students.llvm_clash import keep_triton_out

keep_triton_out()  # timm brings triton in
import timm  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from napari_histodistill.distill.recipes.config import (
        DenseConfig,
        DistillConfig,
        EncoderConfig,
    )

    Tensor = torch.Tensor

# Mean of pixels where weights start at random; a student brings its own.
MEAN, STD = 0.5, 0.25
HEAD_DROPOUT = 0.2
EXPRESSION_WIDTH = 512


class ImageEncoder(nn.Module):
    """A timm backbone that normalises pixels itself.

    Parameters
    ----------
    module : nn.Module
        timm's, with ``num_classes=0``.
    mean, std : sequence of float
        Per channel, for pixels scaled to 0..1.
    fixed : tuple of str
        Names of modules that never train; ``("",)`` is all of it.
    fixed_statistics : bool
        Whether batch norms use the statistics that they have, in training too.
    """

    def __init__(
        self,
        module: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        fixed: tuple[str, ...] = (),
        *,
        fixed_statistics: bool = False,
    ) -> None:
        super().__init__()
        self.module = module
        self.dim: int = int(module.num_features)  # type: ignore[arg-type]
        self.mean = tuple(float(v) for v in mean)
        self.std = tuple(float(v) for v in std)
        shape = (1, len(self.mean), 1, 1)
        self.register_buffer("_mean", torch.tensor(mean).view(shape), persistent=False)
        self.register_buffer("_std", torch.tensor(std).view(shape), persistent=False)
        self._mean: Tensor
        self._std: Tensor
        self._fixed = [module.get_submodule(name) for name in fixed]
        for part in self._fixed:
            part.requires_grad_(requires_grad=False)
        self._still = list(self._fixed)
        if fixed_statistics:
            self._still += [m for m in module.modules() if isinstance(m, _BatchNorm)]
        self.train()

    @property
    def frozen(self) -> bool:
        """Whether no part of it is trained."""
        return not any(p.requires_grad for p in self.module.parameters())

    def train(self, mode: bool = True) -> ImageEncoder:  # noqa: FBT001, FBT002 - torch's
        """Switch between training and evaluation; fixed parts stay in evaluation."""
        super().train(mode)
        for part in self._still:
            part.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return ``(n, dim)`` for images ``(n, c, h, w)`` in 0..1."""
        found: Tensor = self.module((images - self._mean) / self._std)
        return found

    def middle(self, windows: Tensor, margin_px: int) -> Tensor:
        """Return ``(n, dim)``: the tokens within a margin of windows, pooled.

        Parameters
        ----------
        windows : Tensor
            ``(n, c, size, size)`` in 0..1.
        margin_px : int
            Width of the surroundings of the tile, on every side.

        Raises
        ------
        InputError
            If the backbone has no feature map, or the margin is not whole tokens.
        """
        module = cast("Any", self.module)
        tokens: Tensor = module.forward_features((windows - self._mean) / self._std)
        size = windows.shape[-1]
        stride = size // tokens.shape[-1] if tokens.ndim == 4 else 0
        if not stride or stride * tokens.shape[-1] != size or margin_px % stride:
            msg = (
                "surroundings: view and margin must be whole tokens of a convolutional "
                f"backbone; this one turns {size} px into {tuple(tokens.shape[1:])}, "
                f"and margin_px is {margin_px}."
            )
            raise InputError(msg)
        around = margin_px // stride
        inside = tokens[..., around : -around or None, around : -around or None]
        found: Tensor = module.forward_head(inside, pre_logits=True)
        return found


class ExpressionEncoder(nn.Module):
    """An MLP on log-normalised counts (Farndale et al. 2025, TriDeNT).

    In training every batch loses a share of its genes and gains normal noise. Where
    the table becomes components, this happens to the standardised genes before.

    Parameters
    ----------
    genes : int
        Width of the table.
    dropout : float
        The share is drawn from 0 to this; the rest is scaled up.
    noise : float
        Standard deviation of the noise.
    components : Components or None
        What becomes of the table first; None leaves it as it is.
    """

    frozen = False

    def __init__(
        self,
        genes: int,
        *,
        dropout: float = 0.2,
        noise: float = 1.0,
        components: Components | None = None,
    ) -> None:
        super().__init__()
        self.dim = EXPRESSION_WIDTH
        self.components = components
        self._dropout, self._noise = dropout, noise
        width = genes if components is None else components.count
        self.layers = nn.Sequential(
            *_block(width, EXPRESSION_WIDTH), *_block(EXPRESSION_WIDTH, self.dim)
        )

    def forward(self, table: Tensor) -> Tensor:
        """Return ``(n, dim)`` for expression ``(n, genes)``."""
        if self.components is not None:
            table = self.components.standardised(table)
        if self.training:
            share = float(torch.rand(())) * self._dropout
            table = nn.functional.dropout(table, share)
            table = table + torch.randn_like(table) * self._noise
        if self.components is not None:
            table = self.components.turned(table)
        found: Tensor = self.layers(table)
        return found


class FeatureInput(nn.Module):
    """Placeholder for a frozen encoder whose features were computed beforehand.

    Parameters
    ----------
    dim : int
        Width of the features.
    components : Components or None
        What becomes of them; None leaves them as they are.
    """

    frozen = True

    def __init__(self, dim: int, components: Components | None = None) -> None:
        super().__init__()
        self.dim = dim if components is None else components.count
        self.components = components

    def forward(self, features: Tensor) -> Tensor:
        """Return the features, or their components."""
        if self.components is None:
            return features
        found: Tensor = self.components(features)
        return found


Encoder = ImageEncoder | ExpressionEncoder | FeatureInput | Clusters


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """The input of a partner's branch.

    Attributes
    ----------
    kind : {"image", "expression", "features"}
        Pixels, an expression table, or features of a frozen encoder.
    channels : int
        Channels, genes, or features.
    vectors : ndarray or None
        ``(n, channels)`` float32 of the training pairs, where there are vectors to fit
        something to.
    """

    kind: str
    channels: int
    vectors: npt.NDArray[np.float32] | None = None


class Outputs(NamedTuple):
    """The outputs of all branches for one batch.

    Attributes
    ----------
    embeddings : Tensor
        ``(n, dim)``, the student's embeddings of the first sparse view.
    projections : tuple of Tensor
        ``(n, width)`` each: sparse views first, then partners.
    logits : Tensor or None
        ``(n, classes)``, where there is a head.
    among : Tensor or None
        ``(k, dim)``: embeddings of the first ``k`` tiles among other tissue.
    """

    embeddings: Tensor
    projections: tuple[Tensor, ...]
    logits: Tensor | None
    among: Tensor | None = None


class DistillNet(nn.Module):
    """Student, partners' branches and projectors.

    Attributes
    ----------
    student : ImageEncoder
        The encoder that is kept.
    projector : nn.Module or None
        Projector of the sparse views; None where no joint embedding is trained.
    partners, partner_projectors : nn.ModuleList
        Encoder and projector of every dense partner.
    head : nn.Linear or None
        Classifier for the labels.
    log_scale : nn.Parameter or None
        ln(1 / τ), where τ is learned (Radford et al. 2021).
    """

    def __init__(
        self, config: DistillConfig, partners: Sequence[Inputs], home: Path
    ) -> None:
        super().__init__()
        if config.sparse.encoder.backbone == "mlp":
            msg = "sparse.encoder: the student sees images: name a timm backbone."
            raise InputError(msg)
        student = build_encoder(config.sparse.encoder, 3, home)
        self.student = student
        widths = config.objective.projector
        fixed = config.objective.fixed
        targets = _targets(config, partners[0]) if fixed else None
        if targets is not None:
            widths = (*widths[:-1], targets.dim)
        joint = config.arm != "supervised" or bool(config.dense)
        self.projector = build_projector(student.dim, widths) if joint else None
        encoders = [
            _partner_encoder(dense, inputs, home) if targets is None else targets
            for dense, inputs in zip(config.dense, partners, strict=True)
        ]
        self.partners = nn.ModuleList(encoders)
        self.partner_projectors = nn.ModuleList(
            nn.Identity() if fixed else build_projector(encoder.dim, widths)
            for encoder in encoders
        )
        self.head = (
            nn.Linear(student.dim, len(config.classes))
            if config.arm == "supervised"
            else None
        )
        learned = config.objective.kind == "infonce" and (
            config.objective.learned_temperature
        )
        scale = -torch.log(torch.tensor(config.objective.temperature))
        self.log_scale = nn.Parameter(scale) if learned else None

    def forward(
        self,
        sparse: Sequence[Tensor],
        partners: Sequence[Tensor],
        windows: Tensor | None = None,
    ) -> Outputs:
        """Run every branch.

        Parameters
        ----------
        sparse : sequence of Tensor
            Views ``(n, 3, h, w)`` in 0..1.
        partners : sequence of Tensor
            One view of every partner.
        windows : Tensor or None
            The first views among other tissue, ``(k, 3, h + 2·margin, …)``.
        """
        embeddings = [self.student(view) for view in sparse]
        projections: list[Tensor] = []
        if self.projector is not None:
            projections = [self.projector(found) for found in embeddings]
        for encoder, projector, view in zip(
            self.partners, self.partner_projectors, partners, strict=True
        ):
            # A frozen encoder keeps no graph; its projector is trained all the same.
            with torch.set_grad_enabled(torch.is_grad_enabled() and not encoder.frozen):
                found = encoder(view)
            projections.append(projector(found))
        logits = None
        if self.head is not None:
            kept = nn.functional.dropout(embeddings[0], HEAD_DROPOUT, self.training)
            logits = self.head(kept)
        among = None
        if windows is not None:
            margin_px = (windows.shape[-1] - sparse[0].shape[-1]) // 2
            among = self.student.middle(windows, margin_px)
        return Outputs(embeddings[0], tuple(projections), logits, among)


def build_encoder(config: EncoderConfig, channels: int, home: Path) -> ImageEncoder:
    """Build the encoder of one branch that sees images.

    Parameters
    ----------
    config : EncoderConfig
        Backbone, options, and the student it starts from.
    channels : int
        Channels of its images.
    home : Path
        Folder that ``start`` is relative to.

    Raises
    ------
    InputError
        If timm does not know the backbone or an option, or the start does not fit.
    """
    # Checked before create_model, which would download an "hf-hub:…".
    if not timm.is_model(config.backbone):
        msg = (
            f"backbone {config.backbone!r} is not a model of the installed timm "
            f"{timm.__version__}: see timm.list_models()."
        )
        raise InputError(msg)
    try:
        module = timm.create_model(
            config.backbone,
            pretrained=False,
            num_classes=0,
            in_chans=channels,
            **config.options,
        )
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        msg = f"backbone {config.backbone}: these options do not fit it ({error})."
        raise InputError(msg) from error
    mean, std = (MEAN,) * channels, (STD,) * channels
    if config.start:
        mean, std = _start_from(module, config, channels, home)
    fixed = ("",) if config.frozen else config.frozen_layers
    before = _before_stages(module, config)
    if before:
        fixed = (*fixed, *before)
        for parameter in module.parameters(recurse=False):  # a position embedding
            parameter.requires_grad_(requires_grad=False)
    try:
        encoder = ImageEncoder(
            module, mean, std, fixed, fixed_statistics=config.frozen_statistics
        )
    except AttributeError as error:
        msg = f"frozen_layers: {config.backbone} has no such part ({error})."
        raise InputError(msg) from error
    if config.trained_stages is not None and encoder.frozen:
        msg = (
            f"trained_stages: {config.backbone} has no layers after its last stage, so "
            "nothing is left to train: choose 1 or more."
        )
        raise InputError(msg)
    return encoder


def _before_stages(module: nn.Module, config: EncoderConfig) -> list[str]:
    """Return the names of the modules before the last stages, which are trained."""
    wanted = config.trained_stages
    if wanted is None:
        return []
    info = getattr(module, "feature_info", [])
    ends = [str(stage["module"]) for stage in info]
    if wanted > len(ends):
        msg = (
            f"trained_stages: {config.backbone} has {len(ends)} stages, not {wanted}: "
            "choose fewer, or leave it empty to train all."
        )
        raise InputError(msg)
    return [] if wanted == len(ends) else _up_to(module, ends[-1 - wanted])


def _up_to(module: nn.Module, last: str) -> list[str]:
    """Return the names of a module's parts, from the first to the named one."""
    found: list[str] = []
    for name, child in module.named_children():
        if name == last:
            return [*found, name]
        if last.startswith(f"{name}."):
            inner = _up_to(child, last.removeprefix(f"{name}."))
            return [*found, *(f"{name}.{part}" for part in inner)]
        found.append(name)
    return found


def build_projector(dim: int, widths: Sequence[int]) -> nn.Sequential:
    """Return an MLP with batch norm and ReLU after every layer but the last."""
    layers: list[nn.Module] = []
    for width in widths[:-1]:
        layers += _block(dim, width)
        dim = width
    layers.append(nn.Linear(dim, widths[-1], bias=False))
    return nn.Sequential(*layers)


def start_folder(start: str, home: Path) -> str | Path:
    """Return a student's bundled name as it is, or its folder beside the recipe."""
    from napari_histodistill.students.bundled import find_bundled

    return start if find_bundled(start) is not None else home / start


def _partner_encoder(dense: DenseConfig, inputs: Inputs, home: Path) -> Encoder:
    if inputs.kind == "features":
        return FeatureInput(inputs.channels, _components(dense, inputs))
    if (inputs.kind == "expression") != (dense.encoder.backbone == "mlp"):
        msg = (
            f"dense.encoder.backbone {dense.encoder.backbone!r} does not fit a partner "
            f"of kind {inputs.kind!r}: tables need 'mlp', images a timm backbone."
        )
        raise InputError(msg)
    if inputs.kind == "expression":
        return ExpressionEncoder(
            inputs.channels,
            dropout=dense.gene_dropout,
            noise=dense.gene_noise,
            components=_components(dense, inputs),
        )
    return build_encoder(dense.encoder, inputs.channels, home)


def _targets(config: DistillConfig, inputs: Inputs) -> FeatureInput | Clusters:
    """Fit what the student is matched to."""
    (dense,) = config.dense
    components = _components(dense, inputs)
    assert components is not None
    assert inputs.vectors is not None
    objective = config.objective
    if objective.kind == "regression":
        return FeatureInput(inputs.channels, components)
    return fit_clusters(
        inputs.vectors,
        components,
        objective.clusters,
        kind=objective.clustering,
        seed=torch_seed(config.seed, CLUSTERS) % 2**32,
    )


def _components(dense: DenseConfig, inputs: Inputs) -> Components | None:
    if dense.components is None:
        return None
    assert inputs.vectors is not None
    return fit_components(inputs.vectors, dense.components, whiten=dense.whiten)


def _start_from(
    module: nn.Module, config: EncoderConfig, channels: int, home: Path
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Load a student's weights; return the normalisation that belongs to them."""
    from napari_histodistill.students import load_student
    from napari_histodistill.students.backends.torch import TorchBackend

    student = load_student(
        start_folder(config.start, home), device="cpu", precision="float32"
    )
    assert isinstance(student.backend, TorchBackend)
    if channels != 3:
        msg = (
            f"start: {config.start!r} sees three channels, this partner has "
            f"{channels}: leave start empty."
        )
        raise InputError(msg)
    try:
        module.load_state_dict(student.backend.module.state_dict())
    except RuntimeError as error:
        msg = (
            f"start: the weights of {config.start!r} ({student.spec.backbone}) do not "
            f"fit the backbone {config.backbone} with these options."
        )
        raise InputError(msg) from error
    return student.spec.mean, student.spec.std


def _block(dim: int, width: int) -> list[nn.Module]:
    return [
        nn.Linear(dim, width, bias=False),
        nn.BatchNorm1d(width),
        nn.ReLU(inplace=True),
    ]
