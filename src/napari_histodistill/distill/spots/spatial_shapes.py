"""Shapes of SpatialData: where the rows of a table lie that has no positions itself.

``uns/spatialdata_attrs`` of such a table names two columns of obs: ``region_key``, of
which element every row is, and ``instance_key``, the id of its shape there. An element
``shapes/NAME`` holds circles (points with a radius) or polygons: since format 0.2 as
GeoParquet, before as arrays of coordinates and offsets.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.distill.spots.coordinate_systems import coordinate_system
from napari_histodistill.distill.spots.h5ad_files import (
    SPATIALDATA,
    SpotPlaces,
    read_column,
    region_column,
)
from napari_histodistill.distill.spots.parquet_files import open_parquet
from napari_histodistill.distill.spots.spot_columns import shortened
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.distill.spots.stored_zarr import ZarrTables

    Doubles = npt.NDArray[np.float64]
    Rows = npt.NDArray[np.intp]

SHAPES = "shapes"
"""Group of the shapes in a folder of SpatialData."""

_POINT, _POLYGON, _MULTIPOLYGON = "POINT", "POLYGON", "MULTIPOLYGON"
_OFFSETS = {_POINT: 0, _POLYGON: 2, _MULTIPOLYGON: 3}
_MOST_COORDINATES = 2**27
_BATCH = 2**16


@dataclass(frozen=True, slots=True, eq=False)
class _Shapes:
    """All shapes of an element, in its own coordinates."""

    ids: list[str]
    centres: Doubles  # (n, 2), (y, x)
    radii: Doubles  # (n,), NaN where a shape has none


@dataclass(frozen=True, slots=True)
class SpatialShapes:
    """The shapes in a folder of SpatialData that the rows of one table belong to.

    Attributes
    ----------
    path : Path
        The folder.
    folder : ZarrTables
        The same, open.
    table : ZarrTables
        The table, with ``uns/spatialdata_attrs``.
    """

    path: Path
    folder: ZarrTables
    table: ZarrTables

    def places(self, rows: Rows | None) -> SpotPlaces:
        """Return the centres of the shapes that rows belong to.

        Polygons lie at their centroid, and all in the coordinate system ``global`` or,
        where there is no other, the only one.

        Parameters
        ----------
        rows : ndarray or None
            ``(n,)`` rows of the table that are wanted; None for all.

        Returns
        -------
        SpotPlaces
            Of all rows of the table; NaN for those that are not wanted or are of no
            element. The size of a spot is the median diameter of the circles.

        Raises
        ------
        InputError
            If rows are of several elements or of one that is not of shapes, if a row
            has no shape or two, or if the shapes cannot be read or be laid in one
            coordinate system.
        """
        regions = self._regions()
        wanted = np.zeros(len(regions), bool)
        wanted[slice(None) if rows is None else rows] = True
        wanted &= regions != ""
        name = self._element(sorted(set(regions[wanted])))
        said = f"{self.folder.name}: {SHAPES}/{name}"
        about = self.folder.attributes(f"{SHAPES}/{name}")
        system = coordinate_system(said, about.get("coordinateTransformations"))
        shapes = self._read(name, about)
        chosen = self._matched(said, shapes, wanted)
        places = np.full((len(regions), 2), np.nan)
        places[wanted] = system.placed(shapes.centres[chosen])
        radii = shapes.radii[chosen]
        radii = radii[np.isfinite(radii) & (radii > 0)]
        note = f"Positions are those of {SHAPES}/{name}, in its system {system.name!r}."
        return SpotPlaces(
            places,
            system.unit,
            (note,),
            spot_size=2 * float(np.median(radii)) * system.factor
            if len(radii)
            else None,
        )

    def _regions(self) -> npt.NDArray[np.str_]:
        """Return the element of every row; empty text for none."""
        column = region_column(self.table)
        if not column:
            msg = (
                f'{self.folder.name}: there is no obsm["spatial"] with positions, and '
                "no column of obs that says of which shapes its rows are ("
                f"{self.table.word(f'{SPATIALDATA}/region_key')[:40] or 'region'!r})."
            )
            raise InputError(msg)
        return np.array(read_column(self.table, "obs", column), np.str_)

    def _element(self, names: list[str]) -> str:
        """Return the element of shapes that rows are of."""
        if len(names) != 1:
            msg = (
                f"{self.folder.name}: the rows of its table are of "
                f"{shortened(names) or 'no element'}: positions can be taken from the "
                "shapes of one element."
            )
            raise InputError(msg)
        name = names[0]
        if name in self.folder.names(SHAPES):
            return name
        other = next(
            (k for k in ("labels", "points") if name in self.folder.names(k)), ""
        )
        if other:
            msg = (
                f"{self.folder.name}: its table has no positions and is of {other}/"
                f"{name[:40]}, not of shapes: write its centroids into "
                'obsm["spatial"].'
            )
        else:
            msg = (
                f"{self.folder.name}: its table has no positions and is of "
                f"{name[:40]!r}, which is missing in {SHAPES} "
                f"({shortened(self.folder.names(SHAPES)) or 'empty'})."
            )
        raise InputError(msg)

    def _matched(
        self, said: str, shapes: _Shapes, wanted: npt.NDArray[np.bool_]
    ) -> Rows:
        """Return the shape of every row that is wanted."""
        key = self.table.word(f"{SPATIALDATA}/instance_key")
        if key not in self.table.names("obs"):
            msg = (
                f"{self.folder.name}: obs has no column {key[:40] or 'instance_id'!r}, "
                "which says which shape a row is of."
            )
            raise InputError(msg)
        words = read_column(self.table, "obs", key)
        ids = [words[k] for k in np.flatnonzero(wanted)]
        known = {word: k for k, word in enumerate(shapes.ids)}
        missing = [word for word in ids if word not in known]
        if missing:
            msg = (
                f"{said} lacks the shapes of {len(missing):,} of {len(ids):,} rows "
                f"(such as {missing[0][:40]!r} in {key}): are both of one section?"
            )
            raise InputError(msg)
        if len(known) < len(shapes.ids):
            msg = (
                f"{said} has {len(shapes.ids) - len(known):,} shapes with the id of "
                "another: give each its own."
            )
            raise InputError(msg)
        return np.array([known[word] for word in ids], np.intp)

    def _read(self, name: str, about: dict[str, Any]) -> _Shapes:
        at = f"{SHAPES}/{name}"
        if self.folder.is_array(f"{at}/coords"):
            return self._of_arrays(at, about)
        path = self.path / SHAPES / name / "shapes.parquet"
        if not path.exists() and not path.is_symlink():
            self.folder.refuse(f"{at} holds neither shapes.parquet nor coords")
        return _of_parquet(path)

    def _of_arrays(self, at: str, about: dict[str, Any]) -> _Shapes:
        """Read shapes as format 0.1 has them: those of ``shapely.to_ragged_array``."""
        kind = _kind(about)
        if kind not in _OFFSETS:
            self.folder.refuse(f"{at} holds {kind[:40] or 'unnamed shapes'!r}")
        coords = self.folder.numbers(f"{at}/coords", _MOST_COORDINATES)
        if coords.ndim != 2 or coords.shape[1] not in (2, 3):
            self.folder.refuse(f"{at}/coords are not (x, y)")
        ids = self.folder.texts(f"{at}/Index")
        radii = np.full(len(ids), np.nan)
        if kind == _POINT:
            centres = coords[:, 1::-1]
            if self.folder.has(f"{at}/radius"):
                radii = self.folder.numbers(f"{at}/radius", _MOST_COORDINATES)
        else:
            centres = self._centroids(at, kind, coords)
        if not len(ids) == len(centres) == len(radii):
            self.folder.refuse(f"{at} has more or fewer ids than shapes")
        return _Shapes(ids, centres, radii)

    def _centroids(self, at: str, kind: str, coords: Doubles) -> Doubles:
        """Return centroids of polygons; their offsets are checked before GEOS is."""
        import shapely

        offsets = []
        end = len(coords)
        for k in range(_OFFSETS[kind]):
            part = self.folder.numbers(f"{at}/offset{k}", _MOST_COORDINATES, kind="i8")
            part = part.ravel()
            fits = len(part) and part[0] == 0 and part[-1] == end
            if not fits or (np.diff(part) < 0).any():
                self.folder.refuse(f"{at}/offset{k} does not fit its coordinates")
            offsets.append(part)
            end = len(part) - 1
        made = shapely.from_ragged_array(
            shapely.GeometryType[kind], coords, tuple(offsets)
        )
        return _centres(made)


def _kind(about: dict[str, Any]) -> str:
    """Return the kind of shapes that format 0.1 names; empty if it names none."""
    attrs = about.get("spatialdata_attrs")
    geos = attrs.get("geos") if isinstance(attrs, dict) else None
    return str(geos.get("name", "")) if isinstance(geos, dict) else ""


def _centres(shapes: Any) -> Doubles:
    """Return the centroids of shapes, (y, x); NaN where one is empty or missing."""
    import shapely

    found = shapely.centroid(shapes)
    return np.stack([shapely.get_y(found), shapely.get_x(found)], axis=1)


def _of_parquet(path: Path) -> _Shapes:
    """Read shapes of GeoParquet, a few at a time: only their centres are kept."""
    import shapely

    with open_parquet(path, 'write positions into obsm["spatial"]') as file:
        names, metadata = file.schema_arrow.names, file.schema_arrow.metadata or {}
        geometry = _geometry_column(path.name, metadata)
        index = _index_column(metadata)
        wanted = [geometry, *(n for n in ("radius", index) if n and n in names)]
        ids: list[str] = []
        centres, radii = [np.empty((0, 2))], [np.empty(0)]
        for batch in file.iter_batches(_BATCH, columns=wanted, use_threads=False):
            known = batch.column(geometry).to_numpy(zero_copy_only=False)
            centres.append(_centres(shapely.from_wkb(known)))
            radii.append(
                batch.column("radius").to_numpy(zero_copy_only=False).astype(np.float64)
                if "radius" in wanted
                else np.full(len(known), np.nan)
            )
            if index in wanted:
                ids += map(str, batch.column(index).to_pylist())
    if index not in wanted:
        ids = _counted(metadata, sum(map(len, radii)))
    return _Shapes(ids, np.concatenate(centres), np.concatenate(radii))


def _geometry_column(name: str, metadata: dict[bytes, bytes]) -> str:
    """Return the column of shapes, as GeoParquet names it."""
    about = json.loads(metadata.get(b"geo", b"{}"))
    column = str(about.get("primary_column", ""))
    encoding = about.get("columns", {}).get(column, {}).get("encoding")
    if encoding != "WKB":
        msg = (
            f"{name} does not hold shapes as well-known binary ({encoding or 'none'}): "
            "write it again with SpatialData."
        )
        raise InputError(msg)
    return column


def _index(metadata: dict[bytes, bytes]) -> Any:
    """Return what pandas says of the index: a column's name, or a range."""
    columns = json.loads(metadata.get(b"pandas", b"{}")).get("index_columns") or [{}]
    return columns[0]


def _index_column(metadata: dict[bytes, bytes]) -> str:
    index = _index(metadata)
    return index if isinstance(index, str) else ""


def _counted(metadata: dict[bytes, bytes], count: int) -> list[str]:
    """Return ids that no column holds, since they are counted up."""
    index = _index(metadata)
    start, step = (int(index.get(key, k)) for key, k in (("start", 0), ("step", 1)))
    return [str(start + k * step) for k in range(count)]
