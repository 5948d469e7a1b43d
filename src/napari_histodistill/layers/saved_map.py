"""A map or a label image that was written as OME-Zarr, as the layer that it was.

Class maps become Labels with their names and colours, similarity and difference maps
heatmaps with the colours of the live ones; all lie where they were written to lie. The
label images of other programs are read in the same way.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import SlideError
from napari_histodistill.export.omezarr import DIFFERENCE
from napari_histodistill.layers.comparison import difference_colormap
from napari_histodistill.layers.overlays import similarity_colormap
from napari_histodistill.layers.plain_names import plain_name
from napari_histodistill.slides.codecs.decoding import reason
from napari_histodistill.slides.formats.omezarr import (
    MAP_KEY,
    MAP_MARK,
    is_zarr_folder,
    open_group,
)
from napari_histodistill.slides.formats.zarr_images import ome_of
from napari_histodistill.slides.formats.zarr_levels import ZARR_ERRORS, read_levels
from napari_histodistill.slides.formats.zarr_limits import MAX_METADATA_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from napari_histodistill.layers.slide_layer import LayerTuple
    from napari_histodistill.slides.formats.zarr_levels import ZarrLevels

IN_MEMORY_PX = 2**26
"""A map of so many pixels is read at once; a larger one while it is looked at."""


def saved_map(path: Path) -> LayerTuple | None:
    """Return the layer of a map or label image; None for anything else.

    Parameters
    ----------
    path : Path
        Folder or ``.zip`` of an OME-Zarr.

    Returns
    -------
    tuple or None
        ``(data, kwargs, "labels" or "image")``: data ``(rows, columns)``, scale and
        translation in µm (in pixels where the file states no unit).

    Raises
    ------
    SlideError
        If it is one and is damaged.
    """
    if not _may_be_map(path):
        return None
    group, close = open_group(path)
    keep_open = False
    try:
        ome = ome_of(group)
        labels, ours = ome.get("image-label"), dict(group.attrs).get(MAP_KEY)
        if not ome.get("multiscales") or not (
            isinstance(labels, dict) or ours == MAP_MARK
        ):
            return None
        levels = read_levels(group, ome["multiscales"][0], path.name)
        data, keep_open = _data(levels)
        named = {"name": plain_name(path.name), "multiscale": len(data) > 1}
        kwargs = _place(levels) | named
        data = data if len(data) > 1 else data[0]
        if isinstance(labels, dict) and levels.arrays[0].dtype.kind in "biu":
            look = _look_of_labels(labels, ours=ours == MAP_MARK)
            return data, kwargs | look, "labels"
        return data, kwargs | _look_of_values(ome), "image"
    except ZARR_ERRORS as error:
        keep_open = False
        msg = f"{path.name}: the map cannot be read ({reason(error)})."
        raise SlideError(msg) from error
    finally:
        _close(close, keep_open=keep_open)


def _may_be_map(path: Path) -> bool:
    """Return whether a file's or folder's own metadata allow for a map.

    A slide's folder has so many chunks that it is not walked through twice.
    """
    if path.suffix.lower() == ".zip":
        return True
    if not is_zarr_folder(path):
        return False
    for name in (".zattrs", "zarr.json"):
        try:
            if (path / name).is_file():
                with (path / name).open("rb") as file:
                    text = file.read(MAX_METADATA_BYTES)
                return b"image-label" in text or MAP_MARK.encode() in text
        except OSError:  # opening it as a slide says what is wrong
            return False
    return False


def _close(close: Callable[[], None], *, keep_open: bool) -> None:
    if not keep_open:
        close()


def _data(levels: ZarrLevels) -> tuple[list[Any], bool]:
    """Return arrays ``(rows, columns)``, and whether they still read from the file."""
    if math.prod(levels.shape) <= IN_MEMORY_PX:
        return [_numbers(_plane(levels, np.asarray(_first(levels))))], False
    import dask.array as da

    return [
        _plane(levels, da.from_array(a, name=False)[_key(levels)])
        for a in levels.arrays
    ], True


def _key(levels: ZarrLevels) -> tuple[Any, ...]:
    return tuple(slice(None) if n in {"y", "x"} else 0 for n in levels.axes.names)


def _first(levels: ZarrLevels) -> Any:
    return levels.arrays[0][_key(levels)]


def _plane(levels: ZarrLevels, array: Any) -> Any:
    """Return an array of the axes y and x in this order."""
    return array if levels.axes.y < levels.axes.x else array.T


def _numbers(array: Any) -> Any:
    return array.astype(np.uint8) if array.dtype == np.bool_ else array


def _place(levels: ZarrLevels) -> dict[str, Any]:
    place = levels.place_um()
    if place is None:
        world, y, x = levels.world, levels.axes.y, levels.axes.x
        scale, shift = world.scale, world.shift
        place = (scale[y], scale[x]), (shift[y], shift[x])
        unit = "pixel"
    else:
        unit = "um"
    return {"scale": place[0], "translate": place[1], "units": (unit, unit)}


def _look_of_labels(labels: Mapping[str, Any], *, ours: bool) -> dict[str, Any]:
    look: dict[str, Any] = {
        "opacity": 0.4 if ours else 0.7,
        "blending": "translucent",
        "cache": False,
    }
    colours = _colours(labels)
    if colours:
        # A label without a colour of its own must not vanish in another's file.
        rest = "transparent" if ours else "#808080"
        look["colormap"] = {None: rest, 0: "transparent"} | colours
    features = _features(labels)
    return look | ({"features": features} if features else {})


def _colours(labels: Mapping[str, Any]) -> dict[int | None, Any]:
    found: dict[int | None, Any] = {}
    for entry in labels.get("colors") or ():
        rgba = entry.get("rgba")
        if rgba is not None and len(rgba) == 4:
            found[int(entry["label-value"])] = [float(v) / 255 for v in rgba]
    return found


def _features(labels: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return a table of labels and their properties, which napari shows on hover.

    They may come from a stranger: none of them may look like HTML.
    """
    entries = [dict(e) for e in labels.get("properties") or ()]
    known = dict.fromkeys(k for e in entries for k in e if k != "label-value")
    if not entries:
        return {}
    table: dict[str, list[Any]] = {"index": [int(e["label-value"]) for e in entries]}
    return table | {
        plain_name(str(k)): [_shown(e.get(k)) for e in entries] for k in known
    }


def _shown(value: Any) -> Any:
    """Return a number or nothing as it is, and anything else as harmless text."""
    return value if isinstance(value, int | float | None) else plain_name(str(value))


def _look_of_values(ome: Mapping[str, Any]) -> dict[str, Any]:
    low, high = _limits(ome)
    differs = str(ome["multiscales"][0].get("name")) == DIFFERENCE
    colours = (
        difference_colormap(two_ends=low < 0) if differs else similarity_colormap()
    )
    return {
        "colormap": colours,
        "contrast_limits": (low, high),
        "opacity": 0.8 if differs else 0.6,
        "rgb": False,
        "interpolation2d": "nearest",
        "blending": "translucent",
        "cache": False,
    }


def _limits(ome: Mapping[str, Any]) -> tuple[float, float]:
    channels = (ome.get("omero") or {}).get("channels") or [{}]
    window = channels[0].get("window") or {}
    low, high = float(window.get("start", 0)), float(window.get("end", 1))
    return (low, high) if math.isfinite(high - low) and low < high else (0.0, 1.0)
