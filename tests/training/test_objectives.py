"""Causal language modelling and supervised fine-tuning: masks, sums and weights."""

import math

import pytest
import torch

from toy.training_bed import dataset, model
from tutelage.core.discovery import build
from tutelage.core.errors import ConfigError, InputError
from tutelage.models.packing import collate, pack
from tutelage.training.objectives._shared import aggregate, documents_of

PROOF = {
    "training.objectives.causal_lm": ["consistent", "verified"],
    "training.objectives.sft": ["consistent", "verified"],
}
MUTATIONS = [
    (
        "src/tutelage/training/objectives/_shared.py",
        "return sums / sizes.clamp(min=1.0), float(filled)",
        "return sums, float(filled)",
    ),
    ("src/tutelage/training/objectives/_shared.py", "float(filled * length if mode", "float(length if mode"),
    (
        "src/tutelage/training/objectives/_shared.py",
        "-model.token_logps(batch) * batch.token_weight",
        "-model.token_logps(batch)",
    ),
    (
        "src/tutelage/training/objectives/causal_lm.py",
        'windows if self.long_texts == "split" else windows[:1]',
        "windows[:1]",
    ),
    (
        "src/tutelage/training/objectives/sft.py",
        "encode_row(row, model, max_length, turns=self.turns)",
        "encode_row(row, model, max_length)",
    ),
    ("src/tutelage/training/objectives/sft.py", "mode=self.aggregation, length=self.length", "length=self.length"),
]
PAIRS = [
    {"id": "a", "prompt": "What is two and two?", "completion": " Four."},
    {"id": "b", "prompt": "Count to five.", "completion": " One two three four five, and no further than that."},
    {"id": "c", "prompt": "Say it:", "completion": " it"},
]
CHAT = {
    "id": "chat",
    "messages": [
        {"role": "user", "content": "Is it so?"},
        {"role": "assistant", "content": "Yes it is."},
        {"role": "user", "content": "And now?"},
        {"role": "assistant", "content": "No more."},
    ],
}


@pytest.fixture(scope="module")
def lm():
    return model("llama")


def library_losses(lm, encoded):
    """Per trained token -log p by the library's own forward, document by document."""
    found = []
    for one in encoded:
        ids = torch.tensor([one.ids])
        with torch.no_grad():
            logits = lm.module(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0]
        values = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="none")
        found.append([float(v) for v, t in zip(values, one.trained[1:]) if t])
    return found


def by_hand(rows, mode, length):
    """The four definitions as loops over numbers."""
    rows = [row for row in rows if row]
    if mode == "token":
        return sum(sum(row) for row in rows) / sum(len(row) for row in rows)
    if mode == "sequence":
        return sum(sum(row) / len(row) for row in rows) / len(rows)
    return sum(sum(row) for row in rows) / (len(rows) * (length if mode == "constant" else 1))


@pytest.mark.parametrize("mode", ["token", "sequence", "constant", "sum"])
def test_sft_equals_the_library_in_every_mode_and_split(lm, mode):
    objective = build("training.objectives.sft", {"aggregation": mode, "length": 17})
    encoded = [objective.encode(row, lm, 128) for row in PAIRS]
    expected = by_hand(library_losses(lm, encoded), mode, 17)
    splits = [[encoded], [encoded[:1], encoded[1:]], [[one] for one in encoded]]
    for split in splits:
        losses = [objective.loss(lm, collate([part])) for part in split]
        total = sum(float(loss.sum.detach()) for loss in losses) / sum(loss.weight for loss in losses)
        assert total == pytest.approx(expected, rel=1e-5)
    assert float(losses[0].per_example.detach().sum()) == pytest.approx(float(losses[0].sum.detach()))


def test_aggregation_by_hand():
    values = torch.tensor([[1.0, 2.0, 4.0, 8.0], [16.0, 32.0, 64.0, 0.0]], dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]]).bool()
    owner = torch.tensor([[0, 0, 1, 1], [2, 2, 3, -1]])
    expected = {"token": (23.0, 4), "sequence": (1.5 + 4 + 16, 3), "constant": (23.0, 30), "sum": (23.0, 3)}
    for mode, (total, weight) in expected.items():
        sums, found = aggregate(values, mask, owner, mode=mode, length=10)
        assert (float(sums.sum()), found) == (total, weight), mode
    empty, weight = aggregate(values, torch.zeros_like(mask), owner)
    assert (float(empty.sum()), weight) == (0.0, 0.0)
    with pytest.raises(ConfigError, match="did you mean token"):
        aggregate(values, mask, owner, mode="tokens")
    with pytest.raises(ConfigError, match="needs a length"):
        aggregate(values, mask, owner, mode="constant")


