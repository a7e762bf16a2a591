"""The result of a run for the terminal: verdict first, then figures, costs and notes."""

from typing import TYPE_CHECKING, Any

from tutelage.cli._output import print_json, say

if TYPE_CHECKING:
    from tutelage.runs.execute import RunResult


def show_run(result: "RunResult", as_json: bool) -> None:
    """Print what a run found."""
    if as_json:
        print_json(result.to_json())
        return
    if result.plan is not None:
        say(f"would run {len(result.plan.steps)} steps; `tutelage plan` lists them")
        return
    for line in comparison_lines(result.comparison) if result.comparison else step_lines(result):
        say(line)
    for gate in result.gates:
        arm = f" [{gate['arm']}]" if gate.get("arm") else ""
        say(f"gate {gate['name']}{arm}: {'passed' if gate['passed'] else 'FAILED'}; {gate['reason']}")
    say(f"\nrun {result.run_id}: {result.status}. `tutelage report --workspace {result.workspace}` writes it up.")


def step_lines(result: "RunResult") -> list[str]:
    """The measurements of a run without arms."""
    lines = []
    for name, value in result.values.items():
        if value.kind == "result":
            found = value.load()
            ends = f" [{found.interval.lo:.4g}, {found.interval.hi:.4g}]" if found.interval else ""
            lines.append(
                f"{name}: {found.metric} {found.estimate:.4g}{ends} {found.unit} over {found.n_items} items"
            )
            # What a forecast says of itself, its back-tested error first.
            lines += [f"  {sentence}" for sentence in found.system.get("told", ())]
    return lines


def comparison_lines(table: dict[str, Any]) -> list[str]:
    """A comparison as text: declared pairs first, then the arms with what they cost."""
    lines = ["declared before running (Holm-corrected):"]
    lines += [f"  {pair_line(pair)}" for pair in table["pairs"] if pair["primary"]]
    rest = [pair for pair in table["pairs"] if not pair["primary"]]
    if rest:
        lines += ["exploratory (Benjamini-Hochberg, q = .10):"] + [f"  {pair_line(pair)}" for pair in rest]
    lines += ["", f"arms at {table['at'].replace('_', ' ')}; {table['metric_step']}:"]
    for arm in table["arms"]:
        if arm["failed"]:
            lines.append(f"  {arm['name']:<18} no result: {arm['failed']}")
            continue
        measured = arm["results"][table["metric_step"]]
        seeds = " ".join(f"{value:.4f}" for value in measured["per_seed"])
        flops = sum(c["forward_flops"] + c["backward_flops"] for c in arm["cost"]) / max(len(arm["cost"]), 1)
        seconds = sum(c["seconds"] for c in arm["cost"]) / max(len(arm["cost"]), 1)
        tuned = "".join(f", {key.split('.')[-1]} {value:g}" for key, value in (arm["tuned"] or {}).items())
        spent = f"{flops:.2e} FLOPs, {seconds:.0f} s a run{tuned}" if arm["trained"] else "not trained"
        lines.append(f"  {arm['name']:<18} {measured['estimate']:.4f}  (seeds {seeds})  {spent}")
    return lines + [""] + [f"note: {note}" for note in [bed_line(table), *table["notes"]] if note]


def bed_line(table: dict[str, Any]) -> str:
    """Whether this bed could have told a good method from a random one."""
    if table["oracle"] is None:
        return ""
    return f"this bed {table['bed']} its oracle ({table['oracle']}) from the baseline ({table['baseline']})"


def pair_line(pair: dict[str, Any]) -> str:
    """`similarity against random (held_out): better  +0.0070 [0.0041, 0.0099], smallest detectable 0.003`."""
    comparison, verdict = pair["comparison"], pair["verdict"]
    interval = verdict["interval"] or comparison["interval"]
    ends = f" [{interval['lo']:+.4f}, {interval['hi']:+.4f}]" if interval else ""
    p = f", p {verdict['adjusted_p']:.2g}" if verdict["adjusted_p"] is not None else ""
    least = f", smallest detectable {comparison['mde']:.4f}" if comparison["mde"] is not None else ""
    head = f"{pair['a']} against {pair['b']} ({pair['step']})"
    return f"{head}: {verdict['text']}  {comparison['estimate']:+.4f}{ends}{p}{least}"
