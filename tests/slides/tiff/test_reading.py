"""How the TIFF reader works: once per tile, from many threads, loud when damaged."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
import pytest
import tifffile

from napari_histodistill.errors import SlideError
from napari_histodistill.slides import open_slide
from napari_histodistill.slides.codecs import decoding
from napari_histodistill.slides.codecs.decoding import SegmentCache, for_each
from tests.slides.factory import count_decodes, picture, write_tiff


def test_each_segment_is_decoded_once_per_read(tmp_path, monkeypatch):
    made = write_tiff(tmp_path / "slide.tif", ratios=(1,))
    with open_slide(made.path) as slide:
        seen = count_decodes(monkeypatch)
        slide.read_pixels(0, 10, 10, 250, 400)
        # 5 × 7 tiles of 64 px meet the window; opening had looked at the first.
        assert len(seen) == 5 * 7 - 1
        assert set(seen.values()) == {1}


def test_neighbouring_windows_share_decoded_segments(tmp_path, monkeypatch):
    made = write_tiff(tmp_path / "slide.tif", ratios=(1,))
    with open_slide(made.path) as slide:
        seen = count_decodes(monkeypatch)
        for x in range(0, 400, 16):
            slide.read_pixels(0, 10, x, 40, 40)
        assert set(seen.values()) == {1}


def test_many_threads_read_the_same_pixels(tmp_path):
    image = picture(700, 900)
    made = write_tiff(tmp_path / "slide.tif", image=image, ratios=(1, 2.5))
    rng = np.random.default_rng(4)
    windows = [
        (int(rng.integers(0, 500)), int(rng.integers(0, 700)), 200, 200)
        for _ in range(200)
    ]
    with open_slide(made.path) as slide, ThreadPoolExecutor(16) as pool:
        reads = pool.map(lambda w: slide.read_pixels(0, *w), windows)
        for (y, x, h, w), pixels in zip(windows, reads, strict=True):
            np.testing.assert_array_equal(pixels, image[y : y + h, x : x + w])


def test_huge_slide_opens_at_once_and_reads_only_what_it_needs(tmp_path, monkeypatch):
    edge, tile = 100_000, 512
    blank = np.full((tile, tile, 3), 200, np.uint8)
    marked = blank.copy()
    marked[5, 7] = (1, 2, 3)
    blank, marked = map(imagecodecs.zstd_encode, (blank, marked))
    across = -(-edge // tile)
    path = tmp_path / "huge.tif"
    tifffile.imwrite(
        path,
        (marked if k == 100 * across + 50 else blank for k in range(across**2)),
        shape=(edge, edge, 3),
        dtype=np.uint8,
        photometric="rgb",
        tile=(tile, tile),
        compression="zstd",
        bigtiff=True,
        metadata=None,
    )
    seen = count_decodes(monkeypatch)
    start = time.perf_counter()
    with open_slide(path) as slide:
        window = slide.read_pixels(0, 100 * tile, 50 * tile, 300, 300)
        elapsed = time.perf_counter() - start
        assert tuple(window[5, 7]) == (1, 2, 3)
        slide.read_pixels(0, 99 * tile + 500, 60 * tile + 500, 100, 100)
        # One at opening, one in the first window, four at the corner of four tiles.
        assert sum(seen.values()) == 1 + 1 + 4
        assert slide.downsamples[-1] > 97
        assert slide.levels[0].shape == (edge, edge, 3)
    # 38,416 offsets are parsed; a full decode would take minutes.
    assert elapsed < 5


@pytest.mark.parametrize("keep", [0.3, 0.8, 0.99])
def test_truncated_files_say_so(tmp_path, keep):
    made = write_tiff(tmp_path / "slide.tif", ratios=(1,), compression=None)
    data = made.path.read_bytes()
    made.path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(SlideError, match=r"slide\.tif.*(truncated|damaged)"):  # noqa: SIM117
        with open_slide(made.path) as slide:
            slide.read_pixels(0, 0, 0, *slide.shape)


@pytest.mark.parametrize("compression", ["zlib", "lzw", "zstd", "jpeg"])
def test_a_damaged_tile_is_named_and_the_others_are_read(tmp_path, compression):
    made = write_tiff(tmp_path / "slide.tif", ratios=(1,), compression=compression)
    with tifffile.TiffFile(made.path) as tif:
        page = tif.pages[0]
        good = page.asarray()
        offset, count = page.dataoffsets[9], page.databytecounts[9]
    data = bytearray(made.path.read_bytes())
    # The first bytes stay: damage in the middle is harder to notice.
    data[offset + 20 : offset + count] = bytes(
        np.random.default_rng(0).integers(0, 256, count - 20, dtype=np.uint8)
    )
    if compression == "jpeg":  # entropy-coded noise decodes to noise; spoil a header
        data[offset + 2 : offset + 20] = b"\x00" * 18
    made.path.write_bytes(bytes(data))
    with open_slide(made.path) as slide:
        # 8 tiles in a row: the tenth is in row 1, column 1.
        with pytest.raises(SlideError, match="page 0: the tile in row 1, column 1 is"):
            slide.read_pixels(0, 0, 0, *slide.shape)
        rest = slide.read_pixels(0, 128, 0, 100, 457)
        np.testing.assert_array_equal(rest, good[128:228])


def test_a_jpeg_tile_cut_short_is_not_silently_grey(tmp_path):
    made = write_tiff(tmp_path / "slide.tif", ratios=(1,), compression="jpeg")
    with tifffile.TiffFile(made.path) as tif:
        tag = tif.pages[0].tags["TileByteCounts"]
        counts = list(tag.value)
    counts[9] //= 3
    with tifffile.TiffFile(made.path, mode="r+b") as tif:
        tif.pages[0].tags["TileByteCounts"].overwrite(counts)
    with (
        open_slide(made.path) as slide,
        pytest.raises(SlideError, match="row 1, column 1"),
    ):
        slide.read_pixels(0, 0, 0, *slide.shape)


def test_a_closed_slide_says_so(tmp_path):
    made = write_tiff(tmp_path / "slide.tif", ratios=(1,))
    slide = open_slide(made.path)
    slide.close()
    slide.close()
    with pytest.raises(SlideError, match="was closed; open it again"):
        slide.read_pixels(0, 0, 0, 100, 100)


def test_digest_follows_content_not_name(tmp_path):
    a = write_tiff(tmp_path / "a.tif").path
    b = tmp_path / "b.tif"
    b.write_bytes(a.read_bytes())
    c = write_tiff(tmp_path / "c.tif", image=picture(301, 457, seed=2)).path
    digests = []
    for path in (a, b, c):
        with open_slide(path) as slide:
            digests.append(slide.info.digest)
    assert digests[0] == digests[1] != digests[2]


def test_the_cache_is_bounded_but_keeps_the_latest():
    cache = SegmentCache(max_bytes=100)

    def touch(key, size):
        with cache.using(key, lambda _: np.zeros((size, 1, 1), np.uint8)):
            pass

    for k in range(5):
        touch(k, 40)
    assert [k for k in range(5) if k in cache] == [3, 4]
    touch("big", 1000)
    assert "big" in cache
    assert 4 not in cache


def test_a_lent_segment_outlives_being_pushed_out():
    cache = SegmentCache(max_bytes=100)

    def filled(value):
        def decode(out):
            out[:] = value
            return out

        return decode

    with cache.using("held", filled(7), (8, 8, 1)) as held:
        for k in range(20):
            with cache.using(k, filled(k + 10), (8, 8, 1)) as other:
                assert (other == k + 10).all()
        assert "held" not in cache
        assert (held == 7).all()


def test_a_failed_decode_is_not_remembered():
    cache = SegmentCache()

    def fail(out):
        msg = "no"
        raise ValueError(msg)

    with pytest.raises(ValueError, match="no"), cache.using("a", fail, (8, 8, 1)):
        pass
    assert "a" not in cache


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_for_each_raises_after_what_was_begun_has_ended(threads, monkeypatch):
    monkeypatch.setattr(decoding, "cores", lambda: threads)
    begun, ended = set(), set()

    def work(k):
        begun.add(k)
        if k == 3:
            msg = "fourth"
            raise ValueError(msg)
        time.sleep(0.005)
        ended.add(k)

    with (
        decoding.decoding_threads(threads),
        pytest.raises(ValueError, match="fourth"),
    ):
        for_each(work, range(200))
    assert ended == begun - {3}
    assert len(begun) < 50


def test_for_each_does_everything_once_beside_other_callers():
    seen = Counter()

    def read(caller):
        for_each(lambda k: seen.update([(caller, k)]), range(50))

    with ThreadPoolExecutor(8) as callers:
        list(callers.map(read, range(8)))
    assert len(seen) == 8 * 50
    assert set(seen.values()) == {1}


def test_for_each_gives_what_is_quick_to_no_other_thread(monkeypatch):
    monkeypatch.setattr(decoding, "cores", lambda: 4)
    done, mine = {}, threading.get_ident()

    def work(k):
        done[k] = threading.get_ident()
        time.sleep(0.001)

    with decoding.decoding_threads(4):
        for_each(work, range(40), is_quick=lambda k: k % 2 == 1)
    assert done.keys() == set(range(40))
    assert {done[k] for k in range(1, 40, 2)} == {mine}


def test_decoded_tiles_are_copied_without_waking_another_thread(tmp_path, monkeypatch):
    image = picture(700, 900)
    made = write_tiff(tmp_path / "slide.tif", image=image, ratios=(1,))
    with open_slide(made.path) as slide, decoding.decoding_threads(2):
        slide.read_pixels(0, 10, 10, 250, 400)
        monkeypatch.setattr(decoding._POOL, "get", _no_pool)
        pixels = slide.read_pixels(0, 11, 11, 240, 390)
    np.testing.assert_array_equal(pixels, image[11:251, 11:401])


def test_callers_that_fill_the_cores_have_no_helpers(monkeypatch):
    monkeypatch.setattr(decoding, "cores", lambda: 2)
    monkeypatch.setattr(decoding._POOL, "get", _no_pool)
    both = threading.Barrier(2)

    def work(k):
        if k == 0:
            both.wait(10)

    with (
        decoding.decoding_threads(2),
        decoding._POOL.caller(0),  # a third: neither of the two is ever alone
        ThreadPoolExecutor(2) as callers,
    ):
        list(callers.map(lambda _: for_each(work, range(20)), range(2)))


def _no_pool():
    msg = "a thread was asked to help"
    raise AssertionError(msg)
