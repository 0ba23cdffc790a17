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


@pytest.mark.parametrize(("shift", "expected"), [(None, [0, 1, 2]), ("-1", [-1, 0, 1])])
def test_seeds_are_shifted_by_the_environment(monkeypatch, shift, expected):
    monkeypatch.delenv("HARDWAY_SEED", raising=False)
    if shift is not None:
        monkeypatch.setenv("HARDWAY_SEED", shift)
    assert seeds(3) == expected
    monkeypatch.setenv("HARDWAY_SEED", "1.5")
    with pytest.raises(ValueError, match=r"HARDWAY_SEED is '1\.5': expected a whole number"):
        seeds(1)


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
    """The rates by hand: up in a straight line, a tenth of the steps by default and at least one; down as half a
    cosine, written as the square of another, to a tenth."""
    history = fit(bigram(), cycle, steps, lr=0.5, warmup=warmup, label=None)
    expected = [0.5 * (step + 1) / rise for step in range(rise)]
    expected += [0.5 * (0.1 + 0.9 * math.cos(math.pi / 2 * i / (steps - rise)) ** 2) for i in range(steps - rise)]
    assert history.lr == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "decay", "clip", "shares"),
    [({}, 0.1, 1.0, [1, 1, 0.55]), ({"warmup": 2, "weight_decay": 0.3, "clip": 0.05}, 0.3, 0.05, [0.5, 1, 1])],
)
def test_three_steps_equal_torch_adamw_driven_by_hand(options, decay, clip, shares):
    """float64; decay on matrices only, clipping and schedule spelled out, the defaults too: the same weights to a few
    roundings. The model is left in train mode."""
    ours, theirs = bigram().double().eval(), bigram().double()
    for model in (ours, theirs):
        model.bias.data[0] = 50  # sure of one token, so that gradients are long enough to be clipped
    batches = [cycle() for _ in range(3)]
    waiting = iter(batches)
    history = fit(ours, lambda: next(waiting), 3, lr=0.1, label=None, **options)

    groups = [{"params": [theirs.table.weight], "weight_decay": decay}, {"params": [theirs.bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.1, betas=(0.9, 0.95), eps=1e-8, foreach=False, fused=False)
    lengths = []
    for (x, y), share, loss, norm in zip(batches, shares, history.loss, history.gradient_norm, strict=True):
        optimizer.zero_grad()
        value = F.cross_entropy(theirs(x).reshape(-1, V), y.reshape(-1))
        value.backward()
        gradients = [theirs.table.weight.grad, theirs.bias.grad]
        lengths.append(math.sqrt(sum((gradient**2).sum().item() for gradient in gradients)))
        assert (loss, norm) == pytest.approx((value.item(), lengths[-1]), rel=1e-12)
        for gradient in gradients:
            gradient *= min(1, clip / (lengths[-1] + 1e-6))
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * share
        optimizer.step()
    assert max(lengths) > clip
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-10, atol=1e-12)
    assert ours.training and history.stopped == ""


def test_frozen_parameters_stay_as_they_are():
    """A parameter that asks for no gradient is in no group of the optimiser, so it does not decay either."""
    model = Point()
    model.matrix.requires_grad_(False)
    fit(model, nothing, 3, lr=0.5, loss=lambda m: m.vector.sum(), label=None)
    assert torch.equal(model.matrix, torch.ones(2, 3))
    assert model.vector.max() < 1


@pytest.mark.parametrize(
    ("steps", "options", "looks"),
    [(25, {}, [0, 10, 20, 24]), (7, {"watch_every": 3}, [0, 3, 6]), (1, {}, [0])],
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
    """A row a step with loss, rate and gradient; the watched numbers in the rows of their steps. A `watch` cannot
    overwrite what fit itself logs."""
    rows = []
    run = SimpleNamespace(log=lambda **row: rows.append(row))
    history = fit(bigram(), cycle, 12, lr=0.1, run=run, watch=lambda: {"seen": 7.0, "loss": -1.0}, label=None)
    assert [row["step"] for row in rows] == list(range(12))
    for name in ("loss", "lr", "gradient_norm"):
        assert [row[name] for row in rows] == getattr(history, name)
    assert [row.get("seen") for row in rows] == [7.0, *[None] * 9, 7.0, 7.0]


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
def test_divergence_stops_before_the_weights_are_spoilt(capsys, bad, said):
    """A loss or a gradient that is not finite at step 3: the run ends there and says so, in print too; the weights
    stay."""
    model, calls, rows = Point(), itertools.count(), []
    kept = []

    def loss(m):
        if next(calls) < 3:
            return pull(m)
        kept.append([p.detach().clone() for p in m.parameters()])
        return bad(m)

    run = SimpleNamespace(log=lambda **row: rows.append(row))
    history = fit(model, nothing, 10, lr=0.1, loss=loss, run=run)
    assert re.fullmatch(f"diverged at step 3: {said}", history.stopped)
    assert history.stopped in capsys.readouterr().out
    assert len(history.loss) == len(history.lr) == len(history.gradient_norm) == 4
    assert len(kept) == 1
    for parameter, before in zip(model.parameters(), kept[0], strict=True):
        assert torch.equal(parameter, before)
        assert parameter.isfinite().all()
    assert len(rows) == 3


ONE = torch.zeros(1, 3, dtype=torch.long)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        *(
            (lambda steps=steps, lr=lr: fit(bigram(), cycle, steps, lr), f"steps {steps}, .*lr {lr}: expected numbers")
            for steps, lr in ((0, 0.1), (-2, 0.1), (5, 0.0), (5, -1.0), (5, math.nan), (5, math.inf))
        ),
        (lambda: fit(bigram(), cycle, 1, 1e-2, lr_scale={"wieght": 0.1}), r"no parameter called .*wieght.*bias"),
        (lambda: evaluate(bigram(), ONE, ONE), "1 windows have a target.*at least 2"),
        (lambda: evaluate(bigram(), torch.cat([ONE, ONE]), torch.full((2, 3), -100)), "0 windows have a target"),
        (lambda: Evaluation(2.0, 0.1).above_floor, "no floor is known for this text: pass floor="),
    ],
)
def test_what_cannot_work_is_refused_by_name(call, said):
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize(("batch_size", "mode"), [(1, True), (3, False), (64, True)])
def test_evaluation_is_a_mean_over_windows_with_its_standard_error(batch_size, mode):
    """Against loops over seven windows, whatever the batch, without dropout: float32 losses, so to 1e-6. The mode comes
    back."""
    table, grads = bigram(), []
    model = nn.Sequential(table, nn.Dropout(0.5)).train(mode)
    model.register_forward_hook(lambda module, args, out: grads.append(out.requires_grad))
    x, y = torch.randint(V, (2, 7, 6), generator=torch.Generator().manual_seed(0))
    means = []
    for row_x, row_y in zip(x, y, strict=True):
        log_p = table(row_x[None])[0].log_softmax(-1)
        means.append(-sum(log_p[t, row_y[t]].item() for t in range(6)) / 6)
    mean = sum(means) / 7
    error = math.sqrt(sum((value - mean) ** 2 for value in means) / 6) / math.sqrt(7)
    result = evaluate(model, x, y, floor=0.0, batch_size=batch_size)
    assert (result.nats, result.error) == pytest.approx((mean, error), rel=1e-6)
    assert result.above_floor == result.nats  # a floor of 0 is one
    assert not any(grads) and {module.training for module in model.modules()} == {mode}


