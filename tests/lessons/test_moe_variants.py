"""Lesson 11's other ways to a mixture: experts that choose, hashes, frozen routers, upcycled models."""

import copy

import moe
import moe_variants
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_mixtures import filled, layer
from small_models import EXACT, VOCABULARY, draw, llama, tokens

from shared.layers import FeedForward, SwiGLU
from shared.tiny_lm import TinyLM
from shared.training import fit, next_token_loss


def small_lm(**how):
    torch.manual_seed(0)
    slot = {"n_experts": 4, "k": 1, "d_hidden": 16}
    return TinyLM(VOCABULARY, 12, 16, 2, 2, feed_forward=lambda d: moe.MoE(d, **slot | how))


def test_training_moves_routers_by_loss_and_bias_and_frozen_ones_stay():
    """In `fit`, with what the lesson adds to the loss; a control's router keeps its first weights."""

    def loss(model, x, y):
        value = next_token_loss(model, x, y) + moe.penalty(model, 0.01, 0.001)
        moe.rebalance(model, 0.01)
        return value

    free, frozen = small_lm(), moe_variants.freeze_routers(small_lm())
    before = free.blocks[1].feed_forward.router.weight.clone()
    for model in (free, frozen):
        fit(model, lambda: (tokens(), tokens(seed=1)), 3, 1e-2, loss=loss, label=None)
        assert model.blocks[1].feed_forward.bias.abs().max() > 0
    assert not torch.equal(free.blocks[1].feed_forward.router.weight, before)
    assert torch.equal(frozen.blocks[1].feed_forward.router.weight, before)


@settings(max_examples=40, deadline=None)
@given(N=st.integers(1, 12), E=st.integers(1, 5), room=st.integers(1, 9), seed=st.integers(0, 999))
def test_expert_choice_gives_each_expert_the_tokens_that_want_it_most(N, E, room, seed):
    scores = draw(N, E, seed=seed).softmax(dim=-1)
    routes = moe_variants.expert_choice(scores, room)
    assert moe.load(routes, E).tolist() == [min(N, room)] * E
    for expert in range(E):
        mine = routes.experts == expert
        best = scores[:, expert].topk(min(N, room)).indices
        assert set(routes.tokens[mine].tolist()) == set(best.tolist())
        assert torch.equal(routes.gates[mine], scores[routes.tokens[mine], expert])


def test_who_peeks_at_the_future():
    """Not who chooses for each token by itself. Expert choice does; so does a capacity with two choices, where later
    first choices take the room of earlier second ones; and between texts of a batch any capacity does."""
    x, later = draw(1, 12, 8), draw(1, 12, 8, seed=1)
    batch, later_batch = torch.cat([x, later]), torch.cat([later, x])
    how = {"n_experts": 6, "d_hidden": 12}
    chooses = filled(moe_variants.ExpertChoice(8, k=2, **how))
    tight = {k: layer(k=k, capacity_factor=0.7) for k in (1, 2)}
    assert chooses(x).shape == x.shape and len(chooses.record.routes.tokens) == 2 * 12
    assert moe_variants.leak(layer(), x, later).max() < 1e-12  # products of another size round otherwise
    assert moe_variants.leak(chooses, x, later)[:-1].max() > 0.01
    assert moe_variants.leak(tight[1], x, later).max() < 1e-12
    assert moe_variants.leak(tight[2], x, later).max() > 0.01
    assert moe_variants.leak(tight[1], batch, later_batch).max() > 0.01


def test_hash_routing_goes_by_the_token():
    """In a model, and in a copy of it, whose layers hear of their own tokens. Without the tokens it is refused."""
    table = torch.arange(VOCABULARY) % 5
    model = llama(feed_forward=lambda d: moe_variants.HashMoE(d, table=table, n_experts=5, d_hidden=12))
    with pytest.raises(ValueError, match="none tokens for 18 vectors"):
        model(tokens())
    model = moe_variants.hash_model(model)
    other = copy.deepcopy(model)
    for it, seed in ((model, 0), (other, 1), (model, 2)):
        it(tokens(seed=seed))
        for block in it.blocks:
            record = block.feed_forward.record
            assert torch.equal(record.routes.experts, table[tokens(seed=seed).flatten()])
            assert record.routes.gates.eq(1).all() and record.scores.argmax(-1).equal(record.routes.experts)
    assert not any("router" in name for name, _ in model.named_parameters())
    tight = moe_variants.HashMoE(8, table=table, n_experts=5, d_hidden=12, capacity_factor=1.0)
    tight.tokens = torch.tensor([0, 5, 10, 15, 1])
    tight(draw(5, 8, dtype=torch.float32))
    assert tight.record.routes.tokens.tolist() == [0, 4]  # room for one each


def test_a_balanced_table_evens_what_frequencies_leave_uneven():
    """Zipf's frequencies of 500 tokens over 8 experts: at most one rare token too many; by remainder it is far off."""
    counts = (10_000 / torch.arange(1, 501)).long()
    table = moe_variants.balanced_table(counts, 5)
    loads, plain = (torch.zeros(5, dtype=torch.long).index_add(0, t, counts) for t in (table, torch.arange(500) % 5))
    assert loads.max() - loads.min() <= counts.min() and plain.max() > 1.5 * plain.min()


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize(
    "plain", [SwiGLU(8, 12), SwiGLU(8, 12, bias=True), FeedForward(8), FeedForward(8, approximate="tanh")]
)
def test_an_upcycled_layer_begins_as_the_dense_one(plain, k):
    plain, x = filled(plain), draw(3, 7, 8)
    mixture = moe_variants.upcycle(plain, 5, k)
    torch.testing.assert_close(mixture(x), plain(x), **EXACT)
    assert moe.load(mixture.record.routes, 5).count_nonzero() > 1


def test_an_upcycled_model_begins_as_the_dense_one_and_is_another():
    model = llama()
    mixed = moe_variants.upcycle_model(model, 4, 2, n_shared=0)
    torch.testing.assert_close(mixed(tokens()), model(tokens()), **EXACT)
    mixed.requires_grad_(True)
    (mixed(tokens()).square().mean() + moe.penalty(mixed, 0.1)).backward()
    stacked = mixed.blocks[0].feed_forward.experts.up.weight.grad.unflatten(0, (4, -1))
    assert (stacked[0] - stacked[1]).abs().max() > 0  # their tokens differ, so they part
    assert isinstance(model.blocks[0].feed_forward, SwiGLU)
