"""Colours of the synthetic slide: amounts of two stains, then Beer and Lambert's law.

Nuclei and vacuoles are pasted from a small library of stamps, because tens of
thousands of them have to be drawn in a few seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_histodistill.samples import tissue_layout as lay

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.samples.tissue_layout import Gland, Layout

# Optical density per unit of stain, (R, G, B): the reference vectors of Macenko et
# al. 2009, "A method for normalizing histology slides for quantitative analysis".
HEMATOXYLIN = np.array([0.5626, 0.7201, 0.4062], np.float32)
EOSIN = np.array([0.2159, 0.8012, 0.5581], np.float32)
GLASS_RGB = np.array([244, 243, 245], np.float32)

STRIP = 512
ANGLES = 24
SHAPES = 5
# Half axes in px at 0.5 µm per pixel, softness of the rim, strength of the chromatin.
STAMPS = {
    "lymphocyte": (6.2, 6.8, 1.3, 0.16),
    "basal": (5.6, 8.2, 1.6, 0.20),
    "tall": (6.4, 12.5, 1.8, 0.30),
    "spindle": (2.9, 11.5, 1.3, 0.16),
    "plasma": (6.6, 7.6, 1.5, 0.28),
    "vacuole": (9.5, 15.0, 3.2, 0.05),
    "red cell": (6.2, 6.6, 1.4, 0.08),
    "debris": (3.4, 4.2, 1.2, 0.20),
}


@dataclass(slots=True, kw_only=True)
class Canvas:
    """Stain amounts ``(height, width)`` float32 and the truth being painted."""

    layout: Layout
    rng: np.random.Generator
    h: npt.NDArray[np.float32]
    e: npt.NDArray[np.float32]
    labels: npt.NDArray[np.uint8]
    stamps: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    def paste(
        self,
        kind: str,
        y: npt.NDArray[np.floating],
        x: npt.NDArray[np.floating],
        angle: npt.NDArray[np.floating],
        amount: tuple[float, float],
    ) -> None:
        """Lay cells of a kind at positions; ``amount`` is (hematoxylin, eosin)."""
        library = self.stamps[kind]
        side = library.shape[-1]
        turn = np.round(np.asarray(angle) / np.pi * ANGLES).astype(int) % ANGLES
        shape = self.rng.integers(0, SHAPES, len(y))
        strong = self.rng.normal(1, 0.11, len(y)).clip(0.7, 1.35)
        tops = np.round(y).astype(int) - side // 2
        lefts = np.round(x).astype(int) - side // 2
        height, width = self.h.shape
        fits = (tops >= 0) & (lefts >= 0)
        fits &= (tops + side <= height) & (lefts + side <= width)
        for k in np.flatnonzero(fits):
            at = np.s_[tops[k] : tops[k] + side, lefts[k] : lefts[k] + side]
            cover = library[turn[k], shape[k]]
            self.h[at] += np.minimum(cover, 1) * (
                cover * (amount[0] * strong[k]) - self.h[at]
            )
            self.e[at] += np.minimum(cover, 1) * (amount[1] - self.e[at])


def make_stamps(rng: np.random.Generator) -> dict[str, npt.NDArray[np.float32]]:
    """Return for each kind ``(angles, shapes, side, side)``: cover 0..1 and beyond."""
    library = {}
    for kind, (a, b, soft, grain) in STAMPS.items():
        side = 2 * int(np.ceil(b + 2 * soft)) + 1
        y, x = np.mgrid[:side, :side] - side // 2
        stamps = np.zeros((ANGLES, SHAPES, side, side), np.float32)
        for turn in range(ANGLES):
            theta = turn / ANGLES * np.pi
            along = y * np.sin(theta) + x * np.cos(theta)
            across = y * np.cos(theta) - x * np.sin(theta)
            for shape in range(SHAPES):
                stretch = rng.normal(1, 0.10, 2).clip(0.75, 1.2)
                bent = across + rng.normal(0, 0.012) * along**2
                radius = np.hypot(bent / (a * stretch[0]), along / (b * stretch[1]))
                distance = (1 - radius) * min(a, b)
                cover = np.clip(distance / soft + 0.5, 0, 1)
                chromatin = ndimage.gaussian_filter(
                    rng.standard_normal((side, side)), 1.1
                )
                rim = np.exp(-(((distance - 1.2) / 1.2) ** 2))
                texture = 1 + grain * (chromatin * 3 + 0.7 * rim - 0.3)
                stamps[turn, shape] = cover * texture.clip(0.45, 1.6)
        library[kind] = stamps
    return library


def fibres(
    angle: float, length: float, side: int, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Return a seamless texture of wavy streaks along an angle, mean 0, deviation 1."""
    fy = np.fft.fftfreq(side)[:, None]
    fx = np.fft.rfftfreq(side)[None]
    along = fy * np.sin(angle) + fx * np.cos(angle)
    across = fy * np.cos(angle) - fx * np.sin(angle)
    keep = np.exp(-((along * length) ** 2)) * (
        np.exp(-((across * 5) ** 2)) - 0.85 * np.exp(-((across * 26) ** 2))
    )
    noise = np.fft.rfft2(rng.standard_normal((side, side), dtype=np.float32))
    texture = np.fft.irfft2(noise * keep, s=(side, side)).astype(np.float32)
    # Collagen is wavy: shift the streaks sideways by a smooth amount.
    wave = 5 * lay.smooth_noise((side, side), 17, rng)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    y, x = y + wave * np.cos(angle), x - wave * np.sin(angle)
    texture = ndimage.map_coordinates(texture, (y, x), order=1, mode="grid-wrap")
    waved: npt.NDArray[np.float32] = texture / texture.std()
    return waved


