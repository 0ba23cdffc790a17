"""A program around attention.py: one layer of attention learns to repeat a word, and is then asked for it.

A text is a word of 3 to 7 letters, filled up, then "=", then the same word: "fade   =fade   ". A text's second half
follows from its first: whoever has attended to the right letters knows it. The first half is chance.
"""

import math

import attention
import torch
from torch import nn
from torch.nn import functional as F

LETTERS, LONGEST = 8, 7
D_MODEL, N_HEADS = 32, 4
SCALE = None  # 1 / sqrt(the heads' width)
DTYPE = torch.float32
LEARNING_RATE, STEPS, BATCH = 1e-2, 100, 32
FILL, EQUALS = 0, LETTERS + 1  # letters are 1 to LETTERS


def texts(n, seed):
    """n texts, (n, 15) ids, and where they have a token and not a fill, (n, 15) bool."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(1, LETTERS + 1, (n, LONGEST), generator=generator)
    lengths = torch.randint(3, LONGEST + 1, (n, 1), generator=generator)
    words = words.where(torch.arange(LONGEST) < lengths, FILL)
    ids = torch.cat([words, torch.full((n, 1), EQUALS), words], dim=1)
    return ids, ids != FILL


def floor(ids, real):
    """The loss, in nats a token, of whoever knows all that can be known: each letter of a first half is chance."""
    chance = real[:, 1:LONGEST].sum()
    return (chance * math.log(LETTERS) / real[:, 1:].sum()).item()


class Repeater(nn.Module):
    """Embeddings, positions, a layer of attention beside a skip, and a head."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(EQUALS + 1, D_MODEL)
        self.positions = nn.Embedding(2 * LONGEST + 1, D_MODEL)
        self.layer = attention.MultiHeadAttention(D_MODEL, N_HEADS, scale=SCALE)
        self.head = nn.Linear(D_MODEL, EQUALS + 1)

    def embed(self, ids):
        """(B, T) -> (B, T, D_MODEL)"""
        return self.embedding(ids) + self.positions(torch.arange(ids.shape[1]))

    def forward(self, ids, real):
        """Logits of each next token: (B, T) -> (B, T, EQUALS + 1)"""
        x = self.embed(ids)
        return self.head(x + self.layer(x, real)).float()


def loss(model, ids, real):
    """Nats a token over the tokens that are no fill."""
    logits = model(ids, real)[:, :-1]
    nats = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")  # (B, T - 1)
    return nats[real[:, 1:]].mean()


def train(seed=0, steps=STEPS):
    """A trained model and its losses."""
    torch.manual_seed(seed)
    model = Repeater().to(DTYPE)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        value = loss(model, *texts(BATCH, seed=step))
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return model, losses


@torch.no_grad()
def repeat(model, words):
    """What the model says after each word, letter by letter: (n, LONGEST) ids -> (n, LONGEST) ids."""
    ids = torch.cat([words, torch.full((len(words), 1), EQUALS)], dim=1)
    for _ in range(LONGEST):
        following = model(ids, ids != FILL)[:, -1, 1:EQUALS].argmax(dim=-1) + 1
        ids = torch.cat([ids, following[:, None]], dim=1)
    return ids[:, LONGEST + 1 :].where(words != FILL, FILL)


def spelt(ids):
    """Ids as letters, for people."""
    return "".join(" abcdefgh="[i] for i in ids.tolist())


if __name__ == "__main__":
    trained, losses = train()
    print(f"loss {losses[-1]:.3f} nats a token, the floor is {floor(*texts(BATCH, seed=STEPS - 1)):.3f}")
    words = texts(4, seed=1000)[0][:, :LONGEST]
    for word, said in zip(words, repeat(trained, words), strict=True):
        print(spelt(word), "->", spelt(said))
