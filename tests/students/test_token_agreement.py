"""Token agreement: known where tokens and tiles are the same thing."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.errors import InputError
from tests.bench.token_agreement import measure_agreement
from tests.fakes import array_slide, colour_student


@pytest.fixture
def slide():
    rng = np.random.default_rng(1)
    coarse = rng.integers(60, 250, (20, 24, 3))
    return array_slide(coarse.repeat(20, 0).repeat(20, 1).astype(np.uint8), mpp=1.0)


def test_an_encoder_that_only_averages_agrees_with_itself(slide):
    found = measure_agreement(colour_student(), slide, measured_on="squares")
    # Three of its six numbers are means, which tokens keep; three are their squares.
    assert found.cosine_p05 > 0.99
    assert found.rank_correlation_median > 0.98
    assert found.measured_on == "squares"
    assert found.cells == 24 * 29


def test_an_encoder_whose_tokens_are_something_else(slide):
    student = colour_student()
    honest = student.backend.tokens
    student.backend.tokens = lambda windows: honest(windows)[:, ::-1, ::-1]
    found = measure_agreement(student, slide)
    assert found.rank_correlation_median < 0.3


def test_too_little_tissue_is_refused():
    small = array_slide(np.zeros((40, 40, 3), np.uint8), mpp=1.0)
    with pytest.raises(InputError, match="too small to compare"):
        measure_agreement(colour_student(), small)
    with pytest.raises(InputError, match="smaller than one tile"):
        measure_agreement(colour_student(tile_px=64), small)
