"""Files in folders that a stranger may have sent: whole or not at all, through no link.

A folder from somebody else may hold a link, a pipe or a second name of one's own file
where this package keeps a file of its own. So nothing is opened to be written before
it is known to be a plain file with one name, and what is written whole is written under
a new name and renamed: a rename replaces a link, it never follows one. The same steps
keep a full disk or a killed process from leaving half a file behind.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
# A pipe that nobody writes to must be refused, not waited for.
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)
_BINARY = getattr(os, "O_BINARY", 0)

_BEATEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT}
"""What a rename answers where another process was faster."""

OLD = ".old"
"""Ending of a folder that made room for its successor."""

_RETRIES, _RETRY_S = 20, 0.05
"""Windows: a virus scanner or an indexer may hold a file open for a moment."""


def write_whole(path: Path, content: bytes | str, *, private: bool = False) -> None:
    """Write a file under a new name beside its place, then rename it there.

    Parameters
    ----------
    path : Path
        What is there before, a link too, is replaced.
    content : bytes or str
        Text is written as UTF-8, line ends as they are.
    private : bool
        Nobody else may read it, whatever the umask says.

    Raises
    ------
    OSError
        If it cannot be written; what was there before is untouched.
    """
    with written_beside(path) as beside, open_new(beside, private=private) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Give a new name beside a place; when the block ends well it is renamed there.

    For libraries that write to a path. The name cannot be guessed, so nobody can have
    put a link there.

    Parameters
    ----------
    path : Path
        Where the file goes.

    Yields
    ------
    Path
        Where to write; keeps the suffix, which libraries choose a format by.
    """
    beside = path.with_name(f".{secrets.token_hex(6)}-{path.name}")
    try:
        yield beside
        rename(beside, path)
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def is_beside(name: str, *finals: str) -> bool:
    """Return whether a name is one that :func:`written_beside` made for these."""
    return any(re.fullmatch(rf"\.[0-9a-f]{{12}}-{re.escape(f)}", name) for f in finals)


def is_plain(path: Path) -> bool:
    """Return whether there is a file under a name, and no link or pipe."""
    try:
        _refuse_kind(path, path.lstat())
    except OSError:
        return False
    return True


def read_plain(path: Path, most: int, *, last: bool = False) -> bytes:
    """Return what a plain file holds, or its beginning.

    Parameters
    ----------
    path : Path
        The file.
    most : int
        Bytes that are read; a file that is larger is cut, so ask for one more than a
        good one can have.
    last : bool
        Take the end instead.

    Raises
    ------
    FileExistsError
        If it is a link, a pipe or a device, which may have no end.
    OSError
        If it cannot be read.
    """
    _refuse_kind(path, path.lstat())
    handle = os.open(path, os.O_RDONLY | _NO_FOLLOW | _NO_WAIT | _BINARY)
    with os.fdopen(handle, "rb") as file:
        _refuse_kind(path, os.fstat(handle))
        if last:
            file.seek(max(0, file.seek(0, os.SEEK_END) - most))
        return file.read(most)


