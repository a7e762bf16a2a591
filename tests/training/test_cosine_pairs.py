"""training.objectives.cosine_pairs: the loss by hand and by a reference, and an encoder that learns classes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from toy.training_bed import model
from tutelage.core.dataset import Dataset
from tutelage.core.discovery import build
from tutelage.core.errors import InputError
from tutelage.models.encode import Encoded
from tutelage.models.packing import pack
from tutelage.models.toy import tiny_encoder
from tutelage.training._batches import Batches

PROOF = {"training.objectives.cosine_pairs": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/training/objectives/cosine_pairs.py", " - same) ** 2", " - 2 * same + 1) ** 2"),
    ("src/tutelage/training/objectives/cosine_pairs.py", "apart = weight * (", "apart = ("),
    ("src/tutelage/training/objectives/cosine_pairs.py", "vectors[1::2]", "vectors[::2]"),
    ("src/tutelage/training/objectives/cosine_pairs.py", "joint_rows: ClassVar[bool] = True", ""),
]  # fmt: skip
WORDS = {"fruit": "apple pear plum grape".split(), "metal": "iron zinc tin lead".split()}
TEXTS = [f"{a} and {b}" for words in WORDS.values() for a in words for b in words if a != b]
PAIRS = [
    {"id": "p", "text": "apple and pear", "text_b": "plum and grape with iron", "same": True, "weight": 1.0},
    {"id": "q", "text": "tin", "text_b": "pear and plum and apple and grape", "same": False, "weight": 0.5},
    {"id": "r", "text": "zinc and tin and lead", "text_b": "lead", "same": True, "weight": 2.0},
]


def batches(one, rows, size=200):
    objective = build("training.objectives.cosine_pairs")
    documents = [d for row in rows for d in objective.encode(row, one, 64)]
    found = pack(
        documents,
        size,
        rows=4 if one.kind == "encoder" else 1,
        pad_id=one.pad_id,
        isolation=one.isolation,
        together=[2] * len(rows),
    )
    return objective, found


@pytest.mark.parametrize("make", [lambda: tiny_encoder(TEXTS), lambda: model("llama", layers=3)])
def test_the_loss_is_that_of_the_embedded_texts(make):
    one = make()
    objective, found = batches(one, PAIRS, 36)
    assert len(found) > 1
    losses = [objective.loss(one, batch) for batch in found]
    a, b = (one.embed([row[name] for row in PAIRS]) for name in ("text", "text_b"))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    expected = [row["weight"] * (c - row["same"]) ** 2 for row, c in zip(PAIRS, cosine)]
    assert sum(loss.weight for loss in losses) == 3.0
    assert float(sum(loss.sum.detach() for loss in losses)) == pytest.approx(sum(expected), abs=1e-5)
    order = [name for batch in found for name in [n for row in batch.example_ids for n in row][::2]]
    parts = torch.cat([loss.per_example for loss in losses])
    assert parts.tolist() == pytest.approx([expected["pqr".index(name)] for name in order], abs=1e-5)


def test_the_loss_equals_that_of_sentence_transformers():
    """Losses of CosineSimilarityLoss (sentence-transformers 6.2.0) on the same vectors."""
    recorded = json.loads((Path(__file__).parent / "cosine_pairs_reference.json").read_text(encoding="utf-8"))

    class Given:
        kind, meter = "encoder", None

        def final_hidden(self, batch):
            return torch.tensor([[v] for pair in zip(recorded["a"], recorded["b"]) for v in pair])

    n = len(recorded["same"])
    documents = [
        Encoded([1], [False], f"r{i}", columns={"same": [float(y)], "weight": [1.0], "begins": [0.0]})
        for i, y in enumerate(recorded["same"])
        for _ in "ab"
    ]
    (batch,) = pack(documents, 1, rows=2 * n, isolation="padding", together=[2] * n)
    loss = build("training.objectives.cosine_pairs").loss(Given(), batch)
    assert float(loss.sum) / loss.weight == pytest.approx(recorded["loss"], abs=1e-6)


def test_identical_positives_and_orthogonal_negatives_cost_nothing():
    class Given:
        kind = "encoder"

        def final_hidden(self, batch):
            return torch.tensor([[[1.0, 0]], [[2.0, 0]], [[0, 1.0]], [[1.0, 0]]])

    documents = [
        Encoded([1], [False], name, columns={"same": [same], "weight": [1.0], "begins": [0.0]})
        for name, same in (("p", 1.0), ("p", 1.0), ("q", 0.0), ("q", 0.0))
    ]
    (batch,) = pack(documents, 1, rows=4, isolation="padding", together=[2, 2])
    assert float(build("training.objectives.cosine_pairs").loss(Given(), batch).sum) == pytest.approx(0, abs=1e-12)


def test_an_encoder_learns_classes_from_a_few_labels():
    """Trained on four texts a class, the vectors of texts it has not seen separate by class."""
    rows = [{"id": f"{n}{i}", "text": t, "label": n} for n, words in WORDS.items()
            for i, t in enumerate(f"{a} and {b}" for a in words for b in words if a != b)]  # fmt: skip
    few = Dataset.from_rows([row for row in rows if int(row["id"][5:]) % 3 == 0])
    rest = [row for row in rows if int(row["id"][5:]) % 3]
    pairs = build("data.recipes.label_pairs").apply(few, {})
    settings = {"learning_rate": 3e-3, "step_tokens": 48, "micro_tokens": 48, "budget": {"rows": 480}}
    fit = build("training.fit", {**settings, "objective": "training.objectives.cosine_pairs"})
    base = tiny_encoder(TEXTS)
    tuned, record = fit.train(base, pairs)
    assert record.losses[-1] < record.losses[0] / 4

    def gap(one):
        cosine = (v := one.embed([row["text"] for row in rest])) @ v.T
        same = np.array([[a["label"] == b["label"] for b in rest] for a in rest])
        return cosine[same].mean() - cosine[~same].mean()

    assert gap(base) < 0.1 < 0.3 < gap(tuned)


def test_a_row_that_is_no_pair_is_named():
    with pytest.raises(InputError, match="row x") as error:
        build("training.objectives.cosine_pairs").encode({"id": "x", "text": "a"}, tiny_encoder(TEXTS), 64)
    assert "no text_b, no same" in str(error.value)


def test_the_two_texts_of_a_pair_are_computed_together():
    one, data = tiny_encoder(TEXTS), Dataset.from_rows(PAIRS)
    draws = build("data.order.sequential").start(data, 0)
    batches = Batches(data, draws, build("training.objectives.cosine_pairs"), one, max_length=64)
    for batch in batches.micro_batches(batches.take(10**6, rows=3), 1):
        assert len(batch.example_ids) == 2 and len(set(batch.example_ids)) == 1
