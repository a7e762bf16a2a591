"""SAR: which generated answers should not be trusted? Uncertainty with the weight on what matters for the
meaning.

K answers are sampled. For answer k with token losses l_i and relevances R_i = 1 - sim(prompt + answer, the same
without token i), R summing to 1 (equal where all are 0),

    e_k = sum_i R_i l_i,   P_k = exp(-e_k),   E_k = -log(P_k + (1/t) sum_{j != k} sim(k, j) P_j),   SAR = mean E_k

sim is the cosine of an encoder's vectors (without one: the model's own), cut at 0. The figure is the AUROC of
SAR for the greedy answer being wrong, beside what costs nothing more: the greedy answer's probability, the
length-normalised entropy and the disagreement in words of the same K samples; differences are paired.
Departures from the paper: a token is removed at its own place only; an encoder instead of a cross-encoder; no
weight is NaN or "certain" where nothing is relevant.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Task
from tutelage.core.stats.auroc import auroc, auroc_difference
from tutelage.evaluation._answers import (
    agreement_matrix,
    answer_losses,
    cosines,
    references,
    right,
    without_each_token,
)
from tutelage.evaluation._labels import clusters_of
from tutelage.evaluation._shared import Measurement, prompt_of

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "evaluation.sar",
    "paper": {
        "title": "Shifting Attention to Relevance: Towards the Uncertainty Estimation of Large Language Models",
        "identifier": "arXiv:2307.01379",
    },
    "summary": "How well uncertainty over sampled answers, weighted by relevance, tells wrong answers from right.",
    "reads": ["prompt", "answer"],
    "inputs": {
        "model": "the causal language model that answers",
        "encoder?": "an encoder for the similarity of texts; without one the model's own vectors",
    },
    "needs": ["train"],
    "cost": "K + 1 answers per item, and the vector of one text per sampled token",
    "baseline": "evaluation.exact_match",
    "headline": "better than entropy up to 33 billion weights, it finds; an answer's own probability is free",
    "version": 1,
}


def token_energy(losses: np.ndarray, relevance: np.ndarray) -> float:
    """sum R_i l_i with R [T] scaled to sum 1, negative ones cut to 0, equal ones where none is left."""
    weights = np.maximum(relevance, 0.0)
    total = weights.sum()
    return float(losses.mean()) if total <= 0 else float((losses * weights).sum() / total)


def sentence_energy(energies: np.ndarray, similarity: np.ndarray, t: float) -> float:
    """mean_k -log(P_k + (1/t) sum_{j != k} sim(k, j) P_j), P = exp(-energies [K]); `similarity` [K, K]."""
    p = np.exp(-energies)
    others = similarity @ p - np.diagonal(similarity) * p
    return float(-np.log(np.maximum(p + others / t, 1e-300)).mean())


class Sar(Task):
    """Rows: `prompt` (or `messages`) and `answer`, a string or a list of accepted ones. `samples` K answers at
    `temperature`; `t` is the weight of what other answers mean. An answer ends at `stop` or the limit."""

    samples: int = Field(default=5, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    t: float = Field(default=1e-3, gt=0)
    max_new_tokens: int = Field(default=32, ge=1)
    stop: tuple[str, ...] = ("\n",)
    chat: bool = False
    seed: int = Field(default=0, ge=0)

    def evaluate(self, model: Any, dataset: "Dataset", inputs: Inputs) -> "Result":
        """AUROC of SAR for wrong greedy answers, larger is better; items hold its pseudo-values. `extra`:
        auroc[...] of sar, its token and sentence parts and the baselines; gain[baseline] with `_lo`, `_hi`, `_p`;
        accuracy; no_answer (items without any sampled answer, taken as the least sure). Where all answers are
        right, or all wrong, there is nothing to rank: .5 without an interval.

        Raises InputError for a row without a reference answer.
        """
        dataset.require("answer")
        work = Measurement(self, model, dataset, inputs, identity=("prompt", "messages", "answer"))
        accepted = [self._accepted(row, work) for row in work.rows]
        prompts = [prompt_of(row, model, self.chat) for row in work.rows]
        limits: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, "stop": self.stop}
        greedy = model.generate(prompts, temperature=0.0, **limits)
        drawn: list[list[str]] = [[] for _ in prompts]
        for number in range(self.samples):
            made = model.generate(prompts, temperature=self.temperature, seed=self.seed + number, **limits)
            for texts, one in zip(drawn, made):
                texts += [one.text] if one.text.strip() else []
        wrong = np.array([not right(one.text, good) for one, good in zip(greedy, accepted)])
        scores = self._scores(model, inputs.get("encoder") or model, prompts, [one.text for one in greedy], drawn)
        clusters = clusters_of(work.rows)
        ranked = 2 <= wrong.sum() <= len(wrong) - 2
        found = auroc(scores["sar"], wrong, clusters) if ranked else None
        influence = np.full(len(wrong), 0.5) if found is None else found.influence
        for row, one, good, value, sure in zip(work.rows, greedy, accepted, influence, scores["sar"]):
            status = "ok" if one.text.strip() else "unparsed"
            target, text = " | ".join(good), one.text.strip()
            work.add(row, score=float(value), status=status, prediction=text, target=target, raw=f"{sure:.6g}")
        extra = {
            "accuracy": float(1 - wrong.mean()),
            "no_answer": float(sum(not texts for texts in drawn)),
            "mean_sar": float(scores["sar"].mean()),
        }
        if found is None:
            result = work.result("auroc", direction=1, extra=extra)
            reason = f"{int(wrong.sum())} of {len(wrong)} answers are wrong: too few of one kind to rank"
            return result.model_copy(update={"estimate": 0.5, "interval": None, "no_interval": reason})
        for name, values in scores.items():
            extra[f"auroc[{name}]"] = auroc(values, wrong, clusters).area
        for name in ("probability", "normalised_entropy", "disagreement"):
            gain, interval, p = auroc_difference(scores["sar"], scores[name], wrong, clusters)
            extra |= {f"gain[{name}]": gain, f"gain[{name}]_lo": interval.lo, f"gain[{name}]_hi": interval.hi}
            extra[f"gain[{name}]_p"] = p
        result = work.result("auroc", direction=1, extra=extra)
        return result.model_copy(update={"interval": found.interval(), "no_interval": None})

    def _accepted(self, row: dict[str, Any], work: Measurement) -> list[str]:
        found = references(row, work.where(row))
        if found is None:
            raise InputError(
                "a row has no reference answer",
                where=f"{work.where(row)}, field answer",
                expected="a string, or a list of accepted strings",
                found="none",
            )
        return found

    def _scores(
        self, model: Any, encoder: Any, prompts: list[str], greedy: list[str], drawn: list[list[str]]
    ) -> dict[str, np.ndarray]:
        """Per measure [items], larger for less sure."""
        losses = iter(answer_losses(model, [(p, text) for p, texts in zip(prompts, drawn) for text in texts]))
        own = answer_losses(model, list(zip(prompts, greedy)))
        names = ("sar", "token_sar", "sentence_sar", "normalised_entropy", "disagreement")
        found: dict[str, list[float]] = {name: [] for name in names}
        for prompt, texts in zip(prompts, drawn):
            mine = [next(losses) for _ in texts]
            if not texts:
                for values in found.values():
                    values.append(np.inf)
                continue
            relevances, similarity = self._relevances(model, encoder, prompt, texts)
            energies = np.array([token_energy(*both) for both in zip(mine, relevances)])
            words = agreement_matrix(texts, "rouge_l")
            found["sar"].append(sentence_energy(energies, similarity, self.t))
            found["token_sar"].append(float(energies.mean()))
            found["sentence_sar"].append(
                sentence_energy(np.array([one.sum() for one in mine]), similarity, self.t)
            )
            found["normalised_entropy"].append(float(np.mean([one.mean() for one in mine])))
            found["disagreement"].append(1 - float(words.sum()) / max(1, len(texts) * (len(texts) - 1)))
        found["probability"] = [float(one.sum()) if len(one) else np.inf for one in own]
        return {name: _finite(np.array(values)) for name, values in found.items()}

    def _relevances(
        self, model: Any, encoder: Any, prompt: str, texts: list[str]
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """(per answer the relevance of each token, [K, K] similarity of the answers with their prompt)."""
        cut = [without_each_token(model, text) for text in texts]
        asked = [prompt + text for text in texts] + [prompt + text for each in cut for text in each]
        vectors = np.asarray(encoder.embed(asked), dtype=float)
        relevances, at = [], len(texts)
        for number, each in enumerate(cut):
            part = vectors[[number, *range(at, at + len(each))]]
            relevances.append(1 - cosines(part)[0, 1:])
            at += len(each)
        return relevances, cosines(vectors[: len(texts)])


def _finite(values: np.ndarray) -> np.ndarray:
    """What has no answer is the least sure of all."""
    known = values[np.isfinite(values)]
    return np.where(np.isfinite(values), values, known.max() + 1 if len(known) else 0.0)
