"""The checks of lesson 02: what a right `skipgram.py` must do, and what a reader's exercises must do."""

import math

import torch
from torch.nn import functional as F

from shared.clinic import Check, difference, refusal


def _draw(*shapes, seed=0):
    """Normal float64 tensors."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def _seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def _first_gap(names, found, wanted, tolerance=1e-9):
    """Which of several tensors is not what it should be, and where; None if all are."""
    for name, ours, theirs in zip(names, found, wanted, strict=True):
        if gap := difference(ours.reshape(-1), theirs.detach().reshape(-1), tolerance):
            return f"{name}: {gap}"


# From text to pairs


def _check_lookup(m):
    (table,) = _draw((6, 3))
    ids = torch.tensor([[4, 0], [2, 4]])
    if gap := difference(m.one_hot(ids, 6).double() @ table, table[ids]):
        return f"one-hot rows times a table are not the table's rows: {gap}"
    return refusal(
        [
            ("id 6 of 6 words", "", lambda: m.one_hot(torch.tensor([6]), 6)),
            ("id -1", "", lambda: m.one_hot(torch.tensor([-1]), 6)),
            ("id 1.5", "", lambda: m.one_hot(torch.tensor([1.5]), 6)),
        ]
    )


SENTENCES = [torch.tensor([0, 1, 2, 3]), torch.tensor([4, 5])]  # each word once: a pair tells its two positions


def _check_pairs(m):
    centres, contexts = m.pairs(SENTENCES, 1, _seeded())
    found = list(zip(centres.tolist(), contexts.tolist(), strict=True))
    wanted = [(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2), (4, 5), (5, 4)]
    if sorted(found) != wanted:
        return f"0 1 2 3. 4 5. with a window of 1 gives {sorted(found)}, expected {wanted}"
    if [pair[0] for pair in found] != [pair[0] for pair in wanted]:
        return f"the centres come as {[pair[0] for pair in found]}, expected the text's order"
    for window in (3, 8):
        near = m.pairs(SENTENCES, window, _seeded())
        crossing = [(a, b) for a, b in zip(*(ids.tolist() for ids in near), strict=True) if (a < 4) != (b < 4)]
        if crossing:
            return f"the pair {crossing[0]} reaches from one sentence into the other"
    if len(m.pairs([torch.tensor([3])], 2, _seeded())[0]):
        return "a sentence of one word gives a pair"
    return refusal(
        [
            ("a window of 0", "", lambda: m.pairs(SENTENCES, 0, _seeded())),
            ("no sentences", "", lambda: m.pairs([], 1, _seeded())),
        ]
    )


def _check_reach(m):
    copies = 4000
    centres, contexts = m.pairs([torch.arange(4)] * copies, 3, _seeded())
    for distance, share in ((1, 1.0), (2, 2 / 3), (3, 1 / 3)):
        for centre, context in ((0, distance), (3, 3 - distance)):
            found = ((centres == centre) & (contexts == context)).sum().item() / copies
            if abs(found - share) > 5 * math.sqrt(share * (1 - share) / copies):  # five standard errors of a share
                side = "right" if context > centre else "left"
                return f"window 3: a word {distance} to the {side} was a context in {found:.0%}, expected {share:.0%}"


def _check_counts(m):
    found = m.cooccurrence(SENTENCES, 6, 3)
    wanted = torch.zeros(6, 6, dtype=torch.float64)
    for i, j, count in ((0, 1, 1), (1, 2, 1), (2, 3, 1), (0, 2, 2 / 3), (1, 3, 2 / 3), (0, 3, 1 / 3), (4, 5, 1)):
        wanted[i, j] = wanted[j, i] = count
    if gap := difference(found, wanted):
        return f"the expected counts of 0 1 2 3. 4 5. with a window of 3: {gap}"
    twice = m.cooccurrence([torch.tensor([1, 1, 0])], 3, 2)
    if gap := difference(twice, torch.tensor([[0.0, 1.5, 0], [1.5, 2, 0], [0, 0, 0]], dtype=torch.float64)):
        return f"the expected counts of 1 1 0. with a window of 2: {gap}"
    return refusal(
        [
            ("a window of 0", "", lambda: m.cooccurrence(SENTENCES, 6, 0)),
            ("id 5 of 5 words", "", lambda: m.cooccurrence(SENTENCES, 5, 1)),
        ]
    )


def _check_keep(m):
    frequency = torch.tensor([900.0, 90.0, 9.0, 1.0], dtype=torch.float64)
    keep = m.keep_probability(frequency, 0.01)
    wanted = torch.tensor([math.sqrt(1 / 90) + 1 / 90, math.sqrt(1 / 9) + 1 / 9, 1, 1], dtype=torch.float64)
    if gap := difference(keep, wanted):
        return f"900 of 1000 words, threshold 0.01: {gap}"
    if gap := difference(m.keep_probability(10 * frequency, 0.01), keep):
        return f"a text ten times as long keeps other shares of its words: {gap}"
    if gap := difference(m.keep_probability(frequency), m.keep_probability(frequency, 0.001)):
        return f"without a threshold it is not one in a thousand: {gap}"
    if gap := difference(m.keep_probability(frequency, 0), torch.ones(4, dtype=torch.float64)):
        return f"a threshold of 0, which is to keep all words: {gap}"
    return refusal(
        [
            ("a threshold of -0.1", "", lambda: m.keep_probability(frequency, -0.1)),
            ("an infinite threshold", "", lambda: m.keep_probability(frequency, math.inf)),
            ("a text without words", "", lambda: m.keep_probability(0 * frequency)),
            ("a frequency of -1", "", lambda: m.keep_probability(frequency - 2)),
        ]
    )


def _check_subsample(m):
    keep, sentence = torch.tensor([0.1, 0.4, 1.0, 0.0]), [3, 0, 1, 0, 0, 2]
    thinned = m.subsample([torch.tensor(sentence).repeat(2000), torch.tensor([2])], keep, _seeded())
    found = torch.bincount(thinned[0], minlength=4) / torch.tensor([6000, 2000, 2000, 2000])
    for word, share in enumerate(keep.tolist()):
        if abs(found[word] - share) > 5 * math.sqrt(share * (1 - share) / 2000):  # five standard errors, or none
            return f"{found[word]:.0%} of word {word}'s occurrences were kept, expected {share:.0%}"
    if [ids.tolist() for ids in thinned[1:]] != [[2]]:
        return f"the second sentence, of word 2 alone, became {thinned[1:]}"


def _check_noise(m):
    frequency = torch.tensor([1.0, 16.0, 81.0, 256.0], dtype=torch.float64)
    wanted = torch.tensor([1.0, 8.0, 27.0, 64.0], dtype=torch.float64) / 100
    if gap := difference(m.noise_distribution(frequency), wanted):
        return f"frequencies 1, 16, 81, 256 to the power 0.75 are 1, 8, 27, 64 in a hundred: {gap}"
    if gap := difference(m.noise_distribution(frequency, 0.5), torch.tensor([1, 4, 9, 16]) / 30, 1e-7):
        return f"frequencies 1, 16, 81, 256 to the power 0.5 are 1, 4, 9, 16 in thirty: {gap}"
    return refusal([("frequencies of 0", "", lambda: m.noise_distribution(torch.zeros(3)))])


def _check_draws(m):
    shares, n = torch.tensor([0.0, 0.01, 0.08, 0.27, 0.0, 0.64, 0.0]), 100_000
    drawn = m.draw_negatives(3 * shares, n, _seeded())
    found = torch.bincount(drawn, minlength=7) / n
    for word, share in enumerate(shares.tolist()):
        if abs(found[word] - share) > 5 * math.sqrt(share * (1 - share) / n):
            return f"word {word} is {found[word]:.1%} of the negatives, expected {share:.1%}"
    return refusal([("no shares", "", lambda: m.draw_negatives(torch.zeros(3), 2, _seeded()))])


# Losses with their gradients


def _check_softmax(m):
    w, c = (table.requires_grad_() for table in _draw((6, 3), (6, 3)))
    centres, contexts = torch.tensor([0, 1, 1, 5]), torch.tensor([1, 0, 2, 4])
    loss = F.cross_entropy(w[centres] @ c.T, contexts)
    wanted = (loss, *torch.autograd.grad(loss, (w, c)))
    with torch.no_grad():
        found = m.softmax_gradients(w, c, centres, contexts)
    if gap := _first_gap(("loss", "dw", "dc"), found, wanted):
        return f"full softmax, not autograd's {gap}"


def _check_softmax_far(m):
    far, ids = torch.tensor([[200.0]]), torch.tensor([0])  # scores of 200 and -200
    loss, dw, dc = m.softmax_gradients(far.expand(2, 1), torch.tensor([[-1.0], [1.0]]), ids, ids)
    wanted = torch.tensor([400.0]), torch.tensor([2.0, 0]), torch.tensor([-200.0, 200])
    if gap := _first_gap(("loss", "dw", "dc"), (loss, dw, dc), wanted, 1e-3):  # float32 numbers of a few hundred
        return f"the context's score is -200, the other 200; {gap}"


def _pair_loss(w, c, n):
    """The paper's formula for one pair, written out: (d,), (d,), (k, d)."""
    return -torch.log(torch.sigmoid(w @ c)) - sum(torch.log(torch.sigmoid(-(w @ each))) for each in n)


