"""What a right `objectives.py` must do. Each check takes the module, so that a reader's functions and a patient can be
asked the same. The texts, and what each objective must ask of them, by hand: `objective_cases`.
"""

import math
from collections import Counter
from functools import partial

import objectives
import torch
from objective_cases import (
    CUTS,
    END,
    FLOAT,
    HIDDEN,
    LENGTHS,
    MASK,
    MASKING,
    NEXT_TOKEN,
    PADDING,
    TEXTS,
    VOCABULARY,
    WORDS,
    T,
    batch_by_hand,
    hidden_positions,
    makers,
    middle_by_hand,
    seeded,
    small_model,
    spans_by_hand,
    texts,
)
from objective_vocabulary import padded
from torch import nn
from torch.nn import functional as F

from shared.clinic import Check, difference, refusal
from shared.hooks import hooked


def _filled(rows, width, filler):
    return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows])


def _difference(found, wanted):
    """Where two tensors of whole numbers differ first, in words."""
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return f"{found.dtype} {tuple(found.shape)}, expected {wanted.dtype} {tuple(wanted.shape)}"
    if (places := (found != wanted).nonzero()).numel():
        at = tuple(places[0].tolist())
        return f"found {found[at].item()} at {list(at)}, expected {wanted[at].item()}"


def _check_left(m):
    for n in (1, 2, 7):
        wanted = torch.tensor([[[key <= query for key in range(n)] for query in range(n)]])
        if gap := _difference(m.sees_left(n), wanted):
            return f"{n} positions: [1, query, key] {gap}"
        if gap := _difference(m.sees_all(n), torch.ones_like(wanted)):
            return f"{n} positions that see all: [1, query, key] {gap}"


def _check_prefix_mask(m):
    for lengths, n in (([2], 3), ([4, 1, 5, 9], 9), ([0, 3], 7)):
        wanted = torch.tensor([[[k <= q or k < length for k in range(n)] for q in range(n)] for length in lengths])
        if gap := _difference(m.sees_prefix(torch.tensor(lengths), n), wanted):
            return f"prefixes of {lengths} in {n} positions: [row, query, key] {gap}"


def _check_next(m):
    wanted = torch.tensor([[*row[1:], PADDING] for row in texts().tolist()])
    if gap := _difference(m.next_tokens(texts(), VOCABULARY), wanted):
        return f"what follows each position [row, position]: {gap}"


def _check_batch(m, name):
    rows, targets, sees = batch_by_hand(name)
    width = T if rows[0] in TEXTS or name in ("hide", "right_to_left") else max(map(len, rows))
    batch = makers(m)[name](texts())
    if gap := _difference(batch.inputs, _filled(rows, width, PADDING)):
        return f"inputs [row, position]: {gap}"
    if gap := _difference(batch.targets, _filled(targets, width, -100)):
        return f"targets [row, position]: {gap}"
    seen = [
        [[q == k or (k < len(row) and sees(b, q, k)) for k in range(width)] for q in range(width)]
        for b, row in enumerate(rows)
    ]
    if gap := _difference(batch.seen, torch.tensor(seen)):
        return f"seen [row, query, key]: {gap}"
    if gap := difference(batch.weights, (batch.targets != -100).float()):
        return f"weights [row, position], 1 where something is asked: {gap}"


def _check_padding(m):
    for name, make in makers(m).items():
        batch = make(texts())
        padding = batch.inputs == PADDING
        if (batch.targets[padding] != -100).any() or batch.weights[padding].any():
            b, t = (padding & (batch.targets != -100)).nonzero().tolist()[0]
            return f"{name}: row {b} asks padding at position {t} for {int(batch.targets[b, t])}"
        if (batch.targets == PADDING).any():
            return f"{name}: padding is a target, at [row, position] {(batch.targets == PADDING).nonzero()[0].tolist()}"
        wrong = batch.seen & padding[:, None, :] & ~torch.eye(padding.shape[1], dtype=torch.bool)
        if wrong.any():
            return f"{name}: padding is seen, at [row, query, key] {wrong.nonzero()[0].tolist()}"
        if not m.read(small_model(), batch).isfinite().all():
            return f"{name}: logits are not finite, of rows with padding"


