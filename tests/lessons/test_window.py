"""Lesson 09: bands, blocks and rings against independent references. (Its clinic: test_clinics.py.)"""

import itertools
from types import SimpleNamespace

import pytest
import torch
import window
from folded import solutions
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers import MistralConfig, MistralForCausalLM
from transformers.masking_utils import sliding_window_causal_mask_function
from window_checks import EXERCISES

from shared.clinic import examine
from shared.hf_model import load_model
from shared.hooks import hooked
from shared.rotary import RotaryAttention, no_positions
from shared.story_model import load_story_lm
from shared.tiny_lm import TinyLM

FLOAT = torch.float64
EXACT = {"atol": 1e-10, "rtol": 0}  # float64 rounds at 1e-16; sums of under 100 terms of size 1 to 10
THEIRS = {"atol": 1e-5, "rtol": 0}  # transformers takes norms and angles in float32, which rounds at 6e-8
SIZES = {"vocab_size": 50, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3}
SIZES |= {"num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 64}
TOKENS = torch.randint(50, (2, 37), generator=torch.Generator().manual_seed(0))


def random_text(n, seed=0, d=8):
    """Queries, keys and values of n tokens, two heads: three of (2, n, d), float64."""
    return torch.randn(3, 2, n, d, generator=torch.Generator().manual_seed(seed), dtype=FLOAT)


@pytest.fixture(params=[2, 5, 16])  # with a window of 1, transformers' own cache keeps all
def mistral(request, tmp_path):
    """transformers' Mistral with a window, and the house's model of the same weights without one; the window."""
    torch.manual_seed(0)
    theirs = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=request.param)).eval()
    for weight in theirs.parameters():
        weight.data.normal_(std=0.2)
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    for block in ours.blocks:
        assert block.attention.window == request.param
        block.attention.window = None
    return theirs.to(FLOAT).requires_grad_(False), ours.to(FLOAT).requires_grad_(False), request.param


def test_equals_transformers_mistral(mistral):
    """Whole texts under our masks, and our ring read in uneven passes."""
    theirs, ours, width = mistral
    wanted = theirs(TOKENS).logits
    with hooked(ours, window.restrict([width] * 3)):
        torch.testing.assert_close(ours(TOKENS), wanted, **THEIRS)
    ring = window.new_ring(ours, [width] * 3, batch=2)
    found = [ours(part, ring) for part in TOKENS.split([3, 1, 1, 20, 1, 11], dim=1)]
    torch.testing.assert_close(torch.cat(found, dim=1), wanted, **THEIRS)


def test_keeps_what_transformers_keeps(mistral):
    """Token by token beside its own cache of windows: the same logits, and no more columns than it needs."""
    theirs, ours, width = mistral
    ring, past = window.new_ring(ours, [width] * 3, batch=2), None
    for position in range(TOKENS.shape[1]):
        token = TOKENS[:, position : position + 1]
        step = theirs(token, past_key_values=past, use_cache=True)
        past = step.past_key_values
        torch.testing.assert_close(ours(token, ring), step.logits, **THEIRS)
    assert {keys.shape[2] for keys in ring.keys} == {width}


@pytest.mark.parametrize("width", [1, 4, 9])
def test_the_rule_is_that_of_transformers(width):
    rule = sliding_window_causal_mask_function(width)
    wanted = [[bool(rule(0, 0, torch.tensor(i), torch.tensor(j))) for j in range(12)] for i in range(12)]
    assert window.band_mask(12, width).tolist() == wanted


widths = st.one_of(st.none(), st.integers(1, 30))


@settings(max_examples=80, deadline=None)
@given(n=st.integers(1, 60), width=widths, sinks=st.integers(0, 6), block=st.integers(1, 70), seed=st.integers(0, 99))
def test_blocks_equal_a_mask(n, width, sinks, block, seed):
    q, k, v = random_text(n, seed)
    wanted = F.scaled_dot_product_attention(q, k, v, attn_mask=window.band_mask(n, width, sinks))
    torch.testing.assert_close(window.banded_attention(q, k, v, width, sinks, block=block), wanted, **EXACT)


STORY = load_story_lm().double().requires_grad_(False)


@settings(max_examples=40, deadline=None)
@given(
    windows=st.lists(widths, min_size=4, max_size=4),
    sinks=st.integers(0, 5),
    passes=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    seed=st.integers(0, 99),
)
def test_a_ring_equals_the_band(windows, sinks, passes, seed):
    """Whatever the windows, the sinks and the passes, on the trained story model."""
    n = sum(passes)
    text = torch.randint(STORY.vocab_size, (1, n), generator=torch.Generator().manual_seed(seed))
    ring = window.new_ring(STORY, windows, sinks=sinks, capacity=n)
    found = torch.cat([STORY(part, ring) for part in text.split(passes, dim=1)], dim=1)
    with hooked(STORY, window.restrict(windows, sinks)):
        torch.testing.assert_close(found, STORY(text), **EXACT)


def test_turned_sinks_are_as_near_as_in_a_text_without_what_was_dropped():
    """One layer: what the last token reads is what it reads in a text from which the dropped tokens are cut out."""
    torch.manual_seed(0)
    model = TinyLM(50, 64, 48, 1, 6, attention=RotaryAttention, positions=no_positions).to(FLOAT)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    model.requires_grad_(False)
    ring = window.new_ring(model, [7], sinks=2, batch=2, turned=True)
    for n in range(1, TOKENS.shape[1] + 1):
        found = model(TOKENS[:, n - 1 : n], ring)[:, -1]
        kept = [*range(min(n, 2)), *range(max(2, n - 7), n)]
        torch.testing.assert_close(found, model(TOKENS[:, kept])[:, -1], **EXACT)


def test_half_precision():
    """As near to float32 as PyTorch's own attention: scores and weights are rounded to 8 bits, sums of 40 terms."""
    q, k, v = random_text(80).float()
    wanted = window.banded_attention(q, k, v, 40)
    found = window.banded_attention(*(each.bfloat16() for each in (q, k, v)), 40)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), wanted, atol=4 * 2**-8, rtol=0)


@pytest.mark.parametrize(("n", "width", "sinks"), list(itertools.product([1, 6, 50], [None, 1, 4, 60], [0, 3])))
def test_a_ring_holds_the_latest(n, width, sinks):
    """The positions in a ring are those that the next token's query may see besides itself, and one that it may not."""
    width = n if width is None else width
    held = sorted(it for it in window.ring_positions(n, width, sinks).tolist() if it >= 0)
    assert held == sorted({*range(min(sinks, n)), *range(max(sinks, n - width), n)}), held


SOLVED = solutions(window, "window_vis.ipynb", torch=torch)


def test_the_exercises_solutions_pass_their_checks():
    """And an exercise that is not done fails."""
    names = ("local_chunks", "sink_logit_attention", "cache_share")
    assert examine(SimpleNamespace(**{name: SOLVED[name] for name in names}), EXERCISES).passes
    assert len(examine(SimpleNamespace(), EXERCISES).failed) == 3