def _check_negatives(m):
    rows = [table.requires_grad_() for table in _draw((4, 3), (4, 3), (4, 2, 3))]
    losses = torch.stack([_pair_loss(*each) for each in zip(*rows, strict=True)])
    with torch.no_grad():
        found = m.negative_gradients(*rows)
    if gap := difference(found[0], losses.detach()):
        return f"the loss of a pair with two negatives: {gap}"
    if gap := _first_gap(("dw", "dc", "dn"), found[1:], torch.autograd.grad(losses.sum(), rows)):
        return f"not autograd's {gap}"


def _check_negatives_far(m):
    for score in (-200.0, 30.0):  # s(-200) rounds to 0 and s(30) to 1; so do the negative's, with the other sign
        w, c = torch.tensor([[1.0]]), torch.tensor([[score]])
        loss, dw, dc, dn = m.negative_gradients(w, c, -c[None])
        slope = -1 / (1 + math.exp(score))
        wanted = torch.tensor([-2 * score if score < 0 else 2 * math.exp(-score)])
        names, found = ("loss", "dc", "dn", "dw"), (loss, dc, dn, dw)
        for name, ours, theirs in zip(names, found, (wanted, slope, -slope, 2 * slope * score), strict=True):
            if not abs(ours.item() - theirs) <= 1e-5 * abs(theirs):  # float32 has seven digits
                return f"true score {score:g}, negative {-score:g}: {name} is {ours.item():.3g}, expected {theirs:.3g}"


