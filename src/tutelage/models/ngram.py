"""`NGramLM`: an interpolated n-gram model behind the same verbs as a causal language model.

It stands in for teacher, reference and student where a check must run in seconds, and is a baseline in its own
right. Witten-Bell smoothing: for a history h of k tokens with count c(h) and T(h) distinct continuations

    p_k(w | h) = (c(h, w) + T(h) p_{k-1}(w | h without its oldest token)) / (c(h) + T(h)),   p_{-1}(w) = 1 / V

and p_k = p_{k-1} for an unseen history. Histories are padded at the start of a text, every text ends with an
end token, and probabilities over the V tokens (end and unknown included) sum to 1.
Source: Witten and Bell (1991), method C; interpolated form as in Chen and Goodman (1999).
"""

import hashlib
import json
import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from tutelage.core import json_text
from tutelage.core.errors import ConfigError, ModelError
from tutelage.models.seam import Generation, LogLikelihood, Model, TextScore, as_texts, saving

_EOS, _UNK, _BOS = 0, 1, -1
_FORMAT = 1


class NGramLM(Model):
    """An n-gram model of `order` tokens over whitespace-separated words or UTF-8 bytes; `fit` it on texts first.

    order: tokens per n-gram, history included (1 = no history), at most 32.
    unit: "word" (unknown words share one token, so bits per byte of texts with unknown words are a lower bound)
    or "byte" (nothing is unknown).
    """

    kind = "ngram"
    bos_id: int | None = None
    eos_id = _EOS
    max_length = 1 << 30

    def __init__(self, order: int = 3, unit: Literal["word", "byte"] = "word", name: str = "") -> None:
        super().__init__(name or f"ngram-{order}")
        if not 1 <= order <= 32:
            raise ConfigError("the order of an n-gram model is out of range", where="order", expected="1 to 32",
                              found=order)  # fmt: skip
        if unit not in ("word", "byte"):
            raise ConfigError(
                "an n-gram model has no such unit", where="unit", expected="word or byte", found=unit
            )
        self.order = order
        self.unit = unit
        self.words: list[str] = []
        self._ids: dict[str, int] = {}
        # One table per history length k = 0 .. order-1: history -> (token -> count).
        self._counts: list[dict[tuple[int, ...], Counter[int]]] = []

    @property
    def vocab_size(self) -> int:
        """Number of tokens V: end of text, unknown (words only) and the words or 256 bytes."""
        return 257 if self.unit == "byte" else 2 + len(self.words)

    @property
    def n_params(self) -> int:
        """Number of stored n-gram counts."""
        return sum(len(counter) for table in self._counts for counter in table.values())

    def fit(self, texts: Iterable[str]) -> "NGramLM":
        """Count the n-grams of `texts`, replacing earlier counts; returns the model."""
        kept = as_texts(list(texts), "texts")
        if not kept:
            raise ModelError("an n-gram model needs at least one text", where=self.name, expected="texts", found=0)
        if self.unit == "word":
            self.words = sorted({word for text in kept for word in text.split()})
            self._ids = {word: i + 2 for i, word in enumerate(self.words)}
        self._counts = [defaultdict(Counter) for _ in range(self.order)]
        for ids in self.tokenize(kept):
            padded = [_BOS] * (self.order - 1) + ids + [_EOS]
            for end in range(self.order - 1, len(padded)):
                for k in range(self.order):
                    self._counts[k][tuple(padded[end - k : end])][padded[end]] += 1
        self._forget_caches()
        return self

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without the end token."""
        if self.unit == "byte":
            return [[byte + 1 for byte in text.encode("utf-8", "surrogatepass")] for text in texts]
        return [[self._ids.get(word, _UNK) for word in text.split()] for text in texts]

    def count_tokens(self, texts: Sequence[str]) -> np.ndarray:
        """[texts] int64."""
        return np.array([len(ids) for ids in self.tokenize(as_texts(texts, "texts"))], dtype=np.int64)

    def next_probs(self, history: Sequence[int]) -> np.ndarray:
        """[V] float64: the distribution of the token after `history` (token ids, start of text padded)."""
        self._check_fitted()
        padded = self._pad(history)
        probs = np.full(self.vocab_size, 1.0 / self.vocab_size)
        for k in range(self.order):
            found = self._arrays(k, padded[len(padded) - k :])
            if found is not None:
                tokens, counts, total = found
                probs *= len(tokens) / (total + len(tokens))
                probs[tokens] += counts / (total + len(tokens))
        return probs

    def token_logps(self, ids: Sequence[int], history: Sequence[int] = ()) -> np.ndarray:
        """[len(ids)] float64: log p of each token after those before it."""
        self._check_fitted()
        padded = [*self._pad(history), *ids]
        start = len(padded) - len(ids)
        out = np.empty(len(ids))
        for i, token in enumerate(ids):
            prob, end = 1.0 / self.vocab_size, start + i
            for k in range(self.order):
                counter = self._counts[k].get(tuple(padded[end - k : end]))
                if counter is not None:
                    distinct, total = len(counter), self._totals[k][tuple(padded[end - k : end])]
                    prob = (counter.get(token, 0) + distinct * prob) / (total + distinct)
            out[i] = math.log(prob)
        return out

    def score_texts(
        self, texts: Sequence[str], *, window: int = 1024, stride: int | None = None, per_token: bool = False
    ) -> list[TextScore]:
        """Loss of each text. The history is `order - 1` tokens, so `window` and `stride` change nothing."""
        began, scores = time.perf_counter(), []
        for text, ids in zip(texts, self.tokenize(as_texts(texts, "texts")), strict=True):
            if not ids:
                scores.append(TextScore(math.nan, 0, 0, True, np.empty(0) if per_token else None))
                continue
            nll = -self.token_logps(ids)
            n_bytes = len(text.encode("utf-8", "surrogatepass"))
            scores.append(TextScore(float(nll.sum()), len(ids), n_bytes, True, nll if per_token else None))
        tokens = sum(score.n_tokens for score in scores)
        self.meter.add(scored_tokens=tokens, calls=len(texts), seconds=time.perf_counter() - began)
        return scores

    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[LogLikelihood]:
        """log p(continuation | context) for each (context, continuation); an empty continuation has 0."""
        began, scored = time.perf_counter(), []
        for context, continuation in pairs:
            before, ids = self.tokenize([context, continuation])
            logps = self.token_logps(ids, before)
            greedy = all(
                int(self.next_probs([*before, *ids[:i]]).argmax()) == token for i, token in enumerate(ids)
            )
            scored.append(LogLikelihood(float(logps.sum()), len(ids), greedy))
        tokens = sum(one.n_tokens for one in scored)
        self.meter.add(scored_tokens=tokens, calls=len(pairs), seconds=time.perf_counter() - began)
        return scored

    def generate(
        self,
        prompts: Sequence[str],
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        seed: int | Sequence[int] = 0,
        batch_size: int = 16,
    ) -> list[Generation]:
        """One continuation per prompt; temperature 0 takes the likeliest token. `batch_size` changes nothing."""
        began, out = time.perf_counter(), []
        for i, prompt in enumerate(as_texts(prompts, "prompts")):
            rng = np.random.default_rng([seed, i] if isinstance(seed, int) else seed[i])
            ids = self.tokenize([prompt])[0]
            out.append(self._continue(ids, max_new_tokens, temperature, stop, rng))
        spent = sum(len(one.token_ids) for one in out)
        self.meter.add(generated_tokens=spent, calls=len(prompts), seconds=time.perf_counter() - began)
        return out

    def chat_prompt(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The messages as plain `role: content` lines; an n-gram model has no turns."""
        return "".join(f"{m['role']}: {m['content']}\n" for m in messages)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids; end tokens vanish, the unknown word is `<unk>`."""
        if self.unit == "byte":
            return bytes(i - 1 for i in ids if i > 0).decode("utf-8", "replace")
        return " ".join("<unk>" if i == _UNK else self.words[i - 2] for i in ids if i != _EOS)

    @property
    def fingerprint(self) -> str:
        """Hash of order, unit, vocabulary and counts."""
        self._check_fitted()
        digest = hashlib.blake2b(json.dumps([_FORMAT, self.order, self.unit, self.words]).encode(), digest_size=16)
        for array in self._flat().values():
            digest.update(array.tobytes())
        return digest.hexdigest()

    def save(self, path: str | Path) -> Path:
        """Write `ngram.json` (configuration, words) and `counts.npz` below `path`; returns the folder.

        Raises StoreError when the place cannot be written.
        """
        self._check_fitted()
        folder = Path(path)
        config = {"format": _FORMAT, "order": self.order, "unit": self.unit, "words": self.words}
        with saving(folder):
            np.savez_compressed(folder / "counts.npz", **self._flat())  # type: ignore[arg-type]
            (folder / "ngram.json").write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
        return folder

    @classmethod
    def load(cls, path: str | Path) -> "NGramLM":
        """Read what `save` wrote. Raises ModelError when a file is absent or damaged."""
        folder = Path(path)
        try:
            config = json_text.loads((folder / "ngram.json").read_bytes())
            if config["format"] != _FORMAT:
                raise ValueError(f"format {config['format']}, this version reads {_FORMAT}")
            model = cls(config["order"], config["unit"], name=folder.name)
            model.words = config["words"]
            model._ids = {word: i + 2 for i, word in enumerate(model.words)}
            with np.load(folder / "counts.npz", allow_pickle=False) as arrays:
                model._counts = [_unflat(arrays[f"ngrams_{k}"]) for k in range(model.order)]
        except Exception as error:  # a damaged archive raises many types; all mean that this one cannot be used
            raise ModelError(
                "not a saved n-gram model", where=folder, expected="ngram.json and counts.npz", found=error,
                remedy="save the model again",
            ) from error  # fmt: skip
        return model

    def _continue(
        self, ids: list[int], limit: int, temperature: float, stop: Sequence[str], rng: np.random.Generator
    ) -> Generation:
        new: list[int] = []
        for _ in range(limit):
            probs = self.next_probs([*ids, *new])
            if temperature > 0:
                logits = np.log(probs) / temperature
                probs = np.exp(logits - logits.max())
                token = int(rng.choice(len(probs), p=probs / probs.sum()))
            else:
                token = int(probs.argmax())
            if token == _EOS:
                return Generation(self.decode(new), tuple(new), False, len(ids))
            new.append(token)
            text = self.decode(new)
            cut = min((text.find(s) for s in stop if s and s in text), default=-1)
            if cut >= 0:
                return Generation(text[:cut], tuple(new), False, len(ids))
        return Generation(self.decode(new), tuple(new), True, len(ids))

    def _pad(self, history: Sequence[int]) -> list[int]:
        kept = list(history[max(0, len(history) - self.order + 1) :]) if self.order > 1 else []
        return [_BOS] * (self.order - 1 - len(kept)) + kept

    def _arrays(self, k: int, history: Sequence[int]) -> tuple[np.ndarray, np.ndarray, int] | None:
        counter = self._counts[k].get(tuple(history))
        if counter is None:
            return None
        tokens = np.fromiter(counter.keys(), dtype=np.int64, count=len(counter))
        counts = np.fromiter(counter.values(), dtype=np.float64, count=len(counter))
        return tokens, counts, self._totals[k][tuple(history)]

    @cached_property
    def _totals(self) -> list[dict[tuple[int, ...], int]]:
        return [{history: counter.total() for history, counter in table.items()} for table in self._counts]

    def _flat(self) -> dict[str, np.ndarray]:
        """Per k an int64 array [n-grams, k + 2]: history, token, count; sorted: equal models, equal bytes."""
        flat = {}
        for k, table in enumerate(self._counts):
            rows = sorted(
                (*history, token, n) for history, counter in table.items() for token, n in counter.items()
            )
            flat[f"ngrams_{k}"] = np.array(rows, dtype=np.int64).reshape(-1, k + 2)
        return flat

    def _forget_caches(self) -> None:
        self.__dict__.pop("_totals", None)

    def _check_fitted(self) -> None:
        if not self._counts:
            raise ModelError("this n-gram model was not fitted", where=self.name, remedy="call fit(texts) first")


def _unflat(rows: np.ndarray) -> dict[tuple[int, ...], Counter[int]]:
    table: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for *history, token, count in rows.tolist():
        table[tuple(history)][token] = count
    return table
