"""Transforms of other programs as registrations, and back, recognised by content."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.distill.exchange import elastix, itk, qupath
from napari_histodistill.distill.exchange.frames import (
    PointUnit,
    SectionFrames,
)
from napari_histodistill.distill.exchange.texts import read_text_file
from napari_histodistill.distill.layers.registration import (
    LandmarkPairs,
    Registration,
    RegistrationKind,
    inverse,
    registration_of,
)
from napari_histodistill.errors import InputError, refused_by_disk
from napari_histodistill.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt

    Doubles = npt.NDArray[np.float64]

MOST_SCALE = 8.0
"""Factor by which stated µm/px may be wrong; beyond it, a unit was mistaken."""

_ALIKE = 1e-4
_OWN = '"format": "napari-histodistill registration"'


class TransformFormat(Enum):
    """Formats of transforms; the value is its name on the command line."""

    OWN = "json"
    QUPATH = "qupath"
    ELASTIX = "elastix"
    ITK = "itk"


@dataclass(frozen=True, slots=True, eq=False)
class ReadTransform:
    """A transform that was read.

    Attributes
    ----------
    format : TransformFormat
        Format of the file.
    registration : Registration
        Sparse world to dense world; without evidence, unless the file is our own.
    landmarks : LandmarkPairs or None
        Of our own files, where it was made by landmarks.
    content : mapping
        All that our own file says; empty for others.
    """

    format: TransformFormat
    registration: Registration
    landmarks: LandmarkPairs | None = None
    content: Mapping[str, Any] = field(default_factory=dict)


def read_own(path: Path) -> ReadTransform | None:
    """Read what this program wrote; None if a file is something else.

    Raises
    ------
    InputError
        If it is damaged.
    """
    text = read_text_file(path)
    return _own(path, text) if text.lstrip().startswith("{") else None


def names_unit(path: Path) -> bool:
    """Return whether a transform's unit is known without asking: QuPath's is."""
    text = read_text_file(path)
    return not (text.startswith(itk.MAGIC) or elastix.is_elastix(text))


def read_transform(
    path: Path, frames: SectionFrames | None, *, unit: PointUnit | None = None
) -> ReadTransform:
    """Read a transform of this or another program.

    Parameters
    ----------
    path : Path
        JSON of this program or of QuPath, QuPath's six numbers, elastix's
        ``TransformParameters.txt``, or a transform file of ITK or SimpleITK. What it is
        its content says.
    frames : SectionFrames or None
        Both images, and which of them was held fixed; None where the partner has no
        pixels, which only our own files serve.
    unit : PointUnit, optional
        Unit of elastix' and ITK's numbers. elastix' files often tell; ITK's never do.

    Raises
    ------
    InputError
        If it is none of these, not affine, or its unit is not known; the message says
        which option gives it.
    """
    text = read_text_file(path)
    if text.lstrip()[:1] in {"{", "["} and not text.lstrip().startswith("[["):
        own = _own(path, text)
        if own is not None:
            return own
    if frames is None:
        msg = (
            f"{path}: is not of this program, and spots have no pixels that another "
            "program's transform could count in: align the picture they lie on."
        )
        raise InputError(msg)
    return _foreign(path, text, frames, unit)


def _foreign(
    path: Path, text: str, frames: SectionFrames, unit: PointUnit | None
) -> ReadTransform:
    """Return a transform of another program."""
    if text.startswith(itk.MAGIC):
        matrix = itk.read_itk(path, text)
        if unit is None:
            raise InputError(_which_unit(path, "An ITK file does not"))
        return _other(path, TransformFormat.ITK, matrix, frames, unit)
    if elastix.is_elastix(text):
        matrix = elastix.read_elastix(path, text)
        known = unit or elastix.stated_unit(path, text, frames.fixed_frame())
        if known is None:
            raise InputError(_which_unit(path, "Its fixed image's size does not"))
        return _other(path, TransformFormat.ELASTIX, matrix, frames, known)
    found = _qupath(path, text)
    if found is None:
        msg = (
            f"{path}: is not a transform that is known: JSON of this program, QuPath's "
            "affine, elastix's TransformParameters, or an ITK transform file as text."
        )
        raise InputError(msg)
    return _other(path, TransformFormat.QUPATH, found, frames, PointUnit.PIXELS)


def is_transform(head: str) -> bool:
    """Whether a file is a transform that is known, by its beginning."""
    own = head.lstrip().startswith("{") and any(
        word in head for word in ('"matrix_um"', _OWN, '"m00"')
    )
    foreign = head.startswith(itk.MAGIC) or elastix.is_elastix(head)
    return own or foreign or qupath.affine_of_text(head) is not None


def transform_text(
    format: TransformFormat,  # noqa: A002 - its plain name
    registration: Registration,
    frames: SectionFrames,
    *,
    unit: PointUnit = PointUnit.MICROMETRES,
    as_json: bool = True,
) -> str:
    """Return a transform as another program reads it.

    Parameters
    ----------
    format : TransformFormat
        Not our own, which :func:`.write_registration` writes.
    registration : Registration
        Sparse world to dense world.
    frames : SectionFrames
        Both images, and which of them is to be held fixed.
    unit : PointUnit
        Of elastix' and ITK's numbers; QuPath's are pixels.
    as_json : bool
        For QuPath: JSON, or the six numbers.
    """
    edges = format is TransformFormat.QUPATH
    matrix = frames.from_registration(
        registration.matrix,
        PointUnit.PIXELS if edges else unit,
        from_edge=edges,
    )
    if format is TransformFormat.QUPATH:
        return qupath.affine_json(matrix) if as_json else qupath.affine_text(matrix)
    if format is TransformFormat.ELASTIX:
        return elastix.elastix_text(matrix, frames.fixed_frame(), unit)
    if format is TransformFormat.ITK:
        return itk.itk_text(matrix)
    msg = "our own format holds evidence besides the matrix: write_registration."
    raise InputError(msg)


def write_transform(path: Path, text: str) -> None:
    """Write a transform's file whole.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    try:
        write_whole(path, text)
    except OSError as error:
        msg = f"{path} cannot be written ({error.strerror}): choose another place."
        raise refused_by_disk(msg, error) from error


