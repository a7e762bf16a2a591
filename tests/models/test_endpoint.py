"""The endpoint against a real server on the loopback: answers, refusals, retries, budget, the key's secrecy."""

import contextlib
import json
import math
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from tutelage.core.errors import ConfigError, EndpointError, TutelageError
from tutelage.core.records import Budget
from tutelage.models import transport
from tutelage.models.endpoint import BudgetSpent, EndpointLM, served_model
from tutelage.models.endpoint_options import Prices
from tutelage.models.load import load_model
from tutelage.models.seam import Generation
from tutelage.models.transport import StatusError

MUTATIONS = [
    ("src/tutelage/models/transport.py", "if not location or not same:", "if not location:"),
    ("src/tutelage/models/transport.py", 'return text.replace(key, "[redacted]")', "return text"),
    ("src/tutelage/models/transport.py", "if size > self.max_bytes:", "if size > 2**40:"),
    ("src/tutelage/models/endpoint.py", 'if token["end"] > len(context)', 'if token["start"] >= len(context)'),
    ("src/tutelage/models/endpoint.py", "if limit is not None and spent >= limit:", "if False:"),
    ("src/tutelage/models/endpoint.py", "(self.as_if, self.paid) if paid else (self.as_if,)", "(self.paid,)"),
    ("src/tutelage/models/endpoint.py", "self._book(kept, 0.0, paid=False)", "pass"),
    ("src/tutelage/models/endpoint.py", "down = self._failed >= BREAKER", "down = False"),
    (
        "src/tutelage/models/endpoint.py",
        "            self._failed = 0\n        return found",
        "            pass\n        return found",
    ),
    ("src/tutelage/models/endpoint.py", "error.status in _FATAL", "False"),
    ("src/tutelage/models/endpoint.py", 'reason == "content_filter" or', "False or"),
    ("src/tutelage/models/endpoint_options.py", "prompt * self.prompt + completion", "prompt + completion"),
    ("src/tutelage/models/transport.py", "if not self._answered or attempt", "if attempt"),
    ("src/tutelage/models/transport.py", "_RETRIED = frozenset({408, 409, 425, ", "_RETRIED = frozenset({"),
]
KEY = "sk-very-secret-0123456789"


