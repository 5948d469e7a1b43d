"""Evaluation: known answers, honest protocols, intervals by case."""

from __future__ import annotations

import json

import numpy as np
import pytest

from napari_histodistill.distill.pairs.tilefolder import read_tile_folder
from napari_histodistill.distill.scoring import scores
from napari_histodistill.distill.scoring.evaluate import (
    case_digest,
    embed_tiles,
    evaluate_student,
    salt_for,
)
from napari_histodistill.errors import InputError, TileFolderError
from napari_histodistill.students.spec import Training
from napari_histodistill.students.student import Student
from tests.fakes import colour_student

RIGHT = [
    (label, label, f"case{c}", str(c % 3))
    for c in range(9)
    for label in ("stroma", "gland")
]


def fitted_on(
    student: Student, *cases: str, arm: str = "frozen", salt: str | None = None
) -> Student:
    training = Training(
        arm=arm,
        data="tiles",
        licence="none",
        attribution="a test",
        case_digests=tuple(case_digest(c, salt) for c in cases),
        case_salt=salt,
    )
    spec = student.spec.model_copy(update={"training": training})
    return Student(spec, student.backend, head=student.head, digest=student.digest)


def test_a_head_with_a_known_answer(colour_tiles):
    """Ten tiles: of six stroma one looks like a gland; of four glands all are right."""
    rows = [("stroma", "stroma", f"s{k}", "1") for k in range(5)]
    rows += [("stroma", "gland", "s5", "1")]
    rows += [("gland", "gland", f"g{k}", "1") for k in range(4)]
    found = evaluate_student(colour_student(), colour_tiles(rows))
    assert found.protocol == "head"
    assert found.classes == ("stroma", "gland")
    assert found.confusion == ((5, 1), (0, 4))
    assert found.accuracy == pytest.approx(0.9)
    assert found.balanced_accuracy == pytest.approx((5 / 6 + 1) / 2)
    assert found.per_class[0].recall == pytest.approx(5 / 6)
    assert found.per_class[1].precision == pytest.approx(4 / 5)
    assert (found.n, found.cases) == (10, 10)
    assert found.accuracy_interval.low < 0.9 < found.accuracy_interval.high


def test_the_answer_is_plain_json(colour_tiles):
    found = evaluate_student(colour_student(), colour_tiles(RIGHT))
    plain = json.loads(json.dumps(found.as_dict()))
    wanted = "accuracy balanced_accuracy n classes confusion per_class protocol reason"
    assert set(wanted.split()) <= set(plain)
    assert plain["per_class"]["gland"]["recall"] == 1


def test_a_student_without_classes_is_probed_out_of_fold(colour_tiles):
    found = evaluate_student(colour_student(with_head=False), colour_tiles(RIGHT))
    assert found.protocol == "probe"
    assert "has no classes" in found.reason
    assert found.accuracy == 1
    assert [f.fold for f in found.folds] == ["0", "1", "2"]
    assert sum(f.n for f in found.folds) == found.n == 18


def test_cases_the_head_was_fitted_on_force_the_probe(colour_tiles):
    student = fitted_on(colour_student(), "case3", "somebody else")
    home = colour_tiles(RIGHT)
    found = evaluate_student(student, home)
    assert found.protocol == "probe"
    assert found.reason.startswith("1 of these tiles' cases were used to fit this head")
    forced = evaluate_student(student, home, protocol="head")
    assert forced.protocol == "head"
    assert "flattering" in forced.reason


def test_a_trained_encoder_is_judged_on_cases_it_has_not_seen(colour_tiles):
    student = fitted_on(colour_student(), "case3", "case5", arm="supervised")
    home = colour_tiles(RIGHT)
    found = evaluate_student(student, home)
    assert (found.protocol, found.n, found.cases) == ("head", 14, 7)
    assert found.notes[0].startswith("4 tiles of 2 cases were left out: colour was")
    forced = evaluate_student(student, home, protocol="probe")
    assert forced.n == 18
    assert "the encoder was trained on 2 of these cases: flattering" in forced.reason


def test_a_trained_encoder_that_has_seen_all_is_said_to_flatter(colour_tiles):
    everyone = [f"case{c}" for c in range(9)]
    home = colour_tiles(RIGHT)
    for student in (
        fitted_on(colour_student(), *everyone, arm="supervised"),
        fitted_on(colour_student(with_head=False), *everyone, arm="privileged"),
    ):
        found = evaluate_student(student, home)
        assert (found.protocol, found.n) == ("probe", 18)
        assert "trained on 9 of these cases: flattering" in found.reason


@pytest.mark.parametrize("salt", [None, "5a" * 16])
def test_own_training_cases_are_noticed_with_and_without_a_salt(colour_tiles, salt):
    home = colour_tiles(RIGHT)
    student = fitted_on(colour_student(), "case3", "case5", salt=salt)
    assert "2 of these tiles' cases" in evaluate_student(student, home).reason
    other = fitted_on(colour_student(), "somebody else", salt=salt)
    assert "fitted on none of these cases" in evaluate_student(other, home).reason


