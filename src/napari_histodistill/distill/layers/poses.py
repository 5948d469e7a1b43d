"""Whether a partner lies turned or mirrored: a cheap look at eight poses.

Sections are mounted upside down, and scanners turn slides. No transform without a
reflection can mend a mirrored section, however many landmarks are set, and *Refine*
searches near the start only. So both layers are compared as thumbnails, in four turns
and mirrored or not, each at the tilt and shift where they agree best. The best pose is
offered if it stands out from all others; nothing is ever turned unasked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.distill.layers.likeness import BINS, grey_of
from napari_histodistill.distill.layers.registration import inverse
from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Region
from napari_histodistill.slides.pyramid.resample import read_channels
from napari_histodistill.slides.tissue.tissue import find_tissue

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.distill.layers.partners import DenseLayer
    from napari_histodistill.slides.pyramid.slide import Slide

    Doubles = npt.NDArray[np.float64]
    Bools = npt.NDArray[np.bool_]

THUMBNAIL_PX = 128
"""Longer side of the larger layer, in pixels of the comparison."""

MARGIN = 1.12
"""Required ratio of the best pose's agreement to that of any other.

Slides that have nothing in common reached 1.03 to 1.05, serial sections of a lung in
H&E and proSPC 1.19 (laid to 26 µm), two stains of one section 3 and more.
"""

TILTS = tuple(range(-40, 50, 10))
"""Degrees by which each pose is also tilted: sections are laid down by hand."""

SHIFTS = 5
"""Shifts of each pose that are compared: the best by their outlines."""


@dataclass(frozen=True, slots=True, eq=False)
class Pose:
    """One of eight ways for a partner to lie.

    Attributes
    ----------
    turns : int
        Quarter turns of the partner, counter-clockwise as seen on screen, 0 to 3.
    mirrored : bool
        Whether it is mirrored left to right first.
    matrix : ndarray
        ``(3, 3)``, sparse world to dense world, µm, at the best shift.
    bits : float
        Agreement of both layers there, at the best tilt: mutual information over the
        tissue of either.
    """

    turns: int
    mirrored: bool
    matrix: Doubles
    bits: float


@dataclass(frozen=True, slots=True, eq=False)
class PoseSearch:
    """All poses, the best one first.

    Attributes
    ----------
    poses : tuple of Pose
        Eight, best first.
    """

    poses: tuple[Pose, ...]

    @property
    def margin(self) -> float:
        """The best agreement over the second best, which is surely wrong."""
        return self.poses[0].bits / max(self.poses[1].bits, 1e-6)

    @property
    def offered(self) -> Pose | None:
        """The pose to offer; None if it is as the layers lie, or no better than chance.

        Seven of eight poses are wrong, so the second best says what chance reaches.
        """
        best = self.poses[0]
        as_it_lies = best.turns == 0 and not best.mirrored
        return None if as_it_lies or self.margin < MARGIN else best


def search_poses(sparse: Slide, dense: DenseLayer) -> PoseSearch:
    """Compare two layers in eight poses.

    Parameters
    ----------
    sparse : Slide
        The H&E, with µm per pixel.
    dense : DenseLayer
        The partner; the poses turn it from how its matrix lays it.

    Raises
    ------
    InputError
        If the partner is a mask, or one of the layers has no tissue.
    """
    if dense.kind == "mask":
        msg = f"{dense.name} has outlines and no grey values to compare."
        raise InputError(msg)
    edge = max(
        max(np.array(s.shape) * (s.require_mpp().y, s.require_mpp().x))
        for s in (sparse, dense.slide)
    )
    um = float(edge) / THUMBNAIL_PX
    here = _thumbnail(sparse, um, None)
    there = _thumbnail(dense.slide, um, dense)
    found = []
    for mirrored in (False, True):
        for turns in range(4):
            linear = _linear(turns, mirrored=mirrored) @ _rotation(dense.matrix)
            near = [
                _at_best_shift(
                    here, there, linear @ _tilted(degrees), turns, mirrored=mirrored
                )
                for degrees in TILTS
            ]
            found.append(max(near, key=lambda pose: pose.bits))
    return PoseSearch(tuple(sorted(found, key=lambda pose: -pose.bits)))


@dataclass(frozen=True, slots=True, eq=False)
class _Thumbnail:
    """Grey values 0 to 1 and tissue of a layer, ``um`` µm a pixel."""

    grey: npt.NDArray[np.float32]
    tissue: Bools
    um: float


def _thumbnail(slide: Slide, um: float, dense: DenseLayer | None) -> _Thumbnail:
    mpp = slide.require_mpp()
    height, width = (
        max(2, int(n * m / um))
        for n, m in zip(slide.shape, (mpp.y, mpp.x), strict=True)
    )
    region = Region(y=0, x=0, height=height * um / mpp.y, width=width * um / mpp.x)
    pixels: Any = read_channels(slide, region, height=height, width=width)
    if dense is not None and dense.ranges is not None:
        low, high = dense.ranges.T
        pixels = np.clip((pixels - low) / (high - low), 0, 1) * 255
    colours = dense is None or dense.kind == "image"
    grey = grey_of(np.rint(pixels).astype(np.uint8), colours=colours)
    if colours:
        y, x = ((np.arange(n) + 0.5) * um for n in (height, width))
        points = np.stack(np.meshgrid(y / mpp.y, x / mpp.x, indexing="ij"), axis=-1)
        tissue = find_tissue(slide).at(points)
    else:
        tissue = grey > _otsu(grey)
    if not tissue.any():
        msg = f"{slide.name}: there is no tissue to compare."
        raise InputError(msg)
    return _Thumbnail(grey, tissue, um)


def _otsu(grey: npt.NDArray[np.float32]) -> float:
    from skimage.filters import threshold_otsu

    return float(threshold_otsu(grey)) if np.ptp(grey) > 0 else 1.0


def _linear(turns: int, *, mirrored: bool) -> Doubles:
    """Return ``(2, 2)``: where a pose puts (y, x) of the section, mirrored first."""
    turn = np.linalg.matrix_power(np.array([[0.0, -1.0], [1.0, 0.0]]), turns)
    return turn @ np.diag([1.0, -1.0 if mirrored else 1.0])


def _tilted(degrees: float) -> Doubles:
    angle = np.radians(degrees)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _rotation(matrix: Doubles) -> Doubles:
    return np.asarray(matrix[:2, :2], np.float64)


def _at_best_shift(
    here: _Thumbnail, there: _Thumbnail, linear: Doubles, turns: int, *, mirrored: bool
) -> Pose:
    """Return a pose at the shift where the layers agree best."""
    from scipy.ndimage import affine_transform

    size = 2 * THUMBNAIL_PX
    middle = np.array([size, size]) / 2
    grey, tissue = _centred(here, size)
    own = np.argwhere(there.tissue).mean(0)
    offset = own - linear @ middle
    turned = [
        affine_transform(
            values.astype(np.float32), linear, offset, (size, size), order=1
        )
        for values in (there.grey * there.tissue, there.tissue)
    ]
    theirs, seen = turned[0], turned[1] > 0.5
    best, bits = np.zeros(2, int), -1.0
    for shift in _shifts(tissue, seen):
        moved = np.roll(seen, shift, (0, 1)), np.roll(theirs, shift, (0, 1))
        now = _bits(grey * tissue, tissue, moved[1], moved[0])
        if now > bits:
            best, bits = np.array(shift), now
    # A place of the sparse thumbnail → of the frame → of the partner's thumbnail.
    centre = np.argwhere(here.tissue).mean(0)
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    shift_px = linear @ (middle - centre - best) + offset
    # Both worlds count from the centre of a layer's first pixel, which is far smaller:
    # half a pixel of the thumbnail before the centre of the thumbnail's first.
    half = np.eye(3)
    half[:2, 2] = here.um / 2
    matrix[:2, 2] = shift_px * here.um
    return Pose(turns, mirrored, half @ matrix @ inverse(half), bits)


def _centred(thumbnail: _Thumbnail, size: int) -> tuple[Doubles, Bools]:
    """Return grey values and tissue in a frame, the tissue's centre in its middle."""
    from scipy.ndimage import shift

    centre = np.argwhere(thumbnail.tissue).mean(0)
    frame = np.zeros((2, size, size), np.float32)
    height, width = thumbnail.grey.shape
    frame[0, :height, :width] = thumbnail.grey
    frame[1, :height, :width] = thumbnail.tissue
    by = size / 2 - centre
    grey, tissue = (shift(values, by, order=1) for values in frame)
    return grey.astype(np.float64), tissue > 0.5


def _shifts(here: Bools, there: Bools) -> list[tuple[int, ...]]:
    """Return the shifts that lay one outline on the other best."""
    product = np.fft.rfft2(here) * np.conj(np.fft.rfft2(there))
    overlap = np.fft.irfft2(product, here.shape)
    union = here.sum() + there.sum() - overlap
    share = overlap / np.maximum(union, 1)
    found: list[tuple[int, ...]] = []
    for _ in range(SHIFTS):
        at = np.unravel_index(int(share.argmax()), share.shape)
        half = share.shape[0] // 2  # beyond half the frame, it is a shift back
        found.append(tuple((int(n) + half) % share.shape[0] - half for n in at))
        rows = (np.arange(-2, 3) + at[0]) % share.shape[0]
        columns = (np.arange(-2, 3) + at[1]) % share.shape[1]
        share[np.ix_(rows, columns)] = -1
    return found


def _bits(ours: Doubles, here: Bools, theirs: Any, there: Bools) -> float:
    """Return the mutual information over the tissue of either layer, in bits."""
    either = here | there
    joint, _, _ = np.histogram2d(ours[either], theirs[either], bins=BINS // 2)
    joint /= joint.sum()
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log2(joint[seen] / apart[seen])).sum())
