"""The schema of recipes: validation, file, form and help texts in one place.

:class:`FrozenConfig` fits a head on an encoder as it is. :class:`DistillConfig` trains
an encoder, alone or with dense partners. ``reading.py`` reads both from TOML.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from napari_histodistill.students.spec import BackboneOptions, ClassSpec, Name

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
TrainedArm = Literal["unprivileged", "privileged", "triplet", "supervised"]
AugmentationPreset = Literal["paper", "histology", "strong-stain", "none"]
ImageKind = Literal["image", "channels", "mask"]
"""Kinds of partners that are images, and so are resampled and augmented."""
DenseKind = Literal[ImageKind, "expression"]


class Frozen(BaseModel):
    """Base of every table of a recipe: immutable, and no unknown fields.

    The docstring under a field is its help text. pydantic takes it from the source
    text, so it survives ``python -OO``; without source there is no help, and no error.
    """

    LATER: ClassVar[frozenset[str]] = frozenset()
    """Fields that the first published version did not know: at their defaults, they do
    not count in a checkpoint's digest of its recipe.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True
    )


class DataSource(Frozen):
    """The tiles that a student learns from, and whose they are."""

    LATER = frozenset({"positions", "labelled", "labels_from"})

    folder: Annotated[str, Field(min_length=1)]
    """A tile folder, or a folder of stored pairs (see ``distill/pairs/loading.py``),
    relative to the recipe's file. The command that runs the recipe may name another
    one.
    """
    description: Annotated[str, Field(min_length=1)]
    """Description of the data, for the model card."""
    licence: Annotated[str, Field(min_length=1)]
    """The data's licence, for the model card: a student carries it wherever it goes."""
    attribution: Annotated[str, Field(min_length=1)]
    """Credit line of the data, for the model card."""
    leave_out: tuple[str, ...] = ()
    """Folds of the manifest that neither the training nor the choice of a checkpoint
    may see.
    """
    validation_share: Share = 0.0
    """Share of the remaining cases held out to judge checkpoints; 0 for none."""
    validate_on: tuple[str, ...] = ()
    """Folds of the manifest, or sections of stored pairs, that are held out as a whole,
    in place of a share.
    """
    labels_from: str = ""
    """Partner of stored pairs, a mask read as classes, that labels the tiles: each by
    the class at its centre; tiles without one are left out. Empty where a manifest has
    the labels, or none are needed.
    """
    labelled: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the training tiles, drawn by class, that the arm ``supervised`` learns
    from; in an experiment, the tiles that probes of this share are fitted on. All other
    arms see all tiles, and no labels.
    """
    positions: Annotated[str, Field(max_length=200)] = ""
    r"""Where the tiles of a folder lie: a regular expression that finds row and column,
    its two groups, in an image's file name, such as ``_(\d+)x(\d+)``. Empty where the
    names do not say; stored pairs know it themselves.
    """

    @model_validator(mode="after")
    def _positions_have_two_groups(self) -> DataSource:
        try:
            groups = re.compile(self.positions).groups if self.positions else 2
        except (re.error, OverflowError, RecursionError) as error:
            msg = f"positions is no regular expression ({error})"
            raise ValueError(msg) from error
        if groups != 2:
            msg = f"positions has {groups} groups: it needs two, row and column"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _held_out_once(self) -> DataSource:
        if self.validate_on and self.validation_share:
            msg = "validate_on names what is held out: validation_share must be 0"
            raise ValueError(msg)
        twice = sorted(set(self.validate_on) & set(self.leave_out))
        if twice:
            msg = f"{twice[0]!r} is left out and cannot be validated on"
            raise ValueError(msg)
        return self


class EncoderConfig(Frozen):
    """The encoder of one branch."""

    LATER = frozenset({"trained_stages", "frozen_statistics"})

    backbone: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?$")]
    """Name of a timm model, or ``"mlp"`` for expression tables."""
    options: BackboneOptions = {}
    """Further arguments of ``timm.create_model``, such as ``drop_path_rate``."""
    start: str = ""
    """Student whose weights the encoder starts from; empty for random weights."""
    frozen: bool = False
    """Whether the encoder stays as it starts: a pretrained network as a fixed dense
    branch.
    """
    frozen_layers: tuple[str, ...] = ()
    """Names of modules that stay as they start, batch statistics included."""
    trained_stages: Annotated[int, Field(ge=0, le=100)] | None = None
    """Number of the last stages that are trained; the earlier ones stay as they start,
    batch statistics included. A stage is what works at one resolution; layers after the
    last one are trained in any case, with 0 as a small head on frozen features. Empty
    for all stages.
    """
    frozen_statistics: bool = False
    """Whether all batch norms keep the statistics that they start with: small batches
    of one organ do not replace those of a million images. Their weights are trained.
    """

    @model_validator(mode="after")
    def _what_stays_starts_somewhere(self) -> EncoderConfig:
        if self.start:
            if self.frozen and self.trained_stages is not None:
                msg = "frozen = true trains no stage: remove trained_stages"
                raise ValueError(msg)
            return self
        if self.frozen:
            msg = "a frozen encoder needs a start: random weights teach nothing"
            raise ValueError(msg)
        if self.trained_stages is not None or self.frozen_statistics:
            name = (
                "frozen_statistics" if self.trained_stages is None else "trained_stages"
            )
            msg = f"{name} needs a start: what stays would be random"
            raise ValueError(msg)
        return self


class SparseConfig(Frozen):
    """The student's branch: its encoder and the tiles it sees."""

    encoder: EncoderConfig
    """The student's encoder."""
    tile_px: Annotated[int, Field(ge=4, le=4096)]
    """Every tile is first reduced to this many pixels: the magnification at which the
    student works, in training and ever after.
    """
    input_px: Annotated[int, Field(ge=8, le=1024)]
    """The reduced tile is enlarged to this many pixels for the encoder."""
    view_px: Annotated[int, Field(ge=8, le=1024)] | None = None
    """Size of the augmented views in training; empty for the same as ``input_px``.
    Smaller views train faster, and things look larger in the crops of a training than
    they do later (Touvron et al. 2019, FixRes).
    """


