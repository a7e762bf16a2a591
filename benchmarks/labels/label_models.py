"""Label models against majority vote, with crowd-kit's Dawid-Skene beside them where it is installed.

YouTube comments: ten labelling functions and labels by people. Labels are made for the training comments and for
the held-out ones with what was fitted on the training comments; accuracy on comments with a vote, and of a
classifier trained on the labels made. Hausa tweets: three annotators and nobody above them, so each is predicted
from the other two. Planted: five sources of known accuracy, 600 rows, twenty draws.
"""

import json
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.skip import Skip
from tutelage.core.apply import apply_transform, score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.stats.families import holm
from tutelage.core.stats.intervals import mean_interval, wilson
from tutelage.core.stats.paired import bonett_price, mcnemar_exact
from tutelage.signals._votes import read_votes
from tutelage.signals.dawid_skene import DawidSkene
from tutelage.signals.majority_vote import MajorityVote

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
# Names as in the data's description; the order is that of the votes.
FUNCTIONS = (
    "keyword_my",
    "keyword_subscribe",
    "keyword_link",
    "keyword_please",
    "keyword_song",
    "regex_check_out",
    "short_comment",
    "has_person_nlp",
    "textblob_polarity",
    "textblob_subjectivity",
)
PLANTED = (0.9, 0.8, 0.7, 0.6, 0.55)
DRAWS = 20
# (rows that the model is fitted on, rows to label, schema) -> a label for each of the latter, None without one.
Labeller = Callable[[Dataset, Dataset, Dataset], list[str | None]]


