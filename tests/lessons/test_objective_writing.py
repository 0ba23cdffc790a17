"""Lesson 13: what each objective writes, by a perfect model of a Markov chain and by small trained ones."""

import itertools
from functools import partial

import objective_markov as markov
import objective_writing as writing
import objectives
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from objective_vocabulary import numbered
from scipy.stats import chisquare
from torch import nn
from torch.nn import functional as F

from shared.generation import generate, greedy
from shared.tiny_lm import TinyLM
from shared.training import fit

T, V = 4, 3
CHAIN = markov.random_chain(V, 1.0, torch.Generator().manual_seed(0))
LIKELY = 1e-6  # of a test by chance to fail where all is right


def perfect():
    """Answers for a hidden word with its probability given the visible ones; would rather say mask than any word."""
    return markov.PerfectReader(CHAIN, numbered(V))


def counts(texts):
    """How often each of the 81 texts was written."""
    codes = texts @ torch.tensor([V**t for t in range(T)])
    return torch.bincount(codes, minlength=V**T).double()


def law(chain=CHAIN):
    """The probability of each of the 81 texts, in the same order."""
    p = torch.empty(V**T, dtype=torch.float64)
    for text in itertools.product(range(V), repeat=T):
        code = sum(word * V**t for t, word in enumerate(text))
        p[code] = chain.first[text[0]] * torch.stack([chain.step[a, b] for a, b in itertools.pairwise(text)]).prod()
    return p


def fits(texts, p):
    """The chance of texts so far from the law p."""
    return chisquare(counts(texts), p * len(texts)).pvalue


def blank(n=4000):
    """n texts of four words, all hidden."""
    return torch.zeros(n, T, dtype=torch.long), torch.ones(n, T, dtype=torch.bool)


def test_one_word_at_a_time_has_the_true_law():
    """And a second round of Gibbs leaves it; all at once has the marginals' law; by confidence it is another one."""
    how = {"vocabulary": numbered(V), "generator": torch.Generator().manual_seed(1)}
    one_by_one = writing.unmask(perfect(), *blank(), steps=T, **how)
    assert fits(one_by_one, law()) > LIKELY
    assert fits(writing.gibbs(perfect(), *blank(), rounds=2, **how), law()) > LIKELY
    at_once = writing.unmask(perfect(), *blank(), steps=1, **how)
    words = CHAIN.marginals(T)
    alone = torch.stack([words[torch.arange(T), list(text)[::-1]].prod() for text in _texts()])
    assert fits(at_once, alone) > LIKELY > fits(at_once, law())
    assert fits(writing.unmask(perfect(), *blank(), steps=T, confident_first=True, **how), law()) < LIKELY


def _texts():
    """All texts, the last word first, in the order of their codes."""
    return itertools.product(range(V), repeat=T)


def test_what_is_not_hidden_stays_and_is_seen():
    vocabulary = numbered(V)
    tokens = torch.tensor([[2, 0, 1, vocabulary.padding]]).expand(4000, -1)
    hidden = torch.tensor([[False, True, False, True]]).expand(4000, -1)
    p = markov.posteriors(CHAIN, tokens[:1, :3], ~hidden[:1, :3])[0, 1]
    for write in (partial(writing.unmask, steps=3), partial(writing.gibbs, rounds=2)):
        found = write(perfect(), tokens, hidden, vocabulary=vocabulary, generator=torch.Generator().manual_seed(2))
        assert torch.equal(found[~hidden], tokens[~hidden]) and (found[:, 3] == vocabulary.padding).all()
        assert chisquare(torch.bincount(found[:, 1], minlength=V), p * len(found)).pvalue > LIKELY
        best = write(perfect(), tokens[:2], hidden[:2], vocabulary=vocabulary, temperature=0)
        assert best[:, 1].tolist() == [int(p.argmax())] * 2


def test_confident_words_first():
    """Of two words, each drawn from its marginal, the likelier draw stays, and the other is drawn anew from it."""
    first, second = CHAIN.marginals(2)
    joint = first[:, None] * CHAIN.step  # (first word, second word)
    p = torch.zeros(V, V, dtype=torch.float64)
    for a, b in itertools.product(range(V), repeat=2):
        drawn = first[a] * second[b]
        if first[a] > second[b]:
            p[a] += drawn * CHAIN.step[a]
        else:
            p[:, b] += drawn * joint[:, b] / second[b]
    tokens, hidden = torch.zeros(4000, 2, dtype=torch.long), torch.ones(4000, 2, dtype=torch.bool)
    generator = torch.Generator().manual_seed(3)
    found = writing.unmask(perfect(), tokens, hidden, numbered(V), 2, confident_first=True, generator=generator)
    counted = torch.bincount(found @ torch.tensor([V, 1]), minlength=V * V).double()
    assert chisquare(counted, p.flatten() * 4000).pvalue > LIKELY > chisquare(counted, joint.flatten() * 4000).pvalue
    if first.max() > second.max():
        likeliest = [int(first.argmax()), int(CHAIN.step[first.argmax()].argmax())]
    else:
        likeliest = [int(joint[:, second.argmax()].argmax()), int(second.argmax())]
    how = {"confident_first": True, "temperature": 0}
    assert writing.unmask(perfect(), tokens[:1], hidden[:1], numbered(V), 2, **how).tolist() == [likeliest]


