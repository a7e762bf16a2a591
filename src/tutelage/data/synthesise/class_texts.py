"""Write new texts for each class, and keep those that lie among the class's real ones in an embedding space.

With unit embeddings e_i of the real rows and centroid c_k of class k: a text x of class k is kept if 1 -
cos(e_x, c_k) <= q-quantile of the real rows' distances to their centroid without themselves, and c_k is its
nearest centroid. The writer continues "<class>: " (a model tuned on such rows, see data.recipes.class_prefix),
with `seed_words` followed by the first words of a real row, or, `prompt: examples`, sees real texts of the
class. Topped up to `ratio` x real rows per class; weights sum to at most `weight_cap` x the real rows'.
Departures: no top-p.
"""

import math
import warnings
from typing import Any, Literal

import numpy as np
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.dataset_builder import DatasetBuilder
from tutelage.core.errors import InputError
from tutelage.core.labels import LabelSpace
from tutelage.core.method import Inputs, Transform
from tutelage.core.records import Budget
from tutelage.core.text.hashing import hash64
from tutelage.data.synthesise._gates import Funnel, GateSettings
from tutelage.data.synthesise._writer import Request, Writing, carried, derived_id, material

CARD = {
    "name": "data.synthesise.class_texts",
    "paper": {"title": "Data Augmentation for Text Classification with GPT-2", "identifier": ""},
    "summary": "Writes labelled texts class by class, filtered by distance to the real ones.",
    "reads": ["text", "label"],
    "writes": ["text", "label", "label_source", "label_weight", "distance", "source_id", "group"],
    "inputs": {
        "writer": "the model that writes: tuned on class prefixes, or able to follow examples",
        "encoder": "the model whose embeddings say what lies near",
        "labels?": "rows with the classes: label, description, aliases",
        "protected?": "evaluation rows that no text may repeat",
    },
    "needs": [],
    "cost": "one short answer and one embedding per candidate; at most `rounds` candidates per wanted text",
    "baseline": "data.select.repeated_random",
    "headline": "helps with very few rows of narrow classes; the gain vanishes with hundreds, and it can hurt",
    "version": 1,
}


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows [n, d] scaled to length 1, float64; a zero row stays zero."""
    vectors = np.asarray(vectors, dtype=np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def radius(vectors: np.ndarray, quantile: float) -> float:
    """The `quantile` (the higher value of a row) of 1 - cos of each unit row [n, d], n >= 2, to the centroid of
    the others."""
    others = unit(vectors.sum(axis=0) - vectors)
    return float(np.quantile(1.0 - (vectors * others).sum(axis=1), quantile, method="higher"))


class ClassTexts(Transform):
    """See the module. `quantile` is q; `shown` real texts stand in an examples prompt; `rounds` of asking;
    `budget` (rows, tokens written) and `max_calls` end the job."""

    prompt: Literal["prefix", "examples"] = "prefix"
    seed_words: int = Field(default=0, ge=0)
    shown: int = Field(default=3, ge=1)
    ratio: float = Field(default=1.0, gt=0)
    quantile: float = Field(default=0.95, ge=0, le=1)
    weight_cap: float = Field(default=1.0, gt=0)
    rounds: int = Field(default=4, ge=1)
    min_words: int = Field(default=3, ge=1)
    rouge_l: float = Field(default=0.95, gt=0, le=1)
    max_new_tokens: int = Field(default=48, ge=1)
    temperature: float = Field(default=0.9, ge=0)
    budget: Budget | None = None
    max_calls: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        """The new rows alone; a real row of which none was made is dropped from them, and says so."""
        dataset.require("text", "label")
        rows = list(dataset.rows())
        space = LabelSpace.of(dataset, inputs.get("labels"))
        real: dict[str, list[int]] = {name: [] for name in space.names}
        for place, row in enumerate(rows):
            if row["label"] is not None and row["text"]:
                real[row["label"]].append(place)
        for name, places in real.items():
            if not places:
                raise InputError("a class has no row to write after", where=f"class {name!r}",
                                 expected="at least one real text", found="0 rows",
                                 remedy="label one, or take the class out of the labels")  # fmt: skip
        usable = [place for places in real.values() for place in places]
        vectors = dict(zip(usable, unit(inputs["encoder"].embed([rows[i]["text"] for i in usable]))))
        centroids = np.stack([unit(sum(vectors[i] for i in places)) for places in real.values()])
        radii = [self._radius(name, [vectors[i] for i in places]) for name, places in real.items()]
        writing = Writing(inputs, self)
        funnel = Funnel(GateSettings(min_words=self.min_words, rouge_l=self.rouge_l), inputs.get("protected"))
        funnel.know((rows[i]["id"], rows[i]["text"]) for i in usable)
        made: list[dict[str, Any]] = []
        for k, (name, places) in enumerate(real.items()):
            target, asked = math.ceil(self.ratio * len(places)), 0
            count = 0
            for _ in range(self.rounds):
                if count >= target or writing.out_of(len(funnel.accepted)):
                    break
                numbers = range(asked, asked + target - count)
                asked += len(numbers)
                sources = [places[n % len(places)] for n in numbers]
                starts = [self._start(rows[i]["text"]) for i in sources]
                requests = [
                    self._request(name, n, start, [rows[i]["text"] for i in places], writing)
                    for n, start in zip(numbers, starts)
                ]
                answers = writing.ask(requests, raw=self.prompt == "prefix")
                texts = [a.text and f"{s} {a.text.splitlines()[0]}".strip() for s, a in zip(starts, answers)]
                written = [text for text in texts if text]
                near = iter(unit(inputs["encoder"].embed(written)) if written else [])
                for source, text, answer in zip(sources, texts, answers):
                    vector = next(near) if text else None
                    if (
                        answer.problem == "budget"
                        or count >= target
                        or writing.out_of(len(funnel.accepted)) == "rows"
                    ):
                        continue
                    distances = None if vector is None else 1.0 - centroids @ vector
                    own = "" if distances is None else _far(distances, k, radii[k], space.names)
                    identifier = derived_id(rows[source]["id"], text or "")
                    if not funnel.offer(identifier, text, answer.problem, own=own) and distances is not None:
                        count += 1
                        facts = {"label": name, "label_source": "synthetic", "distance": float(distances[k])}
                        made.append({"id": identifier, "text": text, **facts, **carried(rows[source])})
        weight = min(1.0, self.weight_cap * len(usable) / len(made)) if made else 1.0
        builder = DatasetBuilder()
        for one in made:
            builder.add({**one, "label_weight": weight})
        parents = {one["source_id"] for one in made}
        for row in rows:
            if row["id"] not in parents:
                builder.drop(row["id"], "no text was made after it")
        return builder.finish({"method": self.name, **funnel.report(), **writing.report(), "label_weight": weight})

    def _radius(self, name: str, vectors: list[np.ndarray]) -> float:
        if len(vectors) < 2:
            warnings.warn(f"class {name!r} has one real row: its texts are not filtered by distance", stacklevel=3)
            return math.inf
        return radius(np.stack(vectors), self.quantile)

    def _start(self, text: str) -> str:
        return " ".join(text.split()[: self.seed_words])

    def _request(self, name: str, number: int, start: str, real: list[str], writing: Writing) -> Request:
        key = f"{name}/{number}"
        if self.prompt == "prefix":
            return Request(key, f"{name}: {start}".rstrip() if start else f"{name}:")
        order = np.random.default_rng(hash64(self.seed, key) % 2**63).permutation(len(real))[: self.shown]
        shown = "".join(material(real[i], writing.writer, "example") for i in order)
        begin = f" Begin with: {start}" if start else ""
        return Request(
            key, f"{shown}These are texts of the class {name!r}. Write another one, and nothing else.{begin}"
        )


def _far(distances: np.ndarray, k: int, limit: float, names: tuple[str, ...]) -> str:
    nearest = int(np.argmin(distances))
    if math.isinf(limit):
        return ""
    if nearest != k:
        return f"label_disagrees:{names[nearest]}"
    return "too_far" if distances[k] > limit + 1e-12 else ""
