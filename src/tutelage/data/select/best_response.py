"""Of several candidate answers to a prompt, keep one: the best by a column, or a random one without.

Rows are candidates; those with equal prompts compete. Left out first: candidates without a response, shorter than
`min_words`, from `exclude_sources` (the model to be tuned itself: learning one's own answers narrows them), or not
`correct` where a verifier's column is named. Then argmax of `column`; ties go to the shorter response, then to the
earlier row. Repetitive candidates are a matter of signals.heuristic_rules and data.filter.rules before this step.
"""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Transform
from tutelage.core.text.hashing import uniform
from tutelage.data.select._shared import Direction, scores, signed

CARD = {
    "name": "data.select.best_response",
    "paper": {
        "title": "The Best Instruction-Tuning Data are Those That Fit",
        "identifier": "arXiv:2502.04194",
    },
    "summary": "Keeps one candidate answer per prompt: the best by a column, or a random one.",
    "reads": ["messages?", "prompt?", "completion?", "{column}", "{correct}"],
    "cost": "one pass",
    "baseline": "data.select.random",
    "headline": "which answer to learn matters more than how many; compare with a random, the longest, the worst",
    "version": 1,
}


def prompt_and_response(row: Mapping[str, Any]) -> tuple[str, str]:
    """(what names the prompt, the response) of a row; raises InputError where it is no candidate."""
    messages = row.get("messages")
    if messages and messages[-1]["role"] == "assistant":
        return json.dumps([[m["role"], m["content"]] for m in messages[:-1]]), messages[-1]["content"] or ""
    if row.get("prompt") is not None and "completion" in row:
        return row["prompt"], row["completion"] or ""
    raise InputError(
        "a row is no candidate answer",
        where=f"row {row['id']}",
        expected="prompt and completion, or messages that end with the assistant",
        found=", ".join(name for name, value in row.items() if value is not None),
        remedy="give one row per prompt and candidate",
    )


def best(keys: np.ndarray, lengths: list[int], candidates: list[int]) -> int:
    """The candidate (row index) with the largest key; ties: the shortest, then the first."""
    return min(candidates, key=lambda row: (-keys[row], lengths[row], row))


class BestResponse(Transform):
    """`column` and `direction` rank (none: at random by hash(seed, id)); `correct` names a true/false column of a
    verifier, `none_correct` what happens to a prompt without a correct candidate. `exclude_sources` are values of
    `source_column`; `min_words` counts words of the response."""

    column: str | None = None
    direction: Direction | None = None
    correct: str | None = None
    none_correct: Literal["drop", "keep"] = "drop"
    min_words: int = Field(default=1, ge=1)
    source_column: str = "source"
    exclude_sources: tuple[str, ...] = ()
    seed: int = Field(default=0, ge=0)

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        if dataset.num_rows == 0:
            raise InputError(f"{self.name}: there are no candidates to select from")
        ids = dataset.ids()
        keys = uniform(self.seed, ids)
        if self.column is not None:
            keys = signed(scores(dataset, self.column, self.name), self.direction, self.column)
        rows = list(dataset.rows())
        pairs = [prompt_and_response(row) for row in rows]
        lengths = [len(response) for _, response in pairs]
        if self.exclude_sources or self.correct is not None:
            named = [self.source_column] * bool(self.exclude_sources) + [self.correct] * (self.correct is not None)
            dataset.require(*(name for name in named if name is not None))
        prompts: dict[str, list[int]] = {}
        for number, (prompt, _) in enumerate(pairs):
            prompts.setdefault(prompt, []).append(number)
        reasons: dict[int, str] = {}
        kept: list[int] = []
        counts = Counter[str]()
        for members in prompts.values():
            if not any(lengths[i] for i in members):
                raise InputError(
                    "a prompt has no candidate answer",
                    where=f"row {ids[members[0]]}",
                    expected="at least one response that is not empty",
                    found=f"{len(members)} empty",
                    remedy="drop the prompt, or generate candidates for it",
                )
            counts["single_candidate"] += len(members) == 1
            left = self._eligible(rows, pairs, keys, members, reasons)
            if self.correct is not None and left:
                right = [i for i in left if rows[i][self.correct] is True]
                counts["none_correct"] += not right
                if right or self.none_correct == "drop":
                    reasons |= {i: "candidate: not correct" for i in left if i not in right}
                    left = right
            if not left:
                counts["prompts_dropped"] += 1
                continue
            chosen = best(keys, lengths, left)
            kept.append(chosen)
            reasons |= {i: f"candidate: {ids[chosen]} was chosen" for i in left if i != chosen}
        mask = np.zeros(len(rows), dtype=bool)
        mask[kept] = True
        return dataset.keep(mask, reasons, self._report(rows, lengths, prompts, mask, counts))

    def _eligible(
        self,
        rows: list[dict[str, Any]],
        pairs: list[tuple[str, str]],
        keys: np.ndarray,
        members: list[int],
        reasons: dict[int, str],
    ) -> list[int]:
        left = []
        for i in members:
            words = len(pairs[i][1].split())
            if words < self.min_words:
                reasons[i] = f"candidate: {words} words"
            elif self.exclude_sources and rows[i][self.source_column] in self.exclude_sources:
                reasons[i] = f"candidate: source {rows[i][self.source_column]!r} is excluded"
            elif np.isnan(keys[i]):
                reasons[i] = f"candidate: no {self.column}"
            else:
                left.append(i)
        return left

    def _report(
        self,
        rows: list[dict[str, Any]],
        lengths: list[int],
        prompts: Mapping[str, list[int]],
        mask: np.ndarray,
        counts: Counter[str],
    ) -> dict[str, Any]:
        report: dict[str, Any] = {
            "method": self.name,
            "column": self.column,
            "prompts": len(prompts),
            "candidates": len(rows),
            "rows_taken": int(mask.sum()),
            **{name: counts[name] for name in ("single_candidate", "none_correct", "prompts_dropped")},
            "mean_characters_before": float(np.mean(lengths)),
            "mean_characters_after": float(np.mean(np.array(lengths)[mask])) if mask.any() else None,
        }
        if rows[0].get(self.source_column) is not None:
            sources = Counter(str(row[self.source_column]) for row in rows)
            taken = Counter(str(row[self.source_column]) for row, keep in zip(rows, mask) if keep)
            report["sources"] = {
                name: {"candidates": count, "taken": taken[name]} for name, count in sources.most_common(100)
            }
        return report
