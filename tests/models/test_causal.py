"""The causal model's verbs: scoring, log-likelihood, generation, states; independent of batching and padding."""

import math

import numpy as np
import pytest
import torch

from tutelage.core.errors import InputError, ModelError
from tutelage.models import attention, scoring
from tutelage.models.encode import encode_prompt
from tutelage.models.scoring import windows
from tutelage.models.toy import tiny_causal_lm

ARCHS = ["llama", "gpt2", "qwen2", "gemma", "gemma2"]
TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "x",
    "",
    "def add(first, second):\n    return first + second\n" * 4,
    "Numbers 0 1 2 3 and Ünïcode ✓.",
]


@pytest.fixture(scope="module")
def model():
    model = tiny_causal_lm("llama")
    with torch.no_grad():
        model.module.get_output_embeddings().weight.mul_(10)
    return model


def reference_nll(model, ids):
    """-log p of ids[1:], one document alone through the plain module."""
    with model.own_attention(), torch.no_grad():
        logp = model.module(torch.tensor([ids])).logits[0].log_softmax(-1)
    return -logp[:-1].gather(1, torch.tensor(ids)[1:, None])[:, 0].double().numpy()


@pytest.mark.parametrize("arch", ARCHS)
def test_scores_equal_the_plain_module(arch):
    model = tiny_causal_lm(arch)
    for text, score in zip(TEXTS, model.score_texts(TEXTS, per_token=True)):
        ids = model.tokenize([text])[0]
        if not ids:
            assert math.isnan(score.nll_sum) and score.n_tokens == 0 and score.n_bytes_scored == 0
            continue
        expected = reference_nll(model, [model.bos_id, *ids])
        np.testing.assert_allclose(score.per_token, expected, atol=1e-4)
        assert score.nll_sum == pytest.approx(expected.sum(), abs=1e-3)
        assert (score.n_tokens, score.n_bytes_scored) == (len(ids), len(text.encode()))
        assert score.first_token_scored


@pytest.mark.parametrize("isolation", ["documents", "mask", "padding"])
def test_batching_does_not_change_scores(model, isolation, monkeypatch):
    texts = [TEXTS[i % 5] + " word" * (i % 7) for i in range(8)]
    model.use_isolation(isolation)
    together = model.score_texts(texts)
    alone = [model.score_texts([t])[0] for t in texts]
    monkeypatch.setattr(scoring, "pack_tokens", lambda _m: 40)
    small = model.score_texts(texts)
    model.use_isolation("documents")
    for a, b, c in zip(together, alone, small):
        np.testing.assert_allclose([a.nll_sum, c.nll_sum], b.nll_sum, atol=1e-4 * max(1, b.n_tokens))


def test_windows_score_every_token_once_with_context():
    for length in (2, 7, 16, 17, 40, 41):
        for window, stride in ((16, 8), (16, 15), (16, 1), (8, 3)):
            seen = []
            for start, stop, first in windows(list(range(length)), window, stride):
                assert stop - start <= window
                assert start == 0 or first - start >= window - stride
                seen += range(first, stop)
            assert seen == list(range(1, length))


def test_long_text_windows_equal_a_reference(model):
    text = TEXTS[3]
    ids = [model.bos_id, *model.tokenize([text])[0]]
    score = model.score_texts([text], window=16, stride=6, per_token=True)[0]
    expected = np.concatenate(
        [reference_nll(model, ids[a:b])[done - a - 1 :] for a, b, done in windows(ids, 16, 6)]
    )
    np.testing.assert_allclose(score.per_token, expected, atol=1e-4)
    short = "The quick brown fox"
    a = model.score_texts([short], window=64, stride=8)[0].nll_sum
    assert a == pytest.approx(model.score_texts([short], window=128, stride=127)[0].nll_sum, abs=1e-5)


def test_truncation_counts_the_bytes_it_covers(model):
    text = "Ünïcode ✓ and more words after that"
    score = model.score_texts([text], window=9, truncate=True)[0]
    ids = model.tokenize([text])[0][:8]
    assert score.n_tokens == 8
    assert score.n_bytes_scored == len(model.tokenizer.decode(ids).encode())
    assert score.n_bytes_scored < len(text.encode())


def test_uniform_model_gives_log_vocabulary():
    model = tiny_causal_lm("gpt2")
    with torch.no_grad():
        model.module.get_output_embeddings().weight.zero_()
    score = model.score_texts([TEXTS[0]])[0]
    assert score.nll_sum / score.n_tokens == pytest.approx(math.log(model.config.vocab_size), abs=1e-5)


