"""What is seen of lesson 13's patients, made by running them: losses, texts, maps of who sees whom. No answers.

Each function takes a patient's helper and caller and returns Evidence. Where a table says "new texts", the measure is
that of `objectives_seen`, not the patient's.
"""

import textwrap
from functools import partial

import objectives_seen as seen
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from objective_vocabulary import numbered
from objective_world import names, words_of

from shared.clinic import Evidence
from shared.colors import FLOOR, WORKING

LOOKS = (0, 12, 24, 36, -1)  # steps of which a table tells
CUTS = ((4, 5), (10, 13), (30, 33), (39, 42))  # of middles
SHARES = ((0.8, 0.1), (0.3, 0.2), (0.0, 1.0), (1.0, 0.0))


def _masking(helper, caller, name):
    """A training with masks, and what its model knows of words that are masked and that are seen."""
    model, losses = caller.train(name)
    tokens = seen.held_out(caller)
    lines = [f"a training: {name}", *_losses(losses), ""]
    lines += ["nats a word on new texts, by the share of words that are masked", _row("share masked", (0.1, 0.3, 0.6))]
    for_share = [
        seen.masked_nats(caller, model, tokens, seen.drawn(tokens, caller, share)) for share in (0.1, 0.3, 0.6)
    ]
    for which, cells in zip(("masked words", "words that are seen"), zip(*for_share, strict=True), strict=True):
        lines.append(_row(which, _two(cells)))
    return Evidence("\n".join(lines))


masked, diffusion = partial(_masking, name="masked"), partial(_masking, name="diffusion")


def prefixes(helper, caller):
    """A training with prefixes: what its model says of words after a prefix, where texts go on and where they end."""
    model, losses = caller.train("prefix")
    tokens = _longest(caller, 8)
    lines = ["a training: prefix", *_losses(losses), ""]
    lines.append("a new text, whole, and the same text ended before the word that is asked for: by how many nats the")
    lines += ["answers differ", _row("word after the prefix", range(1, 7))]
    for start in (2, 8, 16):
        mean, largest = seen.after_prefix(helper, caller, model, tokens, start, 6)
        lines.append(_row(f"prefix of {start}: the true word", _three(mean)))
        lines.append(_row("  largest of all 200 ids", _three(largest)))
    return Evidence("\n".join(lines))


def continued(helper, caller):
    """A causal training, and how its model goes on with the first words of new texts."""
    model, losses = caller.train("causal")
    lines = ["a training: causal", *_losses(losses), "", "new texts: given | what the model goes on with"]
    for row in seen.held_out(caller)[:3]:
        given = row[:5].tolist()
        lines += _text(f"{_said(given)} | {_said(caller.write(model, given, 24)[5:])}")
    return Evidence("\n".join(lines))


def cut_off(helper, caller):
    """A causal training, and the word that its model expects after beginnings of new texts, by their length."""
    model, losses = caller.train("causal")
    rows = _longest(caller, 3)
    lines = ["a training: causal, texts of 48 words and shorter ones", *_losses(losses), ""]
    lines.append("beginnings of three new texts of 48 words; the likeliest next word, and its probability")
    for row in rows:
        lines += ["", *_text(_said(row))]
        for n in (31, 46, 47, 48):
            word, p = seen.word_after(caller, model, row, n)
            lines.append(_row(f"  after {n} words", [names()[word], f"{p:.2f}"]))
    return Evidence("\n".join(lines))


def filled(helper, caller):
    """What is written where words were masked, after trainings of several lengths."""
    tokens = seen.held_out(caller)
    hidden = seen.drawn(tokens, caller, 0.3)
    lines = [
        f"new texts with masks, {int(hidden.sum())} words, which are written anew: what came out, in four drawings"
    ]
    lines.append(_row("steps of training", ["words", "<mask>", "others"]))
    for steps in (4, 12, 48):
        model, _ = caller.train("masked", steps=steps)
        found = [caller.fill(model, tokens, hidden, seed) for seed in range(4)]
        chosen = torch.cat([it[hidden] for it in found])
        masks = int((chosen == caller.MASK).sum())
        words = int(caller.VOCABULARY.is_word(chosen).sum())
        lines.append(_row(steps, [words, masks, len(chosen) - words - masks]))
    lines += ["", f"one of the texts after {steps} steps, in capitals what was written"]
    row, gone = found[0][0], hidden[0]
    said = [names()[int(i)].upper() if h else names()[int(i)] for i, h in zip(row, gone, strict=True)]
    return Evidence("\n".join([*lines, *_text(" ".join(said))]))


