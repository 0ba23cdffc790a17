"""What a right `attention.py` must do. Each check takes the module, so that a reader's functions and a patient can be
asked the same. Sizes are pairwise different on purpose: one head, square shapes or equal lengths hide half of the bugs.
"""

import math
from functools import partial

import torch
from torch import nn

from shared.clinic import Check, difference, refusal
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


def _check_softmax(m):
    (scores,) = _draw((2, 3, 5))
    if gap := difference(m.softmax(scores), scores.softmax(dim=-1)):
        return f"on ordinary scores it is not PyTorch's: {gap}"
    for shift in (1e6, -1e6):  # float64 rounds at 1e-10 there, and the weights follow
        if gap := difference(m.softmax(scores + shift), scores.softmax(dim=-1), tolerance=1e-8):
            return f"{shift:.0e} was added to each score: {gap}"
    far = torch.tensor([[0.0, -1e30, 1e30], [-3e38, 0.0, 3e38]])
    if gap := difference(m.softmax(far), torch.tensor([[0.0, 0.0, 1.0]] * 2)):
        return f"scores as far apart as float32 goes: {gap}"


def _check_nothing_left(m):
    rows = torch.tensor([[-math.inf] * 3, [0.0, -math.inf, 0.0]])
    if gap := difference(m.softmax(rows), torch.tensor([[0.0] * 3, [0.5, 0.0, 0.5]])):
        return f"softmax of {rows.tolist()}: {gap}"


def _check_softmax_backward(m):
    scores, d_weights = _draw((2, 5, 7), (2, 5, 7))
    weights = scores.softmax(dim=-1)
    jacobian = torch.diag_embed(weights) - weights[..., :, None] * weights[..., None, :]  # (2, 5, 7, 7)
    wanted = (jacobian @ d_weights[..., None]).squeeze(-1)
    if gap := difference(m.softmax_backward(weights, d_weights), wanted):
        return f"it is not the Jacobian times d_weights: {gap}"


def _check_mask(m):
    cases = {
        (3,): [[1, 0, 0], [1, 1, 0], [1, 1, 1]],
        (2, 4): [[1, 1, 1, 0], [1, 1, 1, 1]],
        (4, 2): [[0, 0], [0, 0], [1, 0], [1, 1]],
    }
    for sizes, wanted in cases.items():
        found = m.causal_mask(*sizes)
        if found.dtype != torch.bool or found.int().tolist() != wanted:
            return f"causal_mask{sizes} is {found.dtype} {found.int().tolist()}, expected bool {wanted}"


def _check_loop(m):
    q, k, v, chance = _draw((2, 5, 4), (2, 7, 4), (2, 7, 6), (2, 5, 7))
    for mask, name in ((None, "without a mask"), (chance > 0, "under a mask")):
        if gap := difference(m.attention_weights(q, k, mask) @ v, m.attention_loop(q, k, v, mask)):
            return f"attention_weights times v, {name}: {gap}"
        if gap := difference(m.attention(q, k, v, mask), m.attention_loop(q, k, v, mask)):
            return f"attention, {name}: {gap}"


def _check_torch(m):
    q, k, v = _draw((2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 6))
    mask = torch.arange(7) < 5  # one axis: the same keys for every query, as for padding
    wanted = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask.expand(5, 7), scale=0.3)
    for function in (m.attention_loop, m.attention, m.attention_tiled):
        if gap := difference(function(q, k, v, mask, 0.3), wanted):
            return f"{function.__name__} with heads, a padding mask and a scale of 0.3 is not PyTorch's: {gap}"


def _check_rows(m):
    q, k = _draw((2, 5, 4), (2, 7, 4))
    for mask, name in ((None, "without a mask"), (m.causal_mask(5, 7), "under the causal mask")):
        sums = m.attention_weights(q, k, mask).sum(dim=-1)
        if gap := difference(sums, torch.ones_like(sums)):
            return f"{name} a row's sum is wrong: {gap}"


