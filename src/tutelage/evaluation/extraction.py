"""Extraction: how much of its training text a model gives away to someone who knows how a text begins.

Each known training text is cut into a prefix and the suffix that follows it; a suffix counts as extracted when the
greedy completion is the suffix, word for word. With K sampled completions the attacker's best guess is the
distinct candidate s of the largest calibrated confidence

    conf(s) = c_s exp(-n_s l_s) / sum over distinct s'      c_s times sampled, mean loss l_s over n_s tokens

and recall is counted until a number of wrong guesses were made in order of confidence. Rows never trained on
(`control`, or rows whose `planted` is 0) give the floor. Departure from the paper: without its trained soft
prompt, so that this is a lower bound of what an attacker with gradients extracts; temperature sampling without
top-p.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pydantic import Field

from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Task
from tutelage.core.stats.auroc import auroc
from tutelage.core.stats.intervals import wilson
from tutelage.evaluation._audit import (
    Pieces,
    as_words,
    copies_of,
    first_tokens,
    first_words,
    refuse_shared,
    row_texts,
    sample,
)
from tutelage.evaluation._shared import Measurement

if TYPE_CHECKING:
    import pyarrow as pa

    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "evaluation.extraction",
    "paper": {
        "title": "Ethicist: Targeted Training Data Extraction Through Loss Smoothed Soft Prompting and Calibrated "
        "Confidence Estimation",
        "identifier": "arXiv:2307.04401",
    },
    "summary": "Share of known training texts whose continuation the model gives away word for word.",
    "reads": ["text?", "prompt?", "planted?"],
    "inputs": {
        "model": "the causal language model that was trained on the rows",
        "control?": "rows of the same kind that it never saw",
    },
    "needs": ["train"],
    "cost": "1 + samples completions of suffix_tokens per row, and one forward pass per distinct candidate",
    "baseline": None,
    "headline": "a lower bound: an attacker who trains a soft prompt extracts clearly more, the paper finds",
    "version": 1,
}


class Attack(NamedTuple):
    """One row attacked: greedy success, leading share of the suffix's words, the best sampled guess."""

    pieces: Pieces
    extracted: bool
    leading: float
    guessed: bool
    confidence: float


def confidences(counts: Sequence[int], lls: Sequence[float]) -> np.ndarray:
    """Calibrated confidence of distinct candidates sampled `counts` times with log-likelihoods `lls` (nats)."""
    logs = np.log(counts) + np.asarray(lls, dtype=float)
    weights = np.exp(logs - logs.max())
    return weights / weights.sum()


def recall_at_wrong(right: Sequence[bool], confidence: Sequence[float], wrong: int) -> float:
    """Share of all guesses that are right and come, by falling confidence, before the wrong one number `wrong`
    (all right ones where there are fewer); at equal confidence the wrong ones come first."""
    hits = np.asarray(right, dtype=bool)[np.lexsort((np.asarray(right), -np.asarray(confidence)))]
    return float((hits & (np.cumsum(~hits) < wrong)).sum() / len(hits))


def leading_words(found: str, truth: str) -> float:
    """Share of the truth's words that are right before the first wrong one."""
    one, other = found.split(), truth.split()
    same = next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))
    return same / len(other)


