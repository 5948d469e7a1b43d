"""Where output goes: results to stdout, all else to stderr. Ctrl-C asks to stop."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, TextIO
from unicodedata import category

from napari_histodistill.running import CancelToken

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_histodistill.maps import EmbedReport


class Answer:
    """The one result of a command.

    Parameters
    ----------
    stdout : TextIO
        The real one: while a command runs, ``print`` goes to stderr.
    as_json : bool
        One JSON object instead of text for people.
    """

    def __init__(self, stdout: TextIO, *, as_json: bool) -> None:
        self._stdout, self._as_json = stdout, as_json

    def give(self, result: dict[str, Any], text: str) -> None:
        """Print the result: all of it as JSON, or the text."""
        out = (
            json.dumps(result, ensure_ascii=False, indent=2) if self._as_json else text
        )
        out = encodable(out) if self._as_json else printable(out)
        if out:
            print(out, file=self._stdout)


@contextmanager
def answering(*, as_json: bool) -> Iterator[Answer]:
    """Keep stdout for the answer: whatever libraries print meanwhile goes to stderr.

    An answer is never lost to a stdout that cannot encode a letter: JSON is UTF-8
    whatever the locale says, and text gets a question mark instead.
    """
    stdout = sys.stdout
    reconfigure = getattr(stdout, "reconfigure", None)
    if reconfigure:
        reconfigure(**({"encoding": "utf-8"} if as_json else {"errors": "replace"}))
    with redirect_stdout(sys.stderr):
        yield Answer(stdout, as_json=as_json)


def encodable(text: str) -> str:
    r"""Write as JSON would (``\udce9``) what has no place on a terminal or in UTF-8.

    Lone surrogates, of names that are not UTF-8, and the controls that JSON leaves as
    they are: some terminals obey them as they do an escape sequence.
    """
    return "".join(f"\\u{ord(c):04x}" if _is_odd(c) else c for c in text)


def _is_odd(letter: str) -> bool:
    return letter != "\n" and category(letter) in {"Cc", "Cs"}


def printable(text: str) -> str:
    """Replace what a terminal would obey: names may hold escape sequences."""
    return "".join(c if c in "\n\t" or category(c)[0] != "C" else "�" for c in text)


def tell(message: str) -> None:
    """Print a line for the user on stderr."""
    print(printable(message), file=sys.stderr)


@contextmanager
def interruptible() -> Iterator[CancelToken]:
    """Turn the first Ctrl-C into a request to stop; the second one stops at once."""
    token = CancelToken()

    def ask(_signal: int, _frame: object) -> None:
        if token.cancelled:
            raise KeyboardInterrupt
        token.cancel()
        # Not print: the signal may arrive in the middle of another one.
        os.write(2, b"\nStopping; what is done is kept. Ctrl-C again stops at once.\n")

    if threading.current_thread() is not threading.main_thread():
        yield token
        return
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield token
    finally:
        signal.signal(signal.SIGINT, before)


def follow(reports: Iterator[EmbedReport], title: str) -> EmbedReport:
    """Drive a run and show its progress on stderr; return its last report."""
    if sys.stderr.isatty():
        return _follow_bar(reports, title)
    return _follow_lines(reports, title)


def _follow_bar(reports: Iterator[EmbedReport], title: str) -> EmbedReport:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn

    # The title is a file's name: never part of a format, of markup, or of control.
    columns = (
        TextColumn("{task.description} {task.percentage:>3.0f} %"),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
    )
    console = Console(stderr=True)
    last = None
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(escape(printable(title)), total=None, state="")
        for last in reports:
            if last.message:
                bar.print(printable(last.message), markup=False)
            state = (
                f"{last.cells_per_s:.0f} squares/s · {_clock(last.seconds_left)} left"
            )
            bar.update(task, total=last.total, completed=last.done, state=state)
    assert last is not None  # the engine's first report comes before any work
    return last


def _follow_lines(
    reports: Iterator[EmbedReport], title: str, *, every_s: float = 10
) -> EmbedReport:
    last, said = None, time.monotonic()
    for last in reports:
        if last.message:
            tell(f"{title}: {last.message}")
        if time.monotonic() - said >= every_s:
            said = time.monotonic()
            left = _clock(last.seconds_left)
            tell(f"{title}: {last.done} of {last.total} squares, {left} left")
    assert last is not None  # the engine's first report comes before any work
    return last


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
