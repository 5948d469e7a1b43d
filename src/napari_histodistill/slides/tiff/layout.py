"""The pages of a TIFF sorted into levels, channels, and associated images.

A TIFF is just a bag of pages. Every vendor has another way to distinguish levels from
labels; this module is the one place that knows them all.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import SlideError
from napari_histodistill.slides.pyramid.colours import (
    RGB,
    Colours,
    associated_over_white,
    colours_of_planes,
    colours_of_samples,
    deep_colours,
    name_or_none,
)
from napari_histodistill.slides.pyramid.images import (
    ImageChoice,
    choose_image,
    role_of_name,
)
from napari_histodistill.slides.pyramid.limits import MAX_CHANNELS
from napari_histodistill.slides.pyramid.optics import Optics
from napari_histodistill.slides.tiff import metadata as meta
from napari_histodistill.slides.tiff.limits import MAX_LEVELS, bounded_pages
from napari_histodistill.slides.tiff.ome import colour_order
from napari_histodistill.slides.tiff.ome_pictures import ome_pictures
from napari_histodistill.slides.tiff.pictures import (
    Pages,
    Picture,
    area_of,
    choices_of,
    descending,
    grouped,
    is_coarser,
    page_picture,
    role_of_page,
    with_coarser,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from napari_histodistill.slides.tiff.siblings import FileSet


@dataclass(frozen=True, slots=True, kw_only=True)
class TiffLayout:
    """Pages of a TIFF, sorted into the parts of a slide.

    Attributes
    ----------
    levels : tuple of tuple of TiffPage
        Pages of each level, finest first.
    colours : Colours
        How the samples of a level become channels.
    vendor : str
        Vendor and format, for the user.
    size : PhysicalSize
        µm per stored pixel of level 0.
    orientation : int
        TIFF orientation, 1 to 8.
    associated : dict
        Label, macro…: name → page and its colours.
    notes : tuple of str
        Remarks for the user.
    images : tuple of ImageChoice
        All images in the file.
    image : int
        Index of the one that is laid out.
    asks_rgb : bool
        Whether it has three channels that the file does not name.
    optics : Optics
        What the file says it was scanned with.
    """

    levels: tuple[Pages, ...]
    colours: Colours
    vendor: str
    size: meta.PhysicalSize
    orientation: int = 1
    associated: dict[str, tuple[Any, Colours]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    images: tuple[ImageChoice, ...] = ()
    image: int = 0
    asks_rgb: bool = False
    optics: Optics = field(default_factory=Optics)


def layout_of(files: FileSet, name: str, image: str | int | None = None) -> TiffLayout:
    """Sort the pages of an open TIFF, and lay out the image that was asked for.

    Parameters
    ----------
    files : FileSet
        The open TIFF, and the way to files beside it.
    name : str
        Name of the file, for messages.
    image : str or int, optional
        Name or index of the image; by default the main one.

    Raises
    ------
    SlideError
        If it holds no image that can be shown.
    InputError
        If there is no such image.
    """
    pages = files.pages
    if not any(p.imagelength > 0 < p.imagewidth for p in pages):
        sizes = ", ".join(f"{p.imagelength} × {p.imagewidth} px" for p in pages[:4])
        msg = f"{name}: the TIFF holds no image with pixels ({sizes or 'no page'})."
        raise SlideError(msg)
    vendor, pictures, notes = _pictures(files, name)
    choices = choices_of(pictures)
    chosen = choose_image(choices, image, name)
    layout = _layout(pictures[chosen], vendor, name, notes)
    beside = {
        c: p
        for c, p in zip(choices, pictures, strict=True)
        # Scenes and planes of the same size are chosen, not shown beside each other.
        if c.index != chosen
        and p.is_page
        and not (c.role == "slide" and _same_size(c, choices[chosen]))
    }
    associated, unseen = _associated(beside, name)
    equal = sum(choice.role == "slide" for choice in choices)
    if files.tif.is_ome and equal > 1:
        shown = choices[chosen].name
        unseen += (f"{equal} images that can be the slide: {shown!r} is shown",)
    return replace(
        layout,
        associated=associated,
        notes=(*layout.notes, *unseen),
        images=choices,
        image=chosen,
    )


def _same_size(one: ImageChoice, other: ImageChoice) -> bool:
    return (one.height, one.width) == (other.height, other.width)


def _associated(
    beside: Mapping[ImageChoice, Picture], name: str
) -> tuple[dict[str, tuple[Any, Colours]], tuple[str, ...]]:
    """Return pages to be shown on request, by name, and remarks on the others."""
    associated: dict[str, tuple[Any, Colours]] = {}
    notes: tuple[str, ...] = ()
    for choice, picture in beside.items():
        role = choice.role
        plain = role not in {"slide", "other"} and role not in associated
        key = role if plain else choice.name
        page = picture.levels()[0][0]
        try:
            associated[key] = (page, page_colours(page, name))
        except SlideError:  # an exotic page beside the slide is not the slide's fault
            notes = (*notes, f"{key}: a page that cannot be shown")
    return associated, notes


def _pictures(
    files: FileSet, name: str
) -> tuple[str, Sequence[Picture], tuple[str, ...]]:
    """Return the vendor's name, the pictures in the file, and remarks on the file."""
    pages, tif = files.pages, files.tif
    if tif.is_svs:
        return "Aperio SVS", _aperio(pages), ()
    if tif.is_qpi:
        pictures = _qptiff(pages)
        if pictures:
            return "PerkinElmer QPTIFF", pictures, ()
    notes: tuple[str, ...] = ()
    if tif.is_ome:
        pictures, notes = ome_pictures(files, name)
        if pictures:
            return "OME-TIFF", pictures, notes
    pictures, more = _generic(pages, name)
    return "TIFF", pictures, (*notes, *more)


