"""What is shown: one thing at a time, what it falls back to, and what is hidden."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.controllers.explore.showing import Shown, WhatIsShown
from napari_histodistill.controllers.explore.shown import (
    canvas_legend,
    hidden_squares,
    one_class,
    overview_work,
    shown_now,
    why_no_filter,
    why_not_shown,
)
from napari_histodistill.controllers.explore.teach.teaching import Strokes
from napari_histodistill.controllers.shared.exporting import ExportKey, export_work
from napari_histodistill.controllers.shared.wording import magnification_in_words
from napari_histodistill.students.spec import ClassSpec
from tests.controllers.driving import (
    GLAND,
    STROMA,
    ask,
    drive,
    open_session,
    ran_session,
    run,
)
from tests.fakes import array_slide, colour_student

OWN = "#123456"


def kinds_offered(session):
    return {kind for kind in Shown if not why_not_shown(session, kind)}


def draw(session):
    """Do what the panel does when it draws the map."""
    session.live.show_probability(one_class(session))
    return session.live.heat


def test_what_cannot_be_shown_says_why():
    session = open_session()
    assert kinds_offered(session) == {Shown.NOTHING}
    assert "Run the model first" in why_not_shown(session, Shown.CLASSES)
    assert shown_now(session) is Shown.NOTHING
    run(session)
    assert kinds_offered(session) == set(Shown) - {Shown.ALIKE}
    assert "Click tissue" in why_not_shown(session, Shown.ALIKE)
    assert shown_now(session) is Shown.CLASSES
    headless = ran_session(student=colour_student(with_head=False))
    assert kinds_offered(headless) == {Shown.NOTHING}
    assert "no classes" in why_not_shown(headless, Shown.ONE_CLASS)


def test_a_search_shows_what_is_alike_and_its_end_what_was_there_before():
    session = ran_session()
    session.showing.choose_class("gland")
    session.add_prompt(*GLAND, like=True)
    assert shown_now(session) is Shown.ONE_CLASS, "there is no answer yet"
    ask(session)
    assert shown_now(session) is Shown.ALIKE
    session.clear_prompts()
    assert shown_now(session) is Shown.ONE_CLASS
    assert one_class(session) == 1


@pytest.mark.parametrize(
    ("before", "then"),
    [
        (Shown.NOTHING, Shown.CLASSES),
        (Shown.ALIKE, Shown.CLASSES),
        (Shown.ONE_CLASS, Shown.ONE_CLASS),
    ],
)
def test_a_run_shows_its_map(before, then):
    session = ran_session()
    session.showing.choose(before)
    run(session, restart=True)
    assert shown_now(session) is then


def test_the_heatmap_fills_while_a_run_goes_on():
    session = open_session()
    session.showing.choose_class("gland")
    filled = []
    for update in session.run_work()(_token()):
        session.take_update(update)
        filled.append(int(np.isfinite(draw(session)).sum()))
    assert filled[-1] == session.live.cells_done
    assert sorted(filled) == filled
    row, column = session.live.grid.cell_at(*GLAND)
    heat, known = session.live.heat, session.live.probabilities_at(row, column)
    assert heat[row, column] == known[1]
    assert np.isnan(heat[session.live.status == 0]).all()


def _token():
    from napari_histodistill.running import CancelToken

    return CancelToken()


def test_another_class_is_another_heatmap_in_the_same_array():
    session = ran_session()
    session.showing.choose_class("stroma")
    first = draw(session)
    at = session.live.grid.cell_at(*STROMA)
    sure = float(first[at])
    session.showing.choose_class("gland")
    assert draw(session) is first, "a layer holds on to it"
    assert float(first[at]) == pytest.approx(1 - sure, abs=1e-5)
    session.showing.choose(Shown.CLASSES)
    assert np.isnan(draw(session)).all()


def test_what_the_filter_hides_is_counted_in_every_kind():
    session = ran_session()
    total = session.live.cells_done
    assert str(hidden_squares(session, ())) == f"0 of {total} squares hidden"
    session.show_at_least(1.0)
    hidden = hidden_squares(session, ())
    assert hidden.count == int((session.live.shown == 0).sum()) - int(
        (session.live.labels == 0).sum()
    )
    assert str(hidden) == f"{hidden.count} of {total} squares hidden"
    session.show_at_least(0.0)
    glands = int((session.live.labels == 2).sum())
    assert hidden_squares(session, {1}).count == glands > 0
    session.showing.choose_class("gland")
    session.show_at_least(0.5)
    draw(session)
    assert hidden_squares(session, ()).count == total - glands
    assert hidden_squares(session, {1}).count == total - glands, "eyes are of classes"


def test_the_filter_outlasts_a_map_and_says_where_it_does_not_hold():
    session = ran_session()
    session.show_at_least(0.7)
    session.put_map_away()
    run(session)
    assert session.live.min_confidence == 0.7
    assert why_no_filter(session) == ""
    session.showing.choose(Shown.NOTHING)
    assert "Classes" in why_no_filter(session)
    session.add_prompt(*GLAND, like=True)
    ask(session)
    assert "threshold" in why_no_filter(session)


def test_own_colours_reach_legend_map_canvas_and_exports(tmp_path):
    session = ran_session()
    session.recolour(1, OWN)
    assert session.class_rows()[1].color == OWN
    assert session.live.classes[1].color == OWN
    assert canvas_legend(session, ()).classes[1] == ("gland", OWN)
    snapshot = session.live.snapshot()
    drive(
        export_work(
            ExportKey.CLASS_OUTLINES,
            tmp_path / "a.geojson",
            classes=snapshot,
            similar=None,
        )
    )
    red, green, blue = (int(OWN[k : k + 2], 16) for k in (1, 3, 5))
    compact = (tmp_path / "a.geojson").read_text().replace(" ", "").replace("\n", "")
    assert f"[{red},{green},{blue}]" in compact
    run(session, restart=True)
    assert session.live.classes[1].color == OWN, "of the next map, too"
    session.drop_map()
    assert session.class_rows()[1].color == OWN


def test_own_colours_of_taught_classes_stay_when_they_are_learned_again():
    session = ran_session()
    strokes = np.zeros((60, 80), np.uint8)
    strokes[20:22, 23:25], strokes[50:52, 15:60] = 1, 2
    own = tuple(ClassSpec(name=n, color="#e69f00") for n in ("mine", "other"))

    def teach():
        for taught in drive(session.teach_work(Strokes(strokes, own))):
            session.take_taught(taught)

    session.showing.choose(Shown.NOTHING)
    teach()
    assert shown_now(session) is Shown.CLASSES
    session.recolour(0, OWN)
    assert session.taught.classes[0].color == OWN, "a model saved of it has it"
    teach()
    assert [c.color for c in session.taught.classes] == [OWN, "#e69f00"]
    assert session.live.classes == session.taught.classes


def test_the_canvas_says_what_colours_mean():
    session = open_session()
    assert canvas_legend(session, ()).is_empty
    run(session)
    assert [name for name, _ in canvas_legend(session, ()).classes] == [
        "stroma",
        "gland",
    ]
    assert [name for name, _ in canvas_legend(session, {0}).classes] == ["gland"]
    session.showing.choose_class("gland")
    scale = canvas_legend(session, ()).scale
    assert (scale.title, scale.low, scale.high) == (
        "Probability of gland",
        "0 %",
        "100 %",
    )
    session.add_prompt(*GLAND, like=True)
    ask(session)
    scale = canvas_legend(session, ()).scale
    assert scale.low.startswith(f"{session.similar.threshold:.2f}")
    assert scale.high == "1.00"
    session.showing.choose(Shown.NOTHING)
    assert canvas_legend(session, ()).is_empty


def test_the_status_bar_has_the_heatmaps_own_value():
    session = ran_session()
    assert "probability" not in session.describe(*STROMA)
    session.showing.choose_class("gland")
    draw(session)
    assert session.describe(*STROMA).startswith("stroma ")
    assert "probability of gland " in session.describe(*STROMA)
    session.show_at_least(0.9)
    assert "probability" not in session.describe(*STROMA), "it is hidden"


def test_opacity_is_kept_for_each_kind_and_stays_within_bounds():
    showing = WhatIsShown()
    showing.set_opacity(Shown.CLASSES, 0.25)
    showing.set_opacity(Shown.ALIKE, 1.7)
    showing.set_opacity(Shown.NOTHING, 0.5)
    assert showing.opacity(Shown.CLASSES) == 0.25
    assert showing.opacity(Shown.ALIKE) == 1.0
    assert showing.opacity(Shown.NOTHING) == 0.0


@pytest.mark.parametrize(
    ("um_per_px", "words"),
    [(1.0, "≈ 10×"), (0.25, "≈ 40×"), (4.0, "≈ 2.5×"), (37.0, "≈ 0.27×")],
)
def test_magnification_in_words(um_per_px, words):
    assert magnification_in_words(um_per_px) == words


def test_an_overview_is_all_of_the_slide_and_only_of_colour():
    slide = array_slide()
    (found,) = drive(overview_work(slide))
    assert found.pixels.ndim == 3
    assert found.pixels.dtype == np.uint8
    height, width = slide.shape
    assert found.pixels.shape[1] / found.pixels.shape[0] == pytest.approx(
        width / height, rel=0.01
    )
