"""data.synthesise.reading_comprehension and question_answer: passages byte for byte, tasks that hold true."""

import json

import pytest

from toy.scripted_writer import ScriptedWriter
from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError
from tutelage.core.records import Budget
from tutelage.data.synthesise._tasks import Task, mine, parse_pair, refused
from tutelage.data.synthesise.question_answer import QuestionAnswer
from tutelage.data.synthesise.reading_comprehension import ReadingComprehension, draw, render

PROOF = {
    "data.synthesise.reading_comprehension": ["consistent"],
    "data.synthesise.question_answer": ["consistent"],
}
MUTATIONS = [
    (
        "src/tutelage/data/synthesise/reading_comprehension.py",
        '"passage_end": len(passage)',
        '"passage_end": len(passage) + 1',
    ),
    ("src/tutelage/data/synthesise/reading_comprehension.py", "kept = kept[: self.tasks]", "pass"),
    (
        "src/tutelage/data/synthesise/reading_comprehension.py",
        "permutation(list(bank))[:count]",
        "permutation(list(bank))[:1]",
    ),
    ("src/tutelage/data/synthesise/_tasks.py", "if extractive and not _within", "if False and not _within"),
    ("src/tutelage/data/synthesise/_tasks.py", 'match["how"] == "by"', "False"),
    ("src/tutelage/data/synthesise/_tasks.py", 'and match["how"] in _PREPOSITIONS', ""),
    ("src/tutelage/data/synthesise/_tasks.py", "SHARED_WORDS = 8", "SHARED_WORDS = 9"),
    ("src/tutelage/data/synthesise/_tasks.py", "words[0] not in _NO_SUBJECT", "True"),
    ("src/tutelage/data/synthesise/question_answer.py", "f\"{row['id']}/{n}\"", "f\"{row['id']}\""),
    ("src/tutelage/data/synthesise/question_answer.py", "if not kept:", "if False:"),
]
PASSAGE = (
    "The emblem of the Torwick Archive is a heron. It is old. The gate stays shut in winter because the lock "
    "freezes.\nThe tower was built of brick, but the roof is made of slate. However, the bridge never got a name."
)


def passages(*texts, **columns):
    return Dataset.from_rows(
        {"id": f"p{i}", "text": text, **{name: values[i] for name, values in columns.items()}}
        for i, text in enumerate(texts)
    )


def test_rules_find_definitions_reasons_contrasts_and_titles():
    assert mine(PASSAGE, "Torwick") == [
        Task("title", "What is a title for this text?", "Torwick"),
        Task("definition", "What is the emblem of the Torwick Archive?", "a heron"),
        Task("because", "Why is this so: The gate stays shut in winter?", "the lock freezes"),
        Task("contrast", "What stands against this: The tower was built of brick?", "the roof is made of slate"),
        Task(
            "contrast",
            "What stands against this: The tower was built of brick, but the roof is made of slate?",
            "the bridge never got a name",
        ),
    ]
    assert (
        mine("It is a bird. There was a time. On the flag there is a wolf.") == [] and mine("Nothing to see") == []
    )
    passage = "The tower is made of brick. Torwick was founded by Mara Lind. Torwick is best known for maps."
    assert [(task.question, task.answer) for task in mine(passage)] == [
        ("What is the tower made of?", "brick"),
        ("By whom or what was Torwick founded?", "Mara Lind"),
        ("What is Torwick best known for?", "maps"),
    ]
    assert mine("The boat was green and slow today") == mine("The door was opened and shut") == []


def test_without_a_writer_passages_come_back_byte_for_byte():
    texts = [f"  {PASSAGE}\n\n", "Nothing to ask about here", PASSAGE.replace("heron", "löwe")]
    data = passages(*texts, title=["A", None, None])
    found = apply_transform(ReadingComprehension(tasks=4), data, {})
    rows = list(found.rows())
    assert [row["text"][: row["passage_end"]] for row in rows] == texts and found.ids() == data.ids()
    assert [row["n_tasks"] for row in rows] == [4, 0, 3] and found.report["passages_with_tasks"] == 2
    assert rows[1]["text"] == texts[1] and rows[0]["text"].count("\nAnswer: ") == 4
    assert found.report["writer"] is None and "calls" not in found.report
    again = apply_transform(ReadingComprehension(tasks=4), data, {})
    other = apply_transform(ReadingComprehension(tasks=4, seed=1), data, {})
    assert again.hash == found.hash != other.hash
    assert sorted(rows[0]["task_kinds"]) == ["because", "contrast", "definition", "title"]
    few = apply_transform(ReadingComprehension(tasks=1), data, {})
    assert few.column("n_tasks").to_pylist() == [1, 0, 1]


