"""Word vectors, by predicting neighbours and by counting them; every gradient by hand.

Shapes, everywhere in this file:

    V words, d numbers a word, B pairs in a batch, k negatives a pair
    w  (V, d)     the vectors of words as centres: what is kept in the end
    c  (V, d)     the vectors of the same words as contexts
    sentences     a list of 1-D int64 tensors of word ids; no window reaches across a sentence's end
    counts        (V, V): row i says how often each word stood near word i

Public functions raise ValueError, in words, for numbers that would give a silently wrong answer: ids outside 0..V-1,
negative counts, a window of 0. The gradients are the inner loop and check nothing.

Sources: Mikolov et al. 2013 (arXiv 1301.3781 and 1310.4546) for skip-gram, CBOW, negative sampling and sub-sampling;
Levy and Goldberg 2014 (NeurIPS 27) for what it converges to; Levy, Goldberg and Dagan 2015 (TACL 3) for PPMI.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F

# From text to pairs


def one_hot(ids: torch.Tensor, n_words: int) -> torch.Tensor:
    """A 1 at the word's place and 0 elsewhere: ids (...) -> (..., V) float32."""
    _check_ids(ids, n_words)
    return (ids[..., None] == torch.arange(n_words, device=ids.device)).float()


def pairs(sentences: Sequence[torch.Tensor], window: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    """Every (centre, context) in which the context stands near enough; two tensors (B,), in the text's order.

    Each centre draws its own reach, evenly from 1 to `window`, so that near words count more often than far ones.
    """
    ids, sentence = _joined(sentences, window)
    reach = torch.randint(1, window + 1, ids.shape, generator=generator)
    at, near = [], []
    for distance in _distances(sentences, window):
        left = (sentence[distance:] == sentence[:-distance]).nonzero()[:, 0]
        right = left + distance
        for centre, context in ((left, right), (right, left)):
            seen = reach[centre] >= distance
            at.append(centre[seen])
            near.append(context[seen])
    at, near = torch.cat([*at, ids[:0]]), torch.cat([*near, ids[:0]])
    order = at.argsort(stable=True)
    return ids[at[order]], ids[near[order]]


def cooccurrence(sentences: Sequence[torch.Tensor], n_words: int, window: int) -> torch.Tensor:
    """How often each pair comes out of `pairs`, on average over the drawn reaches: (V, V) float64, symmetric.

    A context at distance s is within reach in (window - s + 1) / window of the draws.
    """
    ids, sentence = _joined(sentences, window)
    _check_ids(ids, n_words)
    counts = torch.zeros(n_words * n_words, dtype=torch.float64)
    for distance in _distances(sentences, window):
        same = sentence[distance:] == sentence[:-distance]
        cells = ids[:-distance][same] * n_words + ids[distance:][same]
        counts += torch.bincount(cells, minlength=n_words**2).double() * (window - distance + 1) / window
    counts = counts.view(n_words, n_words)
    return counts + counts.T


def keep_probability(frequency: torch.Tensor, threshold: float = 1e-3) -> torch.Tensor:
    """The chance that an occurrence of a word is kept when frequent words are thinned out: (V,) -> (V,).

    frequency: how often each word occurs. With f its share of all words: sqrt(threshold / f) + threshold / f, at most
    1, as in word2vec.c (the paper has 1 - sqrt(threshold / f) as the chance to drop). A threshold of 0 keeps all.
    """
    _check_counts(frequency)
    if not 0 <= threshold < math.inf:
        raise ValueError(f"threshold is {threshold}: expected a share of all words, such as 0.001, or 0 to keep all")
    if threshold == 0:
        return torch.ones_like(frequency / 1)
    ratio = threshold / (frequency / frequency.sum())
    return (ratio.sqrt() + ratio).clamp(max=1)


def subsample(sentences: Sequence[torch.Tensor], keep: torch.Tensor, generator: torch.Generator) -> list[torch.Tensor]:
    """The sentences without the occurrences that were thinned out. keep: (V,) from `keep_probability`."""
    return [ids[torch.rand(len(ids), generator=generator) < keep[ids]] for ids in sentences]


def noise_distribution(frequency: torch.Tensor, power: float = 0.75) -> torch.Tensor:
    """What negatives are drawn from: each word's frequency to a power, as shares: (V,) -> (V,)."""
    _check_counts(frequency)
    raised = frequency**power
    return raised / raised.sum()


def draw_negatives(noise: torch.Tensor, n: int, generator: torch.Generator) -> torch.Tensor:
    """n words by their shares: lay the shares end to end from 0 to 1 and see on whose a random point falls. (n,)."""
    _check_counts(noise)
    ends = noise.double().cumsum(0)
    points = torch.rand(n, generator=generator, dtype=torch.float64, device=noise.device) * ends[-1]
    return torch.searchsorted(ends, points, right=True).clamp(max=len(noise) - 1)


# Losses with their gradients


def softmax_gradients(w, c, centres, contexts) -> tuple[torch.Tensor, ...]:
    """Skip-gram with the full softmax: the mean of -log p(context | centre), its slopes dw and dc, both (V, d).

    centres, contexts: (B,) ids. The logarithm is taken with the softmax: of a probability that rounds to 0 it is -inf.
    """
    log_p = (w[centres] @ c.T).log_softmax(dim=-1)  # (B, V): every word is scored for every pair
    loss = -log_p.gather(1, contexts[:, None]).mean()
    d_scores = (log_p.exp() - one_hot(contexts, len(c)).to(w)) / len(centres)
    dw = torch.zeros_like(w).index_add_(0, centres, d_scores @ c)
    return loss, dw, d_scores.T @ w[centres]


def negative_gradients(w, c, n) -> tuple[torch.Tensor, ...]:
    """Skip-gram with negative sampling, on rows already looked up.

    w: (B, d) centres. c: (B, d) their contexts. n: (B, k, d) each pair's negatives, as contexts. The loss of a pair is
    -log s(w·c) - sum of log s(-w·n), with s the logistic function. Returns the losses (B,) and dw, dc, dn, shaped like
    w, c, n: the slopes of their sum.
    """
    score, scores = (w * c).sum(dim=-1), (n @ w[..., None])[..., 0]  # (B,), (B, k)
    loss = -F.logsigmoid(score) - F.logsigmoid(-scores).sum(dim=-1)
    d_score = -(-score).sigmoid()  # s(score) - 1, also where s rounds to 1: the pair is pulled together
    d_scores = scores.sigmoid()  # each negative is pushed away
    dw = d_score[:, None] * c + (d_scores[:, None] @ n)[:, 0]
    return loss, dw, d_score[:, None] * w, d_scores[..., None] * w[:, None]


def expected_gradients(w, c, counts, noise, k: int) -> tuple[torch.Tensor, ...]:
    """The same loss over all pairs at once, its negatives in expectation: the mean a pair, and dw, dc, both (V, d).

    counts: (V, V) from `cooccurrence`. noise: (V,). Nothing is drawn: pair (i, j) counts counts[i, j] times as true and
    k counts[i].sum() noise[j] times as a negative.
    """
    true = counts / counts.sum()
    false = k * true.sum(dim=1, keepdim=True) * noise
    scores = w @ c.T  # (V, V)
    loss = -(true * F.logsigmoid(scores) + false * F.logsigmoid(-scores)).sum()
    d_scores = false * scores.sigmoid() - true * (-scores).sigmoid()
    return loss, d_scores @ c, d_scores.T @ w


def cbow_gradients(w, c, contexts, centres, negatives) -> tuple[torch.Tensor, ...]:
    """CBOW: the mean of the neighbours' vectors predicts the word between them.

    contexts: (B, m) ids, looked up in w. centres: (B,), negatives: (B, k), in c. Returns the summed loss, dw, dc.
    """
    mean = w[contexts].mean(dim=1)  # (B, d)
    loss, d_mean, d_centres, d_negatives = negative_gradients(mean, c[centres], c[negatives])
    share = d_mean / contexts.shape[1]  # each neighbour is one m-th of the mean
    dw = torch.zeros_like(w).index_add_(0, contexts.flatten(), share.repeat_interleave(contexts.shape[1], dim=0))
    dc = torch.zeros_like(c).index_add_(0, centres, d_centres)
    return loss.sum(), dw, dc.index_add_(0, negatives.flatten(), d_negatives.flatten(0, 1))


# Training


def start(n_words: int, d: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """The initialisation of word2vec.c: centres even within ±1/(2d), contexts at zero. Two (V, d)."""
    return (torch.rand(n_words, d, generator=generator) - 0.5) / d, torch.zeros(n_words, d)


def train(
    sentences: Sequence[torch.Tensor],
    n_words: int,
    d: int = 32,
    *,
    window: int = 5,
    k: int = 5,
    epochs: int = 5,
    rate: float = 0.3,
    threshold: float = 1e-3,
    batch: int = 1024,
    seed: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Skip-gram with negative sampling, as the papers train it, a batch of pairs at a time. Returns w and c.

    A batch holds many pairs of one frequent word, whose summed slopes would overshoot. So each word keeps the sum of
    its squared slopes and divides its step by the root (Adagrad, with one number a word). rate: how long a word's first
    step is, per number of its vector; it falls to 0 in a straight line.
    """
    for name, number in (("d", d), ("k", k), ("epochs", epochs), ("batch", batch), ("rate", rate)):
        if not 0 < number < math.inf:
            raise ValueError(f"{name} is {number}: expected a number above 0")
    ids, _ = _joined(sentences, window)
    _check_ids(ids, n_words)
    generator = torch.Generator().manual_seed(seed)
    frequency = torch.bincount(ids, minlength=n_words).double()
    keep, noise = keep_probability(frequency, threshold), noise_distribution(frequency)
    tables = start(n_words, d, generator)
    squares = torch.full((2, n_words), 1e-8)  # of centres and of contexts
    for epoch in range(epochs):
        centres, contexts = pairs(subsample(sentences, keep, generator), window, generator)
        order = torch.randperm(len(centres), generator=generator)
        for i in range(0, len(order), batch):
            left = 1 - (epoch + i / len(order)) / epochs
            centre, context = centres[order[i : i + batch]], contexts[order[i : i + batch]]
            negatives = draw_negatives(noise, len(centre) * k, generator).view(-1, k)
            step(*tables, squares, centre, context, negatives, rate * left)
    return tables


def step(w, c, squares, centres, contexts, negatives, rate: float) -> None:
    """Move, in place, the rows of w and c that a batch touches, and no others.

    squares: (2, V), each word's sum of squared slopes so far, as a centre and as a context. centres, contexts: (B,).
    negatives: (B, k).
    """
    _, dw, dc, dn = negative_gradients(w[centres], c[contexts], c[negatives])
    move(w, squares[0], centres, dw, rate)
    move(c, squares[1], torch.cat([contexts, negatives.flatten()]), torch.cat([dc, dn.flatten(0, 1)]), rate)


def move(table, squares, rows, slopes, rate: float) -> torch.Tensor:
    """Subtract each slope from its row, over the root of what the row's squares add up to; in place. Returns table.

    table: (V, d). squares: (V,): each slope first adds the mean of its squared numbers to its row's. rows: (n,) ids, a
    row may come many times; slopes: (n, d).
    """
    squares.index_add_(0, rows, slopes.square().mean(dim=1))
    return table.index_add_(0, rows, slopes * (-rate / squares[rows].sqrt())[:, None])


def train_expected(
    counts: torch.Tensor,
    d: int = 24,
    *,
    k: int = 5,
    steps: int = 120,
    rate: float = 0.08,
    seed: int = 0,
    watch: Callable[[int, torch.Tensor], None] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """w and c by `expected_gradients`: the whole text at once, by Adam, no word thinned out, no draws but the first.

    rate: Adam's, which falls to 0 in a straight line. watch: called before each step with its number and w.
    """
    _check_counts(counts)
    generator = torch.Generator().manual_seed(seed)
    counts = counts.float()
    noise = noise_distribution(counts.sum(dim=0))
    tables = [0.1 * torch.randn(len(counts), d, generator=generator) for _ in range(2)]
    adam = torch.optim.Adam(tables, lr=rate)
    for step in range(steps):
        if watch is not None:
            watch(step, tables[0])
        adam.param_groups[0]["lr"] = rate * (1 - step / steps)
        _, tables[0].grad, tables[1].grad = expected_gradients(*tables, counts, noise, k)
        adam.step()
    return tuple(tables)


# Counting


def ppmi(counts: torch.Tensor, shift: float = 0.0) -> torch.Tensor:
    """Positive pointwise mutual information, max(0, log p(i, j) / (p(i) p(j)) - shift): (V, V).

    How much likelier two words are near each other than if words stood anywhere. A pair never seen gives 0.
    """
    _check_counts(counts)
    total, rows, columns = counts.sum(), counts.sum(dim=1, keepdim=True), counts.sum(dim=0)
    information = (counts * total / (rows * columns)).log() - shift
    return information.nan_to_num(nan=0.0, neginf=0.0).clamp(min=0)


# Reading the space


def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The cosine of each row of a with each of b: (n, d), (m, d) -> (n, m). A row of zeros is like nothing: 0."""
    return _unit(a) @ _unit(b).T


def nearest(vectors: torch.Tensor, query: int, n: int = 5) -> list[int]:
    """The n words whose vectors have the largest cosine with the query's, without the query itself."""
    _check_ids(torch.tensor(query), len(vectors))
    _check_answers(n, len(vectors) - 1)
    scores = cosine(vectors[query : query + 1], vectors)[0]
    scores[query] = -torch.inf
    return scores.topk(n).indices.tolist()


def analogy(vectors: torch.Tensor, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, n: int = 1) -> torch.Tensor:
    """What is to c as b is to a: the n words nearest to b - a + c, on vectors of length 1, without the three given.

    a, b, c: ids, (B,) each. Returns ids (B, n).
    """
    given = torch.stack([a, b, c], dim=1)
    _check_ids(given, len(vectors))
    _check_answers(n, len(vectors) - 3)
    units = _unit(vectors)
    scores = cosine(units[b] - units[a] + units[c], vectors)  # (B, V)
    scores.scatter_(1, given, -torch.inf)
    return scores.topk(n, dim=1).indices


def purity(similarity: torch.Tensor, kinds: torch.Tensor) -> float:
    """The share of words whose most similar other word is of the same kind. similarity: (n, n), kinds: (n,).

    Where several are equally similar each counts as a part, as if one were picked at random: one-hot vectors, which are
    all alike, then come out at chance exactly.
    """
    others = similarity.clone().fill_diagonal_(-torch.inf)
    best = (others == others.amax(dim=1, keepdim=True)).double()
    same = (kinds[:, None] == kinds).double()
    return ((best * same).sum(dim=1) / best.sum(dim=1)).mean().item()


def _unit(rows):
    """Rows of length 1; of zeros, zeros. Over its largest number first, or the squares would leave the range."""
    rows = rows / rows.abs().amax(dim=-1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)
    return rows / rows.norm(dim=-1, keepdim=True).clamp(min=0.5)


def _joined(sentences, window):
    """All ids in one tensor, and the number of the sentence that each stands in."""
    if window < 1:
        raise ValueError(f"window is {window}: it must reach at least 1 word")
    if len(sentences) == 0:
        raise ValueError("no sentences: there is nothing to learn from")
    sizes = torch.tensor([len(ids) for ids in sentences])
    return torch.cat(list(sentences)), torch.arange(len(sizes)).repeat_interleave(sizes)


def _distances(sentences, window):
    """How far apart two words of a sentence can be, up to the window."""
    return range(1, min(window + 1, max(map(len, sentences))))


def _check_ids(ids, n_words):
    if ids.is_floating_point() or (ids.numel() and not 0 <= ids.min() <= ids.max() < n_words):
        found = f"ids of {ids.dtype}" if ids.is_floating_point() else f"ids from {ids.min()} to {ids.max()}"
        raise ValueError(f"{found}: expected whole numbers, 0 to {n_words - 1}")


def _check_counts(counts):
    if not (counts.isfinite().all() and (counts >= 0).all() and counts.sum() > 0):
        raise ValueError(f"counts from {counts.min()} to {counts.max()}: expected none below 0, and not all 0")


def _check_answers(n, most):
    if not 1 <= n <= most:
        raise ValueError(f"n is {n}: there are {most} words that can be an answer; expected 1 to {most}")
