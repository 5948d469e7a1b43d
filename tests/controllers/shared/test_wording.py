"""Counts, times and areas as people read them."""

from __future__ import annotations

import pytest

from napari_histodistill.controllers.shared.wording import (
    about_in_words,
    area_in_words,
    class_in_words,
    class_label,
    count_in_words,
    duration_in_words,
    progress_in_words,
    remark_in_words,
)
from napari_histodistill.maps.progress import EmbedReport


def test_a_class_is_named_as_people_say_it():
    assert class_label("serrated_adenoma") == "serrated adenoma"
    assert class_in_words("serrated_adenoma") == "serrated adenoma"
    assert class_label("low_grade_in") == "low-grade IN"
    full = "low-grade intraepithelial neoplasia (LGIN)"
    assert class_in_words("low_grade_in") == full


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 squares"), (1, "1 square"), (2104, "2,104 squares")],
)
def test_counts_are_exact(count, words):
    assert count_in_words(count) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (1, "1 square"),
        (99, "99 squares"),
        (2104, "about 2,100 squares"),
        (1_234_567, "about 1,200,000 squares"),
    ],
)
def test_large_counts_are_rounded_to_what_they_are_worth(count, words):
    assert about_in_words(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.01, "1 s"),
        (8.4, "8 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (200, "3 min"),
        (3600, "1 h 0 min"),
        (7800, "2 h 10 min"),
    ],
)
def test_times(seconds, words):
    assert duration_in_words(seconds) == words


@pytest.mark.parametrize(
    ("mm2", "words"),
    [(0.0123, "0.012 mm²"), (0.25, "0.25 mm²"), (1.234, "1.2 mm²"), (12.6, "13 mm²")],
)
def test_areas(mm2, words):
    assert area_in_words(mm2) == words


def test_progress_leaves_out_what_is_not_known():
    report = EmbedReport(done=40, total=1200, cells_per_s=31.4, seconds_left=38)
    assert progress_in_words(report) == "40 of 1,200 squares · 31 squares/s · 38 s left"
    assert progress_in_words(report, speed=False) == "40 of 1,200 squares · 38 s left"
    report = EmbedReport(done=0, total=1200, cells_per_s=2)
    assert progress_in_words(report) == "0 of 1,200 squares · 2 squares/s"


def test_a_remark_is_a_sentence():
    report = EmbedReport(
        done=1, total=2, message="memory is short: HE and NDPI are read slowly"
    )
    expected = "Memory is short: HE and NDPI are read slowly."
    assert remark_in_words(report) == expected, "only the first letter is touched"
    assert remark_in_words(EmbedReport(done=1, total=2)) == ""
