"""Servers that behave badly, as real sockets: they hang, drip, lie about lengths, break off, redirect, and answer
429 and 500 in storms.

A run through one of them ends with every answer right, or with one clear error after which it can go on, and
nothing is paid for twice.
"""

import contextlib
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import pytest

from tutelage.core.errors import EndpointError
from tutelage.models import transport
from tutelage.models.endpoint import EndpointLM, served_model
from tutelage.models.seam import Generation
from tutelage.models.timed_connection import _Reader

MUTATIONS = [
    ("src/tutelage/models/timed_connection.py", "        if left <= 0:\n", "        if False:\n"),
    ("src/tutelage/models/timed_connection.py", "self._wire.settimeout(left)", "self._wire.settimeout(60)"),
    ("src/tutelage/models/transport.py", "        if response.length:\n", "        if False:\n"),
    ("src/tutelage/models/transport.py", "status in _RETRIED or _torn(status, raw)", "status in _RETRIED"),
    ("src/tutelage/models/transport.py", "None if math.isnan(number) else number", "number"),
    ("src/tutelage/models/transport.py", "parsedate_to_datetime(retry_after).timestamp() - time.time()", "None"),
    ("src/tutelage/models/transport.py", "            if size > self.max_bytes:", "            if False:"),
    ("src/tutelage/models/transport.py", "if not location or not same:", "if not location:"),
    ("src/tutelage/models/endpoint.py", "            with suppress(EndpointError):\n", "            if True:\n"),
    (
        "src/tutelage/models/endpoint.py",
        "        if place is not None:\n            answer_cache.write(place, answer)\n        return found",
        "        return found",
    ),
    (
        "src/tutelage/models/endpoint.py",
        "        found = read(path, answer)\n",
        "        answer_cache.write(place, answer)\n        found = read(path, answer)\n",
    ),
    ("src/tutelage/models/endpoint.py", "type(one) is int and 0 <= one < 2**53", "type(one) is int"),
]
Reply = Callable[[socket.socket, dict[str, Any]], None]


