"""The levels of one OME-Zarr image: their order, their size and their place in µm."""

from __future__ import annotations

import math
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_histodistill.errors import SlideError
from napari_histodistill.slides.formats.zarr_limits import check_array
from napari_histodistill.slides.tiff.metadata import (
    PhysicalSize,
    physical_size,
    um_per_unit,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# Errors that zarr and file systems raise for damaged or missing metadata.
ZARR_ERRORS = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    RuntimeError,
    AttributeError,
    EOFError,
    MemoryError,
    ArithmeticError,
    zipfile.BadZipFile,
    zlib.error,
)

DEFAULT_AXES = {2: "yx", 3: "cyx", 4: "czyx", 5: "tczyx"}
"""Names of axes if the metadata gives none (NGFF before 0.3)."""

MAX_SHIFT_UM = 1e8
"""No slide lies farther than 100 m from anything; µm of larger numbers are noise."""


@dataclass(frozen=True, slots=True)
class Axes:
    """The axes of an array: where y, x and the channels are."""

    names: tuple[str, ...]

    @property
    def y(self) -> int:
        """Index of y."""
        return self.names.index("y")

    @property
    def x(self) -> int:
        """Index of x."""
        return self.names.index("x")

    @property
    def c(self) -> int | None:
        """Index of the channels, if there is such an axis."""
        return self.names.index("c") if "c" in self.names else None


