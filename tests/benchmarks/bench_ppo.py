"""Lesson 15's iteration of PPO: its seconds, their split and growth, and `transformers` and `trl` beside it.

    .venv/bin/python tests/benchmarks/bench_ppo.py

Policy, reference and the reward model's trunk are the story model; the prompts are the story world's. No token ends a
response, so that all are as long as asked. An iteration is `ppo_training.train`'s, and each of its parts is called
again by itself: do they add up to the whole? Controls: rollouts by a model that takes no cache; the generation and the
update of `transformers`' GPT-2 of the same size, with random weights; and GRPO, the rewards a program's, beside that of
`trl`, where it is installed (`pip install trl==1.16.0 datasets`, no requirement of ours; it has no PPO any more).
Exits with status 1 if a goal is not met.
"""

import copy
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path

import torch
import trl_grpo
from measure import Goal, cpu_seconds, median_ratio, one_thread, print_table, report
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from shared.generation import seeded
from shared.story_model import load_story_lm
from shared.tiny_lm import TinyLM
from shared.world.words import END, ID

sys.path.insert(0, str(Path(__file__).parents[2] / "15_ppo_loop"))
from ppo import (
    ActorCritic,
    Batch,
    RewardModel,
    Rollout,
    Settings,
    by_gae,
    clipped_loss,
    exact_kl,
    improve,
    rollout,
    token_log_p,
)
from ppo_others import GROUP, by_group, in_groups
from ppo_training import train
from ppo_world import openings

BATCHES, LENGTHS, ROUNDS = (16, 64), (24, 72), 3
RATE, COEFFICIENT = 1e-5, 0.1
SPLIT = {  # the parts of an iteration, as the three
    "rollout": ("rollout",),
    "scoring": ("reward model", "reference", "policy", "exact KL", "advantages"),
    "update": ("update",),
}


@dataclass(frozen=True)
class Row:
    """An iteration of one size: CPU seconds in each round, of the whole and of each part."""

    batch: int
    length: int
    tokens: int
    seconds: dict[str, list[float]]

    def parts(self) -> list[float]:
        """In each round the sum of the parts."""
        names = [name for names in SPLIT.values() for name in names]
        return [sum(each) for each in zip(*(self.seconds[name] for name in names), strict=True)]

    def share(self, names: Sequence[str]) -> float:
        """What part of the sum these parts take, the median over rounds."""
        some = [sum(each) for each in zip(*(self.seconds[name] for name in names), strict=True)]
        return median_ratio(some, self.parts())


def settings(length: int, **more: float) -> Settings:
    """One iteration of responses that nothing ends early."""
    return Settings(rate=RATE, iterations=1, most=length, stop=(), **more)