class Server:
    """Answers every request with `reply(request number, path, body, headers)`."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.reply: Callable[..., tuple[int, dict[str, str], bytes]] = ok_chat
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
                outer.requests.append((self.path, body, dict(self.headers)))
                status, headers, raw = outer.reply(len(outer.requests), self.path, body, dict(self.headers))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                with contextlib.suppress(OSError):  # the client hangs up, as it should on too much
                    self.wfile.write(raw)

            do_GET = do_POST  # noqa: N815

            def log_message(self, *_args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


def ok_chat(_n: int, _path: str, body: dict[str, Any], _headers: dict[str, str]) -> tuple[int, dict, bytes]:
    said = body["messages"][-1]["content"]
    return answer(
        {
            "choices": [{"message": {"role": "assistant", "content": f"echo {said}"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3},
        }
    )


def answer(value: Any, status: int = 200, **headers: str) -> tuple[int, dict[str, str], bytes]:
    return status, {"Content-Type": "application/json", **headers}, json.dumps(value).encode()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def client(server: Server, **options: Any) -> EndpointLM:
    return EndpointLM(server.url, "toy", **{"backoff": 0.01, **options})


def test_chat_answers_in_order_and_counts_tokens(server: Server) -> None:
    model = client(server, concurrency=3)
    prompts = [f"question {i}" for i in range(7)]
    found = model.generate(prompts, max_new_tokens=5, stop=["\n"])
    assert [one.text for one in found] == [f"echo question {i}" for i in range(7)]
    assert (found[0].prompt_tokens, found[0].truncated) == (7, False)
    path, body, _headers = server.requests[0]
    assert path == "/v1/chat/completions"
    assert (body["model"], body["max_tokens"], body["temperature"], body["stop"]) == ("toy", 5, 0.0, ["\n"])
    assert model.meter.cost.calls == 7
    assert model.meter.cost.generated_tokens == 21
    assert model.tokens_spent == 70


def test_chat_prompt_keeps_its_messages(server: Server) -> None:
    model = client(server)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    prompt = model.chat_prompt(messages)
    assert prompt == "system: Be brief.\nuser: Hello\n"
    model.generate([prompt])
    assert server.requests[0][1]["messages"] == messages
    with pytest.raises(ConfigError, match="message 0"):
        model.chat_prompt([{"role": "user"}])


def test_completions_send_the_prompt_as_it_is(server: Server) -> None:
    server.reply = lambda *_: answer({"choices": [{"text": " done", "finish_reason": "length"}]})
    (found,) = client(server, api="completions").generate(["Once"], temperature=0.5, seed=3)
    assert (found.text, found.truncated) == (" done", True)
    path, body, _headers = server.requests[0]
    assert (path, body["prompt"], "seed" in body) == ("/v1/completions", "Once", True)


def test_every_prompt_may_have_a_seed_of_its_own(server: Server) -> None:
    client(server, concurrency=1).generate(["a", "b", "c"], temperature=1.0, seed=[7, 8, 7])
    assert [body["seed"] for _, body, _ in server.requests] == [7, 8, 7]


def echoing(_n: int, _path: str, body: dict[str, Any], _headers: dict[str, str]) -> tuple[int, dict, bytes]:
    """Tokens of three characters; token i has log-probability -i, and is the best one where i is even."""
    text = body["prompt"] + "!"
    starts = list(range(0, len(text), 3))
    names = [text[i : i + 3] for i in starts]
    logps = [None, *(-float(i) for i in range(1, len(starts)))]
    tops = [None if i == 0 else {n: -1.0} if i % 2 == 0 else {n: -9.0, "?": -1.0} for i, n in enumerate(names)]
    logprobs = {"tokens": names, "token_logprobs": logps, "top_logprobs": tops, "text_offset": starts}
    return answer({"choices": [{"text": text, "logprobs": logprobs}]})


def test_loglikelihood_from_echo(server: Server) -> None:
    server.reply = echoing
    model = client(server)
    # Tokens abc def ghi j!: the continuation "fghij" begins inside "def", which belongs to it; 1 + 2 + 3.
    (straddling,) = model.loglikelihood([("abcde", "fghij")])
    assert (straddling.sum, straddling.n_tokens, straddling.is_greedy) == (-6.0, 3, False)
    (clean,) = model.loglikelihood([("abcdef", "ghi")])
    assert (clean.sum, clean.n_tokens, clean.is_greedy) == (-2.0, 1, True)
    empty, score = model.score_texts(["", "abcdefgh"], per_token=True)
    assert math.isnan(empty.nll_sum) and empty.n_tokens == 0
    assert (score.nll_sum, score.n_tokens, score.n_bytes_scored, score.first_token_scored) == (3.0, 2, 5, False)
    assert np.array_equal(score.per_token, [1.0, 2.0])


def test_no_echo_is_said(server: Server) -> None:
    server.reply = lambda *_: answer({"choices": [{"text": "x", "logprobs": None}]})
    with pytest.raises(EndpointError, match="no log-probabilities of a prompt"):
        client(server).loglikelihood([("a", "b")])


def test_cache_answers_without_the_server(server: Server, tmp_path) -> None:
    first = client(server, cache=tmp_path).generate(["a", "b"])
    server.reply = lambda *_: answer({"error": "gone"}, 404)
    again = client(server, cache=tmp_path)
    assert again.generate(["a", "b"]) == first
    assert again.tokens_spent == 0
    with pytest.raises(EndpointError):
        again.generate(["a"], max_new_tokens=65)
    files = list(tmp_path.rglob("*.json"))
    assert len(files) == 2
    files[0].write_text("{torn", encoding="utf-8")
    server.reply = ok_chat
    assert client(server, cache=tmp_path).generate(["a", "b"]) == first


def test_retries_after_429_and_500(server: Server) -> None:
    def flaky(n: int, *rest: Any) -> tuple[int, dict, bytes]:
        if n == 1:
            return answer({}, 429, **{"Retry-After": "0"})
        return answer({}, 503) if n == 2 else ok_chat(n, *rest)

    server.reply = flaky
    assert client(server).generate(["x"])[0].text == "echo x"
    assert len(server.requests) == 3
    server.reply = lambda *_: answer({}, 500)
    with pytest.raises(EndpointError, match="status 500"):
        client(server, retries=2).generate(["x"])
    assert len(server.requests) == 6
    server.reply = lambda *_: answer({"error": {"message": "no such model"}}, 404)
    with pytest.raises(EndpointError, match="no such model"):
        client(server).generate(["x"])
    assert len(server.requests) == 7  # a mistake of ours is not repeated


def test_timeout(server: Server) -> None:
    def slow(*args: Any) -> tuple[int, dict, bytes]:
        time.sleep(1.0)
        return ok_chat(*args)

    server.reply = slow
    with pytest.raises(EndpointError, match=r"did not answer in time[\s\S]*within 0.2 s"):
        client(server, timeout=0.2).generate(["x"])


def test_redirect_to_another_host_is_refused(server: Server) -> None:
    other = Server()
    for target in (
        other.url,
        f"http://localhost:{server.http.server_port}/v1/chat/completions",
        "file:///etc/passwd",
    ):
        server.reply = lambda *_, target=target: (307, {"Location": target}, b"")
        with pytest.raises(EndpointError, match="redirects to another host"):
            client(server).generate(["x"])
    assert other.requests == []
    other.http.shutdown()


def test_redirect_on_the_same_host_is_followed_and_bounded(server: Server) -> None:
    def moved(n: int, path: str, *rest: Any) -> tuple[int, dict, bytes]:
        return (308, {"Location": "/v2/chat"}, b"") if path.startswith("/v1") else ok_chat(n, path, *rest)

    server.reply = moved
    assert client(server).generate(["x"])[0].text == "echo x"
    assert server.requests[1][:2] == ("/v2/chat", server.requests[0][1])
    server.reply = lambda *_: (307, {"Location": "/v1/again"}, b"")
    with pytest.raises(EndpointError, match="redirects without end"):
        client(server).generate(["x"])


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"<html>login</html>", "not JSON"),
        (b"[1, 2]", "not a JSON object"),
        (b'{"choices": []}', "lacks a completion"),
        (b'{"choices": [{"message": {"content": 5}}]}', "lacks a completion"),
        (b'{"error": "overloaded"}', "overloaded"),
        (b"\xff\xfe", "not JSON"),
    ],
)
def test_odd_answers(server: Server, raw: bytes, words: str) -> None:
    server.reply = lambda *_: (200, {}, raw)
    with pytest.raises(EndpointError, match=words):
        client(server).generate(["x"])


def test_oversize(server: Server) -> None:
    server.reply = lambda *_: answer({"choices": [{"message": {"content": "x" * 200_000}}]})
    with pytest.raises(EndpointError, match="too large"):
        client(server, max_bytes=100_000).generate(["x"])


def test_nobody_listens(monkeypatch) -> None:
    # What never answered is a wrong address: there is nothing to wait for.
    monkeypatch.setattr(transport.time, "sleep", lambda _seconds: pytest.fail("waits"))
    with pytest.raises(EndpointError, match="cannot be reached"):
        EndpointLM("http://127.0.0.1:9/v1", "toy").generate(["x"])


def test_remote_needs_permission() -> None:
    for url in ("https://api.example.com/v1", "http://127.0.0.1.example.com/v1", "http://10.0.0.1/v1"):
        with pytest.raises(ConfigError, match="allow_remote"):
            EndpointLM(url, "toy")
        assert EndpointLM(url, "toy", allow_remote=True).remote
    assert not EndpointLM("http://localhost:1/v1", "toy").remote
    for url in ("ftp://localhost/x", "file:///etc/passwd", "localhost:8000", "http://[", "http://localhost:x/"):
        with pytest.raises(ConfigError, match="endpoint URL"):
            EndpointLM(url, "toy", allow_remote=True)
    with pytest.raises(ConfigError, match="credentials") as caught:
        EndpointLM(f"http://user:{KEY}@localhost/v1", "toy")
    assert KEY not in str(caught.value)


def test_key_is_sent_and_never_shown(server: Server, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("TOY_KEY", KEY)
    model = client(server, key_env="TOY_KEY", cache=tmp_path, retries=0)
    model.generate(["x"])
    assert server.requests[0][2]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in repr(model) + repr(model._transport) + str(vars(model)) + str(vars(model._transport))

    # A server that repeats the key in whatever it says.
    def leak(_n: int, _path: str, body: dict, headers: dict) -> tuple[int, dict, bytes]:
        return replies[body["messages"][0]["content"]](headers["Authorization"])

    replies: dict[str, Callable[[str], tuple[int, dict, bytes]]] = {
        "denied": lambda key: answer({"error": f"bad key {key}"}, 401),
        "html": lambda key: (200, {}, f"<b>{key}</b>".encode()),
        "moved": lambda key: (307, {"Location": f"http://{key.split()[1]}.example.com/"}, b""),
        "error": lambda key: answer({"error": key}),
        "odd": lambda key: answer({"choices": [key]}),
    }
    server.reply = leak
    for name in replies:
        with pytest.raises(TutelageError) as caught:
            model.generate([name])
        shown = "".join(traceback.format_exception(caught.value)) + json.dumps(caught.value.to_json())
        assert KEY not in shown, name
    server.reply = lambda *_: answer({"choices": [{"message": {"content": f"your key is {KEY}"}}]})
    assert model.generate(["tell"])[0].text == "your key is [redacted]"
    assert KEY not in "".join(path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.json"))


def test_missing_and_malformed_key(monkeypatch) -> None:
    monkeypatch.delenv("TOY_KEY", raising=False)
    with pytest.raises(ConfigError, match="TOY_KEY"):
        EndpointLM("http://localhost/v1", "toy", key_env="TOY_KEY")
    monkeypatch.setenv("TOY_KEY", "secret value\nInjected: header")
    with pytest.raises(ConfigError, match="no key has") as caught:
        EndpointLM("http://localhost/v1", "toy", key_env="TOY_KEY")
    assert "secret" not in str(caught.value)


def test_budget_stops_and_cached_answers_stay_free(server: Server, tmp_path) -> None:
    model = client(server, budget=Budget(tokens=25), concurrency=1, cache=tmp_path)
    with pytest.raises(EndpointError, match="budget is spent"):
        model.generate([str(i) for i in range(10)])
    assert len(server.requests) == 3  # 10 tokens each; the third passes 25
    richer = client(server, budget=Budget(tokens=70), concurrency=1, cache=tmp_path)
    assert len(richer.generate([str(i) for i in range(10)])) == 10
    assert len(server.requests) == 10


def test_cached_answers_cost_what_they_had_cost(server: Server, tmp_path) -> None:
    prices = Prices(prompt=2.0, completion=10.0)  # 7 and 3 tokens: 44 millionths an answer
    first = client(server, cache=tmp_path, prices=prices)
    first.generate(["a", "b"])
    again = client(server, cache=tmp_path, prices=prices)
    again.generate(["a", "b", "c"])
    assert len(server.requests) == 3
    assert first.paid == first.as_if == pytest.approx({"tokens": 20, "currency": 88e-6})
    assert again.paid == pytest.approx({"tokens": 10, "currency": 44e-6})
    assert again.as_if == pytest.approx({"tokens": 30, "currency": 132e-6})
    assert again.meter.cost.calls == 3 and again.meter.cost.generated_tokens == 9
    dear = client(server, cache=tmp_path, prices=prices, max_spend=50e-6, concurrency=1)
    with pytest.raises(BudgetSpent, match=r"5e-05 units of currency[\s\S]*8.8e-05"):
        dear.generate(["a", "b", "d", "e", "f"])
    assert len(server.requests) == 5


def test_attempt_gives_failures_their_place(server: Server) -> None:
    def moody(n: int, path: str, body: dict, headers: dict) -> tuple[int, dict, bytes]:
        said = body["messages"][-1]["content"]
        if said == "bad":
            return answer({"error": "content policy"}, 400)
        if said == "filtered":
            return answer({"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}]})
        if said == "declined":
            return answer({"choices": [{"message": {"content": "", "refusal": "I will not"}}]})
        return ok_chat(n, path, body, headers)

    server.reply = moody
    found = client(server).attempt(["x", "bad", "filtered", "declined"], 5, 0.5, [1, 2, 3, 4], schema={"a": 1})
    said, failed, *refused = found
    assert isinstance(said, Generation) and said.text == "echo x" and not said.refused
    assert isinstance(failed, StatusError) and failed.status == 400
    assert all(isinstance(one, Generation) and one.refused and one.text == "" for one in refused)
    bodies = {body["messages"][-1]["content"]: body for _, body, _ in server.requests}
    assert bodies["x"]["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True, "schema": {"a": 1}},
    }
    assert [bodies[name]["seed"] for name in ("x", "bad", "filtered")] == [1, 2, 3]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_stops_at_once(server: Server, status: int) -> None:
    server.reply = lambda *_: answer({"error": "no"}, status)
    with pytest.raises(StatusError):
        client(server, concurrency=1).attempt([str(i) for i in range(50)])
    # One more may be on its way when the first comes back.
    assert len(server.requests) < 5


def test_a_server_that_is_down_is_left_alone(server: Server) -> None:
    def dies(n: int, *rest: Any) -> tuple[int, dict, bytes]:
        return ok_chat(n, *rest) if n <= 5 else answer({}, 500)

    server.reply = dies
    model = client(server, concurrency=1, retries=0)
    with pytest.raises(EndpointError, match=r"fails again and again[\s\S]*20 after 5 answers[\s\S]*status 500"):
        model.attempt([str(i) for i in range(100)])
    assert 25 <= len(server.requests) < 30
    # Failures between answers are no such sign.
    server.reply = lambda n, *rest: answer({}, 500) if n % 3 else ok_chat(n, *rest)
    found = client(server, concurrency=1, retries=0).attempt([str(i) for i in range(60)])
    assert sum(isinstance(one, EndpointError) for one in found) == 40


def test_a_broken_connection_is_tried_again_once_the_server_was_there(server: Server, monkeypatch) -> None:
    model = client(server, retries=3)
    model.generate(["x"])
    once = model._transport._opener.open
    broken: list[int] = []

    def flaky(*given: Any, **options: Any) -> Any:
        if len(broken) < 2:
            broken.append(1)
            raise ConnectionResetError("gone")
        return once(*given, **options)

    monkeypatch.setattr(model._transport._opener, "open", flaky)
    assert model.generate(["y"])[0].text == "echo y"
    assert len(broken) == 2


@pytest.mark.parametrize("status", [408, 409, 425, 429])
def test_what_passes_is_waited_for(server: Server, status: int) -> None:
    server.reply = lambda n, *rest: answer({}, status) if n == 1 else ok_chat(n, *rest)
    assert client(server).generate(["x"])[0].text == "echo x"


def test_retry_after_is_kept_to(server: Server, monkeypatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(transport.time, "sleep", waits.append)
    server.reply = lambda n, *rest: answer({}, 429, **{"Retry-After": "7"}) if n == 1 else ok_chat(n, *rest)
    client(server).generate(["x"])
    assert waits == [7.0]


def test_served_model(server: Server) -> None:
    server.reply = lambda *_: answer({"data": [{"id": "only-one"}]})
    assert served_model(server.url) == "only-one"
    loaded = load_model(server.url)
    assert isinstance(loaded, EndpointLM) and loaded.name == "only-one"
    server.reply = lambda *_: answer({"data": [{"id": "a"}, {"id": "b"}]})
    with pytest.raises(EndpointError, match="a, b"):
        served_model(server.url)


def test_fingerprint_and_unable() -> None:
    one = EndpointLM("http://localhost:1/v1", "toy")
    assert one.fingerprint == EndpointLM("http://localhost:1/v1/", "toy").fingerprint
    assert one.fingerprint != EndpointLM("http://localhost:1/v1", "other").fingerprint
    with pytest.raises(TutelageError, match="cannot be saved"):
        one.save("x")
    with pytest.raises(ConfigError, match="model name"):
        EndpointLM("http://localhost:1/v1", "")
