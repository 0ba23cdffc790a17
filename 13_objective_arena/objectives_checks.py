"""What a right `objectives.py` must do. Each check takes the module, so that a reader's functions and a patient can be
asked the same. The texts, and what each objective must ask of them, by hand: `objective_cases`. What is drawn by chance
and what the body and the loss do is checked by `objective_draw_checks` and `objective_loss_checks`.
"""

from collections import Counter
from functools import partial

import objectives
import torch
from objective_cases import (
    CUTS,
    END,
    HIDDEN,
    LENGTHS,
    MASKING,
    NEXT_TOKEN,
    PADDING,
    TEXTS,
    VOCABULARY,
    WORDS,
    T,
    batch_by_hand,
    first_difference,
    hidden_positions,
    makers,
    middle_by_hand,
    seeded,
    small_model,
    spans_by_hand,
    texts,
)
from objective_draw_checks import DRAW_CHECKS
from objective_loss_checks import LOSS_CHECKS
from objective_vocabulary import padded

from shared.clinic import Check, difference, refusal
from shared.hooks import hooked


def _filled(rows, width, filler):
    return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows])


def _check_left(m):
    for n in (1, 2, 7):
        wanted = torch.tensor([[[key <= query for key in range(n)] for query in range(n)]])
        if gap := first_difference(m.sees_left(n), wanted):
            return f"{n} positions: [1, query, key] {gap}"
        if gap := first_difference(m.sees_all(n), torch.ones_like(wanted)):
            return f"{n} positions that see all: [1, query, key] {gap}"


def _check_prefix_mask(m):
    for lengths, n in (([2], 3), ([4, 1, 5, 9], 9), ([0, 3], 7)):
        wanted = torch.tensor([[[k <= q or k < length for k in range(n)] for q in range(n)] for length in lengths])
        if gap := first_difference(m.sees_prefix(torch.tensor(lengths), n), wanted):
            return f"prefixes of {lengths} in {n} positions: [row, query, key] {gap}"


def _check_next(m):
    wanted = torch.tensor([[*row[1:], PADDING] for row in texts().tolist()])
    if gap := first_difference(m.next_tokens(texts(), VOCABULARY), wanted):
        return f"what follows each position [row, position]: {gap}"


def _check_batch(m, name):
    rows, targets, sees = batch_by_hand(name)
    width = T if rows[0] in TEXTS or name in ("hide", "right_to_left") else max(map(len, rows))
    batch = makers(m)[name](texts())
    if gap := first_difference(batch.inputs, _filled(rows, width, PADDING)):
        return f"inputs [row, position]: {gap}"
    if gap := first_difference(batch.targets, _filled(targets, width, -100)):
        return f"targets [row, position]: {gap}"
    seen = [
        [[q == k or (k < len(row) and sees(b, q, k)) for k in range(width)] for q in range(width)]
        for b, row in enumerate(rows)
    ]
    if gap := first_difference(batch.seen, torch.tensor(seen)):
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
            if gap := first_difference(batch.targets[b, :n], alone.targets[0]):
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
                if gap := first_difference(getattr(other, part)[rest], getattr(batch, part)[rest]):
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
            if gap := first_difference(reach[b, :n, :n], sees):
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
        if gap := first_difference(getattr(found, part), getattr(wanted, part)):
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


def _check_untouched(m):
    for name, make in makers(m).items():
        tokens = texts()
        make(tokens)
        if gap := first_difference(tokens, texts()):
            return f"{name}: the tokens that were given have changed, [row, position] {gap}"


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
            ("a text of two, spans of one", "argument 2", lambda: m.cut_out([7, 8], [True], VOCABULARY)),
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
        about=["prefix", "sees_prefix"],
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
        about=["causal", "masked", "sees_prefix", "prefix", "span_corruption", "fill_in_the_middle", "read"],
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
        about=["causal", "masked", "sees_prefix", "prefix", "span_corruption", "fill_in_the_middle", "read"],
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
    Check("the tokens that were given are left as they were", _check_untouched, about=["masked", "hide"]),
    Check("what cannot work is refused in words", _check_inputs),
    *DRAW_CHECKS,
    *LOSS_CHECKS,
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
    if gap := first_difference(m.sees_in_order(torch.tensor(orders)), torch.tensor(wanted)):
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
        if gap := first_difference(m.sees_blocks(length, size), wanted):
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
