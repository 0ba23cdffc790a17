"""A program around rope.py: a small model of texts that repeat themselves, which reads longer ones than it learnt from.

A text is PERIOD letters by chance, and these again and again: whoever attends PERIOD - 1 letters back knows the next.
`train` learns from texts of TRAINED letters. `go_on` continues prompts of several lengths side by side, from a cache;
`stretch` prepares a model for longer texts; `from_pairs` reads weights in which pairs are neighbours, as Meta has them.
"""

import math

import rope
import torch
from torch.nn import functional as F

from shared.rotary import no_positions
from shared.tiny_lm import TinyLM
from shared.training import fit, initialise_by_fan_in

LETTERS, PERIOD = 8, 6
D_MODEL, N_HEADS, N_KV_HEADS = 32, 2, 1
THETA = 10_000.0
TRAINED, LONGEST = 32, 64  # letters
STEPS, RATE, BATCH = 80, 3e-2, 16
START = 0  # the position of a document's first letter


def texts(n, length, seed):
    """n texts, (n, length) ids."""
    letters = torch.randint(LETTERS, (n, PERIOD), generator=torch.Generator().manual_seed(seed))
    return letters.repeat(1, -(-length // PERIOD))[:, :length]


def floor(length):
    """The loss, in nats a letter, of whoever knows all that can be known: the first PERIOD letters are chance."""
    return math.log(LETTERS) * (PERIOD - 1) / (length - 1)


def attention(d_model, n_heads):
    """A layer for TinyLM's slot."""
    return rope.Rotary(d_model, n_heads, n_kv_heads=N_KV_HEADS, theta=THETA)


def new_model():
    """A model with fresh weights."""
    model = TinyLM(LETTERS, LONGEST, D_MODEL, 1, N_HEADS, attention=attention, positions=no_positions)
    initialise_by_fan_in(model)
    return model


def train(seed=0):
    """A trained model and its losses."""
    torch.manual_seed(seed)
    model, step = new_model(), iter(range(10_000))

    def batch():
        ids = texts(BATCH, TRAINED + 1, next(step))
        return ids[:, :-1], ids[:, 1:]

    return model, fit(model, batch, STEPS, RATE, label=None).loss


def stretch(model, length):
    """The model, ready for texts of `length` letters; those that are no longer than the trained ones need nothing."""
    layer = model.blocks[0].attention
    if length > TRAINED:
        layer.scaling = rope.ntk_aware(layer.d_head, length / TRAINED, THETA)
    return model


@torch.no_grad()
def nats(model, length, seed=1000):
    """Nats of each letter but the first, (length - 1,), over 64 texts."""
    ids = texts(64, length, seed)
    logits = model(ids[:, :-1], positions=START + torch.arange(length - 1))
    return F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none").mean(dim=0)


@torch.no_grad()
def go_on(model, prompts, n):
    """How prompts, lists of ids, go on: (B, n). Shorter ones are filled up on the left."""
    padding = torch.tensor([max(map(len, prompts)) - len(prompt) for prompt in prompts])
    ids = torch.tensor([[0] * fill + prompt for fill, prompt in zip(padding.tolist(), prompts, strict=True)])
    cache, letters = model.new_cache(len(prompts), padding=padding), []
    for _ in range(n):
        positions = START + torch.arange(cache.length, cache.length + ids.shape[1])
        ids = model(ids, cache, positions, last=1)[:, -1].argmax(dim=-1, keepdim=True)  # (B, 1)
        letters.append(ids)
    return torch.cat(letters, dim=1)


def from_pairs(layer):
    """A layer that answers as `layer` would if it turned neighbours: the rows of its queries and keys are reordered."""
    order = rope.pairs_to_halves(layer.d_head)
    found = attention(layer.proj.in_features, layer.n_heads)
    found.load_state_dict(layer.state_dict())
    for parameter in found.qkv.parameters():
        heads = parameter.data.unflatten(0, (-1, layer.d_head))  # queries, keys, values: (H + 2 K, d_head, ...)
        turned = heads[: layer.n_heads + layer.n_kv_heads]
        turned.copy_(turned[:, order])
    return found


def spelt(ids):
    """Ids as letters, for people."""
    return "".join("abcdefgh"[i] for i in ids.tolist())


if __name__ == "__main__":
    trained, losses = train()
    print(f"loss {losses[-1]:.3f} nats a letter, the floor is {floor(TRAINED + 1):.3f}")
    for length in (TRAINED, 3 * TRAINED // 2, LONGEST):
        after = nats(stretch(trained, length), length)[-16:].mean()
        print(f"the last 16 of {length:>3} letters: {after:.3f} nats")
