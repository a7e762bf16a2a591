"""How varied and how compressible the wording of each row is.

type_token_ratio = distinct words / words. MTLD: walk through the words; a factor closes where the running ratio
of distinct words to words falls to 0.72 or below; the rest counts (1 - ratio) / (1 - 0.72) of a factor; MTLD =
words / factors, the mean of a forward and a backward walk (no factor at all: the number of words). compression =
zlib (level 6) bytes / bytes: low means repetitive. tokens_per_word needs `model`, else it is bytes / 4 / words.
"""

import zlib

import numpy as np
import pyarrow as pa

from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.text.rows import text_array
from tutelage.core.text.words import hash_words, text_bytes

CARD = {
    "name": "signals.lexical",
    "paper": {
        "title": "MTLD, vocd-D, and HD-D: A validation study of sophisticated approaches to lexical diversity",
        "identifier": "doi:10.3758/BRM.42.2.381",
    },
    "summary": "Type-token ratio, MTLD, compression ratio and tokens per word of every row.",
    "reads": ["text"],
    "writes": ["type_token_ratio", "mtld", "compression", "tokens_per_word"],
    "inputs": {"model?": "the model whose tokenizer counts the tokens"},
    "cost": "one pass over the words, one compression",
    "baseline": "signals.length",
    "headline": "cheap signs of templates and noise; none of them is quality by itself",
    "version": 1,
}

THRESHOLD = 0.72


def mtld(words: list[int]) -> float:
    """MTLD of a sequence of word hashes; NaN for no words."""
    if not words:
        return float("nan")
    return (_walk(words) + _walk(words[::-1])) / 2


def _walk(words: list[int]) -> float:
    factors = 0.0
    seen: set[int] = set()
    count = 0
    for word in words:
        seen.add(word)
        count += 1
        if len(seen) <= THRESHOLD * count:
            factors += 1
            seen.clear()
            count = 0
    if count:
        factors += (1 - len(seen) / count) / (1 - THRESHOLD)
    return len(words) / factors if factors else float(len(words))


class Lexical(Scorer):
    """No fields; rows without a word have NaN."""

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, np.ndarray]:
        array = text_array(shard)
        words = hash_words(array)
        data, offsets = text_bytes(array)
        counts = np.diff(words.bounds).astype(np.float64)
        counts[counts == 0] = np.nan
        rows = range(len(array))
        split = [words.hashes[words.bounds[d] : words.bounds[d + 1]].tolist() for d in rows]
        sizes = np.diff(offsets)
        packed = np.array(
            [len(zlib.compress(data[offsets[d] : offsets[d + 1]].tobytes(), 6)) for d in rows], dtype=np.float64
        )
        model = inputs.get("model")
        tokens = sizes / 4 if model is None else np.asarray(model.count_tokens(array.to_pylist()))
        return {
            "type_token_ratio": np.array([len(set(w)) for w in split]) / counts,
            "mtld": np.array([mtld(w) for w in split], dtype=np.float64),
            "compression": np.where(sizes > 0, packed / np.maximum(sizes, 1), np.nan),
            "tokens_per_word": tokens / counts,
        }
