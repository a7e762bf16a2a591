"""training.objectives.reference_kl and signals.reference_logps: three back-ends, one reference."""

import math

import numpy as np
import pytest
import torch

from toy.training_bed import TEXTS, Stop, dataset, model, same, stop_at, train, weights
from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.discovery import build
from tutelage.core.errors import ConfigError, InputError, TrainingError
from tutelage.models.packing import collate
from tutelage.models.reference import AdapterOff, FrozenCopy, head_states, sampled_kl, token_kl
from tutelage.signals.reference_logps import ReferenceLogps
from tutelage.training.objectives.reference_kl import ReferenceKl

PROOF = {
    "training.objectives.reference_kl": ["consistent", "verified"],
    "signals.reference_logps": ["consistent", "verified"],
}
MUTATIONS = [
    (
        "src/tutelage/models/reference.py",
        '(log_q, log_p) if direction == "forward"',
        '(log_p, log_q) if direction == "forward"',
    ),
    ("src/tutelage/models/reference.py", "d = theirs - ours", "d = ours - theirs"),
    ("src/tutelage/models/reference.py", "self._model.module.disable_adapter():", "self._model.scoring():"),
    ("src/tutelage/models/reference.py", "parameter.requires_grad_(mark)", "pass"),
    ("src/tutelage/training/objectives/reference_kl.py", "learnt.sum + extra.sum()", "learnt.sum - extra.sum()"),
    ("src/tutelage/training/objectives/reference_kl.py", "aggregate(values * mask,", "aggregate(values,"),
    ("src/tutelage/training/objectives/reference_kl.py", "            at += n\n", "            at += 0\n"),
    ("src/tutelage/training/objectives/reference_kl.py", "if expected != found:", "if False:"),
    ("src/tutelage/signals/reference_logps.py", "values[i] = part", "values[i] = part[::-1]"),
]
PAIRS = [
    {"id": "a", "prompt": "What is two and two?", "completion": " Four.", "replay": True},
    {
        "id": "b",
        "prompt": "Count to five.",
        "completion": " One two three four five, and no more.",
        "replay": False,
    },
]


def lora(lm, seed=0, shift=0.0):
    """`lm` with an adapter; `shift` moves its second factors away from zero."""
    made = build("adapters.lora", {"rank": 4, "seed": seed}).convert({"base": lm}, None, {"seed": seed})
    move(made, shift, seed)
    return made


def move(lm, size, seed=1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in lm.module.named_parameters():
            if "lora_" not in name and hasattr(lm.module, "peft_config"):
                continue
            parameter.requires_grad_(True)
            if size:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * size)


def batch_of(objective, rows, lm, length=128):
    found = [objective.encode(row, lm, length) for row in rows]
    return collate([[d for one in found for d in (one if isinstance(one, list) else [one])]], pad_id=lm.pad_id)


def library_kl(lm, other, document, direction):
    """Per trained token, by torch's own kl_div on the library's own logits, in float64."""
    ids = torch.tensor([document.ids])
    with torch.no_grad():
        p, q = (
            torch.log_softmax(m(input_ids=ids, use_cache=False).logits[0, :-1].double(), -1) for m in (lm, other)
        )
    first, second = (q, p) if direction == "forward" else (p, q)
    values = torch.nn.functional.kl_div(second, first, log_target=True, reduction="none").sum(-1)
    return [float(v) for v, t in zip(values, document.trained[1:]) if t]


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("adapted", [True, False])
def test_divergence_equals_torch_on_the_library_logits(direction, adapted):
    base = model("llama")
    lm = lora(base, shift=0.1) if adapted else base
    method = ReferenceKl(divergence=direction, weight=1.0)
    running = method.start(lm)
    other = base.module
    if not adapted:
        other = FrozenCopy(lm)._model.module
        move(lm, 0.05)
    lm.module.eval()
    documents = [d for row in dataset(TEXTS[:4]).rows() for d in running.encode(row, lm, 40)]
    expected = [v for d in documents for v in library_kl(lm.module, other, d, direction)]
    batch = collate([documents], pad_id=lm.pad_id)
    found = token_kl(lm, running.reference, batch, batch.response_mask, direction)
    assert np.allclose(found[batch.response_mask].detach().numpy(), expected, rtol=1e-3, atol=1e-6)
    assert min(expected) > 0
    plain = build("training.objectives.causal_lm").loss(lm, batch)
    whole = running.loss(lm, batch)
    assert float(whole.sum - plain.sum) == pytest.approx(sum(expected), rel=1e-3)
    assert whole.weight == plain.weight
    assert float(whole.per_example.sum()) == pytest.approx(float(whole.sum), rel=1e-5)
    assert whole.metrics["divergence"] == pytest.approx(sum(expected), rel=1e-3)


