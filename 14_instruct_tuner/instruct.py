"""Instruction tuning: a chat template, the loss on answers alone, packing, LoRA, preferences.

    conversation = render([("user", question), ("assistant", answer)], template)
    batch = pack([conversation, ...], length=192, template=template)
    loss = answer_loss(read(model, batch), batch.targets)       # `model` is any decoder of `shared.tiny_lm`
    add_lora(model, rank=8, alpha=16)                           # now only A and B of each adapter learn

A message is a pair (role, ids): who says it, and the tokens of what is said. Shapes, everywhere in this file:

    inputs      (B, T)      what the model reads
    targets     (B, T)      the token that should follow position t; IGNORE where the loss asks nothing
    documents   (B, T)      which conversation of its row a token belongs to: 0, 1, ...; NONE for padding
    logits      (B, T, V)

Sources: Ouyang et al. 2022 (InstructGPT, arXiv 2203.02155); Hu et al. 2021 (LoRA, 2106.09685); Krell et al. 2021
(packing, 2107.02027); Rafailov et al. 2023 (DPO, 2305.18290).
"""

import math
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from shared.hooks import hooked

IGNORE = -100  # PyTorch's own sign for "no target here"
NONE = -1  # of no conversation: padding
MATRICES = ("qkv", "proj", "up", "gate_up")  # what the linear layers of `shared.layers` are called

Message = tuple[str, list[int]]


class Template(NamedTuple):
    """How a conversation is written. begin: tokens before all of it. opens, closes: tokens before and behind what each
    role says. stop: the token of closes["assistant"] by which the assistant ends its turn. padding: fills up rows.
    """

    begin: list[int]
    opens: dict[str, list[int]]
    closes: dict[str, list[int]]
    stop: int
    padding: int

    @property
    def controls(self) -> set[int]:
        """The tokens that a message may not hold: they say where it begins and ends."""
        firsts = {ids[0] for ids in (*self.opens.values(), *self.closes.values()) if ids}
        return {*firsts, self.stop, *self.begin}


class Conversation(NamedTuple):
    """ids: its tokens. answer: for each, whether the assistant has to write it: what it says, and its stop."""

    ids: list[int]
    answer: list[bool]


class Batch(NamedTuple):
    """What `pack` and `pad` return; the shapes are those of the module's docstring. positions: of a token within its
    conversation, (B, T)."""

    inputs: torch.Tensor
    targets: torch.Tensor
    documents: torch.Tensor
    positions: torch.Tensor


def render(messages: Sequence[Message], template: Template, reply: bool = False) -> Conversation:
    """A conversation in a template's form. reply: open the assistant's turn at the end, for it to write.

    With begin [0], opens {"user": [1], "assistant": [2]}, closes {"user": [], "assistant": [0]}:
    render([("user", [7, 8]), ("assistant", [9])]): ids [0, 1, 7, 8, 2, 9, 0], answer [F, F, F, F, F, T, T]
    Raises ValueError for a role that the template does not have and for a message that holds one of its controls.
    """
    _check_template(template)
    ids, answer = list(template.begin), [False] * len(template.begin)
    for role, said in messages:
        _check_message(role, said, template)
        opens, closes = template.opens[role], template.closes[role]
        speaks = role == "assistant"
        ids += [*opens, *said, *closes]
        answer += [False] * len(opens) + [speaks] * len(said)
        ends = closes.index(template.stop) + 1 if speaks else 0  # what stands behind the stop is not the assistant's
        answer += [True] * ends + [False] * (len(closes) - ends)
    if reply:
        ids += template.opens["assistant"]
        answer += [False] * len(template.opens["assistant"])
    return Conversation(ids, answer)


def _check_template(template: Template) -> None:
    for role, opens in template.opens.items():
        if not opens:
            raise ValueError(f"nothing opens what {role} says: expected at least one token, or no turn could be told")
    if template.stop not in template.closes["assistant"]:
        raise ValueError(f"the stop is {template.stop}: expected one of closes['assistant'], which ends every answer")


def _check_message(role: str, said: Sequence[int], template: Template) -> None:
    if role not in template.opens:
        raise ValueError(f"{role!r} is no role of this template: expected one of {sorted(template.opens)}")
    if found := [token for token in said if token in template.controls]:
        raise ValueError(
            f"what {role} says holds token {found[0]}, which the template uses to say where a message begins or ends: "
            "take it out, or anyone who types it could speak for another"
        )


