"""adapters.soft_prompt: trained vectors before every document as PEFT has them, in packs and below a head."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import PeftModel

from toy.labelled import short_texts
from toy.training_bed import same, weights
from tutelage.core.dataset import Dataset
from tutelage.core.discovery import build
from tutelage.core.errors import ConfigError, InputError, ModelError
from tutelage.models.load import load_model
from tutelage.models.packing import collate, pack
from tutelage.models.pooling import encode_whole, pooled
from tutelage.models.toy import tiny_causal_lm, tiny_encoder

PROOF = {"adapters.soft_prompt": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/adapters/soft_prompt.py", "-(-self.length // len(found)))[", "self.length)[::-1]["),
    ("src/tutelage/adapters/soft_prompt.py", 'int(inputs.get("seed", self.seed))', "0"),
    ("src/tutelage/adapters/soft_prompt.py", "        splice(module)\n", ""),
    ("src/tutelage/adapters/soft_prompt.py", 'words = [" " + name', 'words = ["" + name'),
    ("src/tutelage/models/soft_prompt.py", "(input - rows).clamp(min=0)", "(input - rows).clamp(min=0, max=2)"),
    ("src/tutelage/models/soft_prompt.py", "soft = input >= rows", "soft = input > rows"),
    ("src/tutelage/models/encode.py", '[*getattr(model, "soft_ids", ()), *([] if first is None else [first])]',
     '[*([] if first is None else [first]), *getattr(model, "soft_ids", ())]'),
    ("src/tutelage/models/encoder.py", "own = slice(len(self.soft_ids), None)", "own = slice(None)"),
    ("src/tutelage/models/encoder.py", "room = self.max_length - len(self.soft_ids)", "room = self.max_length"),
    ("src/tutelage/models/pooling.py", "room = max_length - len(head)", "room = max_length"),
    ("src/tutelage/models/peft_io.py", 'return (f"{PROMPT}.",) if', 'return (".",) if'),
    ("src/tutelage/models/peft_io.py", "        splice(adapted)\n", "        pass\n"),
    ("src/tutelage/models/causal.py", "for m in self.module.modules() if isinstance(m, nn.Embedding)",
     "for m in base.modules() if isinstance(m, nn.Embedding)"),
]  # fmt: skip
ROWS = short_texts()
TEXTS = [row["text"] for row in ROWS]
FEW = Dataset.from_rows(row for i, row in enumerate(ROWS) if i % 2)
P = 6


def base(arch="llama", folder=None, **options):
    make = tiny_encoder if arch == "bert" else lambda *a, **k: tiny_causal_lm(arch, *a, **k)
    made = make(TEXTS, layers=2, width=16, **options)
    return made if folder is None else load_model(made.save(folder / arch), dtype="float32")


def prompted(one, rows=FEW, **fields):
    return build("adapters.soft_prompt", {"length": P, **fields}).convert({"base": one}, rows, {})


def vectors(one):
    return one.module.prompt_encoder["default"].embedding.weight


def shaken(one, seed=0):
    """With vectors unlike any token's."""
    with torch.no_grad():
        vectors(one).normal_(generator=torch.Generator().manual_seed(seed))
    return one


def headed(one, **fields):
    return build("adapters.classification_head", {"pooling": "last", **fields}).convert({"base": one}, FEW, {})


@pytest.mark.parametrize("arch", ["llama", "gpt2", "gemma", "gemma2", "bert"])
def test_a_document_is_what_peft_computes_and_reads_back(arch, tmp_path):
    one = shaken(prompted(base(arch, tmp_path)))
    document = encode_whole(one, TEXTS[0], 64)
    own = document.ids[P:]
    assert document.ids[:P] == list(one.soft_ids) and max(own) < one.soft_ids[0]
    with torch.no_grad():
        found = one.final_hidden(collate([[document]]))[0, P:]
        ids = torch.tensor([own])
        saved = PeftModel.from_pretrained(base(arch).module, one.save(tmp_path / "prompt"))
        for module in (one.module, saved):
            ask = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "output_hidden_states": True}
            expected = module(**ask).hidden_states[-1][0, P:]
            assert (found - expected).abs().max() < 1e-5
    bare = base(arch).final_hidden(collate([[encode_whole(base(arch), TEXTS[0], 64)]]))[0]
    assert (bare - found).abs().max() > 1e-2
    again = load_model(tmp_path / "prompt", dtype="float32")
    assert again.fingerprint == one.fingerprint != shaken(one, 1).fingerprint


