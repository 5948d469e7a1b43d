"""elastix's ``TransformParameters.txt``.

Source: the elastix manual (5.2), chapter on the transform parameter file, and its
``elx…Transform`` components. As in ITK a transform maps points of the fixed image to
points of the moving one, (x, y) in physical units. Size, spacing and origin of the
fixed image are in the file, which often tells the unit: a size that is the slide's.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from napari_histodistill.distill.exchange.frames import PointFrame, PointUnit
from napari_histodistill.distill.exchange.itk import matrix_of, refuse_not_affine
from napari_histodistill.distill.exchange.texts import read_text_file
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    Doubles = npt.NDArray[np.float64]

Entries: TypeAlias = "dict[str, list[str]]"

_LINE = re.compile(r'^\s*\(\s*(\w+)((?:\s+(?:"[^"\n]*"|[^\s()"]+))*)\s*\)', re.M)
_WORD = re.compile(r'"([^"\n]*)"|([^\s()"]+)')
_MOST_CHAINED = 8
_SAME_SIZE = 0.02
"""A fixed image that is this near to a slide's size is that slide."""

_INITIAL = ("InitialTransformParameterFileName", "InitialTransformParametersFileName")
_IN_ITK = {
    "EulerTransform": "Euler2DTransform",
    "SimilarityTransform": "Similarity2DTransform",
    "AffineTransform": "AffineTransform",
    "TranslationTransform": "TranslationTransform",
}
"""The transforms that are read, and ITK's with the same parameters."""


def is_elastix(text: str) -> bool:
    """Whether a text is a transform parameter file."""
    return re.search(r"^\s*\(Transform\s+\"", text, re.M) is not None


def read_elastix(path: Path, text: str) -> Doubles:
    """Return ``(3, 3)``: (x, y, 1) of the fixed image to that of the moving one.

    A chain of initial transforms is followed, beside the file where the stated path is
    gone.

    Parameters
    ----------
    path : Path
        The file.
    text : str
        What it holds.

    Raises
    ------
    InputError
        If it is not affine, not of two dimensions, or its numbers do not fit.
    """
    whole, seen = _read(path, text, {path.absolute()})
    assert seen
    return whole


def _read(path: Path, text: str, seen: set[Path]) -> tuple[Doubles, set[Path]]:
    entries = entries_of(text)
    own = _matrix(path, entries)
    named = next((entries[k][0] for k in _INITIAL if entries.get(k)), "")
    if named in {"", "NoInitialTransform"}:
        return own, seen
    before = _beside(path, named)
    if before.absolute() in seen or len(seen) > _MOST_CHAINED:
        msg = f"{path}: its initial transforms lead in a circle."
        raise InputError(msg)
    first, seen = _read(before, read_text_file(before), seen | {before.absolute()})
    how = entries.get("HowToCombineTransforms", ["Compose"])[0]
    if how == "Compose":
        return own @ first, seen
    if how == "Add":
        added = own + first - np.eye(3)
        added[2] = 0, 0, 1
        return added, seen
    msg = f"{path}: HowToCombineTransforms {how[:40]!r} is neither Compose nor Add."
    raise InputError(msg)


def _beside(path: Path, named: str) -> Path:
    # Written with the folder of another day, or another system.
    last = re.split(r"[/\\]", named)[-1]
    for place in (path.parent / last, path.parent / named):
        if place.is_file():
            return place
    msg = f"{path}: its initial transform {last} is missing: put it beside this file."
    raise InputError(msg)


def entries_of(text: str) -> Entries:
    """Return the entries of a parameter file: key to words."""
    return {
        match[1]: [a or b for a, b in _WORD.findall(match[2])]
        for match in _LINE.finditer(text)
    }


def _matrix(path: Path, entries: Entries) -> Doubles:
    kind = next(iter(entries.get("Transform", ["?"])))
    if "spline" in kind.lower() or "deformation" in kind.lower():
        raise refuse_not_affine(path, kind)
    if kind not in _IN_ITK:
        msg = f"{path}: {kind[:40]} is not read; known are {', '.join(_IN_ITK)}."
        raise InputError(msg)
    if entries.get("FixedImageDimension", ["2"]) != ["2"]:
        msg = f"{path}: is for volumes: sections need two dimensions."
        raise InputError(msg)
    parameters = _numbers(path, entries, "TransformParameters")
    shifts = kind == "TranslationTransform"
    centre = [] if shifts else _numbers(path, entries, "CenterOfRotationPoint")
    return matrix_of(path, _IN_ITK[kind], parameters, centre)


