"""Look into a decoder while it runs, and change what passes there: hooks on every part of the one forward pass.

    seen = look(model, tokens, ["weights", "block"])    # {"weights": [(B, H, T, S), ...], "block": [(B, T, C), ...]}
    with hooked(model, {"feed_forward": change}):       # change(x, layer) -> x; None leaves it as it is
        logits = model(tokens)

What can be named, in the order in which it passes; B texts of T tokens, S tokens that may be looked at (T without a
cache), H query heads and K key and value heads d wide:

    embedding       (B, T, C)       the residual stream as the first block gets it
    norm_1          (B, T, C)       what attention is given
    q, k, v         (B, H, T, d), (B, K, S, d) twice: queries and keys with their positions in them
    mask            (T, S) or (B, 1, T, S), True where a query may look
    scores          (B, H, T, S)    before the mask; queries times keys over the root of d
    weights         (B, H, T, S)    after the softmax
    heads           (B, H, T, d)    what each head has read
    attention       (B, T, C)       what attention writes to the stream
    norm_2          (B, T, C)       what the feed-forward is given
    hidden          (B, T, wide)    what its last matrix is given
    feed_forward    (B, T, C)       what it writes to the stream
    block           (B, T, C)       the stream after a block
    norm            (B, T, C)       what the head is given
    logits          (B, T, vocabulary)

`layer` is None for the embedding, the last norm and the logits. The meanings are those in a `PreNorm` block; in others,
norm_1, attention, norm_2 and feed_forward are what the parts of that name return. Scores and weights are made, and
kept, only where a hook asks for them; all else goes through PyTorch's fused operation as ever.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import nn

Hook = Callable[[torch.Tensor, int | None], torch.Tensor | None]
IN_ATTENTION = ("q", "k", "v", "mask", "scores", "weights", "heads")
IN_MODEL = {"embedding": "positions", "norm": "norm", "logits": ""}  # name: the part of the model that returns it
IN_BLOCK = {"norm_1": "norm_1", "attention": "attention", "norm_2": "norm_2"}
IN_BLOCK |= {"hidden": "feed_forward.proj", "feed_forward": "feed_forward", "block": ""}  # `hidden` is what proj gets
NAMES = (*IN_MODEL, *IN_ATTENTION, *IN_BLOCK)


@contextmanager
def hooked(model: nn.Module, hooks: Mapping[str, Hook]) -> Iterator[None]:
    """Hand what passes through a `TinyLM` to functions, and go on with what they return. Hooks within hooks run after
    those outside.

    Raises ValueError for names that there are not, for a model without the part that a name needs, and for an attention
    without `attend`, which hooks inside it need.
    """
    if unknown := sorted(hooks.keys() - set(NAMES)):
        raise ValueError(f"{unknown[0]!r} is no part of the forward pass: expected one of {', '.join(NAMES)}")
    with ExitStack() as after:
        for name, module, layer in _modules(model, hooks):
            after.callback(_hook(module, name, hooks[name], layer).remove)
        if hooks.keys() & set(IN_ATTENTION):
            for layer, block in enumerate(model.blocks):
                after.callback(_hook_attention(block.attention, dict(hooks), layer))
        yield


@torch.no_grad()
def look(model: nn.Module, tokens: torch.Tensor, names: Collection[str], **how) -> dict[str, list[torch.Tensor]]:
    """What passes in one forward pass, by name: a list with an entry for each layer, of one entry for what is there
    once. how: what `TinyLM.forward` takes besides. Raises what `hooked` raises."""
    seen = {name: [] for name in names}
    stored = ("k", "v") if how.get("cache") is not None else ()  # there they are the cache's own, which goes on
    hooks = {name: partial(_keep, kept, name in stored) for name, kept in seen.items()}
    with hooked(model, hooks):
        model(tokens, **how)
    return seen


def _keep(kept: list[torch.Tensor], copied: bool, x: torch.Tensor, layer: int | None) -> None:
    kept.append(x.clone() if copied else x)


def _modules(model: nn.Module, names: Collection[str]) -> Iterator[tuple[str, nn.Module, int | None]]:
    """The modules at which hooks of these names hang, but for those inside attention."""
    for name in names:
        if name in IN_MODEL:
            yield name, _part(model, IN_MODEL[name]), None
        for layer, block in enumerate(model.blocks if name in IN_BLOCK else ()):
            yield name, _part(block, IN_BLOCK[name]), layer


def _part(module: nn.Module, path: str) -> nn.Module:
    try:
        return module.get_submodule(path)
    except AttributeError as error:
        raise ValueError(f"{type(module).__name__} has no `{path}`: expected parts as in `shared.layers`") from error


def _hook(module: nn.Module, name: str, hook: Hook, layer: int | None):
    if name == "hidden":
        return module.register_forward_pre_hook(lambda _, given: hook(given[0], layer))
    return module.register_forward_hook(lambda _, given, x: hook(x, layer))


def _hook_attention(attention: nn.Module, hooks: dict[str, Hook], layer: int) -> Callable[[], None]:
    """Put hooks into an attention layer, behind those that are there; returns what takes them out."""
    if not hasattr(attention, "attend"):
        raise ValueError(f"{type(attention).__name__} has no `attend`: expected `shared.layers.CausalAttention`")
    attend = vars(attention).get("attend") or partial(_attend, attention, layer, [])
    attention.attend, all_hooks = attend, attend.args[-1]
    all_hooks.append(hooks)

    def take_out():
        del all_hooks[next(i for i, each in enumerate(all_hooks) if each is hooks)]  # not one that is only equal
        if not all_hooks:
            del attention.attend

    return take_out


def _attend(attention, layer, all_hooks, q, k, v, mask):
    """`attend` with hooks: scores and weights are written out only if one of them has a hook."""

    def passing(name, x):
        for hook in (hooks[name] for hooks in all_hooks if name in hooks):
            changed = hook(x, layer)
            x = x if changed is None else changed
        return x

    wanted = set().union(*all_hooks)
    q, k, v = (passing(name, x) for name, x in zip("qkv", (q, k, v), strict=True))
    if mask is None and wanted & {"mask", "scores", "weights"}:
        T, S = q.shape[-2], k.shape[-2]
        mask = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
    if "mask" in wanted:
        mask = passing("mask", mask)
    if not wanted & {"scores", "weights"}:
        return passing("heads", type(attention).attend(attention, q, k, v, mask))
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))  # (B, H, S, d)
    scores = passing("scores", q @ k.mT / math.sqrt(q.shape[-1]))
    weights = passing("weights", scores.masked_fill(~mask, -math.inf).softmax(dim=-1))
    return passing("heads", weights @ v)
