"""HTTP connections with one deadline for everything: connecting, sending, the headers and the body.

A socket's own time-out starts again with every byte, so a server that sends a byte now and then, in its headers or
in endless `100 Continue`, would hold a request for as long as it likes.
"""

import http.client
import io
import socket
import time
import urllib.request
from typing import Any


class _Reader(io.RawIOBase):
    """Reads a socket until the deadline; TimeoutError beyond."""

    def __init__(self, wire: socket.socket, deadline: float) -> None:
        self._wire = wire
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._wire.settimeout(left)
        return self._wire.recv_into(buffer)

    def close(self) -> None:
        super().close()
        self._wire.close()


class _Wire:
    """What http.client needs of a socket, with the deadline."""

    def __init__(self, wire: socket.socket, deadline: float) -> None:
        self._wire = wire
        self._deadline = deadline
        self._read = False

    def sendall(self, data: Any) -> None:
        self._wire.settimeout(max(self._deadline - time.monotonic(), 0.001))
        self._wire.sendall(data)

    def makefile(self, *_: object, **__: object) -> io.BufferedReader:
        self._read = True
        return io.BufferedReader(_Reader(self._wire, self._deadline))

    def close(self) -> None:
        """The connection is closed before its answer is read; from then on the socket is the reader's to close."""
        if not self._read:
            self._wire.close()


def _timed(kind: type[http.client.HTTPConnection]) -> type[http.client.HTTPConnection]:
    class Timed(kind):  # type: ignore[misc, valid-type]
        def connect(self) -> None:
            deadline = time.monotonic() + (self.timeout or 0.0)
            super().connect()
            self.sock: Any = _Wire(self.sock, deadline)

    return Timed


class TimedHttp(urllib.request.HTTPHandler):
    """`http:` addresses; the time-out of a request is that of the whole exchange."""

    def http_open(self, req: Any) -> Any:
        return self.do_open(_timed(http.client.HTTPConnection), req)


class TimedHttps(urllib.request.HTTPSHandler):
    """`https:` addresses, certificates checked as always."""

    def https_open(self, req: Any) -> Any:
        return self.do_open(_timed(http.client.HTTPSConnection), req, context=self._context)  # type: ignore[attr-defined]
