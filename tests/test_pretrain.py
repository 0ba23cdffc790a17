"""shared/pretrain.py: the schedule by hand, a small plan trained, interrupted and resumed, and the record it leaves."""

import hashlib
import math
from dataclasses import asdict, dataclass, replace
from itertools import count

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from shared import pretrain
from shared.checkpoint import load_story_lm, record, vocabulary_sha256
from shared.muon import Muon
from shared.pretrain import MOST_STEPS, Plan, Training, train, write
from shared.world.rows import held_out_rows, true_distributions
from shared.world.rows import rows as world_rows
from shared.world.words import VOCABULARY
from shared.world.writing import BASE, HELD_OUT

SMALL = Plan(d_model=8, n_layers=1, n_heads=2, context=12, batch=3, steps=8, warmup=2)


@pytest.fixture
def quick(monkeypatch):
    """Measuring that takes no time and tells the model's state: the sum of its weights."""
    looks = []

    def measure(model, n_rows, n_stories):
        looks.append((n_rows, n_stories))
        total = sum(p.double().sum().item() for p in model.parameters())
        return {"loss": 7.0, "floor": 1.0, "excess": 6.0, "consistent": 0.5, "total": total}

    monkeypatch.setattr(pretrain, "measure", measure)
    return looks


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


def interrupt(monkeypatch, after: int) -> None:
    """Ctrl-C comes when a training has taken so many steps."""
    advance = Training.advance

    def some(training):
        if training.step == after:
            raise KeyboardInterrupt
        return advance(training)

    monkeypatch.setattr(Training, "advance", some)