def _check_alone(m):
    model = small_model()
    for name, make in makers(m).items():
        if name not in NEXT_TOKEN:
            continue
        batch = make(texts())
        logits = m.read(model, batch)
        for b, text in enumerate(TEXTS):
            alone = _alone(m, name, b)
            n = alone.inputs.shape[1]
            if gap := _difference(batch.targets[b, :n], alone.targets[0]):
                return f"{name}: targets of row {b}, not as those of its {len(text)} words alone: {gap}"
            if gap := difference(logits[b, :n], m.read(model, alone)[0]):
                return f"{name}: logits of row {b} [position, token], not as of its {len(text)} words alone: {gap}"


def _alone(m, name, b):
    """Row b by itself, without padding."""
    tokens, hidden = torch.tensor([TEXTS[b]]), hidden_positions()[b : b + 1]
    match name:
        case "causal":
            return m.causal(tokens, VOCABULARY)
        case "prefix":
            return m.prefix(tokens, VOCABULARY, torch.tensor(LENGTHS[b : b + 1]))
        case "span_corruption":
            return m.span_corruption(tokens, hidden[:, : len(TEXTS[b])], VOCABULARY)
    return m.fill_in_the_middle(tokens, torch.tensor(CUTS[b : b + 1]), VOCABULARY, name == "suffix_first")


def _changes():
    """The texts with one word changed, each in turn: row, position, tokens."""
    for b, text in enumerate(TEXTS):
        other = next(word for word in WORDS if word not in text)
        for t in range(len(text)):
            tokens = texts()
            tokens[b, t] = other
            yield b, t, tokens


def _check_no_leak(m):
    model = small_model()
    for name, make in makers(m).items():
        batch = make(texts())
        logits = m.read(model, batch)
        for b, t, tokens in _changes():
            other = make(tokens)
            asked = (batch.targets != other.targets).nonzero().tolist()
            changed = m.read(model, other)
            for row, position in asked:
                if gap := difference(changed[row, position], logits[row, position]):
                    word = f"word {t} of row {b}, asked for at position {position} of row {row},"
                    return f"{name}: {word} was changed, and so was what is answered there: token {gap}"


def _check_rows_apart(m):
    model = small_model()
    for name, make in makers(m).items():
        batch = make(texts())
        logits = m.read(model, batch)
        for b, text in enumerate(TEXTS):
            tokens, rest = texts(), [row for row in range(3) if row != b]
            tokens[b, : len(text)] = torch.tensor([word for word in WORDS if word not in text][: len(text)])
            other = make(tokens)
            for part in ("inputs", "targets", "seen"):
                if gap := _difference(getattr(other, part)[rest], getattr(batch, part)[rest]):
                    return f"{name}: row {b} has other words, and so have changed the {part} of rows {rest}: {gap}"
            if gap := difference(m.read(model, other)[rest], logits[rest]):
                return f"{name}: row {b} has other words, and so have changed the logits of rows {rest}: {gap}"


def _reach(m, model, batch):
    """Whether a change of a row's input at each key would change the logits at each query: (B, T, T), by gradient."""
    seen, kept = [], {}

    def keep(x, layer):
        kept["x"] = x.detach().requires_grad_()
        return kept["x"]

    with hooked(model, {"embedding": keep}):
        logits = m.read(model, batch)
    for query in range(logits.shape[1]):
        sums = (logits[:, query] * torch.arange(1, logits.shape[2] + 1)).sum()
        (gradient,) = torch.autograd.grad(sums, kept["x"], retain_graph=True)
        seen.append(gradient.abs().sum(dim=-1) > 0)
    return torch.stack(seen, dim=1)


def _check_who_sees_whom(m):
    model = small_model()
    for name, make in makers(m).items():
        wanted = batch_by_hand("hide" if name in MASKING else name)
        reach = _reach(m, model, make(texts()))
        for b, row in enumerate(TEXTS if name in MASKING else wanted[0]):
            n = len(row)
            sees = torch.tensor([[q == k or wanted[2](b, q, k) for k in range(n)] for q in range(n)])
            if gap := _difference(reach[b, :n, :n], sees):
                return f"{name}, row {b}: whether position [query] is moved by [key], two layers up: {gap}"


