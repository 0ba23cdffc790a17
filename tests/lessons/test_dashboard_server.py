"""The dashboard of lesson 07, served: several sessions at once, and a real Chromium that uses it as a reader does.

The browser's test needs Debian's `chromium` (or another Chromium on the PATH) and is skipped where there is none. All
traffic stays on the loopback address.
"""

import csv
import html
import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from playwright.sync_api import Error, expect, sync_playwright
from storyteller import Rules, tell
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect

from shared.story_model import load_story_lm
from shared.world import decode, encode

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from served import CHROMIUM, FLAGS, served

MODEL = load_story_lm()
PATIENCE = 60_000  # milliseconds: a bound for a page that hangs, not a wait
SESSIONS = 6


def told(prompt="Once", rules=Rules(), seed=0, most=191):  # noqa: B008 (frozen)
    """The story that a setting tells."""
    beginning = encode(prompt)
    return decode([*beginning, *tell(MODEL, beginning, rules, seed, most)])


@pytest.fixture(scope="module")
def server():
    """The real server: its host and port."""
    with served() as host:
        yield host


def session(server, **query):
    """Open a link as a browser does, without one: the last HTML that the page sent, as text."""
    sent = BackMsg()
    sent.rerun_script.query_string = urlencode(query)
    with connect(f"ws://{server}/_stcore/stream", subprotocols=["streamlit"], max_size=None) as socket:
        socket.send(sent.SerializeToString())
        last, kind = "", ""
        while kind != "script_finished":
            answer = ForwardMsg.FromString(socket.recv(timeout=PATIENCE / 1000))
            kind = answer.WhichOneof("type")
            element = answer.delta.new_element
            assert element.WhichOneof("type") != "exception", element.exception.message
            last = element.html.body if element.WhichOneof("type") == "html" else last
    return text_of(last)


def text_of(body):
    """HTML as the page's reader sees it, the sign for a line's end as one."""
    return html.unescape(re.sub("<[^>]+>", "", body)).replace(" ⏎", "\n")


