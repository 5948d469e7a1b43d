"""A class map as a figure: the slide, its classes, what is unlike, and the verdict.

No name of a slide is on it: figures are passed on, and slides are called by accession
numbers.
"""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from napari_histodistill.export.record import line_of
from napari_histodistill.export.safe_writing import write_file
from napari_histodistill.students.trust import Verdict, headline, unjudged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from napari_histodistill.maps.classes import ClassArea, ClassMap
    from napari_histodistill.slides import Slide, TileGrid

    Pixels = npt.NDArray[np.uint8]
    Mask = npt.NDArray[np.bool_]

PICTURE_PX = 640
"""Longer side of the slide on the figure."""
LEGEND_PX = 280
MARGIN_PX = 20
MOST_CLASSES = 16
"""Classes in the legend, at most."""

VERDICT_COLORS = {
    Verdict.LIKE: "#00694d",
    Verdict.UNLIKE: "#b04a00",
    Verdict.TOO_LITTLE: "#4a5568",
}
"""Dark enough for white text; signs and words say the same."""

_MAKER = "napari-histodistill"
_LEVEL_PX = 2048
_SMALLEST_SIDE_PX = 24
_OPACITY, _HATCH_OPACITY = 0.4, 0.8
_PERIOD_PX, _DARK_PX, _LIGHT_PX = 8, 2, 4
_INK, _QUIET, _PAPER = (34, 34, 34), (90, 90, 90), (255, 255, 255)
_MOST_REASONS = 3
_ROW_PX, _SWATCH_PX, _BAND_PX, _FOOT_PX = 40, 18, 16, 17
_UNITS = ((1000.0, "mm"), (1.0, "µm"), (0.001, "nm"))


def is_ours(head: str) -> bool:
    """Return whether a PNG that begins so is one of these figures."""
    return f"Software\0{_MAKER}" in head


def overview(slide: Slide) -> Pixels:
    """Return all of a slide as a small picture, ``(h, w, 3)`` uint8.

    What cannot be read is striped, as :meth:`Slide.read_marked` shows it.

    Parameters
    ----------
    slide : Slide
        Open; its first three channels are red, green and blue.
    """
    sizes = [max(info.height, info.width) for info in slide.level_infos]
    level = next((k for k, n in enumerate(sizes) if n <= _LEVEL_PX), len(sizes) - 1)
    info = slide.level_infos[level]
    marked = slide.read_marked(level, 0, 0, info.height, info.width)
    pixels: Pixels = marked.pixels[..., :3]
    return pixels


def write_figure(found: ClassMap, slide: Pixels, student: str, path: Path) -> Path:
    """Write a figure as PNG; see :func:`class_figure`.

    Raises
    ------
    InputError
        If a file that is not an earlier figure is there, or it cannot be written.
    """
    return write_file(path, class_figure(found, slide, student), is_ours)


