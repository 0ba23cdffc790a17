"""What a right `kv_cache.py` must do. Each check takes the module, so that a reader's functions and a patient can be
asked the same. Models have three layers, two key/value heads for six queries' and rows of different length on purpose:
one layer, equal heads, one row or one chunk hide half of the bugs.
"""

import copy
import functools
from functools import partial

import torch

from shared.clinic import Check, difference, refusal
from shared.hooks import hooked
from shared.rotary import RotaryAttention, no_positions
from shared.tiny_lm import TinyLM

LAYERS, HEADS, WIDTH, VOCABULARY = 3, 2, 4, 11
FLOAT = torch.float64
CHUNKINGS = ([1] * 7, [3, 3, 1], [7], [2, 4, 1])


@functools.cache
def _whole_model():
    """A decoder of random weights, large enough that positions and masks matter."""
    attention = partial(RotaryAttention, n_kv_heads=HEADS)
    model = TinyLM(VOCABULARY, 64, 6 * WIDTH, LAYERS, 6, attention=attention, positions=no_positions).to(FLOAT).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=FLOAT) * 0.3
        parameter.requires_grad_(False)
    return model


def _model(m):
    """The same, run by the module's `cached_step`."""
    return m.by_cached_step(copy.deepcopy(_whole_model()))


def _tokens(batch=2, T=7, seed=0):
    return torch.randint(VOCABULARY, (batch, T), generator=torch.Generator().manual_seed(seed))


def _preallocated(m, batch=2, capacity=9, **how):
    return m.PreallocatedCache(LAYERS, batch, HEADS, capacity, WIDTH, dtype=FLOAT, **how)


def _concat(m, batch=2, **how):
    return m.ConcatCache(LAYERS, batch, HEADS, WIDTH, dtype=FLOAT, **how)


def _pool(m, n_pages=12, page=3):
    return m.PagePool(LAYERS, n_pages, page, HEADS, WIDTH, dtype=FLOAT)


def _paged(m, batch=2, **how):
    pool = _pool(m, **how)
    return m.PagedCache([m.Request(pool) for _ in range(batch)])


KINDS = {"concatenating": _concat, "preallocated": _preallocated, "paged": _paged}


def _read(model, tokens, cache, chunks):
    """Logits of all tokens, read in chunks of these lengths."""
    return torch.cat([model(part, cache) for part in tokens.split(chunks, dim=1)], dim=1)


def _check_mask(m):
    cases = {
        (0, 3): [[1, 0, 0], [1, 1, 0], [1, 1, 1]],
        (2, 3): [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]],
        (3, 1): [[1, 1, 1, 1]],
    }
    for sizes, wanted in cases.items():
        found = m.chunk_mask(*sizes)
        if found.dtype != torch.bool or found.int().tolist() != wanted:
            return f"chunk_mask{sizes} is {found.dtype} {found.int().tolist()}, expected bool {wanted}"


def _check_logits(m, kind):
    model, tokens = _model(m), _tokens()
    wanted = _whole_model()(tokens)
    for chunks in CHUNKINGS:
        if gap := difference(_read(model, tokens, KINDS[kind](m), chunks), wanted):
            return f"chunks of {chunks}: logits [row, token, word] are not those without a cache: {gap}"


def _check_stored_keys(m):
    """The keys that lie in the cache are the uncached pass's own, turned by their positions."""
    model, tokens, cache = _model(m), _tokens(), _preallocated(m)
    seen = {"k": [], "v": []}
    with hooked(_whole_model(), {name: (lambda x, layer, kept=kept: kept.append(x)) for name, kept in seen.items()}):
        _whole_model()(tokens)
    _read(model, tokens, cache, [3, 3, 1])
    for name, stored in (("k", cache.keys), ("v", cache.values)):
        if gap := difference(stored[:, :, :, :7], torch.stack(seen[name])):
            return f"stored {name} [layer, row, head, column, number]: {gap}"


