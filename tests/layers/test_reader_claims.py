"""What File › Open offers us, and what we leave to others."""

from __future__ import annotations

import builtins
from pathlib import Path

import dask.array as da
import numpy as np
import pytest

from napari_histodistill.errors import InputError, SlideError
from napari_histodistill.layers.reader import get_reader
from napari_histodistill.layers.slide_layer import slide_of
from napari_histodistill.slides.tissue.writing import write_pyramid
from tests.fakes import tissue_image
from tests.slides.formats.test_omezarr import write

OURS = (
    "a.svs", "A.SVS", "a.tif", "a.ome.tiff", "a.ndpi", "a.mrxs", "a.qptiff",
    "a.ome.zarr", "a.zarr/", "with space é.tif", "a.zarr.zip",
    "https://host/a.zarr", "https://host/a.zarr?sig=1", "https://host/a.zarr#1",
)  # fmt: skip
FOREIGN = (
    "a.png", "a.csv", "a.npy", "a", "", "tif", "a.tif.txt", "a.zip",
    "https://example.org/a.jpg", "a.svs.bak", "\0.png", "x" * 5000,
)  # fmt: skip


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("kind", [str, Path])
def test_slides_are_ours(name, kind):
    assert callable(get_reader(kind(name)))


@pytest.mark.parametrize("name", FOREIGN)
def test_other_files_are_left_to_others(name):
    assert get_reader(name) is None


def test_lists_are_ours_only_if_every_file_is():
    assert callable(get_reader(["a.svs", Path("b.tif")]))
    assert get_reader(["a.svs", "b.png"]) is None
    assert get_reader([]) is None


def test_folders_of_other_things_are_left_to_others(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.png").touch()
    assert get_reader(str(photos)) is None
    assert get_reader(str(tmp_path)) is None, "two levels down"
    (photos / "a.tif").touch()
    assert get_reader([str(photos), str(photos / "a.tif")]) is None


def test_a_folder_that_holds_one_slide_is_that_slide(tmp_path):
    (tmp_path / "case").mkdir()
    write_pyramid(tmp_path / "case" / "a.tif", tissue_image(64, 64), mpp=1.0)
    (tmp_path / "case" / "notes.txt").touch()
    folder = str(tmp_path / "case")
    ((_, kwargs, _),) = get_reader(folder)(folder)
    assert kwargs["name"] == "a.tif"
    slide_of(kwargs["metadata"]).close()


def test_a_folder_of_slides_is_refused_with_what_opens_it(tmp_path):
    for name in ("a.svs", "b.svs"):
        (tmp_path / name).touch()
    read = get_reader(str(tmp_path))
    with pytest.raises(InputError, match=r"holds 2 slides: open it by Folder… in"):
        read(str(tmp_path))


def test_an_ome_zarr_by_any_name_is_ours(tmp_path):
    image = tissue_image(64, 64).transpose(2, 0, 1)
    write(str(tmp_path / "image"), [image], zarr_format=2)
    ((_, kwargs, _),) = get_reader(tmp_path / "image")(tmp_path / "image")
    assert kwargs["scale"] == pytest.approx((0.5, 0.5))
    slide_of(kwargs["metadata"]).close()


def test_the_answer_opens_no_file(tmp_path, monkeypatch):
    path = tmp_path / "a.svs"
    path.write_bytes(b"not a slide at all")

    def refuse(*args, **kwargs):
        raise AssertionError(f"opened {args[0]}")

    with monkeypatch.context() as patched:
        patched.setattr(builtins, "open", refuse)
        patched.setattr(Path, "open", refuse)
        patched.setattr(Path, "read_bytes", refuse)
        assert callable(get_reader(str(path)))


def test_files_arrive_as_lazy_layers_in_order(tmp_path):
    image = tissue_image(300, 400)
    paths = [
        write_pyramid(tmp_path / name, image, mpp=0.5, compression="zlib")
        for name in ("b.ome.tif", "a.ome.tif")
    ]
    read = get_reader(paths)
    layers = read(paths)
    assert [slide_of(kwargs["metadata"]).path.name for _, kwargs, _ in layers] == [
        "b.ome.tif",
        "a.ome.tif",
    ]
    for levels, kwargs, kind in layers:
        assert kind == "image"
        assert all(isinstance(level, da.Array) for level in levels)
        assert kwargs["scale"] == pytest.approx((0.5, 0.5))
        assert np.array_equal(levels[0].compute(), image)
        slide_of(kwargs["metadata"]).close()


def test_one_path_is_one_layer(tmp_path):
    path = write_pyramid(tmp_path / "a.tif", tissue_image(64, 64), mpp=1.0)
    ((_, kwargs, _),) = get_reader(str(path))(str(path))
    slide_of(kwargs["metadata"]).close()


@pytest.mark.parametrize("name", ["a.svs", "a.tif", "gone.ndpi", "empty.zarr"])
def test_what_turns_out_to_be_no_slide_is_said_with_its_name(tmp_path, name):
    path = tmp_path / name
    if name == "empty.zarr":
        path.mkdir()
    elif not name.startswith("gone"):
        path.write_bytes(b"not a slide at all")
    with pytest.raises(SlideError, match=name.replace(".", r"\.")):
        get_reader(str(path))(str(path))
