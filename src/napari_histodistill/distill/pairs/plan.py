"""The pairs that registered layers give, planned before any of them is read.

Several frames meet here. *World* is what napari shows: µm, pixel centres, level-0 pixel
(0, 0) of a layer centred at its origin. Every partner has a world of its own, and a
matrix that carries the sparse world into it (:mod:`.registration`). A pair's partner is
resampled into the sparse tile's square, so both twins show the same tissue the same way
round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.distill.layers.partners import DenseLayer, Spots
from napari_histodistill.distill.pairs.lost import Lost
from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Region
from napari_histodistill.slides.pyramid.grid import TileGrid
from napari_histodistill.slides.pyramid.resample import read_resampled
from napari_histodistill.slides.tissue.tissue import (
    TissueMask,
    TissueSurvey,
    survey_tissue,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from napari_histodistill.distill.pairs.provenance import SectionOrigin
    from napari_histodistill.geometry import Mpp
    from napari_histodistill.slides.pyramid.slide import Slide

    Doubles = npt.NDArray[np.float64]
    Bools = npt.NDArray[np.bool_]

REGIONS = 6
"""Regions along the longer side of the sampled area: a sixth of it is about what is
held out, and neighbours inside a region stay on one side of the split."""

SPOT_REGION = 4
"""Fewest tiles along a region's side around spots, which lie anywhere: with smaller
regions, too many tiles would reach across a border."""

_LATTICE = 8
"""Points along a tile's edge at which tissue is looked up."""

STRIP_TILES = 8192
"""Tiles that are looked up at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """The layout of pairs.

    Attributes
    ----------
    mpp : float
        µm per pixel of the sparse tiles.
    tile_px : int
        Edge of the sparse tiles, px.
    min_tissue : float
        Share of a tile that must be tissue, on the slide and on every partner that is
        an image.
    limit : int or None
        Largest number of pairs, drawn at random; None for all of them.
    seed : int
        Seed of that draw.
    """

    mpp: float
    tile_px: int
    min_tissue: float = 0.5
    limit: int | None = None
    seed: int = 0

    @property
    def tile_um(self) -> float:
        """Edge of a tile in µm."""
        return self.tile_px * self.mpp


@dataclass(frozen=True, slots=True, eq=False)
class PairPlan:
    """Pairs as places; make one with :func:`plan_pairs`.

    Attributes
    ----------
    sparse : Slide
        The information-sparse slide.
    sampling : Sampling
        Layout of the pairs.
    centres_um : ndarray
        ``(n, 2)`` float64, (y, x) in the sparse world.
    regions : ndarray
        ``(n,)`` str: the region of each pair, which stays on one side of a split.
    confidence : ndarray
        ``(n,)`` float32 in (0, 1]: how surely a pair shows the same tissue.
    partners : tuple of DenseLayer or Spots
        At least one, or none for a higher magnification of the same layer.
    spot : ndarray or None
        ``(n,)`` int, the spot of every pair, where a partner is a table of spots.
    lost : dict of Lost to int
        Number of places that give no pair, by reason: every reason but ``STRADDLES``,
        which depends on the split.
    origin : SectionOrigin or None
        Where the section comes from, if it is known.
    """

    sparse: Slide
    sampling: Sampling
    centres_um: Doubles
    regions: npt.NDArray[np.str_]
    confidence: npt.NDArray[np.float32]
    partners: tuple[DenseLayer | Spots, ...]
    spot: npt.NDArray[np.intp] | None
    lost: Mapping[Lost, int]
    origin: SectionOrigin | None = None

    def __len__(self) -> int:
        return len(self.centres_um)

    @property
    def source(self) -> str:
        """The layers, in words."""
        return " + ".join([self.sparse.name, *(p.name for p in self.partners)])

    @property
    def origins(self) -> tuple[SectionOrigin | None, ...]:
        """Where the section comes from, as in :class:`.PairPool`."""
        return (self.origin,)

    @property
    def section_names(self) -> tuple[str, ...]:
        """Names of the :attr:`sections`: there is one, called by its case if known."""
        case = "" if self.origin is None else self.origin.case
        return (case or self.sparse.name,)

    @property
    def sections(self) -> npt.NDArray[np.intp]:
        """Index of each pair's section, ``(n,)``."""
        return np.zeros(len(self), np.intp)

    def sparse_tile(self, pair: int) -> npt.NDArray[np.uint8]:
        """Return ``(tile_px, tile_px, 3)`` uint8 RGB of a pair."""
        centre, edge = self.centres_um[pair], self.sampling.tile_um
        tile_px = self.sampling.tile_px
        mpp = self.sparse.require_mpp()
        region = Region(
            y=float(centre[0] - edge / 2) / mpp.y + 0.5,
            x=float(centre[1] - edge / 2) / mpp.x + 0.5,
            height=edge / mpp.y,
            width=edge / mpp.x,
        )
        return read_resampled(self.sparse, region, height=tile_px, width=tile_px)

    def partner_tile(self, pair: int, partner: int) -> npt.NDArray[Any]:
        """Return a partner's tile of a pair: ``(h, w, c)`` uint8, or ``(genes,)``.

        A spot's genes come as float32.
        """
        found = self.partners[partner]
        if isinstance(found, Spots):
            assert self.spot is not None
            genes: npt.NDArray[np.float32] = found.values[self.spot[pair]]
            return genes
        return found.read(self.centres_um[pair], self.sampling.tile_um)


