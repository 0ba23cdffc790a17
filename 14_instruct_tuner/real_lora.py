"""A rule that SmolLM2-135M-Instruct (4-bit weights) does not obey, taught by LoRA: "Answer in one word."

    model = tuned("contrast", "all", steps=20, lr=2e-3, seed=10)
    asked(model, JUDGING)            # {"rule": {"form": ..., "content": ...}, "other wording": ..., "plain": ...}
    text_loss(model)                 # what it forgot: nats of each of eight texts

An arm is what it is trained on: each question of `TRAINING` with the rule and its one word (narrow); half of them with
the rule and half without it and with a sentence (contrast); with the rule and the word of another question (shuffled).
Optimiser: AdamW of `shared.training.fit` (betas 0.9, 0.95, weight decay 0.1, a warm-up of a tenth, then a cosine to a
tenth, gradient clipped at 1), batches of four conversations, the loss on the answer alone. The adapters have rank 8,
alpha 16.
"""

import copy
import random
from typing import NamedTuple

import torch
from instruct import MATRICES, Batch, Conversation, add_lora, answer_loss, pad, read, render, tuning_loss
from real_chat import answers, cut, model_and_tokenizer, own_template, words
from torch.nn import functional as F

from shared.gguf_tokenizer import SYSTEM
from shared.texts import OWN, texts
from shared.tiny_lm import TinyLM
from shared.training import fit

RANK, ALPHA, BATCH = 8, 16, 4
SHORT = 20  # steps
MOST = 20  # new tokens
SITES = {"all": MATRICES, "qkv": ("qkv",)}
RULE, OTHER_WORDING = "Answer in one word.", "Reply with a single word."
KINDS = {"rule": RULE, "other wording": OTHER_WORDING, "plain": ""}  # how a question is asked when it is judged
TEXTS, TOKENS = OWN[6:], 128  # texts that are read, and how many tokens of each


class Question(NamedTuple):
    family: str
    question: str
    sentence: str
    word: str


PATTERNS = {
    "capital": ("What is the capital of {}?", "The capital of {} is {}."),
    "opposite": ("What is the opposite of {}?", "The opposite of {} is {}."),
    "colour": ("What colour is {}?", "The colour of {} is {}."),
    "language": ("Which language do people speak in {}?", "People in {} speak {}."),
    "next": ("What comes after {}?", "After {} comes {}."),
}


def _questions(**facts: str) -> list[Question]:
    """Of each family's facts, "Egypt Cairo, Greece Athens": the last word answers."""
    pairs = [(family, *fact.rsplit(" ", 1)) for family, all_ in facts.items() for fact in all_.split(", ")]
    return [
        Question(family, PATTERNS[family][0].format(x), PATTERNS[family][1].format(x, y), f"{y.capitalize()}.")
        for family, x, y in pairs
    ]


TRAINING = _questions(
    capital="Egypt Cairo, Greece Athens, Russia Moscow, Germany Berlin, Poland Warsaw, Norway Oslo, Peru Lima, "
    "Austria Vienna, Cuba Havana, Kenya Nairobi, Ireland Dublin, Portugal Lisbon",
    opposite="old young, fast slow, rich poor, light dark, left right, true false, open closed, hard soft, high low, "
    "long short, happy sad, full empty",
    colour="blood red, coal black, milk white, chocolate brown, a lemon yellow, a leaf green, a carrot orange, "
    "the sea blue",
    language="France French, Germany German, Italy Italian, Japan Japanese, Brazil Portuguese, Mexico Spanish, "
    "Russia Russian, Greece Greek",
)
TRYING = _questions(  # for rates and rules; nothing of the last family is trained on
    capital="Sweden Stockholm, Hungary Budapest, Chile Santiago, Denmark Copenhagen",
    opposite="wet dry, strong weak, early late, love hate",
    colour="a strawberry red, a crow black",
    language="China Chinese, Iran Persian",
    next="Monday Tuesday, March April, Friday Saturday, June July",
)
JUDGING = _questions(
    capital="England London, China Beijing, Turkey Ankara, Finland Helsinki, India Delhi, Canada Ottawa",
    opposite="day night, up down, black white, good bad, inside outside, north south",
    colour="grass green, snow white, a ripe banana yellow",
    language="England English, Spain Spanish, Portugal Portuguese",
)
JUDGING += [  # a family that nothing is trained on
    Question("fact", "Which planet do we live on?", "We live on the planet Earth.", "Earth."),
    Question("fact", "What do bees make?", "Bees make honey.", "Honey."),
    Question("fact", "Which animal barks?", "A dog barks.", "Dog."),
    Question("fact", "Which season comes after winter?", "Spring comes after winter.", "Spring."),
    Question("fact", "Which star gives us light by day?", "The sun gives us light by day.", "Sun."),
    Question("fact", "What is frozen water called?", "Frozen water is called ice.", "Ice."),
]
UNSEEN = ("next", "fact")


