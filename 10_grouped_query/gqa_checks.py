"""What a right `gqa.py` must do. Each check takes the module, so that a reader's functions and a patient can be asked
the same. Six query heads share 1, 2, 3 or 6 key heads, and sizes differ from each other on purpose: with as many groups
as heads in a group, or with one head in all, half of the bugs do not show.
"""

import copy
import math
from functools import partial

import torch

from shared.clinic import Check, difference, refusal
from shared.memory import peak_bytes
from shared.rotary import RotaryAttention, no_positions
from shared.tiny_lm import TinyLM

B, T, S, H, D, WIDTH, LAYERS, VOCABULARY = 2, 7, 9, 6, 8, 20, 3, 11
SHARED = {  # key and value heads: which of them each of the six query heads reads
    1: [0, 0, 0, 0, 0, 0],
    2: [0, 0, 0, 1, 1, 1],
    3: [0, 0, 1, 1, 2, 2],
    6: [0, 1, 2, 3, 4, 5],
}
FLOAT = torch.float64
WAYS = ("attend_grouped", "attend_repeated", "attend_expanded")


def _draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=FLOAT)


def _filled(module):
    """The same module with large random weights in float64, that are not to be trained: positions and heads matter."""
    module = module.to(FLOAT).eval()
    for seed, parameter in enumerate(module.parameters()):
        parameter.data = _draw(*parameter.shape, seed=seed) * 0.4
    return module.requires_grad_(False)


def _model(attention, **how):
    """A decoder of 3 layers with this attention."""
    return _filled(TinyLM(VOCABULARY, 32, 24, LAYERS, H, attention=partial(attention, **how), positions=no_positions))


def _tokens(batch=B, seed=0):
    return torch.randint(VOCABULARY, (batch, T), generator=torch.Generator().manual_seed(seed))


def _read(model, tokens, cache, chunks):
    return torch.cat([model(part, cache) for part in tokens.split(chunks, dim=1)], dim=1)


def _softmax_loop(q, k, v, mask, readers):
    """Attention head by head and query by query: what a paper's formula says."""
    read = torch.zeros(q.shape, dtype=FLOAT)
    for b, h, t in ((b, h, t) for b in range(len(q)) for h in range(q.shape[1]) for t in range(q.shape[2])):
        seen = [s for s in range(k.shape[2]) if mask[b, t, s]]
        keys, values = k[b, readers[h], seen], v[b, readers[h], seen]
        shares = [math.exp(q[b, h, t] @ key / math.sqrt(q.shape[-1])) for key in keys]
        read[b, h, t] = sum(share * value for share, value in zip(shares, values, strict=True)) / sum(shares)
    return read


def _check_readers(m):
    cases = {(H, K): readers for K, readers in SHARED.items()} | {(8, 2): [0, 0, 0, 0, 1, 1, 1, 1], (1, 1): [0]}
    for (n_heads, n_kv_heads), wanted in cases.items():
        found = [m.kv_head_of(head, n_heads, n_kv_heads) for head in range(n_heads)]
        if found != wanted:
            return f"{n_heads} query heads over {n_kv_heads} key heads read {found}, expected {wanted}"


def _check_product(m):
    for K, readers in SHARED.items():
        x, shared = _draw(B, H, T, D), _draw(B, K, D, S, seed=1)
        wanted = torch.stack([torch.stack([x[b, h] @ shared[b, readers[h]] for h in range(H)]) for b in range(B)])
        for name, given in (
            ("", x),
            (" (heads were put before tokens)", x.transpose(1, 2).contiguous().transpose(1, 2)),
        ):
            if gap := difference(m.grouped_product(given, shared), wanted):
                return f"{H} heads over {K}{name}: product [row, head, token, column] not as head by head: {gap}"


