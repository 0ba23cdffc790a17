"""The base, and reward models by their number of pairs: each made once, and kept in the system's temporary folder for
as long as the code is the same."""

import functools
import os
import tempfile
from pathlib import Path

import torch
from ppo import RewardModel
from ppo_world import Pair, preferences, train_reward_model
from safetensors.torch import load_file, save_file

from shared.provenance import code_hash
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
    code = code_hash(Path(__file__))
    file = Path(tempfile.gettempdir()) / "ppo_rewards" / f"{pairs}_{seed}_{rate}_{code}.safetensors"
    if file.exists():
        model = RewardModel(base())
        model.load_state_dict(load_file(file, device=DEVICE))
    else:
        model = train_reward_model(base(), preferences(base(), pairs, seed), rate, seed)
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_suffix(f".{os.getpid()}.new")
        save_file(model.state_dict(), new)
        os.replace(new, file)  # whole or not at all
    return model.eval().requires_grad_(False)


@functools.cache
def held_out_pairs() -> list[Pair]:
    """Pairs that no reward model was trained on."""
    return preferences(base(), 256, HELD_OUT + 5)
