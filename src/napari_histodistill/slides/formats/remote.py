"""OME-Zarr over HTTP: chunks are fetched when needed; nothing is uploaded.

Needs the extra ``http`` (``pip install "napari-histodistill[http]"``).
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import numpy as np

from napari_histodistill.errors import SlideError
from napari_histodistill.slides.codecs.decoding import reason
from napari_histodistill.slides.formats.omezarr import ZarrContainer, slide_of_group
from napari_histodistill.slides.formats.zarr_levels import ZARR_ERRORS

if TYPE_CHECKING:
    import os

    from napari_histodistill.slides.pyramid.slide import Slide

CONNECT_S, ANSWER_S = 10.0, 60.0
"""Seconds to wait for a connection, and for one answer."""


def url_of(path: str | os.PathLike[str]) -> str | None:
    """Return the http(s) address in a path, or None; ``Path`` drops one slash of it."""
    text = str(path).replace("\\", "/")
    found = re.fullmatch(r"(https?):/+(.+)", text, flags=re.IGNORECASE)
    return f"{found[1].lower()}://{found[2].rstrip('/')}" if found else None


def open_remote(url: str, *, image: str | int | None = None) -> Slide:
    """Open an OME-Zarr image over HTTP.

    Parameters
    ----------
    url : str
        Address of the image's folder, without user or password.
    image : str or int, optional
        Name or index of the image inside.

    Raises
    ------
    SlideError
        If the extra is missing, the server does not answer, or there is no OME-Zarr
        image; later, from reads, if the server no longer answers.
    """
    parts = urlsplit(url)
    name = unquote(parts.path.rstrip("/").rpartition("/")[2]) or parts.netloc
    if not all(map(importlib.util.find_spec, ("fsspec", "aiohttp"))):
        msg = (
            f"{name} is on a server; reading over HTTP needs "
            'pip install "napari-histodistill[http]".'
        )
        raise SlideError(msg)
    if name.lower().endswith((".zip", ".ozx", ".svs", ".tif", ".tiff", ".ndpi")):
        msg = f"{name}: only OME-Zarr folders are read over HTTP; download the file."
        raise SlideError(msg)
    connection = _Connection(url)
    try:
        group = connection.group()
        container = ZarrContainer(
            group=group,
            close=connection.close,
            name=name,
            digest=digest_of_group,
            address=url,
            lost=f"the server {parts.netloc} does not answer as it should",
        )
        slide = slide_of_group(container, image=image)
    except connection.errors as error:
        connection.close()
        msg = (
            f"{name}: {parts.netloc} cannot be reached or has no OME-Zarr there "
            f"({reason(error)}); check the address and the connection."
        )
        raise SlideError(msg) from error
    except BaseException:
        connection.close()
        raise
    return slide


class _Connection:
    """One client session and the zarr store that reads through it."""

    def __init__(self, url: str) -> None:
        import aiohttp
        from zarr.storage import FsspecStore

        self.errors = (*ZARR_ERRORS, aiohttp.ClientError)
        self._session: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None

        async def get_client(**kwargs: Any) -> Any:
            kwargs["timeout"] = aiohttp.ClientTimeout(
                total=ANSWER_S, sock_connect=CONNECT_S
            )
            self._loop = asyncio.get_running_loop()
            self._session = aiohttp.ClientSession(**kwargs)
            return self._session

        options = {"get_client": get_client, "skip_instance_cache": True}
        self._store = FsspecStore.from_url(url, read_only=True, storage_options=options)

    def group(self) -> Any:
        """Return the root group."""
        import zarr

        return zarr.open_group(self._store, mode="r")

    def close(self) -> None:
        """Close the session in zarr's event loop, so that nothing of it stays there."""
        session, self._session = self._session, None
        if session is not None and self._loop is not None and self._loop.is_running():
            closing = asyncio.run_coroutine_threadsafe(session.close(), self._loop)
            closing.result(timeout=CONNECT_S)


def digest_of_group(group: Any, arrays: list[Any]) -> str:
    """Return a fingerprint of an image that is too far away to read whole.

    It covers the attributes, the shapes of all levels, and the pixels of the coarsest
    level (of a large one, the first 4096 px along each axis).
    """
    sha = hashlib.sha256(repr(sorted(dict(group.attrs).items())).encode())
    for array in arrays:
        sha.update(f"{tuple(array.shape)}{array.dtype}".encode())
    coarsest = arrays[-1][tuple(slice(0, 4096) for _ in arrays[-1].shape)]
    sha.update(np.ascontiguousarray(coarsest).tobytes())
    return sha.hexdigest()
