"""Metadata of TIFF slides: µm per pixel, channels, kinds of pages."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree as ET

from napari_histodistill.geometry import Mpp
from napari_histodistill.slides.pyramid.limits import MAX_CHANNELS

PRINT_DPI = (72, 96, 100, 150, 200, 240, 300, 400, 600)
"""Resolutions that programs write as a default, not as a measurement."""

UM_PER_UNIT = {
    "pm": 1e-6, "Å": 1e-4, "nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0,
    "mm": 1e3, "cm": 1e4, "m": 1e6, "in": 25400.0,
    "angstrom": 1e-4, "nanometer": 1e-3, "micrometer": 1.0, "micron": 1.0,
    "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6, "inch": 25400.0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PhysicalSize:
    """µm per pixel, if any, and remarks on values that were not believed."""

    mpp: Mpp | None = None
    notes: tuple[str, ...] = field(default=())


def physical_size(y: float, x: float, source: str) -> PhysicalSize:
    """Return a size with provenance; implausible numbers are kept, with a note."""
    if not (math.isfinite(y) and math.isfinite(x) and y > 0 < x):
        note = f"{y:g} × {x:g} µm per pixel ({source}) is not a size and is ignored"
        return PhysicalSize(None, (note,))
    mpp = Mpp(y, x, source)
    if mpp.is_plausible:
        return PhysicalSize(mpp)
    note = f"{mpp.mean:.4g} µm per pixel ({source}) cannot be a microscope's"
    return PhysicalSize(mpp, (note,))


def resolution_size(page: Any) -> PhysicalSize:
    """Read XResolution, YResolution and ResolutionUnit of a page.

    A printing default such as 72 dpi is a note, not a size.
    """
    per_unit = [_ratio(page, name) for name in ("YResolution", "XResolution")]
    unit = _tag(page, "ResolutionUnit")
    if unit not in {2, 3} or None in per_unit:
        return PhysicalSize()
    y, x = (float(r or 0) for r in per_unit)
    unit_um, unit_name = (25400.0, "inch") if unit == 2 else (10000.0, "cm")
    dpi = x * 25400 / unit_um
    if any(abs(dpi - d) < 1e-4 * d for d in PRINT_DPI):
        note = f"the resolution of {dpi:.0f} dpi is a printing default, not a size"
        return PhysicalSize(None, (note,))
    source = f"XResolution, {x:.6g} pixels per {unit_name}"
    if x <= 0 or y <= 0:
        return physical_size(0, 0, source)
    return physical_size(unit_um / y, unit_um / x, source)


def aperio_fields(description: str) -> dict[str, str]:
    """Return the ``key = value`` fields of an Aperio description."""
    parts = (part.split("=", 1) for part in description.split("|")[1:])
    return {p[0].strip(): p[1].strip() for p in parts if len(p) == 2}


def aperio_size(description: str) -> PhysicalSize:
    """Read ``MPP`` of an Aperio description."""
    fields = aperio_fields(description)
    text = fields.get("MPP")
    if text is None:
        objective = fields.get("AppMag")
        seen = f" (objective {objective}×)" if objective else ""
        return PhysicalSize(None, (f"the file does not state µm per pixel{seen}",))
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return PhysicalSize(None, (f"MPP {text!r} is not a number",))
    return physical_size(value, value, "ImageDescription (MPP)")


def length_um(value: str, unit: str) -> float | None:
    """Return a length in µm, or None for a unit that is not a length."""
    factor = UM_PER_UNIT.get(unit)
    try:
        return None if factor is None else float(value) * factor
    except ValueError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class OmeImage:
    """One image of an OME-XML block.

    Attributes
    ----------
    name : str
        Name of the image, lower case.
    pages : tuple of int
        Page of the first focal plane and time point, one per channel (one for RGB).
    channels : tuple of str
        Names of the channels.
    size : PhysicalSize
        µm per pixel.
    notes : tuple of str
        Remarks for the user, for example that other focal planes are not shown.
    """

    name: str
    pages: tuple[int, ...]
    channels: tuple[str, ...]
    size: PhysicalSize
    notes: tuple[str, ...] = ()


def ome_images(xml: str) -> tuple[OmeImage, ...]:
    """Read all images of an OME-XML block; empty if it cannot be parsed."""
    try:
        root = ET.fromstring(xml)
    except ET.ParseError:
        return ()
    images, first_page = [], 0
    for image in root.iterfind("{*}Image"):
        pixels = image.find("{*}Pixels")
        if pixels is None:
            continue
        found, first_page = _ome_image(image, pixels, first_page)
        images.append(found)
    return tuple(images)


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
    pages = _ome_pages(pixels, sizes, order, first_page)
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
        name=(image.get("Name") or "").lower(),
        pages=pages,
        channels=names,
        size=_ome_size(pixels),
        notes=notes,
    )
    return found, first_page + math.prod(sizes.values())


def _ome_pages(
    pixels: ET.Element, sizes: dict[str, int], order: str, first_page: int
) -> tuple[int, ...]:
    """Return the page of each channel at z = 0, t = 0, following TiffData blocks."""
    strides, stride = {}, 1
    for d in order:
        strides[d] = stride
        stride *= sizes[d]
    step = strides["C"]
    pages = [first_page + c * step for c in range(sizes["C"])]
    for block in pixels.iterfind("{*}TiffData"):
        if "IFD" not in block.attrib:
            continue
        start = sum(int(block.get(f"First{d}", "0")) * strides[d] for d in "CZT")
        stop = start + int(block.get("PlaneCount", "1"))
        # Only the planes at z = 0, t = 0: a block may claim 10⁹ of them.
        first, last = max(0, -(-start // step)), min(len(pages), -(-stop // step))
        for c in range(first, last):
            pages[c] = int(block.attrib["IFD"]) + c * step - start
    return tuple(pages)


def _ome_size(pixels: ET.Element) -> PhysicalSize:
    values = []
    for axis in "YX":
        text = pixels.get(f"PhysicalSize{axis}")
        if text is None:
            return PhysicalSize()
        unit = pixels.get(f"PhysicalSize{axis}Unit", "µm")
        value = length_um(text, unit)
        if value is None:
            note = f"PhysicalSize{axis} is {text} {unit}, which is not a length"
            return PhysicalSize(None, (note,))
        values.append(value)
    return physical_size(values[0], values[1], "OME-XML PhysicalSize")


@dataclass(frozen=True, slots=True)
class QptiffPage:
    """The description of one page of a PerkinElmer/Akoya file."""

    kind: str
    channel: str


def qptiff_page(description: str) -> QptiffPage:
    """Read the kind (``FullResolution``, ``Thumbnail``…) and channel of a page."""
    text = re.sub(r"^\s*<\?xml[^>]*\?>", "", description)
    try:
        root = ET.fromstring(text)
    except ET.ParseError:
        return QptiffPage("", "")
    kind = root.findtext("ImageType") or ""
    channel = root.findtext("Name") or root.findtext("Biomarker") or ""
    return QptiffPage(kind, channel.strip())


def _tag(page: Any, name: str) -> Any:
    tag = page.tags.get(name)
    return None if tag is None else tag.value


def _ratio(page: Any, name: str) -> float | None:
    value = _tag(page, name)
    if isinstance(value, tuple) and len(value) == 2:
        return float(value[0] / value[1]) if value[1] else 0.0
    return float(value) if isinstance(value, int | float) else None
