"""The checks of lesson 07: what a right `sampling.py` must do, and what a reader's exercises must do.

Words are shuffled on purpose: a vocabulary in order of probability hides half of the faults.
"""

import math
from functools import partial

import torch

from shared.clinic import Check, difference, refusal

P = torch.tensor([0.05, 0.5, 0.15, 0.3], dtype=torch.float64)  # of four words, not in order


def _logits(*shape, seed=0, scale=2.0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _kept(logits):
    """The words that are left in a row."""
    return (logits > -math.inf).nonzero()[:, 0].tolist()


def _check_temperature(m):
    z = _logits(3, 7)
    for T in (0.5, 1.0, 2.0):
        if gap := difference(m.temperature(z, T).softmax(-1), (z / T).softmax(-1)):
            return f"T = {T:g}: {gap}"
        if not torch.equal(m.temperature(z, T).argsort(-1), z.argsort(-1)):
            return f"T = {T:g} changed the order of the words"


def _check_zero(m):
    z = _logits(3, 7)
    z[0, :2] = z[0].max() + 1  # a tie for the best
    for row, best in zip(m.temperature(z, 0), z.argmax(-1), strict=True):
        if _kept(row) != [int(best)]:
            return f"T = 0 left the words {_kept(row)}, expected the best alone: {[int(best)]}"
    cut = torch.tensor([[-math.inf, 1.0, 2.0]])
    if (m.draw(m.temperature(cut, 0).expand(64, -1), torch.Generator().manual_seed(0)) != 2).any():
        return "T = 0 chose another word than the best of those that were left"


def _check_top_k(m):
    z = _logits(1, 9)
    order = z[0].argsort(descending=True).tolist()
    for k in (1, 3, 9, 20):
        if sorted(order[:k]) != _kept(m.top_k(z, k)[0]):
            return f"k = {k} left {_kept(m.top_k(z, k)[0])}, the best are {sorted(order[:k])}"
    tied = torch.tensor([[1.0, 3.0, 2.0, 2.0]])
    if _kept(m.top_k(tied, 2)[0]) != [1, 2, 3]:
        return f"two words tie for the second place; k = 2 left {_kept(m.top_k(tied, 2)[0])}, expected both of them"


def _check_top_p(m):
    for p, wanted in ((0.4, [1]), (0.6, [1, 3]), (0.79, [1, 3]), (0.81, [1, 2, 3]), (0.99, [0, 1, 2, 3])):
        if (kept := _kept(m.top_p(P.log()[None], p)[0])) != wanted:
            return f"probabilities {P.tolist()}, p = {p}: left {kept}, expected {wanted}, the fewest that reach p"


def _check_identity(m):
    z = _logits(4, 50, scale=4.0)
    for name, rule in (
        ("T = 1", partial(m.temperature, T=1.0)),
        ("k = 50", partial(m.top_k, k=50)),
        ("p = 1", partial(m.top_p, p=1.0)),
        ("min-p 0", partial(m.min_p, p=0.0)),
        ("a penalty of 1", partial(m.repetition_penalty, seen=torch.zeros(4, 1, dtype=torch.long), penalty=1.0)),
    ):
        if gap := difference(rule(z).softmax(-1), z.softmax(-1)):
            return f"{name} should change nothing: {gap}"


def _check_best(m):
    z = _logits(200, 30, scale=3.0)
    best = z.argmax(-1, keepdim=True)
    for name, rule in (
        ("k = 1", partial(m.top_k, k=1)),
        ("p = 0", partial(m.top_p, p=0.0)),
        ("p = 0.001", partial(m.top_p, p=0.001)),
        ("min-p 1", partial(m.min_p, p=1.0)),
    ):
        left = rule(z).gather(-1, best).isfinite()[:, 0]
        if not left.all():
            return f"{name} cut the best word in {int((~left).sum())} of 200 rows"


def _check_min_p(m):
    for p, wanted in ((0.05, [0, 1, 2, 3]), (0.2, [1, 2, 3]), (0.35, [1, 3]), (0.9, [1])):
        if (kept := _kept(m.min_p(P.log()[None], p)[0])) != wanted:
            return f"probabilities {P.tolist()}, min-p {p}: left {kept}, expected {wanted}"


def _check_typical(m):
    p = torch.tensor([0.02, 0.7, 0.08, 0.2], dtype=torch.float64)  # surprisals 3.9, 0.36, 2.5, 1.6; entropy 0.85
    for mass, wanted in ((0.5, [1]), (0.85, [1, 3]), (0.95, [1, 2, 3])):
        if (kept := _kept(m.typical(p.log()[None], mass)[0])) != wanted:
            return (
                f"probabilities {p.tolist()}, mass {mass}: left {kept}, expected {wanted}, nearest to the entropy first"
            )


def _check_order(m):
    z = _logits(1, 40)
    hot = [len(_kept(m.top_p(m.temperature(z, T), 0.8)[0])) for T in (0.5, 1.0, 2.0)]
    if not hot[0] < hot[1] < hot[2]:
        return f"heated first, the nucleus of p = 0.8 holds {hot} words at T = 0.5, 1 and 2: it should grow"
    chain = [partial(m.top_p, p=0.8), partial(m.temperature, T=2.0)]
    wanted = _kept(m.top_p(z, 0.8)[0])
    words = {int(m.generate(lambda _: z[None], torch.zeros(1, 1).long(), 1, chain, g)[0, 1]) for g in _generators(300)}
    if not words <= set(wanted):
        return f"top-p, then heat: drew {sorted(words - set(wanted))}, which top-p had cut"


def _generators(n):
    return [torch.Generator().manual_seed(seed) for seed in range(n)]


def _check_draws(m):
    z = P.log().repeat(20_000, 1)
    counts = torch.bincount(m.draw(z, torch.Generator().manual_seed(0)), minlength=4).double()
    chi = ((counts - 20_000 * P).square() / (20_000 * P)).sum().item()
    if chi > 21.1:  # three degrees of freedom: once in ten thousand
        return f"20,000 draws gave {(counts / 20_000).tolist()}, expected {P.tolist()}"


def _check_fresh(m):
    z = torch.zeros(1, 1, 50)
    out = m.generate(lambda tokens: z, torch.zeros(1, 1, dtype=torch.long), 30, [], torch.Generator().manual_seed(0))
    if len(set(out[0, 1:].tolist())) < 10:  # 23 of 50 expected in 30 even draws
        return f"30 even draws from 50 words gave {sorted(set(out[0, 1:].tolist()))}, expected about 23 of them"


def _check_repetition(m):
    z = torch.tensor([[2.0, -2.0, 0.5, -0.5]], dtype=torch.float64)
    for word in range(4):
        after = m.repetition_penalty(z, torch.tensor([[word]]), 1.5).softmax(-1)[0, word]
        if after >= z.softmax(-1)[0, word]:
            return f"the logit {z[0, word]:g} was penalised and its word became likelier"
    twice = m.repetition_penalty(z, torch.tensor([[0, 0]]), 1.5)
    if gap := difference(twice, m.repetition_penalty(z, torch.tensor([[0]]), 1.5)):
        return f"a word that was seen twice is penalised twice: {gap}"


def _check_presence(m):
    z = _logits(2, 5)
    wanted = z.clone()
    wanted[0, 1] -= 0.7
    wanted[1, [2, 4]] -= 0.7
    if gap := difference(m.presence_penalty(z, torch.tensor([[1, 1], [2, 4]]), 0.7), wanted):
        return f"seen once or often, a word loses 0.7 once: {gap}"


def _check_entropy(m):
    z = m.top_k(_logits(3, 9), 4)
    p = z.softmax(-1)
    wanted = -(p * p.clamp(min=1e-300).log()).sum(-1)
    if gap := difference(m.entropy(z), wanted):
        return f"entropy after five of nine words were cut: {gap}"
    z, step = _logits(3, 9), 1e-5
    for T in (0.5, 1.0, 3.0):
        slope = (m.entropy(z / (T + step)) - m.entropy(z / (T - step))) / (2 * step)
        if gap := difference(m.entropy_slope(z, T), slope, tolerance=1e-7):  # step^2 over the third derivative, 1e-10
            return f"dH/dT at T = {T:g} is not what wiggling T shows: {gap}"


def _check_beam(m):
    p = torch.tensor(
        [[0.1, 0.5, 0.4], [0.3, 0.3, 0.4], [0.05, 0.05, 0.9]], dtype=torch.float64
    )  # the next, by the last
    beams, scores = m.beam_search(lambda tokens: p.log()[tokens], torch.tensor([[0]]), 2, 2)
    if beams[0].tolist() != [0, 2, 2] or abs(scores[0].exp().item() - 0.36) > 1e-6:
        return f"the likeliest two words are 2, 2 (0.36); greedy finds 1, 2 (0.20); two beams found {beams[0].tolist()}"
    if m.beam_search(lambda tokens: p.log()[tokens], torch.tensor([[0]]), 2, 1)[0].tolist() != [[0, 1, 2]]:
        return "a beam of one is not greedy"


def _check_speculation(m):
    target, draft = P, torch.tensor([0.4, 0.2, 0.3, 0.1], dtype=torch.float64)
    n, generator = 40_000, torch.Generator().manual_seed(0)
    words = torch.multinomial(draft, n, replacement=True, generator=generator)
    out = m.speculate(target.repeat(n, 1), draft.repeat(n, 1), words, generator)
    counts = torch.bincount(out, minlength=4).double()
    chi = ((counts - n * target).square() / (n * target)).sum().item()
    if chi > 21.1:
        return f"what comes out is distributed as {(counts / n).tolist()}, the target is {target.tolist()}"
    same, wanted = (out == words).double().mean().item(), torch.minimum(target, draft).sum().item()
    if abs(same - wanted) > 0.0125:  # five standard errors of a share of 40,000
        return f"{same:.3f} of the drafts were accepted, expected {wanted:.3f}, the sum of the smaller probabilities"


TABLE = torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3], [0.3, 0.1, 0.6]], dtype=torch.float64).log()
POOR = torch.tensor([[0.3, 0.3, 0.4], [0.4, 0.4, 0.2], [0.2, 0.5, 0.3]], dtype=torch.float64).log()


