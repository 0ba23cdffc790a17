"""Lesson 08: caches, loops and counted work against independent references. (Its clinic: test_clinics.py.)"""

import copy
from functools import partial
from types import SimpleNamespace

import kv_cache
import kv_loops
import kv_work
import pytest
import torch
from folded import solutions
from hypothesis import given, settings
from hypothesis import strategies as st
from kv_cache_checks import EXERCISES
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from shared.clinic import examine
from shared.generation import generate as house_generate
from shared.generation import greedy
from shared.hf_model import load_model
from shared.hooks import hooked
from shared.layers import SwiGLU
from shared.memory import peak_bytes
from shared.rotary import RotaryAttention, no_positions
from shared.tiny_lm import TinyLM

LAYERS, HEADS, WIDTH, VOCABULARY = 3, 2, 4, 23
FLOAT = torch.float64
EXACT = {"atol": 1e-10, "rtol": 0}  # float64 rounds at 1e-16; sums of under 100 terms of size 1
PROMPTS = [[1, 2, 3, 4, 5, 6, 7], [9, 8, 7], [4]]


def llama(seed=0, n_layers=LAYERS, d_model=24, n_heads=6):
    """A small Llama of large random weights, in float64: its greedy text is no loop."""
    attention = partial(RotaryAttention, n_kv_heads=HEADS, bias=False)
    feed_forward = partial(SwiGLU, d_hidden=40)
    slots = {"attention": attention, "feed_forward": feed_forward, "norm": nn.RMSNorm, "positions": no_positions}
    model = TinyLM(VOCABULARY, 64, d_model, n_layers, n_heads, **slots, tied=False).to(FLOAT).eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=FLOAT) * 0.4
    return model.requires_grad_(False)


MODEL = llama()
CACHED = kv_cache.by_cached_step(copy.deepcopy(MODEL))


def new_cache(kind, padding, capacity=40):
    """An empty cache for a row of each padding; None for pages, whose rows are not padded."""
    sizes = {"padding": padding, "dtype": FLOAT}
    if kind == "house":
        return MODEL.new_cache(len(padding), capacity, padding)
    if kind == "concat":
        return kv_cache.ConcatCache(LAYERS, len(padding), HEADS, WIDTH, **sizes)
    return kv_cache.PreallocatedCache(LAYERS, len(padding), HEADS, capacity, WIDTH, **sizes)


def new_pool(page, n_pages=60):
    """Room for pages of float64."""
    return kv_cache.PagePool(LAYERS, n_pages, page, HEADS, WIDTH, dtype=FLOAT)


def in_chunks(tokens, cache, lengths):
    """Logits of all tokens, read in chunks of these lengths."""
    return torch.cat([CACHED(part, cache) for part in tokens.split(lengths, dim=1)], dim=1)


chunkings = st.lists(st.integers(1, 6), min_size=1, max_size=5)
paddings = st.lists(st.integers(0, 5), min_size=1, max_size=3)
kinds = st.sampled_from(["concat", "preallocated", "house"])


@settings(max_examples=60, deadline=None)
@given(kind=kinds, lengths=chunkings, padding=paddings, seed=st.integers(0, 999))
def test_cached_logits_equal_uncached_ones(kind, lengths, padding, seed):
    """For every chunking, batch and padding; each row as it is alone."""
    T = sum(lengths)
    padding = torch.tensor([min(n, T - 1) for n in padding])
    tokens = torch.randint(VOCABULARY, (len(padding), T), generator=torch.Generator().manual_seed(seed))
    logits = in_chunks(tokens, new_cache(kind, padding), lengths)
    for row, n in enumerate(padding.tolist()):
        torch.testing.assert_close(logits[row : row + 1, n:], MODEL(tokens[row : row + 1, n:]), **EXACT)


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(chunkings, min_size=1, max_size=3), page=st.integers(1, 9), seed=st.integers(0, 999))
def test_paged_logits_equal_uncached_ones(lengths, page, seed):
    """Rows of any length, read in any chunks, then all together: a token more."""
    pool, generator = new_pool(page, 120), torch.Generator().manual_seed(seed)
    rows = [torch.randint(VOCABULARY, (1, sum(chunks) + 1), generator=generator) for chunks in lengths]
    requests = [kv_cache.Request(pool) for _ in rows]
    for row, request, chunks in zip(rows, requests, lengths, strict=True):
        logits = in_chunks(row[:, :-1], kv_cache.PagedCache([request]), chunks)
        torch.testing.assert_close(logits, MODEL(row[:, :-1]), **EXACT)
    together = CACHED(torch.cat([row[:, -1:] for row in rows]), kv_cache.PagedCache(requests))
    for row, logits in zip(rows, together, strict=True):
        torch.testing.assert_close(logits[-1], MODEL(row)[0, -1], **EXACT)


