"""A key is sent to its server and is found nowhere else: not in files, errors, tracebacks, logs or reports.

The server repeats the key in everything it says, as careless ones do.
"""

import json
import logging
import os
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from toy.command_line import tutelage, write_rows
from tutelage.core.errors import TutelageError
from tutelage.models.fetch import _without_passwords
from tutelage.runs.ledger import Ledger

MUTATIONS = [
    ("src/tutelage/models/transport.py", 'return text.replace(key, "[redacted]")', "return text"),
    ("src/tutelage/models/fetch.py", 'r"\\1[redacted]@"', 'r"\\g<0>"'),
]
KEY = "sk-very-secret-0123456789"
RECIPE = """\
name: asks
sources: {rows: {path: rows.jsonl}}
models: {judge: {load: "URL", model: toy, key_env: TOY_KEY, endpoint: {timeout: 5}}}
steps:
  - {name: result, use: evaluation.exact_match, from: rows, model: judge, max_new_tokens: 5}
"""


@pytest.fixture
def server():
    replies = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            key = self.headers["Authorization"].split()[1]
            assert key == KEY
            status, headers, text = replies["now"](key)
            raw = text.encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_given):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}/v1", replies
    http.shutdown()
    http.server_close()


def said(key, text="the answer, and your key is {key}"):
    choice = {"message": {"content": text.format(key=key)}, "finish_reason": "stop"}
    return 200, {"X-Key": key}, json.dumps({"choices": [choice], "id": key, "usage": {"prompt_tokens": 3}})


REPLIES = {
    "answers": lambda key: said(key),
    "denied": lambda key: (401, {}, json.dumps({"error": {"message": f"Incorrect API key provided: {key}"}})),
    "a bad request": lambda key: (400, {}, f"<html>{key}</html>"),
    "no JSON": lambda key: (200, {}, f"<b>{key}</b>"),
    "an error": lambda key: (200, {}, json.dumps({"error": key})),
    "an odd answer": lambda key: (200, {}, json.dumps({"choices": [key]})),
    "a redirect": lambda key: (307, {"Location": f"http://{key}.example.com/{key}"}, ""),
}


@pytest.mark.parametrize("kind", REPLIES)
def test_a_run_leaves_the_key_nowhere(server, tmp_path, capfd, monkeypatch, caplog, kind):
    url, replies = server
    replies["now"] = REPLIES[kind]
    monkeypatch.setenv("TOY_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    write_rows(tmp_path / "rows.jsonl", [{"id": str(n), "prompt": f"{n}?", "answer": "no"} for n in range(3)])
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("URL", url), encoding="utf-8")
    answers = [tutelage(capfd, "run", tmp_path / "recipe.yaml", "-w", tmp_path)]
    assert answers[0].code == (0 if kind == "answers" else 2), answers[0].err
    answers.append(tutelage(capfd, "run", tmp_path / "recipe.yaml", "-w", tmp_path, "--json"))
    answers.append(tutelage(capfd, "--verbose", "run", tmp_path / "recipe.yaml", "-w", tmp_path))
    answers.append(tutelage(capfd, "plan", tmp_path / "recipe.yaml", "-w", tmp_path, "--json"))
    answers.append(tutelage(capfd, "report", "-w", tmp_path))
    assert KEY not in "".join(answer.out + answer.err for answer in answers)
    assert KEY not in caplog.text
    if kind == "answers":
        assert "[redacted]" in "".join(f.read_text("utf-8", "replace") for f in tmp_path.rglob("*.json"))
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(file.name == "ledger.sqlite" for file in files) and len(files) > 4
    for file in files:
        assert KEY.encode() not in file.read_bytes(), file
    run = Ledger(tmp_path).run()
    assert run["recipe"]["models"]["judge"]["key_env"] == "TOY_KEY" and KEY not in json.dumps(run)


def test_nothing_of_the_environment_is_recorded(tmp_path, monkeypatch):
    from tutelage.runs.environment import environment

    monkeypatch.setenv("SOME_OTHER_TOKEN", "another-secret-value")
    told = json.dumps(environment(), default=str)
    assert "another-secret-value" not in told and "SOME_OTHER_TOKEN" not in told
    assert os.environ.get("HOME", "/nowhere-at-all") not in told


@pytest.mark.parametrize(
    "url", ["https://me:PASS@host/v1", "http://PASS@localhost/v1", "http://localhost/v1?key=PASS"]
)
def test_credentials_in_an_address_are_refused_without_repeating_them(url):
    from tutelage.models.transport import check_url

    with pytest.raises(TutelageError, match="credentials") as caught:
        check_url(url.replace("PASS", KEY), True)
    shown = "".join(traceback.format_exception(caught.value)) + json.dumps(caught.value.to_json())
    assert KEY not in shown


def test_passwords_of_a_package_index_are_not_told():
    complaint = f"ERROR: Could not fetch https://me:{KEY}@index.example/simple and http://{KEY}@other.example/"
    assert KEY not in _without_passwords(complaint)
    assert "index.example/simple" in _without_passwords(complaint)