def test_bad_windows_and_texts(model):
    with pytest.raises(ModelError, match="window and stride"):
        model.score_texts(["a"], window=16, stride=16)
    with pytest.raises(ModelError, match="item 1"):
        model.score_texts(["a", None])


PAIRS = [
    ("Question: two and two? Answer:", " four"),
    ("Question: two and two? Answer:", " five words of a long wrong answer"),
    ("Question: two and two? Answer:", "x"),
    ("Another context", " yes"),
    ("", "no context"),
    ("Another context", " no"),
]


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("isolation", ["documents", "padding"])
def test_loglikelihood_equals_the_plain_module(arch, isolation):
    model = tiny_causal_lm(arch)
    with torch.no_grad():
        model.module.get_output_embeddings().weight.mul_(10)
    model.use_isolation(isolation)
    for (context, continuation), found in zip(PAIRS, model.loglikelihood(PAIRS)):
        before, after = encode_prompt(model, context), model.tokenize([continuation])[0]
        nll = reference_nll(model, before + after)[len(before) - 1 :]
        assert found.sum == pytest.approx(-nll.sum(), abs=2e-4)
        assert found.n_tokens == len(after)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("limit", [60, 1000], ids=["laid out anew", "once"])
def test_contexts_that_begin_alike_share_it(arch, limit, monkeypatch):
    model = tiny_causal_lm(arch)
    with torch.no_grad():
        model.module.get_output_embeddings().weight.mul_(10)
    monkeypatch.setattr(scoring, "SHARED", 8)
    monkeypatch.setattr(scoring, "SERVES", 1)
    monkeypatch.setattr(scoring, "pack_tokens", lambda _: limit)
    monkeypatch.setattr(attention, "SCORED", 16)
    shots = "Question: one and one? Answer: two.\n"
    asked = ["", "Question: two and two? Answer:", "Question: two and three, and what is four and four? Answer:"]
    pairs = [(shots + question, option) for question in asked for option in (" four", " five or six", "")]
    pairs += [(shots + asked[1] + " I say", " four"), *PAIRS]
    before = model.meter.cost
    scored = model.loglikelihood(pairs)
    for (context, continuation), found in zip(pairs, scored):
        ids, after = encode_prompt(model, context), model.tokenize([continuation])[0]
        nll = reference_nll(model, ids + after)[len(ids) - 1 :]
        assert found.sum == pytest.approx(-nll.sum(), abs=2e-4)
    spent = model.meter.since(before).forward_flops
    monkeypatch.setattr(scoring, "SHARED", 10_000)
    before = model.meter.cost
    model.loglikelihood(pairs)
    assert spent < 0.9 * model.meter.since(before).forward_flops, "what is shared is computed once"


def test_greedy_continuations_are_recognised(model):
    prompt = "The quick"
    generated = model.generate([prompt], max_new_tokens=3)[0]
    text = model.tokenizer.decode(generated.token_ids)
    if model.tokenize([text])[0] == list(generated.token_ids):
        yes, no = model.loglikelihood([(prompt, text), (prompt, "zzz")])
        assert yes.is_greedy and not no.is_greedy
    before = encode_prompt(model, prompt)
    with torch.no_grad():
        best = int(model.module(torch.tensor([before])).logits[0, -1].argmax())
    word = model.tokenizer.decode([best])
    if model.tokenize([word])[0] == [best]:
        assert model.loglikelihood([(prompt, word)])[0].is_greedy


def test_joint_tokenisation_on_request(model):
    pair = ("The quick bro", "wn fox")
    whole = model.tokenize(["".join(pair)])[0]
    cut = len(model.tokenize([pair[0]])[0])
    joint = model.loglikelihood([pair], joint=True)[0]
    assert joint.sum == pytest.approx(-reference_nll(model, whole)[cut - 1 :].sum(), abs=1e-3)
    assert joint.n_tokens == len(whole) - cut != model.loglikelihood([pair])[0].n_tokens


def test_many_options_and_empty_continuation(model, monkeypatch):
    monkeypatch.setattr(scoring, "OPTION_TOKENS", 10)
    pairs = [("Context", f" option {i}") for i in range(9)] + [("Context", "")]
    together = model.loglikelihood(pairs)
    alone = [model.loglikelihood([p])[0] for p in pairs]
    np.testing.assert_allclose([t.sum for t in together], [a.sum for a in alone], atol=1e-4)
    assert together[-1].n_tokens == 0 and together[-1].sum == 0
    with pytest.raises(ModelError, match="pair 0"):
        model.loglikelihood([("a", "b " * 600)])