@pytest.mark.parametrize("arch", ["llama", "gpt2", "bert"])
def test_packed_and_padded_documents_are_isolated(arch):
    one = shaken(prompted(base(arch)))
    texts = [TEXTS[0], TEXTS[20] * 3, TEXTS[40] * 2, TEXTS[5]]
    documents = [encode_whole(one, text, 64, example_id=str(i)) for i, text in enumerate(texts)]
    alone = torch.cat([pooled(one, collate([[document]]), "last") for document in documents])
    size = 256 if one.isolation == "documents" else 64
    (together,) = pack(documents, size, rows=4, pad_id=one.pad_id, isolation=one.isolation)
    places = [int(name) for row in together.example_ids for name in row]
    for how in ("last", "mean"):
        wanted = alone if how == "last" else torch.cat([pooled(one, collate([[d]]), how) for d in documents])
        assert (pooled(one, together, how) - wanted[places]).abs().max() < 1e-5 * wanted.abs().max()
    if one.isolation == "documents":
        assert together.shape[0] == 1
        other = replace(documents[1], ids=documents[1].ids[:P] + documents[1].ids[:P:-1] + [7])
        states = [pooled(one, collate([[documents[0], d, *documents[2:]]]), "last") for d in (documents[1], other)]
        assert torch.equal(states[0][[0, 2, 3]], states[1][[0, 2, 3]]) and not torch.equal(
            states[0][1], states[1][1]
        )


def test_vectors_of_texts_leave_the_prompt_out():
    for arch in ("llama", "bert"):
        one = shaken(prompted(base(arch)))
        found = one.embed(TEXTS[:3]) if arch == "llama" else one.embed(TEXTS[:3], normalise=False)
        expected = [pooled(one, collate([[encode_whole(one, text, 64)]]), "mean")[0] for text in TEXTS[:3]]
        assert np.abs(found - torch.stack(expected).detach().numpy()).max() < 1e-5
        with torch.no_grad():
            document = encode_whole(one, TEXTS[0], 64)
            layer = 1 if arch == "llama" else -1
            (states,) = one.hidden_states(TEXTS[:1], layer)
            assert len(states) == one.count_tokens(TEXTS[:1])[0] == len(document) - P - (arch == "llama")
        assert np.abs(states.mean(0) - found[0]).max() < 1e-5 or arch == "bert"


