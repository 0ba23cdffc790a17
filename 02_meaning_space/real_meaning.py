"""The embedding matrix of a real model: what is near what in SmolLM2-135M-Instruct, 49,152 by 576.

The file stores weights in 4 bits a number, and this matrix in 8.

A token's family are the tokens that are the same word but for capitals, a space before it and a plural's s. A `view` is
the matrix as it is, centred (its mean taken off), without its first principal component as well, or with each number
over its spread. Senses: sentences that end in a homonym, four of each of its two senses; in a nearest neighbour of the
same sense, of the seven other sentences, chance is right in 3 of 7.
"""

import functools
import re
from collections import Counter
from pathlib import Path

import numpy as np
import scipy
import torch
from meaning_tasks import MEASURES, analogies, offsets, partner_alone, questions, rank_correlation, rated, unbarred
from meaning_texts import rated_pairs

from shared.hooks import look
from shared.smollm2 import load_smollm2
from shared.world.words import LISTS

RELATIONS = {
    "country : capital": """France Paris Germany Berlin Italy Rome Spain Madrid Japan Tokyo China Beijing Russia Moscow
    Egypt Cairo Greece Athens Austria Vienna England London Ireland Dublin Poland Warsaw Portugal Lisbon Turkey Ankara
    Sweden Stockholm Norway Oslo Cuba Havana Iran Tehran Iraq Baghdad Kenya Nairobi Peru Lima India Delhi
    Canada Ottawa""",
    "big : bigger": """big bigger tall taller small smaller fast faster slow slower strong stronger weak weaker
    old older young younger high higher low lower long longer short shorter warm warmer hard harder easy easier
    large larger great greater deep deeper wide wider cheap cheaper bright brighter dark darker rich richer""",
    "one : many": """cat cats dog dogs car cars house houses book books tree trees bird birds king kings hand hands
    eye eyes road roads river rivers farm farms ship ships door doors window windows table tables chair chairs
    stone stones star stars""",
    "now : then": """walk walked talk talked look looked play played call called work worked ask asked open opened
    turn turned want wanted need needed start started help helped move moved live lived use used like liked love loved
    close closed jump jumped""",
    "man : woman": """king queen man woman boy girl father mother son daughter brother sister uncle aunt husband wife
    prince princess actor actress grandfather grandmother he she his her male female lord lady men women boys girls""",
}
LISTED = ("job", "food", "animal", "object", "colour", "material", "place", "kin", "number")  # of the story world
HOMONYMS = Path(__file__).with_name("homonyms.txt")
DOSES = (0.25, 0.5, 1.0, 2.0)
DEPTHS = (0, 1, 3, 6, 12, 20, 30)  # blocks; 0 is the embedding


@functools.cache
def model_and_tokenizer():
    """As loaded."""
    return load_smollm2()


@functools.cache
def embedding() -> torch.Tensor:
    """(V, C)"""
    return model_and_tokenizer()[0].embedding.weight.detach()


def token(word: str) -> int | None:
    """The id of a word with a space before it, if it is one token."""
    ids = model_and_tokenizer()[1].encode(f" {word}")
    return ids[0] if len(ids) == 1 else None


def ids_of(words: list[str]) -> dict[str, int]:
    """Of the words that are one token."""
    return {word: number for word in words if (number := token(word)) is not None}


@functools.cache
def views() -> dict[str, torch.Tensor]:
    """The matrix in four ways, (V, C) each."""
    raw = embedding()
    centred = raw - raw.mean(dim=0)
    first = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -1:]  # (C, 1)
    without = centred - centred @ first @ first.T
    return {"raw": raw, "centred": centred, "first component off": without, "over spread": centred / centred.std(dim=0)}


@functools.cache
def families() -> list[str | None]:
    """Of each token: its word in small letters without a plural's s; None if it is no word of three letters or more."""
    tokenizer = model_and_tokenizer()[1]
    texts = [tokenizer.decode([i]) for i in range(len(embedding()))]
    words = [text.strip().lower() if re.fullmatch(r" ?[A-Za-z]{3,}", text) else None for text in texts]
    return [re.sub(r"(?<=\w{3})(?<!s)s$", "", word) if word else None for word in words]


def probes(sample: int, n: int = 400) -> torch.Tensor:
    """n tokens by chance that have a family, none of them in another sample: (n,)."""
    names = families()
    sizes = Counter(names)
    known = torch.tensor([i for i, name in enumerate(names) if name and len(name) >= 4 and sizes[name] >= 2])
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(0))
    return known[order[sample * n : (sample + 1) * n]]


def own_family(matrix: torch.Tensor, measure: str, asked: torch.Tensor) -> tuple[float, int]:
    """The share of tokens whose nearest of all others is of their family; the largest hub among their ten nearest."""
    names = families()
    near = MEASURES[measure](matrix[asked], matrix)  # (n, V)
    near[torch.arange(len(asked)), asked] = -torch.inf
    ten = near.topk(10, dim=1).indices
    right = [names[i] == names[j] for i, j in zip(asked.tolist(), ten[:, 0].tolist(), strict=True)]
    return sum(right) / len(right), torch.bincount(ten.flatten()).max().item()


