"""The checks of lesson 05: what a right `block.py` must do, and what a reader's exercises must do.

No two sizes are equal, weights are random and not as at the start: zero biases and gains of one would hide half of the
faults.
"""

import math
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_model, save_model
from torch.nn import functional as F

from shared.clinic import Check, difference, refusal
from shared.tiny_lm import TinyLM

V, CONTEXT, C, LAYERS, HEADS = 11, 9, 12, 2, 3


def _decoder(m, scale=0.3, **settings):
    """A Decoder in float64 and eval mode whose weights are all random, the same at every call."""
    return _randomised(m.Decoder(V, CONTEXT, C, LAYERS, HEADS, **settings), scale)


def _randomised(model, scale=0.3):
    generator = torch.Generator().manual_seed(0)
    for parameter in model.double().parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model.eval()


def _tokens(batch=4, time=8, below=V):
    return torch.randint(below, (batch, time), generator=torch.Generator().manual_seed(1))


def _silenced(model):
    """The model with sub-layers that write nothing."""
    for name, parameter in model.named_parameters():
        if ".proj." in name:
            parameter.data.zero_()
    return model


def _stream(model, tokens):
    """What the last norm is given."""
    seen = []
    hook = model.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    model(tokens)
    hook.remove()
    return seen[0] if seen else None


def _check_tiny_lm(m):
    theirs, ours = _randomised(TinyLM(V, CONTEXT, C, LAYERS, HEADS)), _decoder(m)
    ours.load_state_dict(theirs.state_dict(), strict=False)  # TinyLM has no head of its own
    if gap := difference(ours(_tokens()), theirs(_tokens())):
        return f"with TinyLM's weights the logits are not TinyLM's: {gap}"


def _check_identity(m):
    model = _silenced(_decoder(m))
    x = _tokens()
    start = model.positions(model.embedding(x))
    if (end := _stream(model, x)) is None:
        return "nothing reaches the last norm"
    if gap := difference(end, start):
        return f"sub-layers that write nothing should leave the stream as it was: {gap}"


def _check_ledger(m):
    if _stream(_decoder(m), _tokens()) is None:
        return "nothing reaches the last norm"
    entries, end = m.ledger(_decoder(m), _tokens())
    if len(entries) != 2 + 2 * LAYERS:
        return f"the ledger of {LAYERS} blocks has {list(entries)}: expected embedding, positions and 2 a block"
    if gap := difference(sum(entries.values()), end):
        return f"embedding, positions and all writes do not add up to the stream at the end: {gap}"


def _check_order(m):
    block = _decoder(m).blocks[0]
    heard = []
    block.feed_forward.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0].detach()))
    (x,) = (torch.randn(2, 5, C, generator=torch.Generator().manual_seed(2), dtype=torch.float64),)
    block(x)
    block.attention.proj.bias.data += torch.arange(C)
    block(x)
    if torch.equal(heard[0], heard[1]):
        return "attention wrote something else and the feed-forward was told the same"
    expected = block.norm_2(x + block.attention(block.norm_1(x)))
    if gap := difference(heard[1], expected):
        return f"the feed-forward should read norm_2 of the stream after attention: {gap}"


def _check_used(m):
    model = _decoder(m)
    model(_tokens()).square().sum().backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    if idle:
        return f"no gradient reaches {idle}"


def _check_peeking(m):
    model, x = _decoder(m), _tokens()
    y = x.clone()
    y[:, 5] = (y[:, 5] + 1) % V
    moved = (model(x) != model(y)).any(dim=-1).any(dim=0)
    if moved[:5].any():
        return f"token 5 was changed and the logits at {int(moved.nonzero()[0])}, before it, moved"
    if not moved[5:].all():
        return "token 5 was changed and later logits did not move"


def _check_last_norm(m):
    model = _silenced(_decoder(m, scale=1.0, tied=False))
    x = _tokens()
    before = model(x)
    for name in ("embedding.weight", "positions.table.weight"):
        model.get_parameter(name).data *= 100
    if gap := difference(model(x), before, tolerance=1e-3):  # the norm's epsilon is 1e-5 of a variance of about 2
        return f"a stream 100 times longer gives other logits: {gap}"


def _check_start(m):
    for n_layers in (2, 12):
        torch.manual_seed(0)
        model = m.Decoder(200, 32, 64, n_layers, 4)
        with torch.no_grad():
            loss = m.next_token_loss(model(_tokens(8, 32, 200)), _tokens(8, 32, 200)).item()
        if abs(loss - math.log(200)) > 0.1:  # logits of variance 0.02^2 * 64 = 0.03 add half of that; 256 tokens
            return f"with {n_layers} layers the loss at the start is {loss:.2f}, expected ln 200 = {math.log(200):.2f}"


