"""An S3 server on loopback, in a process of its own, some of whose answers can be made to fail."""

import json
import logging
import re
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal
from urllib.parse import quote
from urllib.request import Request, urlopen

STALL_SECONDS = 30.0
_FAULTS, _REQUESTS = "/-/faults", "/-/requests"
_MOST_HITS = 3
_SIGNED = "AWS4-HMAC-SHA256 Credential=none/20260101/us-east-1/s3/aws4_request"


@dataclass(frozen=True)
class Fault:
    """What happens to some of the requests.

    ``fail`` answers 503 and does nothing; ``lost`` does what is asked and answers 503; ``stall``
    answers after half a minute; ``cut`` ends in the middle of the answer; ``deny`` answers 403.
    """

    kind: Literal["fail", "lost", "stall", "cut", "deny"]
    method: str = "GET|PUT|POST|HEAD|DELETE"
    """Regular expression of the methods."""
    path: str = ""
    """Regular expression that is found in the path."""
    every: int = 1
    """Which of these requests: each n-th, but none more than thrice, where n is more than 1."""
    times: int | None = None
    """How often at most."""


@dataclass(frozen=True)
class Asked:
    """A request that the server got."""

    method: str
    path: str
    query: str
    login: str
    part: str
    """The header Range."""
    sent_bytes: int = 0
    """Of the answer."""


class ObjectServer:
    """The server, as tests see it."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._buckets = 0

    def new_bucket(self) -> str:
        """Make a bucket and return its name."""
        self._buckets += 1
        name = f"bucket-{self._buckets}"
        self._ask("PUT", f"/{name}")
        return name

    def put(self, place: str, data: bytes) -> None:
        """Store an object at ``bucket/key``."""
        self._ask("PUT", f"/{place}", data)

    def get(self, place: str) -> bytes:
        """Return an object."""
        return self._ask("GET", f"/{place}")

    def delete(self, place: str) -> None:
        """Delete an object."""
        self._ask("DELETE", f"/{place}")

    def objects(self, bucket: str, prefix: str = "") -> dict[str, bytes]:
        """Return all objects whose keys begin so, without that beginning."""
        found, after = dict[str, bytes](), ""
        while True:
            path = f"/{bucket}?list-type=2&prefix={prefix}&start-after={quote(after)}"
            keys = re.findall("<Key>(.*?)</Key>", self._ask("GET", path).decode())
            if not keys:
                return found
            found |= {key.removeprefix(prefix): self.get(f"{bucket}/{quote(key)}") for key in keys}
            after = keys[-1]

    def disturb(self, *faults: Fault) -> None:
        """Let requests fail from now on; none where none is given."""
        self._ask("POST", _FAULTS, json.dumps([asdict(each) for each in faults]).encode())

    def requests(self) -> list[Asked]:
        """Return all requests since the last call."""
        return [Asked(**each) for each in json.loads(self._ask("GET", _REQUESTS))]

    def _ask(self, method: str, path: str, data: bytes | None = None) -> bytes:
        kind = {"Content-Type": "application/octet-stream"}  # of a form, no byte would arrive
        with urlopen(Request(self.url + path, data, kind, method=method), timeout=60) as answer:
            return bytes(answer.read())


@contextmanager
def started() -> Iterator[ObjectServer]:
    """Run the server."""
    with subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield ObjectServer(int(process.stdout.readline()))
        finally:
            process.kill()


class _Disturbed:
    """A WSGI application in front of another."""

    def __init__(self, inner: Callable[..., Iterable[bytes]]) -> None:
        self._inner = inner
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._faults: list[Fault] = []
        self._met: list[int] = []
        self._done: list[int] = []
        self._hit = Counter[tuple[str, ...]]()
        self._requests: list[Asked] = []

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if path in (_FAULTS, _REQUESTS):
            start("200 OK", [])
            return [self._control(path, environ)]
        asked, body = _asked(environ), b""
        kind = self._kind(asked)
        if not asked.login.startswith("AWS4"):  # a server of files lets all in
            environ["HTTP_AUTHORIZATION"] = _SIGNED
        if kind in (None, "lost", "cut"):
            head: list[Any] = []
            # Of two conditional writes, one comes first, as in a store.
            with self._writing if method == "PUT" else nullcontext():
                answer = self._inner(environ, lambda *given: head.extend(given[:2]))
                body = b"".join(answer)
        else:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        with self._lock:
            self._requests.append(replace(asked, sent_bytes=len(body)))
        if kind == "stall":
            threading.Event().wait(STALL_SECONDS)
        if kind in (None, "cut"):
            start(*head)
            return [body] if kind is None else self._cut(body, environ)
        body = b"" if method == "HEAD" else b"<Error><Code>Disturbed</Code></Error>"
        status = "403 Forbidden" if kind == "deny" else "503 Slow Down"
        start(status, [("Content-Length", str(len(body)))])
        return [body]

    def _control(self, path: str, environ: dict[str, Any]) -> bytes:
        with self._lock:
            if path == _REQUESTS:
                self._requests, found = [], self._requests
                return json.dumps([asdict(each) for each in found]).encode()
            text = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            self._faults = [Fault(**each) for each in json.loads(text)]
            self._met, self._done = [0] * len(self._faults), [0] * len(self._faults)
            self._hit.clear()
        return b""

    def _kind(self, asked: Asked) -> str | None:
        same = asked.method, asked.path, asked.query, asked.part
        with self._lock:
            for i, fault in enumerate(self._faults):
                if not re.fullmatch(fault.method, asked.method):
                    continue
                if not re.search(fault.path, asked.path):
                    continue
                self._met[i] += 1
                spared = fault.every > 1 and self._hit[same] >= _MOST_HITS
                if self._met[i] % fault.every == 0 and self._done[i] != fault.times and not spared:
                    self._done[i] += 1
                    self._hit[same] += 1
                    return fault.kind
        return None

    def _cut(self, body: bytes, environ: dict[str, Any]) -> Iterator[bytes]:
        yield body[: len(body) // 2]
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)


def _asked(environ: dict[str, Any]) -> Asked:
    names = ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "HTTP_AUTHORIZATION", "HTTP_RANGE")
    return Asked(*(environ.get(name, "") for name in names))


if __name__ == "__main__":
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, _Disturbed(moto), threaded=True)
    print(server.server_port, flush=True)  # noqa: T201 - the tests read it
    server.serve_forever()
