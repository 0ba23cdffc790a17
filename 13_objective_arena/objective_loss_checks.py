"""What must hold of the body that reads by a batch's mask, and of the loss, in `objectives.py`."""

import math

import torch
from objective_cases import FLOAT, VOCABULARY, T, makers, seeded, small_model, texts
from torch import nn
from torch.nn import functional as F

from shared.clinic import Check, difference
from shared.hooks import hooked


def _logits(m, B=3, width=7, size=9, seed=0):
    """Logits, and a batch of uneven rows with weights; a whole row is asked nothing."""
    logits = torch.randn(B, width, size, generator=seeded(seed), dtype=FLOAT) * 2
    targets = torch.randint(size, (B, width), generator=seeded(seed + 1))
    asked = torch.rand(B, width, generator=seeded(seed + 2)) < torch.tensor([0.3, 0.9, 0.0])[:, None]
    asked[0, :2] = torch.tensor([True, False])
    weights = torch.rand(B, width, generator=seeded(seed + 3)) * 3 * asked
    return logits, m.Batch(torch.zeros_like(targets), targets.masked_fill(~asked, -100), _see(B, width), weights)


def _see(B, width):
    return torch.ones(B, width, width, dtype=torch.bool)


def _by_hand(logits, batch):
    """Position by position: the losses, and their weighted mean."""
    found = torch.zeros(batch.targets.shape, dtype=FLOAT)
    for b, t in (batch.targets != -100).nonzero().tolist():
        row = logits[b, t].tolist()
        found[b, t] = math.log(sum(math.exp(z) for z in row)) - row[int(batch.targets[b, t])]
    return found, (found * batch.weights).sum() / batch.weights.sum()


def _check_losses(m):
    logits, batch = _logits(m)
    if gap := difference(m.losses(logits, batch), _by_hand(logits, batch)[0]):
        return f"losses [row, position]: {gap}"
    uniform = torch.zeros(3, 7, 9, dtype=FLOAT)
    asked = batch.targets != -100
    if gap := difference(m.losses(uniform, batch), asked.to(FLOAT) * math.log(9)):
        return f"uniform logits over 9 tokens: losses [row, position] {gap}, log 9 is {math.log(9):.4f}"


def _check_mean(m):
    for seed in (0, 10):
        logits, batch = _logits(m, seed=seed)
        plain = batch._replace(weights=(batch.targets != -100).float())
        for name, it in (("weights of 1", plain), ("weights", batch)):
            wanted = _by_hand(logits, it)[1]
            if gap := difference(m.objective_loss(logits, it).detach(), wanted, 1e-5):  # weights are float32
                counts = (it.targets != -100).sum(dim=1).tolist()
                return f"rows with {counts} positions asked, {name}: {gap}, the weighted mean over all of them"
            if gap := difference(m.objective_loss(logits, it._replace(weights=it.weights * 0.01)), wanted, 1e-5):
                return f"rows with {name}, all a hundredth: {gap}, the same mean"


def _check_only_asked(m):
    logits, batch = _logits(m)
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(m.objective_loss(logits, batch), logits)
    share = batch.weights.to(FLOAT) / batch.weights.sum()
    right = F.one_hot(batch.targets.clamp(min=0), 9)
    wanted = (logits.detach().softmax(-1) - right) * share[..., None]
    if gap := difference(gradient, wanted, 1e-5):
        return f"the gradient at the logits [row, position, token], share of the weight times (p - target): {gap}"
    noise = torch.randn(logits.shape, generator=seeded(9), dtype=FLOAT) * 100 * (batch.targets == -100)[..., None]
    if gap := difference(m.objective_loss(logits + noise, batch), m.objective_loss(logits, batch)):
        return f"other logits where nothing is asked: the loss is {gap}"


def _check_nothing_asked(m):
    cases = {"causal, texts of one word": m.causal(texts()[:, :1], VOCABULARY)}
    cases["prefix, the whole texts"] = m.prefix(texts(), VOCABULARY, torch.tensor([11, 8, 5]))
    cases["hide, nothing hidden"] = m.hide(texts(), torch.zeros(3, T, dtype=torch.bool), VOCABULARY)
    model = small_model().requires_grad_()
    for name, batch in cases.items():
        loss = m.objective_loss(m.read(model, batch), batch)
        loss.backward()
        if loss.item() != 0 or any(w.grad is not None and w.grad.abs().max() != 0 for w in model.parameters()):
            return f"{name}: nothing is asked and the loss is {loss.item()}, or its gradient is not 0"


