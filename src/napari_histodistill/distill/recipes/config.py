"""What a student is made of: one frozen schema is validation, file, form and help text.

:class:`FrozenConfig` fits a head on an encoder as it is. :class:`DistillConfig` trains
an encoder, alone or with dense partners. ``recipe.py`` reads both from TOML.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from napari_histodistill.students.spec import BackboneOptions, ClassSpec, Name

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
TrainedArm = Literal["unprivileged", "privileged", "triplet", "supervised"]


class Frozen(BaseModel):
    """Base of every table of a recipe: immutable, and no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSource(Frozen):
    """Where the tiles are and whose they are.

    Attributes
    ----------
    folder : str
        A tile folder (or a pairs folder, see ``distill/pairs/loading.py``), relative to
        the recipe's file; the command that runs the recipe may name another place.
    description, licence, attribution : str
        For the model card: a student carries them wherever it goes.
    leave_out : tuple of str
        Folds of the manifest that no training and no choice may see.
    validation_share : float
        Share of the remaining cases kept aside to judge checkpoints; 0 for none.
    validate_on : tuple of str
        What is kept aside whole in place of a share: folds of the manifest, or sections
        of stored pairs.
    """

    folder: Annotated[str, Field(min_length=1)]
    description: Annotated[str, Field(min_length=1)]
    licence: Annotated[str, Field(min_length=1)]
    attribution: Annotated[str, Field(min_length=1)]
    leave_out: tuple[str, ...] = ()
    validation_share: Share = 0.0
    validate_on: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _kept_aside_once(self) -> DataSource:
        if self.validate_on and self.validation_share:
            msg = "validate_on says what is kept aside: validation_share must be 0"
            raise ValueError(msg)
        twice = sorted(set(self.validate_on) & set(self.leave_out))
        if twice:
            msg = f"{twice[0]!r} is left out and cannot be validated on"
            raise ValueError(msg)
        return self


class EncoderConfig(Frozen):
    """One branch's encoder.

    Attributes
    ----------
    backbone : str
        Name of a timm model, or ``"mlp"`` for expression tables.
    options : dict
        Further arguments of ``timm.create_model``, such as ``drop_path_rate``.
    start : str
        Student whose weights it starts from; empty for random weights.
    frozen : bool
        Stays as it starts: a pretrained network as a fixed dense branch.
    frozen_layers : tuple of str
        Names of modules that stay as they start, batch statistics included.
    """

    backbone: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?$")]
    options: BackboneOptions = {}
    start: str = ""
    frozen: bool = False
    frozen_layers: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _frozen_starts_somewhere(self) -> EncoderConfig:
        if self.frozen and not self.start:
            msg = "a frozen encoder needs a start: random weights teach nothing"
            raise ValueError(msg)
        return self


class SparseConfig(Frozen):
    """What the student sees.

    Attributes
    ----------
    encoder : EncoderConfig
        The student.
    tile_px : int
        A tile is reduced to this many pixels first: the magnification the student
        works at, in training and ever after.
    input_px : int
        The reduced tile is enlarged to this for the encoder.
    view_px : int or None
        Size of the augmented views in training; None for ``input_px``. Smaller views
        train quicker, and crops look larger in training than later (Touvron et al.
        2019, FixRes).
    """

    encoder: EncoderConfig
    tile_px: Annotated[int, Field(ge=4, le=4096)]
    input_px: Annotated[int, Field(ge=8, le=1024)]
    view_px: Annotated[int, Field(ge=8, le=1024)] | None = None


class DenseConfig(Frozen):
    """One dense partner and its branch, thrown away after training.

    Attributes
    ----------
    column : str
        Column of the manifest that names the partner's file, or name of the layer that
        was sampled; empty for the sparse picture itself at ``tile_px`` (a higher
        magnification).
    kind : {"image", "channels", "mask", "expression"}
        ``channels``: a picture whose channels are no colours, as in fluorescence.
        ``mask``: values are categories (0 is background); each has a channel of its
        own, and tiles are never blended between them.
        ``expression``: a vector per tile (log-normalised counts).
    tile_px, input_px : int
        As for the sparse branch; without meaning for expression.
    encoder : EncoderConfig
        Of this branch. With ``frozen = true`` it is a fixed teacher.
    partner : {"own", "shuffled", "blank"}
        Controls: ``shuffled`` deals partners to other cases' tiles once, ``blank``
        shows the partners' mean in place of every one.
    frozen_views : int
        For a frozen encoder: features of this many augmented views of every partner are
        computed once and kept on disk, and a step draws from them; 0 computes them anew
        at every step.
    """

    column: str = ""
    kind: Literal["image", "channels", "mask", "expression"] = "image"
    tile_px: Annotated[int, Field(ge=4, le=4096)] = 224
    input_px: Annotated[int, Field(ge=8, le=1024)] = 224
    encoder: EncoderConfig
    partner: Literal["own", "shuffled", "blank"] = "own"
    frozen_views: Annotated[int, Field(ge=0, le=64)] = 0

    @model_validator(mode="after")
    def _views_belong_to_frozen(self) -> DenseConfig:
        if self.frozen_views and not self.encoder.frozen:
            msg = "frozen_views needs encoder.frozen = true"
            raise ValueError(msg)
        return self


