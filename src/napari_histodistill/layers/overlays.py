"""Overlays of a slide: class map, similarity, tissue, strokes, markers.

All are arrays of the size of the grid (or of a thumbnail) with an exact transform,
never images of the slide's size. napari must not cache them: they change in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.layers.overlay_placement import (
    image_placement,
    labels_placement,
    thumbnail_world,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy.typing as npt

    from napari_histodistill.geometry import WorldTransform
    from napari_histodistill.layers.slide_layer import LayerTuple
    from napari_histodistill.slides import TileGrid
    from napari_histodistill.students.spec import ClassSpec

VIRIDIS = (
    "#440154", "#482475", "#414487", "#355f8d", "#2a788e", "#21918c", "#22a884",
    "#44bf70", "#7ad151", "#bddf26", "#fde725",
)  # fmt: skip
"""Control points of matplotlib's viridis (CC0): perceptually uniform, colour-blind
safe, and far from every H&E hue."""

STROKE_UM = 8.0
"""Edge of a pixel of the layer that the user paints on."""

STROKE_MAX_SIDE = 2048
"""Painting is only smooth on small arrays."""

HAND_MADE = ("strokes", "tissue", "region")
"""Kinds of overlays that hold what the user has drawn: not ours to throw away."""

REGION_COLOR = "#f0e442"
"""Yellow, told from every H&E hue."""

REGION_WIDTH_PX = 3
"""Width of a region's outline on screen."""

MARKER_COLORS = {True: "#009e73", False: "#d55e00"}
"""Colours of "like this" and "not like this"; the symbols differ too."""


def class_colors(
    classes: Sequence[ClassSpec], *, hidden: Collection[int] = ()
) -> dict[int | None, str]:
    """Return napari's colour of every label: 0, unknown and hidden are transparent.

    Parameters
    ----------
    classes : sequence of ClassSpec
        Class ``k`` is label ``k + 1``.
    hidden : collection of int
        Indices of classes that are not shown.
    """
    colors: dict[int | None, str] = {None: "transparent", 0: "transparent"}
    for k, spec in enumerate(classes):
        colors[k + 1] = "transparent" if k in hidden else spec.color
    return colors


def class_map_layer(
    labels: npt.NDArray[np.uint8],
    grid: TileGrid,
    classes: Sequence[ClassSpec],
    *,
    affine: npt.NDArray[np.float64],
    name: str = "Class map",
) -> LayerTuple:
    """Return a Labels layer of the grid's size.

    Parameters
    ----------
    labels : ndarray
        ``(rows, columns)`` uint8; ``k + 1`` for class ``k``, 0 for no class. Kept, not
        copied: change it in place and refresh the layer.
    grid : TileGrid
        Grid of the cells.
    classes : sequence of ClassSpec
        Names and colours.
    affine : ndarray
        ``(3, 3)``, see :func:`~napari_histodistill.layers.overlay_placement.moved_by`.
    name : str
        Name of the layer.
    """
    kwargs = labels_placement(grid.world(), affine) | {
        "name": name,
        "colormap": class_colors(classes),
        "opacity": 0.4,
    }
    return labels, kwargs, "labels"


def hatching_layer(
    levels: Sequence[npt.NDArray[np.uint8]],
    world: WorldTransform,
    *,
    affine: npt.NDArray[np.float64],
    name: str = "Unlike the training (hatched)",
) -> LayerTuple:
    """Return a Labels layer of dark lines with light edges.

    Parameters
    ----------
    levels : sequence of ndarray
        ``(h, w)`` uint8, finest first: 1 for a line, 2 for its edge, 0 for nothing.
    world : WorldTransform
        Of the finest level.
    affine : ndarray
        ``(3, 3)``, see :func:`~napari_histodistill.layers.overlay_placement.moved_by`.
    name : str
        Name of the layer.
    """
    kwargs = labels_placement(world, affine) | {
        "name": name,
        "colormap": {None: "transparent", 0: "transparent", 1: "black", 2: "white"},
        "opacity": 0.7,
        "multiscale": True,
    }
    return list(levels), kwargs, "labels"