def _expected_loss(w, c, counts, noise, k):
    """The formula of `expected_gradients` for autograd."""
    true, scores = counts / counts.sum(), w @ c.T
    false = k * true.sum(dim=1, keepdim=True) * noise
    return -(true * F.logsigmoid(scores) + false * F.logsigmoid(-scores)).sum()


def _check_expected(m):
    w, c, counts, shares = _draw((6, 3), (6, 3), (6, 6), (6,))
    counts, noise = counts.abs(), shares.abs() / shares.abs().sum()
    loss = _expected_loss(w.requires_grad_(), c.requires_grad_(), counts, noise, 5)
    wanted = (loss, *torch.autograd.grad(loss, (w, c)))
    with torch.no_grad():
        found = m.expected_gradients(w, c, counts, noise, 5)
    if gap := _first_gap(("loss", "dw", "dc"), found, wanted):
        return f"negatives in expectation, not autograd's {gap}"


def _check_cbow(m):
    w, c = (table.requires_grad_() for table in _draw((6, 3), (6, 3)))
    contexts, centres = torch.tensor([[0, 1, 1], [2, 3, 0]]), torch.tensor([4, 5])
    negatives = torch.tensor([[1, 2], [0, 0]])
    means = [w[row].mean(dim=0) for row in contexts]
    loss = sum(_pair_loss(h, c[i], c[n]) for h, i, n in zip(means, centres, negatives, strict=True))
    wanted = (loss, *torch.autograd.grad(loss, (w, c)))
    with torch.no_grad():
        found = m.cbow_gradients(w, c, contexts, centres, negatives)
    if gap := _first_gap(("loss", "dw", "dc"), found, wanted):
        return f"CBOW, not autograd's {gap}"


