"""A data card for people: the same blocks as Markdown and as one HTML file without scripts or outside assets.

Ids, reasons and texts come from outside: control, format and bidirectional characters are shown as escapes, and
whatever Markdown or HTML would act on is escaped.
"""

import base64
import hashlib
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.core.text.visible import visible

_MARKS = re.compile(r"([\\`*_\[\]|~#])")
_STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:.5rem 0 1.5rem}td,th{padding:.2rem .6rem;border-bottom:1px solid #ddd;"
    "text-align:left;vertical-align:top}pre{white-space:pre-wrap;background:#f6f6f6;padding:.5rem;margin:.2rem 0}"
    "progress{width:12rem}"
)


@dataclass(frozen=True)
class Bar:
    """A share of the largest value, drawn."""

    share: float


@dataclass(frozen=True)
class Table:
    """A heading, column heads, rows of plain values and bars."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""


@dataclass(frozen=True)
class Texts:
    """A heading and pieces of text, each under a line that says what it is."""

    title: str
    items: Sequence[tuple[str, str]]


Block = Table | Texts


def blocks(facts: Mapping[str, Any]) -> list[Block]:
    """What the card shows, in its order."""
    counts = [["rows", facts["rows"]], ["characters", facts["characters"]], ["bytes", facts["bytes"]]]
    if facts["tokens"] is not None:
        counts.append(["tokens" + (" (estimated)" if facts["tokens_estimated"] else ""), facts["tokens"]])
    if facts["removed_characters"] is not None:
        counts.append(["characters cut out of the texts", facts["removed_characters"]])
    found: list[Block] = [Table("The corpus", ["", "count"], [*counts, ["content hash", facts["hash"]]])]
    found.append(_lengths(facts["lengths"]))
    for name, entries in facts["by"].items():
        most = max((entry["bytes"] for entry in entries), default=0)
        rows = [[e["value"], e["rows"], e["bytes"], Bar(e["bytes"] / max(most, 1))] for e in entries]
        found.append(Table(f"By {name}", [name, "rows", "bytes", ""], rows))
    if facts["stages"]:
        found += _stages(facts)
    for entry in facts["contamination"]:
        rows = [[item, rows] for item, rows in entry["most"].items()]
        of = f"{entry['items']} evaluation items" if entry["items"] else "the evaluation items"
        note = f"{entry['rows']} rows hold a piece of {of}."
        found.append(Table(f"Contamination found by {entry['stage']}", ["item", "rows"], rows, note))
        shown = [
            (f"{e['id']} holds a piece of {e['item'] or 'an evaluation item'}", e["snippet"] or "")
            for e in entry["examples"]
        ]
        found.append(Texts(f"What {entry['stage']} found", shown))
    for stage in facts["stages"]:
        if stage["examples"]:
            found.append(
                Texts(f"Dropped by {stage['name']}", [item for e in stage["examples"] for item in _shown(e)])
            )
    return found


def _lengths(bins: Sequence[Mapping[str, int]]) -> Table:
    most = max((entry["rows"] for entry in bins), default=0)
    rows = [[f"{e['from']:,} to {e['below'] - 1:,}", e["rows"], Bar(e["rows"] / max(most, 1))] for e in bins]
    return Table("Lengths", ["characters", "rows", ""], rows)


def _stages(facts: Mapping[str, Any]) -> list[Block]:
    rows: list[list[Any]] = []
    for stage in facts["stages"]:
        counts = [stage[f"rows_{part}"] for part in ("in", "kept", "dropped", "quarantined")]
        cost = [f"{stage['seconds']:.1f}", f"{stage['peak_bytes'] / 2**20:,.0f}"]
        rows.append([stage["name"], stage["method"], *counts, *cost])
        for part in stage["within"]:
            counts = [part[f"rows_{name}"] for name in ("in", "kept", "dropped")]
            rows.append([f"{stage['name']}: {part['stage']}", "", *counts, 0, "", ""])
    cost = facts["cost"]
    note = (
        f"In = kept + dropped + quarantined in every stage. {cost['seconds']:.1f} seconds in all, at most "
        f"{cost['peak_bytes'] / 2**20:,.0f} MiB of memory."
    )
    heads = ["stage", "method", "in", "kept", "dropped", "quarantined", "seconds", "peak MiB"]
    reasons = [[s["name"], label, n] for s in facts["stages"] for label, n in s["reasons"].items()]
    told = [[s["name"], name, value] for s in facts["stages"] for name, value in s["facts"].items()]
    copies = [[entry["stage"], entry["label"], entry["rows"]] for entry in facts["duplicates"]["stages"]]
    return [
        Table("Stages", heads, rows, note),
        Table("Why rows were dropped", ["stage", "reason", "rows"], reasons),
        Table("Duplicates", ["stage", "reason", "rows"], copies, f"{facts['duplicates']['rows']} rows in all."),
        Table("What the stages report", ["stage", "fact", "value"], told),
    ]


def _shown(example: Mapping[str, Any]) -> list[tuple[str, str]]:
    items = [(f"{example['id']}: {example['reason']}", example["text"])]
    return items + ([(f"which repeats {example['of']}", example["of_text"])] if example.get("of") else [])


def to_markdown(title: str, page: Sequence[Block]) -> str:
    """The page as Markdown; no text of it can end its cell, open a tag or make a link."""
    lines = [f"# {_marked(title)}", ""]
    for block in page:
        lines += [f"## {_marked(block.title)}", ""]
        if isinstance(block, Texts):
            for head, text in block.items:
                lines += [f"- {_marked(head)}", f"  > {_marked(text)}", ""]
            continue
        lines += [_marked(block.note), ""] if block.note else []
        lines += ["| " + " | ".join(block.heads) + " |", "|" + "---|" * len(block.heads)]
        lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in block.rows] + [""]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, Bar):
        return "█" * round(20 * value.share)
    return f"{value:,}" if isinstance(value, int) else _marked(value)


def _marked(value: Any) -> str:
    text = html.escape(visible(value), quote=False).replace("\n", " ⏎ ").replace("\t", " ")
    return _MARKS.sub(r"\\\1", text)


def to_html(title: str, page: Sequence[Block]) -> str:
    """The page as one HTML file; its policy admits nothing but its own style sheet."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{_escaped(title)}</title><style>{_STYLE}</style></head><body><h1>{_escaped(title)}</h1>"
    ]
    for block in page:
        if isinstance(block, Texts):
            pieces = "".join(f"<p>{_escaped(h)}</p><pre>{_escaped(t)}</pre>" for h, t in block.items)
            parts.append(f"<details><summary>{_escaped(block.title)}</summary>{pieces}</details>")
            continue
        parts.append(
            f"<h2>{_escaped(block.title)}</h2>" + (f"<p>{_escaped(block.note)}</p>" if block.note else "")
        )
        heads = "".join(f"<th>{_escaped(head)}</th>" for head in block.heads)
        rows = "".join("<tr>" + "".join(f"<td>{_drawn(v)}</td>" for v in row) + "</tr>" for row in block.rows)
        parts.append(f"<table><tr>{heads}</tr>{rows}</table>")
    return "\n".join([*parts, "</body></html>\n"])


def _drawn(value: Any) -> str:
    if isinstance(value, Bar):
        return f'<progress max="1" value="{value.share:.3f}"></progress>'
    return f"{value:,}" if isinstance(value, int) else _escaped(value)


def _escaped(value: Any) -> str:
    return html.escape(visible(value))