def test_the_same_case_leaves_another_trace_in_another_bundle(rng):
    tiles = rng.integers(0, 256, (2, 3, 8, 8, 3), np.uint8)
    salts = [salt_for(one) for one in tiles]
    assert salts[0] == salt_for(tiles[0].copy())
    assert len({case_digest("S26-1234", salt) for salt in (None, *salts)}) == 3


def test_other_cases_leave_the_head_in_place(colour_tiles):
    student = fitted_on(colour_student(), "somebody else")
    found = evaluate_student(student, colour_tiles(RIGHT))
    assert found.protocol == "head"
    assert "fitted on none of these cases" in found.reason


def test_noise_labels_are_not_learnt_through_their_case(colour_tiles, rng):
    """Colour follows the case, labels follow the case at random: nothing to find."""
    rows = []
    for c in range(16):
        label = ("stroma", "gland")[c % 2]
        colour = ("stroma", "gland")[(c // 2) % 2]
        rows += [(label, colour, f"c{c}", "")] * 3
    home = colour_tiles(rows, columns=("label", "case_id"))
    found = evaluate_student(colour_student(with_head=False), home)
    assert found.accuracy < 0.7
    assert found.cases == 16


def test_without_cases_the_reader_is_warned(colour_tiles):
    home = colour_tiles(RIGHT, columns=("label",))
    found = evaluate_student(colour_student(), home)
    assert found.cases == 0
    assert "is unknown without a column case_id" in found.reason
    assert any("intervals are too narrow" in note for note in found.notes)


def test_resized_tiles_are_counted(colour_tiles):
    found = evaluate_student(colour_student(tile_px=16), colour_tiles(RIGHT))
    assert found.notes[0].startswith("18 tiles were resized to 16 × 16 px")


def test_reports_come_in_order_and_add_up(colour_tiles):
    student = colour_student()
    folder = read_tile_folder(colour_tiles(RIGHT * 3))
    reports = list(embed_tiles(student, folder))
    assert [r.done for r in reports] == [32, 54]
    assert sum(len(r.embeddings) for r in reports) == reports[-1].total == 54


@pytest.mark.parametrize(
    ("rows", "protocol", "words"),
    [
        ([("a", "gland", "1", "1"), ("b", "gland", "2", "2")], "head", "label 'a'"),
        (RIGHT, "guess", "protocol 'guess' is unknown"),
    ],
)
def test_protocols_that_cannot_be(colour_tiles, rows, protocol, words):
    with pytest.raises(InputError, match=words):
        evaluate_student(colour_student(), colour_tiles(rows), protocol=protocol)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("a", "gland", "1", ""), ("a", "gland", "2", "")], "all tiles are 'a'"),
        ([("a", "gland", "1", ""), ("b", "gland", "1", "")], "a single case"),
        ([("a", "gland", "1", "1"), ("b", "gland", "2", "2")], "only one class"),
    ],
)
def test_folders_that_cannot_be_probed(colour_tiles, rows, words):
    with pytest.raises(TileFolderError, match=words):
        evaluate_student(colour_student(with_head=False), colour_tiles(rows))


def test_a_missing_label_is_told_before_anything_is_embedded(colour_tiles):
    student = colour_student()
    home = colour_tiles([*RIGHT, ("", "gland", "x", "1")])
    with pytest.raises(TileFolderError, match="row 20: the column 'label' is empty"):
        evaluate_student(student, home)
    assert student.backend.batches == []


def test_intervals_know_that_tiles_of_a_case_go_together(rng):
    truth = np.tile([0, 1], 200)
    case = np.repeat(np.arange(20), 20)
    wrong = rng.permutation(20)[:6]
    predicted = np.where(np.isin(case, wrong), 1 - truth, truth)
    by_case, _ = scores.intervals_by_case(truth, predicted, case)
    by_tile, _ = scores.intervals_by_case(truth, predicted, np.arange(400))
    assert by_case.high - by_case.low > 3 * (by_tile.high - by_tile.low)
    assert by_case.low < 0.7 < by_case.high
    # Normal approximation of 20 coins of .7: ± 1.96 √(.7·.3/20) = ± .20
    assert by_case.high - by_case.low == pytest.approx(0.4, abs=0.06)


def test_balanced_accuracy_agrees_with_scikit_learn(rng):
    from sklearn.metrics import balanced_accuracy_score

    truth, predicted = rng.integers(0, 4, (2, 300))
    expected = balanced_accuracy_score(truth, predicted)
    assert scores.accuracies(truth, predicted)[1] == pytest.approx(expected)


def test_calibration_error_of_a_known_case():
    sure = np.tile([[0.9, 0.1]], (10, 1))
    truth = np.array([0] * 6 + [1] * 4)
    assert scores.calibration_error(sure, truth) == pytest.approx(0.3)