def test_prompt_tokens_train_nothing(lm):
    objective = build("training.objectives.sft")
    one = objective.encode(PAIRS[0], lm, 128)
    n = len(lm.tokenize([PAIRS[0]["completion"]])[0]) + 1
    assert sum(one.trained) == n and one.trained[-n:] == [True] * n
    assert one.ids[-1] == lm.eos_id
    loss = objective.loss(lm, collate([[one]]))
    assert loss.weight == n


def test_turns_of_a_conversation(lm):
    every = build("training.objectives.sft").encode(CHAT, lm, 128)
    last = build("training.objectives.sft", {"turns": "last"}).encode(CHAT, lm, 128)
    assert every.ids == last.ids and sum(last.trained) < sum(every.trained)
    assert lm.tokenizer.decode([i for i, t in zip(last.ids, last.trained) if t]).startswith("No more.")


def test_weights_multiply_the_loss_but_not_the_denominator(lm):
    objective = build("training.objectives.sft")
    one = objective.encode(PAIRS[1], lm, 128)
    from dataclasses import replace

    double = replace(one, weights=[2.0] * len(one))
    plain, heavy = (objective.loss(lm, collate([[e]])) for e in (one, double))
    assert float(heavy.sum.detach()) == pytest.approx(2 * float(plain.sum.detach()))
    assert heavy.weight == plain.weight


def test_causal_lm_trains_every_token_once(lm):
    objective = build("training.objectives.causal_lm")
    text = "The number 5 comes after 4. " * 12
    windows = objective.encode({"id": "x", "text": text}, lm, 32)
    ids = lm.tokenize([text])[0]
    trained = [i for w in windows for i, t in zip(w.ids, w.trained) if t]
    assert trained == [*ids, lm.eos_id]
    assert all(len(w) <= 32 for w in windows) and len(windows) > 2
    assert (
        len(
            build("training.objectives.causal_lm", {"long_texts": "truncate"}).encode(
                {"id": "x", "text": text}, lm, 32
            )
        )
        == 1
    )
    losses = library_losses(lm, windows)
    found = [objective.loss(lm, batch) for batch in pack(windows, 64)]
    assert sum(loss.weight for loss in found) == len(trained)
    assert sum(float(loss.sum.detach()) for loss in found) == pytest.approx(
        math.fsum(map(math.fsum, losses)), rel=1e-5
    )


def test_the_end_token_is_a_choice(lm):
    row = {"id": "r", "text": "a short text"}
    ended, open_ended = (
        build("training.objectives.causal_lm", {"eos": eos}).encode(row, lm, 64)[-1].ids for eos in (True, False)
    )
    assert ended == [*open_ended, lm.eos_id]


def test_causal_lm_learns_prompts_and_conversations_whole(lm):
    objective = build("training.objectives.causal_lm")
    for row in (PAIRS[0], CHAT):
        one = objective.encode(row, lm, 128)
        assert one.trained == [False] + [True] * (len(one) - 1)


def test_documents_are_numbered_over_rows(lm):
    encoded = [build("training.objectives.sft").encode(row, lm, 128) for row in PAIRS]
    numbers = documents_of(collate([encoded[:2], encoded[2:]]))
    assert sorted(set(numbers.reshape(-1).tolist())) == [-1, 0, 1, 2]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"id": "t", "text": "plain text"}, "causal_lm"),
        ({"id": "e", "prompt": "a", "completion": ""}, "empty"),
        ({"id": "z", "messages": [{"role": "user", "content": "only a question"}]}, "no assistant turn"),
    ],
)
def test_rows_without_a_response_are_errors_that_name_them(lm, row, words):
    with pytest.raises(InputError, match=words) as error:
        build("training.objectives.sft").encode(row, lm, 64)
    assert row["id"] in str(error.value.where)


def test_dataset_rows_train_through_both(lm):
    row = next(iter(dataset().rows()))
    assert build("training.objectives.causal_lm").encode(row, lm, 64)
