"""The frozen arm: a head on an encoder as it comes, and an honest score beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_histodistill.distill.pairs.tilefolder import TileFolder, read_tile_folder
from napari_histodistill.distill.scoring.evaluate import (
    case_digest,
    embed_tiles,
    salt_for,
    score_embeddings,
)
from napari_histodistill.distill.scoring.references import tiles_to_compare
from napari_histodistill.distill.training.networks import start_folder
from napari_histodistill.errors import InputError, TileFolderError
from napari_histodistill.students.backends.stages import reference_of_tiles
from napari_histodistill.students.backends.torch import TorchBackend
from napari_histodistill.students.bundle import SPEC_FILE, load_student, save_student
from napari_histodistill.students.probe import fit_probe
from napari_histodistill.students.spec import (
    CalibrationSpec,
    Metric,
    StudentSpec,
    Training,
)

if TYPE_CHECKING:
    import torch

    from napari_histodistill.distill.recipes.config import FrozenConfig
    from napari_histodistill.distill.scoring.scores import Evaluation, Interval
    from napari_histodistill.students.student import Student


def train_frozen(
    recipe: FrozenConfig,
    out: str | Path,
    *,
    home: Path,
    data: str | Path | None = None,
    device: str = "auto",
) -> Path:
    """Make a student by a recipe of the frozen arm.

    Embeds all tiles in float32 (so that the result does not depend on the machine's
    fastest precision), scores probes out of fold, fits the final head on everything and
    writes the bundle with card and figures.

    Parameters
    ----------
    recipe : FrozenConfig
        Recipe from :func:`~napari_histodistill.distill.reading.read_recipe`.
    out : str or Path
        Folder of the bundle to write.
    home : Path
        Folder that the recipe's paths are relative to.
    data : str, Path or None
        Tile folder to use in place of the recipe's.
    device : str
        As for :func:`load_student`.

    Returns
    -------
    Path
        The bundle's folder.

    Raises
    ------
    InputError
        If recipe, data and student do not fit together, or ``out`` is taken.
    ComputeError
        If the encoder fails.
    """
    target = Path(out)
    if target.exists() and not (target / SPEC_FILE).is_file():
        msg = f"{target} exists and is not a student: choose another folder."
        raise InputError(msg)
    folder = read_tile_folder(home / recipe.data.folder if data is None else data)
    _check_labels(recipe, folder)
    base = load_student(
        start_folder(recipe.student, home), device=device, precision="float32"
    )
    embeddings = np.concatenate([r.embeddings for r in embed_tiles(base, folder)])
    score = score_embeddings(base, folder, embeddings, protocol="probe")
    names = [c.name for c in recipe.classes]
    labels = np.array([names.index(label) for label in folder.labels()], np.intp)
    fit = fit_probe(embeddings, labels, groups=folder.case_ids(), seed=recipe.seed)
    tiles, known = tiles_to_compare(folder, base.spec.tile_px)
    trust = reference_of_tiles(tiles, known)
    spec = _spec(recipe, base.spec, folder, score, salt=salt_for(tiles))
    weights = _own_weights(base)
    return save_student(target, spec, head=fit.head, encoder_state=weights, trust=trust)


def _with_encoder(
    of_head: str,
    before: Training | None,
    said: Literal["data", "licence", "attribution"],
) -> str:
    """Return what the card says of the head's data, and of the encoder's if others."""
    of_encoder = "" if before is None else str(getattr(before, said))
    if not of_encoder or of_encoder == of_head:
        return of_head
    return f"{of_head} (classes); {of_encoder} (encoder)"


def _own_weights(base: Student) -> dict[str, torch.Tensor] | None:
    """Return the encoder's weights, if they are the student's and no package's."""
    if base.spec.weights.source != "bundle":
        return None
    assert isinstance(base.backend, TorchBackend)  # in float32 it is torch that runs
    state: dict[str, torch.Tensor] = base.backend.module.state_dict()
    return state


def _check_labels(recipe: FrozenConfig, folder: TileFolder) -> None:
    wanted, found = {c.name for c in recipe.classes}, set(folder.labels().tolist())
    if wanted != found:
        msg = (
            f"{folder.folder}: the labels are {', '.join(sorted(found))}, the recipe's "
            f"classes {', '.join(sorted(wanted))}: they must be the same."
        )
        raise TileFolderError(msg)


def _spec(
    recipe: FrozenConfig,
    base: StudentSpec,
    folder: TileFolder,
    score: Evaluation,
    *,
    salt: str,
) -> StudentSpec:
    cases = folder.case_ids()
    digests = (
        () if cases is None else sorted({case_digest(str(c), salt) for c in cases})
    )
    before = base.training
    training = Training(
        data=_with_encoder(recipe.data.description, before, "data"),
        licence=_with_encoder(recipe.data.licence, before, "licence"),
        attribution=_with_encoder(recipe.data.attribution, before, "attribution"),
        arm=recipe.arm,
        tiles=len(folder),
        partners=None if before is None else before.partners,
        cases=score.cases,
        case_digests=tuple(digests),
        case_salt=salt if digests else None,
    )
    changed = {
        "name": recipe.name,
        "title": recipe.title,
        "description": recipe.description,
        "licence": recipe.licence,
        "mpp": recipe.mpp,
        "mpp_source": recipe.mpp_source,
        "classes": recipe.classes,
        "training": training,
        "metrics": _metrics(score),
        "calibration": CalibrationSpec(
            error=round(score.calibration_error, 4),
            sure_share=score.sure_share,
            sure_right=score.sure_right,
            protocol=f"out of {len(score.folds)} folds by case, {score.n} tiles",
        ),
    }
    kept = {k: getattr(base, k) for k in StudentSpec.model_fields}
    return StudentSpec(**(kept | changed))


def _metrics(score: Evaluation) -> tuple[Metric, ...]:
    how = f"out of {len(score.folds)} folds by case, {score.n} tiles"
    interval = f"{how}; 95 % bootstrap over {score.cases} cases"

    def metric(name: str, value: float, span: Interval | None = None) -> Metric:
        if span is None:
            return Metric(name=name, value=round(value, 4), protocol=how)
        return Metric(
            name=name,
            value=round(value, 4),
            low=round(span.low, 4),
            high=round(span.high, 4),
            protocol=interval,
        )

    recalls = [
        metric(f"recall of {name}", one.recall)
        for name, one in zip(score.classes, score.per_class, strict=True)
        if one.recall is not None
    ]
    return (
        metric("accuracy", score.accuracy, score.accuracy_interval),
        metric(
            "balanced accuracy",
            score.balanced_accuracy,
            score.balanced_accuracy_interval,
        ),
        metric("expected calibration error", score.calibration_error),
        *recalls,
    )