@settings(max_examples=40, deadline=None)
@given(first=st.integers(1, 8), evicted=st.integers(0, 8), later=chunkings, seed=st.integers(0, 999))
def test_eviction_equals_a_mask(first, evicted, later, seed):
    """What is evicted is as if later tokens were not allowed to see it."""
    evicted, T = min(first, evicted), first + sum(later)
    tokens = torch.randint(VOCABULARY, (1, T), generator=torch.Generator().manual_seed(seed))
    cache = new_cache("preallocated", torch.tensor([0]))
    CACHED(tokens[:, :first], cache)
    cache.evict(evicted)
    columns = torch.arange(T)
    gone = (columns < evicted) & (columns[:, None] >= first)
    with hooked(MODEL, {"mask": lambda mask, layer: mask & ~gone}):
        wanted = MODEL(tokens)[:, first:]
    torch.testing.assert_close(in_chunks(tokens[:, first:], cache, later), wanted, **EXACT)


@pytest.mark.parametrize("chunk", [None, 1, 3])
@pytest.mark.parametrize("kind", ["concat", "preallocated", "house"])
def test_every_loop_says_the_same(kind, chunk):
    """Padded rows with each cache, pages, and the house's own loop: the tokens of recomputing each prompt alone."""
    wanted = [kv_loops.recompute(MODEL, prompt, 12) for prompt in PROMPTS]
    assert len({tuple(row) for row in wanted}) == 3 and len(set(wanted[0])) > 3  # no loop of one token
    assert kv_loops.generate(CACHED, PROMPTS, 12, new_cache(kind, kv_loops.pad_left(PROMPTS)[1]), chunk=chunk) == wanted
    assert house_generate(MODEL, PROMPTS, 12, rules=[greedy]) == wanted
    requests = [kv_cache.Request(new_pool(4)) for _ in PROMPTS[:1]]
    prompt = torch.tensor(PROMPTS[:1])
    logits = kv_loops.prefill(CACHED, prompt, kv_cache.PagedCache(requests), chunk)
    assert kv_loops.decode(CACHED, logits, 12, kv_cache.PagedCache(requests)) == wanted[:1]


@pytest.mark.parametrize("kind", ["concat", "preallocated", "paged"])
def test_rows_that_stop_leave_and_the_others_go_on(kind):
    """A row ends with its stop token; its pages are free again; the others say what they say alone."""
    whole = [kv_loops.recompute(MODEL, prompt, 12) for prompt in PROMPTS]
    stop = {whole[1][2]}
    wanted = [row[: next((i for i, t in enumerate(row) if t in stop), len(row)) + 1] for row in whole]
    assert len({len(row) for row in wanted}) > 1
    if kind != "paged":
        cache = new_cache(kind, kv_loops.pad_left(PROMPTS)[1])
        assert kv_loops.generate(CACHED, PROMPTS, 12, cache, stop=stop) == wanted
        return
    pool = new_pool(4)
    requests = [kv_cache.Request(pool) for _ in PROMPTS]
    pairs = zip(PROMPTS, requests, strict=True)
    logits = torch.cat([kv_loops.prefill(CACHED, torch.tensor([p]), kv_cache.PagedCache([r])) for p, r in pairs])
    cache = kv_cache.PagedCache(requests)
    assert kv_loops.decode(CACHED, logits, 12, cache, stop) == wanted
    assert pool.free == len(pool.users) - sum(len(it.table) for it in cache.requests)


