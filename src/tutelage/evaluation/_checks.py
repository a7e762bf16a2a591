"""Verifiable rules about a generated text: each is a pure function (text, rule) -> bool.

A rule is a mapping with `kind` and what the kind needs: `text` (a string), `texts` (strings), `n` (a count) or
`share` (0 to 1). Words are runs without white space; a sentence ends with `.`, `!` or `?`.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from tutelage.core.errors import InputError, suggest

Rule = Mapping[str, Any]


def repeated_share(text: str, n: int = 4) -> float:
    """Share of word n-grams that occurred before in the text, in [0, 1]; 0 for fewer than n words."""
    words = text.lower().split()
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def is_degenerate(text: str, limit: float = 0.5) -> bool:
    """No letter or digit at all, or more than `limit` of the 4-grams (or of the words' own repeats) repeated."""
    if not re.search(r"\w", text):
        return True
    # A loop without spaces ("hahahaha...") has few words; it shows in the characters.
    squeezed = re.sub(r"\s+", "", text)
    loops = len(squeezed) >= 40 and repeated_share(" ".join(squeezed), 8) > 0.8
    return loops or repeated_share(text) > limit


def sentences(text: str) -> list[str]:
    """The sentences of a text, split after `.`, `!`, `?` followed by white space or the end."""
    return [part for part in re.split(r"(?<=[.!?])[\"')\]]*\s+", text.strip()) if part]


def _plain(text: str) -> str:
    return re.sub(r"[^\w\s]", "", text).strip().lower()


def _words(text: str) -> list[str]:
    return re.findall(r"\S*\w\S*", text)


def _is_cased(text: str) -> bool:
    return any(char.isalpha() for char in text)


def _json(text: str) -> Any:
    # Models like to wrap JSON in a Markdown fence; that is no failure to write JSON.
    fenced = re.fullmatch(r"\s*```(?:json)?\s*(.*?)\s*```\s*", text, re.DOTALL)
    try:
        return json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return None


def _has_word(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None


def _numbered(text: str) -> int:
    return len(re.findall(r"(?m)^\s*\d+\s*[.):]\s*\S", text))


def _bullets(text: str) -> int:
    return len(re.findall(r"(?m)^\s*[-*+•]\s+\S", text))


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


CHECKS: dict[str, tuple[str | None, Callable[[str, Any], bool]]] = {
    # kind: (the field it needs, the rule)
    "contains": ("text", lambda text, word: _has_word(text, word)),
    "contains_all": ("texts", lambda text, words: all(_has_word(text, word) for word in words)),
    "contains_any": ("texts", lambda text, words: any(_has_word(text, word) for word in words)),
    "contains_none": ("texts", lambda text, words: not any(_has_word(text, word) for word in words)),
    "answer_equals": ("text", lambda text, answer: _plain(text) == _plain(answer)),
    "answer_one_of": ("texts", lambda text, answers: _plain(text) in {_plain(answer) for answer in answers}),
    "exactly": ("text", lambda text, answer: text.strip() == answer),
    "one_word": (None, lambda text, _: len(_words(text)) == 1),
    "starts_with": ("text", lambda text, start: text.strip().lower().startswith(start.lower())),
    "ends_with": ("text", lambda text, end: _plain(text).endswith(_plain(end))),
    "uppercase": (None, lambda text, _: _is_cased(text) and text == text.upper()),
    "lowercase": (None, lambda text, _: _is_cased(text) and text == text.lower()),
    "n_lines": ("n", lambda text, n: len(_lines(text)) == n),
    "n_sentences": ("n", lambda text, n: len(sentences(text)) == n),
    "n_sentences_max": ("n", lambda text, n: 1 <= len(sentences(text)) <= n),
    "max_words": ("n", lambda text, n: 1 <= len(_words(text)) <= n),
    "min_words": ("n", lambda text, n: len(_words(text)) >= n),
    "json_object": ("texts", lambda text, keys: isinstance(_json(text), dict) and set(keys) <= set(_json(text))),
    "numbered_list_of": ("n", lambda text, n: _numbered(text) == n),
    "bullet_list_of": ("n", lambda text, n: _bullets(text) == n),
    "no_commas": (None, lambda text, _: "," not in text and bool(text.strip())),
    "not_repetitive": ("share", lambda text, share: bool(text.strip()) and repeated_share(text) <= share),
    "language_ascii": (
        "share",
        lambda text, share: bool(text) and sum(c.isascii() for c in text) >= share * len(text),
    ),
}


def validate_rules(rules: Any, where: str) -> list[Rule]:
    """The rules as a list; an unknown kind or a missing field is an error that names the row."""
    if not isinstance(rules, list) or not rules or not all(isinstance(rule, Mapping) for rule in rules):
        raise InputError(
            "a row has no checks",
            where=f"{where}, field checks",
            expected='a list such as [{"kind": "max_words", "n": 5}]',
            found=repr(rules),
        )
    for rule in rules:
        kind = rule.get("kind")
        if kind not in CHECKS:
            raise InputError(
                f"unknown check {kind!r}", where=f"{where}, field checks", remedy=suggest(str(kind), CHECKS)
            )
        field = CHECKS[kind][0]
        kinds: dict[str, tuple[type, ...]] = {"text": (str,), "texts": (list,), "n": (int,), "share": (float, int)}
        if field is not None and not isinstance(rule.get(field), kinds[field]):
            raise InputError(
                f"check {kind!r} needs the field {field!r}",
                where=f"{where}, field checks",
                expected={"text": "a string", "texts": "a list of strings", "n": "a whole number"}.get(
                    field, "a number from 0 to 1"
                ),
                found=repr(rule.get(field)),
            )
    return rules


def passes(text: str, rule: Rule) -> bool:
    """Whether one rule holds for a text."""
    field, holds = CHECKS[rule["kind"]]
    return holds(text, rule[field] if field is not None else None)
