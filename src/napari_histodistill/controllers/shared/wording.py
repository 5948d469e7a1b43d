"""Counts, times and areas, written for people."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_histodistill.maps.progress import EmbedReport


_CLASS_NAMES = {
    "low_grade_in": ("low-grade IN", "low-grade intraepithelial neoplasia (LGIN)"),
    "high_grade_in": ("high-grade IN", "high-grade intraepithelial neoplasia (HGIN)"),
}
"""Classes of bundled models whose names are abbreviations: for a label, and in full."""


def class_label(name: str) -> str:
    """Return a class's name for a label, where there is little room."""
    return _CLASS_NAMES.get(name, (name.replace("_", " "), ""))[0]


def class_in_words(name: str) -> str:
    """Return a class's name in full."""
    return _CLASS_NAMES.get(name, ("", name.replace("_", " ")))[1]


def neutral_title(at: float | None = None) -> str:
    """Return a model's title that nobody chose: "My model, 2026-11-27".

    Not the slide's name: that is often a case's, and a model is passed on.
    """
    return f"My model, {time.strftime('%Y-%m-%d', time.localtime(at))}"


def short_name(name: str, letters: int) -> str:
    """Return a name with its middle left out where it is longer than so many letters.

    Examples
    --------
    >>> short_name("case 1 of the study.tif", 10)
    'case…y.tif'
    """
    if len(name) <= letters:
        return name
    end = letters // 2
    return f"{name[: letters - end - 1]}…{name[-end:]}"


def count_in_words(count: int) -> str:
    """Return a count of a map's squares, exactly: "1 square", "2,104 squares"."""
    return f"{count:,} square{'s' * (count != 1)}"


def about_in_words(count: int) -> str:
    """Return a count rounded to what it is worth: "about 2,100 squares"."""
    if count < 100:
        return count_in_words(count)
    digits = len(str(count)) - 2
    return f"about {round(count, -digits):,} squares"


def duration_in_words(seconds: float) -> str:
    """Return "8 s", "3 min" or "2 h 10 min"."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def area_in_words(mm2: float) -> str:
    """Return an area with the digits it is worth."""
    if mm2 >= 10:
        return f"{mm2:.0f} mm²"
    if mm2 >= 0.1:
        return f"{mm2:.2g} mm²"
    return f"{mm2:.3f} mm²"


def magnification_in_words(um_per_px: float) -> str:
    """Return what a microscope would call it: "≈ 10×" for 1 µm per screen pixel."""
    times = 10 / um_per_px
    digits = 0 if times >= 10 else 1 if times >= 1 else 2
    return f"≈ {times:.{digits}f}×"


def progress_in_words(report: EmbedReport, *, speed: bool = True) -> str:
    """Return how far a run is: "40 of 1,200 squares · 31 squares/s · 38 s left"."""
    parts = [f"{report.done:,} of {report.total:,} squares"]
    if speed:
        parts.append(f"{report.cells_per_s:,.0f} squares/s")
    if report.seconds_left is not None:
        parts.append(f"{duration_in_words(report.seconds_left)} left")
    return " · ".join(parts)


def remark_in_words(report: EmbedReport) -> str:
    """Return what a run remarks as a sentence; "" if it remarks nothing."""
    if not report.message:
        return ""
    return f"{report.message[:1].upper()}{report.message[1:]}."
