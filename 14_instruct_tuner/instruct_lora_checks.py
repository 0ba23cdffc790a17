"""Checks of `instruct.py`: LoRA's layer, its gradients, its merge."""

import math

import torch
from instruct_cases import FLOAT, draw, first_difference, largest_difference, seeded
from torch import nn

from shared.clinic import Check, refusal

LAYERS = [(7, 5, 1, 3, True), (5, 11, 3, 2, False), (4, 6, 9, 0.5, True)]  # d_in, d_out, rank, alpha, bias


def _linear(d_in, d_out, bias=True, dtype=FLOAT):
    linear = nn.Linear(d_in, d_out, bias=bias, dtype=dtype)
    for seed, parameter in enumerate(linear.parameters()):
        parameter.data = draw(*parameter.shape, seed=seed).to(dtype)
    return linear


def _layer(m, d_in, d_out, rank, alpha, bias=True, dtype=FLOAT):
    """A layer before its first step."""
    return m.LoRALinear(_linear(d_in, d_out, bias, dtype), rank, alpha, seeded(3))


def _trained(m, *sizes, seed=5, dtype=FLOAT):
    """A layer whose A and B are what they may be after some steps."""
    layer = _layer(m, *sizes, dtype=dtype)
    with torch.no_grad():
        layer.A.copy_(draw(*layer.A.shape, seed=seed))
        layer.B.copy_(draw(*layer.B.shape, seed=seed + 1))
    return layer


def _words(d_in, d_out, rank, alpha, bias):
    return f"{d_in} inputs, {d_out} outputs, rank {rank}, alpha {alpha}"


def _inputs(d_in):
    return [draw(d_in, seed=7), draw(6, d_in, seed=8), draw(2, 3, d_in, seed=9)]


def _axes(x):
    return ["output", "row output", "batch row output"][x.dim() - 1]


def _correction(layer, rank, alpha):
    """alpha / rank B A, number by number."""
    wanted = torch.zeros(layer.B.shape[0], layer.A.shape[1], dtype=layer.A.dtype)
    for r in range(rank):
        wanted += layer.B[:, r, None] * layer.A[r]
    return (alpha / rank * wanted).detach()


def _check_shapes(m):
    for sizes in LAYERS:
        layer, (d_in, d_out, rank, *_) = _layer(m, *sizes), sizes
        for name, wanted in (("A", (rank, d_in)), ("B", (d_out, rank))):
            if (found := tuple(getattr(layer, name).shape)) != wanted:
                return f"{_words(*sizes)}: {name} has shape {found}, expected {wanted}"


def _check_step_0(m):
    for sizes in LAYERS:
        linear = _linear(sizes[0], sizes[1], sizes[4])
        layer = _layer(m, *sizes)
        for x in _inputs(sizes[0]):
            if gap := largest_difference(layer(x).detach(), linear(x).detach(), _axes(x), 0):
                return f"{_words(*sizes)}, before the first step, {gap}, as without LoRA"


def _check_forward(m):
    for sizes in LAYERS:
        layer, (_, _, rank, alpha, _) = _trained(m, *sizes), sizes
        matrix, bias = layer.linear.weight.detach().clone(), layer.linear.bias
        for x in _inputs(sizes[0]):
            wanted = x @ (matrix + _correction(layer, rank, alpha)).mT + (0 if bias is None else bias.detach())
            if gap := largest_difference(layer(x).detach(), wanted, _axes(x)):
                return f"{_words(*sizes)}, {gap}, as W x + alpha / rank B (A x)"


def _check_rank_scales(m):
    """Three times the rank, the new rows and columns 0: a third of the correction."""
    for rank, alpha in ((1, 4), (2, 3)):
        small, large = _trained(m, 5, 7, rank, alpha), _layer(m, 5, 7, 3 * rank, alpha)
        with torch.no_grad():
            large.A.zero_()
            large.B.zero_()
            large.A[:rank], large.B[:, :rank] = small.A, small.B
        x = draw(4, 5, seed=8)
        base = _linear(5, 7)(x).detach()
        one, three = (layer(x).detach() - base for layer in (small, large))
        if gap := largest_difference(3 * three, one, "row output"):
            return f"alpha {alpha}, rank {rank}, and rank {3 * rank} with zeros: three times its correction, {gap}"


