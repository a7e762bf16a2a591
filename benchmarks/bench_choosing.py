"""Choosing data, measured: scores and selectors, mixtures and orders, each against its dumb baseline.

A wide sweep at equal cost on models of one million weights that first read half a million tokens, from the data
sets of `../shared/data`; what holds here is a mechanism on these data, not a paper's headline. Every recipe in
`choosing/` has an oracle, a placebo and a search of equal size for every arm. What the screen calls better is
`confirmed` on ten fresh seeds; `others` holds scores and selectors against further baselines; the finalists go
through six fields (`fields`: only these say something about a method) and to a real model (`finalists`); `planted`
asks each score for rows that were hidden on purpose. Work lies in a folder of its own (`TUTELAGE_BENCH_WORK`, else
`benchmarks/.work`), so that a run that was cut off goes on where it stopped.

    python -m benchmarks choosing

`PARTS=confirmed,planted python -m benchmarks choosing` makes these parts alone and leaves the others in the
results.
"""

import json
import os
from pathlib import Path
from typing import Any

from benchmarks.choosing import material
from benchmarks.choosing.others import others
from benchmarks.choosing.planted import planted
from benchmarks.choosing.statements import STEP, over_sets, told
from benchmarks.skip import Skip

HERE = Path(__file__).resolve().parent
WORK = Path(os.environ.get("TUTELAGE_BENCH_WORK", HERE / ".work")) / "choosing"
BEDS = ("scores", "instructions", "mixtures", "continual", "orders")
PARTS = (*BEDS, "others", "confirmed", "fields", "planted", "finalists")
# The beds whose arms are also held against repeated random sampling and against perplexity.
SCORED = ("scores", "instructions")
FRESH = tuple(range(10, 20))
# Which method an arm stands for: the one whose output decides what is trained on.
SCORES = {
    "repeated_random": "data.select.repeated_random",
    "perplexity_low": "signals.token_loss",
    "perplexity_high": "signals.token_loss",
    "perplexity_band": "data.filter.band",
    "entropy": "signals.token_uncertainty",
    "margin": "signals.token_uncertainty",
    "gradient_norm": "signals.gradient_norm",
    "miniplm": "signals.loss_difference",
    "ekfac": "signals.ekfac_influence",
    "mates": "signals.influence_regressor",
    "preselect": "signals.predictive_strength",
    "grape": "signals.grape",
    "clear": "signals.clear",
    "similarity_top": "signals.similarity_tfidf",
    "similarity_gumbel": "data.select.gumbel_top_k",
    "similarity_threshold": "data.select.threshold",
    "classifier": "signals.text_classifier",
    "k_centre": "data.select.k_centre",
    "cluster_balanced": "data.select.cluster_balanced",
    "rules": "data.filter.rules",
    "near_deduplicated": "data.dedup.near",
    "qurating": "signals.quality_rater",
    "qurating_top": "signals.pairwise_quality",
}
METHODS = {
    "scores": SCORES,
    "instructions": SCORES,
    "fields": SCORES,
    "finalists": SCORES,
    "mixtures": {
        "uniform": "data.mix.fixed",
        "tagged": "data.mix.tagged",
        "skill_it": "data.mix.skill_it",
        "ddk": "data.mix.ddk",
        "meco": "data.mix.cooldown",
        "meco_no_cooldown": "training.objectives.context_lm",
    },
    "continual": {
        "quality_replay": "data.mix.replay",
        "replay_tenth": "data.mix.replay",
        "replay_third": "data.mix.replay",
    },
    "orders": {"cyclical": "data.order.cyclical", "interleaved": "data.order.interleaved"},
}
FINALISTS = ("similarity_top", "similarity_gumbel", "classifier")
Part = tuple[dict[str, Any], list[dict[str, Any]]]


def bench() -> dict[str, Any]:
    if not material.SHARED.is_dir():
        raise Skip(f"the data sets are not there: {material.SHARED.name}")
    material.material(WORK)
    asked = [name for name in os.environ.get("PARTS", ",".join(PARTS)).split(",") if name]
    made, comparisons = _earlier() if set(asked) < set(PARTS) else ({}, [])
    for name in asked:
        made[name], told_here = _part(name, made)
        comparisons = [row for row in comparisons if _of(row) != name] + told_here
    described = json.loads((WORK / "model.json").read_text(encoding="utf-8"))
    comparisons.sort(key=lambda row: PARTS.index(_of(row)))
    return {
        "model": described,
        **{name: made[name] for name in PARTS if name in made},
        "metric": STEP,
        "comparisons": comparisons,
    }