# Training


def _check_step(m):
    w, c = _draw((6, 3), (6, 3))
    centres, contexts = torch.tensor([0, 1, 1, 1]), torch.tensor([2, 2, 3, 2])  # 1 and 2 come more than once
    negatives = torch.tensor([[3, 0], [0, 0], [2, 3], [0, 3]])
    before = [w.clone().requires_grad_(), c.clone().requires_grad_()]
    loss = sum(
        _pair_loss(before[0][i], before[1][j], before[1][n])
        for i, j, n in zip(centres, contexts, negatives, strict=True)
    )
    slopes = torch.autograd.grad(loss, before)
    squares = torch.full((2, 6), 1e12, dtype=torch.float64)  # so large that these steps do not change it: plain SGD
    m.step(w, c, squares, centres, contexts, negatives, 1e6)  # so the rate is 1e6 / sqrt(1e12) = 1
    for name, table, old, slope in zip(("w", "c"), (w, c), before, slopes, strict=True):
        moved = table - old.detach()
        touched = slope.abs().sum(dim=1) > 0
        if not moved[touched].abs().sum(dim=1).all():
            row = int(torch.nonzero(touched & (moved.abs().sum(dim=1) == 0))[0])
            return f"row {row} of {name} took part and did not move"
        if gap := difference(moved, -slope, tolerance=1e-6):  # the squares, 1e12, grow by about 10: 1e-11 of each step
            return f"after a step of rate 1, {name} moved wrongly: {gap}"


def _check_squares(m):
    w, c = _draw((4, 3), (4, 3))
    squares = torch.zeros(2, 4, dtype=torch.float64)
    m.step(w, c, squares, torch.tensor([0]), torch.tensor([1]), torch.tensor([[2, 2]]), 0.0)
    grown = (squares > 0).tolist()
    if grown != [[True, False, False, False], [False, True, True, False]]:
        return f"centre 0, context 1, negative 2: the squares of centres and contexts that grew are {grown}"


def _check_move(m):
    table, squares = torch.zeros(3, 2, dtype=torch.float64), torch.tensor([0.0, 0, 11.5], dtype=torch.float64)
    rows, slopes = torch.tensor([0, 2, 0]), torch.tensor([[3.0, 4], [1, -2], [0, 5]], dtype=torch.float64)
    m.move(table, squares, rows, slopes, 0.1)
    if gap := difference(squares, torch.tensor([25.0, 0, 14], dtype=torch.float64)):
        return f"the means of squared slopes, added to the row's squares: {gap}"
    wanted = torch.tensor([[-0.06, -0.18], [0, 0], [-0.1 / math.sqrt(14), 0.2 / math.sqrt(14)]], dtype=torch.float64)
    if gap := difference(table, wanted):
        return f"slopes (3, 4) and (0, 5) on row 0, (1, -2) on row 2, rate 0.1: {gap}"


def _check_start(m):
    w, c = m.start(500, 20, _seeded())
    if c.any():
        return "the contexts do not begin at zero"
    low, high, mean = (x.item() for x in (w.min(), w.max(), w.mean()))
    if not (-0.025 <= low < -0.0249 and 0.0249 < high <= 0.025 and abs(mean) < 5 * 0.05 / math.sqrt(12 * 10_000)):
        return f"500 centres of 20 numbers lie between {low:.4f} and {high:.4f}, expected -0.025 to 0.025, evenly"


