"""From a trained net to a student's bundle."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_histodistill.distill.runs.folder import STUDENT
from napari_histodistill.distill.scoring.evaluate import case_digest, salt_for
from napari_histodistill.distill.scoring.scores import accuracies, calibration_of
from napari_histodistill.students.backends.stages import (
    reference_in_parts,
    spread_rows,
)
from napari_histodistill.students.bundle import load_student, save_student
from napari_histodistill.students.head import Head
from napari_histodistill.students.probe import fit_probe, fit_temperature
from napari_histodistill.students.spec import (
    Metric,
    StudentSpec,
    Training,
    WeightsSpec,
)
from napari_histodistill.students.staining import reference_of

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.distill.pairs.loading import PairSet, PairSplit
    from napari_histodistill.distill.recipes.config import DenseConfig, DistillConfig
    from napari_histodistill.distill.training.networks import DistillNet, ImageEncoder
    from napari_histodistill.students.references.fitting import TrustReference
    from napari_histodistill.students.spec import CalibrationSpec
    from napari_histodistill.students.student import Student

    Floats = npt.NDArray[np.float32]

_BATCH = 64
_NEVER = -1e4
"""Bias of a class that no training tile shows: its probability is zero."""


def write_student(
    folder: Path,
    config: DistillConfig,
    split: PairSplit,
    net: DistillNet,
    *,
    bare: bool = False,
) -> Generator[str, None, Path]:
    """Write ``folder/student``: encoder, head, reference for trust and card.

    The head of the arm ``supervised`` is the trained one, its temperature fitted on the
    validation pairs where there are any; the other arms get a probe, if the recipe
    names classes.

    Parameters
    ----------
    folder : Path
        Folder of the run.
    config : DistillConfig
        The recipe.
    split : PairSplit
        Pairs it was trained on.
    net : DistillNet
        The trained net.
    bare : bool
        Whether to leave out what is fitted to embeddings and tiles: probe, figures and
        reference. A trained head stays.

    Yields
    ------
    str
        What takes some seconds now, in words.

    Returns
    -------
    Path
        The bundle.
    """
    target = folder / STUDENT
    yield "writing the encoder"
    # Saved without a head first: the head is fitted on the embeddings of the finished
    # student, in the precision it is stored in.
    spec, state = write_bare_student(target, config, split, net)
    if bare:
        head = _trained_head(config, split, net)
        named = spec.model_copy(update={"classes": config.classes if head else ()})
        return save_student(target, named, head=head, encoder_state=state)
    student = load_student(target, device="cpu", precision="float32")
    yield f"looking at its {len(split.train):,} training pairs"
    train = _embed(student, split.train)
    held = None if split.validation is None else _embed(student, split.validation)
    head = _head(config, split, net, train, held)
    final = spec.model_copy(
        update={
            "classes": config.classes if head else (),
            "metrics": _metrics(split, head, held),
            "calibration": _calibration(split, head, held),
        }
    )
    trust = yield from _reference(split, config)
    return save_student(target, final, head=head, encoder_state=state, trust=trust)


def _reference(
    split: PairSplit, config: DistillConfig
) -> Generator[str, None, TrustReference | None]:
    """Fit what slides are compared with, to all slides or patients that were seen."""
    parts = [split.train, *([split.validation] if split.validation else [])]
    patients = np.concatenate([part.patients for part in parts])
    rows = spread_rows(patients, config.seed)
    first = len(split.train)
    tiles = [parts[0].sparse[rows[rows < first]]]
    if len(parts) > 1:
        tiles.append(parts[1].sparse[rows[rows >= first] - first])
    parts_of = reference_in_parts(np.concatenate(tiles), patients[rows])
    while True:
        try:
            done, total = next(parts_of)
        except StopIteration as end:
            found: TrustReference | None = end.value
            return found
        yield f"fitting what slides are compared with: {done:,} of {total:,} tiles"


def write_bare_student(
    target: Path, config: DistillConfig, split: PairSplit, net: DistillNet
) -> tuple[StudentSpec, dict[str, torch.Tensor]]:
    """Write the encoder alone as a bundle, whole or not at all.

    Parameters
    ----------
    target : Path
        Folder of the bundle; an existing bundle is replaced.
    config, split, net : DistillConfig, PairSplit, DistillNet
        As for :func:`write_student`; the net may go on training.

    Returns
    -------
    tuple
        The bundle's spec, and the encoder's weights in it.
    """
    spec = _spec(config, split, net.student)
    state = _state(net.student, half=config.half_precision)
    save_student(target, spec, encoder_state=state)
    return spec, state


def _spec(
    config: DistillConfig, split: PairSplit, encoder: ImageEncoder
) -> StudentSpec:
    sparse = config.sparse
    enlarged = sparse.input_px != sparse.tile_px
    salt = salt_for(split.train.sparse)
    cases = sorted({case_digest(str(c), salt) for c in split.train.cases})
    training = Training(
        data=config.data.description,
        licence=config.data.licence,
        attribution=config.data.attribution,
        arm=config.arm,
        tiles=len(split.train),
        cases=len(cases),
        case_digests=tuple(cases),
        case_salt=salt,
        partners=tuple(_in_words(dense) for dense in config.dense),
    )
    return StudentSpec(
        name=config.name,
        title=config.title,
        description=config.description,
        backbone=sparse.encoder.backbone,
        backbone_options=sparse.encoder.options or None,
        tile_px=sparse.tile_px,
        input_px=sparse.input_px if enlarged else None,
        mpp=config.student_mpp,
        mpp_source=config.mpp_source,
        mean=_rgb(encoder.mean),
        std=_rgb(encoder.std),
        token_stride_px=None if enlarged else _token_stride(encoder, sparse.tile_px),
        embedding_dim=encoder.dim,
        weights=WeightsSpec(source="bundle"),
        licence=config.licence,
        training=training,
        stain=reference_of(split.train.sparse, split.train.cases),
    )


def _in_words(dense: DenseConfig) -> str:
    source = f"column {dense.column!r}" if dense.column else "a higher magnification"
    words = f"{dense.kind}: {source}"
    if dense.kind != "expression":
        words += f" at {dense.tile_px} px"
    if dense.components:
        words += f", {dense.components} principal components"
    return words if dense.partner == "own" else f"{words} ({dense.partner})"


def _rgb(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


def _token_stride(encoder: ImageEncoder, tile_px: int) -> int | None:
    """Return pixels per token, or None for a backbone without a usable feature map."""
    module: Any = encoder.module
    probe = torch.zeros(1, 3, tile_px, tile_px)
    with torch.inference_mode():
        features = copy.deepcopy(module).cpu().eval().forward_features(probe)
    if features.ndim != 4 or tile_px % features.shape[-1]:
        return None
    stride: int = tile_px // features.shape[-1]
    return stride if stride * features.shape[-2] == tile_px else None


def _state(encoder: ImageEncoder, *, half: bool) -> dict[str, torch.Tensor]:
    """Return timm's state; matrices in float16 if asked, statistics never."""
    state = {}
    for name, values in encoder.module.state_dict().items():
        matrix = half and values.is_floating_point() and values.ndim > 1
        state[name] = (values.half() if matrix else values).detach().cpu().contiguous()
    return state


