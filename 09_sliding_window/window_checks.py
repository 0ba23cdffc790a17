"""What a right `window.py` must do. Each check takes the module, so that a reader's functions and a patient can be
asked the same. Texts are longer than twice the window and no multiple of it, layers have different windows, and a text
is read in passes of different length on purpose: a short text, one window or one pass hides half of the bugs.
"""

import functools
import math
from functools import partial

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from shared.clinic import Check, difference, refusal
from shared.hooks import hooked, look
from shared.memory import peak_bytes
from shared.rotary import RotaryAttention, no_positions, rotate
from shared.tiny_lm import TinyLM

HEADS, WIDTH, VOCABULARY, T = 2, 4, 11, 23
FLOAT = torch.float64
WINDOWS = [4, 2, 5]  # of three layers
CHUNKINGS = ([1] * T, [T], [3] * 7 + [2], [9, 1, 1, 1, 11], [1, 1, 7, 14])
SETTINGS = [(None, 0), (1, 0), (3, 0), (4, 2), (9, 1), (12, 5), (40, 3)]  # window and sinks


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=FLOAT)


def _sees(query, key, window, sinks):
    """The rule for one pair."""
    return 0 <= key <= query and (window is None or query - key < window or key < sinks)


def _mask(n, window, sinks):
    return torch.tensor([[_sees(i, j, window, sinks) for j in range(n)] for i in range(n)])


@functools.cache
def _weights():
    """Of a decoder with random weights, large enough that positions and masks matter."""
    model = _house()
    return {name: 0.3 * _random(*value.shape, seed=i) for i, (name, value) in enumerate(model.state_dict().items())}


def _house(attention=RotaryAttention, **how):
    attention = partial(attention, n_kv_heads=HEADS, **how)
    return TinyLM(VOCABULARY, 64, 6 * WIDTH, len(WINDOWS), 6, attention=attention, positions=no_positions).to(FLOAT)


def _model(attention=RotaryAttention, **how):
    model = _house(attention, **how).eval()
    model.load_state_dict(_weights())
    return model.requires_grad_(False)


def _tokens(rows=2, n=T):
    return torch.randint(VOCABULARY, (rows, n), generator=torch.Generator().manual_seed(0))


def _expected(tokens, windows, sinks=0):
    """Logits of the house's model under masks that are made pair by pair."""
    masks = [_mask(tokens.shape[1], window, sinks) for window in windows]
    model = _model()
    with hooked(model, {"mask": lambda seen, layer: masks[layer].expand(seen.shape)}):
        return model(tokens)


def _read(model, tokens, cache, chunks):
    """Logits of all tokens, read in passes of these lengths."""
    return torch.cat([model(part, cache) for part in tokens.split(chunks, dim=1)], dim=1)


def _check_may_see(m):
    queries, keys = torch.tensor([5, 0, 9]), torch.tensor([4, -1, 0, 7, 1, 9, 5, 2, -1])
    for window, sinks in SETTINGS:
        wanted = [[_sees(i, j, window, sinks) for j in keys.tolist()] for i in queries.tolist()]
        found = m.may_see(queries, keys, window, sinks)
        if found.dtype != torch.bool or found.tolist() != wanted:
            rows = [[int(cell) for cell in row] for row in wanted]
            where = f"queries {queries.tolist()}, keys {keys.tolist()}, window {window}, sinks {sinks}"
            return f"{where}: {found.dtype} {found.int().tolist()}, expected bool {rows}"


def _check_band(m):
    for n in (1, 2, 7, 13):
        for window, sinks in SETTINGS:
            found = m.band_mask(n, window, sinks) if sinks else m.band_mask(n, window)
            wanted = _mask(n, window, sinks)
            if found.shape != wanted.shape or found.dtype != torch.bool:
                return f"{n} tokens: {found.dtype} {tuple(found.shape)}, expected bool {tuple(wanted.shape)}"
            if (wrong := (found != wanted).nonzero()).numel():
                query, key = wrong[0].tolist()
                sees = "sees" if found[query, key] else "does not see"
                return f"window {window}, sinks {sinks}: query {query} {sees} key {key} of {n}"


