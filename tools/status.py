"""Compute each method's status from proofs, and write it into the package as `status.json`.

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

from tutelage.core import discovery
from tutelage.core.card import STATUSES

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "src" / "tutelage" / "status.json"


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


def measured() -> set[str]:
    """Methods named by a comparison in `benchmarks/results/*.json` (`comparisons: [{method, verdict}]`)."""
    found = set()
    for file in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            found |= {row["method"] for row in content.get("comparisons", []) if "verdict" in row}
    return found


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    text = json.dumps(compute(), indent=1) + "\n"
    if asked.check:
        if not FILE.exists() or FILE.read_text(encoding="utf-8") != text:
            print("status.json is not what the proofs say; run: python tools/status.py")
            return 1
        return 0
    FILE.write_text(text, encoding="utf-8")
    print(f"{len(json.loads(text))} methods")
    return 0


if __name__ == "__main__":
    sys.exit(main())