def class_figure(found: ClassMap, slide: Pixels, student: str) -> bytes:
    """Return a PNG of a class map over its slide.

    The verdict is its headline; squares that were judged and are unlike what the
    student learned from are hatched, whether or not they have a class. At most about
    1,000 px wide and high, whatever the slide's size. The line at its foot says where
    the map comes from, see :func:`~napari_histodistill.export.record.line_of`.

    Parameters
    ----------
    found : ClassMap
        The map, with ``trust`` where the slide was judged.
    slide : ndarray
        ``(h, w, 3)`` uint8: all of the slide, of any size; see :func:`overview`.
    student : str
        The student's name.
    """
    picture = _mapped(found, slide)
    trust = found.trust or unjudged()
    words = headline(trust, student)
    reasons = trust.reasons[:_MOST_REASONS]
    left = max(picture.width, PICTURE_PX // 2)
    width = left + LEGEND_PX + 3 * MARGIN_PX
    room = width - 2 * MARGIN_PX
    title = _wrapped(words, _font(18, bold=True), room - 44)
    below = [line for r in reasons for line in _wrapped(r, _font(13), room)]
    band = 2 * _BAND_PX + 24 * len(title)
    top = band + MARGIN_PX // 2 + 18 * len(below) + MARGIN_PX
    rows = _legend_rows(found)
    tall = max(picture.height + 56, _ROW_PX * len(rows))
    made = _wrapped(line_of(found), _font(12), room) if found.record else []
    foot = [*made, "Research use only: not a medical device, not for diagnosis."]
    height = top + tall + MARGIN_PX + 18 + _FOOT_PX * len(made)
    canvas = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(canvas)
    _draw_band(draw, trust.verdict, title, width, band)
    for k, line in enumerate(below):
        at = MARGIN_PX, band + MARGIN_PX // 2 + 18 * k
        draw.text(at, line, _QUIET, _font(13))
    canvas.paste(picture, (MARGIN_PX, top))
    _draw_scale(draw, found.grid, picture, (MARGIN_PX, top + picture.height + 14))
    for k, (swatch, name, figures) in enumerate(rows):
        x, y = left + 2 * MARGIN_PX, top + _ROW_PX * k
        canvas.paste(swatch, (x, y + 2))
        draw.rectangle((x, y + 2, x + _SWATCH_PX, y + 2 + _SWATCH_PX), outline=_QUIET)
        wide = LEGEND_PX - _SWATCH_PX - 10
        draw.text((x + 28, y), _shortened(name, _font(14), wide), _INK, _font(14))
        draw.text((x + 28, y + 18), figures, _QUIET, _font(12))
    for k, line in enumerate(reversed(foot)):
        at = MARGIN_PX, canvas.height - 26 - _FOOT_PX * k
        draw.text(at, line, _QUIET, _font(12))
    return _png(canvas)


# --- the slide and its map ----------------------------------------------------------


def _mapped(found: ClassMap, slide: Pixels) -> Image.Image:
    """Return the slide with its classes, and what is unlike hatched."""
    height, width = _picture_shape(found.grid)
    small = Image.fromarray(np.ascontiguousarray(slide))
    base = np.asarray(small.resize((width, height), Image.Resampling.BOX), np.float32)
    rows, columns = _cells_of(found.grid, height, width)
    labels = found.labels[rows[:, np.newaxis], columns]
    colours = np.array([_PAPER, *map(_rgb, _colors(found))], np.float32)
    opacity = np.where(_edges(labels), 1.0, _OPACITY) * (labels > 0)
    mixed = base + opacity[..., np.newaxis] * (colours[labels] - base)
    unlike = _unlike(found)[rows[:, np.newaxis], columns]
    return Image.fromarray(_hatched(mixed, unlike).round().astype(np.uint8))


def _picture_shape(grid: TileGrid) -> tuple[int, int]:
    """Return height and width in pixels that are as wide as high on the slide."""
    size = grid.slide_height * grid.slide_mpp.y, grid.slide_width * grid.slide_mpp.x
    height, width = (
        max(_SMALLEST_SIDE_PX, round(PICTURE_PX * side / max(size))) for side in size
    )
    return height, width


def _cells_of(
    grid: TileGrid, height: int, width: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the row and the column of the cell in which every pixel lies."""
    cell_height, cell_width = grid.cell_size
    y = (np.arange(height) + 0.5) * grid.slide_height / height / cell_height
    x = (np.arange(width) + 0.5) * grid.slide_width / width / cell_width
    rows, columns = grid.shape
    return (
        np.minimum(y.astype(np.intp), rows - 1),
        np.minimum(x.astype(np.intp), columns - 1),
    )


def _unlike(found: ClassMap) -> Mask:
    unlike = np.zeros(found.labels.shape, np.bool_)
    if found.trust is not None:
        rows, columns = found.trust.cells[found.trust.unlike].T
        unlike[rows, columns] = True
    return unlike


def _edges(labels: Pixels) -> Mask:
    """Return the pixels along which a class ends."""
    around = np.pad(labels, 1, mode="edge")
    inner = around[1:-1, 1:-1]
    found: Mask = (
        (inner != around[:-2, 1:-1])
        | (inner != around[2:, 1:-1])
        | (inner != around[1:-1, :-2])
        | (inner != around[1:-1, 2:])
    )
    return found


def _hatched(
    pixels: npt.NDArray[np.floating], inside: Mask
) -> npt.NDArray[np.floating]:
    """Return pixels with diagonal lines, dark with a light edge, as in the window."""
    rows, columns = np.ogrid[: inside.shape[0], : inside.shape[1]]
    along = (rows + columns) % _PERIOD_PX
    out = pixels.copy()
    dark = along < _DARK_PX
    for lines, colour in ((dark, 0), (~dark & (along < _LIGHT_PX), 255)):
        where = inside & lines
        out[where] += _HATCH_OPACITY * (colour - out[where])
    return out


# --- around it ----------------------------------------------------------------------


def _legend_rows(found: ClassMap) -> list[tuple[Image.Image, str, str]]:
    areas = found.areas()
    total = sum(area.mm2 for area in areas)
    rows = [
        (_swatch(_rgb(area.color)), area.name, _area_words(area, total))
        for area in areas[:MOST_CLASSES]
    ]
    if len(areas) > MOST_CLASSES:
        more = sum(area.mm2 for area in areas[MOST_CLASSES:])
        words = f"and {len(areas) - MOST_CLASSES} more classes"
        rows.append((_swatch(_PAPER), words, f"{more:.3f} mm²"))
    trust = found.trust
    if trust is not None and trust.squares:
        words = f"{int(trust.unlike.sum()):,} of {trust.squares:,} squares judged"
        rows.append((_swatch(_PAPER, hatch=True), "unlike the training", words))
    return rows


def _area_words(area: ClassArea, total: float) -> str:
    share = area.mm2 / total if total else 0.0
    return f"{area.mm2:.3f} mm² · {share:.1%}"


def _swatch(colour: tuple[int, ...], *, hatch: bool = False) -> Image.Image:
    side = _SWATCH_PX + 1
    pixels = np.full((side, side, 3), colour, np.float32)
    if hatch:
        pixels = _hatched(pixels, np.ones((side, side), np.bool_)).astype(np.float32)
    return Image.fromarray(pixels.round().astype(np.uint8))


def _draw_band(
    draw: ImageDraw.ImageDraw,
    verdict: Verdict,
    title: Sequence[str],
    width: int,
    height: int,
) -> None:
    """Draw the verdict, white on its colour, with its sign."""
    draw.rectangle((0, 0, width, height), VERDICT_COLORS[verdict])
    y = height // 2
    _SIGNS[verdict](draw, MARGIN_PX + 14, y)
    for k, line in enumerate(title):
        at = MARGIN_PX + 44, _BAND_PX + 24 * k
        draw.text(at, line, _PAPER, _font(18, bold=True))


def _tick(draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
    draw.line((x - 10, y, x - 3, y + 8, x + 11, y - 9), _PAPER, 4, joint="curve")


def _warning(draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
    draw.polygon(((x, y - 14), (x + 15, y + 12), (x - 15, y + 12)), _PAPER)
    mark = VERDICT_COLORS[Verdict.UNLIKE]
    draw.text((x, y + 3), "!", mark, _font(18, bold=True), anchor="mm")


def _question(draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
    draw.ellipse((x - 14, y - 14, x + 14, y + 14), _PAPER)
    mark = VERDICT_COLORS[Verdict.TOO_LITTLE]
    draw.text((x, y), "?", mark, _font(20, bold=True), anchor="mm")


_SIGNS: dict[Verdict, Callable[[ImageDraw.ImageDraw, int, int], None]] = {
    Verdict.LIKE: _tick,
    Verdict.UNLIKE: _warning,
    Verdict.TOO_LITTLE: _question,
}


def _draw_scale(
    draw: ImageDraw.ImageDraw,
    grid: TileGrid,
    picture: Image.Image,
    at: tuple[int, int],
) -> None:
    um_per_px = grid.slide_width * grid.slide_mpp.x / picture.width
    length, words = scale_bar(max(picture.width / 3, 60) * um_per_px)
    (x, y), wide = at, round(length / um_per_px)
    draw.rectangle((x, y, x + wide - 1, y + 4), _INK)
    draw.text((x, y + 9), words, _INK, _font(13))


def scale_bar(most_um: float) -> tuple[float, str]:
    """Return the longest round length up to a given one, µm, and its words."""
    power = 10.0 ** np.floor(np.log10(most_um))
    length = float(max(n * power for n in (1, 2, 5) if n * power <= most_um))
    factor, unit = next((u for u in _UNITS if length >= u[0]), _UNITS[-1])
    return length, f"{length / factor:.3g} {unit}"


# --- text and colours ---------------------------------------------------------------


def _colors(found: ClassMap) -> Iterator[str]:
    return (spec.color for spec in found.classes)


def _rgb(color: str) -> tuple[int, ...]:
    return ImageColor.getrgb(color)[:3]


Font = ImageFont.FreeTypeFont


@lru_cache
def _font(size: int, *, bold: bool = False) -> Font:
    """Return DejaVu Sans, which matplotlib brings; Pillow's own font knows no µ."""
    import matplotlib as mpl

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    path = Path(mpl.get_data_path(), "fonts", "ttf", name)
    layout: Literal[ImageFont.Layout.BASIC] = ImageFont.Layout.BASIC
    return ImageFont.truetype(str(path), size, layout_engine=layout)


def _wrapped(text: str, font: Font, width: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return [_shortened(line, font, width) for line in lines]


def _shortened(text: str, font: Font, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _png(image: Image.Image) -> bytes:
    about = PngInfo()
    about.add_text("Software", _MAKER)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=about)
    return buffer.getvalue()
