"""(Code, docstring) pairs from rows that hold Python source: what does this function do?

prompt = the source of a function from `def` on without its docstring, completion = the docstring without its
indentation. Functions at module and class level with a docstring of at least `min_words` words count; their
row keeps the source row's group, so that functions of one module stay on one side of a split.
"""

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.method import Inputs, Transform
from tutelage.data._python_source import documented
from tutelage.data.recipes._derive import CARRIED, derive

CARD = {
    "name": "data.recipes.code_docstring",
    "paper": {"title": "CodeSearchNet Challenge", "identifier": "arXiv:1909.09436"},
    "summary": "Makes code and docstring pairs from rows of Python source.",
    "reads": ["{column}"],
    "writes": ["prompt", "completion", "function", "source_id", "group"],
    "needs": [],
    "cost": "one parse of each row, a few MB per second",
    "baseline": None,
    "headline": "Supervised pairs from any code base, clustered by module.",
    "version": 1,
}


class CodeDocstring(Transform):
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
            return ({"prompt": f.code, "completion": f.docstring, "function": f.name} for f in found)

        return derive(dataset, self.column, self.carry, make)
