"""The stages behind a value, from the values themselves: what this run read and made on the way to it."""

from collections.abc import Iterable

from tutelage.core.lineage import Stage
from tutelage.core.records import Cost
from tutelage.runs.values import Value


def stages(values: Iterable[Value]) -> list[Stage]:
    """Every source and step that made rows behind `values`, themselves included, parents first."""
    found: dict[int, Stage] = {}
    waiting = [(value, False) for value in reversed(list(values))]
    while waiting:
        value, ready = waiting.pop()
        # By the value, not by its artifact: two steps that do the same share one.
        if value.kind != "dataset" or value.artifact is None or id(value) in found:
            continue
        if ready:
            parents = tuple(found[id(parent)].key for parent in value.behind if id(parent) in found)
            found[id(value)] = _stage(value, f"{len(found)} {value.artifact.key}", parents)
        else:
            waiting += [(value, True), *((parent, False) for parent in reversed(value.behind))]
    return list(found.values())


def _stage(value: Value, key: str, parents: tuple[str, ...]) -> Stage:
    assert value.artifact is not None
    facts = value.artifact.meta["facts"]
    quarantined = facts.get("quarantined", 0)
    return Stage(
        key=key,
        name=value.name,
        method=value.artifact.meta["method"],
        rows_in=facts.get("rows_in", facts["rows"] + quarantined),
        quarantined=quarantined,
        cost=Cost(**value.artifact.meta["cost"]),
        parents=parents,
        load=value.load,
    )