def _check_counted_once(m):
    for name, make in makers(m).items():
        batch = make(texts())
        for b, text in enumerate(TEXTS):
            asked = Counter(batch.targets[b][batch.targets[b] != -100].tolist())
            word = next((word for word in asked if asked[word] > 1), None)
            if word is not None:
                return f"{name}: row {b} asks for token {word} {asked[word]} times, the text has it once"
            match name:
                case "causal":
                    wanted = text[1:]
                case "right_to_left":
                    wanted = text[:-1]
                case "prefix":
                    wanted = text[LENGTHS[b] :]
                case "hide":
                    wanted = [text[t] for t in HIDDEN[b]]
                case "span_corruption":
                    wanted = spans_by_hand(text, HIDDEN[b])[1]
                case "fill_in_the_middle" | "suffix_first":
                    wanted = middle_by_hand(text, *CUTS[b], name == "suffix_first")[1:]
                    wanted = [token for token in wanted if token not in VOCABULARY.marks]
                case _:
                    continue
            if sorted(asked) != sorted(wanted):
                return f"{name}: row {b} asks for {sorted(asked)}, expected {sorted(wanted)}"


def _check_cyclic(m):
    """Each word is followed by the next id; logits that say so, and logits that repeat the input."""
    n = len(WORDS)
    tokens = padded([[7 + (start + t) % n for t in range(length)] for start, length in ((0, 30), (11, 19))], VOCABULARY)
    cuts = torch.tensor([[4, 17], [2, 9]])
    batches = {
        "causal": m.causal(tokens, VOCABULARY),
        "prefix": m.prefix(tokens, VOCABULARY, torch.tensor([6, 3])),
        "right_to_left": m.right_to_left(tokens, VOCABULARY),
        "hide": m.hide(tokens, torch.arange(30) % 5 == 2, VOCABULARY),
        "fill_in_the_middle": m.fill_in_the_middle(tokens, cuts, VOCABULARY),
    }
    for name, batch in batches.items():
        step = {"right_to_left": -1, "hide": 0}.get(name, 1)
        told = batch.inputs if name != "hide" else tokens
        answers = 7 + (told - 7 + step) % n
        asked = VOCABULARY.is_word(batch.targets) & VOCABULARY.is_word(told)
        if (wrong := (asked & (answers != batch.targets)).nonzero()).numel():
            b, t = wrong[0].tolist()
            found = f"position {t} of row {b}, word {int(told[b, t])}, is asked for {int(batch.targets[b, t])}"
            return f"{name}, texts in which the next word is always one more: {found}, expected {int(answers[b, t])}"
        if int(asked.sum()) < 0.1 * tokens.numel():
            return f"{name}: {int(asked.sum())} words are asked for, in texts of 30 and 19"


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
        if gap := _difference(batch.inputs, tokens.masked_fill(hidden, MASK)):
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


def _check_prefix_refused(m):
    return refusal(
        [
            ("a prefix of 0", "0", lambda: m.prefix(texts(), VOCABULARY, torch.tensor([4, 0, 1]))),
            ("a prefix of -1", "-1", lambda: m.prefix(texts(), VOCABULARY, torch.tensor([4, 2, -1]))),
        ]
    )


def _check_prefix_of_one(m):
    ones = torch.ones(3, dtype=torch.long)
    found, wanted = m.prefix(texts(), VOCABULARY, ones), m.causal(texts(), VOCABULARY)
    for part in ("inputs", "targets", "seen"):
        if gap := _difference(getattr(found, part), getattr(wanted, part)):
            return f"prefixes of one token, not as causal: {part} [row, position] {gap}"


T5 = "Thank you for inviting me to your party last week"


def _check_t5(m):
    """Figure 2 of Raffel et al. 2019."""
    text = list(WORDS)[:10]
    x, y, z = VOCABULARY.sentinels[:3]
    hidden = [word in ("for", "inviting", "last") for word in T5.split()]
    kept, spans = m.cut_out(text, hidden, VOCABULARY)
    wanted = [*text[:2], x, *text[4:8], y, text[9]], [x, *text[2:4], y, text[8], z]
    for part, found, expected in zip(("the text", "the spans"), (kept, spans), wanted, strict=True):
        if list(found) != expected:
            return (
                f"the example of T5's paper, {text} with 2, 3 and 8 hidden: {part} {list(found)}, expected {expected}"
            )


def _together(kept, spans):
    """The text again: each sentinel gives way to its span."""
    parts = {}
    for token in spans:
        if token in VOCABULARY.sentinels:
            parts[token] = last = []
        else:
            last.append(token)
    return [word for token in kept for word in (parts[token] if token in VOCABULARY.sentinels else [token])]


