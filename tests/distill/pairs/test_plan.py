"""Pairs of registered layers: twins show the same place, however the layers lie."""

from __future__ import annotations

import tracemalloc

import dask.array as da
import numpy as np
import pytest

from napari_histodistill.distill.layers import partners as partners_module
from napari_histodistill.distill.layers.partners import Spots, dense_layer
from napari_histodistill.distill.pairs.lost import Lost
from napari_histodistill.distill.pairs.plan import PairPlan, Sampling, plan_pairs
from napari_histodistill.errors import InputError, MissingMppError
from napari_histodistill.geometry import Mpp
from napari_histodistill.slides import slide_from_arrays
from napari_histodistill.slides.tissue.tissue import TissueMask, TissueSurvey

SIDE = 512
MPP = Mpp(0.5, 0.5, "test")


def smooth(seed, channels=3, side=SIDE):
    """Return smooth noise in which every place is unlike every other."""
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(seed).normal(size=(side, side, channels))
    noise = gaussian_filter(noise, (6, 6, 0), mode="nearest")
    noise = (noise - noise.min()) / np.ptp(noise)
    return (60 + 150 * noise).astype(np.uint8)


def slide_of(pixels, mpp=MPP, name="layer", channels=None):
    return slide_from_arrays(pixels, name=name, mpp=mpp, channels=channels)


def everywhere(slide):
    return TissueMask(np.ones((8, 8), bool), slide.shape)


def all_tissue(slide, **_):
    none = TissueMask(np.zeros((1, 1), bool), slide.shape)
    return TissueSurvey(everywhere(slide), none, none, none)


@pytest.fixture(autouse=True)
def noise_is_tissue(monkeypatch):
    """Take all of a partner for tissue: its colours are those of no stain."""
    monkeypatch.setattr(partners_module, "survey_tissue", all_tissue)


def affine(degrees=0.0, scale=1.0, shift=(0.0, 0.0)):
    turn = np.radians(degrees)
    found = np.eye(3)
    found[:2, :2] = scale * np.array(
        [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    )
    found[:2, 2] = shift
    return found


def seen_through(pixels, mpp, matrix, *, shape, mpp_there):
    """Return what another microscope sees of the same tissue, bilinear."""
    from scipy.ndimage import map_coordinates

    # Centres of the other layer's pixels, in its world and then back in this one's.
    y, x = (np.arange(n) * mpp_there for n in shape)
    world = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1)
    back = np.linalg.inv(matrix)
    at = (world @ back[:2, :2].T + back[:2, 2]) / mpp
    channels = [
        map_coordinates(
            pixels[..., k].astype(float), np.moveaxis(at, -1, 0), order=1, mode="mirror"
        )
        for k in range(pixels.shape[2])
    ]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def planned(sparse, *partners, tile_px=64, **rest) -> PairPlan:
    sampling = Sampling(mpp=0.5, tile_px=tile_px, **rest)
    return plan_pairs(sparse, partners, sampling, tissue=everywhere(sparse))


