"""What must hold of what `objectives.py` draws by chance: shares to five standard errors, and nothing beside them."""

import math
from collections import Counter

import torch
from objective_cases import END, FLOAT, MASK, PADDING, TEXTS, VOCABULARY, WORDS, first_difference, seeded, texts
from objective_vocabulary import padded

from shared.clinic import Check, difference


def _many(rows=200, columns=500):
    """100,000 words drawn alike, and a special token at the start and the end of each row."""
    tokens = torch.randint(WORDS.start, WORDS.stop, (rows, columns), generator=seeded(1))
    return torch.cat([torch.full((rows, 1), END), tokens, torch.full((rows, 1), PADDING)], dim=1)


def _off(name, found, share, n):
    """None if a count of n independent cases lies within five standard errors of its share, else in words."""
    if abs(found - share * n) > 5 * math.sqrt(n * share * (1 - share)):
        return f"{name}: {found} of {n}, {found / n:.4f}, expected {share:.4g}"


def _check_shares(m):
    tokens = _many()
    words, n = VOCABULARY.is_word(tokens), len(WORDS)
    for rate, mask, random in ((0.15, 0.8, 0.1), (0.6, 0.8, 0.1), (0.5, 0.3, 0.2), (0.4, 0.0, 1.0)):
        how = {} if (mask, random) == (0.8, 0.1) else {"mask_share": mask, "random_share": random}
        batch = m.masked(tokens, VOCABULARY, rate, seeded(), **how)
        chosen = batch.targets != -100
        if (wrong := (chosen & (batch.targets != tokens)).nonzero()).numel():
            b, t = wrong[0].tolist()
            return f"rate {rate}: position {t} is asked for {int(batch.targets[b, t])}, the word is {int(tokens[b, t])}"
        if ((batch.inputs != tokens) & ~chosen).any():
            return (
                f"rate {rate}: {int(((batch.inputs != tokens) & ~chosen).sum())} tokens were changed and not asked for"
            )
        found = batch.inputs[chosen]
        kept = (found == batch.targets[chosen]).sum()
        changed = (VOCABULARY.is_word(found) & (found != batch.targets[chosen])).sum()
        counted = (
            ("chosen words", int(chosen.sum()), rate, int(words.sum())),
            ("masks among the chosen", int((found == MASK).sum()), mask, len(found)),
            ("other words among the chosen", int(changed), random * (n - 1) / n, len(found)),
            ("the same word among the chosen", int(kept), 1 - mask - random * (n - 1) / n, len(found)),
        )
        for case in counted:
            if gap := _off(*case):
                return f"rate {rate}, mask {mask}, random {random}, {n} words: {gap}"


def _check_plain(m):
    tokens = _many(20)
    for rate in (0.15, 0.7, 1.0):
        batch = m.masked(tokens, VOCABULARY, rate, seeded(), mask_share=1.0, random_share=0.0)
        hidden = batch.targets != -100
        if gap := first_difference(batch.inputs, tokens.masked_fill(hidden, MASK)):
            return f"rate {rate}, masks only: inputs [row, position] {gap}"
        if rate == 1 and not torch.equal(hidden, VOCABULARY.is_word(tokens)):
            return f"rate 1: {int(hidden.sum())} of {int(VOCABULARY.is_word(tokens).sum())} words are asked for"


def _check_specials(m):
    """Texts half of whose tokens are special."""
    ids = [i for i in range(VOCABULARY.size) if i not in (PADDING, 32)]  # no token is called 32
    tokens = torch.tensor(ids)[torch.randint(len(ids), (150, 91), generator=seeded(2))]
    words = VOCABULARY.is_word(tokens)
    batches = {
        "masked, half of the chosen at random": m.masked(tokens, VOCABULARY, 0.9, seeded(), 0.4, 0.5),
        "diffusion": m.diffusion(tokens, VOCABULARY, seeded()),
        "hide, at draw_spans": m.hide(tokens, m.draw_spans(tokens, VOCABULARY, 0.5, 3, seeded()), VOCABULARY),
    }
    for name, batch in batches.items():
        if ((batch.targets != -100) & ~words).any():
            b, t = ((batch.targets != -100) & ~words).nonzero()[0].tolist()
            return f"{name}: special token {int(tokens[b, t])} is asked for"
        changed = batch.inputs != tokens
        wrong = changed & (batch.inputs != MASK) & ~VOCABULARY.is_word(batch.inputs)
        if (changed & ~words).any() or wrong.any():
            b, t = ((changed & ~words) | wrong).nonzero()[0].tolist()
            return f"{name}: token {int(tokens[b, t])} became {int(batch.inputs[b, t])}, words are 7 to 29"


def _check_drawn_words(m):
    tokens = _many()
    batch = m.masked(tokens, VOCABULARY, 0.9, seeded(), 0.0, 1.0)
    drawn = batch.inputs[batch.targets != -100]
    for word in WORDS:
        if gap := _off(f"word {word} among what was drawn", int((drawn == word).sum()), 1 / len(WORDS), len(drawn)):
            return gap


