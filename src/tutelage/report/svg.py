"""Plots as inline SVG strings: no scripts, no styles, no outside assets; every text is escaped."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from tutelage.core.text.visible import visible

COLOURS = ("#1f5fa8", "#c2571a", "#3a7d44", "#7a4fa3", "#8a6d1d", "#a32950", "#2b8a8a", "#555555")


@dataclass(frozen=True)
class Series:
    """One line of a chart: points in order of x."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Whisker:
    """One row of an interval chart; `lo` and `hi` are None where there is no interval."""

    label: str
    estimate: float
    lo: float | None
    hi: float | None
    tone: str = "neutral"


TONES = {
    "better": "#2e7d32",
    "worse": "#b3261e",
    "undecided": "#6b6b6b",
    "refused": "#8a6d1d",
    "neutral": "#1f5fa8",
}


def ticks(lo: float, hi: float, count: int = 5) -> list[float]:
    """Round values that cover [lo, hi]: steps of 1, 2 or 5 times a power of ten."""
    if not (math.isfinite(lo) and math.isfinite(hi)) or hi <= lo:
        return [lo]
    raw = (hi - lo) / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
    first = math.ceil(lo / step) * step
    return [round(first + i * step, 12) for i in range(int((hi - first) / step + 1e-9) + 1)]


def line_chart(series: Sequence[Series], *, title: str, x_label: str, y_label: str) -> Markup:
    """Lines over a common x; non-finite points break the line. Empty input gives an empty string."""
    points = [(x, y) for s in series for x, y in zip(s.x, s.y) if math.isfinite(x) and math.isfinite(y)]
    if not points:
        return Markup("")
    x0, x1 = _span([p[0] for p in points])
    y0, y1 = _span([p[1] for p in points])
    width, height, left, right, top, bottom = 640, 280, 64, 150, 16, 44
    px = lambda v: left + (v - x0) / (x1 - x0) * (width - left - right)  # noqa: E731
    py = lambda v: height - bottom - (v - y0) / (y1 - y0) * (height - top - bottom)  # noqa: E731
    parts = [_open(width, height, title)]
    for tick in ticks(y0, y1):
        parts.append(_line(left, py(tick), width - right, py(tick), "#dddddd"))
        parts.append(_text(left - 6, py(tick) + 4, _number(tick), "end"))
    for tick in ticks(x0, x1):
        parts.append(_text(px(tick), height - bottom + 16, _number(tick), "middle"))
    parts.append(_text((left + width - right) / 2, height - 6, x_label, "middle"))
    parts.append(_text(left - 6, top - 4, y_label, "start"))
    for number, one in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        for run in _runs(one):
            path = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in run)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        y = top + 12 + 16 * number
        parts.append(_line(width - right + 10, y - 4, width - right + 26, y - 4, colour, 2))
        parts.append(_text(width - right + 30, y, one.label, "start"))
    return Markup("".join(parts) + "</svg>")


def interval_chart(rows: Sequence[Whisker], *, title: str, x_label: str) -> Markup:
    """Estimates with intervals against zero, one row each."""
    values = [v for row in rows for v in (row.estimate, row.lo, row.hi) if v is not None and math.isfinite(v)]
    if not values:
        return Markup("")
    x0, x1 = _span([*values, 0.0])
    left, right, top, row_height = 240, 24, 12, 26
    width, height = 720, top + row_height * len(rows) + 44
    px = lambda v: left + (v - x0) / (x1 - x0) * (width - left - right)  # noqa: E731
    parts = [_open(width, height, title), _line(px(0), top, px(0), height - 38, "#888888")]
    for tick in ticks(x0, x1):
        parts.append(_text(px(tick), height - 24, _number(tick), "middle"))
    parts.append(_text((left + width - right) / 2, height - 6, x_label, "middle"))
    for number, row in enumerate(rows):
        y = top + row_height * number + row_height / 2
        colour = TONES.get(row.tone, TONES["neutral"])
        parts.append(_text(left - 10, y + 4, row.label, "end"))
        if row.lo is not None and row.hi is not None:
            parts.append(_line(px(row.lo), y, px(row.hi), y, colour, 2))
            parts += [_line(px(end), y - 4, px(end), y + 4, colour, 2) for end in (row.lo, row.hi)]
        parts.append(f'<circle cx="{px(row.estimate):.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')
    return Markup("".join(parts) + "</svg>")


def difference_chart(differences: Sequence[float], *, title: str, y_label: str) -> Markup:
    """Every item's difference as one bar, sorted: shows whether a mean rests on a few items."""
    finite = sorted(v for v in differences if math.isfinite(v))
    if not finite:
        return Markup("")
    y0, y1 = _span([*finite, 0.0])
    width, height, left, top, bottom = 640, 200, 64, 16, 24
    py = lambda v: height - bottom - (v - y0) / (y1 - y0) * (height - top - bottom)  # noqa: E731
    bar = (width - left - 10) / len(finite)
    parts = [_open(width, height, title)]
    for tick in ticks(y0, y1, 4):
        parts.append(_text(left - 6, py(tick) + 4, _number(tick), "end"))
    for number, value in enumerate(finite):
        y, size = min(py(0), py(value)), abs(py(value) - py(0))
        parts.append(
            f'<rect x="{left + number * bar:.2f}" y="{y:.2f}" width="{max(bar * 0.85, 0.3):.2f}" '
            f'height="{max(size, 0.5):.2f}" fill="{COLOURS[0]}"/>'
        )
    parts.append(_line(left, py(0), width - 10, py(0), "#888888"))
    parts.append(_text(left - 6, top - 4, y_label, "start"))
    parts.append(_text((left + width) / 2, height - 6, f"{len(finite)} items, sorted", "middle"))
    return Markup("".join(parts) + "</svg>")


def _span(values: Sequence[float]) -> tuple[float, float]:
    lo, hi = min(values), max(values)
    margin = (hi - lo) * 0.05 or abs(hi) * 0.05 or 1.0
    return lo - margin, hi + margin


def _runs(series: Series) -> list[list[tuple[float, float]]]:
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(series.x, series.y):
        if math.isfinite(x) and math.isfinite(y):
            runs[-1].append((x, y))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _open(width: float, height: float, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="12"><title>{escape(visible(title))}</title>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#333333">{escape(visible(text))}</text>'


def _number(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e5 else f"{value:.1e}"