def similarity_colormap() -> dict[str, Any]:
    """Return viridis; cells without a value or below the limits are transparent."""
    return {
        "name": "histodistill similarity",
        "colors": list(VIRIDIS),
        "nan_color": "transparent",
        "low_color": "transparent",
    }


def similarity_limits(
    values: npt.NDArray[np.float32], threshold: float
) -> tuple[float, float]:
    """Return contrast limits that make everything below the threshold transparent."""
    high = float(np.nanmax(values)) if np.isfinite(values).any() else 1.0
    return threshold, max(high, threshold + 1e-3)


def similarity_layer(
    values: npt.NDArray[np.float32],
    grid: TileGrid,
    *,
    threshold: float,
    affine: npt.NDArray[np.float64],
    name: str = "Similarity",
) -> LayerTuple:
    """Return an Image layer of the grid's size.

    Parameters
    ----------
    values : ndarray
        ``(rows, columns)`` float32, NaN where there is no embedding.
    grid : TileGrid
        Grid of the cells.
    threshold : float
        Lower values are transparent.
    affine : ndarray
        ``(3, 3)``, see :func:`~napari_histodistill.layers.overlay_placement.moved_by`.
    name : str
        Name of the layer.
    """
    kwargs = image_placement(grid.world(), affine) | {
        "name": name,
        "colormap": similarity_colormap(),
        "contrast_limits": similarity_limits(values, threshold),
        "opacity": 0.6,
    }
    return values, kwargs, "image"


def probability_layer(
    values: npt.NDArray[np.float32],
    grid: TileGrid,
    *,
    affine: npt.NDArray[np.float64],
    name: str = "Probability",
) -> LayerTuple:
    """Return an Image layer of the grid's size, whose colours reach from 0 to 1.

    Parameters
    ----------
    values : ndarray
        ``(rows, columns)`` float32 from 0 to 1, NaN where nothing is shown. Kept, not
        copied: change it in place and refresh the layer.
    grid : TileGrid
        Grid of the cells.
    affine : ndarray
        ``(3, 3)``, see :func:`~napari_histodistill.layers.overlay_placement.moved_by`.
    name : str
        Name of the layer.
    """
    kwargs = image_placement(grid.world(), affine) | {
        "name": name,
        "colormap": similarity_colormap(),
        "contrast_limits": (0.0, 1.0),
        "opacity": 0.6,
    }
    return values, kwargs, "image"


def tissue_layer(
    mask: npt.NDArray[np.bool_],
    slide_shape: tuple[int, int],
    mpp: tuple[float, float],
    *,
    affine: npt.NDArray[np.float64],
    name: str = "Tissue",
) -> LayerTuple:
    """Return the tissue mask as Labels that the user can paint on and erase."""
    world = thumbnail_world((mask.shape[0], mask.shape[1]), slide_shape, mpp)
    kwargs = labels_placement(world, affine) | {
        "name": name,
        "colormap": {None: "transparent", 0: "transparent", 1: "#0072b2"},
        "opacity": 0.25,
    }
    return mask.astype(np.uint8), kwargs, "labels"


def stroke_shape(
    slide_shape: tuple[int, int], mpp: tuple[float, float]
) -> tuple[int, int]:
    """Return the size of the array that the user paints on: about 8 µm a pixel."""
    um = (slide_shape[0] * mpp[0], slide_shape[1] * mpp[1])
    edge = max(STROKE_UM, max(um) / STROKE_MAX_SIDE)
    # A small image gets finer pixels, so that a stroke still looks like one.
    edge = min(edge, max(um) / 256)
    return max(1, round(um[0] / edge)), max(1, round(um[1] / edge))


