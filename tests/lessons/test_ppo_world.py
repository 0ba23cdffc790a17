"""Lesson 15's task and what is measured of it: the gold reward on stories written by hand, pairs, the other algorithms
against loops, Gao's curves with planted constants, and stored rows that are those of the arms."""

import math

import numpy as np
import ppo
import ppo_others as others
import ppo_rules as rules
import ppo_world as world
import pytest
import torch
from ppo_fits import gao_fit

from shared.generation import seeded
from shared.story_model import load_story_lm
from shared.world import END, HELD_OUT, encode
from shared.world.words import ID

PROMPT = "Once Ann Lake, a young pilot from Vorby, was in the barn. Luke Brook, her grandfather, was in the station. "
PROMPT += "A goose was in the bakery. A red flute was in the cellar. A pink coin was in the barn. "
PROMPT += "Ann wanted the coin in the barn."


def told(response, stop=END):
    """What the judge finds of a response to PROMPT that stops so; None: it was cut off."""
    prompt = [ID[END], *encode(PROMPT)]
    said = [*encode(response), *([] if stop is None else [ID[stop]])]
    ids = torch.tensor([[*prompt, *said, 0, 0]])
    mask = torch.tensor([[False] * len(prompt) + [True] * len(said) + [False] * 2])
    (found,) = world.tell(ppo.Rollout(ids, mask, torch.zeros(ids.shape)))
    return found


DEEDS = "She found the coin in the barn. Luke found the flute in the cellar. She gave the coin to Luke in the cellar."
ENDS = " Nobody knows what happened next."


def test_a_sound_story_has_three_quarters_for_three_deeds():
    found = told("She found the coin in the barn. Luke found the flute in the cellar. Ann gave the coin to Luke in the "
                 "cellar." + ENDS)  # fmt: skip
    assert (found.finished, found.sentences, found.consistent, found.deeds) == (True, 4, 4, 3)
    assert found.gold == pytest.approx(0.75)


def test_a_question_ends_a_story_as_the_line_does():
    assert told("She found the coin in the barn. She ran to the tower. She ran to the barn." + ENDS, "Where").finished


@pytest.mark.parametrize(
    ("response", "stop"), [("She found the coin in the barn. She ran to the tower.", END), (DEEDS + ENDS, None)]
)
def test_a_story_without_an_end_is_worth_nothing(response, stop):
    found = told(response, stop)
    assert not found.finished and found.gold == 0


def test_saying_a_deed_again_is_no_second_deed():
    again = "She found the coin in the barn. She found the coin in the barn. She found the coin in the barn." + ENDS
    found = told(again)
    assert found.deeds == 1 and found.consistent < found.sentences


def test_words_that_are_no_story_are_worth_nothing():
    for response in ("Nobody knows knows knows", "In the end the girl.", "coin coin coin."):
        assert told(response).gold == 0


def test_the_prompt_is_six_sentences_and_not_judged():
    (prompts,) = [next(world.openings(HELD_OUT + 3, 32))]
    assert len(prompts) == 32 and all(prompt.count(ID["."]) == 6 and prompt[-1] == ID["."] for prompt in prompts)
    assert told("She sat in the barn." + ENDS).sentences == 2


def test_of_a_pair_the_first_has_more_gold():
    lm = load_story_lm()
    pairs = world.preferences(lm, 6, seed=HELD_OUT)
    ids, said = world.side_by_side(pairs)
    better, worse = world.gold(ppo.Rollout(ids, said, torch.zeros(ids.shape))).chunk(2)
    assert len(pairs) == 6 and (better > worse).all()
    assert [ids[i][said[i]].tolist() for i in (0, 6)] == [pairs[0][1], pairs[0][2]]


def groups():
    """A rollout of two groups with scores, by chance."""
    generator = torch.Generator().manual_seed(0)
    B, T = 2 * others.GROUP, 6
    said = (torch.arange(T) >= 2) & (torch.arange(T) < torch.randint(3, T + 1, (B, 1), generator=generator))
    log_p, reference = -torch.rand(2, B, T, generator=generator, dtype=torch.float64)
    drawn = ppo.Rollout(torch.zeros(B, T, dtype=torch.long), said, log_p * said)
    return drawn, torch.randn(B, generator=generator, dtype=torch.float64), reference * said


