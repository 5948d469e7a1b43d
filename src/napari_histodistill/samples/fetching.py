"""Slides that are downloaded when, and only when, the user asks for one by name.

Names, sizes, checksums and licences are those of OpenSlide's index of test data
(https://openslide.cs.cmu.edu/download/openslide-testdata/index.json). pooch downloads
beside the final name, checks the SHA-256 and only then moves the file there. What a
server sends is counted, and where it leads is looked at, before any of that.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from napari_histodistill.addresses import WebAddress, is_public
from napari_histodistill.cache import cached
from napari_histodistill.errors import FetchError, InputError
from napari_histodistill.running import CancelToken

if TYPE_CHECKING:
    from collections.abc import Iterator

_OPENSLIDE = "https://openslide.cs.cmu.edu/download/openslide-testdata/"
TIMEOUT_S = 20
"""Time limit for a connection, and for a server that stops sending."""

MAX_HOPS = 5
_PIECE = 1 << 16


@dataclass(frozen=True, slots=True)
class RemoteSlide:
    """A slide on a server.

    Attributes
    ----------
    key : str
        Name that it is requested by.
    title : str
        Name shown to the user.
    file_name : str
        Name of the file on disk.
    size_bytes : int
        Size of the download.
    sha256 : str
        Digest, hex; a file with another one is deleted.
    url : str
        Address of the download.
    licence, source : str
        Its licence, and who states it.
    """

    key: str
    title: str
    file_name: str
    size_bytes: int
    sha256: str
    url: str
    licence: str
    source: str

    @property
    def size_mb(self) -> float:
        """Size of the download in MB (a million bytes)."""
        return self.size_bytes / 1e6

    @property
    def host(self) -> str:
        """The server's name."""
        return urlparse(self.url).hostname or self.url

    def path(self, folder: Path | None = None) -> Path:
        """Return where it is kept, whether it is there yet or not."""
        if folder is not None:
            return folder / self.file_name
        return cached("fetched", self.file_name)


REMOTE = (
    RemoteSlide(
        key="cmu-1-small",
        title="CMU-1, a small region (Aperio, H&E)",
        file_name="CMU-1-Small-Region.svs",
        size_bytes=1_938_955,
        sha256="ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7",
        url=_OPENSLIDE + "Aperio/CMU-1-Small-Region.svs",
        licence="CC0 1.0",
        source="OpenSlide test data",
    ),
    RemoteSlide(
        key="cmu-1",
        title="CMU-1, the whole slide (Aperio, H&E)",
        file_name="CMU-1.svs",
        size_bytes=177_552_579,
        sha256="00a3d54482cd707abf254fe69dccc8d06b8ff757a1663f1290c23418c480eb30",
        url=_OPENSLIDE + "Aperio/CMU-1.svs",
        licence="CC0 1.0",
        source="OpenSlide test data",
    ),
)


@dataclass(frozen=True, slots=True)
class Fetched:
    """Progress of a download; with a path, the file is complete and checked."""

    done_bytes: int
    total_bytes: int
    path: Path | None = None


def remote_slide(key: str) -> RemoteSlide:
    """Return a slide of :data:`REMOTE`.

    Raises
    ------
    InputError
        If there is no slide of this name.
    """
    found = next((r for r in REMOTE if r.key == key), None)
    if found is None:
        known = ", ".join(r.key for r in REMOTE)
        msg = f"There is no slide {key!r} to fetch; choose one of: {known}."
        raise InputError(msg)
    return found


def fetch_slide(key: str, folder: Path | None = None) -> Path:
    """Return a fetched slide, downloading it if it is not here yet.

    Parameters
    ----------
    key : str
        ``"cmu-1-small"`` (1.9 MB) or ``"cmu-1"`` (178 MB).
    folder : Path, optional
        Folder to keep it in; by default one in the user's cache.

    Raises
    ------
    InputError
        If there is no slide of this name.
    FetchError
        If it cannot be downloaded, or is not the right file; nothing is left behind.
    """
    *_, last = fetching(remote_slide(key), folder)
    assert last.path is not None
    return last.path


def fetching(
    slide: RemoteSlide, folder: Path | None = None, *, cancel: CancelToken | None = None
) -> Iterator[Fetched]:
    """Download a slide, with reports; see :func:`fetch_slide`.

    Yields
    ------
    Fetched
        The last one has the path.

    Raises
    ------
    FetchError
        If it cannot be downloaded, or is not the right file.
    Cancelled
        When asked to stop; nothing is left behind.
    """
    token = cancel or CancelToken()
    token.check()
    download = _Download(slide, slide.path(folder).parent, token)
    try:
        while True:
            news = download.next()
            if isinstance(news, Path):
                yield Fetched(slide.size_bytes, slide.size_bytes, news)
                return
            if news is not None:
                yield Fetched(min(news, slide.size_bytes), slide.size_bytes)
            token.check()
    finally:
        # Also reached when the caller stops asking for reports.
        download.close()


