"""Bundles: what is saved is what is loaded, and every damage is refused."""

from __future__ import annotations

import json
import os
import pickle
import stat
import sys

import numpy as np
import pytest
import timm
import torch
from safetensors.numpy import load_file, save

from napari_histodistill.errors import BundleError, InputError
from napari_histodistill.students.bundle import load_spec, load_student, save_student
from napari_histodistill.students.head import Head
from napari_histodistill.students.spec import ClassSpec, StudentSpec, WeightsSpec

DIM = timm.create_model("test_efficientnet", num_classes=0).num_features
CLASSES = (("stroma", "#e69f00"), ("gland", "#56b4e9"))


def tiny_spec(**changes) -> StudentSpec:
    values = {
        "name": "tiny",
        "title": "A test's student",
        "backbone": "test_efficientnet",
        "tile_px": 64,
        "mpp": 1.0,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "token_stride_px": 32,
        "embedding_dim": DIM,
        "classes": tuple(ClassSpec(name=n, color=c) for n, c in CLASSES),
        "weights": WeightsSpec(source="bundle"),
        "licence": "BSD-3-Clause",
    }
    return StudentSpec(**(values | changes))


def tiny_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return timm.create_model("test_efficientnet", num_classes=0).state_dict()


@pytest.fixture
def bundle(tmp_path, rng):
    head = Head(
        rng.normal(size=(2, DIM)).astype(np.float32), np.zeros(2, np.float32), 1.5
    )
    return save_student(
        tmp_path / "tiny", tiny_spec(), head=head, encoder_state=tiny_state()
    )


def edit_spec(bundle, *, resign: bool = True, **changes):
    """Change the spec; by default with a digest that fits again."""
    path = bundle / "spec.json"
    content = json.loads(path.read_text()) | changes
    if resign:
        content["digest"] = StudentSpec(**content).computed_digest()
    path.write_text(json.dumps(content))


def swap_tensors(bundle, content: bytes):
    """Put other tensors in, with checksums that fit again."""
    import hashlib

    (bundle / "student.safetensors").write_bytes(content)
    edit_spec(bundle, tensors_sha256=hashlib.sha256(content).hexdigest())


def test_round_trip(bundle, rng):
    student = load_student(bundle, device="cpu", precision="float32")
    assert student.spec.temperature == student.head.temperature == 1.5
    assert student.digest == student.spec.digest == load_spec(bundle).digest
    assert len(student.digest) == 64
    tiles = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    module = timm.create_model("test_efficientnet", num_classes=0).eval()
    module.load_state_dict(tiny_state())
    x = torch.from_numpy(tiles / 127.5 - 1).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        expected = module(x).numpy()
    np.testing.assert_allclose(student.embed(tiles), expected, rtol=1e-3, atol=1e-4)
    assert student.classify(student.embed(tiles)).shape == (2, 2)
    assert (bundle / "README.md").read_text().startswith("# A test's student")


def test_saving_twice_gives_the_same_identity(bundle, tmp_path):
    head = load_student(bundle, device="cpu").head
    again = save_student(
        tmp_path / "again", tiny_spec(), head=head, encoder_state=tiny_state()
    )
    assert load_spec(again).digest == load_spec(bundle).digest
    other = save_student(
        tmp_path / "other", tiny_spec(mpp=0.5), head=head, encoder_state=tiny_state()
    )
    assert load_spec(other).digest != load_spec(bundle).digest


def test_a_bundle_is_replaced_whole_and_nothing_is_left_beside(bundle):
    save_student(bundle, tiny_spec(classes=()), encoder_state=tiny_state())
    assert load_student(bundle, device="cpu").head is None
    assert [p.name for p in bundle.parent.iterdir()] == ["tiny"]


def test_a_failed_save_leaves_the_old_bundle(bundle, monkeypatch):
    before = load_spec(bundle).digest

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("napari_histodistill.students.bundle.write_card", fail)
    with pytest.raises(InputError, match="disk full"):
        save_student(bundle, tiny_spec(classes=()), encoder_state=tiny_state())
    assert load_spec(bundle).digest == before
    assert [p.name for p in bundle.parent.iterdir()] == ["tiny"]


def test_a_folder_of_something_else_is_not_overwritten(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="exists and is not a student"):
        save_student(tmp_path, tiny_spec(classes=()), encoder_state=tiny_state())
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_a_place_that_cannot_hold_a_bundle_is_named(tmp_path):
    (tmp_path / "a-file").write_text("words")
    with pytest.raises(InputError, match=r"a-file.mine cannot be written"):
        save_student(
            tmp_path / "a-file" / "mine",
            tiny_spec(classes=()),
            encoder_state=tiny_state(),
        )
    assert (tmp_path / "a-file").read_text() == "words"


def test_parts_that_do_not_belong_together_are_not_saved(tmp_path):
    with pytest.raises(InputError, match="classes and head must come together"):
        save_student(tmp_path / "a", tiny_spec(), encoder_state=tiny_state())
    head = Head(np.zeros((3, DIM), np.float32), np.zeros(3, np.float32))
    with pytest.raises(InputError, match=r"the head is \(3, "):
        save_student(tmp_path / "b", tiny_spec(), head=head)
    with pytest.raises(InputError, match="encoder_state is needed"):
        save_student(tmp_path / "c", tiny_spec(classes=()))


@pytest.mark.parametrize("place", [0.0, 0.01, 0.5, 0.999])
def test_any_changed_byte_of_the_tensors_is_refused(bundle, place):
    path = bundle / "student.safetensors"
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match="changed or damaged"):
        load_student(bundle)


def test_a_cut_file_is_refused(bundle):
    path = bundle / "student.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match="changed or damaged"):
        load_student(bundle)


