"""Metadata of TIFF slides: µm per pixel, channels, kinds of pages."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree as ET

from napari_histodistill.geometry import Mpp
from napari_histodistill.slides.pyramid.optics import Optics, stated_optics

PRINT_DPI = (72, 96, 100, 150, 200, 240, 300, 400, 600)
"""Resolutions that programs write as a default, not as a measurement."""

UM_PER_UNIT = {
    "pm": 1e-6, "Å": 1e-4, "nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0,
    "mm": 1e3, "cm": 1e4, "m": 1e6, "in": 25400.0,
    "angstrom": 1e-4, "nanometer": 1e-3, "micrometer": 1.0, "micron": 1.0,
    "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6, "inch": 25400.0,
}  # fmt: skip

_SPELT = {"microns": "micron", "inches": "inch", '"': "inch", "in.": "inch", "u": "um"}


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
    return PhysicalSize(mpp, (mpp.problem,))


def resolution_size(page: Any) -> PhysicalSize:
    """Read XResolution, YResolution and their unit, ImageJ's or the tag, of a page.

    A printing default such as 72 dpi is a note, not a size.
    """
    per_unit = [_ratio(page, name) for name in ("YResolution", "XResolution")]
    if None in per_unit:
        return PhysicalSize()
    y, x = (float(r or 0) for r in per_unit)
    fields = imagej_fields(page.description)
    names = fields.get("yunit") or fields.get("unit", ""), fields.get("unit", "")
    units = [um_per_unit(name) for name in names]
    if None not in units:
        # ImageJ leaves ResolutionUnit at "none", or at an inch that it does not mean.
        source = (
            f"ImageJ unit {_micro(names[1])}, {x:.6g} pixels per {_micro(names[1])}"
        )
        return _of_resolution(
            (y, x), (float(units[0] or 0), float(units[1] or 0)), source
        )
    unit = _tag(page, "ResolutionUnit")
    if unit not in {2, 3}:
        return PhysicalSize()
    unit_um, unit_name = (25400.0, "inch") if unit == 2 else (10000.0, "cm")
    source = f"XResolution, {x:.6g} pixels per {unit_name}"
    return _of_resolution((y, x), (unit_um, unit_um), source)


def _of_resolution(
    per_unit: tuple[float, float], units_um: tuple[float, float], source: str
) -> PhysicalSize:
    y, x = per_unit
    # What is drawn on a micrometre scale was measured; inches and cm may be for print.
    dpi = x * 25400 / units_um[1] if units_um[1] >= 10000 else 0
    if any(abs(dpi - d) < 1e-4 * d for d in PRINT_DPI) and _alike(y, x):
        note = f"the resolution of {dpi:.0f} dpi is a printing default, not a size"
        return PhysicalSize(None, (note,))
    if x <= 0 or y <= 0:
        return physical_size(0, 0, source)
    return physical_size(units_um[0] / y, units_um[1] / x, source)


def _alike(y: float, x: float) -> bool:
    return math.isclose(y, x, rel_tol=1e-3)


def _micro(unit: str) -> str:
    return re.sub(r"\\u00b5", "µ", unit.strip(), flags=re.IGNORECASE)


def imagej_fields(description: str) -> dict[str, str]:
    """Return the ``key=value`` lines of ImageJ's description; empty for any other."""
    if not description.startswith("ImageJ="):
        return {}
    parts = (line.split("=", 1) for line in description.splitlines()[:1000])
    return {p[0].strip(): p[1].strip() for p in parts if len(p) == 2}


def aperio_fields(description: str) -> dict[str, str]:
    """Return the ``key = value`` fields of an Aperio description."""
    parts = (part.split("=", 1) for part in description.split("|")[1:])
    return {p[0].strip(): p[1].strip() for p in parts if len(p) == 2}


def aperio_optics(description: str) -> Optics:
    """Read ``AppMag`` and ``ScanScope ID`` of an Aperio description."""
    fields = aperio_fields(description)
    return stated_optics(fields.get("AppMag"), fields.get("ScanScope ID"))


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


def um_per_unit(unit: str) -> float | None:
    r"""Return the µm in a unit, however it is written; None if it is not a length.

    ImageJ writes ``\u00B5m`` in six characters; programs differ in capitals, in the
    plural, in British spelling, and in which of two µ they take.
    """
    text = re.sub(r"\\u00b5", "µ", unit.strip(), flags=re.IGNORECASE)
    if text in UM_PER_UNIT:  # first as it is: Mm is not mm
        return UM_PER_UNIT[text]
    text = text.casefold().replace("μ", "µ").replace("metre", "meter")
    text = _SPELT.get(text, text)
    for known in (text, text.removesuffix("s")):
        if known in _UM_PER_WORD:
            return _UM_PER_WORD[known]
    return None


_UM_PER_WORD = {unit: um for unit, um in UM_PER_UNIT.items() if len(unit) > 2} | {
    unit: UM_PER_UNIT[unit] for unit in ("nm", "µm", "um", "cm", "in")
}
"""Units that can be recognised in any case; not ``MM`` or ``M``, which may be mega-."""


def length_um(value: str, unit: str) -> float | None:
    """Return a length in µm, or None for a unit that is not a length."""
    factor = um_per_unit(unit)
    try:
        return None if factor is None else float(value) * factor
    except ValueError:
        return None


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