def open_new(path: Path, *, private: bool = False) -> BinaryIO:
    """Open an empty file for writing, in place of whatever has its name.

    For what is written over minutes (a log): it is there from the first byte on.

    Parameters
    ----------
    path : Path
        The file.
    private : bool
        Nobody else may read it, whatever the umask says.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    path.unlink(missing_ok=True)  # a link is removed, not followed
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW | _BINARY
    # 0o666 less the umask: a file that others may read as any other of the user's.
    return os.fdopen(os.open(path, flags, 0o600 if private else 0o666), "wb")


def open_own(path: Path, *, create: bool = False, append: bool = False) -> BinaryIO:
    """Open a plain file with one name for reading and writing; nothing is emptied.

    Parameters
    ----------
    path : Path
        The file.
    create : bool
        Make it where there is nothing.
    append : bool
        Every write goes to the end.

    Raises
    ------
    FileExistsError
        If it is a link, a pipe, a device, or has a second name: writing to it would
        change something that lies elsewhere.
    OSError
        If it cannot be opened.
    """
    flags = os.O_RDWR | _NO_FOLLOW | _NO_WAIT | _BINARY
    flags |= (os.O_CREAT if create else 0) | (os.O_APPEND if append else 0)
    _refuse_special(path)
    handle = os.open(path, flags, 0o666)
    try:
        found = os.fstat(handle)
        _refuse_kind(path, found)
        if found.st_nlink > 1:
            msg = "it has a second name elsewhere (a hard link)"
            raise FileExistsError(17, msg, str(path))
        if not _NO_FOLLOW:  # Windows: what was opened is what was looked at
            _refuse_special(path)
    except BaseException:
        os.close(handle)
        raise
    return os.fdopen(handle, "ab+" if append else "rb+")


def without_home(text: str) -> str:
    """Return a text in which the user's own folder, whose name is a person's, is ``~``.

    Examples
    --------
    >>> without_home(f"{Path.home()}/runs/one: not there")
    '~/runs/one: not there'
    """
    try:
        home = str(Path.home())
    except RuntimeError:  # nobody's: there is no such folder
        return text
    # Never "/", the home of some services.
    return re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text) if len(home) > 1 else text


def check_tree(folder: Path) -> None:
    """Refuse a folder in which anything is a link, a pipe, a socket or a device.

    Called before a folder that may come from a stranger is continued or written to.

    Raises
    ------
    ValueError
        Naming the first such thing: reading a link to ``/dev/zero`` would never end,
        writing through a link would change a file elsewhere.
    """
    for _entry, _kind in walk(folder):
        pass


def walk(folder: Path) -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
    """Yield every plain file below a folder, and refuse what is none.

    Raises
    ------
    ValueError
        Naming what is a link or no file.
    """
    folders = [str(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                kind = entry.stat(follow_symlinks=False)
                if entry.is_symlink() or _is_reparse(kind):
                    msg = f"{entry.name} is a link; copy the files themselves"
                    raise ValueError(msg)
                if stat.S_ISDIR(kind.st_mode):
                    folders.append(entry.path)
                elif stat.S_ISREG(kind.st_mode):
                    yield entry, kind
                else:
                    msg = f"{entry.name} is not a file"
                    raise ValueError(msg)


def put_folder(made: Path, target: Path) -> None:
    """Give a finished folder its name; the one before it goes last.

    Old or new always stands under the name: if the new one cannot take its place, the
    old one gets it back. A process that is killed between the two renames leaves the
    old one beside it, where :func:`recover` finds it.

    Parameters
    ----------
    made : Path
        The finished folder, on the same disk.
    target : Path
        The name it gets.

    Raises
    ------
    OSError
        If it cannot be renamed; the old folder stands where it was.
    """
    for last in (False, False, True):
        try:
            _put_folder(made, target)
        except OSError as error:
            # Another process put its own there, or took the old one away, between our
            # look and our rename. Both are whole: the later one stays.
            if last or error.errno not in _BEATEN or not made.exists():
                raise
        else:
            return


def _put_folder(made: Path, target: Path) -> None:
    if not target.exists():
        rename(made, target)
        return
    old = target.with_name(f".{target.name}.{secrets.token_hex(4)}{OLD}")
    rename(target, old)
    try:
        rename(made, target)
    except OSError:
        if not target.exists():
            rename(old, target)
        else:
            remove_tree(old)
        raise
    remove_tree(old)


def recover(target: Path) -> bool:
    """Give a folder its name back that a killed process had put aside.

    Parameters
    ----------
    target : Path
        A name that may have nothing under it.

    Returns
    -------
    bool
        Whether something was found and put back.
    """
    if target.exists() or target.is_symlink():
        return False
    pattern = f".{target.name}."
    try:
        beside = [
            entry
            for entry in target.parent.iterdir()
            if entry.name.startswith(pattern) and entry.name.endswith(OLD)
        ]
        if len(beside) != 1 or beside[0].is_symlink() or not beside[0].is_dir():
            return False
        rename(beside[0], target)
    except OSError:
        return False
    return True


def remove_tree(folder: Path) -> None:
    """Delete a folder of ours; a link in it is removed, never followed."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def rename(source: Path, target: Path) -> None:
    """Rename, replacing a file; on Windows again while somebody looks at it.

    Raises
    ------
    OSError
        If it stays impossible.
    """
    for _ in range(_RETRIES if sys.platform == "win32" else 0):
        try:
            source.replace(target)
        except PermissionError:
            time.sleep(_RETRY_S)
        else:
            return
    source.replace(target)


def _refuse_special(path: Path) -> None:
    with suppress(FileNotFoundError):
        _refuse_kind(path, path.lstat())


def _refuse_kind(path: Path, found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode) or _is_reparse(found):
        msg = "it is a link"
    elif not stat.S_ISREG(found.st_mode):
        msg = "it is not a plain file"
    else:
        return
    raise FileExistsError(17, msg, str(path))


def _is_reparse(found: os.stat_result) -> bool:
    """Whether it is a junction or another link of Windows, which no mode tells."""
    attributes = getattr(found, "st_file_attributes", 0)
    return bool(attributes & getattr(stat, "FILE_ATTRIBUTE_REPARSE_POINT", 0))