def _recorded(m, name, call):
    """The arguments of each call of one of the module's functions while `call` runs."""
    original, seen = getattr(m, name), []

    def record(*given):
        seen.append(given)
        return original(*given)

    setattr(m, name, record)
    try:
        call()
    finally:
        setattr(m, name, original)
    return seen


def _check_batches(m):
    sentences = [torch.tensor([0, 1, 2, 3])] * 50  # with a window of 1: 6 pairs each
    settings = dict(d=4, window=1, k=3, epochs=2, rate=0.5, threshold=0, batch=100)
    seen = _recorded(m, "step", lambda: m.train(sentences, 4, **settings))
    shapes = [(*given[3].shape, *given[4].shape, *given[5].shape) for given in seen]
    if shapes != [(100, 100, 100, 3)] * 6:
        return f"300 pairs, twice, in batches of 100 with 3 negatives: centres, contexts, negatives come as {shapes}"
    rates = torch.tensor([given[6] for given in seen])
    if gap := difference(rates, 0.5 * torch.arange(6, 0, -1) / 6, tolerance=1e-6):
        return f"a rate of 0.5 that falls in a straight line over 6 steps: {gap}"
    centres, contexts = (torch.cat([given[i] for given in seen[:3]]) for i in (3, 4))
    found = torch.bincount(4 * centres + contexts, minlength=16).tolist()
    if found != [0, 50, 0, 0, 50, 0, 50, 0, 0, 50, 0, 50, 0, 0, 50, 0]:
        return f"of the sixteen pairs of 0 1 2 3, the first pass over the text had {found}, expected each neighbour 50"
    return refusal(
        [
            (f"{name} = {value}", "", lambda name=name, value=value: m.train(sentences, 4, **settings | {name: value}))
            for name in ("d", "k", "epochs", "batch", "rate")
            for value in (0, math.inf)
        ]
        + [("id 3 of 3 words", "", lambda: m.train(sentences, 3, **settings))]
    )


def _check_training(m):
    text = _seeded()
    # two languages of eight words that never meet: a word's neighbours must be of its own language
    sentences = [8 * (i % 2) + torch.randint(8, (6,), generator=text) for i in range(600)]
    kinds = torch.arange(16) // 8
    for seed in range(3):
        w, _ = m.train(sentences, 16, d=8, window=2, epochs=3, threshold=1.0, seed=seed)
        if not w.isfinite().all():
            return "training gives numbers that are not finite"
        found = m.purity(m.cosine(w, w), kinds)
        if found < 0.9:  # 1.0 in each of 20 trial seeds; chance is 7/15
            return f"two languages that never meet: {found:.0%} of words have their own nearest, expected all"


def _check_train_expected(m):
    (counts,) = _draw((5, 5))
    counts, tables, seen = (counts.abs() * 10).float(), [], []
    generator = _seeded(3)
    tables = [(0.1 * torch.randn(5, 2, generator=generator)).requires_grad_() for _ in range(2)]
    noise = counts.sum(dim=0) ** 0.75
    adam = torch.optim.Adam(tables, lr=0.3)
    for step in range(4):
        adam.param_groups[0]["lr"] = 0.3 * (4 - step) / 4
        adam.zero_grad()
        _expected_loss(*tables, counts, noise / noise.sum(), 2).backward()
        adam.step()
    found = m.train_expected(counts, 2, k=2, steps=4, rate=0.3, seed=3, watch=lambda step, w: seen.append(step))
    if gap := _first_gap(("w", "c"), found, tables, 1e-4):  # float32; Adam divides by small numbers
        return f"four steps of Adam, whose rate of 0.3 falls to 0; not autograd's {gap}"
    if seen != [0, 1, 2, 3]:
        return f"four steps, and `watch` was called for {seen}"
    return refusal([("counts of 0", "", lambda: m.train_expected(torch.zeros(3, 3)))])


# Counting, and reading the space