def _check_drawn(m):
    for d_in, rank in ((400, 50), (50, 64)):
        A = m.LoRALinear(nn.Linear(d_in, 30), rank, 1, seeded(1)).A.detach()
        bound = 1 / math.sqrt(d_in)
        n = A.numel()  # the largest of n uniform numbers is within 10 / n of the bound, but for 5 times in 100,000
        if not bound * (1 - 10 / n) <= A.max() <= bound or not -bound <= A.min() <= -bound * (1 - 10 / n):
            return f"{d_in} inputs, rank {rank}: A lies between {A.min():.4f} and {A.max():.4f}, expected {bound:.4f}"
        share = (A.abs() < bound / 2).float().mean()
        if abs(share - 0.5) > 4 * 0.5 / math.sqrt(n):  # four standard deviations
            return f"{d_in} inputs, rank {rank}: {share:.3f} of A lie below half the bound, expected 0.5"
        if abs(A.mean()) > 4 * bound / math.sqrt(3 * n):
            return f"{d_in} inputs, rank {rank}: the mean of A is {A.mean():.5f}, expected 0"


def _check_seeds(m):
    first, again, other = (m.LoRALinear(nn.Linear(6, 4), 3, 1, seeded(seed)).A.detach() for seed in (1, 1, 2))
    if gap := largest_difference(again, first, "row column", 0):
        return f"the same generator: A, {gap}"
    if torch.equal(first, other):
        return "two generators of different seeds: A is the same"
    generator = seeded(1)
    one, two = (m.LoRALinear(nn.Linear(6, 4), 3, 1, generator).A.detach() for _ in range(2))
    if torch.equal(one, two):
        return "two layers from one generator: A is the same"


def _check_only_a_and_b(m):
    for sizes in LAYERS:
        layer = _layer(m, *sizes)
        for how in ("new", "merge", "unmerge"):
            if how != "new":
                getattr(layer, how)()
            learn = {name for name, parameter in layer.named_parameters() if parameter.requires_grad}
            if learn != {"A", "B"}:
                return f"{_words(*sizes)}, {how}: {sorted(learn)} learn, expected A and B"


def _gradients(layer, x):
    """Of a loss that weighs each output differently, by A and by B."""
    y = layer(x)
    return torch.autograd.grad((y * draw(*y.shape, seed=11)).sum(), [layer.A, layer.B])


def _check_first_gradient(m):
    for sizes in LAYERS:
        by_A, by_B = _gradients(_layer(m, *sizes), _inputs(sizes[0])[1])
        if (by_B == 0).any():
            zeros = int((by_B == 0).sum())
            return f"{_words(*sizes)}, before the first step: {zeros} of {by_B.numel()} gradients of B are 0"
        if gap := largest_difference(by_A, torch.zeros_like(by_A), "row column", 0):
            return f"{_words(*sizes)}, before the first step: gradient of A, {gap}"


def _gradients_by_hand(layer, x, upstream, rank, alpha):
    """By A and by B, token by token."""
    by_A, by_B = torch.zeros_like(layer.A), torch.zeros_like(layer.B)
    for n in range(len(x)):
        for r in range(rank):
            by_A[r] += alpha / rank * (layer.B[:, r] @ upstream[n]).detach() * x[n]
            by_B[:, r] += alpha / rank * (layer.A[r] @ x[n]).detach() * upstream[n]
    return by_A, by_B


def _check_layer_gradients(m):
    for sizes in LAYERS:
        layer, (d_in, d_out, rank, alpha, _) = _trained(m, *sizes), sizes
        x = _inputs(d_in)[1]
        wanted = _gradients_by_hand(layer, x, draw(6, d_out, seed=11), rank, alpha)
        for name, found, by_hand in zip("AB", _gradients(layer, x), wanted, strict=True):
            if gap := largest_difference(found, by_hand, "row column"):
                return f"{_words(*sizes)}, gradient of {name}, {gap}"


