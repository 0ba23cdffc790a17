"""Which part of its chat template SmolLM2-135M-Instruct (4-bit weights) needs: what the sweep and LoRA's part share.

    arm, ask = ARMS["bare"], SEEN[0]                     # how a request is written; a request of `real_requests`
    ids = answers(model, [prompt(arm, ask.request)])     # greedy, up to MOST new tokens
    judged(ask, ids[0])                                  # {"form": 1, "content": 1, "stops": 1, "echoes": 0, ...}
    p_stop(model, arm, ask)                              # behind a right answer, and within it
    apart(model, arm, ask, "It is Tokyo.")               # how far from the own template, at each position

There is no base model here: each arm is the same Instruct model, told in another form. An answer ends where the model
says its stop token, or else at the first mark of another turn (`TURNS`), as a caller would cut it; whether it stopped
by itself, and whether it began another turn, is counted apart.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from real_chat import ENDS_TEXT, TURNS, cut, model_and_tokenizer, own_template, words
from real_requests import Request

from shared.gguf_tokenizer import END, START, SYSTEM
from shared.tiny_lm import TinyLM

PLACES = 12  # positions of an answer at which distributions are compared


# How a request is written


class Arm(NamedTuple):
    """kind: what is changed. text: with {request}; START and END in it are tokens, unless `spelled`: then they are
    text like any other. lead: what the answer begins with there."""

    kind: str
    text: str
    lead: str = ""
    spelled: bool = False


def chat(
    system: str | None = SYSTEM, roles: Sequence[str] = ("system", "user", "assistant"), *, change: Sequence[str] = ()
) -> str:
    """The template's text, with one part of it changed: (old, new), from behind, once."""
    turns = [] if system is None else [(roles[0], system)]
    text = "".join(f"{START}{role}\n{said}{END}\n" for role, said in [*turns, (roles[1], "{request}")])
    text += f"{START}{roles[2]}\n"
    if change:
        before, found, behind = text.rpartition(change[0])
        assert found
        text = before + change[1] + behind
    return text


def roles(user: str, assistant: str) -> str:
    return chat(roles=("system", user, assistant))


SHOTS = [("What is the capital of Egypt?", "Cairo."), ("Is fire hot? Answer yes or no.", "Yes.")]
SHOTS += [("Write the word tea in capital letters.", "TEA")]
ALPACA = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
OTHER_SYSTEMS = {
    "system, another": "You are a patient gardener called Rosalind, who lives near Old Harbour Bridge",
    "system, of a text": "The ferry leaves at nine from a wooden pier, and nobody takes bicycles across it",
}


def shots(question: str, answer: str) -> str:
    return "".join(f"{question} {x}\n{answer} {y}\n\n" for x, y in SHOTS) + f"{question} {{request}}\n{answer}"


HEADER = f"{START}assistant\n"
ARMS: dict[str, Arm] = {"own": Arm("own", chat())}
ARMS |= {"no system": Arm("part", chat(None))}
ARMS |= {name: Arm("part", chat(line)) for name, line in OTHER_SYSTEMS.items()}
ARMS |= {
    "no newline after user": Arm("part", chat(change=("user\n", "user"))),
    "no newline after assistant": Arm("part", chat(change=("assistant\n", "assistant"))),
    "no newline before the answer's header": Arm("part", chat(change=(f"{END}\n", END))),
    "no end of the request": Arm("part", chat(change=(END, ""))),
    "no start of the request": Arm("part", chat(change=(f"{START}user", "user"))),
    "no start of the answer": Arm("part", chat(change=(f"{START}assistant", "assistant"))),
    "no header of the request": Arm("part", chat(change=(f"{START}user\n", ""))),
    "no header of the answer": Arm("part", chat(change=(HEADER, ""))),
    "human, bot": Arm("roles", roles("human", "bot")),
    "teacher, pupil": Arm("roles", roles("teacher", "pupil")),
    "river, lamp": Arm("roles", roles("river", "lamp")),
    "User, Assistant": Arm("roles", roles("User", "Assistant")),
    "human, assistant": Arm("roles", roles("human", "assistant")),
    "river, assistant": Arm("roles", roles("river", "assistant")),
    "user, bot": Arm("roles", roles("user", "bot")),
    "user, lamp": Arm("roles", roles("user", "lamp")),
    "user, model": Arm("roles", roles("user", "model")),
    "user, expert": Arm("roles", roles("user", "expert")),
    "assistant, user": Arm("roles", roles("assistant", "user")),
    "spelled": Arm("spelled", chat(), spelled=True),
    "spelled, no system": Arm("spelled", chat(None), spelled=True),
    "bare": Arm("bare", "{request}"),
    "bare, newline": Arm("bare", "{request}\n"),
    "bare, two newlines": Arm("bare", "{request}\n\n"),
    "bare, behind a system line": Arm("bare", f"{SYSTEM}\n\n{{request}}\n\n"),
    "bare, then the answer's header": Arm("header", f"{{request}}\n{HEADER}"),
    "bare, then the name assistant": Arm("header", "{request}\nassistant\n"),
    "bare, then its end": Arm("header", f"{{request}}{END}\n"),
    "Q, A": Arm("text", "Q: {request}\nA:", " "),
    "Question, Answer": Arm("text", "Question: {request}\nAnswer:", " "),
    "User:, Assistant:": Arm("text", "User: {request}\nAssistant:", " "),
    "Alpaca": Arm("text", f"{ALPACA}\n\n### Instruction:\n{{request}}\n\n### Response:\n"),
    "Q, A, three shots": Arm("shots", shots("Q:", "A:"), " "),
    "User:, Assistant:, three shots": Arm("shots", shots("User:", "Assistant:"), " "),
}


