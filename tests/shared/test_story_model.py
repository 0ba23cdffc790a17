"""The committed story model: its record is true, it stands above the floor, and the report says what was measured."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from shared.story_model import WEIGHTS, load_story_lm, record, report, tell
from shared.training import evaluate
from shared.world import BASE, HELD_OUT, floor, held_out_rows, judge, kl, next_token_distribution

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model():
    return load_story_lm()


def test_the_held_out_loss_is_what_the_record_says(model):
    """float32 sums another machine may order otherwise: 1e-4 is a thousand roundings of a loss below 1."""
    found = record()
    x, y, true = held_out_rows(found["rows"], model.context, HELD_OUT, BASE)
    assert evaluate(model, x, y).nats == pytest.approx(found["loss"], abs=1e-4)
    assert true.mean().item() == pytest.approx(found["floor"], abs=1e-9)


def test_the_model_stands_above_the_floor_by_what_the_record_says(model):
    """KL(true || model) on 48 other rows: above 0 everywhere, and within 4 joint standard errors of the record's."""
    found = record()
    x, *_ = held_out_rows(48, model.context, HELD_OUT + 1, BASE)
    with torch.no_grad():
        gaps = kl(model(x), x, BASE)
    assert gaps.min() > -1e-6  # a float32 softmax sums to 1 within a few roundings of 1e-7
    rows = gaps.mean(dim=1)
    error = math.hypot(rows.std().item() / math.sqrt(len(rows)), found["excess_error"])
    assert abs(rows.mean().item() - found["excess"]) < 4 * error
    assert rows.mean() > 0
    assert abs(found["loss"] - found["floor"] - found["excess"]) < 0.02  # the words drawn add noise, 0.005 on 256 rows


def test_its_stories_hold_together_as_the_record_says(model):
    """24 stories: the share of consistent sentences within 5 standard errors, counting stories as the unit."""
    found = record()
    shares = torch.tensor([judge(text, BASE).consistent for text in tell(model, "Once", 24, seed=7)])
    assert abs(shares.mean().item() - found["consistent"]) < 5 * max(shares.std().item(), 0.1) / math.sqrt(24)


def test_it_is_small_and_its_record_complete():
    assert WEIGHTS.stat().st_size <= 6_000_000
    wanted = "model parameters loss floor excess plan world tokens seconds hardware threads versions date sha256 curve"
    assert set(wanted.split()) <= set(record())
    assert record()["plan"]["steps"] == record()["curve"][-1]["step"]


def test_the_report_says_what_was_measured(model):
    """Floors as `floor` gives them, the record's figures, and three prefixes that the world can write."""
    table = report.floors()
    for config, _ in report.WORLDS.values():
        assert f"{floor(config).nats:.3f} ± {floor(config).error:.3f}" in table
    text = report.trained(record())
    assert f"{record()['excess']:.4f}" in text and f"{record()['consistent']:.1%}" in text
    for prefix in report.moments():
        guess = report.model_distribution(model, prefix)
        assert sum(guess.values()) == pytest.approx(1, abs=1e-4)
        assert sum(guess[word] for word in next_token_distribution(prefix, BASE)) > 0.5


def test_the_picture_shows_both_distributions(model):
    """Three panels, each with a true and a model's bar for each word."""
    figure = report.picture(model)
    assert len(figure.axes) == 3
    for ax, prefix in zip(figure.axes, report.moments(), strict=True):
        words = [label.get_text() for label in ax.get_yticklabels()]
        widths = [bar.get_width() for bar in ax.patches]
        true = next_token_distribution(prefix, BASE)
        assert widths[: len(words)] == [true.get(word, 0) for word in words]
        assert set(true) <= set(words) or len(true) > len(words)


def test_the_command_line():
    """Without an option it says which there are."""
    done = subprocess.run([sys.executable, "-m", "shared.story_model"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "--report" in done.stdout