def _texture_side(height: int, width: int) -> int:
    """Return a texture's edge: just large enough that no repeat is seen."""
    return min(1536, -(-max(height, width) // 256) * 256)


def enlarge(
    coarse: npt.NDArray[np.floating], rows: slice, width: int
) -> npt.NDArray[np.float32]:
    """Return some level-0 rows of a coarse field, linearly interpolated.

    Always a strip: a whole field at full size would take 200 MB.
    """
    values = np.asarray(coarse, np.float32)
    (y0, y1, ty), (x0, x1, tx) = (
        _between(np.arange(rows.start, rows.stop), values.shape[0]),
        _between(np.arange(width), values.shape[1]),
    )
    values, y0, y1 = values[y0[0] : y1[-1] + 1], y0 - y0[0], y1 - y0[0]
    wide = values[:, x0] * (1 - tx) + values[:, x1] * tx
    strip: npt.NDArray[np.float32] = wide[y0]
    strip += (wide[y1] - strip) * ty[:, None]
    return strip


def _between(
    position: npt.NDArray[np.intp], count: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """Return both coarse neighbours of level-0 pixels and the weight of the second."""
    at = np.clip((position + 0.5) / lay.COARSE_PX - 0.5, 0, count - 1)
    first = at.astype(np.intp)
    return first, np.minimum(first + 1, count - 1), (at - first).astype(np.float32)


def strips(height: int) -> list[slice]:
    """Return the rows of a picture in strips that fit a processor's cache."""
    return [slice(top, min(top + STRIP, height)) for top in range(0, height, STRIP)]


def repeat(
    texture: npt.NDArray[np.float32], rows: slice, width: int
) -> npt.NDArray[np.float32]:
    """Return a strip of a seamless texture laid side by side."""
    side = texture.shape[0]
    some = texture[np.arange(rows.start, rows.stop) % side]
    return np.tile(some, (1, -(-width // side)))[:, :width]


def paint_ground(canvas: Canvas) -> npt.NDArray[np.float32]:
    """Paint connective tissue and the aggregates' bed; return the flow's angles.

    Fibres follow a slowly turning flow: four textures along fixed directions, weighted
    by how near the flow is to each.
    """
    layout, rng = canvas.layout, canvas.rng
    height, width = canvas.h.shape
    flow = 0.9 * lay.smooth_noise(layout.edge.shape, 16, rng)
    flow *= 1 - np.exp(-((layout.depth / 220) ** 2))  # the muscle runs level
    side = _texture_side(height, width)
    textures = [fibres(k * np.pi / 4, 36, side, rng) for k in range(4)]
    weights = [np.abs(np.cos(flow - k * np.pi / 4)) ** 6 for k in range(4)]
    norm = np.sqrt(sum(w**2 for w in weights))
    cloud = lay.smooth_noise(layout.edge.shape, 5, rng)
    for s in strips(height):
        streaks = sum(
            repeat(texture, s, width) * enlarge(weight / norm, s, width)
            for texture, weight in zip(textures, weights, strict=True)
        )
        clouds = enlarge(cloud, s, width)
        depth = enlarge(layout.depth, s, width)
        lymph = np.clip(enlarge(layout.lymphoid, s, width) * 4, 0, 1)
        deep = np.clip((depth - 70) / 40, 0, 1)
        band = np.clip(1.4 - np.abs(depth - 30) / 42, 0, 1) * (1 - 0.75 * lymph)
        mucosa = 0.42 + 0.085 * streaks + 0.05 * clouds
        loose = 0.46 + 0.28 * streaks + 0.09 * clouds
        muscle = 0.92 + 0.13 * streaks
        e = mucosa + deep * (loose - mucosa) * (1 - lymph)
        e += band * (muscle - e)
        canvas.e[s] = np.clip(e * (1 - 0.45 * lymph), 0.03, 1.6)
        canvas.h[s] = 0.10 + 0.05 * band + 0.16 * lymph - 0.05 * deep
        tissue = enlarge(layout.edge, s, width) > 0
        canvas.labels[s][tissue] = lay.STROMA
        canvas.labels[s][tissue & (lymph > 0.5)] = lay.LYMPHOID
    return flow


def paint_gland(canvas: Canvas, gland: Gland) -> bool:
    """Paint a gland's cytoplasm, lumen and membrane; False if there is no room."""
    reach = int(gland.reach * 1.12) + 4
    top, left = int(gland.y) - reach, int(gland.x) - reach
    height, width = canvas.h.shape
    if min(top, left) < 0 or top + 2 * reach > height or left + 2 * reach > width:
        return False
    at = np.s_[top : top + 2 * reach, left : left + 2 * reach]
    y, x = np.ogrid[: 2 * reach, : 2 * reach]
    dy, dx = (y + top - gland.y).astype(np.float32), (x + left - gland.x).astype("f4")
    theta = np.arctan2(dy, dx)
    u = np.hypot(dy, dx) / gland.outline(theta).astype(np.float32)
    free = canvas.labels[at] == lay.STROMA
    inside = (u < 1) & free
    h, e = canvas.h[at], canvas.e[at]
    rng = canvas.rng
    phase = rng.uniform(0, 6, 2)
    wide = rng.uniform(0.16, 0.24)
    if gland.crowded:
        # The epithelium keeps its height, so a large gland has a larger lumen.
        wide = np.clip(1 - rng.uniform(56, 74) / gland.radius, 0.15, 0.45)
    lumen = wide * (
        1 + 0.20 * np.cos(3 * theta + phase[0]) + 0.10 * np.cos(7 * theta + phase[1])
    )
    mottle = 1 + 0.07 * lay.smooth_noise(u.shape, 1.3, rng)
    base = (0.34, 0.66) if gland.crowded else (0.16, 0.46)
    # Nearer to the basement membrane the cytoplasm is denser; the brush border too.
    basal = 1 + 0.5 * np.clip((u - 0.75) / 0.2, 0, 1)
    border = np.exp(-(((u - lumen - 0.04) / 0.05) ** 2))
    h[inside] = (base[0] * mottle * basal)[inside]
    e[inside] = (base[1] * mottle * basal + 0.16 * border)[inside]
    hole = (np.clip((lumen - u) / 0.06 + 0.5, 0, 1) * inside).astype(np.float32)
    h *= 1 - 0.94 * hole
    e *= 1 - 0.93 * hole
    membrane = np.exp(-(((u - 1.02) * gland.radius / 2.2) ** 2)) * free
    e += 0.22 * membrane
    canvas.labels[at][inside] = lay.CROWDED_GLAND if gland.crowded else lay.GLAND
    return True


def finish(canvas: Canvas) -> npt.NDArray[np.uint8]:
    """Return the picture ``(height, width, 3)`` uint8: stains to light, light to noise.

    This adds the tissue's frayed edge, its uneven thickness, the lamp's fall-off and
    the camera's noise.
    """
    layout, rng = canvas.layout, canvas.rng
    height, width = canvas.h.shape
    fray = fibres(0.4, 9, _texture_side(height, width), rng)
    uneven = 1 + 0.05 * lay.smooth_noise(layout.edge.shape, 40, rng)
    noise = rng.normal(0, 2.1, (STRIP, width, 3)).astype(np.float32)
    image = np.empty((height, width, 3), np.uint8)
    x = np.linspace(-1, 1, width, dtype=np.float32)
    for s in strips(height):
        edge = enlarge(layout.edge, s, width) + 2.5 * repeat(fray, s, width)
        cover = np.clip(edge / 6, 0, 1) * enlarge(uneven, s, width)
        h, e = canvas.h[s] * cover, canvas.e[s] * cover
        y = np.linspace(s.start, s.stop, len(h), dtype=np.float32)[:, None]
        vignette = 1 - 0.018 * ((2 * y / height - 1) ** 2 + x**2)
        grain = np.roll(noise[: len(h)], s.start * 37 % 4096, axis=1)
        for c in range(3):
            light = np.exp(-h * HEMATOXYLIN[c] - e * EOSIN[c])
            light *= vignette * GLASS_RGB[c]
            light += grain[..., c]
            image[s, :, c] = np.clip(light, 0, 255, out=light)
    return image
