"""``embed --scheduler`` on a real dask scheduler and worker, on this machine."""

from __future__ import annotations

import importlib.util
import json
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from napari_histodistill.errors import StoreError
from napari_histodistill.maps import EmbeddingStore
from napari_histodistill.slides.tissue.writing import write_pyramid
from tests.fakes import tissue_image
from tests.faults.workplace import write_slide
from tests.forked import DASK, start_forked, start_logged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.forked import Started

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("distributed") is None,
        reason="dask.distributed is not installed (the extra 'cohort')",
    ),
]

PATIENCE_S = 180
FINE = ("--stride-um", "8")


class Cluster:
    """A scheduler and its workers, each a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "scheduler.json"
        self.processes: list[Started] = []
        self.dask("scheduler", "--host", "127.0.0.1", "--port", "0")
        self.address = self._address()

    def _address(self) -> str:
        """Wait until the scheduler has written the whole of its file."""
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                return str(json.loads(self.file.read_text())["address"])
            except (FileNotFoundError, json.JSONDecodeError):
                if time.monotonic() > until:
                    raise
            time.sleep(0.05)

    def dask(self, *arguments: str) -> Started:
        common = ("--no-dashboard", "--scheduler-file", str(self.file))
        process = start_logged(
            [*arguments, *common],
            program=DASK,
            said=self.log(len(self.processes)).parent,
        )
        self.processes.append(process)
        return process

    def log(self, process: int) -> Path:
        return self.folder / str(process) / "err"

    def worker(self) -> Started:
        return self.dask(
            "worker", "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1"
        )

    def stop(self, *, keep: int = 0) -> None:
        """Stop what was started after the first ``keep`` processes."""
        while len(self.processes) > keep:
            process = self.processes.pop()
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory) -> Iterator[Cluster]:
    started = Cluster(tmp_path_factory.mktemp("cluster"))
    yield started
    started.stop()


@pytest.fixture
def cluster(scheduler) -> Iterator[Cluster]:
    """A scheduler without workers; a test's own are gone after it."""
    yield scheduler
    scheduler.stop(keep=1)


def chunks(store: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in store.rglob("c/**/*")
        if path.is_file()
    }


def finish(running: Started) -> tuple[str, str]:
    out, err = running.communicate(timeout=PATIENCE_S)
    assert "Traceback" not in err
    return out, err


