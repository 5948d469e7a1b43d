"""``--stain-normalise``: another map, never mixed with the bare one."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from napari_histodistill.maps import EmbeddingStore
from napari_histodistill.slides.tissue.writing import write_pyramid
from napari_histodistill.students.bundle import load_spec, restate
from tests.fakes import tissue_image
from tests.slides.tissue.test_stain import painted
from tests.students.test_staining import STAIN

GREEN = np.ascontiguousarray(tissue_image()[..., [1, 0, 2]])
"""Tissue in colours that neither haematoxylin nor eosin has."""


@pytest.fixture(scope="module")
def stained_bundle(bundle, tmp_path_factory):
    """The small student, with a reference to normalise towards; its name is not its
    folder's, as for bundles of strangers."""
    folder = tmp_path_factory.mktemp("bundles") / "stained"
    shutil.copytree(bundle, folder)
    restate(folder, load_spec(folder).model_copy(update={"stain": STAIN}))
    return folder


@pytest.fixture(scope="module")
def he_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("slides") / "he.ome.tif"
    image = np.tile(painted(), (4, 5, 1))
    return write_pyramid(path, image, mpp=0.5, compression="zlib")


def test_normalised_and_bare_embeddings_never_meet(
    run, he_file, stained_bundle, tmp_path
):
    options = ("embed", he_file, "-o", tmp_path, "--student", stained_bundle, "--json")
    first = run(*options, "--stain-normalise")
    assert first.code == 0, first.err
    assert first.json["stain_normalised"] is True
    store = first.json["slides"][0]["store"]
    with EmbeddingStore.open(store) as made:
        normalised = made.read()
    again = run(*options, "--stain-normalise")
    assert again.code == 0
    assert "were there" in again.err, "the same slide and student continue"
    bare = run(*options)
    assert bare.code == 2
    assert "'tiny, stain normalised' instead of 'tiny'" in bare.err
    assert run(*options, "--restart").code == 0
    with EmbeddingStore.open(store) as made:
        assert not np.allclose(made.read(), normalised, equal_nan=True)


def test_a_normalised_map_is_classified_and_exported(
    run, he_file, stained_bundle, tmp_path
):
    out = run(
        *("classify", he_file, "-o", tmp_path, "--student", stained_bundle),
        *("--stain-normalise", "--json"),
    )
    assert out.code == 0, out.err
    assert out.json["stain_normalised"] is True
    assert out.json["student_digest"] == load_spec(stained_bundle).digest
    exported = run(
        *("export", out.json["outputs"]["store"], "--to", "geojson"),
        *("-o", tmp_path / "again.geojson", "--student", stained_bundle, "--json"),
    )
    assert exported.code == 0, exported.err
    assert exported.json["classes"] == out.json["classes"]


def test_a_student_without_a_reference_is_refused(run, he_file, bundle, tmp_path):
    out = run(
        *("embed", he_file, "-o", tmp_path, "--student", bundle, "--stain-normalise")
    )
    assert out.code == 2
    assert "does not say how its training tiles were stained" in out.err
    assert not list(tmp_path.iterdir())


def test_a_slide_that_is_not_h_and_e_is_refused(run, stained_bundle, tmp_path):
    green = write_pyramid(tmp_path / "green.ome.tif", GREEN, mpp=0.5)
    out = run(
        *("classify", green, "-o", tmp_path / "out"),
        *("--student", stained_bundle, "--stain-normalise"),
    )
    assert out.code == 2
    assert "the stain cannot be normalised" in out.err
    assert not (tmp_path / "out").exists()