def reward_model(lm: TinyLM) -> RewardModel:
    """One with a random head: scores cost the same whatever they are."""
    model = RewardModel(lm)
    nn.init.normal_(model.trunk.head.weight, std=0.02)
    return model.eval()


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of `ppo_training.train`."""
    return torch.optim.AdamW(model.parameters(), RATE, betas=(0.9, 0.95), weight_decay=0.0)


def iteration(lm: TinyLM, batch: int, length: int) -> tuple[dict[str, Callable[[], object]], int]:
    """An iteration and its parts, as calls, and how many tokens it reads, padding included."""
    policy, judge, how = ActorCritic(copy.deepcopy(lm)), reward_model(lm), settings(length, coefficient=COEFFICIENT)
    prompts = next(openings(0, batch))
    score = lambda drawn: judge(drawn.ids, drawn.said)  # noqa: E731
    drawn = rollout(policy.lm, prompts, length, ())
    with torch.no_grad():
        scores, (logits, values), reference_logits = score(drawn), policy(drawn.ids), lm(drawn.ids)

    def advantages() -> Batch:
        reference_log_p = token_log_p(reference_logits, drawn.ids) * drawn.said
        return Batch(*drawn, reference_log_p, values, *by_gae(drawn, scores, reference_log_p, values, COEFFICIENT, how))

    parts = {
        "rollout": lambda: rollout(policy.lm, prompts, length, ()),
        "reward model": torch.no_grad()(lambda: score(drawn)),
        "reference": torch.no_grad()(lambda: lm(drawn.ids)),
        "policy": torch.no_grad()(lambda: policy(drawn.ids)),
        "exact KL": lambda: (exact_kl(logits, reference_logits) * drawn.said).sum(1).mean().item(),
        "advantages": advantages,
        "update": partial(improve, policy, adamw(policy), advantages(), how),
    }
    whole = lambda: train(policy, lm, score, repeat(prompts), how, label=None)  # noqa: E731
    return {"whole": whole} | parts, drawn.ids.numel()


def measure(batches: Sequence[int] = BATCHES, lengths: Sequence[int] = LENGTHS, rounds: int = ROUNDS) -> list[Row]:
    """An iteration and its parts at all sizes, in turn."""
    found = []
    for batch in batches:
        for length in lengths:
            calls, tokens = iteration(load_story_lm(), batch, length)
            found.append(Row(batch, length, tokens, cpu_seconds(calls, rounds)))
    return found


class WithoutCache(nn.Module):
    """A model that takes tokens only, so that `shared.generation` reads the whole text again for each token."""

    def __init__(self, lm: TinyLM):
        super().__init__()
        self.lm, self.embedding = lm, lm.embedding

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.lm(tokens)


def measure_cache(batch: int, length: int, rounds: int = ROUNDS) -> tuple[dict[str, list[float]], int]:
    """Rollouts with the cache and without it, each row by a generator of its own, and how many responses differ."""
    lm, prompts, drawn = load_story_lm(), next(openings(0, batch)), {}

    def draw(name: str, model: nn.Module) -> None:
        drawn[name] = rollout(model, prompts, length, (), seeded(range(batch)))

    models = {"cache": lm, "no cache": WithoutCache(lm)}
    seconds = cpu_seconds({name: partial(draw, name, model) for name, model in models.items()}, rounds)
    return seconds, int((drawn["cache"].ids != drawn["no cache"].ids).any(1).sum())


def gpt2_config(lm: TinyLM) -> GPT2Config:
    """GPT-2 of a story model's size; its positions are learnt, ours are rotary. Without dropout."""
    sizes = {"n_embd": lm.embedding.embedding_dim, "n_layer": len(lm.blocks), "n_head": lm.blocks[0].attention.n_heads}
    sizes |= {"vocab_size": lm.vocab_size, "n_positions": lm.context}
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2Config(**sizes, **dropout, bos_token_id=None, eos_token_id=ID[END])


