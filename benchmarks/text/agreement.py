"""What the text benchmark runs of ours, and whether results agree with the peers'."""

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.text import peers
from benchmarks.text.corpus import Corpus, write


def dataset(corpus: Corpus) -> Any:
    from tutelage.core.dataset import Dataset

    return Dataset.from_rows({"id": identifier, "text": text} for identifier, text in corpus.rows)


def from_jsonl(file: Path, out: Path, method: str, **fields: Any) -> Any:
    """The rows of a file through a transform into another file."""
    from tutelage.core.apply import apply_transform
    from tutelage.core.discovery import build

    data = build("data.read.jsonl").read(str(file))  # type: ignore[attr-defined]
    kept = apply_transform(build(method, fields), data, {})  # type: ignore[arg-type]
    build("data.write.jsonl").write(kept, str(out))  # type: ignore[attr-defined]
    return kept


def contaminated(file: Path, items: Path, n: int) -> set[str]:
    """Ids of the rows that share n words with an item."""
    from tutelage.core.apply import score_dataset
    from tutelage.core.discovery import build

    reader = build("data.read.jsonl")
    evaluation, data = reader.read(str(items)), reader.read(str(file))  # type: ignore[attr-defined]
    method = build("signals.ngram_overlap", {"n": n})
    scored = score_dataset(method, data, {"evaluation": evaluation})  # type: ignore[arg-type]
    return {i for i, hit in zip(scored.ids(), scored.column("contaminated").to_pylist()) if hit}


def check(whole: Corpus, part: Corpus, work: Path, n: int) -> dict[str, Any]:
    """Kept texts, clusters and planted n-grams, ours and theirs."""
    found: dict[str, Any] = {"planted_ngrams": _planted(whole, work, n)}
    if peers.installed("datatrove"):
        found["kept_texts"] = _kept(whole, work)
        found["clusters"] = _clusters(part, work)
    return found


def _kept(whole: Corpus, work: Path) -> dict[str, Any]:
    file = whole.write(work / "kept.jsonl")
    texts = dict(whole.rows)
    with tempfile.TemporaryDirectory() as out:
        ours = from_jsonl(file, Path(out) / "ours.jsonl", "data.dedup.exact", strict=True)
        peers.datatrove_exact(file, Path(out) / "theirs")
        theirs = peers.written(Path(out) / "theirs")[0]
    same = sorted(texts[i] for i in ours.ids()) == sorted(texts[i] for i in theirs)
    return {"ours": ours.num_rows, "datatrove": len(theirs), "identical": same}


def _clusters(part: Corpus, work: Path) -> dict[str, Any]:
    """Adjusted Rand index, and the share of rows whose cluster has the same members; with every candidate pair an
    edge, as in datatrove. Two draws of hash functions disagree about pairs near the threshold, so datatrove
    against itself under another seed shows what can be reached."""
    from tutelage.core.discovery import build

    file = part.write(work / "clusters.jsonl")
    data = dataset(part)
    method = build("data.dedup.near", {"min_jaccard": None})
    near = _near_labels(method, data)
    theirs = [_their_labels(file, part, seed) for seed in (1, 2)]
    return {
        "megabytes": round(part.megabytes, 2),
        "rows": len(part.rows),
        "rows_in_clusters": {"ours": _joined(near), "datatrove": _joined(theirs[0])},
        "ours_and_datatrove": agree(near, theirs[0]),
        "datatrove_and_itself_with_another_seed": agree(theirs[0], theirs[1]),
    }


def _near_labels(method: Any, data: Any) -> dict[str, str]:
    kept = method.apply(data, {})
    dropped = {row["id"]: row["reason"].removeprefix("near-duplicate of ") for row in kept.dropped.to_pylist()}
    return {identifier: dropped.get(identifier, identifier) for identifier in data.ids()}


def _their_labels(file: Path, part: Corpus, seed: int) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as out:
        peers.datatrove_minhash(file, Path(out), seed)
        clusters = peers.written(Path(out))[1] | peers.written(Path(out) / "removed")[1]
    return {i: f"cluster {clusters[i]}" if i in clusters else i for i, _ in part.rows}


def _joined(labels: Mapping[str, str]) -> int:
    return sum(len(group) for group in _groups(labels) if len(group) > 1)


def _groups(labels: Mapping[str, str]) -> Iterable[frozenset[str]]:
    members = defaultdict(set)
    for identifier, label in labels.items():
        members[label].add(identifier)
    return map(frozenset, members.values())


def agree(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, float]:
    from sklearn.metrics import adjusted_rand_score

    ids = list(one)
    first = {identifier: group for group in _groups(one) for identifier in group}
    second = {identifier: group for group in _groups(other) for identifier in group}
    return {
        "adjusted_rand_index": round(
            float(adjusted_rand_score([one[i] for i in ids], [other[i] for i in ids])), 4
        ),
        "rows_with_equal_cluster": round(sum(first[i] == second[i] for i in ids) / len(ids), 4),
        "rows_with_equal_fate": round(sum((len(first[i]) > 1) == (len(second[i]) > 1) for i in ids) / len(ids), 4),
    }


def _planted(whole: Corpus, work: Path, n: int) -> dict[str, Any]:
    folder = work / "documents"
    folder.mkdir(exist_ok=True)
    file, items = whole.write(folder / "corpus.jsonl"), write(folder / "items.jsonl", whole.items)
    ours = contaminated(file, items, n)
    found = {
        "planted": len(whole.planted),
        "found_by_ours": len(whole.planted & ours),
        "rows_marked_by_ours": len(ours),
    }
    if peers.installed("dolma"):
        dolma = peers.Dolma(n)
        dolma.run(work)
        dolma.worker.process.communicate()
        theirs = peers.dolma_marked(work)
        found |= {"found_by_dolma": len(whole.planted & theirs), "rows_marked_by_dolma": len(theirs)}
    return found