def _check_ppmi(m):
    counts = torch.tensor([[0.0, 6.0, 0.0], [6.0, 2.0, 1.0], [0.0, 4.0, 0.0]], dtype=torch.float64)
    for shift in (0.0, math.log(2)):
        wanted = torch.zeros(3, 3, dtype=torch.float64)
        for i, j in torch.nonzero(counts):
            share = counts[i, j] * counts.sum() / (counts[i].sum() * counts[:, j].sum())
            wanted[i, j] = max(0.0, math.log(share) - shift)
        if gap := difference(m.ppmi(counts, shift), wanted):
            return f"PPMI with a shift of {shift:.2g}: {gap}"
    if m.ppmi(torch.diag(torch.tensor([3.0, 0.0])))[1].any():
        return "a word that was never seen has information about others"
    return refusal([("a count of -1", "", lambda: m.ppmi(counts - 1))])


def _check_cosine(m):
    (a,) = _draw((5, 3))
    a[4] = 0
    found = m.cosine(a, a)
    if gap := difference(found.diagonal(), torch.tensor([1.0, 1, 1, 1, 0], dtype=torch.float64)):
        return f"a vector's cosine with itself is 1, a zero vector's is 0: {gap}"
    wanted = torch.tensor([[(x @ y / (x.norm() * y.norm())).nan_to_num() for y in a[:2]] for x in a])
    if gap := difference(m.cosine(a, a[:2]), wanted):
        return f"[row of the first, row of the second]: {gap}"
    longer = a * torch.tensor([1.0, 10, 0.1, 100, 1], dtype=torch.float64)[:, None]
    for ours, name in ((m.cosine(longer, a), "first"), (m.cosine(a, longer), "second")):
        if gap := difference(ours, found):
            return f"longer vectors on the {name} side changed the cosines: {gap}"


def _check_cosine_far(m):
    axes = torch.tensor([[1.0, 0], [1.0, 1]])
    for size in (1e-30, 1e30):  # their squares are 0 and infinite in float32
        far = size * axes
        wanted = torch.tensor([[1, math.sqrt(0.5)], [math.sqrt(0.5), 1]])
        if gap := difference(m.cosine(far, far), wanted, 1e-6):
            return f"vectors of size {size:.0e} in float32: {gap}"


CIRCLE = [(math.cos(angle), math.sin(angle)) for angle in (0, 0.2, 0.5, 0.9, 1.4, 2.0)]


def _check_nearest(m):
    vectors = torch.tensor(CIRCLE, dtype=torch.float64)
    for query, wanted in ((0, [1, 2, 3]), (3, [2, 4, 1]), (5, [4, 3, 2])):
        found = m.nearest(vectors, query, 3)
        if query in found:
            return f"word {query} is among its own nearest, {found}"
        if found != wanted:
            return f"six directions on a circle: nearest to {query} are {found}, expected {wanted}"
    if (found := m.nearest(vectors * torch.arange(1, 7)[:, None], 1)) != [0, 2, 3, 4, 5]:
        return f"six directions, of any length: all others in order are {found}, expected [0, 2, 3, 4, 5]"
    return refusal(
        [
            ("n of 6, of 6 words", "", lambda: m.nearest(vectors, 0, 6)),
            ("n of 0", "", lambda: m.nearest(vectors, 0, 0)),
            ("word 6 of 6", "", lambda: m.nearest(vectors, 6, 1)),
        ]
    )


def _check_analogy(m):
    (people,) = _draw((8, 6))
    step = torch.tensor([0, 0, 0, 0, 0.5, 0.5], dtype=torch.float64)  # shorter than what parts the pairs
    vectors = torch.cat([people, people + step])
    given = torch.tensor([(i, i + 8, j) for i in range(8) for j in range(8) if i != j])
    found = m.analogy(vectors, *given.T, n=13)
    for (a, b, c), answers in zip(given.tolist(), found.tolist(), strict=True):
        if named := {a, b, c} & set(answers):
            return f"{a} is to {b} as {c} is to ...: {named.pop()} was given, and is no answer"
    corners = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1], [0, 0, 1, 0]])
    found = m.analogy(corners * torch.arange(1, 7)[:, None], *torch.tensor([[0], [1], [2]])).item()
    if found != 3:  # of any length: (1 0 0) is to (0 1 0) as (1 0 1) is to (0 1 1)
        return f"the fourth corner of a parallelogram is word 3, found {found}"
    return refusal(
        [
            ("n of 4, of 6 words", "", lambda: m.analogy(corners, *torch.tensor([[0], [1], [2]]), n=4)),
            ("word 6 of 6", "", lambda: m.analogy(corners, *torch.tensor([[0], [1], [6]]))),
        ]
    )


