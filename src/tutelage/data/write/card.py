"""A data card: what a corpus holds, and what every stage behind it read, kept, dropped and why, found and cost.

In a run the card is told the stages behind its rows (sources first), with no list to keep by hand. For each it
shows rows in = kept + dropped + quarantined, or stops where they do not add up; reasons without what is particular
to a row, counted; some dropped rows per reason, drawn by hash, with the text of what a duplicate repeats; seconds
and peak memory. Of the corpus it shows lengths by powers of two and counts per value of `by`. The same numbers are
written as JSON, as Markdown and as one HTML file; texts from outside are escaped in each.
"""

import json
from collections.abc import Sequence

from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.lineage import Stage
from tutelage.core.method import Writer
from tutelage.data.write._atomic import new_folder, new_target
from tutelage.data.write._card_facts import gather
from tutelage.data.write._card_page import blocks, to_html, to_markdown

CARD = {
    "name": "data.write.card",
    "paper": {"title": "Datasheets for Datasets", "identifier": "arXiv:1803.09010"},
    "summary": "Writes a data card: counts, reasons, duplicates, languages, lengths, contamination and cost.",
    "reads": ["text"],
    "needs": [],
    "cost": "one pass over the corpus, one over the texts before each stage that dropped rows",
    "baseline": None,
    "headline": "says where every row of the input went; what a corpus is good for it cannot say",
    "version": 1,
}


class Card(Writer):
    """`title` heads it; `by` are columns whose values are counted; `examples` dropped rows are shown per
    reason."""

    title: str = "Data card"
    by: tuple[str, ...] = ("kind", "language")
    examples: int = Field(default=20, ge=0)

    def write(self, dataset: Dataset, path: str) -> list[str]:
        """Write the card of the rows alone into the new folder `path`."""
        return self.write_stages(dataset, path, ())

    def write_stages(self, dataset: Dataset, path: str, stages: Sequence[Stage]) -> list[str]:
        """Write `card.json`, `card.md` and `card.html` into the new folder `path`."""
        target = new_target(path, self.name)
        facts = {"title": self.title, **gather(dataset, stages, self.by, self.examples)}
        page = blocks(facts)
        files = {
            "card.json": json.dumps(facts, indent=1),
            "card.md": to_markdown(self.title, page),
            "card.html": to_html(self.title, page),
        }
        with new_folder(target) as folder:
            for name, text in files.items():
                # Bytes, so that line ends are the same everywhere.
                (folder / name).write_bytes(text.encode())
        return [str(target / name) for name in files]
