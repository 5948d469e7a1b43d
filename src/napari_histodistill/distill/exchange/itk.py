"""ITK's transform files (``.tfm``, ``.txt``), which SimpleITK and ANTs write too.

Source: ``itkTxtTransformIO.cxx`` ("Insight Transform File V1.0"), and the parameters of
each class in ITK's documentation. A transform maps points of the *fixed* image to
points of the *moving* one, (x, y) in physical units; ``FixedParameters`` hold the
centre of rotation. Which unit that is the file does not say.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    Doubles = npt.NDArray[np.float64]

MAGIC = "#Insight Transform File"
_MOST = 64
_NOT_AFFINE = ("bspline", "displacement", "thinplate", "velocity", "kernel", "elastic")


@dataclass(frozen=True, slots=True)
class _Block:
    """One transform of a file."""

    kind: str
    parameters: tuple[float, ...]
    fixed: tuple[float, ...]


def read_itk(path: Path, text: str) -> Doubles:
    """Return ``(3, 3)``: (x, y, 1) of the fixed image to that of the moving one.

    Parameters
    ----------
    path : Path
        For messages.
    text : str
        What the file holds.

    Raises
    ------
    InputError
        If it is not affine, not of two dimensions, or its numbers do not fit.
    """
    blocks = _blocks(path, text)
    if blocks and blocks[0].kind == "CompositeTransform":
        blocks = blocks[1:]
    elif len(blocks) > 1:
        msg = (
            f"{path}: holds {len(blocks)} transforms and does not say how they go "
            "together: save them as one composite transform."
        )
        raise InputError(msg)
    if not blocks:
        msg = f"{path}: this ITK file holds no transform."
        raise InputError(msg)
    whole: Doubles = np.eye(3)
    for block in blocks:
        # The one added last is applied first (itkCompositeTransform.h).
        whole = whole @ matrix_of(path, block.kind, block.parameters, block.fixed)
    return whole


def itk_text(matrix: Doubles) -> str:
    """Return a file for a matrix ``(3, 3)``: (x, y, 1), fixed to moving."""
    values = [*matrix[:2, :2].ravel(), *matrix[:2, 2]]
    listed = " ".join(repr(float(v)) for v in values)
    return (
        f"{MAGIC} V1.0\n#Transform 0\nTransform: AffineTransform_double_2_2\n"
        f"Parameters: {listed}\nFixedParameters: 0 0\n"
    )


def matrix_about(
    linear: npt.ArrayLike, shift: Sequence[float], centre: Sequence[float]
) -> Doubles:
    """Return ``(3, 3)`` of ``x ↦ L (x − c) + c + t``."""
    whole: Doubles = np.eye(3)
    whole[:2, :2] = linear
    about = np.array(centre, np.float64)
    whole[:2, 2] = about + shift - whole[:2, :2] @ about
    return whole


def rotation(angle: float, scale: float = 1.0) -> Doubles:
    """Return ``(2, 2)``: a turn by an angle in radians, in ITK's sense, and a scale."""
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def refuse_not_affine(path: Path, kind: str) -> InputError:
    """Return the error for a transform that bends."""
    return InputError(
        f"{path}: {kind} is not affine, and pairs are read through an affine "
        "transform: export the affine stage that went before it."
    )


def _blocks(path: Path, text: str) -> list[_Block]:
    found: list[_Block] = []
    for line in text.splitlines():
        key, colon, rest = line.partition(":")
        if not colon or line.startswith("#"):
            continue
        if key.strip() == "Transform":
            found.append(_Block(_kind(path, rest.strip()), (), ()))
        elif found and key.strip() in {"Parameters", "FixedParameters"}:
            last = found.pop()
            values = _numbers(path, rest)
            found.append(
                _Block(last.kind, values, last.fixed)
                if key.strip() == "Parameters"
                else _Block(last.kind, last.parameters, values)
            )
        if len(found) > _MOST:
            msg = f"{path}: holds more than {_MOST} transforms."
            raise InputError(msg)
    return found


def _kind(path: Path, named: str) -> str:
    match = re.fullmatch(r"(\w+?)_(?:double|float)_(\d)_(\d)", named)
    kind = match[1] if match else named
    if any(word in kind.lower() for word in _NOT_AFFINE):
        raise refuse_not_affine(path, kind)
    if match is None:
        msg = f"{path}: {named[:60]!r} is not a transform that ITK writes."
        raise InputError(msg)
    if (match[2], match[3]) != ("2", "2"):
        msg = f"{path}: {kind} is for {match[2]} dimensions: sections need two."
        raise InputError(msg)
    return kind


def _numbers(path: Path, text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(word) for word in text.split())
    except ValueError as error:
        msg = f"{path}: a parameter is not a number."
        raise InputError(msg) from error
    if not all(map(math.isfinite, values)):
        msg = f"{path}: a parameter is not a finite number."
        raise InputError(msg)
    return values


_KINDS: dict[str, tuple[int, Callable[..., Doubles]]] = {
    "AffineTransform": (
        6,
        lambda p, c: matrix_about(np.reshape(p[:4], (2, 2)), p[4:], c),
    ),
    "CenteredAffineTransform": (
        8,
        lambda p, _: matrix_about(np.reshape(p[:4], (2, 2)), p[6:], p[4:6]),
    ),
    "Euler2DTransform": (3, lambda p, c: matrix_about(rotation(p[0]), p[1:], c)),
    "CenteredEuler2DTransform": (
        5,
        lambda p, _: matrix_about(rotation(p[0]), p[3:], p[1:3]),
    ),
    "Similarity2DTransform": (
        4,
        lambda p, c: matrix_about(rotation(p[1], p[0]), p[2:], c),
    ),
    "CenteredSimilarity2DTransform": (
        6,
        lambda p, _: matrix_about(rotation(p[1], p[0]), p[4:], p[2:4]),
    ),
    "ScaleTransform": (2, lambda p, c: matrix_about(np.diag(p), (0.0, 0.0), c)),
    "TranslationTransform": (2, lambda p, c: matrix_about(np.eye(2), p, c)),
    "IdentityTransform": (0, lambda _, c: matrix_about(np.eye(2), (0.0, 0.0), c)),
}
"""Every transform that is read: how many parameters, and its matrix by them and the
centre."""

_ALSO = {
    "MatrixOffsetTransformBase": "AffineTransform",
    "Rigid2DTransform": "Euler2DTransform",
    "CenteredRigid2DTransform": "CenteredEuler2DTransform",
}


def matrix_of(
    path: Path, kind: str, parameters: Sequence[float], centre: Sequence[float]
) -> Doubles:
    """Return ``(3, 3)``: (x, y, 1), fixed to moving, of one of ITK's transforms.

    Parameters
    ----------
    path : Path
        For messages.
    kind : str
        Name of the class.
    parameters, centre : sequence of float
        As in the file; a centre of no numbers is (0, 0).

    Raises
    ------
    InputError
        If there is no such transform, or it has other numbers of parameters.
    """
    known = _KINDS.get(_ALSO.get(kind, kind))
    if known is None:
        msg = f"{path}: {kind[:60]} is not read; known are {', '.join(_KINDS)}."
        raise InputError(msg)
    count, make = known
    if len(parameters) != count or len(centre) not in (0, 2):
        msg = (
            f"{path}: {kind} has {count} parameters and a centre of two, found "
            f"{len(parameters)} and {len(centre)}."
        )
        raise InputError(msg)
    return make(parameters, centre or (0.0, 0.0))
