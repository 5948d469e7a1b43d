"""The store: what is written comes back, and nothing wrong ever looks done."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_histodistill.errors import ComputeError, DiskError, StoreError
from napari_histodistill.geometry import Mpp
from napari_histodistill.maps.store import (
    CellStatus,
    EmbeddingStore,
    remove_store,
    store_key,
)
from tests.maps.helpers import PROVENANCE, filled_store, new_store, small_grid


def test_blocks_come_back_and_the_rest_is_nan(tmp_path, rng):
    with new_store(tmp_path / "s") as store:
        values = rng.normal(size=(4, 4, 6)).astype(np.float16)
        status = np.ones((4, 4), np.uint8)
        status[0, 0], status[1, 1] = CellStatus.PENDING, CellStatus.UNREADABLE
        store.write_block(4, 8, values, status)
        store.want(np.ones(store.grid.shape, bool))
    with EmbeddingStore.open(tmp_path / "s") as back:
        assert back.grid == small_grid()
        assert back.provenance == PROVENANCE
        assert (back.dim, back.block) == (6, 4)
        read = back.read()
        np.testing.assert_array_equal(
            read[4:8, 8:12][status == CellStatus.DONE], values[status == 1]
        )
        assert np.isnan(read).sum() == (read.shape[0] * read.shape[1] - 14) * 6
        np.testing.assert_array_equal(back.status[4:8, 8:12], status)
        assert back.wanted.all()
        part = back.read((slice(5, 7), slice(9, 20)))
        np.testing.assert_array_equal(part, read[5:7, 9:20])


def test_want_adds_to_what_was_wanted(tmp_path):
    with new_store(tmp_path / "s") as store:
        first, second = np.zeros((2, *store.grid.shape), bool)
        first[0, 0] = second[1, 2] = True
        store.want(first)
        store.want(second)
        np.testing.assert_array_equal(store.wanted, first | second)


def test_border_blocks_are_smaller(tmp_path, rng):
    values = filled_store(tmp_path / "s", rng, height=600, width=700)
    assert values.shape[0] % 4
    assert values.shape[1] % 4
    with EmbeddingStore.open(tmp_path / "s") as back:
        np.testing.assert_array_equal(back.read(), values)


@pytest.mark.parametrize(
    ("most", "high"), [(1, 4), (2 * 4 * 25 * 6 * 2, 8), (10**9, 100)]
)
def test_slabs_cover_the_grid_in_whole_chunks(tmp_path, monkeypatch, most, high):
    monkeypatch.setattr("napari_histodistill.maps.store._SLAB_BYTES", most)
    with new_store(tmp_path / "s", height=600, width=1600) as store:
        rows, columns = store.grid.shape
        assert columns == 25
        covered = np.zeros((rows, columns), int)
        for block in store.slabs():
            assert block[0].start % store.block == 0
            assert block[0].stop - block[0].start <= high
            covered[block] += 1
    assert (covered == 1).all()


def test_a_block_of_zeros_is_really_written(tmp_path):
    with new_store(tmp_path / "s") as store:
        store.write_block(0, 0, np.zeros((4, 4, 6)), np.ones((4, 4), np.uint8))
    with EmbeddingStore.open(tmp_path / "s") as back:
        assert not back.read()[:4, :4].any()


@pytest.mark.parametrize("value", [1e6, np.nan, -np.inf])
def test_numbers_that_do_not_fit_are_refused(tmp_path, value):
    with new_store(tmp_path / "s") as store:
        values = np.zeros((4, 4, 6), np.float32)
        values[1, 2, 3] = value
        with pytest.raises(ComputeError, match="student colour gave the number"):
            store.write_block(0, 0, values, np.ones((4, 4), np.uint8))
        assert not store.status.any()


def test_blocks_off_the_lattice_are_refused(tmp_path):
    ones = np.ones((4, 4), np.uint8)
    with new_store(tmp_path / "s") as store:
        with pytest.raises(StoreError, match=r"no block starts at cell \(2, 0\)"):
            store.write_block(2, 0, np.zeros((4, 4, 6)), ones)
        with pytest.raises(StoreError, match="wrong shape"):
            store.write_block(0, 0, np.zeros((4, 4, 5)), ones)


def test_readers_do_not_write(tmp_path):
    new_store(tmp_path / "s").close()
    with (
        EmbeddingStore.open(tmp_path / "s") as back,
        pytest.raises(StoreError, match="reading only"),
    ):
        back.write_block(0, 0, np.zeros((4, 4, 6)), np.ones((4, 4), np.uint8))


def test_every_part_of_the_identity_changes_the_key():
    grid = small_grid()
    keys = {
        store_key(grid, PROVENANCE),
        *(
            store_key(grid, replace(PROVENANCE, **{name: "other"}))
            for name in (
                *("slide_digest", "student_digest", "mode", "precision"),
                *("backend", "resampling"),
            )
        ),
        *(
            store_key(replace(grid, **change), PROVENANCE)
            for change in (
                {"mpp": 1.01},
                {"stride_px": 30},
                {"slide_height": 601},
                {"slide_mpp": Mpp(0.5, 0.51, "a test")},
                {"tile_px": 34},
            )
        ),
    }
    assert len(keys) == 12


def test_names_and_the_source_of_mpp_are_not_identity():
    grid, moved = small_grid(), replace(PROVENANCE, slide_path="/b", slide_name="b")
    typed = replace(grid, slide_mpp=Mpp.given(0.5))
    assert store_key(typed, moved) == store_key(grid, PROVENANCE)
    cropped = replace(PROVENANCE, bounds_origin=(40, 100))
    assert store_key(grid, cropped) == store_key(grid, PROVENANCE)


def test_bounds_are_kept_if_there_are_any(tmp_path):
    new_store(tmp_path / "s").close()
    assert "bounds_origin" not in (tmp_path / "s" / "zarr.json").read_text()
    cropped = replace(PROVENANCE, bounds_origin=(40, 100))
    grid = small_grid()
    EmbeddingStore.create(
        tmp_path / "c", grid=grid, provenance=cropped, dim=6, block=4
    ).close()
    with EmbeddingStore.open(tmp_path / "c") as back:
        assert back.provenance == cropped


def test_where_the_slide_lies_is_kept_and_is_not_identity(tmp_path):
    new_store(tmp_path / "s").close()
    assert "origin_um" not in (tmp_path / "s" / "zarr.json").read_text()
    placed = replace(PROVENANCE, origin_um=(1000.0, -2.5))
    grid = small_grid()
    assert store_key(grid, placed) == store_key(grid, PROVENANCE)
    EmbeddingStore.create(
        tmp_path / "p", grid=grid, provenance=placed, dim=6, block=4
    ).close()
    with EmbeddingStore.open(tmp_path / "p") as back:
        assert back.provenance == placed


@pytest.mark.parametrize("place", [5, [1], ["a", "b"], [float("inf"), 0], None])
def test_a_place_that_cannot_be_is_refused(place):
    kept = PROVENANCE.to_json() | {"origin_um": place}
    with pytest.raises((TypeError, ValueError)):
        type(PROVENANCE).from_json(kept)


@pytest.mark.parametrize(
    "bounds", [5, [1], [1, -2], ["a", "b"], [1e400, 0], [2**70, 0]]
)
def test_bounds_that_cannot_be_are_damage(tmp_path, bounds):
    new_store(tmp_path / "s").close()
    path = tmp_path / "s" / "zarr.json"
    meta = json.loads(path.read_text())
    meta["attributes"]["histodistill"]["provenance"]["bounds_origin"] = bounds
    path.write_text(json.dumps(meta))
    with pytest.raises(StoreError, match="damaged"):
        EmbeddingStore.open(tmp_path / "s")


def test_two_writers_in_one_process(tmp_path):
    with (
        new_store(tmp_path / "s"),
        pytest.raises(StoreError, match="another run is writing to it"),
    ):
        EmbeddingStore.open(tmp_path / "s", writable=True)
    EmbeddingStore.open(tmp_path / "s", writable=True).close()


def test_a_writer_in_another_process_is_named_and_its_death_frees_the_store(tmp_path):
    new_store(tmp_path / "s").close()
    code = (
        "import sys; from napari_histodistill.maps.store import EmbeddingStore\n"
        "s = EmbeddingStore.open(sys.argv[1], writable=True)\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "s")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == b"held"
        with pytest.raises(StoreError, match=f"process {other.pid} on "):
            EmbeddingStore.open(tmp_path / "s", writable=True)
        EmbeddingStore.open(tmp_path / "s").close()  # looking is allowed
        other.kill()
        other.wait()
    EmbeddingStore.open(tmp_path / "s", writable=True).close()


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "thesis.docx").write_text("x")
    with pytest.raises(StoreError, match="something is there already"):
        new_store(tmp_path / "s")
    with pytest.raises(StoreError, match="not an embedding store"):
        EmbeddingStore.open(tmp_path / "s")
    with pytest.raises(StoreError, match="delete it by hand"):
        remove_store(tmp_path / "s")
    with pytest.raises(StoreError, match="there is no store"):
        EmbeddingStore.open(tmp_path / "nowhere")
    assert (tmp_path / "s" / "thesis.docx").exists()


def test_an_empty_folder_may_become_a_store(tmp_path):
    (tmp_path / "s").mkdir()
    new_store(tmp_path / "s").close()
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_remove_deletes_a_store_unless_it_is_written_or_holds_more(tmp_path):
    store = new_store(tmp_path / "s")
    with pytest.raises(StoreError, match="another run is writing"):
        remove_store(tmp_path / "s")
    store.close()
    (tmp_path / "s" / "notes.txt").write_text("x")
    with pytest.raises(StoreError, match="by hand"):
        remove_store(tmp_path / "s")
    (tmp_path / "s" / "notes.txt").unlink()
    remove_store(tmp_path / "s")
    assert not list(tmp_path.iterdir())


def _edit(path, change):
    meta = json.loads(path.read_text())
    change(meta["attributes"]["histodistill"])
    path.write_text(json.dumps(meta))


def test_a_newer_format_is_refused(tmp_path):
    new_store(tmp_path / "s").close()
    _edit(tmp_path / "s" / "zarr.json", lambda m: m.update(format_version=99))
    with pytest.raises(StoreError, match=r"newer version.*format 99"):
        EmbeddingStore.open(tmp_path / "s")


def test_an_edited_grid_is_damage(tmp_path):
    new_store(tmp_path / "s").close()
    _edit(tmp_path / "s" / "zarr.json", lambda m: m["grid"].update(mpp=2.0))
    with pytest.raises(StoreError, match=r"do not belong together.*--restart"):
        EmbeddingStore.open(tmp_path / "s")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"zarr_format": 3}'])
def test_broken_metadata_is_damage(tmp_path, text):
    new_store(tmp_path / "s").close()
    (tmp_path / "s" / "zarr.json").write_text(text)
    with pytest.raises(StoreError, match=r"damaged.*--restart"):
        EmbeddingStore.open(tmp_path / "s")


def test_a_lost_chunk_is_noticed_on_opening(tmp_path, rng):
    filled_store(tmp_path / "s", rng)
    chunk = tmp_path / "s" / "embeddings" / "c" / "1" / "2" / "0"
    chunk.unlink()
    with pytest.raises(StoreError, match=r"damaged.*--restart"):
        EmbeddingStore.open(tmp_path / "s")
    chunk.touch()
    with pytest.raises(StoreError, match=r"block \(1, 2\) is empty"):
        EmbeddingStore.open(tmp_path / "s")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(where=st.floats(0, 0.9999), flip=st.integers(1, 255))
def test_one_changed_byte_never_gives_wrong_numbers(tmp_path_factory, where, flip):
    path = tmp_path_factory.mktemp("flip") / "s"
    values = filled_store(path, np.random.default_rng(1), height=250, width=250)
    chunk = path / "embeddings" / "c" / "0" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[int(where * len(data))] ^= flip
    chunk.write_bytes(data)
    with EmbeddingStore.open(path) as store:
        read = None
        with suppress(StoreError):
            read = store.read()
    # Refused, or a bit that means nothing.
    assert read is None or np.array_equal(read, values)


def test_truncated_chunk_is_damage(tmp_path, rng):
    filled_store(tmp_path / "s", rng)
    chunk = tmp_path / "s" / "embeddings" / "c" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-10])
    with EmbeddingStore.open(tmp_path / "s") as store:
        with pytest.raises(StoreError, match=r"damaged.*--restart"):
            store.read()
        store.read((slice(8, 12), slice(0, 4)))  # the rest is sound


def test_a_failing_disk_keeps_what_was_finished(tmp_path, monkeypatch):
    import zarr

    ones = np.ones((4, 4), np.uint8)
    with new_store(tmp_path / "s") as store:
        store.write_block(0, 0, np.ones((4, 4, 6)), ones)

        def full(*args, **kwargs):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(zarr.Array, "__setitem__", full)
            with pytest.raises(DiskError, match=r"No space left.*run again"):
                store.write_block(0, 4, np.ones((4, 4, 6)), ones)
        assert store.status.sum() == 16
    with EmbeddingStore.open(tmp_path / "s") as back:
        assert (back.status == CellStatus.DONE).sum() == 16