def by_family(sample: int) -> dict[str, list[float]]:
    """Own family and hub for each view and measure, and by cosine for each dose of rescaling."""
    asked, found = probes(sample), {}
    for view, matrix in views().items():
        found |= {f"{view}, {measure}": list(own_family(matrix, measure, asked)) for measure in MEASURES}
    for dose in DOSES:
        stretch = (dose * torch.randn(embedding().shape[1], generator=torch.Generator().manual_seed(sample))).exp()
        found[f"rescaled {dose:g}"] = list(own_family(embedding() * stretch, "cosine", asked))
    return found


def by_rating(which: str) -> dict[str, list[float]]:
    """Spearman with likeness and with belonging together, for each view and measure; then the 5th and 95th percentile
    of likeness minus that of the matrix as it is, by cosine, over 2,000 draws of the pairs with repetition."""
    ids = ids_of([word for a, b, _, _ in rated_pairs(which) for word in (a, b)])
    tables = {
        f"{view}, {measure}": rated(matrix, ids, MEASURES[measure], which)
        for view, matrix in views().items()
        for measure in MEASURES
    }
    base = tables["raw, cosine"]
    draws = np.random.default_rng(0).integers(len(base), size=(2000, len(base)))
    found = {}
    for name, table in tables.items():
        more = _rank_correlations(table[draws]) - _rank_correlations(base[draws])
        each = [rank_correlation(table[:, 0], table[:, i]) for i in (1, 2)]
        found[name] = each + np.quantile(more, [0.05, 0.95]).tolist()
    return found


def _rank_correlations(tables: np.ndarray) -> np.ndarray:
    """Spearman of the first two columns of each table: (draws, n, 3) -> (draws,)."""
    ranks = scipy.stats.rankdata(tables[:, :, :2], axis=1)
    ranks = ranks - ranks.mean(axis=1, keepdims=True)
    a, b = ranks[:, :, 0], ranks[:, :, 1]
    return (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))


def by_kind() -> dict[str, list[float]]:
    """The share of listed words whose nearest other listed word is of the same list."""
    ids = {word: number for name in LISTED for word, number in ids_of(LISTS[name]).items()}
    kinds = torch.tensor([i for i, name in enumerate(LISTED) for word in LISTS[name] if word in ids])
    at, found = torch.tensor(list(ids.values())), {}
    for view, matrix in views().items():
        for measure, near in MEASURES.items():
            similarity = near(matrix[at], matrix[at]).fill_diagonal_(-torch.inf)
            found[f"{view}, {measure}"] = [(kinds[similarity.argmax(dim=1)] == kinds).float().mean().item()]
    return found


def by_relation(name: str) -> dict[str, list[float]]:
    """Analogies solved with the three given words barred and not; own partner nearest of all partners; the offsets'
    mean cosine, with their own and with wrong partners; how many pairs. Of the matrix as it is, and centred."""
    words = RELATIONS[name].split()
    ids = ids_of(words)
    asked = questions(dict(zip(words[::2], words[1::2], strict=True)), ids)
    found = {}
    for view in ("raw", "centred"):
        matrix = views()[view]
        solved = [
            sum(f(matrix, part) * len(part) for part in asked.split(256)) / len(asked) for f in (analogies, unbarred)
        ]
        alone, count = partner_alone(matrix, asked), len(asked[:, :2].unique(dim=0))
        found[view] = [*solved, alone, *offsets(matrix, asked), count]
    return found


def sentences(word: str) -> tuple[list[str], torch.Tensor]:
    """The sentences that end in a homonym, and the number of its sense in each."""
    rows = [line.split(" | ") for line in HOMONYMS.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row[0] == word]
    names = list(dict.fromkeys(sense for _, sense, _ in rows))
    return [text for _, _, text in rows], torch.tensor([names.index(sense) for _, sense, _ in rows])


@torch.inference_mode()
def by_sense(word: str) -> dict[str, list[float]]:
    """How many of the eight sentences have one of the same sense nearest, by the state of their last token after
    `DEPTHS` blocks; with " thing" in the homonym's place; and by the mean embedding of the words before it."""
    (model, tokenizer), (texts, senses) = model_and_tokenizer(), sentences(word)
    found = {}
    for name in ("itself", "thing"):
        said = [text if name == "itself" else re.sub(r"\w+$", "thing", text) for text in texts]
        states, bags = [], []
        for text in said:
            ids = torch.tensor([tokenizer.encode(text)])
            seen = look(model, ids, ["embedding", "block"])
            states.append(torch.stack([x[0, -1] for x in (*seen["embedding"], *seen["block"])]))
            bags.append(seen["embedding"][0][0, :-1].mean(dim=0))
        at = torch.stack(states)[:, list(DEPTHS)]  # (8, depths, C)
        found[name] = [_same(at[:, i], senses) for i in range(len(DEPTHS))]
        found["words before it"] = [_same(torch.stack(bags), senses)]
    return found


def _same(rows: torch.Tensor, senses: torch.Tensor) -> int:
    """Of how many rows the nearest other one, by cosine to the mean of all, has the same sense; of ties, a part."""
    rows = rows - rows.mean(dim=0)
    similarity = MEASURES["cosine"](rows, rows).fill_diagonal_(-torch.inf)
    best = (similarity >= similarity.amax(dim=1, keepdim=True) - 1e-6).float()
    right = (best * (senses == senses[:, None])).sum(dim=1) / best.sum(dim=1)
    return round(right.sum().item(), 3)
