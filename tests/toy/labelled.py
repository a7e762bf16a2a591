"""Labelled toy texts: two or three kinds of words, some of them shared."""

import numpy as np

from tutelage.core.dataset import Dataset

KINDS = {
    "animals": "cat dog horse mouse bird fish lion wolf".split(),
    "tools": "hammer saw drill nail screw wrench plane file".split(),
    "food": "bread soup apple cheese rice bean salt honey".split(),
}
SHARED = "the a of one near some and with old new".split()
STEMS = {"bird": "jay owl wren finch", "fruit": "apple pear plum grape", "metal": "iron zinc tin lead"}


def labelled(per_class, kinds=("animals", "tools"), seed=0, noise=0.5, **columns):
    """`per_class` rows of each kind in turns; `noise` is the share of words that all kinds share."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(per_class * len(kinds)):
        kind = kinds[number % len(kinds)]
        words = [rng.choice(SHARED if rng.random() < noise else KINDS[kind]) for _ in range(12)]
        rows.append({"id": f"{seed}-{number:03d}", "text": " ".join(words), "label": kind, **columns})
    return Dataset.from_rows(rows)


def short_texts():
    """16 rows of three words for each of three kinds, every pair of a kind's four words once."""
    return [
        {"id": f"{name}{i}", "text": f"{words.split()[i % 4]} then {words.split()[i // 4]}", "label": name}
        for name, words in STEMS.items()
        for i in range(16)
    ]
