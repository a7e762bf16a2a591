"""The page: everything escaped, nothing loaded, payloads harmless, and really rendered in a browser."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from tutelage.core.errors import StoreError
from tutelage.core.text.visible import visible
from tutelage.report.render import Example, Table, Verdict, View, render, write
from tutelage.report.svg import Series, Whisker, difference_chart, interval_chart, line_chart, ticks

PAYLOADS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)",
    "\x1b[31mred\x1b[0m",
    "\u202eevil\u2066",
    "{{ 7777*9 }}",
    "</pre><svg onload=alert(1)>",
)


def hostile_view():
    text = " ".join(PAYLOADS)
    chart = line_chart([Series(text, [1, 2, 3], [3.0, 2.0, float("nan")])], title=text, x_label=text, y_label=text)
    whiskers = interval_chart([Whisker(text, 0.1, -0.1, 0.3, "better")], title=text, x_label=text)
    verdict = Verdict(text, text, "better", text, text, text, text, text, text)
    return View(
        title=text,
        subtitle=text,
        headline=text,
        verdicts=[verdict],
        notes=[text],
        plots=[
            (text, chart, text),
            (text, whiskers, text),
            (text, difference_chart([1, -1], title=text, y_label=text), text),
        ],
        tables=[Table(text, [text], [[text]], text)],
        examples=[(text, [Example(text, text, text)])],
        samples=[(text, [Example(text, text)])],
        recipe=text,
        environment=[(text, text)],
        loading=text,
        untested=[text],
    )


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_hostile_text_stays_text():
    html = render(hostile_view())
    tags = Tags()
    tags.feed(html)
    assert {tag for tag, _ in tags.found} & {"script", "img", "iframe", "object", "link", "a", "form"} == set()
    for tag, attributes in tags.found:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert not {"src", "href", "style", "xlink:href"} & set(attributes), tag
    assert "\x1b" not in html and "\u202e" not in html and "\u2066" not in html
    assert "\\u202e" in html
    assert "{{ 7777*9 }}" in html and "69993" not in html


def test_the_policy_admits_only_our_style():
    html = render(View(title="t", subtitle="s", headline="h"))
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)[1]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


def test_visible_clips_and_escapes():
    assert visible("a\x00b\nc") == "a\\u0000b\nc"
    assert visible("x" * 50, limit=10) == "x" * 10 + " [cut]"


def test_ticks_are_round_and_inside():
    assert ticks(0, 1) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(-0.012, 0.003) == [-0.01, -0.005, 0.0]
    assert ticks(3, 3) == [3]


def test_charts_of_nothing_are_empty():
    assert line_chart([], title="t", x_label="x", y_label="y") == ""
    assert interval_chart([], title="t", x_label="x") == ""
    assert difference_chart([float("nan")], title="t", y_label="y") == ""


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="report could not be written"):
        write(View(title="t", subtitle="s", headline="h"), tmp_path / "file" / "report.html")


def test_it_renders_in_a_browser_without_complaint(tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    page = write(hostile_view(), tmp_path / "report.html")
    shot = tmp_path / "shot.png"
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--screenshot={shot}",
        "--window-size=1000,1400",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-500:]
    assert shot.stat().st_size > 10_000
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert complaints == []
