"""Bits that flip and files that are cut off: never read as if they were good, made again or named, and the rest
survives."""

import random

import pytest

from toy.fault_bed import difference, outcome
from tutelage.core.errors import StoreError, TutelageError
from tutelage.core.store import DamagedArtifact, Store
from tutelage.models import answer_cache
from tutelage.report.build import build_view
from tutelage.runs.ledger import Ledger
from tutelage.runs.made import made_path

MUTATIONS = [
    ("src/tutelage/runs/made.py", "    artifact.verify()\n", ""),
    ("src/tutelage/core/store.py", "self.sound(found)", "found"),
    ("src/tutelage/models/answer_cache.py", "and digest != _digest(answer)", "and False"),
]


def damage(file, draw, cut=None):
    """Flip one bit of a file, or cut it off somewhere."""
    content = bytearray(file.read_bytes())
    cut = draw.random() < 0.3 if cut is None else cut
    if cut or not content:
        file.write_bytes(bytes(content[: draw.randrange(len(content))]) if content else b"x")
        return
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(bytes(content))


def test_a_damaged_artifact_is_never_used(bed, undisturbed, pytestconfig, record_property):
    """Whatever a run or the report loads of it is noticed; what nothing loads is named when it is asked for."""
    kills, seed = pytestconfig.getoption("--kills"), pytestconfig.getoption("--fault-seed")
    draw = random.Random(seed)
    source, _, expected = undisturbed("plain")
    steps = [step for step in Ledger(source).run()["steps"] if step["kind"] != "Reader" or step["step"] == "docs"]
    again = named = 0
    for turn in range(max(2, kills // 3)):
        workspace = bed.copy(source)
        store = Store(workspace / ".tutelage" / "store")
        step = steps[(turn * 5 + seed) % len(steps)]
        artifact = store.get(step["key"])
        name = draw.choice([*artifact.files, "artifact.json"])
        damage(artifact.path / name, draw)
        if (
            name != "artifact.json"
            and artifact.path.joinpath(name).stat().st_size == artifact.files[name]["bytes"]
        ):
            with pytest.raises(DamagedArtifact):
                Store(store.root).sound(store.get(step["key"]))
        # Something behind it is missing, so that a run has to load what is there.
        for later in steps:
            if step["key"] in later["facts"]["needs"]:
                Store(store.root).discard(later["key"])
        told = bed.play(workspace, ["report", "--out", str(workspace / "again.html")])
        assert told.code == 0 or (told.code == 2 and artifact.key in told.err), told.err
        ended = bed.play(workspace, bed.run("plain"), ["report"])
        assert ended.code == 0, f"seed {seed}, {step['step']}/{name}: {ended.err}"
        found = Store(store.root).get(step["key"])
        try:
            found.verify()
            again += 1
        except DamagedArtifact as error:
            # Nothing needed it: it is a leaf, or what is made of it is there.
            named += 1
            assert not any(later["key"] for later in steps if step["key"] in later["facts"]["needs"]), step["step"]
            if step["kind"] in ("Trainer", "Adapter"):
                with pytest.raises(StoreError, match="damaged"):
                    made_path(f"run:tiny/{step['step']}", workspace, "model")
            Store(store.root).discard(error.key)
            assert bed.play(workspace, bed.run("plain"), ["report"]).code == 0
        changed = difference(outcome(workspace), expected)
        assert not changed, f"seed {seed}, {step['step']}/{name}: {changed[:5]}"
    record_property("made again", again)
    record_property("named", named)


def test_a_disk_that_keeps_nothing_is_an_error_in_the_end(bed, undisturbed, tmp_path, monkeypatch):
    """The same artifact damaged twice in one run is no accident."""
    from tutelage.runs import load_recipe, run

    workspace = bed.copy(undisturbed("plain")[0])
    first = Ledger(workspace).run()["steps"][0]

    def broken(self):
        error = DamagedArtifact("a stored artifact is damaged", where=self.path, remedy="delete it")
        error.key = first["key"]
        raise error

    monkeypatch.setattr("tutelage.core.store.Artifact.verify", broken)
    monkeypatch.setattr(Store, "discard", lambda self, key: None)
    with pytest.raises(DamagedArtifact):
        run(load_recipe(bed.folder / "plain.yaml"), workspace, progress=lambda event: None)
    assert Ledger(workspace).run()["status"] == "failed"


def test_a_ledger_with_a_flipped_bit_or_cut_off(undisturbed, tmp_path, pytestconfig, record_property):
    """What is read is what was written, or an error; and the run that is asked for, not another."""
    kills, seed = pytestconfig.getoption("--kills"), pytestconfig.getoption("--fault-seed")
    draw = random.Random(seed)
    source = undisturbed("compared")[0]
    whole = Ledger(source).run()
    content = Ledger(source).file.read_bytes()
    (tmp_path / ".tutelage").mkdir()
    found = harmless = 0
    for turn in range(kills * 20):
        ledger = Ledger(tmp_path)
        for rest in (tmp_path / ".tutelage").iterdir():
            rest.unlink()
        ledger.file.write_bytes(content)
        damage(ledger.file, draw, cut=turn % 10 == 0)
        try:
            read = ledger.run()
            keys = ledger.keys()
        except TutelageError as error:
            assert str(ledger.file) in str(error.where) and error.remedy, str(error)
            found += 1
            continue
        assert read == whole and keys == Ledger(source).keys(), f"seed {seed}, turn {turn}"
        harmless += 1
    record_property("errors", found)
    record_property("of no consequence", harmless)


def test_the_report_shows_nothing_damaged(bed, undisturbed):
    workspace = bed.copy(undisturbed("plain")[0])
    store = Store(workspace / ".tutelage" / "store")
    step = next(step for step in Ledger(workspace).run()["steps"] if step["kind"] == "Trainer")
    damage(store.get(step["key"]).path / "fit.json", random.Random(0), cut=False)
    with pytest.raises(DamagedArtifact, match="damaged"):
        made_path("run:tiny/trained", workspace, "model")
    with pytest.raises(DamagedArtifact, match="damaged") as error:
        build_view(workspace)
    assert error.value.where.name == "fit.json" and "delete the folder" in error.value.remedy


def test_a_damaged_ledger_moved_aside_costs_only_itself(bed, undisturbed):
    workspace = bed.copy(undisturbed("plain")[0])
    ledger = Ledger(workspace)
    content = bytearray(ledger.file.read_bytes())
    at = content.index(b"bits_per_byte", len(content) // 2)
    content[at] ^= 1
    ledger.file.write_bytes(bytes(content))
    refused = bed.play(workspace, ["report"])
    assert refused.code == 2 and "move the file aside" in refused.err and str(ledger.file) in refused.err
    for file in ledger.file.parent.glob("ledger.sqlite*"):
        file.rename(file.with_name("aside-" + file.name))
    assert bed.play(workspace, bed.run("plain"), ["report"]).code == 0
    assert all(step["cached"] for step in Ledger(workspace).run()["steps"])
    assert not difference(outcome(workspace), undisturbed("plain")[2])


def test_an_answer_with_a_flipped_bit_is_asked_for_again(tmp_path):
    file = answer_cache.place(tmp_path, ["address", "path", {"prompt": "?"}])
    answer = {"text": "yes", "tokens": 1}
    answer_cache.write(file, answer)
    whole = file.read_bytes()
    assert answer_cache.read(file) == answer
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        file.write_bytes(bytes(changed))
        assert answer_cache.read(file) is None, place
        file.write_bytes(whole[:place])
        assert answer_cache.read(file) is None
    file.write_bytes(b'{"text": "yes", "tokens": 1}')
    assert answer_cache.read(file) == answer, "answers of earlier versions were paid for"
    assert [path.name for path in file.parent.iterdir()] == [file.name]
