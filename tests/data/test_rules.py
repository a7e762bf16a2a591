"""data.filter.rules: thresholds, reasons, profiles."""

import pytest

from tutelage.core.apply import apply_transform, score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.data.filter._profiles import PROFILES
from tutelage.data.filter.rules import Rules

PROOF = {"data.filter.rules": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/data/filter/rules.py", "np.flatnonzero(mask & ~inside)", "np.flatnonzero(~inside)"),
    (
        "src/tutelage/data/filter/_profiles.py",
        '"rule_short_lines": (None, 0.67)',
        '"rule_short_lines": (None, 0.76)',
    ),
    ("src/tutelage/data/filter/rules.py", "inside = (values >=", "inside = (values >"),
]
ROWS = [
    {"id": "a", "x": 1.0, "y": 5},
    {"id": "b", "x": 2.0, "y": 5},
    {"id": "c", "x": 3.0, "y": 9},
    {"id": "d", "x": float("nan"), "y": 5},
    {"id": "e", "x": 0.0, "y": 9},
]


def kept(rows, **fields):
    return apply_transform(Rules(**fields), Dataset.from_rows(rows), {})


def test_bounds_are_inclusive_and_the_first_failing_rule_is_the_reason():
    got = kept(ROWS, profile="none", keep={"x": {"min": 2}, "y": {"max": 5}})
    assert got.ids() == ["b"]
    assert dict(zip(*got.dropped.to_pydict().values())) == {
        "a": "x is 1, wanted at least 2",
        "c": "y is 9, wanted at most 5",
        "d": "x is missing, wanted at least 2",
        "e": "x is 0, wanted at least 2",
    }
    assert got.report["rows_failing_each_rule"] == {"x": 3, "y": 2}


@pytest.mark.parametrize("profile", ["gopher", "c4", "mc4", "fineweb", "code"])
def test_every_threshold_just_inside_and_just_outside(profile):
    rules = PROFILES[profile]
    good = {c: float(low if low is not None else high) for c, (low, high) in rules.items()}
    rows, expected = [{"id": "good", **good}], {}
    for column, (low, high) in rules.items():
        for side, bound, step in (("low", low, -1e-3), ("high", high, 1e-3)):
            if bound is not None:
                rows.append({"id": f"{column}-{side}-in", **good, column: float(bound)})
                rows.append({"id": f"{column}-{side}-out", **good, column: bound + step})
                expected[f"{column}-{side}-out"] = column
    got = kept(rows, profile=profile)
    dropped = dict(zip(*got.dropped.to_pydict().values()))
    assert {i: reason.split()[0] for i, reason in dropped.items()} == expected


def test_published_thresholds():
    # The numbers of the published filters, written out a second time.
    gopher = PROFILES["gopher"]
    assert gopher["rule_words"] == (50, 100_000) and gopher["rule_mean_word"] == (3, 10)
    assert [gopher[f"rule_top_{n}gram"][1] for n in (2, 3, 4)] == [0.20, 0.18, 0.16]
    assert [gopher[f"rule_repeated_{n}grams"][1] for n in range(5, 11)] == [0.15, 0.14, 0.13, 0.12, 0.11, 0.10]
    assert gopher["rule_bullet_lines"][1] == 0.9 and gopher["rule_ellipsis_lines"][1] == 0.3
    assert gopher["rule_alpha_words"] == (0.8, None) and gopher["rule_stop_words"] == (2, None)
    assert [gopher[f"rule_duplicate_{n}"][1] for n in ("lines", "paragraphs")] == [0.3, 0.3]
    assert gopher["rule_hashes_per_word"] == gopher["rule_ellipses_per_word"] == (None, 0.1)
    fineweb = [0.12, 0.67, 0.01, 0.3]
    assert [low if low is not None else high for low, high in PROFILES["fineweb"].values()] == fineweb
    assert PROFILES["code"]["rule_alphanumeric"] == (0.25, None)
    assert PROFILES["mc4"] == {"rule_long_lines": (3, None)}


def test_profile_over_real_columns_and_own_bounds_replace_those_of_the_profile():
    from tutelage.core import discovery

    prose = "The house that we have is at the end of the road and it is to be sold with the garden. " * 1
    rows = [
        {"id": "prose", "text": "\n".join(prose + str(i) for i in range(9))},
        {"id": "short", "text": "the of"},
    ]
    scored = score_dataset(discovery.build("signals.heuristic_rules"), Dataset.from_rows(rows), {})
    loose = {f"rule_{n}": {"max": 1} for n in ("top_2gram", "top_3gram", "top_4gram")}
    loose |= {f"rule_repeated_{n}grams": {"max": 1} for n in range(5, 11)}
    assert Rules(keep=loose).apply(scored, {}).ids() == ["prose"]
    assert "prose" not in Rules().apply(scored, {}).ids()


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"profile": "gofer"}, ConfigError, "gopher"),
        ({"profile": "none"}, ConfigError, "no rule"),
        ({"profile": "none", "keep": {"z": {"min": 1}}}, InputError, "no column 'z'"),
        ({"profile": "code"}, InputError, "heuristic_rules first"),
        ({"keep": {"x": {}}}, ConfigError, "min, max or both"),
        ({"keep": {"x": {"min": 2, "max": 1}}}, ConfigError, "larger than max"),
        ({"keep": {"x": {"minimum": 2}}}, ConfigError, "minimum"),
    ],
)
def test_bad_input(fields, error, message):
    with pytest.raises(error, match=message):
        kept(ROWS, **fields)
