"""What is seen of the patients of lesson 02's clinic: tables, curves and lists, made by running helper and caller.

Each function takes the patient's helper and caller. What stands beside it as healthy is the lesson's own files'.
"""

import functools
import itertools
import math
from collections import Counter

import skipgram
import skipgram_caller
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from shared.clinic import Evidence
from shared.colors import BROKEN, WORKING
from shared.world.words import COUNTRY_OF, KIND

STYLES = {
    "healthy": {"color": WORKING, "linestyle": "-", "marker": "o"},
    "patient": {"color": BROKEN, "linestyle": (0, (7, 2)), "marker": "s"},
}
PASSES = (1, 2, 4, 8)
ASKED = ("red", "kitchen", "lamp", "dog", "bread", "glad")
PLAIN = ("town", "job", "food", "animal", "object", "plural", "colour", "material", "place", "glad", "cross")


@functools.cache
def texts(n=skipgram_caller.STORIES, seed=0):
    """Documents of the story world."""
    return skipgram_caller.documents(n, seed)


@functools.lru_cache(maxsize=8)
def learned(caller, seed=0, epochs=skipgram_caller.EPOCHS):
    """Words, w and c that a program has learned from the same documents."""
    return caller.learn(texts(), seed, epochs)


def known(words, w):
    """The share of words whose nearest other word is of the same kind, judged by healthy files."""
    named = [i for i, word in enumerate(words) if KIND.get(word) in PLAIN]
    kinds = torch.tensor([PLAIN.index(KIND[words[i]]) for i in named])
    return skipgram.purity(skipgram.cosine(w[named], w[named]), kinds)


def both(caller):
    """The two programs by name."""
    return {"healthy": skipgram_caller, "patient": caller}


def lists(helper, caller):
    """The nearest words of some words, and how many words have one of their own kind nearest."""
    lines = []
    for name, program in both(caller).items():
        words, w, _ = learned(program)
        lines.append(f"{name}: {known(words, w):.0%} of the words have one of their own kind nearest")
        index = program.Index(words, w)
        lines += [f"    {word:<8} {' '.join(index.neighbours(word))}" for word in ASKED if word in words]
    return Evidence("\n".join(lines))


def learning(helper, caller):
    """The loss on other documents after some passes, as each program says it, and the kinds that are known then."""
    figure, axes = _figure(2)
    lines = [_row("passes over the text", PASSES)]
    for name, program in both(caller).items():
        runs = [learned(program, epochs=n) for n in PASSES]
        losses = [program.loss(texts(50, 1), *run) for run in runs]
        shares = [known(words, w) for words, w, _ in runs]
        lines.append(_row(f"{name}: nats a pair", [f"{value:.2f}" for value in losses]))
        lines.append(_row(f"{name}: own kind nearest", [f"{share:.0%}" for share in shares]))
        for axis, values in zip(axes, (losses, shares), strict=True):
            axis.plot(PASSES, values, label=name, **STYLES[name])
    for axis, label in zip(axes, ("loss, nats a pair", "words with their own kind nearest"), strict=True):
        axis.set(xlabel="passes over the text", ylabel=label, xscale="log", ylim=(0, None))
        _plain(axis, PASSES)
        axis.legend(frameon=False)
    return Evidence("\n".join(lines), figure)


def moved(helper, caller):
    """How far the words' vectors are from where they began, after one pass, by how often a word occurs."""
    sentences, words, frequency = _sentences()
    start, _ = skipgram.start(len(words), 16, torch.Generator().manual_seed(0))
    figure, (axis,) = _figure(1)
    bands = _bands(frequency)
    lines = [_row("a word occurs", [f"{low}+" for low in bands])]
    for name, module in (("healthy", skipgram), ("patient", helper)):
        w, _ = module.train(sentences, len(words), 16, window=3, epochs=1, threshold=1e-2, seed=0)
        means = [(w - start).norm(dim=1)[chosen].mean().item() for chosen in bands.values()]
        lines.append(_row(f"{name}: distance moved", [f"{mean:.2f}" for mean in means]))
        axis.plot(list(bands), means, label=name, **STYLES[name])
    axis.set(xlabel="a word occurs at least so often", ylabel="distance from the initialisation", xscale="log")
    axis.set_ylim(0, None)
    axis.legend(frameon=False)
    return Evidence("\n".join(lines), figure)