def test_targets_that_do_not_count():
    """Uneven masks: the mean over all targets that count, as PyTorch's over the whole batch, however it is split; the
    error against a jackknife over windows, which agrees to the order of 1 / windows."""
    model, generator = bigram(), torch.Generator().manual_seed(0)
    x, y = torch.randint(V, (2, 200, 6), generator=generator)
    y[torch.rand(y.shape, generator=generator) < 0.5] = -100
    y[3] = -100  # a window that says nothing
    result = evaluate(model, x, y, batch_size=7)
    assert result.nats == pytest.approx(next_token_loss(model, x, y).item(), rel=1e-6)  # float32 sums
    rest = [
        evaluate(model, *(torch.cat([part[:i], part[i + 1 :]]) for part in (x, y))).nats for i in range(200) if i != 3
    ]
    without = torch.tensor(rest, dtype=torch.float64)
    jackknife = (198 / 199 * (without - without.mean()).square().sum()).sqrt().item()
    assert result.error == pytest.approx(jackknife, rel=0.02)
    alone = evaluate(model, x[:3], y[:3])
    assert alone == evaluate(model, x[:4], y[:4])


@pytest.mark.parametrize("seconds_a_look", [0, 1e6])
@pytest.mark.parametrize("items", [range(12), []])
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


def test_fit_shows_its_progress(capsys):
    """Under the name training, or the one given, or not at all."""
    fit(bigram(), cycle, 2, lr=0.1)
    fit(bigram(), cycle, 3, lr=0.1, label="arm 2")
    fit(bigram(), cycle, 3, lr=0.1, label=None)
    assert visible(capsys.readouterr().out) == ["training 2/2", "arm 2 3/3", ""]


def test_a_loop_that_is_left_early_closes_its_line(capsys):
    """How far it came stays, and what is printed next begins a line of its own."""
    for i in progress(range(10), "work"):
        if i == 3:
            break
    assert capsys.readouterr().out.split("\r")[-1].rstrip(" \n") == "work 3/10"


def test_a_scaled_rate_is_a_shorter_step_with_the_same_decay():
    """At a tenth of the rate the first step of AdamW is a tenth as long, and decays as much as before: by lr * 0.5 on
    numbers of 2. float64; Adam's first step is lr * sign(gradient)."""
    for scale in (1.0, 0.1):
        for gradient in (0.0, 1.0):
            model = Point(2.0).double()
            how = {"loss": lambda m, g=gradient: g * pull(m), "weight_decay": 0.5, "lr_scale": {"matrix": scale}}
            fit(model, nothing, 1, 1e-2, label=None, **how)
            moved = 2.0 - model.matrix
            torch.testing.assert_close(moved, torch.full_like(moved, 0.01 + 0.01 * scale * gradient), rtol=1e-6, atol=0)


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
