"""References for trust from tile folders, for new students and for those that exist."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.distill.pairs.tilefolder import read_tile_folder
from napari_histodistill.distill.scoring.evaluate import case_digest
from napari_histodistill.errors import InputError
from napari_histodistill.students.backends.stages import reference_of_tiles, spread_rows
from napari_histodistill.students.bundle import load_student, save_student

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt
    import torch

    from napari_histodistill.distill.pairs.tilefolder import TileFolder
    from napari_histodistill.students.spec import CalibrationSpec, StudentSpec
    from napari_histodistill.students.student import Student


def tiles_to_compare(
    folder: TileFolder, tile_px: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.str_]]:
    """Return tiles ``(n, tile_px, tile_px, 3)`` of known cases, and the cases ``(n,)``.

    At most 2,000, spread over the cases; none if the folder does not name cases.

    Raises
    ------
    TileFolderError
        If a picture cannot be read.
    """
    cases = np.array([tile.case_id or "" for tile in folder.tiles], np.str_)
    rows = spread_rows(cases)
    tiles = [folder.read(folder.tiles[k], tile_px)[0] for k in rows.tolist()]
    pixels = np.array(tiles, np.uint8).reshape(-1, tile_px, tile_px, 3)
    return pixels, cases[rows]


def add_trust(
    bundle: str | Path,
    data: str | Path,
    *,
    calibration: CalibrationSpec | None = None,
) -> Path:
    """Give a student that exists a reference, and its case digests a salt.

    For bundles that were trained before there were references; nothing is trained. The
    bundle is written again, with a new digest.

    Parameters
    ----------
    bundle : str or Path
        A bundled name or a bundle's folder.
    data : str or Path
        The tile folder that it was trained on.
    calibration : CalibrationSpec or None
        What its probabilities meant on held-out cases, if that is known now.

    Returns
    -------
    Path
        The bundle.

    Raises
    ------
    InputError
        If the student was trained on other cases, or there are too few.
    """
    student = load_student(bundle, device="cpu:torch", precision="float32")
    folder = read_tile_folder(data)
    tiles, cases = tiles_to_compare(folder, student.spec.tile_px)
    training = student.spec.training
    known = folder.case_ids()
    if training is None or known is None:
        msg = f"{bundle}: nothing says which cases it was trained on."
        raise InputError(msg)
    names = np.unique(known).tolist()
    was = {case_digest(name, training.case_salt) for name in names}
    if was != set(training.case_digests):
        msg = f"{bundle}: it was trained on other cases than those of {data}."
        raise InputError(msg)
    trust = reference_of_tiles(tiles, cases)
    if trust is None or student.folder is None:
        msg = f"{data}: {len(names)} cases are too few for a reference."
        raise InputError(msg)
    salt = secrets.token_hex(16)
    digests = tuple(sorted(case_digest(name, salt) for name in names))
    salted = training.model_copy(update={"case_digests": digests, "case_salt": salt})
    changed = {"training": salted, "calibration": calibration}
    return save_student(
        student.folder,
        student.spec.model_copy(update=changed),
        head=student.head,
        encoder_state=_encoder_of(student, student.spec),
        trust=trust,
    )


def _encoder_of(student: Student, spec: StudentSpec) -> dict[str, torch.Tensor] | None:
    """Return the weights in the bundle, as they are there."""
    from safetensors.torch import load_file

    from napari_histodistill.students.bundle import TENSORS_FILE

    if spec.weights.source == "package" or student.folder is None:
        return None
    tensors = load_file(student.folder / TENSORS_FILE)
    return {
        name.removeprefix("encoder."): values
        for name, values in tensors.items()
        if name.startswith("encoder.")
    }
