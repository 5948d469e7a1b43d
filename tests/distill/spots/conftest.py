"""Spots with known counts and positions, and AnnData files made of them."""

from __future__ import annotations

import numpy as np
import pytest

GENES = tuple(f"GENE{k}" for k in range(12))


@pytest.fixture
def counts(rng):
    """Poisson counts of 60 spots; GENE3 and GENE7 differ between two halves."""
    expected = np.full((60, 12), 20.0)
    expected[:30, 3], expected[:30, 7] = 200, 1
    return rng.poisson(expected).astype(float)


@pytest.fixture
def positions(rng):
    """(y, x), all different."""
    return rng.permutation(np.arange(60 * 2)).reshape(60, 2) * 2.5 + 10


@pytest.fixture
def write_h5ad(tmp_path, counts, positions):
    anndata = pytest.importorskip(
        "anndata", reason="reading .h5ad needs the extra [spatial]"
    )

    def write(change=None, **kwargs):
        made = anndata.AnnData(counts.copy(), **kwargs)
        made.var_names = list(GENES)
        made.obsm["spatial"] = positions[:, ::-1].copy()
        if change is not None:
            change(made)
        made.write_h5ad(tmp_path / "visium.h5ad")
        return tmp_path / "visium.h5ad"

    return write
