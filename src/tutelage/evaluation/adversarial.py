"""How far a classifier falls under edits that leave the label as it is to a reader.

Attacks search on one surrogate: slips of the keyboard and neighbours in embedding space, word by word in the
order of importance (loss of the label's probability when the word is left out), and distracting suffixes. A
candidate is kept where it changes the mind of that surrogate and of another one that took no part in the
search; it is valid where at most `edit_rate` of the characters changed, no class is named that was not named
before, the embedding stays within `similarity` and the perplexity within a factor of `perplexity`. Adversarial
accuracy = share of valid candidates on which the target is right; beside it clean accuracy on the same rows,
and what as many random edits do. The attacks follow the benchmark's kinds, the thresholds are ours. Whether
people would still give the label is not known from this alone, and the result says so.
"""

import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from tutelage.core.errors import ConfigError, InputError
from tutelage.core.labels import GOLD
from tutelage.core.method import Inputs, Task
from tutelage.evaluation import _attacks as kit
from tutelage.evaluation._classes import require_classifier
from tutelage.evaluation._logs import Derived, listed
from tutelage.evaluation._shared import Measurement

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "evaluation.adversarial",
    "paper": {
        "title": "Adversarial GLUE: A Multi-Task Benchmark for Robustness Evaluation of Language Models",
        "identifier": "arXiv:2111.02840",
    },
    "summary": "How far a classifier falls under typos, near words and suffixes that pass a filter of validity.",
    "reads": ["text", "label", "label_source?"],
    "inputs": {
        "model": "the classifier that is attacked",
        "surrogates": "two or more other classifiers of the same classes; the first is searched on",
        "encoder?": "the model whose embeddings give near words and say whether a text is still alike",
        "scorer?": "the language model whose perplexity says whether a text is still fluent",
    },
    "needs": ["train"],
    "cost": "10 to 200 predictions of a surrogate for each row and attack",
    "baseline": "evaluation.classification",
    "headline": "most generated examples are not valid, and those that are still hurt",
    "version": 1,
}
WORDS = 3000
NEAR = 8


