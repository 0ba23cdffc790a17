"""shared/ensemble.py: models trained side by side are the models that `fit` trains alone."""

import math

import pytest
import torch
from torch import nn

from shared.ensemble import batches, fit_many
from shared.rotary import RotaryAttention, no_positions
from shared.tiny_lm import TinyLM
from shared.training import fit, next_token_loss

SIZES = (11, 8, 12, 2, 3)  # vocabulary, context, width, layers, heads: no two that are stacked together are equal


def draw(generator):
    """A small batch in which a token says most of the next."""
    x = torch.randint(11, (5, 9), generator=generator)
    x[:, 1::2] = (x[:, 0:-1:2] + 1) % 11
    return x[:, :-1], x[:, 1:]


def new(seed, **slots):
    """A small model."""
    torch.manual_seed(seed)
    return TinyLM(*SIZES, **slots)


ROTARY = {"attention": RotaryAttention, "positions": no_positions, "norm": nn.RMSNorm}


@pytest.mark.parametrize(("slots", "warmups"), [({}, [1, 4, 7]), (ROTARY, None)])
def test_each_is_trained_as_if_alone(slots, warmups):
    """Another seed and rate for each, warm-ups too or the default; compared after every step, and at the end."""
    seeds, lrs = [0, 1, 2], [3e-3, 1e-2, 1e-3]
    models = [new(seed, **slots) for seed in seeds]
    together = fit_many(models, batches(draw, seeds), 20, lrs, warmups=warmups, label=None)
    assert together.shape == (3, 20)
    for i, seed in enumerate(seeds):
        alone, generator = new(seed, **slots), torch.Generator().manual_seed(seed)
        warmup = warmups[i] if warmups else None
        history = fit(alone, lambda g=generator: draw(g), 20, lrs[i], warmup=warmup, label=None)
        # Adam divides by the root of a mean of squares: where a slope is all rounding, its step is too
        torch.testing.assert_close(together[i], torch.tensor(history.loss), atol=2e-3, rtol=0)
        for name, weight in alone.named_parameters():
            gap = (models[i].get_parameter(name) - weight).abs().mean()
            moved = (new(seed, **slots).get_parameter(name) - weight).abs().mean()
            assert gap < 0.02 * moved + 1e-6, name


def test_targets_that_do_not_count():
    """As in `fit`: the mean is over the others."""
    x, y = torch.zeros(2, 4).long(), torch.tensor([[1, -100, -100, 2], [3, -100, 4, -100]])
    losses = fit_many([new(0)], lambda: (x[None], y[None]), 1, [1e-2], label=None)
    torch.testing.assert_close(losses[0, 0], next_token_loss(new(0), x, y).detach())


def test_what_differs_may_be_a_buffer():
    class Scaled(nn.Module):
        """Logits that depend on a buffer."""

        def __init__(self, scale):
            super().__init__()
            self.table = nn.Embedding(11, 11)
            self.register_buffer("scale", torch.tensor(scale))
            self.factor = nn.Parameter(torch.tensor(1.0))  # a weight without an axis

        def forward(self, tokens):
            return self.table(tokens) * self.scale * self.factor

    torch.manual_seed(0)
    models = [Scaled(0.0), Scaled(2.0)]
    losses = fit_many(models, batches(draw, [0, 0]), 3, [1e-2] * 2, label=None)
    torch.testing.assert_close(losses[0], torch.full((3,), math.log(11)))
    assert losses[1, 0] != losses[0, 0]


def test_what_a_model_remembers_is_its_own():
    class Counting(nn.Module):
        """A buffer that each step changes."""

        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(11, 11)
            self.register_buffer("seen", torch.zeros(11))

        def forward(self, tokens):
            with torch.no_grad():
                self.seen += self.table(tokens).mean((0, 1))
            return self.table(tokens)

    torch.manual_seed(0)
    models = [Counting(), Counting()]
    fit_many(models, batches(draw, [0, 1]), 3, [1e-2] * 2, label=None)
    assert models[0].seen.any() and models[1].seen.any() and not torch.equal(models[0].seen, models[1].seen)


def test_one_that_diverges_disturbs_no_other():
    models = [new(0), new(1)]
    models[1].norm.weight.data.fill_(math.inf)
    losses = fit_many(models, batches(draw, [0, 1]), 5, [1e-3] * 2, label=None)
    alone = fit_many([new(0)], batches(draw, [0]), 5, [1e-3], label=None)
    torch.testing.assert_close(losses[0], alone[0], atol=1e-5, rtol=0)
    assert losses[1].isnan().all()


def test_a_gradient_is_clipped_for_each_model_alone():
    """Two equal models, one fed a batch whose gradient is far larger: the other's step does not shrink."""
    models = [new(0), new(0)]
    models[1].embedding.weight.data *= 300
    losses = fit_many(models, batches(draw, [0, 0]), 4, [1e-2] * 2, label=None)
    alone = fit_many([new(0)], batches(draw, [0]), 4, [1e-2], label=None)
    torch.testing.assert_close(losses[0], alone[0], atol=1e-4, rtol=0)


def test_tied_weights_stay_tied():
    class Tied(nn.Module):
        """An embedding read backwards as the head."""

        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(11, 6)
            self.head = nn.Linear(6, 11, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, tokens):
            return self.head(self.embedding(tokens))

    models = [Tied(), Tied()]
    before = models[0].embedding.weight.clone()
    fit_many(models, batches(draw, [0, 1]), 3, [1e-2] * 2, label=None)
    assert models[0].head.weight is models[0].embedding.weight
    assert (models[0].embedding.weight != before).any()


@pytest.mark.parametrize(
    ("lrs", "warmups", "message"), [([1e-3], None, "2 models, 1 rates"), ([1e-3] * 2, [1], "1 warm-ups")]
)
def test_numbers_that_do_not_fit(lrs, warmups, message):
    with pytest.raises(ValueError, match=message):
        fit_many([new(0), new(1)], batches(draw, [0, 1]), 2, lrs, warmups=warmups, label=None)


def test_nothing_to_train():
    with pytest.raises(ValueError, match="0 models"):
        fit_many([], batches(draw, []), 2, [], label=None)
