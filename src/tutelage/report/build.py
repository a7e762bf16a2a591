"""Ledger and store -> `View`: what a sceptical reader needs to judge a run, verdict first.

Nothing is computed here that the run did not record; the page only chooses, orders and words.
"""

import json
from pathlib import Path
from typing import Any

import yaml

from tutelage.core.store import Store
from tutelage.report.examples import dropped, samples, selected, suspects
from tutelage.report.forecasts import forecast_notes, forecast_plots, forecast_tables
from tutelage.report.plots import plots
from tutelage.report.render import TONE, Verdict, View
from tutelage.report.tables import interval_text, tables
from tutelage.report.trust import left_out, trust_headline, trust_tables, trust_verdicts
from tutelage.runs import payload
from tutelage.runs.ledger import Ledger
from tutelage.runs.paths import STATE


def build_view(workspace: Path, run_id: str = "latest") -> View:
    """The page about one run; raises InputError when the run is not in the ledger."""
    run = Ledger(workspace).run(run_id)
    store = Store(workspace / STATE / "store")
    table = run["comparison"]
    # Without arms a run tells of one model: what may be said of it, and what not.
    trust = table is None and bool(run["results"]) and not run["error"]
    question = "what can be trusted?" if trust else "did it really get better?"
    return View(
        title=f"{run['name']}: {question}",
        subtitle=f"run {run['run_id']}, {run['status']}, started {run['started']}, finished {run['finished']}",
        headline=headline(run),
        verdicts=verdicts(table) if table else trust_verdicts(run) if trust else [],
        notes=notes(run),
        plots=plots(run, store),
        tables=[*(trust_tables(run) if trust else []), *tables(run)],
        forecasts=forecast_notes(run),
        forecast_plots=forecast_plots(run),
        forecast_tables=forecast_tables(run),
        examples=[*selected(run, store), *dropped(run, store), *suspects(run, store)],
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
        return trust_headline(run) if run["results"] else "The run measured nothing."
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
                interval=interval_text(interval),
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
    for gate in run["gates"] if table else []:
        state = "passed" if gate["passed"] else "FAILED"
        arm = f" [{gate['arm']}]" if gate.get("arm") else ""
        found.append(f"Gate {gate['name']}{arm}: {state}; {gate['reason']}.")
    return [note for note in found if note]


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
    if table is None and run["results"]:
        return [*found[:-1], *left_out(run)]
    if table and table["oracle"] is None:
        found.append("No oracle arm bounded what could have been reached.")
    if table and len(table["arms"][0]["seeds"] or (0, 0, 0)) < 3:
        found.append("Fewer than three training seeds: the verdicts speak of these runs only.")
    return found


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