def _check_columns(m):
    for window, sinks in SETTINGS:
        for start, stop in ((0, 1), (0, 5), (3, 5), (7, 8), (8, 23), (13, 17)):
            wanted = [j for j in range(stop) if any(_sees(i, j, window, sinks) for i in range(start, stop))]
            if (found := m.columns(start, stop, window, sinks).tolist()) != wanted:
                where = f"queries {start} to {stop - 1}, window {window}, sinks {sinks}"
                return f"{where}: columns {found}, expected {wanted}"


def _check_banded(m, function):
    q, k, v = (_random(2, 3, T, WIDTH, seed=i) for i in range(3))
    for window, sinks in SETTINGS:
        wanted = F.scaled_dot_product_attention(q, k, v, attn_mask=_mask(T, window, sinks))
        for block in (1, 4, 7, 128) if function == "banded_attention" else (None,):
            how = {} if block is None else {"block": block}
            found = getattr(m, function)(q, k, v, window, *([sinks] if sinks else []), **how)
            if gap := difference(found, wanted):
                return f"window {window}, sinks {sinks}, {how}: [row, head, token, number] {gap}"


def _check_full(m):
    q, k, v = (_random(2, 3, T, WIDTH, seed=i) for i in range(3))
    wanted = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    for window in (T, T + 1, None):
        if gap := difference(m.banded_attention(q, k, v, window, block=5), wanted):
            return f"window {window} for {T} tokens is not full attention: [row, head, token, number] {gap}"


@torch.enable_grad()
def _check_gradients(m, **how):
    given, weight = [_random(2, T, WIDTH, seed=i).requires_grad_() for i in range(3)], _random(2, T, WIDTH, seed=3)
    for window, sinks in SETTINGS:
        masked = F.scaled_dot_product_attention(*given, attn_mask=_mask(T, window, sinks))
        wanted = torch.autograd.grad((masked * weight).sum(), given)
        out = m.banded_attention(*given, window, sinks, block=5, **how)
        found = torch.autograd.grad((out * weight).sum(), given)
        for name, ours, theirs in zip("qkv", found, wanted, strict=True):
            if gap := difference(ours, theirs):
                return f"window {window}, sinks {sinks}: gradient of {name} {gap}"


@torch.enable_grad()
def _peak(m, n, backward=False, **how):
    q, k, v = (torch.randn(1, n, 8).requires_grad_(backward) for _ in range(3))

    def run():
        out = m.banded_attention(q, k, v, **how)
        if backward:
            out.sum().backward()

    return peak_bytes(run)


def _check_memory(m):
    n, block = 1024, 32
    whole = 4 * n * 8  # bytes of q, of k, of v, of the result
    cases = {  # a block's scores several times over (product, scaled, masked, weights), and tensors as large as q
        "window 16": (dict(window=16), 8 * 4 * block * (block + 16) + 4 * whole),
        "window 16, 3 sinks": (dict(window=16, sinks=3), 8 * 4 * block * (block + 19) + 4 * whole),
        "every key": (dict(window=None), 8 * 4 * block * n + 6 * whole),
    }
    for name, (how, most) in cases.items():
        if (found := _peak(m, n, block=block, **how)) > most:
            return f"{n} tokens, blocks of {block}, {name}: {found:,} bytes at once, expected at most {most:,}"


def _check_recompute(m):
    if wrong := _check_gradients(m, recompute=True):
        return wrong
    n, block = 1024, 32
    most = 8 * 4 * block * n + 9 * 4 * n * 8  # as above, and a gradient for each tensor
    if (found := _peak(m, n, backward=True, block=block, recompute=True)) > most:
        return f"{n} tokens, blocks of {block}, every key: {found:,} bytes at once, expected at most {most:,}"


def _check_pairs(m):
    for n in (1, 2, 7, 13, 23):
        for window, sinks in SETTINGS:
            if (found := m.pairs(n, window, sinks)) != (wanted := int(_mask(n, window, sinks).sum())):
                return f"{n} tokens, window {window}, sinks {sinks}: {found} pairs, expected {wanted}"