def test_sessions_at_once_each_get_their_own_story(server):
    """All links opened together, each with another seed, prompt and temperature."""
    prompts, heats = ["Once", "Once Vera", "Once Ann"], [0.5, 1.5]
    asked = [(prompts[i % 3], heats[i // 3], i) for i in range(SESSIONS)]
    with ThreadPoolExecutor(SESSIONS) as pool:
        answers = [
            pool.submit(session, server, prompt=prompt, T=heat, seed=seed, most=30, told=1)
            for prompt, heat, seed in asked
        ]
        answers = [answer.result() for answer in answers]
    assert answers == [told(prompt, Rules(T=heat), seed, 30) for prompt, heat, seed in asked]
    assert len(set(answers)) == SESSIONS


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    if not CHROMIUM:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, server):
    """A new page, which fails the test if it speaks to anybody else or if its scripts throw."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.set_default_timeout(PATIENCE)
    page, strangers, errors = context.new_page(), [], []
    page.on("request", lambda request: server in request.url or note(strangers, request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert strangers == [] and errors == []


def note(strangers, address):
    """Data in the page itself is no request."""
    if not address.startswith(("data:", "blob:")):
        strangers.append(address)


def go(page, server, **query):
    """Open a link, and wait until the page has finished its run."""
    page.goto(f"http://{server}/?{urlencode(query)}")
    expect(page.get_by_role("button", name="Generate")).to_be_visible(timeout=PATIENCE)
    page.locator("[data-test-script-state=notRunning]").wait_for()


def press(page, name):
    """Click a button. While the script runs again an old one may stand beside it: then it waits until there is one."""
    button = page.get_by_role("button", name=name)
    for _ in range(10):
        expect(button).to_have_count(1, timeout=PATIENCE)
        try:
            return button.click()
        except Error as error:
            if "strict mode violation" not in str(error):
                raise
    raise AssertionError(f"two buttons called {name} do not become one")


def until(page, look, wanted):
    """Look at the page again and again until what is seen is as wanted, however slow the machine."""
    for _ in range(PATIENCE // 100):
        if look(page) == wanted and page.locator("[data-test-script-state=notRunning]").count():
            return
        page.wait_for_timeout(100)
    assert look(page) == wanted


def stories(page):
    """The stories on the page."""
    return [text_of(part.inner_html()) for part in page.get_by_test_id("stHtml").all()]


def query(page):
    """The address's parameters."""
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def test_a_reader_types_slides_tells_steps_reloads_and_takes_the_run_away(page, server, tmp_path):
    """Everything by keyboard but the download's click."""
    go(page, server, most=30)
    expect(page.locator(".js-plotly-plot").first).to_be_visible(timeout=PATIENCE)
    slider = page.get_by_role("slider", name="Temperature")
    slider.focus()
    for heat in ("1.05", "1.1"):
        page.keyboard.press("ArrowRight")
        until(page, query, {"T": heat, "most": "30"})
    page.get_by_label("How does it begin?").fill("Once Vera")
    page.keyboard.press("Enter")
    wanted = told("Once Vera", Rules(T=1.1), most=30)
    until(page, stories, [wanted])
    until(page, query, {"T": "1.1", "most": "30", "prompt": "Once Vera", "told": "1"})

    page.get_by_role("button", name="Next").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text(f"… {decode(encode(wanted)[:3])} ?")).to_be_visible(timeout=PATIENCE)

    page.reload()
    until(page, stories, [wanted])
    with page.expect_download() as waiting:
        press(page, "Download JSON")
    waiting.value.save_as(tmp_path / "story.json")
    assert json.loads((tmp_path / "story.json").read_text(encoding="utf-8"))["text"] == wanted
    with page.expect_download() as waiting:
        press(page, "Download CSV")
    waiting.value.save_as(tmp_path / "story.csv")
    rows = list(csv.DictReader((tmp_path / "story.csv").open(encoding="utf-8")))
    assert len(rows) == len(encode(wanted))

    press(page, "Reset")
    until(page, query, {})
    expect(page.get_by_label("How does it begin?")).to_have_value("Once", timeout=PATIENCE)


def test_words_come_one_by_one(page, server):
    """On its way the page shows beginnings of the story, ever longer ones. A long story: a page that was just opened
    shows its first words late."""
    go(page, server, most=191)
    page.evaluate(
        """() => {
            window.seen = [];
            new MutationObserver(() => {
                const part = document.querySelector('[data-testid=stHtml]');
                if (part && part.innerText !== window.seen.at(-1)) window.seen.push(part.innerText);
            }).observe(document.body, {childList: true, subtree: true, characterData: true});
        }"""
    )
    press(page, "Generate")
    until(page, stories, [told(most=191)])
    story = told(most=191).strip()
    seen = [text.strip() for text in page.evaluate("window.seen") if text.strip() and "⏎" not in text]
    assert len(seen) > 3 and all(story.startswith(text) for text in seen)  # a busy machine shows several words at once
    assert sorted(seen, key=len) == seen


def test_two_settings_side_by_side_on_a_phone_in_the_dark(page, server):
    """Nothing stands out of the page; the ink is light; both stories are there."""
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 390, "height": 844})
    go(page, server, compare=1, T=0.5, **{"b.T": 1.5}, seed=3, most=30, told=1)
    until(page, stories, [told(rules=Rules(T=heat), seed=3, most=30) for heat in (0.5, 1.5)])
    main = page.get_by_test_id("stMain")
    assert main.evaluate("part => part.scrollWidth <= part.clientWidth")
    ink = page.get_by_test_id("stHtml").first.evaluate("part => getComputedStyle(part).color")
    assert min(map(int, re.findall(r"\d+", ink)[:3])) > 200


HOSTILE = (
    '<img src=x onerror="window.hacked = 1"><script>window.hacked = 1</script> '
    '![x](http://127.0.0.1:9/x.png) <a href="javascript:window.hacked=1">Tom</a>'
)


def test_a_hostile_prompt_is_never_executed(page, server):
    """Typed, and by link; afterwards the page still works. (`page` fails on a request to elsewhere.)"""
    go(page, server, prompt=HOSTILE, told=1)
    expect(page.get_by_text("these are none of them")).to_be_visible(timeout=PATIENCE)
    go(page, server, most=20)
    page.get_by_label("How does it begin?").fill(HOSTILE)
    page.keyboard.press("Enter")
    expect(page.get_by_text("these are none of them")).to_be_visible(timeout=PATIENCE)
    assert page.evaluate("window.hacked") is None
    assert page.locator("img[src=x], img[src*='127.0.0.1:9']").count() == 0
    assert page.get_by_text("Traceback").count() == 0
    page.get_by_label("How does it begin?").fill("Once")
    page.keyboard.press("Enter")
    until(page, stories, [told(most=20)])