def wait_for_work(store: Path, running: Started) -> None:
    """Wait until some blocks are done, long before all are."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and running.poll() is None:
        try:
            done, wanted = cells(store)
        except StoreError:
            done, wanted = 0, 0
        if done > wanted / 20 > 0:
            return
        time.sleep(0.02)
    running.kill()
    pytest.fail(f"the run never got into the middle: {running.communicate()}")


def cells(path: Path) -> tuple[int, int]:
    """Return (done, wanted) of a store that another process may be writing."""
    with EmbeddingStore.open(path) as store:
        return int((store.status == 1).sum()), int(store.wanted.sum())


@pytest.fixture(scope="module")
def large_slide(tmp_path_factory) -> Path:
    """Return a slide of twelve blocks of cells: enough to have a middle."""
    return write_slide(tmp_path_factory.mktemp("slides") / "large.ome.tif")


@pytest.fixture(scope="module")
def undisturbed(large_slide, bundle, tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed")
    words = ("embed", large_slide, "-o", out, "--student", bundle, *FINE)
    assert start_forked(words).wait(PATIENCE_S) == 0
    return chunks(out / "large.ome.zarr")


def test_two_slides_are_byte_identical_to_a_local_run(
    cluster, process: Callable[..., Started], slide_file, bundle, tmp_path
):
    other = tmp_path / "other.ome.tif"
    write_pyramid(other, tissue_image(500, 700), mpp=0.5, compression="zlib")
    options = ("embed", slide_file, other, "--student", bundle, "--json", "-o")
    cluster.worker()
    remote = process(*options, tmp_path / "far", "--scheduler", cluster.address)
    out, err = finish(remote)
    assert remote.returncode == 0, err
    assert "2 of 2: " in err
    far = json.loads(out)
    local = process(*options, tmp_path / "near")
    out, err = finish(local)
    assert local.returncode == 0, err
    near = json.loads(out)
    assert far.keys() == near.keys()
    assert far["student_digest"] == near["student_digest"]
    for ours, theirs in zip(far["slides"], near["slides"], strict=True):
        assert ours.keys() == theirs.keys()
        assert ours["slide"] == theirs["slide"]
        assert ours["cells"] == theirs["cells"] > 0
    numbers = chunks(tmp_path / "far")
    assert numbers
    assert numbers == chunks(tmp_path / "near")


def test_the_slide_of_a_lost_worker_is_continued_by_another(
    cluster, process, large_slide, bundle, tmp_path, undisturbed
):
    store = tmp_path / "out" / "large.ome.zarr"
    options = ("embed", large_slide, "-o", store.parent, "--student", bundle, *FINE)
    lost = cluster.worker()
    running = process(*options, "--scheduler", cluster.address, "--json")
    wait_for_work(store, running)
    lost.kill()
    lost.wait()
    kept, wanted = cells(store)
    assert 0 < kept < wanted, "the kill did not land in the middle"
    first = {name: store.joinpath(name).stat().st_mtime_ns for name in chunks(store)}
    cluster.worker()
    out, err = finish(running)
    assert running.returncode == 0, err
    assert json.loads(out)["slides"][0]["cells"] == wanted
    assert chunks(store) == undisturbed
    untouched = [
        name
        for name, written in first.items()
        if name.startswith("embeddings")
        and store.joinpath(name).stat().st_mtime_ns == written
    ]
    assert len(untouched) >= 1, "the slide was started again"


@pytest.mark.skipif(
    sys.platform == "win32", reason="no process can send another one Ctrl-C there"
)
def test_ctrl_c_stops_the_worker_and_keeps_its_work(
    cluster, process, large_slide, bundle, tmp_path, undisturbed
):
    store = tmp_path / "out" / "large.ome.zarr"
    options = ("embed", large_slide, "-o", store.parent, "--student", bundle, *FINE)
    cluster.worker()
    running = process(*options, "--scheduler", cluster.address, "--json")
    wait_for_work(store, running)
    asked = time.monotonic()
    running.send_signal(signal.SIGINT)
    out, err = finish(running)
    assert running.returncode == 130
    assert time.monotonic() - asked < 15
    assert out == ""
    assert "finished work is kept" in err
    done, wanted = cells(store)
    assert 0 < done < wanted, "the interruption did not land in the middle"
    # The lock is free: nobody writes any more. The rest may be done anywhere.
    resumed = process(*options)
    _out, err = finish(resumed)
    assert resumed.returncode == 0, err
    assert f"{done} of {wanted} squares were there" in err
    assert chunks(store) == undisturbed


def test_a_lost_scheduler_is_a_sentence(process, large_slide, bundle, tmp_path):
    store = tmp_path / "large.ome.zarr"
    options = ("embed", large_slide, "-o", tmp_path, "--student", bundle, *FINE)
    (tmp_path / "own").mkdir()
    doomed = Cluster(tmp_path / "own")
    try:
        doomed.worker()
        running = process(*options, "--scheduler", doomed.address)
        wait_for_work(store, running)
        doomed.processes[0].kill()
        _out, err = finish(running)
    finally:
        doomed.stop()
    assert running.returncode == 1
    assert "the scheduler was lost" in err.splitlines()[-1]


@pytest.mark.parametrize(
    "address", ["", "127.0.0.1", "127.0.0.1:9", "carrier-pigeon://127.0.0.1:1"]
)
def test_a_wrong_address_is_a_sentence(
    process, slide_file, bundle, tmp_path, monkeypatch, address
):
    wait_for_an_answer(monkeypatch, 2)
    options = ("embed", slide_file, "-o", tmp_path / "out", "--student", bundle)
    running = process(*options, "--scheduler", address, "--json")
    out, err = finish(running)
    assert running.returncode == 2
    assert out == ""
    assert err.count("\n") == 1
    assert f"scheduler {address!r}" in err
    assert not (tmp_path / "out").exists()


def wait_for_an_answer(monkeypatch, seconds: int) -> None:
    """Set how long the programs wait that are started from now on."""
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", f"{seconds} s")


def test_a_worker_is_not_taken_for_the_scheduler(
    cluster, process, slide_file, bundle, tmp_path, monkeypatch
):
    cluster.worker()
    wait_for_an_answer(monkeypatch, PATIENCE_S)
    log = cluster.log(1)
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if log.is_file() and "Registered to" in log.read_text():
            break
        time.sleep(0.05)
    (address,) = re.findall(r"Start worker at: *(\S+)", log.read_text())
    options = ("embed", slide_file, "-o", tmp_path / "out", "--student", bundle)
    running = process(*options, "--scheduler", address)
    _out, err = finish(running)
    assert running.returncode == 2
    assert "a dask worker answers" in err


def test_what_is_no_dask_server_is_not_waited_for(
    process, slide_file, tmp_path, monkeypatch
):
    """The dashboard's port is an easy slip; a plain client waits there for ever."""
    wait_for_an_answer(monkeypatch, 2)
    listen = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    with subprocess.Popen(
        listen, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as web:
        try:
            assert web.stdout is not None
            (port,) = re.findall(rb"port (\d+)", web.stdout.readline())
            address = f"127.0.0.1:{port.decode()}"
            options = ("embed", slide_file, "-o", tmp_path / "out")
            running = process(*options, "--scheduler", address)
            _out, err = finish(running)
        finally:
            web.kill()
    assert running.returncode == 2
    assert "no answer" in err
