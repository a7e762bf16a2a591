"""Answers in the model's own words, compared with each other and with references."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tutelage.core.answers import exact_match, normalise
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.text.similarity import rouge_l, sentence_bleu

# How alike two answers are, in [0, 1], and from where on they count as the same.
AGREEMENT: dict[str, Callable[[str, str], float]] = {
    "bleu": sentence_bleu,
    "rouge_l": rouge_l,
    "exact": lambda one, other: float(exact_match(one, other)),
}
THRESHOLDS = {"bleu": 0.5, "rouge_l": 0.5, "exact": 0.5, "embedding": 0.9}


def references(row: Mapping[str, Any], where: str) -> list[str] | None:
    """The accepted answers of a row, None without any; raises InputError for an empty one."""
    value = row.get("answer")
    given = value if isinstance(value, list) else [value]
    accepted = [str(part) for part in given if part is not None]
    if not all(part.strip() for part in accepted):
        raise InputError(
            "a reference answer is empty",
            where=f"{where}, field answer",
            expected="a text, or a list of accepted ones",
            found=repr(value),
        )
    return accepted or None


def right(text: str, accepted: Sequence[str]) -> bool:
    """Whether an answer equals one of the accepted ones, once normalised."""
    return any(exact_match(text, one) for one in accepted)


def agreement_matrix(answers: Sequence[str], kind: str) -> np.ndarray:
    """[m, m] S(i, j), the diagonal 0; an empty answer agrees with nothing."""
    matrix = np.zeros((len(answers), len(answers)))
    for i, one in enumerate(answers):
        for j, other in enumerate(answers):
            if i != j and one.strip() and other.strip():
                matrix[i, j] = AGREEMENT[kind](one, other)
    return matrix


def cosines(vectors: np.ndarray) -> np.ndarray:
    """[m, m] cosines of `vectors` [m, d], 0 beside a zero vector, cut below at 0."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = vectors / np.maximum(norms, 1e-12)
    return np.clip(units @ units.T, 0.0, 1.0)


def distinct(answers: Sequence[str]) -> list[tuple[str, int]]:
    """(first wording, count) of each different answer once normalised, the most frequent first; no empty one."""
    counts: dict[str, list[Any]] = {}
    for answer in answers:
        key = normalise(answer)
        if key:
            counts.setdefault(key, [answer.strip(), 0])[1] += 1
    return [(text, count) for text, count in sorted(counts.values(), key=lambda one: -one[1])]


def answer_losses(model: Any, pairs: Sequence[tuple[str, str]]) -> list[np.ndarray]:
    """Per (prompt, answer) the losses -log p of the answer's tokens, [T] float64.

    Raises ConfigError for a model that gives no log-probabilities of single tokens (an endpoint).
    """
    if not hasattr(model, "token_logps"):
        raise ConfigError(
            "this model gives no log-probabilities of single tokens",
            where=getattr(model, "name", "model"),
            expected="a model with weights on this machine",
            found=f"kind {getattr(model, 'kind', type(model).__name__)}",
        )
    if model.kind == "ngram":
        return [-model.token_logps(after, before) for before, after in (model.tokenize(pair) for pair in pairs)]
    from tutelage.models.encode import Encoded, encode_prompt
    from tutelage.models.scoring import scoring_batches

    documents = []
    for prompt, answer in pairs:
        after = model.tokenize([answer])[0][: model.max_length - 1]
        before = encode_prompt(model, prompt)[-(model.max_length - len(after)) :]
        documents.append(Encoded(before + after, [False] * len(before) + [True] * len(after), ""))
    losses = [np.zeros(0)] * len(documents)
    with model.scoring():
        for chosen, batch in scoring_batches(model, documents):
            real = batch.segment_ids >= 0
            values = -model.token_logps(batch)[real].double().cpu().numpy()
            trained = batch.response_mask[real].cpu().numpy()
            at = 0
            for number in chosen:
                here = slice(at, at + len(documents[number]))
                losses[number] = values[here][trained[here]]
                at = here.stop
    return losses


def without_each_token(model: Any, answer: str) -> list[str]:
    """The answer without its first token, without its second, and so on: that position only."""
    ids = model.tokenize([answer])[0]
    decode = model.decode if hasattr(model, "decode") else model.tokenizer.decode
    return [decode([*ids[:place], *ids[place + 1 :]]) for place in range(len(ids))]