class Wire:
    """A server that hands each request's socket to `reply`, which sends what it likes."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.asked: list[str] = []
        self.paths: list[str] = []
        self._lock = threading.Lock()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, ValueError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(65536)
            head, _, rest = head.partition(b"\r\n\r\n")
            length = next(
                (int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-len")), 0
            )
            while len(rest) < length:
                rest += connection.recv(65536)
            body = json.loads(rest or b"{}")
            with self._lock:
                self.paths.append(head.split(b" ")[1].decode())
                if "messages" in body:
                    self.asked.append(body["messages"][-1]["content"])
            self.reply(connection, body)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def serve() -> Iterator[Callable[[Reply], Wire]]:
    made: list[Wire] = []

    def start(reply: Reply) -> Wire:
        made.append(Wire(reply))
        return made[-1]

    yield start
    for one in made:
        one.close()


def said(body: dict[str, Any]) -> bytes:
    text = f"echo {body['messages'][-1]['content']}"
    return json.dumps(
        {
            "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3},
        }
    ).encode()


def send(
    wire: socket.socket, raw: bytes, status: str = "200 OK", length: int | None = None, **headers: str
) -> None:
    named = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    size = f"Content-Length: {len(raw) if length is None else length}\r\n" if length != -1 else ""
    wire.sendall(f"HTTP/1.1 {status}\r\n{size}{named}Connection: close\r\n\r\n".encode() + raw)


def good(wire: socket.socket, body: dict[str, Any]) -> None:
    send(wire, said(body))


def client(server: Wire, **options: Any) -> EndpointLM:
    return EndpointLM(server.url, "toy", **{"backoff": 0.01, "timeout": 0.6, **options})


def drip(wire: socket.socket, data: bytes, seconds: float = 20.0) -> None:
    """Bytes one at a time, each soon enough for a time-out that starts again with every byte."""
    end = time.monotonic() + seconds
    for number in range(len(data)):
        if time.monotonic() > end:
            return
        wire.sendall(data[number : number + 1])
        time.sleep(0.05)


SLOW: dict[str, Reply] = {
    "hangs before its headers": lambda wire, body: time.sleep(20),
    "drips its status line": lambda wire, body: drip(wire, b"HTTP/1.1 200 OK" + b" " * 400),
    "drips its headers": lambda wire, body: drip(wire, b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 400),
    "says continue for ever": lambda wire, body: drip(wire, b"HTTP/1.1 100 Continue\r\n\r\n" * 30),
    "drips its body": lambda wire, body: drip(
        wire, b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n" + b" " * 400
    ),
    "announces more than it sends and stays": lambda wire, body: (
        send(wire, said(body), length=5000),
        time.sleep(20),
    ),
    "sends endless chunks": lambda wire, body: drip(
        wire, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 200
    ),
}  # type: ignore[dict-item]


@pytest.mark.parametrize("kind", SLOW)
def test_the_time_limit_is_that_of_the_whole_answer(serve, kind) -> None:
    server = serve(SLOW[kind])
    began = time.monotonic()
    with pytest.raises(EndpointError, match=r"did not answer in time[\s\S]*within 0.6 s"):
        client(server).generate(["x"])
    assert time.monotonic() - began < 5


def test_after_the_deadline_nothing_is_read_even_if_it_is_there() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"late")
        with pytest.raises(TimeoutError):
            _Reader(ours, time.monotonic() - 1).readinto(bytearray(4))
        with pytest.raises(TimeoutError):
            theirs.close()
            _Reader(ours, time.monotonic()).readinto(bytearray(4))


BROKEN: dict[str, Reply] = {
    "closes without a word": lambda wire, body: None,
    "closes in the headers": lambda wire, body: wire.sendall(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "announces more than it sends": lambda wire, body: send(wire, said(body)[:40], length=len(said(body))),
    "sends whole JSON and announced more": lambda wire, body: send(wire, said(body), length=len(said(body)) + 9),
    "announces less than it sends": lambda wire, body: send(wire, said(body), length=len(said(body)) - 9),
    "breaks off without a length": lambda wire, body: send(wire, said(body)[:-9], length=-1),
    "breaks off in a chunk": lambda wire, body: wire.sendall(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{"
    ),
    "is no HTTP": lambda wire, body: wire.sendall(b"SSH-2.0-OpenSSH\r\n"),
    "sends a header without end": lambda wire, body: wire.sendall(
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n"
    ),
    "sends headers without end": lambda wire, body: wire.sendall(
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n"
    ),
    "redirects to control characters": lambda wire, body: send(wire, b"", "307 T", Location="/v1/\x01 b"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_breaks_off_is_asked_again(serve, kind) -> None:
    """Every other answer is broken; those that arrive are whole and the right ones."""
    count = Counter[str]()

    def reply(wire: socket.socket, body: dict[str, Any]) -> None:
        prompt = body["messages"][-1]["content"]
        count[prompt] += 1
        (BROKEN[kind] if count[prompt] == 1 and prompt != "first" else good)(wire, body)

    server = serve(reply)
    model = client(server, retries=2)
    model.generate(["first"])
    prompts = [f"q{n}" for n in range(6)]
    assert [one.text for one in model.generate(prompts)] == [f"echo {prompt}" for prompt in prompts]
    # One that never gets well: one clear error.
    server.reply = BROKEN[kind]
    with pytest.raises(EndpointError, match=r"cannot be reached|not JSON|in time"):
        client(server, retries=1).generate(["x"])


def test_a_storm_of_everything_ends_with_right_answers_and_nothing_paid_twice(serve, tmp_path) -> None:
    """A tenth of the answers is good; the run is started again until it ends, and no answer is asked for again."""
    rng, lock = random.Random(5), threading.Lock()
    answered = Counter[str]()
    bad: list[Reply] = [
        lambda wire, body: send(wire, b"{}", "429 Too Many Requests", Retry_After="0"),
        lambda wire, body: send(wire, b"{}", "429 Too Many Requests", Retry_After="nan"),
        lambda wire, body: send(wire, b"oops", "500 Internal Server Error"),
        lambda wire, body: send(wire, b"", "503 Service Unavailable", Retry_After="soon"),
        lambda wire, body: send(wire, b'{"choices": [{"message": {"content": 5}}]}'),
        lambda wire, body: send(wire, b'{"choices": []}'),
        lambda wire, body: send(wire, b"<html>busy</html>"),
        lambda wire, body: send(wire, b'{"error": {"message": "overloaded"}}'),
        *(
            BROKEN[name]
            for name in ("closes without a word", "announces more than it sends", "breaks off without a length")
        ),
    ]

    def reply(wire: socket.socket, body: dict[str, Any]) -> None:
        with lock:
            wrong = bad[rng.randrange(len(bad))] if rng.random() < 0.9 else None
            if wrong is None:
                answered[body["messages"][-1]["content"]] += 1
        (wrong or good)(wire, body)

    server = serve(reply)
    prompts = [f"question {n}" for n in range(30)]
    paid, found, errors = 0, None, []
    for _ in range(200):
        model = client(server, cache=tmp_path, retries=2, backoff=0.001)
        try:
            found = model.generate(prompts)
        except EndpointError as error:
            errors.append(str(error))
        paid += model.meter.cost.calls and model.tokens_spent
        if found is not None:
            break
    assert found is not None and [one.text for one in found] == [f"echo {prompt}" for prompt in prompts]
    assert len(errors) > 3 and all("where:" in text and "found:" in text for text in errors)
    assert set(answered.values()) == {1}, "an answer was paid for twice"
    # In the end everything is there without the server.
    server.close()
    again = client(server, cache=tmp_path)
    assert again.generate(prompts) == found and again.tokens_spent == 0


def test_an_odd_answer_is_not_met_again(serve, tmp_path) -> None:
    server = serve(lambda wire, body: send(wire, b'{"choices": [{"message": {"content": 5}}]}'))
    for _ in range(2):
        with pytest.raises(EndpointError, match="lacks a completion"):
            client(server, cache=tmp_path).generate(["x"])
    assert len(server.asked) == 2
    server.reply = good
    assert client(server, cache=tmp_path).generate(["x"])[0].text == "echo x"
    # One that an earlier version kept is asked for again.
    (file,) = tmp_path.rglob("*.json")
    file.write_text('{"choices": [{"message": {"content": 5}}]}', encoding="utf-8")
    assert client(server, cache=tmp_path).generate(["x"])[0].text == "echo x"
    assert len(server.asked) == 4


def test_failures_keep_their_place_in_a_storm(serve) -> None:
    def reply(wire: socket.socket, body: dict[str, Any]) -> None:
        number = int(body["messages"][-1]["content"])
        good(wire, body) if number % 3 else send(wire, b"{}", "500 no")

    found = client(serve(reply), retries=0).attempt([str(n) for n in range(12)])
    for number, one in enumerate(found):
        if number % 3:
            assert isinstance(one, Generation) and one.text == f"echo {number}"
        else:
            assert isinstance(one, EndpointError)


@pytest.mark.parametrize(
    ("header", "waits"),
    [
        ("7", 7.0),
        ("-5", 0.0),
        ("1e9", 60.0),
        ("inf", 60.0),
        ("nan", None),
        ("soon", None),
        ("", None),
        ("date", 30.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Thu, 99 Foo 1970", None),
    ],
)
def test_retry_after(serve, monkeypatch, header, waits) -> None:
    slept: list[float] = []
    monkeypatch.setattr(transport.time, "sleep", slept.append)
    value = formatdate(time.time() + 30, usegmt=True) if header == "date" else header
    first = iter([True])

    def reply(wire: socket.socket, body: dict[str, Any]) -> None:
        send(wire, b"{}", "429 slow down", Retry_After=value) if next(first, False) else good(wire, body)

    assert client(serve(reply)).generate(["x"])[0].text == "echo x"
    assert len(slept) == 1
    assert slept[0] == pytest.approx(waits, abs=2) if waits is not None else 0 < slept[0] < 0.1


def test_huge_answers_are_cut_off(serve) -> None:
    sent = []

    def flood(wire: socket.socket, head: bytes, piece: bytes) -> None:
        wire.sendall(head)
        with contextlib.suppress(OSError):
            for _ in range(400):
                wire.sendall(piece)
                sent.append(len(piece))

    heads = {
        "a length": b"Content-Length: 99999999999\r\n",
        "none": b"",
        "chunks": b"Transfer-Encoding: chunked\r\n",
    }
    for name, head in heads.items():
        sent.clear()
        piece = b"x" * 65536
        piece = b"10000\r\n" + piece + b"\r\n" if name == "chunks" else piece
        server = serve(lambda wire, body, h=head, p=piece: flood(wire, b"HTTP/1.1 200 OK\r\n" + h + b"\r\n", p))
        with pytest.raises(EndpointError, match="too large"):
            client(server, max_bytes=200_000, timeout=10).generate(["x"])
        assert sum(sent) < 20 << 20, name


FORBIDDEN = [
    "http://169.254.169.254/latest/meta-data/",
    "http://10.0.0.1/v1",
    "http://[::1]:{port}/v1",
    "http://localhost:{port}/v1/chat/completions",
    "http://127.0.0.1:{other}/v1",
    "http://127.0.0.1.example.com:{port}/v1",
    "http://user@127.0.0.1:{port}/v1",
    "http://127.0.0.1:{port}@evil.example.com/v1",
    "//evil.example.com/v1",
    "https://127.0.0.1:{port}/v1",
    "file:///etc/passwd",
    "ftp://127.0.0.1/x",
    "data:application/json,{{}}",
    "gopher://127.0.0.1:{port}/_x",
    "http://[",
    "http://127.0.0.1:99999/v1",
]


@pytest.mark.parametrize("status", ["301 a", "302 a", "303 a", "307 a", "308 a"])
def test_redirects_to_other_addresses_are_refused(serve, status) -> None:
    other = serve(good)
    server = serve(good)
    for place in FORBIDDEN:
        location = place.format(port=server.port, other=other.port)
        server.reply = lambda wire, body, location=location: send(wire, b"", status, Location=location)
        before = len(server.asked)
        with pytest.raises(EndpointError, match="redirects to another host"):
            client(server, retries=0).generate(["secret text"])
        assert len(server.asked) == before + 1, place
    assert other.asked == []


def test_redirects_within_the_host_are_followed_and_end(serve) -> None:
    server = serve(good)
    server.reply = lambda wire, body: (
        good(wire, body) if server.paths[-1] == "/v2" else send(wire, b"", "307 a", Location="/v2")
    )
    assert client(server).generate(["x"])[0].text == "echo x"
    server.reply = lambda wire, body: send(wire, b"", "302 a", Location="?again")
    with pytest.raises(EndpointError, match="redirects without end"):
        client(server, retries=0).generate(["x"])
    assert len(server.paths) == 2 + 4


@pytest.mark.parametrize(
    "usage", ["nan", '{"prompt_tokens": "7"}', '{"prompt_tokens": -7}', '{"prompt_tokens": 1e30}', "[7]"]
)
def test_what_a_server_counts_wrongly_is_not_counted(serve, usage) -> None:
    raw = b'{"choices": [{"message": {"content": "a"}}], "usage": %s}' % usage.replace("nan", "NaN").encode()
    model = client(serve(lambda wire, body: send(wire, raw)))
    assert model.generate(["x"])[0].text == "a"
    assert model.tokens_spent == 0


@pytest.mark.parametrize(
    "raw", [b'{"data": 5}', b'{"data": [5, {"id": null}, {"id": "b"}]}', b"{}", b'{"data": {"id": 1}}']
)
def test_an_odd_list_of_models(serve, raw) -> None:
    with pytest.raises(EndpointError, match="which model"):
        served_model(serve(lambda wire, body: send(wire, raw)).url)