def _check_product_copies_nothing(m):
    for K in SHARED:
        x, room = _draw(B, H, 1, D), _draw(B, K, 400, D, seed=1)
        shared = room[:, :, :300].mT  # as a cache hands out its filled columns
        result = B * H * 300 * 8
        most = peak_bytes(lambda x=x, shared=shared: m.grouped_product(x, shared))
        if most > 2 * result + x.nbytes:  # a loop makes each head's part, and then puts all together
            held = f"{most:,} bytes were made for a result of {result:,}"
            return f"{H} heads over {K}: {held}; those that are shared are {shared.nbytes:,}"


def _check_weights(m):
    scores = _draw(B, H, 3, S)
    mask = torch.ones(B, 1, 3, S, dtype=torch.bool).tril(S - 3)
    mask[1, :, :, :2] = False
    for name, given, seen in (("no mask", None, mask[:1].expand(B, -1, -1, -1)), ("a mask for each row", mask, mask)):
        for T in (3, 1):  # the last ones
            exponents = scores[:, :, -T:].exp() * seen[:, :, -T:]
            found = m.weights_of(scores[:, :, -T:], None if given is None else given[:, :, -T:])
            if gap := difference(found, exponents / exponents.sum(-1, keepdim=True)):
                return f"queries: {T}, keys: {S}, {name}: weights [row, head, query, key]: {gap}"
    for width in (D, 5):
        if gap := difference(m.scaled(scores[..., :width]), scores[..., :width] / math.sqrt(width)):
            return f"queries {width} wide [row, head, query, number] are not over the root of that: {gap}"


def _check_ways(m, way):
    attend = getattr(m, way)
    for K, readers in SHARED.items():
        q, k, v = _draw(B, H, 3, D), _draw(B, K, S, D, seed=1), _draw(B, K, S, D, seed=2)
        causal = torch.ones(3, S, dtype=torch.bool).tril(S - 3).expand(B, -1, -1)
        odd = causal.clone()
        odd[1, :, :4] = False
        cases = {"the last 3 queries": (None, causal), "a mask for each row": (odd[:, None], odd)}
        for name, (mask, seen) in cases.items():
            if gap := difference(attend(q, k, v, mask), _softmax_loop(q, k, v, seen, readers)):
                return f"{H} heads over {K}, {name}: [row, head, query, number] not as head by head: {gap}"
        one = torch.ones(B, 1, S, dtype=torch.bool)
        if gap := difference(attend(q[:, :, :1], k, v, None), _softmax_loop(q[:, :, :1], k, v, one, readers)):
            return (
                f"{H} heads over {K}, one query without a mask: [row, head, query, number] not as over all keys: {gap}"
            )


def _check_copies(m):
    K, columns = 2, 500
    q, k, v = _draw(1, H, 1, D), _draw(1, K, columns, D, seed=1), _draw(1, K, columns, D, seed=2)
    scores = 2 * H * columns * 8  # scores and weights
    most = peak_bytes(lambda: m.attend_grouped(q, k, v, None))
    if most > scores + 2000:
        return (
            f"one query over {columns} tokens: {most:,} bytes were made, scores take {scores:,}: the cache was copied"
        )


def _check_split(m):
    for K in SHARED:
        x = _draw(B, T, (H + 2 * K) * D)
        found = dict(zip("qkv", m.split_heads(x, H, K), strict=True))
        starts = {"q": (0, H), "k": (H, K), "v": (H + K, K)}
        for name, (first, n) in starts.items():
            wanted = torch.stack([x[:, :, (first + i) * D : (first + i + 1) * D] for i in range(n)], dim=1)
            if gap := difference(found[name], wanted, tolerance=0):
                return f"{H} query and {K} key heads: {name} [row, head, token, number] are other rows: {gap}"


