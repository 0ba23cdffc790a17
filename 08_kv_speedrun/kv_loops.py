"""Generation with and without a cache, and speculative decoding. A cache of `kv_cache`, or the house's own, fits.

    recompute(model, prompt, 20)                              # the whole text is read again for each token
    generate(model, [prompt], 20, model.new_cache(1, 100))    # each token is read once
    speculate(model, draft_of(small, its_cache), prompt, 20, cache)     # one guesses, one pass of the other verifies

All take the likeliest token; `speculate` also draws, if it is given a generator.

Sources: Leviathan et al. 2023 (arXiv 2211.17192) and Chen et al. 2023 (2302.01318) for speculation; Agrawal et al. 2023
(2308.16369) for prefill in chunks.
"""

from collections.abc import Callable, Collection, Sequence

import torch
from torch.nn import functional as F


@torch.inference_mode()
def recompute(model, prompt: Sequence[int], most: int) -> list[int]:
    """`most` new tokens without a cache: step n computes all n tokens before it once more."""
    said = list(_checked(prompt))
    for _ in range(most):
        logits = model(torch.tensor([said]), last=1)  # (1, 1, V)
        said.append(int(logits[0, -1].argmax()))
    return said[len(prompt) :]


def pad_left(prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts of different length as one tensor, (B, longest), and how many columns before each hold no token, (B,).

    pad_left([[5, 6, 7], [8]]) = [[5, 6, 7], [0, 0, 8]], [0, 2]
    """
    longest = max(len(_checked(prompt)) for prompt in prompts)
    tokens = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    return tokens, torch.tensor([longest - len(prompt) for prompt in prompts])


@torch.inference_mode()
def prefill(model, tokens: torch.Tensor, cache, chunk: int | None = None) -> torch.Tensor:
    """Read all tokens, (B, T), into the cache, `chunk` columns at a time; the last column's logits, (B, V)."""
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk is {chunk}: expected 1 or more columns, or None for all at once")
    for part in tokens.split(chunk or tokens.shape[1], dim=1):
        logits = model(part, cache, last=1)
    return logits[:, -1]


@torch.inference_mode()
def generate(
    model, prompts: Sequence[Sequence[int]], most: int, cache, *, chunk: int | None = None, stop: Collection[int] = ()
) -> list[list[int]]:
    """Up to `most` new tokens for each prompt. A token of `stop` ends its row, which leaves the batch.

    cache: an empty one for all prompts, made with the padding of `pad_left` where they differ in length. Raises
    ValueError for another one.
    """
    tokens, padding = pad_left(prompts)
    held = getattr(cache, "padding", torch.zeros(cache.batch, dtype=torch.long))  # pages are never padded
    if not torch.equal(held, padding) or cache.positions(1).max() > 0:
        raise ValueError(f"the cache has padding {held.tolist()}: expected an empty one, with {padding.tolist()}")
    return decode(model, prefill(model, tokens, cache, chunk), most, cache, stop)


@torch.inference_mode()
def decode(model, logits: torch.Tensor, most: int, cache, stop: Collection[int] = ()) -> list[list[int]]:
    """Up to `most` tokens for each row, from the logits (B, V) of its first one on."""
    said, rows = [[] for _ in logits], list(range(len(logits)))
    for step in range(most):
        tokens = logits.argmax(-1).tolist()
        for row, token in zip(rows, tokens, strict=True):
            said[row].append(token)
        going = [i for i, token in enumerate(tokens) if token not in stop]
        if not going or step == most - 1:
            break
        if len(going) < len(rows):
            cache.keep(going)
            rows, tokens = [rows[i] for i in going], [tokens[i] for i in going]
        logits = model(torch.tensor(tokens)[:, None], cache, last=1)[:, -1]
    return said


def accept(drafted: Sequence[int], guess: torch.Tensor, truth: torch.Tensor, generator=None) -> list[int]:
    """The verify step: which drafted tokens stay, and one token more. What it returns is distributed as `truth` is.

    guess: (n, V), what each drafted token was drawn from. truth: (n + 1, V), the model's own distribution at each of
    these places and at the one behind. A drafted token stays with probability min(1, truth / guess); the first that
    does not is drawn again from what truth has more than guess.
    """
    for i, token in enumerate(drafted):
        if torch.rand((), generator=generator) * guess[i, token] >= truth[i, token]:
            left = (truth[i] - guess[i]).clamp(min=0)
            return [*drafted[:i], _draw(left, generator)]
    return [*drafted, _draw(truth[-1], generator)]


Propose = Callable[[list[int], int], tuple[list[int], torch.Tensor]]  # said, n -> up to n guesses, (guesses, V)


def draft_of(model, cache, generator=None) -> Propose:
    """A draft model's guesses, token by token, from an empty cache of its own: propose(said, n) -> n tokens, and what
    each was drawn from, (n, V). It takes the likeliest token if there is no generator."""

    @torch.inference_mode()
    def propose(said: list[int], n: int) -> tuple[list[int], torch.Tensor]:
        cache.step_back(max(0, cache.length - (len(said) - 1)))  # the last token is new, whatever was guessed for it
        tokens, guess = [], []
        for _ in range(n):
            unread = [*said, *tokens][cache.length :]
            guess.append(_distribution(model(torch.tensor([unread]), cache, last=1)[0, -1], generator))
            tokens.append(_draw(guess[-1], generator))
        return tokens, torch.stack(guess)

    return propose


@torch.inference_mode()
def speculate(
    model, propose: Propose, prompt: Sequence[int], most: int, cache, *, ahead: int = 4, generator=None
) -> tuple[list[int], list[int]]:
    """`most` new tokens, and how many of the `ahead` guesses stayed in each round.

    The model reads all guesses in one pass and steps back behind the last that stays. Without a generator it takes the
    likeliest token: the text is then the model's own, whatever `propose` says, as far as a pass over several tokens
    rounds as one over a single token does. cache: an empty one of the model, with room for `ahead` tokens more than the
    text.
    """
    said, stayed = list(_checked(prompt)), []
    while len(said) < len(prompt) + most:
        tokens, guess = propose(said, ahead)
        unread = [*said, *tokens][cache.length :]
        logits = model(torch.tensor([unread]), cache, last=len(tokens) + 1)[0]  # behind each guess, and before them
        truth = _distribution(logits, generator)  # (guesses + 1, V)
        kept = accept(tokens, guess, truth, generator)
        said += kept
        stayed.append(len(kept) - 1)
        cache.step_back(cache.length - (len(said) - 1))  # the last token is not read yet
    return said[len(prompt) :][:most], stayed


def _distribution(logits: torch.Tensor, generator) -> torch.Tensor:
    """What is drawn from: the softmax; without a generator all of it on the likeliest token."""
    return F.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits) if generator is None else logits.softmax(-1)


def _draw(p: torch.Tensor, generator) -> int:
    return int(torch.multinomial(p, 1, generator=generator))


def _checked(prompt: Sequence[int]) -> Sequence[int]:
    if not len(prompt):
        raise ValueError("the prompt is empty: expected at least one token to begin with")
    return prompt