def test_gradient_equals_the_whole_formula_at_once():
    base = model("llama")
    lm = lora(base, shift=0.1)
    frozen = next(p for n, p in lm.module.named_parameters() if "lora_B" in n)
    frozen.requires_grad_(False)
    running = ReferenceKl(weight=0.7).start(lm)
    batch = batch_of(running, dataset(TEXTS[:3]).rows(), lm)
    lm.module.train()
    running.loss(lm, batch).sum.backward()
    found = {n: p.grad.clone() for n, p in lm.module.named_parameters() if p.grad is not None}
    lm.module.zero_grad()
    rows, columns = batch.response_mask.nonzero(as_tuple=True)
    logits = lm.head(head_states(lm, batch)[rows, columns - 1])
    with torch.no_grad():
        q = torch.log_softmax(lm.head(AdapterOff(lm).states(batch)[rows, columns - 1]), 1)
    p = torch.log_softmax(logits, 1)
    targets = batch.input_ids[rows, columns]
    loss = -p.gather(1, targets[:, None]).sum() + 0.7 * (q.exp() * (q - p)).sum()
    loss.backward()
    assert found and all("lora_" in name for name in found)
    assert not frozen.requires_grad, "switching the adapter off and on marks nothing as trained that was not"
    for name, parameter in lm.module.named_parameters():
        if name in found:
            assert torch.allclose(found[name], parameter.grad, rtol=1e-3, atol=1e-4), name
            assert parameter.requires_grad


def test_the_back_ends_agree_and_start_at_zero():
    base = model("llama")
    lm = lora(base)
    data = score_dataset(ReferenceLogps(max_length=64), dataset(TEXTS[:6]), {"model": base})
    methods = {
        kind: ReferenceKl(weight=1.0, divergence="sampled", reference=kind)
        for kind in ("adapter_off", "copy", "cached")
    }
    running = {kind: method.start(lm) for kind, method in methods.items()}
    lm.module.eval()
    batches = {kind: batch_of(r, data.rows(), lm, 64) for kind, r in running.items()}
    ours = lm.token_logps(batches["cached"]).detach()
    assert torch.equal(running["adapter_off"].reference.logps(batches["copy"]), ours)
    assert torch.equal(running["copy"].reference.logps(batches["copy"]), ours)
    mask = batches["cached"].response_mask
    # Without gradients attention is computed in other widths: equal to rounding.
    assert token_kl(lm, running["adapter_off"].reference, batches["copy"], mask).abs().max() <= 1e-6
    move(lm, 0.1)
    values = {kind: float(r.loss(lm, batches[kind]).sum) for kind, r in running.items()}
    assert values["adapter_off"] == pytest.approx(values["copy"], rel=1e-5)
    assert values["cached"] == pytest.approx(values["copy"], rel=1e-5)
    d = ours - lm.token_logps(batches["copy"]).detach()
    expected = float((torch.exp(d) - d - 1)[mask].sum())
    plain = float(build("training.objectives.causal_lm").loss(lm, batches["copy"]).sum)
    assert values["copy"] - plain == pytest.approx(expected, rel=1e-3) and expected > 0.01
    sums = data.numpy("ref_logp_sum")
    assert sums.sum() == pytest.approx(float(ours.sum()), rel=1e-5)


def test_sampled_estimate_by_hand():
    found = sampled_kl(torch.tensor([-1.0, -2.0]), torch.tensor([-1.0, -1.0]))
    assert found.tolist() == pytest.approx([0.0, math.e - 2])


@pytest.mark.parametrize(
    "inner", [{"use": "training.objectives.sft", "aggregation": "sequence"}, "training.objectives.sft"]
)
@pytest.mark.parametrize("divergence", ["forward", "sampled"])
def test_only_the_named_rows_are_held(inner, divergence):
    lm = lora(model("llama"), shift=0.1)
    lm.module.eval()
    parts = []
    for column in ("replay", None):
        running = ReferenceKl(inner=inner, weight=1.0, only_where=column, divergence=divergence).start(lm)
        loss = running.loss(lm, batch_of(running, PAIRS, lm))
        plain = running.inner.loss(lm, batch_of(running.inner, PAIRS, lm))
        parts.append(loss.per_example.detach() - plain.per_example.detach())
        assert loss.weight == plain.weight
    assert float(parts[0][1]) == 0 and float(parts[0][0]) == pytest.approx(float(parts[1][0]), rel=1e-4)
    assert float(parts[1][1]) > 0
    with pytest.raises(InputError, match="no column 'old'"):
        ReferenceKl(only_where="old").start(lm).encode(PAIRS[0], lm, 64)


