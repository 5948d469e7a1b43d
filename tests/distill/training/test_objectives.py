"""The losses are those of their authors, for two branches and for more."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from napari_histodistill.distill.recipes.config import ObjectiveConfig
from napari_histodistill.distill.training.objectives import (
    barlow_twins,
    infonce,
    joint_embedding_loss,
    vicreg,
)
from napari_histodistill.errors import InputError

LOSSES = pytest.mark.parametrize("loss", [vicreg, barlow_twins, infonce])
SHAPES = pytest.mark.parametrize(
    ("n", "d"), [(12, 5), (5, 12), (7, 7), (2, 3), (4, 1)], ids=str
)
BRANCHES = pytest.mark.parametrize("count", [2, 3, 4])


def draw(count, n, d, *, seed=0, spread=None):
    """Branches (n, d) that agree in part; some dimensions narrower than 1."""
    rng = np.random.default_rng(seed)
    spread = np.linspace(0.3, 1.7, d) if spread is None else spread
    shared = rng.normal(size=(n, d))
    return [
        torch.from_numpy((shared + 0.7 * rng.normal(size=(n, d))) * spread + 0.4)
        for _ in range(count)
    ]


def draw_weights(n, *, seed=1):
    return torch.from_numpy(np.random.default_rng(seed).uniform(0.05, 1, size=n))


# Transcriptions, in plain loops over numpy's float64 ---------------------------------


def official_vicreg(x, y):
    """``main_vicreg.py`` of facebookresearch/vicreg, with its coefficients."""
    x, y = x.numpy(), y.numpy()
    n, d = x.shape
    repr_loss = ((x - y) ** 2).sum() / (n * d)
    std_loss, cov_loss = 0.0, 0.0
    for z in (x, y):
        z = z - z.mean(axis=0)
        std = np.sqrt((z**2).sum(axis=0) / (n - 1) + 0.0001)
        std_loss += sum(max(0.0, 1 - s) for s in std) / d / 2
        cov = z.T @ z / (n - 1)
        cov_loss += sum(cov[i, j] ** 2 for i, j in permutations(range(d), 2)) / d
    return 25 * repr_loss + 25 * std_loss + cov_loss


def published_n_branch_loss(z_list):
    """``n_branch_loss`` of lucasfarndale/More-From-Less, averaged over the batch."""
    z_list = [z.numpy() for z in z_list]
    n, d = z_list[0].shape
    inv_loss = np.zeros(n)
    for i, z_a in enumerate(z_list):
        for j, z_b in enumerate(z_list):
            if i != j:
                inv_loss += ((z_a - z_b) ** 2).mean(axis=1)
    var_loss = cov_loss = 0.0
    for z in z_list:
        std = np.sqrt(z.var(axis=0) + 1e-5)
        var_loss += np.maximum(1 - std, 0).mean()
        z = z - z.mean(axis=0)
        cov = z.T @ z / n
        np.fill_diagonal(cov, 0)
        cov_loss += (cov**2).sum() / d
    return (25 * inv_loss + 25 * var_loss + cov_loss).mean()


def official_barlow_twins(y1, y2, lambd):
    """``main.py`` of facebookresearch/barlowtwins, its BatchNorm1d written out."""
    y1, y2 = y1.numpy(), y2.numpy()
    n, d = y1.shape
    z1, z2 = ((y - y.mean(axis=0)) / np.sqrt(y.var(axis=0) + 1e-5) for y in (y1, y2))
    on_diag = off_diag = 0.0
    for i in range(d):
        for j in range(d):
            c = (z1[:, i] * z2[:, j]).sum() / n
            if i == j:
                on_diag += (c - 1) ** 2
            else:
                off_diag += c**2
    return on_diag + lambd * off_diag


def cross_entropies(a, b, temperature):
    """Per row, mean of both directions: TriDeNT's ``contrastive_loss``."""
    a, b = a.numpy(), b.numpy()
    a = a / np.linalg.norm(a, axis=1, keepdims=True)
    b = b / np.linalg.norm(b, axis=1, keepdims=True)
    n = len(a)
    found = np.zeros(n)
    for k in range(n):
        there = np.array([a[k] @ b[m] for m in range(n)]) / temperature
        back = np.array([a[m] @ b[k] for m in range(n)]) / temperature
        for logits in (there, back):
            found[k] -= np.log(np.exp(logits[k]) / np.exp(logits).sum()) / 2
    return found


