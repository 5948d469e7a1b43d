"""Principal components of a partner: against the library, and what training adds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from napari_histodistill.distill.training.networks import (
    DistillNet,
    ExpressionEncoder,
    Inputs,
)
from napari_histodistill.distill.training.vectors import (
    MOST_ROWS,
    fit_components,
    some_rows,
)
from napari_histodistill.errors import InputError
from tests.distill.small_runs import TINY, small_config

GENES = {"kind": "expression", "column": "genes", "encoder": {"backbone": "mlp"}}


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(60, 3)) @ rng.normal(size=(3, 8))
    values = hidden + 0.1 * rng.normal(size=(60, 8))
    return (values * np.arange(1, 9) + 5).astype(np.float32)


def test_components_are_those_of_standardised_values(table):
    expected = PCA(3).fit_transform(StandardScaler().fit_transform(table))
    found = fit_components(table, 3, whiten=False)(torch.from_numpy(table)).numpy()
    signs = np.sign((expected * found).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, atol=1e-4)
    white = fit_components(table, 3, whiten=True)(torch.from_numpy(table))
    np.testing.assert_allclose(white.T.cov().numpy(), np.eye(3), atol=1e-4)


def test_values_that_never_change_give_nothing(table):
    table = table.copy()
    table[:, 2] = 7
    assert fit_components(table, 7, whiten=True).axes[2].abs().max() < 1e-9
    # Whatever varies by rounding alone is not blown up to variance 1.
    more = np.hstack([table, table])
    assert fit_components(more, 12, whiten=True).axes.abs().max() < 100
    blank = np.repeat(table[:1], 20, axis=0)
    for whiten in (False, True):
        found = fit_components(blank, 4, whiten=whiten)(torch.from_numpy(blank))
        assert torch.equal(found, torch.zeros(20, 4))


@pytest.mark.parametrize("rows", [5, 60])
def test_more_components_than_there_are_is_refused(table, rows):
    most = min(rows, 8)
    with pytest.raises(InputError, match=rf"dense\.components: .* at most {most}"):
        fit_components(table[:rows], 9, whiten=False)


def test_very_many_vectors_are_thinned_evenly():
    many = np.arange(3 * MOST_ROWS, dtype=np.float32)[:, None]
    few = some_rows(many)
    assert few.shape == (MOST_ROWS, 1)
    assert few[0] == 0
    assert few[-1] == len(many) - 1
    assert (np.diff(few[:, 0]) > 0).all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoder": TINY, "components": 4}, "components needs vectors"),
        (GENES | {"whiten": True}, "whiten needs components"),
    ],
)
def test_components_of_what_has_none_are_refused(changes, said):
    with pytest.raises(ValidationError, match=said):
        small_config(dense=[changes])


@pytest.mark.parametrize("components", [None, 3])
def test_genes_are_lost_and_get_noise_as_the_recipe_says(table, components):
    def encoder(**said):
        dense = GENES | {"components": components, "gene_noise": 0.0} | said
        config = small_config(dense=[dense])
        net = DistillNet(config, [Inputs("expression", 8, table)], Path())
        (found,) = net.partners
        assert isinstance(found, ExpressionEncoder)
        found.layers = torch.nn.Identity()  # what reaches the layers
        return found.train()

    genes = torch.from_numpy(table)
    plain = encoder(gene_dropout=0.0)(genes)
    torch.testing.assert_close(plain, encoder().eval()(genes))
    assert plain.shape == (60, components or 8)
    noisy = encoder(gene_dropout=0.0, gene_noise=0.5)(genes) - plain
    assert 0.35 < noisy.std() < 0.65  # axes are orthonormal: noise keeps its size
    lost = encoder(gene_dropout=0.9)
    if components is None:
        shares = [(lost(genes) == 0).float().mean().item() for _ in range(8)]
        assert max(shares) < 0.95
        assert max(shares) - min(shares) > 0.2  # one share per view, drawn anew
    else:
        assert not torch.allclose(lost(genes), plain)
        mean = genes.mean(0, keepdim=True).expand(60, 8)
        torch.testing.assert_close(lost(mean), torch.zeros(60, 3), atol=1e-4, rtol=0)
