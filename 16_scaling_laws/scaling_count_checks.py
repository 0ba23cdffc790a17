"""Checks of `scaling.py`: parameters and operations that are counted."""

import torch
from scaling_cases import SIZES, apart
from scaling_training import new_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from shared.clinic import Check, refusal
from shared.training import next_token_loss

SMOLLM2 = {"vocab_size": 49152, "d_model": 576, "n_layers": 30, "n_heads": 9, "n_kv_heads": 3, "d_ff": 1536}
CONTEXT = 13


def _told(sizes, tied, text):
    return f"{sizes}, {'tied' if tied else 'with a head of its own'}: {text}"


def _check_smollm2(m):
    found = m.count_parameters(m.Shape(**SMOLLM2))
    for name, wanted in (("embedding", 28_311_552), ("blocks", 106_203_456), ("head", 0), ("total", 134_515_008)):
        if getattr(found, name) != wanted:
            return f"SmolLM2-135M, {name}: found {getattr(found, name):,}, expected {wanted:,}"


def _check_parameters(m):
    for sizes in SIZES:
        for tied in (True, False):
            found = m.count_parameters(m.Shape(**sizes, tied=tied))
            model = new_model(CONTEXT, **sizes, tied=tied)
            counted = {name: p.numel() for name, p in model.named_parameters()}
            wanted = {part: sum(n for name, n in counted.items() if part in name) for part in ("embedding", "head")}
            wanted["blocks"] = sum(counted.values()) - wanted["embedding"] - wanted["head"]
            wanted["total"] = sum(counted.values())
            for part, n in wanted.items():
                if getattr(found, part) != n:
                    return _told(sizes, tied, f"{part} is {getattr(found, part):,}, a model of these sizes has {n:,}")


def _profiled(sizes, context, tied=True, backward=False):
    """Operations of matrix products for a token, counted while a model reads a text, and is trained on it."""
    model, ids = new_model(context, **sizes, tied=tied), torch.arange(context)[None] % sizes["vocab_size"]
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        if backward:
            next_token_loss(model, ids, ids).backward()
        else:
            model(ids)
    return counter.get_total_flops() / context


def _check_forward(m):
    for sizes in SIZES:
        for tied in (True, False):
            found, wanted = m.forward_flops(m.Shape(**sizes, tied=tied), CONTEXT), _profiled(sizes, CONTEXT, tied)
            if told := apart(found, wanted):
                return _told(sizes, tied, f"context {CONTEXT}, operations for a token: {told} by PyTorch's counter")


def _check_context(m):
    sizes = SIZES[0]
    shape = m.Shape(**sizes)
    more = [m.forward_flops(shape, context) - m.forward_flops(shape, 7) for context in (14, 1007)]
    for context, found in zip((14, 1007), more, strict=True):
        wanted = 4 * (context - 7) * sizes["d_model"] * sizes["n_layers"]
        if told := apart(found, wanted):
            return f"context {context} in place of 7, more operations for a token: {told}"
    if told := apart(m.forward_flops(shape, 29), _profiled(sizes, 29)):
        return f"context 29, operations for a token: {told} by PyTorch's counter"


def _check_training(m):
    for sizes in SIZES[:2]:
        for tokens in (CONTEXT, 1000 * CONTEXT):
            found = m.train_flops(m.Shape(**sizes), CONTEXT, tokens)
            if told := apart(found, tokens * _profiled(sizes, CONTEXT, backward=True)):
                return f"{sizes}, context {CONTEXT}, {tokens} tokens, forward and backward: {told} by PyTorch's counter"


def _check_shape(m):
    """Sizes that do not divide, and those that do."""
    m.Shape(53, 60, 3, 6, 3, 77)
    m.Shape(53, 60, 3, 6, 6, 77)
    m.Shape(53, 60, 3, 6, 1, 77)
    return refusal(
        [
            ("width 62 with 6 heads", "62", lambda: m.Shape(53, 62, 3, 6, 3, 77)),
            ("6 query heads with 4 key heads", "4", lambda: m.Shape(53, 60, 3, 6, 4, 77)),
        ]
    )


COUNT_CHECKS = [
    Check(
        "SmolLM2-135M has the parameters that it has",
        _check_smollm2,
        "Of which matrices is a layer made, and which of them are as wide as the keys?",
        about=["count_parameters", "Parameters"],
    ),
    Check(
        "a count is that of a model's own tensors, part by part",
        _check_parameters,
        "Which parts depend on the key heads, and what is there once, whatever the number of layers?",
        about=["count_parameters", "Parameters", "Shape"],
    ),
    Check(
        "a forward pass costs what PyTorch's counter of operations says",
        _check_forward,
        "Which parameters stand in a matrix product, and how often is each used for a token?",
        about=["forward_flops"],
    ),
    Check(
        "a longer context costs 4 d_model operations more for each token of it and each layer",
        _check_context,
        "Which products does attention take, and how long are their sums?",
        about=["forward_flops"],
    ),
    Check(
        "a training costs what PyTorch's counter says of forward and backward",
        _check_training,
        "Of which factors does the backward pass of a product take the gradient?",
        about=["train_flops", "forward_flops"],
    ),
    Check("sizes that do not divide are refused", _check_shape, about=["Shape"]),
]
