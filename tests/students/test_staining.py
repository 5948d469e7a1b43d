"""A student that sees a slide through a stain map is another student."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from napari_histodistill.errors import BundleError, InputError
from napari_histodistill.geometry import Mpp
from napari_histodistill.slides import slide_from_arrays
from napari_histodistill.slides.tissue.stain import StainMap, fit_stains
from napari_histodistill.students.bundle import load_spec, load_student, restate
from napari_histodistill.students.bundled import find_bundled
from napari_histodistill.students.spec import StainSpec, StudentSpec
from napari_histodistill.students.staining import (
    reference_of,
    seen_through,
    stain_map_for,
    why_not_normalise,
)
from tests.fakes import colour_student
from tests.slides.tissue.test_stain import HE, painted

STAIN = StainSpec(
    haematoxylin=(0.65, 0.70, 0.29),
    eosin=(0.07, 0.99, 0.11),
    strengths=(1.2, 0.8),
    glass=(250, 250, 250),
    protocol="a test",
)


def with_stain(student, stain=STAIN):
    student.spec = student.spec.model_copy(update={"stain": stain})
    return student


def slide(seed=0):
    pixels = np.tile(painted(seed=seed), (4, 4, 1))
    return slide_from_arrays([pixels], name="he", mpp=Mpp(0.5, 0.5, "a test"))


def test_the_map_goes_before_the_encoder_and_into_the_digest():
    student = with_stain(colour_student())
    stains = stain_map_for(slide(), student)
    seen = seen_through(student, stains)
    tiles = painted(side=64).reshape(4, 32, 32, 3)
    assert np.allclose(seen.embed(tiles), student.embed(stains.apply(tiles)))
    assert np.allclose(seen.tokens(tiles), student.tokens(stains.apply(tiles)))
    assert seen.digest != student.digest
    again = seen_through(student, stain_map_for(slide(), student))
    assert again.digest == seen.digest, "the same slide continues its store"
    assert seen.head is student.head


def test_a_student_is_not_normalised_twice():
    student = with_stain(colour_student())
    seen = seen_through(student, StainMap.between(HE, HE))
    with pytest.raises(InputError, match="already"):
        seen_through(seen, StainMap.between(HE, HE))


def test_a_bundle_that_is_silent_offers_nothing():
    student = colour_student()
    assert "does not say how its training tiles were stained" in why_not_normalise(
        student.spec
    )
    with pytest.raises(InputError, match="nothing to normalise towards"):
        stain_map_for(slide(), student)
    assert not why_not_normalise(with_stain(student).spec)


def test_the_torch_backend_does_the_same_on_its_device():
    torch = pytest.importorskip("torch")
    student = load_student("imagenet-lite0", device="cpu", precision="float32")
    stains = StainMap.between(fit_stains(painted()), HE)
    tiles = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    on_device = student.backend.seen_through(stains)
    mean, std = (np.array(v, np.float32) for v in (student.spec.mean, student.spec.std))
    raw = torch.from_numpy(tiles)
    pixels = on_device._normalised(raw).permute(0, 2, 3, 1).numpy() * std + mean
    assert np.abs(pixels * 255 - stains.apply(tiles)).max() < 0.6, "only not rounded"
    assert student.backend._stains is None, "the bare student stays bare"


def test_the_reference_is_the_median_of_cases():
    odd = np.full((120, 120, 3), (40, 200, 40), np.uint8)
    tiles = np.stack([painted(seed=k) for k in range(4)] + [odd])
    found = reference_of(tiles, np.array(["a", "b", "c", "d", "odd"]))
    assert np.allclose(found.haematoxylin, HE.haematoxylin, atol=0.12)
    assert np.allclose(found.glass, HE.glass, atol=2)
    assert "4 that look like H&E" in found.protocol


def test_tiles_that_are_not_h_and_e_give_no_reference():
    grey = np.full((3, 64, 64, 3), 128, np.uint8)
    assert reference_of(grey, np.array(["a", "b", "c"])) is None


@pytest.mark.parametrize(
    "change",
    [
        {"haematoxylin": (1.0, 1.0, 1.0)},
        {"eosin": (float("nan"), 0.0, 1.0)},
        {"eosin": STAIN.haematoxylin},
        {"strengths": (0.0, 1.0)},
        {"strengths": (float("inf"), 1.0)},
        {"glass": (0, 250, 250)},
        {"glass": (300, 250, 250)},
    ],
)
def test_an_absurd_reference_is_refused(change):
    with pytest.raises(ValidationError):
        StainSpec(**{**STAIN.model_dump(), **change})


def test_old_bundles_keep_their_digest_and_a_changed_reference_is_noticed(tmp_path):
    spec = load_spec("imagenet-lite0")
    assert spec.stain is None
    content = spec.model_dump(mode="json")
    del content["stain"]
    old = StudentSpec.model_validate(content)
    assert old.computed_digest() == spec.digest
    assert spec.model_copy(update={"stain": STAIN}).computed_digest() != spec.digest


def test_a_reference_is_added_to_a_bundle_and_guarded(tmp_path):
    import shutil

    folder = tmp_path / "student"
    shutil.copytree(find_bundled("imagenet-lite0"), folder)
    restate(folder, load_spec(folder).model_copy(update={"stain": STAIN}))
    assert load_spec(folder).stain == STAIN
    assert "Stain of the training tiles" in (folder / "README.md").read_text("utf-8")
    text = (folder / "spec.json").read_text("utf-8")
    (folder / "spec.json").write_text(text.replace("1.2", "1.3"), "utf-8")
    with pytest.raises(BundleError, match="digest does not match"):
        load_spec(folder)


def test_the_bundled_colon_student_has_a_reference():
    stain = load_spec("colon-he").stain
    assert stain is not None
    assert "training cases" in stain.protocol
