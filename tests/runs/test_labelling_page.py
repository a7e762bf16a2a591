"""The page of `tutelage label` in a real browser: a person types and clicks through whole sessions."""

import json
import shutil
import time
from pathlib import Path

import pytest

from toy.labelling import CLASSES, queue, served
from tutelage.core.labelling.journal import read_answers
from tutelage.core.labelling.queue import Item, Queue
from tutelage.core.labels import LabelSpace

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.common.exceptions import StaleElementReferenceException  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

MUTATIONS = [
    ("src/tutelage/runs/labelling/page.html", "if (text !== undefined) node.textContent = text;", ""),
    ("src/tutelage/runs/labelling/page.html", "if (event.repeat) return;", ""),
    ("src/tutelage/runs/labelling/page.html", "await show(told.item.place);\n", "await show(state.next);\n"),
    ("src/tutelage/runs/labelling/page.html", "stuck = error.refused ? null : task;", "stuck = null;"),
    ("src/tutelage/runs/labelling/page.html", "if (waiting || stuck) event.preventDefault();", ""),
    ("src/tutelage/runs/labelling/page.html", 'if (event.target === $("find")) return;', ""),
    ("src/tutelage/runs/labelling/page.html", "state.classes.length <= 12", "true"),
    ("src/tutelage/runs/labelling/page.html", "Math.floor(place / state.batch) * state.batch", "place"),
    ("src/tutelage/runs/labelling/page.html", "seconds: seconds()", "seconds: 0"),
]
PAYLOADS = (
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "${1}{{nonce}}",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Headless Chromium of this machine; what it complains of on its console is a failure of every test."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no Chromium with its driver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.set_capability("unhandledPromptBehavior", "ignore")
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


class Person:
    """What somebody at the page sees and does."""

    def __init__(self, browser, url: str, width: int = 1200, dark: bool = False) -> None:
        self.browser = browser
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        browser.get(url)
        self.until(lambda: " of " in self.text("#count"))

    def until(self, true) -> None:
        WebDriverWait(self.browser, 30, poll_frequency=0.02).until(lambda _: true())

    def all(self, selector: str):
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return self.browser.execute_script(
            "const found = document.querySelector(arguments[0]); return found ? found.textContent : ''", selector
        )

    def type(self, *keys: str) -> None:
        """Keys as a keyboard sends them, to whatever has the focus."""
        webdriver.ActionChains(self.browser).send_keys(*keys).perform()

    def now(self, text: str) -> None:
        """Wait until the current item is the one with this text."""
        self.until(lambda: self.text(".item.now .text") == text)

    def click(self, selector: str, name: str = "") -> None:
        """Clicks what is there, also where the page is just being drawn anew."""
        for _ in range(20):
            try:
                next(e for e in self.all(selector) if e.is_displayed() and name in e.text).click()
                return
            except StaleElementReferenceException:
                continue
        raise AssertionError(f"{selector} does not stay on the page")

    def focused(self) -> str:
        return self.browser.execute_script("return document.activeElement.id || document.activeElement.className")

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.browser.get_log("browser")]


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "answers.jsonl"


def given(file: Path, count: int = 6) -> list[str | None]:
    answers = read_answers(file)
    found = [answers.given(f"i{n}", "ann") for n in range(count)]
    return [None if event is None else event.label or "skipped" for event in found]


def test_a_session_by_keyboard(browser, file):
    with served(queue(6), file) as (running, client):
        person = Person(browser, client.url)
        person.now("text number 0")
        assert person.text("#count") == "0 of 6" and "ann" in person.text("#who")
        assert [e.text.splitlines()[1] for e in person.all("#classes button")] == ["positive", "negative", "mixed"]
        # As fast as it can: each key is for the next item.
        person.type("1", "2", "3", "s")
        person.now("text number 4")
        assert given(file) == ["positive", "negative", "mixed", "skipped", None, None]
        person.type("u")
        person.now("text number 3")
        person.type("u")
        person.now("text number 2")
        assert given(file)[2:4] == [None, None]
        person.type("1")
        person.now("text number 3")
        # Back with an arrow, and another answer for the item before.
        person.type(Keys.ARROW_LEFT, Keys.ARROW_UP)
        person.now("text number 1")
        assert person.text(".item.now .given") == "negative"
        pressed = [e.get_attribute("aria-pressed") for e in person.all("#classes button")]
        assert pressed == ["false", "true", "false"]
        person.type("3")
        person.now("text number 3")
        person.type(Keys.ARROW_RIGHT)
        person.now("text number 4")
        person.type("2", "2")
        # The one that was passed over comes last.
        person.now("text number 3")
        person.type("2")
        person.until(lambda: "Nothing is left" in person.text("#end"))
        assert given(file) == ["positive", "mixed", "positive", "negative", "negative", "negative"]
        assert person.text("#count") == "6 of 6" and person.text("#said") == "Nothing is left to label."
        person.type("u")
        person.now("text number 3")
        person.type("1")
        person.until(lambda: person.all("#finish"))
        person.click("#finish")
        person.until(lambda: "You can close this tab" in person.text("#end"))
        assert running.finished.wait(5)
        assert person.complaints() == []
    times = [event.seconds for event in read_answers(file).standing("ann")]
    assert all(seconds is not None for seconds in times) and max(times) > 0


