"""A cohort on a cluster that is not there: ends, failures, Ctrl-C."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from napari_histodistill.errors import Cancelled, ComputeError, InputError
from napari_histodistill.maps import cluster
from napari_histodistill.maps.cluster import address_in, connect, embed_cohort
from napari_histodistill.maps.cohort import SlideResult, SlideTask
from napari_histodistill.running import CancelToken
from tests.fake_cluster import FakeClient, FakeDistributed


def tasks(count: int) -> list[SlideTask]:
    return [
        SlideTask(slide=Path(f"s{k}.svs"), store=Path(f"s{k}.zarr"), student="colour")
        for k in range(count)
    ]


@pytest.fixture
def dask(monkeypatch) -> FakeDistributed:
    fake = FakeDistributed()
    monkeypatch.setitem(sys.modules, "distributed", fake)
    monkeypatch.setattr(cluster, "_POLL_S", 0.001)
    return fake


def test_slides_come_as_they_end(dask):
    client, given = FakeClient(), tasks(3)
    results = embed_cohort(client, given, tell=lambda line: finish(0))

    def finish(k: int) -> None:
        client.futures[k].end(SlideResult(task=given[k], cells=k))

    order = []
    for result in results:
        order.append(result.cells)
        left = [k for k in (2, 1) if not client.futures[k].done()]
        if left:
            finish(left[0])
    assert order == [0, 2, 1]
    assert client.options == [{"pure": False, "retries": 1}] * 3
    assert [sent[0] for sent in client.sent] == given
    assert len({future.key for future in client.futures}) == 3
    assert all(f"s{k}.svs" in f.key for k, f in enumerate(client.futures))
    assert not client.cancelled
    assert not dask.flags


class KilledWorker(Exception):
    """Named as in dask."""


class FutureCancelledError(Exception):
    """Named as in dask."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KilledWorker("4 times"), "workers died"),
        (FutureCancelledError("lost"), "scheduler was lost"),
        (
            ModuleNotFoundError("No module\nnamed x"),
            "ModuleNotFoundError on the worker",
        ),
        (RuntimeError("CUDA error"), "RuntimeError on the worker: CUDA error"),
    ],
)
def test_a_failed_slide_is_a_sentence_and_the_others_go_on(dask, error, words):
    client, given = FakeClient(), tasks(2)

    def end(_line: str) -> None:
        client.futures[0].end(error)
        client.futures[1].end(SlideResult(task=given[1], cells=7))

    first, second = embed_cohort(client, given, tell=end)
    assert second.cells == 7
    assert first.exit_code == 1
    assert words in first.error
    assert first.error.startswith("s0.svs: ")
    assert "run again" in first.error
    assert "\n" not in first.error


def test_an_error_of_ours_keeps_its_sentence(dask):
    client, given = FakeClient(), tasks(1)
    sentence = "s0.svs: unexpected ZeroDivisionError: no."
    ends = embed_cohort(
        client, given, tell=lambda _line: client.futures[0].end(ComputeError(sentence))
    )
    (result,) = ends
    assert (result.error, result.exit_code) == (sentence, 1)


def cancel_at_once(client: FakeClient) -> None:
    token = CancelToken()

    def on_first_line(_line: str) -> None:
        client.on_workers.append(client.futures[0].key)
        token.cancel()

    with pytest.raises(Cancelled):
        list(embed_cohort(client, tasks(2), cancel=token, tell=on_first_line))


def test_cancelling_asks_the_running_and_drops_the_others(dask):
    client = FakeClient()
    names = []

    def stop_running() -> None:
        names.extend(dask.flags)
        client.futures[0].end(None)

    dask.on_set = stop_running
    cancel_at_once(client)
    running, queued = client.futures
    assert client.cancelled == [queued.key, running.key]
    assert names == [client.sent[0][1]], "the worker listens to another name"
    assert not dask.flags, "the scheduler keeps a flag for ever"


def test_a_slide_that_does_not_stop_in_time_still_finds_the_flag(dask, monkeypatch):
    monkeypatch.setattr(cluster, "_STOP_S", 0.01)
    client = FakeClient()
    cancel_at_once(client)
    assert dask.flags == {client.sent[0][1]: True}


def test_leaving_early_stops_the_rest(dask):
    client, given = FakeClient(), tasks(2)
    end = SlideResult(task=given[0])
    results = embed_cohort(client, given, tell=lambda _l: client.futures[0].end(end))
    assert next(results) == end
    results.close()
    assert client.cancelled == [client.futures[1].key]


def test_a_scheduler_that_is_gone_does_not_hide_the_cancelling(dask):
    class Gone(FakeClient):
        def processing(self):
            message = "closed"
            raise OSError(message)

        nthreads = processing

    lines = []
    token = CancelToken()

    def tell(line: str) -> None:
        lines.append(line)
        token.cancel()

    with pytest.raises(Cancelled):
        list(embed_cohort(Gone(), tasks(1), cancel=token, tell=tell))
    assert lines == ["the scheduler does not answer at the moment"]


def test_a_lack_of_workers_is_reported(dask):
    client, lines = FakeClient(workers=0), []

    def tell(line: str) -> None:
        lines.append(line)
        client.futures[0].end(SlideResult(task=client.sent[0][0]))

    assert len(list(embed_cohort(client, tasks(1), tell=tell))) == 1
    assert lines == [
        "0 of 1 slides ended; no worker yet: start some with `dask worker`"
    ]


def test_a_task_that_may_run_twice_must_not_delete(dask):
    client = FakeClient()
    (task,) = tasks(1)
    deleting = SlideTask(
        slide=task.slide, store=task.store, student="colour", restart=True
    )
    with pytest.raises(InputError, match="delete the stores first"):
        list(embed_cohort(client, [deleting]))
    assert not client.futures


def test_a_scheduler_that_takes_no_tasks_is_a_sentence(dask):
    class Deaf(FakeClient):
        def submit(self, *_a, **_k):
            message = "Error during\ndeserialization"
            raise RuntimeError(message)

    with pytest.raises(
        ComputeError, match="did not take the tasks: Error during deserial"
    ):
        list(embed_cohort(Deaf(), tasks(1)))


def test_a_worker_asks_now_and_then_whether_to_stop(dask, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(cluster.time, "monotonic", lambda: now[0])
    token = cluster._SharedToken("flag")
    assert not any(token.cancelled for _ in range(100))
    assert dask.asked == 1
    dask.flags["flag"] = True
    now[0] = 0.9
    assert not token.cancelled
    now[0] = 1.1
    assert token.cancelled
    with pytest.raises(Cancelled):
        token.check()
    now[0] = 99
    assert token.cancelled
    assert dask.asked == 2


def test_without_the_extra_its_name_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"napari-histodistill\[cohort\]"):
        connect("tcp://127.0.0.1:8786")


@pytest.mark.parametrize(
    "address",
    [
        "tcp://host:8786",
        "tls://host:8786",
        "ucx://host:8786",
        "host:8786",
        "inproc://1",
    ],
)
def test_an_address_stays_what_it_is(address):
    assert address_in(address) == address


def test_a_schedulers_file_says_its_address(tmp_path):
    path = tmp_path / "scheduler.json"
    path.write_text(json.dumps({"type": "Scheduler", "address": "tls://10.0.0.1:8786"}))
    assert address_in(str(path)) == "tls://10.0.0.1:8786"


@pytest.mark.parametrize("content", ["", "[1]", "{}", "[" * 100_000, "\x00"])
def test_another_file_is_refused_in_one_sentence(tmp_path, content):
    path = tmp_path / "scheduler.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"scheduler\.json is not a file that"):
        address_in(str(path))