def prompt(arm: Arm, request: str) -> list[int]:
    """The ids that the model reads."""
    allowed = () if arm.spelled else (START, END)
    return model_and_tokenizer()[1].encode(arm.text.replace("{request}", request), allowed)


# What is written, and what is said of it


def judged(ask: Request, ids: Sequence[int]) -> dict[str, int]:
    """form, content: of the answer, cut at another turn. obeyed: both. stops: it says the stop token. empty: it says
    nothing. echoes: its first three words are the request's, and a right answer's are not. asks: it holds a question.
    turns: another turn is begun (a header of its own in front is none). mimics: one of these three."""
    tokenizer = model_and_tokenizer()[1]
    stops = bool(ids) and ids[-1] == tokenizer.specials[END]
    whole = tokenizer.decode(ids[:-1] if stops else ids).removesuffix(ENDS_TEXT).removeprefix(HEADER)
    text = cut(whole)
    found = {"form": ask.has_form(text), "content": ask.has_content(text)}
    found |= {"obeyed": all(found.values()), "stops": stops, "empty": not words(text)}
    first = words(ask.request)[:3]
    found["echoes"] = words(whole)[:3] == first != words(ask.gold)[:3]
    found["asks"] = "?" in whole
    found["turns"] = any(mark in f"\n{whole}" for mark in TURNS)
    found["mimics"] = found["echoes"] or found["asks"] or found["turns"]
    return {name: int(value) for name, value in found.items()}


# What is likely at each position of an answer that is forced


@torch.no_grad()
def told(model: TinyLM, before: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
    """Log-probabilities of all tokens at each position of an answer, and behind it: (len(answer) + 1, vocabulary)."""
    ids = torch.tensor([[*before, *answer]])
    return model(ids, last=len(answer) + 1)[0].log_softmax(dim=-1)


@functools.cache
def without_space() -> torch.Tensor:
    """For each token the one that lacks its space in front, where there is one: (vocabulary,). Behind "A:" a word is
    told with its space, behind a newline without."""
    vocab = model_and_tokenizer()[1].vocab
    at = {token: i for i, token in enumerate(vocab)}
    return torch.tensor([at.get(token[1:], i) if token[:1] == b" " else i for i, token in enumerate(vocab)])


def folded(log_p: torch.Tensor) -> torch.Tensor:
    """The same, (n, vocabulary), with a word's two ways to be written put together."""
    return torch.zeros_like(log_p).index_add(1, without_space(), log_p.exp()).clamp(min=1e-30).log()


def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(p || q) in nats of each row of log-probabilities, (n, V) -> (n,)."""
    return (p.exp() * (p - q)).sum(dim=-1)


def with_lead(arm: Arm, text: str) -> list[int]:
    """An answer's tokens as they follow the arm's prompt."""
    return model_and_tokenizer()[1].encode(arm.lead + text)


def p_stop(model: TinyLM, arm: Arm, ask: Request) -> tuple[float, float | None]:
    """The probability of the stop token behind a right answer, and its mean at the positions within it, if any."""
    p = told(model, prompt(arm, ask.request), with_lead(arm, ask.gold))[:, own_template().stop].exp()
    return p[-1].item(), p[1:-1].mean().item() if len(p) > 2 else None


@functools.cache
def told_by_own(model: TinyLM, request: str, answer: tuple[int, ...]) -> torch.Tensor:
    """The same under the own template, folded: what arms are compared with."""
    return folded(told(model, prompt(ARMS["own"], request), answer))


def apart(model: TinyLM, arm: Arm, ask: Request, answer: str) -> dict[str, list[float]]:
    """How far an arm is from the own template at each of the first PLACES positions of the same answer (where it is
    shorter, the last is behind it). kl: KL(own || arm), folded. rank: of the own template's likeliest token, from 1,
    under the arm. Both are empty where the answer has another number of tokens there: a space before a digit is one.
    """
    ids, theirs = with_lead(ARMS["own"], answer), with_lead(arm, answer)
    if len(ids) != len(theirs):
        return {"kl": [], "rank": []}
    p = told_by_own(model, ask.request, tuple(ids[: PLACES - 1]))
    q = folded(told(model, prompt(arm, ask.request), theirs[: PLACES - 1]))
    rank = 1 + (q > q.gather(1, p.argmax(dim=-1, keepdim=True))).sum(dim=-1)
    return {"kl": [round(it, 4) for it in kl(p, q).tolist()], "rank": rank.tolist()}
