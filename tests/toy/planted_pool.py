"""A text pool with hidden truth: every row says in `kind` what it was made as. Deterministic, no download.

Kinds: `prose` from a second-order Markov chain (60 words, 3 successors per two-word context); `target`, the same
chain over other words with planted facts; `template` with two free slots; `random` words drawn uniformly;
`exact` copies and `near` copies (2 % of the words replaced) of prose; `leak`, held-out target items repeated word
for word; `pair`, question and answer of which a share has its answer swapped with another row.

The language is fixed by `LANGUAGE_SEED`; `seed` only draws texts from it, so pools of different seeds are disjoint
draws from one distribution and a model fitted on one may score another.
"""

import itertools
import random
from typing import Any

LANGUAGE_SEED = 20_240_101
DEFAULT_SHARES = {
    "prose": 0.35,
    "target": 0.15,
    "template": 0.15,
    "random": 0.10,
    "exact": 0.05,
    "near": 0.05,
    "leak": 0.05,
    "pair": 0.10,
}
WORDS_PER_TEXT = 100
N_FACTS = 20
_SYLLABLES = [a + b for a in "bdfgklmnprst" for b in "aeiou"]


def _vocabulary(prefix: str) -> list[str]:
    """60 words; prose and target words differ, so the domains share no vocabulary."""
    return [f"{prefix}{a}" for a in _SYLLABLES[:60]]


PROSE_WORDS = _vocabulary("o")
TARGET_WORDS = _vocabulary("u")


def _chain() -> dict[tuple[int, int], list[int]]:
    rng = random.Random(LANGUAGE_SEED)
    return {context: rng.sample(range(60), 3) for context in itertools.product(range(60), repeat=2)}


_CHAIN = _chain()


def _walk(rng: random.Random, words: list[str], length: int) -> list[str]:
    a, b = rng.randrange(60), rng.randrange(60)
    out = [a, b]
    while len(out) < length:
        a, b = b, rng.choice(_CHAIN[a, b])
        out.append(b)
    return [words[i] for i in out[:length]]


def facts() -> list[tuple[str, str]]:
    """The planted facts of the target domain: (question, answer), always the same."""
    rng = random.Random(LANGUAGE_SEED + 1)
    names = rng.sample(TARGET_WORDS, N_FACTS)
    return [(f"colour of {name}", rng.choice(["red", "green", "blue", "white", "black"])) for name in names]


def _prose(rng: random.Random) -> str:
    return " ".join(_walk(rng, PROSE_WORDS, WORDS_PER_TEXT))


def _target(rng: random.Random) -> str:
    words = _walk(rng, TARGET_WORDS, WORDS_PER_TEXT - 8)
    for question, answer in rng.sample(facts(), 2):
        at = rng.randrange(len(words))
        words[at:at] = [*question.split(), answer]
    return " ".join(words[:WORDS_PER_TEXT])


def _template(rng: random.Random) -> str:
    first, second = rng.choice(PROSE_WORDS), rng.choice(PROSE_WORDS)
    sentence = f"click here to buy {first} now and get {second} for free today only".split()
    return " ".join((sentence * (WORDS_PER_TEXT // len(sentence) + 1))[:WORDS_PER_TEXT])


def _random(rng: random.Random) -> str:
    return " ".join(rng.choices(PROSE_WORDS, k=WORDS_PER_TEXT))


def near_copy(text: str, rng: random.Random, share: float = 0.02) -> str:
    """The text with a share of its words (at least one) replaced by random ones."""
    words = text.split()
    for at in rng.sample(range(len(words)), max(1, round(share * len(words)))):
        words[at] = rng.choice([w for w in PROSE_WORDS if w != words[at]])
    return " ".join(words)


def make_evaluation(n: int = 20, seed: int = 0) -> list[dict[str, Any]]:
    """Held-out target texts; rows of kind `leak` repeat some of these. Its own random stream: never in a pool."""
    rng = random.Random(f"evaluation-{seed}")
    return [{"id": f"eval-{seed}-{i}", "text": _target(rng), "kind": "evaluation"} for i in range(n)]


def make_pool(
    n: int, seed: int = 0, shares: dict[str, float] | None = None, swapped: float = 0.2
) -> list[dict[str, Any]]:
    """`n` rows in random order: id, text, kind, source, and by kind copy_of, leak_of, prompt, completion.

    `source` is the id of the row a text was made from (its own id otherwise). Pairs carry `swapped` (bool): a
    share `swapped` of them has another pair's answer. All rows have all columns, None where not applicable.
    """
    wanted = DEFAULT_SHARES if shares is None else shares
    total = sum(wanted.values())
    counts = {kind: int(n * share / total) for kind, share in wanted.items()}
    counts[max(counts, key=lambda kind: counts[kind])] += n - sum(counts.values())
    rng = random.Random(f"pool-{seed}")
    evaluation = make_evaluation(seed=seed)
    rows: list[dict[str, Any]] = []

    def add(kind: str, text: str, **more: Any) -> None:
        row = {"id": f"{kind}-{seed}-{len(rows)}", "text": text, "kind": kind, "copy_of": None, "leak_of": None}
        row |= {"prompt": None, "completion": None, "swapped": None} | more
        row["source"] = row["copy_of"] or row["leak_of"] or row["id"]
        rows.append(row)

    makers = {"prose": _prose, "target": _target, "template": _template, "random": _random}
    for kind, make in makers.items():
        for _ in range(counts.get(kind, 0)):
            add(kind, make(rng))
    originals = [row for row in rows if row["kind"] == "prose"]
    for kind in ("exact", "near"):
        if counts.get(kind) and not originals:
            raise ValueError("copies need prose to copy from")
        for _ in range(counts.get(kind, 0)):
            original = rng.choice(originals)
            text = original["text"] if kind == "exact" else near_copy(original["text"], rng)
            add(kind, text, copy_of=original["id"])
    for _ in range(counts.get("leak", 0)):
        item = rng.choice(evaluation)
        add("leak", item["text"], leak_of=item["id"])
    _add_pairs(counts.get("pair", 0), swapped, rng, add)
    rng.shuffle(rows)
    return rows


def _add_pairs(n: int, swapped: float, rng: random.Random, add: Any) -> None:
    asked = [rng.choice(facts()) for _ in range(n)]
    wrong = set(rng.sample(range(n), round(swapped * n)))
    for i, (question, answer) in enumerate(asked):
        if i in wrong:
            # Another pair's answer, and never by chance the right one.
            answer = rng.choice([other for _, other in facts() if other != answer])
        add("pair", f"{question} {answer}", prompt=question, completion=answer, swapped=i in wrong)
