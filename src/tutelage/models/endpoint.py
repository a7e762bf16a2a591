"""`EndpointLM`: a model behind an OpenAI-compatible address, with the verbs such an address can offer.

Generation uses `/chat/completions` (or `/completions`). Log-likelihoods need a server that returns the
log-probabilities of a prompt (`echo` with `logprobs` on `/completions`: vLLM, llama.cpp and others; the large
hosted services do not). Every answer is cached on disk by the hash of its request, so a run that stopped (budget,
time-out, Ctrl-C) does not pay twice. The meter counts cached answers as if they had just been paid, so that what a
method costs does not depend on who ran it before; `paid` is what was paid.
"""

import hashlib
import json
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from tutelage.core.errors import ConfigError, EndpointError
from tutelage.core.records import Budget
from tutelage.models import answer_cache
from tutelage.models.endpoint_options import Prices
from tutelage.models.seam import Generation, LogLikelihood, Model, TextScore, as_texts
from tutelage.models.transport import JsonTransport, StatusError, check_url, is_loopback

# Failures in a row after which a server is taken to be down.
BREAKER = 20
# Answers that are the same for every request: the key is wrong, or the address.
_FATAL = (401, 403, 404)


class BudgetSpent(EndpointError):
    """Nothing more may be sent."""


class ChatPrompt(str):
    """A rendered conversation that remembers its messages: the server, not we, applies the chat template."""

    messages: tuple[dict[str, str], ...]

    def __new__(cls, messages: Sequence[Mapping[str, str]]) -> "ChatPrompt":
        prompt = super().__new__(cls, "".join(f"{m['role']}: {m['content']}\n" for m in messages))
        prompt.messages = tuple({"role": m["role"], "content": m["content"]} for m in messages)
        return prompt


