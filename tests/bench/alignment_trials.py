"""Pairs with a known place, and pairs that have none, for the search to find.

Every trial is drawn from its seed: a section, its partner in another stain, softly
warped, blurred, turned by any angle, perhaps mirrored, cut, and of a wrong µm/px.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from napari_histodistill.distill.layers.partners import DenseLayer, dense_layer
from napari_histodistill.geometry import Mpp, Region
from napari_histodistill.samples.paired import CHANNELS, paint_pair
from napari_histodistill.samples.synthetic import paint_slide
from napari_histodistill.slides import Slide, open_slide, slide_from_arrays
from napari_histodistill.slides.pyramid.resample import read_resampled

if TYPE_CHECKING:
    import numpy.typing as npt

    Doubles = npt.NDArray[np.float64]
    Pixels = npt.NDArray[Any]

DATA = Path(os.environ.get("HISTODISTILL_DATA", "../shared/data"))
REAL = (
    *("cmu-1-small-region.svs", "tcga-cr-7395-01a-01-ts1.svs", "kidney-48-5.tif"),
    "small_dicom.dcm",
)
LUNG_UM = 3.48
"""µm per pixel of the lung sections: 5 % of a scan at 0.174."""

STATED = (1.0, 1.0, 0.5, 2.0, 0.25, 4.0)
"""Of the true µm/px, what the partner's file states."""