def test_share_by_hand():
    """Up over 4 of 20 steps in quarters, 1 until step 12, down to 0 over the last 8 (0.4 of 20) in eighths."""
    plan = Plan(steps=20, warmup=4, decay=0.4)
    assert [plan.share(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert {plan.share(step) for step in range(4, 13)} == {1.0}
    assert [plan.share(step) for step in range(13, 21)] == [0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0]


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(1, 50), st.floats(0.1, 1.0))
def test_share_rises_stays_and_falls(steps, warmup, decay):
    """Any plan: above 0 and at most 1 at every step, up, then down, and one part of the fall away from 0 in the end."""
    plan = Plan(steps=steps, warmup=warmup, decay=decay)
    shares = [plan.share(step) for step in range(steps)]
    top = shares.index(max(shares))
    assert shares[: top + 1] == sorted(shares[: top + 1])
    assert shares[top:] == sorted(shares[top:], reverse=True)
    assert min(shares) > 0
    assert max(shares) <= 1
    assert shares[-1] <= 1 / (steps * decay)


def test_default_plan_has_its_three_parts():
    """It warms up, is at its peak a good while, and ends near 0."""
    plan = Plan()
    shares = [plan.share(step) for step in range(plan.steps)]
    assert shares[0] == 1 / plan.warmup
    assert shares.count(1.0) == plan.steps * (1 - plan.decay) - plan.warmup + 2  # both corners are
    assert shares[-1] < 1e-3


@pytest.mark.parametrize(("steps", "decay", "few"), [(20, 0.4, 12), (8, 0.5, 4), (5, 0.5, 3), (3, 1.0, 0)])
def test_batch_is_twice_as_large_in_the_fall(steps, decay, few):
    """So many steps have `batch` rows, and the rest, at which the rate has its peak for the last time or less, two."""
    plan = Plan(steps=steps, warmup=1, decay=decay, batch=3)
    assert [plan.rows(step) for step in range(steps)] == [3] * few + [6] * (steps - few)
    assert all((plan.share(step) < 1) <= (plan.rows(step) == 6) for step in range(steps))


def test_model_of_a_plan_is_the_one_trained():
    assert SMALL.model == {"context": 12, "d_model": 8, "n_layers": 1, "n_heads": 2}
    model = Training(SMALL, "cpu").model
    assert (model.context, len(model.blocks), model.embedding.weight.shape[1]) == (12, 1, 8)
    assert model.blocks[0].attention.n_heads == 2


def test_muon_gets_the_blocks_matrices_and_adam_the_rest():
    """Each parameter has one optimizer: the four matrices of a block, and embedding, norms and biases."""
    training = Training(replace(SMALL, n_layers=2), "cpu")
    (muon, muon_rate), (adam, adam_rate) = training.optimizers
    names = {id(p): name for name, p in training.model.named_parameters()}
    by_muon, by_adam = ([names[id(p)] for g in o.param_groups for p in g["params"]] for o in (muon, adam))
    kinds = ("attention.qkv", "attention.proj", "feed_forward.up", "feed_forward.proj")
    assert sorted(by_muon) == sorted(f"blocks.{i}.{kind}.weight" for i in range(2) for kind in kinds)
    assert sorted(by_muon + by_adam) == sorted(names.values())
    assert (type(muon), type(adam)) == (Muon, torch.optim.AdamW)
    assert (muon_rate, adam_rate) == (SMALL.rate, SMALL.adam_rate)


def test_each_step_has_its_share_of_both_rates():
    training = Training(SMALL, "cpu")
    for step in range(SMALL.steps):
        training.advance()
        rates = [group["lr"] for optimizer, _ in training.optimizers for group in optimizer.param_groups]
        assert rates == [SMALL.rate * SMALL.share(step), SMALL.adam_rate * SMALL.share(step)]


def test_first_step_by_hand():
    """Loss and gradient of the rows of the step's seed, clipped to length 1: AdamW's part of it and Muon's."""
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
    assert training.step == 1


def test_small_plan_learns():
    """From an even guess among all words to clearly less in thirty steps: common words alone are worth a nat."""
    training = Training(replace(SMALL, d_model=16, batch=8, steps=30, adam_rate=0.02), "cpu")
    losses = [training.advance() for _ in range(30)]
    assert losses[0] == pytest.approx(math.log(len(VOCABULARY)), abs=0.1)
    assert sum(losses[-5:]) / 5 < losses[0] - 1


def test_training_follows_its_seed(quick, tmp_path):
    """The same plan twice, bit for bit; another seed, another start and other text."""
    first, again = (train(SMALL, tmp_path / name, "cpu") for name in ("a.safetensors", "b.safetensors"))
    assert_same(first, again)
    other = Training(replace(SMALL, seed=1), "cpu")
    assert not torch.equal(other.model.embedding.weight, Training(SMALL, "cpu").model.embedding.weight)


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


@pytest.mark.parametrize(("after", "look_every"), [(1, 3), (3, 3), (5, 2), (7, 4), (7, 1)])
def test_interrupted_and_resumed_is_uninterrupted(quick, tmp_path, monkeypatch, after, look_every):
    """Bit for bit, weights, optimizers and curve, wherever it was stopped between two saves."""
    whole = train(SMALL, tmp_path / "whole.safetensors", "cpu", look_every)
    weights = tmp_path / "model.safetensors"
    with monkeypatch.context() as patch:
        interrupt(patch, after)
        with pytest.raises(KeyboardInterrupt):
            train(SMALL, weights, "cpu", look_every)
    assert weights.with_suffix(".partial").exists() == (after >= look_every)
    torch.manual_seed(99)  # another process has another random state
    resumed = train(SMALL, weights, "cpu", look_every)
    assert_same(whole, resumed)
    assert whole.curve == resumed.curve
    assert [look["step"] for look in whole.curve] == sorted({*range(look_every, 9, look_every), 8})


def test_a_look_that_is_interrupted_costs_no_step(quick, tmp_path, monkeypatch):
    """What was trained is kept before it is measured, which takes long: the same weights in the end, bit for bit."""
    whole = train(SMALL, tmp_path / "whole.safetensors", "cpu", 3)

    def stop(model, n_rows, n_stories):
        raise KeyboardInterrupt

    weights = tmp_path / "model.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "measure", stop)
        with pytest.raises(KeyboardInterrupt):
            train(SMALL, weights, "cpu", 3)
    assert torch.load(weights.with_suffix(".partial"), weights_only=True)["step"] == 3
    assert_same(whole, train(SMALL, weights, "cpu", 3))


def test_resuming_goes_on_where_it_was_and_says_so(quick, tmp_path, monkeypatch, capsys):
    """Steps that were saved are not taken again, and their seconds count."""
    weights = tmp_path / "model.safetensors"
    with monkeypatch.context() as patch:
        interrupt(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            train(SMALL, weights, "cpu", 2)
    assert "going on" not in capsys.readouterr().out
    kept = torch.load(weights.with_suffix(".partial"), weights_only=True)
    assert kept["step"] == 4
    torch.save(kept | {"seconds": 1000.0}, weights.with_suffix(".partial"))
    taken, advance = [], Training.advance
    monkeypatch.setattr(Training, "advance", lambda training: (taken.append(training.step), advance(training))[1])
    training = train(SMALL, weights, "cpu", 2)
    assert taken == [4, 5, 6, 7]
    assert training.seconds > 1000
    assert "going on from step 4\n" in capsys.readouterr().out
    train(SMALL, weights, "cpu", 2)
    assert taken == [4, 5, 6, 7]  # a plan that was finished takes no step more


def test_curve_has_the_mean_loss_since_the_last_look(quick, tmp_path):
    """Against the same steps taken one by one; looks are short, 32 rows and 32 stories."""
    alone = Training(SMALL, "cpu")
    losses = [alone.advance() for _ in range(8)]
    curve = train(SMALL, tmp_path / "model.safetensors", "cpu", 3).curve
    means = [sum(losses[:3]) / 3, sum(losses[3:6]) / 3, sum(losses[6:]) / 2]
    assert [look["train"] for look in curve] == pytest.approx(means, rel=1e-12)
    assert [look["excess"] for look in curve] == [6.0] * 3
    assert quick == [(32, 32)] * 3


@pytest.mark.parametrize(
    "changes", [{"d_model": 16}, {"context": 13}, {"batch": 4}, {"rate": 0.02}, {"decay": 0.4}, {"seed": 1}]
)
def test_resuming_another_plan_is_refused(tmp_path, changes):
    """Whatever differs; the message has the file and the plan that is kept there."""
    path = tmp_path / "model.partial"
    Training(SMALL, "cpu").save(path)
    with pytest.raises(ValueError) as error:
        Training(replace(SMALL, **changes), "cpu").resume(path)
    assert str(error.value) == f"{path} is of another plan, {asdict(SMALL)}: delete it to begin anew"


def test_train_refuses_another_plan_before_it_works(quick, tmp_path):
    """And leaves what was kept."""
    path = tmp_path / "model.partial"
    Training(SMALL, "cpu").save(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="is of another plan"):
        train(replace(SMALL, batch=4), tmp_path / "model.safetensors", "cpu")
    assert path.read_bytes() == before
    assert quick == []


@pytest.mark.parametrize("steps", [5, 12])
def test_another_number_of_steps_is_accepted(quick, tmp_path, steps):
    """Fewer or more: it goes on to the new end, at the new plan's rates."""
    training = Training(SMALL, "cpu")
    for _ in range(3):
        training.advance()
    training.save(tmp_path / "model.partial")
    plan = replace(SMALL, steps=steps)
    training.plan = plan
    while training.step < steps:
        training.advance()
    resumed = train(plan, tmp_path / "model.safetensors", "cpu")
    assert resumed.step == steps
    assert_same(resumed, training)


def test_saving_is_whole_or_not_at_all(tmp_path, monkeypatch):
    """A save that dies half-way leaves the one before; nothing else lies about after one that did not."""
    path = tmp_path / "model.partial"
    training = Training(SMALL, "cpu")
    training.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.partial"]
    before = path.read_bytes()

    def die(kept, where):
        where.write_bytes(b"half")
        raise OSError("no space")

    training.advance()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", die)
        with pytest.raises(OSError, match="no space"):
            training.save(path)
    assert path.read_bytes() == before
    training.save(path)
    resumed = Training(SMALL, "cpu")
    resumed.resume(path)
    assert resumed.step == 1


def test_written_record_is_right(tmp_path, monkeypatch):
    """Hash, sizes and tokens counted again; loss, floor and excess from the written weights, on the same rows.

    Measured on 10 rows instead of 256; logits are float32 and small: 1e-5 is a hundred roundings.
    """
    measure, asked = pretrain.measure, []
    monkeypatch.setattr(pretrain, "measure", lambda model, *n: (asked.append(n), measure(model, 10, 2))[1])
    training = Training(SMALL, "cpu")
    for _ in range(8):
        training.advance()
    training.seconds, training.curve = 12.6, [{"step": 8, "train": 6.5}]
    weights = tmp_path / "model.safetensors"
    write(training, weights)
    found = record(weights)

    assert asked == [(256, 200)]
    assert found["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert found["vocabulary"] == vocabulary_sha256()
    assert (found["model"], found["plan"], found["world"]) == (SMALL.model, asdict(SMALL), asdict(BASE))
    assert found["parameters"] == sum(tensor.numel() for tensor in load_file(weights).values())
    assert found["tokens"] == (4 * 3 + 4 * 6) * 12
    assert (found["seconds"], found["curve"]) == (13, [{"step": 8, "train": 6.5}])
    assert (found["threads"], found["versions"]["torch"]) == (torch.get_num_threads(), torch.__version__)
    assert found["hardware"]

    model = load_story_lm(weights)
    for name, tensor in training.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    x, y, _ = held_out_rows(10, 12, HELD_OUT, BASE)
    with torch.no_grad():
        log_q = model(x).double().log_softmax(-1)
    true = torch.stack([true_distributions(row, BASE) for row in x])
    assert found["loss"] == pytest.approx(-log_q.gather(2, y[..., None]).mean().item(), abs=1e-5)
    assert found["floor"] == pytest.approx(-true.gather(2, y[..., None]).log().mean().item(), abs=1e-10)
    excess = torch.where(true > 0, true * (true.clamp(min=1e-300).log() - log_q), 0.0).sum(-1).mean().item()
    assert found["excess"] == pytest.approx(excess, abs=1e-5)
    assert (found["rows"], found["stories"]) == (10, 2)


def test_main_writes_both_files_and_tidies_up(quick, tmp_path, monkeypatch, capsys):
    """From the command line, with a small plan in the big one's place: weights that load, a record, no partial."""

    @dataclass(frozen=True)
    class Little(Plan):
        d_model: int = 8
        n_layers: int = 1
        n_heads: int = 2
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
    assert f"wrote {weights}: 6.0000 nats above the floor, 50.0% consistent" in capsys.readouterr().out
