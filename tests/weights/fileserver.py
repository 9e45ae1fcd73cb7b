"""A real HTTP server on this machine that misbehaves as told, one answer per request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Plan:
    """What the server holds and how it answers.

    Attributes:
        content: the file.
        etag: its ETag header; empty sends none.
        ranges: answer Range requests with 206.
        answers: one function per request, in order; after the last, requests are served properly.
        pause: seconds between two pieces of a proper answer.
        asked: path and headers of the requests so far.
    """

    content: bytes
    etag: str = '"one"'
    ranges: bool = True
    answers: list[Callable[[Plan, BaseHTTPRequestHandler], None]] = field(default_factory=list)
    pause: float = 0.0
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)


def serve(plan: Plan, handler: BaseHTTPRequestHandler) -> None:
    """A proper answer: Range and If-Range as the standard has them."""
    wanted = handler.headers.get("Range", "") if plan.ranges else ""
    condition = handler.headers.get("If-Range", "")
    start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
    if condition and condition != plan.etag:
        start = 0
    if start and start >= len(plan.content):
        handler.send_response(416)
        handler.send_header("Content-Range", f"bytes */{len(plan.content)}")
        handler.end_headers()
        return
    head(plan, handler, start)
    step = max(1, len(plan.content) // 20)
    for at in range(start, len(plan.content), step):
        handler.wfile.write(plan.content[at : at + step])
        time.sleep(plan.pause)


def head(plan: Plan, handler: BaseHTTPRequestHandler, start: int = 0, length: int | None = None) -> None:
    """The headers of a proper answer."""
    size = len(plan.content)
    handler.send_response(206 if start else 200)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
    handler.send_header("Content-Length", str(size - start if length is None else length))
    if plan.etag:
        handler.send_header("ETag", plan.etag)
    handler.end_headers()


def truncated(count: int) -> Callable[[Plan, BaseHTTPRequestHandler], None]:
    """Promises the file and hangs up after `count` bytes."""

    def answer(plan: Plan, handler: BaseHTTPRequestHandler) -> None:
        head(plan, handler)
        handler.wfile.write(plan.content[:count])

    return answer


def stalled(seconds: float, count: int = 0) -> Callable[[Plan, BaseHTTPRequestHandler], None]:
    """Sends `count` bytes and then nothing for some seconds."""

    def answer(plan: Plan, handler: BaseHTTPRequestHandler) -> None:
        head(plan, handler)
        handler.wfile.write(plan.content[:count])
        handler.wfile.flush()
        time.sleep(seconds)

    return answer


def status(code: int, **headers: str) -> Callable[[Plan, BaseHTTPRequestHandler], None]:
    """Answers with a status, headers and no content."""

    def answer(plan: Plan, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in {"Content-Length": "0", **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()

    return answer


def sends(body: bytes, **headers: str) -> Callable[[Plan, BaseHTTPRequestHandler], None]:
    """Answers 200 with another body, and headers as given (no length unless it is among them)."""

    def answer(plan: Plan, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@contextmanager
def running(plan: Plan) -> Iterator[str]:
    """Runs the server and gives the address of the folder that holds its file."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            plan.asked.append((self.path, dict(self.headers.items())))
            answer = plan.answers.pop(0) if plan.answers else serve
            try:
                answer(plan, self)
            except OSError:  # the client has left
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