class DenseConfig(Frozen):
    """One dense partner and its branch, which is thrown away after training."""

    LATER = frozenset({"nearby", "components", "whiten", "gene_dropout", "gene_noise"})

    column: str = ""
    """Column of the manifest that names the partner's file, or name of the layer that
    was sampled; empty for the sparse image itself at ``tile_px`` (a higher
    magnification).
    """
    kind: DenseKind = "image"
    """``channels``: an image whose channels are not colours, as in fluorescence.
    ``mask``: values are categories (0 is background); each gets a channel of its own,
    and tiles are never blended between them. ``expression``: one vector per tile
    (log-normalised counts).
    """
    tile_px: Annotated[int, Field(ge=4, le=4096)] = 224
    """The partner's tile is first reduced to this many pixels; without meaning for
    expression.
    """
    input_px: Annotated[int, Field(ge=8, le=1024)] = 224
    """The reduced tile is enlarged to this many pixels for the partner's encoder;
    without meaning for expression.
    """
    encoder: EncoderConfig
    """Encoder of this branch. With ``frozen = true`` it is a fixed teacher."""
    partner: Literal[
        "own", "shuffled", "shuffled_within_case", "shuffled_nearby", "blank"
    ] = "own"
    """Partner that a tile gets. Controls deal the partners once: ``shuffled`` to tiles
    of other cases, ``shuffled_within_case`` to other tiles of the same case or section
    (the only tile of one keeps its own), ``shuffled_nearby`` to other tiles near by, so
    that the place still fits. ``blank`` shows the partners' mean in place of every one.
    """
    nearby: Annotated[float, Field(gt=0, le=20)] = 2.0
    """Radius of the neighbourhood of ``shuffled_nearby``, in steps: one step is the
    median distance from a tile to the nearest other one of its section.
    """
    unlabelled: Literal["unknown", "background"] | None = None
    """What 0 in a mask is: ``background``, or ``unknown``, which then counts for no
    category; tiles without any label are left out. Empty for what stored pairs say, and
    background in a tile folder.
    """
    frozen_views: Annotated[int, Field(ge=0, le=64)] = 0
    """For a frozen encoder: features of this many augmented views of every partner are
    computed once and stored on disk, and each step draws from them; 0 computes them
    again at every step.
    """
    components: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Number of principal components that stand for the partner's vectors: expression,
    or stored features of a frozen encoder (``frozen_views``). They are standardised
    first; all is fitted on the training pairs only. Empty for the vectors themselves.
    """
    whiten: bool = False
    """Whether every component has variance 1."""
    gene_dropout: Share = 0.2
    """For expression: in training every view loses a share of its genes, drawn from 0
    to this (TriDeNT: 0.2); with ``components``, lost genes are at their mean.
    """
    gene_noise: Weight = 1.0
    """For expression: standard deviation of the noise that every view gains (TriDeNT:
    1 on log-normalised counts); with ``components``, in standard deviations of a gene.
    """

    @model_validator(mode="after")
    def _fits_together(self) -> DenseConfig:
        if self.frozen_views and not self.encoder.frozen:
            msg = "frozen_views needs encoder.frozen = true"
            raise ValueError(msg)
        if self.components and not (self.kind == "expression" or self.frozen_views):
            msg = (
                "components needs vectors: kind = 'expression', or a frozen encoder "
                "with frozen_views"
            )
            raise ValueError(msg)
        if self.whiten and not self.components:
            msg = "whiten needs components"
            raise ValueError(msg)
        return self


class ObjectiveConfig(Frozen):
    """The loss between a tile and its partners.

    ``objectives.py`` holds the formulas of joint embeddings, ``targets.py`` those of
    fixed targets.
    """

    LATER = frozenset({"clusters", "clustering", "distance", "contrast", "queue"})

    kind: Literal["vicreg", "barlow_twins", "infonce", "clusters", "regression"] = (
        "vicreg"
    )
    """The loss. Joint embeddings: VICReg (Bardes et al. 2022), Barlow Twins (Zbontar et
    al. 2021) or InfoNCE (van den Oord et al. 2018). Fixed targets, for the arm
    ``privileged`` with one partner that has ``components``: ``clusters`` matches the
    student to the clusters of the partner's vectors (after Hizmi et al. 2026),
    ``regression`` to the vectors themselves.
    """
    invariance: Weight = 25.0
    """VICReg's coefficient of the distance between the two embeddings of a pair."""
    variance: Weight = 25.0
    """VICReg's coefficient of the hinge that keeps every dimension spread out."""
    covariance: Weight = 1.0
    """VICReg's coefficient of the covariance between dimensions."""
    published_code: bool = False
    """Sum VICReg's terms as in the code published with the paper that this package
    follows.
    """
    off_diagonal: Positive = 5e-3
    """λ of Barlow Twins: the weight of the redundancy between dimensions."""
    temperature: Positive = 0.5
    """τ of InfoNCE, and of the contrast of ``regression``; its starting value if
    ``learned_temperature``. For ``clusters``, how soft both assignments are: 1 for the
    clusters' posteriors.
    """
    learned_temperature: bool = False
    """Whether τ of InfoNCE is learned too."""
    projector: Annotated[
        tuple[Annotated[int, Field(ge=2, le=65536)], ...], Field(min_length=1)
    ] = (1024, 1024, 1024)
    """Widths of the projector's layers. With fixed targets the last layer is as wide as
    the target, whatever stands here: a single number makes a linear head.
    """
    clusters: Annotated[int, Field(ge=2, le=1000)] = 12
    """Number of clusters of ``clusters``, fitted on the training pairs only."""
    clustering: Literal["kmeans", "mixture"] = "kmeans"
    """Kind of the clusters: k-means, or a Gaussian mixture without covariances."""
    distance: Literal["cosine", "mean-squares"] = "cosine"
    """Distance of ``regression`` to the target."""
    contrast: Weight = 1.0
    """Weight of the contrast in ``regression``: InfoNCE between targets; 0 for none."""
    queue: Annotated[int, Field(ge=0, le=10**6)] = 0
    """Targets of earlier steps that the contrast of ``regression`` compares with too: a
    small batch then has many negatives.
    """
    weight: Positive = 1.0
    """Weight of the joint-embedding loss beside that of the labels (arm ``supervised``
    with partners).
    """

    @property
    def fixed(self) -> bool:
        """Whether the student is matched to targets that nothing trains."""
        return self.kind in {"clusters", "regression"}


