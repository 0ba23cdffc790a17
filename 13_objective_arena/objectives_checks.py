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
    first_place,
    hidden_positions,
    largest_difference,
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

from shared.clinic import Check, refusal
from shared.hooks import hooked


def _filled(rows, width, filler):
    return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows])


def _check_left(m):
    for n in (1, 2, 7):
        wanted = torch.tensor([[[key <= query for key in range(n)] for query in range(n)]])
        if gap := first_difference(m.sees_left(n), wanted, "row query key"):
            return f"sees_left({n}), {gap}"
        if gap := first_difference(m.sees_all(n), torch.ones_like(wanted), "row query key"):
            return f"sees_all({n}), {gap}"


def _check_prefix_mask(m):
    for lengths, n in (([2], 3), ([4, 1, 5, 9], 9), ([0, 3], 7)):
        wanted = torch.tensor([[[k <= q or k < length for k in range(n)] for q in range(n)] for length in lengths])
        if gap := first_difference(m.sees_prefix(torch.tensor(lengths), n), wanted, "row query key"):
            return f"prefixes of {lengths} in {n} positions, {gap}"


def _check_next(m):
    wanted = torch.tensor([[*row[1:], PADDING] for row in texts().tolist()])
    if gap := first_difference(m.next_tokens(texts(), VOCABULARY), wanted, "row position"):
        return f"what follows each position, {gap}"


def _not_as_by_hand(batch, name):
    """Where a batch differs first from that of an objective by hand, in words."""
    rows, targets, sees = batch_by_hand(name)
    width = T if rows[0] in TEXTS or name in ("hide", "right_to_left") else max(map(len, rows))
    if gap := first_difference(batch.inputs, _filled(rows, width, PADDING), "row position"):
        return f"inputs, {gap}"
    if gap := first_difference(batch.targets, _filled(targets, width, -100), "row position"):
        return f"targets, {gap}"
    seen = [
        [[q == k or (k < len(row) and sees(b, q, k)) for k in range(width)] for q in range(width)]
        for b, row in enumerate(rows)
    ]
    if gap := first_difference(batch.seen, torch.tensor(seen), "row query key"):
        return f"seen, {gap}"
    if gap := largest_difference(batch.weights, (batch.targets != -100).float(), "row position"):
        return f"weights, {gap}"


def _check_batch(m, name):
    return _not_as_by_hand(makers(m)[name](texts()), name)


def _check_padding(m):
    for name, make in makers(m).items():
        batch = make(texts())
        padding = batch.inputs == PADDING
        if (wrong := padding & ((batch.targets != -100) | (batch.weights != 0))).any():
            b, t = first_place(wrong)
            found = f"target {int(batch.targets[b, t])}, weight {float(batch.weights[b, t]):.3g}"
            return f"{name}, row {b}, position {t}: the input is padding, found {found}, expected IGNORE and 0"
        if (wrong := batch.targets == PADDING).any():
            b, t = first_place(wrong)
            return f"{name}, row {b}, position {t}: found padding as the target, expected IGNORE"
        if (wrong := batch.seen & padding[:, None, :] & ~torch.eye(padding.shape[1], dtype=torch.bool)).any():
            b, q, k = first_place(wrong)
            return f"{name}, row {b}, query {q}, key {k}, which is padding: found True, expected False"
        if (wrong := ~m.read(small_model(), batch).isfinite()).any():
            b, t, token = first_place(wrong)
            return f"{name}, row {b}, position {t}: logit {token} is not finite, {int(wrong.sum())} of them in all"


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
            if gap := first_difference(batch.targets[b, :n], alone.targets[0], "position", "alone"):
                return f"{name}, targets of row {b}, and of its {len(text)} words alone, {gap}"
            if gap := largest_difference(logits[b, :n], m.read(model, alone)[0], "position logit", other="alone"):
                return f"{name}, logits of row {b}, and of its {len(text)} words alone, {gap}"


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
                if gap := largest_difference(changed[row, position], logits[row, position], "logit", other="before"):
                    target = f"word {t} of row {b} was changed, and so was the target at row {row}, position {position}"
                    return f"{name}, {target}, {gap}"


