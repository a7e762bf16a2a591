"""runs.labelling: a session, its page over HTTP and who may not come in, exchange of answers, the report."""

import http.client
import json
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from toy.labelling import CLASSES, Client, queue, served
from tutelage.core.errors import InputError, StoreError
from tutelage.core.labelling.journal import Answers, Journal, read_answers
from tutelage.core.labelling.queue import Item, Queue, gathered
from tutelage.runs.labelling import interchange, server
from tutelage.runs.labelling.report import report
from tutelage.runs.labelling.session import Session

MUTATIONS = [
    (
        "src/tutelage/runs/labelling/server.py",
        "if not hmac.compare_digest",
        "if False and not hmac.compare_digest",
    ),
    ("src/tutelage/runs/labelling/server.py", 'self.headers.get("Host", "").lower() not in', '"" in'),
    ("src/tutelage/runs/labelling/server.py", "if origin is not None and", "if origin is None and"),
    ("src/tutelage/runs/labelling/server.py", "int(length) > LARGEST_BODY", "int(length) < 0"),
    ("src/tutelage/runs/labelling/server.py", '!= "application/json"', '== "x"'),
    ("src/tutelage/runs/labelling/server.py", 'ADDRESS = "127.0.0.1"', 'ADDRESS = "0.0.0.0"'),
    (
        "src/tutelage/runs/labelling/session.py",
        "if self._repeated(key, facts[",
        "if None is None or self._repeated(key, facts[",
    ),
    ("src/tutelage/runs/labelling/session.py", "if place > after", "if place >= 0"),
    ("src/tutelage/runs/labelling/session.py", "if self.suggestions else {}", "if True else {}"),
    (
        "src/tutelage/runs/labelling/interchange.py",
        '"was_cancelled": event.label is None',
        '"was_cancelled": False',
    ),
    ("src/tutelage/runs/labelling/interchange.py", "queue.space.index(one.label, where)", "pass"),
    ("src/tutelage/runs/labelling/interchange.py", "if earlier != one.label:", "if False:"),
    ("src/tutelage/runs/labelling/interchange.py", 'if status == "discarded":', 'if status == "x":'),
    ("src/tutelage/runs/labelling/report.py", "if len(set(found.values())) > 1", "if found"),
]


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "answers.jsonl"