def _check_moves_nothing(m):
    cache = _preallocated(m)
    k, v = (torch.randn(2, HEADS, 9, WIDTH, generator=torch.Generator().manual_seed(i), dtype=FLOAT) for i in (0, 1))
    address, start = cache.keys.data_ptr(), 0
    for T in (4, 1, 3):
        new = slice(start, start + T)
        found = [part.extend((layer + 1) * k[:, :, new], v[:, :, new]) for layer, part in enumerate(cache.layers(T))]
        cache.advance(T)
        start += T
        for layer, (keys, values) in enumerate(found):
            if gap := difference(keys, (layer + 1) * k[:, :, :start], tolerance=0):
                return f"layer {layer}'s keys [row, head, column, number] after {start} columns: {gap}"
            if gap := difference(values, v[:, :, :start], tolerance=0):
                return f"layer {layer}'s values [row, head, column, number] after {start} columns: {gap}"
            if cache.keys.data_ptr() != address or keys.untyped_storage().data_ptr() != address:
                return f"after {start} columns the keys lie elsewhere in memory"


def _check_unfilled(m):
    model, tokens = _model(m), _tokens()
    cache = _preallocated(m, capacity=40)
    cache.keys.fill_(1e3), cache.values.fill_(1e3)
    if gap := difference(_read(model, tokens, cache, [3, 3, 1]), _whole_model()(tokens)):
        return f"the unfilled columns held other numbers before: {gap}"


def _check_padding(m):
    tokens, padding = _tokens(3), torch.tensor([0, 4, 2])
    for kind in ("concatenating", "preallocated"):
        for chunks in CHUNKINGS:
            logits = _read(_model(m), tokens, KINDS[kind](m, 3, padding=padding), chunks)
            for row, n in enumerate(padding.tolist()):
                alone = _whole_model()(tokens[row : row + 1, n:])
                if gap := difference(logits[row : row + 1, n:], alone):
                    return f"{kind}, chunks of {chunks}, a row padded by {n}: [., token, word] not as alone: {gap}"


def _check_positions(m):
    cache, asked = _preallocated(m, capacity=20, padding=torch.tensor([0, 2])), []
    for T in (3, 1, 1, 2):
        asked.append(cache.positions(T))
        cache.layers(T), cache.advance(T)
    wanted = [list(range(7)), [0, 0, *range(5)]]
    if (found := torch.cat(asked, dim=1).tolist()) != wanted:
        return f"reading 3, 1, 1 and 2 tokens, the second row padded by 2, they stood at {found}, expected {wanted}"
    cache.evict(4)
    cache.step_back(1)
    if (found := cache.positions(2).tolist()) != [[6, 7], [4, 5]]:
        return f"4 columns evicted, then one forgotten: the next two stand at {found}, expected [[6, 7], [4, 5]]"


def _check_step_back(m):
    tokens, wrong = _tokens(), _tokens(seed=1)
    wanted = _whole_model()(tokens)[:, 4:]
    for kind, new_cache in KINDS.items():
        model, cache = _model(m), new_cache(m)
        _read(model, tokens[:, :4], cache, [4])
        _read(model, wrong[:, :4], cache, [4])
        cache.step_back(4)
        if gap := difference(_read(model, tokens[:, 4:], cache, [1, 2]), wanted):
            return f"{kind}: 4 tokens were read and forgotten; the logits that follow are not as without them: {gap}"


def _check_second_prompt(m):
    first, second = _tokens(), _tokens(seed=1)
    for kind, new_cache in KINDS.items():
        model, cache = _model(m), new_cache(m)
        _read(model, first, cache, [7])
        cache.step_back(7)
        cache.step_back(0)
        if gap := difference(_read(model, second, cache, [3, 4]), _whole_model()(second)):
            return f"{kind}: a second text in the same cache, after all of the first was forgotten: {gap}"


def _check_keep(m):
    tokens, padding = _tokens(3), torch.tensor([0, 4, 2])
    for kind in KINDS:
        how = {} if kind == "paged" else {"padding": padding}
        model, cache = _model(m), KINDS[kind](m, 3, **how)
        _read(model, tokens[:, :5], cache, [5])
        cache.keep([2, 0])
        if cache.batch != 2:
            return f"{kind}: rows 2 and 0 of 3 were kept, the cache has {cache.batch}"
        logits = _read(model, tokens[[2, 0], 5:], cache, [1, 1])
        for i, row in enumerate((2, 0)):
            n = int(how["padding"][row]) if how else 0
            if gap := difference(logits[i], _whole_model()(tokens[row : row + 1, n:])[0, -2:]):
                return f"{kind}: rows 2 and 0 of 3 were kept; row {row} goes on otherwise than alone: {gap}"


