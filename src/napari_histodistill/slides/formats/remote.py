"""OME-Zarr over HTTP: chunks are fetched when needed; nothing is uploaded.

Needs the extra ``http`` (``pip install "napari-histodistill[http]"``).
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.addresses import WebAddress, put_aside, shown
from napari_histodistill.errors import InputError, SlideError
from napari_histodistill.slides.codecs.decoding import reason
from napari_histodistill.slides.formats.omezarr import ZarrContainer, slide_of_group
from napari_histodistill.slides.formats.zarr_levels import ZARR_ERRORS
from napari_histodistill.slides.formats.zarr_limits import MAX_CHUNK_BYTES

if TYPE_CHECKING:
    from napari_histodistill.slides.pyramid.slide import Slide


def open_remote(url: str, *, image: str | int | None = None) -> Slide:
    """Open an OME-Zarr image over HTTP.

    Parameters
    ----------
    url : str
        Address of the image's folder, without user or password; what it is signed
        with (``?…``) is sent with every request, and neither shown nor stored.
    image : str or int, optional
        Name or index of the image inside.

    Raises
    ------
    SlideError
        If the address has a user or a password; if the extra is missing, the server
        does not answer, or there is no OME-Zarr image; later, from reads, if the
        server no longer answers.
    """
    try:
        place = put_aside(Path(url))  # so that the slide can be opened again
        address = WebAddress.parse(shown(place))
    except InputError as error:
        raise SlideError(str(error)) from error
    name = address.name
    if importlib.util.find_spec("aiohttp") is None:
        msg = (
            f"{name} is on a server; reading over HTTP needs "
            'pip install "napari-histodistill[http]".'
        )
        raise SlideError(msg)
    if name.lower().endswith((".zip", ".ozx", ".svs", ".tif", ".tiff", ".ndpi")):
        msg = f"{name}: only OME-Zarr folders are read over HTTP; download the file."
        raise SlideError(msg)
    import zarr

    from napari_histodistill.slides.formats.remote_store import RemoteStore

    store = RemoteStore(address)
    try:
        group = zarr.open_group(store, mode="r")
        container = ZarrContainer(
            group=group,
            close=store.shut,
            name=name,
            digest=digest_of_group,
            lost=f"the server {address.server} does not answer as it should",
            address=shown(place),
        )
        slide = slide_of_group(container, image=image)
        store.opened()
    except ZARR_ERRORS as error:
        store.shut()
        why = "it answered 403: one may not read there" if store.refused else ""
        msg = (
            f"{name}: {address.server} cannot be reached or has no OME-Zarr there "
            f"({why or reason(error)}); check the address and the connection."
        )
        raise SlideError(msg) from error
    except BaseException:
        store.shut()
        raise
    return slide


def digest_of_group(group: Any, arrays: list[Any]) -> str:
    """Return a fingerprint of an image that is too far away to read whole.

    It covers the attributes, the shapes of all levels, and the pixels of the coarsest
    level (of a large one, the first 4096 px along each axis).
    """
    sha = hashlib.sha256(repr(sorted(dict(group.attrs).items())).encode())
    for array in arrays:
        sha.update(f"{tuple(array.shape)}{array.dtype}".encode())
    last = arrays[-1]
    part = [min(4096, side) for side in last.shape]
    if math.prod(part) * np.dtype(last.dtype).itemsize > MAX_CHUNK_BYTES:
        part = [*(1 for _ in part[:-2]), *(min(1024, side) for side in part[-2:])]
    coarsest = last[tuple(slice(0, side) for side in part)]
    sha.update(np.ascontiguousarray(coarsest).tobytes())
    return sha.hexdigest()
