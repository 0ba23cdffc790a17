"""shared/training.py: schedule and steps by hand, what a run leaves behind however it ends, evaluation, progress."""

import itertools
import math
import re
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from shared import training
from shared.tiny_lm import TinyLM
from shared.training import (
    Evaluation,
    History,
    adamw,
    evaluate,
    fit,
    initialise_by_fan_in,
    next_token_loss,
    progress,
    schedule,
    seeds,
)

V = 5


class Bigram(nn.Module):
    """Logits of the next token from a table: the smallest language model."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(V, V)
        self.bias = nn.Parameter(torch.zeros(V))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.table(tokens) + self.bias


class Point(nn.Module):
    """A matrix and a vector that a loss can pull at."""

    def __init__(self, value: float = 1.0):
        super().__init__()
        self.matrix = nn.Parameter(torch.full((2, 3), value))
        self.vector = nn.Parameter(torch.full((3,), value))


def bigram(seed: int = 0) -> Bigram:
    torch.manual_seed(seed)
    return Bigram()


def cycle() -> tuple[torch.Tensor, torch.Tensor]:
    """A text that a bigram model can learn: each token is followed by the next one, round and round."""
    x = torch.randint(V, (8, 1)) + torch.arange(6)
    return x % V, (x + 1) % V


def nothing() -> tuple:
    return ()


def pull(model: Point) -> torch.Tensor:
    """A loss with the gradient 1 at every parameter."""
    return model.matrix.sum() + model.vector.sum()


def visible(text: str) -> list[str]:
    """The lines a terminal shows: after a carriage return the line is written over from its start."""
    lines = []
    for line in text.split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part) :]
        lines.append(shown.rstrip())
    return lines


def set_clock(monkeypatch, seconds_a_look: float) -> None:
    ticks = itertools.count(0, seconds_a_look)
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: next(ticks)))


@pytest.mark.parametrize(("shift", "expected"), [(None, [0, 1, 2]), ("100", [100, 101, 102]), ("-1", [-1, 0, 1])])
def test_seeds_are_shifted_by_the_environment(monkeypatch, shift, expected):
    monkeypatch.delenv("HARDWAY_SEED", raising=False)
    if shift is not None:
        monkeypatch.setenv("HARDWAY_SEED", shift)
    assert seeds(3) == expected
    assert seeds(0) == []


@pytest.mark.parametrize("shift", ["", "many", "1.5"])
def test_bad_seed_shift_is_named(monkeypatch, shift):
    monkeypatch.setenv("HARDWAY_SEED", shift)
    with pytest.raises(ValueError, match=f"HARDWAY_SEED is {shift!r}: expected a whole number"):
        seeds(1)


def test_loss_is_the_mean_log_probability_of_what_followed():
    """Against log-probabilities picked one by one; float32 sums of six numbers agree to 1e-6."""
    model, (x, y) = bigram(), cycle()
    log_p = model(x).log_softmax(-1)
    picked = [log_p[i, t, y[i, t]] for i in range(8) for t in range(6)]
    torch.testing.assert_close(next_token_loss(model, x, y), -torch.stack(picked).mean(), rtol=1e-6, atol=1e-6)


def test_schedule_by_hand():
    """Warm-up over 4 of 12 steps in quarters; then half a cosine over 8: 1 at its start, 0.55 half-way."""
    assert [schedule(step, 12, 4) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert schedule(8, 12, 4) == pytest.approx(0.55, abs=1e-15)
    assert schedule(6, 12, 4) == pytest.approx(0.55 + 0.45 * math.sqrt(0.5), abs=1e-15)  # cos 45 degrees
    assert schedule(10, 12, 4) == pytest.approx(0.55 - 0.45 * math.sqrt(0.5), abs=1e-15)
    assert schedule(12, 12, 4) == pytest.approx(0.1, abs=1e-15)
    assert schedule(0, 5, 0) == 1.0
    assert schedule(3, 3, 3) == 1.0


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(0, 400))
def test_schedule_rises_then_falls_and_stays_within_its_ends(steps, warmup):
    """Any length, warm-up longer than the run too: never zero, never above the peak, never below a tenth after it."""
    shares = [schedule(step, steps, warmup) for step in range(steps)]
    rise, fall = shares[:warmup], shares[warmup:]
    assert rise == sorted(rise)
    assert fall == sorted(fall, reverse=True)
    assert all(0 < share <= 1 for share in rise)
    assert all(0.1 <= share <= 1 for share in fall)


@pytest.mark.parametrize(("steps", "warmup", "rise"), [(30, None, 3), (5, None, 1), (30, 7, 7), (30, 0, 0)])
def test_learning_rate_follows_the_schedule(steps, warmup, rise):
    """The history has the rates by hand: a tenth of the steps to the peak by default, at least one."""
    history = fit(bigram(), cycle, steps, lr=0.5, warmup=warmup, label=None)
    expected = [0.5 * (step + 1) / rise for step in range(rise)]
    expected += [0.5 * (0.1 + 0.9 * math.cos(math.pi / 2 * i / (steps - rise)) ** 2) for i in range(steps - rise)]
    assert history.lr == pytest.approx(expected, rel=1e-12)


def test_three_steps_equal_torch_adamw_driven_by_hand():
    """float64, weight decay, clipping and schedule spelled out: the same weights to a few roundings."""
    batches = [cycle() for _ in range(3)]
    ours, theirs = bigram().double(), bigram().double()
    waiting = iter(batches)
    history = fit(ours, lambda: next(waiting), 3, lr=0.1, warmup=2, weight_decay=0.3, clip=0.05, label=None)

    groups = [{"params": [theirs.table.weight], "weight_decay": 0.3}, {"params": [theirs.bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.1, betas=(0.9, 0.95), eps=1e-8, foreach=False, fused=False)
    for (x, y), share, loss, norm in zip(batches, [0.5, 1, 1], history.loss, history.gradient_norm, strict=True):
        optimizer.zero_grad()
        value = F.cross_entropy(theirs(x).reshape(-1, V), y.reshape(-1))
        value.backward()
        gradients = [theirs.table.weight.grad, theirs.bias.grad]
        length = math.sqrt(sum((gradient**2).sum().item() for gradient in gradients))
        assert (loss, norm) == pytest.approx((value.item(), length), rel=1e-12)
        assert length > 0.05  # so that clipping is at work
        for gradient in gradients:
            gradient *= 0.05 / (length + 1e-6)
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * share
        optimizer.step()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-10, atol=1e-12)


def test_weight_decay_is_on_matrices_only():
    """Without a gradient, a step of rate 0.5 and decay 0.2 leaves 0.9 of a matrix and all of a vector."""
    model = Point()
    fit(model, nothing, 1, lr=0.5, weight_decay=0.2, loss=lambda m: 0 * pull(m), label=None)
    assert model.matrix.flatten().tolist() == pytest.approx([0.9] * 6, rel=1e-6)
    assert model.vector.tolist() == [1.0] * 3


def test_optimiser_alone_has_the_rate_asked_for():
    """For lessons that write their own loop: rate, betas and decay of each group."""
    groups = adamw(Point(), 0.25, 0.125).param_groups
    assert [(g["lr"], g["betas"], g["weight_decay"]) for g in groups] == (
        [(0.25, (0.9, 0.95), 0.125), (0.25, (0.9, 0.95), 0.0)]
    )


def test_default_weight_decay_is_a_tenth():
    model = Point()
    fit(model, nothing, 1, lr=0.5, loss=lambda m: 0 * pull(m), label=None)
    assert model.matrix.flatten().tolist() == pytest.approx([0.95] * 6, rel=1e-6)


def test_frozen_parameters_stay_as_they_are():
    """A parameter that asks for no gradient is in no group of the optimiser, so it does not decay either."""
    model = Point()
    model.matrix.requires_grad_(False)
    fit(model, nothing, 3, lr=0.5, loss=lambda m: m.vector.sum(), label=None)
    assert torch.equal(model.matrix, torch.ones(2, 3))
    assert model.vector.max() < 1
    assert [len(group["params"]) for group in adamw(model, 0.1, 0.1).param_groups] == [1]


@pytest.mark.parametrize(("options", "left"), [({}, 1.0), ({"clip": 0.5}, 0.5), ({"clip": 100.0}, 30.0)])
def test_clipping_shortens_only_what_is_too_long(options, left):
    """Nine gradients of 10 have length 30; the history keeps that, the weights get what was let through."""
    model = Point()
    history = fit(model, nothing, 1, lr=0.1, loss=lambda m: 10 * pull(m), label=None, **options)
    assert history.gradient_norm == pytest.approx([30.0], rel=1e-6)
    after = torch.cat([model.matrix.grad.flatten(), model.vector.grad])
    assert after.tolist() == pytest.approx([left / 3] * 9, rel=1e-5)  # torch adds 1e-6 to the length


def test_gradients_do_not_pile_up():
    """A constant gradient has the same length at each step."""
    history = fit(Point(), nothing, 4, lr=1e-3, loss=lambda m: pull(m), label=None)
    assert history.gradient_norm == pytest.approx([3.0] * 4, rel=1e-6)


def test_fit_learns_what_can_be_learnt():
    """From above an even guess to nearly nothing, in place, and the model is left in train mode."""
    torch.manual_seed(0)
    model = bigram().eval()
    history = fit(model, cycle, 200, lr=0.3, weight_decay=0.0, label=None)
    assert history.loss[0] > math.log(V)
    assert history.loss[-1] < 0.05
    assert torch.equal(model(torch.arange(V)[None]).argmax(-1), (torch.arange(V)[None] + 1) % V)
    assert model.training
    assert history.stopped == ""


def test_loss_is_kept_from_before_the_step():
    model, data = bigram(), cycle()
    before = next_token_loss(model, *data).item()
    history = fit(model, lambda: data, 1, lr=0.1, label=None)
    assert history.loss == [before]
    assert next_token_loss(model, *data).item() < before


def test_same_seed_same_run():
    """Twice the same seed: the same history and weights, bit for bit; another seed, another history."""
    runs = []
    for seed in (0, 0, 1):
        model = bigram(seed)
        runs.append((fit(model, cycle, 20, lr=0.1, label=None), model.state_dict()))
    assert runs[0][0] == runs[1][0] != runs[2][0]
    assert all(torch.equal(runs[0][1][name], runs[1][1][name]) for name in runs[0][1])


@pytest.mark.parametrize(
    ("steps", "options", "looks"),
    [(25, {}, [0, 10, 20, 24]), (21, {}, [0, 10, 20]), (7, {"watch_every": 3}, [0, 3, 6]), (1, {}, [0])],
)
def test_watch_looks_at_the_right_steps(steps, options, looks):
    """At the first, every tenth or as asked, and the last, once each, after the step's update."""
    model = Point()

    def watch():
        return {"vector": model.vector[0].item()}

    history = fit(model, nothing, steps, lr=0.1, loss=pull, watch=watch, label=None, **options)
    assert [look["step"] for look in history.watched] == looks
    assert all(set(look) == {"step", "vector"} for look in history.watched)
    assert history.watched[0]["vector"] < 1
    assert history.watched[-1]["vector"] == model.vector[0].item()


