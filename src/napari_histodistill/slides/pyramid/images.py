"""The images inside a file or folder, and the choice of the one to open."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_histodistill.geometry import Mpp

ImageRole = Literal["slide", "label", "macro", "thumbnail", "other"]
"""What an image is: only a slide is ever opened unasked."""

_WORDS: dict[str, ImageRole] = {
    "label": "label",
    "barcode": "label",
    "macro": "macro",
    "overview": "macro",
    "slidepreview": "macro",
    "thumbnail": "thumbnail",
    "thumb": "thumbnail",
    "preview": "thumbnail",
}
_BESIDE = {
    "image", "images", "img", "slide", "picture", "scan", "of", "the",
    "jpg", "jpeg", "png", "tif",
}  # fmt: skip
"""Words that say nothing about what an image is."""

MOST_NAMED = 12
"""Images that an error message lists; a file of strangers may hold thousands."""

MACRO_UM, SCAN_UM = 4.0, 2.0
"""A picture coarser than the first, in µm per pixel, is the macro of one finer than the
second: scans are made at 1 µm and finer, macros with a camera at 10 µm and more."""

SMALL_SHARE = 1 / 16
"""Of the largest picture's pixels; a smaller one of unknown scale is not its equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageChoice:
    """One of the images inside a file or folder.

    Attributes
    ----------
    name : str
        Name in the file, or a description if it has none; unique in the file.
    index : int
        Its place in ``SlideInfo.images``.
    height, width : int
        Size of its finest level in pixels.
    mpp : Mpp or None
        µm per pixel as stated for it; None if nothing is.
    role : {"slide", "label", "macro", "thumbnail", "other"}
        What it is. A label or macro image may show a patient's name.
    """

    name: str
    index: int
    height: int
    width: int
    mpp: Mpp | None = None
    role: ImageRole = "slide"


def choose_image(
    images: Sequence[ImageChoice], image: str | int | None, name: str
) -> int:
    """Return the index of the image that was asked for.

    Parameters
    ----------
    images : sequence of ImageChoice
        What is inside, at least one.
    image : str, int or None
        A name (upper or lower case, but a name written exactly so goes first), a role
        such as ``"label"``, or an index, also as text; None takes the largest slide,
        and the first of several equally large ones.
    name : str
        Name of the file, for the message.

    Raises
    ------
    InputError
        If there is no such image; the message lists those that there are.
    """
    if image is None:
        slides = [i for i in images if i.role == "slide"] or list(images)
        return max(slides, key=lambda i: (i.height * i.width, -i.index)).index
    if isinstance(image, str):
        named = _named(images, image)
        if named is not None:
            return named.index
    number = _number(image)
    if 0 <= number < len(images):
        return images[number].index
    raise InputError(_unknown(images, image, name))


def _named(images: Sequence[ImageChoice], text: str) -> ImageChoice | None:
    lower = text.casefold()
    exact = [i for i in images if i.name == text]
    alike = [i for i in images if i.name.casefold() == lower]
    role = [i for i in images if i.role == lower and i.role not in {"slide", "other"}]
    return next(iter([*exact, *alike, *role]), None)


def _number(image: str | int) -> int:
    text = str(image)
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 9 else -1


def _unknown(images: Sequence[ImageChoice], image: str | int, name: str) -> str:
    listed = [f"{i.index} {i.name!r} ({i.role})" for i in images[:MOST_NAMED]]
    if len(images) > MOST_NAMED:
        listed.append(f"and {len(images) - MOST_NAMED} more")
    return (
        f"{name}: there is no image {image!r} in it; choose one by its name or number: "
        f"{', '.join(listed)}."
    )


def roles_by_size(pictures: Sequence[tuple[int, Mpp | None]]) -> list[ImageRole]:
    """Return what images are of which no name says it, by their size.

    A scan states its µm per pixel more often than a label or macro does. So the main
    one is the largest that states a scan's, unless another is far larger.

    Parameters
    ----------
    pictures : sequence of tuple
        Number of pixels and µm per pixel, if stated, of each.
    """
    scales = [mpp.mean for _, mpp in pictures if mpp is not None]
    fine = min(scales, default=MACRO_UM) <= SCAN_UM

    def is_macro(mpp: Mpp | None) -> bool:
        return fine and mpp is not None and mpp.mean > MACRO_UM

    rest = [p for p in pictures if not is_macro(p[1])]
    scan = max((p for p in rest if is_scan(p[1])), key=_area, default=None)
    main = max(rest, key=_area, default=None)
    if main and scan and scan[0] >= SMALL_SHARE * main[0]:
        main = scan
    roles: list[ImageRole] = []
    for picture in pictures:
        if is_macro(picture[1]):
            roles.append("macro")
        else:
            slide = main is None or _equal(picture, main)
            roles.append("slide" if slide else "other")
    return roles


def is_scan(mpp: Mpp | None) -> bool:
    """Whether a µm per pixel is stated, and as fine as that of a scan."""
    return mpp is not None and mpp.is_plausible and mpp.mean <= SCAN_UM


def _area(picture: tuple[int, Mpp | None]) -> int:
    return picture[0]


def _equal(picture: tuple[int, Mpp | None], main: tuple[int, Mpp | None]) -> bool:
    """Whether a picture can be a scan as well as the main one."""
    (area, mpp), (main_area, main_mpp) = picture, main
    if mpp is not None and main_mpp is not None:
        return 0.5 <= mpp.mean / main_mpp.mean <= 2
    if is_scan(main_mpp) and area > main_area:
        return False
    return area >= SMALL_SHARE * main_area


def role_of_name(name: str) -> ImageRole | None:
    """Return what a name says an image is; None if it does not say.

    Aperio, OME, Leica, Ventana, Philips and Zeiss write ``label``, ``Label Image``,
    ``LABELIMAGE``, ``slide.svs [macro image]``, ``macro``, ``Thumbnail``. A name in
    which other words stand beside, as in ``label-free imaging``, says nothing, unless
    they come before: ``case 7 - label``.
    """
    words = re.findall(r"[a-z]+", name.casefold())
    while words:
        last = words.pop()
        role = _WORDS.get(last) or _WORDS.get(last.removesuffix("image"))
        if role is not None:
            return role
        if last not in _BESIDE:
            return None
    return None


def name_of_image(file: str, choice: ImageChoice) -> str:
    """Return the name on screen of an image that is not the file's main one."""
    return f"{file} · {choice.name}"


def digest_of_image(digest: str, choice: ImageChoice) -> str:
    """Return the fingerprint of an image that is not the file's main one, hex."""
    return hashlib.sha256(f"{digest} image {choice.index}".encode()).hexdigest()
