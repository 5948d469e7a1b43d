"""The session behind *Distil a student*: what it decides, refuses and says."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from napari_histodistill.controllers.distil.align.alignment import (
    refine_work,
    refined,
    say_refinement,
)
from napari_histodistill.controllers.distil.align.fitting import (
    fit_wish,
    fit_work,
    mirror_offer,
    side_wish,
)
from napari_histodistill.controllers.distil.partners import Partner, PartnerKind
from napari_histodistill.controllers.distil.run import health_of, run_name, say_run
from napari_histodistill.controllers.distil.session import DistilSession
from napari_histodistill.distill.layers.partners import to_look_at
from napari_histodistill.distill.layers.refinement import Refinement
from napari_histodistill.distill.pairs.loading import load_pairs
from napari_histodistill.distill.pairs.store import read_pairs
from napari_histodistill.distill.runs.process import RunView
from napari_histodistill.errors import Cancelled, InputError
from napari_histodistill.geometry import Mpp
from napari_histodistill.running import CancelToken
from napari_histodistill.samples.paired import CHANNELS, paint_pair
from napari_histodistill.slides import open_slide, slide_from_arrays

MPP = Mpp(0.5, 0.5, "test")


@pytest.fixture(scope="module")
def painted():
    return paint_pair(512)


@pytest.fixture
def session(painted):
    made = DistilSession()
    sparse = slide_from_arrays(painted.sparse, name="H&E", mpp=MPP)
    dense = slide_from_arrays(painted.dense, name="mif", mpp=MPP, channels=CHANNELS)
    made.choose(sparse, [Partner("mif", PartnerKind.PICTURE, slide=dense)])
    made.sample(0.5, 32)
    return made


def planned(session):
    session.planned = list(session.plan_work()(CancelToken()))[-1]
    return session.planned


def found_by(wish):
    return list(fit_work(wish)(CancelToken()))[-1]


def lay_by(session, here, there, kind):
    """Lay the partner by landmarks, as the window does; return their fit."""
    wish = fit_wish(session.partners[0], (here, there), kind)
    fitted = found_by(wish)
    assert session.take_fit(fitted, wish)
    return fitted


def test_what_is_missing_is_said_step_by_step(painted):
    session = DistilSession()
    assert "Open Sample" in session.why_no_pairs
    sparse = slide_from_arrays(painted.sparse, name="H&E")
    session.choose(sparse, [])
    assert "does not say how many µm" in session.why_no_pairs
    grey = slide_from_arrays(painted.dense[..., 0], name="grey", mpp=MPP)
    session.choose(grey, [])
    assert "not an RGB image" in session.why_no_pairs
    session.choose(sparse.with_mpp(MPP), [])
    assert "Choose a partner" in session.why_no_pairs
    unknown = slide_from_arrays(painted.dense[..., 0], name="mif")
    session.choose(
        sparse.with_mpp(MPP), [Partner("mif", PartnerKind.PICTURE, slide=unknown)]
    )
    assert session.why_no_pairs.startswith("mif does not say how many µm")


def test_pairs_are_laid_out_and_forgotten_when_something_changes(session):
    assert session.why_no_training == "Preview the pairs first."
    found = planned(session)
    assert len(found.plan) == 256
    assert session.why_no_training == ""
    assert "256 pairs of 16 µm, about 205 to train on and 51 in" in session.say_pairs()
    assert all(dense.shape == (32, 32, 3) for _, (dense,), _ in found.twins)
    session.sample(0.5, 64)
    assert session.planned is None
    planned(session)
    session.put_alignment(0, None)
    assert session.planned is None


def test_a_partner_whose_error_nobody_knows_is_named_with_the_pairs(session):
    unknown = "How far mif is off is not known: pairs count in full (landmarks, or"
    planned(session)
    assert unknown in session.say_pairs()
    places = np.random.default_rng(0).uniform(0, 250, (6, 2))
    lay_by(session, places[:2], places[:2], "rigid")
    planned(session)
    assert unknown in session.say_pairs(), "too few landmarks to judge it"
    lay_by(session, places, places, "rigid")
    planned(session)
    assert "not known" not in session.say_pairs()
    session.choose(session.sparse, [Partner("same", PartnerKind.SAME)])
    planned(session)
    assert "not known" not in session.say_pairs(), "it is the same layer"


def test_sections_are_kept_and_trained_on_together(session, tmp_path):
    first = planned(session)
    session.choose_preset("paper")
    session.typed = {("dense", "tile_px"): "48"}
    session.keep()
    assert session.planned is None
    assert session.why_no_pairs.startswith("Pairs of H&E are kept: choose another")
    assert session.why_no_training == "", "what was kept can be trained on as it is"
    assert session.say_pairs().startswith(
        "Kept: H&E (256). 256 pairs in all, about 205"
    )
    with pytest.raises(InputError, match="tiles of another size"):
        session.sample(0.5, 64)
    other = paint_pair(512, seed=7)
    sparse = slide_from_arrays(other.sparse, name="second", mpp=MPP)
    wrong = slide_from_arrays(other.dense[..., :1], name="one", mpp=MPP)
    session.choose(sparse, [Partner("one", PartnerKind.PICTURE, slide=wrong)])
    assert session.typed, "settings are for the partner that the set is named after"
    with pytest.raises(InputError, match="second: image shows the channels"):
        planned(session)
    dense = slide_from_arrays(other.dense, name="mif2", mpp=MPP, channels=CHANNELS)
    session.choose(sparse, [Partner("mif2", PartnerKind.PICTURE, slide=dense)])
    second = planned(session)
    assert session.sections == (first, second)
    assert (
        "256 pairs of 16 µm here. Kept: H&E (256). 512 pairs in all"
        in session.say_pairs()
    )
    recipe = session.recipe("both")
    assert [d.column for d in recipe.dense] == ["image"]
    assert "2 H&E sections learn from a second image" in recipe.data.description
    list(session.write_work(tmp_path / "run", "both")(CancelToken()))
    assert len(read_pairs(tmp_path / "run" / "pairs.zarr")) == 512
    session.forget_kept()
    assert session.sections == (second,)


def test_what_is_left_beside_a_section_may_be_too_few(session):
    planned(session)
    session.keep()
    small = paint_pair(128, seed=7)
    sparse = slide_from_arrays(small.sparse, name="small", mpp=MPP)
    dense = slide_from_arrays(small.dense, name="mif2", mpp=MPP, channels=CHANNELS)
    session.choose(sparse, [Partner("mif2", PartnerKind.PICTURE, slide=dense)])
    few = len(planned(session).plan)
    assert session.why_no_training == ""
    session.hold_out(0)
    assert session.why_no_training.startswith(f"{few} pairs to train on are too few")


def test_a_section_in_other_colours_is_no_other_section(session, painted):
    planned(session)
    session.keep()
    as_stored = session.kept[0].plan.sparse
    recoloured = as_stored.with_info(
        replace(as_stored.info, digest="another", stored_digest=as_stored.info.digest)
    )
    session.choose(recoloured, session.partners)
    assert session.why_no_pairs.startswith("Pairs of H&E are kept")


def test_a_section_is_held_out_whole(session, tmp_path):
    planned(session)
    session.keep()
    other = paint_pair(384, seed=7)
    # Two files may be called alike: they are told apart by their pixels.
    sparse = slide_from_arrays(other.sparse, name="H&E", mpp=MPP)
    dense = slide_from_arrays(other.dense, name="mif2", mpp=MPP, channels=CHANNELS)
    session.choose(sparse, [Partner("mif2", PartnerKind.PICTURE, slide=dense)])
    few = len(planned(session).plan)
    assert session.section_names == ("H&E", "H&E (2)")
    assert session.recipe("both").data.validation_share > 0
    session.hold_out(1)
    assert session.training_pairs == 256
    said = session.say_pairs()
    assert f"256 to train on and {few}, all of H&E (2), held out." in said
    recipe = session.recipe("both")
    assert (recipe.data.validate_on, recipe.data.validation_share) == (("H&E (2)",), 0)
    planned(session)
    assert session.held_out == 1, "the same section, laid out again"
    list(session.write_work(tmp_path / "run", "both")(CancelToken()))
    split = load_pairs(recipe, tmp_path / "run" / "pairs.zarr")
    assert (len(split.train), len(split.validation)) == (256, few)
    assert {c.split(" ")[1] for c in split.train.cases} == {"1"}
    assert {c.split(" ")[1] for c in split.validation.cases} == {"2"}
    session.forget_kept()
    assert session.held_out is None, "a section alone is not held out"
    assert "in held-out regions" in session.say_pairs()


def test_a_bad_registration_tells_the_size_of_tiles(session):
    rng = np.random.default_rng(0)
    places = rng.uniform(0, 250, (8, 2))
    lay_by(session, places, places + rng.normal(0, 12, places.shape), "rigid")
    said = session.say_alignment()
    assert "too far off for single cells" in said
    assert "µm or more agree" in said
    assert session.partners[0].confidence(16) < session.partners[0].confidence(200)
    assert session.say_layers() == "H&E learns from mif"


def test_landmarks_of_a_mirrored_partner_are_offered_its_other_side(session):
    rng = np.random.default_rng(0)
    places = rng.uniform(0, 250, (6, 2))
    seen = places * (1, -1) + rng.normal(0, 0.5, places.shape)
    fitted = lay_by(session, places, seen, "similarity")
    offer = mirror_offer(session.partners[0], fitted)
    assert offer is not None
    assert "The landmarks fit a mirrored partner: they would be off by" in offer.words
    assert not session.partners[0].registration.mirrored, "never unasked"
    # One that comes from a file is asked about, too.
    again = found_by(side_wish(session.partners[0], (places, seen)))
    assert again.registration is fitted.registration
    assert mirror_offer(session.partners[0], again) is not None
    session.put_alignment(0, offer.alignment)
    assert mirror_offer(session.partners[0], fitted) is None, "it lies otherwise now"
    # More landmarks are fitted on the side that was agreed to.
    lay_by(session, places, seen, "rigid")
    assert session.partners[0].registration.mirrored
    assert session.partners[0].registration.median_um < 2
    right = places + rng.normal(0, 0.5, places.shape)
    session.put_alignment(0, None)
    fitted = lay_by(session, places, right, "similarity")
    assert mirror_offer(session.partners[0], fitted) is None
    assert side_wish(session.partners[0], (places[:5], right[:5])) is None
    assert side_wish(None, None) is None
    assert mirror_offer(None, None) is None


def test_a_fit_is_used_only_for_the_landmarks_of_now(session):
    places = np.random.default_rng(0).uniform(0, 250, (6, 2))
    partner = session.partners[0]
    wish = fit_wish(partner, (places, places + 5), "rigid")
    fitted = found_by(wish)
    for now in (
        fit_wish(partner, (places[:5], places[:5] + 5), "rigid"),
        fit_wish(partner, (places, places + 6), "rigid"),
        fit_wish(partner, (places, places + 5), "affine"),
        fit_wish(partner, (places[:1], places[:1]), "rigid"),
        fit_wish(None, (places, places + 5), "rigid"),
    ):
        assert not session.take_fit(fitted, now)
        assert session.partners[0] is partner
    assert session.take_fit(fitted, wish)
    assert session.partners[0].registration is fitted.registration


def test_pairs_that_were_laid_out_for_other_layers_are_not_taken(session):
    found = list(session.plan_work()(CancelToken()))[-1]
    lay_by(session, *2 * (np.array([[0.0, 0], [9, 5], [4, 8]]),), "rigid")
    assert not session.take_pairs(found), "the partner was laid otherwise meanwhile"
    assert session.planned is None
    assert session.take_pairs(list(session.plan_work()(CancelToken()))[-1])


@pytest.mark.parametrize(
    ("mpp", "times"), [(0.25, 0), (0.5, 0), (2.0, 0), (0.055, 9.1)]
)
def test_tiles_that_enlarge_the_slide_are_warned_about(session, mpp, times):
    assert session.warning == ""
    session.sample(mpp, 64)
    planned(session)
    said = session.warning
    assert bool(said) == bool(times)
    assert not said or f"enlarge H&E {times} times: nothing new is seen" in said
    session.keep()
    assert session.warning == said, "kept sections are trained on, too"


def test_a_start_of_another_magnification_is_warned_about(session, painted):
    fine = Mpp(0.055, 0.055, "typed by the user")
    sparse = slide_from_arrays(painted.sparse, name="H&E", mpp=fine)
    session.choose(sparse, [Partner("same", PartnerKind.SAME)])
    session.sample(0.055, 64)
    planned(session)
    assert session.warning == "", "no start is expected to know it"
    session.choose_preset("careful")
    assert "sees 0.11 µm/px" in session.warning
    assert "9.1 times as large" in session.warning
    session.choose(
        sparse, [replace(session.partners[0], kind=PartnerKind.PICTURE, slide=sparse)]
    )
    session.sample(0.055, 32)
    planned(session)
    assert "0.055 µm/px and starts from imagenet-lite0" in session.warning
    assert "18.2 times as large" in session.warning


def test_two_landmarks_fit_but_cannot_be_judged(session):
    places = np.array([[0.0, 0.0], [100.0, 50.0]])
    lay_by(session, places, places + 5, "similarity")
    assert "place 3 or more" in session.say_alignment()
    assert session.partners[0].confidence(16) == 1.0


@pytest.mark.parametrize(("mpp", "px"), [(0, 64), (0.5, 8), (99, 64), (0.5, 4096)])
def test_impossible_tiles_are_refused(session, mpp, px):
    with pytest.raises(InputError, match="choose 16 to 1024 px"):
        session.sample(mpp, px)


def test_a_run_is_written_whole_or_not_at_all(session, tmp_path):
    planned(session)
    folder = tmp_path / "run"
    reports = list(session.write_work(folder, "student")(CancelToken()))
    assert reports[-1].folder == folder
    assert {p.name for p in folder.iterdir()} == {
        "config.toml",
        "run.json",
        "pairs.zarr",
    }
    with pytest.raises(InputError, match="there already"):
        list(session.write_work(folder, "student")(CancelToken()))


def view(state, *events, message=""):
    plain = {"total": 1.0, "effective_rank": 50.0, "seconds_left": 90.0, "steps": 150}
    return RunView(state, tuple(plain | e for e in events), message)


def test_a_run_is_told_in_one_line():
    step = {"kind": "step", "step": 40}
    judged = {"kind": "validation", "step": 25, "retrieval": 0.62, "chance": 0.03}
    assert say_run(view("starting")).startswith("Starting")
    assert "step 40 of 150" in say_run(view("running", step))
    assert "left" in say_run(view("running", step))
    slow = {"kind": "started", "step": 0, "warning": "bfloat16 is only emulated."}
    assert say_run(view("running", slow, step)).endswith("left. " + slow["warning"])
    saving = {"kind": "saving", "step": 150, "message": "writing the encoder"}
    said = say_run(view("running", step, saving))
    assert said == "Saving the model: writing the encoder."
    assert say_run(view("paused", step)) == "Paused at step 40 of 150."
    finished = say_run(view("finished", step, judged))
    assert finished == "Finished after 150 steps.", "retrieval stands once, below"
    assert "best model so far is kept" in say_run(view("stopped", step))
    assert say_run(view("dead", step, message="killed")) == "killed"


def test_a_collapse_is_seen_coming():
    ranks = [60.0, 40.0, 12.0, 5.0, 2.0]
    steps = [
        {"kind": "step", "step": k, "effective_rank": r} for k, r in enumerate(ranks)
    ]
    assert health_of(view("running", *steps[:3])) == ""
    assert "fewer and fewer places apart" in health_of(view("running", *steps))


def test_a_run_is_called_after_its_time_not_after_its_slide():
    assert re.fullmatch(r"model-19(69|70)\d{4}-\d{6}", run_name(at=0))


def test_partners_are_shown_in_colours_of_their_own():
    channels = np.zeros((4, 4, 2), np.uint8)
    channels[:2, :, 0] = 255
    channels[2:, :, 1] = 255
    shown = to_look_at(channels, "channels")
    assert (shown[0, 0] != shown[3, 0]).any()
    mask = np.array([[[0], [3]]], np.uint8)
    assert to_look_at(mask, "mask")[0, 0].sum() == 0
    assert to_look_at(mask, "mask")[0, 1].sum() > 100


@pytest.mark.data
def test_three_real_fluorescence_channels_teach_a_generated_sparse_one(data):
    dense = open_slide(data / "slides" / "small_vectra.qptiff")
    info = dense.level_infos[0]
    signal = dense.read_pixels(0, 0, 0, info.height, info.width)[..., :1].astype(float)
    top = np.percentile(signal, 99.5)
    light = 255 * np.exp(-1.5 * np.clip(signal / top, 0, 1) * [0.65, 0.70, 0.29])
    sparse = slide_from_arrays(
        np.rint(light).astype(np.uint8), name="made H&E", mpp=dense.require_mpp()
    )
    session = DistilSession()
    session.choose(sparse, [Partner("vectra", PartnerKind.PICTURE, slide=dense)])
    session.sample(0.5, 32)
    found = planned(session)
    assert len(found.plan) > 20
    assert found.plan.partner_tile(0, 0).shape[2] == len(dense.info.channels)
    assert session.recipe("vectra").dense[0].kind == "channels"


@pytest.mark.data
def test_nuclei_that_people_outlined_teach(data):
    name = "00ae65c1c6631ae6.png"
    picture = Image.open(data / "nuclei" / "images" / name).convert("RGB")
    numbers = np.asarray(Image.open(data / "nuclei" / "masks" / name))
    mask = slide_from_arrays(numbers, name="nuclei", mpp=MPP)
    session = DistilSession()
    sparse = slide_from_arrays(np.asarray(picture), name="stained", mpp=MPP)
    session.choose(sparse, [Partner("nuclei", PartnerKind.MASK, slide=mask)])
    session.sample(0.5, 32)
    plan = planned(session).plan
    assert len(plan) > 20
    assert plan.partners[0].instances
    inside = np.stack([plan.partner_tile(k, 0) for k in range(len(plan))]) > 0
    assert 0.02 < inside.mean() < 0.8
    # Nuclei are darker than what is around them: the mask lies where they do.
    light = np.stack([plan.sparse_tile(k) for k in range(len(plan))]).mean(-1)
    assert light[inside[..., 0]].mean() < light[~inside[..., 0]].mean() - 10


def test_a_refinement_is_told_and_taken_back(session):
    places = np.random.default_rng(0).uniform(0, 250, (8, 2))
    lay_by(session, places, places + 5, "rigid")
    before = session.partners[0]
    after = replace(before.registration, residuals_um=np.full(8, 2.0))
    found = Refinement(
        before=before.registration,
        after=after,
        accepted=True,
        moved_um=4.25,
        errors_um=(6.44, 2.0),
        held_out=True,
        agreement=(0.2, 0.4),
        why_not="",
    )
    planned(session)
    session.put_partner(0, refined(before, found))
    assert session.planned is None
    assert "8 landmarks · rigid · refined · median 2.0 µm" in session.say_alignment()
    assert say_refinement(found) == (
        "Refined: the partner moved by 4.2 µm; held-out landmarks are off by 2.0 µm, "
        "6.4 µm before (median)."
    )
    blind = replace(found, errors_um=None)
    assert "agree more than before (0.20 → 0.40)" in say_refinement(blind)
    refused = replace(found, accepted=False, why_not="nothing was found.")
    assert say_refinement(refused) == "Not refined: nothing was found."
    assert session.undo()
    assert session.partners[0].registration is before.registration
    assert session.partners[0].refinement is None


def test_refining_is_work_that_stops_when_asked(session):
    work = refine_work(session.sparse, session.partners[0], "rigid", None)
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        list(work(token))
