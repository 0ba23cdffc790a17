"""What is seen of lesson 16's patients, made by running them: laws, forecasts, counts, schedules. No answers.

Each function takes a patient's helper and caller and returns Evidence. What a table calls "in truth" or "by hand" comes
from `scaling_source`, not from the patient.
"""

import itertools

import numpy as np
import scaling
import scaling_caller as healthy
import scaling_source as source
from matplotlib.figure import Figure

from shared.clinic import Evidence
from shared.colors import CONTROL, FLOOR, WORKING

LARGER = [(448, 0, 12800), (640, 0, 51200), (1280, 0, 204800)]  # width, seed, steps


def law(helper, caller):
    """The law that a study finds, how it fits the runs, and what it foretells of larger ones."""
    rows = caller.sweep()
    found = caller.law_of(rows)
    lines = [*_constants(found), "", "the runs' mean loss less the law's, in per cent"]
    lines.append(_row("width, and N by the program", [f"{steps} st." for steps in caller.STEPS]))
    loss, n, d = caller.columns(rows)
    off = 100 * (loss / found(n, d) - 1)
    for width in caller.WIDTHS:
        cells = [_of(rows, off, width=width, steps=steps) for steps in caller.STEPS]
        lines.append(_row(f"{width:>5}  {caller.size(width):>12,}", [f"{it:+.2f}" for it in cells]))
    return Evidence("\n".join([*lines, "", *_forecasts(caller, found)]), _curves(caller, rows, found))


def searched(helper, caller):
    """Laws that were found, and how small the objective is there and could be."""
    rows = caller.sweep()
    loss, n, d = caller.columns(rows)
    some = {"all runs": slice(None), "every second": slice(0, None, 2), "every fifth": slice(0, None, 5)}
    lines = ["laws of the runs, and of parts of them: the sum of Huber's loss over delta squared, at the law that the"]
    lines.append("program finds, and where a longer search from there ends")
    lines.append(_row("", ["floor", "exp. N", "exp. D", "there", "at the end", "floor", "exp. N", "exp. D"]))
    for name, part in some.items():
        here = helper.fit(loss[part], n[part], d[part])
        end = scaling.fit(loss[part], n[part], d[part], near=scaling.Law(here.floor, here.scales, here.exponents))
        at = [_objective(it, loss[part], n[part], d[part]) for it in (here, end)]
        cells = [[f"{it.floor:.4f}", *(f"{exponent:.4f}" for exponent in it.exponents)] for it in (here, end)]
        lines.append(_row(name, [*cells[0], *(f"{it:.3f}" for it in at), *cells[1]]))
    return Evidence("\n".join([*lines, "", law(helper, caller).text]))


def compute(helper, caller):
    """The frontier, and three forms of curves along it."""
    rows = caller.sweep()
    budgets, losses, which = caller.frontier(rows)
    lines = ["the least mean loss at budgets, the width that has it, and what is possible in truth, with any width"]
    lines.append(_row("FLOPs", ["loss", "width", "in truth"]))
    for i in range(0, len(budgets), 3):
        width = caller.WIDTHS[which[i]] if which[i] >= 0 else "none"
        lines.append(_row(f"{budgets[i]:.2e}", [f"{losses[i]:.3f}", width, f"{_possible(budgets[i]):.3f}"]))
    lines += ["", "curves through them, and what they say of larger budgets"]
    far = [budgets[-1] * 10**i for i in range(1, 5)]
    lines.append(_row("", ["fit, %", *(f"{it:.1e}" for it in far)]))
    forms = {
        "a line in the logarithm": helper.line(budgets, losses),
        "a power law": helper.fit(losses, budgets, floor=0.0),
        "a power law and a floor": helper.fit(losses, budgets),
        "the program's": caller.law_of_compute(rows),
    }
    for name, form in forms.items():
        off = 100 * np.sqrt(np.mean((losses / form(budgets) - 1) ** 2))
        lines.append(_row(name, [f"{off:.2f}", *(f"{float(form(it)):.3f}" for it in far)]))
    lines.append(_row("possible in truth", ["", *(f"{_possible(it):.3f}" for it in far)]))
    return Evidence("\n".join(lines), _frontier(budgets, losses))


