"""What must hold of the body that reads by a batch's mask, and of the loss, in `objectives.py`."""

import math

import torch
from objective_cases import FLOAT, VOCABULARY, T, largest_difference, makers, seeded, small_model, texts
from torch import nn
from torch.nn import functional as F

from shared.clinic import Check
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
    if gap := largest_difference(m.losses(logits, batch), _by_hand(logits, batch)[0], "row position"):
        return f"losses, {gap}"
    uniform = torch.zeros(3, 7, 9, dtype=FLOAT)
    asked = batch.targets != -100
    if gap := largest_difference(m.losses(uniform, batch), asked.to(FLOAT) * math.log(9), "row position"):
        return f"uniform logits over 9 tokens, losses, {gap}, log 9 is {math.log(9):.4f}"


def _check_mean(m):
    for seed in (0, 10):
        logits, batch = _logits(m, seed=seed)
        plain = batch._replace(weights=(batch.targets != -100).float())
        some = plain.weights.sum(dim=1) > 0  # a row that asks nothing would hide what is wrong with the rest
        for name, it in (("weights of 1", plain), ("weights", batch)):
            for rows in (some, torch.ones(3, dtype=torch.bool)):
                if gap := _mean_gap(m, logits[rows], m.Batch(*(part[rows] for part in it))):
                    return f"{name}, {gap}"


def _mean_gap(m, logits, batch):
    wanted = _by_hand(logits, batch)[1]
    told = f"{len(logits)} rows of 7 positions, {(batch.targets != -100).sum(dim=1).tolist()} of them asked"
    if gap := largest_difference(m.objective_loss(logits, batch).detach(), wanted, "", 1e-5):  # float32 weights
        return f"{told}: {gap}"
    scaled = m.objective_loss(logits, batch._replace(weights=batch.weights * 0.01))
    if gap := largest_difference(scaled, wanted, "", 1e-5):
        return f"{told}, all weights a hundredth: {gap}"


def _check_only_asked(m):
    logits, batch = _logits(m)
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(m.objective_loss(logits, batch), logits)
    share = batch.weights.to(FLOAT) / batch.weights.sum()
    right = F.one_hot(batch.targets.clamp(min=0), 9)
    wanted = (logits.detach().softmax(-1) - right) * share[..., None]
    asked = (batch.targets != -100)[..., None]
    for where, there in (("something", asked), ("nothing", ~asked)):
        if gap := largest_difference(gradient * there, wanted * there, "row position logit", 1e-5):
            return f"gradient where {where} is asked, {gap}"
    noise = torch.randn(logits.shape, generator=seeded(9), dtype=FLOAT) * 100 * ~asked
    if gap := largest_difference(
        m.objective_loss(logits + noise, batch), m.objective_loss(logits, batch), other="before"
    ):
        return f"the loss, with other logits where nothing is asked: {gap}"


def _check_nothing_asked(m):
    cases = {"causal, texts of one word": m.causal(texts()[:, :1], VOCABULARY)}
    cases["prefix, the whole texts"] = m.prefix(texts(), VOCABULARY, torch.tensor([11, 8, 5]))
    cases["hide, nothing hidden"] = m.hide(texts(), torch.zeros(3, T, dtype=torch.bool), VOCABULARY)
    model = small_model().requires_grad_()
    for name, batch in cases.items():
        loss = m.objective_loss(m.read(model, batch), batch)
        loss.backward()
        largest = torch.stack([w.grad.abs().max() for w in model.parameters() if w.grad is not None]).max()
        found = [int((batch.targets != -100).sum()), loss.item(), largest.item()]
        if found != [0, 0, 0]:
            numbers = "{} targets, a loss of {:.4g}, a largest gradient of {:.4g}".format(*found)
            return f"{name}: found {numbers}, expected 0, 0 and 0"


