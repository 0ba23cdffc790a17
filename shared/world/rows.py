"""The story world as tensors: rows of token ids to train on, and the true distribution to compare a model with.

x, y, nats = held_out_rows(64, context=192, seed=9, config=BASE)
kl(model(x), x, BASE)                                   # KL(true || model) in nats at every position
"""

from collections.abc import Iterator

import torch

from shared.world.people import Config
from shared.world.words import END, ID, VOCABULARY, decode, encode
from shared.world.writing import STORY, documents, nats, offers


def rows(context: int, seed: int, config: Config = STORY) -> Iterator[torch.Tensor]:
    """Endless rows of context + 1 ids, int64. Each begins with a line's end and a new document, and is filled up with
    further documents, of which the last is cut off. The next row begins with new documents."""
    stream = documents(seed, config)
    while True:
        row = [ID[END]]
        while len(row) <= context:
            row += encode(next(stream).text)
        yield torch.tensor(row[: context + 1])


def held_out_rows(
    n: int, context: int, seed: int, config: Config = STORY
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """n rows as x and y, both (n, context), y one token later, and the true nats of each y, (n, context) float64."""
    stream = rows(context, seed, config)
    both = torch.stack([next(stream) for _ in range(n)])
    true = [nats(decode(row[1:].tolist()), config) for row in both]
    return both[:, :-1], both[:, 1:], torch.tensor(true, dtype=torch.float64)


def true_distributions(ids: torch.Tensor, config: Config = STORY) -> torch.Tensor:
    """The true next-token probabilities after each position of a row (context,) that begins with a line's end.

    Returns (context, vocabulary) float64. Raises ValueError for a row that the world cannot write.
    """
    if ids[0] != ID[END]:
        raise ValueError(f"the row begins with {VOCABULARY[ids[0]]!r}: expected a line's end")
    result = torch.zeros(len(ids), len(VOCABULARY), dtype=torch.float64)
    for at, choice in enumerate(offers(decode(ids[1:].tolist()), config)):
        for word, probability in choice.probabilities.items():
            result[at, ID[word]] = probability
    return result


def kl(logits: torch.Tensor, ids: torch.Tensor, config: Config = STORY) -> torch.Tensor:
    """KL(true || model) in nats at every position of rows: logits (n, context, vocabulary), ids (n, context).

    Returns (n, context) float64. Its mean is how far a model's expected loss is above the floor, without the noise of
    which word happened to be drawn. Raises ValueError for a row that the world cannot write.
    """
    log_q = logits.double().log_softmax(-1)
    true = torch.stack([true_distributions(row, config) for row in ids])
    return torch.where(true > 0, true * (true.log() - log_q), 0.0).sum(-1)