class TestSession:
    def test_a_session_goes_on_where_it_stopped(self, file):
        with Journal(file) as journal:
            session = Session(queue(4), journal, "ann")
            assert session.state()["next"] == 0
            told = session.answer("i0", "positive", 2.5)
            assert (told["next"], told["answered"], told["undo"], told["item"]["label"]) == (1, 1, 1, "positive")
            assert session.skip("i2")["next"] == 3, "the next open item after this one"
            assert session.answer("i3", "mixed")["next"] == 1, "then those that were passed over"
        with Journal(file) as journal:
            again = Session(queue(4), journal, "ann")
            assert again.state()["next"] == 1 and again.state()["first_skipped"] == 2
            assert again.answer("i1", "negative")["next"] is None
            assert again.summary() == {
                "annotator": "ann",
                "answers": str(file.resolve()),
                "total": 4,
                "answered": 3,
                "skipped": 1,
                "seconds": 2.5,
            }
            for place in (1, 3, 2, 0):
                assert again.undo()["item"]["place"] == place
            with pytest.raises(InputError, match="nothing to undo"):
                again.undo()
            assert again.state()["answered"] == 0

    def test_another_annotator_sees_nothing_of_it(self, file):
        with Journal(file) as journal:
            Session(queue(2), journal, "ann").answer("i0", "positive")
            other = Session(queue(2), journal, "bob")
            assert other.items(0, 2)[0]["label"] is None and other.state()["undo"] == 0
            other.answer("i0", "negative")
            assert other.items(0, 1)[0]["label"] == "negative"
        assert {name: event.label for name, event in read_answers(file).of_item("i0").items()} == {
            "ann": "positive",
            "bob": "negative",
        }

    def test_a_repeated_request_is_one_event(self, file):
        with Journal(file) as journal:
            session = Session(queue(3), journal, "ann")
            for _ in range(2):
                session.answer("i0", "positive", key="k1")
                session.answer("i1", "negative", key="k2")
            assert [session.undo("k3")["item"]["id"] for _ in range(2)] == ["i1", "i1"]
            assert session.state()["answered"] == 1 and journal.answers.count == 3

    def test_suggestions_are_off_by_default(self, file):
        with Journal(file) as journal:
            asked = queue(1, suggested="mixed")
            assert "suggested" not in Session(asked, journal, "ann").items(0, 1)[0]
            assert Session(asked, journal, "ann", suggestions=True).items(0, 1)[0]["suggested"] == "mixed"

    @pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "3", True, None, [1], 1e9])
    def test_a_time_that_cannot_be_is_none(self, file, seconds):
        with Journal(file) as journal:
            Session(queue(1), journal, "ann").answer("i0", "mixed", seconds)
            assert journal.answers.given("i0", "ann").seconds is None

    def test_what_is_not_there_is_refused(self, file):
        with Journal(file) as journal:
            session = Session(queue(1), journal, "ann")
            with pytest.raises(InputError, match="no such item"):
                session.answer("zz", "mixed")
            with pytest.raises(InputError, match="nearest is 'mixed'"):
                session.answer("i0", "mixd")
            assert journal.answers.count == 0

    def test_answers_for_other_texts_or_classes_are_refused(self, file):
        with Journal(file) as journal:
            Session(queue(2), journal, "ann").answer("i1", "mixed")
            changed = Queue((Item("i0", "text number 0"), Item("i1", "another text")), queue().space)
            with pytest.raises(InputError, match="answered for another text") as caught:
                Session(changed, journal, "ann")
            assert "item i1" in caught.value.where
            with pytest.raises(InputError, match="nearest is 'mixture'"):
                Session(queue(2, ["mixture", "positive"]), journal, "ann")
            assert Session(queue(1), journal, "ann").strange == 1
            with pytest.raises(InputError, match="nothing to undo"):
                Session(queue(1), journal, "ann").undo()

    def test_keys_leave_the_page_its_own(self, file):
        with Journal(file) as journal:
            classes = Session(queue(1, [f"c{n}" for n in range(40)]), journal, "ann").state()["classes"]
        keys = [one["key"] for one in classes]
        assert keys[:10] == [*"123456789a"] and keys[32:] == [None] * 8
        assert len(set(keys[:32])) == 32 and not set("usg?/") & set(keys[:32])