def _check_extremes(m):
    logits, batch = _logits(m)
    if not (far := m.objective_loss(logits * 1000, batch)).isfinite():
        return f"logits of thousands: found a loss of {float(far)}, expected a finite one"
    larger = m.objective_loss(logits + 1000, batch)
    if gap := largest_difference(larger, m.objective_loss(logits, batch), "", 1e-3, "before"):
        return f"the loss, with all logits 1,000 larger: {gap}"
    low = logits.bfloat16()
    found = m.losses(low, batch)
    if found.dtype != torch.float32:
        return f"losses of bfloat16 logits: found {found.dtype}, expected torch.float32"
    if gap := largest_difference(found.double(), m.losses(low.double(), batch), "row position", 1e-5):
        return f"losses of bfloat16 logits, expected as of the same in float64, {gap}"


def _check_read(m):
    model, tokens = small_model(), texts()[:, :5]
    batch = m.causal(tokens, VOCABULARY)
    if gap := largest_difference(m.read(model, batch), model(tokens), "row position logit"):
        return f"causal, expected as of the decoder itself, {gap}"
    before, seen = model(texts()), torch.rand(3, T, T, generator=seeded()) < 0.5
    seen |= torch.eye(T, dtype=torch.bool)
    found = m.read(model, batch._replace(inputs=texts(), seen=seen))
    if gap := largest_difference(model(texts()), before, "row position logit", other="before"):
        return f"the decoder itself, after `read`, {gap}"
    if gap := largest_difference(found, _read_by_row(model, texts(), seen), "row position logit"):
        return f"masks drawn at random, {gap}"


def _read_by_row(model, inputs, seen):
    """The logits of each row, read alone by its own mask."""
    logits = []
    for row, mask in zip(inputs, seen, strict=True):
        with hooked(model, {"mask": lambda _, layer, mask=mask: mask}):
            logits.append(model(row[None])[0])
    return torch.stack(logits)


def _check_training_loss(m):
    model = small_model()
    for name, make in makers(m).items():
        batch = make(texts())
        wanted = m.objective_loss(m.read(model, batch), batch)
        if gap := largest_difference(m.training_loss(model, *batch), wanted):
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
    wanted = float(_by_hand(_read_by_row(model, whole.inputs, whole.seen), whole)[1])
    for mode in (True, False):
        for size in (1, 2, 4, 9):
            model.train(mode)
            found = m.held_out_loss(model, (m.Batch(*parts) for parts in _split(whole, size)))
            if not abs(found - wanted) <= 1e-6:
                how = f"9 rows in batches of {size}, the model in {'training' if mode else 'eval'} mode"
                return f"{how}: found {found:.6f}, expected {wanted:.6f}"
            if model.training != mode:
                return f"`training` of the model, afterwards: found {model.training}, expected {mode}"


LOSS_CHECKS = [
    Check(
        "the loss at a position is log sum exp minus its target's logit, 0 where nothing is asked",
        _check_losses,
        "Which positions have a loss, and which numbers make it?",
        about=["losses", "objective_loss"],
    ),
    Check(
        "the loss is the weighted mean over all that is asked in the batch",
        _check_mean,
        "Over which positions does the sum go, with which weights, and by what is it divided?",
        about=["objective_loss"],
    ),
    Check(
        "the gradient at a position is its share of the weights times (p - target), 0 where nothing is asked",
        _check_only_asked,
        "Which positions have a gradient, and is it too large or too small by the same factor at each?",
        about=["objective_loss"],
    ),
    Check(
        "where there is nothing to ask there is no target, and the loss is 0, and so is its gradient",
        _check_nothing_asked,
        "How many targets has this batch, and how many should it have? Which two numbers is the loss made from then?",
        about=["objective_loss", "losses"],
    ),
    Check(
        "large logits and half precision give finite losses, in float32 or better",
        _check_extremes,
        "In which type, and in which order, are the exponentials, their sum and its logarithm taken?",
        about=["losses", "objective_loss"],
    ),
    Check(
        "the body reads by the batch's mask, each row by its own, and is left as it was",
        _check_read,
        "Which shape has the mask that the decoder is given, and what is each of its axes?",
        about=["read"],
    ),
    Check("the training loss is the loss of what was read", _check_training_loss, about=["training_loss"]),
    Check(
        "the held-out loss is one mean over all batches, without dropout",
        _check_held_out,
        "Are the losses of single words right in such batches, and how are they added up? In which mode is the model?",
        about=["held_out_loss"],
    ),
]