def _check_reach(m):
    for windows in ([4, 2, 5], [1, 1, 1], [7, 1, 3]):
        model, tokens = _windowed(m, windows), _tokens(1)
        logits, changed = model(tokens)[0, -1], []
        for position in range(T):
            other = tokens.clone()
            other[0, position] = (other[0, position] + 1) % VOCABULARY
            changed.append(not torch.equal(model(other)[0, -1], logits))
        known = T - changed.index(True)
        if m.reach(windows) != known or not all(changed[-known:]):
            return f"windows {windows}: reach is {m.reach(windows)}, the last position knows of {known} tokens"
    if m.reach([4, None, 5]) != math.inf:
        return f"windows [4, None, 5]: reach is {m.reach([4, None, 5])}, expected inf"


def _check_layer_windows(m):
    cases = {(5, 16, 3): [16, 16, None, 16, 16], (6, 4, 2): [4, None] * 3, (3, 7, None): [7] * 3, (3, 7, 1): [None] * 3}
    for given, wanted in cases.items():
        if (found := m.layer_windows(*given)) != wanted:
            return f"layer_windows{given} is {found}, expected {wanted}"


def _windowed(m, windows, sinks=0):
    """A model whose layers have these windows."""
    model = _model(m.WindowAttention, scope=None, sinks=sinks)
    for block, window in zip(model.blocks, windows, strict=True):
        block.attention.scope = window
    return model


def _check_layer(m):
    tokens = _tokens()
    for windows, sinks in ((WINDOWS, 0), (WINDOWS, 2), ([3, None, 1], 1), ([None] * 3, 0)):
        model = _windowed(m, windows, sinks)
        if gap := difference(model(tokens), _expected(tokens, windows, sinks)):
            return f"WindowAttention, windows {windows}, {sinks} sinks: logits [row, token, word] {gap}"
        plain = _model()
        with hooked(plain, m.restrict(windows, sinks)):
            found = plain(tokens)
        if gap := difference(found, _expected(tokens, windows, sinks)):
            return f"restrict({windows}, {sinks}): logits [row, token, word] {gap}"
        padded = plain.new_cache(2, padding=torch.tensor([0, 4]))
        with hooked(plain, m.restrict(windows, sinks)):
            found = _read(plain, tokens, padded, [9, 1, 1, 12])
        gap = difference(found[:1], _expected(tokens, windows, sinks)[:1])
        if not sinks:  # which count columns, so that a padded row has none
            gap = gap or difference(found[1:, 4:], _expected(tokens[:, 4:], windows)[1:])
        if gap:
            return f"restrict({windows}, {sinks}), the house's cache: logits [row, token, word] {gap}"
        cache = m.new_ring(_model(), windows, 2, sinks=sinks, capacity=T)
        if gap := difference(_read(model, tokens, cache, [9, 1, 1, 12]), _expected(tokens, windows, sinks)):
            return f"WindowAttention reads from a ring, windows {windows}, {sinks} sinks: [row, token, word] {gap}"
    plain, model = _model(), _windowed(m, [None] * 3, sinks=2)
    if gap := difference(_read(model, tokens, model.new_cache(2), [9, 1, 1, 12]), plain(tokens)):
        return f"WindowAttention without a window, with the house's cache: logits [row, token, word] {gap}"


def _check_slots(m):
    for window, sinks in ((1, 0), (3, 0), (3, 1), (5, 2), (2, 4)):
        columns = [-1] * (sinks + window)
        for length in range(20):
            if (found := m.ring_positions(length, window, sinks).tolist()) != columns:
                return f"after {length} tokens, window {window}, sinks {sinks}: {found}, expected {columns}"
            slot = length if length < sinks else sinks + (length - sinks) % window
            if (found := m.ring_slots(torch.tensor([length]), window, sinks).tolist()) != [slot]:
                return f"position {length}, window {window}, sinks {sinks}: slot {found[0]}, expected {slot}"
            columns[slot] = length


def _check_ring(m):
    tokens = _tokens()
    for windows, sinks in ((WINDOWS, 0), (WINDOWS, 2), ([3, None, 1], 1), ([40, 1, 6], 3), ([None] * 3, 0)):
        wanted = _expected(tokens, windows, sinks)
        for chunks in CHUNKINGS:
            model = _model()
            cache = m.new_ring(model, windows, len(tokens), sinks=sinks, capacity=T + 2)
            if gap := difference(_read(model, tokens, cache, chunks), wanted):
                return f"windows {windows}, sinks {sinks}, passes of {chunks}: logits [row, token, word] {gap}"


