"""The verdict on a slide: its statistics by hand, and what is never said."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.stats import norm
from scipy.stats import t as student_t

from napari_histodistill.errors import BundleError
from napari_histodistill.slides.tissue.looks import look_of, oddest_look
from napari_histodistill.students import load_student, save_student
from napari_histodistill.students.backends.stages import (
    MOST_TILES,
    StageEncoder,
    edge_for,
    reference_of_tiles,
    spread_rows,
)
from napari_histodistill.students.head import Head
from napari_histodistill.students.model_card import write_card
from napari_histodistill.students.references.case_limits import CaseLimits
from napari_histodistill.students.references.fitting import fit_reference, folds_of
from napari_histodistill.students.spec import FamiliaritySpec
from napari_histodistill.students.tensor_file import write_tensors
from napari_histodistill.students.trust import (
    Oddity,
    SeenSquares,
    Verdict,
    headline,
    judge,
    trust_facts,
    unjudged,
)
from tests.students.test_bundle import DIM, edit_spec, tiny_spec, tiny_state
from tests.weaves import reference, woven_tiles

LOOK = look_of(woven_tiles("spots", 3, 1)[0])


def seen(logs: np.ndarray, *, whole: bool = False) -> SeenSquares:
    cells = np.stack([np.arange(len(logs)), np.zeros(len(logs))], 1).astype(np.int32)
    return SeenSquares(cells, logs, np.ones(len(logs), np.bool_), whole=whole)


def cloud(rng: np.random.Generator, cases: int, each: int, dim: int = 12):
    """Cases around one middle, near a plane of few dimensions."""
    plane = np.random.default_rng(1).normal(size=(3, dim)) * 3
    points = rng.normal(size=(cases * each, 3)) @ plane + 5
    points += np.repeat(rng.normal(size=(cases, dim)) * 0.1, each, axis=0)
    return points + rng.normal(scale=0.3, size=points.shape), np.arange(
        cases * each
    ) // each


def fitted(features: np.ndarray, cases: np.ndarray):
    found = fit_reference(features, cases, look=LOOK, edge_px=128)
    assert found is not None
    return found


def test_the_distance_is_mahalanobis_under_probabilistic_pca(rng):
    points, cases = cloud(rng, 60, 4)
    known = fitted(points, cases)
    # The covariance that it stands for, inverted by brute force.
    units = known.directions.astype(np.float64)
    covariance = known.noise * (np.eye(12) - units.T @ units)
    covariance += units.T @ np.diag(known.variances) @ units
    placed = (points - known.mean) / known.scale
    squared = np.einsum("nd,de,ne->n", placed, np.linalg.inv(covariance), placed)
    # Directions are kept in half precision: what they leave of the rest is inexact.
    np.testing.assert_allclose(
        known.log_distances(points), 0.5 * np.log(squared / 12), atol=0.06
    )


def test_own_tiles_are_measured_without_their_case(rng):
    # Every case has a place of its own: within a case all is near, between cases far.
    cases = np.repeat(np.arange(40), 5)
    points = rng.normal(size=(40, 12))[cases] + rng.normal(scale=0.01, size=(200, 12))
    known = fitted(points, cases)
    assert np.median(known.own) > np.median(known.log_distances(points)) + 0.02
    for fold in range(5):
        dealt = folds_of(cases) == fold
        assert not set(cases[dealt]) & set(cases[~dealt])


def test_limits_by_hand():
    values = np.array([0.0, 0.1, 0.2, 1.0, 1.1, 1.2, 2.0, 2.1, 2.2])
    cases = np.repeat([0, 1, 2], 3)
    limits = CaseLimits.of(values, cases, 0.5)
    kappa = 0.25 / norm.pdf(0) ** 2
    within = 0.01  # of each case's values around its mean, two free
    assert limits.mu == pytest.approx(1.1)
    assert limits.sampling == pytest.approx(kappa * within)
    assert limits.tau**2 == pytest.approx(1 - kappa * within / 3)
    far = student_t.ppf(0.95, 2) * np.sqrt(4 / 3) * limits.tau
    chance = norm.ppf(0.95) ** 2 * kappa * within / 20
    assert limits.above(20, 0.05) == pytest.approx(1.1 + np.sqrt(far**2 + chance))
    assert limits.above(20, 0.05, 50) == pytest.approx(
        1.1 + np.sqrt((50 * limits.tau) ** 2 + chance)
    )


def test_own_cases_are_like_and_another_tissue_is_unlike(rng):
    points, cases = cloud(rng, 60, 6)
    known = fitted(points, cases)
    unseen = known.log_distances(cloud(rng, 20, 6)[0])
    assert judge(known, seen(unseen), LOOK).verdict is Verdict.LIKE
    other = rng.normal(size=(12, 12)) * 6
    found = judge(known, seen(known.log_distances(other)), LOOK)
    assert (found.verdict, found.oddities) == (Verdict.UNLIKE, (Oddity.TISSUE,))
    assert found.unlike_share == 1.0
    assert "60 training cases" in found.reasons[0]


@pytest.mark.parametrize(
    ("squares", "whole", "verdict"),
    [
        (9, True, Verdict.TOO_LITTLE),
        (10, False, Verdict.TOO_LITTLE),
        (49, False, Verdict.TOO_LITTLE),
        (50, False, Verdict.LIKE),
        (10, True, Verdict.LIKE),
        (0, True, Verdict.TOO_LITTLE),
    ],
)
def test_like_is_not_said_of_few_squares(rng, squares, whole, verdict):
    known = fitted(*cloud(rng, 60, 4))
    middle = np.full(squares, known.limits()[0].mu)
    found = judge(known, seen(middle, whole=whole), LOOK)
    assert found.verdict is verdict
    if verdict is not Verdict.LIKE:
        assert found.oddities == (Oddity.FEW_SQUARES,)


def test_tissue_is_not_called_unlike_by_fewer_than_ten_squares(rng):
    known = fitted(*cloud(rng, 60, 4))
    far = judge(known, seen(np.full(9, 9.0), whole=True), LOOK)
    assert (far.verdict, far.unlike_share) == (Verdict.TOO_LITTLE, 1.0)
    assert judge(known, seen(np.full(10, 9.0)), LOOK).verdict is Verdict.UNLIKE


def test_like_is_not_said_from_few_cases(rng):
    known = fitted(*cloud(rng, 19, 8))
    found = judge(known, seen(np.full(80, known.limits()[0].mu)), LOOK)
    assert (found.verdict, found.oddities) == (Verdict.TOO_LITTLE, (Oddity.FEW_CASES,))


def test_between_like_and_unlike(rng):
    known = fitted(*cloud(rng, 60, 6))
    low, high = known.limits()
    between = (high.above(60, 0.05) + low.above(60, 0.001, 5)) / 2
    found = judge(known, seen(np.full(60, between)), LOOK)
    assert (found.verdict, found.oddities) == (Verdict.TOO_LITTLE, (Oddity.BETWEEN,))
    # Enough was seen: it is the answer that lies between.
    said = headline(found, "tiny")
    assert said.startswith("TOO LITTLE to say: between LIKE and UNLIKE what tiny")
    assert trust_facts(found)["verdict"] == "too little"
    few = replace(found, oddities=(Oddity.BETWEEN, Oddity.FEW_SQUARES))
    assert headline(few, "tiny").startswith("TOO LITTLE to say whether this slide is")


@pytest.mark.parametrize(
    ("odd", "oddity", "verdict"),
    [
        ({"brown": 0.3}, Oddity.BROWN, Verdict.UNLIKE),
        ({"dark": 0.4}, Oddity.FLUORESCENCE, Verdict.UNLIKE),
        (
            {"dark": 0.4, "inks": (("black", 0.2),)},
            Oddity.FLUORESCENCE,
            Verdict.UNLIKE,
        ),
        ({"inks": (("blue", 0.05),)}, Oddity.INK, Verdict.TOO_LITTLE),
        ({"sharpness": -2.0}, Oddity.BLUR, Verdict.TOO_LITTLE),
    ],
)
def test_looks_have_rules_of_their_own(rng, odd, oddity, verdict):
    known = fitted(*cloud(rng, 60, 4))
    look = replace(LOOK, **odd)
    middle = np.full(60, known.limits()[0].mu)
    assert judge(known, seen(middle), LOOK).verdict is Verdict.LIKE
    found = judge(known, seen(middle), look)
    assert (found.verdict, found.oddities) == (verdict, (oddity,))
    few = judge(known, seen(middle[:2]), look)
    assert few.verdict is verdict
    assert oddity in few.oddities
    # Where the training cases look so themselves, it is not odd.
    own = fit_reference(*cloud(rng, 60, 4), look=look, edge_px=128)
    assert oddity not in judge(own, seen(middle), look).oddities


def test_a_coarse_slide_is_named(rng):
    known = fitted(*cloud(rng, 60, 4))
    middle = seen(np.full(60, known.limits()[0].mu))
    found = judge(known, middle, LOOK, coarse=4)
    assert (found.verdict, found.oddities) == (Verdict.TOO_LITTLE, (Oddity.SCALE,))
    assert judge(known, middle, LOOK, coarse=1.2).verdict is Verdict.LIKE


def test_too_little_to_fit(rng):
    points, cases = cloud(rng, 2, 20)
    assert fit_reference(points, cases, look=LOOK, edge_px=128) is None
    points, cases = cloud(rng, 9, 1)
    assert fit_reference(points, cases, look=LOOK, edge_px=128) is None
    tiles, whose = woven_tiles("spots", 2, 6)
    assert reference_of_tiles(tiles, whose) is None
    assert reference_of_tiles(tiles, np.full(len(tiles), "")) is None


def test_words_and_plain_values():
    nothing = unjudged()
    assert headline(nothing, "colon-he").startswith("TOO LITTLE to say")
    assert trust_facts(nothing)["unlike_share"] is None
    assert trust_facts(nothing)["verdict"] == "too little"
    far = judge(reference(), seen(np.full(40, 9.0)), LOOK)
    assert headline(far, "colon-he").startswith("UNLIKE what colon-he learned from")
    assert "40 squares judged, 100% of them unlike" in headline(far, "colon-he")


# --- the encoder --------------------------------------------------------------------


def test_the_stage_encoder_is_the_start_of_imagenet_lite0():
    student = load_student("imagenet-lite0", device="cpu:torch", precision="float32")
    tiles = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    kept = []
    hook = student.backend.module.blocks[6].register_forward_hook(
        lambda _module, _given, maps: kept.append(maps)
    )
    student.embed(tiles)
    hook.remove()
    maps = kept[-1]
    wanted = np.concatenate(
        [maps.mean((2, 3)).numpy(), np.log(maps.std((2, 3)).numpy() + 1e-3)], axis=1
    )
    found = StageEncoder(edge_px=224)(tiles)
    assert found.shape == (3, 640)
    np.testing.assert_allclose(found, wanted, atol=2e-4)


def test_small_tiles_are_enlarged_and_large_ones_reduced():
    assert [edge_for(px) for px in (14, 28, 128, 224, 512)] == [128, 128, 128, 224, 256]
    tiles = np.random.default_rng(0).integers(0, 256, (2, 14, 14, 3), np.uint8)
    assert StageEncoder(edge_px=edge_for(14))(tiles).shape == (2, 640)


def test_tiles_to_compare_with_are_spread_over_the_cases():
    cases = np.array(["one"] * 5000 + ["two"] * 700 + [""] * 50 + ["three"])
    rows = spread_rows(cases)
    names, counts = np.unique(cases[rows], return_counts=True)
    assert len(rows) == MOST_TILES
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == {
        "one": 1299,
        "two": 700,
        "three": 1,
    }


def test_painted_tissue_end_to_end():
    known = reference()
    encoder = StageEncoder(edge_px=known.edge_px)
    own, _ = woven_tiles("spots", 10, 5, first=100)
    other, _ = woven_tiles("stripes", 3, 4, first=200)
    like, unlike = (
        judge(known, seen(known.log_distances(encoder(tiles))), look_of(tiles))
        for tiles in (own, other)
    )
    assert like.verdict is Verdict.LIKE
    assert unlike.verdict is Verdict.UNLIKE
    assert unlike.unlike_share > 0.9 > 0.1 > like.unlike_share


# --- bundles ------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path):
    head = Head(np.ones((2, DIM), np.float32), np.zeros(2, np.float32))
    return save_student(
        tmp_path / "tiny",
        tiny_spec(),
        head=head,
        encoder_state=tiny_state(),
        trust=reference(),
    )


def test_a_bundle_gives_back_its_reference(bundle, rng):
    loaded = load_student(bundle, device="cpu:torch")
    assert loaded.trust.spec() == reference().spec()
    features = rng.normal(size=(20, len(reference().mean)))
    np.testing.assert_array_equal(
        loaded.trust.log_distances(features), reference().log_distances(features)
    )
    assert loaded.trust.limits() == reference().limits()
    assert "24 cases" in (bundle / "README.md").read_text("utf-8")
    kept = [
        t.nbytes
        for name, t in load_file(bundle / "student.safetensors").items()
        if name.startswith("trust.")
    ]
    assert sum(kept) < 120_000


def test_a_reference_that_does_not_fit_its_tensors_is_refused(bundle):
    loaded = load_student(bundle, device="cpu:torch").spec
    trust = loaded.trust.model_copy(update={"components": 3})
    edit_spec(bundle, trust=trust.model_dump(mode="json"))
    with pytest.raises(BundleError, match=r"trust\.\w+ is .* the spec says"):
        load_student(bundle, device="cpu:torch")


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("scale", np.zeros, "positive"),
        ("variances", np.zeros, "positive"),
        ("cases", np.ones, "3 cases at least"),
    ],
)
def test_a_reference_that_measures_nothing_is_refused(bundle, name, values, words):
    tensors = load_file(bundle / "student.safetensors")
    old = tensors[f"trust.{name}"]
    tensors[f"trust.{name}"] = values(old.shape, old.dtype)
    sha = write_tensors(bundle / "student.safetensors", tensors)
    edit_spec(bundle, tensors_sha256=sha)
    with pytest.raises(BundleError, match=words):
        load_student(bundle, device="cpu:torch")


def test_a_bundle_from_before_loads_and_judges_nothing(bundle):
    """It holds a distance that this version does not use."""
    tensors = load_file(bundle / "student.safetensors")
    kept = {k: v for k, v in tensors.items() if not k.startswith("trust.")}
    kept["familiarity.mean"] = np.zeros(DIM, np.float32)
    kept["familiarity.basis"] = np.zeros((4, DIM), np.float32)
    sha = write_tensors(bundle / "student.safetensors", kept)
    old = FamiliaritySpec(components=4, noise=1, threshold=2, protocol="a test")
    said = old.model_dump(mode="json")
    edit_spec(bundle, familiarity=said, trust=None, tensors_sha256=sha)
    loaded = load_student(bundle, device="cpu:torch")
    assert loaded.trust is None
    assert "nothing in the\nstudent warns" in write_card(loaded.spec)


def test_new_fields_leave_digests_of_old_specs_alone():
    spec = tiny_spec()
    content = spec.model_dump(mode="json")
    assert content["trust"] is content["calibration"] is None
    later = ("backbone_options", "input_px", "familiarity", "stain")
    for name in ("digest", *later, "trust", "calibration"):
        del content[name]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert spec.computed_digest() == hashlib.sha256(text.encode()).hexdigest()


def test_oddest_look_is_by_case():
    tiles, cases = woven_tiles("spots", 5, 2)
    tiles = tiles.copy()
    tiles[:2] = 10
    assert oddest_look(tiles, cases).dark > 0.9