def drawn(helper, caller):
    """How often words are drawn as negatives, by how often they occur."""
    _, _, frequency = _sentences()
    bands, n = _bands(frequency), 200_000
    lines = [_row("a word occurs", [f"{low}+" for low in bands])]
    shares = [(frequency[chosen].sum() / frequency.sum()).item() for chosen in bands.values()]
    lines.append(_row("share of the text", [f"{share:.1%}" for share in shares]))
    for name, module in (("healthy", skipgram), ("patient", helper)):
        negatives = module.draw_negatives(module.noise_distribution(frequency), n, torch.Generator().manual_seed(0))
        counts = torch.bincount(negatives, minlength=len(frequency)) / n
        lines.append(_row(f"{name}: of the negatives", [f"{counts[it].sum():.1%}" for it in bands.values()]))
    return Evidence("\n".join(lines))


def reached(helper, caller):
    """How often a word so far from the centre is its context, in ten thousand sentences of nine words."""
    distances = range(1, 6)
    lines = [_row("window 5; words away", distances)]
    for name, module in (("healthy", skipgram), ("patient", helper)):
        centres, contexts = module.pairs([torch.arange(9)] * 10_000, 5, torch.Generator().manual_seed(0))
        found = Counter((contexts - centres)[centres == 3].tolist())
        lines.append(_row(f"{name}: share of sentences", [f"{found[distance] / 10_000:.0%}" for distance in distances]))
    words, w, _ = learned(caller)
    lines.append(f"own kind nearest: {known(*learned(skipgram_caller)[:2]):.0%} healthy, {known(words, w):.0%} patient")
    return Evidence("\n".join(lines))


def thinned(helper, caller):
    """The share of occurrences that are kept, by a word's share of the text, in a text and in one ten times as long."""
    _, _, frequency = _sentences()
    order = frequency.argsort(descending=True)[[0, 5, 20, 80, 300]]
    lines = [_row("a word's share of the text", [f"{frequency[i] / frequency.sum():.2%}" for i in order])]
    for name, module in (("healthy", skipgram), ("patient", helper)):
        for times in (1, 10):
            keep = module.keep_probability(times * frequency, 1e-3)[order]
            length = f"{times * int(frequency.sum()):,} words"
            lines.append(_row(f"{name}: kept of {length}", [f"{share:.0%}" for share in keep]))
    return Evidence("\n".join(lines))


def slopes(helper, caller):
    """The loss of one pair with two negatives, and a negative's slope: as it is returned, and as it is measured."""
    lines = [_row("scores: true, negatives", ["1, 1 1", "1, 3 -3", "1, 2 -4", "4, -4 -4"])]
    for name, module in (("healthy", skipgram), ("patient", helper)):
        cells = [_slope(module, *scores) for scores in ((1, 1, 1), (1, 3, -3), (1, 2, -4), (4, -4, -4))]
        for i, what in enumerate(("loss", "slope of a negative", "the same, measured")):
            lines.append(_row(f"{name}: {what}", [f"{cell[i]:.3f}" for cell in cells]))
    words, w, _ = learned(caller)
    lines.append(f"own kind nearest: {known(*learned(skipgram_caller)[:2]):.0%} healthy, {known(words, w):.0%} patient")
    return Evidence("\n".join(lines))


def hubs(helper, caller):
    """Which words stand among the five nearest of how many others."""
    words, w, _ = learned(skipgram_caller)
    order = w.norm(dim=1).argsort(descending=True)
    rank = {int(i): place + 1 for place, i in enumerate(order)}
    lines = [f"{len(words)} words, the same vectors; who stands among the five nearest of most words"]
    for name, module in (("healthy", skipgram), ("patient", helper)):
        near = Counter(i for query in range(len(words)) for i in module.nearest(w, query, 5))
        best = ", ".join(f"{words[i]} {n} (length: {rank[i]} of {len(words)})" for i, n in near.most_common(3))
        lines.append(f"{name}: {best}")
        a, b = (module.cosine(w[i : i + 1], w[j : j + 1]).item() for i, j in ((0, 9), (9, 0)))
        lines.append(f"{name}: {words[0]} and {words[9]} {a:.3f}, {words[9]} and {words[0]} {b:.3f}")
    return Evidence("\n".join(lines))