def _check_spread(m):
    for n_layers in (2, 8):
        torch.manual_seed(0)
        model = m.Decoder(V, CONTEXT, 48, n_layers, HEADS)
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and parameter.numel() > 1000:
                wanted = 0.02 / math.sqrt(2 * n_layers) if name.endswith("proj.weight") else 0.02
                if not 0.9 < parameter.std().item() / wanted < 1.1:  # of 2,304 numbers or more: within 5 %
                    return f"{n_layers} layers: {name} starts at {parameter.std().item():.4f}, expected {wanted:.4f}"


def _check_tied(m):
    torch.manual_seed(0)
    model = m.Decoder(V, CONTEXT, C, LAYERS, HEADS)
    wanted = V * C + CONTEXT * C + LAYERS * (12 * C * C + 13 * C) + 2 * C
    found = sum(parameter.numel() for parameter in model.parameters())
    if found != wanted:
        return f"{found} parameters, expected {wanted}: the difference is {found - wanted}, V d is {V * C}"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        save_model(model, str(file))
        copy = m.Decoder(V, CONTEXT, C, LAYERS, HEADS)
        load_model(copy, str(file))
    if copy.head.weight is not copy.embedding.weight:
        return "after saving and loading, the head is no longer the embedding's matrix"
    if gap := difference(copy(_tokens()), model(_tokens()), tolerance=0):
        return f"after saving and loading, other logits: {gap}"


def _check_dropout(m):
    model = _decoder(m, dropout=0.5)
    x = _tokens()
    if not torch.equal(model(x), model(x)) or difference(model(x), _decoder(m)(x)):
        return "in eval mode two runs differ, or differ from a model without dropout"
    model.train()
    if torch.equal(model(x), model(x)):
        return "in training, with dropout 0.5, two runs are the same"


def _check_loss(m):
    x = _tokens(3, 8)
    for shift, words in ((0, "its own token"), (2, "the token after the next")):
        told = 50.0 * F.one_hot(x.roll(-shift, dims=1), V).double()
        if m.next_token_loss(told, x) < 1e-6:
            return f"a model that names {words} has a loss of 0"
    told = 50.0 * F.one_hot(x.roll(-1, dims=1), V).double()
    if (loss := m.next_token_loss(told, x)) > 1e-6:
        return f"a model that always names the next token has a loss of {loss:.3g}, expected 0"


def _check_gradients(m):
    model, x = _decoder(m), _tokens()
    loss = F.cross_entropy(model(x)[:, :-1].flatten(0, 1), x[:, 1:].flatten())
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    wanted = dict(zip(names, gradients, strict=True))
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    found_loss, found = m.loss_and_gradients(weights, x, HEADS)
    if abs(found_loss - loss.item()) > 1e-9:
        return f"the loss by hand is {found_loss:.6f}, by the model {loss.item():.6f}"
    gaps = {}  # from the end of the network: the first that is wrong is near the bug
    for name in reversed(names):
        if name not in found or wanted[name] is None:
            return f"no gradient for {name}, {'by hand' if name not in found else 'by autograd'}"
        if gap := difference(found[name], wanted[name]):
            gaps[name] = gap
    if gaps:
        name, gap = next(iter(gaps.items()))
        count = f"{len(gaps)} of {len(names)} gradients by hand are not autograd's"
        return f"{count}. Going backward, the first of them is that of {name}: {gap}"


