"""Lesson 06: norms, activations and places against PyTorch, and the sweep. (Its clinic: test_clinics.py.)"""

import math
from types import SimpleNamespace

import norm_sweep
import norms
import norms_checks
import pytest
import torch
from folded import solutions
from hypothesis import given, settings
from hypothesis import strategies as st
from norms_checks import EXERCISES
from torch import nn
from torch.nn import functional as F

from shared.clinic import examine
from shared.layers import PostNorm, PreNorm, SandwichNorm
from shared.tiny_lm import TinyLM

NORMS = {
    "layer_norm": (lambda x, gain, bias: F.layer_norm(x, gain.shape, gain, bias), 3),
    "rms_norm": (lambda x, gain: F.rms_norm(x, gain.shape, gain, eps=1e-5), 2),
    "batch_norm": (lambda x, gain, bias: F.batch_norm(x.flatten(0, -2), None, None, gain, bias, True).view(x.shape), 3),
}


def draw(seed, *shapes, scale=1.0, mean=0.0):
    """Normal float64 tensors that want gradients."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [mean + scale * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [tensor.requires_grad_() for tensor in drawn]


@pytest.mark.parametrize("name", NORMS)
@settings(max_examples=20, deadline=None)
@given(
    batch=st.integers(1, 3),
    time=st.integers(2, 4),
    width=st.integers(2, 9),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    mean=st.sampled_from([0.0, -7.0]),
    seed=st.integers(0, 99),
)
def test_norms_and_their_gradients_are_pytorchs(name, batch, time, width, scale, mean, seed):
    """float64; relative to the output's size, and to the gradient's, which is 1 / deviation: 1e-9 of either."""
    theirs, n_inputs = NORMS[name]
    inputs = [*draw(seed, (batch, time, width), scale=scale, mean=mean), *draw(seed + 1, (width,), (width,))][:n_inputs]
    (dy,) = draw(seed + 2, (batch, time, width))
    wanted = theirs(*inputs)
    y, back = getattr(norms, name)(*inputs)
    torch.testing.assert_close(y, wanted, atol=1e-8, rtol=1e-9)  # (x - mean) loses a few of 16 digits at mean 7, 1e-3
    for found, right in zip(back(dy.detach()), torch.autograd.grad(wanted, inputs, dy.detach()), strict=True):
        size = max(1.0, right.abs().max().item())
        torch.testing.assert_close(found / size, right / size, atol=1e-8, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gradients(dtype):
    """In the type that came in, finite for large numbers, near float64's."""
    x, dy = (tensor.detach() for tensor in draw(0, (4, 32), (4, 32)))
    half = (300 * x).to(dtype)
    _, back = norms.layer_norm(half, torch.ones(32), torch.zeros(32))
    dx = back(dy.to(dtype))[0]
    _, exact = norms.layer_norm(half.double(), torch.ones(32).double(), torch.zeros(32).double())
    assert dx.dtype == dtype
    right = exact(dy.to(dtype).double())[0]
    torch.testing.assert_close(dx.double(), right, atol=2e-2 * right.abs().max().item(), rtol=0)  # 8 bits


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_one_token_without_a_batch(name):
    """x (C,): the gradients of gain and bias have their shape, and are PyTorch's; float64, sums of five: 1e-12."""
    theirs, n_inputs = NORMS[name]
    inputs = draw(0, (5,), (5,), (5,))[:n_inputs]
    (dy,) = draw(1, (5,))
    _, back = getattr(norms, name)(*inputs)
    wanted = torch.autograd.grad(theirs(*inputs), inputs, dy.detach())
    for found, right in zip(back(dy.detach()), wanted, strict=True):
        torch.testing.assert_close(found, right, atol=1e-12, rtol=0)


@pytest.mark.parametrize("shape", [(4,), (1, 4), (1, 1, 4), (0, 4)])
def test_batch_norm_refuses_one_token(shape):
    """It has no variance: refused in words, and the memory stays as it was."""
    norm = norms.BatchNorm(4)
    with pytest.raises(ValueError, match="at least two tokens"):
        norm(torch.ones(shape))
    assert torch.equal(norm.mean, torch.zeros(4)) and torch.equal(norm.variance, torch.ones(4))
    assert norm.eval()(torch.ones(shape)).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_modules_in_half_precision(dtype):
    """Numbers of size 300, whose squares float16 lacks: in the type that came in, one rounding (2^-11, 2^-8; with a
    tenth to spare, relative) from the same in float64; what BatchNorm remembers is finite and float32's (1e-4)."""
    bits = {torch.float16: 11, torch.bfloat16: 8}[dtype]
    x = (300 * draw(0, (6, 8))[0].detach()).to(dtype)
    kinds = [norms.LayerNorm(8), norms.RMSNorm(8), norms.BatchNorm(8), norms.BatchNorm(8).eval(), norms.DyT(8)]
    for norm in kinds:
        y, right = norm(x), norm.double()(x.double())
        assert y.dtype == dtype
        torch.testing.assert_close(y.double(), right, atol=2.0**-24, rtol=1.1 * 2.0**-bits)  # 2^-24: float16's least
    norm = norms.BatchNorm(8)
    norm(x)
    torch.testing.assert_close(norm.variance, 0.9 + 0.1 * x.float().var(0), atol=0, rtol=1e-4)
    placed = norms.QKNormAttention(8, 1).place(x).double()
    torch.testing.assert_close(placed.square().mean(-1), torch.ones(6).double(), atol=4 * 2.0**-bits, rtol=0)


