"""Jobs on the GUI thread: what is abandoned is never heard of again."""

from __future__ import annotations

import pytest

from napari_histodistill.controllers.shared.job import JobKey

pytest.importorskip("qtpy", reason="the pump needs Qt")

from qtpy.QtCore import QObject

from napari_histodistill.widgets.shared.job_pump import JobPump
from tests.widgets.conftest import wait_until

pytestmark = pytest.mark.gui


class Two(JobKey):
    FIRST = "first"
    SECOND = "second"


@pytest.fixture
def pump(qtbot):
    parent = QObject()
    made = JobPump(parent)
    yield made
    made.close()


def once(_cancel):
    yield 1


def both_wait(qtbot, pump):
    """Let two jobs end before either of them is asked."""
    pump._timer.stop()
    jobs = [watched.job for watched in pump._watched.values()]
    wait_until(qtbot, lambda: all(job.has_ended for job in jobs))
    pump._turn()


def test_a_job_abandoned_in_the_same_turn_is_not_heard(qtbot, pump):
    heard = []

    def first(_reports):
        heard.append("first")
        pump.abandon(Two.SECOND)

    pump.start(once, key=Two.FIRST, on_reports=first)
    pump.start(
        once,
        key=Two.SECOND,
        on_reports=lambda _: heard.append("second"),
        on_end=lambda _: heard.append("its end"),
    )
    both_wait(qtbot, pump)
    assert heard == ["first"]
    assert not pump.busy


def test_a_job_replaced_in_the_same_turn_is_not_heard(qtbot, pump):
    heard = []

    def replace(_reports):
        pump.start(once, key=Two.SECOND, on_reports=lambda _: heard.append("new"))

    pump.start(once, key=Two.FIRST, on_reports=replace)
    pump.start(once, key=Two.SECOND, on_reports=lambda _: heard.append("old"))
    both_wait(qtbot, pump)
    wait_until(qtbot, lambda: not pump.busy)
    assert heard == ["new"]