def test_each_step_is_logged_to_the_run():
    """A row a step with loss, rate and gradient; the watched numbers in the rows of their steps."""
    rows = []
    run = SimpleNamespace(log=lambda **row: rows.append(row))
    history = fit(bigram(), cycle, 12, lr=0.1, run=run, watch=lambda: {"seen": 7.0}, label=None)
    assert [row["loss"] for row in rows] == history.loss
    assert [row["lr"] for row in rows] == history.lr
    assert [row["gradient_norm"] for row in rows] == history.gradient_norm
    assert [row.get("seen") for row in rows] == [7.0, *[None] * 9, 7.0, 7.0]


def test_history_has_a_value_for_each_step():
    """Plain floats, as many as steps; histories do not share their lists."""
    history = fit(bigram(), cycle, 9, lr=0.1, label=None)
    for values in (history.loss, history.lr, history.gradient_norm):
        assert len(values) == 9
        assert {type(value) for value in values} == {float}
    assert history.watched == []
    assert History().loss is not History().loss


def after(calls: int, thrown: BaseException):
    """A source of batches that raises at one call too many."""
    count = itertools.count(1)

    def batch():
        if next(count) > calls:
            raise thrown
        return cycle()

    return batch


def test_interrupt_returns_what_is_there():
    """The stop button after four of ten steps: four values of each, the weights of four steps, and words for it."""
    model = bigram()
    history = fit(model, after(4, KeyboardInterrupt()), 10, lr=0.1, watch=lambda: {"a": 1}, label=None)
    assert history.stopped == "interrupted after 4 of 10 steps"
    assert len(history.loss) == len(history.lr) == len(history.gradient_norm) == 4
    assert history.watched == [{"step": 0, "a": 1}]
    assert not torch.equal(model.table.weight, bigram().table.weight)


