"""Dense partners: a registered layer, or a table of spots.

A layer is read through its registration matrix, and rotated where it is not square to
the sparse slide. Channels that are not colours are scaled to 8 bits between two
percentiles of an overview, each channel on its own, so that a few hot pixels do not
darken all the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_histodistill.distill.layers.kinds import PartnerReading, Unlabelled
from napari_histodistill.distill.layers.labels import (
    LabelScan,
    MaskClasses,
    scan_labels,
)
from napari_histodistill.distill.layers.marker import (
    MARKER_FULL,
    MarkerStains,
    find_marker_stains,
    marker_of,
)
from napari_histodistill.distill.layers.registration import apply, inverse
from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Region
from napari_histodistill.slides.pyramid.resample import read_channels, read_nearest
from napari_histodistill.slides.tissue.tissue import survey_tissue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from napari_histodistill.distill.recipes.config import ImageKind
    from napari_histodistill.slides.pyramid.slide import Slide
    from napari_histodistill.slides.tissue.tissue import TissueMask, TissueSurvey

    Doubles = npt.NDArray[np.float64]
    Bools = npt.NDArray[np.bool_]
    Pixels = npt.NDArray[np.uint8]

PERCENTILES = (1.0, 99.8)
_OVERVIEW_PX = 2048
_LEAST_MARKER = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class DenseLayer:
    """An image or mask of the same tissue; make one with :func:`dense_layer`.

    Attributes
    ----------
    name : str
        Name of the layer, and of the partner in recipes and stores.
    slide : Slide
        The layer's pixels: any channels; for a mask, one channel of categories.
    kind : {"image", "channels", "mask"}
        Brightfield colours; channels that are not colours; categories.
    tile_px : int
        Edge of the partner's tiles, px.
    matrix : ndarray
        ``(3, 3)``, µm of the sparse world to µm of this layer's.
    confidence : float
        Confidence in the registration, 0 to 1.
    tissue : TissueMask or None
        Tissue of this layer; None for channels and masks, which count wherever they
        reach.
    survey : TissueSurvey or None
        What else it shows; None where nothing is known but ``tissue``.
    ranges : ndarray or None
        ``(channels, 2)``, the values that become 0 and 255; None for 8-bit colours.
    instances : bool
        Whether a mask numbers its objects; then only *inside* and *outside* are kept.
    classes : MaskClasses or None
        Classes of a mask that does not.
    labelled : TissueMask or None
        Where a mask has labels, if what it does not label is unknown; else None.
    stains : MarkerStains or None
        Of an image that is read as its marker.
    """

    name: str
    slide: Slide
    kind: ImageKind
    tile_px: int
    matrix: Doubles
    confidence: float
    tissue: TissueMask | None
    ranges: Doubles | None = None
    instances: bool = False
    classes: MaskClasses | None = None
    labelled: TissueMask | None = None
    stains: MarkerStains | None = None
    survey: TissueSurvey | None = None

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels, or of a mask's classes."""
        return self.slide.info.channels if self.classes is None else self.classes.names

    @property
    def reading(self) -> PartnerReading:
        """How the layer is read."""
        if self.kind == "mask":
            objects = self.instances
            return PartnerReading.OBJECTS if objects else PartnerReading.CLASSES
        return PartnerReading.LOOKS if self.stains is None else PartnerReading.MARKER

    @property
    def unlabelled(self) -> Unlabelled:
        """What places of a mask without a label are."""
        known = self.labelled is None
        return Unlabelled.BACKGROUND if known else Unlabelled.UNKNOWN

    def pixels(self, points: Doubles) -> Doubles:
        """Return level-0 pixels (edge convention) of sparse-world µm ``(…, 2)``."""
        mpp = self.slide.require_mpp()
        there = apply(self.matrix, points.reshape(-1, 2)).reshape(points.shape)
        placed: Doubles = there / (mpp.y, mpp.x) + 0.5
        return placed

    def sees(self, points: Doubles) -> tuple[Bools, Bools]:
        """Return which tiles lie on this layer, and where their points are tissue.

        Parameters
        ----------
        points : ndarray
            ``(n, k, 2)`` sparse-world µm.

        Returns
        -------
        inside : ndarray of bool
            ``(n,)``: whether all points of the tile lie on the layer.
        tissue : ndarray of bool
            ``(n, k)``: whether each point is tissue.
        """
        pixels, shape = self.pixels(points), np.array(self.slide.shape)
        near = (pixels >= -1e-6) & (pixels <= shape + 1e-6)
        within: Bools = near[..., 0] & near[..., 1]
        whole = np.logical_and.reduce(within, axis=1)
        if self.tissue is None:
            return whole, within
        return whole, within & self.tissue.at(pixels)

    def says(self, points: Doubles) -> Bools:
        """Return where places have a label, or need none, ``(n, k)``; see `sees`."""
        if self.labelled is None:
            return np.ones(points.shape[:2], bool)
        return self.labelled.at(self.pixels(points))

    def lacks(self, points: Doubles) -> tuple[Bools, Bools, Bools]:
        """Return where this layer surely shows no tissue that can be learned from.

        A pale counterstain may well not be found as tissue: only clear glass counts.

        Parameters
        ----------
        points : ndarray
            ``(n, k, 2)`` sparse-world µm.

        Returns
        -------
        blank, ink, fold : ndarray of bool
            ``(n, k)`` each; a point is one of them at most.
        """
        pixels = self.pixels(points)
        if self.survey is not None:
            seen = self.survey
            return seen.blank.at(pixels), seen.ink.at(pixels), seen.fold.at(pixels)
        none = np.zeros(points.shape[:2], bool)
        blank = none if self.tissue is None else ~self.tissue.at(pixels)
        return blank, none, none

    def read(self, centre: Doubles, edge: float) -> npt.NDArray[np.uint8]:
        """Return what this layer shows of a sparse tile.

        Parameters
        ----------
        centre : ndarray
            ``(2,)``, sparse-world µm.
        edge : float
            Edge of the tile, sparse-world µm.

        Returns
        -------
        ndarray
            ``(tile_px, tile_px, channels)`` uint8, the same way round as the sparse
            tile.
        """
        n = self.tile_px
        places = (np.arange(n) + 0.5) / n * edge - edge / 2
        points = centre + np.stack(np.meshgrid(places, places, indexing="ij"), axis=-1)
        return self.read_at(points)

    def read_at(self, points: Doubles) -> npt.NDArray[np.uint8]:
        """Return what this layer shows at a regular lattice of places.

        Parameters
        ----------
        points : ndarray
            ``(h, w, 2)``, (y, x) in sparse-world µm; at least two rows and columns.

        Returns
        -------
        ndarray
            ``(h, w, channels)`` uint8; beyond the border the layer is mirrored.
        """
        pixels = self.pixels(points)
        if self.kind == "mask":
            found = read_nearest(self.slide, pixels)
            if self.classes is not None:
                return self.classes.read(found)
            return np.asarray(found != 0, np.uint8)
        values = self._level(pixels)
        if self.ranges is not None:
            low, high = self.ranges.T
            values = (values - low) / (high - low) * 255
        return np.rint(np.clip(values, 0, 255)).astype(np.uint8)

    def _level(self, pixels: Doubles) -> npt.NDArray[np.float32]:
        """Return values at a regular lattice of level-0 positions, antialiased."""
        rows, columns = pixels.shape[:2]
        down = (pixels[-1, 0] - pixels[0, 0]) / (rows - 1)
        right = (pixels[0, -1] - pixels[0, 0]) / (columns - 1)
        step = float(np.sqrt(abs(down[0] * right[1] - down[1] * right[0])))
        if abs(down[1]) + abs(right[0]) < 1e-3 * step and min(down[0], right[1]) > 0:
            # Not rotated: one resampling is enough, and nothing is interpolated twice.
            return read_channels(
                self.slide,
                Region(
                    y=float(pixels[0, 0, 0] - down[0] / 2),
                    x=float(pixels[0, 0, 1] - right[1] / 2),
                    height=float(down[0] * rows),
                    width=float(right[1] * columns),
                ),
                height=rows,
                width=columns,
            )
        from scipy.ndimage import map_coordinates

        low = pixels.min((0, 1)) - 2 * step
        size = np.ceil((pixels.max((0, 1)) + 2 * step - low) / step).astype(int)
        height, width = size.tolist()
        around = read_channels(
            self.slide,
            Region(
                y=float(low[0]),
                x=float(low[1]),
                height=height * step,
                width=width * step,
            ),
            height=height,
            width=width,
        )
        at = np.moveaxis((pixels - low) / step - 0.5, -1, 0)
        channels = [
            map_coordinates(around[..., k], at, order=1, mode="nearest")
            for k in range(around.shape[2])
        ]
        return np.stack(channels, axis=-1).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Spots:
    """Spots of spatial transcriptomics.

    Attributes
    ----------
    name : str
        Name of the table.
    positions_um : ndarray
        ``(n, 2)`` float64, (y, x) of the spots' centres in their own world.
    values : ndarray
        ``(n, genes)`` float32, for instance log-normalised counts.
    genes : tuple of str
        Names of the columns.
    matrix : ndarray
        ``(3, 3)``, µm of the sparse world to µm of the spots'.
    confidence : float
        Confidence in the registration, 0 to 1.
    origin : mapping
        How genes were chosen, and of which library; kept with the pairs.

    Raises
    ------
    InputError
        If positions and values do not fit together, or a value is not finite.
    """

    name: str
    positions_um: Doubles
    values: npt.NDArray[np.float32]
    genes: tuple[str, ...]
    matrix: Doubles = field(default_factory=lambda: np.eye(3))
    confidence: float = 1.0
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.positions_um)
        if self.positions_um.shape != (count, 2) or self.values.shape != (
            count,
            len(self.genes),
        ):
            msg = (
                f"{self.name}: positions {self.positions_um.shape}, values "
                f"{self.values.shape} and {len(self.genes)} genes do not fit together."
            )
            raise InputError(msg)
        if not count or not self.genes:
            msg = f"{self.name}: a table of spots needs spots and genes."
            raise InputError(msg)
        if not (
            np.isfinite(self.positions_um).all() and np.isfinite(self.values).all()
        ):
            msg = f"{self.name}: a position or value is missing: drop or fill that row."
            raise InputError(msg)

    def centres_um(self) -> Doubles:
        """Return ``(n, 2)``: the spots in the sparse world."""
        return apply(inverse(self.matrix), self.positions_um)


