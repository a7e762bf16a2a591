"""Semantic consistency: does a model answer the same when the question is worded otherwise?

Each question has m wordings, rows of one `question` group. With y_i the greedy answer to wording i and S an
agreement function in [0, 1],

    Cons = sum over i != j of S(y_i, y_j) / (m (m - 1))

so that a function that is not symmetric is taken both ways; an empty answer agrees with nothing. A model that
always says the same has Cons 1: accuracy, Cons among the questions that are mostly answered right, and the
share of the most common answer of all stand beside it. With `ask_to_choose` the different answers become
options, in all cyclic orders, and the model picks (evaluation.option_bias); the baseline at equal generations
is the most frequent answer. Departure from the paper: agreement by words, exact or by vectors of an encoder;
its paraphrase, entailment and contradiction models are left out.
"""

from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from tutelage.core.answers import normalise
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.method import Inputs, Task
from tutelage.evaluation._answers import (
    THRESHOLDS,
    agreement_matrix,
    cosines,
    distinct,
    references,
    right,
)
from tutelage.evaluation._letters import (
    ALPHABET,
    Question,
    cyclic_orders,
    letter_probs_of,
    lettered,
    probs_by_option,
)
from tutelage.evaluation._shared import Measurement, prompt_of

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "evaluation.semantic_consistency",
    "paper": {
        "title": "Semantic Consistency for Assuring Reliability of Large Language Models",
        "identifier": "arXiv:2308.09138",
    },
    "summary": "How far a model gives the same answer to different wordings of a question.",
    "reads": ["prompt", "{question}", "answer?", "paraphrase_score?"],
    "inputs": {
        "model": "the causal language model that is measured",
        "encoder?": "an encoder, for agreement by meaning instead of words",
    },
    "needs": ["train"],
    "cost": "one answer per wording; asking to choose adds one prompt per different answer",
    "baseline": "evaluation.exact_match",
    "headline": "choosing among one's own answers rarely beats their majority; consistency alone proves nothing",
    "version": 1,
}


def consistency(matrix: np.ndarray) -> float | None:
    """Mean agreement over ordered pairs of different wordings, [m, m] -> [0, 1]; None for a single wording."""
    m = len(matrix)
    return None if m < 2 else float((matrix.sum() - np.trace(matrix)) / (m * (m - 1)))


