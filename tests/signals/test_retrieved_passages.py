"""signals.retrieved_passages: BM25 against stated numbers and against bm25s."""

import math
import random

import numpy as np
import pytest

from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.text.words import hash_words
from tutelage.signals.retrieved_passages import RetrievedPassages, bm25_index, bm25_scores, passage_bounds

PROOF = {"signals.retrieved_passages": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/signals/retrieved_passages.py", "(1 - b + b * lengths / lengths.mean())", "(1 - b)"),
    ("src/tutelage/signals/retrieved_passages.py", "(df + 0.5))", "(df + 1.5))"),
    ("src/tutelage/signals/retrieved_passages.py", "place[own[row]]] = 0.0", "place[own[row]]] += 0.0"),
    (
        "src/tutelage/signals/retrieved_passages.py",
        "np.argsort(-scores[candidates]",
        "np.argsort(scores[candidates]",
    ),
]


def scores(texts, query, **options):
    words = hash_words(texts)
    index = bm25_index(words.hashes, words.bounds, **options)
    return bm25_scores(index, hash_words([query]).hashes, len(texts))


def test_reference_numbers():
    found = scores(["a b c", "a a d", "e"], "a d")
    assert np.allclose(found, [0.2347, 0.8028, 0.0], atol=5e-5)


def test_equals_bm25s():
    bm25s = pytest.importorskip("bm25s")
    rng = random.Random(0)
    letters = "abcdefghijklmnop"
    texts = [" ".join(rng.choices(letters, weights=range(1, 17), k=rng.randrange(1, 40))) for _ in range(50)]
    for k1, b in ((0.9, 0.4), (1.5, 0.75)):
        retriever = bm25s.BM25(method="lucene", k1=k1, b=b)
        retriever.index([t.split() for t in texts], show_progress=False)
        for query in ("a p c", "d", "o o b"):
            expected = retriever.get_scores(query.split())
            assert np.allclose(scores(texts, query, k1=k1, b=b), expected, atol=1e-5)


def test_formula_by_hand():
    texts = ["x y", "x x x z", "w"]
    mean = 7 / 3
    idf = math.log(1 + (3 - 2 + 0.5) / 2.5)
    expected = [idf * tf / (tf + 0.9 * (0.6 + 0.4 * n / mean)) for tf, n in ((1, 2), (3, 4))]
    assert np.allclose(scores(texts, "X"), [*expected, 0.0])
    assert scores(texts, "unseen words").tolist() == [0, 0, 0]
    assert np.allclose(scores(texts, "x x"), 2 * scores(texts, "x"))


def test_passages_cover_their_documents():
    bounds = np.array([0, 0, 7, 250, 251])
    passages, document = passage_bounds(bounds, 100)
    assert document.tolist() == [1, 2, 2, 3]
    assert passages.tolist() == [0, 7, 128, 250, 251]
    text = ["", "Ein kurzer Satz — hier.\n", " ".join(f"w{i}." for i in range(300)) + " Ende\n"]
    corpus = Dataset.from_rows({"id": f"d{i}", "text": t} for i, t in enumerate(text))
    method = RetrievedPassages(passage_words=50)
    state = method.fit(Dataset.from_rows([{"prompt": "x"}]), {"corpus": corpus})
    rebuilt = dict.fromkeys(range(3), b"")
    for d, begin, end in zip(state["document"], state["begin"], state["end"]):
        rebuilt[int(d)] += text[d].encode()[begin:end]
    assert [rebuilt[d].decode() for d in range(3)] == text


def ask(queries, corpus, **fields):
    data = Dataset.from_rows(queries)
    return list(score_dataset(RetrievedPassages(**fields), data, {"corpus": Dataset.from_rows(corpus)}).rows())


def test_the_right_passage_comes_first():
    corpus = [
        {"id": f"d{i}", "text": f"Noise {i} of every kind. " * 30 + f"Key{i} opens door {i}."} for i in range(9)
    ]
    found = ask([{"id": "q", "prompt": "what opens key5?"}], corpus, k=2, passage_words=20)[0]
    assert "Key5 opens door 5." in found["context"]
    assert found["context_sources"][0] == "d5" and found["context_score"] > 0
    assert len(ask([{"prompt": "opens key5 door"}], corpus, k=3, max_characters=50)[0]["context"]) <= 50


def test_a_row_never_retrieves_itself():
    corpus = [{"id": "same", "text": "alpha beta gamma"}, {"id": "other", "text": "alpha delta"}]
    found = ask([{"id": "same", "prompt": "alpha beta"}, {"id": "new", "prompt": "alpha beta"}], corpus)
    assert found[0]["context_sources"] == ["other"]
    assert found[1]["context_sources"] == ["same", "other"]


def test_queries_of_any_column_and_without_an_answer():
    found = ask([{"id": "q", "title": "zzz"}], [{"text": "alpha"}], query_column="title")
    assert found[0]["context"] == "" and found[0]["context_score"] == 0


def test_several_shards_equal_one():
    from tutelage.core.dataset_builder import DatasetBuilder

    texts = [f"word{i} common text {i % 3}" for i in range(20)]
    builder = DatasetBuilder(rows_per_shard=7)
    for i, text in enumerate(texts):
        builder.add({"id": f"d{i}", "text": text})
    query = Dataset.from_rows([{"id": "q", "prompt": "word13 common 2"}])
    pieces = list(score_dataset(RetrievedPassages(), query, {"corpus": builder.finish()}).rows())
    whole = ask(
        [{"id": "q", "prompt": "word13 common 2"}], [{"id": f"d{i}", "text": t} for i, t in enumerate(texts)]
    )
    assert pieces == whole and pieces[0]["context_sources"][0] == "d13"


def test_bad_input():
    with pytest.raises(InputError, match="no word") as error:
        ask([{"id": "q7", "prompt": "..."}], [{"text": "alpha"}])
    assert "q7" in str(error.value)
    with pytest.raises(InputError, match="corpus holds no word"):
        ask([{"prompt": "a"}], [{"text": ""}])
    with pytest.raises(InputError, match="did you mean prompt"):
        ask([{"prompt": "a"}], [{"text": "a"}], query_column="promt")
