"""Back-tests of every forecaster on real curves, the naive forecasts beside.

Published measurements in `../shared/data` (checkpoints of 15 models, ladders of 104 models on three corpora,
100 fine-tuning seeds). Every held-out point is predicted from what was measured before it. `shown` replays the
rule of the product: at every origin the back-test up to then decides whether the forecast or the last value is
quoted; its error stands beside always quoting either. The checkpoints are of one run with a falling learning
rate, which the product refuses where the phase is told: they show what happens where it is not. No table of
tuned models is at hand: the forecaster of tuned scores is only given the five-shot scores of models to foretell
from their zero-shot scores, which shows the mechanism and nothing of the paper's claim. Our own runs: accuracy of
a classifier of words (C = 10, one fit for each size and draw) on the rest of five labelled sets.

    python -m benchmarks forecasting
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.skip import Skip
from tutelage.core.curve import Curve
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.stats.backtest import Held, at_ratio, rolling, summarised
from tutelage.core.stats.curves import FormName
from tutelage.forecasting._shared import back_tested, fitted
from tutelage.forecasting.checkpoint_choice import CheckpointChoice
from tutelage.forecasting.downstream_law import DownstreamLaw
from tutelage.forecasting.early_stopping import EarlyStopping
from tutelage.forecasting.in_context_ceiling import InContextCeiling
from tutelage.forecasting.scaling_law import leave_largest_out

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
TASKS = ("arc_challenge", "arc_easy", "lambada_openai", "logiqa", "piqa", "sciq", "winogrande", "wsc")
RISING = ("arc_easy", "arc_challenge", "copa", "hellaswag", "lambada_openai", "piqa", "winograd", "winogrande")
SLOW = ("hellaswag", "lambada_openai")  # a fit of the law of the metric takes a tenth of a second
LOSS = "openlm/shard_00000000.tar"
OWN_SETS = (
    "sentence_polarity",
    "youtube_spam_ws",
    "afrisenti_hausa_annotators",
    "medical_abstracts_test",
    "hwu64",
)
OWN_SIZES, OWN_DRAWS, OWN_TEST = (16, 32, 64, 128, 256, 512, 1024), 3, 400
SIZES = {
    "70m": 7e7,
    "160m": 1.6e8,
    "410m": 4.1e8,
    "1b": 1e9,
    "1.4b": 1.4e9,
    "2.8b": 2.8e9,
    "6.9b": 6.9e9,
    "12b": 1.2e10,
}


def bench() -> dict[str, Any]:
    if not (SHARED / "pythia_evals").is_dir():
        raise Skip("the published measurements are not there: pythia_evals")
    evals = pq.read_table(SHARED / "pythia_evals" / "evals.parquet").to_pylist()
    runs = pq.read_table(SHARED / "overtrain_scaling" / "runs.parquet").to_pylist()
    return {
        "learning_curve": {
            "tokens at fixed size, loss (power3)": _curves(_token_curves(runs, "loss", (LOSS,), -1), "power3"),
            "tokens at fixed size, scores (sat3)": _curves(_token_curves(runs, "downstream", RISING, 1), "sat3"),
            "checkpoints of one run, accuracy (sat3)": _curves(_checkpoints(evals), "sat3"),
            "model size, accuracy of last checkpoints (sat3)": _curves(_sizes(evals), "sat3"),
            "our runs: labels, accuracy of words (sat3)": _curves(_own_runs(), "sat3"),
        },
        "scaling_law": _ladders(runs),
        "downstream_law": _downstream(runs),
        "in_context_ceiling": _zero_to_five(evals),
        "early_stopping": _seeds() | _pythia_sweeps(evals),
        "checkpoint_choice": _choices(evals),
    }


def _rows(tests: Iterable[Any]) -> list[dict[str, Any]]:
    return [{key: None if v is None else round(v, 4) for key, v in one.model_dump().items()} for one in tests]


def _curves(curves: Sequence[Curve], form: FormName) -> dict[str, Any]:
    """All held-out points of all curves together, and what the rule of the product would have quoted."""

    def predictor(known: Curve, later: Sequence[float]) -> list[tuple[float, float | None, float | None]]:
        fit = fitted(known, form, 1.0)
        return [(float(fit.predict(x)[0]), *fit.interval(x, new=True)) for x in later]

    curves = [curve.spaced() if curve.single_run else curve for curve in curves]
    held: list[Held] = []
    quoted: list[tuple[float, float, float, bool]] = []
    for curve in curves:
        mine = rolling(curve, predictor)
        held += mine
        places = curve.distinct
        for k in range(6, len(places)):
            known, x = curve.until(places[k - 1]), float(places[k])
            test = at_ratio(back_tested(known, form, 1.0), x / places[k - 1])
            value, last = float(fitted(known, form, 1.0).predict(x)[0]), known.at(places[k - 1])
            sure = test is not None and test.skill > 0
            truth = curve.at(x)
            quoted.append(
                (
                    abs(value - truth) / truth,
                    abs(last - truth) / truth,
                    abs((value if sure else last) - truth) / truth,
                    sure,
                )
            )
    found: dict[str, Any] = {"curves": len(curves), "by_ratio": _rows(summarised(held))}
    if quoted:
        forecast, last, shown = (float(np.median([one[i] for one in quoted])) for i in range(3))
        found["next_point"] = {
            "points": len(quoted),
            "shown_as_forecast": round(float(np.mean([one[3] for one in quoted])), 3),
            "error_always_forecast": round(forecast, 4),
            "error_always_last": round(last, 4),
            "error_of_what_is_shown": round(shown, 4),
        }
    return found


def _jsonl(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]


def _token_curves(runs: list[dict[str, Any]], group: str, metrics: Sequence[str], direction: Any) -> list[Curve]:
    found: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    for row in runs:
        if row["group"] == group and row["metric"] in metrics and row["value"] > 0:
            key = (row["dataset"], row["params"], row["metric"])
            found.setdefault(key, []).append((float(row["tokens"]), row["value"]))
    return [_curve(points, direction) for points in found.values() if len(points) > 5]


def _checkpoints(evals: list[dict[str, Any]]) -> list[Curve]:
    found: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    for row in evals:
        if row["metric"] == "acc" and row["task"] in TASKS and row["step"] >= 1000:
            key = (row["model"], row["shots"], row["task"])
            found.setdefault(key, []).append((float(row["step"]), row["value"]))
    return [_curve(points, 1, run="a") for points in found.values() if len(points) > 5]


def _own_runs() -> list[Curve]:
    """One curve of nested draws for each labelled set, from 16 labels up; all draws are points."""
    from benchmarks.labels.few_labels import read, right
    from tutelage.core.discovery import build

    classifier: Any = build("adapters.tfidf_classifier", {"C": 10.0, "folds": 2})
    curves = []
    for name in OWN_SETS:
        rows, test = read(name)
        # Some texts stand in a set twice, under two labels.
        pool = list({row["text"]: row for row in rows}.values())
        points = []
        for draw in range(OWN_DRAWS):
            order = np.random.default_rng(draw).permutation(len(pool))
            sizes = [size for size in OWN_SIZES if size + (0 if test else OWN_TEST) <= len(pool)]
            held = test or [pool[i] for i in order[-OWN_TEST:]]
            asked = Dataset.from_rows(held[:OWN_TEST])
            for size in sizes:
                made = classifier.convert({}, Dataset.from_rows(pool[i] for i in order[:size]), {})
                points.append((float(size), float(right(made, asked).mean())))
        curves.append(_curve(points, 1))
    return curves


def _sizes(evals: list[dict[str, Any]]) -> list[Curve]:
    found: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    for row in evals:
        if row["metric"] == "acc" and row["task"] in TASKS and row["step"] == 143000:
            size = row["model"].removeprefix("pythia-").removesuffix("-deduped")
            key = (row["model"].endswith("-deduped"), row["shots"], row["task"])
            found.setdefault(key, []).append((SIZES[size], row["value"]))
    return [_curve(points, 1) for points in found.values() if len(points) > 5]


def _curve(points: list[tuple[float, float]], direction: Any, run: str | None = None) -> Curve:
    x, y = zip(*sorted(points))
    return Curve(x=x, y=y, direction=direction, run=(run,) * len(x) if run else None)


def _ladders(runs: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for corpus in sorted({row["dataset"] for row in runs}):
        mine = [row for row in runs if row["dataset"] == corpus and row["metric"] == LOSS]
        x = np.array([(row["params_no_embed"], row["tokens"]) for row in mine], dtype=float)
        y = np.array([row["value"] for row in mine])
        forms: list[tuple[str, FormName, bool]] = [
            ("twovar", "twovar", False),
            ("twovar robust", "twovar", True),
            ("trajectory", "trajectory", False),
        ]
        found[corpus] = {name: _rows(leave_largest_out(x, y, form, robust)) for name, form, robust in forms}
    return found


def _downstream(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Scores over tokens at one size: the law of the metric beside a line over ln x, and the verdicts."""
    losses = {(r["dataset"], r["params"], r["tokens"]): r["value"] for r in runs if r["metric"] == LOSS}
    found = {form: _curves(_token_curves(runs, "downstream", SLOW, 1), form) for form in ("loglaw", "loglin")}
    status: dict[str, int] = {}
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in runs:
        place = (row["dataset"], row["params"], row["tokens"])
        if row["metric"] in SLOW and place in losses:
            one = {"x": float(row["tokens"]), "y": row["value"], "cross_entropy": losses[place]}
            groups.setdefault((row["dataset"], row["params"], row["metric"]), []).append(one)
    for rows in groups.values():
        method = DownstreamLaw()
        try:
            state = method.fit(Dataset.from_rows(rows), {})
            told = method.predict(state, 2 * max(row["x"] for row in rows)).system["forecasts"][0]["status"]
        except InputError as error:
            told = f"refused: {error.what}"
        status[told] = status.get(told, 0) + 1
    return {**found, "status_at_twice_the_tokens": status}


