"""A program around window.py: the story model in memory that does not grow, and a small model that learns a window.

`answers` reads prompts in chunks into a ring, in which one layer sees all and the others a window. `tell` goes on with
a story for as long as one likes: the scene that it plays in is kept, of the rest the last words alone. `cost` counts
what that takes. `train` makes a model whose texts say every eighth letter again, so that a window of eight is just
wide enough, and `go_on` serves its weights through a ring.
"""

from functools import partial
from itertools import count

import torch
import window

from shared.rotary import RotaryAttention, no_positions
from shared.story_model import load_story_lm
from shared.tiny_lm import TinyLM
from shared.training import fit
from shared.world.words import END, ID, decode, encode

WINDOW, EVERY = 20, 4  # tokens that a local layer sees; one layer of so many sees all
CHUNK, LONGEST = 24, 160  # tokens of a prompt that one pass reads; those that a layer without a window keeps
MOST, STOP = 40, ID[END]  # words of an answer, and the one that ends it before
SCENE = (
    "Once Ann Lake, a young pilot from Vorby, was in the school. Jane King, her mother, was in the barn. "
    "A hare was in the school. A grey pestle was in the barn. A yellow mirror was in the tower."
)
KEPT, RECENT = 1 + len(encode(SCENE)), 24  # tokens of a telling that stay for good, and of those after them
WISHES = [
    "Jane found the pestle in the barn. Nobody",
    "Soon Ann",
    "Ann wanted the mirror in the tower. The hare hurried to the tower. It found the mirror in the tower. "
    "The mirror was with the hare. In the end",
    "Ann wanted the mirror in the tower. She fetched the mirror from the tower. In",
    "Ann",
    "The hare fetched",
]
PERIOD, LETTERS = 8, 8  # a text says again what it said so many letters before; how many letters there are
WIDTH, HEADS, BATCH, STEPS, RATE = 32, 2, 16, 100, 2e-2


def load():
    """The story model."""
    return load_story_lm()


def prompts():
    """Six stories that are begun, each a list of ids."""
    return [[STOP, *encode(f"{SCENE} {wish}")] for wish in WISHES]


def windows(model):
    """How many tokens each layer sees; None: all."""
    return window.layer_windows(len(model.blocks), WINDOW, EVERY)


def new_cache(model):
    """An empty ring for one text."""
    return window.new_ring(model, windows(model), capacity=LONGEST)


@torch.inference_mode()
def read(model, ids, cache):
    """Read ids into the cache, CHUNK at a time; the likeliest next one."""
    for chunk in torch.tensor([ids]).split(CHUNK, dim=1):
        logits = model(chunk, cache, last=1)  # (1, 1, V)
    return logits.argmax().item()


def answers(model, prompts):
    """How each prompt goes on, by the likeliest word, up to its end or MOST words."""
    said = []
    for prompt in prompts:
        cache = new_cache(model)
        words = [read(model, prompt, cache)]
        while words[-1] != STOP and len(words) < MOST:
            words.append(read(model, words[-1:], cache))
        said.append(words)
    return said


def tell(model, prompt, most):
    """So many words of a story that goes on within the scene that the prompt begins with."""
    ring = window.new_ring(model, [RECENT] * len(model.blocks), sinks=KEPT, turned=True)
    said = [read(model, prompt, ring)]
    while len(said) < most:
        said.append(read(model, said[-1:], ring))
    return said


def cost(model, n):
    """Bytes of a cache that has read n tokens, and the scores that were computed by then, in all layers and heads."""
    heads = model.blocks[0].attention.n_heads
    return new_cache(model).nbytes, heads * sum(window.pairs(n, scope) for scope in windows(model))


def texts(n, length, seed):
    """n texts, (n, length) ids: PERIOD letters by chance, and these again and again."""
    generator = torch.Generator().manual_seed(seed)
    letters = torch.randint(LETTERS, (n, PERIOD), generator=generator)
    return letters.repeat(1, -(-length // PERIOD))[:, :length]


def batch(seed):
    """Texts to learn from, and the same one letter later: (BATCH, 4 * PERIOD) each."""
    ids = texts(BATCH, 4 * PERIOD + 1, seed)
    return ids[:, :-1], ids[:, 1:]


def new_model(attention):
    """A model of one layer with this attention, not trained."""
    return TinyLM(LETTERS, 8 * PERIOD, WIDTH, 1, HEADS, attention=attention, positions=no_positions)


@torch.enable_grad()
def train(seed=0):
    """A model that sees PERIOD letters, and its losses."""
    torch.manual_seed(seed)
    model = new_model(partial(window.WindowAttention, scope=PERIOD))
    seeds = count(STEPS * seed)
    history = fit(model, lambda: batch(next(seeds)), STEPS, RATE, label=None)
    return model, history.loss


@torch.inference_mode()
def go_on(model, ids, n):
    """How texts, (B, T), go on: (B, n). The house's attention has the model's weights, and a ring has its window."""
    served, letters = new_model(RotaryAttention), []
    served.load_state_dict(model.state_dict())
    cache = window.new_ring(served, [PERIOD], len(ids))
    for _ in range(n):
        ids = served(ids, cache, last=1)[:, -1].argmax(dim=-1, keepdim=True)  # (B, 1)
        letters.append(ids)
    return torch.cat(letters, dim=1)


if __name__ == "__main__":
    model = load()
    for wish, answer in zip(WISHES, answers(model, prompts()), strict=True):
        print(wish, "...", decode(answer).strip())
    print(decode(tell(model, prompts()[1], 100)))
