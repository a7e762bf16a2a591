"""Ledger and store -> `View`: what a sceptical reader needs to judge a run, verdict first.

Nothing is computed here that the run did not record; the page only chooses, orders and words.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from markupsafe import Markup

from tutelage.core.store import Store
from tutelage.report.render import Example, Table, Verdict, View
from tutelage.report.svg import Series, Whisker, difference_chart, interval_chart, line_chart
from tutelage.runs import payload
from tutelage.runs.ledger import Ledger
from tutelage.runs.paths import STATE

TONE = {"better": "better", "worse": "worse", "equivalent": "equivalent", "undecided": "undecided"}
EXAMPLES = 5


def build_view(workspace: Path, run_id: str = "latest") -> View:
    """The page about one run; raises InputError when the run is not in the ledger."""
    run = Ledger(workspace).run(run_id)
    store = Store(workspace / STATE / "store")
    table = run["comparison"]
    return View(
        title=f"{run['name']}: did it really get better?",
        subtitle=f"run {run['run_id']}, {run['status']}, started {run['started']}, finished {run['finished']}",
        headline=headline(run),
        verdicts=verdicts(table) if table else [],
        notes=notes(run),
        plots=plots(run, store),
        tables=tables(run),
        examples=[*selected(run, store), *dropped(run, store)],
        samples=samples(run, store),
        recipe=yaml.safe_dump(run["recipe"], sort_keys=False, allow_unicode=True),
        environment=environment(run),
        loading=loading(run, workspace, store),
        untested=untested(run),
    )


def headline(run: dict[str, Any]) -> str:
    """The answer in one sentence."""
    table = run["comparison"]
    if run["error"]:
        return f"The run did not finish: {run['error'].get('what')}"
    if not table:
        results = [r["result"] for r in run["results"]]
        if not results:
            return "The run measured nothing."
        return "; ".join(f"{r['task']} {r['metric']} {r['estimate']:.4g}" for r in results[:4])
    primary = [pair for pair in table["pairs"] if pair["primary"]]
    groups: dict[str, list[str]] = {}
    for pair in primary:
        groups.setdefault(pair["verdict"]["outcome"], []).append(f"{pair['a']} against {pair['b']}")
    return "; ".join(f"{outcome}: {', '.join(names)}" for outcome, names in groups.items()) + "."


def verdicts(table: dict[str, Any]) -> list[Verdict]:
    """One row per comparison, declared ones first."""
    rows = []
    for pair in sorted(table["pairs"], key=lambda pair: not pair["primary"]):
        comparison, verdict, cost = pair["comparison"], pair["verdict"], pair["cost"]
        interval = verdict["interval"] or comparison["interval"]
        scope = "any training seed" if comparison["scope"] == "method" else "these runs only"
        sentence = (
            f"{verdict['text']}. {comparison['n_items']} items in {comparison['n_clusters']} clusters, "
            f"{comparison['n_seeds']} seeds; speaks of {scope}; covers {comparison['covers']}; "
            f"{comparison['method']}. {pair['cost_note']}"
        )
        rows.append(
            Verdict(
                name=f"{pair['a']} against {pair['b']}, {pair['step']}",
                verdict=verdict["outcome"],
                tone=TONE.get(verdict["outcome"], "refused"),
                sentence=sentence,
                difference=f"{comparison['estimate']:+.4f}",
                interval=_interval(interval),
                p=_number(verdict["adjusted_p"], ".2g"),
                mde=_number(comparison["mde"], ".4f"),
                cost_ratio=_number(cost["ratio"] if cost else None, ".3f"),
                primary=pair["primary"],
            )
        )
    return rows


def notes(run: dict[str, Any]) -> list[str]:
    """What must be read beside the verdicts."""
    found = []
    table = run["comparison"]
    if table:
        declared = table["declared"]
        found.append(
            f"Declared before running (hash {declared.get('hash', '')}, {declared.get('at', '')}): "
            + ", ".join(f"{a} against {b}" for a, b in declared["primary"])
            + ". A positive difference is an improvement. Declared rows are corrected by Holm, the others by "
            "Benjamini-Hochberg and called exploratory."
        )
        if table["oracle"] is not None:
            oracle, baseline = table["oracle"], table["baseline"]
            found.append(f"This bed {table['bed']} its oracle ({oracle}) from the baseline ({baseline}).")
        found += table["notes"]
    for gate in run["gates"]:
        state = "passed" if gate["passed"] else "FAILED"
        arm = f" [{gate['arm']}]" if gate.get("arm") else ""
        found.append(f"Gate {gate['name']}{arm}: {state}; {gate['reason']}.")
    return [note for note in found if note]


def plots(run: dict[str, Any], store: Store) -> list[tuple[str, Markup, str]]:
    """Differences with intervals, per-item differences of the first declared pair, loss curves, cost."""
    found = []
    table = run["comparison"]
    if table:
        rows = []
        for pair in (p for p in table["pairs"] if p["step"] == table["metric_step"]):
            interval = pair["verdict"]["interval"] or pair["comparison"]["interval"]
            lo, hi = (interval["lo"], interval["hi"]) if interval else (None, None)
            tone = TONE.get(pair["verdict"]["outcome"], "refused")
            rows.append(Whisker(f"{pair['a']} - {pair['b']}", pair["comparison"]["estimate"], lo, hi, tone))
        unit = _unit(table)
        chart = interval_chart(rows, title="Differences", x_label=f"improvement in {unit}")
        found.append(("Differences", chart, "Right of zero is better. Bars are the intervals of the verdicts."))
        first = next((p for p in table["pairs"] if p["primary"] and p["step"] == table["metric_step"]), None)
        if first is not None:
            chart = difference_chart(
                item_differences(table, first, store), title="Per item", y_label=f"improvement in {unit}"
            )
            caption = (
                f"{first['a']} against {first['b']}, each item's mean over seeds: does it rest on a few items?"
            )
            found.append(("Item by item", chart, caption))
    curves = loss_curves(run, store)
    chart = line_chart(curves, title="Training loss", x_label="trained tokens", y_label="loss (nats per token)")
    found.append(
        ("Training loss", chart, "Mean loss of each step; one line for each run (the first seed of each arm).")
    )
    return [plot for plot in found if plot[1]]


def item_differences(table: dict[str, Any], pair: dict[str, Any], store: Store) -> list[float]:
    """Improvement of A over B on every item, averaged over seeds."""
    scores = {}
    for name in (pair["a"], pair["b"]):
        arm = next(arm for arm in table["arms"] if arm["name"] == name)
        measured = arm["results"].get(pair["step"])
        sums: dict[str, list[float]] = {}
        for key in measured["keys"] if measured else []:
            artifact = store.get(key)
            items = payload.load_result(artifact.path).items if artifact else None
            for row in items.table.select(["item_key", "score"]).to_pylist() if items else []:
                sums.setdefault(row["item_key"], []).append(row["score"])
        scores[name] = {key: float(np.mean(values)) for key, values in sums.items()}
    a, b = scores[pair["a"]], scores[pair["b"]]
    return [pair["comparison"]["direction"] * (a[key] - b[key]) for key in a if key in b]


def loss_curves(run: dict[str, Any], store: Store) -> list[Series]:
    """One line per arm: its first seed's loss over trained tokens (searches left out)."""
    chosen: dict[str, dict[str, Any]] = {}
    for step in run["steps"]:
        if step["kind"] == "Trainer" and not (step["arm"] or "").endswith("(search)"):
            label = step["arm"] or step["step"]
            known = chosen.get(label)
            if known is None or (step["seed"] or 0) < (known["seed"] or 0):
                chosen[label] = step
    series = []
    for label, step in chosen.items():
        artifact = store.get(step["key"])
        fit = payload.load_fit(artifact.path) if artifact else None
        if fit:
            series.append(Series(label, np.cumsum(fit["step_tokens"]).tolist(), fit["losses"]))
    return series


