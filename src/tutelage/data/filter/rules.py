"""Keep the rows whose numeric columns lie inside bounds; every dropped row says which rule it broke.

A rule is (column, min, max): keep if min <= value <= max. A profile is a list of rules with the thresholds of a
published filter over the columns of `signals.heuristic_rules`; `keep` adds rules or replaces those of the
profile column by column. Rules are tried in order and the first that fails is the reason. A row without a value
for a rule is dropped. The C4 brace rule deletes all code and JSON: use profile "c4" for web prose only. Two rules
depend on your language and your words and are added with `keep`: FineWeb's language score (`language_score`, at
least 0.65) and C4's list of bad words (`rule_bad_words`, at most 0).
"""

import numpy as np
from pydantic import Field, model_validator

from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError, suggest
from tutelage.core.method import Inputs, Transform
from tutelage.core.records import Record
from tutelage.data.filter._profiles import PROFILES, Bound

CARD = {
    "name": "data.filter.rules",
    "paper": {
        "title": "Scaling Language Models: Methods, Analysis & Insights from Training Gopher",
        "identifier": "arXiv:2112.11446",
    },
    "summary": "Keeps rows whose columns lie inside the bounds of Gopher, C4, FineWeb, code or your own.",
    "reads": ["rule_*?"],
    "cost": "one comparison per rule and row",
    "baseline": "data.select.random",
    "headline": "removes junk from web text; on clean corpora mostly removes good rows",
    "version": 1,
}


class Bounds(Record):
    """Inclusive bounds on one column; at least one of them."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _some_bound(self) -> "Bounds":
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min must not be larger than max")
        return self


class Rules(Transform):
    """`profile` "gopher", "c4", "mc4", "fineweb", "code" or "none"; `keep` maps a column to its bounds."""

    profile: str = "gopher"
    keep: dict[str, Bounds] = Field(default={})

    @model_validator(mode="after")
    def _known_profile(self) -> "Rules":
        if self.profile not in PROFILES:
            raise ConfigError(
                f"there is no filter profile {self.profile!r}",
                where="profile",
                expected=", ".join(PROFILES),
                remedy=suggest(self.profile, PROFILES),
            )
        return self

    def rules(self) -> dict[str, Bound]:
        """All rules in the order in which they are tried."""
        return PROFILES[self.profile] | {c: (b.min, b.max) for c, b in self.keep.items()}

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        rules = self.rules()
        if not rules:
            raise ConfigError(f"{self.name}: there is no rule", where="keep", expected="a profile or some bounds")
        mask = np.ones(dataset.num_rows, dtype=bool)
        reasons: dict[int, str] = {}
        failed = {}
        for column, (low, high) in rules.items():
            values = self._values(dataset, column)
            inside = (values >= (-np.inf if low is None else low)) & (values <= (np.inf if high is None else high))
            failed[column] = int((~inside).sum())
            bounds = " and ".join(
                f"{word} {bound:g}" for word, bound in (("at least", low), ("at most", high)) if bound is not None
            )
            for row in np.flatnonzero(mask & ~inside).tolist():
                value = "missing" if np.isnan(values[row]) else f"{values[row]:.4g}"
                reasons[row] = f"{column} is {value}, wanted {bounds}"
            mask &= inside
        report = {
            "method": self.name,
            "profile": self.profile,
            "rows_in": dataset.num_rows,
            "rows_kept": int(mask.sum()),
            "rows_failing_each_rule": failed,
        }
        return dataset.keep(mask, reasons, report)

    def _values(self, dataset: Dataset, column: str) -> np.ndarray:
        if column not in dataset.column_names:
            raise InputError(
                f"there is no column {column!r} to filter by",
                where=self.name,
                expected=column,
                found=", ".join(dataset.column_names),
                remedy="score the rows with signals.heuristic_rules first"
                if column in PROFILES[self.profile]
                else suggest(column, dataset.column_names),
            )
        return dataset.numpy(column).astype(np.float64)
