"""Rows for a model that shall write texts of a class: the class's name as the prompt, the text as the
completion.

prompt = "<label>:", completion = " <text>"; a causal language model trained on them continues "<label>:" with a
text of that class (data.synthesise.class_texts asks it to).
"""

from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.dataset_builder import DatasetBuilder
from tutelage.core.method import Inputs, Transform

CARD = {
    "name": "data.recipes.class_prefix",
    "paper": {"title": "Common practice"},
    "summary": "Turns labelled texts into prompt and completion: the class, then the text.",
    "reads": ["text", "label"],
    "writes": ["prompt", "completion"],
    "needs": [],
    "cost": "one pass over the rows",
    "baseline": None,
    "headline": "One model that writes for every class.",
    "version": 1,
}


class ClassPrefix(Transform):
    """`prefix` is the prompt, with {label} in it; rows keep their ids and other columns."""

    prefix: str = Field(default="{label}:", pattern=r"\{label\}")

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        """One pair per row; rows without label or text are dropped."""
        dataset.require("text", "label")
        builder = DatasetBuilder()
        for row in dataset.rows():
            text, label = row.pop("text"), row["label"]
            if not text or not text.strip() or label is None:
                builder.drop(row["id"], "no text" if label is not None else "no label")
                continue
            pair = {"prompt": self.prefix.replace("{label}", label), "completion": f" {text.strip()}"}
            builder.add({**row, **pair})
        return builder.finish()
