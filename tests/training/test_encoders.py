"""Encoders in the trainer: pooled vectors are those of `embed`, resume is exact, a trained encoder is saved."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from toy.training_bed import TEXTS, Stop, dataset, model, same, stop_at, train, weights
from tutelage.core.discovery import build
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.method import Objective
from tutelage.models.encode import Encoded
from tutelage.models.load import load_model
from tutelage.models.packing import pack
from tutelage.models.pooling import document_values, encode_whole, pooled
from tutelage.models.toy import tiny_encoder
from tutelage.training._batches import Batches, Step
from tutelage.training.objectives._shared import Loss

MUTATIONS = [
    (
        "src/tutelage/models/pooling.py",
        "BEGINS].reshape(-1) > 0, count, index)",
        "BEGINS].reshape(-1) > 1, 0, index)",
    ),
    ("src/tutelage/models/pooling.py", "return sums[:count] / sizes[:count, None]", "return sums[:count]"),
    ("src/tutelage/models/pooling.py", 'at, "amax")', 'at, "amin", include_self=False)'),
    ("src/tutelage/models/encoder.py", "attention_mask=mask).last", "attention_mask=mask * 0 + 1).last"),
    (
        "src/tutelage/models/encoder.py",
        "max_length=self.max_length, precision=self.precision",
        "precision=self.precision",
    ),
    (
        "src/tutelage/models/packing.py",
        "document in groups[i]] for b in bins]",
        "document in groups[i][::-1]] for b in bins]",
    ),
    ("src/tutelage/models/packing.py", "len(batches[-1]) + len(groups[i]) > rows", "len(batches[-1]) + 1 > rows"),
    ("src/tutelage/training/_batches.py", "if self._objective.joint_rows else None", "if False else None"),
    (
        "src/tutelage/training/_optim.py",
        'get_output_embeddings(), "weight", None)',
        'get_output_embeddings(), "weight")',
    ),
    ("src/tutelage/training/fit.py", "if model.kind not in self.objective.trains:", "if False:"),
]
EVERY_STEP = {"checkpoint_seconds": 0.0}


class Towards(Objective):
    """Squared distance of a text's vector from (1, 0, 0, ...), for a model that is to be trained somehow."""

    whole_rows: ClassVar[bool] = True
    trains: ClassVar[tuple[str, ...]] = ("encoder", "causal")

    def encode(self, row: Mapping[str, Any], model: Any, max_length: int) -> Any:
        return encode_whole(model, row["text"], max_length, example_id=row["id"], facts={"n": len(row["text"])})

    def loss(self, model: Any, batch: Any) -> Loss:
        vectors = torch.nn.functional.normalize(pooled(model, batch), dim=1)
        apart = ((vectors - torch.eye(vectors.shape[1])[0]) ** 2).sum(1)
        return Loss(apart.sum(), len(apart), per_example=apart)


def encoder(**options):
    return tiny_encoder(TEXTS, layers=1, width=16, **options)


def run(one, **options):
    return train(one, objective=Towards(), tokens=1200, **options)


@pytest.mark.parametrize("make", [encoder, lambda: model("llama", layers=3), lambda: model("gpt2", layers=3)])
def test_pooled_is_embed_with_gradients(make):
    one = make()
    texts = TEXTS[:5]
    documents = [encode_whole(one, text, 64, facts={"n": i}) for i, text in enumerate(texts)]
    expected = one.embed(texts, normalise=False) if one.kind == "encoder" else one.embed(texts)
    batches = pack(
        documents, 60, rows=3 if one.kind == "encoder" else 1, pad_id=one.pad_id, isolation=one.isolation
    )
    assert len(batches) > 1
    for batch in batches:
        found = pooled(one, batch)
        order = document_values(batch, "n").long().tolist()
        assert found.requires_grad
        assert np.abs(found.detach().numpy() - expected[order]).max() < 1e-5


def test_last_is_the_state_of_the_last_token():
    one = model("llama")
    ids = [one.bos_id, *one.tokenize([TEXTS[1]])[0]]
    alone = one.base_module.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
    (batch,) = pack([encode_whole(one, text, 64) for text in (TEXTS[0], TEXTS[1])], 128)
    place = batch.lengths[0].index(len(ids))
    assert torch.allclose(pooled(one, batch, "last")[place], alone, atol=1e-5)


def test_texts_are_cut_counted_and_empty_ones_named():
    one = encoder()
    cut = encode_whole(one, TEXTS[2] * 5, 10, example_id="a")
    assert len(cut) == 10 and cut.cut > 0 and cut.n_trained == 0
    with pytest.raises(InputError, match="row b"):
        encode_whole(one, "", 10, example_id="b")


@pytest.mark.parametrize("first", [1, 3, 5])
def test_resume_is_exact_at_any_step_twice(first, tmp_path):
    """BERT has dropout: the random state matters."""
    whole = encoder()
    record = run(whole)
    assert record.steps > 6 and record.losses[-1] < record.losses[0]
    for stop in (first, first + 1):
        with pytest.raises(Stop):
            run(encoder(), checkpoint_dir=tmp_path, settings=EVERY_STEP, on_event=stop_at(stop))
    again = encoder()
    resumed = run(again, checkpoint_dir=tmp_path, settings=EVERY_STEP)
    assert resumed.resumed_at == first
    assert resumed.losses == record.losses and resumed.gradient_norms == record.gradient_norms
    assert same(weights(again), weights(whole))


