"""The command that trains the same again, quoted for the shell it is pasted into."""

from __future__ import annotations

import re
import shlex
import sys
from enum import Enum
from typing import TYPE_CHECKING

from napari_histodistill.distill.runs.folder import CONFIG, run_data

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_SAFE = re.compile(r"[A-Za-z0-9_./\\:=+-]+")
_OBEYED = re.compile('([`$"\u201c\u201d\u201e])')
"""What PowerShell obeys inside double quotes; curly quotes end a text there, too."""


class Shell(Enum):
    """A shell, by the name that people know it by."""

    POSIX = "bash, zsh or another POSIX shell"
    POWERSHELL = "PowerShell"


def shell_here() -> Shell:
    """Return the shell that people have on this machine."""
    return Shell.POWERSHELL if sys.platform == "win32" else Shell.POSIX


def quoted(words: Sequence[str], shell: Shell) -> str:
    """Return words as one line that a shell takes apart into the same words.

    For PowerShell the quotes are double ones, so that the line means the same in
    Windows' older cmd, as long as no name has a ``%`` or something that PowerShell
    obeys.

    Parameters
    ----------
    words : sequence of str
        A command and its arguments.
    shell : Shell
        The one it is for.

    Examples
    --------
    >>> print(quoted(["distill", "two words", "$HOME"], Shell.POSIX))
    distill 'two words' '$HOME'
    >>> print(quoted(["distill", "two words", "$HOME"], Shell.POWERSHELL))
    distill "two words" "`$HOME"
    """
    if shell is Shell.POSIX:
        return shlex.join(words)
    return " ".join(w if _SAFE.fullmatch(w) else _in_quotes(w) for w in words)


def _in_quotes(word: str) -> str:
    inside = _OBEYED.sub(r"`\1", word)
    return f'"{inside}"'


def command_again(
    folder: Path,
    *,
    threads: int | None = None,
    shell: Shell | None = None,
    seed: int | None = None,
) -> str:
    """Return the command that trains a run's recipe on its pairs into a new folder.

    Parameters
    ----------
    folder : Path
        Folder of the run.
    threads : int or None
        CPU threads, where the run was given a number: results are rounded differently
        with another number.
    shell : Shell, optional
        The shell it is quoted for; this machine's by default.
    seed : int or None
        Another seed than the recipe's.

    Raises
    ------
    InputError
        If the folder is not a run.
    """
    home = folder.absolute()
    words = [
        *("histodistill", "distill", str(home / CONFIG)),
        *("--data", str(run_data(folder))),
        *("-o", str(home.with_name(f"{home.name}-{_ending(seed)}"))),
    ]
    words += [*_seed(seed), *_threads(threads)]
    return quoted(words, shell or shell_here())


def command_in_folder(
    folder: Path, *, threads: int | None = None, seed: int | None = None
) -> str:
    """Return the same for a reader elsewhere: relative to the run, without its place.

    Pairs that lie outside of the run are called ``PAIRS``: their path may name a
    person, a project or a case.
    """
    data = run_data(folder)
    inside = data.parent == folder.absolute()
    words = ["histodistill", "distill", CONFIG]
    words += ["--data", data.name if inside else "PAIRS", "-o", f"../{_ending(seed)}"]
    return quoted([*words, *_seed(seed), *_threads(threads)], Shell.POSIX)


def _ending(seed: int | None) -> str:
    return "again" if seed is None else f"seed-{seed}"


def _seed(seed: int | None) -> list[str]:
    return [] if seed is None else ["--seed", str(seed)]


def _threads(threads: int | None) -> list[str]:
    return [] if threads is None else ["--threads", str(threads)]
