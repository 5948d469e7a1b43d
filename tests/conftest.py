"""What every test stands on: no network, fixed seeds, shared data if it is there."""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings

from napari_histodistill.slides.tissue import tissue
from tests.order import longest_first

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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

REMEMBERED = 64
"""Pictures whose tissue is not looked for again, if they are small."""

REMEMBERED_BYTES = 3 * 2**20


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


@pytest.fixture(scope="session")
def _folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return folders that are not there yet, one after the other.

    ``mktemp`` would list all that are there, thousands, for every number.
    """
    home = tmp_path_factory.mktemp("own")
    return (home / str(k) for k in itertools.count())


@pytest.fixture(autouse=True)
def _own_cache(_folders: Iterator[Path], monkeypatch: pytest.MonkeyPatch):
    """Give every test an empty cache of its own."""
    home = next(_folders)
    for name in ("CACHE", "DRAFTS", "SETTINGS"):
        folder = home / name.lower()
        folder.mkdir(parents=True)
        monkeypatch.setenv(f"HISTODISTILL_{name}", str(folder))


@pytest.fixture(autouse=True, scope="session")
def _tissue_looked_for_once():
    """Look for tissue in equal pixels once, with equal arguments.

    The same few slides are opened in a thousand tests, and this is a function of their
    pixels and of nothing else. Whatever comes before and after it is done every time.
    """
    look: Callable[..., Any] = tissue._stained
    found: dict[Any, Any] = {}

    def remembered(pixels: np.ndarray, **how: Any) -> Any:
        if pixels.nbytes > REMEMBERED_BYTES:
            return look(pixels, **how)
        shown = hashlib.sha256(pixels.tobytes()).digest()
        seen = (shown, pixels.shape, *sorted(how.items()))
        if seen not in found:
            if len(found) == REMEMBERED:
                del found[next(iter(found))]
            found[seen] = look(pixels, **how)
        return type(found[seen])(*(part.copy() for part in found[seen]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tissue, "_stained", remembered)
        yield


@pytest.fixture
def forked_trainings() -> Iterator[None]:
    """Let trainings be forked: for tests of what they do, not of how they start."""
    from napari_histodistill.distill.runs import process
    from tests.forked import forking

    with forking(process):
        yield


@pytest.fixture
def forked_reading() -> Iterator[None]:
    """Let what reads spots be forked: for tests of what it finds in a file."""
    from napari_histodistill.distill.spots import spot_process
    from tests.forked import forking

    with forking(spot_process):
        yield


@pytest.fixture(autouse=True)
def _same_rank():
    """See that no test leaves this process, and all tests after it, a lower rank."""
    if not hasattr(os, "getpriority"):
        yield
        return
    before = os.getpriority(os.PRIO_PROCESS, 0)
    yield
    assert os.getpriority(os.PRIO_PROCESS, 0) == before, "work in a thread or process"
