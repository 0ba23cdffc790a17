"""A program around moe.py: a small decoder with mixtures, trained on four kinds of documents, and another, upcycled.

`train` makes the small one: batches are padded, the penalty is added to the loss, and a bias is moved after each step.
`upcycled` makes the story model's layers into mixtures of copies; `text_losses` reads texts side by side with it.
`from_files` reads a layer that another program wrote; `in_half` makes one of half the bytes.
"""

import copy
from functools import partial
from itertools import islice

import moe
import torch
from moe_variants import upcycle_model
from torch.nn import functional as F

from shared.story_model import load_story_lm
from shared.tiny_lm import TinyLM
from shared.training import fit
from shared.world import BASE, VOCABULARY, Config, documents, stories
from shared.world.words import END, ID, encode

N_EXPERTS, K, HIDDEN = 8, 2, 16  # of the small model's layers
WIDTH, LAYERS, HEADS = 32, 2, 2
STEPS, RATE, TEXTS, LENGTH = 48, 1e-2, 16, 32  # documents of a step; tokens of one, which are cut off there
BALANCE, Z = 0.1, 0.001  # the coefficients of the penalty
SPEED = 0.01  # by what a bias moves in a step
COPIES, ROOM = 4, 1.0  # experts of an upcycled layer, and its capacity while it is trained
STOP = ID[END]  # begins each text, and fills it up
DOMAINS = {
    "stories": Config(),
    "facts": Config(story=0, facts=1),
    "sums": Config(story=0, sums=1),
    "code": Config(story=0, code=1),
}


def padded(texts):
    """Texts as ids (B, T), filled up to the longest, and which of these are no padding, (B, T)."""
    texts = [[STOP, *text] for text in texts]
    ids = torch.full((len(texts), max(map(len, texts))), STOP)
    real = torch.zeros(ids.shape, dtype=torch.bool)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text)
        real[row, : len(text)] = True
    return ids, real


def batches(seed=0):
    """Endless padded batches of TEXTS documents, as many of each kind."""
    streams = [documents(seed, config) for config in DOMAINS.values()]
    while True:
        texts = [encode(it.text) for stream in streams for it in islice(stream, TEXTS // len(DOMAINS))]
        yield padded([text[:LENGTH] for text in texts])


def new_model(seed=0, **how):
    """A small decoder with a mixture in each block. how: what `moe.MoE` takes besides, or in place of the above."""
    torch.manual_seed(seed)
    layer = partial(moe.MoE, **{"n_experts": N_EXPERTS, "k": K, "d_hidden": HIDDEN} | how)
    return TinyLM(len(VOCABULARY), LENGTH + 1, WIDTH, LAYERS, HEADS, feed_forward=layer)


def word_losses(model, ids, real):
    """The loss of each word that is no padding, in nats: (n,)."""
    wanted = real[:, 1:]
    return F.cross_entropy(model(ids[:, :-1])[wanted], ids[:, 1:][wanted], reduction="none")


def loss(model, ids, real, balance=BALANCE, z=Z, speed=SPEED):
    """Nats a word. While the model is trained, the penalty is added and the biases are moved."""
    told, seen = word_losses(model, ids, real).mean(), real[:, :-1]
    if not model.training:
        return told
    even = moe.penalty(model, balance, z, seen)
    moe.rebalance(model, speed, seen)
    return told + even


def train(seed=0, steps=STEPS, watch=None, balance=BALANCE, z=Z, speed=SPEED, **how):
    """A trained model, and the loss of each step. watch: called with the model and what is real after each loss."""
    model, stream = new_model(seed, **how), batches(seed)

    def watched(model, ids, real):
        found = loss(model, ids, real, balance, z, speed)
        if watch is not None:
            watch(model, real[:, :-1])
        return found

    return model, fit(model, lambda: next(stream), steps, RATE, loss=watched, label=None).loss


@torch.inference_mode()
def measure(model, batch):
    """Nats a word on a batch."""
    model.eval()
    found = float(loss(model, *batch))
    model.train()
    return found


def upcycled(k, **how):
    """The story model, its feed-forward layers mixtures of COPIES copies with a router as it is drawn."""
    torch.manual_seed(0)
    model = upcycle_model(load_story_lm(), COPIES, k)
    for block in model.blocks:
        made = block.feed_forward
        sizes = {"n_experts": COPIES, "k": k, "d_hidden": made.experts.proj.in_features, "capacity_factor": ROOM}
        layer = moe.MoE(model.embedding.embedding_dim, **sizes, gated=False, bias=True, normalize=True, **how)
        layer.load_state_dict(made.state_dict())
        block.feed_forward = layer
    return model.requires_grad_(False).eval()


def lines(n=12, seed=777):
    """Texts of the kind that the story model was trained on: the first lines of n documents, as ids."""
    return [encode(story.text.partition("\n")[0])[:60] for story in stories(n, seed, BASE)]


@torch.inference_mode()
def text_losses(model, texts):
    """The mean loss of each text, read side by side: (B,). In reading no route is dropped."""
    model, (ids, real) = copy.deepcopy(model), padded(texts)
    for block in model.blocks:
        block.feed_forward.capacity_factor = None
    counts = real[:, 1:].sum(dim=1).tolist()
    return torch.stack([row.mean() for row in word_losses(model, ids, real).split(counts)])


def from_files(tensors, k):
    """A layer of files with three matrices for each expert, Mixtral's: silu(w1 x) * w3 x, and w2 of that."""
    numbers = {name.split(".")[1] for name in tensors if name.startswith("experts.")}
    experts = [[tensors[f"experts.{n}.{part}.weight"] for part in ("w1", "w3", "w2")] for n in sorted(numbers, key=int)]
    hidden, width = experts[0][0].shape
    layer = moe.MoE(width, n_experts=len(experts), k=k, d_hidden=hidden)
    layer.router.weight.data = tensors["gate.weight"]
    layer.experts.up.weight.data = torch.cat([matrix for w1, w3, _ in experts for matrix in (w1, w3)])
    layer.experts.proj.weight.data = torch.cat([w2 for _, _, w2 in experts])
    return layer


def in_half(model):
    """The model with bfloat16 weights. Biases stay as they are: a step is too small for three digits."""
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16()
    return model


if __name__ == "__main__":
    model, losses = train()
    print(f"small model: {losses[0]:.2f} nats a word at first, {losses[-1]:.2f} after {STEPS} steps, penalty included")
    print("upcycled:", *(f"{it:.2f}" for it in text_losses(upcycled(2), lines())))
