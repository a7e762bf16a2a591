"""The readable text of an HTML page: blocks on lines of their own, headings marked with `#` as in Markdown."""

import re
from html.parser import HTMLParser

_HIDDEN = {"script", "style", "head", "template", "noscript", "svg"}
_BLOCKS = set(
    "address article aside blockquote body dd div dl dt fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6 "
    "header hr html main nav ol p pre section table tr ul".split()
)
_HEADINGS = {f"h{level}": "#" * level + " " for level in range(1, 7)}
_LINES = {"br", "li", "tr", "dt", "dd"}


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden: list[str] = []
        self._pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "body":
            # A page that never closes its head still shows its body.
            self._hidden.clear()
        if self._hidden:
            if tag in _HIDDEN:
                self._hidden.append(tag)
            return
        if tag in _HIDDEN:
            self._hidden.append(tag)
        elif tag in _LINES:
            self.parts.append("\n- " if tag == "li" else "\n")
        elif tag in _BLOCKS:
            self.parts.append("\n\n" + _HEADINGS.get(tag, ""))
        elif tag in ("td", "th"):
            self.parts.append("\t")
        if tag == "pre":
            self._pre += 1

    def handle_endtag(self, tag: str) -> None:
        if self._hidden:
            if tag == self._hidden[-1]:
                self._hidden.pop()
            return
        if tag in _BLOCKS and tag not in _LINES:
            self.parts.append("\n\n")
        if tag == "pre":
            self._pre = max(self._pre - 1, 0)

    def handle_data(self, data: str) -> None:
        if self._hidden:
            return
        if not self._pre:
            data = re.sub(r"\s+", " ", data)
            if not self.parts or self.parts[-1].endswith(("\n", " ")):
                data = data.lstrip()
        if data:
            self.parts.append(data)


def html_to_text(source: str) -> str:
    """The text that a reader of the page sees; scripts, styles and the head are left out."""
    parser = _Text()
    parser.feed(source)
    parser.close()
    text = "".join(parser.parts)
    text = re.sub(r"[ \t]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()
