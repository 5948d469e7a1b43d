"""A map in the format that its file's name asks for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_histodistill.errors import InputError
from napari_histodistill.export import figure, geojson, omezarr, table
from napari_histodistill.export.geojson import write_geojson
from napari_histodistill.export.omezarr import write_class_labels, write_similarity
from napari_histodistill.export.safe_writing import folder_holds_ours, holds_ours
from napari_histodistill.export.table import write_areas
from napari_histodistill.maps.classes import ClassMap

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari_histodistill.maps.alike.similarity import SimilarityMap

_OF_CLASSES: Mapping[str, Callable[[Any, Path], Path]] = {
    ".csv": write_areas,
    ".geojson": write_geojson,
    ".zarr": write_class_labels,
}
_OF_SIMILARITY: Mapping[str, Callable[[Any, Path], Path]] = {".zarr": write_similarity}


def in_the_way(path: Path) -> bool:
    """Return whether something is at a path that an export there would not replace.

    Parameters
    ----------
    path : Path
        ``.csv``, ``.geojson``, ``.png`` or ``.zarr``.
    """
    suffix = path.suffix.lower()
    if not path.exists():
        return False
    if suffix == ".zarr":
        return not folder_holds_ours(path, omezarr.is_ours)
    return not holds_ours(path, _OURS.get(suffix, geojson.is_ours))


_OURS: Mapping[str, Callable[[str], bool]] = {
    ".csv": table.is_ours,
    ".png": figure.is_ours,
}
"""Any other suffix is taken for GeoJSON."""


def export_map(found: ClassMap | SimilarityMap, path: str | Path) -> Path:
    """Write a map for other programs; the end of the file's name says in which format.

    Parameters
    ----------
    found : ClassMap or SimilarityMap
        From :func:`class_map` or :func:`similarity_map`.
    path : str or Path
        ``.geojson``: the outlines of every class, for QuPath (level-0 pixels; class
        maps only). ``.csv``: squares of the grid, mm² and per cent of every class
        (class maps only). ``.zarr``: the map as an OME-Zarr image or label image, with
        its scale in µm. An earlier export there is replaced.

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    InputError
        If there is no such format for this map, something else is at ``path``, or the
        place cannot be written to (:class:`DiskError` where the disk is full).

    See Also
    --------
    export_wsinfer : the student itself, for WSInfer and QuPath.

    Examples
    --------
    >>> from napari_histodistill import class_map, embed_slide, export_map
    >>> from napari_histodistill import load_student, open_slide
    >>> from napari_histodistill.samples import ihc_sample
    >>> student = load_student("colon-probe", device="cpu:torch")
    >>> with open_slide(ihc_sample()) as slide:
    ...     *_, last = embed_slide(slide, student, "colon.zarr")
    >>> areas = export_map(class_map("colon.zarr", student), "areas.csv")
    >>> areas.read_text().splitlines()[0].split(",")[:4]
    ['class', 'cells', 'mm2', 'percent']
    """
    target = Path(path)
    what, writers = (
        ("class map", _OF_CLASSES)
        if isinstance(found, ClassMap)
        else ("similarity map", _OF_SIMILARITY)
    )
    write = writers.get(target.suffix.lower())
    if write is None:
        known = " or ".join(writers)
        msg = f"{target}: a {what} is written as {known}; choose a name that ends so."
        raise InputError(msg)
    return write(found, target)
