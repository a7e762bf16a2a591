"""(Docstring, code) pairs from rows that hold Python source: write the function that does this.

prompt = the docstring and the line that begins with `def`, completion = the function's source from there on
without its docstring, so that prompt and completion together hold the whole function. The other direction of
data.recipes.code_docstring, over the same functions.
"""

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.method import Inputs, Transform
from tutelage.data._python_source import documented
from tutelage.data.recipes._derive import CARRIED, derive

CARD = {
    "name": "data.recipes.docstring_code",
    "paper": {"title": "CodeSearchNet Challenge", "identifier": "arXiv:1909.09436"},
    "summary": "Makes docstring and code pairs from rows of Python source.",
    "reads": ["{column}"],
    "writes": ["prompt", "completion", "function", "source_id", "group"],
    "needs": [],
    "cost": "one parse of each row, a few MB per second",
    "baseline": "data.recipes.continuation",
    "headline": "Code from its description, from any code base, clustered by module.",
    "version": 1,
}


class DocstringCode(Transform):
    """`min_words` is the shortest docstring; `carry` names the columns copied to every pair."""

    min_words: int = Field(default=1, ge=1)
    column: str = "text"
    carry: tuple[str, ...] = CARRIED

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        """One row per documented function; rows that are not Python or have none are dropped."""

        def make(text: str, row: dict[str, Any]) -> "Iterator[dict[str, Any]] | str":
            found = documented(text, self.min_words)
            if isinstance(found, str):
                return found
            return (pair(f.code, f.docstring) | {"function": f.name} for f in found)

        return derive(dataset, self.column, self.carry, make)


def pair(code: str, docstring: str) -> dict[str, str]:
    """The docstring with the function's first line, and the rest of the function."""
    head, line_end, body = code.partition("\n")
    return {"prompt": f"{docstring}\n\n{head}{line_end}", "completion": body}
