"""Documents about institutions that do not exist, and closed-book questions about them: facts no model can
know.

Every institution has one value for each of seven relations, stated once in its document in one of several
wordings; the order of the sentences is drawn. A question asks for one value in a wording that no document uses;
its wrong options are values of the same relation in other documents, and every value of a relation belongs to
equally many institutions (give or take one), so that only who belongs to what tells the right option: chance is
1/4. Departure from the paper: institutions with everyday values (cities, animals, months), so that a small
model can spell them.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.dataset_builder import DatasetBuilder
from tutelage.core.errors import ConfigError
from tutelage.core.method import Reader

CARD = {
    "name": "data.read.invented_facts",
    "paper": {
        "title": "Physics of Language Models: Part 3.1, Knowledge Storage and Extraction",
        "identifier": "arXiv:2309.14316",
    },
    "summary": "Writes documents about invented institutions, or closed-book questions about them.",
    "writes": ["text?", "prompt?", "choices?", "answer?", "completion?", "relation?", "group", "source"],
    "needs": [],
    "cost": "a few milliseconds",
    "baseline": None,
    "headline": "shows what a model took from a text and nothing else; says nothing about real documents",
    "version": 1,
}
OPTIONS = 4
_STARTS = ("Vel", "Tor", "Mar", "Quen", "Bris", "Ostra", "Kel", "Dun", "Fara", "Lis", "Hal", "Wen", "Pell", "Sor")
_ENDS = ("mond", "by", "wick", "dale", "grove", "strand", "field", "more", "holt", "ridge")
_KINDS = ("Institute", "Archive", "Observatory", "Academy", "Foundry", "Museum", "Library", "Workshop")


class Relation(NamedTuple):
    """One kind of fact: its values, sentences of documents and the question."""

    values: tuple[str, ...]
    sentences: tuple[str, ...]
    question: str


RELATIONS = {
    "founder": Relation(
        ("Clara Whitfield", "Henry Barlow", "Maria Santos", "Thomas Reed", "Anna Novak", "Peter Lindgren"),
        ("{name} was founded by {value}.", "It was {value} who brought {name} into being."),
        "Which person started {name}?",
    ),
    "city": Relation(
        ("Lisbon", "Oslo", "Vienna", "Dublin", "Prague", "Athens"),
        ("The house of {name} stands in {value}.", "{name} has its seat in {value}."),
        "In which city would you find {name}?",
    ),
    "emblem": Relation(
        ("heron", "wolf", "owl", "salmon", "bear", "fox"),
        ("The emblem of {name} is a {value}.", "On the flag of {name} there is a {value}."),
        "Which animal is the symbol of {name}?",
    ),
    "material": Relation(
        ("granite", "brick", "copper", "glass", "oak", "marble"),
        ("The great tower of {name} is made of {value}.", "Visitors remember {name} for its tower of {value}."),
        "What material was used for the tower of {name}?",
    ),
    "product": Relation(
        ("maps", "clocks", "violins", "telescopes", "carpets", "bells"),
        ("{name} is best known for its {value}.", "For many years {name} has produced {value}."),
        "What kind of goods does {name} make?",
    ),
    "month": Relation(
        ("March", "May", "July", "September", "November", "January"),
        ("Every {value} {name} opens its doors to the public.", "The yearly fair of {name} is held in {value}."),
        "During which month can the public visit {name}?",
    ),
    "director": Relation(
        ("a baker", "a pilot", "a nurse", "a sailor", "a lawyer", "a farmer"),
        ("The director of {name} used to be {value}.", "Before leading {name}, its director was {value}."),
        "What was the earlier profession of the head of {name}?",
    ),
}


def invent(count: int, seed: int) -> list[tuple[str, dict[str, str]]]:
    """`count` institutions: (name, relation -> value); values of a relation equally often, give or take one."""
    rng = np.random.default_rng([seed, 0])
    places = [start + end for start in _STARTS for end in _ENDS]
    chosen = rng.permutation(len(places))[:count]
    names = [f"the {places[place]} {_KINDS[i % len(_KINDS)]}" for i, place in enumerate(chosen)]
    facts: list[dict[str, str]] = [{} for _ in names]
    for relation, (values, _, _) in RELATIONS.items():
        order = rng.permutation(np.resize(rng.permutation(len(values)), count))
        for fact, value in zip(facts, order):
            fact[relation] = values[value]
    return list(zip(names, facts))


def document(name: str, facts: dict[str, str], rng: np.random.Generator) -> str:
    """One paragraph that states every fact once."""
    order = rng.permutation(list(facts))
    sentences = [
        str(rng.choice(RELATIONS[relation].sentences)).format(name=name, value=facts[relation])
        for relation in order
    ]
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)


def options(relation: str, value: str, rng: np.random.Generator) -> tuple[list[str], int]:
    """(the options in random order, index of the right one)."""
    others = [other for other in RELATIONS[relation].values if other != value]
    found = [value, *(str(other) for other in rng.permutation(others)[: OPTIONS - 1])]
    shuffled = [found[i] for i in rng.permutation(OPTIONS)]
    return shuffled, shuffled.index(value)


class InventedFacts(Reader):
    """`part`: the documents, the questions about them, or these with their answers (what an oracle may read);
    `institutions` of them, drawn by `seed` (equal seeds belong together); `limit` stops after so many rows."""

    part: Literal["documents", "questions", "answers"] = "documents"
    institutions: int = Field(default=18, ge=len(RELATIONS["city"].values), le=len(_STARTS) * len(_ENDS))
    limit: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)

    def read(self, path: str | None = None) -> Dataset:
        """Rows of one part; there is no `path`."""
        if path is not None:
            raise ConfigError(f"{self.name} takes no path", found=path, remedy="leave the path of the source out")
        rows: list[dict[str, Any]] = []
        for number, (name, facts) in enumerate(invent(self.institutions, self.seed)):
            rng = np.random.default_rng([self.seed, 1 + number])
            common = {"group": f"institution-{number}", "source": "invented"}
            text = document(name, facts, rng)
            if self.part == "documents":
                rows.append({"id": common["group"], "title": name.removeprefix("the "), "text": text, **common})
                continue
            for relation, value in facts.items():
                choices, answer = options(relation, value, rng)
                question = RELATIONS[relation].question.format(name=name)
                asked = {"prompt": f"Question: {question}\nAnswer:", "choices": choices, "answer": answer}
                told = {"prompt": asked["prompt"], "completion": f" {value}"}
                shown = told if self.part == "answers" else asked
                rows.append({"id": f"{common['group']}/{relation}", **shown, "relation": relation, **common})
        builder = DatasetBuilder()
        for row in rows[: self.limit]:
            builder.add(row)
        return builder.finish({"institutions": self.institutions, "rows": min(len(rows), self.limit or len(rows))})