def _drafted(m, table, draft, n, chain=()):
    """n words of a table of what follows what, drafted two at a time from another table; and the calls."""
    generator = torch.Generator().manual_seed(0)
    return m.generate_with_draft(lambda t: table[t], lambda t: draft[t], torch.tensor([[0]]), n, 2, chain, generator)


def _check_drafts(m):
    chains = {"no rules": [], "T = 0.7": [partial(m.temperature, T=0.7)], "k = 2": [partial(m.top_k, k=2)]}
    for name, chain in chains.items():
        out, _ = _drafted(m, TABLE, POOR, 1200, chain)
        if out.shape != (1, 1201):
            return f"1200 words were asked for, {out.shape[1] - 1} came"
        pairs = torch.bincount(3 * out[0, :-1] + out[0, 1:], minlength=9).view(3, 3).double()
        wanted = m.through(chain, TABLE).softmax(-1)
        expected = pairs.sum(1, keepdim=True) * wanted
        chi = ((pairs - expected).square() / expected).nan_to_num(nan=0, posinf=math.inf).sum()
        if chi > 27.9:  # six degrees of freedom: once in ten thousand
            found = (pairs / pairs.sum(1, keepdim=True)).round(decimals=2).tolist()
            return f"two words drafted at a time, {name}: each of three words is followed by {found}, expected " + str(
                wanted.round(decimals=2).tolist()
            )


