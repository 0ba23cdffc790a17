"""Lesson 14's look into the real model: its template is the file's, checkers and measures are right, rules can fail."""

import math
from types import SimpleNamespace

import jinja2
import pytest
import real_chat
import real_instruct
import real_instruct_rate_sweep
import real_instruct_rules
import real_instruct_sweep
import real_lora
import real_lora_sweep
import torch
from instruct import IGNORE, adapters, parse, render
from real_chat import cut, own_template
from real_instruct import ARMS, Arm, apart, judged, kl, p_stop, prompt
from real_requests import JUDGES, SEEN
from small_models import VOCABULARY, llama

from shared.gguf_tokenizer import END, START, SYSTEM, read_tokenizer
from shared.gguf_vocabulary import read_vocabulary
from shared.sweeps import best_rate, stored

SWEEPS = (real_instruct_sweep.SWEEP, real_lora_sweep.SWEEP)
MODULES = (real_chat, real_instruct, real_instruct_sweep, real_lora, real_lora_sweep)


@pytest.fixture
def real(smollm2_path, monkeypatch):
    """The real tokenizer, without its model."""
    tokenizer = read_tokenizer(smollm2_path)
    _put(monkeypatch, None, tokenizer)
    return tokenizer


@pytest.fixture
def small(monkeypatch):
    """A Llama of two layers in the real model's place, whose tokens are characters; its stop is 1."""
    model = llama(bias=False)
    model.context = 4000
    specials = {real_chat.ENDS_TEXT: 0, END: 1, START: 2}
    encode = lambda text, allowed=(): [3 + ord(c) % (VOCABULARY - 3) for c in text]  # noqa: E731
    decode = lambda ids: "".join(chr(97 + i % 26) for i in ids)  # noqa: E731
    vocab = [bytes([i]) for i in range(VOCABULARY)]
    chat = lambda messages: encode(messages[0][1])  # noqa: E731
    _put(monkeypatch, model, SimpleNamespace(specials=specials, encode=encode, decode=decode, vocab=vocab, chat=chat))
    yield model
    _clear()


def _put(monkeypatch, *pair):
    for module in MODULES:
        monkeypatch.setattr(module, "model_and_tokenizer", lambda: pair)
    _clear()


def _clear():
    for cached in (real_instruct.without_space, real_instruct.told_by_own, real_instruct_sweep.own_answers):
        cached.cache_clear()


# The template, requests and their checkers


