"""Turned and mirrored partners: found where they stand out, and never guessed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_histodistill.distill.layers.partners import dense_layer
from napari_histodistill.distill.layers.poses import (
    MARGIN,
    THUMBNAIL_PX,
    Pose,
    PoseSearch,
    search_poses,
)
from napari_histodistill.distill.layers.registration import apply
from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Mpp
from napari_histodistill.slides import slide_from_arrays

MPP = 2.0
SHAPE = 420, 560
POSES = [(turns, mirrored) for mirrored in (False, True) for turns in range(4)]


def section(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return tissue of no symmetry with structure in it: H&E, and its marker."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    body = ((y - 200) / 150) ** 2 + ((x - 230) / 190) ** 2 < 1
    lobe = ((y - 320) / 70) ** 2 + ((x - 400) / 110) ** 2 < 1
    tissue = body | lobe
    glands = gaussian_filter(rng.normal(size=SHAPE), 12)
    glands = (glands - glands.min()) / np.ptp(glands)
    colours = np.array([[235, 190, 215], [120, 70, 150]])
    he = colours[0] + glands[..., None] * (colours[1] - colours[0])
    he = he + rng.normal(scale=16, size=(*SHAPE, 3))
    he[~tissue] = 245
    marker = np.where(tissue, 2000 + 20000 * (1 - glands) ** 2, 300)
    marker = marker + rng.normal(scale=100, size=SHAPE)
    return np.clip(he, 0, 255).astype(np.uint8), np.clip(marker, 0, 65535).astype("u2")


def posed(image: np.ndarray, turns: int, mirrored: bool) -> np.ndarray:
    """Return what a scanner would show of a section that lies so."""
    return np.ascontiguousarray(np.rot90(image[:, ::-1] if mirrored else image, turns))


def place_in(points: np.ndarray, turns: int, mirrored: bool) -> np.ndarray:
    """Return where level-0 pixel centres went, ``(n, 2)``."""
    grid = np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE)
    now = posed(grid, turns, mirrored)
    where = {int(v): k for k, v in enumerate(now.ravel())}
    found = [where[int(grid[y, x])] for y, x in points]
    return np.stack(np.unravel_index(found, now.shape), axis=1).astype(float)


def layers(sparse, dense):
    mpp = Mpp(MPP, MPP, "a test")
    he = slide_from_arrays(sparse, name="he", mpp=mpp)
    other = slide_from_arrays(dense, name="marker", mpp=mpp)
    return he, dense_layer(other, name="marker", tile_px=8)


@pytest.mark.parametrize(("turns", "mirrored"), POSES)
def test_the_pose_is_found_and_laid(turns, mirrored):
    he, marker = section()
    found = search_poses(*layers(he, posed(marker, turns, mirrored)[..., None]))
    best = found.poses[0]
    if (turns, mirrored) == (0, False):
        assert found.offered is None
    else:
        assert found.offered is best
        assert (best.turns, best.mirrored) == (turns, mirrored)
    assert found.margin > MARGIN
    points = np.array([[120, 150], [200, 300], [330, 420], [60, 230]])
    there = place_in(points, turns, mirrored)
    off = np.linalg.norm(apply(best.matrix, points * MPP) - there * MPP, axis=1)
    assert off.max() < 2 * MPP * max(SHAPE) / THUMBNAIL_PX  # two thumbnail pixels


def test_two_colours_of_one_section_are_compared_as_well():
    he, _ = section()
    ihc = 255 - he[..., ::-1] // 2
    ihc[(he == 245).all(-1)] = 245
    offered = search_poses(*layers(he, posed(ihc, 1, mirrored=True))).offered
    assert offered is not None
    assert offered.mirrored


def test_sections_that_have_nothing_in_common_are_not_turned():
    he, _ = section()
    rng = np.random.default_rng(9)
    y, x = np.mgrid[:500, :500]
    disc = (y - 250) ** 2 + (x - 250) ** 2 < 200**2
    other = np.where(disc, 8000 + rng.normal(scale=900, size=(500, 500)), 300)
    found = search_poses(*layers(he, other.astype("u2")[..., None]))
    assert found.offered is None


def test_nothing_is_offered_within_the_margin_of_chance():
    def search(*bits):
        poses = [Pose(k % 4, k > 3, np.eye(3), b) for k, b in enumerate(bits)]
        return PoseSearch(tuple(sorted(poses, key=lambda p: -p.bits)))

    assert search(0.1, 0.5, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1).offered.turns == 1
    assert search(0.1, 0.5, 0.1, 0.1, 0.1, 0.48, 0.1, 0.1).offered is None
    assert search(0.5, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1).offered is None


def test_outlines_and_empty_slides_are_refused():
    he, _ = section()
    mpp = Mpp(MPP, MPP, "a test")
    labels = np.zeros((50, 60, 1), np.uint8)
    labels[10:20, 10:30] = 1
    mask = slide_from_arrays(labels, name="labels", mpp=mpp)
    layer = dense_layer(mask, name="labels", tile_px=8, kind="mask")
    slide = slide_from_arrays(he, name="he", mpp=mpp)
    with pytest.raises(InputError, match="no grey values"):
        search_poses(slide, layer)
    glass = slide_from_arrays(np.full((90, 90, 3), 245, np.uint8), name="g", mpp=mpp)
    _, marker = layers(he, section()[1][..., None])
    with pytest.raises(InputError, match="no tissue"):
        search_poses(glass, marker)


def test_a_real_pair_of_serial_sections(data):
    """H&E and proSPC of one lung: landmarks of others say where it was laid."""
    from PIL import Image

    name = "stains/Izd2-29-041-w35_"
    pictures, places = [], []
    for stain in ("HE", "proSPC"):
        picture = Image.open(data / f"{name}{stain}.jpg").convert("RGB")
        pictures.append(np.asarray(picture))
        table = np.loadtxt(data / f"{name}{stain}.csv", delimiter=",", skiprows=1)
        places.append(table[:, [2, 1]])
    he, ihc = pictures
    for turns, mirrored in ((0, False), (1, True)):
        found = search_poses(*layers(he, posed(ihc, turns, mirrored)))
        assert found.poses[0].mirrored is mirrored
        there, shape = places[1], ihc.shape
        if mirrored:
            there = np.stack([there[:, 0], shape[1] - 1 - there[:, 1]], axis=1)
        if turns:
            there = np.stack([shape[1] - 1 - there[:, 1], there[:, 0]], axis=1)
        laid = apply(found.poses[0].matrix, places[0] * MPP)
        off = np.median(np.linalg.norm(laid - there * MPP, axis=1))
        assert off < 0.1 * MPP * max(he.shape)
