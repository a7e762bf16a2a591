"""A recipe's endpoint: answers kept in the workspace, a spent budget that stops a run, a richer run that ends."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tutelage.core.errors import EndpointError, TutelageError

REAL_MODELS = True
MUTATIONS = [
    ("src/tutelage/runs/outside.py", 'cache=workspace / STATE / "answers",', ""),
    (
        "src/tutelage/runs/outside.py",
        "options = spec.endpoint or EndpointOptions()",
        "options = EndpointOptions()",
    ),
]


@pytest.fixture
def server():
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body)
            said = {"choices": [{"message": {"content": "4"}, "finish_reason": "stop"}],
                    "usage": {"prompt_tokens": 6, "completion_tokens": 4}}  # fmt: skip
            raw = json.dumps(said).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_given):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}/v1", asked
    http.shutdown()
    http.server_close()


def test_a_spent_budget_stops_and_a_richer_run_goes_on(bed, server):
    url, asked = server
    bed.write("test", [{"id": f"t{i}", "prompt": f"2 + {i}?", "answer": "4"} for i in range(10)])

    def recipe(**endpoint):
        return bed.recipe(
            models={"base": {"load": url, "model": "toy", "endpoint": {"concurrency": 1, **endpoint}}},
            steps=[{"name": "result", "use": "evaluation.exact_match", "from": "test", "model": "base"}],
        )

    with pytest.raises(EndpointError, match="budget is spent"):
        bed.run(recipe(budget={"tokens": 40}, timeout=30.0))
    assert len(asked) == 4
    with pytest.raises(EndpointError, match="units of currency"):
        bed.run(recipe(prices={"prompt": 1.0, "completion": 1.0}, max_spend=2e-5))
    assert len(asked) == 6
    result = bed.run(recipe(budget={"tokens": 40}))
    assert len(asked) == 10
    assert result.load("result").estimate == 1.0
    # What came from the cache costs what it had cost.
    assert result.load("result").cost.calls == 10
    assert len(list((bed.folder / ".tutelage" / "answers").rglob("*.json"))) == 10


def test_misspelt_options_are_named(bed):
    with pytest.raises(TutelageError, match="concurency"):
        bed.run(bed.recipe(models={"base": {"load": "http://localhost:1/v1", "endpoint": {"concurency": 1}}}))
