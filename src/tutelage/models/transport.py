"""One careful JSON request: checked redirects, capped size and time, retries, and a key that never shows.

Nothing is sent to a host other than the one configured; text leaves the machine only with `allow_remote`.
"""

import ipaddress
import json
import math
import os
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException, IncompleteRead
from typing import Any

from tutelage.core import json_text
from tutelage.core.errors import ConfigError, EndpointError
from tutelage.models.timed_connection import TimedHttp, TimedHttps

_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_MAX_REDIRECTS = 3
_LONGEST_WAIT = 60.0
# Shorter keys are placeholders of local servers ("none"); replacing them everywhere would spoil the answers.
_SHORTEST_SECRET = 8


def is_loopback(host: str) -> bool:
    """Whether a host name means this machine: `localhost` or a loopback address, nothing that needs a lookup."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_url(url: str, allow_remote: bool) -> str:
    """The endpoint's base URL without a trailing slash.

    Raises ConfigError for another scheme, credentials in the URL, or a host elsewhere without `allow_remote`.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(
            "not a valid endpoint URL", where="url", expected="http://host:port/v1", found=error
        ) from None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(
            "not an endpoint URL", where="url", expected="http://host:port/v1 or https://host/v1",
            found=f"{parts.scheme}://{host or ''}",
        )  # fmt: skip
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            "an endpoint URL holds credentials, a query or a fragment", where=f"{parts.scheme}://{host}",
            expected="scheme, host, port and path only", remedy="name the key's environment variable in key_env",
        )  # fmt: skip
    if not allow_remote and not is_loopback(host):
        raise ConfigError(
            "text would leave this machine", where=f"{parts.scheme}://{host}", expected="a loopback host",
            found=host, remedy="set allow_remote: true if the data may be sent there",
        )  # fmt: skip
    return url.rstrip("/")


def read_key(key_env: str | None) -> str | None:
    """The API key in the environment variable `key_env`; its value is never part of an error."""
    if key_env is None:
        return None
    key = os.environ.get(key_env, "").strip()
    if not key:
        raise ConfigError(
            "the environment variable with the endpoint's key is not set", where=f"key_env: {key_env}",
            remedy=f"set {key_env}, or remove key_env if the endpoint needs no key",
        )  # fmt: skip
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigError(
            "the endpoint's key holds characters that no key has", where=f"key_env: {key_env}",
            expected="printable ASCII without spaces", remedy=f"set {key_env} again",
        )  # fmt: skip
    return key


class StatusError(EndpointError):
    """The server answered with an HTTP status that is no success."""

    status = 0


class _Unreachable(EndpointError):
    """No connection, or a broken one."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Redirects come back as errors, so that each hop is checked by us."""

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Message) -> None:
        return None

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