def _check_gradients_by_hand(m):
    for sizes in LAYERS:
        layer, (d_in, d_out, rank, alpha, _) = _trained(m, *sizes), sizes
        x, upstream = _inputs(d_in)[1], draw(6, d_out, seed=11)
        wanted = _gradients_by_hand(layer, x, upstream, rank, alpha)
        found = m.lora_gradients(x, layer.A.detach(), layer.B.detach(), alpha / rank, upstream)
        for name, one, by_hand in zip("AB", found, wanted, strict=True):
            if gap := largest_difference(one, by_hand, "row column"):
                return f"{_words(*sizes)}, gradient of {name}, {gap}"


def _check_gradient_goes_through(m):
    """By the input: what lies below the layer learns through both paths."""
    for sizes in LAYERS:
        layer, (d_in, d_out, rank, alpha, _) = _trained(m, *sizes), sizes
        x, upstream = draw(6, d_in, seed=8).requires_grad_(), draw(6, d_out, seed=11)
        (found,) = torch.autograd.grad(layer(x), x, upstream)
        wanted = upstream @ (layer.linear.weight.detach() + _correction(layer, rank, alpha))
        if gap := largest_difference(found, wanted, "row input"):
            return f"{_words(*sizes)}, gradient by the input, {gap}"


def _check_merge(m):
    for sizes in LAYERS:
        layer, (_, _, rank, alpha, _) = _trained(m, *sizes), sizes
        wanted = layer.linear.weight.detach() + _correction(layer, rank, alpha)
        bias = None if layer.linear.bias is None else layer.linear.bias.detach().clone()
        x = _inputs(sizes[0])[2]
        before = layer(x).detach()
        for times in ("once", "twice"):
            layer.merge()
            if gap := largest_difference(layer.linear.weight.detach(), wanted, "row column"):
                return f"{_words(*sizes)}, merged {times}, W, {gap}"
            if gap := largest_difference(layer(x).detach(), before, "batch row output", other="unmerged"):
                return f"{_words(*sizes)}, merged {times}, output, {gap}"
            if not layer.merged:
                return f"{_words(*sizes)}, merged {times}: it says that it is not merged"
        if bias is not None and (gap := largest_difference(layer.linear.bias.detach(), bias, "output", 0)):
            return f"{_words(*sizes)}, merged, the bias, {gap}"


def _check_unmerge(m):
    for dtype in (torch.bfloat16, torch.float32, FLOAT):
        for sizes in LAYERS:
            layer = _trained(m, *sizes, dtype=dtype)
            for how in ("unmerge", "merge unmerge", "merge merge unmerge", "unmerge unmerge", "merge unmerge"):
                for name in how.split():
                    getattr(layer, name)()
                base = _linear(sizes[0], sizes[1], sizes[4], dtype).weight.detach()
                if gap := first_difference(layer.linear.weight.detach(), base, "row column"):
                    return f"{_words(*sizes)}, {dtype}, {how}: W, {gap}"
                if layer.merged:
                    return f"{_words(*sizes)}, {dtype}, {how}: it says that it is merged"


def _check_merge_again(m):
    """Merged, taken apart, trained on, merged: by the second training's A and B alone."""
    for sizes in LAYERS:
        layer, x = _trained(m, *sizes), _inputs(sizes[0])[1]
        layer.merge()
        layer.unmerge()
        with torch.no_grad():
            layer.A.copy_(draw(*layer.A.shape, seed=21))
            layer.B.copy_(draw(*layer.B.shape, seed=22))
        wanted = _trained(m, *sizes, seed=21)(x).detach()
        if gap := largest_difference(layer(x).detach(), wanted, "row output"):
            return f"{_words(*sizes)}, unmerged and with other A and B, output, {gap}"
        layer.merge()
        if gap := largest_difference(layer(x).detach(), wanted, "row output"):
            return f"{_words(*sizes)}, unmerged, with other A and B, merged, output, {gap}"


