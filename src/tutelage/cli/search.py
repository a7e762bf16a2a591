"""`tutelage search`: what a corpus says about some words, the best passages first, by BM25."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli._options import AsJson, Workspace
from tutelage.cli._output import note, plain, print_json
from tutelage.cli.inspect import open_data
from tutelage.core.errors import InputError, StoreError

if TYPE_CHECKING:
    import numpy as np

    from tutelage.core.dataset import Dataset

SNIPPET = 240  # bytes shown around the words that were found


def search_command(
    query: Annotated[str, typer.Argument(help="Words to look for; word order and case do not matter.")],
    corpus: Annotated[str, typer.Option(help="A file or folder, or the name of a step of a run.")],
    k: Annotated[int, typer.Option("-k", help="How many passages at most.", min=1)] = 5,
    passage_words: Annotated[int, typer.Option(help="Words of a passage.", min=1)] = 120,
    save: Annotated[Path | None, typer.Option(help="Write the passages as a dataset to this new folder.")] = None,
    run_id: Annotated[str, typer.Option("--run", help="The run a step belongs to.")] = "latest",
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Show the passages of a corpus that hold rare words of the query most densely."""
    if save is not None and save.exists():
        raise StoreError("a dataset is never overwritten", where=save, remedy="choose a new folder")
    from tutelage.core.text.words import hash_words

    asked = hash_words([query]).hashes
    if not len(asked):
        raise InputError(
            "the query has no word",
            where="QUERY",
            expected="letters or digits",
            found=repr(query),
            remedy='give some words, as in tutelage search "warranty claims" --corpus docs/',
        )
    data = open_data(corpus, run_id, workspace)
    found = hits(data, asked, k, passage_words)
    if save is not None:
        save_hits(found, save)
    if as_json:
        print_json({"query": query, "rows": data.num_rows, "hits": found})
        return
    if not found:
        note(f"no passage of {data.num_rows} rows holds a word of the query")
    for rank, hit in enumerate(found, 1):
        _print(rank, hit, asked)


def hits(data: "Dataset", asked: "np.ndarray", k: int, passage_words: int) -> list[dict[str, Any]]:
    """The best passages for the hashed words `asked`: id, score, start and end in the row's text (code points),
    passage, snippet, and the row's numbers and truth values as `signals`."""
    import numpy as np

    from tutelage.signals.retrieved_passages import best_passages, bm25_scores, index_corpus, read_passages

    index = index_corpus(data, passage_words)
    scores = bm25_scores(index, asked, len(index["document"]))
    best = best_passages(scores, k)
    read = read_passages(data, index, best)
    documents = np.unique(index["document"][best])
    rows = dict(zip(documents.tolist(), data.take(documents).to_pylist()))
    found = []
    for passage in best.tolist():
        row = rows[int(index["document"][passage])]
        one = read[passage]
        found.append(
            {
                "id": one.id,
                "score": round(float(scores[passage]), 4),
                "start": one.start,
                "end": one.end,
                "snippet": "".join(text for text, _ in snippet(one.text, asked)),
                "passage": one.text,
                "signals": {name: value for name, value in row.items() if isinstance(value, bool | int | float)},
            }
        )
    return found


def snippet(text: str, asked: "np.ndarray") -> list[tuple[str, bool]]:
    """The stretch of a passage with the most different words of the query, as pieces (text, is a word of it)."""
    import numpy as np

    from tutelage.core.text.words import hash_words

    words = hash_words([text])
    places = np.flatnonzero(np.isin(words.hashes, asked))
    if not len(places):
        return [(text[:SNIPPET], False)]
    reach = np.searchsorted(words.starts[places], words.starts[places] + SNIPPET)
    variety = [len(set(words.hashes[places[i:end]].tolist())) for i, end in enumerate(reach)]
    first = int(np.argmax(variety))
    inside = places[first : reach[first]]
    # The words found stand in the middle of what is shown.
    spare = max(0, SNIPPET - int(words.ends[inside[-1]] - words.starts[inside[0]])) // 2
    begin = int(np.searchsorted(words.starts, words.starts[inside[0]] - spare))
    end = int(np.searchsorted(words.ends, words.ends[inside[-1]] + spare, side="right")) - 1
    pieces = [("… ", False)] if begin else []
    at = int(words.starts[begin]) if begin else 0
    for place in places[(places >= begin) & (places <= end)].tolist():
        pieces.append((_text(words.data, at, words.starts[place]), False))
        pieces.append((_text(words.data, words.starts[place], words.ends[place]), True))
        at = int(words.ends[place])
    last = int(words.ends[end]) if end + 1 < len(words.ends) else len(words.data)
    pieces.append((_text(words.data, at, last), False))
    return [*pieces, (" …", False)] if end + 1 < len(words.ends) else pieces


def _text(data: "np.ndarray", start: int, end: int) -> str:
    raw = bytes(data[int(start) : int(end)]).decode("utf-8", "replace")
    return "".join(" " if c in "\n\t\r" else c for c in raw)


def save_hits(found: Sequence[dict[str, Any]], folder: Path) -> None:
    """The hits as a dataset: a row per passage, with the id of the row it comes from in `source_id`."""
    from tutelage.core.dataset import Dataset

    rows = [
        {
            "id": f"{hit['id']}:{hit['start']}",
            "source_id": hit["id"],
            "text": hit["passage"],
            "start": hit["start"],
            "end": hit["end"],
            "score": hit["score"],
        }
        for hit in found
    ]
    Dataset.from_rows(rows, {"method": "search"}).save(folder)


def _print(rank: int, hit: dict[str, Any], asked: "np.ndarray") -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    head = f"{rank}. {hit['id']}  characters {hit['start']}-{hit['end']}  score {hit['score']:.2f}"
    console.print(plain(head), markup=False)
    line = Text("   ")
    for text, is_hit in snippet(hit["passage"], asked):
        line.append(plain(text), style="bold green" if is_hit else "")
    console.print(line)
