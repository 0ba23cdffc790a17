"""The checks of lesson 06: what a right `norms.py` must do, and what a reader's exercises must do.

Widths are small and inputs have a mean, large and tiny scales: at 512 numbers with variance 1, in float32 and in
training, seven of the twelve faults change the output by under a hundredth, or not at all.
"""

import torch
from torch import nn
from torch.nn import functional as F

from shared.clinic import Check, difference, refusal
from shared.layers import CausalAttention
from shared.tiny_lm import TinyLM

C = 5


def _draw(*shapes, scale=1.0, mean=0.0, seed=0):
    """Normal float64 tensors, the same at every call."""
    generator = torch.Generator().manual_seed(seed)
    return [mean + scale * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def _gap(found, wanted):
    """`difference`, with its size where both numbers read alike."""
    gap = difference(found, wanted)
    return f"{gap} (off by {(found - wanted).abs().max():.1g})" if gap and found.shape == wanted.shape else gap


SCALES = {"tiny": (1e-3, 0.0), "ordinary": (1.0, 0.0), "far from 0": (1.0, 30.0), "large": (1e3, 0.0)}


def _check_layer_norm(m):
    for name, (scale, mean) in SCALES.items():
        (x,), (gain, bias) = _draw((2, 3, C), scale=scale, mean=mean), _draw((C,), (C,), seed=1)
        wanted = F.layer_norm(x, (C,), gain, bias, eps=1e-5)
        if gap := difference(m.layer_norm(x, gain, bias, eps=1e-5)[0], wanted):
            return f"{name} numbers: {gap}"


def _check_rms_norm(m):
    for name, (scale, mean) in SCALES.items():
        (x,), (gain,) = _draw((2, 3, C), scale=scale, mean=mean), _draw((C,), seed=1)
        if gap := difference(m.rms_norm(x, gain, eps=1e-5)[0], F.rms_norm(x, (C,), gain, eps=1e-5)):
            return f"{name} numbers: {gap}"


def _check_batch_norm(m):
    ours, theirs = m.BatchNorm(C).double(), nn.BatchNorm1d(C).double()
    for step in range(3):
        (x,) = _draw((4, 3, C), scale=2.0, mean=5.0, seed=step)
        if gap := _gap(ours(x), theirs(x.flatten(0, 1)).view(x.shape)):
            return f"in training: {gap}"
    for name, found, wanted in (
        ("mean", ours.mean, theirs.running_mean),
        ("variance", ours.variance, theirs.running_var),
    ):
        if gap := difference(found, wanted):
            return f"the {name} remembered after three batches: {gap}"
    (x,) = _draw((1, 1, C), seed=9)
    if gap := difference(ours.eval()(x), theirs.eval()(x[0])[None]):
        return f"in eval mode, one token alone: {gap}"


def _norms(m):
    """Each norm as a function of x, gain and bias."""
    return {
        "layer_norm": lambda x, gain, bias: m.layer_norm(x, gain, bias),
        "rms_norm": lambda x, gain, bias: m.rms_norm(x, gain),
        "batch_norm": lambda x, gain, bias: m.batch_norm(x, gain, bias),
    }


def _check_back(m):
    for name, norm in _norms(m).items():
        (x, dy), (gain, bias) = _draw((2, 3, C), (2, 3, C), mean=0.5), _draw((C,), (C,), seed=1)
        inputs = [t.requires_grad_() for t in (x, gain, bias)]
        y, _ = norm(*inputs)
        wanted = torch.autograd.grad(y, inputs[: 2 if name == "rms_norm" else 3], dy)
        _, back = norm(*(t.detach() for t in inputs))
        for what, found, right in zip(("x", "the gain", "the bias"), back(dy), wanted, strict=False):
            if gap := _gap(found, right):
                return f"{name}: the gradient of {what} by hand is not autograd's: {gap}"


def _check_centred(m):
    (x, dy), (gain,) = _draw((4, C), (4, C), mean=3.0), _draw((C,), seed=1)
    y, back = m.layer_norm(x, gain, 0 * gain, eps=1e-12)
    dx, unit = back(dy)[0], y / gain
    for what, sums in (("does not sum to 0", dx.sum(-1)), ("is not orthogonal to x", (dx * unit).sum(-1))):
        if sums.abs().max() > 1e-9:
            return f"the gradient through LayerNorm {what}: {sums.abs().max():.2g}"
    y, back = m.rms_norm(x, gain, eps=1e-12)
    dx, unit = back(dy)[0], y / gain
    if (dx * unit).sum(-1).abs().max() > 1e-9:
        return f"the gradient through RMSNorm is not orthogonal to x: {(dx * unit).sum(-1).abs().max():.2g}"
    if dx.sum(-1).abs().max() < 1e-3:
        return "the gradient through RMSNorm sums to 0"


def _check_scale(m):
    (x,), (gain, bias) = _draw((3, C), mean=1.0), _draw((C,), (C,), seed=1)
    for name, norm in _norms(m).items():
        for factor in (10.0, 0.1):
            if gap := difference(norm(factor * x, gain, bias)[0], norm(x, gain, bias)[0], tolerance=5e-3):
                return f"{name}: an input {factor:g} times as large gives another output: {gap}"  # epsilon: 1e-3 at 0.1


def _check_half(m):
    (x,), (gain,) = _draw((6, 64), mean=0.2), _draw((64,), mean=1.0, seed=1)
    for name, norm, right in (
        ("layer_norm", lambda x, g: m.layer_norm(x, g, 0 * g)[0], lambda x, g: F.layer_norm(x, (64,), g)),
        ("rms_norm", lambda x, g: m.rms_norm(x, g)[0], lambda x, g: F.rms_norm(x, (64,), g, eps=1e-5)),
    ):
        for dtype, scale, bits in ((torch.float16, 300, 11), (torch.float16, 3e-3, 11), (torch.bfloat16, 1, 8)):
            half = (scale * x).to(dtype)
            found, wanted = norm(half, gain.float()), right(half.double(), gain.float().double())
            if found.dtype != dtype:
                return f"{name}: {dtype} came in, {found.dtype} went out"
            worst = ((found.double() - wanted).abs() / wanted.abs()).max().item()
            if not worst < 1.1 * 2.0**-bits:  # one rounding to `bits` bits: half a unit of the last
                words = f"{name} of numbers of size {scale:g} in {dtype}: wrong by {worst:.2g}"
                return f"{words}, one rounding is {2.0**-bits:.2g}"


def _check_alone(m):
    (x, other), (gain, bias) = _draw((2, 4, C), (2, 4, C)), _draw((C,), (C,), seed=1)
    changed = x.clone()
    changed[0, 3] = other[0, 3]  # another token: adding a number to it, or stretching it, would change no LayerNorm
    for name in ("layer_norm", "rms_norm"):
        norm = _norms(m)[name]
        gaps = (norm(x, gain, bias)[0] - norm(changed, gain, bias)[0]).abs().amax(dim=-1)
        moved = [tuple(place) for place in (gaps > 1e-9).nonzero().tolist()]
        if moved != [(0, 3)]:
            return f"{name}: the token at (0, 3) was replaced, and these came out otherwise: {moved}"


ACTIVATIONS = {
    "relu": F.relu,
    "relu_squared": lambda x: F.relu(x).square(),
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
}


def _check_activations(m):
    x = torch.linspace(-6, 6, 98, dtype=torch.float64)  # 0 itself, where ReLU has no slope, is left out
    for name, theirs in ACTIVATIONS.items():
        ours = getattr(m, name)
        if gap := difference(ours(x)[0], theirs(x), tolerance=1e-12):
            return f"{name}: {gap}, at x = {x[(ours(x)[0] - theirs(x)).abs().argmax()]:.2f}"
        z = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(theirs(z).sum(), z)
        if gap := difference(ours(x)[1], slope, tolerance=1e-12):
            return f"the slope of {name}: {gap}"


def _check_gated(function, activation):
    """What is wrong with activation(gate) * up and its way back; None if nothing."""
    gate, up, dy = _draw((3, C), (3, C), (3, C))
    inputs = [t.requires_grad_() for t in (gate, up)]
    wanted = activation(gate) * up
    y, back = function(gate.detach(), up.detach())
    if gap := difference(y, wanted.detach()):
        return f"the activated gate times up: {gap}"
    for name, found, right in zip(("gate", "up"), back(dy), torch.autograd.grad(wanted, inputs, dy), strict=True):
        if gap := difference(found, right):
            return f"the gradient of {name}: {gap}"


def _check_swiglu(m):
    return _check_gated(m.swiglu, F.silu)


def _check_gate(m):
    layer = m.SwiGLU(C, 7).double()
    (x,) = _draw((3, C))
    if gap := difference(layer(x), layer.proj(F.silu(layer.gate(x)) * layer.up(x))):
        return f"the module with its own weights: {gap}"


def _check_fresh(m):
    (x,) = _draw((200, 16), scale=7.0)
    for kind in (m.LayerNorm, m.RMSNorm, m.BatchNorm):
        size = kind(16).double()(x).square().mean().item()
        if not 0.99 < size < 1.01:
            return f"a fresh {kind.__name__} gives a mean square of {size:.3g}, expected 1"


def _check_dyt(m):
    norm = m.DyT(C).double()
    (x,) = _draw((3, C))
    norm.gain.data, norm.bias.data = _draw((C,), (C,), seed=1)
    if gap := difference(norm(x), torch.tanh(0.5 * x) * norm.gain + norm.bias):
        return f"tanh(x / 2) * gain + bias: {gap}"


def _model(m, place, **slots):
    torch.manual_seed(0)
    return m.rewire(TinyLM(11, 9, 12, 2, 3, **slots), place).double()


def _check_places(m):
    seen = {}
    for place, n_norms in (("pre", 5), ("post", 4), ("sandwich", 9)):
        model = _model(m, place)
        found = sum(isinstance(part, m.LayerNorm) for part in model.modules())
        if found != n_norms:
            return f"{place}: {found} norms in two blocks and at the end, expected {n_norms}"
        block, (x,) = model.blocks[0], _draw((1, 4, 12), scale=5.0)
        writers = [weight for name, weight in block.named_parameters() if ".proj." in name]
        outputs = []
        for _ in range(2):  # from 0.01 to 10 to 10,000: large against the epsilon
            for weight in writers:
                weight.data *= 1000
            outputs.append(block(x))
        seen[place] = difference(*outputs, tolerance=0.05), outputs[0].square().mean().item()
    if seen["sandwich"][0]:
        return f"sandwich: branches 1000 times as large gave another output: {seen['sandwich'][0]}"
    if not seen["pre"][0]:
        return "pre: branches 1000 times as large changed nothing"
    if not 0.9 < seen["post"][1] < 1.1:
        return f"post: a block gives a mean square of {seen['post'][1]:.3g}, expected 1"
    if seen["pre"][1] < 5:
        return f"pre: a stream of mean square 25 became {seen['pre'][1]:.3g}, expected more than 5"


def _check_qk(m):
    torch.manual_seed(0)
    layer, (x,) = m.QKNormAttention(12, 3).double(), _draw((2, 6, 12))
    before = layer(x)
    layer.qkv.weight.data[:24] *= 1000
    layer.qkv.bias.data[:24] *= 1000
    if gap := difference(layer(x), before, tolerance=1e-4):
        return f"queries and keys 1000 times as long changed the output: {gap}"
    if not isinstance(layer, CausalAttention):
        return "it should be causal attention with another `place`"


def _check_inputs(m):
    lone, gain = torch.ones(1, C), torch.ones(C)
    cases = [
        ("the place 'middle'", "middle", lambda: m.rewire(TinyLM(11, 9, 12, 2, 3), "middle")),
        ("a batch of one token", "two tokens", lambda: m.batch_norm(lone, gain, gain)),
    ]
    return refusal(cases)


CHECKS = [
    Check(
        "LayerNorm is PyTorch's, at any scale",
        _check_layer_norm,
        "Which numbers are averaged, over how many, and what is added where?",
    ),
    Check(
        "RMSNorm is PyTorch's, at any scale",
        _check_rms_norm,
        "Which numbers are averaged, over how many, and what is added where?",
    ),
    Check(
        "BatchNorm is PyTorch's, in training, in memory and in eval mode",
        _check_batch_norm,
        "Which tokens are averaged? How much of what is remembered does a batch replace?",
    ),
    Check("a fresh norm gives a mean square of 1", _check_fresh),
    Check("the backward passes by hand equal autograd's", _check_back, "Which paths lead from x to y?"),
    Check(
        "the gradient through LayerNorm sums to zero, through RMSNorm it does not",
        _check_centred,
        "Which directions does the norm take out of its input?",
    ),
    Check("a larger input gives the same output", _check_scale),
    Check("half precision is rounded once", _check_half, "In which type is each step?"),
    Check("a token's norm knows nothing of other tokens", _check_alone, "Over which axes is the mean?"),
    Check("activations and their slopes are PyTorch's", _check_activations),
    Check("SwiGLU is silu(gate) * up", _check_swiglu, "Turn the sign of up: does the output's turn?"),
    Check("the module's gate is the gate", _check_gate, "Which matrix goes through silu?"),
    Check("DyT is tanh(a x), scaled and shifted", _check_dyt),
    Check(
        "each place has its norms where it should",
        _check_places,
        "Which norms stand on the stream, and which on the branches?",
    ),
    Check("QK-norm takes the size out of queries and keys", _check_qk),
    Check("what cannot work is refused in words", _check_inputs),
]


def _check_zero_centred(m):
    (x,), (w,) = _draw((3, C), mean=1.0), _draw((C,), scale=0.1, seed=1)
    if gap := difference(m.zero_centred_rms_norm(x, w), F.rms_norm(x, (C,), 1 + w, eps=1e-6), tolerance=1e-9):
        return f"stored weights w = {w[0]:.3f}, ... mean gains 1 + w; eps 1e-6: {gap}"


def _check_geglu(m):
    return _check_gated(m.geglu, F.gelu)


def _check_fold(m):
    (x, matrix), (gain, bias) = _draw((3, C), (7, C), mean=1.0), _draw((C,), (C,), seed=1)
    new_matrix, new_bias = m.fold(gain, bias, matrix)
    unit = F.rms_norm(x - x.mean(-1, keepdim=True), (C,), eps=1e-5)
    if gap := difference(F.linear(unit, new_matrix, new_bias), F.linear(F.layer_norm(x, (C,), gain, bias), matrix)):
        return f"matrix and bias for a LayerNorm without gain and bias: {gap}"


EXERCISES = [
    Check("RMSNorm with weights around zero", _check_zero_centred),
    Check("GEGLU, there and back", _check_geglu),
    Check("a norm folded into the next matrix", _check_fold),
]