def test_weight_zero_is_the_inner_objective_to_the_bit():
    runs = []
    for objective in ("training.objectives.causal_lm", {"use": "training.objectives.reference_kl", "weight": 0}):
        lm = model("gpt2")
        given = {"use": objective} if isinstance(objective, str) else objective
        record = train(
            lm, tokens=300, objective=build(given["use"], {k: v for k, v in given.items() if k != "use"})
        )
        runs.append((weights(lm), record.losses))
    assert same(runs[0][0], runs[1][0]) and runs[0][1] == runs[1][1]


def test_training_holds_the_model_near_its_start_and_resumes(tmp_path):
    moved = {}
    other = dataset([t[::-1] for t in TEXTS])
    probe = batch_of(build("training.objectives.causal_lm"), list(other.rows())[:8], model("llama"))
    for weight in (0.0, 50.0):
        lm = model("llama")
        start = FrozenCopy(lm)
        train(lm, other, tokens=1500, objective=ReferenceKl(weight=weight))
        lm.module.eval()
        with torch.no_grad():
            moved[weight] = float(token_kl(lm, start, probe, probe.response_mask).sum())
    assert moved[50.0] < 0.5 * moved[0.0]
    objective = ReferenceKl(weight=1.0)
    whole = model("llama")
    train(whole, objective=objective)
    options = {"checkpoint_dir": tmp_path, "objective": objective, "settings": {"checkpoint_seconds": 0.0}}
    with pytest.raises(Stop):
        train(model("llama"), on_event=stop_at(3), **options)
    resumed = model("llama")
    assert train(resumed, **options).resumed_at in (2, 3)
    assert same(weights(whole), weights(resumed))


def test_what_cannot_be_a_reference():
    lm = model("llama")
    with pytest.raises(ConfigError, match="without an adapter"):
        AdapterOff(lm)
    adapted = lora(lm)
    reference = AdapterOff(adapted)
    batch = batch_of(build("training.objectives.causal_lm"), dataset(TEXTS[:1]).rows(), lm)
    reference.logps(batch)
    with torch.no_grad():
        adapted.base_module.get_input_embeddings().weight.add_(0.1)
    with pytest.raises(TrainingError, match="the reference has changed"):
        reference.logps(batch)
    adapted.base_module.get_input_embeddings().weight.requires_grad_(True)
    with pytest.raises(ConfigError, match="base is trained"):
        AdapterOff(adapted)
    with pytest.raises(ConfigError, match="divergence: sampled"):
        ReferenceKl(reference="cached")
    with pytest.raises(ConfigError, match="inner"):
        ReferenceKl(inner="data.order.shuffle")
    with pytest.raises(ConfigError, match="objective"):
        ReferenceLogps(objective="data.order.shuffle")


def test_a_cache_of_other_tokens_or_models_is_refused():
    lm = model("llama")
    data = score_dataset(ReferenceLogps(max_length=16), dataset(TEXTS[:2]), {"model": lm})
    rows = list(data.rows())
    cached = ReferenceKl(reference="cached", divergence="sampled")
    documents = cached.start(lm).encode(rows[1], lm, 16)
    assert len(documents) > 1
    assert [x for d in documents for x in d.columns["ref_logps"]] == rows[1]["ref_logps"]
    with pytest.raises(InputError, match="other tokens"):
        cached.start(lm).encode(rows[0], lm, 8)
    running = cached.start(lm)
    running.encode(rows[0], lm, 16)
    with pytest.raises(InputError, match="other model"):
        running.encode({**rows[1], "ref_model": "another"}, lm, 16)
    with pytest.raises(InputError, match="no stored reference"):
        cached.start(lm).encode({"id": "x", "text": "abc"}, lm, 16)
    # Rows that are not held need no cache.
    held = ReferenceKl(reference="cached", divergence="sampled", only_where="replay").start(lm)
    assert held.encode({"id": "x", "text": "abc", "replay": False}, lm, 16)


def test_stored_values_equal_the_loss_signal():
    lm = model("llama")
    found = score_dataset(
        ReferenceLogps(objective="training.objectives.sft"), Dataset.from_rows(PAIRS), {"model": lm}
    )
    scored = lm.loglikelihood([(row["prompt"], row["completion"]) for row in PAIRS])
    end = [row["ref_logps"][-1] for row in found.rows()]
    assert np.allclose(found.numpy("ref_logp_sum") - end, [s.sum for s in scored], rtol=1e-5)