def plan_pairs(
    sparse: Slide,
    partners: Sequence[DenseLayer | Spots],
    sampling: Sampling,
    *,
    tissue: TissueMask | None = None,
) -> PairPlan:
    """Lay tiles over the tissue of a slide, as far as its partners do not lack it.

    Tiles touch and do not overlap; if there are spots, tiles are centred on them, and
    may overlap. The area is cut into regions of whole tiles; a tile belongs to the one
    that its centre lies in. Where regions of one section are on both sides of a split,
    tiles that reach across are left out then (:mod:`.split`), not here.

    The slide's own tissue decides. A partner takes a place away where it surely has
    none: outside its picture, on clear glass, under ink, on a fold.

    Parameters
    ----------
    sparse : Slide
        RGB, with µm per pixel.
    partners : sequence of DenseLayer or Spots
        Registered to it; at most one table of spots.
    sampling : Sampling
        Size and largest number of the tiles.
    tissue : TissueMask, optional
        Tissue of the sparse slide; detected by default.

    Raises
    ------
    InputError
        In one sentence: no overlap, no tissue, tiles too large, two tables of spots,
        two partners of one name, an alignment that is off by more than a tile.
    MissingMppError
        If the slide does not know its µm per pixel.
    """
    spots = _only_spots(partners)
    _check_names(partners)
    mpp, edge = sparse.require_mpp(), sampling.tile_um
    # Places: the cells of a grid, or the spots, in the sparse world.
    centres = _cells(sparse, sampling) if spots is None else spots.centres_um()
    low = centres - edge / 2
    inside = _inside(sparse, low, edge)
    seen = _only_tissue(tissue) if tissue is not None else survey_tissue(sparse)
    layers = [layer for layer in partners if isinstance(layer, DenseLayer)]
    looks = _looked_at(centres, edge, seen, mpp, layers)
    stained = inside & (looks.here >= sampling.min_tissue)
    if not stained.any():
        msg = (
            f"{sparse.name}: no tile of {edge:.0f} µm is {sampling.min_tissue:.0%} "
            "tissue: choose smaller tiles, or correct the tissue mask."
        )
        raise InputError(msg)
    reason = _own_reasons(inside, looks, sampling.min_tissue)
    confidence = np.full(len(centres), spots.confidence if spots else 1, np.float32)
    for k, layer in enumerate(layers):
        shows = looks.whole[k] & (looks.left[k] >= sampling.min_tissue)
        if not (shows & stained).any():
            msg = (
                f"{layer.name} does not show the tissue of {sparse.name}: no tile of "
                f"{edge:.0f} µm lies on both. Check the alignment and µm per pixel."
            )
            raise InputError(msg)
        # Torn, folded or lost tissue: one layer has some there, the other has none.
        confidence *= layer.confidence * looks.alike[k]
        lost_here = (reason == _KEPT) & ~shows
        reason[lost_here] = np.where(looks.whole[k], looks.worst[k], _OUTSIDE)[
            lost_here
        ]
    labelled = _labelled_shares(centres, edge, layers)
    confidence *= labelled
    reason[(reason == _KEPT) & (labelled == 0)] = _UNLABELLED
    shown = reason == _KEPT
    if not shown.any() and (reason == _UNLABELLED).any():
        msg = (
            f"{sparse.name}: no tile of {edge:.0f} µm has a label on it, and what is "
            "not labelled is unknown. Check the alignment, or count it as background."
        )
        raise InputError(msg)
    _check_confidence(sparse, partners, edge, confidence[shown])
    region = _regions(low, edge, shown, fewest=1 if spots is None else SPOT_REGION)
    kept = _drawn(np.flatnonzero(shown & (confidence > 0)), sampling)
    return PairPlan(
        sparse=sparse,
        sampling=sampling,
        centres_um=centres[kept],
        # With the slide's name: several slides may be pooled, and reports name regions.
        regions=np.array([f"{sparse.name} {name}" for name in region[kept]]),
        confidence=confidence[kept],
        partners=tuple(partners),
        spot=None if spots is None else kept,
        lost={why: int((reason == k).sum()) for k, why in enumerate(REASONS)},
    )