def parse(ids: Sequence[int], template: Template) -> list[Message]:
    """The messages of a rendered conversation: `render` backwards. A turn that is opened at the end and not closed, or
    whose close is cut off, has the tokens that are there. Raises ValueError where the ids are no conversation of this
    template.
    """
    _check_template(template)
    at, messages = len(template.begin), []
    if list(ids[:at]) != template.begin:
        raise ValueError(f"the ids begin with {list(ids[:at])}: expected {template.begin}")
    while at < len(ids):
        role = next((role for role, opens in template.opens.items() if list(ids[at : at + len(opens)]) == opens), None)
        if role is None:
            raise ValueError(f"position {at} holds token {ids[at]}: expected the opening of a turn")
        at += len(template.opens[role])
        end = next((i for i in range(at, len(ids)) if ids[i] in template.controls), len(ids))
        messages.append((role, list(ids[at:end])))
        closes = template.closes[role]
        if end < len(ids) and list(ids[end : end + len(closes)]) != closes[: len(ids) - end]:
            raise ValueError(f"position {end} holds token {ids[end]}: expected the end of what {role} says, {closes}")
        at = end + len(closes) if end < len(ids) else end
    return messages


def inputs_and_targets(conversation: Conversation) -> tuple[list[int], list[int]]:
    """What is read, and what should follow each token of it: IGNORE where the token that follows is not the
    assistant's. Both are one shorter than the conversation.

    ids [0, 1, 7, 8, 2, 9, 0] with the last two the answer: [0, 1, 7, 8, 2, 9] and [IGNORE] * 4 + [9, 0]
    """
    ids, answer = conversation
    targets = [token if its else IGNORE for token, its in zip(ids[1:], answer[1:], strict=True)]
    return ids[:-1], targets


def all_tokens(conversation: Conversation) -> Conversation:
    """The same with the loss on every token, as in pretraining: what masking is compared with."""
    return Conversation(conversation.ids, [True] * len(conversation.ids))


def pack(conversations: Sequence[Conversation], length: int, template: Template) -> Batch:
    """Conversations side by side in rows of `length` tokens: each goes into the first row that has room for it.

    Lengths 3, 4, 2 as inputs, in rows of 5: the first and the last share a row. Raises ValueError for a conversation
    that is longer than a row.
    """
    rows: list[list[tuple[list[int], list[int]]]] = []
    for i, conversation in enumerate(conversations):
        both = inputs_and_targets(conversation)
        if len(both[0]) > length:
            raise ValueError(f"conversation {i} has {len(both[0])} inputs: a row has room for {length}")
        fits = (row for row in rows if sum(len(inputs) for inputs, _ in row) + len(both[0]) <= length)
        row = next(fits, None)
        if row is None:
            rows.append(row := [])
        row.append(both)
    return _as_batch(rows, length, template)


def pad(conversations: Sequence[Conversation], template: Template) -> Batch:
    """Each conversation in a row of its own, as long as the longest."""
    rows = [[inputs_and_targets(conversation)] for conversation in conversations]
    return _as_batch(rows, max((len(row[0][0]) for row in rows), default=0), template)


def _as_batch(rows, length: int, template: Template) -> Batch:
    if not rows:
        raise ValueError("there are no conversations: expected at least one")
    inputs, targets, documents, positions = [], [], [], []
    for row in rows:
        free = length - sum(len(ids) for ids, _ in row)
        inputs.append([token for ids, _ in row for token in ids] + [template.padding] * free)
        targets.append([token for _, wanted in row for token in wanted] + [IGNORE] * free)
        documents.append([i for i, (ids, _) in enumerate(row) for _ in ids] + [NONE] * free)
        positions.append([i for ids, _ in row for i in range(len(ids))] + [0] * free)
    return Batch(*map(torch.tensor, (inputs, targets, documents, positions)))


def packing_mask(documents: torch.Tensor) -> torch.Tensor:
    """Who sees whom in packed rows, (B, T, T): a token sees itself and what stands before it in its own conversation.
    Padding sees itself alone: a softmax over nothing would be NaN.

    packing_mask([[0, 0, 1, -1]]) = [[[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]]
    """
    T = documents.shape[1]
    same = documents[:, :, None] == documents[:, None, :]  # (B, T, T)
    real = documents[:, :, None] != NONE
    before = torch.ones(T, T, dtype=torch.bool, device=documents.device).tril()
    return same & real & before | torch.eye(T, dtype=torch.bool, device=documents.device)


def read(model: nn.Module, batch: Batch) -> torch.Tensor:
    """The model's logits, (B, T, V), as if each conversation stood in a row of its own."""
    if (batch.documents <= 0).all():  # one in a row: to a causal model the padding behind it does not matter
        return model(batch.inputs)
    seen = packing_mask(batch.documents)[:, None]  # (B, 1, T, T): the same for all heads
    with hooked(model, {"mask": lambda mask, layer: seen}):
        return model(batch.inputs, positions=batch.positions)