def _check_evict(m):
    tokens, padding = _tokens(), torch.tensor([0, 2])
    model, cache = _model(m), _preallocated(m, padding=padding)
    _read(model, tokens[:, :5], cache, [5])
    cache.evict(3)
    logits = _read(model, tokens[:, 5:], cache, [1, 1])
    for row, n in enumerate(padding.tolist()):

        def hide(mask, layer, n=n):
            gone = torch.arange(7 - n) < 3 - n
            return mask & ~(gone & (torch.arange(7 - n)[:, None] >= 5 - n))

        with hooked(_whole_model(), {"mask": hide}):
            wanted = _whole_model()(tokens[row : row + 1, n:])[0, -2:]
        if gap := difference(logits[row], wanted):
            return f"3 columns evicted, a row padded by {n}: not as if later tokens were not allowed to see them: {gap}"


def _check_slots(m):
    cases = [([7, 2], [0, 3, 4], 4, [28, 31, 8]), ([5], [2], 3, [17]), ([0, 9, 4], [0, 1, 2], 1, [0, 9, 4])]
    for table, columns, page, wanted in cases:
        if (found := m.slots(table, torch.tensor(columns), page).tolist()) != wanted:
            return f"pages {table} of {page} columns: columns {columns} lie at {found}, expected {wanted}"


def _check_pages(m):
    """Requests of different length in one pool, none of whose pages are in order."""
    rows = [_tokens(1, T, seed=T)[0] for T in (7, 3, 5)]
    for page in (1, 3, 16):
        model, pool = _model(m), _pool(m, n_pages=40, page=page)
        taken = [pool.take() for _ in range(5)]
        for number in taken[::2]:
            pool.give_back(number)
        requests = [m.Request(pool) for _ in rows]
        for row, request in zip(rows, requests, strict=True):
            _read(model, row[None, :-1], m.PagedCache([request]), [1, len(row) - 2])
        logits = model(torch.stack([row[-1:] for row in rows]), m.PagedCache(requests))
        for i, row in enumerate(rows):
            if gap := difference(logits[i, -1], _whole_model()(row[None])[0, -1]):
                return f"pages of {page}, texts of 7, 3 and 5 tokens: text {i}'s last logits are not as alone: {gap}"


def _check_bookkeeping(m):
    pool = _pool(m, n_pages=6, page=3)
    first = m.Request(pool)
    for length, pages in ((1, 1), (3, 1), (4, 2), (9, 3), (10, 4)):
        cache, before = m.PagedCache([first]), list(first.table)
        cache.layers(length - first.length), cache.advance(length - first.length)
        if len(first.table) != pages or pool.free != 6 - pages:
            found = f"{len(first.table)} pages, {pool.free} of 6 free"
            return f"{length} columns in pages of 3: {found}, expected {pages} and {6 - pages}"
        if first.table[: len(before)] != before:
            return f"{length} columns in pages of 3: what lay in pages {before} lies in {first.table}: it was moved"
    first.step_back(4)
    if (len(first.table), pool.free) != (2, 4):
        return f"10 columns less 4 in pages of 3: {len(first.table)} pages, {pool.free} of 6 free, expected 2 and 4"
    second = first.fork()
    if pool.free != 4 or second.table != first.table:
        return f"a fork of two pages left {pool.free} of 6 free, expected 4: a shared page is not taken anew"
    first.step_back(6)
    if pool.free != 4:
        return f"a page that a fork still holds was given back: {pool.free} of 6 free, expected 4"
    second.step_back(6)
    if pool.free != 6:
        return f"both requests have ended: {pool.free} of 6 pages are free"
    pair = m.PagedCache([m.Request(pool), m.Request(pool)])
    pair.layers(3), pair.advance(3)
    tables = [list(it.table) for it in pair.requests]
    pair.keep([1])
    if pool.free != 5 or pair.requests[0].table != tables[1]:
        found = f"{pair.requests[0].table}, {pool.free} of 6 pages free"
        return f"requests with pages {tables}, the second kept: it has {found}, expected {tables[1]} and 5"


