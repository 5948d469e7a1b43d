"""Maps and students in the formats of other tools."""

from napari_histodistill.export.geojson import write_geojson, write_regions_geojson
from napari_histodistill.export.omezarr import (
    write_class_labels,
    write_difference,
    write_similarity,
)
from napari_histodistill.export.table import write_areas, write_regions, write_squares
from napari_histodistill.export.wsinfer import export_wsinfer

__all__ = [
    "export_wsinfer",
    "write_areas",
    "write_class_labels",
    "write_difference",
    "write_geojson",
    "write_regions",
    "write_regions_geojson",
    "write_similarity",
    "write_squares",
]
