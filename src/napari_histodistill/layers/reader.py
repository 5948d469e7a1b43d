"""The reader that napari calls: File › Open, drag and drop."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histodistill.addresses import WebAddress, shown, url_of
from napari_histodistill.errors import HistodistillError, InputError, SlideError
from napari_histodistill.layers.plain_names import plain_name
from napari_histodistill.layers.worklist import FILE_ENDINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_histodistill.layers.slide_layer import LayerTuple

__all__ = ["FILE_ENDINGS", "get_reader", "read_slides"]

_MARKUP = re.compile(r"<[\s!/]*[a-zA-Z][^>]*>|<\?xml|&lt;")
"""What Qt may take for HTML; it looks at the first tag of a text, which it may cut."""

PathLike = str | Path


def get_reader(
    path: PathLike | Sequence[PathLike],
) -> Callable[[PathLike | Sequence[PathLike]], list[LayerTuple]] | None:
    """Return a function that opens slides, or None for what we do not read.

    Looks at names only: napari asks every plugin for every file, and a reader that
    opens the file to answer would make the user wait for all of them.

    Parameters
    ----------
    path : str, Path or sequence of them
        Path or paths that the user opened.

    Returns
    -------
    callable or None
    """
    paths = _as_list(path)
    if paths and all(
        shown(p).lower().rstrip("/\\").endswith(FILE_ENDINGS) for p in paths
    ):
        return read_slides
    return None


def read_slides(path: PathLike | Sequence[PathLike]) -> list[LayerTuple]:
    """Open slides as napari layer tuples, and maps as the layers that they were.

    Raises
    ------
    SlideError
        If a file cannot be opened, or has a name that napari may not be told; napari
        shows the sentence.
    """
    try:
        for p in _as_list(path):
            _check_name(p)
        return [_layer(Path(p)) for p in _as_list(path)]
    except HistodistillError as error:
        # napari's notification would obey markup in the file's name.
        raise type(error)(plain_name(str(error))) from error


def _check_name(path: PathLike) -> None:
    """Refuse what napari must not keep as the source of a layer.

    It shows its last part in the status bar and in tooltips, which obey markup.
    """
    url = url_of(path)
    if url is None:
        name = Path(path).name
        if _MARKUP.search(name):
            msg = f"{name}: napari would take a part of this name for HTML; rename it."
            raise SlideError(msg)
        return
    try:
        name = WebAddress.parse(url).name
    except InputError as error:
        raise SlideError(str(error)) from error
    if url != shown(url):
        msg = (
            f"{name}: napari would show what this address is signed with; open it in "
            "napari's console by open_slide and slide_layer."
        )
        raise SlideError(msg)


def _layer(path: Path) -> LayerTuple:
    from napari_histodistill.layers.saved_map import saved_map
    from napari_histodistill.layers.slide_layer import slide_layer
    from napari_histodistill.slides import open_slide

    is_zarr = path.name.lower().endswith((".zarr", ".zarr.zip")) and path.exists()
    found = saved_map(path) if is_zarr else None
    return found or slide_layer(open_slide(path))


def _as_list(path: PathLike | Sequence[PathLike]) -> list[PathLike]:
    return [path] if isinstance(path, str | Path) else list(path)
