"""What is measured of sets of labels: F1 of a row, of all decisions together (micro) and of each label (macro)."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tutelage.core.records import Result
    from tutelage.evaluation._shared import Measurement


def f1(both: np.ndarray, either: np.ndarray) -> np.ndarray:
    """2 `both` / `either`, `either` = said + held; 1 where nothing was said and nothing held."""
    return np.where(either > 0, 2 * both / np.maximum(either, 1), 1.0)


def label_sets_of(work: "Measurement", model: Any, held: np.ndarray, probs: np.ndarray) -> "Result":
    """The `Result` of probabilities [n, K] for the rows of `work` that have the labels `held` (bool [n, K]): mean
    F1 of the rows, and in `extra` micro F1, macro F1 over the labels that were said or held, and the share of rows
    whose whole set is right."""
    said = probs > 0.5
    both, either = said & held, said.astype(int) + held
    scores = f1(both.sum(axis=1), either.sum(axis=1))
    names = np.array(model.labels.names)
    for row, score, mine, truth in zip(work.rows, scores, said, held):
        work.add(row, score=float(score), prediction="|".join(names[mine]), target="|".join(names[truth]))
    known = either.any(axis=0)
    per_label = f1(both.sum(axis=0), either.sum(axis=0))[known]
    extra = {
        "micro_f1": float(f1(both.sum(), either.sum())),
        "macro_f1": float(per_label.mean()) if known.any() else float("nan"),
        "all_right": float((said == held).all(axis=1).mean()),
    }
    return work.result("f1_of_rows", direction=1, extra=extra)
