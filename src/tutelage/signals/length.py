"""How long each row is: characters, bytes, words, lines and tokens.

Characters are code points, bytes UTF-8, words runs of letters and digits, lines the pieces between line breaks.
Tokens come from the tokenizer of `model` when one is given; else they are estimated as ceil(bytes / 4) and the
column `n_tokens_estimated` says so. Token budgets count `n_tokens`.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.text.rows import text_array
from tutelage.core.text.words import hash_words, text_bytes

CARD = {
    "name": "signals.length",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "Characters, bytes, words, lines and tokens of every row.",
    "reads": ["text"],
    "writes": ["n_characters", "n_bytes", "n_words", "n_lines", "n_tokens", "n_tokens_estimated"],
    "inputs": {"model?": "the model whose tokenizer counts the tokens"},
    "cost": "one pass over the bytes",
    "baseline": None,
    "headline": "token budgets need it; length alone is also the score other scores must beat",
    "version": 1,
}

BYTES_PER_TOKEN = 4


def lengths(array: pa.LargeStringArray) -> dict[str, np.ndarray]:
    """Counts of every text, int64 [n] each; an empty text has no lines."""
    data, offsets = text_bytes(array)
    n_bytes = np.diff(offsets)
    breaks = np.searchsorted(np.flatnonzero(data == 10), offsets)
    ends_open = np.zeros(len(n_bytes), dtype=bool)
    filled = n_bytes > 0
    ends_open[filled] = data[offsets[1:][filled] - 1] != 10
    return {
        "n_characters": pc.utf8_length(array).to_numpy(zero_copy_only=False).astype(np.int64),
        "n_bytes": n_bytes,
        "n_words": np.diff(hash_words(array).bounds),
        "n_lines": np.diff(breaks) + ends_open,
    }


class Length(Scorer):
    """No fields; pass `model` in `inputs` to count tokens instead of estimating them."""

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, np.ndarray]:
        array = text_array(shard)
        columns = lengths(array)
        model = inputs.get("model")
        if model is None:
            tokens = -(-columns["n_bytes"] // BYTES_PER_TOKEN)
        else:
            tokens = np.asarray(model.count_tokens(array.to_pylist()), dtype=np.int64)
        estimated = np.full(len(array), model is None)
        return {**columns, "n_tokens": tokens, "n_tokens_estimated": estimated}
