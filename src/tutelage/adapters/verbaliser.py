"""A causal language model, tuned or not, as a classifier by prompt: which class's word does it expect?

logits_c = mean over patterns of log softmax_c(mean over words of log p(word | pattern filled with the text)). With
`choose: best` only the pattern is kept under which the labelled rows are likeliest,
    argmax_p sum_i w_i sum_c q_ic log p_p(c | x_i);
nothing is fitted on these rows here, so this is its own leave-one-out; a model tuned on the same rows knows them
already, and the choice then says little.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from tutelage.adapters._shared import base_of
from tutelage.core.errors import InputError
from tutelage.core.method import Adapter, Inputs

CARD = {
    "name": "adapters.verbaliser",
    "paper": {
        "title": "Exploiting Cloze Questions for Few Shot Text Classification and Natural Language Inference",
        "identifier": "arXiv:2001.07676",
    },
    "summary": "A classifier that asks a language model for the word of a text's class; no label is needed.",
    "reads": ["text?", "label?", "label_probs?", "label_weight?"],
    "inputs": {
        "model": "the causal language model that answers",
        "labels?": "rows with the classes: label, description, aliases",
    },
    "needs": ["train"],
    "cost": "one forward pass over pattern and text for each word of a class",
    "baseline": "adapters.linear_head",
    "headline": "works without labels; below some billion weights a linear head on ten labels often beats it",
    "version": 1,
}


class Verbaliser(Adapter):
    """`patterns` each with one slot, {text}, end where the word goes; `words`: class name -> its words (default:
    the names); `reduction` mean divides by a word's tokens; `choose`: average all patterns or keep the best."""

    patterns: tuple[str, ...] = Field(default=("{text}\nTopic:",), min_length=1)
    words: dict[str, tuple[str, ...]] | None = None
    reduction: Literal["sum", "mean"] = "sum"
    choose: Literal["average", "best"] = "average"

    def convert(self, models: Mapping[str, Any], dataset: Any, inputs: Inputs) -> Any:
        """A `PromptClassifier`; raises InputError when no class is known or there are no labels to choose by, and
        ConfigError for patterns and words that do not fit."""
        from tutelage.core.labels import LabelSpace, label_sources, soft_labels
        from tutelage.core.text.rows import text_rows
        from tutelage.models.prompt_classifier import PromptClassifier

        base = base_of(models, self.name)
        schema = inputs.get("labels")
        rows: Any = dataset if dataset is not None and dataset.num_rows else None
        if schema is None and rows is None and not self.words:
            raise InputError(
                "the classes are not known",
                where=self.name,
                expected="words, an input labels, or labelled rows",
            )
        if schema is not None:
            space = LabelSpace.from_schema(schema)
        else:
            space = LabelSpace(self.words) if self.words else LabelSpace.of(rows)
        name = f"{base.name}+prompt"
        made = PromptClassifier(space, base, self.patterns, self.words, self.reduction, name=name)
        facts: dict[str, Any] = {"patterns": list(self.patterns)}
        if self.choose == "best" and len(self.patterns) > 1:
            if rows is None:
                raise InputError("no labelled rows to choose a pattern by", where=self.name, expected="from: rows")
            probs, weights = soft_labels(rows, space)
            logps = made.pattern_logps([text for _, text in text_rows(rows)])
            scores = (logps * probs * weights[:, None]).sum(axis=(1, 2)) / weights.sum()
            best = self.patterns[int(scores.argmax())]
            made = PromptClassifier(space, base, (best,), self.words, self.reduction, name=name)
            facts = {"patterns": [best], "pattern_scores": dict(zip(self.patterns, scores.tolist()))}
            facts |= {"rows": rows.num_rows, "labels_by_source": label_sources(rows)}
        made.facts = facts
        return made
