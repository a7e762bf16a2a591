"""The class that a language model gives a text: by the likelihood of the class names, or by its written answer.

choice: s_c = sum_t log p(c_t | question, c_<t) over the tokens of the class's name (`sum`), that divided by their
number (`mean`), or less s_c of the same question about "N/A" (`pmi`); probabilities are softmax_c(s_c). answer:
the model writes; a name, else an alias, must be the whole answer once quotes and punctuation are put aside, or the
`label` of a JSON object. An answer cut by the limit is asked for once more with twice the tokens, one that cannot
be read once more with the complaint quoted; then it is a status, never a class. Of several `samples` the vote
shares of the readable ones are the probabilities (one sample has none), and half of them must be readable. Every
text is asked about by itself, between tags that it cannot close; `teacher_flag` marks texts that seem to give
orders. Departure: question and name are tokenised apart, so that every name is scored by itself.
"""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field
from scipy.special import log_softmax

from tutelage.core.dataset import Dataset
from tutelage.core.errors import EndpointError, InputError
from tutelage.core.labels import LabelSpace
from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.text.hashing import hash64
from tutelage.core.text.rows import texts
from tutelage.models.judge import clip, without_turns
from tutelage.signals import _teacher

CARD = {
    "name": "signals.teacher_label",
    "paper": {
        "title": "LLM Teacher-Student Framework for Text Classification With No Manually Annotated Data",
        "identifier": "arXiv:2411.19638",
    },
    "summary": "Labels texts with a language model, by likelihood of the class names or by written answers.",
    "reads": ["text"],
    "writes": [
        "teacher_label",
        "teacher_probs",
        "classes",
        "teacher_status",
        "teacher_confidence",
        "teacher_answer",
        "teacher_flag",
    ],
    "inputs": {
        "teacher": "the language model that labels",
        "labels": "rows with the classes: label, description, aliases",
    },
    "needs": ["train"],
    "cost": "choice: one pass over question, text and all names per row; answer: a short completion per sample",
    "baseline": "signals.class_probabilities",
    "headline": "a student trained on such labels can agree with people as well as its teacher does",
    "version": 1,
}

NOTHING = "N/A"


def choice_scores(sums: np.ndarray, tokens: np.ndarray, empty: np.ndarray | None, how: str) -> np.ndarray:
    """[n, C] scores from log-likelihoods `sums` [n, C] over `tokens` [C]; `empty` [C] is of the empty question."""
    if how == "mean":
        return sums / tokens
    return sums - empty if empty is not None else sums


def vote_shares(labels: Sequence[str | None], names: Sequence[str]) -> np.ndarray | None:
    """[C] shares of the readable votes; None when fewer than half can be read."""
    counts = Counter(label for label in labels if label is not None)
    if not labels or 2 * counts.total() < len(labels):
        return None
    return np.array([counts[name] / counts.total() for name in names])


