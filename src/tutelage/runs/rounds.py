"""`repeat`: the steps once, or round after round with names carried over."""

from dataclasses import replace

from tutelage.runs.engine import Engine
from tutelage.runs.graph import Graph
from tutelage.runs.values import Context, Value


def run_rounds(engine: Engine, graph: Graph, names: list[str], context: Context) -> dict[str, Value]:
    """The steps `names`, once or as often as `repeat` says; returns the last round's values.

    In round r a carried name stands for the step's value of round r - 1. Steps that nothing carried reaches are
    the same in every round and come from the store.
    """
    repeat = engine.recipe.repeat
    if repeat is None:
        return engine.run(graph, names, context)
    needed = set(repeat.carry.values()) | ({repeat.until.metric} if repeat.until else set())
    wanted = graph.ancestors([*names, *needed])
    carried: dict[str, Value] = {}
    values: dict[str, Value] = {}
    for number in range(repeat.times):
        engine.emit({"event": "round", "round": number, "of": repeat.times, "arm": context.arm})
        values = engine.run(graph, wanted, replace(context, round=number), carried)
        carried = {name: values[step] for name, step in repeat.carry.items()}
        if repeat.until is not None:
            estimate = values[repeat.until.metric].load().estimate
            below, above = repeat.until.below, repeat.until.above
            if (below is not None and estimate < below) or (above is not None and estimate > above):
                break
    return values