@pytest.mark.parametrize("arch", ARCHS)
def test_greedy_generation_equals_step_by_step_without_cache(arch):
    model = tiny_causal_lm(arch)
    prompts = ["The quick brown fox", "x", "def add(first"]
    found = model.generate(prompts, max_new_tokens=6, batch_size=3)
    with model.own_attention(), torch.no_grad():
        for prompt, generation in zip(prompts, found):
            ids = encode_prompt(model, prompt)
            expected = []
            for _ in range(6):
                token = int(model.module(torch.tensor([ids + expected])).logits[0, -1].argmax())
                expected.append(token)
                if token == model.eos_id:
                    break
            assert list(generation.token_ids) == expected
            assert generation.prompt_tokens == len(ids)


@pytest.mark.parametrize("arch", ARCHS)
def test_a_common_beginning_is_computed_once(arch):
    model = tiny_causal_lm(arch)
    common = "The quick brown fox jumps over the lazy dog and returns to the den. "
    prompts = [common + rest for rest in ("One", "Two dogs and a fox", "a", "def add(first, second):")]
    lengths = [len(encode_prompt(model, prompt)) for prompt in prompts]

    def generated(*calls):
        before = model.meter.cost
        found = [one.token_ids for call in calls for one in model.generate(call, 1)]
        return found, model.meter.since(before).forward_flops

    alone, full = generated(*([prompt] for prompt in prompts))
    together, spent = generated(prompts)
    assert together == alone
    assert full == 2 * model.active_params * sum(lengths)
    shared = len(encode_prompt(model, common)) - 1
    slides = bool(getattr(model.config.get_text_config(), "sliding_window", None))
    saved = 0 if slides else 2 * model.active_params * 3 * (shared - 1)
    assert full - spent == pytest.approx(saved, abs=2 * model.active_params * 3) and (slides or spent < full)
    longer = [model.generate(prompts, 10, batch_size=n) for n in (1, 4)]
    assert [g.token_ids for g in longer[0]] == [g.token_ids for g in longer[1]]
    # Equal prompts keep one token each to continue from.
    twins = model.generate([common, common], 4)
    assert twins[0].token_ids == twins[1].token_ids == model.generate([common], 4)[0].token_ids


def test_sampling_depends_on_seed_not_on_batch(model):
    prompts = ["The quick", "brown fox jumps over", "a", "b"]
    one = model.generate(prompts, 8, temperature=1.5, seed=3, batch_size=1)
    four = model.generate(prompts, 8, temperature=1.5, seed=3, batch_size=4)
    assert [g.token_ids for g in one] == [g.token_ids for g in four]
    own = model.generate(prompts[:1] * 3, 8, temperature=1.5, seed=[5, 6, 5])
    assert own[0] == own[2] != own[1] == model.generate(prompts[:1], 8, temperature=1.5, seed=[6])[0]
    other = model.generate(prompts, 8, temperature=1.5, seed=4)
    assert [g.token_ids for g in one] != [g.token_ids for g in other]


def test_stops_end_tokens_and_limits(model):
    free = model.generate(["The quick brown"], 12)[0]
    assert free.truncated and len(free.token_ids) == 12
    stop = free.text[3:5]
    stopped = model.generate(["The quick brown"], 12, stop=(stop,))[0]
    assert not stopped.truncated
    assert stopped.text == free.text[: free.text.index(stop)]
    eos = model.eos_id
    try:
        model.eos_id = free.token_ids[2]
        first = free.token_ids.index(free.token_ids[2])
        ended = model.generate(["The quick brown"], 12)[0]
        assert ended.token_ids == free.token_ids[: first + 1] and not ended.truncated
    finally:
        model.eos_id = eos
    with pytest.raises(ModelError, match="prompt 0"):
        model.generate(["word " * 600])
    with pytest.raises(ModelError, match="out of range"):
        model.generate(["a"], max_new_tokens=0)