def _check_masked(m):
    q, k = _draw((2, 5, 4), (2, 7, 4))
    mask = torch.ones(2, 5, 7) > 0
    mask[0, 1], mask[1, 3, 2:6] = False, False
    weights = m.attention_weights(q, k, mask)
    if gap := difference(weights[~mask], torch.zeros(11)):
        return f"pairs that are not allowed, a whole row among them: {gap}"


def _check_default_scale(m):
    q, k = _draw((5, 9), (7, 9))
    if gap := difference(m.attention_weights(q, k), (q @ k.T / 3).softmax(dim=-1)):
        return f"queries 9 wide, no scale given: {gap}"


def _check_peeking(m):
    layer, (x,) = _layer(m), _draw((2, 6, 12))
    y = x.clone()
    y[:, 3] += 1
    moved = (layer(x) != layer(y)).any(dim=-1).any(dim=0)
    if moved[:3].any():
        return f"token 3 was changed and output {int(moved.nonzero()[0])}, before it, moved"
    if not moved[3:].all():
        return f"token 3 was changed and output {int((~moved).nonzero()[-1])}, at or after it, did not move"


def _check_order(m):
    layer, (x,) = _layer(m, causal=False), _draw((2, 6, 12))
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    if gap := difference(layer(x[:, order]), layer(x)[:, order]):
        return f"shuffled tokens should give the same outputs, shuffled: {gap}"


def _check_variance(m):
    for d_head, scale in ((4, None), (64, None), (64, 1 / 64)):
        expected = 1 if scale is None else d_head * scale**2
        layer = m.MultiHeadAttention(12, 3, d_head=d_head, causal=False, scale=scale).double()
        x, *weights = _draw((8, 60, 12), *[layer.query.weight.shape] * 2)
        layer.query.weight.data, layer.key.weight.data = (w / math.sqrt(12) for w in weights)  # variance 1
        if layer.heads(x)[0].shape != (8, 3, 60, d_head) or layer(x).shape != x.shape:
            return f"heads {d_head} wide were asked for, queries came as {tuple(layer.heads(x)[0].shape)}"
        spread = layer.weights(x).log().var(dim=-1).mean().item()  # a row's log weights are its scores, shifted
        if not 0.6 < spread / expected < 1.6:  # 0.9 to 1.2 here; a lost scale gives d_head, a wrong width 1/3
            return f"scores of heads {d_head} wide vary by {spread:.2g}, expected {expected:.2g}"


def _check_map(m):
    (x,) = _draw((2, 6, 12))
    padding = torch.tensor([[True] * 6, [False] * 2 + [True] * 4])
    for settings in ({}, {"causal": False}, {"qk_norm": True}, {"scale": 0.7}):
        layer = _layer(m, **settings)
        B, T, H, D = 2, 6, 3, 4
        q, k, v = (
            (x @ matrix.weight.T).view(B, T, H, D).transpose(1, 2) for matrix in (layer.query, layer.key, layer.value)
        )
        if settings.get("qk_norm"):
            q, k = (
                part / part.pow(2).mean(dim=-1, keepdim=True).sqrt() * norm.weight
                for part, norm in ((q, layer.q_norm), (k, layer.k_norm))
            )
        allowed = padding[:, None, None, :].expand(B, 1, T, T)
        if settings.get("causal", True):
            allowed = allowed & torch.ones(T, T).tril().bool()
        scores = q @ k.mT * settings.get("scale", 0.5)
        wanted = torch.nan_to_num(scores.masked_fill(~allowed, -math.inf).softmax(dim=-1))
        # float64, but the norm's own epsilon is float64's 2e-16, relative to squares of size 1
        if gap := difference(layer.weights(x, padding), wanted):
            return f"the map of a layer with {settings or 'nothing set'} and padding: {gap}"
        y = (wanted @ v).transpose(1, 2).reshape(B, T, H * D) @ layer.proj.weight.T
        if gap := difference(layer(x, padding), y):
            return f"the output of a layer with {settings or 'nothing set'} and padding: {gap}"