def label_models() -> dict[str, Any]:
    """The section `label_models` of the benchmark of labels."""
    if not SHARED.is_dir():
        raise Skip(f"the data sets are not there: {SHARED.name}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {"youtube_spam": youtube(), "hausa_annotators": hausa(), "planted": planted()}
    peer = {"crowd_kit": "installed" if _crowd_kit() else "not installed"}
    return {**peer, **found, "comparisons": comparisons(found)}


def comparisons(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Dawid-Skene against majority vote on the real sets, Holm-corrected together."""
    beds = {
        "labels/youtube_spam, held-out comments": found["youtube_spam"]["differences"]["test"]["dawid_skene"],
        "labels/hausa_annotators": found["hausa_annotators"]["differences"]["dawid_skene"],
    }
    errors = [(one["interval"][1] - one["interval"][0]) / 2 / stats.norm.isf(0.025) for one in beds.values()]
    raw = [2 * stats.norm.sf(abs(one["estimate"]) / error) for one, error in zip(beds.values(), errors)]
    rows = []
    for (bed, one), error, p in zip(beds.items(), errors, holm(raw)):
        verdict = "undecided" if p >= 0.05 else "better" if one["estimate"] > 0 else "worse"
        rows.append(
            {
                "bed": bed,
                "method": "signals.dawid_skene",
                "arm": "dawid_skene",
                "against": "majority_vote",
                "step": "accuracy",
                "metric": "accuracy",
                "primary": True,
                "difference": one["estimate"],
                "interval": {"lo": one["interval"][0], "hi": one["interval"][1], "level": 0.95, "covers": "items"},
                "adjusted_p": float(p),
                "smallest_detectable": float(error * (stats.norm.isf(0.025) + stats.norm.isf(0.2))),
                "verdict": verdict,
                "seeds": 1,
                "cost_ratio": 1.0,
            }
        )
    return rows


def labellers() -> dict[str, Labeller]:
    ours: dict[str, Labeller] = {
        "majority_vote": lambda fit, rows, schema: _ours(MajorityVote(), fit, rows, schema),
        "dawid_skene": lambda fit, rows, schema: _ours(DawidSkene(), fit, rows, schema),
        "dawid_skene_silence_ignored": lambda fit, rows, schema: _ours(
            DawidSkene(abstention="ignored"), fit, rows, schema
        ),
    }
    return {**ours, "crowd_kit_dawid_skene": _theirs} if _crowd_kit() else ours


def youtube() -> dict[str, Any]:
    schema = Dataset.from_rows([{"label": "HAM"}, {"label": "SPAM"}])
    parts = {}
    for part in ("train", "test"):
        lines = (SHARED / f"youtube_spam_ws/{part}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        parts[part] = Dataset.from_rows(
            {
                "id": f"{part}-{n}",
                "text": row["text"],
                "gold": row["label"],
                "votes": row["weak_labels"],
                "vote_sources": FUNCTIONS,
            }
            for n, row in enumerate(rows)
        )
    found: dict[str, Any] = {"rows": {name: data.num_rows for name, data in parts.items()}}
    right: dict[str, dict[str, np.ndarray]] = {"train": {}, "test": {}, "classifier": {}}
    for name, label in labellers().items():
        start = time.perf_counter()
        made = label(parts["train"], parts["train"], schema)
        seconds = time.perf_counter() - start
        entry: dict[str, Any] = {"seconds_to_label_train": round(seconds, 3)}
        for part, data in parts.items():
            labels = made if part == "train" else label(parts["train"], data, schema)
            if name == "crowd_kit_dawid_skene" and part == "test":
                continue
            gold = data.column("gold").to_pylist()
            right[part][name] = np.array([a == b for a, b in zip(labels, gold) if a is not None])
            entry[part] = _share(right[part][name], of=data.num_rows)
        right["classifier"][name] = _classifier(parts, made, schema)
        entry["classifier_on_test"] = _share(right["classifier"][name], of=parts["test"].num_rows)
        found[name] = entry
    gold = parts["train"].column("gold").to_pylist()
    found["true_labels"] = {
        "classifier_on_test": _share(_classifier(parts, gold, schema), of=parts["test"].num_rows)
    }
    return {**found, "differences": {part: _differences(values) for part, values in right.items()}}


def hausa() -> dict[str, Any]:
    """Each annotator predicted from the other two: what is measured is agreement with a person, not truth."""
    import pyarrow.parquet as pq

    table = pq.read_table(SHARED / "afrisenti_hausa_annotators/all.parquet").to_pylist()
    names = sorted({name for row in table for name in row["annotator_ids"]})
    classes = sorted({label for row in table for label in row["annotator_labels"]})
    schema = Dataset.from_rows([{"label": name} for name in classes])
    right: dict[str, list[np.ndarray]] = {}
    for left_out in names:
        rows, truth = [], []
        for number, row in enumerate(table):
            given = dict(zip(row["annotator_ids"], row["annotator_labels"]))
            truth.append(given.pop(left_out))
            rows.append({"id": f"t{number}", "votes": [*given.values()], "vote_sources": [*given]})
        data = Dataset.from_rows(rows)
        for name, label in labellers().items():
            labels = label(data, data, schema)
            right.setdefault(name, []).append(np.array([a == b for a, b in zip(labels, truth)]))
    joined = {name: np.concatenate(parts) for name, parts in right.items()}
    # One tweet is predicted three times: the tweet is the unit.
    tweets = [str(n) for n in range(len(table))] * len(names)
    found: dict[str, Any] = {"tweets": len(table), "annotators": len(names), "unit": "tweet"}
    for name, hits in joined.items():
        interval = mean_interval(hits.astype(float), tweets)
        found[name] = {"agreement": float(hits.mean()), "interval": [interval.lo, interval.hi]}
    base = joined["majority_vote"].astype(float)
    found["differences"] = {}
    for name, hits in joined.items():
        if name != "majority_vote":
            interval = mean_interval(hits - base, tweets)
            found["differences"][name] = {
                "estimate": float((hits - base).mean()),
                "interval": [interval.lo, interval.hi],
            }
    return found


def planted() -> dict[str, Any]:
    accuracy: dict[str, list[float]] = {}
    names = np.array(["a", "b", "c"])
    schema = Dataset.from_rows([{"label": name} for name in names])
    for seed in range(DRAWS):
        rng = np.random.default_rng(seed)
        truth = rng.integers(0, 3, 600)
        wrong = (truth[:, None] + rng.integers(1, 3, (600, 5))) % 3
        votes = np.where(rng.random((600, 5)) < PLANTED, truth[:, None], wrong)
        data = Dataset.from_rows({"id": f"r{n}", "votes": names[row].tolist()} for n, row in enumerate(votes))
        for name, label in labellers().items():
            made = label(data, data, schema)
            accuracy.setdefault(name, []).append(float(np.mean(np.array(made) == names[truth])))
    found: dict[str, Any] = {"rows": 600, "draws": DRAWS, "accuracies_of_sources": list(PLANTED)}
    for name, values in accuracy.items():
        gain = np.array(values) - accuracy["majority_vote"]
        interval = mean_interval(gain) if name != "majority_vote" else None
        found[name] = {
            "accuracy": float(np.mean(values)),
            "gain": None
            if interval is None
            else {"estimate": float(gain.mean()), "interval": [interval.lo, interval.hi]},
        }
    return found


def _ours(method: Any, fit: Dataset, rows: Dataset, schema: Dataset) -> list[str | None]:
    inputs = {"labels": schema}
    state = method.fit(fit, inputs)
    return score_dataset(method, rows, inputs, state).column("vote_label").to_pylist()


def _theirs(fit: Dataset, rows: Dataset, schema: Dataset) -> list[str | None]:
    """crowd-kit labels what it is fitted on: `rows` must be `fit`."""
    import pandas as pd
    from crowdkit.aggregation import DawidSkene as Peer

    votes = read_votes(fit, "votes", {"labels": schema})
    row, source = np.nonzero(votes.matrix >= 0)
    table = pd.DataFrame({"task": row, "worker": source, "label": votes.matrix[row, source]})
    made = Peer(n_iter=100).fit_predict(table)
    return [votes.classes[made[number]] if number in made.index else None for number in range(rows.num_rows)]


def _classifier(parts: dict[str, Dataset], labels: Sequence[str | None], schema: Dataset) -> np.ndarray:
    """Whether words and character n-grams, trained on the labels made, are right about each held-out comment."""
    from tutelage.core import discovery

    rows = [{**row, "vote_label": label} for row, label in zip(parts["train"].rows(["id", "text"]), labels)]
    adopt = discovery.build("data.label.adopt", {"column": "vote_label", "source": "rule:functions"})
    data = apply_transform(adopt, Dataset.from_rows(rows), {})
    gold = parts["test"].column("gold").to_pylist()
    kinds = set(data.column("label").to_pylist())
    if len(kinds) == 1:
        # Nothing to tell apart: a classifier of one class.
        return np.array([label in kinds for label in gold])
    model = discovery.build("adapters.tfidf_classifier").convert({}, data, {"labels": schema, "seed": 0})
    probs = model.predict_proba(parts["test"].column("text").to_pylist())
    return np.array([model.labels.names[best] == label for best, label in zip(probs.argmax(axis=1), gold)])


def _share(right: np.ndarray, of: int) -> dict[str, Any]:
    interval = wilson(int(right.sum()), len(right))
    return {
        "accuracy": round(float(right.mean()), 4),
        "interval": [round(interval.lo, 4), round(interval.hi, 4)],
        "labelled": len(right),
        "of": of,
    }


def _differences(right: dict[str, np.ndarray]) -> dict[str, Any]:
    """Each against majority vote, paired over the rows that both label."""
    base = right["majority_vote"]
    found = {}
    for name, values in right.items():
        if name == "majority_vote" or len(values) != len(base):
            continue
        only, other = int((values & ~base).sum()), int((~values & base).sum())
        low, high = bonett_price(only, other, len(base))
        found[name] = {
            "estimate": round(float(values.mean() - base.mean()), 4),
            "interval": [round(float(low), 4), round(float(high), 4)],
            "p": round(mcnemar_exact(only, other), 5),
        }
    return found


def _crowd_kit() -> bool:
    return find_spec("crowdkit") is not None