class TestServer:
    def test_a_whole_session_over_http(self, file):
        with served(queue(3), file) as (running, client):
            page = client.reply("GET", "")
            assert page[0] == 200 and b"<!doctype html>" in page[2]
            assert client.get("state")["total"] == 3
            assert [item["text"] for item in client.get("items?start=1&count=9")["items"]] == [
                "text number 1",
                "text number 2",
            ]
            assert client.post("answer", id="i0", label="mixed", seconds=1.5, key="a")["next"] == 1
            assert client.post("skip", id="i1")["skipped"] == 1
            assert client.post("undo")["item"]["id"] == "i1"
            assert client.post("answer", 422, id="i0", label="mixd")["remedy"].startswith("the nearest is 'mixed'")
            assert (
                client.post("answer", 422, id="zz", label="mixed")["what"] == "there is no such item in the queue"
            )
            assert client.post("finish")["answered"] == 1
            assert running.finished.wait(5)
        assert read_answers(file).given("i0", "ann").seconds == 1.5

    def test_the_page_is_one_file_under_a_strict_policy(self, file):
        with served(queue(), file) as (_, client):
            first, second = client.reply("GET", ""), client.reply("GET", "")
        policy = first[1]["Content-Security-Policy"]
        nonce = policy.split("'nonce-")[1].split("'")[0]
        body = first[2].decode()
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert body.count(f'nonce="{nonce}"') == 2 and "{{" not in body
        assert nonce not in second[1]["Content-Security-Policy"]
        assert "http://" not in body and "https://" not in body and "innerHTML" not in body
        assert first[1]["Cache-Control"] == "no-store" and first[1]["Referrer-Policy"] == "no-referrer"

    def test_only_this_machine_is_listened_to(self, file):
        with served(queue(), file) as (running, _):
            assert running.socket.getsockname()[0] == "127.0.0.1"

    def test_without_the_token_nothing_is_told(self, file):
        with served(queue(), file) as (running, client):
            wrong = [
                "/",
                "/state",
                "/favicon.ico",
                f"/{running.token}",
                f"/{running.token[:-1]}/state",
                f"/{running.token}x/state",
                f"/x/{running.token}/state",
                "/%00/state",
                "/é/state".encode().decode("latin-1"),
            ]
            for path in wrong:
                status, _, body = client.reply("GET", path) if path.isascii() else _raw(client, path)
                assert status == 403 and b"text number" not in body and running.token.encode() not in body
            body = json.dumps({"id": "i0", "label": "mixed", "key": ""}).encode()
            headers = {"Content-Type": "application/json"}
            assert client.reply("POST", "/answer", body, headers)[0] == 403
            assert client.reply("GET", f"/{running.token}/nothing")[0] == 404
        assert read_answers(file).count == 0

    @pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", None])
    def test_another_host_name_is_refused(self, file, host):
        with served(queue(), file) as (running, client):
            given = host and host.format(port=running.server_port)
            assert _status(client, "GET", host=given) == 403
            assert _status(client, "GET", host=f"LOCALHOST:{running.server_port}") == 200

    def test_another_origin_is_refused(self, file):
        with served(queue(), file) as (running, client):
            for origin in ("https://evil.example", "null", f"http://127.0.0.1:{running.server_port + 1}"):
                assert client.reply("GET", "state", None, {"Origin": origin})[0] == 403
            own = f"http://127.0.0.1:{running.server_port}"
            assert client.reply("GET", "state", None, {"Origin": own})[0] == 200

    @pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
    def test_other_methods_are_refused(self, file, method):
        with served(queue(), file) as (_, client):
            status, headers, _ = client.reply(method, "state", b"x" if method != "HEAD" else None)
            assert status == 405 and headers["Allow"] == "GET, POST"
            assert client.reply("GET", "answer")[0] == 404 and client.post("state", 404)

    @pytest.mark.parametrize(
        ("body", "headers", "status"),
        [
            (b'{"id": "i0", "label": "mixed", "key": ""}', {"Content-Type": "text/plain"}, 415),
            (b'{"id": "i0", "label": "mixed", "key": ""}', {}, 415),
            (b"{" + b" " * server.LARGEST_BODY, {}, 413),
            (b"{}", {"Content-Length": "99999999999"}, 413),
            (b"{}", {"Content-Length": "-5"}, 411),
            (b"{}", {"Content-Length": "\u0662"}, 411),
            (b"", {"Transfer-Encoding": "chunked", "Content-Length": "0"}, 411),
            (b"[1]", {}, 400),
            (b"{", {}, 400),
            (b"\xff\xfe", {}, 400),
            (b"[" * 9000, {}, 400),
            (b'{"id": 1, "label": "mixed", "key": ""}', {}, 400),
            (b'{"id": "i0", "label": ["mixed"], "key": ""}', {}, 400),
            (b'{"id": "i0", "label": "mixed"}', {}, 400),
            (b'{"id": "i0", "label": "mixed", "key": "' + b"k" * 65 + b'"}', {}, 400),
        ],
    )
    def test_a_request_that_is_no_answer(self, file, body, headers, status):
        if "Content-Type" not in headers and status != 415:
            headers = {"Content-Type": "application/json", **headers}
        with served(queue(), file) as (_, client):
            headers = {name: value.encode("utf-8") for name, value in headers.items()}
            assert client.reply("POST", "answer", body, headers)[0] == status
            assert client.get("state")["answered"] == 0
        assert read_answers(file).count == 0

    @pytest.mark.parametrize(
        "query", ["", "start=0", "start=-1&count=2", "start=0&count=0", "start=0&count=501", "start=x&count=1"]
    )
    def test_a_window_that_cannot_be(self, file, query):
        with served(queue(), file) as (_, client):
            assert client.reply("GET", "items?" + query)[0] == 400

    def test_a_full_disk_is_told_and_nothing_is_counted(self, file, monkeypatch):
        with served(queue(), file) as (_, client):
            with monkeypatch.context() as patch:
                patch.setattr(
                    "tutelage.core.labelling.journal.os.fsync",
                    lambda _: (_ for _ in ()).throw(OSError(28, "full")),
                )
                assert (
                    client.post("answer", 507, id="i0", label="mixed")["what"] == "an answer could not be written"
                )
            assert client.get("state")["answered"] == 0
            assert client.post("answer", id="i0", label="mixed")["answered"] == 1

    def test_a_client_that_goes_away_stops_nobody(self, file):
        with served(queue(), file) as (running, client):
            for said in (b"", b"GET /", b"POST /" + running.token.encode() + b"/answer HTTP/1.1\r\nHost: x\r\n"):
                with socket.create_connection(("127.0.0.1", running.server_port)) as raw:
                    raw.sendall(said)
            assert client.get("state")["total"] == 6

    def test_an_open_connection_is_told_that_the_command_has_ended(self, file):
        with served(queue(), file) as (_, client):
            parts = urlsplit(client.url)
            connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
            connection.request("GET", parts.path + "state")
            connection.getresponse().read()
        body = json.dumps({"id": "i0", "label": "mixed", "key": ""})
        connection.request("POST", parts.path + "answer", body, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        assert reply.status == 503 and b"the command has ended" in reply.read()
        assert read_answers(file).count == 0

    def test_a_port_that_is_taken(self, file, tmp_path):
        with served(queue(), file) as (running, _), Journal(tmp_path / "other.jsonl") as journal:
            with pytest.raises(StoreError, match="cannot be served") as caught:
                server.LabelServer(Session(queue(), journal, "bob"), running.server_port)
            assert "--port" in caught.value.remedy


def _status(client: Client, method: str, host: str | None) -> int:
    parts = urlsplit(client.url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    connection.putrequest(method, parts.path + "state", skip_host=True)
    if host is not None:
        connection.putheader("Host", host)
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


def _raw(client: Client, path: str) -> tuple[int, dict[str, str], bytes]:
    parts = urlsplit(client.url)
    with socket.create_connection((parts.hostname, parts.port)) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode("latin-1"))
        found = b""
        while piece := raw.recv(65536):
            found += piece
    return int(found.split()[1]), {}, found


def answered(file: Path, asked: Queue | None = None) -> Queue:
    """Two annotators, one skip, one disagreement."""
    asked = asked or queue(4, suggested="mixed")
    with Journal(file) as journal:
        ann, bob = Session(asked, journal, "ann"), Session(asked, journal, "bob@example.org")
        ann.answer("i0", "positive", 1.5)
        ann.answer("i1", "negative", 2.5)
        ann.skip("i2", 9.0)
        bob.answer("i0", "positive", 3.0)
        bob.answer("i1", "mixed", 4.0)
    return asked


def facts(given):
    return {(item, name): (event.label, event.seconds) for item, by in given.items() for name, event in by.items()}


class TestExchange:
    @pytest.mark.parametrize("write", [interchange.label_studio, interchange.argilla])
    @pytest.mark.parametrize("lines", [False, True])
    def test_out_and_in_again_is_the_same(self, tmp_path, file, write, lines):
        asked = answered(file)
        before = gathered([file])
        interchange.write_json(write(asked, before), tmp_path / "out.json", lines=lines)
        kind, items, answers = interchange.read_file(tmp_path / "out.json")
        assert tuple(items) == asked.items
        with Journal(tmp_path / "again.jsonl") as journal:
            for event in interchange.new_events(answers, asked, journal.answers, kind):
                journal.append(event)
            assert interchange.new_events(answers, asked, journal.answers, kind) == [], "nothing is new twice"
        after = gathered([tmp_path / "again.jsonl"])
        assert facts(after) == facts(before) and len(facts(after)) == 5
        assert {event.source for by in after.values() for event in by.values()} == {kind}

    def test_label_studio_as_it_exports(self, tmp_path):
        task = {
            "id": 17,
            "data": {"text": "text number 1"},
            "meta": {},
            "annotations": [
                _annotation(5, ["positive"], {"id": 1, "email": "ann@example.org", "first_name": ""}),
                _annotation(6, ["mixed"], 3),
                _annotation(7, [], {"email": "bob@example.org"}, was_cancelled=True),
            ],
            "predictions": [{"model_version": "m", "result": _annotation(0, ["mixed"], None)["result"]}],
            "total_annotations": 2,
        }
        file = tmp_path / "export.json"
        file.write_text(json.dumps([task]), encoding="utf-8")
        task["annotations"][1] |= {"lead_time": 1e999, "created_at": 5}
        file.write_text(json.dumps([task]), encoding="utf-8")
        kind, (item,), answers = interchange.read_file(file)
        assert kind == "label-studio" and item == Item("17", "text number 1", "mixed")
        events = interchange.new_events(answers, queue(3), Answers(), kind)
        # The task's own number is not the item's id: its text says which one it is.
        assert [(e["id"], e["annotator"], e.get("label"), e["seconds"]) for e in events] == [
            ("i1", "ann@example.org", "positive", 2.0),
            ("i1", "3", "mixed", None),
            ("i1", "bob@example.org", None, 2.0),
        ]

    def test_names_come_back_after_label_studio_has_renumbered(self, tmp_path, file):
        asked = answered(file)
        tasks = interchange.label_studio(asked, gathered([file]))
        for task in tasks:
            for one in task["annotations"]:
                one["import_id"], one["id"], one["completed_by"] = one["id"], one["id"] + 100, 1
        (tmp_path / "out.json").write_text(json.dumps(tasks), encoding="utf-8")
        _, _, answers = interchange.read_file(tmp_path / "out.json")
        assert {one.annotator for one in answers} == {"ann", "bob@example.org"}
        assert all(
            "completed_by" not in one
            for one in interchange.label_studio(asked, gathered([file]))[0]["annotations"]
        )

    def test_argilla_of_the_server(self, tmp_path):
        record = {
            "external_id": "i0",
            "fields": {"text": "text number 0"},
            "responses": [
                {"user_id": "u1", "status": "submitted", "values": {"label": {"value": "mixed"}}},
                {"user_id": "u2", "status": "discarded", "values": None},
                {"user_id": "u3", "status": "draft", "values": {"label": {"value": "mixed"}}},
            ],
            "suggestions": [],
        }
        file = tmp_path / "records.json"
        file.write_text(json.dumps([record]), encoding="utf-8")
        kind, _, answers = interchange.read_file(file)
        assert [(one.item.id, one.annotator, one.label) for one in answers] == [
            ("i0", "u1", "mixed"),
            ("i0", "u2", None),
        ]
        assert kind == "argilla"

    def test_users_of_argilla_are_uuids(self, file):
        records = interchange.argilla(answered(file), gathered([file]))
        users = {response["user_id"] for record in records for response in record["responses"].get("label", [])}
        assert len(users) == 2 and all(len(user) == 36 for user in users)

    def test_rows_to_train_on(self, file):
        asked = answered(file)
        rows = interchange.labelled_rows(asked, gathered([file]), [{"id": "old", "text": "t", "label": "mixed"}])
        assert [(row["id"], row["label"]) for row in rows] == [("old", "mixed"), ("i0", "positive")]
        assert rows[1]["label_source"] == "gold" and rows[1]["annotator"] == "ann, bob@example.org"

    @pytest.mark.parametrize(
        ("change", "message", "where"),
        [
            (
                lambda t: t[1]["annotations"][0].update(result=[_choice(["negatve"])]),
                "nearest is 'negative'",
                "record 2",
            ),
            (lambda t: t[0]["data"].update(text="other"), "not in the queue", "record 1"),
            (
                lambda t: t[0]["annotations"][0].update(result=[_choice(["mixed", "positive"])]),
                "several labels",
                "record 1",
            ),
            (lambda t: t[0]["annotations"][0].update(result=[_choice([3])]), "not one label", "record 1"),
            (lambda t: t[0].update(annotations=[7]), "not as label-studio writes", "record 1"),
            (lambda t: t[0].update(data="text"), "neither Label Studio's nor Argilla's", "record 1"),
            (lambda t: t[0].update(data={"a": "x", "b": "y"}), "which field is the text", "record 1"),
            (lambda t: t[1]["data"].update(id="i0"), "two records have one id", "out.json"),
            (lambda t: t.append({"fields": {"text": "x"}}), "mixes the records", "out.json"),
            (lambda t: t.clear(), "holds no records", "out.json"),
        ],
    )
    def test_a_file_that_does_not_fit_is_named(self, tmp_path, file, change, message, where):
        asked = answered(file)
        tasks = interchange.label_studio(asked, gathered([file]))
        change(tasks)
        (tmp_path / "out.json").write_text(json.dumps(tasks), encoding="utf-8")
        with pytest.raises(InputError, match=message) as caught:
            interchange.new_events(
                interchange.read_file(tmp_path / "out.json")[2], asked, Answers(), "label-studio"
            )
        assert where in str(caught.value)

    def test_two_labels_of_one_annotator_are_refused(self, tmp_path, file):
        asked = answered(file)
        interchange.write_json(interchange.argilla(asked, gathered([file])), tmp_path / "out.json")
        _, _, answers = interchange.read_file(tmp_path / "out.json")
        with Journal(tmp_path / "mine.jsonl") as journal:
            Session(asked, journal, "ann").answer("i1", "mixed")
            with pytest.raises(InputError, match="one item two labels") as caught:
                interchange.new_events(answers, asked, journal.answers, "argilla")
        assert "annotator ann" in caught.value.where and caught.value.found == "'negative'"

    def test_broken_files(self, tmp_path, file):
        for content in (b'{"fields": {"text": "a"}}\n{"fields"', b"\xff\xfe", b"text,label\n"):
            (tmp_path / "bad.json").write_bytes(content)
            with pytest.raises(InputError):
                interchange.read_file(tmp_path / "bad.json")
        with pytest.raises(InputError):
            interchange.read_file(tmp_path / "absent.json")
        with pytest.raises(StoreError, match="never overwritten"):
            interchange.write_json([], tmp_path / "bad.json")


def _choice(labels):
    return {"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": labels}}


