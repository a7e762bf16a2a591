"""The trust report: what was measured of one model, what the gates say, in words a release manager can sign.

Every row names the claim, the figure with its interval and what the interval covers, the items, the failures and
the price; the figures beside it are those that keep it from being misread. Nothing is computed that the run did
not record.
"""

from typing import Any, NamedTuple

from tutelage.report.render import Table, Verdict


class Wording(NamedTuple):
    """How one audit is told: its question, how to read it, and which further figures belong to it (one that ends
    in [ or _ is a beginning)."""

    question: str
    reading: str
    figures: tuple[str, ...] = ()


WORDING = {
    "evaluation.bits_per_byte": Wording("How well does it know this text?", "smaller is better"),
    "evaluation.multiple_choice": Wording("How many questions does it answer rightly?", "", ("acc", "ties")),
    "evaluation.exact_match": Wording("How many answers are exactly right?", ""),
    "evaluation.classification": Wording("How many texts does it classify rightly?", ""),
    "evaluation.instruction_following": Wording(
        "How many instructions does it follow, checked by code?", "", ("rules", "degenerate")
    ),
    "evaluation.transfer_matrix": Wording(
        "What did training destroy?",
        "change of the worst protected probe from before to after; below 0 is harm; 1 under no_harm: harm beyond "
        "the margin is ruled out, -1: it is shown, 0: undecided",
        ("change[", "no_harm[", "forgetting["),
    ),
    "evaluation.calibration": Wording(
        "Do stated probabilities come true?",
        "a calibration error means something only beyond the one that perfect calibration shows on these items",
        ("ece", "accuracy", "confidence", "overconfidence", "auroc"),
    ),
    "evaluation.option_bias": Wording(
        "Do answers change with the order of the options?",
        "share of questions; entropy near 1 means no signal once order is averaged out",
        ("first_bias", "entropy", "entropy_log", "mass", "accuracy_given", "accuracy_adjusted", "accuracy_worst"),
    ),
    "evaluation.loyalty": Wording("Does it answer as the model before?", "", ("flips", "probability", "right_")),
    "evaluation.exposure": Wording(
        "Were planted canaries memorised?",
        "bits by which they are known better than like ones; 1.4 on average for a model that never saw them",
        ("p", "extracted", "exposure[", "control"),
    ),
    "evaluation.membership": Wording(
        "Can planted text be told from text held back?", "AUC; .5 is chance", ("p", "loss", "ratio", "min_k")
    ),
    "evaluation.extraction": Wording(
        "Does it give training text away, word for word?",
        "share of the rows; a lower bound of what an attacker gets",
        ("leading", "control", "recall"),
    ),
    "evaluation.guided_completion": Wording(
        "Had it seen the evaluation set?",
        "share of items completed as they stand; nothing found is no proof that it had not",
        ("exact", "near_exact", "p", "rouge_guided", "rouge_general", "control_exact", "control_p"),
    ),
    "evaluation.semantic_consistency": Wording(
        "Does it answer the same question in other words in the same way?",
        "agreement of the answers; a model that always says the same is consistent, so accuracy stands beside it",
        ("same[", "accuracy", "right_only", "most_common", "empty"),
    ),
    "evaluation.sar": Wording(
        "Does its uncertainty tell wrong answers from right ones?",
        "AUROC; .5 is chance",
        ("auroc[", "gain[", "accuracy"),
    ),
    "evaluation.honesty": Wording("Does it say when it does not know?", ""),
    "evaluation.blank_prompt": Wording("Is the ranking stable under other prompts?", ""),
    "forecasting.learning_curve": Wording(
        "What would more data bring?", "a forecast without skill on earlier points is not shown"
    ),
}
# Above this share of failed items a figure is one of format, and says so.
MANY = 0.05


def trust_verdicts(run: dict[str, Any]) -> list[Verdict]:
    """One row per gate: what was asked, and whether it holds."""
    rows = []
    for gate in run["gates"]:
        name = gate["name"] + (f" [{gate['arm']}]" if gate.get("arm") else "")
        asked = ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in gate["condition"].items())
        place = gate["step"] + (f" against {gate['against']}" if gate["against"] else "")
        asked = f"{place}: {asked}"
        ending = "passed" if gate["passed"] else "stops the release"
        undecided = f" (undecided counts as {gate['on_undecided']})" if gate["state"] == "undecided" else ""
        tone = {"holds": "better", "fails": "worse"}.get(gate["state"], "undecided")
        if gate["expect"] == "fail":
            ending += ", as a planted failure should" if gate["passed"] else "; the planted failure went unnoticed"
        estimate = gate["estimate"]
        rows.append(
            Verdict(
                name=name,
                verdict=gate["state"],
                tone=tone,
                sentence=f"{asked}; {gate['reason']}; {ending}{undecided}",
                difference="" if estimate is None else f"{estimate:+.4f}",
                interval=_bounds(gate.get("interval")),
                p="",
                mde="" if gate.get("mde") is None else f"{gate['mde']:.4f}",
                cost_ratio="",
            )
        )
    return rows