def _check_fresh(m):
    tokens = texts()[:1, :11].expand(40, -1)
    draws = {
        "masked": lambda g: m.masked(tokens, VOCABULARY, 0.4, g).targets,
        "masked, what was drawn": lambda g: m.masked(tokens, VOCABULARY, 1.0, g, 0.0, 1.0).inputs,
        "masked, which become masks": lambda g: m.masked(tokens, VOCABULARY, 1.0, g, 0.5, 0.0).inputs,
        "diffusion": lambda g: m.diffusion(tokens, VOCABULARY, g).targets,
        "draw_spans": lambda g: m.draw_spans(tokens, VOCABULARY, 0.4, 2, g),
        "draw_cuts": lambda g: m.draw_cuts(tokens, VOCABULARY, 2, g),
        "ask_share": lambda g: m.ask_share(m.causal(tokens, VOCABULARY), 0.4, g).targets,
    }
    for name, draw in draws.items():
        state, generator = torch.get_rng_state(), seeded(3)
        first, second, again = draw(generator), draw(generator), draw(seeded(3))
        if not torch.equal(first, again):
            return f"{name}: twice with the same seed, and not the same"
        if not torch.equal(torch.get_rng_state(), state):
            return f"{name}: given a generator, it drew from PyTorch's own"
        if torch.equal(first, second):
            return f"{name}: two batches from one generator are the same"
        if len(first.unique(dim=0)) < 10:
            return f"{name}: 40 rows of the same text have {len(first.unique(dim=0))} different draws"


def _check_diffusion(m):
    n, rows = 6, 6000
    tokens = torch.cat([torch.full((rows, 1), END), texts()[:1, :n].expand(rows, -1)], dim=1)
    batch = m.diffusion(tokens, VOCABULARY, seeded())
    hidden = batch.targets != -100
    counts = hidden.sum(dim=1)
    if gap := first_difference(batch.inputs, tokens.masked_fill(hidden, MASK)):
        return f"inputs [row, position]: {gap}"
    wanted = hidden * (n / counts.clamp(min=1))[:, None]
    if gap := difference(batch.weights, wanted, 1e-6):  # float32
        return f"texts of {n} words: weights [row, position] {gap}, the words over the masks"
    for count in range(1, n + 1):
        if gap := _off(f"texts of {n} words with {count} masks", int((counts == count).sum()), 1 / n, rows):
            return gap
    for t in range(n):
        for count in (1, 3):
            mine = hidden[counts == count, t + 1]
            if gap := _off(
                f"texts with {count} masks: masks at position {t + 1}", int(mine.sum()), count / n, len(mine)
            ):
                return gap


def _check_diffusion_lengths(m):
    for seed in range(20):
        batch = m.diffusion(texts(), VOCABULARY, seeded(seed))
        if gap := difference(batch.weights.sum(dim=1).to(FLOAT), torch.tensor([11.0, 8.0, 5.0], dtype=FLOAT), 1e-5):
            return f"texts of 11, 8 and 5 words: the weights of a text sum to: {gap}"


def _runs(row):
    """The spans of a row, (start, size) each."""
    starts = [t for t, gone in enumerate(row) if gone and not (t and row[t - 1])]
    return [(t, next(n for n in range(1, len(row) - t + 1) if t + n == len(row) or not row[t + n])) for t in starts]


def _check_spans(m):
    cases = [(11, 0.3, 1.5, 3, 2), (11, 0.15, 3.0, 2, 1), (8, 0.5, 2.0, 4, 2), (5, 0.1, 3.0, 1, 1)]
    cases += [(11, 0.8, 1.0, 9, 3), (8, 0.95, 0.1, 8, 1), (5, 0.4, 0.2, 2, 2)]
    for length, rate, mean, hidden, spans in cases:
        tokens = padded([[END, *TEXTS[0][:length]], [PADDING] * 15], VOCABULARY)[:1].expand(30, -1)
        drawn = m.draw_spans(tokens, VOCABULARY, rate, mean, seeded())
        if drawn.dtype != torch.bool or drawn.shape != tokens.shape:
            return f"{drawn.dtype} {tuple(drawn.shape)}, expected bool {tuple(tokens.shape)}"
        for row in drawn.tolist():
            if (found := (sum(row), len(_runs(row)))) != (hidden, spans):
                how = f"{length} words, rate {rate}, spans of {mean} on average"
                return f"{how}: {found[0]} words in {found[1]} spans, expected {hidden} in {spans}"
    long = _many(9, 100)
    for row in m.draw_spans(long, VOCABULARY, generator=seeded()).tolist():
        if (found := (sum(row), len(_runs(row)))) != (15, 5):
            return f"100 words, a rate and a mean length that are not given: {found[0]} words in {found[1]} spans"


