"""What every test stands on: no network, fixed seeds, shared data if it is there."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from tests.order import longest_first

os.environ.setdefault("HF_HUB_OFFLINE", "1")

# A busy machine is no failure: how long an example takes is not what is tested.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# The environment `core` proves that nothing below the widgets needs a window.
collect_ignore = [] if importlib.util.find_spec("napari") else ["widgets"]

DATA = Path(
    os.environ.get(
        "HISTODISTILL_DATA", Path(__file__).parents[1].parent / "shared" / "data"
    )
)
"""Real images that are not part of the repository; tests skip without them."""


@pytest.hookimpl(trylast=True)  # what shuffles them has done so
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    items[:] = longest_first(items, workers)


def pytest_runtest_setup(item: pytest.Function) -> None:
    from pytest_socket import disable_socket

    # Unix sockets stay: X11, D-Bus and multiprocessing talk through them.
    disable_socket(allow_unix_socket=True)
    if item.get_closest_marker("long") and os.environ.get("HISTODISTILL_LONG") != "1":
        pytest.skip("takes long (set HISTODISTILL_LONG=1)")
    asked = item.get_closest_marker("data") or "data" in item.fixturenames
    if asked and not DATA.is_dir():
        pytest.skip(f"the shared data is not at {DATA} (set HISTODISTILL_DATA)")


@pytest.fixture
def data() -> Path:
    """Return the folder of shared real data; a test that asks for it may be skipped."""
    return DATA


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a seeded generator."""
    return np.random.default_rng(20230310)


@pytest.fixture(autouse=True, scope="session")
def _one_backend(tmp_path_factory: pytest.TempPathFactory):
    """Name the backend and a cache, for fixtures too that are older than a test.

    Otherwise they measure which backend is faster here, and another one's numbers are
    compared with theirs.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HISTODISTILL_CPU_BACKEND", "torch")
        patch.setenv("HISTODISTILL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch):
    """Give every test an empty cache of its own."""
    monkeypatch.setenv(
        "HISTODISTILL_CACHE", str(tmp_path_factory.mktemp("cache", numbered=True))
    )
    for variable in ("HISTODISTILL_DRAFTS", "HISTODISTILL_SETTINGS"):
        folder = tmp_path_factory.mktemp(variable.lower(), numbered=True)
        monkeypatch.setenv(variable, str(folder))


@pytest.fixture(autouse=True)
def _same_rank():
    """See that no test leaves this process, and all tests after it, a lower rank."""
    if not hasattr(os, "getpriority"):
        yield
        return
    before = os.getpriority(os.PRIO_PROCESS, 0)
    yield
    assert os.getpriority(os.PRIO_PROCESS, 0) == before, "work in a thread or process"
