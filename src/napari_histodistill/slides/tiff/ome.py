"""OME-XML: the images of a file, their channels, and where each plane lies."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree as ET

from napari_histodistill.slides.pyramid.limits import MAX_CHANNELS
from napari_histodistill.slides.pyramid.optics import Optics, stated_optics
from napari_histodistill.slides.tiff.metadata import (
    PhysicalSize,
    length_um,
    physical_size,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


class Plane(NamedTuple):
    """Where one plane of an image lies.

    Attributes
    ----------
    file : str
        File that holds it, as written; empty if only its identifier is known.
    uuid : str
        Identifier of that file; empty if none is stated.
    page : int
        Number of the page in that file.
    """

    file: str
    uuid: str
    page: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OmeImage:
    """One image of an OME-XML block.

    Attributes
    ----------
    name : str
        Name of the image, as written.
    height, width : int
        As stated, px.
    planes : tuple of Plane or None
        First focal plane and time point, one per channel (one for RGB); None where the
        block lists no plane.
    channels : tuple of str
        Names of the channels.
    size : PhysicalSize
        µm per pixel.
    notes : tuple of str
        Remarks for the user, for example that other focal planes are not shown.
    bits : int
        How many bits of a value are filled, as stated; 0 if nothing is.
    optics : Optics
        Objective and microscope that the image refers to.
    """

    name: str
    height: int
    width: int
    planes: tuple[Plane | None, ...]
    channels: tuple[str, ...]
    size: PhysicalSize
    notes: tuple[str, ...] = ()
    bits: int = 0
    optics: Optics = field(default_factory=Optics)


@dataclass(frozen=True, slots=True, kw_only=True)
class OmeBlock:
    """All that a file's OME-XML says of its images.

    Attributes
    ----------
    uuid : str
        Identifier of the file itself; empty if none is stated.
    images : tuple of OmeImage
        In the order of the block.
    metadata_file : str
        File that describes the images instead of this one ("BinaryOnly"); else empty.
    """

    uuid: str = ""
    images: tuple[OmeImage, ...] = ()
    metadata_file: str = ""


def ome_block(xml: str) -> OmeBlock:
    """Read an OME-XML block; empty if it cannot be parsed.

    Raises
    ------
    ValueError
        If its numbers are not numbers, or impossible.
    """
    try:
        root = ET.fromstring(xml)
    except ET.ParseError:
        return OmeBlock()
    uuid = _uuid(root.get("UUID"))
    elsewhere = root.find("{*}BinaryOnly")
    if elsewhere is not None:
        metadata_file = elsewhere.get("MetadataFile") or ""
        return OmeBlock(uuid=uuid, metadata_file=metadata_file)
    images, first_page = [], 0
    for image in root.iterfind("{*}Image"):
        pixels = image.find("{*}Pixels")
        if pixels is None:
            continue
        found, first_page = _ome_image(image, pixels, first_page)
        images.append(replace(found, optics=_optics(root, image)))
    return OmeBlock(uuid=uuid, images=tuple(images))


def _optics(root: ET.Element, image: ET.Element) -> Optics:
    """Follow an image's references to its instrument and its objective."""

    def meant(tag: str, reference: str) -> dict[str, str]:
        at = image.find(f"{{*}}{reference}")
        number = None if at is None else at.get("ID")
        found = root.iterfind(f"{{*}}Instrument{tag}") if number else ()
        return next((one.attrib for one in found if one.get("ID") == number), {})

    number = meant("", "InstrumentRef").get("ID")
    scopes = [
        scope.attrib
        for instrument in root.iterfind("{*}Instrument")
        if number and instrument.get("ID") == number
        for scope in instrument.iterfind("{*}Microscope")
    ]
    scope = scopes[0] if scopes else {}
    return stated_optics(
        meant("/{*}Objective", "ObjectiveSettings").get("NominalMagnification"),
        *(scope.get("Manufacturer"), scope.get("Model")),
    )


def _uuid(text: str | None) -> str:
    return (text or "").strip().casefold().removeprefix("urn:uuid:")