def _check_dtype(m):
    for dtype in (torch.bfloat16, torch.float32, FLOAT):
        layer = _layer(m, 7, 5, 3, 2, dtype=dtype)
        for name in "AB":
            if (found := getattr(layer, name).dtype) != dtype:
                return f"around a layer in {dtype}, {name} is {found}"
        if (found := layer(draw(7).to(dtype)).dtype) != dtype:
            return f"around a layer in {dtype}, the output is {found}"


def _check_rank_refused(m):
    return refusal([(f"a rank of {n}", str(n), lambda n=n: _layer(m, 5, 4, n, 2)) for n in (0, -1)])


LORA_CHECKS = [
    Check(
        "A is (rank, d_in) and B is (d_out, rank)",
        _check_shapes,
        "What does A take and give, and what B?",
        about=["LoRALinear", "LoRALinear.__init__"],
    ),
    Check(
        "before the first step the layer is the one that it was, to the last bit",
        _check_step_0,
        "What is added before anything is learnt, and why?",
        about=["LoRALinear", "LoRALinear.__init__", "LoRALinear.forward"],
    ),
    Check(
        "the layer is W x + alpha / rank B (A x)",
        _check_forward,
        "What is multiplied by what, and by which number?",
        about=["LoRALinear", "LoRALinear.forward"],
    ),
    Check(
        "at three times the rank the same A and B count a third",
        _check_rank_scales,
        "What should become of the correction if the rank is another one?",
        about=["LoRALinear", "LoRALinear.__init__"],
    ),
    Check(
        "A is uniform within 1 / sqrt(d_in)",
        _check_drawn,
        "Between which two numbers does A lie, and how often near each?",
        about=["LoRALinear", "LoRALinear.__init__"],
    ),
    Check(
        "A is drawn by the generator",
        _check_seeds,
        "From where does each draw come?",
        about=["LoRALinear", "LoRALinear.__init__"],
    ),
    Check(
        "of a layer only A and B learn",
        _check_only_a_and_b,
        "Which parameters has the layer, and which of them want a gradient?",
        about=["LoRALinear", "LoRALinear.__init__", "LoRALinear.merge", "LoRALinear.unmerge"],
    ),
    Check(
        "at the first step B has a gradient everywhere, and A none",
        _check_first_gradient,
        "By what is the gradient of A multiplied, and by what that of B?",
        about=["LoRALinear", "LoRALinear.__init__", "LoRALinear.forward"],
    ),
    Check(
        "the layer's gradients are those of the formula",
        _check_layer_gradients,
        "Through what do A and B come into the output?",
        about=["LoRALinear", "LoRALinear.forward"],
    ),
    Check(
        "the gradients by hand are those of the formula",
        _check_gradients_by_hand,
        "Through what do A and B come into the output?",
        about=["lora_gradients"],
    ),
    Check(
        "the gradient goes on to the input, through W and through the correction",
        _check_gradient_goes_through,
        "Through what does the input come into the output?",
        about=["LoRALinear", "LoRALinear.forward"],
    ),
    Check(
        "merged, W holds the correction once, and the layer's output is the same",
        _check_merge,
        "What is added to W, how often, and what does the layer add after that?",
        about=["LoRALinear", "LoRALinear.merge", "LoRALinear.forward"],
    ),
    Check(
        "unmerged, W is what it was, to the last bit",
        _check_unmerge,
        "What becomes of a small number if a large one is added and taken off again?",
        about=["LoRALinear", "LoRALinear.merge", "LoRALinear.unmerge"],
    ),
    Check(
        "a layer that was merged and unmerged can be trained and merged again",
        _check_merge_again,
        "What is left of the first merge?",
        about=["LoRALinear", "LoRALinear.merge", "LoRALinear.unmerge"],
    ),
    Check(
        "A, B and the output are of W's type",
        _check_dtype,
        "Of which type is each tensor?",
        about=["LoRALinear", "LoRALinear.__init__", "LoRALinear.forward"],
    ),
    Check("a rank below 1 is refused", _check_rank_refused, about=["LoRALinear", "LoRALinear.__init__"]),
]