def _check_house(m):
    """The house's own layer computes the same, by PyTorch's fused operation."""
    for K in SHARED:
        for bias in (True, False):
            how = {"n_kv_heads": K, "bias": bias, "rotary_base": 50.0}
            ours, house = _filled(m.GroupedAttention(24, H, **how)), _filled(RotaryAttention(24, H, **how))
            house.load_state_dict(ours.state_dict())
            x, places = _draw(B, T, 24), torch.tensor([[0, 0, 1, 2, 3, 4, 5], [3, 4, 5, 6, 7, 8, 9]])
            for name, positions in (("", None), (", other positions", places), (", moved on", places[1])):
                if gap := difference(ours(x, positions), house(x, positions)):
                    return (
                        f"{H} heads over {K}, bias {bias}{name}: [row, token, number] not as the house's layer: {gap}"
                    )
    if m.GroupedAttention(24, H).n_kv_heads != H:
        return f"without n_kv_heads there are {m.GroupedAttention(24, H).n_kv_heads} key heads, expected {H}"


def _repeated_rows(layer, readers):
    """The layer's fused matrix with a key and a value head for each query head: copies of the shared ones."""
    K = layer.n_kv_heads
    rows = [*range(H), *(H + head for head in readers), *(H + K + head for head in readers)]
    return {
        name: torch.cat([tensor[i * layer.d_head : (i + 1) * layer.d_head] for i in rows])
        for name, tensor in (("qkv.weight", layer.qkv.weight), ("qkv.bias", layer.qkv.bias))
    }


def _check_copies_are_mha(m):
    for K, readers in SHARED.items():
        for way in WAYS:
            shares = _filled(m.GroupedAttention(WIDTH, H, n_kv_heads=K, d_head=D, attend=getattr(m, way)))
            whole = _filled(m.GroupedAttention(WIDTH, H, d_head=D))
            whole.load_state_dict(whole.state_dict() | shares.state_dict() | _repeated_rows(shares, readers))
            x = _draw(B, T, WIDTH)
            if gap := difference(shares(x), whole(x)):
                return f"{H} heads over {K}, {way}: [row, token, number] not as with a copy for each query head: {gap}"


def _check_cache(m):
    tokens = _tokens()
    for K in SHARED:
        model = _model(m.GroupedAttention, n_kv_heads=K, d_head=10)
        for chunks in ([7], [3, 3, 1], [1, 5, 1]):
            cache = model.new_cache(B, 9)
            if gap := difference(_read(model, tokens, cache, chunks), model(tokens)):
                return f"{H} heads over {K}, chunks of {chunks}: [row, token, word] not as without a cache: {gap}"
        padding = torch.tensor([0, 2])
        logits = _read(model, tokens, model.new_cache(B, 9, padding), [4, 3])
        if gap := difference(logits[1:, 2:], model(tokens[1:, 2:])):
            return f"{H} heads over {K}, a row padded by 2: [., token, word] not as alone: {gap}"


def _check_cache_size(m):
    for K in SHARED:
        model = _model(m.GroupedAttention, n_kv_heads=K, d_head=10)
        cache = model.new_cache(B, 9)
        model(_tokens(), cache)
        if (found := tuple(cache.keys.shape)) != (LAYERS, B, K, 9, 10):
            return (
                f"{H} heads over {K}: the cache is {found} [layer, row, head, column, number], expected {K} heads of 10"
            )
        layers = cache.layers(1)
        filled = (layers[0].keys[:, :, :7] != 0).any(-1)
        if not filled.all():
            return f"{H} heads over {K}: after 7 tokens {int(filled.sum())} of {filled.numel()} keys are stored"


def _check_pool(m):
    heads = torch.tensor([1.0, 3.0, 5.0, 10.0, 20.0, 36.0], dtype=FLOAT)
    cases = {
        ("mean", 1): [12.5],
        ("mean", 2): [3.0, 22.0],
        ("mean", 3): [2.0, 7.5, 28.0],
        ("mean", 6): heads.tolist(),
        ("first", 1): [1.0],
        ("first", 2): [1.0, 10.0],
        ("first", 3): [1.0, 5.0, 20.0],
    }
    for trailing in ((), (1,), (2, 3)):
        given = heads.reshape(-1, *[1] * len(trailing)).expand(-1, *trailing)
        for (how, n), numbers in cases.items():
            wanted = torch.tensor(numbers, dtype=FLOAT).reshape(-1, *[1] * len(trailing)).expand(-1, *trailing)
            if gap := difference(m.pool(given, n, how), wanted):
                return f"heads {heads.tolist()}, each {trailing}, to {n} by {how}: [head, ...]: {gap}"
    if gap := difference(m.pool(heads, 2), torch.tensor([3.0, 22.0], dtype=FLOAT)):
        return f"heads {heads.tolist()} to 2, no way named: {gap}"


