"""training.objectives.meta_weights and data.recipes.gold_beside: gold rows decide what machine labels weigh."""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from toy.labelled import STEMS
from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.discovery import build
from tutelage.core.errors import ConfigError, InputError
from tutelage.models.packing import pack
from tutelage.models.toy import tiny_causal_lm, tiny_encoder
from tutelage.training.objectives.meta_weights import meta_weights

PROOF = {"training.objectives.meta_weights": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/training/objectives/meta_weights.py", "losses[gold].mean()", "losses.mean()"),
    ("src/tutelage/training/objectives/meta_weights.py", ".clamp(min=0) * ~gold", ".abs() * ~gold"),
    ("src/tutelage/training/objectives/meta_weights.py", "        model.module.eval()\n", ""),
    ("src/tutelage/training/objectives/meta_weights.py", "part.training = mode", "part.training = False"),
    ("src/tutelage/training/objectives/meta_weights.py", "float(weights.sum())", "float(len(weights))"),
    ("src/tutelage/training/objectives/meta_weights.py", 'if "first" in batch.columns', "if False"),
]
ROWS = [
    {"id": f"{name}{i}", "text": f"{stems.split()[i % 4]} then {stems.split()[i // 4]}", "label": name}
    for name, stems in STEMS.items()
    for i in range(16)
]
GOLD = Dataset.from_rows(ROWS[::5])
NAMES = sorted(STEMS)


def machine(wrong=3):
    """Rows with machine labels, every `wrong`-th of them wrong."""
    rows = [row for i, row in enumerate(ROWS) if i % 5]
    made = []
    for i, row in enumerate(rows):
        label = NAMES[(NAMES.index(row["label"]) + 1) % 3] if i % wrong == 0 else row["label"]
        made.append({**row, "label": label, "true": row["label"], "label_source": "pseudo:m"})
    return Dataset.from_rows(made)


def beside(data, **fields):
    return apply_transform(build("data.recipes.gold_beside", fields), data, {"gold": GOLD})


def classifier(seed=0):
    base = tiny_encoder([row["text"] for row in ROWS], layers=1, width=16, seed=seed)
    made = build("adapters.classification_head", {"start": "fitted"}).convert({"base": base}, GOLD, {})
    for parameter in made.module.parameters():
        parameter.requires_grad_(True)
    return made


def batch_of(one, objective, rows):
    found = [objective.encode(row, one, 64) for row in rows]
    documents = [d for item in found for d in item]
    (batch,) = pack(documents, 4000, rows=len(documents), pad_id=one.pad_id, isolation=one.isolation,
                    together=[len(item) for item in found])  # fmt: skip
    return batch, found


def test_weights_are_the_differentiated_inner_step():
    """-dL_gold(theta - sum_i e_i grad l_i) / de_i at e = 0, with every weight of a small network, in float64."""
    torch.manual_seed(1)
    shapes = [(4, 5), (3, 4)]
    start = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    x, y = torch.randn(7, 5, dtype=torch.float64), torch.randint(3, (7,))
    gold = torch.tensor([False, True, False, False, True, False, False])

    def losses(parameters):
        out = torch.tanh(x @ parameters[0].T) @ parameters[1].T
        return torch.nn.functional.cross_entropy(out, y, reduction="none")

    found = meta_weights(losses(start), gold, start)
    e = torch.zeros(7, dtype=torch.float64, requires_grad=True)
    inner = torch.autograd.grad((e * losses(start)).sum(), start, create_graph=True)
    moved = losses([p - g for p, g in zip(start, inner)])
    (expected,) = torch.autograd.grad(-moved[gold].mean(), e)
    expected = expected.clamp(min=0) * ~gold
    assert (expected > 0).any() and (expected[~gold] == 0).any()
    assert (found - expected).abs().max() < 1e-12


