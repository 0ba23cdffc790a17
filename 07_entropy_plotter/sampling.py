"""From logits to a word: greedy, temperature, top-k, top-p, min-p, typical, penalties, beams, speculative sampling.

A rule takes logits (batch, vocabulary) and returns logits of the same shape; a word that is cut has -inf. Rules are
plain functions, so that they can be chained in any order, and the order matters:

    chain = [partial(temperature, T=0.8), partial(top_p, p=0.9)]
    tokens = generate(model, prompt, 20, chain, generator)

The best word always survives, except in `typical`, which may find it too likely. Ties are cut as Hugging Face's
`transformers` cuts them. Public functions raise ValueError for numbers that cannot work, and for logits that leave no
word to choose.

Sources: Holtzman et al. 2019 (top-p, arXiv 1904.09751), Fan et al. 2018 (top-k, 1805.04833), Nguyen et al. 2024
(min-p, 2407.01082), Meister et al. 2022 (typical, 2202.00666), Keskar et al. 2019 (repetition penalty, 1909.05858),
Leviathan et al. 2022 (speculative sampling, 2211.17192).
"""

import math
from collections.abc import Callable, Sequence
from functools import wraps

import torch

Rule = Callable[[torch.Tensor], torch.Tensor]


def temperature(logits: torch.Tensor, T: float) -> torch.Tensor:
    """Logits over T: below 1 sharper, above 1 flatter. T = 0 keeps the best word alone, the first of those that tie."""
    if not 0 <= T < math.inf:
        raise ValueError(f"T is {T}: expected a finite number, 0 or more")
    if T == 0:
        return keep(logits, torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).bool())
    return logits / T


def top_k(logits: torch.Tensor, k: int) -> torch.Tensor:
    """The k best words, and all that tie with the last of them."""
    if k < 1:
        raise ValueError(f"k is {k}: expected 1 or more")
    threshold = logits.topk(min(k, logits.shape[-1])).values[..., -1:]  # (B, 1), the k-th best
    return keep(logits, logits >= threshold)


def top_p(logits: torch.Tensor, p: float) -> torch.Tensor:
    """The nucleus: the fewest words, best first, whose probabilities sum to p or more."""
    _share(p, "p")
    if p == 1:
        return logits
    ascending, order = logits.sort(dim=-1)  # worst first, so that what is summed is what may go
    below = ascending.softmax(-1).cumsum(-1)  # the mass of a word and all worse ones
    kept = below > 1 - p
    kept[..., -1] = True  # the best, whatever the rounding
    return keep(logits, unsorted(kept, order))


def min_p(logits: torch.Tensor, p: float) -> torch.Tensor:
    """Words with at least p times the probability of the best."""
    _share(p, "p")
    probabilities = logits.softmax(-1)
    return keep(logits, probabilities >= p * probabilities.amax(-1, keepdim=True))


def typical(logits: torch.Tensor, mass: float) -> torch.Tensor:
    """The fewest words whose surprisal is nearest to the entropy and which together have `mass`.

    Unlike the others it may cut the best word: one that is far likelier than the entropy suggests says too little.
    """
    _share(mass, "mass")
    surprisal = -logits.log_softmax(-1)
    strange, order = (surprisal - entropy(logits)[..., None]).abs().sort(dim=-1)  # most typical first
    before = surprisal.gather(-1, order).neg().exp().cumsum(-1)
    last = (before < mass).sum(-1, keepdim=True).clamp(max=logits.shape[-1] - 1)  # the word that reaches the mass
    return keep(logits, unsorted(strange <= strange.gather(-1, last), order))


