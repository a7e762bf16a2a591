"""What a dataset was made by: the steps behind it, each with its counts, its cost and its rows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tutelage.core.records import Cost

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset


@dataclass(frozen=True)
class Stage:
    """One step or source that made rows. `rows_in` counts what came in (of a source: what was read, quarantined
    rows included); `parents` are the keys of the stages it read; `load` gives its dataset."""

    key: str
    name: str
    method: str
    rows_in: int
    quarantined: int
    cost: Cost
    parents: tuple[str, ...]
    load: "Callable[[], Dataset]"