def _numbers(path: Path, entries: Entries, key: str) -> list[float]:
    try:
        values = [float(word) for word in entries[key]]
    except KeyError as error:
        msg = f"{path}: {key} is missing."
        raise InputError(msg) from error
    except ValueError as error:
        msg = f"{path}: {key} does not hold numbers only."
        raise InputError(msg) from error
    if not all(map(math.isfinite, values)):
        msg = f"{path}: {key} does not hold finite numbers only."
        raise InputError(msg)
    return values


def stated_unit(path: Path, text: str, frame: PointFrame) -> PointUnit | None:
    """Return the unit by which the file's fixed image is as large as a slide.

    Parameters
    ----------
    path : Path
        For messages.
    text : str
        What the file holds.
    frame : PointFrame
        The slide that was held fixed.

    Returns
    -------
    PointUnit or None
        None where no unit, or more than one, makes it so.

    Raises
    ------
    InputError
        If the file's fixed image does not start at (0, 0), or is turned.
    """
    entries = entries_of(text)
    if "Size" not in entries or "Spacing" not in entries:
        return None
    size, spacing = (_numbers(path, entries, key) for key in ("Size", "Spacing"))
    origin = _numbers(path, entries, "Origin") if "Origin" in entries else [0.0, 0.0]
    turned = entries.get("Direction", ["1", "0", "0", "1"])
    if len(size) != 2 or len(spacing) != 2 or len(origin) != 2:
        return None
    moved = any(abs(o) > s for o, s in zip(origin, spacing, strict=True))
    if moved or [float(w) for w in turned] != [1, 0, 0, 1]:
        msg = (
            f"{path}: its fixed image does not start at 0, 0, or is turned: register "
            "whole images, as they are."
        )
        raise InputError(msg)
    found = [
        unit
        for unit in PointUnit
        if _is_as_large(frame, unit, size[0] * spacing[0], size[1] * spacing[1])
    ]
    return found[0] if len(found) == 1 else None


def _is_as_large(
    frame: PointFrame, unit: PointUnit, width: float, height: float
) -> bool:
    per = {PointUnit.PIXELS: None, PointUnit.MICROMETRES: 1, PointUnit.MILLIMETRES: 1e3}
    scale = per[unit]
    wanted = [
        pixels if scale is None else pixels * mpp / scale
        for pixels, mpp in zip(frame.shape, frame.mpp, strict=True)
    ]
    return all(
        abs(there / here - 1) < _SAME_SIZE
        for there, here in zip((height, width), wanted, strict=True)
    )


def elastix_text(matrix: Doubles, frame: PointFrame, unit: PointUnit) -> str:
    """Return a parameter file for a matrix, which transformix reads.

    Parameters
    ----------
    matrix : ndarray
        ``(3, 3)``: (x, y, 1), fixed to moving.
    frame : PointFrame
        The fixed image.
    unit : PointUnit
        Unit of the matrix, of the spacing too.
    """
    scale = {
        PointUnit.PIXELS: (1.0, 1.0),
        PointUnit.MICROMETRES: frame.mpp,
        PointUnit.MILLIMETRES: (frame.mpp[0] / 1e3, frame.mpp[1] / 1e3),
    }[unit]
    values = [*matrix[:2, :2].ravel(), *matrix[:2, 2]]
    height, width = frame.shape
    return "\n".join(
        [
            '(Transform "AffineTransform")',
            "(NumberOfParameters 6)",
            f"(TransformParameters {' '.join(repr(float(v)) for v in values)})",
            '(InitialTransformParametersFileName "NoInitialTransform")',
            '(HowToCombineTransforms "Compose")',
            "(FixedImageDimension 2)",
            "(MovingImageDimension 2)",
            '(FixedInternalImagePixelType "float")',
            '(MovingInternalImagePixelType "float")',
            f"(Size {width} {height})",
            "(Index 0 0)",
            f"(Spacing {scale[1]!r} {scale[0]!r})",
            "(Origin 0 0)",
            "(Direction 1 0 0 1)",
            '(UseDirectionCosines "true")',
            "(CenterOfRotationPoint 0 0)",
            '(ResampleInterpolator "FinalBSplineInterpolator")',
            "(FinalBSplineInterpolationOrder 1)",
            '(Resampler "DefaultResampler")',
            "(DefaultPixelValue 0)",
            '(ResultImageFormat "mhd")',
            '(ResultImagePixelType "float")',
            "",
        ]
    )