def analogies(helper, caller):
    """What is to each capital as its country is to another capital, on vectors in which it is planted."""
    pairs = list(COUNTRY_OF.items())[:6]
    generator = torch.Generator().manual_seed(0)
    capitals = torch.randn(6, 12, generator=generator)
    step, noise = torch.randn(12, generator=generator), torch.randn(6, 12, generator=generator)
    vectors = torch.cat([capitals, capitals + 0.1 * step + 0.3 * noise])
    names = [capital for capital, _ in pairs] + [country for _, country in pairs]
    lines = [f"{pairs[0][0]} is to {pairs[0][1]} as ... is to ..."]
    for i in range(1, 6):
        found = [module.analogy(vectors, *torch.tensor([[0], [6], [i]]))[0, 0] for module in (skipgram, helper)]
        lines.append(f"    {names[i]:<8} healthy: {names[found[0]]:<8} patient: {names[found[1]]}")
    return Evidence("\n".join(lines))


def windows(helper, caller):
    """How far the neighbours' vectors move in a step of CBOW, by the size of the window, and how the loss falls."""
    sizes = (2, 4, 8, 16)
    lines = [_row("neighbours of a word", sizes)]
    for name, module in (("healthy", skipgram), ("patient", helper)):
        steps, falls = zip(*(_cbow_step(module, m) for m in sizes), strict=True)
        lines.append(_row(f"{name}: all of them together moved", [f"{step:.3f}" for step in steps]))
        lines.append(_row(f"{name}: loss fell by", [f"{fall:.4f}" for fall in falls]))
    return Evidence("\n".join(lines))


def gaps(helper, caller):
    """The full softmax's loss where the context's score lies so far below another word's."""
    sizes = (1, 10, 50, 100, 110, 200)
    lines = [_row("gap between two scores", sizes)]
    for name, module in (("healthy", skipgram), ("patient", helper)):
        cells = []
        for size in sizes:
            w, c = torch.ones(1, 1), torch.tensor([[0.0], [float(size)]])
            cells.append(module.softmax_gradients(w, c, torch.tensor([0]), torch.tensor([0]))[0].item())
        lines.append(_row(f"{name}: nats", [f"{value:.1f}" for value in cells]))
    return Evidence("\n".join(lines))


def used(helper, caller):
    """The loss of a model on other documents, before somebody looks words up in it and after."""
    words, w, c = (x if isinstance(x, list) else x.clone() for x in learned(skipgram_caller))
    lines = []
    for name, program in both(caller).items():
        vectors, index = w.clone(), None
        before, length = program.loss(texts(50, 1), words, vectors, c), vectors.norm(dim=1).mean().item()
        index = program.Index(words, vectors)
        answer = " ".join(index.neighbours("red"))
        after = program.loss(texts(50, 1), words, vectors, c)
        lines.append(f"{name}: {before:.2f} nats a pair, mean length of a vector {length:.2f}")
        lines.append(f"    red -> {answer}")
        lines.append(f"    then {after:.2f} nats a pair, mean length {vectors.norm(dim=1).mean():.2f}")
    return Evidence("\n".join(lines))


