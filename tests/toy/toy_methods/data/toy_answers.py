"""A step that waits for a person: it goes on when the file with the answers is there; for tests only."""

from pathlib import Path

import numpy as np

from tutelage.core.errors import WaitingForPerson
from tutelage.core.method import Inputs, Transform

CARD = {
    "name": "data.toy_answers",
    "paper": {"title": "Common practice"},
    "summary": "Waits for a file.",
    "cost": "a person",
    "baseline": None,
    "headline": "none",
    "version": 1,
}


class ToyAnswers(Transform):
    """`file` holds the answers."""

    file: str = ""

    def apply(self, dataset, inputs: Inputs):
        if not Path(self.file).exists():
            raise WaitingForPerson("answers are missing", where=self.file, remedy="write the file")
        return dataset.keep(np.ones(dataset.num_rows, dtype=bool), "")