def test_the_tokens_are_those_of_transformers(tmp_path):
    """The same weights, a padded batch, 20 tokens by its `generate` with its cache."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 2, "initializer_range": 0.4}
    theirs = LlamaForCausalLM(LlamaConfig(**sizes, **heads, bos_token_id=None, eos_token_id=None)).eval()
    theirs.save_pretrained(tmp_path)
    ours = kv_cache.by_cached_step(load_model(tmp_path))
    tokens, padding = kv_loops.pad_left(PROMPTS)
    mask = (torch.arange(tokens.shape[1]) >= padding[:, None]).long()
    how = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": 0}
    wanted = theirs.generate(tokens, attention_mask=mask, **how)[:, tokens.shape[1] :].tolist()
    cache = kv_cache.PreallocatedCache(3, 3, 2, 40, 4, padding=padding)
    assert kv_loops.generate(ours, PROMPTS, 20, cache, chunk=3) == wanted


def test_bytes_are_those_of_the_formula_and_of_the_allocation():
    """Grouped heads whose width is not d_model / heads, a type of two bytes."""
    wanted = kv_work.cache_bytes(5, 3, 2, 11, 6, torch.bfloat16)
    assert wanted == 2 * 5 * 3 * 2 * 11 * 6 * 2
    found = peak_bytes(lambda: kv_cache.PreallocatedCache(5, 3, 2, 11, 6, dtype=torch.bfloat16))
    assert found - wanted == 3 * 8  # and the padding, a whole number a row


def test_the_step_and_the_caches_are_the_houses_own():
    """Logits to the last bit, positions and masks."""
    padding, tokens = (
        torch.tensor([0, 2]),
        torch.randint(VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(0)),
    )
    ours, house = new_cache("preallocated", padding), new_cache("house", padding)
    for part in tokens.split([4, 1, 3, 1], dim=1):
        T = part.shape[1]
        assert torch.equal(ours.positions(T), house.positions(T))
        assert torch.equal(ours.layers(T)[0].mask, house.layers(T)[0].mask)
        assert torch.equal(CACHED(part, ours), MODEL(part, house))
    stored = ours.keys[:, :, :, :9], house.keys[:, :, :, :9]
    assert torch.equal(*stored)


def empty(model):
    """A cache with room for 60 columns."""
    attention = model.blocks[0].attention
    return kv_cache.PreallocatedCache(len(model.blocks), 1, attention.n_kv_heads, 60, attention.d_head, dtype=FLOAT)


def speculated(draft, prompt, most, ahead, generator=None):
    """New tokens by a draft model's guesses, and how many of each round stayed."""
    propose = kv_loops.draft_of(draft, empty(draft), generator)
    return kv_loops.speculate(MODEL, propose, prompt, most, empty(MODEL), ahead=ahead, generator=generator)


@pytest.mark.parametrize("ahead", [1, 3, 6])
def test_greedy_speculation_is_the_models_own_text(ahead):
    """Whatever the draft: another model, the model itself."""
    other = llama(seed=1, n_layers=1, d_model=12, n_heads=2)
    for prompt in PROMPTS:
        wanted = kv_loops.recompute(MODEL, prompt, 15)
        for draft in (other, MODEL):
            found, stayed = speculated(draft, prompt, 15, ahead)
            assert found == wanted
        assert stayed == [ahead] * len(stayed)  # its own guesses all stay


def test_what_is_accepted_is_distributed_as_the_model():
    """Pairs of tokens over 10,000 rounds, a draft far from the truth: each frequency within 5 standard errors."""
    generator = torch.Generator().manual_seed(0)
    guess = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    truth = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.4, 0.0], [0.1, 0.2, 0.7]])
    n, counts = 10_000, torch.zeros(3, 3)
    for _ in range(n):
        drafted = torch.multinomial(guess, 1, generator=generator)[:, 0].tolist()
        said = kv_loops.accept(drafted, guess, truth, generator)
        second = said[1] if len(said) > 1 else int(torch.multinomial(truth[1], 1, generator=generator))
        counts[said[0], second] += 1
    wanted = truth[0][:, None] * truth[1]
    error = (wanted * (1 - wanted) / n).sqrt()
    assert ((counts / n - wanted).abs() <= 5 * error).all()


def test_drawn_speculation_draws_from_the_model():
    """The first token of 1,000 seeds beside the model's own distribution: total variation under 0.1. Chance alone gives
    at most 0.06 (of 23 words: the mean of |frequency - p| is sqrt(2 p (1 - p) / pi n), summed and halved)."""
    draft, p = llama(seed=1, n_layers=1, d_model=12, n_heads=2), (MODEL(torch.tensor(PROMPTS[:1]))[0, -1]).softmax(-1)
    counts = torch.zeros(VOCABULARY, dtype=FLOAT)
    for seed in range(1000):
        generator = torch.Generator().manual_seed(seed)
        (token,), _ = speculated(draft, PROMPTS[0], 1, 1, generator)
        counts[token] += 1 / 1000
    assert (counts - p).abs().sum() / 2 < 0.1