def test_micro_batches_do_not_change_the_loss():
    plain = {"step_tokens": 200, "learning_rate": 1e-3}
    found = []
    for micro in (1, 10_000):
        one = encoder()
        one.module.config.hidden_dropout_prob = 0.0
        for part in one.module.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
        found.append(run(one, settings={**plain, "micro_tokens": micro}).losses)
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_trained_saved_reloaded_embedded(tmp_path):
    fit = build("training.fit", {"learning_rate": 1e-2, "step_tokens": 100, "micro_tokens": 64, "max_length": 128})
    fit = fit.model_copy(update={"objective": Towards()})
    base = encoder()
    base.max_length = 100
    before, vectors = weights(base), base.embed(TEXTS)
    trained, record = fit.train(base, dataset())
    assert same(before, weights(base)) and record.rows == len(TEXTS)
    assert record.cost.flops > 0 and record.truncated_rows == 0
    after = trained.embed(TEXTS)
    assert after[:, 0].mean() > vectors[:, 0].mean() + 0.1
    again = load_model(trained.save(tmp_path / "encoder"), dtype="float32")
    assert again.max_length == trained.max_length == base.max_length
    assert np.abs(again.embed(TEXTS) - after).max() < 1e-5
    assert again.fingerprint == trained.fingerprint != base.fingerprint


def test_flops_of_a_step_by_hand():
    one = encoder()
    record = run(one)
    assert record.cost.backward_flops == pytest.approx(4 * one.active_params * record.tokens)
    assert record.cost.forward_flops == pytest.approx(2 * one.active_params * record.tokens)


def test_an_adapter_on_an_encoder_trains_alone(tmp_path):
    base = encoder()
    folder = base.save(tmp_path / "base")
    base = load_model(folder, dtype="float32")
    adapted = build("adapters.lora", {"rank": 2}).convert({"base": base}, None, {})
    assert np.array_equal(adapted.embed(TEXTS[:3]), base.embed(TEXTS[:3]))
    fit = build("training.fit", {"learning_rate": 3e-2, "step_tokens": 100, "max_length": 128})
    trained, _ = fit.model_copy(update={"objective": Towards()}).train(adapted, dataset())
    mine = {n: p for n, p in trained.module.named_parameters() if "lora_" not in n}
    theirs = dict(adapted.module.named_parameters())
    assert mine and all(p.data_ptr() == theirs[n].data_ptr() for n, p in mine.items())
    vectors = trained.embed(TEXTS)
    assert np.abs(vectors - base.embed(TEXTS)).max() > 0.05
    path = trained.save(tmp_path / "adapter")
    assert not (path / "model.safetensors").exists()
    for again in (load_model(path, dtype="float32"), load_model(folder, dtype="float32", adapter=path)):
        assert np.abs(again.embed(TEXTS) - vectors).max() < 1e-5
        assert again.fingerprint == trained.fingerprint
    other = build("adapters.lora", {"rank": 2, "alpha": 8.0}).convert({"base": base}, None, {})
    assert other.fingerprint != adapted.fingerprint, "the scale is in the configuration alone"


def test_an_objective_for_another_kind_is_refused():
    with pytest.raises(ConfigError, match="another kind") as error:
        build("training.fit").train(encoder(), dataset())
    assert "training.objectives.causal_lm" in str(error.value)
    with pytest.raises(ConfigError, match="cannot be trained"):
        build("training.fit").train(object(), dataset())


def test_documents_of_a_row_stand_side_by_side():
    """With `joint_rows`, whatever the lengths and however small the micro-batches."""
    lengths = [(9, 2), (3, 3), (8, 1), (2, 6)]
    documents = [Encoded([1] * n, [False] * n, f"r{i}") for i, pair in enumerate(lengths) for n in pair]

    class Fixed:
        isolation, pad_id = "padding", 0

    step = Step(tuple(documents), (), 4, 34, False, (2,) * 4)
    batches = Batches.__new__(Batches)
    for isolation in ("padding", "documents"):
        Fixed.isolation = isolation
        batches._model = Fixed
        for micro in (1, 12, 30, 100):
            found = batches.micro_batches(step, micro)
            flat = [[(n, size) for n, size in zip(b.example_ids, b.lengths)] for b in found]
            names = [[name for row, _ in b for name in row] for b in flat]
            sizes = [[size for _, row in b for size in row] for b in flat]
            assert sorted(name for one in names for name in one) == sorted([f"r{i}" for i in range(4)] * 2)
            if isolation == "padding":
                most = max(1, max(micro, 9) // 9)
                assert all(len(one) <= max(2, most) for one in names), "no more rows than fit"
            for one, size in zip(names, sizes):
                assert len(one) % 2 == 0
                for at in range(0, len(one), 2):
                    assert one[at] == one[at + 1]
                    assert (size[at], size[at + 1]) == lengths[int(one[at][1])]


def test_a_step_says_how_many_documents_each_row_gave():
    class Joint(Towards):
        joint_rows: ClassVar[bool] = True

        def encode(self, row: Mapping[str, Any], model: Any, max_length: int) -> Any:
            return [super().encode(row, model, max_length)] * 3

    one = encoder()
    draws = build("data.order.shuffle").start(dataset(), 0)
    step = Batches(dataset(), draws, Joint(), one, max_length=64).take(200)
    assert step.sizes == (3,) * step.rows and len(step.documents) == 3 * step.rows
    draws = build("data.order.shuffle").start(dataset(), 0)
    assert Batches(dataset(), draws, Towards(), one, max_length=64).take(200).sizes is None