def _check_calls(m):
    even, poor = TABLE[:1].expand(3, 3), POOR[:1].expand(3, 3)  # every word has the same chance of being accepted
    a = torch.minimum(even.softmax(-1), poor.softmax(-1))[0].sum().item()
    for name, draft, wanted, slack in (("another model", poor, 1 + a + a * a, 0.15), ("the model itself", even, 3, 0)):
        _, calls = _drafted(m, even, draft, 1200)  # slack: five standard errors of a mean of 500 from 1 to 3
        if not abs(1200 / max(calls, 1) - wanted) <= slack:
            return f"two words ahead, the draft is {name}: 1200 words took {calls} calls, expected {1200 / wanted:.0f}"


def _check_inputs(m):
    z = _logits(1, 4)
    cases = [
        ("T = -1", "T is -1", lambda: m.temperature(z, -1)),
        ("k = 0", "k is 0", lambda: m.top_k(z, 0)),
        ("p = 1.5", "p is 1.5", lambda: m.top_p(z, 1.5)),
        ("a penalty of 0", "penalty is 0", lambda: m.repetition_penalty(z, torch.tensor([[0]]), 0)),
        ("no word left", "no finite number", lambda: m.draw(torch.full((1, 4), -math.inf))),
        ("NaN", "no finite number", lambda: m.draw(torch.full((1, 4), math.nan))),
        ("a beam of 0", "width is 0", lambda: m.beam_search(lambda t: z[None], torch.tensor([[0]]), 1, 0)),
        ("no drafted word", "ahead is 0", lambda: m.generate_with_draft(z, z, torch.tensor([[0]]), 1, 0)),
        ("two texts", "texts 2", lambda: m.generate_with_draft(z, z, torch.tensor([[0], [0]]), 1, 1)),
        ("no probabilities", "not a number", lambda: m.speculate(z[:, :2] * math.nan, z, torch.tensor([0]))),
    ]
    return refusal(cases)