def dense_layer(  # noqa: PLR0913 - what is asked of a person, one name each
    slide: Slide,
    *,
    name: str,
    tile_px: int,
    kind: Literal["picture", "mask"] = "picture",
    matrix: Doubles | None = None,
    confidence: float = 1.0,
    reading: PartnerReading | None = None,
    unlabelled: Unlabelled | None = None,
    named: Mapping[int, str] | None = None,
    stains: MarkerStains | None = None,
    scan: LabelScan | None = None,
) -> DenseLayer:
    """Examine a dense slide once: its tissue, its range of values, its categories.

    Parameters
    ----------
    slide : Slide
        Registered to the sparse slide by ``matrix``; with µm per pixel.
    name : str
        Name of the partner.
    tile_px : int
        Edge of its tiles, px.
    kind : {"picture", "mask"}
        Intensities or categories; masks are never blended.
    matrix : ndarray, optional
        ``(3, 3)``, sparse world to this one's, µm; one world for both by default.
    confidence : float
        Confidence in the registration, 0 to 1.
    reading : PartnerReading, optional
        How it is read, as one partner; by default an image as it looks, and labels as
        :attr:`.LabelScan.reading` says.
    unlabelled : Unlabelled, optional
        What places of a mask without a label are; by default as
        :meth:`.LabelScan.unlabelled` says.
    named : mapping of int to str, optional
        Names of a mask's numbers.
    stains : MarkerStains, optional
        Of an image read as its marker; measured by default.
    scan : LabelScan, optional
        What was found in a mask, if it was looked at before.

    Raises
    ------
    InputError
        If a channel is the same everywhere, a mask is not of whole numbers, all its
        places are alike, or the reading is not one of this kind of layer.
    MissingMppError
        If the slide does not know its µm per pixel.
    """
    slide.require_mpp()
    if reading is not None and reading.is_of_labels != (kind == "mask"):
        what = "labels" if kind == "mask" else "an image"
        msg = f"{name} is {what}, which cannot be read as {reading.value}."
        raise InputError(msg)
    common: dict[str, Any] = {
        "name": name,
        "tile_px": tile_px,
        "matrix": np.eye(3) if matrix is None else np.asarray(matrix, np.float64),
        "confidence": confidence,
    }
    if kind == "mask":
        found = scan or scan_labels(slide, name, named)
        chosen = reading or found.reading
        assumed = unlabelled or found.unlabelled(chosen)
        found.check(chosen, assumed)
        classes = chosen is PartnerReading.CLASSES
        return DenseLayer(
            slide=slide,
            kind="mask",
            tissue=None,
            instances=not classes,
            classes=found.classes() if classes else None,
            labelled=found.labelled if assumed is Unlabelled.UNKNOWN else None,
            **common,
        )
    if reading is PartnerReading.MARKER:
        measured = stains or find_marker_stains(slide)
        marker = marker_of(slide, measured)
        _check_marker(marker, name)
        survey = survey_tissue(slide, pale=True)
        return DenseLayer(
            slide=marker,
            kind="channels",
            tissue=survey.tissue,
            survey=survey,
            ranges=np.array([[0.0, MARKER_FULL]]),
            stains=measured,
            **common,
        )
    colours = slide.info.is_rgb and slide.dtype == np.uint8
    # Dark fluorescence is information too: no signal is also a measurement.
    looks = survey_tissue(slide, pale=True) if colours else None
    return DenseLayer(
        slide=slide,
        kind="image" if colours else "channels",
        tissue=None if looks is None else looks.tissue,
        survey=looks,
        ranges=None if colours else _ranges(slide, name),
        **common,
    )


