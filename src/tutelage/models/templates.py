"""Chat templates: a Jinja file rendered in a sandbox, and where in the rendered text the assistant speaks.

Masks work for any template without marks in it. For the assistant turn i, the text rendered from messages[:i] with
the generation prompt must be a beginning of the whole rendered text (the template is prefix-preserving): the
turn starts where that beginning ends, which is exactly what the model sees when it has to answer. Its content
is found by rendering once more with a unique mark in its place; the turn ends with the first special token after
the content (the end of turn, trained), and what the template writes behind it (a newline) is not trained.
"""

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

from tutelage.core.errors import InputError, ModelError, suggest

SHIPPED = ("chatml", "gemma", "llama3", "mistral", "plain", "zephyr")
# Private-use characters: no template transforms them and no text of a user contains them in this order.
_MARK = "\ue000\ue001{}\ue001\ue000"


@dataclass(frozen=True)
class Piece:
    """A stretch of rendered text that is tokenised on its own. `append_eos`: the template ends this turn with no
    special token, so EOS is added and trained."""

    text: str
    trained: bool
    turn: int = -1
    append_eos: bool = False


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` blocks, which some templates carry for other tools: the body is rendered as it is."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 declares it so)

    def parse(self, parser: Any) -> Any:
        parser.stream.skip(1)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A template's source with the special tokens of its tokenizer (`bos_token`, `eos_token`, ... as text)."""

    def __init__(
        self, source: str, tokens: Mapping[str, str] | None = None, specials: Sequence[str] = (), name: str = ""
    ) -> None:
        self.source = source
        self.tokens = dict(tokens or {})
        self.specials = tuple(sorted({*specials, *self.tokens.values()} - {""}, key=len, reverse=True))
        self.name = name
        try:
            self._compiled = _environment().from_string(source)
        except (jinja2.TemplateError, RecursionError) as error:
            raise ModelError("a chat template is not valid Jinja", where=name or "template", found=error) from None

    @classmethod
    def shipped(
        cls, name: str, tokens: Mapping[str, str] | None = None, specials: Sequence[str] = ()
    ) -> "ChatTemplate":
        """One of the templates in the package: chatml, gemma, llama3, mistral, plain, zephyr."""
        if name not in SHIPPED:
            raise ModelError(f"there is no shipped template {name!r}", where=name, remedy=suggest(name, SHIPPED))
        file = resources.files("tutelage.models") / "chat_templates" / f"{name}.jinja"
        return cls(file.read_text(encoding="utf-8").rstrip("\n"), tokens, specials, name)

    def render(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = False) -> str:
        """The conversation as text; with `add_generation_prompt` it ends where the assistant begins to speak."""
        try:
            return self._compiled.render(
                messages=[dict(m) for m in messages],
                add_generation_prompt=add_generation_prompt,
                tools=None,
                documents=None,
                **self.tokens,
            )
        except (jinja2.TemplateError, TypeError, KeyError) as error:
            raise InputError(
                "the chat template refuses this conversation",
                where=self.name or "template",
                found=f"{error} (roles: {', '.join(str(m.get('role')) for m in messages)})",
            ) from None

    def pieces(self, messages: Sequence[Mapping[str, Any]], example_id: str = "") -> list[Piece]:
        """The rendered conversation cut into untrained and trained pieces; joined they are `render(messages)`."""
        messages = check_messages(messages, example_id)
        whole = self.render(messages)
        found: list[Piece] = []
        at = 0
        turns = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
        for i in turns:
            if not messages[i]["content"]:
                raise InputError(
                    "an assistant turn is empty",
                    where=f"{example_id}, message {i}",
                    expected="a non-empty answer",
                    remedy="drop the row",
                )
            begin, content_end = self._span(messages, i, whole, at, example_id)
            stop = turns[turns.index(i) + 1] if i != turns[-1] else None
            limit = len(whole) if stop is None else self._start(messages, stop, whole, content_end)
            tail = whole[content_end:limit]
            ends = [m for m in (re.search(re.escape(s), tail) for s in self.specials) if m]
            end = content_end + min((m.end() for m in ends), default=0)
            if begin > at:
                found.append(Piece(whole[at:begin], False))
            found.append(Piece(whole[begin:end], True, turn=i, append_eos=not ends and i == turns[-1]))
            at = end
        if at < len(whole):
            found.append(Piece(whole[at:], False))
        return found

    def prefix_preserving(self, messages: Sequence[Mapping[str, Any]]) -> bool:
        """Whether every assistant turn starts in the whole text exactly as generation would start it."""
        whole = self.render(messages)
        return all(
            whole.startswith(self.render(messages[:i], add_generation_prompt=True))
            for i, m in enumerate(messages)
            if m["role"] == "assistant"
        )

    def _start(self, messages: Sequence[Mapping[str, Any]], i: int, whole: str, at: int) -> int:
        prefix = self.render(messages[:i], add_generation_prompt=True)
        return (
            len(prefix) if whole.startswith(prefix) and len(prefix) >= at else self._content(messages, i, whole)[0]
        )

    def _span(
        self, messages: Sequence[Mapping[str, Any]], i: int, whole: str, at: int, example_id: str
    ) -> tuple[int, int]:
        """Start of turn i (as generation starts it, else its content) and end of its content in `whole`."""
        begin, end = self._content(messages, i, whole)
        if begin < 0:
            raise InputError(
                "the chat template rewrites an assistant turn, so its tokens cannot be masked",
                where=f"{example_id}, message {i}",
                found=self.name or "template",
                remedy="train the last turn only, or use a shipped template",
            )
        return max(self._start(messages, i, whole, at), at), end

    def _content(self, messages: Sequence[Mapping[str, Any]], i: int, whole: str) -> tuple[int, int]:
        """Where the content of message i stands in `whole`; (-1, -1) when the template rewrites it."""
        mark = _MARK.format(i)
        marked = self.render([{**m, "content": mark} if k == i else m for k, m in enumerate(messages)])
        before, _, after = marked.partition(mark)
        content = messages[i]["content"]
        for text in (content, content.strip()):
            if before + text + after == whole:
                return len(before), len(before) + len(text)
        return -1, -1


def check_messages(messages: Sequence[Mapping[str, Any]], example_id: str = "") -> list[dict[str, Any]]:
    """Messages as plain dicts with text content; raises InputError naming the message that is wrong."""
    if isinstance(messages, str) or not len(messages):
        raise InputError("a conversation is empty", where=example_id, expected="a list of messages")
    found = []
    for i, message in enumerate(messages):
        where = f"{example_id}, message {i}"
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise InputError("a message has no role", where=where, expected="{role, content}", found=message)
        content = message.get("content")
        if isinstance(content, Sequence) and not isinstance(content, str):
            texts = [p.get("text") for p in content if isinstance(p, Mapping) and p.get("type") == "text"]
            content = "".join(t for t in texts if isinstance(t, str)) if len(texts) == len(content) else None
        if not isinstance(content, str):
            raise InputError(
                "a message has no text content", where=where, expected="a string", found=message.get("content")
            )
        # Columns that Arrow filled in because another row has them would show up in `is defined` tests.
        extra = {k: v for k, v in message.items() if v is not None and k not in ("role", "content")}
        found.append({"role": message["role"], "content": content, **extra})
    return found


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


@functools.cache
def _environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    # Jinja's own filter escapes for HTML; templates of chat models mean plain JSON.
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    return environment
