"""Squares to judge distances by: a student's own tiles, foreign ones, disturbed ones.

All are 224 px squares as `colon-he` would be shown them at 1 µm per pixel. Those that
were photographed at about 4 µm per pixel are enlarged and called *soft*; *own, soft* is
the same done to own tiles, so that one sees how much of a distance is softness alone.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import skimage.data
from PIL import Image, ImageFilter
from skimage.filters import gaussian

from napari_histodistill.slides import open_slide
from napari_histodistill.slides.tissue.stain import StainFit, StainMap
from napari_histodistill.students.bundle import load_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]

Kind = Literal["own", "near", "organ", "stain", "scale", "no tissue"]

PX = 224
SEED = 0
BREAST_PATIENTS, PER_PATIENT, PER_ORGAN = 30, 20, 320
SCANNER_TILES = 10
DAB = (0.268, 0.570, 0.776)
"""Optical density of diaminobenzidine, R G B (Ruifrok & Johnston 2001)."""
PENS = ((30, 40, 140), (10, 110, 60), (20, 20, 20), (170, 20, 30))


@dataclass(frozen=True, eq=False)
class TileSet:
    """Squares of one kind.

    Attributes
    ----------
    name : str
        For tables.
    kind : str
        ``own``; ``near`` should not be called unlike; the others should.
    tiles : ndarray
        ``(n, 224, 224, 3)`` uint8, RGB.
    cases : ndarray
        ``(n,)`` str: patient, section or slide.
    """

    name: str
    kind: Kind
    tiles: Pixels
    cases: npt.NDArray[np.str_]


def own_tiles(data: Path) -> tuple[TileSet, npt.NDArray[np.intp], tuple[str, ...]]:
    """Return the tiles `colon-he` was trained on, their classes and the classes."""
    rows = _rows(data / "ebhi" / "manifest.csv")
    names, labels = np.unique([row["label"] for row in rows], return_inverse=True)
    tiles = np.array([_picture(data / "ebhi" / row["image"]) for row in rows])
    own = TileSet("own", "own", tiles, np.array([row["case_id"] for row in rows]))
    return own, labels.reshape(-1), tuple(map(str, names))


def other_sets(data: Path, own: TileSet) -> Iterator[TileSet]:
    """Yield everything that is not the student's own tiles as they are."""
    rng = np.random.default_rng(SEED)
    yield from _of_slides(data)
    yield from _of_patches(data, rng)
    cases = np.unique(own.cases)
    first = [rng.choice(np.flatnonzero(own.cases == case)) for case in cases]
    yield from _disturbed(TileSet("", "own", own.tiles[first], own.cases[first]))
    yield _reduced(own, rng)
    yield _other_scanner(own, rng)


def _of_slides(data: Path) -> Iterator[TileSet]:
    slides = data / "slides"
    skin = _scaled(_whole(slides / "cmu-1-small-region.svs"), 0.499)
    yield _one("skin", "organ", _squares(skin, 112))
    # µm per pixel of this one is not stated; nuclei are those of about 1 µm.
    neck = _whole(slides / "tcga-cr-7395-01a-01-ts1.svs")
    yield _one("head and neck", "organ", _squares(neck, 224))
    yield _one("head and neck, half", "organ", _squares(_scaled(neck, 0.5), 112))
    prostate = _scaled(_whole(slides / "small_dicom.dcm"), 4)
    yield _one("prostate (soft)", "organ", _squares(prostate, 448, _has_no_ink))
    inked = _squares(prostate, 224, lambda t: _ink(t, 40, 30) > 0.3)
    yield _one("ink on a slide", "no tissue", inked[::4])
    lung = _scaled(_picture(data / "stains" / "Izd2-29-041-w35_HE.jpg"), 4)
    yield _one("mouse lung (soft)", "organ", _squares(lung, 224))
    brown = _scaled(_picture(data / "stains" / "Izd2-29-041-w35_proSPC.jpg"), 4)
    yield _one("IHC lung (soft)", "stain", _squares(brown, 224))
    ihc = _picture(Path(skimage.data.__file__).parent / "ihc.png")
    both = [_squares(ihc, 72), _squares(_scaled(ihc, 0.5), 16)]
    yield _one("IHC colon", "stain", np.concatenate(both))
    yield _one("fluorescence", "stain", np.array(list(_fluorescence(data))))
    glass = _whole(slides / "kidney-48-5.tif")
    corners = [(y, x) for y in range(0, 670, 112) for x in range(0, 1260, 150)]
    blank = [glass[y : y + PX, x : x + PX] for y, x in corners]
    yield _one(
        "glass", "no tissue", np.array([t for t in blank if _stained(t) < 0.02][:60])
    )


