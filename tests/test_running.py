"""How many cores a process may use: not always all that the machine has."""

from __future__ import annotations

import os

import pytest

from napari_histodistill.running import cores


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="this system keeps no such list"
)
def test_cores_are_those_that_this_process_may_use(monkeypatch):
    assert cores() == len(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5})
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert cores() == 3


@pytest.mark.parametrize(("count", "found"), [(64, 64), (None, 1)])
def test_where_no_one_knows_they_are_all_of_the_machine(monkeypatch, count, found):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert cores() == found
