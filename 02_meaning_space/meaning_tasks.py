"""What lesson 02 asks of word vectors: kinds, relations, lists, topics, ratings; and three ways to say how near.

A similarity is (n, m), larger for nearer. Each score is a share or a correlation.
"""

import warnings
from collections.abc import Callable, Mapping

import numpy as np
import scipy
import skipgram
import torch
from meaning_texts import LABELS, RELATIONS, Text, kinds_of, labelled, rated_pairs
from sklearn.linear_model import RidgeClassifierCV

MEASURES: dict[str, Callable] = {
    "cosine": skipgram.cosine,
    "dot product": lambda a, b: a @ b.T,
    "Euclid": lambda a, b: -torch.cdist(a, b),
}
STRENGTHS = np.logspace(-3, 5, 17)  # of the classifier's penalty; it chooses by the paragraphs that it learns from


def known_kinds(vectors: torch.Tensor, words: list[str]) -> float:
    """The share of words of known kind whose nearest other one, by cosine, is of the same kind."""
    named, kinds = kinds_of(words)
    rows = vectors[named]
    return skipgram.purity(skipgram.cosine(rows, rows), kinds)


def chance_of_kinds(words: list[str]) -> float:
    """What a blind pick of another word gets: two different words at random are of the same kind."""
    sizes = torch.bincount(kinds_of(words)[1]).double()
    return ((sizes * (sizes - 1)).sum() / (sizes.sum() * (sizes.sum() - 1))).item()


def questions(relation: Mapping[str, str], ids: Mapping[str, int]) -> torch.Tensor:
    """Each pair of a relation asked from each other pair: rows (a, b, c, d), a is to b as c is to d."""
    pairs = [(ids[a], ids[b]) for a, b in relation.items() if a in ids and b in ids]
    rows = [(a, b, c, d) for a, b in pairs for c, d in pairs if len({a, b, c, d}) == 4]
    return torch.tensor(rows, dtype=torch.long).view(-1, 4)


def analogies(vectors: torch.Tensor, asked: torch.Tensor) -> float:
    """The share of questions that hit the one right word."""
    return (skipgram.analogy(vectors, *asked[:, :3].T)[:, 0] == asked[:, 3]).double().mean().item()


def unbarred(vectors: torch.Tensor, asked: torch.Tensor) -> float:
    """The same where the three words of the question may be the answer."""
    units = skipgram.cosine(vectors, torch.eye(vectors.shape[1], dtype=vectors.dtype))  # rows of length 1
    a, b, c, d = asked.T
    nearest = torch.cat(
        [skipgram.cosine(each, vectors).argmax(dim=1) for each in (units[b] - units[a] + units[c]).split(256)]
    )
    return (nearest == d).double().mean().item()


def partner_alone(vectors: torch.Tensor, asked: torch.Tensor) -> float:
    """Without any analogy: the share of first words whose nearest of all second words is their own partner."""
    pairs = asked[:, :2].unique(dim=0)
    nearest = skipgram.cosine(vectors[pairs[:, 0]], vectors[pairs[:, 1]]).argmax(dim=1)
    return (nearest == torch.arange(len(pairs))).double().mean().item()


def offsets(vectors: torch.Tensor, asked: torch.Tensor) -> tuple[float, float]:
    """The mean cosine of two offsets, second word minus first: of pairs as they are, and with each first word given
    another pair's second word (by one place, then by two ...)."""
    pairs = asked[:, :2].unique(dim=0)
    units = skipgram.cosine(vectors, torch.eye(vectors.shape[1], dtype=vectors.dtype))
    first, second = units[pairs[:, 0]], units[pairs[:, 1]]
    found = []
    for shift in range(len(pairs)):
        steps = second.roll(shift, dims=0) - first
        cosines = skipgram.cosine(steps, steps)
        found.append(cosines[~torch.eye(len(pairs), dtype=torch.bool)].mean().item())
    return found[0], float(np.mean(found[1:]))


def own_list(similarity: torch.Tensor, lists: Mapping[int, int]) -> float:
    """The share of listed words whose nearest word, of all words, is from their own list. similarity: (V, V)."""
    nearest = similarity.clone().fill_diagonal_(-torch.inf).argmax(dim=1).tolist()
    return float(np.mean([lists.get(nearest[i]) == number for i, number in lists.items()]))


def largest_hub(similarity: torch.Tensor, n: int = 10) -> int:
    """In how many words' n nearest the most popular word stands. similarity: (V, V)."""
    nearest = similarity.clone().fill_diagonal_(-torch.inf).topk(n, dim=1).indices
    return torch.bincount(nearest.flatten()).max().item()


def rescaled(w: torch.Tensor, c: torch.Tensor, dose: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The same model in other coordinates: each number of w times e^(dose z), each of c divided by it, z normal."""
    stretch = (dose * torch.randn(w.shape[1], generator=torch.Generator().manual_seed(seed))).exp()
    return w * stretch, c / stretch


def bags(vectors: torch.Tensor | None = None) -> np.ndarray:
    """Each labelled paragraph as a vector of length 1: which words occur, or the mean of its words' vectors."""
    tally, _ = labelled()
    rows = (tally > 0).double() if vectors is None else tally @ vectors.double() / tally.sum(dim=1, keepdim=True)
    return torch.nn.functional.normalize(rows, dim=1).numpy()


def squeezed(d: int) -> np.ndarray:
    """The bags in the d numbers that keep most of them (latent semantic analysis)."""
    rows = bags()
    return torch.nn.functional.normalize(torch.tensor(rows @ np.linalg.svd(rows, full_matrices=False)[2][:d].T)).numpy()


def topics(rows: np.ndarray, labels: int, splits: range) -> float:
    """The share of held-out paragraphs that a linear classifier puts into their topic, mean over several splits.

    It learns from `labels` paragraphs and is asked for the 30 % that no classifier learns from in this split.
    """
    answers, found = labelled()[1].numpy(), []
    for seed in splits:
        order = np.random.default_rng(seed).permutation(len(answers))
        learn, ask = order[:labels], order[LABELS[-1] :]
        shifted = rows - rows[learn].mean(axis=0)
        shifted = shifted / shifted[learn].std()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of topics that have few of the paragraphs
            model = RidgeClassifierCV(alphas=STRENGTHS).fit(shifted[learn], answers[learn])
        found.append(model.score(shifted[ask], answers[ask]))
    return float(np.mean(found))


def rated(vectors: torch.Tensor, ids: Mapping[str, int], measure: Callable = skipgram.cosine, which="") -> np.ndarray:
    """How near the words of each rated pair are, beside its two ratings: (n, 3); without pairs of unknown words."""
    known = [row for row in rated_pairs(which) if row[0] in ids and row[1] in ids]
    rows = [(ids[a], ids[b], alike, together) for a, b, alike, together in known]
    near = torch.cat([measure(vectors[a : a + 1], vectors[b : b + 1])[0] for a, b, _, _ in rows])
    return np.column_stack([near.double().numpy(), [row[2:] for row in rows]])


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's."""
    return scipy.stats.spearmanr(a, b).statistic.item()


def all_of(text: Text, vectors: torch.Tensor) -> list[float]:
    """Kinds, then each relation: the columns of the notebook's first table."""
    asked = [questions(relation, text.ids) for relation in RELATIONS.values()]
    return [known_kinds(vectors, text.words), *(analogies(vectors, each) for each in asked)]
