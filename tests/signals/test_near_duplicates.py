"""signals.near_duplicates: against exact Jaccard, datasketch and a plain reading; planted copies are found."""

import itertools
import random

import numpy as np
import pyarrow as pa
import pytest

from toy.planted_pool import make_pool
from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.dataset_builder import DatasetBuilder
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.text import near as module
from tutelage.core.text import shingle_sets
from tutelage.core.text.minhash import MinHash, band_keys, shingles, signatures
from tutelage.core.text.near import near_clusters
from tutelage.core.text.words import split_words
from tutelage.signals.near_duplicates import NearDuplicates

PROOF = {"signals.near_duplicates": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/core/text/minhash.py", "np.add(values, shift, out=values)", "np.copyto(values, shift)"),
    ("src/tutelage/core/text/minhash.py", "key *= _P", "key *= np.uint64(1)"),
    ("src/tutelage/core/text/pieces.py", 'normalize("NFD"', 'normalize("NFC"'),
    ("src/tutelage/core/text/near.py", "members[here + step]", "members[here + 1]"),
    ("src/tutelage/core/text/shingle_sets.py", "np.maximum(joint[first:last] - both, 1)", "joint[first:last]"),
    ("src/tutelage/core/text/near.py", "-length[rows], -priority[rows]", "length[rows], -priority[rows]"),
    ("src/tutelage/core/text/near.py", "for _ in range(2)", "for _ in range(1)"),
    ("src/tutelage/core/text/near.py", "split & (sizes > step)", "split & (sizes > step + 1)"),
    ("src/tutelage/signals/near_duplicates.py", "a == b for a, b", "a != b for a, b"),
]
VOCABULARY = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "bdfgklmnprst"]


def draw(rng, count):
    return rng.choices(VOCABULARY, k=count)


def edited(rng, words, share):
    """`words` with a share of them, at least one, replaced."""
    words = list(words)
    for at in rng.sample(range(len(words)), max(1, round(share * len(words)))):
        words[at] = rng.choice(VOCABULARY)
    return words


def shingle_set(text, n=5):
    words = split_words(text)
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def jaccard(a, b, n=5):
    a, b = shingle_set(a, n), shingle_set(b, n)
    return len(a & b) / max(len(a | b), 1)