def _fluorescence(data: Path) -> Iterator[Pixels]:
    vectra = _brightened(_whole(data / "slides" / "small_vectra.qptiff"))
    for y in range(200, 1200, PX):
        yield from (vectra[y : y + PX, x : x + PX] for x in range(200, 1000, PX))
    grey = _brightened(_whole(data / "slides" / "smalltif.tif")[..., :1])
    for y in (0, PX):
        yield from (grey[y : y + PX, x : x + PX] for x in (0, 208, 416))
    green = _whole(data / "formats" / "rgb-8bit.czi")
    for y in (0, 200, 400):
        yield from (green[y : y + PX, x : x + PX] for x in (0, 224, 448, 700))


def _of_patches(data: Path, rng: np.random.Generator) -> Iterator[TileSet]:
    yield _breast(data / "idc", rng)
    for name, folder in (("brain (soft)", "pairs"), ("brain, other lab", "layers")):
        rows = _rows(data / "mob" / folder / "manifest.csv")
        tiles, cases = [], []
        for k in rng.permutation(len(rows))[:PER_ORGAN]:
            pixels = _to(_picture(data / "mob" / folder / rows[k]["image"]), 256)
            if _stained(pixels[16:240, 16:240]) >= 0.5:
                tiles.append(pixels[16:240, 16:240])
                cases.append(rows[k]["case_id"])
        yield TileSet(name, "organ", np.array(tiles), np.array(cases))
    nuclei = map(_picture, sorted((data / "nuclei" / "images").iterdir()))
    large = [p[:PX, :PX] for p in nuclei if min(p.shape[:2]) >= PX]
    yield _one("nuclei, close", "organ", np.array(large))


def _breast(folder: Path, rng: np.random.Generator) -> TileSet:
    by_patient: dict[str, list[str]] = {}
    for row in _rows(folder / "manifest.csv"):
        by_patient.setdefault(row["case_id"], []).append(row["image"])
    tiles: list[Pixels] = []
    cases: list[str] = []
    for patient in rng.permutation(sorted(by_patient))[:BREAST_PATIENTS]:
        images = by_patient[patient]
        for k in rng.permutation(len(images)):
            if cases.count(patient) >= PER_PATIENT:
                break
            pixels = _picture(folder / images[k])
            if pixels.shape[:2] == (50, 50) and _stained(_to(pixels, PX)) >= 0.5:
                tiles.append(_to(pixels, PX))
                cases.append(patient)
    return TileSet("breast (soft)", "organ", np.array(tiles), np.array(cases))


