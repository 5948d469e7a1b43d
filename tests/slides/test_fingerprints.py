"""Fingerprints: what they tell apart, and how little of a slide they read."""

from __future__ import annotations

import hashlib
import tracemalloc

import psutil
import pytest

from napari_histodistill.slides import open_slide
from napari_histodistill.slides.codecs.filebytes import BLOCK, digest_path
from tests.slides.formats import made_mrxs

LARGE = 2**28
"""Bytes of a file with a hole in it: it takes no room on the disk."""


def lengthened(path, size=LARGE):
    with path.open("r+b" if path.exists() else "wb") as file:
        file.truncate(size)


def bytes_read():
    """Return how many bytes this process has read so far, from wherever."""
    counters = psutil.Process().io_counters()
    return getattr(counters, "read_chars", counters.read_bytes)


def test_a_folder_is_not_read_to_its_end(tmp_path):
    lengthened(tmp_path / "Data0000.dat")
    (tmp_path / "Index.dat").write_bytes(b"index")
    tracemalloc.start()
    try:
        digest = digest_path(tmp_path)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2**22
    # The same as before, so that stores of earlier versions are found again.
    expected = hashlib.sha256(f"Data0000.dat\0{LARGE}\nIndex.dat\x005\n".encode())
    for head in (b"\0" * BLOCK, b"index"):
        expected.update(hashlib.sha256(head).digest())
    assert digest == expected.hexdigest()


@pytest.mark.skipif(
    not hasattr(psutil.Process, "io_counters"), reason="macOS does not count"
)
def test_opening_an_mrxs_reads_no_more_than_a_part_of_it(tmp_path):
    pytest.importorskip("openslide")
    made = made_mrxs.make_edge_to_edge(tmp_path)
    (data,) = made.path.with_suffix("").glob("Data*.dat")
    lengthened(data)
    before = bytes_read()
    with open_slide(made.path) as slide:
        assert slide.info.digest
    assert bytes_read() - before < 2**25


def test_many_small_files_are_sampled(tmp_path):
    for k in range(400):
        (tmp_path / f"{k:03}").write_bytes(bytes([k % 251]))
    whole = digest_path(tmp_path)
    (tmp_path / "000").write_bytes(b"x")  # the first is always among the samples
    assert digest_path(tmp_path) != whole
