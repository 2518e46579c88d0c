"""A web server on this machine that can misbehave in the ways real ones do."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Files:
    """What the server gives out, and what it was asked.

    Attributes:
        contents: path -> bytes.
        headers: path -> further headers.
        cut_after: path -> bytes after which the connection is closed, once for each number in the list.
        absent_headers: headers of the answer 404.
        ranges: whether requests for a part are honoured.
        if_range: whether they are refused when the file is another than the request speaks of.
        requests: (method, path, Range header) of every request.
    """

    contents: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    cut_after: dict[str, list[int]] = field(default_factory=dict)
    ranges: bool = True
    if_range: bool = True
    absent_headers: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    address: str = ""


@contextlib.contextmanager
def serving(files: Files) -> Iterator[Files]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, with_body: bool) -> None:
            wanted = self.headers.get("Range")
            files.requests.append((self.command, self.path, wanted))
            content = files.contents.get(self.path)
            if content is None:
                self.send_response(404)
                self.send_header("Content-Length", "0")
                for name, value in files.absent_headers.items():
                    self.send_header(name, value)
                self.end_headers()
                return
            known = self.headers.get("If-Range")
            if files.if_range and known is not None and known not in files.headers.get(self.path, {}).values():
                wanted = None
            start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted and files.ranges else 0
            if start and start >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if wanted and files.ranges else 200)
            if wanted and files.ranges:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            for name, value in files.headers.get(self.path, {}).items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                cuts = files.cut_after.get(self.path)
                self.wfile.write(content[start : start + cuts.pop(0)] if cuts else content[start:])

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    files.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield files
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