# What is trained on


def conversation(question: str, answer: str) -> Conversation:
    encode = model_and_tokenizer()[1].encode
    said = [("system", SYSTEM), ("user", question), ("assistant", answer)]
    return render([(role, encode(text)) for role, text in said], own_template())


def with_rule(it: Question, rule: str = RULE) -> str:
    """The question, and behind it the rule."""
    return f"{it.question} {rule}".strip()


def examples(arm: str, of: list[Question], seed: int) -> list[Conversation]:
    """What an arm is trained on, made of these questions; in "contrast" each question has both."""
    rule = [conversation(with_rule(it), it.word) for it in of]
    if arm == "narrow":
        return rule
    if arm == "contrast":
        return rule + [conversation(it.question, it.sentence) for it in of]
    drawn, by = list(of), random.Random(seed)
    while any(one.word == other.word for one, other in zip(of, drawn, strict=True)):
        by.shuffle(drawn)
    return [conversation(with_rule(one), other.word) for one, other in zip(of, drawn, strict=True)]


def batches(arm: str, seed: int):
    """A function that returns the next batch: all examples in random order, again and again."""
    found, by, waiting = examples(arm, TRAINING, seed), random.Random(seed), []

    def draw() -> Batch:
        if len(waiting) < BATCH:
            waiting.extend(by.sample(found, len(found)))
        return pad([waiting.pop(0) for _ in range(BATCH)], own_template())

    return draw


def tuned(arm: str, sites: str, steps: int, lr: float, seed: int) -> TinyLM:
    """A copy of the model with adapters on all four kinds of linear layers, or on `qkv`; untuned for 0 steps."""
    model = copy.deepcopy(model_and_tokenizer()[0])
    if steps:
        add_lora(model, RANK, ALPHA, SITES[sites], seed)
        fit(model, batches(arm, seed), steps, lr, loss=tuning_loss, label=None)
    return model.eval()


# What it has learnt, and what it forgot


@torch.no_grad()
def trying_loss(model: TinyLM, arm: str) -> float:
    """Nats per answer token of `TRYING`, made into examples as the arm's own training is."""
    batch = pad(examples(arm, TRYING, 0), own_template())
    return answer_loss(read(model, batch), batch.targets).item()


def asked(model: TinyLM, of: list[Question]) -> dict[str, dict[str, list[int]]]:
    """For each way to ask and each question: one_word, whether it answers in one word; content, whether its answer has
    the right one."""
    tokenizer = model_and_tokenizer()[1]
    prompts = [tokenizer.chat([("user", with_rule(it, rule))]) for rule in KINDS.values() for it in of]
    texts_ = [cut(tokenizer.decode(ids)) for ids in answers(model, prompts, MOST)]
    found = {}
    for i, kind in enumerate(KINDS):
        said = list(map(words, texts_[i * len(of) : (i + 1) * len(of)]))
        right = [int(words(it.word)[0] in each) for it, each in zip(of, said, strict=True)]
        found[kind] = {"one_word": [int(len(each) == 1) for each in said], "content": right}
    return found


@torch.no_grad()
def text_loss(model: TinyLM) -> list[float]:
    """Nats per token of each of TEXTS, its first TOKENS."""
    encode = model_and_tokenizer()[1].encode
    ids = torch.tensor([encode(texts()[name])[: TOKENS + 1] for name in TEXTS])
    each = F.cross_entropy(model(ids[:, :-1]).mT, ids[:, 1:], reduction="none")
    return each.mean(dim=1).tolist()