def _zero_to_five(evals: list[dict[str, Any]]) -> dict[str, Any]:
    table: dict[tuple[str, str], dict[str, float]] = {}
    for row in evals:
        if row["metric"] == "acc" and row["step"] == 143000 and row["task"] in TASKS:
            name = "tuned" if row["shots"] else "k_shot"
            table.setdefault((row["model"], row["task"]), {})[name] = row["value"]
    rows = [{"model": m, "task": t, **values} for (m, t), values in table.items() if len(values) == 2]
    method = InContextCeiling(draws=1000)
    result = method.predict(method.fit(Dataset.from_rows(rows), {}), None)
    kept = ("error_", "skill", "spearman")
    figures = {name: round(value, 4) for name, value in result.extra.items() if name.startswith(kept)}
    return {
        "what": "five-shot from zero-shot accuracy: the mechanism only",
        "models": result.n_clusters,
        **figures,
    }


def _seeds() -> dict[str, Any]:
    """A hundred fine-tuning seeds as ten cohorts: does accuracy on the usual set foretell the hard one?"""
    rows = []
    for number, row in enumerate(_jsonl(SHARED / "berts_of_a_feather" / "runs.jsonl")):
        known = {"cohort": f"c{number % 10}", "run": row["Run"], "x": 1.0, "y": float(row["MNLI dev acc."])}
        rows.append({**known, "final": float(row["Overall accuracy"])})
    return {"fine-tuning seeds, 10 cohorts of 10": _replayed(rows, (1.0,), 0.005)}


