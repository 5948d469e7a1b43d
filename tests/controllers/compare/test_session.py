"""Compare students without a window: choosing, running, comparing, asking."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.controllers.compare.noise import (
    SecondSeed,
    SeedsFound,
    seeds_work,
)
from napari_histodistill.controllers.compare.session import CompareSession
from napari_histodistill.controllers.compare.work import (
    NEIGHBOURS,
    Compared,
    CompareProgress,
    HalfUpdate,
    PlaceFound,
    how_far,
    rank_work,
)
from napari_histodistill.controllers.shared.map_choice import RegionChoice
from napari_histodistill.controllers.shared.map_work import RunUpdate
from napari_histodistill.controllers.shared.planning import store_path_of
from napari_histodistill.controllers.shared.student_list import (
    StudentChoice,
    titles_apart,
)
from napari_histodistill.errors import Cancelled, InputError
from napari_histodistill.geometry import Region
from napari_histodistill.maps.engine import embed_slide, plan_grid
from napari_histodistill.maps.progress import EmbedReport
from napari_histodistill.running import CancelToken
from napari_histodistill.students.head import Head
from napari_histodistill.students.spec import Training
from tests.controllers.driving import GLAND, GLASS, STROMA, drive, find_once
from tests.fakes import PURPLE, array_slide, coarse_student, colour_student
from tests.fakes import tissue_image as plain_tissue

SECRET = (360.0, 330.0)
"""A place in the gland that only a fine eye tells from the other two."""


def secret_slide():
    """Return tissue whose third gland is a little bluer."""
    image = plain_tissue()
    gland = (np.abs(image.astype(int) - PURPLE) <= 8).all(axis=2)
    gland[: image.shape[0] // 2] = False
    image[gland] += np.array([6, 0, 6], np.uint8)
    return array_slide(image)


def open_session(one=None, other=None, *, slide=None):
    session = CompareSession()
    session.choose_slide(slide or secret_slide())
    session.take_tissue(find_once(session.slide))
    session.choose_student(0, one or coarse_student(), 100.0)
    session.choose_student(1, other or colour_student())
    return session


def run(session, token=None):
    reports = []
    try:
        for report in session.run_work()(token or CancelToken()):
            session.take(report)
            reports.append(report)
    finally:
        session.run_ended()
    return reports


def ask(session, place):
    answers = drive(session.ask(*place))
    return [session.take_answer(answer) for answer in answers]


def computed(student):
    return sum(student.backend.batches)


def headless(student):
    return type(student)(
        student.spec.model_copy(update={"classes": ()}),
        student.backend,
        digest=student.digest,
    )


def blind_pair():
    """Return two students without classes."""
    return headless(coarse_student()), headless(colour_student())


def test_why_not_run_says_what_is_missing_in_turn():
    session = CompareSession()
    assert "Open a slide" in session.why_not_run
    with pytest.raises(InputError, match="Open a slide"):
        session.run_work()
    session.choose_slide(array_slide(mpp=None))
    assert "µm per pixel" in session.why_not_run
    session.type_mpp(0.5)
    assert session.why_not_run.startswith("A: Choose a model")
    slide = secret_slide()
    session.choose_slide(slide)
    assert session.why_not_run.startswith("A: Choose a model")
    session.choose_student(0, coarse_student())
    assert session.why_not_run.startswith("B: Choose a model")
    session.lose_student(1, "There is no such bundle.")
    assert session.why_not_run == "B: There is no such bundle."
    session.choose_student(1, coarse_student())
    assert "tissue" in session.why_not_run
    session.take_tissue(find_once(slide))
    assert "the same model" in session.why_not_run
    session.choose_student(1, colour_student())
    assert session.why_not_run == ""


def test_a_student_that_cannot_see_the_slide_is_named():
    session = open_session(other=colour_student(mpp=0.05))
    assert session.why_not_run.startswith("B: ")
    assert "too coarse" in session.why_not_run
    assert "too coarse" in session.say_half(1)


def test_a_run_computes_both_maps_and_the_difference():
    session = open_session()
    reports = run(session)
    assert {r.which for r in reports if isinstance(r, HalfUpdate)} == {0, 1}
    assert isinstance(reports[-1], Compared)
    assert session.has_maps
    assert session.has_class_maps
    one, other = session.lives
    np.testing.assert_array_equal(one.status, other.status)
    difference = session.compared.difference
    assert difference.measure == "classes"
    assert difference.cells == one.cells_done > 100
    sentence = session.say_compared()
    assert sentence.startswith("Class probabilities of A (coarse) and B (colour) at ")
    assert f"{difference.cells:,} places" in sentence


def test_stored_maps_are_reused_and_decide_the_distance():
    one, other = coarse_student(), colour_student()
    session = open_session(one, other)
    assert "to compute, ~" in session.say_half(0)
    session.choose_step(0)
    run(session)
    looked = computed(one), computed(other)
    again = open_session(one, other)
    assert again.step == 0, "both have a map at that distance"
    assert "map from" in again.say_half(0)
    run(again)
    assert (computed(one), computed(other)) == looked
    np.testing.assert_array_equal(
        again.compared.difference.values, session.compared.difference.values
    )
    assert again.lives[0].cells_done == session.lives[0].cells_done


def test_a_map_made_in_explore_is_the_same_store():
    slide, one = secret_slide(), coarse_student()
    session = open_session(one, slide=slide)
    grid = plan_grid(slide, one)
    path = store_path_of(slide, one, grid, "tiles")
    path.parent.mkdir(parents=True, exist_ok=True)
    list(embed_slide(slide, one, path, grid=grid, tissue=find_once(slide)))
    looked = computed(one)
    session.choose_step(0)
    run(session)
    assert computed(one) == looked


def test_students_with_other_tiles_meet_on_one_distance():
    small, large = coarse_student(), colour_student(tile_px=96, mpp=0.5)
    session = open_session(small, large)
    assert session.steps[0].stride_um == 48, "the larger tile decides"
    session.choose_step(1)
    assert session.why_not_run == ""
    run(session)
    strides = [live.grid.stride_um for live in session.lives]
    assert strides == [24, 24]
    assert session.lives[0].grid.tile_um != session.lives[1].grid.tile_um
    assert session.compared.difference.cells > 50


def test_a_distance_that_was_chosen_survives_the_tissue():
    session = CompareSession()
    slide = secret_slide()
    session.choose_slide(slide)
    session.choose_student(0, coarse_student())
    session.choose_student(1, colour_student())
    assert session.step != 0
    session.choose_step(0)
    session.take_tissue(find_once(slide))
    assert session.step == 0
    one, other = (choice.detail for choice in session.choices)
    assert one.stride_um == other.stride_um


def test_cancel_keeps_what_is_done_and_run_goes_on():
    one, other = coarse_student(), colour_student()
    session = open_session(one, other)
    session.choose_step(1)
    assert session.run_work() is not None
    assert "A run is going on" in session.why_not_ask
    session.run_ended()
    token = CancelToken()

    def until_b_has_begun():
        for report in session.run_work()(token):
            session.take(report)
            patched = isinstance(report, HalfUpdate) and report.update.patch is not None
            if patched and report.which == 1:
                token.cancel()

    with pytest.raises(Cancelled):
        until_b_has_begun()
    session.run_ended()
    done = computed(one), computed(other)
    assert session.compared is None
    assert 0 < session.lives[1].cells_done < session.lives[0].cells_done
    run(session)
    assert computed(one) == done[0], "A was complete"
    assert computed(other) < done[1] + session.lives[1].cells_done
    assert session.compared is not None


def test_the_view_alone_can_be_compared():
    session = open_session()
    session.choose_step(1)
    session.choose_region(RegionChoice.VIEW)
    assert "view" in session.why_not_run
    session.look_at(Region(y=150, x=150, height=150, width=200))
    run(session)
    assert 10 <= session.compared.difference.cells < 100
    assert not session.is_seen(*STROMA)


def test_without_classes_students_are_compared_by_what_they_find_alike():
    session = open_session(*blind_pair())
    assert session.measure == "neighbours"
    assert "both have classes" in session.why_not_measure("classes")
    run(session)
    difference = session.compared.difference
    assert difference.measure == "neighbours"
    assert not session.has_class_maps
    # For A the three glands are alike, for B one of them is not like the others.
    gland, stroma = (difference.grid.cell_at(*place) for place in (GLAND, STROMA))
    assert difference.values[gland] > difference.values[stroma] + 0.1
    assert "difference" in session.describe(*SECRET)


def test_a_measure_is_changed_without_running_again():
    one, other = coarse_student(), colour_student()
    session = open_session(one, other)
    assert session.measure_work() is None
    run(session)
    looked = computed(one), computed(other)
    for measure in ("news", "neighbours", "classes"):
        session.choose_measure(measure)
        assert session.compared is None
        for report in drive(session.measure_work()):
            session.take(report)
        assert session.compared.difference.measure == measure
    assert (computed(one), computed(other)) == looked


def test_a_measure_that_no_longer_fits_gives_way():
    session = open_session()
    session.choose_measure("classes")
    session.choose_student(1, blind_pair()[1])
    assert session.measure == "neighbours"


def another_seed(of=colour_student, *, digest="e2" * 16, lift=0.0):
    """Return a student that differs as another seed would: by its border."""
    student = of()
    head = student.head
    student.head = Head(head.weight, head.bias + np.array([lift, -lift], np.float32))
    student.digest = digest
    return student


def test_a_difference_stands_beside_that_of_two_seeds():
    session = open_session(colour_student(), coarse_student())
    assert "looking for a second seed" in session.say_noise()
    session.take_seeds(SeedsFound())
    assert "no second seed" in session.say_noise()
    run(session)
    assert "Noise is not measured" in session.say_compared()
    second = SecondSeed(0, 1, another_seed(lift=0.5), 100.0)
    session.take_seeds(SeedsFound(second=second))
    assert "another seed of A (seed 1)" in session.say_noise()
    assert "to compute" in session.say_noise()
    reports = run(session)
    assert {r.which for r in reports if isinstance(r, HalfUpdate)} == {0, 1, 2}
    difference = session.compared.difference
    assert difference.noise.cells == difference.cells
    assert session.say_compared().startswith(("Within noise.", "More than noise."))
    assert "map from" in session.say_noise()
    assert ask(session, SECRET) == [False, False, False, True], "three indices"
    found = session.found
    assert f"places, two seeds {found.shared_by_seeds}." in session.say_found()
    assert found.shared_by_seeds >= found.shared
    # Another measure has a noise of its own, from the same three maps.
    looked = computed(second.student)
    session.choose_measure("neighbours")
    for report in drive(session.measure_work()):
        session.take(report)
    assert session.compared.difference.noise.figure != difference.noise.figure
    assert computed(second.student) == looked
    # Swapped, it is still the other seed of the same student.
    session.swap()
    assert session.seeds.second.beside == 1
    session.choose_noise(measured=False)
    run(session)
    assert session.compared.difference.noise is None
    session.choose_student(0, coarse_student())
    assert session.seeds is None


def test_two_seeds_of_one_recipe_show_noise_and_nothing_else():
    session = open_session(colour_student(), another_seed(lift=0.5))
    session.take_seeds(SeedsFound(are_seeds=True))
    assert "two seeds of one recipe" in session.say_noise()
    run(session)
    assert session.say_compared().startswith("Within noise.")


def test_a_second_seed_is_found_beside_the_student(tmp_path, monkeypatch):
    """First of the one without a partner: what it has learned is the tissue alone."""
    from napari_histodistill.distill.runs import kin

    def one(name, seed, taught_by):
        bundle = tmp_path / name / "student"
        return bundle, kin.RunKin(
            bundle, "unprivileged" if taught_by == "none" else "triplet",
            seed, taught_by, "recipe", seed, alone=taught_by == "none",
        )  # fmt: skip

    known = dict(
        one(name, seed, by)
        for name, seed, by in (
            ("alone", 0, "none"), ("alone 1", 1, "none"),
            ("taught", 0, "ihc"), ("taught 1", 1, "ihc"),
        )
    )  # fmt: skip
    monkeypatch.setattr(kin, "kin_of", known.get)
    monkeypatch.setattr(
        kin, "kin_beside", lambda b: [k for p, k in known.items() if p != b]
    )
    alone, alone_1, taught, _ = known
    loaded = []

    def load(name, *, device):
        loaded.append(name)
        return another_seed()

    (found,) = drive(seeds_work(load, [taught, alone]))
    assert (found.second.beside, found.second.seed, loaded) == (1, 1, [alone_1])
    (found,) = drive(seeds_work(load, [alone, alone_1]))
    assert found.are_seeds
    (found,) = drive(seeds_work(load, ["colon-he", "imagenet-lite0"]))
    assert found == SeedsFound()
    assert len(loaded) == 1


def test_students_of_one_name_are_told_apart(tmp_path, monkeypatch):
    from napari_histodistill.distill.runs import kin

    def choice(seed, *partners, digest="", name="m"):
        folder = tmp_path / f"{seed}{partners}{digest}"
        seeds[folder] = seed
        training = Training(
            data="d", licence="CC0", attribution="a",
            arm="triplet" if partners else "unprivileged", partners=partners,
        )  # fmt: skip
        update = {"name": name, "training": training, "digest": digest * 64}
        return StudentChoice(folder, colour_student().spec.model_copy(update=update))

    seeds = {}
    monkeypatch.setattr(
        kin,
        "kin_of",
        lambda p: kin.RunKin(p, "triplet", seeds[p], "", "", 0, alone=False),
    )
    alone, ihc, again = choice(0), choice(0, "image: ihc"), choice(1, "image: ihc")
    assert titles_apart([alone, choice(0, name="other")]) == [
        "m · 1 µm/px",
        "other · 1 µm/px",
    ]
    assert titles_apart([ihc, again]) == [f"seed {k} · m · 1 µm/px" for k in range(2)]
    assert titles_apart([alone, ihc, again]) == [
        "without partner · seed 0 · m · 1 µm/px",
        "with image · seed 0 · m · 1 µm/px",
        "with image · seed 1 · m · 1 µm/px",
    ]
    same = titles_apart([choice(0, digest="a"), choice(0, digest="b")])
    assert same == [f"{d * 6} · m · 1 µm/px" for d in "ab"]


def test_what_is_under_the_cursor_is_said():
    one, other = coarse_student(), colour_student()
    other.head = Head(-other.head.weight, -other.head.bias)
    session = open_session(one, other)
    assert session.describe(*GLAND) == ""
    run(session)
    words = session.describe(*GLAND)
    assert words.startswith("difference ")
    assert "A: gland" in words
    assert "B: stroma" in words
    assert words.endswith("y 105 µm, x 120 µm")
    assert session.describe(*GLASS) == ""
    assert session.describe(-5, 5) == ""


def test_asking_about_a_place_gives_both_students_neighbours():
    session = open_session(*blind_pair())
    assert "Run both models first" in session.why_not_ask
    with pytest.raises(InputError, match="Run both"):
        session.ask(*SECRET)
    run(session)
    assert "Click a place first" in session.why_not_flicker
    with pytest.raises(InputError, match="Nothing is computed there"):
        session.ask(*GLASS)
    assert ask(session, SECRET) == [False, False, True], "two indices, one answer"
    assert session.why_not_flicker == ""
    found = session.found
    assert all(1 < len(places) <= NEIGHBOURS for places in found.nearest)
    # B keeps to the gland that only it tells apart; for A the others are as good.
    in_gland = [
        [p.y > 300 and 280 < p.x < 440 for p in places] for places in found.nearest
    ]
    assert in_gland[1][:2] == [True, True]
    assert in_gland[0][:2] == [False, False]
    count = len(found.nearest[0])
    assert f"share {found.shared} of the {count} nearest" in session.say_found()
    assert ask(session, STROMA) == [True], "the indices are kept"


def test_the_answer_to_an_older_question_is_dropped():
    session = open_session()
    run(session)
    first = drive(session.ask(*SECRET))
    session.ask(*STROMA)
    assert [session.take_answer(a) for a in first] == [False, False, False]
    assert session.found is None
    session.forget_place()
    assert session.place is None


@pytest.mark.slow(16)
def test_another_choice_drops_what_was_computed():
    session = open_session()
    run(session)
    ask(session, SECRET)
    session.choose_step(session.step + 1)
    assert session.compared is session.found is session.place is None
    assert not session.has_maps
    run(session)
    session.choose_slide(None)
    assert session.compared is None
    assert "Open a slide" in session.why_not_run


def test_ranking_again_with_another_threshold():
    session = open_session(*blind_pair())
    run(session)
    difference = session.compared.difference
    (all_of_it,) = drive(rank_work(difference, 0.0))
    session.take(all_of_it)
    assert session.compared.threshold == 0
    # No two show the same tissue, and ranks are counted without a gap.
    tile_px = difference.grid.tile_px * difference.grid.px_per_student_px[0]
    places = all_of_it.ranked
    assert [p.rank for p in places] == list(range(1, len(places) + 1))
    assert len(places) > 3
    for k, p in enumerate(places):
        near = [max(abs(p.y - q.y), abs(p.x - q.x)) for q in places[:k]]
        assert min(near, default=tile_px) >= tile_px
    (none,) = drive(rank_work(difference, 2.0))
    assert none.ranked == ()


def test_answers_are_frozen():
    assert PlaceFound.__dataclass_params__.frozen
    assert Compared.__dataclass_params__.frozen


# --- loading, swapping, how far -------------------------------------------------------


def test_a_student_that_is_being_loaded_is_waited_for_by_its_letter():
    session = open_session()
    session.await_student(1)
    assert session.why_not_run == "B is being loaded: a moment."
    assert session.say_half(1) == "is being loaded…"
    with pytest.raises(InputError, match="is being loaded"):
        session.swap()
    session.lose_student(1, "There is no student 'x'.")
    assert session.say_half(1) == "There is no student 'x'."


def test_swapping_exchanges_students_and_their_speeds():
    session = open_session()
    one, other = session.students
    session.swap()
    assert session.students == (other, one)
    assert [choice.tiles_per_s for choice in session.choices] == [0.0, 100.0]
    assert session.why_not_run == ""


def test_how_far_grows_from_a_over_b_to_the_comparison():
    def half(which, done):
        report = EmbedReport(done=done, total=10, seconds_left=38)
        return HalfUpdate(which, RunUpdate(report))

    found = [
        how_far(half(0, 5)),
        how_far(half(1, 5)),
        how_far(CompareProgress(1, 2)),
        how_far(CompareProgress(2, 2)),
    ]
    assert [share for share, _ in found] == pytest.approx([0.225, 0.675, 0.95, 1])
    assert [words for _, words in found] == [
        "A: 5 of 10 squares · 38 s left",
        "B: 5 of 10 squares · 38 s left",
        "Comparing…",
        "Comparing…",
    ]


def test_a_run_locks_the_choice():
    session = open_session()
    assert not session.why_locked
    assert "run first" in session.why_not_export
    session.run_work()
    assert "Cancel the run" in session.why_locked
    session.run_ended()
    assert not session.why_locked
