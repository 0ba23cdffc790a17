"""What stands on the dashboard's page: its widgets, what they do, and the address that carries them.

A run of the page goes through `show_page` from top to bottom, at each click anew; what must outlive it is in
`st.session_state`: the widgets under their own keys (the sliders of setting A as "a.T", ...), the stories told, the
points of the frontier, and the place that is looked at.
"""

import csv
import html
import io
import json
import os
import threading
import time
from dataclasses import asdict, replace
from itertools import zip_longest

import dashboard_figures as figures
import streamlit as st
import torch
from dashboard_address import KNOBS, MOST, SEEDS, from_query, to_query, whole_number
from frontier_sweep import world_stories
from storyteller import (
    Rules,
    Told,
    Unknown,
    as_record,
    clean,
    heat_curve,
    model_logits,
    place,
    room,
    table,
    tell,
    tell_many,
    true_offers,
    unknown_words,
    words_of,
)

from shared.story_model import load_story_lm, record
from shared.tracking import track, wandb_mode
from shared.world import BASE, END, VOCABULARY, decode, encode, judge, split

SUGGESTIONS = [
    "Once",
    "Once Ann Carter, an",
    "Once Vera Snow",
    "Kate Frost likes",
    "Varna is the",
    "Write a sad story about Tom.",
]
MANY = 32  # stories for a point of the frontier
BREACHES = 8  # of a story, named; a hot story has dozens
PACE = 0.02  # seconds a word: the model is faster than a page can show
IN_ADDRESS = 2000  # letters; browsers and servers refuse addresses that are much longer
TEMPERATURES = [round(0.05 * i, 2) for i in range(1, 61)]
LOG_LOCK = threading.Lock()  # Weights & Biases keeps its settings for the whole process


@st.cache_resource(show_spinner="Loading the story model")
def story_model():
    """The bundled model, one for all sessions: nothing writes to it."""
    torch.set_num_threads(1)  # small matrices: more threads would only get in each other's way
    return load_story_lm()


@st.cache_data
def world_point(n: int) -> dict:
    """What the world's own stories score."""
    return point("the world, from “Once”", world_stories(n, seed=0))


def point(name: str, texts: list[str]) -> dict:
    """A point of the frontier."""
    accepted = sum(judge(text, BASE).flawless for text in texts)
    words = {word for text in texts for word in split(text)} - {END}
    return {"name": name, "accepted": accepted, "of": len(texts), "words": len(words)}


# ---- settings: widgets, session and address


def rules_of(side: str) -> Rules:
    """The rules that the sliders of a side, "a" or "b", stand at."""
    return Rules(**{knob.name: st.session_state[f"{side}.{knob.name}"] for knob in KNOBS})


def set_rules(side: str, rules: Rules) -> None:
    """Move the sliders of a side."""
    for name, value in asdict(rules).items():
        st.session_state[f"{side}.{name}"] = value


def read_address() -> None:
    """Set all from the page's address, when the page is opened or its address was changed: by hand, or by the browser's
    way back, which after a step is a step back."""
    query, state = st.query_params.to_dict(), st.session_state
    if "address" in state and without_place(query) == without_place(state["address"]) and "told" in query:
        state["address"], state["at"] = query, whole_number(query, "at", (0, MOST[1]), len(split(prompt_now())))[0]
        return
    a, remarks = from_query(query)
    b, more = from_query(query, "b.")
    set_rules("a", a)
    set_rules("b", b)
    state["prompt"] = clean(query.get("prompt", "Once"))
    state["seed"], of_seed = whole_number(query, "seed", SEEDS, 0)
    state["most"], of_most = whole_number(query, "most", MOST, MOST[1])
    state["compare"] = query.get("compare") == "1"
    at, of_at = whole_number(query, "at", (0, MOST[1]), 0)
    state["look_at"] = at if "at" in query else None
    state["stories"], state["address"] = {}, query
    state["remarks"] = [*remarks, *more, *of_seed, *of_most, *of_at]
    state["telling"], state["telling_many"] = query.get("told") == "1", False
    state.setdefault("many", [])