def tables(run: dict[str, Any]) -> list[Table]:
    """Arms with figures and costs, then every step."""
    found = []
    table = run["comparison"]
    if table:
        rows = []
        for arm in table["arms"]:
            if arm["failed"]:
                rows.append([arm["name"], "no result: " + arm["failed"], "", "", "", "", ""])
                continue
            measured = arm["results"][table["metric_step"]]
            costs = arm["cost"]
            mean = lambda key, costs=costs: sum(c[key] for c in costs) / max(len(costs), 1)  # noqa: E731
            rows.append(
                [
                    arm["name"] + (f" ({', '.join(arm['roles'])})" if arm["roles"] else ""),
                    f"{measured['estimate']:.4f} {_interval(_pair(measured['interval']))}",
                    ", ".join(f"{value:.4f}" for value in measured["per_seed"]),
                    "; ".join(
                        f"{step} {m['estimate']:.3f}"
                        for step, m in arm["results"].items()
                        if step != table["metric_step"]
                    ),
                    f"{mean('trained_tokens'):.0f}" if arm["trained"] else "",
                    f"{mean('forward_flops') + mean('backward_flops'):.3g}" if arm["trained"] else "",
                    f"{mean('seconds'):.0f}",
                ]
            )
        heads = ["arm", table["metric_step"], "per seed", "also", "trained tokens", "FLOPs", "seconds"]
        found.append(
            Table(
                "Arms: what each reached and what making its model cost, per seed, as if nothing had been cached",
                heads,
                rows,
                "The search for a learning rate is charged equally to all trained arms: "
                + "; ".join(_search(arm) for arm in table["arms"] if arm["trials"]),
            )
        )
    found += training_rows(run)
    steps: Counter[tuple[str, str]] = Counter()
    seconds: dict[tuple[str, str], float] = {}
    for step in run["steps"]:
        key = (step["step"], step["method"])
        steps[key] += 1
        seconds[key] = seconds.get(key, 0.0) + (step["paid"]["seconds"] if step["paid"] else 0.0)
    rows = [[name, method, count, f"{seconds[name, method]:.1f}"] for (name, method), count in steps.items()]
    found.append(Table("Steps of this run", ["step", "method", "times", "seconds paid"], rows))
    return found


