"""The section on forecasts: what is shown, the back-test beside it, tables that a forecaster brought, escaping."""

import json

import numpy as np

from tutelage.core.dataset import Dataset
from tutelage.forecasting.learning_curve import LearningCurve
from tutelage.report.forecasts import forecast_notes, forecast_plots, forecast_tables
from tutelage.report.render import View, render

SIZES = 100 * 2.0 ** np.arange(9)


def run_of(y, arm=None, tables=()):
    data = Dataset.from_rows(
        {"id": f"p{i}", "x": float(a), "y": float(b)} for i, (a, b) in enumerate(zip(SIZES, y))
    )
    method = LearningCurve()
    result = json.loads(method.predict(method.fit(data, {}), 51200).model_dump_json())
    result["system"]["tables"] = list(tables)
    measured = {"step": "held", "arm": None, "result": {"system": {"name": "m"}}}
    return {"results": [measured, {"step": "later", "arm": arm, "result": result}]}


def test_the_page_shows_the_forecast_and_its_back_test():
    run = run_of(0.92 - 1.4 * SIZES**-0.45 + 0.002 * np.random.default_rng(0).normal(size=9), arm="ours")
    (note,) = forecast_notes(run)
    assert note.startswith("later [ours]: y at 51200 x (2 times): 0.9") and "held-out points" in note
    (table,) = forecast_tables(run)
    assert [row[:2] for row in table.rows] == [["later [ours]", "51200 x (2 times)"], *[["", ""]] * 3]
    assert table.rows[0][3] == "skill" and [row[5][:2] for row in table.rows] == ["2 ", "4 ", "8 ", "16"]
    assert all(len(row) == len(table.heads) for row in table.rows)
    ((heading, chart, _),) = forecast_plots(run)
    assert heading == "later [ours]: y" and chart.count("<polyline") == 2
    page = render(
        View("t", "s", "h", forecasts=[note], forecast_tables=[table], forecast_plots=forecast_plots(run))
    )
    assert '<h2 id="forecasts">Forecasts</h2>' in page and "no skill" not in page
    assert "Forecasts" not in render(View("t", "s", "h"))


def test_a_forecast_without_skill_says_so_and_tables_are_kept():
    steep = [0.3, 0.3, 0.301, 0.301, 0.302, 0.35, 0.45, 0.6, 0.8]
    run = run_of(steep, tables=[{"caption": "rules", "heads": ["rule"], "rows": [["<b>last</b>"]]}])
    table, brought = forecast_tables(run)
    assert table.rows[0][2:4] == ["0.8", "no skill"] and "no skill, last value 0.8 shown" in forecast_notes(run)[0]
    assert brought.caption == "later: rules"
    page = render(View("t", "s", "h", forecasts=forecast_notes(run), forecast_tables=[table, brought]))
    assert "&lt;b&gt;last" in page and "<b>last" not in page


def test_results_that_are_no_forecasts_have_no_section():
    run = {"results": [{"step": "held", "arm": None, "result": {"system": {"name": "m"}}}]}
    assert (forecast_notes(run), forecast_tables(run), forecast_plots(run)) == ([], [], [])
