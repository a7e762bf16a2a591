"""`View` -> one self-contained HTML file: no script, no outside asset, a strict content policy, all text escaped.

Everything that came from data, models or recipes passes `visible`, so that control, ANSI and bidirectional
characters are shown as escapes instead of acting on the reader.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from tutelage.core.errors import StoreError
from tutelage.core.text.visible import visible

FOLDER = Path(__file__).resolve().parent
# Outcome of a comparison -> its colour; any other outcome is a refusal.
TONE = {"better": "better", "worse": "worse", "equivalent": "equivalent", "undecided": "undecided"}


@dataclass(frozen=True)
class Verdict:
    """One comparison, in words and numbers."""

    name: str
    verdict: str
    tone: str
    sentence: str
    difference: str
    interval: str
    p: str
    mde: str
    cost_ratio: str
    primary: bool = True


@dataclass(frozen=True)
class Table:
    """A caption, column heads and rows of plain values."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""


@dataclass(frozen=True)
class Example:
    """A piece of text shown as it is: what was selected or dropped, or what a model wrote."""

    title: str
    body: str
    reason: str = ""


@dataclass(frozen=True)
class View:
    """What the page shows, in its order."""

    title: str
    subtitle: str
    headline: str
    verdicts: Sequence[Verdict] = ()
    notes: Sequence[str] = ()
    plots: Sequence[tuple[str, Markup, str]] = ()
    tables: Sequence[Table] = ()
    forecasts: Sequence[str] = ()
    forecast_plots: Sequence[tuple[str, Markup, str]] = ()
    forecast_tables: Sequence[Table] = ()
    examples: Sequence[tuple[str, Sequence[Example]]] = ()
    samples: Sequence[tuple[str, Sequence[Example]]] = ()
    recipe: str = ""
    environment: Sequence[tuple[str, str]] = ()
    loading: str = ""
    untested: Sequence[str] = field(default_factory=tuple)


def render(view: View) -> str:
    """The whole page as text."""
    style = (FOLDER / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else visible(value),
    )
    # The hash admits exactly our style sheet; nothing else may load, run or be sent.
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return environment.get_template("page.html.j2").render(view=view, style=Markup(style), policy=Markup(policy))


def write(view: View, path: Path) -> Path:
    """Write the page to `path` (replacing an older one) and return it."""
    text = render(view)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise StoreError(
            "the report could not be written", where=path, found=str(error), remedy="choose another --out"
        ) from None
    return path