def without_place(query: dict[str, str]) -> dict[str, str]:
    """An address's parameters but for the place that is looked at."""
    return {name: value for name, value in query.items() if name != "at"}


def write_address() -> None:
    """Put all that was set into the page's address; `told` if the stories shown are those of the settings,
    and then `at`, the place that is looked at."""
    state = st.session_state
    query = to_query(rules_of("a"))
    if state["compare"]:
        query |= {"compare": "1"} | to_query(rules_of("b"), "b.")
    numbers = {"seed": (state["seed"], 0), "most": (state["most"], MOST[1])}
    query |= {name: str(value) for name, (value, default) in numbers.items() if value != default}
    fits = len(prompt_now()) <= IN_ADDRESS
    if prompt_now() != "Once" and fits:
        query["prompt"] = prompt_now()
    if fits and all(is_current(side) for side in sides()):
        query["told"] = "1"
        query |= {"at": str(state["at"])} if state["at"] != len(split(prompt_now())) else {}
    state["address"] = query
    if st.query_params.to_dict() != query:
        st.query_params.from_dict(query)


def prompt_now() -> str:
    """What stands in the prompt's field, in one line."""
    return clean(st.session_state["prompt"])


def sides() -> list[str]:
    """Those that are shown."""
    return ["a", "b"] if st.session_state["compare"] else ["a"]


def is_current(side: str) -> bool:
    """Its story was told with what the page is set to."""
    state, story = st.session_state, st.session_state["stories"].get(side)
    return story is not None and replace(story, words=()) == Told(
        prompt_now(), rules_of(side), state["seed"], state["most"], ()
    )


def reset() -> None:
    """As if opened anew, without parameters."""
    st.query_params.clear()
    read_address()
    st.session_state["many"] = []


def suggest() -> None:
    """Take the suggestion that was clicked; it can be clicked again."""
    state = st.session_state
    state["prompt"], state["stories"], state["telling"] = state["suggestion"], {}, False
    state["suggestion"] = None


def replace_word(old: str, new: str) -> None:
    """Put a known word in an unknown one's place."""
    words = [new if word == old else word for word in split(st.session_state["prompt"])]
    st.session_state["prompt"], st.session_state["stories"] = " ".join(words), {}


def step(by: int) -> None:
    """Go on or back in the story."""
    st.session_state["at"] += by


def plain(text: str) -> str:
    """A text in which Markdown finds nothing to do."""
    return "".join(f"\\{sign}" if sign.isascii() and not sign.isalnum() and sign != " " else sign for sign in text)


# ---- the page


def sidebar() -> None:
    """All settings but the prompt."""
    with st.sidebar:
        st.toggle("Compare two settings", key="compare", help="The same prompt and seed, two sets of rules.")
        for side in sides():
            if st.session_state["compare"]:
                st.subheader(f"Rules {side.upper()}")
            for knob in KNOBS:
                key = f"{side}.{knob.name}"
                st.session_state.setdefault(key, getattr(Rules, knob.name))
                label = knob.label if len(sides()) == 1 else f"{knob.label}, {side.upper()}"
                st.select_slider(label, knob.options, format_func=stop_name(knob.name), key=key, help=knob.help)
        st.subheader("The draw")
        st.number_input("Seed", *SEEDS, key="seed", help="The same seed and settings tell the same story.")
        st.slider(
            "Words to tell, at most", *MOST, key="most", help="A story has about 120; one cut off is no good one."
        )
        st.toggle("Log each run to Weights & Biases", key="log", help="Offline unless WANDB_MODE=online is set.")


def stop_name(name: str):
    """How a slider's stops are called."""
    special = {
        "k": {len(VOCABULARY): "all"},
        "cut_first": {False: "heat, then cut", True: "cut, then heat"},
        "T": {0: "0 (greedy)"},
    }
    return lambda value: special.get(name, {}).get(value, f"{value:g}")


