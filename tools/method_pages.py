"""Write one documentation page for each room from the cards, so that they cannot drift from the code.

python tools/method_pages.py [--check]
"""

import argparse
import ast
import sys
from pathlib import Path

from tutelage.core import discovery
from tutelage.core.card import ROOMS

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "methods"


def page(room: str) -> str:
    """The Markdown page of one room."""
    lines = [
        f"# {room}",
        "",
        "Made from the cards by `python tools/method_pages.py`; edit the modules instead.",
        "",
    ]
    for card in discovery.cards().values():
        if card.room != room:
            continue
        doc = ast.get_docstring(ast.parse(Path(card.source_file).read_text(encoding="utf-8"))) or ""
        source = card.paper.title + (f" ({card.paper.identifier})" if card.paper.identifier else "")
        fields = discovery.load(card.name).model_fields
        lines += [f"## {card.name}", "", card.summary, "", "```text", doc, "```", ""]
        lines += [f"- kind: {card.kind}; status: {', '.join(card.status)}", f"- source: {source}"]
        lines += [f"- claim: {card.headline}", f"- cost: {card.cost}"]
        lines += [f"- baseline: {f'`{card.baseline}`' if card.baseline else 'none, it is one'}"]
        if card.reads or card.writes:
            lines += [
                f"- reads: {', '.join(card.reads) or 'nothing'}; writes: {', '.join(card.writes) or 'nothing'}"
            ]
        lines += [f"- input `{key}`: {value}" for key, value in card.inputs.items()]
        if fields:
            lines += [f"- fields: {', '.join(f'`{key}`' for key in fields)}"]
        lines.append("")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    rooms = [room for room in ROOMS if any(card.room == room for card in discovery.cards().values())]
    stale = []
    for room in rooms:
        file, text = FOLDER / f"{room}.md", page(room)
        if asked.check:
            if not file.exists() or file.read_text(encoding="utf-8") != text:
                stale.append(file.name)
        else:
            FOLDER.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    if stale:
        print(f"stale pages: {', '.join(stale)}; run: python tools/method_pages.py")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
