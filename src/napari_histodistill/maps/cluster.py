"""A cohort on the workers of a dask scheduler: one slide, one task.

Stores are resumable and locked, so a task that dask runs again, because its worker was
lost, continues where the store stopped. Scheduler and workers need the same version of
this package, and the workers must see the same paths.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from napari_histodistill.errors import ComputeError, HistodistillError, InputError
from napari_histodistill.maps.cohort import SlideResult, embed_task
from napari_histodistill.running import CancelToken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from distributed import Client, Future

    from napari_histodistill.maps.cohort import SlideTask

__all__ = ["connect", "embed_cohort"]

_POLL_S = 0.2
_TELL_S = 30.0
_STOP_POLL_S = 1.0
# A batch, a block being written, and the poll above.
_STOP_S = 10.0


def connect(address: str, *, timeout_s: float | None = None) -> Client:
    """Connect to a running scheduler; close the client after use.

    Parameters
    ----------
    address : str
        ``"tcp://host:8786"`` or ``"host:8786"``.
    timeout_s : float or None
        Longest wait for an answer, seconds; None takes dask's own setting
        ``distributed.comm.timeouts.connect`` (30 s unless changed).

    Raises
    ------
    InputError
        If dask.distributed is not installed, or no scheduler answers there.
    """
    try:
        import dask
        from distributed import Client
    except ImportError as error:
        msg = (
            "a scheduler needs dask.distributed: install it with "
            '`pip install "napari-histodistill[cohort]"`.'
        )
        raise InputError(msg) from error
    if timeout_s is None:
        setting = dask.config.get("distributed.comm.timeouts.connect")
        timeout_s = dask.utils.parse_timedelta(setting)
    try:
        # A client waits for ever for a greeting where no dask server answers, such as
        # at the dashboard's port, and prints a traceback for a malformed address.
        asyncio.run(asyncio.wait_for(_greet(address, timeout_s), timeout_s))
        return Client(address, timeout=timeout_s, set_as_default=False)
    except (OSError, ValueError, TypeError, MemoryError, ImportError) as error:
        reason = " ".join(str(error).split()) or "no answer"
        msg = (
            f"scheduler {address!r}: no dask scheduler can be reached there "
            f"({reason.rstrip('.')}); give the address that `dask scheduler` prints, "
            "such as tcp://host:8786."
        )
        raise InputError(msg) from error


async def _greet(address: str, timeout_s: float) -> None:
    from distributed import rpc
    from distributed.security import Security

    keys = Security().get_connection_args("client")
    async with rpc(address, timeout=timeout_s, connection_args=keys) as peer:
        kind = (await peer.identity())["type"]
    if kind != "Scheduler":
        msg = f"a dask {kind.lower()} answers"
        raise ValueError(msg)


def embed_cohort(
    client: Client,
    tasks: Sequence[SlideTask],
    *,
    cancel: CancelToken | None = None,
    tell: Callable[[str], None] | None = None,
) -> Iterator[SlideResult]:
    """Embed slides on a cluster.

    Parameters
    ----------
    client : distributed.Client
        See :func:`connect`.
    tasks : sequence of SlideTask
        With absolute paths, and without ``restart``: dask may run a task again, and
        that would delete what the first attempt did.
    cancel : CancelToken, optional
        Checked several times a second. Running slides are then asked to stop and are
        given ten seconds to do so.
    tell : callable, optional
        Called with a line for the user at the start and every half minute.

    Yields
    ------
    SlideResult
        For every slide as it ends, in any order; a failed slide does not stop the
        others. Closing the generator early stops the slides that are running.

    Raises
    ------
    InputError
        If a task would delete a store.
    ComputeError
        If the scheduler does not take the tasks.
    Cancelled
        If ``cancel`` asked for it; finished blocks stay in their stores.
    """
    if any(task.restart for task in tasks):
        msg = "restart: delete the stores first; a task may run twice on a cluster."
        raise InputError(msg)
    token = cancel or CancelToken()
    stop = f"histodistill-{uuid.uuid4().hex}"
    waiting: list[tuple[Future, SlideTask]] = []
    status = _Status(client, len(tasks), tell or (lambda _line: None))
    try:
        waiting += _submit(client, tasks, stop)
        while waiting:
            token.check()
            status.say_if_due(len(waiting))
            ended = [pair for pair in waiting if pair[0].done()]
            waiting = [pair for pair in waiting if pair not in ended]
            for future, task in ended:
                yield _result(future, task)
            if not ended:
                time.sleep(_POLL_S)
    finally:
        if waiting:
            # The scheduler may be gone, and its workers with it.
            with suppress(OSError, RuntimeError):
                _stop(client, [future for future, _task in waiting], stop)


def _submit(
    client: Client, tasks: Sequence[SlideTask], stop: str
) -> list[tuple[Future, SlideTask]]:
    try:
        return [
            (
                client.submit(
                    _embed_on_worker,
                    task,
                    stop,
                    key=f"embed-{task.slide.name}-{uuid.uuid4().hex[:8]}",
                    pure=False,
                    retries=1,
                ),
                task,
            )
            for task in tasks
        ]
    except (OSError, RuntimeError) as error:
        msg = f"the scheduler did not take the tasks: {' '.join(str(error).split())}."
        raise ComputeError(msg) from error


class _Status:
    """Reports now and then how far the cohort is, and on how many workers."""

    def __init__(
        self, client: Client, slides: int, tell: Callable[[str], None]
    ) -> None:
        self._client, self._slides, self._tell = client, slides, tell
        self._due = 0.0

    def say_if_due(self, waiting: int) -> None:
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _TELL_S
        try:
            workers = len(self._client.nthreads())
        except OSError:
            self._tell("the scheduler does not answer at the moment")
            return
        done = f"{self._slides - waiting} of {self._slides} slides ended"
        on = f"{workers} worker{'s' * (workers > 1)}"
        if not workers:
            on = "no worker yet: start some with `dask worker`"
        self._tell(f"{done}; {on}")


def _result(future: Future, task: SlideTask) -> SlideResult:
    """Return the result of a task that ended; exceptions of workers become words."""
    again = "what was done is kept, run again to go on"
    try:
        result: SlideResult = future.result()
    except HistodistillError as error:
        return SlideResult(task=task, error=str(error), exit_code=error.exit_code)
    except Exception as error:  # noqa: BLE001 - whatever a worker raised, by its name
        name = type(error).__name__
        if name == "KilledWorker":
            why = "its workers died several times (out of memory?), see their logs"
        elif "Cancelled" in name:
            why = "the scheduler was lost or dropped it"
        else:
            why = f"{name} on the worker: {' '.join(str(error).split())}"
        msg = f"{task.slide.name}: {why}; {again}."
        return SlideResult(task=task, error=msg, exit_code=ComputeError.exit_code)
    return result


def _stop(client: Client, futures: Sequence[Future], stop: str) -> None:
    """Ask running slides to stop, drop the others, wait a little."""
    from distributed import Event

    assigned = {key for keys in client.processing().values() for key in keys}
    client.cancel([future for future in futures if future.key not in assigned])
    flag = Event(stop, client=client)
    flag.set()
    running = [future for future in futures if future.key in assigned]
    until = time.monotonic() + _STOP_S
    while time.monotonic() < until and not all(f.done() for f in running):
        time.sleep(_POLL_S)
    if all(future.done() for future in running):
        flag.clear()  # no task reads it any more; the scheduler forgets it
    client.cancel(running)


def _embed_on_worker(task: SlideTask, stop: str) -> SlideResult:
    return embed_task(task, cancel=_SharedToken(stop))


class _SharedToken(CancelToken):
    """A token that asks the scheduler: dask cannot interrupt a running task."""

    def __init__(self, name: str) -> None:
        from distributed import Event, get_client

        super().__init__()
        self._flag: Any = Event(name, client=get_client())
        self._due = 0.0

    @property
    def cancelled(self) -> bool:
        """Whether a stop was asked for, here or through the scheduler."""
        if not self._event.is_set() and time.monotonic() >= self._due:
            self._due = time.monotonic() + _STOP_POLL_S
            if self._flag.is_set():
                self.cancel()
        return self._event.is_set()