def _check_random(m):
    heads = _draw(6, 40, 50) * 3
    first, again, other = (m.pool(heads, 2, "random", torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    if first.shape != (2, 40, 50) or first.dtype != FLOAT:
        return f"6 heads (40, 50) in float64 to 2 random ones: {tuple(first.shape)} {first.dtype}"
    if difference(first, again) or not difference(first, other):
        return "random heads hang on something else than the generator that is given"
    if not 2.85 < first.std() < 3.15 or abs(first.mean()) > 0.3:  # 4,000 numbers: 3 +- .034, 0 +- .047
        return f"heads spread by 3 became random ones that spread by {first.std():.3g} around {first.mean():.3g}"
    near = (first - heads[::3]).square().mean() / heads.var()
    if near < 1.5:
        return f"random heads are near the given ones: mean square distance {near:.2g} of their variance, expected 2"


def _check_lossless(m):
    for n, readers in SHARED.items():
        whole = _model(m.GroupedAttention, d_head=10)
        for i, block in enumerate(whole.blocks):
            shares = _filled(m.GroupedAttention(24, H, n_kv_heads=n, d_head=10))
            shares.qkv.weight += i
            whole_layer = block.attention
            whole_layer.load_state_dict(whole_layer.state_dict() | _repeated_rows(shares, readers))
        tokens = _tokens()
        for how in ("mean", "first"):
            small = m.pool_model(whole, n, how)
            if gap := difference(small(tokens), whole(tokens)):
                return f"the key heads of each group were equal, {H} to {n} by {how}: logits [row, token, word]: {gap}"


def _check_pool_rows(m):
    for K, n in ((6, 2), (6, 3), (3, 1), (6, 1)):
        matrix = torch.arange(H + 2 * K, dtype=FLOAT).repeat_interleave(D)[:, None] + torch.tensor([0.0, 100.0])
        size = K // n
        groups = [list(range(g * size, (g + 1) * size)) for g in range(n)]
        means = {"mean": [sum(g) / size for g in groups], "first": [g[0] for g in groups]}
        for how, heads in means.items():
            wanted = [*range(H), *(H + head for head in heads), *(H + K + head for head in heads)]
            for name, given in (("matrix", matrix), ("bias", matrix[:, 0])):
                found = m.pool_qkv(given, H, D, n, how)
                column = torch.tensor(wanted, dtype=FLOAT).repeat_interleave(D)
                if gap := difference(
                    found, column[:, None] + torch.tensor([0.0, 100.0]) if name == "matrix" else column
                ):
                    return f"a {name} with rows of {H} + {K} + {K} heads to {n} by {how}: row [., .]: {gap}"


def _check_pooled_model(m):
    whole = _model(m.GroupedAttention, n_kv_heads=3, d_head=10)
    before = copy.deepcopy(whole.state_dict())
    whole.requires_grad_(True)
    small = m.pool_model(whole, 1)
    if any(difference(tensor, whole.state_dict()[name], tolerance=0) for name, tensor in before.items()):
        return "the model that was given has changed"
    kept = [name for name, tensor in before.items() if "qkv" not in name]
    if wrong := [name for name in kept if difference(small.state_dict()[name], before[name], tolerance=0)]:
        return f"{wrong[0]} of the converted model is another one"
    if gone := [name for name, parameter in small.named_parameters() if not parameter.requires_grad]:
        return f"{gone[0]} of the converted model cannot be trained any more"
    cache, tokens = small.new_cache(B, 9), _tokens()
    if (found := cache.keys.shape[2]) != 1:
        return f"converted to 1 key head, its new cache has {found}"
    with torch.no_grad():
        small.embedding.weight += 1
        logits = _read(small, tokens, cache, [4, 3])
        if gap := difference(logits, small(tokens)):
            return f"3 key heads to 1: with a cache [row, token, word] not as without: {gap}"
    if difference(whole.embedding.weight, before["embedding.weight"], tolerance=0):
        return "to train the converted model changes the one that was given: they share weights"
    frozen = m.pool_model(whole.requires_grad_(False), 1)
    if any(parameter.requires_grad for parameter in frozen.parameters()):
        return "a frozen model was converted, and the new one is to be trained"
    plain = _model(m.GroupedAttention, n_kv_heads=3, bias=False)
    if (bias := m.pool_model(plain, 1).blocks[0].attention.qkv.bias) is not None:
        return f"a model without biases was converted to one with a bias of {tuple(bias.shape)}"


def _check_bytes(m):
    cases = [
        ((1, 30, 3, 64), {"bytes_per_number": 4}, 46_080),  # SmolLM2-135M
        ((8192, 32, 8, 128), {}, 2**30),  # Llama 3 8B: 1 GiB at 8,192 tokens
        ((5, 3, 2, 7), {"batch": 11, "bytes_per_number": 1}, 2 * 5 * 3 * 2 * 7 * 11),
    ]
    for sizes, how, wanted in cases:
        if (found := m.cache_bytes(*sizes, **how)) != wanted:
            return f"tokens, layers, heads and width {sizes}, {how}: {found} bytes, expected {wanted}"
    for K in SHARED:
        cache = _model(m.GroupedAttention, n_kv_heads=K, d_head=10).new_cache(B, 9)
        held = cache.keys.nbytes + cache.values.nbytes
        if (found := m.cache_bytes(9, LAYERS, K, 10, batch=B, bytes_per_number=8)) != held:
            return f"{H} heads over {K}: the formula gives {found} bytes, the cache holds {held}"


def _check_absorbed_product(m):
    q, up, latent = _draw(B, H, T, D), _draw(H, D, 10, seed=1), _draw(B, S, 10, seed=2)
    wanted = torch.zeros(B, H, T, S, dtype=FLOAT)
    for b, h, s in ((b, h, s) for b in range(B) for h in range(H) for s in range(S)):
        wanted[b, h, :, s] = q[b, h] @ (up[h] @ latent[b, s])
    if gap := difference(m.absorbed_product(q, up, latent), wanted):
        return f"[row, head, query, token] not as with keys that are made: {gap}"
    q, up, latent = _draw(B, H, 1, D), _draw(H, D, 10, seed=1), _draw(B, 500, 10, seed=2)
    most, result, keys = peak_bytes(lambda: m.absorbed_product(q, up, latent)), B * H * 500 * 8, B * H * 500 * D * 8
    if most > result + 10_000:
        found = f"{B} texts, one query over 500 tokens: {most:,} bytes were made for a result of {result:,}"
        return f"{found}; all keys would take {keys:,}, the latents for each head {B * H * 500 * 10 * 8:,}"


def _turned(x, positions, base):
    """Rotation by complex numbers: x (B, T, d), positions (B, T)."""
    pairs = torch.complex(*x.chunk(2, dim=-1))
    d = x.shape[-1]
    angles = positions[..., None] * torch.tensor([base ** (-2 * i / d) for i in range(d // 2)], dtype=FLOAT)
    pairs = pairs * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([pairs.real, pairs.imag], dim=-1)


def _latent_loop(layer, x, positions, base):
    """Multi-head latent attention, head by head, as the paper writes it."""
    down = x @ layer.down.weight.T
    latent, key = down[..., : layer.d_latent], _turned(down[..., layer.d_latent :], positions, base)
    latent = latent / (latent.square().mean(-1, keepdim=True) + 1e-6).sqrt() * layer.norm.weight
    d, r = layer.d_content, layer.d_rotary
    read = []
    for h in range(layer.n_heads):
        q = x @ layer.query.weight[h * (d + r) : (h + 1) * (d + r)].T
        k, v = (latent @ layer.up.weight[(2 * h + i) * d : (2 * h + i + 1) * d].T for i in (0, 1))
        scores = q[..., :d] @ k.mT + _turned(q[..., d:], positions, base) @ key.mT
        hidden = ~torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        read.append((scores / math.sqrt(d + r)).masked_fill(hidden, -math.inf).softmax(-1) @ v)
    return torch.cat(read, dim=-1) @ layer.proj.weight.T


def _check_latent(m):
    for absorbed in (True, False):
        for content in (None, 5):
            how = {"d_latent": 10, "d_rotary": 8, "d_content": content, "rotary_base": 50.0, "absorbed": absorbed}
            layer, x = _filled(m.LatentAttention(24, H, **how)), _draw(B, T, 24)
            places = torch.tensor([[0, 0, 1, 2, 3, 4, 5], [3, 4, 5, 6, 7, 8, 9]])
            for positions, each in ((None, torch.arange(T).expand(B, -1)), (places, places)):
                if gap := difference(layer(x, positions), _latent_loop(layer, x, each, 50.0)):
                    name = "absorbed" if absorbed else "written out"
                    return f"{name}, content {layer.d_content} wide: [row, token, number] not as head by head: {gap}"


def _check_latent_cache(m):
    tokens = _tokens()
    for absorbed in (True, False):
        model = _model(m.LatentAttention, d_latent=10, d_rotary=8, absorbed=absorbed)
        for chunks in ([7], [3, 3, 1], [1, 5, 1]):
            cache = model.new_cache(B, 9)
            if gap := difference(_read(model, tokens, cache, chunks), model(tokens)):
                return f"absorbed {absorbed}, chunks of {chunks}: [row, token, word] not as without a cache: {gap}"
        if (found := cache.keys.nbytes + cache.values.nbytes) != (wanted := LAYERS * B * 9 * 18 * 8):
            return (
                f"a latent of 10 and a key of 8, {LAYERS} layers, {B} rows, 9 columns: {found} bytes, expected {wanted}"
            )
    layer, q, latent = model.blocks[0].attention, _draw(1, H, 1, 4), _draw(1, 500, 10)
    most = peak_bytes(lambda: layer.read_absorbed(q, latent, _draw(1, H, 1, 500), None))
    if most > 4 * H * 500 * 8 + 10_000:  # by content, by position, their sum, weights
        return f"absorbed, one query over 500 tokens: {most:,} bytes were made: more than scores and weights"


def _check_inputs(m):
    q, k = _draw(B, H, T, D), _draw(B, 4, T, D)
    model = _model(m.GroupedAttention, n_kv_heads=3, d_head=10)
    return refusal(
        [
            *(
                (f"6 query heads and 4 key heads to {way}", "4 key heads", partial(getattr(m, way), q, k, k))
                for way in WAYS
            ),
            ("two texts' queries and one text's keys", "1 texts", lambda: m.attend_grouped(q, k[:1, :3], k[:1, :3])),
            ("7 queries and 3 keys", "3 keys", lambda: m.attend_repeated(q, k[:, :3, :3], k[:, :3, :3])),
            ("values of another width", "values", lambda: m.attend_grouped(q, k[:, :3], k[:, :3, :, :5])),
            ("values of other heads", "values", lambda: m.attend_repeated(q, k[:, :3], k[:, :2])),
            ("d_model 20 for 6 heads", "20", lambda: m.GroupedAttention(20, 6)),
            ("d_model 20 for 6 latent heads", "20", lambda: m.LatentAttention(20, 6, d_latent=10, d_rotary=6)),
            ("4 key heads for 6 query heads", "n_kv_heads is 4", lambda: m.GroupedAttention(24, 6, n_kv_heads=4)),
            ("no key heads", "n_kv_heads is 0", lambda: m.GroupedAttention(24, 6, n_kv_heads=0)),
            ("heads of odd width", "even", lambda: m.GroupedAttention(24, 6, d_head=5)),
            ("6 heads to 4", "6 heads to 4", lambda: m.pool(q[0], 4)),
            ("6 heads to 0", "6 heads to 0", lambda: m.pool(q[0], 0)),
            ("a way that there is not", "'median'", lambda: m.pool(q[0], 2, "median")),
            ("a model with 3 key heads to 2", "3 heads to 2", lambda: m.pool_model(model, 2)),
            ("a rotary key of odd width", "d_rotary 5", lambda: m.LatentAttention(24, 6, d_latent=10, d_rotary=5)),
            ("a latent of odd width", "d_latent is 9", lambda: m.LatentAttention(24, 6, d_latent=9, d_rotary=6)),
        ]
    )


CHECKS = [
    Check(
        "query heads that stand together read the same key head",
        _check_readers,
        "How many query heads read one key head? Which are the first ones?",
        about=["kv_head_of"],
    ),
    Check(
        "the grouped product is the one head by head",
        _check_product,
        "In which order do the heads lie, before the reshape and after it?",
        about=["grouped_product"],
    ),
    Check(
        "the grouped product copies nothing that is shared",
        _check_product_copies_nothing,
        "Is the shared matrix repeated, or expanded, before the product?",
        about=["grouped_product"],
    ),
    Check(
        "weights are the softmax over what may be seen",
        _check_weights,
        "By the root of which width are queries divided? Where is the diagonal if there are more keys than queries?",
    ),
    Check(
        "the grouped way gives what the formula gives head by head",
        partial(_check_ways, way="attend_grouped"),
        "Which key head is read? What is summed over?",
        about=["grouped_product"],
    ),
    Check(
        "so does the way that repeats",
        partial(_check_ways, way="attend_repeated"),
        "Do copies of one head stand together?",
    ),
    Check(
        "so does the way that expands",
        partial(_check_ways, way="attend_expanded"),
        "Which axis is the group's, before the product and after it?",
    ),
    Check(
        "grouped attention copies no keys and no values",
        _check_copies,
        "What is as large as the cache?",
        about=["grouped_product"],
    ),
    Check(
        "the fused matrix has query heads, then key heads, then value heads",
        _check_split,
        "How many rows belong to each?",
    ),
    Check(
        "the layer computes what the house's own does, at any positions",
        _check_house,
        "What is turned by positions, and by which ones?",
    ),
    Check(
        "heads that share are as heads with a copy each, for heads of any width",
        _check_copies_are_mha,
        "Which copy belongs to which query head? How are heads put together at the end?",
    ),
    Check(
        "with a cache it computes the same as without",
        _check_cache,
        "What is stored: turned keys? And which mask belongs to a chunk?",
    ),
    Check(
        "the cache holds the heads that are shared, and no copies",
        _check_cache_size,
        "How many heads does the layer say it has? How many does it store?",
    ),
    Check(
        "pooled heads are the means of neighbours, or the first of each group",
        _check_pool,
        "Which heads make a group? Is a sum a mean?",
        about=["pool"],
    ),
    Check(
        "random heads spread as the given ones, and come from the generator",
        _check_random,
        "By what are drawn numbers multiplied?",
        about=["pool"],
    ),
    Check(
        "pooling the fused matrix keeps the query heads, and pools keys and values each by themselves",
        _check_pool_rows,
        "Where do keys end and values begin?",
        about=["pool"],
    ),
    Check(
        "if the heads of each group are equal, the conversion loses nothing",
        _check_lossless,
        "Is anything but the key and value heads changed? Are biases pooled as well?",
        about=["pool"],
    ),
    Check(
        "a converted model is a new one, with a smaller cache, and can be trained",
        _check_pooled_model,
        "Which part still knows the old number of heads?",
    ),
    Check(
        "the bytes of a cache are those of the formula, and those that it holds",
        _check_bytes,
        "What is stored for a token: keys, and what else? In how many layers?",
        about=["cache_bytes"],
    ),
    Check(
        "the absorbed product is the one with keys that are made, and makes none",
        _check_absorbed_product,
        "What does (A B) C cost, and what A (B C)? Is the latent shared by all heads?",
        about=["absorbed_product"],
    ),
    Check(
        "latent attention gives what the paper's formula gives head by head, absorbed or not",
        _check_latent,
        "Which numbers are turned? By which width are scores divided?",
    ),
    Check(
        "latent attention caches the latent and the rotary key, and nothing else",
        _check_latent_cache,
        "Is the latent stored before its norm or after? At which position is its key turned? What is stored by head?",
    ),
    Check("what cannot work is refused in words", _check_inputs, about=["pool"]),
]


def _check_split_interleaved(m):
    for K, readers in SHARED.items():
        x = torch.zeros(B, T, (H + 2 * K) * D, dtype=FLOAT)
        wanted = {"q": _draw(B, H, T, D), "k": _draw(B, K, T, D, seed=1), "v": _draw(B, K, T, D, seed=2)}
        at = 0
        for group in range(K):
            heads = [wanted["q"][:, head] for head in range(H) if readers[head] == group]
            for part in (*heads, wanted["k"][:, group], wanted["v"][:, group]):
                x[:, :, at : at + D] = part
                at += D
        found = dict(zip("qkv", m.split_interleaved(x, H, K), strict=True))
        for name, part in wanted.items():
            if gap := difference(found[name], part, tolerance=0):
                return f"{H} query heads, {K} groups: {name} [row, head, token, number]: {gap}"


def _check_heads_on(m):
    cases = {  # GPUs, query heads, key heads: what each GPU holds
        (2, 8, 4): [[0, 1], [2, 3]],
        (4, 8, 4): [[0], [1], [2], [3]],
        (8, 8, 4): [[0], [0], [1], [1], [2], [2], [3], [3]],
        (4, 8, 1): [[0], [0], [0], [0]],
        (2, 6, 3): [[0, 1], [1, 2]],
        (1, 6, 2): [[0, 1]],
    }
    for (n_gpus, n_heads, n_kv_heads), wanted in cases.items():
        found = [list(m.heads_on(gpu, n_gpus, n_heads, n_kv_heads)) for gpu in range(n_gpus)]
        if found != wanted:
            return f"{n_heads} query heads over {n_kv_heads} on {n_gpus} GPUs: {found}, expected {wanted}"


def _check_absorbed_output(m):
    up, proj = _draw(H, D, 10), _draw(WIDTH, H * D, seed=1)
    read = _draw(B, H, T, 10, seed=2)  # what each head has read of the latents
    heads = torch.stack([read[:, h] @ up[h].T for h in range(H)], dim=1)
    wanted = heads.transpose(1, 2).flatten(2) @ proj.T
    found = m.absorbed_output(up, proj)
    if found.shape != (WIDTH, H * 10):
        return f"{H} heads, a latent of 10, a stream of {WIDTH}: shape {tuple(found.shape)}, not {(WIDTH, H * 10)}"
    if gap := difference(read.transpose(1, 2).flatten(2) @ found.T, wanted):
        return f"what is written to the stream [row, token, number]: {gap}"


EXERCISES = [
    Check(
        "split_interleaved gives each group its own query heads, key and value",
        _check_split_interleaved,
        "How many heads stand between the keys of two groups?",
    ),
    Check(
        "heads_on lists the key heads that a GPU's query heads read",
        _check_heads_on,
        "Which query heads does the GPU have? Which key heads do the first and the last of them read?",
    ),
    Check(
        "absorbed_output writes the same without making the heads' outputs",
        _check_absorbed_output,
        "Which two matrices stand one after the other, for each head?",
    ),
]
