"""Quality against variety of told stories, for temperatures and rules: python frontier_sweep.py

Writes results/frontier.json, which the notebook shows; about twelve minutes on one core. Quality is what the story
world's judge says: the share of stories without a flaw, and of sentences that agree with what was told. Variety is the
share of 4-grams that are different, over all stories of a run. --workers 2 uses two cores, --quick tries the whole path
in seconds and writes nothing.
"""

import sys
from collections.abc import Sequence
from functools import cache, partial

import sampling

from shared.story_model import WEIGHTS, load_story_lm, tell
from shared.sweeps import Sweep, main
from shared.world import BASE, HELD_OUT, judge, stories
from shared.world.words import encode

N_STORIES, N_SEEDS, LONGEST = 64, 3, 192
WORLD = "the world's own"
HEATS = (0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6)


def heated(T):
    """A chain of temperature alone."""
    return [partial(sampling.temperature, T=T)]


CHAINS = {f"T {T:g}": heated(T) for T in HEATS} | {
    "greedy": heated(0),
    "top-k 20": [partial(sampling.top_k, k=20)],
    "top-p 0.9": [partial(sampling.top_p, p=0.9)],
    "min-p 0.1": [partial(sampling.min_p, p=0.1)],
    "typical 0.9": [partial(sampling.typical, mass=0.9)],
    "min-p 0.1, then T 1.6": [partial(sampling.min_p, p=0.1), *heated(1.6)],
    "T 1.6, then min-p 0.1": [*heated(1.6), partial(sampling.min_p, p=0.1)],
    "top-p 0.9, then T 1.6": [partial(sampling.top_p, p=0.9), *heated(1.6)],
}


def blind(chain):
    """A chain of the lesson's rules as one rule of the shared loop, which would also say what was told."""
    return lambda logits, said: sampling.through(chain, logits)


def four_grams(text: str) -> list[tuple[int, ...]]:
    """All runs of four words."""
    ids = encode(text)
    return list(zip(*(ids[i:] for i in range(4)), strict=False))


def scores(told: Sequence[str]) -> dict[str, float]:
    """Shares of flawless stories, of sentences that are consistent, and grammatical; distinct 4-grams over all stories;
    repeated 4-grams within a story; words a story."""
    heard = [judge(text, BASE) for text in told]
    sentences = [sentence for judgement in heard for sentence in judgement.sentences if sentence.finished]
    runs = [four_grams(text) for text in told]
    everything = [run for story in runs for run in story]
    found = {
        "flawless": sum(judgement.flawless for judgement in heard) / len(told),
        "consistent": sum(sentence.consistent for sentence in sentences) / max(1, len(sentences)),
        "grammatical": sum(sentence.grammatical for sentence in sentences) / max(1, len(sentences)),
        "distinct": len(set(everything)) / max(1, len(everything)),
        "repeated": sum(1 - len(set(story)) / max(1, len(story)) for story in runs) / len(told),
        "words": sum(len(encode(text)) for text in told) / len(told),
    }
    return {name: round(value, 4) for name, value in found.items()}


def world_stories(n: int, seed: int) -> list[str]:
    """What the world itself tells, as `tell` gives it: stories only, since "Once" begins nothing else."""
    texts = [story.text for story in stories(4 * n, HELD_OUT + seed, BASE) if story.text.startswith("Once")]
    return texts[:n]


model = cache(load_story_lm)  # once in each process


def run(job: dict) -> dict[str, float]:
    """{chain, seed} -> `scores` of the stories that the chain tells, or of the world's own."""
    n, longest = job.get("stories", N_STORIES), job.get("longest", LONGEST)
    if job["chain"] == WORLD:
        return scores(world_stories(n, job["seed"]))
    return scores(tell(model(), "Once", n, job["seed"], longest, [blind(CHAINS[job["chain"]])]))


SWEEP = Sweep(
    __file__,
    "frontier",
    run,
    jobs=[{"chain": chain, "seed": seed} for chain in (WORLD, *CHAINS) for seed in range(N_SEEDS)],
    quick=[{"chain": chain, "seed": 0, "stories": 3, "longest": 24} for chain in (WORLD, "T 1", "greedy")],
    settings={"stories": N_STORIES, "longest": LONGEST},
    files=[WEIGHTS],
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