class JsonTransport:
    """Requests to one endpoint. `timeout` seconds bound each whole answer, `max_bytes` its size."""

    def __init__(
        self,
        base_url: str,
        key_env: str | None = None,
        *,
        timeout: float = 120.0,
        max_bytes: int = 16 << 20,
        retries: int = 4,
        backoff: float = 1.0,
    ) -> None:
        self.base_url = base_url
        self.key_env = key_env
        self.timeout = timeout
        self.max_bytes = max_bytes
        self.retries = retries
        self.backoff = backoff
        self._answered = False
        read_key(key_env)
        host = urllib.parse.urlsplit(base_url).hostname or ""
        handlers: list[Any] = [_NoRedirect(), TimedHttp(), TimedHttps()]
        if is_loopback(host):
            # A proxy from the environment would carry the text off this machine.
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    def __repr__(self) -> str:
        return f"JsonTransport({self.base_url!r}, key_env={self.key_env!r})"

    def request(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """POST `body` as JSON (GET without one) and return the JSON object of the answer.

        429, 5xx and their like are tried again with growing pauses (or the server's Retry-After), as is a server
        that was there before and cannot be reached now. Raises EndpointError, StatusError for an HTTP status.
        """
        for attempt in range(self.retries + 1):
            try:
                status, headers, raw = self._follow(path, body)
            except _Unreachable:
                # A server that never answered is a wrong address.
                if not self._answered or attempt == self.retries:
                    raise
                time.sleep(self._pause(attempt, Message()))
                continue
            self._answered = True
            if (status in _RETRIED or _torn(status, raw)) and attempt < self.retries:
                time.sleep(self._pause(attempt, headers))
                continue
            return self._parse(path, status, raw)
        raise AssertionError("unreachable")

    def _follow(self, path: str, body: dict[str, Any] | None) -> tuple[int, Message, bytes]:
        url = self.base_url + path
        for _hop in range(_MAX_REDIRECTS + 1):
            status, headers, raw = self._once(url, body)
            if status not in (301, 302, 303, 307, 308):
                return status, headers, raw
            url = self._checked_hop(url, headers.get("Location", ""))
        raise EndpointError(
            "the endpoint redirects without end", where=self.base_url + path,
            expected=f"at most {_MAX_REDIRECTS} redirects", remedy="use the final address as url",
        )  # fmt: skip

    def _checked_hop(self, url: str, location: str) -> str:
        old = urllib.parse.urlsplit(url)
        try:
            new = urllib.parse.urlsplit(urllib.parse.urljoin(url, location))
            same = (old.scheme, old.hostname, old.port) == (
                new.scheme,
                new.hostname,
                new.port,
            ) and not new.username
            named = f"{new.scheme}://{new.hostname}" if location else "no Location"
        except ValueError:
            same, named = False, location[:100]
        if not location or not same:
            raise EndpointError(
                "the endpoint redirects to another host; nothing was sent there", where=url,
                expected=f"{old.scheme}://{old.netloc}", found=self._redact(named),
                remedy="check that host; if it is right, use it as url",
            )  # fmt: skip
        return new.geturl()

    def _once(self, url: str, body: dict[str, Any] | None) -> tuple[int, Message, bytes]:
        headers = {"Accept": "application/json", "User-Agent": "tutelage"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if (key := read_key(self.key_env)) is not None:
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        deadline = time.monotonic() + self.timeout
        try:
            try:
                response: Any = self._opener.open(
                    urllib.request.Request(url, data=data, headers=headers), timeout=self.timeout
                )
            except urllib.error.HTTPError as error:
                response = error
            with response:
                return int(response.status), response.headers, self._read(response, url, deadline)
        except (OSError, HTTPException) as error:
            # URLError wraps the reason; the text of neither can hold a header, but is redacted all the same.
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError) or "timed out" in str(reason):
                raise self._too_slow(url) from None
            raise _Unreachable(
                "the endpoint cannot be reached", where=url,
                found=self._redact(f"{type(reason).__name__}: {reason}"),
                remedy="check that the server runs and the url is right",
            ) from None  # fmt: skip

    def _read(self, response: Any, url: str, deadline: float) -> bytes:
        parts: list[bytes] = []
        size = 0
        while chunk := response.read1(1 << 16):
            size += len(chunk)
            if size > self.max_bytes:
                raise EndpointError(
                    "the endpoint's answer is too large", where=url, expected=f"at most {self.max_bytes:,} bytes",
                    remedy="ask for fewer tokens, or raise max_bytes",
                )  # fmt: skip
            if time.monotonic() > deadline:
                raise self._too_slow(url)
            parts.append(chunk)
        if response.length:
            # http.client says nothing when the connection ends before the length that was announced.
            raise IncompleteRead(b"", response.length)
        return b"".join(parts)

    def _too_slow(self, url: str) -> EndpointError:
        return EndpointError(
            "the endpoint did not answer in time", where=url, expected=f"an answer within {self.timeout:g} s",
            remedy="raise timeout, ask for fewer tokens, or lower the concurrency",
        )  # fmt: skip

    def _parse(self, path: str, status: int, raw: bytes) -> dict[str, Any]:
        text = self._redact(raw.decode("utf-8", "replace"))
        where = f"{self.base_url}{path}"
        if status >= 400 or status < 200:
            remedies = {401: "check the key", 403: "check the key's rights", 404: "check url and model name"}
            error = StatusError(
                f"the endpoint answered with status {status}", where=where, found=text[:300],
                remedy=remedies.get(status, "wait and run again; answered requests are kept in the cache")
                if status in _RETRIED or status in remedies else None,
            )  # fmt: skip
            error.status = status
            raise error
        try:
            found = json_text.loads(text)
        except ValueError:
            raise EndpointError(
                "the endpoint's answer is not JSON", where=where, expected="a JSON object", found=text[:200],
                remedy="check that url ends where /chat/completions begins (often /v1)",
            ) from None  # fmt: skip
        if not isinstance(found, dict):
            raise EndpointError(
                "the endpoint's answer is not a JSON object", where=where, expected="an object",
                found=type(found).__name__,
            )  # fmt: skip
        if "error" in found and "choices" not in found:
            raise EndpointError("the endpoint reports an error", where=where, found=str(found["error"])[:300])
        return found

    def _redact(self, text: str) -> str:
        key = os.environ.get(self.key_env, "").strip() if self.key_env else ""
        return text.replace(key, "[redacted]") if len(key) >= _SHORTEST_SECRET else text

    def _pause(self, attempt: int, headers: Message) -> float:
        asked = _seconds(str(headers.get("Retry-After", "")))
        if asked is not None:
            return min(max(asked, 0.0), _LONGEST_WAIT)
        # Jitter keeps parallel requests from coming back all at once.
        return min(self.backoff * 2**attempt * (0.5 + random.random()), _LONGEST_WAIT)


def _seconds(retry_after: str) -> float | None:
    """What a Retry-After header asks for: seconds, or a date; None for anything else."""
    try:
        number = float(retry_after)
        return None if math.isnan(number) else number
    except ValueError:
        pass
    try:
        return parsedate_to_datetime(retry_after).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _torn(status: int, raw: bytes) -> bool:
    """Whether an answer began as the JSON object that it should be, or not even that, and broke off."""
    if status != 200 or raw.lstrip()[:1] not in (b"{", b""):
        return False
    try:
        json_text.loads(raw)
    except ValueError:
        return True
    return False