def _check_rebuilt(m):
    for n in (1, 2, 6):
        text = list(WORDS)[-n:]
        for code in range(2**n):
            hidden = [bool(code >> t & 1) for t in range(n)]
            kept, spans = m.cut_out(text, hidden, VOCABULARY)
            runs = sum(gone and not (t and hidden[t - 1]) for t, gone in enumerate(hidden))
            sentinels = [token for token in spans if token in VOCABULARY.sentinels]
            if sentinels != list(VOCABULARY.sentinels[: runs + 1]):
                return f"{text}, hidden {hidden}: {runs} spans, sentinels {sentinels}"
            if (found := _together(kept, spans)) != text:
                return f"{text}, hidden {hidden}: put together again it is {found}"


def _check_middle_rebuilt(m):
    p, s, mid = VOCABULARY.marks
    tokens = texts()[:1, :5]
    for start in range(6):
        for stop in range(start, 6):
            for suffix_first in (False, True):
                batch = m.fill_in_the_middle(tokens, torch.tensor([[start, stop]]), VOCABULARY, suffix_first)
                row = batch.inputs[0].tolist()
                given = f"cuts at {start} and {stop} of 5 words, suffix first {suffix_first}"
                if sorted(row) != sorted([*tokens[0].tolist(), p, s, mid, END]):
                    return f"{given}: {row} is not the 5 words, three marks and the end"
                at = {token: row.index(token) for token in (p, s, mid, END)}
                if suffix_first:
                    after, rest = row[at[s] + 1 : at[mid]], row[at[mid] + 1 : at[END]]
                    text = rest + after
                else:
                    before, after = row[at[p] + 1 : at[s]], row[at[s] + 1 : at[mid]]
                    text = before + row[at[mid] + 1 : at[END]] + after
                if text != tokens[0].tolist():
                    return f"{given}: {row}, put together again {text}, expected {tokens[0].tolist()}"
                middle = batch.targets[0, -2 - (stop - start) : -1].tolist()
                if middle != [*tokens[0, start:stop].tolist(), END]:
                    return f"{given}: the middle and the end are asked for as {middle}"


def _check_diffusion(m):
    n, rows = 6, 6000
    tokens = torch.cat([torch.full((rows, 1), END), texts()[:1, :n].expand(rows, -1)], dim=1)
    batch = m.diffusion(tokens, VOCABULARY, seeded())
    hidden = batch.targets != -100
    counts = hidden.sum(dim=1)
    if gap := _difference(batch.inputs, tokens.masked_fill(hidden, MASK)):
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
    if gap := next((gap for one, two in zip(batch, before, strict=True) if (gap := _difference(one, two))), None):
        return f"the batch that was given has changed: {gap}"
    asked, left = batch.targets != -100, found.targets != -100
    if gap := _off("positions that are still asked", int(left.sum()), 0.15, int(asked.sum())):
        return gap
    if gap := _difference(found.targets, batch.targets.masked_fill(~left, -100)):
        return f"share .15: targets [row, position] {gap}"
    if gap := difference(found.weights, batch.weights.masked_fill(~left, 0.0)):
        return f"share .15: weights [row, position] {gap}"
    for part, one, two in (("inputs", found.inputs, batch.inputs), ("seen", found.seen, batch.seen)):
        if gap := _difference(one, two):
            return f"share .15: {part} {gap}"
    weighted = m.diffusion(texts(), VOCABULARY, seeded())
    left = m.ask_share(weighted, 0.5, seeded(1)).weights
    if gap := difference(left, weighted.weights * (left > 0)):
        return f"share .5 of weighted positions: weights [row, position] {gap}"


def _check_untouched(m):
    for name, make in makers(m).items():
        tokens = texts()
        make(tokens)
        if gap := _difference(tokens, texts()):
            return f"{name}: the tokens that were given have changed, [row, position] {gap}"


def _logits(m, B=3, width=7, size=9, seed=0):
    """Logits, and a batch of uneven rows with weights; a whole row is asked nothing."""
    logits = torch.randn(B, width, size, generator=seeded(seed), dtype=FLOAT) * 2
    targets = torch.randint(size, (B, width), generator=seeded(seed + 1))
    asked = torch.rand(B, width, generator=seeded(seed + 2)) < torch.tensor([0.3, 0.9, 0.0])[:, None]
    asked[0, :2] = torch.tensor([True, False])
    weights = torch.rand(B, width, generator=seeded(seed + 3)) * 3 * asked
    return logits, m.Batch(torch.zeros_like(targets), targets.masked_fill(~asked, -100), _see(B, width), weights)


