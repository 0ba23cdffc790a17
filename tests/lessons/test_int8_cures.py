"""Lesson 12's cures: rotations, SmoothQuant, GPTQ and AWQ against independent references."""

from functools import partial

import int8
import int8_cures
import int8_gptq
import int8_groups
import int8_model
import numpy as np
import pytest
import torch
from int8_awq import awq, mean_inputs, scaled_rounding
from scipy.linalg import hadamard
from small_models import EXACT, FLOAT, draw, llama, tokens
from torch import nn

from shared.hooks import look
from shared.layers import PostNorm
from shared.story_model import load_story_lm


def test_hadamard_matrices():
    """Every multiple of 4 up to 200 that two ways of Paley's and doubling reach; powers of 2 are scipy's."""
    without = []
    for n in (1, 2, *range(4, 201, 4), 384, 576, 1536):
        try:
            matrix = int8_cures.hadamard(n)
        except ValueError:
            without.append(n)
            continue
        assert torch.equal(matrix @ matrix.T, n * torch.eye(n, dtype=FLOAT)) and (matrix.abs() == 1).all()
        if n & (n - 1) == 0:
            assert np.array_equal(matrix.numpy(), hadamard(n))
    assert without == [52, 92, 100, 116, 156, 172, 184, 188]
    for n in (1, 7, 6, 52, 172, 11_008 // 16):
        turn = int8_cures.rotation(n, FLOAT)
        torch.testing.assert_close(turn @ turn.T, torch.eye(n, dtype=FLOAT), **EXACT)


@pytest.mark.parametrize("how", [{}, {"tied": False}, {"bias": False}])
def test_a_rotated_stream_computes_the_same(how):
    """Before rounding, whole and with a cache; what the layers read is spread, and its length is as before."""
    model = llama(**how)
    turned, before = int8_cures.rotate_stream(model), model(tokens())
    torch.testing.assert_close(turned(tokens()), before, **EXACT)
    cache = turned.new_cache(2, 9)
    parts = torch.cat([turned(part, cache) for part in tokens().split([4, 5], dim=1)], dim=1)
    torch.testing.assert_close(parts, before, **EXACT)
    old, new = (look(it, tokens(), ["block"])["block"] for it in (model, turned))
    for a, b in zip(old, new, strict=True):
        torch.testing.assert_close(a @ int8_cures.rotation(24, FLOAT), b, **EXACT)
    every = int8_model.convert(model, lambda name, it: int8_cures.Turned(it, int8_model.Rounded))
    torch.testing.assert_close(every(tokens()), before, **EXACT)
    torch.testing.assert_close(model(tokens()), before, atol=0, rtol=0)


@pytest.mark.parametrize("alpha", [0, 0.5, 1])
def test_smoothed_models_compute_the_same(alpha):
    """SmoothQuant's factors go into norms, values and the gated half; at alpha 1 all inputs are equally large."""
    model = llama()
    before = model(tokens())
    largest = int8_model.calibrate(model, [tokens(seed=1), tokens(seed=2)])
    smoothed = int8_cures.smooth(model, largest, alpha)
    torch.testing.assert_close(smoothed(tokens()), before, **EXACT)
    assert torch.equal(model(tokens()), before)
    found = int8_model.calibrate(smoothed, [tokens(seed=1), tokens(seed=2)])
    for name, it in found.items():
        assert not torch.allclose(it, largest[name])
        shared = it.unflatten(0, (3, 2, 4)).amax(dim=1) if name.endswith("attention.proj") else it
        if alpha == 1:
            torch.testing.assert_close(shared, torch.ones_like(shared), **EXACT)
    story = load_story_lm()
    largest = int8_model.calibrate(story, [tokens()])
    smoothed = int8_cures.smooth(story, largest, alpha)
    assert smoothed.blocks[0].feed_forward.proj.weight.equal(story.blocks[0].feed_forward.proj.weight)  # behind a GELU
    with torch.no_grad():
        torch.testing.assert_close(smoothed(tokens()), story(tokens()), atol=1e-3, rtol=0)  # float32, logits up to 20


def test_planted_outliers_change_nothing_but_what_int8_makes_of_them():
    """The story model with one channel of each norm 100 times as large: the same logits in float32."""
    story, planted = load_story_lm(), load_story_lm()
    for block in planted.blocks:
        for norm, it in ((block.norm_1, block.attention.qkv), (block.norm_2, block.feed_forward.up)):
            int8.move_scale(norm, it, torch.ones(128).index_fill(0, torch.tensor([5]), 100))
    with torch.no_grad():
        wanted = story(tokens())
        torch.testing.assert_close(planted(tokens()), wanted, atol=1e-3, rtol=0)  # as above
        errors = []
        for model in (story, planted):
            small = int8_model.convert(model, lambda name, it: int8.W8A8Linear(it, "tensor"))
            errors.append((small(tokens()) - wanted).square().mean())
    assert errors[1] > 100 * errors[0]


def slow_gptq(weight, moment, bits, size):
    """One input after the other; the others then by least squares, from the start, instead of by Cholesky."""
    best, done = weight.clone(), torch.empty_like(weight)
    for i in range(weight.shape[1]):
        if i % size == 0:
            low, high = best[:, i : i + size].amin(1), best[:, i : i + size].amax(1)
            step = (high - low) / (2**bits - 1)
        done[:, i] = ((best[:, i] - low) / step).round().clamp(0, 2**bits - 1) * step + low
        rest, known = slice(i + 1, None), slice(0, i + 1)
        error = done[:, known] - weight[:, known]
        best[:, rest] = weight[:, rest] - torch.linalg.solve(moment[rest, rest], moment[rest, known] @ error.T).T
    return done


def test_gptq_is_least_squares_after_each_input():
    """The closed form against solving anew; less error of the outputs than rounding to nearest; equal for inputs that
    have nothing to do with each other."""
    x, weight = draw(200, 24) @ draw(24, 24, seed=1), draw(7, 24, seed=2)
    moment = x.T @ x / len(x)
    damped = moment + 0.01 * moment.diagonal().mean() * torch.eye(24)
    nearest = int8_groups.round_groups(weight, 4, 8)
    found = int8_gptq.gptq(weight, moment, 4, 8)
    torch.testing.assert_close(found, slow_gptq(weight, damped, 4, 8), **EXACT)
    assert int8_gptq.output_error(weight, found, moment) < int8_gptq.output_error(weight, nearest, moment)
    torch.testing.assert_close(int8_gptq.gptq(weight, torch.eye(24), 4, 8), nearest, **EXACT)
    out = (x @ (weight - found).T).square().sum() / (x @ weight.T).square().sum()
    assert int8_gptq.output_error(weight, found, moment) == pytest.approx(float(out))
    with pytest.raises(ValueError, match="groups of 7"):
        int8_gptq.gptq(weight, moment, 4, 7)


def test_moments_and_means_are_those_of_the_inputs():
    """Every token alike, or the first ones as much as is said; means from a token on."""
    model, texts, name = llama(), [tokens(seed=1), tokens(seed=2)], "blocks.1.attention.qkv"
    inputs = torch.cat([look(model, text, ["norm_1"])["norm_1"][1] for text in texts])  # (4, 9, 24)
    all_of_them, others = inputs.flatten(0, 1), inputs[:, 1:].flatten(0, 1)
    cases = {None: all_of_them.T @ all_of_them / 36}
    for sink in (0, 0.5):
        cases[sink] = others.T @ others / 32 + sink * inputs[:, 0].T @ inputs[:, 0] / 4
    for sink, wanted in cases.items():
        moment = int8_gptq.input_moments(model, texts, sink)[name]
        torch.testing.assert_close(moment.double(), wanted, atol=1e-5, rtol=1e-5)  # summed in float32
    for first in (0, 2):
        wanted = inputs[:, first:].abs().mean(dim=(0, 1))
        torch.testing.assert_close(mean_inputs(model, texts, first)[name], wanted, **EXACT)


def test_awq_is_rounding_with_a_scale_in_the_norm():
    """Factors that go into a norm give the same outputs; alpha 0 is plain rounding, and the best is no worse."""
    norm, it = nn.RMSNorm(64).double(), nn.Linear(64, 7).double()
    factors, x = draw(64).exp(), draw(5, 64, seed=1)
    rounded = nn.functional.linear(norm(x), scaled_rounding(it.weight, factors), it.bias)
    int8.move_scale(norm, it, 1 / factors)
    it.weight.data = int8_groups.round_groups(it.weight.data, 4)
    torch.testing.assert_close(it(norm(x)), rounded, **EXACT)
    x, weight = draw(300, 64) * draw(64, seed=3).exp(), draw(7, 64, seed=2)
    mean, moment = x.abs().mean(dim=0), x.T @ x / 300
    nearest = int8_groups.round_groups(weight, 4)
    torch.testing.assert_close(awq(weight, mean, moment, alphas=[0]), nearest, **EXACT)
    error = partial(int8_gptq.output_error, weight, moment=moment)
    assert error(awq(weight, mean, moment)) < 0.9 * error(nearest)


def test_what_cannot_work_is_refused():
    """Norms that are not turned, a norm on the stream, numbers that do not fit."""
    with pytest.raises(ValueError, match="LayerNorm"):
        int8_cures.rotate_stream(load_story_lm())
    with pytest.raises(ValueError, match="PostNorm"):
        int8_cures.smooth(llama(block=PostNorm), {}, 0.5)
    with pytest.raises(ValueError, match="alpha is 2"):
        int8_cures.smooth_factors(torch.ones(3), torch.ones(2, 3), 2)
    with pytest.raises(ValueError, match="n is 0"):
        int8_cures.rotation(0)