def _check_stored(m):
    model, tokens, sinks = _model(), _tokens(), 2
    seen = {"k": [], "v": []}
    hooks = {name: (lambda x, layer, kept=kept: kept.append(x)) for name, kept in seen.items()}
    masks = [_mask(T, window, sinks) for window in WINDOWS]
    with hooked(model, hooks | {"mask": lambda mask, layer: masks[layer]}):
        model(tokens)
    for chunks in CHUNKINGS:
        cache = m.new_ring(model, WINDOWS, 2, sinks=sinks)
        _read(model, tokens, cache, chunks)
        for layer, window in enumerate(WINDOWS):
            columns = [0, 1, *(max(t for t in range(sinks, T) if (t - sinks) % window == c) for c in range(window))]
            for name, stored in (("k", cache.keys), ("v", cache.values)):
                if gap := difference(stored[layer], seen[name][layer][:, :, columns]):
                    return f"layer {layer}'s {name} [row, head, column, number] after passes of {chunks}: {gap}"


class _Writes(TorchFunctionMode):
    """Notes the places that are assigned to: each a tensor of whole numbers."""

    def __init__(self):
        super().__init__()
        self.places = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.__setitem__:
            at = args[1] if isinstance(args[1], tuple) else (args[1],)
            self.places += [it for it in at if isinstance(it, torch.Tensor) and it.dtype == torch.long]
        return function(*args, **(kwargs or {}))


def _check_written_once(m):
    for window, sinks, passes in ((3, 0, [8]), (3, 2, [1, 8]), (4, 1, [2, 6, 9])):
        cache = m.RingCache([window], 1, HEADS, WIDTH, sinks=sinks, dtype=FLOAT)
        for n in passes:
            new = torch.randn(1, HEADS, n, WIDTH, dtype=FLOAT)
            with _Writes() as writes:
                cache.layers(n)[0].extend(new, new)
            cache.advance(n)
            for places in writes.places:
                if len(places.unique()) < len(places):
                    where = f"window {window}, sinks {sinks}, a pass of {n}"
                    return f"{where}: columns {places.tolist()} are written at once; which number stays is not defined"


def _check_constant(m):
    windows, sinks, steps = [4, None, 3], 2, 60
    cache = m.RingCache(windows, 2, HEADS, WIDTH, sinks=sinks, capacity=steps, dtype=torch.float32)
    columns = [sinks + 4, steps, sinks + 3]
    wanted = sum(2 * 4 * 2 * HEADS * each * WIDTH for each in columns)  # keys and values, 4 bytes, 2 rows
    places = [stored.data_ptr() for stored in (*cache.keys, *cache.values)]
    for step in range(1, steps + 1):
        new = torch.randn(2, HEADS, 1, WIDTH)
        for part, most in zip(cache.layers(1), columns, strict=True):
            for read, stored in zip(part.extend(new, -new), (cache.keys, cache.values), strict=True):
                if (held := min(step, most)) != read.shape[2]:
                    return f"layer {part.layer}, token {step}: {read.shape[2]} columns are read, expected {held}"
                if read.untyped_storage().data_ptr() != stored[part.layer].untyped_storage().data_ptr():
                    return f"layer {part.layer}, token {step}: the columns that are read are a copy, expected a view"
        cache.advance(1)
    stored = (*cache.keys, *cache.values)
    if cache.nbytes != wanted or sum(each.untyped_storage().nbytes() for each in stored) != wanted:
        return f"windows {windows}, {sinks} sinks, {steps} tokens: nbytes is {cache.nbytes:,}, expected {wanted:,}"
    if places != [each.data_ptr() for each in stored]:
        return f"after {steps} tokens keys or values lie elsewhere in memory"


def _check_unfilled(m):
    model, tokens = _model(), _tokens()
    for chunks in CHUNKINGS:
        cache = m.new_ring(model, WINDOWS, 2, sinks=2)
        for stored in (*cache.keys, *cache.values):
            stored.fill_(math.nan)
        found = _read(model, tokens, cache, chunks)
        if gap := difference(found, _expected(tokens, WINDOWS, 2)):
            return f"passes of {chunks}, NaN in the ring before: logits [row, token, word] {gap}"


