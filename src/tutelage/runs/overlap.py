"""A comparison is refused where what guided the choice, or the search, is among the rows that are reported on."""

from collections.abc import Iterator

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.text.duplicates import shared_ids
from tutelage.core.text.rows import text_rows
from tutelage.runs.engine import Engine
from tutelage.runs.graph import Graph
from tutelage.runs.values import Context

# Inputs of scorers that show what is wanted; others (`evaluation`, `negatives`) say what must be kept out.
GUIDES = ("reference", "positives", "queries")


def refuse_guides_among_reported(
    engine: Engine, graph: Graph, metric: str, on: str | None, context: Context
) -> None:
    """Raise InputError naming rows of the metric step `metric` that also guide the arm, or that its search (the
    step `on`) is measured on. Rows that a training makes are not looked at: it would have to run first."""
    reported = list(graph.nodes[metric].rows)
    guides = [(place, name) for place, name in _guides(graph, metric, on) if not _trained(graph, name)]
    if not guides or any(_trained(graph, name) for name in reported):
        return
    names = dict.fromkeys([*reported, *(name for _, name in guides)])
    values = engine.run(graph, graph.ancestors(names), context)
    rows = {name: (values[name] if name in values else engine.outside(name)) for name in names}
    told = [row for name in reported for row in _texts(rows[name].load())]
    for place, name in guides:
        shared = shared_ids(_texts(rows[name].load()), told)
        if shared:
            raise InputError(
                "rows that guide the choice are among the rows that are reported on",
                where=f"{place}, arm {context.arm}",
                expected=f"rows apart from those of step {metric}",
                found=f"{len(shared)} shared, the first {', '.join(map(repr, shared[:3]))}",
                remedy="split them first (data.split.by_group), or drop them (signals.ngram_overlap)",
            )


def _guides(graph: Graph, metric: str, on: str | None) -> Iterator[tuple[str, str]]:
    for step in graph.model_side(metric):
        for key in GUIDES:
            given = graph.nodes[step].inputs.get(key, [])
            for name in given if isinstance(given, list) else [given]:
                if isinstance(name, str):
                    yield f"steps.{step}.inputs.{key}", name
    if on is not None and on != metric:
        for name in graph.nodes[on].rows:
            yield f"compare.tune.on ({on})", name


def _trained(graph: Graph, name: str) -> bool:
    return any(graph.nodes[step].card.kind == "Trainer" for step in graph.ancestors([name]))


def _texts(rows: object) -> Iterator[tuple[str, str]]:
    """(id, text) of every row that has a text."""
    if isinstance(rows, Dataset):
        yield from ((identifier, text) for identifier, text in text_rows(rows) if text.strip())