CHECKS = [
    Check(
        "temperature divides the logits once and keeps their order",
        _check_temperature,
        "How often are the logits divided, and by what?",
    ),
    Check("T = 0 is greedy", _check_zero),
    Check("top-k keeps the k best, and ties", _check_top_k, "Is the k-th best word itself kept?"),
    Check("the nucleus is the fewest words that reach p", _check_top_p, "Does the word that crosses p stay?"),
    Check("min-p keeps what has a share of the best", _check_min_p),
    Check("typical keeps what is nearest to the entropy", _check_typical),
    Check("settings that say nothing change nothing", _check_identity),
    Check("the best word always survives", _check_best),
    Check("rules are applied in their order", _check_order, "Which rule came first?"),
    Check("draws fit the probabilities", _check_draws, "How many softmaxes are there?"),
    Check("each step draws anew", _check_fresh, "Is the generator begun anew?"),
    Check(
        "the repetition penalty makes repeats less likely",
        _check_repetition,
        "Which way is less likely, for a negative logit?",
    ),
    Check("the presence penalty is taken off once", _check_presence),
    Check("the entropy, and its slope over T", _check_entropy),
    Check("beams find what greedy misses", _check_beam),
    Check("speculative sampling draws from the target", _check_speculation),
    Check("text that was drafted is distributed as the model's own", _check_drafts),
    Check("a call yields as many words as it should", _check_calls),
    Check("what cannot work is refused in words", _check_inputs),
]


def _check_sigma(m):
    z = _logits(3, 50)
    for n in (0.0, 1.0, 2.0):
        wanted = z >= z.amax(-1, keepdim=True) - n * z.std(-1, keepdim=True)
        found = m.top_n_sigma(z, n)
        if not torch.equal(found > -math.inf, wanted) or not torch.equal(found[wanted], z[wanted]):
            return f"n = {n:g}: {int((found > -math.inf).sum())} words left in three rows, expected {int(wanted.sum())}"


def _check_heat_for(m):
    z = _logits(1, 50)[0]
    for wanted in (0.5, 2.0, 3.5):
        T = m.temperature_for(z, wanted)
        p = (z / T).softmax(-1)
        found = -(p * p.clamp(min=1e-300).log()).sum().item()
        if not abs(found - wanted) < 1e-4:
            return f"an entropy of {wanted} was asked for; at T = {float(T):.4g} it is {found:.4g}"


def _check_frequency(m):
    z = _logits(2, 5)
    wanted = z.clone()
    wanted[0, 1] -= 1.4
    wanted[0, 3] -= 0.7
    wanted[1, 2] -= 2.1
    if gap := difference(m.frequency_penalty(z, torch.tensor([[1, 3, 1], [2, 2, 2]]), 0.7), wanted):
        return f"a word loses 0.7 for each time that it was seen: {gap}"


EXERCISES = [
    Check("top-n-sigma", _check_sigma),
    Check("the temperature for an entropy", _check_heat_for),
    Check("a penalty for each time", _check_frequency),
]
