"""Lesson 16's published models: counted by hand, and the arithmetic of forecasts."""

import math

import numpy as np
import published_sizes as published
import pytest
from published_sizes import BESIROGLU, HOFFMANN, LADDERS, SCORES, SMOLLM2, STAGES, Ladder, Score, ahead, floor_of, said
from scaling_trial import FLOORED, LINE, POWER


def test_sizes_are_as_published():
    """SmolLM2-135M's file has 134,515,008 numbers; the others by hand, without the norms 361.8 and 1,711.3 million."""
    assert SMOLLM2["135M"].parameters == 134_515_008
    by_hand = {"360M": 49152 * 960 + 32 * (2 * 960**2 + 2 * 960 * 320 + 3 * 960 * 2560)}
    by_hand["1.7B"] = 49152 * 2048 + 24 * (4 * 2048**2 + 3 * 2048 * 8192)
    norms = {"360M": 65 * 960, "1.7B": 49 * 2048}
    for name, n in by_hand.items():
        assert SMOLLM2[name].parameters == n + norms[name]
    assert SMOLLM2["1.7B"].flops == pytest.approx(1.13e23, rel=0.01)


def test_scores_lie_between_guessing_and_all():
    for score in SCORES.values():
        assert score.chance < min(score.of_sizes) and max(score.of_sizes) < 100
        assert list(score.of_sizes) == sorted(score.of_sizes)
    assert all(len(each) == 4 for each in STAGES.values())


def test_forecasts_of_scores_by_hand():
    """Scores that lie on a line, or on a logit, are told exactly."""
    log_c = np.log(published.flops_of_sizes())
    on_a_line = Score(25, tuple(40 + 3 * (log_c - log_c[0])))
    assert published.told(on_a_line)[0] == pytest.approx(on_a_line.of_sizes[2])
    on_a_logit = Score(20, tuple(20 + 80 / (1 + np.exp(-0.4 * (log_c - log_c[1])))))
    assert published.told(on_a_logit)[1] == pytest.approx(on_a_logit.of_sizes[2])
    assert math.log(published.full_marks(on_a_line)) == pytest.approx(log_c[0] + 60 / 3)


def test_what_a_law_says():
    for law, best in ((HOFFMANN, 40.3e9), (BESIROGLU, 72.2e9)):  # the sizes at 5.76e23, computed by others
        model = SMOLLM2["360M"]
        found = said(law, model)
        assert found.loss == pytest.approx(found.floor + found.size + found.data)
        (a, b), (alpha, beta) = law.scales, law.exponents
        n = np.exp(np.linspace(15, 30, 3001))
        d = model.flops / 6 / n
        lowest = (law.floor + a / n**alpha + b / d**beta).argmin()
        assert found.overtrained == pytest.approx(model.tokens / model.parameters / (d / n)[lowest], rel=0.02)
        assert published.scaling.optimum(law, 5.76e23)[0] == pytest.approx(best, rel=0.01)


def test_ladders_rise_and_fall():
    for ladder in LADDERS.values():
        assert len(ladder.flops) == len(ladder.loss) >= 5
        assert list(ladder.flops) == sorted(ladder.flops) and list(ladder.loss) == sorted(ladder.loss, reverse=True)


def test_forecasts_of_losses_by_hand():
    x = 10.0 ** np.arange(18, 24)
    straight = Ladder(tuple(x), tuple(9 - 0.12 * np.log(x)))
    power = Ladder(tuple(x), tuple(20 * x**-0.05))
    floored = Ladder(tuple(x), tuple(1.5 + 1000 * x**-0.16))
    for ladder, name in ((straight, LINE), (power, POWER), (floored, FLOORED)):
        assert np.abs(ahead(ladder, 2)[name]).max() < 2e-3
    assert (ahead(floored, 2)[LINE] < -0.1).all() and floor_of(floored, 1) == pytest.approx(1.5, abs=0.02)
    for beyond in (0, 3):
        with pytest.raises(ValueError, match="of 6 to predict"):
            ahead(power, beyond)