def _aperio(pages: list[Any]) -> list[Picture]:
    """Levels are tiled; label and macro are named strips; page 1 is a thumbnail."""
    scans, pictures = [], []
    for k, page in enumerate(pages):
        last_line = page.description.split("\n")[-1].strip().lower()
        if last_line.startswith("label") or (k and page.subfiletype == 1):
            pictures.append(page_picture(page, "label", "label"))
        elif last_line.startswith("macro") or page.subfiletype == 9:
            pictures.append(page_picture(page, "macro", "macro"))
        elif page.is_tiled or k == 0:
            scans.append(page)
        elif k == 1:
            pictures.append(page_picture(page, "thumbnail", "thumbnail"))
        else:
            pictures.append(page_picture(page, f"page {k}", "other"))
    found = []
    for group in grouped(scans):
        said = group[0].description or pages[0].description
        title = f"page {group[0].index}"
        picture = _of_group(group, title, meta.aperio_size(said))
        found.append(replace(picture, optics=meta.aperio_optics(said)))
    if len(found) == 1:
        found[0] = replace(found[0], name="scan")
    return [*found, *pictures]


def _of_group(group: list[Any], name: str, size: meta.PhysicalSize) -> Picture:
    levels = descending([(page,) for page in group])
    return Picture(
        name=name,
        height=int(group[0].imagelength),
        width=int(group[0].imagewidth),
        levels=lambda: levels,
        size=size,
        is_page=True,
    )


def _qptiff(pages: list[Any]) -> list[Picture]:
    """Every page says what it is; grey pages of one level are its channels.

    Each full resolution in colour is a scan of its own, and so are the grey ones of
    each size.
    """
    full, reduced, pictures = [], [], []
    names: dict[int, str] = {}
    for page in pages:
        about = meta.qptiff_page(page.description)
        if about.kind == "FullResolution":
            names[page.index] = about.channel
            full.append(page)
        elif about.kind == "ReducedResolution":
            reduced.append(page)
        else:
            kind = {"Overview": "macro"}.get(about.kind, about.kind.lower())
            kind = kind or f"page {page.index}"
            role = role_of_name(kind) or "other"
            pictures.append(page_picture(page, kind, role))
    scans = [
        _qptiff_scan(levels, [names[page.index] for page in levels[0]])
        for levels in with_coarser(_stacked(full), _stacked(reduced))
    ]
    if len(scans) > 1:
        scans = [replace(s, name=f"scan {k}") for k, s in enumerate(scans, start=1)]
    return [*scans, *pictures] if scans else []