def _disturbed(base: TileSet) -> Iterator[TileSet]:
    """Yield one own tile a case, changed."""

    def each(name: str, kind: Kind, change: Callable[[Pixels], Pixels]) -> TileSet:
        tiles = np.array([change(t) for t in base.tiles])
        return TileSet(name, kind, tiles, base.cases)

    inks = [_under_pen(t, PENS[k % 4], k) for k, t in enumerate(base.tiles)]
    yield TileSet("pen on own tiles", "no tissue", np.array(inks), base.cases)
    yield each("own, blurred 3 µm", "no tissue", lambda t: _blurred(t, 3))
    yield each("own, blurred 6 µm", "no tissue", lambda t: _blurred(t, 6))
    yield each("own, soft (4 µm/px)", "near", lambda t: _to(_reduced_to(t, 56), PX))
    yield each("own, inverted", "stain", lambda t: (255 - t).astype(np.uint8))
    yield each("own, channels turned", "stain", lambda t: t[..., [1, 2, 0]])
    yield each("own, brown for pink", "stain", _brown().apply)
    yield each("own, 2 × too large", "scale", lambda t: _to(t[56:168, 56:168], PX))
    yield each("own, 4 × too large", "scale", lambda t: _to(t[84:140, 84:140], PX))


def _reduced(own: TileSet, rng: np.random.Generator) -> TileSet:
    """Return four tiles of a case on the area of one."""
    tiles, cases = [], []
    for case in np.unique(own.cases):
        mine = np.flatnonzero(own.cases == case)
        for _ in range(2 if len(mine) >= 4 else 0):
            a, b, c, d = own.tiles[rng.choice(mine, 4, replace=False)]
            four = [np.concatenate(row, axis=1) for row in ((a, b), (c, d))]
            tiles.append(_reduced_to(np.concatenate(four), PX))
            cases.append(case)
    return TileSet("own, 2 × too small", "scale", np.array(tiles), np.array(cases))


def _other_scanner(own: TileSet, rng: np.random.Generator) -> TileSet:
    """Return own tiles, every case as by a laboratory and a scanner of its own.

    Stains turned by 8° and 30 % stronger or weaker (standard deviations), other glass
    and gamma, .85 to 1.2 × the size, blurred by up to 1 µm, JPEG 40 to 90.
    """
    tiles, cases = [], []
    names, counts = np.unique(own.cases, return_counts=True)
    for case in names[counts >= SCANNER_TILES]:
        lab = _Laboratory(np.random.default_rng(int(case) % 100003))
        mine = rng.permutation(np.flatnonzero(own.cases == case))[:SCANNER_TILES]
        tiles += [lab.scan(own.tiles[k]) for k in mine]
        cases += [case] * len(mine)
    name = "own, other scanners"
    return TileSet(name, "near", np.array(tiles), np.array(cases))


