"""What is seen of lesson 11's patients, made by running them: rivers of load, losses, gates, gradients. No answers.

Each function takes a patient's helper and caller and returns Evidence. A share is that of an expert in the routes of
tokens that are no padding, as `moe_seen` counts it, not the patient.
"""

import textwrap

import torch
from matplotlib.figure import Figure
from moe_seen import SLOW, counts, crowd, file_gap, largest, layers, padded_step, seconds, shares, slow_moves
from torch.nn import functional as F

from shared.clinic import Evidence
from shared.colors import OTHERS, WORKING
from shared.story_model import load_story_lm
from shared.world.words import VOCABULARY

LOOKS = (0, 8, 16, 32, -1)  # steps of which a table tells
SIZES = (4, 8, 10, 12, 16)  # experts of layers that others wrote
CROWDS = (40, 100, 400, 1000)


def river(helper, caller):
    """Two trainings with one expert a token, with the penalty and without: loss, what the penalty says, and shares."""
    arms = {"with the penalty": {"speed": 0.0}, "without": {"balance": 0.0, "speed": 0.0}}
    return _rivers(helper, caller, {name: how | {"k": 1} for name, how in arms.items()})


def steered(helper, caller):
    """Two trainings without the penalty, with moves of the bias and without: loss and shares."""
    arms = {"with the bias": {"balance": 0.0}, "without": {"balance": 0.0, "speed": 0.0}}
    return _rivers(helper, caller, arms)


def _rivers(helper, caller, arms):
    figure, lines = _figure(2), []
    for name, how in arms.items():
        seen, told = [], []

        def watch(model, real, seen=seen, told=told):
            told.append(helper.penalty(model, 1.0, 0.0, real).item() / caller.LAYERS)
            seen.append(torch.stack([shares(layer.record, real) for layer in layers(model)]))

        model, losses = caller.train(watch=watch, **how)
        settings = {"k": caller.K, "balance": caller.BALANCE, "speed": caller.SPEED} | how
        told_of = "experts a token {k}, coefficient {balance:g}, move of the bias {speed:g}".format(**settings)
        lines += [f"{name}: {told_of}", _row("step", [range(len(losses))[at] for at in LOOKS])]
        lines.append(_row("loss of the step", [f"{losses[at]:.2f}" for at in LOOKS]))
        lines.append(_row("balance loss, mean of layers", [f"{told[at]:.2f}" for at in LOOKS]))
        for layer in range(caller.LAYERS):
            lines.append(_row(f"largest share, layer {layer}", [f"{seen[at][layer].max():.2f}" for at in LOOKS]))
        most = " ".join(str(int(it[0].argmax())) for it in seen[-6:])
        lines.append(f"layer 0, the most wanted expert in the last six steps: {most}")
        biases = torch.stack([layer.bias for layer in layers(model)])
        lines.append(f"at the end, of both layers: least bias {biases.min():.2f}, largest {biases.max():.2f}\n")
        if name == next(iter(arms)):
            for layer, axis in enumerate(figure.axes):
                _river(axis, torch.stack(seen)[:, layer], f"{name}: layer {layer}")
    return Evidence("\n".join(lines).rstrip(), figure)


def coefficients(helper, caller):
    """What the penalty adds and what gradient it gives, by its coefficient; and trainings with some of them."""
    lines = ["one batch, an untrained model; the penalty by the coefficient of the balance loss, without the z-loss"]
    tried = (0.001, 0.01, 0.1, 1.0)
    lines.append(_row("coefficient", tried))
    added, gradients = [], []
    for coefficient in tried:
        model, (ids, real) = caller.new_model(), next(caller.batches())
        model(ids[:, :-1])
        value = helper.penalty(model, coefficient, 0.0, real[:, :-1])
        value.backward()
        added.append(f"{value.item():.4f}")
        gradients.append(f"{layers(model)[0].router.weight.grad.norm():.1g}")
    lines += [_row("is added", added), _row("gradient of a router", gradients), ""]
    runs = []
    for coefficient in tried:
        found = []
        how = {"steps": 16, "balance": coefficient, "speed": 0.0}
        _, losses = caller.train(watch=lambda model, real, to=found: to.append(largest(model, real)), **how)
        runs.append((losses[-1], found[-1]))
    lines.append(_row("after 16 steps: loss", [f"{loss:.3f}" for loss, _ in runs]))
    lines.append(_row("  largest share", [f"{share:.2f}" for _, share in runs]))
    return Evidence("\n".join(lines))


