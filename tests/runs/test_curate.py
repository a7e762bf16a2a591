"""recipes/curate.yaml on a planted folder: what was planted is found, stages add up, the card tells the truth."""

import json
import random
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tutelage.core.dataset import Dataset
from tutelage.core.records import Cost
from tutelage.runs import Recipe, load_recipe, run
from tutelage.runs.lineage import stages

REAL_MODELS = True
MUTATIONS = [
    (
        "src/tutelage/runs/compute.py",
        "str(folder / payload.FILES), job.stages)",
        "str(folder / payload.FILES), ())",
    ),
    ("src/tutelage/runs/engine.py", "value.behind = given", "value.behind = given[1:]"),
    ("src/tutelage/runs/engine.py", 'extra["stages"] = [[', 'extra["steps"] = [] and [['),
    ("src/tutelage/runs/lineage.py", 'facts.get("rows_in", facts["rows"] + quarantined)', 'facts["rows"]'),
]
RECIPES = Path(__file__).resolve().parents[2] / "recipes"
NOUNS = (
    "sky sea road bridge garden engine letter window market river paper music forest bread winter teacher mountain"
    " station harbour kitchen soldier village pencil lantern carpet orchard captain valley thunder button"
).split()
JOINTS = "the of and to that have with is was in for on it as by from".split()
LICENCE = (
    "Permission is granted to use, copy and change this software for any purpose, as long as this notice stays."
    " Nothing is promised by anybody.\n"
)


def prose(seed, sentences=16):
    rng = random.Random(f"prose {seed}")
    lines = [[rng.choice(NOUNS if rng.random() < 0.6 else JOINTS) for _ in range(11)] for _ in range(sentences)]
    return " ".join(" ".join(words).capitalize() + "." for words in lines) + "\n"


