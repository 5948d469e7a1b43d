"""Maps as OME-Zarr images of the grid's size, placed on the slide in µm.

OME-Zarr 0.4 (zarr version 2), not 0.5: 0.4 is what readers have supported longest, and
napari-ome-zarr reads 0.5 only with a newer ome-zarr. Scale and translation are those of
the grid, so an image lies on its slide wherever both are drawn in micrometres.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.export.record import facts_of
from napari_histodistill.export.safe_writing import new_folder
from napari_histodistill.files import read_plain
from napari_histodistill.geometry import WorldTransform
from napari_histodistill.slides.formats.zarr_limits import MAX_METADATA_BYTES
from napari_histodistill.students.trust import trust_facts

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.maps.alike.similarity import SimilarityMap
    from napari_histodistill.maps.classes import ClassMap
    from napari_histodistill.maps.difference import DifferenceMap

_VERSION = "0.4"
_MARK = "napari-histodistill"
CLASSES, SIMILARITY, DIFFERENCE = "classes", "similarity", "difference"
"""Names of our maps in their files; what reads them back goes by these."""

NO_CLASS = "no class"
"""Name of label 0."""

_CHUNK = 1024


def write_class_labels(class_map: ClassMap, path: Path | str) -> Path:
    """Write a class map as a label image with names and colours.

    Parameters
    ----------
    class_map : ClassMap
        Labels are ``k + 1`` for class ``k``, and 0 for no class.
    path : path
        A folder, for example ``classes.ome.zarr``.

    Raises
    ------
    InputError
        If something that is not an earlier export is there, or it cannot be written.
    """
    areas = class_map.areas()
    label: dict[str, Any] = {
        "version": _VERSION,
        # Label 0 is named as well: readers that check want the same labels in both.
        "colors": [{"label-value": 0, "rgba": [0, 0, 0, 0]}]
        + [
            {"label-value": k, "rgba": [*_rgb(area.color), 255]}
            for k, area in enumerate(areas, start=1)
        ],
        "properties": [{"label-value": 0, "name": NO_CLASS}]
        + [
            {"label-value": k, "name": a.name, "cells": a.cells, "mm2": a.mm2}
            for k, a in enumerate(areas, start=1)
        ],
    }
    extra: dict[str, Any] = {"image-label": label}
    if class_map.trust is not None:
        extra["trust"] = trust_facts(class_map.trust)
    if facts := facts_of(class_map):
        extra["provenance"] = facts
    world = _world(class_map)
    return _write(class_map.labels, world, Path(path), CLASSES, extra)


def write_similarity(
    similarity: SimilarityMap,
    path: Path | str,
    *,
    provenance: dict[str, Any] | None = None,
) -> Path:
    """Write a similarity map as a float32 image, NaN where nothing was computed.

    Parameters
    ----------
    similarity : SimilarityMap
        Map with values from −1 to 1.
    path : path
        A folder, for example ``similarity.ome.zarr``.
    provenance : dict, optional
        What the file says of itself, JSON: see
        :func:`~napari_histodistill.export.record.record_facts`.

    Raises
    ------
    InputError
        If something that is not an earlier export is there, or it cannot be written.
    """
    finite = similarity.values[np.isfinite(similarity.values)]
    top = float(finite.max()) if finite.size else 1.0
    channel = {
        "label": "similarity",
        "color": "FFFFFF",
        "active": True,
        "window": {"min": -1.0, "max": 1.0, "start": 0.0, "end": top},
    }
    extra: dict[str, Any] = {"omero": {"version": _VERSION, "channels": [channel]}}
    if provenance:
        extra["provenance"] = provenance
    world = _world(similarity)
    return _write(similarity.values, world, Path(path), SIMILARITY, extra)


def write_difference(
    difference: DifferenceMap,
    path: Path | str,
    *,
    provenance: dict[str, Any] | None = None,
) -> Path:
    """Write a difference map as a float32 image, NaN where nothing was compared.

    Parameters
    ----------
    difference : DifferenceMap
        0 where the students agree; for the measure ``news`` signed, in standard
        deviations.
    path : path
        A folder, for example ``difference.ome.zarr``.
    provenance : dict, optional
        What the file says of itself, JSON.

    Raises
    ------
    InputError
        If something that is not an earlier export is there, or it cannot be written.
    """
    values = difference.signed()
    top = max(float(np.nanmax(np.abs(values))), 1e-6)
    low = 0.0 if difference.ends is None else -top
    channel = {
        "label": f"difference ({difference.measure})",
        "color": "FFFFFF",
        "active": True,
        "window": {"min": low, "max": top, "start": low, "end": top},
    }
    extra: dict[str, Any] = {
        "omero": {"version": _VERSION, "channels": [channel]},
        "histodistill": {"summary": difference.summary()},
    }
    if provenance:
        extra["provenance"] = provenance
    return _write(values, _world(difference), Path(path), DIFFERENCE, extra)


def _world(found: ClassMap | SimilarityMap | DifferenceMap) -> WorldTransform:
    """Return where a map lies: on its slide, wherever that lies in its own file."""
    on_slide, (y, x) = found.grid.world(), found.origin_um
    ty, tx = on_slide.translate
    return WorldTransform(on_slide.scale, (ty + y, tx + x))


def _write(
    values: npt.NDArray[Any],
    world: WorldTransform,
    path: Path,
    name: str,
    extra: dict[str, Any],
) -> Path:
    import zarr
    from numcodecs import Blosc

    multiscale = {
        "version": _VERSION,
        "name": name,
        "axes": [
            {"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"
        ],
        "datasets": [
            {
                "path": "0",
                "coordinateTransformations": [
                    {"type": "scale", "scale": list(world.scale)},
                    {"type": "translation", "translation": list(world.translate)},
                ],
            }
        ],
    }
    attributes = {"multiscales": [multiscale], **extra, "creator": _MARK}
    with new_folder(path, is_ours) as folder:
        group = zarr.create_group(folder, zarr_format=2, attributes=attributes)
        rows, columns = values.shape
        array: Any = group.create_array(
            "0",
            shape=values.shape,
            chunks=(min(rows, _CHUNK), min(columns, _CHUNK)),
            dtype=values.dtype,
            # Read by all: ngff-zarr refuses zlib, and gzip would write the time of day
            # into every chunk, so that a resumed run had other bytes.
            compressors=Blosc(cname="lz4", clevel=5, shuffle=Blosc.SHUFFLE),
            fill_value=0,
            chunk_key_encoding={"name": "v2", "separator": "/"},
        )
        array[:] = values
    return path


def is_ours(path: Path) -> bool:
    """Return whether a folder is a map that was written here."""
    try:
        attributes = json.loads(read_plain(path / ".zattrs", MAX_METADATA_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(attributes, dict) and attributes.get("creator") == _MARK


def _rgb(color: str) -> list[int]:
    return [int(color[k : k + 2], 16) for k in (1, 3, 5)]