def answer_loss(logits: torch.Tensor, targets: torch.Tensor, of: int | None = None) -> torch.Tensor:
    """The sum of the cross entropies of all targets, divided by their number, in nats; at least in float32.

    of: divide by this number instead: of all targets of a step whose batch is read in parts, so that the parts'
    gradients add up to the whole's. Without any target the loss is 0, and so is its gradient.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    total = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum")
    return total / max(1, int((targets != IGNORE).sum()) if of is None else of)


def answer_loss_gradient(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """d answer_loss / d logits by hand, (B, T, V): (softmax - one-hot) / number of targets; 0 where there is none."""
    asked = targets != IGNORE
    wanted = F.one_hot(targets.masked_fill(~asked, 0), logits.shape[-1])
    return (logits.softmax(-1) - wanted) * asked[..., None] / max(1, int(asked.sum()))


def tuning_loss(model: nn.Module, *batch: torch.Tensor) -> torch.Tensor:
    """For `shared.training.fit`: fit(model, lambda: pack(...), loss=tuning_loss, ...)."""
    batch = Batch(*batch)
    return answer_loss(read(model, batch), batch.targets)


def backward_in_parts(model: nn.Module, parts: Sequence[Batch]) -> float:
    """Add the gradient of one step to the parameters, its batch read in parts. Returns the loss: that of the whole."""
    of, whole = sum(int((part.targets != IGNORE).sum()) for part in parts), 0.0
    for part in parts:
        loss = answer_loss(read(model, part), part.targets, of)
        loss.backward()
        whole += loss.item()
    return whole


class LoRALinear(nn.Module):
    """A frozen linear layer W with a trained correction of low rank: W x + alpha / rank * B (A x).

    A (rank, d_in) is drawn as PyTorch draws a linear layer, uniformly within 1 / sqrt(d_in); B (d_out, rank) is 0, so
    that before the first step the layer is the one that it was. Raises ValueError for a rank below 1.
    """

    def __init__(self, linear: nn.Linear, rank: int, alpha: float, generator: torch.Generator | None = None):
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank is {rank}: expected at least 1")
        like = {"dtype": linear.weight.dtype, "device": linear.weight.device}
        bound = 1 / math.sqrt(linear.in_features)
        drawn = torch.rand(rank, linear.in_features, generator=generator) * 2 - 1
        self.linear = linear.requires_grad_(False)
        self.A = nn.Parameter((drawn * bound).to(**like))
        self.B = nn.Parameter(torch.zeros(linear.out_features, rank, **like))
        self.scale, self.base = alpha / rank, None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., d_in) -> (..., d_out)."""
        y = self.linear(x)
        return y if self.merged else y + (x @ self.A.mT) @ self.B.mT * self.scale

    @property
    def merged(self) -> bool:
        """W holds the correction."""
        return self.base is not None

    @torch.no_grad()
    def merge(self) -> None:
        """Put the correction into W, so that it costs no time; a second call changes nothing."""
        if not self.merged:
            self.base = self.linear.weight.clone()  # taking the correction off again would leave a rounding error
            self.linear.weight += self.scale * self.B @ self.A

    @torch.no_grad()
    def unmerge(self) -> None:
        """W as it was before `merge`, to the last bit."""
        if self.merged:
            self.linear.weight.copy_(self.base)
            self.base = None


def add_lora(
    model: nn.Module, rank: int, alpha: float, names: Collection[str] = MATRICES, seed: int = 0
) -> list[LoRALinear]:
    """Put an adapter around each linear layer that has one of these names, and freeze all else. Returns the adapters.

    Raises ValueError if no layer has such a name and for a model that has adapters.
    """
    if any(adapters(model)):
        raise ValueError("the model has adapters: expected one without")
    found = [
        (owner, name)
        for owner in model.modules()
        for name in names
        if isinstance(vars(owner)["_modules"].get(name), nn.Linear)
    ]
    if not found:
        raise ValueError(f"no linear layer is called one of {sorted(names)}")
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for owner, name in found:
        setattr(owner, name, LoRALinear(getattr(owner, name), rank, alpha, generator))
    return list(adapters(model))


def adapters(model: nn.Module) -> Iterator[LoRALinear]:
    """The model's adapters, in its own order."""
    return (module for module in model.modules() if isinstance(module, LoRALinear))


def lora_gradients(
    x: torch.Tensor, A: torch.Tensor, B: torch.Tensor, scale: float, upstream: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """By hand, for x (n, d_in) and dL/dy (n, d_out): dL/dA = scale B^T (dL/dy)^T x, dL/dB = scale (dL/dy)^T (x A^T).

    With B = 0 the first is 0: B learns first.
    """
    return scale * B.mT @ upstream.mT @ x, scale * upstream.mT @ (x @ A.mT)


def answer_log_probability(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The log-probability of each row's whole answer, (B,): the sum over its targets, in nats."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    asked = targets != IGNORE
    each = logits.log_softmax(-1).gather(-1, targets.masked_fill(~asked, 0)[..., None])[..., 0]  # (B, T)
    return (each * asked).sum(dim=1)


def preference_loss(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    reference_chosen: torch.Tensor,
    reference_rejected: torch.Tensor,
    beta: float,
) -> torch.Tensor:
    """DPO's loss, a number: -log sigmoid(beta * m), the mean over pairs (n,). The margin m is how much more the model
    has moved the log-probability of the chosen answer than of the rejected one, away from a frozen reference.

    With all four equal: log 2.
    """
    margin = (chosen - reference_chosen) - (rejected - reference_rejected)  # (n,)
    return -F.logsigmoid(beta * margin).mean()