def test_other_errors_reach_the_caller():
    with pytest.raises(KeyError, match="mine"):
        fit(bigram(), after(2, KeyError("mine")), 10, lr=0.1, label=None)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (lambda m: m.vector.sum() * math.nan, "loss nan, gradient nan"),
        (lambda m: m.vector.sum() * math.inf, r"loss -?inf, gradient (inf|nan)"),
        (lambda m: (m.vector - m.vector.detach()).sqrt().sum(), "loss 0.0, gradient inf"),
        (lambda m: (m.vector * 0 + math.nan).detach().sum() + m.vector.sum() * 0, r"loss nan, gradient 0.0"),
    ],
)
def test_divergence_stops_before_the_weights_are_spoilt(bad, said):
    """A loss or a gradient that is not finite at step 3: the run ends there and says so, the weights stay."""
    model, calls, rows = Point(), itertools.count(), []
    kept = []

    def loss(m):
        if next(calls) < 3:
            return pull(m)
        kept.append([p.detach().clone() for p in m.parameters()])
        return bad(m)

    run = SimpleNamespace(log=lambda **row: rows.append(row))
    history = fit(model, nothing, 10, lr=0.1, loss=loss, run=run, label=None)
    assert re.fullmatch(f"diverged at step 3: {said}", history.stopped)
    assert len(history.loss) == len(history.lr) == len(history.gradient_norm) == 4
    assert len(kept) == 1
    for parameter, before in zip(model.parameters(), kept[0], strict=True):
        assert torch.equal(parameter, before)
        assert parameter.isfinite().all()
    assert len(rows) == 3