def _check_rows_apart(m):
    model = small_model()
    for name, make in makers(m).items():
        batch = make(texts())
        logits = m.read(model, batch)
        for b, text in enumerate(TEXTS):
            tokens, rest = texts(), [row for row in range(3) if row != b]
            tokens[b, : len(text)] = torch.tensor([word for word in WORDS if word not in text][: len(text)])
            other = make(tokens)
            found = m.read(model, other)
            for row in rest:
                for part, axes in (("inputs", "position"), ("targets", "position"), ("seen", "query key")):
                    if gap := first_difference(getattr(other, part)[row], getattr(batch, part)[row], axes, "before"):
                        return f"{name}, the words of row {b} were changed, {part} of row {row}, {gap}"
                if gap := largest_difference(found[row], logits[row], "position logit", other="before"):
                    return f"{name}, the words of row {b} were changed, logits of row {row}, {gap}"


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
            if gap := first_difference(reach[b, :n, :n], sees, "query key"):
                return f"{name}, row {b}, whether the query is moved by the key, two layers up: {gap}"


def _asked_tokens(name, b):
    """What row b is asked for; of an objective by chance, what it may be asked for."""
    text = TEXTS[b]
    match name:
        case "causal":
            return text[1:]
        case "right_to_left":
            return text[:-1]
        case "prefix":
            return text[LENGTHS[b] :]
        case "hide":
            return [text[t] for t in HIDDEN[b]]
        case "span_corruption":
            return spans_by_hand(text, HIDDEN[b])[1]
        case "fill_in_the_middle" | "suffix_first":
            row = middle_by_hand(text, *CUTS[b], name == "suffix_first")[1:]
            return [token for token in row if token not in VOCABULARY.marks]
    return text


def _check_counted_once(m):
    for name, make in makers(m).items():
        batch = make(texts())
        for b in range(len(TEXTS)):
            asked = Counter(batch.targets[b][batch.targets[b] != -100].tolist())
            wanted = Counter(_asked_tokens(name, b))
            missing = Counter() if name in ("masked", "diffusion") else wanted - asked
            for token in [*(asked - wanted), *missing]:
                places = (batch.targets[b] == token).nonzero()[:, 0].tolist()
                found = f"{asked[token]} at positions {places}" if places else "none"
                return f"{name}, row {b}, targets that are {token}: found {found}, expected {wanted[token]}"


def _check_cyclic(m):
    """Each word is followed by the next id; logits that say so, and logits that repeat the input."""
    n = len(WORDS)
    tokens = padded([[7 + (start + t) % n for t in range(length)] for start, length in ((0, 30), (11, 19))], VOCABULARY)
    cuts = torch.tensor([[4, 17], [2, 9]])
    batches = {
        "causal": m.causal(tokens, VOCABULARY),
        "prefix": m.prefix(tokens, VOCABULARY, torch.tensor([6, 3])),
        "right_to_left": m.right_to_left(tokens, VOCABULARY),
        "hide": m.hide(tokens.clone(), torch.arange(30) % 5 == 2, VOCABULARY),
        "fill_in_the_middle": m.fill_in_the_middle(tokens, cuts, VOCABULARY),
    }
    for name, batch in batches.items():
        step = {"right_to_left": -1, "hide": 0}.get(name, 1)
        told = batch.inputs if name != "hide" else tokens
        answers = 7 + (told - 7 + step) % n
        other = torch.tensor([-100, PADDING, END])  # whether these may be targets here, other checks ask
        asked = ~torch.isin(batch.targets, other) & VOCABULARY.is_word(told)
        if (wrong := asked & (answers != batch.targets)).any():
            b, t = first_place(wrong)
            found = f"found {int(batch.targets[b, t])}, expected {int(answers[b, t])}"
            return f"{name}, texts that count up, row {b}, position {t}: the word is {int(told[b, t])}, target {found}"
        if (n_asked := int(asked.sum())) < 0.1 * tokens.numel():
            return f"{name}, texts of 30 and 19 words: found {n_asked} words as targets, expected 6 or more"