REASONS = (
    Lost.BACKGROUND,
    Lost.OUTSIDE_PARTNER,
    Lost.INK,
    Lost.FOLD,
    Lost.UNLABELLED,
)
"""Reasons that are known before pairs are split."""

_KEPT = -1
_BACKGROUND, _OUTSIDE, _INK, _FOLD, _UNLABELLED = range(len(REASONS))


def _only_tissue(tissue: TissueMask) -> TissueSurvey:
    """Return a survey that knows of tissue alone: a person drew or corrected it."""
    none = TissueMask(np.zeros((1, 1), bool), tissue.slide_shape)
    return TissueSurvey(tissue, none, none, none)


def _own_reasons(inside: Bools, looks: _Looks, least: float) -> npt.NDArray[np.int8]:
    """Return why each place is lost on the sparse slide; :data:`_KEPT` if it is not."""
    reason = np.full(len(inside), _BACKGROUND, np.int8)
    reason[looks.here >= least] = _KEPT
    # With what hides it, it would be a place.
    hidden = (reason != _KEPT) & (looks.here + looks.ink + looks.fold >= least)
    reason[hidden] = np.where(looks.ink >= looks.fold, _INK, _FOLD)[hidden]
    reason[~inside] = _BACKGROUND
    return reason


def _check_confidence(
    sparse: Slide,
    partners: Sequence[DenseLayer | Spots],
    edge: float,
    confidence: npt.NDArray[np.float32],
) -> None:
    """Refuse a plan in which no pair counts, and say which of two reasons it is."""
    if (confidence > 0).any():
        return
    unsure = [p.name for p in partners if not p.confidence > 0]
    if unsure:
        msg = (
            f"{unsure[0]} is aligned with {sparse.name} no better than to the edge of "
            f"a tile ({edge:.0f} µm): improve the alignment, or choose larger tiles."
        )
    else:
        msg = f"{sparse.name}: no tile of {edge:.0f} µm lies on all partners at once."
    raise InputError(msg)


def _only_spots(partners: Sequence[DenseLayer | Spots]) -> Spots | None:
    spots = [p for p in partners if isinstance(p, Spots)]
    if len(spots) > 1:
        msg = "Pairs are centred on spots, so only one partner can be a spot table."
        raise InputError(msg)
    return spots[0] if spots else None


def _check_names(partners: Sequence[DenseLayer | Spots]) -> None:
    """Refuse one name for two: recipes and stores find a partner by its name."""
    names = [p.name for p in partners]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        msg = f"Two partners are called {twice[0]}: give one of them another name."
        raise InputError(msg)


def _inside(sparse: Slide, low: Doubles, edge: float) -> Bools:
    """Return which tiles lie on the slide, from their upper left corners."""
    mpp = sparse.require_mpp()
    per_px = np.array([mpp.y, mpp.x])
    first, rounding = low + per_px / 2, 1e-6 * edge  # world to µm from the border
    size = np.array(sparse.shape) * per_px
    inside: Bools = ((first >= -rounding) & (first + edge <= size + rounding)).all(1)
    if not inside.any():
        msg = (
            f"{sparse.name} is {size[0]:.0f} × {size[1]:.0f} µm: no tile of "
            f"{edge:.0f} µm lies on it. Check the size, and the scale of both layers."
        )
        raise InputError(msg)
    return inside


def _drawn(kept: npt.NDArray[np.intp], sampling: Sampling) -> npt.NDArray[np.intp]:
    if sampling.limit is None or len(kept) <= sampling.limit:
        return kept
    random = np.random.default_rng(sampling.seed)
    return np.sort(random.choice(kept, sampling.limit, replace=False))