class SurroundingsConfig(Frozen):
    """The term by which views that are shown again among other tissue embed alike.

    For students whose tokens are used: it makes the mean of a tile's tokens, which see
    past its border, agree with the tile cut out. ``surroundings.py`` has the formula.
    """

    LATER = frozenset({"turned"})

    margin_px: Annotated[int, Field(ge=1, le=512)] = 64
    """Width of the other tissue on every side, px of the view; a multiple of the
    token's stride.
    """
    share: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of the batch that is shown twice."""
    weight: Positive = 1.0
    """Weight of this term in the loss."""
    turned: bool = False
    """Whether they are shown turned and mirrored besides, so that one pass gives about
    what the mean over all eight ways to lay a tile would.
    """


class LabelsConfig(Frozen):
    """What labels say in the cross-entropy (arm ``supervised``); see ``labels.py``."""

    prior: Annotated[float, Field(ge=0, le=1)] = 0.0
    """How far the training corrects for classes that come more often than others: 0 not
    at all, 1 as if all came equally often (logit adjustment, Menon et al. 2021).
    """
    grades: tuple[tuple[str, ...], ...] = ()
    """Orders of classes that people tell apart by degree, each from its lowest grade to
    its highest.
    """
    to_neighbours: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Share of a label that goes to the grades next to it."""

    @model_validator(mode="after")
    def _orders(self) -> LabelsConfig:
        for order in self.grades:
            if len(order) < 2 or len(set(order)) < len(order):
                msg = f"grades: {list(order)} must name two or more different classes"
                raise ValueError(msg)
        return self


