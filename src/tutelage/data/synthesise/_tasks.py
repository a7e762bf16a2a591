"""Tasks about a passage: the bank a writer is asked from, the rules that find tasks without one, their gates.

A task is a question with an answer. Rules: a definition ("X is a Y") asks what X is; "X was made by Y" asks by
whom; "A because B" asks why A; "A, but B" and "However, B" ask what stands against A; a row's title is asked
for. Gates: an extractive answer must occur in the passage, word for word but for case and punctuation; a
question that shares eight words in a row with its own answer is refused.
"""

import re
from typing import NamedTuple

from tutelage.core.text.sentences import sentence_spans
from tutelage.core.text.words import split_words
from tutelage.data.synthesise._writer import json_object

SHARED_WORDS = 8
MOST_SUBJECT_WORDS = 12
_SUBJECT = r"^(?P<subject>[^,;:]{3,120}?) (?P<verb>is|are|was|were) "
_DEFINITION = re.compile(_SUBJECT + r"(?P<rest>(?:a|an|the|one) [^;:]{2,200})$")
_PARTICIPLE = r"\w+(?:ed|en|wn)|made|built|held|kept|led|sold|born|bought|taught"
_PASSIVE = re.compile(_SUBJECT + rf"(?P<done>(?:\w+ )?(?:{_PARTICIPLE})) (?P<how>\w+) (?P<rest>[^;:]{{2,200}})$")
_PREPOSITIONS = frozenset("by of in on at for from to with as".split())
# A subject that begins like this is none: "On the flag there is", "It was".
_NO_SUBJECT = _PREPOSITIONS | frozenset(
    "it this that these those they he she we you i there here what which who before after every when while".split()
)
_BECAUSE = re.compile(r"^(?P<fact>.{10,200}?),? because (?P<reason>.{5,200})$")
_BUT = re.compile(r"^(?P<fact>.{10,200}?), (?:but|although|whereas) (?P<other>.{5,200})$")
_HOWEVER = re.compile(r"^however,? (?P<other>.{10,200})$", re.IGNORECASE)
_LINES = re.compile(
    r"question\s*:\s*(?P<question>.+?)\s*\n+\s*answer\s*:\s*(?P<answer>.+)", re.IGNORECASE | re.DOTALL
)


class Task(NamedTuple):
    """One question with its answer and the kind of task."""

    kind: str
    question: str
    answer: str


class Ask(NamedTuple):
    """One entry of the bank: what the writer is told, and the question that stands before its answer (None: the
    writer makes the question too)."""

    told: str
    question: str | None
    extractive: bool = False


PAIR = "Answer in two lines and nothing else:\nQuestion: ...\nAnswer: ..."
BANK = {
    "question_answer": Ask(
        f"Write one question that the document answers, and its answer in words of the document. {PAIR}",
        None,
        True,
    ),
    "infer": Ask(f"Write one question whose answer follows from the document, and its answer. {PAIR}", None),
    "summarise": Ask("Sum up the document in one or two sentences.", "What does this text say, in short?"),
    "explain": Ask("Explain the document to somebody who knows nothing about it.", "Can you explain this text?"),
    "title": Ask("Write a title for the document. Answer with the title alone.", "What is a title for this text?"),
    "paraphrase": Ask("Say what the document says in other words.", "How could this text be put in other words?"),
    "key_terms": Ask(
        "Copy the most important name or term out of the document. Answer with it alone.",
        "What is the key term of this text?",
        True,
    ),
}  # fmt: skip


def parse_pair(text: str) -> tuple[str, str] | None:
    """(question, answer) of a JSON object or of two marked lines; None otherwise."""
    found = json_object(text)
    if found is not None:
        question, answer = found.get("question"), found.get("answer")
        if isinstance(question, str) and isinstance(answer, str) and question.strip() and answer.strip():
            return question.strip(), answer.strip()
        return None
    match = _LINES.search(text)
    if match is None:
        return None
    answer = match["answer"].strip().split("\n")[0]
    return match["question"].strip(), answer


def refused(task: Task, passage: str, extractive: bool) -> str:
    """Why a task is no good ("not_in_passage", "answer_in_question"), or ""."""
    answer, asked = split_words(task.answer), split_words(task.question)
    if not answer or not asked:
        return "unparsed"
    if extractive and not _within(answer, split_words(passage)):
        return "not_in_passage"
    runs = {tuple(answer[i : i + SHARED_WORDS]) for i in range(len(answer) - SHARED_WORDS + 1)}
    if any(tuple(asked[i : i + SHARED_WORDS]) in runs for i in range(len(asked) - SHARED_WORDS + 1)):
        return "answer_in_question"
    return ""


def _within(part: list[str], whole: list[str]) -> bool:
    return any(whole[i : i + len(part)] == part for i in range(len(whole) - len(part) + 1))


def mine(passage: str, title: str = "") -> list[Task]:
    """Tasks that rules find in a passage, in its order; every answer is a quotation."""
    found = [Task("title", BANK["title"].question or "", title)] if title else []
    before = ""
    for start, end in sentence_spans(passage):
        sentence = " ".join(passage[start:end].split()).rstrip(".!?")
        if match := _BECAUSE.match(sentence):
            found.append(Task("because", f"Why is this so: {match['fact']}?", match["reason"]))
        elif match := _BUT.match(sentence):
            found.append(Task("contrast", f"What stands against this: {match['fact']}?", match["other"]))
        elif (match := _HOWEVER.match(sentence)) and before:
            found.append(Task("contrast", f"What stands against this: {before}?", match["other"]))
        elif (match := _DEFINITION.match(sentence)) and _is_subject(match["subject"]):
            found.append(Task("definition", f"What {match['verb']} {_inside(match['subject'])}?", match["rest"]))
        elif (
            (match := _PASSIVE.match(sentence)) and _is_subject(match["subject"]) and match["how"] in _PREPOSITIONS
        ):
            asked = f"{match['verb']} {_inside(match['subject'])} {match['done']}"
            question = f"By whom or what {asked}?" if match["how"] == "by" else f"What {asked} {match['how']}?"
            found.append(Task("fact", question, match["rest"]))
        before = sentence
    return found


def _is_subject(text: str) -> bool:
    words = text.casefold().split()
    return len(words) <= MOST_SUBJECT_WORDS and words[0] not in _NO_SUBJECT and words[-1] != "there"


def _inside(subject: str) -> str:
    """A subject as it stands inside a sentence."""
    return subject[0].lower() + subject[1:] if subject.split()[0] in ("The", "A", "An") else subject
