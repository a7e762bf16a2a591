"""A queue to label, its page served in this process, and a client that speaks to it as the page does."""

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tutelage.core.labelling.journal import Journal
from tutelage.core.labelling.queue import Item, Queue
from tutelage.core.labels import Label, LabelSpace
from tutelage.runs.labelling.server import LabelServer
from tutelage.runs.labelling.session import Session

CLASSES = (
    Label(name="positive", description="The writer is content."),
    Label(name="negative", aliases=("complaint",)),
    Label(name="mixed"),
)
GUIDELINES = "# What to label\n\nRead the **whole** text.\n\n- Irony counts as what is meant."


def queue(count: int = 6, classes: Any = CLASSES, suggested: str | None = None) -> Queue:
    """`count` items with different texts."""
    return Queue(
        tuple(Item(f"i{n}", f"text number {n}", suggested) for n in range(count)), LabelSpace(classes), GUIDELINES
    )


@dataclass
class Client:
    """Requests to a page; `reply` gives (status, headers, body)."""

    url: str

    def reply(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request; `path` is below the token unless it begins with a slash."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
        try:
            target = path if path.startswith("/") else parts.path + path
            connection.request(method, target, body, headers or {})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """The JSON at a path."""
        status, _, body = self.reply("GET", path)
        assert status == 200, body
        return json.loads(body)

    def post(self, path: str, status: int = 200, **facts: Any) -> Any:
        """The reply to a JSON object."""
        body = json.dumps({"key": "", **facts}).encode()
        found, _, text = self.reply("POST", path, body, {"Content-Type": "application/json"})
        assert found == status, text
        return json.loads(text)


@contextlib.contextmanager
def served(
    asked: Queue, file: Path, annotator: str = "ann", **options: Any
) -> Iterator[tuple[LabelServer, Client]]:
    """The page of a session, in a thread."""
    with Journal(file) as journal, LabelServer(Session(asked, journal, annotator, **options)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server, Client(server.url)
        finally:
            server.shutdown()
            thread.join()
