"""OME-Zarr from a server on this machine, which may vanish."""

from __future__ import annotations

import http.server
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from zarr.storage import LocalStore

from napari_histodistill.addresses import url_of
from napari_histodistill.errors import ClosedSlideError, SlideError
from napari_histodistill.slides import open_slide
from tests.slides.factory import at_size, picture
from tests.slides.formats.test_omezarr import write

pytest.importorskip("aiohttp", reason="extra [http]")


@pytest.fixture(autouse=True)
def _loopback(socket_enabled):
    """Nothing but this machine's own address is ever asked for."""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextmanager
def serving(folder):
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def stop():
        if thread.is_alive():
            server.shutdown()
            server.server_close()
            thread.join()

    try:
        yield f"http://127.0.0.1:{server.server_port}", stop
    finally:
        stop()


def written(folder, zarr_format):
    image = picture(500, 700)
    levels = [image, at_size(image, 250, 350)]
    store = LocalStore(folder / "slide.zarr")
    write(store, [a.transpose(2, 0, 1) for a in levels], zarr_format=zarr_format)
    return levels


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_reads_what_is_on_the_server(tmp_path, zarr_format):
    levels = written(tmp_path, zarr_format)
    with serving(tmp_path) as (url, _):
        with open_slide(f"{url}/slide.zarr/") as slide:
            assert slide.name == "slide.zarr"
            assert slide.path is None
            assert slide.info.is_rgb
            assert slide.mpp.mean == pytest.approx(0.5)
            for k, level in enumerate(levels):
                np.testing.assert_array_equal(slide.levels[k].compute(), level)
            digest = slide.info.digest
        with open_slide(Path(f"{url}/slide.zarr")) as again:
            assert again.info.digest == digest


def test_a_server_that_vanishes_is_named(tmp_path):
    levels = written(tmp_path, 3)
    with serving(tmp_path) as (url, stop), open_slide(f"{url}/slide.zarr") as slide:
        assert (slide.read_pixels(0, 0, 0, 50, 50) == levels[0][:50, :50]).all()
        stop()
        with pytest.raises(SlideError, match=r"slide\.zarr: the server 127\.0\.0\.1"):
            slide.read_pixels(0, 300, 300, 50, 50)
        marked = slide.read_marked(0, 300, 300, 50, 50)
        assert marked.bad.all()
        slide.close()
        with pytest.raises(ClosedSlideError):
            slide.read_pixels(0, 0, 0, 5, 5)


def test_what_is_not_there_is_said(tmp_path):
    (tmp_path / "folder").mkdir()
    with serving(tmp_path) as (url, stop):
        with pytest.raises(SlideError, match=r"folder: 127.* has no OME-Zarr there"):
            open_slide(f"{url}/folder")
        with pytest.raises(SlideError, match="only OME-Zarr folders are read over"):
            open_slide(f"{url}/slide.svs")
        stop()
        with pytest.raises(SlideError, match="cannot be reached"):
            open_slide(f"{url}/slide.zarr")


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://host/a.zarr", "http://host/a.zarr"),
        (Path("https://host/a.zarr"), "https://host/a.zarr"),
        ("HTTP://host:80/a b.zarr/", "http://host:80/a b.zarr"),
        ("slides/http/a.svs", None),
        ("http.svs", None),
    ],
)
def test_addresses_are_told_from_files(given, url):
    assert url_of(given) == url