def training_rows(run: dict[str, Any]) -> list[Table]:
    """What each arm's training did with its rows: cut ones lost tokens, dropped ones taught nothing."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for step in run["steps"]:
        if step["kind"] == "Trainer" and not (step["arm"] or "").endswith("(search)") and "rows" in step["facts"]:
            kept = {key: step["facts"].get(key) or 0 for key in ("rows", "truncated_rows", "dropped_rows")}
            counts.setdefault((step["arm"] or "", step["step"]), Counter()).update({**kept, "runs": 1})
    if not counts:
        return []

    def part(count: int, of: int) -> str:
        return f"{count} ({count / of:.1%})" if count else "0"

    rows = []
    for (arm, step), count in counts.items():
        trained, dropped = count["rows"], count["dropped_rows"]
        truncated = part(count["truncated_rows"], trained)
        rows.append([arm or step, count["runs"], trained, truncated, part(dropped, trained + dropped)])
    note = (
        "Summed over the runs of an arm. A truncated row is longer than the context and lost tokens; "
        "a dropped one left nothing to train on."
    )
    return [Table("Rows in training", ["arm", "runs", "trained on", "truncated", "dropped"], rows, note)]


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
        artifact = store.get(step["key"]) if feeds_training else None
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


def _dropped_examples(
    run: dict[str, Any], store: Store, step: dict[str, Any], sources: list[str]
) -> list[Example]:
    artifact = store.get(step["key"])
    before = next((s for s in run["steps"] if sources and s["step"] == sources[0]), None)
    source = store.get(before["key"]) if before else None
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
        artifact = store.get(entry["key"])
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


def environment(run: dict[str, Any]) -> list[tuple[str, str]]:
    """Machine and versions, flat."""
    flat = []
    for key, value in run["environment"].items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        flat.append((key, text))
    models = run["recipe"].get("models", {})
    coded = [name for name, spec in models.items() if spec.get("allow_remote_code")]
    if coded:
        flat.append(("allowed to run code of their own", ", ".join(coded)))
    return [*flat, ("recipe hash", run["recipe_hash"]), ("options", json.dumps(run["options"]))]


def loading(run: dict[str, Any], workspace: Path, store: Store) -> str:
    """How to use the trained models."""
    lines: list[str] = []
    for step in run["steps"]:
        artifact = store.get(step["key"]) if step["kind"] == "Trainer" else None
        if (
            artifact is not None
            and (step["seed"] in (None, 0))
            and (step["arm"] or step["step"]) not in "".join(lines)
        ):
            path = artifact.path / payload.MODEL
            place = path.relative_to(workspace) if path.is_relative_to(workspace) else path.name
            lines.append(f"# {step['arm'] or step['step']}\ntutelage chat {place}\n")
    example = [
        "# in Python",
        "from tutelage.models.load import load_model",
        "print(load_model('FOLDER').generate(['Hello'])[0].text)",
    ]
    return "\n".join([*lines, *example]) if lines else ""


def untested(run: dict[str, Any]) -> list[str]:
    """What this run cannot say."""
    found = ["Other base models, other fields and larger budgets: a claim holds for what was compared here."]
    if run["options"].get("limit"):
        found.insert(0, f"This was a try-out with --limit {run['options']['limit']}: its figures mean nothing.")
    table = run["comparison"]
    if table and table["oracle"] is None:
        found.append("No oracle arm bounded what could have been reached.")
    if table and len(table["arms"][0]["seeds"] or (0, 0, 0)) < 3:
        found.append("Fewer than three training seeds: the verdicts speak of these runs only.")
    return found


def _search(arm: dict[str, Any]) -> str:
    trials = ", ".join(
        f"{t['value']}: {t['estimate']:.4f}" if t["estimate"] is not None else f"{t['value']}: {t['reason']}"
        for t in arm["trials"]
    )
    return f"{arm['name']} ({trials}; chosen {arm['tuned']})"


def _unit(table: dict[str, Any]) -> str:
    for arm in table["arms"]:
        measured = arm["results"].get(table["metric_step"])
        if measured:
            return measured["unit"] or measured["metric"]
    return "the metric"


def _interval(interval: dict[str, Any] | None) -> str:
    return f"[{interval['lo']:+.4f}, {interval['hi']:+.4f}]" if interval else "none"


def _pair(pair: Sequence[float] | None) -> dict[str, Any] | None:
    return None if pair is None else {"lo": pair[0], "hi": pair[1]}


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _list(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value] if value else []