def _check_qk_norm(m):
    x, query, key = _draw((2, 6, 12), (12, 12), (12, 12))
    maps = []
    for queries, keys in ((1, 1), (1000, 1), (1, 1000)):
        layer = m.MultiHeadAttention(12, 3, qk_norm=True).double()
        layer.query.weight.data, layer.key.weight.data = query * queries, key * keys
        maps.append(layer.weights(x))
    for name, found in zip(("queries", "keys"), maps[1:], strict=True):
        if gap := difference(found, maps[0], tolerance=1e-6):  # the norm's own epsilon is 1e-16 of the squares
            return f"with QK-norm, {name} 1000 times longer changed the map: {gap}"
    names = [name for name, _ in layer.named_parameters()]
    if len(names) != 6 or layer.q_norm.weight is layer.k_norm.weight:
        return f"with QK-norm queries and keys have a learned gain each, found the parameters {names}"


def _check_nothing(m):
    q, k, v = _draw((3, 4), (5, 4), (5, 6))
    mask = torch.tensor([[True] * 5, [False] * 5, [True] * 5])
    q.requires_grad_()
    for name, function in (("attention", m.attention), ("attention_tiled", partial(m.attention_tiled, tile=2))):
        out = function(q, k, v, mask)
        if gap := difference(out[1], torch.zeros(6)):
            return f"{name}: row 1 may attend to nothing and should be zeros: {gap}"
        (slope,) = torch.autograd.grad(out.sum(), q)
        if gap := difference(slope[1], torch.zeros(4)):
            return f"{name}: row 1 may attend to nothing and its gradient should be zeros: {gap}"


def _check_padding(m):
    x, filler = _draw((2, 6, 12), (2, 3, 12))
    padding = torch.arange(9) < 6
    for causal in (False, True):
        layer = _layer(m, causal=causal)
        padded = layer(torch.cat([x, filler], dim=1), padding.expand(2, 9))
        if gap := difference(padded[:, :6], layer(x)):
            return f"three padded tokens were added and a real one's output moved: {gap}"


def _check_heads(m):
    layer, (x,) = _layer(m), _draw((2, 6, 12))
    layer.proj = nn.Identity()
    before = layer(x)
    layer.value.weight.data[:4] = 0  # head 0's values
    after = layer(x)
    if gap := difference(after[..., 4:], before[..., 4:]) or difference(after[..., :4], torch.zeros(2, 6, 4)):
        return f"head 0's values were set to zero: {gap} before the projection"


def _check_gradient(m):
    inputs = [t.requires_grad_() for t in _draw((2, 5, 4), (2, 7, 4), (2, 7, 6))]
    (d_out,) = _draw((2, 5, 6))  # not all ones: each row of weights sums to 1, which would hide the softmax's slope
    q, k, v = inputs
    for mask, scale in ((m.causal_mask(5, 7), 0.3), (None, None)):
        wanted = torch.autograd.grad(
            nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale), inputs, d_out
        )
        found = torch.autograd.grad(m.attention(q, k, v, mask, scale), inputs, d_out)
        for name, ours, theirs in zip(("dq", "dk", "dv"), found, wanted, strict=True):
            if gap := difference(ours, theirs):
                return f"{name} with {'a scale of 0.3 and a mask' if mask is not None else 'nothing given'}: {gap}"


def _check_online(m):
    scores, values, more, more_values = _draw((2, 5, 4), (2, 4, 3), (2, 5, 6), (2, 6, 3))
    for first, second in ((0.0, 0.0), (1000.0, 1000.0), (-1000.0, -1000.0), (1000.0, 0.0), (0.0, 1000.0)):
        largest = scores.new_full((2, 5, 1), torch.finfo(scores.dtype).min)
        state = largest, torch.zeros_like(largest), scores.new_zeros(2, 5, 3)
        for part, part_values in ((scores + first, values), (more + second, more_values)):
            state = m.online_step(*state, part, part_values)
        largest, total, mixed = state
        both = torch.cat([scores + first, more + second], dim=-1)
        case = f"four keys with scores near {first:g}, then six near {second:g}"
        if gap := difference(largest, both.amax(dim=-1, keepdim=True)):
            return f"{case}: largest: {gap}"
        if gap := difference(largest + total.log(), both.logsumexp(dim=-1, keepdim=True)):
            return f"{case}: largest + log(total): {gap}"
        if gap := difference(mixed / total, both.softmax(dim=-1) @ torch.cat([values, more_values], dim=-2)):
            return f"{case}: mixed / total: {gap}"