def test_a_session_by_mouse_and_a_closed_tab(browser, file):
    asked = queue(4)
    with served(asked, file) as (_, client):
        person = Person(browser, client.url)
        person.now("text number 0")
        person.click("#classes button", "negative")
        person.now("text number 1")
        person.click("#skip")
        person.now("text number 2")
        person.click("#undo")
        person.now("text number 1")
        person.click("#classes button", "mixed")
        person.now("text number 2")
        browser.get("about:blank")
    with served(asked, file) as (_, client):
        person = Person(browser, client.url)
        person.now("text number 2")
        assert person.text("#count") == "2 of 4"
        person.click("#skip")
        person.click("#classes button", "positive")
        person.until(lambda: person.all("#end"))
        person.click("#end button", "skipped")
        person.now("text number 2")
        assert person.text(".item.now .given") == "skipped"
        person.click("#classes button", "positive")
        person.until(lambda: person.all("#end"))
    assert given(file, 4) == ["negative", "mixed", "positive", "positive"]


def test_batches_on_one_screen(browser, file):
    with served(queue(7), file, batch=3) as (_, client):
        person = Person(browser, client.url)
        person.now("text number 0")
        shown = lambda: [e.text for e in person.all(".item .text")]  # noqa: E731
        assert shown() == [f"text number {n}" for n in range(3)]
        person.type("1", Keys.ARROW_DOWN, "2")
        person.until(lambda: person.text(".item.now .text") == "text number 3")
        assert shown() == [f"text number {n}" for n in range(3, 6)]
        person.type("u")
        person.now("text number 2")
        assert shown()[0] == "text number 0"
        person.all(".item")[1].click()
        person.now("text number 1")
        person.type("3")
        person.now("text number 2")
        person.type("3", "1", "1", "1", "1")
        person.until(lambda: person.all("#end"))
    assert given(file, 7) == ["positive", "mixed", "mixed", "positive", "positive", "positive", "positive"]


def test_texts_do_nothing(browser, file):
    asked = Queue(
        tuple(Item(f"i{n}", text) for n, text in enumerate(PAYLOADS)),
        LabelSpace([*PAYLOADS[:2], "plain"]),
        "# " + PAYLOADS[1] + "\n\n" + PAYLOADS[0],
    )
    with served(asked, file, annotator=PAYLOADS[1]) as (_, client):
        person = Person(browser, client.url)
        for text in PAYLOADS:
            person.now(text)
            person.type("1")
        person.until(lambda: person.all("#end"))
        assert "owned" not in browser.title and not person.all("main script, main img, #told img")
        assert PAYLOADS[1] in person.text("#told") and person.complaints() == []


def test_guidelines_help_and_where_the_focus_is(browser, file):
    with served(queue(3), file) as (_, client):
        person = Person(browser, client.url)
        person.now("text number 0")
        assert person.all("#told")[0].is_displayed(), "there is room beside the items"
        assert person.text("#told h3") == "What to label" and person.text("#told strong") == "whole"
        person.type("g")
        person.until(lambda: not person.all("#told")[0].is_displayed())
        assert person.all("#guide")[0].get_attribute("aria-expanded") == "false"
        person.type("?")
        person.until(lambda: person.all("#keys")[0].is_displayed())
        person.type("1")  # no answer while the help is open
        person.type(Keys.ESCAPE)
        person.until(lambda: not person.all("#keys")[0].is_displayed())
        assert person.text("#count") == "0 of 3"
        person.type(Keys.TAB)
        seen = set()
        for _ in range(12):
            seen.add(person.focused())
            outline = browser.execute_script(
                "const s = getComputedStyle(document.activeElement); return s.outlineStyle + s.boxShadow"
            )
            assert "solid" in outline or "inset" in outline or person.focused() == "", "the focus can be seen"
            person.type(Keys.TAB)
        assert {"skip", "guide", "help"} <= seen
        browser.execute_script("document.querySelector('#classes button').focus()")
        person.type(Keys.SPACE)
        person.now("text number 1")
        assert "now" in person.focused()
        assert person.text("#said") == "Saved positive."
        person.type(Keys.TAB)
        assert person.complaints() == []


def test_many_classes_are_found_by_name(browser, file):
    names = [
        f"{a}_{b}" for a in ("card", "cash", "pin", "top_up") for b in ("lost", "late", "fee", "limit", "new")
    ]
    with served(queue(2, [*names, CLASSES[1]]), file) as (_, client):
        person = Person(browser, client.url, width=400)
        person.now("text number 0")
        person.type("/")
        person.until(lambda: person.focused() == "find")
        person.type("pin_li")
        person.until(lambda: len(person.all("#classes button")) == 1)
        person.type(Keys.ENTER)
        person.now("text number 1")
        assert len(person.all("#classes button")) == 21 and person.focused() != "find"
        person.type("/", "complaint")
        person.until(lambda: len(person.all("#classes button")) == 1)
        person.type(Keys.ESCAPE, "a")
        person.until(lambda: person.all("#end"))
    assert given(file, 2) == ["pin_limit", names[9]]


