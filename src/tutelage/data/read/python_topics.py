"""The topics of the Python reference manual that ship inside Python (`pydoc_data.topics`), one row per topic.

What `help('topic')` shows: chapters such as `assignment` or `class`. They differ between Python versions, so the
version is in the report. Each topic is its own group: a split by `group` holds whole topics out.
"""

import importlib
import platform
from pathlib import Path

from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError
from tutelage.core.method import Reader
from tutelage.data.read._rows import Rows

CARD = {
    "name": "data.read.python_topics",
    "paper": {"title": "The Python Language Reference", "identifier": "https://docs.python.org/3/reference/"},
    "summary": "Reads the topics of the Python reference manual that ship inside Python.",
    "writes": ["text", "group", "source"],
    "needs": [],
    "cost": "a few milliseconds; 79 topics and 465 thousand characters in Python 3.11",
    "baseline": None,
    "headline": "A real corpus in one narrow field, on every machine, without a download.",
    "version": 1,
}


class PythonTopics(Reader):
    """`limit` stops after so many topics, in the order of their names."""

    limit: int | None = Field(default=None, ge=1)

    def read(self, path: str | None = None) -> Dataset:
        """All topics; there is no `path`."""
        if path is not None:
            raise ConfigError(
                "data.read.python_topics takes no path", found=path, remedy="leave the path of the source out"
            )
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
        rows = Rows(self.name, Path("pydoc_data"), "raise", self.limit)
        rows.files = 1
        for topic, text in sorted(topics.items()):
            rows.add({"id": topic, "text": text, "group": topic, "source": "pydoc_data.topics"}, topic)
            if rows.full:
                break
        return rows.finish({"python": platform.python_version()})
