"""The pages of a TIFF sorted into levels, channels, and associated images.

A TIFF is just a bag of pages. Every vendor has another way to distinguish levels from
labels; this module is the one place that knows them all.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import SlideError
from napari_histodistill.slides.pyramid.colours import Colours, colours_of_samples
from napari_histodistill.slides.pyramid.limits import MAX_CHANNELS
from napari_histodistill.slides.tiff import metadata as meta
from napari_histodistill.slides.tiff.limits import MAX_LEVELS, bounded_pages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt
    import tifffile

Pages = tuple[Any, ...]
"""The tifffile pages of one level: one, or one per channel."""


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
    """

    levels: tuple[Pages, ...]
    colours: Colours
    vendor: str
    size: meta.PhysicalSize
    orientation: int = 1
    associated: dict[str, tuple[Any, Colours]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def layout_of(tif: tifffile.TiffFile, name: str) -> TiffLayout:
    """Sort the pages of an open TIFF.

    Raises
    ------
    SlideError
        If it holds no image that can be shown.
    """
    pages = bounded_pages(tif.pages, name)
    if not any(p.imagelength > 0 < p.imagewidth for p in pages):
        sizes = ", ".join(f"{p.imagelength} × {p.imagewidth} px" for p in pages[:4])
        msg = f"{name}: the TIFF holds no image with pixels ({sizes or 'no page'})."
        raise SlideError(msg)
    if tif.is_svs:
        return _aperio(pages, name)
    if tif.is_qpi:
        return _qptiff(pages, name)
    if tif.is_ome:
        images = meta.ome_images(pages[0].description)
        if images and all(0 <= k < len(pages) for k in images[0].pages):
            return _ome(pages, images, name)
    return _generic(pages, name)


def _aperio(pages: list[Any], name: str) -> TiffLayout:
    """Levels are tiled; label and macro are named strips; page 1 is a thumbnail."""
    first = pages[0]
    levels, others = [first], {}
    for k, page in enumerate(pages[1:], start=1):
        last_line = page.description.split("\n")[-1].strip().lower()
        if last_line.startswith("label") or page.subfiletype == 1:
            others["label"] = page
        elif last_line.startswith("macro") or page.subfiletype == 9:
            others["macro"] = page
        elif page.is_tiled:
            levels.append(page)
        elif k == 1:
            others["thumbnail"] = page
        else:
            others[f"page {k}"] = page
    found = _pyramid(first, levels)
    size = meta.aperio_size(first.description)
    return _layout(found, others, "Aperio SVS", size, name)


def _qptiff(pages: list[Any], name: str) -> TiffLayout:
    """Every page says what it is; the pages of one level are its channels."""
    by_shape: dict[tuple[int, int], list[Any]] = {}
    others, names = {}, []
    for page in pages:
        about = meta.qptiff_page(page.description)
        if about.kind == "FullResolution":
            names.append(about.channel)
        if about.kind in {"FullResolution", "ReducedResolution"}:
            by_shape.setdefault((page.imagelength, page.imagewidth), []).append(page)
        else:
            kind = {"Overview": "macro"}.get(about.kind, about.kind.lower())
            others[kind or f"page {page.index}"] = page
    if not by_shape:
        return _generic(pages, name)
    groups = sorted(by_shape.values(), key=_area, reverse=True)
    levels = tuple(tuple(g) for g in groups if len(g) == len(groups[0]))
    first = levels[0][0]
    size = meta.resolution_size(first)
    layout = _layout(levels, others, "PerkinElmer QPTIFF", size, name)
    return _named(layout, names)


def _ome(pages: list[Any], images: tuple[meta.OmeImage, ...], name: str) -> TiffLayout:
    image = images[0]
    base = tuple(pages[k] for k in image.pages)
    below = [bounded_pages(page.pages or (), name, MAX_LEVELS) for page in base]
    steps = min(map(len, below))
    levels = [base, *(tuple(pages[k] for pages in below) for k in range(steps))]
    others = {}
    for k, other in enumerate(images[1:], start=1):
        if not all(0 <= p < len(pages) for p in other.pages):
            continue
        page = pages[other.pages[0]]
        if not steps and len(other.pages) == len(base) and _same_picture(base[0], page):
            # Before sub-IFDs, Bio-Formats wrote every level as an image of its own.
            levels.append(tuple(pages[p] for p in other.pages))
        else:
            known = [n for n in ("label", "macro", "thumbnail") if n in other.name]
            others[known[0] if known else other.name or f"image {k}"] = page
    size = image.size
    if size.mpp is None and not size.notes:
        size = meta.resolution_size(base[0])
    found = _descending(levels)
    layout = _layout(found, others, "OME-TIFF", size, name, notes=image.notes)
    return _named(layout, image.channels)


def _generic(pages: list[Any], name: str) -> TiffLayout:
    """Levels are smaller copies of the first page: same samples, same proportions."""
    first = max(pages, key=lambda p: (p.imagelength * p.imagewidth, -p.index))
    rest = [p for p in pages if p is not first]
    sub = bounded_pages(first.pages or (), name, MAX_LEVELS)
    levels = [first, *(p for p in [*sub, *rest] if _same_picture(first, p))]
    found = _pyramid(first, levels)
    used = {id(p) for group in found for p in group}
    others, same_size = {}, 0
    for page in rest:
        if id(page) in used:
            continue
        if page.shape == first.shape:
            same_size += 1
        else:
            others[f"page {page.index}"] = page
    notes: tuple[str, ...] = ()
    if same_size:
        notes = (f"{same_size + 1} pages of the same size: the first is shown",)
    size = meta.resolution_size(first)
    return _layout(found, others, "TIFF", size, name, notes=notes)


def _layout(
    levels: tuple[Pages, ...],
    others: dict[str, Any],
    vendor: str,
    size: meta.PhysicalSize,
    name: str,
    *,
    notes: tuple[str, ...] = (),
) -> TiffLayout:
    first = levels[0][0]
    for pages in levels:
        kinds = {(p.imagelength, p.imagewidth, p.samplesperpixel) for p in pages}
        if len(kinds) > 1 or len({p.dtype for p in pages}) > 1:
            msg = f"{name}: the channels of a level differ in size; it is damaged."
            raise SlideError(msg)
    colours = page_colours(first, name)
    if len(levels[0]) > 1:
        numbered = tuple(f"channel {k + 1}" for k in range(len(levels[0])))
        colours = Colours(numbered, colours.convert)
    associated = {}
    for label, page in others.items():
        try:
            associated[label] = (page, page_colours(page, name))
        except SlideError:  # an exotic page beside the slide is not the slide's fault
            notes = (*notes, f"{label}: a page that cannot be shown")
    return TiffLayout(
        levels=levels,
        colours=colours,
        vendor=vendor,
        size=size,
        orientation=_orientation(first),
        associated=associated,
        notes=(*size.notes, *colours.notes, *notes),
    )


def _named(layout: TiffLayout, names: Sequence[str]) -> TiffLayout:
    """Put the file's channel names in place of numbers."""
    channels = layout.colours.channels
    if channels == ("R", "G", "B") or len(names) != len(channels):
        return layout
    named = tuple(n or c for n, c in zip(names, channels, strict=True))
    return replace(layout, colours=replace(layout.colours, channels=named))


def page_colours(page: Any, name: str) -> Colours:
    """Return what the samples of a page mean.

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
        alpha = any(int(e) in {1, 2} for e in page.extrasamples)
        return colours_of_samples(samples, dtype, alpha=alpha)
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


def _same_picture(first: Any, page: Any) -> bool:
    """Whether a page can be a coarser level of another: same samples and proportions.

    Writers round sizes up or down, so a pixel and a half of difference is allowed.
    """
    if (page.samplesperpixel, page.dtype) != (first.samplesperpixel, first.dtype):
        return False
    if not 0 < page.imagewidth < first.imagewidth or page.imagelength < 1:
        return False
    factor = first.imagewidth / page.imagewidth
    expected = first.imagelength / factor
    slack = max(1.5, first.imagelength / first.imagewidth * 1.5)
    return bool(abs(page.imagelength - expected) <= slack)


def _pyramid(first: Any, pages: list[Any]) -> tuple[Pages, ...]:
    same = [p for p in pages if p is first or _same_picture(first, p)]
    return _descending([(p,) for p in same])


def _descending(levels: Sequence[Pages]) -> tuple[Pages, ...]:
    """Sort levels, finest first, and leave out duplicates."""
    kept: list[Pages] = []
    for level in sorted(levels, key=_area, reverse=True):
        if not kept or _area(level) < _area(kept[-1]):
            kept.append(level)
    return tuple(kept)


def _area(level: Sequence[Any]) -> int:
    return int(level[0].imagelength) * int(level[0].imagewidth)
