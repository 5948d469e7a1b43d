"""Settings changed by hand: what differs, what is wrong, and the way back."""

from __future__ import annotations

import pytest

from napari_histodistill.controllers.distil.session import DistilSession
from napari_histodistill.controllers.distil.settings import WHOLE, Draft
from napari_histodistill.distill.recipes.presets import PartnerInput, recipe_for
from napari_histodistill.errors import InputError

LR, BATCH = ("schedule", "lr"), ("schedule", "batch")


@pytest.fixture
def draft():
    base = recipe_for(
        "quick", name="student", source="a", mpp=0.5, tile_px=64, student_px=64,
        pairs=200, partners=[PartnerInput("m", "channels", 48)],
    )  # fmt: skip
    return Draft(base, pairs=200)


def typed(draft, *path_and_text):
    *path, text = path_and_text
    fields = {f.path: f for f in draft.form.all_fields()}
    return draft.type(fields[tuple(path)], text)


def test_an_untouched_draft_is_the_preset(draft):
    assert draft.config() == draft.base
    assert draft.changed == frozenset()
    assert draft.problems() == {}


def test_what_differs_is_known_and_can_be_put_back(draft):
    two = typed(typed(draft, *LR, "1e-4"), *BATCH, "32")
    assert two.changed == {LR, BATCH}
    assert two.config().schedule.lr == 1e-4
    assert two.config().schedule.batch == 32
    one = two.reset(LR)
    assert one.changed == {BATCH}
    assert one.config().schedule.lr == draft.base.schedule.lr
    assert two.reset().config() == draft.base


def test_the_presets_value_in_other_words_is_no_change(draft):
    assert typed(draft, *LR, " 0.0030 ").changed == frozenset()
    assert typed(draft, "objective", "projector", "256,256, 256").changed == frozenset()


def test_what_is_typed_stays_as_it_was_typed(draft):
    one = typed(draft, *LR, "1e-")
    fields = {f.path: f for f in one.form.all_fields()}
    assert one.text(fields[LR]) == "1e-"
    assert one.problems() == {LR: "'1e-' is not a number."}


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        (BATCH, "1", "It must be at least 2."),
        (BATCH, "2000", "There are 200 pairs to train on: a batch of 2,000"),
        (LR, "0", "It must be more than 0."),
        (LR, "inf", "It must be a finite number."),
        (("schedule", "warmup_share"), "1", "It must be less than 1."),
        (("sparse", "tile_px"), "9999", "It must be at most 4096."),
        (("objective", "projector"), "", "It must not be empty."),
        (("title",), "", "It must not be empty."),
        (("sparse", "encoder", "backbone"), "hf-hub:x", "characters that a name"),
        (("objective", "projector"), "1", "It must be at least 2."),
    ],
)
def test_a_value_that_cannot_be_is_told_at_its_field(draft, path, text, said):
    problems = typed(draft, *path, text).problems()
    assert list(problems) == [path]
    assert said in problems[path]


def test_what_does_not_fit_together_is_told_of_the_whole(draft):
    problems = typed(draft, "arm", "unprivileged").problems()
    assert list(problems) == [WHOLE]
    assert "has no dense partner" in problems[WHOLE]


def test_the_first_problem_names_its_field(draft):
    with pytest.raises(InputError, match="Batch: It must be at least 2"):
        typed(draft, *BATCH, "0").config()


def test_settings_of_another_presets_partner_are_ignored(draft):
    one = typed(draft, "dense", 0, "input_px", "64")
    alone = recipe_for(
        "quick", name="student", source="a", mpp=0.5, tile_px=64, student_px=64,
        pairs=200, partners=[],
    )  # fmt: skip
    kept = Draft(alone, one.typed)
    assert kept.changed == frozenset()
    assert kept.config() == alone


def test_another_preset_and_other_partners_forget_what_they_must():
    session = DistilSession()
    session.typed = {LR: "0.1", ("dense", 0, "input_px"): "64"}
    session.choose(None, [])
    assert set(session.typed) == {LR, ("dense", 0, "input_px")}
    session.choose_preset(session.preset)
    assert session.typed
    session.choose_preset("careful")
    assert session.typed == {}
