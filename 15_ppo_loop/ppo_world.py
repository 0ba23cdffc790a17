"""The task of lesson 15: how a story goes on, what a program finds of it, and pairs of stories of which one is better.

    prompt = next(openings(seed=0))[0]                  # the line's end and a story's first six sentences, as ids
    drawn = rollout(lm, [prompt], MOST, STOP)
    told = tell(drawn)[0]                               # Telling(finished=True, consistent=0.8, deeds=3, ...)
    told.gold                                           # 0.6
    pairs = preferences(lm, n=150, seed=0)              # of two responses to one prompt the better one stands first

The taste that is to be learnt: much happens, it makes sense, and the story comes to its end. A deed is a sentence in
which somebody gets a thing (it is found, given or taken). The gold reward is a program, the story world's judge, and
not a model: nothing that a policy writes can deceive it, but what it does not ask for it does not pay.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from ppo import RewardModel, Rollout, reward_loss, rollout
from torch.nn.utils.rnn import pad_sequence

from shared.generation import seeded
from shared.tiny_lm import TinyLM
from shared.training import fit
from shared.world import BASE, END, Config, documents, encode, judge
from shared.world.sheet import QUESTIONS
from shared.world.words import FINDS, GIVES, ID, TAKES, decode

WORLD = Config(**{name: getattr(BASE, name) for name in (*Config.LEAST, "people", "exponent")})  # stories alone
STOP = (ID[END], *(ID[word] for word in QUESTIONS))  # the line's end; the base may go on with questions instead
MOST = 72  # tokens of a response: two of three stories that the base tells come to their end in that many
OPENING = 6  # sentences that say who and what there is
ENOUGH = 4  # deeds: more are no better
GETS = frozenset((*FINDS, *GIVES, *TAKES))
PAIRS = 16  # in a step of the reward model's training
EPOCHS = 4

Pair = tuple[list[int], list[int], list[int]]  # prompt, chosen and rejected response


@dataclass(frozen=True)
class Telling:
    """What the judge finds of a response. text. finished: the story came to its end. sentences: of the response, those
    not cut off. consistent: how many of them break no rule. deeds: different ones, consistent, in which a thing is got.
    """

    text: str
    finished: bool
    sentences: int
    consistent: int
    deeds: int

    @property
    def gold(self) -> float:
        """0 if the story does not end; else the share of consistent sentences, times deeds / 4, at most 1: 0 to 1."""
        return self.finished * self.consistent / max(1, self.sentences) * min(1, self.deeds / ENOUGH)


def openings(seed: int, n: int = 64) -> Iterator[list[list[int]]]:
    """Prompts without end, n at a time, each of another story."""
    stories = documents(seed, WORLD)
    while True:
        yield [_opening(story.text) for story in islice(stories, n)]


def _opening(text: str) -> list[int]:
    ids = encode(text)
    stops = [i for i, token in enumerate(ids) if token == ID["."]]
    return [ID[END], *ids[: stops[OPENING - 1] + 1]]


def tell(drawn: Rollout) -> list[Telling]:
    """What the judge finds of each response, its prompt read with it."""
    rows = zip(drawn.ids.tolist(), drawn.said.tolist(), strict=True)
    return [_tell([i for i, its in zip(ids, said, strict=True) if its], ids[: said.index(True)]) for ids, said in rows]


def _tell(response: list[int], prompt: list[int]) -> Telling:
    stopped = response[-1] in STOP
    words = response[:-1] if stopped else response
    judgement = judge(decode([*prompt[1:], *words, *([ID[END]] if stopped else [])]), BASE)
    document, first = (
        judgement.documents[0],
        len(prompt) - 1,
    )  # the judge does not read the line's end before the prompt
    own = [each for each in judgement.sentences if each.start >= first and each.finished]
    sound = [each.text for each in own if each.consistent]
    deeds = {text for text in sound if GETS.intersection(text.split())}
    finished = stopped and document.over and len(judgement.documents) == 1
    return Telling(decode(words), finished, len(own), len(sound), len(deeds))


def gold(drawn: Rollout) -> torch.Tensor:
    """The gold reward of each response, (B,)."""
    return torch.tensor([each.gold for each in tell(drawn)])


def preferences(lm: TinyLM, n: int, seed: int) -> list[Pair]:
    """n pairs: two responses of the model to one prompt, that with more gold first. Ties, one in four, are left out."""
    found, draw = [], 0
    for prompts in openings(seed, 128):
        drawn = rollout(
            lm, [*prompts, *prompts], MOST, STOP, seeded(range(1000 * seed + draw, 1000 * seed + draw + 256))
        )
        draw, worth = draw + 256, gold(drawn)
        said = [ids[its].tolist() for ids, its in zip(drawn.ids, drawn.said, strict=True)]
        for i, prompt in enumerate(prompts):
            one, other = i, i + len(prompts)
            if worth[one] != worth[other]:
                better, worse = (one, other) if worth[one] > worth[other] else (other, one)
                found.append((prompt, said[better], said[worse]))
        if len(found) >= n:
            return found[:n]
    raise AssertionError("openings do not end")


def side_by_side(pairs: Sequence[Pair]) -> tuple[torch.Tensor, torch.Tensor]:
    """ids and said, both (2 n, T): all chosen responses, then all rejected ones, behind their prompts."""
    rows = [(prompt, chosen) for prompt, chosen, _ in pairs] + [(prompt, rejected) for prompt, _, rejected in pairs]
    ids = [torch.tensor([*prompt, *response]) for prompt, response in rows]
    said = [torch.arange(len(prompt) + len(response)) >= len(prompt) for prompt, response in rows]
    return pad_sequence(ids, batch_first=True, padding_value=ID[END]), pad_sequence(said, batch_first=True)


def train_reward_model(lm: TinyLM, pairs: Sequence[Pair], rate: float, seed: int, label: str | None = None):
    """A reward model that has seen each pair four times, with scores of mean 0 and standard deviation 1 on them."""
    torch.manual_seed(seed)
    model, order = RewardModel(lm), []

    def batch():
        while len(order) < PAIRS:
            order.extend(torch.randperm(len(pairs)).tolist())
        return side_by_side([pairs[order.pop()] for _ in range(PAIRS)])

    fit(model, batch, EPOCHS * len(pairs) // PAIRS, rate, loss=reward_loss, weight_decay=0.0, label=label)
    model.eval()
    ids, said = (each.to(lm.embedding.weight.device) for each in side_by_side(pairs[:128]))
    model.standardise(ids, said)
    return model


@torch.no_grad()
def accuracy(model: RewardModel, pairs: Sequence[Pair]) -> float:
    """In what share of pairs the chosen response has the higher score."""
    right, device = 0, model.shift.device
    for start in range(0, len(pairs), 64):
        chosen, rejected = model(*(each.to(device) for each in side_by_side(pairs[start : start + 64]))).chunk(2)
        right += int((chosen > rejected).sum())
    return right / len(pairs)
