"""A causal language model as a classifier: which word does it expect after the text?

A pattern has one slot, {text}, and ends where the answer goes ("{text}\\nTopic:"). With words v of class c,
    s_pc = mean_v sum_t log p(v_t | pattern p filled with x, v_<t)     (`reduction` mean: divided by v's tokens)
    logits_c = mean_p log softmax_c(s_pc)
White space at the end of a pattern belongs to the word (a space where there is none), and prompt and word are
tokenised separately, as in training. A text that does not fit loses its end; the pattern stays whole.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tutelage.core.errors import ConfigError, ModelError
from tutelage.core.labels import LabelSpace
from tutelage.models.classifier import Classifier, inner_model, softmax
from tutelage.models.encode import Encoded, encode_prompt

SLOT = "{text}"
Words = Mapping[str, Sequence[str]]


def split_pattern(pattern: str) -> tuple[str, str, str]:
    """(what stands before the text, what stands after it, white space before the word); raises ConfigError for a
    pattern without one slot."""
    if pattern.count(SLOT) != 1:
        raise ConfigError(
            "a pattern needs one slot for the text",
            where=repr(pattern),
            expected=f"{SLOT} once",
            found=f"{pattern.count(SLOT)} times",
        )
    body = pattern.rstrip()
    before, after = body.split(SLOT)
    return before, after, pattern[len(body) :] or " "


class Verbaliser:
    """One pattern and the words of each class, as token ids of one model.

    `answers`: (class index, word with its space, ids), class by class; `shares`: 1 / the class's number of words.
    Raises ConfigError for a pattern without one slot, a class without words, or classes that share one.
    """

    def __init__(self, model: Any, labels: LabelSpace, pattern: str, words: Words | None = None) -> None:
        self.model, self.pattern = model, pattern
        self.before, self.after, space = split_pattern(pattern)
        self.answers: list[tuple[int, str, list[int]]] = []
        seen: dict[tuple[int, ...], str] = {}
        for number, name in enumerate(labels.names):
            mine = list(words.get(name, ())) if words else [name]
            if not mine or not all(word.strip() for word in mine):
                raise ConfigError(
                    "a class has no words",
                    where=f"class {name!r}",
                    expected="at least one word for each of " + ", ".join(labels.names[:12]),
                    found=f"words for {', '.join(words or ()) or 'no class'}",
                )
            for word, ids in zip(mine, model.tokenize([space + word.strip() for word in mine])):
                other = seen.setdefault(tuple(ids), f"{word!r} of {name!r}")
                if other != f"{word!r} of {name!r}":
                    raise ConfigError(
                        "two classes have the same word for this tokenizer",
                        where=f"{word!r} of {name!r}",
                        found=f"the tokens of {other}",
                        remedy="give them other words",
                    )
                self.answers.append((number, space + word.strip(), list(ids)))
        if words and (unknown := [name for name in words if name not in labels.names]):
            raise ConfigError("there is no such class", where=f"words of {unknown[0]!r}", found=labels.names)
        classes = [number for number, _, _ in self.answers]
        self.shares = [1 / classes.count(number) for number in classes]
        self.longest = max(len(ids) for _, _, ids in self.answers)

    def filled(self, text: str, max_length: int) -> str:
        """The pattern with the text, whose end is cut so that prompt and longest word fit into `max_length`."""
        room = max_length - self.longest
        made = self.before + text + self.after
        over = len(encode_prompt(self.model, made)) - room
        if over <= 0:
            return made
        ids = self.model.tokenize([text])[0]
        kept = len(ids)
        while over > 0:
            kept -= over
            if kept < 0:
                raise ConfigError(
                    "a pattern leaves no room for the text",
                    where=repr(self.pattern),
                    expected=f"at most {room} tokens",
                    found=f"{over - kept} tokens without the text",
                    remedy="raise max_length, or shorten the pattern",
                )
            made = self.before + self.model.tokenizer.decode(ids[:kept]) + self.after
            over = len(encode_prompt(self.model, made)) - room
        return made

    def documents(self, text: str, max_length: int, example_id: str = "") -> list[Encoded]:
        """The filled pattern with each word after it, one document for each of `answers`; the word is trained."""
        prompt = encode_prompt(self.model, self.filled(text, max_length))
        return [
            Encoded(prompt + ids, [False] * len(prompt) + [True] * len(ids), example_id)
            for _, _, ids in self.answers
        ]


class PromptClassifier(Classifier):
    """See the module. `patterns`, `words` (class name -> words; None: the class names) and `reduction`."""

    form = "prompt"

    def __init__(
        self,
        labels: LabelSpace,
        model: Any,
        patterns: Sequence[str],
        words: Words | None = None,
        reduction: Literal["sum", "mean"] = "sum",
        *,
        name: str = "classifier",
    ) -> None:
        super().__init__(labels, name=name)
        if getattr(model, "kind", "") != "causal":
            raise ModelError(
                "a prompt is answered by a causal language model",
                where=getattr(model, "name", "model"),
                expected="kind causal",
                found=f"kind {getattr(model, 'kind', type(model).__name__)}",
            )
        self.model, self.patterns, self.reduction = model, tuple(patterns), reduction
        self.words = {name: tuple(found) for name, found in words.items()} if words else None
        self.verbalisers = [Verbaliser(model, labels, pattern, self.words) for pattern in self.patterns]
        self.meter = model.meter

    @property
    def n_params(self) -> int:
        """Parameters of the language model."""
        return int(self.model.n_params)

    def pattern_logps(self, texts: Sequence[str]) -> np.ndarray:
        """[patterns, texts, classes] float64: log softmax over the classes, for each pattern alone."""
        found = np.zeros((len(self.patterns), len(texts), len(self.labels)))
        for p, verbaliser in enumerate(self.verbalisers):
            prompts = [verbaliser.filled(text, self.model.max_length) for text in texts]
            pairs = [(prompt, word) for prompt in prompts for _, word, _ in verbaliser.answers]
            scores = np.array([one.sum for one in self.model.loglikelihood(pairs)]).reshape(len(texts), -1)
            for (c, _, ids), share, column in zip(verbaliser.answers, verbaliser.shares, scores.T):
                found[p, :, c] += share * column / (len(ids) if self.reduction == "mean" else 1)
        return np.log(np.maximum(softmax(found.reshape(-1, len(self.labels))), 1e-300)).reshape(found.shape)

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        return self.pattern_logps(texts).mean(axis=0)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return np.asarray(self.model.embed(texts))

    def _parts(self) -> Any:
        return [self.model.fingerprint, self.patterns, self.words, self.reduction]

    def _write(self, folder: Path) -> dict[str, Any]:
        if not self.model.packaged:
            self.model.save(folder / "model")
        return {
            "load": self.model.packaged,
            "patterns": list(self.patterns),
            "words": self.words,
            "reduction": self.reduction,
        }

    @classmethod
    def read(
        cls, folder: Path, labels: LabelSpace, settings: Mapping[str, Any], place: tuple[str, str]
    ) -> "PromptClassifier":
        """The classifier of `folder`; `settings` are those of its `classifier.json`, `place` device and dtype."""
        model = inner_model(settings["load"], folder / "model", *place)
        return cls(labels, model, settings["patterns"], settings["words"], settings["reduction"], name=folder.name)
