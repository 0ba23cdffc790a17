"""The checks of lesson 03: what a right `rope.py` must do, and what a reader's exercises must do.

Sizes are pairwise different on purpose: with as many heads as tokens an axis mixed up would pass.
"""

import math

import torch

from shared.clinic import Check, difference


def _draw(*shapes, seed=0):
    """Normal float64 tensors."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def _layer(m, kind="Rotary"):
    """A layer of three heads, 4 wide each, with set weights in float64."""
    layer = getattr(m, kind)(12, 3).double()
    for parameter, values in zip(layer.parameters(), _draw(*(p.shape for p in layer.parameters())), strict=True):
        parameter.data = values / math.sqrt(12)
    return layer


def _check_speeds(m):
    for d, base in ((8, 10_000.0), (64, 500_000.0)):
        found, ratio = m.speeds(d, base), base ** (-2 / d)
        if gap := difference(found, torch.tensor([ratio**i for i in range(d // 2)], dtype=torch.float64)):
            return f"{d} numbers, base {base:g}: the speeds are 1 and each {ratio:.3g} times the one before: {gap}"


def _check_precision(m):
    positions, speeds = torch.tensor([256, 257, 100_001]), torch.tensor([1.0, 0.1, 0.01], dtype=torch.float64)
    wanted = torch.tensor([[256, 25.6, 2.56], [257, 25.7, 2.57], [100_001, 10_000.1, 1000.01]], dtype=torch.float64)
    if gap := difference(m.angles(positions, speeds), wanted):
        return f"angles at positions 256, 257 and 100,001: {gap}"


def _check_sinusoids(m):
    table = m.sinusoids(torch.arange(40), 6, base=100.0)
    angle = 7 * 100 ** (-2 / 6)
    if gap := difference(table[7, 2:4], torch.tensor([math.sin(angle), math.cos(angle)], dtype=torch.float64)):
        return f"the second pair at position 7 is the sine and the cosine of {angle:.4g}: {gap}"
    if gap := difference(table.unflatten(-1, (-1, 2)).square().sum(dim=-1), torch.ones(40, 3)):
        return f"sine and cosine of one pair share an angle, so their squares sum to 1: {gap}"


def _check_matrix(m):
    (x,) = _draw((2, 5, 6))
    angles = m.angles(torch.arange(5), m.speeds(6))
    wanted = torch.stack([x[:, t] @ m.rotation_matrix(angles[t]).T for t in range(5)], dim=1)
    for name in ("rotate_complex", "rotate_pairs"):
        if gap := difference(getattr(m, name)(x, angles), wanted):
            return f"{name} is not a product with the matrix of 2 x 2 rotations: {gap}"
    order = [0, 2, 4, 1, 3, 5]
    if gap := difference(m.rotate_halves(x[..., order], angles), wanted[..., order]):
        return f"rotate_halves turns number i with i + d/2: {gap}"


def _check_length(m):
    (x,) = _draw((2, 5, 6))
    angles = m.angles(torch.tensor([0, 1, 2, 30, 4000]), m.speeds(6))
    for name in ("rotate_complex", "rotate_pairs", "rotate_halves"):
        turned = getattr(m, name)(x, angles)
        if gap := difference(turned[:, 0], x[:, 0]):
            return f"{name}: position 0 has turned by nothing, and yet moved: {gap}"
        if gap := difference(turned.norm(dim=-1), x.norm(dim=-1)):
            return f"{name}: a rotation keeps lengths: {gap}"


def _check_distance(m):
    q, k = _draw((1, 8), (1, 8))
    positions = torch.arange(30)
    angles = m.angles(positions, m.speeds(8))
    distance = positions[:, None] - positions
    for name in ("rotate_pairs", "rotate_halves"):
        rotate = getattr(m, name)
        scores = rotate(q.expand(30, 8), angles) @ rotate(k.expand(30, 8), angles).T
        for offset in range(-29, 30):
            same = scores[distance == offset]
            if gap := difference(same, same[:1].expand_as(same)):
                return f"{name}: the same two vectors {offset} apart have several scores: {gap}"


def _check_far(m):
    q, k = _draw((1, 8), (1, 8))
    for shift in (1000, 30_000):
        near, far = (
            m.rotate_halves(q.float(), m.angles(torch.tensor([7 + at]), m.speeds(8)))
            @ m.rotate_halves(k.float(), m.angles(torch.tensor([3 + at]), m.speeds(8))).T
            for at in (0, shift)
        )
        if gap := difference(far, near, tolerance=1e-5):  # float32 rounds at 1e-7; sums of 8 products of size 1
            return f"the same two tokens {shift} places on have another score: {gap}"


def _check_order(m):
    q, k = _draw((5, 8), (5, 8))
    angles, order = m.angles(torch.arange(5), m.speeds(8)), m.pairs_to_halves(8)
    wanted = m.rotate_pairs(q, angles) @ m.rotate_pairs(k, angles).T
    if gap := difference(m.rotate_halves(q[:, order], angles) @ m.rotate_halves(k[:, order], angles).T, wanted):
        return f"weights reordered for the other layout give other scores: {gap}"


def _check_scale_one(m):
    plain = m.speeds(16)
    ways = {
        "interpolated": m.interpolated(16, 1.0),
        "ntk_aware": m.ntk_aware(16, 1.0),
        "dynamic_ntk, within the trained length": m.dynamic_ntk(16, 60, 64, 8.0),
        "yarn": m.yarn(16, 1.0, 64),
    }
    for name, scaling in ways.items():
        if not torch.equal(scaling.speeds, plain) or scaling.attention_factor != 1:
            return f"{name}: nothing is to be stretched, and the speeds or the attention factor have changed"


def _check_interpolated(m):
    found = m.angles(torch.arange(0, 40, 4), m.interpolated(16, 4.0).speeds)
    if gap := difference(found, m.angles(torch.arange(10), m.speeds(16))):
        return f"with a scale of 4, position 4 m should have the angles of position m: {gap}"


def _check_ntk(m):
    for name, scaling in (("ntk_aware", m.ntk_aware(16, 4.0)), ("dynamic_ntk", m.dynamic_ntk(16, 160, 64, 2.0))):
        wanted = m.speeds(16)[[0, -1]] / torch.tensor([1.0, 4.0])  # 2 * 160 / 64 - 1 = 4
        if gap := difference(scaling.speeds[[0, -1]], wanted):
            return f"{name}, stretched 4 times: the fastest pair keeps its speed, the slowest has a quarter: {gap}"


def _check_yarn(m):
    plain, found = m.speeds(64), m.yarn(64, 4.0, 4096)
    ratio = plain / found.speeds  # 1: kept, 4: interpolated
    turns = 4096 * plain / (2 * math.pi)
    if gap := difference(ratio[turns > 40], torch.ones(int((turns > 40).sum()))):
        return f"a pair that turns more than 32 times in 4096 positions keeps its speed: {gap}"
    if gap := difference(ratio[turns < 0.8], torch.full((int((turns < 0.8).sum()),), 4.0)):
        return f"a pair that turns less than once in 4096 positions is slowed down 4 times: {gap}"
    if (ratio.diff() < -1e-12).any() or abs(found.attention_factor - (0.1 * math.log(4) + 1)) > 1e-12:
        return f"the ramp should rise and the attention factor be 0.1 ln 4 + 1, found {found.attention_factor:.4f}"
    layer, (x,) = _layer(m), _draw((1, 3, 7, 4))
    plain, layer.scaling = layer.place(x), m.Scaling(m.speeds(4), 2.0)
    if gap := difference(layer.place(x), 2 * plain):
        return f"with an attention factor of 2 a query, or a key, is twice as long: {gap}"


def _check_turns(m):
    found = int((m.full_turns(m.speeds(64), 64) >= 1).sum())
    if found != 9:
        return f"with d = 64 and base 10,000, 9 of 32 pairs come all round within 64 positions, found {found}"


def _check_slopes(m):
    cases = {8: [2.0**-i for i in range(1, 9)], 4: [0.25, 0.0625, 2**-6, 2**-8], 1: [2**-8]}
    cases[12] = cases[8] + [2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]
    cases[3] = [2**-4, 2**-8, 0.25]
    for n, wanted in cases.items():
        found = m.alibi_slopes(n)
        if found.shape != (n,) or difference(found, torch.tensor(wanted, dtype=torch.float64)):
            return f"slopes of {n} heads are {[round(x, 4) for x in found.tolist()]}, published are {wanted}"


def _check_bias(m):
    found = m.alibi_bias(torch.tensor([0.5, 0.25]), 2, 3)
    wanted = -torch.tensor([[[1.0, 0, 1], [2, 1, 0]]]) * torch.tensor([0.5, 0.25])[:, None, None]
    if gap := difference(found, wanted):
        return f"two queries, the last two of three tokens; minus slope times distance: {gap}"


def _check_values(m):
    for kind in ("Rotary", "Alibi"):
        layer, (x,) = _layer(m, kind), _draw((2, 7, 12))
        layer.qkv.weight.data[:24] = 0  # queries and keys
        layer.qkv.bias.data[:24] = 0
        layer.window = 1  # each token sees itself alone
        if gap := difference(layer(x), layer.proj(x @ layer.qkv.weight[24:].T + layer.qkv.bias[24:])):
            return f"{kind}: a token that sees itself alone should hand on its value as it is: {gap}"


def _check_heads(m):
    layer, (x,) = _layer(m), _draw((1, 7, 12))
    for part in (0, 12, 24):  # three equal heads
        layer.qkv.weight.data[part : part + 12] = layer.qkv.weight.data[part : part + 4].repeat(3, 1)
        layer.qkv.bias.data[part : part + 12] = layer.qkv.bias.data[part : part + 4].repeat(3)
    layer.proj = torch.nn.Identity()
    out = layer(x)
    if gap := difference(out[..., 4:], out[..., :4].repeat(1, 1, 2)):
        return f"three heads with the same weights answer differently: {gap}"
    order = torch.tensor([2, 0, 1, 4, 3, 5, 6])
    if not difference(layer(x[:, order])[:, -1], out[:, -1], tolerance=1e-3):
        return "six tokens in another order, and the last token's output is the same: order does not reach the scores"


def _check_cache(m):
    for kind in ("Rotary", "Alibi"):
        layer, (x,) = _layer(m, kind), _draw((2, 7, 12))
        layer.window = 4
        cache, wanted = [], layer(x)
        steps = [layer(x[:, :3], cache), *(layer(x[:, t : t + 1], cache) for t in range(3, 7))]
        if gap := difference(torch.cat(steps, dim=1), wanted):
            return f"{kind}: three tokens at once, then one by one, is not all at once: {gap}"


def _check_window(m):
    layer, (x,) = _layer(m), _draw((2, 7, 12))
    for window, first in ((None, 0), (3, 4)):
        layer.window = window
        for changed in range(7):
            y = x.clone()
            y[:, changed] += 1
            moved = (layer(y) != layer(x)).any(dim=-1).any(dim=0)
            if moved[-1] != (changed >= first) or moved[:changed].any():
                return f"window {window}: token {changed} was changed, outputs {moved.nonzero()[:, 0].tolist()} moved"


CHECKS = [
    Check("speeds fall by the same factor from pair to pair", _check_speeds),
    Check("large angles are exact", _check_precision, "In which type are position and speed multiplied?"),
    Check("sinusoids are the published table", _check_sinusoids),
    Check(
        "complex numbers, pairs and halves are one rotation matrix", _check_matrix, "Which angle does each number get?"
    ),
    Check(
        "lengths are kept, and position 0 is left alone",
        _check_length,
        "Do both numbers of a pair turn by the same angle?",
    ),
    Check("scores depend on the distance alone", _check_distance),
    Check("and do so far from the start", _check_far, "How exact is a large angle?"),
    Check("weights can change their layout", _check_order, "Numbers 0 and 1 are a pair: where do they have to stand?"),
    Check("a scale of 1 changes nothing", _check_scale_one),
    Check("interpolation puts position 4 m where m was", _check_interpolated, "Times, or divided by?"),
    Check("an NTK-aware base stretches the slowest pair alone in full", _check_ntk),
    Check("YaRN keeps fast pairs and stretches slow ones", _check_yarn),
    Check("9 of 32 pairs come all round within 64 positions", _check_turns),
    Check("ALiBi's slopes are the published ones", _check_slopes),
    Check("ALiBi takes off slope times distance", _check_bias, "What do far keys get?"),
    Check("values are not turned", _check_values),
    Check("equal heads answer equally, and order matters", _check_heads, "Along which axis do positions run?"),
    Check("with a cache, position p at step p", _check_cache, "Which position has a step?"),
    Check("nobody sees the future, or beyond the window", _check_window),
]


def _check_score(m):
    q, k = _draw((8,), (8,))
    speeds = 10_000.0 ** (-torch.arange(0, 8, 2, dtype=torch.float64) / 8)
    distances = torch.tensor([-40, -1, 0, 3, 1000])
    a, b = torch.view_as_complex(q.view(4, 2)), torch.view_as_complex(k.view(4, 2))
    wanted = (a * b.conj() * torch.exp(1j * distances[:, None] * speeds)).real.sum(dim=1)
    if gap := difference(m.score_by_distance(q, k, speeds, distances), wanted, tolerance=1e-9):
        return f"the score of q and k (pairs are neighbours) at distances -40, -1, 0, 3, 1000: {gap}"


def _check_base(m):
    for d, length in ((64, 4096), (128, 1_000_000), (4, 100)):
        found = m.base_for(d, length)
        turns = length * found ** (-(d - 2) / d) / (2 * math.pi)
        if not abs(turns - 1) < 1e-6:
            return f"d {d}, length {length}: with base {found:.6g} the slowest pair turns {turns:.4g} times, not once"


def _check_partial(m):
    (x,) = _draw((2, 5, 8))
    angles = torch.arange(5, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.1, 0.01, 0.001], dtype=torch.float64)
    for n_pairs in (0, 1, 3, 4):
        pairs = torch.view_as_complex(x.view(2, 5, 4, 2)) * torch.exp(1j * angles * (torch.arange(4) < n_pairs))
        if gap := difference(m.partial_rotation(x, angles, n_pairs), torch.view_as_real(pairs).flatten(-2)):
            return f"{n_pairs} of 4 pairs turned (the fastest): {gap}"


EXERCISES = [
    Check("the score without turning anything", _check_score),
    Check("a base for a length", _check_base),
    Check("some pairs turn, the others stay", _check_partial),
]