def ask() -> list[int] | None:
    """The prompt, with suggestions and buttons. Returns its ids, None if the model cannot go on from it."""
    with st.form("ask", border=False):
        st.text_input("How does it begin?", key="prompt", placeholder="Empty: a new document begins")
        left, right = st.columns(2)
        told = left.form_submit_button("Generate", type="primary", width="stretch")
        right.form_submit_button("Reset", on_click=reset, width="stretch")
    st.pills("Suggestions", SUGGESTIONS, key="suggestion", on_change=suggest)
    for remark in st.session_state["remarks"]:
        st.info(plain(remark))
    if told:
        st.session_state["telling"], st.session_state["remarks"] = True, []
    prompt = prompt_now()
    if len(prompt) > IN_ADDRESS:
        st.warning(f"A prompt of {len(prompt):,} letters does not fit into the address: a link would not carry it.")
    strangers, more = unknown_words(prompt)
    if strangers:
        explain_unknown(strangers, more)
        return None
    beginning = encode(prompt)
    if not room(story_model(), beginning):
        most = story_model().context - 2
        st.error(f"The prompt has {len(beginning):,} words. The model reads {most} and then says one more: shorten it.")
        return None
    return beginning


def explain_unknown(strangers: list[Unknown], more: int) -> None:
    """Name the unknown words, `more` excepted, and offer near ones to click on."""
    st.error(f"The story world has {len(VOCABULARY):,} words; these are none of them. Click on one to take it.")
    for number, stranger in enumerate(strangers):
        shown = repr(stranger.word if len(stranger.word) <= 30 else stranger.word[:30] + "…")
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(plain(shown) + ("" if stranger.near else ": nothing is near it"))
            for near in stranger.near:
                st.button(near, key=f"near {number} {near}", on_click=replace_word, args=(stranger.word, near))
    if more:
        st.caption(f"And {more:,} more.")


def tell_stories(beginning: list[int], columns: list) -> None:
    """Tell a story in each column, both at once, word by word, and keep them. Whatever is touched meanwhile ends this
    run of the page; `telling` stays, so that the next one tells by what is set then."""
    state = st.session_state
    boxes = [column.empty() for column in columns]
    words = [list(beginning) for _ in columns]
    streams = [tell(story_model(), beginning, rules_of(side), state["seed"], state["most"]) for side in sides()]
    for following in zip_longest(*streams):
        time.sleep(PACE)
        for box, so_far, word in zip(boxes, words, following, strict=True):
            if word is not None:
                so_far.append(word)
                box.html(paragraph(html.escape(decode(so_far))))
    for box in boxes:
        box.empty()
    for side, so_far in zip(sides(), words, strict=True):
        state["stories"][side] = Told(prompt_now(), rules_of(side), state["seed"], state["most"], tuple(so_far))
    state["at"] = len(beginning) if state["look_at"] is None else state["look_at"]
    state["look_at"], state["telling"] = None, False
    if state["log"]:
        log([state["stories"][side] for side in sides()])


def log(stories: list[Told]) -> None:
    """Each story as a run: its settings, and a row a word. What goes wrong is said, and the page goes on."""
    with LOG_LOCK:
        for story in stories:
            config = asdict(story.rules) | {"prompt": story.prompt, "seed": story.seed, "most": story.most}
            try:
                with track("07-dashboard", config) as run:
                    for row in table(story_model(), story):
                        run.log(**{key: value for key, value in row.items() if isinstance(value, int | float)})
            except (ValueError, OSError) as error:
                st.error(plain(f"The run was not logged. {error}"))
                return
    where = f"Logged, {wandb_mode()}, to {os.environ.get('WANDB_DIR') or '.'}/wandb."
    st.toast(plain("Nothing is logged: WANDB_MODE is disabled." if wandb_mode() == "disabled" else where))