def _of(row: dict[str, Any]) -> str:
    """The part that a comparison is from."""
    return row["bed"].split("/")[1].partition(" ")[0].rstrip(",")


def _earlier() -> Part:
    """What the committed results hold."""
    file = HERE / "results" / "choosing.json"
    if not file.exists():
        return {}, []
    content = json.loads(file.read_text(encoding="utf-8"))
    return {name: content[name] for name in PARTS if name in content}, content["comparisons"]


def _part(name: str, made: dict[str, Any]) -> Part:
    if name in BEDS:
        if name == "instructions":
            material.answered(WORK)
        if name == "mixtures":
            material.skewed(WORK)
        return told(_run(name, WORK), f"choosing/{name}", METHODS[name])
    if name == "others":
        rows = [row for bed in SCORED if bed in made for row in others(WORK, bed, made[bed], METHODS[bed])]
        return {"beds": [bed for bed in SCORED if bed in made]}, rows
    if name == "confirmed":
        return _confirmed(made)
    if name == "fields":
        return _fields()
    if name == "planted":
        return planted(WORK), []
    return _finalists()


def _run(
    name: str, folder: Path, changes: tuple[str, ...] = (), arms: tuple[str, ...] | None = None
) -> dict[str, Any]:
    from tutelage.runs import load_recipe, run

    recipe = load_recipe(HERE / "choosing" / f"{name}.yaml", list(changes))
    if arms is not None:
        recipe = _only(recipe, set(arms))
    table = run(recipe.placed(folder), folder).comparison
    assert table is not None
    return table


def _only(recipe: Any, arms: set[str]) -> Any:
    """The recipe with these arms, beside those that the comparison itself needs."""
    kept = arms | {recipe.compare.baseline, recipe.compare.placebo, recipe.compare.oracle}
    pairs = [pair for pair in recipe.compare.primary or [] if set(pair) <= kept]
    compare = recipe.compare.model_copy(update={"primary": pairs} if recipe.compare.primary else {})
    return recipe.changed(arms={k: v for k, v in recipe.arms.items() if k in kept}, compare=compare)


def _confirmed(made: dict[str, Any]) -> Part:
    """What a screen called better than its baseline, once more on seeds that the screen has not seen."""
    found: dict[str, Any] = {}
    comparisons: list[dict[str, Any]] = []
    for bed in BEDS:
        arms = tuple(made.get(bed, {}).get("survivors", ()))
        if arms:
            table = _run(bed, WORK, (f"compare.seeds={list(FRESH)}",), arms)
            found[bed], told_here = told(table, f"choosing/confirmed/{bed}", METHODS[bed])
            comparisons += told_here
    return found, comparisons


def _fields() -> Part:
    sets: dict[str, Any] = {}
    comparisons: list[dict[str, Any]] = []
    described = material.general(WORK)
    for name in material.FIELDS:
        changes = [f"sources.{part}.path={name}_{part}.jsonl" for part in ("pool", "guide", "dev", "target")]
        table = _run("field", material.field(WORK, name), (*changes, f"steps.field.equals={name}"))
        sets[name], told_here = told(table, f"choosing/fields/{name}", SCORES)
        # Set by set against the baseline alone; the placebo is held against all sets together.
        comparisons += [row for row in told_here if row["primary"]]
    pairs = [(arm, other) for other in ("random", "placebo") for arm in FINALISTS]
    pairs += [("oracle", "random"), ("classifier", "similarity_top")]
    joint = over_sets(sets, pairs, "choosing/fields (six sets, a random effect)", SCORES)
    shared = [(arm, "random") for arm in FINALISTS] + [("classifier", "similarity_top")]
    shares = over_sets(sets, shared, "choosing/fields (shares of the oracle's gain)", SCORES, shares=True)
    return {"model": described, "sets": sets}, joint + shares + comparisons


def _finalists() -> Part:
    from tutelage.core.errors import ModelError
    from tutelage.models.fetch import packaged

    try:
        packaged("smollm2")
    except ModelError:
        return {"skipped": "the model is not there: tutelage fetch smollm2"}, []
    return told(_run("finalists", WORK), "choosing/finalists", SCORES)
