"""`chat` and `fetch` on the command line: piped and typed messages, history, hostile output, lists."""

import json

import pytest
import typer
from typer.testing import CliRunner

from tutelage.cli import chat
from tutelage.cli.chat import chat_command
from tutelage.cli.fetch import fetch_command
from tutelage.core.errors import ModelError
from tutelage.models.ngram import NGramLM
from tutelage.models.seam import Generation
from tutelage.models.toy import tiny_causal_lm

MUTATIONS = [
    ("src/tutelage/cli/chat.py", 'streams = loaded.kind == "causal"', "streams = False"),
    ("src/tutelage/cli/chat.py", "typer.echo(plain(text), nl=False)", "typer.echo(text, nl=False)"),
]

app = typer.Typer()
app.command("chat")(chat_command)
app.command("fetch")(fetch_command)


class Recorder(NGramLM):
    """Answers with the number of messages it saw; remembers its prompts."""

    kind = "endpoint"

    def __init__(self) -> None:
        super().__init__(1)
        self.prompts: list[str] = []
        self.fit(["x"])

    def generate(self, prompts, max_new_tokens=64, temperature=0.0, stop=(), seed=0, batch_size=16):
        self.prompts += prompts
        return [Generation(f"answer {len(self.prompts)} \x1b[31mred", (), False, 1)]


@pytest.fixture
def recorder(monkeypatch) -> Recorder:
    made = Recorder()
    monkeypatch.setattr("tutelage.models.load.load_model", lambda *_a, **_k: made)
    return made


def test_piped_messages_are_answered_by_a_real_model(tmp_path) -> None:
    folder = tiny_causal_lm(seed=1).save(tmp_path / "model")
    arguments = ["chat", str(folder), "--max-new-tokens", "4", "--device", "cpu"]
    result = CliRunner().invoke(app, arguments, input="hello\n\nworld\n")
    assert result.exit_code == 0, result.output
    again = CliRunner().invoke(app, arguments, input="hello\nworld\n")
    assert again.stdout == result.stdout
    assert result.stdout.count("[...]") <= 2 <= result.stdout.count("\n")


def test_an_answer_is_shown_while_it_is_made(tmp_path, monkeypatch) -> None:
    folder = tiny_causal_lm(seed=1).save(tmp_path / "model")
    pieces: list[str] = []
    monkeypatch.setattr(chat, "_show_piece", pieces.append)
    arguments = ["chat", str(folder), "--max-new-tokens", "12", "--temperature", "1", "--device", "cpu"]
    silent = CliRunner().invoke(app, arguments, input="hello\n")
    assert len(pieces) > 2
    monkeypatch.undo()
    spoken = CliRunner().invoke(app, arguments, input="hello\n")
    assert spoken.stdout == chat.plain("".join(pieces)) + silent.stdout


def test_pieces_cannot_command_the_terminal(capsys) -> None:
    chat._show_piece("a\x1b[31")
    chat._show_piece("mb\n")
    assert capsys.readouterr().out == "a\\x1b[31mb\n"


def test_history_system_and_hostile_output(recorder: Recorder) -> None:
    result = CliRunner().invoke(app, ["chat", "x", "--system", "Be brief."], input="one\ntwo\n")
    assert result.exit_code == 0, result.output
    first, second = recorder.prompts
    assert first == "system: Be brief.\nuser: one\n"
    assert second.startswith(first + "assistant: answer 1") and second.endswith("user: two\n")
    assert "\x1b" not in result.stdout and "\\x1b[31mred" in result.stdout


def test_full_context_forgets_the_oldest_turns(recorder: Recorder) -> None:
    recorder.max_length = 22
    said = "\n".join(f"message number {i}" for i in range(4))
    result = CliRunner().invoke(app, ["chat", "x", "--max-new-tokens", "8"], input=said)
    assert "messages are forgotten" in result.stderr
    assert "number 3" in recorder.prompts[-1] and "number 0" not in recorder.prompts[-1]


def test_typed_messages_until_ctrl_d(recorder: Recorder, monkeypatch, capsys) -> None:
    typed = iter(["hi", "  ", "bye"])

    def read(*_args: object) -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("rich.console.Console.input", read)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    chat_command("x")
    assert len(recorder.prompts) == 2
    shown = capsys.readouterr().out
    assert "answer 2" in shown and "\\x1b[31mred" in shown


def test_base_model_continues_text(tmp_path, capsys) -> None:
    folder = NGramLM(2).fit(["one two three"]).save(tmp_path / "ngram")
    result = CliRunner().invoke(app, ["chat", str(folder)], input="one\n")
    assert result.stdout == "two three\n"
    assert "no chat template" in result.stderr
    refused = CliRunner().invoke(app, ["chat", str(folder), "--system", "x"], input="one\n")
    assert isinstance(refused.exception, ModelError)


def test_fetch_lists_without_network(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path))
    plain = CliRunner().invoke(app, ["fetch", "--list"])
    assert "smollm2" in plain.stdout and "94 MB" in plain.stdout
    listed = json.loads(CliRunner().invoke(app, ["fetch", "--json"]).stdout)
    assert {row["name"] for row in listed} >= {"smollm2", "minilm"}
    assert all(row["folder"] is None for row in listed)
    wrong = CliRunner().invoke(app, ["fetch", "smolm2"])
    assert isinstance(wrong.exception, ModelError) and "did you mean smollm2" in str(wrong.exception)


def test_control_characters_are_shown_not_obeyed(capsys) -> None:
    chat._show("a\x1b]0;title\x07b\nc", interactive=False)
    assert capsys.readouterr().out == "a\\x1b]0;title\\x07b\nc\n"
