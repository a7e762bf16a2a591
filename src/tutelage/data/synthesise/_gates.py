"""The funnel for generated text: ordered gates, each with a reason code, every rejection counted.

Order: parsed, length, contamination with protected rows, near-duplicate of what is there, agreement with a
classifier; the cap on classes comes last, when all are known. Candidates are taken in the order in which they
are offered, so the funnel is deterministic. A candidate is contaminated when it shares 13 words in a row with a
protected row, or holds a shorter one of at least 5 words as a whole. Contamination cannot be switched off;
without protected rows the report says that nothing was protected.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.errors import ConfigError
from tutelage.core.records import Record
from tutelage.core.text.ngrams import ngram_hashes
from tutelage.core.text.overlap import Neighbours
from tutelage.core.text.rows import QUESTIONS, string_column, text_array
from tutelage.core.text.words import hash_words, split_words

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset

NGRAM = 13
SHORTEST = 5
UNPROTECTED = "nothing was protected: no evaluation rows were given, so generated text may repeat them"
# What a prompt of a question adds around it: generated text that holds the bare question must be found too.
_AROUND = re.compile(r"^\s*(?:question|q)\s*:\s*|\s*(?:answer|a)\s*:\s*$", re.IGNORECASE)


class GateSettings(Record):
    """Words of an accepted text, and ROUGE-L F above which it is a near-duplicate."""

    min_words: int = Field(default=1, ge=1)
    max_words: int = Field(default=2000, ge=1)
    rouge_l: float = Field(default=0.7, gt=0, le=1)


class Protected:
    """The n-grams of rows that no generated text may repeat."""

    def __init__(self, dataset: "Dataset | None") -> None:
        self.rows = 0
        self._index: dict[int, dict[int, str]] = {}
        for identifier, text in protected_texts(dataset) if dataset is not None else ():
            self.rows += 1
            words = hash_words([text])
            size = min(NGRAM, len(words.hashes))
            if size >= SHORTEST:
                found = self._index.setdefault(size, {})
                for value in ngram_hashes(words, size)[0].tolist():
                    found.setdefault(value, identifier)

    def find(self, text: str) -> str | None:
        """The id of a protected row that `text` repeats."""
        words = hash_words([text])
        for size, found in self._index.items():
            for value in ngram_hashes(words, size)[0].tolist():
                if value in found:
                    return found[value]
        return None


def protected_texts(dataset: "Dataset") -> Iterator[tuple[str, str]]:
    """(id, text) of every row: its text, pair or messages, and a question also by itself."""
    for shard in dataset.shards():
        ids = shard.column("id").to_pylist()
        question = next((name for name in QUESTIONS if _is_text(shard, name)), None)
        if question is None or "text" in shard.column_names:
            yield from zip(ids, text_array(shard).to_pylist())
            continue
        asked = [_AROUND.sub("", text) for text in string_column(shard, question).to_pylist()]
        yield from zip(ids, asked)
        answer = next(
            (name for name in ("completion", "response", "answer", "chosen") if _is_text(shard, name)), None
        )
        if answer is not None:
            given = string_column(shard, answer).to_pylist()
            yield from ((i, f"{text}\n{reply}") for i, text, reply in zip(ids, asked, given) if reply)


def _is_text(shard: pa.Table, name: str) -> bool:
    return name in shard.column_names and pa.types.is_string(shard.schema.field(name).type)


class Funnel:
    """Offers go in, reason codes come out ("" = accepted); `report` is the count of each."""

    def __init__(self, settings: GateSettings, protected: "Dataset | None", classifier: Any = None) -> None:
        if getattr(classifier, "multi_label", False):
            raise ConfigError(
                "a classifier that gives a text several labels does not agree with one",
                where="inputs.classifier",
                expected="a classifier that gives each text one class",
                found=classifier.name,
                remedy="leave the classifier out, or fit one of single classes",
            )
        self.settings = settings
        self.protected = Protected(protected)
        self.classifier = classifier
        self.accepted: list[str] = []
        self.reasons: Counter[str] = Counter()
        self._offered = 0
        self._neighbours = Neighbours()

    def know(self, texts: Iterable[tuple[str, str]]) -> None:
        """(id, text) of rows that exist already: sources, earlier rounds."""
        for identifier, text in texts:
            self._neighbours.add(identifier, text)

    def offer(
        self, identifier: str, text: str | None, problem: str = "", label: str | None = None, own: str = ""
    ) -> str:
        """Why `text` is refused, or "" when it is accepted, and from now on known. `problem` says why there is no
        text (truncated, refused ...), `own` what a gate of the method itself found, which comes after all others;
        the part of a reason before the colon is what is counted."""
        self._offered += 1
        reason = self._judge(text, problem, label) or own
        if not reason and text is not None:
            self._neighbours.add(identifier, text)
            self.accepted.append(identifier)
        elif reason:
            self.reasons[reason.partition(":")[0]] += 1
        return reason

    def forget(self) -> None:
        """Near-duplicates are from now on looked for among what comes next alone."""
        self._neighbours = Neighbours()

    def reject(self, identifier: str, reason: str) -> None:
        """Take an accepted text back, for a reason that only the whole shows (a cap on its class)."""
        self.accepted.remove(identifier)
        self.reasons[reason.partition(":")[0]] += 1

    def _judge(self, text: str | None, problem: str, label: str | None) -> str:
        if text is None or not text.strip():
            return problem or "unparsed"
        words = len(split_words(text))
        if words < self.settings.min_words:
            return "too_short"
        if words > self.settings.max_words:
            return "too_long"
        found = self.protected.find(text)
        if found is not None:
            return f"contaminated:{found}"
        near = self._neighbours.nearest(text, self.settings.rouge_l)
        if near is not None:
            return f"near_duplicate:{near[0]}"
        if self.classifier is not None and label is not None:
            seen = predicted(self.classifier, text)
            if seen != label:
                return f"label_disagrees:{seen}"
        return ""

    def report(self) -> dict[str, Any]:
        """Candidates = accepted + rejected, by reason; and what is not checked."""
        return {
            "candidates": self._offered,
            "accepted": len(self.accepted),
            "rejected": dict(sorted(self.reasons.items())),
            "protected_rows": self.protected.rows,
            **({} if self.protected.rows else {"warning": UNPROTECTED}),
        }


def predicted(classifier: Any, text: str) -> str:
    """The name of the class that a classifier finds most probable."""
    return str(classifier.labels.names[int(np.argmax(classifier.predict_proba([text])[0]))])


def over_cap(labels: list[str], balance: float) -> list[int]:
    """Places of labels beyond floor(balance x the smallest class), in order: the later ones go."""
    counts = Counter(labels)
    cap = int(balance * min(counts.values())) if counts else 0
    seen: Counter[str] = Counter()
    out = []
    for place, label in enumerate(labels):
        seen[label] += 1
        if seen[label] > cap:
            out.append(place)
    return out