def _check_grouped(m):
    one, many = (_randomised(m.Attention(C, HEADS, n_kv_heads=n, rotary_base=100.0)) for n in (1, HEADS))
    d = C // HEADS
    for part in ("weight", "bias"):
        q, k, v = getattr(one.qkv, part).data.split([C, d, d])
        getattr(many.qkv, part).data = torch.cat([q, k, k, k, v, v, v])
    many.proj = one.proj
    x = torch.randn(2, 7, C, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    if gap := difference(one(x), many(x)):
        return f"one key and value for {HEADS} heads should equal {HEADS} equal ones: {gap}"


def _check_overfits(m):
    torch.manual_seed(0)
    model, x = m.Decoder(V, CONTEXT, C, LAYERS, HEADS), _tokens(2)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = m.next_token_loss(model(x), x)
        loss.backward()
        optimizer.step()
    if not loss.item() < 0.2:  # 0.01 here, ln 11 = 2.4 at the start
        return f"after 60 steps on the same 14 tokens the loss is {loss.item():.2f}, expected near 0"


def _check_inputs(m):
    cases = [
        ("12 numbers for 5 heads", "divide", lambda: m.Attention(C, 5)),
        ("3 heads and 2 for keys", "divide", lambda: m.Attention(C, 3, n_kv_heads=2)),
        ("no heads", "1 or more", lambda: m.Attention(C, 0)),
        ("heads of 3 numbers to rotate", "even", lambda: m.Attention(C, 4, rotary_base=100.0)),
        ("no words", "1 or more", lambda: m.Decoder(0, CONTEXT, C, LAYERS, HEADS)),
        ("a text longer than the context", "shape", lambda: _decoder(m)(_tokens(1, CONTEXT + 1))),
        ("one axis", "shape", lambda: _decoder(m)(_tokens()[0])),
        ("a loss of one token", "2 tokens", lambda: m.next_token_loss(torch.zeros(1, 1, V), _tokens(1, 1))),
    ]
    return refusal(cases)


CHECKS = [
    Check(
        "sub-layers that write nothing leave the stream alone", _check_identity, "What is carried past the sub-layers?"
    ),
    Check("embedding plus all writes is the stream at the end", _check_ledger),
    Check(
        "the feed-forward reads what attention wrote",
        _check_order,
        "Which norm does the feed-forward read, and of what?",
    ),
    Check("the head reads a normed stream", _check_last_norm, "What stands between the stream and the head?"),
    Check("every weight is used", _check_used, "Which call would use them?"),
    Check("nobody sees the future", _check_peeking),
    Check("one key for all heads equals the same key for each", _check_grouped),
    Check(
        "TinyLM's weights give TinyLM's logits",
        _check_tiny_lm,
        "What does each line of Block.forward read, and what does it carry on?",
    ),
    Check("the loss at the start is ln(vocabulary)", _check_start),
    Check("what writes to the stream starts smaller by sqrt(2 n_layers)", _check_spread),
    Check(
        "tied weights are one matrix, also after save and load",
        _check_tied,
        "Is the head still the matrix of the embedding?",
    ),
    Check(
        "dropout is off in eval mode and on in training", _check_dropout, "What tells dropout that training is over?"
    ),
    Check("the loss asks for the next token", _check_loss, "How far are logits and tokens shifted against each other?"),
    Check("the backward pass by hand equals autograd's", _check_gradients),
    Check("it learns one batch by heart", _check_overfits),
    Check("what cannot work is refused in words", _check_inputs),
]


def _check_lens(m):
    model, x = _randomised(TinyLM(V, CONTEXT, C, LAYERS, HEADS)), _tokens()
    stream, wanted = model.positions(model.embedding(x)), []
    for block in [None, *model.blocks]:
        stream = stream if block is None else block(stream)
        wanted.append(F.linear(model.norm(stream), model.embedding.weight))
    if gap := difference(m.logit_lens(model, x), torch.stack(wanted)):
        return f"logits from the stream before the first block and after each, (n_layers + 1, B, T, V): {gap}"


def _check_rms(m):
    generator = torch.Generator().manual_seed(4)
    x, dy, gain = (torch.randn(s, generator=generator, dtype=torch.float64) for s in ((2, 5, C), (2, 5, C), (C,)))
    x.requires_grad_()
    gain.requires_grad_()
    wanted = F.rms_norm(x, (C,), gain, eps=1e-5)
    dx, dgain = torch.autograd.grad(wanted, (x, gain), dy)
    g = {}
    found, back = m.rms_norm({"n.weight": gain.detach()}, "n", x.detach())
    for what, one, other in (
        ("the output", found, wanted),
        ("the gradient of x", back(dy, g), dx),
        ("the gradient of the gain", g.get("n.weight", torch.zeros(1)), dgain),
    ):
        if gap := difference(one, other.detach()):
            return f"{what} is not PyTorch's, eps=1e-5: {gap}"


def _check_parallel(m):
    block = _randomised(TinyLM(V, CONTEXT, C, LAYERS, HEADS)).blocks[0]
    x = torch.randn(2, 5, C, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    wanted = x + block.attention(block.norm_1(x)) + block.feed_forward(block.norm_1(x))
    if gap := difference(m.parallel_block(block, x), wanted):
        return f"attention and feed-forward should read the same norm_1 of the block's input: {gap}"


EXERCISES = [
    Check("a logit lens", _check_lens),
    Check("RMSNorm forward and back, by hand", _check_rms),
    Check("a parallel block", _check_parallel),
]
