"""Labels as classes or objects, and what places without a label are."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.distill.layers.kinds import PartnerReading, Unlabelled
from napari_histodistill.distill.layers.labels import scan_labels
from napari_histodistill.distill.layers.partners import dense_layer
from napari_histodistill.distill.pairs.loading import load_pairs
from napari_histodistill.distill.pairs.lost import Lost
from napari_histodistill.distill.pairs.plan import Sampling, plan_pairs
from napari_histodistill.distill.pairs.pool import pool_pairs
from napari_histodistill.distill.pairs.store import read_pairs, write_pairs
from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Mpp
from napari_histodistill.slides import slide_from_arrays
from napari_histodistill.slides.tissue.tissue import TissueMask
from tests.distill.pairs.test_store import recipe

MPP = Mpp(0.5, 0.5, "test")
SIDE, PX = 256, 32
CLASSES, OBJECTS = PartnerReading.CLASSES, PartnerReading.OBJECTS
UNKNOWN, BACKGROUND = Unlabelled.UNKNOWN, Unlabelled.BACKGROUND


def labels(numbers, name="labels"):
    return slide_from_arrays(numbers, name=name, mpp=MPP)


def layer(numbers, **how):
    return dense_layer(labels(numbers), name="labels", tile_px=PX, kind="mask", **how)


def halves(first=1, second=2, dtype=np.uint8):
    """Left: upper half ``first``, lower ``second``; right: nothing is labelled."""
    numbers = np.zeros((SIDE, SIDE), dtype)
    numbers[: SIDE // 2, : SIDE // 2] = first
    numbers[SIDE // 2 :, : SIDE // 2] = second
    return numbers


def nuclei(dtype=np.int32):
    """36 squares, each with a number of its own."""
    numbers = np.zeros((SIDE, SIDE), dtype)
    for k in range(36):
        y, x = 40 * np.array(divmod(k, 6)) + 5
        numbers[y : y + 12, x : x + 12] = k + 1
    return numbers


def plan_of(*masks, name="H&E"):
    pixels = np.random.default_rng(0).integers(60, 200, (SIDE, SIDE, 3), np.uint8)
    sparse = slide_from_arrays(pixels, name=name, mpp=MPP)
    tissue = TissueMask(np.ones((4, 4), bool), sparse.shape)
    return plan_pairs(sparse, masks, Sampling(mpp=0.5, tile_px=PX), tissue=tissue)


@pytest.mark.parametrize(
    ("numbers", "named", "classes", "objects", "reading", "unlabelled"),
    [
        (halves(), {}, 2, 2, CLASSES, UNKNOWN),
        (np.where(nuclei() > 0, 255, 0), {}, 1, 36, CLASSES, BACKGROUND),
        (nuclei() > 0, {}, 1, 36, CLASSES, BACKGROUND),
        (nuclei(), {}, 36, 36, OBJECTS, BACKGROUND),
        (halves(7, 4000, np.uint16), {}, 2, 2, OBJECTS, BACKGROUND),
        # Named numbers are classes, however many objects there are.
        (nuclei(), {k: f"type {k % 2}" for k in range(1, 37)}, 2, 36, CLASSES, UNKNOWN),
        (halves(), {1: "tumour", 2: " "}, 1, 2, CLASSES, BACKGROUND),
    ],
)
def test_what_is_found_decides_what_is_offered(
    numbers, named, classes, objects, reading, unlabelled
):
    scan = scan_labels(labels(numbers), "labels", named)
    assert (scan.class_count, scan.object_count) == (classes, objects)
    assert scan.reading is reading
    assert scan.unlabelled(reading) is unlabelled


def test_a_person_decides_otherwise():
    # Large numbers are classes if a person says so, and classes are objects.
    many = layer(halves(7, 4000, np.uint16), reading=CLASSES)
    assert many.classes.names == ("class 7", "class 4000")
    points = np.stack(np.meshgrid([20.0, 90.0], [20.0, 90.0], indexing="ij"), -1)
    assert many.read_at(points)[..., 0].tolist() == [[1, 0], [2, 0]]
    inside = layer(halves(), reading=OBJECTS)
    assert inside.read_at(points)[..., 0].tolist() == [[1, 0], [1, 0]]
    assert inside.unlabelled is BACKGROUND
    assert layer(halves(), unlabelled=BACKGROUND).unlabelled is BACKGROUND


@pytest.mark.parametrize(
    ("numbers", "how", "match"),
    [
        (nuclei(), {"reading": CLASSES}, "holds 36 different numbers, and classes are"),
        (nuclei(), {"unlabelled": UNKNOWN}, "in objects, and if the others are unkn"),
        (nuclei() > 0, {"unlabelled": UNKNOWN}, "of one class, and if the others"),
        (np.full((9, 9), 3), {}, "all places are of one class, so it teaches nothing"),
        (halves(), {"reading": PartnerReading.MARKER}, "is labels, which cannot be"),
    ],
)
def test_a_reading_that_teaches_nothing_is_refused(numbers, how, match):
    with pytest.raises(InputError, match=match):
        layer(numbers, **how)


def test_unknown_places_count_for_no_class(tmp_path):
    numbers = halves()
    numbers[:, 112:128] = 0  # half of the tiles before the border
    plan = plan_of(layer(numbers))
    assert len(plan) == 32
    assert plan.lost[Lost.UNLABELLED] == 32
    assert plan.lost[Lost.OUTSIDE_PARTNER] == 0
    column = np.rint(plan.centres_um[:, 1] / 16 - 0.5).astype(int)
    assert set(column.tolist()) == {0, 1, 2, 3}
    np.testing.assert_allclose(plan.confidence[column < 3], 1)
    np.testing.assert_allclose(plan.confidence[column == 3], 0.5, atol=0.13)
    known = plan_of(layer(numbers, unlabelled=BACKGROUND))
    assert len(known) == 64
    assert known.lost[Lost.UNLABELLED] == 0

    list(write_pairs(tmp_path / "pairs.zarr", plan))
    (kept,) = read_pairs(tmp_path / "pairs.zarr").partners
    assert kept.names == ("class 1", "class 2")
    assert kept.origin == {"reading": "classes", "unlabelled": "unknown"}
    mask = {"column": "labels", "kind": "mask", "tile_px": PX}

    def channels(**said):
        split = load_pairs(recipe(mask | said), tmp_path / "pairs.zarr")
        return split.train.partners[0].values

    # Every tile lies in one half: all of it is of that class, known or not.
    found = channels()
    assert set(np.unique(found.sum(-1, dtype=int))) == {255}
    assert {tuple(np.unique(tile[..., 0])) for tile in found} == {(0,), (255,)}
    # Told that 0 is background, some places are of no class.
    assert (channels(unlabelled="background").sum(-1, dtype=int) == 0).any()


def test_classes_of_several_sections_are_matched_by_name():
    one = layer(halves(), named={1: "tumour", 2: "stroma"})
    two = layer(halves(), named={1: "stroma", 2: "necrosis"})
    pool = pool_pairs([plan_of(one, name="A"), plan_of(two, name="B")])
    assert [p.partners[0].channels for p in pool.plans] == [
        ("tumour", "stroma", "necrosis"),
    ] * 2
    upper = [pool.partner_tile(k, 0).max() for k in (0, len(pool) // 2)]
    lower = [
        pool.partner_tile(k, 0).max() for k in (len(pool) // 2 - 1, -1 % len(pool))
    ]
    assert upper == [1, 2]
    assert lower == [2, 3]


def test_a_mask_of_which_nothing_lies_on_the_tissue_is_refused():
    numbers = np.zeros((SIDE, SIDE), np.uint8)
    numbers[0, 0], numbers[0, 1] = 1, 2
    with pytest.raises(InputError, match="no tile of 16 µm has a label on it"):
        plan_of(layer(np.roll(numbers, 5, (0, 1))))
