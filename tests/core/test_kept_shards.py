"""What was scored before an interruption is not scored again."""

import contextlib
import os

import pytest

from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.dataset_builder import DatasetBuilder
from tutelage.core.meter import Meter
from tutelage.core.method import Scorer

MUTATIONS = [
    ("src/tutelage/core/kept_shards.py", '[b"rows"].decode() == rows', '[b"rows"]'),
    (
        "src/tutelage/core/kept_shards.py",
        'self.own.add_cost(Cost(**json.loads(found.schema.metadata[b"cost"])))',
        "pass",
    ),
    ("src/tutelage/core/kept_shards.py", "part.replace(file)", "pass"),
    ("src/tutelage/core/kept_shards.py", "!= _digest(content[_HASH:])", '== b""'),
    ("src/tutelage/core/kept_shards.py", "        os.fsync(out.fileno())\n", ""),
]


class Counting(Scorer):
    """Counts characters, and stops at a text that says so."""

    stop: bool = True

    def score(self, shard, state, inputs):
        seen = inputs["seen"]
        for text in shard.column("text").to_pylist():
            if self.stop and text == "stop":
                raise KeyboardInterrupt
            seen.append(text)
        inputs["meter"].add(scored_tokens=len(shard), forward_flops=10.0 * len(shard))
        return {
            "size": [len(text) for text in shard.column("text").to_pylist()],
            "vector": [[1.0, 2.0]] * len(shard),
        }


def dataset(*texts):
    builder = DatasetBuilder(rows_per_shard=2)
    for number, text in enumerate(texts):
        builder.add({"id": f"r{number}", "text": text})
    return builder.finish()


def scored(rows, kept, stop=True):
    seen, meter = [], Meter()
    found = None
    with contextlib.suppress(KeyboardInterrupt):
        found = score_dataset(Counting(stop=stop), rows, {"seen": seen, "meter": meter}, {}, kept)
    return found, seen, meter.cost


def test_only_shards_that_are_left_are_scored_and_all_are_charged(tmp_path):
    rows = dataset("a", "bb", "c", "stop", "e")
    found, seen, _ = scored(rows, tmp_path)
    assert found is None and seen == ["a", "bb", "c"]
    found, seen, cost = scored(rows, tmp_path, stop=False)
    assert seen == ["c", "stop", "e"], "the first shard was finished, the second was not"
    assert (cost.scored_tokens, cost.forward_flops) == (5, 50.0)
    whole, _, plain = scored(rows, None, stop=False)
    assert found.hash == whole.hash and found.schema == whole.schema and cost == plain


def test_shards_of_other_rows_and_damaged_files_are_made_again(tmp_path):
    first = dataset("a", "bb", "c")
    scored(first, tmp_path, stop=False)
    other = Dataset.from_rows({"id": f"x{n}", "text": "zz"} for n in range(2))
    assert scored(other, tmp_path, stop=False)[1] == ["zz", "zz"], "one shard is not kept at all"
    builder = DatasetBuilder(rows_per_shard=2)
    for number, text in enumerate(("q", "r", "s")):
        builder.add({"id": f"y{number}", "text": text})
    assert scored(builder.finish(), tmp_path, stop=False)[1] == ["q", "r", "s"]
    file = tmp_path / "shard-000000.arrow"
    file.write_bytes(file.read_bytes()[:50])
    found, seen, _ = scored(builder.finish(), tmp_path, stop=False)
    assert seen == ["q", "r"] and found.numpy("size").tolist() == [1, 1, 1]


def test_a_flipped_bit_anywhere_has_its_shard_scored_again(tmp_path, monkeypatch):
    """Arrow files have no sums of their own: a changed score would be read as good."""
    synced = []
    sync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino) or sync(descriptor)
    )
    rows = dataset("a", "bb", "c")
    expected, _, _ = scored(rows, tmp_path, stop=False)
    file = tmp_path / "shard-000000.arrow"
    assert file.stat().st_ino in synced, "flushed before it gets its name"
    whole = file.read_bytes()
    for place in range(0, len(whole), 7):
        content = bytearray(whole)
        content[place] ^= 4
        file.write_bytes(bytes(content))
        found, seen, _ = scored(rows, tmp_path, stop=False)
        assert seen == ["a", "bb"] and found.hash == expected.hash, place
        assert file.read_bytes() == whole


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_keep_the_order(tmp_path, monkeypatch, threads):
    monkeypatch.setattr(Counting, "threads", threads)
    rows = dataset(*"abcdefg")
    scored(rows, tmp_path, stop=False)
    found, seen, _ = scored(rows, tmp_path, stop=False)
    assert not seen and found.numpy("size").tolist() == [1] * 7
