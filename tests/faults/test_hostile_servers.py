"""A server that is a stranger: bounded memory and time, and no way to other servers."""

from __future__ import annotations

import gzip
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="extra [http]")

from napari_histodistill.errors import SlideError
from napari_histodistill.slides import open_slide
from napari_histodistill.slides.formats import remote_store
from tests.faults import hostile_servers as hostile
from tests.faults.hostile_servers import Server, serving, slide_files, whole
from tests.faults.targets import MAX_GROWTH_MB, _forget_peak, _peak_mb


@pytest.fixture(autouse=True)
def _loopback(socket_enabled):
    """Nothing but this machine's own address is ever asked for."""


LONG_S = 18.0
"""Less than a server may be silent, and long for a loaded machine."""


@pytest.fixture
def quick(monkeypatch):
    """Limits of time that a test can wait for, and that a loaded machine keeps."""
    monkeypatch.setattr(remote_store, "SILENCE_S", 3.0)
    monkeypatch.setattr(remote_store, "ANSWER_S", 4.0)
    monkeypatch.setattr(remote_store, "OPENING_S", 8.0)


@pytest.fixture
def little_memory():
    before = _forget_peak()
    yield
    if sys.platform == "linux":
        assert _peak_mb() - before < MAX_GROWTH_MB


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_honest_server_is_read(zarr_format):
    with serving(Server(slide_files(zarr_format))) as server:
        with open_slide(server.url) as slide:
            assert slide.shape == (64, 96)
            assert slide.read_pixels(0, 0, 0, 64, 96).any()
        assert all("accept-encoding: identity" in h.lower() for h in server.heads)


METADATA = {
    "a body without end": (hostile.endless, "larger than 16 MiB"),
    "chunks without end": (hostile.endless_chunked, "larger than 16 MiB"),
    "a header without end": (hostile.endless_header, "is not HTTP|broke off|took"),
    "a header line without end": (hostile.endless_line, "HTTP|broke off|took"),
    "a trailer without end": (hostile.endless_trailer, "HTTP|broke off|took|failed"),
    "64 MiB in 64 KiB of gzip": (hostile.bomb, "larger than 16 MiB"),
    "a stated length of 1 TB": (hostile.stated(2**40), "larger than 16 MiB"),
    "a stated length that is not kept": (hostile.stated(10**6), "broke off"),
    "a length that is a word": (
        hostile.raw(b"HTTP/1.1 200 OK\r\nContent-Length: much\r\n\r\n{}"),
        "is not HTTP|failed",
    ),
    "gzip that is none": (
        hostile.raw(whole(b"{}", "Content-Encoding: gzip")),
        "compressed, and damaged",
    ),
    "another compression": (
        hostile.raw(whole(b"{}", "Content-Encoding: br")),
        "compressed in a way",
    ),
    "deep JSON": (hostile.raw(whole(b"[" * 10**6)), "has no OME-Zarr there"),
    "noise": (hostile.raw(b"\0" * 1000), "is not HTTP|failed"),
    "an error of its own": (
        hostile.raw(hostile.bare(500)),
        "it answered 500",
    ),
}


@pytest.mark.parametrize("case", METADATA)
def test_metadata_that_never_end_or_lie_are_refused(case, quick, little_memory):
    answer, why = METADATA[case]
    with serving(Server(special={"zarr.json": answer})) as server:
        began = time.monotonic()
        with pytest.raises(SlideError, match=why):
            open_slide(server.url)
        assert time.monotonic() - began < LONG_S


def test_gzip_that_fits_is_read():
    content = gzip.compress(slide_files()["zarr.json"])
    answer = hostile.raw(whole(content, "Content-Encoding: gzip"))
    with (
        serving(Server(special={"zarr.json": answer})) as server,
        open_slide(server.url) as slide,
    ):
        assert slide.shape == (64, 96)


CHUNKS = ("0/c/0/0/0", "0/c/0/0/1")
"""All of level 0."""


def test_a_chunk_that_never_ends_is_refused(little_memory, monkeypatch):
    monkeypatch.setattr(remote_store, "MAX_CHUNK_BYTES", 2**22)
    with serving(Server()) as server, open_slide(server.url) as slide:
        server.special |= dict.fromkeys(CHUNKS, hostile.endless)
        with pytest.raises(SlideError, match=r"level 0 .*larger than 4 MiB"):
            slide.read_pixels(0, 0, 0, 64, 96)


def test_all_answers_together_are_bounded(little_memory, monkeypatch):
    monkeypatch.setattr(remote_store, "MAX_BYTES_AT_ONCE", 2**20)

    def part_of_much(server, send):
        send(whole(b" " * 700_000, length=800_000))
        server.over.wait(60)

    with serving(Server()) as server, open_slide(server.url) as slide:
        server.special |= dict.fromkeys(CHUNKS, part_of_much)
        with pytest.raises(SlideError, match=r"level 0 .*larger than 1 MiB"):
            slide.read_pixels(0, 0, 0, 64, 96)