# Against the authors' formulas --------------------------------------------------------


@SHAPES
def test_vicreg_of_two_branches_is_the_official_one(n, d):
    x, y = draw(2, n, d)
    assert float(vicreg([x, y]).total) == pytest.approx(official_vicreg(x, y), rel=1e-9)


@SHAPES
@BRANCHES
def test_vicreg_as_in_the_published_code(n, d, count):
    z = draw(count, n, d)
    total = float(vicreg(z, published_code=True).total)
    assert total == pytest.approx(published_n_branch_loss(z), rel=1e-9)


@pytest.mark.parametrize("count", [3, 4])
def test_vicreg_of_more_branches(count):
    z = [b.numpy() for b in draw(count, 9, 6)]
    cov = [np.cov(b.T) for b in z]
    expected = {
        "invariance": sum(((a - b) ** 2).mean() for a, b in combinations(z, 2)),
        "variance": np.mean(
            [np.maximum(0, 1 - np.sqrt(b.var(axis=0, ddof=1) + 1e-4)) for b in z]
        ),
        "covariance": sum(((c - np.diag(np.diag(c))) ** 2).sum() / 6 for c in cov),
    }
    loss = vicreg(
        [torch.from_numpy(b) for b in z], invariance=3, variance=5, covariance=7
    )
    assert {k: float(v) for k, v in loss.terms.items()} == pytest.approx(expected)
    weighed = zip((3, 5, 7), expected.values(), strict=True)
    assert float(loss.total) == pytest.approx(sum(c * v for c, v in weighed))


@SHAPES
@BRANCHES
def test_barlow_twins_sums_the_official_loss_over_pairs(n, d, count):
    z = draw(count, n, d)
    expected = sum(official_barlow_twins(a, b, 0.02) for a, b in combinations(z, 2))
    found = barlow_twins(z, off_diagonal=0.02)
    assert float(found.total) == pytest.approx(expected, rel=1e-9)
    assert set(found.terms) == {"on_diagonal", "off_diagonal"}


@SHAPES
@BRANCHES
def test_infonce_sums_the_cross_entropy_over_pairs(n, d, count):
    z = draw(count, n, d)
    expected = sum(cross_entropies(a, b, 0.3).mean() for a, b in combinations(z, 2))
    found = infonce(z, temperature=0.3)
    assert float(found.total) == pytest.approx(expected, rel=1e-9)
    assert float(found.terms["contrast"]) == float(found.total)


# Against an independent implementation ------------------------------------------------

lightly_shapes = pytest.mark.parametrize(("n", "d"), [(32, 8), (16, 48)], ids=str)


@lightly_shapes
def test_vicreg_agrees_with_lightly(n, d):
    from lightly import loss as lightly  # seconds, so only here

    x, y = (z.float() for z in draw(2, n, d))
    assert_close(vicreg([x, y]).total, lightly.VICRegLoss()(x, y))
    ours = vicreg([x, y], invariance=2, variance=3, covariance=4).total
    assert_close(ours, lightly.VICRegLoss(2, 3, 4)(x, y))


@lightly_shapes
def test_barlow_twins_agrees_with_lightly(n, d):
    from lightly import loss as lightly  # seconds, so only here

    x, y = (z.float() for z in draw(2, n, d))
    assert_close(barlow_twins([x, y]).total, lightly.BarlowTwinsLoss()(x, y))


def test_infonce_agrees_with_lightly_given_the_same_negatives():
    """Negatives of the same branch are taken, too, unless a memory bank holds others:
    here the bank holds the other branch's rows but the one that belongs."""
    from lightly import loss as lightly  # seconds, so only here

    n, d = 9, 6
    x, y = (z.float() for z in draw(2, n, d))
    row_losses = []
    for a, b in ((x, y), (y, x)):
        for k in range(n):
            loss = lightly.NTXentLoss(temperature=0.5, memory_bank_size=(n - 1, d))
            others = torch.cat([b[:k], b[k + 1 :]])
            loss.memory_bank.bank = torch.nn.functional.normalize(others, dim=1)
            row_losses.append(loss(a[k : k + 1], b[k : k + 1]))
    assert_close(infonce([x, y]).total, torch.stack(row_losses).mean())