def _check_extremes(m):
    logits, batch = _logits(m)
    far = m.objective_loss(logits * 1000, batch)
    gap = difference(m.objective_loss(logits + 1000, batch), m.objective_loss(logits, batch), 1e-3)
    if not far.isfinite() or gap:
        return f"logits of thousands: {float(far)}; logits all 1,000 larger: {gap}"
    low = logits.bfloat16()
    found = m.losses(low, batch)
    if found.dtype != torch.float32 or difference(found.double(), m.losses(low.double(), batch), 1e-5):
        return f"of bfloat16 logits the losses are {found.dtype}, or rounded to it: expected float32"


def _check_read(m):
    model, tokens = small_model(), texts()[:, :5]
    batch = m.causal(tokens, VOCABULARY)
    if gap := difference(m.read(model, batch), model(tokens)):
        return f"causal: logits [row, position, token], not as the decoder's own: {gap}"
    before, seen = model(texts()), torch.rand(3, T, T, generator=seeded()) < 0.5
    seen |= torch.eye(T, dtype=torch.bool)
    found = m.read(model, batch._replace(inputs=texts(), seen=seen))
    if gap := difference(model(texts()), before):
        return f"after `read` the decoder itself computes something else: {gap}"
    for b in range(3):
        with hooked(model, {"mask": lambda mask, layer, b=b: seen[b]}):
            wanted = model(texts()[b : b + 1])[0]
        if gap := difference(found[b], wanted):
            return f"a mask drawn for each row: logits of row {b} [position, token] {gap}"


def _check_training_loss(m):
    model = small_model()
    for name, make in makers(m).items():
        batch = make(texts())
        if gap := difference(m.training_loss(model, *batch), m.objective_loss(m.read(model, batch), batch)):
            return f"{name}: {gap}"


def _split(batch, size):
    return zip(*(part.split(size) for part in batch), strict=True)


def _check_held_out(m):
    model = small_model()
    model.norm = nn.Sequential(model.norm, nn.Dropout(0.5))
    tokens = texts().repeat(3, 1)
    hidden = torch.rand(tokens.shape, generator=seeded()) < torch.linspace(0.1, 0.9, 9)[:, None]
    whole = m.hide(tokens, hidden, VOCABULARY)
    whole = whole._replace(weights=whole.weights * torch.linspace(0.5, 3, T))
    model.eval()
    wanted = float(_by_hand(m.read(model, whole), whole)[1])
    for mode in (True, False):
        for size in (1, 2, 4, 9):
            model.train(mode)
            found = m.held_out_loss(model, (m.Batch(*parts) for parts in _split(whole, size)))
            if not abs(found - wanted) <= 1e-6:
                return f"9 rows in batches of {size}, dropout {mode}: {found:.6f}, expected {wanted:.6f}"
            if model.training != mode:
                return f"the model was left with training {model.training}, it was {mode}"


LOSS_CHECKS = [
    Check(
        "the loss at a position is log sum exp minus its target's logit, 0 where nothing is asked",
        _check_losses,
        "What number says that nothing is asked?",
        about=["losses", "objective_loss"],
    ),
    Check(
        "the loss is the weighted mean over all that is asked in the batch",
        _check_mean,
        "By what is the sum divided? Is a mean of rows' means taken?",
        about=["objective_loss"],
    ),
    Check(
        "logits where nothing is asked have no part in the loss",
        _check_only_asked,
        "Which positions have a gradient?",
        about=["objective_loss"],
    ),
    Check(
        "if nothing is asked the loss is 0, and so is its gradient",
        _check_nothing_asked,
        "What is 0 divided by 0?",
        about=["objective_loss", "losses"],
    ),
    Check(
        "large logits and half precision give finite losses, in float32 or better",
        _check_extremes,
        "In which type is the softmax taken?",
        about=["losses", "objective_loss"],
    ),
    Check(
        "the body reads by the batch's mask, each row by its own, and is left as it was",
        _check_read,
        "Which axis of the mask are heads?",
        about=["read"],
    ),
    Check("the training loss is the loss of what was read", _check_training_loss, about=["training_loss"]),
    Check(
        "the held-out loss is one mean over all batches, without dropout",
        _check_held_out,
        "Is a mean of batches' means taken? In which mode is the model, before and after?",
        about=["held_out_loss"],
    ),
]