def _see(B, width):
    return torch.ones(B, width, width, dtype=torch.bool)


def _by_hand(logits, batch):
    """Position by position: the losses, and their weighted mean."""
    found = torch.zeros(batch.targets.shape, dtype=FLOAT)
    for b, t in (batch.targets != -100).nonzero().tolist():
        row = logits[b, t].tolist()
        found[b, t] = math.log(sum(math.exp(z) for z in row)) - row[int(batch.targets[b, t])]
    return found, (found * batch.weights).sum() / batch.weights.sum()


def _check_losses(m):
    logits, batch = _logits(m)
    if gap := difference(m.losses(logits, batch), _by_hand(logits, batch)[0]):
        return f"losses [row, position]: {gap}"
    uniform = torch.zeros(3, 7, 9, dtype=FLOAT)
    asked = batch.targets != -100
    if gap := difference(m.losses(uniform, batch), asked.to(FLOAT) * math.log(9)):
        return f"uniform logits over 9 tokens: losses [row, position] {gap}, log 9 is {math.log(9):.4f}"


def _check_mean(m):
    for seed in (0, 10):
        logits, batch = _logits(m, seed=seed)
        plain = batch._replace(weights=(batch.targets != -100).float())
        for name, it in (("weights of 1", plain), ("weights", batch)):
            wanted = _by_hand(logits, it)[1]
            if gap := difference(m.objective_loss(logits, it).detach(), wanted, 1e-6):  # weights are float32
                counts = (it.targets != -100).sum(dim=1).tolist()
                return f"rows with {counts} positions asked, {name}: {gap}, the weighted mean over all of them"
            if gap := difference(m.objective_loss(logits, it._replace(weights=it.weights * 0.01)), wanted, 1e-6):
                return f"rows with {name}, all a hundredth: {gap}, the same mean"


def _check_only_asked(m):
    logits, batch = _logits(m)
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(m.objective_loss(logits, batch), logits)
    share = batch.weights.to(FLOAT) / batch.weights.sum()
    right = F.one_hot(batch.targets.clamp(min=0), 9)
    wanted = (logits.detach().softmax(-1) - right) * share[..., None]
    if gap := difference(gradient, wanted, 1e-6):
        return f"the gradient at the logits [row, position, token], share of the weight times (p - target): {gap}"
    noise = torch.randn(logits.shape, generator=seeded(9), dtype=FLOAT) * 100 * (batch.targets == -100)[..., None]
    if gap := difference(m.objective_loss(logits + noise, batch), m.objective_loss(logits, batch)):
        return f"other logits where nothing is asked: the loss is {gap}"


def _check_nothing_asked(m):
    cases = {"causal, texts of one word": m.causal(texts()[:, :1], VOCABULARY)}
    cases["prefix, the whole texts"] = m.prefix(texts(), VOCABULARY, torch.tensor([11, 8, 5]))
    cases["hide, nothing hidden"] = m.hide(texts(), torch.zeros(3, T, dtype=torch.bool), VOCABULARY)
    model = small_model().requires_grad_()
    for name, batch in cases.items():
        loss = m.objective_loss(m.read(model, batch), batch)
        loss.backward()
        if loss.item() != 0 or any(w.grad is not None and w.grad.abs().max() != 0 for w in model.parameters()):
            return f"{name}: nothing is asked and the loss is {loss.item()}, or its gradient is not 0"


def _check_extremes(m):
    logits, batch = _logits(m)
    far = m.objective_loss(logits * 1000, batch)
    gap = difference(m.objective_loss(logits + 1000, batch), m.objective_loss(logits, batch), 1e-6)
    if not far.isfinite() or gap:
        return f"logits of thousands: {float(far)}; logits all 1,000 larger: {gap}"
    low = logits.bfloat16()
    found = m.losses(low, batch)
    if found.dtype != torch.float32 or difference(found.double(), m.losses(low.double(), batch), 1e-5):
        return f"of bfloat16 logits the losses are {found.dtype}, or rounded to it: expected float32"


