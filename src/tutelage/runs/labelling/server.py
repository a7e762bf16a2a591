"""The local page: one annotator's session over HTTP, for this machine only.

It listens on the loopback address. Every request must carry the random token of the address that was printed
(compared in constant time), name this server as its host (a page elsewhere cannot rebind its name to it) and,
where the browser tells an origin, come from it. The page is one file without outside assets under a content policy
with a nonce, and puts all text in as text.
"""

import hmac
import http.server
import json
import os
import secrets
import socketserver
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tutelage.core.errors import InputError, StoreError, TutelageError
from tutelage.runs.labelling.session import Session

ADDRESS = "127.0.0.1"
PAGE = Path(__file__).with_name("page.html")
LARGEST_BODY = 16 * 1024
MOST_ITEMS = 500
# Seconds after which a connection that says nothing is closed.
PATIENCE = 30
POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)


class LabelServer(http.server.ThreadingHTTPServer):
    """Serves one session; `finished` is set when the annotator ends it on the page."""

    daemon_threads = True
    # On Windows the option would let another process take the port over.
    allow_reuse_address = os.name != "nt"

    def __init__(self, session: Session, port: int = 0) -> None:
        self.session = session
        self.token = secrets.token_urlsafe(24)
        self.page = PAGE.read_text(encoding="utf-8")
        self.finished = threading.Event()
        self.ended = False
        try:
            super().__init__((ADDRESS, port), _Handler)
        except (OSError, OverflowError) as error:
            raise StoreError(
                "the page cannot be served",
                where=f"{ADDRESS}:{port}",
                expected="a free port",
                found=getattr(error, "strerror", None) or str(error),
                remedy="choose another --port, or leave it out for any free one",
            ) from None

    def server_bind(self) -> None:
        # Not that of HTTPServer, which asks the name service for the address.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def server_close(self) -> None:
        # Connections that are open stay so for a while, with nobody left to write down what they bring.
        self.ended = True
        super().server_close()

    @property
    def url(self) -> str:
        """The address of the page, token included."""
        return f"http://{ADDRESS}:{self.server_port}/{self.token}/"

    @property
    def hosts(self) -> tuple[str, ...]:
        """What a browser may call this server."""
        return f"{ADDRESS}:{self.server_port}", f"localhost:{self.server_port}"

    def finish(self) -> None:
        """End `serve_forever` from a request."""
        self.finished.set()
        threading.Thread(target=self.shutdown, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of a reply is no event."""


class _Refused(Exception):
    """A request that is not served: status and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class _Handler(http.server.BaseHTTPRequestHandler):
    server: LabelServer
    protocol_version = "HTTP/1.1"
    server_version = "tutelage"
    sys_version = ""
    timeout = PATIENCE

    def do_GET(self) -> None:
        self._reply({"": self._page, "state": self._state, "items": self._items})

    def do_POST(self) -> None:
        self._reply({"answer": self._answer, "skip": self._skip, "undo": self._undo, "finish": self._finish})

    def do_OTHER(self) -> None:
        # Nothing was read of a body that may follow.
        self.close_connection = True
        self._send(405, {"what": "this page is read with GET and answered with POST"}, {"Allow": "GET, POST"})

    def log_message(self, *_: Any) -> None:
        """Nothing is logged: the address holds the token."""

    def _reply(self, known: dict[str, Any]) -> None:
        try:
            action = known.get(self._admitted())
            if action is None:
                raise _Refused(404, "there is nothing at this address")
            action()
        except _Refused as refused:
            self.close_connection = True
            self._send(refused.status, {"what": str(refused)})
        except InputError as error:
            self._send(422, error.to_json())
        except TutelageError as error:
            self._send(507, error.to_json())

    def _admitted(self) -> str:
        """The path below the token; raises _Refused for whoever may not come in."""
        if self.headers.get("Host", "").lower() not in self.server.hosts:
            raise _Refused(403, "this server answers to its own address only")
        origin = self.headers.get("Origin")
        if origin is not None and origin.lower() not in {f"http://{host}" for host in self.server.hosts}:
            raise _Refused(403, "this server answers to its own page only")
        _, _, rest = urlsplit(self.path).path.partition("/")
        token, slash, path = rest.partition("/")
        given = token.encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, self.server.token.encode()) or not slash:
            raise _Refused(403, "open the address that the command printed")
        if self.server.ended:
            raise _Refused(503, "not saved: the command has ended; start it again to go on")
        return path

    def _page(self) -> None:
        nonce = secrets.token_urlsafe(16)
        body = self.server.page.replace("{{nonce}}", nonce).encode()
        self._send_bytes(
            200, body, "text/html; charset=utf-8", {"Content-Security-Policy": POLICY.format(nonce=nonce)}
        )

    def _state(self) -> None:
        self._send(200, self.server.session.state())

    def _items(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        try:
            start, count = int(query["start"][0]), int(query["count"][0])
        except (KeyError, ValueError):
            raise _Refused(400, "start and count are whole numbers") from None
        if start < 0 or not 0 < count <= MOST_ITEMS:
            raise _Refused(400, f"start is from 0, count from 1 to {MOST_ITEMS}")
        self._send(200, {"items": self.server.session.items(start, count)})

    def _answer(self) -> None:
        given = self._body("id", "label")
        made = self.server.session.answer(given["id"], given["label"], given.get("seconds"), given["key"])
        self._send(200, made)

    def _skip(self) -> None:
        given = self._body("id")
        self._send(200, self.server.session.skip(given["id"], given.get("seconds"), given["key"]))

    def _undo(self) -> None:
        self._send(200, self.server.session.undo(self._body()["key"]))

    def _finish(self) -> None:
        self._body()
        self._send(200, self.server.session.summary())
        self.server.finish()

    def _body(self, *needed: str) -> dict[str, Any]:
        """The JSON object of a request, its fields `needed` and `key` being text."""
        if self.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
            raise _Refused(415, "a request is application/json")
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or "Transfer-Encoding" in self.headers:
            raise _Refused(411, "a request says its length")
        if len(length) > 9 or int(length) > LARGEST_BODY:
            raise _Refused(413, f"a request has at most {LARGEST_BODY} bytes")
        try:
            given = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise _Refused(400, "a request is one JSON object") from None
        if not isinstance(given, dict) or any(not isinstance(given.get(k), str) for k in (*needed, "key")):
            raise _Refused(400, "a request is one JSON object with " + ", ".join((*needed, "key")))
        if len(given["key"]) > 64:
            raise _Refused(400, "a key has at most 64 characters")
        return given

    def _send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")
        self._send_bytes(status, body, "application/json; charset=utf-8", headers or {})

    def _send_bytes(self, status: int, body: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        always = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        if "Content-Security-Policy" not in headers:
            always["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'"
        for name, value in {**always, **headers}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


for _method in ("HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"):
    setattr(_Handler, f"do_{_method}", _Handler.do_OTHER)