@pytest.mark.parametrize(("steps", "lr"), [(0, 0.1), (-2, 0.1), (5, 0.0), (5, -1.0), (5, math.nan), (5, math.inf)])
def test_steps_and_rate_that_cannot_work_are_named(steps, lr):
    with pytest.raises(ValueError, match=f"steps {steps}, .*lr {lr}: expected numbers above 0"):
        fit(bigram(), cycle, steps, lr)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 64])
@pytest.mark.parametrize("mode", [True, False])
def test_evaluation_is_a_mean_over_windows_with_its_standard_error(batch_size, mode):
    """Against loops over seven windows, whatever the batch: float32 losses, so to 1e-6. The mode comes back."""
    model = bigram().train(mode)
    x, y = torch.randint(V, (2, 7, 6), generator=torch.Generator().manual_seed(0))
    means = []
    for row_x, row_y in zip(x, y, strict=True):
        log_p = model(row_x[None])[0].log_softmax(-1)
        means.append(-sum(log_p[t, row_y[t]].item() for t in range(6)) / 6)
    mean = sum(means) / 7
    error = math.sqrt(sum((value - mean) ** 2 for value in means) / 6) / math.sqrt(7)
    result = evaluate(model, x, y, floor=1.25, batch_size=batch_size)
    assert (result.nats, result.error) == pytest.approx((mean, error), rel=1e-6)
    assert result.floor == 1.25
    assert result.above_floor == result.nats - 1.25
    assert model.training is mode


