"""What a right `moe.py` must do. Each check takes the module, so that a reader's functions and a patient can be asked
the same. No two sizes are equal: 15 tokens, 5 experts, up to 3 for a token, 6 numbers a token, 7 in an expert. There is
always an expert that nobody wants and a token that has no route.
"""

import copy
import math
from functools import partial

import torch
from torch.nn import functional as F

from shared.clinic import Check, difference, refusal
from shared.layers import FeedForward, SwiGLU
from shared.tiny_lm import TinyLM

B, T, N, E, D, HIDDEN = 3, 5, 15, 5, 6, 7
FLOAT = torch.float64
SHARES = 1e-6  # shares of a count may be float32, which rounds at 6e-8
WAYS = ("dispatch_loop", "dispatch_masked", "dispatch_grouped")
KINDS = [{}, {"bias": True}, {"gated": False, "bias": True}, {"gated": False, "approximate": "tanh"}]


def _draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=FLOAT)


def _numbers(values, dtype=FLOAT):
    return torch.tensor(values, dtype=dtype)


def _filled(module):
    """The same module with large random weights in float64."""
    module = module.to(FLOAT)
    for seed, parameter in enumerate(module.parameters()):
        parameter.data = _draw(*parameter.shape, seed=seed) * 0.6
    return module


def _layer(m, **how):
    return _filled(m.MoE(D, **{"n_experts": E, "k": 2, "d_hidden": HIDDEN} | how))


def _routes(m, seed=0):
    """Twenty routes: expert 3 and token 4 have none, one token goes to the same expert twice, and to another."""
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randint(N, (20,), generator=draw)
    tokens[tokens == 4] = 5
    experts = torch.tensor([0, 1, 2, 4])[torch.randint(4, (20,), generator=draw)]
    tokens[:3], experts[:3] = 7, torch.tensor([2, 2, 0])
    return m.Routes(tokens, experts, torch.rand(20, generator=draw, dtype=FLOAT))


def _skewed(seed=0):
    """Scores of 15 tokens that like some experts more than others."""
    return (_draw(N, E, seed=seed) + _numbers([1.5, 0, -1, 0.5, -3])).softmax(dim=-1)


