"""``--icc``: another map, never mixed with that of the colours as stored."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.maps import EmbeddingStore
from tests.slides.tissue.test_icc import SWAPPED, write


@pytest.fixture(scope="module")
def profiled(tmp_path_factory):
    return write(
        tmp_path_factory.mktemp("slides") / "p.tif",
        SWAPPED,
        resolution=(20000, 20000),
        resolutionunit="CENTIMETER",
    ).path


def test_a_profile_is_honoured_on_request_and_kept_apart(
    run, profiled, bundle, tmp_path
):
    options = ("embed", profiled, "-o", tmp_path, "--student", bundle, "--all-cells")
    stored = run(*options, "--json")
    assert stored.code == 0, stored.err
    assert stored.json["icc"] is False
    path = stored.json["slides"][0]["store"]
    with EmbeddingStore.open(path) as made:
        before = made.read()
    refused = run(*options, "--icc")
    assert refused.code == 2
    assert "--restart" in refused.err
    shown = run(*options, "--icc", "--restart", "--json")
    assert shown.code == 0, shown.err
    assert shown.json["icc"] is True
    assert "carried to sRGB" in shown.err
    with EmbeddingStore.open(path) as made:
        assert not np.allclose(made.read(), before, equal_nan=True)


def test_classify_honours_it_too(run, profiled, bundle, tmp_path):
    out = run(
        *("classify", profiled, "-o", tmp_path, "--student", bundle, "--all-cells"),
        *("--icc", "--json"),
    )
    assert out.code == 0, out.err
    assert out.json["icc"] is True
