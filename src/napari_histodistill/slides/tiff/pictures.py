"""The pictures in a TIFF: what each is, and which pages are coarser levels of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_histodistill.slides.pyramid.images import (
    ImageChoice,
    is_scan,
    role_of_name,
    roles_by_size,
)
from napari_histodistill.slides.pyramid.optics import Optics
from napari_histodistill.slides.tiff.metadata import PhysicalSize, resolution_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_histodistill.geometry import Mpp
    from napari_histodistill.slides.pyramid.images import ImageRole

Pages = tuple[Any, ...]
"""The tifffile pages of one level: one, or one per channel."""

MAX_GROUPS = 64
"""Pictures that can have coarser pages; a stack of thousands of planes has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One picture of a TIFF: a slide with its levels, or something beside it.

    Attributes
    ----------
    name : str
        Name in the file, or a description.
    height, width : int
        Size in pixels.
    levels : callable
        Returns the pages of each level, finest first; a ``SlideError`` says why they
        cannot be had.
    size : PhysicalSize
        µm per stored pixel.
    role : {"label", "macro", "thumbnail", "other"} or None
        What the file says it is; None if it could be the slide.
    channels : tuple of str
        Names of the channels, if the file has any.
    notes : tuple of str
        Remarks for the user.
    is_page : bool
        Whether its finest level is a single page, which can be shown beside a slide.
    top : float or None
        The value of full brightness, if the file states how many bits are filled.
    optics : Optics
        What the file says it was scanned with.
    """

    name: str
    height: int
    width: int
    levels: Callable[[], tuple[Pages, ...]]
    size: PhysicalSize = field(default_factory=PhysicalSize)
    role: ImageRole | None = None
    channels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    is_page: bool = False
    top: float | None = None
    optics: Optics = field(default_factory=Optics)


def page_picture(page: Any, name: str, role: ImageRole | None = None) -> Picture:
    """Return a single page as a picture."""
    return Picture(
        name=name,
        height=int(page.imagelength),
        width=int(page.imagewidth),
        levels=lambda: ((page,),),
        size=resolution_size(page),
        role=role,
        is_page=True,
    )


def choices_of(pictures: Sequence[Picture]) -> tuple[ImageChoice, ...]:
    """Return pictures as choices, with a role for each and names that differ."""
    roles, taken = _roles(pictures), set[str]()
    choices = []
    for k, (picture, role) in enumerate(zip(pictures, roles, strict=True)):
        name, times = picture.name, 1
        while name.casefold() in taken:
            times += 1
            name = f"{picture.name} {times}"
        taken.add(name.casefold())
        choices.append(
            ImageChoice(
                name=name,
                index=k,
                height=picture.height,
                width=picture.width,
                mpp=picture.size.mpp,
                role=role,
            )
        )
    return tuple(choices)


def _roles(pictures: Sequence[Picture]) -> list[ImageRole]:
    """Return what each picture is: what the file says, else by its size."""
    unsaid = [p for p in pictures if p.role is None]
    found = iter(roles_by_size([(p.height * p.width, p.size.mpp) for p in unsaid]))
    return [next(found) if p.role is None else p.role for p in pictures]


def role_of_page(page: Any) -> ImageRole | None:
    """Return what a page of any TIFF is, by its name, description or kind."""
    tag = page.tags.get("PageName")
    texts = [str(tag.value) if tag is not None else "", *_short_lines(page.description)]
    for text in texts:
        role = role_of_name(text)
        if role is not None:
            return role
    kind = int(page.subfiletype) if isinstance(page.subfiletype, int) else 0
    if kind & 8:  # Aperio's mark of a macro, which others took over
        return "macro"
    return "other" if kind & 4 else None  # a mask of transparency


def _short_lines(description: str) -> list[str]:
    """Return the first and last line of a description that is a name, not a text."""
    if len(description) > 200 or description.lstrip().startswith(("{", "<")):
        return []
    lines = [line.strip() for line in description.splitlines() if line.strip()]
    return [lines[0], lines[-1]] if lines else []


def grouped(pages: Sequence[Any]) -> list[list[Any]]:
    """Return pages as pictures, each with its coarser levels, in the file's order.

    A picture is coarser if it has the same samples and proportions. If there are as
    many coarse pages of one size as pictures they fit, they belong to them in order;
    otherwise the first is a level of the first picture.
    """
    by_size: dict[tuple[Any, ...], list[Any]] = {}
    for page in pages:
        key = (page.imagelength, page.imagewidth, page.samplesperpixel, str(page.dtype))
        by_size.setdefault(key, []).append(page)
    groups: list[list[Any]] = []
    for same in sorted(by_size.values(), key=lambda g: -area_of(g)):
        owners = [g for g in groups[:MAX_GROUPS] if is_coarser(g[0], same[0])]
        taken = len(owners) if len(owners) == len(same) else min(1, len(owners))
        for owner, page in zip(owners[:taken], same[:taken], strict=True):
            owner.append(page)
        groups += [[page] for page in same[taken:]]
    return sorted(groups, key=lambda g: g[0].index)


def with_coarser(
    scans: Sequence[Pages], coarse: Sequence[Pages]
) -> list[tuple[Pages, ...]]:
    """Return the levels of each scan, given finest levels and coarser ones.

    If there are as many coarse levels of one size as scans they fit, they belong to
    them in order; otherwise each belongs to the last fitting scan before it.
    """
    found = [[scan] for scan in scans]
    by_size: dict[tuple[int, ...], list[Pages]] = {}
    for level in coarse:
        size = level[0].imagelength, level[0].imagewidth, len(level)
        by_size.setdefault(size, []).append(level)
    for same in by_size.values():
        owners = [
            levels
            for levels in found[:MAX_GROUPS]
            if len(levels[0]) == len(same[0]) and is_coarser(levels[0][0], same[0][0])
        ]
        for k, level in enumerate(same):
            before = [own for own in owners if own[0][0].index < level[0].index]
            if len(owners) == len(same):
                owners[k].append(level)
            elif before or owners:
                (before or owners)[-1 if before else 0].append(level)
    return [descending(levels) for levels in found]


def is_coarser(first: Any, page: Any) -> bool:
    """Whether a page can be a coarser level of another: same samples and proportions.

    Writers copy the µm per pixel of the finest page to the others, or state that of
    each; a page that states another one is another picture, and so is one that states
    a scan's where the larger states none.
    """
    if (page.samplesperpixel, page.dtype) != (first.samplesperpixel, first.dtype):
        return False
    fits = same_proportions(
        (first.imagelength, first.imagewidth), (page.imagelength, page.imagewidth)
    )
    if not fits:
        return False
    mpp, own = resolution_size(first).mpp, resolution_size(page).mpp
    if mpp is None and is_scan(own):
        return False  # a scan states its scale, a larger label beside it does not
    ratio = scale_ratio(mpp, own)
    shrunk = first.imagewidth / page.imagewidth
    return ratio is None or ratio < 1.1 or 0.5 < ratio / shrunk < 2


def same_proportions(first: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether a smaller size, ``(height, width)``, is the first one shrunk.

    Writers round sizes up or down, so a pixel and a half of difference is allowed.
    """
    (height, width), (other_height, other_width) = first, other
    if not 0 < other_width < width or other_height < 1:
        return False
    expected = height / (width / other_width)
    slack = max(1.5, height / width * 1.5)
    return bool(abs(other_height - expected) <= slack)


def scale_ratio(first: Mpp | None, other: Mpp | None) -> float | None:
    """Return how much coarser the other is stated to be; None if one is not stated."""
    return None if first is None or other is None else other.mean / first.mean


def descending(levels: Sequence[Pages]) -> tuple[Pages, ...]:
    """Sort levels, finest first, and leave out duplicates."""
    kept: list[Pages] = []
    for level in sorted(levels, key=area_of, reverse=True):
        if not kept or area_of(level) < area_of(kept[-1]):
            kept.append(level)
    return tuple(kept)


def area_of(level: Sequence[Any]) -> int:
    """Return the number of pixels of a level, given by its pages."""
    return int(level[0].imagelength) * int(level[0].imagewidth)