def _check_marker(marker: Slide, name: str) -> None:
    most = float(np.percentile(_overview(marker), PERCENTILES[1]))
    if most < _LEAST_MARKER:
        msg = (
            f"{name}: with these stain vectors there is next to no marker on it, so it "
            "teaches nothing: correct them, or read it as it looks."
        )
        raise InputError(msg)


def _overview(slide: Slide) -> npt.NDArray[Any]:
    sizes = [max(info.height, info.width) for info in slide.level_infos]
    level = next((k for k, n in enumerate(sizes) if n <= _OVERVIEW_PX), len(sizes) - 1)
    info = slide.level_infos[level]
    return slide.read_pixels(level, 0, 0, info.height, info.width)


def _ranges(slide: Slide, name: str) -> Doubles:
    pixels = _overview(slide)
    low, high = np.percentile(
        np.nan_to_num(pixels.astype(np.float32)), PERCENTILES, axis=(0, 1)
    )
    # Few bright cells in a dark channel: beyond the percentile there is still signal.
    high = np.where(high > low, high, pixels.max((0, 1)))
    for channel, bottom, top in zip(slide.info.channels, low, high, strict=True):
        if not top > bottom:
            msg = (
                f"{name}: the channel {channel!r} is the same everywhere, so it "
                "teaches nothing: leave it out."
            )
            raise InputError(msg)
    return np.stack([low, high], axis=1).astype(np.float64)