def as_html(pieces: list[tuple[str, float, str]]) -> str:
    """A story's words, each with its surprisal as the strength of a colour, and with a rule that it breaks."""
    spans = []
    for piece, surprisal, broken in pieces:
        strength = min(surprisal / 8, 1) * 0.55
        style = f"background: rgba(230, 159, 0, {strength:.2f}); border-radius: 3px;"
        style += " text-decoration: underline wavy #D55E00 2px;" if broken else ""
        said = html.escape(piece.replace("\n", " ⏎"))
        title = html.escape(f"{surprisal:.2f} nats" + (f"; breaks: {broken}" if broken else ""), quote=True)
        spans.append(f'<span style="{style}" title="{title}">{said}</span>')
    return paragraph("".join(spans))


def paragraph(content: str) -> str:
    """HTML in a story's type."""
    return f'<p style="line-height: 1.9; font-size: 1.05rem">{content}</p>'


def show_story(side: str) -> None:
    """The story, coloured by surprisal, and what the judge says of it."""
    story = st.session_state["stories"][side]
    if not is_current(side):
        st.caption(plain(f"Told with other settings than those that stand here now: {story.rules}, seed {story.seed}."))
    rows, heard = table(story_model(), story), judge(story.text, BASE)
    breaches = {breach.at: breach for sentence in heard.sentences for breach in sentence.breaches}
    broken = {at: breach.rule for at, breach in breaches.items()}
    pieces = zip(words_of(story.words), rows, strict=True)
    st.html(as_html([(piece, row["surprisal"], broken.get(row["at"], "")) for piece, row in pieces]))
    st.caption("The stronger the colour, the more surprising the word. Underlined: a rule of the world is broken.")
    verdict = "accepted" if heard.flawless else "not accepted"
    whole = [sentence for sentence in heard.sentences if sentence.finished]
    held = sum(sentence.consistent for sentence in whole)
    st.markdown(f"**Judge: {verdict}.** {held} of {len(whole)} finished sentences hold.")
    for breach in list(breaches.values())[:BREACHES]:
        st.markdown(f"- {plain(str(breach))}")
    if len(breaches) > BREACHES:
        st.markdown(f"- and {len(breaches) - BREACHES} more")
    if not heard.finished:
        st.markdown(
            "- " + ("the document is over before its end" if story.text.endswith(END) else "the text breaks off")
        )
    downloads(side, story, rows)


def downloads(side: str, story: Told, rows: list[dict]) -> None:
    """The run as JSON and as CSV."""
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)
    whole = json.dumps(as_record(story, rows, record()["sha256"]), indent=1)
    name = f"story-{side}-{story.seed}"
    with st.container(horizontal=True):
        st.download_button("Download JSON", whole, f"{name}.json", "application/json", key=f"json {side}")
        st.download_button("Download CSV", out.getvalue(), f"{name}.csv", "text/csv", key=f"csv {side}")


def choose_place(last: int) -> int:
    """Which word of the text is looked at; `last` is the one that would come next."""
    state = st.session_state
    state["at"] = min(max(state.get("at", last), 0), last)
    if not last:
        return 0
    st.subheader("Step through it")
    back, middle, on = st.columns([1, 6, 1], vertical_alignment="bottom")
    back.button("◀ Back", on_click=step, args=(-1,), disabled=state["at"] == 0, width="stretch")
    on.button("Next ▶", on_click=step, args=(1,), disabled=state["at"] == last, width="stretch")
    return middle.slider("Word", 0, last, key="at", help="What could stand at this place, by the rules as they stand.")


