"""The checks of lesson 02: what a right `skipgram.py` must do, and what a reader's exercises must do."""

import math

import torch

from shared.clinic import Check, difference


def _draw(*shapes, seed=0):
    """Normal float64 tensors."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def _check_lookup(m):
    (table,) = _draw((6, 3))
    ids = torch.tensor([[4, 0], [2, 4]])
    if gap := difference(m.one_hot(ids, 6).double() @ table, table[ids]):
        return f"one-hot rows times a table are not the table's rows: {gap}"


SENTENCES = [torch.tensor([0, 1, 2, 3]), torch.tensor([4, 5])]  # each word once: a pair tells its two places


def _check_pairs(m):
    centres, contexts = m.pairs(SENTENCES, 1, torch.Generator().manual_seed(0))
    found = sorted(zip(centres.tolist(), contexts.tolist(), strict=True))
    wanted = [(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2), (4, 5), (5, 4)]
    if found != wanted:
        return f"0 1 2 3. 4 5. with a window of 1 gives {found}, expected {wanted}"
    for window in (3, 8):
        near = m.pairs(SENTENCES, window, torch.Generator().manual_seed(0))
        crossing = [(a, b) for a, b in zip(*(ids.tolist() for ids in near), strict=True) if (a < 4) != (b < 4)]
        if crossing:
            return f"the pair {crossing[0]} reaches from one sentence into the other"


def _check_reach(m):
    copies = 4000
    centres, contexts = m.pairs([torch.arange(4)] * copies, 3, torch.Generator().manual_seed(0))
    for distance, share in ((1, 1.0), (2, 2 / 3), (3, 1 / 3)):
        found = ((centres == 0) & (contexts == distance)).sum().item() / copies
        if abs(found - share) > 5 * math.sqrt(share * (1 - share) / copies):  # five standard errors of a share
            return (
                f"with a window of 3, a word {distance} away was a context in {found:.0%} of the draws, expected "
                f"{share:.0%}"
            )


def _check_counts(m):
    found = m.cooccurrence(SENTENCES, 6, 3)
    wanted = torch.zeros(6, 6, dtype=torch.float64)
    for i, j, count in ((0, 1, 1), (1, 2, 1), (2, 3, 1), (0, 2, 2 / 3), (1, 3, 2 / 3), (0, 3, 1 / 3), (4, 5, 1)):
        wanted[i, j] = wanted[j, i] = count
    if gap := difference(found, wanted):
        return f"the expected counts of 0 1 2 3. 4 5. with a window of 3: {gap}"


def _check_keep(m):
    frequency = torch.tensor([900.0, 90.0, 9.0, 1.0], dtype=torch.float64)
    keep = m.keep_probability(frequency, 0.01)
    wanted = torch.tensor([math.sqrt(1 / 90) + 1 / 90, math.sqrt(1 / 9) + 1 / 9, 1, 1], dtype=torch.float64)
    if gap := difference(keep, wanted):
        return f"900 of 1000 words, threshold 0.01: {gap}"
    if gap := difference(m.keep_probability(10 * frequency, 0.01), keep):
        return f"a text ten times as long keeps other shares of its words: {gap}"
    sentences = [torch.tensor([3, 0, 1, 0, 0, 2]).repeat(2000)]
    thinned = torch.bincount(torch.cat(m.subsample(sentences, keep, torch.Generator().manual_seed(0))), minlength=4)
    for word, times in ((0, 6000), (1, 2000), (2, 2000), (3, 2000)):
        share, found = keep[word].item(), thinned[word].item() / times
        if abs(found - share) > 5 * math.sqrt(share * (1 - share) / times):
            return f"{found:.0%} of word {word}'s occurrences were kept, expected {share:.0%}"


def _check_noise(m):
    frequency = torch.tensor([1.0, 16.0, 81.0, 256.0], dtype=torch.float64)
    wanted = torch.tensor([1.0, 8.0, 27.0, 64.0], dtype=torch.float64) / 100
    if gap := difference(m.noise_distribution(frequency), wanted):
        return f"frequencies 1, 16, 81, 256 to the power 0.75 are 1, 8, 27, 64 in a hundred: {gap}"


def _check_draws(m):
    shares, n = torch.tensor([0.01, 0.08, 0.27, 0.64, 0.0]), 100_000
    drawn = m.draw_negatives(shares, n, torch.Generator().manual_seed(0))
    found = torch.bincount(drawn, minlength=5) / n
    for word, share in enumerate(shares.tolist()):
        if abs(found[word] - share) > 5 * math.sqrt(share * (1 - share) / n):
            return f"word {word} is {found[word]:.1%} of the negatives, expected {share:.1%}"


def _check_softmax(m):
    w, c = (table.requires_grad_() for table in _draw((6, 3), (6, 3)))
    centres, contexts = torch.tensor([0, 1, 1, 5]), torch.tensor([1, 0, 2, 4])
    loss = torch.nn.functional.cross_entropy(w[centres] @ c.T, contexts)
    wanted = (loss, *torch.autograd.grad(loss, (w, c)))
    with torch.no_grad():
        found = m.softmax_gradients(w, c, centres, contexts)
    for name, ours, theirs in zip(("loss", "dw", "dc"), found, wanted, strict=True):
        if gap := difference(ours.reshape(-1), theirs.detach().reshape(-1)):
            return f"full softmax: {name} is not autograd's: {gap}"


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
    wanted = torch.autograd.grad(losses.sum(), rows)
    for name, ours, theirs in zip(("dw", "dc", "dn"), found[1:], wanted, strict=True):
        if gap := difference(ours, theirs):
            return f"{name} is not autograd's: {gap}"


def _check_expected(m):
    w, c, counts = _draw((6, 3), (6, 3), (6, 6))
    counts = counts.abs()
    noise = counts.sum(dim=0) / counts.sum()
    w.requires_grad_(), c.requires_grad_()
    true, scores = counts / counts.sum(), w @ c.T
    false = 5 * true.sum(dim=1, keepdim=True) * noise
    loss = -(true * torch.sigmoid(scores).log() + false * torch.sigmoid(-scores).log()).sum()
    wanted = (loss, *torch.autograd.grad(loss, (w, c)))
    with torch.no_grad():
        found = m.expected_gradients(w, c, counts, noise, 5)
    for name, ours, theirs in zip(("loss", "dw", "dc"), found, wanted, strict=True):
        if gap := difference(ours.reshape(-1), theirs.detach().reshape(-1)):
            return f"negatives in expectation: {name} is not autograd's: {gap}"


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


def _check_cbow(m):
    w, c = (table.requires_grad_() for table in _draw((6, 3), (6, 3)))
    contexts, centres = torch.tensor([[0, 1, 1], [2, 3, 0]]), torch.tensor([4, 5])
    negatives = torch.tensor([[1, 2], [0, 0]])
    means = [w[row].mean(dim=0) for row in contexts]
    loss = sum(_pair_loss(h, c[i], c[n]) for h, i, n in zip(means, centres, negatives, strict=True))
    wanted = torch.autograd.grad(loss, (w, c))
    with torch.no_grad():
        found = m.cbow_gradients(w, c, contexts, centres, negatives)
    for name, ours, theirs in zip(("dw", "dc"), found[1:], wanted, strict=True):
        if gap := difference(ours, theirs):
            return f"CBOW: {name} is not autograd's: {gap}"


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
    for name, ours, theirs in zip(("loss", "dw", "dc", "db_w", "db_c"), found, wanted, strict=True):
        # 1e-7: the loss is in the thousands
        if gap := difference(ours.reshape(-1), theirs.detach().reshape(-1), tolerance=1e-7):
            return f"GloVe: {name} is not autograd's: {gap}"


def _check_ppmi(m):
    counts = torch.tensor([[0.0, 6.0, 0.0], [6.0, 2.0, 1.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    for shift in (0.0, math.log(2)):
        wanted = torch.zeros(3, 3, dtype=torch.float64)
        for i, j in torch.nonzero(counts):
            share = counts[i, j] * counts.sum() / (counts[i].sum() * counts[:, j].sum())
            wanted[i, j] = max(0.0, math.log(share) - shift)
        if gap := difference(m.ppmi(counts, shift), wanted):
            return f"PPMI with a shift of {shift:.2g}: {gap}"


def _check_svd(m):
    (matrix,) = _draw((20, 15))
    u, s, v = m.truncated_svd(matrix, 3, rounds=200)
    # 1e-6: what 200 rounds leave of the 17th direction
    if gap := difference(s, torch.linalg.svdvals(matrix)[:3], tolerance=1e-6):
        return f"the three largest singular values: {gap}"
    left, values, right = torch.linalg.svd(matrix)
    if gap := difference(u * s @ v.T, left[:, :3] * values[:3] @ right[:3], tolerance=1e-6):
        return f"the best matrix of rank 3: {gap}"


def _check_cosine(m):
    (a,) = _draw((5, 3))
    a[4] = 0
    found = m.cosine(a, a)
    if gap := difference(found.diagonal(), torch.tensor([1.0, 1, 1, 1, 0], dtype=torch.float64)):
        return f"a vector's cosine with itself is 1, a zero vector's is 0: {gap}"
    longer = a * torch.tensor([1.0, 10, 0.1, 100, 1], dtype=torch.float64)[:, None]
    for ours, name in ((m.cosine(longer, a), "first"), (m.cosine(a, longer), "second")):
        if gap := difference(ours, found):
            return f"longer vectors on the {name} side changed the cosines: {gap}"


CIRCLE = [(math.cos(angle), math.sin(angle)) for angle in (0, 0.2, 0.5, 0.9, 1.4, 2.0)]


def _check_nearest(m):
    vectors = torch.tensor(CIRCLE, dtype=torch.float64)
    for query, wanted in ((0, [1, 2, 3]), (3, [2, 4, 1]), (5, [4, 3, 2])):
        found = m.nearest(vectors, query, 3)
        if query in found:
            return f"word {query} is among its own nearest, {found}"
        if found != wanted:
            return f"six directions on a circle: nearest to {query} are {found}, expected {wanted}"


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


def _check_purity(m):
    kinds = torch.tensor([0, 0, 1, 1])
    similarity = torch.tensor([[9.0, 2, 1, 0], [2, 9, 0, 1], [0, 3, 9, 1], [1, 0, 2, 9]])
    if (found := m.purity(similarity, kinds)) != 0.75:
        return f"three of four words have their kind nearest, but purity is {found}"
    kinds = torch.arange(400) % 4
    if abs((found := m.purity(torch.eye(400), kinds)) - 99 / 399) > 1e-9:  # float64
        return f"one-hot vectors of four kinds have purity {found:.3f}, chance is {99 / 399:.3f}"


def _check_training(m):
    text = torch.Generator().manual_seed(0)
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


CHECKS = [
    Check("a one-hot row times a table is a look-up", _check_lookup),
    Check(
        "each neighbour is found, and none in another sentence",
        _check_pairs,
        "Which neighbours does each centre look at?",
    ),
    Check(
        "near words are contexts more often than far ones",
        _check_reach,
        "What does each centre draw, and where is it used?",
    ),
    Check("expected counts are what drawn windows give", _check_counts),
    Check(
        "frequent words are thinned out, by their share of all words",
        _check_keep,
        "What is a word's count divided by, and is the result the chance to keep, or to drop?",
    ),
    Check("noise is frequency to the power 0.75", _check_noise, "Is every argument used?"),
    Check("negatives come in the noise's shares", _check_draws, "Where do the shares enter?"),
    Check("full softmax: gradients are autograd's", _check_softmax),
    Check(
        "negative sampling: loss and gradients are the formula's",
        _check_negatives,
        "Is each negative scored for itself? Which way must a true pair move, and which way a negative?",
    ),
    Check("negatives in expectation: gradients are autograd's", _check_expected),
    Check(
        "a step moves the rows that took part, each by all its slopes",
        _check_step,
        "Which table does each row come from, is anything stored, and what if a word comes twice?",
    ),
    Check("CBOW: gradients are autograd's", _check_cbow, "What is one neighbour's part in the mean?"),
    Check("GloVe: gradients are autograd's", _check_glove),
    Check("PPMI is the formula's, and 0 for what was never seen", _check_ppmi, "What is a pair that was never seen?"),
    Check("the truncated SVD is the best approximation", _check_svd),
    Check("a cosine does not change with length", _check_cosine, "What is a cosine divided by?"),
    Check("nearest words are in order, without the query", _check_nearest, "Is the query itself left out?"),
    Check(
        "an analogy's answer is none of the three given",
        _check_analogy,
        "Which words may be an answer? Which of the given ones is taken off, which added?",
    ),
    Check("purity is right, and at chance where nothing is known", _check_purity, "How are ties broken?"),
    Check("two languages that never meet are told apart", _check_training),
]


def _check_centred(m):
    (vectors,) = _draw((50, 8))
    wanted = vectors - vectors.mean(dim=0)
    wanted = wanted @ wanted.T / (wanted.norm(dim=1)[:, None] * wanted.norm(dim=1))
    for common in (0, 100):
        if gap := difference(m.centred_cosine(vectors + common), wanted):
            return f"{common} was added to every number: {gap}"


def _check_hub(m):
    similarity = torch.tensor([[9.0, 5, 1, 2], [5, 9, 1, 2], [6, 5, 9, 2], [5, 7, 1, 9]])
    if (found := m.largest_hub(similarity, 1)) != 2:
        return f"nearest are 1, 0, 0, 1, so the most popular word is nearest to 2 others, not {found}"
    if (found := m.largest_hub(similarity, 2)) != 3:
        return f"among the two nearest, word 0 and word 1 stand in 3 lists each, not {found}"


def _check_contrastive(m):
    a, b = _draw((5, 4), (5, 4))
    for temperature in (1.0, 0.1):
        units = [rows / rows.norm(dim=1, keepdim=True) for rows in (a, b)]
        scores, diagonal = units[0] @ units[1].T / temperature, torch.arange(5)
        cross = torch.nn.functional.cross_entropy
        wanted = (cross(scores, diagonal) + cross(scores.T, diagonal)) / 2
        if gap := difference(m.contrastive(a, b, temperature).reshape(1), wanted.reshape(1)):
            return f"temperature {temperature}: {gap}"


EXERCISES = [
    Check("a common vector does not change centred cosines", _check_centred),
    Check("the largest hub is counted right", _check_hub),
    Check(
        "the contrastive loss goes both ways",
        _check_contrastive,
        "Are both directions there, and are the positives heated as well?",
    ),
]
