"""Fetched on request: only then, checked, and nothing half is ever left."""

from __future__ import annotations

import hashlib
import socket
import threading

import pytest

from napari_histodistill.cache import cache_dir
from napari_histodistill.errors import Cancelled, FetchError, InputError
from napari_histodistill.running import CancelToken
from napari_histodistill.samples import fetching as module
from napari_histodistill.samples.fetching import (
    REMOTE,
    fetch_slide,
    fetching,
    remote_slide,
)
from tests.faults import hostile_servers as hostile
from tests.samples_server import BODY, serving


@pytest.fixture(autouse=True)
def loopback(socket_enabled):
    from pytest_socket import socket_allow_hosts

    socket_allow_hosts(["127.0.0.1", "localhost"], allow_unix_socket=True)


def everything(folder):
    return sorted(p.name for p in folder.rglob("*")) if folder.exists() else []


def test_a_slide_is_fetched_once(tmp_path):
    with serving() as server:
        slide = server.slide()
        reports = list(fetching(slide, tmp_path / "new"))
        assert reports[-1].path == tmp_path / "new" / "test.svs"
        assert reports[-1].path.read_bytes() == BODY
        done = [r.done_bytes for r in reports]
        assert done[-1] == slide.size_bytes
        assert max(done) == slide.size_bytes
        assert len(done) > 5
        assert everything(tmp_path / "new") == ["test.svs"]
        list(fetching(slide, tmp_path / "new"))
        assert server.requests == 1


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("changed", "not the file it should be .its SHA-256 differs. and was deleted"),
        ("broken off", "could not be fetched from 127.0.0.1"),
        ("missing", "the server answered 404"),
    ],
)
def test_what_goes_wrong_leaves_nothing(tmp_path, how, words):
    with serving(how) as server, pytest.raises(FetchError, match=words) as refused:
        list(fetching(server.slide(), tmp_path))
    assert everything(tmp_path) == []
    assert "\n" not in str(refused.value)


def test_a_file_that_was_changed_on_disk_is_fetched_again(tmp_path):
    (tmp_path / "test.svs").write_bytes(b"something else")
    with serving() as server:
        *_, last = fetching(server.slide(), tmp_path)
    assert last.path.read_bytes() == BODY


def test_nobody_answers(tmp_path):
    with serving() as server:
        slide = server.slide()
    with pytest.raises(FetchError, match="no connection") as refused:
        list(fetching(slide, tmp_path))
    assert slide.url in str(refused.value)
    assert everything(tmp_path) == []


def test_without_any_network_it_is_one_sentence(tmp_path, monkeypatch):
    def nowhere(*_args, **_kwargs):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    slide = remote_slide("cmu-1-small")
    with pytest.raises(FetchError, match=r"could not be fetched from openslide\.cs"):
        list(fetching(slide, tmp_path))
    assert everything(tmp_path) == []


def test_it_stops_when_asked(tmp_path):
    token = CancelToken()
    with serving("half") as server:
        work = fetching(server.slide(), tmp_path, cancel=token)
        next(work)
        token.cancel()
        server.go_on.set()
        with pytest.raises(Cancelled):
            list(work)
    assert everything(tmp_path) == []
    # Also where the server says nothing more.
    with serving("slow") as server:
        token = CancelToken()
        threading.Timer(0.3, token.cancel).start()
        with pytest.raises(Cancelled):
            list(fetching(server.slide(), tmp_path, cancel=token))
        server.go_on.set()
    assert everything(tmp_path) == []
    names = [t.name for t in threading.enumerate()]
    assert "histodistill fetching" not in names


def test_by_name(tmp_path, monkeypatch):
    with serving() as server:
        monkeypatch.setattr(module, "REMOTE", (server.slide(key="mine"),))
        assert fetch_slide("mine").read_bytes() == BODY
        assert everything(cache_dir("fetched")) == ["test.svs"]
        assert fetch_slide("mine", tmp_path) == tmp_path / "test.svs"
    with pytest.raises(
        InputError, match="no slide 'cmu-9' to fetch; choose one of: mine"
    ):
        remote_slide("cmu-9")


def endless_body(server, send):
    send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while not server.over.is_set():
        send(bytes(65536))


def endless_redirect(server, send):
    send(b"HTTP/1.1 302 there\r\nLocation: /slide.zarr/b.svs\r\n")
    send(b"Connection: close\r\n\r\n")
    while not server.over.is_set():
        send(bytes(65536))


def remote(server, **changes):
    with serving() as honest:
        return honest.slide(url=f"{server.url}/a.svs", **changes)


def test_more_than_the_slide_has_is_not_written(tmp_path):
    special = {"a.svs": endless_body}
    with (
        hostile.serving(hostile.Server(special=special)) as server,
        pytest.raises(FetchError, match=r"sends more than the 1\.05 MB there are"),
    ):
        list(fetching(remote(server), tmp_path))
    assert everything(tmp_path) == []
    assert server.sent < 50e6


def test_a_redirect_on_the_same_server_is_followed(tmp_path):
    files = {"b.svs": BODY}
    with hostile.serving(hostile.Server(files, {"a.svs": endless_redirect})) as server:
        *_, last = fetching(remote(server), tmp_path)
    assert last.path.read_bytes() == BODY
    assert server.sent < len(BODY) + 50e6


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "[::1]"])
def test_no_redirect_leads_to_another_port_of_this_machine(tmp_path, host):
    with hostile.serving(hostile.Server({"b.svs": BODY})) as victim:
        leading = hostile.leading(f"http://{host}:{victim.port}/slide.zarr/b.svs")
        with (
            hostile.serving(hostile.Server(special={"a.svs": leading})) as server,
            pytest.raises(FetchError, match=r"into this machine|could not be fetched"),
        ):
            list(fetching(remote(server), tmp_path))
        assert victim.asked == []
    assert everything(tmp_path) == []


def test_redirects_end(tmp_path):
    leading = hostile.leading("/slide.zarr/a.svs")
    with (
        hostile.serving(hostile.Server(special={"a.svs": leading})) as server,
        pytest.raises(FetchError, match="redirects more than 5 times"),
    ):
        list(fetching(remote(server), tmp_path))


def test_every_entry_is_whole():
    assert len({r.key for r in REMOTE}) == len(REMOTE)
    for slide in REMOTE:
        assert slide.url.startswith("https://")
        assert slide.url.endswith("/" + slide.file_name)
        assert len(bytes.fromhex(slide.sha256)) == 32
        assert slide.size_bytes > 1e6
        assert slide.licence
        assert slide.source


@pytest.mark.data
def test_the_small_slide_is_the_one_we_know(data):
    slide = remote_slide("cmu-1-small")
    known = (data / "slides" / "cmu-1-small-region.svs").read_bytes()
    assert len(known) == slide.size_bytes
    assert hashlib.sha256(known).hexdigest() == slide.sha256
