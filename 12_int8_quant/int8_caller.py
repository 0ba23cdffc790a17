"""A program around int8.py: the story model in 8 bits, with scales found at each call or before.

`load` gives the story model outliers as real models have them: three channels, and one hidden number of the first
token. They change nothing that it puts out. `small` makes its layers smaller in one of four ways; for one of them it
finds scales on `texts`. `answers` goes on with prompts. `in_four_bits` is what a file keeps of a matrix.
"""

import copy

import int8
import torch
from torch import nn
from torch.nn import functional as F

from shared.generation import generate, greedy
from shared.hooks import look
from shared.story_model import load_story_lm
from shared.world import BASE, stories
from shared.world.words import END, ID, decode, encode

CHANNELS, SIZE = (5, 40, 99), 100.0  # the channels with outliers, and what they are multiplied by
BLOCK, FIRST = 1, 60.0  # where the first token's hidden number stands, and about how large it is
ALPHA = 0.75  # of an outlier's size, what goes into the weights
THRESHOLD = 6.0  # a number above it is an outlier
BY = "row"  # the numbers of a matrix that share a scale
GROUP = 32  # those of a group
SKIPPED = 0  # tokens of a text of which no scale is found
MOST, STOP = 30, ID[END]
WISHES = ["Once Ann Lake, a young pilot from", "Once Tom", "In the end", "Once Jane King, a baker"]
PROMPTS = [[STOP, *encode(wish)] for wish in WISHES]


def load():
    """The story model with outliers."""
    model = load_story_lm().requires_grad_(False)
    seen = [look(model, ids, ["norm_2"])["norm_2"][BLOCK][0] for ids in texts()]  # (T, C) each
    answer_to(seen[0][0], torch.cat([x[1:] for x in seen]), model.blocks[BLOCK].feed_forward)
    for block in model.blocks:
        factors = torch.ones(model.embedding.embedding_dim).index_fill(0, torch.tensor(CHANNELS), SIZE)
        int8.move_scale(block.norm_1, block.attention.qkv, factors)
        int8.move_scale(block.norm_2, block.feed_forward.up, factors)
    return model


def answer_to(first, others, hidden):
    """Two hidden units more, which answer to inputs (C,) and to none of the others, (n, C). What one of them writes the
    other takes off."""
    apart = first - others.mean(dim=0)
    most = (others @ apart).max()
    row = 2 * FIRST * apart / (first @ apart - most)  # FIRST there, at most -FIRST elsewhere
    parts, column = torch.tensor([1, 0.25]), 6 * F.normalize(torch.arange(len(first)).cos(), dim=0)
    up = torch.cat([hidden.up.weight, parts[:, None] * row])
    bias = torch.cat([hidden.up.bias, parts * (FIRST - first @ row)])
    proj = torch.cat([hidden.proj.weight, column[:, None] / torch.tensor([1, -0.25])], dim=1)
    hidden.up, hidden.proj = linear(up, bias), linear(proj, hidden.proj.bias)


def linear(weight, bias):
    """A linear layer of these weights, (out, in) and (out,)."""
    layer = nn.Linear(*weight.T.shape).requires_grad_(False)
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    return layer


def texts(n=12, seed=0):
    """Texts to find scales on, each (1, T) ids: the first line of n documents."""
    lines = [story.text.partition("\n")[0] for story in stories(n, seed, BASE)]
    return [torch.tensor([[STOP, *encode(line)]])[:, :96] for line in lines]


def linears(model):
    """The linear layers of the blocks, by name."""
    return {name: layer for name, layer in model.blocks.named_modules() if isinstance(layer, nn.Linear)}