def _check_positions(m):
    cache = m.new_ring(_model(), WINDOWS, 1, sinks=1)
    for start, n in ((0, 3), (3, 1), (4, 9), (13, 1)):
        if (found := cache.positions(n).tolist()) != (wanted := list(range(start, start + n))):
            return f"after {start} tokens the next {n} stand at {found}, expected {wanted}"
        cache.layers(n)
        cache.advance(n)


def _check_turned(m):
    """What a query scores is what it would with the positions 0, 1, 2 ... of the columns, unturned keys kept."""
    window, sinks, base = 5, 2, 10_000.0
    raw, query = _random(1, HEADS, T, WIDTH), _random(1, HEADS, T, WIDTH, seed=1)
    for chunks in ([1] * T, [1] * 9 + [4, 3, 1, 1, 1], [7, 3, 13]):
        turn = _model().blocks[0].attention.place
        cache = m.RingCache([window], 1, HEADS, WIDTH, sinks=sinks, turn=turn, dtype=FLOAT)
        for n in chunks:
            at = cache.positions(n)
            part, k = cache.layers(n)[0], raw[:, :, at]
            keys, _ = part.extend(rotate(k, base, at), k)
            # oldest: of the tokens that this pass can see, the first behind the sinks
            oldest = max(sinks, int(at[0]) - window + (1 if n == 1 else 0)) if cache.length + n > window + sinks else 0
            cache.advance(n)
            held = [*range(min(sinks, oldest)), *range(oldest, int(at[-1]) + 1)]
            places = torch.arange(len(held))
            scores = rotate(query[:, :, at], base, places[-n:]) @ rotate(raw[:, :, held], base, places).mT
            found = rotate(query[:, :, at], base, at) @ keys.mT
            if gap := difference(found.sort(dim=-1)[0], scores.sort(dim=-1)[0]):  # a ring has its own order
                return f"passes of {chunks}, tokens {at.tolist()}: a query's scores, sorted, {gap}"


def _check_keep(m):
    model, tokens = _model(), _tokens(3)
    for turned in (False, True):
        both = m.new_ring(model, WINDOWS, 3, sinks=1, turned=turned)
        alone = m.new_ring(model, WINDOWS, 2, sinks=1, turned=turned)
        for part in tokens.split([9, 1, 13], dim=1)[:2]:  # after the second pass sinks are turned
            model(part, both), model(part[[2, 0]], alone)
        both.keep([2, 0])
        if both.batch != 2:
            return f"2 of 3 rows are kept: batch is {both.batch}"
        for position in range(10, T):
            new = tokens[[2, 0], position : position + 1]
            if gap := difference(model(new, both), model(new, alone)):
                return f"turned={turned}, rows 2 and 0 are kept, token {position}: logits [row, token, word] {gap}"


