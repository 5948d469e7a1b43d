"""Servers on this machine that never end, are slow, lie, or lead elsewhere."""

from __future__ import annotations

import contextlib
import gzip
import json
import socketserver
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from zarr.storage import MemoryStore

from tests.slides.factory import picture
from tests.slides.formats.test_omezarr import write

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

PIECE = b" " * 65536
BLANKS = gzip.compress(b" " * 2**26, 9)


def slide_files(
    zarr_format: int = 3, *, image: npt.NDArray[np.uint8] | None = None
) -> dict[str, bytes]:
    """Return the files of a small slide, or of an image and its half, by key."""
    store = MemoryStore()
    levels = [picture(64, 96), picture(32, 48)]
    if image is not None:
        levels = [image, image[::2, ::2]]
    write(store, [a.transpose(2, 0, 1) for a in levels], zarr_format=zarr_format)
    return {key: bytes(value.to_bytes()) for key, value in store._store_dict.items()}


@dataclass
class Server:
    """What one server is asked for, and how it answers.

    Attributes
    ----------
    files : dict of str to bytes
        What it has, by the path below ``/slide.zarr/``.
    special : dict of str to callable
        How it answers for some of them; takes what sends bytes, and waits.
    asked : list of str
        Paths and queries, in their order.
    """

    files: dict[str, bytes] = field(default_factory=slide_files)
    special: dict[str, Callable[[Server, Callable[[bytes], None]], None]] = field(
        default_factory=dict
    )
    asked: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    port: int = 0
    sent: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/slide.zarr"

    def answer(self, head: str, send: Callable[[bytes], None]) -> None:
        target = head.split(" ")[1]
        self.asked.append(target)
        self.heads.append(head)
        key = target.partition("?")[0].removeprefix("/slide.zarr/")
        if key in self.special:
            self.special[key](self, send)
        elif key in self.files:
            send(whole(self.files[key]))
        else:
            send(bare(404))


@contextlib.contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Serve while the block runs, one request for each connection."""

    class Handler(socketserver.BaseRequestHandler):
        request: socket.socket

        def handle(self) -> None:
            head = b""
            while b"\r\n\r\n" not in head:
                piece = self.request.recv(65536)
                if not piece:
                    return
                head += piece

            def send(content: bytes) -> None:
                self.request.sendall(content)
                server.sent += len(content)

            with contextlib.suppress(OSError):
                server.answer(head.decode("latin-1"), send)

    class Listening(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True
        block_on_close = False
        request_queue_size = 128  # more than a client asks for at once

    with Listening(("127.0.0.1", 0), Handler) as listening:
        server.port = listening.server_address[1]
        thread = threading.Thread(
            target=listening.serve_forever, args=(0.02,), daemon=True
        )
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            listening.shutdown()
            thread.join()


def whole(content: bytes, *more: str, length: int | None = None) -> bytes:
    """Return an answer; its stated length may lie."""
    stated = len(content) if length is None else length
    head = ["HTTP/1.1 200 OK", f"Content-Length: {stated}", "Connection: close", *more]
    return ("\r\n".join(head) + "\r\n\r\n").encode("latin-1") + content


def bare(status: int) -> bytes:
    """Return an answer of a status and nothing else.

    It says that the connection ends: else a client may send its next request there.
    """
    return (
        f"HTTP/1.1 {status} no\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    ).encode("latin-1")


def redirect(location: str, status: int = 302) -> bytes:
    """Return an answer that leads elsewhere, with a body that never ends."""
    head = (
        f"HTTP/1.1 {status} there\r\nLocation: {location}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("latin-1") + b"x" * 100_000


def endless(server: Server, send: Callable[[bytes], None]) -> None:
    """Send a body without a length, for ever."""
    send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{")
    while not server.over.is_set():
        send(PIECE)


def endless_chunked(server: Server, send: Callable[[bytes], None]) -> None:
    """The same in chunks."""
    send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not server.over.is_set():
        send(b"10000\r\n" + PIECE + b"\r\n")


def endless_header(server: Server, send: Callable[[bytes], None]) -> None:
    """Send header lines for ever."""
    send(b"HTTP/1.1 200 OK\r\n")
    while not server.over.is_set():
        send(b"X-More: " + b"x" * 4000 + b"\r\n")


def endless_line(server: Server, send: Callable[[bytes], None]) -> None:
    """Send one header line for ever."""
    send(b"HTTP/1.1 200 OK\r\nX-More: ")
    while not server.over.is_set():
        send(PIECE)


def endless_trailer(server: Server, send: Callable[[bytes], None]) -> None:
    """Send a good body in chunks, and header lines after it for ever."""
    content = server.files["zarr.json"]
    send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    send(f"{len(content):x}\r\n".encode() + content + b"\r\n0\r\n")
    while not server.over.is_set():
        send(b"X-More: " + b"x" * 4000 + b"\r\n")


def bomb(_server: Server, send: Callable[[bytes], None]) -> None:
    """Send 64 MiB of blanks in 64 KiB of gzip."""
    send(whole(BLANKS, "Content-Encoding: gzip"))


def stated(length: int) -> Callable[[Server, Callable[[bytes], None]], None]:
    """Return an answer that states a length, and sends its file."""

    def answer(server: Server, send: Callable[[bytes], None]) -> None:
        send(whole(server.files["zarr.json"], length=length))

    return answer


def silent(server: Server, send: Callable[[bytes], None]) -> None:
    """Send nothing."""
    server.over.wait(30)


def trickling(server: Server, send: Callable[[bytes], None]) -> None:
    """Send a byte every twentieth of a second."""
    send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not server.over.wait(0.05):
        send(b" ")


def leading(location: str) -> Callable[[Server, Callable[[bytes], None]], None]:
    """Return an answer that redirects."""
    return lambda _server, send: send(redirect(location))


def raw(content: bytes) -> Callable[[Server, Callable[[bytes], None]], None]:
    """Return an answer of these bytes."""
    return lambda _server, send: send(content)


def array_of(side: int, dtype: str = "uint8") -> dict[str, bytes]:
    """Return an image that claims to be large, of which no chunk is there.

    The chunks are large, too: of each it takes a request to learn that it is not there.
    """
    files = slide_files()
    for key in ("0/zarr.json", "1/zarr.json"):
        found = json.loads(files[key])
        found["shape"] = [found["shape"][0], side, side]
        found["data_type"] = np.dtype(dtype).name
        found["chunk_grid"]["configuration"]["chunk_shape"][1:] = [1024, 1024]
        files[key] = json.dumps(found).encode()
    return {k: v for k, v in files.items() if "/c/" not in k}