def _check_read(m):
    model, tokens = small_model(), texts()[:, :5]
    batch = m.causal(tokens, VOCABULARY)
    if gap := difference(m.read(model, batch), model(tokens)):
        return f"causal: logits [row, position, token], not as the decoder's own: {gap}"
    before, seen = model(texts()), torch.rand(3, T, T, generator=seeded()) < 0.5
    seen |= torch.eye(T, dtype=torch.bool)
    found = m.read(model, batch._replace(inputs=texts(), seen=seen))
    if gap := difference(model(texts()), before):
        return f"after `read` the decoder itself computes something else: {gap}"
    for b in range(3):
        with hooked(model, {"mask": lambda mask, layer, b=b: seen[b]}):
            wanted = model(texts()[b : b + 1])[0]
        if gap := difference(found[b], wanted):
            return f"a mask drawn for each row: logits of row {b} [position, token] {gap}"


def _check_training_loss(m):
    model = small_model()
    for name, make in makers(m).items():
        batch = make(texts())
        if gap := difference(m.training_loss(model, *batch), m.objective_loss(m.read(model, batch), batch)):
            return f"{name}: {gap}"


def _split(batch, size):
    return zip(*(part.split(size) for part in batch), strict=True)


def _check_held_out(m):
    model = small_model()
    model.norm = nn.Sequential(model.norm, nn.Dropout(0.5))
    tokens = texts().repeat(3, 1)
    hidden = torch.rand(tokens.shape, generator=seeded()) < torch.linspace(0.1, 0.9, 9)[:, None]
    whole = m.hide(tokens, hidden, VOCABULARY)
    whole = whole._replace(weights=whole.weights * torch.linspace(0.5, 3, T))
    model.eval()
    wanted = float(_by_hand(m.read(model, whole), whole)[1])
    for mode in (True, False):
        for size in (1, 2, 4, 9):
            model.train(mode)
            found = m.held_out_loss(model, (m.Batch(*parts) for parts in _split(whole, size)))
            if not abs(found - wanted) <= 1e-6:
                return f"9 rows in batches of {size}, dropout {mode}: {found:.6f}, expected {wanted:.6f}"
            if model.training != mode:
                return f"the model was left with training {model.training}, it was {mode}"


def _check_inputs(m):
    gap = torch.tensor([[9, PADDING, 10]])
    causal, few = m.causal(texts(), VOCABULARY), torch.zeros(2, T, dtype=torch.bool)
    none = m.hide(texts(), torch.zeros(3, T, dtype=torch.bool), VOCABULARY)
    return refusal(
        [
            ("padding before a word", "right only", lambda: m.causal(gap, VOCABULARY)),
            ("padding on the left", "right only", lambda: m.causal(gap[:, 1:], VOCABULARY)),
            ("a rate of 15", "rate is 15", lambda: m.masked(texts(), VOCABULARY, 15)),
            ("a rate of 0", "rate is 0", lambda: m.masked(texts(), VOCABULARY, 0.0)),
            ("spans at a rate of 1.5", "rate is 1.5", lambda: m.draw_spans(texts(), VOCABULARY, 1.5)),
            ("a share of 0", "share is 0", lambda: m.ask_share(causal, 0.0)),
            (
                "five spans, four sentinels",
                "n + 1",
                lambda: m.cut_out(range(7, 16), [True, False] * 4 + [True], VOCABULARY),
            ),
            ("spans for two of three texts", "argument 2", lambda: m.span_corruption(texts(), few, VOCABULARY)),
            (
                "cuts for two of three texts",
                "argument 2",
                lambda: m.fill_in_the_middle(texts(), few[:, :2], VOCABULARY),
            ),
            (
                "cuts in reverse",
                "4 and 2",
                lambda: m.fill_in_the_middle(texts(), torch.tensor([[4, 2]] * 3), VOCABULARY),
            ),
            ("a cut outside", "1 and 6", lambda: m.fill_in_the_middle(texts(), torch.tensor([[1, 6]] * 3), VOCABULARY)),
            (
                "a cut before",
                "-1 and 4",
                lambda: m.fill_in_the_middle(texts(), torch.tensor([[-1, 4]] * 3), VOCABULARY),
            ),
            ("batches that ask nothing", "nothing is asked", lambda: m.held_out_loss(small_model(), [none])),
        ]
    )