# Laws ---------------------------------------------------------------------------------

batches = st.builds(
    draw,
    st.integers(2, 4),
    st.integers(2, 9),
    st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
)


@LOSSES
@given(z=batches, data=st.data())
def test_order_of_rows_and_of_branches_is_nothing(loss, z, data):
    rows = data.draw(st.permutations(range(len(z[0]))))
    branches = data.draw(st.permutations(range(len(z))))
    weights = draw_weights(len(z[0]))
    before = loss(z, confidence=weights).total
    after = loss([z[b][rows] for b in branches], confidence=weights[rows]).total
    assert_close(before, after)


@given(z=batches, shift=st.floats(-50, 50))
def test_vicreg_does_not_care_where_the_cloud_lies(z, shift):
    assert_close(vicreg(z).total, vicreg([b + shift for b in z]).total)


@given(z=batches, scale=st.floats(0.1, 10))
def test_infonce_does_not_care_for_length(z, scale):
    assert_close(infonce(z).total, infonce([z[0] * scale, *z[1:]]).total)


def test_barlow_twins_does_not_care_for_scale_and_place():
    x, y = draw(2, 30, 6)
    moved = barlow_twins([x, 40 * y + 3]).total
    assert_close(barlow_twins([x, y]).total, moved, rtol=1e-3, atol=0)


@given(z=batches)
def test_identical_branches_agree(z):
    same = [z[0], z[0].clone(), z[0].clone()]
    assert float(vicreg(same).terms["invariance"]) == 0
    assert float(vicreg(same, published_code=True).terms["invariance"]) == 0
    wide = [torch.cat([b, -b]) * 100 for b in same]
    assert float(barlow_twins(wide).terms["on_diagonal"]) < 1e-6


@BRANCHES
def test_a_collapsed_batch_is_as_bad_as_it_gets(count):
    z = [torch.full((8, 5), 0.3)] * count
    pairs = count * (count - 1) / 2
    terms = vicreg(z).terms
    assert float(terms["variance"]) == pytest.approx(1 - 0.01, abs=1e-6)
    assert float(terms["covariance"]) == pytest.approx(0, abs=1e-12)
    terms = vicreg(z, published_code=True).terms
    assert float(terms["variance"]) == pytest.approx(count * (1 - 1e-5**0.5), rel=1e-6)
    terms = barlow_twins(z).terms
    assert float(terms["on_diagonal"]) == pytest.approx(5 * pairs, rel=1e-6)
    assert float(infonce(z).total) == pytest.approx(pairs * np.log(8), rel=1e-6)


def test_infonce_vanishes_where_every_row_finds_its_own():
    eye = torch.eye(6)
    assert float(infonce([eye, eye], temperature=0.02).total) < 1e-6
    assert float(infonce([eye, eye.roll(1, 0)], temperature=0.02).total) > 10


def test_redundancy_costs():
    rng = np.random.default_rng(3)
    free = torch.from_numpy(rng.normal(size=(200, 4)))
    copied = free[:, [0, 0, 0, 0]]
    for loss, term in ((vicreg, "covariance"), (barlow_twins, "off_diagonal")):
        low = float(loss([free, free]).terms[term])
        assert float(loss([copied, copied]).terms[term]) > 20 * low, loss


# Confidence ---------------------------------------------------------------------------


@LOSSES
@pytest.mark.parametrize("level", [1.0, 0.25])
def test_equal_confidence_is_none(loss, level):
    z = draw(3, 8, 5)
    plain = loss(z)
    weighed = loss(z, confidence=torch.full((8,), level))
    assert_close(plain.total, weighed.total, rtol=1e-12, atol=0)
    for name, value in plain.terms.items():
        assert_close(value, weighed.terms[name], rtol=1e-12, atol=1e-15)


def test_confidence_weighs_vicregs_invariance_only():
    x, y = draw(2, 8, 5)
    w = draw_weights(8)
    plain, found = vicreg([x, y]).terms, vicreg([x, y], confidence=w).terms
    apart = [float(((x[k] - y[k]) ** 2).mean()) for k in range(8)]
    expected = np.average(apart, weights=w.numpy())
    assert float(found["invariance"]) == pytest.approx(expected, rel=1e-12)
    assert found["variance"] == plain["variance"]
    assert found["covariance"] == plain["covariance"]
    twice = vicreg([x, y], confidence=w, published_code=True).terms["invariance"]
    assert float(twice) == pytest.approx(2 * expected, rel=1e-12)