def trust_headline(run: dict[str, Any]) -> str:
    """Whether it may be released, in one sentence."""
    gates = run["gates"]
    count = f"{len(run['results'])} measurements"
    if not gates:
        return (
            f"No gate was set: {count}, and nothing that could stop a release. The figures below are to be read."
        )
    failed = [gate["name"] for gate in gates if not gate["passed"]]
    if failed:
        return f"Not to be released as it is: {len(failed)} of {len(gates)} gates fail ({', '.join(failed)})."
    open_ones = [gate["name"] for gate in gates if gate["state"] == "undecided"]
    unsure = f"; undecided, and let through: {', '.join(open_ones)}" if open_ones else ""
    return f"All {len(gates)} gates pass{unsure}; {count}."


def trust_tables(run: dict[str, Any]) -> list[Table]:
    """What was measured, and the figures that keep each measurement from being misread."""
    measured, beside = [], []
    spec = {step["name"]: step for step in run["recipe"]["steps"]}
    spent = {step["step"]: step["as_if"]["seconds"] for step in run["steps"]}
    for entry in run["results"]:
        result, step = entry["result"], entry["step"]
        method = result["task"].partition("@")[0]
        wording = WORDING.get(method, Wording(method, ""))
        plan = spec.get(step) or spec.get(step.partition("[")[0]) or {}
        measured.append(
            [
                step,
                wording.question,
                f"{result['metric']} {result['estimate']:.4g} {result['unit']}".rstrip(),
                _bounds(result["interval"]) or f"none: {result['no_interval']}",
                (result["interval"] or {}).get("covers", ""),
                _items(result),
                _of(plan, result),
                f"{spent.get(step, 0.0):.0f}",
            ]
        )
        figures = _figures(result, wording)
        if figures or wording.reading:
            beside.append([step, wording.reading, figures])
    heads = ["step", "question", "figure", "95 % interval", "it covers", "items", "model and rows", "seconds"]
    found = [Table("What was measured", heads, measured)]
    if beside:
        found.append(Table("Beside the figures", ["step", "how to read it", "further figures"], beside))
    return found


def left_out(run: dict[str, Any]) -> list[str]:
    """What the recipe does not measure and why, as the recipe says; then what no such report can say."""
    found = [f"{audit}: {why}" for audit, why in run["recipe"].get("left_out", {}).items()]
    failing = []
    for entry in run["results"]:
        share = entry["result"]["extra"].get("failure_rate", 0.0)
        if share > MANY:
            failing.append(f"{entry['step']}: {share:.0%} of its items failed and count as wrong")
    seeds = (
        "The model is one training run: other seeds of the same recipe may differ, and nothing here covers that."
    )
    attacks = "Attacks, languages, prompts and data other than those above."
    return [*failing, *found, seeds, attacks]


def _figures(result: dict[str, Any], wording: Wording) -> str:
    told = [str(sentence) for sentence in result["system"].get("told", ())]
    verdict = result["system"].get("verdict")
    told += [f"verdict: {verdict}"] if isinstance(verdict, str) else []
    for name, value in result["extra"].items():
        wanted = any(name == key or (key[-1] in "[_" and name.startswith(key)) for key in wording.figures)
        if wanted or name in ("few_clusters", "no_signal"):
            told.append(f"{name} {value:.4g}")
    return "; ".join(told)


def _items(result: dict[str, Any]) -> str:
    clusters = result["n_clusters"]
    text = str(result["n_items"])
    if clusters is not None and clusters < result["n_items"]:
        text += f" in {clusters} clusters"
    failed = {status: count for status, count in result["status_counts"].items() if status != "ok" and count}
    return text + "".join(f", {count} {status}" for status, count in failed.items())


def _of(plan: dict[str, Any], result: dict[str, Any]) -> str:
    rows = plan.get("from", [])
    rows = [rows] if isinstance(rows, str) else rows
    model = plan.get("model") or result["system"].get("name", "")
    inputs = ", ".join(
        f"{name}: {given if isinstance(given, str) else ' '.join(map(str, given))}"
        for name, given in plan.get("inputs", {}).items()
    )
    return "; ".join(part for part in (str(model), ", ".join(rows), inputs) if part)


def _bounds(interval: dict[str, Any] | None) -> str:
    return "" if not interval else f"[{interval['lo']:.4g}, {interval['hi']:.4g}]"