def _spares_padding(penalty):
    """A penalty for which -1 in `seen` is no word. Raises ValueError for ids and batches that do not fit."""

    @wraps(penalty)
    def guarded(logits, seen, *args, **kwargs):
        V = logits.shape[-1]
        if seen.shape[:-1] != logits.shape[:-1] or (seen.numel() and not -1 <= seen.min() <= seen.max() < V):
            shapes = f"logits {tuple(logits.shape)}, seen {tuple(seen.shape)}"
            raise ValueError(f"{shapes}: expected a row for each row, of ids below {V}, or -1 for no word")
        roomy = torch.cat([logits, logits[..., :1]], dim=-1)  # (B, V + 1): a last column for -1, taken off again
        return penalty(roomy, seen.where(seen >= 0, V), *args, **kwargs)[..., :V]

    return guarded


@_spares_padding
def repetition_penalty(logits: torch.Tensor, seen: torch.Tensor, penalty: float) -> torch.Tensor:
    """Words that were seen get less likely: positive logits over the penalty, negative ones times it.

    seen: (B, n) ids, -1 for no word.
    It depends on where zero lies: adding a constant to all logits changes what it does. `presence_penalty` does not.
    """
    if not 1 <= penalty < math.inf:
        raise ValueError(f"penalty is {penalty}: expected 1 (nothing) or more")
    old = logits.gather(-1, seen)
    return logits.scatter(-1, seen, torch.where(old < 0, old * penalty, old / penalty))


@_spares_padding
def presence_penalty(logits: torch.Tensor, seen: torch.Tensor, amount: float) -> torch.Tensor:
    """Words that were seen, once or often, lose `amount`. seen: (B, n) ids, -1 for no word."""
    if not 0 <= amount < math.inf:
        raise ValueError(f"amount is {amount}: expected 0 (nothing) or more")
    return logits.scatter(-1, seen, logits.gather(-1, seen) - amount)


def keep(logits: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Logits with -inf where `kept` is False; NaN stays, for whoever draws to see."""
    return logits.masked_fill(~kept & ~logits.isnan(), -math.inf)


def unsorted(sorted_values: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Values that stand in the order `order`, put back in the vocabulary's."""
    return torch.empty_like(sorted_values).scatter(-1, order, sorted_values)


def _share(value: float, name: str) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}: expected a share from 0 to 1")


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """In nats: (..., V) -> (...). A word that was cut adds nothing."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p.masked_fill(log_p == -math.inf, 0)).sum(-1)


def entropy_slope(logits: torch.Tensor, T: float) -> torch.Tensor:
    """dH/dT at temperature T: the variance of the logits under softmax(logits / T), over T^3. (..., V) -> (...)."""
    p = (logits / T).softmax(-1)
    mean = (p * logits).sum(-1, keepdim=True)
    return (p * (logits - mean).square()).sum(-1) / T**3


def draw(logits: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """A word for each row: (B, V) -> (B,). Raises ValueError if a row has no word left, or is not a number."""
    p = logits.softmax(-1)
    if not p.isfinite().all():
        raise ValueError("a row of logits has no finite number, or is not one: every word was cut, or the model broke")
    return torch.multinomial(p, 1, generator=generator)[:, 0]


def through(chain: Sequence[Rule], logits: torch.Tensor) -> torch.Tensor:
    """Logits (B, V) after every rule of the chain, the first one first."""
    for rule in chain:
        logits = rule(logits)
    return logits


@torch.no_grad()
def generate(
    model: Callable[[torch.Tensor], torch.Tensor],
    tokens: torch.Tensor,
    n: int,
    chain: Sequence[Rule] = (),
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """n more tokens, one at a time, each through the chain of rules. tokens (B, T) -> (B, T + n).

    model: (B, T) ids to logits (B, T, V). A rule that wants to know what was seen is made for each step by the caller.
    The whole text is read again at each step; `shared.generation` has the loop that is used elsewhere. Raises
    ValueError for n below 0 and an empty prompt.
    """
    if n < 0 or tokens.ndim != 2 or not tokens.shape[1]:
        raise ValueError(f"n is {n}, tokens {tuple(tokens.shape)}: expected 0 or more, and (batch, 1 or more)")
    for _ in range(n):
        logits = through(chain, model(tokens)[:, -1])
        tokens = torch.cat([tokens, draw(logits, generator)[:, None]], dim=1)
    return tokens


@torch.no_grad()
def beam_search(
    model: Callable[[torch.Tensor], torch.Tensor], tokens: torch.Tensor, n: int, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The n tokens with the largest probability that a beam finds: it keeps the `width` best beginnings at each step.

    tokens: (1, T). Returns the beams, best first, (width, T + n), and their log-probabilities, (width,).
    """
    if width < 1:
        raise ValueError(f"width is {width}: expected 1 (greedy) or more")
    scores = torch.zeros(1)
    for _ in range(n):
        log_p = model(tokens)[:, -1].log_softmax(-1)  # (beams, V)
        total = scores[:, None] + log_p
        scores, places = total.flatten().topk(min(width, total.numel()))
        beams, words = places // total.shape[1], places % total.shape[1]
        tokens = torch.cat([tokens[beams], words[:, None]], dim=1)
    return tokens, scores


