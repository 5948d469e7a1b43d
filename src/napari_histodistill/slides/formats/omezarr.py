"""OME-Zarr (NGFF 0.4 on zarr 2, 0.5 on zarr 3), as a folder or a .zip."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import ClosedSlideError, SlideError
from napari_histodistill.slides.codecs.decoding import reason
from napari_histodistill.slides.codecs.filebytes import digest_path
from napari_histodistill.slides.formats.zarr_colours import zarr_colours
from napari_histodistill.slides.formats.zarr_images import (
    MOST_HERE,
    MOST_REMOTE,
    list_images,
)
from napari_histodistill.slides.formats.zarr_levels import ZARR_ERRORS, Axes
from napari_histodistill.slides.formats.zarr_limits import check_files
from napari_histodistill.slides.pyramid.colours import Colours
from napari_histodistill.slides.pyramid.damage import probe, read_by_tiles
from napari_histodistill.slides.pyramid.images import choose_image, name_of_image
from napari_histodistill.slides.pyramid.levels import LevelInfo
from napari_histodistill.slides.pyramid.overview import with_overviews
from napari_histodistill.slides.pyramid.slide import Slide, SlideInfo
from napari_histodistill.slides.pyramid.stored import brightest, is_clear

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.slides.formats.zarr_images import ZarrImage, ZarrListing
    from napari_histodistill.slides.pyramid.colours import Ranges
    from napari_histodistill.slides.pyramid.damage import Damage
    from napari_histodistill.slides.pyramid.levels import Rect

MAP_KEY = "creator"
"""Key of a group's attributes by which our own exports are recognised."""

MAP_MARK = "napari-histodistill"
"""Its value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZarrContainer:
    """An open zarr, with all that a slide of one of its images needs to know of it.

    Attributes
    ----------
    group : zarr.Group
        An image, or a group that holds images (see ``zarr_images.py``).
    close : callable
        Closes the store; called after an error too.
    name : str
        Name of the slide in messages.
    digest : callable
        Takes the image's group and its arrays, returns the fingerprint.
    path : Path or None
        Where it is stored, unless it is on a server.
    lost : str
        Beginning of the message if reading fails, for stores on a server.
    address : str
        The http(s) address of a store on a server.
    """

    group: Any
    close: Callable[[], None]
    name: str
    digest: Callable[[Any, list[Any]], str]
    path: Path | None = None
    lost: str = ""
    address: str = ""


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
        return self._colours.apply(self.read_stored(level, rect))

    def take(self, colours: Colours) -> None:
        """Read with other colours from now on."""
        self._colours = colours

    def read_stored(self, level: int, rect: Rect) -> npt.NDArray[Any]:
        """Return stored channels ``(height, width, channels)``, not converted."""
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
        return np.ascontiguousarray(pixels)

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
        Folder or ``.zip`` of a multiscale image, or of a series, a plate or another
        collection of images.
    image : str or int, optional
        Name, path or index of the image inside; by default the largest slide.

    Raises
    ------
    SlideError
        If there is no image in it, it is damaged, or it is a map or labels.
    InputError
        If there is no such image in it.
    """
    group, close = open_group(path)
    container = ZarrContainer(
        group=group,
        close=close,
        name=path.name,
        digest=lambda *_: digest_path(path),
        path=path,
    )
    return slide_of_group(container, image=image)


def slide_of_group(
    container: ZarrContainer, *, image: str | int | None = None
) -> Slide:
    """Make a slide from an open zarr; closes it after an error.

    Raises
    ------
    SlideError
        If there is no image in it, it is damaged, or it is a map or labels.
    InputError
        If there is no such image in it.
    """
    try:
        return _slide(container, image)
    except ZARR_ERRORS as error:
        container.close()
        what = "the OME-Zarr metadata cannot be understood"
        if container.lost and isinstance(error, OSError):
            what = container.lost
        msg = f"{container.name}: {what} ({reason(error)})."
        raise SlideError(msg) from error
    except BaseException:
        container.close()
        raise


def _slide(container: ZarrContainer, image: str | int | None) -> Slide:
    name = container.name
    listing = list_images(
        container.group,
        name,
        image,
        path=container.path,
        most=MOST_REMOTE if container.lost else MOST_HERE,
    )
    found, choice = listing.images[listing.index], listing.choices[listing.index]
    if image is None:
        _refuse_map(found, name)
    elif choice.index != choose_image(listing.choices, None, name):
        name = name_of_image(name, choice)
    levels = found.levels
    source = ZarrSource(
        levels.arrays,
        levels.axes,
        Colours(()),
        container.close,
        name=name,
        lost=container.lost,
    )
    colours, ranges = _colours(found, source)
    source.take(colours)
    info = SlideInfo(
        name=name,
        path=container.path,
        address=container.address,
        backend="zarr",
        vendor="OME-Zarr",
        mpp=levels.size.mpp,
        channels=colours.channels,
        digest=_digest(container, found),
        notes=(
            *levels.size.notes,
            *colours.notes,
            *_unseen(levels.arrays[0], levels.axes),
            *_others(listing),
            *listing.notes,
        ),
        origin_um=levels.origin_um,
        colour_ranges=ranges,
        images=listing.choices,
        image=listing.index,
    )
    return Slide(with_overviews(source), info)


def _colours(found: ZarrImage, source: ZarrSource) -> tuple[Colours, Ranges]:
    """Return how channels become the slide's; see :func:`zarr_colours`."""
    levels = found.levels
    colours, ranges = zarr_colours(
        levels.arrays[0], levels.axes, found.omero, partial(brightest, source)
    )
    if colours.opaque is not None and is_clear(source, colours.alpha):
        note = "its opacity is zero everywhere and is ignored"
        opaque = colours.opaque
        return replace(opaque, notes=(*opaque.notes, note)), ranges
    return colours, ranges


def _digest(container: ZarrContainer, found: ZarrImage) -> str:
    """Return the fingerprint; of one among several images it depends on which."""
    whole = container.digest(found.group, list(found.levels.arrays))
    if found.path in {"", "0"}:  # as ever: stores of these must be found again
        return whole
    return hashlib.sha256(f"{whole} image {found.path}".encode()).hexdigest()


def _refuse_map(found: ZarrImage, name: str) -> None:
    """Refuse to take a map or labels for a slide, unless they were asked for."""
    ours = dict(found.group.attrs).get(MAP_KEY) == MAP_MARK
    if not (found.is_labels or ours):
        return
    what = "a map that this program wrote" if ours else "an image of labels"
    msg = (
        f"{name} is {what}, not a slide: open it in napari (File › Open, or drop it on "
        "the window), where it becomes a layer with its colours and its place."
    )
    raise SlideError(msg)


def _others(listing: ZarrListing) -> tuple[str, ...]:
    """Say that there is more to choose from."""
    count, shown = len(listing.choices), listing.choices[listing.index].name
    return (f"{count} images are inside; {shown} is shown",) if count > 1 else ()


def open_group(path: Path) -> tuple[Any, Callable[[], None]]:
    """Open the zarr group of a folder or zip; returns it and what closes it.

    Raises
    ------
    SlideError
        If there is none, or files of impossible size are in it.
    """
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


def _unseen(array: Any, axes: Axes) -> tuple[str, ...]:
    what = {"z": "focal planes", "t": "time points"}
    return tuple(
        f"{n} {what.get(name, name)}: the first is shown"
        for name, n in zip(axes.names, array.shape, strict=True)
        if name not in {"y", "x", "c"} and n > 1
    )
