"""Per-item results of other tools, read into item logs: one per (task, metric).

- A folder of lm-evaluation-harness output: `results_*.json` (`higher_is_better`) and `samples_*.jsonl` (doc,
  target, filtered_resps, filter, metrics, doc_hash, prompt_hash, target_hash, one column per metric). Items are
  named by (task, filter, doc_hash, target_hash, occurrence): a row number does not say which item it is.
- A JSONL file of per-item scores: a key (`item_key`, `id`, `doc_id` ...) and one or more numeric columns.
- An item log saved by this package (Parquet).

A folder with subfolders `seed0`, `seed1` ... holds one run per training seed. A folder of plain JSONL files holds
one task per file.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from tutelage.core import json_text
from tutelage.core.errors import InputError
from tutelage.core.items import ItemLog, item_keys

KEY_COLUMNS = ("item_key", "id", "key", "doc_id", "example_id", "question_id", "uid")
SEED_COLUMNS = ("train_seed", "seed")
WEIGHT_COLUMNS = ("weight", "n_bytes", "bytes")
# What is numeric in a row of scores and yet no score.
NOT_SCORES = {
    *KEY_COLUMNS,
    *SEED_COLUMNS,
    *WEIGHT_COLUMNS,
    "sample_index",
    "cluster",
    "group",
    "task",
    "system_id",
}
NOT_SCORES |= {"status", "tokens_in", "tokens_out", "prediction", "target", "index", "idx", "row"}
LOWER_IS_BETTER = re.compile(
    r"loss|nll|perplexity|ppl|bits_per_byte|bpb|(^|_)(error|err|wer|cer|ter|mse|mae|rmse)(_|$)|brier"
)
# Metrics of rolling log-likelihood, stored by the harness as [log-likelihood in nats, count of units].
ROLLING = {"bits_per_byte": math.log(2), "byte_perplexity": 1.0, "word_perplexity": 1.0}

Logs = dict[tuple[str, str], ItemLog]


def import_results(path: str | Path, cluster: str | None = None) -> Logs:
    """Read one system's results: (task, metric) -> ItemLog.

    `cluster` names the field (of a row or of its `doc`; dots go down) whose equal values make items one cluster.
    Raises InputError naming file and line for anything that cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise InputError("no such results", where=path, expected="a folder, a .jsonl or a .parquet file")
    if path.is_file():
        return _from_file(path, cluster)
    runs = {int(m[1]): p for p in path.iterdir() if p.is_dir() and (m := re.fullmatch(r"seed[-_]?(\d+)", p.name))}
    if runs:
        return _merged({seed: import_results(runs[seed], cluster) for seed in sorted(runs)}, path)
    samples = sorted(path.rglob("samples_*.jsonl"))
    if samples:
        return _from_harness(path, samples, cluster)
    files = sorted([*path.glob("*.jsonl"), *path.glob("*.parquet")])
    if not files:
        raise InputError(
            "nothing to read in the folder",
            where=path,
            expected="samples_*.jsonl of lm-eval (--log_samples), or .jsonl or .parquet files of per-item scores",
        )
    logs: Logs = {}
    for file in files:
        for (task, metric), log in _from_file(file, cluster, file.stem).items():
            if (task, metric) in logs:
                raise InputError("two files hold the same task", where=file, found=f"{task}, {metric}")
            logs[task, metric] = log
    return logs


