"""Programs as real processes that need not load torch again: forked from one that has.

Loading takes seconds of computing, often ten times what a test is about. What is
started here is a process of its own all the same, with its own files, signals and
memory, and can be killed. Where processes cannot be forked safely (Windows, macOS), it
is started afresh.
"""

from __future__ import annotations

import importlib
import multiprocessing
import multiprocessing.context
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

CLI = "napari_histodistill.cli"
DASK = "dask.__main__"
SPOTS = "napari_histodistill.distill.spots.spot_process"
TAKE_WORDS = CLI, SPOTS
"""Programs whose ``main`` is handed the words; that of others looks for them."""

PIPED = "piped"

_LOADED = (
    CLI,
    DASK,
    "distributed",
    "distributed.cli.dask_scheduler",
    "distributed.cli.dask_worker",
    "napari_histodistill.maps.cohort",
    "napari_histodistill.export",
    "napari_histodistill.students.backends.build",
    "lightning_fabric",
    "napari_histodistill.distill.runs.parallel",
    "napari_histodistill.distill.runs.run",
    "napari_histodistill.distill.training.trainer",
    "napari_histodistill.distill.runs.student",
    SPOTS,
    "napari_histodistill.distill.spots.h5ad_files",
    "napari_histodistill.distill.spots.space_ranger",
    "napari_histodistill.distill.spots.xenium",
    "napari_histodistill.distill.spots.zarr_tables",
    "h5py",
    "pandas",
    "zarr",
    "scipy.ndimage",
    "sklearn.linear_model",
)
ROOT = Path(__file__).parents[1]
ASKING = """#!/bin/sh
mkdir "$ASKED/$$" && cd "$ASKED/$$" || exit 99
mkfifo code
printf '%s\\0' "$OLDPWD" "$@" > unfinished
mv unfinished words
read -r code < code
cat out
cat err >&2
exit "$code"
"""
"""A command that has another process run it, and waits for what comes of it."""
FORKS = sys.platform == "linux"


class Forked:
    """A forked program; as much of ``subprocess.Popen`` as the tests use."""

    def __init__(self, process: Any, said: Path) -> None:
        self._process, self._said = process, said
        self._printed: tuple[str, str] | None = None
        self.pid: int = process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code; minus the signal's number if one ended it."""
        code: int | None = self._process.exitcode
        return code

    def poll(self) -> int | None:
        """Return the exit code of a process that ended."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if the process lives."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end."""
        self._process.join(timeout)
        code = self.returncode
        if code is None:
            raise subprocess.TimeoutExpired("a forked program", timeout or 0.0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end; return what was printed to stdout and to stderr."""
        self.wait(timeout)
        if self._printed is None:
            out, err = (
                (self._said / name).read_text("utf-8", errors="replace")
                for name in ("out", "err")
            )
            shutil.rmtree(self._said)
            self._printed = out, err
        return self._printed


class ForkedQuietly(Forked):
    """A forked program that says nothing, or something on a pipe to stderr."""

    def __enter__(self) -> ForkedQuietly:
        return self

    def __exit__(self, *_error: object) -> None:
        self.wait()

    def communicate(self, timeout: float | None = None) -> Any:
        """Wait for the end; return what was printed to stderr, as bytes."""
        self.wait(timeout)
        return None, (self._said / PIPED).read_bytes()

    def end(self) -> None:
        """Let nothing remain of it."""
        self.kill()
        self.wait()
        shutil.rmtree(self._said)


Started = Forked | subprocess.Popen[str]


def start_fresh(
    arguments: Sequence[object], *, program: str = CLI, **options: Any
) -> subprocess.Popen[str]:
    """Start a program as its users do: a new interpreter that loads all it needs."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        [sys.executable, "-m", program.removesuffix(".__main__"), *_words(arguments)],
        env=_environment(),
        **(pipes | options),
    )


def start_forked(arguments: Sequence[object]) -> Started:
    """Start the command line where all is loaded already."""
    if not FORKS:
        return start_fresh(arguments)
    said = Path(tempfile.mkdtemp(prefix="histodistill-said-"))
    return start_logged(arguments, program=CLI, said=said)


