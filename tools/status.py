"""Compute each method's status from proofs, and write it into the package as `status.json`, with the
comparisons themselves beside it as `measurements.json`, and as tables in `docs/measured.md`.

implemented: its contract tests pass; consistent / verified: declared by `PROOF` in a test file that passes and
whose mutations are caught; measured: a committed comparison with its baseline at equal cost names it. Nothing is
typed by hand: `--check` fails when the file in the package is not what the proofs say.

    python tools/status.py [--check]
"""

import argparse
import ast
import json
import sys
from pathlib import Path
from typing import Any

from tutelage.core import discovery
from tutelage.core.card import STATUSES

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "src" / "tutelage" / "status.json"
MEASURED = FILE.with_name("measurements.json")
PAGE = ROOT / "docs" / "measured.md"
SHOWN = ("against", "difference", "interval", "seeds", "primary", "smallest_detectable", "verdict")


def proofs() -> dict[str, set[str]]:
    """Method -> proofs declared in test files."""
    found: dict[str, set[str]] = {}
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and any(
                isinstance(t, ast.Name) and t.id == "PROOF" for t in node.targets
            ):
                for name, kinds in ast.literal_eval(node.value).items():
                    found.setdefault(name, set()).update(kinds)
    return found


def measured() -> dict[str, list[dict[str, Any]]]:
    """Method -> its comparisons in `benchmarks/results/*.json` (`comparisons: [{method, verdict, ...}]`) at the
    step that they are about."""
    found: dict[str, list[dict[str, Any]]] = {}
    for file in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        for row in content.get("comparisons", []) if isinstance(content, dict) else []:
            if row["method"] in discovery.cards() and row["step"] == row.get("metric", content.get("metric")):
                where = row.get("bed", content["benchmark"])
                entry = {"where": where, "arm": row["arm"], **{name: row[name] for name in SHOWN}}
                entry |= {"sets": row["sets"]} if "sets" in row else {}
                found.setdefault(row["method"], []).append(entry)
    return {name: found[name] for name in sorted(found)}


def compute() -> dict[str, list[str]]:
    """Method -> its statuses, in the order of STATUSES."""
    declared, compared = proofs(), measured()
    table = {}
    for name in sorted(discovery.cards()):
        has = {"implemented"} | (declared.get(name, set()) & set(STATUSES))
        if "verified" in has:
            has.add("consistent")
        if name in compared:
            has.add("measured")
        table[name] = [status for status in STATUSES if status in has]
    return table


HEAD = """# What was measured

Every committed comparison at equal total cost (`benchmarks/results/`, `make bench`), won, lost and undecided,
method by method. Right of zero is better. A row speaks of its data and its model only, except where several sets
stand in the column of the seeds: there sets are a random effect. "Exploratory" rows were not declared before
running; smallest detectable is the effect that the comparison would have found four times in five.
"""


def page() -> str:
    """The comparisons as Markdown, one table for each bed."""
    beds: dict[str, list[str]] = {}
    for method, rows in measured().items():
        for row in rows:
            interval, least = row["interval"], row["smallest_detectable"]
            bounds = f"[{interval['lo']:+.4f}, {interval['hi']:+.4f}]" if interval else "none"
            verdict = row["verdict"] if row["primary"] else f"{row['verdict']} (exploratory)"
            cells = (
                f"`{method}`",
                row["arm"],
                row["against"],
                f"{row['difference']:+.4f}",
                bounds,
                "none" if least is None else f"{least:.4f}",
                f"{row['seeds']} on {row['sets']} sets" if "sets" in row else row["seeds"],
                verdict,
            )
            beds.setdefault(str(row["where"]), []).append(f"| {' | '.join(map(str, cells))} |")
    head = "| method | arm | against | difference | interval | smallest detectable | seeds | verdict |"
    parts = [f"\n## {bed}\n\n{head}\n|{'---|' * 8}\n" + "\n".join(rows) + "\n" for bed, rows in beds.items()]
    return HEAD + "".join(parts) + _planted()


PLANTED = """
## Planted rows

Rows of a known kind were hidden among ordinary ones; AUROC is the probability that a score ranks a hidden row
beyond an ordinary one on the side it is meant to (0.5: it says nothing, below: it ranks them the wrong way round).

| method | column | planted | meant to be | AUROC | interval | seconds |
|---|---|---|---|---|---|---|
"""


def _planted() -> str:
    """The committed tables of planted rows."""
    lines = []
    for file in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        found = content.get("planted", {}).get("lines", []) if isinstance(content, dict) else []
        for row in found:
            bounds = f"[{row['interval']['lo']:.2f}, {row['interval']['hi']:.2f}]"
            cells = (f"`{row['method']}`", row["column"], row["planted"], row["wanted"], f"{row['auroc']:.2f}")
            lines.append(f"| {' | '.join((*cells, bounds, str(row['seconds'])))} |")
    return PLANTED + "\n".join(lines) + "\n" if lines else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    made = ((FILE, compute()), (MEASURED, measured()))
    texts = {file: json.dumps(content, indent=1) + "\n" for file, content in made} | {PAGE: page()}
    if asked.check:
        stale = [f for f, text in texts.items() if not f.exists() or f.read_text(encoding="utf-8") != text]
        for file in stale:
            print(f"{file.name} is not what the proofs say; run: python tools/status.py")
        return 1 if stale else 0
    for file, text in texts.items():
        file.write_text(text, encoding="utf-8")
    print(f"{len(compute())} methods")
    return 0


if __name__ == "__main__":
    sys.exit(main())