def _cells(sparse: Slide, sampling: Sampling) -> Doubles:
    """Return the centres of touching tiles from the slide's corner on."""
    mpp = sparse.require_mpp()
    edge = sampling.tile_px
    grid = TileGrid.over(
        sparse.shape, mpp, mpp=sampling.mpp, tile_px=edge, stride_px=edge
    )
    y, x = grid.centers()
    world = (y - 0.5) * mpp.y, (x - 0.5) * mpp.x
    return np.stack(np.meshgrid(*world, indexing="ij"), axis=-1).reshape(-1, 2)


@dataclass(frozen=True, slots=True, eq=False)
class _Looks:
    """Shares of every tile, from its points; ``n`` tiles, ``l`` layers.

    Attributes
    ----------
    here, ink, fold : ndarray
        ``(n,)`` share that is tissue on the sparse slide, ink, folded.
    whole : ndarray of bool
        ``(l, n)``: whether all of the tile lies on the layer.
    left, alike : ndarray
        ``(l, n)`` share that is tissue here and not surely lacking on the layer; share
        on which the layer and the sparse slide do not contradict each other.
    worst : ndarray
        ``(l, n)`` int8, reason for which the layer lacks most of the tile's tissue.
    """

    here: Doubles
    ink: Doubles
    fold: Doubles
    whole: Bools
    left: Doubles
    alike: Doubles
    worst: npt.NDArray[np.int8]


def _looked_at(
    centres: Doubles,
    edge: float,
    seen: TissueSurvey,
    mpp: Mpp,
    layers: Sequence[DenseLayer],
) -> _Looks:
    """Look at the points of all tiles, some tiles at a time.

    Small tiles on a gigapixel slide have a hundred million points.
    """
    count, shape = len(centres), (len(layers), len(centres))
    looks = _Looks(
        here=np.empty(count),
        ink=np.empty(count),
        fold=np.empty(count),
        whole=np.empty(shape, bool),
        left=np.empty(shape),
        alike=np.empty(shape),
        worst=np.empty(shape, np.int8),
    )
    for start in range(0, count, STRIP_TILES):
        strip = slice(start, start + STRIP_TILES)
        points = _lattice(centres[strip], edge)
        pixels = points / (mpp.y, mpp.x) + 0.5
        here = seen.tissue.at(pixels)
        looks.here[strip] = here.mean(1)
        looks.ink[strip] = seen.ink.at(pixels).mean(1)
        looks.fold[strip] = seen.fold.at(pixels).mean(1)
        for k, layer in enumerate(layers):
            looks.whole[k, strip], there = layer.sees(points)
            lacking = layer.lacks(points)
            gone = lacking[0] | lacking[1] | lacking[2]
            looks.left[k, strip] = (here & ~gone).mean(1)
            looks.alike[k, strip] = 1 - (here & gone | ~here & there).mean(1)
            shares = np.stack([(here & part).mean(1) for part in lacking])
            reasons = np.array([_OUTSIDE, _INK, _FOLD], np.int8)
            looks.worst[k, strip] = reasons[shares.argmax(0)]
    return looks


def _labelled_shares(
    centres: Doubles, edge: float, layers: Sequence[DenseLayer]
) -> npt.NDArray[np.float32]:
    """Return how much of each tile is labelled, ``(n,)``, in all masks at once.

    1 where what is not labelled is background, which is a label, too.
    """
    share = np.ones(len(centres), np.float32)
    masks = [layer for layer in layers if layer.labelled is not None]
    for start in range(0, len(centres) if masks else 0, STRIP_TILES):
        strip = slice(start, start + STRIP_TILES)
        points = _lattice(centres[strip], edge)
        for layer in masks:
            share[strip] *= layer.says(points).mean(1)
    return share


def _lattice(centres: Doubles, edge: float) -> Doubles:
    """Return ``(n, k, 2)``: points spread evenly over every tile, its corners too."""
    steps = np.linspace(-edge / 2, edge / 2, _LATTICE)
    offsets = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1)
    spread: Doubles = centres[:, np.newaxis] + offsets.reshape(1, -1, 2)
    return spread


def _regions(
    low: Doubles, edge: float, shown: Bools, *, fewest: int
) -> npt.NDArray[np.str_]:
    """Return every tile's region: the one that its centre lies in."""
    origin = low[shown].min(0)
    extent = (low[shown] + edge).max(0) - origin
    # Whole tiles, so that tiles of a grid never reach across a border.
    side = edge * max(fewest, round(float(extent.max()) / edge / REGIONS))
    cell = np.floor((low + edge / 2 - origin) / side).astype(int)
    return np.array([f"region {y},{x}" for y, x in cell])
