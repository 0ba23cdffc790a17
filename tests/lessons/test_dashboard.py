"""The dashboard of lesson 07, its page without a browser: every widget does what it says, and no prompt breaks it."""

import csv
import html
import io
import json
import re
from dataclasses import asdict
from pathlib import Path

import dashboard_page
import pytest
from storyteller import Rules, tell
from streamlit.testing.v1 import AppTest

from shared.story_model import load_story_lm
from shared.world import BASE, decode, encode, next_token_distribution

PAGE = Path(__file__).parents[2] / "07_entropy_plotter" / "dashboard.py"
MODEL = load_story_lm()


@pytest.fixture(autouse=True)
def in_no_time(monkeypatch):
    """Nobody is watching."""
    monkeypatch.setattr(dashboard_page, "PACE", 0)


def told(prompt="Once", rules=Rules(), seed=0, most=191):  # noqa: B008 (frozen)
    """The story that a setting tells."""
    beginning = encode(prompt)
    return decode([*beginning, *tell(MODEL, beginning, rules, seed, most)])


def opened(**query):
    """The page, opened by a link."""
    page = AppTest.from_file(PAGE, default_timeout=60)
    for name, value in query.items():
        page.query_params[name.replace("__", ".")] = value
    return run(page)


def run(page):
    """The page after a run, in which nothing went wrong."""
    page.run()
    assert not page.exception, page.exception[0].value
    return page


def click(page, label):
    """Press a button."""
    next(button for button in page.button if button.label == label).click()
    return run(page)


def generate(page, prompt=None):
    """Type a prompt and press Generate."""
    if prompt is not None:
        page.text_input(key="prompt").set_value(prompt)
    return click(page, "Generate")


def shown_stories(page):
    """The stories as they stand on the page."""
    bodies = [element.proto.body for element in page.get("html")]
    return [html.unescape(re.sub("<[^>]+>", "", body)).replace(" ⏎", "\n") for body in bodies]


def captions(page):
    """All small print, without the escapes."""
    return "\n".join(caption.value.replace("\\", "") for caption in page.caption)


def test_it_opens_with_the_next_word():
    """No story yet; the distribution after the prompt, with the truth beside it."""
    page = opened()
    assert shown_stories(page) == [] and page.query_params == {}
    likeliest = max(next_token_distribution("Once", BASE).items(), key=lambda pair: pair[1])
    assert f"In truth “{likeliest[0]}” leads, {likeliest[1]:.1%}" in captions(page)


def test_generate_tells_the_story_of_the_settings():
    page = opened()
    page.select_slider(key="a.T").set_value(0.8)
    page.select_slider(key="a.p").set_value(0.9)
    page.number_input(key="seed").set_value(7)
    page.slider(key="most").set_value(60)
    generate(page, "Once Vera")
    assert shown_stories(page) == [told("Once Vera", Rules(T=0.8, p=0.9), 7, 60)]


def test_a_link_tells_the_same_story_again():
    """Two settings side by side, in two sessions; the second one knows only the first one's address."""
    page, rules = opened(most="30"), Rules(1.2, 50, 0.95, 0.02, 0.9, 1.1, 0.2, True)
    for name, value in asdict(rules).items():
        page.select_slider(key=f"a.{name}").set_value(value)
    page.toggle(key="compare").set_value(True)
    run(page).select_slider(key="b.T").set_value(0.5)
    page.number_input(key="seed").set_value(11)
    first = generate(page, "Once Ann")
    assert shown_stories(first) == [told("Once Ann", each, 11, 30) for each in (rules, Rules(T=0.5))]
    query = dict(first.query_params)
    assert query["told"] == "1" and query["b.T"] == "0.5" and query["prompt"] == "Once Ann"
    second = opened(**{name.replace(".", "__"): value for name, value in query.items()})
    assert shown_stories(second) == shown_stories(first)


def test_the_address_says_told_only_while_the_story_is_that_of_the_settings():
    page = generate(opened(most="20"))
    assert "told" in page.query_params
    page.select_slider(key="a.T").set_value(2.0)
    assert "told" not in run(page).query_params and "Told with other settings" in captions(page)
    page.select_slider(key="a.T").set_value(1.0)
    assert "told" in run(page).query_params


def test_nonsense_in_the_address_is_named():
    page = opened(T="<b>hot</b>", seed="-3", most="many", k="7")
    assert "T in the address is '<b>hot</b>': 1 is used instead." in page.info[0].value.replace("\\", "")
    assert page.number_input(key="seed").value == 0 and page.slider(key="most").value == 191
    assert page.select_slider(key="a.k").value == 7
    said = "\n".join(remark.value for remark in page.info).replace("\\", "")
    assert "seed in the address is '-3': 0 is used instead." in said
    assert "most in the address is 'many': 191 is used instead." in said
    assert not opened(T="0.80", seed="007", at="0").info[1:] and len(opened(seed="--5", most="1e3", at="x").info) == 3