CHECKS = [
    Check(
        "each position sees itself and all before it",
        _check_left,
        "Is a query a row or a column?",
        about=["sees_left", "sees_all"],
    ),
    Check(
        "all see the prefix, and each position itself and all before it",
        _check_prefix_mask,
        "Whose length is compared with keys, and whose with queries?",
        about=["sees_prefix", "prefix"],
    ),
    Check("what follows a position is the next token of its own row", _check_next, about=["next_tokens", "causal"]),
    Check(
        "causal: position t is asked for token t + 1 and sees up to t",
        partial(_check_batch, name="causal"),
        "Which token does the last word of a text foretell?",
        about=["causal"],
    ),
    Check(
        "right to left: position t is asked for token t - 1 and sees from t on",
        partial(_check_batch, name="right_to_left"),
        "What is the mirror image of the mask, and of the shift?",
        about=["right_to_left"],
    ),
    Check(
        "hide: masks stand at the hidden words, which are asked for at their own positions",
        partial(_check_batch, name="hide"),
        "Is anything shifted?",
        about=["hide"],
    ),
    Check(
        "prefix: nothing in it is asked for, but its last position is asked for what follows",
        partial(_check_batch, name="prefix"),
        "Which position is asked for the first token after the prefix?",
        about=["prefix"],
    ),
    Check("a prefix of no token is refused", _check_prefix_refused, about=["prefix"]),
    Check("a prefix of one token is causal", _check_prefix_of_one, about=["prefix"]),
    Check(
        "spans: the text without them is the prefix, and they follow",
        partial(_check_batch, name="span_corruption"),
        "How long is the prefix of each row, once its spans are cut out?",
        about=["span_corruption"],
    ),
    Check(
        "the middle is moved to the end, and all is causal",
        partial(_check_batch, name="fill_in_the_middle"),
        "Which tokens are given and never asked for?",
        about=["fill_in_the_middle"],
    ),
    Check(
        "suffix first: the prefix stands right before the middle",
        partial(_check_batch, name="suffix_first"),
        "Where do the three marks stand?",
        about=["fill_in_the_middle"],
    ),
    Check(
        "padding is not asked, not a target, and not seen",
        _check_padding,
        "What does a position see that may see nothing else?",
        about=["ask", "causal", "masked", "prefix"],
    ),
    Check(
        "a text in a batch is as the text alone, without padding",
        _check_alone,
        "What of a row depends on how long the others are?",
        about=["ask", "causal", "prefix", "span_corruption", "fill_in_the_middle"],
    ),
    Check(
        "no target can be seen where it is asked for: changed, it changes no answer there",
        _check_no_leak,
        "Is the target in the inputs, or at a position that may be seen?",
        about=["causal", "masked", "prefix", "span_corruption", "fill_in_the_middle", "read"],
    ),
    Check(
        "rows do not touch each other",
        _check_rows_apart,
        "Over which axes is something shifted, flattened or looked at?",
        about=["causal", "read"],
    ),
    Check(
        "by gradient, positions are moved by what they may see, and by nothing else",
        _check_who_sees_whom,
        "Who sees whom after one layer, and after two?",
        about=["causal", "masked", "prefix", "span_corruption", "fill_in_the_middle", "read"],
    ),
    Check(
        "a word is asked for once, and all that should be are",
        _check_counted_once,
        "Is a word asked for again where it is given?",
        about=["causal", "prefix", "span_corruption", "fill_in_the_middle"],
    ),
    Check(
        "in a text that counts up, next-token objectives ask for one more, masking ones for the same",
        _check_cyclic,
        "How many times is the text shifted?",
        about=["causal", "prefix", "fill_in_the_middle"],
    ),
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
        "cut out as in the figure of T5's paper",
        _check_t5,
        "What stands for a span in the text, and what ends the spans?",
        about=["cut_out", "span_corruption"],
    ),
    Check(
        "spans are whole, in order, and can be put back",
        _check_rebuilt,
        "When does a new span begin?",
        about=["cut_out", "span_corruption"],
    ),
    Check(
        "a text whose middle was moved can be put together again, and its middle and end are asked for",
        _check_middle_rebuilt,
        "Does an empty prefix, middle or suffix still have its mark?",
        about=["fill_in_the_middle"],
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
    Check("the tokens that were given are left as they were", _check_untouched, about=["masked", "hide"]),
    Check(
        "the loss at a position is log sum exp minus its target's logit, 0 where nothing is asked",
        _check_losses,
        "What number says that nothing is asked?",
        about=["losses", "objective_loss"],
    ),
    Check(
        "the loss is the weighted mean over all that is asked in the batch",
        _check_mean,
        "By what is the sum divided? Is a mean of rows' means taken?",
        about=["objective_loss"],
    ),
    Check(
        "logits where nothing is asked have no part in the loss",
        _check_only_asked,
        "Which positions have a gradient?",
        about=["objective_loss"],
    ),
    Check(
        "if nothing is asked the loss is 0, and so is its gradient",
        _check_nothing_asked,
        "What is 0 divided by 0?",
        about=["objective_loss", "losses"],
    ),
    Check(
        "large logits and half precision give finite losses, in float32 or better",
        _check_extremes,
        "In which type is the softmax taken?",
        about=["losses", "objective_loss"],
    ),
    Check(
        "the body reads by the batch's mask, each row by its own, and is left as it was",
        _check_read,
        "Which axis of the mask are heads?",
        about=["read"],
    ),
    Check("the training loss is the loss of what was read", _check_training_loss, about=["training_loss"]),
    Check(
        "the held-out loss is one mean over all batches, without dropout",
        _check_held_out,
        "Is a mean of batches' means taken? In which mode is the model, before and after?",
        about=["held_out_loss"],
    ),
    Check("what cannot work is refused in words", _check_inputs),
]


