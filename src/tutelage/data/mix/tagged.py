"""Tag, then mix: one configuration turns texts and the columns that signals wrote about them into a corpus.

Three stages, each with its counts. Conditions: a row stays if it meets every `keep` and no `drop`; `profiles` add
the thresholds of published filters for the values of `source_column`. Spans: the pieces of the text that span
columns name are replaced, overlapping ones as one. Sampling: with shares s_k (made to sum to 1), stocks n_k in
tokens and a budget B, source k gets s_k B tokens, drawn by hash(seed, id); without a budget B is the largest with
which the shares hold, min_k max_weight n_k / s_k. A source with less than its quota is taken whole with the weight
min(s_k B / n_k, max_weight). A changed threshold reads columns again and scores nothing. Departures: up-sampling
is a weight, not copies; the other columns of a cut row still describe its whole text.
"""

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from tutelage.core.dataset import Dataset
from tutelage.core.dataset_builder import DatasetBuilder
from tutelage.core.errors import ConfigError, InputError, suggest
from tutelage.core.method import Inputs, Transform
from tutelage.core.records import Budget
from tutelage.core.text.hashing import uniform
from tutelage.core.text.rows import string_column
from tutelage.core.text.words import hash_words
from tutelage.data.filter._profiles import PROFILES, Bound
from tutelage.data.mix._conditions import Condition, shown
from tutelage.data.mix._sampling import Sample, sample
from tutelage.data.mix._spans import REMOVED, replaced, spans_of, tokens_after
from tutelage.data.select._shared import row_sizes

CARD = {
    "name": "data.mix.tagged",
    "paper": {
        "title": "Dolma: an Open Corpus of Three Trillion Tokens for Language Model Pretraining Research",
        "identifier": "arXiv:2402.00159",
    },
    "summary": "Emits a corpus from tags: conditions on columns, spans cut out, shares per source under a budget.",
    "reads": ["text", "{source_column}?", "n_tokens?"],
    "writes": ["text", "removed_characters", "mix_weight"],
    "cost": "one pass over the tags, one over the texts that stay",
    "baseline": "data.select.random",
    "headline": "thresholds and shares change without scoring again; every dropped row keeps its reason",
    "version": 1,
}
WEIGHT = "mix_weight"
OTHERS = "*"


