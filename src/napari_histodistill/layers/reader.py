"""The reader that napari calls: File › Open, drag and drop."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histodistill.addresses import WebAddress, shown, url_of
from napari_histodistill.errors import HistodistillError, InputError, SlideError
from napari_histodistill.layers.plain_names import plain_name
from napari_histodistill.layers.worklist import FILE_ENDINGS, slides_in
from napari_histodistill.slides.formats.omezarr import is_zarr_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_histodistill.layers.slide_layer import LayerTuple

__all__ = [
    "FILE_ENDINGS",
    "as_list",
    "get_reader",
    "holds_several",
    "is_folder",
    "read_slides",
]

_MARKUP = re.compile(r"<[\s!/]*[a-zA-Z][^>]*>|<\?xml|&lt;")
"""What Qt may take for HTML; it looks at the first tag of a text, which it may cut."""

PathLike = str | Path


def get_reader(
    path: PathLike | Sequence[PathLike],
) -> Callable[[PathLike | Sequence[PathLike]], list[LayerTuple]] | None:
    """Return a function that opens slides, or None for what we do not read.

    Looks at names only: napari asks every plugin for every file, and a reader that
    opens the file to answer would make the user wait for all of them. A folder is ours
    if it is a zarr or holds slides (:func:`~.worklist.slides_in`).

    Parameters
    ----------
    path : str, Path or sequence of them
        Path or paths that the user opened.

    Returns
    -------
    callable or None
    """
    paths = as_list(path)
    if paths and all(_is_named_slide(p) for p in paths):
        return read_slides
    if len(paths) == 1 and is_folder(paths[0]) and _holds_slides(Path(paths[0])):
        return read_slides
    return None


def read_slides(path: PathLike | Sequence[PathLike]) -> list[LayerTuple]:
    """Open slides as napari layer tuples, and maps as the layers that they were.

    A folder that holds one slide is opened as that slide.

    Raises
    ------
    SlideError
        If a file cannot be opened, or has a name that napari may not be told; napari
        shows the sentence.
    InputError
        If a folder holds several slides: they would lie on one another.
    """
    try:
        found = [_slide_of(p) for p in as_list(path)]
        for p in found:
            _check_name(p)
        return [_layer(Path(p)) for p in found]
    except HistodistillError as error:
        # napari's notification would obey markup in the file's name.
        raise type(error)(plain_name(str(error))) from error


def is_folder(path: PathLike) -> bool:
    """Return whether a path is a folder that holds slides rather than one itself."""
    try:
        return (
            url_of(path) is None and Path(path).is_dir() and not _is_named_slide(path)
        )
    except OSError:  # a name that is too long for a file
        return False


def holds_several(path: PathLike) -> bool:
    """Return whether a path is a folder with more than one slide: a worklist."""
    if not is_folder(path) or is_zarr_folder(Path(path)):
        return False
    try:
        return len(slides_in(Path(path))) > 1
    except InputError:  # said when it is read
        return False


def as_list(path: PathLike | Sequence[PathLike]) -> list[PathLike]:
    """Return one path or several as a list."""
    return [path] if isinstance(path, str | Path) else list(path)


def _is_named_slide(path: PathLike) -> bool:
    return shown(path).lower().rstrip("/\\").endswith(FILE_ENDINGS)


def _holds_slides(folder: Path) -> bool:
    try:
        return is_zarr_folder(folder) or bool(slides_in(folder))
    except InputError:  # said when it is read
        return True


def _slide_of(path: PathLike) -> PathLike:
    """Return a slide's path; of a folder that holds one slide, that slide's."""
    if not is_folder(path) or is_zarr_folder(Path(path)):
        return path
    slides = slides_in(Path(path))
    if len(slides) == 1:
        return slides[0]
    msg = (
        f"{Path(path).name} holds {len(slides)} slides: open it by Folder… in "
        "the panel Explore slide, which lists them and shows one at a time."
    )
    raise InputError(msg)


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
