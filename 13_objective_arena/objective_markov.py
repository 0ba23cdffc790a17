"""A Markov chain as language: the least loss that each objective can reach, in closed form.

    chain = random_chain(n_words=5, generator=generator)
    left_losses(chain, T=20).mean()             # causal, in nats per word
    masked_loss(chain, T=20, rate=0.15)         # plain masking
    posteriors(chain, tokens, visible)          # what a perfect model answers where a word is hidden

In a chain a word depends on its neighbours alone, so of all that is visible only the nearest word on each side counts.
Each loss is then an entropy of one word given at most two, at known distances.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from objective_vocabulary import Vocabulary
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Chain:
    """first: (V,) probabilities of a text's first word. step: (V, V), row v those of what follows v. float64."""

    first: torch.Tensor
    step: torch.Tensor

    def marginals(self, T: int) -> torch.Tensor:
        """Probabilities of the word at each position, (T, V)."""
        rows = [self.first]
        for _ in range(T - 1):
            rows.append(rows[-1] @ self.step)
        return torch.stack(rows)


def random_chain(n_words: int, sharpness: float = 2.0, generator: torch.Generator | None = None) -> Chain:
    """A chain from normal logits times `sharpness`: 0 is uniform."""
    logits = torch.randn(n_words + 1, n_words, generator=generator, dtype=torch.float64) * sharpness
    return Chain(logits[0].softmax(-1), logits[1:].softmax(-1))


def sample(chain: Chain, n: int, T: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """n texts of T words, (n, T)."""
    words = [torch.multinomial(chain.first.expand(n, -1), 1, generator=generator)]
    for _ in range(T - 1):
        words.append(torch.multinomial(chain.step[words[-1][:, 0]], 1, generator=generator))
    return torch.cat(words, dim=1)


def entropy(p: torch.Tensor) -> torch.Tensor:
    """Of probabilities along the last axis, in nats."""
    return torch.special.entr(p).sum(dim=-1)


def word_entropy(chain: Chain, T: int, t: int, left: int | None, right: int | None) -> float:
    """H(word t | word `left`, word `right`) in nats, left < t < right; None: no word is known on that side."""
    marginals = chain.marginals(T)
    known = torch.ones(1, dtype=torch.float64) if left is None else marginals[left]
    to_t = marginals[t][None] if left is None else torch.linalg.matrix_power(chain.step, t - left)
    joint = known[:, None] * to_t  # (word `left`, word t)
    if right is not None:
        joint = joint[..., None] * torch.linalg.matrix_power(chain.step, right - t)  # (left, t, right)
        joint = joint.transpose(1, 2).flatten(0, 1)  # (all that is known, word t)
    return float(entropy(joint.flatten()) - entropy(joint.sum(dim=1)))


def left_losses(chain: Chain, T: int) -> torch.Tensor:
    """H(word t | all before it), (T,): a causal model's. Their sum is the entropy of a text."""
    return _numbers(word_entropy(chain, T, t, t - 1 if t else None, None) for t in range(T))


def right_losses(chain: Chain, T: int) -> torch.Tensor:
    """H(word t | all after it), (T,): a right-to-left model's. The sum is the same, for both are the chain rule."""
    return _numbers(word_entropy(chain, T, t, None, t + 1 if t + 1 < T else None) for t in range(T))


def two_sided_losses(chain: Chain, T: int) -> torch.Tensor:
    """H(word t | all others), (T,). Never above either of the two above: to know more does not hurt on average."""
    return _numbers(word_entropy(chain, T, t, t - 1 if t else None, t + 1 if t + 1 < T else None) for t in range(T))


def masked_loss(chain: Chain, T: int, rate: float) -> float:
    """Of a masked word, where each word is masked with probability `rate`, in nats.

    The nearest visible word on the left is i positions away with probability rate^(i - 1) (1 - rate), and none is
    visible with rate^t; on the right alike. Over all rates from 0 to 1 the mean is that of `left_losses`: masking at a
    rate drawn alike, which is diffusion, asks as much as the chain rule.
    """
    total = 0.0
    for t in range(T):
        for left, p in _nearest(range(t - 1, -1, -1), rate):
            for right, q in _nearest(range(t + 1, T), rate):
                total += p * q * word_entropy(chain, T, t, left, right)
    return total / T


def _nearest(positions: range, rate: float) -> list[tuple[int | None, float]]:
    """The nearest visible one of some positions, given from near to far, and how likely it is; None: none of them."""
    found = [(position, rate**i * (1 - rate)) for i, position in enumerate(positions)]
    return [*found, (None, rate ** len(positions))]


def span_losses(chain: Chain, T: int, start: int, stop: int) -> torch.Tensor:
    """Of the words of a hidden span, `start` up to `stop`, written from the left with all else given, (stop - start,).

    The span's length is taken as known. A model that must also say where the span ends cannot do better.
    """
    right = stop if stop < T else None
    return _numbers(word_entropy(chain, T, t, t - 1 if t else None, right) for t in range(start, stop))


def posteriors(chain: Chain, tokens: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """The probabilities of the word at each position, given the *other* visible words of its text, (B, T, V).

    tokens: (B, T); what stands at positions that are not `visible`, (B, T) bool, does not matter. By the forward and
    backward messages of hidden Markov models (Rabiner 1989).
    """
    B, T = tokens.shape
    V = len(chain.first)
    known = F.one_hot(tokens.where(visible, 0), V).to(chain.step)
    allowed = torch.where(visible[..., None], known, 1.0)  # (B, T, V)
    from_left, from_right = [chain.first.expand(B, V)], [torch.ones(B, V, dtype=chain.step.dtype)]
    for t in range(T - 1):
        from_left.append(_normalised((from_left[-1] * allowed[:, t]) @ chain.step))
        from_right.append(_normalised((from_right[-1] * allowed[:, T - 1 - t]) @ chain.step.T))
    return _normalised(torch.stack(from_left, dim=1) * torch.stack(from_right[::-1], dim=1))


class PerfectReader(nn.Module):
    """Stands in for a trained masking model: (B, T) ids, masks among them -> the log of `posteriors`, (B, T, V).

    It would rather say a special id than any word, as a model may.
    """

    def __init__(self, chain: Chain, vocabulary: Vocabulary):
        super().__init__()
        self.chain, self.vocabulary = chain, vocabulary
        self.blocks, self.none = nn.ModuleList(), nn.Parameter(torch.zeros(1))  # what a decoder has

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of all ids."""
        p = posteriors(self.chain, tokens, self.vocabulary.is_word(tokens))
        return F.pad(p.log(), (0, self.vocabulary.size - p.shape[-1]), value=5.0)


def _numbers(values: Iterable[float]) -> torch.Tensor:
    return torch.tensor(list(values), dtype=torch.float64)


def _normalised(p: torch.Tensor) -> torch.Tensor:
    return p / p.sum(dim=-1, keepdim=True)
