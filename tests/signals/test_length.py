"""signals.length."""

import numpy as np
import pytest

from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.signals.length import Length

PROOF = {"signals.length": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/signals/length.py", "np.diff(breaks) + ends_open", "np.diff(breaks)"),
    ("src/tutelage/signals/length.py", '-(-columns["n_bytes"] // BYTES_PER_TOKEN)', 'columns["n_bytes"] // 4'),
]
TEXTS = ["", "one", "one\ntwo\n", "a\n\nb", "\n", "naïve — 中文!\nx", "tab\tend "]


def test_counts_equal_python():
    data = score_dataset(Length(), Dataset.from_rows({"text": t} for t in TEXTS), {})
    for row in data.rows():
        text = row["text"]
        assert row["n_characters"] == len(text)
        assert row["n_bytes"] == len(text.encode())
        assert row["n_lines"] == len(text.split("\n")) - (text.endswith("\n") or not text)
        assert row["n_tokens"] == int(np.ceil(len(text.encode()) / 4))
        assert row["n_tokens_estimated"] is True
    assert data.column("n_words").to_pylist() == [0, 1, 2, 2, 0, 4, 2]


def test_a_model_counts_its_own_tokens():
    from tutelage.models.toy import tiny_causal_lm

    model = tiny_causal_lm()
    texts = ["the quick brown fox", "", "zzz"]
    data = score_dataset(Length(), Dataset.from_rows({"text": t} for t in texts), {"model": model})
    expected = [len(model.tokenizer(t, add_special_tokens=False)["input_ids"]) for t in texts]
    assert data.column("n_tokens").to_pylist() == expected
    assert not data.numpy("n_tokens_estimated").any()


def test_pairs_count_both_sides_and_rows_without_text_are_refused():
    data = score_dataset(Length(), Dataset.from_rows([{"prompt": "ab", "completion": "cd e"}]), {})
    assert data.column("n_words").to_pylist() == [3]
    with pytest.raises(InputError, match="no text"):
        score_dataset(Length(), Dataset.from_rows([{"n": 1}]), {})
