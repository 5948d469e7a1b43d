"""What a panel offers where a slide's file holds several images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_histodistill.slides import ImageChoice, Slide

MOST_OFFERED = 200
"""A stack of thousands of planes is not chosen from in a list."""


@dataclass(frozen=True, slots=True)
class ImageOffer:
    """The images that can be chosen.

    Attributes
    ----------
    titles : tuple of str
        What each is, in the order of ``SlideInfo.images``.
    current : int
        The one that is open.
    """

    titles: tuple[str, ...]
    current: int


def images_offered(slide: Slide | None) -> ImageOffer | None:
    """Return the images to choose from; None where there is nothing to choose.

    A slide that was made from arrays cannot be opened again.
    """
    if slide is None or slide.home is None or len(slide.info.images) < 2:
        return None
    images = slide.info.images[: max(MOST_OFFERED, slide.info.image + 1)]
    return ImageOffer(tuple(map(image_title, images)), slide.info.image)


def image_title(choice: ImageChoice) -> str:
    """Return an image's name, size and scale, with a warning where it may be private.

    Examples
    --------
    >>> from napari_histodistill.slides import ImageChoice
    >>> scan = ImageChoice(name="scan", index=0, height=1024, width=2048)
    >>> image_title(scan)
    'scan · 1,024 × 2,048 px'
    """
    words = [choice.name]
    if choice.role not in {"slide", "other"} and choice.role not in choice.name.lower():
        words.append(choice.role)
    if choice.height:
        words.append(f"{choice.height:,} × {choice.width:,} px")
    if choice.mpp is not None:
        words.append(f"{choice.mpp.mean:.3g} µm/px")
    if choice.role in {"label", "macro"}:
        words.append("may show a name")
    return " · ".join(words)
