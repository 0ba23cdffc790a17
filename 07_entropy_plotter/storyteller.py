"""What the dashboard shows, without the page: rules as settings, a story told by them, and each word's distributions.

    model, told = load_story_lm(), encode("Once Tom")
    told += tell(model, told, Rules(T=0.8, p=0.9), seed=3, most=50)     # ids, one by one
    place(model_logits(model, told)[-1], told, Rules(T=0.8)).after      # (V,) probabilities, after the rules

A text stands here as ids without the line's end that the model reads before it.
"""

import difflib
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import sampling
import torch

from shared.generation import Step, seeded, stream
from shared.tiny_lm import TinyLM
from shared.world import BASE, VOCABULARY, judge, offers
from shared.world.choice import Choice
from shared.world.words import END, ID, decode, split


@dataclass(frozen=True)
class Rules:
    """What stands between the model's logits and the draw. The defaults do nothing."""

    T: float = 1.0
    k: int = len(VOCABULARY)
    p: float = 1.0
    min_p: float = 0.0
    typical: float = 1.0
    repetition: float = 1.0
    presence: float = 0.0
    cut_first: bool = False

    def chain(self, seen: torch.Tensor) -> list[tuple[str, sampling.Rule]]:
        """The rules that do something, by name, in order: penalties, temperature, cuts; `cut_first` heats at the end.

        seen: (B, n) ids that were said before.
        """
        heat = [("temperature", partial(sampling.temperature, T=self.T), self.T != 1)]
        cuts = [
            ("top-k", partial(sampling.top_k, k=self.k), self.k < len(VOCABULARY)),
            ("top-p", partial(sampling.top_p, p=self.p), self.p < 1),
            ("min-p", partial(sampling.min_p, p=self.min_p), self.min_p > 0),
            ("typical", partial(sampling.typical, mass=self.typical), self.typical < 1),
        ]
        penalties = [
            (
                "repetition",
                partial(sampling.repetition_penalty, seen=seen, penalty=self.repetition),
                self.repetition > 1,
            ),
            ("presence", partial(sampling.presence_penalty, seen=seen, amount=self.presence), self.presence > 0),
        ]
        order = [*penalties, *cuts, *heat] if self.cut_first else [*penalties, *heat, *cuts]
        return [(name, rule) for name, rule, works in order if works]

    def __call__(self, logits: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """Logits (B, V) after all the rules; a word that is cut has -inf."""
        return sampling.through([rule for _, rule in self.chain(seen)], logits)

    def __str__(self):
        names = {"T": "T", "k": "top-k", "p": "top-p", "min_p": "min-p", "cut_first": "cut first"}
        changed = {name: value for name, value in asdict(self).items() if value != getattr(Rules, name)}
        words = [names.get(name, name) + ("" if value is True else f" {value:g}") for name, value in changed.items()]
        return ", ".join(words) or "no rule"


def _stream(model, beginning, rules, seeds, most) -> Iterator[Step]:
    """The words after a beginning, told once for each seed."""
    prompts = [[ID[END], *beginning]] * len(seeds)
    rule = lambda logits, said: rules(logits, said[:, 1:])  # noqa: E731 (the line's end in front was not said)
    most = min(most, room(model, beginning))
    return stream(model, prompts, most, rules=[rule], stop=[ID[END]], generators=seeded(seeds))


def tell(model: TinyLM, beginning: Sequence[int], rules: Rules, seed: int, most: int) -> Iterator[int]:
    """The words after a beginning, one by one, up to the line's end, `most` words, or the model's context."""
    for step in _stream(model, beginning, rules, [seed], most):
        yield step.tokens.item()


def tell_many(
    model: TinyLM, beginning: Sequence[int], rules: Rules, seed: int, most: int, n: int, report: Callable[[float], None]
) -> list[list[int]]:
    """n whole texts, as `tell` gives with seeds seed, seed + 1, ...; report: called with the share that is done."""
    told, steps = [list(beginning) for _ in range(n)], min(most, room(model, beginning))
    for done, step in enumerate(_stream(model, beginning, rules, range(seed, seed + n), most), 1):
        for row, word in zip(step.rows, step.tokens.tolist(), strict=True):
            told[row].append(word)
        report(max(done / steps, 1 - sum(words[-1] != ID[END] for words in told) / n))
    return told


def room(model: TinyLM, beginning: Sequence[int]) -> int:
    """How many words the model can still read after a beginning and the line's end before it."""
    return max(0, model.context - 1 - len(beginning))


@torch.no_grad()
def model_logits(model: TinyLM, told: Sequence[int]) -> torch.Tensor:
    """Logits of the word at each place of a text and, last, of the one after it: (len(told) + 1, V)."""
    return model(torch.tensor([[ID[END], *told]]))[0]


@dataclass(frozen=True)
class Place:
    """What can stand at one place. model, after: (V,) probabilities before and after the rules. cut_by: the rule that
    cut a word, by the word's id. true: the story world's own (V,), float64, None where it cannot write what stands
    before."""

    model: torch.Tensor
    after: torch.Tensor
    cut_by: dict[int, str]
    true: torch.Tensor | None

    @property
    def lost(self) -> float:
        """The model's probability of all words that were cut."""
        return sum(self.model[i].item() for i in self.cut_by)


def place(logits: torch.Tensor, before: Sequence[int], rules: Rules, offered: Choice | None = None) -> Place:
    """logits: (V,), the model's. before: the ids that stand before. offered: what the world offers there."""
    now, cut_by, seen = logits[None], {}, torch.tensor([list(before)], dtype=torch.long)
    for name, rule in rules.chain(seen):
        now = rule(now)
        gone = now[0].isneginf().nonzero()[:, 0].tolist()
        cut_by |= {i: name for i in gone if i not in cut_by}
    return Place(logits.softmax(-1), now[0].softmax(-1), cut_by, None if offered is None else true_p(offered))


def true_p(offered: Choice) -> torch.Tensor:
    """What the world offers, as probabilities (V,)."""
    p = torch.zeros(len(VOCABULARY), dtype=torch.float64)
    for word, share in offered.probabilities.items():
        p[ID[word]] = share
    return p


def entropy(p: torch.Tensor) -> float:
    """Of probabilities, in nats."""
    return torch.special.entr(p).sum().item()


def heat_curve(logits: torch.Tensor, before: Sequence[int], rules: Rules, temperatures: Sequence[float]) -> list[float]:
    """The entropy after the rules, in nats, if they had each of these temperatures."""
    return [entropy(place(logits, before, replace(rules, T=T)).after) for T in temperatures]


def true_offers(told: Sequence[int]) -> list[Choice]:
    """What the world offers at each place of a text and after it, up to the first word that it cannot write."""

    def writable(n: int) -> bool:
        try:
            offers(decode(told[:n]), BASE)
        except ValueError:
            return False
        return True

    last = bisect(range(len(told) + 1), False, key=lambda n: not writable(n)) - 1
    return offers(decode(told[:last]), BASE)


def words_of(told: Sequence[int]) -> list[str]:
    """A text in pieces, a word each, with the space before it; joined they are the text."""
    texts = [decode(told[: n + 1]) for n in range(len(told))]
    return [text[len(before) :] for before, text in zip(["", *texts], texts, strict=False)]


@dataclass(frozen=True)
class Unknown:
    """A word of a prompt that the story world does not have, and up to three that are near."""

    word: str
    near: tuple[str, ...]


def unknown_words(prompt: str, most: int = 5) -> tuple[list[Unknown], int]:
    """The prompt's unknown words, each once and `most` at most; and how many more there are."""
    strangers = list(dict.fromkeys(word for word in split(prompt) if word not in ID))
    return [Unknown(word, _near(word)) for word in strangers[:most]], len(strangers[most:])


def _near(word: str) -> tuple[str, ...]:
    if len(word) > 30:  # no word is so long, and comparing takes time by its length squared
        return ()
    by_lower = {}  # "The" and "the" are two words, and as near as each other
    for known in VOCABULARY:
        by_lower.setdefault(known.lower(), []).append(known)
    near = difflib.get_close_matches(word.lower(), by_lower, n=3, cutoff=0.5)
    return tuple(known for lower in near for known in by_lower[lower])[:3]


def clean(prompt: str) -> str:
    """In one line: whatever separates words becomes one space."""
    return " ".join(prompt.split())


@dataclass(frozen=True)
class Told:
    """A story and what it was told with: enough to tell it again. words: ids, those of the prompt first."""

    prompt: str
    rules: Rules
    seed: int
    most: int
    words: tuple[int, ...]

    @property
    def text(self) -> str:
        """As a reader sees it."""
        return decode(self.words)


def table(model: TinyLM, story: Told) -> list[dict]:
    """A row a word: its probabilities and surprisal in nats, entropies, and how many words the rules left.

    `true` is None where the story world cannot write what stands before, `after` for the prompt's words: no draw.
    """
    logits, offered = model_logits(model, story.words), true_offers(story.words)
    given, rows = len(split(story.prompt)), []
    for at, (word, piece) in enumerate(zip(story.words, words_of(story.words), strict=True)):
        here = place(logits[at], story.words[:at], story.rules, offered[at] if at < len(offered) else None)
        drawn = at >= given
        rows.append(
            {
                "at": at,
                "word": piece.strip() or "\\n",
                "drawn": drawn,
                "p_model": here.model[word].item(),
                "surprisal": -here.model[word].log().item(),
                "p_after": here.after[word].item() if drawn else None,
                "words_left": len(VOCABULARY) - len(here.cut_by),
                "entropy_model": entropy(here.model),
                "entropy_after": entropy(here.after),
                "p_true": None if here.true is None else here.true[word].item(),
                "entropy_true": None if here.true is None else entropy(here.true),
            }
        )
    return rows


def as_record(story: Told, rows: list[dict], weights_sha256: str) -> dict:
    """All of a story, for a file: what it was told with, by which model, the judge's verdict and each word's row."""
    judgement = judge(story.text, BASE)
    breaches = [breach for sentence in judgement.sentences for breach in sentence.breaches]
    return {
        "prompt": story.prompt,
        "rules": asdict(story.rules),
        "seed": story.seed,
        "most": story.most,
        "text": story.text,
        "flawless": judgement.flawless,
        "finished": judgement.finished,
        "breaches": [{"rule": b.rule, "at": b.at, "found": b.found, "expected": b.expected[:5]} for b in breaches],
        "weights_sha256": weights_sha256,
        "torch": torch.__version__,
        "words": rows,
    }
