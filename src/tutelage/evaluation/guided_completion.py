"""Guided completion: has the model seen an evaluation set? It is asked to go on with its items, word for word.

Each text is cut 40 to 70 % in, at the end of a sentence where there is one there, and completed greedily twice:
guided, naming data set and split, and generally (a base model: under a header that names another set). With r the
ROUGE-L F against the true rest, p is the one-sided paired sign-flip test of r_guided - r_general. An item is
flagged when the guided completion is the rest (exact), or nearly (edit similarity of at least `near`); the set is
flagged at one exact or two near-exact items. Departures from the paper: the test pairs items instead of resampling
the two sets apart; near-exact is measured, not judged; a flagged set is contaminated only where rows of the same
kind that the model cannot have seen (`control`) are not flagged too, else it is a suspicion. Nothing flagged is no
proof: how many copies a model of this size gives away is what planted texts tell (evaluation.extraction on
data.augment.canaries).
"""

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field, field_validator

from tutelage.core.errors import ConfigError, InputError
from tutelage.core.method import Inputs, Task
from tutelage.core.stats.clusters import cluster_design
from tutelage.core.stats.paired import sign_flip_p
from tutelage.core.text.hashing import uniform
from tutelage.core.text.sentences import sentence_spans
from tutelage.core.text.similarity import edit_similarity, rouge_l
from tutelage.evaluation._audit import Pieces, as_words, first_tokens, refuse_shared, row_texts, sample
from tutelage.evaluation._labels import clusters_of
from tutelage.evaluation._shared import Measurement

if TYPE_CHECKING:
    import pyarrow as pa

    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "evaluation.guided_completion",
    "paper": {
        "title": "Time Travel in LLMs: Tracing Data Contamination in Large Language Models",
        "identifier": "arXiv:2308.08493",
    },
    "summary": "Share of a data set's items that the model completes word for word when told where they are from.",
    "reads": ["text?", "prompt?", "label?", "source?"],
    "inputs": {
        "model": "the causal language model that may have seen the rows",
        "control?": "rows of the same kind that it cannot have seen: written or paraphrased since",
    },
    "needs": ["train"],
    "cost": "two completions of at most max_new_tokens tokens per item, and per control item",
    "baseline": "evaluation.extraction",
    "headline": "agreed with experts on seven sets, the paper finds; no flag is no proof of cleanliness",
    "version": 1,
}


class Completed(NamedTuple):
    """One item: the guided completion, the true rest, whether they are equal or nearly, ROUGE-L F of both
    prompts."""

    completion: str
    truth: str
    exact: bool
    near: bool
    guided: float
    general: float


def cut(text: str, at: float, low: float, high: float) -> Pieces:
    """`text` in two: at the end of the sentence nearest to the share `at` of its characters if one ends between
    `low` and `high`, else before the word there."""
    size = len(text)
    ends = [end for _, end in sentence_spans(text)[:-1] if low * size <= end <= high * size]
    words = [place for place in range(1, size) if text[place - 1].isspace() and not text[place].isspace()]
    places = ends or words or [size]
    place = min(places, key=lambda end: abs(end - at * size))
    return Pieces(text[:place].rstrip(), text[place:].strip())


def matches(completion: str, truth: str, near: float) -> tuple[float, bool, bool]:
    """(ROUGE-L F, exact, near-exact or exact) of a completion cut to as many words as the truth has."""
    truth = as_words(truth)
    found = as_words(completion, len(truth.split()))
    exact = found == truth
    return rouge_l(found, truth), exact, exact or edit_similarity(found, truth) >= near


def instructions(name: str, split: str, label: str) -> tuple[str, str]:
    """What stands before the beginning in the guided and in the general prompt, for models that follow it."""
    kind = f" It is labelled {label}." if label else ""
    return (
        f"Here is how an example of the {split} split of the data set {name} begins.{kind} Write the rest of it "
        "exactly as it stands in the data set.\n\nBeginning: ",
        f"Here is how a text begins.{kind} Write the rest of it.\n\nBeginning: ",
    )