def test_the_template_is_the_file_s_own(real, smollm2_path):
    """As Jinja writes it, as `chat` does, and back."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)  # as transformers sets it
    theirs = environment.from_string(read_vocabulary(smollm2_path).chat_template)
    said = [("system", SYSTEM), ("user", JUDGES[0].request), ("assistant", "It is Paris."), ("user", "And\n2 + 2?")]
    ids = [(role, real.encode(text)) for role, text in said]
    found = render(ids, own_template(), reply=True)
    text = theirs.render(messages=[{"role": role, "content": it} for role, it in said], add_generation_prompt=True)
    assert found.ids == real.encode(text, "all") == real.chat(said)
    assert parse(found.ids, own_template()) == [*ids, ("assistant", [])]
    answers = [token for token, its in zip(found.ids, found.answer, strict=True) if its]
    assert answers == [*real.encode("It is Paris."), real.specials[END]]


def test_arms_differ_from_the_own_template_in_what_they_are_called(real):
    own = {ask: prompt(ARMS["own"], ask.request) for ask in (*SEEN, *JUDGES)}
    assert all(ids == real.chat([("user", ask.request)]) for ask, ids in own.items())
    read = {name: prompt(arm, SEEN[0].request) for name, arm in ARMS.items()}
    assert len(set(map(tuple, read.values()))) == len(ARMS)
    assert all(real.decode(real.encode(SEEN[0].request)) in real.decode(ids) for ids in read.values())
    assert real.decode(read["spelled"]) == real.decode(read["own"]) and not {1, 2} & set(read["spelled"])
    lengths = {len(real.encode(line)) for line in (SYSTEM, *real_instruct.OTHER_SYSTEMS.values())}
    assert len(lengths) == 1
    missing = {name: len(read["own"]) - len(read[name]) for name, arm in ARMS.items() if name.startswith("no ")}
    one = ("newline", "end", "start")
    assert all(n == 1 for name, n in missing.items() if name.split()[1] in one), missing


def test_each_gold_answer_obeys_and_no_other_family_s_does(real):
    asks = [*SEEN, *JUDGES]
    assert len({ask.request for ask in asks}) == 64 and len(SEEN) == len(JUDGES) == 32
    for ask in asks:
        right = judged(ask, [*real.encode(ask.gold), real.specials[END]])
        assert right["obeyed"] and right["stops"] and not right["mimics"], ask
        assert not ask.has_form("") and not ask.has_content("")
        wrong = [it for it in asks if it.family != ask.family and ask.has_content(it.gold) and ask.form != "any"]
        assert sum(ask.has_form(it.gold) for it in wrong) <= 2, ask


@pytest.mark.parametrize(
    ("which", "text", "form", "content"),
    [
        ("opposite", "The opposite of day is night.", 0, 1),
        ("opposite", "Day.", 1, 0),
        ("yes or no", "Yes, it is.", 0, 1),
        ("three", "Dog, cat and horse", 0, 1),
        ("three", "Dog, cat, and horse", 1, 1),
        ("list", "Here it is:\n1. Red\n2. Green\n3. Blue", 0, 1),
        ("list", "- Red\n- Green\n- Blue", 1, 1),
        ("capitals", "GARDEN", 1, 1),
        ("capitals", "Garden", 0, 1),
        ("copy", "We drink tea at noon. And more.", 0, 1),
        ("three times", "stone, stone", 0, 1),
        ("sum", "9.", 1, 1),
        ("sum", "3 + 6 = 9", 0, 1),
        ("sum", "8", 1, 0),
        ("French", "Water", 1, 0),
        ("begin", "Now the sea. Then more.", 1, 1),
        ("sentence", "A horse runs. It eats.", 0, 1),
        ("sentence", "A horse that", 0, 1),
        ("quotes", "The word “window”", 0, 1),
        ("quotes", "“Window”", 1, 1),
        ("choice", "The whale.", 1, 1),
        ("choice", "A cat is larger than a whale.", 0, 0),
        ("choice", "A whale is larger than a cat.", 0, 1),
    ],
)
def test_checkers_by_hand(which, text, form, content):
    ask = next(ask for ask in JUDGES if ask.family == which)
    assert (int(ask.has_form(text)), int(ask.has_content(text))) == (form, content)


def test_what_is_said_of_an_answer(real):
    stop = [real.specials[END]]

    def found(text, stops=False, ask=JUDGES[0]):
        return judged(ask, real.encode(text, "all") + stop * stops)

    assert JUDGES[0].request == "What is the capital of France?"
    assert found("The capital is Paris.", True) == dict(
        form=1, content=1, obeyed=1, stops=1, empty=0, echoes=0, asks=0, turns=0, mimics=0
    )
    assert found("What is the capital", True)["echoes"] and found("Why?")["asks"] and found("", True)["empty"]
    on = found("Paris.\nQ: What is the capital of Italy?\nA: Rome")
    assert on["turns"] and on["asks"] and on["mimics"] and on["content"] and not on["stops"]
    assert not found("Nothing.\nUser: Paris")["content"] and not found(f"{START}assistant\nParis.")["turns"]
    assert cut(f" Paris. \n###{END}") == "Paris." and found("Paris.<|im_end|> and so on")["content"]
    copy = next(ask for ask in JUDGES if ask.family == "copy")
    assert found("Repeat this sentence: We drink", ask=copy)["echoes"] and not found(copy.gold, ask=copy)["echoes"]


# What is likely along an answer


def test_distances_are_those_of_whole_texts(small):
    arm, ask, answer = Arm("text", "ab{request}", ""), SEEN[0], "xyzxyzxyzxyzxyz"
    found = apart(small, arm, ask, answer)
    assert len(found["kl"]) == len(found["rank"]) == real_instruct.PLACES
    both = []
    for it in (ARMS["own"], arm):
        ids = torch.tensor([prompt(it, ask.request) + real_instruct.with_lead(it, answer)])
        n = len(answer)
        both.append(small(ids)[0, -n - 1 :].log_softmax(dim=-1)[: real_instruct.PLACES])
    p, q = both
    want = torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(dim=1)
    torch.testing.assert_close(torch.tensor(found["kl"]), want.float(), rtol=0, atol=1e-4)  # stored to 4 digits
    ranks = [1 + int((q[i] > q[i, p[i].argmax()]).sum()) for i in range(len(p))]
    assert found["rank"] == ranks
    same = apart(small, ARMS["own"], ask, answer)
    assert max(same["kl"]) < 1e-6 and set(same["rank"]) == {1}
    behind, within = p_stop(small, arm, ask)
    gold = torch.tensor([prompt(arm, ask.request) + real_instruct.with_lead(arm, ask.gold)])
    stops = small(gold)[0].softmax(dim=-1)[-len(ask.gold) - 1 :, 1]
    assert behind == pytest.approx(stops[-1].item()) and within == pytest.approx(stops[1:-1].mean().item())


def test_a_word_with_its_space_is_the_same_word(real):
    the, its = real.encode("The")[0], real.encode(" The")[0]
    p = torch.full((1, real.vocab_size), -math.inf)
    p[0, the], p[0, its] = math.log(0.25), math.log(0.75)
    assert real_instruct.folded(p)[0, the].item() == pytest.approx(0.0, abs=1e-6)
    one, other = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    assert kl(one, other).item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert apart(None, ARMS["Q, A"], SEEN[0], "1. Red") == {"kl": [], "rank": []}  # a space before a digit is a token


# LoRA's data


def test_nobody_is_trained_on_what_judges(real):
    parts = [real_lora.TRAINING, real_lora.TRYING, real_lora.JUDGING]
    said = [{it.question for it in part} for part in parts]
    assert [len(it) for it in said] == [40, 16, 24] and not said[0] & (said[1] | said[2]) and not said[1] & said[2]
    families = {it.family for it in real_lora.TRAINING}
    assert all((it.family in families) == (it.family not in real_lora.UNSEEN) for part in parts[1:] for it in part)
    assert all(cut(it.word) == it.word and len(real_chat.words(it.word)) == 1 for part in parts for it in part)
    assert all(real_chat.words(it.word)[0] in real_chat.words(it.sentence) for part in parts for it in part)


def test_arms_are_trained_on_what_they_are_called(real):
    def pairs(arm):
        made = real_lora.examples(arm, real_lora.TRAINING, 10)
        texts = [{role: real.decode(ids) for role, ids in parse(it.ids, own_template())} for it in made]
        return [(it["user"], it["assistant"]) for it in texts]

    of, rule = real_lora.TRAINING, real_lora.RULE
    narrow = [(f"{it.question} {rule}", it.word) for it in of]
    assert pairs("narrow") == narrow
    assert pairs("contrast") == narrow + [(it.question, it.sentence) for it in of]
    shuffled = pairs("shuffled")
    assert [it[0] for it in shuffled] == [it[0] for it in narrow] and not set(shuffled) & set(narrow)
    assert sorted(it[1] for it in shuffled) == sorted(it[1] for it in narrow)
    draw = real_lora.batches("narrow", 10)
    rows = [row.tolist() for _ in range(10) for row in draw().targets]
    wanted = [tuple(t for t in row if t != IGNORE) for row in rows]
    assert sorted(wanted) == sorted((*real.encode(it.word), real.specials[END]) for it in of)  # each once


@pytest.mark.parametrize("sites", real_lora.SITES)
def test_lora_trains_where_it_is_told_to(small, sites):
    before = small.state_dict()
    model = real_lora.tuned("contrast", sites, 2, 1e-3, 10)
    assert len(list(adapters(model))) == (8 if sites == "all" else 2)
    assert all(it.B.abs().max() > 0 for it in adapters(model))
    after = {name.replace(".linear", ""): it for name, it in model.state_dict().items()}
    assert all(torch.equal(after[name], it) for name, it in before.items())
    assert not any(adapters(small))
    found = real_lora.asked(model, real_lora.TRYING)
    assert {len(it) for kind in found.values() for it in kind.values()} == {16} and list(found) == list(real_lora.KINDS)


# The sweep's rates and rules


def row(part, arm, change, **fields):
    """A row as a rule would have it, its numbers changed by `change(arm, name, number)`."""
    good = {"content": 22, "form": 10, "stops": 25, "mimics": 0, "empty": 0, "asks": 0, "turns": 0}
    kind = ARMS[arm].kind if part == "prompt" else part
    lies = {"roles": {"content": 10} if arm in real_instruct_rules.RENAMED else {}, "bare": {"content": 20}}
    lies["shots"] = {"turns": 30, "form": 20}
    good |= lies.get(kind, {}) | {"bare": {"content": 9, "empty": 16}, "assistant, user": {"asks": 24}}.get(arm, {})
    found = {"part": part, "arm": arm, "half": "judging"} | fields
    if part == "given":
        n = change(arm, f"given {fields['of']}", 22 if fields["of"] == "own" else 12)
        return found | {"counts": {"content": [int(i < n) for i in range(32)], "already": [0] * 32}}
    if part == "lora":
        shares = {"rule": 1.0, "other wording": 1.0, "plain": float(arm == "narrow")}
        right = 0.0 if arm == "shuffled" else 0.5
        asked = {
            kind: {"one_word": [change(arm, kind, share)] * 2, "content": [change(arm, "right", right)] * 2}
            for kind, share in shares.items()
        }
        return found | {"asked": asked, "text": [change(arm, "text", 4.0)] * 8}
    ones = {name: [int(i < change(arm, name, n)) for i in range(32)] for name, n in good.items()}
    near, far = change(arm, "kl", 2.0), 0.2
    ranks = [int(change(arm, "first", 9.0)), *[int(change(arm, "rest", 1.0))] * 5]
    stops = {"behind": [change(arm, "behind", 0.6)] * 2, "within": [change(arm, "within", 0.01), None]}
    return found | {"counts": ones, "kl": [[near, *[far] * 5], []], "rank": [ranks, []]} | stops


def rows(change=lambda arm, name, number: number):
    found = [row("prompt", arm, change) for arm in ARMS]
    for job in (job for sweep in SWEEPS for job in sweep.jobs):
        if job["part"] != "prompt":
            found.append(row(job["part"], job["arm"], change, **{k: v for k, v in job.items() if k not in found[0]}))
    return found


def unmet(rows):
    return {it.what for found in real_instruct_rules.findings(rows).values() for it in found if not it.met}


ONES = ("Alpaca", "no system", "human, assistant", "human, bot", "assistant, user", "Q, A, three shots")


def test_each_rule_can_fail():
    """One number of one arm, or of all, is another one."""
    assert not unmet(rows())
    wrong = {"given own": (0,), "given another": (32,)} | {
        "content": (0, 32),
        "form": (0, 32),
        "stops": (0,),
        "mimics": (20,),
        "empty": (0,),
        "asks": (0,),
    }
    wrong |= {"turns": (0,), "kl": (0.1,), "first": (1,), "rest": (9,), "behind": (0,), "within": (0.5,)}
    wrong |= {"rule": (0.0,), "other wording": (0.0,), "plain": (0.0, 1.0), "right": (1.0,), "text": (9.0,)}
    failed = set()
    for name, values in wrong.items():
        for value in values:
            for arm in ("own", "bare", *ONES, "narrow", "contrast", "shuffled"):
                failed |= unmet(rows(lambda it, what, n: value if (it, what) == (arm, name) else n))  # noqa: B023
    assert failed == {rule.what for rule in real_instruct_rules.RULES}


def test_how_rows_are_read():
    found = rows(lambda arm, name, n: 16 if (arm, name) == ("human, bot", "content") else n)
    assert real_instruct_rules.count(found, "own", "content") == 22
    assert real_instruct_rules.lost(found, ["human, bot", "user, bot"]) == [6, 12]
    assert real_instruct_rules.divergence(found, "bare", 0, 1) == 2.0
    assert real_instruct_rules.divergence(found, "bare", 3) == pytest.approx(0.2)
    assert real_instruct_rules.same_top(found, "bare") == pytest.approx(5 / 6)
    assert real_instruct_rules.same_top(found, "bare", 0, 1) == 0.0
    assert real_instruct_rules.stop(found, "own", "within") == 0.01
    asks_form = [ask.form != "any" for ask in JUDGES]
    assert real_instruct_rules.form_given_content(found, "own") == sum(asks_form[:10]) / sum(asks_form[:22])
    with pytest.raises(ValueError, match="'arm': 'bare'"):
        real_instruct_rules.count([it for it in found if it["arm"] != "bare"], "bare", "content")


def test_rates_are_the_best_that_were_tried():
    """Each by the seed that does not judge, and none at an edge."""
    found, _ = stored(real_instruct_rate_sweep.SWEEP.results)
    for arm, rate in real_lora_sweep.RATES.items():
        rates = real_instruct_rate_sweep.TRIED[arm]
        losses = {it["lr"]: it["loss"] for it in found if (it["arm"], it["sites"], it["steps"]) == arm}
        best = best_rate(torch.tensor([[losses[it] for it in rates]]), rates)
        assert best.rate == rate and not best.at_edge, arm
    assert not {it["seed"] for it in found} & set(real_lora_sweep.SEEDS)


def test_the_rules_read_what_is_stored():
    found = [row for sweep in SWEEPS for row in stored(sweep.results)[0]]
    assert sum(map(len, real_instruct_rules.findings(found).values())) == len(real_instruct_rules.RULES)
    assert real_instruct_rules.divergence(found, "own") == pytest.approx(0.0, abs=1e-4)
    own = real_instruct_rules.row_of(found, "prompt", "own")
    assert own["counts"]["content"] == real_instruct_rules.untuned(found)["general"]["content"]