class TeacherLabel(Scorer):
    """`mode` choice needs log-likelihoods; answer works with every model that writes. `score` is how names are
    scored, `form` what an answer looks like (json: an endpoint is asked to keep to the schema), `samples` answers
    are drawn at `temperature` (one is greedy). `clip_words` of each text are shown, `question` is put to it;
    `template`, a text with {text} that the class's name goes on with, is put in place of all that, without tags: a
    small model understands that better."""

    mode: Literal["choice", "answer"] = "choice"
    score_by: Literal["sum", "mean", "pmi"] = "sum"
    form: Literal["label", "json"] = "label"
    question: str = Field(default="Which class does the text belong to?", min_length=1)
    template: str | None = Field(default=None, pattern=r"\{text\}")
    samples: int = Field(default=1, ge=1)
    temperature: float = Field(default=0.7, gt=0)
    max_new_tokens: int = Field(default=24, ge=1)
    clip_words: int = Field(default=200, ge=1)
    seed: int = Field(default=0, ge=0)

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        """Nothing is learned: the class names are checked against the teacher's tokenizer, the empty question
        scored. Raises InputError for names that it cannot tell apart."""
        teacher, space = inputs["teacher"], LabelSpace.from_schema(inputs["labels"])
        if self.mode == "answer":
            return {}
        if len(space) < 2:
            raise InputError("there is nothing to choose between", where="labels", expected="two classes", found=1)
        if teacher.kind != "endpoint":
            self._distinct(teacher, space)
        if self.score_by != "pmi":
            return {}
        return {"empty": [float(one.sum) for one in self._scored(teacher, space, [NOTHING])]}

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, Any]:
        teacher, space = inputs["teacher"], LabelSpace.from_schema(inputs["labels"])
        whole = texts(shard)
        shown = [without_turns(clip(text.strip(), self.clip_words), teacher) for text in whole]
        asked = [row for row, text in enumerate(shown) if text]
        if self.mode == "choice":
            found = self._choose(teacher, space, [shown[row] for row in asked], state)
        else:
            ids = shard.column("id").to_pylist()
            found = self._write(teacher, space, [shown[row] for row in asked], [ids[row] for row in asked])
        rows = dict(zip(asked, found))
        # A row without text was never asked about.
        label, probs, status, answer = zip(*(rows.get(i, (None, None, "error", None)) for i in range(len(whole))))
        names = pa.array([list(space.names)] * len(whole), pa.list_(pa.string()))
        return {
            "teacher_label": pa.array(label, pa.string()),
            "teacher_probs": pa.array(probs, pa.list_(pa.float64())),
            "classes": names,
            "teacher_status": pa.array(status, pa.string()),
            "teacher_confidence": pa.array([None if p is None else float(max(p)) for p in probs], pa.float64()),
            "teacher_answer": pa.array(answer, pa.string()),
            "teacher_flag": pa.array([_teacher.flag_of(text) for text in whole], pa.string()),
        }

    def _distinct(self, teacher: Any, space: LabelSpace) -> None:
        seen: dict[tuple[int, ...], str] = {}
        for name, ids in zip(space.names, teacher.tokenize(self._options(teacher, space))):
            other = seen.setdefault(tuple(ids), name)
            if other != name or not ids:
                raise InputError(
                    f"labels {other!r} and {name!r} are indistinguishable to this tokenizer",
                    where="labels",
                    expected="names with different tokens",
                    found=f"tokens {list(ids)}",
                    remedy="rename one of them",
                )

    def _options(self, teacher: Any, space: LabelSpace) -> list[str]:
        turn = _teacher.chats(teacher) and (self.template is None or teacher.kind == "endpoint")
        return [name if turn else f" {name}" for name in space.names]

    def _scored(self, teacher: Any, space: LabelSpace, shown: Sequence[str]) -> list[Any]:
        talks = [[self._ask(text, space)] for text in shown]
        asked = _teacher.prompts_of(teacher, talks, plain=self.template is not None)
        return teacher.loglikelihood([(one, name) for one in asked for name in self._options(teacher, space)])

    def _ask(self, text: str, space: LabelSpace) -> str:
        if self.template is not None:
            return self.template.replace("{text}", text)
        form = self.form if self.mode == "answer" else "label"
        return _teacher.question_of(text, space, self.question, form)

    def _choose(
        self, teacher: Any, space: LabelSpace, shown: Sequence[str], state: State
    ) -> list[tuple[str | None, Any, str, str | None]]:
        if not shown:
            return []
        found = self._scored(teacher, space, shown)
        sums = np.array([one.sum for one in found]).reshape(-1, len(space))
        tokens = np.array([one.n_tokens for one in found[: len(space)]])
        empty = np.array(state["empty"]) if self.score_by == "pmi" else None
        probs = np.exp(log_softmax(choice_scores(sums, tokens, empty, self.score_by), axis=1))
        return [(space.names[int(p.argmax())], p.tolist(), "ok", None) for p in probs]

    def _write(
        self, teacher: Any, space: LabelSpace, shown: Sequence[str], ids: Sequence[str]
    ) -> list[tuple[str | None, Any, str, str | None]]:
        talks = [[self._ask(text, space)] for text in shown for _ in range(self.samples)]
        seeds = [hash64(self.seed, f"{one} {k}") % 2**31 for one in ids for k in range(self.samples)]
        said = self._answers(teacher, space, talks, seeds, self.max_new_tokens)
        cut = [i for i, one in enumerate(said) if one[1] == "truncated"]
        self._replace(said, cut, teacher, space, talks, seeds, 2 * self.max_new_tokens)
        lost = [i for i, one in enumerate(said) if one[1] == "unparsed"]
        for i in lost:
            talks[i] += [said[i][2], _teacher.ask_again(space, self.form, said[i][2])]
        self._replace(said, lost, teacher, space, talks, seeds, self.max_new_tokens)
        rows = [said[at : at + self.samples] for at in range(0, len(said), self.samples)]
        return [self._decided(row, space.names) for row in rows]

    def _replace(self, said: list[Any], places: list[int], teacher: Any, space: LabelSpace, talks: list[list[str]],
                 seeds: list[int], limit: int) -> None:  # fmt: skip
        again = self._answers(teacher, space, [talks[i] for i in places], [seeds[i] for i in places], limit)
        for i, one in zip(places, again):
            said[i] = one

    def _answers(
        self, teacher: Any, space: LabelSpace, talks: list[list[str]], seeds: list[int], limit: int
    ) -> list[tuple[str | None, str, str]]:
        """(label, status, answer) of each conversation."""
        if not talks:
            return []
        plain = self.template is not None
        prompts = _teacher.prompts_of(teacher, talks, plain=plain)
        heat = self.temperature if self.samples > 1 else 0.0
        if hasattr(teacher, "attempt"):
            schema = _teacher.schema_of(space) if self.form == "json" else None
            found = teacher.attempt(prompts, limit, heat, seeds, schema=schema)
        else:
            stop = () if _teacher.chats(teacher) and not plain else ("\n",)
            found = teacher.generate(prompts, max_new_tokens=limit, temperature=heat, stop=stop, seed=seeds)
        return [self._read(one, space) for one in found]

    def _read(self, found: Any, space: LabelSpace) -> tuple[str | None, str, str]:
        if isinstance(found, EndpointError):
            return None, "error", found.what
        if found.refused or found.truncated:
            return None, "refused" if found.refused else "truncated", found.text
        label = _teacher.read_answer(found.text, space, self.form)
        return label, "unparsed" if label is None else "ok", found.text

    def _decided(
        self, said: Sequence[tuple[str | None, str, str]], names: Sequence[str]
    ) -> tuple[str | None, Any, str, str | None]:
        answer = said[0][2] if len(said) == 1 else json.dumps([text for _, _, text in said], ensure_ascii=False)
        shares = vote_shares([label for label, _, _ in said], names)
        if shares is None:
            worst = Counter(status for label, status, _ in said if label is None).most_common(1)[0][0]
            return None, None, worst, answer
        # One answer is no distribution.
        probs = shares.tolist() if self.samples > 1 else None
        return names[int(shares.argmax())], probs, "ok", answer
