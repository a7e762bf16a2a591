"""Hashed TF-IDF matrices built from the byte kernels; shared by the TF-IDF signals.

Feature of a word or n-gram = the top 20 bits of its hash. tf is 1 + ln(count) (sublinear) or the count; idf =
ln((1 + N) / (1 + df)) + 1; rows are L2-normalised, as in scikit-learn's TfidfVectorizer with smooth_idf.
"""

import numpy as np
import pyarrow as pa
from scipy import sparse

from tutelage.core.text.ngrams import ngram_hashes
from tutelage.core.text.words import Words, hash_words

FEATURE_BITS = 20
FEATURES = 1 << FEATURE_BITS


def count_matrix(array: pa.Array, largest: int = 1) -> sparse.csr_matrix:
    """Counts of hashed 1..largest-grams, float32 [documents, 2^20]."""
    words = hash_words(array)
    rows = len(words.bounds) - 1
    keys = np.concatenate([_keys(words, n) for n in range(1, largest + 1)])
    keys.sort()
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.zeros(0, int)
    counts = np.diff(np.append(first, len(keys)))
    unique = keys[first]
    starts = np.searchsorted(unique >> FEATURE_BITS, np.arange(rows + 1))
    columns = (unique & (FEATURES - 1)).astype(np.int32)
    return sparse.csr_matrix((counts.astype(np.float32), columns, starts), shape=(rows, FEATURES))


def _keys(words: Words, n: int) -> np.ndarray:
    hashes, first = ngram_hashes(words, n) if n > 1 else (words.hashes, None)
    documents = words.documents if first is None else words.documents[first]
    features = (hashes >> np.uint64(64 - FEATURE_BITS)).astype(np.int64)
    return (documents << FEATURE_BITS) | features


def document_frequency(counts: sparse.csr_matrix) -> np.ndarray:
    """In how many documents each feature occurs, int64 [2^20]."""
    return np.bincount(counts.indices, minlength=counts.shape[1])


def idf_weights(frequency: np.ndarray, documents: int) -> np.ndarray:
    """ln((1 + N) / (1 + df)) + 1, float32 [2^20]."""
    return (np.log((1.0 + documents) / (1.0 + frequency)) + 1.0).astype(np.float32)


def weigh(counts: sparse.csr_matrix, idf: np.ndarray, sublinear: bool = True) -> sparse.csr_matrix:
    """TF-IDF with rows of length 1 (rows without a word stay zero)."""
    tf = 1.0 + np.log(counts.data) if sublinear else counts.data
    values = (tf * idf[counts.indices]).astype(np.float32)
    per_row = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    norms = np.sqrt(np.bincount(per_row, values.astype(np.float64) ** 2, counts.shape[0]))
    values /= np.maximum(norms, 1e-12)[per_row].astype(np.float32)
    return sparse.csr_matrix((values, counts.indices, counts.indptr), shape=counts.shape)
