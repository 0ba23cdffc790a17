"""What a model does with requests: whether its responses obey, what it knows, and what it has forgotten.

A prompt is a function of a request that returns ids: `in_template`, `plain`, and others below.
"""

import functools
from collections.abc import Callable, Sequence
from itertools import islice
from random import Random

import torch
from instruct import render
from instruct_world import (
    ABOUT,
    NEW,
    PAIR,
    TEMPLATE,
    TRAINED,
    WORLD,
    Request,
    answer_word,
    of_story,
    pairs,
    requests,
    rivals,
    scored,
)
from torch import nn

from shared.generation import generate, greedy
from shared.story_model import load_story_lm
from shared.tiny_lm import TinyLM
from shared.training import evaluate
from shared.world import BASE, HELD_OUT, Story, held_out_rows, state
from shared.world.words import encode

Prompt = Callable[[Request], list[int]]
ROOM, SHORT, LONG = 320, 20, 150  # tokens that the model may read; of a response to a question, and of a story
MEASURES = ("obeyed", "form", "stops", "mimics")
COMBINED = tuple(kind for kind in TRAINED if not kind.startswith("list"))  # kinds that have an argument
SETS = {"trained": TRAINED, "combination": COMBINED, "new kind": NEW, "pair": (PAIR,)}


def base_model() -> TinyLM:
    """The story model, with room for prompts that are longer than what it was trained on (positions are rotary)."""
    model = load_story_lm()
    model.context = ROOM
    return model


@functools.cache
def asked(of: str, n: int) -> list[Request]:
    """n held-out requests of each kind of a set; all of stories that no training reads."""
    if of == "pair":
        return list(islice(pairs(HELD_OUT + 9000, TRAINED), n))
    held = {"trained": False, "combination": True, "new kind": None}[of]
    return [
        request
        for i, kind in enumerate(SETS[of])
        for request in islice(requests(HELD_OUT + 100 * i + len(of), (kind,), held), n)
    ]


def in_template(request: Request) -> list[int]:
    """As it is trained, up to where the answer begins."""
    return render(request.asked, TEMPLATE, reply=True).ids


def plain(request: Request) -> list[int]:
    """The story and the request, as in a document."""
    return [*TEMPLATE.begin, *request.asked[0][1]]


def without(part: str, request: Request) -> list[int]:
    """The template with one part wrong: "begin", "user" or "assistant" missing, or both openings exchanged."""
    (_, said), user, assistant = request.asked[0], TEMPLATE.opens["user"], TEMPLATE.opens["assistant"]
    return {
        "begin": [*user, *said, *assistant],
        "user": [*TEMPLATE.begin, *said, *assistant],
        "assistant": [*TEMPLATE.begin, *user, *said],
        "exchanged": [*TEMPLATE.begin, *assistant, *said, *user],
    }[part]


def shots(n: int, alike: bool, request: Request) -> list[int]:
    """n other questions of the story with their answers, then the request. alike: of its own kind as far as there are.

    A request to list gets other lists. One to write gets one other story, as a document before it.
    """
    random = Random(f"{request.story} {request.text}")
    if request.kind == "write":
        example = next(it for it in requests(HELD_OUT + random.randrange(10**6), ("write",), False))
        return [*TEMPLATE.begin, *encode(f"{example.text} {example.answer}"), TEMPLATE.stop, *encode(request.text)]
    told = Story(request.story, 0.0, "story", state(request.story, WORLD))
    others = [it for it in of_story(told, random) if it.kind != "write" and it.text != request.text]
    others = [it for it in others if (it.kind in ABOUT) == (request.kind in ABOUT or request.kind == PAIR)]
    random.shuffle(others)
    others.sort(key=lambda it: alike and it.kind != request.kind)
    given = " ".join(f"{it.text} {it.answer}" for it in others[:n][::-1])
    return [*TEMPLATE.begin, *encode(f"{request.story} {given} {request.text}")]


def responses(model: nn.Module, given: Sequence[Request], prompt: Prompt, at_once: int = 96) -> list[list[int]]:
    """What the model writes after each prompt, greedily, up to its stop."""
    found = {}
    for writes in (False, True):
        which = [i for i, request in enumerate(given) if (request.kind == "write") == writes]
        which.sort(key=lambda i: len(given[i].story))  # alike long: less padding
        for some in (which[i : i + at_once] for i in range(0, len(which), at_once)):
            prompts, most = [prompt(given[i]) for i in some], LONG if writes else SHORT
            found |= dict(zip(some, generate(model, prompts, most, rules=[greedy], stop=[TEMPLATE.stop]), strict=True))
    return [found[i] for i in range(len(given))]


def obedience(model: nn.Module, of: str, n: int, prompt: Prompt) -> dict[str, list[float]]:
    """Of n requests of each kind of a set: the share of responses that is obeyed, and so on (`scored`), by kind in the
    order of SETS."""
    given = asked(of, n)
    found = [scored(request, ids) for request, ids in zip(given, responses(model, given, prompt), strict=True)]
    return {
        measure: [
            round(sum(it[measure] for it, request in zip(found, given, strict=True) if request.kind == kind) / n, 4)
            for kind in SETS[of]
        ]
        for measure in MEASURES
    }


@torch.no_grad()
def knows(model: nn.Module, of: str, n: int, prompt: Prompt) -> list[float]:
    """The share of questions, by kind in the order of SETS, where the right word is the likeliest of all words that
    could stand in its place, when the answer's words before it are given: whether the prompt draws it out, whatever the
    form."""
    device, found = next(model.parameters()).device, {kind: [] for kind in SETS[of] if kind in ABOUT}
    for request in (it for it in asked(of, n) if it.kind in ABOUT):
        at, answer = answer_word(request), encode(request.answer)
        ids, able = [*prompt(request), *answer[:at]], sorted(rivals(request))
        logits = model(torch.tensor([ids], device=device), last=1)[0, -1, able]
        found[request.kind].append(able[int(logits.argmax())] == answer[at])
    return [round(sum(it) / len(it), 4) for it in found.values()]


def story_loss(model: nn.Module, n: int) -> float:
    """Nats per token on n held-out rows of the documents that the base was trained on."""
    x, y, _ = documents_held_out(n)
    return evaluate(model, x, y).nats


@functools.cache
def documents_held_out(n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows of the base's own documents, and their true nats."""
    return held_out_rows(n, 192, HELD_OUT, BASE)


@torch.no_grad()
def shifts(model: nn.Module, base: nn.Module, of: str, n: int) -> dict[str, list[list[int]]]:
    """How the tuned model's responses look to the base (Lin et al. 2023, arXiv 2312.01552): the rank of each token
    among what the base would say there after the plain request. For questions and for stories, at positions 1, 2, 3, 4
    and all later ones: how many tokens have rank 1, rank 2 or 3, and any other.
    """
    given, device = asked(of, n), next(model.parameters()).device
    counts = {"question": [[0, 0, 0] for _ in range(5)], "write": [[0, 0, 0] for _ in range(5)]}
    for request, response in zip(given, responses(model, given, in_template), strict=True):
        ids = torch.tensor([[*plain(request), *response]], device=device)
        logits = base(ids, last=len(response) + 1)[0, :-1]  # what the base says where each token of the response stands
        said = logits.gather(1, torch.tensor(response, device=device)[:, None])
        for i, rank in enumerate((logits > said).sum(dim=1).tolist()):
            counts["write" if request.kind == "write" else "question"][min(i, 4)][min(2, (rank + 1) // 2)] += 1
    return counts