class GuidedCompletion(Task):
    """Rows with text; `dataset_name` and `split` are what the guided prompt names (no name: the column `source`).
    `style`: a user turn, an instruction, or a header before the text for models that follow none (auto: a user
    turn where there is a chat template, else a header); `other_name` stands in the header of the general prompt.
    `items` rows are drawn; texts below `least_words` words are left out."""

    dataset_name: str = ""
    split: str = "test"
    other_name: str = "Letters to the editor"
    style: Literal["auto", "chat", "instruction", "header"] = "auto"
    items: int = Field(default=50, ge=1)
    cut_between: tuple[float, float] = (0.4, 0.7)
    near: float = Field(default=0.9, gt=0, le=1)
    least_words: int = Field(default=8, ge=2)
    max_new_tokens: int = Field(default=64, ge=1)
    seed: int = Field(default=42, ge=0)

    @field_validator("cut_between")
    @classmethod
    def _in_order(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1] < 1:
            raise ValueError("two rising shares between 0 and 1")
        return value

    def evaluate(self, model: Any, dataset: "Dataset", inputs: Inputs) -> "Result":
        """Share of items flagged, smaller is better. `system["verdict"]`: contaminated, suspicion (no control),
        control flagged too, or not detected. `extra`: exact and near_exact (counts), p, rouge_guided,
        rouge_general, skipped (too short), and the same of the control.

        Raises InputError when no text is long enough, and when a control row is among the rows.
        """
        control, table = inputs.get("control"), sample(dataset, self.items, self.seed)
        names = ("text", "prompt", "messages", "choices", "completion", "answer")
        work = Measurement(self, model, table.to_pylist(), inputs, identity=names)
        found = self._completed(model, table)
        for row, one in zip(work.rows, found):
            if one is not None:
                work.add(row, score=float(one.near), raw=one.completion, target=one.truth)
        extra, flagged = self._summary(found, table)
        verdict = "suspicion" if flagged else "not detected"
        if control is not None:
            apart = sample(control, self.items, self.seed)
            refuse_shared(table, apart, self.name)
            rest, suspicious = self._summary(self._completed(model, apart), apart)
            extra |= {f"control_{name}": value for name, value in rest.items()}
            verdict = verdict if not flagged else "control flagged too" if suspicious else "contaminated"
        extra["set_flagged"] = float(flagged)
        return work.result("flagged", direction=-1, extra=extra, system={"verdict": verdict})

    def _completed(self, model: Any, table: "pa.Table") -> "list[Completed | None]":
        """Per row how it was completed; None for a text that is too short."""
        found: list[Completed | None] = [None] * len(table)
        prompts: list[str] = []
        kept: list[tuple[int, str]] = []
        low, high = self.cut_between
        ids = table.column("id").to_pylist()
        at = low + (high - low) * uniform(self.seed, ids)
        for number, (row, text) in enumerate(zip(table.to_pylist(), row_texts(table))):
            if len(text.split()) < self.least_words:
                continue
            first, rest = cut(text.strip(), float(at[number]), low, high)
            if rest:
                kept.append((number, first_tokens(rest, model, self.max_new_tokens)))
                prompts += self._prompts(model, row, first)
        if not kept:
            raise InputError(
                "no text is long enough to be completed",
                where=self.name,
                expected=f"texts of at least {self.least_words} words",
                found=f"{len(found)} shorter ones",
            )
        made = [one.text for one in model.generate(prompts, max_new_tokens=self.max_new_tokens, temperature=0.0)]
        for (number, rest), guided, general in zip(kept, made[::2], made[1::2]):
            score, exact, near = matches(guided, rest, self.near)
            found[number] = Completed(guided, rest, exact, near, score, matches(general, rest, self.near)[0])
        return found

    def _prompts(self, model: Any, row: dict[str, Any], first: str) -> tuple[str, str]:
        """(guided, general)."""
        name = self.dataset_name or str(row.get("source") or "")
        if not name:
            raise ConfigError(
                "the data set has no name to ask for",
                where=f"{self.name}: dataset_name",
                expected="the name under which it is published",
                found="none, and no column source",
            )
        style = self.style
        if style == "auto":
            style = "header" if getattr(model, "template", None) is None else "chat"
        if style == "header":
            return f"{name}, {self.split}\n\n{first}", f"{self.other_name}, {self.split}\n\n{first}"
        guided, general = (
            before + first + "\n\nRest:" for before in instructions(name, self.split, str(row.get("label") or ""))
        )
        if style == "instruction":
            return guided, general
        first, second = (model.chat_prompt([{"role": "user", "content": one}]) for one in (guided, general))
        return first, second

    def _summary(self, found: "list[Completed | None]", table: "pa.Table") -> tuple[dict[str, float], bool]:
        """(counts, means and p, whether the set is flagged)."""
        kept = np.array([one is not None for one in found])
        done = [one for one in found if one is not None]
        gains = np.array([one.guided - one.general for one in done])
        design = cluster_design(clusters_of(table.to_pylist())[kept], len(done))
        exact, near = sum(one.exact for one in done), sum(one.near and not one.exact for one in done)
        facts = {
            "exact": exact,
            "near_exact": near,
            "p": float(sign_flip_p(design.sums(gains), self.seed, greater=True)),
            "rouge_guided": float(np.mean([one.guided for one in done])),
            "rouge_general": float(np.mean([one.general for one in done])),
            "skipped": len(found) - len(done),
        }
        return {name: float(value) for name, value in facts.items()}, exact >= 1 or near >= 2
