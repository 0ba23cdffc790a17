"""What must hold of what `objectives.py` draws by chance: shares to five standard errors, and nothing beside them."""

import math
from collections import Counter

import torch
from objective_cases import (
    END,
    FLOAT,
    MASK,
    PADDING,
    TEXTS,
    VOCABULARY,
    WORDS,
    first_difference,
    first_place,
    largest_difference,
    seeded,
    texts,
)
from objective_vocabulary import padded

from shared.clinic import Check


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
        if gap := first_difference(batch.targets, tokens.masked_fill(~chosen, -100), "row position"):
            return f"rate {rate}, targets, {gap}"
        if gap := first_difference(torch.where(chosen, tokens, batch.inputs), tokens, "row position"):
            return f"rate {rate}, inputs where nothing is asked, {gap}"
        found = batch.inputs[chosen]
        kept = (found == batch.targets[chosen]).sum()
        changed = (VOCABULARY.is_word(found) & (found != batch.targets[chosen])).sum()
        counted = (
            ("positions that are asked, per word", int(chosen.sum()), rate, int(words.sum())),
            ("masks among the asked", int((found == MASK).sum()), mask, len(found)),
            ("other words among the asked", int(changed), random * (n - 1) / n, len(found)),
            ("the same word among the asked", int(kept), 1 - mask - random * (n - 1) / n, len(found)),
        )
        for case in counted:
            if gap := _off(*case):
                return f"rate {rate}, mask {mask}, random {random}, {n} words: {gap}"


def _check_plain(m):
    tokens = _many(20)
    for rate in (0.15, 0.7, 1.0):
        batch = m.masked(tokens, VOCABULARY, rate, seeded(), mask_share=1.0, random_share=0.0)
        hidden = batch.targets != -100
        if (wrong := batch.inputs != tokens.masked_fill(hidden, MASK)).any():
            b, t = first_place(wrong)
            token, target = int(tokens[b, t]), int(batch.targets[b, t]) if hidden[b, t] else "IGNORE"
            found = f"found input {int(batch.inputs[b, t])} and target {target}"
            wanted = f"expected {MASK} and {token}, or {token} and IGNORE"
            return f"rate {rate}, mask 1, random 0, row {b}, position {t}, token {token}: {found}, {wanted}"
        if rate == 1 and (gap := first_difference(hidden, VOCABULARY.is_word(tokens), "row position")):
            return f"rate 1, whether a position is asked, {gap}"


def _check_specials(m):
    """Texts half of whose tokens are special."""
    ids = [i for i in range(VOCABULARY.size) if i not in (PADDING, 32)]  # no token is called 32
    tokens = torch.tensor(ids)[torch.randint(len(ids), (150, 91), generator=seeded(2))]
    words = VOCABULARY.is_word(tokens)
    batches = {
        "masked, half of the chosen at random": m.masked(tokens.clone(), VOCABULARY, 0.9, seeded(), 0.4, 0.5),
        "diffusion": m.diffusion(tokens.clone(), VOCABULARY, seeded()),
        "hide, at draw_spans": m.hide(tokens.clone(), m.draw_spans(tokens, VOCABULARY, 0.5, 3, seeded()), VOCABULARY),
    }
    for name, batch in batches.items():
        if gap := first_difference(
            batch.targets.masked_fill(words, -100), torch.full_like(tokens, -100), "row position"
        ):
            return f"{name}, targets of special tokens, {gap}"
        right = VOCABULARY.is_word(batch.inputs) | (batch.inputs == MASK)
        if (wrong := (batch.inputs != tokens) & ~(words & right)).any():
            b, t = first_place(wrong)
            became = f"token {int(tokens[b, t])} became {int(batch.inputs[b, t])}"
            return f"{name}, row {b}, position {t}: {became}, words are 7 to 29 and the mask is {MASK}"


def _check_drawn_words(m):
    tokens = _many()
    batch = m.masked(tokens, VOCABULARY, 0.9, seeded(), 0.0, 1.0)
    drawn = batch.inputs[batch.targets != -100]
    for word in WORDS:
        if gap := _off(
            f"word {word} among the inputs that were drawn", int((drawn == word).sum()), 1 / len(WORDS), len(drawn)
        ):
            return gap


def _check_fresh(m):
    tokens = texts()[:1, :11].expand(40, -1)
    draws = {
        "targets of masked": lambda g: m.masked(tokens, VOCABULARY, 0.4, g).targets,
        "inputs of masked, random 1": lambda g: m.masked(tokens, VOCABULARY, 1.0, g, 0.0, 1.0).inputs,
        "inputs of masked, mask 0.5": lambda g: m.masked(tokens, VOCABULARY, 1.0, g, 0.5, 0.0).inputs,
        "targets of diffusion": lambda g: m.diffusion(tokens, VOCABULARY, g).targets,
        "draw_spans": lambda g: m.draw_spans(tokens, VOCABULARY, 0.4, 2, g),
        "draw_cuts": lambda g: m.draw_cuts(tokens, VOCABULARY, 2, g),
        "targets of ask_share": lambda g: m.ask_share(m.causal(tokens, VOCABULARY), 0.4, g).targets,
    }
    for name, draw in draws.items():
        state, generator = torch.get_rng_state(), seeded(3)
        first, second, again = draw(generator), draw(generator), draw(seeded(3))
        if gap := first_difference(again, first, "row column"):
            return f"{name}, of two generators of the same seed, {gap}"
        if n := int((torch.get_rng_state() != state).sum()):
            return f"{name}, given a generator: {n} bytes of the state of PyTorch's own have changed, expected 0"
        if torch.equal(first, second):
            return f"{name}, twice from one generator: found {first.numel()} of {first.numel()} entries the same"
        if (n := len(first.unique(dim=0))) < 10:
            return f"{name}, 40 rows of the same text: found {n} different rows, expected 10 or more"


