"""Losses towards fixed targets, against the libraries' own; clusters, the queue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.special import softmax
from scipy.stats import entropy, multivariate_normal
from sklearn.mixture import GaussianMixture
from torch.nn import functional

from napari_histodistill.distill.training.clusters import fit_clusters
from napari_histodistill.distill.training.networks import DistillNet, Inputs
from napari_histodistill.distill.training.objectives import infonce
from napari_histodistill.distill.training.targets import (
    TargetQueue,
    cluster_divergence,
    matched,
    regression,
)
from napari_histodistill.distill.training.vectors import fit_components
from napari_histodistill.errors import InputError
from tests.distill.small_runs import TINY, small_config

GENES = {
    "kind": "expression",
    "column": "genes",
    "encoder": {"backbone": "mlp"},
    "components": 4,
}


def batch(n=6, k=5, seed=0, **said):
    drawn = torch.Generator().manual_seed(seed)
    predicted = torch.randn(n, k, generator=drawn, dtype=torch.float64)
    targets = torch.randn(n, k, generator=drawn, dtype=torch.float64)
    rows = said.pop("rows", torch.arange(n))
    return matched(predicted.requires_grad_(), targets, rows, **said)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_divergence_is_scipys_and_torchs(temperature):
    weights = torch.tensor([1.0, 2, 1, 1, 0.5, 0.5])
    one = batch(confidence=weights)
    found = cluster_divergence(one, temperature=temperature)
    p = softmax(one.predicted.detach().numpy() / temperature, axis=1)
    q = softmax(one.targets.numpy() / temperature, axis=1)
    each = [entropy(a, b) for a, b in zip(q, p, strict=True)]
    expected = np.average(each, weights=weights)
    assert found.terms["divergence"].item() == pytest.approx(expected)
    assert found.total.item() == pytest.approx(temperature**2 * expected)
    plain = cluster_divergence(batch(), temperature=temperature)
    torch.testing.assert_close(
        plain.terms["divergence"],
        functional.kl_div(
            (batch().predicted / temperature).log_softmax(1),
            (batch().targets / temperature).softmax(1),
            reduction="batchmean",
        ),
    )
    found.total.backward()  # targets have no gradient, predictions do
    same = matched(one.targets, one.targets, torch.arange(6))
    assert cluster_divergence(same).total.abs() < 1e-12


def test_regression_is_a_distance_and_a_contrast():
    one = batch()
    found = regression(one, contrast=0.5, temperature=0.2)
    cosine = functional.cosine_similarity(one.predicted, one.targets)
    assert found.terms["distance"].item() == pytest.approx((1 - cosine).mean().item())
    ours, theirs = (
        functional.normalize(x, dim=1) for x in (one.predicted, one.targets)
    )
    expected = functional.cross_entropy(ours @ theirs.T / 0.2, torch.arange(6))
    torch.testing.assert_close(found.terms["contrast"], expected)
    total = found.terms["distance"] + 0.5 * found.terms["contrast"]
    torch.testing.assert_close(found.total, total)
    squares = regression(one, distance="mean-squares").terms["distance"]
    torch.testing.assert_close(squares, functional.mse_loss(one.predicted, one.targets))
    # Both ways, it is InfoNCE as joint embeddings have it.
    back = matched(one.targets, one.predicted, torch.arange(6))
    both = [regression(x, temperature=0.2).terms["contrast"] for x in (one, back)]
    joint = infonce([one.predicted, one.targets], temperature=0.2).total
    torch.testing.assert_close(sum(both) / 2, joint)


def test_a_queue_gives_negatives_and_never_the_pair_itself():
    one, earlier = batch(), batch(seed=1, rows=torch.tensor([0, 9, 10, 11, 12, 13]))
    queue = TargetQueue(4)
    assert not queue.tensors()
    plain = regression(one, queue=queue)
    torch.testing.assert_close(plain.total, regression(one).total)
    queue.push(earlier)
    assert queue.rows.tolist() == [10, 11, 12, 13]
    torch.testing.assert_close(queue.targets, earlier.targets[2:])
    assert regression(one, queue=queue).total > plain.total
    # The queue's rows count as further rows of the batch do.
    ours, theirs = (
        functional.normalize(x, dim=1) for x in (one.predicted, one.targets)
    )
    others = torch.cat([theirs, functional.normalize(earlier.targets[2:], dim=1)])
    expected = functional.cross_entropy(ours @ others.T / 0.5, torch.arange(6))
    found = regression(one, queue=queue).terms["contrast"]
    torch.testing.assert_close(found, expected)
    # Pairs that are in it already are no negatives of themselves.
    known = TargetQueue(100)
    known.push(one)
    known.push(one)
    assert len(known.rows) == 12
    twice = matched(one.predicted[:1], one.targets[:1], one.rows[:1])
    alone = TargetQueue(100)
    alone.push(twice)
    assert regression(twice, queue=alone).terms["contrast"].abs() < 1e-12
    copy = TargetQueue(100)
    copy.load(known.tensors(), "cpu")
    torch.testing.assert_close(copy.tensors(), known.tensors())


def test_predictions_of_another_width_are_refused():
    with pytest.raises(InputError, match="must have one shape"):
        matched(torch.zeros(3, 2), torch.zeros(3, 4), torch.arange(3))


@pytest.fixture(scope="module")
def table():
    """Three heaps of genes, 90 tiles."""
    rng = np.random.default_rng(3)
    heaps = np.repeat(rng.normal(scale=4, size=(3, 6)), 30, axis=0)
    return (heaps + rng.normal(size=(90, 6))).astype(np.float32)


@pytest.mark.parametrize("kind", ["kmeans", "mixture"])
def test_clusters_are_posteriors_of_a_mixture(table, kind):
    components = fit_components(table, 4, whiten=False)
    clusters = fit_clusters(table, components, 3, kind=kind, seed=1)
    found = clusters(torch.from_numpy(table)).exp()
    torch.testing.assert_close(found.sum(1), torch.ones(90))
    assert all(len(set(heap.tolist())) == 1 for heap in found.argmax(1).split(30))
    points = components(torch.from_numpy(table)).double().numpy()
    densities = np.stack(
        [
            weight * multivariate_normal(mean, np.diag(variances)).pdf(points)
            for weight, mean, variances in zip(
                *(x.double().numpy() for x in (clusters.weights, clusters.means)),
                clusters.variances.double().numpy(),
                strict=True,
            )
        ],
        axis=1,
    )
    expected = densities / densities.sum(1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    if kind == "mixture":
        library = GaussianMixture(3, covariance_type="diag", n_init=10, random_state=1)
        told = library.fit(points).predict_proba(points)
        np.testing.assert_allclose(found, told, atol=1e-3)


def test_a_blank_partner_has_clusters_that_say_nothing(table):
    blank = np.repeat(table[:1], 20, axis=0)
    components = fit_components(blank, 4, whiten=True)
    found = fit_clusters(blank, components, 3, kind="kmeans", seed=0)
    torch.testing.assert_close(
        found(torch.from_numpy(blank)).exp(), torch.full((20, 3), 1 / 3)
    )
    with pytest.raises(InputError, match=r"objective\.clusters: 20 .* make no 21"):
        fit_clusters(blank, components, 21, kind="kmeans", seed=0)


@pytest.mark.parametrize(
    ("objective", "width"),
    [
        ({"kind": "clusters", "clusters": 3, "projector": [32, 16]}, 3),
        ({"kind": "regression", "projector": [99]}, 4),
    ],
)
def test_the_head_is_as_wide_as_its_target(table, objective, width):
    config = small_config(dense=[GENES], objective=objective)
    net = DistillNet(config, [Inputs("expression", 6, table)], Path()).train()
    tiles = torch.rand(8, 3, 32, 32)
    outputs = net([tiles], [torch.from_numpy(table[:8])])
    predicted, targets = outputs.projections
    assert predicted.shape == targets.shape == (8, width)
    assert predicted.requires_grad
    assert not targets.requires_grad
    assert not list(net.partners.parameters())
    layers = [m for m in net.projector if isinstance(m, torch.nn.Linear)]
    assert len(layers) == len(objective["projector"])


@pytest.mark.parametrize(
    ("arm", "changes", "said"),
    [
        ("triplet", {}, "'clusters' is for the arm 'privileged' with one"),
        ("privileged", {"dense": [GENES, GENES]}, "'privileged' with one"),
        ("privileged", {"dense": [GENES | {"components": None}]}, "needs dense.comp"),
        ("privileged", {"learned_temperature": True}, "has no learned_temperature"),
        ("privileged", {"queue": 9}, "queue needs kind = 'regression'"),
        ("privileged", {"frozen": True}, "use sparse.encoder.trained_stages = 0"),
    ],
)
def test_what_has_no_fixed_targets_is_refused(arm, changes, said):
    objective = {"kind": "clusters"}
    for name in ("learned_temperature", "queue"):
        if name in changes:
            objective[name] = changes[name]
    encoder = TINY | ({"frozen": True, "start": "x"} if "frozen" in changes else {})
    sparse = {"tile_px": 16, "input_px": 32, "encoder": encoder}
    dense = changes.get("dense", [GENES])
    with pytest.raises(ValidationError, match=said):
        small_config(arm, dense=dense, objective=objective, sparse=sparse)
