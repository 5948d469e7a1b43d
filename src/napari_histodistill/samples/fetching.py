"""Slides that are fetched when, and only when, somebody asks for one by name.

Names, sizes, checksums and licences are those of OpenSlide's index of test data
(https://openslide.cs.cmu.edu/download/openslide-testdata/index.json). pooch downloads
beside the final name, checks the SHA-256 and only then moves the file there.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from napari_histodistill.cache import cache_dir
from napari_histodistill.errors import FetchError, InputError
from napari_histodistill.running import CancelToken

if TYPE_CHECKING:
    from collections.abc import Iterator

_OPENSLIDE = "https://openslide.cs.cmu.edu/download/openslide-testdata/"
TIMEOUT_S = 20
"""Of a connection, and of a server that sends nothing more."""


@dataclass(frozen=True, slots=True)
class RemoteSlide:
    """A slide elsewhere.

    Attributes
    ----------
    key : str
        What it is asked for by.
    title : str
        What people call it.
    file_name : str
        On disk.
    size_bytes : int
        Of the download.
    sha256 : str
        Hex; a file with another one is deleted.
    url : str
        Where it is.
    licence, source : str
        Under which terms, and who says so.
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
        """Of the download, MB of a million bytes."""
        return self.size_bytes / 1e6

    @property
    def host(self) -> str:
        """The server's name."""
        return urlparse(self.url).hostname or self.url

    def path(self, folder: Path | None = None) -> Path:
        """Return where it is kept, there or not."""
        return (cache_dir("fetched") if folder is None else folder) / self.file_name


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
    """How much is here; with a path, all of it, and checked."""

    done_bytes: int
    total_bytes: int
    path: Path | None = None


def remote_slide(key: str) -> RemoteSlide:
    """Return a slide of :data:`REMOTE`.

    Raises
    ------
    InputError
        If there is none of this key.
    """
    found = next((r for r in REMOTE if r.key == key), None)
    if found is None:
        msg = f"There is no slide {key!r} to fetch: {', '.join(r.key for r in REMOTE)}."
        raise InputError(msg)
    return found


def fetch_slide(key: str, folder: Path | None = None) -> Path:
    """Return a fetched slide, downloading it if it is not here yet.

    Parameters
    ----------
    key : str
        ``"cmu-1-small"`` (1.9 MB) or ``"cmu-1"`` (178 MB).
    folder : Path, optional
        Where to keep it; a folder of the user's cache by default.

    Raises
    ------
    InputError
        If there is none of this key.
    FetchError
        If it cannot be had, or is not what it should be; nothing is left behind.
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
        If it cannot be had.
    Cancelled
        When asked to stop; nothing is left behind.
    """
    token = cancel or CancelToken()
    token.check()
    download = _Download(slide, slide.path(folder).parent, token)
    try:
        while True:
            told = download.next()
            if isinstance(told, Path):
                yield Fetched(slide.size_bytes, slide.size_bytes, told)
                return
            if told is not None:
                yield Fetched(min(told, slide.size_bytes), slide.size_bytes)
            token.check()
    finally:
        # Also where nobody asks for the next report any more.
        download.close()


class _Download:
    """pooch in a thread: it calls back, our work yields."""

    def __init__(self, slide: RemoteSlide, folder: Path, token: CancelToken) -> None:
        self._slide, self._folder, self._token = slide, folder, token
        self._news: queue.Queue[int | Path | BaseException] = queue.Queue()
        self._answers: list[Any] = []
        # Waiting for a server that does not answer cannot be cut short; the process
        # must not wait for it, too.
        self._thread = threading.Thread(
            target=self._run, name="histodistill fetching", daemon=True
        )
        self._thread.start()

    def next(self) -> int | Path | None:
        """Return bytes so far, the path at the end, None if there is no news."""
        try:
            told = self._news.get(timeout=0.1)
        except queue.Empty:
            return None
        if isinstance(told, BaseException):
            raise told
        return told

    def close(self) -> None:
        """Break off what is going on; pooch then removes what it has."""
        if not self._thread.is_alive():
            return
        self._token.cancel()
        for answer in self._answers:
            # Since urllib3 2.3; before, a read ends with its time limit. The other
            # thread may have closed this very answer a moment ago: then that is done.
            with contextlib.suppress(OSError, ValueError, RuntimeError):
                getattr(answer.raw, "shutdown", lambda: None)()
        self._thread.join(2)

    def _run(self) -> None:
        import pooch
        from requests import RequestException

        slide = self._slide
        told: int | Path | BaseException
        try:
            path = pooch.retrieve(
                slide.url,
                known_hash=f"sha256:{slide.sha256}",
                fname=slide.file_name,
                path=self._folder,
                downloader=pooch.HTTPDownloader(
                    progressbar=_Told(self._news, self._token),
                    timeout=TIMEOUT_S,
                    chunk_size=1 << 16,
                    hooks={"response": self._remember},
                ),
            )
            told = Path(path)
        except ValueError:
            told = FetchError(
                f"{slide.file_name} from {slide.host} is not the file it should be "
                "(its SHA-256 differs) and was deleted: try again, or another time."
            )
        except (RequestException, OSError) as error:
            told = FetchError(_no_luck(slide, error))
        except BaseException as error:  # noqa: BLE001 - raised again where it is read
            told = error
        finally:
            for answer in self._answers:
                answer.close()  # pooch leaves it open where it was broken off
        self._news.put(told)

    def _remember(self, answer: Any, *_args: Any, **_kwargs: Any) -> None:
        self._answers.append(answer)


class _Told:
    """What pooch takes for a progress bar."""

    def __init__(self, news: queue.Queue[Any], token: CancelToken) -> None:
        self.news, self.token = news, token
        self.total = self.done = 0

    def update(self, count: int) -> None:
        self.token.check()
        self.done += count
        self.news.put(self.done)

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        pass


def _no_luck(slide: RemoteSlide, error: Exception) -> str:
    answer = getattr(error, "response", None)
    why = "no connection, or it broke off"
    if answer is not None:
        why = f"the server answered {answer.status_code}"
    elif getattr(error, "errno", None) is not None and getattr(error, "strerror", None):
        why = f"{error.strerror}"  # type: ignore[attr-defined]
    return (
        f"{slide.file_name} could not be fetched from {slide.host} ({why}): try again, "
        f"or download {slide.url} yourself and open it."
    )