def writer_of(answers):
    """A writer that answers by a word of the request."""

    def answer(prompt, seed):
        return next((text for word, text in answers.items() if word in prompt.split("material:")[1]), "")

    return ScriptedWriter(answer)


ANSWERS = {
    "Write one question that the document": "Question: What is on the emblem?\nAnswer: A HERON.",
    "answer follows": json.dumps({"question": "Is the lock frozen in winter?", "answer": "Yes, it freezes."}),
    "Sum up": "A gate, a tower and a bridge.",
    "in other words": "An archive with a bird on its flag.",
}


def test_a_writer_answers_tasks_drawn_from_the_bank():
    writer = writer_of(ANSWERS)
    found = apply_transform(ReadingComprehension(tasks=4), passages(PASSAGE), {"writer": writer})
    (row,) = found.rows()
    assert sorted(row["task_kinds"]) == ["infer", "paraphrase", "question_answer", "summarise"]
    assert row["text"].startswith(PASSAGE + "\n\nQuestion: ")
    for block in ("Question: What is on the emblem?\nAnswer: A HERON.", "Answer: Yes, it freezes."):
        assert block in row["text"]
    assert found.report["calls"] == 4 and found.report["accepted"] == 4
    kinds = [draw(("infer", "title", "explain"), 2, 0, f"p{i}") for i in range(40)]
    assert all(len(set(two)) == 2 for two in kinds) and len({tuple(sorted(two)) for two in kinds}) == 3


def test_answers_that_are_not_in_the_passage_and_questions_that_hold_their_answer_are_refused():
    long = "the gate stays shut in winter because the lock freezes"
    assert refused(Task("q", f"Is it true that {long}", long), PASSAGE, True) == "answer_in_question"
    eight = "the gate stays shut in winter because the"
    assert refused(Task("q", f"Why {eight} what", f"{eight}, they say"), PASSAGE, False) == "answer_in_question"
    seven = "the gate stays shut in winter because"
    assert refused(Task("q", f"Why {seven} what", f"{seven}, they say"), PASSAGE, False) == ""
    assert refused(Task("q", "Who?", "a wolf"), PASSAGE, True) == "not_in_passage"
    assert refused(Task("q", "Who?", "heron. It is"), PASSAGE, True) == ""
    assert refused(Task("q", "?", "a heron"), PASSAGE, True) == "unparsed"
    assert parse_pair('{"question": "Q", "answer": " A "}') == ("Q", "A") and parse_pair('{"question": 3}') is None
    assert parse_pair("Sure.\nQUESTION: Q?\n\nanswer: A\nmore") == ("Q?", "A") and parse_pair("A heron.") is None
    bad = {**ANSWERS, "Write one question that the document": "Question: Which animal?\nAnswer: a wolf"}
    settings = ReadingComprehension(tasks=1, bank=("question_answer",), temperature=0.5, max_new_tokens=9)
    found = apply_transform(settings, passages(PASSAGE), {"writer": writer_of(bad)})
    assert found.report["rejected"] == {"not_in_passage": 1} and found.column("text")[0].as_py() == PASSAGE


def test_equal_questions_and_protected_ones_are_asked_once_or_never():
    data = passages(PASSAGE, PASSAGE + " More.")
    settings = ReadingComprehension(tasks=2, bank=("question_answer", "infer"), rouge_l=0.8)
    same = {**ANSWERS, "answer follows": ANSWERS["Write one question that the document"]}
    found = apply_transform(settings, data, {"writer": writer_of(same)})
    assert found.column("n_tasks").to_pylist() == [1, 1] and found.report["rejected"] == {"near_duplicate": 2}
    protected = Dataset.from_rows([{"id": "t", "prompt": "Question: What is on the emblem?\nAnswer:"}])
    found = apply_transform(settings, data, {"writer": writer_of(same), "protected": protected})
    assert found.report["rejected"] == {"contaminated": 4}


