"""Which slides a folder holds."""

from __future__ import annotations

import json
import os

import pytest

from napari_histodistill.errors import InputError
from napari_histodistill.layers import worklist
from napari_histodistill.layers.worklist import slides_in
from tests.maps.helpers import new_store


def _touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def _named(folder):
    return [p.relative_to(folder).as_posix() for p in slides_in(folder)]


def _zarr(path, attributes):
    path.mkdir(parents=True)
    (path / ".zattrs").write_text(json.dumps(attributes))
    (path / ".zgroup").write_text("{}")


def test_slides_are_listed_as_people_count_and_nothing_else_is(tmp_path):
    _touch(
        tmp_path, "s10.svs", "s9.SVS", "S1.ndpi", "notes.txt", "b.png", ".s2.svs",
        "._s9.svs", "a.zarr.zip",
    )  # fmt: skip
    assert _named(tmp_path) == ["a.zarr.zip", "S1.ndpi", "s9.SVS", "s10.svs"]


def test_folders_in_it_are_looked_into_once_and_come_after_its_own(tmp_path):
    _touch(
        tmp_path, "z.svs", "case 10/a.svs", "case 2/a.tif", "case 2/deep/b.tif",
        ".trash/c.svs",
    )  # fmt: skip
    assert _named(tmp_path) == ["z.svs", "case 2/a.tif", "case 10/a.svs"]


def test_what_a_slide_keeps_its_data_in_is_no_slide(tmp_path):
    _touch(tmp_path, "m.mrxs", "m/Data0001.dat", "m/inside.tif", "o.zarr/0/x.tif")
    (tmp_path / "o.zarr" / ".zattrs").write_text("{}")
    _zarr(tmp_path / "store", {})
    _touch(tmp_path / "store", "x.tif")
    assert _named(tmp_path) == ["m.mrxs", "o.zarr"]


def test_our_own_maps_and_embeddings_are_no_slides(tmp_path):
    _zarr(tmp_path / "map.zarr", {"creator": "napari-histodistill"})
    _zarr(tmp_path / "embedded.zarr", {"histodistill": {"version": 1}})
    _zarr(tmp_path / "labels.zarr", {"image-label": {}})
    _zarr(tmp_path / "slide.zarr", {"multiscales": []})
    (tmp_path / "empty.zarr").mkdir()
    assert _named(tmp_path) == ["slide.zarr"]


def test_an_embedding_store_as_it_is_written_is_no_slide(tmp_path):
    new_store(tmp_path / "slide.zarr").close()
    assert slides_in(tmp_path) == ()


def test_a_broken_slide_is_in_the_list(tmp_path):
    (tmp_path / "a.svs").write_bytes(b"no slide")
    (tmp_path / "b.svs").symlink_to(tmp_path / "gone.svs")
    assert _named(tmp_path) == ["a.svs"]


def test_a_folder_that_is_too_large_or_gone_is_refused_in_a_sentence(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(worklist, "MOST_SLIDES", 2)
    _touch(tmp_path, "a.svs", "b.svs")
    assert len(slides_in(tmp_path)) == 2
    _touch(tmp_path, "c.svs")
    with pytest.raises(InputError, match="more than 2 slides; choose a folder"):
        slides_in(tmp_path)
    monkeypatch.setattr(worklist, "MOST_ENTRIES", 2)
    with pytest.raises(InputError, match="more than 2 files; choose a folder"):
        slides_in(tmp_path)
    with pytest.raises(InputError, match="gone: the folder cannot be read"):
        slides_in(tmp_path / "gone")


def test_a_folder_in_it_that_may_not_be_read_is_passed_over(tmp_path, monkeypatch):
    _touch(tmp_path, "a.svs", "closed/b.svs", "open/c.svs")

    def scandir(folder):
        if folder.name == "closed":
            raise PermissionError(13, "Permission denied")
        return as_it_was(folder)

    as_it_was = os.scandir
    with monkeypatch.context() as patched:
        patched.setattr(worklist.os, "scandir", scandir)
        assert _named(tmp_path) == ["a.svs", "open/c.svs"]


def test_the_files_of_a_dicom_slide_are_one_slide(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    def write(name, series, size):
        dataset = pydicom.Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.3"
        dataset.SOPInstanceUID = generate_uid()
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.SeriesInstanceUID = series
        dataset.ImageComments = "x" * size
        dataset.save_as(tmp_path / name, enforce_file_format=True)

    one, other = generate_uid(), generate_uid()
    write("label.dcm", one, 10)
    write("level0.dcm", one, 4000)
    write("level1.dcm", one, 100)
    write("other.dcm", other, 10)
    (tmp_path / "broken.dcm").write_bytes(b"no DICOM")
    assert _named(tmp_path) == ["broken.dcm", "level0.dcm", "other.dcm"]