def _check_prefix_refused(m):
    return refusal(
        [
            ("a prefix of 0", "0", lambda: m.prefix(texts(), VOCABULARY, torch.tensor([4, 0, 1]))),
            ("a prefix of -1", "-1", lambda: m.prefix(texts(), VOCABULARY, torch.tensor([4, 2, -1]))),
        ]
    )


def _check_prefix_of_one(m):
    if gap := _not_as_by_hand(m.prefix(texts(), VOCABULARY, torch.ones(3, dtype=torch.long)), "causal"):
        return f"prefixes of one token, {gap}, as causal"


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
            found = f"found {list(found)}, expected {expected}"
            return f"the example of T5's paper, {text} with 2, 3 and 8 hidden, {part}: {found}"


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
                wanted = list(VOCABULARY.sentinels[: runs + 1])
                return f"{text}, hidden {hidden}, {runs} spans: found sentinels {sentinels}, expected {wanted}"
            if (found := _together(kept, spans)) != text:
                return f"{text}, hidden {hidden}: put together again found {found}, expected {text}"


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
        if gap := first_difference(tokens, texts(), "row position"):
            return f"{name}, the tokens that were given, afterwards: {gap}"


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
        "Which axis are the queries, and which keys may the first and the last of them see?",
        about=["sees_left", "sees_all"],
    ),
    Check(
        "all see the prefix, and each position itself and all before it",
        _check_prefix_mask,
        "Which keys may a query see because they are in the prefix, and which because they are not after it?",
        about=["sees_prefix", "prefix"],
    ),
    Check(
        "what follows a position is the next token of its own row",
        _check_next,
        "What follows the first token of a row, and what the last?",
        about=["next_tokens", "causal"],
    ),
    Check(
        "causal: position t is asked for token t + 1 and sees up to t",
        partial(_check_batch, name="causal"),
        "What is asked at the first word of a text, at the last, and after it? What may each see?",
        about=["causal"],
    ),
    Check(
        "right to left: position t is asked for token t - 1 and sees from t on",
        partial(_check_batch, name="right_to_left"),
        "What is asked at the first word of a text, at the last, and after it? What may each see?",
        about=["right_to_left"],
    ),
    Check(
        "hide: masks stand at the hidden words, which are asked for at their own positions",
        partial(_check_batch, name="hide"),
        "What stands at a hidden position, what is asked there, and which positions may it see?",
        about=["hide"],
    ),
    Check(
        "prefix: nothing in it is asked for, but its last position is asked for what follows",
        partial(_check_batch, name="prefix"),
        "Which positions may be seen and from where, which are asked, and for what?",
        about=["prefix", "sees_prefix"],
    ),
    Check("a prefix of no token is refused", _check_prefix_refused, about=["prefix"]),
    Check(
        "a prefix of one token is causal",
        _check_prefix_of_one,
        "After a prefix of one token, which positions are asked, and which keys may each see?",
        about=["prefix", "sees_prefix"],
    ),
    Check(
        "spans: the text without them is the prefix, and they follow",
        partial(_check_batch, name="span_corruption"),
        "In this row, which positions may be seen and from where, which are asked, and for what?",
        about=["span_corruption"],
    ),
    Check(
        "the middle is moved to the end, and all is causal",
        partial(_check_batch, name="fill_in_the_middle"),
        "In which order do the parts and their marks stand, which positions are asked, and which may each see?",
        about=["fill_in_the_middle"],
    ),
    Check(
        "suffix first: the prefix stands right before the middle",
        partial(_check_batch, name="suffix_first"),
        "In which order do the parts and their marks stand, which positions are asked, and which may each see?",
        about=["fill_in_the_middle"],
    ),
    Check(
        "padding is not asked, not a target, and not seen",
        _check_padding,
        "Where is padding an input, where a target and where a key? What should the batch say in each place?",
        about=["ask", "causal", "masked", "prefix"],
    ),
    Check(
        "a text in a batch is as the text alone, without padding",
        _check_alone,
        "What of a row comes from the other rows of its batch, or from its own padding?",
        about=["ask", "causal", "prefix", "span_corruption", "fill_in_the_middle"],
    ),
    Check(
        "no target can be seen where it is asked for: changed, it changes no answer there",
        _check_no_leak,
        "Where in the inputs does the changed word stand, and which mask lets the asked position see it?",
        about=["causal", "masked", "sees_prefix", "prefix", "span_corruption", "fill_in_the_middle", "read"],
    ),
    Check(
        "rows do not touch each other",
        _check_rows_apart,
        "Along which axes does each function work that makes this part?",
        about=["causal", "read"],
    ),
    Check(
        "by gradient, positions are moved by what they may see, and by nothing else",
        _check_who_sees_whom,
        "May this query see this key by `batch.seen`, and is that the mask by which the body reads this row?",
        about=["causal", "masked", "sees_prefix", "prefix", "span_corruption", "fill_in_the_middle", "read"],
    ),
    Check(
        "a word is asked for once, and all that should be are",
        _check_counted_once,
        "From where are the targets taken, and at which positions is something asked?",
        about=["causal", "prefix", "span_corruption", "fill_in_the_middle"],
    ),
    Check(
        "in a text that counts up, next-token objectives ask for one more, masking ones for the same",
        _check_cyclic,
        "From where is this target taken: from which tensor, row and position?",
        about=["causal", "prefix", "fill_in_the_middle"],
    ),
    Check(
        "cut out as in the figure of T5's paper",
        _check_t5,
        "Where should each word and each sentinel stand, and what ends the spans?",
        about=["cut_out", "span_corruption"],
    ),
    Check(
        "spans are whole, in order, and can be put back",
        _check_rebuilt,
        "When does a span begin, when does it end, and what is written then?",
        about=["cut_out", "span_corruption"],
    ),
    Check(
        "a text whose middle was moved can be put together again, and its middle and end are asked for",
        _check_middle_rebuilt,
        "What stands after each mark, also where a part is empty, and which of it is asked for?",
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
            return f"{name}: found no gradient, expected one of shape {tuple(gradient.shape)}"
        axes = "row column" if gradient.dim() == 2 else "entry"
        if gap := largest_difference(parameter.grad, gradient, axes, 1e-6):
            return f"micro-batches of {_counts(batches)} targets: gradient of {name}, {gap}, as of one batch"


def _counts(batches):
    return [int((batch.targets != -100).sum()) for batch in batches]


def _check_in_order(m):
    orders = [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3], [1, 2, 0, 4, 3]]
    wanted = [[[order.index(k) <= order.index(q) for k in range(5)] for q in range(5)] for order in orders]
    if gap := first_difference(m.sees_in_order(torch.tensor(orders)), torch.tensor(wanted), "row query key"):
        return f"positions in the orders {orders}, {gap}"


def _check_blocks(m):
    for length, size in ((1, 1), (6, 1), (6, 2), (6, 6), (7, 3)):
        blocks = [t // size for t in range(length)]
        wanted = torch.zeros(2 * length, 2 * length, dtype=torch.bool)
        for q in range(length):
            for k in range(length):
                wanted[q, k] = blocks[q] == blocks[k]
                wanted[q, length + k] = blocks[k] < blocks[q]
                wanted[length + q, length + k] = blocks[k] <= blocks[q]
        if gap := first_difference(m.sees_blocks(length, size), wanted, "query key"):
            return f"{length} positions in blocks of {size}, twice: {gap}"


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