WAYS = {
    "one world": affine(),
    "moved by a fraction": affine(shift=(3.3, -7.7)),
    "turned": affine(25, shift=(60, -40)),
    "upside down": affine(180, shift=(255.5, 255.5)),
    "larger and turned": affine(-70, 1.3, (20, 250)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mpp_there", [0.5, 0.25, 0.8])
def test_twins_show_the_same_tissue_the_same_way_round(way, mpp_there):
    pixels = smooth(0)
    shape = (round(SIDE * 0.5 * 1.4 / mpp_there),) * 2
    there = seen_through(pixels, 0.5, WAYS[way], shape=shape, mpp_there=mpp_there)
    sparse = slide_of(pixels, name="sparse")
    layer = dense_layer(
        slide_of(there, Mpp(mpp_there, mpp_there, "test"), "dense"),
        name="dense",
        tile_px=64,
        matrix=WAYS[way],
    )
    plan = planned(sparse, layer)
    assert len(plan) >= 10
    for pair in range(0, len(plan), 5):
        mine = plan.sparse_tile(pair).astype(float)
        theirs = plan.partner_tile(pair, 0).astype(float)
        assert np.abs(mine - theirs).mean() < 2.5  # of a range of 150
        # A registration off by two pixels would show.
        assert np.abs(mine[2:] - theirs[:-2]).mean() > 2 * np.abs(mine - theirs).mean()


def test_a_mask_is_never_blended():
    numbers = np.zeros((SIDE, SIDE), np.uint8)
    numbers[100:300, 100:300] = 2
    numbers[300:400, 100:300] = 7
    sparse = slide_of(smooth(1), name="sparse")
    mask = dense_layer(
        slide_of(numbers, name="mask"),
        name="mask",
        tile_px=16,
        kind="mask",
        matrix=affine(3),
    )
    plan = planned(sparse, mask)
    assert mask.kind == "mask"
    assert not mask.instances
    found = np.concatenate([plan.partner_tile(k, 0).ravel() for k in range(len(plan))])
    assert mask.classes.names == ("class 2", "class 7")
    assert set(np.unique(found)) == {0, 1, 2}
    assert plan.partner_tile(0, 0).shape == (16, 16, 1)


def test_numbered_objects_become_inside_and_outside():
    numbers = np.zeros((SIDE, SIDE), np.int32)
    for k, (y, x) in enumerate(np.ndindex(20, 20)):
        numbers[y * 25 : y * 25 + 12, x * 25 : x * 25 + 12] = k + 1
    mask = dense_layer(slide_of(numbers), name="nuclei", tile_px=64, kind="mask")
    assert mask.instances
    plan = planned(slide_of(smooth(1)), mask)
    for pair, centre in enumerate(plan.centres_um):
        y, x = np.rint(centre / 0.5 + 0.5 - 32).astype(int)
        expected = numbers[y : y + 64, x : x + 64, None] > 0
        np.testing.assert_array_equal(plan.partner_tile(pair, 0), expected)


def test_channels_are_brought_to_8_bits_each_on_its_own():
    dim = smooth(2, channels=2).astype(np.uint16) * np.array([1, 200], np.uint16)
    dim[5, 5] = 65535  # a hot pixel
    slide = slide_of(dim, channels=("DAPI", "CD3"))
    layer = dense_layer(slide, name="mif", tile_px=64)
    assert layer.kind == "channels"
    plan = planned(slide_of(smooth(2)), layer)
    tiles = np.stack([plan.partner_tile(k, 0) for k in range(len(plan))])
    assert tiles.shape[1:] == (64, 64, 2)
    assert tiles.dtype == np.uint8
    assert (np.ptp(tiles.reshape(-1, 2), axis=0) > 200).all()


def test_regions_share_no_tissue_and_tiles_do_not_overlap():
    plan = planned(slide_of(smooth(3)), tile_px=32)
    assert len(plan) == 16 * 16
    regions = np.unique(plan.regions)
    assert 16 <= len(regions) <= 64
    low = plan.centres_um - plan.sampling.tile_um / 2
    boxes = {
        r: (low[plan.regions == r].min(0), low[plan.regions == r].max(0) + 16)
        for r in regions
    }
    for a in regions:
        for b in regions:
            if a < b:
                apart = (boxes[a][1] <= boxes[b][0] + 1e-6) | (
                    boxes[b][1] <= boxes[a][0] + 1e-6
                )
                assert apart.any()
    assert len(np.unique(low.round(3), axis=0)) == len(plan)


def test_glass_is_left_out_and_torn_tissue_lowers_confidence():
    sparse, dense = slide_of(smooth(4), name="sparse"), slide_of(smooth(5))
    left = np.zeros((16, 16), bool)
    left[:, :8] = True
    torn = np.ones((128, 128), bool)
    torn[:, 40:50] = False  # a crack of 40 px, through the second column of tiles
    layer = dense_layer(dense, name="dense", tile_px=64, confidence=0.9)
    layer = type(layer)(
        layer.name,
        layer.slide,
        layer.kind,
        layer.tile_px,
        layer.matrix,
        layer.confidence,
        TissueMask(torn, dense.shape),
    )
    plan = plan_pairs(
        sparse,
        [layer],
        Sampling(mpp=0.5, tile_px=64, min_tissue=0.3),
        tissue=TissueMask(left, sparse.shape),
    )
    assert (plan.centres_um[:, 1] < 128).all()
    assert plan.lost[Lost.BACKGROUND] == 32
    cracked = (plan.centres_um[:, 1] > 64) & (plan.centres_um[:, 1] < 96)
    whole = plan.centres_um[:, 1] < 64
    assert plan.confidence[whole] == pytest.approx(0.9)
    assert (plan.confidence[cracked] < 0.7).all()
    assert cracked.any()


def test_pairs_around_spots_carry_their_genes():
    rng = np.random.default_rng(6)
    turn = affine(90, shift=(10, 300))
    here = rng.uniform(40, 210, (30, 2))
    values = rng.normal(size=(30, 5)).astype(np.float32)
    there = here @ turn[:2, :2].T + turn[:2, 2]
    spots = Spots("visium", there, values, tuple("abcde"), turn, confidence=0.8)
    pixels = smooth(6)
    plan = planned(slide_of(pixels), spots, tile_px=32)
    assert plan.spot is not None
    np.testing.assert_allclose(plan.centres_um, here[plan.spot], atol=1e-9)
    assert plan.confidence == pytest.approx(0.8)
    for pair in range(len(plan)):
        np.testing.assert_array_equal(
            plan.partner_tile(pair, 0), values[plan.spot[pair]]
        )
        y, x = np.rint(plan.centres_um[pair] / 0.5).astype(int)
        middle = plan.sparse_tile(pair)[14:18, 14:18].mean((0, 1))
        expected = pixels[y - 1 : y + 3, x - 1 : x + 3].mean((0, 1))
        np.testing.assert_allclose(middle, expected, atol=8)


def test_a_limit_draws_the_same_pairs_again():
    sparse = slide_of(smooth(7))
    few = planned(sparse, tile_px=32, limit=20, seed=3)
    assert len(few) == 20
    again = planned(sparse, tile_px=32, limit=20, seed=3)
    np.testing.assert_array_equal(few.centres_um, again.centres_um)
    other = planned(sparse, tile_px=32, limit=20, seed=4)
    assert (few.centres_um != other.centres_um).any()


def refused(*partners, match, tile_px=64, mask=None):
    sparse = slide_of(smooth(8), name="he")
    tissue = everywhere(sparse) if mask is None else TissueMask(mask, sparse.shape)
    with pytest.raises(InputError, match=match):
        plan_pairs(sparse, partners, Sampling(mpp=0.5, tile_px=tile_px), tissue=tissue)


def test_layers_apart_are_told_apart():
    far = dense_layer(
        slide_of(smooth(8)), name="ihc", tile_px=64, matrix=affine(shift=(9000, 0))
    )
    refused(far, match="ihc does not show the tissue of he.*alignment")


def test_what_cannot_be_sampled_is_said_in_a_sentence():
    refused(match="no tile of 512 µm lies on it", tile_px=1024)
    refused(match="no tile of 32 µm is 50% tissue", mask=np.zeros((4, 4), bool))
    spots = Spots("s", np.ones((1, 2)), np.ones((1, 1), np.float32), ("g",))
    refused(spots, spots, match="only one partner can be a spot table")
    ihc = dense_layer(slide_of(smooth(8)), name="ihc", tile_px=64)
    refused(ihc, ihc, match="Two partners are called ihc")


def test_a_constant_channel_teaches_nothing():
    pixels = smooth(9, channels=2).astype(np.uint16)
    pixels[..., 1] = 7
    slide = slide_of(pixels, channels=("DAPI", "CD3"))
    with pytest.raises(InputError, match="mif: the channel 'CD3' is the same every"):
        dense_layer(slide, name="mif", tile_px=64)


@pytest.mark.parametrize(
    ("pixels", "match"),
    [
        (np.zeros((64, 64), np.uint8), "is 0 everywhere"),
        (np.zeros((64, 64), np.float32), "whole numbers"),
        (np.zeros((64, 64, 3), np.uint8), "one channel of whole numbers"),
        (np.full((64, 64), -1, np.int16), "0 or more"),
    ],
)
def test_an_unfit_mask_is_refused(pixels, match):
    with pytest.raises(InputError, match=match):
        dense_layer(slide_of(pixels), name="mask", tile_px=64, kind="mask")


def test_a_layer_without_size_is_refused():
    with pytest.raises(MissingMppError):
        dense_layer(slide_of(smooth(0), mpp=None), name="ihc", tile_px=64)


@pytest.mark.parametrize(
    ("positions", "values", "match"),
    [
        (np.zeros((2, 2)), np.zeros((3, 1), np.float32), "do not fit together"),
        (np.zeros((0, 2)), np.zeros((0, 1), np.float32), "needs spots and genes"),
        (np.zeros((1, 2)), np.full((1, 1), np.nan, np.float32), "missing"),
    ],
)
def test_unfit_spots_are_refused(positions, values, match):
    with pytest.raises(InputError, match=match):
        Spots("spots", positions, values, ("gene",))


def test_small_tiles_on_a_gigapixel_slide_are_planned_in_little_memory():
    """Ten million points: at once, their places alone took 156 MB, thrice over."""
    side = 100_000
    pixels = da.full((side, side, 3), 200, dtype=np.uint8, chunks=(4096, 4096, 3))
    slide = slide_from_arrays(pixels, name="large", mpp=Mpp(0.25, 0.25, "t"))
    mask = np.zeros((1000, 1000), bool)
    mask[100:600, 200:900] = True
    sampling = Sampling(mpp=0.25, tile_px=256, limit=500)
    tracemalloc.start()
    plan = plan_pairs(slide, [], sampling, tissue=TissueMask(mask, slide.shape))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(plan.centres_um) == 500
    assert peak < 100 * 1024**2