def _annotation(number, labels, who, was_cancelled=False):
    result = [{**_choice(labels), "from_name": "sentiment"}] if labels else []
    return {"id": number, "completed_by": who, "result": result, "was_cancelled": was_cancelled, "lead_time": 2.0}


class TestReport:
    def test_counts_agreement_and_disagreements(self, tmp_path, file):
        answered(file)
        found = report(file)
        assert found["annotators"] == [
            {"annotator": "ann", "answered": 2, "skipped": 1, "seconds": 2.0},
            {"annotator": "bob@example.org", "answered": 2, "skipped": 0, "seconds": 3.5},
        ]
        (pair,) = found["pairs"]
        # Chance: positive 1/2 * 1/2; kappa (1/2 - 1/4) / (3/4).
        assert pair["items"] == 2 and pair["agreement"] == 0.5 and pair["kappa"] == pytest.approx(1 / 3)
        # Values p p n m: D_o = 2/4, D_e = (2*2 + 3 + 3) / 12; alpha 1 - .5 / (10/12).
        assert found["alpha"] == pytest.approx(0.4)
        assert found["disagreements"] == [{"id": "i1", "labels": {"ann": "negative", "bob@example.org": "mixed"}}]
        assert found["labels"] == {"positive": 2, "negative": 1, "mixed": 1} and found["answered_by_several"] == 2
        json.dumps(found)

    def test_a_queue_folder_knows_the_texts_and_all_files(self, tmp_path):
        folder = tmp_path / "q"
        asked = queue(3, CLASSES).write(folder)
        for name, label in (("ann", "mixed"), ("bob", "positive"), ("cem", "positive")):
            with Journal(folder / f"answers-{name}.jsonl") as journal:
                Session(asked, journal, name).answer("i2", label)
        found = report(folder)
        assert (found["items"], found["asked"], len(found["pairs"])) == (1, 3, 3)
        assert found["disagreements"][0]["text"] == "text number 2"

    def test_no_answers(self, tmp_path):
        queue(1).write(tmp_path / "q")
        for path in (tmp_path / "q", tmp_path / "absent.jsonl", tmp_path):
            with pytest.raises(InputError):
                report(path)