def _embed(student: Student, pairs: PairSet) -> Floats:
    parts = [
        student.embed(np.ascontiguousarray(pairs.sparse[start : start + _BATCH]))
        for start in range(0, len(pairs), _BATCH)
    ]
    return np.concatenate(parts)


def _head(
    config: DistillConfig,
    split: PairSplit,
    net: DistillNet,
    train: Floats,
    held: Floats | None,
) -> Head | None:
    labels = split.train.labels
    if labels is None or not config.classes:
        return None
    present, y = np.unique(labels, return_inverse=True)
    if net.head is None:
        if len(present) < 2:
            return None
        fit = fit_probe(
            train, y.reshape(-1), groups=split.train.cases, seed=config.seed
        )
        return _among(fit.head, present, len(config.classes))
    return _trained_head(config, split, net, held)


def _trained_head(
    config: DistillConfig, split: PairSplit, net: DistillNet, held: Floats | None = None
) -> Head | None:
    """Return the head that was trained along, if there is one."""
    if net.head is None or split.train.labels is None:
        return None
    present = np.unique(split.train.labels)
    # A few steps do not teach a head that classes it never saw are rare.
    weight = net.head.weight.detach().float().cpu().numpy()
    bias = np.full(len(config.classes), _NEVER, np.float32)
    bias[present] = net.head.bias.detach().float().cpu().numpy()[present]
    temperature = config.temperature
    if held is not None and split.validation and split.validation.labels is not None:
        temperature = fit_temperature(held @ weight.T + bias, split.validation.labels)
    return Head(weight, bias, temperature)


def _among(head: Head, present: npt.NDArray[np.intp], classes: int) -> Head:
    """Return a head with all classes, which predicts only those it was fitted on."""
    weight = np.zeros((classes, head.weight.shape[1]), np.float32)
    bias = np.full(classes, _NEVER, np.float32)
    weight[present], bias[present] = head.weight, head.bias
    return Head(weight, bias, head.temperature)


def _metrics(
    split: PairSplit, head: Head | None, held: Floats | None
) -> tuple[Metric, ...]:
    """Score the head on the validation pairs, which chose the checkpoint at most."""
    kept = split.validation
    if head is None or held is None or kept is None or kept.labels is None:
        return ()
    predicted = head.probabilities(held).argmax(axis=1)
    accuracy, balanced = accuracies(kept.labels, predicted)
    how = (
        f"{len(kept)} validation tiles of {len(np.unique(kept.cases))} cases, which "
        "also chose the checkpoint and the temperature"
    )
    return (
        Metric(name="accuracy", value=round(accuracy, 4), protocol=how),
        Metric(name="balanced accuracy", value=round(balanced, 4), protocol=how),
    )


def _calibration(
    split: PairSplit, head: Head | None, held: Floats | None
) -> CalibrationSpec | None:
    kept = split.validation
    if head is None or held is None or kept is None or kept.labels is None:
        return None
    how = (
        f"{len(kept)} validation tiles of {len(np.unique(kept.cases))} cases, which "
        "also chose the checkpoint and the temperature"
    )
    return calibration_of(head.probabilities(held), kept.labels, how)