def code(seed):
    rng = random.Random(f"code {seed}")
    lines = [
        f"    {rng.choice(NOUNS)}_{rng.choice(NOUNS)} = value.{rng.choice(NOUNS)}(value)\n" for _ in range(30)
    ]
    return f"{LICENCE}\ndef part(value):\n" + "".join(lines)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Documents with an exact copy, an edited copy, a repeated header, a foreign text, a leak and binary junk."""
    from pydoc_data.topics import topics

    place = tmp_path_factory.mktemp("pile")
    for n in range(8):
        (place / f"doc{n}.md").write_text(prose(n), encoding="utf-8")
        (place / f"code{n}.py").write_text(code(n), encoding="utf-8")
    (place / "copy.md").write_text(prose(3).upper(), encoding="utf-8")
    words = prose(4).split()
    words[80] = "changed"
    (place / "edited.md").write_text(" ".join(words), encoding="utf-8")
    german = (
        "Das Haus ist nicht für die Leute aus dem Dorf, und es wird auch nicht an sie verkauft, wie man sagt. "
    )
    (place / "foreign.md").write_text(
        "".join(f"{german}Das ist der {n}. Satz. " for n in range(9)), encoding="utf-8"
    )
    (place / "leak.txt").write_text(prose(50) + "\n\n" + topics["assert"], encoding="utf-8")
    (place / "broken.txt").write_bytes(b"caf\xe9 " * 20)
    (place / "junk.bin").write_bytes(b"\0" * 50)
    return place


def changed(file, folder, *more):
    changes = [f"sources.pool.path={folder}", *more]
    return load_recipe(RECIPES / file, changes, allow_outside=True)


@pytest.fixture(scope="module")
def curated(folder, tmp_path_factory):
    workspace = tmp_path_factory.mktemp("curate")
    result = run(changed("curate.yaml", folder), workspace)
    assert result.status == "passed"
    return result, workspace, json.loads((workspace / "card" / "card.json").read_text(encoding="utf-8"))


def dropped(result, step):
    table = result.load(step).dropped
    return dict(zip(table.column("id").to_pylist(), table.column("reason").to_pylist(), strict=True))


def test_what_was_planted_is_found(curated):
    result, _, card = curated
    assert dropped(result, "unique") == {"doc3.md": "duplicate of copy.md"}
    assert list(dropped(result, "distinct")) in (["doc4.md"], ["edited.md"])
    assert result.load("pieces").report["rows_cut"] == 7, "the licence stays in one of eight files"
    why = dropped(result, "corpus")
    assert why["leak.txt"] == "contaminated is True"
    assert why["foreign.md"] == "language is 'de', wanted one of 'en', 'und'"
    assert card["stages"][0]["rows_quarantined"] == 1
    assert card["contamination"][0]["rows"] >= 1 and "assert" in card["contamination"][0]["most"]


def test_every_stage_adds_up_and_the_card_says_what_the_datasets_say(curated):
    result, _, card = curated
    told = {stage["name"]: stage for stage in card["stages"]}
    wanted = {"pool", "evaluation", "unique", "distinct", "pieces", "sized", "spoken", "ruled", "tagged", "corpus"}
    assert set(told) == wanted and card["stages"][-1]["name"] == "corpus"
    rows = 19
    for name in ("pool", "unique", "distinct", "pieces", "sized", "spoken", "ruled", "tagged", "corpus"):
        stage = told[name]
        assert stage["rows_in"] == stage["rows_kept"] + stage["rows_dropped"] + stage["rows_quarantined"]
        rows = rows + 2 if name == "pool" else rows
        assert stage["rows_in"] == rows, name
        rows = stage["rows_kept"]
        if name != "pool":
            data = result.load(name)
            assert (data.num_rows, data.dropped.num_rows) == (stage["rows_kept"], stage["rows_dropped"])
            assert sum(stage["reasons"].values()) == stage["rows_dropped"] and stage["seconds"] > 0
    corpus = result.load("corpus")
    assert card["rows"] == corpus.num_rows and card["hash"] == corpus.hash
    assert card["bytes"] == sum(len(text.encode()) for text in corpus.column("text").to_pylist())
    kinds = Counter(corpus.column("kind").to_pylist())
    assert {entry["value"]: entry["rows"] for entry in card["by"]["kind"]} == kinds
    assert sum(entry["rows"] for entry in card["lengths"]) == corpus.num_rows
    assert card["duplicates"]["rows"] == 2
    assert [part["stage"] for part in told["corpus"]["within"]] == ["conditions", "sampling"]


def test_what_was_written_is_the_corpus(curated):
    result, workspace, _ = curated
    corpus = result.load("corpus")
    table = pq.read_table(workspace / "corpus.parquet")
    assert table.column("id").to_pylist() == corpus.ids()
    lines = [json.loads(line) for line in (workspace / "corpus.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["text"] for line in lines] == corpus.column("text").to_pylist()
    assert {"card.md", "card.html"} <= {file.name for file in (workspace / "card").iterdir()}


def test_a_changed_threshold_scores_nothing_again(curated, folder):
    _, workspace, _ = curated
    events = []
    recipe = changed("curate.yaml", folder, "corpus.keep.n_words.min=100")
    run(recipe, workspace, progress=events.append)
    done = {event["name"]: event["cached"] for event in events if event["event"] == "done"}
    assert all(done[name] for name in ("pool", "unique", "pieces", "ruled", "tagged")) and not done["corpus"]


def test_the_card_is_made_again_when_only_the_way_to_equal_rows_changed(folder, tmp_path):
    def recipe(*steps):
        return Recipe(
            name="ways",
            sources={"pool": {"use": "data.read.text", "path": str(folder)}},
            steps=[*steps, {"name": "card", "use": "data.write.card", "from": steps[-1]["name"]}],
        ).placed(folder)

    first = {"name": "all", "use": "data.filter.where", "from": "pool", "column": "text"}
    second = {"name": "again", "use": "data.filter.where", "from": "all", "column": "text"}
    names = []
    for steps in ([first], [first, second]):
        result = run(recipe(*steps), tmp_path)
        (file,) = [f for f in result.load("card") if f.endswith(".json")]
        names.append([s["name"] for s in json.loads(Path(file).read_text(encoding="utf-8"))["stages"]])
        assert result.values["card"].as_if.seconds > 0
    assert names == [["pool", "all"], ["pool", "all", "again"]]


def test_stages_come_parents_first_and_once(curated):
    result, _, _ = curated
    found = stages([result.values["corpus"], result.values["tagged"]])
    keys = [stage.key for stage in found]
    assert len(keys) == len(set(keys))
    assert all(keys.index(parent) < keys.index(stage.key) for stage in found for parent in stage.parents)
    assert all(isinstance(stage.load(), Dataset) and isinstance(stage.cost, Cost) for stage in found)


def test_dolma_tags_first_and_drops_in_its_mixes(folder, tmp_path):
    result = run(changed("dolma.yaml", folder), tmp_path)
    assert result.load("near").num_rows == result.load("sized").num_rows == 20, "taggers drop nothing"
    documents = dropped(result, "documents")
    assert documents["doc3.md"] == "dup_keep is False, wanted True"
    assert documents["foreign.md"].startswith("language is 'de'")
    assert {"doc4.md", "edited.md"} & set(documents)
    corpus = result.load("corpus")
    assert dropped(result, "corpus")["leak.txt"] == "leaked is True"
    cut = [row["removed_characters"] for row in corpus.rows() if row["kind"] == "python"]
    assert sorted(cut) == [0] + [len(LICENCE)] * 7
    assert [part["stage"] for part in corpus.report["stages"]] == ["conditions", "spans", "sampling"]
    card = json.loads((tmp_path / "card" / "card.json").read_text(encoding="utf-8"))
    assert card["removed_characters"] == sum(corpus.column("removed_characters").to_pylist())
    assert card["contamination"][0]["rows"] == 1
