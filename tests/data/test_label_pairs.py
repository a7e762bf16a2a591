"""data.recipes.label_pairs: who is paired with whom, how often, and with what weight."""

from collections import Counter

import numpy as np
import pytest

from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.discovery import build
from tutelage.core.errors import InputError

PROOF = {"data.recipes.label_pairs": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/data/recipes/label_pairs.py", "own[own != i]", "own"),
    ("src/tutelage/data/recipes/label_pairs.py", "np.flatnonzero(classes != mine)", "np.arange(len(classes))"),
    ("src/tutelage/data/recipes/label_pairs.py", "(i + turn) % 2 == 0", "turn % 2 == 0"),
    ("src/tutelage/data/recipes/label_pairs.py", "[rng.permutation(rows) for", "[rng.choice(rows, len(rows)) for"),
    ("src/tutelage/data/recipes/label_pairs.py", "np.sqrt([", "np.array(["),
    ("src/tutelage/data/recipes/label_pairs.py", "weights / weights.mean()", "weights"),
    ("src/tutelage/data/recipes/label_pairs.py", "self.cap // len(rows)", "self.cap"),
]  # fmt: skip


def labelled(*counts, **columns):
    rows = []
    for number, count in enumerate(counts):
        rows += [{"id": f"{'abcdef'[number]}{i}", "label": "abcdef"[number]} for i in range(count)]
    return Dataset.from_rows(
        {**row, "text": f"text {row['id']}", **{k: v[i] for k, v in columns.items()}} for i, row in enumerate(rows)
    )


def make(data, **fields):
    return apply_transform(build("data.recipes.label_pairs", fields), data, {"seed": fields.get("seed", 0)})


def test_rows_are_paired_as_they_should_be():
    made = make(labelled(4, 4, 4))
    rows = list(made.rows())
    assert len(rows) == 12 * 20 and made.report["pairs"] == 240
    assert len({row["id"] for row in rows}) == 240
    for row in rows:
        first, second = row["source_id"], row["source_id_b"]
        assert first != second and row["same"] == (first[0] == second[0])
        assert row["text"] == f"text {first}" and row["text_b"] == f"text {second}" and row["weight"] == 1.0
    assert sum(row["same"] for row in rows) == 120, "both kinds are equally many"
    assert set(Counter(row["source_id"] for row in rows).values()) == {20}
    # 10 positives among 3 partners: 4, 3 and 3 times; 10 negatives among 8: once or twice.
    partners = Counter(row["source_id_b"] for row in rows if row["source_id"] == "a0" and row["same"])
    assert sorted(partners.values()) == [3, 3, 4]
    partners = Counter(row["source_id_b"] for row in rows if row["source_id"] == "a0" and not row["same"])
    assert sorted(partners.values()) == [1] * 6 + [2] * 2


def test_many_rows_get_fewer_pairs_and_the_cap_holds():
    assert make(labelled(40, 40)).num_rows == 80 * 5
    capped = make(labelled(40, 40), cap=200)
    assert capped.num_rows == 160 and capped.numpy("same").mean() == 0.5
    one = make(labelled(40, 40), per_row=1)
    assert one.num_rows == 80 and one.numpy("same").sum() == 40, "the kinds take turns over the rows"
    tiny = make(labelled(8, 8), cap=10)
    assert tiny.num_rows == 10 and tiny.dropped.num_rows == 6


def test_a_class_with_one_row_gives_negatives_only():
    with pytest.warns(UserWarning, match="one row only of c"):
        made = make(labelled(3, 3, 1))
    mine = [row for row in made.rows() if row["source_id"] == "c0"]
    assert len(mine) == 20 and not any(row["same"] for row in mine)
    assert made.report["alone"] == ["c"]


def test_weights_are_geometric_means_scaled_to_one():
    given = [1.0, 4.0, 1.0, 0.25]
    made = make(labelled(2, 2, label_weight=given))
    by = dict(zip(("a0", "a1", "b0", "b1"), given))
    raw = np.array([np.sqrt(by[r["source_id"]] * by[r["source_id_b"]]) for r in made.rows()])
    assert np.allclose(made.numpy("weight"), raw / raw.mean()) and made.numpy("weight").mean() == pytest.approx(1)
    with pytest.raises(InputError, match="row a0, field label_weight"):
        make(labelled(2, 2, label_weight=[-1.0, 1.0, 1.0, 1.0]))
    with pytest.raises(InputError, match="weigh nothing"):
        make(labelled(2, 2, label_weight=[0.0] * 4))


def test_another_column_of_text():
    data = Dataset.from_rows({**row, "body": row["text"] + "!", "text": "no"} for row in labelled(2, 2).rows())
    found = {row["text"] for row in make(data, column="body").rows()}
    assert found == {f"text {n}!" for n in ("a0", "a1", "b0", "b1")}


def test_seeds_decide():
    assert make(labelled(5, 5)).hash == make(labelled(5, 5)).hash != make(labelled(5, 5), seed=1).hash


def test_rows_without_label_are_dropped_and_one_class_is_an_error():
    rows = [*labelled(2, 2).rows(), {"id": "z", "label": None, "text": "no one knows"}]
    made = make(Dataset.from_rows(rows))
    assert made.dropped.to_pylist() == [{"id": "z", "reason": "no label"}]
    with pytest.raises(InputError, match="one class") as error:
        make(labelled(4))
    assert "'a'" in str(error.value)