def test_the_browsers_way_back_after_a_step_is_a_step_back():
    """The story stays, and so do the points; any other change of the address tells anew."""
    page = generate(opened(seed="1", most="40"))
    story = page.session_state["stories"]["a"]
    page.session_state["many"] = [dashboard_page.point("a point", ["Once"]) | {"texts": ["Once"], "seed": 0}]
    before = dict(page.query_params)
    click(page, "Next ▶")
    assert dict(page.query_params) == before | {"at": "2"}
    page.query_params.clear()
    for name, value in before.items():
        page.query_params[name] = value
    run(page)
    assert page.slider(key="at").value == 1 and page.session_state["stories"]["a"] is story
    assert len(page.session_state["many"]) == 1
    page.query_params["seed"] = "2"
    assert shown_stories(run(page)) == [told(seed=2, most=40)] and len(page.session_state["many"]) == 1


def test_stepping_through_a_story():
    """Back and on by a word, and by the slider; the ends hold."""
    page, words = generate(opened(seed="1", most="20")), encode(told(seed=1, most=20))
    assert (page.slider(key="at").value, page.slider(key="at").max) == (1, len(words))
    click(page, "Next ▶")
    assert page.slider(key="at").value == 2
    click(page, "◀ Back")
    click(page, "◀ Back")
    assert next(button for button in page.button if button.label == "◀ Back").disabled
    page.slider(key="at").set_value(5)
    before = decode(words[:5])
    assert f"… {before} **?**" in captions(run(page))
    likeliest = max(next_token_distribution(before, BASE).items(), key=lambda pair: pair[1])
    assert f"In truth “{likeliest[0]}” leads" in captions(page) and page.query_params["at"] == "5"
    for at, wanted in (("5", 5), ("190", len(words)), ("junk", 0)):
        assert opened(seed="1", most="20", told="1", at=at).slider(key="at").value == wanted


def test_a_slider_moves_the_distribution_at_once():
    page = generate(opened(most="20"))
    story = shown_stories(page)
    page.select_slider(key="a.k").set_value(1)
    run(page)
    assert "Cut: 1025 of 1026 words (top-k 1025)" in captions(page) and "Entropy now 0.00 nats" in captions(page)
    assert shown_stories(page) == story


def test_the_judge_names_the_broken_rule():
    """A text that goes on from a wrong word: the judge says which, and the page underlines it."""
    page = generate(opened(most="20"), "Once Tom was in")
    assert any("not accepted" in part.value for part in page.markdown)
    assert any("word 2 is 'was'" in part.value.replace("\\", "") for part in page.markdown)
    assert "breaks: " in page.get("html")[0].proto.body
    page.slider(key="at").set_value(9)
    assert "There is no true distribution" in captions(run(page))


def test_unknown_words_are_named_and_one_click_mends_them():
    page = generate(opened(most="20"), "Once Tomm was")
    assert "Tomm" in "".join(part.value for part in page.markdown) and page.error
    click(page, "Tom")
    assert page.text_input(key="prompt").value == "Once Tom was" and not page.error
    assert page.query_params["prompt"] == "Once Tom was" and shown_stories(page) == [told("Once Tom was", most=20)]


def test_suggestions_can_be_taken_and_are_texts_of_the_world():
    """After a mistake too, where one tells nothing by itself; and again after another prompt."""
    page = generate(opened(most="20"), "Once Tomm")
    for suggestion in dashboard_page.SUGGESTIONS:
        page.pills[0].set_value(suggestion)
        assert run(page).text_input(key="prompt").value == suggestion and shown_stories(page) == []
        assert next_token_distribution(suggestion, BASE)
    assert generate(page, "Once").pills[0].value is None  # so that it can be clicked again


def test_what_is_touched_while_a_story_is_told_does_not_lose_it(monkeypatch):
    """The run of the page ends at the touch; the next one tells by what is set then. So do many stories."""

    def touched(*_):
        raise RuntimeError("a slider was moved")

    page = opened(most="20")
    with monkeypatch.context() as patch:
        patch.setattr(dashboard_page, "paragraph", touched)
        next(button for button in page.button if button.label == "Generate").click()
        page.run()
    page.select_slider(key="a.T").set_value(0.5)
    assert shown_stories(run(page)) == [told(rules=Rules(T=0.5), most=20)]
    monkeypatch.setattr(dashboard_page, "MANY", 2)
    with monkeypatch.context() as patch:
        patch.setattr(dashboard_page, "tell_many", touched)
        run(page)
        next(button for button in page.button if button.label.startswith("Tell")).click()
        page.run()
    assert len(run(page).session_state["many"]) == 1
    assert len(run(page).session_state["many"]) == 1


