"""training.objectives.context_lm: context before the text, without labels; plain rows as in causal_lm."""

from dataclasses import replace

import pytest
import torch

from toy.training_bed import TEXTS, dataset, model, train
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.models.packing import pack
from tutelage.training.objectives.causal_lm import CausalLM
from tutelage.training.objectives.context_lm import SEPARATOR, ContextLM

PROOF = {"training.objectives.context_lm": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/training/objectives/context_lm.py", "[False] * len(given)", "[True] * len(given)"),
    ("src/tutelage/training/objectives/context_lm.py", "[: max_length // 2]", "[: max_length - 3]"),
    ("src/tutelage/training/objectives/context_lm.py", "*((head, ids", "*((before[:2], ids"),
    ("src/tutelage/training/objectives/context_lm.py", 'if not row.get("context") or', "if"),
]
ROW = {"id": "r", "text": "The number 7 comes after 6.", "context": "URL: numbers.org"}


@pytest.fixture(scope="module")
def lm():
    return model("llama")


def test_the_context_comes_first_and_is_not_trained(lm):
    (document,) = ContextLM().encode(ROW, lm, 128)
    before = [lm.bos_id, *lm.tokenize([ROW["context"] + SEPARATOR])[0]]
    text = [*lm.tokenize([ROW["text"]])[0], lm.eos_id]
    assert document.ids == before + text and document.example_id == "r"
    assert document.trained == [False] * len(before) + [True] * len(text)
    (bare,) = ContextLM(eos=False).encode(ROW, lm, 128)
    assert bare.ids == (before + text)[:-1]


def test_its_loss_is_that_of_the_library_with_masked_labels(lm):
    (document,) = ContextLM().encode(ROW, lm, 128)
    labels = [i if flag else -100 for i, flag in zip(document.ids, document.trained)]
    with torch.no_grad():
        expected = float(lm.module(input_ids=torch.tensor([document.ids]), labels=torch.tensor([labels])).loss)
        found = ContextLM().loss(lm, pack([document], 128)[0])
    assert float(found.sum) / found.weight == pytest.approx(expected, rel=1e-5)
    other = replace(document, trained=[True] * len(document))
    with torch.no_grad():
        assert float(CausalLM().loss(lm, pack([other], 128)[0]).sum) != pytest.approx(float(found.sum), rel=1e-2)


def test_a_long_text_has_its_context_before_the_first_piece_alone(lm):
    row = {**ROW, "text": ROW["text"] * 12}
    windows = ContextLM().encode(row, lm, 32)
    context = lm.tokenize([ROW["context"] + SEPARATOR])[0][:16]
    text = [*lm.tokenize([row["text"]])[0], lm.eos_id]
    assert all(len(w) <= 32 for w in windows) and len(windows) > 2
    assert windows[0].ids[: 1 + len(context)] == [lm.bos_id, *context]
    assert all(w.ids[0] == lm.bos_id and w.trained[1] for w in windows[1:])
    trained = [token for w in windows for token, flag in zip(w.ids, w.trained) if flag]
    assert trained == text, "every token of the text once"
    assert len(ContextLM(long_texts="truncate").encode(row, lm, 32)) == 1
    longest = {**ROW, "context": "very long " * 40}
    windows = ContextLM().encode(longest, lm, 32)
    assert sum(w.n_trained for w in windows) == len(lm.tokenize([ROW["text"]])[0]) + 1
    assert windows[0].trained.count(False) == 1 + 16, "a context takes half of the window at most"
    assert all(w.n_trained for w in ContextLM().encode(longest, lm, 2))


@pytest.mark.parametrize("context", ["", None])
def test_without_context_it_is_causal_lm(lm, context):
    rows = [{**ROW, "context": context}, {"id": "p", "prompt": "a", "completion": " b", "context": context}]
    for row in rows:
        assert ContextLM().encode(row, lm, 16) == CausalLM().encode(row, lm, 16)
    plain = train(model("llama"), dataset(), tokens=400)
    empty = Dataset.from_rows({"id": f"r{i}", "text": text, "context": ""} for i, text in enumerate(TEXTS))
    same = train(model("llama"), empty, tokens=400, objective=ContextLM())
    assert same.losses == plain.losses and same.step_tokens == plain.step_tokens


def test_fields_are_those_of_causal_lm_and_empty_texts_are_refused(lm):
    documents = [d for row in (ROW, {**ROW, "text": "Short."}) for d in ContextLM().encode(row, lm, 64)]
    batch = pack(documents, 128)[0]
    by_text = ContextLM(aggregation="sequence").loss(lm, batch)
    assert by_text.weight == 2 and ContextLM().loss(lm, batch).weight == sum(d.n_trained for d in documents)
    with pytest.raises(InputError, match="a text is empty"):
        ContextLM().encode({**ROW, "text": ""}, lm, 64)
