"""Classes from a Labels layer: which cells, which regions, and an honest score."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.distill.scoring.label_probe import (
    FEWEST_CELLS,
    MOST_CELLS,
    LabelledArea,
    embed_cells,
    find_cells,
    fit_and_score,
)
from napari_histodistill.errors import InputError
from napari_histodistill.students.spec import ClassSpec
from tests.fakes import PINK, PURPLE, array_slide, colour_student

STROMA = ClassSpec(name="stroma", color="#e69f00")
GLAND = ClassSpec(name="gland", color="#56b4e9")
MPP = 0.5
TO_PIXELS = np.diag([1 / MPP, 1 / MPP, 1.0])


def stripes(rng, side=960, width=120):
    """Pink and purple stripes with noise, and the labels that say which is which."""
    labels = np.tile((np.arange(side) // width) % 2 + 1, (side, 1)).astype(np.int32)
    colours = np.array([(0, 0, 0), PINK, PURPLE])
    noise = rng.normal(0, 12, (side, side, 1))
    image = np.clip(colours[labels] + noise, 0, 255).astype(np.uint8)
    return array_slide(image, mpp=MPP), labels


def area(labels, classes=None, matrix=TO_PIXELS):
    return LabelledArea("zones", labels, matrix, classes or {1: STROMA, 2: GLAND})


def cells(slide, labelled):
    # 32 px at 0.5 µm/px: cells of 32 × 32 level-0 pixels.
    return find_cells(slide, labelled, mpp=MPP, tile_px=32)


def test_cells_carry_the_class_that_fills_them(rng):
    slide, labels = stripes(rng)
    found = cells(slide, area(labels))
    assert [c.name for c in found.classes] == ["stroma", "gland"]
    for (row, column), label in zip(found.cells, found.labels, strict=True):
        part = labels[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32]
        assert (part == label + 1).mean() > 0.55
    assert len(found) > 600


def test_regions_are_squares_of_neighbours(rng):
    slide, labels = stripes(rng)
    found = cells(slide, area(labels))
    assert len(np.unique(found.regions)) == 36
    for region in np.unique(found.regions):
        mine = found.cells[found.regions == region]
        assert (np.ptp(mine, axis=0) < 5).all()


def test_a_layer_that_lies_elsewhere_is_read_where_it_lies(rng):
    slide, labels = stripes(rng)
    # Twice as coarse, and moved by 64 µm.
    moved = np.array([[1.0, 0, -64.0], [0, 1.0, -64.0], [0, 0, 1]])
    coarse = labels[128::2, 128::2]
    found = cells(slide, area(coarse, matrix=moved))
    assert found.cells.min() >= 4
    for (row, column), label in zip(found.cells, found.labels, strict=True):
        middle = labels[row * 32 + 16, column * 32 + 16]
        assert middle == label + 1


def test_what_colour_tells_is_learned_and_scored(rng):
    slide, labels = stripes(rng)
    found = cells(slide, area(labels))
    student = colour_student(mpp=MPP, with_head=False)
    embeddings = np.concatenate(list(embed_cells(student, slide, found)))
    probe = fit_and_score(embeddings, found)
    assert probe.balanced > 0.95
    assert probe.interval.low > 0.9
    assert probe.cells == len(found)
    assert probe.head.weight.shape == (2, 6)
    right = probe.head.probabilities(embeddings).argmax(axis=1) == found.labels
    assert right.mean() > 0.95


def test_what_regions_give_away_does_not_flatter(rng):
    """Every region has a look of its own that says nothing of the class."""
    slide, labels = stripes(rng)
    found = cells(slide, area(labels))
    own = rng.normal(size=(found.regions.max() + 1, 16))
    # Within a region, all cells of one class: a split by cell would be all right.
    by_region = rng.integers(0, 2, found.regions.max() + 1)
    found = type(found)(
        found.grid, found.cells, by_region[found.regions], found.regions,
        found.classes, (),
    )  # fmt: skip
    embeddings = (own[found.regions] + rng.normal(0, 0.05, (len(found), 16))).astype(
        np.float32
    )
    probe = fit_and_score(embeddings, found)
    assert probe.balanced < 0.75
    assert probe.interval.low < 0.5 < probe.interval.high


def test_too_little_is_refused_with_the_counts(rng):
    slide, labels = stripes(rng)
    few = np.where(labels == 2, 0, labels)
    few[:64, :64] = 2
    with pytest.raises(InputError, match=r"stroma \d+ in \d+ regions; gland 4 in 1"):
        cells(slide, area(few))


def test_a_third_class_with_too_little_is_left_out_and_named(rng):
    slide, labels = stripes(rng)
    labels[:64, :64] = 3
    rare = ClassSpec(name="rare", color="#000000")
    found = cells(slide, area(labels, {1: STROMA, 2: GLAND, 3: rare}))
    assert found.left_out == ("rare",)
    assert len(found.classes) == 2
    assert set(np.unique(found.labels)) == {0, 1}


def test_several_values_may_be_one_class(rng):
    slide, labels = stripes(rng)
    labels[labels == 1] = rng.choice([1, 5, 9])
    known = {1: STROMA, 5: STROMA, 9: STROMA, 2: GLAND}
    assert len(cells(slide, area(labels, known)).classes) == 2


def test_a_layer_off_the_slide_is_refused(rng):
    slide, labels = stripes(rng)
    far = np.array([[2.0, 0, -9e5], [0, 2.0, 0], [0, 0, 1]])
    with pytest.raises(InputError, match="labels no tile of 16 µm"):
        cells(slide, area(labels, matrix=far))


def test_of_very_many_cells_some_are_drawn_and_rare_classes_stay(rng):
    slide, labels = stripes(rng)
    labels[:] = 1
    labels[::2, :][:, :96] = 1
    labels[:, :64] = 2
    found = find_cells(slide, area(labels), mpp=MPP, tile_px=8)
    assert len(found) == MOST_CELLS
    assert (found.labels == 1).sum() > MOST_CELLS * 0.45 > FEWEST_CELLS