class Adversarial(Task):
    """`attacks` in the order they are tried; `neighbours` needs the encoder. `least_near`: cosine from which a
    word is a neighbour. Only rows with a person's label are attacked, at most `items` of them."""

    attacks: tuple[Literal["typos", "neighbours", "suffix"], ...] = ("typos", "suffix")
    items: int = Field(default=200, ge=1)
    edit_rate: float = Field(default=0.15, gt=0, le=1)
    similarity: float = Field(default=0.9, ge=-1, le=1)
    perplexity: float = Field(default=1.5, ge=1)
    least_near: float = Field(default=0.6, ge=-1, le=1)
    seed: int = Field(default=0, ge=0)

    def evaluate(self, model: Any, dataset: "Dataset", inputs: Inputs) -> "Result":
        """Accuracy on valid candidates, larger is better; the interval covers rows as clusters. `extra`: clean
        accuracy of the same rows, candidates, valid share and accuracy of each attack, and of random edits.
        The candidates stand in `raw` of the item log.

        Warns of a target among the surrogates, whose candidates do not transfer. Raises InputError where no
        candidate is valid: that is not measured, and never robust.
        """
        surrogates = listed(inputs["surrogates"])
        for one in (model, *surrogates):
            require_classifier(one, self.name)
            if one.labels.names != model.labels.names:
                raise ConfigError(
                    "a surrogate has other classes", where="inputs.surrogates", found=one.labels.names
                )
        if len(surrogates) < 2:
            raise ConfigError(
                "too few surrogates",
                where="inputs.surrogates",
                expected="one to search on and one that takes no part in the search",
                found=len(surrogates),
            )
        encoder, scorer = inputs.get("encoder"), inputs.get("scorer")
        if "neighbours" in self.attacks and encoder is None:
            raise ConfigError("neighbours need an encoder", where="inputs.encoder", expected="a model that embeds")
        extra = {"validity_unverified": 1.0}
        if model.fingerprint in {one.fingerprint for one in surrogates}:
            warnings.warn(f"{self.name}: the target is among the surrogates; nothing is transferred", stacklevel=2)
            extra["target_among_surrogates"] = 1.0
        work = Measurement(self, model, dataset, inputs, identity=("text", "label"))
        rows = [row for row in work.rows if (row.get("label_source") or GOLD) == GOLD][: self.items]
        if not rows:
            raise InputError(
                "no row has a person's label",
                where="label_source",
                expected=GOLD,
                found=f"{len(work.rows)} rows without",
            )
        labels = [int(model.labels.index(row["label"], f"{work.where(row)}, field label")) for row in rows]
        texts = [work.text(row, "text") for row in rows]
        found = self._searched(texts, labels, surrogates, encoder)
        valid = self._valid(texts, found, model, encoder, scorer)
        if not any(valid):
            raise InputError(
                "not measured: no valid candidate was found",
                where=self.name,
                expected="at least one edited text that fools both surrogates and passes the filters",
                found=f"{len(found)} candidates on {len(rows)} rows",
                remedy="try more rows, other attacks or surrogates; this says nothing about robustness",
            )
        kept = [one for one, fine in zip(found, valid) if fine]
        made: list[dict[str, Any]] = []
        for number, attack, text in kept:
            key = work.key(rows[number])
            made.append(
                {"item_key": f"{key} {attack}", "cluster": key, "group": attack, "text": text, "row": number}
            )
        again = Derived(self, made, inputs, {"name": getattr(model, "name", ""), "weights": model.fingerprint})
        again._model, again._before = model, model.meter.cost if hasattr(model, "meter") else None
        said = model.predict_proba([one["text"] for one in made])
        names = model.labels.names
        for one, probs in zip(made, said):
            label, best = labels[one["row"]], int(probs.argmax())
            columns = {"prediction": names[best], "target": names[label], "p_correct": float(probs[label])}
            again.add(one, score=float(best == label), raw=one["text"], **columns)
        right = np.array([float(p.argmax() == labels[one["row"]]) for one, p in zip(made, said)])
        extra |= self._told(rows, found, valid, kept, right, encoder, scorer)
        clean = model.predict_proba(texts).argmax(axis=1) == labels
        hurt = sorted({number for number, _, _ in kept})
        extra |= {"clean_accuracy": float(clean.mean()), "clean_accuracy_same_rows": float(clean[hurt].mean())}
        extra["random_edits_accuracy"] = self._at_random(texts, labels, hurt, model)
        return again.result("adversarial accuracy", direction=1, extra=extra)

    def _searched(
        self, texts: list[str], labels: list[int], surrogates: list[Any], encoder: Any
    ) -> list[tuple[int, str, str]]:
        """(row, attack, candidate) that changed the first surrogate's mind and another's."""
        first, *others = (surrogate.predict_proba for surrogate in surrogates)
        generator = np.random.default_rng(self.seed)
        found: list[tuple[int, str, str]] = []
        near: dict[str, list[str]] = {}
        if "neighbours" in self.attacks:
            words = kit.vocabulary(texts, WORDS)
            near = kit.neighbours(words, np.asarray(encoder.embed(words), dtype=float), NEAR, self.least_near)
        known = np.array([predict(texts).argmax(axis=1) for predict in (first, *others)]) == labels
        for number, (text, label) in enumerate(zip(texts, labels)):
            if not known[0, number] or not known[1:, number].any():
                continue  # nothing to change
            spans = kit.important(text, label, first)
            for attack in self.attacks:
                made = self._attacked(attack, text, label, spans, near, first, generator)
                if made is None:
                    continue
                minds = [p([made])[0].argmax() != label for p, was in zip(others, known[1:, number]) if was]
                if any(minds):
                    found.append((number, attack, made))
        return found

    def _attacked(
        self,
        attack: str,
        text: str,
        label: int,
        spans: list[tuple[int, int]],
        near: dict[str, list[str]],
        predict: kit.Predict,
        generator: np.random.Generator,
    ) -> str | None:
        if attack == "suffix":
            made = [text + suffix for suffix in kit.SUFFIXES[1:]]
            probs = predict(made)
            best = int(probs[:, label].argmin())
            return made[best] if probs[best].argmax() != label else None
        edits = kit.typos if attack == "typos" else lambda word, _: near.get(word.lower(), [])
        return kit.greedy(text, label, spans, edits, self.edit_rate, predict, generator)

    def _valid(
        self, texts: list[str], found: list[tuple[int, str, str]], model: Any, encoder: Any, scorer: Any
    ) -> list[bool]:
        if not found:
            return []
        before, after = [texts[number] for number, _, _ in found], [text for _, _, text in found]
        spoken = {
            w.lower()
            for label in model.labels.labels
            for name in (label.name, *label.aliases)
            for w in name.split()
        }
        fine = np.array([not (kit.new_words(a, b) & spoken) for a, b in zip(before, after)])
        if encoder is not None:
            fine &= kit.similarity(encoder, before, after) >= self.similarity
        if scorer is not None:
            sides = [scorer.score_texts(side) for side in (before, after)]
            per_token = [np.array([one.nll_sum / max(one.n_tokens, 1) for one in side]) for side in sides]
            fine &= np.exp(per_token[1] - per_token[0]) <= self.perplexity
        return [bool(one) for one in fine]

    def _told(
        self, rows: list[Any], found: list[Any], valid: list[bool], kept: list[Any], right: np.ndarray, *used: Any
    ) -> dict[str, float]:
        extra = {"rows": float(len(rows)), "candidates": float(len(found)), "valid_share": float(np.mean(valid))}
        extra |= {
            "filtered_by_similarity": float(used[0] is not None),
            "filtered_by_perplexity": float(used[1] is not None),
        }
        for attack in self.attacks:
            mine = np.array([name == attack for _, name, _ in kept])
            tried = [fine for (_, name, _), fine in zip(found, valid) if name == attack]
            extra[f"candidates[{attack}]"] = float(len(tried))
            if tried:
                extra[f"valid_share[{attack}]"] = float(np.mean(tried))
            if mine.any():
                extra[f"accuracy[{attack}]"] = float(right[mine].mean())
        return extra

    def _at_random(self, texts: list[str], labels: list[int], rows: list[int], model: Any) -> float:
        """Accuracy on the same rows with slips in random words up to the same rate."""
        generator, made = np.random.default_rng(self.seed), []
        for number in rows:
            text, spans = texts[number], kit.word_spans(texts[number])
            changed: dict[tuple[int, int], str] = {}
            for place in generator.permutation(len(spans)):
                options = kit.typos(text[slice(*spans[place])], generator)
                more = {**changed, spans[place]: options[0]} if options else changed
                if kit.edit_rate(text, more) <= self.edit_rate:
                    changed = more
            made.append(kit.rewritten(text, changed))
        return float((model.predict_proba(made).argmax(axis=1) == [labels[number] for number in rows]).mean())