def test_what_tokens_are_worth_without_a_critic():
    drawn, scores, reference = groups()
    settings, values = ppo.Settings(), torch.randn(drawn.said.shape, dtype=torch.float64)
    paid = ppo.token_rewards(scores, drawn.log_p, reference, drawn.said, 0.3)
    for credit in (others.by_return, others.by_baseline, others.by_leaving_one_out, others.by_group):
        worth, returns = credit(drawn, scores, reference, values, 0.3, settings)
        assert returns is values and not worth[~drawn.said].any()
        for b, t in drawn.said.nonzero().tolist():
            first = b // others.GROUP * others.GROUP
            group = range(first, first + others.GROUP)
            wanted = {
                others.by_return: paid[b, t:].sum(),
                others.by_baseline: paid[b, t:].sum() - sum(paid.sum(1)) / len(paid),
                others.by_leaving_one_out: paid[b].sum() - sum(paid[i].sum() for i in group if i != b) / 7,
                others.by_group: (scores[b] - scores[list(group)].mean()) / (scores[list(group)].std() + 1e-4),
            }[credit]
            assert abs(worth[b, t] - wanted) < 1e-12  # float64: sums of at most 100 numbers of size 1


def test_groups_are_responses_to_one_prompt():
    given = next(others.in_groups(world.openings(3, 16)))
    assert len(given) == 16
    assert given[:8] == [given[0]] * 8 and given[8:] == [given[8]] * 8 and given[0] != given[8]


def test_dpo_begins_at_log_two_and_its_gradient_is_the_probability_of_the_wrong_order():
    log_p = torch.tensor([-3.0, -5.0, -4.0, -2.0], dtype=torch.float64).requires_grad_()
    assert others.dpo_loss(log_p, log_p.detach(), 0.3).item() == pytest.approx(math.log(2))
    reference = torch.tensor([-2.5, -5.5, -4.5, -2.0], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(others.dpo_loss(log_p, reference, 0.3), log_p)
    margins = (log_p - reference).detach()
    wrong = torch.sigmoid(-0.3 * (margins[:2] - margins[2:]))
    assert torch.allclose(gradient, torch.cat([-wrong, wrong]) * 0.3 / 2)


@pytest.mark.parametrize(("form", "peak"), [("rl", math.exp(0.6 / 0.2 - 1)), ("best of n", 0.6 / 2 / 0.2)])
def test_gaos_curves_are_found_and_have_their_peaks(form, peak):
    d = np.linspace(0.3, 9, 30)
    gain = d * (0.6 - 0.2 * (np.log(d) if form == "rl" else d))
    fit = gao_fit(d, gain, form)
    assert (fit.alpha, fit.beta, fit.r2) == pytest.approx((0.6, 0.2, 1.0))
    assert fit.peak == pytest.approx(peak) and fit.at(d) == pytest.approx(gain)
    finer = np.linspace(0.01, 12, 4000)
    assert finer[fit.at(finer).argmax()] == pytest.approx(peak, abs=0.01)
    assert gao_fit(d, d * 0.5, form).peak > 1e6


def test_a_curve_that_only_falls_has_its_peak_at_nothing():
    d = np.linspace(0.3, 9, 30)
    assert gao_fit(d, -d * (0.1 + 0.2 * d), "best of n").peak == 0


def test_a_fit_refuses_a_distance_of_nothing():
    with pytest.raises(ValueError, match="above 0"):
        gao_fit([0.0, 1.0], [0.0, 1.0], "rl")


def test_an_arm_is_read_where_another_ended():
    row = {"method": "ppo", "reward": "600", "iterations": 48, "seed": 10}
    free = row | {"coefficient": 0, "rate": 3e-4, "kl": 9.0, "curve": {"kl": [0, 2, 8], "gold": [0.2, 0.5, 0.1]}}
    other = row | {
        "coefficient": 0.1,
        "rate": 3e-4,
        "kl": 5.0,
        "gold": 0.6,
        "curve": {"kl": [0, 4, 5], "gold": [0.2, 0.7, 0.6]},
    }
    fresh = other | {"seed": 20, "gold": 0.1}
    rows = [free, other, fresh]
    assert rules.at_divergence(rows, rules.FREE_SLOW, rules.MIDDLE) == pytest.approx([0.3])
    assert rules.end(rows, rules.MIDDLE, "gold") == [0.6] and rules.end(rows, rules.MIDDLE, "gold", [20]) == [0.1]
    assert rules.fall(rows, rules.MIDDLE) == pytest.approx([0.1])


def test_responses_are_the_same_with_generators():
    lm, prompts = load_story_lm(), next(world.openings(HELD_OUT + 9, 3))
    one, two = (ppo.rollout(lm, prompts, 8, world.STOP, seeded([4, 5, 6])) for _ in range(2))
    assert torch.equal(one.ids, two.ids)