def _check_fork(m):
    prefix, ways = _tokens(1, 7), _tokens(2, 4, seed=1)
    for length in (4, 6, 7):  # pages of 3: one column, none and one in the last page
        model, pool = _model(m), _pool(m)
        trunk = m.Request(pool)
        _read(model, prefix[:, :length], m.PagedCache([trunk]), [length])
        branches = [trunk.fork(), trunk.fork()]
        free = pool.free
        logits = _read(model, ways, m.PagedCache(branches), [1, 3])
        for row in range(2):
            whole = torch.cat([prefix[:, :length], ways[row : row + 1]], dim=1)
            if gap := difference(logits[row], _whole_model()(whole)[0, length:]):
                return f"two texts share {length} tokens in pages of 3; text {row} goes on otherwise than alone: {gap}"
        after = model(prefix[:, length - 1 : length], _stepped_back(m, trunk))
        if gap := difference(after[0, -1], _whole_model()(prefix[:, :length])[0, -1]):
            return f"two texts were forked off after {length} tokens and went on; the first one changed: {gap}"
        least = 2 * (-(-(length + 4) // 3) - length // 3)  # each branch writes its own last pages
        if free - pool.free > least + 1:
            return f"two forks of {length} tokens and 4 more took {free - pool.free} pages of 3, expected {least}"


def _check_broken_off(m):
    """A pass that took pages and broke off before it advanced, then a fork."""
    prefix, ways = _tokens(1, 7), _tokens(2, 4, seed=1)
    model, pool = _model(m), _pool(m)
    trunk = m.Request(pool)
    _read(model, prefix, m.PagedCache([trunk]), [7])
    m.PagedCache([trunk]).layers(4)
    branches = [trunk, trunk.fork()]
    logits = _read(model, ways, m.PagedCache(branches), [1, 3])
    for row in range(2):
        whole = torch.cat([prefix, ways[row : row + 1]], dim=1)
        if gap := difference(logits[row], _whole_model()(whole)[0, 7:]):
            return f"a pass broke off, then the text was forked; text {row} goes on otherwise than alone: {gap}"


def _stepped_back(m, request):
    request.step_back(1)
    return m.PagedCache([request])


def _check_full_pool(m):
    pool = _pool(m, n_pages=3)
    requests = [m.Request(pool), m.Request(pool)]
    both = m.PagedCache(requests)
    both.layers(2), both.advance(2)
    forked = requests[0].fork()
    for what, cache, T in (("two pages", both, 3), ("a copy and a page", m.PagedCache([forked]), 2)):
        before = [list(it.table) for it in (*requests, forked)]
        try:
            cache.layers(T)
        except ValueError:
            found = [it.table for it in (*requests, forked)]
            if found != before or pool.free != 1:
                return f"a pass that needs {what}, one is free: pages {before} became {found}, {pool.free} are free"
        else:
            return f"a pass that needs {what}, one is free: it began, expected a ValueError"


def _check_bytes(m):
    cache = m.PreallocatedCache(3, 2, 5, 7, 4, dtype=torch.bfloat16)
    if (found := cache.keys.nbytes + cache.values.nbytes) != 2 * 3 * 2 * 5 * 7 * 4 * 2:
        return f"3 layers, 2 rows, 5 heads, 7 columns, 4 wide in bfloat16 take {found} bytes, expected 3360"
    pool = m.PagePool(3, 4, 7, 5, 4, dtype=torch.bfloat16)
    if (found := pool.keys.nbytes + pool.values.nbytes) != 2 * 3 * 4 * 7 * 5 * 4 * 2:
        return f"a pool of 4 pages of 7 columns, 3 layers, 5 heads, 4 wide in bfloat16 takes {found} bytes, not 6720"


def _check_inputs(m):
    model, tokens = _model(m), _tokens()
    full, pool = _preallocated(m, capacity=8), _pool(m, n_pages=1)
    _read(model, tokens, full, [7])
    before = full.keys[:, :, :, :7].clone()
    used = pool.take()
    pool.give_back(used)
    part, wide = _preallocated(m).layers(1)[0], torch.zeros(2, HEADS, 1, WIDTH + 1, dtype=FLOAT)
    sloped = torch.zeros(2, HEADS, 1, WIDTH, dtype=FLOAT, requires_grad=True)
    found = refusal(
        [
            ("a chunk past the capacity", "7 of 8", lambda: model(tokens[:, :2], full)),
            ("a batch of another size", "rows", lambda: model(_tokens(3, 1), full)),
            ("keys of another width", "wide", lambda: part.extend(wide, wide)),
            ("keys of another batch", "rows", lambda: part.extend(sloped[:1].detach(), sloped[:1].detach())),
            ("keys with a gradient", "gradient", lambda: part.extend(sloped, sloped)),
            ("a token outside the vocabulary", "vocabulary", lambda: model(tokens[:, :1] + VOCABULARY, full)),
            ("a step back of 8 columns of 7", "n is 8", lambda: full.step_back(8)),
            ("a step back of -1", "n is -1", lambda: full.step_back(-1)),
            ("8 columns of 7 to evict", "n is 8", lambda: full.evict(8)),
            ("a page given back twice", "twice", lambda: pool.give_back(used)),
            ("a second page of a pool of one", "in use", lambda: [pool.take(), pool.take()]),
            ("a request twice", "each once", lambda: m.PagedCache(2 * [m.Request(pool)])),
            ("a request that goes on twice", "each once", lambda: _paged(m).keep([0, 0])),
            ("row 2 of two to keep", "from 0 to 1", lambda: _preallocated(m).keep([2])),
            ("row -1 to keep", "from 0 to 1", lambda: _concat(m).keep([-1])),
            ("no row to keep", "one or more", lambda: _paged(m).keep([])),
            ("keys of another type", "float64", lambda: part.extend(sloped.detach().float(), sloped.detach().float())),
            ("a layer with a window", "window of 3", lambda: m.CachedAttention(RotaryAttention(8, 2, window=3))),
            ("padding that is no whole number", "whole", lambda: _concat(m, padding=torch.tensor([0, 0.5]))),
            ("a request that steps back too far", "n is 1", lambda: m.Request(pool).step_back(1)),
            ("no requests", "0 requests", lambda: m.PagedCache([])),
            ("requests of two pools", "one pool", lambda: m.PagedCache([m.Request(pool), m.Request(_pool(m))])),
            ("a cache of no rows", "rows", lambda: _preallocated(m, batch=0)),
            ("a cache without capacity", "capacity", lambda: _preallocated(m, capacity=0)),
            ("a pool of no pages", "pages", lambda: _pool(m, n_pages=0)),
            ("padding for another batch", "padding", lambda: _concat(m, padding=torch.tensor([1]))),
            ("negative padding", "padding", lambda: _concat(m, padding=torch.tensor([0, -1]))),
        ]
    )
    if found:
        return found
    if full.length != 7 or difference(full.keys[:, :, :, :7], before, tolerance=0):
        return "refused calls changed what was stored"


CHECKS = [
    Check(
        "the mask of a chunk is the one drawn by hand",
        _check_mask,
        "In which column does the first new token stand, and which columns come before it?",
        about=["chunk_mask"],
    ),
    Check(
        "with a cache that has room, logits are those without a cache, in chunks of any length",
        partial(_check_logits, kind="preallocated"),
        "Do longer chunks fail and single tokens not? Then the mask. Do later tokens fail? Then positions.",
        about=["cached_step", "chunk_mask", "PreallocatedCache.store"],
    ),
    Check(
        "what is stored is what the whole text gives, keys turned by their positions",
        _check_stored_keys,
        "Is a key turned before it is stored, and once?",
        about=["cached_step", "PreallocatedCache.store"],
    ),
    Check(
        "storing writes the new columns, returns all so far, and moves nothing",
        _check_moves_nothing,
        "Which columns are new? Do two layers, or keys and values, share memory?",
        about=["PreallocatedCache.store"],
    ),
    Check(
        "what lies behind the filled columns is not read",
        _check_unfilled,
        "How many columns does `store` return?",
        about=["PreallocatedCache.store"],
    ),
    Check(
        "with a cache that grows, logits are those without a cache",
        partial(_check_logits, kind="concatenating"),
        "What is put behind what?",
    ),
    Check(
        "with pages, logits are those without a cache",
        partial(_check_logits, kind="paged"),
        "Where does a column lie, and which columns are gathered?",
        about=["slots"],
    ),
    Check(
        "a row that is padded on the left goes on as it does alone",
        _check_padding,
        "What may be seen of the padding, and from where are positions counted?",
        about=["cached_step"],
    ),
    Check(
        "positions go on without a gap, whatever was padded, evicted or forgotten",
        _check_positions,
        "Which tokens came before, and which of them are still stored?",
    ),
    Check(
        "after a step back it goes on as if the tokens had never been read",
        _check_step_back,
        "What is left of the forgotten columns?",
    ),
    Check(
        "a second text in the same cache is read as in a fresh one",
        _check_second_prompt,
        "What of the first text is still counted?",
    ),
    Check("rows that are kept go on as they do alone", _check_keep, "What belongs to a row besides keys and values?"),
    Check(
        "evicted columns are as if later tokens may not see them",
        _check_evict,
        "Which columns are left, where do they lie, and where does the next token stand?",
    ),
    Check(
        "columns lie in the pool where the table says",
        _check_slots,
        "Which page holds a column, and where in the page does it stand?",
        about=["slots"],
    ),
    Check(
        "requests of different length share a pool and do not disturb each other",
        _check_pages,
        "Whose pages are read and written, and what may a short text see?",
        about=["slots"],
    ),
    Check(
        "each page is held as often as it is used, and is free again after that",
        _check_bookkeeping,
        "Who takes a page, who gives it back, and when?",
    ),
    Check(
        "forked texts share their beginning and go on apart",
        _check_fork,
        "What happens to a page that two hold when one of them writes to it?",
    ),
    Check(
        "a pass that broke off leaves nothing that a fork could share",
        _check_broken_off,
        "Which pages does a request hold behind its last column?",
    ),
    Check(
        "a pass that does not fit takes no page",
        _check_full_pool,
        "What has been taken when the second request finds none?",
    ),
    Check("the bytes are those of the formula", _check_bytes, "Is the type the one that was asked for?"),
    Check("what cannot work is refused in words, and nothing is written", _check_inputs),
]


def _check_expected_tokens(m):
    cases = [(0.0, 4, 1.0), (1.0, 4, 5.0), (0.5, 1, 1.5), (0.5, 2, 1.75), (0.9, 3, 3.439)]
    for stays, ahead, wanted in cases:
        found = m.expected_tokens(stays, ahead)
        if not abs(found - wanted) < 1e-9:
            return f"each of {ahead} drafted tokens stays with probability {stays}: {found} a round, expected {wanted}"


def _check_shared_pages(m):
    stored = {(1, 2, 3): 5, (1, 2, 3, 4, 5, 6): 0, (7, 8, 9): 2}
    cases = [
        ([1, 2, 3, 4, 5, 6, 7], [5, 0]),
        ([1, 2, 3, 4, 5, 6], [5]),  # the last token must be read: its logits are wanted
        ([1, 2, 3, 9, 9, 9, 9], [5]),
        ([7, 8, 9, 4, 5, 6, 1], [2]),  # the same three tokens behind others have other keys
        ([1, 2], []),
        ([4, 5, 6, 7], []),
    ]
    for prompt, wanted in cases:
        if (found := m.shared_pages(stored, prompt, 3)) != wanted:
            return f"prompt {prompt}, pages of 3, stored {stored}: {found}, expected {wanted}"


def _check_int8(m):
    x = torch.randn(2, HEADS, 7, WIDTH, generator=torch.Generator().manual_seed(0), dtype=FLOAT)
    x[0, 1, 2, 1] = 60.0
    codes, scale = m.to_int8(x)
    if codes.dtype != torch.int8 or codes.shape != x.shape or scale.shape != (2, HEADS, 7, 1):
        return f"codes {codes.dtype} {tuple(codes.shape)}, scale {tuple(scale.shape)}, expected one for each column"
    back = m.from_int8(codes, scale)
    step = x.abs().amax(dim=-1, keepdim=True) / 127
    over = ((back - x).abs() / step).amax(dim=-1)  # in steps of the column
    if not over.max() <= 0.5 + 1e-9:  # half a step, and float64's own rounding
        place = torch.unravel_index(over.argmax(), over.shape)
        column = [int(i) for i in place]
        return f"column [row, head, column] {column}: a number is off by {over[place]:.2g} of its steps, expected 0.5"


EXERCISES = [
    Check(
        "expected_tokens counts the token that the model adds",
        _check_expected_tokens,
        "With which probability do at least 0, 1, 2 ... drafted tokens stay?",
    ),
    Check(
        "shared_pages takes whole pages that begin alike, and leaves a token to read",
        _check_shared_pages,
        "On what does a key depend: on its token alone?",
    ),
    Check(
        "to_int8 and from_int8 are off by half a step of their column at most",
        _check_int8,
        "Over which axis is the largest number taken?",
    ),
]