def _micro_batches(m):
    """Four of uneven sizes, widths and counts; one asks nothing, one has weights."""
    draws = [(texts(), 0.2), (texts()[:1, :7], 0.9), (texts()[:2, :4], 0.0)]
    hidden = [torch.rand(tokens.shape, generator=seeded()) < rate for tokens, rate in draws]
    batches = [m.hide(tokens, gone, VOCABULARY) for (tokens, _), gone in zip(draws, hidden, strict=True)]
    return [*batches, m.diffusion(texts(), VOCABULARY, seeded())]


def _check_accumulate(m):
    batches, model = _micro_batches(objectives), small_model().requires_grad_()
    total = sum(batch.weights.sum() for batch in batches)
    sums = (objectives.losses(objectives.read(model, batch), batch) * batch.weights for batch in batches)
    wanted = sum(it.sum() for it in sums) / total
    gradients = torch.autograd.grad(wanted, list(model.parameters()))
    found = m.accumulate(model, batches)
    if not abs(float(found) - wanted.item()) <= 1e-6:
        return (
            f"micro-batches of {_counts(batches)} targets: the loss is {float(found):.6f}, expected {wanted.item():.6f}"
        )
    for (name, parameter), gradient in zip(model.named_parameters(), gradients, strict=True):
        if parameter.grad is None:
            return f"{name} has no gradient"
        if gap := difference(parameter.grad, gradient, 1e-6):
            return f"micro-batches of {_counts(batches)} targets: the gradient of {name}, not as of one batch: {gap}"


def _counts(batches):
    return [int((batch.targets != -100).sum()) for batch in batches]


def _check_in_order(m):
    orders = [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3], [1, 2, 0, 4, 3]]
    wanted = [[[order.index(k) <= order.index(q) for k in range(5)] for q in range(5)] for order in orders]
    if gap := _difference(m.sees_in_order(torch.tensor(orders)), torch.tensor(wanted)):
        return f"positions in the orders {orders}: [row, query, key] {gap}"


def _check_blocks(m):
    for length, size in ((1, 1), (6, 1), (6, 2), (6, 6), (7, 3)):
        blocks = [t // size for t in range(length)]
        wanted = torch.zeros(2 * length, 2 * length, dtype=torch.bool)
        for q in range(length):
            for k in range(length):
                wanted[q, k] = blocks[q] == blocks[k]
                wanted[q, length + k] = blocks[k] < blocks[q]
                wanted[length + q, length + k] = blocks[k] <= blocks[q]
        if gap := _difference(m.sees_blocks(length, size), wanted):
            return f"{length} positions in blocks of {size}, twice: [query, key] {gap}"


EXERCISES = [
    Check(
        "accumulate gives the loss and the gradients of one large batch",
        _check_accumulate,
        "By what must each micro-batch's sum be divided? When is that number known?",
    ),
    Check(
        "sees_in_order lets each position see itself and what came before it in the order",
        _check_in_order,
        "When was each position written, if order[i] is the i-th one that was?",
    ),
    Check(
        "sees_blocks: a noisy block sees itself and the clean ones before, a clean one the clean ones up to itself",
        _check_blocks,
        "Which four quarters has the mask?",
    ),
]
