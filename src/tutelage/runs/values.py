"""Values: what sources, models and steps come to, with content hash, cost and a way to load it.

`charges` maps the key of every step behind a value, itself included, to that step's own cost as if nothing had
been cached; so the cost of two values that share a step counts it once.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tutelage.core import discovery
from tutelage.core.dataset import Dataset
from tutelage.core.dataset_builder import DatasetBuilder
from tutelage.core.errors import InputError
from tutelage.core.fingerprint import code_hash, configuration, libraries
from tutelage.core.method import Method
from tutelage.core.records import Budget, Cost
from tutelage.core.store import Artifact
from tutelage.runs.graph import Node


@dataclass
class Value:
    """The outcome of a source, a model or a step. `root` (models): content of the model below its adapter;
    `allow_remote_code`: a model of the recipe behind it may run code that it brought; `behind`: what it was made
    from."""

    name: str
    kind: str
    content: str
    load: Callable[[], Any]
    artifact: Artifact | None = None
    charges: dict[str, Cost] = field(default_factory=dict)
    rows: int | None = None
    root: str = ""
    allow_remote_code: bool = False
    behind: "Sequence[Value]" = ()

    @property
    def as_if(self) -> Cost:
        """Cost of making it with everything upstream."""
        return sum(self.charges.values(), Cost())


# (cost of everything upstream, share of the rounds up to this one) -> the step's budget.
BudgetRule = Callable[[Cost, float], Budget]


@dataclass(frozen=True)
class Context:
    """Which run of the recipe a step belongs to.

    `seed` None: the recipe's own. `budgets` replace a step's budget, `overrides` its fields; `fixed` names steps
    whose draws stay the same whatever the seed.
    """

    arm: str | None = None
    seed: int | None = None
    round: int = 0
    budgets: Mapping[str, BudgetRule] = field(default_factory=dict)
    fixed: frozenset[str] = frozenset()
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Handed:
    """What a step is handed: `inputs` values are values, lists of them or built components."""

    rows: Sequence[Value]
    model: Value | None
    inputs: Mapping[str, Any]
    watched: Mapping[str, tuple[Method, Value]]

    def values(self) -> list[Value]:
        """All of them, flat."""
        return flat([*self.rows, self.model, *self.inputs.values(), *(rows for _, rows in self.watched.values())])

    @property
    def charges(self) -> dict[str, Cost]:
        """Costs of everything upstream, by key; rows that are only watched are measurement and not charged."""
        return charges_of([*self.rows, self.model, *self.inputs.values()])

    @property
    def of(self) -> str | None:
        """Content of the base model that does the work: what a step costs depends on it first of all."""
        models = [self.model, *flat(self.inputs.values())]
        return next((value.root for value in models if value is not None and value.root), None)

    def contents(self) -> dict[str, Any]:
        """The content hashes that enter a step's cache key."""
        return {
            "rows": [value.content for value in self.rows],
            "model": self.model.content if self.model else None,
            "inputs": {name: _content(value) for name, value in self.inputs.items()},
            "watched": {name: [_content(task), rows.content] for name, (task, rows) in self.watched.items()},
        }


def handed_to(node: Node, look: Callable[[str], Value]) -> Handed:
    """The values that `node` refers to."""

    def found(given: Any) -> Any:
        if isinstance(given, Method):
            return given
        return [look(name) for name in given] if isinstance(given, list) else look(given)

    return Handed(
        [look(name) for name in node.rows],
        look(node.model) if node.model else None,
        {name: found(given) for name, given in node.inputs.items()},
        {name: (task, look(rows)) for name, (task, rows) in node.evaluators.items()},
    )


def charges_of(values: Iterable[Any]) -> dict[str, Cost]:
    """Costs behind several values, shared steps once."""
    return {key: cost for value in flat(values) for key, cost in value.charges.items()}


def flat(values: Iterable[Any]) -> list[Value]:
    """Values and lists of values as one list; anything else is left out."""
    items = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return [value for value in items if isinstance(value, Value)]


def joined(node: Node, datasets: Sequence[Dataset]) -> Dataset:
    """The rows of several datasets one after another; raises InputError when two rows have one id."""
    if len(datasets) == 1:
        return datasets[0]
    builder = DatasetBuilder()
    try:
        for dataset in datasets:
            for table in dataset.shards():
                builder.add_table(table)
        return builder.finish()
    except InputError as error:
        raise InputError(
            error.what,
            where=f"step {node.name!r}, from {', '.join(node.rows)}: {error.where}",
            expected=error.expected,
            found=error.found,
            remedy=error.remedy,
        ) from None


def evaluator(task: Any, rows: Dataset, seed: int) -> Callable[[Any], dict[str, float]]:
    """A Task as the callable a trainer evaluates with."""

    def measure(model: Any) -> dict[str, float]:
        result = task.evaluate(model, rows, {"seed": seed, "model": model})
        return {result.metric: result.estimate}

    return measure


def _content(value: Any) -> Any:
    if isinstance(value, Method):
        card = discovery.find(value.name)
        code = code_hash(card.module)
        facts = {"version": card.version, "code": code, "libraries": libraries([card])}
        return {"use": value.name, "config": configuration(value), **facts}
    return [item.content for item in value] if isinstance(value, list) else value.content
