"""Weights of fewer bytes: the matrices of a decoder in 16, 8 or 4 bits a number, for a step that waits for memory.

    store_as(model, "4-bit")            # in place: every matrix of the blocks, and the head
    kv_work.weight_bytes(model)         # what a pass reads now

    kind            a number of the matrix          scales                              activations in the product
    bfloat16        8 significant bits              none                                bfloat16
    int8            a code from -127 to 127         one for each output                 bfloat16
    int8 x int8     a code from -127 to 127         one for each output and token       codes from -127 to 127
    4-bit           a code from 0 to 15             scale and middle, 32 inputs each    bfloat16
                    the head: from -127 to 127      one for 32 inputs of an output      bfloat16

Norms, attention, the cache and all else between two products stay in float32. The products are PyTorch's own kernels,
most by names that are private to it: they may change, and a packed matrix fits the kind of processor that packed it.

Sources: Dettmers et al. 2022 (arXiv 2208.07339) for int8; the file format GGUF, whose Q4_1 and Q8_0 have these groups.
"""

import copy

import torch
from torch import nn
from torch.nn import functional as F

GROUP = 32  # inputs that share a scale in 4 bits, as in Q4_1


class Stored(nn.Module):
    """A product that takes the place of an `nn.Linear`: (..., in_features) -> (..., out_features), float32 both.

    weight: (out, in), float32. Raises ValueError for another type, and for widths that the kernel does not take.
    """

    least, inputs, outputs = 1, 1, 1  # the fewest inputs; what the number of inputs, of outputs must be a multiple of

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        if weight.dtype != torch.float32:
            raise ValueError(f"a matrix of {weight.dtype}: expected torch.float32, take model.float() first")
        if self.in_features % self.inputs or self.out_features % self.outputs or self.in_features < self.least:
            least = f", at least {self.least}" if self.least > 1 else ""
            wanted = f"inputs a multiple of {self.inputs}{least}, outputs of {self.outputs}"
            raise ValueError(
                f"{self.in_features} inputs and {self.out_features} outputs: expected {wanted}, or take another kind"
            )
        for name, numbers in self.pack(weight.detach()).items():
            self.register_buffer(name, numbers)
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.product(x.reshape(-1, self.in_features)).view(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias


class Bfloat16(Stored):
    """Half the bytes of float32."""

    def pack(self, weight):
        """The buffers, by name."""
        return {"weight": weight.bfloat16()}

    def product(self, x):
        """(tokens, in) -> (tokens, out)."""
        onednn, was = torch.backends.mkldnn, torch.backends.mkldnn.enabled
        onednn.enabled = was and len(x) > 1  # for a single token its product takes twice as long as PyTorch's own
        try:
            return F.linear(x.bfloat16(), self.weight).float()
        finally:
            onednn.enabled = was


class Int8(Stored):
    """Codes of 8 bits, a scale for each output. The kernel reads past a row that is no multiple of 16, unasked."""

    inputs = 16

    def pack(self, weight):
        """The scale is rounded to bfloat16 before the codes are made, so that its rounding adds no error."""
        codes, scale = to_int8(weight, torch.bfloat16)
        return {"codes": codes, "scale": scale[:, 0]}

    def product(self, x):
        """(tokens, in) -> (tokens, out)."""
        return torch.ops.aten._weight_int8pack_mm(x.bfloat16(), self.codes, self.scale).float()


class Int8xInt8(Stored):
    """Both sides in 8 bits: sums of whole numbers, which are exact, then the scales of output and token."""

    least = 2  # with one input `_int_mm` gives wrong numbers

    def pack(self, weight):
        """Codes (out, in) and scales (out,)."""
        codes, scale = to_int8(weight)
        return {"codes": codes, "scale": scale[:, 0]}

    def product(self, x):
        """(tokens, in) -> (tokens, out)."""
        codes, scale = to_int8(x)
        return int_product(codes, self.codes) * (scale * self.scale)


class FourBit(Stored):
    """Codes of 4 bits. The kernel makes (code - 8) * scale + middle in bfloat16, 32 inputs of an output at a time."""

    inputs, outputs = GROUP, 16

    def pack(self, weight):
        """Codes as the kernel has them, and (groups, out, 2) bfloat16, scale and middle of each group."""
        codes, scale, low = to_groups(weight)
        return packed(codes, scale, low + 8 * scale)

    def product(self, x):
        """(tokens, in) -> (tokens, out)."""
        product = torch.ops.aten._weight_int4pack_mm_for_cpu
        return product(x.bfloat16(), self.codes, GROUP, self.scales).float()


class TwiceFourBit(FourBit):
    """Codes of 8 bits as two of 4, code + 128 = 16 * high + low: x times both, in one product twice as long."""

    def pack(self, weight):
        """(high - 8) * 16 * scale + 0, and (low - 8) * scale + 8 * scale; together code * scale."""
        codes, scale = to_int8(weight.unflatten(1, (-1, GROUP)))
        codes = codes.view(torch.uint8) + 128  # wraps round: -1, which is 255, becomes 127
        middle = torch.cat([torch.zeros_like(scale), 8 * scale], dim=1)
        return packed(torch.cat([codes >> 4, codes & 15], dim=1), torch.cat([16 * scale, scale], dim=1), middle)

    def product(self, x):
        """(tokens, in) -> (tokens, out)."""
        return super().product(x.repeat(1, 2))


def packed(codes: torch.Tensor, scale: torch.Tensor, middle: torch.Tensor) -> dict[str, torch.Tensor]:
    """The buffers of `FourBit`, of codes (out, groups, 32) and (out, groups, 1) twice."""
    scales = torch.cat([scale, middle], dim=-1).transpose(0, 1)
    codes = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.flatten(1).int(), 1)
    return {"codes": codes, "scales": scales.bfloat16().contiguous()}


