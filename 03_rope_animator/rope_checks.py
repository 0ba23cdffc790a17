"""What a right `rope.py` must do, and what a reader's exercises must do. Each check takes the module.

Sizes are pairwise different on purpose: with as many heads as tokens an axis mixed up would pass. So are constants: a
theta of 10,000 would hide that another one was ignored.
"""

import math

import torch

from shared.cache import KVCache
from shared.clinic import Check, difference, refusal


def _draw(*shapes, seed=0):
    """Normal float64 tensors."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def _layer(m, kind="Rotary", **sizes):
    """A layer of three heads, 4 wide each, with set weights in float64."""
    layer = getattr(m, kind)(12, 3, **sizes).double()
    for parameter, values in zip(layer.parameters(), _draw(*(p.shape for p in layer.parameters())), strict=True):
        parameter.data = values / math.sqrt(12)
    return layer


def _column(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def _pair_of(angle, a, b):
    """A point of the plane, turned."""
    return a * math.cos(angle) - b * math.sin(angle), a * math.sin(angle) + b * math.cos(angle)


def _turned(x, positions, frequencies, layout):
    """x (T, d) turned number by number: the reference of all that follows."""
    d, out = x.shape[-1], x.clone()
    for t, position in enumerate(positions):
        for i, frequency in enumerate(frequencies):
            first, second = (2 * i, 2 * i + 1) if layout == "pairs" else (i, i + d // 2)
            turned = _pair_of(position * frequency, x[t, first].item(), x[t, second].item())
            out[t, first], out[t, second] = turned
    return out


def _check_inv_freq(m):
    for d, theta in ((2, 100.0), (4, 10_000.0), (8, 10_000.0), (64, 500_000.0)):
        ratio = theta ** (-2 / d)
        if gap := difference(m.inv_freq(d, theta), _column([ratio**i for i in range(d // 2)])):
            return f"d {d}, theta {theta:g}: the first is 1, each next is {ratio:.3g} times the one before: {gap}"


def _check_angles(m):
    frequencies = _column([1.0, 0.1, 0.01])
    rows = {256: [256, 25.6, 2.56], 257: [257, 25.7, 2.57], 100_001: [100_001, 10_000.1, 1000.01]}
    positions, wanted = torch.tensor(list(rows)), _column(list(rows.values()))
    if gap := difference(m.angles(positions, frequencies), wanted):
        return f"at positions 256, 257 and 100,001: {gap}"
    if gap := difference(m.angles(torch.stack([positions, positions - 256]), frequencies)[0], wanted):
        return f"with a row of positions for each of two texts: {gap}"


def _check_turns(m):
    found = m.full_turns(m.inv_freq(64), 64)
    if gap := difference(found, 64 / (2 * math.pi / m.inv_freq(64))):
        return f"d 64, 64 positions: a pair's turns are 64 over its wavelength: {gap}"
    if (whole := int((found >= 1).sum())) != 9:
        return f"d 64, theta 10,000: 9 of 32 pairs make a full turn within 64 positions, found {whole}"
    if gap := difference(m.full_turns(_column([1.0]), 1), _column([0.5 / math.pi])):
        return f"1 radian in a length of 1: {gap}"


def _check_sinusoids(m):
    table, angle = m.sinusoids(torch.arange(40), 6, 100.0), 7 * 100 ** (-2 / 6)
    if gap := difference(table[7, :4], _column([math.sin(7), math.cos(7), math.sin(angle), math.cos(angle)])):
        return f"position 7, theta 100, sine and cosine of 7 and of {angle:.4g}: {gap}"
    if gap := difference(table.unflatten(-1, (-1, 2)).square().sum(dim=-1), torch.ones(40, 3)):
        return f"sine and cosine of one pair have one angle, so their squares sum to 1: {gap}"


def _check_bridge(m):
    order = [1, 0, 3, 2, 5, 4]  # cosine first: a point of the plane
    here, there = (m.sinusoids(torch.arange(9) + k, 6)[:, order] for k in (0, 5))
    if gap := difference(here @ m.rotation_matrix(5 * m.inv_freq(6)).T, there):
        return f"row p + 5 of the sinusoids is row p turned by the angles of 5: {gap}"


def _check_matrix(m):
    turned = [m.rotation_matrix(n * m.inv_freq(6)) for n in (3, 8, 5)]
    if gap := difference(turned[0].T @ turned[1], turned[2]):
        return f"R_3 transposed times R_8 is R_5: {gap}"
    if gap := difference(m.rotation_matrix(_column([0.5]))[:, 0], _column(_pair_of(0.5, 1.0, 0.0))):
        return f"the point (1, 0) turned by 0.5: {gap}"


def _check_form(name, layout):
    def check(m):
        (x,) = _draw((2, 5, 6))
        positions, rotate = [0, 1, 2, 30, 4000], getattr(m, name)
        angles = m.angles(torch.tensor(positions), m.inv_freq(6))
        wanted = torch.stack([_turned(row, positions, m.inv_freq(6).tolist(), layout) for row in x])
        if gap := difference(rotate(x, angles), wanted):
            return f"{name}: {gap}"
        if gap := difference(rotate(x[:, None], torch.stack([angles, 2 * angles])[:, None])[0, 0], wanted[0]):
            return f"{name}, with other angles for each of two texts: {gap}"
        if gap := difference(rotate(x, angles).norm(dim=-1), x.norm(dim=-1)):
            return f"{name}: a rotation keeps lengths: {gap}"

    return check


def _check_half(m):
    x = _draw((3, 8))[0].bfloat16()
    positions = [257, 1001, 30_001]
    for name, layout in (("rotate_pairs", "pairs"), ("rotate_halves", "halves"), ("rotate_complex", "pairs")):
        found = getattr(m, name)(x, m.angles(torch.tensor(positions), m.inv_freq(8)))
        wanted = _turned(x.double(), positions, m.inv_freq(8).tolist(), layout)
        if found.dtype != torch.bfloat16:
            return f"{name}: bfloat16 came back as {found.dtype}"
        if gap := difference(found.double(), wanted, tolerance=0.05):  # a few roundings of 2^-9 at sizes up to 4
            return f"{name} in bfloat16 at positions 257, 1,001 and 30,001: {gap}"


def _check_distance(m):
    q, k = _draw((1, 8), (1, 8))
    positions = torch.arange(30)
    angles, distance = m.angles(positions, m.inv_freq(8)), positions[:, None] - positions
    for name in ("rotate_pairs", "rotate_halves"):
        rotate = getattr(m, name)
        scores = rotate(q.expand(30, 8), angles) @ rotate(k.expand(30, 8), angles).T
        for offset in range(-29, 30):
            same = scores[distance == offset]
            if gap := difference(same, same[:1].expand_as(same)):
                return f"{name}: the same two vectors {offset} apart have several scores: {gap}"


def _check_far(m):
    q, k = _draw((1, 8), (1, 8))
    near, *others = (
        m.rotate_halves(q.float(), m.angles(torch.tensor([7 + at]), m.inv_freq(8)))
        @ m.rotate_halves(k.float(), m.angles(torch.tensor([3 + at]), m.inv_freq(8))).T
        for at in (0, 1000, 30_000)
    )
    for found in others:
        if gap := difference(found, near, tolerance=1e-5):  # float32 rounds at 1e-7; sums of 8 products of size 1
            return f"float32, the same two vectors at positions 1,000 or 30,000 on have another score: {gap}"


def _check_order(m):
    q, k = _draw((5, 8), (5, 8))
    angles, order = m.angles(torch.arange(5), m.inv_freq(8)), m.pairs_to_halves(8)
    wanted = m.rotate_pairs(q, angles) @ m.rotate_pairs(k, angles).T
    if gap := difference(m.rotate_halves(q[:, order], angles) @ m.rotate_halves(k[:, order], angles).T, wanted):
        return f"weights reordered for the other layout give other scores: {gap}"


def _check_backward(m):
    x, d_out = _draw((2, 5, 6), (2, 5, 6))
    angles = m.angles(torch.arange(5), m.inv_freq(6))
    matrix = torch.func.jacrev(lambda x: m.rotate_halves(x, angles))(x).flatten(3).flatten(0, 2)  # (60, 60)
    if gap := difference(m.rotate_backward(d_out, angles).flatten(), d_out.flatten() @ matrix):
        return f"it is not d_out times the Jacobian of rotate_halves: {gap}"


def _by_hand(layer, x, positions, frequencies, causal_window, factor=1.0, slopes=None):
    """What a layer must answer, (B, T, 12), in loops over texts and heads."""
    B, T, H, K, d = len(x), x.shape[1], layer.n_heads, layer.n_kv_heads, layer.d_head
    parts = (x @ layer.qkv.weight.T + layer.qkv.bias).view(B, T, H + 2 * K, d)
    distance = torch.arange(T)[:, None] - torch.arange(T)
    seen = (distance >= 0) & (distance < causal_window)
    read = torch.zeros(B, T, H, d, dtype=torch.float64)
    for b in range(B):
        for h in range(H):
            g = h // (H // K)
            q, k, v = parts[b, :, h], parts[b, :, H + g], parts[b, :, H + K + g]
            if frequencies is not None:
                q, k = (factor * _turned(each, positions[b], frequencies, "halves") for each in (q, k))
            scores = q @ k.T / math.sqrt(d) - (0 if slopes is None else slopes[h] * distance)
            read[b, :, h] = scores.masked_fill(~seen, -math.inf).softmax(-1) @ v
    return read.flatten(2) @ layer.proj.weight.T + layer.proj.bias


def _check_layer(m):
    (x,) = _draw((2, 7, 12))
    for sizes, window in (({}, 99), ({"n_kv_heads": 1}, 99), ({"window": 3}, 3), ({"theta": 50.0}, 99)):
        layer = _layer(m, **sizes)
        frequencies = [1.0, sizes.get("theta", 10_000.0) ** -0.5]
        with torch.no_grad():
            wanted = _by_hand(layer, x, [range(7)] * 2, frequencies, window)
            if gap := difference(layer(x), wanted):
                return f"Rotary with {sizes or 'nothing set'} is not queries and keys turned, then attention: {gap}"


def _check_factor(m):
    layer, (x,) = _layer(m), _draw((2, 7, 12))
    with torch.no_grad():
        layer.scaling = m.Scaling(_column([0.7, 0.2]), 1.3)
        if gap := difference(layer(x), _by_hand(layer, x, [range(7)] * 2, [0.7, 0.2], 99, 1.3)):
            return f"with other frequencies and an attention factor of 1.3: {gap}"


def _check_layers_gradient(m):
    layer, (x, d_out) = _layer(m), _draw((1, 3, 5, 4), (1, 3, 5, 4))
    x.requires_grad_()
    (found,) = torch.autograd.grad(layer.place(x), x, d_out)
    angles = m.angles(torch.arange(5), layer.scaling.inv_freq)
    if gap := difference(found, m.rotate_backward(d_out, angles)):
        return f"place: the gradient is not turned back: {gap}"
    if not torch.autograd.gradgradcheck(layer.place, x, raise_exception=False):
        return "place: the second derivative is not that of finite differences"
    each = torch.vmap(torch.func.grad(lambda x: layer.place(x).square().sum()))(x[:, :, None])
    if gap := difference(each, 2 * x[:, :, None].detach()):  # a rotation keeps the squares' sum
        return f"place: gradients stacked by vmap: {gap}"


def _check_positions(m):
    layer, (x,) = _layer(m), _draw((2, 7, 12))
    positions = torch.tensor([[0, 1, 2, 3, 4, 5, 6], [0, 0, 0, 1, 2, 3, 9]])
    with torch.no_grad():
        if gap := difference(layer(x, positions), _by_hand(layer, x, positions.tolist(), [1.0, 0.01], 99)):
            return f"with a row of positions for each of two texts: {gap}"
        if gap := difference(layer(x, positions + 1000), layer(x, positions), tolerance=1e-8):
            return f"all positions 1,000 on, another answer: {gap}"


def _check_cache(m):
    for kind in ("Rotary", "Alibi"):
        layer, (x,) = _layer(m, kind), _draw((2, 7, 12))
        padding, whole = torch.tensor([0, 2]), torch.zeros(2, 7, 12, dtype=torch.float64)
        cache = KVCache(1, 2, 3, 7, 4, padding=padding, dtype=torch.float64)
        with torch.no_grad():
            for row, n in enumerate(padding):
                whole[row, n:] = layer(x[row : row + 1, n:])[0]
            for first, last in ((0, 4), (4, 5), (5, 7)):
                (stored,), where = cache.layers(last - first), cache.positions(last - first)
                found = layer(x[:, first:last], where, stored)
                cache.advance(last - first)
                for row, n in enumerate(padding):
                    begin = max(first, int(n))
                    if gap := difference(found[row, begin - first :], whole[row, begin:last]):
                        return f"{kind}, a text padded by {n}, tokens {first} to {last - 1} from a cache: {gap}"


def _check_refilled(m):
    layer, (x,) = _layer(m), _draw((1, 5, 12))
    cache = KVCache(1, 1, 3, 9, 4, dtype=torch.float64)
    with torch.no_grad():
        layer(x, None, cache.layers(5)[0])
        cache.advance(5)
        layer.scaling = m.interpolated(4, 2.0)
        if bad := refusal(
            [("a new scaling with a filled cache", "", lambda: layer(x[:, :1], None, cache.layers(1)[0]))]
        ):
            return bad
        cache.step_back(5)
        layer(x, None, cache.layers(5)[0])


def _check_scale_one(m):
    plain = m.inv_freq(16, 300.0)
    ways = {
        "interpolated": m.interpolated(16, 1.0, 300.0),
        "ntk_aware": m.ntk_aware(16, 1.0, 300.0),
        "dynamic_ntk, within the trained length": m.dynamic_ntk(16, 60, 64, 8.1, 300.0),
        "dynamic_ntk, at the trained length": m.dynamic_ntk(16, 49, 49, 1.1, 300.0),
        "yarn": m.yarn(16, 1.0, 64, 300.0),
        "llama3": m.llama3(16, 1.0, 64, 300.0),
    }
    for name, scaling in ways.items():
        if gap := difference(scaling.inv_freq, plain, tolerance=1e-15):
            return f"{name}, theta 300: nothing is to be stretched, and the frequencies have changed: {gap}"
        if scaling.attention_factor != 1:
            return f"{name}: nothing is to be stretched, and the attention factor is {scaling.attention_factor}"


def _check_interpolated(m):
    found = m.angles(torch.arange(0, 40, 4), m.interpolated(16, 4.0, 300.0).inv_freq)
    if gap := difference(found, m.angles(torch.arange(10), m.inv_freq(16, 300.0))):
        return f"with a scale of 4, theta 300, position 4 m should have the angles of position m: {gap}"


def _check_ntk(m):
    wanted = _column([300 ** (-i / 8) * 4 ** (-i / 7) for i in range(8)])
    if gap := difference(m.ntk_aware(16, 4.0, 300.0).inv_freq, wanted):
        return f"d 16, scale 4, theta 300: pair i of 0 to 7 is slowed down 4^(i / 7) times: {gap}"
    if gap := difference(m.ntk_aware(4, 4.0).inv_freq, _column([1, 0.0025])):
        return f"d 4, scale 4: the slow one of two pairs, 0.01, has a quarter: {gap}"


def _check_dynamic(m):
    found = m.dynamic_ntk(16, 160, 64, 2.0, 300.0).inv_freq  # 1 + 2 (160 / 64 - 1) = 4
    if gap := difference(found, _column([300 ** (-i / 8) * 4 ** (-i / 7) for i in range(8)])):
        return f"d 16, theta 300, 160 of 64 tokens at scale 2, so a scale of 4: {gap}"


def _check_yarn(m):
    for d, trained, theta, low, high in ((64, 4096, 10_000.0, 10, 23), (16, 64, 300.0, 0, 4), (16, 4, 300.0, 0, 1)):
        wanted = []
        for i in range(d // 2):
            kept = 1 - min(max((i - low) / (high - low), 0), 1)
            wanted.append(theta ** (-2 * i / d) * (kept + (1 - kept) / 4))
        found = m.yarn(d, 4.0, trained, theta)
        if gap := difference(found.inv_freq, _column(wanted)):
            return f"d {d}, trained {trained}, theta {theta:g}, scale 4: a ramp from pair {low} to {high}: {gap}"
        if abs(found.attention_factor - 1.138629436) > 1e-8:
            return f"the attention factor of scale 4 is 0.1 ln 4 + 1 = 1.1386, found {found.attention_factor:.4f}"
    named = m.yarn(64, 4.0, 4096, fast=16, slow=2).inv_freq
    ramp = [1 - min(max((i - 12) / (21 - 12), 0), 1) for i in range(32)]  # 12.9 counted down, 20.2 counted up
    if gap := difference(named, _column([10_000 ** (-i / 32) * (k + (1 - k) / 4) for i, k in enumerate(ramp)])):
        return f"d 64, trained 4096, fast 16, slow 2: a ramp from pair 12 to 21: {gap}"


def _check_llama3(m):
    for theta, fast, slow in ((500_000.0, 4, 1), (300.0, 3, 2)):
        wanted = []
        for i in range(64):
            frequency = theta ** (-2 * i / 128)
            wavelength = 2 * math.pi / frequency
            if wavelength < 8192 / fast:
                wanted.append(frequency)
            elif wavelength > 8192 / slow:
                wanted.append(frequency / 8)
            else:
                smooth = (8192 / wavelength - slow) / (fast - slow)
                wanted.append((1 - smooth) * frequency / 8 + smooth * frequency)
        found = m.llama3(128, 8.0, 8192, theta, fast, slow)
        if gap := difference(found.inv_freq, _column(wanted)):
            return f"d 128, scale 8, trained 8,192, theta {theta:g}, fast {fast}, slow {slow}: {gap}"
        if found.attention_factor != 1:
            return f"it has no attention factor, found {found.attention_factor}"
    if gap := difference(m.llama3(128, 8.0, 8192).inv_freq, m.llama3(128, 8.0, 8192, 500_000.0, 4, 1).inv_freq):
        return f"its files have theta 500,000, high_freq_factor 4 and low_freq_factor 1: {gap}"


def _check_slopes(m):
    cases = {8: [2.0**-i for i in range(1, 9)], 4: [0.25, 0.0625, 2**-6, 2**-8], 1: [2**-8]}
    cases[12] = cases[8] + [2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]
    cases[3] = [2**-4, 2**-8, 0.25]
    for n, wanted in cases.items():
        found = m.alibi_slopes(n)
        if found.shape != (n,) or difference(found, _column(wanted)):
            return f"slopes of {n} heads are {[round(x, 4) for x in found.tolist()]}, published are {wanted}"


def _check_bias(m):
    found = m.alibi_bias(torch.tensor([0.5, 0.25]), 2, 3)
    wanted = -torch.tensor([[[1.0, 0, 1], [2, 1, 0]]]) * torch.tensor([0.5, 0.25])[:, None, None]
    if gap := difference(found, wanted):
        return f"two queries, the last two of three tokens; minus slope times distance: {gap}"


def _check_alibi_layer(m):
    (x,) = _draw((2, 7, 12))
    for sizes, window in (({}, 99), ({"n_kv_heads": 1}, 99), ({"window": 3}, 3)):
        layer = _layer(m, "Alibi", **sizes)
        with torch.no_grad():
            wanted = _by_hand(layer, x, None, None, window, slopes=[2**-4, 2**-8, 0.25])
            if gap := difference(layer(x), wanted, tolerance=1e-7):
                return f"Alibi with {sizes or 'nothing set'} is not scores minus slope times distance: {gap}"


def _check_devices(m):
    """Without numbers: what is made inside must lie where the input lies."""
    x = torch.zeros(2, 3, 5, 8, device="meta")
    angles = m.angles(torch.arange(5), m.inv_freq(8))
    for name in ("rotate_pairs", "rotate_halves"):
        if (found := getattr(m, name)(x, angles)).device.type != "meta":
            return f"{name}: x lies on another device, and the result on {found.device}"
    if (found := m.alibi_bias(torch.zeros(3, device="meta"), 2, 3)).device.type != "meta":
        return f"alibi_bias: slopes lie on another device, and the result on {found.device}"


def _check_inputs(m):
    x, plain = torch.zeros(3, 4), m.inv_freq(4)
    return refusal(
        [
            ("inv_freq of 5 coordinates", "", lambda: m.inv_freq(5)),
            ("inv_freq of 0 coordinates", "", lambda: m.inv_freq(0)),
            ("inv_freq of 4.0 coordinates", "", lambda: m.inv_freq(4.0)),
            ("theta 1", "", lambda: m.inv_freq(4, 1)),
            ("an infinite theta", "", lambda: m.inv_freq(4, math.inf)),
            ("positions in a list", "", lambda: m.angles([0, 1], plain)),
            ("positions with three axes", "", lambda: m.angles(torch.zeros(1, 1, 3), plain)),
            ("positions without an axis", "", lambda: m.angles(torch.tensor(3), plain)),
            ("inv_freq with two axes", "", lambda: m.angles(torch.arange(3), plain[None])),
            ("a length of 0", "", lambda: m.full_turns(plain, 0)),
            ("an infinite length", "", lambda: m.full_turns(plain, math.inf)),
            ("the order of 3 coordinates", "", lambda: m.pairs_to_halves(3)),
            *[(f"{name}: {what}", "", lambda f=f, args=args: f(*args)) for name, what, f, args in _bad_rotations(m, x)],
            ("a scale of 0.5", "", lambda: m.interpolated(4, 0.5)),
            ("an infinite scale", "", lambda: m.interpolated(4, math.inf)),
            ("an NTK-aware scale of 0.5", "", lambda: m.ntk_aware(4, 0.5)),
            ("an NTK-aware theta for one pair", "", lambda: m.ntk_aware(2, 4)),
            ("a dynamic length of 0", "", lambda: m.dynamic_ntk(4, 0, 8, 2)),
            ("a dynamic trained length of 0", "", lambda: m.dynamic_ntk(4, 9, 0, 2)),
            ("a dynamic scale of 0.5", "", lambda: m.dynamic_ntk(4, 9, 8, 0.5)),
            ("yarn of scale 0.5", "", lambda: m.yarn(4, 0.5, 64)),
            ("yarn trained on nothing", "", lambda: m.yarn(4, 2, 0)),
            ("yarn with slow 0", "", lambda: m.yarn(4, 2, 64, slow=0)),
            ("yarn with fast below slow", "", lambda: m.yarn(4, 2, 64, fast=1, slow=2)),
            ("llama3 with fast at slow", "", lambda: m.llama3(4, 2, 64, fast=2, slow=2)),
            ("slopes of 0 heads", "", lambda: m.alibi_slopes(0)),
            ("slopes of 2.5 heads", "", lambda: m.alibi_slopes(2.5)),
            ("a bias for 3 queries and 2 keys", "", lambda: m.alibi_bias(m.alibi_slopes(2), 3, 2)),
            ("a bias for 0 queries", "", lambda: m.alibi_bias(m.alibi_slopes(2), 0, 2)),
        ]
    )


def _bad_rotations(m, x):
    """Each rotation with what does not fit: name, what is wrong, function, arguments."""
    angles = m.angles(torch.arange(3), m.inv_freq(4))
    cases = {
        "whole numbers": (x.long(), angles),
        "an odd width": (torch.zeros(3, 5), angles),
        "angles of 2 of 3 tokens": (x, angles[:2]),
        "angles of one pair of two": (x, angles[:, :1]),
        "angles with an axis that x has not": (x, angles[None]),
        "angles of two texts for three": (torch.zeros(3, 3, 4), torch.stack([angles, angles])),
        "one vector alone": (x[0], angles[0]),
    }
    for name in ("rotate_complex", "rotate_pairs", "rotate_halves"):
        yield from ((name, what, getattr(m, name), given) for what, given in cases.items())


CHECKS = [
    Check(
        "frequencies fall from 1 by the same factor from pair to pair",
        _check_inv_freq,
        "What is the exponent of the last pair, and is theta the base?",
        about=["inv_freq"],
    ),
    Check(
        "large angles are exact, and each text may have its own positions",
        _check_angles,
        "In which type are positions multiplied?",
        about=["angles"],
    ),
    Check("a pair's turns are the length over its wavelength", _check_turns, about=["full_turns"]),
    Check("sinusoids are the published table", _check_sinusoids, "Do the two of a pair share an angle?", ["sinusoids"]),
    Check("row p + k of the sinusoids is row p turned", _check_bridge, about=["sinusoids"]),
    Check("rotations add up, and one undoes another", _check_matrix, about=["rotation_matrix"]),
    *[
        Check(
            f"{name} turns {what} by the angle of the pair",
            _check_form(name, layout),
            "Which two coordinates make pair i, and where does each of the two results go?",
            about=[name],
        )
        for name, layout, what in (
            ("rotate_complex", "pairs", "coordinates 2i and 2i + 1"),
            ("rotate_pairs", "pairs", "coordinates 2i and 2i + 1"),
            ("rotate_halves", "halves", "coordinates i and i + d / 2"),
        )
    ],
    Check(
        "in bfloat16 it is as exact as its numbers, however far",
        _check_half,
        "What is cast first, the angle or its cosine?",
        about=["rotate_complex", "rotate_pairs", "rotate_halves"],
    ),
    Check(
        "scores depend on the distance alone",
        _check_distance,
        "Do the queries and the keys turn in the same sense?",
        about=["rotate_pairs", "rotate_halves"],
    ),
    Check("and do so far from the start", _check_far, about=["rotate_halves"]),
    Check("weights can change their layout", _check_order, "Which pairs stand first?", about=["pairs_to_halves"]),
    Check(
        "rotate_backward is the gradient times the Jacobian",
        _check_backward,
        "What is the transpose of a rotation?",
        about=["rotate_backward"],
    ),
    Check("a scale of 1 changes nothing", _check_scale_one, "Where does theta come from?"),
    Check(
        "interpolation puts position 4 m where m was",
        _check_interpolated,
        "Where must position 40 of the long text stand: at 10, or at 160?",
        about=["interpolated"],
    ),
    Check(
        "an NTK-aware theta keeps the fastest pair and slows the slowest down in full",
        _check_ntk,
        "Solve theta'^(-(d - 2) / d) = theta^(-(d - 2) / d) / scale for theta'.",
        about=["ntk_aware"],
    ),
    Check("the dynamic theta grows with the text", _check_dynamic, about=["dynamic_ntk"]),
    Check("YaRN has its authors' ramp", _check_yarn, "Which pairs does the ramp join?", about=["yarn"]),
    Check("Llama 3.1's scaling is that of its files", _check_llama3, about=["llama3"]),
    Check("ALiBi's slopes are the published ones", _check_slopes, "Compare 12 heads with 8.", about=["alibi_slopes"]),
    Check("ALiBi takes off slope times distance", _check_bias, "Where does the last query stand?", ["alibi_bias"]),
    Check("the rotary layer is that of loops", _check_layer, "What is turned, by what, and what divides the scores?"),
    Check(
        "a scaling's frequencies and factor reach the scores", _check_factor, "Are queries and keys both multiplied?"
    ),
    Check("the layer's gradient is turned back", _check_layers_gradient),
    Check("each text may have its own positions in the layer", _check_positions, "Which axis do the positions lie on?"),
    Check("the ALiBi layer is that of loops", _check_alibi_layer, "Which head has which slope, and what is the sign?"),
    Check("from a cache, padded or not, come the same answers", _check_cache, "Which position has the next token?"),
    Check("a filled cache refuses other frequencies", _check_refilled),
    Check("nothing is made on another device", _check_devices),
    Check("what would be silently wrong is refused", _check_inputs),
]


def _check_by_distance(m):
    q, k = _draw((6,), (6,))
    frequencies = 100.0 ** -(torch.arange(3, dtype=torch.float64) / 3)
    found = m.score_by_distance(q, k, frequencies, torch.tensor([0, 3, -7]))
    wanted = []
    for distance in (0, 3, -7):
        turned = _turned(q[None], [distance], frequencies.tolist(), "pairs")[0]
        wanted.append((turned @ k).item())
    if gap := difference(found, _column(wanted)):
        return f"distances 0, 3 and -7: {gap}"


def _check_theta_for(m):
    for d, length in ((16, 64), (128, 8192)):
        slowest = m.theta_for(d, length) ** (-(d - 2) / d)
        if abs(slowest * length / (2 * math.pi) - 1) > 1e-9:
            return f"d {d}: in {length} positions the slowest pair makes {slowest * length / (2 * math.pi):.3g} turns"


def _check_partial(m):
    (x,) = _draw((2, 5, 6))
    angles = torch.arange(5, dtype=torch.float64)[:, None] * _column([1.0, 0.2, 0.04])
    found = m.partial_rotation(x, angles, 2)
    wanted = torch.stack([_turned(row, range(5), [1.0, 0.2, 0.0], "pairs") for row in x])
    if gap := difference(found, wanted):
        return f"two of three pairs turn, the last stays: {gap}"


EXERCISES = [
    Check("the score without turning anything", _check_by_distance, "What is q times the conjugate of k?"),
    Check("a theta for a length", _check_theta_for, "What is the exponent of the last pair?"),
    Check("some pairs turn, the others stay", _check_partial, "What angle has a pair that stays?"),
]
