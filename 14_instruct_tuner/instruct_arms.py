"""The arms of the trial: which conversations a model is tuned on, with which loss, and which of its weights learn.

arm = ARMS["answers"]
model = arm.new_model(seed=10)
batch = next(batches(arm, seed=10))
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from random import Random

import torch
from instruct import Batch, Conversation, add_lora, all_tokens, pad, render
from instruct_measure import ROOM, Prompt, base_model, in_template, plain
from instruct_world import TEMPLATE, TRAINED, Request, requests

from shared.story_model import new_story_lm, record
from shared.tiny_lm import TinyLM
from shared.world import BASE, rows

ROWS = 16  # conversations in a step
ALPHA = 16


def in_dialogue(request: Request) -> Conversation:
    """Request and answer in the template."""
    return render(request.messages, TEMPLATE)


def prompts_too(request: Request) -> Conversation:
    """The loss on all tokens."""
    return all_tokens(in_dialogue(request))


def response_only(request: Request) -> Conversation:
    """The answer without what it answers (An et al. 2024, arXiv 2410.02465; Hewitt et al. 2024, 2409.14254)."""
    return render([("user", []), request.messages[-1]], TEMPLATE)


def without_stop(request: Request) -> Conversation:
    """The loss on what is said, and not on the stop."""
    ids, answer = in_dialogue(request)
    return Conversation(ids, [*answer[:-1], False])


def without_template(request: Request) -> Conversation:
    """Request and answer as a document, the loss on the answer."""
    prompt, answer = plain(request), [*request.messages[-1][1], TEMPLATE.stop]
    return Conversation([*prompt, *answer], [False] * len(prompt) + [True] * len(answer))


@dataclass(frozen=True)
class Arm:
    """conversation: what becomes of a request. kinds: of the requests. shuffled: answers are exchanged, "within" a kind
    or "among" all. replay: the share of rows that are the base's own documents. different: how many requests there are,
    over and over; None: each is new. rank: of LoRA; None: all weights learn. rows: with LoRA, the two rows of the
    template's tokens learn too. scratch: the model begins at random. prompt: as the arm's model is asked.
    """

    conversation: Callable[[Request], Conversation] = in_dialogue
    kinds: Sequence[str] = TRAINED
    shuffled: str = ""
    replay: float = 0.0
    different: int | None = None
    rank: int | None = None
    rows: bool = False
    scratch: bool = False
    prompt: Prompt = in_template

    def new_model(self, seed: int) -> TinyLM:
        """The base, or a random model of its size, with what learns set to learn."""
        torch.manual_seed(seed)
        model = new_story_lm(**record()["model"] | {"context": ROOM}) if self.scratch else base_model()
        if self.rank is not None:
            add_lora(model, self.rank, ALPHA, seed=seed)
        if self.rows:
            _train_rows(model, [TEMPLATE.opens[role][0] for role in ("user", "assistant")])
        return model


def _train_rows(model: TinyLM, ids: list[int]) -> None:
    """Of the embedding, let these rows learn and no other."""
    weight = model.embedding.weight.requires_grad_(True)
    kept = torch.zeros(len(weight), 1)
    kept[ids] = 1
    weight.register_hook(lambda gradient: gradient * kept.to(gradient.device))


def told(arm: Arm, seed: int) -> Iterator[Request]:
    """The requests that an arm is trained on."""
    stream = requests(seed, arm.kinds, held=False)
    if arm.different is not None:
        some = list(islice(stream, arm.different))
        stream = (some[i] for i in _without_end(len(some), seed))
    return _shuffled(stream, arm.shuffled, seed) if arm.shuffled else stream


def _without_end(n: int, seed: int) -> Iterator[int]:
    """0 to n - 1 in another order each time."""
    random, order = Random(seed), list(range(n))
    while True:
        random.shuffle(order)
        yield from order


def _shuffled(stream: Iterator[Request], how: str, seed: int, at_once: int = 256) -> Iterator[Request]:
    """Requests with each other's answers: each has that of another one, of its own kind or of any."""
    random = Random(seed)
    while True:
        some = list(islice(stream, at_once))
        groups = {}
        for i, request in enumerate(some):
            groups.setdefault(request.kind if how == "within" else "", []).append(i)
        answer_of = {}
        for group in groups.values():
            random.shuffle(group)
            answer_of |= dict(zip(group, [*group[1:], group[0]], strict=True))
        yield from (replace(request, answer=some[answer_of[i]].answer) for i, request in enumerate(some))


def batches(arm: Arm, seed: int) -> Iterator[Batch]:
    """Batches of an arm, without end."""
    stream, documents = told(arm, seed), rows(128, seed, BASE)
    replayed = round(arm.replay * ROWS)
    while True:
        some = [arm.conversation(next(stream)) for _ in range(ROWS - replayed)]
        raw = [next(documents).tolist() for _ in range(replayed)]
        yield pad([*some, *(Conversation(ids, [True] * len(ids)) for ids in raw)], TEMPLATE)


ARMS = {
    "answers": Arm(),
    "prompts too": Arm(prompts_too),
    "answers, replay": Arm(replay=0.25),
    "responses alone": Arm(response_only),
    "shuffled within a kind": Arm(shuffled="within"),
    "shuffled among all": Arm(shuffled="among"),
    "no stop": Arm(without_stop),
    "no template": Arm(without_template, prompt=plain),
    "one kind": Arm(kinds=("where",)),
    "from scratch": Arm(scratch=True),
    **{f"LoRA {rank}": Arm(rank=rank) for rank in (1, 16, 64)},
    "LoRA 16 and rows": Arm(rank=16, rows=True),
    **{f"{n} requests": Arm(different=n) for n in (64, 256, 1024)},
}