def test_evaluation_switches_dropout_off_and_keeps_no_gradient():
    """A model whose output is noise in train mode gives the loss of eval mode, and needs no backward pass."""
    model = nn.Sequential(nn.Embedding(V, V), nn.Dropout(0.5))
    x, y = cycle()
    seen = []
    model.register_forward_hook(lambda module, args, out: seen.append((module.training, out.requires_grad)))
    result = evaluate(model, x, y)
    assert seen == [(False, False)]
    assert result.nats == pytest.approx(F.cross_entropy(model[0](x).flatten(0, 1), y.flatten()).item(), rel=1e-6)
    assert model.training
    assert model[1].training


def test_floor_that_is_not_known_is_told():
    assert Evaluation(2.0, 0.1, 1.5).above_floor == 0.5
    assert Evaluation(2.0, 0.1, 0.0).above_floor == 2.0
    with pytest.raises(ValueError, match="no floor is known for this text: pass floor="):
        _ = Evaluation(2.0, 0.1).above_floor


@pytest.mark.parametrize("seconds_a_look", [0, 0.2, 1, 1e6])
@pytest.mark.parametrize("items", [range(12), [], [None], "abc"])
def test_last_line_of_progress_does_not_depend_on_the_clock(monkeypatch, capsys, seconds_a_look, items):
    """Fast or slow, what stays on the screen is the same whole line; every item comes through, in order."""
    set_clock(monkeypatch, seconds_a_look)
    assert list(progress(items, "steps")) == list(items)
    assert visible(capsys.readouterr().out) == [f"steps {len(items)}/{len(items)}", ""]


def test_progress_says_how_many_are_done_and_what_is_left(monkeypatch, capsys):
    """A clock of 1 s a look says k + 1 s when k of 4 are done: (k + 1) / k for each of 4 - k, so 6, 3 and 1.3 s."""
    set_clock(monkeypatch, 1)
    shown = [visible(capsys.readouterr().out)[-1] for _ in progress(range(4), "steps")]
    assert shown == ["", "steps 1/4, 6 s left", "steps 2/4, 3 s left", "steps 3/4, 1 s left"]


def test_progress_is_not_chatty(monkeypatch, capsys):
    """Steps of 0.2 s: a new line every third, since half a second must have gone by."""
    set_clock(monkeypatch, 0.2)
    list(progress(range(12), "steps"))
    assert [part.split(",")[0] for part in capsys.readouterr().out.split("\r")[1:-1]] == (
        ["steps 2/12", "steps 5/12", "steps 8/12", "steps 11/12"]
    )


def test_no_label_prints_nothing(monkeypatch, capsys):
    set_clock(monkeypatch, 1)
    assert list(progress(iter("abc"), None)) == ["a", "b", "c"]
    fit(bigram(), cycle, 3, lr=0.1, label=None)
    assert capsys.readouterr() == ("", "")


def test_progress_takes_a_generator(monkeypatch, capsys):
    """It is counted first, so that the total is known."""
    set_clock(monkeypatch, 0)
    assert list(progress((i * i for i in range(4)), "squares")) == [0, 1, 4, 9]
    assert visible(capsys.readouterr().out) == ["squares 4/4", ""]


def test_fit_shows_its_progress(capsys):
    """Under the name training, or the one given."""
    fit(bigram(), cycle, 2, lr=0.1)
    fit(bigram(), cycle, 3, lr=0.1, label="arm 2")
    assert visible(capsys.readouterr().out) == ["training 2/2", "arm 2 3/3", ""]


def test_a_loop_that_is_left_early_closes_its_line(capsys):
    """How far it came stays, and what is printed next begins a line of its own."""
    for i in progress(range(10), "work"):
        if i == 3:
            break
    assert capsys.readouterr().out.split("\r")[-1].rstrip(" \n") == "work 3/10"


