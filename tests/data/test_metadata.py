"""data.augment.metadata: short sources, an exact share of conditioned tokens, no leak of labels."""

import numpy as np
import pytest

from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.data.augment.metadata import Metadata, short_source

PROOF = {"data.augment.metadata": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/data/augment/metadata.py", 'removeprefix("www.")', 'removeprefix("")'),
    ("src/tutelage/data/augment/metadata.py", "before < self.share", "before <= self.share"),
    ("src/tutelage/data/augment/metadata.py", 'if first and source else ""', 'if source else ""'),
    ("src/tutelage/data/augment/metadata.py", "missing > MANY_MISSING", "missing > 0 * MANY_MISSING"),
]


def rows(count=200, **more):
    made = (
        {"id": str(i), "text": f"text {i}", "source": f"https://www.site{i % 3}.org/page/{i}"}
        for i in range(count)
    )
    return Dataset.from_rows({**row, "n_tokens": 1 + int(row["id"]) % 9, **more} for row in made)


def made(data=None, **fields):
    return apply_transform(Metadata(**fields), rows() if data is None else data, {})


@pytest.mark.parametrize(
    ("given", "short"),
    [
        ("https://www.python.org/doc/?q=1", "python.org"),
        ("http://en.wikipedia.org:80/wiki/X", "en.wikipedia.org"),
        ("  Topic \n of law ", "Topic of law"),
        ("file:///etc", "file:///etc"),
    ],
)
def test_short_sources(given, short):
    assert short_source(given) == short


def test_the_share_is_one_of_tokens_and_rows_keep_their_text():
    data = made()
    assert data.ids() == rows().ids() and data.column("text").to_pylist() == rows().column("text").to_pylist()
    first, tokens = data.numpy("conditioned"), data.numpy("n_tokens")
    assert tokens[first].sum() == pytest.approx(0.9 * tokens.sum(), abs=9) and not first.all()
    assert data.report["share_of_tokens"] == pytest.approx(tokens[first].sum() / tokens.sum())
    for row in data.rows():
        assert row["context"] == (f"URL: site{int(row['id']) % 3}.org" if row["conditioned"] else "")


def test_share_header_column_and_seed():
    assert made(share=1.0).numpy("conditioned").all()
    none = made(share=0.0)
    assert not none.numpy("conditioned").any() and set(none.column("context").to_pylist()) == {""}
    half = made(rows(topic="two  words"), share=0.5, header="Topic", column="topic")
    assert set(half.column("context").to_pylist()) == {"", "Topic: two words"}
    drawn = [made(share=0.5, seed=seed).numpy("conditioned").tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    more, less = (made(share=share).numpy("conditioned") for share in (0.8, 0.4))
    assert (more | ~less).all(), "a smaller share is part of a larger one"


def test_missing_metadata_warns_above_a_tenth_and_has_no_context():
    def with_gaps(every):
        return Dataset.from_rows(
            {**r, "source": r["source"] if i % every else None} for i, r in enumerate(rows().rows())
        )

    with pytest.warns(UserWarning, match="50 of 200 rows have no source"):
        found = made(with_gaps(4), share=1.0)
    assert [row["context"] == "" for row in found.rows()] == [i % 4 == 0 for i in range(200)]
    assert found.report["rows_without_metadata"] == 50 and found.numpy("conditioned").all()


def test_a_few_missing_do_not_warn(recwarn):
    made(Dataset.from_rows({**r, "source": r["source"] if i % 20 else ""} for i, r in enumerate(rows().rows())))
    assert not [w for w in recwarn if "rows have no" in str(w.message)]


def test_refusals():
    for column in ("label", "answer"):
        with pytest.raises(ConfigError, match="leaks it"):
            Metadata(column=column)
    with pytest.raises(InputError, match="urls"):
        made(column="urls")
    with pytest.raises(InputError, match="no rows"):
        Metadata().apply(rows().keep(np.zeros(200, bool), "all"), {})
