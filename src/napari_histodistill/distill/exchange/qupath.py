"""QuPath's affine transforms: six numbers, or the JSON of a Java ``AffineTransform``.

Sources: ``ImageServerOverlay.java`` and ``AffineImageTransform.java`` of
qupath-extension-align, ``AffineTransformImageServer.java`` of QuPath. In the pane
*Interactive image alignment* the numbers ``m00, m01, m02, m10, m11, m12`` map level-0
pixels (x, y), counted from the upper left edge, of the image in the *viewer* to those
of the *overlay*: the viewer's image is the fixed one. An image server that was made
from them (``builderType`` "affine" in a project) holds the opposite: what carries its
source into the new image.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.distill.layers.registration import inverse
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    Doubles = npt.NDArray[np.float64]

_ROWS = ("m00", "m01", "m02", "m10", "m11", "m12")
_JAVA = re.compile(r"^(?:AffineTransform)?[\s\[({]*|[\s\])};]*$")


def affine_of_json(path: Path, content: dict[str, Any]) -> Doubles | None:
    """Return ``(3, 3)``, fixed to moving, of a JSON object; None if it is no affine.

    Raises
    ------
    InputError
        If it is one, and its numbers are none.
    """
    inside = content.get("transform")
    if isinstance(inside, dict) and "m00" in inside:
        # Of an image server: what carries the source into the aligned image.
        found = affine_of_json(path, inside)
        return None if found is None else inverse(_invertible(path, found))
    if "m00" not in content:
        return None
    try:
        rows = [float(content[key]) for key in _ROWS]
    except (KeyError, TypeError, ValueError) as error:
        msg = f"{path}: a QuPath transform has six numbers, m00 to m12."
        raise InputError(msg) from error
    return _matrix(rows)


def affine_of_text(text: str) -> Doubles | None:
    """Return ``(3, 3)``, fixed to moving, of six numbers by rows; None if others."""
    bare = _JAVA.sub("", text.strip())
    words = [w for w in re.split(r"[\s,;\[\]]+", bare) if w]
    if len(words) != len(_ROWS):
        return None
    try:
        return _matrix([float(word) for word in words])
    except ValueError:
        return None


def affine_json(matrix: Doubles) -> str:
    """Return what QuPath's Gson writes of an ``AffineTransform``."""
    names = ("m00", "m10", "m01", "m11", "m02", "m12")
    values = {name: float(matrix[int(name[1]), int(name[2])]) for name in names}
    return json.dumps(values, indent=2) + "\n"


def affine_text(matrix: Doubles) -> str:
    """Return the six numbers as the pane shows them."""
    rows = (", ".join(repr(float(v)) for v in row) for row in matrix[:2])
    return ",\n".join(rows) + "\n"


def _matrix(rows: list[float]) -> Doubles:
    whole: Doubles = np.eye(3)
    whole[:2] = np.reshape(rows, (2, 3))
    return whole


def _invertible(path: Path, matrix: Doubles) -> Doubles:
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
        msg = f"{path}: this transform cannot be inverted."
        raise InputError(msg)
    return matrix
