"""Audits of predictions against planted truth and on real data: what they find, and how often they cry wolf.

calibration: models whose logits are planted too large or too small; how often the calibration error is beyond what
perfection shows, how often the interval of the overconfidence is off 0, and the error that perfection shows.
label_rescore: the 5,700 re-annotated questions of MMLU-Redux; a sample of annotations against all of them.
loyalty: a classifier refitted on other rows (the ceiling) and on a tenth of them (the derived one).
transfer: planted losses in one of three probes; how often the gate says harmed, unharmed, undecided.

    SECTIONS=calibration python -m benchmarks trust
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.skip import Skip
from tutelage.core.dataset import Dataset
from tutelage.core.discovery import build
from tutelage.core.items import ItemLog
from tutelage.core.records import Result
from tutelage.evaluation.calibration import Calibration
from tutelage.evaluation.label_rescore import LabelRescore
from tutelage.evaluation.transfer_matrix import TransferMatrix

RESULTS = Path(__file__).resolve().parent / "results" / "trust.json"
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
Row = dict[str, Any]


def _softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def calibration() -> Row:
    """Detection of planted temperatures by sample size; temperature 1 is the false alarm rate."""
    draws, table = 100, []
    for n in (100, 200, 500, 1000):
        for factor in (1.0, 1.25, 1.5, 2.0):
            found = []
            for seed in range(draws):
                rng = np.random.default_rng([n, seed])
                logits = rng.normal(scale=1.5, size=(n, 3))
                labels = (_softmax(logits).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
                probs = _softmax(logits * factor)
                names = ["a", "b", "c"]
                rows = (
                    {"id": f"{i}", "predicted_probs": p, "classes": names, "label": names[y]}
                    for i, (p, y) in enumerate(zip(probs.tolist(), labels))
                )
                result = Calibration(metric="overconfidence", seed=seed).evaluate(
                    None, Dataset.from_rows(rows), {}
                )
                assert result.interval is not None
                off = not result.interval.lo <= 0 <= result.interval.hi
                found.append(
                    [result.extra["ece_p"] <= 0.05, off, result.extra["ece"], result.extra["ece_if_calibrated"]]
                )
            means = np.mean(np.array(found, dtype=float), axis=0)
            names = ["found_by_ece", "found_by_overconfidence", "ece", "ece_if_calibrated"]
            table.append({"n": n, "logits_times": factor} | {k: round(float(v), 4) for k, v in zip(names, means)})
    return {"draws": draws, "table": table}


def _questions() -> list[Row]:
    """MMLU-Redux: question, its key, the label of people, and whether these call it flawed beyond a wrong key."""
    file = SHARED / "mmlu_redux" / "test.parquet"
    if not file.is_file():
        raise Skip(f"the data sets are not there: {SHARED.name}")
    found = []
    for number, row in enumerate(pq.read_table(file).to_pylist()):
        said = str(row["correct_answer"] or "").strip()
        place = "ABCD".find(said) if said in tuple("ABCD") else int(said) if said in tuple("0123") else -1
        fixed = row["error_type"] == "wrong_groundtruth" and 0 <= place < len(row["choices"])
        flawed = row["error_type"] != "ok" and not fixed
        truth = place if fixed else row["answer_index"]
        found.append({"id": f"q{number}", "old": row["answer_index"], "new": truth, "split": flawed, **row})
    return found


def label_rescore() -> Row:
    """What a sample of re-annotations says against re-annotating everything, sample after sample."""
    rows, draws = _questions(), 20
    rng = np.random.default_rng(0)
    n, old, new = len(rows), np.array([r["old"] for r in rows]), np.array([r["new"] for r in rows])
    split = np.array([r["split"] for r in rows])
    systems = {
        "knows 70 % of the truth": np.where(rng.random(n) < 0.7, new, (new + rng.integers(1, 4, n)) % 4),
        "learnt 69 % of the key": np.where(rng.random(n) < 0.69, old, (old + rng.integers(1, 4, n)) % 4),
        "longest option": np.array([int(np.argmax([len(c) for c in r["choices"]])) for r in rows]),
    }
    said = [
        Dataset.from_rows({"id": r["id"], "predicted": str(p)} for r, p in zip(rows, answers))
        for answers in systems.values()
    ]
    truth = {name: float((answers == new)[~split].mean()) for name, answers in systems.items()}
    original = {name: float((answers == old).mean()) for name, answers in systems.items()}
    wrong = (old != new) | split
    # A detector with 70 % recall and, at 6.5 % errors, about 40 % precision: planted, so that no judge is needed.
    flag = np.where(wrong, rng.random(n) < 0.7, rng.random(n) < 0.07)
    task, plans = (
        LabelRescore(systems=tuple(systems)),
        {"suspected 300, others 300": (300, 300), "600 at random": None},
    )
    found: Row = {}
    for plan, sizes in plans.items():
        seen: list[Row] = []
        for seed in range(draws):
            drawn, inclusion = np.zeros(n, bool), np.full(n, 600 / n)
            order = np.random.default_rng(seed)
            if sizes is None:
                drawn[order.choice(n, 600, replace=False)] = True
            else:
                for kind, size in zip((True, False), sizes):
                    where = np.flatnonzero(flag == kind)
                    drawn[order.choice(where, size, replace=False)] = True
                    inclusion[where] = size / len(where)
            annotated = Dataset.from_rows(
                {"id": r["id"], "label": str(r["old"]), "gold": str(r["new"]) if d else None}
                | {"ambiguous": bool(r["split"] and d), "inclusion": float(pi)}
                for r, d, pi in zip(rows, drawn, inclusion)
            )
            seen.append(task.evaluate(None, annotated, {"systems": said}).extra)
        lines = {}
        for name in systems:
            each = [[x[f"estimated[{name}]{end}"] for end in ("", "_lo", "_hi")] for x in seen]
            point, low, high = np.array(each).T
            within = (low <= truth[name]) & (truth[name] <= high)
            width = round(float((high - low).mean()), 4)
            lines[name] = {
                "original": round(original[name], 4),
                "all_reannotated": round(truth[name], 4),
                "estimated_mean": round(float(point.mean()), 4),
                "sd_over_samples": round(float(point.std()), 4),
                "interval_covers": round(float(within.mean()), 3),
                "interval_width": width,
            }
        honest, parrot, *_ = systems
        pair = f"estimated[{parrot} - {honest}]"
        right = float(np.mean([x[pair] < 0 for x in seen]))
        rates = [x["label_error_rate"] for x in seen]
        found[plan] = {
            "systems": lines,
            "truth_teller_ranked_first": right,
            "label_error_rate_mean": round(float(np.mean(rates)), 4),
            "label_error_rate_sd": round(float(np.std(rates)), 4),
        }
    rate = float((old != new)[~split].mean())
    facts = {"questions": n, "flawed_questions": int(split.sum()), "wrong_keys": round(rate, 4), "samples": draws}
    return {**facts, "planted_systems": 2, "plans": found}


def loyalty() -> Row:
    """Three classifiers of words: source, the same fitted on other rows, and one fitted on a tenth of them."""
    folder = SHARED / "subjectivity"
    if not folder.is_dir():
        raise Skip(f"the data sets are not there: {SHARED.name}")
    file = sorted(folder.glob("*.parquet"))[0]
    rows = [{"id": f"r{i}", **row} for i, row in enumerate(pq.read_table(file).to_pylist())]
    order = np.random.default_rng(0).permutation(len(rows))
    names = ("id", "text", "label")
    picked = [{name: str(rows[i][name]) for name in names} for i in order[:6000]]
    test, parts = (
        picked[:2000],
        {"source": picked[2000:4000], "again": picked[4000:6000], "derived": picked[2000:2200]},
    )
    fit, score = build("adapters.tfidf_classifier"), build("signals.class_probabilities")
    held = Dataset.from_rows(test)
    given: Row = {}
    for name, part in parts.items():
        made = fit.convert({}, Dataset.from_rows(part), {})
        (shard,) = held.shards()
        given[name] = held.with_columns(name, [score.score(shard, {}, {"model": made})])
    found = build("evaluation.loyalty").evaluate(None, None, given)
    keys: tuple[str, ...] = (
        "label_loyalty",
        "label_ceiling",
        "label_share_of_ceiling",
        "label_below_ceiling_lo",
        "flips",
    )
    keys += ("right_to_wrong", "wrong_to_right", "accuracy_source", "accuracy_derived", "probability_loyalty")
    keys += ("probability_ceiling", "label_loyalty[least sure]", "label_loyalty[surest]")
    return {"rows": found.n_items} | {key: round(found.extra[key], 4) for key in keys}


def _result(name: str, scores: np.ndarray) -> Result:
    log = ItemLog.from_rows({"item_key": f"{name}-{i}", "score": float(s)} for i, s in enumerate(scores))
    facts: Row = {"task": "planted", "metric": "bits_per_byte", "direction": -1, "unit": "bits/byte"}
    return Result(**facts, no_interval="planted", estimate=float(scores.mean()), n_items=len(log)).with_items(log)


def transfer() -> Row:
    """The gate at margin .02 with a planted loss in one of three probes, paired noise .08 per document."""
    draws, table = 100, []
    for n in (50, 200, 800):
        for loss in (0.0, 0.02, 0.05):
            states, lowest = [], []
            for seed in range(draws):
                rng = np.random.default_rng([n, seed])
                before, after = [], []
                for name in "abc":
                    hard = rng.normal(1.5, 0.4, n)
                    before.append(_result(name, hard))
                    after.append(_result(name, hard + rng.normal(loss if name == "a" else 0.0, 0.08, n)))
                found = TransferMatrix(draws=100).evaluate(None, None, {"before": before, "after": after})
                states.append(found.extra["no_harm"])
                assert found.interval is not None
                lowest.append(found.interval.lo <= -loss <= found.interval.hi)
            share = {name: float(np.mean(np.array(states) == code)) for name, code in
                     (("harmed", -1), ("undecided", 0), ("unharmed", 1))}  # fmt: skip
            table.append(
                {"documents": n, "planted_loss": loss, **share, "interval_covers": float(np.mean(lowest))}
            )
    return {"draws": draws, "margin": 0.02, "table": table}


SECTIONS: dict[str, Callable[[], Row]] = {
    "calibration": calibration,
    "label_rescore": label_rescore,
    "loyalty": loyalty,
    "transfer": transfer,
}


def bench() -> Row:
    asked = [name for name in os.environ.get("SECTIONS", ",".join(SECTIONS)).split(",") if name]
    before = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    kept = {name: before[name] for name in SECTIONS if name in before and name not in asked}
    for name in asked:
        started = time.perf_counter()
        kept[name] = {**SECTIONS[name](), "section_seconds": 0.0}
        kept[name]["section_seconds"] = round(time.perf_counter() - started, 1)
    return kept
