"""The item log: validation, pairing names, seeds and clusters as arrays, files."""

import numpy as np
import pytest

from tutelage.core.errors import InputError
from tutelage.core.items import ItemLog, item_key, item_keys

MUTATIONS = [
    ("src/tutelage/core/items.py", "seen[first] = occurrence + 1", "seen[first] = occurrence"),
    ("src/tutelage/core/items.py", "/ count).reshape(shape)", ").reshape(shape)"),
]


def log(rows, **metadata):
    return ItemLog.from_rows(rows, metadata)


def test_names_depend_on_task_content_and_occurrence_but_not_on_key_order():
    row = {"q": "1+1", "a": 2}
    assert item_key("t", row) == item_key("t", {"a": 2, "q": "1+1"})
    assert len({item_key("t", row), item_key("u", row), item_key("t", row, 1), item_key("t", {"q": "1+1"})}) == 4
    keys = item_keys("t", [row, {"q": "x"}, row, row])
    assert keys == [item_key("t", row), item_key("t", {"q": "x"}), item_key("t", row, 1), item_key("t", row, 2)]


def test_scores_average_samples_then_seeds():
    rows = [
        {"item_key": "a", "train_seed": 1, "sample_index": 0, "score": 1},
        {"item_key": "a", "train_seed": 1, "sample_index": 1, "score": 0},
        {"item_key": "b", "train_seed": 1, "score": 1},
        {"item_key": "b", "train_seed": 0, "score": 0},
        {"item_key": "a", "train_seed": 0, "score": 0},
    ]
    matrix = log(rows).matrix()
    assert matrix.seeds == (0, 1)
    assert matrix.keys == ["a", "b"]
    np.testing.assert_array_equal(matrix.scores, [[0, 0], [0.5, 1]])
    assert log(rows).scores() == {"a": 0.25, "b": 0.5}
    assert log(rows).scores(train_seed=1) == {"a": 0.5, "b": 1.0}
    with pytest.raises(InputError, match="no such training seed"):
        log(rows).scores(train_seed=7)


def test_clusters_fall_back_to_the_item_itself():
    matrix = log(
        [{"item_key": k, "score": 0, "cluster": c} for k, c in (("a", "d"), ("b", "d"), ("d", None))]
    ).matrix()
    assert matrix.clusters[0] == matrix.clusters[1] != matrix.clusters[2]
    grouped = log([{"item_key": k, "score": 0, "group": "g"} for k in "ab"]).matrix("group")
    assert len(set(grouped.clusters)) == 1


def test_save_and_load_keep_rows_metadata_and_hash(tmp_path):
    rows = [
        {"item_key": "a", "score": 1, "choice_ll": [-1.0, -2.5], "status": "truncated", "prediction": 3},
        {"item_key": "b", "score": 0.5, "choice_ll": None},
    ]
    original = log(rows, metric="acc", direction=1)
    loaded = ItemLog.load(original.save(tmp_path / "sub" / "log.parquet"))
    assert loaded.table.equals(original.table)
    assert loaded.metadata == {"metric": "acc", "direction": 1}
    assert loaded.hash == original.hash == log(rows[::-1]).hash
    assert loaded.hash != log([{**rows[0], "score": 0}, rows[1]]).hash
    assert loaded.table["prediction"].to_pylist() == ["3", None]


def test_statuses_are_counted():
    counted = log(
        [{"item_key": str(i), "score": 0, "status": s} for i, s in enumerate(["ok", "ok", "refused", "error"])]
    )
    assert counted.status_counts == {"ok": 2, "refused": 1, "error": 1}
    assert counted.failure_rate == 0.5


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"item_key": "k1", "score": 0}, {"item_key": "k1", "score": 1}], "k1"),
        ([{"item_key": "k2", "score": float("nan")}], "k2"),
        ([{"item_key": "k3", "score": None}], "k3"),
        ([{"item_key": "k4", "score": "high"}], "k4"),
        ([{"item_key": "k5", "score": 0, "status": "fine"}], "k5"),
        ([{"item_key": "k6", "score": 0, "weight": 0.0}], "k6"),
        ([{"item_key": "k7", "score": 0, "weight": 1.0}, {"item_key": "k8", "score": 0}], "k8"),
        ([{"item_key": "k9", "scores": 0}], "did you mean score"),
        ([{"score": 0}], "item_key"),
        ([], "no rows"),
    ],
)
def test_bad_rows_are_refused_by_name(rows, said):
    with pytest.raises(InputError, match=said):
        log(rows)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [{"item_key": "a", "score": 0, "train_seed": 0}, {"item_key": "b", "score": 0, "train_seed": 1}],
            "1 of|missing",
        ),
        ([{"item_key": "a", "score": 0, "train_seed": 0}, {"item_key": "b", "score": 0}], "others have none"),
        ([{"item_key": "a", "score": 0, "system_id": s} for s in "xy"], "one system"),
        (
            [{"item_key": "a", "score": 0, "cluster": s, "sample_index": i} for i, s in enumerate("xy")],
            "two clusters",
        ),
    ],
)
def test_logs_that_cannot_be_arrays_say_why(rows, said):
    with pytest.raises(InputError, match=said):
        log(rows).matrix()


def test_a_file_that_is_no_log(tmp_path):
    (tmp_path / "x.parquet").write_text("PAR1")
    with pytest.raises(InputError, match="item log"):
        ItemLog.load(tmp_path / "x.parquet")
    with pytest.raises(InputError, match="no such cluster column"):
        log([{"item_key": "a", "score": 0}]).matrix("topic")
