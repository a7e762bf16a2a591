"""`--limit N`: the same recipe, small enough to run in seconds; every step runs, no figure means anything."""

from collections.abc import Mapping
from typing import Any

from tutelage.core import discovery
from tutelage.core.dataset import Dataset
from tutelage.core.dataset_builder import DatasetBuilder
from tutelage.core.records import Budget
from tutelage.runs.recipe import Recipe, Step

TOKENS_PER_ROW = 64
# A training budget is met to the token: less than a prompt would leave nothing to learn.
LEAST_TOKENS = 1024
SECONDS = 10.0


def limited(recipe: Recipe, rows: int) -> Recipe:
    """At most `rows` rows and 64 tokens per row (or 1024) of budget, one seed, two rounds, a grid of two."""
    changes: dict[str, Any] = {"steps": [_small_step(step, rows) for step in recipe.steps]}
    changes["arms"] = {
        arm: {step: _small(fields, rows) for step, fields in steps.items()} for arm, steps in recipe.arms.items()
    }
    if recipe.repeat is not None:
        changes["repeat"] = recipe.repeat.model_copy(update={"times": min(recipe.repeat.times, 2)})
    if recipe.compare is not None:
        update: dict[str, Any] = {"seeds": recipe.compare.seeds[:1], "first_seeds": {}, "budget": None}
        tune = recipe.compare.tune
        if tune is not None:
            budget = Budget(**_small_budget(tune.budget.model_dump(exclude_none=True), rows))
            update["tune"] = tune.model_copy(update={"grid": tune.grid[:2], "budget": budget})
        changes["compare"] = recipe.compare.model_copy(update=update)
    return recipe.changed(**changes)


def first_rows(dataset: Dataset, rows: int) -> Dataset:
    """The first `rows` rows, in memory, with the report of how they were made (what was planted stands there)."""
    if dataset.num_rows <= rows:
        return dataset
    builder = DatasetBuilder()
    builder.add_table(dataset.take(list(range(rows))))
    return builder.finish(dataset.report)


def _small_step(step: Step, rows: int) -> Step:
    fields = _small(step.fields, rows)
    # A small budget may still be more than a small corpus holds.
    if "budget" in fields and "allow_short" in discovery.load(step.use).model_fields:
        fields["allow_short"] = True
    return step.model_copy(update={"fields": fields})


def _small(value: Any, rows: int) -> Any:
    if isinstance(value, Mapping):
        return {
            key: _small_budget(item, rows) if key == "budget" and isinstance(item, Mapping) else _small(item, rows)
            for key, item in value.items()
        }
    return [_small(item, rows) for item in value] if isinstance(value, list) else value


def _small_budget(given: Mapping[str, Any], rows: int) -> dict[str, Any]:
    if any(isinstance(value, str) and value.startswith("$") for value in given.values()):
        # A loop's value: other steps may run over the same values, so they stay.
        return dict(given)
    budget = Budget(**given)
    small: dict[str, Any] = {}
    if budget.rows is not None:
        small["rows"] = min(budget.rows, rows)
    if budget.tokens is not None or budget.flops is not None:
        most = max(rows * TOKENS_PER_ROW, LEAST_TOKENS)
        small["tokens"] = min(budget.tokens or most, most)
    if budget.seconds is not None:
        small["seconds"] = min(budget.seconds, SECONDS)
    return small
