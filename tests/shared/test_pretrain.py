"""pretrain.py: the schedule by hand, a small plan trained, interrupted and resumed, and the record it leaves."""

import hashlib
from dataclasses import asdict, dataclass, replace
from itertools import count

import pytest
import torch
from safetensors.torch import load_file

from shared.story_model import load_story_lm, pretrain, record
from shared.story_model.muon import Muon
from shared.story_model.pretrain import MOST_STEPS, Plan, Training, train, write
from shared.world.rows import rows as world_rows
from shared.world.writing import BASE, HELD_OUT

SMALL = Plan(d_model=8, n_layers=1, n_heads=2, context=12, batch=3, steps=8, warmup=2)


@pytest.fixture
def quick(monkeypatch):
    """Measuring that takes no time and tells the model's state: the sum of its weights."""

    def measure(model, n_rows, n_stories):
        total = sum(p.double().sum().item() for p in model.parameters())
        return {"excess": 6.0, "consistent": 0.5, "total": total}

    monkeypatch.setattr(pretrain, "measure", measure)


def parts(training: Training) -> dict[str, torch.Tensor]:
    """All tensors of a training: weights and what the optimizers remember."""
    found = dict(training.model.state_dict())
    for which, (optimizer, _) in enumerate(training.optimizers):
        for i, state in optimizer.state_dict()["state"].items():
            found |= {f"{which}.{i}.{name}": value for name, value in state.items()}
    return found


def assert_same(one: Training, other: Training) -> None:
    """Bit for bit."""
    a, b = parts(one), parts(other)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert one.step == other.step


def watch_steps(monkeypatch, stop_at: int | None = None) -> list[int]:
    """The steps that trainings take from here on; Ctrl-C comes before the one to stop at."""
    taken, advance = [], Training.advance

    def noted(training):
        if training.step == stop_at:
            raise KeyboardInterrupt
        taken.append(training.step)
        return advance(training)

    monkeypatch.setattr(Training, "advance", noted)
    return taken