def batches(helper, caller):
    """The rate of each step, and how many different pairs were seen after each pass."""
    sentences, words, _ = _sentences()
    figure, axes = _figure(2)
    lines = [_row("after passes", range(1, 7))]
    for name, module in (("healthy", skipgram), ("patient", helper)):
        steps = recorded(module, sentences[:300], len(words), window=5, epochs=6)
        rates = [given[6] for given in steps]
        ids = torch.cat([given[3] * len(words) + given[4] for given in steps])
        ends = [len(ids) * n // 6 for n in range(1, 7)]
        seen = [len(ids[:end].unique()) for end in ends]
        lines.append(_row(f"{name}: different pairs seen", seen))
        parts = [rates[len(rates) * n // 6 : len(rates) * (n + 1) // 6] for n in range(6)]
        lines.append(_row("    largest rate of a step, about then", [f"{max(part):.2f}" for part in parts]))
        axes[0].plot(rates, label=name, color=STYLES[name]["color"], linestyle=STYLES[name]["linestyle"])
        axes[1].plot(range(1, 7), seen, label=name, **STYLES[name])
    axes[0].set(xlabel="step", ylabel="rate", ylim=(0, None))
    axes[1].set(xlabel="passes over the text", ylabel="different pairs seen", ylim=(0, None))
    for axis in axes:
        axis.legend(frameon=False)
    return Evidence("\n".join(lines), figure)


def recorded(module, sentences, n_words, **settings):
    """What a module's trainer hands to each step: w, c, squares, centres, contexts, negatives, rate."""
    original, steps = module.step, []
    module.step = lambda *given: steps.append(given)
    try:
        module.train(sentences, n_words, 4, **{"batch": 256, "threshold": 1e-2} | settings)
    finally:
        module.step = original
    return steps


def unthinned(helper, caller):
    """How many pairs a pass has, by the threshold; and what is known after eight passes with the last of them."""
    sentences, words, frequency = _sentences()
    thresholds = (1e-2, 1e-3, 1e-4, 0.0)
    lines = [_row("threshold", [f"{threshold:g}" for threshold in thresholds])]
    for name, module in (("healthy", skipgram), ("patient", helper)):
        cells = []
        for threshold in thresholds:
            keep = module.keep_probability(frequency, threshold)
            thin = module.subsample(sentences, keep, torch.Generator().manual_seed(0))
            cells.append(len(module.pairs(thin, 3, torch.Generator().manual_seed(0))[0]))
        lines.append(_row(f"{name}: pairs of a pass", cells))
        w, _ = module.train(sentences, len(words), 16, window=3, epochs=4, threshold=0.0)
        lines.append(f"    threshold 0, four passes: {known(words, w):.0%} of the words have their own kind nearest")
    return Evidence("\n".join(lines))


def neighbours_in_batch(helper, caller):
    """Ten documents, cut to their first sentence, embedded alone and beside a long document: cosine of the two."""
    words, w, _ = learned(skipgram_caller)
    short = [text[:1] for text in texts()[:10]]
    long = [sentence for text in texts()[10:20] for sentence in text]
    lines = [_row("words of the other document", (0, 10, 40, 160))]
    for name, program in both(caller).items():
        index, cells = program.Index(words, w), []
        for size in (0, 10, 40, 160):
            beside = [[[word for sentence in long for word in sentence][:size]]] if size else []
            alone = torch.cat([index.embed([text]) for text in short])
            together = index.embed([*short, *beside])[: len(short)]
            cells.append(torch.cosine_similarity(alone, together).mean().item())
        lines.append(_row(f"{name}: cosine with itself alone", [f"{cell:.2f}" for cell in cells]))
    return Evidence("\n".join(lines))


def kept_in_a_file(helper, caller):
    """Nearest words before vectors are written to a file, and after they are read."""
    words, w, _ = learned(skipgram_caller)
    lines = []
    for name, program in both(caller).items():
        text = program.write(words, w)
        read_words, read = program.read(text)
        lines.append(f"{name}: {len(text):,} characters; largest difference of a number {(read - w).abs().max():.1g}")
        for when, index in (("before", program.Index(words, w)), ("after", program.Index(read_words, read))):
            lines += [f"    {when:<7} {word:<8} {' '.join(index.neighbours(word))}" for word in ASKED[:3]]
    return Evidence("\n".join(lines))


def grown(helper, caller):
    """Nearest words before new documents came, and after; how many words there are."""
    words, w, _ = learned(skipgram_caller)
    lines = []
    for name, program in both(caller).items():
        more, larger = program.grow(words, w, texts(300, 7))
        lines.append(f"{name}: {len(words)} words, {len(more)} with the new documents")
        for when, index in (("before", program.Index(words, w)), ("after", program.Index(more, larger))):
            lines += [f"    {when:<7} {word:<8} {' '.join(index.neighbours(word))}" for word in ASKED[:3]]
    return Evidence("\n".join(lines))


def company(helper, caller):
    """How many pairs a text gives, and what the program makes of three short documents."""
    lines, (words, *_) = [], learned(skipgram_caller)
    for name, program in both(caller).items():
        rows = program.numbered(texts(), words)
        pairs = skipgram.pairs(rows, skipgram_caller.WINDOW, torch.Generator().manual_seed(0))
        own_words, w, _ = learned(program)
        longest = max(map(len, rows))
        lines.append(f"{name}: {len(pairs[0]):,} pairs; the longest row has {longest} words")
        lines.append(f"    {known(own_words, w):.0%} of the words have one of their own kind nearest")
        index = program.Index(own_words, w)
        lines += [f"    {word:<8} {' '.join(index.neighbours(word))}" for word in ASKED]
    return Evidence("\n".join(lines))


def saved_and_reached(helper, caller):
    """How far a window reaches; and nearest words before vectors are written to a file and after they are read."""
    lines = []
    for name, module in (("healthy", skipgram), ("patient", helper)):
        count = len(module.pairs([torch.arange(9)] * 1000, 3, torch.Generator().manual_seed(0))[0])
        lines.append(f"{name}: {count:,} pairs of a thousand sentences of nine words, window 3")
    words, w, _ = learned(caller)
    read_words, read = caller.read(caller.write(words, w))
    for when, index in (("before", caller.Index(words, w)), ("after", caller.Index(read_words, read))):
        lines += [f"    {when:<7} {word:<8} {' '.join(index.neighbours(word))}" for word in ASKED[:4]]
    return Evidence("\n".join(lines))


def sorted_lists(helper, caller):
    """How many one-hot vectors have their own kind nearest, by the order in which the words stand."""
    kinds = torch.arange(8).repeat_interleave(10)
    orders = {"by kind": torch.arange(80), "every eighth": torch.arange(80).view(8, 10).T.flatten()}
    orders["by chance"] = torch.randperm(80, generator=torch.Generator().manual_seed(0))
    lines = [_row("80 words of 8 kinds stand", orders)]
    for name, module in (("healthy", skipgram), ("patient", helper)):
        cells = [module.purity(torch.eye(80), kinds[order]) for order in orders.values()]
        lines.append(_row(f"{name}: own kind nearest", [f"{cell:.1%}" for cell in cells]))
    return Evidence("\n".join(lines))


def first_losses(helper, caller):
    """The loss before any step and after few, for texts of several sizes."""
    lines = [_row("documents learned from", (20, 100, 400))]
    for label, epochs in (("no step taken", 0), ("one pass", 1), ("eight passes", 8)):
        cells = []
        for n in (20, 100, 400):
            words, w, c = caller.learn(texts()[:n], epochs=max(epochs, 1))
            if not epochs:
                w, c = helper.start(len(words), 16, torch.Generator().manual_seed(0))
            cells.append(f"{caller.loss(texts(50, 1), words, w, c):.3f}")
        lines.append(_row(f"{label}: nats a pair", cells))
    return Evidence("\n".join(lines))


def two_runs(helper, caller):
    """The same text with two seeds: the same word's vectors, and its neighbours."""
    (words, one, _), (_, other, _) = learned(caller, 0), learned(caller, 1)
    same = torch.cosine_similarity(one, other).mean().item()
    lines = [f"mean cosine of a word's vector with its vector of the other run: {same:.2f}"]
    between = [skipgram.cosine(w, w).flatten() for w in (one, other)]
    alike = torch.corrcoef(torch.stack(between))[0, 1]
    lines.append(f"correlation of all cosines between words, one run with the other: {alike:.2f}")
    for word in ASKED[:4]:
        for seed, w in enumerate((one, other)):
            lines.append(f"    seed {seed}: {word:<8} {' '.join(caller.Index(words, w).neighbours(word))}")
    return Evidence("\n".join(lines))


def true_negatives(helper, caller):
    """How often a negative is the very context of its pair, or the centre; by how frequent the context is."""
    sentences, _, frequency = _sentences()
    generator = torch.Generator().manual_seed(0)
    centres, contexts = helper.pairs(sentences, 3, generator)
    noise = helper.noise_distribution(frequency)
    negatives = helper.draw_negatives(noise, 5 * len(centres), generator).view(-1, 5)
    same = (negatives == contexts[:, None]).float().mean(dim=1)
    bands = _bands(frequency)
    lines = [_row("the context occurs", [f"{low}+" for low in bands])]
    shares = [same[torch.isin(contexts, chosen)].mean() for chosen in bands.values()]
    lines.append(_row("negatives that are it", [f"{share:.1%}" for share in shares]))
    lines.append(f"all: {same.mean():.1%} of the negatives are the true context, {len(centres):,} pairs")
    return Evidence("\n".join(lines))


def meaning_search(helper, caller):
    """Search by meaning: the documents nearest to a document's own first half, and who is found at all."""
    words, w, _ = learned(caller)
    lines = []
    for name, program in both(caller).items():
        words, w, _ = learned(program)
        index = program.Index(words, w)
        index.add(texts()[:200])
        halves = [text[: math.ceil(len(text) / 2)] for text in texts()[:200]]
        found = [index.search(half, 5) for half in halves]
        right = sum(i in some for i, some in enumerate(found)) / len(found)
        lines.append(f"{name}: {known(words, w):.0%} of the words have their own kind nearest")
        lines.append(f"    the document that a first half is from is among the five found: {right:.0%} of 200")
    return Evidence("\n".join(lines))


@functools.lru_cache(maxsize=2)
def sentences_of(program):
    """A program's sentences as ids, its words, and how often each occurs."""
    words = program.vocabulary(texts())
    sentences = program.numbered(texts(), words)
    return sentences, words, torch.bincount(torch.cat(sentences), minlength=len(words)).double()


def _sentences():
    return sentences_of(skipgram_caller)


def _bands(frequency):
    """Ids of words by how often they occur at least."""
    edges = [5, 10, 20, 50, 200, 1000, 10**9]
    between = {low: (frequency >= low) & (frequency < high) for low, high in itertools.pairwise(edges)}
    return {low: chosen.nonzero()[:, 0] for low, chosen in between.items()}


def _slope(module, true, *negatives):
    """Loss of one pair, the slope of its first negative's score as returned, and by a difference."""
    w, c = torch.ones(1, 1, dtype=torch.float64), torch.full((1, 1), float(true), dtype=torch.float64)
    n = torch.tensor(negatives, dtype=torch.float64).view(1, -1, 1)
    loss, _, _, dn = module.negative_gradients(w, c, n)
    nudged = n.clone()
    nudged[0, 0] += 1e-6
    return loss.item(), dn[0, 0, 0].item(), (module.negative_gradients(w, c, nudged)[0] - loss).item() / 1e-6


def _cbow_step(module, m):
    """How far all neighbours of one word move in a step of rate 0.1, and by how much the loss falls."""
    generator = torch.Generator().manual_seed(0)
    w, c = torch.randn(20, 8, generator=generator), torch.randn(20, 8, generator=generator)
    given = torch.arange(m)[None], torch.tensor([18]), torch.tensor([[17, 19]])
    loss, dw, _ = module.cbow_gradients(w, c, *given)
    return 0.1 * dw.norm(dim=1).sum().item(), (loss - module.cbow_gradients(w - 0.1 * dw, c, *given)[0]).item()


def _row(name, cells):
    return f"{name:<36}" + "".join(f"{cell!s:>13}" for cell in cells)


def _plain(axis, ticks):
    """Ticks as plain numbers on a logarithmic axis."""
    axis.set_xticks(ticks, ticks)
    axis.xaxis.set_minor_formatter(NullFormatter())


def _figure(n):
    figure = Figure(figsize=(4.6 * n, 3.1), layout="constrained")
    return figure, figure.subplots(1, n, squeeze=False)[0]