@pytest.mark.parametrize(("field", "value"), [("mpp", 0.25), ("title", "Better")])
def test_a_changed_spec_is_refused(bundle, field, value):
    edit_spec(bundle, resign=False, **{field: value})
    with pytest.raises(BundleError, match="digest does not match"):
        load_spec(bundle)


def test_a_pickle_in_disguise_is_never_opened(bundle):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was opened",))

    swap_tensors(bundle, pickle.dumps(Bomb()))
    with pytest.raises(BundleError, match="is a pickle or a zip archive"):
        load_student(bundle)


def test_noise_is_not_safetensors(bundle):
    swap_tensors(bundle, b"\x10\0\0\0\0\0\0\0not json at all!")
    with pytest.raises(BundleError, match="not a safetensors file"):
        load_student(bundle)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"head.bias": None}, "tensor head.bias is missing"),
        ({"extra": np.zeros(2, np.float32)}, "tensor extra is not one"),
        ({"head.bias": np.zeros(3, np.float32)}, r"head.bias is \(3,\)"),
        ({"head.bias": np.zeros(2, np.complex64)}, "complex64"),
        ({"head.bias": np.array([0, np.nan], np.float32)}, "not finite"),
        ({"encoder.conv_stem.weight": None}, "do not fit the backbone"),
        ({"encoder.more": np.zeros(2, np.float32)}, "do not fit the backbone"),
        (
            {"encoder.conv_stem.weight": np.zeros((1, 3, 3, 3), np.float32)},
            "do not fit the backbone",
        ),
    ],
)
def test_wrong_tensors_are_refused_by_name(bundle, change, words):
    tensors = load_file(bundle / "student.safetensors") | change
    swap_tensors(bundle, save({k: v for k, v in tensors.items() if v is not None}))
    with pytest.raises(BundleError, match=words):
        load_student(bundle)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format_version": 2}, "made by a newer version .format 2"),
        ({"format_version": "1"}, "format_version must be a whole number"),
        ({"tile_px": 0}, "tile_px"),
        ({"std": [0, 1, 1]}, "std must be positive"),
        ({"surprise": 1}, "surprise: there is no such field"),
        (
            {"tile_pxx": 28, "tile_px": 0},
            r"tile_pxx: there is no such field; did you mean 'tile_px'\?",
        ),
        ({"backbone": "hf-hub:evil/model"}, "backbone"),
        ({"backbone": "../model"}, "backbone"),
        ({"mean": [0.5]}, "mean"),
        ({"weights": {"source": "package"}}, "weights"),
        ({"classes": [{"name": "a", "color": "red"}]}, r"classes\.0\.color"),
    ],
)
def test_a_bad_spec_is_refused_by_field(bundle, changes, words):
    edit_spec(bundle, resign=False, **changes)
    with pytest.raises(BundleError, match=words):
        load_spec(bundle)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backbone": "no_such_net"}, "not a model of the installed timm"),
        ({"token_stride_px": 16}, "token_stride_px is 16"),
        (
            {"weights": {"source": "package", "package": "evil", "sha256": "0" * 64}},
            "not one a student of this kind has",
        ),
    ],
)
def test_promises_that_the_encoder_does_not_keep(bundle, changes, words):
    edit_spec(bundle, **changes)
    with pytest.raises(BundleError, match=words):
        load_student(bundle, device="cpu")


def test_an_embedding_width_that_is_not_true(tmp_path):
    spec = tiny_spec(classes=(), embedding_dim=DIM + 1)
    folder = save_student(tmp_path / "wide", spec, encoder_state=tiny_state())
    with pytest.raises(BundleError, match=f"embedding_dim is {DIM + 1}"):
        load_student(folder, device="cpu")


def test_links_out_of_the_bundle_are_refused(bundle, tmp_path):
    path = bundle / "student.safetensors"
    outside = path.rename(tmp_path / "elsewhere.safetensors")
    path.symlink_to(outside)
    with pytest.raises(BundleError, match="leads out of the bundle"):
        load_student(bundle)


def test_things_that_are_not_there(bundle, tmp_path):
    with pytest.raises(BundleError, match="there is no student 'nobody'"):
        load_student("nobody")
    with pytest.raises(BundleError, match=r"has no spec\.json"):
        load_student(tmp_path)
    (bundle / "student.safetensors").unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        load_student(bundle)
    (bundle / "spec.json").write_text("{")
    with pytest.raises(BundleError, match="cannot be read as JSON"):
        load_student(bundle)


def test_a_huge_spec_is_not_read(bundle):
    (bundle / "spec.json").write_text(" " * (2**20 + 1))
    with pytest.raises(BundleError, match="larger than"):
        load_spec(bundle)


def test_a_head_that_is_missing_altogether(bundle):
    edit_spec(bundle, tensors_sha256="")
    with pytest.raises(BundleError, match="tensors_sha256 is missing"):
        load_student(bundle)


def test_nothing_but_a_student_is_deleted_by_saving_over_one(bundle):
    (bundle / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt"):
        save_student(bundle, tiny_spec(classes=()), encoder_state=tiny_state())
    assert (bundle / "notes.txt").read_text() == "mine"


@pytest.mark.skipif(sys.platform == "win32", reason="modes of POSIX")
def test_a_saved_student_is_as_readable_as_any_other_folder(tmp_path):
    before = os.umask(0o027)
    try:
        folder = save_student(
            tmp_path / "new", tiny_spec(classes=()), encoder_state=tiny_state()
        )
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750


def test_a_student_put_aside_by_a_killed_process_is_found(bundle):
    bundle.rename(bundle.with_name(f".{bundle.name}.0a1b2c3d.old"))
    assert load_spec(bundle).name == "tiny"
