"""The images inside a zarr: one, a series, a plate, a SpatialData folder, labels.

Layouts (NGFF 0.4 and 0.5): a group with ``multiscales`` is an image, and its group
``labels`` holds label images that belong to it; ``plate`` lists wells, whose ``well``
lists fields; ``bioformats2raw.layout`` numbers series, in the order of ``OME/series``,
named by ``OME/METADATA.ome.xml``. SpatialData keeps ``images/…`` and ``labels/…``
without such a list, so other folders are searched a few steps deep.
"""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from napari_histodistill.errors import SlideError
from napari_histodistill.slides.codecs.decoding import reason
from napari_histodistill.slides.formats.zarr_levels import (
    ZARR_ERRORS,
    ZarrLevels,
    read_levels,
)
from napari_histodistill.slides.formats.zarr_limits import MAX_METADATA_BYTES
from napari_histodistill.slides.pyramid.images import (
    ImageChoice,
    ImageRole,
    choose_image,
    role_of_name,
    roles_by_size,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

MOST_HERE, MOST_REMOTE = 256, 24
"""Images that are listed, of a folder and of a server: each is looked into."""

DEPTH = 3
"""How deep folders without a list of their own are searched."""

_SEARCHED = 512
"""Groups that are looked into at most while searching."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZarrImage:
    """One image inside a zarr, open.

    Attributes
    ----------
    path : str
        Where it is in the container; empty for the container itself.
    names : tuple of str
        The name that it is listed by, then others that find it.
    group : zarr.Group
        Its group.
    levels : ZarrLevels
        Its pixels.
    omero : mapping
        How channels are named and shown, if stated.
    is_labels : bool
        Whether its pixels are numbers of objects or classes.
    """

    path: str
    names: tuple[str, ...]
    group: Any
    levels: ZarrLevels
    omero: Mapping[str, Any]
    is_labels: bool

    @property
    def said(self) -> ImageRole | None:
        """What it is by its kind and names; None if they do not say."""
        if self.is_labels:
            return "other"
        role: ImageRole | None = None
        for known in self.names:
            role = role_of_name(known) or role
        return role

    def choice(self, index: int, name: str, role: ImageRole) -> ImageChoice:
        """Return what a person chooses by."""
        height, width = self.levels.shape
        return ImageChoice(
            name=name,
            index=index,
            height=height,
            width=width,
            mpp=self.levels.size.mpp,
            role=role,
        )


@dataclass(frozen=True, slots=True)
class ZarrListing:
    """All images that were found, and the one to open.

    Attributes
    ----------
    images : tuple of ZarrImage
        In the order of the container.
    choices : tuple of ImageChoice
        The same, as a person chooses.
    index : int
        The chosen one.
    notes : tuple of str
        What was passed over.
    """

    images: tuple[ZarrImage, ...]
    choices: tuple[ImageChoice, ...]
    index: int
    notes: tuple[str, ...] = ()


def ome_of(group: Any) -> Mapping[str, Any]:
    """Return a group's OME metadata; NGFF 0.5 moved everything one level down."""
    attributes = dict(getattr(group, "attrs", {}))
    ome = attributes.get("ome", attributes)
    return ome if isinstance(ome, dict) else {}


def list_images(
    root: Any,
    name: str,
    image: str | int | None,
    *,
    path: Path | None = None,
    most: int = MOST_HERE,
) -> ZarrListing:
    """Find the images in a container and choose one.

    Parameters
    ----------
    root : zarr.Group
        The container.
    name : str
        Its name, for messages, and of an image that is the container itself.
    image : str, int or None
        Name, path in the container or index; None takes the largest slide.
    path : Path, optional
        Where the container is on this machine, for the names in its OME-XML.
    most : int
        Images that are listed.

    Raises
    ------
    SlideError
        If there is none, or the only one is damaged.
    InputError
        If there is no such image.
    """
    paths, beyond = _first(_paths(root), most)
    if isinstance(image, str) and image.strip("/") not in paths:
        paths += [p for p in (image.strip("/"),) if p and _is_image(_child(root, p))]
    titles = _titles(path) if len(paths) > 1 else ()
    found: list[ZarrImage] = []
    notes: list[str] = []
    for k, inside in enumerate(paths):
        title = titles[k] if k < len(titles) else ""
        try:
            found.append(_read(root, inside, title, name))
        except (SlideError, *ZARR_ERRORS) as error:
            if len(paths) == 1:
                raise
            notes.append(f"the image {inside!r} is damaged ({reason(error)})")
    if not found:
        msg = (
            f"{name}: this zarr holds no OME-Zarr image (its attributes have no "
            "'multiscales')."
        )
        raise SlideError(msg)
    if beyond:
        notes.append(
            f"more images are inside than the {most} that are listed; open another by "
            "its path"
        )
    return _chosen(found, image, name, tuple(notes))


def _chosen(
    found: Sequence[ZarrImage], image: str | int | None, name: str, notes: Sequence[str]
) -> ZarrListing:
    listed = [i.names[0] for i in found]
    # A name that two images share is no name: the path is.
    names = [
        n if listed.count(n) == 1 else (i.path or n)
        for n, i in zip(listed, found, strict=True)
    ]
    unsaid = [i.levels for i in found if i.said is None]
    sizes = [(lv.shape[0] * lv.shape[1], lv.size.mpp) for lv in unsaid]
    by_size = iter(roles_by_size(sizes))
    roles = [next(by_size) if i.said is None else i.said for i in found]
    choices = tuple(
        i.choice(k, n, role)
        for k, (i, n, role) in enumerate(zip(found, names, roles, strict=True))
    )
    if isinstance(image, str) and image not in names:
        wanted = image.strip("/").casefold()
        also = [
            k
            for k, i in enumerate(found)
            if wanted in {n.casefold() for n in (*i.names, i.path)}
        ]
        image = also[0] if len(also) == 1 else image
    return ZarrListing(
        tuple(found), choices, choose_image(choices, image, name), tuple(notes)
    )


def _read(root: Any, path: str, title: str, name: str) -> ZarrImage:
    group = root[path] if path else root
    ome = ome_of(group)
    multiscale = ome["multiscales"][0]
    known = (title, path, str(multiscale.get("name") or "").strip("/"))
    last = path.rpartition("/")[2]
    names = [n for n in (*known, last if last != path else "") if n]
    if not path:
        names.insert(0, name)
    omero = ome.get("omero")
    return ZarrImage(
        path=path,
        names=tuple(dict.fromkeys(names)),
        group=group,
        levels=read_levels(group, multiscale, name),
        omero=omero if isinstance(omero, dict) else {},
        is_labels="image-label" in ome,
    )


def _first(paths: Iterator[str], most: int) -> tuple[list[str], bool]:
    found: list[str] = []
    for path in paths:
        if len(found) == most:
            return found, True
        if path not in found:
            found.append(path)
    return found, False


def _paths(root: Any) -> Iterator[str]:
    """Yield where images are in a container, labels after the image they belong to."""
    if _is_image(root):
        yield ""
        yield from _labels(root, "")
        return
    declared = _declared(root)
    for path in declared if declared is not None else _searched(root):
        image = _child(root, path)
        if _is_image(image):
            yield path
            yield from _labels(image, f"{path}/")


def _is_image(group: Any) -> bool:
    return group is not None and bool(ome_of(group).get("multiscales"))


def _child(group: Any, path: str) -> Any:
    """Return a group inside another, or None."""
    try:
        found = group[path]
    except (KeyError, ValueError, OSError, TypeError):
        return None
    return found if hasattr(found, "group_keys") else None


def _labels(image: Any, prefix: str) -> Iterator[str]:
    labels = _child(image, "labels")
    names = ome_of(labels).get("labels") if labels is not None else None
    for name in names if isinstance(names, list) else ():
        if _is_image(_child(labels, str(name))):
            yield f"{prefix}labels/{name}"


def _declared(root: Any) -> Iterator[str] | None:
    """Return the paths that a plate, a well or a series lists; None without a list."""
    ome = ome_of(root)
    if isinstance(ome.get("plate"), dict):
        return _fields(root, ome["plate"].get("wells"))
    if isinstance(ome.get("well"), dict):
        return iter(_listed(ome["well"].get("images")))
    inside = _child(root, "OME")
    series = None if inside is None else ome_of(inside).get("series")
    return iter([str(s) for s in series]) if isinstance(series, list) else None


def _fields(root: Any, wells: Any) -> Iterator[str]:
    for well in _listed(wells):
        group = _child(root, well)
        found = None if group is None else ome_of(group).get("well")
        for field in _listed(found.get("images") if isinstance(found, dict) else None):
            yield f"{well}/{field}"


def _listed(entries: Any) -> list[str]:
    found = entries if isinstance(entries, list) else []
    return [str(e["path"]) for e in found if isinstance(e, dict) and "path" in e]


def _searched(root: Any) -> Iterator[str]:
    """Yield images of a container that lists none: numbered ones, or all it holds."""
    k = 0
    while _is_image(_child(root, str(k))):
        yield str(k)
        k += 1
    if not k:
        yield from _walked(root, "", DEPTH, [_SEARCHED])


def _walked(group: Any, prefix: str, depth: int, left: list[int]) -> Iterator[str]:
    try:
        keys = sorted(group.group_keys(), key=_natural)
    except ZARR_ERRORS:  # a server that does not list what it holds
        return
    for key in keys:
        if left[0] <= 0:
            return
        left[0] -= 1
        child = _child(group, key)
        if _is_image(child):
            yield f"{prefix}{key}"
        elif child is not None and depth > 1:
            yield from _walked(child, f"{prefix}{key}/", depth - 1, left)


def _natural(key: str) -> list[tuple[int, str]]:
    """Return a key by which ``s2`` comes before ``s10``."""
    parts = re.split(r"(\d{1,9})", key)
    return [(int(p), "") if p.isdecimal() else (-1, p) for p in parts]


def _titles(path: Path | None) -> Sequence[str]:
    """Return the names of series in the OME-XML beside them; empty without one."""
    try:
        text = _ome_xml(path) if path is not None else b""
        root = ET.fromstring(text) if text else None
    except (OSError, KeyError, zipfile.BadZipFile, ET.ParseError):
        return ()
    images = () if root is None else root.iterfind("{*}Image")
    return tuple((image.get("Name") or "").strip() for image in images)


def _ome_xml(path: Path) -> bytes:
    inside = "OME/METADATA.ome.xml"
    if path.is_dir():
        file = path / inside
        large = not file.is_file() or file.stat().st_size > MAX_METADATA_BYTES
        return b"" if large else file.read_bytes()
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if n.endswith(inside)]
        for name in names[:1]:
            if archive.getinfo(name).file_size <= MAX_METADATA_BYTES:
                return archive.read(name)
    return b""
