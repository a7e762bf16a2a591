"""The label page puts what it is told in as text, and what it is told comes as data."""

import json
import re
import threading
import urllib.request

from toy.labelling import queue
from tutelage.core.labelling.journal import Journal
from tutelage.core.labelling.queue import Item, Queue
from tutelage.runs.labelling.server import PAGE, LabelServer
from tutelage.runs.labelling.session import Session

MUTATIONS = [
    ("src/tutelage/runs/labelling/page.html", "node.textContent = text", "node.innerHTML = text"),
    ("src/tutelage/runs/labelling/server.py", '"X-Content-Type-Options": "nosniff",', ""),
]
# Everything that makes elements or code of text.
SINKS = (
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|srcdoc|setHTML|"
    r"\beval\s*\(|new\s+Function|setTimeout\s*\(\s*['\"`]|setInterval\s*\(\s*['\"`]|javascript:|\.src\s*=|\.href\s*="
)
PAYLOAD = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>\u2028\x00\x1b[2J"


def test_texts_are_put_in_as_text_only(tmp_path):
    page = PAGE.read_text(encoding="utf-8")
    assert not re.findall(SINKS, page)
    assert "textContent" in page and not re.search(
        r"<(?:script|link|img|iframe)[^>]+(?:src|href)=(?!.data:)", page
    )
    asked = queue(2)
    items = tuple(Item(f"{PAYLOAD}{n}", PAYLOAD, PAYLOAD) for n in range(2))
    hostile = Queue(items, asked.space, PAYLOAD)
    with Journal(tmp_path / "answers.jsonl") as journal:
        server = LabelServer(Session(hostile, journal, PAYLOAD))
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            for place in ("", "state", "items?start=0&count=2"):
                with urllib.request.urlopen(server.url + place, timeout=10) as reply:
                    body, headers = reply.read(), reply.headers
                assert (
                    headers["X-Content-Type-Options"] == "nosniff"
                    and "'none'" in headers["Content-Security-Policy"]
                )
                if not place:
                    assert b"owned" not in body, "the page itself holds no data"
                    assert "require-trusted-types-for 'script'" in headers["Content-Security-Policy"]
                    continue
                assert headers["Content-Type"].startswith("application/json")
                assert "owned" in json.dumps(json.loads(body))
        finally:
            server.shutdown()
            server.server_close()
