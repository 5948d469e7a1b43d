"""From an element's own coordinates to a coordinate system, as SpatialData writes it.

SpatialData keeps the transformations of NGFF's proposal (RFC 5) in the attribute
``coordinateTransformations`` of an element: one for each coordinate system, whose name
and axes are those of its ``output``. What is linear (identity, scale, translation,
affine, mapAxis, and sequences of these) is composed here; else it is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.distill.spots.spot_columns import shortened
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    from napari_histodistill.distill.spots.spot_tables import LengthUnit

    Doubles = npt.NDArray[np.float64]
    # Each axis so far: a row (x, y, z, 1) of factors of the element's coordinates.
    AxisRows = dict[str, Doubles]
    Transformation = Mapping[str, Any]

GLOBAL = "global"
"""The coordinate system that is taken where there are several."""

_UNITS: dict[str, LengthUnit] = {
    "micrometer": "µm",
    "micrometre": "µm",
    "micron": "µm",
    "microns": "µm",
    "um": "µm",
    "µm": "µm",
    "pixel": "px",
    "pixels": "px",
    "px": "px",
}
_ONE = np.array([0.0, 0.0, 0.0, 1.0])


@dataclass(frozen=True, slots=True, eq=False)
class CoordinateSystem:
    """A coordinate system, and how an element lies in it.

    Attributes
    ----------
    name : str
        Of the system.
    unit : {"px", "µm"} or None
        Unit of its axes x and y; None where they state none, or different ones.
    matrix : ndarray
        ``(2, 3)`` float64: rows y and x, columns for y, x and 1 of the element.
    """

    name: str
    unit: LengthUnit | None
    matrix: Doubles

    @property
    def factor(self) -> float:
        """How much longer lengths become, the root of how much areas do."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix[:, :2]))))

    def placed(self, positions: Doubles) -> Doubles:
        """Return positions of the element, ``(n, 2)`` (y, x), in this system."""
        return positions @ self.matrix[:, :2].T + self.matrix[:, 2]


def coordinate_system(said: str, transformations: Any) -> CoordinateSystem:
    """Return the system in which an element is laid: ``global``, or its only one.

    Parameters
    ----------
    said : str
        File and element, for messages.
    transformations : list
        The element's attribute ``coordinateTransformations``.

    Raises
    ------
    InputError
        If there is none, if there are several and none is ``global``, or if the way
        into it is damaged or not linear in x and y.
    """
    try:
        ways = {_system(way): way for way in transformations or ()}
    except (AttributeError, KeyError, TypeError) as error:
        msg = f"{said}: its coordinateTransformations are damaged: write it again."
        raise InputError(msg) from error
    if not ways:
        msg = f"{said} is in no coordinate system: write it again with SpatialData."
        raise InputError(msg)
    name = GLOBAL if GLOBAL in ways else next(iter(ways))
    if len(ways) > 1 and name != GLOBAL:
        msg = (
            f"{said} is in {len(ways)} coordinate systems ({shortened(list(ways))}), "
            f"none of which is called {GLOBAL!r}: rename the one that is meant, or "
            "remove the others."
        )
        raise InputError(msg)
    return CoordinateSystem(name, _unit(ways[name]), _matrix(said, ways[name]))


def _system(way: Transformation) -> str:
    output = way["output"]
    return str(output["name"] if isinstance(output, dict) else output)


def _unit(way: Transformation) -> LengthUnit | None:
    """Return the unit that both x and y state."""
    output = way["output"]
    axes = output.get("axes", ()) if isinstance(output, dict) else ()
    units = {
        _UNITS.get(str(axis.get("unit", "")).lower())
        for axis in axes
        if isinstance(axis, dict) and axis.get("name") in ("x", "y")
    }
    return units.pop() if len(units) == 1 else None


def _matrix(said: str, way: Transformation) -> Doubles:
    try:
        axes = _after(said, way, dict(zip("xyz", np.eye(4)[:3], strict=True)))
        rows = np.stack([axes["y"], axes["x"]])
    except InputError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        msg = (
            f"{said}: the transformation to {_system(way)[:40]!r} is damaged: write it "
            "again."
        )
        raise InputError(msg) from error
    matrix = rows[:, [1, 0, 3]]
    flat = rows[:, 2].any() or not np.isfinite(rows).all()
    if flat or not np.linalg.det(matrix[:, :2]):
        msg = (
            f"{said}: the transformation to {_system(way)[:40]!r} does not take x and y"
            " to x and y."
        )
        raise InputError(msg)
    return matrix


def _after(said: str, step: Transformation, axes: AxisRows) -> AxisRows:
    """Return the axes after a step."""
    kind = step["type"]
    if kind == "sequence":
        for inner in step["transformations"]:
            axes = _after(said, inner, axes)
        return axes
    if kind not in _STEPS:
        known = ", ".join((*_STEPS, "sequence"))
        msg = (
            f"{said} has a transformation of the kind {str(kind)[:40]!r}, which is not "
            f"known here ({known}): write it as affine."
        )
        raise InputError(msg)
    return _STEPS[kind](step, axes)


def _named(step: Transformation, side: str, axes: AxisRows) -> list[str]:
    """Return the axes that a step counts in, or into; those so far if it is silent."""
    told = step.get(side)
    if isinstance(told, dict) and "axes" in told:
        return [str(axis["name"]) for axis in told["axes"]]
    # An element without z has none in its matrices.
    return [name for name in axes if name != "z"]


def _scale(step: Transformation, axes: AxisRows) -> AxisRows:
    names = _named(step, "input", axes)
    return axes | {
        n: axes[n] * float(k) for n, k in zip(names, step["scale"], strict=True)
    }


def _translation(step: Transformation, axes: AxisRows) -> AxisRows:
    names = _named(step, "input", axes)
    return axes | {
        n: axes[n] + float(k) * _ONE
        for n, k in zip(names, step["translation"], strict=True)
    }


def _affine(step: Transformation, axes: AxisRows) -> AxisRows:
    names = _named(step, "input", axes)
    into = _named(step, "output", axes)
    source = np.stack([*(axes[n] for n in names), _ONE])
    found = np.array(step["affine"], np.float64) @ source
    others = {n: row for n, row in axes.items() if n not in names}
    return others | dict(zip(into, found, strict=True))


def _map_axis(step: Transformation, axes: AxisRows) -> AxisRows:
    """Give axes other names: keys are the new ones, values those they were."""
    taken = step["mapAxis"]
    kept = {n: row for n, row in axes.items() if n not in taken.values()}
    return kept | {str(new): axes[old] for new, old in taken.items()}


_STEPS: dict[str, Callable[[Transformation, AxisRows], AxisRows]] = {
    "identity": lambda _, axes: axes,
    "scale": _scale,
    "translation": _translation,
    "affine": _affine,
    "mapAxis": _map_axis,
}
