"""shared/generation.py: draws from the right distribution, rows that know nothing of each other, what is refused."""

import math
import re
from functools import partial
from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from shared.generation import NOTHING, generate, greedy, seeded, stream
from shared.rotary import RotaryAttention, no_positions
from shared.tiny_lm import CausalAttention, TinyLM

V, CONTEXT = 11, 24


class Plain(CausalAttention):
    """Attention that only takes x, so that its model takes no cache."""

    def forward(self, x):
        return super().forward(x)


def make(**slots) -> TinyLM:
    """A model in float64 that has preferences: logits of a few units."""
    torch.manual_seed(0)
    model = TinyLM(V, CONTEXT, 12, 2, 3, **slots).double()
    for weight in model.parameters():
        weight.data.normal_(std=0.5)
    return model


ROTARY = make(attention=partial(RotaryAttention, n_kv_heads=1), positions=no_positions)
PLAIN = make(attention=Plain)
MODELS = pytest.mark.parametrize("model", [ROTARY, PLAIN], ids=["cached", "whole"])


def table(logits: torch.Tensor):
    """A model that looks at the last token alone: logits (V, V)."""
    return lambda tokens: F.embedding(tokens, logits)


def naive(model, prompt, most, stop, seed, rules=()):
    """One text, read from the start for each token: what the loop should give for each row. Also each draw's log p."""
    said, generator, log_p = list(prompt), torch.Generator().manual_seed(seed), []
    with torch.no_grad():
        for _ in range(most):
            logits = model(torch.tensor([said]))[:, -1]
            for rule in rules:
                logits = rule(logits, torch.tensor([said]))
            p = logits.softmax(-1)[0]
            said.append(torch.multinomial(p, 1, generator=generator).item())
            log_p.append(p[said[-1]].log().item())
            if said[-1] in stop:
                break
    return said[len(prompt) :], log_p


def no_word_twice(logits, said):
    """A rule that needs to know what was said: 3 off for every word that was."""
    seen = torch.zeros(len(logits), V + 1).scatter(1, said.where(said != NOTHING, V), 1)[:, :V]
    return logits - 3 * seen


@MODELS
@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    most=st.integers(0, 12),
    stop=st.sets(st.integers(0, V - 1), max_size=3),
    ruled=st.booleans(),
    seed=st.integers(0, 9999),
)
def test_each_row_is_as_if_alone_and_read_from_the_start(model, lengths, most, stop, ruled, seed):
    """Prompts of different length, rows that end at different steps, rules that look back: the tokens of a plain loop
    over one text, and their log-probabilities. In float64 the two ways' probabilities differ by under 1e-12, so that a
    draw falls on another token about once in 1e11."""
    draw = torch.Generator().manual_seed(seed)
    prompts = [torch.randint(V, (length,), generator=draw).tolist() for length in lengths]
    rules, seeds = [no_word_twice] * ruled, range(seed, seed + len(prompts))
    wanted = [
        naive(model, prompt, most, stop, row_seed, rules) for prompt, row_seed in zip(prompts, seeds, strict=True)
    ]
    how = {"rules": rules, "stop": stop}
    assert generate(model, prompts, most, generators=seeded(seeds), **how) == [tokens for tokens, _ in wanted]
    found = [[] for _ in prompts]
    for step in stream(model, prompts, most, generators=seeded(seeds), **how):
        for row, log_p in zip(step.rows, step.log_p.tolist(), strict=True):
            found[row].append(log_p)
    for (_, right), log_p in zip(wanted, found, strict=True):
        assert log_p == pytest.approx(right, abs=1e-10)


def test_the_models_own_distribution_is_drawn_from():
    """30,000 draws of two tokens against the products of their probabilities: chi-square with 8 degrees of freedom."""
    logits = torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.manual_seed(0)  # torch's own generator draws
    pairs = torch.tensor(generate(table(logits), [[0]] * 30_000, 2))
    p = logits.softmax(-1)
    wanted = 30_000 * (p[0][:, None] * p).flatten()
    counts = torch.bincount(3 * pairs[:, 0] + pairs[:, 1], minlength=9)
    assert ((counts - wanted).square() / wanted).sum() < 31.8  # once in ten thousand


def test_log_p_is_that_of_the_draw():
    """After a rule that leaves two tokens it is theirs of the two: greedy's is 0."""
    logits = torch.tensor([[0.1, 0.6, 0.3]]).log().expand(3, 3)
    best_two = lambda z, _: z.where(z > z.amin(-1, keepdim=True), -math.inf)  # noqa: E731
    for step in stream(table(logits), [[0]], 20, rules=[best_two], generators=seeded([3])):
        assert step.log_p.exp().item() == pytest.approx({1: 2 / 3, 2: 1 / 3}[step.tokens.item()], abs=1e-6)
    assert [step.log_p.item() for step in stream(table(logits), [[0]], 3, rules=[greedy])] == [0, 0, 0]


def test_greedy_takes_the_best_and_of_equals_the_first():
    logits = torch.tensor([[0.0, 2.0, 1.0, 2.0], [3.0, -math.inf, 1.0, 2.0]])
    left = greedy(logits, torch.zeros(2, 1, dtype=torch.long))
    assert left.isfinite().nonzero().tolist() == [[0, 1], [1, 0]]