@dataclass(frozen=True, slots=True)
class Placing:
    """Scale and translation of one level, in the file's unit, one number per axis."""

    scale: tuple[float, ...]
    shift: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ZarrLevels:
    """The levels of an image.

    Attributes
    ----------
    arrays : tuple of zarr arrays
        Finest first, whatever their order in the file.
    axes : Axes
        Axes of every array.
    size : PhysicalSize
        µm per pixel of the finest level, and remarks.
    origin_um : tuple of float
        World position ``(y, x)`` of the centre of its first pixel, µm; 0 where the file
        states none, or no unit.
    world : Placing
        Of the finest level, as stated.
    units : tuple of str or None
        Units of y and x, if stated.
    """

    arrays: tuple[Any, ...]
    axes: Axes
    size: PhysicalSize
    origin_um: tuple[float, float]
    world: Placing
    units: tuple[str, str] | None

    def place_um(self) -> tuple[tuple[float, float], tuple[float, float]] | None:
        """Return scale and translation ``(y, x)`` in µm, plausible for a slide or not.

        For maps, whose pixels are far larger than a microscope's. None without units.
        """
        units = self.units or ()
        factors = [um for unit in units if (um := um_per_unit(unit)) is not None]
        if len(factors) != 2:
            return None
        (fy, fx), y, x = factors, self.axes.y, self.axes.x
        scale, shift = self.world.scale, self.world.shift
        return (scale[y] * fy, scale[x] * fx), (shift[y] * fy, shift[x] * fx)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the finest level in pixels."""
        shape = self.arrays[0].shape
        return int(shape[self.axes.y]), int(shape[self.axes.x])


def read_levels(group: Any, multiscale: Mapping[str, Any], name: str) -> ZarrLevels:
    """Return the levels of a multiscale image, with the scale that belongs to each.

    Raises
    ------
    SlideError
        If one is missing, or there are no pixels. Damaged metadata raise one of
        :data:`ZARR_ERRORS`.
    """
    stored: list[tuple[Any, Placing]] = []
    common = multiscale.get("coordinateTransformations") or ()
    for dataset in multiscale["datasets"]:
        if dataset["path"] not in group:
            msg = f"{name}: the level {dataset['path']!r} is missing."
            raise SlideError(msg)
        array = group[dataset["path"]]
        check_array(array, f"level {dataset['path']!r}")
        own = dataset.get("coordinateTransformations") or ()
        stored.append((array, _placing([*own, *common], len(array.shape))))
    if not stored or any(0 in array.shape for array, _ in stored):
        msg = f"{name}: the OME-Zarr image has no pixels."
        raise SlideError(msg)
    axes = _axes(multiscale, len(stored[0][0].shape), name)
    levels, sorting = _descending(stored, axes)
    world = levels[0][1]
    size = _size(multiscale, axes, world.scale)
    if size.mpp is not None and _contradict(levels, axes):
        note = (
            f"the levels' scales contradict their sizes, so {size.mpp.mean:.4g} µm per "
            "pixel is not believed"
        )
        size = PhysicalSize(None, (note,))
    origin, astray = _origin(multiscale, axes, world, size)
    return ZarrLevels(
        arrays=tuple(array for array, _ in levels),
        axes=axes,
        size=PhysicalSize(size.mpp, (*sorting, *size.notes, *astray)),
        origin_um=origin,
        world=world,
        units=_units(multiscale, axes),
    )


def _placing(transforms: Iterable[Mapping[str, Any]], ndim: int) -> Placing:
    """Compose scales and translations in the order in which they are applied."""
    scale, shift = [1.0] * ndim, [0.0] * ndim
    for transform in transforms:
        if transform.get("type") == "scale" and "scale" in transform:
            factors = [float(v) for v in transform["scale"]]
            scale = [a * b for a, b in zip(scale, factors, strict=True)]
            shift = [a * b for a, b in zip(shift, factors, strict=True)]
        elif transform.get("type") == "translation" and "translation" in transform:
            steps = [float(v) for v in transform["translation"]]
            shift = [a + b for a, b in zip(shift, steps, strict=True)]
    return Placing(tuple(scale), tuple(shift))


def _axes(multiscale: Mapping[str, Any], ndim: int, name: str) -> Axes:
    declared = multiscale.get("axes")
    if not declared:
        return Axes(tuple(DEFAULT_AXES.get(ndim, "")))
    names = []
    for axis in declared:
        kind = axis.get("type") if isinstance(axis, dict) else None
        label = axis["name"] if isinstance(axis, dict) else str(axis)
        names.append("c" if kind == "channel" else label.lower())
    if len(names) != ndim or not {"y", "x"} <= set(names):
        msg = f"{name}: axes {names} do not fit an array of {ndim} dimensions."
        raise SlideError(msg)
    return Axes(tuple(names))


def _descending(
    stored: Sequence[tuple[Any, Placing]], axes: Axes
) -> tuple[list[tuple[Any, Placing]], tuple[str, ...]]:
    """Sort levels with their scales; leave out any not smaller than the last."""

    def area(level: tuple[Any, Placing]) -> int:
        shape = level[0].shape
        return int(shape[axes.y]) * int(shape[axes.x])

    in_order = sorted(stored, key=area, reverse=True)
    kept: list[tuple[Any, Placing]] = []
    for level in in_order:
        if not kept or area(level) < area(kept[-1]):
            kept.append(level)
    areas = [area(level) for level in stored]
    if areas == sorted(areas, reverse=True):
        return kept, ()
    note = "levels are not stored finest first; they were sorted, scales with them"
    return kept, (note,)


def _contradict(levels: Sequence[tuple[Any, Placing]], axes: Axes) -> bool:
    """Return whether levels cover areas of different size by their scales.

    Rounding to whole pixels is allowed for, and so are levels that all repeat the scale
    of the finest: some programs write that, and it is then the finest one's.
    """
    if len({placing.scale for _, placing in levels}) == 1:
        return False
    (first, world), *others = levels
    for k in (axes.y, axes.x):
        extent = first.shape[k] * world.scale[k]
        for array, placing in others:
            step = placing.scale[k]
            if abs(array.shape[k] * step - extent) > 0.05 * extent + 2 * abs(step):
                return True
    return False


def _units(multiscale: Mapping[str, Any], axes: Axes) -> tuple[str, str] | None:
    declared = multiscale.get("axes") or []
    if not declared or not isinstance(declared[axes.y], dict):
        return None
    y, x = (str(declared[k].get("unit")) for k in (axes.y, axes.x))
    return y, x


def _size(
    multiscale: Mapping[str, Any], axes: Axes, scale: Sequence[float]
) -> PhysicalSize:
    units = _units(multiscale, axes)
    if units is None:
        return PhysicalSize(None, ("the scale has no unit and is not used",))
    factors = [um_per_unit(unit) for unit in units]
    y, x = scale[axes.y], scale[axes.x]
    if factors[0] is None or factors[1] is None:
        if math.isclose(y, 1) and math.isclose(x, 1):
            return PhysicalSize(None, ("the file does not state µm per pixel",))
        known = [unit for unit in units if unit != "None"]
        why = f"is in {known[0]!r}, which is no length" if known else "has no unit"
        note = f"the scale {y:g} {why} and is not used"
        return PhysicalSize(None, (note,))
    return physical_size(y * factors[0], x * factors[1], f"OME-Zarr scale ({units[0]})")


def _origin(
    multiscale: Mapping[str, Any], axes: Axes, world: Placing, size: PhysicalSize
) -> tuple[tuple[float, float], tuple[str, ...]]:
    """Return where the centre of the first pixel lies in µm, and remarks."""
    units = _units(multiscale, axes)
    stated = world.shift[axes.y], world.shift[axes.x]
    # Without a size in µm the slide's world is in pixels: a shift in µm has no place.
    if units is None or size.mpp is None or not size.mpp.is_plausible:
        return (0.0, 0.0), ()
    y, x = (v * (um_per_unit(u) or 0) for v, u in zip(stated, units, strict=True))
    if not (abs(y) <= MAX_SHIFT_UM and abs(x) <= MAX_SHIFT_UM):
        note = f"the translation {y:g}, {x:g} µm cannot be a slide's and is not used"
        return (0.0, 0.0), (note,)
    # -0.0 would show up in exports.
    return (y + 0.0, x + 0.0), ()
