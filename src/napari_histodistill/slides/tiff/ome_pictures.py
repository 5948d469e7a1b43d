"""OME-TIFF: the images that OME-XML names, with their pages in one file or several."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_histodistill.errors import SlideError
from napari_histodistill.slides.pyramid.images import is_scan, role_of_name
from napari_histodistill.slides.tiff.limits import MAX_LEVELS, bounded_pages
from napari_histodistill.slides.tiff.metadata import resolution_size
from napari_histodistill.slides.tiff.ome import OmeBlock, ome_block
from napari_histodistill.slides.tiff.pictures import (
    MAX_GROUPS,
    Pages,
    Picture,
    descending,
    same_proportions,
    scale_ratio,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_histodistill.slides.tiff.ome import OmeImage
    from napari_histodistill.slides.tiff.siblings import FileSet


def ome_pictures(files: FileSet, name: str) -> tuple[list[Picture], tuple[str, ...]]:
    """Return the pictures of an OME-TIFF, and remarks on the file.

    Empty if the XML cannot be used; the file is then sorted like any TIFF.

    Raises
    ------
    SlideError
        If a file beside it that describes it cannot be read.
    """
    block, notes = _block(files)
    files.uuid = block.uuid
    # A single picture has no channels to be mixed up, so its page can do without.
    images = [i for i in block.images if len(i.planes) > 1 or not _is_stale(i, files)]
    stale = len(block.images) - len(images)
    if stale:
        note = f"the OME-XML has {stale} image(s) without a page, which are not shown"
        notes = (*notes, note)
    owned: list[list[OmeImage]] = []
    for image in sorted(images, key=lambda i: -math.prod(_shape(i, files))):
        owner = _owner(image, owned, files)
        if owner is None:
            owned.append([image])
        else:
            owner.append(image)
    owned.sort(key=lambda group: images.index(group[0]))
    titles = [i.name or f"image {k}" for k, i in enumerate(block.images)]
    named = {id(i): title for i, title in zip(block.images, titles, strict=True)}
    return [_picture(g, files, name, named[id(g[0])]) for g in owned], notes


def _block(files: FileSet) -> tuple[OmeBlock, tuple[str, ...]]:
    block = ome_block(files.pages[0].description)
    if not block.metadata_file:
        return block, ()
    try:
        described = ome_block(files.read_xml(block.metadata_file))
    except SlideError as error:
        # This file's own pages are still what they are, only without names.
        sentence = str(error).partition(": ")[2].rstrip(".")
        return OmeBlock(), (sentence,)
    if not described.images:
        note = f"the file {block.metadata_file}, which describes it, cannot be used"
        return OmeBlock(), (note,)
    images = tuple(
        replace(image, planes=tuple(map(_in(block.metadata_file), image.planes)))
        for image in described.images
    )
    return OmeBlock(uuid=block.uuid, images=images), ()


def _in(file: str) -> Callable[[Any], Any]:
    """Return a function that puts planes without a file into one."""

    def placed(plane: Any) -> Any:
        unplaced = plane is not None and not plane.file and not plane.uuid
        return plane._replace(file=file) if unplaced else plane

    return placed


def _is_stale(image: OmeImage, files: FileSet) -> bool:
    plane = image.planes[0]
    if plane is None:
        return True
    return files.holds(plane) and not 0 <= plane.page < len(files.pages)


def _first_page(image: OmeImage, files: FileSet) -> Any:
    """Return the first page of an image, if it is in the file that was opened."""
    plane = image.planes[0]
    if plane is None or not files.holds(plane):
        return None
    return files.pages[plane.page] if 0 <= plane.page < len(files.pages) else None


def _shape(image: OmeImage, files: FileSet) -> tuple[int, int]:
    page = _first_page(image, files)
    if page is None:
        return image.height, image.width
    return int(page.imagelength), int(page.imagewidth)


def _owner(
    image: OmeImage, owned: list[list[OmeImage]], files: FileSet
) -> list[OmeImage] | None:
    """Return the larger image that this one is a coarser level of, if it is.

    Before sub-IFDs, Bio-Formats wrote every level as an image of its own.
    """
    if role_of_name(image.name) is not None:
        return None
    fitting = [
        group
        for group in owned[:MAX_GROUPS]
        if role_of_name(group[0].name) is None and _is_level(group[0], image, files)
    ]
    # Levels of several scenes are written after each scene, or in the scenes' order.
    open_to = [g for g in fitting if _shape(g[-1], files) > _shape(image, files)]
    return open_to[0] if open_to else None


def _is_level(first: OmeImage, image: OmeImage, files: FileSet) -> bool:
    page, other = _first_page(first, files), _first_page(image, files)
    if page is not None and (page.pages or not _same_pixels(page, other)):
        return False  # a file with sub-IFDs keeps its levels there
    large, small = _shape(first, files), _shape(image, files)
    if len(first.planes) != len(image.planes) or not same_proportions(large, small):
        return False
    if first.size.mpp is None and is_scan(image.size.mpp):
        return False  # a label that is larger than the scan
    ratio = scale_ratio(first.size.mpp, image.size.mpp)
    shrunk = large[1] / small[1]
    return ratio is None or 0.9 < ratio / shrunk < 1.1


def _same_pixels(page: Any, other: Any) -> bool:
    if other is None:
        return True
    return bool(
        (page.samplesperpixel, page.dtype) == (other.samplesperpixel, other.dtype)
    )


def _picture(group: list[OmeImage], files: FileSet, name: str, title: str) -> Picture:
    image, page = group[0], _first_page(group[0], files)
    size = image.size
    if size.mpp is None and not size.notes and page is not None:
        size = resolution_size(page)
    height, width = _shape(image, files)
    return Picture(
        name=title,
        height=height,
        width=width,
        levels=lambda: _levels(group, files, name),
        size=size,
        optics=image.optics,
        role=role_of_name(image.name),
        channels=image.channels,
        notes=image.notes,
        is_page=len(image.planes) == 1 and page is not None,
        top=float(2**image.bits - 1) if image.bits else None,
    )


def _levels(group: list[OmeImage], files: FileSet, name: str) -> tuple[Pages, ...]:
    base = _pages(group[0], files, name)
    below = [bounded_pages(page.pages or (), name, MAX_LEVELS) for page in base]
    steps = min(map(len, below))
    levels = [base, *(tuple(pages[k] for pages in below) for k in range(steps))]
    levels += [_pages(image, files, name) for image in group[1:]]
    return descending(levels)


def _pages(image: OmeImage, files: FileSet, name: str) -> Pages:
    """Return the page of each channel, none of them twice."""
    pages: dict[int, str] = {}
    found = []
    for k, plane in enumerate(image.planes):
        channel = repr(image.channels[k]) if k < len(image.channels) else str(k + 1)
        if plane is None:
            msg = (
                f"{name}: the OME-XML says of no page that it is channel {channel}; "
                "the file is damaged or was cut."
            )
            raise SlideError(msg)
        page = files.page_of(plane, channel)
        if id(page) in pages:
            msg = (
                f"{name}: channels {pages[id(page)]} and {channel} are said to be the "
                "same page; the file is damaged, get it again from its source."
            )
            raise SlideError(msg)
        pages[id(page)] = channel
        found.append(page)
    return tuple(found)
