"""Where sentences begin and end: after end marks (with closing quotes and brackets) before white space, and at
line breaks. A rule, not a model: abbreviations end a sentence too. Spans include the white space behind them, so
they tile the text."""

import re

_END = re.compile(r"[.!?]+[\"'”’)\]]*(?=\s)\s*|[。！？]+[\"”’」』）]*\s*|\s*\n\s*")


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """(start, end) in code points of every sentence; blank stretches belong to the one before."""
    spans: list[tuple[int, int]] = []
    start = 0
    for end in [*(match.end() for match in _END.finditer(text)), len(text)]:
        if end > start and not text[start:end].isspace():
            spans.append((start, end))
        elif end > start and spans:
            spans[-1] = (spans[-1][0], end)
        start = end
    return spans


def sentence_windows(text: str, count: int) -> list[tuple[int, int]]:
    """(start, end) of every run of `count` sentences; none where there are fewer."""
    spans = sentence_spans(text)
    return [(spans[i][0], spans[i + count - 1][1]) for i in range(len(spans) - count + 1)]
