"""A dask cluster that is no cluster: tasks run at once, or never, in this process."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any


class FakeFuture:
    """Ends when told to, with a value or an exception."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.ended = False
        self.value: Any = None

    def done(self) -> bool:
        return self.ended

    def end(self, value: Any) -> None:
        self.ended, self.value = True, value

    def result(self) -> Any:
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


class FakeClient:
    """Keeps what was submitted; runs it at once if ``runs``.

    Functions, tasks and results are pickled and read again, as on a real cluster.
    """

    def __init__(self, *, runs: bool = False, workers: int = 1) -> None:
        self.runs, self.workers = runs, workers
        self.futures: list[FakeFuture] = []
        self.sent: list[tuple[Any, ...]] = []
        self.options: list[dict[str, Any]] = []
        self.cancelled: list[str] = []
        self.on_workers: list[str] = []
        self.closed = False

    def __enter__(self) -> FakeClient:
        return self

    def __exit__(self, *_error: object) -> None:
        self.closed = True

    def submit(self, function, *arguments, key, **options) -> FakeFuture:
        work, given = pickle.loads(pickle.dumps((function, arguments)))
        self.sent.append(given)
        self.options.append(options)
        future = FakeFuture(key)
        self.futures.append(future)
        if self.runs:
            try:
                future.end(pickle.loads(pickle.dumps(work(*given))))
            except Exception as error:  # noqa: BLE001 - handed over, as dask does
                future.end(pickle.loads(pickle.dumps(error)))
        return future

    def nthreads(self) -> dict[str, int]:
        return {f"tcp://worker:{k}": 1 for k in range(self.workers)}

    def processing(self) -> dict[str, tuple[str, ...]]:
        return {"tcp://worker:0": tuple(self.on_workers)}

    def cancel(self, futures) -> None:
        self.cancelled += [future.key for future in futures]


class FakeDistributed(SimpleNamespace):
    """Stands in for the module ``distributed``: events, and nothing else."""

    def __init__(self) -> None:
        self.flags: dict[str, bool] = {}
        self.asked = 0
        self.on_set = lambda: None
        fake = self

        class Event:
            def __init__(self, name: str, client: object) -> None:
                self.name = name

            def set(self) -> None:
                fake.flags[self.name] = True
                fake.on_set()

            def clear(self) -> None:
                del fake.flags[self.name]

            def is_set(self) -> bool:
                fake.asked += 1
                return fake.flags.get(self.name, False)

        self.Event = Event
        self.get_client = lambda: None
