"""Opening, closing and running again and again leaves nothing behind."""

from __future__ import annotations

import sys

import pytest

from tests.faults.cycling import embed_again_and_again, open_and_close

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="counts file handles in /proc"
)


@pytest.mark.parametrize(
    ("again", "rounds"), [(open_and_close, 60), (embed_again_and_again, 15)]
)
def test_nothing_is_left_behind(again, rounds, tmp_path):
    found = again(tmp_path, rounds)
    assert found.after.handles <= found.before.handles
    # zarr's pool grows by a thread now and then, up to its bound.
    assert found.after.threads <= found.before.threads + 4
    # A slide kept would be 5 MB a round; an allocator's mood is a few in all.
    assert found.grown_mb < 30