def speculate(
    target: torch.Tensor, draft: torch.Tensor, words: torch.Tensor, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Accept or replace words that a cheap model drew, so that what comes out is drawn from the target.

    target, draft: probabilities (B, V) of one next word by the two models. words: (B,) ids drawn from the draft. A word
    is accepted with probability min(1, target / draft), else one is drawn from what the draft gives too little.
    Raises ValueError for probabilities that are not numbers.
    """
    if not (target.isfinite().all() and draft.isfinite().all()):
        raise ValueError("a probability is not a number: every word of a row was cut, or a model broke")
    ratio = (target / draft).gather(-1, words[:, None])[:, 0]
    accepted = torch.rand(len(words), generator=generator, device=words.device) < ratio
    missing = (target - draft).clamp(min=0)  # (B, V); its sum is the chance of a refusal
    missing = torch.where(missing.sum(-1, keepdim=True) > 0, missing, target)  # equal models refuse nothing
    return torch.where(accepted, words, torch.multinomial(missing, 1, generator=generator)[:, 0])


@torch.no_grad()
def generate_with_draft(
    model: Callable[[torch.Tensor], torch.Tensor],
    draft: Callable[[torch.Tensor], torch.Tensor],
    tokens: torch.Tensor,
    n: int,
    ahead: int,
    chain: Sequence[Rule] = (),
    generator: torch.Generator | None = None,
) -> tuple[torch.Tensor, int]:
    """What `generate` would draw from the model, with fewer calls of it: a cheap draft goes `ahead` words at a time.

    tokens: (1, T). Both models take (1, T) ids to logits (1, T, V); the chain is for both. Returns (1, T + n),
    distributed as the model's own, and how often the model was called. Each call judges all drafted words at once and
    yields those before the first refusal, and one more. Raises ValueError for numbers that cannot work.
    """
    if n < 0 or ahead < 1 or len(tokens) != 1:
        raise ValueError(
            f"n is {n}, ahead is {ahead}, texts {len(tokens)}: expected 0 or more, 1 or more, and one text"
        )
    calls, length = 0, tokens.shape[1] + n
    while (old := tokens.shape[1]) < length:
        drafted, q = tokens, []
        for _ in range(min(ahead, length - old)):
            left = through(chain, draft(drafted)[:, -1])  # (1, V)
            q.append(left.softmax(-1))
            drafted = torch.cat([drafted, draw(left, generator)[:, None]], dim=1)
        rows = model(drafted)[0, old - 1 :]  # (ahead + 1, V): before each drafted word, and after the last
        calls += 1
        left = torch.cat([through(chain, row[None]) for row in rows])
        words = drafted[0, old:]  # (ahead,)
        out = speculate(left[:-1].softmax(-1), torch.cat(q), words, generator)
        good = int((out == words).cumprod(0).sum())  # how many before the first refusal
        next_word = out[good] if good < len(words) else draw(left[-1:], generator)[0]
        tokens = torch.cat([drafted[:, : old + good], next_word.view(1, 1)], dim=1)
    return tokens[:, :length], calls