def test_where_the_vectors_start():
    one = base()
    table = one.module.get_input_embeddings().weight
    ids = [i for name in (" bird", " fruit", " metal") for i in one.tokenize([name])[0]]
    wanted = table[(ids * P)[:P]]
    assert torch.equal(vectors(prompted(one)), wanted)
    schema = Dataset.from_rows([{"label": "metal"}, {"label": "bird"}])
    found = build("adapters.soft_prompt", {"length": 40}).convert({"base": one}, None, {"labels": schema})
    ids = [i for name in (" metal", " bird") for i in one.tokenize([name])[0]]
    assert torch.equal(vectors(found), table[(ids * 40)[:40]])
    text = prompted(one, None, start="text", text="which thing")
    assert torch.equal(vectors(text), table[(one.tokenize(["which thing"])[0] * P)[:P]])
    drawn = [vectors(prompted(one, None, start="random", seed=seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert all((row == table).all(1).any() for row in drawn[0])
    scaled = base("gemma2")
    expected = scaled.module.get_input_embeddings()(torch.tensor(scaled.tokenize([" bird"])[0]))
    assert torch.equal(vectors(prompted(scaled))[: len(expected)], expected)


@pytest.mark.parametrize("arch", ["llama", "bert"])
def test_trained_alone_saved_and_reloaded(arch, tmp_path):
    under = base(arch, tmp_path)
    one = headed(prompted(under))
    before, below = weights(one), weights(under)
    step = {"step_tokens": 300, "micro_tokens": 150, "learning_rate": 1e-1, "budget": {"rows": 960}}
    fields = {"objective": "training.objectives.classification", "rates": {"classifier_head": 0.3}, **step}
    made, record = build("training.fit", fields).train(one, FEW)
    assert same(before, weights(one)) and same(below, weights(under))
    after = weights(made)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {
        "body.prompt_encoder.default.embedding.weight",
        "classifier_head.weight",
        "classifier_head.bias",
    }
    assert {n for n, p in made.module.named_parameters() if p.requires_grad} == moved
    assert record.tokens >= 960 * P and record.losses[-1] < record.losses[0] * 0.6

    def accuracy(classifier):
        return np.mean(
            [r["label"] == classifier.labels.names[i] for r, i in zip(ROWS, classifier.logits(TEXTS).argmax(1))]
        )

    assert accuracy(made) > 0.9 > accuracy(one) + 0.3
    again = load_model(made.save(tmp_path / "made"), dtype="float32")
    assert np.abs(again.logits(TEXTS) - made.logits(TEXTS)).max() < 1e-5
    assert again.fingerprint == made.fingerprint != one.fingerprint
    kept = (tmp_path / "made" / "model" / "adapter_model.safetensors").stat().st_size
    assert kept < P * 16 * 4 + 400, "the prompt alone is saved, not the model"
    more, _ = build("training.fit", {**fields, "budget": {"rows": 24}}).train(again, FEW)
    assert not torch.equal(vectors(more.base), vectors(again.base)), "a reloaded prompt trains on"


def test_the_prompt_counts_as_tokens_and_not_as_weights():
    under = base()
    one = prompted(under)
    assert one.active_params == under.active_params and one.n_params == under.n_params + P * 16
    long = " ".join(TEXTS)
    for model, own in ((one, P), (prompted(base("bert")), P), (under, 0)):
        document = encode_whole(model, long, 40)
        assert len(document) == 40 and document.ids[own] < model.module.get_input_embeddings().weight.shape[0]
        assert document.cut == len(encode_whole(model, long, 10_000)) - 40
    before = one.meter.cost
    one.embed(TEXTS[:1])
    spent = one.meter.since(before).forward_flops
    before = under.meter.cost
    under.embed(TEXTS[:1])
    assert spent / under.meter.since(before).forward_flops == pytest.approx(
        len(encode_whole(one, TEXTS[0], 64)) / len(encode_whole(under, TEXTS[0], 64))
    )
    encoder = prompted(base("bert"))
    with pytest.warns(UserWarning, match="longer than 506 tokens"):
        assert np.isfinite(encoder.embed([" ".join(TEXTS * 4)])).all()
    for model in (one, encoder):
        with pytest.raises(InputError, match="no room for the text"):
            encode_whole(model, TEXTS[0], P)


def test_what_a_prompted_model_does_not_do(tmp_path):
    one = prompted(base())
    for act in (
        lambda: one.score_texts(TEXTS[:1]),
        lambda: one.generate(["a"]),
        lambda: one.loglikelihood([("a", "b")]),
        lambda: build("training.fit").train(one, FEW),
        lambda: one.merged(),
    ):
        with pytest.raises(ModelError, match="soft prompt"):
            act()
    for name in ("adapters.soft_prompt", "adapters.lora"):
        with pytest.raises(ConfigError, match="adapter already"):
            build(name, {"start": "random"} if "soft" in name else {}).convert({"base": one}, None, {})
    with pytest.raises(ConfigError, match="too little room"):
        prompted(base(), length=300)
    with pytest.raises(InputError, match="classes are not known"):
        prompted(base(), None)
    with pytest.raises(ConfigError, match="give a text"):
        build("adapters.soft_prompt", {"start": "text"})
    with pytest.raises(ConfigError, match="kind encoder or causal"):
        prompted(headed(base()))
