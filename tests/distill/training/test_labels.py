"""What a label says: grades beside it, and how often its class comes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from napari_histodistill.distill.recipes.config import LabelsConfig
from napari_histodistill.distill.runs.folder import start_run
from napari_histodistill.distill.runs.run import train
from napari_histodistill.distill.training.labels import log_prior, soft_labels
from napari_histodistill.students import load_student
from tests.distill.small_runs import small_config, write_textures

CLASSES = ("normal", "low", "high", "carcinoma", "polyp")


def soft(*grades: tuple[str, ...], share: float = 0.2) -> np.ndarray:
    config = LabelsConfig(grades=grades, to_neighbours=share)
    return soft_labels(config, CLASSES).numpy()


def test_a_share_of_a_label_goes_to_the_grades_beside_it():
    found = soft(("normal", "low", "high", "carcinoma"))
    expected = [
        [0.8, 0.2, 0, 0, 0],
        [0.1, 0.8, 0.1, 0, 0],
        [0, 0.1, 0.8, 0.1, 0],
        [0, 0, 0.2, 0.8, 0],
        [0, 0, 0, 0, 1],
    ]
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_a_class_in_two_orders_gives_to_both():
    found = soft(("normal", "low"), ("normal", "polyp"))
    np.testing.assert_allclose(found[0], [0.8, 0.1, 0, 0, 0.1], atol=1e-7)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


def test_without_grades_a_label_says_itself():
    np.testing.assert_array_equal(soft(), np.eye(len(CLASSES)))


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_the_prior_is_how_often_a_class_is_drawn(balance):
    labels = np.repeat([0, 1, 2], [80, 15, 5])
    drawn = np.exp(log_prior(labels, 3, balance=balance).numpy())
    weights = np.bincount(labels)[labels] ** -balance
    often = np.bincount(labels, weights=weights)
    np.testing.assert_allclose(drawn, often / often.sum(), rtol=1e-6)


def test_a_class_without_tiles_has_a_finite_prior():
    """Label smoothing gives it a share: an infinite loss would end the training."""
    prior = log_prior(np.repeat([0, 2], [99, 1]), 3, balance=0.0)
    assert torch.isfinite(prior).all()
    assert prior[1] == prior[2]


def test_corrected_for_the_prior_a_head_learns_what_balanced_classes_teach():
    """One feature, two overlapping classes, nine to one: the border must not move."""
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], [9000, 1000])
    x = torch.from_numpy(rng.normal(np.where(labels, 1.0, -1.0))).float()[:, None]
    borders = []
    for strength in (0.0, 1.0):
        head = torch.nn.Linear(1, 2)
        added = strength * log_prior(labels, 2, balance=0.0)
        optimiser = torch.optim.LBFGS(head.parameters(), max_iter=200)

        def loss(head=head, added=added, optimiser=optimiser) -> torch.Tensor:
            optimiser.zero_grad()
            found = torch.nn.functional.cross_entropy(
                head(x) + added, torch.from_numpy(labels)
            )
            found.backward()
            return found

        optimiser.step(loss)
        weight, bias = (p.detach().numpy() for p in (head.weight, head.bias))
        borders.append(float((bias[0] - bias[1]) / (weight[1, 0] - weight[0, 0])))
    # By Bayes' rule the border lies at ln(9)/2, and at 0 between classes that are
    # equally frequent.
    assert borders[0] == pytest.approx(np.log(9) / 2, abs=0.1)
    assert borders[1] == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize(
    ("arm", "labels", "words"),
    [
        ("privileged", {"prior": 1.0}, "for the arm 'supervised'"),
        ("supervised", {"grades": [["fine", "coarse", "odd"]]}, "'odd' is none of"),
        ("supervised", {"grades": [["fine"]]}, "two or more different classes"),
        ("supervised", {"grades": [["fine", "fine"]]}, "two or more different classes"),
        ("supervised", {"to_neighbours": 0.7}, "to_neighbours"),
        ("supervised", {"prior": -1}, "prior"),
    ],
)
def test_corrections_that_cannot_be_are_refused(arm, labels, words):
    with pytest.raises(ValidationError, match=words):
        small_config(arm, labels=labels)


def weights_after(folder, tiles, **changes) -> torch.Tensor:
    config = small_config("supervised", **changes)
    start_run(config, folder, tiles, home=tiles.parent)
    assert list(train(folder, device="cpu", bare=True))[-1].kind == "finished"
    head = load_student(folder / "student", device="cpu").head
    assert head is not None
    return torch.from_numpy(head.weight)


def test_a_training_follows_its_corrections(tmp_path):
    tiles = write_textures(tmp_path / "tiles", cases=4, tiles=2)
    graded = {"grades": [["fine", "coarse"]], "to_neighbours": 0.3}
    plain = weights_after(tmp_path / "plain", tiles)
    # Classes are equally frequent here: correcting for them changes nothing.
    even = weights_after(tmp_path / "even", tiles, labels={"prior": 1.0})
    torch.testing.assert_close(even, plain, rtol=1e-3, atol=1e-6)
    soft = weights_after(tmp_path / "soft", tiles, labels=graded)
    assert (soft - plain).abs().max() > 1e-4