def _check_tiles(m):
    q, k, v, chance = _draw((2, 5, 4), (2, 7, 4), (2, 7, 6), (2, 5, 7))
    mask = chance > 0
    low_q, low_k = torch.cat([q, torch.ones(2, 5, 1)], dim=-1), torch.cat([k, torch.full((2, 7, 1), -2000.0)], dim=-1)
    for tile in (1, 3, 4, 16):
        plain = m.attention_tiled(q, k, v, mask, tile=tile), m.attention_loop(q, k, v, mask)
        causal = m.attention_tiled(q, k, v, causal=True, tile=tile), m.attention_loop(q, k, v, m.causal_mask(5, 7))
        if gap := difference(*plain) or difference(*causal):
            return f"tiles of {tile}: {gap}"
        if gap := difference(
            m.attention_tiled(low_q, low_k, v, scale=0.5, tile=tile), m.attention_loop(q, k, v, scale=0.5)
        ):
            return f"tiles of {tile}, a thousand taken off each score: {gap}"


def _check_tiles_backward(m):
    inputs = [t.requires_grad_() for t in _draw((2, 5, 4), (2, 7, 4), (2, 7, 6))]
    chance, d_out = _draw((2, 5, 7), (2, 5, 6))
    q, k, v = inputs
    for tile in (2, 3, 16):
        for causal in (False, True):
            mask = chance > -1
            found = torch.autograd.grad(m.attention_tiled(q, k, v, mask, 0.3, causal=causal, tile=tile), inputs, d_out)
            whole = mask & torch.ones(5, 7).tril(2).bool() if causal else mask
            wanted = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=whole, scale=0.3)
            for name, ours, theirs in zip(
                ("dq", "dk", "dv"), found, torch.autograd.grad(wanted, inputs, d_out), strict=True
            ):
                if gap := difference(ours, theirs):
                    return f"{name} by tiles of {tile}{', causal' if causal else ''}: {gap}"


def _check_memory(m):
    def forward_and_back(n):
        q, k, v = (t.requires_grad_() for t in _draw(*[(n, 4)] * 3))
        m.attention_tiled(q, k, v, torch.ones(1, n) > 0, tile=24).sum().backward()

    small, large = (peak_bytes(partial(forward_and_back, n)) for n in (192, 384))
    if large > 2 * small:  # 1.6 here; an n x n matrix, even of bools, gives 2.4
        return f"twice the tokens took {large / small:.1f} times the memory, forward and backward, expected at most 2"


def _check_half(m):
    for dtype, rounding in ((torch.bfloat16, 2**-8), (torch.float16, 2**-11)):
        for size in (1, 4, 12):
            q, k, v = (t.to(dtype) for t in _draw((9, 64), (70, 64), (70, 6)))
            q, k = q * size, k * size
            wanted = nn.functional.scaled_dot_product_attention(q.double(), k.double(), v.double())
            for function in (m.attention, m.attention_tiled):
                found = function(q, k, v).double()
                # the output is rounded once, to half a step of its size (under 4 here); scores in half lose a hundred
                if gap := difference(found, wanted, tolerance=4 * rounding):
                    return f"{function.__name__} in {dtype}, queries and keys of deviation {size}: {gap}"