def _check_purity(m):
    kinds = torch.tensor([0, 0, 1, 1])
    similarity = torch.tensor([[9.0, 2, 1, 0], [2, 9, 0, 1], [0, 3, 9, 1], [1, 0, 2, 9]])
    if (found := m.purity(similarity, kinds)) != 0.75:
        return f"three of four words have their kind nearest, but purity is {found}"
    similarity = torch.tensor([[9.0, 3, 3, 0], [1, 9, 0, 3], [0, 0, 9, 1], [1, 0, 2, 9]])
    if (found := m.purity(similarity, kinds)) != 0.625:
        return f"of four words one has two nearest, one of them of its kind, and two have their kind: purity is {found}"
    kinds = torch.arange(400) % 4
    if abs((found := m.purity(torch.eye(400), kinds)) - 99 / 399) > 1e-9:  # float64
        return f"one-hot vectors of four kinds have purity {found:.3f}, chance is {99 / 399:.3f}"


CHECKS = [
    Check("a one-hot row times a table is a look-up", _check_lookup, about=["one_hot"]),
    Check(
        "each neighbour is found, and none in another sentence",
        _check_pairs,
        "Which neighbours does each centre look at?",
        ["pairs"],
    ),
    Check(
        "near words are contexts more often than far ones",
        _check_reach,
        "What does each centre draw, and where is it used?",
        ["pairs"],
    ),
    Check(
        "expected counts are what drawn windows give",
        _check_counts,
        "At a distance s, how many of the reaches 1, 2, ..., window are at least s? Is each pair counted both ways?",
        ["cooccurrence"],
    ),
    Check(
        "frequent words are thinned out, by their share of all words",
        _check_keep,
        "What is a word's count divided by?",
        ["keep_probability"],
    ),
    Check(
        "an occurrence is kept with its word's chance",
        _check_subsample,
        "Is the table the chance to keep, or to drop?",
        ["subsample"],
    ),
    Check("noise is frequency to the power 0.75", _check_noise, "Is every argument used?", ["noise_distribution"]),
    Check("negatives come in the noise's shares", _check_draws, "Where do the shares enter?", ["draw_negatives"]),
    Check(
        "full softmax: loss and gradients are autograd's",
        _check_softmax,
        "Is it the mean over the batch? What happens to a row whose word comes twice?",
        ["softmax_gradients"],
    ),
    Check(
        "full softmax: right where a probability rounds to 0",
        _check_softmax_far,
        "What is the logarithm of a probability that has become 0?",
        ["softmax_gradients"],
    ),
    Check(
        "negative sampling: loss and gradients are the formula's",
        _check_negatives,
        "Is each negative scored for itself? Which way must a true pair move, and which way a negative?",
        ["negative_gradients"],
    ),
    Check(
        "negative sampling: right where the logistic function rounds to 0 or 1",
        _check_negatives_far,
        "What is log s(x), and what is s(x) - 1, where s(x) has become 0 or 1?",
        ["negative_gradients"],
    ),
    Check("negatives in expectation: loss and gradients are autograd's", _check_expected, about=["expected_gradients"]),
    Check(
        "CBOW: gradients are autograd's", _check_cbow, "What is one neighbour's part in the mean?", ["cbow_gradients"]
    ),
    Check(
        "a step moves the rows that took part, each by all its slopes",
        _check_step,
        "Which table does each row come from, is anything stored, and what if a word comes twice?",
        ["step", "move"],
    ),
    Check("a step counts centres and contexts apart", _check_squares, about=["step"]),
    Check(
        "a move adds all slopes of a row, over the root of its squares",
        _check_move,
        "What does table[[0, 0]] -= 1 do? Do the squares grow before they are used?",
        ["move"],
    ),
    Check("training begins as word2vec.c does", _check_start, about=["start"]),
    Check("each pass has all pairs, in batches, at a rate that falls", _check_batches, about=["train"]),
    Check("two languages that never meet are told apart", _check_training, about=["train"]),
    Check("training in expectation is Adam on the expected loss", _check_train_expected, about=["train_expected"]),
    Check(
        "PPMI is the formula's, and 0 for what was never seen",
        _check_ppmi,
        "What is a pair that was never seen?",
        ["ppmi"],
    ),
    Check("a cosine does not change with length", _check_cosine, "What is a cosine divided by?", ["cosine"]),
    Check(
        "a cosine is right for vectors of any size",
        _check_cosine_far,
        "What is the square of 1e-30 in float32, and of 1e30?",
        ["cosine"],
    ),
    Check(
        "nearest words are in order, without the query", _check_nearest, "Is the query itself left out?", ["nearest"]
    ),
    Check(
        "an analogy's answer is none of the three given",
        _check_analogy,
        "Which words may be an answer? Which of the given ones is taken off, which added?",
        ["analogy"],
    ),
    Check("purity is right, and at chance where nothing is known", _check_purity, "How are ties broken?", ["purity"]),
]


