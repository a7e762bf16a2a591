"""`--limit` makes budgets small, and never too small to hold a document."""

import pytest

from tutelage.core.dataset import Dataset
from tutelage.runs.limit import first_rows, limited


@pytest.mark.parametrize(
    ("rows", "written", "found"),
    [(3, 50_000, 1024), (100, 50_000, 6400), (3, 600, 600), (100, 5000, 5000)],
)
def test_tokens_of_a_small_budget(bed, rows, written, found):
    recipe = bed.recipe(
        steps=[
            {
                "name": "trained",
                "use": "training.toy_fit",
                "model": "base",
                "from": "pool",
                "budget": {"tokens": written},
            }
        ]
    )
    assert limited(recipe, rows).steps[0].fields["budget"] == {"tokens": found}


def test_a_budget_that_a_loop_fills_is_left_to_the_loop(bed):
    step = {
        "name": "grown",
        "use": "training.toy_fit",
        "foreach": {"over": [100, 200], "as": "n"},
        "model": "base",
        "from": "pool",
        "budget": {"tokens": "$n"},
    }
    assert limited(bed.recipe(steps=[step]), 3).steps[0].fields["budget"] == {"tokens": "$n"}


def test_the_first_rows_keep_the_report_of_how_they_were_made():
    planted = Dataset.from_rows(({"id": str(n), "text": "x"} for n in range(9)), {"canaries": [1]})
    assert first_rows(planted, 4).report["canaries"] == [1]
    assert first_rows(planted, 4).ids() == ["0", "1", "2", "3"]
