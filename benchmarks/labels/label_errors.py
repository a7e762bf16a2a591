"""How many of the labels called suspect are wrong: errors planted into real sets, and errors that people saw.

Planted: a tenth of the labels replaced at random; out-of-fold classifiers of words and n-grams judge. Precision
and recall of the suspects, and the average precision of their confidence; chance is the planted share.
Confirmed: the out-of-fold probabilities and labels of a test set, with the verdicts of five people on rows that
an earlier confident learning had called suspect; wrong is a label that more people replaced than kept."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from sklearn.metrics import average_precision_score

from benchmarks.skip import Skip
from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.stats.intervals import wilson
from tutelage.signals.label_errors import LabelErrors, confident_class, thresholds

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
SETS = {
    "banking77": "banking77/test.jsonl",
    "hwu64": "hwu64/test.jsonl",
    "youtube_spam": "youtube_spam_ws/train.jsonl",
    "sentence_polarity": "sentence_polarity/test.jsonl",
}
NOISE, MOST, SEEDS = 0.1, 1000, 3


def label_errors() -> dict[str, Any]:
    """The section `label_errors` of the benchmark of labels."""
    if not SHARED.is_dir():
        raise Skip(f"the data sets are not there: {SHARED.name}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        planted = {name: _planted(SHARED / file) for name, file in SETS.items()}
    return {"planted": planted, "confirmed": {"20news": _confirmed("20news")}}


def _planted(file: Path) -> dict[str, Any]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    rng = np.random.default_rng(0)
    rows = [rows[i] for i in sorted(rng.permutation(len(rows))[:MOST])]
    truth = [str(row["label"]) for row in rows]
    names = sorted(set(truth))
    found: dict[str, Any] = {"rows": len(rows), "classes": len(names), "planted_share": NOISE}
    for rule in ("confident", "disagree"):
        scores = np.array([_one(rows, truth, names, rule, seed) for seed in range(SEEDS)])
        measures = ("precision", "recall", "average_precision", "suspects")
        found[rule] = {m: round(float(v), 4) for m, v in zip(measures, scores.mean(axis=0))}
        found[rule]["precision_by_draw"] = [round(float(v), 4) for v in scores[:, 0]]
    return found


def _one(rows: list[Any], truth: list[str], names: list[str], rule: Any, seed: int) -> tuple[float, ...]:
    rng = np.random.default_rng(seed)
    wrong = rng.random(len(rows)) < NOISE
    others = [[name for name in names if name != label] for label in truth]
    given = [str(rng.choice(other)) if bad else label for other, bad, label in zip(others, wrong, truth)]
    data = Dataset.from_rows(
        {"id": f"r{i}", "text": row["text"], "label": label} for i, (row, label) in enumerate(zip(rows, given))
    )
    scored = score_dataset(LabelErrors(rule=rule, seed=seed), data, {})
    suspect = np.array([bool(x) for x in scored.column("label_suspect").to_pylist()])
    sure = np.array([x or 0.0 for x in scored.column("label_error_confidence").to_pylist()])
    hit = float((suspect & wrong).sum())
    ranked = average_precision_score(wrong, np.where(suspect, sure, 0.0))
    return hit / max(1, suspect.sum()), hit / wrong.sum(), float(ranked), float(suspect.sum())


def _confirmed(name: str) -> dict[str, Any]:
    folder = SHARED / "label_errors_probs"
    table = pq.read_table(folder / f"{name}_probs.parquet").to_pydict()
    probs, given = np.array(table["probs"], dtype=float), np.array(table["given_label"])
    classes = sorted(set(given.tolist()))
    labels = np.array([classes.index(label) for label in given])
    found = confident_class(probs, thresholds(labels, probs))
    suspect = (found >= 0) & (found != labels)
    verdicts = [json.loads(line) for line in (folder / f"{name}_verdicts.jsonl").read_text("utf-8").splitlines()]
    asked = {str(v["id"]): v["votes"] for v in verdicts}
    index = [str(i) for i in table["index"]]
    judged = np.array([i in asked for i in index])
    wrong = np.array([i in asked and _overruled(asked[i]) for i in index])
    facts: dict[str, Any] = {
        "rows": len(labels),
        "suspects": int(suspect.sum()),
        "judged_by_people": int(judged.sum()),
        "suspects_judged": int((suspect & judged).sum()),
    }
    for kind, chosen in (("suspects", suspect & judged), ("other_judged", ~suspect & judged)):
        n, k = int(chosen.sum()), int((chosen & wrong).sum())
        interval = wilson(k, n)
        facts[f"{kind}_wrong"] = {"of": n, "wrong": k, "share": round(k / n, 4)}
        facts[f"{kind}_wrong"]["interval"] = [round(interval.lo, 4), round(interval.hi, 4)]
    return facts


def _overruled(votes: dict[str, int]) -> bool:
    """More people gave another answer than kept the label."""
    return sum(n for kind, n in votes.items() if kind != "given") > votes.get("given", 0)