def direction_of(metric: str, higher_is_better: bool | None = None) -> int:
    """+1 when larger is better, -1 when smaller is: as stated by the tool, else from the metric's name."""
    if higher_is_better is not None:
        return 1 if higher_is_better else -1
    return -1 if LOWER_IS_BETTER.search(metric.lower()) else 1


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, row) of every line; a broken line is an error that names it."""
    found = False
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json_text.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError as error:
                raise InputError("not UTF-8", where=f"{path}, line {number}", found=error.reason) from None
            except ValueError as error:
                raise InputError(
                    "not a line of JSON",
                    where=f"{path}, line {number}",
                    found=f"{error.msg} at column {error.colno}" if isinstance(error, JSONDecodeError) else error,
                    remedy="the last line of a run that was cut off is often torn: remove it, or run again",
                ) from None
            if not isinstance(row, dict):
                raise InputError("not a JSON object", where=f"{path}, line {number}", found=type(row).__name__)
            found = True
            yield number, row
    if not found:
        raise InputError("the file is empty", where=path, expected="one JSON object per line")


def _from_file(path: Path, cluster: str | None, task_name: str = "items") -> Logs:
    # Two files given by name are one task, whatever they are called (a.jsonl, b.jsonl).
    if path.suffix == ".parquet":
        log = ItemLog.load(path)
        return {(str(log.metadata.get("task", task_name)), str(log.metadata.get("metric", "score"))): log}
    if path.suffix != ".jsonl":
        raise InputError("unknown kind of results file", where=path, expected=".jsonl or .parquet")
    by_task: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for number, row in read_jsonl(path):
        by_task.setdefault(str(row.get("task", task_name)), []).append((number, row))
    logs: Logs = {}
    for task, rows in by_task.items():
        for metric in _score_columns(rows, path):
            logs[task, metric] = _plain_log(rows, task, metric, cluster, path)
    return logs


def _score_columns(rows: list[tuple[int, dict[str, Any]]], path: Path) -> list[str]:
    number, first = rows[0]
    names = [n for n, v in first.items() if isinstance(v, bool | int | float) and n not in NOT_SCORES]
    if not names:
        raise InputError(
            "no column of scores",
            where=f"{path}, line {number}",
            expected="a numeric or boolean column such as score, correct or acc",
            found=", ".join(first),
        )
    return names


def _plain_log(
    rows: list[tuple[int, dict[str, Any]]], task: str, metric: str, cluster: str | None, path: Path
) -> ItemLog:
    key_column = next((name for name in KEY_COLUMNS if name in rows[0][1]), None)
    if key_column is None:
        raise InputError(
            "the rows have no item key, and row numbers cannot pair two files",
            where=f"{path}, line {rows[0][0]}",
            expected="one of " + ", ".join(KEY_COLUMNS),
            found=", ".join(rows[0][1]),
        )
    items = []
    for number, row in rows:
        if row.get(key_column) is None:
            raise InputError(
                f"a row lacks its {key_column}",
                where=f"{path}, line {number}",
                expected=f"{key_column}, as in the first row",
                found=", ".join(row),
            )
        item = {
            "item_key": str(row[key_column]),
            "train_seed": next((row[name] for name in SEED_COLUMNS if row.get(name) is not None), None),
            "score": _number(row.get(metric), metric, f"{path}, line {number}"),
            "cluster": _cluster(row, cluster, f"{path}, line {number}"),
        }
        item |= {
            n: row[n]
            for n in ("sample_index", "status", "prediction", "target", "group")
            if row.get(n) is not None
        }
        weight = next((row[name] for name in WEIGHT_COLUMNS if row.get(name) is not None), None)
        items.append(item if weight is None else {**item, "weight": weight})
    return ItemLog.from_rows(items, {"task": task, "metric": metric, "direction": direction_of(metric)})


def _from_harness(folder: Path, samples: list[Path], cluster: str | None) -> Logs:
    stated = _higher_is_better(folder)
    newest: dict[str, Path] = {}
    for path in samples:
        # samples_<task>_<date>.jsonl: sorted by name, so the last of a task is its newest run.
        newest[re.sub(r"_\d{4}-\d{2}-\d{2}T.*$", "", path.stem.removeprefix("samples_"))] = path
    logs: Logs = {}
    for task, path in newest.items():
        numbered = list(read_jsonl(path))
        filters = list(dict.fromkeys(str(row.get("filter", "none")) for _, row in numbered))
        for name in filters:
            rows = [(number, row) for number, row in numbered if str(row.get("filter", "none")) == name]
            keys = item_keys(task, (_identity(row, name) for _, row in rows))
            for metric in _harness_metrics(rows):
                label = metric if name == "none" else f"{metric},{name}"
                items = [
                    _harness_item(key, n, row, metric, cluster, path)
                    for key, (n, row) in zip(keys, rows, strict=True)
                ]
                metadata = {
                    "task": task,
                    "metric": label,
                    "direction": direction_of(metric, stated.get(task, {}).get(metric)),
                    "prompts": sorted(str(row["prompt_hash"]) for _, row in rows if row.get("prompt_hash")),
                }
                logs[task, label] = ItemLog.from_rows(items, metadata)
    return logs


def _identity(row: Mapping[str, Any], filter_name: str) -> dict[str, Any]:
    hashes = {name: row[name] for name in ("doc_hash", "target_hash") if row.get(name)}
    if len(hashes) < 2:
        hashes = {"doc": row.get("doc"), "target": row.get("target")}
    return {**hashes, "filter": filter_name}


def _harness_metrics(rows: list[tuple[int, dict[str, Any]]]) -> list[str]:
    first = rows[0][1]
    listed = first.get("metrics") or [n for n in ("acc", "acc_norm", "exact_match", *ROLLING) if n in first]
    named = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    return [name for name in dict.fromkeys(named) if _usable(first.get(name), name)]


def _usable(value: Any, metric: str) -> bool:
    return isinstance(value, bool | int | float) or (
        metric in ROLLING and isinstance(value, list) and len(value) == 2
    )


def _harness_item(
    key: str, number: int, row: Mapping[str, Any], metric: str, cluster: str | None, path: Path
) -> dict[str, Any]:
    where = f"{path}, line {number}"
    value = row.get(metric)
    responses = row.get("filtered_resps")
    answer = responses[0] if isinstance(responses, list) and responses else responses
    item: dict[str, Any] = {
        "item_key": key,
        "prediction": answer if isinstance(answer, str) else json.dumps(answer),
        "target": None if row.get("target") is None else str(row["target"]),
        "status": "unparsed" if answer == "[invalid]" else "ok",
        "cluster": _cluster(row, cluster, where),
    }
    if metric in ROLLING and isinstance(value, list) and len(value) == 2:
        log_likelihood, count = (_number(part, metric, where) for part in value)
        if count <= 0:
            raise InputError(
                f"{metric} is of nothing",
                where=where,
                expected="[log-likelihood, how many words or bytes it is of]",
                found=repr(value),
                remedy="leave the row out: an empty document has no loss",
            )
        return {**item, "score": -log_likelihood / (ROLLING[metric] * count), "weight": count}
    return {**item, "score": _number(value, metric, where)}


def _higher_is_better(folder: Path) -> dict[str, dict[str, bool]]:
    stated: dict[str, dict[str, bool]] = {}
    for path in sorted(folder.rglob("results_*.json")):
        try:
            content = json_text.loads(path.read_text(encoding="utf-8-sig"))
        except ValueError as error:
            raise InputError("cannot read the results file", where=path, expected="JSON", found=error) from None
        found = content.get("higher_is_better") if isinstance(content, dict) else None
        for task, metrics in found.items() if isinstance(found, dict) else ():
            if isinstance(metrics, dict):
                stated.setdefault(task, {}).update({m: v for m, v in metrics.items() if isinstance(v, bool)})
    return stated


def _merged(runs: Mapping[int, Logs], path: Path) -> Logs:
    shared = set.intersection(*(set(logs) for logs in runs.values()))
    if not shared:
        raise InputError("the seeds share no task", where=path, found=", ".join(f"seed{seed}" for seed in runs))
    logs: Logs = {}
    for name in sorted(shared):
        rows: Iterable[dict[str, Any]] = (
            {**row, "train_seed": seed} for seed, run in runs.items() for row in run[name].table.to_pylist()
        )
        logs[name] = ItemLog.from_rows(rows, next(iter(runs.values()))[name].metadata)
    return logs


def _cluster(row: Mapping[str, Any], field: str | None, where: str) -> str | None:
    if field is None:
        value = row.get("cluster")
        return None if value is None else str(value)
    for source in (row, row.get("doc")):
        value = source
        for part in field.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            return str(value)
    raise InputError(
        f"the row has no field {field!r} to cluster by", where=where, found="fields " + ", ".join(map(str, row))
    )


def _number(value: Any, metric: str, where: str) -> float:
    if not isinstance(value, bool | int | float) or not -1e300 < value < 1e300:
        raise InputError(
            f"{metric} is not a finite number",
            where=where,
            found=repr(value),
            remedy="score a failed item with the task's failure score and say so in a `status` column",
        )
    return float(value)