def test_a_run_that_diverged_says_so(capsys):
    """Also to somebody who does not look at `stopped`."""
    model = torch.nn.Linear(1, 1)
    history = fit(model, lambda: (), 3, 1e-3, loss=lambda model: model.weight.sum() * math.nan)
    assert history.stopped in capsys.readouterr().out


def test_a_single_window_is_refused():
    """It has no standard error."""
    tokens = torch.zeros(1, 3, dtype=torch.long)
    with pytest.raises(ValueError, match="at least 2"):
        evaluate(torch.nn.Embedding(2, 2), tokens, tokens)


def test_each_row_of_the_log_has_its_step_and_keeps_its_loss():
    """A `watch` cannot overwrite what fit itself logs."""
    rows = []
    run = type("Run", (), {"log": lambda self, **row: rows.append(row)})()
    model = torch.nn.Linear(1, 1)
    watch = lambda: {"loss": -1.0, "mine": 2.0}  # noqa: E731
    history = fit(model, lambda: (), 3, 1e-3, loss=lambda m: m.weight.sum() ** 2, watch=watch, run=run, label=None)
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert [row["loss"] for row in rows] == history.loss
    assert rows[0]["mine"] == 2.0


def test_a_scaled_rate_is_a_shorter_step_with_the_same_decay():
    """At a tenth of the rate the first step of AdamW is a tenth as long, and decays as much as before."""
    moved = {}
    for scale in (1.0, 0.1):
        for gradient in (0.0, 1.0):
            model = torch.nn.Linear(1, 1, bias=False).double()
            model.weight.data.fill_(2.0)
            loss = lambda m, gradient=gradient: m.weight.sum() * gradient  # noqa: E731
            fit(
                model,
                lambda: (),
                1,
                1e-2,
                loss=loss,
                weight_decay=0.5,
                clip=1e9,
                lr_scale={"weight": scale},
                label=None,
            )
            moved[scale, gradient] = 2.0 - model.weight.item()
    # float64; without a gradient only the decay lr * 0.5 * 2 is left; Adam's first step is lr * sign(gradient)
    assert moved[1.0, 0.0] == pytest.approx(0.01, abs=1e-12)
    assert moved[0.1, 0.0] == pytest.approx(0.01, abs=1e-12)
    assert moved[1.0, 1.0] - 0.01 == pytest.approx(0.01, rel=1e-6)
    assert moved[0.1, 1.0] - 0.01 == pytest.approx(0.001, rel=1e-6)


def test_a_scaled_rate_for_nobody_is_refused():
    """A misspelt name would otherwise change nothing, in silence."""
    with pytest.raises(ValueError, match=r"wieght.*weight"):
        fit(torch.nn.Linear(1, 1), lambda: (), 1, 1e-2, lr_scale={"wieght": 0.1}, label=None)


def test_a_sweep_puts_each_loss_in_its_place(monkeypatch):
    """Row: seed; column: rate; one table for each arm, also where a run diverged."""
    monkeypatch.setenv("HARDWAY_SEED", "5")

    def train(arm, rate, seed):
        return math.nan if arm == "b" else 100 * rate + seed

    tables = training.sweep(train, ["a", "b"], [1.0, 2.0, 3.0], n_seeds=2)
    assert tables["a"].tolist() == [[105, 205, 305], [106, 206, 306]]
    assert tables["b"].isnan().all() and tables["b"].shape == (2, 3)


@pytest.mark.parametrize("small", [True, False])
def test_initialise_by_fan_in(small):
    """Each matrix has the deviation that is promised, to 5 standard errors of 1 / sqrt(2 n); the rest is as it was."""
    torch.manual_seed(0)
    model = TinyLM(50, 8, 32, 2, 4)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    initialise_by_fan_in(model, small)
    for name, weight in model.named_parameters():
        if weight.ndim != 2 or name.startswith("positions"):
            assert torch.equal(weight, before[name]), name
            continue
        std = 0.2 if name.startswith("embedding") else weight.shape[1] ** -0.5
        if small and name.endswith("proj.weight"):
            std /= 2  # sqrt(2 * 2 layers)
        assert weight.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * weight.numel())), name
