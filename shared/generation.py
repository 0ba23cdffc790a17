"""The one loop that draws text from a language model, word by word.

    generate(model, [prompt], most=20, rules=[greedy])          # [[id, id, ...]]: up to 20 new tokens for each prompt
    for step in stream(model, prompts, 20, stop=[end], generators=seeded(range(4))):
        step.rows, step.tokens, step.log_p                      # which rows got a token, which, and how likely it was

model: (B, T) ids to logits (B, T, V), causal. One with `takes_cache` and `new_cache`, as `TinyLM` has them, computes
each token once; any other reads the whole text again at each step. Prompts are ids and may differ in length.

A rule takes the logits (B, V) of each row's next token and what was said so far, (B, n) ids, the prompt first; NOTHING
stands where a shorter row has no token. It returns logits (B, V), -inf for what must not be drawn. Rules run one after
the other, on the CPU, in float32 or better.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import torch

Rule = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
NOTHING = -1


@dataclass(frozen=True)
class Step:
    """One token more for each row that has not ended.

    rows: which prompts they are. tokens: (rows,) ids. log_p: (rows,) in nats, of each token under the distribution it
    was drawn from, which is the model's own only where there are no rules.
    """

    rows: list[int]
    tokens: torch.Tensor
    log_p: torch.Tensor


def greedy(logits: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
    """A rule: the likeliest token alone is left, the first of those that tie."""
    best = logits.argmax(-1, keepdim=True)
    return torch.full_like(logits, -math.inf).scatter(-1, best, logits.gather(-1, best))


def seeded(seeds: Sequence[int]) -> list[torch.Generator]:
    """A generator for each row: with one of its own a row draws the same tokens whatever else is in the batch."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def generate(model, prompts: Sequence[Sequence[int]], most: int, **how) -> list[list[int]]:
    """The new tokens of each prompt: all steps of `stream`, which takes the same arguments and raises the same."""
    written = [[] for _ in prompts]
    for step in stream(model, prompts, most, **how):
        for row, token in zip(step.rows, step.tokens.tolist(), strict=True):
            written[row].append(token)
    return written


def stream(
    model: Callable[[torch.Tensor], torch.Tensor],
    prompts: Sequence[Sequence[int]],
    most: int,
    *,
    rules: Sequence[Rule] = (),
    stop: Collection[int] = (),
    generators: Sequence[torch.Generator] | None = None,
) -> Iterator[Step]:
    """Up to `most` new tokens for each prompt, a step at a time.

    stop: tokens that end a row; the row keeps them as its last and leaves the batch. generators: one a row, as `seeded`
    makes them; torch's own for all if None. Raises ValueError for a prompt that is empty or holds a negative id, for
    numbers that do not fit, for more tokens than the model's context and, at the step itself, for logits that are NaN
    and for a row that the rules left no token.
    """
    if most < 0:
        raise ValueError(f"most is {most}: expected how many new tokens, 0 or more")
    prompts = [[int(token) for token in prompt] for prompt in prompts]
    for row, prompt in enumerate(prompts):
        if not prompt or min(prompt) < 0:
            raise ValueError(f"prompt {row} is {prompt}: expected at least one token, each an id of 0 or more")
    generators = [None] * len(prompts) if generators is None else list(generators)
    if len(generators) != len(prompts):
        raise ValueError(f"{len(generators)} generators for {len(prompts)} prompts: expected one for each")
    longest, context = max(map(len, prompts), default=0), getattr(model, "context", math.inf)
    if longest + most - 1 > context:  # the last token is not read again
        room = f"at most {context - longest + 1}" if longest <= context else "a shorter prompt"
        raise ValueError(f"{longest} tokens and {most} more: the model reads {context}, so ask for {room}")
    said = torch.tensor([[NOTHING] * (longest - len(prompt)) + prompt for prompt in prompts])
    return _steps(model, said, most if prompts else 0, rules, frozenset(stop), generators)


@torch.no_grad()
def _steps(model, said, most, rules, stop, generators) -> Iterator[Step]:
    rows, cache = list(range(len(said))), None
    if most and getattr(model, "takes_cache", False):
        cache = model.new_cache(len(said), said.shape[1] + most - 1, padding=(said == NOTHING).sum(1))
    for _ in range(most):
        p = _probabilities(_next_logits(model, said, cache), said, rules, rows)
        tokens = p.argmax(-1, keepdim=True) if rules and rules[-1] is greedy else _draw(p, generators)  # (B, 1)
        yield Step(rows, tokens[:, 0], p.gather(1, tokens).log()[:, 0])
        said = torch.cat([said, tokens], dim=1)
        going = [i for i, token in enumerate(tokens[:, 0].tolist()) if token not in stop]
        if not going:
            return
        if len(going) < len(rows):
            rows, generators, said = [rows[i] for i in going], [generators[i] for i in going], said[going]
            if cache is not None:
                cache.keep(going)


def _draw(p: torch.Tensor, generators) -> torch.Tensor:
    """A token for each row, by its own generator: (B, 1)."""
    return torch.stack([torch.multinomial(row, 1, generator=its) for row, its in zip(p, generators, strict=True)])


def _next_logits(model, said: torch.Tensor, cache) -> torch.Tensor:
    """The model's logits after each row, (B, V)."""
    weight = next(model.parameters(), said) if isinstance(model, torch.nn.Module) else said
    with torch.inference_mode():
        if cache is not None:
            logits = model(said[:, cache.length :].clamp(min=0).to(weight.device), cache, last=1)[:, -1]
        else:
            padding, last = (said == NOTHING).sum(1, keepdim=True), said.shape[1] - 1
            # each row from its first token on: what stands behind its last one does not matter to a causal model
            whole = said.gather(1, (torch.arange(last + 1) + padding).clamp(max=last))
            logits = model(whole.to(weight.device))[torch.arange(len(said)), last - padding[:, 0]]
    return logits.clone()  # one that rules may write to


def _probabilities(logits: torch.Tensor, said: torch.Tensor, rules: Sequence[Rule], rows: list[int]) -> torch.Tensor:
    """What is drawn from, (B, V), after all the rules."""
    logits = logits.to("cpu", torch.promote_types(logits.dtype, torch.float32))
    if (broken := logits.isnan().any(1)).any():
        raise ValueError(f"the model's logits for prompt {rows[broken.nonzero()[0]]} hold NaN: look at its weights")
    for rule in rules:
        logits = rule(logits, said)
    p = logits.softmax(-1)
    if not (whole := p.isfinite().all(1)).all():
        which = rows[(~whole).nonzero()[0]]
        raise ValueError(f"prompt {which} has no token left to draw, or one of logit +inf: look at the rules")
    return p