def padded(prompts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts with padding before, as `generate` wants them: ids and mask, (B, T)."""
    T = max(map(len, prompts))
    ids = [[ID[END]] * (T - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (T - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids), torch.tensor(mask)


def updates(model: GPT2LMHeadModel, optimizer: torch.optim.Optimizer, batch: Batch, how: Settings) -> None:
    """The policy's half of `ppo.improve` on transformers' model."""
    for _ in range(how.epochs):
        for rows in torch.randperm(len(batch.ids)).chunk(how.minibatches):
            part = Batch(*(each[rows] for each in batch))
            log_p = token_log_p(model(part.ids, use_cache=False).logits, part.ids) * part.said
            optimizer.zero_grad(set_to_none=True)
            clipped_loss(log_p, part.log_p, part.advantages, part.said, how.clip).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()


def measure_peer(batch: int, length: int, rounds: int = ROUNDS) -> dict[str, dict[str, list[float]]]:
    """Generation and update, ours and with transformers' GPT-2: as many responses and tokens, the same losses."""
    lm, how, prompts = load_story_lm(), settings(length), next(openings(0, batch))
    calls, _ = iteration(lm, batch, length)
    peer = GPT2LMHeadModel(gpt2_config(lm)).eval()
    ids, mask = padded(prompts)
    exact = {"max_new_tokens": length, "min_new_tokens": length, "do_sample": True, "top_k": 0}
    sample = partial(peer.generate, ids, attention_mask=mask, pad_token_id=ID[END], **exact)
    drawn, learner = rollout(lm, prompts, length, ()), GPT2LMHeadModel(gpt2_config(lm)).train()
    zeros = torch.zeros_like(drawn.log_p)
    taught = Batch(*drawn, zeros, zeros, torch.randn_like(zeros), zeros)
    with torch.no_grad():
        taught = taught._replace(log_p=token_log_p(learner(drawn.ids).logits, drawn.ids) * drawn.said)
    learn = partial(updates, learner, adamw(learner), taught, how)
    return {
        "generation": cpu_seconds({"ours": calls["rollout"], "transformers": sample}, rounds),
        "update": cpu_seconds({"ours": calls["update"], "transformers": learn}, rounds),
    }


def worth(ids: list[int]) -> float:
    """A reward by a program: the share of even ids."""
    return sum(token % 2 == 0 for token in ids) / len(ids)


def worths(drawn: Rollout) -> torch.Tensor:
    """The same of each response, (B,)."""
    return torch.tensor([worth(ids[said].tolist()) for ids, said in zip(drawn.ids, drawn.said, strict=True)])


def measure_grpo(batch: int, length: int, rounds: int = ROUNDS) -> dict[str, list[float]]:
    """A whole iteration of GRPO, ours and, where it is installed, trl's: groups of 8, a reference, four updates."""
    lm, how = load_story_lm(), settings(length, in_loss=0.04)
    policy, prompts = ActorCritic(copy.deepcopy(lm)), next(openings(0, batch))

    def ours() -> float:
        start = time.process_time()
        train(policy, lm, worths, in_groups(repeat(prompts)), how, by_group, label=None)
        return time.process_time() - start

    ways = {"ours": ours}
    if trl_grpo.is_installed():
        ways["trl"] = trl_grpo.grpo_iteration(gpt2_config(lm), prompts[: batch // GROUP], length, worth, GROUP)
    with one_thread():
        turns = [{name: way() for name, way in ways.items()} for _ in range(rounds + 1)]
    return {name: [turn[name] for turn in turns[1:]] for name in ways}  # the first warms up


def goals(rows: Sequence[Row], cache, peers: dict[str, dict[str, list[float]]]) -> list[Goal]:
    """The parts are the whole, within a tenth; seconds grow no faster than the batch; no peer is faster."""
    sums = [median_ratio(row.parts(), row.seconds["whole"]) for row in rows]
    found = [
        Goal("the parts' sum over the whole, the largest", max(sums), 1.1),
        Goal("the parts' sum over the whole, the least", min(sums), 0.9, at_least=True),
    ]
    few, many = min(row.batch for row in rows), max(row.batch for row in rows)
    for length in dict.fromkeys(row.length for row in rows):
        small, large = (next(row for row in rows if (row.batch, row.length) == (n, length)) for n in (few, many))
        grown = median_ratio(large.seconds["whole"], small.seconds["whole"])
        words = f"an iteration, responses of {length}: seconds for a batch of {many} over those for {few}"
        found.append(Goal(words, grown, 1.1 * many / few))
    seconds, differing = cache
    faster = median_ratio(seconds["no cache"], seconds["cache"])
    found.append(Goal("rollout: times as fast with the cache", faster, 4, at_least=True))
    found.append(Goal("responses that differ without the cache", differing, 1))
    for part, each in peers.items():
        for way in each.keys() - {"ours"}:
            faster = median_ratio(each[way], each["ours"])
            found.append(Goal(f"{part}: times as fast as {way}", faster, 1, at_least=True))
    return found


def show(rows: Sequence[Row], cache, peers: dict[str, dict[str, list[float]]]) -> None:
    """Tables: iterations and their split, the finer parts, and the others beside ours."""
    middle = statistics.median
    print("An iteration of PPO: CPU seconds, and the share of each part")
    cells = [
        [str(row.batch), str(row.length), f"{middle(row.seconds['whole']):.2f}"]
        + [f"{row.tokens / middle(row.seconds['whole']):,.0f}"]
        + [f"{row.share(names):.0%}" for names in SPLIT.values()]
        + [f"{median_ratio(row.parts(), row.seconds['whole']):.2f}"]
        for row in rows
    ]
    print_table(["batch", "length", "s", "tokens/s", *SPLIT, "parts / whole"], cells)
    print("\nScoring, as shares of the iteration")
    names = SPLIT["scoring"]
    cells = [[str(row.batch), str(row.length), *(f"{row.share([name]):.1%}" for name in names)] for row in rows]
    print_table(["batch", "length", *names], cells)
    print("\nBeside others: CPU seconds, and how many times as fast ours is")
    beside = {"rollout": cache[0]} | peers
    cells = [
        [part, way, f"{middle(each[way]):.2f}", f"{median_ratio(each[way], next(iter(each.values()))):.2f}"]
        for part, each in beside.items()
        for way in each
    ]
    print_table(["part", "way", "s", "ours as fast"], cells)
    if not trl_grpo.is_installed():
        print("trl is not installed: no GRPO beside ours")


def measure_all(batches=BATCHES, lengths=LENGTHS, rounds: int = ROUNDS) -> tuple:
    """The rows; the cache at the smallest size, since without it all is read again; the peers at the largest."""
    many, length = max(batches), max(lengths)
    rows, cache = measure(batches, lengths, rounds), measure_cache(min(batches), min(lengths), rounds)
    peers = measure_peer(many, length, rounds) | {"GRPO, an iteration": measure_grpo(many, length, rounds)}
    return rows, cache, peers


def main() -> int:
    """Measure and print everything; returns the exit status."""
    found = measure_all()
    show(*found)
    print()
    return report(goals(*found))


if __name__ == "__main__":
    sys.exit(main())
