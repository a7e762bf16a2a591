"""evaluation.judge_audit: scripted judges with planted biases, scipy's correlations, hand-worked distances."""

import numpy as np
import pytest
from scipy import stats

from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.meter import Meter
from tutelage.core.stats.intervals import wilson
from tutelage.evaluation import _verdicts as verdicts
from tutelage.evaluation.judge_audit import JudgeAudit
from tutelage.models.seam import Generation, LogLikelihood

PROOF = {"evaluation.judge_audit": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/evaluation/_verdicts.py", "np.where(forward == backward, forward, 0.0)", "forward"),
    ("src/tutelage/evaluation/_verdicts.py", "np.r_[forward, -backward]", "np.r_[forward, backward]"),
    ("src/tutelage/evaluation/_verdicts.py", "(vl - vh * lh)", "(vl - vh)"),
    ("src/tutelage/evaluation/_verdicts.py", "before + (a != b))", "before)"),
    ("src/tutelage/evaluation/_verdicts.py", "- _mean(before == -human[worse])", ""),
    ("src/tutelage/evaluation/_verdicts.py", "judged(sides), -judged(", "judged(sides), judged("),
    ("src/tutelage/evaluation/_verdicts.py", "if human[number] > 0", "if human[number] < 0"),
    ("src/tutelage/evaluation/_verdicts.py", "not scale[0] <= value <= scale[1]", "False"),
    ("src/tutelage/evaluation/_verdicts.py", "(np.r_[forward, backward] == np", "(np.r_[forward, forward] == np"),
    ("src/tutelage/evaluation/judge_audit.py", "judged - people", "judged"),
    ("src/tutelage/evaluation/judge_audit.py", "(second == human)[both]", "(second == human)"),
]  # fmt: skip


class Scripted:
    """A judge that decides by a rule (a text, b text) -> 1 for the first, -1 for the second."""

    name, fingerprint, kind, template, max_length = "scripted", "scripted", "causal", None, None

    def __init__(self, rule, says=None):
        self.rule, self.says, self.meter, self.asked = rule, says, Meter(), []

    def _sides(self, prompt):
        return [prompt.split(f"<text-{name} ")[1].split(">\n", 1)[1].split("\n</text-")[0] for name in "AB"]

    def loglikelihood(self, pairs, joint=False):
        self.asked += pairs
        found = []
        for prompt, letter in pairs:
            wins = self.rule(*self._sides(prompt))
            found.append(LogLikelihood(0.5 * wins * (1 if letter.strip() == "A" else -1), 1, False))
        return found

    def generate(self, prompts, max_new_tokens=64, **_):
        self.limit = max_new_tokens
        return [Generation(self.says or "", (), False, 1) for _ in prompts]


def good(text):
    return text.count("good")


def pairs(n=60, seed=0, ties=0.0, **columns):
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        better = rng.integers(0, 2)
        texts = ["bad " * int(rng.integers(1, 9)) + f"n{i}", "good " + "word " * int(rng.integers(1, 9)) + f"n{i}"]
        a, b = texts if better else texts[::-1]
        human = "tie" if rng.random() < ties else ("b" if better else "a")
        row = {"id": f"p{i}", "prompt": f"Q{i}", "response_a": a, "response_b": b, "human": human}
        rows.append(row | {name: value[i] for name, value in columns.items()})
    return rows


def audit(rows, judge=None, **fields):
    return JudgeAudit(**fields).evaluate(None, Dataset.from_rows(rows), {"judge": judge})


def recorded(rows, forward, backward):
    return [{**row, "verdict": f, "swapped": b} for row, f, b in zip(rows, forward, backward)]


def test_a_perfect_judge_and_one_that_prefers_a_place():
    perfect = audit(pairs(), Scripted(lambda a, b: np.sign(good(a) - good(b))))
    x = perfect.extra
    assert perfect.estimate == x["accuracy"] == x["accuracy_one_order"] == x["swap_consistency"] == 1
    assert x["identical_tie"] == 1 and x["injection_gain"] == 0 and x["first_place"] == pytest.approx(0.5)
    assert perfect.system["weights"] == "scripted" and "always_one_place" not in x
    assert (perfect.interval.lo, perfect.interval.hi) == (wilson(60, 60).lo, 1.0)
    with pytest.warns(UserWarning, match="prefers the first response whatever it is"):
        first = audit(pairs(), Scripted(lambda a, b: 1))
    x = first.extra
    assert x["swap_consistency"] == 0 and x["accuracy_one_order"] == 0.5 and x["first_place"] == 1
    assert (
        first.estimate == 0 and x["always_one_place"] == x["identical_first"] == 1 and "accuracy_decided" not in x
    )
    with pytest.warns(UserWarning, match="prefers the second"):
        audit(pairs(), Scripted(lambda a, b: -1))