# Exercises


def _check_glove(m):
    w, c, b_w, b_c, counts = _draw((6, 3), (6, 3), (6,), (6,), (6, 6))
    counts = (100 * counts).clamp(min=0)  # half of the pairs were never seen
    parts = [part.requires_grad_() for part in (w, c, b_w, b_c)]
    loss = torch.zeros((), dtype=torch.float64)
    for i, j in torch.nonzero(counts):
        error = w[i] @ c[j] + b_w[i] + b_c[j] - counts[i, j].log()
        loss = loss + min(1, (counts[i, j].item() / 100) ** 0.75) * error**2
    wanted = (loss, *torch.autograd.grad(loss, parts))
    with torch.no_grad():
        found = m.glove_gradients(*parts, counts)
    if gap := _first_gap(("loss", "dw", "dc", "db_w", "db_c"), found, wanted, 1e-7):  # the loss is in the thousands
        return f"not autograd's {gap}"


def _check_pooled(m):
    (table,) = _draw((6, 3))
    rows = [[4], [0, 0, 5], [1, 2, 3, 1]]
    found = m.pooled(table, [torch.tensor(ids) for ids in rows])
    if gap := difference(found, torch.stack([table[ids].mean(dim=0) for ids in rows])):
        return f"sentences of one, three and four words: {gap}"
    alone = m.pooled(table, [torch.tensor(rows[0])])
    if gap := difference(alone[0], found[0]):
        return f"a sentence alone, and beside longer ones: {gap}"


def _check_contrastive(m):
    a, b = _draw((5, 4), (5, 4))
    for temperature in (1.0, 0.1):
        units = [rows / rows.norm(dim=1, keepdim=True) for rows in (a, b)]
        scores, diagonal = units[0] @ units[1].T / temperature, torch.arange(5)
        wanted = (F.cross_entropy(scores, diagonal) + F.cross_entropy(scores.T, diagonal)) / 2
        if gap := difference(m.contrastive(a, b, temperature).reshape(1), wanted.reshape(1)):
            return f"temperature {temperature}: {gap}"


EXERCISES = [
    Check("GloVe: loss and gradients are autograd's", _check_glove, "What weighs a pair that was never seen?"),
    Check(
        "a sentence's vector does not depend on its neighbours in the batch",
        _check_pooled,
        "By how many words is the sum divided?",
    ),
    Check(
        "the contrastive loss goes both ways",
        _check_contrastive,
        "Are both directions there, and are the positives divided by the temperature as well?",
    ),
]