class Tagged(Transform):
    """`keep` and `drop` map columns to conditions; `profiles` a value of `source_column` (or "*": any other) to a
    filter profile; `remove` a span column to what replaces its spans; a row that loses text needs `min_words`.
    `shares` per value of `source_column` hold under `budget` (tokens or rows); `max_weight` above 1 lets a source
    count more than once; `allow_short` takes what there is where a quota cannot be met."""

    keep: dict[str, Condition] = Field(default={})
    drop: dict[str, Condition] = Field(default={})
    profiles: dict[str, str] = Field(default={})
    remove: dict[str, str] = Field(default={})
    min_words: int = Field(default=50, ge=0)
    source_column: str = "source"
    shares: dict[str, float] = Field(default={})
    max_weight: float = Field(default=1.0, ge=1)
    budget: Budget | None = None
    allow_short: bool = False
    seed: int = Field(default=0, ge=0)

    @field_validator("shares")
    @classmethod
    def _positive(cls, shares: dict[str, float]) -> dict[str, float]:
        if any(share < 0 for share in shares.values()) or (shares and not sum(shares.values())):
            raise ValueError("shares are not negative, and one at least is positive")
        return shares

    @model_validator(mode="after")
    def _known_profiles(self) -> "Tagged":
        for name in self.profiles.values():
            if name not in PROFILES:
                raise ConfigError(
                    f"there is no filter profile {name!r}",
                    where="profiles",
                    expected=", ".join(PROFILES),
                    remedy=suggest(name, PROFILES),
                )
        return self

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        dataset.require("text")
        sizes = row_sizes(dataset).tokens
        mask, reasons = self._conditions(dataset)
        fit = dataset.keep(mask, reasons)
        _some_left(dataset, fit)
        steps = [("conditions", dataset, fit, sizes, sizes[mask])]
        cut = fit
        if self.remove:
            cut = self._cut(fit)
            _some_left(fit, cut)
            steps.append(("spans", fit, cut, sizes[mask], row_sizes(cut).tokens))
        sizes = steps[-1][-1]
        taken = self._sampled(cut, sizes)
        final = cut.keep(taken.mask, taken.reasons)
        steps.append(("sampling", cut, final, sizes, sizes[taken.mask]))
        stages = [_counts(*step) for step in steps]
        dropped = [after.dropped for _, _, after, _, _ in steps]
        if taken.weights is not None:
            kept = taken.weights[taken.mask]
            bounds = np.cumsum([0] + [shard.num_rows for shard in final.shards(["id"])])
            final = final.with_columns(self.name, ({WEIGHT: kept[a:b]} for a, b in itertools.pairwise(bounds)))
        final.dropped = pa.concat_tables(dropped).combine_chunks()
        final.report = {
            "method": self.name,
            "rows_in": dataset.num_rows,
            "rows_kept": final.num_rows,
            "stages": stages,
            **taken.facts,
        }
        return final

    def _conditions(self, dataset: Dataset) -> tuple[np.ndarray, dict[int, str]]:
        """Which rows stay [n], and for each other one the first condition that it failed."""
        rules = {name: PROFILES[profile] for name, profile in self.profiles.items()}
        columns = list(dict.fromkeys([*self.keep, *self.drop, *(c for rule in rules.values() for c in rule)]))
        self._require(dataset, columns)
        needed = [*columns, *([self.source_column] if rules else [])]
        if not needed:
            return np.ones(dataset.num_rows, dtype=bool), {}
        masks, reasons, start = [], {}, 0
        for shard in dataset.shards(list(dict.fromkeys(needed))):
            tests = [(name, condition, False, None) for name, condition in self.keep.items()]
            tests += [(name, condition, True, None) for name, condition in self.drop.items()]
            if rules:
                values = shard.column(self.source_column).to_pylist()
                owner = np.array([str(v) if str(v) in rules else OTHERS for v in values], dtype=object)
                for kind, bounds in rules.items():
                    tests += [(n, _condition(b), False, owner == kind) for n, b in bounds.items()]
            alive = np.ones(shard.num_rows, dtype=bool)
            for name, condition, unwanted, where in tests:
                failed = condition.met(shard.column(name), name) == unwanted
                failed &= alive if where is None else alive & where
                rows = np.flatnonzero(failed)
                wanted = "" if unwanted else f", wanted {condition.words}"
                for row, value in zip(rows.tolist(), shard.column(name).take(rows).to_pylist(), strict=True):
                    reasons[start + row] = f"{name} is {shown(value)}{wanted}"
                alive &= ~failed
            masks.append(alive)
            start += shard.num_rows
        return np.concatenate(masks) if masks else np.ones(0, dtype=bool), reasons

    def _require(self, dataset: Dataset, columns: list[str]) -> None:
        if self.shares or self.profiles:
            dataset.require(self.source_column)
        missing = [name for name in columns if name not in dataset.column_names]
        if missing:
            scored = missing[0].startswith("rule_")
            raise InputError(
                f"there is no tag {missing[0]!r} to mix by",
                where=self.name,
                expected=missing[0],
                found=", ".join(dataset.column_names),
                remedy="score the rows with signals.heuristic_rules first"
                if scored
                else suggest(missing[0], dataset.column_names),
            )

    def _cut(self, dataset: Dataset) -> Dataset:
        """The rows without the spans that `remove` names; those left too short are dropped."""
        dataset.require(*self.remove)
        builder = DatasetBuilder()
        gone = [name for name in self.remove if name in dataset.column_names]
        for shard in dataset.shards():
            ids = shard.column("id").to_pylist()
            before = string_column(shard, "text").to_pylist()
            found = spans_of(shard, self.remove)
            after = [
                replaced(text, spans, i) if spans else text
                for i, text, spans in zip(ids, before, found, strict=True)
            ]
            lost = np.array([sum(end - start for start, end, _ in spans) for spans in found], dtype=np.int64)
            words = np.zeros(len(ids), dtype=np.int64)
            touched = np.flatnonzero(lost)
            if len(touched):
                words[touched] = np.diff(hash_words([after[row] for row in touched]).bounds)
            keep = (lost == 0) | (words >= self.min_words)
            for row in np.flatnonzero(~keep).tolist():
                builder.drop(ids[row], f"{words[row]} words left after {lost[row]} characters were removed")
            place = shard.schema.get_field_index("text")
            table = shard.set_column(place, "text", pa.array(after, shard.schema.field(place).type))
            table = tokens_after(table, before, after)
            earlier = table.column(REMOVED).to_numpy() if REMOVED in table.column_names else 0
            # The spans were of the text before: they must not be applied to this one.
            table = table.drop_columns([*gone, *([REMOVED] if REMOVED in table.column_names else [])])
            builder.add_table(table.append_column(REMOVED, pa.array(lost + earlier)).filter(pa.array(keep)))
        return builder.finish()

    def _sampled(self, dataset: Dataset, tokens: np.ndarray) -> Sample:
        if not self.shares and self.budget is None:
            return Sample(np.ones(dataset.num_rows, dtype=bool), {}, None, {})
        names = [OTHERS] * dataset.num_rows
        if self.shares:
            names = [str(value) for value in dataset.column(self.source_column).to_pylist()]
        return sample(
            names,
            tokens,
            uniform(self.seed, dataset.ids()),
            self.shares,
            self.budget,
            self.max_weight,
            allow_short=self.allow_short,
            what=self.source_column,
            who=self.name,
        )


def _condition(bound: Bound) -> Condition:
    return Condition(min=bound[0], max=bound[1])


def _some_left(before: Dataset, after: Dataset) -> None:
    if after.num_rows:
        return
    reasons = Counter(after.dropped.column("reason").to_pylist()).most_common(3)
    raise InputError(
        "data.mix.tagged: no row is left",
        expected=f"some of {before.num_rows} rows",
        found="; ".join(f"{count} rows: {reason}" for reason, count in reasons) or "no rows came in",
        remedy="loosen the conditions, or look at the steps before this one",
    )


def _counts(stage: str, before: Dataset, after: Dataset, sizes: np.ndarray, left: np.ndarray) -> dict[str, Any]:
    """Rows and tokens of one stage; what came in is what was kept and what was dropped."""
    return {
        "stage": stage,
        "rows_in": before.num_rows,
        "rows_kept": after.num_rows,
        "rows_dropped": after.dropped.num_rows,
        "tokens_in": int(sizes.sum()),
        "tokens_kept": int(left.sum()),
    }