def balances(helper, caller):
    """What the balance loss says of loads that are known."""
    E, n = caller.N_EXPERTS, 800
    lines = [
        f"{E} experts, {n} tokens, one expert each: the balance loss; and of two layers, which use the same experts"
    ]
    lines.append("or not, the penalty with coefficient 1, over 2")
    even = torch.arange(n) % E
    states = {
        "each has as many": even,
        "one has three eighths": torch.where(even < 3, 0, even),
        "four have a quarter each": even % (E // 2),
        "two have half each": even % 2,
        "one has all": even * 0,
    }
    lines.append(_row("", ["one layer", "two alike", "two unlike"], 12))
    for name, chosen in states.items():
        records = [_record(helper, (chosen + shift) % E, E) for shift in (0, E // 2)]
        one = float(helper.balance_loss(records[0].scores, records[0].wanted))
        pairs = [_told(helper, caller, pair) for pair in ((records[0], records[0]), records)]
        lines.append(_row(name, [f"{it:.2f}" for it in (one, *pairs)], 12))
    logits = torch.randn(n, E, generator=torch.Generator().manual_seed(0)).requires_grad_()
    scores = helper.scores_of(logits)
    value = helper.balance_loss(scores, helper.routes_of(*helper.top_k(scores, 1)))
    slope = torch.autograd.grad(value, logits)[0].norm() if value.requires_grad else 0
    lines.append(f"random logits: {value.item():.3f}, its gradient at the logits is of length {slope:.1g}")
    return Evidence("\n".join(lines))


def gates(helper, caller):
    """Gates of some tokens and their sums, with a bias and without; and what gradient comes to the router."""
    E = 5
    logits = torch.randn(4, E, generator=torch.Generator().manual_seed(0))
    scores = helper.scores_of(logits)
    lines = ["four tokens, five experts: the scores (softmax), and experts and gates by how many a token gets"]
    lines += [_row(f"scores of token {t}", [f"{it:.2f}" for it in row]) for t, row in enumerate(scores)]
    for name, bias in (("no bias", None), ("bias 0.4 for expert 2", torch.tensor([0, 0, 0.4, 0, 0]))):
        for k in (1, 2):
            found, chosen = helper.top_k(scores, k, bias=bias)
            cells = [
                " ".join(f"{e}:{g:.2f}" for e, g in zip(*row, strict=True))
                for row in zip(chosen.tolist(), found.tolist(), strict=True)
            ]
            lines.append(f"{name}, k {k}".ljust(28) + "".join(f"{it:>16}" for it in cells))
            lines.append("  their sums".ljust(28) + "".join(f"{it:>16.2f}" for it in found.sum(dim=1)))
    lines += ["", "an untrained model, the loss alone: length of the gradient of", _row("k", [1, 2, 4])]
    models = [_after_backward(caller, k) for k in (1, 2, 4)]
    for name in ("router", "experts.up", "experts.proj"):
        grown = [layers(model)[0].get_submodule(name).weight.grad.norm() for model in models]
        lines.append(_row(name, [f"{it:.1g}" for it in grown]))
    return Evidence("\n".join(lines))


def domains(helper, caller):
    """Shares by kind of document after a training with penalty and bias, and one text, word by word."""
    seen = []
    model, _ = caller.train(watch=lambda model, real: seen.append(shares(layers(model)[1].record, real)))
    ids, real = next(caller.batches(seed=1))
    model(ids[:, :-1])
    lines = ["shares of the experts of layer 1, over the last five steps and of a batch after the training"]
    lines.append(_row("expert", [*range(caller.N_EXPERTS), "largest"]))
    lines.append(_row("the last five steps", _cells(torch.stack(seen[-5:]).mean(dim=0))))
    lines.append(_row("a batch of all kinds", _cells(shares(layers(model)[1].record, real[:, :-1]))))
    each = caller.TEXTS // len(caller.DOMAINS)
    for at, name in enumerate(caller.DOMAINS):
        rows = slice(at * each, (at + 1) * each)
        model(ids[rows, :-1])
        lines.append(_row(f"  {name}", _cells(shares(layers(model)[1].record, real[rows, :-1]))))
    words = [VOCABULARY[i].strip() or "/" for i in ids[-1, :-1][real[-1, :-1]].tolist()]
    model(ids[-1:, : len(words)])
    best = layers(model)[1].record.scores.argmax(dim=-1).tolist()
    told = " ".join(f"{word}:{expert}" for word, expert in zip(words, best, strict=True))
    lines += ["", "a text, and of each word the expert with its largest score, before the bias"]
    lines += textwrap.wrap(told, 110)
    return Evidence("\n".join(lines))


def padding(helper, caller):
    """The same texts, filled up to more and more tokens: loss, and what a step makes of the bias."""
    ids, real = (part[8:12, :12] for part in next(caller.batches()))
    model = caller.new_model()
    model(ids[:, :-1])
    lines = ["four sums in a batch, filled up more and more; an untrained model, layer 0"]
    lines.append(_row("expert", range(caller.N_EXPERTS)))
    lines.append(_row("routes of real tokens", counts(layers(model)[0].record, real[:, :-1]).tolist()))
    for n in (0, 4, 20):
        told, bias, routes = padded_step(caller, ids, real, n)
        lines += [f"{n} more tokens of padding for each text: the loss of the step is {told:.4f}"]
        lines.append(_row("  routes of all tokens", routes.tolist()))
        lines.append(_row("  bias after the step", [f"{it:+.2f}" for it in bias]))
    return Evidence("\n".join(lines))


def crowds(helper, caller):
    """What is wanted, what there is room for, and what is left, by how many tokens there are."""
    lines = ["5 experts, capacity factor 1: room for routes of an expert, and the most that one has"]
    lines.append(_row("tokens", CROWDS))
    for k in (1, 2, 3):
        room, wanted, left = zip(*(crowd(helper, n, k) for n in CROWDS), strict=True)
        lines += [_row(f"k {k}: there is room for", room), _row("  most that are wanted", wanted)]
        lines.append(_row("  most that are left", left))
    return Evidence("\n".join(lines))


def copies(helper, caller):
    """The loss of the story model whose layers became mixtures of equal copies, by k and dispatch."""
    texts = caller.lines()
    plain = caller.text_losses(load_story_lm(), texts).mean()
    lines = [f"nats a word on twelve lines; the story model: {plain:.3f}; each layer made a mixture of equal copies:"]
    lines.append(_row("experts of a token", [1, 2, 3, 4]))
    for name in ("dispatch_loop", "dispatch_masked", "dispatch_grouped"):
        found = [caller.upcycled(k, dispatch=getattr(helper, name)) for k in (1, 2, 3, 4)]
        lines.append(_row(name, [f"{caller.text_losses(it, texts).mean():.3f}" for it in found]))
    return Evidence("\n".join(lines))


def beside(helper, caller):
    """The loss of each line alone, and beside others."""
    model, texts = caller.upcycled(2), caller.lines()
    lines = ["nats a word of each line, alone and side by side; the story model with mixtures of copies"]
    lines.append(_row("line", range(1, len(texts) + 1), 7))
    for n in (1, 3, 6, 12):
        found = torch.cat([caller.text_losses(model, texts[at : at + n]) for at in range(0, len(texts), n)])
        lines.append(_row(f"{n} at a time", [f"{it:.2f}" for it in found], 7))
    return Evidence("\n".join(lines))


def layouts(helper, caller):
    """How far layers that others wrote are from what they give where they come from."""
    lines = ["50 tokens: largest gap of a layer's outputs to the other program's, as a part of the largest output"]
    lines.append(_row("experts", SIZES))
    for k in (1, 2, 4):
        lines.append(_row(f"k {k}", [f"{file_gap(caller, E, k):.0e}" for E in SIZES]))
    return Evidence("\n".join(lines))


def measured(helper, caller):
    """What measuring gives, several times in a row, and what of the model is another after it."""
    model, _ = caller.train(steps=16)
    batch, layer = [part[-4:] for part in next(caller.batches(seed=5))], layers(model)[0]
    weights, before = [p.clone() for p in model.parameters()], layer.bias.clone()
    lines = ["nats a word on a held-out batch of code, measured 30 times after 16 steps of training"]
    told = [caller.measure(model, batch) for _ in range(30)]
    lines.append(_row("measurement", range(1, 31, 5)))
    lines.append(_row("", [f"{it:.4f}" for it in told[::5]]))
    same = sum(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    lines += [f"of {len(weights)} tensors of weights {same} are as they were", _row("expert", range(caller.N_EXPERTS))]
    lines.append(_row("bias of layer 0, before", [f"{it:+.2f}" for it in before]))
    lines.append(_row("  and after", [f"{it:+.2f}" for it in layer.bias]))
    return Evidence("\n".join(lines))


def choices(helper, caller):
    """First choices and all, over moves of the bias, where one expert is everybody's second choice."""
    steps = (0, 20, 50, 100, 200)
    lines = ["a layer of 8 experts, two for a token; the bias alone is moved. Expert 7 is all tokens' second choice"]
    lines.append(_row("steps", steps))
    names = ("largest share of first choices", "largest share of all", "bias of expert 7")
    for name, row in zip(names, seconds(helper, steps), strict=True):
        lines.append(_row(name, [f"{it:.2f}" for it in row], 9))
    return Evidence("\n".join(lines))


def halves(helper, caller):
    """The bias and the load over many steps at a low speed, of a layer in float32 and in bfloat16."""
    lines = ["a layer of 8 experts whose inputs have a common direction; the bias alone is moved, by 0.0005 a step"]
    lines.append(_row("steps", SLOW))
    for name, make in (("float32", lambda layer: layer), ("bfloat16", caller.in_half)):
        largest_shares, biases = slow_moves(helper, make)
        lines.append(_row(f"{name}: largest share", [f"{it:.2f}" for it in largest_shares]))
        lines.append(_row("  largest bias", [f"{it:.3f}" for it in biases]))
    return Evidence("\n".join(lines))


def foreign(helper, caller):
    """A training with moves of the bias alone, and what a bias does that another program wrote."""
    seen = []
    caller.train(balance=0.0, watch=lambda model, real: seen.append(largest(model, real)))
    lines = ["a training without a penalty, the bias moved: largest share of an expert", _row("step", LOOKS[:-1])]
    lines.append(_row("", [f"{seen[at]:.2f}" for at in LOOKS[:-1]]))
    model, ids = caller.new_model(), next(caller.batches())[0]
    lines += ["", "an untrained model: shares of layer 0, with a bias that another program wrote"]
    lines.append(_row("expert", range(caller.N_EXPERTS)))
    for bias in (0.0, 0.03, -0.03):
        layers(model)[0].bias[3] = bias
        model(ids[:, :-1])
        lines.append(_row(f"expert 3 has {bias:+.2f}", [f"{it:.2f}" for it in shares(layers(model)[0].record)]))
    return Evidence("\n".join(lines))


def _record(helper, chosen, E):
    """What a layer decided that sent each token to the expert `chosen`, (N,), with probability 0.98."""
    logits = F.one_hot(chosen, E) * 6.0
    scores = logits.softmax(dim=-1)
    wanted = helper.routes_of(scores.gather(1, chosen[:, None]), chosen[:, None])
    return helper.Record(logits, scores, wanted, wanted)


def _told(helper, caller, records):
    """The penalty of two layers with these records, over their number."""
    model = caller.new_model()
    for layer, record in zip(layers(model), records, strict=True):
        layer.record = record
    return float(helper.penalty(model, 1.0)) / len(records)


def _after_backward(caller, k):
    """An untrained model after a backward pass of the loss alone."""
    model = caller.new_model(k=k)
    caller.word_losses(model, *next(caller.batches())).mean().backward()
    return model


def _cells(row):
    return [f"{it:.2f}" for it in (*row, row.max())]


def _river(axis, flow, title):
    """Shares, (steps, E), one above the other; those that are large at the end have their expert's number."""
    shades = [WORKING, *OTHERS[:3]] * 2
    flow = flow.numpy()
    axis.stackplot(range(len(flow)), flow.T, colors=shades, alpha=0.75, edgecolor="white", linewidth=0.8)
    for expert, (share, top) in enumerate(zip(flow[-1], flow[-1].cumsum(), strict=True)):
        if share > 0.06:
            axis.annotate(expert, (len(flow) - 1, top - share / 2), (3, 0), textcoords="offset points", va="center")
    axis.set(title=title, xlabel="step", ylabel="share of an expert", ylim=(0, 1), xlim=(0, len(flow) - 1))


def _row(name, cells, width=10):
    return f"{name:<28}" + "".join(f"{cell!s:>{width}}" for cell in cells)


def _figure(n):
    figure = Figure(figsize=(4.6 * n, 3.1), layout="constrained")
    figure.subplots(1, n)
    return figure
