"""What was scored before an interruption is not scored again."""

import contextlib
import os
from types import SimpleNamespace

import pytest

from tutelage.core import apply
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
    ("src/tutelage/core/apply.py", "pieces = cut(shard) if slow else [shard]", "pieces = [shard]"),
    ("src/tutelage/core/apply.py", "pieces = cut(shard) if slow else [shard]", "pieces = cut(shard)"),
    (
        "src/tutelage/core/apply.py",
        "finished.columns(number, place, rows, score)",
        "finished.columns(0, 0, rows, score)",
    ),
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
    file = tmp_path / "shard-000000-000.arrow"
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
    file = tmp_path / "shard-000000-000.arrow"
    assert file.stat().st_ino in synced, "flushed before it gets its name"
    whole = file.read_bytes()
    for place in range(0, len(whole), 7):
        content = bytearray(whole)
        content[place] ^= 4
        file.write_bytes(bytes(content))
        found, seen, _ = scored(rows, tmp_path, stop=False)
        assert seen == ["a", "bb"] and found.hash == expected.hash, place
        assert file.read_bytes() == whole


def test_what_a_model_looks_at_is_kept_in_pieces_of_a_shard(tmp_path, monkeypatch):
    """One shard of 64 MB would be hours of a model's work: gone with the process that did it."""
    texts = [f"text {number}" for number in range(9)] + ["stop", "last"]
    rows = Dataset.from_rows({"id": f"r{n}", "text": text} for n, text in enumerate(texts))
    monkeypatch.setattr(apply, "PIECE_BYTES", next(rows.shards()).nbytes // 4)
    model = SimpleNamespace(meter=Meter())

    def scored_with(kept, stop, **inputs):
        seen, meter = [], Meter()
        with contextlib.suppress(KeyboardInterrupt):
            found = score_dataset(Counting(stop=stop), rows, {"seen": seen, "meter": meter, **inputs}, {}, kept)
            return found, seen, meter.cost
        return None, seen, meter.cost

    assert scored_with(tmp_path, True, model=model)[1] == texts[:9]
    found, seen, cost = scored_with(tmp_path, False, model=[model])
    assert seen == texts[8:], "three pieces of four were finished"
    assert cost.scored_tokens == 11, "what was done before is charged"
    whole, every, plain = scored_with(tmp_path / "none", False)
    assert every == texts and found.hash == whole.hash and found.schema == whole.schema and cost == plain
    assert not (tmp_path / "none").exists(), "without a model a shard is a moment's work"
    assert scored_with(None, False, model=model)[0].hash == whole.hash


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_keep_the_order(tmp_path, monkeypatch, threads):
    monkeypatch.setattr(Counting, "threads", threads)
    rows = dataset(*"abcdefg")
    scored(rows, tmp_path, stop=False)
    found, seen, _ = scored(rows, tmp_path, stop=False)
    assert not seen and found.numpy("size").tolist() == [1] * 7