def test_share_by_hand():
    """Up over 4 of 20 steps in quarters, 1 until step 12, down to 0 over the last 8 (0.4 of 20) in eighths."""
    plan = Plan(steps=20, warmup=4, decay=0.4)
    assert [plan.share(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert {plan.share(step) for step in range(4, 13)} == {1.0}
    assert [plan.share(step) for step in range(13, 21)] == [0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0]


@pytest.mark.parametrize(("steps", "decay", "few"), [(20, 0.4, 12), (5, 0.5, 3), (3, 1.0, 0)])
def test_batch_is_twice_as_large_in_the_fall(steps, decay, few):
    """So many steps have `batch` rows, and the rest, at which the rate has its peak for the last time or less, two."""
    plan = Plan(steps=steps, warmup=1, decay=decay, batch=3)
    assert [plan.rows(step) for step in range(steps)] == [3] * few + [6] * (steps - few)


def test_first_step_by_hand():
    """Loss and gradient of the rows of the step's seed, clipped to length 1: AdamW's part of it and Muon's, which gets
    the blocks' matrices. Every later step has its share of both rates."""
    training = Training(replace(SMALL, seed=3), "cpu")
    torch.manual_seed(3)
    model = pretrain.new_story_lm(**SMALL.model)
    stream = world_rows(12, 3 * MOST_STEPS, BASE)
    both = torch.stack([next(stream) for _ in range(3)])
    loss = -model(both[:, :-1]).log_softmax(-1).gather(-1, both[:, 1:, None]).mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and name != "embedding.weight"]
    rest = [p for name, p in model.named_parameters() if p.ndim == 1 or name == "embedding.weight"]
    Muon(matrices, lr=SMALL.rate / 2).step()
    torch.optim.AdamW(rest, lr=SMALL.adam_rate / 2, betas=(0.9, 0.95), weight_decay=0.0).step()
    assert training.advance() == pytest.approx(loss.item(), rel=1e-6)  # float32
    for (name, one), other in zip(training.model.named_parameters(), model.parameters(), strict=True):
        # AdamW's first step has the gradient's sign: where that is 0 but for roundings, they decide up to a whole step
        far = (one - other).abs() > 1e-6
        assert far.float().mean() < 0.2, name
    for step in range(1, SMALL.steps):
        training.advance()
        rates = [group["lr"] for optimizer, _ in training.optimizers for group in optimizer.param_groups]
        assert rates == [SMALL.rate * SMALL.share(step), SMALL.adam_rate * SMALL.share(step)]


def test_text_of_every_step_is_its_own_and_none_is_held_out(monkeypatch):
    """Seeds of steps: one after the other, a million for each plan's seed, all below those kept for evaluation."""
    drawn, used = [], []

    def rows(context, seed, config):
        assert (context, config) == (12, BASE)
        drawn.append(seed)
        return (used.append(seed) or torch.full((13,), i) for i in count())

    monkeypatch.setattr(pretrain, "rows", rows)
    for seed in (0, 1):
        training = Training(replace(SMALL, seed=seed), "cpu")
        for _ in range(5):
            training.advance()
    assert drawn == [*range(5), *range(MOST_STEPS, MOST_STEPS + 5)]
    assert [used.count(seed) for seed in drawn] == [3, 3, 3, 3, 6] * 2  # the plan's rows: 4 of 8 steps are the fall
    assert Plan().steps <= MOST_STEPS
    training = Training(replace(SMALL, seed=2000, steps=MOST_STEPS), "cpu")
    training.step = MOST_STEPS - 1
    training.advance()
    assert drawn[-1] == 2001 * MOST_STEPS - 1 < HELD_OUT


@pytest.mark.parametrize(("after", "look_every"), [(1, 3), (7, 4)])
def test_interrupted_and_resumed_is_uninterrupted(quick, tmp_path, monkeypatch, after, look_every):
    """Bit for bit, weights, optimizers and curve, wherever it was stopped; what was saved is not trained again."""
    whole = train(SMALL, tmp_path / "whole.safetensors", "cpu", look_every)
    weights = tmp_path / "model.safetensors"
    with monkeypatch.context() as patch:
        watch_steps(patch, stop_at=after)
        with pytest.raises(KeyboardInterrupt):
            train(SMALL, weights, "cpu", look_every)
    torch.manual_seed(99)  # another process has another random state
    taken = watch_steps(monkeypatch)
    resumed = train(SMALL, weights, "cpu", look_every)
    assert_same(whole, resumed)
    assert whole.curve == resumed.curve
    assert [look["step"] for look in whole.curve] == sorted({*range(look_every, 9, look_every), 8})
    train(SMALL, weights, "cpu", look_every)  # is finished
    assert taken == [*range(after // look_every * look_every, 8)]


def test_a_look_that_is_interrupted_costs_no_step(tmp_path, monkeypatch):
    """What was trained is kept before it is measured, which takes long."""

    def stop(model, n_rows, n_stories):
        raise KeyboardInterrupt

    weights = tmp_path / "model.safetensors"
    monkeypatch.setattr(pretrain, "measure", stop)
    with pytest.raises(KeyboardInterrupt):
        train(SMALL, weights, "cpu", 3)
    assert torch.load(weights.with_suffix(".partial"), weights_only=True)["step"] == 3


def test_curve_has_the_mean_loss_since_the_last_look(quick, tmp_path):
    """Against the same steps taken one by one."""
    alone = Training(SMALL, "cpu")
    losses = [alone.advance() for _ in range(8)]
    curve = train(SMALL, tmp_path / "model.safetensors", "cpu", 3).curve
    means = [sum(losses[:3]) / 3, sum(losses[3:6]) / 3, sum(losses[6:]) / 2]
    assert [look["train"] for look in curve] == pytest.approx(means, rel=1e-12)


@pytest.mark.parametrize("steps", [5, 12])
def test_another_number_of_steps_is_accepted_and_no_other_change(quick, tmp_path, steps):
    """Fewer or more: on to the new end, at the new plan's rates; the seconds count. Another plan's file stays."""
    training, plan, path = Training(SMALL, "cpu"), replace(SMALL, steps=steps), tmp_path / "model.partial"
    for _ in range(3):
        training.advance()
    training.seconds = 1000.0
    training.save(path)
    before = path.read_bytes()
    for other in (replace(SMALL, batch=4), replace(SMALL, seed=1), replace(SMALL, steps=2)):
        with pytest.raises(ValueError, match=r"is of another plan, .*: delete it to begin anew"):
            train(other, path.with_suffix(".safetensors"), "cpu")
    assert path.read_bytes() == before
    training.plan = plan
    while training.step < steps:
        training.advance()
    resumed = train(plan, path.with_suffix(".safetensors"), "cpu")
    assert resumed.step == steps and resumed.seconds > 1000
    assert_same(resumed, training)


def test_saving_is_whole_or_not_at_all(tmp_path, monkeypatch):
    """A save that dies half-way leaves the one before."""
    path = tmp_path / "model.partial"
    training = Training(SMALL, "cpu")
    training.save(path)
    before = path.read_bytes()

    def die(kept, where):
        where.write_bytes(b"half")
        raise OSError("no space")

    monkeypatch.setattr(torch, "save", die)
    with pytest.raises(OSError, match="no space"):
        training.save(path)
    assert path.read_bytes() == before


def test_written_record_is_right(tmp_path, monkeypatch):
    """Hash, sizes and tokens counted again; what was measured is what the written weights give, to a few roundings.

    Measured on 10 rows instead of 256.
    """
    measure, asked = pretrain.measure, []
    monkeypatch.setattr(pretrain, "measure", lambda model, *n: (asked.append(n), measure(model, 10, 2))[1])
    training = Training(SMALL, "cpu")
    for _ in range(8):
        training.advance()
    training.seconds, training.curve = 12.6, [{"step": 8, "train": 6.5}]
    weights = tmp_path / "model.safetensors"
    write(training, weights)
    found, model = record(weights), load_story_lm(weights)

    assert asked == [(256, 2000)]
    assert found["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (found["model"], found["plan"], found["world"]) == (SMALL.model, asdict(SMALL), asdict(BASE))
    assert found["parameters"] == sum(tensor.numel() for tensor in load_file(weights).values())
    assert found["tokens"] == (4 * 3 + 4 * 6) * 12
    assert (found["seconds"], found["curve"]) == (13, [{"step": 8, "train": 6.5}])
    for name, tensor in training.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    again = measure(model, 10, 2)
    assert {name: found[name] for name in again} == pytest.approx(again, abs=1e-5)


def test_main_writes_both_files_and_tidies_up(quick, tmp_path, monkeypatch):
    """From the command line, with a small plan in the big one's place: weights that load, a record, no partial."""

    @dataclass(frozen=True)
    class Little(Plan):
        d_model: int = 8
        n_layers: int = 1
        context: int = 12
        batch: int = 2

    weights = tmp_path / "model.safetensors"
    monkeypatch.setattr(pretrain, "Plan", Little)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["pretrain", "--steps", "3", "--out", str(weights)])
    pretrain.main()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    assert load_story_lm(weights).context == 12
    assert record(weights)["plan"] == asdict(Little(steps=3))