COLORS = ("#0072b2", "#009e73", "#d55e00", "#cc79a7", "#f0e442", "#56b4e9")
"""Okabe-Ito colours, as on the canvas; blue first, since the first is usually DAPI."""


def to_look_at(tile: Pixels, kind: str, colors: Sequence[str] = COLORS) -> Pixels:
    """Return a partner's tile as an image to look at, ``(h, w, 3)`` uint8.

    Parameters
    ----------
    tile : ndarray
        ``(h, w, c)`` uint8. A mask has one channel of categories, each of which gets a
        colour, or a channel for every category.
    kind : {"image", "channels", "mask"}
        Kind of the partner, as in the plan.
    colors : sequence of str
        ``#rrggbb`` of the channels; they repeat where there are more channels.
    """
    if kind == "image":
        return tile
    if kind == "mask" and tile.shape[2] == 1:
        return _categories_to_look_at(tile[..., 0], colors)
    values = tile.astype(np.float32) / 255
    rgb = [_rgb(colors[k % len(colors)]) for k in range(tile.shape[2])]
    mixed = values @ np.array(rgb, np.float32)
    return np.clip(mixed, 0, 255).astype(np.uint8)


def _categories_to_look_at(codes: Pixels, colors: Sequence[str]) -> Pixels:
    table = np.zeros((256, 3), np.uint8)
    for code in range(1, 256):
        table[code] = _rgb(colors[(code - 1) % len(colors)])
    table[255] = table[1]  # masks of two values are often 0 and 255
    return table[codes]


def _rgb(color: str) -> tuple[int, int, int]:
    red, green, blue = (int(color[k : k + 2], 16) for k in (1, 3, 5))
    return red, green, blue
