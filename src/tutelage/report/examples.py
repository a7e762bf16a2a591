"""Text on the page as it is: rows that were trained on, rows that were dropped, what models wrote."""

from typing import Any

from tutelage.core.store import Store
from tutelage.report.render import Example
from tutelage.runs import payload

EXAMPLES = 5
DOUBT = ("label_suspect", "label_error_confidence", "suggested_label")


def selected(run: dict[str, Any], store: Store) -> list[tuple[str, list[Example]]]:
    """The first rows that every arm trained on, with their scores."""
    found = []
    seen = set()
    for step in run["steps"]:
        if not step["method"].startswith("data.select.") or step["arm"] in seen or not step["facts"].get("rows"):
            continue
        names = {s["name"]: s for s in run["recipe"]["steps"]}
        feeds_training = any(
            s["use"].startswith(("training.", "data.augment.")) and step["step"] in _list(s.get("from"))
            for s in names.values()
        )
        artifact = store.whole(step["key"]) if feeds_training else None
        if artifact is None:
            continue
        seen.add(step["arm"])
        data = payload.load_dataset(artifact.path)
        scores = [c for c in data.column_names if c in ("similarity", "nll_mean", "score")]
        rows = [
            Example(
                f"{row.get('source') or row['id']}",
                str(row.get("text") or row.get("prompt") or ""),
                ", ".join(f"{c} {row[c]:.3f}" for c in scores if row[c] is not None),
            )
            for _, row in zip(range(EXAMPLES), data.rows())
        ]
        found.append((f"What {step['arm'] or step['step']} was trained on ({data.num_rows} rows)", rows))
    return found


def dropped(run: dict[str, Any], store: Store) -> list[tuple[str, list[Example]]]:
    """What filters removed: counts by reason and the first examples with the evidence they carry."""
    found = []
    seen = set()
    rows_by_step = {s["name"]: s for s in run["recipe"]["steps"]}
    for step in run["steps"]:
        if step["step"] in seen or not step["facts"].get("dropped") or step["method"].startswith("data.select."):
            continue
        seen.add(step["step"])
        reasons = step["facts"].get("reasons", {})
        lines = [f"{count} rows: {reason}" for reason, count in list(reasons.items())[:EXAMPLES]]
        items = [Example(f"{step['facts']['dropped']} of {step['facts']['rows_in']} rows", "\n".join(lines))]
        items += _dropped_examples(run, store, step, _list(rows_by_step.get(step["step"], {}).get("from")))
        found.append((f"What {step['step']} removed", items))
    return found


def suspects(run: dict[str, Any], store: Store) -> list[tuple[str, list[Example]]]:
    """Labels that signals.label_errors doubts, those doubted most often first, then the surest."""
    doubted: dict[str, list[dict[str, Any]]] = {}
    checks: dict[str, int] = {}
    for key in {step["key"]: None for step in run["steps"] if step["method"] == "signals.label_errors"}:
        artifact = store.whole(key)
        if artifact is None:
            continue
        for row in payload.load_dataset(artifact.path).rows(["id", "text", "label", *DOUBT]):
            if row["label_suspect"] is None:
                continue
            checks[row["id"]] = checks.get(row["id"], 0) + 1
            if row["label_suspect"]:
                doubted.setdefault(row["id"], []).append(row)
    if not checks:
        return []
    ordered = sorted(doubted, key=lambda i: (-len(doubted[i]) / checks[i], -_surest(doubted[i])[DOUBT[1]], i))
    found = []
    for identifier in ordered[: 2 * EXAMPLES]:
        row = _surest(doubted[identifier])
        said = f"label {row['label']}; judged {row['suggested_label']} ({row[DOUBT[1]]:.2f})"
        times = f"in {len(doubted[identifier])} of {checks[identifier]} checks"
        found.append(Example(identifier, row["text"], f"{said}, {times}"))
    return [(f"Labels to look at again ({len(doubted)} of {len(checks)} labelled rows)", found)]


def _surest(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return max(rows, key=lambda row: row[DOUBT[1]])


def _dropped_examples(
    run: dict[str, Any], store: Store, step: dict[str, Any], sources: list[str]
) -> list[Example]:
    artifact = store.whole(step["key"])
    before = next((s for s in run["steps"] if sources and s["step"] == sources[0]), None)
    source = store.whole(before["key"]) if before else None
    if artifact is None or source is None:
        return []
    wanted = {
        row["id"]: row["reason"] for row in payload.load_dataset(artifact.path).dropped.slice(0, 3).to_pylist()
    }
    data = payload.load_dataset(source.path)
    if not wanted or "text" not in data.column_names:
        return []
    found = []
    evidence = [c for c in ("contamination_snippet", "contamination_item") if c in data.column_names]
    for row in data.rows(["id", "text", *evidence]):
        if row["id"] in wanted:
            shown = "; ".join(f"{c.replace('_', ' ')}: {row[c]}" for c in evidence if row[c])
            found.append(Example(row["id"], row["text"], f"{wanted[row['id']]}{'; ' + shown if shown else ''}"))
            if len(found) == len(wanted):
                break
    return found


def samples(run: dict[str, Any], store: Store) -> list[tuple[str, list[Example]]]:
    """What models wrote to the same prompts: every arm's first seed, where a step generated text."""
    answers: dict[str, list[Example]] = {}
    seen = set()
    # Arms ran in another order than the recipe's, which is the one that readers know.
    order = [arm["name"] for arm in run["comparison"]["arms"]] if run["comparison"] else []
    for entry in sorted(run["results"], key=lambda e: order.index(e["arm"]) if e["arm"] in order else -1):
        label = entry["arm"] or entry["step"]
        if (label, entry["step"]) in seen:
            continue
        artifact = store.whole(entry["key"])
        items = payload.load_result(artifact.path).items if artifact else None
        if items is None or "prediction" not in items.table.column_names:
            continue
        rows = items.table.to_pylist()
        if not any(row["prediction"] for row in rows) or not any(row.get("tokens_out") for row in rows):
            continue
        seen.add((label, entry["step"]))
        for row in rows[:: max(1, len(rows) // 4)][:4]:
            title = f"{label}: {'passed' if row['score'] else 'failed'}"
            answers.setdefault(_prompt(row), []).append(Example(title, row["prediction"] or ""))
    return list(answers.items())


def _prompt(row: dict[str, Any]) -> str:
    target = row.get("target") or ""
    return f"item {row['item_key'][:12]}, wanted {target[:200]}"


def _list(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value] if value else []
