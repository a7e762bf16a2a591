"""The steps of one arm as a checked graph: methods built, references resolved, `foreach` unrolled.

Building a graph computes nothing and reads no data. A step's references name earlier steps, sources or models,
so there are no cycles.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tutelage.core import discovery
from tutelage.core.card import Card
from tutelage.core.errors import ConfigError, unknown
from tutelage.core.method import Forecaster, Method
from tutelage.runs.arms import all_arms
from tutelage.runs.components import build_method, component_inputs
from tutelage.runs.recipe import Recipe, Step

GIVES = {
    "Scorer": "dataset",
    "Transform": "dataset",
    "Writer": "files",
    "Adapter": "model",
    "Trainer": "model",
    "Task": "result",
    "Forecaster": "result",
}
NEEDS_ROWS = ("Scorer", "Transform", "Writer", "Trainer", "Task", "Forecaster")
NEEDS_MODEL = ("Adapter", "Trainer", "Task")
# A step's `model:` answers these inputs of a card.
MAIN_MODEL = ("model", "base")


@dataclass(frozen=True)
class Node:
    """One step ready to run. `inputs` values are names, lists of names, or built components; `evaluators` are
    (built Task, name of its rows)."""

    name: str
    step: Step
    method: Method
    card: Card
    rows: tuple[str, ...]
    model: str | None
    inputs: dict[str, Any]
    evaluators: dict[str, tuple[Method, str]]

    @property
    def gives(self) -> str:
        """dataset | model | result | files."""
        return GIVES[self.card.kind]

    @property
    def references(self) -> tuple[str, ...]:
        """Every name this step reads."""
        named = [value for value in self.inputs.values() if not isinstance(value, Method)]
        flat = [name for value in named for name in (value if isinstance(value, list) else [value])]
        watched = [rows for _, rows in self.evaluators.values()]
        return (*self.rows, *([self.model] if self.model else []), *flat, *watched)


@dataclass(frozen=True)
class Graph:
    """The nodes of one arm in the order of the recipe."""

    recipe: Recipe
    nodes: dict[str, Node] = field(default_factory=dict)

    def ancestors(self, names: Iterable[str]) -> list[str]:
        """Steps that `names` need, themselves included, in order; sources and models are left out."""
        wanted: set[str] = set()
        waiting = [name for name in names if name in self.nodes]
        while waiting:
            name = waiting.pop()
            if name not in wanted:
                wanted.add(name)
                waiting += [other for other in self.nodes[name].references if other in self.nodes]
        return [name for name in self.nodes if name in wanted]

    def of_kind(self, kind: str) -> list[str]:
        """Names of the steps of one kind."""
        return [name for name, node in self.nodes.items() if node.card.kind == kind]

    def model_side(self, task: str) -> list[str]:
        """What the measured system costs: the steps behind a Task's model, not those behind its data only.

        A Task without a model measures what its rows hold: the steps behind them.
        """
        return self.ancestors(self._measured(task))

    def data_side(self, task: str) -> list[str]:
        """The steps behind the rows a Task measures on (and its other inputs)."""
        measured = self._measured(task)
        return self.ancestors(name for name in self.nodes[task].references if name not in measured)

    def _measured(self, task: str) -> tuple[str, ...]:
        node = self.nodes[task]
        return (node.model,) if node.model else node.rows


def build_graph(recipe: Recipe, arm: str | None = None) -> Graph:
    """The graph of the recipe as written, or of one of its arms."""
    changes: Mapping[str, Mapping[str, Any]] = all_arms(recipe)[arm] if arm is not None else {}
    known = [step.name for step in recipe.steps]
    for name in changes:
        if name not in known:
            what = f"arm {arm!r} changes a step that does not exist"
            raise unknown(what, recipe.where("arms", arm or "", name), name, known)
    graph = Graph(recipe)
    kinds: dict[str, str] = dict.fromkeys(recipe.sources, "dataset") | dict.fromkeys(recipe.models, "model")
    families: dict[str, list[tuple[Any, str]]] = {}
    for number, step in enumerate(recipe.steps):
        path: tuple[str | int, ...] = ("steps", number)
        if step.name in kinds or step.name in families:
            raise ConfigError(
                f"the name {step.name!r} is used twice",
                where=recipe.where(*path, "name"),
                expected="a name that no source, model or earlier step has",
                found=step.name,
                remedy="give every step its own name",
            )
        if step.name in changes:
            step = _changed(recipe, step, changes[step.name], arm or "")
            path = ("arms", arm or "", step.name)
        if step.foreach is None:
            _add(graph, step.name, step, kinds, families, {}, path)
            continue
        families[step.name] = []
        for value in step.foreach.over:
            name = f"{step.name}[{value}]"
            _add(graph, name, step, kinds, families, {step.foreach.as_: value}, path)
            families[step.name].append((value, name))
    return graph


def _changed(recipe: Recipe, step: Step, change: Mapping[str, Any], arm: str) -> Step:
    path = recipe.where("arms", arm, step.name)
    if not isinstance(change, Mapping):
        raise ConfigError(
            "an arm gives fields of a step",
            where=path,
            expected="{field: value}",
            found=change,
            remedy="write {} for a step that stays as it is",
        )
    if "name" in change or "foreach" in change:
        raise ConfigError(
            "an arm cannot rename or multiply a step",
            where=path,
            expected="use, from, model, inputs or fields of the method",
            found=", ".join(key for key in ("name", "foreach") if key in change),
            remedy="leave it out of the arm",
        )
    try:
        return step.merged(change)
    except ValueError as error:
        expected, found = "keys and values that the step could have", str(error).splitlines()[0]
        raise ConfigError(
            "an arm's change is not valid",
            where=path,
            expected=expected,
            found=found,
            remedy="write it as it would stand in the step",
        ) from None


def _add(
    graph: Graph,
    name: str,
    step: Step,
    kinds: dict[str, str],
    families: Mapping[str, list[tuple[Any, str]]],
    values: Mapping[str, Any],
    path: tuple[str | int, ...],
) -> None:
    recipe = graph.recipe
    card = found_card(recipe, step.use, path)
    if card.kind not in GIVES:
        remedy = "readers belong under sources" if card.kind == "Reader" else "give it as a field of another step"
        raise ConfigError(
            f"{step.use} is no step of its own",
            where=recipe.where(*path, "use"),
            expected="one of " + ", ".join(GIVES),
            found=f"a {card.kind}",
            remedy=remedy,
        )

    def resolve(given: Any, key: str) -> list[str]:
        given = _filled(given, values)
        if not isinstance(given, str):
            raise ConfigError(
                "a reference is a name",
                where=recipe.where(*path, key),
                expected="the name of an earlier step, a source or a model",
                found=repr(given),
                remedy="write the name alone",
            )
        if given in families:
            same = [instance for value, instance in families[given] if value in values.values()]
            return same[:1] or [instance for _, instance in families[given]]
        if given not in kinds:
            what = f"{given!r} is not an earlier step, a source or a model"
            raise unknown(what, recipe.where(*path, key), given, [*kinds, *families])
        return [given]

    rows = tuple(found for given in step.from_ for found in resolve(given, "from"))
    model = resolve(step.model, "model") if step.model is not None else []
    if len(model) > 1:
        raise ConfigError(
            "a step has one model",
            where=recipe.where(*path, "model"),
            expected="one name",
            found=", ".join(model),
            remedy="run the step once for each with `foreach`",
        )
    # A forecaster reads points: rows, or results of earlier steps.
    points = "result" if card.kind == "Forecaster" and rows and kinds[rows[0]] == "result" else "dataset"
    for reference in rows:
        _expect(recipe, kinds, reference, points, (*path, "from"))
    for reference in model:
        _expect(recipe, kinds, reference, "model", (*path, "model"))
    inputs: dict[str, Any] = {}
    for key, given in step.inputs.items():
        given = _filled(given, values)
        if isinstance(given, Mapping):
            if not isinstance(given.get("use"), str):
                raise ConfigError(
                    "an input is a name, a list of names, or {use: method}",
                    where=recipe.where(*path, "inputs", key),
                    expected="use: the name of a method",
                    found=given,
                    remedy="add `use`, or give the name of a step, source or model",
                )
            inputs[key] = build_method(
                given["use"],
                {k: v for k, v in given.items() if k != "use"},
                place_below(recipe, *path, "inputs", key),
            )
        elif isinstance(given, list):
            inputs[key] = [found for item in given for found in resolve(item, f"inputs.{key}")]
        else:
            found = resolve(given, f"inputs.{key}")
            inputs[key] = found[0] if len(found) == 1 else found
    method = build_method(step.use, _filled(step.fields, values), place_below(recipe, *path))
    evaluators = {}
    for key, watch in step.evaluators.items():
        inner = (*path, "evaluators", key)
        if found_card(recipe, watch.use, inner).kind != "Task":
            raise ConfigError(
                "an evaluator is a Task",
                where=recipe.where(*inner),
                expected="evaluation.*",
                found=watch.use,
                remedy="`tutelage methods --room evaluation` lists them",
            )
        watched = resolve(watch.from_, f"evaluators.{key}.from")
        _expect(recipe, kinds, watched[0], "dataset", (*inner, "from"))
        task = build_method(watch.use, watch.fields, place_below(recipe, *inner))
        evaluators[key] = (task, watched[0])
    node = Node(name, step, method, card, rows, model[0] if model else None, inputs, evaluators)
    _check_node(recipe, node, path)
    graph.nodes[name] = node
    kinds[name] = node.gives


def _check_node(recipe: Recipe, node: Node, path: tuple[str | int, ...]) -> None:
    kind, step = node.card.kind, node.step
    where = recipe.where(*path)
    # A Task whose card reads nothing brings its own rows (bundled probes, a task file).
    if kind in NEEDS_ROWS and not node.rows and (kind != "Task" or node.card.reads):
        raise _lacks(f"step {node.name!r} needs rows", where, "from: a dataset", "from", [])
    if node.model is None and _needs_model(node.card):
        raise _lacks(f"step {node.name!r} needs a model", where, "model: a name", "model", [])
    for key, owner, written, what in (
        ("evaluators", "Trainer", bool(node.evaluators), "only training has evaluators"),
        ("to", "Writer", step.to is not None, "only a writer has `to`"),
        ("at", "Forecaster", step.at is not None, "only a forecaster of one point has `at`"),
    ):
        if written and (kind != owner or (key == "at" and not _takes_at(node.method))):
            raise ConfigError(
                what,
                where=recipe.where(*path, key),
                expected=f"`{key}` with a {owner}",
                found=f"{step.use}, a {kind}",
                remedy=f"leave `{key}` out",
            )
    if _takes_at(node.method) and step.at is None:
        raise _lacks(f"step {node.name!r} needs a point", where, "at: the point of the forecast", "at", [])
    known = {**node.card.inputs, **component_inputs(node.method)}
    plain = {name.rstrip("?") for name in known}
    for name in node.inputs:
        if name not in plain:
            raise unknown(f"{step.use} takes no input {name!r}", recipe.where(*path, "inputs", name), name, plain)
    given = {*node.inputs, *(MAIN_MODEL if node.model else ())}
    for name, purpose in known.items():
        if not name.endswith("?") and name not in given:
            what, key = f"step {node.name!r} lacks the input {name!r}", f"inputs: {{{name}: ...}}"
            raise _lacks(what, where, f"{name}: {purpose}", key, node.inputs)


def _takes_at(method: Method) -> bool:
    return isinstance(method, Forecaster) and method.takes_at


def _needs_model(card: Card) -> bool:
    # A Task that asks for none measures what the rows hold (labels against labels); an Adapter makes its own.
    return card.kind in NEEDS_MODEL and bool(set(MAIN_MODEL) & set(card.inputs))


def _lacks(what: str, where: str, expected: str, key: str, given: Iterable[str]) -> ConfigError:
    return ConfigError(
        what,
        where=where,
        expected=expected,
        found=", ".join(given) or "none",
        remedy=f"add `{key}` to the step; see `tutelage explain` of its method",
    )


def _expect(
    recipe: Recipe,
    kinds: Mapping[str, str],
    name: str,
    kind: str,
    path: tuple[str | int, ...],
) -> None:
    if kinds[name] != kind:
        fitting = [other for other, found in kinds.items() if found == kind]
        raise ConfigError(
            f"{name!r} is not a {kind}",
            where=recipe.where(*path),
            expected=f"one of {', '.join(fitting) or 'none so far'}",
            found=f"a {kinds[name]}",
            remedy=f"name a {kind}" if fitting else f"add a {kind} before this step",
        )


def _filled(value: Any, values: Mapping[str, Any]) -> Any:
    """`value` with every whole string `"$name"` replaced by the loop's value."""
    if isinstance(value, str):
        return values.get(value[1:], value) if value.startswith("$") else value
    if isinstance(value, Mapping):
        return {key: _filled(item, values) for key, item in value.items()}
    return [_filled(item, values) for item in value] if isinstance(value, list) else value


def place_below(recipe: Recipe, *path: str | int) -> Callable[[str], str]:
    """Names the place of a field below `path`."""
    return lambda field: recipe.where(*path, *(field.split(".") if field else ()))


def found_card(recipe: Recipe, name: str, path: tuple[str | int, ...]) -> Card:
    """The card of a method that the recipe names at `path`."""
    try:
        return discovery.find(name)
    except ConfigError as error:
        raise ConfigError(
            error.what,
            where=recipe.where(*path, "use"),
            expected=error.expected,
            found=error.found,
            remedy=error.remedy,
        ) from None