def test_weights_of_a_classifier_are_products_of_its_gradients():
    one = classifier()
    objective = build("training.objectives.meta_weights").start(one)
    rows = list(beside(machine(), count=2).rows())[:4]
    batch, _ = batch_of(one, objective, rows)
    loss = objective.loss(one, batch)
    inner = build("training.objectives.classification")
    parameters = list(one.module.parameters())

    def gradient(row):
        document = inner.encode(row, one, 64)
        (alone,) = pack([document], 100, rows=1, isolation="padding")
        with sdpa_kernel(SDPBackend.MATH):
            found = torch.autograd.grad(inner.loss(one, alone).sum, parameters, allow_unused=True)
        return torch.cat(
            [torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in zip(parameters, found)]
        )

    known = [
        {"id": "g", "text": t, "label": name} for r in rows for t, name in zip(r["gold_texts"], r["gold_labels"])
    ]
    towards = torch.stack([gradient(row) for row in known]).mean(0)
    expected = [max(0.0, float(gradient(row) @ towards)) for row in rows]
    names = [row[0] for row in batch.example_ids]
    found = dict.fromkeys(names, 0.0)
    values = one.logits([row["text"] for row in rows])
    ce = {
        r["id"]: -float(torch.log_softmax(torch.from_numpy(v), 0)[NAMES.index(r["label"])])
        for r, v in zip(rows, values)
    }
    for name, part in zip(names, loss.per_example.tolist()):
        found[name] += part / ce[name]
    assert any(expected) and [found[r["id"]] for r in rows] == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert loss.weight == pytest.approx(sum(expected), rel=1e-3)


def test_modes_are_put_back_and_weights_know_no_dropout():
    one = classifier()
    objective = build("training.objectives.meta_weights").start(one)
    batch, _ = batch_of(one, objective, list(beside(machine()).rows())[:6])
    weight = objective.loss(one, batch).weight
    one.module.train()
    for _ in range(2):
        again = objective.loss(one, batch)
        assert again.weight == pytest.approx(weight, rel=1e-5), "dropout is off for the weights"
    assert one.module.training and all(p.training for p in one.module.modules())
    assert float(objective.loss(one, batch).sum) != float(again.sum), "and on for the loss"


def test_wrong_labels_lose_their_weight():
    one, data = classifier(), beside(machine(), count=2)
    rows = list(data.rows())
    batch, _ = batch_of(one, build("training.objectives.meta_weights").start(one), rows)
    parts = build("training.objectives.meta_weights").loss(one, batch).per_example.tolist()
    weighed = {row[0]: 0.0 for row in batch.example_ids}
    for row, part in zip(batch.example_ids, parts):
        weighed[row[0]] += part > 0
    wrong = [weighed[r["id"]] > 0 for r in rows if r["label"] != r["true"]]
    good = [weighed[r["id"]] > 0 for r in rows if r["label"] == r["true"]]
    assert np.mean(wrong) < 0.5 * np.mean(good)


def test_it_weighs_answers_to_a_pattern_too():
    """Words of several documents: one weight a row, through packs and an adapter."""
    base = tiny_causal_lm("llama", [row["text"] for row in ROWS])
    one = build("adapters.lora", {"rank": 2}).convert({"base": base}, None, {})
    inner = {
        "use": "training.objectives.verbaliser",
        "words": {"bird": ["bird", "a bird"], "fruit": ["fruit"], "metal": ["metal"]},
    }
    objective = build("training.objectives.meta_weights", {"inner": inner}).start(one)
    rows = list(beside(machine()).rows())[:2]
    batch, found = batch_of(one, objective, rows)
    assert [len(item) for item in found] == [8, 8]
    loss = objective.loss(one, batch)
    assert loss.per_example.shape == (4,) and loss.weight > 0 and loss.sum.requires_grad


def test_nothing_that_helps_skips_the_step():
    one = classifier()
    data = Dataset.from_rows({**row, "label": NAMES[(NAMES.index(row["label"]) + 1) % 3]} for row in GOLD.rows())
    data = Dataset.from_rows({**row, "gold_texts": [row["text"]], "gold_labels": [known["label"]]}
                             for row, known in zip(data.rows(), GOLD.rows()))  # fmt: skip
    settings = {"step_tokens": 1, "micro_tokens": 1, "objective": "training.objectives.meta_weights"}
    _, record = build("training.fit", settings).train(one, data)
    assert record.skipped_steps > 0, "the opposite of a gold label never helps"
    assert record.cost.backward_flops > 3 * record.cost.forward_flops


def test_bad_rows():
    one = classifier()
    with pytest.raises(InputError, match="no gold rows beside"):
        build("training.objectives.meta_weights").encode({"id": "a", "text": "x", "label": "bird"}, one, 64)
    with pytest.raises(ConfigError, match="is not valid"):
        build("training.objectives.meta_weights", {"inner": "training.objectives.causal_lm"})
