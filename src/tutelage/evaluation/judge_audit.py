"""How far an automatic judge can be trusted: its verdicts on pairs of responses against people's, and its
biases.

Each pair is judged in both orders; a verdict that follows the place instead of the response is a tie. Accuracy
counts ties as a class. Swap consistency = share of pairs whose verdict survives the swap. Length bias = partial
rank correlation of verdict and difference of lengths given the people's verdict, r_vl.h = (r_vl - r_vh r_lh) /
sqrt((1 - r_vh^2)(1 - r_lh^2)). Own-family bias = share of its own family's responses that the judge prefers
less the share that people prefer. A judge that is asked also sees every response against itself, and the worse
response of each pair with an instruction to prefer it added. Marks are compared by Pearson's and Spearman's
correlation, orders by normalised Levenshtein distance and Kendall's tau, as in the paper; the biases and their
definitions are ours.
"""

import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from tutelage.core.errors import ConfigError, InputError
from tutelage.core.method import Inputs, Task
from tutelage.core.stats.intervals import wilson
from tutelage.evaluation import _verdicts as verdicts
from tutelage.evaluation._labels import clusters_of
from tutelage.evaluation._shared import Measurement

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "evaluation.judge_audit",
    "paper": {
        "title": "MLLM-as-a-Judge: Assessing Multimodal LLM-as-a-Judge with Vision-Language Benchmark",
        "identifier": "arXiv:2402.04788",
    },
    "summary": "How far a judge can be trusted: agreement with people, order, length, family and injection bias.",
    "reads": ["{human}", "{verdict}?", "{swapped}?", "response_a?", "response_b?", "prompt?"],
    "inputs": {"judge?": "the model that is audited; without it the rows hold its verdicts"},
    "cost": "up to five judge calls per pair",
    "baseline": "evaluation.agreement",
    "headline": "a judge that answers by place or length looks like one that agrees",
    "version": 1,
}


class JudgeAudit(Task):
    """Rows: `human` (a, b or tie), optional `human_2` (a second person: the ceiling), and either `prompt`,
    `response_a`, `response_b` with a judge as input, or its recorded `verdict` and `swapped` (the responses given
    in the other order; both in terms of a and b; null: unreadable). Optional: `family_a`, `family_b` with the
    judge's own `family`; `judge_marks`, `human_marks` and `judge_order`, `human_order` (lists for the same
    responses), marks within `scale`. `read` is how the judge answers: probabilities of the letters, or a text."""

    human: str = "human"
    human_2: str = "human_2"
    verdict: str = "verdict"
    swapped: str = "swapped"
    family: str | None = None
    scale: tuple[float, float] = (1.0, 5.0)
    read: Literal["probabilities", "text"] = "probabilities"
    question: str = "Each text is a request and a response to it. Which response is better?"
    clip_words: int = Field(default=400, ge=10)
    max_new_tokens: int = Field(default=24, ge=1)

    def evaluate(self, model: Any, dataset: "Dataset", inputs: Inputs) -> "Result":
        """Accuracy of verdicts that survive the swap, ties being a class; the interval covers items or clusters.
        `extra`: the other measures; what needs columns that are not there is left out. Warns of a judge whose
        verdict is the same place every time.

        Raises InputError for verdicts outside a, b, tie and marks outside the scale, ConfigError without judge and
        verdicts.
        """
        dataset.require(self.human)
        work = Measurement(self, None, dataset, inputs)
        rows, judge = work.rows, inputs.get("judge")
        human = verdicts.column(rows, self.human, work.where, least=True)
        extra: dict[str, float] = {}
        if judge is None:
            if self.verdict not in dataset.column_names or self.swapped not in dataset.column_names:
                raise ConfigError(
                    "there is neither a judge nor its verdicts",
                    where=f"{self.name}: inputs.judge",
                    expected=f"a judge, or the columns {self.verdict!r} and {self.swapped!r}",
                    found=", ".join(dataset.column_names),
                    remedy="name a model in `inputs: {judge: ...}`, or record its verdicts in both orders",
                )
            forward, backward = (verdicts.column(rows, name, work.where) for name in (self.verdict, self.swapped))
        else:
            work.system = {"name": getattr(judge, "name", "judge"), "weights": judge.fingerprint}
            forward, backward, asked = verdicts.ask_judge(self, judge, work, human)
            extra |= asked
        final = verdicts.settled(forward, backward)
        for row, said, truth in zip(rows, final, human):
            status = "unparsed" if np.isnan(said) else "ok"
            name = None if np.isnan(said) else verdicts.NAMES[said]
            work.add(row, score=float(said == truth), status=status, prediction=name, target=verdicts.NAMES[truth])
        extra |= verdicts.agreement(forward, backward, final, human)
        extra |= verdicts.lengths(rows, final, human)
        extra |= self._ceiling(work, human, extra["accuracy"])
        extra |= self._family(rows, final, human)
        extra |= verdicts.marks(rows, work.where, self.scale) | verdicts.orders(rows, work.where)
        first = extra.get("first_place", 0.5)
        if first in (0.0, 1.0):
            extra["always_one_place"] = 1.0
            warnings.warn(
                f"{self.name}: the judge prefers the {'first' if first else 'second'} response whatever it is: "
                "its verdicts say nothing",
                stacklevel=2,
            )
        return work.result("judge accuracy", direction=1, extra={k: v for k, v in extra.items() if v == v})

    def _ceiling(self, work: Measurement, human: np.ndarray, accuracy: float) -> dict[str, float]:
        second = verdicts.column(work.rows, self.human_2, work.where)
        both = ~np.isnan(second)
        if not both.any():
            return {}  # one annotator: nobody knows how far people agree
        same = (second == human)[both]
        found = {"ceiling": float(same.mean()), "ceiling_pairs": float(both.sum())}
        if len(set(clusters_of(work.rows).tolist())) == len(work.rows):
            bounds = wilson(int(same.sum()), int(both.sum()))
            found |= {"ceiling_lo": bounds.lo, "ceiling_hi": bounds.hi}
        return found | ({"share_of_ceiling": accuracy / found["ceiling"]} if found["ceiling"] else {})

    def _family(self, rows: list[dict[str, Any]], final: np.ndarray, human: np.ndarray) -> dict[str, float]:
        """How much more often than people the judge prefers its own family, over pairs with one such response."""
        own = np.array([(r.get("family_a") == self.family, r.get("family_b") == self.family) for r in rows])
        here = (own[:, 0] != own[:, 1]) & ~np.isnan(final)
        if self.family is None:
            return {}
        if not here.any():
            raise InputError(
                "no pair has one response of the judge's own family",
                where="columns family_a and family_b",
                expected=f"{self.family!r} in one of them",
                found="none",
            )
        side = np.where(own[here, 0], 1.0, -1.0)
        judged, people = ((side * v[here] > 0).mean() for v in (final, human))
        return {"own_family": float(judged), "own_family_bias": float(judged - people)}