def test_finished_rows_leave_the_batch_and_change_nothing(model, monkeypatch):
    """Of transformers' own cache, which is used where something is put in the place of a forward pass."""
    prompts = [f"{word} and" for word in ("one", "two", "The", "fox", "dog", "add", "return", "def")]
    settings = {"temperature": 1.5, "seed": 1, "stop": ("a", "e", "o", "t", "n")}
    alone = model.generate(prompts, 12, batch_size=1, **settings)
    widths = []
    forward = model.module.base_model.forward

    def watched(*args, **kwargs):
        widths.append(len(kwargs["input_ids"]))
        return forward(*args, **kwargs)

    monkeypatch.setattr(model.module.base_model, "forward", watched)
    assert model.generate(prompts, 12, batch_size=8, **settings) == alone
    lengths = sorted(len(g.token_ids) for g in alone)
    assert lengths[3] < lengths[-1], "the test needs completions that end early"
    assert widths[0] == 8 and widths[-1] <= 4


@pytest.mark.parametrize("arch", ARCHS)
def test_hidden_states_equal_transformers(arch):
    model = tiny_causal_lm(arch)
    texts = ["The quick brown fox", "", "x"]
    for layer in (0, 1, 2):
        found = list(model.hidden_states(texts, layer))
        assert found[1].shape == (0, 32)
        for text, states in zip(texts, found):
            ids = model.tokenize([text])[0]
            if ids:
                with model.own_attention(), torch.no_grad():
                    out = model.module(torch.tensor([[model.bos_id, *ids]]), output_hidden_states=True)
                np.testing.assert_allclose(states, out.hidden_states[layer][0, 1:].numpy(), atol=1e-5)


def test_embeddings_are_means_and_do_not_depend_on_the_batch(model):
    texts = ["The quick brown fox", "x", "a much longer text than the others are"]
    found = model.embed(texts)
    means = [s.mean(0) for s in model.hidden_states(texts, round(2 * 2 / 3))]
    np.testing.assert_allclose(found, np.stack(means), atol=1e-6)
    np.testing.assert_allclose(found[1], model.embed(["x"])[0], atol=1e-5)
    with pytest.raises(InputError, match="item 1"):
        model.embed(["a", ""])
    with pytest.raises(ModelError, match="0 to 2"):
        list(model.hidden_states(["a"], 3))


def test_costs_are_charged_and_modes_restored():
    model = tiny_causal_lm("llama")
    model.module.train()
    before = model.meter.cost
    model.score_texts(["The quick brown fox"])
    spent = model.meter.since(before)
    tokens = len(model.tokenize(["The quick brown fox"])[0])
    assert spent.scored_tokens == tokens
    assert spent.forward_flops == 2 * model.active_params * (tokens + 1)
    assert model.module.training
    model.generate(["The"], 5)
    assert model.meter.cost.generated_tokens == 5
    # Body plus head: for the toy everything but the embedding table, plus the (tied) head of the same size.
    assert model.active_params == model.n_params


def test_counts_and_fingerprint():
    model = tiny_causal_lm("llama", seed=1)
    assert model.count_tokens(["", "The quick"]).tolist() == [0, len(model.tokenize(["The quick"])[0])]
    assert model.fingerprint == tiny_causal_lm("llama", seed=1).fingerprint
    assert model.fingerprint != tiny_causal_lm("llama", seed=2).fingerprint
    twin = model.copy()
    assert twin.fingerprint == model.fingerprint
    with torch.no_grad():
        next(twin.module.parameters()).view(-1)[0] += 1e-3
    assert twin.fingerprint != model.fingerprint


MUTATIONS = [
    ("src/tutelage/models/scoring.py", "        done = stop\n", "        done = start + 1\n"),
    ("src/tutelage/models/scoring.py", "last if j == 0 else at + j - 1", "at + j - 1"),
    ("src/tutelage/models/scoring.py", "- 1, start, n - common, 0, common)", "- 1, start, n - common)"),
    ("src/tutelage/models/scoring.py", "both >= SHARED and", "both >= 10**6 and"),
    ("src/tutelage/models/attention.py", "unit.start, at, *own)", "unit.start, at)"),
    (
        "src/tutelage/models/generation.py",
        "self.positions = self.positions[:, -1:] + 1",
        "self.positions = self.positions[:, -1:]",
    ),
    ("src/tutelage/models/generation.py", "shared + offsets.clamp(min=0)", "offsets.clamp(min=0)"),
    ("src/tutelage/models/states.py", "at + len(head) : at", "at : at"),
]


def test_fingerprint_covers_configuration_and_template():
    model = tiny_causal_lm()
    before = model.fingerprint
    model.base_module.config.rms_norm_eps *= 10
    assert model.fingerprint != before
    model.base_module.config.rms_norm_eps /= 10
    assert model.fingerprint == before
    model.use_template("llama3")
    assert model.fingerprint != before
