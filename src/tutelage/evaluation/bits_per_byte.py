"""Bits per byte: how many bits the model needs, per byte of UTF-8, to encode held-out text.

bpb = sum_i nll_i / (ln 2 * sum_i bytes_i), with nll_i in nats over the scored text of item i; comparable between
tokenizers, unlike loss per token. Texts are scored in windows of `window` tokens that overlap by `window -
stride`, every token once. Of `prompt`/`completion` rows only the completion is scored. A `context` column
(retrieved passages) is put before the item, and before each of its windows, and is never scored: the windows of
the item stay the same with and without it. The interval is that of a ratio of two sums over clusters (delta
method).
"""

import math
import re
from typing import TYPE_CHECKING, Any

from pydantic import Field

from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Task
from tutelage.evaluation._shared import Measurement

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "evaluation.bits_per_byte",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "Bits per byte on held-out text, or on completions after their prompt.",
    "reads": ["text?", "prompt?", "completion?", "context?"],
    "inputs": {"model": "the causal language model that is measured"},
    "needs": ["train"],
    "cost": "window/stride forward passes per token",
    "baseline": None,
    "headline": "the most sensitive measure of what a model knows of a field; says nothing about instructions",
    "version": 1,
}

SEPARATOR = "\n\n"


def segments(text: str, model: Any, limit: int) -> list[tuple[str, int]]:
    """`text` cut before words into pieces of at most `limit` tokens (one longer word stays whole), with counts."""
    words = re.findall(r"\s*\S+|\s+\Z", text)
    pieces: list[tuple[str, int]] = []
    current: list[str] = []
    size = 0
    for word, ids in zip(words, model.tokenize(words)):
        if current and size + len(ids) > limit:
            pieces.append(("".join(current), size))
            current, size = [], 0
        current.append(word)
        size += len(ids)
    return [*pieces, ("".join(current), size)]


def windows(prefix: str, text: str, model: Any, window: int, stride: int) -> list[tuple[str, str]]:
    """(context, continuation) pairs that score `text` once: each piece of at most `stride` tokens sees `prefix`
    and as many pieces of the text before it as fit `window` tokens."""
    pieces = segments(text, model, stride)
    pairs = []
    for number, (piece, size) in enumerate(pieces):
        history = ""
        for earlier, tokens in reversed(pieces[:number]):
            size += tokens
            if size > window:
                break
            history = earlier + history
        pairs.append((prefix + history, piece))
    return pairs


class BitsPerByte(Task):
    """Rows: `text`, or `prompt` and `completion`; optional `context`, and `cluster` or `group`.

    `window` and `stride` are in tokens (the window is at most the model's own length; stride null = half of it).
    `use_context` false ignores a `context` column.
    """

    window: int = Field(default=1024, ge=2)
    stride: int | None = Field(default=None, ge=1)
    use_context: bool = True

    def evaluate(self, model: Any, dataset: "Dataset", inputs: Inputs) -> "Result":
        """Bits per byte, smaller is better; an item's score is its own ratio and its weight its bytes.

        Empty items carry no bytes: they are left out and counted in `extra["excluded_empty"]`. Raises InputError
        when a row has no text, or when the model gives a loss that is not finite.
        """
        if "text" not in dataset.column_names:
            dataset.require("prompt", "completion")
        # The context is no part of an item: the same item with and without passages must pair.
        work = Measurement(self, model, dataset, inputs, identity=("text", "prompt", "completion"))
        window = min(self.window, model.max_length)
        stride = min(self.stride or window // 2, window - 1)
        plain, pairs, owners = [], [], []
        for number, row in enumerate(work.rows):
            context = (row.get("context") or "") if self.use_context else ""
            text = _scored(row)
            prefix = (context + SEPARATOR if context else "") + (row.get("prompt") or "" if _is_pair(row) else "")
            if not text:
                continue
            if prefix:
                found = windows(prefix, text, model, window, stride)
                pairs += found
                owners += [number] * len(found)
            else:
                plain.append(number)
        bits = dict.fromkeys(range(len(work.rows)), 0.0)
        size = {number: len(_scored(row).encode("utf-8")) for number, row in enumerate(work.rows)}
        tokens = dict.fromkeys(bits, 0)
        if plain:
            texts = [_scored(work.rows[number]) for number in plain]
            for number, score in zip(plain, model.score_texts(texts, window=window, stride=stride)):
                bits[number], size[number] = score.nll_sum / math.log(2), score.n_bytes_scored
                tokens[number] = score.n_tokens
        for number, ll in zip(owners, model.loglikelihood(pairs) if pairs else []):
            bits[number] -= ll.sum / math.log(2)
            tokens[number] += ll.n_tokens
        empty = 0
        for number, row in enumerate(work.rows):
            if not size[number]:
                empty += 1
                continue
            if not math.isfinite(bits[number]):
                raise InputError(
                    "the model's loss is not finite",
                    where=f"row {row.get('id', '?')}",
                    found=bits[number],
                    remedy="the weights are broken (check the training loss), or the precision is too low",
                )
            ratio = bits[number] / size[number]
            work.add(row, score=ratio, weight=float(size[number]), tokens_in=tokens[number])
        extra = {"bits": sum(bits.values()), "bytes": float(sum(size.values()))}
        return work.result(
            "bits_per_byte",
            direction=-1,
            unit="bits/byte",
            extra=extra | ({"excluded_empty": float(empty)} if empty else {}),
        )


def _is_pair(row: dict[str, Any]) -> bool:
    return row.get("text") is None


def _scored(row: dict[str, Any]) -> str:
    value = row.get("completion") if _is_pair(row) else row["text"]
    if not isinstance(value, str) or (_is_pair(row) and not isinstance(row.get("prompt"), str)):
        raise InputError(
            "a row has nothing to score",
            where=f"row {row.get('id', '?')}",
            expected="a string in column text, or strings in prompt and completion",
            found={name: type(row.get(name)).__name__ for name in ("text", "prompt", "completion")},
        )
    return value
