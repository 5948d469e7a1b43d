"""Familiarity: a distance to the training data that can be recomputed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

from napari_histodistill.errors import BundleError, InputError
from napari_histodistill.students.bundle import load_spec, load_student, save_student
from napari_histodistill.students.familiarity import fit_familiarity
from napari_histodistill.students.head import Head
from napari_histodistill.students.model_card import write_card
from tests.students.test_bundle import DIM, tiny_spec, tiny_state


def cloud(rng, count, dim=12, rank=3, scale=1.0):
    """Points near a plane of few dimensions, off the origin."""
    plane = np.random.default_rng(1).normal(size=(rank, dim)) * 3
    points = rng.normal(size=(count, rank)) @ plane + 5
    noise = rng.normal(scale=0.1, size=(count, dim))
    return (points * scale + noise).astype(np.float32)


def test_the_distance_is_mahalanobis_under_probabilistic_pca(rng):
    points = cloud(rng, 200)
    known = fit_familiarity(points, np.arange(200))
    # The covariance that probabilistic PCA stands for, inverted by brute force.
    lengths2 = (known.basis.astype(np.float64) ** 2).sum(axis=1)
    units = known.basis / np.sqrt(lengths2)[:, None]
    covariance = known.noise * (np.eye(12) - units.T @ units)
    covariance += units.T @ np.diag(1 / lengths2) @ units
    centred = points - known.mean
    squared = np.einsum(
        "nd,de,ne->n", centred, np.linalg.inv(covariance), centred, optimize=True
    )
    np.testing.assert_allclose(known.distance(points), np.sqrt(squared / 12), rtol=2e-3)
    assert np.mean(known.distance(points) ** 2) == pytest.approx(1, abs=0.1)


def test_new_points_of_the_kind_are_familiar_and_others_are_not(rng):
    known = fit_familiarity(cloud(rng, 400), np.arange(400) % 40, held=cloud(rng, 400))
    assert known.unfamiliar(cloud(rng, 1000)).mean() < 0.03
    off_plane = cloud(rng, 100) + rng.normal(size=(100, 12)).astype(np.float32)
    assert known.unfamiliar(off_plane).mean() > 0.9
    assert known.unfamiliar(cloud(rng, 100, scale=4.0)).mean() > 0.8


def test_without_unseen_cases_each_case_is_left_out(rng):
    # Every case has a place of its own: within a case all is near, between cases far.
    groups = np.repeat(np.arange(20), 10)
    points = (rng.normal(size=(20, 12)) * 4)[groups]
    points = (points + rng.normal(scale=0.01, size=points.shape)).astype(np.float32)
    apart = fit_familiarity(points, groups)
    blind = fit_familiarity(points, groups, held=points)
    assert apart.threshold > 1.2 * blind.threshold
    assert "each case left out" in apart.protocol
    assert "200 tiles of unseen cases" in blind.protocol


def test_any_shape_of_embeddings(rng):
    known = fit_familiarity(cloud(rng, 50), np.arange(50))
    grid = cloud(rng, 6).reshape(2, 3, 12)
    assert known.distance(grid).shape == (2, 3)
    assert known.distance(grid).dtype == np.float32
    np.testing.assert_allclose(
        known.distance(grid).ravel(), known.distance(grid.reshape(6, 12)), rtol=1e-5
    )


@pytest.mark.parametrize("points", [np.ones((1, 4)), np.ones((9, 4))])
def test_points_that_say_nothing_are_refused(points):
    with pytest.raises(InputError, match="too few or all alike"):
        fit_familiarity(points.astype(np.float32), np.arange(len(points)))


# --- in a bundle --------------------------------------------------------------------


@pytest.fixture
def known(rng):
    return fit_familiarity(cloud(rng, 60, dim=DIM), np.arange(60))


@pytest.fixture
def bundle(tmp_path, known):
    head = Head(np.ones((2, DIM), np.float32), np.zeros(2, np.float32))
    return save_student(
        tmp_path / "tiny",
        tiny_spec(),
        head=head,
        encoder_state=tiny_state(),
        familiarity=known,
    )


def test_a_bundle_carries_it(bundle, known, rng):
    loaded = load_student(bundle, device="cpu").familiarity
    points = cloud(rng, 20, dim=DIM)
    np.testing.assert_array_equal(loaded.distance(points), known.distance(points))
    assert (loaded.threshold, loaded.protocol) == (known.threshold, known.protocol)
    assert known.protocol in write_card(load_spec(bundle))


def test_a_student_without_it_says_so(tmp_path):
    head = Head(np.ones((2, DIM), np.float32), np.zeros(2, np.float32))
    path = save_student(
        tmp_path / "tiny", tiny_spec(), head=head, encoder_state=tiny_state()
    )
    assert load_student(path, device="cpu").familiarity is None
    assert "nothing in the" in write_card(load_spec(path))


def test_one_of_another_width_is_not_saved(tmp_path, rng):
    other = fit_familiarity(cloud(rng, 60, dim=7), np.arange(60))
    with pytest.raises(InputError, match="familiarity has 7 numbers"):
        save_student(
            tmp_path / "tiny",
            tiny_spec(classes=()),
            encoder_state=tiny_state(),
            familiarity=other,
        )


@pytest.mark.parametrize("name", ["familiarity.mean", "familiarity.basis"])
def test_a_missing_tensor_is_named(bundle, name):
    from safetensors.numpy import save

    from tests.students.test_bundle import swap_tensors

    tensors = load_file(bundle / "student.safetensors")
    del tensors[name]
    swap_tensors(bundle, save(tensors))
    with pytest.raises(BundleError, match=f"tensor {name} is missing"):
        load_student(bundle)
