"""The base, and reward models by their number of pairs: each made once in a process."""

import functools

import torch
from ppo import RewardModel
from ppo_world import Pair, preferences, train_reward_model

from shared.story_model import load_story_lm
from shared.tiny_lm import TinyLM
from shared.world import HELD_OUT

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@functools.cache
def base() -> TinyLM:
    """The story model, which policies begin as and are kept near."""
    return load_story_lm().to(DEVICE)


@functools.cache
def rewarded(pairs: int, seed: int, rate: float) -> RewardModel:
    """A reward model of so many pairs."""
    model = train_reward_model(base(), preferences(base(), pairs, seed), rate, seed)
    return model.requires_grad_(False)


@functools.cache
def held_out_pairs() -> list[Pair]:
    """Pairs that no reward model was trained on."""
    return preferences(base(), 256, HELD_OUT + 5)