def test_a_key_that_is_held_down_is_one_answer(browser, file):
    with served(queue(4), file) as (_, client):
        person = Person(browser, client.url)
        person.now("text number 0")
        held = {"type": "keyDown", "key": "1", "code": "Digit1", "text": "1"}
        for repeat in (False, True, True):
            browser.execute_cdp_cmd("Input.dispatchKeyEvent", {**held, "autoRepeat": repeat})
        browser.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": "keyUp", "key": "1", "code": "Digit1"})
        person.now("text number 1")
        person.type("2")
        person.now("text number 2")
    assert given(file, 4) == ["positive", "negative", None, None]


def test_what_is_not_saved_is_said_and_tried_again(browser, file, monkeypatch):
    full = lambda _: (_ for _ in ()).throw(OSError(28, "No space left"))  # noqa: E731
    with served(queue(3), file) as (_, client):
        person = Person(browser, client.url)
        person.now("text number 0")
        with monkeypatch.context() as patch:
            patch.setattr("tutelage.core.labelling.journal.os.fsync", full)
            person.type("1", "2")
            person.until(lambda: "No space left" in person.text("#why"))
            assert person.text(".item.now .text") == "text number 0" and given(file) == [None] * 6
            stays = browser.execute_script(
                "const e = new Event('beforeunload', {cancelable: true});"
                "dispatchEvent(e); return e.defaultPrevented"
            )
            assert stays, "the tab asks before it closes"
        person.click("#again")
        person.now("text number 1")
        assert not person.all("#trouble")[0].is_displayed()
        person.complaints()  # the failed request is told there
    assert given(file, 3) == ["positive", None, None]


def test_a_command_that_has_ended_is_said(browser, file):
    with served(queue(3), file) as (_, client):
        person = Person(browser, client.url)
        person.now("text number 0")
    person.type("1")
    # A connection that is still open is told so; a new one finds nobody.
    said = ("Is it still running", "the command has ended")
    person.until(lambda: any(words in person.text("#why") for words in said))
    assert person.text(".item.now .text") == "text number 0"
    person.complaints()
    browser.get("about:blank")


def test_another_tab_has_gone_on(browser, file):
    with served(queue(3), file) as (_, client):
        person = Person(browser, client.url)
        person.now("text number 0")
        client.post("answer", id="i0", label="mixed")
        browser.execute_script("document.dispatchEvent(new Event('visibilitychange'))")
        person.now("text number 1")
        assert person.text("#count") == "1 of 3"


@pytest.mark.parametrize("width", [320, 400, 768, 1400])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_and_can_be_read(browser, file, width, dark):
    long = Queue((Item("i0", "word " * 400 + "x" * 300), Item("i1", "b")), LabelSpace(CLASSES), "# Guide")
    with served(long, file) as (_, client):
        person = Person(browser, client.url, width, dark)
        person.until(lambda: bool(person.all("#classes button")))
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        first = person.all("#classes button")[0].rect
        assert first["x"] >= 0 and first["x"] + first["width"] <= width
        top = browser.execute_script(
            "return document.querySelector('#classes button').getBoundingClientRect().bottom"
        )
        assert top <= 800, "the classes are in sight beside or below a long text"
        assert contrast(browser, ".item .text") >= 7 and contrast(browser, ".item h2") >= 4.5
        assert contrast(browser, "#classes .what") >= 4.5 or width < 1000
        time.sleep(0.2)  # the frame's colour moves for a moment
        shot = browser.get_screenshot_as_png()
        assert len(shot) > 5000


def contrast(browser, selector: str) -> float:
    """WCAG's contrast of an element's text with the first ground behind it."""
    colours = browser.execute_script(
        "const found = document.querySelector(arguments[0]); let ground = found;"
        "const clear = 'rgba(0, 0, 0, 0)', of = (n) => getComputedStyle(n).backgroundColor;"
        "while (of(ground) === clear) ground = ground.parentElement;"
        "return [getComputedStyle(found).color, of(ground)]",
        selector,
    )
    lights = []
    for colour in colours:
        parts = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_the_journal_is_what_the_page_said(browser, file):
    with served(queue(2), file) as (_, client):
        person = Person(browser, client.url)
        person.now("text number 0")
        person.type("2", "u", "3", "s")
        person.until(lambda: person.all("#end"))
    events = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [(e["event"], e["id"], e.get("label"), e.get("undoes")) for e in events] == [
        ("answer", "i0", "negative", None),
        ("undo", "i0", None, 1),
        ("answer", "i0", "mixed", None),
        ("skip", "i1", None, None),
    ]
    assert len({e["key"] for e in events}) == 4 and all(e["text"] for e in events if e["event"] != "undo")