def _answer(experts, expert, x):
    """One expert's answer by its rows of the stacked matrices."""

    def rows(linear, width):
        part = slice(expert * width, (expert + 1) * width)
        return linear.weight[part], 0 if linear.bias is None else linear.bias[part]

    hidden, (width, n) = experts.proj.in_features, (x.shape[-1], len(experts))
    matrix, bias = rows(experts.up, experts.up.out_features // n)
    found = x @ matrix.T + bias
    if experts.gated:
        found = F.silu(found[..., :hidden]) * found[..., hidden:]
    else:
        found = F.gelu(found, approximate=experts.approximate)
    matrix, bias = rows(experts.proj, width)
    return found @ matrix.T + bias


def _by_hand(x, routes, experts):
    """Route by route."""
    y = [torch.zeros(x.shape[-1], dtype=x.dtype) for _ in x]
    for token, expert, gate in zip(routes.tokens.tolist(), routes.experts.tolist(), routes.gates, strict=True):
        y[token] = y[token] + gate * _answer(experts, expert, x[token])
    return torch.stack(y)


def _check_scores(m):
    logits = _draw(N, E) * 3
    each = {"softmax": logits.exp() / logits.exp().sum(-1, keepdim=True), "sigmoid": 1 / (1 + (-logits).exp())}
    for kind, wanted in each.items():
        if gap := difference(m.scores_of(logits, kind), wanted):
            return f"{kind} of logits [token, expert]: {gap}"
    if gap := difference(m.scores_of(logits + 1000), each["softmax"]):
        return f"softmax of logits that are all 1,000 larger [token, expert]: {gap}"
    low = m.scores_of(logits.bfloat16())
    if low.dtype != torch.float32 or difference(low.double(), logits.bfloat16().double().softmax(-1), 1e-6):
        return f"of bfloat16 logits the scores are {low.dtype}, or rounded to it: expected float32"


def _check_top_k(m):
    scores = _skewed()
    for k in (1, 2, 3, E):
        best = [sorted(range(E), key=lambda e, row=row: -row[e])[:k] for row in scores]
        raw = torch.stack([row[i] for row, i in zip(scores, best, strict=True)])
        even = raw / raw.sum(-1, keepdim=True)
        for normalize, wanted in ((True, even), (False, raw), (None, even if k > 1 else raw)):
            gates, chosen = m.top_k(scores, k, normalize)
            if chosen.tolist() != best:
                return f"k {k}: chosen {chosen[0].tolist()} for scores {scores[0].numpy().round(2)}, expected {best[0]}"
            if gap := difference(gates, wanted):
                return f"k {k}, normalize {normalize}: gates [token, choice]: {gap}"


def _check_softmax_of_chosen(m):
    logits = _draw(N, E) * 2
    for k in (2, 3):
        gates, chosen = m.top_k(m.scores_of(logits), k)
        if gap := difference(gates, logits.gather(1, chosen).softmax(dim=-1)):
            return f"k {k}: gates [token, choice] are not the softmax of the chosen logits: {gap}"


def _check_bias(m):
    scores, bias = _skewed(), _numbers([-2, 0.3, 2, 0, 0.1])
    for k in (1, 2, 3):
        for normalize in (True, False):
            gates, chosen = m.top_k(scores, k, normalize, bias)
            wanted = [sorted(range(E), key=lambda e, row=row: -row[e])[:k] for row in scores + bias]
            if chosen.tolist() != wanted:
                return f"k {k}, bias {bias.tolist()}: token 0 chose {chosen[0].tolist()}, expected {wanted[0]}"
            raw = scores.gather(1, chosen)
            if gap := difference(gates, raw / raw.sum(-1, keepdim=True) if normalize else raw):
                return f"k {k}, bias {bias.tolist()}, normalize {normalize}: gates [token, choice]: {gap}"


def _check_routes(m):
    gates, chosen = m.top_k(_skewed(), 3)
    routes = m.routes_of(gates, chosen)
    wanted = [(t, int(chosen[t, i]), float(gates[t, i])) for i in range(3) for t in range(N)]
    found = list(zip(*(part.tolist() for part in routes), strict=True))
    for i, (one, other) in enumerate(zip(found, wanted, strict=True)):
        if one != other:
            return f"15 tokens, k 3: route {i} is (token, expert, gate) {one}, expected {other}"


def _check_capacity(m):
    cases = [((100, 1, 8, 1.25), 16), ((100, 2, 8, 1.0), 25), ((7, 1, 8, 1.0), 1), ((64, 2, 8, 2.0), 32)]
    for sizes, wanted in [*cases, ((15, 3, 5, 0.5), 5)]:
        if (found := m.capacity(*sizes)) != wanted:
            return f"tokens, k, experts, factor {sizes}: room for {found}, expected {wanted}"


def _check_limit(m):
    for name, routes in (("20 routes", _routes(m)), ("all to expert 1", m.Routes(*_routes(m)[:1], *_to_one(20)))):
        for room in (0, 1, 3, 20):
            seen, kept = dict.fromkeys(range(E), 0), []
            for i, expert in enumerate(routes.experts.tolist()):
                seen[expert] += 1
                if seen[expert] <= room:
                    kept.append(i)
            found = m.limit(routes, E, room)
            for part, one, other in zip(routes._fields, found, routes, strict=True):
                if gap := difference(one.double(), other[kept].double(), 0):
                    return f"{name}, room for {room}: {part} of the routes that are left: {gap}"


def _to_one(n):
    return torch.ones(n, dtype=torch.long), torch.ones(n, dtype=FLOAT)


def _check_load(m):
    routes, real = _routes(m), torch.arange(N).view(B, T) % 3 > 0
    for name, mask in (("", None), (", a third of the tokens padding", real)):
        wanted = [0] * E
        for token, expert in zip(routes.tokens.tolist(), routes.experts.tolist(), strict=True):
            wanted[expert] += mask is None or bool(mask[token // T, token % T])
        if (found := m.load(routes, E, mask).tolist()) != wanted:
            return f"20 routes{name}: the load is {found}, expected {wanted}"


def _cyclic(m, k, repeats=3):
    """Even: each expert is wanted as often as every other, with scores .7 and the rest."""
    first = torch.arange(E).repeat(repeats)
    chosen = torch.stack([(first + i) % E for i in range(k)], dim=1)
    scores = torch.full((len(first), E), 0.3 / (E - k), dtype=FLOAT).scatter(1, chosen, 0.7 / k)
    return scores, m.routes_of(scores.gather(1, chosen), chosen)


def _check_balance(m):
    for k in (1, 2, 3):
        if abs(found := float(m.balance_loss(*_cyclic(m, k))) - 1) > SHARES:
            return f"k {k}, every expert wanted as often as the others: {found + 1:.4g}, expected 1"
    scores = F.one_hot(torch.full((N,), 3), E).to(FLOAT)
    routes = m.routes_of(*m.top_k(scores, 1))
    if abs((found := float(m.balance_loss(scores, routes))) - E) > SHARES:
        return f"one of {E} experts has all: {found:.4g}, expected {E}"
    even = torch.full((N, E), 1 / E, dtype=FLOAT)
    if abs((found := float(m.balance_loss(even, routes))) - 1) > SHARES:
        return f"one of {E} experts has all routes, probabilities are even: {found:.4g}, expected 1"
    for k in (1, 2):
        for name, scores in (("softmax", _skewed()), ("sigmoid", _draw(N, E).sigmoid())):
            gates, chosen = m.top_k(scores, k)
            shares = [sum(row.count(e) for row in chosen.tolist()) / N / k for e in range(E)]
            means = (scores / scores.sum(-1, keepdim=True)).mean(0).tolist()
            wanted = E * sum(f * p for f, p in zip(shares, means, strict=True))
            if abs((found := float(m.balance_loss(scores, m.routes_of(gates, chosen)))) - wanted) > SHARES:
                return f"{name} scores, k {k}: {found:.6g}, expected {E} sum(share * mean probability) = {wanted:.6g}"


def _check_balance_padding(m):
    scores, logits = _skewed(), _draw(N, E)
    padded = torch.cat([scores[:10], F.one_hot(torch.full((8,), 4), E).to(FLOAT), scores[10:]])
    real = torch.ones(18, dtype=torch.bool)
    real[10:] = False
    real = torch.cat([real, torch.ones(5, dtype=torch.bool)])
    mask = real.view(1, -1)
    short, long = (m.routes_of(*m.top_k(it, 2)) for it in (scores, padded))
    alone, found = m.balance_loss(scores, short), m.balance_loss(padded, long, mask)
    if gap := difference(found, alone, SHARES):
        return f"15 tokens, and 8 of padding that all want expert 4: the balance loss is not that of the 15: {gap}"
    stretched = torch.cat([logits[:10], _draw(8, E, seed=1) * 9, logits[10:]])
    if gap := difference(m.z_loss(stretched, mask), m.z_loss(logits)):
        return f"15 tokens, and 8 of padding: the z-loss is not that of the 15: {gap}"


def _check_balance_gradient(m):
    logits = _draw(N, E).requires_grad_()
    scores = logits.softmax(dim=-1)
    _, chosen = m.top_k(scores, 2)
    loss = m.balance_loss(scores, m.routes_of(*m.top_k(scores, 2)))
    if not loss.requires_grad:
        return "the balance loss has no gradient: the router is not told"
    shares = torch.bincount(chosen.flatten(), minlength=E).to(FLOAT) / chosen.numel()
    p = scores.detach()
    wanted = E / N * p * (shares - (p * shares).sum(-1, keepdim=True))  # of E shares . mean(softmax), by hand
    if gap := difference(torch.autograd.grad(loss, logits)[0], wanted, SHARES):
        return f"the balance loss's gradient at the logits [token, expert]: {gap}"


def _check_z(m):
    logits = _draw(N, E) * 3
    wanted = sum(math.log(sum(math.exp(z) for z in row)) ** 2 for row in logits.tolist()) / N
    if abs((found := float(m.z_loss(logits))) - wanted) > 1e-9:
        return f"logits of 15 tokens: {found:.6g}, expected the mean square of log sum exp, {wanted:.6g}"
    if not m.z_loss(logits + 1000).isfinite():
        return "logits of 1,000: the z-loss is not finite"


def _check_moved_bias(m):
    bias, counts = _numbers([0.5, 0, -0.2, 0, 1]), torch.tensor([9, 3, 0, 4, 4])
    wanted = bias + 0.1 * _numbers([-1, 1, 1, 0, 0])
    if gap := difference(m.moved_bias(bias, counts, 0.1), wanted, SHARES):
        return f"load {counts.tolist()}, mean 4, rate .1: the new bias: {gap}"


def _check_way(m, way):
    for how in KINDS:
        experts, x = _layer(m, **how).experts, _draw(N, D, seed=9)
        for seed in (0, 1):
            routes = _routes(m, seed)
            if gap := difference(getattr(m, way)(x, routes, experts), _by_hand(x, routes, experts)):
                return f"20 routes, experts {how}: [token, number] not as route by route: {gap}"
    none = m.Routes(*(part[:0] for part in routes))
    if gap := difference(getattr(m, way)(x, none, experts), torch.zeros(N, D, dtype=FLOAT), 0):
        return f"no routes at all: [token, number] not 0: {gap}"


def _check_gradients(m):
    for how in KINDS:
        experts, x, routes = _layer(m, **how).experts, _draw(N, D, seed=9).requires_grad_(), _routes(m)
        gates = routes.gates.requires_grad_()
        into = {"x": x, "gates": gates, **dict(experts.named_parameters())}
        wanted = torch.autograd.grad(_by_hand(x, routes, experts).square().sum(), list(into.values()))
        for way in WAYS:
            y = getattr(m, way)(x, routes, experts)
            found = torch.autograd.grad(y.square().sum(), list(into.values()), allow_unused=True)
            for name, one, other in zip(into, found, wanted, strict=True):
                if one is None:
                    return f"{way}, experts {how}: {name} gets no gradient"
                if gap := difference(one, other, 1e-8):  # squares of sums of size 100
                    return f"{way}, experts {how}: the gradient of {name}, not as route by route: {gap}"


def _check_work(m):
    seen = []

    class Counted:
        """Experts that count the rows that they are given."""

        def __len__(self):
            return E

        def one(self, expert, x):
            seen.append((expert, len(x)))
            return x * (expert + 1)

        def grouped(self, rows, counts):
            seen.extend(enumerate(counts.tolist()))
            if len(rows) != counts.sum():
                raise ValueError(f"{len(rows)} rows for loads {counts.tolist()}")
            return rows * torch.arange(1, E + 1).repeat_interleave(counts)[:, None]

    x, routes = _draw(N, D), _routes(m)
    wanted = [routes.experts.tolist().count(expert) for expert in range(E)]
    for way in ("dispatch_loop", "dispatch_grouped"):
        seen.clear()
        y = getattr(m, way)(x, routes, Counted())
        rows = [sum(n for expert, n in seen if expert == e) for e in range(E)]
        if rows != wanted:
            return f"20 routes, {way}: the experts were given {rows} rows, expected {wanted}"
        sums = torch.zeros(N, dtype=FLOAT).index_add(0, routes.tokens, routes.gates * (routes.experts + 1))
        if gap := difference(y, x * sums[:, None]):
            return f"{way}, expert e answers (e + 1) x: [token, number]: {gap}"


def _check_one_expert(m):
    for how, plain in ((KINDS[0], SwiGLU(D, HIDDEN)), (KINDS[1], SwiGLU(D, HIDDEN, bias=True)), (KINDS[2], None)):
        plain = _filled(FeedForward(D) if plain is None else plain)
        layer = _layer(m, **{"n_experts": 1, "k": 1, "d_hidden": plain.proj.in_features} | how)
        up = plain.gate_up if isinstance(plain, SwiGLU) else plain.up
        layer.experts.up.load_state_dict(up.state_dict())
        layer.experts.proj.load_state_dict(plain.proj.state_dict())
        x = _draw(B, T, D)
        if gap := difference(layer(x), plain(x)):
            return f"one expert {how}: [row, token, number] not as a {type(plain).__name__}: {gap}"


def _check_dense(m):
    for way in WAYS:
        layer, x = _layer(m, k=E, dispatch=getattr(m, way)), _draw(N, D, seed=9)
        gates = (x @ layer.router.weight.T).softmax(dim=-1)
        wanted = sum(gates[:, e, None] * _answer(layer.experts, e, x) for e in range(E))
        if gap := difference(layer(x), wanted):
            return f"k = {E} experts, {way}: [token, number] not the sum of softmax times answers: {gap}"


def _check_equal_experts(m):
    x = _draw(N, D, seed=9)
    for scores in ("softmax", "sigmoid"):
        for k in (1, 2, 3):
            layer = _layer(m, k=k, bias=True, scores=scores)
            for part in (layer.experts.up, layer.experts.proj):
                for weights in (part.weight, part.bias):
                    weights.data = weights.data[: len(weights) // E].repeat(E, *[1] * (weights.ndim - 1))
            one = _answer(layer.experts, 0, x)
            best = m.scores_of(x @ layer.router.weight.T, scores).amax(-1, keepdim=True)
            if gap := difference(layer(x), one if k > 1 else best * one):
                factor = "1" if k > 1 else "the best score"
                return f"all experts are equal, {scores}, k {k}: [token, number] not {factor} times that one: {gap}"


def _check_layer(m):
    for k, how in ((1, {}), (2, {"scores": "sigmoid", "n_shared": 2}), (3, {"n_shared": 1, "bias": True})):
        layer, x = _layer(m, k=k, **how), _draw(B, T, D, seed=9)
        layer.bias.copy_(_numbers([0.2, -0.3, 0, 0.4, 0.1]))
        y, rows = layer(x), x.view(N, D)
        logits = rows @ layer.router.weight.T
        scores = logits.sigmoid() if "scores" in how else logits.softmax(dim=-1)
        wanted = torch.zeros(N, D, dtype=FLOAT)
        for t in range(N):
            mine = sorted(range(E), key=lambda e, t=t: -(scores[t] + layer.bias)[e])[:k]
            total = sum(scores[t, e] for e in mine) if k > 1 else 1
            wanted[t] = sum(scores[t, e] / total * _answer(layer.experts, e, rows[t]) for e in mine)
        if how:
            shared, wide = layer.shared, how["n_shared"] * HIDDEN
            if (len(shared), shared.proj.in_features) != (1, wide):
                found = f"{len(shared)}, {shared.proj.in_features} wide"
                return f"{how['n_shared']} shared experts of {HIDDEN} are {found}, expected one, {wide} wide"
            wanted = wanted + _answer(layer.shared, 0, rows)
        if gap := difference(y, wanted.view(B, T, D)):
            return f"k {k}, {how}: [row, token, number] not as token by token: {gap}"
        for name, found, expected in (("logits", layer.record.logits, logits), ("scores", layer.record.scores, scores)):
            if gap := difference(found, expected):
                return f"k {k}, {how}: {name} of the record [token, expert]: {gap}"
        if (found := len(layer.record.routes.tokens)) != k * N:
            return f"k {k}, no capacity: the record has {found} routes, expected {k * N}"


def _check_alone(m):
    """Without a capacity."""
    for way in WAYS:
        layer, x = _layer(m, dispatch=getattr(m, way)), _draw(N, D, seed=9)
        order = torch.arange(N).flip(0)
        for name, found, wanted in (
            ("in reverse", layer(x[order])[order], layer(x)),
            ("3 alone", layer(x[4:7]), layer(x)[4:7]),
        ):
            if gap := difference(found, wanted):
                return f"{way}, tokens {name}: [token, number] not as among all: {gap}"


def _check_router_gradient(m):
    for k, how in ((1, {}), (2, {}), (3, {"scores": "sigmoid"})):
        for way in WAYS:
            layer, x = _layer(m, k=k, dispatch=getattr(m, way), **how), _draw(N, D, seed=9)
            layer(x).square().sum().backward()
            gradient = layer.router.weight.grad
            if unused := [name for name, weight in layer.named_parameters() if weight.grad is None]:
                return f"k {k}, {way}, {how}: {unused[0]} gets no gradient by the loss"
            if gradient.norm() < 1e-6 * layer.experts.proj.weight.grad.norm():
                return (
                    f"k {k}, {way}, {how}: the router's gradient by the loss alone is of length {gradient.norm():.2g}"
                )


def _check_precision(m):
    if (logits := m.Router(D, E).double()(_draw(N, D))).dtype != FLOAT:
        return f"in float64: logits {logits.dtype}, expected float64"
    for way in WAYS:
        layer = m.MoE(16, n_experts=E, k=2, d_hidden=8, dispatch=getattr(m, way)).bfloat16()
        x = _draw(40, 16).bfloat16()
        y, record = layer(x), layer.record
        if y.dtype != torch.bfloat16 or record.logits.dtype != torch.float32:
            return f"{way} in bfloat16: output {y.dtype}, logits {record.logits.dtype}, expected bfloat16 and float32"
        wanted = x.double() @ layer.router.weight.double().T
        if gap := difference(record.logits.double(), wanted, 1e-5):
            return f"{way} in bfloat16: logits [token, expert] were rounded to it: {gap}"


def _check_dropped(m):
    for k in (1, 2):
        for factor in (0.3, 0.8, 50.0):
            layer, x = _layer(m, k=k, capacity_factor=factor), _draw(B, T, D, seed=9)
            y, room = layer(x), math.ceil(factor * N * k / E)
            wanted, routes = layer.record.wanted, layer.record.routes
            if len(wanted.tokens) != k * N:
                return f"k {k}, factor {factor}: {len(wanted.tokens)} routes were wanted, expected {k * N}"
            if (most := int(torch.bincount(routes.experts).max())) > room:
                return f"k {k}, factor {factor}: an expert has {most} routes, there is room for {room}"
            for part, one, other in zip(routes._fields, routes, m.limit(wanted, E, room), strict=True):
                if gap := difference(one.detach().double(), other.detach().double(), 0):
                    return f"k {k}, factor {factor}: {part} of the routes that are left: {gap}"
            if gap := difference(y.view(N, D), _by_hand(x.view(N, D), routes, layer.experts)):
                return f"k {k}, factor {factor}: [token, number] not what the routes that are left give: {gap}"


def _model(m, **how):
    """A decoder of two layers with mixtures."""
    layer = partial(m.MoE, **{"n_experts": E, "k": 2, "d_hidden": HIDDEN} | how)
    return TinyLM(11, 16, D, 2, 2, feed_forward=layer)


def _check_first_weights(m):
    model = TinyLM(11, 16, 48, 2, 2, feed_forward=partial(m.MoE, n_experts=E, k=2, d_hidden=64, n_shared=1))
    layer = model.blocks[1].feed_forward
    spreads = {"router": layer.router, "experts.up": layer.experts.up, "experts.proj": layer.experts.proj}
    for name, part in (spreads | {"shared.up": layer.shared.up, "shared.proj": layer.shared.proj}).items():
        wanted = 0.02 / 2 if name.endswith("proj") else 0.02
        margin = 6 / math.sqrt(2 * part.weight.numel())  # six standard errors of a spread
        if abs((found := float(part.weight.detach().std())) / wanted - 1) > margin:
            return f"{name} of a decoder of two layers: first weights of spread {found:.3g}, expected {wanted}"


def _check_copy(m):
    model, tokens = _filled(_model(m)), torch.arange(8).view(2, 4)
    logits = model(tokens)
    other = copy.deepcopy(model)
    if model.blocks[0].feed_forward.record is None or other.blocks[0].feed_forward.record is not None:
        return "after a forward pass and a copy: expected a record in the model, and none in the copy"
    if gap := difference(other(tokens), logits):
        return f"a copy of the model: [row, token, word]: {gap}"
    found, wanted = m.mixtures(model), [block.feed_forward for block in model.blocks]
    if [id(layer) for layer in found] != [id(layer) for layer in wanted]:
        return f"a decoder of two layers has {len(found)} mixtures, or in another order"
    if sorted(model.state_dict()) != sorted(other.state_dict()) or not any("bias" in n for n in model.state_dict()):
        return "the layer's bias is not among what is saved"


def _collapsed(m):
    """Two layers that have collapsed on different experts: each alone would be E, both together near E / 2."""
    model = _model(m, k=1)
    for i, layer in enumerate(block.feed_forward for block in model.blocks):
        logits = torch.full((N, E), -30.0, dtype=FLOAT)
        logits[:, i] = 30.0
        scores = logits.softmax(dim=-1)
        wanted = m.routes_of(*m.top_k(scores, 1))
        layer.record = m.Record(logits, scores, wanted, wanted)
    return model


def _check_penalty(m):
    if abs((found := float(m.penalty(_collapsed(m), 0.01))) - 0.02 * E) > 1e-6:
        return f"two layers collapsed on different experts, coefficient .01: {found:.4g}, expected {0.02 * E}"
    model, tokens = _filled(_model(m, capacity_factor=0.5)), torch.arange(8).view(2, 4)
    real = torch.tensor([[True] * 4, [True, True, False, False]])
    for mask in (None, real):
        model(tokens)
        records = [block.feed_forward.record for block in model.blocks]
        balance = sum(m.balance_loss(record.scores, record.wanted, mask) for record in records)
        z = sum(m.z_loss(record.logits, mask) for record in records)
        for one, other in ((0.01, 0.0), (0.02, 0.0), (0.0, 0.3), (0.5, 0.25)):
            if gap := difference(m.penalty(model, one, other, mask), one * balance + other * z):
                return f"coefficients {one} and {other}: not these times the layers' losses: {gap}"
    m.penalty(model, 0.01).backward()
    for i, block in enumerate(model.blocks):
        gradient = block.feed_forward.router.weight.grad
        if gradient is None or not gradient.norm() > 0:
            return f"the penalty gives the router of layer {i} no gradient"


def _check_rebalance(m):
    model = _filled(_model(m, capacity_factor=0.5))
    tokens = torch.randint(11, (4, 9), generator=torch.Generator().manual_seed(0))
    real = torch.rand(4, 9, generator=torch.Generator().manual_seed(1)) < 0.7
    for mask in (None, real):
        model(tokens)
        before = [layer.bias.clone() for layer in m.mixtures(model)]
        m.rebalance(model, 0.05, mask)
        for i, (layer, bias) in enumerate(zip(m.mixtures(model), before, strict=True)):
            wanted = m.moved_bias(bias, m.load(layer.record.wanted, E, mask), 0.05)
            if gap := difference(layer.bias, wanted):
                return f"rate .05: the bias of layer {i} [expert]: {gap}"
    x, layer = _draw(400, D), _layer(m, k=1)
    worst = []
    for _ in range(100):
        layer(x)
        worst.append(int(m.load(layer.record.wanted, E).max()))
        m.rebalance(layer, 0.02)
    if not worst[-1] < 400 / E * 1.3 < worst[0]:
        return f"400 tokens, {E} experts: the largest load went from {worst[0]} to {worst[-1]} in 100 moves of the bias"


def _check_inputs(m):
    scores, model = _skewed(), _model(m)
    routes = m.routes_of(*m.top_k(scores, 2))
    build = partial(m.MoE, D, n_experts=E, d_hidden=HIDDEN)
    short, none = torch.ones(3, dtype=torch.bool), torch.zeros(N, dtype=torch.bool)
    return refusal(
        [
            ("scores that there are not", "'tanh'", lambda: m.scores_of(scores, "tanh")),
            ("k 0", "k is 0", lambda: m.top_k(scores, 0)),
            ("k 6 of 5", "k is 6", lambda: m.top_k(scores, 6)),
            ("a layer with k 0", "k is 0", lambda: build(k=0)),
            ("a layer with k 6 of 5", "k is 6", lambda: build(k=6)),
            ("-1 shared experts", "n_shared -1", lambda: build(k=1, n_shared=-1)),
            ("a capacity of 0", "capacity_factor is 0", lambda: build(k=1, capacity_factor=0.0)),
            ("a mask of 3 for 15 tokens", "15", lambda: m.balance_loss(scores, routes, short)),
            ("a mask of numbers", "bool", lambda: m.z_loss(scores, torch.ones(N))),
            ("a mask of padding only", "0 of them", lambda: m.z_loss(scores, none)),
            ("a model before its forward pass", "forward pass", lambda: m.penalty(model, 0.1)),
            ("a model without mixtures", "0 mixtures", lambda: m.rebalance(TinyLM(11, 16, D, 1, 2), 0.1)),
        ]
    )


CHECKS = [
    Check(
        "scores are the softmax over experts, or sigmoids, in float32 or better",
        _check_scores,
        "Over which axis is the softmax? In which type is it taken?",
        about=["scores_of"],
    ),
    Check(
        "the best experts are chosen, and their gates sum to 1 if there are several",
        _check_top_k,
        "By what are gates divided? And if there is one?",
        about=["top_k"],
    ),
    Check(
        "renormalised gates are the softmax of the chosen logits alone",
        _check_softmax_of_chosen,
        "What cancels if a part of a softmax is divided by its sum?",
        about=["top_k"],
    ),
    Check(
        "a bias changes who is chosen, and no gate",
        _check_bias,
        "From which numbers are experts chosen, and from which are gates taken?",
        about=["top_k"],
    ),
    Check(
        "routes are all first choices, then all second choices",
        _check_routes,
        "In which order do token and choice run?",
    ),
    Check("an expert's room is its even share times the factor, rounded up", _check_capacity, about=["capacity"]),
    Check(
        "each expert takes the first that arrive, and no more than it has room for",
        _check_limit,
        "Are routes counted for each expert by itself, over all choices?",
        about=["limit"],
    ),
    Check(
        "the load counts every route of every token that is no padding",
        _check_load,
        "Are second choices counted?",
        about=["load"],
    ),
    Check(
        "the balance loss is 1 where all is even and E where one expert has all",
        _check_balance,
        "Which mean is taken over tokens? Do shares sum to 1 if k is 2? Is the softmax taken once?",
        about=["balance_loss"],
    ),
    Check(
        "padding changes neither loss",
        _check_balance_padding,
        "Are both factors taken without padding?",
        about=["balance_loss", "z_loss"],
    ),
    Check(
        "the balance loss's gradient is that of the mean probabilities, weighted by the load",
        _check_balance_gradient,
        "Which of the two factors has a gradient?",
        about=["balance_loss"],
    ),
    Check("the z-loss is the mean square of the logits' log-sum-exp", _check_z, about=["z_loss"]),
    Check(
        "the bias rises for experts below the mean load, and falls for those above",
        _check_moved_bias,
        "By how much? Is it the size of the gap that counts, or its sign?",
        about=["moved_bias"],
    ),
    *(
        Check(
            f"{name} gives what the routes give one by one",
            partial(_check_way, way=way),
            "Which token does a row belong to, and which gate? What if a token goes to an expert twice?",
            about=[way],
        )
        for name, way in zip(("the loop", "the masked way", "the grouped way"), WAYS, strict=True)
    ),
    Check(
        "so are the gradients of all three, of inputs, gates and weights",
        _check_gradients,
        "What is detached, or overwritten in place?",
        about=WAYS,
    ),
    Check(
        "the loop and the grouped way give each expert its own rows, and no others",
        _check_work,
        "Is the order by which rows are sorted also that of gates and tokens?",
        about=["dispatch_loop", "dispatch_grouped"],
    ),
    Check(
        "one expert is a plain feed-forward layer",
        _check_one_expert,
        "What is the softmax of one number?",
    ),
    Check(
        "with all experts chosen the layer is the dense mixture, of softmax times answers",
        _check_dense,
        "Are the gates those of the softmax over all?",
    ),
    Check(
        "equal experts answer as one: gates of several sum to 1, a single one is its score",
        _check_equal_experts,
        "What do a token's gates sum to?",
    ),
    Check(
        "the layer gives what the formula gives token by token, with shared experts and a bias",
        _check_layer,
        "Is what the shared experts answer multiplied by a gate? Where is the bias added?",
    ),
    Check(
        "without a capacity a token's output hangs on that token alone",
        _check_alone,
        "Which operation runs over tokens?",
    ),
    Check(
        "the loss alone gives the router a gradient",
        _check_router_gradient,
        "By which way does a gradient come to the router? What is the gate if k is 1?",
    ),
    Check(
        "the router computes in float32 or better, and the output has its input's type",
        _check_precision,
        "What is converted, and when?",
        about=["Router.forward", *WAYS],
    ),
    Check(
        "dropped routes add nothing, and are recorded as wanted",
        _check_dropped,
        "How much room is there? Which routes does the dispatch get?",
    ),
    Check(
        "a decoder gives experts the first weights that it gives a plain layer",
        _check_first_weights,
        "What does the decoder take for a matrix that writes to the stream?",
    ),
    Check(
        "a copy of the model computes the same, and has no record of its own",
        _check_copy,
        "What of the layer is saved?",
    ),
    Check(
        "the penalty is the coefficients times the losses, layer by layer",
        _check_penalty,
        "Of which layer is a load even? And of which routes, those that were wanted or those that were left?",
        about=["penalty"],
    ),
    Check(
        "moves of the bias even the load, each layer's by its own",
        _check_rebalance,
        "Which load does a layer's bias follow?",
    ),
    Check("what cannot work is refused in words", _check_inputs),
]


def _check_kept_by_gate(m):
    experts = torch.tensor([0, 1, 2, 4])[torch.randint(4, (20,), generator=torch.Generator().manual_seed(0))]
    gates = torch.rand(20, generator=torch.Generator().manual_seed(1), dtype=FLOAT)
    for room in (0, 1, 3, 20):
        wanted = set()
        for expert in range(E):
            mine = [i for i in range(20) if experts[i] == expert]
            wanted.update(sorted(mine, key=lambda i: -gates[i])[:room])
        found = m.kept_by_gate(experts, gates, E, room)
        if found.dtype != torch.bool or found.shape != (20,):
            return f"20 routes: {found.dtype} {tuple(found.shape)}, expected bool (20,)"
        if (kept := set(found.nonzero()[:, 0].tolist())) != wanted:
            return f"20 routes, room for {room}: {sorted(kept)} are kept, expected {sorted(wanted)}"


def _check_group_limited(m):
    scores = torch.rand(N, 12, generator=torch.Generator().manual_seed(0), dtype=FLOAT)
    for groups, kept, k in ((4, 2, 3), (3, 1, 4), (6, 3, 5), (4, 4, 3)):
        size, wanted = 12 // groups, []
        for row in scores.tolist():
            best = sorted(range(groups), key=lambda g, row=row: -max(row[g * size : (g + 1) * size]))[:kept]
            open_to = [e for e in range(12) if e // size in best]
            wanted.append(sorted(open_to, key=lambda e, row=row: -row[e])[:k])
        found = m.group_limited(scores, k, groups, kept).tolist()
        if found != wanted:
            t = next(t for t in range(N) if found[t] != wanted[t])
            how = f"12 experts in {groups} groups, of which {kept} are open, k {k}"
            return f"{how}: token {t} chose {found[t]}, expected {wanted[t]}"


def _check_sequence_loss(m):
    scores = _skewed()
    chosen = scores.topk(2, dim=-1).indices
    wanted = 0.0
    for b in range(B):
        mine = range(b * T, (b + 1) * T)
        for e in range(E):
            share = sum(chosen[t].tolist().count(e) for t in mine) / (2 * T)
            wanted += E * share * float(scores[mine, e].mean()) / B
    found = m.sequence_balance_loss(scores.view(B, T, E), chosen.view(B, T, 2))
    if abs(float(found) - wanted) > 1e-9:
        return f"3 texts of 5 tokens, k 2: {float(found):.6g}, expected the mean of each text's loss, {wanted:.6g}"
    logits = _draw(B, T, E).requires_grad_()
    if not m.sequence_balance_loss(logits.softmax(-1), chosen.view(B, T, 2)).requires_grad:
        return "the loss has no gradient"


EXERCISES = [
    Check(
        "kept_by_gate keeps each expert's routes with the largest gates",
        _check_kept_by_gate,
        "In which order must routes stand, so that the first ones of an expert are those to keep?",
    ),
    Check(
        "group_limited chooses experts from the best groups only",
        _check_group_limited,
        "By what is a group judged? What must a score be, so that it is never chosen?",
    ),
    Check(
        "sequence_balance_loss is the mean of the texts' own balance losses",
        _check_sequence_loss,
        "Over which axes are shares and probabilities averaged, before they are multiplied?",
    ),
]