@pytest.mark.parametrize("answer", [hostile.silent, hostile.trickling])
def test_closing_a_slide_ends_what_is_being_read(answer):
    with (
        ThreadPoolExecutor(1) as pool,
        serving(Server()) as server,
        open_slide(server.url) as slide,
    ):
        server.special |= dict.fromkeys(CHUNKS, answer)
        asked = len(server.asked)
        reading = pool.submit(slide.read_pixels, 0, 0, 0, 64, 96)
        while len(server.asked) < asked + len(CHUNKS) and not reading.done():
            time.sleep(0.01)
        slide.close()
        with pytest.raises(SlideError, match="the slide was closed"):
            reading.result(timeout=LONG_S)


REFUSED = hostile.raw(hostile.bare(403))


def test_a_chunk_that_may_not_be_read_is_not_taken_for_empty():
    with serving(Server()) as server, open_slide(server.url) as slide:
        server.special |= dict.fromkeys(CHUNKS, REFUSED)
        with pytest.raises(SlideError, match=r"level 0 .*it answered 403"):
            slide.read_pixels(0, 0, 0, 64, 96)


@pytest.mark.parametrize(
    ("answer", "why"),
    [(hostile.endless, "larger than 4 MiB"), (REFUSED, "it answered 403")],
)
def test_a_slide_of_which_nothing_can_be_read_is_not_opened(
    answer, why, little_memory, monkeypatch
):
    monkeypatch.setattr(remote_store, "MAX_CHUNK_BYTES", 2**22)
    with serving(Server(special=dict.fromkeys(CHUNKS, answer))) as server:
        with pytest.raises(SlideError, match=rf"level 0 .*{why}") as refused:
            open_slide(server.url)
        assert str(refused.value).startswith(
            f"slide.zarr: the server 127.0.0.1:{server.port} does not answer as it "
            "should; level 0 cannot be read around y 0, x 0 ("
        )


def test_a_server_that_refuses_all_is_said_to():
    names = ("zarr.json", ".zgroup", ".zattrs", ".zarray", ".zmetadata")
    with (
        serving(Server({}, dict.fromkeys(names, REFUSED))) as server,
        pytest.raises(SlideError, match="it answered 403: one may not read there"),
    ):
        open_slide(server.url)


@pytest.mark.parametrize(
    ("answer", "limit", "why"),
    [
        (hostile.silent, "SILENCE_S", "it was silent for"),
        (hostile.trickling, "ANSWER_S", "it took longer than"),
    ],
)
def test_a_slow_server_is_given_up(monkeypatch, answer, limit, why):
    monkeypatch.setattr(remote_store, limit, 1.0)
    with serving(Server(special={"zarr.json": answer})) as server:
        began = time.monotonic()
        with pytest.raises(SlideError, match=why):
            open_slide(server.url)
        assert time.monotonic() - began < LONG_S


def test_opening_has_a_limit_of_its_own(monkeypatch):
    # Each answer is quick enough; together they are not.
    monkeypatch.setattr(remote_store, "OPENING_S", 0.8)
    files = slide_files()

    def later(server, send):
        server.over.wait(0.5)
        send(whole(files["zarr.json"]))

    metadata = {k: later for k in files if k.endswith("zarr.json")}
    with (
        serving(Server(files, metadata)) as server,
        pytest.raises(SlideError, match="it took longer than 1 s"),
    ):
        open_slide(server.url)


@pytest.mark.slow(20)
def test_a_coarsest_level_that_claims_to_be_huge_takes_little(little_memory):
    with (
        serving(Server(hostile.array_of(4_000_000, "float64"))) as server,
        pytest.raises(SlideError),
    ):
        open_slide(server.url)
    with serving(Server(hostile.array_of(4096, "float64"))) as server:
        open_slide(server.url).close()


def test_parts_of_files_are_right_whether_a_server_sends_parts_or_not():
    """A server may ignore that only a part was asked for."""
    import asyncio

    from zarr.abc.store import (
        OffsetByteRequest,
        RangeByteRequest,
        SuffixByteRequest,
    )
    from zarr.core.buffer import default_buffer_prototype

    from napari_histodistill.addresses import WebAddress

    content = os.urandom(1000)

    def part(server, send):
        asked = next(
            line for line in server.heads[-1].splitlines() if line.startswith("Range")
        )
        first, _, last = asked.partition("=")[2].partition("-")
        found = content[-int(last) :] if not first else content[int(first) :]
        if first and last:
            found = content[int(first) : int(last) + 1]
        send(
            b"HTTP/1.1 206 part\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
            % len(found)
            + found
        )

    async def parts(url):
        store = remote_store.RemoteStore(WebAddress.parse(url))
        wanted = [
            RangeByteRequest(10, 20),
            OffsetByteRequest(990),
            SuffixByteRequest(7),
        ]
        made = default_buffer_prototype()
        found = [await store.get("c/0", made, part) for part in wanted]
        await store._session.close()
        return [buffer.to_bytes() for buffer in found]

    for special in ({}, {"c/0": part}):
        with serving(Server({"c/0": content}, special)) as server:
            found = asyncio.run(parts(server.url))
        assert found == [content[10:20], content[990:], content[-7:]]


