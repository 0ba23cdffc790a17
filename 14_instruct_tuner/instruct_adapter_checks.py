"""Checks of `instruct.py`: a model that has adapters."""

import torch
from instruct_cases import draw, largest_difference, small_model
from torch import nn

from shared.clinic import Check, refusal
from shared.layers import SwiGLU

TOKENS = torch.tensor([[9, 8, 14, 20, 28, 3, 11]])


def _ways(model):
    """Where the linear layers stand that add_lora looks for."""
    names = ("attention.qkv", "attention.proj", "feed_forward.up", "feed_forward.gate_up", "feed_forward.proj")
    there = dict(model.named_modules())
    return [way for i in range(2) for name in names if (way := f"blocks.{i}.{name}") in there]


def _check_add_lora(m):
    for parts in ({}, {"feed_forward": lambda d_model: SwiGLU(d_model, 20)}):
        for names in (m.MATRICES, ["qkv"], {"up", "gate_up"}, ("proj", "qkv")):
            model = small_model(**parts)
            wanted = [way for way in _ways(model) if way.rpartition(".")[2] in names]
            linear = {way: model.get_submodule(way) for way in wanted}
            found = m.add_lora(model, 3, 2, names)
            there = {name for name, it in model.named_modules() if isinstance(it, m.LoRALinear)}
            if there != set(wanted):
                return f"names {sorted(names)}: adapters at {sorted(there)}, expected {sorted(wanted)}"
            if len(found) != len(wanted) or any(
                one is not model.get_submodule(way) for one, way in zip(found, wanted, strict=True)
            ):
                return f"names {sorted(names)}: the {len(found)} adapters are not returned in the model's own order"
            for way in wanted:
                layer = model.get_submodule(way)
                if layer.linear is not linear[way] or layer.A.shape[0] != 3:
                    return f"{way}: rank {layer.A.shape[0]} around another layer, expected 3 around the one of before"


def _check_add_lora_freezes(m):
    model = small_model()
    m.add_lora(model, 3, 2, ["qkv", "up"])
    for name, parameter in model.named_parameters():
        if parameter.requires_grad != (name.rpartition(".")[2] in ("A", "B")):
            return f"{name} {'learns' if parameter.requires_grad else 'does not learn'}"


def _check_add_lora_changes_nothing(m):
    before = small_model()(TOKENS).detach()
    model = small_model()
    found = m.add_lora(model, 3, 2)
    if gap := largest_difference(model(TOKENS).detach(), before, "row position logit", 0, other="without"):
        return f"logits of a model with new adapters, {gap}"
    with torch.no_grad():
        for seed, layer in enumerate(found):
            layer.B.copy_(draw(*layer.B.shape, seed=seed))
    wanted = model(TOKENS).detach()
    if torch.equal(wanted, before):
        return "logits of a model whose adapters have learnt: they are as without adapters"
    for layer in found:
        layer.merge()
    if gap := largest_difference(model(TOKENS).detach(), wanted, "row position logit", other="unmerged"):
        return f"logits of a model whose adapters are merged, {gap}"
    for layer in found:
        layer.unmerge()
        layer.B.data.zero_()
    if gap := largest_difference(model(TOKENS).detach(), before, "row position logit", 0, other="without"):
        return f"logits of a model whose adapters were merged, taken apart and set to 0, {gap}"


def _check_add_lora_seeds(m):
    drawn = [[layer.A.detach() for layer in m.add_lora(small_model(), 3, 2, seed=seed)] for seed in (0, 0, 1)]
    if any(not torch.equal(one, two) for one, two in zip(drawn[0], drawn[1], strict=True)):
        return "the same seed: A of an adapter differs"
    if any(torch.equal(one, two) for one, two in zip(drawn[0], drawn[2], strict=True)):
        return "another seed: A of an adapter is the same"
    if torch.equal(drawn[0][0], drawn[0][4]):
        return "the first matrix of the first and of the second block: A is the same"


class _Odd(nn.Module):
    """Something that is called `proj` and is no linear layer, and an `up` that is one."""

    def __init__(self):
        super().__init__()
        self.proj, self.up, self.head = nn.Sequential(nn.Linear(4, 4)), nn.Linear(4, 3), nn.Linear(3, 2)


def _check_other_layers(m):
    model = _Odd()
    m.add_lora(model, 2, 1)
    there = [name for name, it in model.named_modules() if isinstance(it, m.LoRALinear)]
    if there != ["up"]:
        return f"a model whose `proj` is no linear layer: adapters at {there}, expected ['up']"
    if list(m.adapters(model)) != [model.up]:
        return f"a model with one adapter: `adapters` finds {len(list(m.adapters(model)))}"


def _check_add_lora_refused(m):
    def again():
        model = small_model()
        m.add_lora(model, 2, 1, ["up"])
        return m.add_lora(model, 2, 1, ["qkv"])

    return refusal(
        [
            ("a model with adapters", "has adapters", again),
            ("a name that no layer has", "'query'", lambda: m.add_lora(small_model(), 2, 1, ["query", "key"])),
            (
                "a name of a part that is no linear layer",
                "'norm_1'",
                lambda: m.add_lora(small_model(), 2, 1, ["norm_1"]),
            ),
            ("a rank of 0", "rank is 0", lambda: m.add_lora(small_model(), 0, 1)),
        ]
    )


ADAPTER_CHECKS = [
    Check(
        "add_lora puts an adapter around each linear layer of the names, and around no other",
        _check_add_lora,
        "Which layers have such a name, and where do they stand?",
        about=["add_lora", "adapters"],
    ),
    Check(
        "of a model with adapters only A and B learn",
        _check_add_lora_freezes,
        "Which parameters are in no adapter?",
        about=["add_lora"],
    ),
    Check(
        "new adapters change no logit, and merging them changes none",
        _check_add_lora_changes_nothing,
        "What does each layer add, before and after?",
        about=["add_lora"],
    ),
    Check(
        "the seed decides what is drawn, for each adapter something else",
        _check_add_lora_seeds,
        "From where does each draw come?",
        about=["add_lora"],
    ),
    Check(
        "what has the name and is no linear layer is left alone", _check_other_layers, about=["add_lora", "adapters"]
    ),
    Check("adapters that cannot be added are refused", _check_add_lora_refused, about=["add_lora"]),
]