class ObjectiveConfig(Frozen):
    """The joint-embedding loss; ``objectives.py`` holds the formulas.

    Attributes
    ----------
    kind : {"vicreg", "barlow_twins", "infonce"}
        Bardes et al. 2022; Zbontar et al. 2021; van den Oord et al. 2018.
    invariance, variance, covariance : float
        VICReg's coefficients.
    published_code : bool
        VICReg summed as in the code published with the paper this package follows.
    off_diagonal : float
        λ of Barlow Twins.
    temperature : float
        τ of InfoNCE; where learning starts if ``learned_temperature``.
    learned_temperature : bool
        Whether τ is learned too.
    projector : tuple of int
        Widths of the projector's layers.
    weight : float
        Of the joint-embedding loss beside the labels (arm ``supervised`` with
        partners).
    """

    kind: Literal["vicreg", "barlow_twins", "infonce"] = "vicreg"
    invariance: Weight = 25.0
    variance: Weight = 25.0
    covariance: Weight = 1.0
    published_code: bool = False
    off_diagonal: Positive = 5e-3
    temperature: Positive = 0.5
    learned_temperature: bool = False
    projector: Annotated[
        tuple[Annotated[int, Field(ge=2, le=65536)], ...], Field(min_length=1)
    ] = (1024, 1024, 1024)
    weight: Positive = 1.0


class SurroundingsConfig(Frozen):
    """Some views are shown again among other tissue, and must embed alike.

    For students whose tokens are used: it makes the mean of a tile's tokens, which see
    past its border, agree with the tile cut out. ``surroundings.py`` has the formula.

    Attributes
    ----------
    margin_px : int
        Other tissue on every side, px of the view; a multiple of the token's stride.
    share : float
        Of the batch that is shown twice.
    weight : float
        Of the term in the loss.
    """

    margin_px: Annotated[int, Field(ge=1, le=512)] = 64
    share: Annotated[float, Field(gt=0, le=1)] = 0.25
    weight: Positive = 1.0


class ScheduleConfig(Frozen):
    """How it is trained.

    Attributes
    ----------
    steps : int
        Optimiser steps.
    batch : int
        Pairs per step, over all processes.
    optimiser : {"adamw", "adam"}
        How gradients become steps.
    weight_decay : float
        Of matrices and kernels; norms and biases do not decay.
    lr : float
        Peak learning rate: linear warm-up over ``warmup_share`` of the steps, then a
        cosine to 0.
    warmup_share : float
        Share of the steps in which the learning rate rises to its peak.
    head_lr_scale : float
        Factor for projectors and heads.
    dense_lr_scale : float
        Factor for the dense encoders.
    clip_norm : float
        Largest norm of a gradient; 0 for none.
    clip_each : bool
        Clip every tensor's gradient alone, as the published code does.
    average : float
        Decay of an exponential moving average of the student's weights, which then is
        what is kept; 0 for none.
    label_smoothing : float
        Of the cross-entropy (arm ``supervised``).
    balance : float
        Classes are drawn with frequency to the power of 1 − ``balance``: 0 as they
        come, 1 all alike (arm ``supervised``).
    mixup : float
        Alpha of mixup (Zhang et al. 2018): pictures and labels of two tiles are
        blended; 0 for none (arm ``supervised`` without partners).
    precision : {"auto", "float32", "bfloat16", "float16"}
        Of the arithmetic; weights stay float32. auto takes what is fast on the device.
    compile : bool
        ``torch.compile`` the encoders.
    report_every : int
        Steps from one point of the curves to the next.
    checkpoint_every : int
        Steps from one checkpoint to the next; each is judged on what is kept aside.
    keep : {"best", "last"}
        Which checkpoint becomes the student when the run ends; a run that is stopped
        keeps the best.
    """

    steps: Annotated[int, Field(ge=1, le=10**8)]
    batch: Annotated[int, Field(ge=2, le=10**6)] = 128
    optimiser: Literal["adamw", "adam"] = "adamw"
    lr: Positive = 1e-3
    head_lr_scale: Positive = 1.0
    dense_lr_scale: Positive = 1.0
    weight_decay: Weight = 0.05
    warmup_share: Share = 0.1
    clip_norm: Weight = 1.0
    clip_each: bool = False
    average: Share = 0.0
    label_smoothing: Share = 0.0
    balance: Annotated[float, Field(ge=0, le=1)] = 0.0
    mixup: Weight = 0.0
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    compile: bool = False
    report_every: Annotated[int, Field(ge=1)] = 10
    checkpoint_every: Annotated[int, Field(ge=1)] = 100
    keep: Literal["best", "last"] = "best"


