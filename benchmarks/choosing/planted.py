"""Rows hidden in a pile on purpose, and how well each score finds those that it is meant to find.

AUROC = P(score of a planted row > score of an ordinary one) + P(equal) / 2, each kind of planted row against the
ordinary rows alone, with a 95 % interval from 2,000 resamples of both. Above 0.5: the score finds them; a score
for which it says nothing has no line. Planted are 40 rows of each kind among 240 of fiction, tasks and maths, of
which those with a copy do not count as ordinary: copies, copies with every fiftieth word replaced, rows that hold
a measured row, the words of a row in another order, words drawn at random, one sentence over and over, medical
abstracts (the field), Spanish, and pairs of prompt and response of which one in three has the response of another.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.choosing.material import SHARED, Row, answered, read

ORDINARY, PLANTED = 240, 40
HIGH, LOW = 1, -1
# (score, its fields, what it is given, [(planted rows, column, where they are meant to lie)]); "guide" are 40
# rows of the field, "target" the measured ones, "probed" a third of the pool with what one step on a row brought.
MEANT: tuple[tuple[str, dict[str, Any], dict[str, Any], list[tuple[str, str, int]]], ...] = (
    ("signals.exact_duplicates", {}, {}, [("copy", "duplicate_of", HIGH)]),
    (
        "signals.near_duplicates",
        {},
        {},
        [("copy", "dup_cluster_size", HIGH), ("edited copy", "dup_cluster_size", HIGH)],
    ),
    ("signals.ngram_overlap", {"n": 8}, {"evaluation": "target"}, [("contaminated", "contamination_hits", HIGH)]),
    (
        "signals.token_loss",
        {},
        {"model": "base"},
        [
            ("repeated sentence", "nll_mean", LOW),
            ("shuffled words", "nll_mean", HIGH),
            ("random words", "nll_mean", HIGH),
            ("foreign", "nll_mean", HIGH),
            ("field", "nll_mean", HIGH),
        ],
    ),
    (
        "signals.token_uncertainty",
        {},
        {"model": "base"},
        [("repeated sentence", "entropy", LOW), ("shuffled words", "entropy", HIGH), ("field", "margin", LOW)],
    ),
    (
        "signals.gradient_norm",
        {},
        {"model": "base"},
        [("shuffled words", "gradient_norm_mean", HIGH), ("field", "gradient_norm_mean", HIGH)],
    ),
    (
        "signals.loss_difference",
        {"per": "byte"},
        {"model": "base", "teacher": "teacher"},
        [("field", "diff_score", HIGH), ("random words", "diff_score", LOW)],
    ),
    (
        "signals.ekfac_influence",
        {"fit_rows": 60},
        {"model": "base", "queries": "guide"},
        [("field", "ekfac_influence", HIGH), ("shuffled words", "ekfac_influence", LOW)],
    ),
    (
        "signals.step_influence",
        {"reference_rows": 8, "moment_rows": 16, "max_length": 128},
        {"model": "base", "reference": "guide"},
        [("field", "influence", HIGH), ("random words", "influence", LOW)],
    ),
    ("signals.influence_regressor", {}, {"fit_on": "probed"}, [("field", "influence_hat", HIGH)]),
    (
        "signals.similarity_tfidf",
        {},
        {"reference": "guide"},
        [("field", "similarity", HIGH), ("contaminated", "similarity", HIGH)],
    ),
    (
        "signals.text_classifier",
        {},
        {"positives": "guide", "negatives": "general"},
        [("field", "p_positive", HIGH)],
    ),
    (
        "signals.heuristic_rules",
        {},
        {},
        [("repeated sentence", "rule_repeated_5grams", HIGH), ("random words", "rule_stop_words", LOW)],
    ),
    (
        "signals.lexical",
        {},
        {},
        [("repeated sentence", "compression", LOW), ("repeated sentence", "mtld", LOW)],
    ),
    ("signals.language", {}, {}, [("foreign", "language", HIGH)]),
    (
        "signals.neighbour_distance",
        {"column": "embedding", "k": 1},
        {},
        [("copy", "neighbour_distance", LOW)],
    ),
)


def pool(work: Path) -> tuple[list[Row], dict[str, list[Row]]]:
    """(rows with their kind in `planted`, the rows that stand beside: guide, measured)."""
    rng = np.random.default_rng(0)
    rows = read(work / "pool.jsonl")
    guide, target = read(work / "guide.jsonl"), read(work / "target.jsonl")
    plain = [row for row in rows if row["kind"] in ("fiction", "tasks", "maths")]
    plain = [plain[i] for i in rng.permutation(len(plain))]
    ordinary, plain = plain[:ORDINARY], plain[ORDINARY:]
    words = sorted({word for row in ordinary for word in row["text"].split()})
    made = [("original" if i < PLANTED else "ordinary", row["text"]) for i, row in enumerate(ordinary)]
    for number, row in enumerate(ordinary[:PLANTED]):
        own = row["text"].split()
        other = plain[number]["text"].split()
        edited = [words[rng.integers(len(words))] if i % 50 == 25 else word for i, word in enumerate(own)]
        leaked = [*other[:20], *target[number]["text"].split()[:60], *other[20:40]]
        made += [
            ("copy", row["text"]),
            ("edited copy", " ".join(edited)),
            ("contaminated", " ".join(leaked)),
            ("shuffled words", " ".join(rng.permutation(other))),
            ("random words", " ".join(words[i] for i in rng.integers(len(words), size=len(other)))),
            ("repeated sentence", " ".join([*other[:8], "and", str(number)] * 10)),
        ]
    made += [("field", row["text"]) for row in [r for r in rows if r["kind"] == "medical"][:PLANTED]]
    made += [("foreign", text) for text in _foreign()]
    beside = {"guide": guide, "target": target, "general": plain[PLANTED : 2 * PLANTED]}
    return [{"id": f"row-{i:05}", "text": text, "planted": kind} for i, (kind, text) in enumerate(made)], beside


def _foreign() -> list[str]:
    import pyarrow.parquet as pq

    table = pq.read_table(SHARED / "xquad/test.parquet", columns=["context", "lang"])
    found = sorted({row["context"][:600] for row in table.to_pylist() if row["lang"] == "es"})
    return found[:PLANTED]


def planted(work: Path) -> dict[str, Any]:
    """One line for every score and kind of row that it is meant to find."""
    from tutelage.core.apply import score_dataset
    from tutelage.core.dataset import Dataset
    from tutelage.core.discovery import build
    from tutelage.models.load import load_model

    start = time.monotonic()
    rows, beside = pool(work)
    data = score_dataset(
        build("signals.embedding_tfidf", {"dimensions": 32}), Dataset.from_rows(rows), {"seed": 0}
    )
    # What costs a pass over the guide for every row is tried on a third of them.
    third = data.keep(np.random.default_rng(1).random(len(rows)) < 1 / 3, "not probed")
    known: dict[str, Any] = {name: Dataset.from_rows(part) for name, part in beside.items()}
    known |= {name: load_model(str(work / name)) for name in ("base", "teacher")}
    lines: list[dict[str, Any]] = []
    for name, fields, given, wanted in MEANT:
        before = time.monotonic()
        asked = {key: known[value] for key, value in given.items()}
        probes = name == "signals.step_influence"
        made = score_dataset(build(name, fields), third if probes else data, {"seed": 0, **asked})
        known |= {"probed": made} if probes else {}
        seconds = round(time.monotonic() - before, 1)
        kinds = np.array(made.column("planted").to_pylist())
        for kind, column, sign in wanted:
            values = sign * _values(made, column)
            found = _auroc(values[kinds == kind], values[kinds == "ordinary"])
            line = {"method": name, "column": column, "wanted": "high" if sign > 0 else "low", "planted": kind}
            lines.append({**line, **found, "seconds": seconds})
    return {"lines": lines + _answers(work), "seconds": round(time.monotonic() - start, 1)}


def _values(data: Any, column: str) -> np.ndarray:
    """A column as numbers: names of copies and languages as whether they say something."""
    if column == "duplicate_of":
        return np.array([value is not None for value in data.column(column).to_pylist()], dtype=np.float64)
    if column == "language":
        return np.array([value != "en" for value in data.column(column).to_pylist()], dtype=np.float64)
    return data.numpy(column).astype(np.float64)


def _answers(work: Path) -> list[dict[str, Any]]:
    """Scores of answers, among which one in three belongs to another prompt, under the small base."""
    from tutelage.core.apply import score_dataset
    from tutelage.core.dataset import Dataset
    from tutelage.core.discovery import build
    from tutelage.models.load import load_model

    answered(work)
    rows = [row for row in read(work / "answered" / "pool.jsonl") if row["kind"] != "commands"]
    rng = np.random.default_rng(0)
    chosen = [rows[i] for i in rng.permutation(len(rows))[:240]]
    swapped = np.arange(len(chosen)) % 3 == 0
    places = np.flatnonzero(swapped)
    given = {int(a): chosen[int(b)]["completion"] for a, b in zip(places, np.roll(places, 1))}
    data = Dataset.from_rows(
        [{**row, "completion": given.get(i, row["completion"])} for i, row in enumerate(chosen)]
    )
    base = load_model(str(work / "answered" / "base"))
    lines = []
    for name, fields, column in (
        ("signals.grape", {"max_length": 512}, "fit_score"),
        ("signals.clear", {"samples": 3, "max_new_tokens": 32, "beta": 1.0}, "clear_conf"),
    ):
        before = time.monotonic()
        values = _values(score_dataset(build(name, fields), data, {"seed": 0, "model": base}), column)
        line = {"method": name, "column": column, "wanted": "low", "planted": "answer of another prompt"}
        seconds = round(time.monotonic() - before, 1)
        lines.append({**line, **_auroc(-values[swapped], -values[~swapped]), "seconds": seconds})
    return lines


def _auroc(found: np.ndarray, others: np.ndarray) -> dict[str, Any]:
    from tutelage.signals.clear import auroc

    rng = np.random.default_rng(0)
    found, others = found[np.isfinite(found)], others[np.isfinite(others)]
    drawn = [auroc(rng.choice(found, len(found)), rng.choice(others, len(others))) for _ in range(2000)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {
        "rows": len(found),
        "others": len(others),
        "auroc": auroc(found, others),
        "interval": {"lo": float(low), "hi": float(high), "level": 0.95},
    }
