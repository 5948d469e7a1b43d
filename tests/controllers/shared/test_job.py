import threading
import time

import pytest

from napari_histodistill.controllers.shared.job import Job, JobState
from napari_histodistill.errors import ComputeError


def finish(job, timeout=5.0):
    """Poll like a GUI does until the job has ended; return all reports."""
    reports, stop = [], time.monotonic() + timeout
    while job.is_active:
        reports += job.poll()
        assert time.monotonic() < stop, f"{job.name} is still {job.state}"
        time.sleep(0.002)
    return reports


def test_reports_arrive_in_order_and_the_job_is_done():
    job = Job(lambda token: iter(range(1000)), name="Counting", capacity=8)
    assert job.state is JobState.IDLE
    job.start()
    assert finish(job) == list(range(1000))
    assert job.state is JobState.DONE
    assert job.error == ""
    assert job.join(1)


def test_the_work_runs_in_its_own_thread():
    job = Job(lambda token: iter([threading.current_thread().name]), name="Reading")
    job.start()
    assert finish(job) == ["histodistill Reading"]


def test_cancel_keeps_what_was_reported():
    def work(token):
        for k in range(10**9):
            token.check()
            yield k
            time.sleep(0.001)

    job = Job(work, name="Embedding")
    job.start()
    seen = []
    while not seen:
        seen += job.poll()
    job.cancel()
    assert job.state is JobState.CANCELLING
    asked = time.monotonic()
    seen += finish(job)
    assert time.monotonic() - asked < 1
    assert job.state is JobState.CANCELLED
    assert seen == list(range(len(seen)))


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            RuntimeError("CUDA is gone"),
            "Embedding failed: CUDA is gone (RuntimeError).",
        ),
        (ComputeError("The model said no."), "The model said no."),
        (ValueError(""), "Embedding failed: no further words (ValueError)."),
    ],
)
def test_every_error_arrives_as_a_sentence(error, sentence):
    def work(token):
        yield "first"
        raise error

    job = Job(work, name="Embedding")
    job.start()
    assert finish(job) == ["first"]
    assert job.state is JobState.FAILED
    assert job.error == sentence


def test_the_final_state_waits_for_the_last_report():
    job = Job(lambda token: iter(["a", "b"]), name="Reading")
    job.start()
    job.join(2)
    assert job.state is JobState.RUNNING, "nobody has read the reports yet"
    assert job.poll() == ["a", "b"]
    assert job.state is JobState.DONE


def test_a_full_queue_holds_the_work_back_and_abandoning_frees_it():
    made = []

    def work(token):
        for k in range(100):
            made.append(k)
            yield k

    job = Job(work, name="Reading", capacity=4)
    job.start()
    time.sleep(0.1)
    assert len(made) <= 6
    job.abandon()
    assert job.join(2)
    job.poll()
    assert job.state is JobState.CANCELLED


def test_a_job_that_never_started_can_be_joined():
    assert Job(lambda token: iter([]), name="Reading").join(0.1)


@pytest.mark.parametrize("abandoned", [False, True])
def test_what_fails_is_logged_unless_nobody_waits_for_it(abandoned, caplog):
    """napari was closed while a model was loaded: Python then refuses new threads."""
    going, ending = threading.Event(), threading.Event()

    def work(_token):
        going.set()
        ending.wait(5)
        msg = "cannot schedule new futures after interpreter shutdown"
        raise RuntimeError(msg)
        yield

    job = Job(work, name="Loading the model")
    job.start()
    assert going.wait(5)
    if abandoned:
        job.abandon()
    ending.set()
    assert job.join(5)
    logged = [r for r in caplog.records if r.levelname == "ERROR"]
    assert len(logged) == (not abandoned)