@MODELS
def test_greedy_text_is_the_best_token_each_time_and_draws_nothing(model):
    """Against a plain loop; also after another rule. The states of all generators stay as they were."""
    rules, generators, state = [no_word_twice, greedy], seeded([0, 1]), torch.get_rng_state()
    found = generate(model, [[1, 2, 3], [4]], 12, rules=rules, generators=generators)
    for said, tokens in zip(([1, 2, 3], [4]), found, strict=True):
        for token in tokens:
            logits = model(torch.tensor([said]))[:, -1].detach()
            assert token == no_word_twice(logits, torch.tensor([said])).argmax().item()
            said.append(token)
    assert torch.equal(torch.get_rng_state(), state)
    for used, fresh in zip(generators, seeded([0, 1]), strict=True):
        assert torch.equal(used.get_state(), fresh.get_state())


def test_a_row_that_ends_leaves_the_batch():
    """Each row says the next number up to 3, its last; the model is asked for those alone that go on."""
    asked = []

    def next_number(tokens):
        asked.append(len(tokens))
        return 100.0 * F.one_hot((tokens + 1) % 5, 5)

    steps = list(stream(next_number, [[0], [2], [1]], 9, stop=[3]))
    assert [step.rows for step in steps] == [[0, 1, 2], [0, 2], [0]] and asked == [3, 2, 1]
    assert [step.tokens.tolist() for step in steps] == [[1, 3, 2], [2, 3], [3]]


def test_what_a_rule_is_told():
    """The prompts with nothing in front of the shorter one, then what was drawn; rules run in order."""
    told = []

    def look(logits, said):
        told.append(said.tolist())
        return logits + 1

    def check(logits, said):
        assert logits.min() == 1
        return greedy(logits, said)

    generate(table(torch.zeros(5, 5)), [[4, 3, 2], [1]], 2, rules=[look, check])
    assert told == [[[4, 3, 2], [NOTHING, NOTHING, 1]], [[4, 3, 2, 0], [NOTHING, NOTHING, 1, 0]]]


def test_a_cached_token_is_computed_once():
    """The prompt whole, then one token at a time, for the rows that are left, up to the last place of the context."""
    seen = []
    hook = ROTARY.embedding.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape)))
    generate(ROTARY, [[1, 2, 3], [4]], CONTEXT - 2, generators=seeded([0, 1]))
    hook.remove()
    assert seen == [(2, 3)] + [(2, 1)] * (CONTEXT - 3)


def test_a_stream_can_be_left_and_computes_only_what_is_asked():
    """And what is done between the steps has gradients as before."""
    calls = []
    model = lambda tokens: calls.append(1) or torch.zeros(*tokens.shape, V)  # noqa: E731
    for _ in islice(stream(model, [[0]], 1000), 3):
        assert torch.is_grad_enabled()
    assert len(calls) == 3


def test_half_precision_is_drawn_from_in_float32():
    """1,000 words in bfloat16: their probabilities, rounded to 8 bits, would not sum to one."""
    types = []
    generate(
        lambda tokens: torch.zeros(*tokens.shape, 1000).bfloat16(),
        [[0]],
        1,
        rules=[lambda z, _: types.append(z.dtype) or z],
    )
    assert types == [torch.float32]


def test_prompts_may_be_a_tensor_or_none_at_all():
    prompts = torch.tensor([[1, 2], [3, 4]])
    assert generate(ROTARY, prompts, 5, rules=[greedy]) == generate(ROTARY, prompts.tolist(), 5, rules=[greedy])
    assert generate(ROTARY, [], 5) == [] and generate(ROTARY, [[1], [2, 3]], 0) == [[], []]


NAN = table(torch.full((V, V), math.nan))
SOME_NAN = table(torch.zeros(V, V).index_fill(0, torch.tensor([2]), math.nan))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stream(ROTARY, [[1]], -3), "most is -3: expected how many new tokens, 0 or more"),
        (lambda: stream(ROTARY, [[1], []], 3), "prompt 1 is []: expected at least one token"),
        (lambda: stream(ROTARY, [[1, -1]], 3), "prompt 0 is [1, -1]: expected at least one token, each an id of 0"),
        (lambda: stream(ROTARY, [[1]], 3, generators=seeded([1, 2])), "2 generators for 1 prompts"),
        (lambda: stream(ROTARY, [[1] * 20, [2]], 6), "20 tokens and 6 more: the model reads 24, so ask for at most 5"),
        (lambda: stream(ROTARY, [[1] * 25], 1), "the model reads 24, so ask for a shorter prompt"),
        (lambda: generate(NAN, [[1]], 1), "the model's logits for prompt 0 hold NaN"),
        (lambda: generate(SOME_NAN, [[1], [2]], 1, rules=[greedy]), "the model's logits for prompt 1 hold NaN"),
        (
            lambda: generate(ROTARY, [[1]], 1, rules=[lambda z, _: z - math.inf, greedy]),
            "prompt 0 has no token left to draw",
        ),
        (lambda: generate(ROTARY, [[1]], 1, rules=[lambda z, _: z + math.inf]), "or one of logit +inf"),
    ],
)
def test_bad_input_is_refused_in_words(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_the_context_is_used_to_its_last_place():
    """The last token drawn is not read again, so there may be one more than the model reads."""
    for model in (ROTARY, PLAIN):
        assert len(generate(model, [[1] * 20], 5, rules=[greedy])[0]) == 5