class ReportConfig(Frozen):
    """The report on the training, a page that is made to be sent."""

    names: bool = False
    """Whether it names cases, sections, partners and full paths; otherwise cases are
    numbered and places left out. The run's own files name them in any case.
    """


class ScheduleConfig(Frozen):
    """The course of a training: how long, how fast, and what is kept."""

    steps: Annotated[int, Field(ge=1, le=10**8)]
    """Number of optimiser steps."""
    batch: Annotated[int, Field(ge=2, le=10**6)] = 128
    """Pairs per step, over all processes."""
    optimiser: Literal["adamw", "adam"] = "adamw"
    """The rule that turns gradients into steps."""
    lr: Positive = 1e-3
    """Peak learning rate: linear warm-up over ``warmup_share`` of the steps, then a
    cosine down to 0.
    """
    head_lr_scale: Positive = 1.0
    """Factor on the learning rate of projectors and heads."""
    dense_lr_scale: Positive = 1.0
    """Factor on the learning rate of the dense encoders."""
    weight_decay: Weight = 0.05
    """Weight decay of matrices and kernels; norms and biases do not decay."""
    warmup_share: Share = 0.1
    """Share of the steps in which the learning rate rises to its peak."""
    clip_norm: Weight = 1.0
    """Largest norm of a gradient; 0 for no limit."""
    clip_each: bool = False
    """Clip the gradient of every tensor alone, as the published code does."""
    average: Share = 0.0
    """Decay of an exponential moving average of the student's weights; the averaged
    weights become the student. 0 for none.
    """
    label_smoothing: Share = 0.0
    """Label smoothing of the cross-entropy (arm ``supervised``)."""
    balance: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Classes are drawn with their frequency to the power of 1 − ``balance``: 0 as
    often as they occur, 1 all equally often (arm ``supervised``).
    """
    mixup: Weight = 0.0
    """Alpha of mixup (Zhang et al. 2018): images and labels of two tiles are blended; 0
    for none (arm ``supervised`` without partners).
    """
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the arithmetic; weights stay float32. auto takes what is fast on the
    device.
    """
    compile: bool = False
    """Whether the encoders are compiled by ``torch.compile``."""
    report_every: Annotated[int, Field(ge=1)] = 10
    """Steps from one point of the curves to the next."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 100
    """Steps from one checkpoint to the next; each is judged on the validation pairs."""
    keep: Literal["best", "last"] = "best"
    """Checkpoint that becomes the student when the run ends; a run that is stopped
    keeps the best.
    """


class _Recipe(Frozen):
    """Settings that all recipes share: the student they make and its data."""

    name: Name
    """Name of the student that is made."""
    title: Annotated[str, Field(min_length=1)]
    """Title of the student, for people."""
    description: str = ""
    """Description of the student and its purpose, for the model card."""
    licence: Annotated[str, Field(min_length=1)]
    """Licence of the student."""
    mpp: Annotated[float, Field(gt=0.01, le=100, allow_inf_nan=False)]
    """µm per pixel of the tiles as they are on disk."""
    mpp_source: Literal["stated", "estimated"] = "stated"
    """Whether the data state the pixel size, or it was estimated from the size of cells
    and crypts.
    """
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of everything random; on a frozen encoder, of the folds in which strength
    and temperature are chosen. Equal recipes and seeds give equal students.
    """
    data: DataSource
    """The tiles it learns from."""


