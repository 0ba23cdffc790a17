"""What a right `int8.py` must do. Each check takes the module, so that a reader's functions and a patient can be asked
the same. Matrices are not square, the largest number is negative in some rows and not in others, and rows differ in
size by much: with one scale for all, or scales along the other axis, they could not agree.
"""

import math
from unittest.mock import patch

import torch
from torch import nn
from torch.nn import functional as F

from shared.clinic import Check, difference, refusal

B, T, IN, OUT = 2, 3, 12, 7
FLOAT = torch.float64
WAYS = ("tensor", "row", "column", 4)


def _draw(*shape, seed=0, dtype=FLOAT):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=FLOAT).to(dtype)


def _uneven(*shape, seed=0):
    """Rows and columns of sizes from 0.01 to 100."""
    x = _draw(*shape, seed=seed)
    rows, columns = torch.logspace(-1, 1, shape[-2], dtype=FLOAT), torch.logspace(1, -1, shape[-1], dtype=FLOAT)
    return x * rows[:, None] * columns


def _codes(*shape, seed=0, low=-127):
    return torch.randint(low, 128, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.int8)


def _parts(x, by):
    """Where the numbers lie that share a scale, for every number: a key for each place."""
    places = torch.cartesian_prod(*map(torch.arange, x.shape)).tolist()
    keys = {"tensor": lambda place: (), "row": lambda place: tuple(place[:-1]), "column": lambda place: (place[-1],)}
    key = keys.get(by, lambda place: (*place[:-1], place[-1] // 4))
    parts = {}
    for place in places:
        parts.setdefault(key(place), []).append(tuple(place))
    return parts


def _by_loop(x, by, of):
    """A number for each that shares: what of([...]) says of the numbers of its part, in x's shape."""
    found = torch.empty(x.shape, dtype=FLOAT)
    for places in _parts(x, by).values():
        value = of([float(x[place]) for place in places])
        for place in places:
            found[place] = value
    return found


def _spread(scale, n):
    """Independent of the module's."""
    groups = scale.shape[-1]
    return scale if groups in (1, n) else torch.repeat_interleave(scale, n // groups, dim=-1)


SHAPES = {"tensor": (1, 1, 1), "row": (B, T, 1), "column": (1, 1, IN), 4: (B, T, IN // 4)}


def _check_scales(m):
    x = _uneven(B, T, IN)
    for by in WAYS:
        for bits, largest_code in ((8, 127), (4, 7), (2, 1)):
            scale = m.absmax_scale(x, by, bits)
            if tuple(scale.shape) != SHAPES[by]:
                return f"numbers {tuple(x.shape)} by {by!r}: scales have shape {tuple(scale.shape)}, not {SHAPES[by]}"
            wanted = _by_loop(x, by, lambda part, top=largest_code: max(map(abs, part)) / top)
            if gap := difference(_spread(scale, IN).expand(x.shape), wanted):
                return f"by {by!r}, {bits} bits: scale of [row, token, number]: {gap}"
    if gap := difference(m.absmax_scale(x, 1), x.abs() / 127):
        return f"groups of 1: scale of [row, token, number]: {gap}"
    default = m.absmax_scale(x)
    if gap := difference(default, m.absmax_scale(x, "tensor", 8)):
        return f"without more than the numbers: {gap} (one scale for all, 8 bits)"


def _check_nearest(m):
    x, scale = _uneven(T, IN), torch.tensor([[0.01], [0.5], [3.0]], dtype=FLOAT)
    for bits, top in ((8, 127), (4, 7)):
        wanted = [
            [max(-top, min(top, round(float(n) / float(s)))) for n in row] for row, s in zip(x, scale, strict=True)
        ]
        found = m.quantize(x, scale, bits)
        if found.dtype != torch.int8:
            return f"codes are {found.dtype}, expected torch.int8"
        if gap := difference(found.to(FLOAT), torch.tensor(wanted, dtype=FLOAT), tolerance=0):
            return f"{bits} bits: code [row, number] is not the nearest, or the last one: {gap}"


def _check_levels(m):
    x = torch.linspace(-3, 3, 5001, dtype=FLOAT)[None]
    codes = m.quantize(x, m.absmax_scale(x))
    levels = codes.unique().tolist()
    if levels != list(range(-127, 128)):
        return f"5,001 numbers evenly from -3 to 3 have {len(levels)} levels from {levels[0]} to {levels[-1]}, not 255"
    beyond = m.quantize(torch.tensor([[-9.0, 9.0]]), torch.tensor([[0.01]])).tolist()
    if beyond != [[-127, 127]]:
        return f"-900 and 900 steps have codes {beyond[0]}, expected [-127, 127]"
    back = m.dequantize(m.quantize(-x, m.absmax_scale(-x)), m.absmax_scale(x))
    return difference(back, -m.dequantize(codes, m.absmax_scale(x)), tolerance=0)


def _check_half_a_step(m):
    for dtype, slack in ((FLOAT, 1e-9), (torch.float32, 1e-5), (torch.bfloat16, 1e-5), (torch.float16, 1e-5)):
        x = _uneven(B, T, IN).to(dtype)
        for by in WAYS:
            scale = m.absmax_scale(x, by)
            codes = m.quantize(x, scale)
            steps = (x.to(FLOAT) - m.dequantize(codes, scale).to(FLOAT)).abs() / _spread(scale, IN)
            # slack: a code of 127 times a scale that is rounded at 6e-8, in float32
            if not (steps <= 0.5 + slack * 127).all():
                return f"{dtype} by {by!r}: back from its code a number is {steps.max():.4f} of a step away, not 0.5"
            largest = _by_loop(codes, by, lambda part: max(map(abs, part)))
            if (largest != 127).any():
                return f"{dtype} by {by!r}: the largest code of a part is {largest.min():.0f}, not 127"


def _check_zeros(m):
    x = torch.zeros(3, 8)
    x[1] = torch.linspace(-1, 1, 8)
    x[2, 0] = 1e-44
    for by in WAYS[:2] + WAYS[3:]:
        for zero in (False, True):
            back = m.round_trip(x, by, zero=zero)
            if not back.isfinite().all() or (back[0] != 0).any():
                return f"by {by!r}, zero point {zero}: a row of zeros comes back as {back[0].tolist()}"
            if back[2, 0] > 1e-30:
                return f"by {by!r}, zero point {zero}: 1e-44 comes back as {back[2, 0]:.3g}"
    codes, scale, low = m.to_groups(torch.full((1, 8), 2.5), 8)
    if not (scale > 0).all():
        return f"a group of 2.5 and no other number has the scale {scale.item()}: 0 / 0 is no number"
    if (m.from_groups(codes, scale, low) != 2.5).any():
        return f"a group of 2.5 and no other number comes back as {m.from_groups(codes, scale, low).tolist()}"


def _check_zero_point(m):
    x = _uneven(B, T, IN) + 0.3
    x[0, 0], x[0, 1] = x[0, 0].abs() + 5, -x[0, 1].abs() - 5
    for by in WAYS:
        for bits, n_steps in ((8, 255), (4, 15)):
            scale, zero = m.zero_point(x, by, bits)
            wanted = _by_loop(x, by, lambda part, n=n_steps: (max(0, *part) - min(0, *part)) / n)
            if gap := difference(_spread(scale, IN).expand(x.shape), wanted):
                return f"by {by!r}, {bits} bits: scale of [row, token, number], whose range is to hold 0: {gap}"
            first = -(n_steps + 1) // 2
            wanted = _by_loop(
                x, by, lambda part, n=n_steps, k=first: k - round(min(0, *part) * n / (max(0, *part) - min(0, *part)))
            )
            if zero.is_floating_point() or (gap := difference(_spread(zero, IN).expand(x.shape).to(FLOAT), wanted, 0)):
                return f"by {by!r}, {bits} bits: zero of [row, token, number], a whole number: {gap or zero.dtype}"
            codes = m.quantize_affine(x, scale, zero, bits)
            back = m.dequantize(codes, scale, zero)
            steps = (x - back).abs() / _spread(scale, IN)
            if codes.dtype != torch.int8 or not (steps <= 0.5 + 1e-9).all():
                return f"by {by!r}, {bits} bits, {codes.dtype}: there and back a number is {steps.max():.3f} steps away"
            nothing = torch.zeros_like(x)
            if (m.dequantize(m.quantize_affine(nothing, scale, zero, bits), scale, zero) != 0).any():
                return f"by {by!r}: 0 does not come back as 0"


def _check_affine_levels(m):
    for name, x in (("from -1 to 3", torch.linspace(-1, 3, 5001)), ("from 0 to 3", torch.linspace(0, 3, 5001))):
        scale, zero = m.zero_point(x[None])
        levels = m.quantize_affine(x[None], scale, zero).unique().tolist()
        if levels != list(range(-128, 128)):
            return f"5,001 numbers {name} have {len(levels)} levels from {levels[0]} to {levels[-1]}, expected all 256"
        beyond = m.quantize_affine(torch.tensor([[-90.0, 90.0]]), scale, zero).tolist()
        if beyond != [[-128, 127]]:
            return f"numbers far beyond the range {name} have codes {beyond[0]}, expected [-128, 127]"


def _check_round_trip(m):
    x = _uneven(B, T, IN)
    for by in WAYS:
        for bits, top in ((8, 127), (3, 3)):
            step = _by_loop(x, by, lambda part, top=top: max(map(abs, part)) / top)
            if gap := difference(m.round_trip(x, by, bits), (x / step).round() * step):
                return f"by {by!r}, {bits} bits: [row, token, number] there and back: {gap}"
            scale, zero = m.zero_point(x, by, bits)
            wanted = m.dequantize(m.quantize_affine(x, scale, zero, bits), scale, zero)
            if gap := difference(m.round_trip(x, by, bits, zero=True), wanted, 0):
                return f"by {by!r}, {bits} bits, with a zero point: [row, token, number]: {gap}"
    for dtype in (torch.float16, torch.bfloat16):
        if m.round_trip(x.to(dtype)).dtype != dtype:
            return f"{dtype} comes back as {m.round_trip(x.to(dtype)).dtype}"


def _products():
    """Names and codes (..., in), (out, in) at sizes where kernels go wrong."""
    yield "several rows", _codes(5, IN), _codes(OUT, IN, seed=1)
    yield "texts and tokens", _codes(B, T, IN), _codes(OUT, IN, seed=1)
    yield "one row", _codes(1, IN), _codes(OUT, IN, seed=1)
    yield "one row that is a transposed column", _codes(IN, 1).t(), _codes(OUT, IN, seed=1)
    yield "every other token", _codes(9, IN)[::2], _codes(OUT, 2 * IN, seed=1)[:, ::2]
    yield "one input", _codes(5, 1), _codes(OUT, 1, seed=1)
    yield "one output", _codes(5, IN), _codes(1, IN, seed=1)
    yield "no row", _codes(0, IN), _codes(OUT, IN, seed=1)
    yield (
        "4,095 products of 127 and 127",
        torch.full((2, 4095), 127).to(torch.int8),
        torch.full((3, 4095), 127).to(torch.int8),
    )
    yield (
        "products of -128 and -128",
        torch.full((2, 4096), -128).to(torch.int8),
        torch.full((3, 4096), -128).to(torch.int8),
    )


def _check_integer_product(m):
    for name, x, w in _products():
        wanted = torch.einsum("...i,oi->...o", x.long(), w.long())
        found = m.int_product(x, w)
        if found.dtype != torch.int32 or (gap := difference(found.long(), wanted, 0)):
            return f"{name}: [row, output] by {found.dtype}, beside int64: {gap or 'expected torch.int32'}"


def _check_without_the_kernel(m):
    with patch.object(torch, "_int_mm", side_effect=RuntimeError("no such kernel")):
        return _check_integer_product(m)


def _check_scaled_product(m):
    w = _uneven(OUT, IN, seed=1)
    for x_by in ("tensor", "row"):
        for w_by in ("tensor", "row"):
            x = _uneven(B, T, IN) + 0.2
            w_scale = m.absmax_scale(w, w_by)
            w_codes, scale = m.quantize(w, w_scale), m.absmax_scale(x, x_by)
            codes = m.quantize(x, scale)
            wanted = F.linear(codes.to(FLOAT) * scale, w_codes.to(FLOAT) * w_scale)
            if gap := difference(m.scaled_product(codes, scale, w_codes, w_scale), wanted):
                return f"tokens by {x_by!r}, outputs by {w_by!r}: [row, token, output]: {gap}"
            scale, zero = m.zero_point(x, x_by)
            codes = m.quantize_affine(x, scale, zero)
            wanted = F.linear((codes.to(FLOAT) - zero) * scale, w_codes.to(FLOAT) * w_scale)
            if gap := difference(m.scaled_product(codes, scale, w_codes, w_scale, zero), wanted):
                return f"tokens by {x_by!r} with a zero point, outputs by {w_by!r}: [row, token, output]: {gap}"


def _check_outliers(m):
    x = torch.tensor([[[1.0, -7, 2, 6], [3, 0, 5, 6]], [[0, 0, 6.5, -6], [0, 0, -7, 0]]])
    for threshold, wanted in ((6, [0, 1, 1, 0]), (0, [1, 1, 1, 1]), (5.5, [0, 1, 1, 1]), (math.inf, [0, 0, 0, 0])):
        found = m.outlier_columns(x, threshold)
        if found.int().tolist() != wanted:
            return f"threshold {threshold}: columns {found.int().tolist()}, expected {wanted}"


def _check_split(m):
    x, w = _draw(B, T, IN), _draw(OUT, IN, seed=1)
    x[:, :, 3] *= 50
    x[0, 1, 5], x[1, 2, 8] = 9, -70
    scale = m.absmax_scale(w, "row")
    codes = m.quantize(w, scale)
    stored = codes.to(FLOAT) * scale
    for threshold, outliers in ((6.0, [3, 5, 8]), (60.0, [3, 8])):
        rest = [i for i in range(IN) if i not in outliers]
        steps = x[..., rest].abs().amax(dim=-1, keepdim=True) / 127
        wanted = F.linear((x[..., rest] / steps).round() * steps, stored[:, rest]) + F.linear(
            x[..., outliers], stored[:, outliers]
        )
        if gap := difference(m.split_product(x, codes, scale, threshold), wanted):
            return f"threshold {threshold}, columns {outliers} in float: [row, token, output]: {gap}"
    if gap := difference(m.split_product(x, codes, scale), m.split_product(x, codes, scale, 6.0), 0):
        return f"without a threshold not as with 6: [row, token, output]: {gap}"


def _check_split_ends(m):
    x, w = _uneven(B, T, IN), _draw(OUT, IN, seed=1)
    scale = m.absmax_scale(w, "row")
    codes = m.quantize(w, scale)
    if gap := difference(m.split_product(x, codes, scale, 0.0), F.linear(x, codes.to(FLOAT) * scale)):
        return f"threshold 0: [row, token, output] is not the float product: {gap}"
    x_scale = m.absmax_scale(x, "row")
    wanted = m.scaled_product(m.quantize(x, x_scale), x_scale, codes, scale)
    if gap := difference(m.split_product(x, codes, scale, math.inf), wanted):
        return f"threshold infinity: [row, token, output] is not the int8 product: {gap}"


def _check_groups(m):
    w = _uneven(OUT, IN)
    for size, bits, last in ((4, 4, 15), (6, 3, 7), (12, 8, 255)):
        found = m.to_groups(w, size, bits)
        shapes = [tuple(it.shape) for it in found]
        if shapes != [(OUT, IN // size, size)] + [(OUT, IN // size, 1)] * 2 or found[0].dtype != torch.uint8:
            return f"({OUT}, {IN}) in groups of {size}: shapes {shapes}, codes {found[0].dtype}"
        for o in range(OUT):
            for g in range(IN // size):
                group = [float(n) for n in w[o, g * size : (g + 1) * size]]
                low, step = min(group), (max(group) - min(group)) / last
                wanted = torch.tensor([round((n - low) / step) for n in group], dtype=FLOAT)
                if gap := difference(found[0][o, g].to(FLOAT), wanted, 0):
                    return f"groups of {size}, {bits} bits: codes of row {o}, group {g}: {gap}"
                got = [found[1][o, g].item(), found[2][o, g].item()]
                if math.dist(got, (step, low)) > 1e-9:
                    return f"groups of {size}: scale and minimum of row {o}, group {g}: {got}, expected {[step, low]}"
        error = (m.from_groups(*found) - w).abs() / found[1].expand(-1, -1, size).flatten(1)
        if not (error <= 0.5 + 1e-9).all():
            return f"groups of {size}, {bits} bits: a number comes back {error.max():.3f} of a step away, not 0.5"
    texts = m.to_groups(w[:6].view(2, 3, IN), 4)
    if gap := difference(texts[0].flatten(0, 1).int(), m.to_groups(w[:6], 4)[0].int(), 0):
        return f"2 x 3 rows have other codes than 6 rows: [row, group, number]: {gap}"
    if m.to_groups(_draw(2, 64))[0].shape != (2, 2, 32) or m.to_groups(_draw(2, 64))[0].max() != 15:
        return "without more than the numbers: expected groups of 32 and codes to 15"


def _check_groups_again(m):
    codes = torch.randint(16, (OUT, 3, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    codes[..., 0], codes[..., 1] = 0, 15
    scale, low = _draw(OUT, 3, 1, seed=1).half().abs().float(), _draw(OUT, 3, 1, seed=2).half().float()
    again = m.to_groups(m.from_groups(codes, scale, low), 4)[0]
    return difference(again.int(), codes.int(), 0)


def _check_noise(m):
    x = _draw(100_000)
    x = x.clamp(-4, 4)
    clean = m.sqnr(x, m.round_trip(torch.cat([x, x.new_tensor([4.0])]))[:-1])
    for size in (4, 20, 60):
        rounded = m.round_trip(torch.cat([x, x.new_tensor([-float(size)])]))[:-1]
        found, rms = m.sqnr(x, rounded), float(x.square().mean().sqrt())
        # the mean of 100,000 squared errors, each evenly spread within a step, has a spread of 0.28 %: 0.012 dB
        if abs(found - m.expected_sqnr(rms, size)) > 0.1:
            return f"an outlier of -{size}: {found:.2f} dB, expected {m.expected_sqnr(rms, size):.2f} for rms {rms:.3f}"
        if abs(clean - found - 20 * math.log10(size / 4)) > 0.1:
            return f"an outlier of -{size} costs {clean - found:.2f} dB, expected {20 * math.log10(size / 4):.2f}"
    four = m.expected_sqnr(1, 4, bits=8) - m.expected_sqnr(1, 4, bits=4)
    if abs(four - 20 * math.log10(127 / 7)) > 1e-9:
        return f"8 bits are {four:.3f} dB above 4, expected {20 * math.log10(127 / 7):.3f}"
    if m.sqnr(x, x) != math.inf:
        return f"no error at all is {m.sqnr(x, x)} dB, expected infinity"


def _norm_and_linear(kind, seed=0):
    norm, linear = (nn.LayerNorm(IN) if kind == "LayerNorm" else nn.RMSNorm(IN)), nn.Linear(IN, OUT)
    for i, parameter in enumerate([*norm.parameters(), *linear.parameters()]):
        parameter.data = _draw(*parameter.shape, seed=seed + i) + 0.3
    return norm, linear


def _check_move_scale(m):
    x, factors = _draw(B, T, IN), torch.logspace(-1, 2, IN, dtype=FLOAT)
    for kind in ("LayerNorm", "RMSNorm"):
        norm, linear = _norm_and_linear(kind)
        between, after = norm(x).detach(), linear(norm(x)).detach()
        m.move_scale(norm, linear, factors)
        if gap := difference(norm(x).detach(), between * factors):
            return f"{kind}: what it puts out [row, token, channel] is not times its factor: {gap}"
        if gap := difference(linear(norm(x)).detach(), after):
            return f"{kind} and a linear layer compute something else than before: [row, token, output]: {gap}"
    for bias in (True, False):
        first, second = nn.Linear(OUT, IN + 5, bias=bias).to(FLOAT), nn.Linear(IN, 4).to(FLOAT)
        first.requires_grad_(False)
        x = _draw(T, OUT)
        before, after = first(x).detach(), second(first(x)[:, 5:]).detach()
        m.move_scale(first, second, factors, slice(5, None))
        wanted = torch.cat([before[:, :5], before[:, 5:] * factors], dim=1)
        if gap := difference(first(x).detach(), wanted):
            return f"two linear layers, bias {bias}, rows from 5: what the first puts out [token, row]: {gap}"
        if gap := difference(second(first(x)[:, 5:]).detach(), after):
            return f"two linear layers, bias {bias}, compute something else than before: [token, output]: {gap}"
    trained = [it.weight.requires_grad for it in (norm, linear, first, second)]
    if trained != [True, True, False, True]:
        return f"norm, linear layer and two linear layers are to be trained: {trained}, before all but the third"


def _linear(bias=True):
    linear = nn.Linear(IN, OUT, bias=bias).to(FLOAT).requires_grad_(False)
    linear.weight.copy_(_uneven(OUT, IN, seed=1))
    return linear


def _rounded_linear(linear, x, w_by):
    return F.linear(x, _rounded(linear.weight, w_by), linear.bias)


def _rounded(x, by):
    step = _by_loop(x, by, lambda part: max(map(abs, part)) / 127)
    return (x / step).round() * step


def _check_layers(m):
    x = _uneven(B, T, IN, seed=3)
    for bias in (True, False):
        linear = _linear(bias)
        cases = {f"weight only, by {by!r}": (m.Int8Linear(linear, by), x, by) for by in WAYS}
        cases["weight only"] = (m.Int8Linear(linear), x, "row")
        for inputs in ("row", "tensor"):
            for by in ("row", "tensor"):
                cases[f"inputs by {inputs!r}, weights by {by!r}"] = (
                    m.W8A8Linear(linear, inputs, by),
                    _rounded(x, inputs),
                    by,
                )
        cases["W8A8"] = m.W8A8Linear(linear), _rounded(x, "row"), "row"
        cases["with a zero point"] = m.W8A8Linear(linear, "row", zero=True), m.round_trip(x, "row", zero=True), "row"
        static = torch.tensor(0.05, dtype=FLOAT)
        clipped = (x / 0.05).round().clamp(-127, 127) * 0.05
        cases["a static scale that clips"] = m.W8A8Linear(linear, "tensor", static=static), clipped, "row"
        for name, (layer, given, by) in cases.items():
            if gap := difference(layer(x), _rounded_linear(linear, given, by)):
                return f"{name}, bias {bias}: [row, token, output]: {gap}"
        codes, scale = (getattr(m.Int8Linear(linear), name) for name in ("codes", "scale"))
        for threshold in (6.0, 0.5):
            wanted = m.split_product(x, codes, scale, threshold) + (linear.bias if bias else 0)
            if gap := difference(m.SplitLinear(linear, threshold)(x), wanted):
                return f"the split at {threshold}, bias {bias}: [row, token, output]: {gap}"
        if gap := difference(m.SplitLinear(linear)(x), m.SplitLinear(linear, 6.0)(x), 0):
            return f"the split without a threshold is not that at 6: {gap}"


def _check_what_is_stored(m):
    for layer in (m.Int8Linear(_linear()), m.W8A8Linear(_linear()), m.SplitLinear(_linear())):
        name, sizes = type(layer).__name__, (layer.in_features, layer.out_features)
        if layer.codes.dtype != torch.int8 or layer.codes.shape != (OUT, IN) or layer.scale.numel() != OUT:
            return f"{name} stores {layer.codes.dtype} {tuple(layer.codes.shape)} and {layer.scale.numel()} scales"
        if list(layer.parameters()) or sizes != (IN, OUT):
            return f"{name} has {len(list(layer.parameters()))} parameters, {sizes} in and out, expected 0, {(IN, OUT)}"
        if sorted(name for name, _ in layer.named_buffers()) != ["bias", "codes", "scale"]:
            return f"{name} stores {[name for name, _ in layer.named_buffers()]}, expected bias, codes and scale"


def _check_half_precision(m):
    linear = nn.Linear(4096, 3).requires_grad_(False)
    linear.weight.copy_(_draw(3, 4096).float().abs())
    x = 6 * _draw(2, 4096, seed=1).abs().float()
    wanted = F.linear(x, linear.weight, linear.bias)
    for make in (m.Int8Linear, m.W8A8Linear, m.SplitLinear):
        for dtype in (torch.bfloat16, torch.float16):
            found = make(linear.to(dtype))(x.to(dtype))
            worst = ((found.float() - wanted) / wanted).abs().max()
            # bfloat16 rounds inputs, weights, bias and result at 1/256 each; int8 at less
            if found.dtype != dtype or not worst < 4 / 256:
                return (
                    f"{make.__name__}, {dtype}, 4,096 inputs of size 6: {found.dtype}, off by {worst:.3g} of the output"
                )
        linear.float()


def _check_refusals(m):
    x, scale = _draw(T, IN).float(), torch.full((T, 1), 0.02)
    with_nan, codes, w = x.clone(), _codes(T, IN), _codes(OUT, IN)
    with_nan[1, 2] = math.nan
    w_scale = torch.ones(OUT, 1)
    norm, linear = _norm_and_linear("LayerNorm")
    trained = x.clone().requires_grad_()
    huge = torch.zeros(1, 131_072, dtype=torch.int8)
    cases = [
        ("NaN", "NaN", lambda: m.quantize(with_nan, scale)),
        ("NaN, no scale given", "NaN", lambda: m.round_trip(with_nan)),
        ("infinity", "infinity", lambda: m.round_trip(x / 0)),
        ("NaN, groups", "NaN", lambda: m.to_groups(with_nan, 4)),
        ("a scale of 0", "scale of 0", lambda: m.quantize(x, scale * 0)),
        ("a scale along another axis", "(1, 3, 1)", lambda: m.quantize(x, scale[None].expand(2, -1, -1)[:1])),
        ("scales for 5 groups of 12", "5", lambda: m.quantize(x, torch.ones(T, 5))),
        ("groups of 5 among 12", "5", lambda: m.absmax_scale(x, 5)),
        ("groups of 0", "0", lambda: m.absmax_scale(x, 0)),
        ("by 'token'", "'token'", lambda: m.absmax_scale(x, "token")),
        ("columns of one dimension", "column", lambda: m.absmax_scale(x[0], "column")),
        ("1 bit", "1", lambda: m.absmax_scale(x, "row", 1)),
        ("9 bits", "9", lambda: m.absmax_scale(x, "row", 9)),
        ("a gradient", "gradient", lambda: m.round_trip(trained)),
        ("uint8", "uint8", lambda: m.int_product(codes.view(torch.uint8), w)),
        ("uint8 weights", "uint8", lambda: m.int_product(codes, w.view(torch.uint8))),
        ("rows of other length", "(7, 11)", lambda: m.int_product(codes, w[:, :11])),
        ("131,072 inputs", "131072", lambda: m.int_product(huge, huge)),
        ("a scale for each column", "", lambda: m.scaled_product(codes, torch.ones(1, IN), w, w_scale)),
        ("a scale for each input", "", lambda: m.scaled_product(codes, scale, w, torch.ones(1, IN))),
        ("inputs by column", "'column'", lambda: m.W8A8Linear(_linear(), "column")),
        ("weights by column", "'column'", lambda: m.W8A8Linear(_linear(), "row", "column")),
        ("zero point and static", "static", lambda: m.W8A8Linear(_linear(), "tensor", zero=True, static=scale[0, 0])),
        ("factors of 0", "factors", lambda: m.move_scale(norm, linear, torch.zeros(IN))),
        ("factors of infinity", "factors", lambda: m.move_scale(norm, linear, torch.full((IN,), math.inf))),
        ("one factor", "factors", lambda: m.move_scale(norm, linear, torch.ones(1))),
        (
            "a norm without weights",
            "weights",
            lambda: m.move_scale(nn.LayerNorm(IN, elementwise_affine=False), linear, torch.ones(IN)),
        ),
    ]
    return refusal(cases)


CHECKS = [
    Check(
        "a scale is the largest |number| of a tensor, row, column or group, over the largest code",
        _check_scales,
        "Which numbers share a scale? Along which axis is the largest taken? And if the largest is negative?",
        ["extremes", "absmax_scale"],
    ),
    Check(
        "a code is the nearest whole number of steps",
        _check_nearest,
        "Divide first, then round. What becomes of -3.7 if it is only cut off?",
        ["quantize"],
    ),
    Check(
        "there are 255 levels, as many below 0 as above, and -128 is none of them",
        _check_levels,
        "What does the largest number get? And its opposite?",
        ["absmax_scale", "quantize", "dequantize"],
    ),
    Check(
        "back from its code a number is at most half a step away, and no scale clips its own numbers",
        _check_half_a_step,
        "In which type is the scale? What is the code of the largest number?",
        ["absmax_scale", "quantize", "dequantize"],
    ),
    Check(
        "zeros come back as zeros, and tiny numbers as tiny ones",
        _check_zeros,
        "What is 0 / 0? Is there a least scale?",
        ["absmax_scale", "zero_point", "to_groups", "round_trip"],
    ),
    Check(
        "with a zero point the range from the lowest to the highest number, and 0, is cut into equal steps",
        _check_zero_point,
        "Does the range hold 0 if all numbers are above it? Is zero added once and taken off once?",
        ["zero_point", "quantize_affine", "dequantize"],
    ),
    Check(
        "with a zero point all 256 levels are used, and none is beyond",
        _check_affine_levels,
        "Which code do the lowest and the highest number get?",
        ["zero_point", "quantize_affine"],
    ),
    Check(
        "there and back is the nearest step, for every granularity, number of bits and type",
        _check_round_trip,
        "Are bits and granularity handed on?",
        ["round_trip"],
    ),
    Check(
        "the product of codes is exact",
        _check_integer_product,
        "In which type are products added up? What does the kernel do with one row, with one input?",
        ["int_product"],
    ),
    Check(
        "it is exact without PyTorch's kernel, too",
        _check_without_the_kernel,
        "Which type holds sums of 4,096 products exactly?",
        ["int_product"],
    ),
    Check(
        "codes and scales multiply to what the numbers they stand for do",
        _check_scaled_product,
        "Which scale belongs to the rows of the result, which to its columns? What does the zero point add to a sum?",
        ["scaled_product"],
    ),
    Check(
        "an outlier column holds a number above the threshold, of either sign, in any token",
        _check_outliers,
        "Over which axes is it asked? Is 6 above 6?",
        ["outlier_columns"],
    ),
    Check(
        "the split multiplies outlier columns in float, the others in int8 with a scale that knows no outlier",
        _check_split,
        "Over which columns is a row's scale taken?",
        ["split_product"],
    ),
    Check(
        "the split at 0 is the float product, at infinity the int8 product",
        _check_split_ends,
        "Is each column in one product, and in one only?",
        ["split_product"],
    ),
    Check(
        "a group's lowest number gets code 0 and its highest the last, and the others the nearest",
        _check_groups,
        "Do groups lie along the inputs of one output? How many steps are there between 16 codes?",
        ["to_groups", "from_groups"],
    ),
    Check(
        "numbers that were made from 4-bit codes get them again",
        _check_groups_again,
        "Is it (highest - lowest) / 15?",
        ["to_groups", "from_groups"],
    ),
    Check(
        "an outlier A times the largest number costs 20 log10 A dB, and the noise is a step's square over 12",
        _check_noise,
        "Is it the ratio of sums of squares?",
        ["sqnr", "expected_sqnr"],
    ),
    Check(
        "a scale that moves from a norm, or rows, into the next layer changes nothing but what lies between",
        _check_move_scale,
        "What does a norm put out? Which parts of it make that?",
        ["move_scale", "scale_outputs"],
    ),
    Check(
        "each layer puts out what the rounded inputs and weights, and the bias, make",
        _check_layers,
        "Which side is rounded, by which scales? Is the bias added once?",
        ["Int8Linear", "W8A8Linear", "SplitLinear"],
    ),
    Check(
        "a layer stores a byte for each weight and a scale for each output",
        _check_what_is_stored,
        "Does a float copy of the matrix stay?",
        ["Int8Linear", "W8A8Linear", "SplitLinear"],
    ),
    Check(
        "layers take half precision, and long sums of it are finite",
        _check_half_precision,
        "In which type is the sum of 4,096 products?",
        ["Int8Linear", "W8A8Linear", "SplitLinear", "scaled_product"],
    ),
    Check(
        "what would be silently wrong is refused in words",
        _check_refusals,
        "NaN has no code. Which scales cannot be taken out of a sum?",
        ["steps", "extremes", "int_product", "scaled_product", "move_scale"],
    ),
]


def _check_best_clip(m):
    x = _draw(4000)
    x[7] = 60
    shares = (1.0, 0.5, 0.2, 0.1, 0.05)
    for name, given in (
        ("an outlier of 60", x),
        ("none", x[8:]),
        ("numbers of one size", torch.full((9,), 2.0, dtype=FLOAT)),
    ):
        errors = []
        for share in shares:
            step = float(given.abs().max()) * share / 127
            errors.append(sum((float(n) - max(-127, min(127, round(float(n) / step))) * step) ** 2 for n in given))
        wanted = shares[errors.index(min(errors))]
        if (found := m.best_clip(given, shares)) != wanted:
            return f"4,000 numbers, {name}: clipped at {found} of the largest, the least squared error is at {wanted}"


def _check_two_zeros(m):
    (x_scale, x_zero), (w_scale, w_zero) = ((0.01, 5), (0.02, -9))
    x_codes, w_codes = _codes(T, IN, low=-128), _codes(OUT, IN, seed=1, low=-128)
    wanted = F.linear((x_codes.to(FLOAT) - x_zero) * x_scale, (w_codes.to(FLOAT) - w_zero) * w_scale)
    found = m.two_zeros_product(x_codes, x_scale, x_zero, w_codes, w_scale, w_zero)
    return difference(found.to(FLOAT), wanted, tolerance=1e-4)  # float32 holds sums of 200,000 to 1/64 steps of 2e-4


def _check_power_scale(m):
    for largest, wanted in ((127.0, 1.0), (127.5, 2.0), (1.0, 2.0**-6), (254.0, 2.0), (1e-3, 2.0**-16), (63.5, 0.5)):
        x = torch.tensor([0.1 * largest, -largest], dtype=FLOAT)
        if (found := float(m.power_scale(x))) != wanted:
            return f"largest |x| {largest}: a scale of {found}, expected {wanted}"


EXERCISES = [
    Check(
        "best_clip finds the share of the largest number at which a scale makes the least squared error",
        _check_best_clip,
        "What becomes of the numbers beyond? Is the outlier's own error counted?",
    ),
    Check(
        "two_zeros_product takes the zero points of both sides out of the sum of codes",
        _check_two_zeros,
        "(x - a)(w - b) has four terms. Which of them depend on the row, which on the output, which on neither?",
    ),
    Check(
        "power_scale is the least power of two at which no number is clipped",
        _check_power_scale,
        "A scale of 8 bits that is an exponent alone (E8M0): up or down?",
    ),
]