def test_temperature_divides_logits():
    generator = torch.Generator().manual_seed(4)
    tokens, hidden = torch.zeros(4000, 1, dtype=torch.long), torch.ones(4000, 1, dtype=torch.bool)
    for temperature in (0.5, 3.0):
        found = writing.unmask(perfect(), tokens, hidden, numbered(V), 1, temperature=temperature, generator=generator)
        p = CHAIN.first ** (1 / temperature)
        assert chisquare(torch.bincount(found[:, 0], minlength=V), p / p.sum() * 4000).pvalue > LIKELY


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_each_pass_writes_as_many_as_the_others(steps):
    """Seven hidden words of nine in one text, two in another."""
    seen = []

    class Counting(markov.PerfectReader):
        def forward(self, tokens):
            seen.append((tokens == self.vocabulary.mask).sum(dim=1))
            return super().forward(tokens)

    tokens = torch.zeros(2, 9, dtype=torch.long)
    hidden = torch.tensor([[True] * 7 + [False] * 2, [False] * 7 + [True] * 2])
    writing.unmask(Counting(CHAIN, numbered(V)), tokens, hidden, numbered(V), steps)
    written = -torch.stack([*seen, torch.zeros(2, dtype=torch.long)]).diff(dim=0)
    assert len(seen) == steps and (written.amax(dim=0) - written.amin(dim=0) <= 1).all()


def test_no_steps_and_nothing_to_fill_are_refused():
    with pytest.raises(ValueError, match="steps is 0"):
        writing.unmask(perfect(), *blank(2), numbered(V), 0)
    with pytest.raises(ValueError, match="nothing to fill"):
        writing.fill_spans(perfect(), [1, 2], [False, False], 5, numbered(V, 2))


@given(text=st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=12))
def test_what_was_cut_out_can_be_put_together(text):
    words, hidden = map(list, zip(*text, strict=True))
    vocabulary = numbered(10, 8)
    assert writing.put_together(*objectives.cut_out(words, hidden, vocabulary), vocabulary) == words


WORDS = numbered(20, n_sentinels=4)
TEXT = [3, 14, 15, 9, 2, 6, 5, 8, 19, 7]


class Recites(nn.Module):
    """Knows one sequence by heart, and says at each position which token follows; would rather say mask. It refuses
    to read anything else."""

    def __init__(self, batch):
        super().__init__()
        self.blocks, self.sequence, self.none = nn.ModuleList(), batch.inputs[0], nn.Parameter(torch.zeros(1))

    def forward(self, tokens):
        n = tokens.shape[1]
        assert tokens[0].tolist() == self.sequence[:n].tolist()
        logits = F.one_hot(self.sequence.roll(-1)[:n], WORDS.size).double()
        logits[:, WORDS.mask] = 5.0
        return logits[None]


def test_spans_are_written_as_they_are_learnt():
    """From where the first sentinel stands, each sentinel in its turn; cut short, the last spans are empty."""
    hidden = [False, True, True, False, False, True, False, False, False, True]
    model = Recites(objectives.span_corruption(torch.tensor([TEXT]), torch.tensor([hidden]), WORDS))
    found = partial(writing.fill_spans, model, TEXT, hidden, vocabulary=WORDS, rules=[greedy])
    assert found(most=7) == TEXT
    assert found(most=5) == TEXT[:-1]
    assert found(most=1) == [*TEXT[:2], 9, 2, *TEXT[6:9]]


@pytest.mark.parametrize("suffix_first", [False, True])
def test_the_middle_is_written_as_it_is_learnt(suffix_first):
    for start, stop in ((3, 7), (4, 4), (0, 5), (2, 10)):
        batch = objectives.fill_in_the_middle(torch.tensor([TEXT]), torch.tensor([[start, stop]]), WORDS, suffix_first)
        how = {"vocabulary": WORDS, "suffix_first": suffix_first, "rules": [greedy]}
        before, middle, after = TEXT[:start], TEXT[start:stop], TEXT[stop:]
        found = writing.fill_middle(Recites(batch), before, after, most=9, **how)
        assert found == middle
        if len(middle) > 1:
            assert writing.fill_middle(Recites(batch), before, after, most=1, **how) == middle[:1]


def test_a_prefix_is_read_as_it_was_learnt():
    """By a decoder of large random weights: its logits are those under `prefix`, which are not those under `causal`."""
    torch.manual_seed(0)
    model = TinyLM(WORDS.size, 32, 24, 2, 4)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    for prompt in (TEXT[:6], TEXT[3:]):
        seen = []
        (written,) = writing.continue_prefix(model, [prompt], 4, WORDS, rules=[partial(_noted, seen), greedy])
        whole = torch.tensor([[*prompt, *written]])
        for batch, same in (
            (objectives.prefix(whole, WORDS, torch.tensor([len(prompt)])), True),
            (objectives.causal(whole, WORDS), False),
        ):
            logits = objectives.read(model, batch)[0, len(prompt) - 1 : -1]
            assert torch.allclose(torch.stack(seen), logits, atol=1e-4, rtol=0) == same  # float32, logits of size 10


def _noted(seen, logits, said):
    """A rule that changes nothing."""
    seen.append(logits[0])
    return logits


def test_a_text_that_counts_up_is_learnt_and_written():
    """By causal in 100 steps: labels that are shifted twice, or not at all, would learn another text."""
    torch.manual_seed(0)
    model, generator = TinyLM(WORDS.size, 16, 32, 1, 2), torch.Generator().manual_seed(0)

    def batch():
        return objectives.causal((torch.randint(20, (8, 1), generator=generator) + torch.arange(8)) % 20, WORDS)

    history = fit(model, batch, 100, 2e-2, loss=objectives.training_loss, label=None)
    assert history.loss[0] > 3 > 0.1 > history.loss[-1]
    assert generate(model, [[17, 18], [4]], 5, rules=[greedy]) == [[19, 0, 1, 2, 3], [5, 6, 7, 8, 9]]
