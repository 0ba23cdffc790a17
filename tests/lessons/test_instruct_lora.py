"""Lesson 14: LoRA against peft, on a small Llama with the same A and B."""

import instruct
import pytest
import torch
from peft import LoraConfig, get_peft_model
from small_models import EXACT, draw, llama, tokens


def with_peft(rank, alpha, **how):
    """The same model twice, with our adapters and with peft's; A and B are the same and as if they had learnt."""
    ours, theirs = (llama().requires_grad_() for _ in range(2))
    layers = instruct.add_lora(ours, rank, alpha)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(instruct.MATRICES), lora_dropout=0.0, **how)
    theirs = get_peft_model(theirs, config).double()
    wrapped = [module for module in theirs.modules() if hasattr(module, "lora_A") and hasattr(module, "base_layer")]
    with torch.no_grad():
        for seed, (mine, other) in enumerate(zip(layers, wrapped, strict=True)):
            mine.A.copy_(draw(*mine.A.shape, seed=seed))
            mine.B.copy_(draw(*mine.B.shape, seed=seed + 50))
            other.lora_A["default"].weight.copy_(mine.A)
            other.lora_B["default"].weight.copy_(mine.B)
    return ours, theirs, layers, wrapped


@pytest.mark.parametrize(("rank", "alpha"), [(1, 3), (4, 4), (3, 0.5), (40, 16)])
def test_lora_is_pefts(rank, alpha):
    """Logits, what learns, gradients, and the merged model's weights."""
    ours, theirs, layers, wrapped = with_peft(rank, alpha)
    inputs, targets = tokens(2, 9), tokens(2, 9, seed=1)
    found, wanted = ours(inputs), theirs(inputs)
    torch.testing.assert_close(found, wanted, **EXACT)
    n = sum(p.numel() for p in ours.parameters() if p.requires_grad)
    assert n == sum(p.numel() for p in theirs.parameters() if p.requires_grad)
    for logits in (found, wanted):
        instruct.answer_loss(logits, targets).backward()
    for mine, other in zip(layers, wrapped, strict=True):
        torch.testing.assert_close(mine.A.grad, other.lora_A["default"].weight.grad, **EXACT)
        torch.testing.assert_close(mine.B.grad, other.lora_B["default"].weight.grad, **EXACT)
        mine.merge()
    merged = [module for module in theirs.merge_and_unload().modules() if isinstance(module, torch.nn.Linear)]
    for mine, other in zip(layers, merged, strict=True):
        torch.testing.assert_close(mine.linear.weight, other.weight, **EXACT)


def test_dora_is_pefts():
    """The merged weight of one of its layers, after its magnitude has learnt."""
    _, theirs, layers, wrapped = with_peft(3, 2, use_dora=True)
    magnitudes = [draw(len(mine.B), seed=seed).abs() for seed, mine in enumerate(layers)]
    with torch.no_grad():
        for other, magnitude in zip(wrapped, magnitudes, strict=True):
            other.lora_magnitude_vector["default"].weight.copy_(magnitude)
    before = [mine.linear.weight.clone() for mine in layers]
    merged = [module for module in theirs.merge_and_unload().modules() if isinstance(module, torch.nn.Linear)]
    for W, mine, magnitude, other in zip(before, layers, magnitudes, merged, strict=True):
        moved = W + mine.scale * mine.B @ mine.A
        found = magnitude[:, None] * moved / moved.norm(dim=1, keepdim=True)
        torch.testing.assert_close(found, other.weight, **EXACT)
