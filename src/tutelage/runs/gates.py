"""Gates: conditions on measurements that end a run with exit code 3 when they do not hold.

A bound holds when the whole interval is on its good side, fails when the whole interval is on the other side, and
is undecided between; without an interval the estimate decides. `no_harm: m` asks for the paired comparison to be
"not worse by more than m". Undecided fails for `no_harm` and passes for bounds, unless the recipe says otherwise.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tutelage.core.records import Result
from tutelage.runs.recipe import Gate, Recipe

if TYPE_CHECKING:
    from tutelage.runs.engine import Value
    from tutelage.runs.table import ComparisonTable


def check_steps(recipe: Recipe, values: "Mapping[str, Value]") -> list[dict[str, Any]]:
    """The gates of a run without `compare`."""
    from tutelage.core.stats.compare import compare

    verdicts = []
    for gate in recipe.gates:
        result: Result = values[str(gate.step)].load()
        if gate.against is None:
            interval = result.interval
            low, high = (interval.lo, interval.hi) if interval else (result.estimate, result.estimate)
            verdicts.append(_bounded(gate, result.estimate, low, high))
            continue
        before: Result = values[gate.against].load()
        if result.items is None or before.items is None:
            verdicts.append(_verdict(gate, "undecided", "no item log to compare by", None))
            continue
        verdicts.append(_compared(gate, compare(result.items, before.items, direction=result.direction)))
    return verdicts


def check_arms(recipe: Recipe, table: "ComparisonTable") -> list[dict[str, Any]]:
    """The gates of a comparison: per arm named, or for every trained arm."""
    verdicts = []
    for gate in recipe.gates:
        step = gate.step or table.metric_step
        arms = [gate.arm] if gate.arm else [a for a in table.trained_arms if a != gate.against]
        for arm in arms:
            found = table.arm(arm)
            if found.failed is not None:
                verdicts.append(_verdict(gate, "fails", f"the arm has no result: {found.failed}", None, arm))
            elif gate.against is None:
                measured = found.results[step]
                low, high = measured.interval or (measured.estimate, measured.estimate)
                verdicts.append(_bounded(gate, measured.estimate, low, high, arm))
            else:
                comparison = table.compared(arm, gate.against, step)
                if comparison is None:
                    verdicts.append(
                        _verdict(
                            gate, "fails", f"nothing to compare with: {gate.against} has no result", None, arm
                        )
                    )
                else:
                    verdicts.append(_compared(gate, comparison, arm))
    return verdicts


def _compared(gate: Gate, comparison: Any, arm: str | None = None) -> dict[str, Any]:
    if gate.no_harm is None:
        interval = comparison.interval
        low, high = (interval.lo, interval.hi) if interval else (comparison.estimate, comparison.estimate)
        return {**_bounded(gate, comparison.estimate, low, high, arm), "mde": comparison.mde}
    narrow = comparison.at_level(0.90)
    if narrow is None:
        return _verdict(gate, "undecided", f"no interval: {comparison.no_interval}", comparison.estimate, arm)
    text = (
        f"difference {comparison.estimate:+.4g}, 90 % interval [{narrow.lo:+.4g}, {narrow.hi:+.4g}] over "
        f"{comparison.n_items} items ({comparison.method}; {comparison.scope})"
    )
    fails = "fails" if narrow.hi < -gate.no_harm else "undecided"
    found = _verdict(gate, "holds" if narrow.lo > -gate.no_harm else fails, text, comparison.estimate, arm)
    return {**found, "interval": {"lo": narrow.lo, "hi": narrow.hi}, "mde": comparison.mde}


def _bounded(gate: Gate, estimate: float, lo: float, hi: float, arm: str | None = None) -> dict[str, Any]:
    text = f"{estimate:.4g}, interval [{lo:.4g}, {hi:.4g}]"
    if gate.at_least is not None:
        state = "holds" if lo >= gate.at_least else "fails" if hi < gate.at_least else "undecided"
    else:
        assert gate.at_most is not None
        state = "holds" if hi <= gate.at_most else "fails" if lo > gate.at_most else "undecided"
    return {**_verdict(gate, state, text, estimate, arm), "interval": {"lo": lo, "hi": hi}}


def _verdict(gate: Gate, state: str, text: str, estimate: float | None, arm: str | None = None) -> dict[str, Any]:
    on_undecided = gate.on_undecided or ("fail" if gate.no_harm is not None else "pass")
    good = state == "holds" or (state == "undecided" and on_undecided == "pass")
    return {
        "name": gate.name,
        "arm": arm,
        "step": gate.step,
        "against": gate.against,
        "condition": gate.model_dump(exclude_none=True, include={"at_least", "at_most", "no_harm"}),
        "state": state,
        "on_undecided": on_undecided,
        "expect": gate.expect,
        "fired": not good,
        # A planted failure counts as noticed only where it shows; "undecided" shows nothing.
        "passed": good if gate.expect == "pass" else state == "fails",
        "estimate": estimate,
        "reason": text,
    }