def _ome_image(
    image: ET.Element, pixels: ET.Element, first_page: int
) -> tuple[OmeImage, int]:
    channels = pixels.findall("{*}Channel")
    samples = [int(c.get("SamplesPerPixel", "1")) for c in channels]
    sizes = {d: int(pixels.get(f"Size{d}", "1")) for d in "CZT"}
    # One page holds all samples of a channel: an RGB image has SizeC 3 but one page.
    planes = len(channels) if channels and max(samples) > 1 else sizes["C"]
    sizes["C"] = max(1, planes)
    if sizes["C"] > MAX_CHANNELS or not all(0 < n < 2**31 for n in sizes.values()):
        msg = f"its OME-XML says {sizes['C']} channels and {sizes['Z']} planes"
        raise ValueError(msg)
    order = pixels.get("DimensionOrder", "XYCZT")[2:]
    names = tuple(
        c.get("Name") or c.get("Fluor") or f"channel {k + 1}"
        for k, c in enumerate(channels)
    )
    notes = tuple(
        f"{sizes[d]} {what}: the first is shown"
        for d, what in (("Z", "focal planes"), ("T", "time points"))
        if sizes[d] > 1
    )
    found = OmeImage(
        name=(image.get("Name") or "").strip(),
        height=int(pixels.get("SizeY", "0")),
        width=int(pixels.get("SizeX", "0")),
        planes=_ome_planes(pixels, sizes, order, first_page),
        channels=names,
        size=_ome_size(pixels),
        notes=notes,
        bits=_bits(pixels),
    )
    return found, first_page + math.prod(sizes.values())


def _bits(pixels: ET.Element) -> int:
    bits = int(pixels.get("SignificantBits", "0"))
    return bits if 8 <= bits <= 32 and "int" in pixels.get("Type", "") else 0


def _ome_planes(
    pixels: ET.Element, sizes: dict[str, int], order: str, first_page: int
) -> tuple[Plane | None, ...]:
    """Return the plane of each channel at z = 0, t = 0, following TiffData blocks."""
    strides, stride = {}, 1
    for d in order:
        strides[d] = stride
        stride *= sizes[d]
    step = strides["C"]
    blocks = pixels.findall("{*}TiffData")
    # Without blocks, or in one that names no page, all planes follow one another.
    start_page = [Plane("", "", first_page + c * step) for c in range(sizes["C"])]
    if not blocks:
        return tuple(start_page)
    planes: list[Plane | None] = [None] * sizes["C"]
    for block in blocks:
        start = sum(int(block.get(f"First{d}", "0")) * strides[d] for d in "CZT")
        file, uuid = _file_of(block)
        page, count = block.get("IFD"), block.get("PlaneCount")
        if page is None:
            # By the schema the first page of the file, but files with several images
            # are written as if it were the image's own first.
            at = 0 if file or uuid else first_page
            stop = stride if count is None else start + int(count)
        else:
            at, stop = int(page), start + int(count or "1")
        # Only the planes at z = 0, t = 0: a block may claim 10⁹ of them.
        first, last = max(0, -(-start // step)), min(len(planes), -(-stop // step))
        for c in range(first, last):
            planes[c] = Plane(file, uuid, at + c * step - start)
    return tuple(planes)


def _file_of(block: ET.Element) -> tuple[str, str]:
    named = block.find("{*}UUID")
    if named is None:
        return "", ""
    return (named.get("FileName") or "").strip(), _uuid(named.text)


def _ome_size(pixels: ET.Element) -> PhysicalSize:
    values = []
    for axis in "YX":
        text = pixels.get(f"PhysicalSize{axis}")
        if text is None:
            other = "X" if axis == "Y" else "Y"
            if pixels.get(f"PhysicalSize{other}") is None:
                return PhysicalSize()
            note = f"PhysicalSize{other} is stated, PhysicalSize{axis} is not"
            return PhysicalSize(None, (note,))
        unit = pixels.get(f"PhysicalSize{axis}Unit", "µm")
        value = length_um(text, unit)
        if value is None:
            note = f"PhysicalSize{axis} is {text} {unit}, which is not a length"
            return PhysicalSize(None, (note,))
        values.append(value)
    return physical_size(values[0], values[1], "OME-XML PhysicalSize")


_COLOURS = {
    "r": "R", "red": "R", "g": "G", "green": "G", "b": "B", "blue": "B",
    "a": "A", "alpha": "A", "opacity": "A",
}  # fmt: skip


def colour_order(names: Sequence[str]) -> tuple[int, ...] | None:
    """Return where red, green, blue (and opacity) are among named channels.

    Parameters
    ----------
    names : sequence of str
        Names of channels, in any case: ``Red``, ``r``, ``Red channel``.

    Returns
    -------
    tuple of int or None
        Index of red, green, blue, and of opacity if there are four; None if the
        channels are anything else.
    """
    letters = [_COLOURS.get(_plain(name), "") for name in names]
    if sorted(letters) == ["B", "G", "R"]:
        return tuple(letters.index(letter) for letter in "RGB")
    if sorted(letters) == ["A", "B", "G", "R"]:
        return tuple(letters.index(letter) for letter in "RGBA")
    return None


def _plain(name: str) -> str:
    return re.sub(r"\bchannel\b|[^a-z]", "", name.casefold())