def _check_inputs(m):
    q = _random(1, 4, WIDTH)
    ring = partial(m.RingCache, [2], 1, HEADS, WIDTH)
    full = m.RingCache([2, None], 1, HEADS, WIDTH, capacity=3)
    full.advance(3)
    both = _model(m.WindowAttention, scope=4, window=3)
    narrow, house = _windowed(m, WINDOWS), _model(window=4)
    part, new = ring().layers(1)[0], torch.zeros(1, HEADS, 1, WIDTH)
    return refusal(
        [
            ("a window of 0", "window", lambda: m.band_mask(4, 0)),
            ("a window of 2.0", "window", lambda: m.banded_attention(q, q, q, 2.0)),
            ("-1 sinks", "sinks", lambda: m.band_mask(4, 2, -1)),
            ("no tokens", "T is", lambda: m.band_mask(0, 2)),
            ("pairs of no tokens", "T is", lambda: m.pairs(0, None)),
            ("blocks of 0", "block", lambda: m.banded_attention(q, q, q, None, block=0)),
            ("3 keys for 4 queries", "expected the same", lambda: m.banded_attention(q, q[:, 1:], q[:, 1:], 2)),
            ("3 values for 4 keys", "expected the same", lambda: m.banded_attention(q, q, q[:, 1:], 2)),
            ("no layers", "n_layers", lambda: m.layer_windows(0, 4)),
            ("every 0th layer global", "every", lambda: m.layer_windows(4, 4, 0)),
            ("scope 0", "window", lambda: m.WindowAttention(8, 2, scope=0)),
            (
                "a scope and a window",
                "window to None",
                lambda: both(_tokens(1)),
            ),
            ("hooks inside attention", "restrict", lambda: look(narrow, _tokens(1), ["weights"])),
            ("reach of a window of -3", "window", lambda: m.reach([4, -3])),
            ("attention of no tokens", "T is", lambda: m.banded_attention(q[:, :0], q[:, :0], q[:, :0])),
            ("the house's cache", "new_ring", lambda: narrow(_tokens(1), narrow.new_cache(1))),
            ("a ring of other windows", "new_ring", lambda: narrow(_tokens(1), m.new_ring(narrow, [4, 3, 5]))),
            ("a model of the house with windows", "window", lambda: m.new_ring(house, WINDOWS)),
            ("a ring of 0 rows", "batch", lambda: m.RingCache([2], 0, HEADS, WIDTH)),
            ("a ring of no layers", "layers", lambda: m.RingCache([], 1, HEADS, WIDTH)),
            ("a global layer without room", "capacity", lambda: m.RingCache([2, None], 1, HEADS, WIDTH)),
            ("a window of -3 in a ring", "window", lambda: m.RingCache([-3], 1, HEADS, WIDTH)),
            ("a token more than a global layer keeps", "keeps", lambda: full.layers(1)),
            ("windows of 2 layers for 3", "windows", lambda: m.new_ring(_model(), [4, 4])),
            ("keys of 3 heads", "heads", lambda: part.extend(*[torch.zeros(1, 3, 1, WIDTH)] * 2)),
            ("2 rows of keys", "rows", lambda: part.extend(*[torch.zeros(2, HEADS, 1, WIDTH)] * 2)),
            ("2 values for 1 key", "values", lambda: part.extend(new, torch.zeros(1, HEADS, 2, WIDTH))),
            ("keys with a gradient", "gradient", lambda: part.extend(new.clone().requires_grad_(), new)),
            ("no rows kept", "rows", lambda: ring().keep([])),
            ("row 1 of 1 kept", "rows", lambda: ring().keep([1])),
        ]
    )


CHECKS = [
    Check(
        "a query sees itself, the tokens before it in the window, and the sinks",
        _check_may_see,
        "How far is a token from itself? How far is the last one that may be seen?",
        about=["may_see"],
    ),
    Check(
        "the band has min(t + 1, window) ones in row t, and the sinks",
        _check_band,
        "Which is the row, the query or the key?",
        about=["may_see", "band_mask"],
    ),
    Check(
        "a block's columns are the keys that any of its queries sees, each once",
        _check_columns,
        "Which of the block's queries looks farthest back? Are the sinks among those keys already?",
        about=["columns"],
    ),
    Check(
        "attention by all scores and a mask is PyTorch's own with the same mask",
        partial(_check_banded, function="masked_attention"),
        "By which width are scores scaled, and where does the mask go?",
        about=["may_see"],
    ),
    Check(
        "attention by blocks is PyTorch's own with the same mask, whatever the block",
        partial(_check_banded, function="banded_attention"),
        "Which positions have the block's queries, and which its keys?",
        about=["may_see", "columns", "banded_attention"],
    ),
    Check(
        "a window as long as the text is full attention",
        _check_full,
        "What does the first query of a block see?",
        about=["columns", "banded_attention"],
    ),
    Check(
        "gradients are those of masked attention",
        _check_gradients,
        "Is every tensor between a query and its answer PyTorch's own?",
        about=["banded_attention"],
    ),
    Check(
        "no tensor is as large as all scores",
        _check_memory,
        "What is alive at once: a block, or all of them?",
        about=["banded_attention"],
    ),
    Check(
        "where scores are computed again, gradients are the same, and no block is kept for the backward pass",
        _check_recompute,
        "What does the part that is computed again get: the whole text, or slices that are kept?",
    ),
    Check("pairs counts the ones of the mask", _check_pairs, "How many queries see less than a window?"),
    Check(
        "a changed token changes what is within reach, bit for bit, and nothing else",
        _check_reach,
        "By how much does a layer move the edge?",
        about=["reach", "may_see", "columns"],
    ),
    Check(
        "every so many layers one is global, counted from 1",
        _check_layer_windows,
        "What number has the first layer?",
    ),
    Check(
        "a model with windows is the same model under masks",
        _check_layer,
        "Does every path know the window: whole texts, grouped heads, a cache?",
    ),
    Check(
        "a ring knows which token lies in which column",
        _check_slots,
        "Who is overwritten by the next token? What lies in the ring before it is full?",
        about=["ring_slots", "ring_positions"],
    ),
    Check(
        "read through a ring, a text has the logits of the band, in passes of any length",
        _check_ring,
        "What does the first query of a pass still see that the pass overwrites?",
        about=["ring_slots", "ring_positions", "may_see", "RingCache.write"],
    ),
    Check(
        "what lies in the ring are the last tokens' own keys and values, turned by their positions in the text",
        _check_stored,
        "Of the tokens of one pass that share a column, which is left?",
        about=["ring_slots", "RingCache.write"],
    ),
    Check(
        "no column is written twice in one pass",
        _check_written_once,
        "Which of the tokens that share a column has to be written at all?",
        about=["RingCache.write"],
    ),
    Check(
        "the ring's memory does not grow, and reading one token copies nothing",
        _check_constant,
        "How many columns does a layer have after 60 tokens?",
        about=["ring_slots", "RingCache.write"],
    ),
    Check(
        "what the ring's memory held before is never seen",
        _check_unfilled,
        "How many columns hold a token?",
        about=["ring_positions"],
    ),
    Check("positions are counted in the text, on and on", _check_positions, "How many tokens came before?"),
    Check(
        "with turned sinks a query scores as if the columns stood one after the other",
        _check_turned,
        "How many tokens are missing between the sinks and the oldest one that is kept?",
        about=["RingCache.write"],
    ),
    Check("rows that are kept go on as they do alone", _check_keep, "What belongs to a row?"),
    Check("what cannot work is refused in words", _check_inputs),
]