def repeated(helper, caller):
    """Trainings on few texts again and again: the loss, and nats of masked words on these texts and on new ones."""
    lines = ["trainings with masks on 32 texts, again and again"]
    lines.append(_row("times each was read", ["loss of the", "nats, these", "nats,"], 13))
    lines.append(_row("", ["last 4 steps", "masked anew", "new texts"], 13))
    for steps in (24, 48, 96):
        model, losses = caller.train("masked", steps=steps, repeated=2)
        stream = caller.texts(0)
        these, new = torch.cat([next(stream), next(stream)]), seen.held_out(caller, 32)
        cells = [sum(losses[-4:]) / 4]
        for tokens in (these, new):
            cells.append(seen.masked_nats(caller, model, tokens, seen.drawn(tokens, caller, caller.RATE, 3))[0])
        lines.append(_row(steps // 2, _two(cells), 13))
    return Evidence("\n".join(lines))


def padding(helper, caller):
    """The same texts, filled up to more and more positions: the loss of each kind of objective."""
    model, _ = caller.train("causal", steps=24)
    tokens, sizes = seen.held_out(caller, 4), (0, 8, 16, 32)
    hidden = seen.drawn(tokens, caller, 0.3)
    lines = ["a model after 24 steps of causal training; four new texts, the same for both lines"]
    lines.append("nats, by how many positions of padding are added to each text")
    rows = {"causal": [], "hide, the same words": []}
    for n in sizes:
        longer = torch.nn.functional.pad(tokens, (0, n), value=caller.PAD)
        gone = torch.nn.functional.pad(hidden, (0, n))
        made = helper.causal(longer, caller.VOCABULARY), helper.hide(longer, gone, caller.VOCABULARY)
        with torch.no_grad():
            for row, batch in zip(rows.values(), made, strict=True):
                row.append(float(caller.loss(model, *batch)))
    lines.append(_row("padding that is added", sizes))
    lines += [_row(name, [f"{it:.3f}" for it in row]) for name, row in rows.items()]
    return Evidence("\n".join(lines))


def untrained(helper, caller):
    """The loss of a model before its first step, by objective."""
    model, tokens = caller.new_model(), seen.held_out(caller)
    lines = [f"a model before its first step; its vocabulary has {caller.VOCABULARY.size} ids, of which log is "]
    lines[0] += f"{torch.tensor(caller.VOCABULARY.size).log():.2f}"
    lines.append(_row("", ["positions", "targets", "loss"]))
    for rate in (0.05, 0.15, 0.4, 0.8, 1.0):
        lines.append(_start(caller, model, f"masked, rate {rate}", "masked", tokens, rate))
    for name in ("causal", "prefix", "spans", "middle"):
        lines.append(_start(caller, model, name, name, tokens, caller.RATE))
    return Evidence("\n".join(lines))


def _start(caller, model, title, name, tokens, rate):
    batch = caller.batch_of(name, tokens, torch.Generator().manual_seed(0), rate)
    with torch.no_grad():
        told = float(caller.loss(model, *batch))
    return _row(title, [batch.targets.numel(), int((batch.targets >= 0).sum()), f"{told:.2f}"])


def fates(helper, caller):
    """What becomes of chosen words, with large and small vocabularies."""
    lines = ["40,000 words, all of them chosen (rate 1): the shares of what they became"]
    for title, vocabulary in (("178 words", caller.VOCABULARY), ("the words 0, 1, 2 and 3", numbered(4))):
        lines += ["", f"vocabulary: {title}"]
        lines.append(_row("mask_share, random_share", ["<mask>", "another", "the same", "others"], 11))
        for shares in SHARES:
            lines.append(_row(f"{shares[0]}, {shares[1]}", _three(seen.fates(helper, vocabulary, *shares)), 11))
    return Evidence("\n".join(lines))


def special(helper, caller):
    """What becomes of chosen words, and a text as the body gets it."""
    tokens = next(caller.texts(0))[:1]
    generator = torch.Generator().manual_seed(4)
    batch = helper.masked(tokens.repeat(3, 1), caller.VOCABULARY, 0.6, generator, 0.3, 0.7)
    lines = ["a text, and three times what the body is given; rate 0.6, mask_share 0.3, random_share 0.7"]
    for row in (tokens[0], *batch.inputs):
        lines += ["", *_text(_said(row))]
    return Evidence("\n".join(lines))


def rare(helper, caller):
    """Trainings with few masks: how many steps they took, and their losses."""
    lines = ["trainings with masks, two texts a step, 40 steps", _row("rate", ["steps taken", "last loss"], 14)]
    for rate in (0.4, 0.1, 0.03, 0.01):
        _, losses = caller.train("masked", steps=40, n=2, rate=rate)
        lines.append(_row(rate, [len(losses), f"{losses[-1]:.2f}"], 14))
    return Evidence("\n".join(lines))


def parts(helper, caller):
    """The gradient of one batch, read in parts."""
    model, tokens = caller.new_model(), seen.held_out(caller)
    lines = [f"the gradient of one batch, 16 texts of {', '.join(map(str, caller.LENGTHS))} words in turn, in n parts"]
    lines.append(_row("n", [1, 2, 4, 8, 16]))
    batch = caller.batch_of("causal", tokens)
    found = [torch.cat([it.flatten() for it in caller.gradients(model, batch, n)]) for n in (1, 2, 4, 8, 16)]
    lines.append(_row("causal: length", [f"{it.norm():.4f}" for it in found]))
    gaps = [(it - found[0]).norm() / found[0].norm() for it in found]
    lines.append(_row("  distance from n = 1", [f"{100 * it:.1f} %" for it in gaps]))
    return Evidence("\n".join(lines))


def sizes(helper, caller):
    """What the same texts cost, measured in batches of several sizes."""
    model, _ = caller.train("causal", steps=24)
    tokens = seen.held_out(caller)
    lines = [f"16 new texts of {', '.join(map(str, caller.LENGTHS))} words in turn; a model after 24 steps of training"]
    lines.append(_row("texts of a batch", (1, 2, 3, 4, 8, 16)))
    found = [caller.measure(model, "causal", tokens, n) for n in (1, 2, 3, 4, 8, 16)]
    return Evidence("\n".join([*lines, _row("causal: nats a word", [f"{it:.3f}" for it in found])]))


def bits(helper, caller):
    """Nats a word and bits a byte of some models."""
    tokens = seen.held_out(caller)
    batch = helper.causal(tokens, caller.VOCABULARY)
    said = [names()[i] for row in tokens.tolist() for i in row[1:] if i != caller.PAD]
    size = sum(len(f" {word}".encode()) for word in said)
    lines = [f"16 new texts: {len(said)} words are asked for, which with the spaces before them are {size} bytes"]
    lines.append(_row("", ["nats a word", "bits a byte"], 14))
    models = {"uniform over 200 ids": seen.uniform(caller.new_model())}
    models |= {f"after {steps} steps": caller.train("causal", steps=steps)[0] for steps in (12, 40)}
    for name, model in models.items():
        told = helper.held_out_loss(model, [batch]), caller.bits_per_byte(model, tokens)
        lines.append(_row(name, _three(told), 14))
    return Evidence("\n".join(lines))


def middles(helper, caller):
    """A training to fill in the middle, and what its model writes between two parts of new texts."""
    model, losses = caller.train("middle", steps=72)
    rows = [row.tolist() for row in _longest(caller, 2)]
    lines = ["a training: fill in the middle", _row("step", (0, 18, 36, 54, 71))]
    lines += [_row("loss of the step", [f"{losses[at]:.2f}" for at in (0, 18, 36, 54, 71)]), ""]
    lines.append("new texts: some words before the gap [what was written; what stood there] some words after it")
    for row in rows:
        for start, stop in CUTS:
            found = caller.write_middle(model, row[:start], row[stop:], 6)
            written = _said([i for i in found if i != caller.STOP])
            before, after = _said(row[max(0, start - 4) : start]), _said(row[stop : stop + 4])
            lines.append(f"  {before} [{written}; {_said(row[start:stop])}] {after}")
    return Evidence("\n".join(lines))


def gaps(helper, caller):
    """A training by spans: nats of the words of each gap, and who sees whom in one of its batches."""
    model, losses = caller.train("spans")
    tokens = _longest(caller, 32)
    hidden = helper.draw_spans(tokens, caller.VOCABULARY, caller.RATE, generator=torch.Generator().manual_seed(0))
    found = seen.gaps(caller, model, tokens, hidden)
    lines = ["a training: spans", *_losses(losses), "", "32 new texts of 48 words, 14 of them in five gaps"]
    lines.append(_row("gap of the text", range(1, len(found) + 1)))
    lines.append(_row("words", [n for _, n in found]))
    lines.append(_row("nats a word", _two([it for it, _ in found])))
    figure = Figure(figsize=(6.6, 6.2), layout="constrained")
    _map(figure.subplots(), caller.batch_of("spans", tokens[:1, :33], torch.Generator().manual_seed(0)))
    return Evidence("\n".join(lines), figure)


def neighbours(helper, caller):
    """How far the answers to texts side by side are from those to each text alone."""
    model, tokens = caller.train("prefix")[0], _longest(caller, 4)
    lengths = torch.tensor([3, 30, 9, 18])
    alone = [seen.answers(helper, caller, model, tokens[b : b + 1], lengths[b : b + 1])[0] for b in range(4)]
    lines = [
        "four new texts of 48 words, prefix objective: by how many nats the answers to a text (of any of 200 ids, at"
    ]
    lines += ["any position) differ, at most, from those to the text alone", _row("text", "ABCD")]
    lines.append(_row("words of its prefix", lengths.tolist()))
    for title, order in (
        ("side by side: A B C D", [0, 1, 2, 3]),
        ("  B A C D", [1, 0, 2, 3]),
        ("  D C B A", [3, 2, 1, 0]),
    ):
        found = seen.answers(helper, caller, model, tokens[order], lengths[order])
        cells = {b: float((told - alone[b]).abs().max()) for b, told in zip(order, found, strict=True)}
        lines.append(_row(title, [f"{cells[b]:.3f}" for b in range(4)]))
    return Evidence("\n".join(lines))


def noise(helper, caller):
    """Two trainings, and their models' losses on the same texts, asked again and again."""
    lines, tokens = [], seen.held_out(caller)
    for name in ("causal", "diffusion"):
        model, losses = caller.train(name)
        generator = torch.Generator().manual_seed(0)
        again = [helper.held_out_loss(model, [caller.batch_of(name, tokens, generator)]) for _ in range(12)]
        lines += [f"a training: {name}", _row("step", range(36, 48), 6), _row("loss of the step", _two(losses[36:]), 6)]
        lines += [_row("after it: 16 new texts, asked", range(1, 13), 6), _row("nats", _two(again), 6), ""]
    return Evidence("\n".join(lines).rstrip())


def doubted(helper, caller):
    """Whether wrong words in new texts are doubted more than right ones, after a training with masks."""
    tokens, wrong = seen.swapped(caller, seen.held_out(caller, 32))
    right = caller.VOCABULARY.is_word(tokens) & ~wrong
    model, losses = caller.train("masked", steps=96)
    told, masks = caller.doubts(model, tokens), seen.drawn(seen.held_out(caller), caller, 0.3)
    lines = ["a training: masked, 96 steps; loss of the last 8: " + f"{sum(losses[-8:]) / 8:.2f}"]
    nats = seen.masked_nats(caller, model, seen.held_out(caller), masks)[0]
    lines.append(f"nats of masked words on new texts: {nats:.2f}")
    lines += ["", f"32 new texts in which {int(wrong.sum())} words were replaced by others; no word is masked"]
    lines.append(_row("", ["right words", "wrong ones"], 14))
    lines.append(_row("doubt, nats a word", _two([told[right].mean(), told[wrong].mean()]), 14))
    named, wrongly = seen.named(told, wrong, right)
    lines.append(f"of the {named} words that are doubted most, {wrongly} are right ones")
    row = tokens[0]
    said = [f"{names()[int(i)]}:{each:.1f}" for i, each in zip(row, told[0], strict=True)]
    return Evidence("\n".join([*lines, "", "a text, and the doubt of each word", *_text(" ".join(said))]))


def _map(axis, batch):
    """Who sees whom in the first row of a batch, and which positions are asked for what follows them."""
    said = words_of(batch.inputs[0])
    n = len(said)
    axis.imshow(batch.seen[0, :n, :n].numpy(), cmap=ListedColormap(["white", FLOOR]), alpha=0.5)
    asked = (batch.targets[0, :n] >= 0).nonzero()[:, 0].numpy()
    axis.plot(asked, asked, "o", color=WORKING, markersize=4)
    axis.set_xticks(range(n), said, rotation=90, fontsize=7)
    axis.set_yticks(range(n), said, fontsize=7)
    axis.set(title="grey: the row sees the column; dots: asked for the token after it", xlabel="is seen", ylabel="sees")


def _longest(caller, n):
    """n new texts of the longest length."""
    return seen.held_out(caller, 4 * n)[::4]


def _losses(losses):
    """Two rows of a table."""
    steps = [range(len(losses))[at] for at in LOOKS]
    return [_row("step", steps), _row("loss of the step", _two(losses[at] for at in steps))]


def _said(row):
    return " ".join(words_of(row)).replace("\n", "/")


def _text(text):
    return textwrap.wrap(text, 112, initial_indent="  ", subsequent_indent="  ")


def _two(cells):
    return [f"{it:.2f}" for it in cells]


def _three(cells):
    return [f"{it:.3f}" for it in cells]


def _row(name, cells, width=10):
    return f"{name!s:<28}" + "".join(f"{cell!s:>{width}}" for cell in cells)
