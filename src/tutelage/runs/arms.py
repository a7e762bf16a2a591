"""The arms of a comparison as changes of steps, with the baseline arm made from a method's name where asked."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tutelage.core import discovery
from tutelage.core.errors import ConfigError, suggest, unknown
from tutelage.runs.recipe import Recipe, Step

if TYPE_CHECKING:
    from tutelage.runs.graph import Graph

Changes = dict[str, dict[str, Any]]


def all_arms(recipe: Recipe) -> dict[str, Changes]:
    """Arm name -> {step: {field: value}}; empty without `compare` and `arms`.

    A `baseline` that is a method's name adds the arm in which it takes the place of the step whose card names it;
    without written arms the recipe as written is the other arm, called after the method it replaces.
    """
    arms: dict[str, Changes] = {name: dict(changes or {}) for name, changes in recipe.arms.items()}
    compare = recipe.compare
    if compare is None or compare.baseline in arms:
        return arms
    cards = discovery.cards()
    if compare.baseline not in cards:
        raise unknown(
            f"the baseline {compare.baseline!r} is neither an arm nor a method",
            recipe.where("compare", "baseline"),
            compare.baseline,
            [*arms, *cards],
            expected="an arm, or a method that is the baseline of one here",
        )
    step = _replaced_step(recipe, compare.baseline)
    if not arms:
        arms[step.use] = {}
    arms[compare.baseline] = {step.name: _replacement(recipe, step, compare.baseline)}
    return arms


def check_compare(recipe: Recipe, main: "Graph", graphs: Mapping[str, "Graph"]) -> None:
    """Raise ConfigError for whatever in `compare` and `gates` names something that is not there."""
    compare, tasks = recipe.compare, main.of_kind("Task")
    if compare is None:
        if recipe.arms:
            raise ConfigError(
                "arms without `compare` are never run",
                where=recipe.where("arms"),
                expected="compare: {baseline: an arm}",
                found="arms alone",
                remedy="add compare:",
            )
        for number, gate in enumerate(recipe.gates):
            # What was not measured cannot be compared item by item, but it can be bounded.
            bounded = [*tasks, *main.of_kind("Forecaster")]
            for key, named, known in (("step", gate.step, bounded), ("against", gate.against, tasks)):
                if named not in known and (key == "step" or named is not None):
                    raise unknown(
                        f"a gate's {key} is a Task step", recipe.where("gates", number, key), named, known
                    )
            if gate.arm is not None:
                raise ConfigError(
                    "a gate names an arm, but there is no compare",
                    where=recipe.where("gates", number, "arm"),
                    expected="a gate about a step",
                    found=gate.arm,
                    remedy="leave `arm` out, or add compare:",
                )
        return
    metric = metric_step(recipe, main)
    for key, named in (("placebo", compare.placebo), ("oracle", compare.oracle)):
        if named is not None and named not in graphs:
            raise unknown(f"{key} names no arm", recipe.where("compare", key), named, graphs)
    for name, count in compare.first_seeds.items():
        if name not in graphs or name == compare.baseline:
            raise unknown(
                "first_seeds names arms that may have fewer runs",
                recipe.where("compare", "first_seeds", name),
                name,
                graphs,
                expected="an arm other than the baseline",
            )
        if name in (compare.placebo, compare.oracle) and name in compare.single:
            raise ConfigError(
                "placebo and oracle need more than one seed",
                where=recipe.where("compare", "first_seeds", name),
                expected="at least 2, better 3",
                found=count,
                remedy="raise it, or leave the arm out of compare.first_seeds",
            )
        if count > len(compare.seeds):
            raise ConfigError(
                "an arm cannot have more seeds than there are",
                where=recipe.where("compare", "first_seeds", name),
                expected=f"at most {len(compare.seeds)}",
                found=count,
                remedy="add seeds to compare.seeds",
            )
    for number, pair in enumerate(compare.primary or ()):
        if set(pair) & compare.single:
            raise ConfigError(
                "a primary comparison needs more than one seed of both arms",
                where=recipe.where("compare", "primary", number),
                expected="arms that run with several seeds",
                found=", ".join(pair),
                remedy="give the arm more in compare.first_seeds, or take it out there",
            )
        for name in pair:
            if name not in graphs:
                what = "a primary comparison names no arm"
                raise unknown(what, recipe.where("compare", "primary", number), name, graphs)
        if pair[0] == pair[1]:
            raise ConfigError(
                "an arm is compared with itself",
                where=recipe.where("compare", "primary", number),
                expected="two arms",
                found=", ".join(pair),
                remedy="name another arm, or leave the pair out",
            )
    for number, name in enumerate(compare.also):
        if name not in tasks:
            raise unknown("`also` names Task steps", recipe.where("compare", "also", number), name, tasks)
    _check_tune(recipe, main, metric)
    if compare.one_factor:
        _check_one_factor(recipe, graphs, metric)
    for number, gate in enumerate(recipe.gates):
        measured = (metric, *compare.also)
        if gate.step is not None and gate.step not in measured:
            raise ConfigError(
                "a gate's step is measured in every arm",
                where=recipe.where("gates", number, "step"),
                expected="one of " + ", ".join(measured),
                found=gate.step,
                remedy=f"add it to compare.also, or {suggest(gate.step, measured)}",
            )
        for key, named in (("arm", gate.arm), ("against", gate.against)):
            if named is not None and named not in graphs:
                raise unknown(f"a gate's {key} is an arm", recipe.where("gates", number, key), named, graphs)


def metric_step(recipe: Recipe, main: "Graph") -> str:
    """The Task step that decides: the one named, or the only one there is."""
    assert recipe.compare is not None
    tasks, named = main.of_kind("Task"), recipe.compare.metric_step
    if named is None and len(tasks) == 1:
        return tasks[0]
    if named is None or named not in tasks:
        what = "compare needs the Task step that decides"
        raise unknown(what, recipe.where("compare", "metric_step"), named or "none", tasks)
    return named


def _check_tune(recipe: Recipe, main: "Graph", metric: str) -> None:
    assert recipe.compare is not None
    tune = recipe.compare.tune
    if tune is None:
        return
    trainers, tasks = main.of_kind("Trainer"), main.of_kind("Task")
    if tune.step not in trainers:
        raise unknown("tune.step is a training step", recipe.where("compare", "tune", "step"), tune.step, trainers)
    if tune.on not in tasks:
        raise unknown("tune.on is a Task step", recipe.where("compare", "tune", "on"), tune.on, tasks)
    same_rows = main.nodes[tune.on].rows == main.nodes[metric].rows
    if tune.on == metric or same_rows or tune.on in recipe.compare.also:
        raise ConfigError(
            "what is tuned on the data that decides proves nothing",
            where=recipe.where("compare", "tune", "on"),
            expected="a Task step on rows that no arm is judged by",
            found=f"{tune.on} measures the same rows as {metric}" if same_rows else tune.on,
            remedy="split off development data for tune.on",
        )
    node = main.nodes[tune.step]
    first = tune.field.partition(".")[0]
    known = type(node.method).model_fields
    if first not in known:
        where = recipe.where("compare", "tune", "field")
        raise unknown(f"{node.step.use} has no field {first!r}", where, first, known)
    from tutelage.runs.components import build_method

    for number, value in enumerate(tune.grid):
        place = _at(recipe.where("compare", "tune", "grid", number))
        build_method(node.step.use, with_field(node.step.fields, tune.field, value), place)


def _check_one_factor(recipe: Recipe, graphs: Mapping[str, "Graph"], metric: str) -> None:
    """Raise ConfigError for an arm that differs from the baseline in more than one step."""
    compare = recipe.compare
    assert compare is not None
    written = {name: {node.name: node.step for node in graph.nodes.values()} for name, graph in graphs.items()}
    full = written[compare.baseline]
    for arm, steps in written.items():
        behind = [graphs[arm].nodes[name] for name in graphs[arm].model_side(metric)]
        learns = any(n.card.kind == "Trainer" or (n.card.kind == "Adapter" and n.rows) for n in behind)
        if arm in (compare.baseline, compare.placebo, compare.oracle) or not learns:
            continue
        # A step may be multiplied by `foreach`: its instances are one step.
        changed = sorted({step.name for name, step in steps.items() if step != full.get(name)})
        if len(changed) > 1:
            raise ConfigError(
                "an arm changes more than one factor",
                where=recipe.where("arms", arm),
                expected=f"one step that differs from {compare.baseline}",
                found=", ".join(changed),
                remedy="make an arm of each change, or leave out compare.one_factor",
            )


def _at(where: str) -> Callable[[str], str]:
    return lambda field: where


def with_field(fields: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """`fields` with the value at the dotted `path` set."""
    first, _, rest = path.partition(".")
    inner = fields.get(first)
    return {
        **fields,
        first: with_field(inner if isinstance(inner, Mapping) else {}, rest, value) if rest else value,
    }


def _replaced_step(recipe: Recipe, baseline: str) -> Step:
    """The last step whose method has `baseline` among its baselines (a baseline may have one itself)."""
    cards = discovery.cards()
    for step in reversed(recipe.steps):
        card = discovery.find(step.use)
        seen: set[str] = set()
        while card.baseline in cards and card.baseline not in seen:
            if card.baseline == baseline:
                return step
            seen.add(card.baseline)
            card = cards[card.baseline]
    raise ConfigError(
        f"{baseline} is the baseline of no step",
        where=recipe.where("compare", "baseline"),
        expected="a method named as `baseline` by the card of a step",
        found=baseline,
        remedy="write the arms out: arms: {name: {step: {use: ...}}}",
    )


def _replacement(recipe: Recipe, step: Step, baseline: str) -> dict[str, Any]:
    """The change that puts `baseline` in the step's place, with the fields both know.

    Scores that only the replaced method reads are not computed for the baseline, nor charged to it: its rows come
    from before the scorers whose columns it does not read (`n_tokens`, which budgets need, is kept).
    """
    cls, card = discovery.load(baseline), discovery.find(baseline)
    fields = {key: value for key, value in step.fields.items() if key in cls.model_fields}
    reads = {name.rstrip("?") for name in card.reads} | {"n_tokens"}
    steps = {other.name: other for other in recipe.steps}
    rows = []
    for name in step.from_:
        while name in steps and len(steps[name].from_) == 1:
            scorer = discovery.find(steps[name].use)
            if scorer.kind != "Scorer" or reads & set(scorer.writes):
                break
            name = steps[name].from_[0]
        rows.append(name)
    dropped = {key: None for key in step.inputs if key not in {n.rstrip("?") for n in card.inputs}}
    return {"use": baseline, "from": rows, "inputs": dropped, **fields}