def _check_names(classes: tuple[ClassSpec, ...]) -> None:
    if len({c.name for c in classes}) != len(classes):
        msg = "two classes have the same name"
        raise ValueError(msg)


class FrozenConfig(_Recipe):
    """A head on an encoder that stays as it is."""

    arm: Literal["frozen"] = "frozen"
    """The encoder stays as it is, and a head is fitted on labelled tiles."""
    student: str = "imagenet-lite0"
    """The student to start from: a bundled name, or a folder relative to the recipe."""
    classes: Annotated[tuple[ClassSpec, ...], Field(min_length=2, max_length=254)]
    """Exactly the labels of the tiles, in the order of legends, with colours."""

    @model_validator(mode="after")
    def _classes_differ(self) -> FrozenConfig:
        _check_names(self.classes)
        return self


class DistillConfig(_Recipe):
    """An encoder that is trained; the arms are those of the paper and its successor."""

    arm: TrainedArm
    """``unprivileged``: two views of the sparse image. ``privileged``: one sparse view
    and its dense partners (Farndale et al. 2023). ``triplet``: two sparse views and the
    partners (Farndale et al. 2025, TriDeNT). ``supervised``: labels; with partners,
    their joint-embedding loss is added.
    """
    source_px: Annotated[int, Field(ge=8, le=4096)] = 224
    """Edge of the tiles on disk, px; ``mpp`` is their pixel size."""
    classes: Annotated[tuple[ClassSpec, ...], Field(max_length=254)] = ()
    """Exactly the labels of the tiles; empty for a student without a head."""
    sparse: SparseConfig
    """The student's branch."""
    dense: Annotated[tuple[DenseConfig, ...], Field(max_length=8)] = ()
    """A partner of the student; none for ``unprivileged``."""
    objective: ObjectiveConfig = ObjectiveConfig()
    """The loss that pulls a tile and its partners together."""
    augmentation: AugmentationPreset = "histology"
    """Preset of ``augment.py``, drawn independently for every branch."""
    schedule: ScheduleConfig
    """Length and pace of the training, and which checkpoint is kept."""
    labels: LabelsConfig | None = None
    """Corrections for rare classes and for grades; empty for neither."""
    surroundings: SurroundingsConfig | None = None
    """Whether tiles must embed alike among other tissue; empty leaves it open."""
    report: ReportConfig | None = None
    """What the report may name; empty for no names."""
    half_precision: bool = False
    """Store the student's matrices as float16: half the size on disk."""
    temperature: Positive = 1.0
    """Temperature of the trained head (arm ``supervised``), as measured out of fold
    elsewhere. One that is fitted on validation pairs takes precedence.
    """

    @model_validator(mode="after")
    def _targets_fit(self) -> DistillConfig:
        objective = self.objective
        if objective.queue and objective.kind != "regression":
            msg = (
                "objective.queue needs kind = 'regression': targets that are trained "
                "grow old"
            )
            raise ValueError(msg)
        if not objective.fixed:
            return self
        kind = f"objective.kind {objective.kind!r}"
        if self.arm != "privileged" or len(self.dense) != 1:
            msg = f"{kind} is for the arm 'privileged' with one [[dense]]"
            raise ValueError(msg)
        if not self.dense[0].components:
            msg = f"{kind} needs dense.components: what the student is matched to"
            raise ValueError(msg)
        if objective.learned_temperature:
            msg = f"{kind} has no learned_temperature: its targets are fixed"
            raise ValueError(msg)
        if self.sparse.encoder.frozen:
            msg = (
                f"{kind}: a frozen student learns nothing; to train a small head on "
                "frozen features use sparse.encoder.trained_stages = 0"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> DistillConfig:
        _check_names(self.classes)
        if self.arm in {"privileged", "triplet"} and not self.dense:
            msg = f"arm {self.arm!r} needs a dense partner: add a [[dense]] table"
            raise ValueError(msg)
        if self.arm == "unprivileged" and self.dense:
            msg = "arm 'unprivileged' has no dense partner: remove [[dense]]"
            raise ValueError(msg)
        if self.arm == "supervised" and len(self.classes) < 2:
            msg = "arm 'supervised' needs at least two classes"
            raise ValueError(msg)
        if self.data.labelled < 1 and (self.arm != "supervised" or self.dense):
            msg = (
                "data.labelled leaves out labels: only for 'supervised' without "
                "[[dense]]"
            )
            raise ValueError(msg)
        if self.schedule.mixup and (self.arm != "supervised" or self.dense):
            msg = (
                "schedule.mixup blends labels: only for 'supervised' without [[dense]]"
            )
            raise ValueError(msg)
        if self.surroundings and self.sparse.input_px != self.sparse.tile_px:
            msg = (
                "[surroundings] is for students with tokens: sparse.input_px must be "
                "sparse.tile_px"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _labels_fit(self) -> DistillConfig:
        if self.labels and self.arm != "supervised":
            msg = "[labels] is for the arm 'supervised'"
            raise ValueError(msg)
        known = {spec.name for spec in self.classes}
        graded = self.labels.grades if self.labels else ()
        for name in dict.fromkeys(name for order in graded for name in order):
            if name not in known:
                msg = f"labels.grades: {name!r} is none of the recipe's classes"
                raise ValueError(msg)
        return self

    @property
    def sparse_views(self) -> int:
        """Number of augmented views of the sparse image that a step takes."""
        return 2 if self.arm in {"unprivileged", "triplet"} else 1

    @property
    def student_mpp(self) -> float:
        """µm per pixel of the reduced tile that the student works at."""
        return self.mpp * self.source_px / self.sparse.tile_px
