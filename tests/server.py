"""A local HTTP server of a folder's files, well or badly behaved, for tests of downloads and ranges."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Server(ThreadingHTTPServer):
    """Counts requests and bytes sent. `ranges` False: the header is ignored. `break_off`: each response stops
    after so many bytes; with `breaks`, only so many responses do. `wrong`: the bytes of files are others.
    `pause_after`: after so many bytes nothing comes. `documents` and `links`: answers and next pages by path."""

    daemon_threads = True

    def __init__(self, folder: Path, handler: type[Handler] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), partial(handler or Handler, directory=str(folder)))
        self.ranges, self.wrong = True, False
        self.break_off: int | None = None
        self.breaks = 1_000_000
        self.pause_after: int | None = None
        self.documents: dict[str, bytes] = {}
        self.links: dict[str, str] = {}
        self.requests: list[str | None] = []
        self.sent = 0

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(SimpleHTTPRequestHandler):
    server: Server

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        where = self.path.partition("?")[0]
        self.server.requests.append(self.headers.get("Range"))
        if where not in self.server.documents and not path.is_file():
            self.send_error(404)
            return
        content = self.server.documents.get(where) or path.read_bytes()
        if self.server.wrong:
            content = bytes(255 - byte for byte in content)
        start, stop = 0, len(content)
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if match and self.server.ranges:
            start, stop = int(match[1]), min(stop, int(match[2] or stop) + 1)
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        else:
            self.send_response(200)
        if where in self.server.links:
            self.send_header("Link", f'<{self.server.links[where]}>; rel="next"')
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        body = content[start:stop]
        limit = self.server.break_off
        if limit is not None and len(body) > limit and self.server.breaks > 0:
            self.server.breaks -= 1
            body = body[:limit]
        self.server.sent += len(body)
        pause = self.server.pause_after
        if pause is not None and len(body) > pause:
            self.wfile.write(body[:pause])
            self.wfile.flush()
            while self.server.pause_after is not None:
                time.sleep(0.01)
            return
        self.wfile.write(body)


@contextmanager
def serving(server: Server | Path) -> Iterator[Any]:
    """Run a server, or one of a folder, on a free port of this machine."""
    server = Server(server) if isinstance(server, Path) else server
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