def start_logged(
    arguments: Sequence[object], *, program: str, said: Path, cwd: Path = ROOT
) -> Started:
    """Start a program, a module with ``main``, that prints to files named out and err.

    A file, not a pipe: nobody reads what a server prints, and a pipe would fill.
    """
    said.mkdir(parents=True, exist_ok=True)
    if not FORKS:
        with (said / "out").open("wb") as out, (said / "err").open("wb") as err:
            how = {"program": program, "cwd": cwd, "stdout": out, "stderr": err}
            return start_fresh(arguments, **how)
    for name in ("out", "err"):  # nobody takes what an earlier one said for this one's
        (said / name).write_bytes(b"")
    files = str(said / "out"), str(said / "err")
    return Forked(_forked(program, _words(arguments), files, cwd, _environment()), said)


@contextmanager
def forking(module: ModuleType) -> Iterator[None]:
    """Let what a module starts by ``python_command`` be forked; end it afterwards.

    For tests of what such a process does and says, not of how it comes to be. Other
    commands, which a test may put in its place, are started.
    """
    if not FORKS:
        yield
        return
    started: list[ForkedQuietly] = []

    def fork(command: Sequence[str], **options: Any) -> Any:
        if "-m" not in command:
            return subprocess.Popen(command, **options)
        program, *words = command[command.index("-m") + 1 :]
        said = Path(tempfile.mkdtemp(prefix="histodistill-said-"))
        files = tuple(_place(options[name], said) for name in ("stdout", "stderr"))
        process = _forked(program, words, files, ROOT, dict(options["env"]))
        started.append(ForkedQuietly(process, said))
        return started[-1]

    stand_in = SimpleNamespace(**vars(subprocess) | {"Popen": fork})
    try:
        with patch.object(module, "subprocess", stand_in):
            yield
    finally:
        for process in started:
            process.end()


def _place(stream: Any, said: Path) -> str:
    """Return the file that is written to for one of ``Popen``'s streams."""
    if stream == subprocess.DEVNULL:
        return os.devnull
    if stream == subprocess.PIPE:
        (said / PIPED).touch()
        return str(said / PIPED)
    # The file itself, whatever name it was opened by.
    return str(Path(f"/proc/self/fd/{stream.fileno()}").readlink())


def _forked(
    program: str,
    words: list[str],
    files: tuple[str, ...],
    cwd: Path,
    environment: dict[str, str],
) -> Any:
    how = (program, words, files, cwd, environment)
    process = preload().Process(target=_run, args=how)
    process.start()
    return process


def run_script(
    command: Sequence[object], *, env: dict[str, str], timeout: float
) -> tuple[int, str]:
    """Run a shell script; every ``histodistill`` in it is a forked program.

    Returns
    -------
    code : int
        Its exit code.
    said : str
        What it and its commands printed to stderr.
    """
    with tempfile.TemporaryDirectory(prefix="histodistill-asked-") as home:
        command_file = Path(home) / "histodistill"
        command_file.write_text(ASKING)
        command_file.chmod(0o755)
        path = os.pathsep.join([home, env["PATH"]])
        until = time.monotonic() + timeout
        with (Path(home) / "err").open("w") as err:
            script = subprocess.Popen(
                _words(command), env={**env, "ASKED": home, "PATH": path}, stderr=err
            )
        while script.poll() is None:
            for asked in Path(home).glob("*/words"):
                _answer(asked, until - time.monotonic())
            if time.monotonic() > until:
                script.kill()
            time.sleep(0.02)
        return script.returncode, (Path(home) / "err").read_text("utf-8")


def _answer(asked: Path, timeout: float) -> None:
    cwd, *words = asked.read_text("utf-8").split("\0")[:-1]
    asked.unlink()
    how = {"program": CLI, "said": asked.parent, "cwd": Path(cwd)}
    code = start_logged(words, **how).wait(timeout)
    (asked.parent / "code").write_text(f"{code}\n")


def preload() -> multiprocessing.context.ForkServerContext:
    """Return what forks from a process that has loaded everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*_LOADED, __name__])
    return context


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def _words(arguments: Sequence[object]) -> list[str]:
    return [str(word) for word in arguments]


def _run(
    program: str,
    words: list[str],
    files: tuple[str, ...],
    cwd: Path,
    environment: dict[str, str],
) -> None:
    # What a new interpreter would have from its parent.
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for number, path in enumerate(files, 1):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False, buffering=1)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False, buffering=1)
    sys.argv = [program, *words]
    import dask
    import torch

    dask.config.refresh()  # read the environment when it was imported, before

    torch.set_num_threads(1)
    main = importlib.import_module(program).main
    try:
        code = main(words) if program in TAKE_WORDS else main()
    finally:
        sys.stdout.flush()
    sys.exit(code)
