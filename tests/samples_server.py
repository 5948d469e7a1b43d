"""A web server on this machine, for what is fetched on request."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from napari_histodistill.samples.fetching import RemoteSlide

if TYPE_CHECKING:
    from collections.abc import Iterator

BODY = bytes(range(256)) * 4096


class Server(ThreadingHTTPServer):
    """Counts requests; ``how`` says what it answers with."""

    daemon_threads = True
    how = "good"
    requests = 0

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.go_on = threading.Event()

    def slide(self, **changes) -> RemoteSlide:
        """Return an entry for what is served here."""
        host, port = self.server_address[:2]
        known = {
            "key": "test",
            "title": "A test",
            "file_name": "test.svs",
            "size_bytes": len(BODY),
            "sha256": hashlib.sha256(BODY).hexdigest(),
            "url": f"http://{host}:{port}/test.svs",
            "licence": "CC0 1.0",
            "source": "this test",
        }
        return RemoteSlide(**(known | changes))


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        self.server.requests += 1
        if self.server.how == "missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        if self.server.how == "broken off":
            self.wfile.write(BODY[: len(BODY) // 3])
            return
        sent = {"slow": 1024, "half": len(BODY) // 2}.get(self.server.how, 0)
        body = BODY[::-1] if self.server.how == "changed" else BODY
        with contextlib.suppress(OSError):
            if sent:
                self.wfile.write(body[:sent])
                self.server.go_on.wait(20)
            self.wfile.write(body[sent:])

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def serving(how: str = "good") -> Iterator[Server]:
    """Serve on the loopback while the block runs."""
    server = Server(("127.0.0.1", 0), Handler)
    server.how = how
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