def _check_diffusion(m):
    n, rows = 6, 6000
    tokens = torch.cat([torch.full((rows, 1), END), texts()[:1, :n].expand(rows, -1)], dim=1)
    batch = m.diffusion(tokens, VOCABULARY, seeded())
    hidden = batch.targets != -100
    counts = hidden.sum(dim=1)
    if gap := first_difference(batch.inputs, tokens.masked_fill(hidden, MASK), "row position"):
        return f"inputs, {gap}"
    wanted = hidden * (n / counts.clamp(min=1))[:, None]
    if gap := largest_difference(batch.weights, wanted, "row position", 1e-6):  # float32
        return f"texts of {n} words, weights, {gap}"
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
        sums, wanted = batch.weights.sum(dim=1).to(FLOAT), torch.tensor([11.0, 8.0, 5.0], dtype=FLOAT)
        if gap := largest_difference(sums, wanted, "row", 1e-5):
            return f"texts of 11, 8 and 5 words, the sum of a text's weights, {gap}"


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
        for b, row in enumerate(drawn.tolist()):
            if (found := (sum(row), len(_runs(row)))) != (hidden, spans):
                how = f"{length} words, rate {rate}, spans of {mean} on average, row {b}"
                return f"{how}: found {found[0]} words in {found[1]} spans, expected {hidden} in {spans}"
    long = _many(9, 100)
    for b, row in enumerate(m.draw_spans(long, VOCABULARY, generator=seeded()).tolist()):
        if (found := (sum(row), len(_runs(row)))) != (15, 5):
            found = f"found {found[0]} words in {found[1]} spans, expected 15 in 5"
            return f"100 words, a rate and a mean length that are not given, row {b}: {found}"


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
        if cuts.shape != (12000, n):
            return f"{n} cuts of 12,000 texts: found the shape {tuple(cuts.shape)}, expected {(12000, n)}"
        if (wrong := cuts[:, 1:] < cuts[:, :-1]).any():
            row = first_place(wrong)[0]
            return f"{n} cuts of 12,000 texts, row {row}: found {cuts[row].tolist()}, expected them in order"
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
    for part, one, two in zip(batch._fields, batch, before, strict=True):
        if gap := first_difference(one, two, "row position" if part != "seen" else "row query key"):
            return f"{part} of the batch that was given, afterwards, {gap}"
    asked, left = batch.targets != -100, found.targets != -100
    if gap := _off("positions that are still asked", int(left.sum()), 0.15, int(asked.sum())):
        return gap
    if gap := first_difference(found.targets, batch.targets.masked_fill(~left, -100), "row position"):
        return f"share .15, targets, {gap}"
    if gap := largest_difference(found.weights, batch.weights.masked_fill(~left, 0.0), "row position"):
        return f"share .15, weights, {gap}"
    for part, axes in (("inputs", "row position"), ("seen", "row query key")):
        if gap := first_difference(getattr(found, part), getattr(batch, part), axes):
            return f"share .15, {part}, {gap}"
    weighted = m.diffusion(texts(), VOCABULARY, seeded())
    left = m.ask_share(weighted, 0.5, seeded(1)).weights
    if gap := largest_difference(left, weighted.weights * (left > 0), "row position"):
        return f"share .5 of weighted positions, weights, {gap}"


DRAW_CHECKS = [
    Check(
        "of the chosen words 80 % become masks, 10 % any word, 10 % stay",
        _check_shares,
        "What may a word become, and how likely is each? Which positions are asked?",
        about=["masked"],
    ),
    Check(
        "plain masking masks every chosen word and changes nothing else",
        _check_plain,
        "Which positions are asked, and which are masks?",
        about=["masked"],
    ),
    Check(
        "special tokens are never chosen, and never drawn",
        _check_specials,
        "Which tokens may be asked for, and from which ids is a random word drawn?",
        about=["masked", "diffusion", "draw_spans"],
    ),
    Check(
        "a random word is any word, all alike",
        _check_drawn_words,
        "From which ids is a random word drawn, and how likely is each of them?",
        about=["masked"],
    ),
    Check(
        "each row and each batch is drawn anew, by the generator alone",
        _check_fresh,
        "Which parts of the batch should depend on chance, which do, and by which generator?",
        about=["masked"],
    ),
    Check(
        "diffusion masks 1 to all words of a text, all counts and positions alike, weighted by words over masks",
        _check_diffusion,
        "How often is each number of masks drawn, where do they fall, and what does each weigh?",
        about=["diffusion"],
    ),
    Check(
        "the weights of diffusion sum to a text's length, whatever was drawn",
        _check_diffusion_lengths,
        "Which tokens have a weight, and which numbers make it?",
        about=["diffusion"],
    ),
    Check(
        "drawn spans hide as many words, in as many spans, as was asked",
        _check_spans,
        "How many words are to be hidden, in how many spans, and how many spans have room?",
        about=["draw_spans"],
    ),
    Check(
        "all ways to lay spans are equally likely",
        _check_all_spans,
        "Which sizes and which gaps can be drawn, and how likely is each?",
        about=["draw_spans"],
    ),
    Check(
        "cuts are drawn from 1 to a text's length - 1, all alike, in order",
        _check_cuts,
        "Which are the first and the last place for a cut, and how likely is each?",
        about=["draw_cuts"],
    ),
    Check(
        "of a batch asked at a share of its positions, nothing else changes",
        _check_ask_share,
        "What should change where nothing is asked any more, and what everywhere else?",
        about=["ask_share"],
    ),
]
