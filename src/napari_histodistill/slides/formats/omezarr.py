"""OME-Zarr (NGFF 0.4 on zarr 2, 0.5 on zarr 3), as a folder or a .zip."""

from __future__ import annotations

import math
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import ClosedSlideError, SlideError
from napari_histodistill.slides.codecs.decoding import reason
from napari_histodistill.slides.codecs.filebytes import digest_path
from napari_histodistill.slides.formats.zarr_limits import check_array, check_files
from napari_histodistill.slides.pyramid.colours import Colours, colours_of_samples
from napari_histodistill.slides.pyramid.damage import probe, read_by_tiles
from napari_histodistill.slides.pyramid.levels import LevelInfo
from napari_histodistill.slides.pyramid.overview import with_overviews
from napari_histodistill.slides.pyramid.slide import Slide, SlideInfo
from napari_histodistill.slides.tiff.metadata import (
    UM_PER_UNIT,
    PhysicalSize,
    physical_size,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.slides.pyramid.damage import Damage
    from napari_histodistill.slides.pyramid.levels import Rect

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


class ZarrSource:
    """Levels of an OME-Zarr image.

    Parameters
    ----------
    arrays : sequence of zarr arrays
        Levels, finest first.
    axes : Axes
        Axes of every array; other axes than y, x and channels are read at index 0.
    colours : Colours
        How stored channels become the slide's channels.
    close : callable
        Closes the store.
    name : str
        Name of the slide in messages.
    lost : str
        Beginning of the message if reading fails, for stores on a server.
    """

    def __init__(
        self,
        arrays: Sequence[Any],
        axes: Axes,
        colours: Colours,
        close: Callable[[], None],
        *,
        name: str,
        lost: str = "",
    ) -> None:
        self._arrays, self._axes, self._colours = list(arrays), axes, colours
        self._close, self._name, self._lost = close, name, lost
        self._closed = False
        self.levels: Sequence[LevelInfo] = tuple(
            LevelInfo(
                height=int(a.shape[axes.y]),
                width=int(a.shape[axes.x]),
                tile_height=int(a.chunks[axes.y]),
                tile_width=int(a.chunks[axes.x]),
            )
            for a in arrays
        )

    def read_level(self, level: int, rect: Rect) -> npt.NDArray[Any]:
        """Return ``(height, width, channels)``; see :class:`PixelSource`."""
        if self._closed:
            msg = f"{self._name}: the slide was closed; open it again."
            raise ClosedSlideError(msg)
        key: list[Any] = [0] * len(self._axes.names)
        key[self._axes.y] = slice(rect.y, rect.bottom)
        key[self._axes.x] = slice(rect.x, rect.right)
        if self._axes.c is not None:
            key[self._axes.c] = slice(None)
        try:
            pixels = np.asarray(self._arrays[level][tuple(key)])
        except Exception as error:
            # Over a network, any error of the client library means the same.
            if not self._lost and not isinstance(error, ZARR_ERRORS):
                raise
            first = f"{self._lost}; " if self._lost else ""
            msg = (
                f"{self._name}: {first}level {level} cannot be read around "
                f"y {rect.y}, x {rect.x} ({reason(error)})."
            )
            raise SlideError(msg) from error
        left = [n for n in self._axes.names if n in {"y", "x", "c"}]
        if "c" in left:
            pixels = pixels.transpose([left.index(n) for n in "yxc"])
        else:
            pixels = pixels.transpose([left.index(n) for n in "yx"])[..., np.newaxis]
        return self._colours.apply(np.ascontiguousarray(pixels))

    def read_damaged(self, level: int, rect: Rect, damage: Damage) -> npt.NDArray[Any]:
        """Read what can be read and note the rest; see :func:`read_part`.

        A server that does not answer is not asked again for every chunk.
        """
        if not self._lost:
            return read_by_tiles(self, level, rect, damage)
        try:
            return self.read_level(level, rect)
        except ClosedSlideError:
            raise
        except SlideError as error:
            info = self.levels[level]
            y, x = rect.y - rect.y % info.tile_height, rect.x - rect.x % info.tile_width
            damage.add(slice(None), slice(None), str(error), (level, y, x))
            like = probe(self) if damage.like is None else damage.like
            return np.zeros((rect.height, rect.width, like.shape[-1]), like.dtype)

    def close(self) -> None:
        """Close the store."""
        if not self._closed:
            self._closed = True
            self._close()


def is_zarr_folder(path: Path) -> bool:
    """Return whether a folder is the root of a zarr group or array."""
    names = (".zgroup", ".zattrs", ".zarray", "zarr.json")
    return path.is_dir() and any((path / name).exists() for name in names)


def open_omezarr(path: Path, *, image: str | int | None = None) -> Slide:
    """Open an OME-Zarr image.

    Parameters
    ----------
    path : Path
        Folder or ``.zip`` of a multiscale image, or of a plate or collection whose
        first image is ``0``.
    image : str or int, optional
        Name or index of the image inside.

    Raises
    ------
    SlideError
        If there is no image in it or it is damaged.
    """
    del image  # only one is opened so far: the caller checks that it was meant
    group, close = _open_group(path)
    return slide_of_group(
        group, close, name=path.name, digest=lambda *_: digest_path(path), path=path
    )


def slide_of_group(
    group: Any,
    close: Callable[[], None],
    *,
    name: str,
    digest: Callable[[Any, list[Any]], str],
    path: Path | None = None,
    lost: str = "",
) -> Slide:
    """Make a slide from an open zarr group.

    Parameters
    ----------
    group : zarr.Group
        A multiscale image, or a group whose first child is one.
    close : callable
        Closes the store, also after an error.
    name : str
        Name of the slide in messages.
    digest : callable
        Takes the image's group and its arrays, returns the fingerprint.
    path : Path, optional
        Where the image is stored, unless it is on a server.
    lost : str
        Beginning of the message if reading fails, for stores on a server.

    Raises
    ------
    SlideError
        If there is no image in it or it is damaged.
    """
    try:
        group, multiscale, omero = _image(group, name)
        arrays, scales = _levels(group, multiscale, name)
        axes = _axes(multiscale, len(arrays[0].shape), name)
        arrays = _descending(arrays, axes)
        colours = _colours(arrays[0], axes, omero)
        size = _size(multiscale, axes, scales[0])
        info = SlideInfo(
            name=name,
            path=path,
            backend="zarr",
            vendor="OME-Zarr",
            mpp=size.mpp,
            channels=colours.channels,
            digest=digest(group, arrays),
            notes=(*size.notes, *colours.notes, *_unseen(arrays[0], axes)),
        )
        source = ZarrSource(arrays, axes, colours, close, name=name, lost=lost)
        return Slide(with_overviews(source), info)
    except ZARR_ERRORS as error:
        close()
        why = reason(error)
        msg = f"{name}: the OME-Zarr metadata cannot be understood ({why})."
        raise SlideError(msg) from error
    except BaseException:
        close()
        raise


def _open_group(path: Path) -> tuple[Any, Callable[[], None]]:
    import zarr
    from zarr.storage import LocalStore, ZipStore

    try:
        check_files(path)
        if path.is_dir():
            return zarr.open_group(LocalStore(path, read_only=True), mode="r"), _nothing
        store = ZipStore(path, mode="r")
        try:
            group = zarr.open_group(store, mode="r", path=_root_in_zip(path))
        except BaseException:
            store.close()
            raise
        return group, store.close
    except ZARR_ERRORS as error:
        msg = f"{path.name}: there is no readable zarr group in it ({reason(error)})."
        raise SlideError(msg) from error


def _nothing() -> None:
    """Do nothing: a folder needs no closing."""


def _root_in_zip(path: Path) -> str:
    """Return the folder of the group inside a zip; many zips contain such a folder."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    roots = [n for n in names if n.split("/")[-1] in {".zgroup", "zarr.json"}]
    if not roots:
        return ""
    return min(roots, key=lambda n: (n.count("/"), n)).rpartition("/")[0]


def _image(group: Any, name: str) -> tuple[Any, Mapping[str, Any], Mapping[str, Any]]:
    """Return the group with ``multiscales``: this one or its first child."""
    for candidate in (group, *(group[k] for k in ("0",) if k in group)):
        attributes = dict(getattr(candidate, "attrs", {}))
        # NGFF 0.5 moved everything one level down.
        ome = attributes.get("ome", attributes)
        if ome.get("multiscales"):
            return candidate, ome["multiscales"][0], ome.get("omero") or {}
    msg = (
        f"{name}: this zarr holds no OME-Zarr image (its attributes have no "
        "'multiscales')."
    )
    raise SlideError(msg)


def _levels(
    group: Any, multiscale: Mapping[str, Any], name: str
) -> tuple[list[Any], list[list[float]]]:
    arrays: list[Any] = []
    scales: list[list[float]] = []
    common = _scale(multiscale)
    for dataset in multiscale["datasets"]:
        if dataset["path"] not in group:
            msg = f"{name}: the level {dataset['path']!r} is missing."
            raise SlideError(msg)
        array = group[dataset["path"]]
        check_array(array, f"level {dataset['path']!r}")
        own = _scale(dataset) or [1.0] * len(array.shape)
        arrays.append(array)
        scales.append(
            [a * b for a, b in zip(own, common, strict=True)] if common else own
        )
    if not arrays or 0 in arrays[0].shape:
        msg = f"{name}: the OME-Zarr image has no pixels."
        raise SlideError(msg)
    return arrays, scales


def _scale(entry: Mapping[str, Any]) -> list[float] | None:
    for transform in entry.get("coordinateTransformations") or ():
        if transform.get("type") == "scale" and "scale" in transform:
            return [float(v) for v in transform["scale"]]
    return None


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


def _descending(arrays: list[Any], axes: Axes) -> list[Any]:
    """Leave out levels that are not smaller than the one before."""
    kept: list[Any] = []
    for array in sorted(arrays, key=lambda a: -a.shape[axes.y] * a.shape[axes.x]):
        area = array.shape[axes.y] * array.shape[axes.x]
        if not kept or area < kept[-1].shape[axes.y] * kept[-1].shape[axes.x]:
            kept.append(array)
    return kept


def _colours(array: Any, axes: Axes, omero: Mapping[str, Any]) -> Colours:
    count = 1 if axes.c is None else int(array.shape[axes.c])
    dtype = np.dtype(array.dtype)
    channels = omero.get("channels") or []
    if count == 1 and axes.c is None:
        return Colours(("grey",))
    if count in {3, 4} and dtype == np.uint8 and _look_like_colour(channels):
        return colours_of_samples(count, dtype)
    names = [str(c.get("label") or "") for c in channels] + [""] * count
    return Colours(
        tuple(names[k] or f"channel {k + 1}" for k in range(count)),
    )


def _look_like_colour(channels: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether 8-bit channels are colour; names or colours may deny it."""
    rgb = [("r", "red", "ff0000"), ("g", "green", "00ff00"), ("b", "blue", "0000ff")]
    for channel, (letter, word, colour) in zip(channels, rgb, strict=False):
        label = str(channel.get("label") or "").lower()
        named = label and not label.startswith("channel")
        if named and label not in {letter, word}:
            return False
        if not named and str(channel.get("color") or colour).lower() != colour:
            return False
    return True


def _size(
    multiscale: Mapping[str, Any], axes: Axes, scale: Sequence[float]
) -> PhysicalSize:
    declared = multiscale.get("axes") or []
    if not declared or not isinstance(declared[axes.y], dict):
        return PhysicalSize(None, ("the scale has no unit and is not used",))
    units = [declared[k].get("unit") for k in (axes.y, axes.x)]
    factors = [UM_PER_UNIT.get(str(u)) for u in units]
    y, x = scale[axes.y], scale[axes.x]
    if factors[0] is None or factors[1] is None:
        if math.isclose(y, 1) and math.isclose(x, 1):
            return PhysicalSize(None, ("the file does not state µm per pixel",))
        note = f"the scale {y:g} has no unit and is not used"
        return PhysicalSize(None, (note,))
    return physical_size(y * factors[0], x * factors[1], f"OME-Zarr scale ({units[0]})")


def _unseen(array: Any, axes: Axes) -> tuple[str, ...]:
    what = {"z": "focal planes", "t": "time points"}
    return tuple(
        f"{n} {what.get(name, name)}: the first is shown"
        for name, n in zip(axes.names, array.shape, strict=True)
        if name not in {"y", "x", "c"} and n > 1
    )
