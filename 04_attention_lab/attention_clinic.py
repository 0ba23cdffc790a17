"""The clinic of lesson 04: what a right `attention.py` must do, and bugs of one line, shipped or printed.

CHECKS take the module to be examined, so that the same questions can be put to a patient. Sizes are pairwise
different on purpose: one head, square shapes or equal lengths would hide half of these bugs. FAULTS holds the
answers to the exercises of the notebook's last room but one.
"""

import math
from functools import partial

import torch
from torch import nn

from shared.clinic import Check, Fault, difference, refusal
from shared.memory import peak_bytes


def _draw(*shapes, dtype=torch.float64):
    """Normal tensors of the shapes, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def _layer(m, **settings):
    """A MultiHeadAttention of three heads, 4 wide each, with set weights in float64."""
    layer = m.MultiHeadAttention(12, 3, **settings).double()
    for parameter, values in zip(layer.parameters(), _draw(*(p.shape for p in layer.parameters())), strict=True):
        parameter.data = values / math.sqrt(12)
    return layer


def _check_loop(m):
    q, k, v, chance = _draw((2, 5, 4), (2, 7, 4), (2, 7, 6), (2, 5, 7))
    for mask, name in ((None, "without a mask"), (chance > 0, "under a mask")):
        if gap := difference(m.attention(q, k, v, mask), m.attention_loop(q, k, v, mask)):
            return f"{name}: {gap}. Go from the scores to the weights to the sum, line by line: where do they part?"


def _check_torch(m):
    q, k, v = _draw((2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 6))
    mask = torch.arange(7) < 5  # one axis: the same keys for every query, as for padding
    wanted = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask.expand(5, 7), scale=0.3)
    for function in (m.attention_loop, m.attention, m.attention_tiled):
        if gap := difference(function(q, k, v, mask, 0.3), wanted):
            return f"{function.__name__} with heads, a padding mask and a scale of 0.3 is not PyTorch's: {gap}"


def _check_half(m):
    def even(n, dtype):  # every key weighs the same, every value is 0.5, and so is their mean
        return torch.zeros(1, 2, dtype=dtype), torch.zeros(n, 2, dtype=dtype), torch.full((n, 2), 0.5, dtype=dtype)

    found = {  # float16 ends at 65504, and in bfloat16 counting by threes sticks at 1024
        "attention in float16": m.attention(*even(70_000, torch.float16)),
        "attention_tiled in bfloat16": m.attention_tiled(*even(2_000, torch.bfloat16), tile=3),
    }
    for name, out in found.items():
        if gap := difference(out, torch.full_like(out, 0.5), tolerance=0.02):  # the rounding of a weight, 8 bits
            return f"{name}: the mean of values that are all 0.5: {gap}. In which type are the sums kept?"


def _check_rows(m):
    q, k = _draw((2, 5, 4), (2, 7, 4))
    for mask, name in ((None, "without a mask"), (m.causal_mask(5, 7), "under the causal mask")):
        sums = m.attention_weights(q, k, mask).sum(dim=-1)
        if gap := difference(sums, torch.ones_like(sums)):
            return f"{name} a row's sum is wrong: {gap}. Over which axis is the softmax, and does a mask come after it?"


def _check_mask(m):
    cases = {
        (3,): [[1, 0, 0], [1, 1, 0], [1, 1, 1]],
        (2, 4): [[1, 1, 1, 0], [1, 1, 1, 1]],
        (4, 2): [[0, 0], [0, 0], [1, 0], [1, 1]],
    }
    for sizes, wanted in cases.items():
        found = m.causal_mask(*sizes).int().tolist()
        if found != wanted:
            return f"causal_mask{sizes} is {found}, expected {wanted}. Does a token see itself, and nothing after it?"


def _check_peeking(m):
    layer, (x,) = _layer(m), _draw((2, 6, 12))
    y = x.clone()
    y[:, 3] += 1
    moved = (layer(x) != layer(y)).any(dim=-1).any(dim=0)
    if moved[:3].any():
        i = int(moved.nonzero()[0])
        return f"token 3 was changed and output {i}, before it, moved: it sees the future. Mask absent, inverted, late?"
    if not moved[3:].all():
        i = int((~moved).nonzero()[-1])
        return f"token 3 was changed and output {i} did not move: it does not see the past. Is the mask inverted?"


def _check_order(m):
    layer, (x,) = _layer(m, causal=False), _draw((2, 6, 12))
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    if gap := difference(layer(x[:, order]), layer(x)[:, order]):
        return f"shuffled tokens should give the same outputs, shuffled: {gap}. What depends on a token's place?"


def _check_variance(m):
    for d_head, scale in ((4, None), (64, None), (64, 1 / 64)):
        expected = 1 if scale is None else d_head * scale**2
        layer = m.MultiHeadAttention(12, 3, d_head=d_head, causal=False, scale=scale).double()
        x, *weights, q, k = _draw((8, 60, 12), *[layer.query.weight.shape] * 2, (8, 60, d_head), (8, 50, d_head))
        layer.query.weight.data, layer.key.weight.data = (w / math.sqrt(12) for w in weights)  # variance 1
        if layer.heads(x)[0].shape != (8, 3, 60, d_head) or layer(x).shape != x.shape:
            return f"heads {d_head} wide were asked for, queries came as {tuple(layer.heads(x)[0].shape)}"
        for name, found in (
            ("the layer", layer.weights(x)),
            ("attention_weights", m.attention_weights(q, k, None, scale)),
        ):
            spread = found.log().var(dim=-1).mean().item()  # a row's log weights are its scores, shifted
            if not 0.6 < spread / expected < 1.6:  # 0.9 to 1.2 here; a lost scale gives d_head, a wrong width 1/3
                return f"{name}: scores {d_head} wide vary by {spread:.2g}, expected {expected:.2g}. What divides them?"


def _check_qk_norm(m):
    x, query, key = _draw((2, 6, 12), (12, 12), (12, 12))
    maps = []
    for queries, keys in ((1, 1), (1000, 1), (1, 1000)):
        layer = m.MultiHeadAttention(12, 3, qk_norm=True).double()
        layer.query.weight.data, layer.key.weight.data = query * queries, key * keys
        maps.append(layer.weights(x))
    q, k, _ = layer.heads(x)
    for name, found in (("queries", q), ("keys", k)):
        if gap := difference(found.pow(2).mean(dim=-1), torch.ones(2, 3, 6), tolerance=1e-6):
            return f"with QK-norm the mean square of the {name} should be 1: {gap}"
        if found.mean(dim=-1).abs().max() < 0.1:
            return f"with QK-norm the {name} were centred: that is a layer norm, expected a root mean square"
    for name, found in zip(("queries", "keys"), maps[1:], strict=True):
        if gap := difference(found, maps[0], tolerance=1e-6):  # the norm's own epsilon is 1e-16 of the squares
            return f"with QK-norm, {name} 1000 times longer changed the map: {gap}. Are they divided by their length?"


def _check_shift(m):
    q, k, v = _draw((5, 4), (7, 4), (7, 6))
    q, k = torch.cat([q, torch.ones(5, 1)], dim=1), torch.cat([k, torch.zeros(7, 1)], dim=1)
    for name, function in (("attention", m.attention), ("attention_tiled", m.attention_tiled)):
        k[:, -1] = 0
        wanted = function(q, k, v, scale=1.0)
        for shift in (1e6, -1e6):
            k[:, -1] = shift  # float64 rounds at 1e-10 there, and the weights follow
            if gap := difference(function(q, k, v, scale=1.0), wanted, tolerance=1e-8):
                return f"{name}: {shift:.0e} was added to each score: {gap}. From what does exp count?"


def _check_nothing(m):
    q, k, v = _draw((3, 4), (5, 4), (5, 6))
    mask = torch.tensor([[True] * 5, [False] * 5, [True] * 5])
    q.requires_grad_()
    for name, function in (("attention", m.attention), ("attention_tiled", m.attention_tiled)):
        out = function(q, k, v, mask)
        if gap := difference(out[1], torch.zeros(6)):
            return f"{name}: row 1 may attend to nothing and should be zeros: {gap}. Follow its scores into the softmax"
    (slope,) = torch.autograd.grad(m.attention(q, k, v, mask).sum(), q)
    if not slope.isfinite().all():
        return f"a row that may attend to nothing gives the gradient {slope[1].tolist()}, expected zeros"


def _check_padding(m):
    x, filler = _draw((2, 6, 12), (2, 3, 12))
    padding = torch.arange(9) < 6
    for causal in (False, True):
        layer = _layer(m, causal=causal)
        padded = layer(torch.cat([x, filler], dim=1), padding.expand(2, 9))
        if gap := difference(padded[:, :6], layer(x)):
            return f"three padded tokens were added and a real one's output moved: {gap}. Do padded keys weigh nothing?"


def _check_heads(m):
    layer, (x,) = _layer(m), _draw((2, 6, 12))
    layer.proj = nn.Identity()
    before = layer(x)
    layer.value.weight.data[:4] = 0  # head 0's values
    after = layer(x)
    if gap := difference(after[..., 4:], before[..., 4:]) or difference(after[..., :4], torch.zeros(2, 6, 4)):
        return f"head 0's values were set to zero: {gap} before the projection. Are heads and tokens mixed up?"


def _check_gradient(m):
    inputs = [t.requires_grad_() for t in _draw((2, 5, 4), (2, 7, 4), (2, 7, 6))]
    (d_out,) = _draw((2, 5, 6))  # not all ones: each row of weights sums to 1, which would hide the softmax's slope
    q, k, v = inputs
    mask = m.causal_mask(5, 7)
    by_torch = torch.autograd.grad(m.attention_weights(q, k, mask, 0.3) @ v, inputs, d_out)
    for function, how in ((m.attention, "by hand"), (m.attention_tiled, "through the tiles")):
        found = torch.autograd.grad(function(q, k, v, mask, 0.3), inputs, d_out)
        for name, ours, theirs in zip(("dq", "dk", "dv"), found, by_torch, strict=True):
            if gap := difference(ours, theirs):
                return f"{name} {how} is not autograd's: {gap}. If no check above fails, derive that line again"


def _check_tiles(m):
    q, k, v, chance = _draw((2, 5, 4), (2, 7, 4), (2, 7, 6), (2, 5, 7))
    mask = chance > 0
    for tile in (1, 3, 4, 16):
        plain = m.attention_tiled(q, k, v, mask, tile=tile), m.attention_loop(q, k, v, mask)
        causal = m.attention_tiled(q, k, v, causal=True, tile=tile), m.attention_loop(q, k, v, m.causal_mask(5, 7))
        if gap := difference(*plain) or difference(*causal):
            return f"tiles of {tile}: {gap}. When a larger score comes, what must shrink? Which keys may a tile see?"


def _check_memory(m):
    small, large = (
        peak_bytes(lambda n=n: m.attention_tiled(*_draw(*[(n, 4)] * 3), torch.ones(1, n) > 0, tile=16))
        for n in (192, 384)
    )
    if large > 2.5 * small:  # linear growth doubles, an n x n matrix, even of bools, triples
        return f"twice the tokens took {large / small:.1f} times the memory, expected 2. Which tensor is n x n?"


def _check_inputs(m):
    q, k, v = _draw((5, 4), (7, 4), (7, 6))
    bad = [  # what is wrong, a word of the answer, the call
        ("widths that differ", "dot product", lambda f: f(q[:, :3], k, v)),
        ("values without keys", "one value", lambda f: f(q, k, v[:6])),
        ("no tokens", "q has shape", lambda f: f(q[:0], k, v)),
        ("one axis", "q has shape", lambda f: f(q[0], k, v)),
        ("batches that differ", "must be equal", lambda f: f(q.expand(2, 5, 4), k.expand(1, 7, 4), v.expand(2, 7, 6))),
        ("whole numbers", "floating", lambda f: f(q.long(), k.long(), v.long())),
        ("lists", "torch tensor", lambda f: f(q.tolist(), k, v)),
        ("NaN", "k holds nan", lambda f: f(q, k.where(k < k.max(), math.nan), v)),
        ("a mask of numbers", "bool", lambda f: f(q, k, v, torch.ones(5, 7))),
        ("a mask of another shape", "broadcasts", lambda f: f(q, k, v, torch.ones(7, 5) > 0)),
        ("a mask of too many axes", "broadcasts", lambda f: f(q, k, v, torch.ones(1, 5, 7) > 0)),
        ("a scale that is not finite", "finite number", lambda f: f(q, k, v, None, math.nan)),
    ]
    calls = [(f, *case) for f in (m.attention_loop, m.attention, m.attention_tiled) for case in bad]
    layer = m.MultiHeadAttention
    calls += [
        (m.attention_weights, "a mask of numbers", "bool", lambda f: f(q, k, torch.ones(5, 7))),
        (m.attention_tiled, "a tile of 0", "tile is 0", lambda f: f(q, k, v, tile=0)),
        (m.attention_tiled, "scores that overflow", "largest score", lambda f: f(q * 1e200, k * 1e200, v)),
        (m.softmax, "NaN in one row", "largest score", lambda f: f(q.where(q < q.max(), math.nan))),
        (m.softmax, "an empty row", "not empty", lambda f: f(q[:, :0])),
        (m.causal_mask, "no tokens", "at least one", lambda f: f(0)),
        (layer, "10 channels for 4 heads", "divide", lambda f: f(10, 4)),
        (layer, "heads of width 0", "d_head is 0", lambda f: f(10, 4, d_head=0)),
        (layer, "another width", "x has shape", lambda f: f(8, 2)(torch.zeros(1, 3, 9))),
        (layer, "no batch", "x has shape", lambda f: f(8, 2)(torch.zeros(3, 8))),
        (layer, "padding of numbers", "padding", lambda f: f(8, 2)(torch.zeros(1, 3, 8), torch.ones(1, 3))),
    ]
    return refusal([(f"{name}, by {f.__name__},", words, partial(call, f)) for f, name, words, call in calls])


CHECKS = [
    Check("the tensor form equals the double loop", _check_loop),
    Check("every version equals PyTorch's own, with heads, padding and another scale", _check_torch),
    Check("each row of weights sums to one", _check_rows),
    Check("the causal mask of three tokens is the one drawn by hand", _check_mask),
    Check("nobody sees the future, everybody sees the past", _check_peeking),
    Check("without a mask, shuffled tokens give shuffled outputs", _check_order),
    Check("scores have variance one, however wide the heads", _check_variance),
    Check("with QK-norm, longer queries or keys change nothing", _check_qk_norm),
    Check("adding a million to each score changes nothing, nor does taking it off", _check_shift),
    Check("a row with nothing to attend to is zeros, with a finite gradient", _check_nothing),
    Check("padding changes nothing", _check_padding),
    Check("heads do not mix before the output projection", _check_heads),
    Check("the backward pass by hand equals autograd's", _check_gradient),
    Check("tiles give the same answer as the double loop", _check_tiles),
    Check("the tiled version's memory grows linearly", _check_memory),
    Check("half precision keeps its sums in float32", _check_half),
    Check("what cannot work is refused in words", _check_inputs),
]


def _check_soft_cap(m):
    small = torch.linspace(-0.3, 0.3, 7, dtype=torch.float64)
    if gap := difference(m.soft_cap(small, 30.0), small, tolerance=1e-4):  # tanh(x) = x - x^3 / 3: here 1e-5
        return f"scores far below the cap of 30 changed: {gap}"
    scores = torch.linspace(-300, 300, 2001, dtype=torch.float64)
    capped = m.soft_cap(scores, 30.0)
    if capped.abs().max() > 30 or capped.diff().min() < 0 or capped[-1] < 29.9 or capped[0] > -29.9:
        return f"scores from -300 to 300 became {capped[0]:.3g} to {capped[-1]:.3g}, expected -30 to 30, never falling"
    if capped.diff().diff().abs().max() > 0.05:  # a corner in the curve gives 0.3, tanh's bend 0.0023
        return "the curve has a corner, expected a smooth bend"


def _check_sink(m):
    q, k, v = _draw((5, 4), (7, 4), (7, 4))
    scores = q @ k.mT / 2
    for sink in (-2.0, 3.0):
        wanted = scores.exp() @ v / (scores.exp().sum(dim=1, keepdim=True) + math.exp(sink))
        if gap := difference(m.attention_with_sink(q, k, v, sink), wanted):
            return f"with a sink of {sink:g}: {gap}. Scores are divided by sqrt(d), the sink is not; its value is zero"
    if gap := difference(m.attention_with_sink(q, k, v, 2000.0), torch.zeros(5, 4)):
        return f"a sink of 2000 should take everything: {gap}. Take the largest off before exp, the sink included"


def _check_merge(m):
    q, k, v = _draw((5, 4), (7, 4), (7, 6))
    scores = q @ k.mT / 2
    parts = []
    for keys in (slice(0, 3), slice(3, 7)):
        parts += [scores[:, keys].softmax(dim=1) @ v[keys], scores[:, keys].logsumexp(dim=1)]
    if gap := difference(m.merge(*parts), scores.softmax(dim=1) @ v):
        return f"{gap}. What share of the whole sum of exp(score) lies in part A?"
    far = m.merge(parts[0], parts[1] + 2000, parts[2], parts[3])
    if gap := difference(far, parts[0]):
        return f"part A outweighs part B by e^2000: {gap}. Take the larger one off before exp"


EXERCISES = [
    Check("soft_cap keeps scores within the cap and leaves small ones alone", _check_soft_cap),
    Check("attention_with_sink gives weight to nothing", _check_sink),
    Check("merge joins two attentions into one", _check_merge),
]

FAULTS = [
    Fault(
        name="the scores are not scaled",
        line="scores = q @ k.mT * scale",
        becomes="scores = q @ k.mT",
        symptom="Attention is nearly one-hot before training, and more so the wider the heads.",
        hints=[
            "What is the variance of a sum of d products of independent numbers?",
            "Follow `scale` to its use.",
        ],
        seen_in="mlc-ai/mlc-llm#3426: scores head_dim times too large in a fallback path; fixed there.",
    ),
    Fault(
        name="the scale is that of the model, not of the head",
        line="self.scale = 1 / math.sqrt(self.d_head) if scale is None else scale",
        becomes="self.scale = 1 / math.sqrt(d_model) if scale is None else scale",
        symptom="With one head all is well. With many, attention is too even from the start.",
        hints=[
            "How wide are the vectors whose dot product is taken?",
            "Look where the layer chooses its scale.",
        ],
        seen_in="karpathy/ng-video-lecture#6: scaled by the embedding size; fixed there.",
    ),
    Fault(
        name="the softmax runs over the queries",
        line="return softmax(scores)",
        becomes="return softmax(scores.mT).mT",
        symptom="The maps look like attention, but their columns sum to one, and late rows to more than one.",
        hints=[
            "Each query has one unit of attention to give away.",
            "Along which axis do the weights sum to one?",
        ],
        seen_in="labmlai/annotated_deep_learning_paper_implementations#146: reported; its author called it a big bug.",
    ),
    Fault(
        name="the mask is inverted",
        line="scores = scores.masked_fill(~mask, -math.inf)",
        becomes="scores = scores.masked_fill(mask, -math.inf)",
        symptom="The training loss is far too good, and the last token attends to nothing.",
        hints=["What does True mean in the mask, and what does masked_fill do where it is True?"],
        seen_in="rasbt/LLMs-from-scratch#1062 and huggingface/transformers#38094 (Llama 4): fixed there.",
    ),
    Fault(
        name="the causal mask is one off",
        line="return keys <= queries[:, None]",
        becomes="return keys <= queries[:, None] + 1",
        symptom="The loss falls below the entropy of the text. What the model writes is noise.",
        hints=["Draw the mask of three tokens.", "May the first token see the second?"],
        seen_in="pbloem/former#10: the triangle's diagonal was off in the explanation; fixed there.",
    ),
    Fault(
        name="there is no causal mask",
        line="mask = causal_mask(x.shape[1], device=x.device) if self.causal else None",
        becomes="mask = None",
        symptom="The loss falls below the entropy of the text, and it makes no difference to ask for causal=True.",
        hints=["The functions are right. Who calls them?", "What does the layer hand over as a mask?"],
        seen_in="alex-matton/causal-transformer-decoder#1: no causal masking in training; fixed there.",
    ),
    Fault(
        name="the mask comes after the softmax",
        line="scores = scores.masked_fill(~mask, -math.inf)",
        becomes="return softmax(scores).masked_fill(~mask, 0.0)",
        symptom="Early tokens come out close to zero; only the last ones reach their usual size.",
        hints=[
            "What do the weights of the first row sum to?",
            "What must happen to a score before exp sees it?",
        ],
        seen_in="huggingface/pytorch-image-models#2236: mask applied at the wrong place; fixed there.",
    ),
    Fault(
        name="the mask multiplies the scores",
        line="scores = scores.masked_fill(~mask, -math.inf)",
        becomes="scores = scores * mask",
        symptom="Masked tokens keep some attention, and most of it where the true scores are negative.",
        hints=["What weight does a score of zero get?", "Which score gets no weight at all?"],
        seen_in="georg-wolflein/good-features#1: masking by multiplication; fixed there.",
    ),
    Fault(
        name="heads are merged without a transpose",
        line="y = y.transpose(1, 2).flatten(2)",
        becomes="y = y.reshape(x.shape[0], x.shape[1], -1)",
        symptom="With one head all is well. With three, a token's output holds pieces of other tokens.",
        hints=[
            "The shapes are right. Is the order of the numbers?",
            "A reshape never moves a number in memory.",
        ],
        seen_in="jsbaan/transformer-from-scratch#6: heads and positions mixed; fixed there.",
    ),
    Fault(
        name="the softmax does not take the largest score off",
        line="largest = scores.amax(dim=-1, keepdim=True).clamp(min=lowest)",
        becomes="largest = torch.zeros_like(scores[..., :1])",
        symptom="All is well until one score passes 88. Then its row is NaN.",
        hints=[
            "What is the largest number in float32, and its logarithm?",
            "What may be added to all scores of a row?",
        ],
        seen_in="pytorch/executorch#18407: a score of 151 in Phi-4-mini gave NaN; fixed there.",
    ),
    Fault(
        name="-inf minus -inf",
        line="largest = scores.amax(dim=-1, keepdim=True).clamp(min=lowest)",
        becomes="largest = scores.amax(dim=-1, keepdim=True)",
        symptom="NaN, but only for batches in which some token may look at nothing.",
        hints=[
            "Compute the softmax of two scores that are both -inf, by hand.",
            "What is taken off such a row?",
        ],
        seen_in="tracel-ai/burn#4697: NaN for fully masked rows; fixed there.",
    ),
    Fault(
        name="the softmax's slope lacks its second term",
        line="d_scores = weights * (d_weights - (weights * d_weights).sum(dim=-1, keepdim=True))",
        becomes="d_scores = weights * d_weights",
        symptom="The forward pass is right to the last digit. Training goes nowhere.",
        hints=[
            "Raise one score of a row: what happens to the other weights?",
            "The row's weights still sum to one.",
        ],
        seen_in="HomericIntelligence/Odyssey#2134: the dot product was missing in a softmax's backward; closed.",
    ),
    Fault(
        name="the running maximum starts at zero",
        line="largest = q.new_full((*q.shape[:-2], len(queries[rows]), 1), lowest, dtype=wide)",
        becomes="largest = q.new_zeros(*q.shape[:-2], len(queries[rows]), 1, dtype=wide)",
        symptom="The tiled version agrees on ordinary numbers, and in a trained model some heads put out zeros.",
        hints=["For which scores is zero larger than all of them?", "What is exp(-1000) in float32?"],
        seen_in="Dao-AILab/flash-attention#2082: a masked tile left the maximum at 0 and zeroed heads; fixed.",
    ),
]