SIDE_PX = 1000
KINDS = (
    *("lung", "lung, cut", "painted pair", "painted section", "painted outlines"),
    *("real, restained", "real, fluorescence", "real, a part"),
    *("strangers", "strangers, one slide", "strangers, painted"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A pair to find.

    Attributes
    ----------
    kind, seed : str, int
        What it was drawn from.
    sparse, dense : Slide, DenseLayer
        As a person opens them.
    sparse_um, dense_um : ndarray
        ``(n, 2)``, the same tissue in both worlds; none if they do not belong together.
    true_scale : float
        How many true µm a µm of the dense world is, by its stated µm/px.
    longest_um : float
        Longer side of the sparse section, µm.
    """

    kind: str
    seed: int
    sparse: Slide
    dense: DenseLayer
    sparse_um: Doubles
    dense_um: Doubles
    true_scale: float
    longest_um: float

    @property
    def belongs(self) -> bool:
        """Whether there is a place to find."""
        return len(self.sparse_um) > 0


def draw(kind: str, seed: int) -> Trial:
    """Return the trial of a kind and a seed."""
    rng = np.random.default_rng([KINDS.index(kind), seed])
    if kind.startswith("lung"):
        return _lung(kind, seed, rng)
    if kind.startswith("strangers"):
        return _strangers(kind, seed, rng)
    he, um, partner, labelled = _section(kind, seed, rng)
    keep = rng.uniform(0.55, 0.8) if kind == "real, a part" else 1.0
    moved, places = _moved(partner, rng, keep=keep, nearest=labelled)
    return _trial(kind, seed, rng, (he, um), moved, places, mask=labelled)


def _section(
    kind: str, seed: int, rng: np.random.Generator
) -> tuple[Pixels, float, Pixels, bool]:
    if kind == "painted pair":
        pair = paint_pair(768, seed=seed % 12 + 100)
        return pair.sparse, 0.5, pair.dense, False
    if kind.startswith("painted"):
        he, labels = _painted(seed % 6 + 1)
        if kind == "painted outlines":
            return he, 2.0, labels[..., None], True
        return he, 2.0, restained(he, rng), False
    he, um = _real(REAL[seed % len(REAL)])
    fluorescence = kind == "real, fluorescence" or (
        kind == "real, a part" and seed % 3 == 0
    )
    return he, um, (shining if fluorescence else restained)(he, rng), False


def _strangers(kind: str, seed: int, rng: np.random.Generator) -> Trial:
    if kind == "strangers, painted":
        he = paint_pair(768, seed=seed % 12 + 100).sparse
        other = paint_pair(768, seed=seed % 11 + 300).dense
        um = 0.5
    elif kind == "strangers, one slide":
        whole, um = _real(REAL[seed % len(REAL)])
        half = whole.shape[1] // 2
        he, other = whole[:, : half - 20], restained(whole[:, half + 20 :], rng)
    else:
        pictures = [*(_real(name) for name in REAL), _lung_pictures(0)[:2]]
        pictures.append((_painted(seed % 6 + 1)[0], 2.0))
        one, two = rng.choice(len(pictures), 2, replace=False)
        he, um = pictures[one]
        colour = restained if seed % 3 else shining
        other = colour(pictures[two][0], rng)
        if pictures[two][0] is _lung_pictures(0)[0] and seed % 2:
            other = _lung_pictures(1)[0]
    moved, _ = _moved(other, rng, keep=1.0, nearest=False)
    nothing = np.empty((0, 2))
    return _trial(kind, seed, rng, (he, um), moved, (nothing, nothing), mask=False)


def _lung(kind: str, seed: int, rng: np.random.Generator) -> Trial:
    he, um, here = _lung_pictures(0)
    ihc, _, there = _lung_pictures(1)
    if kind == "lung, cut":
        size = np.array(ihc.shape[:2])
        edge = (size * rng.uniform(0.55, 0.8, 2)).astype(int)
        low = rng.integers(0, size - edge + 1)
        ihc = ihc[low[0] : low[0] + edge[0], low[1] : low[1] + edge[1]]
        inside = ((there >= low) & (there < low + edge)).all(1)
        here, there = here[inside], (there - low)[inside]
    turns, mirrored = int(seed % 4), bool(seed // 4 % 2)
    ihc, there = posed(ihc, there, turns, mirrored=mirrored)
    return _trial(kind, seed, rng, (he, um), ihc, (here, there), mask=False)


def _trial(
    kind: str,
    seed: int,
    rng: np.random.Generator,
    sparse: tuple[Pixels, float],
    partner: Pixels,
    places: tuple[Doubles, Doubles],
    *,
    mask: bool,
) -> Trial:
    he, um = sparse
    stated = STATED[(seed // 8 if kind == "lung" else seed) % len(STATED)]
    theirs = um * stated
    slide = slide_from_arrays(he, name="H&E", mpp=Mpp(um, um, "a trial"))
    channels = CHANNELS if partner.shape[2] == 2 else None
    other = slide_from_arrays(
        partner, name="partner", mpp=Mpp(theirs, theirs, "a trial"), channels=channels
    )
    layer = dense_layer(
        other, name="partner", tile_px=8, kind="mask" if mask else "picture"
    )
    here, there = places
    longest = max(he.shape[:2]) * um
    return Trial(
        *(kind, seed, slide, layer, here * um, there * theirs, 1 / stated, longest)
    )


def posed(
    picture: Pixels, places: Doubles, turns: int, *, mirrored: bool
) -> tuple[Pixels, Doubles]:
    """Return a picture mirrored left to right, then turned, and where places went."""
    if mirrored:
        picture = picture[:, ::-1]
        places = np.stack([places[:, 0], picture.shape[1] - 1 - places[:, 1]], axis=1)
    for _ in range(turns):
        last = picture.shape[1] - 1
        picture = np.rot90(picture)
        places = np.stack([last - places[:, 1], places[:, 0]], axis=1)
    return np.ascontiguousarray(picture), places


def _moved(
    picture: Pixels, rng: np.random.Generator, *, keep: float, nearest: bool
) -> tuple[Pixels, tuple[Doubles, Doubles]]:
    """Return a picture as another scanner shows it; places here and there, px."""
    size = np.array(picture.shape[:2])
    turned, mirrored = rng.uniform(0, 360), bool(rng.integers(2))
    angle, scale = np.radians(turned), rng.uniform(0.85, 1.15)
    cut = keep < 1
    linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = linear @ (np.eye(2) + rng.uniform(-0.02, 0.02, (2, 2))) * scale
    linear = linear @ np.diag([1.0, -1.0 if mirrored else 1.0])
    # From the new picture's pixels to those of the old: about a middle of its own.
    if cut:
        extent = np.array([keep, keep]) * size / scale
        middle = size / 2 + rng.uniform(-0.5, 0.5, 2) * (1 - keep) * size
    else:
        extent = np.abs(np.linalg.inv(linear)) @ size
        middle = size / 2
    shape = tuple(int(n) for n in extent)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))
    at = np.tensordot(linear, grid - (np.array(shape)[:, None, None] / 2), 1)
    at += middle[:, None, None]
    waves = [_waves(shape, 0.15, rng) for _ in range(2)]
    amount = rng.uniform(0.002, 0.006) * max(size)
    at += np.stack(waves) * amount
    order, edge = (0, "constant") if nearest else (1, "constant")
    glass = 0 if nearest else np.median(picture.reshape(-1, picture.shape[2])[:1], 0)
    empty = np.broadcast_to(glass, picture.shape[2])
    if picture.dtype == np.uint8 and not nearest:
        empty = np.full(picture.shape[2], 243)
    if picture.dtype == np.uint16:
        empty = np.percentile(picture, 1, axis=(0, 1))
    seen = [
        map_coordinates(
            picture[..., k].astype(np.float32), at, order=order, mode=edge, cval=e
        )
        for k, e in enumerate(empty)
    ]
    if not nearest:
        soft = rng.uniform(0.3, 1.6)
        noise = 2.0 if picture.dtype == np.uint8 else 40.0
        seen = [gaussian_filter(s, soft) + rng.normal(0, noise, shape) for s in seen]
    top = np.iinfo(picture.dtype).max
    new = np.clip(np.rint(np.stack(seen, axis=-1)), 0, top).astype(picture.dtype)
    few = np.s_[:, :: max(1, shape[0] // 25), :: max(1, shape[1] // 25)]
    there, here = (x[few].reshape(2, -1).T for x in (grid.astype(float), at))
    known = ((here >= 0) & (here < size - 1)).all(1)
    return new, (here[known], there[known])


def _waves(shape: tuple[int, ...], share: float, rng: np.random.Generator) -> Doubles:
    """Return smooth noise of standard deviation 1, as coarse as a share of the side."""
    small = tuple(max(8, round(n * 3 / (share * min(shape)))) for n in shape)
    noise = gaussian_filter(rng.normal(size=small), 3.0)
    at = np.meshgrid(
        *(np.linspace(0, m - 1, n) for m, n in zip(small, shape, strict=True)),
        indexing="ij",
    )
    wide: Doubles = map_coordinates(noise, at, order=1)
    return (wide - wide.mean()) / wide.std()


def restained(he: Pixels, rng: np.random.Generator) -> Pixels:
    """Return H&E as an IHC: pale nuclei, and brown in some of what eosin stains."""
    from skimage.color import hed2rgb, rgb2hed

    hed = rgb2hed(he)
    places = _waves(he.shape[:2], 0.03, rng)
    positive = 1 / (1 + np.exp(-4 * places))
    pale, brown = rng.uniform(0.25, 0.6), rng.uniform(0.5, 1.6)
    ihc = np.stack(
        [
            pale * np.maximum(hed[..., 0], 0) + 0.15 * np.maximum(hed[..., 1], 0),
            np.zeros(he.shape[:2]),
            brown * positive * np.maximum(hed[..., 1], 0),
        ],
        axis=-1,
    )
    rgb: Pixels = np.rint(np.clip(hed2rgb(ihc) * 243, 0, 255)).astype(np.uint8)
    return rgb


def shining(he: Pixels, rng: np.random.Generator) -> Pixels:
    """Return H&E as fluorescence: nuclei, and a marker in some of what eosin stains."""
    from skimage.color import rgb2hed

    hed = np.maximum(rgb2hed(he), 0)
    places = _waves(he.shape[:2], 0.03, rng)
    marker = hed[..., 1] / hed[..., 1].max() * (places > 0)
    nuclei = hed[..., 0] / hed[..., 0].max()
    light = np.stack([nuclei, marker], axis=-1) * 8000 + 300
    camera: Pixels = np.rint(light).astype(np.uint16)
    return camera


@cache
def _painted(seed: int) -> tuple[Pixels, Pixels]:
    """Return a painted section at 2 µm per pixel and its glands."""
    from PIL import Image

    big, truth = paint_slide(2400, 3200, seed=seed)
    size = big.shape[1] // 4, big.shape[0] // 4
    he = np.asarray(Image.fromarray(big).resize(size, Image.Resampling.BOX))
    labels = Image.fromarray(truth.labels).resize(size, Image.Resampling.NEAREST)
    return he, np.asarray(labels).copy()


@cache
def _real(name: str) -> tuple[Pixels, float]:
    slide = open_slide(DATA / "slides" / name)
    mpp = 0.5 if slide.mpp is None else slide.mpp.mean
    shrunk = max(1.0, max(slide.shape) / SIDE_PX)
    height, width = (int(n / shrunk) for n in slide.shape)
    whole = Region(y=0, x=0, height=height * shrunk, width=width * shrunk)
    return read_resampled(slide, whole, height=height, width=width), mpp * shrunk


@cache
def _lung_pictures(which: int) -> tuple[Pixels, float, Doubles]:
    name = ("HE", "proSPC")[which]
    slide = open_slide(DATA / "stains" / f"Izd2-29-041-w35_{name}.jpg")
    height, width = slide.shape
    table = DATA / "stains" / f"Izd2-29-041-w35_{name}.csv"
    places = np.loadtxt(table, delimiter=",", skiprows=1)[:, [2, 1]]
    return slide.read_pixels(0, 0, 0, height, width), LUNG_UM, places