def _pythia_sweeps(evals: list[dict[str, Any]]) -> dict[str, Any]:
    """One cohort for each task: models with the same job, ranked by their early accuracy."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in evals:
        if row["metric"] == "acc" and row["task"] in TASKS and row["step"] >= 1000 and row["shots"] == 0:
            found.setdefault((row["task"], row["model"]), []).append((float(row["step"]), row["value"]))
    rows = []
    for (task, model), points in found.items():
        final = max(points)[1]
        rows += [{"cohort": task, "run": model, "x": x, "y": y, "final": final} for x, y in points]
    return {"pretraining runs, one cohort a task": _replayed(rows, (0.1, 0.25, 0.5), 0.01)}


def _replayed(rows: list[dict[str, Any]], fractions: tuple[float, ...], margin: float) -> dict[str, Any]:
    method = EarlyStopping(fractions=fractions, margin=margin, higher_y=True)
    result = method.predict(method.fit(Dataset.from_rows(rows), {}), None)
    return {"told": result.system["told"], "rules": result.system["tables"][0]["rows"]}


def _choices(evals: list[dict[str, Any]]) -> dict[str, Any]:
    """Checkpoints of 30 runs: score = mean accuracy of seven tasks, criteria from the eighth (its labels only)."""
    found: dict[tuple[str, float], dict[str, float]] = {}
    for row in evals:
        if row["step"] >= 1000 and row["task"] in TASKS and row["metric"] in ("acc", "ppl"):
            key = (f"{row['model']}, {row['shots']} shots", float(row["step"]))
            found.setdefault(key, {})[f"{row['task']} {row['metric']}"] = row["value"]
    rows = []
    for (run, step), values in found.items():
        others = [values[f"{task} acc"] for task in TASKS if task != "lambada_openai" and f"{task} acc" in values]
        if len(others) == 7:
            probe = {"perplexity": values["lambada_openai ppl"], "accuracy": values["lambada_openai acc"]}
            rows.append({"run": run, "x": step, "score": float(np.mean(others)), **probe})
    method = CheckpointChoice(criteria=("-perplexity", "accuracy"))
    result = method.predict(method.fit(Dataset.from_rows(rows), {}), None)
    return {
        "runs": result.n_items,
        "told": result.system["told"],
        "regret_of_the_procedure": round(result.estimate, 4),
        "rules": result.system["tables"][0]["rows"],
    }
