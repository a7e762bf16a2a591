"""Membership: was the model trained on planted sequences? Told from like ones that were held back.

With token losses l_1..l_T of a sequence, larger for a member:

    ratio = mean l under the writer - mean l under the model      (log of the ratio of perplexities)
    loss  = - mean l          min_k = mean of -l over the k % of the tokens with the largest l, at least one

The figure is the AUC of planted against held-back sequences, .5 when the model learned nothing of them, with
DeLong's interval; items hold its pseudo-values, so that two models pair. p is one-sided against the null spread
sqrt((m + n + 1) / (12 m n)). Departure from the paper: sequences are scored without the document before them.
"""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field
from scipy import stats

from tutelage.core.errors import ConfigError, InputError
from tutelage.core.method import Inputs, Task
from tutelage.core.stats.auroc import auroc
from tutelage.evaluation._labels import clusters_of
from tutelage.evaluation._planted import planted_rows
from tutelage.evaluation._shared import Measurement

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "evaluation.membership",
    "paper": {"title": "Copyright Traps for Large Language Models", "identifier": "arXiv:2402.09363"},
    "summary": "How well planted sequences are told from held-back ones by what a model finds likely.",
    "reads": ["{column}?", "planted?"],
    "inputs": {
        "model": "the causal language model that may have been trained on the planted sequences",
        "writer?": "the language model that wrote them, for the ratio of perplexities",
    },
    "needs": ["train"],
    "cost": "one forward pass per sequence and model",
    "baseline": "evaluation.extraction",
    "headline": "larger models need hundreds of repeats of 100 tokens, the paper finds; small ones far fewer",
    "version": 1,
}


def min_k(losses: np.ndarray, percent: float) -> float:
    """Mean log-probability of the `percent` % least likely tokens, at least one."""
    count = max(1, int(len(losses) * percent / 100))
    return -float(np.sort(losses)[-count:].mean())


class Membership(Task):
    """The dataset that data.augment.traps made, or rows with `column` and `planted` (how often, 0 for what was
    held back). `score_by` auto: ratio where there is a writer, else min_k with the `percent` least likely ones."""

    score_by: Literal["auto", "ratio", "loss", "min_k"] = "auto"
    percent: float = Field(default=20.0, gt=0, le=100)
    column: str = "text"

    def evaluate(self, model: Any, dataset: "Dataset", inputs: Inputs) -> "Result":
        """AUC in [0, 1], smaller is better (.5: nothing learned). `extra`: auc[score] of every score, p, null_sd,
        auc[copies], and for traps auc[bucket] of perplexity.

        Raises InputError without two planted and two held-back sequences, and for a text without tokens.
        """
        writer = inputs.get("writer")
        chosen = self.score_by if self.score_by != "auto" else "min_k" if writer is None else "ratio"
        if chosen == "ratio" and writer is None:
            raise ConfigError(
                "the ratio needs a second model",
                where=f"{self.name}: inputs",
                expected="writer: the model that wrote the sequences",
                found="none",
            )
        rows = planted_rows(dataset, self.name, self.column, first="traps")
        work = Measurement(self, model, rows, inputs, identity=("text",))
        texts = [work.text(row, "text") for row in work.rows]
        planted = np.array([row["planted"] for row in work.rows], dtype=float)
        member = planted > 0
        if min(member.sum(), (~member).sum()) < 2:
            raise InputError(
                "there is nothing to tell apart",
                where=self.name,
                expected="at least two planted and two held-back sequences",
                found=f"{member.sum()} planted, {(~member).sum()} held back",
            )
        losses = [
            self._losses(one, row, work) for one, row in zip(model.score_texts(texts, per_token=True), work.rows)
        ]
        scores = {
            "loss": np.array([-one.mean() for one in losses]),
            "min_k": np.array([min_k(one, self.percent) for one in losses]),
        }
        if writer is not None:
            means = [one.nll_sum / max(1, one.n_tokens) for one in writer.score_texts(texts)]
            scores["ratio"] = np.array(means) + scores["loss"]
        clusters = clusters_of(work.rows)
        found = auroc(scores[chosen], member, clusters)
        for row, value, score in zip(work.rows, found.influence, scores[chosen]):
            work.add(row, score=float(value), target=f"{row['planted']:g}", prediction=f"{score:.6g}")
        extra = {f"auc[{name}]": auroc(values, member).area for name, values in scores.items()}
        extra |= {"null_sd": found.null_sd, "p": float(stats.norm.sf((found.area - 0.5) / found.null_sd))}
        groups = {f"{copies:g} copies": (planted == copies) | ~member for copies in sorted(set(planted[member]))}
        if all("bucket" in row for row in work.rows):
            bucket = np.array([row["bucket"] for row in work.rows])
            groups |= {f"bucket {number}": bucket == number for number in sorted(set(bucket.tolist()))}
        for name, inside in groups.items():
            if min((member & inside).sum(), (~member & inside).sum()) >= 2:
                extra[f"auc[{name}]"] = auroc(scores[chosen][inside], member[inside]).area
        result = work.result("auc", direction=-1, extra=extra, system={"score": chosen})
        return result.model_copy(update={"interval": found.interval(), "no_interval": None})

    def _losses(self, score: Any, row: dict[str, Any], work: Measurement) -> np.ndarray:
        if not score.n_tokens or not np.isfinite(score.per_token).all():
            raise InputError(
                "a sequence has no usable loss",
                where=work.where(row),
                expected="finite losses of at least one token",
                found=f"{score.n_tokens} tokens, sum {score.nll_sum}",
            )
        return np.asarray(score.per_token, dtype=float)
