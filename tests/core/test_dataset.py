"""The dataset: ids, sidecars, hashes, spilling, damage."""

import numpy as np
import pyarrow as pa
import pytest

from tutelage.core import shards
from tutelage.core.dataset import Dataset, embedding_matrix
from tutelage.core.dataset_builder import DatasetBuilder
from tutelage.core.errors import InputError, StoreError

ROWS = [{"id": f"r{i}", "text": f"text {i}", "n": i} for i in range(10)]


def small_shards(rows, size=3):
    builder = DatasetBuilder(rows_per_shard=size)
    for row in rows:
        builder.add(row)
    return builder.finish()


def test_rows_come_back_in_order_and_ids_are_stable():
    data = small_shards(ROWS)
    assert data.num_shards == 4
    assert list(data.rows()) == ROWS
    without = [{"text": "a"}, {"text": "b"}, {"text": "a"}]
    first, second = Dataset.from_rows(without), Dataset.from_rows(reversed(without))
    assert set(first.ids()) == set(second.ids())
    assert len(set(first.ids())) == 3


def test_save_and_open_keep_everything(tmp_path):
    data = small_shards(ROWS).with_columns(
        "score", ({"s": np.arange(len(t)), "v": [[1, 2]] * len(t)} for t in small_shards(ROWS).shards())
    )
    kept = data.keep(np.arange(10) % 2 == 0, "odd", {"note": 1})
    saved = kept.save(tmp_path / "d")
    opened = Dataset.open(tmp_path / "d", verify=True)
    assert opened.hash == kept.hash == saved.hash
    assert list(opened.rows()) == list(kept.rows())
    assert opened.dropped.to_pylist() == [{"id": f"r{i}", "reason": "odd"} for i in (1, 3, 5, 7, 9)]
    assert opened.report == {"note": 1}
    with pytest.raises(StoreError, match="never overwritten"):
        kept.save(tmp_path / "d")


def test_hash_covers_contents_only(tmp_path):
    data = small_shards(ROWS)
    assert data.hash == small_shards(ROWS).hash
    sliced = pa.concat_tables([pa.Table.from_pylist(ROWS[:7]), pa.Table.from_pylist(ROWS[7:])])
    assert Dataset.from_table(sliced).hash == Dataset.from_table(pa.Table.from_pylist(ROWS)).hash
    changed = [*ROWS[:9], {**ROWS[9], "text": "other"}]
    assert small_shards(changed).hash != data.hash
    assert data.with_columns("x", ({"x": [0] * len(t)} for t in data.shards())).hash != data.hash


def test_spilled_equals_in_memory(monkeypatch):
    plain = small_shards(ROWS)
    monkeypatch.setattr(shards, "BYTES_IN_MEMORY", 0)
    spilled = small_shards(ROWS)
    assert spilled.hash == plain.hash
    assert list(spilled.rows()) == ROWS
    assert spilled.take([9, 0, 4]).to_pylist() == [ROWS[9], ROWS[0], ROWS[4]]


def test_take_crosses_shards_in_the_asked_order():
    data = small_shards(ROWS)
    picks = [7, 7, 0, 9, 2]
    assert data.take(picks).column("n").to_pylist() == picks


def test_replacing_a_column(tmp_path):
    data = small_shards(ROWS)
    again = data.with_columns("n", ({"n": [-1] * len(t)} for t in data.shards()))
    assert again.numpy("n").tolist() == [-1] * 10
    assert again.column_names == ["id", "text", "n"]
    again.save(tmp_path / "d")
    assert Dataset.open(tmp_path / "d", verify=True).hash == again.hash


def test_missing_values_and_late_columns():
    data = small_shards([{"id": "a", "x": 1}, {"id": "b"}, {"id": "c"}, {"id": "d", "y": "late"}], size=2)
    assert [row.get("y") for row in data.rows()] == [None, None, None, "late"]
    assert np.isnan(data.numpy("x")).tolist() == [False, True, True, True]


@pytest.mark.parametrize("size", [100, 1])
def test_mixed_types_name_the_column(size):
    with pytest.raises(InputError, match="n"):
        small_shards([{"id": "a", "n": 1}, {"id": "b", "n": "two"}], size=size)


def test_duplicate_and_empty_ids_are_refused():
    with pytest.raises(InputError, match="same id") as error:
        Dataset.from_rows([{"id": "a"}, {"id": "a"}])
    assert "id a" in str(error.value)
    with pytest.raises(InputError, match="no id"):
        Dataset.from_rows([{"id": ""}])


def test_wrong_column_suggests():
    with pytest.raises(InputError, match="did you mean text"):
        small_shards(ROWS).column("txet")


def test_truncated_and_altered_shards_are_named(tmp_path):
    small_shards(ROWS).save(tmp_path / "d")
    shard = tmp_path / "d" / "shards" / "00001.parquet"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-20])
    with pytest.raises(InputError, match=r"00001\.parquet"):
        Dataset.open(tmp_path / "d")
    shard.write_bytes(whole[:-20] + b"x" * 20)
    with pytest.raises(InputError, match=r"00001\.parquet"):
        list(Dataset.open(tmp_path / "d").rows())


def test_manifest_may_not_leave_its_folder(tmp_path):
    small_shards(ROWS).save(tmp_path / "d")
    manifest = tmp_path / "d" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("shards/00000.parquet", "../../etc/passwd"))
    with pytest.raises(InputError, match="outside"):
        Dataset.open(tmp_path / "d")


def test_embeddings_are_fixed_size_lists():
    matrix = np.arange(20, dtype=np.float32).reshape(10, 2)
    data = Dataset.from_rows(ROWS).with_columns("e", [{"embedding": matrix}])
    assert np.array_equal(embedding_matrix(data.column("embedding")), matrix)


def test_lists_of_nulls_alone_are_read_as_they_were():
    rows = [{"id": f"r{i}", "votes": [None, None, None]} for i in range(5)]
    data = Dataset.from_rows(rows)
    assert list(data.rows()) == rows
    assert list(data.keep(np.arange(5) > 2, "gone").rows()) == rows[3:]
