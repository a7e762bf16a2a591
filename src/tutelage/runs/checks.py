"""Checks of a recipe as a whole, before anything runs: sources, models, every arm's graph, comparison, rounds."""

import urllib.parse

from tutelage import __version__
from tutelage.core.errors import ConfigError, unknown
from tutelage.runs.arms import all_arms, check_compare
from tutelage.runs.components import build_method
from tutelage.runs.graph import Graph, build_graph, found_card, place_below
from tutelage.runs.recipe import Recipe


def check_recipe(recipe: Recipe) -> None:
    """Everything that can be known to be wrong before anything runs; raises ConfigError."""
    _check_version(recipe)
    for name, source in recipe.sources.items():
        card = found_card(recipe, source.use, ("sources", name))
        if card.kind != "Reader":
            raise ConfigError(
                "a source is read by a reader",
                where=recipe.where("sources", name, "use"),
                expected="data.read.*",
                found=source.use,
                remedy="make it a step that reads `from:` a source",
            )
        build_method(source.use, source.fields, place_below(recipe, "sources", name))
    for name, model in recipe.models.items():
        if not recipe.allow_remote and _is_remote(model.load):
            raise ConfigError(
                "a model outside this machine would be sent your text",
                where=recipe.where("models", name, "load"),
                expected="a model on this machine",
                found=model.load,
                remedy="write allow_remote: true into the recipe to permit it",
            )
    both = sorted(recipe.sources.keys() & recipe.models.keys())
    if both:
        raise ConfigError(
            "a name stands for a source and a model",
            where=recipe.where("models", both[0]),
            expected="a name of its own",
            found=both[0],
            remedy="rename one of them",
        )
    main = build_graph(recipe)
    _check_repeat(recipe, main)
    graphs = {arm: build_graph(recipe, arm) for arm in all_arms(recipe)}
    check_compare(recipe, main, graphs)


def _check_repeat(recipe: Recipe, graph: Graph) -> None:
    if recipe.repeat is None:
        return
    outside = {**dict.fromkeys(recipe.sources, "dataset"), **dict.fromkeys(recipe.models, "model")}
    for name, step in recipe.repeat.carry.items():
        where = recipe.where("repeat", "carry", name)
        if name not in outside:
            raise unknown("only a source or a model is carried", where, name, outside)
        if step not in graph.nodes:
            raise unknown(f"there is no step {step!r}", where, step, graph.nodes)
        if graph.nodes[step].gives != outside[name]:
            raise ConfigError(
                "a carried name changes its kind",
                where=where,
                expected=outside[name],
                found=graph.nodes[step].gives,
                remedy=f"carry a step that gives a {outside[name]}",
            )
    until = recipe.repeat.until
    if until is not None:
        where = recipe.where("repeat", "until")
        if (until.below is None) == (until.above is None):
            raise ConfigError(
                "`until` has exactly one of below, above",
                where=where,
                expected="below: a number, or above: a number",
                found="neither" if until.below is None else "both",
                remedy="give the one at which the rounds end",
            )
        if until.metric not in graph.of_kind("Task"):
            raise unknown("`until` names a Task step", where, until.metric, graph.of_kind("Task"))


def _is_remote(load: str) -> bool:
    parts = urllib.parse.urlsplit(load)
    return parts.scheme in ("http", "https") and parts.hostname not in ("localhost", "127.0.0.1", "::1")


def _check_version(recipe: Recipe) -> None:
    wanted = recipe.require_version
    if wanted is None:
        return

    def numbers(version: str) -> tuple[int, ...]:
        return tuple(int(part) for part in version.split(".") if part.isdigit())

    operator = ">=" if wanted.startswith(">=") else "=="
    bare = wanted.removeprefix(">=").removeprefix("==").strip()
    if not numbers(bare):
        raise ConfigError(
            "require_version is not a version",
            where=recipe.where("require_version"),
            expected=">=0.1",
            found=wanted,
            remedy="write a version, as `tutelage --version` prints it",
        )
    ours = numbers(__version__)
    fine = ours >= numbers(bare) if operator == ">=" else ours == numbers(bare)
    if not fine:
        raise ConfigError(
            "this recipe asks for another version of tutelage",
            where=recipe.where("require_version"),
            expected=wanted,
            found=__version__,
            remedy="install that version, or change require_version",
        )