class EndpointLM(Model):
    """A remote (or local) model server.

    url: base address, e.g. `http://127.0.0.1:8000/v1`. model: the name the server knows it by.
    key_env: name of the environment variable that holds the key; the key itself is read when a request is sent and
    appears in no repr, error, cache entry or log.
    allow_remote: required for any host but this machine; `remote` says whether text leaves it.
    api: "chat" sends prompts as user messages, "completions" sends them as they are.
    cache: folder for answers (None: no cache). budget: limit on tokens (prompt and completion, as the server
    counts) and seconds since the first request; max_spend: limit on what they cost at `prices`; when one is spent,
    BudgetSpent. Requests in flight are then finished, so the spending may pass the limit by `concurrency` answers.
    `paid` and `as_if` are tokens and currency without and with the answers that came from the cache.
    """

    kind = "endpoint"
    bos_id: int | None = None
    eos_id: int | None = None

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key_env: str | None = None,
        allow_remote: bool = False,
        api: Literal["chat", "completions"] = "chat",
        cache: str | Path | None = None,
        budget: Budget | None = None,
        prices: Prices | None = None,
        max_spend: float | None = None,
        concurrency: int = 4,
        timeout: float = 120.0,
        retries: int = 4,
        backoff: float = 1.0,
        max_bytes: int = 16 << 20,
    ) -> None:
        super().__init__(model)
        base = check_url(url, allow_remote)
        if not model:
            raise ConfigError(
                "an endpoint needs a model name", where="model", remedy="use a name from GET /models"
            )
        if concurrency < 1:
            raise ConfigError("concurrency is out of range", where="concurrency", expected="at least 1",
                              found=concurrency)  # fmt: skip
        self.url = base
        self.remote = not is_loopback(_host(base))
        self.api = api
        self.budget = budget
        self.concurrency = concurrency
        self.cache = Path(cache) if cache is not None else None
        self.prices = prices or Prices()
        self.max_spend = max_spend
        self.paid = {"tokens": 0.0, "currency": 0.0}
        self.as_if = dict(self.paid)
        self._failed = 0
        self._began: float | None = None
        self._lock = threading.Lock()
        self._transport = JsonTransport(
            base, key_env, timeout=timeout, max_bytes=max_bytes, retries=retries, backoff=backoff
        )

    @property
    def tokens_spent(self) -> int:
        """Tokens that were paid for, prompts and completions."""
        return int(self.paid["tokens"])

    def __repr__(self) -> str:
        return (
            f"EndpointLM({self.url!r}, {self.name!r}, key_env={self._transport.key_env!r}, remote={self.remote})"
        )

    @property
    def fingerprint(self) -> str:
        """Hash of address, model name and API. The server may change its weights behind them; nobody can tell."""
        text = json.dumps(["endpoint", self.url, self.name, self.api])
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def chat_prompt(self, messages: Sequence[Mapping[str, str]]) -> ChatPrompt:
        """The conversation for `generate`, with its messages kept for the server's own chat template."""
        for i, message in enumerate(messages):
            if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
                raise ConfigError("a message lacks role or content", where=f"message {i}", found=message)
        return ChatPrompt(messages)

    def generate(
        self,
        prompts: Sequence[str],
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        seed: int | Sequence[int] = 0,
        batch_size: int = 16,
    ) -> list[Generation]:
        """One completion per prompt, `concurrency` requests at a time; `token_ids` are unknown and empty.

        seed (one for all, or one per prompt) is sent along; the server decides what it means. `batch_size` changes
        nothing.
        """
        path, bodies = self._bodies(prompts, max_new_tokens, temperature, stop, seed)
        return self._each(bodies, lambda body: self._one(path, body, self._generation))

    def attempt(
        self,
        prompts: Sequence[str],
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        seed: int | Sequence[int] = 0,
        *,
        schema: Mapping[str, Any] | None = None,
    ) -> list[Generation | EndpointError]:
        """As `generate`, but a request that fails gives its error in place of a completion.

        schema: a JSON schema that the server is asked to keep to. Raises EndpointError where going on is no use: a
        spent budget, a wrong key or address, and `BREAKER` failures in a row.
        """
        path, bodies = self._bodies(prompts, max_new_tokens, temperature, (), seed)
        if schema is not None:
            form = {"name": "answer", "strict": True, "schema": dict(schema)}
            bodies = [{**body, "response_format": {"type": "json_schema", "json_schema": form}} for body in bodies]
        return self._each(bodies, lambda body: self._survived(path, body))

    def _bodies(
        self,
        prompts: Sequence[str],
        max_new_tokens: int,
        temperature: float,
        stop: Sequence[str],
        seed: int | Sequence[int],
    ) -> tuple[str, list[dict[str, Any]]]:
        bodies = []
        for i, prompt in enumerate(as_texts(prompts, "prompts")):
            body: dict[str, Any] = {"model": self.name, "max_tokens": max_new_tokens, "temperature": temperature}
            if stop:
                body["stop"] = list(stop)
            if temperature > 0:
                body["seed"] = ((seed * 1_000_003 + i) if isinstance(seed, int) else seed[i]) % 2**31
            if self.api == "chat":
                body["messages"] = list(getattr(prompt, "messages", ({"role": "user", "content": str(prompt)},)))
            else:
                body["prompt"] = str(prompt)
            bodies.append(body)
        return "/chat/completions" if self.api == "chat" else "/completions", bodies

    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[LogLikelihood]:
        """log p(continuation | context) from a server that echoes log-probabilities of the prompt.

        A token that straddles the boundary belongs to the continuation. Raises EndpointError where echo is not
        offered.
        """
        found = []
        scored = self._echo([context + continuation for context, continuation in pairs])
        for (context, _continuation), tokens in zip(pairs, scored, strict=True):
            kept = [token for token in tokens if token["end"] > len(context)]
            if any(token["logp"] is None for token in kept):
                raise EndpointError(
                    "the first token of a text has no log-probability", where=self.url,
                    expected="a context of at least one token", remedy="give every continuation a context",
                )  # fmt: skip
            total = math.fsum(token["logp"] for token in kept)
            found.append(LogLikelihood(total, len(kept), all(token["greedy"] for token in kept)))
        self.meter.add(scored_tokens=sum(one.n_tokens for one in found))
        return found

    def score_texts(
        self, texts: Sequence[str], *, window: int = 1024, stride: int | None = None, per_token: bool = False
    ) -> list[TextScore]:
        """Loss of each text but its first token, whole texts at once: the server's context is the only window.

        Raises EndpointError where echo is not offered.
        """
        import numpy as np

        kept = as_texts(texts, "texts")
        answers = iter(self._echo([text for text in kept if text]))
        scores = []
        for text in kept:
            tokens = [token for token in next(answers) if token["logp"] is not None] if text else []
            nll = -np.array([token["logp"] for token in tokens], dtype=np.float64)
            n_bytes = len(text[tokens[0]["start"] :].encode()) if tokens else 0
            total = float(nll.sum()) if tokens else math.nan
            scores.append(TextScore(total, len(tokens), n_bytes, False, nll if per_token else None))
        self.meter.add(scored_tokens=sum(score.n_tokens for score in scores))
        return scores

    # -- inside -------------------------------------------------------------------------------------------

    def _generation(self, path: str, answer: dict[str, Any]) -> Generation:
        try:
            choice = answer["choices"][0]
            said = choice["message"] if path == "/chat/completions" else {"content": choice["text"]}
            text = said["content"]
            if not isinstance(text, str | None):
                raise TypeError("content is not text")
        except (KeyError, IndexError, TypeError) as error:
            raise EndpointError(
                "the endpoint's answer lacks a completion", where=self.url + path,
                expected="choices[0] with a text", found=f"{type(error).__name__}: {error}",
                remedy="check that the server speaks the OpenAI protocol",
            ) from None  # fmt: skip
        reason, prompt = choice.get("finish_reason"), _usage(answer)[0]
        refused = reason == "content_filter" or bool(said.get("refusal"))
        return Generation(text or "", (), reason == "length", prompt, refused)

    def _echo(self, texts: list[str]) -> list[list[dict[str, Any]]]:
        """Per text its tokens: start, end (characters), logp (None for the first), greedy."""
        path = "/completions"
        # One token is generated because servers differ in whether they accept none; it is cut off again below.
        common = {"model": self.name, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
        bodies = [{**common, "prompt": text} for text in texts]
        return self._each(bodies, lambda body: self._one(path, body, partial(self._tokens, text=body["prompt"])))

    def _tokens(self, path: str, answer: dict[str, Any], text: str) -> list[dict[str, Any]]:
        try:
            return _echoed(answer["choices"][0], text)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise EndpointError(
                "the endpoint gives no log-probabilities of a prompt", where=self.url + path,
                expected="/completions with echo and logprobs", found=f"{type(error).__name__}: {error}",
                remedy="use a generative task, a server that offers echo (vLLM), or a local model",
            ) from None  # fmt: skip

    def _survived(self, path: str, body: dict[str, Any]) -> Generation | EndpointError:
        """A completion, or why there is none."""
        try:
            found: Generation = self._one(path, body, self._generation)
        except BudgetSpent:
            raise
        except EndpointError as error:
            if isinstance(error, StatusError) and error.status in _FATAL:
                raise
            with self._lock:
                self._failed += 1
                down = self._failed >= BREAKER
            if down:
                raise EndpointError(
                    "the endpoint fails again and again", where=self.url + path,
                    expected=f"fewer than {BREAKER} failures in a row",
                    found=f"{BREAKER} after {self.meter.cost.calls} answers; the last: {error.what}",
                    remedy="run again when the server is well; what was answered is kept in the cache",
                ) from None  # fmt: skip
            return error
        with self._lock:
            self._failed = 0
        return found

    def _each(self, bodies: list[dict[str, Any]], ask: Callable[[dict[str, Any]], Any]) -> list[Any]:
        if not bodies:
            return []
        with ThreadPoolExecutor(max_workers=min(self.concurrency, len(bodies))) as pool:
            futures = [pool.submit(ask, body) for body in bodies]
            try:
                return [future.result() for future in futures]
            except BaseException:
                # What was not yet sent is not sent: the budget, the key or the server is at its end.
                for future in futures:
                    future.cancel()
                raise

    def _one(self, path: str, body: dict[str, Any], read: Callable[[str, dict[str, Any]], Any]) -> Any:
        """What `read` makes of the answer; what it cannot read is not kept, or every later run would meet it."""
        place = self._cache_file(path, body)
        if place is not None and (kept := answer_cache.read(place)) is not None:
            with suppress(EndpointError):
                found = read(path, kept)
                self._book(kept, 0.0, paid=False)
                return found
        self._check_budget()
        began = time.perf_counter()
        answer = self._transport.request(path, body)
        self._book(answer, time.perf_counter() - began, paid=True)
        found = read(path, answer)
        if place is not None:
            answer_cache.write(place, answer)
        return found

    def _book(self, answer: dict[str, Any], seconds: float, paid: bool) -> None:
        prompt, completion = _usage(answer)
        cost = self.prices.of(prompt, completion)
        with self._lock:
            for total in (self.as_if, self.paid) if paid else (self.as_if,):
                total["tokens"] += prompt + completion
                total["currency"] += cost
        self.meter.add(calls=1, generated_tokens=completion, seconds=seconds)

    def _check_budget(self) -> None:
        with self._lock:
            self._began = self._began if self._began is not None else time.monotonic()
            seconds, tokens, currency = time.monotonic() - self._began, self.tokens_spent, self.paid["currency"]
        limits = self.budget.model_dump() if self.budget else {}
        for name, spent, limit in (
            ("tokens", tokens, limits.get("tokens")),
            ("seconds", seconds, limits.get("seconds")),
            ("units of currency", currency, self.max_spend),
        ):
            if limit is not None and spent >= limit:
                raise BudgetSpent(
                    "the endpoint's budget is spent", where=self.url, expected=f"at most {limit:g} {name}",
                    found=f"{spent:.6g} {name}",
                    remedy="raise the budget and run again; answers in the cache are not paid for twice",
                )  # fmt: skip

    def _cache_file(self, path: str, body: dict[str, Any]) -> Path | None:
        return None if self.cache is None else answer_cache.place(self.cache, [self.url, path, body])


def served_model(url: str, key_env: str | None = None, allow_remote: bool = False) -> str:
    """The name of the only model that a server offers (GET /models); EndpointError when there are several."""
    base = check_url(url, allow_remote)
    listed = JsonTransport(base, key_env, timeout=30.0).request("/models").get("data")
    models = listed if isinstance(listed, list) else []
    names = [str(m["id"]) for m in models if isinstance(m, dict) and "id" in m]
    if len(names) != 1:
        raise EndpointError(
            "which model of the endpoint is meant?", where=base, expected="a model name",
            found=", ".join(names[:20]) or "no list of models", remedy="give the model's name",
        )  # fmt: skip
    return names[0]


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""


def _echoed(choice: dict[str, Any], text: str) -> list[dict[str, Any]]:
    logprobs = choice["logprobs"]
    names, starts, logps = logprobs["tokens"], logprobs["text_offset"], logprobs["token_logprobs"]
    tops = logprobs.get("top_logprobs") or [None] * len(starts)
    if not choice["text"].startswith(text):
        raise ValueError("the prompt was not echoed")
    if not all(type(start) is int for start in starts) or not all(isinstance(name, str) for name in names):
        raise TypeError("tokens are not text at places")
    if sorted(starts) != starts or not all(logp is None or -1e300 < logp < 1e300 for logp in logps):
        raise ValueError("tokens are out of order, or their log-probabilities are not finite")
    ends = [*starts[1:], len(choice["text"])]
    return [
        {"start": start, "end": end, "logp": logp, "greedy": bool(top) and name == max(top, key=top.get)}
        for start, end, name, logp, top in zip(starts, ends, names, logps, tops, strict=True)
        if start < len(text)
    ]


def _usage(answer: dict[str, Any]) -> tuple[int, int]:
    """Tokens of prompt and completion as the server counts them; 0 for what it does not say as a number."""
    usage = answer.get("usage")
    said = [usage.get(name) if isinstance(usage, dict) else 0 for name in ("prompt_tokens", "completion_tokens")]
    prompt, completion = (one if type(one) is int and 0 <= one < 2**53 else 0 for one in said)
    return prompt, completion