class _Laboratory:
    def __init__(self, rng: np.random.Generator) -> None:
        reference = _reference()

        def turned(direction: tuple[float, float, float]) -> tuple[float, float, float]:
            v, side = np.array(direction), rng.normal(size=3)
            side -= side @ v * v
            angle = np.radians(abs(rng.normal(0, 8)))
            away = side / np.linalg.norm(side)
            w = np.clip(np.cos(angle) * v + np.sin(angle) * away, 0.02, None)
            x, y, z = (w / np.linalg.norm(w)).tolist()
            return x, y, z

        strengths = np.array(reference.strengths) * np.exp(rng.normal(0, 0.3, 2))
        h, e = turned(reference.haematoxylin), turned(reference.eosin)
        glass = rng.uniform(225, 250) + rng.normal(0, 3, 3).clip(-5, 5)
        s0, s1 = strengths.tolist()
        red, green, blue = glass.tolist()
        look = StainFit(h, e, (s0, s1), (red, green, blue))
        self._stains = StainMap.between(reference, look)
        self._zoom, self._blur = rng.uniform(0.85, 1.2), rng.uniform(0, 1)
        self._gamma = np.exp(rng.normal(0, 0.12))
        self._quality = int(rng.integers(40, 90))

    def scan(self, tile: Pixels) -> Pixels:
        stained = self._stains.apply(tile) / 255
        pixels = (255 * stained**self._gamma).astype(np.uint8)
        if self._zoom > 1:
            side = round(PX / self._zoom)
            first = (PX - side) // 2
            pixels = _to(pixels[first : first + side, first : first + side], PX)
        else:
            pixels = _reduced_to(pixels, round(PX * self._zoom))
            left = PX - len(pixels)
            pad = (left // 2, left - left // 2)
            pixels = np.pad(pixels, (pad, pad, (0, 0)), "reflect")
        file = io.BytesIO()
        soft = Image.fromarray(_blurred(pixels, self._blur))
        soft.save(file, "JPEG", quality=self._quality)
        return np.asarray(Image.open(file).convert("RGB"))


def _under_pen(tile: Pixels, colour: tuple[int, int, int], seed: int) -> Pixels:
    rng = np.random.default_rng(seed)
    noise = gaussian(rng.normal(size=(PX, PX)), 40)
    covered = gaussian((noise > np.quantile(noise, 0.4)).astype(float), 3)
    share = covered[..., np.newaxis] * rng.uniform(0.6, 0.95)
    clear = tile / 255
    inked = np.array(colour) / 255 * (0.35 + 0.65 * clear)
    mixed: Any = (clear * (1 - share) + share * inked) * 255
    return mixed.clip(0, 255).astype(np.uint8)


def _reference() -> StainFit:
    stain = load_spec("colon-he").stain
    assert stain is not None
    return StainFit(stain.haematoxylin, stain.eosin, stain.strengths, stain.glass)


def _brown() -> StainMap:
    own = _reference()
    return StainMap.between(
        own, StainFit(own.haematoxylin, DAB, own.strengths, own.glass)
    )


def _one(name: str, kind: Kind, tiles: Pixels) -> TileSet:
    return TileSet(name, kind, tiles, np.full(len(tiles), name))


def _squares(
    image: Pixels, stride: int, keep: Callable[[Pixels], bool] = lambda _: True
) -> Pixels:
    """Return squares of which half is stained, at least."""
    height, width = image.shape[:2]
    places = (
        (y, x)
        for y in range(0, height - PX + 1, stride)
        for x in range(0, width - PX + 1, stride)
    )
    tiles = (image[y : y + PX, x : x + PX] for y, x in places)
    return np.array([t for t in tiles if _stained(t) >= 0.5 and keep(t)])


def _density(tile: Pixels) -> npt.NDArray[np.floating]:
    density: npt.NDArray[np.floating] = -np.log10(np.maximum(tile, 1) / 255).mean(-1)
    return density


def _stained(tile: Pixels) -> float:
    return float((_density(tile) > 0.06).mean())


def _ink(tile: Pixels, blue: int, green: int) -> float:
    red, g, b = np.moveaxis(tile.astype(int), -1, 0)
    return float(((b - red > blue) | (g - red > green)).mean())


def _has_no_ink(tile: Pixels) -> bool:
    black = float((_density(tile) > 1).mean())
    return _ink(tile, 25, 15) < 0.01 and black < 0.03


def _whole(path: Path) -> Pixels:
    with open_slide(path) as slide:
        return np.asarray(slide.levels[0][...])


def _brightened(image: npt.NDArray[Any]) -> Pixels:
    top = np.percentile(image, 99.5, axis=(0, 1))
    scaled = np.clip(image / top * 255, 0, 255).astype(np.uint8)
    return np.repeat(scaled, 3, -1) if scaled.shape[-1] == 1 else scaled


def _picture(path: Path) -> Pixels:
    return np.asarray(Image.open(path).convert("RGB"))


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _scaled(image: Pixels, factor: float) -> Pixels:
    size = round(image.shape[1] * factor), round(image.shape[0] * factor)
    how = Image.Resampling.BOX if factor < 1 else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(image).resize(size, how))


def _to(image: Pixels, side: int) -> Pixels:
    size = (side, side)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def _reduced_to(image: Pixels, side: int) -> Pixels:
    size = (side, side)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def _blurred(image: Pixels, sigma: float) -> Pixels:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))