def test_an_empty_prompt_begins_a_document():
    assert shown_stories(generate(opened(most="20"), "")) == [told("", most=20)]
    page = opened(prompt="", told="1", most="20")
    assert shown_stories(page) == [told("", most=20)]
    assert "In truth “Once” leads, 85.0%" in captions(opened(prompt="  "))


@pytest.mark.parametrize(
    "prompt",
    [
        "Once " * 10_000,
        " ".join(f"word{i}" for i in range(10_000)),
        "<script>alert(1)</script><img src=x onerror=alert(1)> ![x](http://127.0.0.1/x.png) :red[a] $x$ {{7*7}} %s %n",
        "\x00\x1b[31m\u202e\u200b\ufeff Once",
        "Once\nOnce\r\n\tOnce",
    ],
)
def test_no_prompt_breaks_the_page(prompt):
    """Typed and by link: explained or told, without a traceback; and the next prompt works."""
    for page in (generate(opened(most="20"), prompt), opened(most="20", prompt=prompt, told="1")):
        assert page.error or shown_stories(page)
        for body in (element.proto.body for element in page.get("html")):
            assert not re.search(r"<(?!/?(p|span)\b)", body)
    assert shown_stories(generate(page, "Once")) == [told(most=20)]


def test_a_prompt_that_fills_the_model_is_refused_and_one_less_is_taken():
    assert "shorten it" in generate(opened(), "was " * 191).error[0].value
    assert len(encode(shown_stories(generate(opened(), "was " * 190))[0])) == 191


def test_many_stories_make_a_point(monkeypatch):
    """Of the seeds from the one that is set on; each setting's point stays."""
    monkeypatch.setattr(dashboard_page, "MANY", 2)
    page = opened(seed="5", most="40")
    click(page, "Tell 2 stories")
    page.select_slider(key="a.T").set_value(0.0)
    click(run(page), "Tell 2 stories")
    points = page.session_state["many"]
    assert points[0]["texts"] == [told(seed=seed, most=40) for seed in (5, 6)]
    assert len(set(points[1]["texts"])) == 1 and points[1]["words"] < points[0]["words"]
    said = f"2: T 0, from “Once”: {points[1]['accepted']} of 2 accepted, {points[1]['words']} different words"
    assert said in captions(page) and "the world, from “Once”: 2 of 2 accepted" in captions(page)


def test_a_run_can_be_taken_away():
    """The files that the buttons hand out, read back."""
    files = {}

    def keep(label, content, name, kind, key):
        files[label] = (content, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dashboard_page.st, "download_button", keep)
        generate(opened(seed="4", T="0.7", most="20"))
    record = json.loads(files["Download JSON"][0])
    assert record["text"] == told(rules=Rules(T=0.7), seed=4, most=20) and record["rules"]["T"] == 0.7
    rows = list(csv.DictReader(io.StringIO(files["Download CSV"][0])))
    assert len(rows) == len(record["words"]) == len(encode(record["text"]))
    assert [float(row["surprisal"]) for row in rows] == [row["surprisal"] for row in record["words"]]
    assert files["Download CSV"][1] == "story-a-4.csv"


def test_a_run_can_be_logged(tmp_path, monkeypatch):
    """To files, a row a word; not unless it is asked for."""
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    page = generate(opened(most="9"))
    assert not list(tmp_path.iterdir())
    page.toggle(key="log").set_value(True)
    page.toggle(key="compare").set_value(True)
    generate(run(page))
    assert len(list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))) == 2
    assert f"Logged, offline, to {tmp_path}/wandb" in page.toast[0].value.replace("\\", "")
    page.toggle(key="compare").set_value(False)
    generate(run(page))  # what is not shown is not logged
    assert len(list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))) == 3
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert "Nothing is logged" in generate(page).toast[0].value


@pytest.mark.parametrize(
    ("mode", "folder", "said"),
    [("sideways", ".", "WANDB_MODE is 'sideways'"), ("offline", "a file", "The run was not logged")],
)
def test_a_log_that_cannot_be_is_explained(monkeypatch, tmp_path, mode, folder, said):
    (tmp_path / "a file").write_text("no folder")
    monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / folder))
    page = opened(most="9")
    page.toggle(key="log").set_value(True)
    generate(run(page))
    assert said in page.error[0].value.replace("\\", "")
    assert shown_stories(page) == [told(most=9)]


def test_a_prompt_too_long_for_the_address_is_told_and_makes_no_link():
    """Rather no link than one that tells another story."""
    prompt = " ".join(["grandfather"] * 180)
    page = generate(opened(most="5"), prompt)
    assert "does not fit" in page.warning[0].value and shown_stories(page) == [told(prompt, most=5)]
    assert page.query_params == {"most": "5"}