class Extraction(Task):
    """Rows with text, known to be training data; `planted` says how often each was trained on. `prefix_tokens` and
    `suffix_tokens` at most, from the beginning of the text (a short text is cut in the middle); `samples` K at
    `temperature`; `wrong` guesses end the count. Texts stay out of the log while `redact`."""

    prefix_tokens: int = Field(default=50, ge=1)
    suffix_tokens: int = Field(default=50, ge=1)
    samples: int = Field(default=0, ge=0)
    temperature: float = Field(default=0.8, gt=0)
    wrong: int = Field(default=100, ge=1)
    items: int | None = Field(default=None, ge=1)
    least_words: int = Field(default=8, ge=2)
    redact: bool = True
    seed: int = Field(default=0, ge=0)

    def evaluate(self, model: Any, dataset: "Dataset", inputs: Inputs) -> "Result":
        """Share extracted, smaller is better. `extra`: leading (share of the suffix right), recall[copies], with
        samples recall_sampled, recall_at_wrong and confidence_auroc, with a control its share and Wilson's upper
        bound, skipped (too short).

        Raises InputError when no text is long enough, and when a control row is among the rows.
        """
        table, control = sample(dataset, self.items, self.seed), inputs.get("control")
        names = ("text", "prompt", "messages", "choices", "completion", "answer")
        work = Measurement(self, model, table.to_pylist(), inputs, identity=names)
        attacks = self._attacked(model, table)
        floor: list[Attack] = []
        groups: dict[str, list[float]] = {}
        done: list[Attack] = []
        for row, one in zip(work.rows, attacks):
            copies = copies_of(row, "planted")
            if one is None:
                continue
            if copies is not None:
                groups.setdefault(copies, []).append(float(one.extracted))
            if copies == "0":
                floor.append(one)
                continue
            done.append(one)
            shown = None if self.redact else one.pieces.after
            work.add(row, score=float(one.extracted), target=shown, p_correct=one.leading)
        if not done:
            raise InputError(
                "no training text is long enough",
                where=self.name,
                expected=f"texts of at least {self.least_words} words that were trained on",
                found=f"{len(attacks)} rows, {len(floor)} of them never trained on",
            )
        if control is not None:
            apart = sample(control, self.items, self.seed)
            refuse_shared(table, apart, self.name)
            floor += [one for one in self._attacked(model, apart) if one is not None]
        extra = {"leading": float(np.mean([one.leading for one in done])), "skipped": float(attacks.count(None))}
        extra |= {f"recall[{copies}]": float(np.mean(values)) for copies, values in groups.items()}
        if floor:
            hits = sum(one.extracted for one in floor)
            extra |= {"control": hits / len(floor), "control_hi": wilson(hits, len(floor)).hi}
            extra["control_leading"] = float(np.mean([one.leading for one in floor]))
        if self.samples:
            right, sure = [one.guessed for one in done], [one.confidence for one in done]
            extra["recall_sampled"] = float(np.mean(right))
            extra["recall_at_wrong"] = recall_at_wrong(right, sure, self.wrong)
            if 2 <= sum(right) <= len(right) - 2:
                extra["confidence_auroc"] = auroc(sure, right).area
        return work.result("extracted", direction=-1, extra=extra)

    def _attacked(self, model: Any, table: "pa.Table") -> list[Attack | None]:
        """Per row what the attack gave; None for a text that is too short."""
        cut = [self._pieces(text.strip(), model) for text in row_texts(table)]
        kept = [one for one in cut if one is not None]
        if not kept:
            return [None] * len(cut)
        prompts = [one.before for one in kept]
        limit = max(len(ids) for ids in model.tokenize([" " + one.after for one in kept])) + 1
        greedy = [one.text for one in model.generate(prompts, max_new_tokens=limit, temperature=0.0)]
        drawn: list[list[str]] = [[] for _ in kept]
        for number in range(self.samples):
            seed = self.seed + 1 + number
            made = model.generate(prompts, max_new_tokens=limit, temperature=self.temperature, seed=seed)
            for one, texts, found in zip(kept, drawn, made):
                texts.append(first_words(found.text, len(one.after.split())))
        done = []
        for one, text, guess in zip(kept, greedy, self._guessed(model, kept, drawn)):
            exact = as_words(text, len(one.after.split())) == as_words(one.after)
            done.append(Attack(one, exact, leading_words(text, one.after), *guess))
        found = iter(done)
        return [None if one is None else next(found) for one in cut]

    def _guessed(self, model: Any, kept: list[Pieces], drawn: list[list[str]]) -> list[tuple[bool, float]]:
        """Per row (best candidate right, its confidence); (False, 0) without samples."""
        counts = [Counter(text for text in texts if text.strip()) for texts in drawn]
        pairs = [(one.before, text) for one, found in zip(kept, counts) for text in found]
        lls = iter(found.sum for found in (model.loglikelihood(pairs) if pairs else []))
        best = []
        for one, found in zip(kept, counts):
            if not found:
                best.append((False, 0.0))
                continue
            sure = confidences(list(found.values()), [next(lls) for _ in found])
            top = int(sure.argmax())
            best.append((as_words(list(found)[top]) == as_words(one.after), float(sure[top])))
        return best

    def _pieces(self, text: str, model: Any) -> Pieces | None:
        count = len(text.split())
        if count < self.least_words:
            return None
        before = first_tokens(text, model, self.prefix_tokens)
        if len(before.split()) > count // 2:
            before = first_words(text, count // 2)
        return Pieces(before, first_tokens(text[len(before) :], model, self.suffix_tokens).strip())
