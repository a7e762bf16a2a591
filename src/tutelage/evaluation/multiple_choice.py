"""Multiple choice by log-likelihood: the model picks the option that it finds most likely after the prompt.

With ll_k = sum of log p(option k's tokens | prompt): `acc` takes arg-max ll_k, `acc_norm` arg-max ll_k /
characters (code points), `acc_bytes` arg-max ll_k / UTF-8 bytes and `acc_mutual_info` arg-max ll_k - ll(option k
without the prompt) (the conventions of lm-evaluation-harness). Departures: k options that tie at the top share
the point (1/k each) and are counted, instead of the first one winning (`ties: first` restores that); an answer
outside the options is an error that names the row, instead of a score of 0; prompt and option are tokenised
separately, as in training.
"""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from tutelage.core.method import Inputs, Task
from tutelage.evaluation._choices import CHOICE_METRICS, best_choice, choice_values, gold_index, softmax
from tutelage.evaluation._shared import Measurement, prompt_of

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "evaluation.multiple_choice",
    "paper": {"title": "Common practice (lm-evaluation-harness)", "identifier": ""},
    "summary": "Accuracy at picking the right option by its log-likelihood after the prompt.",
    "reads": ["prompt", "choices", "answer"],
    "inputs": {"model": "the causal language model that is measured"},
    "needs": ["train"],
    "cost": "one forward pass over prompt and option per option",
    "baseline": None,
    "headline": "the usual measure of knowledge for models that cannot follow instructions yet",
    "version": 1,
}


class MultipleChoice(Task):
    """Rows: `prompt` (or `messages`), `choices` (list of strings), `answer` (index, or the option itself),
    optional `cluster` or `group`. `metric` is the one that carries the interval; the others are in `extra`.
    `chat` renders the prompt as a user turn of the model's template."""

    metric: Literal["acc", "acc_norm", "acc_bytes", "acc_mutual_info"] = "acc"
    ties: Literal["split", "first"] = "split"
    delimiter: str = Field(default=" ", description="put between prompt and option")
    chat: bool = False

    def evaluate(self, model: Any, dataset: "Dataset", inputs: Inputs) -> "Result":
        """Accuracy in [0, 1], larger is better; the interval covers items, or clusters where rows have one.

        Raises InputError for a missing column, fewer than two options or an answer outside the options.
        """
        dataset.require("choices", "answer")
        work = Measurement(self, model, dataset, inputs, identity=("prompt", "messages", "choices", "answer"))
        pairs: list[tuple[str, str]] = []
        golds = []
        for row in work.rows:
            golds.append(gold_index(row["answer"], row["choices"], where=work.where(row)))
            prompt = prompt_of(row, model, self.chat)
            pairs += [(prompt, self.delimiter + choice) for choice in row["choices"]]
        conditional = model.loglikelihood(pairs)
        alone = (
            model.loglikelihood([("", option) for _, option in pairs])
            if self.metric == "acc_mutual_info"
            else None
        )
        totals = dict.fromkeys(CHOICE_METRICS if alone else CHOICE_METRICS[:3], 0.0)
        ties = start = 0
        for row, gold in zip(work.rows, golds):
            part = slice(start, start + len(row["choices"]))
            start = part.stop
            lls = [found.sum for found in conditional[part]]
            values = choice_values(lls, row["choices"], [found.sum for found in alone[part]] if alone else None)
            score = 0.0
            for metric in totals:
                picked = best_choice(values[metric], {gold}, self.ties)
                totals[metric] += picked.score
                if metric == self.metric:
                    score, prediction, tied = picked.score, picked.first, picked.tied
            ties += tied > 1
            work.add(
                row,
                score=score,
                prediction=row["choices"][prediction],
                target=row["choices"][gold],
                choice_ll=lls,
                p_correct=softmax(lls)[gold],
                tokens_in=sum(found.n_tokens for found in conditional[part]),
            )
        n = len(work.rows)
        extra = {name: total / n for name, total in totals.items()} | {"ties": ties / n}
        return work.result(self.metric, direction=1, extra=extra)