def _stacked(pages: list[Any]) -> list[Pages]:
    """Return pages as levels: one in colour alone, grey ones of a size together."""
    stacks: dict[tuple[int, ...], list[Any]] = {}
    for page in pages:
        own = (page.index,) if page.samplesperpixel >= 3 else ()
        stacks.setdefault((page.imagelength, page.imagewidth, *own), []).append(page)
    return [tuple(stack) for stack in stacks.values()]


def _qptiff_scan(levels: tuple[Pages, ...], names: list[str]) -> Picture:
    first = levels[0][0]
    return Picture(
        name="scan",
        height=int(first.imagelength),
        width=int(first.imagewidth),
        levels=lambda: levels,
        size=meta.resolution_size(first),
        channels=tuple(names),
    )


def _generic(pages: list[Any], name: str) -> tuple[list[Picture], tuple[str, ...]]:
    """Levels are smaller copies of a page: same samples, same proportions."""
    shown = [page for page in pages if page.imagelength > 0 < page.imagewidth]
    said = {id(page): role_of_page(page) for page in shown}
    groups = grouped([page for page in shown if said[id(page)] is None])
    pictures = [(g, _of_generic(g, name)) for g in groups]
    pictures += [
        ([page], page_picture(page, f"page {page.index}", said[id(page)]))
        for page in shown
        if said[id(page)] is not None
    ]
    pictures.sort(key=lambda p: p[0][0].index)
    largest = max(groups, key=area_of, default=[])
    same = sum(g[0].shape == largest[0].shape for g in groups) if largest else 0
    notes: tuple[str, ...] = ()
    if same > 1:
        notes = (f"{same} pages of the same size: the first is shown",)
    return [picture for _, picture in pictures], notes


def _of_generic(group: list[Any], name: str) -> Picture:
    first = group[0]

    def levels() -> tuple[Pages, ...]:
        sub = bounded_pages(first.pages or (), name, MAX_LEVELS)
        below = [page for page in sub if is_coarser(first, page)]
        return descending([(page,) for page in [*group, *below]])

    # A page that says it is a smaller copy, but is none of any page here.
    reduced = int(first.subfiletype) & 1 and len(group) == 1
    return Picture(
        name=f"page {first.index}",
        height=int(first.imagelength),
        width=int(first.imagewidth),
        levels=levels,
        size=meta.resolution_size(first),
        role="thumbnail" if reduced else None,
        is_page=True,
    )


def _layout(
    picture: Picture, vendor: str, name: str, notes: tuple[str, ...]
) -> TiffLayout:
    levels = picture.levels()
    first = levels[0][0]
    for pages in levels:
        kinds = {(p.imagelength, p.imagewidth, p.samplesperpixel) for p in pages}
        if len(kinds) > 1 or len({p.dtype for p in pages}) > 1:
            msg = f"{name}: the channels of a level differ in size; it is damaged."
            raise SlideError(msg)
    colours = _colours(levels[0], picture, name)
    return TiffLayout(
        levels=levels,
        colours=colours,
        asks_rgb=len(colours.channels) == 3
        and colours.channels != RGB
        and not any(map(name_or_none, colours.channels)),
        vendor=vendor,
        size=picture.size,
        optics=picture.optics,
        orientation=_orientation(first),
        notes=(*picture.size.notes, *colours.notes, *picture.notes, *notes),
    )