def stroke_layer(
    slide_shape: tuple[int, int],
    mpp: tuple[float, float],
    colors: dict[int | None, str],
    *,
    affine: npt.NDArray[np.float64],
    name: str = "Teach: strokes",
) -> LayerTuple:
    """Return an empty Labels layer to paint strokes on."""
    shape = stroke_shape(slide_shape, mpp)
    world = thumbnail_world(shape, slide_shape, mpp)
    kwargs = labels_placement(world, affine) | {
        "name": name,
        "colormap": colors,
        "opacity": 0.8,
    }
    return np.zeros(shape, np.uint8), kwargs, "labels"


def region_layer(
    mpp: tuple[float, float],
    *,
    width: float,
    affine: npt.NDArray[np.float64],
    name: str = "Regions to run on",
) -> LayerTuple:
    """Return an empty Shapes layer to draw regions on, outlines only.

    Parameters
    ----------
    mpp : tuple of float
        µm per level-0 pixel ``(y, x)``.
    width : float
        Of an outline, level-0 pixels.
    affine : ndarray
        ``(3, 3)``, see :func:`~napari_histodistill.layers.overlay_placement.moved_by`.
    name : str
        Name of the layer.
    """
    kwargs = {
        "name": name,
        "ndim": 2,
        "scale": mpp,
        "affine": affine,
        "units": ("um", "um"),
        "face_color": "transparent",
        "edge_color": REGION_COLOR,
        "edge_width": width,
        "opacity": 1.0,
        "blending": "translucent_no_depth",
    }
    return None, kwargs, "shapes"


def marker_layer(
    prompts: Sequence[tuple[float, float, bool]],
    mpp: tuple[float, float],
    *,
    affine: npt.NDArray[np.float64],
    name: str = "Like this / not like this",
) -> LayerTuple:
    """Return a Points layer of the places that the user clicked.

    Parameters
    ----------
    prompts : sequence of (y, x, like)
        Level-0 pixels, edge convention; ``like`` is False for "not like this".
    mpp : tuple of float
        µm per level-0 pixel ``(y, x)``.
    affine : ndarray
        ``(3, 3)``, see :func:`~napari_histodistill.layers.overlay_placement.moved_by`.
    name : str
        Name of the layer.
    """
    points = np.array([[y - 0.5, x - 0.5] for y, x, _ in prompts], float).reshape(-1, 2)
    kwargs: dict[str, Any] = {
        "name": name,
        "scale": mpp,
        "affine": affine,
        "units": ("um", "um"),
        "border_color": "white",
        "border_width": 0.15,
        "canvas_size_limits": (12, 18),
        "blending": "translucent_no_depth",
        "symbol": [marker_symbol(like=like) for *_, like in prompts] or "disc",
        "face_color": [MARKER_COLORS[like] for *_, like in prompts] or "white",
    }
    return points, kwargs, "points"


def question_layer(
    place: tuple[float, float],
    side: float,
    mpp: tuple[float, float],
    *,
    affine: npt.NDArray[np.float64],
    name: str = "Which class is this?",
) -> LayerTuple:
    """Return a Points layer that frames a square that is asked about.

    Parameters
    ----------
    place : tuple of float
        Centre of the square, level-0 pixels ``(y, x)``, edge convention.
    side : float
        Its side, level-0 pixels.
    mpp : tuple of float
        µm per level-0 pixel ``(y, x)``.
    affine : ndarray
        ``(3, 3)``, see :func:`~napari_histodistill.layers.overlay_placement.moved_by`.
    name : str
        Name of the layer.
    """
    kwargs: dict[str, Any] = {
        "name": name,
        "scale": mpp,
        "affine": affine,
        "units": ("um", "um"),
        "size": side,
        "symbol": "square",
        "face_color": "transparent",
        "border_color": "black",
        "border_width": 0.06,
        "canvas_size_limits": (16, 10_000),
        "blending": "translucent_no_depth",
    }
    return np.array([place], float) - 0.5, kwargs, "points"


def marker_symbol(*, like: bool) -> str:
    """Return napari's symbol of a prompt; prompts differ in shape as well as colour."""
    return "disc" if like else "cross"