@torch.inference_mode()
def ranges(model, ids):
    """The lowest and the highest number of each input of each layer over some texts: (2, in) by name."""
    found = {}

    def see(name, x):
        new = torch.stack([x.amin(dim=(0, 1)), x.amax(dim=(0, 1))])
        old = found.get(name, new)
        found[name] = torch.stack([torch.minimum(old[0], new[0]), torch.maximum(old[1], new[1])])

    hooks = [
        layer.register_forward_pre_hook(lambda _, given, name=name: see(name, given[0][:, SKIPPED:]))
        for name, layer in linears(model).items()
    ]
    for each in ids:
        model(each)
    for hook in hooks:
        hook.remove()
    return found


def convert(model, make):
    """A copy of the model, make(name, layer) in the place of each linear layer."""
    small = copy.deepcopy(model)
    for name, layer in linears(model).items():
        small.blocks.set_submodule(name, make(name, layer))
    return small


def smooth_factors(largest, weight):
    """What inputs are divided by, (in,), of their largest numbers, (in,), and the matrix, (out, in)."""
    columns = weight.abs().amax(dim=0)
    return largest.clamp(min=1e-5) ** ALPHA / columns.clamp(min=1e-5) ** (1 - ALPHA)


def smooth(model, found):
    """A copy of the same function with smaller outliers behind its norms."""
    model = copy.deepcopy(model)
    for i, block in enumerate(model.blocks):
        for norm, name in ((block.norm_1, "attention.qkv"), (block.norm_2, "feed_forward.up")):
            layer = block.get_submodule(name)
            largest = found[f"{i}.{name}"].abs().amax(dim=0)
            int8.move_scale(norm, layer, 1 / smooth_factors(largest, layer.weight))
    return model


class FixedZero(nn.Module):
    """A layer whose inputs have a scale and a zero point that were fixed before, (2, in) the range of each.

    What the zero point adds to a sum of codes is the same at each call: it is taken off the bias, once for all.
    """

    def __init__(self, layer, found):
        super().__init__()
        self.step, self.zero = int8.zero_point(found)
        self.scale = int8.absmax_scale(layer.weight, "row")
        self.codes = int8.quantize(layer.weight, self.scale)
        self.bias = layer.bias - self.zero[0] * self.step[0] * self.codes.sum(dim=-1) * self.scale[:, 0]

    def forward(self, x):
        codes = int8.quantize_affine(x, self.step, self.zero)
        return int8.scaled_product(codes, self.step, self.codes, self.scale) + self.bias


def fixed(layer, found):
    """A layer with scales found before: with a zero point where nothing is far below 0, as behind a GELU."""
    if found.min() > -0.2:
        return FixedZero(layer, found)
    return int8.W8A8Linear(layer, "tensor", static=int8.absmax_scale(found).squeeze())


def in_four_bits(matrix):
    """What a file of four bits a number keeps of a matrix, (out, in): each row is filled up to whole groups."""
    width = matrix.shape[1]
    rows = F.pad(matrix[None], (0, -width % GROUP), mode="replicate")[0]
    return int8.from_groups(*int8.to_groups(rows, GROUP, bits=4))[:, :width]


WAYS = {
    "weights": lambda name, layer: int8.Int8Linear(layer, BY),
    "tokens": lambda name, layer: int8.W8A8Linear(layer),
    "split": lambda name, layer: int8.SplitLinear(layer, THRESHOLD),
}


@torch.inference_mode()
def small(model, way):
    """The model in one of WAYS, or smoothed and with scales that are "fixed" before."""
    if way in WAYS:
        return convert(model, WAYS[way])
    smoothed = smooth(model, ranges(model, texts()))
    found = ranges(smoothed, texts())
    return convert(smoothed, lambda name, layer: fixed(layer, found[name]))


def answers(model, prompts):
    """How prompts go on by the likeliest word, up to the end or MOST words each."""
    return generate(model, prompts, MOST, rules=[greedy], stop=[STOP])


if __name__ == "__main__":
    model = load()
    for way in ("weights", "tokens", "split", "fixed"):
        print(way, "...", decode(answers(small(model, way), PROMPTS)[0]).strip())
