"""A split leaks no tissue, and leaves out no pair that it need not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_histodistill.controllers.distil.pairs import Planned
from napari_histodistill.controllers.distil.sections import count_straddling, say_pairs
from napari_histodistill.distill.layers.partners import Spots
from napari_histodistill.distill.pairs.loading import load_pairs
from napari_histodistill.distill.pairs.plan import Sampling, plan_pairs
from napari_histodistill.distill.pairs.pool import pool_pairs
from napari_histodistill.distill.pairs.split import PairPlaces, reaching_across
from napari_histodistill.distill.pairs.store import write_pairs
from napari_histodistill.errors import StoreError
from napari_histodistill.geometry import Mpp
from napari_histodistill.slides import slide_from_arrays
from napari_histodistill.slides.tissue.tissue import TissueMask
from tests.distill.pairs.test_store import recipe

MPP = Mpp(5.5, 5.5, "test")
TILE_UM = 176.0
"""32 px: spots 100 µm apart overlap, as they do on a Visium slide."""


def overlap(one, others, edge):
    """Return which of ``others`` share area with ``one``, by their corners."""
    low = np.maximum(one - edge / 2, others - edge / 2)
    high = np.minimum(one + edge / 2, others + edge / 2)
    return ((high - low) > 1e-6 * edge).all(axis=1)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_tile_trained_on_shows_held_out_tissue(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    count, edge = data.draw(st.integers(2, 60)), data.draw(st.floats(0.5, 3))
    sections = rng.integers(0, 2, count)
    centres = rng.uniform(0, 8, (count, 2))
    if data.draw(st.booleans()):  # of a grid: tiles touch, and none is lost
        centres = np.floor(centres) * edge
    held = np.flatnonzero(rng.random(count) < 0.3)
    gone = reaching_across(PairPlaces(sections, centres, edge), held)
    assert not set(gone) & set(held)
    for row in np.setdiff1d(np.arange(count), held):
        same = held[sections[held] == sections[row]]
        assert overlap(centres[row], centres[same], edge).any() == (row in gone)


def section(seed, side=14):
    """Return a plan around spots 100 µm apart in a hexagonal lattice, all on tissue."""
    sparse = slide_from_arrays(
        np.random.default_rng(seed).integers(60, 200, (400, 400, 3), np.uint8),
        name=f"section {seed}",
        mpp=MPP,
    )
    rows, columns = np.mgrid[:side, :side]
    x = 200 + 100 * (columns + 0.5 * (rows % 2))
    places = np.stack([200 + 86.6 * rows, x], axis=-1).reshape(-1, 2)
    values = np.random.default_rng(9).normal(size=(side**2, 4)).astype(np.float32)
    return plan_pairs(
        sparse,
        [Spots("spots", places, values, tuple("abcd"))],
        Sampling(mpp=5.5, tile_px=32),
        tissue=TissueMask(np.ones((2, 2), bool), sparse.shape),
    )


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    plans = [section(1), section(2)]
    path = tmp_path_factory.mktemp("pairs") / "pairs.zarr"
    list(write_pairs(path, pool_pairs(plans)))
    return plans, path


def config(**data):
    plain = recipe({"column": "spots", "kind": "expression"}).model_dump()
    plain["mpp"], plain["source_px"] = 5.5, 32
    plain["data"] |= data
    return type(recipe()).model_validate(plain)


def test_a_section_held_out_whole_costs_no_spot(two):
    plans, path = two
    assert [len(plan) for plan in plans] == [196, 196]  # every spot is a pair
    split = load_pairs(config(validate_on=["section 2"], validation_share=0), path)
    assert (len(split.train), len(split.validation)) == (196, 196)
    assert split.left_out == 0
    alone = load_pairs(config(validation_share=0), path)
    assert (len(alone.train), alone.validation, alone.left_out) == (392, None, 0)


def test_a_split_by_region_leaves_out_only_what_reaches_across(two):
    plans, path = two
    split = load_pairs(config(validation_share=0.2), path)
    assert len(split.train) + len(split.validation) + split.left_out == 392
    # Regions of 700 µm: 4 × 4 of 2 sections, of which about a fifth is held out.
    # When every tile at any border of regions was left out, 140 were.
    assert 20 <= split.left_out <= 80
    held_out = np.isin(pool_pairs(plans).regions, np.unique(split.validation.cases))
    assert len(split.validation) == held_out.sum()  # what judges is whole
    planned = [Planned(plan, (), ()) for plan in plans]
    assert count_straddling(planned) == split.left_out
    said = say_pairs(planned[1], planned[:1], 314, "")
    assert f"Not trained on: about {split.left_out} that reach into a held-out" in said
    assert "held-out region" not in say_pairs(planned[1], planned[:1], 196, "section 1")


def test_stored_pairs_know_where_they_lie(two):
    _, path = two
    own = load_pairs(config(validation_share=0), path).train
    near = config(validation_share=0)
    dense = near.dense[0].model_copy(
        update={"partner": "shuffled_nearby", "nearby": 1.2}
    )
    dealt = load_pairs(near.model_copy(update={"dense": (dense,)}), path).train
    # Both sections have the same table, and every spot of one has its own row in it.
    table = own.partners[0].values[:196]
    far = np.linalg.norm(dealt.partners[0].values[:, None] - table, axis=2)
    drawn = far.argmin(axis=1) + np.repeat([0, 196], 196)
    moved = np.linalg.norm(own.positions[drawn] - own.positions, axis=1)
    assert 99 < moved.min() < moved.max() < 121  # µm: the spots are 100 µm apart
    with pytest.raises(StoreError, match="stored pairs have positions of their own"):
        load_pairs(config(validation_share=0, positions="(.)(.)"), path)


def test_a_split_that_leaves_nothing_is_refused(tmp_path):
    regions = np.array([f"region {k}" for k in range(4)])
    plan = replace(section(3, side=2), regions=regions)
    list(write_pairs(tmp_path / "pairs.zarr", plan))
    with pytest.raises(StoreError, match=r"every pair reaches.*smaller tiles"):
        load_pairs(config(validation_share=0.25), tmp_path / "pairs.zarr")