class SemanticConsistency(Task):
    """Rows: `prompt` (or `messages`), `question` names the column whose equal values are wordings of one question;
    optional `answer`, and `paraphrase_score`, below which value (`least_paraphrase`) a wording is left out."""

    question: str = "group"
    agreement: Literal["bleu", "rouge_l", "exact", "embedding"] = "bleu"
    least_paraphrase: float = Field(default=0.8, ge=0, le=1)
    ask_to_choose: bool = False
    max_new_tokens: int = Field(default=32, ge=1)
    stop: tuple[str, ...] = ("\n",)
    chat: bool = False

    def evaluate(self, model: Any, dataset: "Dataset", inputs: Inputs) -> "Result":
        """Mean consistency over questions, in [0, 1], larger is better. `extra`: agree[S] and same[S] (above the
        threshold) of every S, accuracy, right_only (Cons of questions mostly answered right), most_common, empty,
        single (questions with one wording), left_out, and accuracy_chosen beside accuracy_majority.

        Raises InputError when no question has two wordings.
        """
        dataset.require(self.question)
        encoder = inputs.get("encoder")
        if self.agreement == "embedding" and encoder is None:
            raise ConfigError(
                "agreement by meaning needs an encoder",
                where=f"{self.name}: inputs",
                expected="encoder",
                found="none",
            )
        groups, left_out = self._groups(dataset)
        several = [group for group in groups if len(group["wordings"]) > 1]
        if not several:
            raise InputError(
                "no question has two wordings",
                where=f"column {self.question!r}",
                expected="rows with equal values there",
                found=f"{len(groups)} questions of one wording" if groups else "no rows",
            )
        work = Measurement(self, model, several, inputs, identity=("wordings", "answer"))
        prompts = [prompt_of(row, model, self.chat) for group in work.rows for row in group["wordings"]]
        made = model.generate(prompts, max_new_tokens=self.max_new_tokens, temperature=0.0, stop=self.stop)
        answers, at = [], 0
        for group in work.rows:
            answers.append([one.text for one in made[at : at + len(group["wordings"])]])
            at += len(answers[-1])
        found: dict[str, list[float]] = {}
        correct: list[float | None] = []
        for group, given in zip(work.rows, answers):
            values = self._values(given, encoder)
            for name, value in values.items():
                found.setdefault(name, []).append(value)
            accepted = references(group, f"question {group['group']}")
            correct.append(None if accepted is None else float(np.mean([right(one, accepted) for one in given])))
            work.add(
                group,
                score=values[f"agree[{self.agreement}]"],
                status="unparsed" if not any(one.strip() for one in given) else "ok",
                prediction=(distinct(given) or [("", 0)])[0][0],
                target=None if accepted is None else " | ".join(accepted),
                raw="\n".join(given),
            )
        extra = {name: float(np.mean(values)) for name, values in found.items()}
        everything = [normalise(one) for given in answers for one in given]
        extra |= {
            "most_common": Counter(everything).most_common(1)[0][1] / len(everything),
            "empty": float(np.mean([not one for one in everything])),
            "single": float(len(groups) - len(several)),
            "left_out": float(left_out),
        }
        extra |= self._accuracies(found[f"agree[{self.agreement}]"], correct)
        if self.ask_to_choose:
            extra |= self._chosen(model, work.rows, answers)
        return work.result("consistency", direction=1, extra=extra)

    def _groups(self, dataset: "Dataset") -> tuple[list[dict[str, Any]], int]:
        """(questions with their wordings, number of wordings left out)."""
        groups: dict[Any, dict[str, Any]] = {}
        left_out = 0
        for row in dataset.rows():
            score = row.get("paraphrase_score")
            if score is not None and score < self.least_paraphrase:
                left_out += 1
                continue
            key = row[self.question] if row[self.question] is not None else row["id"]
            group = groups.setdefault(key, {"group": str(key), "answer": None, "wordings": []})
            group["wordings"].append({name: row.get(name) for name in ("prompt", "messages") if row.get(name)})
            group["answer"] = row.get("answer") if group["answer"] is None else group["answer"]
        return list(groups.values()), left_out

    def _values(self, answers: list[str], encoder: Any) -> dict[str, float]:
        matrices = {kind: agreement_matrix(answers, kind) for kind in ("bleu", "rouge_l", "exact")}
        if encoder is not None:
            said = np.array([bool(one.strip()) for one in answers])
            vectors = encoder.embed([one if one.strip() else "." for one in answers])
            matrices["embedding"] = cosines(np.asarray(vectors, dtype=float)) * np.outer(said, said)
        values = {}
        for kind, matrix in matrices.items():
            values[f"agree[{kind}]"] = consistency(matrix) or 0.0
            values[f"same[{kind}]"] = consistency((matrix >= THRESHOLDS[kind]).astype(float)) or 0.0
        return values

    def _accuracies(self, scores: list[float], correct: list[float | None]) -> dict[str, float]:
        known = [(score, share) for score, share in zip(scores, correct) if share is not None]
        mostly = [score for score, share in known if share >= 0.5]
        found = {"accuracy": float(np.mean([share for _, share in known]))} if known else {}
        return found | (
            {"right_only": float(np.mean(mostly)), "mostly_right": len(mostly) / len(known)} if mostly else {}
        )

    def _chosen(self, model: Any, groups: list[dict[str, Any]], answers: list[list[str]]) -> dict[str, float]:
        """Accuracy of the model's choice among its own answers and of their majority, where answers are known."""
        known = [
            (group, [text for text, _ in distinct(given)][: len(ALPHABET)])
            for group, given in zip(groups, answers)
            if references(group, f"question {group['group']}") is not None
        ]
        asked = [(group, options) for group, options in known if len(options) > 1]
        questions = []
        for group, options in asked:
            first = group["wordings"][0]
            text = first.get("prompt") or first["messages"][-1]["content"]
            orders = cyclic_orders(len(options))
            prompts = [lettered(text, [options[k] for k in order], ALPHABET) for order in orders]
            prompts = [prompt_of({"prompt": one}, model, self.chat) for one in prompts]
            questions.append(Question(orders, prompts, [f" {symbol}" for symbol in ALPHABET[: len(options)]]))
        picks = {}
        for (group, options), (orders, probs, _) in zip(asked, letter_probs_of(model, questions)):
            # The first of equals is the most frequent one.
            picks[group["group"]] = options[int(probs_by_option(probs, orders).mean(axis=0).argmax())]
        chosen, majority = [], []
        for group, options in known:
            accepted = references(group, "") or []
            majority.append(bool(options) and right(options[0], accepted))
            chosen.append(bool(options) and right(picks.get(group["group"], options[0]), accepted))
        if not known:
            return {}
        return {"accuracy_chosen": float(np.mean(chosen)), "accuracy_majority": float(np.mean(majority))}
