"""Short chats about Python made from its own documentation, and what they are as tokens.

Questions ask for a topic of the language reference or for what a name of the standard library does; answers are
the first paragraphs of its text. Everything comes with the interpreter, so that anyone has the same kind of data;
the seed fixes which chats are taken and how long their answers are.
"""

import importlib
import inspect
import random
import re
from collections.abc import Iterator
from pydoc_data.topics import topics
from typing import Any

SEED = 0
MODULES = (
    "argparse array ast base64 bisect calendar cmath cmd codecs collections configparser contextlib copy csv "
    "datetime decimal difflib dis email enum fileinput fnmatch fractions ftplib functools gettext glob graphlib "
    "gzip hashlib heapq hmac html http.client http.server imaplib inspect io ipaddress itertools json keyword "
    "locale logging lzma mailbox math mimetypes numbers operator optparse os pathlib pickle pkgutil platform "
    "plistlib pprint queue random re sched secrets selectors shelve shlex shutil signal smtplib socket "
    "socketserver sqlite3 ssl stat statistics string struct subprocess sys tarfile tempfile textwrap threading "
    "time timeit token tokenize trace traceback types typing unicodedata unittest urllib.parse uuid warnings "
    "wave weakref xml.dom xml.sax zipfile zlib"
).split()
Chat = tuple[str, str]


def chats(count: int) -> list[dict[str, Any]]:
    """`count` rows with id and messages, in an order of their own."""
    draw = random.Random(SEED)
    found = [*_from_topics(draw), *_from_modules(draw)]
    draw.shuffle(found)
    return [
        {
            "id": f"chat{i}",
            "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
        }
        for i, (question, answer) in enumerate(found[:count])
    ]


def _from_topics(draw: random.Random) -> Iterator[Chat]:
    for name, text in sorted(topics.items()):
        paragraphs = _paragraphs(text)
        for start in range(0, len(paragraphs), 4):
            whole = "\n\n".join(paragraphs[start : start + 4])
            yield f"What does Python's reference say about {name}?", _cut(whole, draw)


def _from_modules(draw: random.Random) -> Iterator[Chat]:
    for name in MODULES:
        module = importlib.import_module(name)
        for attribute, value in sorted(vars(module).items()):
            if attribute.startswith("_") or getattr(value, "__module__", name) != name:
                continue
            text = inspect.getdoc(value) if callable(value) else None
            if text and len(text) > 200:
                yield f"What does {name}.{attribute} do?", _cut(text, draw)


def _paragraphs(text: str) -> list[str]:
    return [p for p in (" ".join(p.split()) for p in re.split(r"\n\s*\n", text)) if len(p) > 80 and "***" not in p]


def _cut(text: str, draw: random.Random) -> str:
    """The beginning of `text`, of a length that is mostly short and sometimes long."""
    return text[: int(draw.lognormvariate(5.77, 0.82))].strip()
