"""The trained story model: load it, and let it tell stories.

    model = load_story_lm()                                   # a TinyLM, ready to use
    texts = tell(model, "Once", n=10, seed=0)                 # ten documents that begin so, drawn at temperature 1
    record()["excess"]                                        # nats per token above the floor, and how it was trained

`python -m shared.story_model.pretrain` makes it. Weights are safetensors: nothing is unpickled.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from shared.generation import Rule, generate, seeded
from shared.rotary import RotaryAttention, no_positions
from shared.tiny_lm import TinyLM
from shared.training import evaluate
from shared.world import BASE, HELD_OUT, held_out_rows, judge, kl
from shared.world.words import END, ID, VOCABULARY, decode, encode

AT_ONCE = 250  # documents told side by side: more are no faster, and their cache would fill the memory
WEIGHTS = Path(__file__).parent / "weights" / "story_lm.safetensors"


def new_story_lm(context: int, d_model: int, n_layers: int, n_heads: int) -> TinyLM:
    """A story model with fresh weights: `TinyLM` with rotary positions and the story world's vocabulary."""
    slots = {"attention": RotaryAttention, "positions": no_positions}
    return TinyLM(len(VOCABULARY), context, d_model, n_layers, n_heads, **slots)


def record(weights: Path = WEIGHTS) -> dict:
    """What stands beside the weights: sizes, training, loss, floor and excess in nats per token, hash, hardware.

    Raises ValueError if it is missing or no record of ours.
    """
    path = weights.with_suffix(".json")
    if not path.is_file():
        raise ValueError(f"no file at {path}: `make checkpoint` trains the model, `git checkout` brings back ours")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        found["model"], found["sha256"], found["vocabulary"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no record of a story model ({error!r})") from error
    return found


def load_story_lm(weights: Path = WEIGHTS) -> TinyLM:
    """The trained story model, in eval mode, on the CPU, in float32.

    Raises ValueError if a file is missing, if the weights are not those of the record beside them (damaged, or from
    elsewhere), or do not fit the model.
    """
    found = record(weights)
    if not weights.is_file():
        raise ValueError(f"no file at {weights}: `make checkpoint` trains the model, `git checkout` brings back ours")
    content = weights.read_bytes()
    if (sha := hashlib.sha256(content).hexdigest()) != found["sha256"]:
        raise ValueError(f"{weights} has SHA-256 {sha}, its record says {found['sha256']}: damaged, or another file")
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise ValueError(f"{weights} is not a safetensors file: {error}") from error
    theirs, ours = str(found["vocabulary"]), vocabulary_sha256()
    if theirs != ours:
        raise ValueError(f"{weights} was trained on another vocabulary ({theirs[:8]}, here {ours[:8]})")
    try:
        with torch.random.fork_rng(devices=[]):  # its fresh weights are drawn for nothing: that must not show outside
            model = new_story_lm(**found["model"])
        model.load_state_dict(tensors)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{weights} does not fit the model of its record: {error}") from error
    return model.eval()


def vocabulary_sha256() -> str:
    """The hash of the vocabulary, in order: another order would give every word another meaning."""
    return hashlib.sha256("\0".join(VOCABULARY).encode()).hexdigest()


def tell(
    model: TinyLM, prompt: str, n: int, seed: int, longest: int | None = None, rules: Sequence[Rule] = ()
) -> list[str]:
    """n documents drawn from the model, each with the prompt it begins with and up to its line's end.

    seed: below a million. Document i is drawn by a generator of its own, begun with seed + i * 1,000,000: no two seeds
    share a document, and the first of many are those of few. longest: tokens, the line's end in front among them, after
    which one is broken off; the model's context if None. rules: as in `shared.generation`; none is drawing at
    temperature 1. Raises ValueError for unknown words in the prompt, one that leaves no room, or more room than the
    model has.
    """
    longest = model.context if longest is None else longest
    ids = [ID[END], *encode(prompt)]
    if len(ids) >= longest:
        raise ValueError(f"the prompt has {len(ids)} tokens, with the line's end before it: expected under {longest}")
    if longest > model.context:
        raise ValueError(f"longest is {longest}: the model's context is {model.context}")
    seeds, told = [seed + i * 1_000_000 for i in range(n)], []
    for some in (seeds[i : i + AT_ONCE] for i in range(0, n, AT_ONCE)):
        prompts, how = [ids] * len(some), {"rules": rules, "stop": [ID[END]], "generators": seeded(some)}
        told += generate(model, prompts, longest - len(ids), **how)
    return [decode(ids[1:] + words) for words in told]


def measure(model: TinyLM, n_rows: int, n_stories: int) -> dict[str, float]:
    """Loss, floor and excess in nats per token on held-out rows, and how well stories told by the model hold together.

    excess: the mean of KL(true || model), with its standard error over rows; loss - floor is the same but for the
    noise of the words drawn. consistent, grammatical: shares of sentences; flawless: share of whole documents.
    """
    x, y, true = held_out_rows(n_rows, model.context, HELD_OUT, BASE)
    model.eval()
    device = next(model.parameters()).device
    with torch.no_grad():
        gaps = torch.cat([kl(model(part.to(device)).cpu(), part, BASE).mean(dim=1) for part in x.split(16)])
    heard = [judge(text, BASE) for text in tell(model, "Once", n_stories, seed=0)]
    sentences = [sentence for judgement in heard for sentence in judgement.sentences if sentence.finished]
    return {
        "loss": evaluate(model, x, y).nats,
        "floor": true.mean().item(),
        "excess": gaps.mean().item(),
        "excess_error": gaps.std().item() / n_rows**0.5,
        "consistent": sum(sentence.consistent for sentence in sentences) / max(1, len(sentences)),
        "grammatical": sum(sentence.grammatical for sentence in sentences) / max(1, len(sentences)),
        "flawless": sum(judgement.flawless for judgement in heard) / n_stories,
        "rows": n_rows,
        "stories": n_stories,
    }
