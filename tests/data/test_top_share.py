"""data.select.top_share against a prefix by hand."""

import numpy as np
import pytest

from toy.selection import scored, scored_rows
from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.data.select.top_share import TopShare

PROOF = {"data.select.top_share": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/data/select/top_share.py", "round(self.share * stock)", "round(self.share * len(order))"),
    ("src/tutelage/data/select/top_share.py", "signed(values, self.direction, self.column)", "values"),
    ("src/tutelage/data/select/top_share.py", ".tokens[order].sum()", ".tokens.sum() * 2"),
]


def chosen(data, **fields):
    return apply_transform(TopShare(**fields), data, {"seed": 0})


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("direction", ["higher", "lower"])
def test_takes_the_best_rows_up_to_the_share_of_tokens(share, direction):
    rows = [row for row in scored_rows() if row["score"] == row["score"]]
    rows.sort(key=lambda row: row["score"] if direction == "lower" else -row["score"])
    wanted = share * sum(row["n_tokens"] for row in rows)
    total, expected = 0, set()
    for row in rows:
        if total >= round(wanted):
            break
        total += row["n_tokens"]
        expected.add(row["id"])
    got = chosen(scored(), column="score", direction=direction, share=share)
    assert set(got.ids()) == expected
    assert got.report["tokens_taken"] == total and got.report["rows_without_score"] == 1


def test_rows_keep_their_order_and_ties_are_drawn_by_hash():
    rows = [{"id": f"r{i}", "text": "x", "score": 1.0, "n_tokens": 2} for i in range(40)]
    first = chosen(Dataset.from_rows(rows), column="score", share=0.25).ids()
    turned = chosen(Dataset.from_rows(rows[::-1]), column="score", share=0.25).ids()
    other = chosen(Dataset.from_rows(rows), column="score", share=0.25, seed=1).ids()
    assert len(first) == 10 and set(first) == set(turned) != set(other)
    assert first == sorted(first, key=lambda identifier: int(identifier[1:]))
    assert np.array_equal(first, turned[::-1])


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="share"):
        TopShare(share=0.0)
    with pytest.raises(ConfigError, match="say whether high or low"):
        chosen(scored(), column="bpb")
    with pytest.raises(InputError, match="no tokens"):
        chosen(Dataset.from_rows([{"text": "", "score": 1.0, "n_tokens": 0}]), column="score")
    with pytest.raises(InputError, match="no rows"):
        chosen(Dataset.from_rows([]), column="score")