def corpus(seed, count=120):
    """Texts of which half are copies, edited from lightly to heavily."""
    rng = random.Random(seed)
    texts = [draw(rng, rng.randrange(3, 120)) for _ in range(count // 2)]
    texts += [edited(rng, rng.choice(texts), rng.choice([0.005, 0.01, 0.03, 0.06])) for _ in range(count // 2)]
    rng.shuffle(texts)
    return [" ".join(words) for words in texts]


def sign(texts, **fields):
    minhash = MinHash(**fields)
    return signatures(*shingles(pa.array(texts, pa.large_string()), minhash.n), minhash)


def score(table, **fields):
    return list(score_dataset(NearDuplicates(**fields), Dataset.from_rows(table), {}).rows())


def plain_clusters(texts, minhash, min_jaccard):
    """The lowest row of every row's component, pair by pair."""
    minima, documents = sign(texts, n=minhash.n, bands=minhash.bands, rows=minhash.rows, seed=minhash.seed)
    bands = {
        int(d): [tuple(minima[b * minhash.rows : (b + 1) * minhash.rows, i]) for b in range(minhash.bands)]
        for i, d in enumerate(documents)
    }
    labels = list(range(len(texts)))
    for a, b in itertools.combinations(sorted(bands), 2):
        met = any(x == y for x, y in zip(bands[a], bands[b]))
        if met and (min_jaccard is None or jaccard(texts[a], texts[b], minhash.n) >= min_jaccard):
            old, new = max(labels[a], labels[b]), min(labels[a], labels[b])
            labels = [new if label == old else label for label in labels]
    return labels


def test_estimated_jaccard_equals_the_exact_one():
    rng = random.Random(0)
    texts, errors = [], []
    for share in np.linspace(0.002, 0.1, 60):
        words = draw(rng, 400)
        texts += [" ".join(words), " ".join(edited(rng, words, share))]
    minima, documents = sign(texts)
    assert documents.tolist() == list(range(120)) and minima.shape == (112, 120)
    for a in range(0, 120, 2):
        s = jaccard(texts[a], texts[a + 1])
        estimate = (minima[:, a] == minima[:, a + 1]).mean()
        assert abs(estimate - s) <= 3 * np.sqrt(s * (1 - s) / 112) + 1 / 112, (estimate, s)
        errors.append((estimate - s) / np.sqrt(s * (1 - s) / 112))
    assert abs(np.mean(errors)) < 3 / np.sqrt(60)


@pytest.mark.parametrize(("similarity", "probability"), [(0.6, 0.21), (0.7, 0.57), (0.8, 0.92)])
def test_the_probability_of_meeting_in_a_band(similarity, probability):
    rng = np.random.default_rng(0)
    pairs, size = 600, 120
    shared = round(2 * size * similarity / (1 + similarity))
    exact = shared / (2 * size - shared)
    assert 1 - (1 - exact**8) ** 14 == pytest.approx(probability, abs=0.02)
    sets = []
    for _ in range(pairs):
        values = rng.integers(0, 2**32, 2 * size - shared, dtype=np.uint32)
        sets += [values[:size], values[-size:]]
    bounds = np.arange(2 * pairs + 1) * size
    keys = band_keys(signatures(np.concatenate(sets), bounds, MinHash())[0], 14)
    met = (keys[:, ::2] == keys[:, 1::2]).any(axis=0).mean()
    assert met == pytest.approx(1 - (1 - exact**8) ** 14, abs=4 * np.sqrt(probability * (1 - probability) / pairs))


def test_bands_of_other_entries_or_another_order_have_other_keys():
    keys = band_keys(np.array([[1, 2, 1, 3], [2, 1, 2, 0], [7, 7, 8, 7], [7, 7, 8, 7]], dtype=np.uint32), 2)
    assert keys[0, 0] == keys[0, 2] and len(set(keys[0].tolist())) == 3
    assert keys[1].tolist() == [keys[1, 0], keys[1, 0], keys[1, 2], keys[1, 0]] and keys[1, 0] != keys[1, 2]


@pytest.mark.parametrize("min_jaccard", [0.7, 0.5, None])
def test_clusters_equal_those_of_all_pairs(min_jaccard):
    for seed in range(4):
        texts = corpus(seed)
        for minhash in (MinHash(), MinHash(n=2, bands=40, rows=2, seed=7)):
            labels, _ = near_clusters([pa.array(texts, pa.large_string())], minhash, min_jaccard)
            assert labels.tolist() == plain_clusters(texts, minhash, min_jaccard)


def test_bands_equal_those_of_datasketch():
    datasketch = pytest.importorskip("datasketch")
    texts = corpus(5, 200)
    minima, documents = sign(texts)
    keys = band_keys(minima, 14)
    index = datasketch.MinHashLSH(params=(14, 8), num_perm=112)
    hashed = {}
    for place in range(len(documents)):
        hashed[place] = datasketch.MinHash(num_perm=112, hashvalues=minima[:, place], scheme="affine32")
        index.insert(str(place), hashed[place])
    for place, one in hashed.items():
        met = np.flatnonzero((keys == keys[:, [place]]).any(axis=0))
        assert sorted(map(int, index.query(one))) == met.tolist()


def test_near_copies_agree_with_those_of_datasketch():
    datasketch = pytest.importorskip("datasketch")
    texts = corpus(6, 600)
    index, hashed = datasketch.MinHashLSH(params=(14, 8), num_perm=112), {}
    for row, text in enumerate(texts):
        one = datasketch.MinHash(num_perm=112)
        one.update_batch([" ".join(gram).encode() for gram in shingle_set(text)])
        if shingle_set(text):
            hashed[row] = one
            index.insert(str(row), one)
    theirs = {
        tuple(sorted((row, int(other))))
        for row, one in hashed.items()
        for other in index.query(one)
        if int(other) != row and jaccard(texts[row], texts[int(other)]) >= 0.85
    }
    labels, _ = near_clusters([pa.array(texts, pa.large_string())], MinHash(), 0.7)
    joined = sum(labels[a] == labels[b] for a, b in theirs)
    assert len(theirs) > 60 and joined >= 0.98 * len(theirs)


def test_planted_edits_are_found_and_nothing_unrelated():
    rng = random.Random(1)
    originals = [draw(rng, 500) for _ in range(100)]
    copies = [edited(rng, words, 0.02) for words in originals]
    rows = [{"id": f"o{i}", "text": " ".join(words)} for i, words in enumerate(originals)]
    rows += [{"id": f"c{i}", "text": " ".join(words)} for i, words in enumerate(copies)]
    rows += [{"id": f"u{i}", "text": " ".join(draw(rng, 500))} for i in range(100)]
    found = {row["id"]: row for row in score(rows)}
    assert sum(found[f"o{i}"]["dup_cluster"] == found[f"c{i}"]["dup_cluster"] for i in range(100)) >= 90
    assert sum(found[f"u{i}"]["dup_cluster_size"] > 1 for i in range(100)) == 0
    assert {row["dup_cluster_size"] for row in found.values()} <= {1, 2}


def test_planted_pool():
    pool = make_pool(400, seed=4)
    found = {row["id"]: row for row in score(pool)}
    for row in pool:
        if row["kind"] == "exact":
            assert found[row["id"]]["dup_cluster"] == found[row["copy_of"]]["dup_cluster"]


def test_what_counts_as_the_same_word():
    words = draw(random.Random(2), 60)
    text = " ".join(words)
    other = text.upper().replace(" ", ", ", 20).replace("A", "Á").replace("E", "E\u0308") + "!"
    last = " ".join(draw(random.Random(3), 9))
    numbers = [{"id": f"n{i}", "text": f"{last} {i * 977} {last} v{i}"} for i in range(2)]
    found = score([{"id": "a", "text": text}, {"id": "b", "text": other}, *numbers])
    assert [row["dup_cluster"] for row in found] == ["b", "b", "n1", "n1"]
    found = score([{"id": "x", "text": "only four words here"}, {"id": "y", "text": "only four words here"}])
    assert [row["dup_cluster_size"] for row in found] == [1, 1]
    assert NearDuplicates().fit(Dataset.from_rows([{"text": "too short"}]), {})["report"]["rows_too_short"] == 1


def test_the_best_of_a_cluster_is_kept():
    words = draw(random.Random(3), 200)
    texts = [" ".join(words), " ".join(words), " ".join([*words, "more"]), " ".join(words[:-1])]
    qualities = [1.0, 2.0, float("nan"), 2.0]
    rows = [{"id": i, "text": t, "quality": q} for i, t, q in zip("dcba", texts, qualities)]
    assert {row["dup_cluster"] for row in score(rows)} == {"b"}
    assert [row["dup_keep"] for row in score(rows)] == [False, False, True, False]
    assert {row["dup_cluster"] for row in score(rows, priority_column="quality")} == {"c"}
    same = [{"id": i, "text": texts[0]} for i in "zyx"]
    assert {row["dup_cluster"] for row in score(same)} == {"x"}
    assert {row["dup_cluster_size"] for row in score(same)} == {3}


def test_a_chain_is_one_cluster_whose_diameter_is_told():
    words = draw(random.Random(4), 400)
    texts = [" ".join(words[6 * i : 6 * i + 120]) for i in range(14)]
    rows = [{"id": f"r{i:02}", "text": text} for i, text in enumerate(texts)]
    random.Random(0).shuffle(rows)
    for fields in ({}, {"min_jaccard": None}):
        (large,) = NearDuplicates(**fields).fit(Dataset.from_rows(rows), {})["report"]["large_clusters"]
        assert large["rows"] == 14 and large["id"] in {row["id"] for row in rows}
        assert large["diameter"] == pytest.approx(1 - jaccard(texts[0], texts[-1]), abs=1e-4)


def test_neither_shards_nor_batches_nor_order_matter(monkeypatch):
    texts = corpus(8, 160)
    rows = [{"id": f"r{i:03}", "text": text} for i, text in enumerate(texts)]
    whole = {row["id"]: row for row in score(rows)}
    assert sum(row["dup_cluster_size"] > 1 for row in whole.values()) > 40
    builder = DatasetBuilder(rows_per_shard=40)
    for row in rows:
        builder.add(row)
    monkeypatch.setattr(module, "BATCH_BYTES", 500)
    monkeypatch.setattr(shingle_sets, "_COMPARED", 300)
    assert {row["id"]: row for row in score_dataset(NearDuplicates(), builder.finish(), {}).rows()} == whole
    random.Random(0).shuffle(rows)
    assert {row["id"]: row for row in score(rows)} == whole


def test_parameters_change_what_is_found():
    words = draw(random.Random(5), 200)
    rows = [
        {"id": "a", "text": " ".join(words)},
        {"id": "b", "text": " ".join(edited(random.Random(1), words, 0.1))},
    ]
    close = jaccard(rows[0]["text"], rows[1]["text"])
    assert 0.3 < close < 0.7
    fields = {"bands": 100, "rows": 2, "seed": 3}
    assert score(rows, min_jaccard=close - 0.01, **fields)[0]["dup_cluster_size"] == 2
    assert score(rows, min_jaccard=close + 0.01, **fields)[0]["dup_cluster_size"] == 1
    assert score(rows, min_jaccard=0.8, n=1, **fields)[0]["dup_cluster_size"] == 2


def test_bad_input():
    data = Dataset.from_rows([{"id": "a", "text": "x " * 20}])
    state = NearDuplicates().fit(data, {})
    with pytest.raises(ConfigError, match="other parameters"):
        score_dataset(NearDuplicates(bands=7), data, {}, state)
    with pytest.raises(ConfigError, match="min_jaccard"):
        NearDuplicates(min_jaccard=1.5)
    with pytest.raises(InputError, match="did you mean quality"):
        score([{"text": "x", "quality": 1.0}], priority_column="qualty")
    with pytest.raises(InputError, match="does not hold text"):
        score([{"text": 5}])