def _check_all_spans(m):
    tokens = texts()[:1, :6].expand(1500, -1)
    drawn = Counter(map(tuple, m.draw_spans(tokens, VOCABULARY, 0.5, 1.5, seeded()).tolist()))
    rows = [tuple(bool(code >> t & 1) for t in range(6)) for code in range(64)]
    rows = [row for row in rows if sum(row) == 3 and len(_runs(row)) == 2]
    for row in rows:
        if gap := _off(f"spans {_runs(row)} (start, size)", drawn[row], 1 / len(rows), len(tokens)):
            return f"6 words, 3 of them hidden in 2 spans, {len(rows)} ways: {gap}"


def _check_cuts(m):
    tokens = texts().repeat_interleave(4000, dim=0)
    for n in (1, 2):
        cuts = m.draw_cuts(tokens, VOCABULARY, n, seeded())
        if cuts.shape != (12000, n) or (cuts[:, 1:] < cuts[:, :-1]).any():
            return f"{n} cuts of 12,000 texts: shape {tuple(cuts.shape)}, or not in order"
        for b, text in enumerate(TEXTS):
            drawn = cuts[4000 * b : 4000 * (b + 1)].flatten().tolist()
            for cut in range(min(drawn), max(drawn) + 1):
                share = 1 / (len(text) - 1) if 1 <= cut < len(text) else 0.0
                if gap := _off(
                    f"text of {len(text)} words, {n} cuts: cuts at {cut}", drawn.count(cut), share, len(drawn)
                ):
                    return gap


def _check_ask_share(m):
    batch = m.causal(_many(), VOCABULARY)
    before = [part.clone() for part in batch]
    found = m.ask_share(batch, 0.15, seeded())
    if gap := next((gap for one, two in zip(batch, before, strict=True) if (gap := first_difference(one, two))), None):
        return f"the batch that was given has changed: {gap}"
    asked, left = batch.targets != -100, found.targets != -100
    if gap := _off("positions that are still asked", int(left.sum()), 0.15, int(asked.sum())):
        return gap
    if gap := first_difference(found.targets, batch.targets.masked_fill(~left, -100)):
        return f"share .15: targets [row, position] {gap}"
    if gap := difference(found.weights, batch.weights.masked_fill(~left, 0.0)):
        return f"share .15: weights [row, position] {gap}"
    for part, one, two in (("inputs", found.inputs, batch.inputs), ("seen", found.seen, batch.seen)):
        if gap := first_difference(one, two):
            return f"share .15: {part} {gap}"
    weighted = m.diffusion(texts(), VOCABULARY, seeded())
    left = m.ask_share(weighted, 0.5, seeded(1)).weights
    if gap := difference(left, weighted.weights * (left > 0)):
        return f"share .5 of weighted positions: weights [row, position] {gap}"


DRAW_CHECKS = [
    Check(
        "of the chosen words 80 % become masks, 10 % any word, 10 % stay",
        _check_shares,
        "Which is done first, and what does the second do to it? Of how many is the second share taken?",
        about=["masked"],
    ),
    Check(
        "plain masking masks every chosen word and changes nothing else",
        _check_plain,
        "What do shares of 1 and 0 leave?",
        about=["masked"],
    ),
    Check(
        "special tokens are never chosen, and never drawn",
        _check_specials,
        "From which ids are words drawn? Which tokens may be chosen?",
        about=["masked", "diffusion", "draw_spans"],
    ),
    Check(
        "a random word is any word, all alike",
        _check_drawn_words,
        "Which is the first word, and which the last?",
        about=["masked"],
    ),
    Check(
        "each row and each batch is drawn anew, by the generator alone",
        _check_fresh,
        "Where does the generator go? Is one draw used for all rows?",
        about=["masked"],
    ),
    Check(
        "diffusion masks 1 to all words of a text, all counts and positions alike, weighted by words over masks",
        _check_diffusion,
        "How often is each number of masks drawn? Which rate is the weight's?",
        about=["diffusion"],
    ),
    Check(
        "the weights of diffusion sum to a text's length, whatever was drawn",
        _check_diffusion_lengths,
        "Is padding a part of the text?",
        about=["diffusion"],
    ),
    Check(
        "drawn spans hide as many words, in as many spans, as was asked",
        _check_spans,
        "What if there is no room for so many spans?",
        about=["draw_spans"],
    ),
    Check(
        "all ways to lay spans are equally likely", _check_all_spans, "Which gaps can a span lie in?", ["draw_spans"]
    ),
    Check("cuts are drawn from 1 to a text's length - 1, all alike, in order", _check_cuts, about=["draw_cuts"]),
    Check(
        "of a batch asked at a share of its positions, nothing else changes",
        _check_ask_share,
        "Are weights 0 where nothing is asked?",
        about=["ask_share"],
    ),
]