class _Download:
    """pooch in a thread, because it calls back and our long work is a generator."""

    def __init__(self, slide: RemoteSlide, folder: Path, token: CancelToken) -> None:
        self._slide, self._folder, self._token = slide, folder, token
        self._news: queue.Queue[int | Path | BaseException] = queue.Queue()
        self._answers: list[Any] = []
        # A daemon: waiting for a server that does not answer cannot be cut short, and
        # must not keep the process from ending.
        self._thread = threading.Thread(
            target=self._run, name="histodistill fetching", daemon=True
        )
        self._thread.start()

    def next(self) -> int | Path | None:
        """Return the bytes so far, the path at the end, or None if there is no news."""
        try:
            news = self._news.get(timeout=0.1)
        except queue.Empty:
            return None
        if isinstance(news, BaseException):
            raise news
        return news

    def close(self) -> None:
        """Break off the download; pooch then removes what it has."""
        if not self._thread.is_alive():
            return
        self._token.cancel()
        for answer in self._answers:
            # urllib3 has shutdown since 2.3; with older ones, a read ends with its time
            # limit. The other thread may just have closed this answer: all the better.
            with contextlib.suppress(OSError, ValueError, RuntimeError):
                getattr(answer.raw, "shutdown", lambda: None)()
        self._thread.join(2)

    def _run(self) -> None:
        import pooch
        from requests import RequestException
        from urllib3.exceptions import HTTPError

        slide = self._slide
        news: int | Path | BaseException
        try:
            path = pooch.retrieve(
                slide.url,
                known_hash=f"sha256:{slide.sha256}",
                fname=slide.file_name,
                path=self._folder,
                downloader=self._download,
            )
            news = Path(path)
        except ValueError:
            news = FetchError(
                f"{slide.file_name} from {slide.host} is not the file it should be "
                "(its SHA-256 differs) and was deleted: try again now or later."
            )
        except (RequestException, HTTPError, InputError, OSError) as error:
            news = FetchError(_why_it_failed(slide, error))
        except BaseException as error:  # noqa: BLE001 - raised again where it is read
            news = error
        finally:
            for answer in self._answers:
                answer.close()  # pooch leaves it open if the download was broken off
        self._news.put(news)

    def _download(self, url: str, output_file: str, _pooch: object) -> None:
        """Download to a file; pooch calls it."""
        import requests

        first = address = WebAddress.parse(url)
        with requests.Session() as session:
            # Otherwise it reads the whole body of a redirect, even of one it does not
            # follow.
            session.get_redirect_target = _nowhere
            for _ in range(MAX_HOPS + 1):
                answer = session.get(
                    address.url,
                    stream=True,
                    timeout=TIMEOUT_S,
                    allow_redirects=False,
                    headers={"Accept-Encoding": "identity"},
                )
                self._answers.append(answer)
                if not answer.is_redirect:
                    answer.raise_for_status()
                    self._write(answer, Path(output_file))
                    return
                address = address.led_to(answer.headers["location"])
                if first.is_beyond(address):
                    _refuse_private(address)
                answer.close()  # unread: the body of a redirect may have no end
        msg = f"it redirects more than {MAX_HOPS} times"
        raise InputError(msg)

    def _write(self, answer: Any, path: Path) -> None:
        """Write what comes, as it comes; more than the slide has is never written."""
        done = 0
        with path.open("wb") as file:
            # Not unpacked: whatever a server compresses is not the file.
            for piece in answer.raw.stream(_PIECE, decode_content=False):
                self._token.check()
                done += len(piece)
                if done > self._slide.size_bytes:
                    msg = (
                        f"it sends more than the {self._slide.size_mb:.3g} MB there are"
                    )
                    raise InputError(msg)
                file.write(piece)
                self._news.put(done)


def _nowhere(_answer: object) -> None:
    """Return where to go on after an answer: we look at that ourselves."""


def _refuse_private(address: WebAddress) -> None:
    """Refuse a redirect to this machine or its network.

    Raises
    ------
    InputError
        If so.
    """
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    if not all(is_public(str(entry[4][0])) for entry in found):
        msg = "it redirects into this machine or its network"
        raise InputError(msg)


def _why_it_failed(slide: RemoteSlide, error: Exception) -> str:
    answer = getattr(error, "response", None)
    why = "no connection, or it broke off"
    if isinstance(error, InputError):
        why = str(error).rstrip(".")
    elif answer is not None:
        why = f"the server answered {answer.status_code}"
    elif getattr(error, "errno", None) is not None and getattr(error, "strerror", None):
        why = f"{error.strerror}"  # type: ignore[attr-defined]
    return (
        f"{slide.file_name} could not be fetched from {slide.host} ({why}): try again, "
        f"or download {slide.url} yourself and open it."
    )