def _colours(pages: Pages, picture: Picture, name: str) -> Colours:
    """Return the colours of a level's pages, which are its channels if several."""
    names, top = picture.channels, picture.top
    colours = page_colours(pages[0], name, top)
    if colours.channels == RGB and len(pages) == 1:
        return colours  # whatever the file calls its three samples
    channels = colours.channels
    if len(pages) > 1:
        channels = tuple(f"channel {k + 1}" for k in range(len(pages)))
    if len(names) != len(channels):
        return replace(colours, channels=channels)
    order, dtype = colour_order(names), np.dtype(pages[0].dtype)
    if order is not None and dtype == np.uint8:
        return colours_of_planes(order, colours.convert)
    if order is not None and dtype.kind in "iuf" and colours.convert is None:
        return deep_colours(order, dtype, top=top)
    named = tuple(n or c for n, c in zip(names, channels, strict=True))
    return replace(colours, channels=named)


def page_colours(page: Any, name: str, top: float | None = None) -> Colours:
    """Return what the samples of a page mean.

    Parameters
    ----------
    page : TiffPage
        As tifffile parsed it.
    name : str
        Name of the file, for messages.
    top : float, optional
        The value of full brightness in colour deeper than 8 bit, if it is stated.

    Raises
    ------
    SlideError
        For CMYK, CIELAB and the like, whose colours would be a guess.
    """
    photometric = int(page.photometric)
    samples, dtype = int(page.samplesperpixel), np.dtype(page.dtype or "u1")
    if samples > MAX_CHANNELS:
        msg = f"{name}: {samples} samples per pixel are more than an image has."
        raise SlideError(msg)
    if photometric in {2, 6} and samples >= 3:
        extra = {int(e) for e in page.extrasamples}
        return _colours_with_opacity(samples, dtype, extra, top)
    if photometric == 3 and samples == 1:
        return Colours(("R", "G", "B"), _palette(page), 0, ("palette colours",))
    if photometric in {0, 1}:
        convert: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] | None = None
        if photometric == 0:
            convert = _inverted
        elif dtype.kind == "b":
            convert = _black_and_white
        if samples == 1:
            return Colours(("grey",), convert)
        return Colours(tuple(f"channel {k + 1}" for k in range(samples)), convert)
    kind = {5: "CMYK", 8: "CIELAB", 9: "ICCLAB"}.get(photometric, f"kind {photometric}")
    msg = f"{name}: colours of {kind} cannot be read; convert the image to RGB."
    raise SlideError(msg)


def _colours_with_opacity(
    samples: int, dtype: np.dtype[Any], extra: set[int], top: float | None
) -> Colours:
    """Return the colours of RGB; ``extra`` are the kinds of its ExtraSamples."""
    if dtype.kind in "iuf" and dtype != np.uint8:
        order = range(4) if samples == 4 and extra & {1, 2} else range(3)
        return deep_colours(order, dtype, top=top, multiplied=extra == {1})
    colours = colours_of_samples(samples, dtype, alpha=bool(extra & {1, 2}))
    if colours.opaque is not None and extra == {1}:
        return replace(colours, convert=associated_over_white)
    return colours


def _palette(page: Any) -> Callable[[npt.NDArray[Any]], npt.NDArray[Any]]:
    table = np.asarray(page.colormap).T.astype(np.uint32)
    if table.ndim != 2 or table.shape[1] != 3 or not len(table):
        msg = "its palette is not a table of colours"
        raise ValueError(msg)
    # The standard says 16 bits; some writers store 8.
    table8 = (table >> 8 if table.max(initial=0) > 255 else table).astype(np.uint8)

    def look_up(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        index = np.minimum(pixels[..., 0], len(table8) - 1)
        coloured: npt.NDArray[Any] = table8[index]
        return coloured

    return look_up


def _inverted(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if pixels.dtype == bool:
        return _black_and_white(~pixels)
    if pixels.dtype.kind == "u":
        inverted: npt.NDArray[Any] = np.iinfo(pixels.dtype).max - pixels
        return inverted
    return pixels


def _black_and_white(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return pixels.astype(np.uint8) * np.uint8(255)


def _orientation(page: Any) -> int:
    tag = page.tags.get("Orientation")
    value = int(tag.value) if tag is not None else 1
    return value if 1 <= value <= 8 else 1
