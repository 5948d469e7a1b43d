"""Several sections as one set: every row is its own section's, or it is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_histodistill.distill.layers.partners import Spots, dense_layer
from napari_histodistill.distill.pairs.plan import Sampling, plan_pairs
from napari_histodistill.distill.pairs.pool import pool_pairs
from napari_histodistill.distill.pairs.store import read_pairs, write_pairs
from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Mpp
from tests.distill.pairs.test_plan import (
    everywhere,
    noise_is_tissue,
    slide_of,
    smooth,
)

__all__ = ["noise_is_tissue"]

TILES = Sampling(mpp=0.5, tile_px=64)


def section(seed, name, *partners, sampling=TILES):
    sparse = slide_of(smooth(seed), name=name)
    return plan_pairs(sparse, partners, sampling, tissue=everywhere(sparse))


def stain(seed, name="ihc", channels=None, mpp=0.5, **rest):
    pixels = smooth(seed, channels=len(channels) if channels else 3)
    slide = slide_of(pixels, Mpp(mpp, mpp, "test"), name, channels)
    return dense_layer(slide, name=name, tile_px=round(32 / mpp), **rest)


def spots(seed, genes):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(40, len(genes))).astype(np.float32)
    return Spots("visium", rng.uniform(40, 216, (40, 2)), values, genes)


def test_one_section_is_what_it_was():
    plan = section(1, "A", stain(2))
    pool = pool_pairs([plan])
    assert len(pool) == len(plan)
    assert pool.source == plan.source == "A + ihc"
    np.testing.assert_array_equal(pool.regions, plan.regions)


def test_rows_of_all_sections_reach_the_store(tmp_path):
    plans = [section(1, "A", stain(2)), section(3, "B", stain(4, "other ihc"))]
    pool = pool_pairs(plans)
    list(write_pairs(tmp_path / "pairs.zarr", pool))
    stored = read_pairs(tmp_path / "pairs.zarr")
    first, second = plans
    assert len(stored) == len(pool) == len(first) + len(second)
    assert stored.source == "A + ihc; B + other ihc"
    sparse, dense = stored.sparse(), stored.partner("ihc", "image")
    n = len(first)
    for row, plan, there in ((0, first, 0), (n - 1, first, n - 1), (n, second, 0)):
        np.testing.assert_array_equal(sparse[row], plan.sparse_tile(there))
        np.testing.assert_array_equal(dense[row], plan.partner_tile(there, 0))
    with pytest.raises(IndexError):
        pool.sparse_tile(len(pool))


def test_no_region_is_in_two_sections_even_if_files_are_called_alike():
    plans = [section(1, "slide", stain(2)), section(3, "slide", stain(4))]
    pool, n = pool_pairs(plans), len(plans[0])
    assert not set(pool.regions[:n]) & set(pool.regions[n:])
    assert len(set(pool.regions)) == 2 * len(set(plans[0].regions))


def test_a_partner_of_another_microscope_is_brought_to_one_size():
    plans = [section(1, "A", stain(2)), section(3, "B", stain(4, mpp=0.4))]
    assert plans[1].partner_tile(0, 0).shape == (80, 80, 3)
    pool = pool_pairs(plans)
    assert pool.partner_tile(len(pool) - 1, 0).shape == (64, 64, 3)


def test_genes_that_all_sections_measured_are_kept():
    sampling = replace(TILES, tile_px=32)
    one = section(1, "A", spots(1, ("a", "b", "c")), sampling=sampling)
    two = section(2, "B", spots(2, ("c", "x", "b")), sampling=sampling)
    pool, n = pool_pairs([one, two]), len(one)
    assert pool.partners[0].genes == ("b", "c")
    np.testing.assert_array_equal(pool.partner_tile(0, 0), one.partner_tile(0, 0)[1:])
    np.testing.assert_array_equal(
        pool.partner_tile(n, 0), two.partner_tile(0, 0)[[2, 0]]
    )
    three = section(3, "C", spots(3, ("x", "y", "c")), sampling=sampling)
    with pytest.raises(
        InputError, match=r"C: its spots .* too few genes in common \(1\)"
    ):
        pool_pairs([one, three])


def test_what_is_not_alike_is_refused_by_name():
    base = section(1, "A", stain(2))

    def refused(plan, match):
        with pytest.raises(InputError, match=match):
            pool_pairs([base, plan])

    small = section(3, "B", stain(4), sampling=replace(TILES, tile_px=32))
    refused(small, "B: tiles of 32 px at 0.5 µm/px, those of A are of 64 px")
    refused(section(3, "B"), "B has 0 partners, A has 1")
    glow = section(3, "B", stain(4, "mif", ("DAPI", "CD3")))
    refused(glow, "B: mif shows the channels DAPI, CD3, ihc of A shows a stain in col")
    mask = smooth(5, channels=1)[..., 0] // 80
    layer = dense_layer(slide_of(mask, name="mask"), name="m", tile_px=64, kind="mask")
    refused(section(3, "B", layer), "B: m shows classes, unlabelled unknown")
    other = section(4, "C", stain(4, "mif", ("DAPI", "CD8")))
    with pytest.raises(InputError, match=r"DAPI, CD8, mif of B shows .* DAPI, CD3"):
        pool_pairs([glow, other])