@pytest.mark.parametrize("place", norms.PLACES)
def test_rewire_follows_the_models_type(place):
    """A model in float64 gets norms in float64, with gains of one."""
    model = norms.rewire(TinyLM(11, 8, 12, 2, 2).double(), place)
    assert all(p.dtype == torch.float64 for p in model.parameters())
    assert model(torch.randint(11, (2, 8))).dtype == torch.float64


def test_the_check_of_neighbours_sees_what_it_should(monkeypatch):
    """At any draw it passes our norms, and no norm that ignores its input or takes the other tokens along."""
    draw_from = norms_checks._draw
    for shift in range(50):
        monkeypatch.setattr(norms_checks, "_draw", lambda *a, seed=0, s=shift, **k: draw_from(*a, seed=seed + s, **k))
        assert norms_checks._check_alone(norms) is None
        deaf = SimpleNamespace(layer_norm=lambda x, gain, bias: (0 * x, None), rms_norm=norms.rms_norm)
        nosy = SimpleNamespace(layer_norm=norms.batch_norm, rms_norm=norms.rms_norm)
        assert norms_checks._check_alone(deaf) and norms_checks._check_alone(nosy)


@pytest.mark.parametrize(("ours", "theirs"), [(norms.LayerNorm, nn.LayerNorm), (norms.RMSNorm, nn.RMSNorm)])
def test_a_model_with_our_norms_is_the_model_with_pytorchs(ours, theirs):
    models = []
    for kind in (ours, theirs):
        torch.manual_seed(0)
        models.append(TinyLM(11, 8, 12, 2, 2, norm=(lambda d, k=kind: k(d, eps=1e-5))))
    x = torch.randint(11, (3, 8))
    torch.testing.assert_close(models[0](x), models[1](x), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("place", "shared"), [("pre", PreNorm), ("post", PostNorm), ("sandwich", SandwichNorm)])
def test_places_are_the_shared_blocks(place, shared):
    """In the slot of a new model, and rewired: the logits that `shared.layers`' blocks give."""
    models = []
    for kind in (norms.PLACES[place], shared):
        torch.manual_seed(0)
        models.append(TinyLM(11, 8, 12, 2, 2, norm=norms.LayerNorm, block=kind))
    torch.manual_seed(0)
    models.append(norms.rewire(TinyLM(11, 8, 12, 2, 2), place))
    x = torch.randint(11, (3, 8))
    for model in models[1:]:
        torch.testing.assert_close(model(x), models[0](x), atol=1e-6, rtol=0)


def test_pre_is_what_tiny_lm_has():
    """Rewired to "pre", a model computes what it computed before."""
    torch.manual_seed(0)
    model = TinyLM(11, 8, 12, 2, 2)
    x = torch.randint(11, (3, 8))
    before = model(x)
    torch.testing.assert_close(norms.rewire(model, "pre")(x), before, atol=1e-6, rtol=0)


def test_steps_to():
    """The first step at which the last three losses have a mean under the target."""
    falling = torch.tensor([5.0, 4, 3, 2, 1, 0])  # means of three: 4, 3, 2, 1
    found = norm_sweep.steps_to(torch.stack([falling, falling + 9, torch.full((6,), math.nan)]), 2.5, 3)
    assert found[0] == 5 and all(math.isnan(value) for value in found[1:])


def test_a_run_that_diverges_has_no_loss():
    """`fit` leaves the last finite weights, whose loss is no result."""
    job = norm_sweep.SWEEP.quick[0] | {"rate": 1e30, "steps": 12}
    assert norm_sweep.run(job) == {"loss": None, "steps_to": None}


SOLVED = solutions(norms, "norm_vis.ipynb", torch=torch)


def test_the_exercises_solutions_pass_their_checks():
    """And an exercise that is not done fails."""
    assert examine(SimpleNamespace(**SOLVED), EXERCISES).passes
    assert len(examine(SimpleNamespace(), EXERCISES).failed) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"zero_centred_rms_norm": lambda x, w: norms.rms_norm(x, w, eps=1e-6)[0]},
        {"geglu": norms.swiglu},
        {"geglu": lambda gate, up: (norms.gelu(gate)[0] * up, lambda dy: (dy * up, dy * norms.gelu(gate)[0]))},
        {"fold": lambda gain, bias, matrix: (matrix * gain, bias @ matrix.T * 0)},
        {"fold": lambda gain, bias, matrix: (matrix * gain, (matrix * gain) @ bias)},
    ],
)
def test_wrong_answers_to_the_exercises_are_refused(wrong):
    """Near misses: no 1 +, the other gate, a slope forgotten, the bias lost, the bias scaled."""
    assert examine(SimpleNamespace(**SOLVED | wrong), EXERCISES).failed