def _check_chunk_mask(m):
    for n in (1, 5, 13):
        for chunk in (1, 3, 5, 20):
            wanted = [[j <= i and i // chunk == j // chunk for j in range(n)] for i in range(n)]
            found = m.local_chunks(n, chunk)
            if found.dtype != torch.bool or found.tolist() != wanted:
                return f"{n} tokens, chunks of {chunk}: {found.dtype} {found.int().tolist()}"


def _check_sink_logit(m):
    q, k, v = (_random(2, T, WIDTH, seed=i) for i in range(3))
    for size, logit in ((1, -3.0), (1, 0.0), (1, 2.0), (40, 0.0), (1, 1e3), (1, -1e3)):
        # the oracle: one key more, which everyone sees, with this score and a value of zeros
        scores = (size**2 * q @ k.mT / math.sqrt(WIDTH)).masked_fill(~_mask(T, 5, 0), -math.inf)
        scores = torch.cat([torch.full((2, T, 1), logit, dtype=FLOAT), scores], dim=-1)
        wanted = scores.softmax(dim=-1)[..., 1:] @ v
        if gap := difference(m.sink_logit_attention(size * q, size * k, v, 5, logit), wanted):
            return f"window 5, q and k times {size}, a sink of logit {logit:g}: [row, token, number] {gap}"


def _check_cache_share(m):
    cases = [
        ((32_768, 26, 1024, 6), (4 * 32_768 + 22 * 1024) / (26 * 32_768)),
        ((512, 26, 1024, 6), 1.0),
        ((4096, 12, 512, None), 512 / 4096),
        ((100, 5, 16, 3), (4 * 16 + 100) / 500),
    ]
    for given, wanted in cases:
        if not abs((found := m.cache_share(*given)) - wanted) < 1e-9:
            return f"n, layers, window, every = {given}: {found}, expected {wanted:.4f}"


EXERCISES = [
    Check(
        "local_chunks sees its own chunk, up to itself",
        _check_chunk_mask,
        "How many tokens does the first of a chunk see?",
    ),
    Check(
        "a sink of a constant logit takes its share and gives nothing",
        _check_sink_logit,
        "What is added to the denominator, and what to the numerator?",
    ),
    Check(
        "cache_share counts each layer's columns",
        _check_cache_share,
        "How many columns has a local layer when the text is shorter than its window?",
    ),
]