def test_budgets_and_long_passages_leave_passages_as_they_are():
    data = passages(*[f"{PASSAGE} Number {i}." for i in range(40)])
    for fields, stopped in (({"max_calls": 7}, "calls"), ({"budget": Budget(tokens=20)}, "tokens")):
        found = apply_transform(ReadingComprehension(**fields), data, {"writer": writer_of(ANSWERS)})
        assert found.num_rows == 40 and found.report["stopped"] == stopped and found.report["calls"] < 80
        assert found.column("n_tasks").to_pylist()[-1] == 0
    short = ScriptedWriter(lambda prompt, seed: "x", max_length=50)
    found = apply_transform(ReadingComprehension(), passages(PASSAGE), {"writer": short})
    assert not short.asked and next(iter(found.report["rejected"])).startswith("too long for the writer")
    assert render("p", []) == "p"
    empty = apply_transform(ReadingComprehension(), passages(" ", PASSAGE), {})
    assert empty.ids() == ["p1"] and empty.dropped.column("reason").to_pylist() == ["no text"]
    with pytest.raises(ConfigError, match="bank"):
        ReadingComprehension(bank=("poem",))


def test_pairs_are_rows_of_their_own():
    writer = ScriptedWriter(
        lambda prompt, seed: f"Question: What of {seed}?\nAnswer: {'a heron' if seed % 2 else 'a wolf'}"
    )
    data = passages(PASSAGE, "", PASSAGE + " Again.", group=["g", "g", "h"])
    found = apply_transform(QuestionAnswer(pairs=6, rouge_l=1.0), data, {"writer": writer})
    rows = list(found.rows())
    assert len(set(writer.seeds)) == 12 and len(rows) == sum(seed % 2 for seed in writer.seeds)
    assert {row["completion"] for row in rows} == {"a heron"} and {row["label_source"] for row in rows} == {
        "synthetic"
    }
    assert {row["source_id"]: row["group"] for row in rows} == {"p0": "g", "p2": "h"}
    assert found.report["rejected"] == {"not_in_passage": 12 - len(rows)}
    reasons = dict(zip(found.dropped.column("id").to_pylist(), found.dropped.column("reason").to_pylist()))
    assert reasons == {"p1": "no text"}


def test_pairs_within_budgets_and_without_success():
    good = ScriptedWriter(lambda prompt, seed: f"Question: Is it {seed}?\nAnswer: a heron")
    data = passages(*[f"{PASSAGE} Number {i}." for i in range(5)])
    for fields, stopped in (
        ({"max_calls": 3}, "calls"),
        ({"budget": Budget(rows=3)}, "rows"),
        ({"budget": Budget(tokens=12)}, "tokens"),
    ):
        found = apply_transform(QuestionAnswer(rouge_l=1.0, **fields), data, {"writer": good})
        assert found.report["stopped"] == stopped and 2 <= found.num_rows <= 4
        assert set(found.dropped.column("reason").to_pylist()) == {f"the budget of {stopped} was spent"}
    bad = ScriptedWriter(lambda prompt, seed: "A poem instead", max_length=200)
    settings = QuestionAnswer(column="text", temperature=1.0, max_new_tokens=30)
    found = apply_transform(settings, passages(PASSAGE, PASSAGE * 9), {"writer": bad})
    reasons = found.dropped.column("reason").to_pylist()
    assert reasons[0] == "no pair passed the gates" and reasons[1].startswith("too long for the writer")
    assert found.report["rejected"] == {"unparsed": 2} and found.num_rows == 0


def test_a_word_that_stands_for_something_else_is_no_subject():
    from tutelage.data.synthesise._tasks import _is_subject

    assert _is_subject("The council") and not _is_subject("It") and not _is_subject("Which council")
