"""Question-answer pairs about each chunk, asked and answered by a writer in the words of the chunk.

prompt = the question, completion = its answer; `pairs` requests per chunk, each with a seed of its own. A pair
must have the asked form, its answer must occur in the chunk (case and punctuation aside), its question must not
share eight words in a row with the answer, and its question must not be nearly one that was asked before.
Unlike data.recipes.question_answer, which needs headings, this works on any prose.
"""

from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.dataset_builder import DatasetBuilder
from tutelage.core.method import Inputs, Transform
from tutelage.core.records import Budget
from tutelage.data.synthesise._gates import Funnel, GateSettings
from tutelage.data.synthesise._tasks import BANK, Task, parse_pair, refused
from tutelage.data.synthesise._writer import Request, Writing, carried, derived_id, material

CARD = {
    "name": "data.synthesise.question_answer",
    "paper": {
        "title": "Fine Tuning LLM for Enterprise: Practical Guidelines and Recommendations",
        "identifier": "arXiv:2404.10779",
    },
    "summary": "Makes prompt and completion pairs about each text with a writer; answers are quotations.",
    "reads": ["text"],
    "writes": ["prompt", "completion", "source_id", "group", "label_source"],
    "inputs": {
        "writer": "the model that asks and answers",
        "protected?": "evaluation rows that no pair may repeat",
    },
    "needs": [],
    "cost": "one answer per pair, the text in its prompt",
    "baseline": "data.recipes.question_answer",
    "headline": "no invented answers, but questions that a small writer words badly",
    "version": 1,
}


class QuestionAnswer(Transform):
    """`pairs` requests per text; a question is at most `rouge_l` like another. `budget` (rows, tokens written) and
    `max_calls` end the job; texts that were not reached are dropped with that reason."""

    pairs: int = Field(default=2, ge=1, le=50)
    rouge_l: float = Field(default=0.9, gt=0, le=1)
    max_new_tokens: int = Field(default=96, ge=1)
    temperature: float = Field(default=0.7, ge=0)
    budget: Budget | None = None
    max_calls: int | None = Field(default=None, ge=1)
    column: str = "text"
    seed: int = Field(default=0, ge=0)

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        """One row per accepted pair; a text without one is dropped, and why."""
        dataset.require(self.column)
        writing = Writing(inputs, self)
        funnel = Funnel(GateSettings(rouge_l=self.rouge_l), inputs.get("protected"))
        builder = DatasetBuilder()
        for row in dataset.rows():
            text = row[self.column]
            if not isinstance(text, str) or not text.strip():
                builder.drop(row["id"], "no text")
                continue
            prompt = material(text, writing.writer) + BANK["question_answer"].told
            problem = writing.too_long(prompt)
            if problem or writing.out_of(len(funnel.accepted)):
                builder.drop(row["id"], problem or f"the budget of {writing.stopped} was spent")
                continue
            kept = 0
            answers = writing.ask([Request(f"{row['id']}/{n}", prompt) for n in range(self.pairs)])
            for answer in answers:
                if answer.problem == "budget" or writing.out_of(len(funnel.accepted)) == "rows":
                    continue
                pair = parse_pair(answer.text or "")
                problem = answer.problem or ("" if pair else "unparsed")
                if pair:
                    problem = refused(Task("question_answer", *pair), text, extractive=True)
                question = pair[0] if pair and not problem else None
                identifier = derived_id(row["id"], question or "")
                if not funnel.offer(identifier, question, problem) and pair:
                    made = {"prompt": pair[0], "completion": pair[1], "label_source": "synthetic"}
                    builder.add({"id": identifier, **made, **carried(row)})
                    kept += 1
            if not kept:
                spent = f"the budget of {writing.stopped} was spent" if writing.stopped else ""
                builder.drop(row["id"], spent or "no pair passed the gates")
        return builder.finish({"method": self.name, **funnel.report(), **writing.report()})
