"""A whole model in 8 bits: take its layers' place, look at what they are given, and count bytes.

    small = convert(model, lambda name, linear: W8A8Linear(linear))
    largest = calibrate(model, texts)                                  # {"blocks.0.attention.qkv": (in,), ...}
    fixed = convert(model, lambda name, linear: W8A8Linear(linear, "tensor", static=largest[name].max() / 127))
    only_inputs = convert(model, lambda name, linear: Rounded(linear, inputs=round_trip))
    stored_bytes(small)

Names are those of `model.named_modules()`; "head" is the last matrix, which is left in float unless asked for.
"""

import copy
from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.nn import functional as F

Change = Callable[[torch.Tensor], torch.Tensor]


class Rounded(nn.Module):
    """A product in float of what is left of inputs and weights: every arm of an experiment, at a float's cost.

    inputs, weight: what becomes of each, such as `round_trip` with a granularity; None leaves it as it is. With rows'
    or a tensor's scales it computes what `W8A8Linear` computes, but for float32's rounding. Scales for each column of
    the inputs exist only here: no product of whole numbers takes them.
    """

    def __init__(self, linear: nn.Linear, inputs: Change | None = None, weight: Change | None = None):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.inputs, matrix = inputs, linear.weight.detach()
        self.register_buffer("weight", matrix if weight is None else weight(matrix))
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in_features) -> (..., out_features)."""
        return F.linear(x if self.inputs is None else self.inputs(x), self.weight, self.bias)


def linears(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of the blocks, by name."""
    return {name: it for name, it in model.named_modules() if isinstance(it, nn.Linear) and name != "head"}


def head_of(model: nn.Module) -> nn.Linear:
    """The last matrix as a linear layer, also where it is the embedding's own."""
    if model.head is not None:
        return model.head
    weight = model.embedding.weight
    head = nn.Linear(*weight.T.shape, bias=False, device="meta")
    head.weight = weight
    return head


def sharing(model: nn.Module) -> nn.Module:
    """A copy with the same parameters: a layer or a weight that is replaced in one stays what it was in the other."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})


def convert(model: nn.Module, make: Callable[[str, nn.Linear], nn.Module | None], *, head: bool = False) -> nn.Module:
    """A copy of a `TinyLM` with other layers; make(name, linear) says which, None for one that stays.

    It shares with the model what stays, and cannot be trained. head: the last matrix too, as "head"; the embedding, to
    look tokens up in, stays in float. Raises ValueError for a model whose linear layers were replaced before.
    """
    layers = linears(model)
    if not layers:
        raise ValueError("the model has no nn.Linear: was it converted already? Convert the one it was made from")
    if head:
        layers["head"] = head_of(model)
    copied = sharing(model)
    for name, linear in layers.items():
        made = make(name, linear)
        if made is None:
            continue
        if name == "head":  # there may be none to replace
            copied.head = made
        else:
            copied.set_submodule(name, made)
    return copied


@torch.no_grad()
def watch(
    model: nn.Module, batches: Iterable[torch.Tensor], see: Callable[[str, torch.Tensor], None], first: int = 0
) -> None:
    """Run the model on tokens (B, T) and hand see(name, x) what each linear layer is given, (B, T - first, in).

    first: at which token to begin to look. The tokens before it are run as ever.
    """
    hooks = [
        linear.register_forward_pre_hook(lambda _, given, name=name: see(name, given[0][:, first:]))
        for name, linear in linears(model).items()
    ]
    try:
        for tokens in batches:
            model(tokens, last=1)
    finally:
        for hook in hooks:
            hook.remove()


def calibrate(model: nn.Module, batches: Iterable[torch.Tensor], first: int = 0) -> dict[str, torch.Tensor]:
    """The largest |x| of each input of each linear layer over some text, from token `first` on: (in,) by name."""
    found = {}

    def see(name, x):
        largest = x.abs().amax(dim=(0, 1))
        found[name] = torch.maximum(found[name], largest) if name in found else largest

    watch(model, batches, see, first)
    return found


def stored_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers; what two modules share counts once."""
    parts = {it.untyped_storage().data_ptr(): it.untyped_storage().nbytes() for it in _tensors(model)}
    return sum(parts.values())


def _tensors(model: nn.Module) -> Iterable[torch.Tensor]:
    yield from model.parameters()
    yield from model.buffers()