def format_for(path: Path) -> TransformFormat:
    """Return the format that a file's ending stands for."""
    return {
        ".tfm": TransformFormat.ITK,
        ".txt": TransformFormat.ELASTIX,
    }.get(path.suffix.lower(), TransformFormat.OWN)


def kind_of(matrix: Doubles) -> RegistrationKind:
    """Return the narrowest kind that a matrix ``(3, 3)`` is of."""
    linear = matrix[:2, :2]
    scale = math.sqrt(abs(float(np.linalg.det(linear))))
    apart = np.abs(linear @ linear.T / scale**2 - np.eye(2)).max()
    if apart > _ALIKE:
        return "affine"
    return "rigid" if abs(scale - 1) < _ALIKE else "similarity"


def without_evidence(matrix: Doubles) -> Registration:
    """Return a matrix as a registration that nothing is known of."""
    none = np.ones(0, np.bool_)
    return Registration(kind_of(matrix), matrix, np.empty(0), none)


def _own(path: Path, text: str) -> ReadTransform | None:
    """Return what this program wrote, or None for other JSON."""
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        if not text.lstrip().startswith("{"):
            return None  # QuPath's six numbers in brackets
        msg = f"{path}: is damaged JSON ({str(error)[:80]})."
        raise InputError(msg) from error
    if not isinstance(content, dict):
        return None
    try:
        if "format" in content:
            found = registration_of(content)
            places = content.get("landmarks")
            landmarks = None if places is None else LandmarkPairs.read(places)
            return ReadTransform(TransformFormat.OWN, found, landmarks, content)
        if "matrix_um" not in content:
            return None
        matrix = np.array(content["matrix_um"], np.float64)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        msg = f"{path}: is not a registration that this program wrote ({error})."
        raise InputError(msg) from error
    _check(path, matrix)
    known = without_evidence(inverse(matrix))
    return ReadTransform(TransformFormat.OWN, known, content=content)


def _qupath(path: Path, text: str) -> Doubles | None:
    if text.lstrip().startswith("{"):
        content = json.loads(text)  # was read before
        return qupath.affine_of_json(path, content)
    return qupath.affine_of_text(text)


def _other(
    path: Path,
    which: TransformFormat,
    matrix: Doubles,
    frames: SectionFrames,
    unit: PointUnit,
) -> ReadTransform:
    _check(path, matrix)
    edges = which is TransformFormat.QUPATH
    found = frames.to_registration(matrix, unit, from_edge=edges)
    registration = without_evidence(found)
    if not 1 / MOST_SCALE < registration.scale < MOST_SCALE:
        msg = (
            f"{path}: by this transform tissue is {registration.scale:.3g} times as "
            "large on the partner: check its unit, which image the other program "
            "held fixed, and µm per pixel of both."
        )
        raise InputError(msg)
    return ReadTransform(which, registration)


def _check(path: Path, matrix: Doubles) -> None:
    good = matrix.shape == (3, 3) and np.isfinite(matrix).all()
    if (
        not good
        or abs(np.linalg.det(matrix)) < 1e-12
        or (np.abs(matrix[2] - (0, 0, 1)).max() > 1e-9)
    ):
        msg = f"{path}: its matrix cannot be a transform of a section."
        raise InputError(msg)


def _which_unit(path: Path, why: str) -> str:
    return (
        f"{path}: {why} say which unit its numbers have: give the transform unit, "
        "um, mm, or px (level-0 pixels of each image)."
    )