def test_confidence_weighs_infonces_rows():
    x, y = draw(2, 8, 5)
    w = draw_weights(8)
    expected = np.average(cross_entropies(x, y, 0.5), weights=w.numpy())
    assert float(infonce([x, y], confidence=w).total) == pytest.approx(expected)


def test_confidence_weighs_barlow_twins_diagonal():
    x, y = draw(2, 12, 5)
    w = draw_weights(12)
    plain = barlow_twins([x, y]).terms
    found = barlow_twins([x, y], confidence=w).terms
    assert found["off_diagonal"] == plain["off_diagonal"]
    expected = 0.0
    for i in range(5):
        pair = np.cov(x[:, i], y[:, i], aweights=w.numpy(), ddof=0)
        c = pair[0, 1] / np.sqrt((pair[0, 0] + 1e-5) * (pair[1, 1] + 1e-5))
        expected += (1 - c) ** 2
    assert float(found["on_diagonal"]) == pytest.approx(expected, rel=1e-9)
    same = barlow_twins([100 * x, 100 * x], confidence=w).terms["on_diagonal"]
    assert float(same) < 1e-6


@pytest.mark.parametrize(
    ("loss", "term"), [(vicreg, "invariance"), (barlow_twins, "on_diagonal")]
)
def test_a_pair_of_weight_two_is_two_pairs(loss, term):
    x, y = draw(2, 6, 4)
    rows = [0, 1, 2, 2, 3, 3, 4, 5]
    w = torch.tensor([1.0, 1, 2, 2, 1, 1])
    weighed = loss([x, y], confidence=w).terms[term]
    assert_close(weighed, loss([x[rows], y[rows]]).terms[term])


@pytest.mark.parametrize(
    ("loss", "term"), [(vicreg, "invariance"), (barlow_twins, "on_diagonal")]
)
def test_a_pair_nobody_trusts_does_not_pull(loss, term):
    z = [b.requires_grad_() for b in draw(3, 8, 5)]
    w = torch.ones(8)
    w[2] = 1e-9
    loss(z, confidence=w).terms[term].backward()
    for b in z:
        pull = b.grad.norm(dim=1)
        assert pull[2] < 1e-6 * pull[[0, 1, 3, 4, 5, 6, 7]].min()


@LOSSES
def test_no_confidence_at_all_is_no_nan(loss):
    z = [b.requires_grad_() for b in draw(2, 6, 4)]
    total = loss(z, confidence=torch.zeros(6)).total
    total.backward()
    assert torch.isfinite(total)
    assert all(torch.isfinite(b.grad).all() for b in z)


# Processes, precision, gradients ------------------------------------------------------


@LOSSES
@pytest.mark.parametrize("weighed", [False, True])
def test_two_processes_compute_the_loss_of_the_joined_batch(loss, weighed):
    z = [b.float() for b in draw(3, 12, 5)]
    w = draw_weights(12).float() if weighed else None
    parts = [slice(0, 5), slice(5, 12)]  # not even the same size

    def member(part, gather):
        own = [b[part].clone().requires_grad_() for b in z]
        total = loss(own, confidence=None if w is None else w[part], gather=gather)
        total.total.backward()
        return total.total.detach(), [b.grad for b in own]

    def recorded(part):
        sent = []

        def gather(values):
            sent.append(values.detach())
            return values

        member(part, gather)
        return sent

    whole = member(slice(None), lambda values: values)
    sent = [recorded(part) for part in parts]
    for rank, part in enumerate(parts):
        others = iter(sent[1 - rank])

        def gather(values, rank=rank, others=others):
            both = [values, next(others)]
            return torch.cat(both if rank == 0 else both[::-1])

        total, grads = member(part, gather)
        assert_close(total, whole[0])
        for found, expected in zip(grads, whole[1], strict=True):
            assert_close(found, expected[part], rtol=1e-4, atol=1e-6)