class _Recipe(Frozen):
    """What all recipes say of the student they make.

    Attributes
    ----------
    name, title, description, licence : str
        Of the student that is made.
    mpp : float
        µm per pixel of the tiles.
    mpp_source : {"stated", "estimated"}
        Whether the data say so, or somebody measured cells and crypts.
    seed : int
        Of everything random: equal recipes and seeds give equal students.
    data : DataSource
        What it learns from.
    """

    name: Name
    title: Annotated[str, Field(min_length=1)]
    description: str = ""
    licence: Annotated[str, Field(min_length=1)]
    mpp: Annotated[float, Field(gt=0.01, le=100, allow_inf_nan=False)]
    mpp_source: Literal["stated", "estimated"] = "stated"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    data: DataSource


def _check_names(classes: tuple[ClassSpec, ...]) -> None:
    if len({c.name for c in classes}) != len(classes):
        msg = "two classes have the same name"
        raise ValueError(msg)


class FrozenConfig(_Recipe):
    """A head on an encoder that stays as it is.

    Attributes
    ----------
    arm : {"frozen"}
        The encoder stays as it is, a head is fitted on labelled tiles.
    student : str
        The student to start from: a bundled name, or a folder relative to the recipe.
    name, title, description, licence : str
        Of the student that is made.
    mpp : float
        µm per pixel of the tiles.
    mpp_source : {"stated", "estimated"}
        Whether the data say so, or somebody measured cells and crypts.
    classes : tuple of ClassSpec
        Exactly the labels of the tiles, in the order of legends, with colours.
    seed : int
        Of the folds in which strength and temperature are chosen.
    data : DataSource
        What it learns from.
    """

    arm: Literal["frozen"] = "frozen"
    student: str = "imagenet-lite0"
    classes: Annotated[tuple[ClassSpec, ...], Field(min_length=2, max_length=254)]

    @model_validator(mode="after")
    def _classes_differ(self) -> FrozenConfig:
        _check_names(self.classes)
        return self


class DistillConfig(_Recipe):
    """An encoder that is trained; the arms are those of the paper and its successor.

    Attributes
    ----------
    arm : {"unprivileged", "privileged", "triplet", "supervised"}
        ``unprivileged``: two views of the sparse image. ``privileged``: a sparse view
        and its dense partners (Farndale et al. 2023). ``triplet``: two sparse views and
        the partners (Farndale et al. 2025, TriDeNT). ``supervised``: labels; with
        partners, their joint-embedding loss is added.
    mpp : float
        µm per pixel of the tiles as they are on disk, ``source_px`` wide.
    source_px : int
        Edge of the tiles on disk, px.
    classes : tuple of ClassSpec
        Exactly the labels of the tiles; empty for a student without a head.
    sparse : SparseConfig
        The student's branch.
    dense : tuple of DenseConfig
        The partners; none for ``unprivileged``.
    objective, schedule : ObjectiveConfig, ScheduleConfig
        Loss and training.
    surroundings : SurroundingsConfig or None
        Whether tiles must embed alike among other tissue; None leaves it open.
    augmentation : {"paper", "histology", "none"}
        Preset of ``augment.py``, drawn independently for every branch.
    half_precision : bool
        Store the student's matrices as float16: half the size on disk.
    temperature : float
        Of the trained head (arm ``supervised``), as measured out of fold elsewhere; one
        that is fitted on validation pairs goes before it.
    """

    arm: TrainedArm
    source_px: Annotated[int, Field(ge=8, le=4096)] = 224
    classes: Annotated[tuple[ClassSpec, ...], Field(max_length=254)] = ()
    sparse: SparseConfig
    dense: Annotated[tuple[DenseConfig, ...], Field(max_length=8)] = ()
    objective: ObjectiveConfig = ObjectiveConfig()
    augmentation: Literal["paper", "histology", "none"] = "histology"
    schedule: ScheduleConfig
    surroundings: SurroundingsConfig | None = None
    half_precision: bool = False
    temperature: Positive = 1.0

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

    @property
    def sparse_views(self) -> int:
        """How many augmented views of the sparse image a step takes."""
        return 2 if self.arm in {"unprivileged", "triplet"} else 1

    @property
    def student_mpp(self) -> float:
        """µm per pixel of the reduced tile that the student works at."""
        return self.mpp * self.source_px / self.sparse.tile_px
