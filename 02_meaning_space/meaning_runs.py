"""One run of lesson 02's sweeps: vectors of an arm, and what they know.

    docs     vectors of Python's documentation (window 2): topics by few and by many labels, lists, hubs, rescaling
    world    vectors of the story world (window 5), of a little and of more text: kinds and relations

Trained vectors are `train_expected`'s. The documentation is one text: there a seed is another initialisation, and other
splits of the paragraphs. In the world it is another text as well.
"""

import skipgram
import torch
from meaning_tasks import MEASURES, all_of, bags, largest_hub, own_list, rescaled, squeezed, topics
from meaning_texts import LABELS, docs_text, own_lists, world_text

SPLITS = 8
DOSES = (0.25, 0.5, 1.0, 2.0)


def by_svd(counts: torch.Tensor, d: int) -> torch.Tensor:
    """The d largest singular vectors of the PPMI, each times the root of its value."""
    u, s, _ = torch.linalg.svd(skipgram.ppmi(counts))
    return (u[:, :d] * s[:d].sqrt()).float()


def vectors_of(counts: torch.Tensor, job: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """w and c of a job's arm; what has no c has w twice."""
    generator = torch.Generator().manual_seed(job["seed"])
    if job["arm"] == "trained":
        return skipgram.train_expected(counts, job["d"], steps=job["steps"], rate=job["rate"], seed=job["seed"])
    made = {
        "counts": lambda: counts.float(),
        "PPMI": lambda: skipgram.ppmi(counts).float(),
        "PPMI and SVD": lambda: by_svd(counts, job["d"]),
        "random": lambda: torch.randn(len(counts), job["d"], generator=generator),
    }
    return (made[job["arm"]](),) * 2


def topics_known(rows, job: dict) -> dict[str, float]:
    """By few and by many labels; each seed has its own splits."""
    splits = range(100 * job["seed"], 100 * job["seed"] + job.get("splits", SPLITS))
    return {f"topics by {labels}": topics(rows, labels, splits) for labels in LABELS}


def docs(job: dict) -> dict[str, float]:
    """Shares, and hubs as numbers of words."""
    if job["arm"] in ("bag", "bag, squeezed"):
        return topics_known(bags() if job["arm"] == "bag" else squeezed(job["d"]), job)
    text = docs_text()
    w, c = vectors_of(skipgram.cooccurrence(text.sentences, len(text.words), 2), job)
    lists, found = own_lists(text), {}
    for name, measure in MEASURES.items():
        similarity = measure(w, w)
        found |= {f"own list, {name}": own_list(similarity, lists), f"hub, {name}": largest_hub(similarity)}
    for dose in DOSES if job["arm"] == "trained" else ():
        other, _ = rescaled(w, c, dose, job["seed"])
        found[f"own list, rescaled {dose:g}"] = own_list(skipgram.cosine(other, other), lists)
    return found | topics_known(bags(w), job)


def world(job: dict) -> dict[str, float]:
    """Shares."""
    text = world_text(job["seed"], job["size"])
    sentences = text.sentences
    if job.get("shuffled"):
        words, generator = torch.cat(sentences), torch.Generator().manual_seed(job["seed"])
        words = words[torch.randperm(len(words), generator=generator)]
        sentences = words.split([len(sentence) for sentence in sentences])
    w, c = vectors_of(skipgram.cooccurrence(sentences, len(text.words), 5), job)
    found = dict(zip(("kinds", "capitals", "young", "many"), all_of(text, w), strict=True))
    return found | ({"capitals, w + c": all_of(text, w + c)[1]} if job["arm"] == "trained" else {})


def run(job: dict) -> dict:
    """job: text ("docs" or "world"), arm, seed; of some arms d, steps, rate; of the world its size."""
    found = {"docs": docs, "world": world}[job["text"]](job)
    hubs = {name: value for name, value in found.items() if name.startswith("hub")}
    return {"shares": {name: round(value, 5) for name, value in found.items() if name not in hubs}, "hubs": hubs}


def trained(text: str, d: int, steps: int, rate: float, seed: int, **more) -> dict:
    """A job."""
    return {"text": text, "arm": "trained", "d": d, "steps": steps, "rate": rate, "seed": seed} | more


def cost(job: dict) -> float:
    """Seconds, about."""
    return 3 + job.get("size", 0) / 2000 + job.get("steps", 0) * (0.02 + 0.0003 * job.get("d", 0))