def show_place(side: str, words: tuple[int, ...], at: int) -> None:
    """What can stand at one place: the next word, entropy over temperature, and the way along the story."""
    at = min(at, len(words))
    rules, before = rules_of(side), words[:at]
    logits, offered = model_logits(story_model(), words)[at], true_offers(before)
    here = place(logits, before, rules, offered[at] if at < len(offered) else None)
    left, right = (st.container(), st.container()) if st.session_state["compare"] else st.columns(2)
    with left:
        st.caption("… " + plain("".join(words_of(before)[-12:]).strip()) + " **?**")
        if side in st.session_state["stories"] and not is_current(side):
            st.caption("By the rules as they stand now, which are not those of the story.")
        show(figures.next_word(here, words[at] if at < len(words) else None), f"next {side}")
        if here.true is None:
            st.caption("There is no true distribution: the world could not have written what stands before.")
    with right:
        alone = heat_curve(logits, before, Rules(), TEMPERATURES)
        ruled = heat_curve(logits, before, rules, TEMPERATURES) if replace(rules, T=1.0) != Rules() else None
        show(figures.entropy_over_heat(TEMPERATURES, alone, ruled, rules.T, here), f"heat {side}")
        if story := st.session_state["stories"].get(side):
            show(figures.along(table(story_model(), story), at), f"along {side}")


def show(picture: tuple, key: str) -> None:
    """A figure, and its sentence under it."""
    figure, sentence = picture
    st.plotly_chart(figure, key=key, config={"displayModeBar": False})
    st.caption(plain(sentence))


def show_many(beginning: list[int]) -> None:
    """Many stories by each setting: share accepted against different words."""
    state = st.session_state
    st.subheader("Many stories")
    beginning_with = f"from “{prompt_now()[:40] or 'nothing'}”"
    if state["most"] < MOST[1]:
        st.caption(f"A story that is not over after {state['most']} words is cut off, and not accepted.")
    st.caption(f"Each point: {MANY} stories {plain(beginning_with)}, with the seeds from the one above on.")
    if st.button(f"Tell {MANY} stories"):
        state["telling_many"] = True
    if state["telling_many"]:
        for side in sides():
            rules, bar = rules_of(side), st.progress(0.0, "Telling")
            told = tell_many(story_model(), beginning, rules, state["seed"], state["most"], MANY, bar.progress)
            bar.empty()
            texts = [decode(words) for words in told]
            name = f"{len(state['many']) + 1}: {rules}, {beginning_with}"
            state["many"].append(point(name, texts) | {"texts": texts, "seed": state["seed"]})
        state["telling_many"] = False
    if state["many"]:
        show(figures.frontier([world_point(MANY), *state["many"]]), "frontier")
        last = state["many"][-1]
        with st.expander(f"The stories of point {len(state['many'])}"):
            for seed, text in enumerate(last["texts"], last["seed"]):
                verdict = "accepted" if judge(text, BASE).flawless else "not accepted"
                st.markdown(f"**Seed {seed}: {verdict}.** {plain(text.strip())}")


def about() -> None:
    """What the model is."""
    found = record()
    with st.expander("What is this?"):
        st.markdown(
            f"A model of {found['parameters']:,} parameters that learnt small stories from a grammar. Since every "
            "choice of the grammar is known, so is the true distribution of the next word, and a judge can tell "
            f"whether a story holds together. The model's KL(true ‖ model) is {found['excess']:.4f} nats a word. "
            "The lesson is `sampling_vis.ipynb`, in this folder; the rules are in `sampling.py`."
        )


def show_page() -> None:
    """One run of the page."""
    if "address" not in st.session_state or st.query_params.to_dict() != st.session_state["address"]:
        read_address()
    sidebar()
    beginning = ask()
    if beginning is not None:
        columns = st.columns(len(sides()))
        if st.session_state["telling"]:
            tell_stories(beginning, columns)
        stories = st.session_state["stories"]
        for side, column in zip(sides(), columns, strict=True):
            with column:
                if len(sides()) == 2:
                    st.subheader(f"{side.upper()}: {rules_of(side)}")
                if side in stories and stories[side].words:
                    show_story(side)
                elif stories:
                    st.caption("Not told yet: press Generate.")
        shown = {side: stories[side].words if side in stories else tuple(beginning) for side in sides()}
        at = choose_place(max(len(words) for words in shown.values()))
        for side, column in zip(sides(), st.columns(len(sides())), strict=True):
            with column:
                show_place(side, shown[side], at)
        show_many(beginning)
    about()
    write_address()