def _check_autocast(m):
    layer, (x,) = m.MultiHeadAttention(12, 3), _draw((2, 6, 12), dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(x).float().sum().backward()
    if layer.query.weight.grad is None or not layer.query.weight.grad.isfinite().all():
        return "under autocast no gradient reaches the queries' matrix"


def _check_functional(m):
    q, k, v = _draw((3, 5, 4), (3, 7, 4), (3, 7, 6))
    alone = [
        torch.func.grad(lambda q, k, v: m.attention(q, k, v).square().sum())(*parts)
        for parts in zip(q, k, v, strict=True)
    ]
    together = torch.vmap(torch.func.grad(lambda q, k, v: m.attention(q, k, v).square().sum()))(q, k, v)
    if gap := difference(together, torch.stack(alone)):
        return f"gradients of three attentions stacked by vmap are not those of each alone: {gap}"


def _check_second_derivative(m):
    inputs = [t.requires_grad_() for t in _draw((2, 3, 4), (2, 5, 4), (2, 5, 2))]
    if not torch.autograd.gradgradcheck(lambda *qkv: m.attention(*qkv, None, 0.7), inputs, raise_exception=False):
        return "the second derivative of attention is not that of finite differences"
    slopes = torch.autograd.grad(m.attention(*inputs).square().sum(), inputs, create_graph=True)
    if not all(slope.requires_grad for slope in slopes):
        return "a slope of attention has no slope of its own"
    try:
        torch.autograd.grad(m.attention_tiled(*inputs).square().sum(), inputs, create_graph=True)
    except RuntimeError:
        return None
    return "attention_tiled gave a slope to be differentiated again, expected a refusal"


def _check_inputs(m):
    q, k, v = _draw((5, 4), (7, 4), (7, 6))
    numbers = torch.ones(5, 7)
    layer = m.MultiHeadAttention(8, 2)
    return refusal(
        [
            ("a mask of numbers, by attention,", "bool", lambda: m.attention(q, k, v, numbers)),
            (
                "a mask of whole numbers, by attention_weights,",
                "bool",
                lambda: m.attention_weights(q, k, numbers.int()),
            ),
            ("a mask of numbers, by attention_tiled,", "bool", lambda: m.attention_tiled(q, k, v, numbers)),
            (
                "a scale that is a tensor, by attention,",
                "number",
                lambda: m.attention(q, k, v, None, torch.tensor(0.5)),
            ),
            (
                "a scale that is a tensor, by attention_tiled,",
                "number",
                lambda: m.attention_tiled(q, k, v, None, q[0, 0]),
            ),
            ("a tile of 0", "tile is 0", lambda: m.attention_tiled(q, k, v, tile=0)),
            ("a tile of -3", "tile is -3", lambda: m.attention_tiled(q, k, v, tile=-3)),
            ("a mask for 2.5 queries", "2.5", lambda: m.causal_mask(2.5)),
            ("a mask for 3 queries and no keys", "keys is 0", lambda: m.causal_mask(3, 0)),
            ("10 channels for 4 heads", "divide", lambda: m.MultiHeadAttention(10, 4)),
            ("padding of numbers", "padding", lambda: layer(torch.zeros(1, 3, 8), torch.ones(1, 3))),
            ("padding for another length", "padding", lambda: layer(torch.zeros(1, 3, 8), torch.ones(1, 2) > 0)),
        ]
    )


CHECKS = [
    Check(
        "softmax is PyTorch's, also when a million is added to each score",
        _check_softmax,
        "From what does exp count?",
        about=["softmax"],
    ),
    Check(
        "softmax of a row of -inf alone is zeros",
        _check_nothing_left,
        "What is taken off such a row, and what divides it?",
        about=["softmax"],
    ),
    Check(
        "softmax_backward is the Jacobian times what arrives",
        _check_softmax_backward,
        "Raise one score of a row: what happens to the other weights?",
        about=["softmax_backward"],
    ),
    Check(
        "the causal mask of three tokens is the one drawn by hand",
        _check_mask,
        "Does a token see itself, and nothing after it? Where does the last query stand?",
        about=["causal_mask"],
    ),
    Check(
        "each row of weights sums to one",
        _check_rows,
        "Over which axis is the softmax, and does a mask come after it?",
        about=["attention_weights"],
    ),
    Check(
        "a pair that is not allowed weighs nothing, also where a row has no other",
        _check_masked,
        "Which score gets no weight at all?",
        about=["attention_weights"],
    ),
    Check(
        "without a scale, scores are divided by the root of the queries' width",
        _check_default_scale,
        "How wide are the vectors whose dot product is taken?",
        about=["attention_weights"],
    ),
    Check(
        "the tensor form equals the double loop",
        _check_loop,
        "Go from the scores to the weights to the sum, line by line: where do they part?",
        about=["attention_weights"],
    ),
    Check(
        "one step of the online softmax after another is the softmax of all",
        _check_online,
        "When a larger score comes, what must shrink? What if all scores are far below zero?",
        about=["online_step"],
    ),
    Check("every version equals PyTorch's own, with heads, padding and another scale", _check_torch),
    Check("the future does not reach a token, the past does", _check_peeking, "Is a mask absent, inverted, late?"),
    Check("without a mask, shuffled tokens give shuffled outputs", _check_order, "What depends on a token's position?"),
    Check("scores have variance one, however wide the heads", _check_variance, "What divides the scores?"),
    Check(
        "the layer's map and output follow from its matrices, with padding, causal or not, normed or not",
        _check_map,
        "Which matrix makes what, and what reaches `weights` that does not reach `forward`?",
    ),
    Check("with QK-norm, longer queries or keys change nothing", _check_qk_norm, "Are they divided by their length?"),
    Check(
        "a row with nothing to attend to is zeros, and its gradient too",
        _check_nothing,
        "Follow its scores into the softmax.",
    ),
    Check("padding changes nothing", _check_padding, "Do padded keys weigh nothing?"),
    Check("heads do not mix before the output projection", _check_heads, "Are heads and tokens in the right order?"),
    Check(
        "the backward pass by hand equals autograd's through PyTorch's attention",
        _check_gradient,
        "If no check above fails, derive that line again.",
    ),
    Check("tiles give the same answer as the double loop", _check_tiles, "Which keys may a tile see?"),
    Check("the backward pass by tiles equals autograd's", _check_tiles_backward, "Which tile adds to which gradient?"),
    Check("the tiled version's memory grows linearly, backward too", _check_memory, "Which tensor is n x n?"),
    Check("half precision is as exact as its output can be", _check_half, "In which type are the scores and sums?"),
    Check("the backward pass runs under autocast", _check_autocast),
    Check("vmap and functional gradients go through", _check_functional),
    Check("a second derivative is right, or refused", _check_second_derivative),
    Check("what would be silently wrong is refused in words", _check_inputs),
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
            return f"with a sink of {sink:g}: {gap}"
    if gap := difference(m.attention_with_sink(q, k, v, 2000.0), torch.zeros(5, 4)):
        return f"a sink of 2000 should take everything: {gap}"


def _check_merge(m):
    q, k, v = _draw((5, 4), (7, 4), (7, 6))
    scores = q @ k.mT / 2
    parts = []
    for keys in (slice(0, 3), slice(3, 7)):
        parts += [scores[:, keys].softmax(dim=1) @ v[keys], scores[:, keys].logsumexp(dim=1)]
    if gap := difference(m.merge(*parts), scores.softmax(dim=1) @ v):
        return f"the two parts, joined: {gap}"
    far = m.merge(parts[0], parts[1] + 2000, parts[2], parts[3])
    if gap := difference(far, parts[0]):
        return f"part A outweighs part B by e^2000: {gap}"


EXERCISES = [
    Check("soft_cap keeps scores within the cap and leaves small ones alone", _check_soft_cap),
    Check(
        "attention_with_sink gives weight to nothing",
        _check_sink,
        "What is taken off before exp? The sink is not scaled, and its value is zero.",
    ),
    Check(
        "merge joins two attentions into one",
        _check_merge,
        "What share of the whole sum of exp(score) lies in each part? What is taken off before exp?",
    ),
]