def decade(helper, caller):
    """Three forms of curves through runs of one decade."""
    flops = np.geomspace(1e18, 1e19, 9)
    given = scaling.Law(1.82, (2040.0,), (0.178,))
    loss = given(flops) * np.exp(0.002 * np.random.default_rng(0).normal(size=9))
    forms = {
        "a line in the logarithm": helper.line(flops, loss),
        "a power law": helper.fit(loss, flops, floor=0.0),
        "a power law and a floor": helper.fit(loss, flops),
    }
    lines = ["nine runs from 1e18 to 1e19 FLOPs, off by 0.2 % by chance: three curves, and what they say far out"]
    far = (1e19, 1e20, 1e22, 1e24, 1e26)
    lines.append(_row("", ["fit, %", *(f"{it:.0e}" for it in far)]))
    for name, form in forms.items():
        off = 100 * np.sqrt(np.mean((loss / form(flops) - 1) ** 2))
        lines.append(_row(name, [f"{off:.2f}", *(f"{float(form(it)):.2f}" for it in far)]))
    return Evidence("\n".join([*lines, _row("in truth", ["", *(f"{given(it):.2f}" for it in far)])]))


def counted(helper, caller):
    """Parameters and operations of the ladder, by the program and by hand."""
    lines = ["models of the ladder"]
    lines.append(_row("width", ["N", "by hand", "FLOPs/token", "by hand", "/ (6 N)"], 13))
    for width in (*caller.WIDTHS, caller.LARGE[0]):
        each = helper.train_flops(caller.shape(width), caller.CONTEXT, 1)
        hand = source.operations(width, caller.CONTEXT)
        cells = [f"{caller.size(width):,}", f"{source.parameters(width):,}", f"{each:.4g}", f"{hand:.4g}"]
        lines.append(_row(width, [*cells, f"{each / (6 * caller.size(width)):.2f}"], 13))
    lines += ["", "FLOPs of a token of a longer text, by the program and by hand"]
    contexts = (96, 384, 1536, 6144)
    lines.append(_row("width", [f"{it} tokens" for it in contexts], 22))
    for width in (64, 192, 640):
        both = [(helper.train_flops(caller.shape(width), it, 1), source.operations(width, it)) for it in contexts]
        lines.append(_row(width, [f"{one:.4g}  {other:.4g}" for one, other in both], 22))
    lines += ["", "a run of 400 steps, by the program: what it costs, and what a machine has done meanwhile"]
    lines.append(_row("width", ["FLOPs", "done"], 13))
    for width in caller.WIDTHS:
        done = source.operations(width, 96) * 400 * 20 * 96
        lines.append(_row(width, [f"{caller.flops(width, 400):.4g}", f"{done:.4g}"], 13))
    return Evidence("\n".join(lines))


def budgets(helper, caller):
    """What the program makes of budgets."""
    rows = caller.sweep()
    found = caller.law_of(rows)
    lines = ["the best size for a budget: by runs that cost as much, by the law that was found, and in truth"]
    lines.append(_row("FLOPs", ["by runs", "loss", "by the law", "loss", "in truth", "loss"], 12))
    for budget in (1e12, 1e13, 1e14, 4e14, 1e15, 4e15):
        try:
            n, loss = caller.valley(budget)
            cells = [f"{n:.3g}", f"{loss:.3f}"]
        except ValueError as error:
            cells = ["refused", str(error)[:9]]
        n, d = helper.optimum(found, budget)
        cells += [f"{n:.3g}", f"{source.true_loss(n, d):.3f}", f"{_best(budget)[0]:.3g}", f"{_possible(budget):.3f}"]
        lines.append(_row(f"{budget:.0e}", cells, 12))
    lines += [
        "",
        "by runs: costs are as the program counts them. By the law: FLOPs are 6 N D, and the loss beside a size is the",
        "true one of that size and its tokens. In truth: with any width, all products counted",
        "",
        *_constants(found),
    ]
    return Evidence("\n".join(lines))


