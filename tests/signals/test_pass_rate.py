"""signals.pass_rate: counts of right answers, seeds of their own, what it refuses."""

import numpy as np
import pytest
from scipy import stats

from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.models.seam import Generation
from tutelage.signals.pass_rate import PassRate, posterior_mean

PROOF = {"signals.pass_rate": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/signals/pass_rate.py", "(correct + 1.0) / (samples + 2.0)", "correct / samples"),
    ("src/tutelage/signals/pass_rate.py", 'hash64(self.seed, row["id"])', "hash64(self.seed, 'x')"),
    ("src/tutelage/signals/pass_rate.py", "score is not None and score >= 1", "score is not None"),
    ("src/tutelage/signals/pass_rate.py", "temperature=self.temperature", "temperature=0.0"),
]


class Guesser:
    """Answers right with the chance that the prompt names."""

    def __init__(self):
        self.asked = []

    def chat_prompt(self, messages):
        return messages[0]["content"] + " user"

    def generate(self, prompts, max_new_tokens=64, temperature=0.0, stop=(), seed=0, batch_size=16):
        self.asked.append((prompts[0], len(prompts), max_new_tokens, temperature, tuple(stop), seed))
        rng = np.random.default_rng(seed)
        chance = float(prompts[0].split()[0])
        right = rng.random(len(prompts)) < chance if temperature else np.ones(len(prompts), bool)
        return [Generation("It is 7." if one else "It is 8.", (), False, 1) for one in right]


def prompts(*chances):
    return Dataset.from_rows({"id": f"q{i}", "prompt": f"{c}", "answer": "7"} for i, c in enumerate(chances))


NUMERIC = {"use": "evaluation.exact_match", "answer": "numeric"}


def test_right_answers_are_counted():
    data = prompts(0.0, 1.0, 0.5)
    found = score_dataset(PassRate(verifier=NUMERIC, samples=64), data, {"model": Guesser()})
    counts = found.numpy("n_correct")
    assert counts[:2].tolist() == [0, 64] and 16 < counts[2] < 48
    assert found.numpy("n_samples").tolist() == [64] * 3
    assert found.numpy("pass_rate").tolist() == (counts / 64).tolist()
    assert found.numpy("pass_posterior") == pytest.approx(stats.beta(counts + 1, 64 - counts + 1).mean())
    assert posterior_mean(np.array([0, 3]), np.array([8, 8])).tolist() == [0.1, 0.4]


def test_answers_of_a_row_depend_on_its_id_and_the_seed_alone():
    model = Guesser()
    data = prompts(*[0.5] * 12)
    scorer = PassRate(verifier=NUMERIC, samples=16, max_new_tokens=9, stop=("#",), chat=True)
    whole = score_dataset(scorer, data, {"model": model}).numpy("n_correct")
    assert model.asked[0][:5] == ("0.5 user", 16, 9, 1.0, ("#",))
    assert len({asked[-1] for asked in model.asked}) == 12 and len(set(whole.tolist())) > 2
    some = data.keep(np.arange(12) >= 6, "not now")
    assert score_dataset(scorer, some, {"model": Guesser()}).numpy("n_correct").tolist() == whole[6:].tolist()
    other = score_dataset(PassRate(verifier=NUMERIC, samples=16, seed=1), data, {"model": Guesser()})
    assert other.numpy("n_correct").tolist() != whole.tolist()


def test_a_real_model_samples_different_answers():
    torch = pytest.importorskip("torch")
    from tutelage.models.toy import tiny_causal_lm

    assert torch is not None
    data = Dataset.from_rows([{"id": "a", "prompt": "x = ", "answer": "7"}])
    model = tiny_causal_lm("llama")
    texts = []
    verifier = {"use": "evaluation.exact_match"}
    made = model.generate
    model.generate = lambda *a, **k: (found := made(*a, **k), texts.extend(g.text for g in found))[0]
    scored = score_dataset(PassRate(verifier=verifier, samples=6, max_new_tokens=5), data, {"model": model})
    assert scored.numpy("n_correct").tolist() == [0] and len(set(texts)) > 3


def test_bad_input():
    with pytest.raises(ConfigError, match="kind Task"):
        PassRate(verifier={"use": "signals.length"})
    with pytest.raises(ConfigError, match="samples"):
        PassRate(samples=0)
    with pytest.raises(ConfigError, match="temperature"):
        PassRate(temperature=0.0)
    empty = Dataset.from_rows([{"id": "a", "prompt": "", "answer": "7"}])
    with pytest.raises(InputError, match="no prompt"):
        score_dataset(PassRate(), empty, {"model": Guesser()})
