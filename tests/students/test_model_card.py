"""The card of a student from a stranger: nothing in it is a link, a picture or HTML."""

from __future__ import annotations

import re

from napari_histodistill.students.model_card import in_markdown, write_card
from napari_histodistill.students.spec import Metric, Training, WeightsSpec
from tests.fakes import colour_student

HOSTILE = (
    "<img src=http://host/a.png> ![x](http://host/b.png) [click](http://host) | cell\n"
    "# heading\n\n<script>"
)


def test_no_text_of_a_spec_is_markup():
    spec = colour_student().spec.model_copy(
        update={
            "title": HOSTILE,
            "description": HOSTILE,
            "licence": HOSTILE,
            "weights": WeightsSpec(
                source="package", package=f"a`{HOSTILE}", sha256="0" * 64,
                licence=HOSTILE,
            ),
            "training": Training(
                data=HOSTILE, licence=HOSTILE, attribution=HOSTILE, arm=HOSTILE,
                partners=(HOSTILE,),
            ),
            "metrics": (Metric(name=HOSTILE, value=0.5, protocol=HOSTILE),),
        }
    )  # fmt: skip
    card = write_card(spec)
    assert card.count("heading") >= 10
    assert not re.findall(r"(?<!\\)[<\[]", card)
    titles = [line for line in card.splitlines() if line.startswith("#")]
    assert len(titles) == 6, titles
    rows = [line for line in card.splitlines() if line.startswith("| licence |")]
    assert len(rows) == 1
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == 3


def test_plain_words_stay_plain():
    words = "low_grade_in, p > 0.5, `colon-he`, 99 % of 12 tiles (EBHI-Seg)."
    assert in_markdown(words) == words