@LOSSES
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(loss, dtype):
    z = [b.to(dtype) for b in draw(2, 16, 6)]
    w = draw_weights(16).to(dtype)
    exact = loss([b.float() for b in z], confidence=w.float())
    found = loss(z, confidence=w)
    assert found.total.dtype == torch.float32
    assert all(term.dtype == torch.float32 for term in found.terms.values())
    assert_close(found.total, exact.total, rtol=0, atol=0)


@LOSSES
def test_autocast_does_not_reach_the_loss(loss):
    z = [b.float() for b in draw(2, 16, 6)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (z[0] @ z[1].T).dtype == torch.bfloat16
        found = loss(z).total
    assert_close(found, loss(z).total, rtol=0, atol=0)


@LOSSES
@pytest.mark.parametrize(("n", "d"), [(6, 3), (4, 7)], ids=str)
@pytest.mark.parametrize("weighed", [False, True])
def test_gradients(loss, n, d, weighed):
    spread = np.where(np.arange(d) % 2, 0.3, 3.0)  # away from the hinge's kink
    z = [b.requires_grad_() for b in draw(3, n, d, spread=spread)]
    w = draw_weights(n) if weighed else None
    assert torch.autograd.gradcheck(lambda *b: loss(b, confidence=w).total, z)


def test_gradient_reaches_a_learned_temperature():
    x, y = draw(2, 6, 4)
    temperature = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda t: infonce([x, y], temperature=t).total, [temperature]
    )


# What a recipe asks for ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            {"invariance": 1.0, "variance": 2.0, "covariance": 3.0},
            lambda z, **more: vicreg(z, invariance=1, variance=2, covariance=3, **more),
        ),
        (
            {"published_code": True},
            lambda z, **more: vicreg(z, published_code=True, **more),
        ),
        (
            {"kind": "barlow_twins", "off_diagonal": 0.1},
            lambda z, **more: barlow_twins(z, off_diagonal=0.1, **more),
        ),
        (
            {"kind": "infonce", "temperature": 0.2},
            lambda z, **more: infonce(z, temperature=0.2, **more),
        ),
    ],
    ids=["vicreg", "published", "barlow_twins", "infonce"],
)
def test_a_recipe_names_the_loss(config, expected):
    z = draw(3, 8, 5)
    more = {"confidence": draw_weights(8), "gather": lambda values: values.repeat(2, 1)}
    found = joint_embedding_loss(ObjectiveConfig(**config), z, **more)
    assert_close(found.total, expected(z, **more).total)
    assert found.terms.keys() == expected(z, **more).terms.keys()


def test_a_learned_temperature_goes_before_the_recipes():
    z = draw(2, 8, 5)
    config = ObjectiveConfig(kind="infonce", temperature=0.2)
    found = joint_embedding_loss(config, z, temperature=torch.tensor(0.9))
    assert_close(found.total, infonce(z, temperature=0.9).total)


@LOSSES
@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ([], "two branches, not 0"),
        ([(4, 3)], "two branches, not 1"),
        ([(4, 3), (4, 2)], r"one shape .*\(4, 3\), \(4, 2\)"),
        ([(4, 3), (5, 3)], "one shape"),
        ([(4, 3, 2), (4, 3, 2)], "one shape"),
        ([(4, 0), (4, 0)], "one shape"),
        ([(1, 3), (1, 3)], "has 1 pairs"),
        ([(0, 3), (0, 3)], "has 0 pairs"),
    ],
)
def test_what_does_not_fit_is_refused(loss, shapes, words):
    with pytest.raises(InputError, match=words):
        loss([torch.ones(shape) for shape in shapes])


@LOSSES
@pytest.mark.parametrize("shape", [(3,), (4, 1), ()])
def test_confidence_is_one_weight_per_pair(loss, shape):
    with pytest.raises(InputError, match="one weight per pair"):
        loss(draw(2, 4, 3), confidence=torch.ones(shape))


@pytest.mark.parametrize("temperature", [0.0, -0.5, float("nan")])
def test_temperature_is_positive(temperature):
    with pytest.raises(InputError, match="above 0"):
        infonce(draw(2, 4, 3), temperature=temperature)


@LOSSES
def test_not_finite_is_not_judged_here(loss):
    z = draw(2, 6, 4)
    z[0][1, 2] = torch.nan
    assert torch.isnan(loss(z).total)