def trained(helper, caller):
    """Trainings of several lengths: what they reach, and their rates."""
    lines = ["trainings of a model of pairs: nats above the floor, means over the seeds"]
    lines.append(_row("steps", caller.LENGTHS))
    curve = caller.curve()
    lines.append(_row("by the program's curve", [f"{it:.4f}" for it in curve]))
    runs = {steps: caller.train(steps) for steps in caller.LENGTHS}
    lines.append(_row("seed 0 alone, at its end", [f"{above[steps]:.4f}" for steps, (above, _) in runs.items()]))
    longest = max(caller.LENGTHS)
    lines.append(_row("the longest, on its way", [f"{runs[longest][0][steps]:.4f}" for steps in caller.LENGTHS]))
    tokens = np.array(caller.LENGTHS) * float(caller.PAIRS)
    power = scaling.fit(curve, tokens, floor=0.0).exponents[0]
    lines += [f"the curve goes as tokens to the power {-power:+.2f}", "", "the learning rate, by the log"]
    lines.append(_row("steps of the training", ["first", "1/4", "1/2", "3/4", "last"]))
    for steps, (_, rates) in runs.items():
        lines.append(_row(steps, [f"{rates[i]:.3f}" for i in (0, steps // 4, steps // 2, 3 * steps // 4, -1)]))
    figure = Figure(figsize=(7.2, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for steps, (_, rates) in reversed(runs.items()):  # the shortest on top
        left.plot(range(1, steps + 1), rates, label=f"{steps} steps")
    left.set(xlabel="step", ylabel="learning rate", ylim=(0, None))
    left.legend(fontsize=7)
    right.loglog(tokens, curve, color=WORKING, marker="o")
    right.set(xlabel="tokens", ylabel="nats above the floor", ylim=(0.01, 0.2))
    right.set_xticks(tokens, [f"{it:,.0f}" for it in tokens])
    right.set_yticks(heights := [0.01, 0.02, 0.05, 0.1, 0.2], heights)
    right.minorticks_off()
    return Evidence("\n".join(lines), figure)


def resumed(helper, caller):
    """A sweep that ended early, and went on."""
    whole = caller.sweep()
    lines = ["a sweep that ended after some runs, and went on from its rows"]
    lines.append(_row("ended after", ["rows", "of them new", "1 width", "1 seed"], 13))
    for stop in (0, 37, 64, len(whole)):
        rows = caller.sweep(whole[:stop])
        cells = [len(rows), len(rows) - stop, sum(row["width"] == 64 for row in rows)]
        lines.append(_row(stop, [*cells, sum(row["seed"] == 1 for row in rows)], 13))
    rows = caller.sweep(whole[:64])
    lines += ["", "the law's exponents: of the sweep in one piece, and of that which ended after 64 runs"]
    lines.append(_row("", ["of N", "deviation", "of D", "deviation"], 13))
    for name, some in (("in one piece", whole), ("in two", rows)):
        lines.append(_row(name, _pair(caller.law_of(some).exponents, caller.spread(some)), 13))
    lines += ["", "the first rows of the sweep in two pieces", *(str(row) for row in rows[:8])]
    return Evidence("\n".join(lines))


def spreads(helper, caller):
    """How far the exponents may be off, by the program, and how far they are off in studies with other seeds."""
    rows = caller.sweep()
    lines = [
        "the law's exponents and their deviations: by the program's own samples, and from study to study, in 96 studies"
    ]
    lines.append(
        "with other seeds. One study has few widths and seeds, so that its own samples tell a deviation roughly: below,"
    )
    lines.append("the least and the most that a healthy program finds in 8 of those studies")
    lines.append(_row("", ["of N", "deviation", "of D", "deviation"], 13))
    lines.append(_row("by the program", _pair(caller.law_of(rows).exponents, caller.spread(rows)), 13))
    near = scaling.Law(source.FLOOR, source.SCALES, source.EXPONENTS)
    studies = [_study(first) for first in range(100, 388, 3)]
    others = np.array([scaling.fit(*healthy.columns(each), near=near).exponents for each in studies])
    lines.append(_row("from study to study", _pair(others.mean(axis=0), others), 13))
    own = np.array([healthy.spread(each).std(axis=0) for each in studies[:8]])  # (studies, exponents)
    for name, (of_n, of_d) in (("healthy, the least", own.min(axis=0)), ("healthy, the most", own.max(axis=0))):
        lines.append(_row(name, ["", f"{of_n:.4f}", "", f"{of_d:.4f}"], 13))
    lines += ["", "losses of three seeds"]
    lines.append(_row("width, steps", [f"seed {seed}" for seed in caller.SEEDS]))
    for width in caller.WIDTHS:
        cells = [f"{row['loss']:.4f}" for row in rows if (row["width"], row["steps"]) == (width, caller.STEPS[1])]
        lines.append(_row(f"{width}, {caller.STEPS[1]}", cells))
    return Evidence("\n".join(lines))


def _study(first):
    """The rows of a study with three other seeds."""
    jobs = itertools.product(healthy.WIDTHS, range(first, first + 3), healthy.STEPS)
    return [healthy.run(*job) for job in jobs]


def repeated(helper, caller):
    """What tokens are worth that repeat."""
    epochs = (0.5, 1, 1.1, 2, 4, 8, 16, 64)
    lines = ["what a training is worth on a text of 1,000,000 tokens that it reads again and again"]
    lines.append(_row("epochs", epochs, 9))
    cells = [helper.worth_of_repeats(it * 1e6, 1e6) / 1e6 for it in epochs]
    lines.append(_row("worth in millions, fresh", [f"{it:.3f}" for it in cells], 9))
    n = source.parameters(320)
    lines.append(_row("loss of width 320, in truth", [f"{source.true_loss(n, it * 1e6):.3f}" for it in cells], 9))
    lines.append(_row("  if all were fresh", [f"{source.true_loss(n, it * 1e6):.3f}" for it in epochs], 9))
    return Evidence("\n".join(lines))


def both_costs(helper, caller):
    """Counts, and what budgets buy."""
    return Evidence("\n\n".join([counted(helper, caller).text, budgets(helper, caller).text]))


def _objective(found, loss, n, d):
    return float(scaling.huber(np.log(found(n, d) / loss)).sum() / scaling.DELTA**2)


def _best(budget):
    """The size that loses least for a budget with all products counted, and its tokens, by trying widths."""
    widths = np.geomspace(8, 4000, 3000)
    tokens = budget / source.operations(widths, 96)
    i = source.true_loss(source.parameters(widths), tokens).argmin()
    return source.parameters(widths[i]), tokens[i]


def _possible(budget):
    return source.true_loss(*_best(budget))


def _constants(found):
    lines = [_row("the law", ["floor", "scale N", "exponent", "scale D", "exponent"])]
    lines.append(_row("by the program", _five(found)))
    lines.append(_row("in truth", _five(scaling.Law(source.FLOOR, source.SCALES, source.EXPONENTS))))
    return [*lines, "in truth N is all parameters but the embedding, and D all tokens that were read"]


def _five(found):
    (a, b), (alpha, beta) = found.scales, found.exponents
    return [f"{found.floor:.3f}", f"{a:.4g}", f"{alpha:.3f}", f"{b:.4g}", f"{beta:.3f}"]


def _pair(exponents, draws):
    deviations = draws.std(axis=0)
    return [f"{it:.4f}" for pair in zip(exponents, deviations, strict=True) for it in pair]


def _forecasts(caller, found):
    lines = ["larger runs, which no law was fitted to"]
    lines.append(_row("width, steps", ["foretold", "found", "% off"]))
    for job in LARGER:
        foretold = float(found(caller.size(job[0]), caller.tokens(job[2])))
        loss = source.measured(*job, (20, 96))
        cells = [f"{foretold:.3f}", f"{loss:.3f}", f"{100 * (foretold / loss - 1):+.1f}"]
        lines.append(_row(f"{job[0]}, {job[2]}", cells))
    return lines


def _of(rows, numbers, **which):
    chosen = [x for row, x in zip(rows, numbers, strict=True) if all(row[key] == it for key, it in which.items())]
    return float(np.mean(chosen))


def _curves(caller, rows, found):
    """Losses by tokens, a line for each width."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axis = figure.subplots()
    for i, width in enumerate(caller.WIDTHS):
        of = [row for row in rows if row["width"] == width]
        read = np.array([float(caller.tokens(row["steps"])) for row in of])
        axis.plot(read, [row["loss"] for row in of], "o", markersize=3, color=f"C{i}")
        at = np.geomspace(read.min(), read.max(), 50)
        axis.plot(at, found(np.full(50, float(caller.size(width))), at), color=f"C{i}", label=f"width {width}")
    axis.axhline(source.FLOOR, color=FLOOR, linestyle="--", linewidth=0.8, label="floor, in truth")
    axis.set(xscale="log", xlabel="tokens by the program", ylabel="nats per token")
    figure.legend(loc="outside right upper", fontsize=7)
    return figure


def _frontier(budgets, losses):
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axis = figure.subplots()
    axis.semilogx(budgets, losses, color=WORKING, marker="o", markersize=3, label="by the program")
    axis.semilogx(budgets, [_possible(it) for it in budgets], color=CONTROL, linestyle="--", label="in truth")
    axis.set(xlabel="FLOPs by the program", ylabel="nats per token")
    axis.legend(fontsize=8)
    return figure


def _row(name, cells, width=11):
    return f"{name!s:<28}" + "".join(f"{cell!s:>{width}}" for cell in cells)