@pytest.mark.parametrize(("T", "start", "batch"), [(1, 0, 1), (1, 9, 2), (5, 0, 3), (4, 7, 2)])
def test_flops_are_those_of_pytorchs_counter(T, start, batch):
    """By the plain form of attention, which computes hidden pairs too: these are taken off."""
    cache = new_cache("preallocated", torch.zeros(batch, dtype=torch.long))
    if start:
        CACHED(torch.ones(batch, start, dtype=torch.long), cache)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        CACHED(torch.ones(batch, T, dtype=torch.long), cache, last=1)
    hidden = batch * T * (T - 1) // 2
    hidden_flops = 4 * LAYERS * 6 * WIDTH * hidden
    assert counter.get_total_flops() - hidden_flops == kv_work.work(MODEL, T, start, batch).flops


def test_bytes_are_those_of_the_tensors():
    """All weights but the embedding, of which a row is looked up; a tied one is read as the head; filled columns."""
    cache = new_cache("preallocated", torch.tensor([0]), capacity=10)
    it = kv_work.work(MODEL, 1, 9)
    assert it.weight_bytes == sum(p.nbytes for p in MODEL.parameters()) - MODEL.embedding.weight.nbytes
    assert it.cache_bytes == cache.keys.nbytes + cache.values.nbytes
    tied = TinyLM(VOCABULARY, 64, 24, 1, 6, positions=no_positions)
    assert kv_work.weight_bytes(tied) == sum(p.nbytes for p in tied.parameters())


def test_another_layout_holds_the_same_numbers():
    """Each matrix has its longer side contiguous; logits differ by rounding alone."""
    laid = kv_work.lay_out(copy.deepcopy(MODEL))
    for a, b in zip(MODEL.parameters(), laid.parameters(), strict=True):
        assert torch.equal(a, b)
        if b.ndim == 2 and b.shape[0] != b.shape[1]:
            assert b.stride(b.shape.index(max(b.shape))) == 1
    tokens = torch.tensor(PROMPTS[:1])
    torch.testing.assert_close(laid(tokens), MODEL(tokens), **EXACT)


def test_an_empty_prompt_is_refused():
    """By each loop, before the model is called."""
    for call in (
        lambda: kv_loops.recompute(MODEL, [], 3),
        lambda: kv_loops.generate(MODEL, [[1], []], 3, None),
        lambda: kv_loops.speculate(MODEL, kv_loops.draft_of(MODEL, empty(MODEL)), [], 3, empty(MODEL)),
    ):
        with pytest.raises(ValueError, match="empty"):
            call()


SOLVED = solutions(kv_cache, "kv_cache_vis.ipynb", torch=torch)


def test_the_exercises_solutions_pass_their_checks():
    """And an exercise that is not done fails."""
    names = ("expected_tokens", "shared_pages", "to_int8", "from_int8")
    assert examine(SimpleNamespace(**{name: SOLVED[name] for name in names}), EXERCISES).passes
    assert len(examine(SimpleNamespace(), EXERCISES).failed) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"expected_tokens": lambda stays, ahead: sum(stays**i for i in range(1, ahead + 1))},
        {"expected_tokens": lambda stays, ahead: 1 + stays * ahead},
        {
            "shared_pages": lambda stored, prompt, page: [
                stored[tuple(prompt[: i + page])]
                for i in range(0, len(prompt) - page + 1, page)
                if tuple(prompt[: i + page]) in stored
            ]
        },
        {"to_int8": lambda x: ((127 * x / x.abs().amax()).round().to(torch.int8), x.abs().amax() / 127)},
        {"from_int8": lambda codes, scale: codes.double()},
    ],
)
def test_wrong_answers_to_the_exercises_are_refused(wrong):
    """Near misses: the model's own token forgotten, a sum too large, no token left to read, one scale for all."""
    (name,) = wrong
    name = "to_int8" if name == "from_int8" else name
    assert any(name in check for check in examine(SimpleNamespace(**SOLVED | wrong), EXERCISES).failed)