def test_a_redirect_on_the_same_server_is_followed():
    files = slide_files()
    moved = {f"moved/{k}": v for k, v in files.items()}
    special = {k: hostile.leading(f"/slide.zarr/moved/{k}") for k in files}
    with (
        serving(Server(moved, special)) as server,
        open_slide(server.url) as slide,
    ):
        assert slide.read_pixels(0, 0, 0, 64, 96).any()


def test_a_redirect_that_goes_round_ends():
    special = {"zarr.json": hostile.leading("/slide.zarr/zarr.json")}
    with (
        serving(Server(special=special)) as server,
        pytest.raises(SlideError, match="redirects more than 5 times"),
    ):
        open_slide(server.url)
    assert len(server.asked) < 40


HERE = [
    "127.0.0.1", "localhost", "2130706433", "0x7f000001", "127.1", "0.0.0.0", "0",
    "[::1]", "[::]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "127.0.0.1.",
]  # fmt: skip


@pytest.mark.parametrize("host", HERE)
def test_no_redirect_leads_to_another_port_of_this_machine(host):
    with serving(Server()) as victim:
        leading = hostile.leading(f"http://{host}:{victim.port}/slide.zarr/zarr.json")
        with (
            serving(Server(special={"zarr.json": leading})) as server,
            pytest.raises(SlideError, match=r"into this machine|cannot be reached"),
        ):
            open_slide(server.url)
        assert victim.asked == []


@pytest.mark.parametrize(
    "there", ["http://10.0.0.1/", "http://169.254.169.254/latest", "https://[fe80::1]/"]
)
def test_no_redirect_leads_into_the_network(there):
    with (
        serving(Server(special={"zarr.json": hostile.leading(there)})) as server,
        pytest.raises(SlideError, match="into this machine or its network"),
    ):
        open_slide(server.url)


@pytest.mark.parametrize("there", ["file:///etc/passwd", "ftp://127.0.0.1/", "//", ""])
def test_a_redirect_to_no_web_page_is_refused(there):
    with (
        serving(Server(special={"zarr.json": hostile.leading(there)})) as server,
        pytest.raises(SlideError, match="slide"),
    ):
        open_slide(server.url)


def test_a_name_that_means_this_machine_later_is_not_followed(monkeypatch):
    """A stranger's name is looked up once: what was checked is what is connected to."""
    looked_up = []

    class Resolver:
        async def resolve(self, host, port=0, family=0):
            looked_up.append(host)
            here = len(looked_up) > 1
            return [
                {
                    "hostname": host,
                    "host": "127.0.0.1" if here else "192.0.2.1",
                    "port": port,
                    "family": family or 2,
                    "proto": 0,
                    "flags": 0,
                }
            ]

        async def close(self):
            pass

    monkeypatch.setattr(remote_store, "DefaultResolver", Resolver)
    monkeypatch.setattr(remote_store, "is_public", lambda a: a != "127.0.0.1")
    monkeypatch.setattr(remote_store, "CONNECT_S", 0.3)
    with serving(Server()) as victim:
        there = f"http://stranger.example:{victim.port}/slide.zarr/zarr.json"
        with (
            serving(Server(special={"zarr.json": hostile.leading(there)})) as server,
            pytest.raises(SlideError),
        ):
            open_slide(server.url)
        assert victim.asked == []
    assert looked_up.count("stranger.example") == 1


def test_a_signed_address_is_read_and_its_signature_sent_as_it_is():
    signed = "sv=2024&sig=a%2Fb%2B+c%3D&se=2030-01-01T00%3A00Z"
    with serving(Server()) as server:
        with open_slide(f"{server.url}?{signed}") as slide:
            assert slide.name == "slide.zarr"
            pixels = slide.read_pixels(0, 0, 0, 64, 96)
            assert pixels.any()
        assert {path.partition("?")[2] for path in server.asked} == {signed}
        with open_slide(server.url) as plain:
            np.testing.assert_array_equal(plain.read_pixels(0, 0, 0, 64, 96), pixels)


def test_metadata_are_json_objects():
    files = slide_files() | {"zarr.json": json.dumps([1]).encode()}
    with (
        serving(Server(files)) as server,
        pytest.raises(SlideError, match="slide"),
    ):
        open_slide(server.url)