def to_int8(rows: torch.Tensor, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes (..., n), int8, and scales (..., 1) of that type: rows ~ codes * scale; a row's largest code is +-127."""
    largest = rows.abs().amax(dim=-1, keepdim=True).clamp(min=1e-30)  # a row of zeros has some scale
    scale = (largest / 127).to(dtype)
    return (rows / scale).round_().clamp_(-127, 127).to(torch.int8), scale


def to_groups(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes from 0 to 15, (out, groups, 32); scale and lowest number, (out, groups, 1): weight ~ codes * scale + low.

    A group's lowest number gets 0 and its highest 15, so a matrix that was made from such codes gets them again.
    """
    groups = weight.unflatten(1, (-1, GROUP))
    low, high = groups.aminmax(dim=-1, keepdim=True)
    scale = (high - low) / 15
    return ((groups - low) / scale.clamp(min=1e-30)).round_().to(torch.uint8), scale, low


def int_product(x: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """x (tokens, in) times codes (out, in) transposed, int8 both: int32, exact."""
    try:
        return torch._int_mm(x, codes.t())
    except RuntimeError:  # some builds refuse a few tokens, or have no such kernel
        return x.int() @ codes.t().int()


KINDS = {"bfloat16": Bfloat16, "int8": Int8, "int8 x int8": Int8xInt8, "4-bit": FourBit}
HEADS = KINDS | {"4-bit": TwiceFourBit}  # the last product is the most sensitive: files keep it in 8 bits


def sharing(model: nn.Module) -> nn.Module:
    """The same model once more, with the same parameters: what `store_as` replaces in one stays in the other."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})


def store_as(model: nn.Module, kind: str) -> nn.Module:
    """Store every matrix of a `TinyLM` in fewer bytes, in place; all or none. It cannot be trained afterwards.

    A head that was the embedding's own matrix becomes another module; the float32 table stays, to look tokens up in.
    Raises ValueError for a kind that there is not, a model without float32 matrices, and widths no kernel takes.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}: expected one of {', '.join(map(repr, KINDS))}")
    linears = {name: it for name, it in model.blocks.named_modules() if isinstance(it, nn.Linear)}
    if not linears:
        raise ValueError("the blocks have no nn.Linear: are they stored already? Load the model anew for another kind")
    head = model.embedding if model.head is None else model.head
    stored = {name: KINDS[kind](it.weight, it.bias) for name, it in linears.items()}
    model.head = HEADS[kind](head.weight, getattr(head, "bias", None))
    for name, it in stored.items():
        model.blocks.set_submodule(name, it)
    return model