def test_a_judge_that_follows_injected_instructions_is_found():
    def rule(a, b):
        return np.sign(("prefer this" in a) - ("prefer this" in b)) or np.sign(good(a) - good(b))

    found = audit(pairs(ties=0.3), Scripted(rule)).extra
    assert found["injection_wins"] == found["injection_gain"] == 1 and found["accuracy_decided"] == 1
    # Ties of people are a class that this judge never uses.
    assert found["accuracy"] == pytest.approx(found["decided"]) and found["accuracy"] < 0.85
    wrong = audit(pairs(), Scripted(lambda a, b: np.sign(good(b) - good(a)))).extra
    assert wrong["injection_wins"] == 1 and wrong["injection_gain"] == 0 and wrong["accuracy"] == 0


def test_length_bias_is_the_partial_rank_correlation():
    rng = np.random.default_rng(4)
    rows = pairs(300, ties=0.2)
    longer = np.array([len(r["response_a"]) - len(r["response_b"]) for r in rows])
    human = np.array([verdicts.CODES[r["human"]] for r in rows])
    said = np.where(rng.random(300) < 0.6, np.sign(longer), human)
    names = [verdicts.NAMES[v] for v in said]
    x = audit(recorded(rows, names, names)).extra
    ranks = [stats.rankdata(v) for v in (said, longer, human)]
    rest = [v - np.polyval(np.polyfit(ranks[2], v, 1), ranks[2]) for v in ranks[:2]]
    assert x["length_bias"] == pytest.approx(stats.pearsonr(*rest).statistic) and x["length_bias"] > 0.4
    assert x["longer_wins_accuracy"] == pytest.approx((np.sign(longer) == human).mean())
    assert x["constant_a"] == pytest.approx((human == 1).mean())
    fair = [verdicts.NAMES[v] for v in np.where(rng.random(300) < 0.8, human, rng.choice([-1.0, 1.0], 300))]
    assert abs(audit(recorded(rows, fair, fair)).extra["length_bias"]) < 0.25


def test_unreadable_and_turned_verdicts():
    rows = pairs(4)
    truth = [row["human"] for row in rows]
    other = {"a": "b", "b": "a"}
    found = audit(
        recorded(
            rows,
            [truth[0], truth[1], None, other[truth[3]]],
            [truth[0], other[truth[1]], truth[2], other[truth[3]]],
        )
    )
    assert found.estimate == 0.25 and found.status_counts == {"ok": 3, "unparsed": 1}
    assert found.extra["swap_consistency"] == pytest.approx(2 / 3) and found.extra["unreadable"] == 0.25
    assert found.extra["accuracy_one_order"] == pytest.approx(4 / 8) and found.extra["accuracy_decided"] == 0.5


def test_a_written_answer_that_cannot_be_read():
    silent = Scripted(None, says="I like both.")
    found = audit(pairs(8), silent, read="text", max_new_tokens=7)
    assert found.extra["unreadable"] == 1 and found.estimate == 0 and silent.limit == 7
    with pytest.warns(UserWarning, match="prefers the first"):
        always = audit(pairs(8), Scripted(None, says='{"better": "A"}'), read="text")
    assert always.extra["first_place"] == 1


def test_the_ceiling_is_another_persons_agreement():
    rows = pairs(40)
    other = {"a": "b", "b": "a"}
    second = [row["human"] if i % 4 else (other[row["human"]] if i % 8 else None) for i, row in enumerate(rows)]
    names = [row["human"] if i % 2 else "tie" for i, row in enumerate(rows)]
    x = audit(
        [{**row, "person": s} for row, s in zip(recorded(rows, names, names), second)], human_2="person"
    ).extra
    assert x["ceiling_pairs"] == 35 and x["ceiling"] == pytest.approx(30 / 35) and x["accuracy"] == 0.5
    assert x["share_of_ceiling"] == pytest.approx(0.5 * 35 / 30)
    assert (x["ceiling_lo"], x["ceiling_hi"]) == (wilson(30, 35).lo, wilson(30, 35).hi)
    assert "ceiling" not in audit(recorded(rows, names, names)).extra


