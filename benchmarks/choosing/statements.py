"""What a comparison says, small enough to commit, and what several sets say together about a method.

Over sets: an arm's figure on a set is one item and every training seed one run, so that the two-way t of
core.stats takes sets as a random effect (five degrees of freedom for six of them). Declared pairs are one family
under Holm.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.bench_specialise import summary

STEP = "held_out"


def told(
    table: Mapping[str, Any], bed: str, methods: Mapping[str, str]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(arms with the bed's state, comparisons that carry the name of the bed)."""
    found = summary(dict(table), methods)
    comparisons = [{"bed": bed, **pair} for pair in found.pop("comparisons")]
    found["survivors"] = [
        pair["arm"]
        for pair in comparisons
        if pair["primary"] and pair["verdict"] == "better" and pair["against"] == table["baseline"]
    ]
    sensitivity = table["bed_comparison"]
    if sensitivity:
        found["oracle_over_baseline"] = {
            "difference": sensitivity["estimate"],
            "interval": sensitivity["interval"],
            "smallest_detectable": sensitivity["mde"],
        }
    return {**found, "bed": table["bed"], "notes": list(table["notes"])}, comparisons


def over_sets(
    sets: Mapping[str, Mapping[str, Any]],
    pairs: Sequence[tuple[str, str]],
    bed: str,
    methods: Mapping[str, str],
    *,
    shares: bool = False,
) -> list[dict[str, Any]]:
    """Each pair over all sets; `sets` are the results of `told` by name. Pairs against `random` are declared,
    shares are exploratory."""
    from tutelage.core.items import ItemLog
    from tutelage.core.stats.compare import compare
    from tutelage.core.stats.families import judge_family

    unit = {
        name: _estimate(one, "random") - _estimate(one, "oracle") if shares else 1.0 for name, one in sets.items()
    }
    logs = {
        arm: ItemLog.from_rows(
            [
                {"item_key": name, "train_seed": seed, "system_id": arm, "score": score / unit[name]}
                for name, found in sets.items()
                for seed, score in enumerate(found["arms"][arm]["per_seed"])
            ]
        )
        for arm in {arm for pair in pairs for arm in pair}
    }
    found = {f"{a} - {b}": compare(logs[a], logs[b], direction=-1) for a, b in pairs}
    primary = (
        [] if shares else [f"{a} - {b}" for a, b in pairs if (a, b) != ("oracle", "random") and b == "random"]
    )
    verdicts = judge_family(found, primary=primary)
    return [
        {
            "bed": bed,
            "method": methods.get(a, a),
            "arm": a,
            "against": b,
            "step": STEP,
            "primary": name in primary,
            "difference": found[name].estimate,
            "interval": verdicts[name].interval.model_dump() if verdicts[name].interval else None,
            "adjusted_p": verdicts[name].adjusted_p,
            "smallest_detectable": found[name].mde,
            "verdict": verdicts[name].outcome,
            "seeds": found[name].n_seeds,
            "sets": found[name].n_items,
            "better_on": sum(1 for one in sets.values() if _estimate(one, a) < _estimate(one, b)),
            "cost_ratio": None,
        }
        for a, b in pairs
        for name in [f"{a} - {b}"]
    ]


def _estimate(found: Mapping[str, Any], arm: str) -> float:
    return float(found["arms"][arm]["estimate"])