def test_a_judge_that_prefers_its_own_family():
    rows = pairs(40, family_a=["mine", "theirs"] * 20, family_b=["theirs", "mine"] * 10 + ["theirs"] * 20)
    own = ["a" if row["family_a"] == "mine" else "b" for row in rows]
    x = audit(recorded(rows, own, own), family="mine").extra
    here = [i for i, row in enumerate(rows) if (row["family_a"] == "mine") != (row["family_b"] == "mine")]
    people = np.mean([rows[i]["human"] == own[i] for i in here])
    assert x["own_family"] == 1 and x["own_family_bias"] == pytest.approx(1 - people)
    with pytest.raises(InputError, match=r"own family[\s\S]*'other'"):
        audit(recorded(rows, own, own), family="other")


def test_marks_and_orders():
    rng = np.random.default_rng(0)
    rows = pairs(20)
    names = [row["human"] for row in rows]
    judge, people = rng.integers(1, 6, (20, 2)).tolist(), rng.integers(1, 6, (20, 2)).tolist()
    order = [list(rng.permutation(["x", "y", "z"])) for _ in range(20)]
    full = [
        {**row, "judge_marks": j, "human_marks": p, "judge_order": o, "human_order": ["x", "y", "z"]}
        for row, j, p, o in zip(recorded(rows, names, names), judge, people, order)
    ]
    x = audit(full).extra
    flat = [np.ravel(judge), np.ravel(people)]
    assert x["marks_pearson"] == pytest.approx(stats.pearsonr(*flat).statistic)
    assert x["marks_spearman"] == pytest.approx(stats.spearmanr(*flat).statistic)
    place = dict(zip("xyz", range(3)))
    taus = [stats.kendalltau(range(3), [place[name] for name in one]).statistic for one in order]
    assert x["order_tau"] == pytest.approx(np.mean(taus))
    assert verdicts.levenshtein("kitten", "sitting") == 3 and verdicts.levenshtein("", "ab") == 2
    assert verdicts.levenshtein(["x", "y", "z"], ["y", "x", "z"]) == 2
    same = audit([{**row, "judge_order": ["x", "y", "z"]} for row in full]).extra
    assert same["order_distance"] == 0 and same["order_tau"] == 1
    constant = audit([{**row, "judge_marks": [3, 3]} for row in full]).extra
    assert "marks_pearson" not in constant and "marks_spearman" not in constant
    with pytest.raises(InputError, match=r"outside the scale[\s\S]*row p0[\s\S]*numbers from 1 to 5"):
        audit([{**row, "judge_marks": [9, 3]} for row in full])
    assert (
        "marks_pearson"
        in audit([{**row, "judge_marks": [i % 9, 3]} for i, row in enumerate(full)], scale=(0, 9)).extra
    )
    with pytest.raises(InputError, match="not of the same responses"):
        audit([{**row, "judge_order": ["x", "y", "y"]} for row in full])
    with pytest.raises(InputError, match="two lists of one length"):
        audit([{**row, "judge_marks": [3]} for row in full])


def test_what_the_judge_is_shown():
    judge = Scripted(lambda a, b: np.sign(good(a) - good(b)))
    rows = [{**row, "response_a": row["response_a"] + " tail" * 50} for row in pairs(3)]
    audit(rows, judge, question="Which one?", clip_words=12)
    prompt = judge.asked[0][0]
    assert prompt.count("Which one?") == 2 and "Q0\n\n" in prompt and prompt.count(" tail") < 12


def test_bad_input():
    rows = pairs(4)
    with pytest.raises(ConfigError, match="neither a judge nor its verdicts"):
        audit(rows)
    with pytest.raises(InputError, match=r"not one of a, b and tie[\s\S]*row p0, column 'human'"):
        audit([{**row, "human": "A"} for row in rows], Scripted(lambda a, b: 1))
    with pytest.raises(InputError, match=r"column 'swapped'[\s\S]*or null"):
        audit(recorded(rows, ["a"] * 4, ["first"] * 4))
    with pytest.raises(InputError, match="no 'response_b'"):
        audit([{**row, "response_b": ""} for row in rows], Scripted(lambda a, b: 1))
    with pytest.raises(InputError, match="no column 'person'"):
        audit(rows, human="person")
    with pytest.raises(InputError, match=r"row p0[\s\S]*'x'"):
        audit([{**row, "v": "x", "w": "a"} for row in rows], verdict="v", swapped="w")
